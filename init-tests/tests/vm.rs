//! The init as a machine's PID 1, from the machine's point of view: what is booted, what it says, how it ends.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use init_tests::guest::{Archive, Ended, Kernel, Machine};

mod built;

static KERNEL: LazyLock<Kernel> = LazyLock::new(|| Kernel::find().expect("a kernel: scripts/vm-kernel"));
const LIMIT: Duration = Duration::from_secs(30);

/// An initramfs with the init, busybox, and a configuration.
fn archive(configuration: &str) -> Archive {
    Archive::default()
        .busybox()
        .copy("/init", Path::new(&built::init()))
        .file("/etc/inception-init.conf", format!("status = debug-exit\n{configuration}"))
}

fn run(configuration: &str, words: &str) -> Ended {
    Machine::new(&KERNEL, archive(configuration)).unwrap().words(words).run(LIMIT).unwrap()
}

fn shell(script: &str) -> String {
    format!("arg = sh\narg = -c\narg = {script}\n")
}

#[test]
fn a_service_runs_and_its_exit_code_is_the_machines() {
    let ended = run(&shell("echo hello $$ $PPID; tty; ls -l /dev/fd /dev/stdin; cat /proc/mounts; exit 7"), "");
    println!("{} {:?}", ended.console, ended.took);
    assert_eq!(ended.code, Some(7));
}
