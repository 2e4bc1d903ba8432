//! The init as a machine's PID 1, from the machine's point of view: what is booted, what it says, how it ends. Every
//! machine ends by itself, within its limit, with the documented code.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use init_tests::guest::{Archive, Ended, Folder, Kernel, Machine, Running, disk, has_hardware};

mod built;

static KERNEL: LazyLock<Kernel> = LazyLock::new(|| Kernel::find().expect("a kernel: scripts/vm-kernel"));
/// Of which half is the emulation's own, where the processor's virtualization can't be used.
const LIMIT: Duration = Duration::from_secs(60);

/// Two machines at a time, however many tests run.
fn permit() -> MutexGuard<'static, ()> {
    static PLACES: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    loop {
        for place in &PLACES {
            match place.try_lock() {
                Ok(permit) => return permit,
                Err(std::sync::TryLockError::Poisoned(permit)) => return permit.into_inner(),
                Err(std::sync::TryLockError::WouldBlock) => {}
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An initramfs with the init, busybox, and a configuration.
fn archive(configuration: &str) -> Archive {
    bare(configuration).busybox()
}

fn bare(configuration: &str) -> Archive {
    let configuration = format!("status = debug-exit\n{configuration}");
    Archive::default()
        .folder("/etc")
        .copy("/init", Path::new(&built::init()))
        .file("/etc/inception-init.conf", configuration)
}

/// One with modules, whose lines come before the rest of the configuration.
fn archive_with(modules: &[&str], configuration: &str) -> Archive {
    archive_for(&KERNEL, modules, configuration)
}

fn archive_for(kernel: &Kernel, modules: &[&str], configuration: &str) -> Archive {
    let (archive, lines) = Archive::default().busybox().modules(kernel, modules);
    let configuration = format!("status = debug-exit\n{lines}{configuration}");
    archive.copy("/init", Path::new(&built::init())).file("/etc/inception-init.conf", configuration)
}

fn machine(archive: Archive) -> Machine {
    Machine::new(&KERNEL, archive).unwrap()
}

fn run(configuration: &str, words: &str) -> Ended {
    let _permit = permit();
    machine(archive(configuration)).words(words).run(LIMIT).unwrap()
}

fn shell(script: &str) -> String {
    format!("arg = sh\narg = -c\narg = {script}\n")
}

#[track_caller]
fn ends_with(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.console);
    for part in parts {
        assert!(ended.console.contains(part), "no `{part}`:\n{}", ended.console);
    }
    assert!(!ended.console.contains("Kernel panic"), "{}", ended.console);
}

#[test]
fn a_service_has_a_system_and_a_terminal() {
    let script = "tty; cat /proc/$$/stat | cut -d' ' -f1,6,7,8 ; ls -l /dev/fd /dev/stderr | wc -l; \
                  grep -c -E ' /(proc|sys|dev|dev/pts|dev/shm|run|tmp|sys/fs/cgroup) ' /proc/mounts; \
                  ip addr show lo | grep -c LOOPBACK,UP; echo x | cat > /dev/stdout; \
                  /init -v -- true 2>&1 | grep -c started; exit 7";
    let ended = run(&shell(script), "");
    ends_with(&ended, 7, &["/dev/ttyS0"]);
    let lines: Vec<&str> = ended.console.lines().skip_while(|line| !line.contains("/dev/ttyS0")).collect();
    // Leader of its session, and in the foreground of its terminal.
    let ids: Vec<&str> = lines[1].split(' ').collect();
    assert!(ids[0] == ids[1] && ids[0] == ids[3] && ids[2] == "1088", "{lines:?}");
    assert_eq!(lines[2..], ["2", "8", "1", "x", "1"]);
}

#[test]
fn who_sits_at_the_console_types_and_interrupts() {
    let archive = archive(&shell("echo ready; read line; echo got $line; sleep 100"));
    let _permit = permit();
    let mut running = machine(archive).start().unwrap();
    running.wait_for("ready", LIMIT).unwrap();
    running.type_in("hello\n").unwrap();
    running.wait_for("got hello", LIMIT).unwrap();
    running.type_in("\x03").unwrap();
    ends_with(&running.wait(LIMIT).unwrap(), 130 % 128, &["got hello"]);
}

#[test]
fn a_corrupt_configuration_is_120_and_every_wrong_line_is_named() {
    let ended =
        run("hostname = a\nhostname = b\nnonsense\n\x01\u{fffd}\0=\narg = \"open\ngrace = 5\n", "inception.mount=x");
    let file = "/etc/inception-init.conf, line";
    let lines: Vec<String> = [3, 4, 5, 6].iter().map(|number| format!("{file} {number}: ")).collect();
    let mut parts: Vec<&str> = lines.iter().map(String::as_str).collect();
    parts.push("the kernel's command line, inception.mount=x: SOURCE TARGET");
    ends_with(&ended, 120, &parts);
    let ended = run(&format!("{}grace = soon\n", shell("exit 0")), "");
    ends_with(&ended, 120, &["line 5: --grace soon: a time is wanted"]);
    // 64 KiB of noise.
    let noise: Vec<u8> = (0..65536u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let _permit = permit();
    let archive = bare("").busybox().file("/etc/noise", noise);
    let ended = machine(archive).words("inception.config=/etc/noise inception.status=debug-exit").run(LIMIT).unwrap();
    ends_with(&ended, 120, &["/etc/noise, line "]);
}

#[test]
fn a_missing_service_is_127_and_none_at_all_120() {
    ends_with(&run("arg = no-such-program\n", ""), 127, &["can't run no-such-program: not found"]);
    ends_with(&run("", ""), 120, &["no service"]);
    ends_with(
        &run("arg = /etc/inception-init.conf\narg = x\nuser = nobody-here:1\n", ""),
        120,
        &["line 4: --user nobody-here"],
    );
}

#[test]
fn what_cannot_be_set_up_has_a_code_of_its_own() {
    ends_with(&run("module = /no/such.ko\n", ""), 121, &["module /no/such.ko: "]);
    ends_with(&run("root = /dev/vda ext4\nwait = 0.2\n", ""), 122, &["/dev/vda", "no such device"]);
    let mount = "mount = none /x no-such-type\n";
    ends_with(&run(&format!("{}{mount}", shell("exit 0")), ""), 123, &["no-such-type", "does not know"]);
    let setup = "setup = sh -c \"exit 3\"\n";
    ends_with(&run(&format!("{}{setup}", shell("exit 0")), ""), 124, &["setup: sh: "]);
}

#[test]
fn no_network_is_124() {
    let configuration = "address = eth0 10.0.2.15/24\nwait = 0.5\n";
    ends_with(&run(&format!("{}{configuration}", shell("exit 0")), ""), 124, &["eth0: there is no such interface"]);
}

#[test]
fn a_crash_loop_ends_with_the_services_code() {
    let ended = run(&format!("{}restart = on-failure:3\n", shell("echo run; exit 9")), "");
    ends_with(&ended, 9, &["starting it again in 400ms"]);
    assert_eq!(ended.console.matches("run\n").count(), 4, "{}", ended.console);
    // By the kernel's command line, a service that kills itself.
    let ended = run("arg = replaced\n", "-- --restart on-failure:1 sh -c \"echo again; kill -KILL $$\"");
    ends_with(&ended, 137 % 128, &["again\ninception-init: the main program ended with 137"]);
}

/// A root to be made a disk of: folders, busybox and a configuration.
fn root(configuration: &str, folders: &[&str]) -> Folder {
    let root = Folder::new("root").unwrap();
    root.put("/bin/busybox", std::fs::read("/bin/busybox").unwrap()).unwrap();
    for applet in ["sh", "cat", "touch", "ls", "echo", "sync", "grep", "wc", "stat", "sleep", "kill", "dd"] {
        std::os::unix::fs::symlink("busybox", root.0.join("bin").join(applet)).unwrap();
    }
    for folder in folders {
        std::fs::create_dir_all(root.0.join(folder)).unwrap();
    }
    root.put("/etc/inception-init.conf", configuration).unwrap();
    root
}

const USUAL: [&str; 9] = ["dev", "proc", "sys", "run/service", "tmp", "etc", "root", "var/lib", "data"];

struct Disk(PathBuf);

impl Disk {
    fn of(folder: &Folder, mebibytes: u32) -> Self {
        Self(disk(&folder.0, mebibytes).unwrap())
    }

    /// Clean, as e2fsck sees it without repairing anything; the kernel marks a mounted one.
    #[track_caller]
    fn is_clean(&self) {
        let output = Command::new("/usr/sbin/e2fsck").args(["-fn"]).arg(&self.0).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !text.contains("recover"), "{text}");
        let output = Command::new("/usr/sbin/dumpe2fs").arg("-h").arg(&self.0).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("state:         clean") && !text.contains("needs_recovery"), "{text}");
    }

    fn read(&self, path: &str) -> String {
        let output =
            Command::new("/usr/sbin/debugfs").args(["-R", &format!("cat {path}")]).arg(&self.0).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_root_on_a_disk_is_switched_to_and_left_clean() {
    let script = "ls / /init; echo written > /data/file; ls -ld /run/service; cat /run/inception-init/x; \
                  echo sound > /file; sleep 100 & exec 3>/data/open; exit 11";
    let folder = root(&format!("hostname = second\n{}mount = /dev/vdb /data ext4\n", shell(script)), &USUAL);
    std::os::unix::fs::chown(folder.0.join("run/service"), Some(77), Some(78)).unwrap();
    let (first, second) = (Disk::of(&folder, 16), Disk::of(&Folder::new("data").unwrap(), 8));
    let archive = archive_with(&["virtio_pci", "virtio_blk"], "root = /dev/vda ext4 rw\nhostname = first\narg = no\n");
    let _permit = permit();
    let ended = machine(archive).disk(&first.0).disk(&second.0).run(LIMIT).unwrap();
    ends_with(&ended, 11, &["ls: /init: No such file", "drwxr-xr-x    2 77       78"]);
    assert_eq!((first.read("/file"), second.read("/file")), ("sound\n".into(), "written\n".into()));
    first.is_clean();
    second.is_clean();
}

#[test]
fn a_read_only_root_does_and_an_overlay_takes_its_changes() {
    let script = "touch /x && echo root is writable; touch /tmp/x /run/x && echo memory is writable; cat /etc/resolv.conf; exit 12";
    let folder = root(&format!("nameserver = 10.0.2.3\nsearch = example.test\n{}", shell(script)), &USUAL);
    folder.put("/etc/resolv.conf", "old\n").unwrap();
    let disk = Disk::of(&folder, 16);
    let modules = ["virtio_pci", "virtio_blk", "overlay"];
    let _permit = permit();
    let boot = |line: &str| machine(archive_with(&modules, line)).disk(&disk.0).run(LIMIT).unwrap();
    let ended = boot("root = /dev/vda ext4 ro\n");
    ends_with(&ended, 12, &["memory is writable\nsearch example.test\nnameserver 10.0.2.3\n"]);
    assert!(!ended.console.contains("root is writable"), "{}", ended.console);
    let ended = boot("root = /dev/vda ext4\noverlay = none tmpfs size=8m\n");
    ends_with(&ended, 12, &["root is writable\nmemory is writable\nsearch example.test\nnameserver 10.0.2.3\n"]);
    assert_eq!(disk.read("/etc/resolv.conf"), "old\n");
    let changes = Disk::of(&Folder::new("changes").unwrap(), 8);
    let archive = archive_with(&modules, "root = /dev/vda ext4\noverlay = /dev/vdb ext4\n");
    let ended = machine(archive).disk(&disk.0).disk(&changes.0).run(LIMIT).unwrap();
    ends_with(&ended, 12, &["root is writable\n"]);
    assert!(changes.read("/changes/etc/resolv.conf").starts_with("search example.test\n"));
    disk.is_clean();
    changes.is_clean();
}

#[test]
fn without_dev_and_all_the_other_folders_there_is_still_a_console() {
    let disk = Disk::of(&root(&shell("echo I am here; ls -d /dev /proc; exit 13"), &[]), 16);
    let archive = archive_with(&["virtio_pci", "virtio_blk"], "root = /dev/vda ext4 ro\n");
    let _permit = permit();
    let ended = machine(archive).disk(&disk.0).run(LIMIT).unwrap();
    ends_with(&ended, 13, &["/dev: the new root has no such folder", "I am here", "ls: /proc: No such file"]);
}

#[test]
fn a_full_disk_stops_neither_the_service_nor_the_end() {
    let script = "dd if=/dev/zero of=/data/more bs=64k; cat /etc/resolv.conf; exec dd if=/dev/zero of=/more bs=64k";
    let folder = root(&format!("nameserver = 10.0.2.3\nseed = /var/lib/seed\n{}", shell(script)), &USUAL);
    folder.put("/etc/resolv.conf", "").unwrap();
    let disk = Disk::of(&folder, 4);
    // What is free goes to a file, to the last block.
    let filler = Folder::new("filler").unwrap();
    filler.put("/zeros", vec![0; 4 << 20]).unwrap();
    let write = format!("write {} zeros", filler.0.join("zeros").display());
    Command::new("/usr/sbin/debugfs").args(["-w", "-R", &write]).arg(&disk.0).output().unwrap();
    let archive = archive_with(&["virtio_pci", "virtio_blk"], "root = /dev/vda ext4 rw\n");
    let _permit = permit();
    let ended = machine(archive).disk(&disk.0).run(LIMIT).unwrap();
    ends_with(&ended, 1, &["No space left on device", "nameserver 10.0.2.3"]);
}

#[test]
fn settings_of_the_service_and_the_machine() {
    let script = "hostname; id; pwd; umask; ulimit -n; echo $A $TZ $PATH; cat /setup; cat /proc/sys/kernel/random/entropy_avail; date +%z; busybox stty size; busybox stty -a; exit 3";
    let configuration = format!(
        "{}hostname = \"a-name\"\nuser = 1000:1001\nworkdir = /etc\numask = 027\nrlimit = nofile 77:88\nenv = A=a \"b\"\n\
         zone = Test/Zone\nseed = /seed\nsetup = sh -c \"echo prepared $$ > /setup\"\nsuccess = 3\nconsole-mode = plain\nconsole-size = 33 99\n",
        shell(script)
    );
    let mut zone = b"TZif".to_vec();
    zone.resize(20, 0);
    for count in [0u32, 0, 0, 0, 1, 4] {
        zone.extend(count.to_be_bytes());
    }
    zone.extend(7200i32.to_be_bytes());
    zone.extend(b"\0\0TST\0");
    let mut archive = archive(&configuration).file("/seed", [7; 64]);
    for folder in ["/usr", "/usr/share", "/usr/share/zoneinfo", "/usr/share/zoneinfo/Test"] {
        archive = archive.folder(folder);
    }
    let _permit = permit();
    let ended = machine(archive.file("/usr/share/zoneinfo/Test/Zone", zone)).run(LIMIT).unwrap();
    let parts = [
        "a-name",
        "uid=1000 gid=1001",
        "/etc",
        "0027",
        "77",
        "a \"b\" :Test/Zone /usr/local/sbin:",
        "prepared ",
        "+0200",
        "33 99",
        "-opost",
        "-echo ",
    ];
    ends_with(&ended, 0, &parts);
}

#[test]
fn ten_thousand_orphans_are_reaped() {
    let archive = archive("arg = /probe\narg = probe\narg = crowd\narg = 10000\n")
        .dynamic("/probe", Path::new(env!("CARGO_BIN_EXE_init-tests")));
    let _permit = permit();
    // The one that is left is the service.
    ends_with(&machine(archive).run(LIMIT).unwrap(), 21, &["10000 made, 1 left"]);
}

#[test]
fn a_storm_of_kills_ends_the_service_and_not_the_machine() {
    // Each kills all but itself and PID 1, the main program too; who is left goes on.
    let storm = "for n in 1 2 3 4 5 6 7 8; do (while :; do kill -KILL 1; kill -KILL -1; done) & done; exec sleep 100";
    let ended = run(&format!("{}restart = on-failure:2\n", shell(storm)), "");
    ends_with(&ended, 137 % 128, &["starting it again in 200ms"]);
}

#[test]
fn a_broken_init_ends_the_machine_with_119() {
    let archive = archive("arg = /probe\narg = probe\narg = break\n")
        .dynamic("/probe", Path::new(env!("CARGO_BIN_EXE_init-tests")));
    let _permit = permit();
    ends_with(&machine(archive).run(LIMIT).unwrap(), 119, &["broke down (SIGSEGV)"]);
}

/// Boots a service that says what it got, asks it to stop, and gives what came of it.
fn stopped(configuration: &str, modules: &[&str], ask: impl FnOnce(&mut Running)) -> Ended {
    let script =
        "trap 'echo got TERM; exit 5' TERM; trap 'echo got QUIT; exit 6' QUIT; echo ready; while :; do sleep 1; done";
    let _permit = permit();
    let archive = archive_with(modules, &format!("{}{configuration}", shell(script)));
    let mut running = machine(archive).start().unwrap();
    running.wait_for("ready", LIMIT).unwrap();
    ask(&mut running);
    running.wait(LIMIT).unwrap()
}

#[test]
fn the_power_button_stops_the_service() {
    let press = |running: &mut Running| running.control("system_powerdown").unwrap();
    ends_with(&stopped("stop-signal = QUIT\n", &["evdev", "button"], press), 6, &["got QUIT"]);
}

#[test]
fn ctrl_alt_del_stops_the_service() {
    let press = |running: &mut Running| running.control("sendkey ctrl-alt-delete").unwrap();
    ends_with(&stopped("restart = always\n", &[], press), 5, &["got TERM"]);
}

#[test]
fn who_does_not_stop_is_killed() {
    let script = "trap '' TERM; setsid sh -c \"trap '' TERM; sleep 100\" & kill -PWR 1; while :; do sleep 100; done";
    let ended = run(&format!("{}stop-timeout = 0.5\ngrace = 500ms\nverbose = yes\n", shell(script)), "");
    ends_with(&ended, 137 % 128, &["ended with 137", "the grace is over"]);
}

#[test]
fn signals_from_within_say_how_it_ends() {
    // Without a way to say the exit code qemu ends by itself: the machine was powered off, or began anew.
    let ask =
        |signal: &str| format!("{}status = port:none\nend = halt\n", shell(&format!("kill -{signal} 1; sleep 100")));
    let _permit = permit();
    for signal in ["38", "39"] {
        let archive = Archive::default().busybox().copy("/init", Path::new(&built::init()));
        let ended = machine(archive.file("/etc/inception-init.conf", ask(signal))).run(LIMIT).unwrap();
        assert_eq!(ended.code, None, "{}", ended.console);
        assert!(ended.console.contains("the host does not hear the exit code 143"), "{}", ended.console);
    }
    let archive = Archive::default().busybox().copy("/init", Path::new(&built::init()));
    let halted = shell("exit 0") + "end = halt\n";
    let mut running = machine(archive.file("/etc/inception-init.conf", halted)).start().unwrap();
    running.wait_for("System halted", LIMIT).unwrap();
}

#[test]
fn a_static_address_reaches_the_host_and_a_port_takes_the_exit_code() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("echo -n hello | nc -w 5 10.0.2.2 {port}; ip -6 addr show eth0; exit 200");
    let network =
        "address = eth0 10.0.2.15/24\naddress = eth0 fec0::15/64\ngateway = 10.0.2.2\nnameserver = 10.0.2.3\n";
    let (archive, modules) =
        Archive::default().busybox().modules(&KERNEL, &["virtio_pci", "virtio_net", "virtio_console"]);
    let configuration = format!("status = port:exit.code\n{modules}{network}{}", shell(&script));
    let archive = archive
        .link("/bin/nc", "busybox")
        .copy("/init", Path::new(&built::init()))
        .file("/etc/inception-init.conf", configuration);
    let said = Folder::new("said").unwrap();
    let file = said.0.join("code");
    let chardev = format!("file,id=exit,path={}", file.display());
    let _permit = permit();
    let running = machine(archive)
        .option(&["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="])
        .option(&[
            "-chardev",
            &chardev,
            "-device",
            "virtio-serial-pci",
            "-device",
            "virtserialport,chardev=exit,name=exit.code",
        ])
        .start()
        .unwrap();
    listener.set_nonblocking(true).unwrap();
    let accepted = std::thread::spawn(move || {
        for _ in 0..LIMIT.as_millis() / 10 {
            if let Ok((mut stream, _)) = listener.accept() {
                stream.set_nonblocking(false).unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                return text;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        String::new()
    });
    let ended = running.wait(LIMIT).unwrap();
    assert_eq!(accepted.join().unwrap(), "hello", "{}", ended.console);
    assert!(ended.console.contains("inet6 fec0::15/64"), "{}", ended.console);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "started\n200\n", "{}", ended.console);
}

#[test]
fn a_folder_of_the_host_is_mounted_by_virtiofs() {
    let shared = Folder::new("shared").unwrap();
    shared.put("/from-host", "the host's\n").unwrap();
    let sockets = Folder::new("sockets").unwrap();
    let socket = sockets.0.join("fs");
    let server = Command::new("/usr/lib/qemu/virtiofsd")
        .arg(format!("--socket-path={}", socket.display()))
        .args(["-o", &format!("source={}", shared.0.display())])
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut server = server.unwrap();
    let script = "cat /shared/from-host; echo guest > /shared/from-guest; touch /only-read/x || exit 21";
    let mounts = "mount = tag /shared virtiofs nosuid,nodev\nmount = /shared /only-read none bind,ro\n";
    let archive = archive_with(&["virtio_pci", "virtiofs"], &format!("{mounts}{}", shell(script)));
    let _permit = permit();
    let ended = machine(archive)
        .option(&["-object", "memory-backend-memfd,id=memory,size=256M,share=on", "-numa", "node,memdev=memory"])
        .option(&["-chardev", &format!("socket,id=fs,path={},reconnect=0", socket.display())])
        .option(&["-device", "vhost-user-fs-pci,chardev=fs,tag=tag"])
        .run(LIMIT);
    let _ = server.kill();
    let _ = server.wait();
    ends_with(&ended.unwrap(), 21, &["the host's"]);
    assert_eq!(std::fs::read_to_string(shared.0.join("from-guest")).unwrap(), "guest\n");
}

#[test]
fn a_root_and_a_folder_of_the_host_are_mounted_by_9p() {
    // Debian's kernel for clouds has no 9p.
    let kernel = Kernel::with_every_driver().expect("a kernel: scripts/vm-kernel amd64");
    let script = "cat /data/from-host; echo guest > /data/from-guest; echo written > /etc/from-guest; exit 22";
    let data = "mount = shared /data 9p trans=virtio,version=9p2000.L,nosuid,nodev\n";
    let (root, shared) = (root(&format!("{data}{}", shell(script)), &USUAL), Folder::new("shared").unwrap());
    shared.put("/from-host", "the host's\n").unwrap();
    let modules = ["virtio_pci", "9pnet_virtio", "9p"];
    let archive = archive_for(&kernel, &modules, "root = rootfs 9p trans=virtio,version=9p2000.L\n");
    let _permit = permit();
    let machine = Machine::new(&kernel, archive).unwrap().folder("rootfs", &root.0, "").folder("shared", &shared.0, "");
    ends_with(&machine.run(LIMIT).unwrap(), 22, &["the host's"]);
    assert_eq!(std::fs::read_to_string(root.0.join("etc/from-guest")).unwrap(), "written\n");
    assert_eq!(std::fs::read_to_string(shared.0.join("from-guest")).unwrap(), "guest\n");
}

/// The example of docs/vm.md, and how long it takes from power-on to the service's answer.
const MICROVM: &str = r#"#!/bin/bash
cd "$(dirname "$0")"
console=$(mktemp)
coproc qemu-system-x86_64 -S -monitor stdio -M microvm,rtc=on -accel kvm -cpu host -m 256 -nodefaults -no-user-config -no-reboot -display none \
    -kernel kernel -initrd initramfs -append 'console=ttyS0 quiet panic=-1 cryptomgr.notests' -serial "file:$console" \
    -netdev user,id=n,net=198.18.9.0/24,hostfwd=tcp:127.0.0.1:$1-198.18.9.15:80 -device virtio-net-device,netdev=n
# It is there when it speaks.
read -r _ <&"${COPROC[0]}" && sleep 1
begin=$(date +%s%N)
echo cont >&"${COPROC[1]}"
for _ in {1..2000}; do
    [[ $(<"$console") != *serving* ]] || break
    # A sleep without a program.
    read -r -t 0.01 _ <&"${COPROC[0]}"
done
for _ in {1..100}; do
    exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && read -r -t 0.1 line <&3 && break
done
echo "microvm under KVM: ${line%?} after $((($(date +%s%N) - begin) / 1000000)) ms"
kill "$COPROC_PID" && wait
[[ $line == *' 200 '* ]] && exit 23
cat "$console"
"#;

#[test]
fn a_microvm_under_kvm_reaches_its_service() {
    let folder = Folder::new("microvm").unwrap();
    let (archive, modules) = Archive::default().busybox().modules(&KERNEL, &["virtio_mmio", "virtio_net"]);
    let service = shell("echo serving; exec busybox httpd -f -p 80 -h /www");
    let configuration = format!("{modules}address = eth0 198.18.9.15/24\n{service}");
    let archive = archive
        .copy("/init", Path::new(&built::init()))
        .file("/etc/inception-init.conf", configuration)
        .folder("/www")
        .file("/www/index.html", "served\n");
    folder.put("/initramfs", archive.finish()).unwrap();
    folder.put("/kernel", std::fs::read(&KERNEL.image).unwrap()).unwrap();
    folder.put("/run", MICROVM).unwrap();
    let _permit = permit();
    if has_hardware() {
        let output = Command::new(folder.0.join("run")).arg(free_port().to_string()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{text}");
        return assert_eq!(output.status.code(), Some(23), "{text}");
    }
    // The host is a machine whose processor is emulated and has AMD's virtualization, with this machine's files as its
    // root; a nanosecond is an instruction there.
    let host = Kernel::with_every_driver().expect("a kernel: scripts/vm-kernel amd64");
    let configuration = "root = rootfs 9p trans=virtio,version=9p2000.L,msize=262144,cache=loose\noverlay = none tmpfs size=256m\n\
         mount = folder /folder 9p trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro\n\
         env = PATH=/usr/bin:/bin\narg = /folder/run\narg = 8080\n";
    let modules = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "kvm-amd"];
    let mut machine = Machine::new(&host, archive_for(&host, &modules, configuration)).unwrap();
    machine.memory = 1024;
    let options = ",readonly=on,multidevs=remap";
    machine = machine.folder("rootfs", Path::new("/"), options).folder("folder", &folder.0, options);
    let ended = machine.option(&["-icount", "shift=0,sleep=off"]).run(8 * LIMIT).unwrap();
    println!("{}", ended.console);
    ends_with(&ended, 23, &["microvm under KVM: HTTP/1.1 200 OK after "]);
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn an_address_by_dhcp_comes_from_a_client_of_the_image() {
    let (archive, modules) = Archive::default().busybox().modules(&KERNEL, &["virtio_pci", "virtio_net"]);
    let setup = "setup = ip link set eth0 up\nsetup = busybox udhcpc -i eth0 -n -q -f -s /etc/lease\n";
    let configuration = format!("status = debug-exit\n{modules}{setup}{}", shell("ip -4 addr show eth0; exit 14"));
    let archive = archive
        .copy("/init", Path::new(&built::init()))
        .file("/etc/lease", "#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/$mask dev eth0\nexit 0\n")
        .file("/etc/inception-init.conf", configuration);
    let _permit = permit();
    let net = ["-netdev", "user,id=net,net=198.18.9.0/24,dhcpstart=198.18.9.77"];
    let ended = machine(archive).option(&net).option(&["-device", "virtio-net-pci,netdev=net,romfile="]).run(LIMIT);
    ends_with(&ended.unwrap(), 14, &["inet 198.18.9.77/24"]);
}
