//! Waits for what a service's container becomes.

use super::{
    client::{self, failed},
    model::Condition,
};
use crate::error::{Error, Result};
use bollard::Docker;
use bollard_stubs::models::{ContainerStateStatusEnum, HealthStatusEnum};
use std::time::{Duration, Instant};

/// How often a container that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a container without a health check runs before it counts as up.
const PROOF: Duration = Duration::from_millis(250);

/// Waits for a condition of a container; how it is now. With `lenient` a container without a check is healthy once it
/// runs, and one that ended well is done.
pub async fn until(
    docker: &Docker,
    service: &str,
    id: &str,
    condition: Condition,
    lenient: bool,
    deadline: Option<Instant>,
) -> Result<&'static str> {
    let mut seen_running = false;
    loop {
        let details = docker.inspect_container(id, None).await.map_err(failed(format!("look at service {service}")))?;
        let state = details.state.unwrap_or_default();
        let health = state.health.as_ref().and_then(|health| health.status);
        let code = state.exit_code.unwrap_or_default();
        let restarts = details
            .host_config
            .and_then(|config| config.restart_policy)
            .and_then(|policy| policy.name)
            .is_some_and(|name| !matches!(name.to_string().as_str(), "no" | ""));
        let ended = matches!(state.status, Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD));
        let running = state.status == Some(ContainerStateStatusEnum::RUNNING);
        match condition {
            Condition::Started if running => return Ok("Started"),
            Condition::CompletedSuccessfully if ended && code == 0 => return Ok("Exited"),
            Condition::Healthy => match health {
                Some(HealthStatusEnum::HEALTHY) => return Ok("Healthy"),
                Some(HealthStatusEnum::UNHEALTHY) => {
                    let log = state.health.and_then(|health| health.log).unwrap_or_default();
                    let output = log.last().and_then(|entry| entry.output.clone()).unwrap_or_default();
                    let output: String = output.trim().lines().map(|line| format!("\n  | {line}")).collect();
                    return Err(Error::Failed(format!("service {service} is unhealthy; its check said:{output}")));
                }
                None | Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) if running => {
                    if lenient && seen_running {
                        return Ok("Running");
                    }
                    if lenient {
                        // A program that can't start says so at once, and nothing else would tell.
                        seen_running = true;
                        tokio::time::sleep(PROOF).await;
                        continue;
                    }
                    return Err(Error::invalid(format!(
                        "service {service} has no healthcheck, so `condition: service_healthy` never comes"
                    )));
                }
                _ if ended && lenient && code == 0 => return Ok("Exited"),
                _ => {}
            },
            _ => {}
        }
        if ended && (!restarts || condition == Condition::CompletedSuccessfully) {
            let lines = client::last_lines(docker, id).await;
            let why =
                state.error.filter(|error| !error.is_empty()).map(|error| format!(": {error}")).unwrap_or_default();
            return Err(Error::Failed(format!("service {service} ended with code {code}{why}{lines}")));
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            let lines = client::last_lines(docker, id).await;
            return Err(Error::Failed(format!("service {service} was not ready in time; its last lines:{lines}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}
