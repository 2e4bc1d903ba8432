//! The Docker Engine API over a unix socket: one file a resource, each with its `routes`.
//!
//! Source: Docker Engine API v1.41 to v1.47 (docs.docker.com/engine/api); clients negotiate, the minimum is 1.24.

mod build;
mod containers;
mod events;
mod exec;
pub mod filters;
mod hijack;
mod image_transfer;
mod images;
mod networks;
pub mod stream;
mod system;
mod top;
mod unread;
mod volumes;

use crate::{
    engine::Engine,
    error::{Error, Result},
};
use axum::{
    Json, Router,
    extract::{FromRequestParts, Request},
    http::{StatusCode, Uri, request::Parts},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use std::{convert::Infallible, sync::Arc};
use tower::{Service, ServiceExt, make::Shared, service_fn};

/// The newest version of the API that is served.
pub const API_VERSION: &str = "1.47";
/// The oldest one.
pub const MIN_API_VERSION: &str = "1.24";

/// Every route, without its version prefix, which [`strip_version`] takes off.
pub fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .merge(build::routes())
        .merge(containers::routes())
        .merge(events::routes())
        .merge(exec::routes())
        .merge(images::routes())
        .merge(networks::routes())
        .merge(system::routes())
        .merge(volumes::routes())
        .fallback(not_there_yet)
        .with_state(engine)
}

/// The whole API as a service for [`axum::serve`].
pub fn service(
    engine: Arc<Engine>,
) -> Shared<impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone> {
    let router = router(Arc::clone(&engine));
    Shared::new(service_fn(move |request: Request| {
        engine.activity.stir();
        let router = router.clone();
        async move {
            match strip_version(request.map(unread::read_to_its_end)) {
                Ok(request) => router.oneshot(request).await,
                Err(refusal) => Ok(refusal),
            }
        }
    }))
}

/// Takes `/v1.NN` off a request's path; refuses versions that are not served.
#[allow(clippy::result_large_err)]
pub fn strip_version(mut request: Request) -> std::result::Result<Request, Response> {
    let mut version = ApiVersion::default();
    let path = request.uri().path();
    if let Some(rest) = path.strip_prefix("/v1.") {
        let (minor, tail) = rest.split_once('/').unwrap_or((rest, ""));
        if let Ok(minor) = minor.parse::<u32>() {
            let newest: u32 = API_VERSION[2..].parse().unwrap_or_default();
            let oldest: u32 = MIN_API_VERSION[2..].parse().unwrap_or_default();
            if minor > newest {
                return Err(Error::invalid(format!(
                    "client version 1.{minor} is too new. Maximum supported API version is {API_VERSION}"
                ))
                .into_response());
            }
            if minor < oldest {
                return Err(Error::invalid(format!(
                    "client version 1.{minor} is too old. Minimum supported API version is {MIN_API_VERSION}, please upgrade your client to a newer version"
                ))
                .into_response());
            }
            version = ApiVersion(minor);
            let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
            let uri: Uri = format!("/{tail}{query}").parse().map_err(|_| Error::invalid("bad path").into_response())?;
            *request.uri_mut() = uri;
        }
    }
    request.extensions_mut().insert(version);
    Ok(request)
}

/// The API's minor version that a request asks for (1.41: 41); the newest where its path names none.
#[derive(Debug, Clone, Copy)]
pub struct ApiVersion(pub u32);

impl Default for ApiVersion {
    fn default() -> Self {
        ApiVersion(API_VERSION[2..].parse().unwrap_or_default())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ApiVersion {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> std::result::Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_default())
    }
}

/// Runs blocking work of the engine on a thread where it may block.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Failed(format!("the engine's task failed: {error}")))?
}

/// A yes-or-no parameter of a query: everything but "", 0, no, false and none is yes, as with dockerd.
pub fn flag<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<bool, D::Error> {
    let text = String::deserialize(from)?.trim().to_ascii_lowercase();
    Ok(!["", "0", "no", "false", "none"].contains(&text.as_str()))
}

/// A request's body, whatever content type the client gave it. No body is an empty object.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Error::Invalid(format!("invalid JSON: {error}")))
}

/// A time in a query: seconds after 1970 with an optional fraction, or RFC 3339. Empty and 0: none.
pub fn timestamp(text: Option<&str>) -> Result<Option<DateTime<Utc>>> {
    let Some(text) = text.filter(|text| !["", "0"].contains(text)) else { return Ok(None) };
    if let Ok(time) = text.parse::<DateTime<Utc>>() {
        return Ok(Some(time));
    }
    let bad = || Error::Invalid(format!("invalid time: {text:?}"));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds = format!("{fraction:0<9}").get(..9).ok_or_else(bad)?.parse().map_err(|_| bad())?;
    let seconds = seconds.parse().map_err(|_| bad())?;
    DateTime::from_timestamp(seconds, nanoseconds).map(Some).ok_or_else(bad)
}

/// What the API of Docker has and this engine has not yet: 501 with the route's name.
async fn not_there_yet(request: Request) -> Response {
    Error::NotImplemented(format!("{} {}", request.method(), request.uri().path())).into_response()
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status == StatusCode::NOT_MODIFIED {
            return status.into_response();
        }
        (status, Json(serde_json::json!({ "message": self.to_string() }))).into_response()
    }
}
