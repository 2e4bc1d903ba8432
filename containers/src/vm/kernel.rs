//! The kernel of a machine: the one that `--kernel` names, else Debian's cloud kernel, installed here, or downloaded
//! and unpacked into the user's cache (nothing is installed).

use super::tools;
use crate::{
    compose::bootstrap,
    error::{Context, Error, Result},
};
use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Command,
};

/// Depends on the newest kernel of its kind.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel, and its modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// A bzImage, or an ELF file with a PVH entry.
    pub image: PathBuf,
    /// The folder with modules.dep; none for a kernel that has all built in.
    pub modules: Option<PathBuf>,
}

/// Finds the kernel; `progress` is told what goes on where that takes time.
pub fn find(asked: Option<&Path>, progress: &mut dyn FnMut(&str)) -> Result<Kernel> {
    if let Some(image) = asked {
        return given(image);
    }
    if let Some(kernel) = installed() {
        return Ok(kernel);
    }
    let cache = bootstrap::cache_folder()?.join("kernel");
    match cached(&cache) {
        Some(kernel) => Ok(kernel),
        None => download(&cache, progress),
    }
}

/// A kernel of the user's own. Its modules are looked for beside it, as in an unpacked package, and on this machine.
fn given(image: &Path) -> Result<Kernel> {
    let image = fs::canonicalize(image).at("find the kernel", image)?;
    let folder = image.parent().unwrap_or(Path::new("/"));
    let release = release(&image)?;
    let modules = release.and_then(|release| {
        let roots = [folder.to_owned(), folder.join(".."), PathBuf::from("/")];
        roots.iter().find_map(|root| modules_below(root, &release))
    });
    Ok(Kernel { image, modules })
}

/// `lib/modules/RELEASE` where it is whole.
fn modules_below(root: &Path, release: &str) -> Option<PathBuf> {
    let folder = root.join("lib/modules").join(release);
    folder.join("modules.dep").is_file().then_some(folder)
}

/// The newest cloud kernel in /boot whose modules are there, too.
fn installed() -> Option<Kernel> {
    let files = fs::read_dir("/boot").ok()?.flatten();
    let mut found: Vec<_> = files
        .filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            let release = name.strip_prefix("vmlinuz-").filter(|release| release.contains("-cloud-"))?;
            let modules = modules_below(Path::new("/"), release)?;
            File::open(file.path()).ok()?;
            Some((file.metadata().ok()?.modified().ok()?, Kernel { image: file.path(), modules: Some(modules) }))
        })
        .collect();
    found.sort_by_key(|(modified, _)| *modified);
    found.pop().map(|(_, kernel)| kernel)
}

fn cached(cache: &Path) -> Option<Kernel> {
    let folders = fs::read_dir(cache).ok()?.flatten();
    let mut found: Vec<_> = folders
        .filter_map(|folder| {
            let image = folder.path().join("vmlinuz");
            let modules = modules_below(&folder.path(), folder.file_name().to_str()?)?;
            Some((fs::metadata(&image).ok()?.modified().ok()?, Kernel { image, modules: Some(modules) }))
        })
        .collect();
    found.sort_by_key(|(modified, _)| *modified);
    found.pop().map(|(_, kernel)| kernel)
}

/// Downloads Debian's newest cloud kernel and unpacks it as `cache/RELEASE/{vmlinuz,lib/modules/RELEASE}`.
fn download(cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<Kernel> {
    let no_kernel = |why: String| {
        Error::Failed(format!(
            "there is no kernel for virtual machines here, and {why}: install one (apt-get install {PACKAGE}), or name one with --kernel"
        ))
    };
    let apt_cache =
        tools::find(("apt-cache", "apt")).map_err(|_| no_kernel("this is no Debian to get one from".into()))?;
    let depmod = tools::find(("depmod", "kmod"))?;
    let depends = tools::run(Command::new(apt_cache).args(["depends", "--important", PACKAGE])).unwrap_or_default();
    let depends = String::from_utf8_lossy(&depends);
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-")))
        .ok_or_else(|| no_kernel("apt does not know one (apt-get update refreshes its lists)".into()))?;
    let release = &package["linux-image-".len()..];
    progress(&format!(
        "there is no kernel for virtual machines here: downloading Debian's {package} to {}",
        cache.join(release).display()
    ));
    fs::create_dir_all(cache).at("create", cache)?;
    let work = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(cache).at("create a folder in", cache)?;
    let work = work.path();
    tools::run(Command::new("apt-get").args(["download", "-qq", package]).current_dir(work))
        .map_err(|error| no_kernel(format!("it could not be downloaded ({error})")))?;
    let mut files = fs::read_dir(work).at("list", work)?.flatten();
    let archive = files.next().ok_or_else(|| no_kernel("apt-get downloaded nothing".into()))?.path();
    let tree = work.join("tree");
    tools::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&tree))?;
    fs::remove_file(&archive).at("remove", &archive)?;
    // As the newest Debian has it, or as the older ones.
    let modules = ["usr/lib/modules", "lib/modules"].map(|path| tree.join(path));
    let modules =
        modules.iter().find(|path| path.is_dir()).ok_or_else(|| no_kernel(format!("{package} has no modules")))?;
    let done = work.join("done");
    fs::create_dir_all(done.join("lib")).at("create", &done)?;
    fs::rename(modules, done.join("lib/modules")).at("move", modules)?;
    let image = tree.join(format!("boot/vmlinuz-{release}"));
    fs::rename(&image, done.join("vmlinuz")).at("move", &image)?;
    tools::run(Command::new(depmod).arg("-b").arg(&done).arg(release))?;
    let target = cache.join(release);
    match fs::rename(&done, &target) {
        // Another one was as quick.
        Err(_) if target.join("vmlinuz").is_file() => {}
        other => other.at("store the kernel in", &target)?,
    }
    cached(cache).ok_or_else(|| no_kernel(format!("what was unpacked in {} is not whole", target.display())))
}

/// The release (`uname -r`) that a bzImage's header tells (Documentation/arch/x86/boot.rst); none of other formats.
fn release(image: &Path) -> Result<Option<String>> {
    let mut file = File::open(image).at("open the kernel", image)?;
    let mut header = [0; 0x210];
    if file.read_exact(&mut header).is_err() || &header[0x202..0x206] != b"HdrS" {
        return Ok(None);
    }
    let offset = u64::from(u16::from_le_bytes([header[0x20e], header[0x20f]])) + 0x200;
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(offset)).at("read", image)?;
    file.take(256).read_to_end(&mut text).at("read", image)?;
    let word = text.split(|byte| matches!(byte, b' ' | 0)).next().unwrap_or_default();
    let release = String::from_utf8_lossy(word).into_owned();
    // It becomes part of a path.
    Ok((!release.is_empty() && !release.starts_with('.') && !release.contains('/')).then_some(release))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bzimage_tells_its_release() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinuz");
        let mut bytes = vec![0; 0x800];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x400_u16.to_le_bytes());
        bytes[0x600..0x600 + 20].copy_from_slice(b"6.1.0-1-cloud (x@y) ");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(release(&path).unwrap().as_deref(), Some("6.1.0-1-cloud"));
        bytes[0x600..0x600 + 9].copy_from_slice(b"../../etc");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(release(&path).unwrap(), None);
        fs::write(&path, "no kernel").unwrap();
        assert_eq!(release(&path).unwrap(), None);
    }

    #[test]
    fn a_kernel_of_the_users_has_its_modules_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let boot = folder.path().join("boot");
        let modules = folder.path().join("lib/modules/5.5.5-x");
        fs::create_dir_all(&modules).unwrap();
        fs::create_dir(&boot).unwrap();
        let mut bytes = vec![0; 0x400];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        bytes[0x300..0x308].copy_from_slice(b"5.5.5-x ");
        fs::write(boot.join("vmlinuz"), &bytes).unwrap();
        assert_eq!(given(&boot.join("vmlinuz")).unwrap().modules, None);
        fs::write(modules.join("modules.dep"), "").unwrap();
        let found = given(&boot.join("vmlinuz")).unwrap().modules.unwrap();
        assert_eq!(fs::canonicalize(found).unwrap(), fs::canonicalize(modules).unwrap());
    }
}
