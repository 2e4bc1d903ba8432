//! A Dockerfile as stages: what each is based on, what it takes from others, which the target needs.

use super::{
    Failure, Request,
    command::{self, Command, Place},
    lines::{self, Instruction},
    words,
};
use crate::image::architecture;
use std::collections::{BTreeMap, BTreeSet};

/// An instruction of a stage.
#[derive(Debug, Clone)]
pub struct Step {
    pub line: usize,
    pub text: String,
    pub command: Command,
}

/// Where a stage begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    Scratch,
    /// An earlier stage's index.
    Stage(usize),
    Image(String),
}

/// FROM and what follows it.
#[derive(Debug, Clone)]
pub struct Stage {
    pub line: usize,
    /// As it is written.
    pub text: String,
    pub base: Base,
    pub name: Option<String>,
    pub steps: Vec<Step>,
}

/// A whole Dockerfile.
#[derive(Debug)]
pub struct Plan {
    pub escape: char,
    /// The ARGs before the first FROM, and their values, which ARG without a default takes up in a stage.
    pub meta: Vec<Step>,
    pub meta_values: BTreeMap<String, String>,
    pub stages: Vec<Stage>,
    /// Index of the stage that is wanted.
    pub target: usize,
    /// Indices of the stages to be built, in order; the target is the last.
    pub needed: Vec<usize>,
}

/// The build's own variables, which FROM may use, and ARG may take up.
fn platform_values() -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for side in ["TARGET", "BUILD"] {
        values.insert(format!("{side}PLATFORM"), format!("linux/{}", architecture()));
        values.insert(format!("{side}OS"), "linux".into());
        values.insert(format!("{side}ARCH"), architecture().into());
        values.insert(format!("{side}VARIANT"), String::new());
    }
    values
}

impl Plan {
    /// Parses a Dockerfile and finds what `request` needs of it.
    pub fn parse(text: &str, request: &Request) -> Result<Plan, Failure> {
        let file = request.dockerfile.as_str();
        let lines = lines::parse(text, file)?;
        let place = Place { file, escape: lines.escape };
        let mut plan = Plan {
            escape: lines.escape,
            meta: Vec::new(),
            meta_values: platform_values(),
            stages: Vec::new(),
            target: 0,
            needed: Vec::new(),
        };
        for instruction in lines.instructions {
            let line = instruction.line;
            if instruction.keyword == "FROM" {
                let stage = plan.from(&instruction, place)?;
                plan.stages.push(stage);
                continue;
            }
            let command = command::parse(&instruction, place)?;
            let step = Step { line, text: instruction.text, command };
            match (plan.stages.last_mut(), &step.command) {
                (Some(stage), _) => stage.steps.push(step),
                (None, Command::Arg(pairs)) => {
                    plan.meta_arguments(pairs, request).map_err(|error| Failure::at(file, line, error))?;
                    plan.meta.push(step);
                }
                (None, _) => {
                    return Err(Failure::at(
                        file,
                        line,
                        format!("no build stage in current context: FROM must come before {}", instruction.keyword),
                    ));
                }
            }
        }
        if plan.stages.is_empty() {
            return Err(Failure::at(file, 0, "no build stage in current context: there is no FROM"));
        }
        plan.target = plan.find_target(request.target.as_deref()).map_err(|error| Failure::at(file, 0, error))?;
        plan.needed = plan.find_needed(file)?;
        Ok(plan)
    }

    fn meta_arguments(&mut self, pairs: &[(String, Option<String>)], request: &Request) -> Result<(), String> {
        for (name, default) in pairs {
            let value = match (request.build_args.get(name), default) {
                (Some(Some(given)), _) => Some(given.clone()),
                (_, Some(default)) => Some(self.expand(default)?),
                _ => None,
            };
            if let Some(value) = value {
                self.meta_values.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    fn expand(&self, word: &str) -> Result<String, String> {
        words::expand(word, self.escape, &|name| self.meta_values.get(name).cloned())
    }

    fn from(&self, instruction: &Instruction, place: Place) -> Result<Stage, Failure> {
        let fail = |message: String| Failure::at(place.file, instruction.line, format!("FROM: {message}"));
        for (name, value) in &instruction.flags {
            let value = value.as_deref().unwrap_or_default();
            if name != "platform" {
                return Err(fail(format!("unknown flag: --{name}")));
            }
            let wanted = self.expand(value).map_err(fail)?;
            if !is_own_platform(&wanted) {
                return Err(fail(format!(
                    "--platform={wanted} is not there yet: this machine is linux/{}",
                    architecture()
                )));
            }
        }
        let parts: Vec<&str> = instruction.rest.split_whitespace().collect();
        let (base, name) = match parts[..] {
            [base] => (base, None),
            [base, word, name] if word.eq_ignore_ascii_case("as") => (base, Some(name.to_ascii_lowercase())),
            _ => return Err(fail("requires either one or three arguments: FROM image [AS name]".into())),
        };
        if let Some(name) = &name {
            let fits = name.starts_with(|first: char| first.is_ascii_lowercase())
                && name.chars().all(|other| other.is_ascii_alphanumeric() || "-_.".contains(other));
            if !fits {
                return Err(fail(format!(
                    "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
                )));
            }
        }
        let expanded = self.expand(base).map_err(fail)?;
        let base = match expanded.as_str() {
            "" => return Err(fail(format!("base name ({base}) should not be blank"))),
            "scratch" => Base::Scratch,
            other => self.by_name(other).map_or_else(|| Base::Image(expanded.clone()), Base::Stage),
        };
        Ok(Stage { line: instruction.line, text: instruction.text.clone(), base, name, steps: Vec::new() })
    }

    /// The last stage of that name so far.
    fn by_name(&self, name: &str) -> Option<usize> {
        self.stages.iter().rposition(|stage| stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name)))
    }

    fn find_target(&self, target: Option<&str>) -> Result<usize, String> {
        let Some(target) = target.filter(|target| !target.is_empty()) else { return Ok(self.stages.len() - 1) };
        let number = target.parse::<usize>().ok().filter(|number| *number < self.stages.len());
        self.by_name(target).or(number).ok_or_else(|| {
            let names: Vec<&str> = self.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
            format!("failed to reach build target {target}: the stages are {}", names.join(", "))
        })
    }

    /// What COPY --from in stage `at` names: a stage before it, or an image (None).
    pub fn source_stage(&self, from: &str, at: usize) -> Result<Option<usize>, String> {
        let before = &self.stages[..at];
        let named =
            before.iter().rposition(|stage| stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(from)));
        match (named, from.parse::<usize>()) {
            (Some(index), _) => Ok(Some(index)),
            (None, Ok(index)) if index < at => Ok(Some(index)),
            (None, Ok(index)) => {
                Err(format!("invalid from flag value {index}: there is no stage {index} before this one"))
            }
            (None, Err(_)) => Ok(None),
        }
    }

    fn find_needed(&self, file: &str) -> Result<Vec<usize>, Failure> {
        let mut needed = BTreeSet::from([self.target]);
        for index in (0..=self.target).rev() {
            if !needed.contains(&index) {
                continue;
            }
            let stage = &self.stages[index];
            if let Base::Stage(base) = stage.base {
                needed.insert(base);
            }
            for step in &stage.steps {
                if let Command::Copy(command::Copy { from: Some(from), .. }) = &step.command {
                    let source = self.source_stage(from, index).map_err(|error| Failure::at(file, step.line, error))?;
                    needed.extend(source);
                }
            }
        }
        Ok(needed.into_iter().collect())
    }

    /// Instructions that are to be carried out.
    pub fn count(&self) -> usize {
        self.meta.len() + self.needed.iter().map(|index| 1 + self.stages[*index].steps.len()).sum::<usize>()
    }
}

/// `linux/amd64`, `linux`, `amd64`, or the same with the names that uname has.
pub fn is_own_platform(wanted: &str) -> bool {
    let (os, machine) = match wanted.split_once('/') {
        Some((os, machine)) => (os, machine),
        None if wanted == "linux" => ("linux", architecture()),
        None => ("linux", wanted),
    };
    let machine = match machine {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" | "arm64/v8" => "arm64",
        other => other,
    };
    os == "linux" && (machine == architecture() || machine.strip_suffix("/v1") == Some(architecture()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, arguments: &[(&str, &str)]) -> Request {
        Request {
            dockerfile: "Dockerfile".into(),
            target: Some(target.into()),
            build_args: arguments.iter().map(|(name, value)| (name.to_string(), Some(value.to_string()))).collect(),
            ..Request::default()
        }
    }

    fn plan(text: &str, target: &str) -> Plan {
        Plan::parse(text, &request(target, &[])).unwrap_or_else(|failure| panic!("{failure}"))
    }

    fn error(text: &str) -> String {
        Plan::parse(text, &request("", &[])).unwrap_err().to_string()
    }

    const STAGES: &str = "ARG V=1\nFROM a:$V AS one\nRUN x\nFROM b AS two\nCOPY --from=one /x /\n\
                          FROM scratch AS Three\nFROM two\nCOPY --from=2 /y /\n";

    #[test]
    fn only_needed_stages_are_built() {
        let whole = plan(STAGES, "");
        assert_eq!((whole.target, &whole.needed[..]), (3, &[0, 1, 2, 3][..]));
        assert_eq!(whole.count(), 8);
        assert_eq!(whole.stages[0].base, Base::Image("a:1".into()));
        assert_eq!(whole.stages[3].base, Base::Stage(1));
        assert_eq!(plan(STAGES, "TWO").needed, [0, 1]);
        assert_eq!(plan(STAGES, "three").needed, [2]);
        assert_eq!(plan(STAGES, "0").needed, [0]);
    }

    #[test]
    fn arguments_before_from_are_for_from() {
        let given = Plan::parse("ARG V=1\nARG W=a$V\nFROM $W:${V:-x}", &request("", &[("V", "7")])).unwrap();
        assert_eq!(given.stages[0].base, Base::Image("a7:7".into()));
        assert_eq!(error("FROM $none"), "Dockerfile:1: FROM: base name ($none) should not be blank");
        let own = format!("FROM --platform=$BUILDPLATFORM a\nFROM --platform=linux/{} b", architecture());
        assert_eq!(plan(&own, "").stages.len(), 2);
        assert!(error("FROM --platform=windows/amd64 a").contains("Dockerfile:1: FROM: --platform=windows/amd64"));
    }

    #[test]
    fn mistakes_point_at_their_line() {
        for (text, expected) in [
            ("RUN x\nFROM a", "Dockerfile:1: no build stage in current context"),
            ("ARG x", "Dockerfile: no build stage"),
            ("FROM a b", "Dockerfile:1: FROM: requires either one or three"),
            ("FROM a AS 1b", "Dockerfile:1: FROM: invalid name for build stage"),
            ("FROM a\nCOPY --from=0 x y", "Dockerfile:2: invalid from flag value 0"),
            ("FROM a\nFROM b\nCOPY --from=4 x y", "Dockerfile:3: invalid from flag value 4"),
        ] {
            assert!(error(text).starts_with(expected), "{text:?}: {}", error(text));
        }
        let missing = Plan::parse(STAGES, &request("four", &[])).unwrap_err().to_string();
        assert_eq!(missing, "Dockerfile: failed to reach build target four: the stages are one, two, three");
    }
}
