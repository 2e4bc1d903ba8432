//! The picture of a network as it was probed: containers with their interfaces, what hangs on the host's bridge, and below
//! that who reached whom. What is no connection is dashed and ends in a cross: colour is never the only sign.

use super::{lane::percent, text::clean};
use crate::lab::network_map::{Container, HOST, NetworkMap, Peer, Probe};
use maud::{Markup, html};

/// Pixels.
const LINE: f64 = 17.0;
const PAD: f64 = 10.0;
const BRIDGE: f64 = 24.0;
const CABLE: f64 = 34.0;
const ROW: f64 = 31.0;

/// Percent: the left and the right container's box, and what of them leads down.
const BOX: f64 = 46.5;
const PLACES: [f64; 2] = [2.0, 51.5];
const CABLES: [f64; 2] = [9.0, 91.0];
/// The lines of those who take part in the probes: a container, the host, a container.
const LEFT: f64 = 9.0;
const MIDDLE: f64 = 50.0;
const RIGHT: f64 = 91.0;

/// The picture and its height.
pub fn picture(map: &NetworkMap, id: &str) -> (Markup, f64) {
    let lines: Vec<Vec<String>> = map.containers.iter().map(lines).collect();
    let top = LINE + PAD;
    let box_height = lines.iter().map(Vec::len).max().unwrap_or(0) as f64 * LINE + 12.0;
    let bridge = top + box_height + CABLE;
    let host = bridge + if map.bridge.is_some() { BRIDGE } else { 0.0 } + PAD;
    let heads = host + LINE + PAD;
    let height = heads + map.probes.len() as f64 * ROW + PAD;
    let drawn = html! {
        svg.lane.network width="100%" height=(height) role="img"
            aria-labelledby=(format!("{id}-network-title")) aria-describedby=(format!("{id}-network-words")) {
            title id=(format!("{id}-network-title")) { (heading(map)) }
            desc id=(format!("{id}-network-words")) { (words(map)) }
            rect.host x="0.5" y="0.5" width="99.7%" height=(host) rx="7" {}
            text.soft x=(PAD) y=(LINE) { "the host's network" }
            @for (place, container) in map.containers.iter().enumerate().take(PLACES.len()) {
                (container_box(container, &lines[place], PLACES[place], top, box_height))
                @if let Some((_, peer)) = container.cable() {
                    (cable(peer, CABLES[place], top + box_height, bridge))
                }
            }
            @if let Some(found) = &map.bridge {
                rect.bridge x="2%" y=(bridge) width="96%" height=(BRIDGE) rx="4" {}
                text x="50%" y=(bridge + 16.0) text-anchor="middle" {
                    "bridge " tspan.strong { (clean(&found.name)) }
                    @if let Some(address) = &found.address { " " (clean(address)) }
                }
            }
            @for (name, place, anchor, x) in heads_of(map) {
                text.strong x=(x) y=(heads - 5.0) text-anchor=(anchor) { (clean(&name)) }
                line.life x1=(percent(place)) x2=(percent(place)) y1=(heads) y2=(height - 2.0) {}
            }
            @for (index, probe) in map.probes.iter().enumerate() {
                (arrow(probe, map, heads + (index + 1) as f64 * ROW - 6.0))
            }
        }
    };
    (drawn, height)
}

fn heading(map: &NetworkMap) -> String {
    let names: Vec<String> = map.containers.iter().map(|container| clean(&container.name)).collect();
    format!("The network of {}, and who reached whom", names.join(" and "))
}

/// All that the picture shows, for who can't see it.
fn words(map: &NetworkMap) -> String {
    let mut parts = Vec::new();
    for container in &map.containers {
        let mut told = format!("{}: {}", container.name, lines(container)[1..].join(", "));
        if let Some((inner, peer)) = container.cable() {
            told += &format!(", {} leads to {} in the host", inner.name, peer.name);
            told += &peer.bridge.as_ref().map_or_else(String::new, |bridge| format!(" and its bridge {bridge}"));
        }
        parts.push(told);
    }
    parts.extend(map.bridge.iter().map(|bridge| {
        format!("Bridge {} of the host: {}", bridge.name, bridge.address.as_deref().unwrap_or("no address"))
    }));
    parts.extend(map.probes.iter().map(Probe::words));
    clean(&(parts.join(". ") + "."))
}

/// What stands in a container's box.
fn lines(container: &Container) -> Vec<String> {
    let mut lines = vec![container.name.clone()];
    lines.extend(container.interface_words());
    lines.push(container.route_words());
    lines
}

fn container_box(container: &Container, lines: &[String], place: f64, top: f64, height: f64) -> Markup {
    html! {
        rect.container.shared[container.is_in_host] x=(percent(place)) y=(top) width=(percent(BOX)) height=(height) rx="5" {}
        svg x=(percent(place)) y=(top) width=(percent(BOX)) height=(height) {
            @for (index, line) in lines.iter().enumerate() {
                text.strong[index == 0] x="8" y=(index as f64 * LINE + 18.0) { (clean(line)) }
            }
        }
    }
}

/// A veth pair, with the name of the host's end.
fn cable(peer: &Peer, place: f64, top: f64, bottom: f64) -> Markup {
    let (anchor, beside) = if place < 50.0 { ("start", "8") } else { ("end", "-8") };
    html! {
        line.cable x1=(percent(place)) x2=(percent(place)) y1=(top) y2=(bottom) {}
        svg x=(percent(place)) y=(top) overflow="visible" { circle.plug r="4" {} }
        svg x=(percent(place)) y=(bottom) overflow="visible" { circle.plug r="4" {} }
        text.soft x=(percent(place)) y=((top + bottom) / 2.0 + 4.0) dx=(beside) text-anchor=(anchor) { (clean(&peer.name)) }
    }
}

/// Names above the lines of the probes: each with its place, and where its text begins or ends.
fn heads_of(map: &NetworkMap) -> Vec<(String, f64, &'static str, String)> {
    let name = |place: usize| map.containers.get(place).map(|container| container.name.clone());
    let host = Some((HOST.to_owned(), MIDDLE, "middle", percent(MIDDLE)));
    let left = name(0).map(|name| (name, LEFT, "start", percent(2.0)));
    let right = name(1).map(|name| (name, RIGHT, "end", percent(98.0)));
    [left, host, right].into_iter().flatten().collect()
}

fn arrow(probe: &Probe, map: &NetworkMap, y: f64) -> Markup {
    let place = |name: &str| heads_of(map).into_iter().find(|head| head.0 == name).map(|head| head.1);
    let (Some(from), Some(to)) = (place(&probe.from), place(&probe.to)) else { return html! {} };
    let to_right = to > from;
    // What reaches nobody ends before its goal.
    let tip = if probe.reached { to } else { from + (to - from) * 0.72 };
    let class = if probe.reached { "reached" } else { "missed" };
    html! {
        g.probe.(class) {
            title { (clean(&probe.words())) }
            line x1=(percent(from)) x2=(percent(tip)) y1=(y) y2=(y) {}
            svg x=(percent(from)) y=(y) overflow="visible" { circle r="3" {} }
            svg x=(percent(tip)) y=(y) overflow="visible" {
                @if probe.reached {
                    path.tip d=(if to_right { "M0 0L-9-5V5Z" } else { "M0 0L9-5V5Z" }) {}
                } @else {
                    path.cross d="M-5-5L5 5M-5 5L5-5" {}
                }
            }
            text x=(percent((from + to) / 2.0)) y=(y - 6.0) text-anchor="middle" { (clean(&probe.target)) }
        }
    }
}
