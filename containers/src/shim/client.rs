//! The daemon's side of a shim: spawn it, talk to it, adopt it, wait for its end.

use super::{Config, Exit};
use crate::error::Result;
use tokio::net::UnixStream;

/// A running shim, spawned by this daemon or adopted from one before it.
pub struct Shim {
    /// The shim's pid and start time (field 22 of /proc/PID/stat): together they name one process for ever.
    pub pid: i32,
    pub started: u64,
    pub config: Config,
}

/// Starts `inception shim` for `config` (written to `config_file`) and returns when its socket answers. Its network
/// namespace is /proc/PID/ns/net from then on.
pub async fn spawn(_config: Config, _config_file: &std::path::Path) -> Result<Shim> {
    todo!()
}

impl Shim {
    /// The shim that an earlier daemon started, if it still lives.
    pub fn adopt(_config: Config, _pid: i32, _started: u64) -> Option<Shim> {
        todo!()
    }
    /// Waits until the process is created; its pid.
    pub async fn created(&self) -> Result<i32> {
        todo!()
    }
    /// Starts the process; its pid.
    pub async fn start(&self) -> Result<i32> {
        todo!()
    }
    /// A stream of output (and input); connect before `start` to miss nothing.
    pub async fn attach(&self, _stdin: bool, _stdout: bool, _stderr: bool) -> Result<UnixStream> {
        todo!()
    }
    /// Sets the terminal's size.
    pub async fn resize(&self, _rows: u16, _columns: u16) -> Result<()> {
        todo!()
    }
    /// Waits for the shim's end (pidfd) and reads its exit file; `None`: it was killed before it wrote one.
    pub async fn wait(&self) -> Result<Option<Exit>> {
        todo!()
    }
}
