//! `inception up`, `build` and `down`.

use super::{Globals, block_on, connect::connect, project};
use crate::{
    compose::{
        build,
        client::{self, Progress},
        down, logs,
        model::Project,
        up,
    },
    error::{Error, Result},
};
use argh::{ArgsInfo, FromArgs};
use bollard::Docker;
use futures_util::{future::join_all, stream::poll_fn};
use tokio::{sync::mpsc, try_join};

/// Build what is missing, and make the project run as its Compose file says. Only what changed is touched. Without
/// --detach the logs are shown until Ctrl-C, which stops all; a second Ctrl-C kills.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "up",
    example = "inception up --detach\ninception up --build web\ninception up -d --file deploy/compose.yaml --profile debug",
    note = "--file, --project-name, --project-directory, --env-file and --profile may stand here too (inception --help)."
)]
pub struct Up {
    /// return when all is running, and healthy where there is a health check
    #[argh(switch, short = 'd')]
    detach: bool,
    /// as --detach
    #[argh(switch)]
    wait: bool,
    /// build images that are there, too
    #[argh(switch)]
    build: bool,
    /// build nothing: a missing image is an error
    #[argh(switch)]
    no_build: bool,
    /// make every container anew
    #[argh(switch)]
    force_recreate: bool,
    /// keep containers that differ from the file
    #[argh(switch)]
    no_recreate: bool,
    /// leave out the services that the named ones need
    #[argh(switch)]
    no_deps: bool,
    /// make the containers, start none
    #[argh(switch)]
    no_start: bool,
    /// remove containers of services that the file no longer has
    #[argh(switch)]
    remove_orphans: bool,
    /// seconds after which waiting for a service is an error (default: as long as its checks take)
    #[argh(option)]
    wait_timeout: Option<u64>,
    /// services (default: all)
    #[argh(positional)]
    services: Vec<String>,
}

impl Up {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        if self.build && self.no_build || self.force_recreate && self.no_recreate {
            return Err(Error::invalid(
                "--build and --no-build, --force-recreate and --no-recreate exclude each other",
            ));
        }
        let project = project::load(globals)?;
        block_on(async {
            let docker = connect(globals).await?;
            let progress = Progress::new();
            let since = logs::now();
            let mut options = up::Options {
                build: self.build,
                no_build: self.no_build,
                force_recreate: self.force_recreate,
                no_recreate: self.no_recreate,
                no_deps: self.no_deps,
                remove_orphans: self.remove_orphans,
                no_start: self.no_start,
                timeout: self.wait_timeout,
                started: None,
            };
            if self.detach || self.wait || self.no_start {
                let ids = up::up(&docker, &project, &self.services, &options, &progress).await?;
                if !self.no_start {
                    up::settle(&docker, &project, &ids, self.wait_timeout, &progress).await?;
                }
                return Ok(0);
            }
            let (sender, mut started) = mpsc::unbounded_channel();
            options.started = Some(sender);
            let (docker, project, progress) = (&docker, &project, &progress);
            let services = up::select(project, &self.services, self.no_deps)?;
            let width = services.keys().map(|name| name.len()).max().unwrap_or_default();
            // It owns the options, and the sender in them: when it ends, no more logs are to come.
            let raised = async move { up::up(docker, project, &self.services, &options, progress).await.map(drop) };
            let follow = logs::Options { follow: true, since, ..logs::Options::default() };
            let targets = poll_fn(move |context| started.poll_recv(context));
            let work = async { try_join!(raised, logs::show(docker, targets, width, &follow, progress)).map(drop) };
            tokio::select! {
                result = work => result?,
                () = interrupted() => {
                    eprintln!("\nstopping (Ctrl-C again kills)");
                    tokio::select! {
                        result = stop_all(docker, project, progress) => result?,
                        () = interrupted() => kill_all(docker, project).await?,
                    }
                }
            }
            Ok(0)
        })
    }
}

/// SIGINT or SIGTERM came.
async fn interrupted() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

async fn stop_all(docker: &Docker, project: &Project, progress: &Progress) -> Result<()> {
    let running = client::containers(docker, &project.name, false).await?.into_iter().filter(client::is_running);
    for batch in down::batches(running.collect()) {
        let results = join_all(batch.iter().map(|container| async move {
            let name = client::name(container);
            let task = progress.task(format!("Container {name}"));
            task.doing("stopping");
            up::stop(docker, &client::id(container), &name, None).await?;
            task.done("Stopped");
            Ok(())
        }))
        .await;
        results.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

async fn kill_all(docker: &Docker, project: &Project) -> Result<()> {
    for container in client::containers(docker, &project.name, false).await?.iter().filter(|c| client::is_running(c)) {
        // One that ended meanwhile is what was asked for.
        let _ = docker.kill_container(&client::id(container), None).await;
    }
    Ok(())
}

/// Build the images of the project's services.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "build", example = "inception build\ninception build --no-cache web")]
pub struct Build {
    /// take nothing from the cache
    #[argh(switch)]
    no_cache: bool,
    /// ask registries for newer base images
    #[argh(switch)]
    pull: bool,
    /// show no steps
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// a build argument, as NAME=VALUE; repeatable
    #[argh(option)]
    build_arg: Vec<String>,
    /// services (default: all)
    #[argh(positional)]
    services: Vec<String>,
}

impl Build {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        let project = project::load(globals)?;
        let mut options =
            build::Options { no_cache: self.no_cache, pull: self.pull, quiet: self.quiet, ..build::Options::default() };
        for arg in &self.build_arg {
            let value = arg.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
            let value = value.or_else(|| Some((arg.clone(), std::env::var(arg).ok()?)));
            options.args.extend(value);
        }
        block_on(async {
            let docker = connect(globals).await?;
            let services: Vec<_> = up::select(&project, &self.services, true)?.into_values().collect();
            build::build(&docker, &project, &services, &options, &Progress::new()).await?;
            Ok(0)
        })
    }
}

/// Stop and remove the project's containers and networks. Volumes stay, unless --volumes.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "down", example = "inception down\ninception down --volumes --rmi local")]
pub struct Down {
    /// the named volumes too, and what is in them
    #[argh(switch, short = 'v')]
    volumes: bool,
    /// images too: `local` those without a name of their own, `all` of them
    #[argh(option)]
    rmi: Option<String>,
    /// containers of services that the file no longer has, too
    #[argh(switch)]
    remove_orphans: bool,
    /// seconds until a container that does not stop is killed
    #[argh(option, short = 't')]
    timeout: Option<i32>,
}

impl Down {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        let loaded = project::load_if_there(globals)?;
        let name = match &loaded {
            Some(project) => project.name.clone(),
            None => project::name(globals)?,
        };
        let services = loaded.iter().flat_map(|project| project.services.values().chain(project.inactive.values()));
        let images = loaded.iter().flat_map(|project| {
            services
                .clone()
                .filter(|service| match self.rmi.as_deref() {
                    Some("local") => service.image.is_none(),
                    Some(_) => true,
                    None => false,
                })
                .map(|service| project.image_of(service))
        });
        if let Some(other) = self.rmi.as_deref().filter(|kind| !matches!(*kind, "local" | "all")) {
            return Err(Error::invalid(format!("--rmi {other}: it takes local or all")));
        }
        let options = down::Options {
            volumes: self.volumes,
            images: images.collect(),
            known: loaded.as_ref().map(|_| services.map(|service| service.name.clone()).collect()),
            remove_orphans: self.remove_orphans,
            timeout: self.timeout,
        };
        block_on(async {
            let docker = connect(globals).await?;
            down::down(&docker, &name, &options, &Progress::new()).await?;
            Ok(0)
        })
    }
}
