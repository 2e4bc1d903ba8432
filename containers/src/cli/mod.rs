//! The command line: one file a command. Every command but `daemon` is a client of the Docker Engine API.

mod arguments;
mod config;
mod connect;
mod daemon;
mod output;
mod project;
mod ps;
mod up;

pub use daemon::{DEEP_STACK, find_init};

use crate::{
    compose::load,
    error::{Context, Error, Result},
    network, shim,
};
use argh::FromArgs;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Builds images and runs containers, with inception-init as PID 1 in each of them.
///
/// The commands drive the embedded engine, which is started when none answers; with DOCKER_HOST or --host they drive
/// Docker or Podman unchanged.
#[derive(FromArgs)]
#[argh(
    example = "inception up -d\ninception run -it debian:bookworm-slim sh\nDOCKER_HOST=unix:///run/podman/podman.sock inception up",
    error_code(1, "the command failed; the reason is on stderr"),
    error_code(2, "a bad command line, Compose file or Dockerfile"),
    note = "`inception COMMAND --help` tells more. `run` and `exec` exit with the program's own code; 125, 126 and 127 mean that it never ran, as with docker."
)]
struct Inception {
    /// the engine's socket: unix:///path (default: $DOCKER_HOST, else the embedded engine)
    #[argh(option, short = 'H')]
    host: Option<String>,
    /// the Compose file (default: compose.yaml, compose.yml, docker-compose.yaml or .yml, here or above); repeatable, later
    /// ones over earlier ones
    #[argh(option, short = 'f')]
    file: Vec<PathBuf>,
    /// the project's name (default: $COMPOSE_PROJECT_NAME, the file's name:, the folder's name)
    #[argh(option, short = 'p')]
    project_name: Option<String>,
    /// what paths in the file are relative to (default: the first file's folder)
    #[argh(option)]
    project_directory: Option<PathBuf>,
    /// file of variables instead of .env; repeatable
    #[argh(option)]
    env_file: Vec<PathBuf>,
    /// a profile to switch on (default: $COMPOSE_PROFILES); repeatable
    #[argh(option)]
    profile: Vec<String>,
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Daemon(daemon::Daemon),
    Up(up::Up),
    Down(up::Down),
    Build(up::Build),
    Config(config::Config),
    Ps(ps::Ps),
    Logs(ps::Logs),
    Images(ps::Images),
}

/// What every client command is given.
pub struct Globals {
    /// `--host`
    pub host: Option<String>,
    /// `--file`, `--project-name` and so on
    pub project: load::Options,
}

/// Runs the command that `args` (the program's name first) asks for; its exit code.
pub fn run(args: Vec<OsString>) -> Result<u8> {
    // The two internal processes come first: they must stay small, and nobody types their names.
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some("shim") => return shim::serve(Path::new(internal_argument(&args)?)).map(|()| 0),
        Some("network-helper") => return network::helper::serve(Path::new(internal_argument(&args)?)).map(|()| 0),
        Some("--version" | "-V" | "version") if args.len() == 2 => {
            println!("inception version {}", env!("CARGO_PKG_VERSION"));
            return Ok(0);
        }
        _ => {}
    }
    env_logger::Builder::from_env(env_logger::Env::default().filter_or("INCEPTION_LOG", "info"))
        .format_timestamp_millis()
        .init();
    let words = project::to_front(arguments::normalise(args)?, &arguments::is_flag);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let options = match Inception::from_args(&["inception"], words.get(1..).unwrap_or_default()) {
        Ok(options) => options,
        Err(exit) if exit.status.is_ok() => {
            println!("{}", exit.output.trim_end());
            return Ok(0);
        }
        Err(exit) => return Err(Error::Invalid(exit.output.trim_end().to_string())),
    };
    let project = load::Options {
        files: options.file,
        project_name: options.project_name,
        project_directory: options.project_directory,
        env_files: options.env_file,
        profiles: options.profile,
    };
    let globals = Globals { host: options.host, project };
    match options.command {
        Command::Daemon(daemon) => daemon.run(&globals),
        Command::Up(up) => up.run(&globals),
        Command::Down(down) => down.run(&globals),
        Command::Build(build) => build.run(&globals),
        Command::Config(config) => config.run(&globals),
        Command::Ps(ps) => ps.run(&globals),
        Command::Logs(logs) => logs.run(&globals),
        Command::Images(images) => images.run(&globals),
    }
}

fn internal_argument(args: &[OsString]) -> Result<&OsString> {
    args.get(2).ok_or_else(|| Error::invalid("this is an internal command of the engine"))
}

/// A client command's body on a runtime of one thread.
pub fn block_on<T>(body: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().doing("start the async runtime")?.block_on(body)
}
