//! What the daemon tells systemd and asks it. On a machine without systemd there is nobody to tell, and the answer is no.

use std::{ffi::OsStr, io, os::unix::net::UnixDatagram, process::Stdio, time::Duration};
use tokio::process::Command;

/// A manager that is busy with a shutdown answers in some 10 ms.
const PATIENCE: Duration = Duration::from_secs(5);

/// The manager's socket, where the daemon runs as a unit: sd_notify(3).
const SOCKET: &str = "NOTIFY_SOCKET";

/// The daemon is ready.
pub fn ready() {
    notify("READY=1");
}

/// The daemon may need this long to end: the unit's TimeoutStopSec is extended, and never shortened.
pub fn needs_to_end(time: Duration) {
    notify(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()));
}

fn notify(message: &str) {
    let Some(address) = std::env::var_os(SOCKET) else { return };
    if let Err(error) = send(message, &address) {
        log::warn!("tell systemd {message}: {error}");
    }
}

fn send(message: &str, address: &OsStr) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to(message.as_bytes(), address).map(drop)
}

/// Whether the machine is shutting down or rebooting: `stopping`, by systemctl(1). Where nobody can say, it is not.
pub async fn machine_goes_down() -> bool {
    let mut command = Command::new("systemctl");
    command.arg("is-system-running").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.output()).await {
        // The exit code is not 0 for anything but `running`.
        Ok(Ok(output)) => output.stdout.trim_ascii() == b"stopping",
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => false,
        Ok(Err(error)) => {
            log::warn!("ask systemctl whether the machine goes down: {error}");
            false
        }
        Err(_) => {
            log::warn!("ask systemctl whether the machine goes down: no answer within {} s", PATIENCE.as_secs());
            false
        }
    }
}
