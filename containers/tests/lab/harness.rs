//! Runs the lab as a user does, and looks for what it leaves behind.

use serde_json::Value;
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

pub const INCEPTION: &str = env!("CARGO_BIN_EXE_inception");

pub const ALTERNATIVES: [&str; 6] = ["none", "sh", "tini", "dumb-init", "catatonit", "inception-init"];

/// The exit code and the runs that `inception lab WORDS --json` printed.
pub fn lab(words: &[&str]) -> (i32, Vec<Value>) {
    read(Command::new(INCEPTION).arg("lab").args(words).arg("--json").output().unwrap())
}

/// The same as a user without rights, who can't reach the build folder.
pub fn lab_as_nobody(words: &[&str]) -> (i32, Vec<Value>) {
    let folder = tempfile::Builder::new().prefix("lab-test-").tempdir().unwrap();
    let programs = copied_to(folder.path());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(programs.join("inception"));
    read(command.current_dir("/").arg("lab").args(words).arg("--json").output().unwrap())
}

fn copied_to(folder: &Path) -> PathBuf {
    let init = std::env::var_os("INCEPTION_INIT")
        .map_or_else(|| Path::new(INCEPTION).parent().unwrap().join("../init/inception-init"), PathBuf::from);
    for (from, name) in [(Path::new(INCEPTION), "inception"), (&init, "inception-init")] {
        fs::copy(from, folder.join(name)).unwrap();
    }
    Command::new("chmod").arg("-R").arg("a+rX").arg(folder).status().unwrap();
    folder.to_owned()
}

fn read(output: Output) -> (i32, Vec<Value>) {
    let text = String::from_utf8(output.stdout).unwrap();
    let runs = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code().unwrap_or(-1), runs)
}

/// The run under this alternative.
pub fn under<'a>(runs: &'a [Value], alternative: &str) -> &'a Value {
    runs.iter().find(|run| run["alternative"] == alternative).unwrap()
}

/// What was measured under this name.
pub fn observed<'a>(run: &'a Value, name: &str) -> &'a Value {
    let observations = run["observations"].as_array().unwrap();
    let found = observations.iter().find(|observation| observation["name"] == name);
    &found.unwrap_or_else(|| panic!("{name} was not measured: {observations:?}"))["value"]
}

/// The events of a kind.
pub fn events<'a>(run: &'a Value, kind: &str) -> Vec<&'a Value> {
    run["recording"]["events"].as_array().unwrap().iter().filter(|event| event["kind"] == kind).collect()
}

/// A lab that is going on.
pub fn start(words: &[&str]) -> Child {
    // Whoever started the tests in the background of a shell had SIGINT ignored, which is inherited.
    let mut command = Command::new("env");
    command
        .args(["--default-signal=INT", INCEPTION, "lab"])
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Its end: the exit code, or 128+n where signal n ended it.
pub fn ended(lab: &mut Child) -> i32 {
    let status = lab.wait().unwrap();
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// Waits for a condition that needs a moment.
pub fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The processes of a lab's lessons: their PATH begins with its folder.
pub fn processes_of(lab: u32) -> Vec<String> {
    let mark = format!("inception-lab-{lab}-");
    let of_lab = |process: &fs::DirEntry| {
        fs::read(process.path().join("environ"))
            .is_ok_and(|text| text.windows(mark.len()).any(|part| part == mark.as_bytes()))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().filter(of_lab);
    processes.map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

/// Folders of a lab in the folder for temporary files.
pub fn folders_of(lab: u32) -> Vec<PathBuf> {
    let mark = format!("inception-lab-{lab}-");
    let entries = fs::read_dir(std::env::temp_dir()).unwrap().flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&mark)).collect()
}

/// Instances of a lab in tracefs, which is mounted for a moment where nobody else sees it.
pub fn instances_of(lab: u32) -> Vec<String> {
    let script = "mount -t tracefs tracefs /mnt && ls /mnt/instances";
    let output = Command::new("unshare").args(["--mount", "sh", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mark = format!("inception-lab-{lab}-");
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().filter(|name| name.starts_with(&mark)).map(str::to_owned).collect()
}
