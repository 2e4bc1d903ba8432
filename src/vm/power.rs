//! What asks the machine to stop, and how it ends.

use std::ffi::{CString, c_int};
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};

use super::mounts;
use crate::sys::{self, Arrived};
use crate::{signal, warning};

/// The exit code of an init that broke down itself.
const BROKEN: c_int = 119;
/// KEY_POWER of linux/input-event-codes.h.
const KEY_POWER: u16 = 116;
/// The first real-time signal; +3, +4 and +5 are systemd's words for halt, power off, reboot.
const FIRST_REAL_TIME: c_int = 34;
/// How long file systems may take to be written and unmounted.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(60);
/// How long the host may take to read what the console still has.
const CONSOLE_LIMIT: Duration = Duration::from_secs(2);
/// How long the host may take to hear the exit code.
const STATUS_LIMIT: Duration = Duration::from_secs(2);

/// What becomes of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    PowerOff,
    Reboot,
    Halt,
}

/// How the host hears the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Nowhere,
    /// An I/O port that ends qemu.
    DebugExit(u16),
    /// A vsock port of the host.
    Vsock(u32),
    /// A virtio console port, by its name.
    Port(String),
}

/// What happens where the init breaks down.
static PLAN: OnceLock<(Status, End)> = OnceLock::new();
/// What a signal asked for, in the place of what the configuration says: 0 nothing, 3 halt, 4 power off, 5 reboot.
static ASKED: AtomicU8 = AtomicU8::new(0);

impl End {
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "poweroff" => Ok(Self::PowerOff),
            "reboot" => Ok(Self::Reboot),
            "halt" => Ok(Self::Halt),
            _ => Err("poweroff, reboot or halt is wanted".into()),
        }
    }
}

impl Status {
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = "debug-exit[:PORT], vsock:PORT or port:NAME is wanted";
        let (way, value) = text.split_once(':').unwrap_or((text, ""));
        match (way, value) {
            ("debug-exit", "") => Ok(Self::DebugExit(0xf4)),
            ("debug-exit", port) => {
                let port =
                    port.strip_prefix("0x").map_or_else(|| port.parse().ok(), |hex| u16::from_str_radix(hex, 16).ok());
                port.map(Self::DebugExit).ok_or_else(|| wanted.into())
            }
            ("vsock", port) => port.parse().map(Self::Vsock).map_err(|_| wanted.into()),
            ("port", name) if !name.is_empty() => Ok(Self::Port(name.to_owned())),
            _ => Err(wanted.into()),
        }
    }

    /// Tells the host, as docs/vm.md says for each way.
    fn hand_over(&self, code: c_int) -> Result<(), String> {
        let line = format!("{code}\n");
        match self {
            Self::Nowhere => Ok(()),
            Self::DebugExit(port) => {
                sys::vm::write_port(*port, code as u8)
                    .map_err(|error| format!("port {port:#x}: {}", sys::reason(error)))?;
                // Where there is such a device the machine is gone by now.
                Err(format!("port {port:#x}: the machine goes on: it has no isa-debug-exit there"))
            }
            Self::Vsock(port) => send_to_host(*port, line.as_bytes())
                .map_err(|error| format!("vsock port {port}: {}", sys::reason(error))),
            Self::Port(name) => write_to_port(name, line.as_bytes()).map_err(|error| format!("port {name}: {error}")),
        }
    }
}

fn send_to_host(port: u32, bytes: &[u8]) -> nix::Result<()> {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, VsockAddr, connect, send, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = nix::sys::time::TimeVal::new(STATUS_LIMIT.as_secs() as _, 0);
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    // Only the host's kernel gives up on a connection by itself: after 2 s.
    connect(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, port))?;
    send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).map(drop)
}

fn write_to_port(name: &str, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    // udev would make links of these names.
    let has_name = |folder: &std::path::Path| {
        std::fs::read_to_string(folder.join("name")).is_ok_and(|found| found.trim_ascii_end() == name)
    };
    let folders = sys::vm::entries(std::path::Path::new("/sys/class/virtio-ports"));
    let folder = folders.iter().find(|folder| has_name(folder)).ok_or(std::io::ErrorKind::NotFound)?;
    let device = std::path::Path::new("/dev").join(folder.file_name().unwrap_or_default());
    // Where nobody listens on the host's side a plain write waits for ever. Closing waits until the host has all.
    std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(device)?.write_all(bytes)
}

/// Who listens for requests to stop.
pub struct Requests {
    /// Input devices with a power key.
    keys: Vec<c_int>,
    /// What the service gets when the machine is to stop.
    pub stop_signal: c_int,
    /// Where the host hears that the service runs.
    status: Status,
}

impl Requests {
    /// From now on Ctrl-Alt-Del and the power key ask.
    pub fn listen(stop_signal: c_int, status: &Status) -> Self {
        // Refused only without the capability, and then the kernel reboots at once.
        let _ = set_cad_enabled(false);
        let mut keys = Vec::new();
        for path in sys::vm::entries(std::path::Path::new("/dev/input")) {
            let path = path.into_os_string().into_encoded_bytes();
            if !path.starts_with(b"/dev/input/event") {
                continue;
            }
            let Ok(path) = CString::new(path) else { continue };
            let Ok(fd) = sys::open(&path, libc::O_RDONLY) else { continue };
            if sys::vm::has_key(fd, KEY_POWER) && sys::vm::tell_by_signal(fd).is_ok() {
                keys.push(fd);
            } else {
                sys::close(fd);
            }
        }
        Self { keys, stop_signal, status: status.clone() }
    }

    /// Tells the host that the service runs, where there is a port: a connection of vsock is for the exit code.
    pub fn say_started(&self) {
        if let Status::Port(name) = &self.status {
            // Whoever does not hear this may hear the exit code, and if not that is said.
            let _ = write_to_port(name, b"started\n");
        }
    }

    /// Whether a signal asks the machine to stop.
    pub fn is_one(&self, arrived: Arrived) -> bool {
        match arrived.signal {
            libc::SIGTERM | libc::SIGINT | libc::SIGPWR => true,
            libc::SIGIO if arrived.by_kernel => self.is_key_pressed(),
            signal if (FIRST_REAL_TIME + 3..=FIRST_REAL_TIME + 5).contains(&signal) => {
                ASKED.store((signal - FIRST_REAL_TIME) as u8, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    fn is_key_pressed(&self) -> bool {
        /// struct input_event of the 64-bit machines: two longs of time, type, code, value.
        const SIZE: usize = 24;
        let mut buffer = [0; SIZE * 16];
        let mut pressed = false;
        for fd in &self.keys {
            while let Ok(count @ SIZE..) = sys::read(*fd, &mut buffer) {
                pressed |= buffer[..count].chunks_exact(SIZE).any(|event| {
                    // EV_KEY, the key, and that it went down.
                    event[16..18] == 1u16.to_ne_bytes()
                        && event[18..20] == KEY_POWER.to_ne_bytes()
                        && event[20..24] == 1i32.to_ne_bytes()
                });
            }
        }
        pressed
    }
}

/// From now on a fault of the init's own code ends the machine, not the kernel.
pub fn survive_faults() {
    sys::vm::handle_faults(&signal::FAULTS, broken);
    let _ = sys::set_mask(signal::ALL_BUT_FAULTS);
}

/// What is to happen at the end, as far as it is known by now.
pub fn plan(status: &Status, end: End) {
    let _ = PLAN.set((status.clone(), end));
}

fn broken(signal: c_int) -> ! {
    warning!("broke down ({}): ending the machine", signal::name(signal));
    nix::unistd::sync();
    let (status, end) = PLAN.get().unwrap_or(&(Status::Nowhere, End::PowerOff));
    let _ = status.hand_over(BROKEN);
    leave(*end)
}

/// Ends the machine with an exit code for the host.
pub fn end(code: c_int, status: &Status, end: End) -> ! {
    let end = match ASKED.load(Ordering::Relaxed) {
        3 => End::Halt,
        4 => End::PowerOff,
        5 => End::Reboot,
        _ => end,
    };
    // After a failure there may be somebody; after the service nobody is.
    if sys::kill(-1, libc::SIGKILL).is_ok() {
        wait_for_children(None, Duration::from_secs(2));
    }
    // In a child, because a file system may hang for ever: its server, its disk.
    match sys::vm::fork(|| {
        mounts::leave_all();
        0
    }) {
        Ok(pid) => {
            if !wait_for_children(Some(pid), UNMOUNT_LIMIT) {
                warning!("a file system is not written after {} s: leaving it", UNMOUNT_LIMIT.as_secs());
            }
        }
        Err(_) => mounts::leave_all(),
    }
    // The last words of the service, in a child, because a host that does not read holds them up for ever.
    if let Ok(pid) = sys::vm::fork(|| {
        sys::vm::drain(libc::STDOUT_FILENO);
        0
    }) {
        wait_for_children(Some(pid), CONSOLE_LIMIT);
    }
    if let Err(message) = status.hand_over(code) {
        warning!("the host does not hear the exit code {code}: {message}");
    }
    leave(end)
}

/// Waits until a child, or all of them, have ended; false where they have not by then.
fn wait_for_children(child: Option<c_int>, limit: Duration) -> bool {
    let deadline = sys::now() + limit;
    loop {
        match sys::reap(-1, false) {
            Ok(Some(ended)) if Some(ended.pid) == child => return true,
            Ok(Some(_)) => {}
            Err(_) => return true,
            Ok(None) => {
                let left = deadline.saturating_sub(sys::now());
                if left.is_zero() {
                    return false;
                }
                // Blocked and pending, so none is missed.
                let _ = sys::wait_signal(signal::bit(libc::SIGCHLD), Some(left));
            }
        }
    }
}

fn leave(end: End) -> ! {
    let mode = match end {
        End::PowerOff => RebootMode::RB_POWER_OFF,
        End::Reboot => RebootMode::RB_AUTOBOOT,
        End::Halt => RebootMode::RB_HALT_SYSTEM,
    };
    let Err(error) = reboot(mode);
    warning!("the kernel does not end the machine: {}", sys::reason(error));
    // PID 1 must not end: the kernel would panic.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_the_host() {
        assert_eq!(Status::parse("debug-exit"), Ok(Status::DebugExit(0xf4)));
        assert_eq!(Status::parse("debug-exit:0x501"), Ok(Status::DebugExit(0x501)));
        assert_eq!(Status::parse("vsock:1024"), Ok(Status::Vsock(1024)));
        assert_eq!(Status::parse("port:exit"), Ok(Status::Port("exit".into())));
        for wrong in ["", "port:", "vsock", "vsock:x", "debug-exit:0x10000", "tcp:1"] {
            assert!(Status::parse(wrong).is_err(), "{wrong}");
        }
    }
}
