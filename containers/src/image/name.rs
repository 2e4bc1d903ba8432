//! Image names: the grammar of the distribution project's `reference` package, and the short form that people type.
//!
//! Source: github.com/distribution/reference (its documentation of the grammar).

use crate::error::{Error, Result};
use std::fmt;

/// The registry that a name without one means.
const DEFAULT_DOMAIN: &str = "docker.io";
/// The namespace that a name without one means on the default registry.
const DEFAULT_NAMESPACE: &str = "library/";
/// The longest repository name, its registry included.
const NAME_MAX: usize = 255;

/// A parsed name: `[registry/]path[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Name {
    /// Parses what a person or a client wrote; the errors are Docker's sentences.
    pub fn parse(text: &str) -> Result<Name> {
        let bad = || Error::invalid(format!("invalid reference format: {text:?} is not an image name"));
        if is_hex(text, 64) {
            return Err(Error::invalid(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(bad()),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; one before it belongs to a registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(bad());
        }
        let (domain, path) = match name.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" || has_upper(first) => {
                (first, path.to_owned())
            }
            _ => (DEFAULT_DOMAIN, name.to_owned()),
        };
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        let path = match domain == DEFAULT_DOMAIN && !path.contains('/') {
            true => format!("{DEFAULT_NAMESPACE}{path}"),
            false => path,
        };
        if has_upper(&path) {
            return Err(Error::invalid(format!(
                "invalid reference format: repository name ({path}) must be lowercase"
            )));
        }
        if !is_domain(domain) || !path.split('/').all(is_component) {
            return Err(bad());
        }
        if domain.len() + 1 + path.len() > NAME_MAX {
            return Err(Error::invalid("repository name must not be more than 255 characters"));
        }
        Ok(Name { domain: domain.to_owned(), path, tag, digest })
    }

    /// The registry: `docker.io` where none was written.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's path on its registry: `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag that was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that was written: `sha256:…`.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The repository as people write it: `nginx`, `registry:5000/team/nginx`.
    pub fn repository(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return format!("{}/{}", self.domain, self.path);
        }
        self.path.strip_prefix(DEFAULT_NAMESPACE).filter(|path| !path.contains('/')).unwrap_or(&self.path).to_owned()
    }

    /// `repository:tag`, with `latest` where no tag was written: the form in which the store keeps names.
    pub fn tagged(&self) -> String {
        format!("{}:{}", self.repository(), self.tag.as_deref().unwrap_or("latest"))
    }

    /// `docker.io/library/nginx:tag`: the form that containerd and Podman keep.
    pub fn full(&self) -> String {
        format!("{}/{}:{}", self.domain, self.path, self.tag.as_deref().unwrap_or("latest"))
    }
}

impl fmt::Display for Name {
    /// As written, in the familiar form; `latest` where there is neither a tag nor a digest.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match (&self.tag, &self.digest) {
            (None, Some(digest)) => write!(f, "{}@{digest}", self.repository()),
            (Some(tag), Some(digest)) => write!(f, "{}:{tag}@{digest}", self.repository()),
            _ => f.write_str(&self.tagged()),
        }
    }
}

fn has_upper(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// `sha256:` and 64 hexadecimal digits: the only algorithm in use.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| is_hex(hex, 64))
}

/// The hexadecimal digits of a digest that [`is_digest`] accepted.
pub fn digest_hex(digest: &str) -> Result<&str> {
    match is_digest(digest) {
        true => Ok(&digest["sha256:".len()..]),
        false => {
            Err(Error::invalid(format!("invalid digest {digest:?}: sha256: and 64 hexadecimal digits are needed")))
        }
    }
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    (1..=128).contains(&bytes.len()) && word(bytes[0]) && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

/// `host[:port]`: labels of letters, digits and inner hyphens, or an IPv6 address in brackets.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            let bytes = label.as_bytes();
            let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
            ends(bytes.first())
                && ends(bytes.last())
                && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        }),
    };
    port_fits && host_fits
}

/// One part of a path: lower-case letters and digits, separated by `.`, `_`, `__` or hyphens.
fn is_component(text: &str) -> bool {
    let word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(word) || !bytes.last().is_some_and(word) {
        return false;
    }
    bytes
        .split(word)
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_the_familiar_form() {
        for (written, tagged, full) in [
            ("nginx", "nginx:latest", "docker.io/library/nginx:latest"),
            ("nginx:1.0", "nginx:1.0", "docker.io/library/nginx:1.0"),
            ("docker.io/library/nginx", "nginx:latest", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "nginx:latest", "docker.io/library/nginx:latest"),
            ("team/app_x:v1", "team/app_x:v1", "docker.io/team/app_x:v1"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("r.example:5000/a/b", "r.example:5000/a/b:latest", "r.example:5000/a/b:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("a--b/c__d.e:T-1.x", "a--b/c__d.e:T-1.x", "docker.io/a--b/c__d.e:T-1.x"),
        ] {
            let name = Name::parse(written).unwrap();
            assert_eq!((name.tagged().as_str(), name.full().as_str()), (tagged, full), "{written}");
            assert_eq!(Name::parse(&name.full()).unwrap().tagged(), tagged, "{written}");
        }
        let hex = "a".repeat(64);
        let name = Name::parse(&format!("r.example/x@sha256:{hex}")).unwrap();
        assert_eq!(name.to_string(), format!("r.example/x@sha256:{hex}"));
    }

    #[test]
    fn bad_names_are_refused() {
        let long = format!("a/{}", "b".repeat(250));
        let hex = "a".repeat(64);
        for bad in [
            "",
            ":",
            "a:",
            "a:b:c",
            "A",
            "a/B",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a:.x",
            "a b",
            "a@",
            "a@sha256:12",
            "../x",
            "a/../b",
            "\u{e9}",
            "-r.example/a",
            "r.example:x/a",
            &long,
            &hex,
        ] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Name::parse("Web").unwrap_err().to_string().contains("must be lowercase"));
    }
}
