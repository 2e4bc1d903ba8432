//! The served page, used as a person does.

use crate::{
    harness::eventually,
    page::{photograph, put_on, validate},
    server::{Server, ask},
    spoken::{headings_in_order, hear, nothing_is_nameless},
    webdriver::Browser,
};
use serde_json::json;
use std::{fs, process::Command};

/// The lane of tini, and in it the row of the process of this name.
fn row(name: &str) -> String {
    format!("#clean-up-tini .process[data-name^='{name}[']")
}

fn text(browser: &Browser, css: &str) -> String {
    let found = browser.script(&format!("return document.querySelector({css:?})?.textContent ?? ''"));
    found.as_str().unwrap().to_string()
}

fn pid_of(browser: &Browser, name: &str) -> String {
    browser.attribute(&row(name), "data-pid")
}

/// As the kernel has it; none when the process is gone.
fn state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn comes(browser: &Browser, css: &str, wanted: &str) {
    eventually(20, &format!("{wanted:?} in {css}"), || text(browser, css).contains(wanted).then_some(()));
}

#[test]
fn choose_run_and_send_signals() {
    let server = Server::start(&[]);
    let browser = Browser::start(|program| Command::new(program), "lab.test");
    browser.go(&server.link);
    put_on(&browser, 1280, "light");
    browser.photograph(&photograph("served-index"));
    browser.click("a[href='/lesson/clean-up']");
    browser.find("#controls");
    browser.script("performance.mark('here'); window.refused = []; addEventListener('securitypolicyviolation', (event) => refused.push(event.violatedDirective))");
    // What is expected, by keyboard.
    browser.script("document.querySelector('[name=choice][data-right]').focus()");
    browser.press(" ");
    comes(&browser, "#verdict", "We will see");

    browser.click("#hold");
    browser.click("#run");
    comes(&browser, "#state", "waits for you");
    for name in ["tini", "sh", "app"] {
        browser.find(&row(name));
    }
    assert_eq!(browser.script("return document.querySelectorAll('#board .run').length"), 6, "all side by side");
    listen(&browser);
    let (shell, app) = (pid_of(&browser, "sh"), pid_of(&browser, "app"));

    // By mouse: the shell is stopped, so that it can't wait for its child.
    browser.click(&row("sh"));
    comes(&browser, "#signals-title", "sh[2]");
    browser.photograph(&photograph("served-dialog"));
    let dialog = hear(&browser);
    let is_there = |role: &str, name: &str| dialog.iter().any(|one| one.role == role && one.name == name);
    assert!(is_there("dialog", "Send sh[2] a signal") && is_there("button", "SIGSTOP"), "{dialog:#?}");
    browser.click("#signals[open] button[value=STOP]");
    comes(&browser, &row("sh"), "stopped");
    assert_eq!(state(&shell), Some('T'));
    browser.find("#clean-up-tini rect.bar.stopped");

    // By keyboard: the child is killed, and is a zombie.
    browser.script(&format!("document.querySelector({:?}).focus()", row("app")));
    browser.press("\u{e007}");
    browser.find("#signals[open]");
    browser.script("document.querySelector('#signals button[value=KILL]').focus()");
    browser.press("\u{e007}");
    comes(&browser, &row("app"), "killed by SIGKILL, a zombie");
    assert_eq!(state(&app), Some('Z'));
    comes(&browser, "#spoken", "app is a zombie");
    for (width, scheme) in [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")] {
        put_on(&browser, width, scheme);
        browser.photograph(&photograph(&format!("served-zombie-{width}-{scheme}")));
        let wide = browser.script("return document.documentElement.scrollWidth - innerWidth");
        assert!(wide.as_i64().unwrap() <= 0, "{width}: {wide} too wide");
    }
    // Focus is where it was: on the row that was chosen, or what took its place.
    let focused = browser.script("return document.activeElement.closest('.process, #signals, body').tagName");
    assert_ne!(focused, "DIALOG");

    // The shell goes on, waits for its child, and the zombie is gone.
    browser.click(&row("sh"));
    browser.click("#signals[open] button[value=CONT]");
    eventually(20, "the zombie goes", || state(&app).is_none().then_some(()));
    comes(&browser, &row("app"), "a zombie for");

    browser.click("#go-on");
    comes(&browser, "#state", "over");
    browser.find("#board table");
    comes(&browser, "#board", "not as expected");
    comes(&browser, "#clean-up-inception-init", "exit status");
    assert_eq!(browser.script("return document.querySelectorAll('.choosable').length"), 0, "nothing is left to signal");
    browser.photograph(&photograph("served-over"));
    let duplicates = "const ids = [...document.querySelectorAll('[id]')].map((one) => one.id); \
                      return ids.filter((id, index) => ids.indexOf(id) !== index)";
    assert_eq!(browser.script(duplicates), json!([]));
    assert_eq!(browser.script("return window.refused"), json!([]), "the page breaks its own policy");
    let heard = hear(&browser);
    headings_in_order(&heard);
    nothing_is_nameless(&heard);
    let run = heard.iter().find(|one| one.role == "article" && one.name.starts_with("tini, exit status "));
    assert!(run.is_some(), "{heard:?}");
}

/// What a screen reader has of the page while the lesson waits for its reader.
fn listen(browser: &Browser) {
    let heard = hear(browser);
    headings_in_order(&heard);
    nothing_is_nameless(&heard);
    let is_there = |role: &str, name: &str| {
        assert!(heard.iter().any(|one| one.role == role && one.name == name), "no {role} “{name}” in {heard:#?}");
    };
    for (role, name) in [
        ("navigation", "Lessons"),
        ("region", "The lesson"),
        ("region", "The program app"),
        ("group", "What do you expect?"),
        ("region", "The run"),
        ("form", "Run the lesson"),
        ("group", "Run it under"),
        ("checkbox", "sh -c"),
        ("button", "Go on"),
        ("button", "End"),
        ("article", "no init, running"),
    ] {
        is_there(role, name);
    }
    // What the lab says while it runs, the state of the run, and the verdict on the choice: read when they change.
    let live = heard.iter().filter(|one| one.role == "status" && one.live.as_deref() == Some("polite"));
    assert_eq!(live.count(), 3);
    // A process is a button that says who it is, how it is, and what it is for; once, not twice.
    let row = heard.iter().find(|one| one.role == "button" && one.name.starts_with("sh[2], outside ")).expect("a row");
    assert!(row.name.ends_with(": runs. Send a signal") && row.description.is_empty(), "{row:?}");
}

#[test]
fn pages_are_valid() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    for path in ["/", "/lesson/sigterm", "/lesson/zombies", "/lesson/storage"] {
        let (status, text) = ask(&server, path, &[]);
        assert_eq!(status, 200, "{path}");
        let file = folder.path().join("page.html");
        fs::write(&file, text.split_once("\r\n\r\n").unwrap().1).unwrap();
        validate(&file);
    }
    assert_eq!(ask(&server, "/lesson/nothing", &[]).0, 404);
}
