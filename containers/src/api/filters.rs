//! The `filters` parameter of lists: JSON, by name the values that are asked for.

use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};

/// Filters by name. An empty set lets everything pass.
#[derive(Debug, Clone, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads `{"name": ["value"]}`, and the form of old clients, `{"name": {"value": true}}`. A name that is not in
    /// `known` is refused, in Docker's words.
    pub fn parse(text: Option<&str>, known: &[&str]) -> Result<Filters> {
        let text = text.unwrap_or_default();
        if text.is_empty() {
            return Ok(Filters::default());
        }
        let filters = match serde_json::from_str::<BTreeMap<String, Vec<String>>>(text) {
            Ok(lists) => lists,
            Err(_) => serde_json::from_str::<BTreeMap<String, BTreeMap<String, bool>>>(text)
                .map_err(|error| Error::invalid(format!("invalid filters {text:?}: {error}")))?
                .into_iter()
                .map(|(name, values)| {
                    (name, values.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect())
                })
                .collect(),
        };
        match filters.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::invalid(format!("invalid filter '{name}'"))),
            None => Ok(Filters(filters)),
        }
    }

    /// The values asked for under a name.
    pub fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether one of the values under `name` is accepted, or none is asked for.
    pub fn any(&self, name: &str, accept: impl Fn(&str) -> bool) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(|value| accept(value))
    }

    /// A yes-or-no filter.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.values(name) {
            [] => Ok(None),
            [value] if ["true", "1"].contains(&value.as_str()) => Ok(Some(true)),
            [value] if ["false", "0"].contains(&value.as_str()) => Ok(Some(false)),
            values => Err(Error::invalid(format!("invalid filter '{name}={values:?}'"))),
        }
    }

    /// Whether `labels` has every label asked for under `label` (`key` or `key=value`), and none under `label!`.
    pub fn labels(&self, labels: &HashMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|it| it == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(has) && !self.values("label!").iter().any(has)
    }
}

/// Whether `text` matches a shell pattern as Go's path.Match has it: `*` and `?` stop at slashes, `[a-z]` is a set.
pub fn glob(pattern: &str, text: &str) -> Result<bool> {
    let mut expression = String::from("^");
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '[' => {
                expression.push('[');
                for inner in characters.by_ref() {
                    match inner {
                        ']' => break,
                        '[' | '&' | '~' => expression.extend(['\\', inner]),
                        _ => expression.push(inner),
                    }
                }
                expression.push(']');
            }
            '\\' => expression.push_str(&regex::escape(&characters.next().unwrap_or('\\').to_string())),
            _ => expression.push_str(&regex::escape(&character.to_string())),
        }
    }
    expression.push('$');
    let expression = regex::Regex::new(&expression).map_err(|_| Error::invalid(format!("bad pattern {pattern:?}")))?;
    Ok(expression.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_filters_are_read() {
        for text in [r#"{"label":["a=b","c"]}"#, r#"{"label":{"a=b":true,"c":true,"d":false}}"#] {
            let filters = Filters::parse(Some(text), &["label"]).unwrap();
            assert_eq!(filters.values("label"), ["a=b", "c"]);
            let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            assert!(filters.labels(&labels(&[("a", "b"), ("c", "")])));
            assert!(!filters.labels(&labels(&[("a", "x"), ("c", "")])));
        }
        assert!(Filters::parse(Some(r#"{"nope":["x"]}"#), &["label"]).is_err());
        assert!(Filters::parse(Some("[]"), &["label"]).is_err());
    }

    #[test]
    fn patterns_stop_at_slashes() {
        for (pattern, text, fits) in [
            ("nginx*", "nginx:1", true),
            ("*", "a/b", false),
            ("*/b", "a/b", true),
            ("n?inx", "nginx", true),
            ("[m-o]ginx", "nginx", true),
            ("a.c", "abc", false),
        ] {
            assert_eq!(glob(pattern, text).unwrap(), fits, "{pattern} {text}");
        }
    }
}
