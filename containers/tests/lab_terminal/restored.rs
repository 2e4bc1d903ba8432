//! The terminal is given back, however the view ends.

use crate::{
    screen::Screen,
    window::{INCEPTION, Window},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{env, fs};

fn running() -> (Window, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    // A shell that becomes the lab tells the lab's pid.
    let command = format!("sh -c 'echo $$ > {}; exec {INCEPTION} lab sigterm --yes'", pid.display());
    let window = Window::open(80, 24, &command);
    window.waits_until_taken();
    (window, folder)
}

#[test]
fn after_ctrl_c() {
    let (window, _folder) = running();
    window.shows(&["Lesson 1"]);
    window.keys(&["C-c"]);
    window.ended(130);
}

#[test]
fn after_term_and_hangup() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGINT, 130)] {
        let (window, folder) = running();
        let pid: i32 = fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        window.ended(code);
    }
}

#[test]
fn after_q_while_it_runs() {
    let (window, _folder) = running();
    window.keys(&["q"]);
    window.ended(0);
    assert!(window.all().contains("What happened"));
}

/// In any thread: this test runs itself in a window, where it panics.
#[test]
fn after_a_panic() {
    const HERE: &str = "INCEPTION_TEST_PANICS";
    if env::var_os(HERE).is_some() {
        let mut screen = Screen::open().unwrap();
        screen.draw(|frame| frame.render_widget("drawn", frame.area())).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(1));
        let thread = std::thread::spawn(|| panic!("on purpose"));
        assert!(thread.join().is_err());
        // Nothing is drawn on the usual screen.
        screen.draw(|frame| frame.render_widget("drawn again", frame.area())).unwrap();
        return;
    }
    let own = env::current_exe().unwrap();
    let command = format!("{HERE}=1 {} --exact restored::after_a_panic --nocapture", own.display());
    let window = Window::open(80, 24, &command);
    window.shows(&["drawn"]);
    assert!(window.is_taken());
    window.ended(0);
    let all = window.all();
    assert!(all.contains("on purpose") && !all.contains("drawn"), "{all}");
}
