//! The rest of a request's body that its handler did not read.
//!
//! A handler that refuses a request early drops the body, and hyper then closes the connection under a client that is
//! still writing: the client sees a broken pipe and never the refusal. What is left is therefore read, up to the bound
//! that Go's net/http has and dockerd with it.

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use futures_util::StreamExt;
use hyper::body::{Frame, SizeHint};
use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::runtime::Handle;

/// The most that is read of what nobody wanted, in bytes.
const BOUND: usize = 256 << 10;

/// `body`, whose rest is read by a task when its reader lets go of it before its end.
pub fn read_to_its_end(body: Body) -> Body {
    if body.is_end_stream() { body } else { Body::new(Rest(body)) }
}

struct Rest(Body);

impl HttpBody for Rest {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let body = mem::take(&mut self.0);
        if !body.is_end_stream()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(discard(body.into_data_stream()));
        }
    }
}

async fn discard(mut rest: BodyDataStream) {
    let mut left = BOUND;
    while let Some(Ok(piece)) = rest.next().await
        && left > piece.len()
    {
        left -= piece.len();
    }
}

#[cfg(test)]
mod tests {
    use super::read_to_its_end;
    use axum::{Router, body::Body, extract::Request, http::StatusCode, middleware::map_request};
    use std::time::Duration;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{UnixListener, UnixStream},
    };

    /// A client that writes its body slowly still gets the refusal, and the connection serves its next request.
    #[tokio::test]
    async fn a_refusal_reaches_a_client_that_is_still_writing() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let refuse = |_: Request<Body>| async { StatusCode::NOT_FOUND };
        let app = Router::new()
            .fallback(refuse)
            .layer(map_request(|request: Request| async { request.map(read_to_its_end) }));
        tokio::spawn(async move { axum::serve(listener, app).await });

        let mut client = UnixStream::connect(&socket).await.unwrap();
        for _ in 0..2 {
            client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\n").await.unwrap();
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                client.write_all(b"x").await.unwrap();
            }
            let mut answer = [0; 1024];
            let length = client.read(&mut answer).await.unwrap();
            assert!(answer[..length].starts_with(b"HTTP/1.1 404"));
        }
    }
}
