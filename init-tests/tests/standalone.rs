//! Under a service manager: what docs/standalone.md says of the journal and of the watchdog.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

mod built;

#[test]
fn lines_for_the_journal_have_priorities() {
    let path = std::env::temp_dir().join(format!("init-tests-{}-journal", std::process::id()));
    let said = |stream: &dyn Fn(&std::fs::Metadata) -> String| {
        let file = std::fs::File::create(&path).unwrap();
        let about = file.metadata().unwrap();
        let mut init = Command::new(built::init());
        init.args(["-vv", "--", "/no/such/program"]).env("JOURNAL_STREAM", stream(&about)).stderr(file);
        assert_eq!(init.status().unwrap().code(), Some(127));
        let init = Command::new(built::init())
            .args(["-vv", "--", "true"])
            .env("JOURNAL_STREAM", stream(&about))
            .stderr(std::fs::OpenOptions::new().append(true).open(&path).unwrap())
            .status();
        assert!(init.unwrap().success());
        std::fs::read_to_string(&path).unwrap()
    };
    let text = said(&|about| format!("{}:{}", about.dev(), about.ino()));
    assert!(text.starts_with("<4>inception-init: can't run /no/such/program"), "{text}");
    assert!(text.lines().skip(1).all(|line| line.starts_with("<6>inception-init: ")), "{text}");
    // Somebody else's stream.
    let text = said(&|about| format!("{}:{}", about.dev(), about.ino() + 1));
    let _ = std::fs::remove_file(&path);
    assert!(text.lines().count() > 2 && text.lines().all(|line| line.starts_with("inception-init: ")), "{text}");
}

#[test]
fn a_supervisors_watchdog_is_the_services_to_answer() {
    let path = std::env::temp_dir().join(format!("init-tests-{}-supervisor", std::process::id()));
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (out, end) = UnixStream::pair().unwrap();
    let probe = env!("CARGO_BIN_EXE_init-tests");
    let script = format!(
        "echo \"$WATCHDOG_USEC,$WATCHDOG_PID,$NOTIFY_SOCKET\"; exec {probe} probe notify READY=1\\\\nWATCHDOG=1"
    );
    let mut init = Command::new(built::init())
        .args(["--notify", "--", "sh", "-c", &script])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "3000000")
        .env("WATCHDOG_PID", "1")
        .stdout(Stdio::from(OwnedFd::from(end)))
        .spawn()
        .unwrap();
    let mut buffer = [0; 100];
    let heard = supervisor.recv(&mut buffer);
    let _ = std::fs::remove_file(&path);
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(init.id() as i32), nix::sys::signal::Signal::SIGTERM);
    init.wait().unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer[..heard.unwrap()]), "READY=1\nWATCHDOG=1");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    assert!(line.starts_with("3000000,,@"), "{line}");
}
