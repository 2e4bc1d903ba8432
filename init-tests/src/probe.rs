//! Services for the cases: `init-tests probe NAME`.

use std::io::Write;

/// Runs a probe; false where there is none of the name.
pub fn run(words: &[String]) -> bool {
    match words.first().map(String::as_str) {
        Some("signals") => signals(),
        Some("orphans") => orphans(words.get(1).and_then(|count| count.parse().ok()).unwrap_or(200)),
        Some("notify") => notify(&words[1..]),
        Some("enter") => enter(&words[1..]),
        Some("break") => break_init(),
        Some("crowd") => crowd(words.get(1).and_then(|count| count.parse().ok()).unwrap_or(10_000)),
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
            let mut child = libc::fork();
            // Under a limit there is room again when the init has reaped.
            for _ in 0..5000 {
                if child >= 0 {
                    break;
                }
                libc::usleep(1000);
                child = libc::fork();
            }
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

/// Sends messages by sd_notify's protocol, each word one, with `\n` in it as a new line. Other words: `sleep` until
/// TERM; `wait` for a line on stdin; `daemon`: a child goes on with the rest and names itself the main program, while this
/// one ends with 7.
fn notify(words: &[String]) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Ok(socket) = UnixDatagram::unbound() else { return println!("no socket") };
    let send = |text: &str| {
        let name = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&name),
        };
        let sent = address.and_then(|address| socket.send_to_addr(text.replace("\\n", "\n").as_bytes(), &address));
        println!("{}", if sent.is_ok() { "sent" } else { "not sent" });
    };
    for word in words {
        match word.as_str() {
            "sleep" => loop {
                // SAFETY: no arguments.
                unsafe { libc::pause() };
            },
            "wait" => _ = std::io::stdin().read_line(&mut String::new()),
            "daemon" => {
                // SAFETY: this program has one thread.
                let child = unsafe { libc::fork() };
                if child > 0 {
                    // Not before the child has said who it is: until then the end of this one is the service's.
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    std::process::exit(7);
                }
                send(&format!("MAINPID={}", std::process::id()));
            }
            text => send(text),
        }
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
                "no-dev" => {
                    let kind = c"tmpfs".as_ptr();
                    libc::mount(kind, c"/dev".as_ptr(), kind, 0, std::ptr::null());
                }
                "read-only" => {
                    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
                    libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null());
                }
                "no-proc" => _ = libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH),
                "nobody" => {
                    libc::setgroups(0, std::ptr::null());
                    libc::setresgid(65534, 65534, 65534);
                    libc::setresuid(65534, 65534, 65534);
                }
                "descriptor" => _ = libc::dup2(1, 9),
                word => {
                    if let Some((_, call)) = REFUSED.iter().find(|(name, _)| word.strip_prefix("refuse-") == Some(name))
                    {
                        refuse(*call);
                    }
                }
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

/// The calls that `enter refuse-NAME` knows.
const REFUSED: [(&str, libc::c_long); 13] = [
    ("setpgid", libc::SYS_setpgid),
    ("setsid", libc::SYS_setsid),
    ("ioctl", libc::SYS_ioctl),
    ("prctl", libc::SYS_prctl),
    ("signalfd", libc::SYS_signalfd4),
    ("rt_sigtimedwait", libc::SYS_rt_sigtimedwait),
    ("kill", libc::SYS_kill),
    ("close_range", libc::SYS_close_range),
    ("chdir", libc::SYS_chdir),
    ("madvise", libc::SYS_madvise),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("getdents64", libc::SYS_getdents64),
];

/// A seccomp filter that answers EPERM to one system call.
fn refuse(call: libc::c_long) {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let mut program = [
        libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: EQUAL, jt: 0, jf: 1, k: call as u32 },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::EPERM as u32 },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: the program lives through the call, and has the length that is said.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter);
    }
}

/// Has PID 1 run on at an address where there is nothing.
fn break_init() {
    use nix::sys::{ptrace, wait};
    let init = nix::unistd::Pid::from_raw(1);
    let broken = ptrace::attach(init).and_then(|()| {
        wait::waitpid(init, None)?;
        let mut registers = ptrace::getregs(init)?;
        registers.rip = 8;
        // Not a system call that is begun anew.
        registers.orig_rax = u64::MAX;
        ptrace::setregs(init, registers)?;
        ptrace::detach(init, None)
    });
    println!("{broken:?}");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

/// Makes orphans, 500 at a time, that live while their parent ends; then waits until PID 1 has reaped all of them, says
/// how many that were, and ends with 21.
fn crowd(count: usize) {
    extern "C" fn orphan(_: *mut libc::c_void) -> libc::c_int {
        // SAFETY: sleeps.
        unsafe { libc::usleep(200_000) };
        0
    }
    const AT_ONCE: usize = 500;
    const STACK: usize = 16 << 10;
    let mut made = 0;
    while made < count {
        // SAFETY: one thread; the child clones, and ends without going on with what is the parent's.
        unsafe {
            let parent = libc::fork();
            if parent == 0 {
                for _ in 0..AT_ONCE {
                    // In the same memory, which costs no copy, on stacks of their own that are never freed.
                    let stack = Box::leak(vec![0u8; STACK].into_boxed_slice()).as_mut_ptr().add(STACK);
                    if libc::clone(orphan, stack.cast(), libc::CLONE_VM | libc::SIGCHLD, std::ptr::null_mut()) < 0 {
                        libc::_exit(1);
                    }
                }
                libc::_exit(0);
            }
            let mut status = 0;
            libc::waitpid(parent, &raw mut status, 0);
            made += if status == 0 { AT_ONCE } else { 0 };
        }
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while crate::harness::children(1).len() > 1 && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    println!(
        "{made} made, {} left",
        crate::harness::children(1).iter().filter(|child| child.1.contains("probe")).count()
    );
    std::process::exit(21);
}
