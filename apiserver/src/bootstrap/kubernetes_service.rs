//! The `kubernetes` Service, and its endpoints: the servers of the cluster (controlplane `controller/kubernetesservice` and
//! `reconcilers/lease.go`).
//!
//! Servers on one store know of each other by a key that each writes anew before it expires:
//!
//! ```text
//! /registry/masterleases/10.0.0.1:6443   an Endpoints object with this address alone
//! ```
//!
//! A store that one server has to itself needs no such keys.

use super::{ensure, first_address, put};
use crate::cache::is_shared;
use crate::registry::strategy::DEFAULTS;
use crate::server::{Server, store_status};
use crate::store::{Op, Range, Record, Txn};
use coracle_api::json::{Value, json, put as put_json, read as read_json};
use coracle_api::{Status, meta};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const LEASES: &str = "/registry/masterleases/";

/// The annotation by which a server tells others the number of the defaults that it fills in.
const FILLS_IN: &str = "coracle/defaults";

/// How long a server that says nothing counts as there, and how often it says so (upstream's defaults).
const LEASE: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(10);

/// Whether this server's key is written anew; whoever writes or deletes it holds the lock on this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lease {
    #[default]
    Held,
    Left,
}

/// How long a server that stops tries to take its address away.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";

/// Makes the Service, if there is none: what is there is never changed.
pub async fn service(server: &Arc<Server>) -> Result<(), Status> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {"clusterIP": first_address(server).to_string(), "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": server.config.advertise.port()}]}});
    ensure(server, ("", "services"), NAMESPACE, service).await
}

/// Writes the addresses of all servers into Endpoints and EndpointSlice, where they are not.
pub async fn endpoints(server: &Arc<Server>) -> Result<(), Status> {
    let servers = servers(server).await?;
    // The server's own key may just have expired: that is no reason to take every address away.
    let Some(first) = servers.first() else { return Ok(()) };
    let labels = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let endpoints = json!({"kind": "Endpoints", "apiVersion": "v1",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels}, "subsets": subsets(&servers)});
    put(server, ("", "endpoints"), NAMESPACE, endpoints).await?;
    // All endpoints of a slice have one family and the same ports.
    let alike = |other: &&SocketAddr| other.port() == first.port() && other.is_ipv4() == first.is_ipv4();
    let endpoints: Vec<Value> = servers
        .iter()
        .filter(alike)
        .map(|address| json!({"addresses": [address.ip().to_string()], "conditions": {"ready": true}}))
        .collect();
    let slice = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": if first.is_ipv4() { "IPv4" } else { "IPv6" }, "endpoints": endpoints,
        "ports": [{"name": "https", "port": first.port(), "protocol": "TCP"}]});
    put(server, ("discovery.k8s.io", "endpointslices"), NAMESPACE, slice).await
}

/// A subset for each port: servers of one cluster mostly have the same.
fn subsets(servers: &[SocketAddr]) -> Vec<Value> {
    let mut by_port: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for server in servers {
        by_port.entry(server.port()).or_default().push(server.ip());
    }
    let subset = |(port, addresses): (&u16, &Vec<IpAddr>)| {
        let addresses: Vec<Value> = addresses.iter().map(|address| json!({"ip": address.to_string()})).collect();
        json!({"addresses": addresses, "ports": [{"name": "https", "port": *port, "protocol": "TCP"}]})
    };
    by_port.iter().map(subset).collect()
}

/// Where the servers of the cluster are reached, in order.
async fn servers(server: &Arc<Server>) -> Result<Vec<SocketAddr>, Status> {
    if !is_shared(&**server.store()) {
        return Ok(vec![server.config.advertise]);
    }
    let records = leases(server).await?;
    let mut servers: Vec<_> =
        records.iter().filter_map(|record| record.key.strip_prefix(LEASES)?.parse().ok()).collect();
    servers.sort_unstable();
    Ok(servers)
}

async fn leases(server: &Arc<Server>) -> Result<Vec<Record>, Status> {
    let range = Range { prefix: LEASES.to_owned(), from: None, limit: 0, at: None };
    Ok(server.store().range(range).await.map_err(store_status)?.records)
}

/// Whether all servers of the cluster fill in the same defaults; those that do not say fill in others.
pub async fn agree(server: &Arc<Server>) -> Result<bool, Status> {
    if !is_shared(&**server.store()) {
        return Ok(true);
    }
    let ours = |record: &Record| {
        let lease = read_json(&record.value).unwrap_or_default();
        meta::annotation(&lease, FILLS_IN) == Some(&DEFAULTS.to_string())
    };
    Ok(leases(server).await?.iter().all(ours))
}

/// Whether this is the only server on its store, as far as can be known.
pub async fn is_alone(server: &Arc<Server>) -> bool {
    !is_shared(&**server.store()) || servers(server).await.is_ok_and(|servers| servers.len() < 2)
}

fn lease_key(server: &Server) -> String {
    format!("{LEASES}{}", server.config.advertise)
}

/// Tells other servers that this one is there.
pub async fn announce(server: &Arc<Server>) -> Result<(), Status> {
    if !is_shared(&**server.store()) {
        return Ok(());
    }
    let lease = json!({"kind": "Endpoints", "apiVersion": "v1", "subsets": subsets(&[server.config.advertise]),
        "metadata": {"annotations": {FILLS_IN: DEFAULTS.to_string()}}});
    let mut value = Vec::new();
    put_json(&mut value, &lease);
    let op = Op::Put { key: lease_key(server).into(), value: value.into(), ttl: Some(LEASE) };
    let txn = Txn { compare: Vec::new(), ops: vec![op] };
    server.store().txn(txn).await.map(drop).map_err(store_status)
}

/// Says again and again that this server is there, and sees which others are, until the server stops.
pub async fn hold(server: Arc<Server>) {
    if !is_shared(&**server.store()) {
        return;
    }
    let mut renew = tokio::time::interval(RENEW);
    // The first was at the start.
    renew.reset();
    loop {
        tokio::select! {
            () = server.stop.cancelled() => return,
            _ = renew.tick() => {}
        }
        let turn = server.lease.lock().await;
        if *turn == Lease::Left {
            return;
        }
        // Not given up when the server stops: a write that is on its way would come after that which takes the address away.
        let done = async {
            announce(&server).await?;
            endpoints(&server).await
        };
        if let Err(status) = done.await {
            tracing::warn!(%status, "telling that this server is there");
        }
    }
}

/// Takes this server's address away, so that nobody turns to it any more.
pub async fn leave(server: &Arc<Server>) {
    if !is_shared(&**server.store()) {
        return;
    }
    let gone = async {
        *server.lease.lock().await = Lease::Left;
        let txn = Txn { compare: Vec::new(), ops: vec![Op::delete(lease_key(server))] };
        server.store().txn(txn).await.map_err(store_status)?;
        endpoints(server).await
    };
    match tokio::time::timeout(LEAVE_WITHIN, gone).await {
        Ok(Ok(())) => {}
        Ok(Err(status)) => tracing::warn!(%status, "taking this server's address away"),
        Err(_) => tracing::warn!("taking this server's address away took too long; it expires by itself"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_the_same_port_are_together() {
        let servers = ["10.0.0.1:6443", "10.0.0.2:6443", "10.0.0.1:7443"].map(|server| server.parse().unwrap());
        let port = |port: u16| json!([{"name": "https", "port": port, "protocol": "TCP"}]);
        let expected = json!([
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": port(6443)},
            {"addresses": [{"ip": "10.0.0.1"}], "ports": port(7443)},
        ]);
        assert_eq!(Value::from(subsets(&servers)), expected);
    }
}
