//! `docker events`.

use crate::harness::{BUSYBOX, Engine};

#[test]
fn tell_of_everything_that_happens() {
    let engine = Engine::with_busybox();
    engine.docker(&["network", "create", "net"]).ok();
    engine
        .docker(&["run", "--name", "box", "--network", "net", "-v", "data:/d", BUSYBOX, "sh", "-c", "exit 3"])
        .fails(3, "");
    engine.docker(&["rm", "box"]).ok();
    engine.docker(&["volume", "rm", "data"]).ok();
    engine.docker(&["run", "-d", "--name", "other", "--network", "none", BUSYBOX, "sleep", "1000"]).ok();
    engine.docker(&["stop", "-t", "0", "other"]).ok();
    engine.docker(&["network", "rm", "net"]).ok();
    // The client rounds "now" down to a second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let events = |filters: &[&str]| {
        let base = ["events", "--since", "10m", "--until", "0s", "--format", "{{.Type}} {{.Action}}"];
        let mut args = base.to_vec();
        for filter in filters {
            args.extend(["--filter", filter]);
        }
        engine.docker(&args).ok()
    };
    let container = events(&["container=box"]);
    let actions: Vec<&str> = container.lines().map(|line| line.trim_start_matches("container ")).collect();
    assert_eq!(actions, ["create", "attach", "start", "die", "destroy"]);
    let stopped = events(&["container=other"]);
    let stopped = stopped.replace("container ", "").replace('\n', " ");
    assert_eq!(stopped, "create start kill kill die stop");
    assert_eq!(events(&["container=box", "event=die"]), "container die");
    assert_eq!(events(&["type=network"]), "network create\nnetwork connect\nnetwork disconnect\nnetwork destroy");
    assert_eq!(events(&["type=volume"]), "volume create\nvolume destroy");
    assert!(events(&["type=image"]).contains("image import"));
    let code = [
        "events",
        "--since",
        "10m",
        "--until",
        "0s",
        "--filter",
        "event=die",
        "--format",
        "{{.Actor.Attributes.exitCode}} {{.Actor.Attributes.name}} {{.Actor.Attributes.image}}",
    ];
    assert_eq!(engine.docker(&code).ok(), format!("3 box {BUSYBOX}\n137 other {BUSYBOX}"));
}
