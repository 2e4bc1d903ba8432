//! The crate's one error type. Every variant names the operation and the thing, and knows its HTTP status (for a
//! client of the API) and its exit code (for a person at a shell).

use std::{fmt, io, path::Path};

/// What went wrong, where, and, as far as it is known, what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object of the engine that does not exist. Docker's own wording: clients look for it.
    #[error("{}", not_found(kind, name))]
    NotFound { kind: &'static str, name: String },
    /// The request is understood and refused: a bad name, option, file or archive.
    #[error("{0}")]
    Invalid(String),
    /// The request collides with what exists (a name in use, a running container).
    #[error("{0}")]
    Conflict(String),
    /// A container that is already in the asked state: Docker answers 304 without a text.
    #[error("not modified")]
    NotModified,
    /// Part of the API or of a file format that is not there yet, by name.
    #[error("not implemented: {0}")]
    NotImplemented(String),
    /// An operation of the system failed.
    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },
    /// A program that the engine runs (runc, nft, mmdebstrap) failed; `output` is its last words.
    #[error("{program} failed ({status}): {output}")]
    Program { program: String, status: String, output: String },
    /// The OCI runtime could not run the program; `code` is what a shell would see (126, 127, 128).
    #[error("{message}")]
    Runtime { message: String, code: i32 },
    /// An answer of the engine to the companion, passed on as it came.
    #[error("{message}")]
    Engine { status: u16, message: String },
    /// Any other failure, told in full.
    #[error("{0}")]
    Failed(String),
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The HTTP status that the API answers with.
    pub fn status(&self) -> u16 {
        match self {
            Error::NotFound { .. } => 404,
            Error::Invalid(_) => 400,
            Error::Conflict(_) => 409,
            Error::NotModified => 304,
            Error::NotImplemented(_) => 501,
            Error::Engine { status, .. } => *status,
            // dockerd: a program that can't be run is the client's mistake.
            Error::Runtime { code: 126 | 127, .. } => 400,
            Error::Io { .. } | Error::Program { .. } | Error::Runtime { .. } | Error::Failed(_) => 500,
        }
    }

    /// The exit code of the command that failed by it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Invalid(_) => 2,
            Error::Runtime { code, .. } => u8::try_from(*code).unwrap_or(1),
            _ => 1,
        }
    }

    /// Shorthand for [`Error::Invalid`].
    pub fn invalid(message: impl fmt::Display) -> Self {
        Error::Invalid(message.to_string())
    }

    /// Shorthand for [`Error::NotFound`].
    pub fn not_found(kind: &'static str, name: impl Into<String>) -> Self {
        Error::NotFound { kind, name: name.into() }
    }
}

fn not_found(kind: &str, name: &str) -> String {
    match kind {
        "network" => format!("network {name} not found"),
        "volume" => format!("get {name}: no such volume"),
        "plugin" => format!("plugin \"{name}\" not found"),
        _ => format!("No such {kind}: {name}"),
    }
}

/// Names the operation and the thing on which an [`io::Error`] happened.
pub trait Context<T> {
    /// `doing` is a phrase such as "read /etc/passwd".
    fn doing(self, doing: impl fmt::Display) -> Result<T>;
    /// The common case: a verb and a path.
    fn at(self, verb: &str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn doing(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::Io { doing: doing.to_string(), source: error.into() })
    }
    fn at(self, verb: &str, path: &Path) -> Result<T> {
        self.map_err(|error| Error::Io { doing: format!("{verb} {}", path.display()), source: error.into() })
    }
}
