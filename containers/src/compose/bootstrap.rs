//! Makes Debian's base system from Debian's archive with mmdebstrap, and keeps the finished tar in a cache, under the
//! name of what went into it: the recipe below and the archive's state (the digests of its package lists).

use crate::{
    error::{Context, Error, Result},
    image::digest::{self, Digesting},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Debian's own archive, for hosts that are no Debian.
const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";
/// apt's downloader: it knows the host's proxies and certificates.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";
/// mmdebstrap's hooks for a system whose /usr is merged from the start. With them the package usr-is-merged replaces
/// usrmerge, which would bring the whole of perl (50 MB).
const MERGED_USR: &str = "/usr/share/mmdebstrap/hooks/merged-usr";
/// Documentation that the slim variant leaves out, now and in every later apt-get install.
const DOCUMENTATION: [&str; 8] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/linda/*",
];
/// The stages of mmdebstrap's work that take time.
const STAGES: [&str; 5] = ["running apt", "downloading", "extracting", "installing", "creating"];
/// Run in the finished system ($1). apt keeps no caches that only fill a layer; no package starts a service while an
/// image is built; the host's name and resolver are not the image's.
const HOOK: &str = r#"set -e
cat >"$1/etc/apt/apt.conf.d/90container" <<'END'
Acquire::Languages "none";
Acquire::GzipIndexes "true";
APT::Keep-Downloaded-Packages "false";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
END
printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
chmod 755 "$1/usr/sbin/policy-rc.d"
rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1"/var/cache/apt/*.bin"#;

/// Which base system.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub suite: &'static str,
    pub slim: bool,
}

/// A finished base system; beside the tar as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Base {
    /// What went into it.
    pub key: String,
    /// `sha256:…` and bytes of the tar.
    pub digest: String,
    pub size: u64,
    /// The archive's own date: every file is at most as new.
    pub date: DateTime<Utc>,
    /// apt's source lines.
    pub sources: Vec<String>,
    #[serde(skip)]
    pub path: PathBuf,
}

/// The base system from the cache, or made. Blocking: some 20 s without the cache. `progress` is told what goes on.
pub fn base(recipe: &Recipe, cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<Base> {
    fs::create_dir_all(cache).at("create", cache)?;
    let lock_path = cache.join("lock");
    let lock = File::options().create(true).append(true).open(&lock_path).at("open", &lock_path)?;
    lock.lock().at("lock", &lock_path)?;
    let name = format!("debian-{}{}", recipe.suite, if recipe.slim { "-slim" } else { "" });
    let sources = sources(recipe.suite);
    let state = match archive_state(recipe.suite, &sources) {
        Ok(state) => state,
        Err(error) => {
            let newest = cached(cache, &name)?.into_iter().max_by_key(|base| base.date);
            let base = newest.filter(is_whole).ok_or(error)?;
            progress(&format!("Debian's archive does not answer: using the base system of {}", base.date.date_naive()));
            return Ok(base);
        }
    };
    let arguments = arguments(recipe, &sources);
    let key =
        digest::of(format!("{}\n{}", arguments.join("\n"), state.lists).as_bytes())["sha256:".len()..][..16].to_owned();
    let known = cached(cache, &name)?;
    if let Some(base) = known.iter().find(|base| base.key == key) {
        if is_whole(base) {
            progress(&format!("base system from the cache ({})", base.path.display()));
            return Ok(base.clone());
        }
        progress(&format!("the cached base system {} is damaged: it is made again", base.path.display()));
    }
    progress(&format!("making Debian {} with mmdebstrap from {}", recipe.suite, sources[0]));
    let path = cache.join(format!("{name}-{key}.tar"));
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").suffix(".tar").tempfile_in(cache);
    let unfinished = unfinished.at("create a file in", cache)?.into_temp_path();
    run(&arguments, &unfinished, state.date, progress)?;
    let mut file = Digesting::new(File::open(&unfinished).at("open", &unfinished)?);
    io::copy(&mut file, &mut io::sink()).at("read", &unfinished)?;
    let (file, digest, size) = file.finish();
    file.sync_all().at("sync", &unfinished)?;
    let base = Base { key, digest, size, date: state.date, sources, path: path.clone() };
    unfinished.persist(&path).map_err(|error| error.error).at("store", &path)?;
    let notes = serde_json::to_vec_pretty(&base).map_err(|error| Error::Failed(error.to_string()))?;
    // Written last: a tar without its notes is none.
    let notes_path = path.with_extension("json");
    let mut notes_file = tempfile::NamedTempFile::new_in(cache).at("create a file in", cache)?;
    io::Write::write_all(&mut notes_file, &notes).at("write", &notes_path)?;
    notes_file.persist(&notes_path).map_err(|error| error.error).at("store", &notes_path)?;
    for old in known.iter().filter(|old| old.path != base.path) {
        // Outdated; when it can't be removed it only takes room.
        let _ = fs::remove_file(&old.path);
        let _ = fs::remove_file(old.path.with_extension("json"));
    }
    Ok(base)
}

/// The folder of the cache: `$XDG_CACHE_HOME/inception`, for root else /var/cache/inception.
pub fn cache_folder() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(folder) = variable("XDG_CACHE_HOME") {
        return Ok(folder.join("inception"));
    }
    if nix::unistd::Uid::effective().is_root() {
        return Ok("/var/cache/inception".into());
    }
    let home = variable("HOME").ok_or_else(|| Error::Failed("no folder for the cache: set XDG_CACHE_HOME".into()))?;
    Ok(home.join(".cache/inception"))
}

/// The finished base systems of one name.
fn cached(cache: &Path, name: &str) -> Result<Vec<Base>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(cache).at("list", cache)? {
        let path = entry.at("list", cache)?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_none_or(|extension| extension != "json") || !stem.starts_with(&format!("{name}-")) {
            continue;
        }
        let Ok(text) = fs::read(&path) else { continue };
        match serde_json::from_slice::<Base>(&text) {
            Ok(base) if stem == format!("{name}-{}", base.key) => {
                found.push(Base { path: path.with_extension("tar"), ..base });
            }
            _ => log::warn!("{} is not a description of a base system", path.display()),
        }
    }
    Ok(found)
}

/// Whether the tar is what its notes say.
fn is_whole(base: &Base) -> bool {
    let Ok(file) = File::open(&base.path) else { return false };
    let mut file = Digesting::new(file);
    if io::copy(&mut file, &mut io::sink()).is_err() {
        return false;
    }
    let (_, digest, size) = file.finish();
    (digest, size) == (base.digest.clone(), base.size)
}

/// What mmdebstrap is told, but for the output's name.
fn arguments(recipe: &Recipe, sources: &[String]) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["--variant=apt", "--components=main", "--format=tar", "--skip=output/dev", "--include=usr-is-merged"]
            .map(String::from)
            .into();
    arguments.push(format!("--hook-dir={MERGED_USR}"));
    arguments.push("--dpkgopt=force-unsafe-io".into());
    if recipe.slim {
        arguments.extend(DOCUMENTATION.map(|option| format!("--dpkgopt={option}")));
    }
    arguments.push(format!("--customize-hook={HOOK}"));
    arguments.push(recipe.suite.into());
    arguments.extend(sources.iter().cloned());
    arguments
}

/// Runs mmdebstrap; its stages go to `progress`, its last words into the error.
fn run(arguments: &[String], output: &Path, date: DateTime<Utc>, progress: &mut dyn FnMut(&str)) -> Result<()> {
    // SUITE TARGET MIRROR…: the target stands between the suite and the source lines.
    let suite = arguments.iter().position(|argument| !argument.starts_with("--")).unwrap_or(arguments.len());
    let child = Command::new("mmdebstrap")
        .args(&arguments[..=suite])
        .arg(output)
        .args(&arguments[suite + 1..])
        .env("SOURCE_DATE_EPOCH", date.timestamp().to_string())
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Failed(
                "a Debian base system can't be made, because mmdebstrap is missing: install the package mmdebstrap (on Debian and Ubuntu: apt-get install mmdebstrap), or bring the image with docker load".into(),
            ));
        }
        Err(error) => return Err(error).doing("start mmdebstrap"),
    };
    let mut last: Vec<String> = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line.doing("read mmdebstrap's output")?;
            let line = String::from_utf8_lossy(&line).trim_end().rsplit('\r').next().unwrap_or_default().to_owned();
            match line.strip_prefix("I: ") {
                Some(stage) if STAGES.iter().any(|word| stage.starts_with(word)) => progress(&format!("  {stage}")),
                Some(_) => {}
                None if line.is_empty() || line.starts_with("done") => {}
                None => {
                    last.push(line);
                    if last.len() > 20 {
                        last.remove(0);
                    }
                }
            }
        }
    }
    let status = child.wait().doing("wait for mmdebstrap")?;
    match status.success() {
        true => Ok(()),
        false => {
            Err(Error::Program { program: "mmdebstrap".into(), status: status.to_string(), output: last.join("\n") })
        }
    }
}

/// What the archive has just now.
struct State {
    /// The digests of its package lists.
    lists: String,
    /// When the newest of its suites was written.
    date: DateTime<Utc>,
}

/// Asks the archive for its release files. They only choose the cache's entry: apt verifies the signatures later.
fn archive_state(suite: &str, sources: &[String]) -> Result<State> {
    if !Path::new(APT_HELPER).exists() {
        return Err(Error::Failed(
            "a Debian base system is made with apt and mmdebstrap, which are not here: install the package mmdebstrap, or bring the image with docker load".into(),
        ));
    }
    let folder = tempfile::tempdir().doing("create a temporary folder")?;
    let architecture = crate::image::architecture();
    let (mut lists, mut newest) = (String::new(), None);
    for source in sources {
        let mut words = source.split_whitespace().skip(1);
        let (Some(mirror), Some(dist)) = (words.next(), words.next()) else { continue };
        let path = folder.path().join(dist);
        let url = format!("{}/dists/{dist}/InRelease", mirror.trim_end_matches('/'));
        let output = Command::new(APT_HELPER)
            .args(["-o", "Acquire::http::Timeout=10", "-o", "Acquire::https::Timeout=10", "-o", "Acquire::Retries=1"])
            .arg("download-file")
            .arg(&url)
            .arg(&path)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .doing("start apt-helper")?;
        let text = fs::read_to_string(&path).unwrap_or_default();
        if !output.status.success() || text.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().find(|line| line.starts_with("E:")).unwrap_or("no answer").to_owned();
            return Err(Error::Failed(format!("Debian {suite} can't be fetched from {url}: {said}")));
        }
        let wanted = format!("main/binary-{architecture}/Packages");
        for line in text.lines().filter(|line| line.split_whitespace().nth(2).is_some_and(|file| file == wanted)) {
            lists.push_str(line);
            lists.push('\n');
        }
        let date = text.lines().find_map(|line| line.strip_prefix("Date: "));
        let date = date.and_then(|date| DateTime::parse_from_rfc2822(&date.replace("UTC", "+0000")).ok());
        newest = newest.max(date.map(|date| date.to_utc()));
    }
    match newest {
        Some(date) if !lists.is_empty() => Ok(State { lists, date }),
        _ => Err(Error::Failed(format!("the release files of Debian {suite} name no packages for {architecture}"))),
    }
}

/// apt's source lines for a suite, its updates and its security fixes: from the host's own mirrors, where it is Debian
/// and has them.
fn sources(suite: &str) -> Vec<String> {
    let mut entries = Vec::new();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if release.lines().any(|line| line.trim() == "ID=debian") {
        entries.extend(one_line(&fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()));
        let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten();
        let mut paths: Vec<PathBuf> = folder.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort_unstable();
        for path in paths {
            let text = fs::read_to_string(&path).unwrap_or_default();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("list") => entries.extend(one_line(&text)),
                Some("sources") => entries.extend(stanzas(&text)),
                _ => {}
            }
        }
    }
    [(suite.to_owned(), MIRROR), (format!("{suite}-updates"), MIRROR), (format!("{suite}-security"), SECURITY)]
        .into_iter()
        .map(|(dist, usual)| {
            let own = entries.iter().find(|(_, known)| *known == dist).map_or(usual, |(mirror, _)| mirror);
            format!("deb {own} {dist} main")
        })
        .collect()
}

/// Mirror and suite of the lines of a sources.list that have the component main.
fn one_line(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb ") else { continue };
        let rest = rest.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let mut words = rest.split_whitespace();
        if let (Some(mirror), Some(dist), true) = (words.next(), words.next(), words.any(|word| word == "main")) {
            found.extend(usable(mirror, dist));
        }
    }
    found
}

/// The same of a deb822 file.
fn stanzas(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let text: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    for stanza in text.split("\n\n") {
        let field = |name: &str| -> Vec<&str> {
            let mut lines = stanza
                .lines()
                .skip_while(|line| !line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name)));
            let first = lines.next().and_then(|line| line.split_once(':')).map(|(_, value)| value);
            let more = lines.take_while(|line| line.starts_with([' ', '\t']));
            first.into_iter().chain(more).flat_map(str::split_whitespace).collect()
        };
        let off = field("Enabled").first().is_some_and(|word| word.eq_ignore_ascii_case("no"));
        if off || !field("Types").contains(&"deb") || !field("Components").contains(&"main") {
            continue;
        }
        for mirror in field("URIs") {
            for dist in field("Suites") {
                found.extend(usable(mirror, dist));
            }
        }
    }
    found
}

/// A container reaches what http reaches, and no disc or folder of the host.
fn usable(mirror: &str, dist: &str) -> Option<(String, String)> {
    let fits = mirror.starts_with("http://") || mirror.starts_with("https://");
    fits.then(|| (mirror.to_owned(), dist.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirrors_of_both_formats_are_read() {
        let pair = |mirror: &str, dist: &str| (mirror.to_owned(), dist.to_owned());
        assert_eq!(
            one_line(
                "# deb http://no bookworm main\ndeb [arch=amd64 signed-by=/x] http://m/debian bookworm contrib main # x\n\
                 deb cdrom:[x] bookworm main\ndeb-src http://m/debian bookworm main\ndeb http://n/ bookworm contrib\n"
            ),
            [pair("http://m/debian", "bookworm")]
        );
        let text = "Types: deb deb-src\n# note\nURIs: http://a/debian\n  http://b/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main\n\nTypes: deb\nURIs: http://c\nSuites: bookworm\nComponents: main\nEnabled: no\n";
        let found = stanzas(text);
        assert_eq!(found[0], pair("http://a/debian", "bookworm"));
        assert_eq!(found.len(), 4);
        assert!(found.iter().all(|(mirror, _)| mirror != "http://c"));
    }

    #[test]
    fn a_half_written_cache_entry_is_noticed() {
        let cache = tempfile::tempdir().unwrap();
        let path = cache.path().join("debian-x-abc.tar");
        fs::write(&path, "content").unwrap();
        let base = Base {
            key: "abc".into(),
            digest: digest::of(b"content"),
            size: 7,
            date: Utc::now(),
            sources: Vec::new(),
            path: path.clone(),
        };
        fs::write(path.with_extension("json"), serde_json::to_vec(&base).unwrap()).unwrap();
        let found = cached(cache.path(), "debian-x").unwrap();
        assert!(is_whole(&found[0]));
        fs::write(&path, "conten").unwrap();
        assert!(!is_whole(&found[0]));
        fs::remove_file(&path).unwrap();
        assert!(!is_whole(&found[0]));
        assert!(cached(cache.path(), "debian-y").unwrap().is_empty());
    }
}
