//! The limit of all pods together (kubernetes `pkg/kubelet/cm/node_container_manager_linux.go`,
//! `enforceNodeAllocatableCgroups`).

use std::time::Duration;

use coracle_client::EventType;
use k8s_openapi::api::core::v1::ObjectReference;

use super::Share;
use crate::work::Shared;

/// A group that uses more than it is to have cannot be limited: upstream tries again this often.
const PAUSE: Duration = Duration::from_secs(60);

/// Limits the group of all pods to their share of the machine. Tries until it works.
pub async fn limit_pods(shared: &Shared, share: Share) {
    // Upstream's reference to a node that it may not have in its cache yet.
    let name = Some(shared.node_name.clone());
    let about =
        ObjectReference { kind: Some("Node".into()), name: name.clone(), uid: name, ..ObjectReference::default() };
    loop {
        match shared.cgroups.enforce(&share) {
            Ok(false) => return,
            Ok(true) => {
                let message = "Updated Node Allocatable limit across pods";
                return shared.recorder.record(&about, EventType::Normal, "NodeAllocatableEnforced", message);
            }
            Err(error) => {
                let message = format!("Failed to update Node Allocatable Limits {:?}: {error}", shared.cgroup_parent);
                shared.recorder.record(&about, EventType::Warning, "FailedNodeAllocatableEnforcement", &message);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
