//! `inception vm`: images as virtual machines. `run` and `build` have files of their own.

use super::{Globals, block_on, output, vm_build, vm_console, vm_run};
use crate::{
    error::{Context, Error, Result},
    vm::{
        keeper,
        machine::{self, Folder},
    },
};
use argh::{ArgsInfo, FromArgs};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, time::Duration};

/// Virtual machines: images of the engine's store, each with a kernel of its own, and inception-init as PID 1.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "vm",
    example = "inception vm run -p 8443:443 nginx:0.1.0\ninception vm build nginx:0.1.0 -o disk.img\ninception vm ls",
    note = "Needs qemu-system-x86 and e2fsprogs, and a kernel, which is downloaded where none is installed. KVM is used where /dev/kvm can be opened."
)]
pub struct Vm {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
enum Command {
    Run(vm_run::Run),
    Build(vm_build::Build),
    List(List),
    Start(Start),
    Stop(Stop),
    Attach(Attach),
    Logs(Logs),
    Remove(Remove),
}

/// List machines, those that ended too.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "ls", example = "inception vm ls")]
struct List {
    /// only names
    #[argh(switch, short = 'q')]
    quiet: bool,
}

/// Run machines again that ended, with the disk that they left.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "start", example = "inception vm start db")]
struct Start {
    /// machines
    #[argh(positional, arg_name = "machine")]
    names: Vec<String>,
}

/// Press machines' power button, and wait for their end. One that takes too long is killed.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "stop", example = "inception vm stop db")]
struct Stop {
    /// machines
    #[argh(positional, arg_name = "machine")]
    names: Vec<String>,
}

/// Take a machine's console; the exit code is its service's.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "attach",
    example = "inception vm attach db",
    note = "Ctrl-P Ctrl-Q leaves the machine to itself. A console has one at a time: the next one waits."
)]
struct Attach {
    /// a machine
    #[argh(positional, arg_name = "machine")]
    name: String,
}

/// Print what a machine's console said since it was last started.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "logs", example = "inception vm logs db")]
struct Logs {
    /// a machine
    #[argh(positional, arg_name = "machine")]
    name: String,
}

/// Remove machines and their disks; volumes and folders of the host stay.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "rm", example = "inception vm rm db\ninception vm rm -f web")]
struct Remove {
    /// running ones too, killed first
    #[argh(switch, short = 'f')]
    force: bool,
    /// machines
    #[argh(positional, arg_name = "machine")]
    names: Vec<String>,
}

impl Vm {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        match self.command {
            Command::Run(run) => run.run(globals),
            Command::Build(build) => build.run(globals),
            Command::List(list) => list.run(),
            Command::Start(start) => {
                each("start", &start.names, async |folder| keeper::start(&folder).await?.go().await.map(drop))
            }
            Command::Stop(stop) => {
                each("stop", &stop.names, async |folder| tell(folder, Signal::SIGTERM).await.map(drop))
            }
            Command::Attach(attach) => block_on(vm_console::attach(Folder::open(&attach.name)?)),
            Command::Logs(logs) => {
                let path = Folder::open(&logs.name)?.path.join("console.log");
                output::print(&String::from_utf8_lossy(&fs::read(&path).at("read", &path)?)).map(|()| 0)
            }
            Command::Remove(remove) => each("rm", &remove.names, async |folder| {
                let path = folder.path.clone();
                match folder.keeper()? {
                    Some(_) if !remove.force => {
                        return Err(Error::Conflict(format!(
                            "the machine {} runs: stop it first, or give --force",
                            folder.name
                        )));
                    }
                    Some(_) => drop(tell(folder, Signal::SIGQUIT).await?),
                    None => {}
                }
                match fs::remove_dir_all(&path) {
                    // --rm was quicker.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    other => other.at("remove", &path),
                }
            }),
        }
    }
}

impl List {
    fn run(self) -> Result<u8> {
        let mut rows = Vec::new();
        for folder in machine::list()? {
            let machine = folder.machine()?;
            let state = match (folder.keeper()?, folder.exit()) {
                (Some(_), _) => "running".to_owned(),
                (None, Some(exit)) => match exit.code {
                    Some(code) => format!("exited ({code})"),
                    None => "failed".to_owned(),
                },
                (None, None) => "lost".to_owned(),
            };
            let ports: Vec<String> = machine.ports.iter().map(ToString::to_string).collect();
            let created = machine.created.format("%Y-%m-%d %H:%M").to_string();
            rows.push(vec![folder.name, machine.image, state, created, ports.join(", ")]);
        }
        match self.quiet {
            true => output::print(&rows.iter().map(|row| format!("{}\n", row[0])).collect::<String>())?,
            false => output::table(&["NAME", "IMAGE", "STATE", "CREATED", "PORTS"], &rows)?,
        }
        Ok(0)
    }
}

/// Does the same to each machine, and prints its name.
fn each(verb: &str, names: &[String], mut work: impl AsyncFnMut(Folder) -> Result<()>) -> Result<u8> {
    if names.is_empty() {
        return Err(Error::invalid(format!("{verb} needs machines: inception vm {verb} MACHINE...")));
    }
    block_on(super::each_name(names, async |name| {
        work(Folder::open(name)?).await?;
        output::print(&format!("{name}\n"))
    }))
}

/// Sends a machine's keeper a signal and waits for the machine's end. One that does not run has ended.
pub async fn tell(folder: Folder, what: Signal) -> Result<()> {
    let end = folder.end()?;
    let Some(pid) = folder.keeper()? else { return Ok(()) };
    kill(Pid::from_raw(pid), what).doing(format!("tell the keeper of {} to end it", folder.name))?;
    let waiting = tokio::task::spawn_blocking(move || end.wait());
    // The keeper has a limit of its own; this one is for a keeper that hangs.
    let limit = Duration::from_secs(folder.machine().map_or(0, |machine| machine.stop_timeout) + keeper::END);
    match tokio::time::timeout(limit, waiting).await {
        Ok(ended) => ended.map_err(|error| Error::Failed(format!("wait for the machine: {error}")))?.map(drop),
        Err(_) => Err(Error::Failed(format!("the machine {} does not end; its keeper is process {pid}", folder.name))),
    }
}
