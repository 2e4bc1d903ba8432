//! Routes: images.

use super::{
    ApiVersion, blocking,
    filters::{Filters, glob},
    image_transfer,
};
use crate::{
    engine::{Engine, containers::Container, events::Kind},
    error::{Error, Result},
    image::{Image, InUse, name::Name},
};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bollard_stubs::models;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// The newest API with the fields that were dropped later: VirtualSize (1.43), ContainerConfig (1.44).
const LAST_WITH_VIRTUAL_SIZE: u32 = 43;
const LAST_WITH_CONTAINER_CONFIG: u32 = 44;
/// From here on an image without a name has an empty list of names; before, a list of `<none>:<none>`.
const FIRST_WITH_EMPTY_NAMES: u32 = 43;
/// Go's zero time, which clients take for "unknown".
const NO_TIME: &str = "0001-01-01T00:00:00Z";

pub fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/load", post(image_transfer::load))
        .route("/images/get", get(image_transfer::save_several))
        .route("/images/create", post(image_transfer::create))
        .route("/images/prune", post(prune))
        // Names have slashes: the operation is what comes after the last one.
        .route("/images/{*rest}", get(get_one).post(post_one).delete(remove))
}

fn is_true(text: &Option<String>) -> bool {
    // Docker's BoolValue: everything but these is true.
    let text = text.as_deref().unwrap_or_default().trim().to_ascii_lowercase();
    !["", "0", "no", "false", "none"].contains(&text.as_str())
}

fn labels(image: &Image) -> HashMap<String, String> {
    image.document.config.labels.clone().unwrap_or_default()
}

#[derive(Deserialize)]
struct ListQuery {
    all: Option<String>,
    filters: Option<String>,
    #[serde(rename = "shared-size")]
    shared_size: Option<String>,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    ApiVersion(version): ApiVersion,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>> {
    let filters = Filters::parse(
        query.filters.as_deref(),
        &["dangling", "label", "label!", "before", "since", "reference", "until"],
    )?;
    let (all, shared) = (is_true(&query.all), is_true(&query.shared_size));
    let users = in_use(&engine);
    blocking(move || {
        let images = engine.images.list()?;
        let parents: HashSet<&str> = images.iter().filter_map(|image| image.parent.as_deref()).collect();
        let mut layer_uses: HashMap<&str, usize> = HashMap::new();
        for diff_id in images.iter().flat_map(|image| &image.document.rootfs.diff_ids) {
            *layer_uses.entry(diff_id).or_default() += 1;
        }
        let select = Select::new(&engine, &filters)?;
        let mut found = Vec::new();
        for image in &images {
            let step = image.tags.is_empty() && parents.contains(image.id.as_str());
            let Some(tags) = select.fits(image)?.filter(|_| all || !step) else { continue };
            let summary = models::ImageSummary {
                id: image.id.clone(),
                parent_id: image.parent.clone().unwrap_or_default(),
                repo_tags: tags,
                repo_digests: Vec::new(),
                created: image.document.created.map_or(0, |time| time.timestamp()),
                size: image.size as i64,
                shared_size: if shared { image.shared_size(|diff_id| layer_uses[diff_id] > 1) as i64 } else { -1 },
                labels: labels(image),
                containers: if shared { users.iter().filter(|user| user.image == image.id).count() as i64 } else { -1 },
                ..models::ImageSummary::default()
            };
            found.push(summary_value(summary, version)?);
        }
        Ok(Json(found))
    })
    .await
}

/// An image of a list as the client's version of the API has it.
fn summary_value(summary: models::ImageSummary, version: u32) -> Result<Value> {
    let nameless = summary.repo_tags.is_empty() && version < FIRST_WITH_EMPTY_NAMES;
    let mut value = to_value(summary)?;
    if version <= LAST_WITH_VIRTUAL_SIZE {
        value["VirtualSize"] = value["Size"].clone();
    }
    if nameless {
        value["RepoTags"] = json!(["<none>:<none>"]);
        value["RepoDigests"] = json!(["<none>@<none>"]);
    }
    Ok(value)
}

fn to_value(document: impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(document).map_err(|error| Error::Failed(format!("write JSON: {error}")))
}

/// The filters of a list, looked up once.
struct Select<'a> {
    filters: &'a Filters,
    before: Option<DateTime<Utc>>,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    dangling: Option<bool>,
}

impl<'a> Select<'a> {
    fn new(engine: &Engine, filters: &'a Filters) -> Result<Self> {
        let created = |name: &str| -> Result<Option<DateTime<Utc>>> {
            match filters.values(name) {
                [] => Ok(None),
                [reference] => Ok(engine.images.get(reference)?.document.created),
                _ => Err(Error::invalid(format!("only one '{name}' filter is allowed"))),
            }
        };
        let until = match filters.values("until") {
            [] => None,
            [text] => Some(moment(text)?),
            _ => return Err(Error::invalid("only one 'until' filter is allowed")),
        };
        Ok(Select {
            filters,
            before: created("before")?,
            since: created("since")?,
            until,
            dangling: filters.flag("dangling")?,
        })
    }

    /// The names under which the image is shown; None: it is not.
    fn fits(&self, image: &Image) -> Result<Option<Vec<String>>> {
        let created = image.document.created;
        if self.dangling.is_some_and(|dangling| dangling != image.tags.is_empty())
            || self.before.is_some_and(|before| created >= Some(before))
            || self.since.is_some_and(|since| created <= Some(since))
            || self.until.is_some_and(|until| created > Some(until))
            || !self.filters.labels(&labels(image))
        {
            return Ok(None);
        }
        let patterns = self.filters.values("reference");
        let mut tags = Vec::new();
        for tag in &image.tags {
            let repository = Name::parse(tag)?.repository();
            let mut fits = patterns.is_empty();
            for pattern in patterns {
                fits = fits || glob(pattern, tag)? || glob(pattern, &repository)?;
            }
            if fits {
                tags.push(tag.clone());
            }
        }
        Ok((patterns.is_empty() || !tags.is_empty()).then_some(tags))
    }
}

/// A time as filters have it: a date, seconds since 1970, or an age such as `24h` or `1h30m`.
fn moment(text: &str) -> Result<DateTime<Utc>> {
    let wrong = || {
        Error::invalid(format!(
            "invalid time {text:?}: write 2026-01-31T12:00:00Z, seconds since 1970, or an age such as 24h"
        ))
    };
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    if let Some(time) = text.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0)) {
        return Ok(time);
    }
    if let Ok(date) = text.parse::<chrono::NaiveDate>() {
        return Ok(date.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    let (mut seconds, mut rest) = (0i64, text);
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let number: i64 = rest[..end].parse().map_err(|_| wrong())?;
        let unit = match rest.as_bytes()[end] {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return Err(wrong()),
        };
        seconds = number.checked_mul(unit).and_then(|part| seconds.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[end + 1..];
    }
    chrono::TimeDelta::try_seconds(seconds).and_then(|age| Utc::now().checked_sub_signed(age)).ok_or_else(wrong)
}

async fn get_one(
    State(engine): State<Arc<Engine>>,
    ApiVersion(version): ApiVersion,
    Path(rest): Path<String>,
) -> Result<Response> {
    match rest.rsplit_once('/') {
        Some((name, "json")) => {
            let name = name.to_owned();
            Ok(blocking(move || inspect(&engine, &name, version)).await?.into_response())
        }
        Some((name, "history")) => {
            let name = name.to_owned();
            Ok(blocking(move || history(&engine, &name)).await?.into_response())
        }
        Some((name, "get")) => image_transfer::save(engine, vec![name.to_owned()]).await,
        _ => Err(Error::NotImplemented(format!("GET /images/{rest}"))),
    }
}

fn inspect(engine: &Engine, name: &str, version: u32) -> Result<Json<Value>> {
    let image = engine.images.get(name)?;
    let lower = engine.images.lower(&image)?;
    let document = &image.document;
    let path = |path: &std::path::PathBuf| path.display().to_string();
    let mut data = HashMap::new();
    if let Some((top, below)) = lower.split_first() {
        data.insert("UpperDir".to_owned(), path(top));
        if !below.is_empty() {
            data.insert("LowerDir".to_owned(), below.iter().map(path).collect::<Vec<_>>().join(":"));
        }
    }
    let config = config_value(&document.config)?;
    let inspected = models::ImageInspect {
        id: Some(image.id.clone()),
        repo_tags: Some(image.tags.clone()),
        repo_digests: Some(Vec::new()),
        comment: Some(document.history.last().and_then(|step| step.comment.clone()).unwrap_or_default()),
        created: document.created,
        author: Some(document.author.clone().unwrap_or_default()),
        architecture: Some(document.architecture.clone()),
        os: Some(document.os.clone()),
        size: Some(image.size as i64),
        graph_driver: Some(models::DriverData { name: "overlay2".into(), data }),
        root_fs: Some(models::ImageInspectRootFs {
            typ: document.rootfs.kind.clone(),
            layers: Some(document.rootfs.diff_ids.clone()),
        }),
        metadata: Some(models::ImageInspectMetadata { last_tag_time: image.tagged }),
        ..models::ImageInspect::default()
    };
    let mut value = to_value(inspected)?;
    if value["Created"].is_null() {
        value["Created"] = NO_TIME.into();
    }
    if value["Metadata"]["LastTagTime"].is_null() {
        value["Metadata"]["LastTagTime"] = NO_TIME.into();
    }
    value["Parent"] = image.parent.clone().unwrap_or_default().into();
    value["DockerVersion"] = super::system::VERSION.into();
    if version <= LAST_WITH_VIRTUAL_SIZE {
        value["VirtualSize"] = value["Size"].clone();
    }
    if version <= LAST_WITH_CONTAINER_CONFIG {
        value["Container"] = "".into();
        value["ContainerConfig"] = config.clone();
    }
    value["Config"] = config;
    Ok(Json(value))
}

/// A configuration with the fields that Docker always writes, set or not: scripts and older clients read them.
fn config_value(config: &models::ImageConfig) -> Result<Value> {
    let mut value = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
        "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null,
        "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
    });
    if let (Value::Object(all), Value::Object(set)) = (&mut value, to_value(config)?) {
        all.extend(set);
    }
    Ok(value)
}

fn history(engine: &Engine, name: &str) -> Result<Json<Vec<models::ImageHistoryResponseItem>>> {
    let image = engine.images.get(name)?;
    let mut sizes = image.layer_sizes();
    let mut items = Vec::new();
    let mut current = Some(image.clone());
    for step in image.document.history.iter().rev() {
        let size = if step.empty_layer { 0 } else { sizes.pop().unwrap_or_default() };
        items.push(models::ImageHistoryResponseItem {
            id: current.as_ref().map_or_else(|| "<missing>".into(), |image| image.id.clone()),
            created: step.created.map_or(0, |time| time.timestamp()),
            created_by: step.created_by.clone().unwrap_or_default(),
            tags: current.as_ref().map(|image| image.tags.clone()).unwrap_or_default(),
            size: size as i64,
            comment: step.comment.clone().unwrap_or_default(),
        });
        // The steps of a build here are images of their own.
        current = current.and_then(|image| engine.images.get(&image.parent?).ok());
    }
    Ok(Json(items))
}

#[derive(Deserialize)]
struct TagQuery {
    repo: Option<String>,
    tag: Option<String>,
}

async fn post_one(
    State(engine): State<Arc<Engine>>,
    Path(rest): Path<String>,
    Query(query): Query<TagQuery>,
) -> Result<Response> {
    let name = match rest.rsplit_once('/') {
        Some((name, "tag")) => name.to_owned(),
        Some((name, "push")) => return image_transfer::push(engine, named(name, query.tag.as_deref())?).await,
        _ => return Err(Error::NotImplemented(format!("POST /images/{rest}"))),
    };
    let new = named(query.repo.as_deref().unwrap_or_default(), query.tag.as_deref())?;
    blocking(move || {
        let image = engine.images.get(&name)?;
        engine.images.tag(&image.id, &new.tagged())?;
        tell(&engine, "tag", &image.id, &new.tagged());
        Ok(())
    })
    .await?;
    Ok(StatusCode::CREATED.into_response())
}

/// The name that `repo` and `tag` make. The tag wins over one in the repository's name.
pub fn named(repository: &str, tag: Option<&str>) -> Result<Name> {
    let name = Name::parse(repository)?;
    match tag.filter(|tag| !tag.is_empty()) {
        None => Ok(name),
        Some(digest) if digest.contains(':') => Name::parse(&format!("{}@{digest}", name.repository())),
        Some(tag) => Name::parse(&format!("{}:{tag}", name.repository())),
    }
}

/// The images that containers use.
fn in_use(engine: &Engine) -> Vec<InUse> {
    let user = |container: Arc<Container>| {
        let record = container.record();
        InUse { image: record.image_id.clone(), container: record.id.clone(), running: record.state.is_running() }
    };
    engine.containers.list().into_iter().map(user).collect()
}

/// Tells `docker events` what happened to image `id` under `name`.
pub fn tell(engine: &Engine, action: &str, id: &str, name: &str) {
    engine.events.emit(Kind::IMAGE, action, id, HashMap::from([("name".to_owned(), name.to_owned())]));
}

/// The same of a removal.
fn tell_removed(engine: &Engine, id: &str, items: &[models::ImageDeleteResponseItem]) {
    for item in items {
        if let Some(name) = &item.untagged {
            tell(engine, "untag", id, name);
        }
        if let Some(id) = &item.deleted {
            tell(engine, "delete", id, id);
        }
    }
}

#[derive(Deserialize)]
struct RemoveQuery {
    force: Option<String>,
    noprune: Option<String>,
}

async fn remove(
    State(engine): State<Arc<Engine>>,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<Json<Vec<models::ImageDeleteResponseItem>>> {
    let (force, keep_parents) = (is_true(&query.force), is_true(&query.noprune));
    let users = in_use(&engine);
    blocking(move || {
        let id = engine.images.get(&name)?.id;
        let items = engine.images.remove(&name, force, keep_parents, &users)?;
        tell_removed(&engine, &id, &items);
        Ok(Json(items))
    })
    .await
}

#[derive(Deserialize)]
struct PruneQuery {
    filters: Option<String>,
}

/// Removes images without a name (with `dangling=false` every one) that no container uses.
async fn prune(
    State(engine): State<Arc<Engine>>,
    Query(query): Query<PruneQuery>,
) -> Result<Json<models::ImagePruneResponse>> {
    let filters = Filters::parse(query.filters.as_deref(), &["dangling", "label", "label!", "until"])?;
    let every = filters.flag("dangling")? == Some(false);
    let users = in_use(&engine);
    blocking(move || {
        let before = engine.images.layers_size();
        let select = Select { dangling: None, ..Select::new(&engine, &filters)? };
        let mut deleted = Vec::new();
        let images = engine.images.list()?;
        let parents: HashSet<String> = images.iter().filter_map(|image| image.parent.clone()).collect();
        let mut candidates = Vec::new();
        for image in &images {
            let free = users.iter().all(|user| user.image != image.id);
            if free && (every || image.tags.is_empty()) && !parents.contains(&image.id) && select.fits(image)?.is_some()
            {
                candidates.push((image.id.clone(), image.tags.clone()));
            }
        }
        // The list holds the layers: it has to go first.
        drop(images);
        for (id, tags) in candidates {
            let names = if tags.is_empty() { vec![id.clone()] } else { tags };
            for name in names {
                match engine.images.remove(&name, false, false, &users) {
                    Ok(items) => {
                        tell_removed(&engine, &id, &items);
                        deleted.extend(items);
                    }
                    // Somebody began to use it, or was quicker.
                    Err(Error::Conflict(_) | Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let reclaimed = before.saturating_sub(engine.images.layers_size());
        Ok(Json(models::ImagePruneResponse { images_deleted: Some(deleted), space_reclaimed: Some(reclaimed as i64) }))
    })
    .await
}
