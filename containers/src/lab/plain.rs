//! A lesson and its runs as plain lines: what is shown where there is no terminal, and what `lab all` sums up.

use super::{
    lesson::Lesson,
    plain_network,
    recording::{Kind, Observation, Outcome, Process, Recording, Run, Source},
};
use std::fmt::Write;

/// How many lines of a run's story are shown.
const STORY_LINES: usize = 16;

/// The question, the programs and the choices.
pub fn before(lesson: &Lesson) -> String {
    let mut text = format!("Lesson {}, {}: {}\n\n{}\n", lesson.number, lesson.name, lesson.title, lesson.question);
    for program in &lesson.programs {
        let _ = write!(text, "\n  {}\n", program.file);
        for line in program.text.lines() {
            let _ = writeln!(text, "  | {line}");
        }
    }
    text += "\nWhat do you expect?\n";
    for (index, choice) in lesson.choices.iter().enumerate() {
        let _ = writeln!(text, "  {}. {}", index + 1, choice.text);
    }
    text
}

/// Why it is so, and how to do it right.
pub fn after(lesson: &Lesson) -> String {
    let right = lesson.choices.iter().filter(|choice| choice.is_right).map(|choice| choice.text.as_str());
    let right = right.collect::<Vec<_>>().join("; ");
    format!("The answer: {right}\n\nWhy\n{}\n\nHow to do it right\n{}\n", lesson.why, unfenced(&lesson.remedy))
}

/// What happened under each alternative, then all observations side by side.
pub fn happened(runs: &[Run]) -> String {
    let mut text = String::new();
    for run in runs {
        let _ = writeln!(text, "{}", headline(run));
        if let Some(map) = &run.network {
            text += &format!("\n{}\n", plain_network::drawing(map));
        }
        if run.outcome == Outcome::Ran && !run.recording.events.is_empty() {
            text += &story(&run.recording);
        }
    }
    text.push('\n');
    text += &table(runs);
    text += &differences(runs);
    text += &source(runs);
    text
}

fn headline(run: &Run) -> String {
    match &run.outcome {
        Outcome::Ran => format!("{}: {}", run.alternative, run.command),
        Outcome::NotInstalled(install) => format!("{}: not installed; to get it: {install}", run.alternative),
        Outcome::NotApplicable(why) => format!("{}: not run: {why}", run.alternative),
        Outcome::Failed(why) => format!("{}: could not be run: {why}", run.alternative),
    }
}

/// The telling events of a run, a line each; forks, execs, exits and reaps are counted.
fn story(recording: &Recording) -> String {
    let mut lines: Vec<(Kind, String)> = Vec::new();
    let (mut last, mut alike) = (None, 0);
    let mut counted =
        [(Kind::Fork, 0, "forks"), (Kind::Exec, 0, "execs"), (Kind::Exit, 0, "exits"), (Kind::Reap, 0, "reaps")];
    for event in &recording.events {
        if let Some((_, count, _)) = counted.iter_mut().find(|(kind, ..)| *kind == event.kind) {
            *count += 1;
            let is_root = |pid| recording.process(pid).is_some_and(|process| process.parent == super::recording::LAB);
            if !(event.kind == Kind::Exit && is_root(event.pid)) {
                continue;
            }
        }
        let who = match event.kind {
            Kind::Phase => "lab".to_owned(),
            _ => named(recording, event.pid),
        };
        let whom = event.other.map_or_else(String::new, |pid| format!(" -> {}", named(recording, pid)));
        let verb = match event.kind {
            Kind::SignalForwarded => "forwards ",
            Kind::SignalSent | Kind::SignalIgnored => "sends ",
            Kind::Output => "writes: ",
            _ => "",
        };
        // What PID 1 itself ended with is known to the lab, which waits for it.
        let status = recording.process(event.pid).and_then(|process| process.exit_status);
        let text = match (event.kind, status) {
            (Kind::Exit, Some(status)) if event.text == "ends" => format!("ends: {status}"),
            _ => event.text.clone(),
        };
        // Of many alike in a row, the first is shown.
        let like = (event.kind, event.pid, text.clone());
        if last.as_ref() == Some(&like) && event.kind != Kind::Output {
            alike += 1;
            continue;
        }
        end_of_alike(&mut lines, alike);
        (last, alike) = (Some(like), 0);
        let line = format!("  {:>8.1} ms  {who}{whom}: {verb}{text}\n", event.at as f64 / 1000.0);
        lines.push((event.kind, line));
    }
    end_of_alike(&mut lines, alike);
    let all = lines.len();
    if all > STORY_LINES {
        // A runtime makes orphans all the time: they tell least.
        lines.retain(|(kind, _)| *kind != Kind::Adopt);
    }
    let too_many = lines.len().saturating_sub(STORY_LINES);
    if too_many > 0 {
        lines.drain(STORY_LINES / 2..STORY_LINES / 2 + too_many);
    }
    let left = all - lines.len();
    let mut lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    if left > 0 {
        // The end tells most.
        lines.insert(lines.len() / 2, format!("              … {left} more\n"));
    }
    let counts: Vec<String> = counted.iter().map(|(_, count, name)| format!("{count} {name}")).collect();
    lines.concat() + &format!("              {}\n", counts.join(", "))
}

/// Says how many more there were of the last line.
fn end_of_alike(lines: &mut [(Kind, String)], alike: usize) {
    if let Some((_, line)) = lines.last_mut().filter(|_| alike > 0) {
        *line += &format!("              … and {alike} more\n");
    }
}

fn named(recording: &Recording, pid: i32) -> String {
    match recording.process(pid) {
        Some(Process { name, inner: Some(inner), .. }) => format!("{name}[{inner}]"),
        Some(Process { name, .. }) => format!("{name}[–]"),
        None => "lab".into(),
    }
}

/// A row an observation, a column an alternative.
fn table(runs: &[Run]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for observation in runs.iter().flat_map(|run| &run.observations) {
        if !names.contains(&observation.name.as_str()) {
            names.push(&observation.name);
        }
    }
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(runs.iter().map(|run| run.alternative.clone()));
    for name in names {
        let cell = |run: &Run| {
            let found = run.observations.iter().find(|observation| observation.name == name);
            found.map_or_else(|| "–".into(), measured)
        };
        let unit =
            runs.iter().flat_map(|run| &run.observations).find(|one| one.name == name).and_then(|one| one.unit.clone());
        let head = unit.map_or_else(|| name.to_owned(), |unit| format!("{name}, {unit}"));
        rows.push(std::iter::once(head).chain(runs.iter().map(cell)).collect());
    }
    aligned(&rows)
}

fn measured(observation: &Observation) -> String {
    // A mark, because colour is never the only sign.
    if observation.agrees { observation.value.to_string() } else { format!("{} (!)", observation.value) }
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}", width = *width));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// What was measured and is not as expected.
fn differences(runs: &[Run]) -> String {
    let mut text = String::new();
    for run in runs {
        for observation in run.observations.iter().filter(|observation| !observation.agrees) {
            let expected = observation.expected.as_deref().unwrap_or_default();
            let (name, value) = (&observation.name, &observation.value);
            let _ = writeln!(text, "(!) {}: {name} is {value}, expected: {expected}", run.alternative);
        }
    }
    text
}

fn source(runs: &[Run]) -> String {
    let Some(run) = runs.iter().find(|run| run.outcome == Outcome::Ran) else { return String::new() };
    let lost = runs.iter().map(|run| run.lost_events).max().unwrap_or(0);
    match run.source {
        Source::Tracepoints => format!("Seen by the kernel's tracepoints and /proc; {lost} events lost.\n"),
        Source::Proc => "Seen in /proc every 5 ms, and by inception-init's event log: no right to the kernel's \
                         tracepoints, and what is shorter may be missing.\n"
            .into(),
    }
}

/// One line a lesson, for the end of `lab all`.
pub fn summary(lessons: &[(&Lesson, Vec<Run>)]) -> String {
    let line = |(lesson, runs): &(&Lesson, Vec<Run>)| {
        let ran = runs.iter().filter(|run| run.outcome == Outcome::Ran);
        let (count, missing) = (ran.clone().count(), runs.len() - ran.clone().count());
        let observations = ran.clone().map(|run| run.observations.len()).sum::<usize>();
        let differ: usize = ran.map(|run| run.observations.iter().filter(|one| !one.agrees).count()).sum();
        vec![
            lesson.number.to_string(),
            lesson.name.clone(),
            format!("{count} alternatives"),
            if missing > 0 { format!("{missing} not run") } else { String::new() },
            format!("{observations} observations"),
            if differ > 0 { format!("{differ} NOT AS EXPECTED") } else { "all as expected".into() },
        ]
    };
    aligned(&lessons.iter().map(line).collect::<Vec<_>>())
}

/// Markdown's code blocks as indented lines.
fn unfenced(text: &str) -> String {
    let mut inside = false;
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else {
            let _ = writeln!(out, "{}{line}", if inside { "  | " } else { "" });
        }
    }
    out.trim_end().to_owned()
}
