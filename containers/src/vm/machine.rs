//! A machine as a folder that a person can read:
//!
//! | file | |
//! |---|---|
//! | machine.json | what it is, a [`Machine`] |
//! | initramfs | the init, its configuration, modules (and the root, where that stays in memory) |
//! | disk.img | its root, unless that is thrown away at its end |
//! | console.log, qemu.log | what the machine, and qemu, said |
//! | lock | held by the keeper while it runs |
//! | exit | how it ended, an [`Exit`]; empty while it runs and before |

use super::root::Kind;
use crate::error::{Context, Error, Result};
use chrono::{DateTime, Utc};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File},
    io::{Read, Seek, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// What a machine is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The image's name, and what runs.
    pub image: String,
    pub command: Vec<String>,
    pub created: DateTime<Utc>,
    /// qemu's machine type.
    pub board: Board,
    /// MiB.
    pub memory: u64,
    pub cpus: u32,
    pub kernel: PathBuf,
    /// The kernel's command line.
    pub append: String,
    /// Its console behaves as a terminal, and not as a pipe.
    pub terminal: bool,
    pub root: Kind,
    /// The root's disk, where there is one; with `throwaway` it is only read, and what is written is lost at the end.
    pub disk: Option<PathBuf>,
    pub throwaway: bool,
    pub ports: Vec<Forward>,
    pub shares: Vec<Share>,
    /// The whole folder goes when the machine has ended.
    pub remove: bool,
    /// Seconds that the machine may take from the request to stop to its end.
    pub stop_timeout: u64,
}

/// qemu's machine types that machines are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Board {
    Microvm,
    Q35,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Empty: every address of the host.
    pub host_ip: String,
    pub host_port: u16,
    pub port: u16,
    pub protocol: String,
}

impl std::fmt::Display for Forward {
    fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        let ip = if self.host_ip.is_empty() { "0.0.0.0" } else { &self.host_ip };
        write!(to, "{ip}:{}->{}/{}", self.host_port, self.port, self.protocol)
    }
}

/// A folder of the host in the machine, by virtiofs under `tag`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub tag: String,
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
}

/// How a machine ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exit {
    /// The service's exit code, or the init's own; none where the machine ended without telling one.
    pub code: Option<u8>,
    /// What else is to be said.
    pub reason: String,
    pub ended: DateTime<Utc>,
}

/// A machine's folder, open: what is in it can be read to the end, also when it is being removed.
pub struct Folder {
    pub name: String,
    pub path: PathBuf,
    handle: File,
    /// While a new machine is being made: whoever finds its folder unfinished and this free may remove it.
    making: Option<Flock<File>>,
}

/// Where machines are: `$XDG_STATE_HOME/inception/vm`, for root else /var/lib/inception-vm.
pub fn base() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(folder) = variable("XDG_STATE_HOME") {
        return Ok(folder.join("inception/vm"));
    }
    if super::root::is_root() {
        return Ok("/var/lib/inception-vm".into());
    }
    let home = variable("HOME").ok_or_else(|| Error::Failed("no folder for machines: set XDG_STATE_HOME".into()))?;
    Ok(home.join(".local/state/inception/vm"))
}

/// Every machine, by name.
pub fn list() -> Result<Vec<Folder>> {
    let base = base()?;
    let entries = match fs::read_dir(&base) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("list", &base)?,
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    // One that is gone meanwhile is none.
    Ok(names.iter().filter_map(|name| Folder::open(name).ok()).collect())
}

impl Folder {
    /// Makes the folder of a new machine.
    pub fn create(name: &str) -> Result<Folder> {
        check_name(name)?;
        let base = base()?;
        DirBuilder::new().recursive(true).mode(0o700).create(&base).at("create", &base)?;
        let path = base.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            // What a command left that was killed over it.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && is_unfinished(name, &path) => {
                fs::remove_dir_all(&path).at("remove what is left of", &path)?;
                DirBuilder::new().mode(0o700).create(&path).at("create", &path)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::Conflict(format!(
                    "there is a machine {name} already: inception vm start {name} runs it again, inception vm rm {name} removes it"
                )));
            }
            other => other.at("create", &path)?,
        }
        let mut folder = Folder::at(name, path)?;
        folder.making = folder.lock()?;
        Ok(folder)
    }

    /// The new machine is made: a keeper may have it.
    pub fn made(&mut self) {
        self.making = None;
    }

    pub fn open(name: &str) -> Result<Folder> {
        let missing = || Error::NotFound { kind: "machine", name: name.to_owned() };
        check_name(name).map_err(|_| missing())?;
        let path = base()?.join(name);
        match path.join("machine.json").is_file() {
            true => Folder::at(name, path),
            false => Err(missing()),
        }
    }

    /// The folder that a keeper is told.
    pub fn at(name: &str, path: PathBuf) -> Result<Folder> {
        let handle = File::open(&path).at("open", &path)?;
        Ok(Folder { name: name.to_owned(), path, handle, making: None })
    }

    /// A path to `file` that is short enough for a socket's address, however long the folder's is; good in this process.
    pub fn short(&self, file: &str) -> PathBuf {
        Path::new("/proc/self/fd").join(self.handle.as_raw_fd().to_string()).join(file)
    }

    pub fn write_machine(&self, machine: &Machine) -> Result<()> {
        let text = serde_json::to_vec_pretty(machine).map_err(|error| Error::Failed(format!("write JSON: {error}")))?;
        let (path, new) = (self.path.join("machine.json"), self.path.join("machine.json.new"));
        fs::write(&new, text).at("write", &new)?;
        fs::rename(&new, &path).at("store", &path)
    }

    pub fn machine(&self) -> Result<Machine> {
        let path = self.path.join("machine.json");
        let text = fs::read(&path).at("read", &path)?;
        serde_json::from_slice(&text).map_err(|error| Error::Failed(format!("read {}: {error}", path.display())))
    }

    /// The lock that its keeper holds; none: another one has it.
    pub fn lock(&self) -> Result<Option<Flock<File>>> {
        match Flock::lock(self.lock_file()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).at("lock", &self.path),
        }
    }

    fn lock_file(&self) -> Result<File> {
        let path = self.path.join("lock");
        File::options().create(true).read(true).append(true).mode(0o600).open(&path).at("open", &path)
    }

    /// The process that keeps the machine, while it does. Whoever holds the lock writes its pid into the file.
    pub fn keeper(&self) -> Result<Option<i32>> {
        // A keeper that has just begun has the lock a moment before its pid is there.
        for _ in 0..200 {
            if self.lock()?.is_some() {
                return Ok(None);
            }
            let path = self.path.join("lock");
            if let Ok(pid) = fs::read_to_string(&path).at("read", &path)?.trim().parse() {
                return Ok(Some(pid));
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Err(Error::Failed(format!("{} is locked, and by no keeper", self.path.display())))
    }

    /// What is to be opened before a machine's end, which may remove the folder.
    pub fn end(&self) -> Result<End> {
        let path = self.path.join("exit");
        let exit = File::options().create(true).read(true).append(true).mode(0o600).open(&path).at("open", &path)?;
        Ok(End { lock: self.lock_file()?, exit })
    }

    /// Tells how the machine ended; an empty file: it is about to run.
    pub fn write_exit(&self, exit: Option<&Exit>) -> Result<()> {
        let text =
            exit.map(serde_json::to_vec).transpose().map_err(|error| Error::Failed(format!("write JSON: {error}")))?;
        let path = self.path.join("exit");
        // In place: those who wait for the end have this very file open.
        let mut file =
            File::options().create(true).write(true).truncate(true).mode(0o600).open(&path).at("open", &path)?;
        file.write_all(&text.unwrap_or_default()).at("write", &path)
    }

    /// How it ended the last time; none: it never ran, it runs, or its keeper was killed.
    pub fn exit(&self) -> Option<Exit> {
        serde_json::from_slice(&fs::read(self.path.join("exit")).ok()?).ok()
    }

    pub fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.path).at("remove", &self.path)
    }
}

/// Whether a folder is no machine's, and nobody is about to make one in it.
fn is_unfinished(name: &str, path: &Path) -> bool {
    let is_free =
        || Folder::at(name, path.to_owned()).and_then(|folder| folder.lock()).is_ok_and(|lock| lock.is_some());
    !path.join("machine.json").exists() && is_free()
}

/// A machine's end, to be waited for.
pub struct End {
    lock: File,
    exit: File,
}

impl End {
    /// Waits until no keeper has the machine; what it told. Blocking.
    pub fn wait(mut self) -> Result<Option<Exit>> {
        let lock =
            Flock::lock(self.lock, FlockArg::LockShared).map_err(|(_, error)| error).doing("wait for the machine");
        drop(lock?);
        let mut text = Vec::new();
        self.exit.rewind().doing("read the machine's exit")?;
        self.exit.read_to_end(&mut text).doing("read the machine's exit")?;
        Ok(serde_json::from_slice(&text).ok())
    }
}

/// A name becomes a path and a host's name.
fn check_name(name: &str) -> Result<()> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    match name.len() <= 63
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(is_good)
    {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{name:?} is no name for a machine: letters, digits, dots and dashes, 63 at most, and a letter or digit first"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_folder() {
        for name in ["web", "a.b-c", "9"] {
            check_name(name).unwrap();
        }
        for name in ["", ".", "..", "a/b", "-a", "a b", &"a".repeat(64)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_end_is_heard_from_a_folder_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::at("x", folder.path().to_owned()).unwrap();
        let lock = folder.lock().unwrap().unwrap();
        let end = folder.end().unwrap();
        assert!(folder.lock().unwrap().is_none());
        let waiting = std::thread::spawn(move || end.wait());
        folder.write_exit(Some(&Exit { code: Some(7), reason: String::new(), ended: Utc::now() })).unwrap();
        folder.remove().unwrap();
        drop(lock);
        assert_eq!(waiting.join().unwrap().unwrap().unwrap().code, Some(7));
    }
}
