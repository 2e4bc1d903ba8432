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
use std::time::Duration;
use tokio::{
    io::{AsyncWriteExt, copy, sink, split},
    net::UnixStream,
    sync::oneshot,
};

/// How long a client may take to close its side after the end of the output.
const LAST_INPUT: Duration = Duration::from_secs(2);

/// What a stream of output is: raw where there is a terminal, else in frames.
pub fn content_type(tty: bool) -> &'static str {
    if tty { "application/vnd.docker.raw-stream" } else { "application/vnd.docker.multiplexed-stream" }
}

/// Answers 101 and connects the client to the shim's stream once there is one. After its end the connection stays open
/// until `ended`.
pub fn hijack(
    mut request: Request,
    tty: bool,
    stream: oneshot::Receiver<UnixStream>,
    ended: impl Future<Output = ()> + Send + 'static,
) -> Result<Response> {
    check(&request)?;
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
            _ = copy(&mut from_shim, &mut to_client) => {}
            () = input => {}
        }
        ended.await;
        let _ = to_client.shutdown().await;
        // What the client typed after the end is read, too: a socket closed over unread bytes tells of a reset instead of
        // an end (unix(7)). The client closes once it has seen the end.
        let _ = tokio::time::timeout(LAST_INPUT, copy(&mut from_client, &mut sink())).await;
    });
    Ok(switching(tty))
}

/// Answers 101, writes a text to the client's stderr (to its terminal, where it has one) and ends.
pub fn tell(mut request: Request, tty: bool, text: &str) -> Result<Response> {
    check(&request)?;
    let upgrade = hyper::upgrade::on(&mut request);
    let line = format!("{text}\r\n");
    let mut bytes = Vec::new();
    if !tty {
        bytes.extend([2, 0, 0, 0]);
        bytes.extend((line.len() as u32).to_be_bytes());
    }
    bytes.extend(line.into_bytes());
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let mut client = TokioIo::new(upgraded);
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
        }
    });
    Ok(switching(tty))
}

fn check(request: &Request) -> Result<()> {
    if request.headers().contains_key(header::UPGRADE) {
        return Ok(());
    }
    Err(Error::Invalid("this request needs the headers Connection: Upgrade and Upgrade: tcp".into()))
}

fn switching(tty: bool) -> Response {
    let headers =
        [(header::CONNECTION, "Upgrade"), (header::UPGRADE, "tcp"), (header::CONTENT_TYPE, content_type(tty))];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}
