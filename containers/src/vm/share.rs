//! A folder of the host in a machine: one virtiofsd for each.

use super::{machine::Share, qemu, tools};
use crate::error::{Context, Error, Result};
use std::{
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
};
use tokio::process::{Child, Command};

/// Where virtiofsd lies: that of newer distributions (in Rust), and qemu's own (in C) of Debian 12. Neither is in PATH.
const PROGRAMS: [&str; 3] = ["/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd"];

/// In a mount namespace of its own a read-only share is read-only for virtiofsd, too: the machine's word does not count.
const READ_ONLY: &str = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@""#;

/// The virtiofsd of this machine.
pub fn program() -> Result<PathBuf> {
    let found = PROGRAMS.map(PathBuf::from).into_iter().find(|path| path.is_file());
    found.ok_or_else(|| tools::missing("virtiofsd, which -v needs,", "virtiofsd, or qemu-system-common on Debian 12"))
}

/// Refuses what can't be shared.
pub fn check(source: &Path) -> Result<()> {
    if !super::root::is_root() {
        return Err(Error::Failed("-v needs root: files in the machine have owners that only root can give".into()));
    }
    let meta = source.metadata().at("look at what -v names,", source)?;
    match meta.is_dir() {
        true => Ok(()),
        false => Err(Error::Failed(format!(
            "-v {}: a machine can have folders of the host, and this is none: name the folder that it is in",
            source.display()
        ))),
    }
}

/// Starts a share's virtiofsd. It is given its socket as stdin, where qemu can connect at once: by the socket's name it
/// would also take a lock for the whole machine (qemu's does, in /var/run/virtiofsd), and names are alike. Where it fails qemu
/// does, too.
pub fn start(share: &Share) -> Result<Child> {
    let program = program()?;
    let socket = qemu::share_socket(&share.tag);
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).doing(format!("listen on {socket}"))?;
    let is_c = program.starts_with("/usr/lib/qemu");
    let source = share.source.display().to_string();
    let mut words = vec![program.display().to_string(), "--fd=0".into()];
    match is_c {
        true => words
            .extend(["-f", "-o", &format!("source={source}"), "-o", "xattr", "-o", "cache=auto"].map(str::to_owned)),
        false => words.extend([&format!("--shared-dir={source}"), "--xattr", "--cache=auto"].map(str::to_owned)),
    }
    let mut command = if share.read_only {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", READ_ONLY, &source]).args(&words);
        command
    } else {
        let mut command = std::process::Command::new(&words[0]);
        command.args(&words[1..]);
        command
    };
    let log = log_file(share);
    let file = std::fs::File::create(&log).doing(format!("create {log}"))?;
    command.stdin(OwnedFd::from(listener)).stdout(file.try_clone().doing("duplicate a log")?).stderr(file);
    crate::sys::before_exec(&mut command, crate::sys::die_with_parent);
    Command::from(command).kill_on_drop(true).spawn().doing("start virtiofsd")
}

/// What a share's virtiofsd says.
pub fn log_file(share: &Share) -> String {
    format!("{}.log", share.tag)
}
