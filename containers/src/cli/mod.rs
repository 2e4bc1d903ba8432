//! The command line: one file a command. Every command but `daemon` is a client of the Docker Engine API.

mod arguments;
mod completion;
mod config;
mod connect;
mod daemon;
mod exec;
mod images;
mod inspect;
mod lab;
mod lifecycle;
#[cfg(test)]
mod manual;
mod networks;
mod output;
mod project;
mod ps;
mod run;
mod run_options;
mod session;
mod top;
mod up;
mod vm;
mod vm_build;
mod vm_console;
mod vm_image;
mod vm_run;
mod volumes;

pub use daemon::{DEEP_STACK, find_init, find_program, need_init};

use crate::{
    compose::load,
    error::{Context, Error, Result},
    network,
};
use argh::{ArgsInfo, CommandInfoWithArgs, FromArgs};
use run::not_run;
use std::{
    collections::HashMap,
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
};

/// Builds images and runs containers, with inception-init as PID 1 in each of them.
///
/// The commands drive the embedded engine, which is started when none answers; with DOCKER_HOST or --host they drive
/// Docker or Podman unchanged.
#[derive(FromArgs, ArgsInfo)]
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

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, and argh takes no boxes")]
enum Command {
    Daemon(daemon::Daemon),
    Up(up::Up),
    Down(up::Down),
    Build(up::Build),
    Config(config::Config),
    Ps(ps::Ps),
    Logs(ps::Logs),
    Images(images::Images),
    Run(run::Run),
    Exec(exec::Exec),
    Start(lifecycle::Start),
    Stop(lifecycle::Stop),
    Restart(lifecycle::Restart),
    Rm(lifecycle::Rm),
    Rmi(images::Rmi),
    Inspect(inspect::Inspect),
    Volume(volumes::Volume),
    Network(networks::Network),
    Vm(vm::Vm),
    Top(top::Top),
    Lab(lab::LabCommand),
    Completion(completion::Completion),
}

/// What every client command is given.
pub struct Globals {
    /// `--host`
    pub host: Option<String>,
    /// `--file`, `--project-name` and so on
    pub project: load::Options,
    /// How many words stood before `--`, where there is one.
    pub before_dashes: Option<usize>,
}

/// Runs the command that `args` (the program's name first) asks for; its exit code.
pub fn run(args: Vec<OsString>) -> Result<u8> {
    // The internal processes come first: they must stay small, and nobody types their names.
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some("network-helper") => return network::helper::serve(Path::new(internal_argument(&args)?)).map(|()| 0),
        Some("vm-keeper") => return crate::vm::keeper::serve(Path::new(internal_argument(&args)?)).map(|()| 0),
        Some("vm-root") => {
            let [archive, work, kind] = args.get(2..).unwrap_or_default() else {
                return Err(Error::invalid("this is an internal command of `inception vm`"));
            };
            let kind = kind.to_string_lossy();
            return crate::vm::root::serve(Path::new(archive), Path::new(work), &kind).map(|()| 0);
        }
        Some("--version" | "-V" | "version") if args.len() == 2 => {
            output::print(concat!("inception version ", env!("CARGO_PKG_VERSION"), "\n"))?;
            return Ok(0);
        }
        _ => {}
    }
    let mut line = arguments::Line::default();
    let read = arguments::Line::read(&mut line, args.into_iter().skip(1).collect(), &table());
    start_log(line.commands.first().is_some_and(|command| command == "daemon"));
    let options = match read.and_then(|()| parse(&line)) {
        Ok(Some(options)) => options,
        Ok(None) => return Ok(0),
        // As docker, `run` keeps its command's own codes free.
        Err(error) if line.commands.first().is_some_and(|command| command == "run") => return Err(not_run(error)),
        Err(error) => return Err(error),
    };
    let project = load::Options {
        files: options.file,
        project_name: options.project_name,
        project_directory: options.project_directory,
        env_files: options.env_file,
        profiles: options.profile,
    };
    let globals = Globals { host: options.host, project, before_dashes: line.before_dashes };
    match options.command {
        Command::Daemon(daemon) => daemon.run(&globals),
        Command::Up(up) => up.run(&globals),
        Command::Down(down) => down.run(&globals),
        Command::Build(build) => build.run(&globals),
        Command::Config(config) => config.run(&globals),
        Command::Ps(ps) => ps.run(&globals),
        Command::Logs(logs) => logs.run(&globals),
        Command::Images(images) => images.run(&globals),
        Command::Run(run) => run.run(&globals),
        Command::Exec(exec) => exec.run(&globals),
        Command::Start(start) => start.run(&globals),
        Command::Stop(stop) => stop.run(&globals),
        Command::Restart(restart) => restart.run(&globals),
        Command::Rm(rm) => rm.run(&globals),
        Command::Rmi(rmi) => rmi.run(&globals),
        Command::Inspect(inspect) => inspect.run(&globals),
        Command::Volume(volume) => volume.run(&globals),
        Command::Network(network) => network.run(&globals),
        Command::Vm(vm) => vm.run(&globals),
        Command::Top(top) => top.run(&globals),
        Command::Lab(lab) => lab.run(&globals),
        Command::Completion(completion) => completion.run(&globals),
    }
}

/// The daemon's log has times and modules; what a command has to say reads like its errors.
fn start_log(is_daemon: bool) {
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().filter_or("INCEPTION_LOG", "info"));
    match is_daemon {
        true => builder.format_timestamp_millis(),
        false => builder.format(|out, record| {
            writeln!(out, "inception: {}: {}", record.level().as_str().to_ascii_lowercase(), record.args())
        }),
    };
    builder.init();
}

/// Every command and option: what is parsed, completed and described is one table.
fn table() -> CommandInfoWithArgs {
    let mut table = Inception::get_args_info();
    table.name = "inception";
    table
}

/// The options, or nothing where help was asked for and printed.
fn parse(line: &arguments::Line) -> Result<Option<Inception>> {
    match Inception::from_args(&["inception"], &line.words()) {
        Ok(options) => Ok(Some(options)),
        Err(exit) if exit.status.is_ok() => {
            output::print(&format!("{}\n", exit.output.trim_end()))?;
            Ok(None)
        }
        Err(exit) => {
            let message = exit.output.trim_end().replace('\n', " ");
            Err(Error::Invalid(format!("{message}; see `{} --help`", line.named())))
        }
    }
}

fn internal_argument(args: &[OsString]) -> Result<&OsString> {
    args.get(2).ok_or_else(|| Error::invalid("this is an internal command of the engine"))
}

/// A client command's body on a runtime of one thread.
pub fn block_on<T>(body: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().doing("start the async runtime")?.block_on(body)
}

/// Does the same for each name, whatever becomes of the others; the exit code 1 when one failed.
async fn each_name(names: &[String], mut work: impl AsyncFnMut(&str) -> Result<()>) -> Result<u8> {
    let mut code = 0;
    for name in names {
        if let Err(error) = work(name).await {
            eprintln!("inception: {error}");
            code = error.exit_code();
        }
    }
    Ok(code)
}

/// NAME=VALUE options as a map.
fn pairs(option: &str, entries: &[String]) -> Result<HashMap<String, String>> {
    let pair = |entry: &String| match entry.split_once('=').unwrap_or((entry, "")) {
        ("", _) => Err(Error::invalid(format!("{option} {entry}: write it as NAME=VALUE"))),
        (name, value) => Ok((name.to_owned(), value.to_owned())),
    };
    entries.iter().map(pair).collect()
}

/// `--filter` options as the API takes them.
fn filters(entries: &[String]) -> Result<HashMap<String, Vec<String>>> {
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    for entry in entries {
        let (name, value) = match (entry.split_once("!="), entry.split_once('=')) {
            // label!=x is a filter of its own.
            (Some((name, value)), _) if !name.contains('=') => (format!("{name}!"), value),
            (_, Some((name, value))) => (name.to_owned(), value),
            _ => return Err(Error::invalid(format!("--filter {entry}: write it as NAME=VALUE"))),
        };
        found.entry(name).or_default().push(value.to_owned());
    }
    Ok(found)
}
