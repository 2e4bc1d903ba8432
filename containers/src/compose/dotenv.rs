//! `.env` and `env_file`: NAME=VALUE, a line each.

use super::interpolate::interpolate;
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Reads the text of a file. Values may be in single quotes (as they are) or double quotes (with `\n` and such);
/// unquoted and double-quoted ones have their variables replaced, by earlier lines and by `lookup`, which wins.
pub fn parse(name: &str, text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    while let Some((at, line)) = lines.next() {
        // The line itself may hold a password: only its number is told.
        let wrong = |message: &str| Error::Invalid(format!("{name}:{}: {message}", at + 1));
        let line = line.trim();
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            if let Some(value) = lookup(line) {
                found.insert(line.to_owned(), value);
                continue;
            }
            match line.contains(char::is_whitespace) {
                true => return Err(wrong("a line is NAME=VALUE or a comment with #")),
                false => continue,
            }
        };
        let (key, value) = (key.trim_end(), value.trim_start());
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(wrong("the name before `=` is empty or has a space in it"));
        }
        let quote = value.chars().next().filter(|letter| matches!(letter, '"' | '\''));
        let (raw, expand) = match quote {
            Some(quote) => {
                let mut body = value[1..].to_owned();
                let end = loop {
                    match closing(&body, quote) {
                        Some(end) => break end,
                        None => match lines.next() {
                            Some((_, more)) => {
                                body.push('\n');
                                body.push_str(more);
                            }
                            None => return Err(wrong("a quotation mark is never closed")),
                        },
                    }
                };
                let rest = body[end + 1..].trim();
                if !rest.is_empty() && !rest.starts_with('#') {
                    return Err(wrong("something follows the closing quotation mark"));
                }
                body.truncate(end);
                (if quote == '"' { unescape(&body) } else { body }, quote == '"')
            }
            None => (value.split_once(" #").map_or(value, |(value, _)| value).trim_end().to_owned(), true),
        };
        let value = match expand && raw.contains('$') {
            true => interpolate(&raw, &|name| lookup(name).or_else(|| found.get(name).cloned()), &mut |_| ())
                .map_err(|message| wrong(&message))?,
            false => raw,
        };
        found.insert(key.to_owned(), value);
    }
    Ok(found)
}

fn closing(body: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    body.char_indices().find_map(|(at, letter)| {
        if escaped {
            escaped = false;
        } else if letter == '\\' && quote == '"' {
            escaped = true;
        } else if letter == quote {
            return Some(at);
        }
        None
    })
}

fn unescape(body: &str) -> String {
    let mut out = String::with_capacity(body.len());
    let mut letters = body.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, true) => match letters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('$') => out.push_str("$$"),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn values_in_every_form() {
        let text = "# c\nA=1\nexport B = two # c\nC='$A # x'\nD=\"$A\\n${Z:-z}\"\nE=\nF=\"a\nb\"\nSHELL_ONLY\nG=a#b\nH=\"\\$A\"\n";
        let found = parse(".env", text, &|name| (name == "SHELL_ONLY").then(|| "s".to_owned())).unwrap();
        let expected = [
            ("A", "1"),
            ("B", "two"),
            ("C", "$A # x"),
            ("D", "1\nz"),
            ("E", ""),
            ("F", "a\nb"),
            ("G", "a#b"),
            ("H", "$A"),
            ("SHELL_ONLY", "s"),
        ];
        assert_eq!(found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn faults_are_told_by_line_and_never_by_value() {
        for (text, line) in [("A=1\nB='hunter2\n", ".env:2:"), ("a b\n", ".env:1:"), ("=hunter2\n", ".env:1:")] {
            let error = parse(".env", text, &|_| None).unwrap_err().to_string();
            assert!(error.starts_with(line) && !error.contains("hunter2"), "{error}");
        }
    }
}
