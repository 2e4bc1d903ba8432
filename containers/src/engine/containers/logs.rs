//! `GET /containers/{id}/logs`: reads the json-file log, rotated files included, and follows it.

use super::{Container, Status};
use crate::error::{Context, Error, Result};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub follow: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub timestamps: bool,
    /// The last so many entries; None: all.
    pub tail: Option<usize>,
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Entry {
    log: String,
    stream: String,
    time: String,
}

/// How often a log that is followed is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Sends the log as the API streams it: Docker's frames, raw where the container has a terminal. The receiver's end ends
/// it.
pub async fn logs(container: Arc<Container>, options: LogOptions) -> Result<mpsc::Receiver<Vec<u8>>> {
    let (tty, none) = {
        let record = container.record();
        let driver = record.host_config.log_config.as_ref().and_then(|log| log.typ.clone());
        (record.config.tty.unwrap_or(false), driver.as_deref() == Some("none"))
    };
    if none {
        return Err(Error::NotImplemented("configured logging driver does not support reading".into()));
    }
    let path = container.folder.join(format!("{}-json.log", container.id));
    let (sender, receiver) = mpsc::channel(64);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = send(&container, &path, &options, tty, &sender) {
            log::warn!("logs of {}: {error}", container.id);
        }
    });
    Ok(receiver)
}

fn send(container: &Container, path: &Path, options: &LogOptions, tty: bool, to: &mpsc::Sender<Vec<u8>>) -> Result<()> {
    let mut past = Vec::new();
    for file in rotated(path) {
        let file = File::open(&file).at("read", &file)?;
        for line in BufReader::new(file).split(b'\n') {
            past.extend(wanted(&line.at("read", path)?, options));
            if let Some(tail) = options.tail
                && past.len() > 2 * tail + 1024
            {
                past.drain(..past.len() - tail);
            }
        }
    }
    let mut current = File::open(path).ok().map(BufReader::new);
    let mut half = Vec::new();
    if let Some(file) = &mut current {
        read_lines(file, &mut half, options, &mut past)?;
    }
    let first = past.len() - options.tail.unwrap_or(past.len()).min(past.len());
    for entry in past.drain(..).skip(first) {
        if to.blocking_send(frame(&entry, options, tty)).is_err() {
            return Ok(());
        }
    }
    if !options.follow {
        return Ok(());
    }
    loop {
        // Asked before the read, so that nothing written before the end is missed.
        let ended = !matches!(container.record().state.status, Status::Running | Status::Restarting);
        let mut new = Vec::new();
        if let Some(file) = &mut current {
            read_lines(file, &mut half, options, &mut new)?;
        }
        let inode = |file: &File| file.metadata().map(|metadata| metadata.ino()).ok();
        let at_path = std::fs::metadata(path).map(|metadata| metadata.ino()).ok();
        if current.as_ref().and_then(|file| inode(file.get_ref())) != at_path {
            // Rotated: the rest of the old file has been read, go on with the new one from its start.
            current = File::open(path).ok().map(BufReader::new);
            half.clear();
            if let Some(file) = &mut current {
                read_lines(file, &mut half, options, &mut new)?;
            }
        }
        let idle = new.is_empty();
        for entry in new {
            if to.blocking_send(frame(&entry, options, tty)).is_err() {
                return Ok(());
            }
        }
        if to.is_closed() || (ended && idle) || options.until.is_some_and(|until| Utc::now() > until) {
            return Ok(());
        }
        if idle {
            std::thread::sleep(POLL);
        }
    }
}

/// Rotated files, the oldest first.
fn rotated(path: &Path) -> Vec<PathBuf> {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    let mut files: Vec<PathBuf> = (1..).map(numbered).take_while(|file| file.exists()).collect();
    files.reverse();
    files
}

/// Reads whole lines; the beginning of one that is still being written stays in `half`.
fn read_lines(
    file: &mut BufReader<File>,
    half: &mut Vec<u8>,
    options: &LogOptions,
    into: &mut Vec<Entry>,
) -> Result<()> {
    loop {
        let count = file.by_ref().read_until(b'\n', half).doing("read the log")?;
        if count == 0 || !half.ends_with(b"\n") {
            return Ok(());
        }
        into.extend(wanted(half, options));
        half.clear();
    }
}

fn wanted(line: &[u8], options: &LogOptions) -> Option<Entry> {
    // A line that a full disk cut short is passed over.
    let entry: Entry = serde_json::from_slice(line).ok()?;
    let stream = if entry.stream == "stderr" { options.stderr } else { options.stdout };
    let time = || entry.time.parse::<DateTime<Utc>>().unwrap_or_default();
    let good = stream
        && options.since.is_none_or(|since| time() >= since)
        && options.until.is_none_or(|until| time() <= until);
    good.then_some(entry)
}

fn frame(entry: &Entry, options: &LogOptions, tty: bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(entry.log.len() + 48);
    if !tty {
        text.extend([if entry.stream == "stderr" { 2 } else { 1 }, 0, 0, 0, 0, 0, 0, 0]);
    }
    if options.timestamps {
        text.extend(entry.time.as_bytes());
        text.push(b' ');
    }
    text.extend(entry.log.as_bytes());
    if !tty {
        let length = (text.len() - 8) as u32;
        text[4..8].copy_from_slice(&length.to_be_bytes());
    }
    text
}
