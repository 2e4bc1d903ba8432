//! The archive that the kernel unpacks before it runs its first process: the init, its configuration, modules; and, for
//! a machine whose root stays in memory, all of an image. The format is cpio's "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use super::modules::Module;
use crate::error::{Context, Error, Result};
use cpio::newc;
use nix::sys::stat::{major, minor};
use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PRIVATE: u32 = 0o100_600;
const CONSOLE: u32 = 0o020_600;

/// The init in the archive; `rdinit=/PATH` has the kernel run it. An image whose files are beside it has none of this name.
pub const INIT: &str = ".inception/init";

/// Where a module lies in the archive.
pub fn module_path(module: &Module) -> String {
    format!(".inception/{}.ko", module.name)
}

/// An initramfs that is being written.
pub struct Archive<W> {
    /// Nothing only while an entry is written.
    out: Option<W>,
    /// What tells the entries apart; hard links share one.
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Archive<W> {
        Archive { out: Some(out), inode: 0 }
    }

    /// The init, its configuration, the modules, and the folders and the console that it begins with.
    pub fn machine(&mut self, init: &Path, config: &str, modules: &[Module]) -> Result<()> {
        for folder in ["dev", "etc", ".inception", "proc", "run", "sys"] {
            self.entry(newc::Builder::new(folder).mode(FOLDER), &[])?;
        }
        // The kernel opens it before anybody could mount /dev.
        self.entry(newc::Builder::new("dev/console").mode(CONSOLE).rdev_major(5).rdev_minor(1), &[])?;
        let program = fs::read(init).at("read", init)?;
        self.entry(newc::Builder::new(INIT).mode(PROGRAM), &program)?;
        self.entry(newc::Builder::new("etc/inception-init.conf").mode(PRIVATE), config.as_bytes())?;
        modules
            .iter()
            .try_for_each(|module| self.entry(newc::Builder::new(&module_path(module)).mode(PRIVATE), &module.content))
    }

    /// All that is below `folder`, with owners and modes; extended attributes have no place in this format.
    pub fn tree(&mut self, folder: &Path) -> Result<()> {
        let mut links = HashMap::new();
        for entry in walkdir::WalkDir::new(folder).min_depth(1).sort_by_file_name() {
            let entry = entry.doing(format!("list {}", folder.display()))?;
            let (path, meta) = (entry.path(), entry.metadata().doing(format!("look at {}", entry.path().display()))?);
            let name = path.strip_prefix(folder).unwrap_or(path);
            let name = name.to_str().ok_or_else(|| {
                Error::Failed(format!("{}: an initramfs has no names that are not UTF-8", name.display()))
            })?;
            // Names of one file share an inode; its bytes stand at the first of them.
            let next = self.inode + 1;
            let inode = if meta.is_dir() { next } else { *links.entry(meta.ino()).or_insert(next) };
            let is_first = inode == next;
            self.inode = next;
            let builder = header(name, &meta).ino(inode);
            match () {
                () if meta.is_symlink() => {
                    let target = fs::read_link(path).at("read the link", path)?;
                    self.write(builder, &mut target.as_os_str().as_bytes(), meta.len())?;
                }
                () if meta.is_file() && is_first => {
                    self.write(builder, &mut File::open(path).at("open", path)?, meta.len())?;
                }
                () => self.write(builder, &mut io::empty(), 0)?,
            }
        }
        Ok(())
    }

    /// The end; what was written to.
    pub fn finish(mut self) -> Result<W> {
        let out = self.out.take().ok_or_else(broken)?;
        newc::trailer(out).doing("write the initramfs")
    }

    fn entry(&mut self, builder: newc::Builder, mut content: &[u8]) -> Result<()> {
        self.inode += 1;
        let inode = self.inode;
        let length = content.len() as u64;
        self.write(builder.ino(inode), &mut content, length)
    }

    fn write(&mut self, builder: newc::Builder, content: &mut dyn Read, length: u64) -> Result<()> {
        let size = u32::try_from(length).map_err(|_| Error::Failed("an initramfs has no files over 4 GiB".into()))?;
        let mut writer = builder.write(self.out.take().ok_or_else(broken)?, size);
        io::copy(&mut content.take(length), &mut writer).doing("write the initramfs")?;
        self.out = Some(writer.finish().doing("write the initramfs")?);
        Ok(())
    }
}

fn header(name: &str, meta: &Metadata) -> newc::Builder {
    newc::Builder::new(name)
        .mode(meta.mode())
        .uid(meta.uid())
        .gid(meta.gid())
        .nlink(if meta.is_dir() { 1 } else { u32::try_from(meta.nlink()).unwrap_or(u32::MAX) })
        .mtime(u32::try_from(meta.mtime()).unwrap_or(0))
        .rdev_major(major(meta.rdev()) as u32)
        .rdev_minor(minor(meta.rdev()) as u32)
}

fn broken() -> Error {
    Error::Failed("write the initramfs: an earlier entry failed".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// busybox's cpio, which nobody here wrote, unpacks it.
    #[test]
    fn cpio_unpacks_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, out) = (folder.path().join("tree"), folder.path().join("out"));
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::create_dir(&out).unwrap();
        fs::write(tree.join("etc/name"), "value").unwrap();
        fs::hard_link(tree.join("etc/name"), tree.join("etc/other")).unwrap();
        std::os::unix::fs::symlink("etc/name", tree.join("link")).unwrap();
        let mut archive = Archive::new(File::create(folder.path().join("cpio")).unwrap());
        archive.tree(&tree).unwrap();
        let module = Module { name: "virtio".into(), content: b"odd".to_vec() };
        archive.machine(Path::new("/bin/true"), "arg = x\n", &[module]).unwrap();
        archive.finish().unwrap();
        let status = Command::new("/bin/busybox")
            .args(["cpio", "-idm"])
            .current_dir(&out)
            .stdin(File::open(folder.path().join("cpio")).unwrap())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
        assert_eq!(fs::read_to_string(out.join("link")).unwrap(), "value");
        let inodes = ["etc/name", "etc/other"].map(|name| fs::metadata(out.join(name)).unwrap().ino());
        assert_eq!(inodes[0], inodes[1]);
        assert_eq!(fs::read(out.join(INIT)).unwrap(), fs::read("/bin/true").unwrap());
        assert_eq!(fs::read_to_string(out.join(".inception/virtio.ko")).unwrap(), "odd");
        assert_eq!(fs::read_to_string(out.join("etc/inception-init.conf")).unwrap(), "arg = x\n");
        assert_eq!(fs::metadata(out.join("etc/inception-init.conf")).unwrap().mode() & 0o7777, 0o600);
    }
}
