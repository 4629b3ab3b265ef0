//! The pod's status in the API: written when it changed, one write at a time, the newest last.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use super::{Outcome, Worker};
use crate::plan::{RESIZE_IN_PROGRESS, RESIZE_PENDING};
use crate::pod;
use crate::work::Shared;

const LIMIT: Duration = Duration::from_secs(10);

impl Worker {
    /// Sends the planned status if the API does not have it and no other is on its way.
    pub(super) fn report(&mut self, pod: &Arc<Pod>) {
        let Some(status) = self.last.clone() else { return };
        let waiting = self.resend_at.is_some_and(|at| at > tokio::time::Instant::now());
        // The kubelet may have been started again: what the API has then is what was sent.
        let known = self.sent.as_ref().or(pod.status.as_ref());
        if self.sending || waiting || known.is_some_and(|known| says_the_same(known, &status)) {
            return;
        }
        self.resend_at = None;
        self.sending = true;
        let (shared, pod) = (self.shared.clone(), pod.clone());
        self.operations.spawn(async move {
            let result = send(&shared, &pod, &status).await;
            Outcome::Reported { status: Box::new(status), result }
        });
    }
}

/// Whether `old` holds everything that `new` says; what others wrote into the status is not the kubelet's.
fn says_the_same(old: &PodStatus, new: &PodStatus) -> bool {
    let conditions =
        new.conditions.iter().flatten().all(|condition| old.conditions.iter().flatten().any(|old| old == condition));
    // These two are there while they hold only.
    let is = |condition: &&PodCondition| [RESIZE_PENDING, RESIZE_IN_PROGRESS].contains(&condition.type_.as_str());
    let mine = |status: &PodStatus| status.conditions.iter().flatten().filter(is).count();
    let conditions = conditions && mine(old) == mine(new);
    let mut old = old.clone();
    old.conditions.clone_from(&new.conditions);
    old.resource_claim_statuses.clone_from(&new.resource_claim_statuses);
    old.nominated_node_name.clone_from(&new.nominated_node_name);
    conditions && old == *new
}

/// The strategic merge patch that makes the object's status this one, and leaves the conditions of others alone.
fn patch(pod: &Pod, status: &PodStatus) -> Value {
    // A status holds nothing that cannot be written as JSON.
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(status) = value.as_object_mut() {
        // Merged by type: what does not hold any more has to be taken away by name.
        if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
            for kind in [RESIZE_PENDING, RESIZE_IN_PROGRESS] {
                if !conditions.iter().any(|condition| condition["type"] == kind) {
                    conditions.push(json!({"$patch": "delete", "type": kind}));
                }
            }
        }
        for field in ["reason", "message", "podIP", "resources", "allocatedResources"] {
            status.entry(field).or_insert(Value::Null);
        }
        // Merged by address otherwise: a new sandbox would add its address to the old one's.
        match status.get_mut("podIPs").and_then(Value::as_array_mut) {
            Some(addresses) => addresses.push(json!({"$patch": "replace"})),
            None => drop(status.insert("podIPs".into(), Value::Null)),
        }
        if let Some(addresses) = status.get_mut("hostIPs").and_then(Value::as_array_mut) {
            addresses.push(json!({"$patch": "replace"}));
        }
    }
    json!({"metadata": {"uid": pod::uid(pod)}, "status": value})
}

async fn send(shared: &Shared, pod: &Pod, status: &PodStatus) -> Result<(), String> {
    let api = Api::<Pod>::namespaced(shared.client.clone(), pod::namespace(pod));
    let patch = Patch::Strategic(patch(pod, status));
    let params = PatchParams::default();
    match tokio::time::timeout(LIMIT, api.patch_status(pod::name(pod), &params, &patch)).await {
        Ok(Ok(_)) => Ok(()),
        // The object is gone, or another one has its name: nobody is left to be told.
        Ok(Err(kube::Error::Api(refused))) if matches!(refused.code, 404 | 409) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the API server did not answer in time".into()),
    }
}

/// Tells the last status and lets the object go.
pub(super) async fn finish(shared: &Shared, pod: &Pod, status: Option<&PodStatus>) -> Result<(), String> {
    if let Some(status) = status {
        send(shared, pod, status).await?;
    }
    if pod.metadata.deletion_timestamp.is_none() {
        return Ok(());
    }
    let api = Api::<Pod>::namespaced(shared.client.clone(), pod::namespace(pod));
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    match tokio::time::timeout(LIMIT, api.delete(pod::name(pod), &params)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(refused))) if matches!(refused.code, 404 | 409) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the API server did not answer in time".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_others_do_not_count() {
        let old: PodStatus = serde_json::from_value(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}, {"type": "x.io/y", "status": "True"}]})).unwrap();
        let mut new: PodStatus =
            serde_json::from_value(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}))
                .unwrap();
        assert!(says_the_same(&old, &new));
        new.phase = Some("Failed".into());
        assert!(!says_the_same(&old, &new));
    }

    #[test]
    fn addresses_are_replaced() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u"}})).unwrap();
        let status: PodStatus = serde_json::from_value(json!({"podIPs": [{"ip": "10.0.0.1"}]})).unwrap();
        let patch = patch(&pod, &status);
        assert_eq!(patch["status"]["podIPs"], json!([{"ip": "10.0.0.1"}, {"$patch": "replace"}]));
        assert_eq!(patch["status"]["reason"], Value::Null);
    }
}
