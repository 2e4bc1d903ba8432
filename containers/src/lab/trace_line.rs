//! One line of a tracefs `trace_pipe`, read.

use regex::Regex;
use std::sync::LazyLock;

/// What a tracepoint tells.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceEvent {
    /// CLOCK_MONOTONIC, microseconds.
    pub at: u64,
    /// The thread that was running (outside number).
    pub by: i32,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A new thread of the same process.
    Thread {
        thread: i32,
    },
    /// A new process (or, again, a new thread: a `Thread` has come before).
    Fork {
        child: i32,
        name: String,
    },
    Exec {
        file: String,
    },
    /// A thread has ended; a process when it is its first one.
    Exit {
        thread: i32,
    },
    /// `ignored`: the kernel dropped it.
    Signal {
        signal: i32,
        thread: i32,
        ignored: bool,
    },
    /// A line that somebody wrote to `trace_marker`.
    Mark {
        text: String,
    },
}

const CLONE_THREAD: u64 = 0x10000;

static LINE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*.{1,16}-(\d+)\s+(?:\([ \d-]+\)\s+)?\[\d+\]\s+\S+\s+(\d+)\.(\d{6}): (\w+): (.*)$")
        .expect("a fixed expression")
});

impl TraceEvent {
    /// None for lines of no interest.
    pub fn read(line: &str) -> Option<TraceEvent> {
        let found = LINE.captures(line)?;
        let rest = &found[5];
        let number = |name: &str| -> Option<i32> { field(rest, name)?.parse().ok() };
        let what = match &found[4] {
            "task_newtask" => {
                let flags = u64::from_str_radix(field(rest, "clone_flags")?, 16).ok()?;
                if flags & CLONE_THREAD == 0 {
                    return None;
                }
                What::Thread { thread: number("pid")? }
            }
            "sched_process_fork" => {
                let name = rest.split_once(" child_comm=")?.1.rsplit_once(" child_pid=")?.0.to_owned();
                What::Fork { child: number("child_pid")?, name }
            }
            "sched_process_exec" => {
                What::Exec { file: rest.strip_prefix("filename=")?.rsplit_once(" pid=")?.0.to_owned() }
            }
            "sched_process_exit" => What::Exit { thread: number("pid")? },
            "signal_generate" => {
                What::Signal { signal: number("sig")?, thread: number("pid")?, ignored: number("res")? == 1 }
            }
            "tracing_mark_write" => What::Mark { text: rest.to_owned() },
            _ => return None,
        };
        let at = found[2].parse::<u64>().ok()? * 1_000_000 + found[3].parse::<u64>().ok()?;
        Some(TraceEvent { at, by: found[1].parse().ok()?, what })
    }
}

/// The value after ` name=`; the last one, because a process may call itself `x pid=1`.
fn field<'a>(rest: &'a str, name: &str) -> Option<&'a str> {
    let places = rest.match_indices(name).filter(|(place, _)| {
        rest[place + name.len()..].starts_with('=') && (*place == 0 || rest[..*place].ends_with(' '))
    });
    let (place, _) = places.last()?;
    rest[place + name.len() + 1..].split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_kernel() {
        let read = |line: &str| TraceEvent::read(line).unwrap();
        assert_eq!(
            read(
                "            bash-4703    [001] .....  1201.000123: sched_process_fork: comm=bash pid=4703 child_comm=a b child_pid=4704"
            ),
            TraceEvent { at: 1_201_000_123, by: 4703, what: What::Fork { child: 4704, name: "a b".into() } }
        );
        assert_eq!(
            read("  x pid=1 y-9-4704    [000] d..1.  1201.000200: sched_process_exit: comm=x pid=1 y-9 pid=4704 prio=120 group_dead=true").what,
            What::Exit { thread: 4704 },
        );
        assert_eq!(
            read("   <...>-4704    [000] d..1.  1201.000200: sched_process_exec: filename=/tmp/a pid=3 pid=4704 old_pid=4704").what,
            What::Exec { file: "/tmp/a pid=3".into() },
        );
        assert_eq!(
            read("   sh-4704    [000] d..2.  1201.000200: signal_generate: sig=15 errno=0 code=0 comm=sleep pid=4705 grp=1 res=1").what,
            What::Signal { signal: 15, thread: 4705, ignored: true },
        );
        assert_eq!(
            read("   x-1  [000] ..... 1.000000: task_newtask: pid=5 comm=x clone_flags=3d0f00 oom_score_adj=0").what,
            What::Thread { thread: 5 },
        );
    }

    #[test]
    fn other_lines() {
        for line in [
            "",
            "CPU:0 [LOST 12 EVENTS]",
            "# tracer: nop",
            "x-1 [000] ..... 1.000000: task_newtask: pid=5 comm=x clone_flags=1200000 oom_score_adj=0",
        ] {
            assert_eq!(TraceEvent::read(line), None, "{line}");
        }
    }
}
