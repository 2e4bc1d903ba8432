//! Diagnostics on stderr that never wait: errors and warnings always, more with --verbose.

use std::ffi::OsStr;
use std::io::Write;

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

struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        sys::write_or_drop(2, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Shows what the init does: phases and signals, with 2 every process that is reaped.
pub fn be_verbose(level: u8) {
    let filter = match level {
        0 => return,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    let target = env_logger::Target::Pipe(Box::new(Stderr));
    let line = |out: &mut env_logger::fmt::Formatter, record: &log::Record| {
        let level = if record.level() == log::Level::Debug { DEBUG } else { INFO };
        writeln!(out, "{}inception-init: {}", priority(level), record.args())
    };
    let _ = env_logger::Builder::new().filter_level(filter).target(target).format(line).try_init();
}
