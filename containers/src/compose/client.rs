//! What all that talks to the engine shares: errors, labels, what is there, what a person sees meanwhile.

use super::model::Condition;
use crate::error::{Error, Result};
use bollard::{
    Docker,
    container::LogOutput,
    query_parameters::{ListContainersOptionsBuilder, LogsOptionsBuilder},
};
use bollard_stubs::models::{ContainerSummary, ContainerSummaryStateEnum};
use futures_util::StreamExt;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{collections::HashMap, fmt::Display, io::IsTerminal, time::Duration};

pub const PROJECT: &str = "com.docker.compose.project";
pub const SERVICE: &str = "com.docker.compose.service";
pub const NUMBER: &str = "com.docker.compose.container-number";
pub const HASH: &str = "com.docker.compose.config-hash";
pub const ONEOFF: &str = "com.docker.compose.oneoff";
pub const VERSION: &str = "com.docker.compose.version";
pub const DIRECTORY: &str = "com.docker.compose.project.working_dir";
pub const FILES: &str = "com.docker.compose.project.config_files";
pub const NETWORK: &str = "com.docker.compose.network";
pub const VOLUME: &str = "com.docker.compose.volume";
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// docker-compose reads this as a version number.
pub const SPOKEN_VERSION: &str = "2.0.0";

/// Names the operation on which the engine failed.
pub fn failed(doing: impl Display) -> impl FnOnce(bollard::errors::Error) -> Error {
    move |error| match error {
        bollard::errors::Error::DockerResponseServerError { status_code, message } => {
            Error::Engine { status: status_code, message: format!("{doing}: {message}") }
        }
        bollard::errors::Error::DockerStreamError { error } => Error::Failed(format!("{doing}: {error}")),
        other => Error::Failed(format!("{doing}: {other}")),
    }
}

/// Whether the engine's answer was this HTTP status.
pub fn is_status(error: &bollard::errors::Error, status: u16) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code, .. } if *status_code == status)
}

/// Asks again while the answer has words that are none of the API's: Podman says "stopped" of a container for a moment,
/// before it says "exited".
pub async fn steady<T>(
    ask: impl AsyncFn() -> std::result::Result<T, bollard::errors::Error>,
) -> std::result::Result<T, bollard::errors::Error> {
    use bollard::errors::Error::{JsonDataError, JsonSerdeError};
    for _ in 0..20 {
        match ask().await {
            Err(JsonDataError { .. } | JsonSerdeError { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            answer => return answer,
        }
    }
    ask().await
}

/// The containers of a project, running or not; those of `run` too with `oneoff`.
pub async fn containers(docker: &Docker, project: &str, oneoff: bool) -> Result<Vec<ContainerSummary>> {
    let mut labels = vec![format!("{PROJECT}={project}")];
    if !oneoff {
        labels.push(format!("{ONEOFF}=False"));
    }
    let options = ListContainersOptionsBuilder::new().all(true).filters(&HashMap::from([("label", labels)])).build();
    let found = steady(async || docker.list_containers(Some(options.clone())).await).await;
    let mut found = found.map_err(failed("list containers"))?;
    found.sort_by_key(name);
    Ok(found)
}

pub fn label<'a>(container: &'a ContainerSummary, label: &str) -> &'a str {
    container.labels.as_ref().and_then(|labels| labels.get(label)).map_or("", String::as_str)
}

/// The services that a container depends on, and what of them it waits for; docker-compose's labels say no more than the
/// names.
pub fn depends_on(container: &ContainerSummary) -> impl Iterator<Item = (&str, Condition)> {
    label(container, DEPENDS_ON).split(',').filter(|entry| !entry.is_empty()).map(|entry| {
        let mut parts = entry.split(':');
        let name = parts.next().unwrap_or_default();
        (name, parts.next().and_then(Condition::named).unwrap_or(Condition::Started))
    })
}

/// A container's name, without the API's slash.
pub fn name(container: &ContainerSummary) -> String {
    let name = container.names.as_ref().and_then(|names| names.first()).map_or("", String::as_str);
    name.trim_start_matches('/').to_owned()
}

pub fn id(container: &ContainerSummary) -> String {
    container.id.clone().unwrap_or_default()
}

pub fn is_running(container: &ContainerSummary) -> bool {
    matches!(
        container.state,
        Some(
            ContainerSummaryStateEnum::RUNNING
                | ContainerSummaryStateEnum::RESTARTING
                | ContainerSummaryStateEnum::PAUSED
        )
    )
}

/// The last lines that a container wrote, for an error.
pub async fn last_lines(docker: &Docker, container: &str) -> String {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("10").build();
    let mut text = String::new();
    let mut lines = std::pin::pin!(docker.logs(container, Some(options)));
    while let Some(Ok(line)) = lines.next().await {
        text.push_str("\n  | ");
        text.push_str(String::from_utf8_lossy(&bytes_of(&line)).trim_end());
    }
    text
}

pub fn bytes_of(output: &LogOutput) -> bytes::Bytes {
    match output {
        LogOutput::StdErr { message }
        | LogOutput::StdOut { message }
        | LogOutput::StdIn { message }
        | LogOutput::Console { message } => message.clone(),
    }
}

/// What a person sees of work under way: a line that changes for each thing on a terminal, plain lines elsewhere. On
/// stderr: stdout is for results.
pub struct Progress {
    multi: Option<MultiProgress>,
}

impl Progress {
    pub fn new() -> Progress {
        Progress { multi: std::io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// A plain line.
    pub fn line(&self, text: &str) {
        match &self.multi {
            // Without a terminal to draw on there is nobody to tell.
            Some(multi) => drop(multi.println(text)),
            None => eprintln!("{text}"),
        }
    }

    /// Runs `print`, which writes to the terminal, while nothing is drawn there.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.multi {
            Some(multi) => multi.suspend(print),
            None => print(),
        }
    }

    /// One thing that is worked on.
    pub fn task(&self, what: impl Into<String>) -> Task<'_> {
        let bar = self.multi.as_ref().map(|multi| {
            let bar = multi.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {prefix}  {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Task { what: what.into(), bar, progress: self }
    }
}

/// See [`Progress::task`].
pub struct Task<'a> {
    what: String,
    bar: Option<ProgressBar>,
    progress: &'a Progress,
}

impl Task<'_> {
    /// What is being done now; only on a terminal.
    pub fn doing(&self, state: &str) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(self.what.clone());
            bar.set_message(state.trim_end().to_owned());
        }
    }

    /// A line of output that stays.
    pub fn line(&self, line: &str) {
        self.progress.line(&format!("{}: {line}", self.what));
    }

    /// It is done.
    pub fn done(self, state: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.progress.line(&format!("{} {state}", self.what));
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
