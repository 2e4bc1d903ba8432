//! The system calls. Other unsafe code is only where C's strings are read as they lie (the words, the environment), in
//! `spawn`, and in `memory`, which belongs to the program and not to the library: others who use that have threads.
//!
//! Signals are integers and signal masks are the kernel's 64 bits, because a libc keeps some of them for itself (musl:
//! 32-34) and its `sigset_t` functions leave those out.

use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_void};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;

#[cfg(feature = "vm")]
pub mod vm;

/// The size of the kernel's signal mask in bytes, which the raw rt_sig* calls want to be told.
const MASK_SIZE: usize = 8;

/// What a signal brought along (siginfo, sigaction(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The signal's number, 1-64.
    pub signal: c_int,
    /// It was raised by the kernel (terminal, fault, child), not sent by a process.
    pub by_kernel: bool,
    /// The process that sent it, 0 where that one is in another pid namespace.
    pub sender: c_int,
}

fn checked(result: c_long) -> Result<c_long, Errno> {
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

/// A call that is made again where a signal interrupted it.
fn again(mut call: impl FnMut() -> c_long) -> Result<c_long, Errno> {
    loop {
        match checked(call()) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// A system call without the C library in between: the init sleeps in one, and the library's page would stay in memory
/// for it. The result or the negative error, as the kernel has it.
///
/// # Safety
/// The call's own contract.
#[inline(always)]
unsafe fn direct(number: c_long, arguments: [usize; 4]) -> Result<c_long, Errno> {
    let [a, b, c, d] = arguments;
    let result: isize;
    // SAFETY: the kernel's calling convention: it changes the result's register and those that are named as lost.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c,
            in("x3") d, options(nostack));
    }
    if result < 0 { Err(Errno::from_raw(-result as i32)) } else { Ok(result as c_long) }
}

/// Where this function's frame ends: below it the stack is free, but for what a call of it takes.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let place: usize;
    // SAFETY: reads a register.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("mov {}, rsp", out(reg) place, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("mov {}, sp", out(reg) place, options(nomem, nostack, preserves_flags));
    }
    place
}

/// Sets the mask of blocked signals (rt_sigprocmask(2)); bit n-1 is signal n.
pub fn set_mask(mask: u64) -> Result<(), Errno> {
    // SAFETY: reads 8 bytes of a live integer; no old mask is asked for.
    let result =
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, 0usize, MASK_SIZE) };
    checked(result).map(drop)
}

/// Gives a signal its default disposition (rt_sigaction(2)). Refused for KILL and STOP, which have no other.
pub fn set_default(signal: c_int) {
    // The kernel's struct: handler, flags, restorer, mask; SIG_DFL is 0.
    let default = [0usize; 4];
    // SAFETY: reads 32 zero bytes, the size of the kernel's struct on the 64-bit machines.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0usize, MASK_SIZE) };
}

/// Waits until a signal of the mask is pending and takes it; for ever without a timeout. Errors: EAGAIN (the time is
/// over), EINTR, and what a seccomp filter answers.
#[inline(always)]
pub fn wait_signal(mask: u64, timeout: Option<Duration>) -> Result<Arrived, Errno> {
    // Not zeroed: that would be the C library's memset.
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::uninit();
    let limit = timeout.map(timespec);
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the mask and the time are read, the info is written; all three live through the call.
    let signal = unsafe {
        let arguments = [&raw const mask as usize, info.as_mut_ptr() as usize, limit as usize, MASK_SIZE];
        direct(libc::SYS_rt_sigtimedwait, arguments)
    }?;
    // SAFETY: with a signal the kernel wrote the whole info.
    let info = unsafe { info.assume_init_ref() };
    // SAFETY: for a sent signal the field is the sender; otherwise it is some number, and not looked at.
    let sender = unsafe { info.si_pid() };
    Ok(Arrived { signal: signal as c_int, by_kernel: info.si_code > 0, sender })
}

fn timespec(time: Duration) -> libc::timespec {
    // SAFETY: an all-zero timespec is valid (it may have padding on some machines).
    let mut spec: libc::timespec = unsafe { std::mem::zeroed() };
    spec.tv_sec = time.as_secs() as _;
    spec.tv_nsec = time.subsec_nanos() as _;
    spec
}

/// A signalfd(2) for the mask.
pub fn open_signals(mask: u64) -> Result<c_int, Errno> {
    // SAFETY: reads the 8 bytes of the mask.
    let result = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, MASK_SIZE, libc::SFD_CLOEXEC) };
    checked(result).map(|fd| fd as c_int)
}

/// Like [`wait_signal`], from a signalfd.
#[inline(always)]
pub fn read_signal(fd: c_int, timeout: Option<Duration>) -> Result<Arrived, Errno> {
    if let Some(timeout) = timeout {
        wait_readable(fd, timeout)?;
    }
    let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: writes at most the struct's size into the struct.
    let read = unsafe { direct(libc::SYS_read, [fd as usize, info.as_mut_ptr() as usize, size, 0]) }?;
    if read as usize != size {
        return Err(Errno::EIO);
    }
    // SAFETY: the kernel wrote all of it.
    let info = unsafe { info.assume_init_ref() };
    Ok(Arrived { signal: info.ssi_signo as c_int, by_kernel: info.ssi_code > 0, sender: info.ssi_pid as c_int })
}

/// Waits until there is something to read. Errors: EAGAIN where the time is over.
fn wait_readable(fd: c_int, time: Duration) -> Result<(), Errno> {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // In whole milliseconds, not less than the time.
    let limit = time.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as c_int;
    // SAFETY: one pollfd is given, and lives.
    let ready = checked(c_long::from(unsafe { libc::poll(&raw mut entry, 1, limit) }))?;
    if ready == 0 { Err(Errno::EAGAIN) } else { Ok(()) }
}

/// A child that changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    pub pid: c_int,
    /// The status word of wait(2).
    pub status: c_int,
}

/// The next child that [`reap`] would take, which is left as it is: its /proc entry can still be read.
pub fn next_ended() -> Option<c_int> {
    // SAFETY: an all-zero siginfo_t is valid, it is plain numbers.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: writes the info.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    // SAFETY: of a child; zero, as it was, where there was none.
    let pid = unsafe { info.si_pid() };
    (result == 0 && pid > 0).then_some(pid)
}

/// Whether a process is a child of this one.
pub fn is_child(pid: c_int) -> bool {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: plain numbers, and no siginfo is asked for.
    unsafe { libc::syscall(libc::SYS_waitid, libc::P_PID, pid, 0usize, flags, 0usize) == 0 }
}

/// Takes a child (-1: the next one) that ended (with `stopped`: or stopped), without waiting: `None` where the children
/// there are run on. Errors: ECHILD where there is no child at all.
pub fn reap(child: c_int, stopped: bool) -> Result<Option<Changed>, Errno> {
    let mut status = 0;
    let flags = libc::WNOHANG | libc::__WALL | if stopped { libc::WUNTRACED } else { 0 };
    loop {
        // SAFETY: the status word is written, no usage is asked for.
        let result = unsafe { libc::wait4(child, &raw mut status, flags, std::ptr::null_mut()) };
        return match checked(c_long::from(result)) {
            Ok(0) => Ok(None),
            Ok(pid) => Ok(Some(Changed { pid: pid as c_int, status })),
            Err(Errno::EINTR) => continue,
            Err(error) => Err(error),
        };
    }
}

/// kill(2); signal 0 only asks. Where it is refused for one process, which a filter may do, pidfd_send_signal(2).
pub fn kill(pid: c_int, signal: c_int) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    let result = checked(c_long::from(unsafe { libc::kill(pid, signal) })).map(drop);
    if result.is_ok() || pid <= 0 || signal == 0 {
        return result;
    }
    let reference = open_process(pid).or_else(|_| result.and(Ok(-1)))?;
    let sent = kill_process(reference, signal);
    close(reference);
    sent
}

/// A reference to a process that can't come to mean another one (pidfd_open(2)).
pub fn open_process(pid: c_int) -> Result<c_int, Errno> {
    // SAFETY: plain numbers.
    checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(|fd| fd as c_int)
}

/// pidfd_send_signal(2).
pub fn kill_process(process: c_int, signal: c_int) -> Result<(), Errno> {
    // SAFETY: plain numbers, no siginfo.
    checked(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process, signal, 0usize, 0) }).map(drop)
}

/// The own pid, in the own pid namespace.
pub fn own_pid() -> c_int {
    // SAFETY: no arguments, can't fail.
    unsafe { libc::getpid() }
}

/// Orphans among the descendants become children of this process (prctl(2), PR_SET_CHILD_SUBREAPER).
pub fn become_subreaper() -> Result<(), Errno> {
    // SAFETY: plain numbers.
    checked(c_long::from(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })).map(drop)
}

/// The signal that this process gets when its parent ends (prctl(2), PR_SET_PDEATHSIG).
pub fn set_parent_death_signal(signal: c_int) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    checked(c_long::from(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) })).map(drop)
}

/// Time since an arbitrary start (CLOCK_MONOTONIC).
pub fn now() -> Duration {
    let mut time = timespec(Duration::ZERO);
    // SAFETY: writes the struct.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Opens a file that is closed on exec; the descriptor.
pub fn open(path: &CStr, flags: c_int) -> Result<c_int, Errno> {
    let flags = flags | libc::O_CLOEXEC;
    // The raw call, because musl's open sets the flag a second time, for old kernels.
    // SAFETY: the path ends in NUL.
    again(|| unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o644) })
        .map(|fd| fd as c_int)
}

/// read(2).
pub fn read(fd: c_int, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: writes at most the buffer's length into it.
    again(|| unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) } as c_long).map(|count| count as usize)
}

/// Entries of an open folder (getdents64(2)), for [`names`]; 0 bytes at the end. std's own way panics when a close fails.
pub fn read_entries(fd: c_int, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: writes at most the buffer's length into it.
    checked(unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) })
        .map(|count| count as usize)
}

/// The names in what [`read_entries`] read: each record has its length at byte 16 and its name, with a NUL, from 19 on.
pub fn names(mut records: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(records.get(16..18)?.try_into().ok()?));
        let record = records.get(..length)?;
        records = records.get(length..)?;
        record.get(19..)?.split(|byte| *byte == 0).next()
    })
}

/// close(2).
pub fn close(fd: c_int) {
    // SAFETY: the callers own what they close.
    unsafe { libc::close(fd) };
}

/// Closes every descriptor from `first` to `last`; a kernel before 5.9 refuses, then they stay.
pub fn close_range(first: c_int, last: u32) {
    // SAFETY: plain numbers; nothing in the init holds one of these and uses it later.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// The service will not have this descriptor (fcntl(2), FD_CLOEXEC). Errors: EBADF.
pub fn close_on_exec(fd: c_int) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    checked(c_long::from(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })).map(drop)
}

/// Clock ticks since boot, as /proc counts a process's start.
pub fn ticks() -> u64 {
    let mut time = timespec(Duration::ZERO);
    // SAFETY: writes the struct; then a number that the kernel has put beside the environment.
    let rate = unsafe {
        libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time);
        libc::getauxval(libc::AT_CLKTCK).max(1)
    };
    time.tv_sec as u64 * rate + time.tv_nsec as u64 / (1_000_000_000 / rate)
}

/// Writes what goes without waiting; drops the rest. For diagnostics: a reader that is stuck must not stop the init.
pub fn write_or_drop(fd: c_int, bytes: &[u8]) {
    // A pipe with room for a page takes a page without waiting (pipe(7)).
    for part in bytes.chunks(4096) {
        let vector = libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() };
        // SAFETY: one iovec, whose bytes live through the call and are only read.
        let result =
            unsafe { libc::syscall(libc::SYS_pwritev2, fd, &raw const vector, 1, -1isize, 0, libc::RWF_NOWAIT) };
        // Files and terminals may not know the flag, or say "not now" where a plain write takes no time. Pipes and sockets
        // know it from Linux 6.4 on; before, one with room for a page is written to as it is: "not now" is an answer.
        if result < 0 && (Errno::last() == Errno::EOPNOTSUPP || !is_pipe(fd)) {
            let mut entry = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
            // SAFETY: one pollfd is given, and lives; the bytes are read.
            unsafe {
                if libc::poll(&raw mut entry, 1, 0) == 1 && entry.revents & libc::POLLOUT != 0 {
                    libc::write(fd, part.as_ptr().cast(), part.len());
                }
            }
        }
    }
}

fn is_pipe(fd: c_int) -> bool {
    about(fd).is_some_and(|about| matches!(about.st_mode & libc::S_IFMT, libc::S_IFIFO | libc::S_IFSOCK))
}

/// What an open file is: its device and inode.
pub fn identity_of(fd: c_int) -> Option<(u64, u64)> {
    about(fd).map(|about| (about.st_dev, about.st_ino))
}

/// fstat(2).
fn about(fd: c_int) -> Option<libc::stat> {
    // SAFETY: an all-zero stat is valid, it is plain numbers.
    let mut about: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: writes the struct.
    (unsafe { libc::fstat(fd, &raw mut about) } == 0).then_some(about)
}

/// Gives back the memory that starting took: pages of code and constants that may never be run again (the few that are
/// come back from the page cache), and stack below the present depth.
#[inline(always)]
pub fn let_pages_go() {
    unsafe extern "C" {
        // Where the linker put the program's first byte, and the first of its data that may have been written.
        static __executable_start: u8;
        static __init_array_start: u8;
    }
    // SAFETY: a number that the kernel has put beside the environment.
    let page = (unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize).max(4096);
    let here = 0u8;
    // All but the first window in which the kernel maps a file: the init sleeps in it, and would fetch it again.
    const WINDOW: usize = 64 << 10;
    let first = (&raw const __executable_start as usize / WINDOW + 1) * WINDOW;
    let data = &raw const __init_array_start as usize;
    let depth = &raw const here as usize;
    let give_back = |start: usize, end: usize| {
        if start < end {
            // SAFETY: read-only pages of the program's file, which the kernel reads again, and stack that no frame uses
            // (this leaf and its red zone are left out). A part that is not mapped is skipped.
            let _ = unsafe { direct(libc::SYS_madvise, [start, end - start, libc::MADV_DONTNEED as usize, 0]) };
        }
    };
    give_back(first, data / page * page);
    give_back((depth - (64 << 10)) / page * page, (depth - 1024) / page * page);
}

/// chdir(2).
pub fn change_folder(path: &CStr) -> Result<(), Errno> {
    // SAFETY: the path ends in NUL.
    checked(c_long::from(unsafe { libc::chdir(path.as_ptr()) })).map(drop)
}

/// Stops this process until it gets SIGCONT.
pub fn stop_self() {
    let _ = kill(own_pid(), libc::SIGSTOP);
}

/// The session of a process, 0 for the own (getsid(2)).
pub fn session_of(pid: c_int) -> Result<c_int, Errno> {
    // SAFETY: plain numbers.
    checked(c_long::from(unsafe { libc::getsid(pid) })).map(|session| session as c_int)
}

/// The process group of a process, 0 for the own (getpgid(2)).
pub fn group_of(pid: c_int) -> Result<c_int, Errno> {
    // SAFETY: plain numbers.
    checked(c_long::from(unsafe { libc::getpgid(pid) })).map(|group| group as c_int)
}

/// The foreground process group of a terminal (tcgetpgrp(3)).
pub fn foreground(terminal: c_int) -> Result<c_int, Errno> {
    let mut group: libc::pid_t = 0;
    // SAFETY: the call writes one pid_t.
    checked(c_long::from(unsafe { libc::ioctl(terminal, libc::TIOCGPGRP, &raw mut group) })).map(|_| group)
}

/// Makes a process group the foreground one (tcsetpgrp(3)); SIGTTOU must be blocked.
pub fn set_foreground(terminal: c_int, group: c_int) -> Result<(), Errno> {
    // SAFETY: the call reads one pid_t.
    checked(c_long::from(unsafe { libc::ioctl(terminal, libc::TIOCSPGRP, &raw const group) })).map(drop)
}

/// The bytes of a C string that lives as long as the process (an argument, an environment entry).
///
/// # Safety
/// `text` is such a string.
pub unsafe fn text(text: *const c_char) -> &'static OsStr {
    // SAFETY: the caller's promise.
    OsStr::from_bytes(unsafe { std::slice::from_raw_parts(text.cast(), libc::strlen(text)) })
}

/// What an error means, in the C library's words (strerror(3)): it has them in the program already.
pub fn reason(error: Errno) -> &'static str {
    // SAFETY: a C string; those of the errors that there are live as long as the process.
    unsafe { CStr::from_ptr(libc::strerror(error as c_int)) }.to_str().unwrap_or_default()
}

/// Ends the process; nothing is to be flushed or dropped.
pub fn exit(code: c_int) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

/// Writes all of a text, waiting where it must.
pub fn print(fd: c_int, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the bytes are read.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(count) => bytes = &bytes[count..],
            Err(_) => return,
        }
    }
}

/// A datagram socket for sd_notify(3): not blocking, closed on exec, telling who sends, announced by SIGIO. The
/// descriptor and the name, without the NUL that abstract names begin with, that the kernel chose (unix(7), autobind).
pub fn open_notify_socket() -> Result<(c_int, Vec<u8>), Errno> {
    // SAFETY: plain numbers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    checked(c_long::from(fd))?;
    // SAFETY: an all-zero address is valid, it is plain numbers.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let yes: c_int = 1;
    let mut length = size_of::<libc::sa_family_t>() as libc::socklen_t;
    // SAFETY: the address, its length and the integer live through the calls, and have the sizes that are said.
    let result = unsafe {
        let pointer = (&raw mut address).cast::<libc::sockaddr>();
        let wanted = (&raw const yes).cast::<c_void>();
        let mut result = libc::bind(fd, pointer, length);
        length = size_of_val(&address) as libc::socklen_t;
        for step in 0..4 {
            if result < 0 {
                break;
            }
            result = match step {
                0 => libc::getsockname(fd, pointer, &raw mut length),
                1 => libc::setsockopt(
                    fd,
                    libc::SOL_SOCKET,
                    libc::SO_PASSCRED,
                    wanted,
                    size_of_val(&yes) as libc::socklen_t,
                ),
                2 => libc::fcntl(fd, libc::F_SETOWN, own_pid()),
                _ => libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK),
            };
        }
        result
    };
    if let Err(error) = checked(c_long::from(result)) {
        close(fd);
        return Err(error);
    }
    let used = (length as usize).saturating_sub(size_of::<libc::sa_family_t>() + 1);
    let name = address.sun_path.iter().skip(1).take(used).map(|byte| *byte as u8).collect();
    Ok((fd, name))
}

/// A datagram and the pid of who sent it. Descriptors that come along are closed by the kernel, for which
/// sd_notify_barrier(3) waits. Errors: EAGAIN where there is none.
pub fn receive(fd: c_int, buffer: &mut [u8]) -> Result<(usize, c_int), Errno> {
    #[repr(C, align(8))]
    struct Control([u8; 64]);
    let mut control = Control([0; 64]);
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero msghdr is valid: null pointers and zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // Room for the credentials and for nothing else.
    // SAFETY: computes a number.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) } as _;
    // SAFETY: everything that the header points to lives through the call.
    let length =
        checked(unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) } as c_long)?;
    let mut sender = 0;
    // SAFETY: the kernel wrote well-formed headers into the control buffer, which is aligned for them.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null() && (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_CREDENTIALS
        {
            sender = libc::CMSG_DATA(header).cast::<libc::ucred>().read_unaligned().pid;
        }
    }
    Ok((length as usize, sender))
}

/// Sends a datagram, without waiting, to a socket by its name: a path, or `@` and an abstract name.
pub fn send_to(fd: c_int, name: &[u8], bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: an all-zero address is valid, it is plain numbers.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if name.is_empty() || name.len() >= address.sun_path.len() {
        return Err(Errno::EINVAL);
    }
    for (place, byte) in address.sun_path.iter_mut().zip(name) {
        *place = *byte as c_char;
    }
    if name[0] == b'@' {
        address.sun_path[0] = 0;
    }
    let length = (std::mem::offset_of!(libc::sockaddr_un, sun_path) + name.len()) as libc::socklen_t;
    // SAFETY: bytes and address live through the call, with the lengths that are said.
    let sent = unsafe {
        let address = (&raw const address).cast::<libc::sockaddr>();
        libc::sendto(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL, address, length)
    };
    checked(sent as c_long).map(drop)
}

/// Makes an empty file, or leaves one as it is.
pub fn make_file(path: &CStr) -> Result<(), Errno> {
    open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW).map(close)
}

/// unlink(2).
pub fn remove_file(path: &CStr) -> Result<(), Errno> {
    // SAFETY: the path ends in NUL.
    checked(c_long::from(unsafe { libc::unlink(path.as_ptr()) })).map(drop)
}
