//! Named and anonymous volumes: `DATA_ROOT/volumes/NAME/`, with the files in `_data` and what is known in volume.json.

use super::events::{Events, Kind};
use crate::{
    error::{Context, Error, Result},
    image::{layers::write_file, rooted},
};
use bollard_stubs::models;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Every volume of this engine. Blocking; small files only, but for [`Volumes::copy_up`].
pub struct Volumes {
    root: PathBuf,
    events: Arc<Events>,
    /// Creation, removal and first use exclude each other.
    lock: Mutex<()>,
}

/// volume.json
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    name: String,
    created: DateTime<Utc>,
    #[serde(default)]
    labels: HashMap<String, String>,
    #[serde(default)]
    options: HashMap<String, String>,
    #[serde(default)]
    anonymous: bool,
    /// The image's files were copied in, or the volume was first used where there were none.
    #[serde(default)]
    used: bool,
}

/// The label that Docker gives to anonymous volumes.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

impl Volumes {
    /// `events` are told of every creation and removal.
    pub fn open(root: &Path, events: Arc<Events>) -> Result<Volumes> {
        fs::create_dir_all(root).at("create", root)?;
        fs::set_permissions(root, Permissions::from_mode(0o711)).at("set the mode of", root)?;
        Ok(Volumes { root: root.into(), events, lock: Mutex::default() })
    }

    /// Creates the volume, or returns the one that is there. No name: an anonymous one (64 hex digits).
    pub fn create(&self, request: models::VolumeCreateRequest) -> Result<models::Volume> {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let anonymous = request.name.as_deref().unwrap_or_default().is_empty();
        let name = if anonymous { super::random_id()? } else { request.name.unwrap_or_default() };
        check_name(&name)?;
        if let Some(driver) = request.driver.as_deref().filter(|driver| !["", "local"].contains(driver)) {
            return Err(Error::Invalid(format!(
                "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found (only the local driver is here)"
            )));
        }
        let options = request.driver_opts.unwrap_or_default();
        if let Ok(record) = self.record(&name) {
            if !options.is_empty() && options != record.options {
                return Err(Error::Conflict(format!(
                    "volume {name} exists with other driver options; remove it first"
                )));
            }
            return Ok(self.model(&record));
        }
        check_options(&name, &options)?;
        let mut labels = request.labels.unwrap_or_default();
        if anonymous {
            labels.insert(ANONYMOUS_LABEL.into(), String::new());
        }
        let folder = self.root.join(&name);
        let data = folder.join("_data");
        fs::create_dir_all(&data).at("create", &data)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o711)).at("set the mode of", &folder)?;
        let record = Record { name, created: Utc::now(), labels, options, anonymous, used: false };
        self.save(&record)?;
        self.tell("create", &record.name);
        Ok(self.model(&record))
    }

    fn tell(&self, action: &str, name: &str) {
        let attributes = HashMap::from([("driver".to_string(), "local".to_string())]);
        self.events.emit(Kind::VOLUME, action, name, attributes);
    }

    pub fn get(&self, name: &str) -> Result<models::Volume> {
        Ok(self.model(&self.record(name)?))
    }

    /// Every volume, by name.
    pub fn list(&self) -> Result<Vec<models::Volume>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.root).at("list", &self.root)? {
            let name = entry.at("list", &self.root)?.file_name();
            // A folder without a record is a creation that was cut short.
            if let Ok(record) = self.record(&name.to_string_lossy()) {
                all.push(self.model(&record));
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// `in_use`: names that containers use, with the containers' ids.
    pub fn remove(&self, name: &str, force: bool, in_use: &[(String, String)]) -> Result<()> {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let users: Vec<&str> =
            in_use.iter().filter(|(used, _)| used == name).map(|(_, container)| container.as_str()).collect();
        if !users.is_empty() {
            return Err(Error::Conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
        }
        if let Err(error) = self.record(name) {
            return if force { Ok(()) } else { Err(error) };
        }
        let folder = self.root.join(name);
        // The record first: what is left after a crash is a folder that is no volume.
        let record = folder.join("volume.json");
        fs::remove_file(&record).at("remove", &record)?;
        fs::remove_dir_all(&folder).at("remove", &folder)?;
        self.tell("destroy", name);
        Ok(())
    }

    /// Whether `name` was made without a name.
    pub fn is_anonymous(&self, name: &str) -> bool {
        self.record(name).is_ok_and(|record| record.anonymous)
    }

    /// The folder to bind: `_data`, or the `device` of driver_opts o=bind.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let record = self.record(name)?;
        let Some(device) = bind_device(&record.options) else { return Ok(self.root.join(name).join("_data")) };
        if !device.is_dir() {
            return Err(Error::Invalid(format!(
                "volume {name}: its device {} is not a folder: create it, or change driver_opts",
                device.display()
            )));
        }
        Ok(device)
    }

    /// Fills a volume that was never used and is empty with what the image has at `target`, owners and modes included.
    /// `layers`: the image's, the topmost first.
    pub fn copy_up(&self, name: &str, layers: &[PathBuf], target: &str) -> Result<()> {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = self.record(name)?;
        if record.used {
            return Ok(());
        }
        let data = self.path(name)?;
        // What an interrupted copy left is not taken for the user's.
        let marker = self.root.join(name).join("copying");
        let mut entries = fs::read_dir(&data).at("list", &data)?;
        if marker.exists() || entries.next().is_none() {
            fs::write(&marker, "").at("write", &marker)?;
            super::copy_up::copy(layers, &rooted::clean(target.as_bytes()).unwrap_or_default(), &data)?;
        }
        record.used = true;
        self.save(&record)?;
        match fs::remove_file(&marker) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", &marker),
            _ => Ok(()),
        }
    }

    fn record(&self, name: &str) -> Result<Record> {
        check_name(name).map_err(|_| Error::not_found("volume", name))?;
        let path = self.root.join(name).join("volume.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::not_found("volume", name)),
            other => other.at("read", &path)?,
        };
        serde_json::from_slice(&text).map_err(std::io::Error::from).at("understand", &path)
    }

    fn save(&self, record: &Record) -> Result<()> {
        let path = self.root.join(&record.name).join("volume.json");
        let text = serde_json::to_vec_pretty(record).map_err(std::io::Error::from).at("encode", &path)?;
        write_file(&path, &text)
    }

    fn model(&self, record: &Record) -> models::Volume {
        models::Volume {
            name: record.name.clone(),
            driver: "local".into(),
            mountpoint: self.root.join(&record.name).join("_data").display().to_string(),
            created_at: Some(record.created),
            labels: record.labels.clone(),
            options: record.options.clone(),
            scope: Some(models::VolumeScopeEnum::LOCAL),
            ..Default::default()
        }
    }
}

/// Docker's grammar of names: no separator gets into a path.
fn check_name(name: &str) -> Result<()> {
    let mut characters = name.chars();
    let good = characters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() > 1
        && name.len() <= 255
        && characters.all(|other| other.is_ascii_alphanumeric() || "_.-".contains(other));
    if good {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

/// Only a bind of a folder is there: `type=none,o=bind,device=/path`.
fn check_options(name: &str, options: &HashMap<String, String>) -> Result<()> {
    if options.is_empty() {
        return Ok(());
    }
    if let Some(unknown) = options.keys().find(|key| !["type", "o", "device"].contains(&key.as_str())) {
        return Err(Error::Invalid(format!("create {name}: invalid option: {unknown:?}")));
    }
    match bind_device(options) {
        Some(device) if device.is_absolute() => Ok(()),
        Some(device) => {
            Err(Error::Invalid(format!("create {name}: device {} is not an absolute path", device.display())))
        }
        None => {
            Err(Error::NotImplemented(format!("volume {name}: driver_opts other than type=none, o=bind, device=/path")))
        }
    }
}

fn bind_device(options: &HashMap<String, String>) -> Option<PathBuf> {
    let bind = options.get("o").is_some_and(|o| o.split(',').any(|word| word == "bind" || word == "rbind"));
    options.get("device").filter(|_| bind).map(PathBuf::from)
}
