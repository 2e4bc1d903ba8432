//! A connection to an engine, and what the lessons ask of it. By the API alone: a client's process for each request would
//! cost more than most of the requests.

use crate::{
    compose::client::failed,
    error::{Context, Error, Result},
};
use bollard::{
    API_DEFAULT_VERSION, Docker,
    container::LogOutput,
    exec::StartExecResults,
    models::{ContainerCreateBody, ExecConfig, HostConfig},
    query_parameters::{
        BuildImageOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
        RemoveContainerOptionsBuilder,
    },
};
use futures_util::{StreamExt, TryStreamExt, future::join_all};
use std::{future::Future, path::Path, sync::Arc};
use tokio::runtime::Runtime;

/// Seconds that an engine may take to answer.
const TIMEOUT: u64 = 120;

/// A connection, and what its requests run on.
#[derive(Clone)]
pub struct Connection {
    pub docker: Docker,
    pub runtime: Arc<Runtime>,
}

/// A file of a build's context.
pub struct ContextFile<'a> {
    pub name: &'a str,
    pub content: &'a [u8],
}

/// What is started: a command of an image.
pub struct Start<'a> {
    pub name: &'a str,
    pub image: &'a str,
    pub words: &'a [&'a str],
    pub host: HostConfig,
}

impl Connection {
    /// To the engine at this socket. Nothing is sent yet.
    pub fn to_socket(socket: &str) -> Result<Connection> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = Arc::new(runtime.doing("start the async runtime")?);
        let docker = Docker::connect_with_unix(socket, TIMEOUT, API_DEFAULT_VERSION);
        Ok(Connection { docker: docker.map_err(failed("connect to the engine"))?, runtime })
    }

    /// With the newest version of the API that both know.
    pub fn negotiated(self) -> Result<Connection> {
        let Connection { docker, runtime } = self;
        let docker = runtime.block_on(docker.negotiate_version()).map_err(failed("ask for the engine's version"))?;
        Ok(Connection { docker, runtime })
    }

    /// Waits for an answer.
    pub fn wait<T>(
        &self,
        doing: impl std::fmt::Display,
        request: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        self.runtime.block_on(request).map_err(failed(doing))
    }

    /// Builds an image of a Dockerfile and the files beside it.
    pub fn build(&self, image: &str, dockerfile: &str, files: &[ContextFile]) -> Result<()> {
        let mut context = tar::Builder::new(Vec::new());
        let dockerfile = ContextFile { name: "Dockerfile", content: dockerfile.as_bytes() };
        for file in files.iter().chain([&dockerfile]) {
            append(&mut context, file)?;
        }
        let context = context.into_inner().doing("pack a build context")?;
        let options = BuildImageOptionsBuilder::new().t(image).rm(true).build();
        let doing = format!("build {image}");
        self.runtime.block_on(async {
            let mut answers =
                std::pin::pin!(self.docker.build_image(options, None, Some(bollard::body_full(context.into()))));
            while let Some(answer) = answers.next().await {
                if let Some(fault) = answer.map_err(failed(&doing))?.error_detail.and_then(|detail| detail.message) {
                    return Err(Error::Failed(format!("{doing}: {fault}")));
                }
            }
            Ok(())
        })
    }

    /// Makes and starts a container; its PID 1, as the host counts.
    pub fn start(&self, start: Start) -> Result<i32> {
        let Start { name, image, words, host } = start;
        let body = ContainerCreateBody {
            image: Some(image.into()),
            cmd: Some(words.iter().map(|word| (*word).to_owned()).collect()),
            host_config: Some(host),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.wait(format!("create the container {name}"), self.docker.create_container(Some(options), body))?;
        self.start_again(name)
    }

    /// Starts one that is there; its PID 1.
    pub fn start_again(&self, name: &str) -> Result<i32> {
        self.wait(format!("start the container {name}"), self.docker.start_container(name, None))?;
        self.pid(name)?.ok_or_else(|| Error::Failed(format!("the container {name} does not run")))
    }

    /// The outside pid of a container's PID 1; none where it does not run.
    pub fn pid(&self, name: &str) -> Result<Option<i32>> {
        let found = self.wait(format!("look at the container {name}"), self.docker.inspect_container(name, None))?;
        let pid = found.state.and_then(|state| state.pid).filter(|pid| *pid > 0);
        Ok(pid.map(|pid| pid as i32))
    }

    /// Runs a command in a container to its end: the exit code and what it wrote.
    pub fn exec(&self, name: &str, words: &[&str]) -> Result<(i64, String)> {
        let config = ExecConfig {
            cmd: Some(words.iter().map(|word| (*word).to_owned()).collect()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let request = async {
            let id = self.docker.create_exec(name, config).await?.id;
            let mut text = String::new();
            if let StartExecResults::Attached { output, .. } = self.docker.start_exec(&id, None).await? {
                let parts: Vec<LogOutput> = output.try_collect().await?;
                let bytes: Vec<u8> = parts.into_iter().flat_map(|part| part.into_bytes().to_vec()).collect();
                text = String::from_utf8_lossy(&bytes).into_owned();
            }
            Ok((self.docker.inspect_exec(&id).await?.exit_code.unwrap_or(-1), text))
        };
        self.wait(format!("run {} in {name}", words.join(" ")), request)
    }

    /// Removes a container, running or not, with its nameless volumes.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.wait(format!("remove the container {name}"), remove(&self.docker, name))
    }

    /// Removes all containers, side by side, and then all networks that somebody made. Whatever fails, the rest is removed:
    /// the first error.
    pub fn remove_all(&self) -> Result<()> {
        let docker = &self.docker;
        let request = async {
            let all = docker.list_containers(Some(ListContainersOptionsBuilder::new().all(true).build())).await?;
            let ids: Vec<String> = all.into_iter().filter_map(|container| container.id).collect();
            let containers = join_all(ids.iter().map(|id| remove(docker, id))).await;
            let networks = docker.list_networks(None).await?.into_iter().filter_map(|network| network.name);
            let made = networks.filter(|name| !["bridge", "host", "none"].contains(&name.as_str()));
            let networks = join_all(made.map(|name| async move { docker.remove_network(&name).await })).await;
            containers.into_iter().chain(networks).collect::<Result<(), _>>()
        };
        self.wait("remove the lab's containers and networks", request)
    }
}

async fn remove(docker: &Docker, name: &str) -> Result<(), bollard::errors::Error> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    docker.remove_container(name, Some(options)).await
}

fn append(tar: &mut tar::Builder<Vec<u8>>, file: &ContextFile) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(file.content.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, file.name, file.content).doing("pack a build context")
}

/// The machine's static busybox.
pub fn busybox() -> Result<Vec<u8>> {
    let path = crate::cli::find_program("busybox").ok_or_else(|| Error::Failed("there is no busybox".into()))?;
    std::fs::read(&path).at("read", &path)
}

/// A root file system as a tar, for `ADD`: a busybox, what it is to be called, and the folder `/data`. To make the links by
/// `RUN` would cost a container.
pub fn busybox_root(busybox: &[u8]) -> Result<Vec<u8>> {
    const APPLETS: [&str; 8] = ["dd", "httpd", "ip", "ls", "nc", "sh", "sleep", "timeout"];
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, &ContextFile { name: "bin/busybox", content: busybox })?;
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        tar.append_link(&mut header, Path::new("bin").join(applet), "busybox").doing("pack a root")?;
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    tar.append_data(&mut header, "data/", std::io::empty()).doing("pack a root")?;
    tar.into_inner().doing("pack a root")
}
