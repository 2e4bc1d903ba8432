//! Connections that stop being HTTP: attach and exec. The client asks for an upgrade, and from then on both sides write
//! raw bytes.

use crate::error::{Error, Result};
use axum::{
    body::Body,
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt, copy, split},
    net::UnixStream,
    sync::oneshot,
};

/// What a stream of output is: raw where there is a terminal, else in frames.
pub fn content_type(tty: bool) -> &'static str {
    if tty { "application/vnd.docker.raw-stream" } else { "application/vnd.docker.multiplexed-stream" }
}

/// Answers 101 and connects the client to the shim's stream once there is one. The client's connection ends after
/// `ended`: it takes that end as the sign that the exit code can be asked for.
pub fn hijack(
    mut request: Request,
    tty: bool,
    stream: oneshot::Receiver<UnixStream>,
    ended: impl Future + Send + 'static,
) -> Result<Response> {
    if !request.headers().contains_key(header::UPGRADE) {
        return Err(Error::Invalid("this request needs the headers Connection: Upgrade and Upgrade: tcp".into()));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return log::debug!("attach: the client did not go on: {error}"),
        };
        // A start that failed drops the sender: the client's connection ends.
        let Ok(stream) = stream.await else { return };
        let (mut from_client, mut to_client) = split(upgraded);
        let (mut from_shim, mut to_shim) = stream.into_split();
        let input = async {
            let _ = copy(&mut from_client, &mut to_shim).await;
            // The client's end of input; its output goes on.
            let _ = to_shim.shutdown().await;
            std::future::pending::<()>().await
        };
        tokio::select! {
            _ = copy(&mut from_shim, &mut to_client) => drop(ended.await),
            () = input => {}
        }
        let _ = to_client.shutdown().await;
    });
    let headers =
        [(header::CONNECTION, "Upgrade"), (header::UPGRADE, "tcp"), (header::CONTENT_TYPE, content_type(tty))];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response())
}
