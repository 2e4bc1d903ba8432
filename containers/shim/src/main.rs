//! `inception-shim CONFIG`: runs one container or exec session. The library's text says what it is for.

mod error;
mod json_log;
mod output;
mod place;
mod runtime;
mod server;
mod sys;

use error::{Context, Result};
use inception_shim::Config;
use server::Server;
use std::{
    fs::{self, File},
    io,
    path::Path,
    process::ExitCode,
};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(config), None) = (arguments.next(), arguments.next()) else {
        eprintln!(
            "usage: inception-shim CONFIG\nThe engine starts it, one for each container; there is nothing to type."
        );
        return ExitCode::from(2);
    };
    match serve(Path::new(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inception-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a shim until its process has ended. `config_file` holds a [`Config`] as JSON.
fn serve(config_file: &Path) -> Result<()> {
    let prepared = read_config(config_file).and_then(|config| place::prepare(&config).map(|parts| (config, parts)));
    let (config, (listener, children)) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            println!("{error}");
            return Err(error);
        }
    };
    println!("ready");
    // Whoever started this shim hears no more of it here, and its end of the pipe may go.
    nix::unistd::dup2_stdout(File::open("/dev/null").doing("open /dev/null")?).doing("let go of stdout")?;
    Server::new(&config, listener, children).run()
}

fn read_config(path: &Path) -> Result<Config> {
    let text = fs::read(path).at("read", path)?;
    serde_json::from_slice(&text).map_err(io::Error::from).at("understand", path)
}
