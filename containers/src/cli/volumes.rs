//! `inception volume`.

use super::{Globals, block_on, connect::connect, inspect, output};
use crate::{
    compose::client::{self, failed},
    error::{Context, Error, Result},
};
use argh::{ArgsInfo, FromArgs};
use bollard::query_parameters::{ListVolumesOptionsBuilder, PruneVolumesOptionsBuilder, RemoveVolumeOptionsBuilder};
use bollard_stubs::models::VolumeCreateRequest;
use std::io::{BufRead, IsTerminal, Write};

/// Volumes: what outlives containers.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "volume", example = "inception volume ls\ninception volume create data")]
pub struct Volume {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
enum Command {
    List(List),
    Create(Create),
    Inspect(Inspect),
    Remove(Remove),
    Prune(Prune),
}

/// List volumes.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "ls",
    example = "inception volume ls\ninception volume ls --filter dangling=true\ninception volume ls --json | jq -r '.[].Name'"
)]
struct List {
    /// only names
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// as the engine tells it
    #[argh(switch)]
    json: bool,
    /// name=PART, label=NAME[=VALUE], driver=NAME or dangling=true|false; repeatable
    #[argh(option)]
    filter: Vec<String>,
}

/// Create a volume, and print its name.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "create",
    example = "inception volume create data\ninception volume create -o type=none -o o=bind -o device=/srv/data data"
)]
struct Create {
    /// the driver (default: local)
    #[argh(option, short = 'd')]
    driver: Option<String>,
    /// an option of the driver, NAME=VALUE; repeatable
    #[argh(option, short = 'o')]
    opt: Vec<String>,
    /// a label, NAME=VALUE; repeatable
    #[argh(option)]
    label: Vec<String>,
    /// its name (default: one is made up)
    #[argh(positional, arg_name = "name")]
    name: Option<String>,
}

/// Show all about volumes as a JSON array.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "inspect", example = "inception volume inspect data")]
struct Inspect {
    /// volumes
    #[argh(positional, arg_name = "volume")]
    names: Vec<String>,
}

/// Remove volumes, and what is in them. One that a container uses is refused.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "rm", example = "inception volume rm data")]
struct Remove {
    /// one that is not there is no error
    #[argh(switch, short = 'f')]
    force: bool,
    /// volumes
    #[argh(positional, arg_name = "volume")]
    names: Vec<String>,
}

/// Remove the anonymous volumes that no container uses, and what is in them.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "prune",
    example = "inception volume prune\ninception volume prune --force --filter label=scratch",
    note = "Asks first; without a terminal to ask at, --force is needed."
)]
struct Prune {
    /// named ones, too
    #[argh(switch, short = 'a')]
    all: bool,
    /// do not ask
    #[argh(switch, short = 'f')]
    force: bool,
    /// label=NAME[=VALUE] or label!=NAME[=VALUE]; repeatable
    #[argh(option)]
    filter: Vec<String>,
}

impl Volume {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        match self.command {
            Command::List(list) => block_on(list.go(globals)),
            Command::Create(create) => block_on(create.go(globals)),
            Command::Inspect(inspect) => inspect::show(globals, &["volume"], &inspect.names),
            Command::Remove(remove) => block_on(remove.go(globals)),
            Command::Prune(prune) => block_on(prune.go(globals)),
        }
    }
}

impl List {
    async fn go(self, globals: &Globals) -> Result<u8> {
        let filters = super::filters(&self.filter)?;
        let docker = connect(globals).await?;
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let list = docker.list_volumes(Some(options)).await.map_err(failed("list volumes"))?;
        let mut volumes = list.volumes.unwrap_or_default();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        if self.json {
            output::json(&volumes)?;
        } else if self.quiet {
            output::print(&volumes.iter().map(|volume| format!("{}\n", volume.name)).collect::<String>())?;
        } else {
            let row = |volume: &bollard_stubs::models::Volume| {
                let project = volume.labels.get(client::PROJECT).cloned().unwrap_or_default();
                vec![volume.name.clone(), volume.driver.clone(), project, volume.mountpoint.clone()]
            };
            let rows: Vec<Vec<String>> = volumes.iter().map(row).collect();
            output::table(&["NAME", "DRIVER", "PROJECT", "MOUNTPOINT"], &rows)?;
        }
        Ok(0)
    }
}

impl Create {
    async fn go(self, globals: &Globals) -> Result<u8> {
        let request = VolumeCreateRequest {
            name: self.name.clone(),
            driver: self.driver.clone().or(Some("local".into())),
            driver_opts: Some(super::pairs("--opt", &self.opt)?),
            labels: Some(super::pairs("--label", &self.label)?),
            ..VolumeCreateRequest::default()
        };
        let docker = connect(globals).await?;
        let doing = format!("create the volume {}", self.name.as_deref().unwrap_or_default());
        let made = docker.create_volume(request).await.map_err(failed(doing.trim_end()))?;
        output::print(&format!("{}\n", made.name))?;
        Ok(0)
    }
}

impl Remove {
    async fn go(self, globals: &Globals) -> Result<u8> {
        if self.names.is_empty() {
            return Err(Error::invalid("rm needs volumes: inception volume rm VOLUME..."));
        }
        let docker = connect(globals).await?;
        super::each_name(&self.names, async |name| {
            let options = RemoveVolumeOptionsBuilder::new().force(self.force).build();
            match docker.remove_volume(name, Some(options)).await {
                Err(error) if self.force && client::is_status(&error, 404) => Ok(()),
                Err(error) => Err(failed(format!("remove the volume {name}"))(error)),
                Ok(()) => output::print(&format!("{name}\n")),
            }
        })
        .await
    }
}

impl Prune {
    async fn go(self, globals: &Globals) -> Result<u8> {
        let mut filters = super::filters(&self.filter)?;
        let docker = connect(globals).await?;
        let version = docker.client_version();
        let tells_apart = (version.major_version, version.minor_version) >= TELLS_APART;
        if !tells_apart && !self.all {
            return Err(Error::Failed(format!(
                "this engine (API {}.{}) removes named volumes, too: give --all if that is meant",
                version.major_version, version.minor_version
            )));
        }
        if tells_apart && self.all {
            filters.insert("all".into(), vec!["true".into()]);
        }
        let kind = if self.all { "" } else { "anonymous " };
        if !self.force && !agreed(&format!("Remove all {kind}volumes that no container uses, and what is in them?"))? {
            return Ok(1);
        }
        let options = PruneVolumesOptionsBuilder::new().filters(&filters).build();
        let pruned = docker.prune_volumes(Some(options)).await.map_err(failed("remove unused volumes"))?;
        let names = pruned.volumes_deleted.unwrap_or_default();
        output::print(&names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
        eprintln!("{} removed, {} freed", names.len(), output::size(pruned.space_reclaimed.unwrap_or_default()));
        Ok(0)
    }
}

/// The API's version from which on a prune is of anonymous volumes alone, unless it is told otherwise.
const TELLS_APART: (usize, usize) = (1, 42);

/// Asks a person; where there is none, it is an error.
fn agreed(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::invalid("there is no terminal to ask at: give --force"));
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush().doing("write to stderr")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).doing("read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
