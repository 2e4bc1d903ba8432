//! Images: a content store in the OCI layout, layers as overlayfs folders, and the archives that carry them.
//!
//! Blocking: callers on the runtime use `spawn_blocking`.

use crate::{error::Result, shim::Overlay};
use bollard_stubs::models;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

/// The configuration document of an image (OCI image-spec config.md, with Docker's additions): its digest is the
/// image's id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Document {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    pub architecture: String,
    pub os: String,
    /// Env, Cmd, Entrypoint, User, WorkingDir, Healthcheck, Shell, OnBuild, …
    #[serde(default)]
    pub config: models::ImageConfig,
    pub rootfs: RootFs,
    #[serde(default)]
    pub history: Vec<History>,
}

/// The layers of an image, the lowest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    /// `sha256:…` of each layer's uncompressed tar.
    pub diff_ids: Vec<String>,
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// An image in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// `sha256:…`
    pub id: String,
    pub document: Document,
    /// `name:tag`, familiar form (`nginx:1.0`, not `docker.io/library/nginx:1.0`).
    pub tags: Vec<String>,
    /// Bytes of all layers, unpacked.
    pub size: u64,
}

/// The store: `DATA_ROOT/image`.
pub struct Store {
    #[allow(dead_code)]
    root: PathBuf,
}

impl Store {
    /// Opens or creates the store and removes what an interrupted write left behind.
    pub fn open(_root: &Path) -> Result<Store> {
        todo!()
    }
    /// By `name[:tag]`, `name@digest`, id or unique prefix of an id. NotFound { kind: "image" } otherwise.
    pub fn get(&self, _reference: &str) -> Result<Image> {
        todo!()
    }
    /// Every image, the newest first.
    pub fn list(&self) -> Result<Vec<Image>> {
        todo!()
    }
    /// Stores `document` (its layers must be there) and returns the image; the same document twice is one image.
    /// `parent`: the image it was built on, for the build cache.
    pub fn create(&self, _document: &Document, _parent: Option<&str>) -> Result<Image> {
        todo!()
    }
    /// Gives image `id` the name `reference` (moved there from the image that had it).
    pub fn tag(&self, _id: &str, _reference: &str) -> Result<()> {
        todo!()
    }
    /// Untags, and deletes what nothing needs any more. `in_use`: ids that containers use.
    pub fn remove(
        &self,
        _reference: &str,
        _force: bool,
        _in_use: &[String],
    ) -> Result<Vec<models::ImageDeleteResponseItem>> {
        todo!()
    }
    /// The folders of an image's layers, the topmost first: an overlay's lowerdirs.
    pub fn lower(&self, _image: &Image) -> Result<Vec<PathBuf>> {
        todo!()
    }
    /// An empty folder on the store's file system for an upper directory; see [`Store::commit`].
    pub fn scratch(&self) -> Result<tempfile::TempDir> {
        todo!()
    }
    /// Makes a layer of an overlay's upper directory by hashing it as a canonical tar and moving it into the store
    /// (never copied). Returns its diff_id, or None when it is empty. Must be on the store's file system.
    pub fn commit(&self, _upper: &Path) -> Result<Option<String>> {
        todo!()
    }
    /// `docker load`: OCI layout or docker-archive, plain or compressed; every digest verified. The images' references
    /// (or ids where they have none).
    pub fn load(&self, _archive: impl Read, _progress: impl FnMut(&str)) -> Result<Vec<String>> {
        todo!()
    }
    /// `docker save`: an archive that Docker and Podman load.
    pub fn save(&self, _references: &[String], _archive: impl Write) -> Result<()> {
        todo!()
    }
    /// `docker import`: an image of one layer from a tar (plain or compressed). Does not tag.
    pub fn import(&self, _archive: impl Read, _config: models::ImageConfig, _message: &str) -> Result<Image> {
        todo!()
    }
    /// What an overlay needs to run on `image` with its writable layer in `dir` (`dir/upper`, `dir/work`, `dir/merged`
    /// are made).
    pub fn overlay(&self, _image: &Image, _dir: &Path, _volatile: bool) -> Result<Overlay> {
        todo!()
    }
}
