//! The machine goes down: containers are stopped here, side by side, as systemd would wait for 90 s for those that ignore
//! SIGTERM. None of them is marked as stopped by a person, so that at the next boot the restart policies apply; a daemon
//! that is killed meanwhile leaves what a machine that lost power leaves.

use super::{Container, stop::STOP_TIMEOUT};
use crate::{
    engine::{Engine, step},
    error::{Error, Result},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{sync::MutexGuard, task::JoinSet};

/// Seconds for a container that is to be waited for for ever (-1): no machine waits that long. systemd's own default.
const LONGEST_WAIT: i64 = 90;

/// For the kills, and what there is to be tidied up behind each container.
const AFTER_THE_KILLS: Duration = Duration::from_secs(30);

impl Engine {
    /// How long [`Engine::stop_for_shutdown`] may take.
    pub fn time_to_stop(&self) -> Duration {
        let containers = self.containers.list();
        let longest =
            containers.iter().filter(|one| one.record().state.is_running()).map(|one| stop_timeout(one)).max();
        Duration::from_secs(longest.unwrap_or(0).unsigned_abs()) + AFTER_THE_KILLS
    }

    /// Stops every running container by its own signal and within its own time, and ends the steps of builds. From here on
    /// none is started.
    pub async fn stop_for_shutdown(self: &Arc<Self>) {
        self.going_down.store(true, Ordering::SeqCst);
        let mut stops = JoinSet::new();
        for container in self.containers.list() {
            let engine = Arc::clone(self);
            stops.spawn(async move {
                let _step = container.operation.lock().await;
                match engine.stop_locked(&container, None, Some(stop_timeout(&container)), false).await {
                    Ok(()) | Err(Error::NotModified) => {}
                    Err(error) => log::error!("stop {}: {error}", container.id),
                }
            });
        }
        if let Err(error) = step::sweep(&self.config).await {
            log::error!("end the builds: {error}");
        }
        stops.join_all().await;
    }

    /// The lock under which a container is started; refused once the machine goes down.
    pub(super) async fn lock_to_start<'a>(&self, container: &'a Container) -> Result<MutexGuard<'a, ()>> {
        let step = container.operation.lock().await;
        // Asked under the lock: whoever has it first is stopped, too.
        match self.going_down.load(Ordering::SeqCst) {
            true => Err(Error::Conflict(format!("cannot start container {}: the machine goes down", container.id))),
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
