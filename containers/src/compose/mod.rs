//! The Compose file: load, interpolate, validate, converge. A client of the Docker Engine API (bollard), so that the
//! embedded engine, Docker and Podman are driven by one code path.

pub mod base;
mod bootstrap;
