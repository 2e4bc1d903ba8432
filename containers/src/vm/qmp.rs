//! The few words of qemu's machine protocol (QMP: docs/interop/qmp-spec) that a keeper says: JSON lines on a socket.

use crate::error::{Context, Error, Result};
use serde_json::{Value, json};
use std::path::Path;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A connection to a machine's qemu.
pub struct Qmp {
    lines: Lines<BufReader<OwnedReadHalf>>,
    out: OwnedWriteHalf,
}

impl Qmp {
    /// Connects, and leaves the mode in which qemu only negotiates.
    pub async fn connect(path: &Path) -> Result<Qmp> {
        let (input, out) = UnixStream::connect(path).await.at("connect to", path)?.into_split();
        let mut qmp = Qmp { lines: BufReader::new(input).lines(), out };
        qmp.message().await?;
        qmp.execute("qmp_capabilities").await?;
        Ok(qmp)
    }

    /// Runs a command that has no arguments; events meanwhile are passed over.
    pub async fn execute(&mut self, command: &str) -> Result<()> {
        let line = format!("{}\n", json!({ "execute": command }));
        self.out.write_all(line.as_bytes()).await.doing(format!("tell qemu {command}"))?;
        loop {
            let message = self.message().await?;
            if message.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = message.get("error") {
                let text = error.get("desc").and_then(Value::as_str).unwrap_or_default();
                return Err(Error::Failed(format!("qemu refuses {command}: {text}")));
            }
        }
    }

    async fn message(&mut self) -> Result<Value> {
        let line = self.lines.next_line().await.doing("read from qemu")?;
        let line = line.ok_or_else(|| Error::Failed("qemu closed its control socket".into()))?;
        serde_json::from_str(&line).map_err(|error| Error::Failed(format!("qemu's answer {line:?}: {error}")))
    }
}
