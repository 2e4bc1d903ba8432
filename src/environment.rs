//! The service's environment: the init's own, unless an option changes something.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;

use crate::sys;

/// The entry by which sd_listen_fds(3) tells a service that descriptors are meant for it, with room for any pid.
pub const LISTEN_PID: &CStr = c"LISTEN_PID=0000000000";

/// How an entry begins that tells a service of descriptors.
#[unsafe(link_section = ".rodata.first")]
static LISTENS: [u8; 11] = *b"LISTEN_PID=";

/// Entries as execve(2) wants them.
pub struct Environment {
    /// Ends in NULL; points into the process's own environment and into `_owned`.
    entries: Vec<*const c_char>,
    _owned: Vec<CString>,
}

/// The process's own environment.
pub fn own() -> *const *const c_char {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: single-threaded, and nobody changes it.
    unsafe { environ }
}

/// The process's own entries, `NAME=VALUE`.
pub fn entries() -> impl Iterator<Item = &'static OsStr> + Clone {
    raw(own()).map(|entry| {
        // SAFETY: an entry of the environment lives as long as the process.
        unsafe { sys::text(entry) }
    })
}

fn raw(first: *const *const c_char) -> impl Iterator<Item = *const c_char> + Clone {
    let mut next = first;
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: the environment ends in NULL, where this stops.
        let entry = unsafe { *next };
        if entry.is_null() {
            return None;
        }
        // SAFETY: not past the NULL.
        next = unsafe { next.add(1) };
        Some(entry)
    })
}

/// Whether an entry of the init's own environment begins with this; a NUL at its end stands for the entry's end. Without
/// measuring the entries, which are kilobytes and looked through at every start.
pub fn has(beginning: &[u8]) -> bool {
    // SAFETY: an entry ends in NUL, and is read no further than that: the bytes before were equal.
    raw(own())
        .any(|entry| beginning.iter().enumerate().all(|(place, byte)| unsafe { *entry.add(place) as u8 } == *byte))
}

/// Descriptors were handed to the init, or to who ran it.
pub fn listens() -> bool {
    has(&LISTENS)
}

/// A variable of the init's own environment.
pub fn variable(name: &str) -> Option<&'static OsStr> {
    entries()
        .find_map(|entry| Some(OsStr::from_bytes(entry.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?)))
}

/// The init's environment with some variables set anew and some left out; `None` where it serves as it is.
pub fn with(set: &[(Vec<u8>, Vec<u8>)], without: &[&str]) -> Option<Environment> {
    let listens = variable("LISTEN_PID").is_some_and(|pid| pid == OsStr::new(&sys::own_pid().to_string()));
    if set.is_empty() && without.is_empty() && !listens {
        return None;
    }
    let mut owned: Vec<CString> = set
        .iter()
        .filter_map(|(name, value)| CString::new([name.as_slice(), b"=", value.as_slice()].concat()).ok())
        .collect();
    if listens {
        owned.push(LISTEN_PID.to_owned());
    }
    let name_of = |entry: &[u8]| entry.split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
    let mut replaced: Vec<_> = owned.iter().filter_map(|entry| name_of(entry.as_bytes())).collect();
    replaced.extend(without.iter().map(|name| name.as_bytes().to_vec()));
    let mut entries: Vec<*const c_char> = raw(own())
        .filter(|entry| {
            // SAFETY: as in `entries`.
            let text = unsafe { sys::text(*entry) };
            name_of(text.as_bytes()).is_none_or(|name| !replaced.contains(&name))
        })
        .collect();
    entries.extend(owned.iter().map(|entry| entry.as_ptr()));
    entries.push(std::ptr::null());
    Some(Environment { entries, _owned: owned })
}

impl Environment {
    pub fn as_ptr(&self) -> *const *const c_char {
        self.entries.as_ptr()
    }
}
