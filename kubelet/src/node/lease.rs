//! The node's heartbeat (KEP-589).

use std::time::Duration;

use coracle_api::clock::rfc3339_micro;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::work::Shared;

const NAMESPACE: &str = "kube-node-lease";
/// Seconds a lease holds without being renewed.
const DURATION: i32 = 40;
/// How often it is renewed: a quarter of that.
const RENEW: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(10);
const LONGEST_RETRY: Duration = Duration::from_secs(7);

/// Renews the lease for ever.
pub(super) async fn keep(shared: &Shared, node_uid: String) {
    let api = Api::<Lease>::namespaced(shared.client.clone(), NAMESPACE);
    let mut retry = Duration::from_millis(200);
    loop {
        match tokio::time::timeout(LIMIT, renew(shared, &api, &node_uid)).await {
            Ok(Ok(())) => {
                retry = Duration::from_millis(200);
                tokio::time::sleep(RENEW).await;
                continue;
            }
            Ok(Err(error)) => tracing::debug!(error = %error, "the node's lease was not renewed"),
            Err(_) => tracing::warn!("the node's lease was not renewed in time"),
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LONGEST_RETRY);
    }
}

async fn renew(shared: &Shared, api: &Api<Lease>, node_uid: &str) -> kube::Result<()> {
    let name = &shared.node_name;
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": DURATION, "renewTime": rfc3339_micro(shared.clock.now())});
    let patch = Patch::Merge(json!({"spec": spec}));
    match api.patch(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        answer => return answer.map(drop),
    }
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}]);
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": owner}, "spec": spec});
    let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &lease).await.map(drop)
}
