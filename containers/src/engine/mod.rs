//! What the routes act on: containers, volumes and events, with the images and networks beside them.

pub mod config;
pub mod containers;
mod copy_up;
pub mod events;
pub mod exec;
mod health;
mod idle;
pub mod spec;
pub mod step;
pub mod volumes;

use crate::{
    error::{Context, Error, Result},
    image,
    network::Networks,
    shim,
};
use std::{io::ErrorKind, path::Path, sync::Arc};
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

/// One engine: everything below one data root and one exec root.
pub struct Engine {
    pub config: config::Config,
    pub images: Arc<image::Store>,
    pub networks: Networks,
    pub volumes: volumes::Volumes,
    pub containers: containers::Containers,
    pub execs: exec::Execs,
    pub events: Arc<events::Events>,
    pub shim: shim::Program,
    pub activity: idle::Activity,
    /// The daemon ends: nothing is started any more.
    ending: CancellationToken,
    /// Read by every step of a build that runs.
    steps: RwLock<()>,
}

impl Engine {
    /// Opens the state, adopts shims that outlived an earlier daemon, and applies restart policies.
    pub async fn open(config: config::Config) -> Result<Arc<Engine>> {
        step::sweep(&config).await?;
        let images = Arc::new(image::Store::open(&config.data_root.join("image"))?);
        let events = Arc::new(events::Events::new());
        let engine = Arc::new(Engine {
            networks: Networks::open(&config).await?,
            images,
            volumes: volumes::Volumes::open(&config.data_root.join("volumes"), Arc::clone(&events))?,
            containers: containers::Containers::open(&config.data_root.join("containers"))?,
            execs: exec::Execs::default(),
            events,
            shim: shim::Program::open()?,
            activity: idle::Activity::default(),
            ending: CancellationToken::new(),
            steps: RwLock::new(()),
            config,
        });
        engine.recover_containers().await?;
        Ok(engine)
    }
}

/// Removes what an engine has made on this machine outside its folders: bridges, its firewall table, its cgroup.
pub async fn tear_down(config: &config::Config) -> Result<()> {
    Networks::tear_down(config).await?;
    let name = format!("inception-{}", config.instance());
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").at("list", Path::new("/sys/fs/cgroup"))?;
    let parents = hierarchies.flatten().map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]);
    parents.map(|parent| parent.join(&name)).try_for_each(|cgroup| remove_cgroup(&cgroup))
}

/// Removes a cgroup and those below it, which a machine that lost power, or a shim that was killed, has left. One that a
/// process is in can't be removed: cgroups(7).
fn remove_cgroup(cgroup: &Path) -> Result<()> {
    let children = match std::fs::read_dir(cgroup) {
        Ok(children) => children,
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => return Ok(()),
        Err(error) => return Err(error).at("list cgroup", cgroup),
    };
    for child in children.flatten().filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&child.path())?;
    }
    match std::fs::remove_dir(cgroup) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).at("remove cgroup (a container runs there still?)", cgroup)
        }
        _ => Ok(()),
    }
}

/// 64 hex digits that nothing else has.
pub fn random_id() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Error::Failed(format!("get random bytes: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
