//! Services for the cases: `init-tests probe NAME`.

use std::io::Write;

/// Runs a probe; false where there is none of the name.
pub fn run(words: &[String]) -> bool {
    match words.first().map(String::as_str) {
        Some("signals") => signals(),
        Some("orphans") => orphans(words.get(1).and_then(|count| count.parse().ok()).unwrap_or(200)),
        Some("enter") => enter(&words[1..]),
        _ => return false,
    }
    true
}

/// Blocks all signals, says "ready", then the number of each one that comes; ends after TERM with 0.
fn signals() {
    let all = u64::MAX;
    // SAFETY: reads 8 bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0usize, 8) };
    println!("ready");
    loop {
        // SAFETY: reads the 8 bytes; no info, no time.
        let signal = unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &raw const all, 0usize, 0usize, 8) };
        if signal > 0 {
            println!("{signal}");
            let _ = std::io::stdout().flush();
        }
        if signal == i64::from(libc::SIGTERM) {
            return;
        }
    }
}

/// Makes orphans: grandchildren whose parent has ended, and which end at once. Says "done" and waits for TERM.
fn orphans(count: usize) {
    for _ in 0..count {
        // SAFETY: the children call nothing but fork, waitpid and _exit; this program has one thread.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                if libc::fork() == 0 {
                    libc::usleep(1000);
                }
                libc::_exit(0);
            }
            if child > 0 {
                libc::waitpid(child, std::ptr::null_mut(), 0);
            } else {
                println!("fork failed");
                return;
            }
        }
    }
    println!("done");
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}

/// `enter WHAT… -- COMMAND`: sets what a careless parent leaves behind, then runs the command.
fn enter(words: &[String]) {
    use std::os::unix::process::CommandExt;
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    // SAFETY: plain numbers and static strings; this program has one thread.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        for word in &words[..end] {
            match word.as_str() {
                "chld-ignored" => _ = libc::signal(libc::SIGCHLD, libc::SIG_IGN),
                "some-ignored" => {
                    for signal in [libc::SIGINT, libc::SIGPIPE, libc::SIGTERM, libc::SIGHUP, 40, 64] {
                        libc::signal(signal, libc::SIG_IGN);
                    }
                }
                "all-blocked" => {
                    let all = u64::MAX;
                    libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0usize, 8);
                }
                "closed" => (0..3).for_each(|fd| _ = libc::close(fd)),
                "no-proc" => _ = libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH),
                "nobody" => {
                    libc::setgroups(0, std::ptr::null());
                    libc::setresgid(65534, 65534, 65534);
                    libc::setresuid(65534, 65534, 65534);
                }
                "descriptor" => _ = libc::dup2(1, 9),
                _ => {}
            }
        }
    }
    let mut command = words.iter().skip(end + 1);
    let Some(program) = command.next() else { return };
    // std's own exec would empty the mask.
    let mut argv: Vec<std::ffi::CString> = Vec::new();
    argv.extend(std::iter::once(program).chain(command).filter_map(|word| std::ffi::CString::new(word.as_str()).ok()));
    let mut pointers: Vec<_> = argv.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: NUL-terminated strings and a NULL at the end.
    unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
    let _ = std::process::Command::new(program).exec();
}
