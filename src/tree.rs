//! The init's descendants, found through /proc, and signals for them that can't hit another process.

use std::ffi::{CString, c_int};

use crate::sys;

/// A process: its pid and when it started, which together name it for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: c_int,
    parent: c_int,
    /// In clock ticks after boot (proc(5), stat's field 22).
    started: u64,
    group: c_int,
    session: c_int,
    zombie: bool,
}

impl Process {
    pub fn in_group(&self, group: c_int) -> bool {
        self.group == group
    }

    pub fn in_session(&self, session: c_int) -> bool {
        self.session == session
    }
}

/// Every living descendant of this process, parents before their children. Orphans are among them where this process
/// is PID 1 or a subreaper. Empty without /proc.
pub fn descendants() -> Vec<Process> {
    let all = all_processes();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![sys::own_pid()];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            parents.push(process.pid);
            if !process.zombie {
                found.push(*process);
            }
        }
    }
    found
}

/// Whether a process descends from this one; false where /proc does not tell.
pub fn is_descendant(mut pid: c_int) -> bool {
    let own_pid = sys::own_pid();
    // The depth of a process tree has no bound, but a loop can't be ruled out while it changes.
    for _ in 0..1024 {
        match read(pid) {
            _ if pid <= 0 => return false,
            Some(process) if process.parent == own_pid => return true,
            Some(process) => pid = process.parent,
            None => return false,
        }
    }
    false
}

/// The living children of this process.
pub fn children() -> Vec<Process> {
    let own_pid = sys::own_pid();
    all_processes().into_iter().filter(|process| process.parent == own_pid && !process.zombie).collect()
}

/// A process's name and age in milliseconds (in steps of a clock tick, a hundredth of a second), a zombie's too.
pub fn about(pid: c_int) -> Option<(String, i64)> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let process = parse(pid, &stat)?;
    let (start, end) = (stat.iter().position(|byte| *byte == b'(')?, stat.iter().rposition(|byte| *byte == b')')?);
    let age = sys::ticks().saturating_sub(process.started) * 10;
    Some((String::from_utf8_lossy(stat.get(start + 1..end)?).into_owned(), i64::try_from(age).ok()?))
}

fn all_processes() -> Vec<Process> {
    let mut all = Vec::new();
    let Ok(fd) = sys::open(c"/proc", libc::O_RDONLY | libc::O_DIRECTORY) else { return all };
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(count @ 1..) = sys::read_entries(fd, &mut buffer) {
        let pids = sys::names(&buffer[..count]).filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok());
        all.extend(pids.filter_map(read));
    }
    sys::close(fd);
    all
}

/// What /proc/PID/stat says of a process, as it is now.
fn read(pid: c_int) -> Option<Process> {
    let path = CString::new(format!("/proc/{pid}/stat")).ok()?;
    let fd = sys::open(&path, libc::O_RDONLY).ok()?;
    let mut buffer = [0; 1024];
    let read = sys::read(fd, &mut buffer);
    sys::close(fd);
    parse(pid, &buffer[..read.ok()?])
}

/// Reads a line of /proc/PID/stat.
pub fn parse(pid: c_int, stat: &[u8]) -> Option<Process> {
    // The name stands in brackets and may hold any byte, brackets too.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(stat.get(end + 2..)?).ok()?.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    // Field 22 of the line, 15 further on.
    let started = fields.nth(15)?.parse().ok()?;
    Some(Process { pid, parent, started, group, session, zombie: matches!(state, "Z" | "X") })
}

/// Sends a signal to a process that was found before, if it still is that process.
pub fn send(process: Process, signal: c_int) {
    // Refused by an old kernel (before 5.3), a filter, or where there are no descriptors left.
    let reference = sys::open_process(process.pid).ok();
    // The reference was opened before this look: what it shows is what the reference means.
    if read(process.pid).is_some_and(|now| now.started == process.started) {
        let sent = reference.map(|reference| sys::kill_process(reference, signal));
        if matches!(sent, None | Some(Err(_))) {
            let _ = sys::kill(process.pid, signal);
        }
    }
    if let Some(reference) = reference {
        sys::close(reference);
    }
}

/// Every living process of the pid namespace but this one, whoever's child it is: for its PID 1.
pub fn namespace() -> Vec<Process> {
    let own_pid = sys::own_pid();
    all_processes().into_iter().filter(|process| process.pid != own_pid && !process.zombie).collect()
}

/// Whether /proc does not tell about processes.
pub fn is_blind() -> bool {
    let own_pid = sys::own_pid();
    !all_processes().iter().any(|process| process.pid == own_pid)
}

/// The children of this process where /proc does not tell: every number that was given out since `first` was is asked
/// for, up to `newest`. Descendants of theirs become children when they have ended.
pub fn children_by_asking(first: c_int, newest: c_int) -> impl Iterator<Item = c_int> {
    // The numbers start anew at one of two places (proc(5), pid_max): small machines have the first.
    let highest = if first < 1 << 15 { 1 << 15 } else { 1 << 22 };
    let (end, anew) = if newest < first { (highest, newest) } else { (newest, 0) };
    (first..=end).chain(1..=anew).filter(|pid| sys::is_child(*pid))
}

/// Sends a signal once to every process that `look` finds and that is not in `done`, and to those that appear while it
/// does; adds them to `done`.
pub fn send_to_all(signal: c_int, look: fn() -> Vec<Process>, done: &mut Vec<Process>) {
    // A process may fork between the look and the signal. A fork bomb is for KILL.
    for _ in 0..16 {
        let new: Vec<_> = look().into_iter().filter(|process| !is_in(done, *process)).collect();
        if new.is_empty() {
            break;
        }
        for process in new {
            send(process, signal);
            done.push(process);
        }
    }
}

fn is_in(list: &[Process], process: Process) -> bool {
    list.iter().any(|known| known.pid == process.pid && known.started == process.started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hostile_names() {
        let line = b"77 (a) S 1 (b)) R 5 70 60 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 1 1 1";
        let process = parse(77, line).unwrap();
        assert_eq!((process.parent, process.group, process.session, process.started), (5, 70, 60, 123_456));
        assert!(parse(1, b"1 (x").is_none() && parse(1, b"").is_none() && parse(1, b"1 (x) R").is_none());
    }

    #[test]
    fn finds_a_child() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let found = descendants().into_iter().find(|process| process.pid == child.id() as c_int).unwrap();
        assert_eq!(found.parent, sys::own_pid());
        send(Process { started: found.started + 1, ..found }, libc::SIGKILL);
        assert!(child.try_wait().unwrap().is_none());
        send(found, libc::SIGKILL);
        assert!(!child.wait().unwrap().success());
    }
}
