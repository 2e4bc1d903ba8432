//! The matrix as a test: this project's init passes every case, and a peer fails where it is known to, and only there.

use std::path::{Path, PathBuf};
use std::process::Command;

use init_tests::cases::CASES;
use init_tests::harness::Init;
use init_tests::matrix::{self, Column};

/// `$INCEPTION_INIT`, or what scripts/build-init makes of the sources as they are.
fn our_init() -> PathBuf {
    if let Some(path) = std::env::var_os("INCEPTION_INIT") {
        return path.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = Command::new(root.join("scripts/build-init")).status().expect("scripts/build-init runs");
    assert!(built.success(), "scripts/build-init failed");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("init/inception-init")
}

/// Root in its own user namespace is not enough: a case changes to other users.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// What a personality does as its peer, because that is documented there: it ends at once when the main program does,
/// and has the peer's exit codes.
fn is_kept(personality: &str, case: &str) -> bool {
    match case {
        "what is left gets TERM and time to finish"
        | "so does what called setsid"
        | "not PID 1: nothing is left behind" => true,
        "not found is 127" | "not executable is 126" => personality != "tini",
        _ => false,
    }
}

fn surprises(column: &Column) -> Vec<String> {
    let peer = column.init.name.as_str();
    let mut found = Vec::new();
    for (case, verdict) in CASES.iter().zip(&column.verdicts) {
        match verdict {
            Some(Err(_)) if column.init.personality.as_deref().is_some_and(|name| is_kept(name, case.name)) => {}
            Some(Err(reason)) if !case.failed_by.contains(&peer) => {
                found.push(format!("{peer}: {}: {reason}", case.name))
            }
            Some(Ok(())) if case.failed_by.contains(&peer) => {
                found.push(format!("{peer}: {}: passes, although the list says that it fails", case.name));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn ours_passes_all_and_the_peers_fail_where_they_are_known_to() {
    assert!(is_root(), "pid namespaces need root: run as root");
    // SAFETY: before any thread of this test's own.
    unsafe { std::env::set_var("INIT_TESTS_PROBE", env!("CARGO_BIN_EXE_init-tests")) };
    let peers = ["/usr/bin/tini", "/usr/bin/dumb-init", "/usr/bin/catatonit"].map(PathBuf::from);
    let ours = our_init();
    let inits: Vec<Init> = std::iter::once(ours.clone())
        .chain(peers.into_iter().filter(|path| path.is_file()))
        .map(|path| Init::new(&path, None))
        .chain(["tini", "dumb-init", "catatonit"].map(|name| Init::new(&ours, Some(name))))
        .collect();
    let columns = matrix::run(&inits, "");
    let found: Vec<String> = columns.iter().flat_map(surprises).collect();
    assert!(found.is_empty(), "{}\n\n{}", found.join("\n"), matrix::show(&columns));
}
