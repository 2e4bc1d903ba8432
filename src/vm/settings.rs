//! What the machine is to be: one value, made from the configuration files, the kernel's command line and the words
//! after its `--`. docs/vm.md has the keys.

use std::net::IpAddr;
use std::time::Duration;

use super::power::{End, Status};
use super::syntax;
use crate::{options, signal};

/// A file system to mount, as in fstab(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub source: String,
    pub target: String,
    pub kind: String,
    pub options: String,
}

/// A resource limit of the service: the kernel's number, soft and hard value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub resource: u32,
    pub values: [u64; 2],
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub interface: String,
    pub address: IpAddr,
    pub prefix: u8,
    /// The machine does without where there is no such interface.
    pub is_optional: bool,
}

/// The settings.
pub struct Settings {
    /// The service: its program and arguments.
    pub service: Vec<Vec<u8>>,
    /// The init's own options: name and value as on its command line, and where it was said.
    pub options: Vec<(String, String, String)>,
    pub stop_signal: i32,
    pub stop_timeout: Duration,
    pub limits: Vec<Limit>,
    /// Programs that run before the service, each with its arguments.
    pub setup: Vec<Vec<Vec<u8>>>,
    /// The service's terminal; `None`: the kernel's console.
    pub console: Option<String>,
    /// The terminal passes bytes on as they are, and shows nothing of what comes in: at its other end is a pipe.
    pub is_plain: bool,
    /// The terminal's rows and columns.
    pub console_size: Option<[u16; 2]>,
    /// Modules to load: path and parameters.
    pub modules: Vec<(String, String)>,
    /// Its target is not used.
    pub root: Option<Mount>,
    pub overlay: Option<Mount>,
    pub mounts: Vec<Mount>,
    /// How long a device or interface is waited for.
    pub wait: Duration,
    pub hostname: Option<String>,
    pub addresses: Vec<Address>,
    pub gateways: Vec<IpAddr>,
    pub nameservers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub zone: Option<String>,
    pub seed: Option<String>,
    pub status: Status,
    pub end: End,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            service: Vec::new(),
            options: Vec::new(),
            stop_signal: libc::SIGTERM,
            stop_timeout: Duration::from_secs(10),
            limits: Vec::new(),
            setup: Vec::new(),
            console: None,
            is_plain: false,
            console_size: None,
            modules: Vec::new(),
            root: None,
            overlay: None,
            mounts: Vec::new(),
            wait: Duration::from_secs(10),
            hostname: None,
            addresses: Vec::new(),
            gateways: Vec::new(),
            nameservers: Vec::new(),
            search: Vec::new(),
            zone: None,
            seed: None,
            status: Status::Nowhere,
            end: End::PowerOff,
        }
    }
}

/// The keys that may be given several times in one source; the init's own options among them are in `options`.
const REPEATED: [&str; 11] =
    ["arg", "env", "secret", "rlimit", "setup", "module", "mount", "address", "gateway", "nameserver", "search"];

/// The names of the limits, in the kernel's numbering (asm-generic/resource.h).
const LIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// What one source has said so far.
#[derive(Default)]
struct Seen {
    keys: Vec<String>,
}

impl Settings {
    /// Takes a configuration file; what is wrong with it, a line each. The rest is taken all the same, so that a failure
    /// is reported as the file wants it.
    pub fn take_file(&mut self, name: &str, content: &[u8]) -> Vec<String> {
        let mut seen = Seen::default();
        let mut wrong = Vec::new();
        for line in syntax::lines(content) {
            let (number, result) = match line {
                Ok(line) => {
                    (line.number, self.take(&mut seen, line.key, line.value, &format!("{name}, line {}", line.number)))
                }
                Err((number, message)) => (number, Err(message.to_owned())),
            };
            if let Err(message) = result {
                wrong.push(format!("{name}, line {number}: {message}"));
            }
        }
        wrong
    }

    /// Takes what the kernel's command line says by `inception.KEY=VALUE`. `inception.config` is the caller's business.
    pub fn take_command_line(&mut self, words: &[Vec<u8>]) -> Vec<String> {
        let mut seen = Seen::default();
        let mut wrong = Vec::new();
        for word in words {
            let Some(rest) = word.strip_prefix(b"inception.") else { continue };
            let shown = String::from_utf8_lossy(rest).into_owned();
            let (key, value) = match rest.iter().position(|byte| *byte == b'=') {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                // As the kernel has it: a word alone is a switch.
                None => (rest, &b"yes"[..]),
            };
            if key == b"config" {
                continue;
            }
            let key = String::from_utf8_lossy(key);
            let origin = format!("the kernel's command line, inception.{key}");
            if let Err(message) = self.take(&mut seen, &key, value, &origin) {
                wrong.push(format!("the kernel's command line, inception.{shown}: {message}"));
            }
        }
        wrong
    }

    fn take(&mut self, seen: &mut Seen, key: &str, value: &[u8], origin: &str) -> Result<(), String> {
        let is_first = !seen.keys.iter().any(|known| known == key);
        if is_first {
            seen.keys.push(key.to_owned());
        } else if !REPEATED.contains(&key) {
            return Err(format!("{key} is there for the second time"));
        }
        match key {
            "arg" => {
                if is_first {
                    self.service.clear();
                }
                self.service.push(syntax::text(value)?);
            }
            "stop-signal" => {
                self.stop_signal = signal::parse(&one(value)?).ok_or("no such signal")?;
            }
            "stop-timeout" => self.stop_timeout = time(value)?,
            "wait" => self.wait = time(value)?,
            "rlimit" => self.limits.push(limit(value)?),
            "setup" => {
                let words = syntax::words(value)?;
                if words.is_empty() {
                    return Err("a program is wanted".into());
                }
                self.setup.push(words);
            }
            "console" => self.console = Some(one(value)?),
            "console-mode" => {
                self.is_plain = match one(value)?.as_str() {
                    "terminal" => false,
                    "plain" => true,
                    _ => return Err("terminal or plain is wanted".into()),
                }
            }
            "console-size" => self.console_size = Some(size(value)?),
            "module" => {
                let all = one(value)?;
                let (path, parameters) = all.split_once(' ').unwrap_or((&all, ""));
                self.modules.push((path.to_owned(), parameters.trim_ascii().to_owned()));
            }
            "root" => self.root = Some(source(value)?),
            "overlay" => self.overlay = Some(source(value)?),
            "mount" => self.mounts.push(mount(value)?),
            "hostname" => self.hostname = Some(one(value)?),
            "address" => self.addresses.push(address(value)?),
            "gateway" => self.gateways.push(one(value)?.parse().map_err(|_| "an IP address is wanted")?),
            "nameserver" => self.nameservers.push(one(value)?.parse().map_err(|_| "an IP address is wanted")?),
            "search" => self.search.push(one(value)?),
            "zone" => self.zone = Some(zone(value)?),
            "seed" => self.seed = Some(one(value)?),
            "status" => self.status = Status::parse(&one(value)?)?,
            "end" => self.end = End::parse(&one(value)?)?,
            _ => self.take_option(is_first, key, &one(value)?, origin)?,
        }
        Ok(())
    }

    /// One of the init's own options, which are checked when all are known.
    fn take_option(&mut self, is_first: bool, key: &str, value: &str, origin: &str) -> Result<(), String> {
        let value = match options::kind(key) {
            Some(options::Kind::Valued | options::Kind::Repeated) => value.to_owned(),
            Some(options::Kind::Switch) => match value {
                "yes" | "1" => "1".to_owned(),
                "no" | "0" => "0".to_owned(),
                "2" if key == "verbose" => value.to_owned(),
                _ => return Err("yes or no is wanted".into()),
            },
            None => return Err(format!("there is no key {key}")),
        };
        if is_first && options::kind(key) != Some(options::Kind::Repeated) {
            self.options.retain(|(known, ..)| known != key);
        }
        self.options.push((key.to_owned(), value, origin.to_owned()));
        Ok(())
    }
}

/// One text of UTF-8 that is not empty.
fn one(value: &[u8]) -> Result<String, String> {
    let text = String::from_utf8(syntax::text(value)?).map_err(|_| "UTF-8 is wanted")?;
    if text.is_empty() { Err("a value is wanted".into()) } else { Ok(text) }
}

fn strings(value: &[u8]) -> Result<Vec<String>, String> {
    syntax::words(value)?
        .into_iter()
        .map(|word| String::from_utf8(word).map_err(|_| "UTF-8 is wanted".to_owned()))
        .collect()
}

fn time(value: &[u8]) -> Result<Duration, String> {
    options::seconds(&one(value)?).ok_or_else(|| "a time is wanted, as in 5, 0.5, 500ms, 2m".into())
}

fn source(value: &[u8]) -> Result<Mount, String> {
    match <[String; 2]>::try_from(strings(value)?) {
        Ok([source, kind]) => Ok(Mount { source, target: String::new(), kind, options: String::new() }),
        Err(words) => match <[String; 3]>::try_from(words) {
            Ok([source, kind, options]) => Ok(Mount { source, target: String::new(), kind, options }),
            Err(_) => Err("SOURCE TYPE [OPTIONS] is wanted".into()),
        },
    }
}

fn mount(value: &[u8]) -> Result<Mount, String> {
    let wanted = "SOURCE TARGET TYPE [OPTIONS] is wanted, the target a path from / on";
    let mut words = strings(value)?.into_iter();
    let mut next = || words.next().ok_or(wanted);
    let (source, target, kind) = (next()?, next()?, next()?);
    let options = next().unwrap_or_default();
    if words.next().is_some() || !target.starts_with('/') || target.split('/').any(|part| part == "..") {
        return Err(wanted.into());
    }
    Ok(Mount { source, target, kind, options })
}

fn limit(value: &[u8]) -> Result<Limit, String> {
    let wanted = "NAME SOFT:HARD is wanted, as in nofile 1024:4096";
    let words = strings(value)?;
    let [name, values] = words.as_slice() else { return Err(wanted.into()) };
    let resource = LIMITS.iter().position(|known| known == name).ok_or_else(|| format!("there is no limit {name}"))?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| if text == "unlimited" { Some(u64::MAX) } else { text.parse().ok() };
    match (number(soft), number(hard)) {
        (Some(soft), Some(hard)) if soft <= hard => Ok(Limit { resource: resource as u32, values: [soft, hard] }),
        _ => Err(wanted.into()),
    }
}

fn size(value: &[u8]) -> Result<[u16; 2], String> {
    let numbers: Vec<u16> = strings(value)?.iter().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().map_err(|_| "ROWS COLUMNS is wanted, as in 24 80".into())
}

fn address(value: &[u8]) -> Result<Address, String> {
    let wanted = "INTERFACE ADDRESS/PREFIX [optional] is wanted, as in eth0 10.0.2.15/24";
    let words = strings(value)?;
    let (interface, both, is_optional) = match words.as_slice() {
        [interface, both] => (interface, both, false),
        [interface, both, optional] if optional == "optional" => (interface, both, true),
        _ => return Err(wanted.into()),
    };
    let (address, prefix) = both.split_once('/').ok_or(wanted)?;
    let address: IpAddr = address.parse().map_err(|_| wanted)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= most).ok_or(wanted)?;
    Ok(Address { interface: interface.clone(), address, prefix, is_optional })
}

/// A name below /usr/share/zoneinfo.
fn zone(value: &[u8]) -> Result<String, String> {
    let name = one(value)?;
    let is_name = |part: &str| !part.is_empty() && !part.starts_with('.');
    if name.split('/').all(is_name) { Ok(name) } else { Err("a zone's name is wanted, as in Europe/Berlin".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_sources_replace_and_lists_add_up() {
        let mut settings = Settings::default();
        let first = b"arg = a\narg = b\nenv = A=1\nhostname = one\ngrace = 3\nmount = none /x tmpfs\n";
        let second =
            b"arg = c d\nenv = B=2\nhostname = \"two\"\ngrace = 4\nmount = \"my data\" /y virtiofs ro,nosuid\n";
        assert!(settings.take_file("first", first).is_empty());
        assert!(settings.take_file("second", second).is_empty());
        let words =
            [&b"quiet"[..], b"inception.rlimit=nofile 1:unlimited", b"inception.wait-all", b"inception.config=/x"];
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
        assert!(settings.take_command_line(&words).is_empty());
        assert_eq!(settings.service, [b"c d"]);
        assert_eq!(settings.hostname.as_deref(), Some("two"));
        let options: Vec<_> = settings.options.iter().map(|(key, value, _)| (key.as_str(), value.as_str())).collect();
        assert_eq!(options, [("env", "A=1"), ("env", "B=2"), ("grace", "4"), ("wait-all", "1")]);
        assert_eq!(settings.mounts[1].source, "my data");
        assert_eq!(settings.mounts[1].options, "ro,nosuid");
        assert_eq!(settings.limits, [Limit { resource: 7, values: [1, u64::MAX] }]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (line, part) in [
            ("nonsense", "key = value"),
            ("no-such-key = 1", "no-such-key"),
            ("hostname =", "value is wanted"),
            ("hostname = \"a", "quote"),
            ("root = /dev/vda", "SOURCE TYPE"),
            ("mount = a b c", "TARGET"),
            ("mount = a /x/../y c", "TARGET"),
            ("address = eth0 10.0.2.15", "PREFIX"),
            ("address = eth0 10.0.2.15/33", "PREFIX"),
            ("address = eth0 10.0.2.15/24 maybe", "optional"),
            ("console-mode = loud", "plain"),
            ("console-size = 24", "ROWS"),
            ("gateway = 10.0.2", "IP address"),
            ("rlimit = nofile 5:4", "SOFT:HARD"),
            ("rlimit = files 5", "files"),
            ("status = somewhere", "debug-exit"),
            ("end = never", "poweroff"),
            ("stop-signal = NONE", "signal"),
            ("stop-timeout = soon", "time"),
            ("zone = ../etc/passwd", "zone"),
            ("wait-all = maybe", "yes or no"),
        ] {
            let wrong = Settings::default().take_file("f", format!("\n{line}\n").as_bytes());
            assert!(
                wrong.len() == 1 && wrong[0].starts_with("f, line 2: ") && wrong[0].contains(part),
                "{line}: {wrong:?}"
            );
        }
        let twice = Settings::default().take_file("f", b"hostname = a\nhostname = b\n");
        assert_eq!(twice, ["f, line 2: hostname is there for the second time"]);
    }
}
