//! The parts of inception-init, a minimal PID 1 for containers: a library so that tests and fuzz targets reach them; the
//! program is `main.rs`. Not meant for other programs: nothing here is a promise from one version to the next.

pub mod config;
pub mod environment;
pub mod events;
pub mod identity;
pub mod inherited;
pub mod machine;
pub mod notify;
pub mod options;
pub mod personality;
pub mod policy;
pub mod processes;
pub mod report;
pub mod signal;
pub mod spawn;
pub mod supervise;
pub mod sys;
pub mod terminal;
pub mod tree;
#[cfg(feature = "vm")]
pub mod vm;

#[cfg(test)]
mod properties;

// The fuzz targets' bodies, so that they are built and tried wherever the tests run.
#[cfg(all(test, feature = "vm"))]
extern crate self as inception_init;
#[cfg(all(test, feature = "vm"))]
#[path = "../fuzz/src/lib.rs"]
mod fuzzed;
