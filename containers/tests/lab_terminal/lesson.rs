//! A lesson on the screen.

use crate::window::{INCEPTION, Window};
use std::process::Command;

fn lab(width: u16, height: u16, words: &str) -> Window {
    Window::open(width, height, &format!("{INCEPTION} lab {words}"))
}

/// The question, the tree in which zombies appear and go, the explanation.
#[test]
fn zombies_appear_and_go() {
    let window = lab(100, 40, "zombies --alternative none");
    window.shows(&["What do you expect?", "Your choice"]);
    window.keys(&["2", "Enter"]);
    window.shows(&["Lesson 2, zombies", "ZOMBIE exit 0", "more", "live", "── events", "adopts"]);
    let end = window.shows(&["KILLED SIGKILL", "the end"]);
    assert!(!end.contains("ZOMBIE"), "{end}");
    assert!(end.contains("[1]"), "{end}");
    window.keys(&["q"]);
    window.ended(0);
    let all = window.all();
    assert!(all.contains("The answer") && all.contains("How to do it right"), "{all}");
}

/// Stops, steps, back, slower, again.
#[test]
fn keys_step_through_the_recording() {
    let window = lab(100, 30, "orphans --alternative tini --alternative none");
    window.shows(&["Your choice"]);
    window.keys(&["Enter"]);
    window.shows(&["the end: r shows it again"]);
    let events = |text: &str| {
        text.lines()
            .skip_while(|line| !line.contains("── events"))
            .skip(1)
            .take_while(|line| line.contains('.') && !line.contains("1/1"))
            .count()
    };
    window.keys(&["z", "Home"]);
    window.until("the start", |text| text.contains("‖ 1/1    0.0 ms") && events(text) <= 1);
    window.keys(&["Right", "Right", "Right", "Right"]);
    let text = window.shows(&["‖ 1/1", "» tini[1] exec", "● tini[1]"]);
    let count = events(&text);
    assert!((3..=5).contains(&count), "{text}");
    window.keys(&["Left"]);
    window.until("one event less", |text| events(text) < count);
    // The next alternative, and both.
    window.keys(&["Tab"]);
    window.shows(&["[2:none", "[none "]);
    window.keys(&["1", "z"]);
    window.shows(&["[1:tini", "[tini ", " none "]);
    window.keys(&["s", "s"]);
    window.shows(&["‖ 1/100"]);
    window.keys(&["r"]);
    window.shows(&["▶ 1/100", "replay"]);
    window.keys(&["End"]);
    window.shows(&["▶ 1/1 ", "the end"]);
    window.keys(&["g"]);
    window.shows(&["ended"]);
    window.keys(&["q"]);
    window.ended(0);
}

#[test]
fn with_yes_it_ends_by_itself() {
    let window = lab(80, 24, "orphans --yes");
    window.ended(0);
    assert!(window.all().contains("Why"));
}

/// Each size shows what it is, when it is, and the keys.
#[test]
fn small_large_and_other_sizes() {
    let window = lab(80, 24, "orphans");
    window.shows(&["Your choice"]);
    window.keys(&["Enter"]);
    for (width, height) in [(80, 24), (60, 10), (200, 60), (20, 5), (80, 24)] {
        window.resize(width, height);
        let fits = |text: &str| {
            let lines: Vec<&str> = text.lines().collect();
            lines.len() <= height.into()
                && lines[0].starts_with("Lesson 3, orphans")
                && lines[lines.len().saturating_sub(4)..].concat().contains("q explanation")
                && lines.iter().all(|line| line.chars().count() <= width.into())
        };
        window.until(&format!("{width} by {height}"), fits);
    }
    let text = window.shows(&["the end"]);
    assert!(text.contains("1:none") && text.contains("6:inception-init") && text.contains("app[1]"), "{text}");
    window.resize(250, 50);
    window.until("all six", |text| text.matches("── events").count() == 6);
    window.keys(&["q"]);
    window.ended(0);
}

/// Whether a capture has a colour in it: 30 to 37, 90 to 97, 38.
fn has_colour(text: &str) -> bool {
    let codes =
        text.split("\u{1b}[").skip(1).filter_map(|part| part.split_once('m')).flat_map(|(codes, _)| codes.split(';'));
    codes.filter_map(|code| code.parse::<u8>().ok()).any(|code| matches!(code, 30..=38 | 40..=48 | 90..=97))
}

#[test]
fn no_color() {
    for (variable, expected) in [("", true), ("NO_COLOR= ", true), ("NO_COLOR=1 ", false)] {
        let window = Window::open(90, 30, &format!("{variable}{INCEPTION} lab sigterm --alternative none"));
        window.shows(&["Your choice"]);
        window.keys(&["Enter"]);
        window.shows(&["⊘ SIGTERM IGNORED: lab to sleep[1]"]);
        assert_eq!(has_colour(&window.coloured()), expected, "{variable:?}:\n{}", window.coloured());
        window.shows(&["✗ sleep[1]", "KILLED SIGKILL"]);
        window.keys(&["q"]);
        window.ended(0);
    }
}

/// Lines for pipes, for --plain, for terminals that can do nothing.
#[test]
fn plain_lines() {
    let output = Command::new(INCEPTION).args(["lab", "orphans", "--alternative", "none"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("What happened") && !text.contains('\u{1b}'), "{text}");
    for command in ["lab orphans --plain --yes", "lab orphans --yes | cat"] {
        let window = lab(80, 24, &command["lab ".len()..]);
        window.ended(0);
        assert!(window.all().contains("What happened"));
    }
    let window = Window::open(80, 24, &format!("TERM=dumb {INCEPTION} lab orphans --yes"));
    window.ended(0);
}
