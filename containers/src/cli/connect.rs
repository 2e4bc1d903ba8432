//! Finds the engine: `--host`, `DOCKER_HOST`, or the embedded one, which is started when it does not answer.

use super::Globals;
use crate::error::{Context, Error, Result};
use bollard::{API_DEFAULT_VERSION, Docker};
use std::process::Command;

/// The embedded engine's socket when nothing else is asked for.
pub const DEFAULT_SOCKET: &str = "/run/inception/inception.sock";

/// Seconds that a request may take before its first answer; builds and waits are longer than bollard's own 2 minutes.
const TIMEOUT: u64 = 3600;

/// A connection to the engine, its API version negotiated.
pub async fn connect(globals: &Globals) -> Result<Docker> {
    let asked = globals.host.clone().or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()));
    let Some(host) = asked else {
        let host = format!("unix://{DEFAULT_SOCKET}");
        if let Ok(docker) = open(&host).await {
            return Ok(docker);
        }
        start_daemon()?;
        return open(&host).await;
    };
    open(&host).await
}

async fn open(host: &str) -> Result<Docker> {
    let unreachable = |error: bollard::errors::Error| {
        Error::Failed(format!(
            "cannot reach the engine at {host}: {error}; is it running, and may you open its socket?"
        ))
    };
    let docker = if let Some(path) = host.strip_prefix("unix://") {
        Docker::connect_with_unix(path, TIMEOUT, API_DEFAULT_VERSION)
    } else if host.starts_with("tcp://") || host.starts_with("http://") {
        Docker::connect_with_http(host, TIMEOUT, API_DEFAULT_VERSION)
    } else {
        return Err(Error::invalid(format!("{host}: an engine's address is unix:///path or tcp://host:port")));
    }
    .map_err(unreachable)?;
    docker.negotiate_version().await.map_err(unreachable)
}

/// Runs `inception daemon --detach`, which returns when its socket answers.
fn start_daemon() -> Result<()> {
    let program = std::env::current_exe().doing("find this program's own path")?;
    let status = Command::new(program).args(["daemon", "--detach"]).status().doing("start the embedded engine")?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed("the embedded engine did not start; DOCKER_HOST selects another engine".into()))
}
