//! Named and anonymous volumes: `DATA_ROOT/volumes/NAME/_data`.

use crate::error::Result;
use bollard_stubs::models;
use std::path::{Path, PathBuf};

/// Every volume of this engine. Blocking; small files only, but for `copy_up`.
pub struct Volumes {}

impl Volumes {
    pub fn open(_root: &Path) -> Result<Volumes> {
        todo!()
    }
    /// Creates the volume, or returns the one that is there. No name: an anonymous one (64 hex digits).
    pub fn create(&self, _request: models::VolumeCreateRequest) -> Result<models::Volume> {
        todo!()
    }
    pub fn get(&self, _name: &str) -> Result<models::Volume> {
        todo!()
    }
    pub fn list(&self) -> Result<Vec<models::Volume>> {
        todo!()
    }
    /// `in_use`: names that containers use.
    pub fn remove(&self, _name: &str, _force: bool, _in_use: &[String]) -> Result<()> {
        todo!()
    }
    /// The folder to bind: `_data`, or the `device` of `driver_opts` type none, o=bind.
    pub fn path(&self, _name: &str) -> Result<PathBuf> {
        todo!()
    }
    /// Fills a volume that was never used and is empty with what the image has at `target`, owners and modes included.
    /// `layers`: the image's, the topmost first; `target` is resolved inside them.
    pub fn copy_up(&self, _name: &str, _layers: &[PathBuf], _target: &str) -> Result<()> {
        todo!()
    }
}
