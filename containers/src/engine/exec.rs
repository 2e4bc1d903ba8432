//! Further processes in a running container: `docker exec` and health checks, each under a shim of its own.

use super::{Engine, containers::Container, random_id, spec};
use crate::{
    error::{Context, Error, Result},
    shim::{self, Exit, NetworkNamespace, Process, Shim},
};
use bollard_stubs::models;
use oci_spec::runtime;
use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// Finished sessions that `inspect` still answers for.
const KEPT: usize = 64;

/// The exec sessions of this engine; they end with their container and are not kept over a daemon's end.
#[derive(Default)]
pub struct Execs(Mutex<Vec<Arc<Session>>>);

/// One session.
pub struct Session {
    pub id: String,
    pub container: Arc<Container>,
    pub request: models::ExecConfig,
    pub state: Mutex<SessionState>,
}

/// Where a session stands.
#[derive(Default)]
pub struct SessionState {
    started: bool,
    pub pid: Option<i32>,
    pub exit: Option<Exit>,
    pub shim: Option<Arc<Shim>>,
}

impl Execs {
    pub fn get(&self, id: &str) -> Result<Arc<Session>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().find(|session| session.id == id).cloned();
        found.ok_or_else(|| Error::not_found("exec instance", id))
    }

    /// Ids of a container's sessions that run.
    pub fn of(&self, container: &str) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = |session: &&Arc<Session>| session.container.id == container && session.is_running();
        all.iter().filter(running).map(|session| session.id.clone()).collect()
    }

    fn add(&self, session: &Arc<Session>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let finished = all.iter().filter(|session| session.state().exit.is_some()).count();
        if finished >= KEPT
            && let Some(oldest) = all.iter().position(|session| session.state().exit.is_some())
        {
            all.remove(oldest);
        }
        all.push(Arc::clone(session));
    }

    fn forget(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|session| session.id != id);
    }
}

impl Session {
    pub fn state(&self) -> std::sync::MutexGuard<'_, SessionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_running(&self) -> bool {
        let state = self.state();
        state.started && state.exit.is_none()
    }

    pub fn shim(&self) -> Result<Arc<Shim>> {
        let shim = self.state().shim.clone();
        shim.ok_or_else(|| Error::Conflict(format!("exec session {} is not running", self.id)))
    }
}

/// A session's stdio and its end.
pub struct Running {
    pub stream: Option<tokio::net::UnixStream>,
    pub ended: tokio::task::JoinHandle<Option<Exit>>,
}

impl Engine {
    /// Prepares a session in a running container.
    pub fn create_exec(&self, container: &Arc<Container>, request: models::ExecConfig) -> Result<Arc<Session>> {
        container.running()?;
        if request.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::Invalid("No exec command specified".into()));
        }
        let session =
            Arc::new(Session { id: random_id()?, container: Arc::clone(container), request, state: Mutex::default() });
        self.execs.add(&session);
        self.tell(container, &format!("exec_create: {}", session.command()), &[("execID", session.id.clone())]);
        Ok(session)
    }

    /// Starts it. `attach`: the client's stream is given back, connected before the first byte is written.
    pub async fn start_exec(self: &Arc<Self>, session: &Arc<Session>, attach: bool) -> Result<Running> {
        {
            let mut state = session.state();
            if state.started {
                return Err(Error::Conflict(format!("exec session {} has already run", session.id)));
            }
            state.started = true;
        }
        let started = self.launch_exec(session, attach).await;
        if let Err(error) = &started {
            let code = match error {
                Error::Runtime { code, .. } => *code,
                _ => 126,
            };
            let exit = Exit { code, oom_killed: false, finished_at: String::new(), error: Some(error.to_string()) };
            session.state().exit = Some(exit);
        }
        started
    }

    async fn launch_exec(self: &Arc<Self>, session: &Arc<Session>, attach: bool) -> Result<Running> {
        let container = &session.container;
        container.running()?;
        let folder = self.config.exec_root.join("exec");
        let config = {
            let (engine, session, folder) = (Arc::clone(self), Arc::clone(session), folder.clone());
            crate::api::blocking(move || engine.prepare_exec(&session, folder)).await?
        };
        let request = &session.request;
        let spawned = shim::spawn(&self.shim, config, &folder.join(format!("{}.shim", &session.id[..16]))).await;
        if spawned.is_err() {
            // It may have ended meanwhile, and its namespace with it.
            container.running()?;
        }
        let shim = Arc::new(spawned?);
        session.state().shim = Some(Arc::clone(&shim));
        let stream = if attach {
            let wants = |asked: Option<bool>| asked.unwrap_or(false);
            Some(
                shim.attach(wants(request.attach_stdin), wants(request.attach_stdout), wants(request.attach_stderr))
                    .await?,
            )
        } else {
            None
        };
        let pid = match shim.start().await {
            Ok(pid) => pid,
            Err(error) => {
                // The shim writes its exit file last.
                let _ = shim.wait().await;
                remove_files(&folder, &session.id);
                session.state().shim = None;
                return Err(error);
            }
        };
        session.state().pid = Some(pid);
        self.tell(container, &format!("exec_start: {}", session.command()), &[("execID", session.id.clone())]);
        let (engine, session) = (Arc::clone(self), Arc::clone(session));
        let ended = tokio::spawn(async move {
            let exit = shim.wait().await.ok().flatten();
            remove_files(&folder, &session.id);
            {
                let mut state = session.state();
                state.shim = None;
                state.exit = Some(exit.clone().unwrap_or(Exit {
                    code: 137,
                    oom_killed: false,
                    finished_at: String::new(),
                    error: Some("the session's shim was killed".into()),
                }));
            }
            let code = exit.as_ref().map_or(137, |exit| exit.code);
            engine.tell(
                &session.container,
                "exec_die",
                &[("execID", session.id.clone()), ("exitCode", code.to_string())],
            );
            exit
        });
        Ok(Running { stream, ended })
    }

    fn prepare_exec(&self, session: &Session, folder: PathBuf) -> Result<shim::Config> {
        fs::create_dir_all(&folder).at("create", &folder)?;
        let container = &session.container;
        let path = container.folder.join("config.json");
        let text = fs::read(&path).at("read", &path)?;
        let spec: runtime::Spec =
            serde_json::from_slice(&text).map_err(std::io::Error::from).at("understand", &path)?;
        let image = self.images.get(&container.record().image_id);
        let mut layers = vec![container.folder.join("upper")];
        if let Ok(image) = image {
            layers.extend(self.images.lower(&image)?);
        }
        let process = spec::exec(&spec, &session.request, &layers)?;
        let short = &session.id[..16];
        let process_file = folder.join(format!("{short}.process"));
        let json = serde_json::to_vec(&process).map_err(std::io::Error::from).at("encode", &process_file)?;
        fs::write(&process_file, json).at("write", &process_file)?;
        let shim = container.running()?;
        Ok(shim::Config {
            container_id: container.id.clone(),
            runtime: shim.config.runtime.clone(),
            runtime_root: shim.config.runtime_root.clone(),
            process: Process::Exec {
                process_file,
                pid_file: folder.join(format!("{short}.pid")),
                network: NetworkNamespace::Join(format!("/proc/{}/ns/net", shim.pid).into()),
            },
            tty: session.request.tty.unwrap_or(false),
            stdin: session.request.attach_stdin.unwrap_or(false),
            stdin_once: true,
            stdio_uid: process["user"]["uid"].as_u64().unwrap_or(0) as u32,
            log: None,
            socket: self.shim_socket(&session.id)?,
            exit_file: folder.join(format!("{short}.exit")),
        })
    }

    /// Runs a command in a container to its end, output and all: for health checks. None: it was still running after
    /// `timeout`, and was killed.
    pub async fn run_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        command: Vec<String>,
        timeout: std::time::Duration,
    ) -> Result<Option<(i32, String)>> {
        let request = models::ExecConfig {
            cmd: Some(command),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let session =
            Arc::new(Session { id: random_id()?, container: Arc::clone(container), request, state: Mutex::default() });
        self.execs.add(&session);
        let result = self.start_exec(&session, true).await;
        let outcome = match result {
            Ok(running) => {
                let pid = session.state().pid;
                tokio::select! {
                    finished = output_of(running) => Ok(Some(finished)),
                    () = tokio::time::sleep(timeout) => {
                        if let Some(pid) = pid
                            && let Ok(fd) = crate::sys::pidfd_open(pid)
                        {
                            let _ = crate::sys::pidfd_send_signal(&fd, libc::SIGKILL);
                        }
                        Ok(None)
                    }
                }
            }
            Err(error) => Err(error),
        };
        self.execs.forget(&session.id);
        outcome
    }
}

/// What the process wrote (the first 4096 bytes, as Docker keeps), and its exit code.
async fn output_of(running: Running) -> (i32, String) {
    use tokio::io::AsyncReadExt;
    let mut text = Vec::new();
    if let Some(mut stream) = running.stream {
        let mut frames = Vec::new();
        let _ = (&mut stream).take(64 * 1024).read_to_end(&mut frames).await;
        let mut rest = frames.as_slice();
        while let Some((header, body)) = rest.split_first_chunk::<8>() {
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
            let (piece, after) = body.split_at(length.min(body.len()));
            text.extend_from_slice(piece);
            rest = after;
        }
    }
    text.truncate(4096);
    let exit = running.ended.await.ok().flatten();
    (exit.map_or(137, |exit| exit.code), String::from_utf8_lossy(&text).into_owned())
}

fn remove_files(folder: &std::path::Path, id: &str) {
    for suffix in ["shim", "process", "pid", "exit"] {
        let _ = fs::remove_file(folder.join(format!("{}.{suffix}", &id[..16])));
    }
}

impl Session {
    fn command(&self) -> String {
        self.request.cmd.clone().unwrap_or_default().join(" ")
    }
}
