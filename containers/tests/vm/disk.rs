//! `vm build`: a disk boots by itself.

use crate::{
    harness::{BUSYBOX, run},
    host::{Host, kernel},
};
use std::{path::Path, process::Command};

/// Boots a disk as anybody would, to its end; what the console said.
fn boot(disk: &Path, interface: &str) -> String {
    let mut command = Command::new("timeout");
    command.args(["180", "qemu-system-x86_64", "-m", "256", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.arg("-drive").arg(format!("file={},format=raw,if={interface}", disk.display()));
    run(&mut command).ok()
}

#[test]
fn a_disk_boots_by_itself_and_keeps_what_is_written() {
    let host = Host::start();
    let mut build = host.vm(&["build", BUSYBOX, "-o", "disk.img", "-e", "A=b", "--kernel"]);
    build.arg(kernel()).args(["--", "sh", "-c", "echo $A $(hostname) >>/said; cat /said"]);
    run(&mut build).ok();
    let said = boot(&host.path("disk.img"), "virtio");
    assert!(said.contains("b busybox"), "{said}");
    // By the drive that qemu has where nothing else is said, too.
    let said = boot(&host.path("disk.img"), "ide").replace('\r', "");
    assert!(said.contains("b busybox\nb busybox"), "{said}");
}
