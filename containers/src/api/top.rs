//! `docker top`: the host's ps(1), limited to a container's processes.

use crate::error::{Context, Error, Result};
use bollard_stubs::models;
use std::{collections::HashSet, fs, process::Command};

/// The processes below `root`, itself included, as `ps ARGUMENTS` shows them.
pub fn processes(root: i32, arguments: &str) -> Result<models::ContainerTopResponse> {
    let output = Command::new("ps").args(arguments.split_whitespace()).output().doing("run ps")?;
    if !output.status.success() {
        return Err(Error::Invalid(format!("ps {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(String::from).collect();
    let at = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::Invalid(format!("ps {arguments}: its output has no column PID")))?;
    let wanted = in_namespace_of(root);
    let processes = lines
        .filter_map(|line| {
            let mut fields: Vec<String> = line.split_whitespace().map(String::from).collect();
            let pid = fields.get(at)?.parse::<i32>().ok()?;
            if fields.len() > titles.len() {
                let command = fields.split_off(titles.len() - 1).join(" ");
                fields.push(command);
            }
            wanted.contains(&pid).then_some(fields)
        })
        .collect();
    Ok(models::ContainerTopResponse { titles: Some(titles), processes: Some(processes) })
}

/// Pids on the host of the processes in `root`'s pid namespace.
fn in_namespace_of(root: i32) -> HashSet<i32> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(root);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| own.is_some() && namespace(*pid) == own)
        .collect()
}
