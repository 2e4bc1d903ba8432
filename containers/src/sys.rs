//! The crate's only unsafe code: system calls that nix and std do not wrap.

use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};
use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
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

/// For [`before_exec`]: the child is killed when the thread that made it ends (prctl(2), PR_SET_PDEATHSIG).
pub fn die_with_parent() -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(Into::into)
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
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointer and may be made from any thread.
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

/// Makes a child process with clone3(2) and `flags`, as fork does: with a copy of the memory. `child` runs in it and gives
/// its exit code; there, as after any fork of a process with threads, it may only make system calls: no allocation, no
/// lock. Gives the child's pid and a descriptor that is readable once it has ended.
pub fn clone_process(flags: i32, child: impl FnOnce() -> i32) -> io::Result<(i32, OwnedFd)> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain numbers, for which all zeros are valid (and mean "as fork").
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (flags | libc::CLONE_PIDFD) as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM and a stack this is a fork: the child goes on here on its own copy of everything. The
    // kernel writes one descriptor to pidfd, in the parent, before the call returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        // SAFETY: _exit runs none of the parent's endings, and does not return.
        0 => unsafe { libc::_exit(child()) },
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
        pid => Ok((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Takes the end of this child, if it has ended (waitpid(2), WNOHANG): its exit code, 128+n for signal n.
pub fn reap(pid: i32) -> io::Result<Option<i32>> {
    let mut status = 0;
    // SAFETY: the kernel writes one int to the pointer, which outlives the call.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        _ if libc::WIFSIGNALED(status) => Ok(Some(128 + libc::WTERMSIG(status))),
        _ => Ok(Some(libc::WEXITSTATUS(status))),
    }
}

/// Whether this kernel has the x32 system calls (CONFIG_X86_X32_ABI, off in most). A child asks: a filter on this process
/// may kill who does.
#[cfg(target_arch = "x86_64")]
pub fn kernel_has_x32() -> bool {
    /// asm/unistd.h
    const X32_SYSCALL_BIT: libc::c_long = 0x4000_0000;
    // SAFETY: getpid takes no argument and touches no memory.
    let ask = || i32::from(unsafe { libc::syscall(X32_SYSCALL_BIT | libc::SYS_getpid) } < 0);
    let Ok((child, _)) = clone_process(0, ask) else { return false };
    matches!(waitpid(Pid::from_raw(child), None), Ok(WaitStatus::Exited(_, 0)))
}

/// Gives every signal its default action and empties the mask (signal(7)), as a program that is started expects it.
/// Only system calls: for between fork and exec.
pub fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL runs no code of ours; KILL, STOP and the C library's own signals are refused, which does no harm.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero set is the empty one; the kernel only reads it.
    unsafe {
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Makes the terminal the controlling one of the calling process, a session's leader (ioctl_tty(2), TIOCSCTTY).
pub fn take_terminal(terminal: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the call takes a number, no pointer.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts an open file under another number, without close-on-exec (dup2(2)).
pub fn put_at(file: &impl AsRawFd, number: RawFd) -> io::Result<()> {
    // SAFETY: the call takes numbers; callers do so between fork and exec, where no owner of `number` is left.
    let result = unsafe { libc::dup2(file.as_raw_fd(), number) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A program with its words and environment, laid out for execve(2) beforehand: after fork nothing may be allocated.
pub struct Exec {
    program: CString,
    words: Vec<CString>,
    variables: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
}

impl Exec {
    pub fn new(program: CString, words: Vec<CString>, variables: Vec<CString>) -> Exec {
        let pointers = |list: &[CString]| list.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
        // The pointers are to the strings' own memory, which stays where it is when the vectors move.
        Exec { argv: pointers(&words), envp: pointers(&variables), program, words, variables }
    }

    /// Becomes the program; the error where that fails.
    pub fn run(&self) -> io::Error {
        debug_assert_eq!((self.argv.len(), self.envp.len()), (self.words.len() + 1, self.variables.len() + 1));
        // SAFETY: both arrays end with a null pointer, and what they point to lives as long as self.
        unsafe { libc::execve(self.program.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Becomes user and group 0 (setresuid(2), setresgid(2)), by the calls themselves: the C library's functions would wait for
/// the threads of the process, which a child after fork does not have. Only system calls: for between fork and exec.
pub fn become_root() -> io::Result<()> {
    // SAFETY: the calls take numbers.
    let result = unsafe {
        match libc::syscall(libc::SYS_setresgid, 0, 0, 0) {
            0 => libc::syscall(libc::SYS_setresuid, 0, 0, 0),
            failed => failed,
        }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
