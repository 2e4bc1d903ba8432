//! `init-tests bench`: this init beside its peers, interleaved in one run, as ratios.
//!
//! On a shared machine wall-clock medians say little: minimums, counts and CPU times are compared.

use std::fmt::Write;
use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Init, Place, Running, children, eventually, probe_program, start, status_field};

const BEGIN: &str = "<!-- begin: make bench-init -->";
const END: &str = "<!-- end: make bench-init -->";

/// One line of the table: a figure for each init.
struct Line {
    what: &'static str,
    unit: &'static str,
    figures: Vec<Option<f64>>,
}

/// Runs all and gives the section of docs/benchmarks.md; the first init is ours.
pub fn run(inits: &[Init]) -> String {
    // A shell's background jobs ignore INT and QUIT, which this init would spend a call each on.
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        // SAFETY: a default disposition; nothing here handles these.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut lines = vec![line("size of the file", "bytes", inits, size)];
    lines.push(line("needs a libc beside it", "yes 1, no 0", inits, is_dynamic));
    lines.extend(memory(inits));
    lines.push(line("PSS of each of 50 copies, idle", "KiB", inits, pss_of_many));
    lines.push(line("system calls up to the service's exec", "calls", inits, calls_before_exec));
    lines.push(Line {
        what: "start and exit, over a bare /bin/true, minimum",
        unit: "µs",
        figures: start_and_exit(inits),
    });
    lines.push(line("wake-ups in 3 idle seconds", "", inits, wake_ups));
    lines.extend(forwarding(inits));
    lines.push(Line { what: "CPU of the init for 20 000 orphans, minimum of 3", unit: "ms", figures: orphans(inits) });
    table(inits, &lines)
}

fn line(what: &'static str, unit: &'static str, inits: &[Init], measure: fn(&Init) -> Option<f64>) -> Line {
    Line { what, unit, figures: inits.iter().map(measure).collect() }
}

fn table(inits: &[Init], lines: &[Line]) -> String {
    let names: Vec<&str> = inits.iter().map(|init| init.name.as_str()).collect();
    let mut text =
        format!("| | unit | {} | ours / best peer |\n|---|---|{}--:|\n", names.join(" | "), "--:|".repeat(names.len()));
    for line in lines {
        let _ = write!(text, "| {} | {} |", line.what, line.unit);
        for figure in &line.figures {
            let _ = match figure {
                None => write!(text, " – |"),
                Some(figure) if *figure >= 100.0 || figure.fract() == 0.0 => write!(text, " {figure:.0} |"),
                Some(figure) => write!(text, " {figure:.1} |"),
            };
        }
        let best = line.figures.iter().skip(1).flatten().copied().fold(f64::INFINITY, f64::min);
        let _ = match line.figures.first() {
            Some(Some(ours)) if best > 0.0 && best.is_finite() => writeln!(text, " {:.2} |", ours / best),
            _ => writeln!(text, " |"),
        };
    }
    text
}

/// Replaces this program's part of docs/benchmarks.md.
pub fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let old = std::fs::read_to_string(path).unwrap_or_else(|_| "# Benchmarks\n".into());
    let part = format!("{BEGIN}\n{}\n{END}", text.trim());
    let new = match (old.find(BEGIN), old.find(END)) {
        (Some(begin), Some(end)) => format!("{}{part}{}", &old[..begin], &old[end + END.len()..]),
        _ => format!(
            "{}\n\n## The init\n\nBy `make bench-init`, all in one run; the last column is ours over the best of the peers, less is \
             better.\n\n{part}\n",
            old.trim_end()
        ),
    };
    std::fs::write(path, new)
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

fn memory(inits: &[Init]) -> Vec<Line> {
    let running: Vec<_> = inits.iter().map(idle).collect();
    [("RSS, idle", "Rss"), ("PSS, idle", "Pss"), ("anonymous memory, idle", "Anonymous")]
        .map(|(what, key)| Line {
            what,
            unit: "KiB",
            figures: running.iter().map(|running| rollup(running.as_ref()?.pid(), key)).collect(),
        })
        .into()
}

fn pss_of_many(init: &Init) -> Option<f64> {
    let running: Option<Vec<Running>> = (0..50).map(|_| idle(init)).collect();
    let figures: Option<Vec<f64>> = running?.iter().map(|running| rollup(running.pid(), "Pss")).collect();
    Some(figures?.iter().sum::<f64>() / 50.0)
}

/// Parent's and child's, as PID 1, from the init's own exec (left out) to the service's (left out).
fn calls_before_exec(init: &Init) -> Option<f64> {
    let inner = init.command(&[], &["/bin/true"]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/stdout"]).arg(inner.get_program()).args(inner.get_args());
    let mut running = start(strace, Place::Ordinary).ok()?;
    let text = running.rest();
    let calls =
        text.lines().filter(|line| !line.contains("resumed>") && !line.contains("+++") && !line.contains("---"));
    Some(calls.skip(1).take_while(|line| !line.contains("execve(\"/bin/true\"")).count() as f64)
}

fn once(mut command: Command) -> Option<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    command.spawn().ok()?.wait().ok()?;
    Some(start.elapsed())
}

fn start_and_exit(inits: &[Init]) -> Vec<Option<f64>> {
    let mut bare = Duration::MAX;
    let mut best = vec![Duration::MAX; inits.len()];
    for _ in 0..400 {
        bare = bare.min(once(Command::new("/bin/true")).unwrap_or(Duration::MAX));
        for (init, best) in inits.iter().zip(&mut best) {
            *best = (*best).min(once(init.command(&[], &["/bin/true"])).unwrap_or(Duration::MAX));
        }
    }
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

/// From the kill(2) to the line that the service says.
fn forwarding(inits: &[Init]) -> [Line; 2] {
    let mut running: Vec<_> = inits.iter().map(|init| service(init, &["signals"])).collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); inits.len()];
    let mut line = String::new();
    for _ in 0..2000 {
        for (running, times) in running.iter_mut().zip(&mut times) {
            let Some(running) = running else { continue };
            line.clear();
            let start = Instant::now();
            running.signal(libc::SIGUSR1);
            if running.out.read_line(&mut line).is_ok() {
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    let at = |share: usize| times.iter().map(|times| times.get(times.len() * share / 100).copied()).collect();
    [
        Line { what: "forwarding a signal and the service's answer, minimum", unit: "µs", figures: at(0) },
        Line { what: "the same, median", unit: "µs", figures: at(50) },
    ]
}

fn orphans(inits: &[Init]) -> Vec<Option<f64>> {
    let mut best = vec![None; inits.len()];
    for _ in 0..3 {
        for (init, best) in inits.iter().zip(&mut best) {
            let Some(running) = service(init, &["orphans", "20000"]) else { continue };
            let pid = running.pid();
            eventually(Duration::from_secs(5), || children(pid).len() == 1);
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
