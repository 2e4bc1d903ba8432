//! What /proc tells of a process (proc_pid_stat(5), proc_pid_status(5)).

use std::fs;

/// The fields of /proc/PID/stat that the lab looks at.
#[derive(Debug, PartialEq)]
pub struct Stat {
    pub name: String,
    /// R, S, D, Z, T, t, X.
    pub state: char,
    pub parent: i32,
    /// In clock ticks since the machine's start: with the pid it names a process for ever.
    pub started: u64,
    /// As wait(2) gives it; 0 where the reader has no right to see it.
    pub wait_status: i32,
}

/// None when the process is gone.
pub fn stat(pid: i32) -> Option<Stat> {
    read_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// When the process started; none when it is gone.
pub fn started_at(pid: i32) -> Option<u64> {
    stat(pid).map(|stat| stat.started)
}

fn read_stat(text: &str) -> Option<Stat> {
    // The name may have blanks and brackets.
    let (start, rest) = text.rsplit_once(") ")?;
    let name = start.split_once(" (")?.1.to_owned();
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        name,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
        wait_status: fields.get(49).and_then(|field| field.parse().ok()).unwrap_or(0),
    })
}

/// The children that the process has now (those of its first thread).
pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// All that comes of the process and is there now, each behind its parent.
pub fn descendants(pid: i32) -> Vec<i32> {
    children(pid).into_iter().flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

/// What whoever started it calls it (the first word of its command line), without folders.
pub fn called(pid: i32) -> Option<String> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = String::from_utf8_lossy(words.split(|byte| *byte == 0).next()?).into_owned();
    first.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Whether it has a controlling terminal.
pub fn has_terminal(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The fifth after the name is tty_nr.
    text.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(4)).is_some_and(|number| number != "0")
}

/// How many descendants of the process have ended and were not waited for.
pub fn zombies_below(pid: i32) -> i64 {
    let is_zombie = |pid: &&i32| stat(**pid).is_some_and(|stat| stat.state == 'Z');
    descendants(pid).iter().filter(is_zombie).count() as i64
}

/// The pid in the innermost namespace.
pub fn inner_pid(pid: i32) -> Option<i32> {
    status_field(pid, "NSpid:")?.split_ascii_whitespace().next_back()?.parse().ok()
}

/// Whether a PID 1 would not even see the signal: it has no handler for it, does not block it, and does not wait for it in
/// sigtimedwait(2), which takes the mask away as long as it sleeps. False where that can't be known.
pub fn drops(pid: i32, signal: i32) -> bool {
    let waits = fs::read_to_string(format!("/proc/{pid}/syscall"))
        .map_or(true, |text| text.split(' ').next() == Some(&libc::SYS_rt_sigtimedwait.to_string()));
    !waits && in_mask(pid, "SigCgt:", signal) == Some(false) && in_mask(pid, "SigBlk:", signal) == Some(false)
}

/// Whether the process has the signal blocked.
pub fn blocks(pid: i32, signal: i32) -> bool {
    in_mask(pid, "SigBlk:", signal) == Some(true)
}

fn in_mask(pid: i32, name: &str, signal: i32) -> Option<bool> {
    let mask = u64::from_str_radix(status_field(pid, name)?.trim(), 16).ok()?;
    Some(mask >> (signal - 1) & 1 == 1)
}

fn status_field(pid: i32, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

/// A wait status as a shell shows it: the exit code, or 128+n for signal n.
pub fn shell_status(wait_status: i32) -> i32 {
    match wait_status & 0x7f {
        0 => wait_status >> 8 & 0xff,
        signal => 128 + signal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets() {
        let numbers = (4..=52).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
        let found = read_stat(&format!("7 (a) R (b) Z {numbers}\n")).unwrap();
        let expected = Stat { name: "a) R (b".into(), state: 'Z', parent: 4, started: 22, wait_status: 52 };
        assert_eq!(found, expected);
        assert_eq!(read_stat("7 (a"), None);
    }

    #[test]
    fn own() {
        let own = std::process::id() as i32;
        assert_eq!(stat(own).unwrap().parent, nix::unistd::getppid().as_raw());
        assert!(started_at(own).is_some());
        assert_eq!((shell_status(0x0300), shell_status(9), shell_status(0x8b)), (3, 137, 139));
    }
}
