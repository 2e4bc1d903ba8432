//! The matrix as a test: this project's init passes every case, and a peer fails where it is known to, and only there.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

use init_tests::cases::CASES;
use init_tests::guest::Folder;
use init_tests::harness::Init;
use init_tests::matrix::{self, Column};

mod built;

/// What every run of the cases needs. Root in its own user namespace is not enough: a case changes to other users.
fn begin() {
    static BEGUN: Once = Once::new();
    assert!(nix::unistd::geteuid().is_root(), "pid namespaces need root: run as root");
    // SAFETY: whoever reads the environment here comes by this first, and waits for it.
    BEGUN.call_once(|| unsafe { std::env::set_var("INIT_TESTS_PROBE", env!("CARGO_BIN_EXE_init-tests")) });
}

/// What a personality does as its peer, because that is documented there: it ends at once when the main program does,
/// and has the peer's exit codes.
fn is_kept(personality: &str, case: &str) -> bool {
    match case {
        "what is left gets TERM and time to finish"
        | "so does what called setsid"
        | "a program behind a shell gets TERM and time too"
        | "not PID 1: nothing is left behind" => true,
        "not found is 127" | "not executable is 126" => personality != "tini",
        // A session of its own has no part in the shell's terminal.
        "terminal: Ctrl-Z and fg under a shell" => personality == "dumb-init",
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
    begin();
    let peers = ["/usr/bin/tini", "/usr/bin/dumb-init", "/usr/bin/catatonit"].map(PathBuf::from);
    let ours = built::init().to_owned();
    let inits: Vec<Init> = std::iter::once(ours.clone())
        .chain(peers.into_iter().filter(|path| path.is_file()))
        .map(|path| Init::new(&path, None))
        .chain(["tini", "dumb-init", "catatonit"].map(|name| Init::new(&ours, Some(name))))
        .collect();
    let columns = matrix::run(&inits, "");
    let found: Vec<String> = columns.iter().flat_map(surprises).collect();
    assert!(found.is_empty(), "{}\n\n{}", found.join("\n"), matrix::show(&columns).1);
}

/// What qemu's emulation of a process does otherwise than Linux: its vfork is a fork, so that the child's reason for a
/// failed exec does not reach the init; it keeps signals for itself, takes fault signals for its own, and knows no
/// subreaper.
const NOT_EMULATED: [&str; 6] = [
    "killed by signal n is 128+n, for every deadly n up to 64",
    "not executable is 126",
    "signals 32 and 33 reach the service",
    "fault signals that a process sent reach the service",
    "the service's signals have their defaults",
    "not PID 1: nothing is left behind",
];

#[test]
fn built_for_aarch64_it_passes_the_cases_that_emulation_allows() {
    begin();
    let Some(init) = built::build(Some("aarch64")) else {
        assert!(Command::new("rustup").arg("--version").output().is_err(), "scripts/build-init failed");
        return eprintln!("skipped: without rustup there is no std for aarch64");
    };
    let folder = Folder::new("aarch64").unwrap();
    // Under a name of its own: the cases that all inits share.
    folder.put("emulated", format!("#!/bin/sh\nexec qemu-aarch64 {} \"$@\"\n", init.display())).unwrap();
    let columns = matrix::run(&[Init::new(&folder.0.join("emulated"), None)], "");
    for (case, verdict) in CASES.iter().zip(&columns[0].verdicts) {
        let is_ours = matches!(verdict, Some(Err(_))) && !NOT_EMULATED.contains(&case.name);
        assert!(!is_ours, "{}: {verdict:?}", case.name);
    }
}

/// The matrix in the pages has every case, and shows for each init what the list of cases says of it.
#[test]
fn the_pages_show_these_cases() {
    for page in ["README.md", "docs/init.md"] {
        let text =
            std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page)).unwrap();
        for case in CASES {
            let verdict = |peer| match (case.ours_only, case.failed_by.contains(&peer)) {
                (true, _) => " ",
                (false, true) => " **no**",
                (false, false) => " yes",
            };
            let [tini, dumb, catatonit] = ["tini", "dumb-init", "catatonit"].map(verdict);
            let line = format!("| {} | yes |{tini} |{dumb} |{catatonit} |", case.name);
            assert!(text.contains(&line), "{page} has no line {line}: make matrix");
        }
    }
}
