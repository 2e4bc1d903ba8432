//! `docker exec`.

use crate::harness::{BUSYBOX, Engine, eventually};

#[test]
fn codes_users_folders_environment_and_input() {
    let engine = Engine::with_busybox();
    engine.docker(&["run", "-d", "--name", "box", "-e", "A=1", BUSYBOX, "sleep", "1000"]).ok();
    let exec = |args: &[&str]| engine.docker(&[&["exec"], args].concat());
    for _ in 0..10 {
        // The client asks for the code when the stream has ended: it is never 0 by mistake.
        exec(&["box", "sh", "-c", "exit 3"]).fails(3, "");
    }
    exec(&["box", "sh", "-c", "kill -9 $$"]).fails(137, "");
    exec(&["box", "no-such-program"]).fails(127, "executable file not found in $PATH");
    exec(&["box", "/etc/passwd"]).fails(126, "permission denied");
    exec(&["-u", "nobody-here", "box", "id"]).fails(126, "unable to find user nobody-here");
    exec(&["none-such", "true"]).fails(1, "No such container: none-such");
    let said = exec(&["-u", "www", "-w", "/tmp", "-e", "B=2", "box", "sh", "-c", "id -un; pwd; echo $A$B"]).ok();
    assert_eq!(said, "www\n/tmp\n12");
    assert_eq!(engine.docker_with_input(&["exec", "-i", "box", "cat"], b"x\n").ok(), "x");
    let big = vec![b'x'; 1_000_000];
    assert_eq!(engine.docker_with_input(&["exec", "-i", "box", "wc", "-c"], &big).ok(), "1000000");
    exec(&["-d", "box", "touch", "/tmp/made"]).ok();
    eventually(10, "the detached command has run", || {
        (exec(&["box", "test", "-e", "/tmp/made"]).code == 0).then_some(())
    });
    // As confined as the container itself.
    let status = exec(&["box", "grep", "-E", "CapEff|Seccomp:", "/proc/self/status"]).ok();
    assert_eq!(status, "CapEff:\t00000000a80425fb\nSeccomp:\t2");
    assert!(
        exec(&["--privileged", "box", "grep", "CapEff", "/proc/self/status"]).ok() > "CapEff:\t00000000a80425fb".into()
    );
    // Sessions leave no files of theirs.
    eventually(10, "no session's files are left", || {
        std::fs::read_dir(engine.path("exec/exec")).unwrap().next().is_none().then_some(())
    });
}
