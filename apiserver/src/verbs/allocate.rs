//! Cluster IPs and node ports, allocated in the transaction of the Service that gets them.
//!
//! A cluster IP is taken by an IPAddress object of networking.k8s.io (as upstream since v1.33); a node port by a key of
//! its own. Both are written with the Service under the condition that they are not there yet, so two servers on one
//! store cannot give out the same one.

use super::Call;
use super::service_ranges::{self, RANDOM_PICKS};
use crate::cache::{NODE_PORTS, PREFIX, encode, store_key};
use crate::registry::fields::{items, items_mut, set, text};
use crate::registry::strategy::Allocation;
use crate::store::{Compare, Op};
use coracle_api::clock::rfc3339;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Status, meta};
use std::sync::Arc;

/// Conditions and writes that go with an object.
#[derive(Debug, Default)]
pub struct Allocated {
    pub compare: Vec<Compare>,
    pub ops: Vec<Op>,
    pub undo: Undo,
}

/// What was chosen by the server, and is chosen anew when somebody else took it first.
#[derive(Debug, Default)]
pub struct Undo {
    cluster_ip: bool,
    node_ports: Vec<usize>,
    health_port: bool,
}

impl Undo {
    pub fn undo(&self, service: &mut Value) {
        let Some(spec) = service.get_mut("spec") else { return };
        if self.cluster_ip {
            for field in ["clusterIP", "clusterIPs"] {
                crate::registry::fields::remove(spec, field);
            }
        }
        for (nth, port) in items_mut(spec, "ports").enumerate() {
            if self.node_ports.contains(&nth) {
                crate::registry::fields::remove(port, "nodePort");
            }
        }
        if self.health_port {
            crate::registry::fields::remove(spec, "healthCheckNodePort");
        }
    }
}

fn allocates(call: &Call) -> bool {
    call.row().strategy.traits().allocation == Allocation::Service
}

pub fn for_create(call: &Call, object: &mut Value) -> Result<Allocated, Status> {
    if !allocates(call) { Ok(Allocated::default()) } else { service(call, object, &Value::Null) }
}

pub fn for_update(call: &Call, object: &mut Value, old: &Value) -> Result<Allocated, Status> {
    if !allocates(call) { Ok(Allocated::default()) } else { service(call, object, old) }
}

/// Gives back what a deleted object had.
pub fn release(call: &Call, object: &Value) -> Vec<Op> {
    if !allocates(call) {
        return Vec::new();
    }
    let ips = cluster_ips(object).into_iter().map(|ip| Op::Delete { key: ip_key(call, &ip) });
    ips.chain(node_ports(object).into_iter().map(|(_, port)| Op::Delete { key: port_key(port) })).collect()
}

fn ip_key(call: &Call, ip: &str) -> Arc<str> {
    let row = call.server.registry.find("networking.k8s.io", "v1", "ipaddresses");
    row.map_or_else(|| format!("{PREFIX}ipaddresses/{ip}").into(), |resolved| store_key(&resolved.row, "", ip))
}

fn port_key(port: i64) -> Arc<str> {
    format!("{NODE_PORTS}{port}").into()
}

fn wants_cluster_ip(service: &Value) -> bool {
    text(&service["spec"], "type") != "ExternalName" && text(&service["spec"], "clusterIP") != "None"
}

fn wants_node_ports(service: &Value) -> bool {
    match text(&service["spec"], "type") {
        "NodePort" => true,
        "LoadBalancer" => service["spec"].get("allocateLoadBalancerNodePorts").and_then(Value::as_bool) != Some(false),
        _ => false,
    }
}

fn cluster_ips(service: &Value) -> Vec<String> {
    if !wants_cluster_ip(service) {
        return Vec::new();
    }
    match text(&service["spec"], "clusterIP") {
        "" => Vec::new(),
        ip => vec![ip.to_owned()],
    }
}

/// Node ports with the place of their port in the list; the health check's comes with none.
fn node_ports(service: &Value) -> Vec<(Option<usize>, i64)> {
    let ports = items(&service["spec"], "ports").iter().enumerate();
    let mut found: Vec<(Option<usize>, i64)> = Vec::new();
    let health = service["spec"].get("healthCheckNodePort").and_then(Value::as_i64).map(|port| (None, port));
    for (nth, port) in ports.filter_map(|(nth, port)| Some((Some(nth), port.get("nodePort")?.as_i64()?))).chain(health)
    {
        // The same number for TCP and UDP is one allocation.
        if port > 0 && !found.iter().any(|(_, known)| *known == port) {
            found.push((nth, port));
        }
    }
    found
}

fn service(call: &Call, object: &mut Value, old: &Value) -> Result<Allocated, Status> {
    let mut allocated = Allocated::default();
    let mut causes = Vec::new();
    cluster_ip(call, object, old, &mut allocated, &mut causes)?;
    ports(call, object, old, &mut allocated, &mut causes)?;
    if causes.is_empty() { Ok(allocated) } else { Err(Status::invalid(&call.gvk(), meta::name(object), causes)) }
}

fn cluster_ip(
    call: &Call,
    object: &mut Value,
    old: &Value,
    allocated: &mut Allocated,
    causes: &mut Vec<Cause>,
) -> Result<(), Status> {
    let before = cluster_ips(old);
    if wants_cluster_ip(object) && text(&object["spec"], "clusterIP").is_empty() {
        let ip = match before.first() {
            Some(ip) => ip.clone(),
            None => {
                allocated.undo.cluster_ip = true;
                free_ip(call)?
            }
        };
        set(&mut object["spec"], "clusterIP", ip.as_str());
    }
    let ip = text(&object["spec"], "clusterIP").to_owned();
    if !ip.is_empty() {
        let ips = items(&object["spec"], "clusterIPs");
        if ips.first().and_then(Value::as_str) != Some(&ip) {
            set(&mut object["spec"], "clusterIPs", json!([ip]));
        }
    }
    let after = cluster_ips(object);
    for ip in after.iter().filter(|ip| !before.contains(ip)) {
        let path = FieldPath::new("spec").child("clusterIPs").index(0);
        let ranges = service_ranges::ready(&call.server)?;
        if !ip.parse().is_ok_and(|ip| ranges.iter().any(|range| service_ranges::contains(range, ip))) {
            let why = format!("failed to allocate IP {ip}: the provided network does not match the current range");
            causes.push(Cause::invalid(&path, json!([ip]), why));
            continue;
        }
        if !allocated.undo.cluster_ip && taken_ip(call, ip)? {
            causes.push(Cause::invalid(
                &path,
                json!([ip]),
                format!("failed to allocate IP {ip}: provided IP is already allocated"),
            ));
            continue;
        }
        let key = ip_key(call, ip);
        allocated.compare.push(Compare::absent(key.clone()));
        allocated.ops.push(Op::Put { key, value: encode(&ip_object(call, ip, object)), ttl: None });
    }
    for ip in before.iter().filter(|ip| !after.contains(ip)) {
        allocated.ops.push(Op::Delete { key: ip_key(call, ip) });
    }
    Ok(())
}

fn ip_object(call: &Call, ip: &str, service: &Value) -> Value {
    json!({
        "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": ip, "uid": call.server.config.names.uid(), "creationTimestamp": rfc3339(call.server.config.clock.now()), "generation": 1,
            "labels": { "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io", "ipaddress.kubernetes.io/ip-family": if ip.contains(':') { "IPv6" } else { "IPv4" } },
        },
        "spec": { "parentRef": { "resource": "services", "namespace": meta::namespace(service), "name": meta::name(service) } },
    })
}

fn taken_ip(call: &Call, ip: &str) -> Result<bool, Status> {
    Ok(call.server.cache_of("networking.k8s.io", "ipaddresses")?.snapshot().get(ip).is_some())
}

/// A free address of the first range that has one.
fn free_ip(call: &Call) -> Result<String, Status> {
    for range in service_ranges::ready(&call.server)? {
        if let Some(ip) = service_ranges::free(&range, |ip| taken_ip(call, ip))? {
            return Ok(ip);
        }
    }
    Err(Status::internal("failed to allocate a serviceIP: range is full"))
}

fn ports(
    call: &Call,
    object: &mut Value,
    old: &Value,
    allocated: &mut Allocated,
    causes: &mut Vec<Cause>,
) -> Result<(), Status> {
    let before: Vec<i64> = node_ports(old).into_iter().map(|(_, port)| port).collect();
    if wants_node_ports(object) {
        keep_node_ports(object, old);
        let mut used: Vec<i64> = node_ports(object).into_iter().map(|(_, port)| port).collect();
        let mut by_port: Vec<(i64, String, i64)> = Vec::new();
        for (nth, port) in items_mut(&mut object["spec"], "ports").enumerate() {
            let (number, protocol) =
                (port.get("port").and_then(Value::as_i64).unwrap_or(0), text(port, "protocol").to_owned());
            if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) == 0 {
                // TCP and UDP of one port share a node port.
                let shared = by_port
                    .iter()
                    .find(|(known, other, _)| *known == number && *other != protocol)
                    .map(|(.., node_port)| *node_port);
                let chosen = match shared {
                    Some(node_port) => node_port,
                    None => free_port(call, &used)?,
                };
                set(port, "nodePort", chosen);
                used.push(chosen);
                allocated.undo.node_ports.push(nth);
            }
            by_port.push((number, protocol, port["nodePort"].as_i64().unwrap_or(0)));
        }
        let local = text(&object["spec"], "externalTrafficPolicy") == "Local"
            && text(&object["spec"], "type") == "LoadBalancer";
        if local && object["spec"].get("healthCheckNodePort").and_then(Value::as_i64).unwrap_or(0) == 0 {
            let chosen = free_port(call, &used)?;
            set(&mut object["spec"], "healthCheckNodePort", chosen);
            allocated.undo.health_port = true;
        }
    }
    let after = node_ports(object);
    let range = &call.server.config.node_port_range;
    for (nth, port) in after.iter().filter(|(_, port)| !before.contains(port)) {
        let path = match nth {
            Some(nth) => FieldPath::new("spec").child("ports").index(*nth).child("nodePort"),
            None => FieldPath::new("spec").child("healthCheckNodePort"),
        };
        if !u16::try_from(*port).is_ok_and(|port| range.contains(&port)) {
            let why = format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            );
            causes.push(Cause::invalid(&path, *port, why));
            continue;
        }
        let chosen = nth.map_or(allocated.undo.health_port, |nth| allocated.undo.node_ports.contains(&nth));
        if !chosen && taken_port(call, *port) {
            causes.push(Cause::invalid(&path, *port, "provided port is already allocated"));
            continue;
        }
        let key = port_key(*port);
        allocated.compare.push(Compare::absent(key.clone()));
        let owner = format!("{}/{}", meta::namespace(object), meta::name(object));
        allocated.ops.push(Op::put(key, owner));
    }
    for port in before.iter().filter(|port| !after.iter().any(|(_, kept)| kept == *port)) {
        allocated.ops.push(Op::Delete { key: port_key(*port) });
    }
    Ok(())
}

/// A port that is left without a number keeps the one it had.
fn keep_node_ports(object: &mut Value, old: &Value) {
    let known: Vec<(String, i64, i64)> = items(&old["spec"], "ports")
        .iter()
        .map(|port| {
            (
                text(port, "protocol").to_owned(),
                port["port"].as_i64().unwrap_or(0),
                port["nodePort"].as_i64().unwrap_or(0),
            )
        })
        .collect();
    let mut used: Vec<i64> = node_ports(object).into_iter().map(|(_, port)| port).collect();
    for port in items_mut(&mut object["spec"], "ports") {
        if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0 {
            continue;
        }
        let same = known.iter().find(|(protocol, number, node_port)| {
            *node_port != 0
                && protocol == text(port, "protocol")
                && Some(*number) == port["port"].as_i64()
                && !used.contains(node_port)
        });
        if let Some((.., node_port)) = same {
            set(port, "nodePort", *node_port);
            used.push(*node_port);
        }
    }
}

fn taken_port(call: &Call, port: i64) -> bool {
    call.server.cacher.node_port_taken(port)
}

fn free_port(call: &Call, used: &[i64]) -> Result<i64, Status> {
    let range = &call.server.config.node_port_range;
    let free = |port: u16| {
        let port = i64::from(port);
        (!used.contains(&port) && !taken_port(call, port)).then_some(port)
    };
    let random = (0..RANDOM_PICKS).find_map(|_| free(fastrand::u16(range.clone())));
    let port = random.or_else(|| range.clone().find_map(free));
    port.ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))
}
