//! The pages around the board.

use super::session::SIGNALS;
use crate::lab::{
    alternative::Alternative,
    lesson::{self, Experiment, Lesson},
    page::{self, after, answer, before, legend, line, patterns},
};
use maud::{Markup, html};

pub const SCRIPT: &str = include_str!("lab.js");

/// The style of the board, and of what is around it.
pub fn style() -> String {
    [page::STYLE, include_str!("serve.css")].concat()
}

fn document(title: &str, body: Markup) -> String {
    let head = html! {
        link rel="stylesheet" href="/style.css";
        script src="/lab.js" defer {}
    };
    page::document(title, head, body)
}

/// The lessons to choose from.
pub fn index() -> String {
    document(
        "Lessons",
        html! {
            header {
                h1 { "What PID 1 does" }
                p { "Zombies, orphans, signals and exit codes, seen with one's own eyes. Choose a lesson." }
            }
            main {
                nav aria-label="Lessons" {
                    ol.lessons {
                        @for lesson in lesson::all() {
                            li { a href=(format!("/lesson/{}", lesson.name)) {
                                span.number { (lesson.number) } span { (line(&lesson.title)) }
                            } }
                        }
                    }
                }
            }
        },
    )
}

/// One lesson, to be run.
pub fn lesson(lesson: &Lesson) -> String {
    let neighbour =
        |number: Option<u32>| number.and_then(|number| lesson::all().iter().find(|other| other.number == number));
    let link = |other: &Lesson, words: &str| html! { a href=(format!("/lesson/{}", other.name)) { (words) } };
    document(
        &format!("Lesson {}: {}", lesson.number, lesson.title),
        html! {
            (patterns())
            header {
                nav.steps aria-label="Lessons" {
                    a href="/" { "All lessons" }
                    @if let Some(other) = neighbour(lesson.number.checked_sub(1)) { (link(other, "Previous")) }
                    @if let Some(other) = neighbour(lesson.number.checked_add(1)) { (link(other, "Next")) }
                }
                h1 { "Lesson " (lesson.number) ": " (line(&lesson.title)) }
            }
            main.sides {
                section.words aria-labelledby="lesson-title" {
                    h2.unseen #lesson-title { "The lesson" }
                    (before(lesson))
                    (choices(lesson))
                    details.after { summary { "Why, and how to do it right" } (after(lesson)) }
                }
                section.pictures aria-labelledby="run-title" {
                    h2.unseen #run-title { "The run" }
                    (controls(lesson))
                    (legend())
                    // What happens, for the screen reader; the board itself changes too often.
                    p #spoken role="status" aria-live="polite" {}
                    p #failure role="alert" hidden {}
                    div #board {}
                }
            }
            (signals())
        },
    )
}

fn choices(lesson: &Lesson) -> Markup {
    html! {
        fieldset.choices {
            legend { "What do you expect?" }
            @for (index, choice) in lesson.choices.iter().enumerate() {
                label { input type="radio" name="choice" value=(index) data-right=[choice.is_right.then_some("")]; (line(&choice.text)) }
            }
            p #verdict role="status" {}
        }
        (answer(lesson))
    }
}

fn controls(lesson: &Lesson) -> Markup {
    html! {
        form #controls data-lesson=(lesson.name) aria-label="Run the lesson" {
            @match lesson.experiment {
                Experiment::Under(_) => (alternatives()),
                Experiment::With(_) => p { "It compares: " (lesson.columns.join(", ")) "." },
            }
            label.hold { input #hold type="checkbox"; "wait when the program is ready, so that I can send signals" }
            div.buttons {
                button #run type="submit" { "Run" }
                button #go-on type="button" disabled { "Go on" }
                button #end type="button" disabled { "End" }
                span #state role="status" { "nothing runs" }
            }
        }
    }
}

fn alternatives() -> Markup {
    html! {
        fieldset {
            legend { "Run it under" }
            @for alternative in Alternative::ALL {
                label {
                    input type="checkbox" name="alternative" value=(alternative.name()) checked;
                    (alternative.title())
                    @if alternative.program().is_none() { " (not installed)" }
                }
            }
        }
    }
}

/// Opened for a process that was chosen.
fn signals() -> Markup {
    html! {
        dialog #signals aria-labelledby="signals-title" {
            form method="dialog" {
                h2 #signals-title { "Send a signal" }
                div.buttons {
                    @for (name, _) in SIGNALS { button value=(name) { "SIG" (name) } }
                }
                div.buttons { button.cancel value="" { "Cancel" } }
            }
        }
    }
}
