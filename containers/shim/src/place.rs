//! Where the process will live: the namespaces that the shim owns and the process inherits, and the shim's own signals
//! and socket.

use crate::{
    error::{Context, Result},
    sys,
};
use inception_shim::{Config, NetworkNamespace, Process};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl::{set_child_subreaper, set_name},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        stat::{Mode, umask},
    },
    unistd::setsid,
};
use std::{
    fs::{self, File},
    os::unix::net::UnixListener,
    path::Path,
};

/// Session, signals, namespaces, root file system, socket.
pub fn prepare(config: &Config) -> Result<(UnixListener, SignalFd)> {
    // The daemon runs this program by a descriptor, whose number would be its name in ps(1).
    set_name(c"inception-shim").doing("take a name")?;
    // A shim that is its session's leader already is as good.
    let _ = setsid();
    for number in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE] {
        sys::ignore_signal(number).doing("ignore a signal")?;
    }
    set_child_subreaper(true).doing("become a subreaper")?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().doing("block SIGCHLD")?;
    let children =
        SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).doing("watch children")?;
    if let Process::Container { rootfs, .. } = &config.process {
        unshare(CloneFlags::CLONE_NEWNS).doing("make a mount namespace")?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
            .doing("keep mounts from the host")?;
        rootfs.mount().at("mount the overlay on", &rootfs.merged)?;
    }
    let (Process::Container { network, .. } | Process::Exec { network, .. }) = &config.process;
    match network {
        NetworkNamespace::Own => {
            unshare(CloneFlags::CLONE_NEWNET).doing("make a network namespace")?;
            sys::loopback_up().doing("bring up lo")?;
        }
        NetworkNamespace::Host => {}
        NetworkNamespace::Join(path) => {
            let namespace = File::open(path).at("open", path)?;
            setns(namespace, CloneFlags::CLONE_NEWNET).at("enter", path)?;
        }
    }
    if let Process::Container { sysctls, .. } = &config.process {
        for (name, value) in sysctls {
            let path = Path::new("/proc/sys").join(name.replace('.', "/"));
            fs::write(&path, value).at("write", &path)?;
        }
    }
    let old = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(&config.socket).at("listen on", &config.socket);
    umask(old);
    let listener = listener?;
    listener.set_nonblocking(true).at("set up", &config.socket)?;
    Ok((listener, children))
}
