//! The crate's only unsafe code: system calls that nix and std do not wrap.

use std::{
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
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

/// Gives memory back to the kernel: what was freed (malloc_trim(3)), and the pages of code and constants, of which the
/// few that are used again come back from the page cache (madvise(2), MADV_DONTNEED).
pub fn release_memory() {
    // SAFETY: the call takes no pointer and may be made from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    unsafe extern "C" {
        // Where the linker put the program's first byte, and the end of its code.
        static __executable_start: u8;
        static etext: u8;
    }
    const PAGE: usize = 4096;
    let start = (&raw const __executable_start).addr().next_multiple_of(PAGE);
    let end = (&raw const etext).addr() / PAGE * PAGE;
    if let Some(length) = end.checked_sub(start) {
        // SAFETY: nothing before the end of the code is ever written: the kernel reads these pages again from the file.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
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
