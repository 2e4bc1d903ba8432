//! `vm run`: what the service has, and what comes of it.

use crate::{
    harness::{BUSYBOX, busybox_archive},
    host::Host,
    peers::{Kind, Peer},
};
use nix::sys::signal::Signal;
use std::fs;

#[test]
fn the_service_has_what_a_container_has() {
    let host = Host::start();
    let script = "id; pwd; echo \"$A\"; echo $HOME; hostname; cat /etc/hosts; exit 7";
    let args = ["--rm", "--name", "m1", "-u", "www", "-w", "/usr", "-e", "A=b  c", BUSYBOX, "sh", "-c", script];
    let said = host.run(&args);
    assert_eq!(said.code, 7, "{said:?}");
    // As it is written, for a pipe: no terminal's line ends.
    let expected = "uid=33(www) gid=33(www) groups=33(www),44(extra)\n/usr\nb  c\n/home\nm1\n127.0.0.1\tlocalhost\n";
    assert!(said.stdout.starts_with(expected), "{:?}", said.stdout);
    assert_eq!(host.tell(&["ls", "-q"]).ok(), "");
}

#[test]
fn folders_and_volumes_are_shared() {
    let host = Host::start();
    fs::create_dir(host.path("shared")).unwrap();
    fs::write(host.path("shared/given"), "from the host\n").unwrap();
    let script = "cat /data/given; echo made >/data/made; chown 7:8 /data/made; echo kept >/volume/kept;
        mount -o remount,rw /fixed; echo x >/fixed/x || echo refused";
    let volumes = ["-v", "./shared:/data", "-v", "./shared:/fixed:ro", "-v", "things:/volume"];
    let said = host.run(&[&["--rm"], &volumes[..], &[BUSYBOX, "sh", "-c", script]].concat());
    assert_eq!(said.stdout, "from the host\nsh: can't create /fixed/x: Read-only file system\nrefused\n", "{said:?}");
    let made = fs::metadata(host.path("shared/made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 7);
    assert!(!host.path("shared/x").exists());
    let said = host.run(&["--rm", "-v", "things:/x:ro", "--root", "initramfs", BUSYBOX, "cat", "/x/kept"]);
    assert_eq!(said.ok(), "kept");
}

#[test]
fn a_pipe_is_the_services_input() {
    let host = Host::start();
    let text = "one\ntwo\nunfinished";
    let said = host.run_with_input(&["--rm", BUSYBOX, "sh", "-c", "cat; exit 3"], text.as_bytes());
    assert_eq!((said.code, said.stdout.as_str()), (3, text), "{said:?}");
}

#[test]
fn a_terminal_is_the_services_console() {
    let host = Host::start();
    let said = host.at_a_terminal(
        &["--rm", BUSYBOX, "sh"],
        &[
            ("# ", "stty size; tty; sleep 1000\r"),
            ("33 101\r\n", ""),
            ("/dev/ttyS0\r\n", "\x03"),
            ("# ", "exit $(($? - 100))\r"),
        ],
    );
    assert_eq!(said.code, 30, "{said:?}");
}

#[test]
fn a_terminal_can_be_left_and_taken_again() {
    let host = Host::start();
    let said = host.at_a_terminal(&["--name", "left", BUSYBOX, "sh"], &[("# ", "\x10\x11")]);
    assert_eq!(said.code, 0, "{said:?}");
    let attach = host.vm(&["attach", "left"]);
    let said = crate::sessions::at_a_terminal(attach, &[("", "echo a$((40 + 2))b\r"), ("a42b", "exit 9\r")]);
    assert_eq!(said.code, 9, "{said:?}");
    host.tell(&["attach", "left"]).fails(1, "vm start left");
}

#[test]
fn signals_stop_the_machine() {
    let host = Host::start();
    let script = "trap 'echo stopping; exit 5' TERM; echo runs; while :; do sleep 0.1; done";
    let mut running = host.spawn(&["--rm", BUSYBOX, "sh", "-c", script]);
    running.says("runs");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ends(), 5);
    assert!(running.said().contains("stopping"));
    let script = "trap 'echo interrupted' INT; trap 'exit 6' TERM; echo runs; while :; do sleep 0.1; done";
    let mut running = host.spawn(&["--rm", BUSYBOX, "sh", "-c", script]);
    running.says("runs");
    running.signal(Signal::SIGINT);
    running.says("interrupted");
    running.signal(Signal::SIGINT);
    assert_eq!(running.ends(), 6);
}

/// The faster of the two machine types; the usual one where there is KVM.
#[test]
fn a_microvm_boots() {
    let host = Host::start();
    let args = ["--rm", "--machine", "microvm", "--cpus", "2", "-m", "256m", BUSYBOX, "nproc"];
    assert_eq!(host.run(&args).ok(), "2");
}

#[test]
fn images_come_from_every_engine() {
    for kind in [Kind::Docker, Kind::Podman] {
        let peer = Peer::start(kind);
        let archive = peer.path("busybox.tar");
        busybox_archive(&archive);
        peer.docker(&["import", archive.to_str().unwrap(), BUSYBOX]).ok();
        let host = Host::at(&peer.host());
        assert_eq!(host.run(&["--rm", BUSYBOX, "echo", "from", "a", "peer"]).ok(), "from a peer");
    }
}
