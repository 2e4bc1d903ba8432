//! Readiness and signs of life by sd_notify(3): a datagram socket whose name the service finds in NOTIFY_SOCKET.
//!
//! The socket has a name of the kernel's own choice in the abstract namespace, so that it needs no writable folder, and
//! tells of a message by SIGIO: the init waits for nothing but signals.

use std::ffi::{OsStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;

use crate::{environment, sys, tree};

/// What a service said in one message; what is not known to the init is passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// READY=1
    pub ready: bool,
    /// STOPPING=1
    pub stopping: bool,
    /// WATCHDOG=1
    pub alive: bool,
    /// WATCHDOG=trigger
    pub stuck: bool,
    /// WATCHDOG_USEC=…
    pub watchdog: Option<Duration>,
    /// MAINPID=…
    pub main: Option<c_int>,
}

/// Reads a message: NAME=VALUE lines.
pub fn parse(message: &[u8]) -> Message {
    let mut found = Message::default();
    for line in message.split(|byte| *byte == b'\n') {
        let Some((name, value)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once('=')) else {
            continue;
        };
        match (name, value) {
            ("READY", "1") => found.ready = true,
            ("STOPPING", "1") => found.stopping = true,
            ("WATCHDOG", "1") => found.alive = true,
            ("WATCHDOG", "trigger") => found.stuck = true,
            ("WATCHDOG_USEC", _) => found.watchdog = value.parse().ok().map(Duration::from_micros),
            ("MAINPID", _) => found.main = value.parse().ok().filter(|pid| *pid > 0),
            _ => {}
        }
    }
    found
}

/// The open socket.
pub struct Socket {
    fd: c_int,
    /// As NOTIFY_SOCKET says it.
    name: Vec<u8>,
    /// Where the init's own supervisor listens.
    outer: Option<&'static OsStr>,
}

impl Socket {
    /// Opens a socket that tells of messages by SIGIO.
    pub fn open() -> Result<Self, Errno> {
        let (fd, name) = sys::open_notify_socket()?;
        let name = [b"@", name.as_slice()].concat();
        Ok(Self { fd, name, outer: environment::variable("NOTIFY_SOCKET") })
    }

    pub fn fd(&self) -> c_int {
        self.fd
    }

    /// The init's own supervisor hears what the service says.
    pub fn has_outer(&self) -> bool {
        self.outer.is_some()
    }

    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The next message of a process of the service's own; `None` where there is none. The abstract namespace is open
    /// to all of the network namespace, so that others may write too: theirs are passed over.
    pub fn next(&self) -> Option<Message> {
        let mut buffer = [0; 4096];
        loop {
            let (length, sender) = match sys::receive(self.fd, &mut buffer) {
                Ok(received) => received,
                Err(Errno::EINTR) => continue,
                Err(_) => return None,
            };
            let text = &buffer[..length];
            // In a pid namespace of the init's own, who is outside has no number.
            let is_own = if sys::own_pid() == 1 { sender > 0 } else { tree::is_descendant(sender) };
            if is_own {
                self.pass_on(text);
                return Some(parse(text));
            }
        }
    }

    /// Who supervises the init hears it too, but for MAINPID: its main program is the init.
    fn pass_on(&self, text: &[u8]) {
        let Some(outer) = self.outer else { return };
        let lines: Vec<&[u8]> =
            text.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"MAINPID=")).collect();
        let _ = sys::send_to(self.fd, outer.as_bytes(), &lines.join(&b'\n'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let all = parse(b"READY=1\nSTATUS=well = good\nMAINPID=77\nWATCHDOG=1\nWATCHDOG_USEC=2500000\n\xff=\xff\n=\n");
        let wanted = Message {
            ready: true,
            alive: true,
            main: Some(77),
            watchdog: Some(Duration::from_millis(2500)),
            ..Message::default()
        };
        assert_eq!(all, wanted);
        assert!(parse(b"STOPPING=1").stopping && parse(b"WATCHDOG=trigger").stuck);
        for nothing in [&b""[..], b"READY=0", b"READY", b"ready=1", b"MAINPID=-1", b"MAINPID=0", b"MAINPID=99999999999"]
        {
            assert_eq!(parse(nothing), Message::default());
        }
    }
}
