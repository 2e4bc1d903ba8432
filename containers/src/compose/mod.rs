//! The Compose file: load, interpolate, validate, converge. A client of the Docker Engine API (bollard), so that the
//! embedded engine, Docker and Podman are driven by one code path.

pub mod base;
pub mod bootstrap;
pub mod build;
pub mod client;
pub mod create;
mod dotenv;
pub mod down;
mod interpolate;
pub mod load;
pub mod logs;
mod merge;
pub mod model;
mod objects;
mod service;
pub mod up;
pub mod values;
pub mod wait;
mod yaml;

pub use service::absolute;
