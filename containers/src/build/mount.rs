//! Overlays mounted for a moment, seen by one thread alone: a mount namespace of its own, so that nothing is ever left
//! mounted on the host, not even by SIGKILL.

use crate::{
    cli::DEEP_STACK,
    error::{Context, Error, Result},
    image::{Image, Store},
    shim::Overlay,
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, umask},
};
use std::{
    fs::{self, DirBuilder, Permissions},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    thread::Builder,
};

/// Runs `work` in a thread that has `overlays` mounted; files that it makes have exactly the modes that it asks for.
pub fn with_overlays<T: Send>(overlays: &[&Overlay], work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = Builder::new().name("overlays".into()).stack_size(DEEP_STACK).spawn_scoped(scope, || {
            // The umask belongs to the same structure as the root and the working directory: no other thread's changes.
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).doing("make a mount namespace")?;
            umask(Mode::empty());
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
                .doing("keep mounts from the host")?;
            for overlay in overlays {
                overlay.mount().at("mount the overlay on", &overlay.merged)?;
            }
            let result = work();
            for overlay in overlays.iter().rev() {
                umount2(&overlay.merged, MntFlags::MNT_DETACH).at("unmount", &overlay.merged)?;
            }
            result
        });
        let thread = thread.doing("start a thread")?;
        thread.join().unwrap_or_else(|_| Err(Error::Failed("the thread that copies files ended by a panic".into())))
    })
}

/// A writable layer in `folder` on `image`, or on nothing; not mounted yet, and never synced to the disk.
pub fn overlay(store: &Store, image: Option<&Image>, folder: &Path) -> Result<Overlay> {
    if let Some(image) = image {
        return store.overlay(image, folder, true);
    }
    let made = |name: &str| -> Result<PathBuf> {
        let path = folder.join(name);
        DirBuilder::new().recursive(true).mode(0o755).create(&path).at("create", &path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755)).at("set the mode of", &path)?;
        Ok(path)
    };
    // An overlay has at least one lower folder.
    Ok(Overlay {
        lower: vec![made("lower")?],
        upper: made("upper")?,
        work: made("work")?,
        merged: made("merged")?,
        volatile: true,
    })
}
