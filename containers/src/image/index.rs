//! The store's list of images: `index.json` and the blobs that it names (manifests and configurations), an OCI layout.
//!
//! One difference from the letter of the layout: a layer's blob is not under `blobs/`, because the layer is kept
//! unpacked; a save makes it again, with the digest and the size that the manifest says.

use super::{
    Document,
    archive::manifest,
    digest,
    layers::{Layers, remove, write_file},
    name::{Name, digest_hex, is_digest},
    oci::{self, Descriptor, Index, Manifest},
};
use crate::error::{Context, Error, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The most bytes of a JSON document: a configuration of thousands of steps is below 1 MiB.
pub const DOCUMENT_MAX: u64 = 16 << 20;

/// What the index knows of an image.
#[derive(Debug, Clone)]
pub struct Record {
    pub document: Arc<Document>,
    pub manifest: Descriptor,
    pub parent: Option<String>,
    /// When it last got a name.
    pub tagged: Option<DateTime<Utc>>,
    /// Bytes of all layers.
    pub size: u64,
}

/// Images by id, and names (`repository:tag`) to ids.
pub struct Images {
    root: PathBuf,
    pub records: HashMap<String, Record>,
    pub names: BTreeMap<String, String>,
    /// Entries of `index.json` whose content is damaged: left out, and left on disk, where a person may repair them.
    pub damaged: Vec<Descriptor>,
}

impl Images {
    pub fn open(root: &Path, layers: &Layers) -> Result<Images> {
        let blobs = root.join("blobs/sha256");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&blobs).at("create", &blobs)?;
        let layout = root.join(oci::LAYOUT_FILE);
        if !layout.exists() {
            write_file(&layout, oci::LAYOUT.as_bytes())?;
        }
        let mut images =
            Images { root: root.to_owned(), records: HashMap::new(), names: BTreeMap::new(), damaged: Vec::new() };
        let path = root.join("index.json");
        if path.exists() {
            let index: Index = parse(&fs::read(&path).at("read", &path)?, &path.display().to_string())?;
            for descriptor in index.manifests {
                if let Err(error) = images.add(&descriptor, layers) {
                    log::error!("image {} is left out, it is damaged: {error}", descriptor.digest);
                    images.damaged.push(descriptor);
                }
            }
        }
        images.sweep_blobs()?;
        Ok(images)
    }

    fn add(&mut self, descriptor: &Descriptor, layers: &Layers) -> Result<()> {
        let manifest: Manifest = parse(&self.blob(&descriptor.digest)?, &descriptor.digest)?;
        let id = manifest.config.digest.clone();
        if !self.records.contains_key(&id) {
            let config = self.blob(&id)?;
            let document: Document = parse(&config, &id)?;
            let mut size = 0;
            for diff_id in &document.rootfs.diff_ids {
                let layer = layers.get(diff_id).ok_or_else(|| Error::Failed(format!("layer {diff_id} is missing")))?;
                size += layer.meta.bytes;
            }
            let note = |key: &str| descriptor.annotations.get(key);
            let record = Record {
                document: Arc::new(document),
                manifest: Descriptor { annotations: BTreeMap::new(), ..descriptor.clone() },
                parent: note(oci::PARENT).filter(|parent| is_digest(parent)).cloned(),
                tagged: note(oci::TAGGED).and_then(|time| time.parse().ok()),
                size,
            };
            self.records.insert(id.clone(), record);
        }
        if let Some(name) = descriptor.annotations.get(oci::IMAGE_NAME) {
            self.names.insert(Name::parse(name)?.tagged(), id);
        }
        Ok(())
    }

    /// A blob, its digest verified.
    pub fn blob(&self, digest: &str) -> Result<Vec<u8>> {
        let path = self.blob_path(digest)?;
        let content = fs::read(&path).at("read", &path)?;
        match digest::of(&content) == digest {
            true => Ok(content),
            false => {
                Err(Error::Failed(format!("{} is damaged: its digest is {}", path.display(), digest::of(&content))))
            }
        }
    }

    fn blob_path(&self, digest: &str) -> Result<PathBuf> {
        Ok(self.root.join("blobs/sha256").join(digest_hex(digest)?))
    }

    fn store_blob(&self, content: &[u8]) -> Result<String> {
        let digest = digest::of(content);
        let path = self.blob_path(&digest)?;
        if fs::read(&path).is_ok_and(|there| there == content) {
            return Ok(digest);
        }
        write_file(&path, content)?;
        Ok(digest)
    }

    /// Stores an image's documents and, with [`Images::save`], its record. `config`: the configuration's very bytes.
    pub fn insert(
        &mut self,
        config: &[u8],
        document: Document,
        layers: &[(String, u64)],
        size: u64,
        parent: Option<String>,
    ) -> Result<String> {
        let id = self.store_blob(config)?;
        if let Some(record) = self.records.get_mut(&id) {
            if parent.is_some() {
                record.parent = parent;
            }
            return Ok(id);
        }
        let content = manifest(config, layers)?;
        let digest = self.store_blob(&content)?;
        // What was damaged came again.
        self.damaged.retain(|damaged| damaged.digest != digest);
        let platform = oci::Platform { architecture: document.architecture.clone(), os: document.os.clone() };
        let manifest = Descriptor {
            media_type: oci::MANIFEST.into(),
            digest,
            size: content.len() as u64,
            platform: Some(platform),
            ..Descriptor::default()
        };
        let record = Record { document: Arc::new(document), manifest, parent, tagged: None, size };
        self.records.insert(id.clone(), record);
        Ok(id)
    }

    /// Writes `index.json`: from then on a change counts.
    pub fn save(&self) -> Result<()> {
        let mut manifests = Vec::new();
        let named: HashSet<&String> = self.names.values().collect();
        let mut ids: Vec<&String> = self.records.keys().filter(|id| !named.contains(id)).collect();
        ids.sort_unstable();
        let entries = self.names.iter().map(|(name, id)| (Some(name), id)).chain(ids.into_iter().map(|id| (None, id)));
        for (name, id) in entries {
            let Some(record) = self.records.get(id) else { continue };
            let mut descriptor = record.manifest.clone();
            let notes = &mut descriptor.annotations;
            if let Some(parent) = &record.parent {
                notes.insert(oci::PARENT.into(), parent.clone());
            }
            if let Some(tagged) = &record.tagged {
                notes.insert(oci::TAGGED.into(), tagged.to_rfc3339_opts(SecondsFormat::Nanos, true));
            }
            if let Some(name) = name {
                let name = Name::parse(name)?;
                notes.insert(oci::IMAGE_NAME.into(), name.full());
                notes.insert(oci::REF_NAME.into(), name.tag().unwrap_or("latest").to_owned());
            }
            manifests.push(descriptor);
        }
        manifests.extend(self.damaged.iter().cloned());
        let index = Index { schema_version: 2, media_type: oci::INDEX.into(), manifests };
        write_file(&self.root.join("index.json"), &json(&index)?)
    }

    /// Whether any image has this layer.
    pub fn uses_layer(&self, diff_id: &str) -> bool {
        self.records.values().any(|record| record.document.rootfs.diff_ids.iter().any(|used| used == diff_id))
    }

    /// Removes blobs that no image needs: left behind by an interrupted write or removal.
    pub fn sweep_blobs(&self) -> Result<()> {
        if !self.damaged.is_empty() {
            return Ok(());
        }
        let mut needed: HashSet<&str> = HashSet::new();
        for (id, record) in &self.records {
            needed.extend([id.as_str(), record.manifest.digest.as_str()]);
        }
        let folder = self.root.join("blobs/sha256");
        for entry in fs::read_dir(&folder).at("list", &folder)? {
            let path = entry.at("list", &folder)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !needed.contains(format!("sha256:{name}").as_str()) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Parses a JSON document; `what` names it in the error.
pub fn parse<T: serde::de::DeserializeOwned>(content: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(content).map_err(|error| Error::invalid(format!("{what} is not valid: {error}")))
}

/// A JSON document with its keys sorted: the same content gives the same digest.
pub fn json(document: &impl serde::Serialize) -> Result<Vec<u8>> {
    let sorted = serde_json::to_value(document).map(sort);
    sorted.and_then(|value| serde_json::to_vec(&value)).map_err(|error| Error::Failed(format!("write JSON: {error}")))
}

fn sort(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<String, Value> = map.into_iter().map(|(key, value)| (key, sort(value))).collect();
            Value::Object(sorted.into_iter().collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sort).collect()),
        other => other,
    }
}
