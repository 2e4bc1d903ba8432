//! A container's end: its exit is recorded, its network released, and its restart policy applied. And what a daemon
//! that comes back finds.

use super::{Container, Record, State, Status};
use crate::{
    engine::{Engine, health},
    error::Result,
    shim::{self, Exit, Shim, read_exit},
};
use bollard_stubs::models::RestartPolicyNameEnum as Policy;
use chrono::{DateTime, Utc};
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

/// Docker's back-off: 100 ms, doubled with each restart, at most a minute; a run of 10 s resets it.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const GOOD_RUN: chrono::Duration = chrono::Duration::seconds(10);

impl Engine {
    /// Follows a running container in the background until its end.
    pub(super) fn watch(self: &Arc<Self>, container: &Arc<Container>, shim: Arc<Shim>) {
        let (engine, container) = (Arc::clone(self), Arc::clone(container));
        let health = health::monitor(&engine, &container);
        tokio::spawn(async move {
            let exit = match shim.wait().await {
                Ok(Some(exit)) => exit,
                killed => {
                    if let Err(error) = killed {
                        log::error!("container {}: {error}", container.id);
                    }
                    // Without its shim a container has no log and nobody to tell of its end.
                    shim.cleanup().await;
                    Exit {
                        code: 137,
                        oom_killed: false,
                        finished_at: Utc::now().to_rfc3339(),
                        error: Some("the container's shim was killed".into()),
                    }
                }
            };
            health.abort();
            drop(shim);
            engine.ended(&container, exit).await;
        });
    }

    /// Records an exit and applies what follows from it.
    async fn ended(self: &Arc<Self>, container: &Arc<Container>, exit: Exit) {
        if let Err(error) = self.networks.release(&container.id).await {
            log::warn!("release the network of {}: {error}", container.id);
        }
        container.set_shim(None);
        let mut restarts = None;
        let recorded = container.update(|record| {
            let finished = exit.finished_at.parse::<DateTime<Utc>>().unwrap_or_else(|_| Utc::now());
            let ran = record.state.started_at.map_or(chrono::Duration::zero(), |started| finished - started);
            record.state = State {
                status: Status::Exited,
                exit_code: exit.code,
                oom_killed: exit.oom_killed,
                error: exit.error.clone().unwrap_or_default(),
                started_at: record.state.started_at,
                finished_at: Some(finished),
                ..State::default()
            };
            for endpoint in record.networks.values_mut() {
                crate::network::forget_addresses(endpoint);
            }
            // In the same moment, so that nobody sees a gap, and a daemon that is killed leaves none.
            restarts = apply_policy(record, exit.code, ran);
        });
        if let Err(error) = recorded {
            log::error!("record the end of {}: {error}", container.id);
        }
        if exit.oom_killed {
            self.tell(container, "oom", &[]);
        }
        self.tell(container, "die", &[("exitCode", exit.code.to_string())]);
        self.tell_left(container);
        container.changes.send_modify(|change| change.exits += 1);
        if container.record().host_config.auto_remove.unwrap_or(false) {
            if let Err(error) = self.remove_container(container, true, true).await {
                log::error!("remove {}: {error}", container.id);
            }
        } else if let Some(wait) = restarts {
            self.restart_later(container, wait);
        }
    }

    fn restart_later(self: &Arc<Self>, container: &Arc<Container>, wait: Duration) {
        let (engine, container) = (Arc::clone(self), Arc::clone(container));
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = container.wake.notified() => {}
            }
            // The next daemon goes on here where this one ends.
            let Ok(_step) = engine.lock_to_start(&container).await else { return };
            if container.record().state.status != Status::Restarting {
                return;
            }
            if let Err(error) = engine.start_locked(&container).await {
                log::error!("restart {}: {error}", container.id);
                let mut again = None;
                let recorded = container.update(|record| {
                    again = apply_policy(record, record.state.exit_code, chrono::Duration::zero());
                });
                if let Err(error) = recorded {
                    log::error!("record the restart of {}: {error}", container.id);
                }
                if let Some(wait) = again {
                    engine.restart_later(&container, wait);
                }
            }
        });
    }

    /// Takes over what an earlier daemon left: shims that live are adopted, ends that nobody saw are recorded, and after a
    /// reboot the restart policies apply.
    pub(in crate::engine) async fn recover_containers(self: &Arc<Self>) -> Result<()> {
        let shims = LazyLock::new(shim::running);
        for container in self.containers.list() {
            let record = container.record().clone();
            if record.state.status != Status::Running {
                self.undo_start(&container, shims.get(&container.folder.join(shim::FILE)).copied()).await?;
            }
            match record.state.status {
                Status::Running => self.recover_running(&container, &record.state).await,
                Status::Restarting => self.restart_later(&container, FIRST_WAIT),
                Status::Removing => {
                    if let Err(error) = self.remove_container(&container, true, true).await {
                        log::error!("finish the removal of {}: {error}", container.id);
                    }
                }
                Status::Exited | Status::Created => {
                    let ran = record.state.status == Status::Exited;
                    let policy = record.host_config.restart_policy.as_ref().and_then(|policy| policy.name);
                    if ran && record.host_config.auto_remove.unwrap_or(false) {
                        self.remove_container(&container, true, true).await?;
                    } else if ran && policy == Some(Policy::ALWAYS) {
                        // Docker's rule: even one that was stopped by hand comes back with the daemon.
                        container.update(|record| {
                            record.stopped_by_user = false;
                            record.state.status = Status::Restarting;
                        })?;
                        self.restart_later(&container, FIRST_WAIT);
                    }
                }
            }
        }
        Ok(())
    }

    /// A daemon died in the middle of a start, which it told nobody of: what there is of the container goes again.
    async fn undo_start(&self, container: &Container, shim: Option<i32>) -> Result<()> {
        let Some(config) = shim_config(container) else { return Ok(()) };
        if shim.is_some() || config.runtime_root.join(&config.container_id).exists() {
            log::info!("container {}: its start is undone, the daemon of then is gone", container.id);
            shim::end(config, shim).await?;
            self.networks.release(&container.id).await?;
        }
        Ok(())
    }

    async fn recover_running(self: &Arc<Self>, container: &Arc<Container>, state: &State) {
        let config = shim_config(container);
        let adopted = config.clone().zip(state.shim);
        if let Some(shim) = adopted.and_then(|(config, (pid, started))| Shim::adopt(config, pid, started)) {
            log::info!("container {} goes on (shim {})", container.id, shim.pid);
            let shim = Arc::new(shim);
            container.set_shim(Some(Arc::clone(&shim)));
            self.watch(container, shim);
            return;
        }
        if let Some(config) = &config {
            shim::delete_container(config).await;
        }
        let exit = read_exit(&container.folder.join("exit.json")).ok().flatten().unwrap_or(Exit {
            code: 137,
            oom_killed: false,
            finished_at: Utc::now().to_rfc3339(),
            error: Some("the container ended while no daemon ran".into()),
        });
        self.ended(container, exit).await;
    }
}

/// Whether its policy starts a container again that ended with `code` after it `ran`: then it is marked, and this is how long
/// to wait before.
fn apply_policy(record: &mut Record, code: i32, ran: chrono::Duration) -> Option<Duration> {
    let policy = record.host_config.restart_policy.clone().unwrap_or_default();
    let wanted = match policy.name {
        Some(Policy::ALWAYS | Policy::UNLESS_STOPPED) => true,
        Some(Policy::ON_FAILURE) => {
            let most = policy.maximum_retry_count.unwrap_or(0).max(0) as u64;
            code != 0 && (most == 0 || record.restart_count < most)
        }
        _ => false,
    };
    if !wanted || record.stopped_by_user {
        return None;
    }
    let streak = if ran >= GOOD_RUN { 0 } else { record.restart_count.min(10) as u32 };
    if ran >= GOOD_RUN {
        record.restart_count = 0;
    }
    record.restart_count += 1;
    record.state.status = Status::Restarting;
    Some((FIRST_WAIT * 2_u32.pow(streak)).min(LONGEST_WAIT))
}

/// What the container's last shim was told.
fn shim_config(container: &Container) -> Option<shim::Config> {
    let text = std::fs::read(container.folder.join(shim::FILE)).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard_stubs::models::RestartPolicy;

    fn ended(policy: Policy, most: i64, count: u64, by_user: bool) -> Record {
        let mut record: Record = serde_json::from_str(
            r#"{"id": "", "name": "", "created": "2026-01-01T00:00:00Z", "image_id": "", "config": {}, "host_config": {},
                "networks": {}, "mounts": [], "state": {"status": "exited", "pid": 0, "exit_code": 0, "error": "",
                "oom_killed": false, "started_at": null, "finished_at": null, "shim": null}, "restart_count": 0}"#,
        )
        .unwrap();
        record.host_config.restart_policy = Some(RestartPolicy { name: Some(policy), maximum_retry_count: Some(most) });
        record.restart_count = count;
        record.stopped_by_user = by_user;
        record
    }

    #[test]
    fn a_policy_starts_again_what_nobody_stopped() {
        let second = chrono::Duration::seconds(1);
        for (policy, most, count, by_user, code, again) in [
            (Policy::NO, 0, 0, false, 1, false),
            (Policy::ALWAYS, 0, 0, false, 0, true),
            (Policy::ALWAYS, 0, 0, true, 0, false),
            (Policy::UNLESS_STOPPED, 0, 9, false, 137, true),
            (Policy::UNLESS_STOPPED, 0, 0, true, 137, false),
            (Policy::ON_FAILURE, 0, 9, false, 143, true),
            (Policy::ON_FAILURE, 0, 0, false, 0, false),
            (Policy::ON_FAILURE, 2, 1, false, 1, true),
            (Policy::ON_FAILURE, 2, 2, false, 1, false),
        ] {
            let mut record = ended(policy, most, count, by_user);
            assert_eq!(
                apply_policy(&mut record, code, second).is_some(),
                again,
                "{policy} {most} {count} {by_user} {code}"
            );
            let (status, counted) = if again { (Status::Restarting, count + 1) } else { (Status::Exited, count) };
            assert_eq!((record.state.status, record.restart_count), (status, counted));
        }
    }

    #[test]
    fn the_pause_grows_until_a_good_run() {
        let pause = |count, ran| apply_policy(&mut ended(Policy::ALWAYS, 0, count, false), 1, ran).unwrap().as_millis();
        assert_eq!([0, 1, 4, 99].map(|count| pause(count, chrono::Duration::zero())), [100, 200, 1600, 60_000]);
        assert_eq!(pause(99, GOOD_RUN), 100);
    }
}
