//! Cases about what the service says by sd_notify(3).

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cases::{Verdict, begin, check, expect, probe};
use crate::harness::{Init, LIMIT, Place, children, eventually, finish, probe_program, scratch};

pub fn ready_file(init: &Init) -> Verdict {
    for place in [Place::Pid1, Place::Ordinary] {
        let file = scratch("ready-file");
        std::fs::write(&file, "of a run before").map_err(|error| error.to_string())?;
        let mut command = probe(
            init,
            &["--ready-file", &file.to_string_lossy()],
            &["notify", "wait", "READY=1", "wait", "STOPPING=1", "sleep"],
        );
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = crate::harness::spawn(command, place).map_err(|error| error.to_string())?;
        let mut input = child.stdin.take().ok_or("no stdin")?;
        let out = child.stdout.take().ok_or("no stdout")?;
        let mut running = crate::harness::Running { child, out: std::io::BufReader::new(out) };
        let mut go_on = || std::io::Write::write_all(&mut input, b"\n").map_err(|error| error.to_string());
        check(eventually(LIMIT, || !file.exists()), || "the old file is there before READY=1".into())?;
        go_on()?;
        check(eventually(LIMIT, || file.exists()), || "no file after READY=1".into())?;
        go_on()?;
        check(eventually(LIMIT, || !file.exists()), || "the file is there after STOPPING=1".into())?;
        running.signal(libc::SIGTERM);
        expect("TERM", running.wait(LIMIT)?, 143)?;
    }
    Ok(())
}

pub fn unready_by_stop(init: &Init) -> Verdict {
    let file = scratch("ready-file");
    let options = ["--ready-file", &file.to_string_lossy(), "--stop-delay", "30"];
    let mut running = begin(probe(init, &options, &["notify", "READY=1", "sleep"]), Place::Pid1)?;
    check(eventually(LIMIT, || file.exists()), || "no file after READY=1".into())?;
    running.signal(libc::SIGTERM);
    check(eventually(LIMIT, || !file.exists()), || "the file is there after TERM".into())?;
    check(matches!(running.child.try_wait(), Ok(None)), || "the delay was not kept".into())?;
    // The second one does not wait.
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)
}

pub fn watchdog(init: &Init) -> Verdict {
    let silent = probe(init, &["--watchdog", "0.3"], &["notify", "READY=1", "sleep"]);
    expect("silent", finish(silent, Place::Pid1)?.0, 134)?;
    let stuck = probe(init, &["--watchdog", "1h"], &["notify", "WATCHDOG=trigger", "sleep"]);
    expect("stuck", finish(stuck, Place::Pid1)?.0, 134)?;
    let again = ["--watchdog", "0.2", "--restart", "on-failure:1"];
    let (code, said) = finish(probe(init, &again, &["notify", "WATCHDOG=1", "sleep"]), Place::Pid1)?;
    expect("silent again", code, 134)?;
    check(said.lines().count() == 2, || format!("ran {} times", said.lines().count()))?;
    // The time that the service asked for holds: it says no more than this, and lives on.
    let slow = probe(init, &["--watchdog", "10"], &["notify", "WATCHDOG_USEC=3600000000", "sleep"]);
    let mut running = begin(slow, Place::Pid1)?;
    running.line()?;
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)
}

pub fn main_pid(init: &Init) -> Verdict {
    for place in [Place::Pid1, Place::Ordinary] {
        let mut running = begin(probe(init, &["--notify"], &["notify", "daemon", "READY=1", "sleep"]), place)?;
        running.line()?;
        running.line()?;
        let pid = running.pid();
        // The process that was started ends with 7; the other goes on, is adopted, and gets the signal.
        check(eventually(LIMIT, || children(pid).len() == 1), || "the first process lives on".into())?;
        std::thread::sleep(Duration::from_millis(50));
        check(matches!(running.child.try_wait(), Ok(None)), || "the init has ended with the first process".into())?;
        running.signal(libc::SIGTERM);
        expect("TERM", running.wait(LIMIT)?, 143)?;
    }
    Ok(())
}

pub fn strangers(init: &Init) -> Verdict {
    let file = scratch("ready-file");
    let script = "echo $NOTIFY_SOCKET; read word; exec \"$@\"";
    let program = probe_program().to_string_lossy().into_owned();
    for place in [Place::Pid1, Place::Ordinary] {
        let options = ["--ready-file", &file.to_string_lossy()];
        let words = ["sh", "-c", script, "sh", &program, "probe", "notify", "READY=1", "sleep"];
        let mut command = init.command(&options, &words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = crate::harness::spawn(command, place).map_err(|error| error.to_string())?;
        let mut input = child.stdin.take().ok_or("no stdin")?;
        let out = child.stdout.take().ok_or("no stdout")?;
        let mut running = crate::harness::Running { child, out: std::io::BufReader::new(out) };
        let name = running.line()?;
        let stranger = Command::new(&program).args(["probe", "notify", "READY=1"]).env("NOTIFY_SOCKET", name).output();
        let said = stranger.map_err(|error| error.to_string())?;
        check(said.stdout == b"sent\n", || format!("{said:?}"))?;
        // The service's own message comes after it; a stranger's would have been heard by then.
        check(!file.exists(), || "a stranger's message was heard".into())?;
        let _ = std::io::Write::write_all(&mut input, b"\n");
        running.line()?;
        check(eventually(LIMIT, || file.exists()), || "the service's message was not heard".into())?;
        running.signal(libc::SIGTERM);
        expect("TERM", running.wait(LIMIT)?, 143)?;
    }
    Ok(())
}

pub fn outer_socket(init: &Init) -> Verdict {
    let path = scratch("outer");
    let outer = UnixDatagram::bind(&path).map_err(|error| error.to_string())?;
    outer.set_read_timeout(Some(LIMIT)).map_err(|error| error.to_string())?;
    let mut command = probe(init, &["--notify"], &["notify", "READY=1\\nMAINPID=1\\nSTATUS=well", "sleep"]);
    command.env("NOTIFY_SOCKET", &path);
    let mut running = begin(command, Place::Pid1)?;
    let mut buffer = [0; 100];
    let heard = outer.recv(&mut buffer).map_err(|error| error.to_string());
    let _ = std::fs::remove_file(&path);
    let heard = String::from_utf8_lossy(&buffer[..heard?]).into_owned();
    check(heard == "READY=1\nSTATUS=well", || format!("heard {heard:?}"))?;
    running.signal(libc::SIGTERM);
    expect("TERM", running.wait(LIMIT)?, 143)
}
