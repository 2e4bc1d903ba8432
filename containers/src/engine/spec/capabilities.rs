//! Capabilities (capabilities(7)): Docker's defaults, what is added and dropped.

use crate::error::{Error, Result};

/// What a container's root has unless asked otherwise; Docker's list.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Every capability, by number.
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Every capability that this process may hand on: a container engine may itself be without some.
pub fn all() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    ALL.iter().enumerate().filter(|(bit, _)| bounding & (1 << bit) != 0).map(|(_, name)| name.to_string()).collect()
}

/// The defaults, less `drop`, plus `add`; either may say ALL. Names with or without CAP_, in any case.
pub fn effective(add: &[String], drop: &[String]) -> Result<Vec<String>> {
    let add = add.iter().map(|name| full_name(name)).collect::<Result<Vec<_>>>()?;
    let drop = drop.iter().map(|name| full_name(name)).collect::<Result<Vec<_>>>()?;
    let possible = all();
    let has = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
    let mut chosen: Vec<String> = if has(&add, "ALL") {
        possible.clone()
    } else if has(&drop, "ALL") {
        Vec::new()
    } else {
        DEFAULT.map(String::from).to_vec()
    };
    chosen.retain(|name| !has(&drop, name) && has(&possible, name));
    for name in add {
        if name != "ALL" && !has(&chosen, &name) {
            if !has(&possible, &name) {
                return Err(Error::Invalid(format!("capability {name} is not the engine's to give on this machine")));
            }
            chosen.push(name);
        }
    }
    Ok(chosen)
}

fn full_name(name: &str) -> Result<String> {
    let upper = name.to_ascii_uppercase();
    if upper == "ALL" || upper == "CAP_ALL" {
        return Ok("ALL".into());
    }
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    if ALL.contains(&full.as_str()) {
        Ok(full)
    } else {
        Err(Error::Invalid(format!("unknown capability: {full:?}; capabilities(7) lists them")))
    }
}

#[cfg(test)]
mod tests {
    use super::effective;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn add_and_drop() {
        assert_eq!(effective(&[], &[]).unwrap().len(), 14);
        assert_eq!(effective(&names(&["chown"]), &names(&["ALL"])).unwrap(), ["CAP_CHOWN"]);
        assert!(!effective(&[], &names(&["net_raw"])).unwrap().contains(&"CAP_NET_RAW".to_string()));
        assert!(effective(&names(&["FLY"]), &[]).is_err());
    }
}
