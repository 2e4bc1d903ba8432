//! Compressed streams, told by their first bytes.

use crate::error::{Context, Error, Result};
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

/// The formats that archives come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Plain,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

/// Bytes that [`format_of`] wants to see.
const MAGIC: usize = 6;

/// The format of a stream that begins with `start`.
pub fn format_of(start: &[u8]) -> Format {
    match start {
        [0x1f, 0x8b, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Format::Xz,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Format::Bzip2,
        _ => Format::Plain,
    }
}

/// What `input` holds once unpacked, whatever it is compressed with (gzip, zstd; xz and bzip2 by the programs of these
/// names, as Docker does it). A stream that is not compressed passes as it is.
pub fn decompress<'a>(mut input: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let mut start = Vec::with_capacity(MAGIC);
    input.by_ref().take(MAGIC as u64).read_to_end(&mut start).doing("read the archive's first bytes")?;
    let format = format_of(&start);
    let input = BufReader::with_capacity(128 << 10, io::Cursor::new(start).chain(input));
    Ok(match format {
        Format::Plain => Box::new(input),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Format::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input).doing("start unpacking zstd")?),
        Format::Xz => Box::new(External::start("xz", "xz-utils", input)?),
        Format::Bzip2 => Box::new(External::start("bzip2", "bzip2", input)?),
    })
}

/// A filter program that unpacks: fed by reading `input` whenever its output is wanted. The input goes through an
/// unlinked file, so that no thread has to feed it.
struct External {
    child: Child,
    program: &'static str,
    done: bool,
}

impl External {
    fn start(program: &'static str, package: &str, mut input: impl BufRead) -> Result<External> {
        let mut file = tempfile::tempfile().doing(format!("make a temporary file for {program}"))?;
        io::copy(&mut input, &mut file).doing(format!("store the {program} archive"))?;
        io::Seek::rewind(&mut file).doing("rewind the archive")?;
        let child = Command::new(program).arg("-dc").stdin(file).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        match child {
            Ok(child) => Ok(External { child, program, done: false }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Failed(format!(
                "the archive is compressed with {program}, and there is no such program here: install the package {package}"
            ))),
            Err(error) => Err(error).doing(format!("start {program}")),
        }
    }
}

impl Read for External {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.child.stdout.as_mut() {
            Some(stdout) => stdout.read(buffer)?,
            None => 0,
        };
        if count == 0 && !buffer.is_empty() && !self.done {
            self.done = true;
            let status = self.child.wait()?;
            if !status.success() {
                return Err(io::Error::other(format!("{} could not unpack the archive ({status})", self.program)));
            }
        }
        Ok(count)
    }
}

impl Drop for External {
    fn drop(&mut self) {
        if !self.done {
            // The reader gave up: the program is stopped and waited for, so that no zombie is left.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
