//! The pictures alone, as one SVG file: for a README or a slide.

use super::{
    STYLE, View, axis, id_of,
    lane::{Lane, named},
    layers, network, patterns, summary, title,
};
use crate::lab::{lesson::Lesson, recording::Run};
use maud::{Markup, PreEscaped, html};

/// Pixels.
const WIDTH: f64 = 860.0;
const MARGIN: f64 = 16.0;
const HEADING: f64 = 24.0;

/// The lessons' lanes below each other; what was not run is left out.
pub fn svg(lessons: &[(&Lesson, Vec<Run>)]) -> String {
    let mut y = MARGIN;
    let mut parts: Vec<Markup> = Vec::new();
    for (lesson, runs) in lessons {
        let views: Vec<View> = runs.iter().map(View::of).filter(|view| !view.recording.processes.is_empty()).collect();
        let axis = axis(&views);
        parts.push(html! {
            text.heading x=(MARGIN) y=(y + 15.0) { "Lesson " (lesson.number) ": " (lesson.title.replace('`', "")) }
        });
        y += HEADING + 8.0;
        let runs: Vec<&Run> = runs.iter().collect();
        if let Some((picture, height)) = layers::picture(&runs, &lesson.name) {
            parts.push(html! { svg x=(MARGIN) y=(y) width=(WIDTH - 2.0 * MARGIN) height=(height) { (picture) } });
            y += height + 8.0;
        }
        for view in &views {
            let id = id_of(&lesson.name, view.alternative);
            let (title, recording) = (title(&lesson.name, view.alternative), view.recording);
            let lane = named(&Lane { id: &id, title, recording, now: view.now, is_live: false }, &axis);
            let map = view.run.and_then(|run| run.network.as_ref()).map(|map| network::picture(map, &id));
            parts.push(html! {
                text.name x=(MARGIN) y=(y + 12.0) {
                    tspan.program { (title) }
                    tspan.fate { @for words in summary(view.run) { "   " (words) } }
                }
            });
            y += HEADING - 4.0;
            for (picture, height) in map.into_iter().chain([lane]) {
                parts.push(html! {
                    svg x=(MARGIN) y=(y) width=(WIDTH - 2.0 * MARGIN) height=(height) { (picture) }
                });
                y += height + 8.0;
            }
            y += 4.0;
        }
    }
    let drawing = html! {
        svg.drawing xmlns="http://www.w3.org/2000/svg" width=(WIDTH) height=(y) viewBox=(format!("0 0 {WIDTH} {y}")) {
            style { (PreEscaped(STYLE)) }
            rect.paper width="100%" height="100%" rx="9" {}
            (patterns())
            @for part in parts { (part) }
        }
    };
    drawing.into_string()
}
