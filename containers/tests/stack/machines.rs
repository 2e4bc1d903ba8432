//! The stack's images as virtual machines: the same images, an engine that has them, and no container that runs.

use crate::{
    harness::{Engine, eventually, run},
    host::Host,
    stack::free_port,
};
use std::{fs, process::Command};

/// nginx answers over TLS, with the certificate that it made in the machine.
pub fn nginx(engine: &Engine) {
    let host = Host::at(&engine.host());
    let port = free_port();
    for folder in ["site", "certificates"] {
        fs::create_dir(host.path(folder)).unwrap();
    }
    fs::write(host.path("site/page.html"), "from a machine\n").unwrap();
    let publish = format!("127.0.0.1:{port}:443");
    let volumes = ["-v", "./site:/var/www/html:ro", "-v", "./certificates:/etc/nginx/certificates"];
    let variables = ["-e", "DOMAIN=inception.localhost", "-e", "FASTCGI_UPSTREAM=127.0.0.1:9000"];
    let options = ["-d", "--rm", "--name", "web", "-p", &publish];
    host.run(&[&options[..], &volumes, &variables, &["nginx:0.1.0"]].concat()).ok();
    let page = eventually(90, "the page over TLS", || {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "5"]);
        curl.arg("--cacert").arg(host.path("certificates/site.crt"));
        curl.args(["--resolve", &format!("inception.localhost:{port}:127.0.0.1")]);
        let ran = run(curl.arg(format!("https://inception.localhost:{port}/page.html")));
        (ran.code == 0).then_some(ran.stdout)
    });
    assert_eq!(page, "from a machine\n");
    host.tell(&["stop", "web"]).ok();
    assert!(!host.machine("web").exists(), "--rm removes it");
}

/// What was written before the power button is there after the next boot.
pub fn mariadb(engine: &Engine) {
    let host = Host::at(&engine.host());
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:3306");
    let variables = ["MARIADB_DATABASE=shop", "MARIADB_USER=clerk", "MARIADB_PASSWORD=x", "MARIADB_ROOT_PASSWORD=y"];
    let variables: Vec<&str> = variables.iter().flat_map(|variable| ["-e", *variable]).collect();
    let options = ["-d", "--name", "db", "-m", "768m", "-p", &publish];
    host.run(&[&options[..], &variables, &["mariadb:0.1.0"]].concat()).ok();
    let query = |text: &str| {
        let client = ["run", "--rm", "--network", "host", "--entrypoint", "mariadb", "mariadb:0.1.0"];
        let server = ["--host=127.0.0.1", &format!("--port={port}"), "--user=clerk", "--password=x", "shop", "-N"];
        engine.docker(&[&client[..], &server, &["-e", text]].concat())
    };
    eventually(180, "the database", || (query("SELECT 1").code == 0).then_some(()));
    query("CREATE TABLE sold (thing TEXT); INSERT INTO sold VALUES ('a bridge')").ok();
    host.tell(&["stop", "db"]).ok();
    let listed = host.tell(&["ls"]).ok();
    assert!(listed.contains("exited (0)"), "{listed}");
    let said = host.tell(&["logs", "db"]).ok();
    assert!(said.contains("mariadbd: Shutdown complete"), "{said}");

    host.tell(&["start", "db"]).ok();
    eventually(90, "the database again", || (query("SELECT 1").code == 0).then_some(()));
    assert_eq!(query("SELECT thing FROM sold").ok(), "a bridge");
    let said = host.tell(&["logs", "db"]).ok();
    assert!(!said.contains("crash recovery"), "{said}");
    host.tell(&["rm", "-f", "db"]).ok();
}
