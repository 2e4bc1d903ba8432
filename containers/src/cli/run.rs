//! `inception run`: a new container of an image, or of a service of the project here.

use super::{
    Globals, block_on,
    connect::connect,
    project,
    session::{self, End},
};
use crate::{
    compose::{
        base,
        client::{Progress, failed, is_status},
        create::{Creation, creation, hash},
        model::{Project, Service},
        up,
    },
    error::{Error, Result},
};
use argh::{ArgsInfo, FromArgs};
use bollard::{
    Docker,
    errors::Error as ApiError,
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, KillContainerOptionsBuilder,
        RemoveContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder, WaitContainerOptionsBuilder,
    },
};
use bollard_stubs::models::{ContainerCreateBody, NetworkConnectRequest};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};

/// Run a command in a new container. The first word is a service of the project here, where there is one of that name:
/// then the container is made as the Compose file says, what it depends on is started first, and options and command
/// here come over the file's. Any other word is an image; IMAGE:TAG always is.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "run",
    usage = "[OPTIONS] IMAGE|SERVICE [COMMAND [ARGUMENTS...]]",
    example = "inception run -it --rm debian:bookworm-slim sh\ninception run -d --name web -p 127.0.0.1:8080:80 -v site:/var/www nginx:latest\necho x | inception run -i --rm debian:bookworm-slim cat\ninception run --rm -m 64m --cpus 0.5 --pids-limit 20 --read-only --cap-drop ALL debian:bookworm-slim id\ninception run --rm -it wordpress sh      (a service of the project here)",
    note = "-i and -t are never implied. In the foreground signals are passed on, and Ctrl-P Ctrl-Q leaves the program to itself.",
    note = "A service's ports are published only with --service-ports or -p. -f and -p are the Compose file's and the project's before `run` alone.",
    error_code(125, "the engine refused: the command never ran"),
    error_code(126, "the command is there and can't be run"),
    error_code(127, "the command is not there")
)]
pub struct Run {
    /// do not wait for it: print the container's id
    #[argh(switch, short = 'd')]
    pub detach: bool,
    /// give it this program's stdin
    #[argh(switch, short = 'i')]
    pub interactive: bool,
    /// give it a terminal
    #[argh(switch, short = 't')]
    pub tty: bool,
    /// remove the container, and its anonymous volumes, when it ends
    #[argh(switch)]
    pub rm: bool,
    /// the container's name
    #[argh(option)]
    pub name: Option<String>,
    /// a variable, NAME=VALUE or NAME alone for the one here; repeatable
    #[argh(option, short = 'e')]
    pub env: Vec<String>,
    /// file of variables, a NAME=VALUE a line; repeatable
    #[argh(option)]
    pub env_file: Vec<std::path::PathBuf>,
    /// mount a volume or a folder, [SOURCE:]TARGET[:ro]; repeatable
    #[argh(option, short = 'v')]
    pub volume: Vec<String>,
    /// the same in words, type=bind|volume|tmpfs,source=...,target=...[,readonly]; repeatable
    #[argh(option)]
    pub mount: Vec<String>,
    /// mount a folder in memory, PATH[:size=64m,mode=1777]; repeatable
    #[argh(option)]
    pub tmpfs: Vec<String>,
    /// publish a port, [[IP:]PORT:]CONTAINER_PORT[/udp]; repeatable
    #[argh(option, short = 'p')]
    pub publish: Vec<String>,
    /// publish every port that the image exposes
    #[argh(switch, short = 'P')]
    pub publish_all: bool,
    /// user, or user:group
    #[argh(option, short = 'u')]
    pub user: Option<String>,
    /// a further group; repeatable
    #[argh(option)]
    pub group_add: Vec<String>,
    /// folder to run in
    #[argh(option, short = 'w')]
    pub workdir: Option<String>,
    /// the program instead of the image's entrypoint
    #[argh(option)]
    pub entrypoint: Option<String>,
    /// inception-init, or the engine's own init, as PID 1
    #[argh(switch)]
    pub init: bool,
    /// a network, or bridge, host, none, container:NAME; repeatable
    #[argh(option)]
    pub network: Vec<String>,
    /// a further name on the network; repeatable
    #[argh(option)]
    pub network_alias: Vec<String>,
    /// the address on the network
    #[argh(option)]
    pub ip: Option<String>,
    /// the container's own name for itself
    #[argh(option, short = 'h')]
    pub hostname: Option<String>,
    /// a line of /etc/hosts, NAME:ADDRESS; repeatable
    #[argh(option)]
    pub add_host: Vec<String>,
    /// a name server; repeatable
    #[argh(option)]
    pub dns: Vec<String>,
    /// no, always, unless-stopped or on-failure[:COUNT]
    #[argh(option)]
    pub restart: Option<String>,
    /// most memory, as 64m
    #[argh(option, short = 'm')]
    pub memory: Option<String>,
    /// most memory and swap together, as 128m; -1 for no limit
    #[argh(option)]
    pub memory_swap: Option<String>,
    /// most CPUs, as 1.5
    #[argh(option)]
    pub cpus: Option<String>,
    /// most processes; -1 for no limit
    #[argh(option)]
    pub pids_limit: Option<i64>,
    /// size of /dev/shm, as 64m
    #[argh(option)]
    pub shm_size: Option<String>,
    /// nothing can be written but to volumes and tmpfs
    #[argh(switch)]
    pub read_only: bool,
    /// a capability to add, or ALL; repeatable
    #[argh(option)]
    pub cap_add: Vec<String>,
    /// a capability to drop, or ALL; repeatable
    #[argh(option)]
    pub cap_drop: Vec<String>,
    /// every capability and device
    #[argh(switch)]
    pub privileged: bool,
    /// as no-new-privileges or seccomp=unconfined; repeatable
    #[argh(option)]
    pub security_opt: Vec<String>,
    /// a limit of processes, NAME=SOFT[:HARD]; repeatable
    #[argh(option)]
    pub ulimit: Vec<String>,
    /// a label, NAME=VALUE; repeatable
    #[argh(option, short = 'l')]
    pub label: Vec<String>,
    /// the signal that stops it
    #[argh(option)]
    pub stop_signal: Option<String>,
    /// seconds from that signal to SIGKILL
    #[argh(option)]
    pub stop_timeout: Option<i64>,
    /// a shell command that tells by its exit code whether all is well
    #[argh(option)]
    pub health_cmd: Option<String>,
    /// time between two checks, as 30s
    #[argh(option)]
    pub health_interval: Option<String>,
    /// time that one check may take
    #[argh(option)]
    pub health_timeout: Option<String>,
    /// time at the start in which failures do not count
    #[argh(option)]
    pub health_start_period: Option<String>,
    /// failures in a row that make it unhealthy
    #[argh(option)]
    pub health_retries: Option<i64>,
    /// without the image's health check
    #[argh(switch)]
    pub no_healthcheck: bool,
    /// the OCI runtime
    #[argh(option)]
    pub runtime: Option<String>,
    /// publish the service's ports
    #[argh(switch)]
    pub service_ports: bool,
    /// do not start what the service depends on
    #[argh(switch)]
    pub no_deps: bool,
    /// an image, or a service of the project
    #[argh(positional, arg_name = "image|service")]
    pub image: String,
    /// the command and its arguments, instead of the image's
    #[argh(positional, greedy, arg_name = "command")]
    pub command: Vec<String>,
}

impl Run {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        // As docker: what fails before the program runs is told from the program's own codes.
        self.check().and_then(|()| block_on(self.go(globals))).map_err(not_run)
    }

    fn check(&self) -> Result<()> {
        if self.detach {
            return Ok(());
        }
        session::check(self.interactive, self.tty)
    }

    async fn go(&self, globals: &Globals) -> Result<u8> {
        // No service has these in its name: a Compose file that is broken is in nobody's way.
        let is_image = self.image.contains(['/', ':', '@']);
        let project = if is_image { None } else { project::load_if_there(globals)? };
        let service = project.as_ref().and_then(|project| project.service(&self.image));
        if service.is_none() && (self.service_ports || self.no_deps) {
            return Err(Error::invalid(format!(
                "--service-ports and --no-deps are for a service, and {} is none of the project here",
                self.image
            )));
        }
        let docker = connect(globals).await?;
        let progress = Progress::new();
        let (mut creation, name) = match (&project, service) {
            (Some(project), Some(service)) => self.of_service(&docker, project, service, &progress).await?,
            _ => {
                let body = ContainerCreateBody { image: Some(self.image.clone()), ..ContainerCreateBody::default() };
                (Creation { body, more_networks: Vec::new() }, None)
            }
        };
        self.apply(&mut creation)?;
        let name = self.name.clone().or(name);
        let id = create(&docker, creation, name.as_deref(), &progress).await?;
        let result = match self.detach {
            true => {
                docker.start_container(&id, None).await.map(|()| 0).map_err(failed(format!("start {}", self.image)))
            }
            false => self.foreground(&docker, &id).await,
        };
        if result.is_err() && self.rm {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            // Its own removal may be under way, which is as good.
            let _ = docker.remove_container(&id, Some(options)).await;
        }
        if self.detach && result.is_ok() {
            super::output::print(&format!("{id}\n"))?;
        }
        result
    }

    /// What the Compose file says about the service, and the name that its container gets.
    async fn of_service(
        &self,
        docker: &Docker,
        project: &Project,
        service: &Service,
        progress: &Progress,
    ) -> Result<(Creation, Option<String>)> {
        let options = up::Options { no_deps: self.no_deps, ..up::Options::default() };
        let shared = up::prepare(docker, project, service, &options, progress).await?;
        let mut creation = creation(project, service, &hash(project, service)?, true, shared.as_deref())?;
        if let Some(host) = creation.body.host_config.as_mut().filter(|_| !self.service_ports) {
            host.port_bindings = None;
        }
        // Only what is asked for here: a service with `tty: true` must run in a pipe, too.
        (creation.body.tty, creation.body.open_stdin) = (None, None);
        let mut number = [0; 6];
        getrandom::fill(&mut number).map_err(|error| Error::Failed(format!("make a container's name: {error}")))?;
        let number: String = number.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((creation, Some(format!("{}-{}-run-{number}", project.name, service.name))))
    }

    /// Starts the container with this terminal, or these pipes, at its program; the program's exit code.
    async fn foreground(&self, docker: &Docker, id: &str) -> Result<u8> {
        let mut signals = session::signals()?;
        let options =
            AttachContainerOptionsBuilder::new().stream(true).stdin(self.interactive).stdout(true).stderr(true).build();
        let attached = docker.attach_container(id, Some(options)).await.map_err(failed("attach to the container"))?;
        let code = wait(docker, id, self.rm);
        // The wait's request goes out before the start's.
        tokio::task::yield_now().await;
        docker.start_container(id, None).await.map_err(failed(format!("start {}", self.image)))?;
        let passing = async {
            while let Some(signal) = signals.recv().await {
                let options = KillContainerOptionsBuilder::new().signal(&signal.to_string()).build();
                // It may have ended meanwhile.
                if let Err(error) = docker.kill_container(id, Some(options)).await {
                    log::debug!("pass on signal {signal}: {error}");
                }
            }
            std::future::pending().await
        };
        let resize = async |rows: u16, columns: u16| {
            let options = ResizeContainerTTYOptionsBuilder::new().h(rows.into()).w(columns.into()).build();
            docker.resize_container_tty(id, options).await
        };
        let work = async {
            if session::carry(attached.output, attached.input, self.interactive, self.tty).await? == End::Detached {
                return Ok(0);
            }
            code.await.map_err(|error| Error::Failed(format!("wait for the container: {error}")))?
        };
        tokio::select! {
            result = work => result,
            never = passing => never,
            never = session::sizes(resize), if self.tty => match never? {},
        }
    }
}

/// Creates the container; an image that is not there is seen to.
pub(super) async fn create(
    docker: &Docker,
    creation: Creation,
    name: Option<&str>,
    progress: &Progress,
) -> Result<String> {
    let Creation { body, more_networks } = creation;
    let image = body.image.clone().unwrap_or_default();
    let options = || name.map(|name| CreateContainerOptionsBuilder::new().name(name).build());
    let doing = format!("create a container of {image}");
    let made = match docker.create_container(options(), body.clone()).await {
        Err(error) if is_status(&error, 404) && is_missing_image(docker, &image).await => {
            let task = progress.task(format!("Image {image}"));
            base::ensure(docker, &image, &|line: &str| task.doing(line)).await?;
            task.done("Present");
            docker.create_container(options(), body).await
        }
        made => made,
    };
    let made = made.map_err(failed(&doing))?;
    for warning in made.warnings {
        log::warn!("{warning}");
    }
    for (network, settings) in more_networks {
        let request = NetworkConnectRequest { container: made.id.clone(), endpoint_config: Some(settings) };
        docker.connect_network(&network, request).await.map_err(failed(format!("connect to {network}")))?;
    }
    Ok(made.id)
}

async fn is_missing_image(docker: &Docker, image: &str) -> bool {
    docker.inspect_image(image).await.is_err_and(|error| is_status(&error, 404))
}

/// Asks for the container's exit code, beginning now: one that removes itself can't be asked afterwards. Then the end is
/// its removal, so that its name is free again; the code never comes from there, for Podman has 0 for every one.
fn wait(docker: &Docker, id: &str, removed: bool) -> JoinHandle<Result<u8>> {
    let ended = wait_for(docker, id, "next-exit");
    let removed = removed.then(|| wait_for(docker, id, "removed"));
    tokio::spawn(async move {
        let lost = |error: JoinError| Error::Failed(format!("wait for the container: {error}"));
        let code = ended.await.map_err(lost)??;
        if let Some(removed) = removed {
            // An engine that is slow, or has no such condition, does not hold up the code.
            let _ = tokio::time::timeout(Duration::from_secs(10), removed).await;
        }
        Ok(code)
    })
}

fn wait_for(docker: &Docker, id: &str, condition: &'static str) -> JoinHandle<Result<u8>> {
    let (docker, id) = (docker.clone(), id.to_owned());
    tokio::spawn(async move {
        let options = WaitContainerOptionsBuilder::new().condition(condition).build();
        let mut answers = std::pin::pin!(docker.wait_container(&id, Some(options)));
        match answers.next().await {
            Some(Ok(answer)) => Ok(answer.status_code as u8),
            Some(Err(ApiError::DockerContainerWaitError { error, code })) if error.is_empty() => Ok(code as u8),
            Some(Err(error)) => Err(failed("wait for the container")(error)),
            None => Err(Error::Failed("the engine did not say how the container ended".into())),
        }
    })
}

/// An error before the program ran, with docker's exit codes: 127 where it is not there, 126 where it can't be run, else
/// 125. The engine tells by its runtime's words alone.
pub fn not_run(error: Error) -> Error {
    let message = error.to_string();
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    let code = match &error {
        Error::Runtime { code, .. } => *code,
        Error::Engine { .. } if says(&["executable file", "no such file or directory"]) => 127,
        Error::Engine { .. } if says(&["permission denied", "not a directory", "is a directory", "exec format"]) => 126,
        _ => 125,
    };
    Error::Runtime { message, code }
}
