//! Virtual machines for the tests and figures of a machine's PID 1: an archive for the kernel to boot from, and qemu.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::scratch;

/// A kernel and its modules.
#[derive(Clone)]
pub struct Kernel {
    pub image: PathBuf,
    modules: PathBuf,
    /// modules.dep.
    dependencies: String,
}

impl Kernel {
    /// The one that `scripts/vm-kernel` finds.
    pub fn find() -> io::Result<Self> {
        Self::find_flavour(None)
    }

    /// Debian's kernel with every driver.
    pub fn with_every_driver() -> io::Result<Self> {
        Self::find_flavour(Some("amd64"))
    }

    fn find_flavour(flavour: Option<&str>) -> io::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/vm-kernel");
        let output = Command::new(&script).args(flavour).stderr(Stdio::inherit()).output()?;
        let image = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        if !output.status.success() || !image.is_file() {
            return Err(io::Error::other(format!("{}: no kernel", script.display())));
        }
        let mut folders = std::fs::read_dir(image.with_file_name("lib").join("modules"))?;
        let modules = folders.next().ok_or_else(|| io::Error::other("no modules"))??.path();
        let dependencies = std::fs::read_to_string(modules.join("modules.dep"))?;
        Ok(Self { image, modules, dependencies })
    }

    /// Its version, as uname(1) says it.
    pub fn release(&self) -> String {
        self.modules.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Modules by name, each after those that it needs, as paths below the modules' folder.
    fn closure(&self, names: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for name in names {
            let file = format!("/{name}.ko");
            let line =
                self.dependencies.lines().find(|line| line.split(':').next().is_some_and(|path| path.ends_with(&file)));
            let (own, needed) =
                line.and_then(|line| line.split_once(':')).unwrap_or_else(|| panic!("no module {name}"));
            for path in needed.split_whitespace().rev().chain([own]) {
                if !all.iter().any(|known| known == path) {
                    all.push(path.to_owned());
                }
            }
        }
        all
    }
}

/// An initramfs in the kernel's format (newc, Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Clone, Default)]
pub struct Archive {
    // In a box, so that it is moved in a register: passed in memory from one method to the next, rustc 1.95's optimized
    // code goes on with the bytes that a longer vector has left (valgrind shows it).
    content: Box<Content>,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    count: u32,
}

impl Content {
    fn add(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.add_with(path, mode, (0, 0), content);
    }

    fn add_with(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.count += 1;
        let name = path.trim_start_matches('/');
        let fields =
            [self.count, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

impl Archive {
    pub fn folder(mut self, path: &str) -> Self {
        self.content.add(path, 0o040_755, &[]);
        self
    }

    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.content.add(path, 0o100_755, content.as_ref());
        self
    }

    /// A character device.
    pub fn node(mut self, path: &str, device: (u32, u32)) -> Self {
        self.content.add_with(path, 0o020_600, device, &[]);
        self
    }

    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.content.add(path, 0o120_777, target.as_bytes());
        self
    }

    /// A file of this machine.
    pub fn copy(mut self, path: &str, from: &Path) -> Self {
        let content = std::fs::read(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        self.content.add(path, 0o100_755, &content);
        self
    }

    /// busybox, as what a service or a script needs of a system.
    pub fn busybox(mut self) -> Self {
        for folder in ["/bin", "/etc"] {
            self = self.folder(folder);
        }
        self = self.copy("/bin/busybox", Path::new("/bin/busybox"));
        for applet in [
            "sh", "true", "false", "sleep", "cat", "echo", "kill", "mount", "umount", "ls", "id", "ip", "stat", "tty",
            "dd", "hostname", "grep", "ps", "poweroff", "init", "mkdir", "date", "env", "wc", "sync", "touch",
        ] {
            self = self.link(&format!("/bin/{applet}"), "busybox");
        }
        self
    }

    /// A program that wants this machine's libc, with all that it wants.
    pub fn dynamic(mut self, path: &str, from: &Path) -> Self {
        let output = Command::new("ldd").arg(from).output().expect("ldd");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut made = Vec::new();
        for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
            let mut folder = String::new();
            for part in Path::new(library).parent().unwrap_or(Path::new("/")).iter().skip(1) {
                folder = format!("{folder}/{}", part.to_string_lossy());
                if !made.contains(&folder) {
                    self = self.folder(&folder);
                    made.push(folder.clone());
                }
            }
            self = self.copy(library, Path::new(library));
        }
        self.copy(path, from)
    }

    /// Modules, and the lines of a configuration that load them.
    pub fn modules(mut self, kernel: &Kernel, names: &[&str]) -> (Self, String) {
        self = self.folder("/modules");
        let mut lines = String::new();
        for path in kernel.closure(names) {
            let name = path.rsplit('/').next().unwrap_or_default();
            self = self.copy(&format!("/modules/{name}"), &kernel.modules.join(&path));
            lines += &format!("module = /modules/{name}\n");
        }
        (self, lines)
    }

    /// How much the kernel is to unpack, and the archive's end.
    pub fn finish(mut self) -> Vec<u8> {
        self.content.add("TRAILER!!!", 0, &[]);
        self.content.bytes
    }
}

/// Whether the processor's own virtualization can be used. /dev/kvm alone does not say so: where another module stands
/// behind it (kvm_pvm), it takes only kernels that were made for it. `VM_ACCEL=kvm` or `tcg` decides otherwise.
pub fn has_hardware() -> bool {
    if let Some(wanted) = std::env::var_os("VM_ACCEL") {
        return wanted == "kvm";
    }
    let is_real = ["kvm_intel", "kvm_amd"].iter().any(|module| Path::new("/sys/module").join(module).exists());
    is_real && std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// A disk with an ext4 of so many MiB, filled from a folder without a mount.
pub fn disk(folder: &Path, mebibytes: u32) -> io::Result<PathBuf> {
    let path = scratch("disk.ext4");
    let output = Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-m", "0", "-d"])
        .arg(folder)
        .arg(&path)
        .arg(format!("{mebibytes}M"))
        .output()?;
    if output.status.success() {
        Ok(path)
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

/// A machine to start.
pub struct Machine {
    kernel: Kernel,
    archive: PathBuf,
    /// Added to the kernel's command line.
    pub words: String,
    pub memory: u32,
    pub options: Vec<OsString>,
}

/// One that runs.
pub struct Running {
    child: Child,
    /// Lines of the console, each with the time of its arrival.
    lines: std::sync::mpsc::Receiver<(Instant, String)>,
    pub console: String,
    /// The socket of qemu's monitor.
    control: PathBuf,
    keyboard: Option<std::process::ChildStdin>,
    archive: PathBuf,
    pub started: Instant,
}

/// How a machine ended.
#[derive(Debug)]
pub struct Ended {
    /// What it said through isa-debug-exit; `None` where qemu ended without.
    pub code: Option<i32>,
    pub console: String,
    pub took: Duration,
}

impl Machine {
    pub fn new(kernel: &Kernel, archive: Archive) -> io::Result<Self> {
        let path = scratch("initramfs");
        std::fs::write(&path, archive.finish())?;
        Ok(Self { kernel: kernel.clone(), archive: path, words: String::new(), memory: 256, options: Vec::new() })
    }

    pub fn words(mut self, words: &str) -> Self {
        self.words = words.to_owned();
        self
    }

    pub fn option(mut self, words: &[&str]) -> Self {
        self.options.extend(words.iter().map(OsString::from));
        self
    }

    /// A disk, /dev/vda for the first one.
    pub fn disk(self, path: &Path) -> Self {
        let name = format!("disk{}", self.options.len());
        let drive = format!("if=none,id={name},format=raw,file={}", path.display());
        self.option(&["-drive", &drive, "-device", &format!("virtio-blk-pci,drive={name}")])
    }

    /// A folder of this machine, by 9p under a tag; `options` are those of qemu's -fsdev.
    pub fn folder(self, tag: &str, path: &Path, options: &str) -> Self {
        let files = format!("local,id={tag},path={},security_model=none{options}", path.display());
        self.option(&["-fsdev", &files, "-device", &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}")])
    }

    /// Starts it; the console's lines can be read while it runs. qemu's monitor listens on stdin.
    pub fn start(self) -> io::Result<Running> {
        let control = scratch("monitor");
        let fast = has_hardware();
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            // microvm has no clock by which an emulated processor could be measured: every other boot would hang.
            .args(["-machine", "q35", "-accel", if fast { "kvm" } else { "tcg" }])
            .args([
                "-cpu",
                if fast { "host,arch-capabilities=off" } else { "max" },
                "-smp",
                "1",
                "-m",
                &self.memory.to_string(),
            ])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
            .args(["-chardev", "stdio,id=console,signal=off", "-device", "isa-serial,chardev=console"])
            .arg("-chardev")
            .arg(format!("socket,id=control,server=on,wait=off,path={}", control.display()))
            .args(["-mon", "chardev=control"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(&self.archive)
            .args(["-append", &format!("console=ttyS0 quiet loglevel=4 panic=-1 random.trust_cpu=on {}", self.words)])
            .args(&self.options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let started = Instant::now();
        let mut child = command.spawn()?;
        let (sender, lines) = std::sync::mpsc::channel();
        let out = child.stdout.take().ok_or_else(|| io::Error::other("no stdout"))?;
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut line = Vec::new();
            while out.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send((Instant::now(), text)).is_err() {
                    return;
                }
                line.clear();
            }
        });
        let keyboard = child.stdin.take();
        Ok(Running { child, lines, console: String::new(), control, keyboard, archive: self.archive, started })
    }

    /// Runs it to its end.
    pub fn run(self, limit: Duration) -> Result<Ended, String> {
        self.start().map_err(|error| error.to_string())?.wait(limit)
    }
}

impl Running {
    /// A command for qemu's monitor.
    pub fn control(&self, command: &str) -> io::Result<()> {
        let mut monitor = UnixStream::connect(&self.control)?;
        monitor.set_read_timeout(Some(Duration::from_secs(5)))?;
        monitor.write_all(format!("{command}\n").as_bytes())?;
        // The second prompt says that it is done.
        let mut answer: Vec<u8> = Vec::new();
        let mut buffer = [0; 1024];
        while answer.windows(6).filter(|part| part == b"(qemu)").count() < 2 {
            match monitor.read(&mut buffer)? {
                0 => break,
                count => answer.extend(&buffer[..count]),
            }
        }
        Ok(())
    }

    /// Types on the console.
    pub fn type_in(&mut self, text: &str) -> io::Result<()> {
        let keyboard = self.keyboard.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        keyboard.write_all(text.as_bytes())?;
        keyboard.flush()
    }

    /// Waits for a line of the console that holds a text; when it came.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<Instant, String> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok((time, line)) => {
                    self.console += &line;
                    self.console.push('\n');
                    if line.contains(text) {
                        return Ok(time);
                    }
                }
                Err(_) => return Err(format!("no `{text}` on the console within {limit:?}:\n{}", self.console)),
            }
        }
    }

    /// Waits for the machine's end, which must come within a time after its start.
    pub fn wait(mut self, limit: Duration) -> Result<Ended, String> {
        let status = loop {
            match self.child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break status,
                None if self.started.elapsed() > limit => {
                    while let Ok((_, line)) = self.lines.try_recv() {
                        self.console += &format!("{line}\n");
                    }
                    return Err(format!("still runs after {limit:?}:\n{}", self.console));
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let took = self.started.elapsed();
        while let Ok((_, line)) = self.lines.recv() {
            self.console += &format!("{line}\n");
        }
        // (code * 2 + 1) mod 256; qemu's own end is even.
        let code = status.code().filter(|code| code % 2 == 1).map(|code| code / 2);
        Ok(Ended { code, console: std::mem::take(&mut self.console), took })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.archive);
        let _ = std::fs::remove_file(&self.control);
    }
}

/// A folder that goes with what uses it.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> io::Result<Self> {
        let path = scratch(name);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// A program in it, or a file.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) -> io::Result<()> {
        let path = self.0.join(path.trim_start_matches('/'));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
