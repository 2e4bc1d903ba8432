//! A build's RUN: a container that leaves nothing behind but its upper directory.

use super::Engine;
use crate::{error::Result, image::Image};
use bollard_stubs::models;
use std::{path::Path, sync::Arc};
use tokio::sync::mpsc::UnboundedSender;

/// Runs `config`'s command (Cmd, Env, User, WorkingDir) on `image` with its writable layer in `dir` (volatile; from
/// [`crate::image::Store::scratch`]); the exit code. `dir/upper` then holds the changes, without the stubs of mounts.
/// Output goes to `output` as it comes.
pub async fn run(
    _engine: &Arc<Engine>,
    _image: &Image,
    _config: &models::ContainerConfig,
    _network: &str,
    _extra_hosts: &[String],
    _dir: &Path,
    _output: UnboundedSender<Vec<u8>>,
) -> Result<i32> {
    todo!()
}
