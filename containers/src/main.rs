//! `inception`: builds images and runs containers. Three duties: the commands (`cli`), the daemon that
//! serves the Docker Engine API (`api`, `engine`) and drives a shim for each container (`shim`; the program is the
//! package inception-shim), and the network helper (`network::helper`). Virtual machines (`vm`) have a keeper each.

mod api;
mod beside;
mod build;
mod cli;
mod compose;
mod engine;
mod error;
mod image;
mod lab;
mod network;
mod program;
mod shim;
mod sys;
mod systemd;
mod vm;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(std::env::args_os().collect()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("inception: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
