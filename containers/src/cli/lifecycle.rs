//! `inception start`, `stop`, `restart` and `rm`.

use super::{
    Globals, block_on,
    connect::connect,
    project::{self, Without},
};
use crate::{
    compose::{
        client::{self, Progress, failed, is_status},
        down::batches,
        up, wait,
    },
    error::{Error, Result},
};
use argh::{ArgsInfo, FromArgs};
use bollard::{
    Docker,
    query_parameters::{RemoveContainerOptionsBuilder, RestartContainerOptionsBuilder},
};
use bollard_stubs::models::ContainerSummary;
use futures_util::future::join_all;

/// Start containers that are stopped: the project's, in the order of their dependencies and when those are as the
/// Compose file wants them, or the named ones.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "start",
    example = "inception start\ninception start web\ninception start 3f2a",
    note = "A name is a service of the project here, else a container's name or the beginning of its id."
)]
pub struct Start {
    /// services or containers (default: the project's)
    #[argh(positional, arg_name = "service|container")]
    names: Vec<String>,
}

/// Stop containers: those that others depend on last.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "stop",
    example = "inception stop\ninception stop -t 2 web",
    note = "A name is a service of the project here, else a container's name or the beginning of its id."
)]
pub struct Stop {
    /// seconds until a container that does not stop is killed (default: its own stop_grace_period)
    #[argh(option, short = 't')]
    timeout: Option<i32>,
    /// services or containers (default: the project's)
    #[argh(positional, arg_name = "service|container")]
    names: Vec<String>,
}

/// Stop containers and start them again, in the order of their dependencies.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "restart",
    example = "inception restart\ninception restart -t 2 web",
    note = "What changed in the Compose file takes effect by `inception up`, not by this."
)]
pub struct Restart {
    /// seconds until a container that does not stop is killed (default: its own stop_grace_period)
    #[argh(option, short = 't')]
    timeout: Option<i32>,
    /// services or containers (default: the project's)
    #[argh(positional, arg_name = "service|container")]
    names: Vec<String>,
}

/// Remove containers that are stopped: the project's, or the named ones.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "rm",
    example = "inception rm\ninception rm -f web\ninception rm --stop -v web",
    note = "One that runs and is named is an error without --force or --stop; without names it is left. Named volumes stay."
)]
pub struct Rm {
    /// running ones too, by SIGKILL
    #[argh(switch, short = 'f')]
    force: bool,
    /// running ones too, stopped first
    #[argh(switch, short = 's')]
    stop: bool,
    /// their anonymous volumes, too
    #[argh(switch, short = 'v')]
    volumes: bool,
    /// services or containers (default: the project's)
    #[argh(positional, arg_name = "service|container")]
    names: Vec<String>,
}

impl Start {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        block_on(async {
            let docker = connect(globals).await?;
            let found = project::containers(&docker, globals, &self.names, Without::Project).await?;
            let known = found.clone();
            for batch in batches(found).into_iter().rev() {
                each(&batch, "starting", "Started", async |container: &ContainerSummary| {
                    for (service, condition) in client::depends_on(container) {
                        let other = known.iter().find(|other| client::label(other, client::SERVICE) == service);
                        if let Some(other) = other {
                            wait::until(&docker, service, &client::id(other), condition, false, None).await?;
                        }
                    }
                    match docker.start_container(&client::id(container), None).await {
                        Err(error) if !is_status(&error, 304) => {
                            Err(failed(format!("start {}", client::name(container)))(error))
                        }
                        _ => Ok(()),
                    }
                })
                .await?;
            }
            Ok(0)
        })
    }
}

impl Stop {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        block_on(async {
            let docker = connect(globals).await?;
            let mut found = project::containers(&docker, globals, &self.names, Without::Project).await?;
            found.retain(client::is_running);
            stop_all(&docker, found, self.timeout).await?;
            Ok(0)
        })
    }
}

async fn stop_all(docker: &Docker, containers: Vec<ContainerSummary>, timeout: Option<i32>) -> Result<()> {
    for batch in batches(containers) {
        each(&batch, "stopping", "Stopped", async |container: &ContainerSummary| {
            up::stop(docker, &client::id(container), &client::name(container), timeout).await
        })
        .await?;
    }
    Ok(())
}

impl Restart {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        block_on(async {
            let docker = connect(globals).await?;
            let found = project::containers(&docker, globals, &self.names, Without::Project).await?;
            for batch in batches(found).into_iter().rev() {
                each(&batch, "restarting", "Restarted", async |container: &ContainerSummary| {
                    let options = self.timeout.map(|seconds| RestartContainerOptionsBuilder::new().t(seconds).build());
                    let doing = format!("restart {}", client::name(container));
                    docker.restart_container(&client::id(container), options).await.map_err(failed(doing))
                })
                .await?;
            }
            Ok(0)
        })
    }
}

impl Rm {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        if self.force && self.stop {
            return Err(Error::invalid("--force and --stop exclude each other"));
        }
        block_on(async {
            let docker = connect(globals).await?;
            let mut found = project::containers(&docker, globals, &self.names, Without::Project).await?;
            let running: Vec<String> =
                found.iter().filter(|container| client::is_running(container)).map(client::name).collect();
            if self.stop {
                stop_all(&docker, found.iter().filter(|c| client::is_running(c)).cloned().collect(), None).await?;
            } else if !self.force && !running.is_empty() {
                if !self.names.is_empty() {
                    return Err(Error::Conflict(format!(
                        "{} runs: stop it first, or give --stop or --force",
                        running.join(", ")
                    )));
                }
                log::warn!("left, for they run: {} (--stop or --force)", running.join(", "));
                found.retain(|container| !client::is_running(container));
            }
            each(&found, "removing", "Removed", async |container: &ContainerSummary| {
                let options = RemoveContainerOptionsBuilder::new().force(self.force).v(self.volumes).build();
                match docker.remove_container(&client::id(container), Some(options)).await {
                    Err(error) if !is_status(&error, 404) => {
                        Err(failed(format!("remove {}", client::name(container)))(error))
                    }
                    _ => Ok(()),
                }
            })
            .await?;
            Ok(0)
        })
    }
}

/// Does the same to all of `containers` side by side, and shows it; the first failure, once all are done.
async fn each(
    containers: &[ContainerSummary],
    doing: &str,
    done: &str,
    work: impl AsyncFn(&ContainerSummary) -> Result<()>,
) -> Result<()> {
    let progress = Progress::new();
    let (progress, work) = (&progress, &work);
    let results = join_all(containers.iter().map(|container| async move {
        let task = progress.task(format!("Container {}", client::name(container)));
        task.doing(doing);
        work(container).await?;
        task.done(done);
        Ok(())
    }))
    .await;
    results.into_iter().collect()
}
