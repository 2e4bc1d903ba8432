//! Unpacks a tar archive into a folder, and nowhere else.
//!
//! Every path is resolved by the kernel with the folder as `/` (see `rooted`), and what exists is replaced, never
//! written through. Whiteouts of a layer (OCI image-spec, layer.md) become overlayfs's own: a character device 0:0,
//! and the attribute `trusted.overlay.opaque`.

use super::{
    recipe,
    rooted::{Root, at, clean, split},
    tar_read::{Entry, Kind, Reader, show},
};
use crate::error::{Context, Error, Result};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::{
        stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, makedev, mkdirat, mknodat, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat},
};
use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

/// Overlayfs's mark of a folder that hides those below it.
pub const OPAQUE: &str = "trusted.overlay.opaque";
/// The prefix of a whiteout in an archive, and the name that marks a folder opaque.
pub const WHITEOUT: &[u8] = b".wh.";
pub const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";

/// What becomes of `.wh.` names (OCI image-spec, layer.md).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// They are names like others: the archive is no layer.
    #[default]
    Names,
    /// overlayfs's own: the folder is a layer of a mount.
    Overlay,
    /// What they hide is removed: the layers below are unpacked into the same folder already.
    Applied,
}

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What names that begin with `.wh.` mean.
    pub whiteouts: Whiteouts,
    /// Everything belongs to this user and group, whatever the archive says.
    pub owner: Option<(u32, u32)>,
}

/// Unpacks `archive` (a plain tar, read to its end) into `folder`; the bytes of all files. With `recipe` what is
/// needed to make the archive again is recorded.
pub fn unpack(archive: impl Read, folder: &Path, options: Options, recipe: Option<&mut recipe::Writer>) -> Result<u64> {
    let mut reader = Reader::new(archive, recipe.is_some());
    let mut unpacker = Unpacker {
        root: Root::open(folder).at("open", folder)?,
        options,
        recipe,
        parent: None,
        made: HashSet::new(),
        folders: Vec::new(),
        bytes: 0,
        buffer: vec![0; 128 << 10],
    };
    while let Some(entry) = reader.entry().map_err(|error| failed("unpack", error))? {
        unpacker
            .entry(&entry, &mut reader)
            .map_err(|error| failed(&format!("unpack {} into {}", show(&entry.path), folder.display()), error))?;
    }
    unpacker.finish(&mut reader).map_err(|error| failed(&format!("unpack into {}", folder.display()), error))
}

/// A fault of the archive is the sender's; all else is ours.
fn failed(doing: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData => Error::invalid(format!("{doing}: {error}")),
        _ => Error::Io { doing: doing.to_owned(), source: error },
    }
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

struct Unpacker<'a> {
    root: Root,
    options: Options,
    recipe: Option<&'a mut recipe::Writer>,
    /// The folder of the entry before: most entries have the same.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// With [`Whiteouts::Applied`]: what this archive itself brought, which its whiteouts do not mean.
    made: HashSet<Vec<u8>>,
    /// Folders whose times are set when nothing is put into them any more.
    folders: Vec<(Vec<u8>, (i64, u32))>,
    bytes: u64,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &Entry, reader: &mut Reader<impl Read>) -> io::Result<()> {
        if let Some(recipe) = &mut self.recipe {
            recipe.raw(&reader.take_raw())?;
        }
        let path = clean(&entry.path).ok_or_else(|| refused("the path leads out of the archive's root"))?;
        let (folder, name) = split(&path);
        let parent = match self.parent.take() {
            Some((cached, parent)) if cached == folder => parent,
            _ => self.root.folder_made(folder)?,
        };
        if path.is_empty() {
            if entry.kind == Kind::Directory {
                self.attributes(entry, &parent, b"")?;
                self.folders.push((path, entry.mtime));
            }
            return Ok(());
        }
        match self.options.whiteouts {
            Whiteouts::Overlay if name.starts_with(WHITEOUT) => self.whiteout(&parent, name)?,
            Whiteouts::Applied if name.starts_with(WHITEOUT) => self.apply_whiteout(folder, &parent, name)?,
            whiteouts => {
                self.make(entry, &path, &parent, name, reader)?;
                if whiteouts == Whiteouts::Applied {
                    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
                    self.made.extend(ends.chain([path.len()]).map(|end| path[..end].to_vec()));
                }
            }
        }
        self.parent = Some((folder.to_vec(), parent));
        Ok(())
    }

    /// Makes the file of one entry, in place of whatever stands there.
    fn make(
        &mut self,
        entry: &Entry,
        path: &[u8],
        parent: &OwnedFd,
        name: &[u8],
        reader: &mut Reader<impl Read>,
    ) -> io::Result<()> {
        // A link to what it would replace is left alone.
        let target = match entry.kind {
            Kind::HardLink => {
                let target =
                    clean(&entry.link).ok_or_else(|| refused("a hard link leads out of the archive's root"))?;
                if target == path {
                    return Ok(());
                }
                Some(target)
            }
            _ => None,
        };
        let hides = self.clear(entry.kind, path, parent, name)?;
        let file_name = OsStr::from_bytes(name);
        match entry.kind {
            Kind::Directory => {
                match mkdirat(parent, file_name, Mode::from_bits_truncate(0o700)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                if hides {
                    xattr::set(at(parent, name), OPAQUE, b"y")?;
                }
                self.folders.push((path.to_vec(), entry.mtime));
            }
            Kind::File => return self.file(entry, path, parent, name, reader),
            Kind::HardLink => {
                let target = target.unwrap_or_default();
                let (folder, target_name) = split(&target);
                let folder = self.root.folder(folder).map_err(|error| missing_target(&target, error))?;
                linkat(&folder, OsStr::from_bytes(target_name), parent, file_name, AtFlags::empty())
                    .map_err(|error| missing_target(&target, error.into()))?;
                return Ok(());
            }
            Kind::Symlink => symlinkat(OsStr::from_bytes(&entry.link), parent, file_name)?,
            Kind::Character | Kind::Block | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::Character => SFlag::S_IFCHR,
                    Kind::Block => SFlag::S_IFBLK,
                    _ => SFlag::S_IFIFO,
                };
                let device = makedev(entry.device.0.into(), entry.device.1.into());
                mknodat(parent, file_name, kind, Mode::from_bits_truncate(0o600), device)?;
            }
        }
        self.attributes(entry, parent, name)?;
        if entry.kind != Kind::Directory {
            let times = time(entry.mtime);
            utimensat(parent, file_name, &times, &times, UtimensatFlags::NoFollowSymlink)?;
        }
        Ok(())
    }

    /// A regular file and its contents.
    fn file(
        &mut self,
        entry: &Entry,
        path: &[u8],
        parent: &OwnedFd,
        name: &[u8],
        reader: &mut Reader<impl Read>,
    ) -> io::Result<()> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(parent, OsStr::from_bytes(name), flags, Mode::from_bits_truncate(0o600))?;
        let mut file = File::from(file);
        match &entry.sparse {
            None => {
                loop {
                    let count = reader.read(&mut self.buffer)?;
                    if count == 0 {
                        break;
                    }
                    file.write_all(&self.buffer[..count])?;
                }
                if let Some(recipe) = self.recipe.as_mut().filter(|_| entry.size > 0) {
                    recipe.file(path, entry.size)?;
                }
                self.bytes += entry.size;
            }
            Some(sparse) => {
                for &(offset, length) in &sparse.pieces {
                    file.seek(SeekFrom::Start(offset))?;
                    let mut left = length;
                    while left > 0 {
                        let wanted = left.min(self.buffer.len() as u64) as usize;
                        let count = reader.read(&mut self.buffer[..wanted])?;
                        file.write_all(&self.buffer[..count])?;
                        // The pieces are short; their bytes go into the recipe as they are.
                        if let Some(recipe) = &mut self.recipe {
                            recipe.raw(&self.buffer[..count])?;
                        }
                        left -= count as u64;
                    }
                }
                file.set_len(sparse.size)?;
                self.bytes += entry.size;
            }
        }
        self.attributes(entry, parent, name)?;
        let times = time(entry.mtime);
        Ok(nix::sys::stat::futimens(&file, &times, &times)?)
    }

    /// Owner, mode and extended attributes, in the order in which the kernel does not take one back for another
    /// (chown clears set-id bits and capabilities).
    fn attributes(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let file_name = OsStr::from_bytes(if name.is_empty() { b"." } else { name });
        let (uid, gid) = self.options.owner.unwrap_or((entry.uid, entry.gid));
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fchownat(parent, file_name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if entry.kind != Kind::Symlink {
            fchmodat(parent, file_name, Mode::from_bits_truncate(entry.mode), FchmodatFlags::FollowSymlink)?;
        }
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| is_kept(key)) {
            match xattr::set(at(parent, name), OsStr::from_bytes(key), value) {
                // Not every file system and not every kind of file can have every attribute; Docker drops these too.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTSUP | libc::EPERM)) => {
                    log::warn!("{}: attribute {} is not kept: {error}", show(&entry.path), show(key));
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Removes what stands at `path`, unless it is a folder and the entry too. True: it was a whiteout, which a folder
    /// in its place must go on being.
    fn clear(&mut self, kind: Kind, path: &[u8], parent: &OwnedFd, name: &[u8]) -> io::Result<bool> {
        let file_name = OsStr::from_bytes(name);
        let found = match fstatat(parent, file_name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::ENOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let format = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
        match (&mut self.recipe, format) {
            (_, SFlag::S_IFDIR) if kind == Kind::Directory => return Ok(false),
            (Some(recipe), SFlag::S_IFDIR | SFlag::S_IFREG) => {
                std::fs::rename(at(parent, name), recipe.replaced(path)?)?;
            }
            (None, SFlag::S_IFDIR) => std::fs::remove_dir_all(at(parent, name))?,
            _ => unlinkat(parent, file_name, UnlinkatFlags::NoRemoveDir)?,
        }
        self.folders.retain(|(folder, _)| !below(folder, path));
        Ok(self.options.whiteouts == Whiteouts::Overlay && format == SFlag::S_IFCHR && found.st_rdev == 0)
    }

    /// `.wh.NAME` hides NAME of the layers below; `.wh..wh..opq` hides all that is in the folder there.
    fn whiteout(&mut self, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        if name == OPAQUE_WHITEOUT {
            return xattr::set(at(parent, b""), OPAQUE, b"y");
        }
        // Other `.wh..wh.` names are aufs's own books.
        if name.starts_with(b".wh..wh.") {
            return Ok(());
        }
        let hidden = hidden_by(name)?;
        match mknodat(parent, OsStr::from_bytes(hidden), SFlag::S_IFCHR, Mode::empty(), 0) {
            // Whiteouts speak of the layers below: what this layer itself brings stays, but hides what is below.
            Err(Errno::EEXIST) => {
                let found = fstatat(parent, OsStr::from_bytes(hidden), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
                    xattr::set(at(parent, hidden), OPAQUE, b"y")?;
                }
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// The same where the layers below lie in the same folder: what is hidden goes away.
    fn apply_whiteout(&mut self, folder: &[u8], parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let joined = |child: &[u8]| if folder.is_empty() { child.to_vec() } else { [folder, b"/", child].concat() };
        let hidden: Vec<Vec<u8>> = if name == OPAQUE_WHITEOUT {
            let children = std::fs::read_dir(at(parent, b""))?;
            children.map(|child| Ok(child?.file_name().as_bytes().to_vec())).collect::<io::Result<_>>()?
        } else if name.starts_with(b".wh..wh.") {
            Vec::new()
        } else {
            vec![hidden_by(name)?.to_vec()]
        };
        for child in hidden {
            let path = joined(&child);
            if self.made.contains(&path) {
                // A folder that this layer brought again: what it has of the layers below is hidden.
                if let Ok(inside) = openat(parent, OsStr::from_bytes(&child), FOLDER, Mode::empty()) {
                    self.apply_whiteout(&path, &inside, OPAQUE_WHITEOUT)?;
                }
                continue;
            }
            self.clear(Kind::File, &path, parent, &child)?;
        }
        Ok(())
    }

    /// The end: the folders' times, and what follows the archive.
    fn finish(mut self, reader: &mut Reader<impl Read>) -> io::Result<u64> {
        if let Some(recipe) = &mut self.recipe {
            recipe.raw(&reader.take_raw())?;
        }
        let recipe = &mut self.recipe;
        reader.rest(|bytes| recipe.as_mut().map_or(Ok(()), |recipe| recipe.raw(bytes)))?;
        for (path, mtime) in self.folders.iter().rev() {
            let times = time(*mtime);
            let folder = self.root.folder(path)?;
            utimensat(&folder, ".", &times, &times, UtimensatFlags::NoFollowSymlink)?;
        }
        Ok(self.bytes)
    }
}

/// A folder as a handle, and no link to one.
const FOLDER: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The name that the whiteout `name` hides.
fn hidden_by(name: &[u8]) -> io::Result<&[u8]> {
    match &name[WHITEOUT.len()..] {
        b"" | b"." | b".." => Err(refused("a whiteout of nothing")),
        hidden => Ok(hidden),
    }
}

/// Whether `path` is `folder` or inside it.
fn below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn missing_target(target: &[u8], error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            refused(&format!("a hard link to {}, which the archive does not have", show(target)))
        }
        _ => error,
    }
}

fn time((seconds, nanoseconds): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, nanoseconds.into())
}

/// Attributes that belong to a file wherever it goes. Labels of the host's security modules do not, and overlayfs's
/// own could point the mount at other folders.
pub fn is_kept(key: &[u8]) -> bool {
    key == b"security.capability"
        || key.starts_with(b"user.")
        || key.starts_with(b"system.posix_acl_")
        || (key.starts_with(b"trusted.") && !key.starts_with(b"trusted.overlay."))
}
