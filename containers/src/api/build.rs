//! Routes: build.

use super::{blocking, stream};
use crate::{
    build::{self, Cache, Prepared, Progress, Request, is_own_platform},
    engine::Engine,
    error::{Context, Error, Result},
    image::{
        compression::decompress,
        unpack::{Options, unpack},
    },
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::header,
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::{StreamExt, stream::poll_fn};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    fs::{self, DirBuilder},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
};
use tokio::sync::mpsc;

/// Pieces of output that wait for the client before the build does.
const PIECES: usize = 64;

pub fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/build", post(build_image)).route("/build/prune", post(prune))
}

/// The context comes as a tar archive, plain or compressed; what happens is streamed. What is wrong with the request or
/// its Dockerfile is told by the status, what goes wrong later in the stream.
async fn build_image(
    State(engine): State<Arc<Engine>>,
    Query(parameters): Query<Vec<(String, String)>>,
    body: Body,
) -> Result<Response> {
    let request = request(parameters)?;
    let root = engine.config.data_root.join(build::CONTEXTS);
    let archive = stream::reader(body);
    let (context, prepared) = blocking(move || prepare(&root, archive, request)).await?;
    let (sender, mut progress) = mpsc::channel::<Progress>(PIECES);
    let body = Body::from_stream(poll_fn(move |context| progress.poll_recv(context)).map(|progress| line(&progress)));
    tokio::spawn(async move {
        if let Err(failure) = build::build(&engine, prepared, sender.clone()).await {
            // Not above debug: the last lines of a command may say what is no business of the log's readers.
            log::debug!("build: {failure}");
            // When the client is gone, nobody is left to be told.
            let _ = sender.send(Progress::from(&failure)).await;
        }
        drop(sender);
        let path = context.path().to_owned();
        if let Err(error) = blocking(move || context.close().at("remove", &path)).await {
            log::warn!("{error}");
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn line(progress: &Progress) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(progress)?;
    line.extend_from_slice(b"\r\n");
    Ok(line)
}

/// Unpacks the context and reads its Dockerfile.
fn prepare(root: &Path, archive: impl Read + Send, mut request: Request) -> Result<(tempfile::TempDir, Prepared)> {
    DirBuilder::new().recursive(true).mode(0o700).create(root).at("create", root)?;
    let folder = tempfile::TempDir::new_in(root).at("create a folder in", root)?;
    let path = fs::canonicalize(folder.path()).at("look at", folder.path())?;
    unpack(decompress(archive)?, &path, Options { owner: Some((0, 0)), ..Options::default() }, None)?;
    request.context = path;
    Ok((folder, build::prepare(request)?))
}

/// `POST /build/prune`: earlier builds are forgotten. Their images stay until an image prune.
async fn prune(State(engine): State<Arc<Engine>>) -> Result<Json<Value>> {
    let folder = engine.config.data_root.join(build::FOLDER);
    blocking(move || Cache::open(&folder)?.clear()).await?;
    Ok(Json(json!({ "CachesDeleted": [], "SpaceReclaimed": 0 })))
}

/// A build as the parameters describe it. What would change the result and is not there is refused by name.
fn request(parameters: Vec<(String, String)>) -> Result<Request> {
    let mut request = Request { dockerfile: "Dockerfile".into(), network: "default".into(), ..Request::default() };
    for (name, value) in parameters {
        let not_there = |what: &str| Err(Error::NotImplemented(format!("build: {what}")));
        match name.as_str() {
            _ if value.is_empty() => {}
            "t" => request.tags.push(value),
            "dockerfile" => request.dockerfile = value,
            "buildargs" => request.build_args = document(&name, &value)?,
            "labels" => request.labels = document(&name, &value)?,
            "target" => request.target = Some(value),
            "nocache" => request.no_cache = is_true(&value),
            "networkmode" => request.network = value,
            "extrahosts" => request.extra_hosts.extend(hosts(&value)?),
            "q" => request.quiet = is_true(&value),
            // There are no intermediate containers to keep; other images as a source of cached layers are a hint.
            "rm" | "forcerm" | "cachefrom" | "buildid" => {}
            "pull" => request.pull = is_true(&value),
            "squash" if is_true(&value) => return not_there("--squash"),
            "remote" => return not_there("a remote context (remote=): send it as an archive"),
            "platform" if !is_own_platform(&value) => {
                return not_there(&format!(
                    "--platform {value}: this machine is linux/{}",
                    crate::image::architecture()
                ));
            }
            "version" if value != "1" => {
                return not_there("BuildKit (version=2): set DOCKER_BUILDKIT=0 for the classic builder");
            }
            "squash" | "platform" | "version" => {}
            _ if ["0", "false", "null", "[]", "{}", "default"].contains(&value.as_str()) => {}
            _ => return not_there(&format!("the parameter {name}={value}")),
        }
    }
    Ok(request)
}

fn is_true(value: &str) -> bool {
    !["", "0", "no", "false", "none"].contains(&value.trim().to_ascii_lowercase().as_str())
}

/// A parameter that is JSON; null is nothing.
fn document<T: DeserializeOwned + Default>(name: &str, value: &str) -> Result<T> {
    let parsed: Option<T> = serde_json::from_str(value)
        .map_err(|error| Error::invalid(format!("build: the parameter {name} is not valid: {error}")))?;
    Ok(parsed.unwrap_or_default())
}

/// `name:address`, or several as a JSON list.
fn hosts(value: &str) -> Result<Vec<String>> {
    let hosts = match value.starts_with('[') || value == "null" {
        true => document("extrahosts", value)?,
        false => vec![value.to_owned()],
    };
    for host in &hosts {
        crate::engine::containers::files::extra_host(host)?;
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &[(&str, &str)]) -> Result<Request> {
        request(query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn what_the_docker_client_sends_is_understood() {
        let request = parsed(&[
            ("buildargs", "{\"A\":\"1\",\"B\":null}"),
            ("cachefrom", "[]"),
            ("cgroupparent", ""),
            ("cpuperiod", "0"),
            ("labels", "{\"l\":\"2\"}"),
            ("memory", "0"),
            ("networkmode", "default"),
            ("rm", "1"),
            ("t", "a:1"),
            ("t", "b"),
            ("ulimits", "null"),
            ("version", "1"),
            ("extrahosts", "h:198.18.0.1"),
        ])
        .unwrap();
        assert_eq!(request.tags, ["a:1", "b"]);
        assert_eq!(request.build_args["A"].as_deref(), Some("1"));
        assert_eq!(request.build_args["B"], None);
        assert_eq!(request.labels["l"], "2");
        assert_eq!(request.extra_hosts, ["h:198.18.0.1"]);
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (name, value) in [
            ("squash", "1"),
            ("platform", "linux/s390x"),
            ("version", "2"),
            ("remote", "https://example.invalid/x.git"),
            ("memory", "1048576"),
            ("shmsize", "1"),
            ("isolation", "hyperv"),
            ("outputs", "[{\"Type\":\"tar\"}]"),
        ] {
            let error = parsed(&[(name, value)]).unwrap_err();
            let known = error.to_string().to_ascii_lowercase().contains(name) || name == "version";
            assert!(matches!(error, Error::NotImplemented(_)) && known, "{name}: {error}");
        }
    }
}
