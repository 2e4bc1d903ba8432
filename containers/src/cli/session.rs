//! A person, or a pipe, at a program in a container: its input and output, the terminal's modes and size, signals.

use crate::{
    compose::client::failed,
    error::{Context, Error, Result},
};
use bollard::{container::LogOutput, errors::Error as ApiError};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use signal_hook::iterator::Signals;
use std::{
    io::{IsTerminal, Read, stdin},
    pin::Pin,
    time::Duration,
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// The program's output, as the engine sends it.
pub type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, ApiError>> + Send>>;
/// The program's input.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The program's output ended.
    Output,
    /// Ctrl-P Ctrl-Q was typed: the program goes on alone.
    Detached,
}

/// Refuses `-it` where there is no terminal to give.
pub fn check(interactive: bool, tty: bool) -> Result<()> {
    match interactive && tty && !stdin().is_terminal() {
        true => Err(Error::invalid("-t needs a terminal on stdin, and it is none: leave out -t")),
        false => Ok(()),
    }
}

/// Carries input and output until the output ends, or the user leaves. With `tty` the terminal is raw meanwhile.
pub async fn carry(output: Output, input: Input, interactive: bool, tty: bool) -> Result<End> {
    let _raw = (interactive && tty).then(Raw::enter).transpose()?;
    let mut outputs = std::pin::pin!(show(output));
    let mut inputs = std::pin::pin!(feed(input, interactive, tty));
    let mut feeding = true;
    loop {
        tokio::select! {
            shown = &mut outputs => return shown.map(|()| End::Output),
            fed = &mut inputs, if feeding => {
                if fed == End::Detached {
                    return Ok(End::Detached);
                }
                feeding = false;
            }
        }
    }
}

/// Writes the output to stdout and stderr.
async fn show(mut output: Output) -> Result<()> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    while let Some(piece) = output.next().await {
        let piece = match piece {
            // Podman cuts the connection when a program ends that has input left. A lost engine is told by the wait.
            Err(ApiError::IOError { err }) if err.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            piece => piece.map_err(failed("read the program's output"))?,
        };
        match piece {
            LogOutput::StdErr { message } => write(&mut stderr, &message).await.doing("write to stderr")?,
            LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                write(&mut stdout, &message).await.doing("write to stdout")?;
            }
        }
    }
    Ok(())
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Sends stdin to the program, and its end as an end. What can't be sent any more is the program's affair: it may have
/// closed its input, or ended.
async fn feed(mut input: Input, interactive: bool, tty: bool) -> End {
    if interactive {
        let mut pieces = read_stdin();
        let mut keys = DetachKeys::default();
        while let Some(piece) = pieces.recv().await {
            let (piece, detached) = if tty { keys.filter(&piece) } else { (piece.to_vec(), false) };
            if input.write_all(&piece).await.is_err() || input.flush().await.is_err() {
                return End::Output;
            }
            if detached {
                return End::Detached;
            }
        }
        let _ = input.shutdown().await;
    }
    // Closed by dropping it, the connection would end for the output too.
    std::future::pending().await
}

/// Stdin by a thread of its own, which the end of the process ends: a read that is under way can't be called back.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 32 << 10];
        loop {
            match stdin().lock().read(&mut buffer) {
                Ok(length @ 1..) if sender.blocking_send(Bytes::copy_from_slice(&buffer[..length])).is_ok() => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    });
    receiver
}

/// Docker's keys to leave a program: Ctrl-P, then Ctrl-Q.
#[derive(Debug, Default)]
struct DetachKeys {
    held: bool,
}

impl DetachKeys {
    /// What of `typed` the program gets, and whether the user leaves. A Ctrl-P waits for the next key.
    fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        const CTRL_P: u8 = 0x10;
        const CTRL_Q: u8 = 0x11;
        let mut out = Vec::with_capacity(typed.len() + 1);
        for &key in typed {
            if self.held && key == CTRL_Q {
                return (out, true);
            }
            if self.held {
                out.push(CTRL_P);
            }
            self.held = key == CTRL_P;
            if !self.held {
                out.push(key);
            }
        }
        (out, false)
    }
}

/// The terminal in raw mode, until it is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Raw> {
        let old = tcgetattr(stdin()).doing("read the terminal's modes")?;
        let mut raw = old.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSADRAIN, &raw).doing("make the terminal raw")?;
        Ok(Raw(old))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone by now.
        let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

/// Tells the terminal's size (rows, columns) to `resize`, now and whenever it changes; never ends. The first time may
/// be too early for the engine, so that it is said again.
pub async fn sizes(resize: impl AsyncFn(u16, u16) -> Result<(), ApiError>) -> Result<std::convert::Infallible> {
    let mut changes = signal(SignalKind::window_change()).doing("watch the terminal's size")?;
    loop {
        if let Some((rows, columns)) = crate::sys::window_size(&std::io::stdout()) {
            for _ in 0..10 {
                if resize(rows, columns).await.is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        changes.recv().await;
    }
}

/// Every signal that is passed on: not those that stop a job, which are for this program, nor the window's.
const SIGNALS: [i32; 14] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGIO,
    libc::SIGPWR,
];

/// The signals that this program gets from now on.
pub fn signals() -> Result<mpsc::UnboundedReceiver<i32>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let numbers = SIGNALS.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
    let mut signals = Signals::new(numbers).doing("watch signals")?;
    // It ends with the program.
    std::thread::spawn(move || signals.forever().try_for_each(|number| sender.send(number)));
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::DetachKeys;

    #[test]
    fn ctrl_p_ctrl_q_leaves_and_nothing_else_is_lost() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c\x10\x10d"), (b"\x10c\x10\x10d".to_vec(), false));
        assert_eq!(keys.filter(b"e\x10\x11f"), (b"e".to_vec(), true));
        assert_eq!(DetachKeys::default().filter(b"\x11"), (b"\x11".to_vec(), false));
    }
}
