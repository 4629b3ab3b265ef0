//! EndpointSlices and Endpoints: where the pods of each Service are (upstream's pkg/controller/endpointslice and endpoint).

mod endpoints;
mod ports;
mod slices;

use std::sync::Arc;

use coracle_api::selector::LabelSelector;
use coracle_client::{Context, Informer, Informers, Key, Plan, Reconciler, Snapshot, Wires, outline::Pod};
use k8s_openapi::api::{
    core::v1::{Endpoints, Node, Service},
    discovery::v1::EndpointSlice,
};

use crate::{ownership, pods};

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// The index of our slices by `namespace/service`.
pub const BY_SERVICE: &str = "service";

/// Values of the index [`BY_SERVICE`].
pub fn by_service(slice: &EndpointSlice, emit: &mut dyn FnMut(&str)) {
    if let Some(service) = service_of(slice) {
        emit(service.as_str());
    }
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.get(MANAGED_BY).map(String::as_str) != Some(CONTROLLER) {
        return None;
    }
    Some(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), labels.get(SERVICE_NAME)?))
}

/// Lists the pods of Services.
pub struct EndpointSlices {
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    slices: Arc<Informer<EndpointSlice>>,
    endpoints: Arc<Informer<Endpoints>>,
}

/// What a plan reads.
pub struct State {
    pub services: Arc<Snapshot<Service>>,
    pub pods: Arc<Snapshot<Pod>>,
    pub nodes: Arc<Snapshot<Node>>,
    /// With the index by service.
    pub slices: Arc<Snapshot<EndpointSlice>>,
    pub endpoints: Arc<Snapshot<Endpoints>>,
}

impl EndpointSlices {
    /// The controller over the process's informers.
    pub fn new(informers: &Informers) -> Self {
        let slices = informers.get::<EndpointSlice>();
        slices.add_index(BY_SERVICE, by_service);
        Self {
            services: informers.get(),
            pods: informers.get(),
            nodes: informers.get(),
            slices,
            endpoints: informers.get(),
        }
    }
}

impl Reconciler for EndpointSlices {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        wires.on(&self.services, |event, emit| emit(Key::of(&event.object().metadata)));
        wires.on(&self.slices, |event, emit| {
            if let Some(service) = service_of(event.object()) {
                emit(service);
            }
        });
        wires.on(&self.endpoints, |event, emit| emit(Key::of(&event.object().metadata)));
        wires.reads(&self.nodes);
        let services = self.services.clone();
        wires.on(&self.pods, move |event, emit| {
            let pod = event.object();
            if event.old().is_some_and(|old| !matters(old, pod)) {
                return;
            }
            let services = services.snapshot();
            for service in services.namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
                let selected =
                    |pod: &Pod| selector(service).is_some_and(|selector| ownership::selects(&selector, &pod.metadata));
                if selected(pod) || event.old().is_some_and(|old| selected(old)) {
                    emit(Key::of(&service.metadata));
                }
            }
        });
    }

    fn snapshot(&self) -> State {
        State {
            services: self.services.snapshot(),
            pods: self.pods.snapshot(),
            nodes: self.nodes.snapshot(),
            slices: self.slices.snapshot(),
            endpoints: self.endpoints.snapshot(),
        }
    }

    fn plan(&self, state: &State, key: &Key, _: &Context<'_>) -> Plan {
        plan(state, key)
    }
}

/// Whether a change of a pod can change an endpoint.
fn matters(old: &Pod, new: &Pod) -> bool {
    let seen = |pod: &Pod| {
        let status = pod.status.as_ref();
        (
            pods::is_ready(pod),
            pods::is_terminal(pod),
            pods::node(pod).map(str::to_owned),
            status.and_then(|status| status.pod_ips.clone()),
            status.and_then(|status| status.pod_ip.clone()),
            pod.metadata.labels.clone(),
            pod.metadata.deletion_timestamp.is_some(),
        )
    };
    seen(old) != seen(new)
}

/// The selector of a service; without one its endpoints are somebody else's.
fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|labels| !labels.is_empty()).map(LabelSelector::from_map)
}

/// What has to be done for one service.
pub fn plan(state: &State, key: &Key) -> Plan {
    let Some(service) = state.services.get(key) else {
        // Slices go with their owner; Endpoints have none.
        return endpoints::remove(state, key);
    };
    if service.metadata.deletion_timestamp.is_some() {
        return Plan::nothing();
    }
    let Some(selector) = selector(service) else { return Plan::nothing() };
    let selected = |pod: &&Arc<Pod>| ownership::selects(&selector, &pod.metadata) && !pods::is_terminal(pod);
    let pods: Vec<&Arc<Pod>> = state.pods.namespace(key.namespace()).filter(selected).collect();
    let mut plan = slices::plan(state, service, &pods);
    plan.actions.extend(endpoints::plan(state, service, &pods));
    plan
}

#[cfg(test)]
mod tests;
