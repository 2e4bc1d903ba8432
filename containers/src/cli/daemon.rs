//! `inception daemon`: the embedded engine.

use super::{Globals, block_on, connect::DEFAULT_SOCKET};
use crate::{
    api, beside,
    engine::{Engine, config::Config},
    error::{Context, Error, Result},
    systemd,
};
use argh::{ArgsInfo, FromArgs};
use ipnet::Ipv4Net;
use nix::{
    fcntl::{Flock, FlockArg},
    unistd::{Uid, setsid},
};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};

/// Serve the Docker Engine API on a unix socket. Options are dockerd's. Containers live on when the daemon ends, and
/// a daemon that comes back finds them.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "daemon",
    example = "inception daemon --detach\ninception daemon --host unix:///tmp/a.sock --data-root /tmp/a --exec-root /tmp/a.run",
    note = "SIGTERM and SIGINT end the daemon, not its containers; SIGHUP does nothing. Where systemd shuts the machine down, SIGTERM stops the containers first, each by its own signal and in its own time, and the next boot's daemon starts those again whose restart policy says so and that nobody stopped by hand."
)]
pub struct Daemon {
    /// where to listen, unix:///path (default: unix:///run/inception/inception.sock); the socket is its owner's alone
    #[argh(option, short = 'H')]
    host: Option<String>,
    /// images, containers and volumes; survives a reboot (default: /var/lib/inception)
    #[argh(option, default = "PathBuf::from(\"/var/lib/inception\")")]
    data_root: PathBuf,
    /// sockets and runtime state; need not survive a reboot (default: /run/inception)
    #[argh(option, default = "PathBuf::from(\"/run/inception\")")]
    exec_root: PathBuf,
    /// file for the daemon's pid (default: EXEC_ROOT/inception.pid)
    #[argh(option, short = 'p')]
    pidfile: Option<PathBuf>,
    /// address of the default bridge, as 198.18.0.1/24
    #[argh(option)]
    bip: Option<Ipv4Net>,
    /// where networks are cut from, as base=198.18.0.0/15,size=24; repeatable
    #[argh(option)]
    default_address_pool: Vec<String>,
    /// another OCI runtime, as crun=/usr/bin/crun; repeatable
    #[argh(option)]
    add_runtime: Vec<String>,
    /// the runtime for containers that name none (default: runc)
    #[argh(option, default = "String::from(\"runc\")")]
    default_runtime: String,
    /// the static inception-init that `--init` puts into containers (default: beside this program)
    #[argh(option)]
    init_path: Option<PathBuf>,
    /// go to the background once the socket answers; the log's path is printed
    #[argh(switch)]
    detach: bool,
    /// remove what the engine of these folders has made on this machine (bridges, firewall table, cgroup) and end; no
    /// container may run. What is in the folders stays
    #[argh(switch)]
    teardown: bool,
    /// more in the log
    #[argh(switch, short = 'D')]
    debug: bool,
}

/// Bytes of stack that a walk over 2048 nested folders fits in, in a debug build too.
pub const DEEP_STACK: usize = 32 << 20;

impl Daemon {
    /// Runs until a signal ends it; with `--detach`, until the socket of the one in the background answers.
    pub fn run(self, globals: &Globals) -> Result<u8> {
        if !Uid::effective().is_root() {
            return Err(Error::Failed(
                "the embedded engine needs root (namespaces, mounts, networks): run it with sudo, or set DOCKER_HOST to an engine that you may use".into(),
            ));
        }
        let (detach, teardown) = (self.detach, self.teardown);
        let config = self.config(globals)?;
        if teardown {
            let _lock = lock(&config)?;
            block_on(crate::engine::tear_down(&config))?;
            return Ok(0);
        }
        if detach {
            return start_in_background(&config);
        }
        if config.debug {
            log::set_max_level(log::LevelFilter::Debug);
        }
        // Two workers: the daemon mostly waits, and every thread costs memory.
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            // Folders may be nested as deep as a path is long, by whoever made a layer or a context, and walks over them
            // recurse. Only pages that are used cost memory.
            .thread_stack_size(DEEP_STACK)
            .thread_keep_alive(Duration::from_secs(2))
            .enable_all()
            .build()
            .doing("start the async runtime")?
            .block_on(serve(config))?;
        Ok(0)
    }

    fn config(self, globals: &Globals) -> Result<Config> {
        let host = self.host.or_else(|| globals.host.clone()).unwrap_or_else(|| format!("unix://{DEFAULT_SOCKET}"));
        let host = host
            .strip_prefix("unix://")
            .filter(|path| path.starts_with('/'))
            .ok_or_else(|| Error::invalid(format!("--host {host}: only unix:///absolute/path is served")))?;
        let mut runtimes = BTreeMap::new();
        for name in ["runc", "crun", "youki"] {
            if let Some(path) = find_program(name) {
                runtimes.insert(name.to_string(), path);
            }
        }
        for entry in &self.add_runtime {
            let (name, path) = entry
                .split_once('=')
                .ok_or_else(|| Error::invalid(format!("--add-runtime {entry}: write it as NAME=/path/of/program")))?;
            runtimes.insert(name.into(), path.into());
        }
        if !runtimes.contains_key(&self.default_runtime) {
            return Err(Error::Failed(format!(
                "the OCI runtime {} is not there: install it (on Debian: apt-get install runc), or give --add-runtime {0}=/path/of/program",
                self.default_runtime
            )));
        }
        let pools = if self.default_address_pool.is_empty() {
            vec!["base=198.18.0.0/15,size=24".to_string()]
        } else {
            self.default_address_pool
        };
        let data_root = absolute(&self.data_root)?;
        let exec_root = absolute(&self.exec_root)?;
        Ok(Config {
            host: host.into(),
            pidfile: self.pidfile.unwrap_or_else(|| exec_root.join("inception.pid")),
            data_root,
            exec_root,
            bip: self.bip,
            default_address_pools: pools.iter().map(|pool| address_pool(pool)).collect::<Result<_>>()?,
            runtimes,
            default_runtime: self.default_runtime,
            init_path: self.init_path.or_else(find_init).unwrap_or_else(|| "/usr/local/bin/inception-init".into()),
            debug: self.debug,
        })
    }
}

/// `base=198.18.0.0/15,size=24`
fn address_pool(text: &str) -> Result<(Ipv4Net, u8)> {
    let bad = || Error::invalid(format!("--default-address-pool {text}: write it as base=198.18.0.0/15,size=24"));
    let (mut base, mut size) = (None, None);
    for part in text.split(',') {
        match part.split_once('=').ok_or_else(bad)? {
            ("base", value) => base = Some(value.parse::<Ipv4Net>().map_err(|_| bad())?.trunc()),
            ("size", value) => size = Some(value.parse::<u8>().map_err(|_| bad())?),
            _ => return Err(bad()),
        }
    }
    let (base, size) = (base.ok_or_else(bad)?, size.ok_or_else(bad)?);
    if size < base.prefix_len() || size > 30 {
        return Err(bad());
    }
    Ok((base, size))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).at("make absolute", path)
}

/// A program by its name: in PATH, or where the system's own are.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// The static init: `$INCEPTION_INIT`, else the one beside this program.
pub fn find_init() -> Option<PathBuf> {
    std::env::var_os("INCEPTION_INIT").map(PathBuf::from).or_else(|| beside::find("inception-init"))
}

/// The same, or what to do about it.
pub fn need_init() -> Result<PathBuf> {
    find_init().filter(|path| path.is_file()).ok_or_else(|| {
        Error::Failed(
            "the program inception-init is not found: build it (make does), or name it in INCEPTION_INIT".into(),
        )
    })
}

/// Starts the same command without `--detach` in a session of its own and waits for its socket.
fn start_in_background(config: &Config) -> Result<u8> {
    fs::create_dir_all(&config.data_root).at("create", &config.data_root)?;
    let log_path = config.data_root.join("daemon.log");
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path).at("open", &log_path)?;
    let log_start = log.metadata().at("look at", &log_path)?.len();
    let mut command = Command::new(std::env::current_exe().doing("find this program's own path")?);
    command
        .args(std::env::args_os().skip(1).filter(|arg| arg != "--detach"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().at("duplicate", &log_path)?)
        .stderr(log);
    crate::sys::before_exec(&mut command, || setsid().map(drop).map_err(Into::into));
    let mut child = command.spawn().doing("start the daemon")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = child.try_wait().doing("wait for the daemon")? {
            let text = fs::read(&log_path).unwrap_or_default();
            let new = String::from_utf8_lossy(text.get(log_start as usize..).unwrap_or_default()).into_owned();
            return Err(Error::Failed(format!(
                "the daemon ended at once ({status}); its log {} says:\n{}",
                log_path.display(),
                new.trim_end()
            )));
        }
        if StdUnixStream::connect(&config.host).is_ok() {
            eprintln!(
                "inception daemon: pid {}, socket {}, log {}",
                child.id(),
                config.host.display(),
                log_path.display()
            );
            return Ok(0);
        }
        if Instant::now() > deadline {
            return Err(Error::Failed(format!(
                "the daemon's socket does not answer after 30 s; see {}",
                log_path.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Opens the engine and serves its API until SIGTERM or SIGINT.
async fn serve(config: Config) -> Result<()> {
    let _lock = lock(&config)?;
    private_folder(&config.exec_root)?;
    let listener = listen(&config.host)?;
    write_pidfile(&config.pidfile)?;
    let engine = Engine::open(config.clone()).await?;
    log::info!("serving on {} (data root {})", config.host.display(), config.data_root.display());
    systemd::ready();
    let mut terminate = signal(SignalKind::terminate()).doing("watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).doing("watch SIGINT")?;
    // dockerd's signal to read its configuration again; there is none here. And what systemd sends to a login session's
    // processes behind SIGTERM.
    let _ignored = signal(SignalKind::hangup()).doing("watch SIGHUP")?;
    let server = axum::serve(listener, api::service(Arc::clone(&engine)));
    let (signal, machine_goes_down) = tokio::select! {
        ended = server => return ended.doing("serve the API"),
        () = engine.shrink_when_idle() => return Ok(()),
        _ = terminate.recv() => ("SIGTERM", systemd::machine_goes_down().await),
        _ = interrupt.recv() => ("SIGINT", false),
    };
    if machine_goes_down {
        log::info!("{signal}: the machine goes down, and the containers with it");
        systemd::needs_to_end(engine.time_to_stop());
    } else {
        log::info!("{signal}: ending; the containers go on");
    }
    engine.end(machine_goes_down).await;
    for path in [&config.host, &config.pidfile] {
        if let Err(error) = fs::remove_file(path) {
            log::warn!("remove {}: {error}", path.display());
        }
    }
    Ok(())
}

/// One daemon a store: the lock ends with the process, however it dies.
fn lock(config: &Config) -> Result<Flock<File>> {
    private_folder(&config.data_root)?;
    let path = config.data_root.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).at("open", &path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        Error::Failed(format!(
            "another daemon uses {}: end it first, or give this one a --data-root, --exec-root and --host of its own",
            config.data_root.display()
        ))
    })
}

/// Others may pass through (a container's user reaches its files below), not look.
fn private_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).at("create", path)?;
    fs::set_permissions(path, Permissions::from_mode(0o711)).at("set the mode of", path)
}

/// Binds the socket under a umask of 0177, so that it is never open to others.
fn listen(path: &Path) -> Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).at("create", folder)?;
    }
    if StdUnixStream::connect(path).is_ok() {
        return Err(Error::Failed(format!("{}: another engine answers on this socket; give --host", path.display())));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).at("remove the old", path),
        _ => {}
    }
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path).at("listen on", path);
    nix::sys::stat::umask(old);
    listener
}

fn write_pidfile(path: &Path) -> Result<()> {
    let mut file = File::create(path).at("create", path)?;
    writeln!(file, "{}", std::process::id()).at("write", path)
}
