//! The plugins, one a file. To add one: a file, and a row in the table.

mod default_binder;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_declared_features;
mod node_name;
mod node_ports;
mod node_resources_balanced;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
mod taint_toleration;

use std::sync::Arc;

use coracle_client::Client;

use crate::framework::Plugin;

/// What plugins may be made from.
pub struct Handle {
    /// None where nothing is bound (in tests of filters and scores).
    pub client: Option<Client>,
}

/// One plugin.
pub struct Row {
    pub name: &'static str,
    /// The weight of its score; 0 for those that do not score.
    pub weight: i64,
    pub make: fn(&Handle) -> Arc<dyn Plugin>,
}

/// The plugins in the order in which they are asked: cheap and decisive filters first. Weights are upstream's
/// (pkg/scheduler/apis/config/v1/default_plugins.go).
pub const TABLE: &[Row] = &[
    Row { name: "NodeUnschedulable", weight: 0, make: |_| Arc::new(node_unschedulable::NodeUnschedulable) },
    Row { name: "NodeName", weight: 0, make: |_| Arc::new(node_name::NodeName) },
    Row { name: "TaintToleration", weight: 3, make: |_| Arc::new(taint_toleration::TaintToleration) },
    Row { name: "NodeAffinity", weight: 2, make: |_| Arc::new(node_affinity::NodeAffinity) },
    Row { name: "NodeDeclaredFeatures", weight: 0, make: |_| Arc::new(node_declared_features::NodeDeclaredFeatures) },
    Row { name: "NodePorts", weight: 0, make: |_| Arc::new(node_ports::NodePorts) },
    Row { name: "NodeResourcesFit", weight: 1, make: |_| Arc::new(node_resources_fit::NodeResourcesFit) },
    Row { name: "PodTopologySpread", weight: 2, make: |_| Arc::new(pod_topology_spread::PodTopologySpread) },
    Row { name: "InterPodAffinity", weight: 2, make: |_| Arc::new(inter_pod_affinity::InterPodAffinity) },
    Row {
        name: "NodeResourcesBalancedAllocation",
        weight: 1,
        make: |_| Arc::new(node_resources_balanced::BalancedAllocation),
    },
    Row { name: "ImageLocality", weight: 1, make: |_| Arc::new(image_locality::ImageLocality) },
    Row { name: "DefaultBinder", weight: 0, make: |handle| Arc::new(default_binder::DefaultBinder::new(handle)) },
];
