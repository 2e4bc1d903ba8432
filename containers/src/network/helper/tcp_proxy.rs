//! Proxies the TCP connections to a published port. The kernel's own translation takes what comes from outside; this
//! serves 127.0.0.1, ::1 and a container that reaches for the host's port.

use super::{quota::Quota, sockets};
use crate::error::{Context, Result};
use std::{cell::Cell, io, net::SocketAddr, rc::Rc, time::Duration};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long a container may take to accept.
const CONNECT: Duration = Duration::from_secs(10);

/// Accepts and proxies until it is dropped, which ends the connections too. `target` is read for each new one.
pub async fn serve(listener: std::net::TcpListener, target: Rc<Cell<SocketAddr>>, quota: Quota) -> Result<()> {
    let listener = TcpListener::from_std(listener).doing("watch a socket")?;
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => {
                // Where there is no room this one waits, and the others in the kernel's queue.
                let Some(permit) = quota.wait().await else { return Ok(()) };
                let target = target.get();
                connections.spawn_local(async move {
                    if let Err(error) = proxy(client, target).await {
                        log::debug!("a connection to {target}: {error}");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                log::debug!("accept: {error}");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Copies both ways; an end of one direction is passed on, and the other goes on.
async fn proxy(mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
    sockets::tune(&client);
    let mut server = timeout(CONNECT, TcpStream::connect(target)).await??;
    sockets::tune(&server);
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
