//! Ports of the host's 127.0.0.1 that lead to node ports in the lab; the list is read again on SIGHUP.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use coracle_link::Place;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::lab::{Publish, published};

/// Connections forwarded at a time, over all ports.
const CONNECTIONS: usize = 1024;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Forwards until `stop`.
pub async fn run(file: PathBuf, lab: Place, stop: CancellationToken) {
    let Ok(mut again) = signal(SignalKind::hangup()) else { return };
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open: HashMap<Publish, CancellationToken> = HashMap::new();
    loop {
        if let Err(error) = reconcile(&file, &lab, &room, &stop, &mut open).await {
            tracing::error!("publish ports: {error:#}");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = again.recv() => {}
        }
    }
}

async fn reconcile(
    file: &Path,
    lab: &Place,
    room: &Arc<Semaphore>,
    stop: &CancellationToken,
    open: &mut HashMap<Publish, CancellationToken>,
) -> Result<()> {
    let (ports, nodes) = published(file)?;
    open.retain(|port, token| {
        let keep = ports.contains(port) && !token.is_cancelled();
        if !keep {
            token.cancel();
        }
        keep
    });
    for port in ports {
        if open.contains_key(&port) {
            continue;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.host));
        let listener = Place::Current.listen_tcp(address).with_context(|| format!("listen at {address}"))?;
        let token = stop.child_token();
        open.insert(port, token.clone());
        tokio::spawn(accept(listener, port.node, nodes.clone(), lab.clone(), room.clone(), token));
        tracing::info!(host = port.host, node = port.node, "published a port");
    }
    Ok(())
}

async fn accept(
    listener: TcpListener,
    port: u16,
    nodes: Vec<Ipv4Addr>,
    lab: Place,
    room: Arc<Semaphore>,
    stop: CancellationToken,
) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, port, "a connection to a published port was lost");
                    continue;
                }
            },
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            tracing::warn!(port, "too many connections to published ports");
            continue;
        };
        let (nodes, lab) = (nodes.clone(), lab.clone());
        tokio::spawn(async move {
            forward(stream, port, &nodes, &lab).await;
            drop(permit);
        });
    }
}

/// Any node will do: a node port answers on every one.
async fn forward(mut client: TcpStream, port: u16, nodes: &[Ipv4Addr], lab: &Place) {
    for node in nodes {
        if let Ok(mut server) = lab.connect_tcp(SocketAddr::from((*node, port)), CONNECT_LIMIT).await {
            // Either side may end the conversation in any way it likes.
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
    tracing::debug!(port, "no node answers at a published port");
}
