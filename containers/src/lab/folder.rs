//! A lesson's working folder: its programs, and a copy of the init where everybody may run it. Gone at the end; what a
//! killed lab left is removed by the next one.

use super::{alternative::Alternative, engine, leftover, lesson::Program};
use crate::error::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The folder; removed with the value.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new(programs: &[Program]) -> Result<Folder> {
        let above = std::env::temp_dir();
        remove_stale(&above);
        let folder = tempfile::Builder::new()
            .prefix(&leftover::own_prefix())
            .tempdir_in(&above)
            .at("create a folder in", &above)?;
        // In a user namespace of its own a lesson's root is another user.
        let put = |path: PathBuf, content: &[u8], mode| -> Result<()> {
            fs::write(&path, content).at("write", &path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).at("set the mode of", &path)
        };
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).at("set the mode of", folder.path())?;
        for program in programs {
            let mode = if program.text.starts_with("#!") { 0o755 } else { 0o644 };
            put(folder.path().join(&program.file), program.text.as_bytes(), mode)?;
        }
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).at("create", &bin)?;
        if let Some(init) = Alternative::Inception.program()
            && let Ok(content) = fs::read(&init)
        {
            put(bin.join(Alternative::Inception.name()), &content, 0o755)?;
        }
        Ok(Folder(folder))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Of other users it can remove none, and need not.
fn remove_stale(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        // One lab at a time: two would end each other's daemons in the middle of it.
        if leftover::is_left_behind(&entry.file_name().to_string_lossy())
            && let Ok(folder) = fs::File::open(entry.path())
            && let Ok(_lock) = Flock::lock(folder, FlockArg::LockExclusive)
            && entry.path().is_dir()
        {
            engine::remove_stale(&entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
