//! `inception lab check -- COMMAND`: what is found wrong, the line that mends it, and the exit status for CI.

use crate::harness::INCEPTION;
use serde_json::Value;
use std::process::Command;

fn check(command: &[&str]) -> (i32, Value) {
    let output =
        Command::new(INCEPTION).args(["lab", "check", "--json", "--grace", "1", "--"]).args(command).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code().unwrap(), report)
}

/// The names of the points with this verdict.
fn points<'a>(report: &'a Value, verdict: &str) -> Vec<&'a str> {
    let points = report["points"].as_array().unwrap().iter();
    points.filter(|point| point["verdict"] == verdict).map(|point| point["name"].as_str().unwrap()).collect()
}

fn init() -> String {
    let path = std::path::Path::new(INCEPTION).parent().unwrap().join("../init/inception-init");
    std::env::var("INCEPTION_INIT").unwrap_or_else(|_| path.to_str().unwrap().to_owned())
}

fn a_program_without_handlers() {
    let (code, report) = check(&["sleep", "1000"]);
    assert_eq!(points(&report, "wrong"), ["waits for orphans", "Ctrl-C is heard", "stops at SIGTERM"]);
    assert_eq!((code, &report["wrong"]), (3, &Value::from(3)));
    let stop = &report["points"][2];
    assert!(stop["measured"].as_str().unwrap().contains("exit status 137"), "{stop}");
    assert_eq!(stop["remedy"], "ENTRYPOINT [\"inception-init\", \"--\"]\nCMD [\"sleep\", \"1000\"]");
}

fn the_same_under_the_init() {
    let (code, report) = check(&[&init(), "--", "sleep", "1000"]);
    assert_eq!(points(&report, "wrong"), [""; 0], "{report}");
    assert_eq!((code, points(&report, "right").len()), (0, 5));
}

fn a_shell_that_hides_the_exit_code() {
    let (code, report) = check(&["tini", "--", "sh", "-c", "perl -e '$SIG{TERM} = \"IGNORE\"; sleep 1000'; true"]);
    assert_eq!(points(&report, "wrong"), ["lets everything clean up", "exit code is seen outside"], "{report}");
    assert_eq!(code, 3);
}

fn a_service_that_goes_to_the_background() {
    let (code, report) = check(&["sh", "-c", "setsid sleep 1000 & exit 0"]);
    assert_eq!((code, points(&report, "wrong")), (3, vec!["stays in the foreground"]));
    assert!(report["points"][0]["remedy"].as_str().unwrap().contains("--wait-all"));
    let (code, report) = check(&["true"]);
    assert_eq!((code, points(&report, "wrong")), (0, vec![]));
}

fn what_can_not_be_run() {
    let run = |words: &[&str]| {
        let output = Command::new(INCEPTION).args(["lab", "check"]).args(words).output().unwrap();
        output.status.code().unwrap()
    };
    assert_eq!([run(&["--", "/no/such"]), run(&["--", "/etc/passwd"]), run(&["--"]), run(&[])], [127, 126, 2, 2]);
}

fn plain_lines() {
    let output =
        Command::new(INCEPTION).args(["lab", "check", "--grace", "1", "--", "sh", "-c", "sleep 1000"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(text.contains("WRONG  stops at SIGTERM: exit status 137"), "{text}");
    // The shell form is mended by the exec form.
    assert!(text.contains("| CMD [\"sleep\", \"1000\"]") && text.contains("1 point is wrong"), "{text}");
}

/// Side by side: they mostly wait.
#[test]
fn commands() {
    std::thread::scope(|scope| {
        for check in [
            a_program_without_handlers,
            the_same_under_the_init,
            a_shell_that_hides_the_exit_code,
            a_service_that_goes_to_the_background,
            what_can_not_be_run,
            plain_lines,
        ] {
            scope.spawn(check);
        }
    });
}

/// An image's own command, in a container that an engine of the test's own runs; nothing is left of it.
#[test]
fn images() {
    let engine = Engine::start();
    engine.import("mute:1", "CMD [\"sleep\", \"1000\"]");
    engine.import("quick:1", "CMD [\"true\"]");
    let run = |image: &str| {
        let words = ["lab", "check", "--json", "--grace", "1", image];
        let output = Command::new(INCEPTION).env("DOCKER_HOST", engine.host()).args(words).output().unwrap();
        (output.status.code().unwrap(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default())
    };
    let (code, report) = run("mute:1");
    assert_eq!((code, &report["command"]), (3, &Value::from("sleep 1000")));
    assert_eq!(points(&report, "wrong"), ["waits for orphans", "Ctrl-C is heard", "stops at SIGTERM"]);
    assert!(report["points"][2]["measured"].as_str().unwrap().contains("exit status 137"), "{report}");
    let (code, report) = run("quick:1");
    assert_eq!((code, points(&report, "wrong")), (0, vec![]), "{report}");
    assert_eq!(run("nosuch:1").0, 1);
    assert_eq!(engine.docker(&["ps", "-aq"]), "");
}

/// An embedded engine in a folder of the test's own. Its containers have no network.
struct Engine {
    folder: tempfile::TempDir,
    daemon: std::process::Child,
}

impl Engine {
    fn start() -> Engine {
        let folder = tempfile::Builder::new().prefix("lab-test-").tempdir().unwrap();
        let mut command = Self::program(folder.path());
        let daemon = command.args(["--default-address-pool", "base=198.18.64.0/20,size=24"]).spawn().unwrap();
        let engine = Engine { folder, daemon };
        crate::harness::soon("the engine answers", || {
            std::os::unix::net::UnixStream::connect(engine.folder.path().join("sock")).is_ok()
        });
        engine
    }

    fn program(folder: &std::path::Path) -> Command {
        let mut command = Command::new(INCEPTION);
        command.args(["daemon", "--host", &format!("unix://{}/sock", folder.display())]);
        command.arg("--data-root").arg(folder.join("data")).arg("--exec-root").arg(folder.join("exec"));
        command.stderr(std::process::Stdio::null());
        command
    }

    fn host(&self) -> String {
        format!("unix://{}/sock", self.folder.path().display())
    }

    fn docker(&self, words: &[&str]) -> String {
        let output = Command::new("docker").env("DOCKER_HOST", self.host()).args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// An image of a static busybox with this instruction.
    fn import(&self, name: &str, change: &str) {
        let path = self.folder.path().join("image.tar");
        let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
        for applet in ["sleep", "true"] {
            tar.append_path_with_name("/bin/busybox", format!("bin/{applet}")).unwrap();
        }
        tar.finish().unwrap();
        self.docker(&["import", "--change", change, path.to_str().unwrap(), name]);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.daemon.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.daemon.wait();
        let _ = Self::program(self.folder.path()).arg("--teardown").output();
    }
}
