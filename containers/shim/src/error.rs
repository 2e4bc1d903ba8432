//! The shim's one error type: the operation, the thing, and why.

use std::{fmt, io, path::Path};

/// An operation that failed. Its text is what the daemon passes on to the user.
#[derive(Debug)]
pub struct Error {
    doing: String,
    source: io::Error,
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.doing, self.source)
    }
}

/// Names the operation and the thing on which an [`io::Error`] happened.
pub trait Context<T> {
    /// `doing` is a phrase such as "make a pipe".
    fn doing(self, doing: impl fmt::Display) -> Result<T>;
    /// The common case: a verb and a path.
    fn at(self, verb: &str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn doing(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error { doing: doing.to_string(), source: error.into() })
    }

    fn at(self, verb: &str, path: &Path) -> Result<T> {
        self.doing(format_args!("{verb} {}", path.display()))
    }
}
