//! The builder: a Dockerfile and a context become an image.
//!
//! A file is split into instructions (`lines`), these are understood (`command`), ordered into stages (`plan`) and
//! carried out one after another (`run`, and `stage` for a single stage), each from the image that the one before it
//! gave (`cache`). COPY and ADD find files (`source`) and put them into place (`place`) without a container.

mod cache;
mod command;
mod config;
mod failure;
pub mod ignore;
mod lines;
mod mount;
mod output;
mod place;
mod plan;
mod run;
mod source;
mod stage;
mod voice;
mod words;

pub use cache::Cache;
pub use failure::Failure;
pub use plan::is_own_platform;

use crate::{engine::Engine, error::Error, image::name::Name};
use bollard_stubs::models::ImageConfig;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use tokio::sync::mpsc::Sender;

/// Below the data root: the cache's record, and the contexts of builds under way.
pub const FOLDER: &str = "build";
pub const CONTEXTS: &str = "build/contexts";

/// A build as `POST /build` asks for it, validated.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The unpacked context (already filtered by the client's `.dockerignore`; ours is applied again).
    pub context: PathBuf,
    /// Path of the Dockerfile inside the context.
    pub dockerfile: String,
    pub tags: Vec<String>,
    pub build_args: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: Option<String>,
    pub no_cache: bool,
    /// "default", "host", "none" or a network's name.
    pub network: String,
    pub extra_hosts: Vec<String>,
    pub quiet: bool,
    /// Base images come from their registries, even where the store has them.
    pub pull: bool,
}

/// A line of a build's progress, as the API streams it.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(untagged)]
pub enum Progress {
    Stream {
        stream: String,
    },
    /// Of a pull; `id` names a layer or a tag.
    Status {
        status: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    Image {
        aux: serde_json::Value,
    },
    /// The end of a build that failed.
    Failed {
        #[serde(rename = "errorDetail")]
        detail: Detail,
        error: String,
    },
}

/// What went wrong, as clients read it; `code` is what they exit with.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Detail {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    pub message: String,
}

impl From<&Failure> for Progress {
    fn from(failure: &Failure) -> Progress {
        let message = failure.to_string();
        Progress::Failed { error: message.clone(), detail: Detail { code: failure.code(), message } }
    }
}

/// A build whose Dockerfile is understood.
pub struct Prepared {
    request: Request,
    plan: plan::Plan,
    tags: Vec<Name>,
}

/// Instructions that `docker import --change` takes: the others need a container or a context.
const CHANGES: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The configuration that the instructions of `docker import --change` make.
pub fn changed(changes: &[String]) -> Result<ImageConfig, Error> {
    let mut config = ImageConfig::default();
    let (mut author, mut has_cmd) = (None, false);
    for (index, change) in changes.iter().enumerate() {
        let bad = |error: String| Error::invalid(format!("--change {change:?}: {error}"));
        let place = command::Place { file: "--change", escape: '\\' };
        let instruction = lines::parse_one(change, index + 1, place.file, place.escape)
            .map_err(|failure| bad(failure.message_without_place()))?;
        if !CHANGES.contains(&instruction.keyword) {
            return Err(bad(format!("{} is not a valid change command", instruction.keyword)));
        }
        let command = command::parse(&instruction, place).map_err(|failure| bad(failure.message_without_place()))?;
        let environment = config.env.clone().unwrap_or_default();
        if let command::Command::Workdir(path) = &command {
            config.working_dir = Some(config::absolute(config.working_dir.as_deref(), path));
            continue;
        }
        let settings = config::Settings {
            config: &mut config,
            author: &mut author,
            has_cmd: &mut has_cmd,
            escape: place.escape,
            lookup: &|name| config::variable(&environment, name),
        };
        settings.apply(&command).map_err(bad)?;
    }
    Ok(config)
}

/// The configuration that the last stage of a Dockerfile describes by itself, without its base's.
pub fn described(text: &str, file: &str) -> Result<ImageConfig, Error> {
    let instructions = lines::parse(text, file).map_err(|failure| failure.error)?.instructions;
    let last = instructions.iter().rposition(|instruction| instruction.keyword == "FROM").map_or(0, |place| place + 1);
    let describes = |instruction: &&lines::Instruction| CHANGES.contains(&instruction.keyword);
    changed(&instructions[last..].iter().filter(describes).map(|it| it.text.clone()).collect::<Vec<_>>())
}

/// Reads and checks the Dockerfile, and takes out of the context what `.dockerignore` names. Blocking.
pub fn prepare(request: Request) -> Result<Prepared, Failure> {
    let tags = request.tags.iter().map(|tag| Name::parse(tag)).collect::<Result<_, _>>()?;
    let text = source::read_dockerfile(&request.context, &request.dockerfile)?;
    source::apply_ignore(&request.context)?;
    let plan = plan::Plan::parse(&text, &request)?;
    Ok(Prepared { request, plan, tags })
}

/// Builds and tags the image; its id. What happens is told through `progress`; a build waits for a listener that does
/// not keep up. When nobody listens any more it is given up, and the command that it runs is killed.
pub async fn build(engine: &Arc<Engine>, prepared: Prepared, progress: Sender<Progress>) -> Result<String, Failure> {
    run::run(engine, prepared, progress).await
}
