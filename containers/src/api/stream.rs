//! Bodies as streams: between the asynchronous server and the blocking cores, in pieces, never whole in memory.

use crate::error::Error;
use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt};
use serde::Serialize;
use std::io::{self, Read, Write};
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// Pieces that may be under way before the writer waits for the client.
const PIECES: usize = 8;
/// Bytes in a piece.
const PIECE: usize = 256 << 10;

/// A request's body for a blocking reader (inside `spawn_blocking`).
pub fn reader(body: Body) -> impl Read + Send + 'static {
    let stream = body.into_data_stream().map_err(io::Error::other);
    SyncIoBridge::new(StreamReader::new(stream.boxed()))
}

/// A response's body that a blocking writer fills. When the client is gone, writing fails with BrokenPipe.
pub fn writer() -> (Writer, Body) {
    let (sender, mut receiver) = mpsc::channel(PIECES);
    let stream = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    (Writer { sender, piece: Vec::with_capacity(PIECE) }, Body::from_stream(stream))
}

/// The blocking side of [`writer`]. Dropped without [`Writer::finish`], it cuts the body off, so that the client can
/// tell that it is not whole.
pub struct Writer {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Writer {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// The body's end; with an error the connection is cut.
    pub fn finish(mut self, result: Result<(), Error>) {
        let last = match result {
            Ok(()) => Ok(std::mem::take(&mut self.piece).into()),
            Err(error) => Err(io::Error::other(error)),
        };
        // The client may be gone: nobody is left to be told.
        let _ = self.sender.blocking_send(last);
    }
}

impl Write for Writer {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = buffer.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&buffer[..count]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(count)
    }

    /// Small pieces are gathered on purpose: nothing is sent early.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A response of JSON documents, one a line, each sent at once: Docker's progress streams.
pub fn lines() -> (Lines, Response) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Bytes>();
    let stream = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    let body = Body::from_stream(stream.map(Ok::<_, io::Error>));
    (Lines { sender }, ([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The sending side of [`lines`].
#[derive(Clone)]
pub struct Lines {
    sender: mpsc::UnboundedSender<Bytes>,
}

impl Lines {
    /// Sends a document. False: the client is gone.
    pub fn send(&self, document: &impl Serialize) -> bool {
        let Ok(mut line) = serde_json::to_vec(document) else { return false };
        line.extend_from_slice(b"\r\n");
        self.sender.send(line.into()).is_ok()
    }

    /// Sends a failure, as clients expect it in a stream that began with 200.
    pub fn fail(&self, error: &Error) {
        let message = error.to_string();
        self.send(&serde_json::json!({ "errorDetail": { "message": message }, "error": message }));
    }
}
