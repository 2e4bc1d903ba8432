//! Containers as objects with a life.
//!
//! Each has a folder, DATA_ROOT/containers/ID: `container.json` (a [`Record`], written whole or not at all), the files
//! that are bound into it (hosts, hostname, resolv.conf), its log, its writable layer (`upper`, `work`, `merged`), and
//! what its shim writes (`exit.json`).

mod cgroup_lock;
mod create;
mod exit;
pub mod files;
mod inspect;
mod list;
mod logs;
mod mounts;
mod networks;
mod ports;
mod record;
mod shutdown;
mod signals;
mod start;
mod stop;

pub use create::Create;
pub use list::{FILTERS, ListOptions};
pub use logs::{LogOptions, logs};
pub use record::{Record, State, Status};
pub use signals::parse_signal;

use super::{Engine, events::Kind};
use crate::{
    error::{Context, Error, Result},
    shim::Shim,
};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    net::UnixStream,
    sync::{Notify, oneshot, watch},
};

/// Every container of this engine.
pub struct Containers {
    root: PathBuf,
    all: RwLock<BTreeMap<String, Arc<Container>>>,
}

/// One container.
pub struct Container {
    pub id: String,
    pub folder: PathBuf,
    record: Mutex<Record>,
    /// Its life's steps (start, stop, remove) follow one another.
    operation: tokio::sync::Mutex<()>,
    shim: Mutex<Option<Arc<Shim>>>,
    /// Clients that attached before the start.
    waiting: Mutex<Vec<Attachment>>,
    /// Told of every change.
    changes: watch::Sender<Change>,
    /// Ends a restart's back-off.
    wake: Notify,
    removed: AtomicBool,
}

/// Counts what `wait` waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    pub exits: u64,
    pub removed: bool,
}

/// A client that wants to be connected to the process's stdio.
pub struct Attachment {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub stream: oneshot::Sender<UnixStream>,
}

impl Containers {
    /// Loads every record. Folders without one are creations or removals that were cut short: removed.
    pub fn open(root: &Path) -> Result<Containers> {
        fs::create_dir_all(root).at("create", root)?;
        fs::set_permissions(root, Permissions::from_mode(0o711)).at("set the mode of", root)?;
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(root).at("list", root)? {
            let folder = entry.at("list", root)?.path();
            match Record::read(&folder) {
                Ok(Some(record)) => {
                    all.insert(record.id.clone(), Arc::new(Container::new(folder, record)));
                }
                Ok(None) => {
                    log::info!("removing {}, left by an interrupted step", folder.display());
                    fs::remove_dir_all(&folder).at("remove", &folder)?;
                }
                // Nothing is deleted that can't be understood.
                Err(error) => log::error!("{error}"),
            }
        }
        Ok(Containers { root: root.into(), all: RwLock::new(all) })
    }

    /// By id, name (with or without slash) or unique prefix of an id.
    pub fn get(&self, reference: &str) -> Result<Arc<Container>> {
        let all = self.all();
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(found) = all.get(name).or_else(|| all.values().find(|container| container.record().name == name)) {
            return Ok(Arc::clone(found));
        }
        let mut matches =
            all.range(name.to_string()..).map(|(_, found)| found).take_while(|found| found.id.starts_with(name));
        match (matches.next(), matches.next()) {
            (Some(found), None) if !name.is_empty() => Ok(Arc::clone(found)),
            (Some(_), Some(_)) if !name.is_empty() => {
                Err(Error::Invalid(format!("Multiple IDs found with provided prefix: {name}")))
            }
            _ => Err(Error::not_found("container", reference)),
        }
    }

    /// Every container, the newest first.
    pub fn list(&self) -> Vec<Arc<Container>> {
        let mut list: Vec<_> = self.all().values().cloned().collect();
        list.sort_by_key(|container| std::cmp::Reverse(container.record().created));
        list
    }

    /// How many run and how many do not.
    pub fn count(&self) -> [usize; 2] {
        let all = self.all();
        let running = all.values().filter(|container| container.record().state.is_running()).count();
        [running, all.len() - running]
    }

    /// Names of volumes that a container, running or not, uses, each with that container's id.
    pub fn volumes_in_use(&self) -> Vec<(String, String)> {
        let all = self.all();
        let used = |container: &Arc<Container>| {
            let names = container.record().volume_names();
            let id = container.id.clone();
            names.into_iter().map(move |name| (name, id.clone()))
        };
        all.values().flat_map(used).collect()
    }

    fn all(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Container>>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_mut(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Arc<Container>>> {
        self.all.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Container {
    fn new(folder: PathBuf, record: Record) -> Container {
        Container {
            id: record.id.clone(),
            folder,
            record: Mutex::new(record),
            operation: tokio::sync::Mutex::new(()),
            shim: Mutex::new(None),
            waiting: Mutex::new(Vec::new()),
            changes: watch::Sender::new(Change::default()),
            wake: Notify::new(),
            removed: AtomicBool::new(false),
        }
    }

    /// What is known of it; held for a moment only.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the record and writes it to disk, where that changes it.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> Result<()> {
        let mut record = self.record();
        let before = record.clone();
        change(&mut record);
        // A step that ends after the removal must not bring the file back.
        if *record == before || self.removed.load(Ordering::Acquire) { Ok(()) } else { record.write(&self.folder) }
    }

    /// The shim, while the container runs.
    pub fn shim(&self) -> Option<Arc<Shim>> {
        self.shim.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_shim(&self, shim: Option<Arc<Shim>>) {
        *self.shim.lock().unwrap_or_else(PoisonError::into_inner) = shim;
    }

    /// Follows exits and the removal.
    pub fn changes(&self) -> watch::Receiver<Change> {
        self.changes.subscribe()
    }

    /// The shim that is needed to reach into the container; Docker's words where it does not run.
    pub fn running(&self) -> Result<Arc<Shim>> {
        let running = self.record().state.is_running();
        self.shim().filter(|_| running).ok_or_else(|| Error::Conflict(format!("container {} is not running", self.id)))
    }

    /// Connects a client to the process's stdio: now, or when it starts.
    pub async fn attach(&self, stdin: bool, stdout: bool, stderr: bool) -> Result<oneshot::Receiver<UnixStream>> {
        let (sender, receiver) = oneshot::channel();
        let shim = self.shim().filter(|_| self.record().state.is_running());
        match shim {
            Some(shim) => drop(sender.send(shim.attach(stdin, stdout, stderr).await?)),
            None => self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Attachment {
                stdin,
                stdout,
                stderr,
                stream: sender,
            }),
        }
        Ok(receiver)
    }

    /// Sets the terminal's size.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.running()?.resize(rows, columns).await
    }
}

impl Engine {
    /// Tells of a container's event, with the attributes that Docker gives.
    pub fn tell(&self, container: &Container, action: &str, more: &[(&str, String)]) {
        let record = container.record();
        let mut attributes: HashMap<String, String> = record.config.labels.clone().unwrap_or_default();
        attributes.insert("image".into(), record.config.image.clone().unwrap_or_default());
        attributes.insert("name".into(), record.name.clone());
        attributes.extend(more.iter().map(|(name, value)| (name.to_string(), value.clone())));
        self.events.emit(Kind::CONTAINER, action, &container.id, attributes);
    }
}
