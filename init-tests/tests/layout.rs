//! src/layout.ld does what it is for: a start touches few pages.

use std::process::Command;

mod built;

/// Page faults of a program and of what it waited for: the least of some runs, because a stack begins at random.
#[allow(clippy::zombie_processes, reason = "wait4 takes it, with what it used")]
fn faults(command: &[&str]) -> i64 {
    let once = || {
        let child = Command::new(command[0]).args(&command[1..]).spawn().unwrap();
        let mut status = 0;
        // SAFETY: an all-zero rusage is valid, it is plain numbers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: this function's own child; writes the two.
        let pid = unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, &raw mut usage) };
        assert_eq!((pid, status), (child.id() as i32, 0));
        usage.ru_minflt
    };
    (0..20).map(|_| once()).min().unwrap()
}

#[test]
fn a_start_touches_few_pages() {
    let init = built::init();
    let file = std::fs::read(init).unwrap();
    if !file.windows(8).any(|part| part == b"\0.first\0") {
        eprintln!("not linked by src/layout.ld: nothing to see");
        return;
    }
    let own = faults(&[init.to_str().unwrap(), "/bin/true"]) - faults(&["/bin/true"]);
    // Two stack pages, one of code, one of data, and the kernel's own. In the linker's own order it was 20.
    assert!(own <= 9, "{own} page faults");
}
