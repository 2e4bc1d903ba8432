//! The system calls that only a machine's PID 1 makes, and that nix has no safe name for.

use std::ffi::{CStr, CString, OsStr, c_int, c_long, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::{again, checked, close, open, own_pid};

/// What a symbolic link in a folder (or at a path from / on) says.
pub fn read_link(folder: c_int, path: &CStr) -> Option<String> {
    let mut buffer = [0u8; 128];
    // SAFETY: the path ends in NUL; at most the buffer's length is written.
    let count = unsafe { libc::readlinkat(folder, path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    String::from_utf8(buffer.get(..usize::try_from(count).ok()?)?.to_vec()).ok()
}

/// A file system that is mounted nowhere: a descriptor of its root (fsopen(2), fsmount(2)).
pub fn mount_detached(kind: &CStr) -> Result<c_int, Errno> {
    const CREATE: c_long = 6;
    // SAFETY: the name ends in NUL; then plain numbers and null pointers.
    unsafe {
        let context = checked(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1))? as c_int;
        let made = checked(libc::syscall(libc::SYS_fsconfig, context, CREATE, 0usize, 0usize, 0));
        let mounted = made.and_then(|_| checked(libc::syscall(libc::SYS_fsmount, context, 1, 0)));
        close(context);
        mounted.map(|fd| fd as c_int)
    }
}

/// Opens a file below an open folder.
pub fn open_in(folder: c_int, path: &CStr, flags: c_int) -> Result<c_int, Errno> {
    // SAFETY: the path ends in NUL.
    again(|| unsafe { libc::syscall(libc::SYS_openat, folder, path.as_ptr(), flags | libc::O_CLOEXEC, 0) })
        .map(|fd| fd as c_int)
}

/// The paths of what is in a folder; none where it can't be read. std's way is several times as much code.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let Ok(name) = CString::new(folder.as_os_str().as_bytes()) else { return all };
    let Ok(fd) = open(&name, libc::O_RDONLY | libc::O_DIRECTORY) else { return all };
    let mut buffer = vec![0; 4096];
    while let Ok(count @ 1..) = super::read_entries(fd, &mut buffer) {
        let own = super::names(&buffer[..count]).filter(|name| !matches!(*name, b"." | b".."));
        all.extend(own.map(|name| folder.join(OsStr::from_bytes(name))));
    }
    close(fd);
    all
}

/// Whether a descriptor is open.
pub fn is_open(fd: c_int) -> bool {
    // SAFETY: plain numbers.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Makes a descriptor 0, 1 and 2, which stay open over an exec; itself it is closed.
pub fn make_standard(fd: c_int) {
    // SAFETY: plain numbers; the caller gives the descriptor away.
    unsafe {
        for standard in 0..3 {
            if fd == standard {
                libc::fcntl(fd, libc::F_SETFD, 0);
            } else {
                libc::dup2(fd, standard);
            }
        }
        if fd > 2 {
            libc::close(fd);
        }
    }
}

/// Writes one byte to an I/O port. Errors: where the machine has none (EOPNOTSUPP), or the kernel refuses.
pub fn write_port(port: u16, value: u8) -> Result<(), Errno> {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: plain numbers; afterwards the instruction is allowed, which changes nothing in this process's memory.
        unsafe {
            checked(libc::syscall(libc::SYS_ioperm, c_long::from(port), 1, 1))?;
            std::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack));
        }
        Ok(())
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (port, value);
        Err(Errno::EOPNOTSUPP)
    }
}

/// Gives random bytes to the kernel, which counts all of them as such (random(4), RNDADDENTROPY). At most 512.
pub fn add_entropy(fd: c_int, bytes: &[u8]) -> Result<(), Errno> {
    // _IOW('R', 3, int[2])
    const RNDADDENTROPY: u32 = 0x4008_5203;
    #[repr(C)]
    struct Pool {
        bits: c_int,
        size: c_int,
        bytes: [u8; 512],
    }
    let mut pool = Pool { bits: 0, size: 0, bytes: [0; 512] };
    let count = bytes.len().min(pool.bytes.len());
    pool.bytes[..count].copy_from_slice(&bytes[..count]);
    (pool.bits, pool.size) = (count as c_int * 8, count as c_int);
    // SAFETY: the kernel reads the two numbers and so many bytes as they say, which are there.
    checked(unsafe { libc::syscall(libc::SYS_ioctl, fd, c_long::from(RNDADDENTROPY), &raw const pool) }).map(drop)
}

/// Random bytes (getrandom(2)); false where the kernel has none yet.
pub fn random(buffer: &mut [u8]) -> bool {
    // SAFETY: writes at most the buffer's length.
    let count = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), libc::GRND_NONBLOCK) };
    usize::try_from(count) == Ok(buffer.len())
}

/// The kernel's time zone, in minutes west of Greenwich (settimeofday(2)).
pub fn set_zone(minutes_west: c_int) -> Result<(), Errno> {
    // The first call of all moves the clock by the zone, as if it had been set from local time. So that is Greenwich.
    for minutes in [0, minutes_west] {
        let zone = [minutes, 0];
        // SAFETY: no time is given, and the zone is two integers that live.
        checked(unsafe { libc::syscall(libc::SYS_settimeofday, 0usize, zone.as_ptr()) })?;
    }
    Ok(())
}

/// Whether an input device has a key (EVIOCGBIT of EV_KEY).
pub fn has_key(fd: c_int, key: u16) -> bool {
    let mut keys = [0u8; 96];
    // _IOC(_IOC_READ, 'E', 0x20 + EV_KEY, 96)
    let request = 2u32 << 30 | (keys.len() as u32) << 16 | u32::from(b'E') << 8 | 0x21;
    // SAFETY: the kernel writes at most as many bytes as the request says.
    let known = unsafe { libc::syscall(libc::SYS_ioctl, fd, c_long::from(request), keys.as_mut_ptr()) } >= 0;
    known && keys.get(usize::from(key / 8)).is_some_and(|byte| byte & 1 << (key % 8) != 0)
}

/// SIGIO comes when there is something to read, which then does not wait.
pub fn tell_by_signal(fd: c_int) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    unsafe {
        checked(c_long::from(libc::fcntl(fd, libc::F_SETOWN, own_pid())))?;
        checked(c_long::from(libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK))).map(drop)
    }
}

/// Has faults of the init's own code handled, on a stack of its own. What a process sends is passed over.
pub fn handle_faults(signals: &[c_int], broken: fn(c_int) -> !) {
    static BROKEN: std::sync::OnceLock<fn(c_int) -> !> = std::sync::OnceLock::new();
    extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
        // SAFETY: the kernel's siginfo; for a sent signal the field is the sender.
        let own = unsafe { (*info).si_code > 0 || (*info).si_pid() == own_pid() };
        // A child that has not come to its exec runs in the same memory.
        if own && own_pid() != 1 {
            super::exit(125);
        }
        if let (true, Some(broken)) = (own, BROKEN.get()) {
            broken(signal);
        }
    }
    let _ = BROKEN.set(broken);
    const STACK: usize = 32 << 10;
    // Its pages are touched by nobody who does not break down.
    let stack = libc::stack_t {
        ss_sp: Box::leak(Box::<[u8]>::new_uninit_slice(STACK)).as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: STACK,
    };
    // SAFETY: the stack is never freed; the action is zeroed, which is valid, and has a handler of the kind that its
    // flags say.
    unsafe {
        libc::sigaltstack(&raw const stack, std::ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        for signal in signals {
            libc::sigaction(*signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Brings a network interface up (netdevice(7), SIOCSIFFLAGS): the short way, for the one that has no address to be given.
pub fn bring_up(interface: &CStr) -> Result<(), Errno> {
    // SAFETY: an all-zero request is valid, it is plain bytes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.to_bytes().iter().take(room)) {
        *place = *byte as _;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
    // SAFETY: plain numbers; the kernel reads the request, which lives.
    unsafe {
        let socket =
            checked(c_long::from(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)))? as c_int;
        let result = checked(libc::syscall(libc::SYS_ioctl, socket, libc::SIOCSIFFLAGS, &raw const request));
        close(socket);
        result.map(drop)
    }
}

/// Runs something in a child, a copy of this process; its pid.
pub fn fork(run: impl FnOnce() -> c_int) -> Result<c_int, Errno> {
    // The call itself: the C library's looks after threads and locks, of which there are none.
    // SAFETY: one thread; the child ends by itself, and never returns into what the parent goes on with.
    let pid = checked(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0usize, 0usize, 0usize, 0usize) })?;
    if pid == 0 {
        super::exit(run());
    }
    Ok(pid as c_int)
}

/// A pointer to words, with a NULL at the end, for the rest of the process's life: as execve(2) wants its arguments.
pub fn leak_words(words: Vec<CString>) -> *mut *const libc::c_char {
    let mut pointers: Vec<*const libc::c_char> = words.into_iter().map(|word| word.into_raw().cast_const()).collect();
    pointers.push(std::ptr::null());
    Box::leak(pointers.into_boxed_slice()).as_mut_ptr()
}

/// A descriptor that is closed when it is dropped; the caller gives it away.
pub fn owned(fd: c_int) -> std::os::fd::OwnedFd {
    // SAFETY: the caller has just opened it, and nobody else knows of it.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }
}

/// Makes a terminal the controlling one of this process's own session (ioctl_tty(2), TIOCSCTTY); writing to it waits.
pub fn take_terminal(fd: c_int) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    unsafe {
        libc::setsid();
        checked(c_long::from(libc::ioctl(fd, libc::TIOCSCTTY, 1)))?;
        checked(c_long::from(libc::fcntl(fd, libc::F_SETFL, libc::O_RDWR))).map(drop)
    }
}

/// Sets a terminal's size (ioctl_tty(2), TIOCSWINSZ).
pub fn set_size(fd: c_int, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = [rows, columns, 0, 0];
    // SAFETY: the kernel reads one winsize, four 16-bit numbers.
    checked(unsafe { libc::syscall(libc::SYS_ioctl, fd, libc::TIOCSWINSZ as c_long, size.as_ptr()) }).map(drop)
}

/// Waits until a terminal's output is with whoever reads it (tcdrain(3)).
pub fn drain(fd: c_int) {
    // SAFETY: plain numbers.
    unsafe { libc::tcdrain(fd) };
}

/// The console of the kernel, even where it has no name in the file system.
pub fn open_console() -> Result<c_int, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    open(c"/dev/console", flags).or_else(|_| {
        let devices = mount_detached(c"devtmpfs")?;
        let console = open_in(devices, c"console", flags);
        close(devices);
        console
    })
}
