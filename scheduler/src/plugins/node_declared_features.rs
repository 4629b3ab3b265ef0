//! A pod goes to a node that says it can do what the pod needs.

use coracle_api::node_features;
use k8s_openapi::api::core::v1::Node;

use crate::{
    framework::{Filter, Filtering, Happened, Plugin, PreFilter, Unfit},
    node_info::NodeInfo,
    pod_info::PodInfo,
    snapshot::Snapshot,
};

pub struct NodeDeclaredFeatures;

fn needed(pod: &PodInfo) -> Vec<&'static str> {
    let Some(spec) = &pod.pod.spec else { return Vec::new() };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let rules = containers.flat_map(|one| one.restart_policy_rules.iter().flatten());
    node_features::needed_by(rules, spec.host_network, spec.host_users).collect()
}

fn declared(node: &Node) -> &[String] {
    node.status.as_ref().and_then(|status| status.declared_features.as_deref()).unwrap_or_default()
}

fn has_all(node: &Node, needed: &[&str]) -> bool {
    needed.iter().all(|name| declared(node).iter().any(|have| have == name))
}

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatures"
    }

    fn may_help(&self, pod: &PodInfo, happened: &Happened) -> bool {
        happened.node().is_some_and(|node| has_all(node, &needed(pod)))
    }

    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }
}

impl PreFilter for NodeDeclaredFeatures {
    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Result<Filtering<'a>, Unfit> {
        let needed = needed(pod);
        Ok(if needed.is_empty() { Filtering::Skip } else { Filtering::Each(Box::new(Declaring(needed))) })
    }
}

struct Declaring(Vec<&'static str>);

impl Filter for Declaring {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        match &node.node {
            Some(node) if has_all(node, &self.0) => Ok(()),
            _ => Err(Unfit::unresolvable("node(s) didn't match Pod's required features")),
        }
    }
}
