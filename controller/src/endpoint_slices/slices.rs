//! The slices of one service: which are wanted, and the fewest writes that get there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use coracle_client::{Action, Plan, outline::Pod, recorder::reference};
use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{BY_SERVICE, CONTROLLER, MANAGED_BY, SERVICE_NAME, State, ports};
use crate::{ownership, pods};
use coracle_client::Key;

/// Most endpoints in a slice (upstream's `max-endpoints-per-slice`).
const LARGEST: usize = 100;
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The slices of one address family and one set of ports.
type Group = (String, Vec<ports::Port>);

pub(super) fn plan(state: &State, service: &Service, pods: &[&Arc<Pod>]) -> Plan {
    let mut wanted = wanted(state, service, pods);
    let key = Key::of(&service.metadata);
    let mut plan = Plan::default();
    let mut room: BTreeMap<Group, Vec<EndpointSlice>> = BTreeMap::new();
    for slice in state.slices.by_index(BY_SERVICE, key.as_str()) {
        let group = group_of(slice);
        match wanted.get_mut(&group) {
            Some(missing) => {
                let kept = keep(slice, missing);
                room.entry(group).or_default().push(kept);
            }
            None => plan.push(Action::delete(slice.as_ref())),
        }
    }
    for (group, mut missing) in wanted {
        let slices = room.remove(&group).unwrap_or_default();
        fill(&mut plan, state, service, &group, slices, &mut missing);
    }
    plan
}

/// The endpoints by group and pod. A service without pods has one empty slice for each of its families.
fn wanted(state: &State, service: &Service, pods: &[&Arc<Pod>]) -> BTreeMap<Group, BTreeMap<String, Endpoint>> {
    let mut wanted: BTreeMap<Group, BTreeMap<String, Endpoint>> = BTreeMap::new();
    let families = families(service);
    for pod in pods {
        let ports = ports::of(service, pod);
        for family in &families {
            if let Some(address) = address(pod, family) {
                let endpoint = endpoint(state, service, pod, address);
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                wanted.entry((family.clone(), ports.clone())).or_default().insert(uid, endpoint);
            }
        }
    }
    for family in families {
        if !wanted.keys().any(|(have, _)| *have == family) {
            wanted.insert((family, Vec::new()), BTreeMap::new());
        }
    }
    wanted
}

fn families(service: &Service) -> BTreeSet<String> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if families.is_empty() { BTreeSet::from(["IPv4".to_owned()]) } else { families.into_iter().collect() }
}

/// The pod's address of a family.
pub(super) fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|address| &address.ip).chain(&status.pod_ip);
    let matches = |address: &&String| match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => family == "IPv4",
        Ok(IpAddr::V6(_)) => family == "IPv6",
        Err(_) => false,
    };
    all.into_iter().find(matches).cloned()
}

pub(super) fn target(pod: &Pod) -> ObjectReference {
    let full = reference(pod);
    ObjectReference {
        kind: full.kind,
        name: full.name,
        namespace: full.namespace,
        uid: full.uid,
        ..ObjectReference::default()
    }
}

/// The pod's own host name, where it has one under this service.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let here = spec.subdomain.is_some() && spec.subdomain.as_deref() == service.metadata.name.as_deref();
    spec.hostname.as_deref().filter(|hostname| here && !hostname.is_empty()).map(str::to_owned)
}

fn endpoint(state: &State, service: &Service, pod: &Pod, address: String) -> Endpoint {
    let publish_all = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let node = pods::node(pod).map(str::to_owned);
    let zone = node.as_ref().and_then(|node| state.nodes.find("", node)).and_then(|node| {
        node.metadata.labels.as_ref().and_then(|labels| labels.get("topology.kubernetes.io/zone")).cloned()
    });
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish_all || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: node,
        target_ref: Some(target(pod)),
        zone,
        ..Endpoint::default()
    }
}

fn group_of(slice: &EndpointSlice) -> Group {
    let ports = slice.ports.iter().flatten().map(|port| ports::Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        number: port.port.unwrap_or(0),
        app_protocol: port.app_protocol.clone(),
    });
    let mut ports: Vec<ports::Port> = ports.collect();
    ports.sort();
    (slice.address_type.clone(), ports)
}

/// The slice with the endpoints that are still wanted, brought up to date; they are missing no more.
fn keep(slice: &EndpointSlice, missing: &mut BTreeMap<String, Endpoint>) -> EndpointSlice {
    let mut kept = slice.clone();
    let endpoints = slice.endpoints.iter().flatten().filter_map(|endpoint| {
        let uid = endpoint.target_ref.as_ref()?.uid.as_ref()?;
        missing.remove(uid)
    });
    kept.endpoints = Some(endpoints.collect());
    kept
}

/// Puts what is missing into slices that have room, then into new ones; empty slices go, but for the last.
fn fill(
    plan: &mut Plan,
    state: &State,
    service: &Service,
    group: &Group,
    slices: Vec<EndpointSlice>,
    missing: &mut BTreeMap<String, Endpoint>,
) {
    let mut filled = Vec::new();
    // The fullest first: the fewest slices are written.
    let mut slices = slices;
    slices.sort_by_key(|slice| std::cmp::Reverse(slice.endpoints.as_ref().map_or(0, Vec::len)));
    for mut slice in slices {
        let endpoints = slice.endpoints.get_or_insert_default();
        while endpoints.len() < LARGEST
            && let Some((_, endpoint)) = missing.pop_first()
        {
            endpoints.push(endpoint);
        }
        filled.push(slice);
    }
    let fresh = filled.is_empty() && missing.is_empty();
    while !missing.is_empty() {
        let endpoints =
            std::iter::from_fn(|| missing.pop_first().map(|(_, endpoint)| endpoint)).take(LARGEST).collect();
        plan.push(Action::create(&new(service, group, endpoints)));
    }
    if fresh {
        plan.push(Action::create(&new(service, group, Vec::new())));
    }
    let mut kept_one =
        filled.iter().any(|slice| slice.endpoints.as_ref().is_some_and(|endpoints| !endpoints.is_empty()));
    for mut slice in filled {
        let original = state.slices.get(&Key::of(&slice.metadata));
        if slice.endpoints.as_ref().is_some_and(Vec::is_empty) && std::mem::replace(&mut kept_one, true) {
            plan.push(Action::delete(&slice));
            continue;
        }
        slice.metadata.labels = Some(labels(service));
        if slice.endpoints.as_ref().is_some_and(Vec::is_empty)
            && original.is_some_and(|original| original.endpoints.is_none())
        {
            slice.endpoints = None;
        }
        if original.is_none_or(|original| **original != slice) {
            plan.push(Action::update(&slice));
        }
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

fn new(service: &Service, (family, ports): &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let port = |port: &ports::Port| EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.number),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    };
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![ownership::controlled_by(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.clone(),
        ports: Some(ports.iter().map(port).collect()),
        endpoints: Some(endpoints),
    }
}
