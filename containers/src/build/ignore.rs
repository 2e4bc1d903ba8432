//! `.dockerignore`: which files of a context the builder must not see.
//!
//! Source: Docker's documentation of `.dockerignore`, and of Go's filepath.Match, whose rules it takes over. The last
//! pattern that fits decides; one that fits a folder decides for all below it.

use regex::bytes::Regex;
use std::{
    fs, io,
    iter::Peekable,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    str::Chars,
};

/// The patterns of a `.dockerignore`, in order.
#[derive(Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    /// `!`: what fits is kept after all.
    keep: bool,
    regex: Regex,
}

impl Ignore {
    /// Reads the file's text; a pattern that is not one is an error that names its line.
    pub fn parse(text: &str) -> Result<Ignore, String> {
        let mut patterns = Vec::new();
        for (number, line) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines()) {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (keep, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            let pattern = clean(pattern);
            if pattern.is_empty() {
                if keep {
                    return Err(format!(".dockerignore:{number}: illegal exclusion pattern: \"!\""));
                }
                continue;
            }
            let regex = translate(&pattern)
                .and_then(|regex| Regex::new(&regex).ok())
                .ok_or_else(|| format!(".dockerignore:{number}: {line:?} is not a valid pattern"))?;
            patterns.push(Pattern { keep, regex });
        }
        Ok(Ignore { patterns })
    }

    /// Whether `path` (relative, clean) is left out.
    pub fn is_ignored(&self, path: &[u8]) -> bool {
        let mut ignored = false;
        for pattern in &self.patterns {
            if pattern.keep == ignored && pattern.fits(path) {
                ignored = !pattern.keep;
            }
        }
        ignored
    }

    /// Removes from `context` what is left out.
    pub fn apply(&self, context: &Path) -> io::Result<()> {
        match self.patterns.is_empty() {
            true => Ok(()),
            false => self.sweep(context, &mut Vec::new()).map(drop),
        }
    }

    /// Sweeps one folder; whether anything is left in it.
    fn sweep(&self, folder: &Path, path: &mut Vec<u8>) -> io::Result<bool> {
        let mut is_left = false;
        for entry in fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()? {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(entry.file_name().as_bytes());
            let ignored = self.is_ignored(path);
            let file: PathBuf = entry.path();
            // A folder that is left out may hold what a later `!` brings back.
            let keep = match entry.file_type()?.is_dir() {
                true => self.sweep(&file, path)? || !ignored,
                false => !ignored,
            };
            match (keep, entry.file_type()?.is_dir()) {
                (true, _) => is_left = true,
                (false, true) => fs::remove_dir(&file)?,
                (false, false) => fs::remove_file(&file)?,
            }
            path.truncate(length);
        }
        Ok(is_left)
    }
}

impl Pattern {
    /// The path itself, or a folder that it is in.
    fn fits(&self, path: &[u8]) -> bool {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        slashes.chain([path.len()]).any(|end| self.regex.is_match(&path[..end]))
    }
}

/// Without `.`, `..`, empty parts and slashes at the ends.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    match parts.is_empty() && !pattern.is_empty() {
        true => ".".into(),
        false => parts.join("/"),
    }
}

/// A pattern as a regular expression; None where it is malformed.
pub fn translate(pattern: &str) -> Option<String> {
    let mut regex = String::from(r"(?s-u)\A");
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '*' if characters.next_if_eq(&'*').is_some() => {
                // `**/` is any number of folders, none included; at the end `**` is everything.
                characters.next_if_eq(&'/');
                regex.push_str(if characters.peek().is_none() { ".*" } else { "(?:.*/)?" });
            }
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("(?u:[^/])"),
            '\\' => literal(&mut regex, characters.next()?),
            '[' => class(&mut regex, &mut characters)?,
            other => literal(&mut regex, other),
        }
    }
    regex.push_str(r"\z");
    Some(regex)
}

/// `[a-z]`, `[^a-z]`; a backslash escapes.
fn class(regex: &mut String, characters: &mut Peekable<Chars>) -> Option<()> {
    regex.push_str("(?u:[");
    if characters.next_if_eq(&'^').is_some() {
        regex.push('^');
    }
    let mut is_empty = true;
    while is_empty || characters.next_if_eq(&']').is_none() {
        is_empty = false;
        let low = member(characters)?;
        let high = match characters.next_if_eq(&'-') {
            Some(_) => member(characters)?,
            None => low,
        };
        regex.push_str(&format!("\\x{{{:x}}}-\\x{{{:x}}}", u32::from(low), u32::from(high)));
    }
    regex.push_str("])");
    Some(())
}

fn member(characters: &mut Peekable<Chars>) -> Option<char> {
    match characters.next()? {
        ']' | '-' => None,
        '\\' => characters.next(),
        other => Some(other),
    }
}

fn literal(regex: &mut String, character: char) {
    regex.push_str("(?u:");
    regex.push_str(&regex::escape(character.encode_utf8(&mut [0; 4])));
    regex.push(')');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_go_has_them() {
        for (patterns, path, ignored) in [
            ("a", "a", true),
            ("a", "a/b/c", true),
            ("a", "b/a", false),
            ("/a/", "a", true),
            ("./a/../b", "b", true),
            ("*.md", "x.md", true),
            ("*.md", "d/x.md", false),
            ("*/x", "d/x", true),
            ("*/x", "d/e/x", false),
            ("**/x", "x", true),
            ("**/x", "d/e/x", true),
            ("d/**", "d/e/f", true),
            ("d/**", "d", false),
            ("d/**/x", "d/x", true),
            ("**", ".git/x", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "ace", false),
            ("a[*]b", "a*b", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a.c", "abc", false),
            ("# a\na", "# a", false),
            ("*\n!keep", "keep/x", false),
            ("*\n!keep", "other", true),
            ("!keep\n*", "keep", true),
            ("d\n!d/x\nd/x/y", "d/x/y", true),
            ("d\n!d/x\nd/x/y", "d/x/z", false),
            ("ü*", "über", true),
        ] {
            let rules = Ignore::parse(patterns).unwrap();
            assert_eq!(rules.is_ignored(path.as_bytes()), ignored, "{patterns:?} and {path}");
        }
        assert!(Ignore::parse("a\n[x").unwrap_err().starts_with(".dockerignore:2:"));
        assert!(Ignore::parse("!").is_err());
    }

    #[test]
    fn a_context_is_swept_and_what_is_brought_back_stays() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["a/b/c", "a/b/d", "e/f", "g"] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink("/", folder.path().join("e/root")).unwrap();
        Ignore::parse("a\n!a/b/c\ne/*\n").unwrap().apply(folder.path()).unwrap();
        let left: Vec<String> = walkdir::WalkDir::new(folder.path())
            .min_depth(1)
            .sort_by_file_name()
            .into_iter()
            .map(|entry| entry.unwrap().path().strip_prefix(folder.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(left, ["a", "a/b", "a/b/c", "e", "g"]);
    }
}
