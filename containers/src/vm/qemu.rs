//! qemu's command line for a machine. Paths are relative: qemu runs in the machine's folder.

use super::{
    config::STATUS_PORT,
    machine::{Board, Machine},
};
use crate::sys::time_stamp;
use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

/// The sockets in a machine's folder: qemu listens on the first two and connects to the third.
pub const QMP: &str = "qmp.sock";
pub const CONSOLE: &str = "console.sock";
pub const STATUS: &str = "status.sock";

/// The kernel's command line: nothing but a panic's last words is printed, and a panic ends the machine.
pub const APPEND: &str = "console=ttyS0 quiet loglevel=0 panic=-1 reboot=t rdinit=/.inception/init";

/// Where a share's virtiofsd listens.
pub fn share_socket(tag: &str) -> String {
    format!("{tag}.sock")
}

/// Whether this process may make machines with the processor's help. /dev/kvm alone does not say so: where another module
/// than the processors' own stands behind it (kvm_pvm), it opens, and runs only kernels that were made for it.
pub fn has_kvm() -> bool {
    let is_real = ["kvm_intel", "kvm_amd"].iter().any(|module| Path::new("/sys/module").join(module).exists());
    is_real && File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// The machine type where none is asked for: the quicker one, but where it is emulated. There the other one has a second
/// clock to measure the processor's by.
pub fn usual_board() -> Board {
    if has_kvm() { Board::Microvm } else { Board::Q35 }
}

/// The words behind `qemu-system-x86_64`. The machine is made and not yet running (`-S`).
pub fn arguments(name: &str, machine: &Machine, has_kvm: bool) -> Vec<String> {
    let mut words = Vec::new();
    let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
    let mut board = match machine.board {
        // PCI, because Debian's cloud kernel takes no devices from its command line; ACPI, for the power button.
        Board::Microvm => "microvm,acpi=on,pcie=on,rtc=on",
        Board::Q35 => "q35,usb=off,vmport=off",
    }
    .to_owned();
    if !machine.shares.is_empty() {
        // virtiofsd reads and writes the machine's memory.
        add("-object", format!("memory-backend-memfd,id=memory,size={}M,share=on", machine.memory));
        board += ",memory-backend=memory";
    }
    add("-machine", board);
    add("-name", name.to_owned());
    add("-cpu", "max".into());
    add("-smp", machine.cpus.to_string());
    add("-m", format!("{}M", machine.memory));
    if has_kvm {
        add("-accel", "kvm".into());
    }
    // Where KVM is there and does not work, too.
    add("-accel", "tcg".into());
    add("-kernel", machine.kernel.display().to_string());
    add("-initrd", "initramfs".into());
    let mut append = machine.append.clone();
    if machine.board == Board::Microvm && !has_kvm {
        // The kernel measures it by a timer, for which a busy host is too late, and a microvm has no other one: it would
        // hang. An emulated processor counts as the host's does.
        append += &format!(" tsc_early_khz={}", time_stamps_per_millisecond());
    }
    add("-append", append);
    if let Some(disk) = &machine.disk {
        let snapshot = if machine.throwaway { "on" } else { "off" };
        add("-drive", format!("if=none,id=root,format=raw,discard=unmap,snapshot={snapshot},file={}", escaped(disk)));
        add("-device", "virtio-blk-pci,drive=root".into());
    }
    let forwards = machine
        .ports
        .iter()
        .map(|port| format!(",hostfwd={}:{}:{}-:{}", port.protocol, port.host_ip, port.host_port, port.port));
    add("-netdev", format!("user,id=net{}", forwards.collect::<String>()));
    // Without a boot ROM: nothing boots from the network, and it is another package's.
    add("-device", "virtio-net-pci,netdev=net,romfile=".into());
    add("-device", "virtio-rng-pci".into());
    add("-device", "virtio-serial-pci".into());
    add("-chardev", format!("socket,id=status,path={STATUS}"));
    add("-device", format!("virtserialport,chardev=status,name={STATUS_PORT}"));
    for share in &machine.shares {
        add("-chardev", format!("socket,id={},path={}", share.tag, share_socket(&share.tag)));
        add("-device", format!("vhost-user-fs-pci,chardev={0},tag={0}", share.tag));
    }
    add("-chardev", format!("socket,id=console,path={CONSOLE},server=on,wait=off,logfile=console.log"));
    add("-serial", "chardev:console".into());
    add("-qmp", format!("unix:{QMP},server=on,wait=off"));
    add("-display", "none".into());
    // Whoever breaks out of the machine into qemu starts no program and gets no further rights.
    add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into());
    words.extend(["-nodefaults", "-no-user-config", "-no-reboot", "-S"].map(str::to_owned));
    words
}

/// How fast this processor's time stamps count.
fn time_stamps_per_millisecond() -> u64 {
    let (began, first) = (Instant::now(), time_stamp());
    std::thread::sleep(Duration::from_millis(20));
    let (counted, nanoseconds) = (time_stamp() - first, began.elapsed().as_nanos() as u64);
    counted.saturating_mul(1_000_000) / nanoseconds
}

/// A path in a list of options, where a comma is written twice.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
