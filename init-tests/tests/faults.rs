//! Each system call of the init refused in turn: no hang, the exit code as documented.

use std::path::{Path, PathBuf};
use std::process::Command;

use init_tests::faults;
use init_tests::harness::Init;

#[test]
fn every_refused_call_is_survived() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = std::env::var_os("INCEPTION_INIT").map_or_else(
        || {
            assert!(Command::new(root.join("scripts/build-init")).status().is_ok_and(|status| status.success()));
            std::env::var_os("CARGO_TARGET_DIR")
                .map_or_else(|| root.join("target"), PathBuf::from)
                .join("init/inception-init")
        },
        PathBuf::from,
    );
    let problems = faults::run(&Init::new(&path, None));
    let list: Vec<_> = problems.iter().map(|outcome| format!("{}: {}", outcome.fault, outcome.problem)).collect();
    assert!(list.is_empty(), "{}", list.join("\n"));
}
