//! Files below a root that nothing inside can lead out of: the kernel resolves `..`, absolute paths and symbolic links
//! as if the root were `/` (openat2(2), RESOLVE_IN_ROOT).

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};
use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{fd::AsFd, fd::AsRawFd, fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

/// A folder as the root of every lookup.
pub struct Root {
    folder: File,
}

impl Root {
    pub fn open(path: &Path) -> io::Result<Root> {
        Ok(Root { folder: File::open(path)? })
    }

    /// Opens `path` below the root; the last component is followed unless `flags` has O_NOFOLLOW.
    pub fn file(&self, path: &[u8], flags: OFlag) -> io::Result<OwnedFd> {
        let how = || {
            OpenHow::new()
                .flags(flags | OFlag::O_CLOEXEC)
                .mode(Mode::empty())
                .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
        };
        let path = if path.is_empty() { b"." } else { path };
        // EAGAIN: something was renamed while the kernel resolved a `..`; the manual says to try again.
        for _ in 0..64 {
            match openat2(self.folder.as_fd(), OsStr::from_bytes(path), how()) {
                Err(Errno::EAGAIN) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// A folder below the root, as a handle for the `…at` calls.
    pub fn folder(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.file(path, OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    /// The same, missing folders made (mode 0755).
    pub fn folder_made(&self, path: &[u8]) -> io::Result<OwnedFd> {
        match self.folder(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (parent, name) = split(path);
        let parent = self.folder_made(parent)?;
        match nix::sys::stat::mkdirat(&parent, OsStr::from_bytes(name), Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => self.folder(path),
            Err(error) => Err(error.into()),
        }
    }
}

/// A path that names `name` in the open folder, for calls that have no `…at` form (xattrs, rename, removal). The
/// folder itself where `name` is empty.
pub fn at(folder: &OwnedFd, name: &[u8]) -> PathBuf {
    let name = if name.is_empty() { b"." } else { name };
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(OsStr::from_bytes(name))
}

/// A clean path's folder and last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// `path` without empty and `.` components; None where a `..` leads above the root. Empty: the root itself.
pub fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_keeps_paths_below_the_root() {
        for (path, clean_path) in [
            ("a/b", Some("a/b")),
            ("./a//b/.", Some("a/b")),
            ("/etc/x", Some("etc/x")),
            ("a/../b", Some("b")),
            ("./", Some("")),
            ("..", None),
            ("a/../../b", None),
        ] {
            assert_eq!(clean(path.as_bytes()), clean_path.map(|path| path.as_bytes().to_vec()), "{path}");
        }
    }
}
