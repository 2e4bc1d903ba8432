//! `inception ps`, `logs` and `images`: what is there.

use super::{Globals, block_on, connect::connect, output, project};
use crate::{
    compose::{
        client::{self, failed},
        load, logs,
    },
    error::{Error, Result},
};
use argh::FromArgs;
use bollard::{
    Docker,
    query_parameters::{ListContainersOptionsBuilder, ListImagesOptionsBuilder},
};
use bollard_stubs::models::ContainerSummary;

/// Show the project's containers; outside of a project all containers.
#[derive(FromArgs)]
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

/// The containers that a command is about: the project's, of the services named, or all where there is no project.
pub async fn containers(docker: &Docker, globals: &Globals, names: &[String]) -> Result<Vec<ContainerSummary>> {
    let in_project = load::is_there(&globals.project)? || load::name_without_file(&globals.project)?.is_some();
    let all = match in_project {
        true => client::containers(docker, &project::name(globals)?, true).await?,
        false => {
            let options = ListContainersOptionsBuilder::new().all(true).build();
            docker.list_containers(Some(options)).await.map_err(failed("list containers"))?
        }
    };
    if names.is_empty() {
        return Ok(all);
    }
    let mut found = Vec::new();
    for name in names {
        let is_it = |container: &&ContainerSummary| {
            client::label(container, client::SERVICE) == name
                || client::name(container) == *name
                || (name.len() >= 12 && client::id(container).starts_with(name.as_str()))
        };
        let before = found.len();
        found.extend(all.iter().filter(is_it).cloned());
        if found.len() == before {
            let known: Vec<String> = all.iter().map(client::name).collect();
            let known = if known.is_empty() {
                "no container is there".into()
            } else {
                format!("there are {}", known.join(", "))
            };
            return Err(Error::Failed(format!("no container of a service or name {name}; {known}")));
        }
    }
    Ok(found)
}

impl Ps {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        block_on(async {
            let docker = connect(globals).await?;
            let mut found = containers(&docker, globals, &self.services).await?;
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
#[derive(FromArgs)]
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
            let found = containers(&docker, globals, &self.services).await?;
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
            logs::show(&docker, &targets, &options).await?;
            Ok(0)
        })
    }
}

/// Show the engine's images.
#[derive(FromArgs)]
#[argh(subcommand, name = "images", example = "inception images")]
pub struct Images {
    /// only ids
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// as the engine tells it
    #[argh(switch)]
    json: bool,
}

impl Images {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        block_on(async {
            let docker = connect(globals).await?;
            let options = ListImagesOptionsBuilder::new().build();
            let mut images = docker.list_images(Some(options)).await.map_err(failed("list images"))?;
            images.sort_by(|a, b| a.repo_tags.cmp(&b.repo_tags));
            if self.json {
                output::json(&images)?;
            } else if self.quiet {
                output::print(&images.iter().map(|image| output::short(&image.id) + "\n").collect::<String>())?;
            } else {
                let mut rows = Vec::new();
                for image in &images {
                    let made = chrono::DateTime::from_timestamp(image.created, 0)
                        .map(|time| time.format("%Y-%m-%d %H:%M").to_string());
                    let none = ["<none>:<none>".to_owned()];
                    let tags = if image.repo_tags.is_empty() { &none[..] } else { &image.repo_tags };
                    for tag in tags {
                        rows.push(vec![
                            tag.clone(),
                            output::short(&image.id),
                            made.clone().unwrap_or_default(),
                            output::size(image.size),
                        ]);
                    }
                }
                output::table(&["IMAGE", "ID", "CREATED", "SIZE"], &rows)?;
            }
            Ok(0)
        })
    }
}
