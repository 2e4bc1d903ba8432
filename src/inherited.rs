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
    let mut buffer = [0; 2048];
    let read = sys::read(fd, &mut buffer);
    sys::close(fd);
    parse(&buffer[..read.ok()?])
}

/// The mask of ignored signals that a /proc/PID/status says.
pub fn parse(status: &[u8]) -> Option<u64> {
    // Eight bytes are compared as one number. A process's own name may say the same, in the first line's midst.
    const KEY: [u8; 8] = *b"SigIgn:\t";
    let is_there = |place: usize, part: &[u8]| part == KEY && status[place] == b'\n';
    let place = status.get(1..)?.windows(KEY.len()).enumerate().position(|(place, part)| is_there(place, part))?;
    let start = place + 1 + KEY.len();
    let digits = status.get(start..start + 16)?;
    digits.iter().try_fold(0, |mask, digit| Some(mask << 4 | u64::from((*digit as char).to_digit(16)?)))
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
