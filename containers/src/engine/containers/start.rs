//! A container's start: files and specification, a shim, its network, the waiting clients, go.

use super::{Attachment, Container, Record, State, Status, cgroup_lock, files, mounts};
use crate::{
    engine::{Engine, spec},
    error::{Context, Error, Result},
    shim::{self, NetworkNamespace, Process, Shim},
};
use chrono::Utc;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

impl Engine {
    /// Starts a container that does not run. NotModified where it does.
    pub async fn start_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let step = self.lock_to_start(container).await?;
        match container.record().state.status {
            Status::Running => return Err(Error::NotModified),
            Status::Removing => {
                return Err(Error::Conflict("container is marked for removal and cannot be started".into()));
            }
            _ => {}
        }
        container.update(|record| record.stopped_by_user = false)?;
        let started = self.start_locked(container).await;
        drop(step);
        // `--rm` holds for a container that never ran, too: `docker run` waits for its removal.
        if started.is_err() && container.record().host_config.auto_remove.unwrap_or(false) {
            self.remove_container(container, true, true).await?;
        }
        started
    }

    /// Starts it; the caller holds its `operation`. On failure everything is undone and the record says why.
    pub(super) async fn start_locked(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let started = self.launch(container).await;
        // Clients that attached for a start that failed are let go: their ends of the channels are dropped.
        container.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if let Err(error) = &started {
            let code = match error {
                Error::Runtime { code, .. } => *code,
                _ => 128,
            };
            if let Some(shim) = container.shim() {
                shim.cleanup().await;
            }
            container.set_shim(None);
            if let Err(error) = self.networks.release(&container.id).await {
                log::warn!("release the network of {}: {error}", container.id);
            }
            container.update(|record| {
                let keep = record.state.status == Status::Created;
                record.state = State {
                    status: if keep { Status::Created } else { Status::Exited },
                    exit_code: code,
                    error: error.to_string(),
                    finished_at: Some(Utc::now()),
                    ..State::default()
                };
            })?;
        }
        started
    }

    async fn launch(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let ahead = cgroup_lock::Taken::begin();
        let record = container.record().clone();
        let namespace = self.network_namespace(&record)?;
        let config = {
            let (engine, folder, record) = (Arc::clone(self), container.folder.clone(), record.clone());
            let namespace = namespace.clone();
            crate::api::blocking(move || engine.prepare(&record, &folder, namespace)).await?
        };
        let shim = Arc::new(shim::spawn(&self.shim, config, &container.folder.join(shim::FILE)).await?);
        container.set_shim(Some(Arc::clone(&shim)));
        let (networks, ports) = match namespace {
            NetworkNamespace::Own => self.join_networks(container, &record, &shim).await?,
            _ => (record.networks, Vec::new()),
        };
        attach_waiting(container, &shim).await?;
        let pid = shim.start().await?;
        drop(ahead);
        container.update(|record| {
            record.networks = networks;
            record.state = State {
                status: Status::Running,
                pid,
                started_at: Some(Utc::now()),
                shim: Some((shim.pid, shim.started)),
                ports,
                ..State::default()
            };
        })?;
        // Those that came meanwhile.
        attach_waiting(container, &shim).await?;
        self.tell(container, "start", &[]);
        self.watch(container, shim);
        Ok(())
    }

    fn network_namespace(&self, record: &Record) -> Result<NetworkNamespace> {
        match record.network_mode() {
            "host" => Ok(NetworkNamespace::Host),
            mode => match mode.strip_prefix("container:") {
                None => Ok(NetworkNamespace::Own),
                Some(other) => {
                    let pid = self.containers.get(other)?.running()?.pid;
                    Ok(NetworkNamespace::Join(format!("/proc/{pid}/ns/net").into()))
                }
            },
        }
    }

    /// Files, mounts and specification, on disk; what the shim is told. Blocking.
    fn prepare(&self, record: &Record, folder: &Path, network: NetworkNamespace) -> Result<shim::Config> {
        let image = self.images.get(&record.image_id)?;
        let layers = self.images.lower(&image)?;
        let rootfs = self.images.overlay(&image, folder, false)?;
        files::write(record, folder)?;
        if let Some(other) = record.network_mode().strip_prefix("container:") {
            // Names are those of the namespace that it shares.
            let from = self.containers.get(other)?.folder.clone();
            for name in ["hosts", "resolv.conf"] {
                let (from, to) = (from.join(name), folder.join(name));
                fs::copy(&from, &to).doing(format_args!("copy {} to {}", from.display(), to.display()))?;
            }
        }
        let mounts = mounts::for_spec(record, folder, &self.volumes, &layers)?;
        let spec = spec::container(&spec::Input {
            id: &record.id,
            hostname: &record.hostname(),
            config: &record.config,
            host_config: &record.host_config,
            layers: &layers,
            rootfs: &rootfs.merged,
            mounts: &mounts,
            init: record.host_config.init.unwrap_or(false).then_some(self.config.init_path.as_path()),
            cgroup_parent: &format!("/inception-{}", self.config.instance()),
        })?;
        let path = folder.join("config.json");
        let text = serde_json::to_vec(&spec).map_err(std::io::Error::from).at("encode", &path)?;
        fs::write(&path, text).at("write", &path)?;
        let exit_file = folder.join("exit.json");
        match fs::remove_file(&exit_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).at("remove", &exit_file),
            _ => {}
        }
        let uid = spec.process().as_ref().map_or(0, |process| process.user().uid());
        let sysctls = match network {
            NetworkNamespace::Own => spec::network_sysctls(&record.host_config)?,
            _ => Default::default(),
        };
        let config = &record.config;
        Ok(shim::Config {
            container_id: record.id.clone(),
            runtime: self.runtime(record)?,
            runtime_root: self.config.exec_root.join("runtime"),
            process: Process::Container {
                bundle: folder.into(),
                rootfs,
                cgroup: spec::cgroup_of(&spec),
                network,
                sysctls,
            },
            tty: config.tty.unwrap_or(false),
            stdin: config.open_stdin.unwrap_or(false),
            stdin_once: config.stdin_once.unwrap_or(false),
            stdio_uid: uid,
            log: log_config(record, folder)?,
            socket: self.shim_socket(&record.id)?,
            exit_file,
        })
    }

    fn runtime(&self, record: &Record) -> Result<PathBuf> {
        let name = record.host_config.runtime.as_deref().filter(|name| !name.is_empty());
        let name = name.unwrap_or(&self.config.default_runtime);
        let found = self.config.runtimes.get(name).cloned();
        found.ok_or_else(|| Error::Invalid(format!("unknown or invalid runtime name: {name}")))
    }

    /// A short path: a socket's may not be longer than 107 bytes (unix(7)).
    pub fn shim_socket(&self, id: &str) -> Result<PathBuf> {
        let folder = self.config.exec_root.join("shim");
        fs::create_dir_all(&folder).at("create", &folder)?;
        let socket = folder.join(&id[..16]);
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", &socket),
            _ => Ok(socket),
        }
    }
}

/// Connects the clients that attached before there was a process.
async fn attach_waiting(container: &Container, shim: &Shim) -> Result<()> {
    let waiting = std::mem::take(&mut *container.waiting.lock().unwrap_or_else(PoisonError::into_inner));
    for Attachment { stdin, stdout, stderr, stream } in waiting {
        // A client that has gone meanwhile is no reason not to start.
        let _ = stream.send(shim.attach(stdin, stdout, stderr).await?);
    }
    Ok(())
}

/// `--log-driver none` has no log; json-file's options are max-size and max-file.
fn log_config(record: &Record, folder: &Path) -> Result<Option<shim::Log>> {
    let config = record.host_config.log_config.clone().unwrap_or_default();
    if config.typ.as_deref() == Some("none") {
        return Ok(None);
    }
    let (mut max_size, mut max_file) = (0, 1);
    for (name, value) in config.config.iter().flatten() {
        match name.as_str() {
            "max-size" => max_size = size(value)?,
            "max-file" => {
                max_file =
                    value.parse().map_err(|_| Error::Invalid(format!("--log-opt max-file={value}: not a number")))?;
            }
            // What has no effect on the lines that are written here.
            "mode" | "max-buffer-size" => {}
            _ => return Err(Error::Invalid(format!("unknown log opt '{name}' for json-file log driver"))),
        }
    }
    Ok(Some(shim::Log { path: folder.join(format!("{}-json.log", record.id)), max_size, max_file }))
}

/// `10m`, `512k`, `1g`, `-1` (no limit)
fn size(text: &str) -> Result<u64> {
    let bad = || Error::Invalid(format!("--log-opt max-size={text}: write it as 10m"));
    if text == "-1" {
        return Ok(0);
    }
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return Err(bad()),
    };
    digits.parse::<u64>().map(|number| number * unit).map_err(|_| bad())
}
