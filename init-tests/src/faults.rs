//! Fault injection: each system call that an init makes is refused in turn, by strace, with the errors that its manual
//! page lists and those that a seccomp filter answers.

use std::process::Command;
use std::time::Duration;

use crate::harness::{Init, Place, start};

/// The calls of this project's init from its start to its end, and the errors.
const FAULTS: &[(&str, &[&str])] = &[
    ("rt_sigprocmask", &["EPERM", "EINVAL"]),
    ("openat", &["EACCES", "EMFILE", "ENFILE", "ENOENT", "EPERM", "EINTR", "ENOMEM"]),
    ("read", &["EIO", "EINTR", "EPERM"]),
    ("close", &["EIO", "EINTR"]),
    ("rt_sigaction", &["EPERM", "EINVAL"]),
    ("prctl", &["EPERM", "EINVAL"]),
    ("getpgid", &["EPERM"]),
    ("ioctl", &["EPERM", "ENOTTY", "EBADF"]),
    ("clone", &["EAGAIN", "ENOMEM", "EPERM", "ENOSYS"]),
    ("setpgid", &["EPERM", "EACCES", "ESRCH"]),
    ("close_range", &["EPERM", "ENOSYS", "EMFILE"]),
    ("chdir", &["EACCES", "EPERM"]),
    ("madvise", &["EPERM", "EINVAL", "EAGAIN"]),
    ("rt_sigtimedwait", &["EPERM", "ENOSYS", "EINTR", "EAGAIN"]),
    ("wait4", &["EINTR"]),
    ("kill", &["EPERM", "ESRCH"]),
    ("pidfd_open", &["EPERM", "ENOSYS", "EMFILE", "ENOMEM"]),
    ("pidfd_send_signal", &["EPERM", "ENOSYS"]),
    ("getdents64", &["EPERM", "ENOENT"]),
];

/// What one injected fault came to.
pub struct Outcome {
    pub fault: String,
    pub problem: String,
}

/// Runs the service `sh -c 'setsid sleep …& exit 7'` once for each call, error and place (the first call of the name, or
/// every one); problems only. Allowed ends: the service's code, or the init's own refusal where there was no service.
pub fn run(init: &Init) -> Vec<Outcome> {
    let mut problems = Vec::new();
    for (call, errors) in FAULTS {
        for error in *errors {
            // EINTR for ever would be a kernel that never works.
            let places: &[&str] = if *error == "EINTR" { &[":when=1", ":when=1+2"] } else { &[":when=1", ""] };
            for place in places {
                let fault = format!("inject={call}:error={error}{place}");
                if let Err(problem) = one(init, &fault, call) {
                    problems.push(Outcome { fault, problem });
                }
            }
        }
    }
    problems
}

fn one(init: &Init, fault: &str, call: &str) -> Result<(), String> {
    // Without -f: the faults are the init's, not the service's; what happens between clone and exec is its own below.
    let follow = matches!(call, "setpgid");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null"]);
    if follow {
        strace.arg("-f");
    }
    let inner = init.command(&["--grace", "300ms"], &["sh", "-c", "setsid sleep 1 & exit 7"]);
    strace.args(["-e", fault]).arg(inner.get_program()).args(inner.get_args());
    let mut running = start(strace, Place::Pid1).map_err(|error| error.to_string())?;
    let code = running.wait(Duration::from_secs(6))?;
    match (call, code) {
        (_, 7) | ("clone", 125) => Ok(()),
        _ => Err(format!("exit code {code}")),
    }
}
