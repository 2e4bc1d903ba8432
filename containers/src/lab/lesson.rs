//! A lesson's text: a Markdown file in `lessons/`, which also reads well by itself.
//!
//! ```text
//! # 1 sigterm: one line
//! ## Question
//! ## Program            code blocks, the info string is `LANGUAGE FILE`
//! ## What do you expect?  a list, `[x]` before what is right
//! ## Why
//! ## How to do it right  with a Dockerfile
//! ## Expected           a table: a row an observation, a column an alternative
//! ```

use super::{
    alternative::Alternative,
    daemons, experiments, layers, networks, parts,
    recording::{Observation, Outcome, Value},
    stage::Stage,
    storage,
};
use crate::error::Result;
use Experiment::{Under, With};
use std::{sync::LazyLock, time::Duration};

/// What a lesson does: it measures, and never knows what is expected.
#[derive(Clone, Copy)]
pub enum Experiment {
    /// Under each alternative.
    Under(fn(&mut Stage) -> Result<()>),
    /// With each of the things that the lesson compares, by name: the columns of its table.
    With(fn(&mut Stage, &str) -> Result<()>),
}

pub struct Lesson {
    pub number: u32,
    /// As typed: `sigterm`.
    pub name: String,
    /// One line for the list.
    pub title: String,
    pub question: String,
    pub programs: Vec<Program>,
    pub choices: Vec<Choice>,
    pub why: String,
    /// How to do it right; Markdown with a Dockerfile.
    pub remedy: String,
    pub experiment: Experiment,
    /// What is compared, by name.
    pub columns: Vec<String>,
    expectations: Vec<Expected>,
}

/// A program of the lesson, shown and run.
pub struct Program {
    /// `sh`, `perl`, `bash`: for colours.
    pub language: String,
    /// Its name in the lesson's folder.
    pub file: String,
    pub text: String,
}

/// An answer to “what do you expect?”.
pub struct Choice {
    pub text: String,
    pub is_right: bool,
}

struct Expected {
    column: String,
    observation: String,
    value: Expectation,
}

/// What a cell of the table says.
#[derive(Debug, Clone, PartialEq)]
enum Expectation {
    Is(Value),
    /// `50..64`, `300..`, `..10`
    Between(i64, i64),
    /// `at once`: milliseconds, before half of the grace period is over.
    AtOnce,
    /// `grace`: milliseconds, all of the grace period.
    Grace,
}

const TEXTS: &[(&str, Experiment)] = &[
    (include_str!("lessons/01-sigterm.md"), Under(experiments::sigterm)),
    (include_str!("lessons/02-zombies.md"), Under(experiments::zombies)),
    (include_str!("lessons/03-orphans.md"), Under(experiments::orphans)),
    (include_str!("lessons/04-clean-up.md"), Under(experiments::clean_up)),
    (include_str!("lessons/05-exit-codes.md"), Under(experiments::exit_codes)),
    (include_str!("lessons/06-inside.md"), Under(experiments::inside)),
    (include_str!("lessons/07-worker.md"), Under(experiments::worker)),
    (include_str!("lessons/08-daemon.md"), Under(experiments::daemon)),
    (include_str!("lessons/09-ctrl-c.md"), Under(experiments::ctrl_c)),
    (include_str!("lessons/10-early.md"), Under(experiments::early)),
    (include_str!("lessons/11-trap.md"), Under(experiments::trap)),
    (include_str!("lessons/12-parts.md"), With(parts::parts)),
    (include_str!("lessons/13-daemons.md"), With(daemons::daemons)),
    (include_str!("lessons/14-storage.md"), With(storage::storage)),
    (include_str!("lessons/15-networks.md"), With(networks::networks)),
    (include_str!("lessons/16-layers.md"), With(layers::layers)),
];

static LESSONS: LazyLock<Vec<Lesson>> = LazyLock::new(|| {
    TEXTS
        .iter()
        .map(|(text, experiment)| read(text, *experiment).unwrap_or_else(|why| panic!("a lesson: {why}")))
        .collect()
});

/// All lessons, in their order.
pub fn all() -> &'static [Lesson] {
    &LESSONS
}

/// The lesson with this number or name.
pub fn find(word: &str) -> Option<&'static Lesson> {
    all().iter().find(|lesson| lesson.name == word || lesson.number.to_string() == word)
}

impl Lesson {
    /// What was measured, beside what is expected. What should have been measured and was not is a difference too.
    pub(super) fn judge(
        &self,
        mut observations: Vec<Observation>,
        column: &str,
        grace: Duration,
        outcome: &Outcome,
    ) -> Vec<Observation> {
        for expected in self.expectations.iter().filter(|expected| expected.column == column) {
            let words = expected.value.words(grace);
            match observations.iter_mut().find(|found| found.name == expected.observation) {
                Some(found) => {
                    found.agrees = expected.value.holds(&found.value, grace);
                    found.expected = Some(words);
                }
                None if *outcome == Outcome::Ran => observations.push(Observation {
                    name: expected.observation.clone(),
                    value: Value::Text("not measured".into()),
                    unit: None,
                    expected: Some(words),
                    agrees: false,
                }),
                None => {}
            }
        }
        observations
    }
}

impl Expectation {
    fn read(cell: &str) -> Option<Expectation> {
        Some(match cell {
            "" | "–" => return None,
            "yes" => Expectation::Is(Value::Flag(true)),
            "no" => Expectation::Is(Value::Flag(false)),
            "at once" => Expectation::AtOnce,
            "grace" => Expectation::Grace,
            range if range.contains("..") => {
                let (from, to) = range.split_once("..")?;
                Expectation::Between(from.parse().unwrap_or(i64::MIN), to.parse().unwrap_or(i64::MAX))
            }
            number if number.parse::<i64>().is_ok() => Expectation::Is(Value::Number(number.parse().ok()?)),
            text => Expectation::Is(Value::Text(text.to_owned())),
        })
    }

    fn holds(&self, value: &Value, grace: Duration) -> bool {
        let grace = grace.as_millis() as i64;
        match (self, value) {
            (Expectation::Is(expected), value) => expected == value,
            (Expectation::Between(from, to), Value::Number(number)) => (from..=to).contains(&number),
            (Expectation::AtOnce, Value::Number(number)) => *number < grace / 2,
            (Expectation::Grace, Value::Number(number)) => *number >= grace,
            _ => false,
        }
    }

    fn words(&self, grace: Duration) -> String {
        let grace = grace.as_millis();
        match self {
            Expectation::Is(value) => value.to_string(),
            Expectation::Between(i64::MIN, to) => format!("at most {to}"),
            Expectation::Between(from, i64::MAX) => format!("at least {from}"),
            Expectation::Between(from, to) => format!("{from} to {to}"),
            Expectation::AtOnce => format!("less than {}", grace / 2),
            Expectation::Grace => format!("at least {grace}"),
        }
    }
}

fn read(text: &str, experiment: Experiment) -> Result<Lesson, String> {
    let (heading, _) = text.split_once('\n').ok_or("no heading")?;
    let (number, rest) = heading.strip_prefix("# ").and_then(|it| it.split_once(' ')).ok_or("no number")?;
    let (name, title) = rest.split_once(": ").ok_or("no title")?;
    let section = |wanted: &str| section(text, wanted).map_err(|why| format!("{name}: {why}"));
    let choice = |line: &str| -> Option<Choice> {
        let (mark, text) = line.strip_prefix("- [")?.split_once("] ")?;
        Some(Choice { text: text.to_owned(), is_right: mark == "x" })
    };
    let (columns, expectations) = expectations(section("Expected")?)?;
    if matches!(experiment, Under(_)) && columns != Alternative::ALL.map(Alternative::name) {
        return Err(format!("{name}: its columns are not the alternatives"));
    }
    Ok(Lesson {
        number: number.parse().map_err(|_| format!("{number} is no number"))?,
        name: name.to_owned(),
        title: title.to_owned(),
        question: section("Question")?.to_owned(),
        programs: programs(section("Program")?),
        choices: section("What do you expect?")?.lines().filter_map(choice).collect(),
        why: section("Why")?.to_owned(),
        remedy: section("How to do it right")?.to_owned(),
        experiment,
        columns,
        expectations,
    })
}

/// The text below `## WANTED`.
pub(super) fn section<'a>(text: &'a str, wanted: &str) -> Result<&'a str, String> {
    let body = text.split("\n## ").skip(1).find_map(|part| part.strip_prefix(wanted)?.strip_prefix('\n'));
    body.map(str::trim).ok_or_else(|| format!("no section “{wanted}”"))
}

/// The code blocks whose info string is `LANGUAGE FILE`.
pub(super) fn programs(section: &str) -> Vec<Program> {
    let program = |block: &str| -> Option<Program> {
        let (info, rest) = block.split_once('\n')?;
        let (language, file) = info.split_once(' ')?;
        Some(Program { language: language.into(), file: file.into(), text: rest.to_owned() })
    };
    section.split("```").skip(1).step_by(2).filter_map(program).collect()
}

fn expectations(section: &str) -> Result<(Vec<String>, Vec<Expected>), String> {
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|-"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let (head, rows) = rows.split_first().ok_or("no table")?;
    let mut found = Vec::new();
    for row in rows {
        for (column, cell) in head.iter().zip(row).skip(1) {
            if let Some(value) = Expectation::read(cell) {
                found.push(Expected { column: (*column).to_owned(), observation: row[0].to_owned(), value });
            }
        }
    }
    Ok((head[1..].iter().map(|column| (*column).to_owned()).collect(), found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lesson_is_whole() {
        for (index, lesson) in all().iter().enumerate() {
            assert_eq!(lesson.number as usize, index + 1);
            let right = lesson.choices.iter().filter(|choice| choice.is_right).count();
            assert_eq!((right, lesson.choices.len() >= 3), (1, true), "{}", lesson.name);
            assert!(!lesson.programs.is_empty() && lesson.remedy.contains("```dockerfile"), "{}", lesson.name);
            for program in &lesson.programs {
                assert!(program.text.lines().count() <= 20, "{}: {} is long", lesson.name, program.file);
                assert!(program.text.lines().all(|line| line.chars().count() <= 100), "{}", lesson.name);
            }
            for column in &lesson.columns {
                let count = lesson.expectations.iter().filter(|one| one.column == *column).count();
                assert!(count > 0, "{}: nothing expected of {column}", lesson.name);
            }
            assert_eq!(find(&lesson.name).map(|found| found.number), Some(lesson.number));
        }
    }

    #[test]
    fn cells() {
        let grace = Duration::from_secs(3);
        let holds = |cell: &str, value: i64| Expectation::read(cell).unwrap().holds(&Value::Number(value), grace);
        assert!(holds("143", 143) && !holds("143", 137));
        assert!(holds("50..64", 50) && holds("50..64", 64) && !holds("50..64", 65) && holds("300..", 300));
        assert!(holds("grace", 3004) && !holds("grace", 2999) && holds("at once", 1) && !holds("at once", 1500));
        assert_eq!(Expectation::read("–"), None);
        assert!(!holds("yes", 1) && !holds("sh", 1));
        assert_eq!(Expectation::read("300..").unwrap().words(grace), "at least 300");
    }
}
