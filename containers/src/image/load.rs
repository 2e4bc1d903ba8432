//! `docker load`: an archive in Docker's format or an OCI layout, plain or compressed, read once from its beginning to
//! its end. Layers are unpacked as they pass, before it is known whose they are (a docker-archive's manifest comes
//! last); what no image claims, or does not have the digest that it should have, is thrown away.

use super::{
    Document, Image,
    compression::{Format, decompress, format_of},
    digest::{self, Digesting},
    index::{DOCUMENT_MAX, parse},
    layers::{Draft, Layer, unpack_draft},
    name::{Name, digest_hex, is_digest},
    oci::{self, Archived, Descriptor, Index, Manifest},
    rooted::{clean, split},
    store::Store,
    tar_read::{BLOCK, Kind, Reader, is_header, show},
};
use crate::error::{Context, Error, Result};
use std::{
    collections::HashMap,
    io::{self, Read},
    sync::Arc,
};

/// The most bytes of documents in one archive.
const DOCUMENTS_MAX: usize = 256 << 20;
/// How deep an index may lie in an index, and a link lead to a link.
const DEPTH_MAX: usize = 8;

/// A layer that was found in an archive.
struct Found {
    /// Of the blob, as compressed as it came.
    digest: String,
    size: u64,
    diff_id: String,
    /// Taken out when the first image claims it.
    draft: Option<Draft>,
    layer: Option<Arc<Layer>>,
}

/// A layer from a registry, its digest verified; not part of the store yet.
pub(super) struct Received(Found);

/// What an archive holds, by path.
#[derive(Default)]
struct Contents {
    layers: HashMap<Vec<u8>, Found>,
    documents: HashMap<Vec<u8>, Vec<u8>>,
    links: HashMap<Vec<u8>, Vec<u8>>,
}

impl Store {
    /// `docker load`: OCI layout or docker-archive, plain or compressed; every digest verified. The images' references
    /// (or ids where they have none); `progress` is told what Docker's clients show.
    pub fn load(&self, archive: impl Read + Send, mut progress: impl FnMut(&str)) -> Result<Vec<String>> {
        let mut contents = self.read_archive(decompress(archive)?)?;
        let mut loaded = Vec::new();
        if let Some(text) = contents.document(b"manifest.json") {
            let images: Vec<Archived> = parse(text, "manifest.json")?;
            for image in images {
                let config = contents.need(image.config.as_bytes())?.to_vec();
                named_after(&image.config, &digest::of(&config))?;
                let id = self.adopt_image(&mut contents, &config, &image.layers.unwrap_or_default())?;
                self.name_loaded(&id, &image.repo_tags.unwrap_or_default(), &mut loaded, &mut progress)?;
            }
        } else if let Some(text) = contents.document(b"index.json") {
            let index: Index = parse(text, "index.json")?;
            let mut images = Vec::new();
            for descriptor in &index.manifests {
                collect(&contents, descriptor, true, DEPTH_MAX, &mut images)?;
            }
            for (manifest, name) in images {
                let config = contents.blob(&manifest.config)?.to_vec();
                let mut paths = Vec::new();
                for layer in &manifest.layers {
                    let path = blob_path(&layer.digest)?;
                    let found = contents.layer(path.as_bytes())?;
                    if (&found.digest, found.size) != (&layer.digest, layer.size) {
                        return Err(mismatch(&path, &layer.digest, &found.digest));
                    }
                    paths.push(path);
                }
                let id = self.adopt_image(&mut contents, &config, &paths)?;
                let names: Vec<String> = name.into_iter().collect();
                self.name_loaded(&id, &names, &mut loaded, &mut progress)?;
            }
        } else {
            return Err(Error::invalid(
                "the archive is no image: it has neither a manifest.json (docker save) nor an index.json (OCI layout); a plain file system is loaded with import",
            ));
        }
        match loaded.is_empty() {
            true => Err(Error::invalid("the archive holds no image for this machine")),
            false => Ok(loaded),
        }
    }

    fn read_archive(&self, archive: impl Read + Send) -> Result<Contents> {
        let mut reader = Reader::new(archive, false);
        let mut contents = Contents::default();
        let mut documents = 0;
        loop {
            let entry = match reader.entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(Error::invalid(error)),
                Err(error) => return Err(error).doing("read the archive"),
            };
            let leads_out = || Error::invalid(format!("{} leads out of the archive", show(&entry.path)));
            let path = clean(&entry.path).ok_or_else(leads_out)?;
            match entry.kind {
                Kind::File => {}
                Kind::Symlink => {
                    let target = [split(&path).0, b"/", &entry.link].concat();
                    contents.links.insert(path, clean(&target).ok_or_else(leads_out)?);
                    continue;
                }
                Kind::HardLink => {
                    contents.links.insert(path, clean(&entry.link).ok_or_else(leads_out)?);
                    continue;
                }
                _ => continue,
            }
            let mut start = Vec::with_capacity(BLOCK);
            let doing = || format!("load {}", show(&path));
            reader.by_ref().take(BLOCK as u64).read_to_end(&mut start).map_err(|error| told(doing(), error))?;
            if is_header(&start) || format_of(&start) != Format::Plain {
                let found =
                    self.read_layer(&path, io::Cursor::new(start).chain(&mut reader)).map_err(|error| match error {
                        Error::Invalid(text) => Error::Invalid(format!("{}: {text}", doing())),
                        other => other,
                    })?;
                contents.layers.insert(path, found);
                continue;
            }
            documents += entry.size as usize;
            if entry.size > DOCUMENT_MAX || documents > DOCUMENTS_MAX {
                return Err(Error::invalid(format!(
                    "{}: {} bytes are neither a layer nor a document",
                    doing(),
                    entry.size
                )));
            }
            reader.read_to_end(&mut start).map_err(|error| told(doing(), error))?;
            contents.documents.insert(path, start);
        }
        Ok(contents)
    }

    /// Unpacks a layer that passes by; one that is there already is only verified.
    fn read_layer(&self, path: &[u8], blob: impl Read + Send) -> Result<Found> {
        let mut blob = Digesting::new(blob);
        let known = std::str::from_utf8(split(path).1).ok().map(|name| format!("sha256:{name}"));
        let layer = known.filter(|digest| is_digest(digest)).and_then(|digest| self.state().layers.get(&digest));
        let (diff_id, draft) = match &layer {
            Some(layer) => (layer.meta.diff_id.clone(), None),
            None => {
                let draft = unpack_draft(&self.tmp(), decompress(&mut blob)?)?;
                (draft.diff_id.clone(), Some(draft))
            }
        };
        io::copy(&mut blob, &mut io::sink()).map_err(|error| told(format!("load {}", show(path)), error))?;
        let (_, digest, size) = blob.finish();
        if let Some(layer) = &layer
            && digest != layer.meta.diff_id
        {
            return Err(mismatch(&show(path), &layer.meta.diff_id, &digest));
        }
        Ok(Found { digest, size, diff_id, draft, layer })
    }

    /// Takes an image's layers and its configuration into the store; its id.
    fn adopt_image(&self, contents: &mut Contents, config: &[u8], layers: &[String]) -> Result<String> {
        let document: Document = parse(config, "the image's configuration")?;
        let diff_ids = &document.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            return Err(Error::invalid(format!(
                "the image's configuration speaks of {} layers, its manifest of {}",
                diff_ids.len(),
                layers.len()
            )));
        }
        // First all is verified: nothing of a damaged image comes into the store.
        for (path, diff_id) in layers.iter().zip(diff_ids) {
            let found = contents.layer(path.as_bytes())?;
            if path.starts_with("blobs/") {
                named_after(path, &found.digest)?;
            }
            if found.diff_id != *diff_id {
                return Err(mismatch(path, diff_id, &found.diff_id));
            }
        }
        // Held until the image is in the index: no removal in between may take one away.
        let mut held = Vec::new();
        for path in layers {
            let found = contents.layer_mut(path.as_bytes())?;
            if let Some(draft) = found.draft.take() {
                found.layer = Some(self.state().layers.adopt(draft)?);
            }
            held.extend(found.layer.clone());
        }
        Ok(self.create_from(config, document, None)?.id)
    }

    /// A layer's blob from a registry.
    pub(super) fn receive_layer(&self, digest: &str, blob: impl Read + Send) -> Result<Received> {
        let found = self.read_layer(digest_hex(digest)?.as_bytes(), blob)?;
        match found.digest == digest {
            true => Ok(Received(found)),
            false => Err(mismatch("a layer from the registry", digest, &found.digest)),
        }
    }

    /// Takes an image from a registry into the store.
    pub(super) fn adopt_received(&self, config: &[u8], layers: Vec<Received>) -> Result<Image> {
        let mut contents = Contents::default();
        let mut paths = Vec::new();
        for (number, Received(found)) in layers.into_iter().enumerate() {
            // The same blob may be there twice; each has a name of its own.
            contents.layers.insert(number.to_string().into_bytes(), found);
            paths.push(number.to_string());
        }
        self.get(&self.adopt_image(&mut contents, config, &paths)?)
    }

    fn name_loaded(
        &self,
        id: &str,
        names: &[String],
        loaded: &mut Vec<String>,
        progress: &mut impl FnMut(&str),
    ) -> Result<()> {
        if names.is_empty() {
            progress(&format!("Loaded image ID: {id}\n"));
            loaded.push(id.to_owned());
        }
        for name in names {
            let name = Name::parse(name)?.tagged();
            if let Ok(old) = self.get(&name)
                && old.id != id
            {
                progress(&format!(
                    "The image {name} already exists, renaming the old one with ID {} to empty string\n",
                    old.id
                ));
            }
            self.tag(id, &name)?;
            progress(&format!("Loaded image: {name}\n"));
            loaded.push(name);
        }
        Ok(())
    }
}

impl Contents {
    /// Where a path leads, links followed.
    fn follow(&self, path: &[u8]) -> Vec<u8> {
        let mut path = clean(path).unwrap_or_default();
        for _ in 0..DEPTH_MAX {
            match self.links.get(&path) {
                Some(target) => path.clone_from(target),
                None => break,
            }
        }
        path
    }

    fn document(&self, path: &[u8]) -> Option<&[u8]> {
        self.documents.get(&self.follow(path)).map(Vec::as_slice)
    }

    fn need(&self, path: &[u8]) -> Result<&[u8]> {
        self.document(path).ok_or_else(|| missing(path))
    }

    fn layer(&self, path: &[u8]) -> Result<&Found> {
        self.layers.get(&self.follow(path)).ok_or_else(|| missing(path))
    }

    fn layer_mut(&mut self, path: &[u8]) -> Result<&mut Found> {
        let path = self.follow(path);
        self.layers.get_mut(&path).ok_or_else(|| missing(&path))
    }

    /// A document by its descriptor, digest and size verified.
    fn blob(&self, descriptor: &Descriptor) -> Result<&[u8]> {
        let path = blob_path(&descriptor.digest)?;
        let content = self.need(path.as_bytes())?;
        let digest = digest::of(content);
        match digest == descriptor.digest && content.len() as u64 == descriptor.size {
            true => Ok(content),
            false => Err(mismatch(&path, &descriptor.digest, &digest)),
        }
    }
}

/// The images that a descriptor of an index leads to, with their names. `top`: of the archive's own index, where each
/// entry is an image; inside another one, entries are the same image for several platforms.
fn collect(
    contents: &Contents,
    descriptor: &Descriptor,
    top: bool,
    depth: usize,
    images: &mut Vec<(Manifest, Option<String>)>,
) -> Result<()> {
    if depth == 0 {
        return Err(Error::invalid("the archive's index is nested too deeply"));
    }
    let text = contents.blob(descriptor)?;
    let nested = [oci::INDEX, oci::DOCKER_INDEX].contains(&descriptor.media_type.as_str());
    if !nested {
        let manifest: Manifest = parse(text, &descriptor.digest)?;
        images.push((manifest, if top { name_of(descriptor) } else { None }));
        return Ok(());
    }
    let index: Index = parse(text, &descriptor.digest)?;
    let fits = |inner: &&Descriptor| {
        inner.platform.as_ref().is_none_or(|it| it.os == "linux" && it.architecture == super::architecture())
    };
    // A save of one platform keeps the whole index, but only that platform's blobs.
    let there =
        |inner: &&Descriptor| blob_path(&inner.digest).is_ok_and(|path| contents.document(path.as_bytes()).is_some());
    if let Some(inner) = index.manifests.iter().filter(fits).find(there) {
        let first = images.len();
        collect(contents, inner, false, depth - 1, images)?;
        if let Some((_, name)) = images.get_mut(first).filter(|_| top) {
            *name = name_of(descriptor);
        }
    }
    Ok(())
}

/// The name that an index gives an image: containerd's annotation, else OCI's where it is more than a tag.
fn name_of(descriptor: &Descriptor) -> Option<String> {
    let note = |key: &str| descriptor.annotations.get(key);
    note(oci::IMAGE_NAME).or(note(oci::REF_NAME).filter(|name| name.contains([':', '/']))).cloned()
}

fn blob_path(digest: &str) -> Result<String> {
    Ok(format!("blobs/sha256/{}", digest_hex(digest)?))
}

/// A file that is named by a digest must have it.
fn named_after(path: &str, digest: &str) -> Result<()> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let told = format!("sha256:{}", name.strip_suffix(".json").unwrap_or(name));
    match is_digest(&told) && told != digest {
        true => Err(mismatch(path, &told, digest)),
        false => Ok(()),
    }
}

fn mismatch(what: &str, told: &str, real: &str) -> Error {
    Error::invalid(format!("{what} is damaged: its digest should be {told} and is {real}"))
}

fn missing(path: &[u8]) -> Error {
    Error::invalid(format!("the archive is incomplete: {} is not in it", show(path)))
}

/// A fault of the archive is the sender's.
fn told(doing: String, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData => Error::invalid(format!("{doing}: {error}")),
        _ => Error::Io { doing, source: error },
    }
}
