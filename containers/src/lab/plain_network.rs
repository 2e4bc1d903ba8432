//! The drawing of a probed network for terminals.

use super::network_map::{Container, NetworkMap};

/// Blanks between two boxes, and before all.
const GAP: &str = "   ";
const INDENT: &str = "  ";
/// Where a cable leaves its box, from the box's left.
const CABLE: usize = 3;

/// Boxes for the containers, what they hang on, and a line a probe.
pub fn drawing(map: &NetworkMap) -> String {
    let texts: Vec<Vec<String>> = map.containers.iter().map(inside).collect();
    let rows = texts.iter().map(Vec::len).max().unwrap_or(0);
    let boxes: Vec<Vec<String>> =
        map.containers.iter().zip(&texts).map(|(container, text)| boxed(container, text, rows)).collect();
    let mut lines: Vec<String> = Vec::new();
    for row in 0..boxes.first().map_or(0, Vec::len) {
        let parts: Vec<&str> = boxes.iter().map(|one| one[row].as_str()).collect();
        lines.push(parts.join(GAP));
    }
    if let Some(bridge) = &map.bridge {
        let width = lines.first().map_or(0, |line| line.chars().count());
        let mut bar = vec!['═'; width];
        let mut at = CABLE;
        for (container, one) in map.containers.iter().zip(&boxes) {
            if container.cable().is_some() {
                bar[at] = '╧';
            }
            at += one[0].chars().count() + GAP.len();
        }
        lines.push(bar.into_iter().collect());
        let address = bridge.address.as_deref().unwrap_or("no address");
        lines.push(format!("bridge {} {address}, in the host", bridge.name));
    }
    lines.push(String::new());
    let wide = map.probes.iter().flat_map(|probe| [&probe.from, &probe.to]).map(|name| name.chars().count()).max();
    let wide = wide.unwrap_or(0);
    for probe in &map.probes {
        let arrow = if probe.reached { "───▶" } else { "─ ✗ " };
        let end = if probe.reached { "" } else { "  no connection" };
        lines.push(format!("{:>wide$} {arrow} {:wide$}  {}{end}", probe.from, probe.to, probe.target));
    }
    lines.into_iter().map(|line| format!("{INDENT}{line}").trim_end().to_owned() + "\n").collect()
}

fn inside(container: &Container) -> Vec<String> {
    let mut lines = container.interface_words();
    lines.push(container.route_words());
    lines
}

/// A box with its name in its upper edge; dashed around who shares the host's network. The last row is the cable.
fn boxed(container: &Container, text: &[String], rows: usize) -> Vec<String> {
    let (edge, side) = if container.is_in_host { ("╌", "┆") } else { ("─", "│") };
    let cable = container.cable().map(|(_, peer)| format!("│ {}", peer.name));
    let needed = text.iter().map(|line| line.chars().count()).chain([container.name.chars().count() + 2]);
    let needed = needed.chain(cable.iter().map(|cable| cable.chars().count() + CABLE)).max().unwrap_or(0);
    let name = format!(" {} ", container.name);
    let mut lines = vec![format!("┌{name}{}┐", edge.repeat(needed + 2 - name.chars().count()))];
    for row in 0..rows {
        lines.push(format!("{side} {:needed$} {side}", text.get(row).map_or("", String::as_str)));
    }
    let (before, after) = (edge.repeat(CABLE - 1), edge.repeat(needed + 2 - CABLE));
    lines.push(format!("└{before}{}{after}┘", if cable.is_some() { "┬" } else { edge }));
    lines.push(format!("{:width$}", format!("{}{}", " ".repeat(CABLE), cable.unwrap_or_default()), width = needed + 4));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::network_map::{Interface, Peer, Probe};

    #[test]
    fn two_containers_and_a_bridge() {
        let container = |name: &str, interfaces: Vec<Interface>, gateway: Option<&str>| Container {
            name: name.into(),
            is_in_host: false,
            interfaces,
            gateway: gateway.map(str::to_owned),
        };
        let interface =
            |name: &str, address: &str, peer| Interface { name: name.into(), address: Some(address.into()), peer };
        let peer = Some(Peer { name: "veth1".into(), bridge: Some("br".into()) });
        let probe = |from: &str, to: &str, target: &str, reached| Probe {
            from: from.into(),
            to: to.into(),
            target: target.into(),
            reached,
        };
        let map = NetworkMap {
            bridge: Some(interface("br", "198.19.0.1/24", None)),
            containers: vec![
                container("web", vec![interface("eth0", "198.19.0.2/24", peer)], Some("198.19.0.1")),
                container("probe", vec![interface("lo", "127.0.0.1/8", None)], None),
            ],
            probes: vec![probe("host", "web", "198.19.0.2:80", true), probe("probe", "web", "web:80", false)],
        };
        let expected = [
            "  ┌ web ───────────────────┐   ┌ probe ───────────┐",
            "  │ eth0 198.19.0.2/24     │   │ lo 127.0.0.1/8   │",
            "  │ default via 198.19.0.1 │   │ no default route │",
            "  └──┬─────────────────────┘   └──────────────────┘",
            "     │ veth1",
            "  ═══╧═════════════════════════════════════════════",
            "  bridge br 198.19.0.1/24, in the host",
            "",
            "   host ───▶ web    198.19.0.2:80",
            "  probe ─ ✗  web    web:80  no connection",
            "",
        ];
        assert_eq!(drawing(&map), expected.join("\n"));
    }
}
