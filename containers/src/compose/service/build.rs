//! What a service is built from, and its environment: the parts that read the shell's variables.

use super::{Reader, absolute};
use crate::{
    compose::{
        dotenv,
        model::Build,
        values,
        yaml::{Node, Value, check_keys},
    },
    error::Result,
};
use std::{collections::BTreeMap, path::PathBuf};

impl Reader<'_> {
    pub(super) fn build(&self, node: &Node) -> Result<Build> {
        if let Value::Scalar { text, .. } = &node.value {
            return Ok(Build { context: self.context(node, text)?, ..Build::default() });
        }
        check_keys(
            node,
            "build",
            &[
                "args",
                "context",
                "dockerfile",
                "extra_hosts",
                "labels",
                "network",
                "no_cache",
                "pull",
                "tags",
                "target",
            ],
            &[
                "additional_contexts",
                "cache_from",
                "cache_to",
                "dockerfile_inline",
                "entitlements",
                "isolation",
                "platforms",
                "privileged",
                "provenance",
                "sbom",
                "secrets",
                "shm_size",
                "ssh",
                "ulimits",
            ],
        )?;
        let text = |key: &str| node.get(key).map(|value| value.string(key)).transpose();
        let args = values::pairs(node.get("args"), "args")?;
        Ok(Build {
            context: self.context(node.get("context").unwrap_or(node), &text("context")?.unwrap_or(".".into()))?,
            dockerfile: text("dockerfile")?,
            // An argument without a value is the shell's; without one there, the Dockerfile's default counts.
            args: args
                .into_iter()
                .filter_map(|(key, value)| Some((value.or_else(|| (self.lookup)(&key))?, key)))
                .map(|(value, key)| (key, value))
                .collect(),
            target: text("target")?,
            labels: values::labels(node.get("labels"), "labels")?,
            network: text("network")?,
            extra_hosts: values::hosts(node.get("extra_hosts"), "extra_hosts")?,
            tags: values::strings(node.get("tags"), "tags")?,
            no_cache: node.get("no_cache").map(|value| value.boolean("no_cache")).transpose()?.unwrap_or_default(),
            pull: node.get("pull").map(|value| value.boolean("pull")).transpose()?.unwrap_or_default(),
        })
    }

    fn context(&self, at: &Node, text: &str) -> Result<PathBuf> {
        match text.contains("://") || text.starts_with("git@") {
            true => Err(at.error("a build context by URL is not supported yet: clone it, and give the folder")),
            false => Ok(absolute(self.directory, text)),
        }
    }

    /// `env_file` first, `environment` over it.
    pub(super) fn environment(&self, node: &Node) -> Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        if let Some(files) = node.get("env_file") {
            let files = match &files.value {
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(files),
            };
            for file in files {
                let (path, required) = match &file.value {
                    Value::Map(_) => {
                        check_keys(file, "env_file", &["path", "required"], &["format"])?;
                        let required = file.get("required").map(|value| value.boolean("required")).transpose()?;
                        let path = file.get("path").ok_or_else(|| file.error("env_file needs a `path`"))?;
                        (path.string("path")?, required.unwrap_or(true))
                    }
                    _ => (file.string("env_file")?, true),
                };
                let path = absolute(self.directory, &path);
                match std::fs::read_to_string(&path) {
                    Ok(text) => found.extend(dotenv::parse(&path.display().to_string(), &text, self.lookup)?),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {}
                    Err(error) => return Err(file.error(format!("read {}: {error}", path.display()))),
                }
            }
        }
        for (key, value) in values::pairs(node.get("environment"), "environment")? {
            match value.or_else(|| (self.lookup)(&key)) {
                Some(value) => found.insert(key, value),
                None => found.remove(&key),
            };
        }
        Ok(found)
    }
}
