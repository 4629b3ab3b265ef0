//! The nodes at the start of a cycle.

use std::{collections::HashMap, sync::Arc};

use crate::{
    node_info::NodeInfo,
    nominated::Nominated,
    pod_info::ControllerId,
    terms::{Term, TermId, Terms},
};

/// Nodes that do not change while a pod is placed. Kept from cycle to cycle, and only what changed is taken over.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub nodes: Vec<Arc<NodeInfo>>,
    pub(crate) index: Arc<HashMap<Arc<str>, usize>>,
    pub(crate) terms: Arc<Terms>,
    /// How many nodes have an image, by its name.
    pub(crate) images: Arc<HashMap<String, usize>>,
    /// The nodes with pods that refuse company.
    pub(crate) anti_affine: Vec<usize>,
    /// How many zones there are, and have been.
    pub(crate) zones: usize,
    /// How many pods of each controller are in each zone, by the zone's number.
    pub(crate) in_zones: imbl::HashMap<ControllerId, Arc<Vec<i64>>>,
    /// Pods that room was made for.
    pub(crate) nominated: Arc<Nominated>,
    /// Nodes that exist, in contrast to those of which only pods are known.
    pub(crate) real: usize,
}

impl Snapshot {
    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.position(name).map(|at| &self.nodes[at])
    }

    /// Where the node of this name is in `nodes`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied().filter(|at| self.nodes[*at].node.is_some())
    }

    /// The id under which nodes count a term, where it is counted.
    pub fn term(&self, term: &Term) -> Option<TermId> {
        self.terms.find(term)
    }

    /// The same with another state of one node: for trying what would be.
    pub(crate) fn with(&self, at: usize, node: Arc<NodeInfo>) -> Self {
        let mut altered = self.clone();
        altered.nodes[at] = node;
        altered.anti_affine.retain(|have| *have != at || altered.nodes[at].anti_affine > 0);
        altered
    }

    /// How many nodes have an image.
    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or(0)
    }

    /// Nodes that exist.
    pub fn real_nodes(&self) -> usize {
        self.real
    }
}
