//! Carries out a plan: stages side by side, each as soon as those that it needs have ended, with the progress that
//! Docker's clients show.

use super::{
    Cache, Failure, Prepared, Progress,
    command::Command,
    plan::{Base, Plan, Step},
    stage::Stage,
    voice::{Voice, conduct, voice},
};
use crate::{
    api::blocking,
    build::Request,
    engine::{Engine, events::Kind},
    error::{Context, Error, Result},
    image::{Image, name::Name, registry},
};
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{mpsc::Sender, watch};
use tokio_util::sync::CancellationToken;

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

/// What a stage gave, once it has ended; in it None: nothing at all (FROM scratch alone).
type Ended = watch::Sender<Option<Option<Image>>>;

/// A stage of a build under way: what it shares with the others, and what is its own.
pub struct Build {
    pub engine: Arc<Engine>,
    pub request: Arc<Request>,
    pub plan: Arc<Plan>,
    cache: Arc<Mutex<Cache>>,
    ended: Arc<BTreeMap<usize, Ended>>,
    /// Another stage has failed, or the client is gone.
    pub given_up: CancellationToken,
    pub voice: Voice,
    /// Of the step that was announced last.
    number: usize,
    total: usize,
    /// Build arguments that an ARG took up.
    pub consumed: BTreeSet<String>,
}

/// Builds; see [`super::build`].
pub async fn run(engine: &Arc<Engine>, prepared: Prepared, progress: Sender<Progress>) -> Result<String, Failure> {
    let Prepared { request, plan, tags } = prepared;
    let folder = engine.config.data_root.join(super::FOLDER);
    let cache = Arc::new(Mutex::new(blocking(move || Cache::open(&folder)).await?));
    let total = plan.count() + usize::from(!request.labels.is_empty());
    let (request, plan) = (Arc::new(request), Arc::new(plan));
    let ended: Arc<BTreeMap<usize, Ended>> =
        Arc::new(plan.needed.iter().map(|index| (*index, watch::Sender::new(None))).collect());
    let given_up = CancellationToken::new();
    let (mut stages, mut listeners) = (Vec::new(), Vec::new());
    let mut number = plan.meta.len();
    for index in plan.needed.iter().copied() {
        let (voice, listener) = voice();
        listeners.push(listener);
        let build = Build {
            engine: Arc::clone(engine),
            request: Arc::clone(&request),
            plan: Arc::clone(&plan),
            cache: Arc::clone(&cache),
            ended: Arc::clone(&ended),
            given_up: given_up.clone(),
            voice,
            number,
            total,
            consumed: BTreeSet::new(),
        };
        number += 1 + plan.stages[index].steps.len();
        stages.push(build.whole_stage(index));
    }
    let quiet = request.quiet;
    // Nobody may be there to hear it: the stages learn of that.
    let say = async |stream: String| {
        if !quiet {
            let _ = progress.send(Progress::Stream { stream }).await;
        }
    };
    let mut consumed = BTreeSet::new();
    for (number, step) in (1..).zip(&plan.meta) {
        say(format!("Step {number}/{total} : {}\n", step.text)).await;
        if let Command::Arg(pairs) = &step.command {
            consumed.extend(pairs.iter().map(|(name, _)| name.clone()));
        }
    }
    let (results, ()) = tokio::join!(join_all(stages), conduct(listeners, &progress, &given_up));
    // One that was given up because another failed is not the one to tell of.
    let (given_up, failed): (Vec<_>, Vec<_>) =
        results.iter().filter_map(|(result, _)| result.as_ref().err()).partition(|failure| failure.is_given_up());
    if !failed.is_empty() || !given_up.is_empty() {
        let wanted = failed.is_empty();
        let mut failures = results.into_iter().filter_map(|(result, _)| result.err());
        let failure = failures.find(|failure| failure.is_given_up() == wanted);
        return Err(failure.unwrap_or_else(Failure::given_up));
    }
    consumed.extend(results.into_iter().flat_map(|(_, consumed)| consumed));
    let image = ended.get(&plan.target).and_then(|ended| ended.borrow().clone()).flatten();
    let id = image
        .ok_or_else(|| Failure::at(&request.dockerfile, 0, "No image was generated. Is your Dockerfile empty?"))?
        .id;
    let is_unused = |name: &&String| !consumed.contains(*name) && !PROXIES.contains(&name.as_str());
    let unused: Vec<&str> = request.build_args.keys().filter(is_unused).map(String::as_str).collect();
    if !unused.is_empty() {
        say(format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" "))).await;
    }
    let _ = progress.send(Progress::Image { aux: serde_json::json!({ "ID": id }) }).await;
    say(format!("Successfully built {}\n", short(&id))).await;
    for tag in tags {
        let (store, of, name) = (Arc::clone(&engine.images), id.clone(), tag.tagged());
        blocking(move || store.tag(&of, &name)).await?;
        let attributes = HashMap::from([("name".to_owned(), tag.tagged())]);
        engine.events.emit(Kind::IMAGE, "tag", &id, attributes);
        say(format!("Successfully tagged {}\n", tag.tagged())).await;
    }
    if quiet {
        let _ = progress.send(Progress::Stream { stream: format!("{id}\n") }).await;
    }
    Ok(id)
}

/// The 12 digits of an id that people see.
pub fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

impl Build {
    /// Tells the client, unless it asked for quiet.
    pub async fn say(&self, text: &str) {
        if !self.request.quiet {
            self.voice.send(Progress::Stream { stream: text.to_owned() }).await;
        }
    }

    /// Begins a step; an error when the build is given up.
    async fn announce(&mut self, text: &str) -> Result<(), Failure> {
        if self.given_up.is_cancelled() {
            return Err(Failure::given_up());
        }
        self.number += 1;
        self.say(&format!("Step {}/{} : {text}\n", self.number, self.total)).await;
        Ok(())
    }

    /// What an earlier stage gave, waited for. None: that stage is not part of the build.
    pub async fn stage_image(&self, index: usize) -> Result<Option<Option<Image>>, Failure> {
        let Some(ended) = self.ended.get(&index) else { return Ok(None) };
        let mut ended = ended.subscribe();
        tokio::select! {
            image = ended.wait_for(Option::is_some) => Ok(image.map_err(|_| Failure::given_up())?.clone()),
            () = self.given_up.cancelled() => Err(Failure::given_up()),
        }
    }

    /// Builds a stage to its end; the build arguments that it took up. The others are given up if it fails.
    async fn whole_stage(mut self, index: usize) -> (Result<(), Failure>, BTreeSet<String>) {
        let result = self.stage(index).await;
        if result.is_err() {
            self.given_up.cancel();
        }
        (result, self.consumed)
    }

    /// The image that an earlier build made of the same things.
    pub async fn cached(&self, key: &str) -> Result<Option<Image>> {
        if self.request.no_cache {
            return Ok(None);
        }
        let ids = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(key).to_vec();
        let store = Arc::clone(&self.engine.images);
        blocking(move || {
            for id in ids {
                match store.get(&id) {
                    Err(Error::NotFound { .. }) => {}
                    other => return other.map(Some),
                }
            }
            Ok(None)
        })
        .await
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
            Base::Stage(base) => self.stage_image(*base).await?.flatten(),
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
        if let Some(ended) = self.ended.get(&index) {
            ended.send_replace(Some(stage.into_image()));
        }
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
                self.voice.send_now(Progress::Status { status: status.to_owned(), id: id.map(str::to_owned) });
            }
        });
        pulled.await.map_err(|error| Error::Failed(format!("No such image: {name}; it could not be pulled: {error}")))
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
