//! The engines that start an init, each with this one in the place of its own: dockerd with `--init-path`, podman with
//! `--init-path`, and the project's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use init_tests::harness::{eventually, scratch};

mod built;

/// A root file system with busybox in it, and what an engine keeps beside it; all gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = scratch(name);
        for part in ["root/bin", "root/proc", "root/sys", "root/dev", "root/etc", "root/run", "root/tmp", "root/sbin"] {
            std::fs::create_dir_all(folder.join(part)).unwrap();
        }
        std::fs::copy("/bin/busybox", folder.join("root/bin/busybox")).expect("busybox-static is installed");
        for name in ["sh", "sleep", "true", "cat", "ps", "grep"] {
            std::os::unix::fs::symlink("busybox", folder.join("root/bin").join(name)).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn archive(&self) -> PathBuf {
        let archive = self.path("root.tar");
        let made = Command::new("tar").arg("-C").arg(self.path("root")).arg("-cf").arg(&archive).arg(".").status();
        assert!(made.unwrap().success());
        archive
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Engines leave the mounts of their stores behind.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = self.0.to_string_lossy().into_owned();
        let mut points: Vec<&str> =
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|point| point.starts_with(&own)).collect();
        points.sort_by_key(|point| std::cmp::Reverse(point.len()));
        for point in points {
            let _ = Command::new("umount").arg("-l").arg(point).status();
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A daemon, ended by TERM.
struct Daemon(Child, PathBuf);

impl Drop for Daemon {
    fn drop(&mut self) {
        // SAFETY: plain numbers, of a child that is not waited for yet.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        let _ = self.0.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.1).unwrap_or_default());
        }
    }
}

fn daemon(mut command: Command, log: PathBuf) -> Daemon {
    let file = std::fs::File::create(&log).unwrap();
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    Daemon(command.spawn().unwrap(), log)
}

/// What a command came to, as text.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The same for each engine: `client` is its command line, `start` the words to run a container of the image with.
fn serves(client: &dyn Fn() -> Command, start: &[&str]) {
    let run = |words: &[&str]| client().args(words).stdin(Stdio::null()).output().unwrap();
    let run_one = |options: &[&str], words: &[&str]| run(&[&["run"], options, start, words].concat());
    let ended = run_one(&["--rm"], &["sh", "-c", "exit 42"]);
    assert_eq!(ended.status.code(), Some(42), "{}", said(&ended));
    let killed = run_one(&["--rm"], &["sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.status.code(), Some(137), "{}", said(&killed));
    let missing = run_one(&["--rm"], &["no-such-program"]);
    assert_eq!(missing.status.code(), Some(127), "{}", said(&missing));
    // PID 1 is this project's program, whatever the engine calls it.
    let asked = run_one(&["--rm"], &["/proc/1/exe", "--version"]);
    assert!(said(&asked).starts_with("inception-init version "), "{}", said(&asked));
    // A service without a handler, which as PID 1 itself would ignore TERM.
    let started = run_one(&["-d", "--name", "service"], &["sleep", "1000"]);
    assert!(started.status.success(), "{}", said(&started));
    let in_it = |script: &str| run(&["exec", "service", "sh", "-c", script]);
    let orphaned = in_it("(sleep 0.05 &) ; exit 0");
    assert!(orphaned.status.success(), "{}", said(&orphaned));
    let has_zombie = || !in_it("! cat /proc/[0-9]*/stat | grep -q ') Z '").status.success();
    assert!(eventually(Duration::from_secs(20), || !has_zombie()), "a zombie is left");
    let stopped = run(&["stop", "-t", "30", "service"]);
    assert!(stopped.status.success(), "{}", said(&stopped));
    let code = run(&["inspect", "--format", "{{.State.ExitCode}}", "service"]);
    assert_eq!(said(&code).trim(), "143");
    let removed = run(&["rm", "-f", "service"]);
    assert!(removed.status.success(), "{}", said(&removed));
}

/// A client of Docker's API, which waits until the server answers and has the image.
fn docker(folder: &Folder, socket: &Path, server: &mut Daemon) -> impl Fn() -> Command {
    let (host, config) = (format!("unix://{}", socket.display()), folder.path("client"));
    let client = move || {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", &host).env("DOCKER_CONFIG", &config);
        command
    };
    let answers = || client().arg("version").output().is_ok_and(|output| output.status.success());
    let has_ended = |server: &mut Daemon| server.0.try_wait().unwrap().is_some();
    assert!(eventually(Duration::from_secs(60), || answers() || has_ended(server)) && answers(), "no server");
    let imported = client().arg("import").arg(folder.archive()).arg("busybox").output().unwrap();
    assert!(imported.status.success(), "{}", said(&imported));
    client
}

#[test]
fn dockerd_init_path() {
    let folder = Folder::new("dockerd");
    let socket = folder.path("sock");
    // In a network namespace of its own: it writes no rule and makes no bridge on the machine.
    let mut command = Command::new("unshare");
    command.args(["--net", "dockerd", "--bridge", "none", "--iptables=false", "--ip6tables=false", "--init"]);
    command.arg("--init-path").arg(built::init()).arg("--host").arg(format!("unix://{}", socket.display()));
    for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
        command.arg(option).arg(folder.path(name));
    }
    let mut server = daemon(command, folder.path("log"));
    let client = docker(&folder, &socket, &mut server);
    serves(&client, &["--network", "none", "busybox"]);
}

#[test]
fn podman_init_path() {
    let folder = Folder::new("podman");
    let configuration = "[containers]\ndefault_ulimits = []\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
                         runtime = \"runc\"\n";
    std::fs::write(folder.path("containers.conf"), configuration).unwrap();
    let client = || {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", folder.path("containers.conf")).env("TMPDIR", folder.path("root/tmp"));
        for (option, name) in [("--root", "data"), ("--runroot", "exec"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(folder.path(name));
        }
        command.args(["--storage-driver", "vfs"]);
        command
    };
    let imported = client().arg("import").arg(folder.archive()).arg("localhost/busybox").output().unwrap();
    assert!(imported.status.success(), "{}", said(&imported));
    let init = built::init().to_string_lossy().into_owned();
    let options = ["--init", "--init-path", &init, "--network", "none", "--ulimit", "host", "localhost/busybox"];
    serves(&client, &options);
}

/// `$INCEPTION`, as `make test` names it, or what `make companion` builds.
fn inception() -> PathBuf {
    let path = std::env::var_os("INCEPTION").map_or_else(
        || {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
            target.join("release/inception")
        },
        PathBuf::from,
    );
    assert!(path.is_file(), "{} is not built: make companion, or name it in INCEPTION", path.display());
    path
}

#[test]
fn the_projects_engine() {
    let folder = Folder::new("engine");
    let socket = folder.path("sock");
    let engine = || {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(inception()).arg("daemon").env("INCEPTION_INIT", built::init());
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec")] {
            command.arg(option).arg(folder.path(name));
        }
        command
    };
    let mut server = daemon(engine(), folder.path("log"));
    let client = docker(&folder, &socket, &mut server);
    serves(&client, &["--init", "--network", "none", "busybox"]);
    // A signal at once: the engine waits for the init's mask, so that none is lost.
    for count in 0..20 {
        let name = format!("at-once-{count}");
        let started = client()
            .args(["run", "-d", "--init", "--network", "none", "--name", &name, "busybox", "sleep", "1000"])
            .output();
        assert!(started.as_ref().unwrap().status.success(), "{}", said(&started.unwrap()));
        assert!(client().args(["kill", "--signal", "TERM", &name]).output().unwrap().status.success());
        let code = client().args(["wait", &name]).output().unwrap();
        assert_eq!(said(&code).trim(), "143", "the signal was lost");
        assert!(client().args(["rm", "-f", &name]).output().unwrap().status.success());
    }
    drop(client);
    drop(server);
    let ended = engine().arg("--teardown").output().unwrap();
    assert!(ended.status.success(), "{}", said(&ended));
}
