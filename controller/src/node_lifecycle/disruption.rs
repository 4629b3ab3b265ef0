//! When pods may be driven off silent nodes. If everything is silent, the fault is more likely ours or the network's
//! (upstream's `ComputeZoneState` and `handleDisruption`).

use coracle_client::Snapshot;
use k8s_openapi::api::core::v1::Node;

use super::conditions;

/// Upstream's `unhealthy-zone-threshold`.
const UNHEALTHY_PERCENT: usize = 55;
/// Upstream's `large-cluster-size-threshold`: up to this size a disrupted zone drives nothing away, beyond it slowly.
const SMALL: usize = 50;

/// Whether pods may be driven off this node.
pub fn evicts(nodes: &Snapshot<Node>, node: &Node) -> bool {
    let unready = |node: &Node| conditions::ready(node) != "True";
    // Everything silent: nothing moves, there is nowhere to move to.
    if nodes.iter().all(|node| unready(node)) {
        return false;
    }
    let same_zone: Vec<_> = nodes.iter().filter(|other| zone(other) == zone(node)).collect();
    let down = same_zone.iter().filter(|node| unready(node)).count();
    let disrupted = down > 2 && down * 100 >= UNHEALTHY_PERCENT * same_zone.len();
    !(disrupted && same_zone.len() <= SMALL && down < same_zone.len())
}

fn zone(node: &Node) -> (Option<&String>, Option<&String>) {
    let label = |name: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(name));
    (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}
