//! What stands above a picture, at the times of its telling events: numbers that lead to the lines below, or words.

use super::{axis::Axis, lane::percent, story::Line};
use crate::lab::{recording::Kind, signals};
use maud::{Markup, html};

/// Pixels of a level: marks stand above each other where they would overlap.
pub const LEVEL: f64 = 17.0;
const LEVELS: usize = 5;
/// How far apart numbers of one level are, percent.
const NUMBER_ROOM: f64 = 5.5;
/// The width of a letter where a picture is as wide as a page, percent.
const LETTER: f64 = 0.85;

/// One mark, on its level from the top.
pub struct Mark {
    pub level: usize,
    pub drawn: Markup,
}

/// Each line's number.
pub fn numbers(lines: &[Line], axis: &Axis) -> Vec<Mark> {
    let mut ends = [f64::MIN; LEVELS];
    let mut marks = Vec::new();
    for line in lines {
        let place = axis.place(line.event.at).clamp(2.5, 97.5);
        let free = ends.iter().position(|end| place - end >= NUMBER_ROOM);
        // Where all levels are full, it moves to the right on the one that has waited longest.
        let level = free.unwrap_or_else(|| longest_free(&ends));
        let place = place.max(ends[level] + NUMBER_ROOM).min(97.5);
        ends[level] = place;
        marks.push(Mark { level, drawn: number(line, (place * 100.0).round() / 100.0, level) });
    }
    marks
}

fn longest_free(ends: &[f64; LEVELS]) -> usize {
    (0..LEVELS).min_by(|one, other| ends[*one].total_cmp(&ends[*other])).unwrap_or(0)
}

fn number(line: &Line, place: f64, level: usize) -> Markup {
    let y = level as f64 * LEVEL + LEVEL / 2.0;
    let class = match line.event.kind {
        Kind::SignalSent | Kind::SignalForwarded | Kind::SignalIgnored => "signal",
        Kind::Phase => "phase",
        _ => "plain",
    };
    html! {
        g.number.(class) {
            title { (line.text) }
            circle cx=(percent(place)) cy=(y) r="7.5" {}
            text x=(percent(place)) y=(y + 3.5) text-anchor="middle" { (line.number) }
        }
    }
}

/// The signals' names, beside their arrows: to the right of them, on the picture's right side to the left.
pub fn words(lines: &[Line], axis: &Axis) -> Vec<Mark> {
    let mut taken: Vec<Vec<(f64, f64)>> = vec![Vec::new(); LEVELS];
    let mut marks = Vec::new();
    for line in lines {
        let Some(signal) = line.event.signal else { continue };
        let name = signals::name(signal);
        let words = match line.event.kind {
            Kind::SignalSent => name,
            Kind::SignalForwarded => format!("{name} passed on"),
            Kind::SignalIgnored => format!("{name}, dropped"),
            _ => continue,
        };
        let place = axis.place(line.event.at);
        let width = words.chars().count() as f64 * LETTER;
        let (from, to, anchor) = match place < 65.0 {
            true => (place, place + width, "start"),
            false => (place - width, place, "end"),
        };
        let is_free = |level: &usize| taken[*level].iter().all(|(left, right)| to < *left || from > *right);
        let Some(level) = (0..LEVELS).find(is_free) else { continue };
        taken[level].push((from, to));
        let beside = if anchor == "start" { "5" } else { "-5" };
        let y = level as f64 * LEVEL + LEVEL / 2.0 + 3.5;
        let drawn = html! { text.word x=(percent(place)) y=(y) dx=(beside) text-anchor=(anchor) { (words) } };
        marks.push(Mark { level, drawn });
    }
    marks
}
