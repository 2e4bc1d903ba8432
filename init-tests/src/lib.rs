//! Runs any container init through the same cases: this project's, and the peers that Debian has.

pub mod bench;
pub mod bench_vm;
pub mod cases;
pub mod faults;
pub mod guest;
pub mod harness;
pub mod matrix;
pub mod notify_cases;
pub mod place_cases;
pub mod probe;
pub mod terminal_cases;
pub mod written;
