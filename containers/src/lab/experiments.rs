//! What each lesson does under one alternative. An experiment measures; what is expected stands in the lesson's text.

use super::{
    alternative::Alternative,
    processes,
    stage::{PATIENCE, Stage, Start},
};
use crate::error::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// How many processes lesson 2 may have.
const PROCESS_LIMIT: u64 = 64;
/// How often lesson 10 sends a signal right after the start.
const EARLY_STARTS: usize = 40;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// 1: SIGTERM to a program that has no handler.
pub fn sigterm(stage: &mut Stage) -> Result<()> {
    stage.start(&stage.alternative.wrap(&["./app"]))?;
    stage.wait_ready()?;
    let stopped = stage.stop()?;
    stage.observe_stop(stopped);
    Ok(())
}

/// 2: orphans that nobody waits for, under a limit of processes.
pub fn zombies(stage: &mut Stage) -> Result<()> {
    let limited = Start { limit: Some(PROCESS_LIMIT), ..Start::default() };
    stage.start_with(&stage.alternative.wrap(&["./app"]), &limited)?;
    stage.wait_ready()?;
    let made = stage.line("ready").and_then(|line| line.split(' ').nth(1)?.parse::<i64>().ok()).unwrap_or(-1);
    // The last ones may still be on their way.
    stage.wait_until(ms(300), |stage| stage.zombies() == 0)?;
    stage.observe_in("orphans made", made, "processes");
    stage.observe_in("zombies", stage.zombies(), "processes");
    let stopped = stage.stop()?;
    stage.observe_stop(stopped);
    Ok(())
}

/// 3: who adopts an orphan, when the alternative is PID 1 and when an init is not.
pub fn orphans(stage: &mut Stage) -> Result<()> {
    let adopter = |stage: &mut Stage| -> Result<Option<(i64, String)>> {
        stage.wait_line("my parent is now ", PATIENCE)?;
        let line = stage.line("my parent is now ").unwrap_or_default();
        let found = line.rsplit_once("is now ").and_then(|(_, rest)| rest.split_once(' '));
        let found = found.and_then(|(pid, name)| Some((pid.parse().ok()?, name.to_owned())));
        Ok(found)
    };
    stage.start(&stage.alternative.wrap(&["./app"]))?;
    if let Some((pid, name)) = adopter(stage)? {
        stage.observe("adopter's pid", pid);
        stage.observe("adopter", name);
    }
    stage.kill()?;
    if stage.alternative.is_init() {
        let under_shell = stage.alternative.wrap(&["./app"]).join(" ");
        stage.start(&words(&["sh", "-c", &under_shell]))?;
        if let Some((_, name)) = adopter(stage)? {
            stage.observe("adopter, init under sh", name);
        }
        stage.kill()?;
    }
    Ok(())
}

/// 4: a program that cleans up, behind a shell.
pub fn clean_up(stage: &mut Stage) -> Result<()> {
    let behind_shell = ["sh", "-c", "./app; true"];
    match stage.alternative {
        Alternative::None => stage.start(&words(&["./app"]))?,
        Alternative::Shell => stage.start(&words(&behind_shell))?,
        init => {
            let [first, second, script] = behind_shell;
            let mut command = init.wrap(&[first, second]);
            command.push(script.to_owned());
            stage.start(&command)?;
        }
    }
    stage.wait_ready()?;
    let stopped = stage.stop()?;
    stage.observe("clean-up done", stage.line("clean-up done").is_some());
    stage.observe_stop(stopped);
    Ok(())
}

/// 5: how the program ended, as it is seen outside.
pub fn exit_codes(stage: &mut Stage) -> Result<()> {
    let cases: [(&str, &[&str]); 6] = [
        ("exit 3", &["./app", "three"]),
        ("killed by SIGTERM", &["./app", "term"]),
        ("killed by SIGKILL", &["./app", "kill"]),
        ("abort()", &["./app", "abort"]),
        ("not found", &["./missing"]),
        ("not executable", &["./data"]),
    ];
    for (name, command) in cases {
        stage.start(&stage.alternative.wrap(command))?;
        match stage.wait_end(PATIENCE)? {
            Some(status) => stage.observe(name, i64::from(status)),
            None => stage.observe(name, "does not end".to_owned()),
        }
    }
    stage.status = None;
    Ok(())
}

/// 6: signals to PID 1 from inside, and KILL from outside.
pub fn inside(stage: &mut Stage) -> Result<()> {
    stage.start(&stage.alternative.wrap(&["./app", "KILL", "STOP"]))?;
    stage.wait_ready()?;
    stage.observe("lives after KILL from inside", stage.line("sent KILL").is_some());
    let stopped = processes::stat(stage.root()).is_some_and(|stat| stat.state == 'T');
    stage.observe("lives after STOP from inside", stage.line("sent STOP").is_some() && !stopped);
    let status = stage.kill()?;
    stage.observe("KILL from outside", i64::from(status));
    stage.start(&stage.alternative.wrap(&["./app", "TERM"]))?;
    let stays = stage.wait_line("ready", PATIENCE)?;
    stage.observe("TERM from inside", if stays { "ignored" } else { "forwarded" }.to_owned());
    stage.kill_if_alive()
}

/// 7: a main program that ends before its worker.
pub fn worker(stage: &mut Stage) -> Result<()> {
    stage.start(&stage.alternative.wrap(&["./app"]))?;
    stage.wait_ready()?;
    let stopped = stage.stop()?;
    stage.observe("worker flushed", stage.line("worker: flushed").is_some());
    stage.observe_stop(stopped);
    if matches!(stage.alternative, Alternative::Tini | Alternative::Catatonit) {
        stage.start(&words(&[stage.alternative.name(), "-g", "--", "./app"]))?;
        stage.wait_ready()?;
        stage.stop()?;
        stage.observe("worker flushed, with -g", stage.line("worker: flushed").is_some());
    }
    Ok(())
}

/// 8: a main program that goes to the background.
pub fn daemon(stage: &mut Stage) -> Result<()> {
    match stage.alternative {
        Alternative::Shell => stage.start(&words(&["sh", "-c", "./app && tail -f /dev/null"]))?,
        other => stage.start(&other.wrap(&["./app"]))?,
    }
    let status = stage.wait_end(ms(1000))?;
    stage.observe("service worked", stage.line("service: worked").is_some());
    stage.observe("runs on", status.is_none());
    match status {
        Some(status) => stage.observe("exit status", i64::from(status)),
        None => {
            let stopped = stage.stop()?;
            stage.observe_stop(stopped);
        }
    }
    if stage.alternative == Alternative::Inception {
        stage.observe("says why", stage.line("left processes behind").is_some());
        stage.start(&words(&["inception-init", "--wait-all", "--", "./app"]))?;
        stage.wait_end(ms(700))?;
        stage.observe("service worked, with --wait-all", stage.line("service: worked").is_some());
        let stopped = stage.stop()?;
        stage.observe_in("stop took, with --wait-all", stopped.took, "ms");
    }
    Ok(())
}

/// 9: Ctrl-C on a terminal.
pub fn ctrl_c(stage: &mut Stage) -> Result<()> {
    stage.start_with(&stage.alternative.wrap(&["./app"]), &Start { terminal: true, ..Start::default() })?;
    stage.wait_ready()?;
    stage.type_keys(b"\x03", "Ctrl-C")?;
    let status = stage.wait_end(ms(1000))?;
    stage.observe("Ctrl-C ends it", status.is_some());
    match status {
        Some(status) => stage.observe("exit status", i64::from(status)),
        None => stage.kill_if_alive()?,
    }
    Ok(())
}

/// 10: a signal before the program is ready for it, and one right after the start.
pub fn early(stage: &mut Stage) -> Result<()> {
    let command = stage.alternative.wrap(&["./app"]);
    let mut lost = 0;
    let mut started = Vec::new();
    for _ in 0..EARLY_STARTS {
        let child = stage.start_unwatched(&command)?;
        child.signal(libc::SIGTERM).doing("signal PID 1")?;
        started.push(child);
    }
    let deadline = Instant::now() + ms(600);
    for child in &mut started {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis() as u16;
        let _ = poll(&mut [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(left));
        lost += i64::from(child.status()?.is_none());
    }
    drop(started);
    if stage.alternative == Alternative::Inception {
        let mut lost = 0;
        for _ in 0..EARLY_STARTS {
            let mut child = stage.start_unwatched(&command)?;
            // As the engine does: no signal before the init has its mask.
            let deadline = Instant::now() + PATIENCE;
            while !processes::blocks(child.pid, libc::SIGTERM) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_micros(200));
            }
            child.signal(libc::SIGTERM).doing("signal PID 1")?;
            let _ = poll(&mut [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(5000u16));
            lost += i64::from(child.status()?.is_none());
        }
        stage.observe_in("lost of 40, mask awaited", lost, "signals");
    }
    stage.start(&command)?;
    stage.rest(ms(200))?;
    let stopped = stage.stop()?;
    stage.observe_stop(stopped);
    stage.observe_in("lost of 40, sent at once", lost, "signals");
    Ok(())
}

/// 11: bash's trap, which waits for the command in the foreground.
pub fn trap(stage: &mut Stage) -> Result<()> {
    for name in ["foreground", "background"] {
        stage.start(&stage.alternative.wrap(&[&format!("./{name}")]))?;
        stage.wait_ready()?;
        let stopped = stage.stop()?;
        stage.observe(&format!("{name}: exit status"), i64::from(stopped.status));
        stage.observe_in(&format!("{name}: stop took"), stopped.took, "ms");
    }
    stage.status = None;
    Ok(())
}
