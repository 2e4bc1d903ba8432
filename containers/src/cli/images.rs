//! `inception images` and `rmi`.

use super::{Globals, block_on, connect::connect, output};
use crate::{
    compose::client::failed,
    error::{Error, Result},
};
use argh::{ArgsInfo, FromArgs};
use bollard::query_parameters::{ListImagesOptionsBuilder, RemoveImageOptionsBuilder};
use std::collections::HashMap;

/// Show the engine's images.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "images", example = "inception images\ninception images debian\ninception images --json")]
pub struct Images {
    /// only ids
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// as the engine tells it
    #[argh(switch)]
    json: bool,
    /// only those of this name, as debian or debian:bookworm-slim
    #[argh(positional, arg_name = "name")]
    name: Option<String>,
}

impl Images {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        block_on(async {
            let docker = connect(globals).await?;
            let mut options = ListImagesOptionsBuilder::new();
            if let Some(name) = &self.name {
                options = options.filters(&HashMap::from([("reference", vec![name.clone()])]));
            }
            let mut images = docker.list_images(Some(options.build())).await.map_err(failed("list images"))?;
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

/// Remove images: a name only untags while the image has others.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "rmi",
    example = "inception rmi debian:bookworm-slim\ninception rmi -f 3f2a9c",
    note = "What was untagged and deleted is printed. All are tried; one that fails makes the exit code 1."
)]
pub struct Rmi {
    /// also with several names, or where stopped containers use it
    #[argh(switch, short = 'f')]
    force: bool,
    /// keep parents without a name
    #[argh(switch)]
    no_prune: bool,
    /// names or ids
    #[argh(positional, arg_name = "image")]
    images: Vec<String>,
}

impl Rmi {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        if self.images.is_empty() {
            return Err(Error::invalid("rmi needs images: inception rmi IMAGE..."));
        }
        block_on(async {
            let docker = connect(globals).await?;
            super::each_name(&self.images, async |image| {
                let options = RemoveImageOptionsBuilder::new().force(self.force).noprune(self.no_prune).build();
                let removed = docker.remove_image(image, Some(options), None).await;
                for item in removed.map_err(failed(format!("remove the image {image}")))? {
                    let lines = [("Untagged", item.untagged), ("Deleted", item.deleted)];
                    let lines = lines.into_iter().filter_map(|(what, name)| Some(format!("{what}: {}\n", name?)));
                    output::print(&lines.collect::<String>())?;
                }
                Ok(())
            })
            .await
        })
    }
}
