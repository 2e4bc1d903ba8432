//! Whom the served page does not answer, and what it does not do.

use crate::{
    harness::INCEPTION,
    lab::{folders_of, instances_of, processes_of, soon},
    server::{Server, ask, post},
};
use nix::sys::signal::Signal;
use std::process::Command;

const JSON: &str = "Content-Type: application/json";
const RUN: &str = r#"{"lesson":"clean-up","alternatives":["tini","none"],"hold":true}"#;

#[test]
fn foreign_hosts_and_origins() {
    let server = Server::start(&[]);
    let port = server.host.rsplit(':').next().unwrap();
    let (status, text) = ask(&server, "/", &[]);
    assert_eq!(status, 200);
    let policy = text.lines().find(|line| line.starts_with("content-security-policy: ")).expect("a policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!text.to_lowercase().contains("access-control-allow"), "{text}");
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "192.0.2.1"] {
        let header = format!("Host: {host}:{port}");
        assert_eq!(ask(&server, "/", &["--header", &header]).0, 403, "{host}");
        assert_eq!(ask(&server, "/run", &["--header", &header, "--header", JSON, "--data", RUN]).0, 403, "{host}");
    }
    for foreign in
        ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"]
    {
        assert_eq!(ask(&server, "/run", &["--header", foreign, "--header", JSON, "--data", RUN]).0, 403, "{foreign}");
        assert_eq!(ask(&server, "/events", &["--header", foreign]).0, 403, "{foreign}");
    }
    // What a form of another site could send.
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        assert_eq!(
            ask(&server, "/run", &["--header", &format!("Content-Type: {kind}"), "--data", RUN]).0,
            403,
            "{kind}"
        );
    }
    assert_eq!(processes_of(server.id()), Vec::<String>::new(), "none of these ran anything");
}

#[test]
fn only_lessons_and_only_their_processes() {
    let server = Server::start(&[]);
    for body in [
        r#"{"lesson":"../../bin/sh","alternatives":["none"],"hold":false}"#,
        r#"{"lesson":"clean-up","alternatives":["/bin/sh"],"hold":false}"#,
        r#"{"lesson":"clean-up","alternatives":[],"hold":false}"#,
        "{",
    ] {
        let (status, text) = post(&server, "/run", body);
        assert!((400..500).contains(&status), "{body}: {text}");
    }
    assert_eq!(post(&server, "/signal", r#"{"pid":1,"signal":"CONT"}"#).0, 409, "nothing runs");
    assert_eq!(post(&server, "/run", RUN).0, 202);
    soon("the lesson runs", || processes_of(server.id()).len() >= 4);
    assert_eq!(post(&server, "/run", RUN).0, 409, "one at a time");
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    for pid in [other.id(), server.id(), std::process::id(), 1] {
        let body = format!(r#"{{"pid":{pid},"signal":"KILL"}}"#);
        assert_eq!(post(&server, "/signal", &body).0, 409, "{pid}");
    }
    for pid in ["0", "-1", "-2147483648"] {
        assert_eq!(post(&server, "/signal", &format!(r#"{{"pid":{pid},"signal":"KILL"}}"#)).0, 409, "{pid}");
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(other.try_wait().unwrap().is_none(), "a process that is not the lesson's was signalled");
    other.kill().unwrap();
    other.wait().unwrap();
    let own = processes_of(server.id());
    assert_eq!(post(&server, "/signal", &format!(r#"{{"pid":{},"signal":"TERM; KILL"}}"#, own[0])).0, 400);
    assert_eq!(post(&server, "/end", "{}").0, 202);
    soon("processes are left", || processes_of(server.id()).is_empty());
}

#[test]
fn beyond_loopback_only_with_a_token() {
    let output = Command::new(INCEPTION).args(["lab", "serve", "--listen", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--token"));
    for words in [&["lab", "1", "--token"][..], &["lab", "serve", "--json"]] {
        assert_eq!(Command::new(INCEPTION).args(words).output().unwrap().status.code(), Some(2), "{words:?}");
    }

    let server = Server::start(&["--token"]);
    let (_, token) = server.link.split_once("?token=").expect("a token in the link");
    assert_eq!(ask(&server, "/", &[]).0, 401);
    assert_eq!(post(&server, "/run", RUN).0, 401);
    assert_eq!(ask(&server, "/?token=0123456789abcdef0123456789abcdef", &[]).0, 401);
    let (status, text) = ask(&server, &format!("/?token={token}"), &[]);
    assert_eq!(status, 303);
    let cookie = text.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(ask(&server, "/", &["--header", &cookie]).0, 200);
}

/// While a lesson runs and a browser watches.
#[test]
fn nothing_is_left_after_ctrl_c() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut server = Server::start(&[]);
        assert_eq!(post(&server, "/run", RUN).0, 202);
        let mut browser = Command::new("curl");
        let address = format!("http://{}/events", server.host);
        let mut browser = browser.args(["--silent", "--no-buffer", "--output", "/dev/null", &address]).spawn().unwrap();
        soon("the lesson runs", || processes_of(server.id()).len() >= 4);
        assert_eq!((folders_of(server.id()).len(), instances_of(server.id()).len()), (1, 1));
        assert_eq!(server.end(signal), code);
        browser.wait().unwrap();
        soon("processes are left", || processes_of(server.id()).is_empty());
        assert_eq!((folders_of(server.id()).len(), instances_of(server.id()).len()), (0, 0));
    }
}
