//! Limits by cgroups: v1 and v2.

use crate::harness::{BUSYBOX, Engine};

/// What a container's cgroup says, by the v1 name or the v2 name of a file.
fn limit(engine: &Engine, options: &[&str], v1: &str, v2: &str) -> String {
    let script = format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
    engine.docker(&[&["run", "--rm"], options, &[BUSYBOX, "sh", "-c", &script]].concat()).ok()
}

#[test]
fn reach_the_cgroup() {
    let engine = Engine::with_busybox();
    let memory = ["--memory", "64m"];
    assert_eq!(limit(&engine, &memory, "memory/memory.limit_in_bytes", "memory.max"), "67108864");
    let pids = ["--pids-limit", "20"];
    assert_eq!(limit(&engine, &pids, "pids/pids.max", "pids.max"), "20");
    let cpus = limit(&engine, &["--cpus", "0.5"], "cpu/cpu.cfs_quota_us", "cpu.max");
    assert!(cpus == "50000" || cpus == "50000 100000", "{cpus}");
    assert_eq!(limit(&engine, &["--cpuset-cpus", "0"], "cpuset/cpuset.cpus", "cpuset.cpus"), "0");
    // The runtime's own threads count until the program runs: fewer than these would stop it at times.
    let forks = "for i in 1 2 3 4 5; do for j in 1 2 3 4 5; do sleep 1 & done; done; wait";
    engine.docker(&["run", "--rm", "--pids-limit", "20", BUSYBOX, "sh", "-c", forks]).fails(2, "can't fork");
    // Root inside can't raise its own.
    let raise = "f=/sys/fs/cgroup/pids/pids.max; [ -e $f ] || f=/sys/fs/cgroup/pids.max; echo max > $f";
    let said = engine.docker(&["run", "--rm", "--pids-limit", "20", BUSYBOX, "sh", "-c", raise]);
    said.fails(1, "Read-only file system");
    assert_eq!(
        engine
            .docker(&[
                "run",
                "--rm",
                "--shm-size",
                "8m",
                BUSYBOX,
                "sh",
                "-c",
                "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2"
            ])
            .ok(),
        "8192"
    );
}

#[test]
fn a_container_that_takes_too_much_memory_is_told_apart() {
    let engine = Engine::with_busybox();
    let script = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo survived";
    let ran = engine.docker(&[
        "run",
        "--name",
        "box",
        "--memory",
        "20m",
        "--memory-swap",
        "20m",
        BUSYBOX,
        "sh",
        "-c",
        script,
    ]);
    assert!(!ran.stdout.contains("survived"), "{ran:?}");
    assert_eq!(
        engine.docker(&["inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "box"]).ok(),
        "true 137"
    );
    // The client rounds "now" down to a second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let events = engine.docker(&[
        "events",
        "--since",
        "10m",
        "--until",
        "0s",
        "--filter",
        "event=oom",
        "--format",
        "{{.Action}}",
    ]);
    assert_eq!(events.ok(), "oom");
}
