//! The init's configuration for a machine (docs/vm.md), made of what the engine says of a container of the image.

use super::{initramfs, modules::Module, root::Kind};
use crate::{
    engine::spec::users,
    error::{Error, Result},
};
use bollard_stubs::models::ContainerConfig;
use std::{fmt::Write, path::Path};

/// The name of the port by which the host hears how the service goes.
pub const STATUS_PORT: &str = "inception.status";
/// Seconds until a service that does not stop is killed, where the image says nothing: Docker's.
const STOP_TIMEOUT: i64 = 10;

/// All that the init is told.
pub struct Config<'a> {
    /// The container's, the image's and the command line's words in one.
    pub service: &'a ContainerConfig,
    /// A folder with the image's etc/passwd and etc/group.
    pub accounts: &'a Path,
    pub hostname: &'a str,
    /// What holds the root, and its device.
    pub root: Kind,
    pub device: &'a str,
    pub modules: &'a [Module],
    /// `SOURCE TARGET TYPE OPTIONS` each.
    pub mounts: &'a [[String; 4]],
    /// The terminal at the console: its type, rows and columns; none where a pipe is there.
    pub terminal: Option<(&'a str, (u16, u16))>,
    pub network: Network,
    /// The host hears the exit code by a port.
    pub has_port: bool,
}

/// A machine's one network.
pub struct Network {
    /// With the length of its prefix.
    pub address: String,
    pub gateway: Option<String>,
    pub nameservers: Vec<String>,
    /// The machine does without where it has no interface.
    pub is_optional: bool,
}

impl Network {
    /// What qemu's user network gives every machine.
    pub fn qemu() -> Network {
        Network {
            address: "10.0.2.15/24".into(),
            gateway: Some("10.0.2.2".into()),
            nameservers: vec!["10.0.2.3".into()],
            is_optional: false,
        }
    }
}

impl Config<'_> {
    /// The text of /etc/inception-init.conf.
    pub fn text(&self) -> Result<String> {
        let mut text = String::from("# Made by `inception vm`; docs/vm.md says what it means.\n");
        let mut line = |key: &str, words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            let _ = writeln!(text, "{key} = {}", words.join(" "));
        };
        let service = self.service;
        let words = [&service.entrypoint, &service.cmd].into_iter().flatten().flatten();
        let words: Vec<&String> = words.collect();
        if words.first().is_none_or(|word| word.is_empty()) {
            return Err(Error::invalid("the image names no command: give one behind it"));
        }
        words.iter().for_each(|word| line("arg", &[word]));
        let spec = service.user.as_deref().unwrap_or_default();
        let user = users::user(spec, &[self.accounts.to_owned()])?;
        let env = service.env.as_deref().unwrap_or_default();
        env.iter().for_each(|entry| line("env", &[entry]));
        let mut default = |name: &str, value: &str| {
            if !env.iter().any(|entry| entry.split_once('=').is_some_and(|(known, _)| known == name)) {
                line("env", &[&format!("{name}={value}")]);
            }
        };
        default("HOME", &user.home);
        default("HOSTNAME", self.hostname);
        if let Some((kind, _)) = self.terminal {
            default("TERM", kind);
        }
        match spec {
            "" => {}
            // A number that has no entry has no group of its own either.
            _ if !spec.contains(':') && spec.parse::<u32>().is_ok() => {
                line("user", &[&format!("{}:{}", user.uid, user.gid)]);
            }
            spec => line("user", &[spec]),
        }
        if let Some(folder) = service.working_dir.as_deref().filter(|folder| !folder.is_empty()) {
            line("workdir", &[folder]);
        }
        if let Some(signal) = service.stop_signal.as_deref().filter(|signal| !signal.is_empty()) {
            line("stop-signal", &[signal]);
        }
        line("stop-timeout", &[&self.stop_timeout().to_string()]);
        self.modules.iter().for_each(|module| line("module", &[&format!("/{}", initramfs::module_path(module))]));
        if self.root == Kind::Ext4 {
            line("root", &[self.device, "ext4", "rw"]);
        }
        for mount in self.mounts {
            let words: Vec<&str> = mount.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
            line("mount", &words);
        }
        line("hostname", &[self.hostname]);
        match self.terminal {
            Some((_, (rows, columns))) => line("console-size", &[&rows.to_string(), &columns.to_string()]),
            None => line("console-mode", &["plain"]),
        }
        let network = &self.network;
        let optional = network.is_optional.then_some("optional");
        line("address", &["eth0", &network.address].into_iter().chain(optional).collect::<Vec<_>>());
        network.gateway.iter().for_each(|gateway| line("gateway", &[gateway]));
        network.nameservers.iter().for_each(|server| line("nameserver", &[server]));
        if self.has_port {
            line("status", &[&format!("port:{STATUS_PORT}")]);
        }
        Ok(text)
    }

    /// Seconds from the request to stop to the service's SIGKILL.
    pub fn stop_timeout(&self) -> i64 {
        self.service.stop_timeout.unwrap_or(STOP_TIMEOUT).max(0)
    }
}

/// A word of the configuration, in quotes where it must be.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for letter in word.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            letter if letter.is_ascii_control() => {
                let _ = write!(text, "\\x{:02x}", letter as u32);
            }
            letter => text.push(letter),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(service: &ContainerConfig, accounts: &Path) -> Result<String> {
        let mounts = [["share0", "/a b", "virtiofs", "ro"].map(str::to_owned)];
        let modules = [Module { name: "virtio".into(), content: Vec::new() }];
        let (root, device) = (Kind::Ext4, "/dev/vda");
        let terminal = Some(("xterm", (24, 80)));
        let config = Config {
            service,
            accounts,
            hostname: "web",
            root,
            device,
            modules: &modules,
            mounts: &mounts,
            terminal,
            network: Network::qemu(),
            has_port: true,
        };
        config.text()
    }

    #[test]
    fn a_container_becomes_a_machine() {
        let accounts = tempfile::tempdir().unwrap();
        std::fs::create_dir(accounts.path().join("etc")).unwrap();
        std::fs::write(accounts.path().join("etc/passwd"), "www:x:33:34::/srv:/bin/sh\n").unwrap();
        let mut service = ContainerConfig {
            entrypoint: Some(vec!["/init".into(), "--".into()]),
            cmd: Some(vec!["say".into(), "a \"b\"\n\x07".into(), String::new()]),
            env: Some(vec!["PATH=/bin".into(), "TERM=dumb".into()]),
            user: Some("33".into()),
            working_dir: Some("/srv".into()),
            stop_signal: Some("SIGQUIT".into()),
            stop_timeout: Some(3),
            ..ContainerConfig::default()
        };
        let told = text(&service, accounts.path()).unwrap();
        for line in [
            "arg = /init\narg = --\narg = say\narg = \"a \\\"b\\\"\\n\\x07\"\narg = \"\"\n",
            "env = PATH=/bin\nenv = TERM=dumb\nenv = HOME=/srv\nenv = HOSTNAME=web\nuser = 33:34\n",
            "workdir = /srv\nstop-signal = SIGQUIT\nstop-timeout = 3\n",
            "module = /.inception/virtio.ko\nroot = /dev/vda ext4 rw\nmount = share0 \"/a b\" virtiofs ro\nhostname = web\n",
        ] {
            assert!(told.contains(line), "{told}\nexpected: {line}");
        }
        service.user = Some("nobody".into());
        let error = text(&service, accounts.path()).unwrap_err().to_string();
        assert!(error.contains("unable to find user nobody"), "{error}");
        service = ContainerConfig::default();
        let error = text(&service, accounts.path()).unwrap_err().to_string();
        assert!(error.contains("names no command"), "{error}");
    }
}
