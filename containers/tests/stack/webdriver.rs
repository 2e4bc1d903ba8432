//! A headless Chromium, driven over WebDriver (<https://www.w3.org/TR/webdriver2/>): chromedriver, and curl as the client,
//! so that both can live in another network namespace than the test.

#![allow(dead_code, reason = "the stack's tests use a part of it, the lab's another")]

use crate::harness::{eventually, run_with_input};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// How the specification names an element in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with an empty profile; gone when dropped.
pub struct Browser<'a> {
    /// Makes the command that runs a program where the browser lives.
    command: Box<dyn Fn(&str) -> Command + 'a>,
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

/// An element of the page that was shown when it was found.
pub struct Element(String);

impl<'a> Browser<'a> {
    /// Starts a browser that knows `domain` as this machine and no other name: nothing leaves the machine.
    pub fn start(command: impl Fn(&str) -> Command + 'a, domain: &str) -> Browser<'a> {
        let profile = tempfile::Builder::new().prefix("inception-browser-").tempdir().unwrap();
        let mut driver = command("chromedriver")
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed by `make test`");
        let mut said = BufReader::new(driver.stdout.take().unwrap());
        let port = loop {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "chromedriver ended without naming its port");
            if let Some((_, rest)) = line.split_once("successfully on port ") {
                break rest.trim_end_matches(['.', '\n']).parse().unwrap();
            }
        };
        // A full pipe would stop the driver.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let mut browser =
            Browser { command: Box::new(command), driver, port, session: String::new(), _profile: profile };
        let arguments = [
            "--headless=new".to_string(),
            // A page that scrolls smoothly never comes to rest where clicks are tried again and again.
            "--force-prefers-reduced-motion".to_string(),
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-dev-shm-usage".into(),
            "--disable-background-networking".into(),
            "--disable-component-update".into(),
            "--disable-sync".into(),
            "--no-first-run".into(),
            "--window-size=1280,2000".into(),
            format!("--user-data-dir={}", browser._profile.path().join("profile").display()),
            format!("--host-resolver-rules=MAP {domain} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
        ];
        let session = browser.ask(
            "POST",
            "/session",
            json!({"capabilities": {"alwaysMatch": {
                "acceptInsecureCerts": true,
                "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": arguments},
            }}}),
        );
        browser.session = format!("/session/{}", session["sessionId"].as_str().expect("a session"));
        browser
    }

    fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.try_ask(method, path, body);
        assert!(answer.get("error").is_none(), "WebDriver {method} {path}: {} {}", answer["error"], answer["message"]);
        answer
    }

    fn try_ask(&self, method: &str, path: &str, body: Value) -> Value {
        let mut command = (self.command)("curl");
        command
            .args(["--silent", "--show-error", "--max-time", "60", "--request", method])
            .args(["--header", "Content-Type: application/json; charset=utf-8"])
            .arg(format!("http://127.0.0.1:{}{path}", self.port));
        if method == "POST" {
            command.args(["--data-binary", "@-"]);
        }
        let answer = run_with_input(&mut command, body.to_string().as_bytes()).ok();
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        answer["value"].take()
    }

    fn here(&self, method: &str, path: &str, body: Value) -> Value {
        self.ask(method, &format!("{}{path}", self.session), body)
    }

    pub fn go(&self, address: &str) {
        self.here("POST", "/url", json!({"url": address}));
    }

    pub fn address(&self) -> String {
        self.here("GET", "/url", Value::Null).as_str().unwrap().to_string()
    }

    /// As if nobody had logged in.
    pub fn forget_cookies(&self) {
        self.here("DELETE", "/cookie", Value::Null);
    }

    /// The first element that matches, as soon as it is there.
    #[track_caller]
    pub fn find(&self, css: &str) -> Element {
        eventually(20, &format!("{css} on {}", self.address()), || self.find_now(css))
    }

    pub fn find_now(&self, css: &str) -> Option<Element> {
        let path = format!("{}/element", self.session);
        let found = self.try_ask("POST", &path, json!({"using": "css selector", "value": css}));
        found.get(ELEMENT).and_then(Value::as_str).map(|id| Element(id.to_string()))
    }

    /// Clicks as soon as the element is there and nothing lies over it.
    #[track_caller]
    pub fn click(&self, css: &str) {
        let mut last = String::new();
        eventually(20, &format!("a click on {css}"), || {
            let Element(id) = self.find_now(css)?;
            let answer = self.try_ask("POST", &format!("{}/element/{id}/click", self.session), json!({}));
            answer.get("error").is_none().then_some(()).or_else(|| {
                let why = answer["message"].to_string();
                if why != last {
                    eprintln!("{css}: {why}");
                    last = why;
                }
                None
            })
        });
    }

    /// Types into an element, after what is there.
    #[track_caller]
    pub fn type_into(&self, css: &str, text: &str) {
        let Element(id) = self.find(css);
        self.here("POST", &format!("/element/{id}/value"), json!({"text": text}));
    }

    /// The visible text of the whole page.
    pub fn text(&self) -> String {
        let Element(id) = self.find("body");
        self.here("GET", &format!("/element/{id}/text"), Value::Null).as_str().unwrap().to_string()
    }

    pub fn attribute(&self, css: &str, name: &str) -> String {
        let Element(id) = self.find(css);
        self.here("GET", &format!("/element/{id}/attribute/{name}"), Value::Null)
            .as_str()
            .unwrap_or_default()
            .to_string()
    }

    /// Runs a script in the page; what it returns.
    pub fn script(&self, script: &str) -> Value {
        self.here("POST", "/execute/sync", json!({"script": script, "args": []}))
    }

    /// Types where the focus is; `\u{e007}` is Enter (<https://www.w3.org/TR/webdriver2/#keyboard-actions>).
    pub fn press(&self, keys: &str) {
        let Some(found) = self.here("GET", "/element/active", Value::Null).get(ELEMENT).cloned() else { return };
        let id = found.as_str().unwrap().to_string();
        self.here("POST", &format!("/element/{id}/value"), json!({"text": keys}));
    }

    /// A command of Chromium's own protocol (<https://chromedevtools.github.io/devtools-protocol/>).
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.here("POST", "/goog/cdp/execute", json!({"cmd": command, "params": parameters}))
    }

    /// Writes the whole page into a PNG file, as wide as it is now.
    pub fn photograph(&self, file: &Path) {
        let wish = json!({"format": "png", "captureBeyondViewport": true});
        save(&self.devtools("Page.captureScreenshot", wish)["data"], file);
    }

    /// Writes what a person would see into a PNG file.
    pub fn screenshot(&self, file: &Path) {
        save(&self.here("GET", "/screenshot", Value::Null), file);
    }
}

/// Base64 in JSON, as a file.
fn save(picture: &Value, file: &Path) {
    let mut child = Command::new("base64")
        .arg("--decode")
        .stdin(Stdio::piped())
        .stdout(fs::File::create(file).unwrap())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), picture.as_str().unwrap().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends the browser; the driver is another process.
            self.try_ask("DELETE", &self.session, Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
