//! Times, ratios, and their place in docs/benchmarks.md.

use std::{fmt::Write, fs, path::Path, time::Duration};

/// What was measured, as Markdown.
#[derive(Default)]
pub struct Report {
    text: String,
}

/// Several takes of the same thing.
#[derive(Default, Clone)]
pub struct Takes(Vec<Duration>);

impl Takes {
    pub fn add(&mut self, take: Duration) {
        self.0.push(take);
    }

    pub fn min(&self) -> Duration {
        self.0.iter().min().copied().unwrap_or_default()
    }

    pub fn median(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

impl Report {
    pub fn title(&mut self, title: &str) {
        let _ = writeln!(self.text, "\n### {title}\n");
    }

    pub fn line(&mut self, line: &str) {
        eprintln!("{line}");
        let _ = writeln!(self.text, "{line}");
    }

    /// A table of times: a row an engine, the first is ours; ratios are ours over theirs, of the medians.
    pub fn times(&mut self, rows: &[(&str, &Takes)]) {
        self.line("| engine | min ms | median ms | ours / theirs |");
        self.line("|---|--:|--:|--:|");
        let ours = rows.first().map(|(_, takes)| takes.median()).unwrap_or_default();
        for (at, (name, takes)) in rows.iter().enumerate() {
            let ratio =
                if at == 0 { "1".into() } else { format!("{:.2}", ours.as_secs_f64() / takes.median().as_secs_f64()) };
            self.line(&format!(
                "| {name} | {:.1} | {:.1} | {ratio} |",
                milliseconds(takes.min()),
                milliseconds(takes.median())
            ));
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Replaces a part of docs/benchmarks.md; a new one gets a heading.
    pub fn write(&self, part: &str, heading: &str) {
        let (begin, end) =
            (format!("<!-- begin: {part}, written by `make bench` -->"), format!("<!-- end: {part} -->"));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
        let old = fs::read_to_string(&path).unwrap_or_else(|_| "# Benchmarks\n".into());
        let text = format!("{begin}\n{}\n{end}", self.text.trim());
        let new = match (old.find(&begin), old.find(&end)) {
            (Some(from), Some(to)) => format!("{}{text}{}", &old[..from], &old[to + end.len()..]),
            _ => format!("{}\n\n## {heading}\n\n{text}\n", old.trim_end()),
        };
        fs::write(path, new).unwrap();
    }
}

/// For a table.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
