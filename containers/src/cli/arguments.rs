//! From what people type to what argh takes: `-it`, `--tail=5`, `-p8080:80`, options behind the positionals, and the
//! project's options behind the command. The table of options is argh's own.

use crate::error::{Error, Result};
use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};
use std::ffi::OsString;

/// A command line as argh takes it: the program's options, the commands, the last command's options, `--`, positionals.
#[derive(Debug, Default)]
pub struct Line {
    /// The command and its subcommand.
    pub commands: Vec<String>,
    front: Vec<String>,
    options: Vec<String>,
    positionals: Vec<String>,
    /// How many positionals stood before `--`, where there is one.
    pub before_dashes: Option<usize>,
    help: bool,
}

impl Line {
    /// Reads `args` (without the program's name) by the table `program`. In `line` is what was understood, also where
    /// the result is an error.
    pub fn read(line: &mut Line, args: Vec<OsString>, program: &CommandInfoWithArgs) -> Result<()> {
        let mut rest = args.into_iter().map(|arg| {
            arg.into_string().map_err(|arg| Error::Invalid(format!("not valid UTF-8: {}", arg.to_string_lossy())))
        });
        let mut levels = vec![program];
        while let Some(word) = rest.next() {
            let word = word?;
            let command = levels[levels.len() - 1];
            if word == "--" {
                line.before_dashes = Some(line.positionals.len());
                line.positionals.extend(rest.collect::<Result<Vec<_>>>()?);
                break;
            } else if word.len() > 1 && word.starts_with('-') {
                line.option(&word, &levels, &mut rest)?;
            } else if let Some(next) = command.commands.iter().find(|next| next.name == word) {
                levels.push(&next.command);
                line.commands.push(word);
            } else if levels.len() == 1 && word == "help" {
                line.help = true;
            } else if !command.commands.is_empty() {
                let known: Vec<&str> = command.commands.iter().map(|next| next.name).collect();
                return Err(Error::invalid(format!(
                    "`{}` has no command {word:?}; {}",
                    line.named(),
                    nearest(&word, &known).unwrap_or_else(|| format!("there are {}", known.join(", ")))
                )));
            } else {
                line.positionals.push(word);
                // What follows belongs to the program that is run.
                if is_greedy(command) {
                    line.positionals.extend(rest.collect::<Result<Vec<_>>>()?);
                    break;
                }
            }
        }
        Ok(())
    }

    /// The words for argh.
    pub fn words(&self) -> Vec<&str> {
        let front = self.front.iter().chain(&self.commands).map(String::as_str);
        match (self.help, self.positionals.is_empty()) {
            (true, _) => self.commands.iter().map(String::as_str).chain(["--help"]).collect(),
            (false, true) => front.chain(self.options.iter().map(String::as_str)).collect(),
            (false, false) => front
                .chain(self.options.iter().map(String::as_str))
                .chain(["--"])
                .chain(self.positionals.iter().map(String::as_str))
                .collect(),
        }
    }

    /// `inception volume ls`
    pub fn named(&self) -> String {
        std::iter::once("inception").chain(self.commands.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    }

    /// One word that begins with a dash, with its value.
    fn option(
        &mut self,
        word: &str,
        levels: &[&CommandInfoWithArgs],
        rest: &mut impl Iterator<Item = Result<String>>,
    ) -> Result<()> {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let name = format!("--{name}");
            return match self.find(levels, &|flag| flag.long == name) {
                Some(found) => self.take(&name, found, value, rest),
                None => Err(self.unknown(&name, levels)),
            };
        }
        for (at, letter) in word[1..].char_indices() {
            let name = format!("-{letter}");
            let Some(found) = self.find(levels, &|flag| flag.short == Some(letter)) else {
                if letter == 'h' {
                    self.help = true;
                    continue;
                }
                return Err(self.unknown(&name, levels));
            };
            if matches!(found.0.kind, FlagInfoKind::Switch) {
                self.take(&name, found, None, rest)?;
                continue;
            }
            let value = &word[1 + at + letter.len_utf8()..];
            let value = value.strip_prefix('=').unwrap_or(value);
            return self.take(&name, found, (!value.is_empty()).then(|| value.to_owned()), rest);
        }
        Ok(())
    }

    /// The option, and whether it is the program's. A command's own options come first.
    fn find<'a>(
        &self,
        levels: &[&'a CommandInfoWithArgs],
        is_it: &dyn Fn(&FlagInfo) -> bool,
    ) -> Option<(&'a FlagInfo<'a>, bool)> {
        let (command, program) = (levels[levels.len() - 1], levels[0]);
        let of = |info: &'a CommandInfoWithArgs| info.flags.iter().find(|flag| is_it(flag));
        of(command).map(|flag| (flag, levels.len() == 1)).or_else(|| of(program).map(|flag| (flag, true)))
    }

    fn take(
        &mut self,
        name: &str,
        (flag, is_program): (&FlagInfo, bool),
        value: Option<String>,
        rest: &mut impl Iterator<Item = Result<String>>,
    ) -> Result<()> {
        if flag.long == "--help" {
            self.help = true;
            return Ok(());
        }
        let words = match (&flag.kind, value.as_deref()) {
            (FlagInfoKind::Switch, None | Some("true")) => vec![name.to_owned()],
            (FlagInfoKind::Switch, Some("false")) => Vec::new(),
            (FlagInfoKind::Switch, Some(other)) => {
                return Err(Error::invalid(format!("{name}={other}: {name} takes no value")));
            }
            (FlagInfoKind::Option { .. }, _) => {
                let value = match value {
                    Some(value) => Some(value),
                    None => rest.next().transpose()?,
                };
                let value = value
                    .ok_or_else(|| Error::invalid(format!("{name} needs a value; see `{} --help`", self.named())))?;
                vec![name.to_owned(), value]
            }
        };
        if is_program { &mut self.front } else { &mut self.options }.extend(words);
        Ok(())
    }

    fn unknown(&self, name: &str, levels: &[&CommandInfoWithArgs]) -> Error {
        let known: Vec<&str> = levels[levels.len() - 1].flags.iter().chain(levels[0].flags).map(|f| f.long).collect();
        let hint = if name.starts_with("--") { nearest(name, &known) } else { None };
        Error::invalid(format!(
            "`{}` has no option {name}; {}",
            self.named(),
            hint.unwrap_or_else(|| format!("see `{} --help`", self.named()))
        ))
    }
}

fn is_greedy(command: &CommandInfoWithArgs) -> bool {
    command.positionals.last().is_some_and(|last| last.optionality == Optionality::Greedy)
}

/// "did you mean …?", where something is near.
pub fn nearest(name: &str, known: &[&str]) -> Option<String> {
    let (distance, other) =
        known.iter().map(|other| (strsim::damerau_levenshtein(name, other), other)).min_by_key(|(near, _)| *near)?;
    (distance <= 1 + other.len().min(name.len()) / 4).then(|| format!("did you mean {other}?"))
}

#[cfg(test)]
mod tests {
    use super::{super::table, Line};

    fn split(text: &str) -> Result<String, String> {
        let mut line = Line::default();
        Line::read(&mut line, text.split(' ').map(Into::into).collect(), &table())
            .map_err(|error| error.to_string())?;
        Ok(line.words().join(" "))
    }

    #[test]
    fn what_people_type_becomes_what_argh_takes() {
        for (text, expected) in [
            ("run -it --rm IMAGE ls -la --x=y -- z", "run -i -t --rm -- IMAGE ls -la --x=y -- z"),
            ("run -p80:80 -eA=b I", "run -p 80:80 -e A=b -- I"),
            ("run -e A=b I -la", "run -e A=b -- I -la"),
            ("run --rm=true --init=false --name=x I", "run --rm --name x -- I"),
            ("run -h web I", "run -h web -- I"),
            ("logs --tail=5 -f web", "logs --tail 5 -f -- web"),
            ("down -t5", "down -t 5"),
            // The project's options stand anywhere; a command's own of the same name come first.
            ("up -d --file c.yaml web", "--file c.yaml up -d -- web"),
            ("-p x up -f c", "-p x -f c up"),
            ("logs -f web --profile p", "--profile p logs -f -- web"),
            ("-H unix:///x run -i I -la", "-H unix:///x run -i -- I -la"),
            ("run -p 80:80 --host unix:///x I --file y", "--host unix:///x run -p 80:80 -- I --file y"),
            ("daemon --host unix:///x", "daemon --host unix:///x"),
            ("exec -it web sh -c --file", "exec -i -t -- web sh -c --file"),
            ("stop -- -x", "stop -- -x"),
            ("volume ls -q", "volume ls -q"),
            ("rm web -f", "rm -f -- web"),
            ("help volume ls", "volume ls --help"),
            ("up -h", "up --help"),
        ] {
            assert_eq!(split(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn faults_say_what_was_meant() {
        for (text, expected) in [
            ("up --detatch", "`inception up` has no option --detatch; did you mean --detach?"),
            ("up -z", "`inception up` has no option -z; see `inception up --help`"),
            ("stat", "`inception` has no command \"stat\"; did you mean start?"),
            ("volume create --lable", "did you mean --label?"),
            ("logs --tail", "--tail needs a value"),
            ("run --rm=maybe I", "--rm takes no value"),
        ] {
            let error = split(text).unwrap_err();
            assert!(error.contains(expected), "{error}\nexpected: {expected}");
        }
    }
}
