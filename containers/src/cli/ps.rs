//! `inception ps` and `logs`: what is there.

use super::{
    Globals, block_on,
    connect::connect,
    output,
    project::{self, Without},
};
use crate::{
    compose::{
        client::{self, Progress},
        logs,
    },
    error::{Error, Result},
};
use argh::{ArgsInfo, FromArgs};
use bollard_stubs::models::ContainerSummary;
use futures_util::stream;

/// Show the project's containers; outside of a project all containers.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "ps", example = "inception ps\ninception ps --all --json")]
pub struct Ps {
    /// those that do not run, too
    #[argh(switch, short = 'a')]
    all: bool,
    /// only ids
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// as the engine tells it
    #[argh(switch)]
    json: bool,
    /// services (default: all)
    #[argh(positional)]
    services: Vec<String>,
}

impl Ps {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        block_on(async {
            let docker = connect(globals).await?;
            let mut found = project::containers(&docker, globals, &self.services, Without::Everything).await?;
            found.retain(|container| self.all || client::is_running(container));
            if self.json {
                output::json(&found)?;
            } else if self.quiet {
                output::print(&found.iter().map(|container| client::id(container) + "\n").collect::<String>())?;
            } else {
                let rows: Vec<Vec<String>> = found
                    .iter()
                    .map(|container| {
                        vec![
                            client::name(container),
                            container.image.clone().unwrap_or_default(),
                            client::label(container, client::SERVICE).to_owned(),
                            container.status.clone().unwrap_or_default(),
                            ports(container),
                        ]
                    })
                    .collect();
                output::table(&["NAME", "IMAGE", "SERVICE", "STATUS", "PORTS"], &rows)?;
            }
            Ok(0)
        })
    }
}

fn ports(container: &ContainerSummary) -> String {
    let mut shown: Vec<String> = Vec::new();
    for port in container.ports.iter().flatten() {
        let kind = port.typ.map(|kind| kind.to_string()).unwrap_or_else(|| "tcp".into());
        let target = format!("{}/{kind}", port.private_port);
        let text = match (port.ip.as_deref(), port.public_port) {
            (Some("::"), Some(_)) => continue,
            (Some("0.0.0.0" | "") | None, Some(public)) => format!("{public}->{target}"),
            (Some(ip), Some(public)) => format!("{ip}:{public}->{target}"),
            _ => target,
        };
        if !shown.contains(&text) {
            shown.push(text);
        }
    }
    shown.join(", ")
}

/// Show what the project's containers wrote, side by side.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "logs", example = "inception logs -f\ninception logs --tail 20 web")]
pub struct Logs {
    /// go on until Ctrl-C
    #[argh(switch, short = 'f')]
    follow: bool,
    /// lines from the end (default: all)
    #[argh(option, short = 'n')]
    tail: Option<String>,
    /// with the time of each line
    #[argh(switch, short = 't')]
    timestamps: bool,
    /// without the services' names
    #[argh(switch)]
    no_log_prefix: bool,
    /// without colours
    #[argh(switch)]
    no_color: bool,
    /// services or containers (default: all)
    #[argh(positional)]
    services: Vec<String>,
}

impl Logs {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        if let Some(tail) = self.tail.as_ref().filter(|tail| *tail != "all" && tail.parse::<u32>().is_err()) {
            return Err(Error::invalid(format!("--tail {tail}: a number of lines, or all")));
        }
        block_on(async {
            let docker = connect(globals).await?;
            let found = project::containers(&docker, globals, &self.services, Without::Everything).await?;
            let targets: Vec<(String, String)> = found
                .iter()
                .map(|container| match client::label(container, client::SERVICE) {
                    "" => (client::name(container), client::id(container)),
                    service => (service.to_owned(), client::id(container)),
                })
                .collect();
            let options = logs::Options {
                follow: self.follow,
                tail: self.tail.clone(),
                since: 0,
                timestamps: self.timestamps,
                no_prefix: self.no_log_prefix,
                no_color: self.no_color,
            };
            let width = targets.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
            logs::show(&docker, stream::iter(targets), width, &options, &Progress::new()).await?;
            Ok(0)
        })
    }
}
