//! Lesson 14: writing, killing, starting again and reading back.

use super::{
    connection::Start,
    engine::{Engine, IMAGE},
    stage::Stage,
};
use crate::error::{Context, Error, Result};
use bollard::models::HostConfig;
use std::{fs, time::Duration};

/// What is written, MiB.
const SIZE: i64 = 64;

/// The experiment.
pub fn storage(stage: &mut Stage, column: &str) -> Result<()> {
    if let Some(outcome) = Engine::missing() {
        return stage.not_run(outcome);
    }
    let engine = stage.engine(Engine::make_busybox)?;
    let folder = stage.folder().join("data");
    let mut host = HostConfig { network_mode: Some("none".into()), ..Default::default() };
    let mount = match column {
        "layer" => String::new(),
        "volume" => "lab-data:/data".into(),
        "bind" => {
            fs::create_dir_all(&folder).at("create", &folder)?;
            format!("{}:/data", folder.display())
        }
        _ => "--tmpfs /data".into(),
    };
    match column {
        "layer" => {}
        "tmpfs" => host.tmpfs = Some([("/data".into(), String::new())].into()),
        _ => host.binds = Some(vec![mount.clone()]),
    }
    let option = if host.binds.is_some() { format!("-v {mount}") } else { mount };
    stage.describe(&["inception run -d", &option, "lab sleep 1000"].join(" ").replace("  ", " "));
    let start = || {
        let host = host.clone();
        engine.api().start(Start { name: column, image: IMAGE, words: &["sleep", "1000"], host })
    };
    let first = start()?;
    stage.watch_container(first, "sleep");
    let (write, read) = throughput(&engine, column)?;
    stage.observe_in("write", write, "MiB/s");
    stage.observe_in("read", read, "MiB/s");
    if column == "bind" {
        stage.observe("seen on the host as a file", folder.join("file").is_file());
    }
    kill(stage, &engine, column, first)?;
    let again = engine.api().start_again(column)?;
    stage.watch_container(again, "sleep");
    stage.observe("there after kill and start", is_there(&engine, column)?);
    engine.api().remove(column)?;
    stage.watch_container(start()?, "sleep");
    stage.observe("there in a new container", is_there(&engine, column)?);
    Ok(())
}

/// MiB a second of writing and of reading [`SIZE`], by the clock of the kernel, whose step is 10 ms.
fn throughput(engine: &Engine, name: &str) -> Result<(i64, i64)> {
    let script = format!(
        "read a _ </proc/uptime; dd if=/dev/zero of=/data/file bs=1M count={SIZE} conv=fsync 2>/dev/null || exit; \
         read b _ </proc/uptime; dd if=/data/file of=/dev/null bs=1M 2>/dev/null || exit; \
         read c _ </proc/uptime; echo $a $b $c"
    );
    let (code, printed) = engine.api().exec(name, &["sh", "-c", &script])?;
    let times: Vec<f64> = printed.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let speed = |from: f64, to: f64| (SIZE as f64 / (to - from).max(0.01)) as i64;
    match times[..] {
        [start, written, read] => Ok((speed(start, written), speed(written, read))),
        _ => Err(Error::Failed(format!("to write and to read ended with {code}: {printed}"))),
    }
}

fn is_there(engine: &Engine, name: &str) -> Result<bool> {
    Ok(engine.api().exec(name, &["ls", "/data/file"])?.0 == 0)
}

/// SIGKILL to PID 1, and the engine's notice of it.
fn kill(stage: &mut Stage, engine: &Engine, name: &str, pid: i32) -> Result<()> {
    stage.say("kills the container");
    let pidfd = crate::sys::pidfd_open(pid).doing("find the container's PID 1")?;
    crate::sys::pidfd_send_signal(&pidfd, libc::SIGKILL).doing("kill the container's PID 1")?;
    let ended = || engine.api().pid(name).is_ok_and(|pid| pid.is_none());
    if stage.watch_until(Duration::from_secs(20), ended)? {
        stage.unwatch(pid, 137);
        return Ok(());
    }
    Err(Error::Failed("the engine does not notice that the container was killed".into()))
}
