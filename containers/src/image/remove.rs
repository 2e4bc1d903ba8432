//! Untagging and deleting, with Docker's rules and Docker's sentences.

use super::{
    name::Name,
    store::{State, Store, discard, id_prefix},
};
use crate::error::{Error, Result};
use bollard_stubs::models::ImageDeleteResponseItem as Item;
use std::path::PathBuf;

/// A container, as far as an image's removal has to know.
#[derive(Debug, Clone)]
pub struct InUse {
    /// `sha256:…` of the image it was made of.
    pub image: String,
    pub container: String,
    pub running: bool,
}

impl Store {
    /// Untags, and deletes what nothing needs any more. `keep_parents`: unnamed parents are not deleted with it
    /// (`noprune`).
    ///
    /// By a name, that name goes, and with the last one the image. By an id all its names go, if they are of one
    /// repository or `force` is set. An image that a stopped container uses loses its names by force, and stays
    /// unnamed until the container is removed.
    pub fn remove(&self, reference: &str, force: bool, keep_parents: bool, in_use: &[InUse]) -> Result<Vec<Item>> {
        let mut taken = Vec::new();
        let result = self.state().remove(reference, force, keep_parents, in_use, &mut taken);
        discard(&taken);
        result
    }
}

fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    &digits[..digits.len().min(12)]
}

impl State {
    fn remove(
        &mut self,
        reference: &str,
        force: bool,
        keep_parents: bool,
        in_use: &[InUse],
        taken: &mut Vec<PathBuf>,
    ) -> Result<Vec<Item>> {
        let id = self.resolve(reference)?;
        let tags = self.tags_of(&id);
        let name = Name::parse(reference).ok().map(|name| name.tagged()).filter(|name| tags.contains(name));
        let by_id =
            name.is_none() && id_prefix(reference).is_some_and(|digits| id["sha256:".len()..].starts_with(digits));
        let users: Vec<&InUse> = in_use.iter().filter(|user| user.image == id).collect();
        let running = users.iter().find(|user| user.running);
        let untagged = match name {
            Some(name) if tags.len() > 1 => vec![name],
            Some(name) => {
                if let (Some(user), false) = (users.first(), force) {
                    return Err(Error::Conflict(format!(
                        "conflict: unable to remove repository reference {reference:?} (must force) - container {} is using its referenced image {}",
                        short(&user.container),
                        short(&id)
                    )));
                }
                vec![name]
            }
            None => {
                let repositories: std::collections::BTreeSet<String> =
                    tags.iter().filter_map(|tag| Some(Name::parse(tag).ok()?.repository())).collect();
                if by_id && repositories.len() > 1 && !force {
                    return Err(Error::Conflict(format!(
                        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
                        short(&id)
                    )));
                }
                if self.has_children(&id) {
                    return Err(Error::Conflict(format!(
                        "conflict: unable to delete {} (cannot be forced) - image has dependent child images",
                        short(&id)
                    )));
                }
                if let (Some(user), false) = (users.iter().find(|user| !user.running), force) {
                    return Err(Error::Conflict(format!(
                        "conflict: unable to delete {} (must be forced) - image is being used by stopped container {}",
                        short(&id),
                        short(&user.container)
                    )));
                }
                tags.clone()
            }
        };
        let last = untagged.len() == tags.len();
        if let (true, Some(user)) = (last, running) {
            return Err(Error::Conflict(format!(
                "conflict: unable to delete {} (cannot be forced) - image is being used by running container {}",
                short(&id),
                short(&user.container)
            )));
        }
        let mut items = Vec::new();
        for name in untagged {
            self.images.names.remove(&name);
            items.push(Item { untagged: Some(name), deleted: None });
        }
        let mut candidates = Vec::new();
        let mut next = Some(id).filter(|id| last && users.is_empty() && !self.has_children(id));
        while let Some(id) = next.take() {
            let Some(record) = self.images.records.remove(&id) else { break };
            candidates.extend(record.document.rootfs.diff_ids.iter().cloned());
            items.push(Item { untagged: None, deleted: Some(id) });
            next = record.parent.filter(|parent| {
                !keep_parents
                    && self.tags_of(parent).is_empty()
                    && !self.has_children(parent)
                    && in_use.iter().all(|user| user.image != *parent)
            });
        }
        // The index first: from here on the images are gone, whatever happens to their files.
        self.images.save()?;
        let images = &self.images;
        taken.extend(self.layers.take(candidates, |diff_id| images.uses_layer(diff_id))?);
        self.images.sweep_blobs()?;
        Ok(items)
    }

    fn has_children(&self, id: &str) -> bool {
        self.images.records.values().any(|record| record.parent.as_deref() == Some(id))
    }
}
