//! Projects of a Compose file, on every engine: up, down, run, exec, start, stop, restart, rm, ps, logs, config.

use crate::{
    clients::{Client, run_cases},
    harness::{BUSYBOX, Ran},
    peers::Kind,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const CASES: [(&str, fn(&Client)); 10] = [
    ("up waits, and changes only what changed", up_waits_and_changes_only_what_changed),
    ("what a service says reaches its container", what_a_service_says_reaches_its_container),
    ("a changed network is made anew", a_changed_network_is_made_anew),
    ("a dependent restarts with what it depends on", a_dependent_restarts),
    ("services are stopped, started and removed in order", services_in_order),
    ("run of a service", run_of_a_service),
    ("up in the foreground", up_in_the_foreground),
    ("failures say why", failures_say_why),
    ("profiles", profiles),
    ("docker-compose sees the project", docker_compose_sees_the_project),
];

#[test]
fn compose_on_the_embedded_engine() {
    run_cases(None, &CASES);
}

#[test]
fn compose_on_docker() {
    run_cases(Some(Kind::Docker), &CASES);
}

#[test]
fn compose_on_podman() {
    run_cases(Some(Kind::Podman), &CASES);
}

/// Services that all run busybox.
fn project(client: &Client, text: &str) {
    client.write("compose.yaml", &text.replace("BUSYBOX", BUSYBOX).replace("SUBNET", &client.subnet(1)));
}

fn inspect(client: &Client, name: &str) -> Value {
    let mut all: Value = serde_json::from_str(&client.inception(&["inspect", name]).ok()).unwrap();
    all[0].take()
}

fn id(client: &Client, service: &str) -> String {
    inspect(client, service)["Id"].as_str().unwrap().to_owned()
}

/// Whether its health check has passed; nobody makes any on Podman without systemd but the companion, which tells nobody.
fn is_healthy(client: &Client, name: &str) -> bool {
    client.is(Kind::Podman) || inspect(client, name)["State"]["Health"]["Status"] == "healthy"
}

fn down(client: &Client) {
    client.inception(&["down", "-v", "-t0"]).ok();
    assert_eq!(client.inception(&["ps", "-aq"]).ok(), "");
    assert_eq!(client.inception(&["volume", "ls", "-q"]).ok(), "");
    assert_eq!(client.inception(&["network", "ls", "-q", "--filter", "label=com.docker.compose.project"]).ok(), "");
}

const WITH_HEALTH: &str = "\
name: e2e
services:
  db:
    image: BUSYBOX
    init: true
    command: sh -c 'sleep 1; touch /ready; exec sleep 1000'
    healthcheck: {test: test -e /ready, interval: 200ms, retries: 50}
  job:
    image: BUSYBOX
    command: sh -c 'echo the job is done'
  web:
    image: BUSYBOX
    init: true
    command: sleep 1000
    environment: {COLOUR: \"${COLOUR:-red}\"}
    depends_on:
      db: {condition: service_healthy}
      job: {condition: service_completed_successfully}
";

fn up_waits_and_changes_only_what_changed(client: &Client) {
    project(client, WITH_HEALTH);
    client.inception(&["up", "-d"]).ok();
    assert!(is_healthy(client, "db"));
    assert_eq!(inspect(client, "job")["State"]["ExitCode"], 0);
    let (db, web) = (id(client, "db"), id(client, "web"));
    let started = |service: &str| inspect(client, service)["State"]["StartedAt"].clone();
    let before = (started("db"), started("web"));
    client.inception(&["up", "-d"]).ok();
    assert_eq!((id(client, "db"), id(client, "web")), (db.clone(), web.clone()), "nothing is made anew");
    assert_eq!((started("db"), started("web")), before, "nothing is restarted");
    client.write(".env", "COLOUR=blue\n");
    client.inception(&["up", "-d"]).ok();
    assert_eq!(id(client, "db"), db, "what did not change stays");
    assert_ne!(id(client, "web"), web, "what changed is made anew");
    assert_eq!(client.inception(&["exec", "web", "sh", "-c", "echo $COLOUR"]).ok(), "blue");
    if !client.is(Kind::Podman) {
        client.inception(&["exec", "web", "ping", "-c1", "-w5", "db"]).ok();
    }
    client.inception(&["up", "-d", "--force-recreate", "--no-deps", "db"]).ok();
    assert_ne!(id(client, "db"), db);
    let logs = client.inception(&["logs", "job"]).ok();
    assert!(logs.starts_with("job | the job is done"), "{logs}");
    down(client);
}

fn what_a_service_says_reaches_its_container(client: &Client) {
    client.write("secret.txt", "hunter2\n");
    client.write("settings.conf", "setting\n");
    client.write("service.env", "FROM_FILE=file\nBOTH=file\n");
    client.write(".env", "NAME=from-dot-env\nEMPTY=\n");
    project(
        client,
        "\
name: e2e
services:
  web:
    image: BUSYBOX
    command: sleep 1000
    init: true
    env_file: [service.env]
    environment:
      - BOTH=environment
      - NAME=${NAME}
      - DEFAULT=${EMPTY:-default}
      - EMPTY_IS_SET=${EMPTY-default}
      - OTHER=${NAME:+other}
      - DOLLAR=$$NAME
    secrets: [password]
    configs: [{source: settings, target: /etc/settings}]
    networks: {back: {aliases: [alias], ipv4_address: SUBNET.9}}
    volumes: ['data:/data', './:/here:ro', {type: tmpfs, target: /memory, tmpfs: {size: 1m}}]
    ports: ['127.0.0.1:18474:80']
    stop_signal: SIGINT
    stop_grace_period: 3s
    restart: on-failure:2
    labels: {some.label: value}
    deploy: {resources: {limits: {memory: 64m, cpus: '0.5', pids: 30}}}
    hostname: named
    read_only: true
    cap_drop: [ALL]
    user: '33'
networks: {back: {ipam: {config: [{subnet: SUBNET.0/24}]}}}
volumes: {data: {labels: {kind: data}}}
secrets: {password: {file: ./secret.txt}}
configs: {settings: {file: settings.conf}}
",
    );
    std::fs::set_permissions(client.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    client.inception(&["up", "-d"]).ok();
    let said = client.inception(&[
        "exec",
        "web",
        "sh",
        "-c",
        "echo $FROM_FILE $BOTH $NAME $DEFAULT \"$EMPTY_IS_SET\" $OTHER $DOLLAR; cat /run/secrets/password \
         /etc/settings /here/settings.conf; hostname; id -u; grep CapBnd /proc/self/status; ip -4 addr show eth0",
    ]);
    let said = said.ok();
    let expected = "file environment from-dot-env default  other $NAME\nhunter2\nsetting\nsetting\nnamed\n33\nCapBnd:\t0000000000000000\n";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.contains(&format!("{}.9/24", client.subnet(1))), "{said}");
    let web = inspect(client, "web");
    let (host, config) = (&web["HostConfig"], &web["Config"]);
    assert_eq!(
        (&host["Memory"], &host["NanoCpus"], &host["PidsLimit"]),
        (&(64 << 20).into(), &500_000_000.into(), &30.into())
    );
    assert_eq!(
        (&host["RestartPolicy"]["Name"], &host["RestartPolicy"]["MaximumRetryCount"]),
        (&"on-failure".into(), &2.into())
    );
    assert_eq!((&config["Labels"]["some.label"], &config["StopTimeout"]), (&"value".into(), &3.into()));
    assert_eq!(host["PortBindings"]["80/tcp"][0]["HostPort"], "18474");
    assert_eq!(inspect(client, "e2e_data")["Labels"]["kind"], "data");
    // Secrets are in no output of config.
    let shown = client.inception(&["config"]).ok();
    assert!(shown.contains("secret.txt") && !shown.contains("hunter2"), "{shown}");
    down(client);
}

fn a_changed_network_is_made_anew(client: &Client) {
    let text = "\
name: e2e
services:
  a: {image: BUSYBOX, command: sleep 1000, init: true, networks: [one]}
  b: {image: BUSYBOX, command: sleep 1000, init: true, networks: [two]}
networks:
  one: {ipam: {config: [{subnet: SUBNET.0/26}]}}
  two: {}
";
    project(client, text);
    client.inception(&["up", "-d"]).ok();
    let b = id(client, "b");
    project(client, &text.replace("SUBNET.0/26", "SUBNET.128/26"));
    client.inception(&["up", "-d"]).ok();
    let said = client.inception(&["exec", "a", "ip", "-4", "addr", "show", "eth0"]).ok();
    assert!(said.contains(&format!("{}.1", client.subnet(1))) && said.contains("/26"), "{said}");
    assert_eq!(id(client, "b"), b, "the other network's service stays");
    down(client);
}

fn a_dependent_restarts(client: &Client) {
    let text = "\
name: e2e
services:
  db: {image: BUSYBOX, command: sleep 1000, init: true, environment: {A: one}}
  web: {image: BUSYBOX, command: sleep 1000, init: true, depends_on: {db: {condition: service_started, restart: true}}}
  other: {image: BUSYBOX, command: sleep 1000, init: true, depends_on: [db]}
";
    project(client, text);
    client.inception(&["up", "-d"]).ok();
    let started = |service: &str| inspect(client, service)["State"]["StartedAt"].clone();
    let before = (id(client, "web"), started("web"), started("other"));
    project(client, &text.replace("one", "two"));
    client.inception(&["up", "-d"]).ok();
    assert_eq!(id(client, "web"), before.0, "restarted, and not made anew");
    assert_ne!(started("web"), before.1);
    assert_eq!(started("other"), before.2, "without `restart: true` it goes on");
    down(client);
}

fn services_in_order(client: &Client) {
    project(client, WITH_HEALTH);
    client.inception(&["up", "-d"]).ok();
    client.inception(&["stop", "-t0"]).ok();
    assert_eq!(client.inception(&["ps", "-q"]).ok(), "");
    client.inception(&["start"]).ok();
    // A start waits as `up` does.
    assert!(is_healthy(client, "db"));
    assert_eq!(inspect(client, "web")["State"]["Running"], true);
    let before = inspect(client, "web")["State"]["StartedAt"].clone();
    client.inception(&["restart", "-t0", "web"]).ok();
    assert_ne!(inspect(client, "web")["State"]["StartedAt"], before);
    // Without names what runs is left; a name that runs is an error.
    let ran = client.inception(&["rm"]);
    assert!(ran.code == 0 && ran.stderr.contains("left, for they run"), "{ran:?}");
    client.inception(&["inspect", "--type", "container", "job"]).fails(1, "there is no container job");
    client.inception(&["rm", "web"]).fails(1, "--stop or --force");
    client.inception(&["rm", "-f", "web"]).ok();
    client.inception(&["stop", "wbe"]).fails(1, "wbe");
    down(client);
}

fn run_of_a_service(client: &Client) {
    client.write("secret.txt", "hunter2\n");
    project(
        client,
        "\
name: e2e
services:
  db: {image: BUSYBOX, command: sleep 1000, init: true, healthcheck: {test: 'true', interval: 200ms}}
  web:
    image: BUSYBOX
    command: echo what the file says
    environment: {A: file, B: file}
    secrets: [password]
    ports: ['18475:80']
    depends_on: {db: {condition: service_healthy}}
secrets: {password: {file: ./secret.txt}}
",
    );
    assert_eq!(client.inception(&["run", "--rm", "--no-deps", "web"]).ok(), "what the file says");
    assert_eq!(client.inception(&["ps", "-q"]).ok(), "", "nothing it depends on was started");
    let said = client.inception(&["run", "--rm", "-e", "B=here", "web", "sh", "-c", "echo $A $B; cat /run/secrets/*"]);
    assert_eq!(said.ok(), "file here\nhunter2");
    assert!(is_healthy(client, "db"));
    if !client.is(Kind::Podman) {
        client.inception(&["run", "--rm", "web", "ping", "-c1", "-w5", "db"]).ok();
    }
    client.inception(&["run", "--rm", "web", "sh", "-c", "exit 6"]).fails(6, "");
    // Without --rm it is listed, and down takes it too.
    client.inception(&["run", "-d", "web", "sleep", "1000"]).ok();
    let listed = client.inception(&["ps"]).ok();
    assert!(listed.contains("e2e-web-run-") && !listed.contains("18475"), "{listed}");
    // A word that is no service is an image, and one with a tag always is.
    assert_eq!(client.inception(&["run", "--rm", BUSYBOX, "sh", "-c", "echo -$A-"]).ok(), "--");
    client.inception(&["run", "--no-deps", BUSYBOX, "true"]).fails(125, "is none of the project here");
    down(client);
}

fn up_in_the_foreground(client: &Client) {
    let text = "\
name: e2e
services:
  one: {image: BUSYBOX, init: true, command: sh -c 'echo hello from one; exec sleep 1000'}
  three: {image: BUSYBOX, init: true, command: sh -c 'echo hello from three; exec sleep 1000'}
";
    project(client, text);
    let mut running = client.spawn(&["up"]);
    running.says("one   | hello from one");
    running.says("three | hello from three");
    running.signal(Signal::SIGINT);
    running.ends();
    assert!(running.said().contains("Container e2e-one-1 Stopped"), "{}", running.said());
    assert_eq!(client.inception(&["ps", "-q"]).ok(), "");
    // Colours are for terminals alone.
    assert!(!running.said().contains('\x1b'), "{:?}", running.said());
    let ran = client.at_a_terminal(&["logs"], &[]);
    assert!(ran.stdout.contains("\x1b[36mone") && ran.stdout.contains("hello from three"), "{:?}", ran.stdout);
    down(client);
}

fn failures_say_why(client: &Client) {
    let fails = |text: &str, code: i32, expected: &str| {
        project(client, text);
        let ran: Ran = client.inception(&["up", "-d", "-t", "x"]);
        assert_eq!(ran.code, 2, "-t is no option of up");
        client.inception(&["up", "-d"]).fails(code, expected);
    };
    fails(
        "services:\n  web:\n    imaeg: x\n",
        2,
        "compose.yaml:3:5: unknown key `imaeg` in service web; did you mean `image`?",
    );
    fails(
        "services:\n  web:\n    image: x\n    gpus: all\n",
        2,
        "compose.yaml:4:5: `gpus` in service web is not supported yet",
    );
    fails("name: e2e\nservices:\n  web: {image: 'not-there:1'}\n", 1, "not-there:1");
    fails(
        "name: e2e\nservices:\n  web: {image: BUSYBOX, command: sh -c 'echo what went wrong; exit 3'}\n",
        1,
        "what went wrong",
    );
    fails(
        "name: e2e\nservices:\n  web: {image: BUSYBOX, init: true, command: sleep 1000, healthcheck: {test: 'echo the check says; exit 1', interval: 100ms, retries: 2}}\n",
        1,
        "the check says",
    );
    fails(
        "name: e2e\nservices:\n  web: {image: BUSYBOX, command: sleep 1, secrets: [s]}\nsecrets: {s: {file: missing.txt}}\n",
        2,
        "missing.txt",
    );
    fails(
        "name: e2e\nservices:\n  web: {image: BUSYBOX, command: sleep 1, networks: [n]}\nnetworks: {n: {external: true}}\n",
        1,
        "inception network create n",
    );
    project(client, "name: e2e\nservices:\n  web: {image: BUSYBOX}\n");
    client.inception(&["up", "-d", "wbe"]).fails(2, "there is no service wbe");
    down(client);
}

fn profiles(client: &Client) {
    project(
        client,
        "\
name: e2e
services:
  always: {image: BUSYBOX, command: sleep 1000, init: true}
  debug: {image: BUSYBOX, command: sleep 1000, init: true, profiles: [debug]}
",
    );
    client.inception(&["up", "-d"]).ok();
    assert!(!client.inception(&["ps"]).ok().contains("debug"));
    client.inception(&["up", "-d", "--profile", "debug"]).ok();
    assert!(client.inception(&["ps"]).ok().contains("e2e-debug-1"));
    assert_eq!(client.inception(&["config", "--services"]).ok(), "always");
    down(client);
}

fn docker_compose_sees_the_project(client: &Client) {
    // docker-compose 1.29 asks Podman for what it does not have.
    if client.is(Kind::Podman) {
        return;
    }
    // docker-compose 1.29 knows no `name:`.
    project(client, "version: '3.8'\nservices:\n  web: {image: BUSYBOX, command: sleep 1000, init: true}\n");
    client.inception(&["-p", "seen", "up", "-d"]).ok();
    let listed = client.other("docker-compose", &["-p", "seen", "ps"]).ok();
    assert!(listed.contains("seen-web-1") && listed.contains("Up"), "{listed}");
    assert_eq!(client.other("docker-compose", &["-p", "seen", "exec", "-T", "web", "echo", "in"]).ok(), "in");
    client.inception(&["-p", "seen", "down", "-t0"]).ok();
}
