//! Stands in for tini, docker-init, dumb-init and catatonit: their options, environment, exit codes and version lines,
//! so that what calls them takes this init unchanged. docs/init.md lists where it differs on purpose.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::config::{Codes, Config, Forward, Rules};
use crate::options::{self, Request};
use crate::signal;

/// An init that this one can stand in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tini,
    DumbInit,
    Catatonit,
}

/// What getopt(3) is told, and what `--version` says.
struct Syntax {
    /// Letters; a colon after one that takes a value.
    short: &'static str,
    /// Long names and the letters that they stand for.
    long: &'static [(&'static str, char)],
    /// Options are looked for behind the command's first word too.
    permutes: bool,
    version: &'static str,
    usage: &'static str,
}

const TINI: Syntax = Syntax {
    short: "p:hvwgle:s",
    long: &[],
    permutes: true,
    version: "tini version 0.19.0\n",
    usage: "Usage: tini [-h] [-s] [-p SIGNAL] [-v] [-w] [-g] [-e EXIT_CODE] [-l] [--] PROGRAM [ARGS] | --version\n",
};
const DUMB_INIT: Syntax = Syntax {
    short: "hvVcr:",
    long: &[("help", 'h'), ("single-child", 'c'), ("rewrite", 'r'), ("verbose", 'v'), ("version", 'V')],
    permutes: false,
    version: "dumb-init v1.2.5\n",
    usage: "Usage: dumb-init [-c|--single-child] [-r|--rewrite s:r] [-v] [-h] [-V] program [args]\n",
};
const CATATONIT: Syntax = Syntax {
    short: "ghLPV",
    long: &[("version", 'V')],
    permutes: true,
    // `docker info` reads the first two words.
    version: "tini version 0.1.7_catatonit\n",
    usage: "usage: catatonit [-ghLPV] [--] <progname> [<arguments>...]\n",
};
const LICENCE: &str = "inception-init, MIT OR Apache-2.0, standing in for the program of this name\n";

impl Peer {
    /// The peer that a program's name stands for.
    pub fn named(name: &OsStr) -> Option<Self> {
        match name.as_bytes().rsplit(|byte| *byte == b'/').next()? {
            b"tini" | b"tini-static" | b"docker-init" => Some(Self::Tini),
            b"dumb-init" => Some(Self::DumbInit),
            b"catatonit" => Some(Self::Catatonit),
            _ => None,
        }
    }

    fn syntax(self) -> &'static Syntax {
        match self {
            Self::Tini => &TINI,
            Self::DumbInit => &DUMB_INIT,
            Self::Catatonit => &CATATONIT,
        }
    }

    /// As the peer has them: not found, refused, any other error of exec, all else.
    fn codes(self) -> Codes {
        match self {
            Self::Tini => Codes { not_found: 127, refused: 126, not_run: 1, own: 1 },
            Self::DumbInit => Codes { not_found: 2, refused: 2, not_run: 2, own: 1 },
            Self::Catatonit => Codes { not_found: 1, refused: 1, not_run: 1, own: 1 },
        }
    }
}

/// Reads the arguments from index `first` on as the peer would.
pub fn read(
    peer: Peer,
    args: &[&'static OsStr],
    first: usize,
    variable: impl Fn(&str) -> Option<&'static OsStr>,
) -> Request {
    let syntax = peer.syntax();
    let refuse = |message: String| Request::Refuse { message, code: peer.codes().own };
    if peer == Peer::Tini && args.len() == first + 1 && args[first] == "--version" {
        return Request::Print(syntax.version.into());
    }
    let permutes = syntax.permutes && variable("POSIXLY_CORRECT").is_none();
    let words = match getopt(syntax, &args[first..], permutes) {
        Ok(words) => words,
        Err(message) => return refuse(format!("{message}\n{}", syntax.usage.trim_ascii_end())),
    };
    let is_set = |name: &str| variable(name).is_some();
    let mut config = Config {
        rules: Rules { stop_rest: false, ..Rules::default() },
        subreaper: peer == Peer::Catatonit || (peer == Peer::Tini && is_set("TINI_SUBREAPER")),
        codes: peer.codes(),
        ..Config::default()
    };
    let mut verbose: u8;
    let mut pause = false;
    match peer {
        Peer::Tini => {
            if is_set("TINI_KILL_PROCESS_GROUP") {
                config.forward = Forward::Group;
            }
            // There 1 is the usual level, which shows warnings.
            let level = variable("TINI_VERBOSITY").and_then(|level| level.to_str()?.parse::<u8>().ok()).unwrap_or(1);
            verbose = level.saturating_sub(1);
        }
        Peer::DumbInit => {
            config.new_session = variable("DUMB_INIT_SETSID").is_none_or(|value| value != "0");
            verbose = if variable("DUMB_INIT_DEBUG").is_some_and(|value| value == "1") { 2 } else { 0 };
        }
        Peer::Catatonit => verbose = if is_set("CATATONIT_DEBUG") { 2 } else { 0 },
    }
    for (letter, value) in words.options {
        match (peer, letter) {
            (Peer::DumbInit, 'h') => return Request::Say(syntax.usage.into()),
            (Peer::DumbInit, 'V') => return Request::Say(syntax.version.into()),
            (_, 'h') => return Request::Print(syntax.usage.into()),
            (_, 'V') => return Request::Print(syntax.version.into()),
            (_, 'l' | 'L') => return Request::Print(LICENCE.into()),
            (_, 'v') => verbose = verbose.saturating_add(1),
            (_, 'g') => config.forward = Forward::Group,
            (_, 's') => config.subreaper = true,
            (_, 'w') => verbose = verbose.max(2),
            (_, 'P') => pause = true,
            (_, 'c') => config.new_session = false,
            (_, 'p') => match value.starts_with("SIG").then(|| signal::parse(&value)).flatten() {
                Some(signal) => config.parent_death = signal,
                None => return refuse(format!("Not a valid option for -p: {value}")),
            },
            (_, 'e') => match value.parse::<u8>() {
                Ok(code) => config.rules.success.insert(code),
                Err(_) => return refuse(format!("Not a valid option for -e: {value}")),
            },
            (_, 'r') => match rewrite(&value) {
                Some((from, to)) => config.rewrite[from] = to,
                None => {
                    return refuse(format!(
                        "-r {value}: <signum>:<signum> is wanted, numbers from 1 to 31, or 0 to drop"
                    ));
                }
            },
            _ => {}
        }
    }
    if config.new_session {
        config.forward = Forward::Group;
        config.rules.last_term = true;
    }
    // Stopping what is left, which no peer does, is the caller's to ask for.
    if let Some(grace) = variable("INCEPTION_INIT_GRACE") {
        match grace.to_str().and_then(options::seconds) {
            Some(grace) => (config.rules.grace, config.rules.stop_rest, config.subreaper) = (grace, true, true),
            None => return refuse("INCEPTION_INIT_GRACE: a time is wanted, as in 5, 0.5, 500ms, 2m".into()),
        }
    }
    if pause {
        return Request::Pause;
    }
    if words.command.is_empty() {
        return refuse(format!("missing program name\n{}", syntax.usage.trim_ascii_end()));
    }
    let command = words.command.iter().map(|index| index + first).collect();
    Request::Run { config: Box::new(config), command, verbose, remarks: Vec::new() }
}

/// dumb-init's `-r`, which is sscanf(3)'s `%d:%d`: space before a number and anything after the second are passed over.
fn rewrite(pair: &str) -> Option<(usize, u8)> {
    fn number(text: &str) -> Option<(i32, &str)> {
        let text = text.trim_ascii_start();
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let rest = digits.trim_start_matches(|letter: char| letter.is_ascii_digit());
        Some((text[..text.len() - rest.len()].parse().ok()?, rest))
    }
    let (from, rest) = number(pair)?;
    let (to, _) = number(rest.strip_prefix(':')?)?;
    let (from, to) = (usize::try_from(from).ok()?, u8::try_from(to).ok()?);
    ((1..=31).contains(&from) && to <= 31).then_some((from, to))
}

/// Options in their order, and the indices of the command's words.
#[derive(Debug, Default, PartialEq)]
struct Words {
    options: Vec<(char, String)>,
    command: Vec<usize>,
}

/// getopt_long(3): clusters, values in the same or the next word, unique beginnings of long names, `--`.
fn getopt(syntax: &Syntax, args: &[&OsStr], permutes: bool) -> Result<Words, String> {
    let mut words = Words::default();
    let mut next = 0;
    while let Some(arg) = args.get(next) {
        let bytes = arg.as_bytes();
        next += 1;
        if bytes == b"--" {
            words.command.extend(next..args.len());
            break;
        }
        if bytes.len() < 2 || bytes[0] != b'-' {
            words.command.push(next - 1);
            if permutes {
                continue;
            }
            words.command.extend(next..args.len());
            break;
        }
        let text = arg.to_string_lossy();
        let mut value_of = |letter: char, attached: Option<&str>| match attached {
            Some(value) => Ok(value.to_owned()),
            None => {
                let value = args.get(next).ok_or_else(|| format!("option requires an argument -- '{letter}'"))?;
                next += 1;
                Ok::<_, String>(value.to_string_lossy().into_owned())
            }
        };
        if let Some(long) = text.strip_prefix("--").filter(|_| !syntax.long.is_empty()) {
            let (name, attached) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            let letter = find_long(syntax, name).ok_or_else(|| format!("unrecognized option '--{name}'"))?;
            let value = match takes_value(syntax, letter) {
                Some(true) => value_of(letter, attached)?,
                _ if attached.is_some() => return Err(format!("option '--{name}' doesn't allow an argument")),
                _ => String::new(),
            };
            words.options.push((letter, value));
            continue;
        }
        for (at, letter) in text.char_indices().skip(1) {
            let after = &text[at + letter.len_utf8()..];
            match takes_value(syntax, letter) {
                None => return Err(format!("invalid option -- '{letter}'")),
                Some(false) => words.options.push((letter, String::new())),
                Some(true) => {
                    let value = value_of(letter, (!after.is_empty()).then_some(after))?;
                    words.options.push((letter, value));
                    break;
                }
            }
        }
    }
    Ok(words)
}

fn find_long(syntax: &Syntax, name: &str) -> Option<char> {
    if let Some((_, letter)) = syntax.long.iter().find(|(long, _)| *long == name) {
        return Some(*letter);
    }
    let mut fitting = syntax.long.iter().filter(|(long, _)| long.starts_with(name));
    fitting.next().filter(|_| fitting.next().is_none()).map(|(_, letter)| *letter)
}

/// Whether a letter is an option, and one with a value.
fn takes_value(syntax: &Syntax, letter: char) -> Option<bool> {
    let at = syntax.short.find(letter).filter(|_| letter != ':')?;
    Some(syntax.short[at + 1..].starts_with(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(peer: Peer, words: &'static [&'static str]) -> Result<(Box<Config>, Vec<usize>, u8), String> {
        let args: Vec<&OsStr> = std::iter::once("init").chain(words.iter().copied()).map(OsStr::new).collect();
        match read(peer, &args, 1, |_| None) {
            Request::Run { config, command, verbose, .. } => Ok((config, command, verbose)),
            Request::Print(text) | Request::Say(text) => Err(text),
            Request::Refuse { message, .. } => Err(message),
            Request::Pause => Err("pause".into()),
        }
    }

    #[test]
    fn clusters_values_and_permutation() {
        let (config, command, verbose) =
            run(Peer::Tini, &["-vge143", "-p", "SIGUSR1", "sh", "-v", "--", "-c"]).unwrap();
        assert_eq!(
            (config.forward, config.rules.success.contains(143), config.parent_death),
            (Forward::Group, true, 10)
        );
        assert_eq!((command, verbose), (vec![4, 7], 2));
        let (_, command, verbose) = run(Peer::DumbInit, &["-v", "sh", "-v", "--"]).unwrap();
        assert_eq!((command, verbose), (vec![2, 3, 4], 1));
        assert!(run(Peer::Catatonit, &["sh", "-c"]).err().unwrap().contains("invalid option -- 'c'"));
    }

    #[test]
    fn long_names() {
        let (config, ..) = run(Peer::DumbInit, &["--rewrite=15:3", "--sing", "-r", "1:0", "x"]).unwrap();
        assert_eq!((config.rewrite[15], config.rewrite[1], config.new_session), (3, 0, false));
        assert!(run(Peer::DumbInit, &["--ver"]).err().unwrap().contains("--ver"));
        assert_eq!(run(Peer::DumbInit, &["--version"]).err().unwrap(), DUMB_INIT.version);
        assert_eq!(run(Peer::Tini, &["--version"]).err().unwrap(), TINI.version);
        assert_eq!(run(Peer::Catatonit, &["-V"]).err().unwrap(), CATATONIT.version);
    }

    #[test]
    fn refused_as_the_peers_do() {
        for (peer, words) in [
            (Peer::Tini, &["-p", "TERM", "x"][..]),
            (Peer::Tini, &["-e", "256", "x"]),
            (Peer::Tini, &["-e"]),
            (Peer::Tini, &[]),
            (Peer::DumbInit, &["-r", "TERM:QUIT", "x"]),
            (Peer::DumbInit, &["-r", "32:1", "x"]),
            (Peer::DumbInit, &["--nonsense"]),
            (Peer::Catatonit, &["--"]),
        ] {
            assert!(run(peer, words).is_err(), "{peer:?} {words:?}");
        }
    }
}
