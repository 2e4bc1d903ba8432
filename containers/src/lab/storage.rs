//! Lesson 14: writing, killing, starting again and reading back.

use super::{
    engine::{BUSYBOX, Engine, container_pid},
    stage::Stage,
};
use crate::error::{Context, Error, Result};
use std::{fs, sync::Arc, time::Duration};

/// What is written, MiB.
const SIZE: i64 = 64;

/// The experiment.
pub fn storage(stage: &mut Stage, column: &str) -> Result<()> {
    if let Some(outcome) = Engine::missing() {
        return stage.not_run(outcome);
    }
    let engine = stage.engine(BUSYBOX)?;
    let folder = stage.folder().join("data");
    let mount: Vec<String> = match column {
        "layer" => Vec::new(),
        "volume" => vec!["-v".into(), "lab-data:/data".into()],
        "bind" => {
            fs::create_dir_all(&folder).at("create", &folder)?;
            vec!["-v".into(), format!("{}:/data", folder.display())]
        }
        _ => vec!["--tmpfs".into(), "/data".into()],
    };
    stage.describe(&format!("inception run -d {} lab sleep 1000", mount.join(" ")));
    let start = |engine: &Engine| {
        let words: Vec<&str> = ["run", "-d", "--network", "none", "--name", column]
            .into_iter()
            .chain(mount.iter().map(String::as_str))
            .chain(["lab", "sleep", "1000"])
            .collect();
        engine.run(&words).map(drop)
    };
    start(&engine)?;
    watch(stage, &engine, column);
    let write = format!("dd if=/dev/zero of=/data/file bs=1M count={SIZE} conv=fsync");
    stage.observe_in("write", throughput(&engine, column, &write)?, "MiB/s");
    let read = "dd if=/data/file of=/dev/null bs=1M";
    stage.observe_in("read", throughput(&engine, column, read)?, "MiB/s");
    if column == "bind" {
        stage.observe("seen on the host as a file", folder.join("file").is_file());
    }
    kill(stage, &engine, column)?;
    engine.run(&["start", column])?;
    watch(stage, &engine, column);
    stage.observe("there after kill and start", is_there(&engine, column));
    engine.run(&["rm", "--force", column])?;
    start(&engine)?;
    watch(stage, &engine, column);
    stage.observe("there in a new container", is_there(&engine, column));
    Ok(())
}

/// MiB a second of a command that moves [`SIZE`], by the clock of the kernel, whose step is 10 ms.
fn throughput(engine: &Engine, name: &str, command: &str) -> Result<i64> {
    let script = format!("read a _ </proc/uptime; {command} 2>/dev/null; read b _ </proc/uptime; echo $a $b");
    let printed = engine.run(&["exec", name, "sh", "-c", &script])?;
    let times: Vec<f64> = printed.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match times[..] {
        [start, end] => Ok((SIZE as f64 / (end - start).max(0.01)) as i64),
        _ => Err(Error::Failed(format!("{command} printed {printed}"))),
    }
}

fn watch(stage: &mut Stage, engine: &Engine, name: &str) {
    if let Some(pid) = container_pid(engine.run(&["inspect", name])) {
        stage.watch_container(pid, "sleep");
    }
}

fn is_there(engine: &Engine, name: &str) -> bool {
    engine.run(&["exec", name, "ls", "/data/file"]).is_ok()
}

/// SIGKILL to PID 1, and the engine's notice of it.
fn kill(stage: &mut Stage, engine: &Arc<Engine>, name: &str) -> Result<()> {
    let pid = container_pid(engine.run(&["inspect", name])).ok_or_else(|| Error::Failed("it does not run".into()))?;
    stage.say("kills the container");
    let pidfd = crate::sys::pidfd_open(pid).doing("find the container's PID 1")?;
    crate::sys::pidfd_send_signal(&pidfd, libc::SIGKILL).doing("kill the container's PID 1")?;
    let ended = || container_pid(engine.run(&["inspect", name])).is_none();
    if stage.watch_until(Duration::from_secs(20), ended)? {
        stage.unwatch(pid, 137);
        return Ok(());
    }
    Err(Error::Failed("the engine does not notice that the container was killed".into()))
}
