//! `docker save`: one archive that is both an OCI layout (for Podman, containerd, skopeo, newer Docker) and a
//! docker-archive (`manifest.json`, `repositories`: for older Docker), over the same blobs.

use super::{
    Image,
    index::json,
    name::{Name, digest_hex},
    oci::{self, Archived, Descriptor, Index},
    store::Store,
    tar_read::BLOCK,
};
use crate::error::{Context, Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

/// An image to be saved, and the names that were asked for.
struct Wanted {
    image: Image,
    config: Vec<u8>,
    manifest: Vec<u8>,
    names: BTreeSet<Name>,
}

/// An archive that is ready to be written: everything is known to be there, and no layer of it can be removed.
pub struct Save {
    wanted: Vec<Wanted>,
}

impl Store {
    /// Prepares `docker save`: by a name, the image with that name; by a repository alone, all its tags; by an id,
    /// the image without a name.
    pub fn save(&self, references: &[String]) -> Result<Save> {
        let state = self.state();
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut add = |id: &str, name: Option<Name>| -> Result<()> {
            if !wanted.iter().any(|wanted| wanted.image.id == id) {
                let image = state.image(id)?;
                let (config, manifest) = (state.images.blob(id)?, state.images.blob(&image.manifest_digest)?);
                wanted.push(Wanted { image, config, manifest, names: BTreeSet::new() });
            }
            if let Some(wanted) = wanted.iter_mut().find(|wanted| wanted.image.id == id) {
                wanted.names.extend(name);
            }
            Ok(())
        };
        for reference in references {
            let parsed = Name::parse(reference).ok();
            let all: Vec<(Name, &String)> = match &parsed {
                Some(name) if name.tag().is_none() && name.digest().is_none() => state
                    .images
                    .names
                    .iter()
                    .filter_map(|(known, id)| Some((Name::parse(known).ok()?, id)))
                    .filter(|(known, _)| known.repository() == name.repository())
                    .collect(),
                _ => Vec::new(),
            };
            if all.is_empty() {
                let id = state.resolve(reference)?;
                let name = parsed.filter(|name| state.images.names.get(&name.tagged()) == Some(&id));
                add(&id, name)?;
            }
            for (name, id) in all {
                add(id, Some(name))?;
            }
        }
        if wanted.is_empty() {
            return Err(Error::invalid("no image is named: name at least one to save"));
        }
        Ok(Save { wanted })
    }
}

impl Save {
    /// Writes the archive (a plain tar). Layers are made again and verified while they are written.
    pub fn write(&self, mut out: impl Write) -> Result<()> {
        let out = &mut out;
        file(out, oci::LAYOUT_FILE, oci::LAYOUT.as_bytes())?;
        let mut written = BTreeSet::new();
        let (mut manifests, mut archived) = (Vec::new(), Vec::new());
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for Wanted { image, config, manifest, names } in &self.wanted {
            let mut layers = Vec::new();
            for layer in &image.layers {
                let path = blob(&layer.meta.diff_id)?;
                if written.insert(path.clone()) {
                    header(out, &path, layer.meta.tar_bytes)?;
                    layer.write(&mut *out)?;
                    pad(out, layer.meta.tar_bytes).doing("write the archive")?;
                }
                layers.push(path);
            }
            for (digest, content) in [(&image.id, config), (&image.manifest_digest, manifest)] {
                let path = blob(digest)?;
                if written.insert(path.clone()) {
                    file(out, &path, content)?;
                }
            }
            let platform =
                oci::Platform { architecture: image.document.architecture.clone(), os: image.document.os.clone() };
            let descriptor = Descriptor {
                media_type: oci::MANIFEST.into(),
                digest: image.manifest_digest.clone(),
                size: manifest.len() as u64,
                platform: Some(platform),
                ..Descriptor::default()
            };
            if names.is_empty() {
                manifests.push(descriptor.clone());
            }
            let top = image.layers.last().map(|layer| layer.meta.diff_id.as_str()).unwrap_or(&image.id);
            for name in names {
                let tag = name.tag().unwrap_or("latest").to_owned();
                let annotations =
                    [(oci::IMAGE_NAME.to_owned(), name.full()), (oci::REF_NAME.to_owned(), tag.clone())].into();
                manifests.push(Descriptor { annotations, ..descriptor.clone() });
                repositories.entry(name.repository()).or_default().insert(tag, digest_hex(top)?.to_owned());
            }
            archived.push(Archived {
                config: blob(&image.id)?,
                repo_tags: Some(names.iter().map(Name::tagged).collect()),
                layers: Some(layers),
            });
        }
        let index = Index { schema_version: 2, media_type: oci::INDEX.into(), manifests };
        file(out, "index.json", &json(&index)?)?;
        file(out, "manifest.json", &json(&archived)?)?;
        if !repositories.is_empty() {
            file(out, "repositories", &json(&repositories)?)?;
        }
        out.write_all(&[0; 2 * BLOCK]).and_then(|()| out.flush()).doing("write the archive's end")
    }
}

fn blob(digest: &str) -> Result<String> {
    Ok(format!("blobs/sha256/{}", digest_hex(digest)?))
}

fn header(out: &mut impl Write, path: &str, size: u64) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path).doing(format!("archive {path}"))?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_cksum();
    out.write_all(header.as_bytes()).doing(format!("archive {path}"))
}

fn pad(out: &mut impl Write, size: u64) -> std::io::Result<()> {
    let padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
    out.write_all(&[0; BLOCK][..padding])
}

fn file(out: &mut impl Write, path: &str, content: &[u8]) -> Result<()> {
    header(out, path, content.len() as u64)?;
    let written = out.write_all(content).and_then(|()| pad(out, content.len() as u64));
    written.doing(format!("archive {path}"))
}
