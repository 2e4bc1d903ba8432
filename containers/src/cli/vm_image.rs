//! What a machine takes from the engine: what a container of the image would be, and the image's files.

use super::run::create;
use crate::{
    compose::{
        client::{Progress, failed},
        create::Creation,
    },
    error::{Context, Error, Result},
    image::architecture,
    vm::root::{self, Kind, MadeRoot},
};
use bollard::{Docker, query_parameters::RemoveContainerOptionsBuilder};
use bollard_stubs::models::{ContainerConfig, ContainerCreateBody, MountPoint};
use futures_util::StreamExt;
use tokio::{io::AsyncWriteExt, task::spawn_blocking};

/// An image with a command line's options over it.
pub struct Source {
    /// The image's name, as it was asked for, and its id.
    pub image: String,
    pub id: String,
    /// Its words and the command line's in one.
    pub config: ContainerConfig,
    /// Folders of the host, volumes among them, that are asked for.
    pub mounts: Vec<MountPoint>,
}

/// Asks the engine, by a container that never starts: so the options mean what they mean to `run`, missing volumes are
/// made, and new ones get the image's files.
pub async fn describe(docker: &Docker, body: ContainerCreateBody, progress: &Progress) -> Result<Source> {
    let image = body.image.clone().unwrap_or_default();
    let asked = body.host_config.as_ref().and_then(|host| host.binds.clone()).unwrap_or_default();
    let id = create(docker, Creation { body, more_networks: Vec::new() }, None, progress).await?;
    let found = docker.inspect_container(&id, None).await.map_err(failed(format!("look at {image}")));
    // With the image's anonymous volumes: the machine's root has what is in them.
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    docker.remove_container(&id, Some(options)).await.map_err(failed("remove the container that was looked at"))?;
    let found = found?;
    let id = found.image.unwrap_or_default();
    let about = docker.inspect_image(&id).await.map_err(failed(format!("look at {image}")))?;
    if about.architecture.as_deref().is_some_and(|made_for| made_for != architecture()) {
        return Err(Error::Failed(format!(
            "{image} is for {}, and machines are made for {}",
            about.architecture.unwrap_or_default(),
            architecture()
        )));
    }
    let is_asked = |mount: &MountPoint| {
        let target = mount.destination.as_deref().unwrap_or_default();
        asked.iter().any(|bind| bind.split(':').nth(1).is_some_and(|path| path.trim_end_matches('/') == target))
    };
    Ok(Source {
        image,
        id,
        config: found.config.unwrap_or_default(),
        mounts: found.mounts.unwrap_or_default().into_iter().filter(is_asked).collect(),
    })
}

/// The image's root, from the cache, or made.
pub async fn root(docker: &Docker, source: &Source, kind: Kind, progress: &Progress) -> Result<MadeRoot> {
    if let Some(made) = root::made(&source.id, kind)? {
        return Ok(made);
    }
    let task = progress.task(format!("Machine's root of {}", source.image));
    task.doing("reading the image");
    let file = root::archive_file()?;
    let mut out = tokio::fs::File::from_std(file.reopen().doing("open the saved image")?);
    let mut pieces = std::pin::pin!(docker.export_image(&source.id));
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(failed(format!("save {}", source.image)))?;
        out.write_all(&piece).await.doing("write the saved image")?;
    }
    out.flush().await.doing("write the saved image")?;
    task.doing("making the file system");
    let (id, image) = (source.id.clone(), source.image.clone());
    let made = spawn_blocking(move || root::make(&id, &image, kind, file.path())).await;
    let made = made.map_err(|error| Error::Failed(format!("make the machine's root: {error}")))??;
    task.done("Made");
    Ok(made)
}
