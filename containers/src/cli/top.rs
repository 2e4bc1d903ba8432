//! `inception top`: the processes of the containers that run, as a live tree, a table, or JSON.

use super::{
    Globals, block_on,
    connect::connect,
    output,
    project::{self, Without},
};
use crate::{
    compose::client::{self, failed},
    error::{Error, Result},
    lab::{
        interrupt::Interrupt,
        recording::State,
        terminal::{
            screen::Screen,
            top,
            tree::{self, Show},
        },
        watch::{self, Container, Watch},
    },
};
use argh::{ArgsInfo, FromArgs};
use bollard::{Docker, query_parameters::ListContainersOptionsBuilder};
use serde::Serialize;
use std::{
    sync::mpsc::{Sender, channel},
    time::Duration,
};
use tokio::sync::oneshot;

/// Watch the processes of containers: who is whose child, who is a zombie, stopped or killed, and what happens.
///
/// On a terminal a live tree above a lane of events, which can be paused, slowed and stepped through; elsewhere a table.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "top",
    example = "inception top\ninception top web\ninception top --json | jq '.[].processes[] | select(.state == \"zombie\")'",
    note = "It reads the host's /proc, so the engine must be on this machine. As root, events come from the kernel's tracepoints, otherwise from /proc, 20 looks a second."
)]
pub struct Top {
    /// a table and no screen, on a terminal too
    #[argh(switch)]
    plain: bool,
    /// the containers and their processes as JSON
    #[argh(switch)]
    json: bool,
    /// services of the project here, or containers (default: all that run in the engine)
    #[argh(positional, arg_name = "service or container")]
    names: Vec<String>,
}

/// How often the engine is asked what runs.
const ASK: Duration = Duration::from_millis(500);

impl Top {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        if self.json || self.plain || !Screen::is_possible() {
            let containers = block_on(async { running(&connect(globals).await?, globals, &self.names).await })?;
            let mut watch = Watch::start(false);
            watch.run_now(containers);
            watch.look();
            match self.json {
                true => output::json(&seen(&watch))?,
                false => table(&watch)?,
            }
            return Ok(0);
        }
        self.live(globals)
    }

    fn live(&self, globals: &Globals) -> Result<u8> {
        let (sender, news) = channel();
        let (stop, stopped) = oneshot::channel();
        std::thread::scope(|scope| {
            let asks = scope.spawn(move || block_on(self.ask(globals, sender, stopped)));
            // Nothing comes where the engine can't be reached: that is said before there is a screen.
            let Ok(first) = news.recv() else {
                return asks
                    .join()
                    .unwrap_or_else(|_| Err(Error::Failed("top panicked; see above".into())))
                    .map(|()| 1);
            };
            let interrupt = Interrupt::catch()?;
            let result = top::run(first, &news, &interrupt);
            // It may have ended by itself.
            let _ = stop.send(());
            interrupt.exit_code(result.map(|()| 0))
        })
    }

    /// Tells what runs, again and again until it is stopped.
    async fn ask(
        &self,
        globals: &Globals,
        news: Sender<Result<Vec<Container>>>,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<()> {
        let docker = connect(globals).await?;
        let mut containers = Ok(running(&docker, globals, &self.names).await?);
        while news.send(containers).is_ok() {
            tokio::select! {
                _ = &mut stopped => break,
                () = tokio::time::sleep(ASK) => {}
            }
            containers = running(&docker, globals, &self.names).await;
        }
        Ok(())
    }
}

/// The containers that run, with their first processes.
async fn running(docker: &Docker, globals: &Globals, names: &[String]) -> Result<Vec<Container>> {
    let host = globals.host.clone().or_else(|| std::env::var("DOCKER_HOST").ok()).unwrap_or_default();
    if host.starts_with("tcp:") || host.starts_with("http:") {
        return Err(Error::invalid(format!(
            "top reads this machine's /proc; what runs at {host} may be on another one"
        )));
    }
    let found = match names {
        [] => {
            let options = ListContainersOptionsBuilder::new().all(true).build();
            let all = client::steady(async || docker.list_containers(Some(options.clone())).await).await;
            all.map_err(failed("list containers"))?
        }
        names => project::containers(docker, globals, names, Without::Everything).await?,
    };
    let mut containers = Vec::new();
    for summary in found.iter().filter(|summary| client::is_running(summary)) {
        let id = client::id(summary);
        // It may have ended meanwhile.
        let Ok(details) = client::steady(async || docker.inspect_container(&id, None).await).await else { continue };
        let Some(pid) = details.state.and_then(|state| state.pid).filter(|pid| *pid > 0) else { continue };
        containers.push(Container {
            id,
            name: client::name(summary),
            image: summary.image.clone().unwrap_or_default(),
            project: client::label(summary, client::PROJECT).to_owned(),
            service: client::label(summary, client::SERVICE).to_owned(),
            pid: pid as i32,
        });
    }
    Ok(containers)
}

/// A container and its processes, for programs.
#[derive(Serialize)]
struct Seen {
    id: String,
    name: String,
    image: String,
    project: Option<String>,
    service: Option<String>,
    /// Its first process's pid outside.
    pid: i32,
    processes: Vec<SeenProcess>,
}

#[derive(Serialize)]
struct SeenProcess {
    /// Outside.
    pid: i32,
    /// Inside its pid namespace.
    inner: Option<i32>,
    /// Outside; 0 where that is no process of the container.
    parent: i32,
    name: String,
    state: State,
    /// In the order of the tree.
    #[serde(skip)]
    line: String,
    /// For a zombie, as a shell sees it.
    exit_status: Option<i32>,
    started: Option<chrono::DateTime<chrono::Utc>>,
    #[serde(skip)]
    age: Option<Duration>,
}

fn seen(watch: &Watch) -> Vec<Seen> {
    let (recording, now) = (watch.recording(), watch.now());
    let process = |line: tree::Line| -> Option<SeenProcess> {
        let process = recording.process(line.pid?)?;
        let age = watch::age(process.pid);
        Some(SeenProcess {
            pid: process.pid,
            inner: process.inner,
            parent: process.parent_at(now),
            name: process.name.clone(),
            state: process.state(now)?,
            line: line.name.rsplit_once(' ').map_or_else(|| line.name.clone(), |(name, _)| name.to_owned()),
            exit_status: process.exit_status,
            started: age.and_then(|age| chrono::Utc::now().checked_sub_signed(chrono::Duration::from_std(age).ok()?)),
            age,
        })
    };
    let one = |container: &Container| {
        let of = |pid| watch.container_of(pid) == Some(&container.id);
        let lines = tree::lines(recording, now, Show { gone: false, fold: false, of: &of });
        Seen {
            id: container.id.clone(),
            name: container.name.clone(),
            image: container.image.clone(),
            project: Some(container.project.clone()).filter(|project| !project.is_empty()),
            service: Some(container.service.clone()).filter(|service| !service.is_empty()),
            pid: container.pid,
            processes: lines.into_iter().filter_map(process).collect(),
        }
    };
    watch.containers().iter().map(one).collect()
}

fn table(watch: &Watch) -> Result<()> {
    let mut rows = Vec::new();
    for container in seen(watch) {
        for process in &container.processes {
            let state = match process.state {
                State::Alive => "alive",
                State::Stopped => "STOPPED",
                State::Zombie => "ZOMBIE",
                State::Gone => "gone",
            };
            rows.push(vec![
                container.project.clone().unwrap_or_default(),
                container.service.clone().unwrap_or_default(),
                container.name.clone(),
                process.pid.to_string(),
                state.to_owned(),
                process.age.map(|age| age.as_secs().to_string() + " s").unwrap_or_default(),
                process.line.clone(),
            ]);
        }
    }
    output::table(&["PROJECT", "SERVICE", "CONTAINER", "PID", "STATE", "AGE", "PROCESS[PID INSIDE]"], &rows)
}
