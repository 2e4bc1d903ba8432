//! The crate's only unsafe code: system calls that nix and std do not wrap.

use std::{io, os::unix::process::CommandExt, process::Command};

/// Has `body` run in the child between fork and exec. It must only make system calls: no allocation, no lock.
pub fn before_exec(command: &mut Command, body: fn() -> io::Result<()>) {
    // SAFETY: a plain function pointer captures nothing, and callers keep to async-signal-safe calls (signal-safety(7)).
    unsafe { command.pre_exec(body) };
}
