//! Which project a command is about: `--file` and its like, before the command or after it.

use super::Globals;
use crate::{
    compose::{load, model::Project},
    error::{Error, Result},
};

/// Options of the whole program, all with a value.
const LONG: [&str; 6] = ["--host", "--file", "--project-name", "--project-directory", "--env-file", "--profile"];
/// Commands where `-f` and `-p` are the project's too.
const SHORT_TOO: [&str; 8] = ["up", "down", "build", "ps", "start", "stop", "restart", "config"];

/// Whether `word` stands before a command and takes a value.
pub fn takes_value(word: &str) -> bool {
    LONG.contains(&word) || matches!(word, "-H" | "-f" | "-p")
}

/// Moves the project's options that stand after the command before it, where argh looks for them. `is_flag` tells the
/// options of `run` and `exec` without a value: what follows their first positional is the program's.
pub fn to_front(words: Vec<String>, is_flag: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut at = 1;
    while words.get(at).is_some_and(|word| word.starts_with('-')) {
        at += if takes_value(&words[at]) { 2 } else { 1 };
    }
    let Some(command) = words.get(at).map(String::as_str).filter(|command| *command != "daemon") else { return words };
    let greedy = matches!(command, "run" | "exec");
    let is_own = |word: &str| {
        LONG.contains(&word) || word == "-H" || (SHORT_TOO.contains(&command) && matches!(word, "-f" | "-p"))
    };
    let (mut front, mut back) = (words[..at].to_vec(), vec![command.to_owned()]);
    let mut rest = words[at + 1..].iter().cloned();
    while let Some(word) = rest.next() {
        if word == "--" || (greedy && !word.starts_with('-')) {
            back.push(word);
            break;
        } else if is_own(&word) {
            front.push(word);
            front.extend(rest.next());
        } else {
            let value = greedy && !is_flag(&word);
            back.push(word);
            if value {
                back.extend(rest.next());
            }
        }
    }
    front.into_iter().chain(back).chain(rest).collect()
}

/// The project of the Compose file.
pub fn load(globals: &Globals) -> Result<Project> {
    load::load(&globals.project)
}

/// The project's name: given, or the file's.
pub fn name(globals: &Globals) -> Result<String> {
    if !load::is_there(&globals.project)? {
        return load::name_without_file(&globals.project)?
            .ok_or_else(|| Error::invalid("no Compose file is here: give --file, or --project-name"));
    }
    Ok(load(globals)?.name)
}

#[cfg(test)]
mod tests {
    use super::to_front;

    #[test]
    fn options_of_the_project_may_stand_anywhere() {
        for (line, expected) in [
            ("i up -d --file c.yaml web", "i --file c.yaml up -d web"),
            ("i -p x up -f c", "i -p x -f c up"),
            ("i logs -f web --profile p", "i --profile p logs -f web"),
            ("i run -p 80:80 --host unix:///x IMAGE --file y", "i --host unix:///x run -p 80:80 IMAGE --file y"),
            ("i daemon --host unix:///x", "i daemon --host unix:///x"),
            ("i exec -i -t web sh -c --file", "i exec -i -t web sh -c --file"),
        ] {
            let words = line.split(' ').map(str::to_owned).collect();
            let flag = |word: &str| matches!(word, "-i" | "-t" | "-d");
            assert_eq!(to_front(words, &flag).join(" "), expected);
        }
    }
}
