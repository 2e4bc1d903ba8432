//! A file system without a past. ext4 looks for a new file's inode past all that were deleted within the last minutes, one by
//! one (fs/ext4/ialloc.c, recently_deleted): on a disk that builds were removed from, a build takes half as long again.

use crate::harness::run;
use std::{fs, path::Path, process::Command};

const SIZE: u64 = 16 << 30;

/// Mounted from a file in /tmp that takes the room that is used; gone with the value.
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    pub fn new() -> Disk {
        // A short name: Podman's folders on it must not have more than 50 letters.
        let folder = tempfile::Builder::new().prefix("disk-").tempdir_in("/tmp").unwrap();
        let image = folder.path().join("image");
        fs::File::create(&image).unwrap().set_len(SIZE).unwrap();
        let now = ["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        run(Command::new("mkfs.ext4").args(now).arg(&image)).ok();
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(folder.path())).ok();
        Disk { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
