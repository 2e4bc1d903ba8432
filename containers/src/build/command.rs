//! Instructions with their arguments understood, as far as that needs no variables.
//!
//! Source: Docker's Dockerfile reference, one section for each instruction.

use super::{
    Failure,
    lines::{self, Instruction},
    words,
};
use bollard_stubs::models::HealthConfig;

/// A command line: `["a", "b"]`, or text for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    Exec(Vec<String>),
    Shell(String),
}

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// ADD: archives are unpacked.
    pub add: bool,
    /// A stage's name or number, or an image.
    pub from: Option<String>,
    pub chown: Option<String>,
    pub sources: Vec<String>,
    pub target: String,
}

/// Everything but FROM. Variables are not substituted yet.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Arg(Vec<(String, Option<String>)>),
    Cmd(Form),
    Copy(Copy),
    Entrypoint(Form),
    Env(Vec<(String, String)>),
    Expose(String),
    /// None: HEALTHCHECK NONE.
    Healthcheck(Option<HealthConfig>),
    Label(Vec<(String, String)>),
    Maintainer(String),
    OnBuild(String),
    Run(Form),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// Where an instruction stands, for errors.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub file: &'a str,
    pub escape: char,
}

/// Understands one instruction that is not FROM.
pub fn parse(instruction: &Instruction, place: Place) -> Result<Command, Failure> {
    let keyword = instruction.keyword;
    let fail = |message: String| Failure::at(place.file, instruction.line, format!("{keyword}: {message}"));
    let known: &[&str] = match keyword {
        "COPY" => &["from", "chown"],
        "ADD" => &["chown"],
        "HEALTHCHECK" => &["interval", "timeout", "start-period", "start-interval", "retries"],
        _ => &[],
    };
    for (position, (name, value)) in instruction.flags.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            return Err(fail(unknown_flag(name)));
        }
        if value.as_deref().unwrap_or_default().is_empty() {
            return Err(fail(format!("missing a value on flag: --{name}")));
        }
        if instruction.flags[..position].iter().any(|(before, _)| before == name) {
            return Err(fail(format!("duplicate flag specified: --{name}")));
        }
    }
    if instruction.rest.is_empty() && !matches!(keyword, "CMD" | "ENTRYPOINT") {
        return Err(fail("needs at least one argument".into()));
    }
    arguments(instruction, place).map_err(fail)
}

fn arguments(instruction: &Instruction, place: Place) -> Result<Command, String> {
    let rest = &instruction.rest;
    let flag =
        |wanted: &str| instruction.flags.iter().find(|(name, _)| name == wanted).and_then(|(_, value)| value.clone());
    Ok(match instruction.keyword {
        "ADD" | "COPY" => {
            let mut sources = list(rest)?;
            let target = sources.pop().filter(|_| !sources.is_empty());
            let target = target.ok_or("needs at least two arguments: a source and a destination")?;
            let add = instruction.keyword == "ADD";
            if add && sources.iter().any(|source| is_url(source)) {
                return Err("a URL as source is not there yet; fetch it in a RUN".into());
            }
            Command::Copy(Copy { add, from: flag("from"), chown: flag("chown"), sources, target })
        }
        "ARG" => {
            let words = words::split(rest, place.escape);
            let pairs = words.iter().map(|word| match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word.clone(), None),
            });
            let pairs: Vec<_> = pairs.collect();
            if pairs.iter().any(|(name, _)| name.is_empty()) {
                return Err("names can not be blank".into());
            }
            Command::Arg(pairs)
        }
        "CMD" => Command::Cmd(form(rest)?),
        "ENTRYPOINT" => Command::Entrypoint(form(rest)?),
        "RUN" => Command::Run(form(rest)?),
        "ENV" => Command::Env(pairs(rest, place.escape)?),
        "LABEL" => Command::Label(pairs(rest, place.escape)?),
        "EXPOSE" => Command::Expose(rest.clone()),
        "HEALTHCHECK" => Command::Healthcheck(healthcheck(rest, flag)?),
        "MAINTAINER" => Command::Maintainer(rest.clone()),
        "ONBUILD" => {
            let inner = lines::parse_one(rest, instruction.line, place.file, place.escape);
            let inner = inner.map_err(|failure| failure.message_without_place())?;
            if matches!(inner.keyword, "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err(match inner.keyword {
                    "ONBUILD" => "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into(),
                    keyword => format!("{keyword} isn't allowed as an ONBUILD trigger"),
                });
            }
            parse(&inner, place).map_err(|failure| failure.message_without_place())?;
            Command::OnBuild(rest.clone())
        }
        "SHELL" => match json(rest)? {
            Some(words) if !words.is_empty() => Command::Shell(words),
            _ => return Err("needs the JSON form: [\"program\", \"argument\"]".into()),
        },
        "STOPSIGNAL" => Command::StopSignal(one(rest)?),
        "USER" => Command::User(one(rest)?),
        "VOLUME" => {
            let paths = list(rest)?;
            if paths.iter().any(|path| path.trim().is_empty()) {
                return Err("a path can not be an empty string".into());
            }
            Command::Volume(paths)
        }
        "WORKDIR" => Command::Workdir(rest.clone()),
        other => return Err(format!("{other} is not expected here")),
    })
}

fn unknown_flag(name: &str) -> String {
    match name {
        "mount" | "network" | "security" | "chmod" | "link" | "parents" | "exclude" | "checksum" | "keep-git-dir"
        | "platform" => format!("--{name} is not there yet (Docker's classic builder has it neither)"),
        _ => format!("unknown flag: --{name}"),
    }
}

/// A word of its own: STOPSIGNAL, USER.
fn one(rest: &str) -> Result<String, String> {
    match rest.split_whitespace().count() {
        1 => Ok(rest.to_owned()),
        _ if rest.contains("${") => Ok(rest.to_owned()),
        _ => Err("requires exactly one argument".into()),
    }
}

pub fn is_url(source: &str) -> bool {
    ["http://", "https://", "ftp://", "git://", "git@"].iter().any(|scheme| source.starts_with(scheme))
}

/// A JSON list of strings; None where the text is not JSON: then it is meant for the shell.
fn json(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    match serde_json::from_str::<Vec<serde_json::Value>>(text) {
        Err(_) => Ok(None),
        Ok(values) => values
            .into_iter()
            .map(|value| match value {
                serde_json::Value::String(word) => Ok(word),
                _ => Err("only string type is allowed in JSON format arrays".into()),
            })
            .collect::<Result<_, _>>()
            .map(Some),
    }
}

fn form(rest: &str) -> Result<Form, String> {
    Ok(json(rest)?.map_or_else(|| Form::Shell(rest.to_owned()), Form::Exec))
}

/// A JSON list, or words between blanks.
fn list(rest: &str) -> Result<Vec<String>, String> {
    Ok(json(rest)?.unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect()))
}

/// `name=value …`, or the old form of one name, blanks, and all the rest as its value.
fn pairs(rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = words::split(rest, escape);
    if !words[0].contains('=') {
        let (name, value) =
            rest.split_once(char::is_whitespace).ok_or("must have two arguments: a name and a value")?;
        return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(format!("names can not be blank, in {word:?}")),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")),
    };
    words.into_iter().map(pair).collect()
}

fn healthcheck(rest: &str, flag: impl Fn(&str) -> Option<String>) -> Result<Option<HealthConfig>, String> {
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let duration = |name: &str| {
        flag(name)
            .map(|text| match nanoseconds(&text) {
                None => Err(format!("--{name}={text} is not a duration: write it as 30s or 1m30s")),
                Some(time) if time != 0 && time < 1_000_000 => Err(format!("--{name} cannot be less than 1ms")),
                Some(time) => Ok(time),
            })
            .transpose()
    };
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.trim().is_empty() => Ok(None),
        "NONE" => Err("NONE takes no arguments".into()),
        "CMD" => {
            let test = match form(command.trim())? {
                Form::Exec(words) => [vec!["CMD".to_owned()], words].concat(),
                Form::Shell(text) => vec!["CMD-SHELL".into(), text],
            };
            if test.get(1).is_none_or(String::is_empty) {
                return Err("Missing command after HEALTHCHECK CMD".into());
            }
            let retries = flag("retries")
                .map(|text| {
                    let count = text.parse::<i64>().ok().filter(|count| *count >= 0);
                    count.ok_or_else(|| format!("--retries={text} must be a number, at least 1"))
                })
                .transpose()?;
            Ok(Some(HealthConfig {
                test: Some(test),
                interval: duration("interval")?,
                timeout: duration("timeout")?,
                start_period: duration("start-period")?,
                start_interval: duration("start-interval")?,
                retries,
            }))
        }
        _ => Err(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")),
    }
}

/// A duration of Go's: decimal numbers, each with a unit.
fn nanoseconds(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|character: char| character.is_ascii_digit()).unwrap_or(rest.len());
        total += number * UNITS.iter().find(|(name, _)| *name == &rest[..unit])?.1;
        rest = &rest[unit..];
    }
    (!text.is_empty() && total < i64::MAX as f64).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Result<Command, Failure> {
        let place = Place { file: "Dockerfile", escape: '\\' };
        parse(&lines::parse_one(text, 7, place.file, place.escape)?, place)
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn json_is_exec_form_and_what_only_looks_so_is_for_the_shell() {
        assert_eq!(command("CMD [\"a\", \"b c\"]").unwrap(), Command::Cmd(Form::Exec(strings(&["a", "b c"]))));
        assert_eq!(command("CMD ['a']").unwrap(), Command::Cmd(Form::Shell("['a']".into())));
        assert_eq!(command("RUN [ -f x ] && y").unwrap(), Command::Run(Form::Shell("[ -f x ] && y".into())));
        assert_eq!(command("CMD").unwrap(), Command::Cmd(Form::Shell(String::new())));
        assert_eq!(
            command("CMD [1]").unwrap_err().to_string(),
            "Dockerfile:7: CMD: only string type is allowed in JSON format arrays"
        );
    }

    #[test]
    fn env_in_both_forms() {
        let env = |pairs: &[(&str, &str)]| {
            Command::Env(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
        };
        assert_eq!(command("ENV a b  c=d \"e\"").unwrap(), env(&[("a", "b  c=d \"e\"")]));
        assert_eq!(command("ENV a=b c=\"d e\" f=g\\ h").unwrap(), env(&[("a", "b"), ("c", "\"d e\""), ("f", "g\\ h")]));
        assert!(command("ENV a=b c").unwrap_err().to_string().contains("can't find = in \"c\""));
        assert!(command("ENV a").unwrap_err().to_string().contains("must have two arguments"));
        assert!(command("ENV =b").unwrap_err().to_string().contains("blank"));
    }

    #[test]
    fn copy_takes_lists_and_flags() {
        let Command::Copy(copy) = command("COPY --from=0 --chown=a:b [\"x y\", \"/z\"]").unwrap() else { panic!() };
        assert_eq!((copy.sources, copy.target.as_str()), (strings(&["x y"]), "/z"));
        assert_eq!((copy.from.as_deref(), copy.chown.as_deref(), copy.add), (Some("0"), Some("a:b"), false));
        for (text, error) in [
            ("COPY a", "COPY: needs at least two arguments"),
            ("COPY --chmod=1 a b", "COPY: --chmod is not there yet"),
            ("COPY --form=1 a b", "COPY: unknown flag: --form"),
            ("COPY --from a b", "missing a value on flag: --from"),
            ("COPY --from=a --from=b a b", "duplicate flag"),
            ("RUN --mount=type=cache x", "RUN: --mount is not there yet"),
            ("ADD https://x/y /z", "ADD: a URL as source is not there yet"),
            ("ADD --from=0 a b", "ADD: unknown flag: --from"),
        ] {
            assert!(command(text).unwrap_err().to_string().contains(error), "{text}");
        }
    }

    #[test]
    fn health_checks() {
        let health = command("HEALTHCHECK --interval=1m30s --retries=4 CMD [\"a\"]").unwrap();
        let expected = HealthConfig {
            test: Some(strings(&["CMD", "a"])),
            interval: Some(90_000_000_000),
            retries: Some(4),
            ..HealthConfig::default()
        };
        assert_eq!(health, Command::Healthcheck(Some(expected)));
        assert_eq!(command("healthcheck none").unwrap(), Command::Healthcheck(None));
        for bad in ["HEALTHCHECK x", "HEALTHCHECK CMD", "HEALTHCHECK NONE x", "HEALTHCHECK --timeout=3 CMD x"] {
            assert!(command(bad).is_err(), "{bad}");
        }
        assert_eq!(nanoseconds("1.5ms"), Some(1_500_000));
        assert_eq!(nanoseconds("x"), None);
    }

    #[test]
    fn onbuild_holds_any_but_three() {
        assert_eq!(command("ONBUILD RUN x").unwrap(), Command::OnBuild("RUN x".into()));
        assert!(command("ONBUILD ONBUILD RUN x").unwrap_err().to_string().contains("Chaining ONBUILD"));
        assert!(command("ONBUILD FROM x").unwrap_err().to_string().contains("isn't allowed"));
        assert_eq!(
            command("ONBUILD RNU x").unwrap_err().to_string(),
            "Dockerfile:7: ONBUILD: unknown instruction: RNU (did you mean RUN?)"
        );
    }

    #[test]
    fn arguments_that_must_be_there() {
        for bad in
            ["USER", "RUN", "ENV", "WORKDIR", "VOLUME", "STOPSIGNAL a b", "SHELL sh -c", "SHELL []", "VOLUME [\"\"]"]
        {
            assert!(command(bad).is_err(), "{bad}");
        }
        let args = Command::Arg(vec![("a".into(), None), ("b".into(), Some("\"c d\"".into()))]);
        assert_eq!(command("ARG a b=\"c d\"").unwrap(), args);
    }
}
