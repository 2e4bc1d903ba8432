//! Writes a folder as a canonical tar: the same files give the same bytes, whoever runs it and whenever.
//!
//! Entries are sorted by their names' bytes, parents first; times are whole seconds; there are no user names; what
//! ustar can't express goes into a PAX header. overlayfs's whiteouts become those of a layer (OCI image-spec,
//! layer.md).

use super::{
    tar_read::{BLOCK, show},
    unpack::{OPAQUE, OPAQUE_WHITEOUT, WHITEOUT, is_kept},
};
use crate::error::{Context, Error, Result};
use nix::sys::stat::{major, minor};
use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// What was packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Writes what is in `folder` (not the folder itself) to `out`, two blocks of zeros at the end.
pub fn pack(folder: &Path, out: impl Write) -> Result<Packed> {
    let mut packer = Packer { out, links: HashMap::new(), packed: Packed::default(), buffer: vec![0; 128 << 10] };
    if xattr::get(folder, OPAQUE).unwrap_or_default().is_some_and(|value| value == b"y") {
        packer.marker(OPAQUE_WHITEOUT)?;
    }
    packer.folder(folder, b"")?;
    packer.out.write_all(&[0; 2 * BLOCK]).doing("write the archive's end")?;
    packer.out.flush().doing("write the archive's end")?;
    Ok(packer.packed)
}

struct Packer<W> {
    out: W,
    /// Device and inode of files with several names → the first name.
    links: HashMap<(u64, u64), Vec<u8>>,
    packed: Packed,
    buffer: Vec<u8>,
}

/// The fields of a header.
#[derive(Default)]
struct Header<'a> {
    path: &'a [u8],
    link: &'a [u8],
    kind: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i64,
    device: (u64, u64),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<W: Write> Packer<W> {
    fn folder(&mut self, folder: &Path, prefix: &[u8]) -> Result<()> {
        let mut children: Vec<PathBuf> = fs::read_dir(folder)
            .and_then(|children| children.map(|child| Ok(child?.path())).collect())
            .at("list", folder)?;
        children.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        for child in children {
            let name = child.file_name().unwrap_or_default().as_bytes();
            let path = if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() };
            let meta = fs::symlink_metadata(&child).at("look at", &child)?;
            if meta.is_dir() {
                self.header(&child, &meta, b'5', &[&path[..], b"/"].concat(), b"")?;
                if xattr::get(&child, OPAQUE).unwrap_or_default().is_some_and(|value| value == b"y") {
                    self.marker(&[&path[..], b"/", OPAQUE_WHITEOUT].concat())?;
                }
                self.folder(&child, &path)?;
            } else {
                self.leaf(&child, &meta, &path)?;
            }
        }
        Ok(())
    }

    /// Anything but a folder.
    fn leaf(&mut self, file: &Path, meta: &Metadata, path: &[u8]) -> Result<()> {
        let kind = meta.file_type();
        if kind.is_char_device() && meta.rdev() == 0 {
            let (folder, name) = super::rooted::split(path);
            let slash: &[u8] = if folder.is_empty() { b"" } else { b"/" };
            return self.marker(&[folder, slash, WHITEOUT, name].concat());
        }
        if kind.is_socket() {
            // Tar has no sockets; whoever listens on one makes it anew.
            return Ok(());
        }
        if meta.nlink() > 1 {
            let key = (meta.dev(), meta.ino());
            if let Some(first) = self.links.get(&key).cloned() {
                return self.header(file, meta, b'1', path, &first);
            }
            self.links.insert(key, path.to_vec());
        }
        if kind.is_symlink() {
            let target = fs::read_link(file).at("read", file)?;
            return self.header(file, meta, b'2', path, target.as_os_str().as_bytes());
        }
        let letter = match () {
            () if kind.is_char_device() => b'3',
            () if kind.is_block_device() => b'4',
            () if kind.is_fifo() => b'6',
            () => b'0',
        };
        self.header(file, meta, letter, path, b"")?;
        if letter == b'0' { self.contents(file, meta.len()) } else { Ok(()) }
    }

    fn contents(&mut self, path: &Path, size: u64) -> Result<()> {
        let mut file =
            File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path).at("open", path)?.take(size);
        let mut left = size;
        while left > 0 {
            let count = file.read(&mut self.buffer).at("read", path)?;
            if count == 0 {
                return Err(Error::Failed(format!("{} became shorter while it was read", path.display())));
            }
            self.out.write_all(&self.buffer[..count]).at("archive", path)?;
            left -= count as u64;
        }
        let padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
        self.out.write_all(&[0; BLOCK][..padding]).at("archive", path)?;
        self.packed.bytes += size;
        Ok(())
    }

    /// An empty file that says something by its name.
    fn marker(&mut self, path: &[u8]) -> Result<()> {
        self.packed.entries += 1;
        let header = Header { path, kind: b'0', ..Header::default() };
        self.write(&header).doing(format!("archive {}", show(path)))
    }

    fn header(&mut self, file: &Path, meta: &Metadata, kind: u8, path: &[u8], link: &[u8]) -> Result<()> {
        self.packed.entries += 1;
        let header = Header {
            path,
            link,
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            size: if kind == b'0' { meta.len() } else { 0 },
            mtime: meta.mtime(),
            device: if matches!(kind, b'3' | b'4') { (major(meta.rdev()), minor(meta.rdev())) } else { (0, 0) },
            xattrs: if kind == b'1' { Vec::new() } else { xattrs(file)? },
        };
        self.write(&header).at("archive", file)
    }

    fn write(&mut self, header: &Header) -> io::Result<()> {
        let mut records = Vec::new();
        let (prefix, name) = ustar_name(header.path).unwrap_or_else(|| {
            record(&mut records, b"path", header.path);
            (b"", &header.path[..100])
        });
        let link = match header.link.len() > 100 {
            true => {
                record(&mut records, b"linkpath", header.link);
                &header.link[..100]
            }
            false => header.link,
        };
        for (key, value, most) in [
            (&b"uid"[..], u64::from(header.uid), 0o7_777_777),
            (b"gid", header.gid.into(), 0o7_777_777),
            (b"size", header.size, 0o77_777_777_777),
        ] {
            if value > most {
                record(&mut records, key, value.to_string().as_bytes());
            }
        }
        if !(0..=0o77_777_777_777).contains(&header.mtime) {
            record(&mut records, b"mtime", header.mtime.to_string().as_bytes());
        }
        for (key, value) in &header.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", &key[..]].concat(), value);
        }
        if !records.is_empty() {
            let base = super::rooted::split(name.strip_suffix(b"/").unwrap_or(name)).1;
            let name = [b"PaxHeaders.0/", &base[..base.len().min(80)]].concat();
            let pax = Header { mode: 0o644, size: records.len() as u64, kind: b'x', ..Header::default() };
            self.out.write_all(&block(&pax, b"", &name, b""))?;
            self.out.write_all(&records)?;
            let padding = records.len().next_multiple_of(BLOCK) - records.len();
            self.out.write_all(&[0; BLOCK][..padding])?;
        }
        self.out.write_all(&block(header, prefix, name, link))
    }
}

/// A file's attributes that are kept, sorted.
fn xattrs(file: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match xattr::list(file) {
        Ok(names) => names,
        Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error).at("list attributes of", file),
    };
    let mut found = Vec::new();
    for name in names.filter(|name| is_kept(name.as_bytes())) {
        if name.as_bytes().contains(&b'=') {
            log::warn!("{}: PAX has no way to write the attribute {}", file.display(), name.display());
        } else if let Some(value) = xattr::get(file, &name).at("read an attribute of", file)? {
            found.push((name.as_bytes().to_vec(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// A path as ustar's prefix and name, where it fits.
fn ustar_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The leftmost slash whose right side fits into the name; a folder's own last slash is no place to cut.
    let at = (0..path.len() - 1).find(|&at| path[at] == b'/' && path.len() - at - 1 <= 100)?;
    (1..=155).contains(&at).then(|| (&path[..at], &path[at + 1..]))
}

/// Appends a PAX record: its own length in decimal, counted with itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.extend([&b" "[..], key, b"=", value, b"\n"].concat());
}

/// A header block; what is out of a field's range is written as 0, because a PAX record says it.
fn block(header: &Header, prefix: &[u8], name: &[u8], link: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut text = |at: usize, value: &[u8]| block[at..at + value.len()].copy_from_slice(value);
    let octal = |value: u64, digits: usize| {
        let fits = value < 1 << (3 * digits);
        format!("{:0digits$o}", if fits { value } else { 0 })
    };
    text(0, name);
    text(100, octal(header.mode.into(), 7).as_bytes());
    text(108, octal(header.uid.into(), 7).as_bytes());
    text(116, octal(header.gid.into(), 7).as_bytes());
    text(124, octal(header.size, 11).as_bytes());
    text(136, octal(u64::try_from(header.mtime).unwrap_or(0), 11).as_bytes());
    text(148, b"        ");
    text(156, &[header.kind]);
    text(157, link);
    text(257, b"ustar\x0000");
    text(329, octal(header.device.0, 7).as_bytes());
    text(337, octal(header.device.1, 7).as_bytes());
    text(345, prefix);
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
