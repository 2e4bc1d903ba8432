//! The shim's side.

use crate::error::Result;
use std::path::Path;

/// Runs a shim until its process has ended.
pub fn serve(_config_file: &Path) -> Result<()> {
    todo!()
}
