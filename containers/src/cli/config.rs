//! `inception config`.

use super::{Globals, output, project};
use crate::error::{Error, Result};
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;

/// Check the Compose file, and print it with every file merged and every variable replaced. Secrets are shown by their
/// path alone.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "config", example = "inception config\ninception config --quiet && echo fine")]
pub struct Config {
    /// only check
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// JSON instead of YAML
    #[argh(switch)]
    json: bool,
    /// only the services' names
    #[argh(switch)]
    services: bool,
}

impl Config {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        let project = project::load(globals)?;
        if self.quiet {
            return Ok(0);
        }
        if self.services {
            let names: String = project.services.keys().map(|name| format!("{name}\n")).collect();
            output::print(&names)?;
            return Ok(0);
        }
        let value =
            serde_json::to_value(&project).map_err(|error| Error::Failed(format!("print the project: {error}")))?;
        let value = prune(value).unwrap_or(Value::Null);
        match self.json {
            true => output::json(&value)?,
            false => {
                let mut text = String::new();
                yaml(&value, 0, &mut text);
                output::print(&text)?;
            }
        }
        Ok(0)
    }
}

/// Without what says nothing.
fn prune(value: Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Object(entries) => {
            let entries: serde_json::Map<_, _> = entries
                .into_iter()
                .map(|(key, value)| (key, prune(value).unwrap_or(Value::Null)))
                .filter(|(key, value)| !value.is_null() || key == "default")
                .collect();
            (!entries.is_empty()).then_some(Value::Object(entries))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(prune).collect())),
        other => Some(other),
    }
}

/// YAML with JSON's strings, which are YAML too.
fn yaml(value: &Value, depth: usize, out: &mut String) {
    let margin = "  ".repeat(depth);
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte));
                let key = if plain { key.clone() } else { Value::from(key.as_str()).to_string() };
                match value {
                    Value::Object(_) | Value::Array(_) => {
                        out.push_str(&format!("{margin}{key}:\n"));
                        yaml(value, depth + 1, out);
                    }
                    Value::Null => out.push_str(&format!("{margin}{key}:\n")),
                    // A dollar in the result is one, and no variable.
                    value => out.push_str(&format!("{margin}{key}: {}\n", value.to_string().replace('$', "$$"))),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(_) | Value::Array(_) => {
                        let mut inner = String::new();
                        yaml(item, depth + 1, &mut inner);
                        out.push_str(&format!("{margin}- {}", inner.trim_start()));
                    }
                    item => out.push_str(&format!("{margin}- {}\n", item.to_string().replace('$', "$$"))),
                }
            }
        }
        other => out.push_str(&format!("{margin}{other}\n")),
    }
}
