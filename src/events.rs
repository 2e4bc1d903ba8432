//! The event log: one line for each thing that happens, for programs that draw or test it. A line that would have to
//! wait is dropped, as diagnostics are.

use std::ffi::{CString, c_int};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::sys;

/// Where events go, and in which form.
#[derive(Clone, Copy)]
pub struct Log {
    fd: c_int,
    json: bool,
}

/// What an event says of something.
pub enum Value<'a> {
    Number(i64),
    Text(&'a str),
    Flag(bool),
}

impl Log {
    /// Opens a file to append to, or takes the inherited descriptor of `fd:N`.
    pub fn open(target: &str, json: bool) -> Result<Self, String> {
        let fd = match target.strip_prefix("fd:") {
            Some(number) => {
                let fd: c_int = number.parse().map_err(|_| format!("--events {target}: fd:NUMBER is wanted"))?;
                // The service must not hold it open; 0, 1 and 2 are its own too.
                if fd > 2 {
                    sys::close_on_exec(fd).map_err(|error| format!("--events {target}: {}", sys::reason(error)))?;
                }
                fd
            }
            None => {
                let path = CString::new(target).map_err(|_| "--events: a NUL in the name".to_owned())?;
                sys::open(&path, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND)
                    .map_err(|error| format!("--events {target}: {}", sys::reason(error)))?
            }
        };
        Ok(Self { fd, json })
    }

    /// The descriptor, which stays open when the others are closed.
    pub fn fd(self) -> c_int {
        self.fd
    }

    /// Writes an event with the time in milliseconds after 1970.
    pub fn write(self, event: &str, fields: &[(&str, Value)]) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        sys::write_or_drop(self.fd, self.line(time, event, fields).as_bytes());
    }

    fn line(self, time: u128, event: &str, fields: &[(&str, Value)]) -> String {
        let mut line =
            if self.json { format!("{{\"time_ms\":{time},\"event\":\"{event}\"") } else { format!("{time} {event}") };
        for (name, value) in fields {
            let _ = match (self.json, value) {
                (true, Value::Number(number)) => write!(line, ",\"{name}\":{number}"),
                (true, Value::Flag(flag)) => write!(line, ",\"{name}\":{flag}"),
                (true, Value::Text(text)) => write!(line, ",\"{name}\":\"{}\"", escaped(text)),
                (false, Value::Number(number)) => write!(line, " {name}={number}"),
                (false, Value::Flag(flag)) => write!(line, " {name}={flag}"),
                (false, Value::Text(text)) => write!(line, " {name}={}", plain(text)),
            };
        }
        line.push_str(if self.json { "}\n" } else { "\n" });
        line
    }
}

/// A JSON string's inside (RFC 8259).
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if u32::from(letter) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out
}

/// One word: a process may have any name.
pub fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_ascii_graphic() { letter } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names() {
        let fields = [("pid", Value::Number(7)), ("name", Value::Text("a \"b\\\n")), ("main", Value::Flag(false))];
        let line = |json| Log { fd: -1, json }.line(5, "reaped", &fields);
        assert_eq!(
            line(true),
            "{\"time_ms\":5,\"event\":\"reaped\",\"pid\":7,\"name\":\"a \\\"b\\\\\\u000a\",\"main\":false}\n"
        );
        assert_eq!(line(false), "5 reaped pid=7 name=a?\"b\\? main=false\n");
    }
}
