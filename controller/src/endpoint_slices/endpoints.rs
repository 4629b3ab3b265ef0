//! Endpoints, the older form, for clients that know no slices.

use std::{collections::BTreeMap, sync::Arc};

use coracle_client::{Action, Key, Plan, Step, outline::Pod};
use k8s_openapi::{
    api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{State, ports, slices};
use crate::pods;

/// What the one set of Endpoints holds at most (upstream's `maxCapacity`).
const LARGEST: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";

/// The write that brings a service's Endpoints up to date, if any is needed.
pub(super) fn plan(state: &State, service: &Service, pods: &[&Arc<Pod>]) -> Option<Step> {
    let (subsets, cut) = subsets(service, pods);
    let key = Key::of(&service.metadata);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let Some(current) = state.endpoints.get(&key) else {
        let metadata = ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: cut.then(|| BTreeMap::from([(OVER_CAPACITY.to_owned(), "truncated".to_owned())])),
            ..ObjectMeta::default()
        };
        return Some(Step::One(Action::create(&Endpoints { metadata, subsets })));
    };
    let mut changed = current.as_ref().clone();
    changed.subsets = subsets;
    changed.metadata.labels = Some(labels);
    let annotations = changed.metadata.annotations.get_or_insert_default();
    if cut {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    changed.metadata.annotations = changed.metadata.annotations.filter(|annotations| !annotations.is_empty());
    let same_subsets = current.subsets.as_deref().unwrap_or_default() == changed.subsets.as_deref().unwrap_or_default();
    let same = same_subsets
        && current.metadata.labels == changed.metadata.labels
        && current.metadata.annotations.clone().filter(|annotations| !annotations.is_empty())
            == changed.metadata.annotations;
    (!same).then(|| Step::One(Action::update(&changed)))
}

/// The service is gone, and with it what was made for it.
pub(super) fn remove(state: &State, key: &Key) -> Plan {
    let ours = |endpoints: &&Arc<Endpoints>| {
        endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).map(String::as_str)
            == Some(CONTROLLER)
    };
    match state.endpoints.get(key).filter(ours) {
        Some(endpoints) => Plan::one(Action::delete(endpoints.as_ref())),
        None => Plan::nothing(),
    }
}

fn subsets(service: &Service, pods: &[&Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.as_ref();
    let publish_all = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let families = spec.and_then(|spec| spec.ip_families.as_ref()).and_then(|families| families.first());
    let family = families.map_or("IPv4", String::as_str);
    let mut groups: BTreeMap<Vec<ports::Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let mut count = 0;
    for pod in pods.iter().filter(|pod| publish_all || pod.metadata.deletion_timestamp.is_none()) {
        let Some(ip) = slices::address(pod, family) else { continue };
        count += 1;
        if count > LARGEST {
            continue;
        }
        let address = EndpointAddress {
            ip,
            hostname: slices::hostname(service, pod),
            node_name: pods::node(pod).map(str::to_owned),
            target_ref: Some(slices::target(pod)),
        };
        let group = groups.entry(ports::of(service, pod)).or_default();
        if publish_all || pods::is_ready(pod) { group.0.push(address) } else { group.1.push(address) }
    }
    let subset =
        |(ports, (mut ready, mut not_ready)): (Vec<ports::Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>))| {
            ready.sort_by(|a, b| a.ip.cmp(&b.ip));
            not_ready.sort_by(|a, b| a.ip.cmp(&b.ip));
            let port = |port: ports::Port| EndpointPort {
                name: Some(port.name).filter(|name| !name.is_empty()),
                port: port.number,
                protocol: Some(port.protocol),
                app_protocol: port.app_protocol,
            };
            let some = |list: Vec<EndpointAddress>| Some(list).filter(|list| !list.is_empty());
            let ports: Vec<EndpointPort> = ports.into_iter().map(port).collect();
            EndpointSubset {
                addresses: some(ready),
                not_ready_addresses: some(not_ready),
                ports: Some(ports).filter(|ports| !ports.is_empty()),
            }
        };
    (groups.into_iter().map(subset).collect(), count > LARGEST)
}
