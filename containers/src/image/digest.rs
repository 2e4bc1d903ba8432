//! Digests of what passes by: SHA-256 in the form `sha256:…`.

use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};

/// Hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|&byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

/// `sha256:…` of `bytes`.
pub fn of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Hashes and counts what is read from or written to `inner`.
pub struct Digesting<I> {
    inner: I,
    state: Sha256,
    bytes: u64,
}

impl<I> Digesting<I> {
    pub fn new(inner: I) -> Self {
        Digesting { inner, state: Sha256::new(), bytes: 0 }
    }

    /// The stream, its digest and its length.
    pub fn finish(self) -> (I, String, u64) {
        (self.inner, format!("sha256:{}", hex(&self.state.finalize())), self.bytes)
    }
}

impl<I: Read> Read for Digesting<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.state.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

impl<I: Write> Write for Digesting<I> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.state.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
