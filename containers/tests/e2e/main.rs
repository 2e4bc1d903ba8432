//! End to end: engines of the tests' own, driven by clients that nobody here wrote (docker, docker-compose, curl).
//! One file a feature. Needs root, and the packages that `make test` installs.

mod build;
mod clients;
mod commands;
mod compose;
mod daemon;
mod harness;
mod image_store;
mod images;
mod peers;
