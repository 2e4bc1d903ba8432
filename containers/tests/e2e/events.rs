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
    engine.docker(&["network", "rm", "net"]).ok();
    let events = |filters: &[&str]| {
        let base = ["events", "--since", "10m", "--until", "0s", "--format", "{{.Type}} {{.Action}}"];
        let mut args = base.to_vec();
        for filter in filters {
            args.extend(["--filter", filter]);
        }
        engine.docker(&args).ok()
    };
    let container = events(&["type=container"]);
    let actions: Vec<&str> = container.lines().map(|line| line.trim_start_matches("container ")).collect();
    assert_eq!(actions, ["create", "attach", "start", "die", "destroy"]);
    assert_eq!(events(&["container=box", "event=die"]), "container die");
    assert_eq!(events(&["type=network"]), "network create\nnetwork connect\nnetwork disconnect\nnetwork destroy");
    assert!(events(&["type=volume"]).starts_with("volume create"));
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
    assert_eq!(engine.docker(&code).ok(), format!("3 box {BUSYBOX}"));
}
