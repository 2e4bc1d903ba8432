//! Lesson 13: several services in one container, and what a daemon is.

use super::{
    alternative::Alternative::Inception,
    processes::{self, descendants, stat},
    recording::Outcome,
    stage::{PATIENCE, Stage},
};
use crate::error::{Error, Result};
use std::{fs, time::Duration};

/// How long a container may take to follow a service that died.
const AFTERMATH: Duration = Duration::from_millis(1000);

/// The experiment.
pub fn daemons(stage: &mut Stage, column: &str) -> Result<()> {
    if column != "three" && Inception.program().is_none() {
        return stage.not_run(Outcome::NotInstalled(Inception.install().into()));
    }
    let (command, services): (Vec<String>, &[&str]) = match column {
        "daemon" => return daemon(stage),
        "one" => (Inception.wrap(&["./service", "web"]), &["web"]),
        "three" => (vec!["./three".into()], &["web", "db", "cron"]),
        "three-init" => (Inception.wrap(&["./three"]), &["web", "db", "cron"]),
        _ => (Inception.wrap(&["./three-any"]), &["web", "db", "cron"]),
    };
    let start = |stage: &mut Stage| -> Result<()> {
        stage.start(&command)?;
        for service in services {
            if !stage.wait_line(&format!("{service}: ready"), PATIENCE)? {
                return Err(Error::Failed(format!("the service {service} did not get ready")));
            }
        }
        stage.wait_ready()
    };
    start(stage)?;
    let service = descendants(stage.root()).into_iter().find(|pid| stat(*pid).is_some_and(|it| it.name == "service"));
    stage.say("kills a service");
    stage.signal_process(service.unwrap_or_default(), libc::SIGKILL);
    let status = stage.wait_end(AFTERMATH)?;
    stage.observe("runs on after a service dies", status.is_none());
    if let Some(status) = status {
        stage.observe("exit status then", i64::from(status));
    }
    start(stage)?;
    let stopped = stage.stop()?;
    let told = services.iter().filter(|service| stage.line(&format!("{service}: stopped")).is_some()).count();
    stage.observe_in("services told at a stop", told as i64, "services");
    stage.observe("exit status of the stop", i64::from(stopped.status));
    stage.observe_in("stop took", stopped.took, "ms");
    stage.status = None;
    Ok(())
}

/// What /proc tells of a process that made itself a daemon.
fn daemon(stage: &mut Stage) -> Result<()> {
    stage.start(&["inception-init".into(), "--wait-all".into(), "--".into(), "./daemonize".into()])?;
    stage.wait_ready()?;
    let root = stage.root();
    let adopted = |pid: &i32| stat(*pid).is_some_and(|stat| stat.parent == root && stat.name == "daemonize");
    let mut pid = None;
    stage.wait_until(PATIENCE, |_| {
        pid = descendants(root).into_iter().find(adopted);
        pid.is_some()
    })?;
    let pid = pid.ok_or_else(|| Error::Failed("there is no daemon".into()))?;
    stage.observe("parent's pid", stat(pid).and_then(|stat| processes::inner_pid(stat.parent)).map_or(-1, i64::from));
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).map_or(-1, nix::unistd::Pid::as_raw);
    stage.observe("is a session's leader", session == pid);
    stage.observe("has a terminal", processes::has_terminal(pid));
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).map(|path| path.display().to_string());
    stage.observe("working folder", folder.unwrap_or_else(|error| error.to_string()));
    stage.status = None;
    stage.kill_if_alive()
}
