//! Carries out a plan: stage by stage, step by step, with the progress that Docker's clients show.

use super::{
    Cache, Failure, Prepared, Progress,
    command::Command,
    plan::{Base, Plan, Step},
    stage::Stage,
};
use crate::{
    api::blocking,
    build::Request,
    engine::{Engine, events::Kind},
    error::{Context, Error, Result},
    image::{Image, name::Name, registry},
};

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::mpsc::Sender;

/// Variables that a build passes to RUN without an ARG, and that take no part in the cache: they name proxies.
pub const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A build under way.
pub struct Build {
    pub engine: Arc<Engine>,
    pub request: Request,
    pub plan: Plan,
    cache: Arc<Mutex<Cache>>,
    progress: Sender<Progress>,
    number: usize,
    total: usize,
    /// Build arguments that an ARG took up.
    pub consumed: BTreeSet<String>,
    /// What the stages gave so far; None: nothing at all (FROM scratch alone).
    pub built: BTreeMap<usize, Option<Image>>,
}

/// Builds; see [`super::build`].
pub async fn run(engine: &Arc<Engine>, prepared: Prepared, progress: Sender<Progress>) -> Result<String, Failure> {
    let Prepared { request, plan, tags } = prepared;
    let folder = engine.config.data_root.join(super::FOLDER);
    let cache = blocking(move || Cache::open(&folder)).await?;
    let total = plan.count() + usize::from(!request.labels.is_empty());
    let mut build = Build {
        engine: Arc::clone(engine),
        request,
        plan,
        cache: Arc::new(Mutex::new(cache)),
        progress,
        number: 0,
        total,
        consumed: BTreeSet::new(),
        built: BTreeMap::new(),
    };
    for step in build.plan.meta.clone() {
        build.announce(&step.text).await?;
        if let Command::Arg(pairs) = &step.command {
            build.consumed.extend(pairs.iter().map(|(name, _)| name.clone()));
        }
    }
    for index in build.plan.needed.clone() {
        build.stage(index).await?;
    }
    let file = build.request.dockerfile.clone();
    let image = build.built.remove(&build.plan.target).flatten();
    let id = image.ok_or_else(|| Failure::at(&file, 0, "No image was generated. Is your Dockerfile empty?"))?.id;
    build.warn_of_arguments().await;
    build.send(Progress::Image { aux: serde_json::json!({ "ID": id }) }).await;
    build.say(&format!("Successfully built {}\n", short(&id))).await;
    for tag in tags {
        let (store, of) = (Arc::clone(&build.engine.images), id.clone());
        let name = tag.tagged();
        blocking(move || store.tag(&of, &name)).await?;
        let attributes = HashMap::from([("name".to_owned(), tag.tagged())]);
        build.engine.events.emit(Kind::IMAGE, "tag", &id, attributes);
        build.say(&format!("Successfully tagged {}\n", tag.tagged())).await;
    }
    if build.request.quiet {
        build.send(Progress::Stream { stream: format!("{id}\n") }).await;
    }
    Ok(id)
}

/// The 12 digits of an id that people see.
pub fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

impl Build {
    async fn send(&self, progress: Progress) {
        // Nobody may be there to hear it: `announce` notices.
        let _ = self.progress.send(progress).await;
    }

    /// Tells the client, unless it asked for quiet.
    pub async fn say(&self, text: &str) {
        if !self.request.quiet {
            self.send(Progress::Stream { stream: text.to_owned() }).await;
        }
    }

    /// For output that comes from elsewhere, and to learn that the client is gone.
    pub fn progress(&self) -> &Sender<Progress> {
        &self.progress
    }

    /// Begins a step; an error when the client is gone.
    pub async fn announce(&mut self, text: &str) -> Result<()> {
        if self.progress.is_closed() {
            return Err(Error::Failed("the client is gone: the build is given up".into()));
        }
        self.number += 1;
        self.say(&format!("Step {}/{} : {text}\n", self.number, self.total)).await;
        Ok(())
    }

    /// The image that an earlier build made of the same things.
    pub async fn cached(&self, key: &str) -> Result<Option<Image>> {
        if self.request.no_cache {
            return Ok(None);
        }
        let id = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(key).map(str::to_owned);
        let Some(id) = id else { return Ok(None) };
        let store = Arc::clone(&self.engine.images);
        match blocking(move || store.get(&id)).await {
            Err(Error::NotFound { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Notes what came out of a step.
    pub async fn remember(&self, keys: Vec<String>, image: &str) -> Result<()> {
        let (cache, store, image) = (Arc::clone(&self.cache), Arc::clone(&self.engine.images), image.to_owned());
        blocking(move || {
            let there: HashSet<String> = store.list()?.into_iter().map(|image| image.id).collect();
            let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
            keys.iter().try_for_each(|key| cache.put(key, &image, |id| there.contains(id)))
        })
        .await
    }

    async fn stage(&mut self, index: usize) -> Result<(), Failure> {
        let file = self.request.dockerfile.clone();
        let source = self.plan.stages[index].clone();
        let located = |failure: Failure, step: &Step| failure.located(&file, step.line, Some(&step.text));
        self.announce(&source.text).await?;
        let base = match &source.base {
            Base::Scratch => None,
            Base::Stage(base) => self.built.get(base).cloned().flatten(),
            Base::Image(name) => Some(
                self.image(name)
                    .await
                    .map_err(|error| Failure::from(error).located(&file, source.line, Some(&source.text)))?,
            ),
        };
        self.say(&format!(" ---> {}\n", base.as_ref().map(|image| short(&image.id)).unwrap_or_default())).await;
        let mut stage = Stage::new(index, base);
        let triggers = stage.triggers(&file, source.line, self.plan.escape)?;
        if !triggers.is_empty() {
            let plural = if triggers.len() == 1 { "" } else { "s" };
            self.say(&format!("# Executing {} build trigger{plural}\n", triggers.len())).await;
        }
        for step in &triggers {
            stage.step(self, &step.command).await.map_err(|failure| located(failure, step))?;
        }
        for step in &source.steps {
            self.announce(&step.text).await?;
            stage.step(self, &step.command).await.map_err(|failure| located(failure, step))?;
        }
        if index == self.plan.target && !self.request.labels.is_empty() {
            let labels = self.request.labels.clone();
            let text: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            self.announce(&format!("LABEL {}", text.join(" "))).await?;
            stage.labels(self, labels).await?;
        }
        self.built.insert(index, stage.into_image());
        Ok(())
    }

    /// An image by a name or an id, pulled where the store does not have it or the client asked for that.
    pub async fn image(&self, name: &str) -> Result<Image> {
        let (store, wanted) = (Arc::clone(&self.engine.images), name.to_owned());
        let found = blocking(move || store.get(&wanted)).await;
        let reference = Name::parse(name);
        match (found, reference) {
            (Err(Error::NotFound { .. }), Ok(reference)) => self.pull(&reference).await,
            (Ok(image), Ok(reference)) if self.request.pull && !image.id.contains(name) => self.pull(&reference).await,
            (found, _) => found,
        }
    }

    async fn pull(&self, name: &Name) -> Result<Image> {
        let pulled = registry::pull(&self.engine.images, name, |status, id| {
            if !self.request.quiet {
                // A client that does not keep up misses a line of no consequence.
                let _ =
                    self.progress.try_send(Progress::Status { status: status.to_owned(), id: id.map(str::to_owned) });
            }
        });
        pulled.await.map_err(|error| Error::Failed(format!("No such image: {name}; it could not be pulled: {error}")))
    }

    async fn warn_of_arguments(&self) {
        let unused: Vec<&str> = self
            .request
            .build_args
            .keys()
            .map(String::as_str)
            .filter(|name| !self.consumed.contains(*name) && !PROXIES.contains(name))
            .collect();
        if !unused.is_empty() {
            self.say(&format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" "))).await;
        }
    }

    /// An empty folder in the store for a step's changes.
    pub async fn scratch(&self) -> Result<tempfile::TempDir> {
        let store = Arc::clone(&self.engine.images);
        blocking(move || store.scratch()).await
    }

    /// Removes a step's folder, off the runtime: there may be thousands of files in it.
    pub async fn discard(&self, folder: tempfile::TempDir) -> Result<()> {
        let path = folder.path().to_owned();
        blocking(move || folder.close().at("remove", &path)).await
    }
}
