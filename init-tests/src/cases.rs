//! The cases: what an init must do, and which peers are known not to.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{
    Init, LIMIT, Place, Running, children, eventually, finish, pids, probe_program, scratch, start, status_field,
};
use crate::{notify_cases, place_cases, terminal_cases};

/// What a case finds: nothing, or why it failed.
pub type Verdict = Result<(), String>;

/// One behaviour.
pub struct Case {
    pub name: &'static str,
    pub run: fn(&Init) -> Verdict,
    /// The peers that are known to fail it.
    pub failed_by: &'static [&'static str],
    /// It needs an option that only this project's init has.
    pub ours_only: bool,
}

const ALL: &[&str] = &["tini", "dumb-init", "catatonit"];

const fn case(name: &'static str, run: fn(&Init) -> Verdict, failed_by: &'static [&'static str]) -> Case {
    Case { name, run, failed_by, ours_only: false }
}

const fn ours(name: &'static str, run: fn(&Init) -> Verdict) -> Case {
    Case { name, run, failed_by: &[], ours_only: true }
}

/// Every case, in the order of the matrix.
pub const CASES: &[Case] = &[
    case("exit codes 0-255 pass through", exit_codes, &[]),
    case("killed by signal n is 128+n, for every deadly n up to 64", killed_by, &[]),
    case("not found is 127", not_found, &["dumb-init", "catatonit"]),
    case("not executable is 126", not_executable, &["dumb-init", "catatonit"]),
    case("a script without #! runs by sh", script_without_interpreter, &[]),
    case("PATH is searched", searches_path, &[]),
    case("TERM stops a program without a handler: 143", stops_plain, &[]),
    case("ordinary signals reach the service", ordinary_signals, &[]),
    case("real-time signals 34-64 reach the service", real_time_signals, &[]),
    case("signals 32 and 33 reach the service", low_real_time_signals, ALL),
    case("TTIN, TTOU and TSTP that a process sent reach the service", job_signals, ALL),
    case("fault signals that a process sent reach the service", fault_signals, &["tini", "catatonit"]),
    case("10 000 signals at once", signal_storm, &[]),
    case("200 orphans are reaped", orphans, &[]),
    case("5 000 orphans are reaped", orphan_storm, &[]),
    case("SIGCHLD ignored on entry", child_ignored, &["tini", "catatonit"]),
    case("all signals blocked on entry, then TERM", all_blocked, &["tini", "catatonit"]),
    case("the service's mask is empty", clean_mask, ALL),
    case("the service's signals have their defaults", clean_dispositions, ALL),
    case("descriptors 0, 1, 2 closed", closed_descriptors, &["tini"]),
    case("inherited descriptors and folder are let go", lets_go, ALL),
    case("never wakes when idle", never_wakes, &["tini"]),
    case("no /proc", place_cases::no_proc, &[]),
    case("no /dev", place_cases::no_dev, &[]),
    case("a root that is read-only", place_cases::read_only, &[]),
    case("uid 65534 without capabilities", place_cases::no_privileges, &[]),
    case("200 orphans where 20 processes are allowed", place_cases::few_processes, &[]),
    case("a seccomp filter that refuses setpgid, setsid or ioctl", place_cases::no_job_control, ALL),
    case("a seccomp filter that refuses prctl, signalfd or rt_sigtimedwait", place_cases::no_waiting, ALL),
    case("what is left gets TERM and time to finish", leftovers_finish, ALL),
    case("so does what called setsid", session_leftovers_finish, ALL),
    case("a program behind a shell gets TERM and time too", behind_a_shell, ALL),
    case("not PID 1: nothing is left behind", nothing_left, ALL),
    case("not PID 1: never a signal outside its own tree", stays_in_its_tree, &[]),
    case("not PID 1: killed, it takes the service along", killed_init, ALL),
    case("a full stderr stops nothing", full_stderr, &[]),
    case("terminal: Ctrl-C is 130", terminal_cases::interrupt, &[]),
    case("terminal: the service reads", terminal_cases::reads, &[]),
    case("terminal: Ctrl-Z and fg under a shell", terminal_cases::job_control, ALL),
    case("terminal: hang-up ends the service", terminal_cases::hang_up, &[]),
    case("terminal: the window's size arrives", terminal_cases::window_size, &[]),
    ours("KILL after --grace, the exit code kept", grace),
    ours("a second TERM ends the grace", second_term),
    ours("--wait-all waits for a daemon", wait_all),
    ours("--wait-all with --restart: the next run begins after the last process", wait_all_and_restart),
    ours("--restart on-failure:2 runs three times", restarts),
    ours("leftovers are stopped before a restart", restart_cleans),
    ours("TERM during the back-off ends it", term_in_pause),
    ours("TERM during a run is not followed by a restart", term_in_run),
    ours("--forward group reaches the group, nobody twice", forward_group),
    ours("--forward session reaches the session, nobody twice", forward_session),
    ours("--rewrite TERM:USR1,HUP:0", rewrites),
    ours("--stop-delay holds TERM back", stop_delay),
    ours("--max-runtime stops the service", max_runtime),
    ours("no TERM is lost from the moment on that the mask is set", place_cases::no_blind_window),
    ours("--success 143 makes 0", success),
    ours("--secret and --env-file are the service's only", secrets),
    ours("--user, --workdir, --umask", identity),
    ours("--ready-file is there from READY=1 to STOPPING=1", notify_cases::ready_file),
    ours("--ready-file goes at the first TERM, before --stop-delay is over", notify_cases::unready_by_stop),
    ours("--watchdog stops who is silent, with ABRT, and nobody else", notify_cases::watchdog),
    ours("MAINPID= names the main program", notify_cases::main_pid),
    ours("messages of processes of others are passed over", notify_cases::strangers),
    ours("messages reach an outer NOTIFY_SOCKET too", notify_cases::outer_socket),
    ours("--pause reaps until TERM", place_cases::pause),
    ours("LISTEN_PID becomes the service's", listen_pid),
    ours("options by environment", by_environment),
    ours("--events tells what happened, in order", events),
    ours("wrong options are 125", wrong_options),
    ours("pids limit: fork fails with a message, 125", place_cases::no_process),
];

pub fn expect(what: &str, got: i32, wanted: i32) -> Verdict {
    if got == wanted { Ok(()) } else { Err(format!("{what}: exit code {got}, not {wanted}")) }
}

pub fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

pub fn shell(init: &Init, options: &[&str], script: &str) -> Command {
    init.command(options, &["sh", "-c", script])
}

pub fn begin(command: Command, place: Place) -> Result<Running, String> {
    start(command, place).map_err(|error| error.to_string())
}

pub fn probe(init: &Init, options: &[&str], words: &[&str]) -> Command {
    let program = probe_program().to_string_lossy().into_owned();
    let mut all = vec![program.as_str(), "probe"];
    all.extend(words);
    init.command(options, &all)
}

/// The init after a careless parent: `enter WHAT… -- INIT -- COMMAND`.
pub fn entered(init: &Init, what: &[&str], words: &[&str]) -> Command {
    let inner = init.command(&[], words);
    let mut command = Command::new(probe_program());
    command.args(["probe", "enter"]).args(what).arg("--").arg(inner.get_program()).args(inner.get_args());
    command
}

fn exit_codes(init: &Init) -> Verdict {
    for code in 0..=255 {
        expect("exit", finish(shell(init, &[], &format!("exit {code}")), Place::Pid1)?.0, code)?;
    }
    Ok(())
}

fn killed_by(init: &Init) -> Verdict {
    let harmless = [17, 18, 19, 20, 21, 22, 23, 28, 32, 33];
    for signal in (1..=64).filter(|signal| !harmless.contains(signal)) {
        let got = finish(shell(init, &[], &format!("ulimit -c 0; kill -{signal} $$; sleep 1")), Place::Pid1)?.0;
        expect(&format!("signal {signal}"), got, 128 + signal)?;
    }
    Ok(())
}

fn not_found(init: &Init) -> Verdict {
    expect("a name", finish(init.command(&[], &["no-such-program"]), Place::Pid1)?.0, 127)?;
    expect("a path", finish(init.command(&[], &["/no/such/program"]), Place::Pid1)?.0, 127)
}

fn not_executable(init: &Init) -> Verdict {
    expect("a file", finish(init.command(&[], &["/etc/passwd"]), Place::Pid1)?.0, 126)?;
    expect("a folder", finish(init.command(&[], &["/etc"]), Place::Pid1)?.0, 126)
}

fn script_without_interpreter(init: &Init) -> Verdict {
    let path = std::env::temp_dir().join(format!("init-tests-script-{}-{}", std::process::id(), init.name));
    std::fs::write(&path, "exit $(($# + 40))\n").map_err(|error| error.to_string())?;
    let _ = std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755));
    let code = finish(init.command(&[], &[path.as_os_str(), "a".as_ref(), "b".as_ref()]), Place::Pid1);
    let _ = std::fs::remove_file(&path);
    expect("script", code?.0, 42)
}

fn searches_path(init: &Init) -> Verdict {
    let mut command = init.command(&[], &["sh", "-c", "exit 5"]);
    command.env("PATH", "/nowhere:/etc/passwd:/usr/bin:/bin");
    expect("sh", finish(command, Place::Pid1)?.0, 5)
}

fn stops_plain(init: &Init) -> Verdict {
    let mut running = begin(shell(init, &[], "echo ready; exec sleep 100"), Place::Pid1)?;
    running.line()?;
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)
}

/// Sends signals one by one; each must be said by the service.
fn arrive(init: &Init, signals: impl IntoIterator<Item = i32>) -> Verdict {
    let mut running = begin(probe(init, &[], &["signals"]), Place::Pid1)?;
    running.line()?;
    let wanted: Vec<String> =
        signals.into_iter().inspect(|signal| running.signal(*signal)).map(|s| s.to_string()).collect();
    let missing = |said: &[String]| wanted.iter().filter(|signal| !said.contains(signal)).cloned().collect::<Vec<_>>();
    let said = running.lines(init.patience(), |said| missing(said).is_empty());
    if !missing(&said).is_empty() {
        return Err(format!("lost: {:?}", missing(&said)));
    }
    running.signal(libc::SIGTERM);
    expect("after TERM", running.wait(LIMIT)?, 0)
}

fn ordinary_signals(init: &Init) -> Verdict {
    arrive(init, [1, 2, 3, 10, 12, 13, 14, 16, 18, 23, 24, 25, 26, 27, 28, 29, 30])
}

fn real_time_signals(init: &Init) -> Verdict {
    arrive(init, 34..=64)
}

fn low_real_time_signals(init: &Init) -> Verdict {
    arrive(init, [32, 33])
}

fn job_signals(init: &Init) -> Verdict {
    arrive(init, [libc::SIGTTIN, libc::SIGTTOU, libc::SIGTSTP])
}

fn fault_signals(init: &Init) -> Verdict {
    use libc::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
    arrive(init, [SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS])
}

fn signal_storm(init: &Init) -> Verdict {
    let mut running = begin(shell(init, &[], "trap : USR1; echo ready; while :; do sleep 0.01; done"), Place::Pid1)?;
    running.line()?;
    (0..10_000).for_each(|_| running.signal(libc::SIGUSR1));
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)
}

fn reap_orphans(init: &Init, count: &str) -> Verdict {
    let mut running = begin(probe(init, &[], &["orphans", count]), Place::Pid1)?;
    let said = running.line()?;
    check(said == "done", || said)?;
    let pid = running.pid();
    let zombies = || children(pid).iter().filter(|(.., state)| *state == 'Z').count();
    check(eventually(LIMIT, || children(pid).len() == 1), || format!("{} zombies", zombies()))?;
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)
}

fn orphans(init: &Init) -> Verdict {
    reap_orphans(init, "200")
}

fn orphan_storm(init: &Init) -> Verdict {
    reap_orphans(init, "5000")
}

fn child_ignored(init: &Init) -> Verdict {
    let mut running = begin(entered(init, &["chld-ignored"], &["sh", "-c", "sleep 0.05; exit 9"]), Place::Pid1)?;
    expect("service", running.wait(init.patience())?, 9)
}

fn all_blocked(init: &Init) -> Verdict {
    let words = ["sh", "-c", "echo ready; exec sleep 100"];
    let mut running = begin(entered(init, &["all-blocked"], &words), Place::Pid1)?;
    running.line()?;
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(init.patience())?, 143)
}

fn masks(init: &Init, what: &str, field: &str) -> Verdict {
    // Without a shell: dash empties its mask.
    let mut running = begin(entered(init, &[what], &["grep", field, "/proc/self/status"]), Place::Pid1)?;
    let line = running.line()?;
    check(line.ends_with(":\t0000000000000000"), || line)
}

fn clean_mask(init: &Init) -> Verdict {
    masks(init, "all-blocked", "SigBlk")
}

fn clean_dispositions(init: &Init) -> Verdict {
    masks(init, "some-ignored", "SigIgn")
}

fn closed_descriptors(init: &Init) -> Verdict {
    expect("service", finish(entered(init, &["closed"], &["sh", "-c", "exit 7"]), Place::Pid1)?.0, 7)
}

fn lets_go(init: &Init) -> Verdict {
    let words = ["sh", "-c", "echo ready; exec sleep 100"];
    let mut command = entered(init, &["descriptor"], &words);
    command.current_dir("/tmp");
    let mut running = begin(command, Place::Pid1)?;
    running.line()?;
    let pid = running.pid();
    let is_closed = || std::fs::read_link(format!("/proc/{pid}/fd/9")).is_err();
    check(eventually(init.patience(), is_closed), || "descriptor 9 is still open".into())?;
    let is_gone =
        || std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == std::path::Path::new("/"));
    check(eventually(init.patience(), is_gone), || "it stays in its folder".into())
}

fn never_wakes(init: &Init) -> Verdict {
    let mut running = begin(shell(init, &[], "echo ready; exec sleep 100"), Place::Pid1)?;
    running.line()?;
    let pid = running.pid();
    let switches = || status_field(pid, "voluntary_ctxt_switches").ok_or("no status");
    let (mut before, mut after) = (switches()?, String::new());
    // The first look may come before the init has gone to sleep at all.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(2200));
        after = switches()?;
        if before == after {
            return Ok(());
        }
        std::mem::swap(&mut before, &mut after);
    }
    Err(format!("context switches go on: {after}, then {before}"))
}

/// A worker that needs a moment after TERM; it makes the file `$F` when it is ready for it.
const FLUSHER: &str = r#"trap "sleep 0.3; echo flushed; exit" TERM; : >$F; while :; do sleep 0.02; done"#;

fn leftovers(init: &Init, how: &str) -> Verdict {
    let mark = scratch("ready");
    let script = format!("{how} sh -c '{FLUSHER}' & until [ -e $F ]; do sleep 0.01; done; exit 3");
    let mut command = shell(init, &[], &script);
    command.env("F", &mark);
    let done = finish(command, Place::Pid1);
    let _ = std::fs::remove_file(mark);
    let (code, said) = done?;
    expect("main program", code, 3)?;
    check(said.contains("flushed"), || "the worker was killed before it had flushed".into())
}

/// The fourth of the experiments: a program with a handler behind a shell that has none.
fn behind_a_shell(init: &Init) -> Verdict {
    let script =
        r#"sh -c 'trap "sleep 0.3; echo cleaned up; exit" TERM; echo ready; while :; do sleep 0.02; done'; true"#;
    let mut running = begin(shell(init, &[], script), Place::Pid1)?;
    running.line()?;
    running.signal(libc::SIGTERM);
    running.wait(LIMIT)?;
    let said = running.rest();
    check(said.contains("cleaned up"), || "it was killed before it had cleaned up".into())
}

fn leftovers_finish(init: &Init) -> Verdict {
    leftovers(init, "")
}

fn session_leftovers_finish(init: &Init) -> Verdict {
    leftovers(init, "setsid")
}

fn nothing_left(init: &Init) -> Verdict {
    let mark = format!("100.{}{}", std::process::id(), init.name.len());
    let (mut command, file) = (
        shell(init, &[], &format!("setsid sleep {mark} & until [ -e $F ]; do sleep 0.01; done; exit 4")),
        scratch("there"),
    );
    command.env("F", &file);
    let mut running = begin(command, Place::Ordinary)?;
    let is_there = eventually(LIMIT, || !by_arguments(&mark).is_empty());
    let code = std::fs::write(&file, "").map_err(|error| error.to_string()).and_then(|()| running.wait(LIMIT));
    let _ = std::fs::remove_file(&file);
    check(is_there, || "it was not started".into())?;
    let code = code?;
    let left: Vec<i32> = by_arguments(&mark);
    // SAFETY: plain numbers, of processes that this case made.
    left.iter().for_each(|pid| _ = unsafe { libc::kill(*pid, libc::SIGKILL) });
    expect("main program", code, 4)?;
    check(left.is_empty(), || "a process that called setsid lives on".into())
}

/// The processes `sleep MARK`.
pub fn by_arguments(mark: &str) -> Vec<i32> {
    let is_meant = |pid: i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with(b"sleep\0") && line[6..] == [mark.as_bytes(), b"\0"].concat())
    };
    pids().filter(|pid| is_meant(*pid)).collect()
}

fn stays_in_its_tree(init: &Init) -> Verdict {
    let mut outsider = Command::new("sleep").arg("100").spawn().map_err(|error| error.to_string())?;
    let mut running = begin(shell(init, &[], "sleep 100 & echo ready; exec sleep 100"), Place::Ordinary)?;
    running.line()?;
    running.signal(libc::SIGTERM);
    let code = running.wait(LIMIT);
    let lives = matches!(outsider.try_wait(), Ok(None));
    let _ = outsider.kill();
    let _ = outsider.wait();
    expect("TERM", code?, 143)?;
    check(lives, || "a process of somebody else was ended".into())
}

fn killed_init(init: &Init) -> Verdict {
    let mut running = begin(shell(init, &[], "echo $$; exec sleep 100"), Place::Ordinary)?;
    let service: i32 = running.line()?.parse().map_err(|_| "no pid".to_owned())?;
    running.signal(libc::SIGKILL);
    running.wait(LIMIT)?;
    // Whoever adopts it may take its time to reap it.
    let lives = || status_field(service, "State").is_some_and(|state| !state.starts_with('Z'));
    let gone = eventually(init.patience(), || !lives());
    // SAFETY: plain numbers; the service of this case.
    unsafe { libc::kill(service, libc::SIGKILL) };
    check(gone, || "the service lives on".into())
}

fn full_stderr(init: &Init) -> Verdict {
    let mut command = probe(init, if init.ours { &["-vv"] } else { &[] }, &["orphans", "3000"]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    // A pipe that nobody reads.
    let (reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    command.stderr(writer);
    let mut child = crate::harness::spawn(command, Place::Pid1).map_err(|error| error.to_string())?;
    let out = child.stdout.take().ok_or("no stdout")?;
    let mut running = Running { child, out: std::io::BufReader::new(out) };
    running.line()?;
    running.signal(libc::SIGTERM);
    let code = running.wait(LIMIT);
    drop(reader);
    expect("TERM", code?, 143)
}

fn grace(init: &Init) -> Verdict {
    for place in [Place::Pid1, Place::Ordinary] {
        let start = Instant::now();
        let mark = scratch("ready");
        let script = "setsid sh -c 'trap \"\" TERM; : >$F; sleep 50' & until [ -e $F ]; do sleep 0.01; done; exit 8";
        let mut command = shell(init, &["--grace", "300ms"], script);
        command.env("F", &mark);
        let done = finish(command, place);
        let _ = std::fs::remove_file(mark);
        expect("main program", done?.0, 8)?;
        check(start.elapsed() >= Duration::from_millis(300), || format!("took {:?}", start.elapsed()))?;
    }
    Ok(())
}

fn second_term(init: &Init) -> Verdict {
    let script = "(trap '' TERM; echo ready; sleep 50) & exec sleep 100";
    let mut running = begin(shell(init, &["--grace=30"], script), Place::Pid1)?;
    running.line()?;
    let pid = running.pid();
    let main = children(pid).first().ok_or("no service")?.0;
    running.signal(libc::SIGTERM);
    // Until the service has ended and the first one was taken.
    let has_ended = || children(pid).iter().all(|(child, ..)| *child != main);
    check(eventually(LIMIT, has_ended), || "the service lives".into())?;
    std::thread::sleep(Duration::from_millis(50));
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)
}

fn wait_all(init: &Init) -> Verdict {
    let script = "(sleep 0.3; echo late) & exit 5";
    let (code, said) = finish(shell(init, &["--wait-all"], script), Place::Pid1)?;
    expect("main program", code, 5)?;
    check(said.contains("late"), || "did not wait".into())?;
    let mut running = begin(shell(init, &["--wait-all"], "sleep 100 & echo ready"), Place::Pid1)?;
    running.line()?;
    let pid = running.pid();
    let is_adopted = || children(pid).iter().all(|(_, name, _)| name == "sleep");
    check(eventually(LIMIT, is_adopted), || "the main program lives on".into())?;
    // Only now it is sure that the init has taken its end.
    std::thread::sleep(Duration::from_millis(50));
    running.signal(libc::SIGTERM);
    expect("stopped daemon", running.wait(LIMIT)?, 0)
}

fn wait_all_and_restart(init: &Init) -> Verdict {
    // The second run's daemon would be there while the first one's is, and TERM would end that before its time.
    let script = "echo run; (sleep 0.3; echo gone) & exit 9";
    let (code, said) = finish(shell(init, &["--wait-all", "--restart", "on-failure:1"], script), Place::Pid1)?;
    expect("last run", code, 9)?;
    check(said == "run\ngone\nrun\ngone\n", || format!("{said:?}"))?;
    let script = "echo run; (sleep 0.3; echo gone) & exit 0";
    let (code, said) = finish(shell(init, &["--wait-all", "--restart", "on-failure"], script), Place::Pid1)?;
    expect("a success", code, 0)?;
    check(said == "run\ngone\n", || format!("{said:?}"))?;
    let mut running = begin(shell(init, &["--wait-all", "--restart", "always"], script), Place::Pid1)?;
    for wanted in ["run", "gone", "run"] {
        let line = running.line()?;
        check(line.trim() == wanted, || format!("{line:?} instead of {wanted}"))?;
    }
    // A request to stop is for what runs now: no run follows.
    running.signal(libc::SIGTERM);
    let code = running.wait(LIMIT)?;
    check(code == 0 || code == 143, || format!("ended with {code}"))?;
    check(!running.rest().contains("run"), || "it was started again".into())
}

fn restarts(init: &Init) -> Verdict {
    let (code, said) = finish(shell(init, &["--restart", "on-failure:2"], "echo run; exit 9"), Place::Pid1)?;
    expect("last run", code, 9)?;
    check(said.lines().count() == 3, || format!("ran {} times", said.lines().count()))?;
    let (code, said) = finish(shell(init, &["--restart=on-failure"], "echo run; exit 0"), Place::Pid1)?;
    expect("a success", code, 0)?;
    check(said.lines().count() == 1, || "a success was run again".into())
}

fn restart_cleans(init: &Init) -> Verdict {
    let script = "pidof sleep; echo run; setsid sleep 77 & sleep 0.05; exit 1";
    let (_, said) = finish(shell(init, &["--restart", "on-failure:1"], script), Place::Pid1)?;
    check(said == "run\nrun\n", || format!("still there at the second start: {said:?}"))
}

fn term_in_pause(init: &Init) -> Verdict {
    let mut running = begin(shell(init, &["--restart", "always"], "echo run; exit 6"), Place::Pid1)?;
    // The pause after the seventh run is 6.4 s.
    for _ in 0..7 {
        running.line()?;
    }
    let pid = running.pid();
    check(eventually(LIMIT, || children(pid).is_empty()), || "the seventh run goes on".into())?;
    running.signal(libc::SIGTERM);
    expect("last run", running.wait(LIMIT)?, 6)?;
    check(running.rest().is_empty(), || "it was started again".into())
}

fn term_in_run(init: &Init) -> Verdict {
    let mut running = begin(shell(init, &["--restart", "always"], "echo run; exec sleep 100"), Place::Pid1)?;
    running.line()?;
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)?;
    check(running.rest().is_empty(), || "it was started again".into())
}

fn terms_once(init: &Init, option: &str) -> Verdict {
    // The worker counts its TERMs for a while; the main program ends at once.
    let worker =
        "n=0; trap \"n=\\$((n+1))\" TERM; echo ready; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.03; done; echo got $n";
    let script = format!("sh -c '{}' & exec sleep 100", worker.replace("\\$", "$"));
    let mut running = begin(shell(init, &["--forward", option], &script), Place::Pid1)?;
    running.line()?;
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)?;
    let said = running.rest();
    check(said.trim() == "got 1", || format!("the worker says: {said:?}"))
}

fn forward_group(init: &Init) -> Verdict {
    terms_once(init, "group")
}

fn forward_session(init: &Init) -> Verdict {
    terms_once(init, "session")
}

fn rewrites(init: &Init) -> Verdict {
    let mut running = begin(probe(init, &["--rewrite", "QUIT:USR1,HUP:0"], &["signals"]), Place::Pid1)?;
    running.line()?;
    for signal in [libc::SIGHUP, libc::SIGQUIT, libc::SIGTERM] {
        running.signal(signal);
        std::thread::sleep(Duration::from_millis(5));
    }
    expect("TERM", running.wait(LIMIT)?, 0)?;
    let said = running.rest();
    check(said == "10\n15\n", || format!("the service got {said:?}"))
}

fn stop_delay(init: &Init) -> Verdict {
    let mut running = begin(shell(init, &["--stop-delay", "0.3"], "echo ready; exec sleep 100"), Place::Pid1)?;
    running.line()?;
    let start = Instant::now();
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)?;
    check(start.elapsed() >= Duration::from_millis(300), || format!("took {:?}", start.elapsed()))
}

fn max_runtime(init: &Init) -> Verdict {
    expect("TERM", finish(shell(init, &["--max-runtime", "0.2"], "exec sleep 100"), Place::Pid1)?.0, 143)?;
    let options = ["--max-runtime", "0.2", "--grace", "0.2"];
    expect("KILL", finish(shell(init, &options, "trap '' TERM; while :; do sleep 0.05; done"), Place::Pid1)?.0, 137)
}

fn success(init: &Init) -> Verdict {
    expect("143", finish(shell(init, &["--success", "3,143"], "kill $$"), Place::Pid1)?.0, 0)?;
    expect("4", finish(shell(init, &["--success", "3,143"], "exit 4"), Place::Pid1)?.0, 4)
}

fn secrets(init: &Init) -> Verdict {
    let folder = std::env::temp_dir();
    let (secret, file) = (
        folder.join(format!("init-tests-s{}", std::process::id())),
        folder.join(format!("init-tests-e{}", std::process::id())),
    );
    std::fs::write(&secret, "hidden words\n")
        .and_then(|()| std::fs::write(&file, "# no\nB=x=y\n"))
        .map_err(|e| e.to_string())?;
    let option = format!("A={}", secret.display());
    let options = ["--secret", &option, "--env-file", &file.to_string_lossy()];
    let mut running = begin(shell(init, &options, "echo \"$A/$B\"; exec sleep 100"), Place::Pid1)?;
    let said = running.line();
    let own = std::fs::read_to_string(format!("/proc/{}/environ", running.pid())).unwrap_or_default();
    let _ = (std::fs::remove_file(secret), std::fs::remove_file(file));
    check(said.as_deref() == Ok("hidden words/x=y"), || format!("{said:?}"))?;
    check(!own.contains("hidden"), || "the secret is in the init's own environment".into())
}

fn identity(init: &Init) -> Verdict {
    let options = ["--user", "nobody", "--workdir", "/usr", "--umask", "027"];
    let (_, said) = finish(shell(init, &options, "echo $(id -u):$(id -g):$(id -G):$(pwd):$(umask)"), Place::Pid1)?;
    check(said.trim() == "65534:65534:65534:/usr:0027", || said)
}

fn listen_pid(init: &Init) -> Verdict {
    let mut command = shell(init, &[], "test $LISTEN_PID = $$ && test $LISTEN_FDS = 1");
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    expect("compared by the service", finish(command, Place::Pid1)?.0, 0)
}

fn by_environment(init: &Init) -> Verdict {
    let mut command = shell(init, &[], "kill $$");
    command.env("INCEPTION_INIT_SUCCESS", "143");
    expect("success", finish(command, Place::Pid1)?.0, 0)
}

fn events(init: &Init) -> Verdict {
    let file = std::env::temp_dir().join(format!("init-tests-events-{}", std::process::id()));
    let options = ["--events", &file.to_string_lossy(), "--event-format=json", "--grace", "0.2"];
    // An orphan, then one that ignores TERM.
    let script =
        "(sleep 0.1 &); sleep 0.2; (trap '' TERM; echo ready; sleep 9) & kill -USR1 1; sleep 0.1; exec sleep 100";
    let mut running = begin(shell(init, &options, &format!("trap : USR1; {script}")), Place::Pid1)?;
    running.line()?;
    let is_told = || std::fs::read_to_string(&file).is_ok_and(|told| told.contains("\"signal\":10"));
    check(eventually(LIMIT, is_told), || "USR1 was not forwarded".into())?;
    running.signal(libc::SIGTERM);
    let code = running.wait(LIMIT);
    let told = std::fs::read_to_string(&file).unwrap_or_default();
    let _ = std::fs::remove_file(&file);
    expect("TERM", code?, 143)?;
    let mut rest = told.as_str();
    for part in [
        "\"event\":\"started\",\"pid\":2,\"name\":\"sh\"}",
        "\"event\":\"reaped\"",
        "\"name\":\"sleep\",\"code\":0,\"age_ms\":",
        "\"event\":\"forwarded\",\"signal\":10,\"pid\":2}",
        "\"event\":\"forwarded\",\"signal\":15,\"pid\":2}",
        "\"code\":143,\"age_ms\":",
        "\"main\":true}",
        "\"event\":\"stopping\",\"grace_ms\":200}",
        "\"event\":\"killing\"}",
        "\"code\":137,",
        "\"event\":\"exited\",\"code\":143}",
    ] {
        let at = rest.find(part).ok_or_else(|| format!("{part} is not where it should be in:\n{told}"))?;
        rest = &rest[at + part.len()..];
    }
    check(told.contains("\"event\":\"adopted\""), || format!("nobody was adopted:\n{told}"))
}

fn wrong_options(init: &Init) -> Verdict {
    for options in [&["--nonsense"][..], &["--grace", "x"], &["--restart=yes"], &["--rewrite", "1"]] {
        expect("option", finish(init.command(options, &["true"]), Place::Pid1)?.0, 125)?;
    }
    Ok(())
}
