//! The OCI runtime's command line, as a shim uses it.

use inception_shim::{Config, Process};
use std::{
    fs,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// The runtime (runc, crun, youki) with its state folder and a log of its own.
pub struct Runtime<'a> {
    config: &'a Config,
    folder: PathBuf,
}

/// The stdio that the process gets; nothing of it where it has a terminal.
pub struct Stdio3 {
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

impl<'a> Runtime<'a> {
    /// `config.exit_file`'s folder holds the pid file and the runtime's log.
    pub fn new(config: &'a Config) -> Runtime<'a> {
        let folder = config.exit_file.parent().map(PathBuf::from).unwrap_or_default();
        Runtime { config, folder }
    }

    fn name(&self, suffix: &str) -> PathBuf {
        let stem =
            self.config.exit_file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        self.folder.join(format!("{stem}.{suffix}"))
    }

    /// Where the runtime writes the process's pid.
    pub fn pid_file(&self) -> PathBuf {
        match &self.config.process {
            Process::Exec { pid_file, .. } => pid_file.clone(),
            Process::Container { .. } => self.name("pid"),
        }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.config.runtime);
        command
            .arg("--root")
            .arg(&self.config.runtime_root)
            .arg("--log")
            .arg(self.name("runtime.log"))
            .args(["--log-format", "json"])
            .arg(verb)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// `run --detach`, or `exec --detach`: both leave a process behind that becomes the shim's child.
    pub fn start(&self, stdio: Stdio3, console: Option<&PathBuf>) -> std::io::Result<Child> {
        let mut command = match &self.config.process {
            Process::Container { bundle, .. } => {
                let mut command = self.command("run");
                command.args(["--detach", "--bundle"]).arg(bundle);
                command
            }
            Process::Exec { process_file, .. } => {
                let mut command = self.command("exec");
                command.args(["--detach", "--process"]).arg(process_file);
                command
            }
        };
        command.arg("--pid-file").arg(self.pid_file());
        if let Some(console) = console {
            command.arg("--console-socket").arg(console);
        }
        command.arg(&self.config.container_id);
        command.stdin(stdio.stdin).stdout(stdio.stdout).stderr(stdio.stderr).spawn()
    }

    /// `delete --force`, waited for.
    pub fn delete(&self) -> std::io::Result<Child> {
        self.command("delete").arg("--force").arg(&self.config.container_id).spawn()
    }

    /// What the runtime said last, and the exit code that a shell would see.
    pub fn failure(&self) -> (String, i32) {
        let text = fs::read_to_string(self.name("runtime.log")).unwrap_or_default();
        let message = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|line| line["level"] == "error" || line["level"] == "fatal")
            .filter_map(|line| line["msg"].as_str().map(String::from))
            .next_back()
            .unwrap_or_else(|| "the runtime failed without a word".into())
            // crun's words are the C library's; the docker client looks for Go's, and ends with 126 or 127 by them.
            .replace("No such file or directory", "no such file or directory")
            .replace("Permission denied", "permission denied");
        let code = if message.contains("no such file or directory") && message.contains("exec")
            || message.contains("executable file not found")
        {
            127
        } else if message.contains("permission denied") || message.contains("is a directory") {
            126
        } else {
            128
        };
        let what = match self.config.process {
            Process::Container { .. } => "OCI runtime create failed",
            Process::Exec { .. } => "OCI runtime exec failed",
        };
        (format!("{what}: {message}"), code)
    }

    /// Removes the files that only this run needed.
    pub fn tidy(&self) {
        for path in [self.pid_file(), self.name("runtime.log"), self.name("console")] {
            let _ = fs::remove_file(path);
        }
    }

    /// The socket on which the runtime hands the terminal over.
    pub fn console_socket(&self) -> PathBuf {
        self.config.socket.with_extension("tty")
    }
}

/// A pipe end as a child's stdio.
pub fn stdio(fd: OwnedFd) -> Stdio {
    Stdio::from(fd)
}
