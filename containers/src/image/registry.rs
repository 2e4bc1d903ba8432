//! Registries: pull and push by the OCI distribution API, over plain http, and therefore only on this machine
//! (127.0.0.0/8, ::1, localhost: those that Docker, too, talks to without TLS).
//!
//! Source: OCI distribution-spec (spec.md).

use super::{
    Image, digest,
    index::{DOCUMENT_MAX, parse},
    name::Name,
    oci::{self, Descriptor, Index, Manifest},
    store::Store,
};
use crate::{
    api::stream,
    error::{Context, Error, Result},
};
use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use std::{io, net::IpAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};

/// How long a registry may take to accept a connection, and to begin an answer.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(60);
/// The documents that are understood.
const ACCEPTED: [&str; 4] = [oci::INDEX, oci::MANIFEST, oci::DOCKER_INDEX, oci::DOCKER_MANIFEST];

type Body = BoxBody<Bytes, io::Error>;

/// One repository of a registry.
struct Repository {
    authority: String,
    path: String,
}

fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed()
}

impl Repository {
    fn of(name: &Name) -> Result<Repository> {
        let authority = name.domain();
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            _ => authority,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let local = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        if !local {
            return Err(Error::Engine {
                status: 404,
                message: format!(
                    "{name}: this engine reaches registries on this machine only (localhost:PORT): build the image, or bring it with docker load or docker import"
                ),
            });
        }
        let authority = match host.len() == authority.trim_start_matches('[').trim_end_matches(']').len() {
            true => format!("{authority}:80"),
            false => authority.to_owned(),
        };
        Ok(Repository { authority, path: name.path().to_owned() })
    }

    /// Sends a request; answers that `expected` does not have are errors with the registry's own words.
    async fn send(
        &self,
        method: Method,
        target: &str,
        headers: &[(header::HeaderName, String)],
        body: Body,
        expected: &[StatusCode],
    ) -> Result<Response<Incoming>> {
        let doing = format!("{method} http://{}{target}", self.authority);
        let connected = timeout(CONNECT, TcpStream::connect(&self.authority)).await;
        let socket = connected.map_err(io::Error::from).and_then(|socket| socket).doing(&doing)?;
        let failed = |error: &dyn std::fmt::Display| Error::Failed(format!("{doing}: {error}"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(|error| failed(&error))?;
        tokio::spawn(async move {
            // What breaks here breaks the request, too, which tells it.
            let _ = connection.await;
        });
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, &self.authority);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(body).map_err(|error| failed(&error))?;
        // The body of a push may take its time; the answer to a request without one may not.
        let limit = if headers.iter().any(|(name, _)| name == header::CONTENT_LENGTH) { ANSWER * 60 } else { ANSWER };
        let answer = timeout(limit, sender.send_request(request)).await.map_err(|_| failed(&"no answer"))?;
        let answer = answer.map_err(|error| failed(&error))?;
        if expected.contains(&answer.status()) {
            return Ok(answer);
        }
        let status = answer.status();
        let said =
            Limited::new(answer.into_body(), 4096).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let said: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
        let message = said["errors"][0]["message"].as_str().unwrap_or("no reason given").to_owned();
        Err(Error::Engine {
            status: if status == StatusCode::NOT_FOUND { 404 } else { 500 },
            message: format!("{doing}: {status}: {message}"),
        })
    }

    /// A document, its digest verified where `reference` is one; with its media type.
    async fn document(&self, kind: &str, reference: &str) -> Result<(Vec<u8>, String)> {
        let target = format!("/v2/{}/{kind}/{reference}", self.path);
        let accept = [(header::ACCEPT, ACCEPTED.join(", "))];
        let answer = self.send(Method::GET, &target, &accept, empty(), &[StatusCode::OK]).await?;
        let media_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let body = Limited::new(answer.into_body(), DOCUMENT_MAX as usize).collect().await;
        let body = body.map_err(|error| Error::Failed(format!("GET {target}: {error}")))?.to_bytes().to_vec();
        match reference.starts_with("sha256:") && digest::of(&body) != reference {
            true => Err(Error::invalid(format!("{target} is damaged: its digest is {}", digest::of(&body)))),
            false => Ok((body, media_type)),
        }
    }

    /// The manifest for this machine that a tag or a digest leads to.
    async fn manifest(&self, reference: &str) -> Result<(Manifest, String)> {
        let (text, media_type) = self.document("manifests", reference).await?;
        let digest = digest::of(&text);
        if ![oci::INDEX, oci::DOCKER_INDEX].contains(&media_type.as_str()) {
            return Ok((parse(&text, reference)?, digest));
        }
        let index: Index = parse(&text, reference)?;
        let fits = |inner: &&Descriptor| {
            inner.platform.as_ref().is_none_or(|it| it.os == "linux" && it.architecture == super::architecture())
        };
        let inner = index.manifests.iter().find(fits).ok_or_else(|| {
            Error::Failed(format!("{}:{reference} has no image for linux/{}", self.path, super::architecture()))
        })?;
        Ok((parse(&self.document("manifests", &inner.digest).await?.0, &inner.digest)?, digest))
    }

    async fn has_blob(&self, digest: &str) -> Result<bool> {
        let target = format!("/v2/{}/blobs/{digest}", self.path);
        let answers = [StatusCode::OK, StatusCode::NOT_FOUND];
        Ok(self.send(Method::HEAD, &target, &[], empty(), &answers).await?.status() == StatusCode::OK)
    }

    /// Uploads a blob in one request.
    async fn put_blob(&self, digest: &str, size: u64, body: Body) -> Result<()> {
        let target = format!("/v2/{}/blobs/uploads/", self.path);
        let begun = self.send(Method::POST, &target, &[], empty(), &[StatusCode::ACCEPTED]).await?;
        let place = begun.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // The place may be a whole address; it is this registry's, whatever name it calls itself.
        let place = match place.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
            None => place,
        };
        let joint = if place.contains('?') { '&' } else { '?' };
        let headers =
            [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_LENGTH, size.to_string())];
        let target = format!("{place}{joint}digest={digest}");
        self.send(Method::PUT, &target, &headers, body, &[StatusCode::CREATED]).await.map(drop)
    }
}

/// The digits by which clients show a layer.
fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

/// Pulls an image and names it; `progress` is told a status, and of what (a layer, a tag).
pub async fn pull(store: &Arc<Store>, name: &Name, progress: impl Fn(&str, Option<&str>)) -> Result<Image> {
    let repository = Repository::of(name)?;
    let reference = name.digest().or(name.tag()).unwrap_or("latest");
    let (manifest, manifest_digest) = repository.manifest(reference).await?;
    progress(&format!("Pulling from {}", name.path()), Some(reference));
    let config = repository.document("blobs", &manifest.config.digest).await?.0;
    let known = store.get(&manifest.config.digest).ok();
    let mut layers = Vec::new();
    for layer in manifest.layers.iter().filter(|_| known.is_none()) {
        let id = short(&layer.digest);
        progress("Pulling fs layer", Some(&id));
        let target = format!("/v2/{}/blobs/{}", repository.path, layer.digest);
        let blob = repository.send(Method::GET, &target, &[], empty(), &[StatusCode::OK]).await?;
        let blob = stream::reader(axum::body::Body::new(blob.into_body()));
        let (store, wanted) = (store.clone(), layer.clone());
        let task = spawn_blocking(move || store.receive_layer(&wanted.digest, blob));
        layers.push(task.await.map_err(|error| Error::Failed(format!("pull: {error}")))??);
        progress("Pull complete", Some(&id));
    }
    progress(&format!("Digest: {manifest_digest}"), None);
    let status = match known.is_some() {
        true => "Image is up to date for",
        false => "Downloaded newer image for",
    };
    let (pulled, tagged) = (store.clone(), name.clone());
    let task = spawn_blocking(move || {
        let image = match known {
            Some(image) => image,
            None => pulled.adopt_received(&config, layers)?,
        };
        if tagged.digest().is_none() {
            pulled.tag(&image.id, &tagged.tagged())?;
        }
        pulled.get(&image.id)
    });
    let image = task.await.map_err(|error| Error::Failed(format!("pull: {error}")))??;
    progress(&format!("Status: {status} {name}"), None);
    Ok(image)
}

/// Pushes the image that has the name.
pub async fn push(store: &Arc<Store>, name: &Name, progress: impl Fn(&str, Option<&str>)) -> Result<()> {
    let repository = Repository::of(name)?;
    let (image, config, manifest) = store.documents(&name.tagged())?;
    progress(&format!("The push refers to repository [{}/{}]", name.domain(), name.path()), None);
    for layer in image.layers.iter() {
        let id = short(&layer.meta.diff_id);
        if repository.has_blob(&layer.meta.diff_id).await? {
            progress("Layer already exists", Some(&id));
            continue;
        }
        progress("Pushing", Some(&id));
        let (mut writer, content) = stream::pipe();
        let sent = layer.clone();
        spawn_blocking(move || {
            let result = sent.write(&mut writer);
            writer.finish(result);
        });
        let body = StreamBody::new(content.map_ok(Frame::data));
        repository.put_blob(&layer.meta.diff_id, layer.meta.tar_bytes, BodyExt::boxed(body)).await?;
        progress("Pushed", Some(&id));
    }
    let whole = |content: Vec<u8>| -> Body { Full::new(content.into()).map_err(|never| match never {}).boxed() };
    if !repository.has_blob(&image.id).await? {
        repository.put_blob(&image.id, config.len() as u64, whole(config)).await?;
    }
    let tag = name.tag().unwrap_or("latest");
    let headers =
        [(header::CONTENT_TYPE, oci::MANIFEST.to_owned()), (header::CONTENT_LENGTH, manifest.len().to_string())];
    let size = manifest.len();
    let target = format!("/v2/{}/manifests/{tag}", repository.path);
    repository.send(Method::PUT, &target, &headers, whole(manifest), &[StatusCode::CREATED]).await?;
    progress(&format!("{tag}: digest: {} size: {size}", image.manifest_digest), None);
    Ok(())
}
