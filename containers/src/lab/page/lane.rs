//! The picture of one run: a row a process, in the order of the tree, on the axis that all lanes share.
//!
//! Horizontal places are percent of the width and vertical ones pixels, so the picture fits any screen and its text keeps
//! its size. State and kind are told by pattern, shape and words; colour only helps.

use super::{
    axis::{Axis, duration},
    marks::{LEVEL, Mark, numbers, words},
    rows::{Row, counts, name, rows},
    story::{Line, story},
    text::clean,
};
use crate::lab::recording::{Event, Kind, LAB, Process, Recording, State};
use maud::{Markup, html};
use std::collections::HashMap;

/// Pixels of a row: a line of text above a bar.
const ROW: f64 = 36.0;
const TEXT: f64 = 13.0;
const BAR_TOP: f64 = 19.0;
const BAR: f64 = 11.0;
/// The graph that stands for processes without rows.
const GRAPH: f64 = 56.0;
/// A state as short as this can still be seen, percent.
const LEAST: f64 = 0.35;

/// What there is to draw.
pub struct Lane<'a> {
    /// Unique on the page, fit for an `id`.
    pub id: &'a str,
    pub title: &'a str,
    pub recording: &'a Recording,
    /// Where the picture ends: the run's end, or the present.
    pub now: u64,
    /// Processes can be chosen, to send them signals.
    pub is_live: bool,
}

/// The picture, with the story below it.
pub fn lane(lane: &Lane, axis: &Axis) -> Markup {
    let (lines, left_out) = story(lane.recording);
    html! {
        @if !lane.recording.processes.is_empty() { (picture(lane, axis, &numbers(&lines, axis)).0) }
        (told(&lines, left_out))
    }
}

/// The picture for where there is no story: signals have their names.
pub fn named(lane: &Lane, axis: &Axis) -> (Markup, f64) {
    picture(lane, axis, &words(&story(lane.recording).0, axis))
}

/// The numbered lines.
fn told(lines: &[Line], left_out: usize) -> Markup {
    html! {
        ol.story {
            @for line in lines {
                @if left_out > 0 && line.number == 1 + lines.len() / 2 {
                    li.more { "… and " (left_out) " more" }
                }
                li {
                    span.number aria-hidden="true" { (line.number) }
                    span.time { (duration(line.event.at)) }
                    span { (line.text) @if line.more > 0 { " … and " (line.more) " more like it" } }
                }
            }
        }
    }
}

/// The SVG alone, and its height.
fn picture(lane: &Lane, axis: &Axis, marks: &[Mark]) -> (Markup, f64) {
    let (rows, others) = rows(lane.recording, lane.now);
    let levels = marks.iter().map(|mark| mark.level + 1).max().unwrap_or(1);
    let top = levels as f64 * LEVEL + 4.0;
    let graph = if others.is_empty() { 0.0 } else { GRAPH };
    let bottom = top + rows.len() as f64 * ROW + graph;
    let height = bottom + 22.0;
    let places: HashMap<i32, f64> =
        rows.iter().enumerate().map(|(index, row)| (row.process.pid, top + index as f64 * ROW)).collect();
    let count = match lane.recording.processes.len() {
        1 => "one process".to_owned(),
        count => format!("{count} processes"),
    };
    let summary = format!("{}: {count} in {}", lane.title, duration(lane.now.max(lane.recording.length)));
    let words = format!("{}-words", lane.id);
    let drawn = html! {
        svg.lane width="100%" height=(height) role=(if lane.is_live { "group" } else { "img" }) aria-label=(summary)
            aria-describedby=[(!lane.is_live).then_some(&words)] {
            // Of a live one the rows themselves can be read; those of a picture need not be.
            @if !lane.is_live { desc id=(words) { (told_rows(&rows, others.len())) } }
            @for (from, to) in &axis.breaks {
                (axis_break(axis.place(*from), axis.place(*to), top, bottom, *to - *from))
            }
            @for tick in axis.ticks() {
                line.tick x1=(percent(tick.place)) x2=(percent(tick.place)) y1=(top) y2=(bottom + 4.0) {}
                text.tick x=(percent(tick.place)) y=(bottom + 17.0) text-anchor=(tick.anchor) { (tick.label) }
            }
            @for event in &lane.recording.events {
                (arrow(event, axis, &places, top))
            }
            @for row in &rows {
                (row_picture(lane, row, axis, &places))
            }
            @if !others.is_empty() {
                (crowd(&others, lane.now, axis, top + rows.len() as f64 * ROW))
            }
            @for mark in marks { (mark.drawn) }
        }
    };
    (drawn, height)
}

/// What the rows show.
fn told_rows(rows: &[Row], others: usize) -> String {
    let mut parts: Vec<String> = rows.iter().map(spoken).collect();
    if others > 0 {
        parts.push(format!("{others} more processes"));
    }
    parts.join(". ")
}

fn spoken(row: &Row) -> String {
    format!("{}, outside {}: {}", name(row.process), row.process.pid, row.fate)
}

pub fn percent(place: f64) -> String {
    format!("{place}%")
}

/// A stretch that is drawn shorter than it is.
fn axis_break(left: f64, right: f64, top: f64, bottom: f64, length: u64) -> Markup {
    let width = ((right - left) * 100.0).round() / 100.0;
    html! {
        rect.break x=(percent(left)) y=(top) width=(percent(width)) height=(bottom - top) fill="url(#break)" {
            title { "The axis is shorter here: nothing happens for " (duration(length)) }
        }
    }
}

fn row_picture(lane: &Lane, row: &Row, axis: &Axis, places: &HashMap<i32, f64>) -> Markup {
    let process = row.process;
    let y = places[&process.pid];
    let indent = row.depth as f64 * 14.0;
    let start = axis.place(process.start);
    let end = process.end.map(|end| axis.place(end));
    let can_be_chosen = lane.is_live && process.end.is_none();
    let spoken = spoken(row);
    let action = can_be_chosen.then(|| format!("{spoken}. Send a signal"));
    html! {
        g.process.choosable[can_be_chosen] id=(format!("{}-{}", lane.id, process.pid)) data-pid=(process.pid)
            data-name=(name(process)) role=[can_be_chosen.then_some("button")] tabindex=[can_be_chosen.then_some("0")]
            aria-label=[action] {
            // What can be chosen says so itself.
            @if !can_be_chosen { title { (spoken) } }
            // The whole row can be hit.
            rect.row x="0" y=(y) width="100%" height=(ROW - 2.0) rx="4" {}
            text.name x=(6.0 + indent) y=(y + TEXT) {
                @if row.depth > 0 { tspan.branch { "└ " } }
                tspan.program { (clean(&process.name)) }
                tspan.pid { " pid " (process.inner.map_or_else(|| "–".to_owned(), |inner| inner.to_string())) }
                tspan.outside { " (outside " (process.pid) ")" }
                tspan.fate { ", " (row.fate) }
            }
            @if let Some(above) = places.get(&process.parent) {
                line.fork x1=(percent(start)) x2=(percent(start)) y1=(above + BAR_TOP + BAR) y2=(y + BAR_TOP) {}
            }
            @for adoption in process.adoptions.iter().filter(|adoption| adoption.at <= lane.now) {
                @if let Some(adopter) = places.get(&adoption.by) {
                    @let at = percent(axis.place(adoption.at));
                    line.adopt x1=(at) x2=(at) y1=(adopter + BAR_TOP + BAR) y2=(y + BAR_TOP) {}
                    circle.adopt cx=(at) cy=(y + BAR_TOP) r="3.5" {}
                }
            }
            @for span in &row.spans {
                @let (left, right) = (axis.place(span.from), axis.place(span.to));
                @let width = ((right - left).max(LEAST) * 100.0).round() / 100.0;
                @let (class, fill) = look(span.state);
                rect.bar.(class) x=(percent(left)) y=(y + BAR_TOP) width=(percent(width)) height=(BAR) fill=[fill] {}
            }
            @if let Some(end) = end {
                (end_mark(end, y + BAR_TOP + BAR / 2.0, row.is_killed))
            }
        }
    }
}

/// The class of a bar, and its pattern: zombies are hatched, stopped ones dotted.
fn look(state: State) -> (&'static str, Option<&'static str>) {
    match state {
        State::Alive => ("alive", None),
        State::Stopped => ("stopped", Some("url(#stopped)")),
        State::Zombie | State::Gone => ("zombie", Some("url(#zombie)")),
    }
}

/// A cross where it was killed, a dot where it ended by itself.
fn end_mark(place: f64, y: f64, is_killed: bool) -> Markup {
    html! {
        svg x=(percent(place)) y=(y) overflow="visible" {
            @if is_killed { path.killed d="M-5-5L5 5M-5 5L5-5" {} } @else { circle.ended r="4" {} }
        }
    }
}

/// An arrow for a signal, from who sent it to who got it; one that was dropped ends in a bar before its goal.
fn arrow(event: &Event, axis: &Axis, places: &HashMap<i32, f64>, top: f64) -> Markup {
    let class = match event.kind {
        Kind::SignalSent => "sent",
        Kind::SignalForwarded => "forwarded",
        Kind::SignalIgnored => "dropped",
        _ => return html! {},
    };
    let Some(goal) = event.other.and_then(|pid| places.get(&pid)) else { return html! {} };
    let from = match event.pid {
        LAB => top - 6.0,
        pid => match places.get(&pid) {
            Some(row) => row + BAR_TOP + BAR / 2.0,
            None => return html! {},
        },
    };
    let goal = goal + BAR_TOP + BAR / 2.0;
    let down = if from <= goal { 1.0 } else { -1.0 };
    let tip = goal - down * 8.0;
    let at = percent(axis.place(event.at));
    html! {
        line.signal.(class) x1=(at) x2=(at) y1=(from) y2=(tip) {}
        svg x=(at) y=(tip) overflow="visible" {
            @if class == "dropped" {
                path.signal.dropped d="M-6 0H6M-6 -3.5H6" {}
            } @else {
                path.head.(class) d=(if down > 0.0 { "M0 3L-4.5-5H4.5Z" } else { "M0-3L-4.5 5H4.5Z" }) {}
            }
        }
    }
}

/// Processes without rows, counted: the living below, the zombies above them, hatched.
fn crowd(processes: &[&Process], now: u64, axis: &Axis, top: f64) -> Markup {
    let counts = counts(processes, now);
    let most = counts.iter().map(|(_, alive, zombies)| alive + zombies).max().unwrap_or(1).max(1);
    let zombies = counts.iter().map(|(_, _, zombies)| *zombies).max().unwrap_or(0);
    let height = GRAPH - BAR_TOP - 6.0;
    let y = |count: i64| height * (1.0 - count as f64 / most as f64);
    let area = |low: fn(&(u64, i64, i64)) -> i64, high: fn(&(u64, i64, i64)) -> i64| {
        let mut path = String::new();
        for (index, step) in counts.iter().enumerate() {
            let to = counts.get(index + 1).map_or(now, |next| next.0);
            let (left, right) = (axis.place(step.0), axis.place(to));
            let (low, high) = (low(step), high(step));
            if high > low {
                path += &format!("M{left} {:.1}H{right:.2}V{:.1}H{left}Z", y(low), y(high));
            }
        }
        path
    };
    html! {
        g.crowd {
            text.name x="6" y=(top + TEXT) {
                tspan.program { (processes.len()) " more processes" }
                tspan.fate {
                    @if zombies == 0 { ", none of them ever a zombie" }
                    @else { ", up to " (zombies) " of them zombies at a time" }
                }
            }
            svg x="0" y=(top + BAR_TOP) width="100%" height=(height) viewBox=(format!("0 0 100 {height}"))
                preserveAspectRatio="none" {
                path.alive d=(area(|_| 0, |step| step.1)) {}
                path.zombie fill="url(#zombie)" d=(area(|step| step.1, |step| step.1 + step.2)) {}
            }
        }
    }
}
