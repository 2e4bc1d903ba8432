//! `make bench`: this engine beside dockerd and podman from Debian, in one run, interleaved. Prints ratios and writes
//! them to docs/benchmarks.md between its markers (the engine's parts only when all are measured). Arguments select parts by name: run, memory, build, up, lab.

mod build;
mod disk;
#[allow(dead_code, reason = "as the program has it")]
#[path = "../../src/error.rs"]
mod error;
#[path = "../../tests/e2e/harness.rs"]
mod harness;
#[allow(dead_code, unused_imports, reason = "the lab has more uses for it, and tests in it")]
mod lab;
mod memory;
mod mirror;
#[path = "../../tests/e2e/peers.rs"]
mod peers;
mod report;
mod run;
#[path = "../../tests/stack/stack.rs"]
mod stack;

use disk::Disk;
use report::Report;
use std::{
    env,
    process::{Command, ExitCode},
};

/// Tells the program that it is the one that measures, with its temporary folder on a fresh disk.
const MEASURING: &str = "INCEPTION_BENCH";

fn main() -> ExitCode {
    if env::var_os(MEASURING).is_none() {
        let disk = Disk::new();
        let mut measuring = Command::new(env::current_exe().unwrap());
        let ended =
            measuring.args(env::args().skip(1)).env(MEASURING, "1").env("TMPDIR", disk.path()).status().unwrap();
        return if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    measure();
    ExitCode::SUCCESS
}

fn measure() {
    let chosen: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|arg| arg == name);
    let mut report = Report::default();
    if wanted("run") {
        run::measure(&mut report);
    }
    if wanted("memory") {
        memory::measure(&mut report);
    }
    if wanted("build") || wanted("up") {
        build::measure(&mut report, wanted);
    }
    print!("{}", report.text());
    if chosen.is_empty() {
        report.write("engine", "The engine");
    }
    if wanted("lab") {
        let mut report = Report::default();
        lab::measure(&mut report);
        print!("{}", report.text());
        report.write("lab", "The lab");
    }
}
