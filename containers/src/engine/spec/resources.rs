//! Limits, devices and ulimits (config-linux.md: resources; config.md: rlimits).

use crate::error::{Context, Error, Result};
use bollard_stubs::models;
use nix::sys::{
    resource::{Resource, getrlimit},
    stat::{SFlag, major, minor, stat},
};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// The unified hierarchy alone.
pub fn is_cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The cgroup's limits. A limit that this machine can't keep is refused, not dropped.
pub fn resources(host: &models::HostConfig) -> Result<Value> {
    let mut memory = json!({});
    if let Some(limit) = host.memory.filter(|limit| *limit > 0) {
        if limit < 6 << 20 {
            return Err(Error::Invalid("Minimum memory limit allowed is 6MB".into()));
        }
        memory["limit"] = limit.into();
        // As with Docker: without --memory-swap as much swap again. Where the kernel does not count swap, none is asked.
        let swap = host.memory_swap.filter(|swap| *swap != 0);
        if let Some(swap) = swap.or(Some(limit * 2)).filter(|_| counts_swap()) {
            if swap > 0 && swap < limit {
                return Err(Error::Invalid("Minimum memoryswap limit should be larger than memory limit".into()));
            }
            memory["swap"] = swap.into();
        }
    }
    if let Some(soft) = host.memory_reservation.filter(|soft| *soft > 0) {
        memory["reservation"] = soft.into();
    }
    if host.oom_kill_disable.unwrap_or(false) {
        memory["disableOOMKiller"] = true.into();
    }
    if let Some(swappiness) = host.memory_swappiness.filter(|value| (0..=100).contains(value)) {
        memory["swappiness"] = swappiness.into();
    }
    let mut cpu = json!({});
    if let Some(nano) = host.nano_cpus.filter(|nano| *nano > 0) {
        let available = std::thread::available_parallelism().map_or(1, |count| count.get() as i64);
        if nano > available * 1_000_000_000 {
            return Err(Error::Invalid(format!(
                "range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs available"
            )));
        }
        cpu["period"] = 100_000.into();
        cpu["quota"] = (nano / 10_000).into();
    }
    for (name, value) in [("shares", host.cpu_shares), ("period", host.cpu_period), ("quota", host.cpu_quota)] {
        if let Some(value) = value.filter(|value| *value != 0) {
            cpu[name] = value.into();
        }
    }
    for (name, value) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            cpu[name] = value.into();
        }
    }
    let mut resources = json!({"memory": memory, "cpu": cpu, "devices": device_rules(host)?});
    if let Some(limit) = host.pids_limit.filter(|limit| *limit != 0) {
        resources["pids"] = json!({"limit": limit});
    }
    Ok(resources)
}

/// Whether the kernel limits swap (v1 needs swapaccount).
fn counts_swap() -> bool {
    is_cgroup_v2() || Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
}

/// Nothing but the usual pseudo-devices may be opened; mknod makes any (it can't be opened then).
fn device_rules(host: &models::HostConfig) -> Result<Value> {
    if host.privileged.unwrap_or(false) {
        return Ok(json!([{"allow": true, "access": "rwm"}]));
    }
    let mut rules = vec![
        json!({"allow": false, "access": "rwm"}),
        json!({"allow": true, "type": "c", "access": "m"}),
        json!({"allow": true, "type": "b", "access": "m"}),
    ];
    // null, zero, full, random, urandom, tty, console, ptmx, and every pts.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}));
    }
    rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
    for mapping in host.devices.iter().flatten() {
        let device = device(mapping)?;
        let access = mapping.cgroup_permissions.as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
        rules.push(json!({"allow": true, "type": device["type"], "major": device["major"], "minor": device["minor"], "access": access}));
    }
    Ok(Value::Array(rules))
}

/// `--device`, and with `--privileged` every device of the host.
pub fn devices(host: &models::HostConfig) -> Result<Value> {
    let mut list = host.devices.iter().flatten().map(device).collect::<Result<Vec<_>>>()?;
    if host.privileged.unwrap_or(false) {
        for entry in fs::read_dir("/dev").doing("list /dev")?.flatten() {
            let path = entry.path().display().to_string();
            let mapping = models::DeviceMapping { path_on_host: Some(path), ..Default::default() };
            // Folders, links and sockets are no devices; runc makes the standard ones itself.
            list.extend(device(&mapping));
        }
    }
    Ok(Value::Array(list))
}

fn device(mapping: &models::DeviceMapping) -> Result<Value> {
    let path = mapping.path_on_host.as_deref().unwrap_or_default();
    let status =
        stat(path).doing(format_args!("error gathering device information while adding custom device {path:?}"))?;
    let kind = match SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFCHR => "c",
        SFlag::S_IFBLK => "b",
        _ => return Err(Error::Invalid(format!("{path} is not a device"))),
    };
    let target = mapping.path_in_container.as_deref().filter(|target| !target.is_empty()).unwrap_or(path);
    Ok(json!({
        "path": target, "type": kind, "major": major(status.st_rdev), "minor": minor(status.st_rdev),
        "fileMode": status.st_mode & 0o777, "uid": status.st_uid, "gid": status.st_gid,
    }))
}

/// `--ulimit`, never above what the engine itself may give.
pub fn limits(host: &models::HostConfig) -> Result<Value> {
    let mut list = Vec::new();
    for limit in host.ulimits.iter().flatten() {
        let name = limit.name.as_deref().unwrap_or_default();
        let (kind, resource) =
            known_limit(name).ok_or_else(|| Error::Invalid(format!("invalid ulimit type: {name}")))?;
        let (_, highest) = getrlimit(resource).doing(format_args!("read the limit {name}"))?;
        // -1 is "unlimited".
        let clamp = |value: Option<i64>| u64::try_from(value.unwrap_or(0)).unwrap_or(u64::MAX).min(highest);
        let (soft, hard) = (clamp(limit.soft), clamp(limit.hard));
        list.push(json!({"type": kind, "soft": soft.min(hard), "hard": hard}));
    }
    Ok(Value::Array(list))
}

fn known_limit(name: &str) -> Option<(&'static str, Resource)> {
    Some(match name {
        "as" => ("RLIMIT_AS", Resource::RLIMIT_AS),
        "core" => ("RLIMIT_CORE", Resource::RLIMIT_CORE),
        "cpu" => ("RLIMIT_CPU", Resource::RLIMIT_CPU),
        "data" => ("RLIMIT_DATA", Resource::RLIMIT_DATA),
        "fsize" => ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
        "locks" => ("RLIMIT_LOCKS", Resource::RLIMIT_LOCKS),
        "memlock" => ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
        "msgqueue" => ("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
        "nice" => ("RLIMIT_NICE", Resource::RLIMIT_NICE),
        "nofile" => ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
        "nproc" => ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
        "rss" => ("RLIMIT_RSS", Resource::RLIMIT_RSS),
        "rtprio" => ("RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO),
        "rttime" => ("RLIMIT_RTTIME", Resource::RLIMIT_RTTIME),
        "sigpending" => ("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
        "stack" => ("RLIMIT_STACK", Resource::RLIMIT_STACK),
        _ => return None,
    })
}
