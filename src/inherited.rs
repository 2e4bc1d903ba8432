//! What a parent may have left behind: ignored signals. The service gets default dispositions, and an ignored SIGCHLD
//! would have the kernel reap the children behind the init's back.

use crate::{signal, sys};

/// Gives every signal its default disposition.
pub fn reset_dispositions() {
    // One look at /proc instead of a call for each signal.
    let mut ignored = ignored().unwrap_or(signal::ALL);
    while ignored != 0 {
        sys::set_default(ignored.trailing_zeros() as i32 + 1);
        ignored &= ignored - 1;
    }
}

/// The mask of ignored signals, from /proc/self/status. By itself, so that its buffer leaves the stack.
#[inline(never)]
fn ignored() -> Option<u64> {
    let fd = sys::open(c"/proc/self/status", libc::O_RDONLY).ok()?;
    // 1.5 kB in practice; what is looked for comes before the long lists of CPUs.
    let mut buffer = [0; 1280];
    let read = sys::read(fd, &mut buffer);
    sys::close(fd);
    parse(&buffer[..read.ok()?])
}

/// The mask of ignored signals that a /proc/PID/status says.
pub fn parse(status: &[u8]) -> Option<u64> {
    let mut rest = status;
    let digits = loop {
        match rest {
            [b'\n', b'S', b'i', b'g', b'I', b'g', b'n', b':', b'\t', digits @ ..] => break digits,
            [_, more @ ..] => rest = more,
            [] => return None,
        }
    };
    let mut mask = 0;
    for digit in digits.get(..16)? {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        mask = mask << 4 | u64::from(value);
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_mask() {
        assert_eq!(
            parse(b"Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t8000000000001002\nSig"),
            Some(0x8000_0000_0000_1002)
        );
        assert_eq!(parse(b"\nSigIgn:\t80000"), None);
        // Rust's test runner ignores SIGPIPE.
        assert_ne!(ignored().unwrap() & signal::bit(libc::SIGPIPE), 0);
    }
}
