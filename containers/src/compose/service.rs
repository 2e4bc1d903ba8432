//! One service of the file, validated.

use super::{
    model::{Build, Condition, Dependency, Grant, Healthcheck, Logging, Membership, Mount, MountKind, Port, Service},
    values,
    yaml::{Node, Value, check_keys},
};
use crate::error::Result;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

const KNOWN: &[&str] = &[
    "build",
    "cap_add",
    "cap_drop",
    "command",
    "configs",
    "container_name",
    "cpu_shares",
    "cpus",
    "cpuset",
    "depends_on",
    "deploy",
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "entrypoint",
    "env_file",
    "environment",
    "expose",
    "extra_hosts",
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "ipc",
    "labels",
    "logging",
    "mem_limit",
    "mem_reservation",
    "memswap_limit",
    "network_mode",
    "networks",
    "pid",
    "pids_limit",
    "ports",
    "privileged",
    "profiles",
    "pull_policy",
    "read_only",
    "restart",
    "scale",
    "secrets",
    "security_opt",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "user",
    "volumes",
    "working_dir",
];
const LATER: &[&str] = &[
    "annotations",
    "attach",
    "blkio_config",
    "cgroup",
    "cgroup_parent",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "credential_spec",
    "develop",
    "device_cgroup_rules",
    "devices",
    "extends",
    "external_links",
    "gpus",
    "isolation",
    "label_file",
    "links",
    "mac_address",
    "mem_swappiness",
    "models",
    "oom_kill_disable",
    "oom_score_adj",
    "platform",
    "post_start",
    "pre_stop",
    "provider",
    "runtime",
    "storage_opt",
    "use_api_socket",
    "userns_mode",
    "uts",
    "volumes_from",
];

/// What a service is read with.
pub struct Reader<'a> {
    /// What relative paths are relative to.
    pub directory: &'a Path,
    /// A variable of the shell, else of `.env`.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    pub fn service(&self, name: &str, node: &Node) -> Result<Service> {
        let what = &format!("service {name}");
        check_keys(node, what, KNOWN, LATER)?;
        let text = |key: &str| node.get(key).map(|value| value.string(key)).transpose();
        let flag = |key: &str| node.get(key).map(|value| value.boolean(key)).transpose();
        let number = |key: &str| node.get(key).map(|value| value.number::<i64>(key)).transpose();
        let mut service = Service {
            name: name.to_owned(),
            image: text("image")?.filter(|image| !image.is_empty()),
            build: node.get("build").map(|build| self.build(build)).transpose()?,
            command: node.get("command").map(|value| values::command(value, "command")).transpose()?,
            entrypoint: node.get("entrypoint").map(|value| values::command(value, "entrypoint")).transpose()?,
            environment: self.environment(node)?,
            depends_on: depends_on(node.get("depends_on"))?,
            healthcheck: node.get("healthcheck").map(healthcheck).transpose()?,
            secrets: grants(node.get("secrets"), "secrets", "/run/secrets/")?,
            configs: grants(node.get("configs"), "configs", "/")?,
            networks: memberships(node.get("networks"))?,
            network_mode: text("network_mode")?,
            volumes: match node.get("volumes") {
                Some(volumes) => {
                    volumes.list("volumes")?.iter().map(|volume| self.mount(volume)).collect::<Result<_>>()?
                }
                None => Vec::new(),
            },
            tmpfs: values::strings(node.get("tmpfs"), "tmpfs")?,
            ports: ports(node.get("ports"))?,
            expose: values::strings(node.get("expose"), "expose")?,
            init: flag("init")?,
            stop_signal: text("stop_signal")?,
            stop_grace_period: duration(node, "stop_grace_period")?.map(|time| (time + 999_999_999) / 1_000_000_000),
            restart: text("restart")?,
            profiles: values::strings(node.get("profiles"), "profiles")?,
            mem_limit: bytes(node, "mem_limit")?,
            mem_reservation: bytes(node, "mem_reservation")?,
            memswap_limit: match node.get("memswap_limit") {
                Some(value) if value.text() == "-1" => Some(-1),
                _ => bytes(node, "memswap_limit")?,
            },
            nano_cpus: cpus(node)?,
            cpu_shares: number("cpu_shares")?,
            cpuset: text("cpuset")?,
            pids_limit: number("pids_limit")?,
            shm_size: bytes(node, "shm_size")?,
            labels: values::labels(node.get("labels"), "labels")?,
            user: text("user")?,
            group_add: values::strings(node.get("group_add"), "group_add")?,
            working_dir: text("working_dir")?,
            read_only: flag("read_only")?.unwrap_or_default(),
            privileged: flag("privileged")?.unwrap_or_default(),
            cap_add: values::strings(node.get("cap_add"), "cap_add")?,
            cap_drop: values::strings(node.get("cap_drop"), "cap_drop")?,
            security_opt: values::strings(node.get("security_opt"), "security_opt")?,
            extra_hosts: values::hosts(node.get("extra_hosts"), "extra_hosts")?,
            dns: values::strings(node.get("dns"), "dns")?,
            dns_search: values::strings(node.get("dns_search"), "dns_search")?,
            dns_opt: values::strings(node.get("dns_opt"), "dns_opt")?,
            hostname: text("hostname")?,
            domainname: text("domainname")?,
            container_name: text("container_name")?,
            ulimits: ulimits(node.get("ulimits"))?,
            sysctls: values::labels(node.get("sysctls"), "sysctls")?,
            tty: flag("tty")?.unwrap_or_default(),
            stdin_open: flag("stdin_open")?.unwrap_or_default(),
            pid: text("pid")?,
            ipc: text("ipc")?,
            logging: node.get("logging").map(logging).transpose()?,
        };
        if let Some(deploy) = node.get("deploy") {
            apply_deploy(&mut service, deploy)?;
        }
        self.check(&service, node, what)?;
        Ok(service)
    }

    /// What single values can't tell.
    fn check(&self, service: &Service, node: &Node, what: &str) -> Result<()> {
        if service.image.is_none() && service.build.is_none() {
            return Err(node.error(format!("{what} needs an `image`, a `build`, or both")));
        }
        if let (Some(mode), true) = (node.get("network_mode"), node.get("networks").is_some()) {
            return Err(mode.error(format!("{what}: `network_mode` and `networks` exclude each other")));
        }
        if let Some(scale) = node.get("scale").filter(|scale| scale.text() != "1") {
            return Err(scale.error("`scale` other than 1 is not supported yet"));
        }
        if let Some(policy) =
            node.get("pull_policy").filter(|policy| !matches!(policy.text(), "missing" | "if_not_present"))
        {
            return Err(policy.error(format!("`pull_policy: {}` is not supported yet, only `missing`", policy.text())));
        }
        if let Some(restart) = node.get("restart") {
            let text = restart.text();
            let counted = text.strip_prefix("on-failure:").is_some_and(|count| count.parse::<u32>().is_ok());
            if !counted && !matches!(text, "no" | "always" | "on-failure" | "unless-stopped") {
                return Err(restart.error(format!(
                    "`restart` takes no, always, on-failure[:COUNT] or unless-stopped, and not {text:?}"
                )));
            }
        }
        let mut targets = BTreeSet::new();
        for mount in &service.volumes {
            if !targets.insert(mount.target.trim_end_matches('/')) {
                let at = node.get("volumes").unwrap_or(node);
                return Err(at.error(format!("{what} mounts two volumes at {}", mount.target)));
            }
        }
        Ok(())
    }

    fn build(&self, node: &Node) -> Result<Build> {
        if let Value::Scalar { text, .. } = &node.value {
            return Ok(Build { context: self.context(node, text)?, ..Build::default() });
        }
        check_keys(
            node,
            "build",
            &[
                "args",
                "context",
                "dockerfile",
                "extra_hosts",
                "labels",
                "network",
                "no_cache",
                "pull",
                "tags",
                "target",
            ],
            &[
                "additional_contexts",
                "cache_from",
                "cache_to",
                "dockerfile_inline",
                "entitlements",
                "isolation",
                "platforms",
                "privileged",
                "provenance",
                "sbom",
                "secrets",
                "shm_size",
                "ssh",
                "ulimits",
            ],
        )?;
        let text = |key: &str| node.get(key).map(|value| value.string(key)).transpose();
        let args = values::pairs(node.get("args"), "args")?;
        Ok(Build {
            context: self.context(node.get("context").unwrap_or(node), &text("context")?.unwrap_or(".".into()))?,
            dockerfile: text("dockerfile")?,
            // An argument without a value is the shell's; without one there, the Dockerfile's default counts.
            args: args
                .into_iter()
                .filter_map(|(key, value)| Some((value.or_else(|| (self.lookup)(&key))?, key)))
                .map(|(value, key)| (key, value))
                .collect(),
            target: text("target")?,
            labels: values::labels(node.get("labels"), "labels")?,
            network: text("network")?,
            extra_hosts: values::hosts(node.get("extra_hosts"), "extra_hosts")?,
            tags: values::strings(node.get("tags"), "tags")?,
            no_cache: node.get("no_cache").map(|value| value.boolean("no_cache")).transpose()?.unwrap_or_default(),
            pull: node.get("pull").map(|value| value.boolean("pull")).transpose()?.unwrap_or_default(),
        })
    }

    fn context(&self, at: &Node, text: &str) -> Result<PathBuf> {
        match text.contains("://") || text.starts_with("git@") {
            true => Err(at.error("a build context by URL is not supported yet: clone it, and give the folder")),
            false => Ok(absolute(self.directory, text)),
        }
    }

    /// `env_file` first, `environment` over it.
    fn environment(&self, node: &Node) -> Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        if let Some(files) = node.get("env_file") {
            let files = match &files.value {
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(files),
            };
            for file in files {
                let (path, required) = match &file.value {
                    Value::Map(_) => {
                        check_keys(file, "env_file", &["path", "required"], &["format"])?;
                        let required = file.get("required").map(|value| value.boolean("required")).transpose()?;
                        let path = file.get("path").ok_or_else(|| file.error("env_file needs a `path`"))?;
                        (path.string("path")?, required.unwrap_or(true))
                    }
                    _ => (file.string("env_file")?, true),
                };
                let path = absolute(self.directory, &path);
                match std::fs::read_to_string(&path) {
                    Ok(text) => found.extend(super::dotenv::parse(&path.display().to_string(), &text, self.lookup)?),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {}
                    Err(error) => return Err(file.error(format!("read {}: {error}", path.display()))),
                }
            }
        }
        for (key, value) in values::pairs(node.get("environment"), "environment")? {
            match value.or_else(|| (self.lookup)(&key)) {
                Some(value) => found.insert(key, value),
                None => found.remove(&key),
            };
        }
        Ok(found)
    }

    fn mount(&self, node: &Node) -> Result<Mount> {
        let Value::Scalar { text, .. } = &node.value else { return self.long_mount(node) };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [target] => (None, target, ""),
            [source, target] => (Some(source), target, ""),
            [source, target, options] => (Some(source), target, options),
            _ => return Err(node.error(format!("{text:?} is no volume: write it as SOURCE:TARGET[:ro]"))),
        };
        if !target.starts_with('/') {
            return Err(node.error(format!("{text:?}: the path in the container must begin with a slash")));
        }
        let is_path = source.is_some_and(|source| source.starts_with(['/', '.', '~']));
        let mut mount = Mount {
            kind: if is_path { MountKind::Bind } else { MountKind::Volume },
            source: match source {
                Some(source) if is_path => Some(absolute(self.directory, source).display().to_string()),
                source => source.map(str::to_owned),
            },
            target: target.to_owned(),
            read_only: false,
            nocopy: false,
            create_host_path: true,
            propagation: None,
            size: None,
            mode: None,
        };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => mount.read_only = true,
                // Labels for SELinux, which has no say here.
                "rw" | "z" | "Z" => {}
                "nocopy" => mount.nocopy = true,
                "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" => {
                    mount.propagation = Some(option.to_owned());
                }
                _ => return Err(node.error(format!("unknown option {option:?} of a volume; there are ro, rw, nocopy"))),
            }
        }
        Ok(mount)
    }

    fn long_mount(&self, node: &Node) -> Result<Mount> {
        check_keys(
            node,
            "a volume",
            &["bind", "read_only", "source", "target", "tmpfs", "type", "volume"],
            &["consistency", "image"],
        )?;
        let kind = node.get("type").ok_or_else(|| node.error("a volume in long form needs a `type`"))?;
        let kind = match kind.text() {
            "bind" => MountKind::Bind,
            "volume" => MountKind::Volume,
            "tmpfs" => MountKind::Tmpfs,
            other => {
                return Err(kind.error(format!(
                    "volumes of the type {other:?} are not supported yet; there are bind, volume and tmpfs"
                )));
            }
        };
        let source = node.get("source").map(|source| source.string("source")).transpose()?;
        let target = node.get("target").ok_or_else(|| node.error("a volume needs a `target`"))?;
        let (bind, volume, tmpfs) = (node.get("bind"), node.get("volume"), node.get("tmpfs"));
        if let Some(bind) = bind {
            check_keys(bind, "bind", &["create_host_path", "propagation"], &["selinux", "recursive"])?;
        }
        if let Some(volume) = volume {
            check_keys(volume, "volume", &["nocopy"], &["subpath", "labels"])?;
        }
        if let Some(tmpfs) = tmpfs {
            check_keys(tmpfs, "tmpfs", &["size", "mode"], &[])?;
        }
        let flag = |node: Option<&Node>, key: &str| {
            node.and_then(|node| node.get(key)).map(|value| value.boolean(key)).transpose()
        };
        Ok(Mount {
            source: match (kind, source) {
                (MountKind::Bind, None) => return Err(node.error("a bind needs a `source`")),
                (MountKind::Bind, Some(source)) => Some(absolute(self.directory, &source).display().to_string()),
                (_, source) => source,
            },
            target: target.string("target")?,
            read_only: flag(Some(node), "read_only")?.unwrap_or_default(),
            nocopy: flag(volume, "nocopy")?.unwrap_or_default(),
            create_host_path: flag(bind, "create_host_path")?.unwrap_or_default(),
            propagation: bind
                .and_then(|bind| bind.get("propagation"))
                .map(|value| value.string("propagation"))
                .transpose()?,
            size: tmpfs.map(|tmpfs| bytes(tmpfs, "size")).transpose()?.flatten(),
            mode: tmpfs
                .and_then(|tmpfs| tmpfs.get("mode"))
                .map(|mode| {
                    let digits = mode.text().trim_start_matches("0o");
                    i64::from_str_radix(digits, 8).map_err(|_| mode.error("`mode` is an octal number, as 1777"))
                })
                .transpose()?,
            kind,
        })
    }
}

/// `path` below `directory`, `~` the home folder, without `.` and `..`.
pub fn absolute(directory: &Path, path: &str) -> PathBuf {
    let path = match (path.strip_prefix('~'), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            PathBuf::from(home).join(rest.trim_start_matches('/'))
        }
        _ => directory.join(path),
    };
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

fn duration(node: &Node, key: &str) -> Result<Option<i64>> {
    node.get(key)
        .map(|value| {
            values::duration(value.text()).ok_or_else(|| value.error(format!("`{key}` is a duration such as 1m30s")))
        })
        .transpose()
}

fn bytes(node: &Node, key: &str) -> Result<Option<i64>> {
    node.get(key)
        .map(|value| values::bytes(value.text()).ok_or_else(|| value.error(format!("`{key}` is a size such as 64m"))))
        .transpose()
}

fn cpus(node: &Node) -> Result<Option<i64>> {
    node.get("cpus").map(|cpus| Ok((cpus.number::<f64>("cpus")? * 1e9) as i64)).transpose()
}

fn depends_on(node: Option<&Node>) -> Result<BTreeMap<String, Dependency>> {
    let Some(node) = node else { return Ok(BTreeMap::new()) };
    let plain = Dependency { condition: Condition::Started, required: true, restart: false };
    if let Value::List(_) | Value::Scalar { .. } = node.value {
        return Ok(node.list("depends_on")?.iter().map(|item| (item.text().to_owned(), plain.clone())).collect());
    }
    let mut found = BTreeMap::new();
    for (key, value) in node.map("depends_on")? {
        check_keys(value, &format!("depends_on {}", key.text()), &["condition", "required", "restart"], &[])?;
        let condition = match value.get("condition") {
            None => Condition::Started,
            Some(condition) => Condition::named(condition.text()).ok_or_else(|| {
                condition.error(format!(
                    "unknown condition {:?}; there are service_started, service_healthy and service_completed_successfully",
                    condition.text()
                ))
            })?,
        };
        let flag = |key: &str| value.get(key).map(|value| value.boolean(key)).transpose();
        let (required, restart) = (flag("required")?.unwrap_or(true), flag("restart")?.unwrap_or_default());
        found.insert(key.text().to_owned(), Dependency { condition, required, restart });
    }
    Ok(found)
}

fn healthcheck(node: &Node) -> Result<Healthcheck> {
    check_keys(
        node,
        "healthcheck",
        &["disable", "interval", "retries", "start_interval", "start_period", "test", "timeout"],
        &[],
    )?;
    if node.get("disable").map(|value| value.boolean("disable")).transpose()?.unwrap_or_default() {
        return Ok(Healthcheck { test: Some(vec!["NONE".into()]), ..Healthcheck::default() });
    }
    let test = match node.get("test") {
        None => None,
        Some(test) => match &test.value {
            Value::Scalar { text, .. } => Some(vec!["CMD-SHELL".into(), text.clone()]),
            _ => {
                let words = values::strings(Some(test), "test")?;
                match words.first().map(String::as_str) {
                    Some("NONE" | "CMD" | "CMD-SHELL") => Some(words),
                    _ => return Err(test.error("a test in list form begins with CMD, CMD-SHELL or NONE")),
                }
            }
        },
    };
    Ok(Healthcheck {
        test,
        interval: duration(node, "interval")?,
        timeout: duration(node, "timeout")?,
        start_period: duration(node, "start_period")?,
        start_interval: duration(node, "start_interval")?,
        retries: node.get("retries").map(|value| value.number("retries")).transpose()?,
    })
}

fn grants(node: Option<&Node>, what: &str, folder: &str) -> Result<Vec<Grant>> {
    let Some(node) = node else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for item in node.list(what)? {
        let (source, target) = match &item.value {
            Value::Map(_) => {
                // Docker ignores them too where a secret is a file: the file's own owner and mode count.
                for key in ["uid", "gid", "mode"] {
                    if item.get(key).is_some() {
                        log::warn!("{what}: `{key}` has no effect on a file that is mounted; its own counts");
                    }
                }
                check_keys(item, what, &["source", "target", "uid", "gid", "mode"], &[])?;
                let source = item.get("source").ok_or_else(|| item.error(format!("{what} need a `source`")))?;
                (source.string("source")?, item.get("target").map(|value| value.string("target")).transpose()?)
            }
            _ => (item.string(what)?, None),
        };
        let target = target.unwrap_or_else(|| source.clone());
        let target = if target.starts_with('/') { target } else { format!("{folder}{target}") };
        found.push(Grant { source, target });
    }
    Ok(found)
}

fn memberships(node: Option<&Node>) -> Result<BTreeMap<String, Membership>> {
    let Some(node) = node else { return Ok(BTreeMap::new()) };
    if let Value::List(items) = &node.value {
        return items.iter().map(|item| Ok((item.string("networks")?, Membership::default()))).collect();
    }
    let mut found = BTreeMap::new();
    for (key, value) in node.map("networks")? {
        check_keys(
            value,
            &format!("network {}", key.text()),
            &["aliases", "ipv4_address", "ipv6_address", "mac_address", "priority"],
            &["driver_opts", "gw_priority", "interface_name", "link_local_ips"],
        )?;
        let text = |key: &str| value.get(key).map(|value| value.string(key)).transpose();
        let address = value.get("ipv4_address");
        if let Some(address) = address.filter(|node| node.text().parse::<std::net::Ipv4Addr>().is_err()) {
            return Err(address.error(format!("{:?} is no IPv4 address", address.text())));
        }
        found.insert(
            key.text().to_owned(),
            Membership {
                aliases: values::strings(value.get("aliases"), "aliases")?,
                ipv4_address: text("ipv4_address")?,
                ipv6_address: text("ipv6_address")?,
                mac_address: text("mac_address")?,
                priority: value.get("priority").map(|value| value.number("priority")).transpose()?.unwrap_or_default(),
            },
        );
    }
    Ok(found)
}

fn ports(node: Option<&Node>) -> Result<Vec<Port>> {
    let Some(node) = node else { return Ok(Vec::new()) };
    let mut found: Vec<Port> = Vec::new();
    for item in node.list("ports")? {
        let more = match &item.value {
            Value::Map(_) => {
                check_keys(
                    item,
                    "ports",
                    &["host_ip", "mode", "name", "protocol", "published", "target"],
                    &["app_protocol"],
                )?;
                if let Some(mode) = item.get("mode").filter(|mode| !matches!(mode.text(), "host" | "ingress")) {
                    return Err(mode.error("`mode` is host or ingress"));
                }
                let target = item.get("target").ok_or_else(|| item.error("a port needs a `target`"))?;
                vec![Port {
                    host_ip: item.get("host_ip").map(|value| value.string("host_ip")).transpose()?,
                    published: item.get("published").map(|value| value.string("published")).transpose()?,
                    target: target.number("target")?,
                    protocol: item.get("protocol").map_or(Ok("tcp".into()), |value| value.string("protocol"))?,
                }]
            }
            _ => values::ports(&item.string("ports")?).map_err(|message| item.error(message))?,
        };
        for port in more {
            if !found.contains(&port) {
                found.push(port);
            }
        }
    }
    Ok(found)
}

fn ulimits(node: Option<&Node>) -> Result<BTreeMap<String, (i64, i64)>> {
    let Some(node) = node else { return Ok(BTreeMap::new()) };
    let mut found = BTreeMap::new();
    for (key, value) in node.map("ulimits")? {
        let limits = match &value.value {
            Value::Map(_) => {
                check_keys(value, "ulimits", &["soft", "hard"], &[])?;
                let side = |name: &str| {
                    value.get(name).ok_or_else(|| value.error(format!("a limit needs `{name}`")))?.number(name)
                };
                (side("soft")?, side("hard")?)
            }
            _ => (value.number("ulimits")?, value.number("ulimits")?),
        };
        found.insert(key.text().to_owned(), limits);
    }
    Ok(found)
}

fn logging(node: &Node) -> Result<Logging> {
    check_keys(node, "logging", &["driver", "options"], &[])?;
    Ok(Logging {
        driver: node.get("driver").map(|value| value.string("driver")).transpose()?,
        options: values::labels(node.get("options"), "options")?,
    })
}

/// `deploy`: the limits of one container; what needs a cluster is refused.
fn apply_deploy(service: &mut Service, node: &Node) -> Result<()> {
    check_keys(
        node,
        "deploy",
        &["replicas", "resources", "restart_policy"],
        &["endpoint_mode", "labels", "mode", "placement", "rollback_config", "update_config"],
    )?;
    if let Some(replicas) = node.get("replicas").filter(|replicas| replicas.text() != "1") {
        return Err(replicas.error("`replicas` other than 1 is not supported yet"));
    }
    if let Some(policy) = node.get("restart_policy") {
        check_keys(policy, "restart_policy", &["condition", "max_attempts"], &["delay", "window"])?;
        let condition = policy.get("condition").map_or("any", |condition| condition.text());
        let attempts = policy.get("max_attempts").map(|value| value.number::<u32>("max_attempts")).transpose()?;
        service.restart.get_or_insert(match (condition, attempts) {
            ("none", _) => "no".into(),
            ("on-failure", Some(count)) => format!("on-failure:{count}"),
            ("on-failure", None) => "on-failure".into(),
            ("any", _) => "always".into(),
            (other, _) => {
                return Err(policy.error(format!("unknown condition {other:?}; there are none, on-failure and any")));
            }
        });
    }
    let Some(resources) = node.get("resources") else { return Ok(()) };
    check_keys(resources, "resources", &["limits", "reservations"], &[])?;
    if let Some(limits) = resources.get("limits") {
        check_keys(limits, "limits", &["cpus", "memory", "pids"], &["devices"])?;
        service.nano_cpus = cpus(limits)?.or(service.nano_cpus);
        service.mem_limit = bytes(limits, "memory")?.or(service.mem_limit);
        let pids = limits.get("pids").map(|value| value.number("pids")).transpose()?;
        service.pids_limit = pids.or(service.pids_limit);
    }
    if let Some(reservations) = resources.get("reservations") {
        check_keys(reservations, "reservations", &["memory"], &["cpus", "devices", "generic_resources", "pids"])?;
        service.mem_reservation = bytes(reservations, "memory")?.or(service.mem_reservation);
    }
    Ok(())
}
