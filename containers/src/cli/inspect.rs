//! `inception inspect`: any object of the engine, as the engine tells it.

use super::{
    Globals, block_on,
    connect::connect,
    output,
    project::{self, Without},
};
use crate::{
    compose::client::{self, failed, is_status},
    error::{Error, Result},
};
use argh::{ArgsInfo, FromArgs};
use bollard::{Docker, errors::Error as ApiError};
use serde::Serialize;
use serde_json::Value;

/// Show all about containers, images, volumes and networks as a JSON array. A name is looked for in that order; a
/// service of the project here is its container.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "inspect",
    example = "inception inspect web | jq '.[0].State.Health'\ninception inspect --type image debian:bookworm-slim",
    note = "What is found is printed, also when something else is not: then the exit code is 1."
)]
pub struct Inspect {
    /// only a container, image, volume or network
    #[argh(option, long = "type", arg_name = "type")]
    kind: Option<String>,
    /// names or ids
    #[argh(positional, arg_name = "name")]
    names: Vec<String>,
}

/// Where a name may be looked for.
pub const KINDS: [&str; 4] = ["container", "image", "volume", "network"];

impl Inspect {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        let kinds = match &self.kind {
            None => KINDS.to_vec(),
            Some(kind) => match KINDS.iter().find(|other| *other == kind) {
                Some(kind) => vec![*kind],
                None => return Err(Error::invalid(format!("--type {kind}: there are {}", KINDS.join(", ")))),
            },
        };
        show(globals, &kinds, &self.names)
    }
}

/// Prints all that is found of `names` as one array.
pub fn show(globals: &Globals, kinds: &[&str], names: &[String]) -> Result<u8> {
    if names.is_empty() {
        return Err(Error::invalid("inspect needs names"));
    }
    block_on(async {
        let docker = connect(globals).await?;
        let mut found = Vec::new();
        let code = super::each_name(names, async |name| {
            for kind in kinds {
                let these = look(&docker, globals, kind, name).await?;
                if !these.is_empty() {
                    found.extend(these);
                    return Ok(());
                }
            }
            Err(Error::Failed(format!("there is no {} {name}", kinds.join(", "))))
        })
        .await?;
        output::json(&found)?;
        Ok(code)
    })
}

async fn look(docker: &Docker, globals: &Globals, kind: &str, name: &str) -> Result<Vec<Value>> {
    if kind == "container" {
        // A name that stands for none is looked for elsewhere.
        let names = [name.to_owned()];
        let Ok(containers) = project::containers(docker, globals, &names, Without::Everything).await else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for container in containers {
            let id = client::id(&container);
            let details = client::steady(async || docker.inspect_container(&id, None).await).await;
            found.extend(one(kind, name, details)?);
        }
        return Ok(found);
    }
    let found = match kind {
        "image" => one(kind, name, docker.inspect_image(name).await)?,
        "volume" => one(kind, name, docker.inspect_volume(name).await)?,
        _ => one(kind, name, docker.inspect_network(name, None).await)?,
    };
    Ok(found.into_iter().collect())
}

fn one(kind: &str, name: &str, answer: Result<impl Serialize, ApiError>) -> Result<Option<Value>> {
    match answer {
        // Podman has 500 for some names that are none.
        Err(error) if is_status(&error, 404) || is_status(&error, 400) => Ok(None),
        Err(error) => Err(failed(format!("inspect the {kind} {name}"))(error)),
        Ok(object) => serde_json::to_value(object)
            .map(Some)
            .map_err(|error| Error::Failed(format!("write the {kind} {name} as JSON: {error}"))),
    }
}
