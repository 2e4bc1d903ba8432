//! What the stack must live through: stops, restarts, kills, changed settings; with nothing lost.

use crate::{
    blog::Written,
    harness::{Engine, eventually},
    stack::Stack,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

/// Post and comment are still shown.
#[track_caller]
pub fn still_there(stack: &Stack, written: &Written) {
    let path = written.post.splitn(4, '/').nth(3).map(|path| format!("/{path}")).expect("the post's address");
    let path = path.as_str();
    let page = stack.page(path);
    assert!(page.contains(&written.title) && page.contains(&written.comment), "post and comment on {path}:\n{page}");
}

/// `down` and `up`: new containers, the same site.
pub fn down_and_up(stack: &Stack, written: &Written) {
    let certificate = fs::read(stack.data().join("certificate/site.crt")).unwrap();
    stack.compose(&["down"]).ok();
    assert_eq!(stack.status("/"), 0, "nothing listens after down");
    stack.up();
    assert_eq!(
        fs::read(stack.data().join("certificate/site.crt")).unwrap(),
        certificate,
        "browsers know the certificate"
    );
    still_there(stack, written);
}

/// Every idle service stops within a second, by its own will, and comes back.
pub fn idle_stops(stack: &Stack, written: &Written) {
    for service in ["nginx", "wordpress", "mariadb"] {
        let container = stack.container(service);
        let began = Instant::now();
        stack.docker(&["stop", &container]).ok();
        let took = began.elapsed();
        let code = stack.inspect(service, "{{.State.ExitCode}}");
        assert!(took < Duration::from_secs(1), "{service} stopped after {took:?}");
        assert_eq!(code, "0", "{service}'s exit code");
        stack.docker(&["start", &container]).ok();
        stack.wait();
    }
    still_there(stack, written);
}

/// A request that takes 3 s, stopped after 1 s: it gets its answer. (PHP's sleep() ends early at a signal.)
pub fn requests_in_flight(stack: &Stack) {
    let script = stack.data().join("site/slow.php");
    fs::write(
        &script,
        "<?php for ($end = microtime(true) + 3; microtime(true) < $end;) usleep(10000); echo 'slow, but ', 'whole';",
    )
    .unwrap();
    for service in ["wordpress", "nginx"] {
        let request = stack.curl("/slow.php").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        thread::sleep(Duration::from_secs(1));
        let container = stack.container(service);
        let began = Instant::now();
        stack.docker(&["stop", &container]).ok();
        let took = began.elapsed();
        let output = request.wait_with_output().unwrap();
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(answer.contains("slow, but whole"), "{service} was stopped, and the request got: {answer} {output:?}");
        assert!(took > Duration::from_secs(1), "{service} did not wait for the request: {took:?}");
        assert!(took < Duration::from_secs(6), "{service} stopped after {took:?}");
        stack.docker(&["start", &container]).ok();
        stack.wait();
    }
    fs::remove_file(script).unwrap();
}

/// The main process of each service is killed: the restart policy brings it back, with everything.
pub fn killed_services(stack: &Stack, written: &Written) {
    for (service, program) in [("mariadb", "mariadbd"), ("wordpress", "php-fpm"), ("nginx", "nginx: master")] {
        let starts = stack.inspect(service, "{{.State.StartedAt}}");
        // By its name, because the init has another number for it in each engine; from inside, as its parent would see.
        let kill = format!(
            "for p in /proc/[0-9]*; do [ \"$(cut -d' ' -f4 $p/stat)\" = 1 ] && grep -aq '{program}' $p/cmdline && kill -KILL ${{p#/proc/}}; done; true"
        );
        stack.exec(service, &["sh", "-c", &kill]);
        eventually(20, &format!("{service} is started again"), || {
            (stack.inspect(service, "{{.State.StartedAt}}") != starts).then_some(())
        });
        stack.wait();
        still_there(stack, written);
    }
}

/// Another port, by the environment of `setup`: the same site under the new address.
pub fn another_port(stack: &mut Stack) {
    let old = stack.port;
    stack.port = crate::stack::free_port();
    stack.setup(&[]).ok();
    stack.up();
    assert!(stack.page("/").contains(&format!(":{}/", stack.port)), "the site's links carry the new port");
    let new = std::mem::replace(&mut stack.port, old);
    assert_eq!(stack.status("/"), 0, "the old port is closed");
    stack.port = new;
}

/// Kills in the middle of the first boot, later each time: the next start goes on to a whole site.
pub fn first_boot_survives_kills(stack: &Stack) {
    let mut killed = 0;
    for delay in [50, 200, 350, 500, 700, 900, 1200] {
        stack.compose(&["up", "-d"]).ok();
        thread::sleep(Duration::from_millis(delay));
        for service in ["mariadb", "wordpress"] {
            killed += u32::from(stack.docker(&["kill", &stack.container(service)]).code == 0);
        }
        if stack.data().join("database/mysql").is_dir() && stack.status("/") == 200 {
            break;
        }
    }
    assert!(killed > 2, "the first boot was over before it could be hurt");
    stack.up();
    crate::examiner::running(stack);
}

/// The engine's own processes are killed, one after the other: the site stays or comes back, with everything.
pub fn killed_engine(stack: &Stack, engine: &mut Engine, written: &Written) {
    let starts = |service: &str| stack.inspect(service, "{{.State.StartedAt}}");

    let before = starts("wordpress");
    engine.end_daemon(Signal::SIGKILL);
    still_there(stack, written);
    engine.start_daemon();
    assert_eq!(starts("wordpress"), before, "the containers go on without a daemon");
    still_there(stack, written);

    for service in ["mariadb", "nginx"] {
        let before = starts(service);
        let first: i32 = stack.inspect(service, "{{.State.Pid}}").parse().unwrap();
        let shim = parent(first);
        assert!(command_line(shim).contains("shim"), "{service}'s parent: {}", command_line(shim));
        kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
        eventually(20, &format!("{service} is started again"), || (starts(service) != before).then_some(()));
        // A zombie has no command line: when it is reaped is up to the machine's own PID 1.
        eventually(5, &format!("{service}'s first life is over"), || command_line(first).is_empty().then_some(()));
        stack.wait();
        still_there(stack, written);
    }

    let folder = engine.path("").display().to_string();
    let helper = || {
        processes().find(|pid| {
            let line = command_line(*pid);
            line.contains("network-helper") && line.contains(folder.trim_end_matches('/'))
        })
    };
    let first = helper().expect("the engine has a network helper");
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    eventually(20, "another network helper", || helper().filter(|pid| *pid != first));
    stack.wait();
    let name = stack.exec("wordpress", &["getent", "hosts", "mariadb"]);
    assert_eq!(name.code, 0, "names are answered again");
    still_there(stack, written);
}

fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}
