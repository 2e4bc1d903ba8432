//! docker-compose 1.29 at this engine.

use crate::harness::{BUSYBOX, Engine, Ran, run};
use std::{fs, process::Command};

#[test]
fn up_ps_and_down() {
    let engine = Engine::with_busybox();
    let project = engine.path("project");
    fs::create_dir(&project).unwrap();
    let file = format!(
        "version: '3.8'\nservices:\n  web:\n    build: .\n    ports: ['127.0.0.1::80']\n    networks: [net]\n    depends_on: [db]\n  db:\n    image: {BUSYBOX}\n    command: sleep 1000\n    init: true\n    volumes: ['data:/d']\n    networks:\n      net:\n        aliases: [store]\nnetworks:\n  net:\nvolumes:\n  data:\n"
    );
    fs::write(project.join("docker-compose.yml"), file).unwrap();
    fs::write(
        project.join("Dockerfile"),
        format!("FROM {BUSYBOX}\nCMD [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/etc\"]\n"),
    )
    .unwrap();
    let compose = |args: &[&str]| -> Ran {
        let mut command = Command::new("docker-compose");
        command.current_dir(&project).env("DOCKER_HOST", engine.host()).env("COMPOSE_PROJECT_NAME", "shop").args(args);
        run(&mut command)
    };
    compose(&["up", "-d"]).ok();
    let shown = compose(&["ps"]).ok();
    assert_eq!(shown.matches("Up").count(), 2, "{shown}");
    compose(&["exec", "-T", "web", "ping", "-c1", "-W3", "store"]).ok();
    // Nothing changed: nothing is made anew.
    let ids = engine.docker(&["ps", "-q"]).ok();
    compose(&["up", "-d"]).ok();
    assert_eq!(engine.docker(&["ps", "-q"]).ok(), ids);
    compose(&["restart", "-t", "1", "db"]).ok();
    assert!(compose(&["logs", "--no-color", "db"]).code == 0);
    compose(&["down", "-v", "-t", "1", "--rmi", "local"]).ok();
    assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "");
    assert_eq!(engine.docker(&["volume", "ls", "-q"]).ok(), "");
    assert_eq!(engine.docker(&["network", "ls", "-q", "--filter", "type=custom"]).ok(), "");
}
