//! Gives each node a range of the cluster's pod addresses (upstream's pkg/controller/nodeipam, RangeAllocator).
//!
//! What is taken stands in the nodes themselves, so nothing is given twice after a restart; all nodes are one key, so
//! that a node's range is seen before the next one's is chosen.

use std::{collections::HashSet, net::Ipv4Addr, sync::Arc};

use coracle_api::json::json;
use coracle_client::{
    Action, Context, EventType, Informer, Informers, Key, Plan, Reconciler, Snapshot, Wires, action::PatchKind,
    recorder::reference,
};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;

/// The prefix length of a node's range (upstream's `node-cidr-mask-size`).
const NODE_PREFIX: u8 = 24;

/// Gives out pod ranges.
pub struct NodeIpam {
    nodes: Arc<Informer<Node>>,
    cluster: Ipv4Net,
}

impl NodeIpam {
    /// Ranges are taken from `cluster`.
    pub fn new(informers: &Informers, cluster: Ipv4Net) -> Self {
        Self { nodes: informers.get(), cluster }
    }
}

impl Reconciler for NodeIpam {
    type Key = Key;
    type Snapshot = Arc<Snapshot<Node>>;

    fn name(&self) -> &'static str {
        "node-ipam"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        wires.on(&self.nodes, |event, emit| {
            // A node without a range wants one; one with a range may be the write that is waited for; a gone one frees its own.
            if event.old().is_none_or(|old| range(old) != range(event.object())) || range(event.object()).is_none() {
                emit(Key::cluster("ranges"));
            }
        });
    }

    fn snapshot(&self) -> Arc<Snapshot<Node>> {
        self.nodes.snapshot()
    }

    fn plan(&self, nodes: &Arc<Snapshot<Node>>, _: &Key, _: &Context<'_>) -> Plan {
        plan(nodes, self.cluster)
    }

    fn workers(&self) -> usize {
        1
    }
}

fn range(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|range| !range.is_empty())
}

/// Gives the lowest free ranges to the nodes that have none, in the order of their names.
pub fn plan(nodes: &Snapshot<Node>, cluster: Ipv4Net) -> Plan {
    let taken: HashSet<Ipv4Net> = nodes.iter().filter_map(|node| range(node)?.parse().ok()).collect();
    let prefix = NODE_PREFIX.max(cluster.prefix_len());
    let mut free = free_ranges(cluster, prefix).filter(|range| !taken.iter().any(|taken| overlaps(taken, range)));
    let mut plan = Plan::default();
    for node in nodes.iter().filter(|node| range(node).is_none() && node.metadata.deletion_timestamp.is_none()) {
        match free.next() {
            Some(range) => {
                let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version},
                    "spec": {"podCIDR": range.to_string(), "podCIDRs": [range.to_string()]}});
                plan.push(Action::patch(node.as_ref(), PatchKind::Merge, patch));
            }
            None => {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                plan.note(reference(node.as_ref()), EventType::Normal, "CIDRNotAvailable", message);
            }
        }
    }
    plan
}

fn free_ranges(cluster: Ipv4Net, prefix: u8) -> impl Iterator<Item = Ipv4Net> {
    let count = 1u64 << (prefix - cluster.prefix_len());
    let step = 1u64 << (32 - prefix);
    let start = u64::from(u32::from(cluster.network()));
    (0..count).filter_map(move |index| {
        let address = u32::try_from(start + index * step).ok()?;
        Ipv4Net::new(Ipv4Addr::from(address), prefix).ok()
    })
}

fn overlaps(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_client::{Step, Verb};

    fn node(name: &str, range: &str) -> Node {
        coracle_api::json::from_value(
            json!({"metadata": {"name": name, "resourceVersion": "1"}, "spec": {"podCIDR": range}}),
        )
        .unwrap()
    }

    fn given(plan: &Plan) -> Vec<String> {
        let actions = plan.actions.iter().flat_map(Step::actions);
        let range = |action: &Action| match &action.verb {
            Verb::Patch { body, .. } => format!("{}={}", action.name, body["spec"]["podCIDR"].as_str().unwrap()),
            other => panic!("{other:?}"),
        };
        actions.map(range).collect()
    }

    #[test]
    fn the_lowest_free_range_and_never_a_taken_one() {
        let cluster = "10.42.0.0/16".parse().unwrap();
        let nodes = [
            node("a", "10.42.1.0/24"),
            node("b", ""),
            node("c", ""),
            node("d", "10.42.4.0/22"),
            node("e", ""),
            node("f", ""),
        ];
        let plan = plan(&Snapshot::of(nodes, &[]), cluster);
        assert_eq!(given(&plan), ["b=10.42.0.0/24", "c=10.42.2.0/24", "e=10.42.3.0/24", "f=10.42.8.0/24"]);
    }

    #[test]
    fn an_exhausted_cluster_says_so() {
        let plan =
            plan(&Snapshot::of([node("a", "10.42.0.0/24"), node("b", "")], &[]), "10.42.0.0/24".parse().unwrap());
        assert_eq!((given(&plan).len(), plan.notes[0].reason), (0, "CIDRNotAvailable"));
    }
}
