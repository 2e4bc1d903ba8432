//! The network helper: name service and port proxies, in a process of its own that outlives the daemon.

use crate::error::Result;
use std::path::Path;

/// Runs the helper until it is told to end. `exec_root`: where its socket and its state lie.
pub fn serve(_exec_root: &Path) -> Result<()> {
    todo!()
}
