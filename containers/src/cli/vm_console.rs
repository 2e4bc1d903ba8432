//! A machine's console at this terminal, or at these pipes.

use super::session::{self, End as SessionEnd};
use crate::{
    error::{Context, Error, Result},
    vm::{
        machine::{End, Folder},
        qemu,
    },
};
use bollard::container::LogOutput;
use futures_util::StreamExt;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    convert::Infallible,
    io::{self, IsTerminal},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, Lines, ReadHalf, SimplexStream},
    net::{UnixStream, unix::OwnedWriteHalf},
    process::ChildStdout,
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};
use tokio_util::io::ReaderStream;

/// Whether the console is a person's.
pub fn is_terminal(detach: bool) -> bool {
    !detach && io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Takes the console of a machine that runs.
pub async fn attach(folder: Folder) -> Result<u8> {
    if folder.keeper()?.is_none() {
        return Err(Error::Conflict(format!("the machine {0} does not run: inception vm start {0}", folder.name)));
    }
    Console::open(folder).await?.follow(None).await
}

/// A machine's console, and its end.
pub struct Console {
    folder: Folder,
    end: End,
    stream: UnixStream,
}

impl Console {
    pub async fn open(folder: Folder) -> Result<Console> {
        let path = folder.short(qemu::CONSOLE);
        let stream = UnixStream::connect(&path).await.doing(format!("connect to the console of {}", folder.name))?;
        Ok(Console { end: folder.end()?, folder, stream })
    }

    /// Carries input and output until the machine ends, or the user leaves; the service's exit code. Where `news` are
    /// given, a pipe's input waits for the service: what comes to a serial line before it is open is lost.
    pub async fn follow(self, news: Option<Lines<BufReader<ChildStdout>>>) -> Result<u8> {
        // A console that was made for a pipe shows nothing of what is typed, and has a pipe's line ends.
        let is_terminal = self.folder.machine()?.terminal && is_terminal(false);
        let Console { folder, end, stream } = self;
        let (output, line) = stream.into_split();
        let output = ReaderStream::new(output).map(|piece| match piece {
            Ok(message) => Ok(LogOutput::Console { message }),
            Err(err) => Err(bollard::errors::Error::IOError { err }),
        });
        let (typed, typed_end) = tokio::io::simplex(4096);
        let input = Input { line, typed, last: b'\n' };
        let carried = tokio::select! {
            carried = session::carry(Box::pin(output), Box::pin(typed_end), true, is_terminal) => carried?,
            never = input.pass_on(&folder, news.filter(|_| !is_terminal), is_terminal) => match never? {},
        };
        if carried == SessionEnd::Detached {
            return Ok(0);
        }
        let name = folder.name.clone();
        let exit = spawn_blocking(move || end.wait()).await;
        let exit = exit.map_err(|error| Error::Failed(format!("wait for the machine: {error}")))??;
        match exit {
            Some(exit) => match exit.code {
                Some(code) => Ok(code),
                None => Err(Error::Failed(format!("the machine {name}: {}", exit.reason))),
            },
            None => Err(Error::Failed(format!("the machine {name} is gone: its keeper was killed"))),
        }
    }
}

/// What is typed, on its way to the console.
struct Input {
    line: OwnedWriteHalf,
    typed: ReadHalf<SimplexStream>,
    /// The last byte that was sent.
    last: u8,
}

/// What a terminal takes for Ctrl-C and Ctrl-D.
const INTERRUPT: u8 = 0x03;
const END_OF_INPUT: u8 = 0x04;

impl Input {
    /// Passes on input and signals; never ends.
    async fn pass_on(
        mut self,
        folder: &Folder,
        mut news: Option<Lines<BufReader<ChildStdout>>>,
        is_terminal: bool,
    ) -> Result<Infallible> {
        let watch = |kind| signal(kind).doing("watch signals");
        let mut interrupt = watch(SignalKind::interrupt())?;
        let mut terminate = watch(SignalKind::terminate())?;
        let mut hang_up = watch(SignalKind::hangup())?;
        let (mut is_open, mut interrupts) = (true, 0);
        let mut piece = vec![0; 4096];
        loop {
            tokio::select! {
                read = self.typed.read(&mut piece), if is_open && news.is_none() => {
                    let count = read.doing("pass on the input")?;
                    is_open = count > 0;
                    self.send(&piece[..count], is_terminal).await;
                }
                line = next(&mut news) => {
                    // The keeper's end, too: there is no use in waiting on.
                    if line.is_none_or(|line| line == "started") {
                        news = None;
                    }
                }
                _ = interrupt.recv() => {
                    interrupts += 1;
                    match interrupts {
                        1 => self.send(&[INTERRUPT], true).await,
                        _ => press(folder)?,
                    }
                }
                _ = terminate.recv() => press(folder)?,
                _ = hang_up.recv() => press(folder)?,
            }
        }
    }

    /// Sends bytes, and the end of a pipe's as a terminal knows it. The machine may have ended.
    async fn send(&mut self, bytes: &[u8], is_terminal: bool) {
        let end: &[u8] = match (bytes.is_empty(), self.last) {
            (false, _) => &[],
            // Behind an unfinished line, the first one only ends the line.
            (true, b'\n') => &[END_OF_INPUT],
            (true, _) => &[END_OF_INPUT, END_OF_INPUT],
        };
        self.last = bytes.last().copied().unwrap_or(self.last);
        if !(is_terminal && bytes.is_empty()) {
            let _ = self.line.write_all(&[bytes, end].concat()).await;
        }
    }
}

/// The next line of news; pending where there are none to wait for.
async fn next(news: &mut Option<Lines<BufReader<ChildStdout>>>) -> Option<String> {
    match news {
        Some(news) => news.next_line().await.unwrap_or(None),
        None => std::future::pending().await,
    }
}

/// Has the machine's power button pressed; the wait for its end is the caller's.
fn press(folder: &Folder) -> Result<()> {
    match folder.keeper()? {
        Some(pid) => kill(Pid::from_raw(pid), Signal::SIGTERM).doing("tell the machine's keeper to stop it"),
        None => Ok(()),
    }
}
