//! A service's volumes, in their short form and their long one.

use super::{Reader, absolute, field::bytes};
use crate::{
    compose::{
        model::{Mount, MountKind},
        yaml::{Node, Value, check_keys},
    },
    error::Result,
};

impl Reader<'_> {
    pub(super) fn mount(&self, node: &Node) -> Result<Mount> {
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
