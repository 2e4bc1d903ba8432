//! COPY and ADD without a container: files go into the mounted image. Paths are resolved inside it, whatever links it
//! has; owners are root unless asked otherwise.

use super::source::{self, Found, attributes, children, resolve};
use crate::{
    error::{Context, Error, Result},
    image::{
        compression::decompress,
        rooted::{Root, at, clean, split},
        tar_read::Reader,
        unpack::{Options, unpack},
    },
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag},
    sys::stat::{Mode, SFlag, UtimensatFlags, mkdirat, mknod, utimensat},
    sys::time::TimeSpec,
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File, Metadata, Permissions},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
    },
    path::{Path, PathBuf},
};

/// How files are put into place.
#[derive(Debug, Clone, Default)]
pub struct Placing {
    /// Absolute; a slash at the end makes it a folder.
    pub target: String,
    /// `--chown`, as written.
    pub chown: Option<String>,
    /// The owners of another image's files stay. Otherwise they belong to root.
    pub keep_owners: bool,
    /// ADD: archives are unpacked.
    pub unpack: bool,
}

/// Puts `found` into the file system at `merged`.
pub fn place(found: &[Found], merged: &Path, placing: &Placing) -> Result<()> {
    let root = Root::open(merged).at("open", merged)?;
    let chown = placing.chown.as_deref().map(|owner| look_up(&root, owner)).transpose()?;
    let mut placer = Placer {
        base: resolve(&root, b"").at("look at", merged)?,
        root,
        owner: chown.or((!placing.keep_owners).then_some((0, 0))),
        new_owner: chown.unwrap_or((0, 0)),
        links: HashMap::new(),
    };
    let target = clean(placing.target.as_bytes())
        .ok_or_else(|| Error::invalid(format!("{} leads out of the image", placing.target)))?;
    let names_folder = placing.target.ends_with('/') || found.len() > 1;
    for one in found {
        let meta = fs::symlink_metadata(&one.path).at("look at", &one.path)?;
        if meta.is_dir() {
            let folder = placer.folder(&target)?;
            placer.contents(&one.path, &folder)?;
        } else if placing.unpack && is_archive(&one.path) {
            let folder = placer.folder(&target)?;
            let archive = decompress(source::open(&one.path)?)?;
            unpack(archive, &folder, Options { owner: chown, ..Options::default() }, None)?;
        } else {
            placer.file(one, &meta, &target, names_folder)?;
        }
    }
    Ok(())
}

/// Makes the folder `path` in the file system at `merged`, as WORKDIR does; missing parents, too.
pub fn make_folder(merged: &Path, path: &str) -> Result<()> {
    let root = Root::open(merged).at("open", merged)?;
    let path = clean(path.as_bytes()).ok_or_else(|| Error::invalid(format!("{path} leads out of the image")))?;
    let base = merged.to_owned();
    Placer { root, base, owner: None, new_owner: (0, 0), links: HashMap::new() }.folder(&path).map(drop)
}

/// Whether a file is a tar archive, plain or compressed: its first entry can be read.
fn is_archive(path: &Path) -> bool {
    source::open(path)
        .and_then(decompress)
        .is_ok_and(|stream| Reader::new(stream, false).entry().is_ok_and(|entry| entry.is_some()))
}

struct Placer {
    root: Root,
    /// Where the root is.
    base: PathBuf,
    /// Of everything that is copied; None: as it was.
    owner: Option<(u32, u32)>,
    /// Of folders that the target's path needs.
    new_owner: (u32, u32),
    /// Device and inode of files with several names → where the first one was put.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Placer {
    /// The folder at `path` (clean), made where it is missing; where it really is.
    fn folder(&self, path: &[u8]) -> Result<PathBuf> {
        self.made(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory => Error::invalid(format!(
                "cannot copy to non-directory: /{} is a file, or lies below one",
                String::from_utf8_lossy(path)
            )),
            _ => Error::Io { doing: format!("make the folder /{}", String::from_utf8_lossy(path)), source: error },
        })
    }

    fn made(&self, path: &[u8]) -> io::Result<PathBuf> {
        match self.root.folder(path) {
            Ok(_) => return resolve(&self.root, path),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        let (parent, name) = split(path);
        self.made(parent)?;
        let parent = self.root.folder(parent)?;
        match mkdirat(&parent, OsStr::from_bytes(name), Mode::from_bits_truncate(0o755)) {
            Ok(()) => lchown(at(&parent, name), Some(self.new_owner.0), Some(self.new_owner.1))?,
            // A link that leads nowhere: the folder that it names is made.
            Err(Errno::EEXIST) => {
                let link = fs::read_link(at(&parent, name))?;
                let target = match link.is_absolute() {
                    true => link.as_os_str().as_bytes().to_vec(),
                    false => [split(path).0, b"/", link.as_os_str().as_bytes()].concat(),
                };
                let target = clean(&target).filter(|target| target != path);
                return self.made(&target.ok_or(Errno::ELOOP)?);
            }
            Err(error) => return Err(error.into()),
        }
        resolve(&self.root, path)
    }

    /// One file, into the folder `target`, or under that name.
    fn file(&mut self, one: &Found, meta: &Metadata, target: &[u8], names_folder: bool) -> Result<()> {
        if names_folder || self.root.folder(target).is_ok() {
            let folder = self.folder(target)?;
            return self.entry(&one.path, meta, &folder.join(OsStr::from_bytes(&one.name)));
        }
        // Where a link stands, the file that it leads to is replaced.
        let path = match resolve(&self.root, target) {
            Ok(path) => path,
            Err(_) => {
                let (parent, name) = split(target);
                self.folder(parent)?.join(OsStr::from_bytes(name))
            }
        };
        self.entry(&one.path, meta, &path)
    }

    fn contents(&mut self, from: &Path, to: &Path) -> Result<()> {
        for child in children(from)? {
            let meta = fs::symlink_metadata(&child).at("look at", &child)?;
            let name = child.file_name().unwrap_or_default();
            self.entry(&child, &meta, &to.join(name))?;
        }
        Ok(())
    }

    /// Puts `from` at `to`, whose parent is a real folder, in place of what stands there; folders are merged.
    fn entry(&mut self, from: &Path, meta: &Metadata, to: &Path) -> Result<()> {
        let there = match fs::symlink_metadata(to) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).at("look at", to),
        };
        // A folder does not take the place of a link to one, as in `COPY files/ /` with a `files/bin`, where /bin leads
        // to usr/bin: it goes where the link leads.
        if meta.is_dir()
            && there.as_ref().is_some_and(Metadata::is_symlink)
            && let Ok(inside) = to.strip_prefix(&self.base)
            && let Ok(folder) = resolve(&self.root, inside.as_os_str().as_bytes())
            && folder.is_dir()
        {
            return self.contents(from, &folder);
        }
        let merges = meta.is_dir() && there.as_ref().is_some_and(Metadata::is_dir);
        match &there {
            Some(there) if there.is_dir() && !merges => fs::remove_dir_all(to).at("replace", to)?,
            Some(_) if !merges => fs::remove_file(to).at("replace", to)?,
            _ => {}
        }
        if meta.is_dir() {
            if !merges {
                fs::create_dir(to).at("create", to)?;
            }
            self.contents(from, to)?;
        } else {
            let key = (meta.dev(), meta.ino());
            if meta.nlink() > 1
                && let Some(first) = self.links.get(&key)
            {
                return fs::hard_link(first, to).at("link", to);
            }
            if meta.nlink() > 1 {
                self.links.insert(key, to.to_owned());
            }
            self.leaf(from, meta, to)?;
        }
        self.dress(from, meta, to)
    }

    /// A new file that is no folder.
    fn leaf(&self, from: &Path, meta: &Metadata, to: &Path) -> Result<()> {
        if meta.is_symlink() {
            let target = fs::read_link(from).at("read", from)?;
            return symlink(target, to).at("create", to);
        }
        if meta.is_file() {
            let mut source = source::open(from)?;
            let mut copy = File::options().write(true).create_new(true).mode(0o600).open(to).at("create", to)?;
            return io::copy(&mut source, &mut copy).at("write", to).map(drop);
        }
        let kind = SFlag::from_bits_truncate(meta.mode()) & SFlag::S_IFMT;
        mknod(to, kind, Mode::from_bits_truncate(0o600), meta.rdev()).at("create", to)
    }

    /// Owner, attributes, mode and times, in the order in which they do not undo each other.
    fn dress(&self, from: &Path, meta: &Metadata, to: &Path) -> Result<()> {
        let (owner, group) = self.owner.unwrap_or((meta.uid(), meta.gid()));
        lchown(to, Some(owner), Some(group)).at("set the owner of", to)?;
        if !meta.is_symlink() {
            for (key, value) in attributes(from)? {
                xattr::set(to, OsStr::from_bytes(&key), &value).at("set an attribute of", to)?;
            }
            fs::set_permissions(to, Permissions::from_mode(meta.mode() & 0o7777)).at("set the mode of", to)?;
        }
        let time = TimeSpec::new(meta.mtime(), meta.mtime_nsec());
        utimensat(AT_FDCWD, to, &time, &time, UtimensatFlags::NoFollowSymlink).at("set the time of", to)
    }
}

/// The numbers of `user[:group]` in the image. A user alone stands for the group of that name, too, as with dockerd, and
/// where there is none for the one of that number, as with BuildKit.
fn look_up(root: &Root, owner: &str) -> Result<(u32, u32)> {
    let (user, group) = match owner.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (owner, None),
    };
    let uid = number(root, "etc/passwd", user, "user")?;
    let gid = match group {
        Some(group) => number(root, "etc/group", group, "group")?,
        None => number(root, "etc/group", user, "group").unwrap_or(uid),
    };
    Ok((uid, gid))
}

fn number(root: &Root, file: &str, name: &str, kind: &str) -> Result<u32> {
    /// Of an account file: larger ones are none.
    const MOST: u64 = 4 << 20;
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let unknown = || Error::invalid(format!("--chown: unable to find {kind} {name}: no matching entries in /{file}"));
    let Ok(accounts) = root.file(file.as_bytes(), OFlag::O_RDONLY | OFlag::O_NONBLOCK) else { return Err(unknown()) };
    let mut text = Vec::new();
    File::from(accounts).take(MOST).read_to_end(&mut text).doing(format!("read /{file}"))?;
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == name)
        .and_then(|fields| fields.get(2)?.parse().ok())
        .ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::source::{CONTEXT, find};

    struct Case {
        _folder: tempfile::TempDir,
        context: PathBuf,
        image: PathBuf,
    }

    /// A context with a few files, and an image whose /bin and /var/run are links.
    fn case() -> Case {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let (context, image) = (base.join("context"), base.join("image"));
        for path in ["context/d/bin", "image/usr/bin", "image/run", "image/var", "image/etc", "image/there"] {
            fs::create_dir_all(base.join(path)).unwrap();
        }
        for (path, text) in [
            ("context/a", "a"),
            ("context/b", "b"),
            ("context/d/bin/tool", "tool"),
            ("context/d/file", "file"),
            ("image/usr/bin/sh", "sh"),
            ("image/etc/real", "old"),
            ("image/etc/passwd", "root:x:0:0::/:\nwww:x:33:34::/:\nboth:x:60:61::/:\n"),
            ("image/etc/group", "root:x:0:\nstaff:x:50:\nboth:x:51:\n"),
        ] {
            fs::write(base.join(path), text).unwrap();
        }
        symlink("usr/bin", image.join("bin")).unwrap();
        symlink("/run", image.join("var/run")).unwrap();
        symlink("/lost", image.join("dangling")).unwrap();
        symlink("/etc/real", image.join("etc/link")).unwrap();
        symlink("file", context.join("d/link")).unwrap();
        Case { _folder: folder, context, image }
    }

    impl Case {
        fn copy(&self, sources: &[&str], target: &str) -> Result<()> {
            self.copy_with(sources, Placing { target: target.into(), ..Placing::default() })
        }

        fn copy_with(&self, sources: &[&str], placing: Placing) -> Result<()> {
            let found: Vec<Found> =
                sources.iter().flat_map(|source| find(&self.context, CONTEXT, source).unwrap()).collect();
            place(&found, &self.image, &placing)
        }

        fn text(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.image.join(path)).ok()
        }
    }

    #[test]
    fn a_file_goes_to_a_name_or_into_a_folder() {
        let case = case();
        for (target, path) in [
            ("/x", "x"),
            ("/new/deep/x", "new/deep/x"),
            ("/new2/", "new2/a"),
            ("/there", "there/a"),
            ("/", "a"),
            ("/var/run/x", "run/x"),
            ("/bin/", "usr/bin/a"),
            ("/dangling/", "lost/a"),
            ("/etc/link", "etc/real"),
        ] {
            case.copy(&["a"], target).unwrap();
            assert_eq!(case.text(path).as_deref(), Some("a"), "{target}");
        }
        let meta = fs::metadata(case.image.join("new/deep")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o755, 0));
        assert!(case.image.join("etc/link").is_symlink());
    }

    #[test]
    fn a_folder_s_contents_are_merged_and_links_to_folders_stay() {
        let case = case();
        fs::create_dir(case.image.join("file")).unwrap();
        case.copy(&["d"], "/").unwrap();
        assert_eq!(case.text("usr/bin/tool").as_deref(), Some("tool"));
        assert_eq!(case.text("usr/bin/sh").as_deref(), Some("sh"));
        assert!(case.image.join("bin").is_symlink());
        // A file takes a folder's place; a link is copied as one.
        assert_eq!(case.text("file").as_deref(), Some("file"));
        assert_eq!(fs::read_link(case.image.join("link")).unwrap(), Path::new("file"));
        case.copy(&["a", "d"], "/several/").unwrap();
        assert_eq!((case.text("several/a"), case.text("several/bin/tool")), (Some("a".into()), Some("tool".into())));
        let error = case.copy(&["d"], "/etc/real").unwrap_err().to_string();
        assert!(error.contains("cannot copy to non-directory: /etc/real"), "{error}");
    }

    #[test]
    fn owners_are_root_or_those_of_chown() {
        let case = case();
        lchown(case.context.join("a"), Some(7), Some(8)).unwrap();
        let owners = |path: &str| {
            let meta = fs::symlink_metadata(case.image.join(path)).unwrap();
            (meta.uid(), meta.gid())
        };
        case.copy(&["a"], "/x").unwrap();
        assert_eq!(owners("x"), (0, 0));
        case.copy_with(&["a"], Placing { target: "/y".into(), keep_owners: true, ..Placing::default() }).unwrap();
        assert_eq!(owners("y"), (7, 8));
        for (chown, expected) in
            [("www:staff", (33, 50)), ("www", (33, 33)), ("both", (60, 51)), ("5", (5, 5)), ("5:staff", (5, 50))]
        {
            let placing = Placing { target: "/made/z".into(), chown: Some(chown.into()), ..Placing::default() };
            case.copy_with(&["a"], placing).unwrap();
            assert_eq!(owners("made/z"), expected, "{chown}");
        }
        assert_eq!(owners("made"), (33, 50));
        let placing = Placing { target: "/z".into(), chown: Some("nobody".into()), ..Placing::default() };
        let error = case.copy_with(&["a"], placing).unwrap_err().to_string();
        assert!(error.contains("unable to find user nobody"), "{error}");
    }

    #[test]
    fn modes_times_attributes_and_hard_links_are_kept() {
        let case = case();
        fs::set_permissions(case.context.join("d/file"), Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(case.context.join("d/file"), case.context.join("d/same")).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        File::options().write(true).open(case.context.join("d/file")).unwrap().set_modified(time).unwrap();
        case.copy(&["d"], "/copy").unwrap();
        let meta = fs::metadata(case.image.join("copy/file")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.nlink(), meta.modified().unwrap()), (0o4751, 2, time));
    }

    #[test]
    fn only_add_unpacks_and_only_archives() {
        let case = case();
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        tar.append_dir_all("inside", case.context.join("d")).unwrap();
        let archive = tar.into_inner().unwrap().finish().unwrap();
        fs::write(case.context.join("x.tgz"), archive).unwrap();
        case.copy(&["x.tgz"], "/copied/").unwrap();
        assert!(case.image.join("copied/x.tgz").is_file());
        let placing = Placing { target: "/added".into(), unpack: true, ..Placing::default() };
        case.copy_with(&["x.tgz"], placing.clone()).unwrap();
        assert_eq!(case.text("added/inside/file").as_deref(), Some("file"));
        case.copy_with(&["a"], Placing { target: "/plain".into(), ..placing }).unwrap();
        assert_eq!(case.text("plain").as_deref(), Some("a"));
    }
}
