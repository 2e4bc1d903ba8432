//! Stop, kill, restart, remove.

use super::{Container, Status, parse_signal, record::MountKind, signals::await_init};
use crate::{
    engine::Engine,
    error::{Context, Error, Result},
    sys,
};
use std::{
    fs,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Seconds between the stop signal and SIGKILL where neither the request nor the container says; Docker's.
pub(super) const STOP_TIMEOUT: i64 = 10;

impl Engine {
    /// Stop signal, `timeout` seconds (-1: for ever), SIGKILL; returns once the end is recorded. NotModified where it
    /// does not run.
    pub async fn stop_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let _step = container.operation.lock().await;
        self.stop_locked(container, signal, timeout, true).await
    }

    /// The same; the caller holds its `operation`. What a person did not ask for (`by_user`) changes nothing that a policy
    /// goes by, and is no matter of one that waits for its restart.
    pub(super) async fn stop_locked(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<&str>,
        timeout: Option<i64>,
        by_user: bool,
    ) -> Result<()> {
        let (status, config) = {
            let record = container.record();
            (record.state.status, record.config.clone())
        };
        let signal = signal.filter(|signal| !signal.is_empty()).or(config.stop_signal.as_deref()).unwrap_or("SIGTERM");
        let signal = parse_signal(signal)?;
        let timeout = timeout.or(config.stop_timeout).unwrap_or(STOP_TIMEOUT);
        match status {
            Status::Restarting if by_user => {
                container.update(|record| {
                    record.stopped_by_user = true;
                    record.state.status = Status::Exited;
                })?;
                container.wake.notify_one();
                return Ok(());
            }
            Status::Running => {}
            _ => return Err(Error::NotModified),
        }
        if by_user {
            container.update(|record| record.stopped_by_user = true)?;
        }
        let mut changes = container.changes();
        let before = changes.borrow_and_update().exits;
        // Before the signal, so that no end is told before what brought it about.
        self.tell(container, "kill", &[("signal", signal.to_string())]);
        self.signal_container(container, signal).await?;
        let ended = async {
            // The sender lives in the container, which is held here.
            let _ = changes.wait_for(|change| change.exits > before).await;
        };
        let in_time = match u64::try_from(timeout) {
            Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), ended).await.is_ok(),
            Err(_) => {
                ended.await;
                true
            }
        };
        if !in_time {
            log::info!("container {} did not end within {timeout} s of its stop signal", container.id);
            self.kill_and_wait(container).await;
        }
        self.tell(container, "stop", &[]);
        Ok(())
    }

    /// SIGKILL, and the wait for the recorded end.
    async fn kill_and_wait(self: &Arc<Self>, container: &Arc<Container>) {
        let mut changes = container.changes();
        let before = changes.borrow_and_update().exits;
        if !container.record().state.is_running() {
            return;
        }
        self.tell(container, "kill", &[("signal", "9".into())]);
        if let Err(error) = self.signal_container(container, 9).await {
            log::debug!("kill {}: {error}", container.id);
        }
        let _ = changes.wait_for(|change| change.exits > before || change.removed).await;
    }

    /// Sends one signal to PID 1 of a running container. SIGKILL by a user is a stop as far as policies go, and is answered
    /// once the container has ended, as by dockerd: who asks next sees no container that still seems to run.
    pub async fn kill_container(self: &Arc<Self>, container: &Arc<Container>, signal: &str) -> Result<()> {
        let signal = if signal.is_empty() { 9 } else { parse_signal(signal)? };
        if !container.record().state.is_running() {
            return Err(Error::Conflict(format!(
                "Cannot kill container: {}: container {0} is not running",
                container.id
            )));
        }
        let stops = container.record().config.stop_signal.as_deref().map_or(Ok(15), parse_signal)?;
        if signal == 9 || signal == stops {
            container.update(|record| record.stopped_by_user = true)?;
        }
        if signal == 9 {
            self.kill_and_wait(container).await;
            return Ok(());
        }
        self.signal_container(container, signal).await?;
        self.tell(container, "kill", &[("signal", signal.to_string())]);
        Ok(())
    }

    /// By pidfd, so that no other process can be hit; after PID 1 has its mask, where it is inception-init.
    async fn signal_container(&self, container: &Container, signal: i32) -> Result<()> {
        let (pid, waits) = {
            let record = container.record();
            (record.state.pid, record.has_inception_init)
        };
        // The shim reaps this pid: while it lives, the pid is the container's.
        container.running()?;
        let pidfd = match sys::pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            // It has just ended: the exit is on its way.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
            Err(error) => return Err(error).doing(format_args!("open process {pid}")),
        };
        if waits && signal != 9 {
            await_init(pid).await;
        }
        match sys::pidfd_send_signal(&pidfd, signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.doing(format_args!("send signal {signal} to process {pid}")),
        }
    }

    /// Stop and start.
    pub async fn restart_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let _step = self.lock_to_start(container).await?;
        match self.stop_locked(container, signal, timeout, true).await {
            Ok(()) | Err(Error::NotModified) => {}
            Err(error) => return Err(error),
        }
        container.update(|record| record.stopped_by_user = false)?;
        self.start_locked(container).await?;
        self.tell(container, "restart", &[]);
        Ok(())
    }

    /// Removes a container: `force` ends it first, `volumes` takes its anonymous volumes with it.
    pub async fn remove_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        force: bool,
        volumes: bool,
    ) -> Result<()> {
        let _step = container.operation.lock().await;
        if container.removed.load(Ordering::Acquire) {
            return Err(Error::not_found("container", &container.id));
        }
        let status = container.record().state.status;
        if matches!(status, Status::Running | Status::Restarting) {
            if !force {
                return Err(Error::Conflict(format!(
                    "cannot remove container \"/{}\": container is running: stop the container before removing or force remove",
                    container.record().name
                )));
            }
            container.update(|record| {
                record.stopped_by_user = true;
                // `--rm` would remove it a second time.
                record.host_config.auto_remove = Some(false);
            })?;
            if status == Status::Restarting {
                container.update(|record| record.state.status = Status::Exited)?;
                container.wake.notify_one();
            } else {
                self.kill_and_wait(container).await;
            }
        }
        container.update(|record| record.state.status = Status::Removing)?;
        let anonymous: Vec<String> = {
            let record = container.record();
            let names = record.mounts.iter().filter_map(|mount| match &mount.kind {
                MountKind::Volume { name, .. } if self.volumes.is_anonymous(name) => Some(name.clone()),
                _ => None,
            });
            names.collect()
        };
        container.removed.store(true, Ordering::Release);
        let folder = container.folder.clone();
        crate::api::blocking(move || {
            // The record first: what is left of an interrupted removal is a folder without one.
            let record = folder.join("container.json");
            fs::remove_file(&record).at("remove", &record)?;
            fs::remove_dir_all(&folder).at("remove", &folder)
        })
        .await?;
        self.containers.all_mut().remove(&container.id);
        if volumes {
            let used = self.containers.volumes_in_use();
            for name in anonymous {
                if let Err(error) = self.volumes.remove(&name, true, &used) {
                    log::debug!("volume {name} stays: {error}");
                }
            }
        }
        self.tell(container, "destroy", &[]);
        container.changes.send_modify(|change| change.removed = true);
        Ok(())
    }
}
