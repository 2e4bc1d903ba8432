//! The personalities beside the programs that they stand in for: the same words, the same exit code, the same first line.

use std::path::Path;
use std::process::{Command, Stdio};

mod built;

/// What came of a run: the exit code, stdout, and a version line on stderr.
fn outcome(mut command: Command) -> (Option<i32>, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    // tini's own diagnostics from -v on are on stdout, between the service's words; ours are on stderr.
    let is_service =
        |line: &&str| !["[INFO  tini", "[DEBUG tini", "[TRACE tini"].iter().any(|start| line.starts_with(start));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut said: Vec<&str> = text.lines().filter(is_service).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    said.extend(errors.lines().filter(|line| line.starts_with("dumb-init v")));
    (output.status.code(), said.join("\n"))
}

/// Runs both with the same words, which must come to the same.
fn agree(personality: &str, peer: &str, words: &[&str], variables: &[(&str, &str)]) -> Option<String> {
    let mut theirs = Command::new(peer);
    let mut ours = Command::new(built::init());
    ours.args(["--as", personality]);
    for command in [&mut theirs, &mut ours] {
        command.args(words).envs(variables.iter().copied());
    }
    let (theirs, ours) = (outcome(theirs), outcome(ours));
    let is_help = words.iter().any(|word| ["-h", "-l", "-L", "--help"].contains(word));
    let same = theirs.0 == ours.0 && (is_help || theirs.1 == ours.1);
    (!same).then(|| format!("{personality} {words:?} {variables:?}: {peer} {theirs:?}, ours {ours:?}"))
}

/// Every combination that says something about how words are read.
const TINI: &[&[&str]] = &[
    &[],
    &["--"],
    &["-h"],
    &["-l"],
    &["--version"],
    &["--version", "true"],
    &["-v"],
    &["-x"],
    &["-xyz", "true"],
    &["true"],
    &["--", "true"],
    &["--", "sh", "-c", "exit 9"],
    &["-g", "--", "sh", "-c", "echo said; exit 3"],
    &["-vvv", "--", "sh", "-c", "exit 4"],
    &["-e", "143", "--", "sh", "-c", "exit 143"],
    &["-e143", "--", "sh", "-c", "kill -TERM $$"],
    &["-e", "5", "-e6", "--", "sh", "-c", "exit 6"],
    &["-e", "256", "--", "true"],
    &["-e", "-1", "--", "true"],
    &["-e", "x", "--", "true"],
    &["-e"],
    &["-p", "SIGKILL", "--", "true"],
    &["-pSIGTERM", "true"],
    &["-p", "TERM", "--", "true"],
    &["-p", "15", "--", "true"],
    &["-p", "SIGNONE", "--", "true"],
    &["-p"],
    &["-s", "-w", "-g", "sh", "-c", "exit 2"],
    &["-gvs", "--", "sh", "-c", "exit 12"],
    &["sh", "--", "-c", "exit 8"],
    &["echo", "-g", "words"],
    &["/no/such/program"],
    &["no-such-program"],
    &["/etc/passwd"],
    &["/etc"],
    &["--", ""],
    &["-"],
    &["--", "sh", "-c", "kill -USR1 $$"],
    &["--", "sh", "-c", "kill -64 $$"],
];
const DUMB_INIT: &[&[&str]] = &[
    &[],
    &["--"],
    &["-h"],
    &["--help"],
    &["-V"],
    &["--version"],
    &["--vers"],
    &["--ver"],
    &["--nonsense"],
    &["-x"],
    &["true"],
    &["--", "sh", "-c", "exit 9"],
    &["-c", "sh", "-c", "exit 9"],
    &["--single-child", "sh", "-c", "echo said; exit 9"],
    &["--single", "--", "sh", "-c", "exit 9"],
    &["-cv", "sh", "-c", "exit 4"],
    &["-r", "15:2", "sh", "-c", "exit 5"],
    &["-r15:2", "--rewrite=1:0", "--rewrite", "2:3", "sh", "-c", "exit 5"],
    &["-r", "15", "true"],
    &["-r", "TERM:INT", "true"],
    &["-r", "0:2", "true"],
    &["-r", "32:1", "true"],
    &["-r", "1:32", "true"],
    &["-r", "1:-1", "true"],
    &["-r", "1:2:3", "true"],
    &["-r", ":1", "true"],
    &["-r", " 1:2", "true"],
    &["-r"],
    &["--single-child=x", "true"],
    &["echo", "-c", "--version"],
    &["/no/such/program"],
    &["no-such-program"],
    &["/etc/passwd"],
    &["--", "sh", "-c", "kill -TERM $$"],
];
const CATATONIT: &[&[&str]] = &[
    &[],
    &["--"],
    &["-h"],
    &["-L"],
    &["-V"],
    &["--version"],
    &["--vers"],
    &["-x"],
    &["--nonsense"],
    &["true"],
    &["--", "sh", "-c", "exit 9"],
    &["-g", "--", "sh", "-c", "echo said; exit 9"],
    &["echo", "-g", "word"],
    &["sh", "-c", "exit 3"],
    &["/no/such/program"],
    &["no-such-program"],
    &["/etc/passwd"],
    &["--", "sh", "-c", "kill -TERM $$"],
];

#[test]
fn they_come_to_what_their_originals_come_to() {
    let mut found: Vec<String> = Vec::new();
    let mut tried = 0;
    for (personality, peer, lines) in [
        ("tini", "/usr/bin/tini", TINI),
        ("tini-static", "/usr/bin/tini-static", TINI),
        ("docker-init", "/usr/bin/docker-init", TINI),
        ("dumb-init", "/usr/bin/dumb-init", DUMB_INIT),
        ("catatonit", "/usr/bin/catatonit", CATATONIT),
    ] {
        if !Path::new(peer).is_file() {
            continue;
        }
        tried += 1;
        found.extend(lines.iter().filter_map(|words| agree(personality, peer, words, &[])));
        let variables: &[(&str, &str)] = match personality {
            "dumb-init" => &[("DUMB_INIT_SETSID", "0"), ("DUMB_INIT_DEBUG", "1")],
            "catatonit" => &[("CATATONIT_DEBUG", "1")],
            _ => &[("TINI_SUBREAPER", ""), ("TINI_KILL_PROCESS_GROUP", ""), ("TINI_VERBOSITY", "3")],
        };
        for (name, value) in variables {
            found.extend(agree(personality, peer, &["sh", "--", "-c", "exit 3"], &[(name, value)]));
        }
        found.extend(agree(personality, peer, &["sh", "-c", "exit 3"], &[("POSIXLY_CORRECT", "1")]));
    }
    assert!(tried > 0, "no peer is installed");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// By its name alone, as an existing Dockerfile calls it.
#[test]
fn a_name_is_enough() {
    let folder = init_tests::harness::scratch("names");
    std::fs::create_dir(&folder).unwrap();
    for (name, version) in [
        ("tini", "tini version 0.19.0"),
        ("tini-static", "tini version 0.19.0"),
        ("docker-init", "tini version 0.19.0"),
        ("catatonit", "tini version 0.1.7_catatonit"),
    ] {
        std::os::unix::fs::symlink(built::init(), folder.join(name)).unwrap();
        let mut command = Command::new(folder.join(name));
        command.arg("--version");
        let (code, said) = outcome(command);
        assert_eq!((code, said.lines().next()), (Some(0), Some(version)), "{name}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
