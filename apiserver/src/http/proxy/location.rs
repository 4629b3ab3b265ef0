//! Where a proxied request goes: the address behind a pod, a service or a node.

use super::super::kubelet;
use crate::registry::fields::{items, text};
use crate::verbs::Call;
use coracle_api::json::Value;
use coracle_api::{Gvr, Status};
use std::net::{IpAddr, SocketAddr};

/// An address, and how it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub address: SocketAddr,
    pub secure: bool,
    /// Spoken to as kubelets are: with the server's own certificate, checking theirs.
    pub is_kubelet: bool,
}

/// `name`, `name:port` or `scheme:name:port` (apimachinery `util/net` SplitSchemeNamePort).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id<'a> {
    secure: bool,
    name: &'a str,
    port: &'a str,
}

fn split(id: &str) -> Option<Id<'_>> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    let secure = match scheme {
        "" | "http" => false,
        "https" => true,
        _ => return None,
    };
    (!name.is_empty()).then_some(Id { secure, name, port })
}

/// The place that a call's object stands for.
///
/// # Errors
/// 400 for a name that is none, 404 for an object that is not there, 503 for a service without a ready endpoint.
pub async fn find(call: &Call) -> Result<Location, Status> {
    call.server.fresh().await?;
    let kind = call.row().singular.clone();
    let id = split(&call.name).ok_or_else(|| Status::bad_request(format!("invalid {kind} request {:?}", call.name)))?;
    match &*kind {
        "pod" => pod(call, id),
        "service" => service(call, id),
        _ => node(call, id),
    }
}

/// core/pod `ResourceLocation`
fn pod(call: &Call, id: Id<'_>) -> Result<Location, Status> {
    let pod = object(call, "pods", id.name)?;
    let first = items(&pod["spec"], "containers")
        .iter()
        .find_map(|container| items(container, "ports").first()?.get("containerPort")?.as_u64())
        .map(|port| port.to_string());
    let port = if id.port.is_empty() { first.as_deref().unwrap_or_default() } else { id.port };
    let ip = items(&pod["status"], "podIPs").first().map_or_else(|| text(&pod["status"], "podIP"), |ip| text(ip, "ip"));
    Ok(Location {
        address: SocketAddr::new(reachable(ip)?, number(port, id.secure)?),
        secure: id.secure,
        is_kubelet: false,
    })
}

/// core/service `ResourceLocation`: any ready endpoint that has the port.
fn service(call: &Call, id: Id<'_>) -> Result<Location, Status> {
    let mut port_name = id.port.to_owned();
    if let Ok(number) = id.port.parse::<i64>() {
        let service = object(call, "services", id.name)?;
        let declared = items(&service["spec"], "ports").iter().find(|port| port["port"].as_i64() == Some(number));
        let declared = declared.ok_or_else(|| {
            Status::service_unavailable(format!("no service port {number} found for service {:?}", id.name))
        })?;
        text(declared, "name").clone_into(&mut port_name);
    }
    let endpoints = object(call, "endpoints", id.name)?;
    let subsets = items(&endpoints, "subsets");
    if subsets.is_empty() {
        return Err(no_endpoints(id.name));
    }
    let mut ready: Vec<SocketAddr> = Vec::new();
    for subset in subsets {
        let port = items(subset, "ports").iter().find(|port| text(port, "name") == port_name);
        let Some(port) = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok()) else { continue };
        let own = items(subset, "addresses").iter().filter(|address| is_of_pod(call, address));
        ready.extend(own.filter_map(|address| Some(SocketAddr::new(text(address, "ip").parse().ok()?, port))));
    }
    if ready.is_empty() {
        return Err(no_endpoints(&call.name));
    }
    let address = ready[fastrand::usize(..ready.len())];
    Ok(Location { address, secure: id.secure, is_kubelet: false })
}

fn no_endpoints(name: &str) -> Status {
    Status::service_unavailable(format!("no endpoints available for service {name:?}"))
}

/// Whether an endpoint is the address of a pod of the namespace: whoever writes Endpoints must not make the server send
/// requests elsewhere (core/service `isValidAddress`).
fn is_of_pod(call: &Call, address: &Value) -> bool {
    let target = &address["targetRef"];
    let pod = Some(target)
        .filter(|target| text(target, "namespace") == call.namespace)
        .and_then(|target| object(call, "pods", text(target, "name")).ok());
    pod.is_some_and(|pod| items(&pod["status"], "podIPs").iter().any(|ip| text(ip, "ip") == text(address, "ip")))
}

/// core/node `ResourceLocation`: the kubelet, or another port of its host.
fn node(call: &Call, id: Id<'_>) -> Result<Location, Status> {
    let kubelet = kubelet::address(call, id.name)?;
    if id.port.is_empty() || id.port == kubelet.port().to_string() {
        return Ok(Location { address: kubelet, secure: true, is_kubelet: true });
    }
    let ip = reachable(&kubelet.ip().to_string())?;
    let address = SocketAddr::new(ip, number(id.port, id.secure)?);
    Ok(Location { address, secure: id.secure, is_kubelet: false })
}

/// An object that the call's own belongs with.
fn object(call: &Call, plural: &'static str, name: &str) -> Result<Value, Status> {
    let snapshot = call.server.cache_of("", plural)?.snapshot();
    let key = format!("{}/{name}", call.namespace);
    let found = snapshot.get(&key).ok_or_else(|| Status::not_found(&Gvr::of("", "v1", plural), name))?;
    Ok(found.parse())
}

/// The server's own loopback, links and groups are nobody's address (kubernetes `pkg/proxy/util` IsProxyableIP).
fn reachable(ip: &str) -> Result<IpAddr, Status> {
    let refused = || Status::bad_request("address not allowed");
    let ip: IpAddr = ip.parse().map_err(|_| refused())?;
    let global = match ip {
        IpAddr::V4(ip) => !ip.is_broadcast() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    if global && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() { Ok(ip) } else { Err(refused()) }
}

/// A port's number, or the scheme's when there is none.
fn number(port: &str, secure: bool) -> Result<u16, Status> {
    match port {
        "" => Ok(if secure { 443 } else { 80 }),
        port => port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            Status::service_unavailable(format!("error trying to reach service: lookup tcp/{port}: unknown port"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_a_scheme_and_a_port() {
        let id = |secure, name, port| Some(Id { secure, name, port });
        let rows = [
            ("a", id(false, "a", "")),
            ("a:80", id(false, "a", "80")),
            (":a:", id(false, "a", "")),
            ("http:a:web", id(false, "a", "web")),
            ("https:a:", id(true, "a", "")),
            ("ftp:a:1", None),
            ("https::1", None),
            (":", None),
            ("", None),
            ("a:b:c:d", None),
        ];
        for (text, wanted) in rows {
            assert_eq!(split(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn the_servers_own_addresses_are_refused() {
        for ip in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "",
            "x",
        ] {
            assert_eq!(reachable(ip).unwrap_err().code, 400, "{ip}");
        }
        for ip in ["10.244.1.2", "192.0.2.1", "fd00::1"] {
            assert!(reachable(ip).is_ok(), "{ip}");
        }
    }
}
