//! A stack under test: a copy of `Dockerfiles/` with its own settings, secrets and data, on some engine.

#![allow(dead_code, reason = "the benchmarks use a part of it, the tests another")]

use crate::{
    harness::{INCEPTION, Ran, eventually, run},
    peers::Machine,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Where clients run: on this machine, or in the network namespace that stands for another one.
pub struct Place<'a> {
    pub machine: Option<&'a Machine>,
}

impl Place<'_> {
    pub fn command(&self, program: &str) -> Command {
        match self.machine {
            Some(machine) => machine.command(program),
            None => Command::new(program),
        }
    }
}

/// Who reads the Compose file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Inception,
    DockerCompose,
}

pub struct Stack<'a> {
    pub place: Place<'a>,
    pub client: Client,
    /// `DOCKER_HOST`
    pub host: String,
    pub project: String,
    pub domain: String,
    pub port: u16,
    folder: tempfile::TempDir,
}

impl<'a> Stack<'a> {
    /// A fresh copy, as a clone would be; nothing runs yet.
    pub fn new(host: &str, client: Client, machine: Option<&'a Machine>) -> Stack<'a> {
        let folder = tempfile::Builder::new().prefix("inception-stack-").tempdir().unwrap();
        let source = repository().join("Dockerfiles");
        let copy = folder.path().join("Dockerfiles");
        run(Command::new("cp").arg("-a").arg(&source).arg(&copy)).ok();
        // What belongs to the person who runs the tests stays theirs.
        let _ = fs::remove_file(copy.join(".env"));
        let _ = fs::remove_dir_all(copy.join("secrets"));
        let port = free_port();
        let stack = Stack {
            place: Place { machine },
            client,
            host: host.to_string(),
            project: format!("stack{port}"),
            domain: "inception.localhost".into(),
            port,
            folder,
        };
        stack.setup(&[]).ok();
        stack.set("COMPOSE_PROJECT_NAME", &stack.project);
        stack
    }

    /// Runs `setup` with more variables in its environment.
    pub fn setup(&self, environment: &[(&str, &str)]) -> Ran {
        let mut command = Command::new(self.file("setup"));
        command.env("HTTPS_PORT", self.port.to_string()).env("DATA_DIR", self.data());
        run(command.envs(environment.iter().copied()))
    }

    /// A file of the stack's own copy of `Dockerfiles/`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("Dockerfiles").join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn setting(&self, name: &str) -> String {
        let settings = fs::read_to_string(self.file(".env")).unwrap();
        let line = settings.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name} in .env")).to_string()
    }

    /// Changes a setting, as a person would in an editor.
    pub fn set(&self, name: &str, value: &str) {
        let settings = fs::read_to_string(self.file(".env")).unwrap();
        let old = format!("{name}={}\n", self.setting(name));
        fs::write(self.file(".env"), settings.replace(&old, &format!("{name}={value}\n"))).unwrap();
    }

    pub fn secret(&self, name: &str) -> String {
        fs::read_to_string(self.file("secrets").join(name)).unwrap().trim_end().to_string()
    }

    /// Every password of the stack.
    pub fn secrets(&self) -> Vec<String> {
        let files = fs::read_dir(self.file("secrets")).unwrap();
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap().trim_end().to_string()).collect()
    }

    /// Compose's command line on this stack.
    pub fn compose(&self, args: &[&str]) -> Ran {
        let mut command = match self.client {
            Client::Inception => self.place.command(INCEPTION),
            Client::DockerCompose => self.place.command("docker-compose"),
        };
        let (verb, rest) = args.split_first().unwrap();
        let file = self.file("compose.yaml");
        match self.client {
            Client::Inception => command.arg(verb).arg("--file").arg(file),
            Client::DockerCompose => command.arg("--file").arg(file).arg(verb),
        };
        // The dashboard would wait for answers from outside, which a test neither asks nor gets.
        command.env("WORDPRESS_CONFIG_EXTRA", "define('WP_HTTP_BLOCK_EXTERNAL', true);");
        run(command
            .args(rest)
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_BUILDKIT", "0")
            .env("COMPOSE_DOCKER_CLI_BUILD", "0"))
    }

    /// Brings the stack up and waits for its front page; how long that took from the beginning.
    #[track_caller]
    pub fn up(&self) -> Duration {
        let began = Instant::now();
        self.compose(&["up", "-d"]).ok();
        self.wait();
        began.elapsed()
    }

    /// Waits until the front page is there.
    #[track_caller]
    pub fn wait(&self) {
        eventually(60, "the front page", || (self.status("/") == 200).then_some(()));
    }

    pub fn address(&self, path: &str) -> String {
        match self.port {
            443 => format!("https://{}{path}", self.domain),
            port => format!("https://{}:{port}{path}", self.domain),
        }
    }

    /// curl at a path of the site, ready for more arguments.
    pub fn curl(&self, path: &str) -> Command {
        let mut command = self.place.command("curl");
        command.args(["--silent", "--show-error", "--insecure", "--noproxy", "*", "--max-time", "30"]);
        command.args(["--resolve", &format!("{}:{}:127.0.0.1", self.domain, self.port)]).arg(self.address(path));
        command
    }

    /// The HTTP status of a path; 0 when there is no answer.
    pub fn status(&self, path: &str) -> u16 {
        let ran = run(self.curl(path).args(["--output", "/dev/null", "--write-out", "%{http_code}"]));
        ran.stdout.trim().parse().unwrap_or(0)
    }

    pub fn page(&self, path: &str) -> String {
        run(self.curl(path).arg("--fail")).ok()
    }

    /// The docker client at the stack's engine.
    pub fn docker(&self, args: &[&str]) -> Ran {
        run(Command::new("docker").env("DOCKER_HOST", &self.host).args(args))
    }

    /// The name of a service's container.
    #[track_caller]
    pub fn container(&self, service: &str) -> String {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={service}");
        let names =
            self.docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", &project, "--filter", &service]).ok();
        assert_eq!(names.lines().count(), 1, "one container of {service}: {names}");
        names
    }

    /// Runs a command in a service's container.
    pub fn exec(&self, service: &str, args: &[&str]) -> Ran {
        let container = self.container(service);
        self.docker(&[&["exec", &container], args].concat())
    }

    /// The first result of a field of `inspect`.
    pub fn inspect(&self, service: &str, format: &str) -> String {
        self.docker(&["inspect", "--format", format, &self.container(service)]).ok()
    }
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let project = format!("label=com.docker.compose.project={}", self.project);
            for name in self.docker(&["ps", "-aq", "--filter", &project]).stdout.split_whitespace() {
                let logs = self.docker(&["logs", "--tail", "25", name]);
                eprintln!("--- log of {name}:\n{}{}", logs.stdout, logs.stderr);
            }
        }
        self.compose(&["down", "-v"]);
    }
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
