//! The shim's only unsafe code: system calls that nix and std do not wrap.

use nix::sys::{
    signal::{SigHandler, Signal},
    socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socket},
};
use std::{
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

/// Ignores `signal` (signal(7)); SIG_IGN has no handler that could do harm.
pub fn ignore_signal(signal: Signal) -> io::Result<()> {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }.map(drop).map_err(Into::into)
}

/// Receives one descriptor from the other side of a unix socket (unix(7), SCM_RIGHTS).
pub fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0; 4096];
    let mut buffers = [io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part
            && let Some(fd) = descriptors.first()
        {
            // SAFETY: the kernel has just installed this descriptor for us, and nobody else knows of it.
            return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a message without a descriptor"))
}

/// Takes the end of any child (waitpid(2), WNOHANG): its pid and exit code, 128+n for signal n. Not nix's, which loses
/// the status of a child that a real-time signal ended.
pub fn reap_any() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the kernel writes one int to the pointer, which outlives the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    (pid > 0).then_some((pid, code))
}

/// Sets a terminal's size (ioctl_tty(2), TIOCSWINSZ).
pub fn set_window_size(terminal: &impl AsRawFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one winsize from the pointer, which outlives the call.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Brings the loopback interface of this network namespace up (netdevice(7), SIOCSIFFLAGS).
pub fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: a structure of numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads one ifreq from the pointer, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives back the pages of code and constants that starting a process took: the few that are run again come back from
/// the page cache, and there is one shim for each container (madvise(2), MADV_DONTNEED).
pub fn let_pages_go() {
    unsafe extern "C" {
        // Where the linker put the program's first byte, and the first of its data that may have been written.
        static __executable_start: u8;
        static __init_array_start: u8;
    }
    const PAGE: usize = 4096;
    let start = (&raw const __executable_start).addr().next_multiple_of(PAGE);
    let end = (&raw const __init_array_start).addr() / PAGE * PAGE;
    if let Some(length) = end.checked_sub(start) {
        // SAFETY: read-only pages of the program's file, which the kernel reads again.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}
