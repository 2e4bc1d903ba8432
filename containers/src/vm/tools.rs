//! The programs that machines are made and run with, and the Debian packages that bring them.

use crate::{
    error::{Error, Result},
    program,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Runs machines.
pub const QEMU: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");
/// Makes an ext4 file system with files in it, without mounting it.
pub const MKE2FS: (&str, &str) = ("mke2fs", "e2fsprogs");

/// The program, or an error that names the package to install.
pub fn find((program, package): (&str, &str)) -> Result<PathBuf> {
    crate::cli::find_program(program).ok_or_else(|| missing(program, package))
}

/// Says which package brings what is missing.
pub fn missing(what: &str, package: &str) -> Error {
    Error::Failed(format!("{what} is not here: install it (apt-get install --no-install-recommends {package})"))
}

/// Machines are made for this processor alone.
pub fn check_architecture() -> Result<()> {
    match crate::image::architecture() {
        "amd64" => Ok(()),
        other => Err(Error::NotImplemented(format!("virtual machines on {other}: there are those of amd64"))),
    }
}

/// Runs a program to its end; what it printed.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    program::run(command, &name)
}
