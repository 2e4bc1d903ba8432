//! The manual page docs/man/inception.1, made from the table of options, so that it can't forget one. The page lies in
//! the repository; this test says when it is old, and writes it anew with INCEPTION_WRITE_MANUAL=1.

use super::table;
use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

const HEAD: &str = r#".\" Made by: INCEPTION_WRITE_MANUAL=1 cargo test -p inception manual
.TH INCEPTION 1 "" "inception VERSION" "User Commands"
.SH NAME
inception \- build images and run containers, with inception\-init as PID 1 in each
.SH SYNOPSIS
.B inception
.RI [ options ]
.I COMMAND
.RI [ options "] [" arguments ]
.SH DESCRIPTION
Builds images from Dockerfiles and runs them from a Compose file, or one by one.
The commands are a client of the Docker Engine API.
They drive the embedded engine, which is started when none answers; with DOCKER_HOST or \-\-host they drive Docker or Podman unchanged.
.PP
A command's options may be written together (\fB\-it\fR), with their values (\fB\-p8080:80\fR, \fB\-\-tail=5\fR), and before or behind its arguments; for run and exec, what follows the first argument belongs to the program that is run.
The options below OPTIONS may stand before the command or behind it; where a command has one of the same name, behind it that one counts.
.PP
Where a command takes a service or a container, a name is a service of the project here, else a container's name or the beginning of its id.
"#;

const TAIL: &str = r#".SH EXIT STATUS
.TP
.B 0
All went well.
.TP
.B 1
The command failed; the reason is on stderr.
.TP
.B 2
A bad command line, Compose file or Dockerfile.
.TP
.B 125, 126, 127
Of run and exec: the engine refused; the command can't be run; the command is not there.
Otherwise run and exec exit with the command's own code, 128+n when signal n ended it.
.SH ENVIRONMENT
.TP
.B DOCKER_HOST
The engine's address, unix:///path or tcp://host:port.
.TP
.B COMPOSE_FILE, COMPOSE_PROJECT_NAME, COMPOSE_PROFILES
Stand for \-\-file (several with colons between), \-\-project\-name and \-\-profile (several with commas between).
.TP
.B NO_COLOR
No colours, on a terminal either.
.TP
.B INCEPTION_LOG
What the log tells: error, warn, info, debug or trace.
.SH FILES
.TP
.I compose.yaml, compose.yml, docker\-compose.yaml, docker\-compose.yml
The project, in the current folder or above it; compose.override.yaml beside it is laid over it.
.TP
.I .env
Variables for the Compose file; the shell's own win.
.TP
.I /run/inception/inception.sock, /var/lib/inception
The embedded engine's socket and store.
.SH SEE ALSO
.BR inception\-init (8),
.BR docker (1),
.BR podman (1)
"#;

fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    // A line that begins with one of these would be a request.
    text.lines().map(str::trim).map(|line| line.trim_start_matches(['.', '\''])).collect::<Vec<_>>().join(" ")
}

fn option(flag: &FlagInfo) -> String {
    let mut names: Vec<String> = flag.short.iter().map(|letter| format!("\\fB\\-{letter}\\fR")).collect();
    names.push(format!("\\fB{}\\fR", escape(flag.long)));
    let value = match flag.kind {
        FlagInfoKind::Option { arg_name } => format!(" \\fI{}\\fR", escape(arg_name)),
        FlagInfoKind::Switch => String::new(),
    };
    format!(".TP\n{}{value}\n{}\n", names.join(", "), sentence(flag.description))
}

fn sentence(text: &str) -> String {
    let text = escape(text);
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}{}", letters.as_str(), if text.ends_with(['.', ')']) { "" } else { "." })
}

fn command(path: &str, info: &CommandInfoWithArgs, out: &mut String) {
    if info.commands.is_empty() {
        let positionals = info.positionals.iter().filter(|positional| !positional.hidden).map(|positional| {
            let name = escape(positional.name).to_uppercase();
            match positional.optionality {
                Optionality::Required => format!(" \\fI{name}\\fR"),
                Optionality::Optional => format!(" [\\fI{name}\\fR]"),
                Optionality::Repeating | Optionality::Greedy => format!(" [\\fI{name}\\fR...]"),
            }
        });
        *out += &format!(".SS {path} [options]{}\n", positionals.collect::<String>());
    } else {
        *out += &format!(".SS {path}\n");
    }
    *out += &format!("{}\n", sentence(info.description));
    for note in info.notes {
        *out += &format!(".PP\n{}\n", escape(note));
    }
    for flag in info.flags.iter().filter(|flag| !flag.hidden && flag.long != "--help") {
        *out += &option(flag);
    }
    for (at, example) in info.examples.iter().flat_map(|text| text.lines()).enumerate() {
        let lead = if at == 0 { ".PP\nExamples:\n.PP\n" } else { ".br\n" };
        *out += &format!("{lead}.RS 4\n{}\n.RE\n", escape(example));
    }
    for next in &info.commands {
        command(&format!("{path} {}", next.name), &next.command, out);
    }
}

fn page() -> String {
    let table = table();
    let mut text = HEAD.replace("VERSION", env!("CARGO_PKG_VERSION"));
    text += ".SH OPTIONS\n";
    for flag in table.flags {
        text += &option(flag);
    }
    text += ".SH COMMANDS\n";
    for next in &table.commands {
        command(next.name, &next.command, &mut text);
    }
    text + TAIL
}

#[test]
fn the_manual_page_names_every_command_and_option() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/man/inception.1");
    if std::env::var_os("INCEPTION_WRITE_MANUAL").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap();
    assert!(there == page(), "docs/man/inception.1 is old: INCEPTION_WRITE_MANUAL=1 cargo test -p inception manual");
}
