//! Starts the service: vfork-class clone, own process group, terminal, clean signals, exec.
//!
//! Between clone and exec the child runs in the init's memory while the init waits: nothing there allocates, panics,
//! or touches what the init does not expect to be touched.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;

use nix::errno::Errno;

use crate::sys;

/// Where programs are looked for when the environment has no PATH.
pub const DEFAULT_PATH: &CStr = c"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SHELL: &CStr = c"/bin/sh";
/// Bytes between the stack of who makes a process and the new one's.
const GAP: usize = 1024;
/// The longest path that exec takes (PATH_MAX).
const PATH_SIZE: usize = 4096;

/// The command: a tail of the init's own argv, so that it is never copied. There is always an element before it.
#[derive(Clone, Copy)]
pub struct Command {
    first: *mut *const c_char,
}

impl Command {
    /// # Safety
    /// `first` points into an argv that ends in NULL and lives as long as the process, and not at its first element.
    pub unsafe fn new(first: *mut *const c_char) -> Self {
        Self { first }
    }

    /// The program's name as it was given.
    pub fn name(self) -> &'static std::ffi::OsStr {
        // SAFETY: the promise of `new`; a command has at least its name.
        unsafe { sys::text(*self.first) }
    }
}

/// What the service is born with.
pub struct Birth {
    /// The environment: entries that end in NULL.
    pub environment: *const *const c_char,
    /// Make a session of its own, as dumb-init does; otherwise a process group.
    pub new_session: bool,
    /// A terminal to become the foreground process group of (with a new session: the controlling terminal).
    pub terminal: Option<c_int>,
    /// A device to become the controlling terminal of its session, and 0, 1 and 2.
    #[cfg(feature = "vm")]
    pub console: Option<std::ffi::CString>,
    /// The signal that the service gets when the init is killed; 0 for none.
    pub death_signal: c_int,
    /// Who and where the service is.
    pub identity: Identity,
}

/// User, groups, folder and umask, each where it was asked for.
#[derive(Default)]
pub struct Identity {
    pub user: Option<u32>,
    pub group: Option<u32>,
    pub groups: Option<Vec<u32>>,
    pub folder: Option<std::ffi::CString>,
    pub umask: Option<u32>,
    /// Resource limits: the kernel's number, soft and hard value.
    #[cfg(feature = "vm")]
    pub limits: Vec<(u32, [u64; 2])>,
}

/// Why there is no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No process could be made: limits, memory.
    Fork(Errno),
    /// The named step before exec failed.
    Prepare(&'static str, Errno),
    /// The program could not be run.
    Exec(Errno),
}

/// What parent and child share.
struct Shared<'a> {
    command: Command,
    birth: &'a Birth,
    failure: Option<Failure>,
}

/// Starts the command; the child's pid.
pub fn spawn(command: Command, birth: &Birth) -> Result<c_int, Failure> {
    let mut shared = Shared { command, birth, failure: None };
    // The child's stack is what lies below this process's own: nobody else uses that while this process waits, and a
    // piece set aside would be touched page by page before the call. The gap is for the frame of clone(3).
    let top = (sys::stack_pointer() - GAP) / 16 * 16;
    // SAFETY: argv has an element before the command and ends in NULL (promise of Command::new).
    let (before, first) = unsafe { (*command.first.sub(1), *command.first) };
    // SAFETY: CLONE_VFORK: this process waits until the child has exec'd or ended, so stack and shared outlive its use
    // of them. The child shares the memory and keeps to what this module's head promises.
    let pid = unsafe {
        libc::clone(
            child,
            top as *mut c_void,
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw mut shared).cast(),
        )
    };
    let error = Errno::last();
    // The child may have put the shell's name there.
    // SAFETY: as above.
    unsafe {
        *command.first.sub(1) = before;
        *command.first = first;
    }
    if pid < 0 {
        return Err(Failure::Fork(error));
    }
    // SAFETY: a plain read of what the child may have written.
    match unsafe { (&raw const shared.failure).read_volatile() } {
        None => Ok(pid),
        Some(failure) => {
            // SAFETY: our own child, which has ended.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
            Err(failure)
        }
    }
}

/// The number that the kernel gives to a process now: the newest one that there is.
pub fn newest_pid() -> Option<c_int> {
    extern "C" fn nothing(_: *mut c_void) -> c_int {
        0
    }
    let mut stack = MaybeUninit::<[u64; 256]>::uninit();
    // SAFETY: the child returns at once, on a stack of its own that outlives it, while this process waits (CLONE_VFORK).
    // One past the end of an array of u64 is aligned to 8; rounded down to 16, as the ABIs want it.
    unsafe {
        let top = stack.as_mut_ptr().cast::<u64>().add(256);
        let top = top.wrapping_byte_sub(top as usize % 16);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let pid = libc::clone(nothing, top.cast(), flags, std::ptr::null_mut());
        if pid < 0 {
            return None;
        }
        libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL);
        Some(pid)
    }
}

extern "C" fn child(shared: *mut c_void) -> c_int {
    // SAFETY: the parent's Shared, which waits for us and does not touch it.
    let shared = unsafe { &mut *shared.cast::<Shared>() };
    shared.failure = Some(become_service(shared.command, shared.birth));
    127
}

fn become_service(command: Command, birth: &Birth) -> Failure {
    // SAFETY: plain system calls on numbers and NUL-terminated strings that the parent keeps alive.
    unsafe {
        // Refused by a seccomp filter the service runs as well in the init's own group.
        if birth.new_session {
            libc::setsid();
            #[cfg(feature = "vm")]
            if let Some(console) = &birth.console {
                take_console(console);
            }
            if let Some(terminal) = birth.terminal {
                libc::ioctl(terminal, libc::TIOCSCTTY, 0);
            }
        } else {
            libc::setpgid(0, 0);
            if let Some(terminal) = birth.terminal {
                // All signals are blocked, SIGTTOU among them.
                let _ = sys::set_foreground(terminal, libc::getpid());
            }
        }
    }
    if let Err(failure) = take_identity(&birth.identity) {
        return failure;
    }
    if birth.death_signal != 0 {
        // Refused by a filter it is missed only if the init is killed.
        let _ = sys::set_parent_death_signal(birth.death_signal);
    }
    let (path, environment) = find_variables(birth.environment);
    // With all signals blocked it could never be stopped.
    if let Err(error) = sys::set_mask(0) {
        return Failure::Prepare("unblock the signals", error);
    }
    Failure::Exec(exec(command, path, environment))
}

/// Makes a terminal the session's. Where that is refused the service has the init's 0, 1 and 2.
#[cfg(feature = "vm")]
fn take_console(console: &CStr) {
    // SAFETY: plain system calls on numbers and a live string.
    unsafe {
        // Does not wait for a modem's carrier.
        let fd = libc::open(console.as_ptr(), libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK);
        if fd < 0 {
            return;
        }
        libc::fcntl(fd, libc::F_SETFL, libc::O_RDWR);
        // Another session's is taken away from it: it is a service's that has ended.
        libc::ioctl(fd, libc::TIOCSCTTY, 1);
        sys::vm::make_standard(fd);
    }
}

/// Groups before the user: afterwards they could no longer be set.
fn take_identity(identity: &Identity) -> Result<(), Failure> {
    let refused = |step| Err(Failure::Prepare(step, Errno::last()));
    // SAFETY: raw calls, because a libc's setuid tells other threads, of which there are none; numbers and live strings.
    unsafe {
        if let Some(mask) = identity.umask {
            libc::umask(mask as libc::mode_t);
        }
        #[cfg(feature = "vm")]
        for (resource, values) in &identity.limits {
            if libc::syscall(libc::SYS_prlimit64, 0, *resource, values.as_ptr(), 0usize) < 0 {
                return refused("set the limits");
            }
        }
        if let Some(groups) = &identity.groups
            && libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) < 0
        {
            return refused("set the supplementary groups");
        }
        if let Some(group) = identity.group
            && libc::syscall(libc::SYS_setresgid, group, group, group) < 0
        {
            return refused("change the group");
        }
        if let Some(user) = identity.user
            && libc::syscall(libc::SYS_setresuid, user, user, user) < 0
        {
            return refused("change the user");
        }
        if let Some(folder) = &identity.folder
            && libc::chdir(folder.as_ptr()) < 0
        {
            return refused("change to the working folder");
        }
    }
    Ok(())
}

/// PATH's value; and LISTEN_PID (sd_listen_fds(3)), which named the init, gets the service's own number: the entry in
/// the environment was made with room for it.
fn find_variables(environment: *const *const c_char) -> (*const c_char, *const *const c_char) {
    let mut path = DEFAULT_PATH.as_ptr();
    let mut entry = environment;
    // SAFETY: the environment ends in NULL, its entries in NUL.
    unsafe {
        while !(*entry).is_null() {
            let text = *entry;
            if libc::strncmp(text, c"PATH=".as_ptr(), 5) == 0 {
                path = text.add(5);
            } else if libc::strncmp(text, crate::environment::LISTEN_PID.as_ptr(), 11) == 0
                && libc::strlen(text) == crate::environment::LISTEN_PID.count_bytes()
            {
                write_pid(text.cast_mut().add(11));
            }
            entry = entry.add(1);
        }
    }
    (path, environment)
}

/// Writes the own pid over the ten digits' room, left-aligned.
///
/// # Safety
/// There is room for ten digits and a NUL, of which nobody else holds a reference.
unsafe fn write_pid(room: *mut c_char) {
    let mut rest = sys::own_pid();
    let mut digits = 1;
    let mut power = 1;
    while rest / power >= 10 {
        power *= 10;
        digits += 1;
    }
    for place in 0..digits {
        // SAFETY: at most ten digits.
        unsafe { *room.add(place) = b'0' as c_char + (rest / power) as c_char };
        rest %= power;
        power = (power / 10).max(1);
    }
    // SAFETY: at most the eleventh byte.
    unsafe { *room.add(digits) = 0 };
}

/// execvp(3) with the fall-back for a script without `#!` that musl leaves out. Returns why it failed.
fn exec(command: Command, path: *const c_char, environment: *const *const c_char) -> Errno {
    // SAFETY: NUL-terminated strings all over.
    unsafe {
        let name = *command.first;
        if *name == 0 {
            return Errno::ENOENT;
        }
        if !libc::strchr(name, c_int::from(b'/')).is_null() {
            return exec_file(command, name, environment);
        }
        search(command, name, path, environment)
    }
}

/// Tries each folder of a PATH. By itself, so that who needs it not needs no stack for it.
///
/// # Safety
/// All are as execve(2) wants them.
#[inline(never)]
unsafe fn search(
    command: Command,
    name: *const c_char,
    path: *const c_char,
    environment: *const *const c_char,
) -> Errno {
    // SAFETY: the caller's promise; `file` never gets more bytes than it has room for.
    unsafe {
        let mut file = MaybeUninit::<[c_char; PATH_SIZE]>::uninit();
        let file = file.as_mut_ptr().cast::<c_char>();
        let length = libc::strlen(name);
        let mut refused = None;
        let mut folder = path;
        loop {
            let mut end = folder;
            while *end != 0 && *end != b':' as c_char {
                end = end.add(1);
            }
            let room = end.offset_from(folder) as usize;
            if room + length + 2 <= PATH_SIZE {
                // An empty entry is the working folder.
                std::ptr::copy_nonoverlapping(folder, file, room);
                *file.add(room) = b'/' as c_char;
                let start = file.add(room + usize::from(room > 0));
                std::ptr::copy_nonoverlapping(name, start, length + 1);
                match exec_file(command, file, environment) {
                    Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
                    Errno::EACCES => refused = Some(Errno::EACCES),
                    error => return error,
                }
            }
            if *end == 0 {
                return refused.unwrap_or(Errno::ENOENT);
            }
            folder = end.add(1);
        }
    }
}

/// # Safety
/// `file` and `environment` are as execve(2) wants them.
unsafe fn exec_file(command: Command, file: *const c_char, environment: *const *const c_char) -> Errno {
    // SAFETY: the caller's promise, and Command's: argv has an element before the command.
    unsafe {
        libc::execve(file, command.first, environment);
        let error = Errno::last();
        if error == Errno::ENOEXEC {
            // sh takes the script's path in the place of the name, and stands before it. The parent puts both back.
            let name = *command.first;
            *command.first.sub(1) = SHELL.as_ptr();
            *command.first = file;
            libc::execve(SHELL.as_ptr(), command.first.sub(1), environment);
            *command.first = name;
        }
        error
    }
}
