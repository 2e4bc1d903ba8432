//! End to end: engines of the tests' own, driven by clients that nobody here wrote (docker, docker-compose, curl).
//! One file a feature. Needs root, and the packages that `make test` installs.

mod build;
mod clients;
mod coexist;
mod commands;
mod compose;
mod daemon;
mod docker_compose;
mod events;
mod exec;
mod harness;
mod image_store;
mod images;
mod limits;
mod logs;
mod networks;
mod peers;
mod ports;
mod recovery;
mod restart;
mod run;
mod sessions;
mod shutdown;
mod signals;
mod swarm;
mod volumes;
