//! The crate's only unsafe code: system calls that nix and std do not wrap.

use nix::sys::{
    signal::{SigHandler, Signal},
    socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use std::{
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::Command,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Has `body` run in the child between fork and exec. It must only make system calls: no allocation, no lock.
pub fn before_exec(command: &mut Command, body: fn() -> io::Result<()>) {
    // SAFETY: a plain function pointer captures nothing, and callers keep to async-signal-safe calls (signal-safety(7)).
    unsafe { command.pre_exec(body) };
}

/// A descriptor that names process `pid` for ever and is readable once it has ended (pidfd_open(2)).
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers; a descriptor that it returns is ours alone.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, libc::PIDFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}

/// Has every descriptor but 0, 1 and 2 closed by the next exec (close_range(2)): for a process that outlives its starter,
/// whose own starters may have left some open. Makes one system call.
pub fn keep_standard_descriptors() -> io::Result<()> {
    // SAFETY: plain numbers; the descriptors stay open until the exec.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The processor's time stamp counter; always 0 on processors that have none.
pub fn time_stamp() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction; it only writes two registers.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// Sends `signal` to the process behind `pidfd` (pidfd_send_signal(2)).
pub fn pidfd_send_signal(pidfd: &impl AsRawFd, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo asks for what kill(2) would send; no other pointer is passed.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets a terminal's size (ioctl_tty(2), TIOCSWINSZ).
pub fn set_window_size(terminal: &impl AsRawFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one winsize from the pointer, which outlives the call.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

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

/// Gives memory that was freed back to the kernel (malloc_trim(3)): after work that took much, so that an idle daemon
/// is small. Nothing where the C library has no such call.
pub fn release_memory() {
    // SAFETY: the call takes no pointer and may be made from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Registers a descriptor with the async runtime for reading.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same open descriptor until it is dropped, which AsyncFd does after deregistering it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

/// A terminal's size in rows and columns (ioctl_tty(2), TIOCGWINSZ); nothing where it is no terminal, or has no size.
pub fn window_size(terminal: &impl AsRawFd) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one winsize to the pointer, which outlives the call.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
