//! `-v`, `--mount`, `--tmpfs` and the image's VOLUMEs: what a container mounts.

use super::record::{MountKind, MountRecord, Record};
use crate::{
    engine::{spec, volumes::Volumes},
    error::{Context, Error, Result},
    image::rooted,
};
use bollard_stubs::models;
use std::{fs, path::Path};

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

/// Everything that is asked for, anonymous volumes made. On conflict, what is asked for wins over the image.
pub fn resolve(
    config: &models::ContainerConfig,
    host: &models::HostConfig,
    volumes: &Volumes,
    from: impl Fn(&str) -> Result<Vec<MountRecord>>,
) -> Result<Vec<MountRecord>> {
    let mut all: Vec<MountRecord> = Vec::new();
    for source in host.volumes_from.iter().flatten() {
        let (name, mode) = source.split_once(':').unwrap_or((source, "rw"));
        for mut mount in from(name)? {
            mount.read_only |= mode == "ro";
            replace(&mut all, mount);
        }
    }
    let mut asked = Vec::new();
    for text in host.binds.iter().flatten() {
        asked.push(bind(text)?);
    }
    for mount in host.mounts.iter().flatten() {
        asked.push(self::mount(mount, volumes)?);
    }
    for (target, options) in host.tmpfs.iter().flatten() {
        let options = options.split(',').filter(|option| !option.is_empty()).map(String::from).collect();
        asked.push(MountRecord {
            target: clean(target)?,
            kind: MountKind::Tmpfs { options },
            read_only: false,
            propagation: None,
        });
    }
    for (index, mount) in asked.iter().enumerate() {
        if asked[..index].iter().any(|other| other.target == mount.target) {
            return Err(Error::Invalid(format!("Duplicate mount point: {}", mount.target)));
        }
    }
    for mount in asked {
        replace(&mut all, mount);
    }
    for target in config.volumes.iter().flatten() {
        let target = clean(target)?;
        if !all.iter().any(|mount| mount.target == target) {
            let kind = MountKind::Volume { name: String::new(), copy: true };
            all.push(MountRecord { target, kind, read_only: false, propagation: None });
        }
    }
    for mount in &mut all {
        if let MountKind::Volume { name, .. } = &mut mount.kind {
            let known = !name.is_empty();
            let request = models::VolumeCreateRequest { name: known.then(|| name.clone()), ..Default::default() };
            if !known || volumes.get(name).is_err() {
                *name = volumes.create(request)?.name;
            }
        }
    }
    Ok(all)
}

fn replace(all: &mut Vec<MountRecord>, mount: MountRecord) {
    all.retain(|other| other.target != mount.target);
    all.push(mount);
}

fn clean(target: &str) -> Result<String> {
    if !target.starts_with('/') {
        return Err(Error::Invalid(format!("invalid mount target {target:?}: mount path must be absolute")));
    }
    let path = rooted::clean(target.as_bytes())
        .filter(|path| !path.is_empty())
        .ok_or_else(|| Error::Invalid(format!("invalid mount target {target:?}: destination can't be '/' or above")))?;
    Ok(format!("/{}", String::from_utf8_lossy(&path)))
}

/// `/host:/target[:ro,…]`, `name:/target`, `/target`
fn bind(text: &str) -> Result<MountRecord> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(Error::Invalid(format!("invalid volume specification: '{text}'"))),
    };
    let mut record = MountRecord {
        target: clean(target)?,
        kind: if source.starts_with('/') {
            MountKind::Bind { source: source.into() }
        } else {
            MountKind::Volume { name: source.into(), copy: true }
        },
        read_only: false,
        propagation: None,
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match (option, &mut record.kind) {
            ("rw", _) => {}
            ("ro" | "readonly", _) => record.read_only = true,
            // Labels of SELinux, which is not here, and macOS's consistency.
            ("z" | "Z" | "cached" | "delegated" | "consistent", _) => {}
            ("nocopy", MountKind::Volume { copy, .. }) => *copy = false,
            (option, MountKind::Bind { .. }) if PROPAGATIONS.contains(&option) => {
                record.propagation = Some(option.into())
            }
            _ => return Err(Error::Invalid(format!("invalid mode: {options} (in '{text}')"))),
        }
    }
    if let MountKind::Bind { source } = &record.kind
        && !Path::new(source).exists()
    {
        // As dockerd: -v makes a folder that is missing.
        fs::create_dir_all(source).at("create", Path::new(source))?;
    }
    Ok(record)
}

fn mount(mount: &models::Mount, volumes: &Volumes) -> Result<MountRecord> {
    let target = clean(mount.target.as_deref().unwrap_or_default())?;
    let source = mount.source.clone().unwrap_or_default();
    let read_only = mount.read_only.unwrap_or(false);
    let mut propagation = None;
    let kind = match mount.typ {
        Some(models::MountType::BIND) => {
            if !source.starts_with('/') {
                return Err(Error::Invalid(format!(
                    "invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute"
                )));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            if !Path::new(&source).exists() {
                if options.create_mountpoint.unwrap_or(false) {
                    fs::create_dir_all(&source).at("create", Path::new(&source))?;
                } else {
                    return Err(Error::Invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {source}"
                    )));
                }
            }
            propagation = options.propagation.map(|it| it.to_string()).filter(|it| !it.is_empty());
            if options.non_recursive.unwrap_or(false) {
                return Err(Error::NotImplemented("--mount bind-recursive=disabled".into()));
            }
            MountKind::Bind { source }
        }
        Some(models::MountType::VOLUME) => {
            let options = mount.volume_options.clone().unwrap_or_default();
            if options.subpath.as_deref().is_some_and(|path| !path.is_empty()) {
                return Err(Error::NotImplemented("--mount volume-subpath".into()));
            }
            let driver = options.driver_config.unwrap_or_default();
            let made = volumes.create(models::VolumeCreateRequest {
                name: Some(source).filter(|name| !name.is_empty()),
                driver: driver.name,
                driver_opts: driver.options,
                labels: options.labels,
                ..Default::default()
            })?;
            MountKind::Volume { name: made.name, copy: !options.no_copy.unwrap_or(false) }
        }
        Some(models::MountType::TMPFS) => {
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            let mut list = Vec::new();
            list.extend(options.size_bytes.filter(|size| *size > 0).map(|size| format!("size={size}")));
            list.extend(options.mode.map(|mode| format!("mode={mode:o}")));
            list.extend(options.options.into_iter().flatten().map(|pair| pair.join("=")));
            MountKind::Tmpfs { options: list }
        }
        other => {
            return Err(Error::NotImplemented(format!(
                "--mount type={}",
                other.map(|kind| kind.to_string()).unwrap_or_default()
            )));
        }
    };
    Ok(MountRecord { target, kind, read_only, propagation })
}

/// What the specification mounts: volumes as folders on the host, filled on first use; the container's own files last.
pub fn for_spec(
    record: &Record,
    folder: &Path,
    volumes: &Volumes,
    layers: &[std::path::PathBuf],
) -> Result<Vec<spec::Mount>> {
    let mut mounts = Vec::new();
    for (name, target) in [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")]
    {
        if !record.mounts.iter().any(|mount| mount.target == target) {
            mounts.push(spec::Mount::Bind {
                source: folder.join(name),
                target: target.into(),
                read_only: false,
                propagation: None,
            });
        }
    }
    for mount in &record.mounts {
        mounts.push(match &mount.kind {
            MountKind::Bind { source } => spec::Mount::Bind {
                source: source.into(),
                target: mount.target.clone(),
                read_only: mount.read_only,
                propagation: mount.propagation.clone(),
            },
            MountKind::Volume { name, copy } => {
                if *copy {
                    volumes.copy_up(name, layers, &mount.target)?;
                }
                spec::Mount::Bind {
                    source: volumes.path(name)?,
                    target: mount.target.clone(),
                    read_only: mount.read_only,
                    propagation: None,
                }
            }
            MountKind::Tmpfs { options } => {
                spec::Mount::Tmpfs { target: mount.target.clone(), options: options.clone() }
            }
        });
    }
    Ok(mounts)
}
