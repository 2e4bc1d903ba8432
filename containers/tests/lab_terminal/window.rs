//! A tmux of the test's own with one window.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

pub const INCEPTION: &str = env!("CARGO_BIN_EXE_inception");

/// Far longer than anything here takes, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Window {
    socket: String,
    folder: tempfile::TempDir,
}

impl Window {
    /// Runs a command in a window of this size. At its end the window says `DONE` and the exit code.
    pub fn open(width: u16, height: u16, command: &str) -> Window {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let socket = format!("inception-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let window = Window { socket, folder: tempfile::Builder::new().prefix("lab-terminal-").tempdir().unwrap() };
        let (before, after) = (window.settings("before"), window.settings("after"));
        // What tmux itself was started with must not be what is tested.
        let script = format!(
            "unset NO_COLOR COLORTERM; stty -g > {}; {command}; code=$?; stty -g > {}; echo DONE $code; exec sleep 1000",
            before.display(),
            after.display()
        );
        let size = [width.to_string(), height.to_string()];
        window.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &size[0], "-y", &size[1], "sh", "-c", &script]);
        window
    }

    fn settings(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = Command::new("tmux").args(["-u", "-L", &self.socket]).args(words).output().unwrap();
        assert!(output.status.success(), "tmux {words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn keys(&self, keys: &[&str]) {
        for key in keys {
            self.tmux(&["send-keys", key]);
            // As a person would: the program reads one after the other.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn resize(&self, width: u16, height: u16) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// What is to be seen now.
    pub fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same with its colours.
    pub fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// All that was written on the usual screen.
    pub fn all(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-S", "-"])
    }

    /// Waits until the screen has all of these in it; the screen.
    pub fn shows(&self, parts: &[&str]) -> String {
        self.until(&format!("{parts:?}"), |text| parts.iter().all(|part| text.contains(part)))
    }

    /// Waits until what is to be seen fits.
    pub fn until(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if fits(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "{what} is not to be seen:\n{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether a program has the alternate screen.
    pub fn is_taken(&self) -> bool {
        self.tmux(&["display-message", "-p", "#{alternate_on}"]).trim() == "1"
    }

    pub fn waits_until_taken(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_taken() {
            assert!(Instant::now() < deadline, "no screen:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The command has ended with this code, and the terminal is as it was.
    pub fn ended(&self, code: u8) {
        self.shows(&[&format!("DONE {code}\n")]);
        assert!(!self.is_taken(), "the alternate screen is still there");
        assert_eq!(self.tmux(&["display-message", "-p", "#{cursor_flag}"]).trim(), "1", "no cursor");
        let read = |name| std::fs::read_to_string(self.settings(name)).unwrap();
        assert_eq!(read("before"), read("after"));
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.socket, "kill-server"]).output();
    }
}
