//! Cluster IPs and node ports, allocated in the transaction of the Service that gets them.
//!
//! A cluster IP is taken by an IPAddress object of networking.k8s.io (as upstream since v1.33); a node port by a key of
//! its own. Both are written with the Service under the condition that they are not there yet, so two servers on one
//! store cannot give out the same one.

use super::Call;
use super::service_ranges::{self, RANDOM_PICKS};
use crate::cache::{NODE_PORTS, PREFIX, encode, store_key};
use crate::registry::core::service::{gets_node_ports, has_health_check, has_node_ports, number};
use crate::registry::fields::{items, items_mut, remove, set, text};
use crate::registry::strategy::Allocation;
use crate::server::Server;
use crate::store::{Compare, Op};
use coracle_api::clock::rfc3339;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Status, meta};
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Labels of an IPAddress that was made for a Service (networking/v1 `well_known_labels.go`).
pub(crate) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub(crate) const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// Who makes them (core/service/ipallocator `ControllerName`).
pub(crate) const MANAGER: &str = "ipallocator.k8s.io";

/// Which of the two protocols an address belongs to.
pub(crate) fn family(ip: &str) -> &'static str {
    if ip.contains(':') { "IPv6" } else { "IPv4" }
}

const TAKEN: &str = "provided port is already allocated";
const FULL: &str = "range is full";

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
    node_ports: HashSet<usize>,
    health_port: bool,
}

impl Undo {
    pub fn undo(&self, service: &mut Value) {
        let Some(spec) = service.get_mut("spec") else { return };
        if self.cluster_ip {
            for field in ["clusterIP", "clusterIPs"] {
                remove(spec, field);
            }
        }
        for (nth, port) in items_mut(spec, "ports").enumerate() {
            if self.node_ports.contains(&nth) {
                remove(port, "nodePort");
            }
        }
        if self.health_port {
            remove(spec, "healthCheckNodePort");
        }
    }
}

fn allocates(call: &Call) -> bool {
    call.row().strategy.traits().allocation == Allocation::Service
}

pub fn for_create(call: &Call, object: &mut Value) -> Result<Allocated, Status> {
    if !allocates(call) { Ok(Allocated::default()) } else { service(call, object, None) }
}

pub fn for_update(call: &Call, object: &mut Value, old: &Value) -> Result<Allocated, Status> {
    if !allocates(call) { Ok(Allocated::default()) } else { service(call, object, Some(old)) }
}

/// Gives back what a deleted object had.
pub fn release(call: &Call, object: &Value) -> Result<Allocated, Status> {
    let mut given = Allocated::default();
    if allocates(call) {
        for ip in cluster_ips(object) {
            give_back(call, &ip, object, &mut given)?;
        }
        given.ops.extend(held(object).map(|port| Op::Delete { key: port_key(port) }));
    }
    Ok(given)
}

/// Gives an address back, if it is this Service's: somebody may have deleted the object that says so, and another Service
/// have got the address. It must be as it was seen, so that nobody takes it or makes it again in between.
fn give_back(call: &Call, ip: &str, service: &Value, given: &mut Allocated) -> Result<(), Status> {
    let key = ip_key(&call.server, ip);
    let snapshot = call.server.cache_of("networking.k8s.io", "ipaddresses")?.snapshot();
    let Some(known) = snapshot.get(ip) else {
        given.compare.push(Compare::absent(key));
        return Ok(());
    };
    given.compare.push(Compare::modified(key.clone(), known.revision));
    if is_parent(&known.parse(), meta::namespace(service), meta::name(service)) {
        given.ops.push(Op::Delete { key });
    }
    Ok(())
}

/// Whether an IPAddress says that this Service has it.
pub(crate) fn is_parent(address: &Value, namespace: &str, name: &str) -> bool {
    let parent = &address["spec"]["parentRef"];
    is_of_service(address) && text(parent, "namespace") == namespace && text(parent, "name") == name
}

/// Whether an IPAddress says that some Service has it.
pub(crate) fn is_of_service(address: &Value) -> bool {
    let parent = &address["spec"]["parentRef"];
    text(parent, "group").is_empty() && text(parent, "resource") == "services"
}

pub(crate) fn ip_key(server: &Server, ip: &str) -> Arc<str> {
    let row = server.registry.find("networking.k8s.io", "v1", "ipaddresses");
    row.map_or_else(|| format!("{PREFIX}ipaddresses/{ip}").into(), |resolved| store_key(&resolved.row, "", ip))
}

fn port_key(port: i64) -> Arc<str> {
    format!("{NODE_PORTS}{port}").into()
}

fn wants_cluster_ip(service: &Value) -> bool {
    text(&service["spec"], "type") != "ExternalName" && text(&service["spec"], "clusterIP") != "None"
}

pub(crate) fn cluster_ips(service: &Value) -> Vec<String> {
    if !wants_cluster_ip(service) {
        return Vec::new();
    }
    match text(&service["spec"], "clusterIP") {
        "" => Vec::new(),
        ip => vec![ip.to_owned()],
    }
}

/// The ports of the nodes that a Service has for its own ports, with their places in the list. The same number for TCP and
/// UDP is one allocation.
fn node_ports(service: &Value) -> Vec<(usize, i64)> {
    let spec = &service["spec"];
    if !has_node_ports(spec) {
        // A number that stands there all the same is no more than that.
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let ports = items(spec, "ports").iter().map(|port| number(port, "nodePort")).enumerate();
    ports.filter(|(_, port)| *port != 0 && seen.insert(*port)).collect()
}

fn health_port(service: &Value) -> Option<i64> {
    let spec = &service["spec"];
    has_health_check(spec).then(|| number(spec, "healthCheckNodePort")).filter(|port| *port != 0)
}

/// Every port of the nodes that a Service has.
fn held(service: &Value) -> impl Iterator<Item = i64> {
    let all: HashSet<i64> = node_ports(service).into_iter().map(|(_, port)| port).chain(health_port(service)).collect();
    all.into_iter()
}

/// Addresses first, then ports, and the first that cannot be had is the only one that is told of (core/service/storage
/// `allocateCreate`, `allocateUpdate`).
fn service(call: &Call, object: &mut Value, old: Option<&Value>) -> Result<Allocated, Status> {
    if text(&object["spec"], "type") == "ExternalName" {
        // It is checked, but nobody is shown it (core/service/storage `defaultOnReadInternalTrafficPolicy`).
        remove(&mut object["spec"], "internalTrafficPolicy");
    }
    let mut allocated = Allocated::default();
    cluster_ip(call, object, &old.map(cluster_ips).unwrap_or_default(), &mut allocated)?;
    let chosen = if gets_node_ports(&object["spec"]) {
        choose_ports(call, object, old.is_none(), &mut allocated.undo)?
    } else {
        HashSet::new()
    };
    let had: HashSet<i64> = old.map(node_ports).into_iter().flatten().map(|(_, port)| port).collect();
    take_ports(call, object, &had, &chosen, &mut allocated)?;
    health_check(call, object, old.and_then(health_port), &mut allocated)?;
    let after: HashSet<i64> = held(object).collect();
    let lost = old.into_iter().flat_map(held).filter(|port| !after.contains(port));
    allocated.ops.extend(lost.map(|port| Op::Delete { key: port_key(port) }));
    Ok(allocated)
}

fn refused(call: &Call, object: &Value, cause: Cause) -> Status {
    Status::invalid(&call.gvk(), meta::name(object), vec![cause])
}

fn cluster_ip(call: &Call, object: &mut Value, before: &[String], allocated: &mut Allocated) -> Result<(), Status> {
    if wants_cluster_ip(object) && text(&object["spec"], "clusterIP").is_empty() {
        let ip = free_ip(call)?;
        allocated.undo.cluster_ip = true;
        set(&mut object["spec"], "clusterIP", ip.as_str());
        set(&mut object["spec"], "clusterIPs", json!([ip]));
    }
    let after = cluster_ips(object);
    for ip in after.iter().filter(|ip| !before.contains(ip)) {
        if !allocated.undo.cluster_ip
            && let Err(why) = may_take_ip(call, ip)?
        {
            let path = FieldPath::new("spec").child("clusterIPs");
            let why = format!("failed to allocate IP {ip}: {why}");
            return Err(refused(call, object, Cause::invalid(&path, object["spec"]["clusterIPs"].clone(), why)));
        }
        let key = ip_key(&call.server, ip);
        allocated.compare.push(Compare::absent(key.clone()));
        allocated.ops.push(Op::Put { key, value: encode(&ip_object(&call.server, ip, object)), ttl: None });
    }
    for ip in before.iter().filter(|ip| !after.contains(ip)) {
        give_back(call, ip, object, allocated)?;
    }
    Ok(())
}

fn may_take_ip(call: &Call, ip: &str) -> Result<Result<(), &'static str>, Status> {
    let ranges = service_ranges::ready(&call.server)?;
    if !ip.parse().is_ok_and(|ip| ranges.iter().any(|range| service_ranges::contains(range, ip))) {
        return Ok(Err("the provided network does not match the current range"));
    }
    Ok(if taken_ip(call, ip)? { Err("provided IP is already allocated") } else { Ok(()) })
}

/// The object that says which Service has an address.
pub(crate) fn ip_object(server: &Server, ip: &str, service: &Value) -> Value {
    json!({
        "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": ip, "uid": server.config.names.uid(), "creationTimestamp": rfc3339(server.config.clock.now()),
            "labels": { MANAGED_BY: MANAGER, FAMILY: family(ip) },
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

/// Gives a port of the nodes to every port that has none, and says which were free. Ports of a new Service that have one number, for TCP and UDP, share
/// one; a Service that is there gets one for each (core/service/storage `initNodePorts`, `updateNodePorts`).
fn choose_ports(call: &Call, object: &mut Value, is_new: bool, undo: &mut Undo) -> Result<HashSet<i64>, Status> {
    let mut all = HashSet::new();
    let mut used: HashSet<i64> = held(object).collect();
    let mut shared: HashMap<i64, i64> = HashMap::new();
    for port in items(&object["spec"], "ports").iter().filter(|port| is_new && number(port, "nodePort") != 0) {
        shared.entry(number(port, "port")).or_insert(number(port, "nodePort"));
    }
    for (nth, port) in items_mut(&mut object["spec"], "ports").enumerate() {
        if number(port, "nodePort") != 0 {
            continue;
        }
        let chosen = match shared.get(&number(port, "port")) {
            Some(shared) => *shared,
            None => {
                let chosen = free_port(call, &used)
                    .ok_or_else(|| Status::internal(format!("failed to allocate a nodePort: {FULL}")))?;
                used.insert(chosen);
                all.insert(chosen);
                chosen
            }
        };
        if is_new {
            shared.insert(number(port, "port"), chosen);
        }
        undo.node_ports.insert(nth);
        set(port, "nodePort", chosen);
    }
    Ok(all)
}

/// Takes the ports that the Service did not have: those that were chosen, and those that it asks for, if it may.
fn take_ports(
    call: &Call,
    object: &Value,
    had: &HashSet<i64>,
    chosen: &HashSet<i64>,
    allocated: &mut Allocated,
) -> Result<(), Status> {
    for (nth, port) in node_ports(object).into_iter().filter(|(_, port)| !had.contains(port)) {
        if !chosen.contains(&port)
            && let Err(why) = may_take_port(call, port)
        {
            let path = FieldPath::new("spec").child("ports").index(nth).child("nodePort");
            return Err(refused(call, object, Cause::invalid(&path, port, why)));
        }
        take_port(port, object, allocated);
    }
    Ok(())
}

/// The port where nodes say whether they have pods of the Service (core/service/storage `allocHealthCheckNodePort`).
fn health_check(call: &Call, object: &mut Value, had: Option<i64>, allocated: &mut Allocated) -> Result<(), Status> {
    if !has_health_check(&object["spec"]) {
        return Ok(());
    }
    let others: HashSet<i64> = node_ports(object).into_iter().map(|(_, port)| port).collect();
    match health_port(object) {
        Some(port) if had == Some(port) => {}
        Some(port) => {
            let taken = if others.contains(&port) { Err(TAKEN.to_owned()) } else { may_take_port(call, port) };
            taken.map_err(|why| {
                Status::internal(format!("failed to allocate requested HealthCheck NodePort {port}: {why}"))
            })?;
            take_port(port, object, allocated);
        }
        None => {
            let chosen = free_port(call, &others)
                .ok_or_else(|| Status::internal(format!("failed to allocate a HealthCheck NodePort 0: {FULL}")))?;
            set(&mut object["spec"], "healthCheckNodePort", chosen);
            allocated.undo.health_port = true;
            take_port(chosen, object, allocated);
        }
    }
    Ok(())
}

fn take_port(port: i64, owner: &Value, allocated: &mut Allocated) {
    let key = port_key(port);
    allocated.compare.push(Compare::absent(key.clone()));
    allocated.ops.push(Op::put(key, format!("{}/{}", meta::namespace(owner), meta::name(owner))));
}

fn may_take_port(call: &Call, port: i64) -> Result<(), String> {
    let range = &call.server.config.node_port_range;
    if !u16::try_from(port).is_ok_and(|port| range.contains(&port)) {
        let (first, last) = (range.start(), range.end());
        return Err(format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"));
    }
    if taken_port(call, port) { Err(TAKEN.to_owned()) } else { Ok(()) }
}

fn taken_port(call: &Call, port: i64) -> bool {
    call.server.cacher.node_port_taken(port)
}

fn free_port(call: &Call, used: &HashSet<i64>) -> Option<i64> {
    let range = &call.server.config.node_port_range;
    let free = |port: u16| {
        let port = i64::from(port);
        (!used.contains(&port) && !taken_port(call, port)).then_some(port)
    };
    let (first, last) = (*range.start(), *range.end());
    let own = first.saturating_add(static_band(range));
    let random = (0..RANDOM_PICKS).find_map(|_| free(fastrand::u16(own..=last)));
    random.or_else(|| (own..=last).chain(first..own).find_map(free))
}

/// How many ports at the beginning of the range are kept for Services that ask for one by number, until the rest is taken
/// (KEP-3668; core/service/portallocator `calculateRangeOffset`).
fn static_band(range: &RangeInclusive<u16>) -> u16 {
    let size = u32::from(range.end().saturating_sub(*range.start())) + 1;
    let band = if size <= 16 { 0 } else { (size / 32).clamp(16, 128) };
    u16::try_from(band).unwrap_or(0)
}
