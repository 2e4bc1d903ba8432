//! `init-tests --bench-vm`: this init as a machine's PID 1 beside busybox's init and a shell script, each in machines of
//! the same kernel and type, one after the other in one run.
//!
//! All times are the kernel's own, from its log: when it ran /init, when the service said that it runs, when that asked
//! for the end, when the power went off.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::guest::{Archive, Kernel, Machine, has_hardware};
use crate::harness::scratch;

const LIMIT: Duration = Duration::from_secs(60);
const ROUNDS: usize = 5;
/// The kernel's remarks on the console too.
const WORDS: &str = "loglevel=7 printk.time=1";
const HAND_OVER: &str = "as init process";

/// What each of them has to do before the service: what this init does by itself.
const MOUNTS: [&str; 12] = [
    "mount -t proc proc /proc",
    "mount -t sysfs sysfs /sys",
    "mount -t devtmpfs devtmpfs /dev",
    "mkdir -p /dev/pts /dev/shm",
    "mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts",
    "mount -t tmpfs tmpfs /dev/shm",
    "mount -t tmpfs tmpfs /run",
    "mount -t tmpfs tmpfs /tmp",
    "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
    "ln -s /proc/self/fd /dev/fd",
    "hostname bench",
    "ip link set lo up",
];

/// The figures of one boot.
#[derive(Clone, Copy)]
struct Figures {
    /// From the hand-over to the service, in milliseconds.
    start: f64,
    /// From the request to the end.
    stop: f64,
    /// RSS and anonymous memory of PID 1 in KiB.
    memory: f64,
    anonymous: f64,
}

/// An init in an archive.
struct Contender {
    name: &'static str,
    archive: Archive,
}

/// Runs all and gives the section of docs/benchmarks.md.
pub fn run(init: &Path, without: &Path) -> Result<String, String> {
    let kernel = Kernel::find().map_err(|error| error.to_string())?;
    let service = service()?;
    let contenders = contenders(init, &service);
    let floor = Contender { name: "nothing", archive: bare(&service) };
    let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); contenders.len()];
    let mut least_of_all = f64::INFINITY;
    for _ in 0..ROUNDS {
        least_of_all = least_of_all.min(boot_bare(&kernel, &floor)?);
        for (contender, figures) in contenders.iter().zip(&mut figures) {
            figures.push(boot(&kernel, contender)?);
        }
    }
    let _ = std::fs::remove_file(&service);
    let least = |of: fn(&Figures) -> f64| -> Vec<f64> {
        figures.iter().map(|rounds| rounds.iter().map(of).fold(f64::INFINITY, f64::min)).collect()
    };
    let roots: Vec<f64> =
        contenders.iter().map(|contender| contender.archive.clone().finish().len() as f64 / 1024.0).collect();
    let start = least(|figures| figures.start);
    let over = start.iter().map(|time| time - least_of_all).collect();
    let lines = [
        ("hand-over to the service's exec, minimum", "ms", start, "0.33"),
        ("the same, over the service as /init itself", "ms", over, "0.33"),
        ("request to the machine's end, minimum (goal: 50 ms)", "ms", least(|figures| figures.stop), ""),
        ("RSS of PID 1", "KiB", least(|figures| figures.memory), "0.25"),
        ("its anonymous memory", "KiB", least(|figures| figures.anonymous), ""),
        ("smallest root with a static service (initramfs)", "KiB", roots, ""),
    ];
    let mut text = String::from("| | unit |");
    contenders.iter().for_each(|contender| text += &format!(" {} |", contender.name));
    text += " ours / best other | goal |\n|---|---|--:|--:|--:|--:|--:|\n";
    for (what, unit, figures, goal) in lines {
        let _ = write!(text, "| {what} | {unit} |");
        figures.iter().for_each(|figure| text += &format!(" {figure:.1} |"));
        let best = figures[1..].iter().copied().fold(f64::INFINITY, f64::min);
        let _ = writeln!(text, " {:.2} | {goal} |", figures[0] / best);
    }
    let size = |path: &Path| {
        std::fs::metadata(path).map(|about| about.len()).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (with, without) = (size(init)?, size(without)?);
    let how = if has_hardware() { "KVM" } else { "qemu's emulation (TCG): no KVM that runs this kernel here" };
    let _ = writeln!(
        text,
        "\nThe init with the feature `vm`: {with} bytes; without: {without}; in a container it uses the same memory. \
         Kernel {}, qemu's q35, one processor, {how}.",
        kernel.release()
    );
    Ok(text)
}

fn service() -> Result<PathBuf, String> {
    let path = scratch("service");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guest_service.c");
    let status = Command::new("cc")
        .args([
            "-Os",
            "-static",
            "-nostdlib",
            "-ffreestanding",
            "-fno-stack-protector",
            "-fno-pie",
            "-no-pie",
            "-s",
            "-o",
        ])
        .arg(&path)
        .arg(source)
        .status();
    match status {
        Ok(status) if status.success() => Ok(path),
        other => Err(format!("cc: {other:?}")),
    }
}

fn contenders(init: &Path, service: &Path) -> [Contender; 3] {
    // As a kernel that runs /init in an initramfs wants it.
    let folders = |mut archive: Archive| {
        for folder in ["/etc", "/proc", "/sys", "/dev", "/run", "/tmp"] {
            archive = archive.folder(folder);
        }
        archive.copy("/service", service)
    };
    // RTMIN+4 and USR2 ask for a power-off.
    let ours = folders(Archive::default())
        .copy("/init", init)
        .file("/etc/inception-init.conf", "hostname = bench\narg = /service\narg = 38\n");
    let busybox = |archive: Archive| {
        let mut archive = folders(archive.folder("/bin")).copy("/bin/busybox", Path::new("/bin/busybox"));
        for applet in ["sh", "mount", "umount", "mkdir", "ln", "hostname", "ip", "kill", "poweroff"] {
            archive = archive.link(&format!("/bin/{applet}"), "busybox");
        }
        archive
    };
    let mut inittab: String = MOUNTS.iter().map(|line| format!("::sysinit:/bin/{line}\n")).collect();
    inittab += "::once:/service 12\n::shutdown:/bin/umount -a -r\n";
    let with_inittab = busybox(Archive::default()).link("/init", "bin/busybox").file("/etc/inittab", inittab);
    let script = format!(
        "#!/bin/sh\nexport PATH=/bin\n{}\n/service 12 &\ntrap \"kill -TERM $!\" USR2\nwait\nwait\numount -a -r\npoweroff -f\n",
        MOUNTS.join("\n")
    );
    let with_script = busybox(Archive::default()).file("/init", script);
    [
        Contender { name: "inception-init", archive: ours },
        Contender { name: "busybox init", archive: with_inittab },
        Contender { name: "shell script", archive: with_script },
    ]
}

/// The service alone, as what the kernel runs.
fn bare(service: &Path) -> Archive {
    Archive::default().folder("/dev").node("/dev/kmsg", (1, 11)).copy("/init", service)
}

/// The time from the hand-over to a service that is the init itself: what the kernel and the emulation take. It can't
/// end the machine.
fn boot_bare(kernel: &Kernel, contender: &Contender) -> Result<f64, String> {
    let machine = Machine::new(kernel, contender.archive.clone()).map_err(|error| error.to_string())?;
    let mut running = machine.words(WORDS).start().map_err(|error| error.to_string())?;
    running.wait_for("service runs", LIMIT)?;
    Ok(stamp(contender, &running.console, "service runs")? - stamp(contender, &running.console, HAND_OVER)?)
}

fn missing(contender: &Contender, console: &str, what: &str) -> String {
    format!("{}: no {what} on the console:\n{console}", contender.name)
}

/// The kernel's time, in milliseconds, of the first line with a text.
fn stamp(contender: &Contender, console: &str, text: &str) -> Result<f64, String> {
    let line = console.lines().find(|line| line.contains(text));
    let seconds = line.and_then(|line| line.split_once('[')?.1.split_once(']')?.0.trim().parse::<f64>().ok());
    seconds.map(|seconds| seconds * 1000.0).ok_or_else(|| missing(contender, console, text))
}

fn boot(kernel: &Kernel, contender: &Contender) -> Result<Figures, String> {
    let machine = Machine::new(kernel, contender.archive.clone()).map_err(|error| error.to_string())?;
    let ended = machine.words(WORDS).run(LIMIT)?;
    let stamp = |text: &str| stamp(contender, &ended.console, text);
    let memory = |key: &str| -> Result<f64, String> {
        let line = ended.console.lines().find(|line| line.starts_with(key));
        let figure = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        figure.ok_or_else(|| missing(contender, &ended.console, key))
    };
    Ok(Figures {
        start: stamp("service runs")? - stamp(HAND_OVER)?,
        stop: stamp("reboot: Power down")? - stamp("request")?,
        memory: memory("Rss:")?,
        anonymous: memory("Anonymous:")?,
    })
}
