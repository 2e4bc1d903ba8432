//! `docker save`.

use super::{Image, archive::Archive, name::Name, store::Store};
use crate::error::{Error, Result};
use std::{collections::BTreeSet, io::Write};

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
    pub fn write(&self, out: impl Write) -> Result<()> {
        let mut archive = Archive::new(out)?;
        for Wanted { image, config, manifest, names } in &self.wanted {
            for layer in &image.layers {
                archive.layer(&layer.meta.diff_id, layer.meta.tar_bytes, |out| layer.write(out))?;
            }
            archive.image(config, manifest, names)?;
        }
        archive.finish()
    }
}
