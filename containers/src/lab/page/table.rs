//! All that was measured in a lesson, side by side.

use super::{is_about_inits, text::clean, title};
use crate::lab::recording::Run;
use maud::{Markup, html};

/// A row an alternative and a column an observation, or the other way round where there are more observations.
pub fn comparison(runs: &[Run]) -> Markup {
    let mut names: Vec<(&str, Option<&str>)> = Vec::new();
    for observation in runs.iter().flat_map(|run| &run.observations) {
        if !names.iter().any(|(name, _)| *name == observation.name) {
            names.push((&observation.name, observation.unit.as_deref()));
        }
    }
    let first = if runs.iter().any(|run| is_about_inits(&run.name)) { "under" } else { "compared" };
    let is_tall = names.len() > runs.len().max(3);
    html! {
        h3 { "What was measured" }
        div.scroll tabindex="0" role="region" aria-label="What was measured" {
            table {
                @if is_tall {
                    thead { tr { th scope="col" { "measured" } @for run in runs { th scope="col" { (title(&run.name, &run.alternative)) } } } }
                    tbody {
                        @for (name, unit) in &names {
                            tr { th scope="row" { (head(name, *unit)) } @for run in runs { (cell(run, name)) } }
                        }
                    }
                } @else {
                    thead { tr { th scope="col" { (first) } @for (name, unit) in &names { th scope="col" { (head(name, *unit)) } } } }
                    tbody {
                        @for run in runs {
                            tr { th scope="row" { (title(&run.name, &run.alternative)) } @for (name, _) in &names { (cell(run, name)) } }
                        }
                    }
                }
            }
        }
    }
}

fn head(name: &str, unit: Option<&str>) -> Markup {
    html! { (clean(name)) @if let Some(unit) = unit { ", " (unit) } }
}

fn cell(run: &Run, name: &str) -> Markup {
    let Some(observation) = run.observations.iter().find(|one| one.name == name) else { return html! { td { "–" } } };
    let value = clean(&observation.value.to_string());
    match observation.agrees {
        true => html! { td { (value) } },
        // A mark, because colour is never the only sign.
        false => html! {
            td.differs { "⚠ " (value) @if let Some(expected) = &observation.expected { br; "expected: " (expected) } }
        },
    }
}
