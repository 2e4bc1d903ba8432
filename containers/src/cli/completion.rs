//! `inception completion`: what a shell offers after Tab. The scripts ask this program, so that they never grow old; the
//! answer comes from the table of options, and services from the Compose file.

use super::{Globals, output, project, table};
use crate::{
    error::{Error, Result},
    lab::{alternative::Alternative, exercise, lesson},
};
use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfoKind, FromArgs, Optionality};

/// Print a script that completes commands, options and services after Tab.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "completion",
    example = "source <(inception completion bash)\ninception completion bash > /etc/bash_completion.d/inception\ninception completion zsh > /usr/local/share/zsh/site-functions/_inception\ninception completion fish > ~/.config/fish/completions/inception.fish"
)]
pub struct Completion {
    /// bash, zsh or fish
    #[argh(positional, arg_name = "shell")]
    shell: String,
    /// what the scripts ask with: the words up to the cursor
    #[argh(positional, greedy, hidden_help)]
    words: Vec<String>,
}

const BASH: &str = r#"# inception's completion for bash; made by `inception completion bash`
_inception() {
    local IFS=$'\n' line
    COMPREPLY=()
    while read -r line; do COMPREPLY+=("${line%%$'\t'*}"); done \
        < <("${COMP_WORDS[0]}" completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o bashdefault -o default -F _inception inception
"#;

const ZSH: &str = r#"#compdef inception
# inception's completion for zsh; made by `inception completion zsh`
_inception() {
    local -a found
    found=("${(@f)$("${words[1]}" completion words "${(@)words[2,CURRENT]}" 2>/dev/null | sed 's/:/\\:/g; s/\t/:/')}")
    if [[ -n "${found[*]}" ]]; then _describe inception found; else _files; fi
}
if [[ $funcstack[1] == _inception ]]; then _inception "$@"; else compdef _inception inception; fi
"#;

const FISH: &str = r#"# inception's completion for fish; made by `inception completion fish`
function __inception_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] completion words $words[2..-1] 2>/dev/null
end
complete -c inception -a '(__inception_complete)'
"#;

impl Completion {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        let text = match self.shell.as_str() {
            "bash" => BASH.to_owned(),
            "zsh" => ZSH.to_owned(),
            "fish" => FISH.to_owned(),
            "words" => {
                let services = || match project::load_if_there(globals) {
                    Ok(Some(project)) => project.services.into_keys().chain(project.inactive.into_keys()).collect(),
                    // A file that is broken is told elsewhere.
                    _ => Vec::new(),
                };
                let found = candidates(&table(), &self.words, &services);
                found.iter().map(|(word, about)| format!("{word}\t{about}\n")).collect()
            }
            other => return Err(Error::invalid(format!("{other}: there are bash, zsh and fish"))),
        };
        output::print(&text)?;
        Ok(0)
    }
}

/// What the last of `words` may become, and what each is. Nothing: the shell offers files.
fn candidates(
    program: &CommandInfoWithArgs,
    words: &[String],
    services: &dyn Fn() -> Vec<String>,
) -> Vec<(String, String)> {
    let Some((typed, before)) = words.split_last() else { return Vec::new() };
    let mut levels = vec![program];
    let (mut positionals, mut value) = (0, None);
    for word in before {
        let command = levels[levels.len() - 1];
        if value.take().is_some() {
            continue;
        }
        if word.starts_with('-') {
            let flags = command.flags.iter().chain(program.flags);
            let mut found = flags.filter(|flag| flag.long == word || is_short(flag.short, word));
            value = found.next().filter(|flag| matches!(flag.kind, FlagInfoKind::Option { .. }));
        } else if let Some(next) = command.commands.iter().find(|next| next.name == word) {
            levels.push(&next.command);
        } else {
            positionals += 1;
        }
    }
    let command = levels[levels.len() - 1];
    let is_greedy = command.positionals.last().is_some_and(|last| last.optionality == Optionality::Greedy);
    let about = |text: &str| text.lines().next().unwrap_or_default().trim().to_owned();
    let all: Vec<(String, String)> = if value.is_some_and(|flag| flag.long == "--alternative") {
        Alternative::ALL.map(|alternative| (alternative.name().to_owned(), String::new())).to_vec()
    } else if value.is_some() || (is_greedy && positionals > 0) {
        // A value, or a word of the program that is run: files, most likely.
        Vec::new()
    } else if typed.starts_with('-') {
        let global = if levels.len() > 1 { program.flags } else { &[] };
        let mut flags: Vec<_> = command.flags.iter().filter(|flag| !flag.hidden).collect();
        flags.extend(global.iter().filter(|flag| !command.flags.iter().any(|own| own.long == flag.long)));
        flags.iter().map(|flag| (flag.long.to_owned(), about(flag.description))).collect()
    } else if !command.commands.is_empty() {
        command.commands.iter().map(|next| (next.name.to_owned(), about(next.command.description))).collect()
    } else if command.name == "completion" {
        ["bash", "zsh", "fish"].map(|shell| (shell.to_owned(), String::new())).to_vec()
    } else if command.name == "lab" && before.last().is_some_and(|word| word == "exercise") {
        exercise::all().iter().map(|exercise| (exercise.name.clone(), exercise.title.clone())).collect()
    } else if command.name == "lab" && !before.iter().any(|word| word == "check") {
        let lessons = lesson::all().iter().map(|lesson| (lesson.name.clone(), lesson.title.clone()));
        let others = [
            ("all", "every lesson"),
            ("exercise", "mend what is broken"),
            ("check", "what an image or a command does wrong as PID 1"),
        ];
        lessons.chain(others.map(|(word, about)| (word.to_owned(), about.to_owned()))).collect()
    } else if command.positionals.iter().any(|positional| positional.name.contains("service")) {
        services().into_iter().map(|name| (name, "service".to_owned())).collect()
    } else {
        Vec::new()
    };
    all.into_iter().filter(|(word, _)| word.starts_with(typed.as_str())).collect()
}

/// Whether `word` is, or ends in, this one-letter option.
fn is_short(short: Option<char>, word: &str) -> bool {
    !word.starts_with("--") && short.is_some_and(|letter| word.ends_with(letter))
}

#[cfg(test)]
mod tests {
    use super::{super::table, candidates};

    fn complete(text: &str) -> String {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let services = || vec!["mariadb".to_owned(), "web".to_owned()];
        let found = candidates(&table(), &words, &services);
        found.into_iter().map(|(word, _)| word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn commands_options_and_services() {
        for (text, expected) in [
            ("rest", "restart"),
            ("volume ", "ls create inspect rm prune"),
            ("network c", "create connect"),
            ("vm st", "start stop"),
            ("vm run --me", "--memory"),
            ("vm run -d --name m busybox -", ""),
            ("network create --sub", "--subnet"),
            ("volume create --sub", ""),
            ("run --cap-", "--cap-add --cap-drop"),
            ("up --proj", "--project-name --project-directory"),
            ("logs -f w", "web"),
            ("--file x stop ", "mariadb web"),
            ("exec -it m", "mariadb"),
            ("exec mariadb --", ""),
            ("run --name ", ""),
            ("run -it --name m w", "web"),
            ("completion z", "zsh"),
            ("rmi ", ""),
            ("top m", "mariadb"),
            ("top --pl", "--plain"),
            ("lab or", "orphans"),
            ("lab --alternative t", "tini"),
            ("lab zombies --js", "--json"),
            ("lab check ", ""),
            ("lab exer", "exercise"),
        ] {
            assert_eq!(complete(text), expected, "{text}");
        }
    }
}
