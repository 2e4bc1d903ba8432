//! Builds a project's images by `POST /build`, which every engine has: contexts are packed here, `.dockerignore`
//! applied, and base images are seen to first.

use super::{
    base,
    client::{Progress, failed},
    interpolate::interpolate,
    model::{Build, Project, Service},
};
use crate::{
    api::stream,
    build::ignore::Ignore,
    error::{Context, Error, Result},
};
use bollard::{
    Docker,
    query_parameters::{BuildImageOptionsBuilder, TagImageOptionsBuilder},
};
use futures_util::{StreamExt, future::try_join_all};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
};
use tokio::task::spawn_blocking;

/// Says what is not as usual about builds.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub no_cache: bool,
    pub pull: bool,
    pub quiet: bool,
    /// Over the file's own.
    pub args: BTreeMap<String, String>,
}

/// Builds the images of `services`, side by side but for those that are built from one another.
pub async fn build(
    docker: &Docker,
    project: &Project,
    services: &[&Service],
    options: &Options,
    progress: &Progress,
) -> Result<()> {
    let mut jobs: BTreeMap<String, (&Service, &Build, BTreeSet<String>)> = BTreeMap::new();
    for service in services {
        if let Some(build) = &service.build {
            let image = project.image_of(service);
            jobs.insert(image, (service, build, references(build, &options.args)?));
        }
    }
    let own: BTreeSet<String> = jobs.keys().cloned().collect();
    let outside: BTreeSet<String> =
        jobs.values().flat_map(|(.., from)| from).filter(|name| !own.contains(*name)).cloned().collect();
    for reference in outside {
        let task = progress.task(format!("Image {reference}"));
        let tell = |line: &str| task.doing(line);
        match reference.starts_with("inception-init:") {
            true => drop(base::ensure_init(docker, &tell).await?),
            false => base::ensure(docker, &reference, &tell).await?,
        }
    }
    while !jobs.is_empty() {
        let waiting: BTreeSet<String> = jobs.keys().cloned().collect();
        let ready: Vec<String> =
            jobs.iter().filter(|(_, (.., from))| from.is_disjoint(&waiting)).map(|(image, _)| image.clone()).collect();
        if ready.is_empty() {
            let names: Vec<&str> = waiting.iter().map(String::as_str).collect();
            return Err(Error::invalid(format!("these images are built from one another: {}", names.join(", "))));
        }
        let batch: Vec<_> = ready.into_iter().filter_map(|image| Some((image.clone(), jobs.remove(&image)?))).collect();
        try_join_all(
            batch.iter().map(|(image, (service, build, _))| one(docker, service, image, build, options, progress)),
        )
        .await?;
    }
    Ok(())
}

/// The images that a Dockerfile names in FROM and `COPY --from`, its stages left out.
fn references(build: &Build, more: &BTreeMap<String, String>) -> Result<BTreeSet<String>> {
    let path = build.context.join(build.dockerfile.as_deref().unwrap_or("Dockerfile"));
    if !build.context.is_dir() {
        return Err(Error::invalid(format!("the build context {} is no folder", build.context.display())));
    }
    let text = fs::read_to_string(&path).at("read the Dockerfile", &path)?;
    Ok(references_in(&text, &|name| more.get(name).or_else(|| build.args.get(name)).cloned()))
}

fn references_in(text: &str, argument: &dyn Fn(&str) -> Option<String>) -> BTreeSet<String> {
    let (mut args, mut stages, mut found) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let joined = text.replace("\\\n", " ");
    for line in joined.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        let expand = |text: &str| interpolate(text, &|name| args.get(name).cloned(), &mut |_| ());
        match keyword.as_str() {
            "ARG" if stages.is_empty() && found.is_empty() => {
                for word in words {
                    let (name, default) = word.split_once('=').unwrap_or((word, ""));
                    let default = default.trim_matches(['"', '\'']).to_owned();
                    args.insert(name.to_owned(), argument(name).unwrap_or(default));
                }
            }
            "FROM" => {
                let mut words = words.filter(|word| !word.starts_with("--"));
                // What can't be read here is the engine's to complain about, with its line.
                let Some(Ok(image)) = words.next().map(expand) else { continue };
                if !image.is_empty() && image != "scratch" && !stages.contains(&image.to_lowercase()) {
                    found.insert(image);
                }
                if let (Some(_), Some(name)) = (words.next(), words.next()) {
                    stages.insert(name.to_lowercase());
                }
            }
            "COPY" => {
                for source in words.filter_map(|word| word.strip_prefix("--from=")) {
                    let is_stage = source.parse::<usize>().is_ok() || stages.contains(&source.to_lowercase());
                    if !is_stage && !source.contains('$') {
                        found.insert(source.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    found
}

async fn one(
    docker: &Docker,
    service: &Service,
    image: &str,
    build: &Build,
    options: &Options,
    progress: &Progress,
) -> Result<()> {
    let task = progress.task(format!("Image {image}"));
    task.doing("packing the context");
    let strings = |map: &BTreeMap<String, String>| -> HashMap<String, String> { map.clone().into_iter().collect() };
    let mut args = build.args.clone();
    args.extend(options.args.clone());
    let dockerfile = build.dockerfile.clone().unwrap_or_else(|| "Dockerfile".into());
    let mut query = BuildImageOptionsBuilder::new()
        .dockerfile(&dockerfile)
        .t(image)
        .rm(true)
        .forcerm(true)
        .nocache(build.no_cache || options.no_cache)
        .buildargs(&strings(&args))
        .labels(&strings(&build.labels));
    if build.pull || options.pull {
        query = query.pull("1");
    }
    if let Some(target) = &build.target {
        query = query.target(target);
    }
    if let Some(network) = &build.network {
        query = query.networkmode(network);
    }
    if !build.extra_hosts.is_empty() {
        query = query.extrahosts(&build.extra_hosts.join(","));
    }
    let (mut writer, body) = stream::pipe();
    let (context, file) = (build.context.clone(), dockerfile.clone());
    let packing = spawn_blocking(move || {
        let packed = pack(&context, &file, &mut writer);
        let fault = packed.as_ref().err().map(ToString::to_string);
        writer.finish(packed);
        fault
    });
    let mut answers = std::pin::pin!(docker.build_image(query.build(), None, Some(bollard::body_try_stream(body))));
    let mut result = Ok(());
    let mut last: Vec<String> = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(info) => {
                if let Some(fault) = info.error_detail.and_then(|detail| detail.message) {
                    result = Err(Error::Failed(fault));
                }
                for line in info.stream.iter().chain(&info.status).flat_map(|text| text.lines()) {
                    let line = line.trim_end();
                    if line.is_empty() {
                        continue;
                    }
                    if last.len() == 20 {
                        last.remove(0);
                    }
                    last.push(line.to_owned());
                    if line.starts_with("Step ") && !options.quiet {
                        task.line(line);
                    }
                    task.doing(line);
                }
            }
            // The first error says the most.
            Err(error) if result.is_ok() => result = Err(failed("build")(error)),
            Err(_) => {}
        }
    }
    let fault = packing.await.map_err(|error| Error::Failed(format!("pack the context: {error}")))?;
    match (result, fault) {
        (Err(error), _) => {
            let place = build.context.join(&dockerfile);
            let text = error.to_string();
            let text = text.strip_prefix("build: ").unwrap_or(&text);
            // An engine that shows the output itself has it in its message.
            let output: String = match text.contains('\n') {
                true => String::new(),
                false => last.iter().map(|line| format!("\n  | {line}")).collect(),
            };
            return Err(Error::Failed(format!("build service {} ({}): {text}{output}", service.name, place.display())));
        }
        (Ok(()), Some(fault)) => return Err(Error::Failed(format!("build service {}: {fault}", service.name))),
        (Ok(()), None) => {}
    }
    for tag in &build.tags {
        let (repo, tag) = tag.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((tag, "latest"));
        let query = TagImageOptionsBuilder::new().repo(repo).tag(tag).build();
        docker.tag_image(image, Some(query)).await.map_err(failed(format!("tag {image}")))?;
    }
    task.done("Built");
    Ok(())
}

/// Writes the context as a tar. What the Dockerfile and `.dockerignore` say is sent whatever is ignored.
fn pack(context: &Path, dockerfile: &str, out: &mut impl std::io::Write) -> Result<()> {
    if Path::new(dockerfile).is_absolute() || dockerfile.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!(
            "the Dockerfile {dockerfile} must lie in the context {}",
            context.display()
        )));
    }
    let ignore = match fs::read_to_string(context.join(".dockerignore")) {
        Ok(text) => Ignore::parse(&text).map_err(Error::Invalid)?,
        Err(_) => Ignore::default(),
    };
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    for entry in walkdir::WalkDir::new(context).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(|error| Error::Failed(format!("read the build context: {error}")))?;
        let path = entry.path();
        let relative = path.strip_prefix(context).unwrap_or(path);
        let is_needed =
            relative == Path::new(dockerfile.trim_start_matches("./")) || relative == Path::new(".dockerignore");
        if !is_needed && ignore.is_ignored(relative.as_os_str().as_bytes()) {
            continue;
        }
        let kind = entry.file_type();
        if kind.is_file() || kind.is_dir() || kind.is_symlink() {
            archive.append_path_with_name(path, relative).at("pack", path)?;
        }
    }
    archive.finish().doing("pack the build context")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_images_are_found_and_stages_are_not() {
        let text = "ARG BASE=debian:bookworm-slim\n# FROM no\nFROM $BASE AS build\nFROM build AS x\nFROM scratch\n\
                    COPY --from=build a b\nCOPY --from=inception-init:0.1.0 /inception-init /\nCOPY --from=0 a b\n";
        let found = references_in(text, &|_| None);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["debian:bookworm-slim", "inception-init:0.1.0"]);
        let found = references_in(text, &|name| (name == "BASE").then(|| "other:1".to_owned()));
        assert!(found.contains("other:1"));
    }

    #[test]
    fn a_context_is_packed_without_what_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["Dockerfile", ".dockerignore", "keep", "drop"] {
            fs::write(folder.path().join(name), "drop\nDockerfile\n").unwrap();
        }
        let mut out = Vec::new();
        pack(folder.path(), "Dockerfile", &mut out).unwrap();
        let mut archive = tar::Archive::new(&out[..]);
        let names: Vec<_> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, [".dockerignore", "Dockerfile", "keep"]);
        assert!(pack(folder.path(), "../Dockerfile", &mut Vec::new()).is_err());
    }
}
