//! One service of the file, validated.

mod build;
mod field;
mod mount;

use super::{
    model::Service,
    values,
    yaml::{Node, check_keys},
};
use crate::error::Result;
use field::{bytes, cpus, depends_on, duration, grants, healthcheck, logging, memberships, ports, ulimits};
use std::{
    collections::BTreeSet,
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
