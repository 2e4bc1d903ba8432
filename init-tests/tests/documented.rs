//! The exit codes of docs/init.md, row by row: a row that is not known here fails, so that none goes untested.

use std::process::{Command, Stdio};

mod built;

fn code(options: &[&str], command: &[&str]) -> Option<i32> {
    let mut init = Command::new(built::init());
    init.args(options).arg("--").args(command).stdin(Stdio::null()).stderr(Stdio::null());
    init.status().unwrap().code()
}

#[test]
fn every_documented_exit_code() {
    let page = include_str!("../../docs/init.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Exit codes")).unwrap();
    let manual = include_str!("../../docs/man/inception-init.8").split(".SH EXIT STATUS").nth(1).unwrap();
    let mut rows = 0;
    for line in section.lines().filter_map(|line| line.strip_prefix("| ")) {
        let Some((codes, _)) = line.split_once(" | ") else { continue };
        rows += 1;
        match codes {
            "code" => continue,
            "0-255" => {
                for wanted in [0, 1, 77, 255] {
                    assert_eq!(code(&[], &["sh", "-c", &format!("exit {wanted}")]), Some(wanted));
                }
                assert_eq!(code(&["--success", "9"], &["sh", "-c", "exit 9"]), Some(0));
            }
            "128+n" => {
                for signal in [1, 9, 15, 34, 64] {
                    assert_eq!(code(&[], &["sh", "-c", &format!("kill -{signal} $$")]), Some(128 + signal));
                }
            }
            "125" => {
                for options in [&["--nonsense"][..], &["--grace", "x"], &["--user", "nobody-of-this-name"]] {
                    assert_eq!(code(options, &["true"]), Some(125), "{options:?}");
                }
            }
            "126" => assert_eq!(code(&[], &["/etc/passwd"]), Some(126)),
            "127" => assert_eq!(code(&[], &["/no/such/program"]), Some(127)),
            other => panic!("no test knows the exit code {other}"),
        }
        assert!(codes == "0-255" || manual.contains(codes), "the manual page leaves out {codes}");
    }
    assert_eq!(rows, 6, "the table of exit codes was not found");
}
