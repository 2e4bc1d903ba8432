//! Routes that tell of the engine itself: `_ping`, `version`, `info`.

use super::{API_VERSION, MIN_API_VERSION};
use crate::{engine::Engine, error::Error};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    routing::get,
};
use bollard_stubs::models;
use nix::{sys::sysinfo::sysinfo, sys::utsname::uname};
use std::{fs, sync::Arc};

/// The engine's version: the crate's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/plugins/{name}/json", get(plugin))
}

/// HEAD too: axum answers it with GET's headers. Clients read the version to negotiate from here.
async fn ping() -> (HeaderMap, &'static str) {
    let headers = [
        (HeaderName::from_static("api-version"), API_VERSION),
        // The classic builder: the client must not try BuildKit.
        (HeaderName::from_static("builder-version"), "1"),
        (HeaderName::from_static("docker-experimental"), "false"),
        (HeaderName::from_static("ostype"), "linux"),
        (header::SERVER, concat!("Inception/", env!("CARGO_PKG_VERSION"), " (linux)")),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
    ];
    (headers.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect(), "OK")
}

async fn version(State(engine): State<Arc<Engine>>) -> Json<models::SystemVersion> {
    let runtime = &engine.config.default_runtime;
    Json(models::SystemVersion {
        platform: Some(models::SystemVersionPlatform { name: "Inception".into() }),
        components: Some(vec![
            component("Engine", VERSION, &details()),
            component(runtime, &runtime_version(&engine, runtime).await, &[]),
        ]),
        version: Some(VERSION.into()),
        api_version: Some(API_VERSION.into()),
        min_api_version: Some(MIN_API_VERSION.into()),
        os: Some("linux".into()),
        arch: Some(architecture().into()),
        kernel_version: kernel(),
        ..Default::default()
    })
}

fn component(name: &str, version: &str, details: &[(&str, String)]) -> models::SystemVersionComponents {
    let details = details.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    models::SystemVersionComponents { name: name.into(), version: version.into(), details: Some(details) }
}

/// What `docker version` shows of the engine: it reads these and not the answer's own fields.
fn details() -> [(&'static str, String); 6] {
    [
        ("ApiVersion", API_VERSION.into()),
        ("MinAPIVersion", MIN_API_VERSION.into()),
        ("Os", "linux".into()),
        ("Arch", architecture().into()),
        ("KernelVersion", kernel().unwrap_or_default()),
        ("Experimental", "false".into()),
    ]
}

/// There are no plugins. Answered because `docker inspect NAME` asks for one when nothing else has the name.
async fn plugin(Path(name): Path<String>) -> Error {
    Error::not_found("plugin", name)
}

/// The first line of `runc --version`, its name taken off.
async fn runtime_version(engine: &Engine, name: &str) -> String {
    let Some(program) = engine.config.runtimes.get(name) else { return "not installed".into() };
    match tokio::process::Command::new(program).arg("--version").output().await {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text.lines().next().unwrap_or_default();
            line.trim_start_matches(name).trim_start().trim_start_matches("version ").to_string()
        }
        Err(error) => error.to_string(),
    }
}

async fn info(State(engine): State<Arc<Engine>>) -> Json<models::SystemInfo> {
    let images = Arc::clone(&engine.images);
    let images = tokio::task::spawn_blocking(move || images.list().map_or(0, |images| images.len())).await.unwrap_or(0);
    let [running, stopped] = engine.containers.count();
    let v2 = fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok();
    let config = &engine.config;
    Json(models::SystemInfo {
        id: Some(format!("inception-{}", config.instance())),
        containers: Some((running + stopped) as i64),
        containers_running: Some(running as i64),
        containers_paused: Some(0),
        containers_stopped: Some(stopped as i64),
        images: Some(images as i64),
        driver: Some("overlay2".into()),
        driver_status: Some(vec![vec!["Backing Filesystem".into(), "overlayfs".into()]]),
        docker_root_dir: Some(config.data_root.display().to_string()),
        plugins: Some(models::PluginsInfo {
            volume: Some(vec!["local".into()]),
            network: Some(vec!["bridge".into(), "host".into(), "none".into()]),
            log: Some(vec!["json-file".into()]),
            ..Default::default()
        }),
        memory_limit: Some(true),
        cpu_cfs_period: Some(true),
        cpu_cfs_quota: Some(true),
        cpu_shares: Some(true),
        cpu_set: Some(true),
        pids_limit: Some(true),
        ipv4_forwarding: Some(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")),
        debug: Some(config.debug),
        system_time: Some(chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)),
        logging_driver: Some("json-file".into()),
        cgroup_driver: Some(models::SystemInfoCgroupDriverEnum::CGROUPFS),
        cgroup_version: Some(if v2 {
            models::SystemInfoCgroupVersionEnum::_2
        } else {
            models::SystemInfoCgroupVersionEnum::_1
        }),
        kernel_version: kernel(),
        operating_system: Some(operating_system()),
        os_type: Some("linux".into()),
        architecture: Some(std::env::consts::ARCH.into()),
        ncpu: std::thread::available_parallelism().ok().map(|count| count.get() as i64),
        mem_total: sysinfo().ok().map(|info| info.ram_total() as i64),
        name: nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned()),
        server_version: Some(VERSION.into()),
        runtimes: Some(
            config
                .runtimes
                .iter()
                .map(|(name, path)| {
                    let runtime = models::Runtime { path: Some(path.display().to_string()), ..Default::default() };
                    (name.clone(), runtime)
                })
                .collect(),
        ),
        default_runtime: Some(config.default_runtime.clone()),
        live_restore_enabled: Some(true),
        init_binary: Some(config.init_path.display().to_string()),
        security_options: Some(vec!["name=seccomp,profile=builtin".into()]),
        default_address_pools: Some(
            config
                .default_address_pools
                .iter()
                .map(|(base, size)| models::SystemInfoDefaultAddressPools {
                    base: Some(base.to_string()),
                    size: Some(i64::from(*size)),
                })
                .collect(),
        ),
        swarm: Some(models::SwarmInfo {
            local_node_state: Some(models::LocalNodeState::INACTIVE),
            ..Default::default()
        }),
        warnings: Some(Vec::new()),
        ..Default::default()
    })
}

fn kernel() -> Option<String> {
    uname().ok().map(|name| name.release().to_string_lossy().into_owned())
}

/// Go's name of the architecture, as images carry it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".into(), |name| name.trim_matches('"').into())
}
