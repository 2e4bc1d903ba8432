//! From an image to a machine's root: its layers, as the engine saves them, in one folder, and that folder as an ext4
//! file system or as an initramfs. Nothing is mounted. Owners need root; everybody else has fakeroot's word for them.
//!
//! A root is made once for an image, and kept in the user's cache as `vm/ID/`, beside the image's accounts.

use super::{initramfs, tools};
use crate::{
    compose::bootstrap,
    error::{Context, Error, Result},
    image::{
        compression::decompress,
        oci::Archived,
        rooted::{self, Root},
        unpack::{Options, Whiteouts, unpack},
    },
};
use nix::{
    fcntl::OFlag,
    unistd::{Uid, getegid, geteuid},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

/// Room for what a machine writes, beside the image's files: the file has holes there and takes none.
const FREE: u64 = 8 << 30;
/// How long a root is kept that another one of the same name has replaced: somebody may be about to use it.
const REPLACED: Duration = Duration::from_secs(3600);
/// The longest manifest.json and account file that are read.
const DOCUMENT_MAX: u64 = 4 << 20;
/// What /etc/hosts says in a machine whose image has none: an engine writes this file for its containers.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// What holds a machine's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A disk of its own.
    Ext4,
    /// The machine's memory.
    Initramfs,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Kind::Ext4 => "root.ext4",
            Kind::Initramfs => "root.cpio",
        }
    }
}

/// A root in the cache.
#[derive(Debug, Clone)]
pub struct MadeRoot {
    folder: PathBuf,
    kind: Kind,
}

impl MadeRoot {
    /// The file system, or the archive.
    pub fn file(&self) -> PathBuf {
        self.folder.join(self.kind.file())
    }

    /// A folder with the image's etc/passwd and etc/group.
    pub fn accounts(&self) -> PathBuf {
        self.folder.join("accounts")
    }
}

/// `vm/` in the cache.
fn cache() -> Result<PathBuf> {
    Ok(bootstrap::cache_folder()?.join("vm"))
}

/// The root of the image `id`, where it was made before.
pub fn made(id: &str, kind: Kind) -> Result<Option<MadeRoot>> {
    let root = MadeRoot { folder: cache()?.join(folder_name(id)?), kind };
    if !root.file().is_file() {
        return Ok(None);
    }
    // Its time is that of its last use.
    let path = root.folder.join("image");
    let now = File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
    now.at("set the time of", &path)?;
    Ok(Some(root))
}

/// Makes the root of the image `id`, called `name`, from `archive`, which `docker save` wrote. Older roots of the same
/// name that nobody used for an hour are removed: machines that run have theirs open.
pub fn make(id: &str, name: &str, kind: Kind, archive: &Path) -> Result<MadeRoot> {
    let cache = cache()?;
    let target = cache.join(folder_name(id)?);
    let work = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(&cache).at("create a folder in", &cache)?;
    if geteuid().is_root() {
        unpack_and_pack(archive, work.path(), kind)?;
    } else {
        let fakeroot = tools::find(("fakeroot", "fakeroot"))?;
        let this = std::env::current_exe().doing("find this program's own path")?;
        tools::run(
            Command::new(fakeroot).arg("--").arg(this).arg("vm-root").arg(archive).arg(work.path()).arg(kind.file()),
        )?;
    }
    fs::create_dir_all(&target).at("create", &target)?;
    let accounts = target.join("accounts");
    match fs::rename(work.path().join("accounts"), &accounts) {
        // It was made with the other kind.
        Err(_) if accounts.is_dir() => {}
        other => other.at("store", &accounts)?,
    }
    let name_file = target.join("image");
    fs::write(&name_file, format!("{name}\n")).at("write", &name_file)?;
    let made = MadeRoot { folder: target.clone(), kind };
    // Last: a folder without it is no root.
    fs::rename(work.path().join(kind.file()), made.file()).at("store", &made.file())?;
    for old in fs::read_dir(&cache).at("list", &cache)?.flatten().map(|entry| entry.path()) {
        let file = old.join("image");
        let used = fs::metadata(&file).and_then(|meta| meta.modified()).unwrap_or_else(|_| SystemTime::now());
        let is_old = used.elapsed().is_ok_and(|age| age > REPLACED);
        if old != target && is_old && fs::read_to_string(&file).is_ok_and(|text| text.trim_end() == name) {
            // What can't be removed only takes room.
            let _ = fs::remove_dir_all(old);
        }
    }
    Ok(made)
}

/// A new file in the cache for what `docker save` writes.
pub fn archive_file() -> Result<tempfile::NamedTempFile> {
    let cache = cache()?;
    fs::create_dir_all(&cache).at("create", &cache)?;
    tempfile::Builder::new().prefix(".archive-").tempfile_in(&cache).at("create a file in", &cache)
}

/// `sha256:…` without its first part; it comes from the engine, and becomes a path.
fn folder_name(id: &str) -> Result<&str> {
    let name = id.trim_start_matches("sha256:");
    match name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(name),
        false => Err(Error::Failed(format!("the engine calls the image {id:?}, which is no id"))),
    }
}

/// The internal command `vm-root ARCHIVE WORK KIND`, which fakeroot runs.
pub fn serve(archive: &Path, work: &Path, kind: &str) -> Result<()> {
    let kind = [Kind::Ext4, Kind::Initramfs].into_iter().find(|known| known.file() == kind);
    unpack_and_pack(archive, work, kind.ok_or_else(|| Error::invalid("this is an internal command"))?)
}

/// Leaves `accounts/` and the root's file in `work`.
fn unpack_and_pack(archive: &Path, work: &Path, kind: Kind) -> Result<()> {
    let tree = work.join("tree");
    fs::create_dir(&tree).at("create", &tree)?;
    let bytes = unpack_layers(archive, &work.join("saved"), &tree)?;
    complete(&tree)?;
    copy_accounts(&tree, &work.join("accounts"))?;
    let file = work.join(kind.file());
    match kind {
        Kind::Ext4 => ext4(&tree, &file, bytes)?,
        Kind::Initramfs => {
            let out = std::io::BufWriter::new(File::create(&file).at("create", &file)?);
            let mut archive = initramfs::Archive::new(out);
            archive.tree(&tree)?;
            archive.finish()?.flush().at("write", &file)?;
        }
    }
    // With it gone, the folder that is left is no larger than the root.
    fs::remove_dir_all(&tree).at("remove", &tree)
}

/// The layers of the one image in `archive`, one over the other; the bytes of all files.
fn unpack_layers(archive: &Path, saved: &Path, tree: &Path) -> Result<u64> {
    fs::create_dir(saved).at("create", saved)?;
    let file = File::open(archive).at("open", archive)?;
    // Owned by whoever runs this: only the layers are the image's.
    let owner = Some((geteuid().as_raw(), getegid().as_raw()));
    unpack(decompress(file)?, saved, Options { owner, ..Options::default() }, None)?;
    let root = Root::open(saved).at("open", saved)?;
    let open = |path: &str| {
        let path = rooted::clean(path.as_bytes()).unwrap_or_default();
        root.file(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map(File::from)
    };
    let mut text = Vec::new();
    let manifest = open("manifest.json").doing("open manifest.json of the saved image")?;
    manifest.take(DOCUMENT_MAX).read_to_end(&mut text).doing("read manifest.json of the saved image")?;
    let mut images: Vec<Archived> = serde_json::from_slice(&text)
        .map_err(|error| Error::Failed(format!("manifest.json of the saved image: {error}")))?;
    let image = images.pop().filter(|_| images.is_empty());
    let image = image.ok_or_else(|| Error::Failed("the engine saved other than one image".into()))?;
    let mut bytes = 0;
    for layer in image.layers.unwrap_or_default() {
        let file = open(&layer).doing(format!("open the layer {layer}"))?;
        let options = Options { whiteouts: Whiteouts::Applied, owner: None };
        bytes += unpack(decompress(file)?, tree, options, None)?;
    }
    fs::remove_dir_all(saved).at("remove", saved)?;
    Ok(bytes)
}

/// What an engine adds to a container's files: folders to mount on, and /etc/hosts.
fn complete(tree: &Path) -> Result<()> {
    let root = Root::open(tree).at("open", tree)?;
    for folder in ["dev", "etc", "proc", "run", "sys", "tmp"] {
        root.folder_made(folder.as_bytes()).doing(format!("make /{folder} in the machine's root"))?;
    }
    let is_there = root.file(b"etc/hosts", OFlag::O_RDONLY | OFlag::O_NONBLOCK).map(File::from);
    if is_there.is_ok_and(|file| file.metadata().is_ok_and(|meta| meta.len() > 0)) {
        return Ok(());
    }
    let etc = root.folder(b"etc").doing("open /etc of the machine's root")?;
    let path = rooted::at(&etc, b"hosts");
    let _ = fs::remove_file(&path);
    fs::write(path, HOSTS).doing("write /etc/hosts in the machine's root")
}

/// Copies the image's passwd(5) and group(5), which say who its user is.
fn copy_accounts(tree: &Path, folder: &Path) -> Result<()> {
    let etc = folder.join("etc");
    fs::create_dir_all(&etc).at("create", &etc)?;
    let root = Root::open(tree).at("open", tree)?;
    for name in ["passwd", "group"] {
        let path = format!("etc/{name}");
        let Ok(file) = root.file(path.as_bytes(), OFlag::O_RDONLY | OFlag::O_NONBLOCK) else { continue };
        let mut text = Vec::new();
        File::from(file).take(DOCUMENT_MAX).read_to_end(&mut text).doing(format!("read the image's /{path}"))?;
        let copy = etc.join(name);
        fs::write(&copy, text).at("write", &copy)?;
    }
    Ok(())
}

/// An ext4 file system with all that is in `tree`, whose files hold `bytes`.
fn ext4(tree: &Path, file: &Path, bytes: u64) -> Result<()> {
    let mke2fs = tools::find(tools::MKE2FS)?;
    // A quarter more for what files and folders need beside their bytes.
    let kilobytes = (bytes + bytes / 4 + FREE) >> 10;
    let mut command = Command::new(mke2fs);
    // Nothing is kept back for root, who is the only one here.
    command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", "inception"]);
    tools::run(command.arg("-d").arg(tree).arg(file).arg(format!("{kilobytes}k"))).map(drop)
}

/// Whether this user's own word for a file's owner counts.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_becomes_a_path_only_where_it_is_one() {
        assert_eq!(folder_name(&format!("sha256:{}", "a".repeat(64))).unwrap(), "a".repeat(64));
        for id in ["", "sha256:../../x", "sha256:aa"] {
            assert!(folder_name(id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_root_has_what_an_engine_would_add() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("etc")).unwrap();
        // Out of the root: it is the root's own file that is meant.
        std::os::unix::fs::symlink("/etc/elsewhere", tree.join("etc/hosts")).unwrap();
        fs::write(tree.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        complete(&tree).unwrap();
        assert_eq!(fs::read_to_string(tree.join("etc/hosts")).unwrap(), HOSTS);
        assert!(tree.join("proc").is_dir());
        copy_accounts(&tree, &folder.path().join("accounts")).unwrap();
        assert!(folder.path().join("accounts/etc/passwd").is_file());
        assert!(!folder.path().join("accounts/etc/group").exists());
    }
}
