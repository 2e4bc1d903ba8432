//! The companion's commands for single objects, on every engine: run, exec, start, stop, restart, rm, rmi, images, ps,
//! logs, inspect, volume, network.

use crate::{
    clients::{Client, run_cases},
    harness::{BUSYBOX, eventually},
    peers::Kind,
};
use nix::sys::signal::Signal;

const CASES: [(&str, fn(&Client)); 12] = [
    ("run ends with its command's code", run_ends_with_its_commands_code),
    ("run takes stdin to its end", run_takes_stdin_to_its_end),
    ("run has docker's options", run_has_dockers_options),
    ("run publishes and names", run_publishes_and_names),
    ("run passes signals on", run_passes_signals_on),
    ("run at a terminal", run_at_a_terminal),
    ("exec", exec),
    ("a container's life", a_containers_life),
    ("volumes", volumes),
    ("networks", networks),
    ("images", images),
    ("mistakes", mistakes),
];

#[test]
fn commands_on_the_embedded_engine() {
    run_cases(None, &CASES);
}

#[test]
fn commands_on_docker() {
    run_cases(Some(Kind::Docker), &CASES);
}

#[test]
fn commands_on_podman() {
    run_cases(Some(Kind::Podman), &CASES);
}

fn run_ends_with_its_commands_code(client: &Client) {
    let run = |command: &[&str]| client.inception(&[&["run", "--rm", BUSYBOX], command].concat());
    assert_eq!(run(&["echo", "hi"]).ok(), "hi");
    let ran = run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (7, "out\n", "err\n"));
    client.inception(&["run", "--rm", "--init", BUSYBOX, "sh", "-c", "kill -9 $$"]).fails(137, "");
    run(&["not-there"]).fails(127, "not-there");
    run(&["/etc/passwd"]).fails(126, "/etc/passwd");
    client.inception(&["run", "--no-such", BUSYBOX]).fails(125, "has no option --no-such");
    client.inception(&["run", "--rm", "not-there:1"]).fails(125, "not-there:1");
    // Without --rm the code comes another way.
    client.inception(&["run", "--name", "kept", BUSYBOX, "sh", "-c", "exit 9"]).fails(9, "");
    client.inception(&["run", "--name", "kept", BUSYBOX, "true"]).fails(125, "kept");
    client.inception(&["rm", "kept"]).ok();
    assert_eq!(client.inception(&["ps", "-aq"]).ok(), "", "nothing is left");
}

fn run_takes_stdin_to_its_end(client: &Client) {
    assert_eq!(client.inception_with_input(&["run", "-i", "--rm", BUSYBOX, "cat"], b"x\n").ok(), "x");
    let much: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let ran = client.inception_with_input(&["run", "-i", "--rm", BUSYBOX, "cat"], much.as_bytes());
    assert!(ran.code == 0 && ran.stdout == much, "{} of {} bytes came back", ran.stdout.len(), much.len());
    // A command that reads nothing ends all the same.
    assert_eq!(client.inception_with_input(&["run", "-i", "--rm", BUSYBOX, "true"], much.as_bytes()).code, 0);
    // And without -i there is no input.
    assert_eq!(client.inception_with_input(&["run", "--rm", BUSYBOX, "cat"], b"x\n").ok(), "");
}

fn run_has_dockers_options(client: &Client) {
    client.write("file", "from the host\n");
    client.write("variables", "# a comment\nFROM_FILE=f\nA=overridden\n");
    let said = client
        .inception(&[
            "run",
            "--rm",
            "-v",
            "./:/bind:ro",
            "--mount",
            "type=bind,source=.,target=/mounted,readonly",
            "--mount",
            "type=tmpfs,target=/memory,tmpfs-size=2m",
            "--tmpfs",
            "/t:size=1m",
            "-v",
            "/anonymous",
            "--env-file",
            "variables",
            "-eA=1",
            "-e",
            "FROM_HERE",
            "-u",
            "33",
            "-w",
            "/tmp",
            "-m64m",
            "--pids-limit=20",
            "--read-only",
            "--cap-drop",
            "ALL",
            "--cap-add",
            "CHOWN",
            "-h",
            "named",
            "--network",
            "none",
            "--entrypoint",
            "sh",
            BUSYBOX,
            "-c",
            "cat /bind/file /mounted/file; id -u; pwd; hostname; echo $A $FROM_FILE-$FROM_HERE-; \
             grep CapBnd /proc/self/status; touch /x 2>/dev/null || echo refused; ls /sys/class/net; \
             grep -c -E ' (/t|/memory) tmpfs ' /proc/mounts",
        ])
        .ok();
    let expected = "from the host\nfrom the host\n33\n/tmp\nnamed\n1 f--\nCapBnd:\t0000000000000001\nrefused\nlo\n2";
    assert_eq!(said, expected);
    client
        .inception(&[
            "run",
            "-d",
            "--name",
            "limits",
            "--cpus",
            "0.5",
            "-m",
            "64m",
            "--pids-limit",
            "20",
            "--restart",
            "on-failure:3",
            "--stop-signal",
            "INT",
            "--health-cmd",
            "test -e /healthy",
            "--health-interval",
            "1s",
            "--label",
            "a=b",
            "--init",
            BUSYBOX,
            "sh",
            "-c",
            "touch /healthy; exec sleep 1000",
        ])
        .ok();
    let details: serde_json::Value = serde_json::from_str(&client.inception(&["inspect", "limits"]).ok()).unwrap();
    let (host, config) = (&details[0]["HostConfig"], &details[0]["Config"]);
    assert_eq!(host["Memory"], 64 << 20);
    assert_eq!(host["NanoCpus"], 500_000_000);
    assert_eq!(host["PidsLimit"], 20);
    assert_eq!(host["RestartPolicy"]["Name"], "on-failure");
    assert_eq!(host["RestartPolicy"]["MaximumRetryCount"], 3);
    assert_eq!(config["Labels"]["a"], "b");
    // Podman leaves health checks to systemd, which is not there in a test.
    if !client.is(Kind::Podman) {
        eventually(20, "its health check succeeds", || {
            client.inception(&["inspect", "limits"]).ok().contains("\"healthy\"").then_some(())
        });
    }
    client.inception(&["rm", "-f", "limits"]).ok();
}

fn run_publishes_and_names(client: &Client) {
    let id =
        client.inception(&["run", "-d", "--name", "web", "-p", "127.0.0.1:18473:80", BUSYBOX, "sleep", "1000"]).ok();
    assert_eq!(id.len(), 64, "{id}");
    let listed = client.inception(&["ps"]).ok();
    assert!(listed.contains("127.0.0.1:18473->80/tcp") && listed.contains("web"), "{listed}");
    assert_eq!(client.inception(&["ps", "-q"]).ok(), id);
    client.inception(&["rm", "-f", &id[..6]]).ok();
}

fn run_passes_signals_on(client: &Client) {
    let script = "trap 'echo usr1' USR1; trap 'echo rt' 40; trap 'echo term; exit 9' TERM; echo ready; \
                  while true; do sleep 0.1; done";
    let mut running = client.spawn(&["run", "--rm", BUSYBOX, "sh", "-c", script]);
    running.says("ready");
    running.signal(Signal::SIGUSR1);
    running.says("usr1");
    // A real-time signal, which has no name here.
    client.other("kill", &["-40", &running.child.id().to_string()]).ok();
    running.says("rt");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ends(), 9, "{}", running.said());
}

fn run_at_a_terminal(client: &Client) {
    let ran = client.at_a_terminal(
        &["run", "-it", "--rm", BUSYBOX, "sh"],
        &[("#", "stty size\n"), ("33 101", "echo go$((1 + 1)); sleep 100\n"), ("go2", "\x03"), ("#", "exit 5\n")],
    );
    assert_eq!(ran.code, 5, "{}", ran.stdout);
    let ran = client.at_a_terminal(
        &["run", "-it", "--name", "left", BUSYBOX, "sh"],
        &[("#", "echo a$((40 + 2))\n"), ("a42", "\x10\x11")],
    );
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    assert!(client.inception(&["ps"]).ok().contains("left"), "it goes on alone");
    let ran = client.at_a_terminal(&["exec", "-it", "left", "sh"], &[("#", "stty size; exit 4\n"), ("33 101", "")]);
    assert_eq!(ran.code, 4, "{}", ran.stdout);
    client.inception(&["rm", "-f", "left"]).ok();
    client.inception_with_input(&["run", "-it", "--rm", BUSYBOX, "true"], b"").fails(125, "leave out -t");
}

fn exec(client: &Client) {
    client.inception(&["run", "-d", "--name", "ex", BUSYBOX, "sleep", "1000"]).ok();
    assert_eq!(client.inception(&["exec", "ex", "echo", "in"]).ok(), "in");
    client.inception(&["exec", "ex", "sh", "-c", "exit 3"]).fails(3, "");
    assert_eq!(client.inception_with_input(&["exec", "-i", "ex", "cat"], b"y\n").ok(), "y");
    let said =
        client.inception(&["exec", "-u", "33", "-w", "/etc", "-e", "A=b", "ex", "sh", "-c", "id -u; pwd; echo $A"]);
    assert_eq!(said.ok(), "33\n/etc\nb");
    client.inception(&["exec", "-d", "ex", "touch", "/detached"]).ok();
    eventually(10, "a detached command has run", || {
        (client.inception(&["exec", "ex", "test", "-e", "/detached"]).code == 0).then_some(())
    });
    let code = client.inception(&["exec", "ex", "not-there"]).code;
    assert!(matches!(code, 126 | 127), "{code}");
    client.inception(&["exec", "exx", "true"]).fails(1, "did you mean ex?");
    client.inception(&["exec", "ex"]).fails(2, "needs a command");
    client.inception(&["stop", "-t0", "ex"]).ok();
    client.inception(&["exec", "ex", "true"]).fails(1, "does not run");
    client.inception(&["rm", "ex"]).ok();
}

fn a_containers_life(client: &Client) {
    client.inception(&["run", "-d", "--name", "life", BUSYBOX, "sh", "-c", "echo started; exec sleep 1000"]).ok();
    client.inception(&["rm", "life"]).fails(1, "life runs");
    client.inception(&["stop", "--timeout=0", "life"]).ok();
    assert!(!client.inception(&["ps"]).ok().contains("life"));
    assert!(client.inception(&["ps", "-a"]).ok().contains("life"));
    client.inception(&["start", "life"]).ok();
    client.inception(&["restart", "-t0", "life"]).ok();
    eventually(10, "it started three times", || {
        (client.inception(&["logs", "life"]).ok().matches("started").count() == 3).then_some(())
    });
    assert_eq!(client.inception(&["logs", "--no-log-prefix", "--tail=1", "life"]).ok(), "started");
    let listed: serde_json::Value = serde_json::from_str(&client.inception(&["ps", "--json"]).ok()).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    client.inception(&["rm", "--stop", "life"]).ok();
    client.inception(&["start", "life"]).fails(1, "life");
    // Outside of a project nothing is meant without a name.
    client.inception(&["stop"]).fails(2, "no Compose file is here");
}

fn volumes(client: &Client) {
    assert_eq!(client.inception(&["volume", "create", "--label", "a=b", "v1"]).ok(), "v1");
    client.inception(&["run", "--rm", "-v", "v1:/data", BUSYBOX, "sh", "-c", "echo kept > /data/file"]).ok();
    assert_eq!(client.inception(&["run", "--rm", "-v", "v1:/data:ro", BUSYBOX, "cat", "/data/file"]).ok(), "kept");
    assert_eq!(client.inception(&["volume", "ls", "-q", "--filter", "label=a=b"]).ok(), "v1");
    let listed: serde_json::Value = serde_json::from_str(&client.inception(&["volume", "ls", "--json"]).ok()).unwrap();
    assert_eq!(listed[0]["Name"], "v1");
    let details: serde_json::Value =
        serde_json::from_str(&client.inception(&["volume", "inspect", "v1"]).ok()).unwrap();
    assert_eq!(details[0]["Labels"]["a"], "b");
    client.inception(&["run", "-d", "--name", "user", "-v", "v1:/data", BUSYBOX, "sleep", "1000"]).ok();
    client.inception(&["volume", "rm", "v1"]).fails(1, "v1");
    client.inception(&["rm", "-f", "user"]).ok();
    client.inception(&["volume", "rm", "v1", "not-there"]).fails(1, "not-there");
    assert_eq!(client.inception(&["volume", "ls", "-q"]).ok(), "", "the one that could be removed is");
    client.inception(&["volume", "rm", "-f", "not-there"]).ok();
    client.inception(&["volume", "create", "v2"]).ok();
    client.inception(&["volume", "prune", "--all"]).fails(2, "give --force");
    // Docker 20.10 and Podman 4.3 can't tell anonymous volumes from named ones.
    let ran = client.inception(&["volume", "prune", "--force"]);
    assert_eq!(ran.code, if client.is(Kind::Docker) || client.is(Kind::Podman) { 1 } else { 0 }, "{ran:?}");
    assert_eq!(client.inception(&["volume", "ls", "-q"]).ok(), "v2", "named ones stay");
    assert!(client.inception(&["volume", "prune", "--all", "--force"]).ok().contains("v2"));
}

fn networks(client: &Client) {
    let subnet = format!("{}.0/24", client.subnet(0));
    let id = client.inception(&["network", "create", "--subnet", &subnet, "--label", "a=b", "net1"]).ok();
    assert!(client.inception(&["network", "ls"]).ok().contains(&subnet));
    let listed = client.inception(&["network", "ls", "-q", "--filter", "label=a=b"]).ok();
    assert!(id.starts_with(&listed) && !listed.is_empty(), "{listed} of {id}");
    let run = ["run", "-d", "--name", "n1", "--network", "net1", "--network-alias", "other", "--ip"];
    let address = format!("{}.77", client.subnet(0));
    client.inception(&[&run[..], &[&address, BUSYBOX, "sleep", "1000"]].concat()).ok();
    let other = client.reachable("other", &address);
    let said = client.inception(&["run", "--rm", "--network", "net1", BUSYBOX, "ping", "-c1", "-w5", other]).ok();
    assert!(said.contains(&address), "{said}");
    client.inception(&["network", "create", "net2"]).ok();
    client.inception(&["network", "connect", "--alias", "third", "net2", "n1"]).ok();
    if !client.is(Kind::Podman) {
        client.inception(&["run", "--rm", "--network", "net2", BUSYBOX, "ping", "-c1", "-w5", "third"]).ok();
    }
    assert!(client.inception(&["network", "inspect", "net2"]).ok().contains("n1"));
    client.inception(&["network", "disconnect", "net2", "n1"]).ok();
    assert_eq!(client.inception(&["exec", "n1", "ls", "/sys/class/net"]).ok(), "eth0\nlo");
    let details = client.inception(&["network", "inspect", "net1", "not-there"]);
    assert!(details.code == 1 && details.stderr.contains("not-there"), "{details:?}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&details.stdout).unwrap()[0]["Name"], "net1");
    client.inception(&["network", "rm", "net1"]).fails(1, "net1");
    client.inception(&["rm", "-f", "n1"]).ok();
    assert_eq!(client.inception(&["network", "rm", "net1", "net2"]).ok(), "net1\nnet2");
    client.inception(&["network", "create", "--subnet", "x", "bad"]).fails(2, "--subnet x");
    client.inception(&["network", "create", "--gateway", "198.18.0.1", "bad"]).fails(2, "give --subnet");
}

fn images(client: &Client) {
    client.other("docker", &["tag", BUSYBOX, "second:1"]).ok();
    assert!(client.inception(&["images", "second"]).ok().contains("second:1"));
    let listed: serde_json::Value = serde_json::from_str(&client.inception(&["images", "--json"]).ok()).unwrap();
    assert!(!listed.as_array().unwrap().is_empty());
    assert!(client.inception(&["rmi", "second:1"]).ok().contains("second:1"));
    client.inception(&["rmi", "second:1"]).fails(1, "second:1");
    let details: serde_json::Value = serde_json::from_str(&client.inception(&["inspect", BUSYBOX]).ok()).unwrap();
    assert_eq!(details[0]["Os"], "linux");
    client.inception(&["inspect", "--type", "volume", BUSYBOX]).fails(1, "there is no volume");
    client.inception(&["rmi"]).fails(2, "rmi needs images");
}

fn mistakes(client: &Client) {
    client.inception(&["statr"]).fails(2, "did you mean start?");
    client.inception(&["stop", "--timout", "3"]).fails(2, "did you mean --timeout?");
    client.inception(&["volume"]).fails(2, "volume --help");
    for help in [&["run", "--help"][..], &["help", "volume", "create"], &["-h"], &["exec", "-h"]] {
        assert!(client.inception(help).ok().contains("Examples:"), "{help:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(client.inception(&["completion", shell]).ok().contains("completion words"));
    }
    let script = client.write("bash", &client.inception(&["completion", "bash"]).ok());
    let script = format!(
        "source {}; COMP_WORDS=({} network con); COMP_CWORD=2; _inception; echo \"${{COMPREPLY[@]}}\"",
        script.display(),
        crate::harness::INCEPTION
    );
    assert_eq!(client.other("bash", &["-c", &script]).ok(), "connect");
}
