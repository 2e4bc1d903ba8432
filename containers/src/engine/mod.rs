//! What the routes act on: containers, volumes and events, with the images and networks beside them.

pub mod config;
pub mod containers;
pub mod events;
pub mod spec;
pub mod step;
pub mod volumes;

use crate::{error::Result, image, network::Networks};
use std::sync::Arc;

/// One engine: everything below one data root and one exec root.
pub struct Engine {
    pub config: config::Config,
    pub images: Arc<image::Store>,
    pub networks: Networks,
    pub volumes: volumes::Volumes,
    pub containers: containers::Containers,
    pub events: events::Events,
}

impl Engine {
    /// Opens the state, adopts shims that outlived an earlier daemon, and applies restart policies.
    pub async fn open(config: config::Config) -> Result<Arc<Engine>> {
        let _ = config;
        todo!()
    }
}
