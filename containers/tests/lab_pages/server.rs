//! A server of a test's own.

use crate::harness::INCEPTION;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
};

/// `inception lab serve`; ended when dropped.
pub struct Server {
    child: Child,
    /// What it says is to be opened.
    pub link: String,
    /// `127.0.0.1:PORT`
    pub host: String,
}

impl Server {
    pub fn start(options: &[&str]) -> Server {
        let mut command = Command::new(INCEPTION);
        command.args(["lab", "serve", "--listen", "127.0.0.1:0"]).args(options);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let link = line.split_whitespace().last().expect("an address").to_string();
        let host = link.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap().to_string();
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Server { child, link, host }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends the signal; the exit code.
    pub fn end(&mut self, signal: Signal) -> i32 {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        let status = self.child.wait().unwrap();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.end(Signal::SIGTERM);
        }
    }
}

/// An HTTP answer, by curl: the status, and the headers and body as text.
pub fn ask(server: &Server, path: &str, options: &[&str]) -> (u32, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--include"]).args(options);
    let output = command.arg(format!("http://{}{path}", server.host)).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(&output.stderr))), text)
}

/// A request as the page's own script makes it.
pub fn post(server: &Server, path: &str, body: &str) -> (u32, String) {
    ask(server, path, &["--header", "Content-Type: application/json", "--data", body])
}
