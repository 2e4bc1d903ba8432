//! The OCI runtime specification (config.md, config-linux.md) of a container, from Docker's configuration of it.

mod capabilities;
mod resources;
mod seccomp;
mod support;
pub mod users;

pub use support::refuse_unsupported;
pub use users::user;

use crate::error::{Error, Result};
use bollard_stubs::models;
use oci_spec::runtime;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What a container's specification is made of.
#[derive(Debug)]
pub struct Input<'a> {
    pub id: &'a str,
    pub hostname: &'a str,
    /// The merged configuration (image's and the request's): final Cmd, Entrypoint, Env, User, WorkingDir, Tty.
    pub config: &'a models::ContainerConfig,
    pub host_config: &'a models::HostConfig,
    /// The image's layers, to look up users and groups by name: the topmost first.
    pub layers: &'a [PathBuf],
    /// Where the overlay is mounted (in the shim's mount namespace).
    pub rootfs: &'a Path,
    /// Binds, volumes and tmpfs, resolved by the engine: host path or tmpfs, target, options.
    pub mounts: &'a [Mount],
    /// A program to bind at /sbin/docker-init and to put before the command (`--init`).
    pub init: Option<&'a Path>,
    /// The cgroup folder under which the container's own is made, as `/inception-1a2b3c4d`.
    pub cgroup_parent: &'a str,
}

/// A mount of a container, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    Bind { source: PathBuf, target: String, read_only: bool, propagation: Option<String> },
    Tmpfs { target: String, options: Vec<String> },
}

/// Where `--init` finds the init inside a container, as with Docker.
const INIT_TARGET: &str = "/sbin/docker-init";

/// The search path of a service whose image names none; Docker's.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Kernel interfaces that tell of or act on the host: hidden.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];

/// Kernel interfaces that may be read only.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The container's cgroup, from the root of each hierarchy on (one that does not begin with `/` would be below the
/// daemon's own).
fn cgroup_path(asked: Option<&str>, input: &Input) -> String {
    let parent = asked.filter(|path| !path.is_empty()).unwrap_or(input.cgroup_parent);
    format!("/{}/{}", parent.trim_matches('/'), input.id)
}

/// The cgroup that a specification names.
pub fn cgroup_of(spec: &runtime::Spec) -> PathBuf {
    spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone()).unwrap_or_default()
}

/// The whole config.json.
pub fn container(input: &Input) -> Result<runtime::Spec> {
    let host = input.host_config;
    let privileged = host.privileged.unwrap_or(false);
    let (masked, read_only) = if privileged { (Vec::new(), Vec::new()) } else { (MASKED.to_vec(), READ_ONLY.to_vec()) };
    let process = process(input)?;
    let mut linux = json!({
        "namespaces": namespaces(input),
        "cgroupsPath": cgroup_path(host.cgroup_parent.as_deref(), input),
        "resources": resources::resources(host)?,
        "devices": resources::devices(host)?,
        "maskedPaths": host.masked_paths.clone().unwrap_or_else(|| masked.into_iter().map(String::from).collect()),
        "readonlyPaths": host.readonly_paths.clone().unwrap_or_else(|| read_only.into_iter().map(String::from).collect()),
        "rootfsPropagation": "rprivate",
        "sysctl": host.sysctls.iter().flatten().filter(|(name, _)| !name.starts_with("net.")).collect::<BTreeMap<_, _>>(),
    });
    if let Some(profile) = seccomp(host, &process["capabilities"]["bounding"])? {
        linux["seccomp"] = profile;
    }
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "hostname": input.hostname,
        "root": {"path": input.rootfs, "readonly": host.readonly_rootfs.unwrap_or(false)},
        "process": process,
        "mounts": mounts(input, privileged)?,
        "linux": linux,
    });
    if host.uts_mode.as_deref() == Some("host")
        && let Some(spec) = spec.as_object_mut()
    {
        spec.remove("hostname");
    }
    serde_json::from_value(spec).map_err(|error| Error::Failed(format!("make the container's specification: {error}")))
}

fn process(input: &Input) -> Result<Value> {
    let config = input.config;
    let host = input.host_config;
    let mut command: Vec<String> = config.entrypoint.clone().unwrap_or_default();
    command.extend(config.cmd.clone().unwrap_or_default());
    if command.is_empty() {
        return Err(Error::Invalid("no command specified: the image has neither CMD nor ENTRYPOINT".into()));
    }
    if input.init.is_some() {
        command.splice(0..0, [INIT_TARGET.to_string(), "--".to_string()]);
    }
    let mut found = user(config.user.as_deref().unwrap_or_default(), input.layers)?;
    for name in host.group_add.iter().flatten() {
        found.additional_gids.push(users::group(name, input.layers)?);
    }
    let tty = config.tty.unwrap_or(false);
    let mut capabilities = if host.privileged.unwrap_or(false) {
        capabilities::all()
    } else {
        capabilities::effective(
            host.cap_add.as_deref().unwrap_or_default(),
            host.cap_drop.as_deref().unwrap_or_default(),
        )?
    };
    capabilities.sort();
    // A user other than root has them only by files with capabilities, as with Docker.
    let held = if found.uid == 0 { capabilities.clone() } else { Vec::new() };
    let mut environment = environment(config.env.as_deref().unwrap_or_default(), input.hostname, tty, &found.home);
    environment.dedup();
    Ok(json!({
        "terminal": tty,
        "user": {"uid": found.uid, "gid": found.gid, "additionalGids": found.additional_gids},
        "args": command,
        "env": environment,
        "cwd": working_directory(config.working_dir.as_deref()),
        "capabilities": {"bounding": capabilities, "effective": held, "permitted": held},
        "noNewPrivileges": security_options(host)?.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
        "rlimits": resources::limits(host)?,
    }))
}

/// PATH, HOSTNAME, TERM and HOME where the configuration does not set them.
fn environment(configured: &[String], hostname: &str, tty: bool, home: &str) -> Vec<String> {
    let has = |name: &str| configured.iter().any(|entry| entry.split('=').next() == Some(name));
    let mut environment = Vec::new();
    if !has("PATH") {
        environment.push(DEFAULT_PATH.to_string());
    }
    if !has("HOSTNAME") {
        environment.push(format!("HOSTNAME={hostname}"));
    }
    if tty && !has("TERM") {
        environment.push("TERM=xterm".into());
    }
    // `-e NAME` without a value takes a variable away.
    environment.extend(configured.iter().filter(|entry| entry.contains('=')).cloned());
    if !has("HOME") {
        environment.push(format!("HOME={home}"));
    }
    environment
}

fn working_directory(asked: Option<&str>) -> &str {
    asked.filter(|path| !path.is_empty()).unwrap_or("/")
}

fn namespaces(input: &Input) -> Value {
    let host = input.host_config;
    let mut list = vec![json!({"type": "mount"})];
    let is_host = |mode: &Option<String>| mode.as_deref() == Some("host");
    if !is_host(&host.pid_mode) {
        list.push(json!({"type": "pid"}));
    }
    if !is_host(&host.ipc_mode) {
        list.push(json!({"type": "ipc"}));
    }
    if !is_host(&host.uts_mode) {
        list.push(json!({"type": "uts"}));
    }
    // No network namespace: the container inherits its shim's.
    if own_cgroup_namespace(host) {
        list.push(json!({"type": "cgroup"}));
    }
    Value::Array(list)
}

/// Docker's default: private with cgroup v2, the host's with v1, where `--cgroupns private` asks for one.
fn own_cgroup_namespace(host: &models::HostConfig) -> bool {
    use models::HostConfigCgroupnsModeEnum as Mode;
    match host.cgroupns_mode {
        Some(Mode::PRIVATE) => true,
        Some(Mode::HOST) => false,
        // runc mounts the controllers for a namespace of its own on v1 too.
        _ => !host.privileged.unwrap_or(false) || resources::is_cgroup_v2(),
    }
}

fn mounts(input: &Input, privileged: bool) -> Result<Value> {
    let host = input.host_config;
    let shm = host.shm_size.filter(|size| *size > 0).unwrap_or(64 << 20);
    let system = if privileged { "rw" } else { "ro" };
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", system]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &[system, "nosuid", "noexec", "nodev"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    if host.ipc_mode.as_deref() == Some("host") {
        list.push(mount("/dev/shm", "bind", "/dev/shm", &["rbind", "nosuid", "noexec", "nodev"]));
    } else {
        list.push(mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &format!("size={shm}")],
        ));
    }
    // A parent before what lies in it.
    let mut asked: Vec<&Mount> = input.mounts.iter().collect();
    asked.sort_by_key(|mount| target(mount).trim_end_matches('/').matches('/').count());
    for one in asked {
        list.retain(|mount| mount["destination"] != target(one).trim_end_matches('/'));
        list.push(match one {
            Mount::Bind { source, target, read_only, propagation } => {
                let mode = if *read_only { "ro" } else { "rw" };
                mount(
                    target,
                    "bind",
                    &source.display().to_string(),
                    &["rbind", mode, propagation.as_deref().unwrap_or("rprivate")],
                )
            }
            Mount::Tmpfs { target, options } => {
                let mut all = vec!["nosuid", "nodev", "noexec"];
                all.extend(options.iter().map(String::as_str));
                mount(target, "tmpfs", "tmpfs", &all)
            }
        });
    }
    if let Some(init) = input.init {
        if !init.is_file() {
            return Err(Error::Failed(format!(
                "--init: {} is not there; build it (make init) or give the daemon --init-path",
                init.display()
            )));
        }
        list.push(mount(INIT_TARGET, "bind", &init.display().to_string(), &["bind", "ro"]));
    }
    Ok(Value::Array(list))
}

fn target(mount: &Mount) -> &str {
    match mount {
        Mount::Bind { target, .. } | Mount::Tmpfs { target, .. } => target,
    }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// What the shim sets in the container's own network namespace: ports from 0 on without capabilities and ping for
/// everybody, as with Docker, and what was asked for (`--sysctl net.…`).
pub fn network_sysctls(host: &models::HostConfig) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::from([
        ("net.ipv4.ip_unprivileged_port_start".to_string(), "0".to_string()),
        ("net.ipv4.ping_group_range".to_string(), "0 2147483647".to_string()),
    ]);
    for (name, value) in host.sysctls.iter().flatten().filter(|(name, _)| name.starts_with("net.")) {
        if name.contains('/') || name.contains("..") {
            return Err(Error::Invalid(format!("--sysctl {name}: not a name of sysctl(8)")));
        }
        all.insert(name.clone(), value.clone());
    }
    Ok(all)
}

/// `--security-opt`, understood.
struct SecurityOptions {
    no_new_privileges: bool,
    /// None: the default profile; Some(None): none at all.
    seccomp: Option<Option<Value>>,
}

fn security_options(host: &models::HostConfig) -> Result<SecurityOptions> {
    let mut options = SecurityOptions { no_new_privileges: false, seccomp: None };
    for text in host.security_opt.iter().flatten() {
        let (name, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => options.no_new_privileges = true,
            ("no-new-privileges", "false") => options.no_new_privileges = false,
            ("seccomp", "unconfined") => options.seccomp = Some(None),
            ("seccomp", "builtin") => options.seccomp = None,
            ("seccomp", profile) => {
                let profile = serde_json::from_str(profile)
                    .map_err(|error| Error::Invalid(format!("--security-opt seccomp: not a profile: {error}")))?;
                options.seccomp = Some(Some(profile));
            }
            // There is no AppArmor or SELinux here to be turned off.
            ("apparmor", "unconfined") | ("label", "disable") => {}
            _ => return Err(Error::NotImplemented(format!("--security-opt {text}"))),
        }
    }
    Ok(options)
}

fn seccomp(host: &models::HostConfig, capabilities: &Value) -> Result<Option<Value>> {
    if host.privileged.unwrap_or(false) {
        return Ok(None);
    }
    let held: Vec<String> = serde_json::from_value(capabilities.clone()).unwrap_or_default();
    Ok(match security_options(host)?.seccomp {
        None => Some(seccomp::default_profile(&held)),
        Some(own) => own,
    })
}

/// The process.json of `docker exec`: the container's capabilities (all with `privileged`), no more; its seccomp
/// profile is added by the runtime.
pub fn exec(container: &runtime::Spec, request: &models::ExecConfig, layers: &[PathBuf]) -> Result<Value> {
    let mut process = serde_json::to_value(container.process())
        .map_err(|error| Error::Failed(format!("read the container's specification: {error}")))?;
    let command = request.cmd.clone().unwrap_or_default();
    if command.is_empty() {
        return Err(Error::Invalid("No exec command specified".into()));
    }
    let tty = request.tty.unwrap_or(false);
    process["terminal"] = tty.into();
    process["args"] = json!(command);
    if let Some(name) = request.user.as_deref().filter(|name| !name.is_empty()) {
        let found = user(name, layers)?;
        process["user"] = json!({"uid": found.uid, "gid": found.gid, "additionalGids": found.additional_gids});
        let held = if found.uid == 0 { process["capabilities"]["bounding"].clone() } else { json!([]) };
        process["capabilities"]["effective"] = held.clone();
        process["capabilities"]["permitted"] = held;
        set_variable(&mut process["env"], &format!("HOME={}", found.home));
    }
    if request.privileged.unwrap_or(false) {
        let all = json!(capabilities::all());
        process["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    }
    if tty {
        set_variable(&mut process["env"], "TERM=xterm");
    }
    for entry in request.env.iter().flatten().filter(|entry| entry.contains('=')) {
        set_variable(&mut process["env"], entry);
    }
    if let Some(folder) = request.working_dir.as_deref().filter(|folder| !folder.is_empty()) {
        process["cwd"] = folder.into();
    }
    Ok(process)
}

/// Sets `NAME=value` in a list of such.
fn set_variable(environment: &mut Value, entry: &str) {
    let name = entry.split('=').next().unwrap_or_default();
    if let Some(list) = environment.as_array_mut() {
        list.retain(|old| old.as_str().and_then(|old| old.split('=').next()) != Some(name));
        list.push(entry.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(config: models::ContainerConfig, host_config: models::HostConfig) -> Result<runtime::Spec> {
        container(&Input {
            id: "abc",
            hostname: "box",
            config: &config,
            host_config: &host_config,
            layers: &[],
            rootfs: Path::new("/r"),
            mounts: &[Mount::Tmpfs { target: "/run".into(), options: vec!["size=1m".into()] }],
            init: None,
            cgroup_parent: "/inception-x",
        })
    }

    #[test]
    fn defaults_are_dockers() {
        let config = models::ContainerConfig { cmd: Some(vec!["sh".into()]), ..Default::default() };
        let spec = made(config, Default::default()).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.args().as_ref().unwrap(), &["sh"]);
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 14);
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.seccomp().is_some() && linux.masked_paths().as_ref().unwrap().len() == 11);
        assert!(made(Default::default(), Default::default()).is_err());
    }

    #[test]
    fn exec_replaces_what_it_is_asked_to() {
        let config = models::ContainerConfig { cmd: Some(vec!["sh".into()]), ..Default::default() };
        let spec = made(config, Default::default()).unwrap();
        let request = models::ExecConfig {
            cmd: Some(vec!["ls".into()]),
            env: Some(vec!["A=b".into(), "PATH=/x".into()]),
            user: Some("1000".into()),
            ..Default::default()
        };
        let process = exec(&spec, &request, &[]).unwrap();
        assert_eq!(process["args"], json!(["ls"]));
        assert_eq!(process["capabilities"]["effective"], json!([]));
        let environment = process["env"].to_string();
        assert!(environment.contains("PATH=/x") && !environment.contains("/usr/bin"));
    }
}
