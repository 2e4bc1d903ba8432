//! What watching costs who is watched: a program that does nothing but start others, alone and under the lab's eyes
//! (its tracefs instance, its looks at /proc), one after the other in one run.

#[path = "../../src/lab/clock.rs"]
mod clock;
#[path = "../../src/lab/leftover.rs"]
mod leftover;
#[path = "../../src/lab/network_map.rs"]
mod network_map;
#[path = "../../src/lab/picture.rs"]
mod picture;
#[path = "../../src/lab/processes.rs"]
mod processes;
#[path = "../../src/lab/recording.rs"]
mod recording;
#[path = "../../src/lab/signals.rs"]
mod signals;
#[path = "../../src/lab/trace_line.rs"]
mod trace_line;
#[path = "../../src/lab/tracer.rs"]
mod tracer;

use crate::report::{Report, Takes, milliseconds};
use nix::{
    sys::resource::{UsageWho, getrusage},
    sys::time::TimeValLike,
};
use picture::Picture;
use recording::{Kind, NoWatcher, RunId, Source};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tracer::Tracer;

const TAKES: usize = 31;

/// A thousand forks, execs, exits and reaps.
const PROGRAM: &str = "i=0; while [ $i -lt 1000 ]; do /bin/true; i=$((i+1)); done";

/// As the lab does.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a take took the program: by the clock, and of the processors. Others that load the machine are in the first.
#[derive(Default, Clone, Copy)]
struct Time {
    clock: Duration,
    cpu: Duration,
}

pub fn measure(report: &mut Report) {
    let mut takes: [[Takes; 2]; 2] = Default::default();
    let mut pairs = [Vec::new(), Vec::new()];
    let mut lost = 0;
    for take in 0..=TAKES {
        // Which comes first changes, so that neither always has the warmer machine.
        let mut times = [Time::default(); 2];
        for index in [take % 2, 1 - take % 2] {
            // A thread of its own: what it watches is its own descendants.
            times[index] = std::thread::scope(|scope| match index {
                0 => scope.spawn(unwatched).join().unwrap(),
                _ => {
                    let (time, lost_here) = scope.spawn(under_the_lab).join().unwrap();
                    lost += lost_here;
                    time
                }
            });
        }
        // The first round warms the caches.
        if take > 0 {
            for (takes, time) in takes.iter_mut().zip(times) {
                takes[0].add(time.clock);
                takes[1].add(time.cpu);
            }
            pairs[0].push(times[1].clock.as_secs_f64() / times[0].clock.as_secs_f64());
            pairs[1].push(times[1].cpu.as_secs_f64() / times[0].cpu.as_secs_f64());
        }
    }
    report.title("What watching costs: a shell that starts `/bin/true` 1000 times");
    report.line("| | clock, min ms | clock, median ms | processor, min ms | processor, median ms |");
    report.line("|---|--:|--:|--:|--:|");
    for (name, [clock, cpu]) in ["alone", "watched: tracepoints, and /proc every 5 ms"].iter().zip(&takes) {
        let [a, b, c, d] = [clock.min(), clock.median(), cpu.min(), cpu.median()].map(milliseconds);
        report.line(&format!("| {name} | {a:.1} | {b:.1} | {c:.1} | {d:.1} |"));
    }
    let [clock, cpu] = pairs.map(|mut pairs| {
        pairs.sort_by(f64::total_cmp);
        pairs[pairs.len() / 2]
    });
    report.line("");
    report.line(&format!(
        "Watched / alone, the median of {TAKES} pairs: {clock:.3} by the clock, {cpu:.3} of the program's own processor time (goal: less than 1.05); {lost} events lost."
    ));
}

fn command() -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", PROGRAM]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Of the children that were waited for, and theirs.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let time = |value: nix::sys::time::TimeVal| Duration::from_micros(value.num_microseconds() as u64);
    time(usage.user_time()) + time(usage.system_time())
}

fn unwatched() -> Time {
    let (begin, before) = (Instant::now(), cpu());
    assert!(command().status().unwrap().success());
    Time { clock: begin.elapsed(), cpu: cpu() - before }
}

/// Its time, and how many events were lost.
fn under_the_lab() -> (Time, u64) {
    let tracer = Tracer::start().unwrap();
    let events = tracer.listen();
    let id = RunId { lesson: 0, alternative: "bench".into() };
    let mut picture = Picture::new(&id, &NoWatcher, Source::Tracepoints);
    let (begin, before) = (Instant::now(), cpu());
    let mut child = command().spawn().unwrap();
    picture.root(child.id() as i32, "sh", clock::now());
    let (sender, ended) = std::sync::mpsc::channel();
    let time = std::thread::scope(|scope| {
        // Waits as the other measurement does.
        scope.spawn(move || {
            assert!(child.wait().unwrap().success());
            sender.send(Time { clock: begin.elapsed(), cpu: cpu() - before }).unwrap();
        });
        loop {
            let found = ended.recv_timeout(LOOK_EVERY);
            events.try_iter().for_each(|event| picture.trace(event));
            picture.look();
            if let Ok(time) = found {
                return time;
            }
        }
    });
    tracer.mark("end");
    tracer::until_mark(&events, "end", |event| picture.trace(event));
    // It did see them.
    let forks = picture.recording().events.iter().filter(|event| event.kind == Kind::Fork).count() as u64;
    assert!(forks + tracer.lost() > 1000, "{forks} forks");
    (time, tracer.lost())
}
