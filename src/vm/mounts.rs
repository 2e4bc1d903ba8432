//! File systems: the kernel's own, those of the configuration, and how all are left at the end.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::settings::Mount;
use crate::{sys, warning};

/// Where a mount of the root's parts stays to be seen, when an overlay lies over them.
pub const PARTS: &str = "/run/inception-init";
/// Between two tries to unmount what is in use, and how many there are.
const PAUSE: Duration = Duration::from_millis(20);
const TRIES: u32 = 25;
/// Between two looks for a device.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

const NONE: Option<&str> = None;

/// /proc, /sys and /dev, and the console as 0, 1 and 2 where the kernel could not open it.
pub fn make_first() {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let devices = place("/dev", "devtmpfs", MsFlags::MS_NOSUID, "mode=0755");
    if devices.is_err_and(|error| error == Errno::ENODEV) {
        let _ = place("/dev", "tmpfs", MsFlags::MS_NOSUID, "mode=0755").map(|()| make_nodes());
    }
    if (0..3).any(|fd| !sys::vm::is_open(fd)) {
        let console = sys::vm::open_console().or_else(|_| sys::open(c"/dev/null", libc::O_RDWR));
        let _ = console.map(sys::vm::make_standard);
    }
    for (target, kind) in [("/proc", "proc"), ("/sys", "sysfs")] {
        if let Err(error) = place(target, kind, plain, "") {
            warning!("{target}: {}", sys::reason(error));
        }
    }
    if !is_mount_point("/dev") {
        warning!("/dev: the root has no such folder, and can't be written");
    }
}

/// What else a program expects of a Linux system; with the root that stays.
pub fn make_rest() {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let memory = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let mut all = vec![("/sys/fs/cgroup", "cgroup2", plain, "")];
    if is_mount_point("/dev") {
        all.push(("/dev/pts", "devpts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"));
        all.push(("/dev/shm", "tmpfs", memory, "mode=1777"));
        for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
            let _ = symlink(target, Path::new("/dev").join(link));
        }
    }
    for (target, kind, flags, options) in all {
        // A kernel without cgroups is one to run a service on all the same.
        if let Err(error) = place(target, kind, flags, options)
            && error != Errno::ENODEV
        {
            warning!("{target}: {}", sys::reason(error));
        }
    }
    for (target, mode) in [("/run", "mode=0755"), ("/tmp", "mode=1777")] {
        if let Err(error) = place_memory(target, mode) {
            warning!("{target}: {}", sys::reason(error));
        }
    }
}

/// Mounts one of the kernel's file systems, where nothing is mounted yet.
fn place(target: &str, kind: &str, flags: MsFlags, options: &str) -> Result<(), Errno> {
    if is_mount_point(target) {
        return Ok(());
    }
    let _ = fs::create_dir(target);
    mount(Some(kind), target, Some(kind), flags, Some(options))
}

/// A tmpfs with the folders that the root has there: an image's /run/service belongs to its user.
pub fn place_memory(target: &str, options: &str) -> Result<(), Errno> {
    if is_mount_point(target) {
        return Ok(());
    }
    let folders = folders_below(Path::new(target));
    place(target, "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, options)?;
    for (path, about) in folders {
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        let _ = made.and_then(|()| chown(&path, Some(about.uid()), Some(about.gid())));
        let _ = fs::set_permissions(&path, fs::Permissions::from_mode(about.mode() & 0o7777));
    }
    Ok(())
}

/// The folders below one, parents before their children; links are not followed.
fn folders_below(folder: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for path in sys::vm::entries(&folder) {
            if let Ok(about) = path.symlink_metadata()
                && about.is_dir()
            {
                open.push(path.clone());
                found.push((path, about));
            }
        }
    }
    found
}

/// The nodes that a program expects, for a kernel without devtmpfs.
fn make_nodes() {
    let nodes = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    for (name, major, minor) in nodes.into_iter().chain([("console", 5, 1), ("ptmx", 5, 2)]) {
        let path = Path::new("/dev").join(name);
        let _ = mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor));
        let _ = fs::set_permissions(&path, fs::Permissions::from_mode(if name == "console" { 0o600 } else { 0o666 }));
    }
}

/// Whether a file system is mounted at a path.
pub fn is_mount_point(path: &str) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|about| (about.dev(), about.ino())).ok();
    match (device(Path::new(path)), device(&Path::new(path).join(".."))) {
        (Some(own), Some(parent)) => own.0 != parent.0 || own.1 == parent.1,
        _ => false,
    }
}

/// Waits for a device node; other sources have none. Of several, with commas between, the first that is there is meant.
pub fn wait_for(source: &str, limit: Duration) -> &str {
    let deadline = sys::now() + limit;
    if !source.starts_with("/dev/") {
        return source;
    }
    loop {
        let found = source.split(',').find(|path| Path::new(path).exists());
        match found {
            Some(path) => return path,
            None if sys::now() >= deadline => return source,
            None => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// Options of fstab(5): flags, and what is left for the file system; whether a failure does not matter.
fn flags(options: &str) -> (MsFlags, String, bool) {
    let mut flags = MsFlags::empty();
    let mut rest = Vec::new();
    let mut may_fail = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "defaults" | "rw" => {}
            "nofail" => may_fail = true,
            "ro" => flags |= MsFlags::MS_RDONLY,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "nodiratime" => flags |= MsFlags::MS_NODIRATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "strictatime" => flags |= MsFlags::MS_STRICTATIME,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            "dirsync" => flags |= MsFlags::MS_DIRSYNC,
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            other => rest.push(other),
        }
    }
    (flags, rest.join(","), may_fail)
}

/// Mounts what a line of the configuration says, at its target or at another one.
pub fn make(wanted: &Mount, target: &str, limit: Duration) -> Result<(), String> {
    let Mount { source, kind, options, .. } = wanted;
    let (flags, rest, may_fail) = flags(options);
    let source = wait_for(source, if may_fail { Duration::ZERO } else { limit });
    make_target(source, target, flags.contains(MsFlags::MS_BIND));
    let result = mount(Some(source), target, Some(kind.as_str()), flags, Some(rest.as_str())).and_then(|()| {
        // A bind mount takes its flags only by a second call.
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        if flags.contains(MsFlags::MS_BIND) && !flags.difference(bind).is_empty() {
            mount(NONE, target, NONE, MsFlags::MS_REMOUNT | flags.difference(MsFlags::MS_REC), NONE)
        } else {
            Ok(())
        }
    });
    let failed = |error: Errno| format!("mount {source} ({kind}) at {target}: {}", reason(error, source));
    match result {
        Err(error) if may_fail => {
            warning!("{}", failed(error));
            Ok(())
        }
        result => result.map_err(failed),
    }
}

fn reason(error: Errno, source: &str) -> &'static str {
    match error {
        Errno::ENODEV => "the kernel does not know this type of file system (is its module loaded?)",
        Errno::ENOENT if source.starts_with("/dev/") && !Path::new(source).exists() => "there is no such device",
        Errno::ENOENT => "no such folder, and it can't be made",
        error => sys::reason(error),
    }
}

fn make_target(source: &str, target: &str, is_bind: bool) {
    if Path::new(target).exists() {
        return;
    }
    let of_file = is_bind && fs::metadata(source).is_ok_and(|about| !about.is_dir());
    let folder = if of_file { Path::new(target).parent() } else { Some(Path::new(target)) };
    // Where this fails the mount says so.
    let _ = folder.map(fs::create_dir_all);
    if of_file {
        let _ = fs::File::create(target);
    }
}

/// A line of /proc/self/mountinfo (proc(5)): where, and what type.
pub fn parse_mount(line: &str) -> Option<(String, &str)> {
    let target = line.split(' ').nth(4)?;
    let kind = line.split(' ').skip_while(|word| *word != "-").nth(1)?;
    Some((unescaped(target), kind))
}

/// Blanks and backslashes are written as \ooo there.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                out.extend(&part.as_bytes()[3..]);
            }
            None => out.extend([b"\\", part.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Those that are in memory or the kernel's own: nothing is lost with them.
fn holds_nothing(kind: &str) -> bool {
    matches!(
        kind,
        "proc" | "sysfs" | "devtmpfs" | "devpts" | "tmpfs" | "ramfs" | "rootfs" | "cgroup" | "cgroup2" | "mqueue"
    )
}

/// Writes everything out, and unmounts it or at worst makes it read-only.
pub fn leave_all() {
    nix::unistd::sync();
    let own = |target: &str| {
        ["/proc", "/sys", "/dev", "/run"]
            .iter()
            .any(|place| target.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    let table = || fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let left = || -> Vec<String> {
        let table = table();
        let all = table.lines().filter_map(parse_mount);
        let meant = all.filter(|(target, kind)| {
            target != "/" && !target.starts_with(PARTS) && !(own(target) && holds_nothing(kind))
        });
        let mut targets: Vec<String> = meant.map(|(target, _)| target).collect();
        targets.reverse();
        targets
    };
    for attempt in 0..TRIES {
        // The first passes are for mounts that lie on others, which the table need not show in their order.
        if attempt > 2 {
            std::thread::sleep(PAUSE);
        }
        let targets = left();
        let failed =
            targets.iter().filter(|target| umount2(target.as_str(), MntFlags::UMOUNT_NOFOLLOW).is_err()).count();
        if failed == 0 {
            break;
        }
    }
    for target in left() {
        warning!("{target} is in use: making it read-only");
        make_read_only(&target);
    }
    let table = table();
    // The root, which lies before its parts: an overlay is to be done before what it writes to.
    for (target, kind) in table.lines().filter_map(parse_mount) {
        if (target == "/" || target.starts_with(PARTS)) && !holds_nothing(kind) {
            make_read_only(&target);
        }
    }
    nix::unistd::sync();
}

fn make_read_only(target: &str) {
    for _ in 0..TRIES {
        match mount(NONE, target, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE) {
            Err(Errno::EBUSY) => std::thread::sleep(PAUSE),
            Err(error) => return warning!("{target} stays writable: {}", sys::reason(error)),
            Ok(()) => return,
        }
    }
    warning!("{target} is being written and stays so");
}

/// The number of a file system's type (statfs(2)): in memory.
pub fn is_in_memory(path: &str) -> bool {
    const RAMFS: u32 = 0x8584_58f6;
    const TMPFS: u32 = 0x0102_1994;
    nix::sys::statfs::statfs(path).is_ok_and(|about| matches!(about.filesystem_type().0 as u32, RAMFS | TMPFS))
}

/// Moves a mount to another place.
pub fn move_to(from: &str, to: &str) -> Result<(), Errno> {
    mount(Some(from), to, NONE, MsFlags::MS_MOVE, NONE)
}

/// Forgets a mount, at once.
pub fn drop_mount(target: &str) {
    let _ = umount2(target, MntFlags::MNT_DETACH);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo() {
        let line = r"36 35 98:0 /x /mnt\040a\134b rw,noatime master:1 - ext4 /dev/root rw,errors=continue";
        assert_eq!(parse_mount(line), Some((r"/mnt a\b".into(), "ext4")));
        assert_eq!(parse_mount("36 35 98:0 /x"), None);
    }

    #[test]
    fn options() {
        let (read, rest, may_fail) = flags("ro,nosuid,size=5m,nofail,mode=700");
        assert_eq!((read, rest.as_str()), (MsFlags::MS_RDONLY | MsFlags::MS_NOSUID, "size=5m,mode=700"));
        assert!(may_fail && flags("").0.is_empty());
    }

    #[test]
    fn mount_points() {
        assert!(is_mount_point("/proc") && is_mount_point("/") && !is_mount_point("/proc/self"));
    }
}
