//! Signals: sets of them, their names, and which of them mean what to the init.

use std::ffi::c_int;

/// Every signal. KILL and STOP can't be blocked or waited for; the kernel leaves them out by itself.
pub const ALL: u64 = u64::MAX;
/// Those that the kernel raises for faults of a process's own code.
pub const FAULTS: [c_int; 7] =
    [libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGBUS, libc::SIGFPE, libc::SIGSEGV, libc::SIGSYS];
/// Every signal but those: blocked, a fault ends the process whatever handler it has.
pub const ALL_BUT_FAULTS: u64 = {
    let (mut mask, mut index) = (ALL, 0);
    while index < FAULTS.len() {
        mask &= !bit(FAULTS[index]);
        index += 1;
    }
    mask
};
/// The highest signal's number.
pub const HIGHEST: c_int = 64;
/// The first real-time signal as the kernel counts (a libc keeps some for itself and starts later).
const FIRST_REAL_TIME: c_int = 34;

/// The numbers of x86 and ARM (signal(7)).
const NAMES: [(&str, c_int); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("IOT", 6),
    ("POLL", 29),
];

/// The bit of a signal in a mask.
pub const fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

/// Raised by the kernel these belong to the init's own terminal or code; a process that sends one means the service.
const ONLY_WHEN_SENT: u64 = bit(libc::SIGTSTP)
    | bit(libc::SIGTTIN)
    | bit(libc::SIGTTOU)
    | bit(libc::SIGILL)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGABRT)
    | bit(libc::SIGBUS)
    | bit(libc::SIGFPE)
    | bit(libc::SIGSEGV)
    | bit(libc::SIGSYS);

/// Whether the service is to get a signal that reached the init.
pub fn is_forwarded(signal: c_int, by_kernel: bool) -> bool {
    signal != libc::SIGCHLD && !(by_kernel && bit(signal) & ONLY_WHEN_SENT != 0)
}

/// Whether a signal that is passed on as `passed` (0: not at all) asks the service to end for good, so that no restart
/// follows. RTMIN+3 is systemd's word for it.
pub fn asks_to_stop(signal: c_int, passed: c_int) -> bool {
    let asks = |signal| matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT) || signal == FIRST_REAL_TIME + 3;
    passed != 0 && (asks(signal) || asks(passed))
}

/// A signal by number, name (with or without SIG), RTMIN+n or RTMAX-n; upper or lower case.
pub fn parse(text: &str) -> Option<c_int> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=HIGHEST).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        _ => rest.strip_prefix(sign)?.parse::<c_int>().ok().filter(|offset| *offset >= 0),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest, '+').and_then(|offset| FIRST_REAL_TIME.checked_add(offset))
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        offset(rest, '-').map(|offset| HIGHEST.saturating_sub(offset))
    } else {
        None
    };
    number.filter(|number| (FIRST_REAL_TIME..=HIGHEST).contains(number))
}

/// The name of a signal, such as SIGTERM or SIGRTMIN+3.
pub fn name(signal: c_int) -> String {
    match NAMES.iter().find(|(_, number)| *number == signal) {
        Some((name, _)) => format!("SIG{name}"),
        None if signal >= FIRST_REAL_TIME => format!("SIGRTMIN+{}", signal - FIRST_REAL_TIME),
        None => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for signal in (1..=HIGHEST).filter(|signal| !(32..34).contains(signal)) {
            assert_eq!(parse(&name(signal)), Some(signal));
            assert_eq!(parse(&signal.to_string()), Some(signal));
        }
    }

    #[test]
    fn other_spellings() {
        assert_eq!(parse("term"), Some(15));
        assert_eq!(parse("SIGIOT"), Some(6));
        assert_eq!(parse("rtmax"), Some(64));
        assert_eq!(parse("RTMAX-14"), Some(50));
        for wrong in
            ["", "0", "65", "SIG", "TERMS", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMIN+-1", "-9", "RTMIN+99999999999"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_the_kernel_raises_for_the_init_is_its_own() {
        assert!(is_forwarded(libc::SIGTTIN, false) && !is_forwarded(libc::SIGTTIN, true));
        assert!(is_forwarded(libc::SIGSEGV, false) && !is_forwarded(libc::SIGSEGV, true));
        assert!(is_forwarded(libc::SIGHUP, true) && is_forwarded(64, false));
        assert!(!is_forwarded(libc::SIGCHLD, false));
    }

    /// The table of docs/init.md says of each signal, 1 to 64, what the code does.
    #[test]
    fn the_documented_table_is_true() {
        let page = include_str!("../docs/init.md");
        let section = page.split("\n## ").find(|section| section.starts_with("Signals")).unwrap();
        let rows: Vec<(&str, &str)> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
            .filter(|(signals, _)| *signals != "signal")
            .collect();
        let row_of = |signal: c_int| {
            let names = |row: &&(&str, &str)| row.0.split(", ").any(|word| parse(word) == Some(signal));
            let named: Vec<_> = rows.iter().filter(names).collect();
            named
                .first()
                .map_or_else(|| rows.iter().find(|row| row.0.starts_with("all others")).unwrap().1, |row| row.1)
        };
        for signal in 1..=HIGHEST {
            let says = row_of(signal);
            let told = (is_forwarded(signal, false), is_forwarded(signal, true), asks_to_stop(signal, signal));
            let wanted = match says {
                says if says.starts_with("the kernel's own") => continue,
                says if says.starts_with("a child ended") => (false, false, false),
                says if says.starts_with("forwarded when a process sent them") => (true, false, false),
                says if says.starts_with("forwarded, and no restart follows") => (true, true, true),
                says if says.starts_with("forwarded, real-time signals included") => (true, true, false),
                says => panic!("{signal}: {says}"),
            };
            assert_eq!(told, wanted, "{}: {says}", name(signal));
        }
    }
}
