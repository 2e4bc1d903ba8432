//! Attached clients: what they are still to be sent, and what they sent.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
};

/// Bytes that may wait for a client before the process's output is no longer read: an attached client that stops
/// reading stops the process, as a pipe would, so that `docker run IMAGE cat big | less` loses nothing.
pub const CLIENT_BUFFER: usize = 256 * 1024;
/// Bytes that may wait for the process's stdin before clients are no longer read.
pub const STDIN_BUFFER: usize = 64 * 1024;

/// Bytes on their way into a descriptor that takes them when it likes.
#[derive(Default)]
pub struct Queue(VecDeque<u8>);

impl Queue {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Writes as much as `to` takes now; false when it is gone.
    pub fn drain_into(&mut self, to: &mut impl Write) -> bool {
        while !self.0.is_empty() {
            match to.write(self.0.as_slices().0) {
                Ok(0) => return false,
                Ok(count) => drop(self.0.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        // A burst must not be paid for until the end.
        self.0.shrink_to(4096);
        true
    }
}

/// A client that has not sent its request yet, or is attached.
pub struct Client {
    pub stream: UnixStream,
    pub request: Vec<u8>,
    pub attached: Option<Attached>,
    pub queue: Queue,
    /// It may still send.
    pub reads: bool,
}

/// What an attached client asked for.
#[derive(Clone, Copy)]
pub struct Attached {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl Client {
    pub fn new(stream: UnixStream) -> Client {
        Client { stream, request: Vec::new(), attached: None, queue: Queue::default(), reads: true }
    }

    /// Queues output for an attached client: framed, or raw where the process has a terminal.
    pub fn output(&mut self, stream: u8, bytes: &[u8], raw: bool) {
        let wanted = self.attached.is_some_and(|attached| if stream == 2 { attached.stderr } else { attached.stdout });
        if !wanted {
            return;
        }
        if !raw {
            let mut header = [stream, 0, 0, 0, 0, 0, 0, 0];
            header[4..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
            self.queue.push(&header);
        }
        self.queue.push(bytes);
    }

    /// What the client sent: Some(0) at its end, None when there is nothing now.
    pub fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match self.stream.read(buffer) {
            Ok(count) => Some(count),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => None,
            Err(_) => Some(0),
        }
    }
}
