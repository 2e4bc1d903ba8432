//! Bodies as streams: between the asynchronous server and the blocking cores, in pieces, never whole in memory.

use crate::error::{Context, Error};
use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, TryStreamExt};
use serde::Serialize;
use std::{
    io::{self, Read, Write},
    task::Poll,
};
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

/// A stream that a blocking writer fills. When its reader is gone, writing fails with BrokenPipe.
pub fn pipe() -> (Writer, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
    let (sender, mut receiver) = mpsc::channel(PIECES);
    let mut ended = false;
    let stream = futures_util::stream::poll_fn(move |context| {
        if ended {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(receiver.poll_recv(context));
        ended = !matches!(piece, Some(Piece::Bytes(_)));
        Poll::Ready(match piece {
            Some(Piece::Bytes(bytes)) => Some(Ok(bytes)),
            Some(Piece::End) => None,
            Some(Piece::Failed(error)) => Some(Err(io::Error::other(error))),
            // The writer is gone without a word: what was sent is not the whole.
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    });
    (Writer { sender, piece: Vec::with_capacity(PIECE) }, stream)
}

enum Piece {
    Bytes(Bytes),
    End,
    Failed(Error),
}

/// The blocking side of [`pipe`]. Dropped without [`Writer::finish`], it makes the stream fail, so that the reader can
/// tell that it is not whole.
pub struct Writer {
    sender: mpsc::Sender<Piece>,
    piece: Vec<u8>,
}

impl Writer {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Piece::Bytes(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// The stream's end; with an error, an HTTP connection is cut.
    pub fn finish(mut self, result: Result<(), Error>) {
        let last = match result.and_then(|()| self.send().doing("send the last bytes")) {
            Ok(()) => Piece::End,
            Err(error) => Piece::Failed(error),
        };
        // The reader may be gone: nobody is left to be told.
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

    /// Waits until the client is gone.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Sends a failure, as clients expect it in a stream that began with 200.
    pub fn fail(&self, error: &Error) {
        let message = error.to_string();
        self.send(&serde_json::json!({ "errorDetail": { "message": message }, "error": message }));
    }
}
