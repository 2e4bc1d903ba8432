//! Diagnostics on stderr that never wait: errors and warnings always, more with --verbose.

use std::io::Write;

use crate::sys;

/// Writes a line for a person to stderr, or drops it.
pub fn say(message: std::fmt::Arguments) {
    sys::write_or_drop(2, format!("inception-init: {message}\n").as_bytes());
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
    let line =
        |out: &mut env_logger::fmt::Formatter, record: &log::Record| writeln!(out, "inception-init: {}", record.args());
    let _ = env_logger::Builder::new().filter_level(filter).target(target).format(line).try_init();
}
