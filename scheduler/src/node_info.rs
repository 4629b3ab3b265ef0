//! A node with what runs on it, summed up.

use std::{collections::HashMap, sync::Arc};

use coracle_api::resources::Amounts as _;
use k8s_openapi::api::core::v1::{Node, Taint};

use crate::{
    pod_info::{ControllerId, HostPort, PodInfo},
    resources::Resources,
    terms::TermId,
};

/// A node as the scheduler sees it. Cloned when it changes while a snapshot holds it, so kept small.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// None while pods are known that are bound to a node which is not.
    pub node: Option<Arc<Node>>,
    pub name: Arc<str>,
    pub allocatable: Resources,
    /// How many pods the node takes.
    pub allowed_pods: usize,
    pub requested: Resources,
    /// CPU and memory with the defaults for pods that ask for nothing.
    pub counted: (i64, i64),
    pub pods: Vec<Arc<PodInfo>>,
    ports: Vec<HostPort>,
    /// How many pods of each controller are here: what spreading by host needs.
    controllers: Vec<(ControllerId, u32)>,
    /// Whether any pod here refuses company; see the plugin InterPodAffinity.
    pub anti_affine: u32,
    /// How many pods here each counted term selects, by the term's id.
    terms: Vec<u32>,
    /// Sizes of images by all their names.
    pub images: Arc<HashMap<String, i64>>,
    /// The node's zone, by the cache's numbering.
    pub(crate) zone: Option<ZoneId>,
    /// What the node's spec says, at hand: reading it there would cost a cache miss on every node of every cycle.
    pub cordoned: bool,
    pub hard_taints: bool,
    pub soft_taints: bool,
}

/// A zone by its number in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ZoneId(pub(crate) usize);

impl NodeInfo {
    /// A node of which only the name is known.
    pub fn unknown(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Takes the node's own state over.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        self.allocatable = Resources::of_map(allocatable);
        let pods = allocatable
            .and_then(|list| list.get("pods"))
            .and_then(|pods| coracle_api::quantity::Quantity::parse(&pods.0).ok());
        self.allowed_pods = pods.and_then(|pods| usize::try_from(pods.units()).ok()).unwrap_or(0);
        let images = status.and_then(|status| status.images.as_ref());
        let names = images
            .into_iter()
            .flatten()
            .flat_map(|image| image.names.iter().flatten().map(|name| (name.clone(), image.size_bytes.unwrap_or(0))));
        let images: HashMap<String, i64> = names.collect();
        if *self.images != images {
            self.images = Arc::new(images);
        }
        let spec = node.spec.as_ref();
        self.cordoned = spec.and_then(|spec| spec.unschedulable) == Some(true);
        let soft = |taint: &Taint| taint.effect == "PreferNoSchedule";
        let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        self.soft_taints = taints.iter().any(soft);
        self.hard_taints = !taints.iter().all(soft);
        self.node = Some(node);
    }

    /// Adds a pod.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.counted.0 += pod.counted.0;
        self.counted.1 += pod.counted.1;
        self.ports.extend(pod.ports.iter().cloned());
        if let Some(controller) = pod.controller {
            match self.controllers.iter_mut().find(|(have, _)| *have == controller) {
                Some((_, count)) => *count += 1,
                None => self.controllers.push((controller, 1)),
            }
        }
        self.anti_affine += u32::from(pod.affinities.refuses_company());
        self.pods.push(pod);
    }

    /// Removes a pod by its uid.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| pod.uid.as_ref() == uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.counted.0 -= pod.counted.0;
        self.counted.1 -= pod.counted.1;
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|have| have == port) {
                self.ports.swap_remove(at);
            }
        }
        if let Some(at) = self.controllers.iter().position(|(have, _)| Some(*have) == pod.controller) {
            self.controllers[at].1 -= 1;
            if self.controllers[at].1 == 0 {
                self.controllers.swap_remove(at);
            }
        }
        self.anti_affine -= u32::from(pod.affinities.refuses_company());
        Some(pod)
    }

    /// How many pods of a controller are here.
    pub fn of_controller(&self, controller: ControllerId) -> u32 {
        self.controllers.iter().find(|(have, _)| *have == controller).map_or(0, |(_, count)| *count)
    }

    /// The controllers with pods here, and how many.
    pub(crate) fn controllers(&self) -> &[(ControllerId, u32)] {
        &self.controllers
    }

    /// Whether any of these ports is taken.
    pub fn conflicts(&self, ports: &[HostPort]) -> bool {
        ports.iter().any(|port| self.ports.iter().any(|have| have.conflicts(port)))
    }

    /// The node's taints.
    pub fn taints(&self) -> &[Taint] {
        self.node
            .as_ref()
            .and_then(|node| node.spec.as_ref())
            .and_then(|spec| spec.taints.as_deref())
            .unwrap_or_default()
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.node.as_ref()?.metadata.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// How many pods here a counted term selects.
    pub fn count(&self, term: TermId) -> u32 {
        self.terms.get(term.index()).copied().unwrap_or(0)
    }

    pub(crate) fn count_mut(&mut self, term: TermId) -> &mut u32 {
        if self.terms.len() <= term.index() {
            self.terms.resize(term.index() + 1, 0);
        }
        &mut self.terms[term.index()]
    }
}
