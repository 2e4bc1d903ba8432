//! One stage: an image that grows step by step.

use super::{
    Failure, cache,
    command::{self, Command, Copy, Form, Place},
    config::{self, Arguments, NOT_RUN, Settings, absolute},
    lines,
    mount::{overlay, with_overlays},
    output::Output,
    place::{self, Placing},
    plan::Step,
    run::{Build, PROXIES, short},
    source::{self, Found},
    words,
};
use crate::{
    api::blocking,
    engine::{random_id, step},
    error::{Context, Error, Result},
    image::{Document, History, Image, RootFs, architecture},
    shim::Overlay,
};
use bollard_stubs::models::ContainerConfig;
use chrono::Utc;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tokio::sync::mpsc;

/// What an image without a PATH gets, as with Docker.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage under way.
pub struct Stage {
    index: usize,
    image: Option<Image>,
    document: Document,
    arguments: Arguments,
    has_cmd: bool,
}

/// Where COPY reads.
enum Source {
    Context,
    /// None: a stage without any files.
    Image(Box<Option<Image>>),
}

impl Stage {
    pub fn new(index: usize, base: Option<Image>) -> Stage {
        let mut document = base.as_ref().map(|image| image.document.clone()).unwrap_or_else(|| Document {
            architecture: architecture().into(),
            os: "linux".into(),
            rootfs: RootFs { kind: "layers".into(), diff_ids: Vec::new() },
            ..Document::default()
        });
        let environment = document.config.env.get_or_insert_default();
        if config::variable(environment, "PATH").is_none() {
            environment.push(format!("PATH={PATH}"));
        }
        Stage { index, image: base, document, arguments: Arguments::new(), has_cmd: false }
    }

    /// The base's ONBUILD instructions, which are carried out now and not handed on.
    pub fn triggers(&mut self, file: &str, line: usize, escape: char) -> Result<Vec<Step>, Failure> {
        let texts = self.document.config.on_build.take().unwrap_or_default();
        let step = |text: String| {
            let place = Place { file, escape };
            let command = command::parse(&lines::parse_one(&text, line, file, escape)?, place)?;
            Ok(Step { line, text: format!("ONBUILD {text}"), command })
        };
        texts.into_iter().map(step).collect()
    }

    /// Carries out one instruction.
    pub async fn step(&mut self, build: &mut Build, command: &Command) -> Result<(), Failure> {
        match command {
            Command::Arg(pairs) => self.argument(build, pairs).await,
            Command::Copy(copy) => self.copy(build, copy).await,
            Command::Run(form) => self.run(build, form).await,
            Command::Workdir(path) => self.working_folder(build, path).await,
            setting => self.setting(build, setting).await,
        }
    }

    /// Labels of the request, as they are: no variables in them.
    pub async fn labels(&mut self, build: &mut Build, labels: BTreeMap<String, String>) -> Result<(), Failure> {
        let text: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.document.config.labels.get_or_insert_default().extend(labels);
        self.describe(build, format!("LABEL {}", text.join(" "))).await
    }

    /// The stage's image; the base itself where there was no step.
    pub fn into_image(self) -> Option<Image> {
        self.image
    }

    fn lookup(&self) -> impl Fn(&str) -> Option<String> + use<> {
        let environment = self.document.config.env.clone().unwrap_or_default();
        let arguments = self.arguments.clone();
        // ENV wins over ARG.
        move |name| config::variable(&environment, name).or_else(|| arguments.get(name).cloned().flatten())
    }

    fn expand(&self, build: &Build, word: &str) -> Result<String, Failure> {
        Ok(words::expand(word, build.plan.escape, &self.lookup()).map_err(Error::Invalid)?)
    }

    /// What the step begins with, as part of the cache's key.
    fn parent(&self) -> &str {
        self.image.as_ref().map_or("scratch", |image| image.id.as_str())
    }

    async fn setting(&mut self, build: &mut Build, command: &Command) -> Result<(), Failure> {
        let lookup = self.lookup();
        let settings = Settings {
            config: &mut self.document.config,
            author: &mut self.document.author,
            has_cmd: &mut self.has_cmd,
            escape: build.plan.escape,
            lookup: &lookup,
        };
        let text = settings.apply(command).map_err(Error::Invalid)?;
        self.describe(build, text).await
    }

    /// Ends a step that changed the configuration alone.
    async fn describe(&mut self, build: &mut Build, text: String) -> Result<(), Failure> {
        // The history's text has every value in it, and the parent all that came before.
        let author = self.document.author.clone().unwrap_or_default();
        let key = cache::key(&[self.parent(), "setting", &text, &author]);
        if self.take_cached(build, &key).await? {
            return Ok(());
        }
        self.commit(build, format!("/bin/sh -c {NOT_RUN} {text}"), vec![key], None).await
    }

    async fn argument(&mut self, build: &mut Build, pairs: &[(String, Option<String>)]) -> Result<(), Failure> {
        let mut text = Vec::new();
        for (name, default) in pairs {
            let name = self.expand(build, name)?;
            let default = default.as_ref().map(|default| self.expand(build, default)).transpose()?;
            let given = build.request.build_args.get(&name).cloned().flatten();
            let outer = || build.plan.meta_values.get(&name).cloned();
            text.push(match &default {
                Some(default) => format!("{name}={default}"),
                None => name.clone(),
            });
            let value = given.or(default).or_else(outer);
            build.consumed.insert(name.clone());
            self.arguments.insert(name, value);
        }
        self.describe(build, format!("ARG {}", text.join(" "))).await
    }

    async fn working_folder(&mut self, build: &mut Build, path: &str) -> Result<(), Failure> {
        let path = self.expand(build, path)?;
        if path.is_empty() {
            return Err(Error::invalid("the path is empty").into());
        }
        let path = absolute(self.document.config.working_dir.as_deref(), &path);
        let path = if path == "/" { path } else { path.trim_end_matches('/').to_owned() };
        self.document.config.working_dir = Some(path.clone());
        let text = format!("WORKDIR {path}");
        let key = cache::key(&[self.parent(), "folder", &text]);
        if self.take_cached(build, &key).await? {
            return Ok(());
        }
        let diff_id = self.change(build, None, move |merged, _| place::make_folder(merged, &path)).await?;
        self.commit(build, format!("/bin/sh -c {NOT_RUN}{text}"), vec![key], diff_id).await
    }

    async fn copy(&mut self, build: &mut Build, copy: &Copy) -> Result<(), Failure> {
        let expanded: Result<Vec<String>, Failure> =
            copy.sources.iter().map(|source| self.expand(build, source)).collect();
        let sources = expanded?;
        if let Some(url) = sources.iter().find(|source| copy.add && command::is_url(source)) {
            return Err(Error::invalid(format!("a URL as source ({url}) is not there yet; fetch it in a RUN")).into());
        }
        let target = self.expand(build, &copy.target)?;
        let target = absolute(self.document.config.working_dir.as_deref(), &target);
        let chown = copy.chown.as_ref().map(|owner| self.expand(build, owner)).transpose()?;
        let from = match &copy.from {
            None => Source::Context,
            Some(from) => self.source(build, from).await?,
        };
        let name = if copy.add { "ADD" } else { "COPY" };
        let owner = chown.as_ref().map(|owner| format!(" --chown={owner}")).unwrap_or_default();
        let mut keys = Vec::new();
        if let Source::Image(image) = &from {
            // The same paths of the same image have the same contents: they need not be read.
            let id = image.as_ref().as_ref().map_or("scratch", |image| image.id.as_str());
            let mut parts = vec![self.parent(), name, &owner, &target, id];
            parts.extend(sources.iter().map(String::as_str));
            let key = cache::key(&parts);
            if self.take_cached(build, &key).await? {
                return Ok(());
            }
            keys.push(key);
        }
        let keep_owners = copy.from.is_some() && chown.is_none();
        let digest = read(build, &from, sources.clone(), move |found| source::digest(found, keep_owners)).await?;
        let text = format!("{name}{owner} {digest} in {target} ");
        let key = cache::key(&[self.parent(), "copy", &text, &keep_owners.to_string()]);
        if self.take_cached(build, &key).await? {
            return Ok(());
        }
        keys.push(key);
        let placing = Placing { target, chown, keep_owners, unpack: copy.add };
        let context = build.request.context.clone();
        let diff_id = self
            .change(build, Some(&from), move |merged, from| {
                let found = match from {
                    Some(image) => find(image, "the image", &sources)?,
                    None => find(&context, source::CONTEXT, &sources)?,
                };
                if found.len() > 1 && !placing.target.ends_with('/') {
                    return Err(Error::invalid(format!(
                        "When using {name} with more than one source file, the destination must be a directory and end with a /"
                    )));
                }
                place::place(&found, merged, &placing)
            })
            .await?;
        self.commit(build, format!("/bin/sh -c {NOT_RUN}{text}"), keys, diff_id).await
    }

    /// What `--from` names: an earlier stage or an image.
    async fn source(&self, build: &Build, from: &str) -> Result<Source, Failure> {
        let stage = build.plan.source_stage(from, self.index).map_err(Error::Invalid)?;
        let image = match stage {
            None => Some(build.image(from).await?),
            Some(stage) => {
                let built = build.stage_image(stage).await?;
                built.ok_or_else(|| Error::invalid(format!("--from={from}: that stage was not built")))?
            }
        };
        Ok(Source::Image(Box::new(image)))
    }

    /// Changes files in a mounted layer on the stage's image; the new layer, if anything changed. `work` gets the
    /// mounted image, and the mounted source where that is one.
    async fn change(
        &self,
        build: &Build,
        source: Option<&Source>,
        work: impl FnOnce(&Path, Option<&Path>) -> Result<()> + Send + 'static,
    ) -> Result<Option<String>, Failure> {
        let store = Arc::clone(&build.engine.images);
        let image = self.image.clone();
        let from = match source {
            Some(Source::Image(image)) => Some(image.clone()),
            _ => None,
        };
        let diff_id = blocking(move || {
            let folder = store.scratch()?;
            let target = overlay(&store, image.as_ref(), folder.path())?;
            let Some(from) = from else {
                with_overlays(&[&target], || work(&target.merged, None)).map_err(|error| inside(error, &target))?;
                return store.commit(&target.upper);
            };
            let beside = store.scratch()?;
            let source = overlay(&store, from.as_ref().as_ref(), beside.path())?;
            with_overlays(&[&target, &source], || work(&target.merged, Some(&source.merged)))
                .map_err(|error| inside(inside(error, &target), &source))?;
            store.commit(&target.upper)
        });
        Ok(diff_id.await?)
    }

    async fn run(&mut self, build: &mut Build, form: &Form) -> Result<(), Failure> {
        let line = config::command_line(form, &self.document.config);
        if line.is_empty() {
            return Err(Error::invalid("there is no command").into());
        }
        let mut environment = self.document.config.env.clone().unwrap_or_default();
        let mut arguments: Vec<String> = Vec::new();
        for (name, value) in &self.arguments {
            if let Some(value) = value.as_ref().filter(|_| config::variable(&environment, name).is_none()) {
                arguments.push(format!("{name}={value}"));
            }
        }
        let history = match arguments.is_empty() {
            true => line.join(" "),
            false => format!("|{} {} {}", arguments.len(), arguments.join(" "), line.join(" ")),
        };
        let joined = line.join("\0");
        let key = cache::key(&[self.parent(), "run", &arguments.join("\0"), &joined]);
        if self.take_cached(build, &key).await? {
            return Ok(());
        }
        for (name, value) in &build.request.build_args {
            let is_new = PROXIES.contains(&name.as_str()) && !self.arguments.contains_key(name);
            if let Some(value) = value.as_ref().filter(|_| is_new) {
                arguments.push(format!("{name}={value}"));
            }
        }
        environment.extend(arguments);
        let config = ContainerConfig {
            cmd: Some(line.clone()),
            env: Some(environment),
            user: self.document.config.user.clone(),
            working_dir: self.document.config.working_dir.clone(),
            ..ContainerConfig::default()
        };
        let diff_id = self.execute(build, &config, &line).await?;
        self.commit(build, history, vec![key], diff_id).await
    }

    /// Runs a command in a container; the layer that it leaves.
    async fn execute(
        &self,
        build: &Build,
        config: &ContainerConfig,
        line: &[String],
    ) -> Result<Option<String>, Failure> {
        let id = random_id()?;
        let folder = build.scratch().await?;
        let (store, image, path) = (Arc::clone(&build.engine.images), self.image.clone(), folder.path().to_owned());
        let overlay = blocking(move || overlay(&store, image.as_ref(), &path)).await?;
        let upper = overlay.upper.clone();
        build.say(&format!(" ---> Running in {}\n", short(&id))).await;
        let mut output = Output::new(build.voice.clone(), build.request.quiet);
        let step = step::Step {
            id: &id,
            overlay,
            config,
            network: &build.request.network,
            extra_hosts: &build.request.extra_hosts,
            volumes: self.document.config.volumes.as_deref().unwrap_or_default(),
        };
        let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(8);
        let shown = async {
            while let Some(bytes) = pieces.recv().await {
                output.write(&bytes).await;
            }
            output.end().await;
        };
        let (code, ()) = tokio::join!(step::run(&build.engine, step, sender, build.given_up.cancelled()), shown);
        let code = match code {
            Ok(code) => code,
            Err(error) => {
                build.discard(folder).await?;
                return Err(if build.given_up.is_cancelled() { Failure::given_up() } else { error.into() });
            }
        };
        if code != 0 {
            build.discard(folder).await?;
            let command = line.join(" ");
            let message = format!("The command '{command}' returned a non-zero code: {code}{}", output.tail());
            return Err(Error::Runtime { message, code }.into());
        }
        let store = Arc::clone(&build.engine.images);
        let diff_id = blocking(move || store.commit(&upper)).await?;
        build.discard(folder).await?;
        build.say(&format!("Removing intermediate container {}\n", short(&id))).await;
        Ok(diff_id)
    }

    /// Takes the step's result from an earlier build, if there is one.
    async fn take_cached(&mut self, build: &Build, key: &str) -> Result<bool, Failure> {
        let Some(image) = build.cached(key).await? else { return Ok(false) };
        build.say(&format!(" ---> Using cache\n ---> {}\n", short(&image.id))).await;
        self.document = image.document.clone();
        self.image = Some(image);
        Ok(true)
    }

    /// Ends a step: its image goes into the store, and into the cache's record.
    async fn commit(
        &mut self,
        build: &Build,
        created_by: String,
        keys: Vec<String>,
        diff_id: Option<String>,
    ) -> Result<(), Failure> {
        let now = Utc::now();
        self.document.created = Some(now);
        self.document.history.push(History {
            created: Some(now),
            created_by: Some(created_by),
            author: self.document.author.clone(),
            comment: None,
            empty_layer: diff_id.is_none(),
        });
        self.document.rootfs.diff_ids.extend(diff_id);
        let (store, document) = (Arc::clone(&build.engine.images), self.document.clone());
        let parent = self.image.as_ref().map(|image| image.id.clone());
        let image = blocking(move || store.create(&document, parent.as_deref())).await?;
        build.remember(keys, &image.id).await?;
        build.say(&format!(" ---> {}\n", short(&image.id))).await;
        self.image = Some(image);
        Ok(())
    }
}

/// An error with paths as they are in the image, not where it is mounted for a moment.
fn inside(error: Error, overlay: &Overlay) -> Error {
    match error {
        Error::Io { doing, source } => {
            Error::Io { doing: doing.replace(&overlay.merged.display().to_string(), ""), source }
        }
        other => other,
    }
}

/// Every source of one COPY, in order.
fn find(folder: &Path, place: &str, sources: &[String]) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for source in sources {
        found.extend(source::find(folder, place, source)?);
    }
    Ok(found)
}

/// Looks at what COPY names, where it is.
async fn read<T: Send + 'static>(
    build: &Build,
    from: &Source,
    sources: Vec<String>,
    work: impl FnOnce(&[Found]) -> Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let context = build.request.context.clone();
    let Source::Image(image) = from else {
        return Ok(blocking(move || work(&find(&context, source::CONTEXT, &sources)?)).await?);
    };
    let (store, image) = (Arc::clone(&build.engine.images), image.clone());
    let result = blocking(move || {
        let folder = store.scratch()?;
        let mounted = overlay(&store, image.as_ref().as_ref(), folder.path())?;
        let result = with_overlays(&[&mounted], || work(&find(&mounted.merged, "the image", &sources)?));
        let path = folder.path().to_owned();
        folder.close().at("remove", &path)?;
        result
    });
    Ok(result.await?)
}
