//! How a build fails: what happened, at which line, and the exit code of the command that did it.

use crate::error::Error;
use std::fmt;

/// A failure that points into the Dockerfile.
#[derive(Debug)]
pub struct Failure {
    /// `Dockerfile:12`, with the instruction where that helps.
    place: Option<String>,
    pub error: Error,
    is_given_up: bool,
}

impl Failure {
    /// A fault of the Dockerfile itself; line 0 stands for the whole file.
    pub fn at(file: &str, line: usize, message: impl fmt::Display) -> Failure {
        Failure::from(Error::invalid(message)).located(file, line, None)
    }

    /// No fault of the step that it ended: the client is gone, or another stage failed.
    pub fn given_up() -> Failure {
        let error = Error::Failed("the build is given up".into());
        Failure { place: None, error, is_given_up: true }
    }

    /// Whether this is [`Failure::given_up`].
    pub fn is_given_up(&self) -> bool {
        self.is_given_up
    }

    /// Says where it happened, unless that is known.
    pub fn located(mut self, file: &str, line: usize, instruction: Option<&str>) -> Failure {
        if self.place.is_none() {
            let line = if line == 0 { String::new() } else { format!(":{line}") };
            let instruction = instruction.map(|text| format!(": {}", shorten(text))).unwrap_or_default();
            self.place = Some(format!("{file}{line}{instruction}"));
        }
        self
    }

    /// For an instruction inside another one, whose place is told once.
    pub fn message_without_place(&self) -> String {
        self.error.to_string()
    }

    /// What the client's exit code should be, where a command of the build had one.
    pub fn code(&self) -> Option<i32> {
        match self.error {
            Error::Runtime { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// An instruction of many lines is recognised by its beginning.
fn shorten(text: &str) -> String {
    const MOST: usize = 120;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl From<Failure> for Error {
    /// For an answer that has no stream.
    fn from(failure: Failure) -> Error {
        match failure.error {
            Error::Invalid(_) => Error::Invalid(failure.to_string()),
            error if failure.place.is_none() => error,
            _ => Error::Failed(failure.to_string()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { place: None, error, is_given_up: false }
    }
}
