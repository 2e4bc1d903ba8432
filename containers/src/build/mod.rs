//! The builder: a Dockerfile and a context become an image.

use crate::{engine::Engine, error::Result};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use tokio::sync::mpsc::UnboundedSender;

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
}

/// A line of a build's progress, as the API streams it.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(untagged)]
pub enum Progress {
    Stream { stream: String },
    Image { aux: serde_json::Value },
}

/// Builds and tags the image; its id. What happens is told through `progress`.
pub async fn build(_engine: &Arc<Engine>, _request: Request, _progress: UnboundedSender<Progress>) -> Result<String> {
    todo!()
}
