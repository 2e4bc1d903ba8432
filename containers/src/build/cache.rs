//! What was built before: a digest of everything that goes into a step → the images that came out of it, the newest
//! first. Several, because a build without the cache makes one more, which may be removed before the others.
//!
//! One small JSON file below the data root. It is a cache: a damaged one is begun anew, and an entry counts only as long
//! as the store has its image.

use crate::error::{Context, Result};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Builds of one daemon run side by side: one at a time changes the file.
static WRITING: Mutex<()> = Mutex::new(());

/// Images that are kept in mind for one step.
const IMAGES_MAX: usize = 4;

/// The record of earlier builds.
pub struct Cache {
    file: PathBuf,
    known: BTreeMap<String, Vec<String>>,
}

impl Cache {
    /// Reads `folder/cache.json`.
    pub fn open(folder: &Path) -> Result<Cache> {
        fs::create_dir_all(folder).at("create", folder)?;
        let file = folder.join("cache.json");
        let known = read(&file)?;
        Ok(Cache { file, known })
    }

    /// The images that came out of a step, the newest first.
    pub fn get(&self, key: &str) -> &[String] {
        self.known.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// Notes what came out of a step. Images that `is_there` denies go.
    pub fn put(&mut self, key: &str, image: &str, is_there: impl Fn(&str) -> bool) -> Result<()> {
        let _lock = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        self.known = read(&self.file)?;
        self.known.retain(|_, images| {
            images.retain(|other| is_there(other));
            !images.is_empty()
        });
        let images = self.known.entry(key.to_owned()).or_default();
        images.retain(|other| other != image);
        images.insert(0, image.to_owned());
        images.truncate(IMAGES_MAX);
        let text = serde_json::to_vec_pretty(&self.known).map_err(std::io::Error::from).at("encode", &self.file)?;
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        let mut new = tempfile::NamedTempFile::new_in(folder).at("create a file in", folder)?;
        new.write_all(&text).at("write", &self.file)?;
        new.persist(&self.file).map_err(|error| error.error).at("write", &self.file)?;
        Ok(())
    }

    /// Forgets everything; how many entries there were.
    pub fn clear(&mut self) -> Result<usize> {
        let _lock = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.known.len();
        self.known.clear();
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", &self.file),
            _ => Ok(count),
        }
    }
}

fn read(file: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    match fs::read(file) {
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
            log::warn!("{}: begun anew, it is damaged: {error}", file.display());
            BTreeMap::new()
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).at("read", file),
    }
}

/// One digest of several parts; where a part ends counts.
pub fn key(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    crate::image::digest::hex(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_survives_and_forgets_images_that_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Cache::open(folder.path()).unwrap();
        let mut beside = Cache::open(folder.path()).unwrap();
        first.put("a", "one", |_| true).unwrap();
        beside.put("b", "two", |_| true).unwrap();
        let mut again = Cache::open(folder.path()).unwrap();
        assert_eq!((again.get("a"), again.get("b")), (&["one".to_owned()][..], &["two".to_owned()][..]));
        assert!(again.get("c").is_empty());
        again.put("b", "newer", |_| true).unwrap();
        assert_eq!(again.get("b"), ["newer", "two"]);
        again.put("c", "three", |image| image != "one" && image != "newer").unwrap();
        let again = Cache::open(folder.path()).unwrap();
        assert_eq!((again.get("a"), again.get("b")), (&[][..], &["two".to_owned()][..]));
        fs::write(folder.path().join("cache.json"), "{").unwrap();
        assert!(Cache::open(folder.path()).unwrap().get("b").is_empty());
    }

    #[test]
    fn where_parts_end_counts() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
    }
}
