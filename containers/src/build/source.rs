//! What a build reads: the Dockerfile, `.dockerignore`, and the files that COPY and ADD name, in the context or in
//! another image. Symbolic links are resolved as if that were `/`.

use super::{Failure, ignore};
use crate::{
    error::{Context, Error, Result},
    image::{
        digest::hex,
        rooted::{Root, clean, split},
        unpack::is_kept,
    },
};
use nix::fcntl::OFlag;
use regex::bytes::Regex;
use sha2::{Digest, Sha256};
use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
};

/// The most bytes of a Dockerfile or a `.dockerignore`.
const TEXT_MAX: u64 = 4 << 20;

/// The text of the Dockerfile at `path` inside `context`.
pub fn read_dockerfile(context: &Path, path: &str) -> Result<String, Failure> {
    let text = read_text(context, path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::at(path, 0, format!("Cannot locate specified Dockerfile: {path} is not in the build context"))
        }
        _ => Failure::at(path, 0, error),
    })?;
    Ok(text)
}

/// Removes from `context` what its `.dockerignore` names.
pub fn apply_ignore(context: &Path) -> Result<(), Failure> {
    const NAME: &str = ".dockerignore";
    let text = match read_text(context, NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| Failure::at(NAME, 0, error))?,
    };
    let rules = ignore::Ignore::parse(&text).map_err(Error::Invalid)?;
    Ok(rules.apply(context).at("leave files out of", context)?)
}

fn read_text(context: &Path, path: &str) -> io::Result<String> {
    let file = Root::open(context)?.file(path.as_bytes(), OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file"));
    }
    let mut text = String::new();
    file.take(TEXT_MAX + 1).read_to_string(&mut text)?;
    match text.len() as u64 > TEXT_MAX {
        true => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("more than {TEXT_MAX} bytes"))),
        false => Ok(text),
    }
}

/// A file or folder that is to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is, all links resolved.
    pub path: PathBuf,
    /// Its name as written: what it is called in a target folder. Empty for the root.
    pub name: Vec<u8>,
}

/// Where `path` leads below `root`, links followed, and what is there.
pub fn resolve(root: &Root, path: &[u8]) -> io::Result<PathBuf> {
    let file = root.file(path, OFlag::O_PATH)?;
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Where sources are looked for, for the error's sake.
pub const CONTEXT: &str = "build context or excluded by .dockerignore";

/// What a source of COPY or ADD names below `folder`: a path, or a pattern of Go's filepath.Match. `place` says what the
/// folder is.
pub fn find(folder: &Path, place: &str, source: &str) -> Result<Vec<Found>> {
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::invalid(format!("file not found in {place}: stat {source}: file does not exist"))
        }
        _ => Error::Io { doing: format!("look up {source}"), source: error },
    };
    let root = Root::open(folder).at("open", folder)?;
    let path = clean(source.as_bytes())
        .ok_or_else(|| Error::invalid(format!("forbidden path outside the build context: {source}")))?;
    let is_pattern = |part: &[u8]| part.iter().any(|byte| b"*?[\\".contains(byte));
    if !is_pattern(&path) {
        let name = split(&path).1.to_vec();
        return Ok(vec![Found { path: resolve(&root, &path).map_err(missing)?, name }]);
    }
    let mut found: Vec<Vec<u8>> = vec![Vec::new()];
    for part in path.split(|byte| *byte == b'/') {
        let mut next = Vec::new();
        for parent in &found {
            let join = |name: &[u8]| if parent.is_empty() { name.to_vec() } else { [&parent[..], b"/", name].concat() };
            if !is_pattern(part) {
                next.push(join(part));
                continue;
            }
            let Ok(folder) = root.folder(parent).and_then(|_| resolve(&root, parent)) else { continue };
            let regex = pattern(part).ok_or_else(|| Error::invalid(format!("syntax error in pattern {source}")))?;
            let mut names = Vec::new();
            for entry in fs::read_dir(&folder).at("list", &folder)? {
                names.push(entry.at("list", &folder)?.file_name());
            }
            names.sort();
            next.extend(names.iter().filter(|name| regex.is_match(name.as_bytes())).map(|name| join(name.as_bytes())));
        }
        found = next;
    }
    let found: Vec<Found> = found
        .into_iter()
        .filter_map(|path| {
            let name = split(&path).1.to_vec();
            Some(Found { path: resolve(&root, &path).ok()?, name })
        })
        .collect();
    match found.is_empty() {
        true => Err(Error::invalid(format!("no source files were specified: nothing fits {source}"))),
        false => Ok(found),
    }
}

/// One part of a path as a regular expression. Two stars are but one here, unlike in `.dockerignore`.
fn pattern(part: &[u8]) -> Option<Regex> {
    let mut text = std::str::from_utf8(part).ok()?.to_owned();
    while text.contains("**") {
        text = text.replace("**", "*");
    }
    Regex::new(&ignore::translate(&text)?).ok()
}

/// A digest over names, kinds, modes, attributes and contents, and with `owners` over owners, not over times; led by
/// `file:`, `dir:` or `multi:`, as in Docker's history.
pub fn digest(found: &[Found], owners: bool) -> Result<String> {
    let mut digest = Digester { state: Sha256::new(), owners, buffer: vec![0; 128 << 10] };
    let mut kind = "multi";
    for one in found {
        let meta = fs::symlink_metadata(&one.path).at("look at", &one.path)?;
        if found.len() == 1 {
            kind = if meta.is_dir() { "dir" } else { "file" };
        }
        // The contents of a folder are copied, not the folder: its name and attributes are of no account.
        match meta.is_dir() {
            true => digest.folder(&one.path)?,
            false => digest.entry(&one.name, &one.path, &meta)?,
        }
    }
    Ok(format!("{kind}:{}", hex(&digest.state.finalize())))
}

struct Digester {
    state: Sha256,
    owners: bool,
    buffer: Vec<u8>,
}

impl Digester {
    fn part(&mut self, bytes: &[u8]) {
        self.state.update((bytes.len() as u64).to_le_bytes());
        self.state.update(bytes);
    }

    fn folder(&mut self, folder: &Path) -> Result<()> {
        for child in children(folder)? {
            let meta = fs::symlink_metadata(&child).at("look at", &child)?;
            self.entry(child.file_name().unwrap_or_default().as_bytes(), &child, &meta)?;
        }
        self.part(b"/");
        Ok(())
    }

    fn entry(&mut self, name: &[u8], path: &Path, meta: &Metadata) -> Result<()> {
        self.part(name);
        let (owner, group) = if self.owners { (meta.uid(), meta.gid()) } else { (0, 0) };
        let device = if meta.file_type().is_file() || meta.is_dir() { 0 } else { meta.rdev() };
        self.part(format!("{:o} {owner} {group} {device}", meta.mode()).as_bytes());
        for (key, value) in attributes(path)? {
            self.part(&key);
            self.part(&value);
        }
        if meta.is_dir() {
            return self.folder(path);
        }
        if meta.is_symlink() {
            let target = fs::read_link(path).at("read", path)?;
            self.part(target.as_os_str().as_bytes());
        } else if meta.is_file() {
            let mut file = open(path)?;
            self.state.update(meta.len().to_le_bytes());
            loop {
                let count = file.read(&mut self.buffer).at("read", path)?;
                if count == 0 {
                    break;
                }
                self.state.update(&self.buffer[..count]);
            }
        }
        Ok(())
    }
}

/// What is in a folder, sorted by name, without sockets: nothing can be copied of these.
pub fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(folder).at("list", folder)? {
        let entry = entry.at("list", folder)?;
        if !entry.file_type().at("look at", &entry.path())?.is_socket() {
            children.push(entry.path());
        }
    }
    children.sort();
    Ok(children)
}

/// A regular file, opened for reading; not through a link.
pub fn open(path: &Path) -> Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).at("open", path)
}

/// The attributes that a copy of a file has, too; sorted.
pub fn attributes(path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error).at("list attributes of", path),
    };
    let mut found = Vec::new();
    for name in names.filter(|name| is_kept(name.as_bytes())) {
        if let Some(value) = xattr::get(path, OsStr::new(&name)).at("read an attribute of", path)? {
            found.push((name.as_bytes().to_vec(), value));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn context() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("d/e")).unwrap();
        for file in ["a.txt", "b.txt", "d/c.txt", "d/e/f.txt", ".hidden"] {
            fs::write(at(file), file).unwrap();
        }
        symlink("/d", at("link")).unwrap();
        symlink("/etc/passwd", at("outside")).unwrap();
        folder
    }

    fn names(folder: &Path, source: &str) -> Result<Vec<String>> {
        let root = folder.canonicalize().unwrap();
        let name = |found: Found| {
            let path = found.path.strip_prefix(&root).unwrap().display().to_string();
            format!("{path}={}", String::from_utf8(found.name).unwrap())
        };
        Ok(find(folder, CONTEXT, source)?.into_iter().map(name).collect())
    }

    #[test]
    fn sources_are_found_by_path_and_by_pattern() {
        let folder = context();
        for (source, expected) in [
            ("a.txt", &["a.txt=a.txt"][..]),
            ("/d/c.txt", &["d/c.txt=c.txt"]),
            (".", &["="]),
            ("d/", &["d=d"]),
            ("link", &["d=link"]),
            ("link/c.txt", &["d/c.txt=c.txt"]),
            ("*.txt", &["a.txt=a.txt", "b.txt=b.txt"]),
            ("[ab].txt", &["a.txt=a.txt", "b.txt=b.txt"]),
            ("d/*/f*", &["d/e/f.txt=f.txt"]),
            ("**/c.txt", &["d/c.txt=c.txt", "d/c.txt=c.txt"]),
        ] {
            assert_eq!(names(folder.path(), source).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn nothing_outside_is_found() {
        let folder = context();
        for (source, text) in [
            ("../x", "forbidden path outside the build context: ../x"),
            ("outside", "file not found in build context"),
            ("none", "stat none: file does not exist"),
            ("a.txt/b", "file not found"),
            ("none*", "no source files were specified"),
            ("[a", "syntax error in pattern"),
        ] {
            let error = names(folder.path(), source).unwrap_err().to_string();
            assert!(error.contains(text), "{source}: {error}");
        }
    }

    #[test]
    fn the_digest_is_of_contents_names_and_modes_not_of_times() {
        let one = context();
        let of = |folder: &tempfile::TempDir| digest(&find(folder.path(), CONTEXT, "d").unwrap(), false).unwrap();
        let before = of(&one);
        assert!(before.starts_with("dir:"));
        assert_eq!(of(&context()), before);
        let file = one.path().join("d/e/f.txt");
        File::options().write(true).open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(of(&one), before);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let changed = of(&one);
        assert_ne!(changed, before);
        fs::write(&file, "F.txt").unwrap();
        assert_ne!(of(&one), changed);
    }

    #[test]
    fn the_dockerfile_is_found_inside_only() {
        let folder = context();
        assert_eq!(read_dockerfile(folder.path(), "link/c.txt").unwrap(), "d/c.txt");
        for path in ["none", "outside", "d"] {
            assert!(read_dockerfile(folder.path(), path).is_err(), "{path}");
        }
    }
}
