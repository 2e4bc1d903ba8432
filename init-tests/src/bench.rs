//! `init-tests bench`: this init beside its peers, interleaved in one run, as ratios.
//!
//! On a shared machine wall-clock medians say little: minimums, counts and CPU times are compared.

use std::fmt::Write;
use std::io::BufRead;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::harness::{Init, Place, Running, children, eventually, probe_program, start, status_field};

/// One line of the table: a figure for each init.
struct Line {
    what: &'static str,
    unit: &'static str,
    figures: Vec<Option<f64>>,
    /// What the ratio ought to be at most; with the static peers only, where a libc beside the file would be left out.
    goal: Option<f64>,
    only_static: bool,
}

impl Line {
    fn new(what: &'static str, unit: &'static str, figures: Vec<Option<f64>>) -> Self {
        Self { what, unit, figures, goal: None, only_static: false }
    }

    fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }

    fn beside_static_ones(self) -> Self {
        Self { only_static: true, ..self }
    }
}

/// Runs all and gives the section of docs/benchmarks.md; the first init is ours.
pub fn run(inits: &[Init]) -> String {
    // A shell's background jobs ignore INT and QUIT, which this init would spend a call each on.
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        // SAFETY: a default disposition; nothing here handles these.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let [rss, pss] = memory(inits);
    let (pss_of_many, anonymous) = of_many(inits);
    let [least, median] = forwarding(inits);
    let lines = [
        line("size of the file", "bytes", inits, size).goal(0.5).beside_static_ones(),
        line("needs a libc beside it", "yes 1, no 0", inits, is_dynamic),
        rss.goal(1.0 / 7.0).beside_static_ones(),
        pss.goal(1.0),
        pss_of_many.goal(1.0),
        anonymous.goal(1.0 / 3.0),
        line("system calls up to the service's exec (goal: 14)", "calls", inits, calls_before_exec).goal(0.5),
        Line::new("start and exit, over a bare /bin/true, minimum", "µs", start_and_exit(inits)).goal(1.0 / 3.0),
        line("wake-ups in 3 idle seconds", "", inits, wake_ups),
        least.goal(1.0),
        median.goal(1.0),
        Line::new("CPU of the init for 20 000 orphans, minimum of 3", "ms", orphans(inits)).goal(1.1),
        line("system calls for an orphan", "calls", inits, calls_for_an_orphan),
    ];
    table(inits, &lines)
}

fn line(what: &'static str, unit: &'static str, inits: &[Init], measure: fn(&Init) -> Option<f64>) -> Line {
    Line::new(what, unit, inits.iter().map(measure).collect())
}

fn table(inits: &[Init], lines: &[Line]) -> String {
    let names: Vec<&str> = inits.iter().map(|init| init.name.as_str()).collect();
    let mut text = format!(
        "| | unit | {} | ours / best peer | goal |\n|---|---|{}--:|--:|\n",
        names.join(" | "),
        "--:|".repeat(names.len())
    );
    for line in lines {
        let _ = write!(text, "| {} | {} |", line.what, line.unit);
        for figure in &line.figures {
            let _ = match figure {
                None => write!(text, " – |"),
                Some(figure) if *figure >= 100.0 || figure.fract() == 0.0 => write!(text, " {figure:.0} |"),
                Some(figure) => write!(text, " {figure:.1} |"),
            };
        }
        let counts = |init: &Init| !line.only_static || is_dynamic(init) == Some(0.0);
        let peers = inits.iter().zip(&line.figures).skip(1).filter(|(init, _)| counts(init));
        let best = peers.filter_map(|(_, figure)| *figure).fold(f64::INFINITY, f64::min);
        let _ = match line.figures.first() {
            Some(Some(ours)) if best > 0.0 && best.is_finite() => write!(text, " {:.2} |", ours / best),
            _ => write!(text, " |"),
        };
        let _ = match line.goal {
            Some(goal) => writeln!(text, " {goal:.2} |"),
            None => writeln!(text, " |"),
        };
    }
    text
}

fn size(init: &Init) -> Option<f64> {
    Some(std::fs::metadata(&init.path).ok()?.len() as f64)
}

fn is_dynamic(init: &Init) -> Option<f64> {
    // A dynamic program names its loader near its beginning.
    let file = std::fs::read(&init.path).ok()?;
    let head = &file[..file.len().min(4096)];
    Some(f64::from(u8::from(head.windows(9).any(|part| part == b"ld-linux-"))))
}

fn idle(init: &Init) -> Option<Running> {
    let mut running = start(init.command(&[], &["sh", "-c", "echo ready; exec sleep 1000"]), Place::Pid1).ok()?;
    running.line().ok()?;
    std::thread::sleep(Duration::from_millis(50));
    Some(running)
}

fn rollup(pid: i32, key: &str) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok())
}

/// The kernel maps files in windows that lie as it happens: the median of some copies, one after the other.
fn memory(inits: &[Init]) -> [Line; 2] {
    [("RSS, idle, of one (ratio: beside the static ones)", "Rss"), ("PSS, idle, of one", "Pss")].map(|(what, key)| {
        let median = |init: &Init| {
            let mut figures: Vec<f64> = (0..9).filter_map(|_| rollup(idle(init)?.pid(), key)).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied()
        };
        Line::new(what, "KiB", inits.iter().map(median).collect())
    })
}

/// Means of 50 copies that run at the same time: PSS, and anonymous memory, whose stack begins at a random place.
fn of_many(inits: &[Init]) -> (Line, Line) {
    let mean = |init: &Init| {
        let running: Vec<Running> = (0..50).filter_map(|_| idle(init)).collect();
        let mean = |key| {
            let figures: Vec<f64> = running.iter().filter_map(|running| rollup(running.pid(), key)).collect();
            (figures.len() == 50).then(|| figures.iter().sum::<f64>() / 50.0)
        };
        (mean("Pss"), mean("Anonymous"))
    };
    let (pss, anonymous) = inits.iter().map(mean).unzip();
    (
        Line::new("PSS, idle, of each of 50", "KiB", pss),
        Line::new("anonymous memory, idle, mean of 50", "KiB", anonymous),
    )
}

/// Parent's and child's, as PID 1, from the init's own exec (left out) to the service's (left out).
fn calls_before_exec(init: &Init) -> Option<f64> {
    let inner = init.command(&[], &["/bin/true"]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/stdout"]).arg(inner.get_program()).args(inner.get_args());
    // glibc's posix_spawn leaves signals 32 and 33 ignored, which this init would spend a call each on; with a step of
    // its own before the exec std forks instead, as container runtimes do.
    // SAFETY: does nothing.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut strace, || Ok(())) };
    let mut running = start(strace, Place::Ordinary).ok()?;
    let text = running.rest();
    let calls =
        text.lines().filter(|line| !line.contains("resumed>") && !line.contains("+++") && !line.contains("---"));
    Some(calls.skip(1).take_while(|line| !line.contains("execve(\"/bin/true\"")).count() as f64)
}

/// The init's own calls from 500 orphans to 1500, by a thousand.
fn calls_for_an_orphan(init: &Init) -> Option<f64> {
    let calls = |count: &str| {
        let program = probe_program().to_string_lossy().into_owned();
        let inner = init.command(&[], &[program.as_str(), "probe", "orphans", count]);
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-o", "/dev/stderr"]).arg(inner.get_program()).args(inner.get_args());
        let mut child = strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
        let mut log = child.stderr.take()?;
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut log, &mut text);
            text.lines().filter(|line| !line.starts_with(['-', '+'])).count()
        });
        let out = std::io::BufReader::new(child.stdout.take()?);
        let mut running = Running { child, out };
        running.line().ok()?;
        let traced = children(running.pid()).first()?.0;
        eventually(Duration::from_secs(20), || children(traced).len() == 1);
        // SAFETY: plain numbers, of an init that this function has started.
        unsafe { libc::kill(traced, libc::SIGTERM) };
        running.wait(Duration::from_secs(20)).ok()?;
        reader.join().ok().map(|count| count as f64)
    };
    // As an ordinary process, under strace: who is no subreaper gets no orphans, and shows nothing.
    Some((calls("1500")? - calls("500")?) / 1000.0).filter(|calls| *calls > 0.5)
}

fn once(mut command: Command) -> Option<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    command.spawn().ok()?.wait().ok()?;
    Some(start.elapsed())
}

/// Does `work` on one processor, with all that it starts: what it takes to wake another one up is several times what an
/// init does, and falls on this one or that by chance.
fn on_one_processor<T>(work: impl FnOnce() -> T) -> T {
    let everywhere = sched_getaffinity(Pid::from_raw(0));
    let mut here = CpuSet::new();
    if let (Ok(processor), Ok(_)) = (sched_getcpu(), &everywhere) {
        let _ = here.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &here));
    }
    let done = work();
    if let Ok(everywhere) = everywhere {
        let _ = sched_setaffinity(Pid::from_raw(0), &everywhere);
    }
    done
}

fn start_and_exit(inits: &[Init]) -> Vec<Option<f64>> {
    let mut bare = Duration::MAX;
    let mut best = vec![Duration::MAX; inits.len()];
    on_one_processor(|| {
        for _ in 0..400 {
            bare = bare.min(once(Command::new("/bin/true")).unwrap_or(Duration::MAX));
            for (init, best) in inits.iter().zip(&mut best) {
                *best = (*best).min(once(init.command(&[], &["/bin/true"])).unwrap_or(Duration::MAX));
            }
        }
    });
    best.into_iter().map(|best| Some(best.saturating_sub(bare).as_secs_f64() * 1e6)).collect()
}

fn wake_ups(init: &Init) -> Option<f64> {
    let running = idle(init)?;
    let switches = || status_field(running.pid(), "voluntary_ctxt_switches")?.parse::<f64>().ok();
    let before = switches()?;
    std::thread::sleep(Duration::from_secs(3));
    Some(switches()? - before)
}

fn service(init: &Init, words: &[&str]) -> Option<Running> {
    let program = probe_program().to_string_lossy().into_owned();
    let mut all = vec![program.as_str(), "probe"];
    all.extend(words);
    let mut running = start(init.command(&[], &all), Place::Pid1).ok()?;
    running.line().ok()?;
    Some(running)
}

/// From the kill(2) to the line that the service says. Each is the first of a round as often.
fn forwarding(inits: &[Init]) -> [Line; 2] {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); inits.len()];
    on_one_processor(|| {
        let mut running: Vec<_> = inits.iter().map(|init| service(init, &["signals"])).collect();
        let mut line = String::new();
        for round in 0..5000 {
            for place in 0..inits.len() {
                let index = (round + place) % inits.len();
                let Some(running) = &mut running[index] else { continue };
                line.clear();
                let start = Instant::now();
                running.signal(libc::SIGUSR1);
                if running.out.read_line(&mut line).is_ok() {
                    times[index].push(start.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
    });
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    let at = |share: usize| times.iter().map(|times| times.get(times.len() * share / 100).copied()).collect();
    [
        Line::new("forwarding a signal and the service's answer, minimum", "µs", at(0)),
        Line::new("the same, median", "µs", at(50)),
    ]
}

fn orphans(inits: &[Init]) -> Vec<Option<f64>> {
    let mut best = vec![None; inits.len()];
    for _ in 0..3 {
        for (init, best) in inits.iter().zip(&mut best) {
            let Some(running) = service(init, &["orphans", "20000"]) else { continue };
            let pid = running.pid();
            eventually(Duration::from_secs(20), || children(pid).len() == 1);
            let spent = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
            let spent = spent.split(' ').next().and_then(|spent| spent.parse::<f64>().ok()).map(|spent| spent / 1e6);
            *best = match (*best, spent) {
                (Some(best), Some(spent)) => Some(f64::min(best, spent)),
                (best, spent) => spent.or(best),
            };
        }
    }
    best
}
