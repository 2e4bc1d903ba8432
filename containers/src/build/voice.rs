//! Stages run side by side, and are told of one after another: what a stage says waits until those before it have ended,
//! up to a limit, at which the stage waits itself.

use super::Progress;
use std::sync::Arc;
use tokio::sync::{
    Semaphore,
    mpsc::{self, Sender, UnboundedReceiver, UnboundedSender},
};
use tokio_util::sync::CancellationToken;

/// Bytes that a stage may say before it is heard.
const ROOM: usize = 1 << 20;

/// A stage's side.
#[derive(Clone)]
pub struct Voice {
    sender: UnboundedSender<Progress>,
    room: Arc<Semaphore>,
}

/// The other side.
pub struct Listener {
    receiver: UnboundedReceiver<Progress>,
    room: Arc<Semaphore>,
}

/// A voice and who hears it.
pub fn voice() -> (Voice, Listener) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(ROOM));
    (Voice { sender, room: Arc::clone(&room) }, Listener { receiver, room })
}

/// What a message takes of the room; a pull's few lines take none.
fn size(progress: &Progress) -> u32 {
    match progress {
        Progress::Stream { stream } => stream.len().min(ROOM) as u32,
        _ => 0,
    }
}

impl Voice {
    /// Says something as soon as there is room for it. When nobody listens any more, nothing happens.
    pub async fn send(&self, progress: Progress) {
        if let Ok(room) = self.room.acquire_many(size(&progress)).await {
            room.forget();
            let _ = self.sender.send(progress);
        }
    }

    /// A short word, at once.
    pub fn send_now(&self, progress: Progress) {
        if size(&progress) == 0 {
            let _ = self.sender.send(progress);
        }
    }
}

impl Drop for Listener {
    /// Whoever waits for room need not wait for ever.
    fn drop(&mut self) {
        self.room.close();
    }
}

/// Hands on what is said, voice by voice, until all have ended. When the client is gone, `given_up` is told.
pub async fn conduct(listeners: Vec<Listener>, progress: &Sender<Progress>, given_up: &CancellationToken) {
    let all = async {
        for mut listener in listeners {
            while let Some(next) = listener.receiver.recv().await {
                let size = size(&next);
                if progress.send(next).await.is_err() {
                    return;
                }
                listener.room.add_permits(size as usize);
            }
        }
    };
    tokio::select! {
        () = all => {}
        () = progress.closed() => {}
    }
    if progress.is_closed() {
        given_up.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(stream: &str) -> Progress {
        Progress::Stream { stream: stream.into() }
    }

    #[tokio::test]
    async fn voices_are_heard_one_after_another() {
        let (sender, mut heard) = mpsc::channel(8);
        let ((first, one), (second, two)) = (voice(), voice());
        let given_up = CancellationToken::new();
        let speak = async {
            second.send(text("c")).await;
            first.send(text("a")).await;
            second.send(text("d")).await;
            first.send(text("b")).await;
            drop((first, second));
        };
        tokio::join!(speak, conduct(vec![one, two], &sender, &given_up));
        drop(sender);
        let mut all = String::new();
        while let Some(Progress::Stream { stream }) = heard.recv().await {
            all.push_str(&stream);
        }
        assert_eq!((all.as_str(), given_up.is_cancelled()), ("abcd", false));
    }

    #[tokio::test]
    async fn a_voice_that_is_not_heard_waits_and_is_let_go_when_the_client_is_gone() {
        let (sender, heard) = mpsc::channel(8);
        let ((first, one), (second, two)) = (voice(), voice());
        let given_up = CancellationToken::new();
        let piece = "x".repeat(ROOM / 2);
        second.send(text(&piece)).await;
        second.send(text(&piece)).await;
        let blocked = tokio::time::timeout(std::time::Duration::from_millis(50), second.send(text(&piece))).await;
        assert!(blocked.is_err());
        drop(heard);
        tokio::join!(second.send(text(&piece)), conduct(vec![one, two], &sender, &given_up));
        assert!(given_up.is_cancelled());
        drop(first);
    }
}
