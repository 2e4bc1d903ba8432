//! Docker's json-file log: one JSON object a line, rotated by size. It never blocks or ends the service: what can't be
//! written (a full disk) is dropped and counted.

use chrono::{SecondsFormat, Utc};
use inception_shim::Log;
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

/// The longest piece of a line in one entry, as Docker cuts it.
const PIECE: usize = 16 * 1024;

/// A container's log.
pub struct JsonLog {
    config: Log,
    file: Option<File>,
    size: u64,
    /// Beginnings of lines that have not ended yet: stdout's, stderr's.
    partial: [Vec<u8>; 2],
    /// Whole entries that are not written yet: those of one read go out in one write.
    entries: Vec<u8>,
}

impl JsonLog {
    /// Opens the log for appending; a log that can't be opened now is tried again with each line.
    pub fn open(config: Log) -> JsonLog {
        let mut log = JsonLog { config, file: None, size: 0, partial: Default::default(), entries: Vec::new() };
        log.reopen();
        log
    }

    fn reopen(&mut self) {
        self.file = OpenOptions::new().create(true).append(true).mode(0o640).open(&self.config.path).ok();
        self.size = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
    }

    /// Adds output of `stream` (1 stdout, 2 stderr), a line an entry.
    pub fn write(&mut self, stream: u8, bytes: &[u8]) {
        let side = usize::from(stream == 2);
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = PIECE - self.partial[side].len();
            let end = match rest.iter().take(room).position(|byte| *byte == b'\n') {
                Some(newline) => newline + 1,
                None => rest.len().min(room),
            };
            self.partial[side].extend_from_slice(&rest[..end]);
            rest = &rest[end..];
            if self.partial[side].ends_with(b"\n") || self.partial[side].len() >= PIECE {
                self.add(stream);
            }
        }
        self.store();
    }

    /// Writes what has no end of line; at the end of a stream.
    pub fn flush(&mut self, stream: u8) {
        self.add(stream);
        self.store();
    }

    /// Makes an entry of what has come of `stream`.
    fn add(&mut self, stream: u8) {
        let side = usize::from(stream == 2);
        let piece = std::mem::take(&mut self.partial[side]);
        if piece.is_empty() {
            return;
        }
        #[derive(serde::Serialize)]
        struct Entry<'a> {
            log: std::borrow::Cow<'a, str>,
            stream: &'a str,
            time: String,
        }
        let entry = Entry {
            log: String::from_utf8_lossy(&piece),
            stream: if side == 1 { "stderr" } else { "stdout" },
            time: Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true),
        };
        let Ok(mut line) = serde_json::to_vec(&entry) else { return };
        line.push(b'\n');
        self.rotate(line.len() as u64);
        self.entries.extend_from_slice(&line);
        // Keep the buffer for the next line.
        self.partial[side] = piece;
        self.partial[side].clear();
    }

    fn store(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        if self.file.is_none() {
            self.reopen();
        }
        if let Some(file) = &mut self.file {
            match file.write_all(&self.entries) {
                Ok(()) => self.size += self.entries.len() as u64,
                // A full disk: forget the half line so that the next one starts clean, and go on.
                Err(_) => drop(file.set_len(self.size)),
            }
        }
        self.entries.clear();
    }

    fn rotate(&mut self, more: u64) {
        let size = self.size + self.entries.len() as u64;
        if self.config.max_size == 0 || size + more <= self.config.max_size || size == 0 {
            return;
        }
        self.store();
        self.file = None;
        let kept = self.config.max_file.max(1);
        for number in (1..kept).rev() {
            let from = if number == 1 { self.config.path.clone() } else { self.numbered(number - 1) };
            let _ = fs::rename(from, self.numbered(number));
        }
        if kept == 1 {
            let _ = fs::remove_file(&self.config.path);
        }
        self.reopen();
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.config.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_pieces_and_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x-json.log");
        let mut log = JsonLog::open(Log { path: path.clone(), max_size: 0, max_file: 1 });
        log.write(1, b"one\ntw");
        log.write(2, b"err\n");
        log.write(1, b"o\nrest");
        log.write(1, &vec![b'x'; PIECE]);
        log.flush(1);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let logs: Vec<&str> = lines.iter().map(|line| line["log"].as_str().unwrap()).collect();
        assert_eq!(logs[..3], ["one\n", "err\n", "two\n"]);
        assert_eq!([logs[3].len(), logs[4].len()], [PIECE, 4]);
        assert_eq!(lines[1]["stream"], "stderr");

        let path = folder.path().join("y-json.log");
        let mut log = JsonLog::open(Log { path: path.clone(), max_size: 200, max_file: 2 });
        for number in 0..20 {
            log.write(1, format!("line {number}\n").as_bytes());
        }
        assert!(fs::read_to_string(&path).unwrap().contains("line 19"));
        assert!(path.with_extension("log.1").exists() && !path.with_extension("log.2").exists());
        assert!(fs::metadata(&path).unwrap().len() <= 200);
    }
}
