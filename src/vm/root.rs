//! Stage one, in an initramfs: the modules, the root, and the switch to it.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};

use super::mounts;
use super::settings::{Mount, Settings};
use crate::{sys, warning};

/// Where the new root is mounted before it takes the place of the old one.
const NEW: &str = "/.new-root";
/// Where the parts of an overlay are mounted until the new root has a /run.
const LOWER: &str = "/.lower";
const UPPER: &str = "/.upper";

/// Loads a module. One that is there already, or whose device this machine does not have, is no failure.
pub fn load(path: &str, parameters: &str) -> Result<(), String> {
    let failed = |reason: String| format!("module {path}: {reason}");
    let file = fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let is_packed = [".gz", ".xz", ".zst"].iter().any(|end| path.ends_with(end));
    // MODULE_INIT_COMPRESSED_FILE, which nix has no name for.
    let flags = ModuleInitFlags::from_bits_retain(if is_packed { 4 } else { 0 });
    let parameters = CString::new(parameters).map_err(|_| failed("a NUL in its parameters".into()))?;
    match finit_module(file, &parameters, flags) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(Errno::ENODEV) => {
            warning!("module {path}: this machine has no such device");
            Ok(())
        }
        Err(Errno::ENOEXEC) => Err(failed("not a module of this kernel".into())),
        Err(error) => Err(failed(sys::reason(error).into())),
    }
}

/// Mounts the root of the settings and makes it this process's.
pub fn switch(settings: &Settings, root: &Mount) -> Result<(), String> {
    for folder in [NEW, LOWER, UPPER] {
        let _ = fs::create_dir(folder);
    }
    match &settings.overlay {
        None => mounts::make(root, NEW, settings.wait)?,
        Some(upper) => {
            let read_only = Mount { options: format!("{},ro", root.options), ..root.clone() };
            mounts::make(&read_only, LOWER, settings.wait)?;
            mounts::make(upper, UPPER, settings.wait)?;
            for folder in ["/.upper/changes", "/.upper/work"] {
                let _ = fs::create_dir(folder);
            }
            let layers = format!("lowerdir={LOWER},upperdir={UPPER}/changes,workdir={UPPER}/work");
            mount(Some("overlay"), NEW, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
                .map_err(|error| format!("overlay over {}: {}", root.source, sys::reason(error)))?;
        }
    }
    for place in ["/dev", "/sys", "/proc"] {
        let target = format!("{NEW}{place}");
        let _ = fs::create_dir(&target);
        if mounts::move_to(place, &target).is_err() {
            warning!("{place}: the new root has no such folder, and can't be written");
            mounts::drop_mount(place);
        }
    }
    if settings.overlay.is_some() {
        let run = format!("{NEW}/run");
        let kept = mounts::place_memory(&run, "mode=0755").is_ok();
        for (part, name) in [(LOWER, "root"), (UPPER, "overlay")] {
            let target = format!("{NEW}{}/{name}", mounts::PARTS);
            if kept {
                let _ = fs::create_dir_all(&target);
                let _ = mounts::move_to(part, &target);
            }
        }
    }
    let failed = |step: &str, error: Errno| format!("switch to the new root: {step}: {}", sys::reason(error));
    if mounts::is_in_memory("/") {
        empty(Path::new("/"));
    }
    chdir(NEW).map_err(|error| failed("go there", error))?;
    mounts::move_to(".", "/").map_err(|error| failed("move it", error))?;
    chroot(".").map_err(|error| failed("make it the root", error))?;
    chdir("/").map_err(|error| failed("go to it", error))
}

/// Removes what the initramfs holds, which is memory. Other file systems are left alone.
fn empty(folder: &Path) {
    let Ok(own) = folder.metadata() else { return };
    for path in sys::vm::entries(folder) {
        let Ok(about) = path.symlink_metadata() else { continue };
        if about.dev() != own.dev() {
            continue;
        }
        if about.is_dir() {
            empty(&path);
            // Refused where something is mounted below.
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}
