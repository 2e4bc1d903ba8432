//! Images: a content store in the OCI layout, layers as overlayfs folders, and the archives that carry them.
//!
//! Blocking: callers on the runtime use `spawn_blocking`.

pub mod archive;
pub mod compression;
pub mod digest;
#[cfg(test)]
mod hostile_tests;
pub mod index;
pub mod layers;
mod load;
pub mod name;
pub mod oci;
pub mod pack;
mod recipe;
pub mod registry;
mod remove;
pub mod rooted;
mod save;
mod store;
pub mod tar_read;
#[cfg(test)]
mod tests;
pub mod unpack;

pub use remove::InUse;
pub use store::Store;

use bollard_stubs::models;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::Arc;

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
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: models::ImageConfig,
    pub rootfs: RootFs,
    #[serde(default, deserialize_with = "null_is_default")]
    pub history: Vec<History>,
}

/// The layers of an image, the lowest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    /// `sha256:…` of each layer's uncompressed tar.
    #[serde(default, deserialize_with = "null_is_default")]
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

/// An image in the store. As long as the value lives, the layers stay on disk, even when the image is removed.
#[derive(Debug, Clone)]
pub struct Image {
    /// `sha256:…`
    pub id: String,
    pub document: Document,
    /// `name:tag`, familiar form (`nginx:1.0`, not `docker.io/library/nginx:1.0`).
    pub tags: Vec<String>,
    /// Bytes of all layers, unpacked.
    pub size: u64,
    /// The image that it was built on, if it was built here.
    pub parent: Option<String>,
    /// When it last got a name.
    pub tagged: Option<DateTime<Utc>>,
    /// Of its OCI manifest.
    pub manifest_digest: String,
    layers: Vec<Arc<layers::Layer>>,
}

impl Image {
    /// Bytes of each layer, the lowest first.
    pub fn layer_sizes(&self) -> Vec<u64> {
        self.layers.iter().map(|layer| layer.meta.bytes).collect()
    }

    /// Bytes of the layers that `is_shared` says other images have, too.
    pub fn shared_size(&self, is_shared: impl Fn(&str) -> bool) -> u64 {
        self.layers.iter().map(|layer| &layer.meta).filter(|it| is_shared(&it.diff_id)).map(|it| it.bytes).sum()
    }
}

/// This machine's architecture, as Go and OCI call it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Go writes an absent list or object as null.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
