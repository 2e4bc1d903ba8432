//! How to make a layer's tar again from its unpacked files: the bytes between the files' contents, as they came, and
//! for the contents themselves the files' paths. So a layer that came from elsewhere is stored once, unpacked, and a
//! save gives back the very archive (the same digest) whatever made it.
//!
//! The file is a zstd stream of records: `r` length bytes, `f` size length path, `m` number length path.

use super::{rooted::Root, tar_read::show};
use crate::error::{Context, Error, Result};
use nix::fcntl::OFlag;
use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

/// Name of the recipe in a layer's folder, and of the folder of files that the archive itself replaced later.
pub const FILE: &str = "recipe.zst";
pub const REPLACED: &str = "replaced";

/// The most bytes of a path.
const PATH_MAX: usize = 1 << 20;

/// Writes a recipe while its layer is unpacked.
pub struct Writer {
    out: zstd::stream::write::Encoder<'static, File>,
    replaced: PathBuf,
    moves: u64,
}

impl Writer {
    /// A recipe in `folder`, beside the layer's `diff`.
    pub fn create(folder: &Path) -> Result<Writer> {
        let path = folder.join(FILE);
        let file = File::create_new(&path).at("create", &path)?;
        let out = zstd::stream::write::Encoder::new(file, 3).at("compress", &path)?;
        Ok(Writer { out, replaced: folder.join(REPLACED), moves: 0 })
    }

    /// Bytes that are no file's contents.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.out.write_all(b"r")?;
        self.out.write_all(&(bytes.len() as u64).to_le_bytes())?;
        self.out.write_all(bytes)
    }

    /// Contents that are those of the file at `path`.
    pub fn file(&mut self, path: &[u8], size: u64) -> io::Result<()> {
        self.out.write_all(b"f")?;
        self.out.write_all(&size.to_le_bytes())?;
        self.path(path)
    }

    /// What stood at `path` so far is replaced: keeps it aside (as the file or folder that is returned), because
    /// earlier records need it.
    pub fn replaced(&mut self, path: &[u8]) -> io::Result<PathBuf> {
        if self.moves == 0 {
            std::fs::create_dir(&self.replaced)?;
        }
        self.out.write_all(b"m")?;
        self.out.write_all(&self.moves.to_le_bytes())?;
        self.path(path)?;
        self.moves += 1;
        Ok(self.replaced.join((self.moves - 1).to_string()))
    }

    fn path(&mut self, path: &[u8]) -> io::Result<()> {
        self.out.write_all(&(path.len() as u64).to_le_bytes())?;
        self.out.write_all(path)
    }

    pub fn finish(self) -> io::Result<()> {
        self.out.finish()?.flush()
    }
}

/// One record.
enum Record {
    Raw(u64),
    File(u64, Vec<u8>),
    Moved(u64, Vec<u8>),
}

struct Records<R>(R);

impl<R: Read> Records<R> {
    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn path(&mut self) -> io::Result<Vec<u8>> {
        let length = self.number()? as usize;
        if length > PATH_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut path = vec![0; length];
        self.0.read_exact(&mut path)?;
        Ok(path)
    }

    /// The next record; the bytes of a raw one are left to the caller.
    fn next(&mut self) -> io::Result<Option<Record>> {
        let mut tag = [0];
        if self.0.read(&mut tag)? == 0 {
            return Ok(None);
        }
        Ok(Some(match tag[0] {
            b'r' => Record::Raw(self.number()?),
            b'f' => Record::File(self.number()?, self.path()?),
            b'm' => Record::Moved(self.number()?, self.path()?),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }))
    }
}

/// Writes the layer's tar again, from `folder` (a layer's, with its `diff`). The caller compares the digest.
pub fn replay(folder: &Path, mut out: impl Write) -> Result<()> {
    let path = folder.join(FILE);
    let open = || -> Result<_> {
        let file = File::open(&path).at("open", &path)?;
        Ok(Records(BufReader::new(zstd::stream::read::Decoder::new(file).at("read", &path)?)))
    };
    // What was replaced later: record number, number of the file aside, path.
    let (mut moves, mut number) = (Vec::new(), 0u64);
    let mut records = open()?;
    while let Some(record) = records.next().at("read", &path)? {
        match record {
            Record::Raw(length) => {
                io::copy(&mut records.0.by_ref().take(length), &mut io::sink()).at("read", &path)?;
            }
            Record::File(..) => {}
            Record::Moved(aside, what) => moves.push((number, aside, what)),
        }
        number += 1;
    }
    let root = Root::open(folder).at("open", folder)?;
    let diff = Root::open(&folder.join("diff")).at("open", folder)?;
    let mut records = open()?;
    number = 0;
    while let Some(record) = records.next().at("read", &path)? {
        match record {
            Record::Raw(length) => {
                let copied = io::copy(&mut records.0.by_ref().take(length), &mut out).at("copy from", &path)?;
                if copied != length {
                    return Err(Error::Failed(format!("{} is cut short", path.display())));
                }
            }
            Record::File(size, name) => {
                let doing = || format!("read {} of layer {}", show(&name), folder.display());
                let moved = moves.iter().filter(|(at, ..)| *at > number).find_map(|(_, aside, old)| {
                    let rest = name.strip_prefix(&old[..]).filter(|rest| rest.is_empty() || rest[0] == b'/')?;
                    Some([format!("{REPLACED}/{aside}").as_bytes(), rest].concat())
                });
                let file = match &moved {
                    Some(name) => root.file(name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW),
                    None => diff.file(&name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW),
                };
                let file = File::from(file.doing(doing())?);
                let copied = io::copy(&mut file.take(size), &mut out).doing(doing())?;
                if copied != size {
                    return Err(Error::Failed(format!("{}: it has {copied} bytes instead of {size}", doing())));
                }
            }
            Record::Moved(..) => {}
        }
        number += 1;
    }
    Ok(())
}
