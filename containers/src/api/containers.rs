//! Routes: containers.

use super::{blocking, filters::Filters, hijack};
use crate::{
    engine::{
        Engine,
        containers::{Create, FILTERS, ListOptions, LogOptions, logs},
    },
    error::{Error, Result},
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use bollard_stubs::models;
use chrono::{DateTime, Utc};
use futures_util::stream;
use serde::Deserialize;
use std::{convert::Infallible, sync::Arc};

pub fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/containers/json", get(list))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}", delete(remove))
        .route("/containers/{id}/json", get(inspect))
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/wait", post(wait))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/resize", post(resize))
        .route("/containers/{id}/attach", post(attach))
        .route("/containers/{id}/logs", get(read_logs))
        .route("/containers/{id}/top", get(top))
        .route("/containers/{id}/update", post(update))
}

type Shared = State<Arc<Engine>>;

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default, deserialize_with = "super::flag")]
    all: bool,
    limit: Option<i64>,
    #[serde(default, deserialize_with = "super::flag")]
    size: bool,
    filters: Option<String>,
}

async fn list(State(engine): Shared, Query(query): Query<ListQuery>) -> Result<Json<Vec<models::ContainerSummary>>> {
    let options = ListOptions {
        all: query.all,
        size: query.size,
        limit: query.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0),
        filters: Filters::parse(query.filters.as_deref(), &FILTERS)?,
    };
    blocking(move || engine.list_containers(&options)).await.map(Json)
}

#[derive(Deserialize)]
struct CreateQuery {
    name: Option<String>,
    platform: Option<String>,
}

async fn create(State(engine): Shared, Query(query): Query<CreateQuery>, body: Bytes) -> Result<Response> {
    if let Some(platform) = query.platform.filter(|platform| !platform.is_empty()) {
        let own = format!("linux/{}", crate::image::architecture());
        if platform != own && platform != "linux" {
            return Err(Error::NotImplemented(format!("--platform {platform}: this engine runs {own}")));
        }
    }
    check_words(&body)?;
    let body: models::ContainerCreateBody = super::json(&body)?;
    let (config, host_config, networking) = split(body);
    let request = Create {
        name: query.name,
        config,
        host_config: host_config.unwrap_or_default(),
        networking: networking.unwrap_or_default(),
    };
    let host = &request.host_config;
    let publishes = host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty());
    let warnings = match host.network_mode.as_deref() {
        Some("host") if publishes => vec!["Published ports are discarded when using host network mode".into()],
        _ => Vec::new(),
    };
    let container = blocking(move || engine.create_container(request)).await?;
    let answer = models::ContainerCreateResponse { id: container.id.clone(), warnings };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Before the body is read as a whole, where a word that does not exist would be an error of JSON.
fn check_words(body: &[u8]) -> Result<()> {
    let body: serde_json::Value = super::json(body)?;
    for mount in body["HostConfig"]["Mounts"].as_array().into_iter().flatten() {
        match mount["Type"].as_str() {
            None | Some("bind" | "volume" | "tmpfs" | "image" | "npipe" | "cluster") => {}
            Some(other) => {
                return Err(Error::Invalid(format!("invalid mount config for type \"{other}\": mount type unknown")));
            }
        }
    }
    match body["HostConfig"]["RestartPolicy"]["Name"].as_str() {
        None | Some("" | "no" | "always" | "on-failure" | "unless-stopped") => Ok(()),
        Some(other) => Err(Error::Invalid(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

fn split(
    body: models::ContainerCreateBody,
) -> (models::ContainerConfig, Option<models::HostConfig>, Option<models::NetworkingConfig>) {
    let config = models::ContainerConfig {
        hostname: body.hostname,
        domainname: body.domainname,
        user: body.user,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        exposed_ports: body.exposed_ports,
        tty: body.tty,
        open_stdin: body.open_stdin,
        stdin_once: body.stdin_once,
        env: body.env,
        cmd: body.cmd,
        healthcheck: body.healthcheck,
        args_escaped: body.args_escaped,
        image: body.image,
        volumes: body.volumes,
        working_dir: body.working_dir,
        entrypoint: body.entrypoint,
        network_disabled: body.network_disabled,
        on_build: body.on_build,
        labels: body.labels,
        stop_signal: body.stop_signal,
        stop_timeout: body.stop_timeout,
        shell: body.shell,
    };
    (config, body.host_config, body.networking_config)
}

#[derive(Deserialize)]
struct InspectQuery {
    #[serde(default, deserialize_with = "super::flag")]
    size: bool,
}

async fn inspect(
    State(engine): Shared,
    Path(id): Path<String>,
    Query(query): Query<InspectQuery>,
) -> Result<Json<serde_json::Value>> {
    let container = engine.containers.get(&id)?;
    let answer = blocking(move || Ok(engine.inspect_container(&container, query.size))).await?;
    let mut answer = serde_json::to_value(answer).map_err(|error| Error::Failed(format!("encode: {error}")))?;
    // Fields of the default bridge's endpoint stand beside the networks, too; the API's types have them no more, and
    // scripts read them.
    let endpoint = answer["NetworkSettings"]["Networks"]["bridge"].clone();
    for name in ["EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "MacAddress"] {
        let empty = if name == "IPPrefixLen" { serde_json::json!(0) } else { serde_json::json!("") };
        answer["NetworkSettings"][name] = endpoint.get(name).cloned().filter(|it| !it.is_null()).unwrap_or(empty);
    }
    Ok(Json(answer))
}

async fn start(State(engine): Shared, Path(id): Path<String>) -> Result<StatusCode> {
    let container = engine.containers.get(&id)?;
    // On a task of its own: a client that goes away must not leave a half-started container.
    let task = tokio::spawn(async move { engine.start_container(&container).await });
    finished(task).await
}

async fn finished(task: tokio::task::JoinHandle<Result<()>>) -> Result<StatusCode> {
    task.await.map_err(|error| Error::Failed(format!("the engine's task failed: {error}")))??;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct StopQuery {
    signal: Option<String>,
    t: Option<i64>,
}

async fn stop(State(engine): Shared, Path(id): Path<String>, Query(query): Query<StopQuery>) -> Result<StatusCode> {
    let container = engine.containers.get(&id)?;
    finished(tokio::spawn(async move { engine.stop_container(&container, query.signal.as_deref(), query.t).await }))
        .await
}

async fn restart(State(engine): Shared, Path(id): Path<String>, Query(query): Query<StopQuery>) -> Result<StatusCode> {
    let container = engine.containers.get(&id)?;
    let task =
        tokio::spawn(async move { engine.restart_container(&container, query.signal.as_deref(), query.t).await });
    finished(task).await
}

async fn kill(State(engine): Shared, Path(id): Path<String>, Query(query): Query<StopQuery>) -> Result<StatusCode> {
    let container = engine.containers.get(&id)?;
    engine.kill_container(&container, query.signal.as_deref().unwrap_or("SIGKILL")).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct RemoveQuery {
    #[serde(default, deserialize_with = "super::flag")]
    force: bool,
    #[serde(default, deserialize_with = "super::flag")]
    v: bool,
    #[serde(default, deserialize_with = "super::flag")]
    link: bool,
}

async fn remove(State(engine): Shared, Path(id): Path<String>, Query(query): Query<RemoveQuery>) -> Result<StatusCode> {
    if query.link {
        return Err(Error::NotImplemented("rm --link".into()));
    }
    let container = engine.containers.get(&id)?;
    finished(tokio::spawn(async move { engine.remove_container(&container, query.force, query.v).await })).await
}

#[derive(Deserialize)]
struct WaitQuery {
    condition: Option<String>,
}

/// The headers go out at once: docker's client starts the container only after it has them.
async fn wait(State(engine): Shared, Path(id): Path<String>, Query(query): Query<WaitQuery>) -> Result<Response> {
    let container = engine.containers.get(&id)?;
    let mut changes = container.changes();
    let before = *changes.borrow_and_update();
    let condition = query.condition.unwrap_or_default();
    if !["", "not-running", "next-exit", "removed"].contains(&condition.as_str()) {
        return Err(Error::Invalid(format!("invalid condition: {condition:?}")));
    }
    let answer = async move {
        use crate::engine::containers::Status;
        let already = condition != "next-exit"
            && condition != "removed"
            && !matches!(container.record().state.status, Status::Running | Status::Restarting);
        let removed = condition == "removed";
        if !already {
            let _ = changes.wait_for(|now| now.removed || (!removed && now.exits > before.exits)).await;
        }
        let state = container.record().state.clone();
        // Who waits for the removal hears of a failed start from the start.
        let error = Some(state.error).filter(|error| !error.is_empty() && !removed);
        let body = models::ContainerWaitResponse {
            status_code: i64::from(state.exit_code),
            error: error.map(|message| models::ContainerWaitExitError { message: Some(message) }),
        };
        Ok::<_, Infallible>(serde_json::to_vec(&body).unwrap_or_default())
    };
    let headers = [(header::CONTENT_TYPE, "application/json")];
    Ok((headers, Body::from_stream(stream::once(answer))).into_response())
}

#[derive(Deserialize)]
struct RenameQuery {
    name: String,
}

async fn rename(State(engine): Shared, Path(id): Path<String>, Query(query): Query<RenameQuery>) -> Result<StatusCode> {
    let container = engine.containers.get(&id)?;
    let old = container.record().name.clone();
    let inner = Arc::clone(&engine);
    let renamed = Arc::clone(&container);
    blocking(move || inner.containers.rename(&renamed, &query.name)).await?;
    let name = container.record().name.clone();
    engine.networks.rename(&container.id, &old, &name).await?;
    engine.tell(&container, "rename", &[("oldName", format!("/{old}"))]);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub struct ResizeQuery {
    pub h: u16,
    pub w: u16,
}

async fn resize(State(engine): Shared, Path(id): Path<String>, Query(query): Query<ResizeQuery>) -> Result<StatusCode> {
    engine.containers.get(&id)?.resize(query.h, query.w).await?;
    Ok(StatusCode::OK)
}

#[derive(Deserialize)]
struct AttachQuery {
    #[serde(default, deserialize_with = "super::flag")]
    stdin: bool,
    #[serde(default, deserialize_with = "super::flag")]
    stdout: bool,
    #[serde(default, deserialize_with = "super::flag")]
    stderr: bool,
    #[serde(default, deserialize_with = "super::flag")]
    logs: bool,
}

async fn attach(
    State(engine): Shared,
    Path(id): Path<String>,
    Query(query): Query<AttachQuery>,
    request: Request,
) -> Result<Response> {
    let container = engine.containers.get(&id)?;
    if query.logs {
        return Err(Error::NotImplemented("attach with logs=1 (read the logs first)".into()));
    }
    let tty = container.record().config.tty.unwrap_or(false);
    let stream = container.attach(query.stdin, query.stdout, query.stderr).await?;
    engine.tell(&container, "attach", &[]);
    hijack::hijack(request, tty, stream, std::future::ready(()))
}

#[derive(Deserialize)]
struct LogsQuery {
    #[serde(default, deserialize_with = "super::flag")]
    follow: bool,
    #[serde(default, deserialize_with = "super::flag")]
    stdout: bool,
    #[serde(default, deserialize_with = "super::flag")]
    stderr: bool,
    #[serde(default, deserialize_with = "super::flag")]
    timestamps: bool,
    tail: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

async fn read_logs(State(engine): Shared, Path(id): Path<String>, Query(query): Query<LogsQuery>) -> Result<Response> {
    let container = engine.containers.get(&id)?;
    if !query.stdout && !query.stderr {
        return Err(Error::Invalid("Bad parameters: you must choose at least one stream".into()));
    }
    let tail = match query.tail.as_deref() {
        None | Some("" | "all") => None,
        Some(text) => match text.parse::<i64>() {
            Ok(number) => usize::try_from(number).ok(),
            Err(_) => return Err(Error::Invalid(format!("tail: {text}: not a number"))),
        },
    };
    let options = LogOptions {
        follow: query.follow,
        stdout: query.stdout,
        stderr: query.stderr,
        timestamps: query.timestamps,
        tail,
        since: super::timestamp(query.since.as_deref())?,
        until: super::timestamp(query.until.as_deref())?,
    };
    let tty = container.record().config.tty.unwrap_or(false);
    let mut receiver = logs(container, options).await?;
    let body = stream::poll_fn(move |context| receiver.poll_recv(context).map(|piece| piece.map(Ok::<_, Infallible>)));
    Ok(([(header::CONTENT_TYPE, hijack::content_type(tty))], Body::from_stream(body)).into_response())
}

#[derive(Deserialize)]
struct TopQuery {
    ps_args: Option<String>,
}

/// The host's `ps`, limited to the container's processes, as with dockerd.
async fn top(
    State(engine): Shared,
    Path(id): Path<String>,
    Query(query): Query<TopQuery>,
) -> Result<Json<models::ContainerTopResponse>> {
    let container = engine.containers.get(&id)?;
    container.running()?;
    let pid = container.record().state.pid;
    let arguments = query.ps_args.filter(|arguments| !arguments.is_empty()).unwrap_or_else(|| "-ef".into());
    blocking(move || super::top::processes(pid, &arguments)).await.map(Json)
}

#[derive(Deserialize)]
struct UpdateBody {
    #[serde(rename = "RestartPolicy")]
    restart_policy: Option<models::RestartPolicy>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

/// Only the restart policy can be changed yet.
async fn update(State(engine): Shared, Path(id): Path<String>, body: Bytes) -> Result<Json<serde_json::Value>> {
    let container = engine.containers.get(&id)?;
    let body: UpdateBody = super::json(&body)?;
    let empty = |value: &serde_json::Value| {
        value.is_null() || *value == 0 || *value == "" || *value == false || value.as_array().is_some_and(Vec::is_empty)
    };
    if let Some((name, _)) = body.rest.iter().find(|(_, value)| !empty(value)) {
        return Err(Error::NotImplemented(format!("update of {name}")));
    }
    if let Some(policy) = body.restart_policy.filter(|policy| policy.name.is_some()) {
        blocking(move || container.update(|record| record.host_config.restart_policy = Some(policy))).await?;
    }
    Ok(Json(serde_json::json!({ "Warnings": [] })))
}

#[derive(Deserialize)]
struct PruneQuery {
    filters: Option<String>,
}

async fn prune(State(engine): Shared, Query(query): Query<PruneQuery>) -> Result<Json<models::ContainerPruneResponse>> {
    use crate::engine::containers::Status;
    let filters = Filters::parse(query.filters.as_deref(), &["label", "until"])?;
    let until: Option<DateTime<Utc>> = super::timestamp(filters.values("until").first().map(String::as_str))?;
    let mut deleted = Vec::new();
    for container in engine.containers.list() {
        let (status, labels, created) = {
            let record = container.record();
            (record.state.status, record.labels(), record.created)
        };
        let idle = matches!(status, Status::Created | Status::Exited);
        if idle && filters.labels(&labels) && until.is_none_or(|until| created < until) {
            engine.remove_container(&container, false, false).await?;
            deleted.push(container.id.clone());
        }
    }
    Ok(Json(models::ContainerPruneResponse { containers_deleted: Some(deleted), space_reclaimed: Some(0) }))
}
