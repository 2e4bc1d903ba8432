//! Programs that are run to their end for what they do or print.

use crate::error::{Context, Error, Result};
use std::process::{Command, Stdio};

/// Runs it without input; what it printed. Where it fails, the error calls it `name` and has its last words.
pub fn run(command: &mut Command, name: &str) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().doing(format_args!("run {name}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Program {
        program: name.into(),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).trim().into(),
    })
}
