//! Routes: exec sessions.

use super::{containers::ResizeQuery, hijack};
use crate::{
    engine::Engine,
    error::{Error, Result},
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bollard_stubs::models;
use std::sync::Arc;
use tokio::sync::oneshot;

pub fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

type Shared = State<Arc<Engine>>;

async fn create(State(engine): Shared, Path(id): Path<String>, body: Bytes) -> Result<Response> {
    let container = engine.containers.get(&id)?;
    let session = engine.create_exec(&container, super::json(&body)?)?;
    // Not bollard-stubs' IdResponse, which writes a small "id" and then does not read it.
    Ok((StatusCode::CREATED, Json(serde_json::json!({ "Id": session.id }))).into_response())
}

async fn start(State(engine): Shared, Path(id): Path<String>, request: Request) -> Result<Response> {
    let session = engine.execs.get(&id)?;
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 10)
        .await
        .map_err(|error| crate::error::Error::Invalid(format!("read the request: {error}")))?;
    let options: models::ExecStartConfig = super::json(&body)?;
    if options.detach.unwrap_or(false) {
        engine.start_exec(&session, false).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let tty = session.request.tty.unwrap_or(false);
    let request = Request::from_parts(parts, axum::body::Body::empty());
    let running = match engine.start_exec(&session, true).await {
        Ok(running) => running,
        // Clients read what went wrong from the stream, and the exit code (126, 127) from the session.
        Err(error @ Error::Runtime { .. }) | Err(error @ Error::Invalid(_)) => {
            return hijack::tell(request, tty, &error.to_string());
        }
        Err(error) => return Err(error),
    };
    let (sender, receiver) = oneshot::channel();
    if let Some(stream) = running.stream {
        let _ = sender.send(stream);
    }
    if let (Some([height, width]), Ok(shim)) =
        (options.console_size.as_deref().and_then(|size| size.first_chunk::<2>()), session.shim())
        && *height > 0
    {
        shim.resize(*height as u16, *width as u16).await?;
    }
    // The client asks for the exit code once its stream has ended: it must be known by then.
    let ended = running.ended;
    hijack::hijack(request, tty, receiver, async move { drop(ended.await) })
}

async fn resize(State(engine): Shared, Path(id): Path<String>, Query(query): Query<ResizeQuery>) -> Result<StatusCode> {
    engine.execs.get(&id)?.shim()?.resize(query.h, query.w).await?;
    Ok(StatusCode::OK)
}

async fn inspect(State(engine): Shared, Path(id): Path<String>) -> Result<Json<models::ExecInspectResponse>> {
    let session = engine.execs.get(&id)?;
    let request = &session.request;
    let state = session.state();
    let command = request.cmd.clone().unwrap_or_default();
    Ok(Json(models::ExecInspectResponse {
        can_remove: Some(state.exit.is_some()),
        id: Some(session.id.clone()),
        running: Some(state.shim.is_some()),
        exit_code: state.exit.as_ref().map(|exit| i64::from(exit.code)),
        process_config: Some(models::ProcessConfig {
            privileged: request.privileged,
            user: request.user.clone(),
            tty: request.tty,
            entrypoint: command.first().cloned(),
            arguments: Some(command.iter().skip(1).cloned().collect()),
        }),
        open_stdin: request.attach_stdin,
        open_stdout: request.attach_stdout,
        open_stderr: request.attach_stderr,
        container_id: Some(session.container.id.clone()),
        pid: state.pid.map(i64::from),
        ..Default::default()
    }))
}
