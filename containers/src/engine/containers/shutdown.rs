//! The daemon's end. Containers go on without it, as with dockerd's live-restore, but where the machine goes down: then they
//! are stopped here, side by side, as systemd would wait for 90 s for those that ignore SIGTERM. None of them is marked as
//! stopped by a person, so that at the next boot the restart policies apply; a daemon that is killed meanwhile leaves what
//! a machine that lost power leaves.

use super::{Container, stop::STOP_TIMEOUT};
use crate::{
    engine::Engine,
    error::{Error, Result},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::MutexGuard, task::JoinSet};

/// Seconds for a container that is to be waited for for ever (-1): no machine waits that long. systemd's own default.
const LONGEST_WAIT: i64 = 90;

/// For the kills, and what there is to be tidied up behind each container.
const AFTER_THE_KILLS: Duration = Duration::from_secs(30);

impl Engine {
    /// How long [`Engine::end`] may take with the containers.
    pub fn time_to_stop(&self) -> Duration {
        let containers = self.containers.list();
        let longest =
            containers.iter().filter(|one| one.record().state.is_running()).map(|one| stop_timeout(one)).max();
        Duration::from_secs(longest.unwrap_or(0).unsigned_abs()) + AFTER_THE_KILLS
    }

    /// Nothing is started from here on, and builds are given up; `with_containers` stops every container that runs, by its
    /// own signal and within its own time.
    pub async fn end(self: &Arc<Self>, with_containers: bool) {
        self.ending.cancel();
        let mut stops = JoinSet::new();
        for container in self.containers.list().into_iter().filter(|_| with_containers) {
            let engine = Arc::clone(self);
            stops.spawn(async move {
                let _step = container.operation.lock().await;
                match engine.stop_locked(&container, None, Some(stop_timeout(&container)), false).await {
                    Ok(()) | Err(Error::NotModified) => {}
                    Err(error) => log::error!("stop {}: {error}", container.id),
                }
            });
        }
        // Steps of builds end by themselves, and no other one begins.
        let _steps = self.steps.write().await;
        stops.join_all().await;
    }

    /// The lock under which a container is started; refused once the daemon ends.
    pub(super) async fn lock_to_start<'a>(&self, container: &'a Container) -> Result<MutexGuard<'a, ()>> {
        let step = container.operation.lock().await;
        // Asked under the lock: whoever has it first is stopped, too.
        match self.ending.is_cancelled() {
            true => Err(Error::Conflict(format!("cannot start container {}: the daemon ends", container.id))),
            false => Ok(step),
        }
    }
}

fn stop_timeout(container: &Container) -> i64 {
    match container.record().config.stop_timeout.unwrap_or(STOP_TIMEOUT) {
        seconds @ 0.. => seconds,
        _ => LONGEST_WAIT,
    }
}
