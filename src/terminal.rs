//! The controlling terminal: handed to the service's process group, so that Ctrl-C, Ctrl-Z and reads go there, and
//! taken back at the end.

use std::ffi::c_int;

use nix::errno::Errno;

use crate::sys;

/// The terminal on which the init's own process group is in the foreground; `None` where there is no terminal or the
/// init runs in the background, whose jobs don't take the terminal.
pub fn in_foreground() -> Option<Terminal> {
    let terminal = match sys::open(c"/dev/tty", libc::O_RDWR | libc::O_NOCTTY) {
        Ok(fd) => Terminal { fd, opened: true },
        // The usual case of a service: no controlling terminal.
        Err(Errno::ENXIO) => return None,
        // No /dev, or not allowed.
        Err(_) => Terminal { fd: 0, opened: false },
    };
    let foreground = sys::foreground(terminal.fd).ok()?;
    (sys::group_of(0) == Ok(foreground)).then_some(terminal)
}

/// An open terminal.
pub struct Terminal {
    fd: c_int,
    opened: bool,
}

impl Terminal {
    pub fn fd(&self) -> c_int {
        self.fd
    }

    /// Makes a process group the foreground one. Best effort: without it the service still runs.
    pub fn give_to(&self, group: c_int) {
        let _ = sys::set_foreground(self.fd, group);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.opened {
            sys::close(self.fd);
        }
    }
}

/// Takes the terminal back from the service's group for the init's own, so that who called the init can read on.
pub fn take_back(service: c_int) {
    let Ok(fd) = sys::open(c"/dev/tty", libc::O_RDWR | libc::O_NOCTTY) else { return };
    let terminal = Terminal { fd, opened: true };
    if sys::foreground(fd) == Ok(service)
        && let Ok(own) = sys::group_of(0)
    {
        terminal.give_to(own);
    }
}
