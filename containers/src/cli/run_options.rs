//! The options of `run` as the body of `POST /containers/create`, over what the body has already.

use super::run::Run;
use crate::{
    compose::{create::Creation, values},
    error::{Context, Error, Result},
};
use bollard_stubs::models::{
    EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, Mount, MountBindOptions, MountTmpfsOptions,
    MountType, MountVolumeOptions, NetworkingConfig, PortBinding, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use std::collections::HashMap;

impl Run {
    /// Lays the options over `creation`.
    pub fn apply(&self, creation: &mut Creation) -> Result<()> {
        let body = &mut creation.body;
        body.attach_stdin = Some(self.interactive && !self.detach);
        body.attach_stdout = Some(!self.detach);
        body.attach_stderr = Some(!self.detach);
        body.open_stdin = Some(self.interactive);
        body.stdin_once = Some(self.interactive && !self.detach);
        body.tty = Some(self.tty);
        if !self.command.is_empty() {
            body.cmd = Some(self.command.clone());
        }
        if let Some(entrypoint) = &self.entrypoint {
            body.entrypoint = Some(vec![entrypoint.clone()]);
            // The image's arguments are for the image's entrypoint.
            body.cmd = (!self.command.is_empty()).then(|| self.command.clone());
        }
        let given = |value: &Option<String>, field: &mut Option<String>| {
            if value.is_some() {
                field.clone_from(value);
            }
        };
        given(&self.user, &mut body.user);
        given(&self.workdir, &mut body.working_dir);
        given(&self.hostname, &mut body.hostname);
        given(&self.stop_signal, &mut body.stop_signal);
        body.stop_timeout = self.stop_timeout.or(body.stop_timeout);
        self.variables(body.env.get_or_insert_default())?;
        let labels = body.labels.get_or_insert_default();
        for label in &self.label {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            labels.insert(name.to_owned(), value.to_owned());
        }
        self.health(&mut body.healthcheck)?;
        let host = body.host_config.get_or_insert_default();
        self.limits(host)?;
        self.rights(host)?;
        self.mounts(host, body.volumes.get_or_insert_default())?;
        for text in &self.publish {
            for port in values::ports(text).map_err(|error| Error::invalid(format!("-p {error}")))? {
                let key = format!("{}/{}", port.target, port.protocol);
                let exposed = body.exposed_ports.get_or_insert_default();
                if !exposed.contains(&key) {
                    exposed.push(key.clone());
                }
                let binding = PortBinding { host_ip: port.host_ip, host_port: port.published.or(Some(String::new())) };
                host.port_bindings
                    .get_or_insert_default()
                    .entry(key)
                    .or_default()
                    .get_or_insert_default()
                    .push(binding);
            }
        }
        host.publish_all_ports = self.publish_all.then_some(true);
        self.networks(creation)
    }

    /// Files first, single ones over them, all over the service's.
    fn variables(&self, env: &mut Vec<String>) -> Result<()> {
        let mut more = Vec::new();
        for file in &self.env_file {
            let text = std::fs::read_to_string(file).at("read", file)?;
            let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
            more.extend(lines.filter_map(variable));
        }
        more.extend(self.env.iter().filter_map(|entry| variable(entry)));
        for entry in more {
            let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
            if name.is_empty() {
                return Err(Error::invalid("-e: a name must stand before the `=`"));
            }
            env.retain(|other| other.split_once('=').map_or(other.as_str(), |(other, _)| other) != name);
            env.push(entry);
        }
        Ok(())
    }

    fn health(&self, check: &mut Option<HealthConfig>) -> Result<()> {
        let time = |option: &str, text: &Option<String>| match text {
            Some(text) => values::duration(text)
                .map(Some)
                .ok_or_else(|| Error::invalid(format!("{option} {text}: a duration such as 1m30s"))),
            None => Ok(None),
        };
        let (interval, timeout) =
            (time("--health-interval", &self.health_interval)?, time("--health-timeout", &self.health_timeout)?);
        let start_period = time("--health-start-period", &self.health_start_period)?;
        let is_given = self.health_cmd.is_some()
            || self.health_retries.is_some()
            || interval.or(timeout).or(start_period).is_some();
        if self.no_healthcheck {
            if is_given {
                return Err(Error::invalid("--no-healthcheck and the other --health options exclude each other"));
            }
            *check = Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() });
        } else if is_given {
            let check = check.get_or_insert_default();
            if let Some(command) = &self.health_cmd {
                check.test = Some(vec!["CMD-SHELL".into(), command.clone()]);
            }
            check.interval = interval.or(check.interval);
            check.timeout = timeout.or(check.timeout);
            check.start_period = start_period.or(check.start_period);
            check.retries = self.health_retries.or(check.retries);
        }
        Ok(())
    }

    fn limits(&self, host: &mut HostConfig) -> Result<()> {
        let size = |option: &str, text: &Option<String>| match text {
            Some(text) if text == "-1" && option == "--memory-swap" => Ok(Some(-1)),
            Some(text) => values::bytes(text)
                .map(Some)
                .ok_or_else(|| Error::invalid(format!("{option} {text}: a size such as 64m"))),
            None => Ok(None),
        };
        host.memory = size("--memory", &self.memory)?.or(host.memory);
        host.memory_swap = size("--memory-swap", &self.memory_swap)?.or(host.memory_swap);
        host.shm_size = size("--shm-size", &self.shm_size)?.or(host.shm_size);
        host.pids_limit = self.pids_limit.or(host.pids_limit);
        if let Some(text) = &self.cpus {
            let cpus = text.parse::<f64>().ok().filter(|cpus| (0.001..100_000.0).contains(cpus));
            let cpus = cpus.ok_or_else(|| Error::invalid(format!("--cpus {text}: a number such as 1.5")))?;
            host.nano_cpus = Some((cpus * 1e9).round() as i64);
        }
        for text in &self.ulimit {
            let wrong = || Error::invalid(format!("--ulimit {text}: write it as nofile=1024:2048"));
            let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
            let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
            let (soft, hard) = (soft.parse().map_err(|_| wrong())?, hard.parse().map_err(|_| wrong())?);
            let all = host.ulimits.get_or_insert_default();
            all.retain(|limit| limit.name.as_deref() != Some(name));
            all.push(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) });
        }
        Ok(())
    }

    fn rights(&self, host: &mut HostConfig) -> Result<()> {
        let more = |values: &[String], field: &mut Option<Vec<String>>| {
            if !values.is_empty() {
                field.get_or_insert_default().extend_from_slice(values);
            }
        };
        more(&self.cap_add, &mut host.cap_add);
        more(&self.cap_drop, &mut host.cap_drop);
        more(&self.security_opt, &mut host.security_opt);
        more(&self.group_add, &mut host.group_add);
        more(&self.add_host, &mut host.extra_hosts);
        more(&self.dns, &mut host.dns);
        host.privileged = self.privileged.then_some(true).or(host.privileged);
        host.readonly_rootfs = self.read_only.then_some(true).or(host.readonly_rootfs);
        host.init = self.init.then_some(true).or(host.init);
        host.auto_remove = self.rm.then_some(true);
        host.runtime = self.runtime.clone();
        if let Some(text) = &self.restart {
            if self.rm && text != "no" {
                return Err(Error::invalid("--rm and --restart exclude each other"));
            }
            host.restart_policy = Some(restart(text)?);
        }
        Ok(())
    }

    fn mounts(&self, host: &mut HostConfig, anonymous: &mut Vec<String>) -> Result<()> {
        for text in &self.volume {
            match text.split_once(':') {
                None if text.starts_with('/') => anonymous.push(text.clone()),
                None => {
                    return Err(Error::invalid(format!(
                        "-v {text}: the path in the container must begin with a slash"
                    )));
                }
                Some((source, target)) => {
                    if !target.starts_with('/') {
                        return Err(Error::invalid(format!(
                            "-v {text}: write it as SOURCE:TARGET[:ro], TARGET beginning with a slash"
                        )));
                    }
                    host.binds.get_or_insert_default().push(format!("{}:{target}", source_path(source)?));
                }
            }
        }
        for text in &self.mount {
            host.mounts.get_or_insert_default().push(mount(text)?);
        }
        for text in &self.tmpfs {
            let (path, options) = text.split_once(':').unwrap_or((text, ""));
            host.tmpfs.get_or_insert_default().insert(path.to_owned(), options.to_owned());
        }
        Ok(())
    }

    fn networks(&self, creation: &mut Creation) -> Result<()> {
        let Creation { body, more_networks } = creation;
        let host = body.host_config.get_or_insert_default();
        if self.network.is_empty() && self.network_alias.is_empty() && self.ip.is_none() {
            return Ok(());
        }
        let Some((first, more)) = self.network.split_first() else {
            return Err(Error::invalid("--network-alias and --ip are of a network: give --network, too"));
        };
        let is_mode = |name: &String| {
            matches!(name.as_str(), "default" | "bridge" | "host" | "none") || name.starts_with("container:")
        };
        if let Some(name) = more.iter().chain([first]).find(|name| is_mode(name)).filter(|_| !more.is_empty()) {
            return Err(Error::invalid(format!("--network {name} can't be one of several")));
        }
        if is_mode(first) && (!self.network_alias.is_empty() || self.ip.is_some()) {
            return Err(Error::invalid(format!("--network {first} has neither aliases nor chosen addresses")));
        }
        host.network_mode = Some(first.clone());
        let settings = |ip: Option<&String>| EndpointSettings {
            aliases: (!self.network_alias.is_empty()).then(|| self.network_alias.clone()),
            ipam_config: ip
                .map(|ip| EndpointIpamConfig { ipv4_address: Some(ip.clone()), ..EndpointIpamConfig::default() }),
            ..EndpointSettings::default()
        };
        body.networking_config = (!is_mode(first)).then(|| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(first.clone(), settings(self.ip.as_ref()))])),
        });
        *more_networks = more.iter().map(|name| (name.clone(), settings(None))).collect();
        Ok(())
    }
}

/// NAME=VALUE as it is; a NAME alone with the value here, and nothing where there is none.
pub fn variable(entry: &str) -> Option<String> {
    match entry.contains('=') {
        true => Some(entry.to_owned()),
        false => std::env::var(entry).ok().map(|value| format!("{entry}={value}")),
    }
}

fn restart(text: &str) -> Result<RestartPolicy> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    let policy = match name {
        "no" => RestartPolicyNameEnum::NO,
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        _ => RestartPolicyNameEnum::EMPTY,
    };
    let count = count.map(|count| count.parse::<i64>().ok().filter(|_| name == "on-failure").ok_or(()));
    match (policy, count.transpose()) {
        (RestartPolicyNameEnum::EMPTY, _) | (_, Err(())) => {
            Err(Error::invalid(format!("--restart {text}: no, always, unless-stopped or on-failure[:COUNT]")))
        }
        (policy, Ok(count)) => Ok(RestartPolicy { name: Some(policy), maximum_retry_count: count }),
    }
}

/// A path on the engine's machine: relative ones (`./x`, `.`, `~/x`) are this folder's, a bare word is a volume's name.
pub(super) fn source_path(source: &str) -> Result<String> {
    match source.starts_with(['.', '~', '/']) {
        true => {
            let here = std::env::current_dir().doing("find the current folder")?;
            Ok(crate::compose::absolute(&here, source).display().to_string())
        }
        false => Ok(source.to_owned()),
    }
}

/// `type=bind,source=/a,target=/b,readonly`
fn mount(text: &str) -> Result<Mount> {
    let wrong = |what: &str| Error::invalid(format!("--mount {text}: {what}"));
    let (mut found, mut kind) = (Mount { read_only: Some(false), ..Mount::default() }, MountType::VOLUME);
    let (mut bind, mut volume, mut tmpfs) =
        (MountBindOptions::default(), MountVolumeOptions::default(), MountTmpfsOptions::default());
    for part in text.split(',') {
        let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
        let flag = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            _ => Err(wrong(&format!("{key} is true or false"))),
        };
        let value = || value.filter(|value| !value.is_empty()).ok_or_else(|| wrong(&format!("{key} needs a value")));
        match key {
            "type" => {
                kind = match value()? {
                    "bind" => MountType::BIND,
                    "volume" => MountType::VOLUME,
                    "tmpfs" => MountType::TMPFS,
                    other => return Err(wrong(&format!("the type is bind, volume or tmpfs, and not {other}"))),
                }
            }
            "source" | "src" => found.source = Some(value()?.to_owned()),
            "target" | "dst" | "destination" => found.target = Some(value()?.to_owned()),
            "readonly" | "ro" => found.read_only = Some(flag()?),
            "bind-propagation" => {
                bind.propagation = Some(value()?.parse().map_err(|_| wrong("no such bind-propagation"))?);
            }
            "volume-nocopy" => volume.no_copy = Some(flag()?),
            "tmpfs-size" => {
                tmpfs.size_bytes = Some(values::bytes(value()?).ok_or_else(|| wrong("tmpfs-size is a size as 64m"))?);
            }
            "tmpfs-mode" => {
                let mode = i64::from_str_radix(value()?, 8).map_err(|_| wrong("tmpfs-mode is octal, as 1777"))?;
                tmpfs.mode = Some(mode);
            }
            other => {
                return Err(wrong(&format!(
                    "unknown {other:?}; there are type, source, target, readonly, bind-propagation, volume-nocopy, tmpfs-size and tmpfs-mode"
                )));
            }
        }
    }
    if !found.target.as_deref().is_some_and(|target| target.starts_with('/')) {
        return Err(wrong("it needs a target that begins with a slash"));
    }
    match (kind, &found.source) {
        (MountType::BIND, None) => return Err(wrong("a bind needs a source")),
        (MountType::TMPFS, Some(_)) => return Err(wrong("a tmpfs has no source")),
        (MountType::BIND, Some(source)) => {
            let source = if source.starts_with(['.', '~', '/']) { source.clone() } else { format!("./{source}") };
            found.source = Some(source_path(&source)?);
        }
        _ => {}
    }
    let foreign = [
        (MountType::BIND, bind != MountBindOptions::default()),
        (MountType::VOLUME, volume != MountVolumeOptions::default()),
        (MountType::TMPFS, tmpfs != MountTmpfsOptions::default()),
    ];
    if foreign.iter().any(|(of, given)| *given && *of != kind) {
        return Err(wrong("an option of another type"));
    }
    found.bind_options = (kind == MountType::BIND && bind != MountBindOptions::default()).then_some(bind);
    found.volume_options = (kind == MountType::VOLUME && volume != MountVolumeOptions::default()).then_some(volume);
    found.tmpfs_options = (kind == MountType::TMPFS && tmpfs != MountTmpfsOptions::default()).then_some(tmpfs);
    found.typ = Some(kind);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use argh::FromArgs;
    use bollard_stubs::models::ContainerCreateBody;

    fn body(options: &[&str]) -> Result<(ContainerCreateBody, HostConfig)> {
        let run = Run::from_args(&["run"], &[options, &["--", "image", "a", "-b"]].concat()).unwrap();
        let mut creation = Creation { body: ContainerCreateBody::default(), more_networks: Vec::new() };
        run.apply(&mut creation)?;
        let host = creation.body.host_config.clone().unwrap();
        Ok((creation.body, host))
    }

    #[test]
    fn options_become_fields() {
        let (body, host) = body(&[
            "-i",
            "--rm",
            "-e",
            "A=1",
            "-e",
            "A=2",
            "--entrypoint",
            "sh",
            "-m",
            "64m",
            "--cpus",
            "1.5",
            "--pids-limit",
            "20",
            "--read-only",
            "--cap-drop",
            "ALL",
            "--tmpfs",
            "/t:size=1m",
            "-v",
            "/anonymous",
            "-v",
            "name:/data:ro",
            "-p",
            "127.0.0.1:8080:80/udp",
            "--health-cmd",
            "true",
            "--health-interval",
            "5s",
            "--init",
            "-l",
            "x=y",
        ])
        .unwrap();
        assert_eq!(body.env.unwrap(), ["A=2"]);
        assert_eq!(
            (body.entrypoint.unwrap(), body.cmd.unwrap()),
            (vec!["sh".to_owned()], vec!["a".to_owned(), "-b".to_owned()])
        );
        assert_eq!((body.open_stdin, body.stdin_once, body.tty), (Some(true), Some(true), Some(false)));
        assert_eq!(body.volumes.unwrap(), ["/anonymous"]);
        assert_eq!(host.binds.unwrap(), ["name:/data:ro"]);
        assert_eq!(body.healthcheck.unwrap().interval, Some(5_000_000_000));
        assert_eq!((host.memory, host.nano_cpus, host.pids_limit), (Some(64 << 20), Some(1_500_000_000), Some(20)));
        assert_eq!((host.auto_remove, host.init, host.readonly_rootfs), (Some(true), Some(true), Some(true)));
        assert_eq!(host.tmpfs.unwrap()["/t"], "size=1m");
        let binding = &host.port_bindings.unwrap()["80/udp"].as_ref().unwrap()[0].clone();
        assert_eq!((binding.host_ip.as_deref(), binding.host_port.as_deref()), (Some("127.0.0.1"), Some("8080")));
        assert_eq!(body.exposed_ports.unwrap(), ["80/udp"]);
    }

    #[test]
    fn mounts_in_words() {
        let found = mount("type=bind,source=x,target=/x,readonly,bind-propagation=rslave").unwrap();
        assert!(found.source.unwrap().starts_with('/') && found.read_only.unwrap());
        let found = mount("src=data,dst=/x,volume-nocopy").unwrap();
        assert_eq!((found.typ, found.source.as_deref()), (Some(MountType::VOLUME), Some("data")));
        let found = mount("type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=1777").unwrap().tmpfs_options.unwrap();
        assert_eq!((found.size_bytes, found.mode), (Some(1 << 20), Some(0o1777)));
        for text in [
            "type=bind,target=/x",
            "type=nfs,target=/x",
            "source=a",
            "target=x",
            "target=/x,z=1",
            "type=tmpfs,source=a,target=/x",
            "target=/x,tmpfs-size=1m",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        for (options, expected) in [
            (&["-m", "lots"][..], "--memory lots"),
            (&["--cpus", "0"], "--cpus 0"),
            (&["--restart", "sometimes"], "--restart sometimes"),
            (&["--restart", "always:3"], "--restart always:3"),
            (&["--rm", "--restart", "always"], "exclude"),
            (&["-p", "x"], "-p \"x\" is no port"),
            (&["-v", "a:b"], "-v a:b"),
            (&["--ulimit", "nofile"], "--ulimit nofile"),
            (&["--health-interval", "1y"], "--health-interval 1y"),
            (&["--no-healthcheck", "--health-cmd", "x"], "exclude"),
            (&["--network", "host", "--network", "a"], "--network host"),
            (&["--ip", "198.18.0.9"], "give --network"),
            (&["-e", "=x"], "-e"),
        ] {
            let error = body(options).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\nexpected: {expected}");
        }
    }
}
