//! The init under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `$INCEPTION_INIT`, or what scripts/build-init makes of the sources as they are.
pub fn init() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        std::env::var_os("INCEPTION_INIT")
            .map_or_else(|| build(None).expect("scripts/build-init succeeds"), PathBuf::from)
    })
}

/// Built for this kind of machine or another one; `None` where the script, which says why, could not.
pub fn build(machine: Option<&str>) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut script = Command::new(root.join("scripts/build-init"));
    script.envs(machine.map(|machine| ("INIT_MACHINE", machine)));
    if !script.status().expect("scripts/build-init runs").success() {
        return None;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("init").join(machine.unwrap_or_default()).join("inception-init").canonicalize().ok()
}
