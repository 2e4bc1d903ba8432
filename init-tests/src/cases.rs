//! The cases: what an init must do, and which peers are known not to.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Init, LIMIT, Place, Running, children, eventually, finish, probe_program, start, status_field};
use crate::terminal_cases;

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
    case("no /proc", no_proc, &[]),
    case("uid 65534 without capabilities", no_privileges, &[]),
    case("what is left gets TERM and time to finish", leftovers_finish, ALL),
    case("so does what called setsid", session_leftovers_finish, ALL),
    case("not PID 1: nothing is left behind", nothing_left, ALL),
    case("not PID 1: never a signal outside its own tree", stays_in_its_tree, &[]),
    case("not PID 1: killed, it takes the service along", killed_init, ALL),
    case("a full stderr stops nothing", full_stderr, &[]),
    case("terminal: Ctrl-C is 130", terminal_cases::interrupt, &[]),
    case("terminal: the service reads", terminal_cases::reads, &[]),
    case("terminal: Ctrl-Z and fg under a shell", terminal_cases::job_control, &["tini", "catatonit"]),
    case("terminal: hang-up ends the service", terminal_cases::hang_up, &[]),
    case("terminal: the window's size arrives", terminal_cases::window_size, &[]),
    ours("KILL after --grace, the exit code kept", grace),
    ours("a second TERM ends the grace", second_term),
    ours("--wait-all waits for a daemon", wait_all),
    ours("--restart on-failure:2 runs three times", restarts),
    ours("leftovers are stopped before a restart", restart_cleans),
    ours("TERM during the back-off ends it", term_in_pause),
    ours("TERM during a run is not followed by a restart", term_in_run),
    ours("--forward group reaches the group, nobody twice", forward_group),
    ours("--forward session reaches the session, nobody twice", forward_session),
    ours("--rewrite TERM:USR1,HUP:0", rewrites),
    ours("--stop-delay holds TERM back", stop_delay),
    ours("--max-runtime stops the service", max_runtime),
    ours("--success 143 makes 0", success),
    ours("--secret and --env-file are the service's only", secrets),
    ours("--user, --workdir, --umask", identity),
    ours("LISTEN_PID becomes the service's", listen_pid),
    ours("options by environment", by_environment),
    ours("--events tells what happened, in order", events),
    ours("wrong options are 125", wrong_options),
    ours("pids limit: fork fails with a message, 125", pids_limit),
];

fn expect(what: &str, got: i32, wanted: i32) -> Verdict {
    if got == wanted { Ok(()) } else { Err(format!("{what}: exit code {got}, not {wanted}")) }
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn shell(init: &Init, options: &[&str], script: &str) -> Command {
    init.command(options, &["sh", "-c", script])
}

fn begin(command: Command, place: Place) -> Result<Running, String> {
    start(command, place).map_err(|error| error.to_string())
}

fn probe(init: &Init, options: &[&str], words: &[&str]) -> Command {
    let program = probe_program().to_string_lossy().into_owned();
    let mut all = vec![program.as_str(), "probe"];
    all.extend(words);
    init.command(options, &all)
}

/// The init after a careless parent: `enter WHAT… -- INIT -- COMMAND`.
fn entered(init: &Init, what: &[&str], words: &[&str]) -> Command {
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
    let start = Instant::now();
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)?;
    check(start.elapsed() < Duration::from_secs(1), || format!("took {:?}", start.elapsed()))
}

/// Sends signals one by one; each must be said by the service.
fn arrive(init: &Init, signals: impl IntoIterator<Item = i32>) -> Verdict {
    let mut running = begin(probe(init, &[], &["signals"]), Place::Pid1)?;
    running.line()?;
    let mut wanted = Vec::new();
    for signal in signals {
        running.signal(signal);
        wanted.push(signal.to_string());
        std::thread::sleep(Duration::from_millis(2));
    }
    // Whoever stopped itself is made to go on, so that the case ends; not at once, because SIGCONT takes pending stop
    // signals away.
    std::thread::sleep(Duration::from_millis(100));
    running.signal(libc::SIGCONT);
    std::thread::sleep(Duration::from_millis(10));
    for (child, ..) in children(running.pid()) {
        // SAFETY: plain numbers; a child of an init of ours.
        unsafe { libc::kill(child, libc::SIGCONT) };
    }
    running.signal(libc::SIGTERM);
    expect("after TERM", running.wait(Duration::from_secs(5))?, 0)?;
    let said = running.rest();
    let said: Vec<&str> = said.lines().collect();
    let missing: Vec<_> = wanted.iter().filter(|signal| !said.contains(&signal.as_str())).collect();
    check(missing.is_empty(), || format!("lost: {missing:?}"))
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
    check(eventually(Duration::from_secs(3), || children(pid).len() == 1), || format!("{} zombies", zombies()))?;
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
    expect("service", running.wait(Duration::from_secs(3))?, 9)
}

fn all_blocked(init: &Init) -> Verdict {
    let words = ["sh", "-c", "echo ready; exec sleep 100"];
    let mut running = begin(entered(init, &["all-blocked"], &words), Place::Pid1)?;
    running.line()?;
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(Duration::from_secs(3))?, 143)
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
    std::thread::sleep(Duration::from_millis(20));
    let pid = running.pid();
    check(std::fs::read_link(format!("/proc/{pid}/fd/9")).is_err(), || "descriptor 9 is still open".into())?;
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).map_err(|error| error.to_string())?;
    check(folder == std::path::Path::new("/"), || format!("its folder is {}", folder.display()))
}

fn never_wakes(init: &Init) -> Verdict {
    let mut running = begin(shell(init, &[], "echo ready; exec sleep 100"), Place::Pid1)?;
    running.line()?;
    std::thread::sleep(Duration::from_millis(100));
    let switches = |pid| status_field(pid, "voluntary_ctxt_switches");
    let before = switches(running.pid());
    std::thread::sleep(Duration::from_millis(2500));
    let after = switches(running.pid());
    check(before.is_some() && before == after, || format!("context switches: {before:?}, then {after:?}"))
}

fn no_proc(init: &Init) -> Verdict {
    expect("service", finish(entered(init, &["no-proc"], &["sh", "-c", "sleep 0.05 & exit 6"]), Place::Pid1)?.0, 6)
}

fn no_privileges(init: &Init) -> Verdict {
    let words = ["sh", "-c", "echo ready; exec sleep 100"];
    let mut running = begin(entered(init, &["nobody"], &words), Place::Pid1)?;
    running.line()?;
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)
}

const FLUSHER: &str = r#"trap "sleep 0.3; echo flushed; exit" TERM; echo ready; while :; do sleep 0.02; done"#;

fn leftovers(init: &Init, how: &str) -> Verdict {
    // The trap is set when the worker says so; only then the main program ends.
    let script = format!("{how} sh -c '{FLUSHER}' & sleep 0.15; exit 3");
    let (code, said) = finish(shell(init, &[], &script), Place::Pid1)?;
    expect("main program", code, 3)?;
    check(said.contains("flushed"), || "the worker was killed before it had flushed".into())
}

fn leftovers_finish(init: &Init) -> Verdict {
    leftovers(init, "")
}

fn session_leftovers_finish(init: &Init) -> Verdict {
    leftovers(init, "setsid")
}

fn nothing_left(init: &Init) -> Verdict {
    let mark = format!("100.{}{}", std::process::id(), init.name.len());
    let mut running = begin(shell(init, &[], &format!("setsid sleep {mark} & sleep 0.1; exit 4")), Place::Ordinary)?;
    let code = running.wait(LIMIT)?;
    let left: Vec<i32> = by_arguments(&mark);
    // SAFETY: plain numbers, of processes that this case made.
    left.iter().for_each(|pid| _ = unsafe { libc::kill(*pid, libc::SIGKILL) });
    expect("main program", code, 4)?;
    check(left.is_empty(), || "a process that called setsid lives on".into())
}

fn by_arguments(mark: &str) -> Vec<i32> {
    let is_meant = |pid: i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with(b"sleep\0") && line[6..] == [mark.as_bytes(), b"\0"].concat())
    };
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| is_meant(*pid))
        .collect()
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
    let gone = eventually(Duration::from_secs(1), || !lives());
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
    let code = running.wait(Duration::from_secs(5));
    drop(reader);
    expect("TERM", code?, 143)
}

fn grace(init: &Init) -> Verdict {
    for place in [Place::Pid1, Place::Ordinary] {
        let start = Instant::now();
        let script = "setsid sh -c 'trap \"\" TERM; sleep 50' & sleep 0.1; exit 8";
        expect("main program", finish(shell(init, &["--grace", "300ms"], script), place)?.0, 8)?;
        let took = start.elapsed();
        check((400..1500).contains(&took.as_millis()), || format!("took {took:?}"))?;
    }
    Ok(())
}

fn second_term(init: &Init) -> Verdict {
    let script = "(trap '' TERM; echo ready; sleep 50) & exec sleep 100";
    let mut running = begin(shell(init, &["--grace=30"], script), Place::Pid1)?;
    running.line()?;
    let start = Instant::now();
    running.signal(libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(100));
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)?;
    check(start.elapsed() < Duration::from_secs(2), || format!("took {:?}", start.elapsed()))
}

fn wait_all(init: &Init) -> Verdict {
    let script = "(sleep 0.3; echo late) & exit 5";
    let (code, said) = finish(shell(init, &["--wait-all"], script), Place::Pid1)?;
    expect("main program", code, 5)?;
    check(said.contains("late"), || "did not wait".into())?;
    let mut running = begin(shell(init, &["--wait-all"], "sleep 100 & echo ready"), Place::Pid1)?;
    running.line()?;
    std::thread::sleep(Duration::from_millis(50));
    running.signal(libc::SIGTERM);
    expect("stopped daemon", running.wait(Duration::from_secs(2))?, 0)
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
    // The pause after the fourth run is 800 ms.
    for _ in 0..4 {
        running.line()?;
    }
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    running.signal(libc::SIGTERM);
    expect("last run", running.wait(LIMIT)?, 6)?;
    check(start.elapsed() < Duration::from_millis(400), || format!("took {:?}", start.elapsed()))
}

fn term_in_run(init: &Init) -> Verdict {
    let mut running = begin(shell(init, &["--restart", "always"], "echo run; exec sleep 100"), Place::Pid1)?;
    running.line()?;
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(Duration::from_secs(2))?, 143)?;
    check(running.rest().is_empty(), || "it was started again".into())
}

fn terms_once(init: &Init, option: &str) -> Verdict {
    // The worker counts its TERMs for a while; the main program ends at once.
    let worker =
        "n=0; trap \"n=\\$((n+1))\" TERM; echo ready; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.03; done; echo got $n";
    let script = format!("sh -c '{}' & exec sleep 100", worker.replace("\\$", "$"));
    let mut running = begin(shell(init, &["--forward", option], &script), Place::Pid1)?;
    running.line()?;
    std::thread::sleep(Duration::from_millis(20));
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
    check((290..1000).contains(&start.elapsed().as_millis()), || format!("took {:?}", start.elapsed()))
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
    std::thread::sleep(Duration::from_millis(200));
    running.signal(libc::SIGTERM);
    let code = running.wait(LIMIT);
    let told = std::fs::read_to_string(&file).unwrap_or_default();
    let _ = std::fs::remove_file(&file);
    expect("TERM", code?, 143)?;
    let mut rest = told.as_str();
    for part in [
        "\"event\":\"started\",\"pid\":2,\"name\":\"sh\"}",
        "\"event\":\"reaped\"",
        "\"name\":\"sleep\",\"code\":0,\"age_ms\":1",
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

fn pids_limit(init: &Init) -> Verdict {
    // A user of its own for the limit; as PID 1 of a namespace without more room.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=64123", "--clear-groups", "prlimit", "--nproc=1"]).arg(&init.path).args(["--", "true"]);
    expect("fork refused", finish(command, Place::Pid1)?.0, 125)
}
