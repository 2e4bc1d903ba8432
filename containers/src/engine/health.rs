//! Health checks: a command in the container, again and again, and what its exit codes say.

use super::{Engine, containers::Container};
use bollard_stubs::models::{Health, HealthConfig, HealthStatusEnum as Status, HealthcheckResult};
use chrono::Utc;
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinHandle, time::Instant};

/// Results kept for `inspect`, as with Docker.
const KEPT: usize = 5;

/// A check with its times, Docker's defaults where none are given.
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

/// Starts checking in the background, if the container has a check; end it by `abort`.
pub fn monitor(engine: &Arc<Engine>, container: &Arc<Container>) -> JoinHandle<()> {
    let (engine, container) = (Arc::clone(engine), Arc::clone(container));
    let config = container.record().config.healthcheck.clone();
    let shell = container.record().config.shell.clone();
    let check = config.and_then(|config| Check::new(config, shell));
    if check.is_some() {
        container.record().state.health =
            Some(Health { status: Some(Status::STARTING), failing_streak: Some(0), log: Some(Vec::new()) });
    }
    tokio::spawn(async move {
        let Some(check) = check else { return };
        let started = Instant::now();
        loop {
            let starting = status_of(&container) == Some(Status::STARTING) && started.elapsed() < check.start_period;
            tokio::time::sleep(if starting { check.start_interval } else { check.interval }).await;
            let begin = Utc::now();
            let ran = engine.run_exec(&container, check.command.clone(), check.timeout).await;
            let (code, output) = match ran {
                Ok(Some(result)) => result,
                Ok(None) => (-1, format!("Health check exceeded timeout ({:?})", check.timeout)),
                Err(error) => (-1, error.to_string()),
            };
            if !container.record().state.is_running() {
                return;
            }
            let result = HealthcheckResult {
                start: Some(begin),
                end: Some(Utc::now()),
                exit_code: Some(i64::from(code)),
                output: Some(output),
            };
            let forgiven = started.elapsed() < check.start_period;
            if let Some(status) = record(&container, result, check.retries, forgiven) {
                engine.tell(&container, &format!("health_status: {status}"), &[]);
            }
        }
    })
}

fn status_of(container: &Container) -> Option<Status> {
    container.record().state.health.as_ref().and_then(|health| health.status)
}

/// Adds a result; the new status if it changed. Failures in the start period do not count.
fn record(container: &Container, result: HealthcheckResult, retries: i64, forgiven: bool) -> Option<Status> {
    let mut record = container.record();
    let health = record.state.health.get_or_insert_default();
    let before = health.status;
    if result.exit_code == Some(0) {
        health.failing_streak = Some(0);
        health.status = Some(Status::HEALTHY);
    } else if !(forgiven && before == Some(Status::STARTING)) {
        let streak = health.failing_streak.unwrap_or(0) + 1;
        health.failing_streak = Some(streak);
        if streak >= retries {
            health.status = Some(Status::UNHEALTHY);
        }
    }
    let log = health.log.get_or_insert_default();
    log.push(result);
    let excess = log.len().saturating_sub(KEPT);
    log.drain(..excess);
    health.status.filter(|status| Some(*status) != before)
}

impl Check {
    fn new(config: HealthConfig, shell: Option<Vec<String>>) -> Option<Check> {
        let test = config.test.unwrap_or_default();
        let (kind, rest) = test.split_first()?;
        let command = match kind.as_str() {
            "CMD" if !rest.is_empty() => rest.to_vec(),
            "CMD-SHELL" => {
                let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
                command.extend(rest.iter().cloned());
                command
            }
            // NONE, and what is no check.
            _ => return None,
        };
        let time = |nanoseconds: Option<i64>, default: u64| {
            let asked = nanoseconds.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
            asked.map_or(Duration::from_secs(default), Duration::from_nanos)
        };
        Some(Check {
            command,
            interval: time(config.interval, 30),
            timeout: time(config.timeout, 30),
            start_period: time(config.start_period, 0),
            start_interval: time(config.start_interval, 5),
            retries: config.retries.filter(|retries| *retries > 0).unwrap_or(3),
        })
    }
}
