//! Fault injection: each system call that the init makes is failed in turn, with the errors that its manual page lists and
//! those that a seccomp filter answers. By strace from the init's first call on; and, where the init is PID 1 (which a
//! tracer can't be outside of here), by a seccomp filter.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use crate::cases::{by_arguments, entered};
use crate::harness::{Init, Place, Running, scratch, spawn, start};

/// The service's own exit code.
const SERVICE: i32 = 7;

/// Stands among the codes where somebody may be left behind: who is no subreaper has no orphans, they go elsewhere.
const ORPHAN: i32 = -1;

/// One system call, how it may fail, and the exit codes that are right then beside the service's.
struct Fault {
    call: &'static str,
    errors: &'static [&'static str],
    codes: &'static [i32],
}

const fn fault(call: &'static str, errors: &'static [&'static str], codes: &'static [i32]) -> Fault {
    Fault { call, errors, codes }
}

/// What the init calls without an option. 125: there was no process to be had, or the service would have been deaf.
const PLAIN: &[Fault] = &[
    // Where signals can't be blocked at all, one that comes while the init does something else ends it as any program.
    fault("rt_sigprocmask", &["EPERM", "EINVAL", "EFAULT"], &[125, 1000 + libc::SIGUSR1]),
    fault(
        "openat",
        &["EACCES", "EMFILE", "ENFILE", "ENOENT", "ENOTDIR", "ELOOP", "EPERM", "EINTR", "ENOMEM", "ENXIO", "EIO"],
        &[],
    ),
    fault("read", &["EIO", "EINTR", "EPERM", "EAGAIN", "EBADF", "EISDIR", "EINVAL"], &[]),
    fault("close", &["EIO", "EINTR", "EBADF"], &[]),
    fault("rt_sigaction", &["EPERM", "EINVAL", "EFAULT"], &[]),
    fault("prctl", &["EPERM", "EINVAL", "EACCES"], &[ORPHAN]),
    fault("ioctl", &["EPERM", "ENOTTY", "EBADF", "EIO"], &[]),
    fault("clone", &["EAGAIN", "ENOMEM", "EPERM", "ENOSYS", "ENOSPC", "EUSERS"], &[125]),
    fault("close_range", &["EPERM", "ENOSYS", "EMFILE", "ENOMEM", "EINVAL"], &[]),
    fault("chdir", &["EACCES", "EPERM", "ENOENT", "ENOMEM", "EIO", "ELOOP"], &[]),
    fault("madvise", &["EPERM", "EINVAL", "EAGAIN", "ENOMEM", "EACCES"], &[]),
    fault("signalfd4", &["EPERM", "ENOSYS", "EMFILE", "ENFILE", "ENODEV", "ENOMEM", "EINVAL"], &[]),
    fault("rt_sigtimedwait", &["EPERM", "ENOSYS", "EINTR", "EAGAIN", "EINVAL"], &[]),
    fault("poll", &["EINTR", "EPERM", "ENOMEM", "EINVAL"], &[]),
    fault("wait4", &["EINTR"], &[]),
    fault("kill", &["EPERM", "ESRCH", "EINVAL"], &[]),
    fault("pidfd_open", &["EPERM", "ENOSYS", "EMFILE", "ENFILE", "ENOMEM", "EINVAL", "ENODEV", "ESRCH"], &[]),
    fault("pidfd_send_signal", &["EPERM", "ENOSYS", "EBADF", "EINVAL"], &[]),
    fault("getdents64", &["EPERM", "ENOENT", "EBADF", "EFAULT", "EINVAL", "ENOTDIR"], &[]),
    fault("getpgid", &["EPERM", "ESRCH"], &[]),
];
/// Memory that is there again in a moment; without any for good nothing can be done.
const SHORT: &[Fault] = &[
    fault("mmap", &["ENOMEM", "EPERM", "EAGAIN", "ENFILE"], &[]),
    fault("brk", &["ENOMEM"], &[]),
    fault("munmap", &["EINVAL"], &[]),
];
/// What it calls besides with all its options: what was asked for and can't be had is told, and ends it.
const ASKED: &[Fault] = &[
    fault("socket", &["EACCES", "EAFNOSUPPORT", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EPERM"], &[125]),
    fault("bind", &["EACCES", "EADDRINUSE", "EINVAL", "EPERM"], &[125]),
    fault("getsockname", &["ENOBUFS", "EPERM"], &[125]),
    fault("setsockopt", &["EINVAL", "ENOPROTOOPT", "EPERM"], &[125]),
    fault("fcntl", &["EPERM", "EINVAL"], &[125]),
    fault("recvmsg", &["EPERM", "EINTR", "EAGAIN", "ENOMEM"], &[]),
    fault("waitid", &["EINTR", "EPERM"], &[]),
    fault("open", &["EACCES", "EMFILE", "ENOENT", "EROFS", "EINTR", "EPERM"], &[125]),
    fault("unlink", &["EACCES", "EROFS", "EPERM"], &[]),
    fault("pwritev2", &["EAGAIN", "EPERM", "ENOSPC", "EIO", "EOPNOTSUPP"], &[]),
    fault("write", &["EAGAIN", "EPIPE", "EIO", "ENOSPC", "EPERM"], &[]),
    fault("fstat", &["EPERM", "EBADF"], &[]),
];
/// What the child calls before its exec. 126: as documented for an exec that is refused.
const CHILD: &[Fault] = &[
    fault("setpgid", &["EPERM", "EACCES", "ESRCH", "EINVAL"], &[]),
    fault("setgroups", &["EPERM", "ENOMEM", "EINVAL"], &[125]),
    fault("setresgid", &["EPERM", "EAGAIN", "EINVAL"], &[125]),
    fault("setresuid", &["EPERM", "EAGAIN", "EINVAL"], &[125]),
];
const EXEC: &[(&str, i32)] = &[
    ("ENOENT", 127),
    ("ENOEXEC", SERVICE),
    ("E2BIG", 126),
    ("EACCES", 126),
    ("EAGAIN", 126),
    ("EINVAL", 126),
    ("EIO", 126),
    ("EISDIR", 126),
    ("ELIBBAD", 126),
    ("ELOOP", 126),
    ("EMFILE", 126),
    ("ENAMETOOLONG", 126),
    ("ENFILE", 126),
    ("ENOMEM", 126),
    ("ENOTDIR", 126),
    ("EPERM", 126),
    ("ETXTBSY", 126),
];
/// What can't fail, or ends the init.
const SURE: &[&str] = &["getpid", "set_tid_address", "arch_prctl", "exit_group", "umask", "execve", "set_robust_list"];
/// Refused by a filter to PID 1; what the service itself needs is left out.
const FILTERED: &[&str] = &[
    "kill",
    "rt_sigtimedwait",
    "close_range",
    "chdir",
    "madvise",
    "setpgid",
    "pidfd_open",
    "pidfd_send_signal",
    "getdents64",
    "prctl",
    "ioctl",
    "signalfd",
    "setsid",
];

/// What came of one fault that should not have.
pub struct Problem {
    pub fault: String,
    pub problem: String,
}

/// The options under which the init calls all that it ever does.
fn all_options(events: &str, ready: &str) -> Vec<String> {
    ["--grace", "1", "--notify", "--events", events, "--ready-file", ready, "--user", "0:0", "--umask", "022", "-v"]
        .map(String::from)
        .into()
}

/// Fails every call once, from then on always, and the second and later times only; problems only.
pub fn run(init: &Init) -> Vec<Problem> {
    let mut jobs: Vec<(String, Kind, Vec<i32>)> = Vec::new();
    let groups = [(PLAIN, Kind::Plain), (ASKED, Kind::Asked), (SHORT, Kind::Asked), (CHILD, Kind::Child)];
    for (faults, kind) in groups {
        for fault in faults {
            for error in fault.errors {
                // EINTR for ever would be a kernel that never works.
                let places: &[&str] = match *error {
                    "EINTR" => &[":when=1", ":when=1+2"],
                    _ if SHORT.iter().any(|short| short.call == fault.call) => &[":when=1", ":when=1+2"],
                    _ => &[":when=1", ""],
                };
                for place in places {
                    let codes = fault.codes.iter().copied().chain([SERVICE]).collect();
                    jobs.push((format!("inject={}:error={error}{place}", fault.call), kind, codes));
                }
            }
        }
    }
    jobs.extend(EXEC.iter().map(|(error, code)| (format!("inject=execve:error={error}"), Kind::Exec, vec![*code])));
    jobs.extend(FILTERED.iter().map(|call| ((*call).to_owned(), Kind::Filter, vec![SERVICE])));
    let next = AtomicUsize::new(0);
    let problems = std::sync::Mutex::new(uncovered(init));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((fault, kind, codes)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(problem) = one(init, fault, *kind, codes) {
                        let fault = format!("{fault} ({kind:?})");
                        problems.lock().unwrap_or_else(|poison| poison.into_inner()).push(Problem { fault, problem });
                    }
                }
            });
        }
    });
    // What was still on its way to become such a process when it was looked for.
    (0..MARKS.load(Ordering::Relaxed)).for_each(|count| drop(end_marked(&mark(count))));
    problems.into_inner().unwrap_or_else(|poison| poison.into_inner())
}

/// How a fault is brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// In the init's own calls, without an option.
    Plain,
    /// In the init's own calls, with all options.
    Asked,
    /// In the calls of the child before its exec too.
    Child,
    /// In the exec of the service alone.
    Exec,
    /// By a filter, in PID 1 and in the service.
    Filter,
}

/// How many marks there are.
static MARKS: AtomicU32 = AtomicU32::new(0);

/// A sleep that no other process has: it is looked for afterwards.
fn mark(count: u32) -> String {
    format!("1{:06}.{count:05}", std::process::id() % 1_000_000)
}

/// Kills the processes with a mark; which those were.
fn end_marked(mark: &str) -> Vec<i32> {
    let left = by_arguments(mark);
    // SAFETY: plain numbers, of processes that a service of these tests made.
    left.iter().for_each(|pid| _ = unsafe { libc::kill(*pid, libc::SIGKILL) });
    left
}

/// Runs a service that leaves a process of another session behind, and gets a signal on its way.
fn one(init: &Init, fault: &str, kind: Kind, codes: &[i32]) -> Result<(), String> {
    let mark = mark(MARKS.fetch_add(1, Ordering::Relaxed));
    let (events, ready) = (scratch("events"), scratch("ready"));
    let service = scratch("service");
    // It ends when USR1, which is sent to the init, has come through.
    let script =
        format!("trap 'setsid sleep {mark} & exit {SERVICE}' USR1\necho ready\nwhile :; do sleep 0.02; done\n");
    std::fs::write(&service, script).map_err(|error| error.to_string())?;
    let words = ["sh".to_owned(), service.to_string_lossy().into_owned()];
    let mut command = match kind {
        Kind::Filter => entered(init, &[&format!("refuse-{fault}")], &[words[0].as_str(), words[1].as_str()]),
        _ => {
            let mut strace = Command::new("strace");
            strace.args(["-qq", "-o", "/dev/null", "-e", fault]);
            let asked = all_options(&events.to_string_lossy(), &ready.to_string_lossy());
            let options: Vec<&str> = match kind {
                Kind::Plain => vec!["--grace", "1"],
                _ => asked.iter().map(String::as_str).collect(),
            };
            if matches!(kind, Kind::Child | Kind::Exec) {
                strace.arg("-f");
            }
            let mut words = words.to_vec();
            if kind == Kind::Exec {
                // Only calls on this path: neither strace's own exec nor those of the service.
                let _ = std::fs::set_permissions(&service, std::os::unix::fs::PermissionsExt::from_mode(0o755));
                strace.arg("-P").arg(&service);
                words.remove(0);
            }
            let inner = init.command(&options, &words);
            strace.arg(inner.get_program()).args(inner.get_args());
            strace
        }
    };
    let place = if kind == Kind::Filter { Place::Pid1 } else { Place::Ordinary };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let ended = spawn(command, place).map_err(|error| error.to_string()).and_then(|mut child| {
        let out = child.stdout.take().ok_or("no stdout")?;
        let mut running = Running { child, out: std::io::BufReader::new(out) };
        if running.line().is_ok() {
            let to = if kind == Kind::Filter {
                running.pid()
            } else {
                crate::harness::children(running.pid()).first().ok_or("no init")?.0
            };
            // SAFETY: plain numbers, of an init that this function has started.
            unsafe { libc::kill(to, libc::SIGUSR1) };
        }
        let code = running.wait(Duration::from_secs(20));
        if code.is_err() && kind != Kind::Filter {
            // strace would leave the init alone.
            for (child, ..) in crate::harness::children(running.pid()) {
                // SAFETY: as above.
                unsafe { libc::kill(child, libc::SIGKILL) };
            }
        }
        code
    });
    let left = end_marked(&mark);
    for file in [&events, &ready, &service] {
        let _ = std::fs::remove_file(file);
    }
    let code = ended?;
    if !left.is_empty() && !codes.contains(&ORPHAN) {
        return Err(format!("exit code {code}, and a process is left behind: {left:?}"));
    }
    if codes.contains(&code) { Ok(()) } else { Err(format!("exit code {code}, not of {codes:?}")) }
}

/// The calls that the init makes and the tables don't have.
fn uncovered(init: &Init) -> Vec<Problem> {
    let known: BTreeSet<&str> = [PLAIN, ASKED, SHORT, CHILD]
        .iter()
        .flat_map(|faults| faults.iter().map(|fault| fault.call))
        .chain(SURE.iter().copied())
        .collect();
    let (events, ready, log) = (scratch("events"), scratch("ready"), scratch("calls"));
    let options = all_options(&events.to_string_lossy(), &ready.to_string_lossy());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut found = BTreeSet::new();
    for options in [&options[..], &["--grace", "1"]] {
        let inner = init.command(options, &["sh", "-c", "setsid sleep 0.2 & exit 7"]);
        let mut strace = Command::new("strace");
        // Without -f: the init's own calls.
        strace.args(["-qq", "-o"]).arg(&log).arg(inner.get_program()).args(inner.get_args());
        if let Ok(mut running) = start(strace, Place::Ordinary) {
            let _ = running.wait(Duration::from_secs(20));
        }
        let calls = std::fs::read_to_string(&log).unwrap_or_default();
        let names = calls
            .lines()
            .filter(|line| !line.starts_with(['-', '+']))
            .filter_map(|line| Some(line.split_once('(')?.0.to_owned()));
        found.extend(names);
    }
    for file in [events, ready, log] {
        let _ = std::fs::remove_file(file);
    }
    let missing = |call: &&String| !known.contains(call.as_str());
    let mut problems: Vec<_> = found
        .iter()
        .filter(missing)
        .map(|call| Problem { fault: call.clone(), problem: "the tables of faults don't have it".into() })
        .collect();
    if found.len() < 10 {
        problems.push(Problem { fault: "strace".into(), problem: format!("shows only {found:?}") });
    }
    problems
}
