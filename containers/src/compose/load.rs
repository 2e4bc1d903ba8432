//! Finds the files of a project, and makes one validated [`Project`] of them.

use super::{
    dotenv, interpolate, merge,
    model::{Item, Network, Project, Service, Subnet, Volume},
    service::{Reader, absolute},
    values,
    yaml::{self, Node, check_keys},
};
use crate::error::{Context, Error, Result};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
const OVERRIDES: [&str; 4] =
    ["compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml", "docker-compose.override.yml"];

/// What the command line says about the project.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub files: Vec<PathBuf>,
    pub project_name: Option<String>,
    pub project_directory: Option<PathBuf>,
    pub env_files: Vec<PathBuf>,
    pub profiles: Vec<String>,
}

/// Whether there is a Compose file to load.
pub fn is_there(options: &Options) -> Result<bool> {
    Ok(!options.files.is_empty() || env::var_os("COMPOSE_FILE").is_some() || find(&here(options)?).is_some())
}

fn here(options: &Options) -> Result<PathBuf> {
    let current = env::current_dir().doing("find the current folder")?;
    Ok(match &options.project_directory {
        Some(directory) => current.join(directory),
        None => current,
    })
}

/// The files in `folder` or the nearest one above it.
fn find(folder: &Path) -> Option<Vec<PathBuf>> {
    folder.ancestors().find_map(|folder| {
        let first = |names: [&str; 4]| names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        let base = first(NAMES)?;
        Some([Some(base), first(OVERRIDES)].into_iter().flatten().collect())
    })
}

/// Loads, replaces variables, lays the files over one another and validates.
pub fn load(options: &Options) -> Result<Project> {
    let current = here(options)?;
    let mut files: Vec<PathBuf> =
        options.files.iter().map(|file| absolute(&env_dir(), &file.to_string_lossy())).collect();
    if files.is_empty() {
        files = match env::var("COMPOSE_FILE") {
            Ok(list) if !list.is_empty() => list.split(':').map(|file| absolute(&current, file)).collect(),
            _ => find(&current).ok_or_else(|| {
                Error::invalid(format!(
                    "no {} in {} or above it: go to the project's folder, or give --file",
                    NAMES.join(", "),
                    current.display()
                ))
            })?,
        };
    }
    let directory = match &options.project_directory {
        Some(_) => current,
        None => files[0].parent().unwrap_or(Path::new("/")).to_owned(),
    };
    let variables = variables(options, &directory)?;
    let lookup = |name: &str| env::var(name).ok().or_else(|| variables.get(name).cloned());
    let unset = RefCell::new(BTreeSet::new());
    let mut document: Option<Node> = None;
    for file in &files {
        let mut node = yaml::read(file)?;
        node.each_scalar(&|at, text| {
            let mut told = |name: &str| {
                unset.borrow_mut().insert(name.to_owned());
            };
            match text.contains('$') {
                true => {
                    interpolate::interpolate(text, &lookup, &mut told).map(Some).map_err(|message| at.error(message))
                }
                false => Ok(None),
            }
        })?;
        document = Some(match document {
            Some(base) => merge::merge(base, node),
            None => node,
        });
    }
    for name in unset.into_inner() {
        log::warn!("the variable {name} is not set: an empty string takes its place");
    }
    let document = document.ok_or_else(|| Error::invalid("no Compose file"))?;
    let named = options.project_name.clone().or_else(|| lookup("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()));
    let name = match (named, document.get("name")) {
        (Some(name), _) => check_name(name).map_err(Error::Invalid)?,
        (None, Some(node)) => check_name(node.string("name")?).map_err(|message| node.error(message))?,
        (None, None) => default_name(&directory)?,
    };
    let profiles = match options.profiles.is_empty() {
        false => options.profiles.clone(),
        true => lookup("COMPOSE_PROFILES").unwrap_or_default().split(',').map(|name| name.trim().to_owned()).collect(),
    };
    project(&document, name, directory, files, &profiles, &lookup)
}

fn env_dir() -> PathBuf {
    env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}

/// `.env`, or what `--env-file` names.
fn variables(options: &Options, directory: &Path) -> Result<BTreeMap<String, String>> {
    let shell = |name: &str| env::var(name).ok();
    let mut found = BTreeMap::new();
    let default = directory.join(".env");
    let files = match options.env_files.is_empty() {
        true if !default.is_file() => return Ok(found),
        true => vec![default],
        false => options.env_files.clone(),
    };
    for file in files {
        let text = fs::read_to_string(&file).at("read", &file)?;
        found.extend(dotenv::parse(&file.display().to_string(), &text, &shell)?);
    }
    Ok(found)
}

/// The name to use when there is no file: for commands that need only the labels.
pub fn name_without_file(options: &Options) -> Result<Option<String>> {
    let named = options.project_name.clone().or_else(|| env::var("COMPOSE_PROJECT_NAME").ok());
    named.map(|name| check_name(name).map_err(Error::Invalid)).transpose()
}

fn check_name(name: String) -> Result<String, String> {
    let is_good = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
        && name.starts_with(|letter: char| letter.is_ascii_alphanumeric());
    match is_good {
        true => Ok(name),
        false => Err(format!(
            "{name:?} is no project name: lower-case letters, digits, `-` and `_`, beginning with a letter or digit"
        )),
    }
}

fn default_name(directory: &Path) -> Result<String> {
    let folder = directory.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let name: String =
        folder.chars().filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')).collect();
    match name.trim_start_matches(['-', '_']) {
        "" => Err(Error::invalid(format!("{} makes no project name: give --project-name", directory.display()))),
        name => Ok(name.to_owned()),
    }
}

fn project(
    document: &Node,
    name: String,
    directory: PathBuf,
    files: Vec<PathBuf>,
    profiles: &[String],
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Project> {
    check_keys(
        document,
        "the Compose file",
        &["configs", "name", "networks", "secrets", "services", "version", "volumes"],
        &["include", "models"],
    )?;
    let section = |key: &str| document.get(key).map_or(Ok(&[][..]), |node| node.map(key));
    let reader = Reader { directory: &directory, lookup };
    let (mut services, mut inactive) = (BTreeMap::new(), BTreeMap::new());
    for (key, node) in section("services")? {
        check_service_name(key)?;
        let service = reader.service(key.text(), node)?;
        let is_active = service.profiles.is_empty()
            || service.profiles.iter().any(|profile| profiles.iter().any(|asked| asked == profile || asked == "*"));
        if is_active { &mut services } else { &mut inactive }.insert(key.text().to_owned(), service);
    }
    if services.is_empty() && inactive.is_empty() {
        return Err(document.error("there are no `services`"));
    }
    let mut networks = BTreeMap::new();
    for (key, node) in section("networks")? {
        networks.insert(key.text().to_owned(), network(&name, key.text(), node)?);
    }
    let mut volumes = BTreeMap::new();
    for (key, node) in section("volumes")? {
        volumes.insert(key.text().to_owned(), volume(&name, key.text(), node)?);
    }
    let items = |key: &str| -> Result<BTreeMap<String, Item>> {
        section(key)?
            .iter()
            .map(|(name, node)| Ok((name.text().to_owned(), item(&directory, key, name, node)?)))
            .collect()
    };
    let (secrets, configs) = (items("secrets")?, items("configs")?);
    for service in services.values_mut().chain(inactive.values_mut()) {
        if service.network_mode.is_none() && service.networks.is_empty() {
            service.networks.insert("default".into(), Default::default());
        }
        if service.networks.contains_key("default") {
            networks
                .entry("default".into())
                .or_insert_with(|| Network { name: format!("{name}_default"), ..Network::default() });
        }
    }
    let project = Project { name, services, networks, volumes, secrets, configs, directory, files, inactive };
    references(&project, document)?;
    order(&project, document)?;
    Ok(project)
}

fn check_service_name(key: &Node) -> Result<()> {
    let name = key.text();
    let is_good = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && name.as_bytes()[0].is_ascii_alphanumeric();
    match is_good {
        true => Ok(()),
        false => Err(key.error(format!("{name:?} is no service name: letters, digits, `.`, `_` and `-`"))),
    }
}

/// The engine's name of an object, and whether it is someone else's.
fn named(project: &str, key: &str, node: &Node) -> Result<(String, bool)> {
    let external = match node.get("external") {
        // The old form: external: {name: x}.
        Some(old) if old.get("name").is_some() => return Ok((old.get("name").map_or("", Node::text).to_owned(), true)),
        Some(external) => external.boolean("external")?,
        None => false,
    };
    let name = node.get("name").map(|name| name.string("name")).transpose()?;
    let own = if external { key.to_owned() } else { format!("{project}_{key}") };
    Ok((name.unwrap_or(own), external))
}

fn network(project: &str, key: &str, node: &Node) -> Result<Network> {
    check_keys(
        node,
        &format!("network {key}"),
        &["attachable", "driver", "driver_opts", "enable_ipv6", "external", "internal", "ipam", "labels", "name"],
        &["enable_ipv4"],
    )?;
    let (name, external) = named(project, key, node)?;
    let flag = |key: &str| node.get(key).map_or(Ok(false), |value| value.boolean(key));
    let mut subnets = Vec::new();
    if let Some(ipam) = node.get("ipam") {
        check_keys(ipam, "ipam", &["config", "driver"], &["options"])?;
        if let Some(driver) = ipam.get("driver").filter(|driver| driver.text() != "default") {
            return Err(driver.error("only the `default` ipam driver is supported"));
        }
        for entry in ipam.get("config").map_or(Ok(&[][..]), |config| config.list("config"))? {
            check_keys(entry, "ipam", &["gateway", "ip_range", "subnet"], &["aux_addresses"])?;
            let subnet = entry.get("subnet");
            if let Some(node) = subnet.filter(|node| node.text().parse::<ipnet::IpNet>().is_err()) {
                return Err(node.error(format!("{:?} is no subnet, such as 198.18.5.0/24", node.text())));
            }
            let text = |key: &str| entry.get(key).map(|value| value.string(key)).transpose();
            subnets.push(Subnet { subnet: text("subnet")?, gateway: text("gateway")?, ip_range: text("ip_range")? });
        }
    }
    Ok(Network {
        name,
        external,
        driver: node.get("driver").map(|driver| driver.string("driver")).transpose()?,
        driver_opts: values::labels(node.get("driver_opts"), "driver_opts")?,
        internal: flag("internal")?,
        attachable: flag("attachable")?,
        enable_ipv6: flag("enable_ipv6")?,
        labels: values::labels(node.get("labels"), "labels")?,
        subnets,
    })
}

fn volume(project: &str, key: &str, node: &Node) -> Result<Volume> {
    check_keys(node, &format!("volume {key}"), &["driver", "driver_opts", "external", "labels", "name"], &[])?;
    let (name, external) = named(project, key, node)?;
    Ok(Volume {
        name,
        external,
        driver: node.get("driver").map(|driver| driver.string("driver")).transpose()?,
        driver_opts: values::labels(node.get("driver_opts"), "driver_opts")?,
        labels: values::labels(node.get("labels"), "labels")?,
    })
}

fn item(directory: &Path, what: &str, key: &Node, node: &Node) -> Result<Item> {
    check_keys(
        node,
        &format!("{what} {}", key.text()),
        &["environment", "file", "name"],
        &["content", "driver", "driver_opts", "external", "labels", "template_driver"],
    )?;
    let text = |key: &str| node.get(key).map(|value| value.string(key)).transpose();
    match (text("file")?, text("environment")?) {
        (Some(file), None) => Ok(Item { file: Some(absolute(directory, &file)), environment: None }),
        (None, Some(variable)) => Ok(Item { file: None, environment: Some(variable) }),
        _ => Err(key.error(format!("{} needs a `file` or an `environment`", key.text()))),
    }
}

/// Every name that a service uses is there.
fn references(project: &Project, document: &Node) -> Result<()> {
    for service in project.services.values().chain(project.inactive.values()) {
        let node = document.get("services").and_then(|services| services.get(&service.name)).unwrap_or(document);
        let missing = |key: &str, kind: &str, name: &str, known: Vec<&String>| {
            let nearest = known.iter().map(|other| (strsim::damerau_levenshtein(name, other), other)).min();
            let hint = match nearest.filter(|(distance, _)| *distance <= 2) {
                Some((_, other)) => format!("did you mean `{other}`?"),
                None => format!("there is no such entry under `{kind}`"),
            };
            let at = node.get(key).unwrap_or(node);
            at.error(format!("service {} uses the unknown {key} {name:?}; {hint}", service.name))
        };
        for (name, dependency) in &service.depends_on {
            if project.service(name).is_none() && dependency.required {
                return Err(missing("depends_on", "services", name, project.services.keys().collect()));
            }
        }
        if let Some(name) = service.network_mode.as_ref().and_then(|mode| mode.strip_prefix("service:"))
            && project.service(name).is_none()
        {
            return Err(missing("network_mode", "services", name, project.services.keys().collect()));
        }
        if let Some(name) = service.networks.keys().find(|name| !project.networks.contains_key(*name)) {
            return Err(missing("networks", "networks", name, project.networks.keys().collect()));
        }
        for mount in service.volumes.iter().filter(|mount| mount.kind == super::model::MountKind::Volume) {
            if let Some(name) = mount.source.as_ref().filter(|name| !project.volumes.contains_key(*name)) {
                return Err(missing("volumes", "volumes", name, project.volumes.keys().collect()));
            }
        }
        if let Some(grant) = service.secrets.iter().find(|grant| !project.secrets.contains_key(&grant.source)) {
            return Err(missing("secrets", "secrets", &grant.source, project.secrets.keys().collect()));
        }
        if let Some(grant) = service.configs.iter().find(|grant| !project.configs.contains_key(&grant.source)) {
            return Err(missing("configs", "configs", &grant.source, project.configs.keys().collect()));
        }
    }
    Ok(())
}

/// No service waits for itself.
fn order(project: &Project, document: &Node) -> Result<()> {
    fn visit<'a>(
        project: &'a Project,
        name: &'a str,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<String> {
        if done.contains(name) {
            return None;
        }
        if let Some(at) = path.iter().position(|other| *other == name) {
            return Some([&path[at..], &[name]].concat().join(" -> "));
        }
        let service = project.service(name)?;
        path.push(name);
        for other in service.before() {
            if let Some(found) = visit(project, other, path, done) {
                return Some(found);
            }
        }
        path.pop();
        done.insert(name);
        None
    }
    let mut done = BTreeSet::new();
    for name in project.services.keys().chain(project.inactive.keys()) {
        if let Some(circle) = visit(project, name, &mut Vec::new(), &mut done) {
            let at = document
                .get("services")
                .and_then(|services| services.get(name))
                .and_then(|node| node.get("depends_on"));
            return Err(at.unwrap_or(document).error(format!("services wait for one another in a circle: {circle}")));
        }
    }
    Ok(())
}

impl Service {
    /// The services that come before this one.
    pub fn before(&self) -> impl Iterator<Item = &str> {
        let shared = self.network_mode.as_ref().and_then(|mode| mode.strip_prefix("service:"));
        self.depends_on.keys().map(String::as_str).chain(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<Project> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("compose.yaml");
        fs::write(&file, text).unwrap();
        load(&Options { files: vec![file], project_name: Some("t".into()), ..Options::default() })
    }

    #[test]
    fn faults_are_told_with_their_place() {
        for (text, expected) in [
            ("services:\n  web:\n    imaeg: x\n", ":3:5: unknown key `imaeg` in service web; did you mean `image`?"),
            (
                "services:\n  web:\n    image: x\n    devices: [a]\n",
                ":4:5: `devices` in service web is not supported yet",
            ),
            ("services:\n  web:\n    image: x\n    ports: ['x']\n", ":4:13: \"x\" is no port"),
            ("services:\n  web:\n    image: x\n    volumes: ['dta:/x']\nvolumes:\n  data:\n", "did you mean `data`?"),
            ("services:\n  web:\n    image: x\n    secrets: [s]\n", "uses the unknown secrets \"s\""),
            ("services:\n  web:\n    image: x\n    depends_on: [web]\n", "circle: web -> web"),
            ("services:\n  web: {}\n", "needs an `image`"),
            ("services:\n  web:\n    image: ${X_NOT_THERE:?set it}\n", ":3:12: the variable X_NOT_THERE is required"),
            ("services:\n  web:\n    image: x\n    init: maybe\n", ":4:11: init must be true or false"),
            ("services:\n  web:\n    image: x\n    restart: sometimes\n", "`restart` takes no, always"),
            ("services:\n  web:\n    image: x\n    stop_grace_period: 1y\n", "is a duration"),
            (
                "services:\n  web:\n    build: {context: ., dockerfile_inline: x}\n",
                "`dockerfile_inline` in build is not supported yet",
            ),
            ("srvices: {}\n", ":1:1: unknown key `srvices` in the Compose file; did you mean `services`?"),
        ] {
            let error = load_text(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\nexpected: {expected}");
        }
    }

    #[test]
    fn defaults_and_names() {
        let project =
            load_text("services:\n  web:\n    image: x\n    volumes: ['d:/x', './y:/y:ro']\nvolumes:\n  d:\n").unwrap();
        let web = &project.services["web"];
        assert_eq!(project.container_of(web), "t-web-1");
        assert_eq!(project.networks["default"].name, "t_default");
        assert_eq!(project.volumes["d"].name, "t_d");
        assert!(web.volumes[1].read_only && web.volumes[1].source.as_ref().unwrap().ends_with("/y"));
    }

    #[test]
    fn profiles_leave_services_out() {
        let text = "services:\n  a:\n    image: x\n  b:\n    image: x\n    profiles: [p]\n";
        let project = load_text(text).unwrap();
        assert_eq!(project.services.keys().collect::<Vec<_>>(), ["a"]);
        assert!(project.service("b").is_some());
    }
}
