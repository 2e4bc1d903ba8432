//! Layers on disk: `layers/HEX/` (HEX: of the diff_id) with `diff` (the files, overlayfs's whiteouts), `layer.json`,
//! and for a layer that came from elsewhere the recipe of its tar. `l/NAME` is a short link to the `diff`, so that an
//! overlay of many layers stays below the page that mount(2) takes.

use super::{
    digest::{Digesting, hex},
    name::digest_hex,
    pack::pack,
    recipe,
    unpack::{Options, Whiteouts, unpack},
};
use crate::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

const META: &str = "layer.json";

/// What `layer.json` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Meta {
    pub diff_id: String,
    /// Name in `l/`.
    pub link: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of the tar.
    pub tar_bytes: u64,
    /// The kernel's boot in which it was written, as long as nobody knows that the files are on the disk: they are
    /// written without fsync. After another boot the layer is verified once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

/// A layer of the store. Its folder stays as long as anybody holds it.
#[derive(Debug)]
pub struct Layer {
    pub meta: Meta,
    folder: PathBuf,
    short: PathBuf,
    /// Made, and not yet part of an image.
    pub fresh: AtomicBool,
}

impl Layer {
    /// The layer's files, by the short path.
    pub fn path(&self) -> PathBuf {
        self.short.clone()
    }

    /// Writes the layer's tar. An error when it is not, byte for byte, what the diff_id says (the store was damaged).
    pub fn write(&self, out: impl Write) -> Result<()> {
        let mut out = Digesting::new(out);
        match self.folder.join(recipe::FILE).exists() {
            true => recipe::replay(&self.folder, &mut out)?,
            false => drop(pack(&self.folder.join("diff"), &mut out)?),
        }
        let (_, digest, _) = out.finish();
        match digest == self.meta.diff_id {
            true => Ok(()),
            false => Err(Error::Failed(format!(
                "layer {} is damaged: the files in {} have the digest {digest}; remove the images that use it and load or build them again",
                self.meta.diff_id,
                self.folder.display()
            ))),
        }
    }
}

/// An unpacked layer that is not part of the store yet: dropped, it is gone.
pub struct Draft {
    folder: tempfile::TempDir,
    pub diff_id: String,
    bytes: u64,
    tar_bytes: u64,
}

#[cfg(test)]
impl Draft {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Every layer of the store.
pub struct Layers {
    root: PathBuf,
    known: BTreeMap<String, Arc<Layer>>,
    /// Layers of removed images that somebody still held: tried again with the next removal.
    condemned: BTreeSet<String>,
}

impl Layers {
    /// Reads the layers that are there; what was half made or half removed goes.
    pub fn open(root: &Path) -> Result<Layers> {
        let mut layers = Layers { root: root.to_owned(), known: BTreeMap::new(), condemned: BTreeSet::new() };
        for folder in [layers.root.join("layers"), layers.root.join("l"), layers.root.join("tmp")] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).at("create", &folder)?;
        }
        let tmp = layers.tmp();
        for left in fs::read_dir(&tmp).at("list", &tmp)? {
            remove(&left.at("list", &tmp)?.path())?;
        }
        let folder = layers.root.join("layers");
        let boot = boot();
        for entry in fs::read_dir(&folder).at("list", &folder)? {
            let path = entry.at("list", &folder)?.path();
            match read_meta(&path) {
                Ok(meta) => drop(layers.insert(meta)),
                Err(error) => {
                    log::warn!("layer {} is removed, it is incomplete: {error}", path.display());
                    remove(&path)?;
                }
            }
        }
        let unsure = |layer: &&Arc<Layer>| layer.meta.boot.is_some() && layer.meta.boot != boot;
        let unsure: Vec<Arc<Layer>> = layers.known.values().filter(unsure).cloned().collect();
        for layer in unsure {
            layers.verify(&layer)?;
        }
        let links = layers.root.join("l");
        for entry in fs::read_dir(&links).at("list", &links)? {
            let path = entry.at("list", &links)?.path();
            if !path.exists() {
                fs::remove_file(&path).at("remove", &path)?;
            }
        }
        for layer in layers.known.values() {
            make_link(layer)?;
        }
        Ok(layers)
    }

    /// Sees whether a layer reached the disk before the machine went down; one that did not is removed.
    fn verify(&mut self, layer: &Layer) -> Result<()> {
        match layer.write(io::sink()) {
            Ok(()) => {
                let meta = Meta { boot: None, ..layer.meta.clone() };
                write_file(&layer.folder.join(META), &meta_text(&meta)?)?;
                self.insert(meta);
            }
            Err(error) => {
                log::error!("{error}");
                self.known.remove(&layer.meta.diff_id);
                remove(&layer.folder)?;
            }
        }
        Ok(())
    }

    /// Where unfinished things lie.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub fn get(&self, diff_id: &str) -> Option<Arc<Layer>> {
        self.known.get(diff_id).cloned()
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Layer>> {
        self.known.values()
    }

    fn insert(&mut self, meta: Meta) -> Arc<Layer> {
        let hex = meta.diff_id.trim_start_matches("sha256:").to_owned();
        let layer = Arc::new(Layer {
            folder: self.root.join("layers").join(hex),
            short: self.root.join("l").join(&meta.link),
            fresh: AtomicBool::new(false),
            meta,
        });
        self.known.insert(layer.meta.diff_id.clone(), layer.clone());
        layer
    }

    /// Takes a draft into the store; the layer that is there already where it is the same one.
    pub fn adopt(&mut self, draft: Draft) -> Result<Arc<Layer>> {
        if let Some(layer) = self.get(&draft.diff_id) {
            layer.fresh.store(true, Ordering::Relaxed);
            return Ok(layer);
        }
        let link = self.free_link()?;
        let (bytes, tar_bytes) = (draft.bytes, draft.tar_bytes);
        let meta = Meta { diff_id: draft.diff_id, link, bytes, tar_bytes, boot: boot() };
        let made = draft.folder.path();
        // Without fsync, like the layer's files: see `boot`.
        let path = made.join(META);
        fs::write(&path, meta_text(&meta)?).at("write", &path)?;
        let folder = self.root.join("layers").join(digest_hex(&meta.diff_id)?);
        fs::rename(made, &folder).at("move a layer to", &folder)?;
        // The folder has another name now: nothing is left to remove.
        let _ = draft.folder.keep();
        let layer = self.insert(meta);
        make_link(&layer)?;
        layer.fresh.store(true, Ordering::Relaxed);
        Ok(layer)
    }

    /// A name in `l/` that no layer has: short, because every layer of an overlay costs so many bytes of one page.
    fn free_link(&self) -> Result<String> {
        loop {
            let mut random = [0; 4];
            getrandom::fill(&mut random).map_err(|error| Error::Failed(format!("get random bytes: {error}")))?;
            let link = hex(&random);
            if self.known.values().all(|layer| layer.meta.link != link) {
                return Ok(link);
            }
        }
    }

    /// Takes layers out of the store, those that nobody holds and `used` does not know; their folders, for the caller to
    /// remove without the lock. The others are tried again with the next call.
    pub fn take(
        &mut self,
        diff_ids: impl IntoIterator<Item = String>,
        used: impl Fn(&str) -> bool,
    ) -> Result<Vec<PathBuf>> {
        self.condemned.extend(diff_ids);
        let mut taken = Vec::new();
        for diff_id in std::mem::take(&mut self.condemned) {
            let Some(layer) = self.known.get(&diff_id) else { continue };
            if used(&diff_id) || layer.fresh.load(Ordering::Relaxed) {
                continue;
            }
            if Arc::strong_count(layer) > 1 {
                self.condemned.insert(diff_id);
                continue;
            }
            let aside = self.tmp().join(format!("removed-{}", layer.meta.link));
            fs::rename(&layer.folder, &aside).at("remove", &layer.folder)?;
            let _ = fs::remove_file(&layer.short);
            self.known.remove(&diff_id);
            taken.push(aside);
        }
        Ok(taken)
    }
}

/// Unpacks a layer's tar (plain) into a draft below `tmp`.
pub fn unpack_draft(tmp: &Path, tar: impl Read) -> Result<Draft> {
    let folder = tempfile::TempDir::with_prefix_in("layer-", tmp).at("create a folder in", tmp)?;
    let diff = folder.path().join("diff");
    make_root(&diff)?;
    let mut recipe = recipe::Writer::create(folder.path())?;
    let mut tar = Digesting::new(tar);
    let bytes = unpack(&mut tar, &diff, Options { whiteouts: Whiteouts::Overlay, owner: None }, Some(&mut recipe))?;
    recipe.finish().at("write the recipe in", folder.path())?;
    let (_, diff_id, tar_bytes) = tar.finish();
    Ok(Draft { folder, diff_id, bytes, tar_bytes })
}

/// Makes a draft of an upper directory, which moves into it; None (and it stays) where it is empty.
pub fn commit_draft(tmp: &Path, upper: &Path) -> Result<Option<Draft>> {
    let mut tar = Digesting::new(io::sink());
    let packed = pack(upper, &mut tar)?;
    if packed.entries == 0 {
        return Ok(None);
    }
    let (_, diff_id, tar_bytes) = tar.finish();
    let folder = tempfile::TempDir::with_prefix_in("layer-", tmp).at("create a folder in", tmp)?;
    fs::rename(upper, folder.path().join("diff")).at("move into the store", upper)?;
    Ok(Some(Draft { folder, diff_id, bytes: packed.bytes, tar_bytes }))
}

/// A folder that can be the root of a container's file system: 0755, whatever the umask.
pub fn make_root(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).at("create", path),
        _ => {}
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).at("set the mode of", path)
}

fn read_meta(folder: &Path) -> Result<Meta> {
    let path = folder.join(META);
    let text = fs::read(&path).at("read", &path)?;
    let meta: Meta =
        serde_json::from_slice(&text).map_err(|error| Error::Failed(format!("{}: {error}", path.display())))?;
    let named = folder.file_name().and_then(|name| name.to_str());
    let link_is_plain = !meta.link.is_empty() && meta.link.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match named == Some(digest_hex(&meta.diff_id)?) && link_is_plain && folder.join("diff").is_dir() {
        true => Ok(meta),
        false => Err(Error::Failed(format!("{} does not describe its folder", path.display()))),
    }
}

fn meta_text(meta: &Meta) -> Result<Vec<u8>> {
    serde_json::to_vec(meta).map_err(|error| Error::Failed(format!("write JSON: {error}")))
}

/// The kernel's name for the time since the machine started (random(4)).
fn boot() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

fn make_link(layer: &Layer) -> Result<()> {
    let target = Path::new("../layers").join(layer.folder.file_name().unwrap_or_default()).join("diff");
    match std::os::unix::fs::symlink(target, &layer.short) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).at("create", &layer.short),
        _ => Ok(()),
    }
}

/// Writes a file whole or not at all: a temporary one beside it, fsync, rename.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::with_prefix_in(".new-", folder).at("create a file in", folder)?;
    file.write_all(content).at("write", path)?;
    file.as_file().sync_all().at("write", path)?;
    file.persist(path).map_err(|error| error.error).at("write", path)?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> Result<()> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).at("sync", folder)
}

/// Removes a file or a folder with all that is in it.
pub fn remove(path: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(path).at("look at", path)?;
    if meta.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.at("remove", path)
}
