//! A pod with everything that scheduling asks of it worked out once.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use coracle_client::{Key, outline::Pod};
use k8s_openapi::api::core::v1::Toleration;

use crate::{
    affinity::PodAffinities,
    resources::{self, Resources},
    selectors::NodeRequirements,
    spread::Constraint,
};

/// A port on the node's own address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Empty for all addresses.
    pub address: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address.is_empty() || other.address.is_empty() || self.address == other.address)
    }
}

/// A controller of pods, by the hash of its uid: compared on every node that is scored, so small and without a pointer.
/// Two with one hash would be spread as one, and nothing worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ControllerId(u64);

impl ControllerId {
    /// The id of the controller with this uid, the same in every run.
    pub fn of(uid: &str) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        uid.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// A pod as the scheduler sees it.
#[derive(Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub key: Key,
    pub uid: Arc<str>,
    pub priority: i32,
    pub requests: Resources,
    /// CPU and memory as counted when nodes are scored.
    pub counted: (i64, i64),
    pub ports: Vec<HostPort>,
    pub requirements: NodeRequirements,
    pub spread: Vec<Constraint>,
    pub affinities: PodAffinities,
    /// The controller, by which pods are spread when they do not say how.
    pub controller: Option<ControllerId>,
}

impl PodInfo {
    /// Works everything out.
    pub fn new(pod: Arc<Pod>) -> Self {
        let (requests, cpu, memory) = resources::of_pod(&pod);
        let owners = pod.metadata.owner_references.iter().flatten();
        let controller =
            owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| ControllerId::of(&owner.uid));
        Self {
            key: Key::of(&pod.metadata),
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            priority: pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0),
            requests,
            counted: (cpu, memory),
            ports: ports(&pod),
            requirements: NodeRequirements::of(&pod),
            spread: Constraint::of(&pod),
            affinities: PodAffinities::of(&pod),
            controller,
            pod,
        }
    }

    /// The pod's namespace.
    pub fn namespace(&self) -> &str {
        self.key.namespace()
    }

    /// The pod's tolerations.
    pub fn tolerations(&self) -> &[Toleration] {
        self.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
    }
}

fn ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars =
        spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let all = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    all.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let address =
            port.host_ip.clone().filter(|address| address != "0.0.0.0" && address != "::").unwrap_or_default();
        Some(HostPort { address, protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port: number })
    })
    .collect()
}
