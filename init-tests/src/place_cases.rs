//! Cases about where an init finds itself: what is mounted, who it is, what it may do.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::cases::{Verdict, begin, check, entered, expect, shell};
use crate::harness::{Init, LIMIT, Place, children, eventually, finish, probe_program, start, status_field};

/// The init in a place like this: reaps, passes TERM on, and ends as the service does.
fn serves(init: &Init, place: &str) -> Verdict {
    expect("service", finish(entered(init, &[place], &["sh", "-c", "sleep 0.05 & exit 6"]), Place::Pid1)?.0, 6)?;
    let mut running = begin(entered(init, &[place], &["sh", "-c", "echo ready; exec sleep 100"]), Place::Pid1)?;
    running.line()?;
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)
}

pub fn no_proc(init: &Init) -> Verdict {
    serves(init, "no-proc")
}

pub fn no_dev(init: &Init) -> Verdict {
    serves(init, "no-dev")
}

pub fn read_only(init: &Init) -> Verdict {
    serves(init, "read-only")
}

pub fn no_privileges(init: &Init) -> Verdict {
    serves(init, "nobody")
}

fn refused(init: &Init, calls: &[&str]) -> Verdict {
    for call in calls {
        let command = entered(init, &[&format!("refuse-{call}")], &["sh", "-c", "sleep 0.02 & exit 7"]);
        let mut running = start(command, Place::Pid1).map_err(|error| error.to_string())?;
        expect(call, running.wait(init.patience())?, 7)?;
    }
    Ok(())
}

pub fn no_job_control(init: &Init) -> Verdict {
    refused(init, &["setpgid", "setsid", "ioctl"])
}

pub fn no_waiting(init: &Init) -> Verdict {
    refused(init, &["prctl", "signalfd", "rt_sigtimedwait"])
}

/// A uid that no other case has, because the limit counts all the processes of a user.
fn own_uid() -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    (1_000_000 + std::process::id() % 1_000_000 * 64 + count % 64).to_string()
}

/// An init of a user who may have so many processes.
fn limited(init: &Init, most: &str, words: &[&str]) -> Command {
    let inner = init.command(&[], words);
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={}", own_uid()), "--clear-groups", "prlimit", &format!("--nproc={most}")]);
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

pub fn few_processes(init: &Init) -> Verdict {
    // Where everybody may run them: a build folder may be closed to others.
    let folder = crate::harness::scratch("programs");
    let copy = || {
        std::fs::create_dir(&folder)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
        std::fs::copy(probe_program(), folder.join("probe"))?;
        std::fs::copy(&init.path, folder.join("init")).map(drop)
    };
    copy().map_err(|error| error.to_string())?;
    let moved = Init { path: folder.join("init"), ..init.clone() };
    let program = folder.join("probe").to_string_lossy().into_owned();
    let verdict = (|| {
        let mut running = begin(limited(&moved, "20", &[&program, "probe", "orphans", "200"]), Place::Pid1)?;
        let said = running.line()?;
        check(said == "done", || said)?;
        let pid = running.pid();
        check(eventually(init.patience(), || children(pid).len() == 1), || "zombies are left".into())?;
        running.signal(libc::SIGTERM);
        expect("TERM", running.wait(LIMIT)?, 143)
    })();
    let _ = std::fs::remove_dir_all(folder);
    verdict
}

pub fn no_blind_window(init: &Init) -> Verdict {
    for _ in 0..100 {
        let mut running = begin(init.command(&[], &["sleep", "100"]), Place::Pid1)?;
        let pid = running.pid();
        // What the project's engine does before it sends the first signal.
        let has_mask = || {
            std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == init.path)
                && status_field(pid, "SigBlk")
                    .is_some_and(|mask| mask == "fffffffe7ffbfeff" || mask == "fffffffffffbfeff")
        };
        check(eventually(LIMIT, has_mask), || "the mask is never set".into())?;
        running.signal(libc::SIGTERM);
        expect("TERM", running.wait(LIMIT)?, 143)?;
    }
    Ok(())
}

pub fn pause(init: &Init) -> Verdict {
    let mut command = Command::new(&init.path);
    command.arg("--pause");
    let running = begin(command, Place::Pid1)?;
    let pid = running.pid();
    // What ends in its namespace is nobody's child, and comes to it.
    let inside = Command::new("nsenter")
        .args([&format!("--target={pid}"), "--pid", "sh", "-c", "(sleep 0.05 &) ; exit 0"])
        .status()
        .map_err(|error| error.to_string())?;
    check(inside.success(), || format!("{inside}"))?;
    check(eventually(LIMIT, || children(pid).is_empty()), || "a zombie is left".into())?;
    let mut running = running;
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 0)
}

/// The limit as the init meets it: no room for the service.
pub fn no_process(init: &Init) -> Verdict {
    expect("fork refused", finish(limited(init, "1", &["true"]), Place::Pid1)?.0, 125)?;
    let refused = shell(init, &["--user", "4242"], "exit 0");
    expect("a user without a group", finish(refused, Place::Pid1)?.0, 125)
}
