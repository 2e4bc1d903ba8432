//! The first process of a pid namespace: made by clone3(2), waited for by its pidfd. No image, no engine, no network.

use super::container::Container;
use crate::{
    error::{Context, Error, Result},
    sys::{self, Exec},
};
use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::openpty,
    sched::{CloneFlags, setns},
    sys::{
        prctl::set_pdeathsig,
        resource::{Resource, setrlimit},
        signal::Signal,
    },
    unistd::{chdir, getegid, geteuid, pipe2, read, setsid, write},
};
use std::{
    ffi::{CString, OsString},
    fs::{self, File},
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

/// Where inception-init finds the pipe for its event log.
const EVENTS_FD: i32 = 3;

/// Whom the first process is, outside, when the number of processes is limited: the kernel exempts root.
const NOBODY: u32 = 65534;

/// What to start.
pub struct Launch<'a> {
    pub words: &'a [String],
    pub variables: Vec<(OsString, OsString)>,
    pub folder: &'a Path,
    /// Gives it a terminal instead of a pipe.
    pub terminal: bool,
    /// RLIMIT_NPROC: how many processes there may be, in a user namespace of their own.
    pub limit: Option<u64>,
    /// Asks inception-init for its event log.
    pub events: bool,
}

/// A PID 1. Dropping it kills it, and with it everything in its namespace.
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// Standard output and error, or the terminal's other side.
    pub output: File,
    pub events: Option<File>,
    /// It is in a user namespace of its own.
    has_user: bool,
    /// Who waits for it, where the lab does not.
    container: Option<Container>,
    status: Option<i32>,
}

/// What the child says when it can't become the program: a step, then the error's number.
const STEPS: [&str; 6] =
    ["wait for the lab", "become root of a user namespace", "mount /proc", "take the terminal", "set a limit", "start"];

impl Launch<'_> {
    /// Starts it; returns when it is the program (or can't be: then it ends with 126 or 127, as under a container engine).
    pub fn start(&self) -> Result<Child> {
        let exec = self.exec()?;
        let folder = cstring(self.folder.as_os_str().as_bytes())?;
        let (go_read, go_write) = pipe2(OFlag::O_CLOEXEC).doing("make a pipe")?;
        let (failed_read, failed_write) = pipe2(OFlag::O_CLOEXEC).doing("make a pipe")?;
        let (output, inside) = self.output()?;
        let (events, events_inside) = match self.events {
            true => {
                pipe2(OFlag::O_CLOEXEC).map(|(out, into)| (Some(File::from(out)), Some(into))).doing("make a pipe")?
            }
            false => (None, None),
        };
        let null = File::open("/dev/null").doing("open /dev/null")?;
        // Root outside is exempt from RLIMIT_NPROC.
        let user = if !geteuid().is_root() {
            Some((geteuid().as_raw(), getegid().as_raw()))
        } else {
            self.limit.map(|_| (NOBODY, NOBODY))
        };
        let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
        if user.is_some() {
            flags |= libc::CLONE_NEWUSER;
        }
        // Only system calls from here to exec.
        let inside_child = || -> (u8, i32) {
            sys::default_signals();
            let mut byte = [0; 1];
            if read(&go_read, &mut byte) != Ok(1) {
                return (0, libc::EPIPE);
            }
            if user.is_some()
                && let Err(error) = sys::become_root()
            {
                return (1, error.raw_os_error().unwrap_or(0));
            }
            // Should the lab be killed, nothing of it goes on. After the change of user, which would reset it.
            let _ = set_pdeathsig(Signal::SIGKILL);
            let _ = setsid();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            let mounted = mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
                .and_then(|()| mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>));
            if let Err(error) = mounted {
                return (2, error as i32);
            }
            let input = if self.terminal { inside.as_raw_fd() } else { null.as_raw_fd() };
            let placed = sys::put_at(&input, 0)
                .and_then(|()| sys::put_at(&inside, 1))
                .and_then(|()| sys::put_at(&inside, 2))
                .and_then(|()| if self.terminal { sys::take_terminal(&0) } else { Ok(()) })
                .and_then(|()| events_inside.as_ref().map_or(Ok(()), |events| sys::put_at(events, EVENTS_FD)));
            if let Err(error) = placed {
                return (3, error.raw_os_error().unwrap_or(0));
            }
            if let Some(limit) = self.limit
                && let Err(error) = setrlimit(Resource::RLIMIT_NPROC, limit, limit)
            {
                return (4, error as i32);
            }
            let _ = chdir(folder.as_c_str());
            (5, exec.run().raw_os_error().unwrap_or(0))
        };
        let (pid, pidfd) = sys::clone_process(flags, || {
            let (step, error) = inside_child();
            let mut report = [step, 0, 0, 0, 0];
            report[1..].copy_from_slice(&error.to_ne_bytes());
            let _ = write(&failed_write, &report);
            if error == libc::ENOENT { 127 } else { 126 }
        })
        .doing("make a process in a pid namespace of its own")?;
        drop((inside, events_inside, failed_write));
        let child = Child { pid, pidfd, output, events, has_user: user.is_some(), container: None, status: None };
        if let Some((uid, gid)) = user {
            map_user(pid, uid, gid)?;
        }
        write(&go_write, b"g").doing("start the process")?;
        let mut report = Vec::new();
        File::from(failed_read).read_to_end(&mut report).doing("wait for the program's start")?;
        match report.first() {
            // The program itself: its absence is what a lesson may want to see.
            None | Some(5) => Ok(child),
            Some(step) => {
                let error = report.get(1..5).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
                let step = STEPS.get(usize::from(*step)).copied().unwrap_or_default();
                Err(Error::Io { doing: step.into(), source: std::io::Error::from_raw_os_error(error) })
            }
        }
    }

    fn exec(&self) -> Result<Exec> {
        let first = self.words.first().ok_or_else(|| Error::invalid("there is no command to start"))?;
        let program = match first.contains('/') {
            true => PathBuf::from(first),
            false => self.find(first).unwrap_or_else(|| PathBuf::from(first)),
        };
        let words = self.words.iter().map(|word| cstring(word.as_bytes())).collect::<Result<_>>()?;
        let mut variables = self.variables.clone();
        if self.events {
            variables.push(("INCEPTION_INIT_EVENTS".into(), format!("fd:{EVENTS_FD}").into()));
            variables.push(("INCEPTION_INIT_EVENT_FORMAT".into(), "json".into()));
        }
        let variable = |(name, value): (OsString, OsString)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend_from_slice(value.as_bytes());
            cstring(&entry)
        };
        let variables = variables.into_iter().map(variable).collect::<Result<_>>()?;
        Ok(Exec::new(cstring(program.as_os_str().as_bytes())?, words, variables))
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let path = self.variables.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone())?;
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
    }

    /// What the lab reads from, and what the program writes to.
    fn output(&self) -> Result<(File, OwnedFd)> {
        if !self.terminal {
            return pipe2(OFlag::O_CLOEXEC).map(|(out, into)| (out.into(), into)).doing("make a pipe");
        }
        let pair = openpty(None, None).doing("make a terminal")?;
        for side in [&pair.master, &pair.slave] {
            fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).doing("set up a terminal")?;
        }
        Ok((pair.master.into(), pair.slave))
    }
}

/// Makes uid 0 and gid 0 of the process's user namespace this user and group outside (user_namespaces(7)).
fn map_user(pid: i32, uid: u32, gid: u32) -> Result<()> {
    let put = |file: &str, text: String| {
        let path = PathBuf::from(format!("/proc/{pid}/{file}"));
        fs::write(&path, text).at("write", &path)
    };
    put("setgroups", "deny".into())?;
    put("gid_map", format!("0 {gid} 1"))?;
    put("uid_map", format!("0 {uid} 1"))
}

fn cstring(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::invalid("a NUL in a command, a variable or a path"))
}

impl Child {
    /// The PID 1 of a container, whose parent is the engine's.
    pub fn of_container(pid: i32, pidfd: OwnedFd, container: Container) -> Result<Child> {
        let output = File::open("/dev/null").doing("open /dev/null")?;
        Ok(Child { pid, pidfd, output, events: None, has_user: false, container: Some(container), status: None })
    }

    /// Sends a signal to PID 1 from outside.
    pub fn signal(&self, signal: i32) -> std::io::Result<()> {
        sys::pidfd_send_signal(&self.pidfd.as_fd(), signal)
    }

    /// Starts a process in the namespace from outside (setns(2)), as `docker exec` does, which starts another and ends.
    /// The orphan ends after a moment.
    pub fn make_orphan(&self) -> Result<()> {
        let namespaces =
            CloneFlags::CLONE_NEWPID | if self.has_user { CloneFlags::CLONE_NEWUSER } else { CloneFlags::empty() };
        let orphan = || {
            sys::default_signals();
            let _ = poll(&mut [], PollTimeout::from(50u8));
            0
        };
        let parent = || i32::from(sys::clone_process(0, orphan).is_err());
        // This one is outside: its child is the first that is inside.
        let outside = || {
            sys::default_signals();
            if setns(&self.pidfd, namespaces).is_err() {
                return 1;
            }
            match sys::clone_process(0, parent) {
                Ok((pid, pidfd)) => wait_for(pid, &pidfd),
                Err(_) => 2,
            }
        };
        let (pid, pidfd) = sys::clone_process(0, outside).doing("make an orphan")?;
        match wait_for(pid, &pidfd) {
            0 => Ok(()),
            _ => Err(Error::Failed("no process could be put into the namespace".into())),
        }
    }

    /// How it ended, as a shell sees it; none while it lives.
    pub fn status(&mut self) -> Result<Option<i32>> {
        if let (None, Some(container)) = (self.status, &self.container) {
            let mut ended = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ended, PollTimeout::ZERO).is_ok_and(|count| count > 0) {
                self.status = Some(container.exit_code()?);
            }
        } else if self.status.is_none() {
            self.status = sys::reap(self.pid).doing("wait for PID 1 of the namespace")?;
        }
        Ok(self.status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A container is removed by force.
        if self.status.is_some() || self.container.is_some() {
            return;
        }
        let _ = self.signal(libc::SIGKILL);
        // A SIGKILL from outside ends any PID 1.
        wait_for(self.pid, &self.pidfd);
    }
}

/// Waits for a child's end; its exit code. Only system calls.
fn wait_for(pid: i32, pidfd: &OwnedFd) -> i32 {
    loop {
        match sys::reap(pid) {
            Ok(None) => {
                let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(100u8));
            }
            Ok(Some(code)) => return code,
            Err(_) => return 125,
        }
    }
}
