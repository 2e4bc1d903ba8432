//! The project's other programs, which are installed beside this one.

use std::path::PathBuf;

/// The static program `name`: beside this program, or where `make` builds it.
pub fn find(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    // target/release/inception is beside a dynamic inception-init of cargo's; the static one is in target/init.
    [folder.join("../init").join(name), folder.join(name)].into_iter().find(|path| path.is_file())
}
