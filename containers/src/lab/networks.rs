//! Lesson 15: what a container sees of the network, and who reaches whom; all of it probed.

use super::{
    engine::{BUSYBOX, Engine, container_pid},
    stage::{PATIENCE, Stage},
};
use crate::error::{Context, Error, Result};
use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// How long a connection may take that does not come about.
const LIMIT: Duration = Duration::from_millis(500);

/// The experiment.
pub fn networks(stage: &mut Stage, column: &str) -> Result<()> {
    if let Some(outcome) = Engine::missing() {
        return stage.not_run(outcome);
    }
    let engine = stage.engine(BUSYBOX)?;
    let (name, web) = (format!("probe-{column}"), format!("web-{column}"));
    let own_net = format!("lab-{column}");
    engine.run(&["network", "create", &own_net])?;
    engine.run(&["run", "-d", "--network", &own_net, "--name", &web, "lab", "httpd", "-f", "-p", "8080"])?;
    let port = free_port()?;
    let address = if column == "host" { format!("127.0.0.1:{port}") } else { port.to_string() };
    let network = if column == "bridge" { &own_net } else { column };
    engine.run(&["run", "-d", "--network", network, "--name", &name, "lab", "httpd", "-f", "-p", &address])?;
    stage.describe(&format!("inception run -d --network {network} lab httpd -f -p {address}"));
    let exec = |words: &[&str]| engine.run(&[&["exec", &name], words].concat());

    let mut interfaces = interfaces(&exec(&["ip", "-o", "link"])?);
    interfaces.sort();
    let shown = if column == "host" { format!("all {} of the host", interfaces.len()) } else { interfaces.join(" ") };
    stage.observe("interfaces", shown);
    let pid = container_pid(engine.run(&["inspect", &name])).ok_or_else(|| Error::Failed("it does not run".into()))?;
    stage.watch_container(pid, "httpd");
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
    let (own, ours) = (namespace(&pid.to_string()), namespace("self"));
    stage.observe("interfaces of its own", own.doing("look at its namespace")? != ours.doing("look at the host's")?);
    if column != "host" {
        stage.observe("default route by the engine", exec(&["ip", "route"])?.contains("default via"));
    }
    let reaches = |host: &str, port: u16| exec(&["nc", "-w", "1", host, &port.to_string()]).is_ok();
    // The server may need a moment.
    let by_name = || reaches(&web, 8080);
    let limit = if column == "bridge" { PATIENCE } else { LIMIT };
    let reached = stage.watch_until(limit, by_name)?;
    stage.observe("reaches another container by name", reached);
    let listener = TcpListener::bind("127.0.0.1:0").doing("listen on loopback")?;
    let here = listener.local_addr().doing("listen on loopback")?.port();
    let reached = std::thread::scope(|scope| {
        // Whoever connects is hung up on; the last one is the lab itself.
        scope.spawn(|| listener.accept().map(drop));
        let reached = reaches("127.0.0.1", here);
        let _ = TcpStream::connect(("127.0.0.1", here));
        reached
    });
    stage.observe("reaches the host's loopback", reached);

    let found: serde_json::Value = serde_json::from_str(&engine.run(&["inspect", &name])?).unwrap_or_default();
    let given = found[0]["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().unwrap_or_default().to_owned();
    let address = if given.is_empty() { "127.0.0.1".into() } else { given };
    let address: SocketAddr =
        format!("{address}:{port}").parse().map_err(|_| Error::Failed(format!("{address} is no address")))?;
    let connects = || TcpStream::connect_timeout(&address, LIMIT).is_ok();
    let limit = if column == "none" { LIMIT } else { PATIENCE };
    let reached = stage.watch_until(limit, connects)?;
    stage.observe("the host reaches it", reached);
    engine.run(&["rm", "--force", &name, &web])?;
    engine.run(&["network", "rm", &own_net]).map(drop)
}

/// The names in `ip -o link`: `2: eth0@if7: <…`.
fn interfaces(text: &str) -> Vec<String> {
    let name = |line: &str| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned());
    text.lines().filter_map(name).collect()
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").doing("find a free port")?;
    Ok(listener.local_addr().doing("find a free port")?.port())
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_of_interfaces() {
        let text = "1: lo: <LOOPBACK,UP> mtu 65536\\    link/loopback\n7: eth0@if8: <BROADCAST> mtu 1500\n";
        assert_eq!(super::interfaces(text), ["lo", "eth0"]);
    }
}
