//! Reads a tar stream: ustar, GNU (long names, old sparse) and PAX (attributes, sparse 0.0 to 1.0), with nothing taken
//! on trust: every length has a limit, every checksum is looked at.
//!
//! Unlike the `tar` crate this reader also hands out the bytes between the files' contents as they came, so that an
//! archive can be made again, byte by byte, from the unpacked files (see `recipe`).
//!
//! Sources: POSIX pax(1), GNU tar's manual ("Tar Internals"), tar(5) of libarchive.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

/// Tar's unit.
pub const BLOCK: usize = 512;
/// The most that a long name or a set of PAX attributes may hold: ample for PATH_MAX and the largest xattrs.
const EXTENSION_MAX: u64 = 1 << 20;
/// The most pieces that a sparse file may have.
const PIECES_MAX: usize = 1 << 16;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    /// `link` names another entry of the archive.
    HardLink,
    Symlink,
    Directory,
    Character,
    Block,
    Fifo,
}

/// One entry: its header, long forms and attributes applied.
#[derive(Debug, Clone)]
pub struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of contents in the stream.
    pub size: u64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the contents go in a file with holes.
    pub sparse: Option<Sparse>,
}

/// A file with holes: its true size, and the offset and length of each piece of the contents.
#[derive(Debug, Clone, Default)]
pub struct Sparse {
    pub size: u64,
    pub pieces: Vec<(u64, u64)>,
}

/// A reader of tar entries: [`Reader::entry`], then the contents by [`Read`], and again.
pub struct Reader<R> {
    input: R,
    /// Bytes left of the current entry's contents, and of its padding.
    contents: u64,
    padding: usize,
    global: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes outside of contents, since the last [`Reader::take_raw`].
    raw: Vec<u8>,
    record: bool,
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("bad tar archive: {}", what.into()))
}

/// A path as an error message shows it.
pub fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(200).collect()
}

impl<R: Read> Reader<R> {
    /// `record`: keep the bytes outside of contents for [`Reader::take_raw`].
    pub fn new(input: R, record: bool) -> Self {
        Reader { input, contents: 0, padding: 0, global: BTreeMap::new(), raw: Vec::new(), record }
    }

    /// The bytes outside of contents since the last call.
    pub fn take_raw(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.raw)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => bad("it is cut short"),
            _ => error,
        })?;
        if self.record {
            self.raw.extend_from_slice(buffer);
        }
        Ok(())
    }

    /// One block; None at the clean end of the stream.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let first = loop {
            match self.input.read(&mut block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if first == 0 {
            return Ok(None);
        }
        if self.record {
            self.raw.extend_from_slice(&block[..first]);
        }
        self.fill(&mut block[first..])?;
        Ok(Some(block))
    }

    /// Skips what is left of the current contents. Their bytes count as raw ones: nobody stored them.
    fn skip(&mut self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        while self.contents > 0 {
            let count = self.contents.min(buffer.len() as u64) as usize;
            self.fill(&mut buffer[..count])?;
            self.contents -= count as u64;
        }
        let padding = std::mem::take(&mut self.padding);
        self.fill(&mut buffer[..padding])
    }

    /// The contents of an extension entry, whole.
    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENSION_MAX {
            return Err(bad(format!("a name or attribute of {size} bytes; {EXTENSION_MAX} are allowed")));
        }
        let mut data = vec![0; size as usize];
        self.fill(&mut data)?;
        self.padding = padding(size);
        self.skip()?;
        Ok(data)
    }

    /// The next entry; None at the archive's end (its two zero blocks, or the stream's end between entries).
    pub fn entry(&mut self) -> io::Result<Option<Entry>> {
        self.skip()?;
        let (mut long_path, mut long_link) = (None, None);
        let mut local: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut sparse_list: Vec<u64> = Vec::new();
        loop {
            let Some(block) = self.block()? else {
                return match long_path.is_some() || long_link.is_some() || !local.is_empty() {
                    true => Err(bad("it is cut short")),
                    false => Ok(None),
                };
            };
            if block.iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            check_sum(&block)?;
            let size = number(&block[124..136])?;
            match block[156] {
                b'L' => long_path = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.extension(size)?).to_vec()),
                b'x' | b'X' => {
                    let data = self.extension(size)?;
                    attributes(&data, &mut local, &mut sparse_list)?;
                }
                b'g' => {
                    let data = self.extension(size)?;
                    let mut global = std::mem::take(&mut self.global);
                    attributes(&data, &mut global, &mut Vec::new())?;
                    // Global names and sizes would apply to every entry: meaningless, and dangerous.
                    for key in [&b"path"[..], b"linkpath", b"size"] {
                        global.remove(key);
                    }
                    self.global = global;
                }
                _ => return self.finish(&block, long_path, long_link, local, sparse_list).map(Some),
            }
        }
    }

    /// An entry of a header block and what the extension entries before it said.
    fn finish(
        &mut self,
        block: &[u8; BLOCK],
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        local: BTreeMap<Vec<u8>, Vec<u8>>,
        sparse_list: Vec<u64>,
    ) -> io::Result<Entry> {
        let attribute = |key: &str| local.get(key.as_bytes()).or_else(|| self.global.get(key.as_bytes()));
        let decimal = |key: &str| attribute(key).map(|value| decimal(key, value)).transpose();
        let ustar = &block[257..262] == b"ustar";
        let mut path = until_nul(&block[..100]).to_vec();
        // GNU's header has other fields where POSIX's has a prefix.
        if ustar && block[262] == 0 && block[345] != 0 {
            path = [until_nul(&block[345..500]), b"/", &path].concat();
        }
        let path = attribute("GNU.sparse.name").or(attribute("path")).cloned().or(long_path).unwrap_or(path);
        let link = attribute("linkpath").cloned().or(long_link).unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        if path.is_empty() || path.contains(&0) || link.contains(&0) {
            return Err(bad("an entry with an empty name or a NUL in it"));
        }
        let size = match decimal("size")? {
            Some(size) => size,
            None => number(&block[124..136])?,
        };
        let id = |key: &str, field: &[u8]| -> io::Result<u32> {
            let id = match decimal(key)? {
                Some(id) => id,
                None => number(field)?,
            };
            u32::try_from(id).map_err(|_| bad(format!("{key} {id} of {} is out of range", show(&path))))
        };
        let (uid, gid) = (id("uid", &block[108..116])?, id("gid", &block[116..124])?);
        let mtime = match attribute("mtime") {
            Some(value) => time(value)?,
            None => (signed(&block[136..148])?, 0),
        };
        let kind = match block[156] {
            b'0' | 0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(bad(format!("{} is of the unknown type {:?}", show(&path), char::from(other))));
            }
        };
        let device = match kind {
            Kind::Character | Kind::Block => {
                let part = |field: &[u8]| -> io::Result<u32> {
                    u32::try_from(number(field)?).map_err(|_| bad(format!("{}: bad device number", show(&path))))
                };
                (part(&block[329..337])?, part(&block[337..345])?)
            }
            _ => (0, 0),
        };
        let xattrs = self
            .global
            .iter()
            .chain(&local)
            .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone())))
            .collect();
        let real_size = decimal("GNU.sparse.realsize")?.or(decimal("GNU.sparse.size")?);
        let version_1 = attribute("GNU.sparse.major").is_some_and(|major| major == b"1");
        let map = attribute("GNU.sparse.map").cloned();
        let mut entry = Entry {
            mode: (number(&block[100..108])? & 0o7777) as u32,
            size: if kind == Kind::File { size } else { 0 },
            path,
            link,
            kind,
            uid,
            gid,
            mtime,
            device,
            xattrs,
            sparse: None,
        };
        // Contents of anything but a file (some archivers give directories or links a size) are none.
        let stored = if matches!(kind, Kind::File | Kind::Directory) { size } else { 0 };
        self.contents = stored;
        self.padding = padding(stored);
        if kind == Kind::File {
            let list = if block[156] == b'S' {
                Some((number(&block[483..495])?, self.old_sparse(block)?))
            } else if version_1 {
                let size = real_size.ok_or_else(|| bad("a sparse file without its size"))?;
                Some((size, self.sparse_1(&mut entry)?))
            } else if let (Some(size), Some(map)) = (real_size, map) {
                let list = map.split(|&byte| byte == b',').map(|part| self::decimal("GNU.sparse.map", part));
                Some((size, list.collect::<io::Result<Vec<u64>>>()?))
            } else {
                real_size.filter(|_| !sparse_list.is_empty()).map(|size| (size, sparse_list))
            };
            if let Some((size, list)) = list {
                entry.sparse = Some(pieces(&entry, size, &list)?);
            }
        }
        Ok(entry)
    }

    /// The map of GNU's old sparse format: four pieces in the header, then blocks of 21.
    fn old_sparse(&mut self, block: &[u8; BLOCK]) -> io::Result<Vec<u64>> {
        let mut list = Vec::new();
        let mut take = |fields: &[u8]| -> io::Result<()> {
            for piece in fields.chunks_exact(24).filter(|piece| piece[0] != 0) {
                list.extend([number(&piece[..12])?, number(&piece[12..])?]);
            }
            match list.len() > 2 * PIECES_MAX {
                true => Err(bad("a sparse file with too many pieces")),
                false => Ok(()),
            }
        };
        take(&block[386..482])?;
        let mut more = block[482] != 0;
        while more {
            let next = self.block()?.ok_or_else(|| bad("it is cut short"))?;
            take(&next[..504])?;
            more = next[504] != 0;
        }
        Ok(list)
    }

    /// The map of sparse format 1.0: decimal lines at the head of the contents, padded to a block.
    fn sparse_1(&mut self, entry: &mut Entry) -> io::Result<Vec<u64>> {
        let (mut list, mut wanted, mut line) = (Vec::new(), None, Vec::new());
        while wanted.is_none_or(|wanted| list.len() < wanted) {
            if self.contents < BLOCK as u64 {
                return Err(bad("a sparse file's map is cut short"));
            }
            let mut block = [0; BLOCK];
            self.fill(&mut block)?;
            self.contents -= BLOCK as u64;
            entry.size -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let number = decimal("the sparse map", &std::mem::take(&mut line))?;
                match wanted {
                    None if number as usize > PIECES_MAX => return Err(bad("a sparse file with too many pieces")),
                    None => wanted = Some(2 * number as usize),
                    Some(wanted) if list.len() == wanted => break,
                    Some(_) => list.push(number),
                }
                if wanted == Some(list.len()) {
                    break;
                }
            }
        }
        Ok(list)
    }

    /// Reads what follows the archive's end (padding to a record, usually) up to the stream's own, in pieces.
    pub fn rest(&mut self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => each(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The contents of the current entry.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = self.contents.min(buffer.len() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        match self.input.read(&mut buffer[..wanted])? {
            0 => Err(bad("it is cut short")),
            count => {
                self.contents -= count as u64;
                Ok(count)
            }
        }
    }
}

/// Bytes that fill `size` up to a block.
fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The header's checksum: the sum of its bytes, its own field counted as spaces; old archivers summed signed bytes.
fn check_sum(block: &[u8; BLOCK]) -> io::Result<()> {
    let told = number(&block[148..156])? as i64;
    let bytes = || block.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte });
    match bytes().map(i64::from).sum::<i64>() == told || bytes().map(|byte| i64::from(byte as i8)).sum::<i64>() == told
    {
        true => Ok(()),
        false => Err(bad("a header's checksum does not fit (is it a tar archive?)")),
    }
}

/// A numeric field: octal text, or base 256 when its first bit is set.
fn signed(field: &[u8]) -> io::Result<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (at, &byte) in field.iter().enumerate() {
            let byte = if at == 0 && !negative { byte & 0x7f } else { byte };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| bad("a number is out of range"));
    }
    let text = until_nul(field).trim_ascii();
    text.iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => Ok((value << 3) | i64::from(digit - b'0')),
        _ => Err(bad(format!("{:?} is no octal number", show(text)))),
    })
}

fn number(field: &[u8]) -> io::Result<u64> {
    u64::try_from(signed(field)?).map_err(|_| bad("a negative size or id"))
}

fn decimal(what: &str, text: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(text)
        .ok()
        .filter(|text| !text.starts_with('+'))
        .and_then(|text| text.parse().ok())
        // A signed reader may follow: nothing above i64 is a sane size.
        .filter(|&number: &u64| i64::try_from(number).is_ok())
        .ok_or_else(|| bad(format!("{what} is {:?}, no number", show(text))))
}

/// A PAX time: seconds with a fraction, possibly negative.
fn time(text: &[u8]) -> io::Result<(i64, u32)> {
    let wrong = || bad(format!("{:?} is no time", show(text)));
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| wrong())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().map_err(|_| wrong())?;
    Ok(match whole.starts_with('-') && nanoseconds > 0 {
        true => (seconds.checked_sub(1).ok_or_else(wrong)?, 1_000_000_000 - nanoseconds),
        false => (seconds, nanoseconds),
    })
}

/// Reads PAX records, `LENGTH KEY=VALUE\n` each; sparse 0.0's repeated keys go to `sparse`.
fn attributes(data: &[u8], into: &mut BTreeMap<Vec<u8>, Vec<u8>>, sparse: &mut Vec<u64>) -> io::Result<()> {
    let mut rest = data;
    // Some archivers pad with NULs.
    while !rest.is_empty() && rest[0] != 0 {
        let wrong = || bad("a damaged PAX attribute");
        let space = rest.iter().position(|&byte| byte == b' ').ok_or_else(wrong)?;
        let length = decimal("a PAX attribute's length", &rest[..space])? as usize;
        if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
            return Err(wrong());
        }
        let record = &rest[space + 1..length - 1];
        let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(wrong)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => sparse.push(decimal("a sparse map", value)?),
            // An empty value takes an attribute back.
            _ if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") => drop(into.remove(key)),
            _ => drop(into.insert(key.to_vec(), value.to_vec())),
        }
        rest = &rest[length..];
    }
    Ok(())
}

/// A sparse map from its flat list of offsets and lengths: in order, inside the file, as long as the contents.
fn pieces(entry: &Entry, size: u64, list: &[u64]) -> io::Result<Sparse> {
    let wrong = || bad(format!("{} has a damaged sparse map", show(&entry.path)));
    if !list.len().is_multiple_of(2) || list.len() > 2 * PIECES_MAX {
        return Err(wrong());
    }
    let (mut end, mut total) = (0u64, 0u64);
    let mut sparse = Sparse { size, pieces: Vec::new() };
    for piece in list.chunks_exact(2) {
        let stop = piece[0].checked_add(piece[1]).filter(|&stop| stop <= size && piece[0] >= end).ok_or_else(wrong)?;
        (end, total) = (stop, total + piece[1]);
        sparse.pieces.push((piece[0], piece[1]));
    }
    if total != entry.size {
        return Err(wrong());
    }
    Ok(sparse)
}

/// Whether `start` can be the beginning of a tar archive: a header, or an empty archive's end.
pub fn is_header(start: &[u8]) -> bool {
    <&[u8; BLOCK]>::try_from(start).is_ok_and(|block| block.iter().all(|&byte| byte == 0) || check_sum(block).is_ok())
}
