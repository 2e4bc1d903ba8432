//! What Docker's configuration can ask for and this engine does not give: refused by name, never ignored.

use crate::error::{Error, Result};
use bollard_stubs::models;

/// Refuses what is not there yet. Defaults that clients send for everything pass.
pub fn refuse_unsupported(host: &models::HostConfig) -> Result<()> {
    fn asked<T>(list: &Option<Vec<T>>) -> bool {
        list.as_ref().is_some_and(|list| !list.is_empty())
    }
    fn text<'a>(value: &'a Option<String>, allowed: &[&str]) -> Option<&'a str> {
        value.as_deref().filter(|value| !value.is_empty() && !allowed.contains(value))
    }
    let refused = [
        (asked(&host.links), "--link (use a network and names)"),
        (asked(&host.device_cgroup_rules), "--device-cgroup-rule"),
        (asked(&host.device_requests), "--gpus"),
        (asked(&host.blkio_weight_device), "--blkio-weight-device"),
        (asked(&host.blkio_device_read_bps), "--device-read-bps"),
        (asked(&host.blkio_device_write_bps), "--device-write-bps"),
        (asked(&host.blkio_device_read_iops), "--device-read-iops"),
        (asked(&host.blkio_device_write_iops), "--device-write-iops"),
        (host.blkio_weight.unwrap_or(0) != 0, "--blkio-weight"),
        (host.cpu_realtime_period.unwrap_or(0) != 0, "--cpu-rt-period"),
        (host.cpu_realtime_runtime.unwrap_or(0) != 0, "--cpu-rt-runtime"),
        (host.storage_opt.as_ref().is_some_and(|options| !options.is_empty()), "--storage-opt"),
        (host.annotations.as_ref().is_some_and(|options| !options.is_empty()), "--annotation"),
        (text(&host.pid_mode, &["host", "private"]).is_some(), "--pid=container:NAME"),
        (text(&host.ipc_mode, &["host", "private", "shareable"]).is_some(), "--ipc of this kind"),
        (text(&host.uts_mode, &["host"]).is_some(), "--uts of this kind"),
        (text(&host.userns_mode, &["host"]).is_some(), "--userns"),
        (text(&host.volume_driver, &["local"]).is_some(), "--volume-driver"),
        (text(&host.cgroup, &[]).is_some(), "Cgroup"),
        (
            host.log_config.as_ref().is_some_and(|log| text(&log.typ, &["json-file", "none"]).is_some()),
            "--log-driver other than json-file and none",
        ),
    ];
    match refused.iter().find(|(asked, _)| *asked) {
        Some((_, name)) => Err(Error::NotImplemented((*name).into())),
        None => Ok(()),
    }
}
