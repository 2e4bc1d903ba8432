//! Writes an image archive that every engine loads: an OCI layout (for Podman, containerd, skopeo, newer Docker) that
//! is a docker-archive, too (`manifest.json`, `repositories`: for older Docker), over the same blobs.

use super::{
    Document, digest,
    index::json,
    name::{Name, digest_hex},
    oci::{self, Archived, Descriptor, Index, Manifest},
    tar_read::BLOCK,
};
use crate::error::{Context, Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

/// An archive being written: for each image its layers, then [`Archive::image`]; at last [`Archive::finish`].
pub struct Archive<W> {
    out: W,
    written: BTreeSet<String>,
    manifests: Vec<Descriptor>,
    archived: Vec<Archived>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Result<Self> {
        let mut archive = Archive {
            out,
            written: BTreeSet::new(),
            manifests: Vec::new(),
            archived: Vec::new(),
            repositories: BTreeMap::new(),
        };
        archive.file(oci::LAYOUT_FILE, oci::LAYOUT.as_bytes())?;
        Ok(archive)
    }

    /// A layer's tar, not compressed, of `size` bytes, which `content` writes; nothing where it is there already.
    pub fn layer(&mut self, digest: &str, size: u64, content: impl FnOnce(&mut W) -> Result<()>) -> Result<()> {
        let path = blob(digest)?;
        if !self.written.insert(path.clone()) {
            return Ok(());
        }
        self.header(&path, size)?;
        content(&mut self.out)?;
        self.pad(size).doing("write the archive")
    }

    /// An image whose layers were written before; `config` and `manifest` are its documents' very bytes.
    pub fn image(&mut self, config: &[u8], manifest: &[u8], names: &BTreeSet<Name>) -> Result<()> {
        let document: Document = super::index::parse(config, "the image's configuration")?;
        let (id, manifest_digest) = (digest::of(config), digest::of(manifest));
        for (digest, content) in [(&id, config), (&manifest_digest, manifest)] {
            let path = blob(digest)?;
            if self.written.insert(path.clone()) {
                self.file(&path, content)?;
            }
        }
        let descriptor = Descriptor {
            media_type: oci::MANIFEST.into(),
            digest: manifest_digest,
            size: manifest.len() as u64,
            platform: Some(oci::Platform { architecture: document.architecture, os: document.os }),
            ..Descriptor::default()
        };
        if names.is_empty() {
            self.manifests.push(descriptor.clone());
        }
        let top = document.rootfs.diff_ids.last().unwrap_or(&id);
        for name in names {
            let tag = name.tag().unwrap_or("latest").to_owned();
            let annotations =
                [(oci::IMAGE_NAME.to_owned(), name.full()), (oci::REF_NAME.to_owned(), tag.clone())].into();
            self.manifests.push(Descriptor { annotations, ..descriptor.clone() });
            self.repositories.entry(name.repository()).or_default().insert(tag, digest_hex(top)?.to_owned());
        }
        self.archived.push(Archived {
            config: blob(&id)?,
            repo_tags: Some(names.iter().map(Name::tagged).collect()),
            layers: Some(document.rootfs.diff_ids.iter().map(|digest| blob(digest)).collect::<Result<_>>()?),
        });
        Ok(())
    }

    /// The indexes and the archive's end.
    pub fn finish(mut self) -> Result<()> {
        let manifests = std::mem::take(&mut self.manifests);
        let index = Index { schema_version: 2, media_type: oci::INDEX.into(), manifests };
        self.file("index.json", &json(&index)?)?;
        let archived = json(&self.archived)?;
        self.file("manifest.json", &archived)?;
        if !self.repositories.is_empty() {
            let repositories = json(&self.repositories)?;
            self.file("repositories", &repositories)?;
        }
        self.out.write_all(&[0; 2 * BLOCK]).and_then(|()| self.out.flush()).doing("write the archive's end")
    }

    fn header(&mut self, path: &str, size: u64) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).doing(format!("archive {path}"))?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).doing(format!("archive {path}"))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
        self.out.write_all(&[0; BLOCK][..padding])
    }

    fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.header(path, content.len() as u64)?;
        let written = self.out.write_all(content).and_then(|()| self.pad(content.len() as u64));
        written.doing(format!("archive {path}"))
    }
}

fn blob(digest: &str) -> Result<String> {
    Ok(format!("blobs/sha256/{}", digest_hex(digest)?))
}

/// The manifest of an image: its configuration, and its layers (digest and bytes of the plain tar), the lowest first.
pub fn manifest(config: &[u8], layers: &[(String, u64)]) -> Result<Vec<u8>> {
    let descriptor = |media_type: &str, digest: String, size: u64| Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        ..Descriptor::default()
    };
    let size = u64::try_from(config.len()).map_err(|error| Error::Failed(error.to_string()))?;
    json(&Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.into(),
        config: descriptor(oci::CONFIG, digest::of(config), size),
        layers: layers.iter().map(|(digest, size)| descriptor(oci::LAYER, digest.clone(), *size)).collect(),
    })
}
