//! From the machine's settings to what the supervisor takes: the command, and the init's own options.

use std::ffi::{CString, OsStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::power::Requests;
use super::settings::Settings;
use crate::config::Config;
use crate::environment::{self, Environment};
use crate::machine::LOOK_AGAIN;
use crate::spawn::{self, Birth, Command, Failure, Identity};
use crate::{options, signal, sys};

/// How long a program of `setup` may take.
const SETUP_LIMIT: Duration = Duration::from_secs(30);

/// What the supervisor takes.
pub struct Service {
    pub config: Config,
    pub command: Command,
    pub verbose: u8,
}

/// Makes the service of the settings and of what the kernel's command line says after `--`.
pub fn make(settings: &Settings, after: &[Vec<u8>]) -> Result<Service, String> {
    let (own, service) = split(after)?;
    let service = if service.is_empty() { &settings.service[..] } else { service };
    if service.is_empty() {
        return Err("no service: neither an `arg` nor a word after -- on the kernel's command line".into());
    }
    let mut words = Vec::new();
    for (key, value, _) in &settings.options {
        let option = format!("--{key}");
        match options::kind(key) {
            Some(options::Kind::Repeated) => words.extend([option, value.clone()]),
            // The command line replaces it.
            _ if own.contains(&option) => {}
            Some(options::Kind::Switch) => {
                words.extend(std::iter::repeat_n(option, value.parse().unwrap_or(0)));
            }
            _ => words.extend([option, value.clone()]),
        }
    }
    words.extend(own);
    let (mut config, verbose) = options::supervision(&words).map_err(|message| with_origin(settings, message))?;
    config.rules.stop_timeout = settings.stop_timeout;
    config.new_session = true;
    config.mask = signal::ALL_BUT_FAULTS;
    config.identity.limits = settings.limits.iter().map(|limit| (limit.resource, limit.values)).collect();
    match console(settings)? {
        Some(path) if settings.is_plain => config.new_session = hold(&path).is_err(),
        path => config.console = path,
    }
    config.requests = Some(Requests::listen(settings.stop_signal, &settings.status));
    let mut defaults = default_path();
    if let Some(zone) = &settings.zone {
        defaults.push((b"TZ".to_vec(), [b":", zone.as_bytes()].concat()));
    }
    defaults.retain(|(name, _)| !config.variables.iter().any(|(known, _)| known == name));
    config.variables.extend(defaults);
    Ok(Service { config, command: command(service)?, verbose })
}

/// The init's own words, and the service's.
fn split(after: &[Vec<u8>]) -> Result<(Vec<String>, &[Vec<u8>]), String> {
    let mut args = vec![OsStr::new("inception-init")];
    args.extend(after.iter().map(|word| OsStr::from_bytes(word)));
    let (own, first) = options::split(&args)?;
    Ok((own, after.get(first - 1..).unwrap_or_default()))
}

/// An option's message begins with its name, by which its line is found.
fn with_origin(settings: &Settings, message: String) -> String {
    let is_meant = |key: &str| {
        let rest = message.strip_prefix("--").and_then(|rest| rest.strip_prefix(key));
        rest.is_some_and(|rest| rest.starts_with([' ', ':']))
    };
    match settings.options.iter().rfind(|(key, ..)| is_meant(key)) {
        Some((_, _, origin)) => format!("{origin}: {message}"),
        None => message,
    }
}

/// The device of the service's terminal: /dev/console itself can't be a controlling one.
fn console(settings: &Settings) -> Result<Option<CString>, String> {
    let name = match settings.console.as_deref() {
        Some("none") => return Ok(None),
        Some(name) => name.to_owned(),
        None => {
            let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
            match active.split_ascii_whitespace().next_back() {
                Some(name) => name.to_owned(),
                None => return Ok(None),
            }
        }
    };
    let path = format!("/dev/{}", name.strip_prefix("/dev/").unwrap_or(&name));
    if !std::path::Path::new(&path).exists() && settings.console.is_none() {
        return Ok(None);
    }
    let path = CString::new(path).map_err(|_| "console: a NUL in the name")?;
    if settings.is_plain || settings.console_size.is_some() {
        // A console that is none refuses, and serves as it is.
        let _ = settle(&path, settings.is_plain, settings.console_size);
    }
    Ok(Some(path))
}

/// Makes a terminal the init's own, and its 0, 1 and 2, for the service to be its foreground group: at the end of a
/// session's leader the kernel hangs its terminal up, and throws away what is not sent yet. Nobody logs in by a pipe.
fn hold(path: &CString) -> nix::Result<()> {
    let fd = sys::open(path, libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK)?;
    sys::vm::take_terminal(fd)?;
    sys::vm::make_standard(fd);
    Ok(())
}

/// Sets a terminal's mode and size.
fn settle(path: &CString, is_plain: bool, size: Option<[u16; 2]>) -> nix::Result<()> {
    use nix::sys::termios::{LocalFlags, OutputFlags, SetArg, tcgetattr, tcsetattr};
    let fd = sys::open(path, libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK)?;
    let terminal = sys::vm::owned(fd);
    if let Some([rows, columns]) = size {
        sys::vm::set_size(fd, rows, columns)?;
    }
    if is_plain {
        let mut modes = tcgetattr(&terminal)?;
        modes.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHOCTL);
        modes.output_flags.remove(OutputFlags::OPOST);
        tcsetattr(&terminal, SetArg::TCSANOW, &modes)?;
    }
    Ok(())
}

/// Runs the programs of `setup`, one after the other.
pub fn prepare(settings: &Settings) -> Result<(), String> {
    let environment = environment::with(&default_path(), &[]);
    let birth = Birth {
        environment: environment.as_ref().map_or(environment::own(), Environment::as_ptr),
        new_session: false,
        terminal: None,
        console: None,
        death_signal: 0,
        identity: Identity::default(),
    };
    for words in &settings.setup {
        let command = command(words)?;
        let failed = |reason: &str| format!("setup: {}: {reason}", command.name().display());
        let pid = spawn::spawn(command, &birth).map_err(|failure| match failure {
            Failure::Fork(error) | Failure::Prepare(_, error) | Failure::Exec(error) => failed(sys::reason(error)),
        })?;
        match wait_for(pid) {
            Some(0) => {}
            Some(status) => return Err(failed(&format!("ended with status {status:#x}"))),
            None => return Err(failed("not done in time")),
        }
    }
    Ok(())
}

/// The status word of a child, when it has ended in time.
fn wait_for(child: c_int) -> Option<c_int> {
    let deadline = sys::now() + SETUP_LIMIT;
    loop {
        match sys::reap(-1, false) {
            Ok(Some(changed)) if changed.pid == child => return Some(changed.status),
            Ok(Some(_)) => {}
            _ if sys::now() >= deadline => return None,
            _ => drop(sys::wait_signal(signal::bit(libc::SIGCHLD), Some(LOOK_AGAIN))),
        }
    }
}

/// A command as execve(2) wants it, for the rest of the process's life.
fn command(words: &[Vec<u8>]) -> Result<Command, String> {
    let mut argv = vec![CString::from(c"inception-init")];
    for word in words {
        argv.push(CString::new(word.as_slice()).map_err(|_| "a NUL in a command")?);
    }
    // SAFETY: the pointers end in NULL and are never freed; the init's name stands before the command.
    Ok(unsafe { Command::new(sys::vm::leak_words(argv).add(1)) })
}

/// PATH, where the kernel's command line sets none.
fn default_path() -> Vec<(Vec<u8>, Vec<u8>)> {
    match environment::variable("PATH") {
        Some(_) => Vec::new(),
        None => vec![(b"PATH".to_vec(), spawn::DEFAULT_PATH.to_bytes().to_vec())],
    }
}
