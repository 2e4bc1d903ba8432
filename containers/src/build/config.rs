//! What the instructions that only describe an image do to its configuration.

use super::{
    command::{Command, Form},
    words::{self, Lookup},
};
use bollard_stubs::models::{HealthConfig, ImageConfig};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};

const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// How Docker's history marks what is no command.
pub const NOT_RUN: &str = "#(nop) ";

/// An image's configuration during a stage.
pub struct Settings<'a> {
    pub config: &'a mut ImageConfig,
    pub author: &'a mut Option<String>,
    /// CMD was given in this stage: ENTRYPOINT does not take it away.
    pub has_cmd: &'a mut bool,
    pub escape: char,
    pub lookup: Lookup<'a>,
}

/// The words before a command in shell form.
pub fn shell(config: &ImageConfig) -> Vec<String> {
    let own = config.shell.clone().filter(|shell| !shell.is_empty());
    own.unwrap_or_else(|| DEFAULT_SHELL.map(str::to_owned).to_vec())
}

/// A command line as it is run; empty where there is none.
pub fn command_line(form: &Form, config: &ImageConfig) -> Vec<String> {
    match form {
        Form::Exec(words) => words.clone(),
        Form::Shell(text) if text.is_empty() => Vec::new(),
        Form::Shell(text) => [shell(config), vec![text.clone()]].concat(),
    }
}

/// Sets or replaces a variable of `NAME=value` entries.
pub fn set_variable(environment: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match environment.iter_mut().find(|entry| entry.split('=').next() == Some(name)) {
        Some(there) => *there = entry,
        None => environment.push(entry),
    }
}

/// The value of a variable in `NAME=value` entries.
pub fn variable(environment: &[String], name: &str) -> Option<String> {
    environment.iter().find_map(|entry| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// `path` seen from `folder`: absolute, without `.` and `..`; a slash at its end stays.
pub fn absolute(folder: Option<&str>, path: &str) -> String {
    let whole = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{}/{path}", folder.unwrap_or_default()),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let ends = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{ends}", parts.join("/"))
}

impl Settings<'_> {
    fn expand(&self, word: &str) -> Result<String, String> {
        words::expand(word, self.escape, self.lookup)
    }

    fn expand_all(&self, words: &[String]) -> Result<Vec<String>, String> {
        words.iter().map(|word| self.expand(word)).collect()
    }

    /// Both sides of `name=value` pairs, by the variables from before the instruction.
    fn expand_pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
        pairs.iter().map(|(name, value)| Ok((self.expand(name)?, self.expand(value)?))).collect()
    }

    /// Carries out an instruction that neither runs nor copies anything; what the history calls it.
    pub fn apply(self, command: &Command) -> Result<String, String> {
        Ok(match command {
            Command::Cmd(form) => {
                let line = command_line(form, self.config);
                *self.has_cmd = true;
                let text = format!("CMD {line:?}");
                self.config.cmd = Some(line);
                text
            }
            Command::Entrypoint(form) => {
                let line = command_line(form, self.config);
                let text = format!("ENTRYPOINT {line:?}");
                self.config.entrypoint = Some(line).filter(|line| !line.is_empty());
                if !*self.has_cmd {
                    self.config.cmd = None;
                }
                text
            }
            Command::Env(pairs) => {
                let pairs = self.expand_pairs(pairs)?;
                if pairs.iter().any(|(name, _)| name.is_empty()) {
                    return Err("names can not be blank".into());
                }
                let environment = self.config.env.get_or_insert_default();
                pairs.iter().for_each(|(name, value)| set_variable(environment, name, value));
                format!("ENV {}", join(&pairs))
            }
            Command::Label(pairs) => {
                let pairs = self.expand_pairs(pairs)?;
                self.config.labels.get_or_insert_default().extend(pairs.iter().cloned());
                format!("LABEL {}", join(&pairs))
            }
            Command::Expose(text) => {
                let words = words::expand_split(text, self.escape, self.lookup)?;
                let mut all: BTreeSet<String> =
                    self.config.exposed_ports.take().unwrap_or_default().into_iter().collect();
                for word in &words {
                    all.extend(ports(word)?);
                }
                self.config.exposed_ports = Some(all.into_iter().collect());
                format!("EXPOSE {}", words.join(" "))
            }
            Command::Volume(paths) => {
                let paths = self.expand_all(paths)?;
                let list = self.config.volumes.get_or_insert_default();
                for path in &paths {
                    let path = absolute(None, path.trim()).trim_end_matches('/').to_owned();
                    if path.is_empty() {
                        return Err("the root can not be a volume".into());
                    }
                    if !list.contains(&path) {
                        list.push(path);
                    }
                }
                format!("VOLUME [{}]", paths.join(" "))
            }
            Command::User(user) => {
                let user = self.expand(user)?;
                self.config.user = Some(user.clone());
                format!("USER {user}")
            }
            Command::StopSignal(signal) => {
                let signal = self.expand(signal)?;
                if !is_signal(&signal) {
                    return Err(format!("Invalid signal: {signal}"));
                }
                self.config.stop_signal = Some(signal.clone());
                format!("STOPSIGNAL {signal}")
            }
            Command::Healthcheck(check) => {
                let none = || HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() };
                let check = check.clone().unwrap_or_else(none);
                let text = serde_json::to_string(&check).map_err(|error| error.to_string())?;
                self.config.healthcheck = Some(check);
                format!("HEALTHCHECK {text}")
            }
            Command::Shell(words) => {
                self.config.shell = Some(words.clone());
                format!("SHELL [{}]", words.join(" "))
            }
            Command::OnBuild(text) => {
                self.config.on_build.get_or_insert_default().push(text.clone());
                format!("ONBUILD {text}")
            }
            Command::Maintainer(name) => {
                *self.author = Some(name.clone());
                format!("MAINTAINER {name}")
            }
            Command::Arg(_) | Command::Copy(_) | Command::Run(_) | Command::Workdir(_) => {
                return Err("this instruction is more than a setting".into());
            }
        })
    }
}

fn join(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

/// `80`, `80/udp`, `8000-8010/tcp` as `port/protocol`.
fn ports(word: &str) -> Result<Vec<String>, String> {
    let bad = || format!("invalid containerPort: {word}: write it as 80, 80/udp or 8000-8010");
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    match first == 0 || last < first {
        true => Err(bad()),
        false => Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect()),
    }
}

/// A number, a name with or without SIG, or a real-time one (RTMIN+3).
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |prefix: &str| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            let number = rest.strip_prefix(['+', '-']).map(str::parse::<u8>);
            rest.is_empty() || number.is_some_and(|number| number.is_ok_and(|number| number <= 30))
        })
    };
    format!("SIG{name}").parse::<Signal>().is_ok() || real_time("RTMIN") || real_time("RTMAX")
}

/// ARGs in effect: name → value, in order; those without a value are declared all the same.
pub type Arguments = BTreeMap<String, Option<String>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{
        command::{Place, parse},
        lines::parse_one,
    };

    fn apply(config: &mut ImageConfig, lines: &[&str]) -> Result<Vec<String>, String> {
        let (mut author, mut has_cmd, mut history) = (None, false, Vec::new());
        for line in lines {
            let place = Place { file: "f", escape: '\\' };
            let instruction = parse_one(line, 1, "f", '\\').map_err(|failure| failure.to_string())?;
            let command = parse(&instruction, place).map_err(|failure| failure.to_string())?;
            let environment = config.env.clone().unwrap_or_default();
            let lookup = |name: &str| variable(&environment, name);
            let settings =
                Settings { config, author: &mut author, has_cmd: &mut has_cmd, escape: '\\', lookup: &lookup };
            history.push(settings.apply(&command)?);
        }
        Ok(history)
    }

    #[test]
    fn settings_are_docker_s() {
        let mut config = ImageConfig { env: Some(vec!["PATH=/bin".into()]), ..ImageConfig::default() };
        let history = apply(
            &mut config,
            &[
                "ENV a=1 PATH=/x:$PATH",
                "ENV a=2 b=$a c=\"d e\"",
                "EXPOSE 443 80/udp 8000-8001 443/TCP",
                "VOLUME /v/ ${c}",
                "LABEL x=\"y $a\"",
                "USER $a",
                "STOPSIGNAL SIGRTMIN+3",
                "CMD run $a",
                "ENTRYPOINT [\"e\"]",
                "SHELL [\"/bin/bash\", \"-c\"]",
                "HEALTHCHECK NONE",
            ],
        )
        .unwrap();
        assert_eq!(config.env.unwrap(), ["PATH=/x:/bin", "a=2", "b=1", "c=d e"]);
        assert_eq!(config.exposed_ports.unwrap(), ["443/tcp", "80/udp", "8000/tcp", "8001/tcp"]);
        assert_eq!(config.volumes.unwrap(), ["/v", "/d e"]);
        assert_eq!(config.labels.unwrap()["x"], "y 2");
        assert_eq!(config.user.as_deref(), Some("2"));
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "run $a"]);
        assert_eq!(config.healthcheck.unwrap().test.unwrap(), ["NONE"]);
        assert_eq!(history[0], "ENV a=1 PATH=/x:/bin");
        assert_eq!(history[8], "ENTRYPOINT [\"e\"]");
    }

    #[test]
    fn an_entrypoint_takes_away_the_base_s_command() {
        let base = || ImageConfig { cmd: Some(vec!["base".into()]), ..ImageConfig::default() };
        let mut config = base();
        apply(&mut config, &["ENTRYPOINT x"]).unwrap();
        assert_eq!(config.cmd, None);
        let mut config = base();
        apply(&mut config, &["ENTRYPOINT []"]).unwrap();
        assert_eq!((config.entrypoint, config.cmd), (None, None));
    }

    #[test]
    fn bad_settings_are_refused() {
        for bad in
            ["EXPOSE x", "EXPOSE 0", "EXPOSE 9-8", "EXPOSE 80/icmp", "STOPSIGNAL SIGNOT", "STOPSIGNAL 65", "VOLUME /"]
        {
            assert!(apply(&mut ImageConfig::default(), &[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_seen_from_the_working_folder() {
        for (folder, path, expected) in [
            (None, "a", "/a"),
            (Some("/w"), "a/../b/", "/w/b/"),
            (Some("/w"), ".", "/w"),
            (Some("/w"), "./", "/w/"),
            (Some("/w"), "/x", "/x"),
            (None, "/", "/"),
            (Some("/w"), "../../..", "/"),
        ] {
            assert_eq!(absolute(folder, path), expected, "{folder:?} {path}");
        }
    }
}
