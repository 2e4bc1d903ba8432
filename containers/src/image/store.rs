//! The store as the engine sees it: images by name and id, and the folders to run them from.

use super::{
    Document, History, Image, RootFs, architecture, compression,
    index::{Images, json},
    layers::{Layer, Layers, commit_draft, make_root, unpack_draft},
    name::{Name, is_digest},
};
use crate::{
    error::{Context, Error, Result},
    shim::Overlay,
};
use bollard_stubs::models;
use chrono::Utc;
use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::Read,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

/// The store: `DATA_ROOT/image`. Every method may be called from any thread.
pub struct Store {
    root: PathBuf,
    state: Mutex<State>,
    /// Locked as long as the store is open: a second daemon would undo this one's work.
    _lock: File,
}

/// What the lock guards.
pub(super) struct State {
    pub(super) layers: Layers,
    pub(super) images: Images,
}

impl Store {
    /// Opens or creates the store and removes what an interrupted write left behind.
    pub fn open(root: &Path) -> Result<Store> {
        DirBuilder::new().recursive(true).mode(0o700).create(root).at("create", root)?;
        let root = root.canonicalize().at("look at", root)?;
        let path = root.join("lock");
        let lock = File::options().create(true).append(true).open(&path).at("open", &path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Conflict(format!(
                    "the image store {} is in use by another daemon: stop it, or give this one another --data-root",
                    root.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(error).at("lock", &path),
        }
        let empty = root.join("empty");
        make_root(&empty)?;
        let mut layers = Layers::open(&root)?;
        let images = Images::open(&root, &layers)?;
        if images.damaged.is_empty() {
            let all: Vec<String> = layers.all().map(|layer| layer.meta.diff_id.clone()).collect();
            discard(&layers.take(all, |diff_id| images.uses_layer(diff_id))?);
        }
        Ok(Store { root, state: Mutex::new(State { layers, images }), _lock: lock })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// By `name[:tag]`, `name@digest`, id or unique prefix of an id. NotFound { kind: "image" } otherwise.
    pub fn get(&self, reference: &str) -> Result<Image> {
        let state = self.state();
        state.image(&state.resolve(reference)?)
    }

    /// An image with the bytes of its configuration and of its manifest.
    pub(super) fn documents(&self, reference: &str) -> Result<(Image, Vec<u8>, Vec<u8>)> {
        let state = self.state();
        let image = state.image(&state.resolve(reference)?)?;
        let (config, manifest) = (state.images.blob(&image.id)?, state.images.blob(&image.manifest_digest)?);
        Ok((image, config, manifest))
    }

    /// Every image, the newest first; the steps of builds, which have no name but a child, among them.
    pub fn list(&self) -> Result<Vec<Image>> {
        let state = self.state();
        let mut images = state.images.records.keys().map(|id| state.image(id)).collect::<Result<Vec<Image>>>()?;
        images.sort_by(|a, b| b.document.created.cmp(&a.document.created).then_with(|| a.id.cmp(&b.id)));
        Ok(images)
    }

    /// Stores `document` (its layers must be there) and returns the image; the same document twice is one image.
    /// `parent`: the image it was built on, for the build cache.
    pub fn create(&self, document: &Document, parent: Option<&str>) -> Result<Image> {
        self.create_from(&json(document)?, document.clone(), parent)
    }

    /// The same, from the configuration's very bytes.
    pub(super) fn create_from(&self, config: &[u8], document: Document, parent: Option<&str>) -> Result<Image> {
        let mut state = self.state();
        let layers = state.layers_of(&document)?;
        let tars: Vec<(String, u64)> =
            layers.iter().map(|layer| (layer.meta.diff_id.clone(), layer.meta.tar_bytes)).collect();
        let size = layers.iter().map(|layer| layer.meta.bytes).sum();
        let id = state.images.insert(config, document, &tars, size, parent.map(str::to_owned))?;
        state.images.save()?;
        for layer in &layers {
            layer.fresh.store(false, Ordering::Relaxed);
        }
        state.image(&id)
    }

    /// Gives image `id` the name `reference` (moved there from the image that had it).
    pub fn tag(&self, id: &str, reference: &str) -> Result<()> {
        let name = Name::parse(reference)?;
        if name.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        let mut state = self.state();
        let id = state.resolve(id)?;
        if let Some(record) = state.images.records.get_mut(&id) {
            record.tagged = Some(Utc::now());
        }
        state.images.names.insert(name.tagged(), id);
        state.images.save()
    }

    /// The folders of an image's layers, the topmost first: an overlay's lowerdirs.
    pub fn lower(&self, image: &Image) -> Result<Vec<PathBuf>> {
        Ok(image.layers.iter().rev().map(|layer| layer.path()).collect())
    }

    /// An empty folder on the store's file system for an upper directory; see [`Store::commit`].
    pub fn scratch(&self) -> Result<tempfile::TempDir> {
        let tmp = self.tmp();
        tempfile::TempDir::with_prefix_in("scratch-", &tmp).at("create a folder in", &tmp)
    }

    /// Makes a layer of an overlay's upper directory by hashing it as a canonical tar and moving it into the store
    /// (never copied). Returns its diff_id, or None when it is empty. Must be on the store's file system.
    pub fn commit(&self, upper: &Path) -> Result<Option<String>> {
        let Some(draft) = commit_draft(&self.tmp(), upper)? else { return Ok(None) };
        Ok(Some(self.state().layers.adopt(draft)?.meta.diff_id.clone()))
    }

    /// Unpacks a layer's tar (plain or compressed) into the store; its diff_id.
    pub fn add_layer(&self, tar: impl Read + Send) -> Result<String> {
        let draft = unpack_draft(&self.tmp(), compression::decompress(tar)?)?;
        Ok(self.state().layers.adopt(draft)?.meta.diff_id.clone())
    }

    /// `docker import`: an image of one layer from a tar (plain or compressed). Does not tag.
    pub fn import(&self, archive: impl Read + Send, config: models::ImageConfig, message: &str) -> Result<Image> {
        let diff_id = self.add_layer(archive)?;
        let now = Utc::now();
        let document = Document {
            created: Some(now),
            author: None,
            architecture: architecture().into(),
            os: "linux".into(),
            config,
            rootfs: RootFs { kind: "layers".into(), diff_ids: vec![diff_id] },
            history: vec![History {
                created: Some(now),
                comment: Some(message.to_owned()).filter(|message| !message.is_empty()),
                ..History::default()
            }],
        };
        self.create(&document, None)
    }

    /// What an overlay needs to run on `image` with its writable layer in `dir` (`dir/upper`, `dir/work`, `dir/merged`
    /// are made).
    pub fn overlay(&self, image: &Image, dir: &Path, volatile: bool) -> Result<Overlay> {
        let (upper, work, merged) = (dir.join("upper"), dir.join("work"), dir.join("merged"));
        make_root(&upper)?;
        make_root(&merged)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&work).at("create", &work)?;
        let mut lower = self.lower(image)?;
        if lower.is_empty() {
            // An overlay has at least one lower folder; an image of scratch has none.
            lower.push(self.root.join("empty"));
        }
        Ok(Overlay { lower, upper, work, merged, volatile })
    }

    /// Bytes of all layers, shared ones once.
    pub fn layers_size(&self) -> u64 {
        self.state().layers.all().map(|layer| layer.meta.bytes).sum()
    }
}

impl State {
    /// The id that a reference means.
    pub(super) fn resolve(&self, reference: &str) -> Result<String> {
        let records = &self.images.records;
        if is_digest(reference) {
            if records.contains_key(reference) {
                return Ok(reference.to_owned());
            }
            let found = records.iter().find(|(_, record)| record.manifest.digest == reference);
            return found.map(|(id, _)| id.clone()).ok_or_else(|| Error::not_found("image", reference));
        }
        let name = Name::parse(reference);
        if let Ok(name) = &name {
            let found = match name.digest() {
                None => self.images.names.get(&name.tagged()),
                Some(digest) => self
                    .images
                    .names
                    .iter()
                    .filter(|(known, _)| Name::parse(known).is_ok_and(|known| known.repository() == name.repository()))
                    .map(|(_, id)| id)
                    .find(|id| {
                        *id == digest || records.get(*id).is_some_and(|record| record.manifest.digest == digest)
                    }),
            };
            if let Some(id) = found {
                return Ok(id.clone());
            }
        }
        if let Some(prefix) = id_prefix(reference) {
            let mut found = records.keys().filter(|id| id["sha256:".len()..].starts_with(prefix));
            match (found.next(), found.next()) {
                (Some(id), None) => return Ok(id.clone()),
                (Some(_), Some(_)) => {
                    return Err(Error::not_found("image", format!("{reference} (several ids begin with it)")));
                }
                _ => {}
            }
        }
        match name {
            Ok(name) => Err(Error::not_found("image", name.to_string())),
            Err(_) if id_prefix(reference).is_some() => Err(Error::not_found("image", reference)),
            Err(error) => Err(error),
        }
    }

    pub(super) fn tags_of(&self, id: &str) -> Vec<String> {
        self.images.names.iter().filter(|(_, of)| *of == id).map(|(name, _)| name.clone()).collect()
    }

    fn layers_of(&self, document: &Document) -> Result<Vec<Arc<Layer>>> {
        let layer = |diff_id: &String| {
            let missing = || Error::Failed(format!("layer {diff_id} is not in the store"));
            self.layers.get(diff_id).ok_or_else(missing)
        };
        document.rootfs.diff_ids.iter().map(layer).collect()
    }

    pub(super) fn image(&self, id: &str) -> Result<Image> {
        let record = self.images.records.get(id).ok_or_else(|| Error::not_found("image", id))?;
        Ok(Image {
            id: id.to_owned(),
            tags: self.tags_of(id),
            size: record.size,
            parent: record.parent.clone(),
            tagged: record.tagged,
            manifest_digest: record.manifest.digest.clone(),
            layers: self.layers_of(&record.document)?,
            document: Document::clone(&record.document),
        })
    }
}

/// The digits of what may be an id or the beginning of one.
pub(super) fn id_prefix(reference: &str) -> Option<&str> {
    let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    ((1..=64).contains(&digits.len()) && digits.bytes().all(hex)).then_some(digits)
}

/// Removes folders that were taken out of the store; what can't be removed now goes at the next start.
pub(super) fn discard(folders: &[PathBuf]) {
    for folder in folders {
        if let Err(error) = fs::remove_dir_all(folder) {
            log::warn!("remove {}: {error}; the next start does it", folder.display());
        }
    }
}
