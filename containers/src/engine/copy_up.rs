//! Copies a part of an image's file system out: what a new volume begins with.

use crate::{
    error::{Context, Error, Result},
    image::rooted::Root,
    program,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
};

/// Copies folder `target` (relative, clean) of the image with `layers` (the topmost first) into the folder `into`,
/// owners, modes, attributes and links included. Nothing where the image has no such folder.
pub fn copy(layers: &[PathBuf], target: &[u8], into: &Path) -> Result<()> {
    // On a thread of its own: the mount namespace in which the layers are seen as one ends with it.
    std::thread::scope(|scope| scope.spawn(|| copy_in_namespace(layers, target, into)).join())
        .map_err(|_| Error::Failed("the copy of an image's files ended unexpectedly".into()))?
}

fn copy_in_namespace(layers: &[PathBuf], target: &[u8], into: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).doing("make a mount namespace")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .doing("keep mounts from the host")?;
    let scratch = tempfile::tempdir().doing("make a temporary folder")?;
    let (merged, empty) = (scratch.path().join("merged"), scratch.path().join("empty"));
    for folder in [&merged, &empty] {
        std::fs::create_dir(folder).at("create", folder)?;
    }
    // Without an upper folder overlayfs wants two lower ones.
    let lower: Vec<String> = layers.iter().chain([&empty]).map(|path| path.display().to_string()).collect();
    let options = format!("lowerdir={}", lower.join(":"));
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str()))
        .doing("look at the image's layers as one")?;
    let folder = Root::open(&merged).and_then(|root| root.folder(target));
    if let Ok(folder) = folder {
        copy_tree(&folder, into)?;
    }
    nix::mount::umount2(&merged, nix::mount::MntFlags::MNT_DETACH).at("unmount", &merged)
}

fn copy_tree(folder: &OwnedFd, into: &Path) -> Result<()> {
    let source = format!("/proc/{}/fd/{}/.", std::process::id(), folder.as_raw_fd());
    let mut copy = Command::new("cp");
    copy.args(["--archive", "--no-target-directory", "--", &source]).arg(into);
    program::run(&mut copy, &format!("cp into {}", into.display())).map(drop)
}
