//! PID 1 of a container that an engine runs: watched from outside, as an engine stops it.

use super::{connection::Connection, launch::Child};
use crate::{
    engine::containers::parse_signal,
    error::{Context, Error, Result},
    sys,
};
use bollard::{
    models::{ContainerCreateBody, ContainerInspectResponse},
    query_parameters::CreateContainerOptions,
};
use std::time::Duration;

/// An image at an engine of this machine.
pub struct Image {
    pub engine: Connection,
    pub name: String,
}

/// A container; removed with the value.
pub struct Container {
    engine: Connection,
    id: String,
}

/// A container that was started.
pub struct Started {
    /// None where it has ended already.
    pub child: Option<Child>,
    pub exit_code: i32,
    /// Its entrypoint and command.
    pub words: Vec<String>,
    /// What the image wants to be stopped with.
    pub stop_signal: i32,
}

impl Image {
    /// Starts a container as the image says, without an init of the engine's, and without a network.
    pub fn start(&self) -> Result<Started> {
        let name = &self.name;
        let host_config =
            bollard::models::HostConfig { network_mode: Some("none".into()), init: Some(false), ..Default::default() };
        let body =
            ContainerCreateBody { image: Some(name.clone()), host_config: Some(host_config), ..Default::default() };
        let create = self.engine.docker.create_container(None::<CreateContainerOptions>, body);
        let made = self.engine.wait(format!("create a container of {name}"), create)?;
        let container = Container { engine: self.engine.clone(), id: made.id };
        self.engine.wait(format!("start {name}"), self.engine.docker.start_container(&container.id, None))?;
        let found = container.inspect()?;
        let words = found.path.into_iter().chain(found.args.unwrap_or_default()).collect();
        let stop_signal = found.config.and_then(|config| config.stop_signal);
        let stop_signal = stop_signal.and_then(|name| parse_signal(&name).ok()).unwrap_or(libc::SIGTERM);
        let pid = found.state.and_then(|state| state.pid).filter(|pid| *pid > 0);
        let pidfd = match pid.map(|pid| sys::pidfd_open(pid as i32)) {
            Some(Err(error)) if error.raw_os_error() != Some(libc::ESRCH) => {
                return Err(error).doing("find the container's PID 1");
            }
            Some(Ok(pidfd)) => Some(pidfd),
            _ => None,
        };
        let (child, exit_code) = match (pid, pidfd) {
            (Some(pid), Some(pidfd)) => {
                sys::pidfd_send_signal(&pidfd, 0).doing("reach the container's PID 1: are you root")?;
                (Some(Child::of_container(pid as i32, pidfd, container)?), 0)
            }
            _ => (None, container.exit_code()?),
        };
        Ok(Started { child, exit_code, words, stop_signal })
    }
}

impl Container {
    fn inspect(&self) -> Result<ContainerInspectResponse> {
        self.engine.wait("look at the container", self.engine.docker.inspect_container(&self.id, None))
    }

    /// The exit code, once PID 1 has ended: the engine hears of it a moment later.
    pub fn exit_code(&self) -> Result<i32> {
        for _ in 0..500 {
            let state = self.inspect()?.state.unwrap_or_default();
            if state.running != Some(true) {
                return Ok(state.exit_code.unwrap_or(0) as i32);
            }
            // One that runs and has no such process here runs somewhere else.
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(Error::Failed("the container runs, and its PID 1 is not on this machine".into()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.engine.remove(&self.id) {
            log::warn!("{error}");
        }
    }
}
