//! What is known of nodes and pods, with the pods that were placed and are not confirmed yet.
//!
//! ```text
//! assume ──► bind sent ──► pod seen on its node: confirmed
//!    └─────► bind failed: forgotten
//! ```

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use indexmap::{IndexMap, IndexSet};
use k8s_openapi::api::core::v1::Node;

use crate::{
    node_info::{NodeInfo, ZoneId},
    nominated::Nominated,
    pod_info::{ControllerId, PodInfo},
    snapshot::Snapshot,
    terms::{Term, Terms},
};

/// The label of a node's zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// The scheduler's memory. All changes are small and go to one node.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: IndexMap<Arc<str>, Arc<NodeInfo>>,
    pods: HashMap<Arc<str>, Placed>,
    terms: Arc<Terms>,
    images: Arc<HashMap<String, usize>>,
    /// The names of zones; their positions are their numbers. None is ever forgotten: there are few.
    zones: IndexSet<String>,
    /// How many pods of each controller are in each zone.
    in_zones: imbl::HashMap<ControllerId, Arc<Vec<i64>>>,
    /// Pods that room was made for.
    nominated: Arc<Nominated>,
    /// Positions of nodes that changed since the last snapshot.
    changed: HashSet<usize>,
    /// Nodes came or went, so that positions mean others.
    reordered: bool,
}

#[derive(Debug)]
struct Placed {
    node: Arc<str>,
    assumed: bool,
    pod: Arc<PodInfo>,
}

/// Whether two states of a pod count the same on a node.
fn counts_the_same(a: &PodInfo, b: &PodInfo) -> bool {
    let (a_meta, b_meta) = (&a.pod.metadata, &b.pod.metadata);
    a.requests == b.requests
        && a_meta.labels == b_meta.labels
        && a_meta.deletion_timestamp.is_some() == b_meta.deletion_timestamp.is_some()
}

impl Cache {
    /// Takes a node's state over.
    pub fn set_node(&mut self, node: &Arc<Node>) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let at = self.position(name);
        let Some((_, info)) = self.nodes.get_index_mut(at) else { return };
        let before = info.images.clone();
        let was_known = info.node.is_some();
        let info = Arc::make_mut(info);
        info.set_node(node.clone());
        let zone = info.label(ZONE).map(|name| ZoneId(self.zones.insert_full(name.to_owned()).0));
        move_zone(&mut self.in_zones, info, zone);
        let after = info.images.clone();
        if !Arc::ptr_eq(&before, &after) {
            self.count_images(&before, &after);
        }
        self.reordered |= !was_known;
        self.changed.insert(at);
    }

    /// The node is gone. While pods on it are known, it is kept without its state.
    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.nodes.get_index_of(name) else { return };
        let Some((_, info)) = self.nodes.get_index_mut(at) else { return };
        let images = info.images.clone();
        let info = Arc::make_mut(info);
        move_zone(&mut self.in_zones, info, None);
        info.node = None;
        info.images = Arc::default();
        let empty = info.pods.is_empty();
        self.count_images(&images, &HashMap::new());
        if empty {
            self.nodes.swap_remove_index(at);
        }
        self.reordered = true;
    }

    /// A pod that is known to be on a node: new, changed, or the confirmation of one that was assumed.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        if let Some(placed) = self.pods.get_mut(&pod.uid)
            && &*placed.node == node
            && counts_the_same(&placed.pod, &pod)
        {
            // The usual confirmation: nothing on the node changes by it.
            placed.assumed = false;
            return;
        }
        self.remove_pod(&pod.uid);
        self.place(pod, node, false);
    }

    /// The pod was given a node which the API server does not know yet.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.place(pod, node, true);
    }

    /// Room was made for the pod on this node.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        Arc::make_mut(&mut self.nominated).set(pod, node);
    }

    /// No room is kept for the pod any more.
    pub fn unnominate(&mut self, uid: &str) {
        if self.nominated.node_of(uid).is_some() {
            Arc::make_mut(&mut self.nominated).remove(uid);
        }
    }

    /// The pod that was assumed could not be bound.
    pub fn forget(&mut self, uid: &str) {
        if self.pods.get(uid).is_some_and(|placed| placed.assumed) {
            self.remove_pod(uid);
        }
    }

    /// Whether the pod has a node, assumed or not.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The pod runs nowhere any more. Returns it, where it was known.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let placed = self.pods.remove(uid)?;
        let at = self.nodes.get_index_of(&placed.node)?;
        let (_, info) = self.nodes.get_index_mut(at)?;
        let info = Arc::make_mut(info);
        let pod = info.remove(uid)?;
        for term in self.terms.of(&pod) {
            let count = info.count_mut(term);
            *count = count.saturating_sub(1);
        }
        shift(&mut self.in_zones, pod.controller, info.zone, -1);
        if info.node.is_none() && info.pods.is_empty() {
            self.nodes.swap_remove_index(at);
            self.reordered = true;
        } else {
            self.changed.insert(at);
        }
        Some(pod)
    }

    /// Begins to count the terms of a pod's rules that are not counted yet: the only time that pods are gone through.
    pub fn count_terms(&mut self, pod: &PodInfo) {
        let spread = pod.spread.iter().map(|constraint| &constraint.term);
        let all: Vec<&Term> = spread.chain(pod.affinities.terms().map(|affinity| &affinity.term)).collect();
        if all.iter().all(|term| self.terms.find(term).is_some()) {
            return;
        }
        for term in &all {
            if self.terms.find(term).is_none() && !self.count_term(term) {
                // Full: begin anew with the terms of this pod.
                Arc::make_mut(&mut self.terms).clear();
                self.reordered = true;
                for term in &all {
                    if self.terms.find(term).is_none() {
                        self.count_term(term);
                    }
                }
                return;
            }
        }
    }

    fn count_term(&mut self, term: &Term) -> bool {
        let Some(id) = Arc::make_mut(&mut self.terms).add(term.clone()) else { return false };
        for (at, info) in self.nodes.values_mut().enumerate() {
            let selected = info.pods.iter().filter(|pod| term.selects(pod)).count();
            let selected = u32::try_from(selected).unwrap_or(u32::MAX);
            if info.count(id) != selected {
                *Arc::make_mut(info).count_mut(id) = selected;
                self.changed.insert(at);
            }
        }
        true
    }

    /// Brings a snapshot up to date, touching only what changed.
    pub fn update(&mut self, snapshot: &mut Snapshot) {
        snapshot.terms = self.terms.clone();
        snapshot.images = self.images.clone();
        snapshot.nominated = self.nominated.clone();
        snapshot.zones = self.zones.len();
        snapshot.in_zones = self.in_zones.clone();
        if self.reordered || snapshot.nodes.len() != self.nodes.len() {
            snapshot.nodes = self.nodes.values().cloned().collect();
            snapshot.index = Arc::new(self.nodes.keys().cloned().zip(0..).collect());
            snapshot.real = self.nodes.values().filter(|info| info.node.is_some()).count();
            self.survey(snapshot);
        } else if !self.changed.is_empty() {
            let mut survey = false;
            for at in self.changed.drain() {
                let Some((_, info)) = self.nodes.get_index(at) else { continue };
                let old = std::mem::replace(&mut snapshot.nodes[at], info.clone());
                survey |= (old.anti_affine > 0) != (info.anti_affine > 0);
            }
            if survey {
                self.survey(snapshot);
            }
        }
        self.changed.clear();
        self.reordered = false;
    }

    fn survey(&self, snapshot: &mut Snapshot) {
        let nodes = snapshot.nodes.iter().enumerate();
        snapshot.anti_affine = nodes.filter(|(_, info)| info.anti_affine > 0).map(|(at, _)| at).collect();
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        let at = self.position(node);
        let Some((name, info)) = self.nodes.get_index_mut(at) else { return };
        if self.nominated.node_of(&pod.uid).is_some() {
            Arc::make_mut(&mut self.nominated).remove(&pod.uid);
        }
        self.pods.insert(pod.uid.clone(), Placed { node: name.clone(), assumed, pod: pod.clone() });
        let info = Arc::make_mut(info);
        for term in self.terms.of(&pod) {
            *info.count_mut(term) += 1;
        }
        shift(&mut self.in_zones, pod.controller, info.zone, 1);
        info.add(pod);
        self.changed.insert(at);
    }

    /// Where the node is, made without state where it is not known.
    fn position(&mut self, name: &str) -> usize {
        match self.nodes.get_index_of(name) {
            Some(at) => at,
            None => {
                self.reordered = true;
                self.nodes.insert_full(name.into(), Arc::new(NodeInfo::unknown(name))).0
            }
        }
    }

    fn count_images(&mut self, before: &HashMap<String, i64>, after: &HashMap<String, i64>) {
        let images = Arc::make_mut(&mut self.images);
        for name in before.keys() {
            if let Some(count) = images.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    images.remove(name);
                }
            }
        }
        for name in after.keys() {
            *images.entry(name.clone()).or_default() += 1;
        }
    }
}

/// Counts a pod of a controller in a zone, or no longer.
fn shift(
    in_zones: &mut imbl::HashMap<ControllerId, Arc<Vec<i64>>>,
    controller: Option<ControllerId>,
    zone: Option<ZoneId>,
    by: i64,
) {
    let (Some(controller), Some(ZoneId(zone))) = (controller, zone) else { return };
    let counts = Arc::make_mut(in_zones.entry(controller).or_default());
    if counts.len() <= zone {
        counts.resize(zone + 1, 0);
    }
    counts[zone] += by;
    if counts.iter().all(|count| *count == 0) {
        in_zones.remove(&controller);
    }
}

/// Moves a node with its pods into another zone.
fn move_zone(in_zones: &mut imbl::HashMap<ControllerId, Arc<Vec<i64>>>, info: &mut NodeInfo, to: Option<ZoneId>) {
    if info.zone == to {
        return;
    }
    for (controller, count) in info.controllers() {
        shift(in_zones, Some(*controller), info.zone, -i64::from(*count));
        shift(in_zones, Some(*controller), to, i64::from(*count));
    }
    info.zone = to;
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn node(name: &str) -> Arc<Node> {
        let status = json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "images": [{"names": ["i:1"], "sizeBytes": 5}]});
        Arc::new(coracle_api::json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap())
    }

    fn pod(name: &str, cpu: &str) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
                "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"app": name}}}]}});
        Arc::new(PodInfo::new(Arc::new(coracle_api::json::from_value(pod).unwrap())))
    }

    fn requested(snapshot: &Snapshot, node: &str) -> i64 {
        snapshot.node(node).map_or(-1, |info| info.requested.milli_cpu)
    }

    #[test]
    fn assumed_pods_count_until_confirmed_or_forgotten() {
        let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
        cache.set_node(&node("a"));
        cache.set_node(&node("b"));
        cache.assume(pod("p", "1"), "a");
        cache.assume(pod("q", "2"), "a");
        cache.update(&mut snapshot);
        assert_eq!(requested(&snapshot, "a"), 3000);
        cache.set_pod(pod("p", "1"), "a");
        cache.forget("q");
        cache.forget("p");
        cache.update(&mut snapshot);
        assert_eq!(requested(&snapshot, "a"), 1000, "p is confirmed and cannot be forgotten");
        cache.set_pod(pod("p", "1"), "b");
        cache.update(&mut snapshot);
        assert_eq!((requested(&snapshot, "a"), requested(&snapshot, "b")), (0, 1000));
    }

    #[test]
    fn a_node_that_left_is_no_candidate_and_its_pods_are_kept() {
        let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
        cache.set_pod(pod("early", "1"), "a");
        cache.update(&mut snapshot);
        assert_eq!((requested(&snapshot, "a"), snapshot.real_nodes()), (-1, 0), "pods are seen before their node");
        cache.set_node(&node("a"));
        cache.set_node(&node("b"));
        cache.update(&mut snapshot);
        assert_eq!((requested(&snapshot, "a"), snapshot.nodes_with_image("i:1")), (1000, 2));
        cache.remove_node("a");
        cache.update(&mut snapshot);
        assert_eq!((requested(&snapshot, "a"), snapshot.real_nodes(), snapshot.nodes_with_image("i:1")), (-1, 1, 1));
        cache.remove_pod("early");
        cache.update(&mut snapshot);
        assert_eq!(snapshot.nodes.len(), 1);
    }

    #[test]
    fn terms_are_counted_from_their_first_use() {
        let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
        cache.set_node(&node("a"));
        cache.set_pod(pod("p", "1"), "a");
        let asking = pod("p", "1");
        cache.count_terms(&asking);
        cache.update(&mut snapshot);
        let term = snapshot.term(&asking.spread[0].term).unwrap();
        let count = |snapshot: &Snapshot| snapshot.node("a").unwrap().count(term);
        assert_eq!(count(&snapshot), 1);
        cache.remove_pod("p");
        cache.update(&mut snapshot);
        assert_eq!(count(&snapshot), 0);
        cache.assume(asking, "a");
        cache.update(&mut snapshot);
        assert_eq!(count(&snapshot), 1);
    }
}
