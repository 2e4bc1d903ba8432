//! Lessons and their runs as HTML: one self-contained page for `--html`, and the same parts for `lab serve`.

mod axis;
mod drawing;
mod lane;
mod layers;
mod marks;
mod network;
mod rows;
mod story;
mod table;
mod text;

pub use drawing::svg;
pub use table::comparison;
pub use text::{clean, line, markdown};

use crate::lab::{
    alternative::Alternative,
    lesson::{self, Experiment, Lesson},
    recording::{Outcome, Run, Source},
};
use axis::Axis;
use lane::Lane;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The style of both pages.
pub const STYLE: &str = include_str!("page.css");

/// One alternative, as far as it has come.
pub struct View<'a> {
    /// As typed.
    pub alternative: &'a str,
    pub command: &'a str,
    pub recording: &'a crate::lab::recording::Recording,
    /// Microseconds since the run's start.
    pub now: u64,
    /// Once it is over.
    pub run: Option<&'a Run>,
}

impl<'a> View<'a> {
    /// A run that is over.
    pub fn of(run: &'a Run) -> View<'a> {
        let (alternative, command, recording) = (&run.alternative, &run.command, &run.recording);
        View { alternative, command, recording, now: recording.length, run: Some(run) }
    }
}

/// The whole page.
pub fn page(lessons: &[(&Lesson, Vec<Run>)]) -> String {
    let title = match lessons {
        [(lesson, _)] => format!("Lesson {}: {}", lesson.number, lesson.title),
        _ => "What PID 1 does".to_owned(),
    };
    let head = html! {
        meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
        style { (PreEscaped(STYLE)) }
    };
    let body = html! {
        (patterns())
        header {
            h1 { "What PID 1 does" }
            p.source { "Run and measured by " code { "inception lab" } " " (env!("CARGO_PKG_VERSION")) "." }
            (legend())
            @if lessons.len() > 1 { (contents(lessons)) }
        }
        main {
            @for (lesson, runs) in lessons { (section(lesson, runs)) }
        }
    };
    document(&title, head, body)
}

/// A whole HTML document; `head` is what it has beyond its title.
pub fn document(title: &str, head: Markup, body: Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " - inception lab" }
                (head)
            }
            body { (body) }
        }
    };
    page.into_string()
}

fn contents(lessons: &[(&Lesson, Vec<Run>)]) -> Markup {
    html! {
        nav aria-label="Lessons" {
            ol.contents {
                @for (lesson, _) in lessons { li value=(lesson.number) { a href=(format!("#{}", lesson.name)) { (line(&lesson.title)) } } }
            }
        }
    }
}

fn section(lesson: &Lesson, runs: &[Run]) -> Markup {
    let views: Vec<View> = runs.iter().map(View::of).collect();
    html! {
        section.lesson id=(lesson.name) {
            h2 { "Lesson " (lesson.number) ": " (line(&lesson.title)) }
            div.sides {
                div.words { (before(lesson)) (expected(lesson)) (after(lesson)) }
                div.pictures { (comparison(runs)) (board(&lesson.name, &views, false)) (source(runs)) }
            }
        }
    }
}

/// The question and the programs.
pub fn before(lesson: &Lesson) -> Markup {
    html! {
        h3 { "The question" }
        (markdown(&lesson.question))
        h3 { "The program" }
        @for program in &lesson.programs {
            figure.program {
                figcaption { code { (program.file) } ", " (program.language) }
                // It can be scrolled, and so has a name and can be reached by keyboard.
                pre tabindex="0" role="region" aria-label=(format!("The program {}", program.file)) { code { (program.text) } }
            }
        }
    }
}

/// The choices, with the answer behind a click.
fn expected(lesson: &Lesson) -> Markup {
    html! {
        h3 { "What do you expect?" }
        ol.choices { @for choice in &lesson.choices { li { (line(&choice.text)) } } }
        (answer(lesson))
    }
}

/// What is right.
pub fn answer(lesson: &Lesson) -> Markup {
    let right = lesson.choices.iter().filter(|choice| choice.is_right);
    html! {
        details.answer {
            summary { "The answer" }
            @for choice in right { p { (line(&choice.text)) "." } }
        }
    }
}

/// Why it is so, and how to do it right.
pub fn after(lesson: &Lesson) -> Markup {
    html! {
        h3 { "Why" }
        (markdown(&lesson.why))
        h3 { "How to do it right" }
        (markdown(&lesson.remedy))
    }
}

/// The axis of a lesson's lanes.
fn axis(views: &[View]) -> Axis {
    let times = views.iter().flat_map(|view| {
        let lives = view
            .recording
            .processes
            .iter()
            .flat_map(|process| [Some(process.start), process.end, process.reaped].into_iter().flatten());
        view.recording.events.iter().map(|event| event.at).chain(lives)
    });
    let end = views.iter().map(|view| view.now.max(view.recording.length)).max().unwrap_or(0);
    Axis::new(times, end)
}

/// Fit for an `id`: what is compared may have any name.
fn id_of(lesson: &str, alternative: &str) -> String {
    format!("{lesson}-{}", alternative.replace(|char: char| !char.is_alphanumeric(), "-"))
}

/// All lanes of a lesson on one axis.
pub fn board(lesson: &str, views: &[View], is_live: bool) -> Markup {
    let axis = axis(views);
    let runs: Vec<&Run> = views.iter().filter_map(|view| view.run).collect();
    let layers = layers::picture(&runs, lesson);
    // All that there is of such a run is in that picture.
    let is_drawn = |view: &View| {
        let is_empty = view.recording.processes.is_empty() && view.recording.events.is_empty();
        layers.is_some() && is_empty && view.run.is_some_and(|run| run.outcome == Outcome::Ran)
    };
    html! {
        @if let Some((picture, _)) = &layers {
            article.run aria-labelledby=(format!("{lesson}-layers-heading")) {
                h3 id=(format!("{lesson}-layers-heading")) { "The image" }
                (picture)
            }
        }
        @for view in views.iter().filter(|view| !is_drawn(view)) {
            @let (id, title) = (id_of(lesson, view.alternative), title(lesson, view.alternative));
            article.run id=(id) data-alternative=(view.alternative) aria-labelledby=(format!("{id}-title")) {
                @let spoken = [vec![title.to_owned()], summary(view.run)].concat().join(", ");
                h3 id=(format!("{id}-title")) aria-label=(spoken) { (title) (status(view.run)) }
                @if let Some(Outcome::Ran) | None = view.run.map(|run| &run.outcome) {
                    @if !view.command.is_empty() { p.command { code { (clean(view.command)) } } }
                    @let is_live = is_live && view.run.is_none();
                    @if let Some(map) = view.run.and_then(|run| run.network.as_ref()) { (network::picture(map, &id).0) }
                    (lane::lane(&Lane { id: &id, title, recording: view.recording, now: view.now, is_live }, &axis))
                }
            }
        }
    }
}

/// What a lesson compares, as people call it.
fn title<'a>(lesson: &str, compared: &'a str) -> &'a str {
    // Other things than inits may have an init's name: `none` is a network, too.
    let known = Alternative::named(compared).filter(|_| is_about_inits(lesson));
    known.map_or(compared, |known| known.title())
}

fn is_about_inits(lesson: &str) -> bool {
    lesson::find(lesson).is_some_and(|lesson| matches!(lesson.experiment, Experiment::Under(_)))
}

/// How a run went, beside its title.
fn status(run: Option<&Run>) -> Markup {
    let differs = run.is_some_and(|run| !run.observations.iter().all(|observation| observation.agrees));
    html! { @for words in summary(run) { span.status.differs[differs] { (words) } } }
}

/// The same in words. A mark stands where something is not as expected: colour is never the only sign.
fn summary(run: Option<&Run>) -> Vec<String> {
    let Some(run) = run else { return vec!["running".into()] };
    let differ = run.observations.iter().filter(|observation| !observation.agrees).count();
    let mut words = match (&run.outcome, run.exit_status) {
        (Outcome::Ran, Some(status)) => vec![format!("exit status {status}")],
        (Outcome::Ran, None) => vec![],
        (Outcome::NotInstalled(how), _) => vec![format!("not installed; to get it: {}", clean(how))],
        (Outcome::NotApplicable(why), _) => vec![format!("not run: {}", clean(why))],
        (Outcome::Failed(why), _) => vec![format!("⚠ could not be run: {}", clean(why))],
    };
    if differ > 0 {
        words.push(format!("⚠ {differ} not as expected"));
    }
    words
}

/// Where the picture comes from.
pub fn source(runs: &[Run]) -> Markup {
    let Some(run) = runs.iter().find(|run| run.outcome == Outcome::Ran) else { return html! {} };
    let lost = runs.iter().map(|run| run.lost_events).max().unwrap_or(0);
    html! {
        p.source {
            @match run.source {
                Source::Tracepoints => {
                    "Seen by the kernel's tracepoints and /proc; " (lost) " events lost."
                }
                Source::Proc => {
                    "Seen in /proc every 5 ms, and by inception-init's event log: there was no right to the kernel's \
                     tracepoints, and what is shorter may be missing."
                }
            }
        }
    }
}

/// The patterns that the pictures use. One copy a page.
pub fn patterns() -> Markup {
    html! {
        svg.patterns width="0" height="0" aria-hidden="true" {
            defs {
                pattern id="zombie" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect.ground width="6" height="6" {}
                    rect.hatch width="3" height="6" {}
                }
                pattern id="stopped" width="6" height="6" patternUnits="userSpaceOnUse" {
                    rect.ground width="6" height="6" {}
                    circle.dot cx="3" cy="3" r="1.6" {}
                }
                pattern id="break" width="8" height="8" patternUnits="userSpaceOnUse" {
                    path.wave d="M0 4l2-2 4 4 2-2" {}
                }
            }
        }
    }
}

/// What the shapes mean.
pub fn legend() -> Markup {
    let bar = |class: &str, fill: Option<&str>, words: &str| {
        html! { li {
            svg.key width="34" height="14" aria-hidden="true" {
                rect.bar.(class) x="1" y="2" width="32" height="11" fill=[fill] {}
            }
            (words)
        } }
    };
    let mark = |shape: Markup, words: &str| {
        html! { li {
            svg.key width="18" height="18" viewBox="-9 -9 18 18" aria-hidden="true" { (shape) }
            (words)
        } }
    };
    html! {
        details.legend {
            summary { "How to read the pictures" }
            ul {
                (bar("alive", None, "lives"))
                (bar("stopped", Some("url(#stopped)"), "stopped"))
                (bar("zombie", Some("url(#zombie)"), "zombie: ended, not waited for"))
                (mark(html! { path.killed d="M-5-5L5 5M-5 5L5-5" {} }, "killed"))
                (mark(html! { circle.ended r="4" {} }, "ended by itself"))
                (mark(html! { circle.adopt r="3.5" {} }, "adopted, because its parent ended"))
                (mark(html! { line.signal.sent y1="-9" y2="0" {} path.head.sent d="M0 8L-4.5 0H4.5Z" {} }, "signal"))
                (mark(html! { line.signal.forwarded y1="-9" y2="0" {} path.head.forwarded d="M0 8L-4.5 0H4.5Z" {} },
                    "signal, passed on by an init"))
                (mark(html! { line.signal.dropped y1="-9" y2="0" {} path.signal.dropped d="M-6 4H6M-6 .5H6" {} },
                    "signal that the kernel dropped"))
                (bar("break", Some("url(#break)"), "nothing happens: the time axis is shorter here"))
                (mark(html! { g.probe.reached { line x1="-9" x2="4" {} path.tip d="M8 0L-1-5V5Z" {} } }, "connection"))
                (mark(html! { g.probe.missed { line x1="-9" x2="0" {} path.cross d="M-2-4L6 4M-2 4L6-4" {} } },
                    "no connection"))
            }
            p { "Numbers in a picture stand before its lines below. Pids are those inside; “outside” is the host's." }
        }
    }
}
