//! Which project, and which containers of it or of none, a command is about.

use super::{Globals, arguments::nearest};
use crate::{
    compose::{
        client::{self, failed},
        load,
        model::Project,
    },
    error::{Error, Result},
};
use bollard::{Docker, query_parameters::ListContainersOptionsBuilder};
use bollard_stubs::models::ContainerSummary;

/// The project of the Compose file.
pub fn load(globals: &Globals) -> Result<Project> {
    load::load(&globals.project)
}

/// The project of the Compose file, where there is one.
pub fn load_if_there(globals: &Globals) -> Result<Option<Project>> {
    load::is_there(&globals.project)?.then(|| load(globals)).transpose()
}

/// The project's name: given, or the file's.
pub fn name(globals: &Globals) -> Result<String> {
    name_if_there(globals)?.ok_or_else(|| Error::invalid("no Compose file is here: give --file, or --project-name"))
}

/// The project's name, where there is a project.
pub fn name_if_there(globals: &Globals) -> Result<Option<String>> {
    match load_if_there(globals)? {
        Some(project) => Ok(Some(project.name)),
        None => load::name_without_file(&globals.project),
    }
}

/// What a command without names is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// The project's containers, those of `run` too; outside of a project all containers.
    Everything,
    /// The project's containers but for those of `run`; outside of a project it is an error.
    Project,
}

/// The containers that `names` stand for: each is a service of the project here, else a container's name or the
/// beginning of an id.
pub async fn containers(
    docker: &Docker,
    globals: &Globals,
    names: &[String],
    without: Without,
) -> Result<Vec<ContainerSummary>> {
    let project = name_if_there(globals)?;
    let is_own = |container: &&ContainerSummary| {
        project.as_ref().is_some_and(|project| client::label(container, client::PROJECT) == project)
    };
    let options = ListContainersOptionsBuilder::new().all(true).build();
    let all = client::steady(async || docker.list_containers(Some(options.clone())).await).await;
    let mut all = all.map_err(failed("list containers"))?;
    all.sort_by_key(client::name);
    if names.is_empty() {
        return match (&project, without) {
            (None, Without::Everything) => Ok(all),
            (None, Without::Project) => {
                Err(Error::invalid("no Compose file is here: name containers, or give --file or --project-name"))
            }
            (Some(_), _) => Ok(all
                .iter()
                .filter(is_own)
                .filter(|container| without == Without::Everything || !is_oneoff(container))
                .cloned()
                .collect()),
        };
    }
    let mut found: Vec<ContainerSummary> = Vec::new();
    for name in names {
        let own = all.iter().filter(is_own).filter(|container| client::label(container, client::SERVICE) == name);
        // A service is its own container, and those of `run` only where there is no other.
        let (oneoff, mut these): (Vec<_>, Vec<_>) = own.partition(|container| is_oneoff(container));
        if these.is_empty() {
            these = oneoff;
        }
        if these.is_empty() {
            these = all.iter().filter(|container| client::name(container) == *name).collect();
        }
        if these.is_empty() && !name.is_empty() {
            these = all.iter().filter(|container| client::id(container).starts_with(name.as_str())).collect();
            if these.len() > 1 {
                return Err(Error::invalid(format!(
                    "{name} is the beginning of {} ids: write more of it",
                    these.len()
                )));
            }
        }
        if these.is_empty() {
            return Err(unknown(name, &all, project.as_deref()));
        }
        for container in these {
            if !found.iter().any(|other| other.id == container.id) {
                found.push(container.clone());
            }
        }
    }
    Ok(found)
}

/// Whether `run` made it.
fn is_oneoff(container: &ContainerSummary) -> bool {
    client::label(container, client::ONEOFF) == "True"
}

fn unknown(name: &str, all: &[ContainerSummary], project: Option<&str>) -> Error {
    let names: Vec<String> = all.iter().map(client::name).collect();
    let services = all
        .iter()
        .filter(|container| project.is_some_and(|project| client::label(container, client::PROJECT) == project))
        .map(|container| client::label(container, client::SERVICE));
    let known: Vec<&str> = names.iter().map(String::as_str).chain(services).collect();
    let hint = nearest(name, &known).unwrap_or_else(|| match names.is_empty() {
        true => "no container is there".into(),
        false => format!("there are {}", names.join(", ")),
    });
    Error::Failed(format!("no service here has a container, and no container has the name or id {name:?}; {hint}"))
}
