//! The OCI runtime specification of a container, from Docker's configuration of it.

use crate::error::Result;
use bollard_stubs::models;
use oci_spec::runtime;
use std::path::{Path, PathBuf};

/// What a container's specification is made of.
#[derive(Debug)]
pub struct Input<'a> {
    pub id: &'a str,
    pub hostname: &'a str,
    /// The merged configuration (image's and the request's): final Cmd, Entrypoint, Env, User, WorkingDir, Tty.
    pub config: &'a models::ContainerConfig,
    pub host_config: &'a models::HostConfig,
    /// The image's layers (or the mounted root), to look up users and groups by name: the topmost first.
    pub layers: &'a [PathBuf],
    /// Where the overlay is mounted (in the shim's mount namespace).
    pub rootfs: &'a Path,
    /// Binds, volumes and tmpfs, resolved by the engine: host path or tmpfs, target, options.
    pub mounts: &'a [Mount],
    /// None: the host's; Some(path): join it (/proc/PID/ns/net).
    pub network_namespace: Option<PathBuf>,
    /// `inception-init` or another program to bind at /sbin/docker-init and to put before the command (`--init`).
    pub init: Option<&'a Path>,
    pub cgroup_parent: String,
}

/// A mount of a container, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    Bind { source: PathBuf, target: String, read_only: bool, propagation: Option<String> },
    Tmpfs { target: String, options: Vec<String> },
}

/// A user as `USER` and `--user` name it, looked up in the image's passwd and group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub home: String,
}

/// The whole config.json.
pub fn container(_input: &Input) -> Result<runtime::Spec> {
    todo!()
}

/// The process.json of `docker exec`: the container's capabilities (all with `privileged`), seccomp, no more.
pub fn exec(
    _container: &runtime::Spec,
    _request: &models::ExecConfig,
    _layers: &[PathBuf],
) -> Result<runtime::Process> {
    todo!()
}

/// Looks up `user[:group]` in the layers; an unknown name is Invalid in Docker's words.
pub fn user(_spec: &str, _layers: &[PathBuf]) -> Result<User> {
    todo!()
}
