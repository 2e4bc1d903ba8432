//! What may stand between the runner and the program.

use std::path::PathBuf;

/// One way to start a program in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alternative {
    None,
    Shell,
    Tini,
    DumbInit,
    Catatonit,
    Inception,
}

impl Alternative {
    /// In the order in which they are shown.
    pub const ALL: [Alternative; 6] = [
        Alternative::None,
        Alternative::Shell,
        Alternative::Tini,
        Alternative::DumbInit,
        Alternative::Catatonit,
        Alternative::Inception,
    ];

    /// As typed and as in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Alternative::None => "none",
            Alternative::Shell => "sh",
            Alternative::Tini => "tini",
            Alternative::DumbInit => "dumb-init",
            Alternative::Catatonit => "catatonit",
            Alternative::Inception => "inception-init",
        }
    }

    /// As people call it.
    pub fn title(self) -> &'static str {
        match self {
            Alternative::None => "no init",
            Alternative::Shell => "sh -c",
            other => other.name(),
        }
    }

    /// The alternative with this name.
    pub fn named(name: &str) -> Option<Alternative> {
        Self::ALL.into_iter().find(|alternative| alternative.name() == name)
    }

    /// Whether it is an init.
    pub fn is_init(self) -> bool {
        !matches!(self, Alternative::None | Alternative::Shell)
    }

    /// Its program; none where it is not installed. No init needs none.
    pub fn program(self) -> Option<PathBuf> {
        match self {
            Alternative::None => Some(PathBuf::new()),
            Alternative::Inception => crate::cli::find_init().filter(|path| path.is_file()),
            other => crate::cli::find_program(other.name()),
        }
    }

    /// How to get it.
    pub fn install(self) -> &'static str {
        match self {
            Alternative::None | Alternative::Shell => "apt install dash",
            Alternative::Tini => "apt install tini",
            Alternative::DumbInit => "apt install dumb-init",
            Alternative::Catatonit => "apt install catatonit",
            Alternative::Inception => "make init (or name the program in INCEPTION_INIT)",
        }
    }

    /// The command line that starts `words` under it, as a Dockerfile has it.
    pub fn wrap(self, words: &[&str]) -> Vec<String> {
        let words = words.iter().map(|word| (*word).to_owned());
        match self {
            Alternative::None => words.collect(),
            // The shell form: CMD ./app
            Alternative::Shell => vec!["sh".into(), "-c".into(), words.collect::<Vec<_>>().join(" ")],
            init => [init.name().to_owned(), "--".to_owned()].into_iter().chain(words).collect(),
        }
    }
}
