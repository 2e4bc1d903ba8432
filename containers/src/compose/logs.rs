//! The logs of several containers, as they come, each line with its service's name in a colour of its own.

use super::client::{Progress, bytes_of, failed, steady};
use crate::error::Result;
use bollard::{Docker, container::LogOutput, query_parameters::LogsOptionsBuilder};
use futures_util::{Stream, StreamExt, stream::FuturesUnordered};
use std::{
    io::{IsTerminal, Write},
    time::{SystemTime, UNIX_EPOCH},
};

const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];

/// What of the logs is shown.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub follow: bool,
    /// Lines from the end, or "all".
    pub tail: Option<String>,
    /// Seconds since 1970.
    pub since: i32,
    pub timestamps: bool,
    pub no_prefix: bool,
    pub no_color: bool,
}

/// Seconds since 1970.
pub fn now() -> i32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|time| time.as_secs() as i32).unwrap_or_default()
}

/// Shows the logs of `targets` (a name and an id each), of each from when it comes; with `follow` until all of them have
/// ended for good. Names are given the room of `width` columns.
pub async fn show(
    docker: &Docker,
    targets: impl Stream<Item = (String, String)>,
    width: usize,
    options: &Options,
    progress: &Progress,
) -> Result<()> {
    let coloured = !options.no_color && std::env::var_os("NO_COLOR").is_none() && std::io::stdout().is_terminal();
    let mut targets = std::pin::pin!(targets.enumerate().fuse());
    let mut shown = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((at, (name, id))) = targets.next() => {
                let prefix = match (options.no_prefix, coloured) {
                    (true, _) => String::new(),
                    (false, true) => format!("\x1b[{}m{name:width$} |\x1b[0m ", COLOURS[at % COLOURS.len()]),
                    (false, false) => format!("{name:width$} | "),
                };
                shown.push(one(docker, id, prefix, options, progress));
            }
            Some(ended) = shown.next() => ended?,
            else => return Ok(()),
        }
    }
}

async fn one(docker: &Docker, id: String, prefix: String, options: &Options, progress: &Progress) -> Result<()> {
    let id = id.as_str();
    let mut since = options.since;
    let mut tail = options.tail.clone().unwrap_or_else(|| "all".into());
    loop {
        let query = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .follow(options.follow)
            .since(since)
            .timestamps(options.timestamps)
            .tail(&tail)
            .build();
        let mut output = std::pin::pin!(docker.logs(id, Some(query)));
        // A stream's own line that is not whole yet: the engine may cut anywhere.
        let mut parts = [Vec::new(), Vec::new()];
        while let Some(chunk) = output.next().await {
            let chunk = chunk.map_err(failed("read a log"))?;
            let part = &mut parts[usize::from(matches!(chunk, LogOutput::StdErr { .. }))];
            part.extend_from_slice(&bytes_of(&chunk));
            while let Some(end) = part.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = part.drain(..=end).collect();
                progress.aside(|| print(&prefix, &line))?;
            }
        }
        for mut part in parts.into_iter().filter(|part| !part.is_empty()) {
            part.push(b'\n');
            progress.aside(|| print(&prefix, &part))?;
        }
        if !options.follow {
            return Ok(());
        }
        // The log ends with the container; where it comes back, so does the log.
        since = now();
        tail = "all".into();
        let Ok(details) = steady(async || docker.inspect_container(id, None).await).await else { return Ok(()) };
        let state = details.state.unwrap_or_default();
        if !state.running.unwrap_or_default() && !state.restarting.unwrap_or_default() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

fn print(prefix: &str, line: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(prefix.as_bytes()).and_then(|()| out.write_all(line)).and_then(|()| out.flush()) {
        // Nobody reads any more: `logs -f | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => crate::error::Context::doing(result, "write to stdout"),
    }
}
