//! The Lease by which a server is known (controlplane `apiserver/server.go` and `controller/apiserverleasegc`; feature
//! `APIServerIdentity`): one for each machine, named after its host name. Those of servers that are gone are removed.

use super::{change, ensure, remove};
use crate::server::Server;
use coracle_api::json::{Value, json};
use coracle_api::schema::TypeRef;
use coracle_api::{Status, clock, meta};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const RESOURCE: (&str, &str) = ("coordination.k8s.io", "leases");
const NAMESPACE: &str = "kube-system";
const LABEL: &str = "apiserver.kubernetes.io/identity";
const COMPONENT: &str = "kube-apiserver";

/// How long a Lease holds, how often it is renewed, and how often those that hold no longer are looked for.
const HOLDS: Duration = Duration::from_secs(3600);
const RENEW: Duration = Duration::from_secs(10);
const REMOVE: Duration = Duration::from_secs(3600);

/// Renews the server's Lease, and removes those that have run out, until the server stops.
pub async fn hold(server: Arc<Server>) {
    let host = host_name();
    let holder = format!("{}_{}", identity(&host), server.config.names.uid());
    let mut renew = tokio::time::interval(RENEW);
    let mut looked: Option<Instant> = None;
    loop {
        tokio::select! {
            () = server.stop.cancelled() => return,
            _ = renew.tick() => {}
        }
        let done = async {
            renewed(&server, &host, &holder).await?;
            if looked.is_none_or(|looked| looked.elapsed() >= REMOVE) {
                remove_expired(&server).await?;
                looked = Some(Instant::now());
            }
            Ok::<(), Status>(())
        };
        let done = tokio::select! {
            () = server.stop.cancelled() => return,
            done = done => done,
        };
        if let Err(status) = done {
            tracing::warn!(%status, "renewing the Lease of this server");
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The name of the Lease of the servers on a host.
fn identity(host: &str) -> String {
    format!("apiserver-{}", base32(&Sha256::digest(host)[..16]))
}

/// RFC 4648, in small letters, without padding.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let (mut out, mut bits, mut held) = (String::new(), 0, 0u32);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(LETTERS[(held >> bits & 31) as usize].into());
        }
    }
    if bits > 0 {
        out.push(LETTERS[(held << (5 - bits) & 31) as usize].into());
    }
    out
}

async fn renewed(server: &Arc<Server>, host: &str, holder: &str) -> Result<(), Status> {
    let name = identity(host);
    let now = clock::rfc3339_micro(server.config.clock.now());
    let lease = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {LABEL: COMPONENT, "kubernetes.io/hostname": host}},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": HOLDS.as_secs(), "renewTime": now}});
    ensure(server, RESOURCE, NAMESPACE, lease).await?;
    let renewed = |current: &Value, _: TypeRef<'_>| {
        let mut renewed = current.clone();
        renewed["spec"]["renewTime"] = now.into();
        (renewed != *current).then_some(renewed)
    };
    change(server, RESOURCE, NAMESPACE, &name, renewed).await
}

async fn remove_expired(server: &Arc<Server>) -> Result<(), Status> {
    let snapshot = server.cache_of(RESOURCE.0, RESOURCE.1)?.snapshot();
    for object in snapshot.range(&format!("{NAMESPACE}/"), "") {
        let lease = object.parse();
        if meta::label(&lease, LABEL) != Some(COMPONENT) || !has_expired(&lease, server.config.clock.now()) {
            continue;
        }
        remove(server, RESOURCE, NAMESPACE, meta::name(&lease)).await?;
    }
    Ok(())
}

/// Whether nobody has renewed a Lease for as long as it holds; one that says neither counts as such.
fn has_expired(lease: &Value, now: Timestamp) -> bool {
    let renewed = lease.pointer("/spec/renewTime").and_then(Value::as_str).and_then(clock::parse_rfc3339);
    let holds = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_i64);
    match (renewed, holds) {
        (Some(renewed), Some(holds)) => now.as_second().saturating_sub(renewed.as_second()) > holds,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_other_servers_give_themselves() {
        // RFC 4648, section 10.
        for (text, encoded) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(base32(text.as_bytes()), encoded);
        }
        let name = identity("node-1");
        assert_eq!((name.len(), &name[..10]), (36, "apiserver-"));
        assert!(coracle_api::validation::dns1123_subdomain(&name).is_empty(), "{name}");
    }

    #[test]
    fn what_was_not_renewed_has_expired() {
        let now: Timestamp = "2026-03-01T10:00:00Z".parse().unwrap();
        let lease = |renewed: &str| json!({"spec": {"renewTime": renewed, "leaseDurationSeconds": 3600}});
        assert!(!has_expired(&lease("2026-03-01T09:00:00.000000Z"), now));
        assert!(has_expired(&lease("2026-03-01T08:59:59.000000Z"), now));
        assert!(has_expired(&json!({"spec": {"leaseDurationSeconds": 3600}}), now));
        assert!(has_expired(&json!({}), now));
    }
}
