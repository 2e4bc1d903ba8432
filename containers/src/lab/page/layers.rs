//! The picture of an image: what each instruction became, the last one on top, as it lies in the image.

use super::{lane::percent, text::clean};
use crate::lab::recording::{Run, Value};
use maud::{Markup, html};

/// Pixels.
const LINE: f64 = 17.0;
const LAYER: f64 = 66.0;
const GAP: f64 = 6.0;
const BAR: f64 = 5.0;

/// What one instruction became.
struct Layer<'a> {
    instruction: &'a str,
    is_layer: bool,
    /// KiB.
    size: i64,
    added: i64,
    hidden: i64,
    cached_again: bool,
    cached_after_change: bool,
}

impl Layer<'_> {
    /// None where the run is not about a layer.
    fn of(run: &Run) -> Option<Layer<'_>> {
        let find = |name: &str| run.observations.iter().find(|one| one.name == name).map(|one| &one.value);
        let flag = |name: &str| find(name) == Some(&Value::Flag(true));
        let number = |name: &str| match find(name) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        };
        find("becomes a layer").map(|_| Layer {
            instruction: &run.alternative,
            is_layer: flag("becomes a layer"),
            size: number("size"),
            added: number("files added"),
            hidden: number("whited out"),
            cached_again: flag("from cache, built again"),
            cached_after_change: flag("from cache, app changed"),
        })
    }

    fn content(&self) -> String {
        if !self.is_layer {
            return "no layer: only the image's configuration".into();
        }
        let files = |count: i64| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
        let mut words = format!("{} KiB, adds {}", self.size, files(self.added));
        if self.hidden > 0 {
            words += &format!(", hides {} below", files(self.hidden));
        }
        words
    }

    fn cache(&self) -> String {
        let words = |cached: bool| if cached { "✓ from cache" } else { "⟳ built anew" };
        format!("again: {}; app changed: {}", words(self.cached_again), words(self.cached_after_change))
    }
}

/// The picture and its height; none where these runs are about something else.
pub fn picture(runs: &[&Run], lesson: &str) -> Option<(Markup, f64)> {
    let layers: Vec<Layer> = runs.iter().filter_map(|run| Layer::of(run)).collect();
    let most = layers.iter().map(|layer| layer.size).max()?.max(1);
    let height = layers.len() as f64 * (LAYER + GAP);
    let words: Vec<String> =
        layers.iter().map(|layer| format!("{}: {}; {}", layer.instruction, layer.content(), layer.cache())).collect();
    let id = format!("{lesson}-layers");
    let drawn = html! {
        svg.lane.layers width="100%" height=(height) role="img"
            aria-labelledby=(format!("{id}-title")) aria-describedby=(format!("{id}-words")) {
            title id=(format!("{id}-title")) { "The image's layers, the last instruction on top" }
            desc id=(format!("{id}-words")) { (clean(&words.join(". "))) }
            @for (index, layer) in layers.iter().rev().enumerate() {
                @let y = index as f64 * (LAYER + GAP);
                rect.layer.config[!layer.is_layer] x="0.5" y=(y + 0.5) width="99.7%" height=(LAYER) rx="5" {}
                text.strong x="10" y=(y + LINE) { (clean(layer.instruction)) }
                text x="10" y=(y + 2.0 * LINE) { (layer.content()) }
                text.soft x="10" y=(y + 3.0 * LINE) { (layer.cache()) }
                @if layer.size > 0 {
                    @let width = (layer.size as f64 / most as f64 * 98.0).max(0.4);
                    rect.size x="1%" y=(y + LAYER - BAR - 2.0) width=(percent((width * 10.0).round() / 10.0)) height=(BAR) {}
                }
            }
        }
    };
    Some((drawn, height))
}
