//! Tells the runtime which addresses the node's pods get, as soon as the node has a range.

use std::sync::Arc;

use coracle_client::Informer;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Node;
use tokio_util::sync::CancellationToken;

use crate::work::Shared;

/// Follows the node's own object until `shutdown`.
pub async fn tell_pod_range(shared: &Shared, node: Arc<Informer<Node>>, shutdown: CancellationToken) {
    let mut changes = node.changes();
    let mut told = String::new();
    loop {
        let range =
            node.find("", &shared.node_name).and_then(|node| node.spec.as_ref()?.pod_cidr.clone()).unwrap_or_default();
        if !range.is_empty() && range != told {
            let network_config = Some(cri::NetworkConfig { pod_cidr: range.clone() });
            let request =
                cri::UpdateRuntimeConfigRequest { runtime_config: Some(cri::RuntimeConfig { network_config }) };
            match shared.cri.update_runtime_config(request).await {
                Ok(_) => told = range,
                // A runtime may leave it to its CNI configuration.
                Err(error) => tracing::warn!(error = %error, "the runtime did not take the pod range"),
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
