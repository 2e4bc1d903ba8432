//! Waits for what a service's container becomes.

use super::{
    client::{self, failed},
    model::Condition,
};
use crate::error::{Error, Result};
use bollard::{Docker, exec::StartExecResults};
use bollard_stubs::models::{ContainerStateStatusEnum, ExecConfig, HealthConfig, HealthStatusEnum};
use futures_util::StreamExt;
use std::time::{Duration, Instant};

/// How often a container that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a container without a health check runs before it counts as up.
const PROOF: Duration = Duration::from_millis(250);
/// How long a container with a restart policy stays ended before nobody is taken to restart it: it was stopped by hand.
/// One that waits for its restart is "restarting".
const LEFT_ALONE: Duration = Duration::from_secs(5);

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
    let mut checks = OwnChecks::default();
    let mut ended_since = None;
    loop {
        let details = client::steady(async || docker.inspect_container(id, None).await).await;
        let details = details.map_err(failed(format!("look at service {service}")))?;
        let state = details.state.unwrap_or_default();
        let health = state.health.as_ref().and_then(|health| health.status);
        let code = state.exit_code.unwrap_or_default();
        let test = details.config.and_then(|config| config.healthcheck);
        let restarts = details
            .host_config
            .and_then(|config| config.restart_policy)
            .and_then(|policy| policy.name)
            .is_some_and(|name| !matches!(name.to_string().as_str(), "no" | ""));
        let ended = matches!(state.status, Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD));
        let running = state.status == Some(ContainerStateStatusEnum::RUNNING);
        if !running {
            checks = OwnChecks::default();
        }
        match condition {
            Condition::Started if running => return Ok("Started"),
            Condition::CompletedSuccessfully if ended && code == 0 => return Ok("Exited"),
            Condition::Healthy => match health {
                Some(HealthStatusEnum::HEALTHY) => return Ok("Healthy"),
                Some(HealthStatusEnum::UNHEALTHY) => {
                    let log = state.health.and_then(|health| health.log).unwrap_or_default();
                    let output = log.last().and_then(|entry| entry.output.clone()).unwrap_or_default();
                    return Err(unhealthy(service, &output));
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
                Some(HealthStatusEnum::STARTING) if running => {
                    let log = state.health.as_ref().and_then(|health| health.log.as_ref());
                    let is_unchecked = log.is_none_or(|log| log.is_empty());
                    if is_unchecked
                        && let Some(test) = &test
                        && checks.passed(docker, service, id, test).await?
                    {
                        return Ok("Healthy");
                    }
                }
                _ => {}
            },
            _ => {}
        }
        ended_since = ended.then(|| ended_since.unwrap_or_else(Instant::now));
        let left_alone = ended_since.is_some_and(|since: Instant| since.elapsed() > LEFT_ALONE);
        if ended && (!restarts || left_alone || condition == Condition::CompletedSuccessfully) {
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

fn unhealthy(service: &str, output: &str) -> Error {
    let output: String = output.trim().lines().map(|line| format!("\n  | {line}")).collect();
    Error::Failed(format!("service {service} is unhealthy; its check said:{output}"))
}

/// Checks made from here where the engine makes none: Podman leaves them to systemd, and has nobody to make them on a
/// machine that runs without.
#[derive(Default)]
struct OwnChecks {
    start: Option<Instant>,
    next: Option<Instant>,
    failures: i64,
}

impl OwnChecks {
    /// Whether a check is due and has passed. The engine gets an interval and a second to make its first; too many
    /// failures after the start period are an error.
    async fn passed(&mut self, docker: &Docker, service: &str, id: &str, check: &HealthConfig) -> Result<bool> {
        let time = |nanoseconds: Option<i64>| {
            nanoseconds.filter(|time| *time > 0).map(|time| Duration::from_nanos(time.unsigned_abs()))
        };
        let interval = time(check.interval).unwrap_or(Duration::from_secs(30));
        let now = Instant::now();
        let start = *self.start.get_or_insert(now);
        if now < *self.next.get_or_insert(now + interval + Duration::from_secs(1)) {
            return Ok(false);
        }
        self.next = Some(now + interval);
        let words = check.test.as_deref().unwrap_or_default();
        let command = match words.split_first() {
            Some((kind, [line])) if kind == "CMD-SHELL" => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
            Some((kind, command)) if kind == "CMD" => command.to_vec(),
            _ => return Ok(false),
        };
        // One that can't be made (the container may just have ended) has failed, too.
        let (code, output) = run(docker, id, command).await.unwrap_or_else(|error| (None, error.to_string()));
        if code == Some(0) {
            return Ok(true);
        }
        if now > start + time(check.start_period).unwrap_or_default() {
            self.failures += 1;
        }
        match self.failures >= check.retries.filter(|retries| *retries > 0).unwrap_or(3) {
            true => Err(unhealthy(service, &output)),
            false => Ok(false),
        }
    }
}

/// Runs a command in a container; its exit code, and what it said.
async fn run(
    docker: &Docker,
    id: &str,
    command: Vec<String>,
) -> std::result::Result<(Option<i64>, String), bollard::errors::Error> {
    let config = ExecConfig {
        cmd: Some(command),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let exec = docker.create_exec(id, config).await?.id;
    let mut said = String::new();
    if let StartExecResults::Attached { mut output, .. } = docker.start_exec(&exec, None).await? {
        while let Some(piece) = output.next().await {
            said += &String::from_utf8_lossy(&client::bytes_of(&piece?));
        }
    }
    Ok((docker.inspect_exec(&exec).await?.exit_code, said))
}
