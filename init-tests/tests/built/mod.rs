//! The init under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `$INCEPTION_INIT`, or what scripts/build-init makes of the sources as they are.
pub fn init() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(path) = std::env::var_os("INCEPTION_INIT") {
            return path.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let built = Command::new(root.join("scripts/build-init")).status().expect("scripts/build-init runs");
        assert!(built.success(), "scripts/build-init failed");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        target.join("init/inception-init").canonicalize().expect("the init is built")
    })
}
