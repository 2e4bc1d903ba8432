//! One frame: panels side by side, each a tree above a lane of events; below them the time, and the keys.

use super::{
    lane::{self, time},
    player::Player,
    theme::Theme,
    tree,
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::Paragraph,
};

/// A panel narrower than this says too little.
pub const WIDTH: u16 = 38;

/// What the marks of the trees say; after the keys, where there is room.
const MARKS: &str = "● lives   Z zombie   T stopped   ✗ killed   · ended   ↪ adopted from";

/// What one panel shows.
pub struct Panel {
    pub title: String,
    /// Below the title: the command, how it ended.
    pub about: Vec<String>,
    pub tree: Vec<tree::Line>,
    pub events: Vec<lane::Line>,
}

/// What is on the screen.
pub struct Scene<'a> {
    /// The first line.
    pub head: String,
    /// What there is to choose from, and how it ended. One alone is not drawn.
    pub tabs: Vec<(String, String)>,
    pub selected: usize,
    pub panels: Vec<Panel>,
    /// The first panel's place among the tabs.
    pub first: usize,
    /// How many lines of the trees are above the screen.
    pub scroll: usize,
    pub player: &'a Player,
    pub edge: u64,
    /// `live`, `over`
    pub state: &'a str,
    pub keys: &'a str,
}

pub fn draw(frame: &mut Frame, scene: &Scene) {
    let theme = Theme::of_environment();
    let width = usize::from(frame.area().width);
    let mut keys = wrapped(scene.keys, width);
    keys.extend(wrapped(MARKS, width));
    // A small screen is for what there is to see; the first keys are the most wanted.
    keys.truncate(usize::from(frame.area().height / 6).max(1));
    let has_tabs = u16::from(scene.tabs.len() > 1);
    let [head, tabs, body, line, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(has_tabs),
        Constraint::Min(0),
        Constraint::Length(1),
        Constraint::Length(keys.len() as u16),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(cut(&scene.head, width)).style(theme.title(false)), head);
    if has_tabs > 0 {
        frame.render_widget(Paragraph::new(tab_line(scene, width, theme)), tabs);
    }
    let columns = Layout::horizontal(vec![Constraint::Fill(1); scene.panels.len()]).spacing(1).split(body);
    for (index, (panel, area)) in scene.panels.iter().zip(columns.iter()).enumerate() {
        let is_selected = scene.first + index == scene.selected && scene.tabs.len() > 1;
        draw_panel(frame, panel, *area, scene.scroll, is_selected, theme);
    }
    frame.render_widget(Paragraph::new(time_line(scene, width)), line);
    frame.render_widget(
        Paragraph::new(keys.into_iter().map(Line::from).collect::<Vec<_>>()).style(theme.quiet()),
        bottom,
    );
}

fn draw_panel(frame: &mut Frame, panel: &Panel, area: Rect, scroll: usize, is_selected: bool, theme: Theme) {
    let width = usize::from(area.width);
    let about = panel.about.len() as u16;
    let room = area.height.saturating_sub(2 + about);
    // The tree takes what it needs, of up to two thirds.
    let wanted = panel.tree.len().saturating_sub(scroll).max(1) as u16;
    let for_tree = wanted.min((room * 2 / 3).max(1));
    let [title, below, above, rule, lane] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(about),
        Constraint::Length(for_tree),
        Constraint::Length(1),
        Constraint::Min(0),
    ])
    .areas(area);
    let marked = if is_selected { format!("[{}]", panel.title) } else { format!(" {}", panel.title) };
    let text = format!("{:width$}", cut(&marked, width));
    frame.render_widget(Paragraph::new(text).style(theme.title(is_selected)), title);
    let about: Vec<Line> = panel.about.iter().map(|text| Line::from(cut(text, width))).collect();
    frame.render_widget(Paragraph::new(about), below);

    let height = usize::from(above.height);
    let first = scroll.min(panel.tree.len().saturating_sub(1));
    let mut lines: Vec<Line> =
        panel.tree.iter().skip(first).take(height).map(|line| tree_line(line, width, theme)).collect();
    let left = panel.tree.len().saturating_sub(first + height);
    if left > 0 && height > 0 {
        lines[height - 1] = Line::from(Span::styled(format!("  ↓ {} more lines", left + 1), theme.quiet()));
    }
    frame.render_widget(Paragraph::new(lines), above);

    let label = "── events, ms ";
    let text = format!("{label}{}", "─".repeat(width.saturating_sub(label.chars().count())));
    frame.render_widget(Paragraph::new(cut(&text, width)).style(theme.quiet()), rule);
    let height = usize::from(lane.height);
    let shown = &panel.events[panel.events.len().saturating_sub(height)..];
    let last = shown.len().saturating_sub(1);
    let lines: Vec<Line> = shown
        .iter()
        .enumerate()
        .map(|(index, line)| {
            let style = theme.kind(line.kind);
            let style = if index == last { theme.newest(style) } else { style };
            let at = match line.at {
                0..100_000_000 => format!("{:>7.1} ", line.at as f64 / 1e3),
                late => format!("{:>7} ", time(late)),
            };
            let text = cut(&line.text, width.saturating_sub(at.chars().count()));
            Line::from(vec![Span::styled(at, theme.quiet()), Span::styled(text, style)])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), lane);
}

fn tree_line(line: &tree::Line, width: usize, theme: Theme) -> Line<'static> {
    let with = |words: &str| format!("{} {} {words}", line.look.mark(), line.name).trim_end().to_owned();
    let whole = with(&line.words);
    let text = if whole.chars().count() <= width { whole } else { with(&line.brief) };
    Line::from(Span::styled(cut(&text, width), theme.look(line.look)))
}

/// The tabs; without how it ended where that would be too long.
fn tab_line(scene: &Scene, width: usize, theme: Theme) -> Line<'static> {
    let length: usize = scene.tabs.iter().map(|(name, end)| name.chars().count() + end.chars().count() + 5).sum();
    let tab = |(index, (name, end)): (usize, &(String, String))| {
        let text = format!("{}:{name}", index + 1);
        let text = if length <= width && !end.is_empty() { format!("{text} {end}") } else { text };
        match index == scene.selected {
            true => Span::styled(format!("[{text}]"), theme.title(true)),
            false => Span::raw(format!(" {text} ")),
        }
    };
    Line::from(scene.tabs.iter().enumerate().map(tab).collect::<Vec<_>>())
}

/// `▶ 1/10  12.3 ms ──────●───── 3.004 s live`
fn time_line(scene: &Scene, width: usize) -> String {
    let (at, edge) = (scene.player.at(), scene.edge);
    let mark = if scene.player.is_playing() { "▶" } else { "‖" };
    let left = format!("{mark} {} {:>9} ", scene.player.speed(), time(at));
    let right = format!(" {} {}", time(edge), scene.state);
    let room = width.saturating_sub(left.chars().count() + right.chars().count());
    if room < 4 {
        return cut(&format!("{left}of{right}"), width);
    }
    let place = (at.min(edge) as f64 / edge.max(1) as f64 * (room - 1) as f64).round() as usize;
    format!("{left}{}●{}{right}", "─".repeat(place), "─".repeat(room - 1 - place))
}

/// Not longer than `width`; where it was, it ends in `…`.
pub fn cut(text: &str, width: usize) -> String {
    // What programs print must not move the cursor.
    let clean = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    if text.chars().count() <= width {
        return clean.collect();
    }
    clean.take(width.saturating_sub(1)).chain((width > 0).then_some('…')).collect()
}

/// The keys on as many lines as they need; each key and what it does stay together (they are three blanks apart).
fn wrapped(keys: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for key in keys.split("   ") {
        let last = lines.len() - 1;
        let length = lines[last].chars().count();
        if length > 0 && length + 2 + key.chars().count() > width {
            lines.push(key.to_owned());
        } else {
            lines[last] += &format!("{}{key}", if length > 0 { "  " } else { "" });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::recording::Kind;
    use ratatui::{Terminal, backend::TestBackend};

    fn scene(player: &Player) -> Scene<'_> {
        let panel = || Panel {
            title: "none".into(),
            about: vec!["sleep 1000".into()],
            tree: vec![tree::Line {
                look: tree::Look::Zombie,
                pid: Some(7),
                name: "sleep[1] 7".into(),
                words: "ZOMBIE".into(),
                brief: "Z".into(),
            }],
            events: vec![lane::Line { at: 7, kind: Kind::Output, pid: None, text: "a\u{1b}[2Jb".into() }],
        };
        Scene {
            head: "Lesson 1".into(),
            tabs: vec![("none".into(), "137".into()), ("sh".into(), String::new())],
            selected: 0,
            panels: vec![panel(), panel()],
            first: 0,
            scroll: 0,
            player,
            edge: 100,
            state: "over",
            keys: "space plays   q leaves",
        }
    }

    /// From nothing to larger than anyone's: no size makes it panic, and what matters is there in a usual one.
    #[test]
    fn every_size() {
        let player = Player::default();
        for (width, height) in [(0, 0), (1, 1), (5, 3), (20, 4), (40, 10), (80, 24), (300, 100)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &scene(&player))).unwrap();
            if width >= 80 {
                let text = terminal.backend().to_string();
                for part in ["Lesson 1", "[1:none 137]", "Z sleep[1] 7 ZOMBIE", "0.0 a [2Jb", "over", "q leaves"] {
                    assert!(text.contains(part), "{part} is not in\n{text}");
                }
            }
        }
    }

    #[test]
    fn long_lines() {
        assert_eq!(["abc", "abcd", "a\tb"].map(|text| cut(text, 3)), ["abc", "ab…", "a b"]);
        assert_eq!(cut("ab", 0), "");
        assert_eq!(wrapped("a b   c d   e", 8), ["a b  c d", "e"]);
    }
}
