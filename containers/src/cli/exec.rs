//! `inception exec`.

use super::{
    Globals, block_on,
    connect::connect,
    project::{self, Without},
    session::{self, End},
};
use crate::{
    compose::client::{self, failed},
    error::{Error, Result},
};
use argh::{ArgsInfo, FromArgs};
use bollard::{
    exec::{ResizeExecOptions, StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use std::time::Duration;

/// Run a command in a container that runs already: that of a service of the project here, else the one with that name
/// or id.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "exec",
    usage = "[OPTIONS] SERVICE|CONTAINER COMMAND [ARGUMENTS...]",
    example = "inception exec -it mariadb sh\necho 'select 1' | inception exec -i mariadb mariadb\ninception exec -u www-data -e DEBUG=1 wordpress php -v",
    note = "-i and -t are never implied: a shell needs -it. Ctrl-P Ctrl-Q leaves it to itself. Signals are not passed on.",
    error_code(125, "the command never ran: the engine refused"),
    error_code(126, "it is there and can't be run"),
    error_code(127, "it is not there")
)]
pub struct Exec {
    /// do not wait for it
    #[argh(switch, short = 'd')]
    detach: bool,
    /// give it this program's stdin
    #[argh(switch, short = 'i')]
    interactive: bool,
    /// give it a terminal
    #[argh(switch, short = 't')]
    tty: bool,
    /// a variable, NAME=VALUE or NAME alone for the one here; repeatable
    #[argh(option, short = 'e')]
    env: Vec<String>,
    /// user, or user:group
    #[argh(option, short = 'u')]
    user: Option<String>,
    /// folder to run in
    #[argh(option, short = 'w')]
    workdir: Option<String>,
    /// every capability
    #[argh(switch)]
    privileged: bool,
    /// a service of the project, or a container's name or id
    #[argh(positional, arg_name = "service|container")]
    container: String,
    /// the command and its arguments
    #[argh(positional, greedy, arg_name = "command")]
    command: Vec<String>,
}

impl Exec {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        if self.command.is_empty() {
            return Err(Error::invalid("exec needs a command: inception exec CONTAINER COMMAND"));
        }
        if !self.detach {
            session::check(self.interactive, self.tty)?;
        }
        block_on(self.go(globals))
    }

    async fn go(self, globals: &Globals) -> Result<u8> {
        let docker = connect(globals).await?;
        let found =
            project::containers(&docker, globals, std::slice::from_ref(&self.container), Without::Everything).await?;
        let container = found
            .iter()
            .find(|container| client::is_running(container))
            .ok_or_else(|| Error::Failed(format!("{} does not run: inception start {0}", self.container)))?;
        let (id, name) = (client::id(container), client::name(container));
        let config = ExecConfig {
            attach_stdin: Some(self.interactive && !self.detach),
            attach_stdout: Some(!self.detach),
            attach_stderr: Some(!self.detach),
            tty: Some(self.tty),
            env: Some(self.env.iter().filter_map(|entry| super::run_options::variable(entry)).collect()),
            cmd: Some(self.command.clone()),
            user: self.user.clone(),
            working_dir: self.workdir.clone(),
            privileged: Some(self.privileged),
            ..ExecConfig::default()
        };
        let doing = format!("run {} in {name}", self.command[0]);
        let exec = docker.create_exec(&id, config).await.map_err(failed(&doing))?.id;
        let options = StartExecOptions { detach: self.detach, tty: self.tty, output_capacity: None };
        let started = docker.start_exec(&exec, Some(options)).await.map_err(failed(&doing)).map_err(super::not_run)?;
        let StartExecResults::Attached { output, input } = started else { return Ok(0) };
        let resize = async |height, width| docker.resize_exec(&exec, ResizeExecOptions { height, width }).await;
        let end = tokio::select! {
            end = session::carry(output, input, self.interactive, self.tty) => end?,
            never = session::sizes(resize), if self.tty => match never? {},
        };
        if end == End::Detached {
            return Ok(0);
        }
        // The output may end a moment before the status is known.
        for _ in 0..100 {
            let details = docker.inspect_exec(&exec).await.map_err(failed(&doing))?;
            if let (Some(false) | None, Some(code)) = (details.running, details.exit_code) {
                return Ok(code as u8);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // It closed its output and goes on.
        Ok(0)
    }
}
