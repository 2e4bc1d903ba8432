//! The init as PID 1 of a virtual machine: makes a system of a bare kernel, runs one service under the same supervision
//! as in a container, and ends the machine. docs/vm.md is the contract, in the order in which things happen here.

pub mod clock;
pub mod mounts;
pub mod network;
pub mod power;
pub mod root;
pub mod service;
pub mod settings;
pub mod syntax;

use std::ffi::{OsStr, c_int};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::supervise::Supervisor;
use crate::{environment, report, sys, warning};
use service::Service;
use settings::Settings;

/// Where the configuration is, unless the kernel's command line says another place.
const FILE: &str = "/etc/inception-init.conf";
/// What /proc/PID/ns/pid says in the initial pid namespace (PROC_PID_INIT_INO of the kernel).
const INITIAL: &str = "pid:[4026531836]";
/// What the kernel gives its init, with the entries' ends.
#[unsafe(link_section = ".rodata.first")]
static HOME: [u8; 7] = *b"HOME=/\0";
#[unsafe(link_section = ".rodata.first")]
static TERM: [u8; 11] = *b"TERM=linux\0";

/// A failure before the service runs: the exit code that docs/vm.md lists, and what to say.
struct Failure {
    code: c_int,
    message: String,
}

fn failure(code: c_int) -> impl FnOnce(String) -> Failure {
    move |message| Failure { code, message }
}

/// Whether this process is the PID 1 of a machine. In a container that costs a look at the environment: the kernel
/// gives its init two variables, and only where both are there a system call is spent on the namespace.
pub fn is_machine() -> bool {
    let from_kernel = environment::has(&HOME) && environment::has(&TERM);
    from_kernel && sys::own_pid() == 1 && is_initial_namespace()
}

#[inline(never)]
fn is_initial_namespace() -> bool {
    match sys::vm::read_link(libc::AT_FDCWD, c"/proc/self/ns/pid") {
        Some(name) => name == INITIAL,
        // No /proc yet. There PID 2 is the kernel's own, of no group and no session; a container has no second process
        // before the first one starts it.
        None => sys::group_of(2) == Ok(0) && sys::session_of(2) == Ok(0),
    }
}

/// Is the machine's PID 1, to its end. `words` are used where the kernel's command line has none after `--`.
pub fn run(words: &[&'static OsStr]) -> ! {
    if sys::own_pid() != 1 {
        warning!("--vm is for the PID 1 of a machine");
        sys::exit(125);
    }
    power::survive_faults();
    mounts::make_first();
    let line = fs::read("/proc/cmdline").unwrap_or_default();
    let (before, mut after) = syntax::kernel_words(&line);
    if after.is_empty() {
        after = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    }
    let mut settings = Settings::default();
    let code = supervise(&mut settings, &before, &after).unwrap_or_else(|Failure { code, message }| {
        warning!("{message}");
        code
    });
    power::end(code, &settings.status, settings.end)
}

fn supervise(settings: &mut Settings, before: &[Vec<u8>], after: &[Vec<u8>]) -> Result<c_int, Failure> {
    let mut files = vec![read_file(before).map_err(failure(120))?];
    take(settings, &files, before)?;
    for (path, parameters) in &settings.modules {
        root::load(path, parameters).map_err(failure(121))?;
    }
    if let Some(root) = settings.root.clone() {
        root::switch(settings, &root).map_err(failure(122))?;
        if let Some(file) = read_file_of_new_root(before).map_err(failure(120))? {
            files.push(file);
            *settings = Settings::default();
            take(settings, &files, before)?;
        }
    }
    mounts::make_rest();
    for mount in &settings.mounts {
        mounts::make(mount, &mount.target, settings.wait).map_err(failure(123))?;
    }
    if let Some(name) = &settings.hostname {
        nix::unistd::sethostname(name)
            .map_err(|error| failure(120)(format!("hostname {name}: {}", sys::reason(error))))?;
    }
    network::configure(settings).and_then(|()| network::write_resolver(settings)).map_err(failure(124))?;
    settings.zone.iter().for_each(|zone| clock::set_zone(zone));
    settings.seed.iter().for_each(|file| clock::load_seed(file));
    service::prepare(settings).map_err(failure(124))?;
    let Service { config, command, verbose } = service::make(settings, after).map_err(failure(120))?;
    report::be_verbose(verbose);
    let mut supervisor = Supervisor::new(config, command);
    Ok(supervisor.run())
}

/// A configuration file: its name and content.
type File = (String, Vec<u8>);

/// The file of the kernel's command line, which must be there, or the usual one.
fn read_file(before: &[Vec<u8>]) -> Result<File, String> {
    match said_path(before) {
        Some(path) => match fs::read(&path) {
            Ok(content) => Ok((path, content)),
            // It may be the new root's.
            Err(_) if before.iter().any(|word| word.starts_with(b"inception.root=")) => Ok((path, Vec::new())),
            Err(error) => Err(format!("{path}: {error}")),
        },
        None => Ok((FILE.into(), read_if_there(FILE)?)),
    }
}

fn read_file_of_new_root(before: &[Vec<u8>]) -> Result<Option<File>, String> {
    let path = said_path(before).unwrap_or_else(|| FILE.into());
    let content = read_if_there(&path)?;
    Ok((!content.is_empty()).then_some((path, content)))
}

fn said_path(before: &[Vec<u8>]) -> Option<String> {
    let said = before.iter().rev().find_map(|word| word.strip_prefix(b"inception.config="))?;
    Some(String::from_utf8_lossy(said).into_owned())
}

fn read_if_there(path: &str) -> Result<Vec<u8>, String> {
    if !Path::new(path).exists() {
        return Ok(Vec::new());
    }
    fs::read(path).map_err(|error| format!("{path}: {error}"))
}

/// Takes all sources, in their order; all that is wrong, a line each.
fn take(settings: &mut Settings, files: &[File], before: &[Vec<u8>]) -> Result<(), Failure> {
    let mut wrong: Vec<String> = files.iter().flat_map(|(name, content)| settings.take_file(name, content)).collect();
    wrong.extend(settings.take_command_line(before));
    power::plan(&settings.status, settings.end);
    if wrong.is_empty() { Ok(()) } else { Err(Failure { code: 120, message: wrong.join("\ninception-init: ") }) }
}
