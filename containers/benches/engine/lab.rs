//! What watching costs who is watched: a program that does nothing but start others, alone and under the lab's eyes
//! (its tracefs instance, its looks at /proc), one after the other in one run.

#[path = "../../src/lab/clock.rs"]
mod clock;
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
use picture::Picture;
use recording::{Kind, NoWatcher, RunId, Source};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tracer::Tracer;

const TAKES: usize = 21;

/// A thousand forks, execs, exits and reaps.
const PROGRAM: &str = "i=0; while [ $i -lt 1000 ]; do /bin/true; i=$((i+1)); done";

/// As the lab does.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub fn measure(report: &mut Report) {
    let (mut alone, mut watched) = (Takes::default(), Takes::default());
    let mut ratios = Vec::new();
    let mut lost = 0;
    for take in 0..=TAKES {
        // Which comes first changes, so that neither always has the warmer machine.
        let mut times = [Duration::ZERO; 2];
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
            alone.add(times[0]);
            watched.add(times[1]);
            ratios.push(times[1].as_secs_f64() / times[0].as_secs_f64());
        }
    }
    ratios.sort_by(f64::total_cmp);
    report.title("What watching costs: a shell that starts `/bin/true` 1000 times");
    report.line("| | min ms | median ms |");
    report.line("|---|--:|--:|");
    for (name, takes) in [("alone", &alone), ("watched: tracepoints, and /proc every 5 ms", &watched)] {
        report.line(&format!("| {name} | {:.1} | {:.1} |", milliseconds(takes.min()), milliseconds(takes.median())));
    }
    let ratio = ratios[ratios.len() / 2];
    let medians = watched.median().as_secs_f64() / alone.median().as_secs_f64();
    report.line("");
    report.line(&format!(
        "Watched / alone: {medians:.3} of the medians, {ratio:.3} as the median of {TAKES} pairs (goal: less than 1.05); {lost} events lost."
    ));
}

fn command() -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", PROGRAM]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn unwatched() -> Duration {
    let begin = Instant::now();
    assert!(command().status().unwrap().success());
    begin.elapsed()
}

/// Its time, and how many events were lost.
fn under_the_lab() -> (Duration, u64) {
    let tracer = Tracer::start().unwrap();
    let events = tracer.listen();
    let id = RunId { lesson: 0, alternative: "bench".into() };
    let mut picture = Picture::new(&id, &NoWatcher, Source::Tracepoints);
    let begin = Instant::now();
    let mut child = command().spawn().unwrap();
    picture.root(child.id() as i32, "sh", clock::now());
    let (sender, ended) = std::sync::mpsc::channel();
    let time = std::thread::scope(|scope| {
        // Waits as the other measurement does.
        scope.spawn(move || {
            assert!(child.wait().unwrap().success());
            sender.send(begin.elapsed()).unwrap();
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
