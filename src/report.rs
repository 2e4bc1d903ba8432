//! Diagnostics on stderr that never wait: errors and warnings always, more with --verbose.

use std::ffi::OsStr;

use crate::{environment, sys};

/// syslog(3)'s numbers, as the journal reads them at a line's beginning (sd-daemon(3)).
const WARNING: &str = "<4>";
const INFO: &str = "<6>";
const DEBUG: &str = "<7>";

/// Writes a line for a person to stderr, or drops it.
pub fn say(message: std::fmt::Arguments) {
    sys::write_or_drop(2, format!("{}inception-init: {message}\n", priority(WARNING)).as_bytes());
}

/// A line's priority, where stderr leads to systemd's journal.
fn priority(level: &'static str) -> &'static str {
    let is_journal = environment::variable("JOURNAL_STREAM").is_some_and(|stream| {
        sys::identity_of(2).is_some_and(|(device, inode)| stream == OsStr::new(&format!("{device}:{inode}")))
    });
    if is_journal { level } else { "" }
}

/// An error or a warning: shown with or without --verbose.
#[macro_export]
macro_rules! warning {
    ($($part:tt)*) => { $crate::report::say(format_args!($($part)*)) };
}

/// What is logged, on stderr. A logger that is ready-made reads filters, colours, and locks: 20 kB of code.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let level = if record.level() == log::Level::Debug { DEBUG } else { INFO };
        sys::write_or_drop(2, format!("{}inception-init: {}\n", priority(level), record.args()).as_bytes());
    }

    fn flush(&self) {}
}

/// Shows what the init does: phases and signals, with 2 every process that is reaped.
pub fn be_verbose(level: u8) {
    let filter = match level {
        0 => return,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    // Refused where it is set already, to the same.
    let _ = log::set_logger(&Stderr);
    log::set_max_level(filter);
}
