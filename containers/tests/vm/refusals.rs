//! What can't be done is told by name, with what to do about it, before anything is left behind.

use crate::{
    harness::{BUSYBOX, INCEPTION, run},
    host::{Host, kernel},
};
use std::{fs, process::Command};

/// Runs `vm` where one file is hidden: in a mount namespace of its own.
fn without(host: &Host, file: &str, args: &[&str]) -> crate::harness::Ran {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        r#"mount --bind /dev/null "$0" && exec "$@""#,
        file,
    ]);
    command.args([INCEPTION, "vm"]).args(args);
    host.settle(&mut command);
    run(&mut command)
}

#[test]
fn a_missing_program_is_told_with_its_package() {
    let host = Host::start();
    for (file, package) in [("/usr/bin/qemu-system-x86_64", "qemu-system-x86"), ("/usr/sbin/mke2fs", "e2fsprogs")] {
        let file = fs::canonicalize(file).unwrap();
        let said = without(&host, file.to_str().unwrap(), &["run", BUSYBOX, "true"]);
        said.fails(125, &format!("apt-get install --no-install-recommends {package}"));
    }
    without(&host, "/usr/lib/grub/i386-pc/boot.img", &["build", BUSYBOX, "-o", "x"]).fails(1, "grub-pc-bin");
    assert_eq!(host.tell(&["ls", "-q"]).ok(), "");
}

#[test]
fn wrong_words_are_refused() {
    let host = Host::start();
    fs::write(host.path("file"), "").unwrap();
    for (args, expected) in [
        (&["-m", "1k"][..], "--memory 1k"),
        (&["--cpus", "0"], "--cpus 0"),
        (&["--root", "floppy"], "--root floppy"),
        (&["--machine", "pdp11"], "--machine pdp11"),
        (&["-p", "[::1]:1:1"], "over IPv4"),
        (&["-v", "/data"], "SOURCE:TARGET"),
        (&["-v", "./file:/file"], "name the folder that it is in"),
        (&["--name", "../x"], "is no name for a machine"),
        (&["-u", "nobody"], "unable to find user nobody"),
        (&["--kernel", "none"], "find the kernel none"),
        (&["--kernel", "file"], "start the machine"),
    ] {
        let mut command = host.vm(&["run", "--kernel"]);
        command.arg(kernel()).args(args).args([BUSYBOX, "true"]);
        // The last --kernel counts.
        if args[0] == "--kernel" {
            command = host.vm(&["run"]);
            command.args(args).args([BUSYBOX, "true"]);
        }
        run(&mut command).fails(125, expected);
    }
    host.run(&[BUSYBOX]).fails(125, "command");
    assert_eq!(host.tell(&["ls", "-q"]).ok(), "");
    assert_eq!(host.run(&["--rm", BUSYBOX, "not-there"]).code, 127);
}

/// Where no kernel is installed, the companion brings one.
#[test]
fn a_kernel_is_brought() {
    let host = Host::start();
    // Where apt has no lists yet, this has it get them.
    kernel();
    let said = run(&mut host.vm(&["run", "--rm", BUSYBOX, "uname", "-r"])).ok();
    assert!(said.contains("-cloud-"), "{said}");
}
