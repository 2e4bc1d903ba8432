//! `docker run`: attached, detached, on a terminal; its options, one after the other; its exit codes.

use crate::harness::{BUSYBOX, Engine, eventually, run};
use std::process::Command;

/// `docker run --rm` with words split at spaces, then a command for the shell.
fn sh(engine: &Engine, options: &str, script: &str) -> String {
    let mut args = vec!["run", "--rm"];
    args.extend(options.split_whitespace());
    args.extend([BUSYBOX, "sh", "-c", script]);
    engine.docker(&args).ok()
}

#[test]
fn attached() {
    let engine = Engine::with_busybox();
    // It prints x and ends, because the end of the client's input is passed on.
    assert_eq!(engine.docker_with_input(&["run", "-i", BUSYBOX, "cat"], b"x\n").ok(), "x");
    let both = engine.docker(&["run", "--rm", BUSYBOX, "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
    let one = engine.docker(&["run", "--rm", "-a", "stderr", BUSYBOX, "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((one.stdout.as_str(), one.stderr.as_str()), ("", "err\n"));
    // More than any buffer on the way holds, in both directions.
    let big = vec![b'x'; 3_000_000];
    assert_eq!(engine.docker_with_input(&["run", "--rm", "-i", BUSYBOX, "wc", "-c"], &big).ok(), "3000000");
    let said = engine.docker(&["run", "--rm", BUSYBOX, "head", "-c", "3000000", "/dev/zero"]);
    assert_eq!(said.stdout.len(), 3_000_000);
    // Nobody waits at its stdin without -i.
    assert_eq!(engine.docker(&["run", "--rm", BUSYBOX, "cat"]).ok(), "");
}

#[test]
fn on_a_terminal() {
    let engine = Engine::with_busybox();
    // script(1) gives the client a terminal.
    let on_terminal = |line: &str| {
        let mut command = Command::new("script");
        command.args(["-qec", line, "/dev/null"]).env("DOCKER_HOST", engine.host());
        run(&mut command)
    };
    let said = on_terminal(&format!(
        "stty rows 33 cols 77; docker run --rm -it {BUSYBOX} sh -c 'tty; until stty size | grep 33; do sleep 0.1; done'"
    ))
    .ok();
    assert!(said.contains("/dev/pts/0") && said.contains("33 77"), "{said}");
    on_terminal(&format!("docker run --rm -t {BUSYBOX} sh -c 'exit 9'")).fails(9, "");
    engine.docker(&["run", "-d", "--name", "box", BUSYBOX, "sleep", "1000"]).ok();
    for _ in 0..5 {
        // A short command on a terminal: its end is seen however soon it comes.
        assert!(on_terminal("docker exec -it box tty").ok().contains("/dev/pts/"));
    }
    on_terminal("docker exec -it box sh -c 'exit 4'").fails(4, "");
}

#[test]
fn exit_codes() {
    let engine = Engine::with_busybox();
    let code = |args: &[&str]| engine.docker(&[&["run", "--rm"], args].concat());
    code(&[BUSYBOX, "sh", "-c", "exit 7"]).fails(7, "");
    code(&[BUSYBOX, "sh", "-c", "kill -9 $$"]).fails(137, "");
    code(&[BUSYBOX, "sh", "-c", "kill -TERM $$; sleep 1; exit 3"]).fails(3, "");
    code(&["--init", BUSYBOX, "sh", "-c", "kill -TERM $$"]).fails(143, "");
    code(&[BUSYBOX, "no-such-program"]).fails(127, "executable file not found in $PATH");
    code(&[BUSYBOX, "/no/such/program"]).fails(127, "no such file or directory");
    code(&[BUSYBOX, "/etc/passwd"]).fails(126, "permission denied");
    code(&["no-such-image", "true"]).fails(125, "no-such-image:latest");
    code(&["--no-such-option", BUSYBOX]).fails(125, "unknown flag");
    code(&[BUSYBOX]).fails(125, "no command specified");
    // What failed leaves nothing.
    assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn options_for_the_process() {
    let engine = Engine::with_busybox();
    let cases = [
        ("-e A=b -e HOST_HAS_IT_NOT", "echo $A; env | grep -c HOST_HAS", "b\n0"),
        ("-u www", "id", "uid=33(www) gid=33(www) groups=33(www),44(extra)"),
        ("-u 12:34", "id", "uid=12 gid=34 groups=34"),
        ("-u 0:extra", "id -g", "44"),
        ("-u www --group-add 7", "id -G", "33 44 7"),
        ("-w /new/folder", "pwd", "/new/folder"),
        ("-h box", "hostname; grep -c box /etc/hosts", "box\n1"),
        ("--init", "tr '\\0' ' ' </proc/1/cmdline", "/sbin/docker-init -- sh -c tr '\\0' ' ' </proc/1/cmdline"),
        ("", "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb"),
        ("--cap-drop ALL", "grep CapEff /proc/self/status", "CapEff:\t0000000000000000"),
        ("--cap-drop ALL --cap-add chown", "grep CapEff /proc/self/status", "CapEff:\t0000000000000001"),
        ("", "grep Seccomp: /proc/self/status", "Seccomp:\t2"),
        ("--security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status", "Seccomp:\t0"),
        ("--security-opt no-new-privileges", "grep NoNew /proc/self/status", "NoNewPrivs:\t1"),
        ("--ulimit nofile=100:200", "ulimit -n; ulimit -Hn", "100\n200"),
        ("--oom-score-adj 500", "cat /proc/self/oom_score_adj", "500"),
        ("--sysctl net.ipv4.ip_forward=1", "cat /proc/sys/net/ipv4/ip_forward", "1"),
        ("--device /dev/null:/dev/foo", "echo x >/dev/foo; stat -c %t,%T /dev/foo", "1,3"),
        ("--dns 198.19.255.53 --dns-search a.b --dns-option ndots:3", "grep -c . /etc/resolv.conf", "3"),
        ("--add-host one:198.19.255.1", "grep one /etc/hosts", "198.19.255.1\tone"),
    ];
    for (options, script, expected) in cases {
        assert_eq!(sh(&engine, options, script), expected, "{options}");
    }
    assert_eq!(engine.docker(&["run", "--rm", "--entrypoint", "echo", BUSYBOX, "a", "b"]).ok(), "a b");
    assert_eq!(engine.docker(&["run", "--rm", "--entrypoint", "", BUSYBOX, "echo", "c"]).ok(), "c");
    // A container sees its own processes, and none of its files in /proc that tell of the machine.
    assert_eq!(sh(&engine, "", "ls -d /proc/[0-9]* | wc -l; wc -c < /proc/keys"), "3\n0");
}

#[test]
fn options_are_refused_by_name() {
    let engine = Engine::with_busybox();
    let cases = [
        ("--restart sometimes", "invalid restart policy"),
        ("--rm --restart always", "can't create 'AutoRemove' container with restart policy"),
        ("-v rel/path:/b", "includes invalid characters for a local volume name"),
        ("-v /a:/b:zz", "invalid mode: zz"),
        ("--mount type=bind,src=/no/such/folder,dst=/b", "bind source path does not exist: /no/such/folder"),
        ("--mount type=odd,dst=/b", "mount type unknown"),
        ("-u nobody-here", "unable to find user nobody-here: no matching entries in passwd file"),
        ("-u www:none", "unable to find group none"),
        ("--network none-such", "network none-such not found"),
        ("--network container:none-such", "No such container: none-such"),
        ("--cap-add FOO", "unknown capability: \"CAP_FOO\""),
        ("--stop-signal FOO", "Invalid signal: FOO"),
        ("--memory 1m", "Minimum memory limit allowed is 6MB"),
        ("--cpus 1000", "as there are only"),
        ("--log-driver syslog", "not implemented: --log-driver"),
        ("--log-opt foo=1", "unknown log opt 'foo'"),
        ("--runtime none-such", "unknown or invalid runtime name: none-such"),
        ("--link box", "not implemented: --link"),
        ("--volumes-from none-such", "No such container: none-such"),
        ("--name a@b", "Invalid container name (a@b)"),
        ("--platform linux/s390x", "not implemented: --platform linux/s390x"),
    ];
    for (options, text) in cases {
        let mut args = vec!["run", "-d"];
        args.extend(options.split_whitespace());
        args.extend([BUSYBOX, "true"]);
        engine.docker(&args).fails(125, text);
    }
}

#[test]
fn names_ps_and_inspect() {
    let engine = Engine::with_busybox();
    let id = engine.docker(&["run", "-d", "--name", "one", "--label", "k=v", BUSYBOX, "sleep", "1000"]).ok();
    engine.docker(&["create", "--name", "two", BUSYBOX, "sleep", "1000"]).ok();
    engine.docker(&["run", "--name", "three", BUSYBOX, "sh", "-c", "exit 5"]).fails(5, "");
    engine
        .docker(&["run", "-d", "--name", "one", BUSYBOX, "true"])
        .fails(125, &format!("The container name \"/one\" is already in use by container \"{id}\""));

    let ps = |args: &[&str]| engine.docker(&[&["ps", "--format", "{{.Names}}"], args].concat()).ok();
    assert_eq!(ps(&[]), "one");
    assert_eq!(ps(&["-a"]), "three\ntwo\none");
    assert_eq!(ps(&["-n", "2"]), "three\ntwo");
    for (filter, names) in [
        ("status=created", "two"),
        ("status=exited", "three"),
        ("exited=5", "three"),
        ("exited=0", ""),
        ("label=k", "one"),
        ("label=k=w", ""),
        ("name=^/one$", "one"),
        ("name=o", "two\none"),
        ("since=two", "three"),
        ("before=two", "one"),
        ("ancestor=busybox:test", "three\ntwo\none"),
        ("network=bridge", "three\ntwo\none"),
        ("health=none", "three\ntwo\none"),
    ] {
        assert_eq!(ps(&["-a", "--filter", filter]), names, "{filter}");
    }
    assert_eq!(ps(&["-a", "--filter", &format!("id={}", &id[..12])]), "one");
    engine.docker(&["ps", "--filter", "status=odd"]).fails(1, "invalid filter 'status=odd'");
    engine.docker(&["ps", "--filter", "foo=bar"]).fails(1, "invalid filter 'foo'");
    let line =
        engine.docker(&["ps", "-s", "--format", "{{.Image}} {{.Command}} {{.State}} {{.Networks}} {{.Size}}"]).ok();
    assert!(line.starts_with("busybox:test \"sleep 1000\" running bridge 0B (virtual "), "{line}");
    let table = engine.docker(&["ps", "-a"]).ok();
    assert!(table.contains("Exited (5) ") && table.contains("Created") && table.contains("Up "), "{table}");

    let inspect = |format: &str| engine.docker(&["inspect", "--format", format, "one"]).ok();
    assert_eq!(inspect("{{.Id}} {{.Name}} {{.Path}} {{.Args}}"), format!("{id} /one sleep [1000]"));
    assert_eq!(
        inspect("{{.State.Status}} {{.HostConfig.NetworkMode}} {{.HostConfig.LogConfig.Type}}"),
        "running default json-file"
    );
    assert!(inspect("{{.NetworkSettings.IPAddress}}").starts_with(&engine.subnet(0)[..7]));
    engine.docker(&["inspect", "none-such"]).fails(1, "No such object: none-such");

    engine.docker(&["rename", "one", "uno"]).ok();
    engine.docker(&["rename", "uno", "uno"]).fails(1, "same name");
    engine.docker(&["rename", "uno", "two"]).fails(1, "already in use");
    assert_eq!(ps(&[]), "uno");
    let top = engine.docker(&["top", "uno", "-o", "pid,comm"]).ok();
    assert!(top.contains("sleep"), "{top}");
    engine.docker(&["rm", "uno"]).fails(1, "container is running: stop the container before removing or force remove");
    engine.docker(&["rm", "-f", "uno", "two", "three"]).ok();
    assert_eq!(ps(&["-a"]), "");
    engine.docker(&["rm", "uno"]).fails(1, "No such container: uno");
}

#[test]
fn stop_kill_wait_and_start_again() {
    let engine = Engine::with_busybox();
    engine.docker(&["run", "-d", "--init", "--name", "box", BUSYBOX, "sleep", "1000"]).ok();
    let begin = std::time::Instant::now();
    engine.docker(&["stop", "box"]).ok();
    assert!(begin.elapsed().as_secs() < 8, "an init forwards the signal: no wait for SIGKILL");
    assert_eq!(engine.docker(&["wait", "box"]).ok(), "143");
    engine.docker(&["stop", "box"]).ok();
    engine.docker(&["kill", "box"]).fails(1, "is not running");
    engine.docker(&["exec", "box", "true"]).fails(1, "is not running");
    engine.docker(&["start", "box"]).ok();
    engine.docker(&["restart", "-t", "1", "box"]).ok();
    engine.docker(&["kill", "box"]).ok();
    assert_eq!(engine.docker(&["wait", "box"]).ok(), "137");
    // No init, no handler: the stop signal does nothing to PID 1, and SIGKILL comes after the timeout.
    engine.docker(&["run", "-d", "--name", "deaf", BUSYBOX, "sleep", "1000"]).ok();
    engine.docker(&["stop", "-t", "1", "deaf"]).ok();
    assert_eq!(engine.docker(&["wait", "deaf"]).ok(), "137");
    // --rm removes it, however it ends.
    engine.docker(&["run", "-d", "--rm", "--name", "gone", BUSYBOX, "sleep", "1000"]).ok();
    engine.docker(&["kill", "gone"]).ok();
    eventually(10, "--rm removes a killed container", || {
        engine.docker(&["ps", "-aq", "--filter", "name=gone"]).ok().is_empty().then_some(())
    });
}
