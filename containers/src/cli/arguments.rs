//! What argh does not take and users type all the same: `-it`, `--tail=5`, `-p8080:80`.

use crate::error::{Error, Result};
use std::ffi::OsString;

/// Options that stand alone; every other one-letter option takes a value, written against it or after it.
const FLAGS: &str = "aditqfDhPlV";

/// Commands whose arguments after the first positional belong to a program and are left as they are.
const GREEDY: [&str; 2] = ["run", "exec"];

/// Splits clusters of one-letter flags (`-it`), one-letter options with their value against them (`-p80:80`) and
/// `--name=value`, up to `--` and, for `run` and `exec`, up to the first positional.
pub fn normalise(args: Vec<OsString>) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = args.into_iter().map(|arg| {
        arg.into_string().map_err(|arg| Error::Invalid(format!("not valid UTF-8: {}", arg.to_string_lossy())))
    });
    let mut command: Option<String> = None;
    while let Some(word) = rest.next() {
        let word = word?;
        if word == "--" {
            words.push(word);
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            match long.split_once('=') {
                Some((name, value)) => words.extend([format!("--{name}"), value.to_string()]),
                None => {
                    let takes_value = command
                        .as_deref()
                        .is_some_and(|command| GREEDY.contains(&command) && !LONG_FLAGS.contains(&long));
                    words.push(word);
                    if takes_value && let Some(value) = rest.next() {
                        words.push(value?);
                    }
                }
            }
        } else if word.len() > 1 && word.starts_with('-') {
            for (at, letter) in word[1..].char_indices() {
                words.push(format!("-{letter}"));
                if FLAGS.contains(letter) {
                    continue;
                }
                let value = word[1..][at + letter.len_utf8()..].to_string();
                if !value.is_empty() {
                    words.push(value.strip_prefix('=').unwrap_or(&value).to_string());
                } else if command.as_deref().is_some_and(|command| GREEDY.contains(&command))
                    && let Some(value) = rest.next()
                {
                    words.push(value?);
                }
                break;
            }
        } else {
            // The program's name, then the command, then positionals.
            let positional = words.len() > 1 && command.is_some();
            if words.len() > 1
                && words.last().is_some_and(|last| super::project::takes_value(last))
                && command.is_none()
            {
                words.push(word);
                continue;
            }
            if !words.is_empty() && command.is_none() {
                command = Some(word.clone());
            }
            words.push(word);
            if positional && command.as_deref().is_some_and(|command| GREEDY.contains(&command)) {
                break;
            }
        }
    }
    for word in rest {
        words.push(word?);
    }
    Ok(words)
}

/// Whether an option of `run` or `exec`, split already, stands alone.
pub fn is_flag(word: &str) -> bool {
    match word.strip_prefix("--") {
        Some(long) => LONG_FLAGS.contains(&long),
        None => word[1..].chars().all(|letter| FLAGS.contains(letter)),
    }
}

/// The flags of `run` and `exec` that take no value.
const LONG_FLAGS: [&str; 14] = [
    "detach",
    "interactive",
    "tty",
    "rm",
    "init",
    "read-only",
    "privileged",
    "help",
    "build",
    "no-deps",
    "no-tty",
    "quiet",
    "service-ports",
    "json",
];

#[cfg(test)]
mod tests {
    use super::normalise;

    fn split(line: &str) -> Vec<String> {
        normalise(line.split(' ').map(Into::into).collect()).unwrap()
    }

    #[test]
    fn clusters_and_values() {
        assert_eq!(split("i run -it --rm IMAGE ls -la --x=y"), split("i run -i -t --rm IMAGE ls -la --x=y"));
        assert_eq!(split("i run -it --rm IMAGE ls -la --x=y").last().unwrap(), "--x=y");
        assert_eq!(split("i run -p80:80 -eA=b I"), ["i", "run", "-p", "80:80", "-e", "A=b", "I"]);
        assert_eq!(split("i run -e A=b I -la"), ["i", "run", "-e", "A=b", "I", "-la"]);
        assert_eq!(split("i run --name x I -la"), ["i", "run", "--name", "x", "I", "-la"]);
        assert_eq!(split("i logs --tail=5 -f web"), ["i", "logs", "--tail", "5", "-f", "web"]);
        assert_eq!(split("i -H unix:///x run -i I -la"), ["i", "-H", "unix:///x", "run", "-i", "I", "-la"]);
    }
}
