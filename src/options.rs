//! The command line and the variables of the environment, made into a [`Config`].
//!
//! argh reads whole words of UTF-8 and no `--name=value`; the service's words are bytes that are nobody's business. So
//! the arguments are split at the service first, and argh gets what stands before it in the form that it takes.

use std::ffi::{CString, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use argh::FromArgs;

use crate::config::{Codes, Config, Forward, Rules};
use crate::events::Log;
use crate::personality::{self, Peer};
use crate::policy::Restart;
use crate::{environment, identity, signal, sys};

/// The variables that stand for options: INCEPTION_INIT_GRACE=3 for --grace 3.
const PREFIX: &str = "INCEPTION_INIT_";
/// The same, where every start finds it (layout.ld).
#[unsafe(link_section = ".rodata.first")]
static PREFIX_BYTES: [u8; 15] = *b"INCEPTION_INIT_";

/// What --license says.
pub const LICENSE: &str = "inception-init: MIT OR Apache-2.0, at your choice\n";

/// The options that take a value; every other one is a switch.
const VALUED: [&str; 17] = [
    "forward",
    "rewrite",
    "stop-delay",
    "grace",
    "success",
    "restart",
    "max-runtime",
    "parent-death",
    "user",
    "group",
    "workdir",
    "umask",
    "env-file",
    "events",
    "event-format",
    "watchdog",
    "ready-file",
];
/// Those that may be given several times; a variable stands for one of them.
const REPEATED: [&str; 2] = ["env", "secret"];
const SWITCHES: [&str; 3] = ["wait-all", "notify", "verbose"];

/// How an option is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg(feature = "vm")]
pub enum Kind {
    Valued,
    /// With a value, and as often as wanted.
    Repeated,
    Switch,
}

/// How the option of a name is given; `None` where there is none.
#[cfg(feature = "vm")]
pub fn kind(name: &str) -> Option<Kind> {
    let of = |names: &[&str], kind| names.contains(&name).then_some(kind);
    of(&VALUED, Kind::Valued).or(of(&REPEATED, Kind::Repeated)).or(of(&SWITCHES, Kind::Switch))
}

/// The settings that options ask for, each word as argh takes it, and how much to show: for a machine's PID 1, which has
/// its service from elsewhere.
#[cfg(feature = "vm")]
pub fn supervision(words: &[String]) -> Result<(Config, u8), String> {
    if words.is_empty() {
        return Ok((Config::default(), 0));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let options =
        Options::from_args(&["inception-init"], &words).map_err(|exit| exit.output.trim_ascii_end().to_owned())?;
    Ok((config(&options)?, options.verbose))
}

/// A minimal PID 1 for containers: forwards signals to COMMAND, reaps every process, stops what COMMAND leaves behind,
/// and ends with COMMAND's exit code.
#[derive(FromArgs)]
#[argh(
    note = "Each option also by environment: INCEPTION_INIT_GRACE=3 for --grace 3, INCEPTION_INIT_WAIT_ALL=1 for --wait-all.\nSignals are numbers or names (15, TERM, SIGTERM, RTMIN+3); times are seconds (0.5) or have a unit (500ms, 2m).",
    error_code(125, "an option or a limit was wrong: COMMAND never ran"),
    error_code(126, "COMMAND could not be run"),
    error_code(127, "COMMAND was not found")
)]
struct Options {
    /// whom signals reach: child (default), group, session
    #[argh(option, arg_name = "child|group|session")]
    forward: Option<String>,
    /// pass on another signal, 0 for none: TERM:QUIT,WINCH:0
    #[argh(option, arg_name = "FROM:TO,…")]
    rewrite: Option<String>,
    /// hold back the first TERM, INT or QUIT for this time
    #[argh(option, arg_name = "time")]
    stop_delay: Option<String>,
    /// time from TERM to KILL for what is left after COMMAND (default 5)
    #[argh(option, arg_name = "time")]
    grace: Option<String>,
    /// go on until the last process has ended, for a COMMAND that goes to the background
    #[argh(switch)]
    wait_all: bool,
    /// exit codes that count as success: 143,130
    #[argh(option, arg_name = "codes")]
    success: Option<String>,
    /// start COMMAND again: no (default), on-failure, on-failure:N, always
    #[argh(option, arg_name = "policy")]
    restart: Option<String>,
    /// stop COMMAND after this time
    #[argh(option, arg_name = "time")]
    max_runtime: Option<String>,
    /// the signal that the init gets when its own parent ends
    #[argh(option, arg_name = "signal")]
    parent_death: Option<String>,
    /// run COMMAND as this user, with the user's groups: name, number, or USER:GROUP
    #[argh(option, arg_name = "user")]
    user: Option<String>,
    /// run COMMAND with this group: name or number
    #[argh(option, arg_name = "group")]
    group: Option<String>,
    /// run COMMAND in this folder
    #[argh(option, arg_name = "folder")]
    workdir: Option<String>,
    /// run COMMAND with this umask, octal
    #[argh(option, arg_name = "mask")]
    umask: Option<String>,
    /// variables for COMMAND from a file with NAME=VALUE lines
    #[argh(option, arg_name = "file")]
    env_file: Option<String>,
    /// NAME=VALUE: a variable for COMMAND; may be repeated
    #[argh(option, arg_name = "NAME=VALUE")]
    env: Vec<String>,
    /// NAME=FILE: a variable for COMMAND with the content of a file; may be repeated
    #[argh(option, arg_name = "NAME=FILE")]
    secret: Vec<String>,
    /// hand COMMAND a socket for sd_notify(3): READY=1, STOPPING=1, WATCHDOG=1, MAINPID=
    #[argh(switch)]
    notify: bool,
    /// a file that is there from READY=1 on until COMMAND stops, for health checks; with --notify
    #[argh(option, arg_name = "file")]
    ready_file: Option<String>,
    /// stop COMMAND when it says no WATCHDOG=1 for this time; with --notify
    #[argh(option, arg_name = "time")]
    watchdog: Option<String>,
    /// write what happens to a file, or to the inherited descriptor N by fd:N
    #[argh(option, arg_name = "file|fd:N")]
    events: Option<String>,
    /// the form of the events: text (default), json
    #[argh(option, arg_name = "text|json")]
    event_format: Option<String>,
    /// show what the init does on stderr; twice: every process that is reaped
    #[argh(switch, short = 'v')]
    verbose: u8,
    /// stand in for another init, with its options (must come first): tini, docker-init, dumb-init, catatonit
    #[argh(option, long = "as", arg_name = "name")]
    #[allow(dead_code, reason = "for --help: it is read before anything else")]
    personality: Option<String>,
    /// be PID 1 of a virtual machine (must come first), as docs/vm.md says
    #[cfg(feature = "vm")]
    #[argh(switch)]
    #[allow(dead_code, reason = "for --help: it is read before anything else")]
    vm: bool,
    /// run nothing: reap, and end by TERM or INT; holds a pod's namespaces
    #[argh(switch)]
    pause: bool,
    /// print the licence
    #[argh(switch)]
    license: bool,
    /// print the version
    #[argh(switch, short = 'V')]
    version: bool,
    /// the service and its arguments
    #[argh(positional, greedy, arg_name = "COMMAND")]
    #[allow(dead_code, reason = "for --help: the service's words never get here")]
    command: Vec<String>,
}

/// What the command line asks for.
pub enum Request {
    /// Run the command whose words have these indices in argv; none is 0. The remarks are for who reads diagnostics.
    Run { config: Box<Config>, command: Vec<usize>, verbose: u8, remarks: Vec<String> },
    /// Be what holds a pod's namespaces: run nothing, reap, end by TERM or INT.
    Pause,
    /// Print this and end well.
    Print(String),
    /// The same on stderr, where dumb-init says it.
    Say(String),
    /// Print this and end with the code.
    Refuse { message: String, code: c_int },
}

/// Whether there is nothing to read: the index of the command where the init was called by its own name, without an
/// option, and no variable stands for one. This, the usual case, allocates nothing.
pub fn plain_command(args: &[*const c_char]) -> Option<usize> {
    // SAFETY: main's arguments, which live as long as the process.
    let word = |index: usize| args.get(index).map(|word| unsafe { sys::text(*word) });
    let command = match word(1)?.as_bytes() {
        b"--" => 2,
        [b'-', _, ..] => return None,
        _ => 1,
    };
    let usual = command < args.len() && Peer::named(word(0)?).is_none() && !environment::has(&PREFIX_BYTES);
    usual.then_some(command)
}

/// Whether the first argument says that this is the PID 1 of a machine.
#[cfg(feature = "vm")]
pub fn asks_for_machine(args: &[*const c_char]) -> bool {
    // SAFETY: main's arguments, which live as long as the process.
    args.get(1).is_some_and(|word| matches!(unsafe { sys::text(*word) }.as_bytes(), b"--vm"))
}

/// Reads the arguments (the first is the init's own name) and the environment's entries.
pub fn read(args: &[&'static OsStr], environment: impl Iterator<Item = &'static OsStr> + Clone) -> Request {
    let variable = |name: &str| {
        environment.clone().find_map(|entry| {
            let value = entry.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(OsStr::from_bytes(value))
        })
    };
    match personality(args, variable("INCEPTION_INIT_AS")) {
        Ok(Some((peer, first))) => personality::read(peer, args, first, variable),
        Ok(None) => read_own(args, environment).unwrap_or_else(refuse),
        Err(message) => refuse(message),
    }
}

fn refuse(message: String) -> Request {
    Request::Refuse { message, code: Codes::USUAL.own }
}

/// The peer to stand in for, by `--as`, the init's name or the variable, and where its arguments begin.
fn personality(args: &[&'static OsStr], variable: Option<&'static OsStr>) -> Result<Option<(Peer, usize)>, String> {
    let word = |index: usize| args.get(index).copied().unwrap_or_default();
    let (name, first) = if word(1) == "--as" {
        (word(2), 3)
    } else if let Some(name) = word(1).as_bytes().strip_prefix(b"--as=") {
        (OsStr::from_bytes(name), 2)
    } else if let Some(peer) = Peer::named(word(0)) {
        return Ok(Some((peer, 1)));
    } else if let Some(name) = variable {
        (name, 1)
    } else {
        return Ok(None);
    };
    let known = "tini, tini-static, docker-init, dumb-init or catatonit is wanted";
    Peer::named(name).map(|peer| Some((peer, first))).ok_or_else(|| format!("--as {}: {known}", name.display()))
}

fn read_own(args: &[&'static OsStr], environment: impl Iterator<Item = &'static OsStr>) -> Result<Request, String> {
    let (mut words, command) = split(args)?;
    let mut remarks = Vec::new();
    words.splice(0..0, from_environment(&words, environment, &mut remarks)?);
    let indices = || (command..args.len()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let options = match Options::from_args(&["inception-init"], &words) {
        Ok(options) => options,
        Err(exit) if exit.status.is_ok() => return Ok(Request::Print(exit.output)),
        Err(exit) => return Err(format!("{} (--help shows the options)", exit.output.trim_ascii_end())),
    };
    #[cfg(feature = "vm")]
    if options.vm {
        return Err("--vm must come first".into());
    }
    if options.version {
        return Ok(Request::Print(format!("inception-init version {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if options.license {
        return Ok(Request::Print(LICENSE.into()));
    }
    if options.pause {
        return Ok(Request::Pause);
    }
    if command >= args.len() {
        return Err("no command to run: inception-init [options] [--] COMMAND [arguments]".into());
    }
    let config = Box::new(config(&options)?);
    Ok(Request::Run { config, command: indices(), verbose: options.verbose, remarks })
}

/// The init's own words, one for one as argh takes them, and the index of the command's first word.
pub(crate) fn split(args: &[&OsStr]) -> Result<(Vec<String>, usize), String> {
    let mut words = Vec::new();
    let mut next = 1;
    while let Some(arg) = args.get(next) {
        let bytes = arg.as_bytes();
        if bytes == b"--" {
            return Ok((words, next + 1));
        }
        if bytes.len() < 2 || bytes[0] != b'-' {
            break;
        }
        let text = arg.to_str().ok_or_else(|| format!("the option {} is not UTF-8", arg.display()))?;
        next += 1;
        let Some(long) = text.strip_prefix("--") else {
            words.extend(text[1..].chars().map(|short| format!("-{short}")));
            continue;
        };
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let takes = VALUED.contains(&name) || REPEATED.contains(&name);
        words.push(format!("--{name}"));
        match value {
            Some(_) if !takes => return Err(format!("--{name} takes no value")),
            Some(value) => words.push(value.to_owned()),
            None if takes => {
                let value = args.get(next).ok_or_else(|| format!("--{name} needs a value"))?;
                let value = value.to_str().ok_or_else(|| format!("the value of --{name} is not UTF-8"))?;
                words.push(value.to_owned());
                next += 1;
            }
            None => {}
        }
    }
    Ok((words, next))
}

/// Options from variables, as words; the command line wins.
fn from_environment(
    words: &[String],
    environment: impl Iterator<Item = &'static OsStr>,
    remarks: &mut Vec<String>,
) -> Result<Vec<String>, String> {
    let mut more = Vec::new();
    for entry in environment {
        let Some(rest) = entry.as_bytes().strip_prefix(PREFIX.as_bytes()) else { continue };
        let text = std::str::from_utf8(rest).map_err(|_| format!("{} is not UTF-8", entry.display()))?;
        let Some((variable, value)) = text.split_once('=') else { continue };
        let name = variable.to_ascii_lowercase().replace('_', "-");
        let option = format!("--{name}");
        if words.contains(&option) {
            continue;
        }
        if VALUED.contains(&name.as_str()) || REPEATED.contains(&name.as_str()) {
            more.extend([option, value.to_owned()]);
        } else if SWITCHES.contains(&name.as_str()) {
            let times = match value {
                "" | "0" => 0,
                _ => value.parse().map_err(|_| format!("{PREFIX}{variable}={value}: 0 or 1 is wanted"))?,
            };
            more.extend(std::iter::repeat_n(option, usize::from(u8::min(times, 2))));
        } else {
            // Not refused: an orchestrator makes variables of its own from a service's name.
            remarks.push(format!("{PREFIX}{variable} is ignored: there is no option --{name}"));
        }
    }
    Ok(more)
}

fn config(options: &Options) -> Result<Config, String> {
    let mut config = Config { rules: Rules { wait_all: options.wait_all, ..Rules::default() }, ..Config::default() };
    let rules = &mut config.rules;
    if let Some(text) = &options.forward {
        config.forward = match text.as_str() {
            "child" => Forward::Child,
            "group" => Forward::Group,
            "session" => Forward::Session,
            _ => return Err(format!("--forward {text}: child, group or session is wanted")),
        };
        config.new_session = config.forward == Forward::Session;
    }
    for pair in options.rewrite.iter().flat_map(|list| list.split(',')) {
        let (from, to) =
            rewrite(pair).ok_or_else(|| format!("--rewrite {pair}: FROM:TO is wanted, as in TERM:QUIT"))?;
        config.rewrite[from] = to;
    }
    for code in options.success.iter().flat_map(|list| list.split(',')) {
        let code: u8 = code.parse().map_err(|_| format!("--success {code}: numbers from 0 to 255 are wanted"))?;
        rules.success.insert(code);
    }
    if let Some(text) = &options.restart {
        rules.restart = Restart::parse(text)
            .ok_or_else(|| format!("--restart {text}: no, on-failure, on-failure:N or always is wanted"))?;
    }
    let times = [
        ("stop-delay", &options.stop_delay, &mut rules.stop_delay),
        ("grace", &options.grace, &mut rules.grace),
        ("max-runtime", &options.max_runtime, &mut rules.max_runtime),
        ("watchdog", &options.watchdog, &mut rules.watchdog),
    ];
    for (name, text, time) in times {
        if let Some(text) = text {
            *time =
                seconds(text).ok_or_else(|| format!("--{name} {text}: a time is wanted, as in 5, 0.5, 500ms, 2m"))?;
        }
    }
    if let Some(text) = &options.parent_death {
        config.parent_death = signal::parse(text).ok_or_else(|| format!("--parent-death {text}: no such signal"))?;
    }
    config.identity = identity::resolve(
        options.user.as_deref(),
        options.group.as_deref(),
        options.workdir.as_deref(),
        options.umask.as_deref(),
    )?;
    if let Some(file) = &options.env_file {
        config.variables = identity::read_variables(file)?;
    }
    let json = match options.event_format.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(format!("--event-format {other}: text or json is wanted")),
    };
    config.events = options.events.as_deref().map(|target| Log::open(target, json)).transpose()?;
    config.notify = options.notify || options.ready_file.is_some() || !config.rules.watchdog.is_zero();
    if let Some(file) = &options.ready_file {
        let name = CString::new(file.as_str()).ok().filter(|_| file.starts_with('/'));
        // The init goes to another folder.
        config.ready_file = Some(name.ok_or_else(|| format!("--ready-file {file}: a path from / on is wanted"))?);
    }
    for pair in &options.env {
        config.variables.push(identity::variable(pair)?);
    }
    for pair in &options.secret {
        config.variables.push(identity::read_secret(pair)?);
    }
    Ok(config)
}

/// `TERM:QUIT`, with 0 for a signal that is dropped.
fn rewrite(pair: &str) -> Option<(usize, u8)> {
    let (from, to) = pair.split_once(':')?;
    let to = if to == "0" { 0 } else { u8::try_from(signal::parse(to)?).ok()? };
    Some((usize::try_from(signal::parse(from)?).ok()?, to))
}

/// A time: seconds, with a fraction or a unit. At most a year, so that no sum of times overflows. In integers, because
/// reading a float is as much code as the rest of the options.
pub fn seconds(text: &str) -> Option<Duration> {
    const YEAR: u64 = 31_536_000_000;
    let (number, scale) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]
        .into_iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))
        .unwrap_or((text, 1000));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let fraction = fraction.get(..fraction.len().min(9)).filter(|text| !text.is_empty())?;
    let part = digits(fraction)?.checked_mul(scale)? / 10u64.pow(fraction.len() as u32);
    let time = digits(whole)?.checked_mul(scale)?.checked_add(part)?;
    (time <= YEAR).then(|| Duration::from_millis(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_words(words: &'static [&'static str], environment: &'static [&'static str]) -> Request {
        let args: Vec<&OsStr> =
            std::iter::once("inception-init").chain(words.iter().copied()).map(OsStr::new).collect();
        read(&args, environment.iter().map(OsStr::new))
    }

    fn run(words: &'static [&'static str], environment: &'static [&'static str]) -> (Config, usize, u8) {
        match read_words(words, environment) {
            Request::Run { config, command, verbose, .. } => (*config, command[0], verbose),
            Request::Print(text) | Request::Say(text) | Request::Refuse { message: text, .. } => panic!("{text}"),
            Request::Pause => panic!("pause"),
        }
    }

    #[test]
    fn the_command_starts_at_the_first_word_that_is_no_option() {
        assert_eq!(run(&["--", "-x"], &[]).1, 2);
        assert_eq!(run(&["true", "--grace", "x"], &[]).1, 1);
        let (config, command, verbose) =
            run(&["-vv", "--grace=0.5", "--wait-all", "--rewrite", "15:3", "--", "sh"], &[]);
        assert_eq!((config.rules.grace, command, verbose), (Duration::from_millis(500), 7, 2));
        assert_eq!((config.rewrite[15], config.rewrite[2], config.rules.wait_all), (3, 2, true));
        assert_eq!(run(&["--secret=A=/dev/null", "-"], &[]).1, 2);
    }

    #[test]
    fn variables_stand_for_options_and_the_command_line_wins() {
        let environment =
            &["INCEPTION_INIT_GRACE=3", "INCEPTION_INIT_WAIT_ALL=1", "PATH=/", "INCEPTION_INIT_VERBOSE=0"];
        let (config, _, verbose) = run(&["--grace", "2m", "true"], environment);
        assert_eq!((config.rules.grace, config.rules.wait_all, verbose), (Duration::from_secs(120), true, 0));
        assert_eq!(run(&["true"], environment).0.rules.grace, Duration::from_secs(3));
        assert!(matches!(read_words(&["true"], &["INCEPTION_INIT_GRACE=x"]), Request::Refuse { .. }));
        let stands_in = |words| run(words, &["INCEPTION_INIT_AS=dumb-init"]).0.new_session;
        assert!(stands_in(&["true"]) && !stands_in(&["--as", "tini", "true"]));
        assert!(matches!(read_words(&["true"], &["INCEPTION_INIT_AS=systemd"]), Request::Refuse { .. }));
        assert_eq!(run(&["true"], &["INCEPTION_INIT_PORT=tcp://192.0.2.1:80"]).1, 1);
    }

    #[test]
    fn wrong_words_are_refused_by_name() {
        for (words, part) in [
            (&["--grace"][..], "--grace"),
            (&["--grace", "-1", "true"], "-1"),
            (&["--grace", "NaN", "true"], "NaN"),
            (&["--grace", "1e300", "true"], "1e300"),
            (&["--rewrite", "TERM:", "true"], "TERM:"),
            (&["--success", "256", "true"], "256"),
            (&["--restart", "maybe", "true"], "maybe"),
            (&["--wait-all=1", "true"], "--wait-all"),
            (&["--nonsense", "true"], "--nonsense"),
            (&["--as", "systemd", "true"], "systemd"),
            (&["-v", "--as", "tini", "true"], "--as"),
            (&["-x", "true"], "-x"),
            (&[], "no command"),
            (&["--"], "no command"),
            (&["-v"], "no command"),
        ] {
            match read_words(words, &[]) {
                Request::Refuse { message, .. } => assert!(message.contains(part), "{words:?}: {message}"),
                _ => panic!("{words:?} is taken"),
            }
        }
    }

    #[test]
    fn times() {
        let read = |text| seconds(text).map(|time| time.as_millis());
        for (text, time) in
            [("5", 5000), ("0.5", 500), ("1.25s", 1250), ("500ms", 500), ("2m", 120_000), ("0.5h", 1_800_000)]
        {
            assert_eq!(read(text), Some(time), "{text}");
        }
        assert_eq!(read("0.12345678901234567890"), Some(123));
        for wrong in
            ["", "s", ".", "1.", ".5", "-1", "+1", "1e3", "NaN", "inf", "99999999999999999999", "9999999h", "1.é"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn help_page_and_manual_name_every_option() {
        let Request::Print(help) = read_words(&["--help"], &[]) else { panic!("no help") };
        let page = include_str!("../docs/init.md");
        let manual = include_str!("../docs/man/inception-init.8").replace("\\-", "-");
        let others = ["pause", "license", "version", "help", "as", "vm"];
        let others = others.iter().filter(|name| **name != "vm" || cfg!(feature = "vm"));
        for name in VALUED.iter().chain(&REPEATED).chain(&SWITCHES).chain(others).filter(|name| **name != "verbose") {
            let option = format!("--{name}");
            assert!(help.contains(&option) && page.contains(&option) && manual.contains(&option), "{name} in:\n{help}");
        }
    }
}
