//! A build's RUN: a container that leaves nothing behind but its upper directory.

use super::{Engine, config::Config, containers::files, spec};
use crate::{
    build,
    error::{Context, Error, Result},
    network::{Joining, resolver::Resolver},
    shim::{self, NetworkNamespace, Overlay, Process, Shim},
};
use bollard_stubs::models;
use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Component, Path, PathBuf},
    sync::LazyLock,
};
use tokio::{io::AsyncReadExt, net::UnixStream, sync::mpsc};

/// A command and what it runs on.
pub struct Step<'a> {
    /// 64 hexadecimal digits; the first 12 are the host's name inside.
    pub id: &'a str,
    /// Not mounted yet; `upper` holds the changes afterwards.
    pub overlay: Overlay,
    /// Cmd, Env, User, WorkingDir.
    pub config: &'a models::ContainerConfig,
    /// "default", "host", "none" or a network's name.
    pub network: &'a str,
    /// `name:address`
    pub extra_hosts: &'a [String],
    /// Paths below which changes are dropped.
    pub volumes: &'a [String],
}

/// What a container's file system needs to mount on: folders, and files.
const FOLDERS: [&str; 4] = ["dev", "etc", "proc", "sys"];
const FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// Runs a step's command; its exit code. Output goes to `output` as it comes, and waits
/// where that is full. When `cancelled` is ready the command is
/// killed, and that is an error. `upper` then holds what the command changed, without the mount points of the runtime.
pub async fn run(
    engine: &Engine,
    mut step: Step<'_>,
    output: mpsc::Sender<Vec<u8>>,
    cancelled: impl Future<Output = ()>,
) -> Result<i32> {
    let _step = engine.steps.read().await;
    let folder = Folder::make(&engine.config.exec_root, step.id)?;
    let layers = step.overlay.lower.clone();
    // Below all layers lies one with a stub of everything that is mounted on: the runtime finds it there, and makes
    // none in the layer that is kept.
    let below = step.overlay.upper.with_file_name("stubs");
    stubs(&below, &layers)?;
    step.overlay.lower.push(below);
    let host = models::HostConfig::default();
    let config = prepare(engine, &step, &host, &layers, &folder.0)?;
    let shim = shim::spawn(&engine.shim, config, &folder.0.join(shim::FILE)).await?;
    let result = tokio::select! {
        result = drive(engine, &step, &shim, &folder.0, output) => result,
        () = cancelled => Err(Error::Failed("the client is gone: the build is given up".into())),
        () = engine.ending.cancelled() => Err(Error::Failed("the daemon ends: the build is given up".into())),
    };
    if shim.is_alive() || result.is_err() {
        shim.cleanup().await;
        shim.wait().await?;
    }
    if has_own_network(step.network) {
        engine.networks.release(step.id).await?;
    }
    tidy(&step.overlay.upper, &layers, step.volumes)?;
    result
}

/// Removes what steps of a daemon that was killed left behind, their commands with it. To be called before the image
/// store is opened, which throws unfinished layers away.
pub async fn sweep(config: &Config) -> Result<()> {
    let contexts = config.data_root.join(build::CONTEXTS);
    match fs::remove_dir_all(&contexts) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("remove", &contexts),
        _ => {}
    }
    let folder = config.exec_root.join("build");
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.at("list", &folder)?,
    };
    let shims = LazyLock::new(shim::running);
    for entry in entries {
        let folder = entry.at("list", &folder)?.path();
        let file = folder.join(shim::FILE);
        let config = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<shim::Config>(&text).ok());
        if let Some(config) = config {
            log::info!("build step {}: ended, its daemon is gone", config.container_id);
            shim::end(config, shims.get(&file).copied()).await?;
        }
        fs::remove_dir_all(&folder).at("remove", &folder)?;
    }
    Ok(())
}

/// A step's own folder below the exec root: gone when the step is.
struct Folder(PathBuf);

impl Folder {
    fn make(exec_root: &Path, id: &str) -> Result<Folder> {
        let path = exec_root.join("build").join(id);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).at("create", &path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("remove {}: {error}", self.0.display());
        }
    }
}

/// Fills the lowest layer. Modes are those of any system: they hold only where the image has no such folder.
fn stubs(path: &Path, layers: &[PathBuf]) -> Result<()> {
    let folder = |name: &Path| {
        let folder = path.join(name);
        DirBuilder::new().recursive(true).mode(0o755).create(&folder).at("create", &folder)
    };
    FOLDERS.iter().try_for_each(|name| folder(Path::new(name)))?;
    for name in FILES {
        // Where the image has a link there, as /etc/resolv.conf may be one, the runtime mounts on what it leads to.
        let name = in_layers(layers, Path::new(name));
        folder(name.parent().unwrap_or(Path::new("")))?;
        let file = path.join(name);
        if !file.exists() {
            fs::write(&file, "").at("create", &file)?;
        }
    }
    fs::set_permissions(path, Permissions::from_mode(0o755)).at("set the mode of", path)
}

fn has_own_network(network: &str) -> bool {
    network != "host"
}

/// The network to join; None: nothing but loopback, or all that the machine has.
fn joined_network(network: &str) -> Option<&str> {
    match network {
        "" | "default" | "bridge" => Some("bridge"),
        "none" | "host" => None,
        other => Some(other),
    }
}

/// Files and specification, on disk; what the shim is told.
fn prepare(
    engine: &Engine,
    step: &Step<'_>,
    host: &models::HostConfig,
    layers: &[PathBuf],
    folder: &Path,
) -> Result<shim::Config> {
    if step.network.starts_with("container:") {
        return Err(Error::NotImplemented(format!("build with --network {}", step.network)));
    }
    let own_network = has_own_network(step.network);
    let hostname = step.id.get(..12).unwrap_or(step.id);
    let user_defined = joined_network(step.network).is_some_and(|name| name != "bridge") && own_network;
    let resolv = {
        let resolver = Resolver::for_container(&[], &[], &[]);
        resolver.text(resolver.is_named(user_defined))
    };
    let hosts = match own_network {
        true => files::hosts_text(step.extra_hosts, &[], hostname)?,
        false => {
            let mut text = fs::read_to_string("/etc/hosts").unwrap_or_default();
            for entry in step.extra_hosts {
                let (name, address) = files::extra_host(entry)?;
                text.push_str(&format!("{address}\t{name}\n"));
            }
            text
        }
    };
    let mut mounts = Vec::new();
    for (name, text) in [("resolv.conf", resolv), ("hosts", hosts), ("hostname", format!("{hostname}\n"))] {
        let path = folder.join(name);
        fs::write(&path, text).at("write", &path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o644)).at("set the mode of", &path)?;
        let target = format!("/etc/{name}");
        mounts.push(spec::Mount::Bind { source: path, target, read_only: false, propagation: None });
    }
    let spec = spec::container(&spec::Input {
        id: step.id,
        hostname,
        config: step.config,
        host_config: host,
        layers,
        rootfs: &step.overlay.merged,
        mounts: &mounts,
        init: None,
        cgroup_parent: &format!("/inception-{}", engine.config.instance()),
    })?;
    let path = folder.join("config.json");
    let text = serde_json::to_vec(&spec).map_err(io::Error::from).at("encode", &path)?;
    fs::write(&path, text).at("write", &path)?;
    let (network, sysctls) = match own_network {
        true => (NetworkNamespace::Own, spec::network_sysctls(host)?),
        false => (NetworkNamespace::Host, Default::default()),
    };
    let name = &engine.config.default_runtime;
    let runtime = engine.config.runtimes.get(name).cloned();
    Ok(shim::Config {
        container_id: step.id.to_owned(),
        runtime: runtime.ok_or_else(|| Error::Failed(format!("the OCI runtime {name} is not there")))?,
        runtime_root: engine.config.exec_root.join("runtime"),
        process: Process::Container {
            bundle: folder.into(),
            rootfs: step.overlay.clone(),
            cgroup: spec::cgroup_of(&spec),
            network,
            sysctls,
        },
        tty: false,
        stdin: false,
        stdin_once: false,
        stdio_uid: spec.process().as_ref().map_or(0, |process| process.user().uid()),
        log: None,
        socket: engine.shim_socket(step.id)?,
        exit_file: folder.join("exit.json"),
    })
}

/// From the shim's birth to the command's end.
async fn drive(
    engine: &Engine,
    step: &Step<'_>,
    shim: &Shim,
    folder: &Path,
    output: mpsc::Sender<Vec<u8>>,
) -> Result<i32> {
    join_network(engine, step, shim, folder).await?;
    let stream = shim.attach(false, true, true).await?;
    shim.start().await?;
    copy_output(stream, output).await?;
    let exit = shim.wait().await?;
    let exit = exit.ok_or_else(|| Error::Failed("the command was killed together with its shim".into()))?;
    match exit.error {
        Some(message) => Err(Error::Runtime { message, code: exit.code }),
        None if exit.oom_killed => {
            Err(Error::Runtime { message: "the command was killed: out of memory".into(), code: exit.code })
        }
        None => Ok(exit.code),
    }
}

async fn join_network(engine: &Engine, step: &Step<'_>, shim: &Shim, folder: &Path) -> Result<()> {
    let Some(network) = joined_network(step.network) else { return Ok(()) };
    let hostname = step.id.get(..12).unwrap_or(step.id);
    let joining = Joining {
        container_id: step.id,
        container_name: hostname,
        hostname,
        shim: shim.pid,
        dns: &[],
        settings: models::EndpointSettings::default(),
        interface: "eth0",
    };
    let endpoint = engine.networks.connect(network, joining).await?;
    let address = (endpoint.ip_address.unwrap_or_default(), endpoint.gateway.unwrap_or_default());
    let path = folder.join("hosts");
    // In place: it is bound into the container.
    fs::write(&path, files::hosts_text(step.extra_hosts, &[address], hostname)?).at("write", &path)
}

/// Hands on what comes in Docker's frames: one byte that names the stream, three of zeros, four of length, the bytes.
async fn copy_output(mut stream: UnixStream, output: mpsc::Sender<Vec<u8>>) -> Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let mut header = [0; 8];
        match stream.read_exact(&mut header).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => drop(other.doing("read the command's output")?),
        }
        let mut left = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        while left > 0 {
            let most = left.min(buffer.len());
            let count = stream.read(&mut buffer[..most]).await.doing("read the command's output")?;
            if count == 0 {
                return Ok(());
            }
            // Whoever listened may be gone; then `cancelled` ends the command.
            let _ = output.send(buffer[..count].to_vec()).await;
            left -= count;
        }
    }
}

/// Takes out of a layer what the command did not make: mount points, and what lies below volumes.
fn tidy(upper: &Path, layers: &[PathBuf], volumes: &[String]) -> Result<()> {
    // Whatever is here was made by the runtime: the command sees what is mounted over it. That happens only where an
    // image has removed the file or folder of a layer below.
    for name in FILES {
        let path = upper.join(in_layers(layers, Path::new(name)));
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == 0) {
            fs::remove_file(&path).at("remove", &path)?;
        }
    }
    for name in ["dev", "proc", "sys"] {
        // One that is not empty is the image's own.
        let _ = fs::remove_dir(upper.join(name));
    }
    for volume in volumes {
        let path = in_layers(layers, Path::new(volume));
        let change = upper.join(&path);
        let Ok(meta) = fs::symlink_metadata(&change) else { continue };
        if !meta.is_dir() {
            fs::remove_file(&change).at("remove", &change)?;
            continue;
        }
        fs::remove_dir_all(&change).at("remove", &change)?;
        if !matches!(lookup(layers, &path), Some(there) if there.is_dir()) {
            fs::create_dir(&change).at("create", &change)?;
            fs::set_permissions(&change, Permissions::from_mode(0o755)).at("set the mode of", &change)?;
        }
    }
    Ok(())
}

/// What an image has at `path` (relative, no links on the way); None where it has nothing.
fn lookup(layers: &[PathBuf], path: &Path) -> Option<fs::Metadata> {
    let found = layers.iter().find_map(|layer| fs::symlink_metadata(layer.join(path)).ok())?;
    let is_whiteout = found.file_type().is_char_device() && found.rdev() == 0;
    (!is_whiteout).then_some(found)
}

/// Where an absolute path leads in an image, links followed; relative to its root.
fn in_layers(layers: &[PathBuf], path: &Path) -> PathBuf {
    /// Links on the way; the kernel allows as many.
    const HOPS: usize = 40;
    let mut hops = 0;
    let mut left: Vec<PathBuf> = parts(path);
    let mut done = PathBuf::new();
    while let Some(part) = left.pop() {
        if part.as_os_str() == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&part);
        let link = layers.iter().find_map(|layer| {
            let path = layer.join(&next);
            let meta = fs::symlink_metadata(&path).ok()?;
            Some(meta.is_symlink().then(|| fs::read_link(&path).ok()).flatten())
        });
        match link.flatten().filter(|_| hops < HOPS) {
            Some(target) => {
                hops += 1;
                if target.is_absolute() {
                    done.clear();
                }
                left.extend(parts(&target));
            }
            None => done = next,
        }
    }
    done
}

/// A path's components, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().rev().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    parts.map(|part| PathBuf::from(part.as_os_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_a_run_did_not_make_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (upper, layer) = (folder.path().join("upper"), folder.path().join("layer"));
        for path in
            ["layer/run", "layer/var/data", "upper/proc", "upper/etc", "upper/var/data/x", "upper/new/y", "upper/run/z"]
        {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        symlink("/run", layer.join("var/run")).unwrap();
        fs::write(upper.join("etc/hosts"), "").unwrap();
        fs::write(upper.join("etc/made"), "").unwrap();
        let volumes = ["/var/data", "/new", "/var/run"].map(String::from);
        tidy(&upper, &[layer], &volumes).unwrap();
        for (path, stays) in [
            ("proc", false),
            ("etc/hosts", false),
            ("etc/made", true),
            ("var", true),
            ("var/data", false),
            ("new", true),
            ("new/y", false),
            ("run", false),
        ] {
            assert_eq!(upper.join(path).exists(), stays, "{path}");
        }
    }
}
