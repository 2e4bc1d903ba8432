//! The images that the companion brings itself, through the API, so that they are there with every engine: Debian's
//! base system, and the image that carries inception-init.

use super::bootstrap::{self, Base, Recipe};
use crate::{
    api::stream,
    error::{Context, Error, Result},
    image::{
        Document, History, RootFs, architecture,
        archive::{Archive, manifest},
        digest,
        index::json,
        name::Name,
    },
};
use bollard::{
    Docker,
    query_parameters::{CreateImageOptionsBuilder, ImportImageOptionsBuilder},
};
use bollard_stubs::models::ImageConfig;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::Duration,
};
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

/// What the companion tells its user, a line at a time.
pub type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// How long a registry may take to begin, and to go on.
const PULL_START: Duration = Duration::from_secs(6);
const PULL_STEP: Duration = Duration::from_secs(60);
/// Labels that say how an image came to be.
const MADE_WITH: &str = "org.inception.made-with";
const MADE_FROM: &str = "org.inception.made-from";
const INIT_LABEL: &str = "org.inception.init";
/// The environment of every image that names none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Sees to it that the engine has the image `reference`: from its store, else from a registry, else, where it is
/// Debian's base system, made from Debian's archive.
pub async fn ensure(docker: &Docker, reference: &str, progress: Progress<'_>) -> Result<()> {
    let name = Name::parse(reference)?;
    if is_there(docker, reference).await?.is_some() {
        return Ok(());
    }
    let Err(refusal) = pull(docker, &name, progress).await else { return Ok(()) };
    let recipe = match (name.repository().as_str(), name.tag(), name.digest()) {
        ("debian", Some("bookworm-slim"), None) => Recipe { suite: "bookworm", slim: true },
        ("debian", Some("bookworm"), None) => Recipe { suite: "bookworm", slim: false },
        _ => {
            return Err(Error::Failed(format!(
                "{reference} is not in the engine's store, and no registry has it ({refusal}): build it, or bring it with docker load"
            )));
        }
    };
    progress(&format!("{reference} can't be pulled ({refusal}): making it from Debian's own packages"));
    let base = make(recipe, progress).await?;
    progress(&format!("loading {reference} ({} MB)", base.size / 1_000_000));
    load(docker, name.clone(), move |archive, name| write_base(archive, name, &base)).await?;
    loaded(docker, reference).await
}

/// Sees to it that the engine has `inception-init:VERSION` with the init of this very program; the reference. A
/// Dockerfile takes it with `COPY --from=inception-init:VERSION /inception-init /usr/local/bin/`.
pub async fn ensure_init(docker: &Docker, progress: Progress<'_>) -> Result<String> {
    let reference = format!("inception-init:{}", env!("CARGO_PKG_VERSION"));
    let path = crate::cli::need_init()?;
    let (config, tar) = spawn_blocking(move || init_image(&path)).await.map_err(|error| task_failed(&error))??;
    let there = is_there(docker, &reference).await?;
    // Podman writes an id without the algorithm.
    if there.is_some_and(|id| id.trim_start_matches("sha256:") == &digest::of(&config)["sha256:".len()..]) {
        return Ok(reference);
    }
    progress(&format!("loading {reference}"));
    load(docker, Name::parse(&reference)?, move |archive, name| {
        let layers = [(digest::of(&tar), tar.len() as u64)];
        archive.layer(&layers[0].0, layers[0].1, |out| out.write_all(&tar).doing("write the archive"))?;
        archive.image(&config, &manifest(&config, &layers)?, &[name].into())
    })
    .await?;
    loaded(docker, &reference).await?;
    Ok(reference)
}

/// The id of an image of the engine.
async fn is_there(docker: &Docker, reference: &str) -> Result<Option<String>> {
    match docker.inspect_image(reference).await {
        Ok(image) => Ok(Some(image.id.unwrap_or_default())),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(engine_failed(&format!("look for the image {reference}"), error)),
    }
}

async fn loaded(docker: &Docker, reference: &str) -> Result<()> {
    match is_there(docker, reference).await? {
        Some(_) => Ok(()),
        None => Err(Error::Failed(format!("the engine loaded {reference}, and does not have it now"))),
    }
}

fn engine_failed(doing: &str, error: bollard::errors::Error) -> Error {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, message } => {
            Error::Engine { status: status_code, message: format!("{doing}: {message}") }
        }
        bollard::errors::Error::DockerStreamError { error } => {
            Error::Engine { status: 500, message: format!("{doing}: {error}") }
        }
        other => Error::Failed(format!("{doing}: {other}")),
    }
}

/// An engine's answer without what was being done.
fn bare(error: Error) -> Error {
    Error::Failed(error.to_string().trim_start_matches(": ").to_owned())
}

fn task_failed(error: &tokio::task::JoinError) -> Error {
    Error::Failed(format!("a task of this program failed: {error}"))
}

/// Asks the engine to pull. A registry that does not even begin in time counts as none.
async fn pull(docker: &Docker, name: &Name, progress: Progress<'_>) -> Result<()> {
    let tag = name.digest().or(name.tag()).unwrap_or("latest");
    let options = CreateImageOptionsBuilder::new().from_image(&name.repository()).tag(tag).build();
    let mut answers = std::pin::pin!(docker.create_image(Some(options), None, None));
    let (mut limit, mut told) = (PULL_START, String::new());
    loop {
        let answer = match timeout(limit, answers.next()).await {
            Ok(Some(answer)) => answer.map_err(|error| bare(engine_failed("", error)))?,
            Ok(None) => return Ok(()),
            Err(_) => return Err(Error::Failed(format!("no answer in {} s", limit.as_secs()))),
        };
        limit = PULL_STEP;
        if let Some(status) = answer.status.filter(|status| *status != told) {
            progress(&status);
            told = status;
        }
    }
}

/// Runs the bootstrap beside the event loop, its progress passed on.
async fn make(recipe: Recipe, progress: Progress<'_>) -> Result<Base> {
    let (sender, mut receiver) = mpsc::unbounded_channel::<String>();
    let task = spawn_blocking(move || {
        let mut tell = |line: &str| {
            // Nobody listens any more: the work goes on, its result is cached.
            let _ = sender.send(line.to_owned());
        };
        bootstrap::base(&recipe, &bootstrap::cache_folder()?, &mut tell)
    });
    while let Some(line) = receiver.recv().await {
        progress(&line);
    }
    task.await.map_err(|error| task_failed(&error))?
}

/// Loads an archive of one image, written as it is sent.
async fn load(
    docker: &Docker,
    name: Name,
    write: impl FnOnce(&mut Archive<&mut stream::Writer>, Name) -> Result<()> + Send + 'static,
) -> Result<()> {
    let (mut writer, body) = stream::pipe();
    let doing = format!("load {name}");
    let task = spawn_blocking(move || {
        let written = Archive::new(&mut writer).and_then(|mut archive| {
            write(&mut archive, name)?;
            archive.finish()
        });
        let fault = written.as_ref().err().map(ToString::to_string);
        writer.finish(written);
        fault
    });
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    let mut answers = std::pin::pin!(docker.import_image(options, bollard::body_try_stream(body), None));
    let mut result = Ok(());
    while let Some(answer) = answers.next().await {
        if let (Ok(()), Err(error)) = (&result, answer) {
            result = Err(engine_failed(&doing, error));
        }
    }
    let fault = task.await.map_err(|error| task_failed(&error))?;
    match (result, fault) {
        // The engine's own words say more than that it stopped reading.
        (Err(error), _) => Err(error),
        (Ok(()), Some(fault)) => Err(Error::Failed(format!("{doing}: {fault}"))),
        (Ok(()), None) => Ok(()),
    }
}

/// A configuration of one layer.
fn document(created: DateTime<Utc>, config: ImageConfig, diff_id: String, comment: &str) -> Result<Vec<u8>> {
    json(&Document {
        created: Some(created),
        author: None,
        architecture: architecture().into(),
        os: "linux".into(),
        config,
        rootfs: RootFs { kind: "layers".into(), diff_ids: vec![diff_id] },
        history: vec![History { created: Some(created), comment: Some(comment.into()), ..History::default() }],
    })
}

/// The base system as an image: the same base system, the same image, on every machine.
fn write_base(archive: &mut Archive<&mut stream::Writer>, name: Name, base: &Base) -> Result<()> {
    let labels = [(MADE_WITH, "mmdebstrap".to_owned()), (MADE_FROM, base.sources.join(", "))];
    let config = ImageConfig {
        env: Some(vec![PATH.into()]),
        cmd: Some(vec!["bash".into()]),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
        ..ImageConfig::default()
    };
    let comment = "made by inception with mmdebstrap from Debian's archive; not an official image";
    let config = document(base.date, config, base.digest.clone(), comment)?;
    archive.layer(&base.digest, base.size, |out| {
        let mut file = File::open(&base.path).at("open", &base.path)?;
        io::copy(&mut file, out).at("send", &base.path).map(drop)
    })?;
    archive.image(&config, &manifest(&config, &[(base.digest.clone(), base.size)])?, &[name].into())
}

/// The init's image: its configuration, and its one layer's tar.
fn init_image(program: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    // The same program gives the same image: no time of its own, and root's, whoever runs this.
    let content = fs::read(program).at("read", program)?;
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let mut archive = tar::Builder::new(Vec::new());
    let added = archive.append_data(&mut header, "inception-init", &content[..]).and_then(|()| archive.into_inner());
    let tar = added.at("archive", program)?;
    let config = ImageConfig {
        env: Some(vec![PATH.into()]),
        entrypoint: Some(vec!["/inception-init".into()]),
        labels: Some(HashMap::from([(INIT_LABEL.to_owned(), "true".to_owned())])),
        ..ImageConfig::default()
    };
    let created = DateTime::from_timestamp(0, 0).unwrap_or_default();
    Ok((document(created, config, digest::of(&tar), "inception-init")?, tar))
}
