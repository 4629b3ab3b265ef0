//! The ServiceCIDR `kubernetes`: the range that the server was told to take addresses of Services from (controlplane
//! `controller/defaultservicecidr`).

use super::{call, ensure};
use crate::registry::fields::{items, text};
use crate::server::Server;
use crate::verbs::service_ranges::OWN;
use coracle_api::Status;
use coracle_api::clock::rfc3339;
use coracle_api::json::{Value, json};
use std::sync::Arc;

const RESOURCE: (&str, &str) = ("networking.k8s.io", "servicecidrs");

/// Makes it, if there is none, and says that it is ready, unless somebody said otherwise. One with another range stays as it is.
pub async fn make(server: &Arc<Server>) -> Result<(), Status> {
    let range = server.config.service_cidr.to_string();
    let object = json!({"kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": OWN}, "spec": {"cidrs": [range]}});
    ensure(server, RESOURCE, "", object).await?;
    let call = call(server, RESOURCE, "", OWN)?;
    let current = call.current().await?;
    let Some(wanted) = ready(&current.value, &range, &rfc3339(server.config.clock.now())) else { return Ok(()) };
    // Somebody else who writes it now has news of it, which come here, too.
    call.replace(&current, &current.with(&wanted), Vec::new()).await.map(drop)
}

/// The object with a condition that it is ready; None where that is not to be said.
fn ready(object: &Value, range: &str, now: &str) -> Option<Value> {
    const READY: &str = "Ready";
    let conditions = items(&object["status"], "conditions");
    let said = conditions.iter().find(|condition| text(condition, "type") == READY);
    let is_known = said.is_some_and(|condition| text(condition, "status") != "Unknown");
    let is_ending = object["metadata"].get("deletionTimestamp").is_some();
    if is_known || is_ending || object["spec"]["cidrs"] != json!([range]) {
        return None;
    }
    let mut conditions: Vec<Value> =
        conditions.iter().filter(|condition| text(condition, "type") != READY).cloned().collect();
    conditions.push(json!({"type": READY, "status": "True", "lastTransitionTime": now, "reason": "",
        "message": "Kubernetes default Service CIDR is ready"}));
    let mut wanted = object.clone();
    wanted["status"]["conditions"] = conditions.into();
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_unless_somebody_says_otherwise() {
        let object = |range: &str, status: Value| json!({"metadata": {"name": OWN}, "spec": {"cidrs": [range]}, "status": status});
        let said = |status: &str| json!({"conditions": [{"type": "Other", "status": "True"}, {"type": "Ready", "status": status}]});
        let now = "2026-01-01T00:00:00Z";
        for status in [json!({}), said("Unknown")] {
            let ready = ready(&object("10.96.0.0/16", status), "10.96.0.0/16", now).unwrap();
            let last = items(&ready["status"], "conditions").last().unwrap();
            assert_eq!((text(last, "status"), text(last, "lastTransitionTime")), ("True", now), "{ready}");
        }
        assert!(ready(&object("10.96.0.0/16", said("False")), "10.96.0.0/16", now).is_none());
        assert!(ready(&object("10.96.0.0/16", said("True")), "10.96.0.0/16", now).is_none());
        assert!(ready(&object("10.0.0.0/16", json!({})), "10.96.0.0/16", now).is_none());
        let mut ending = object("10.96.0.0/16", json!({}));
        ending["metadata"]["deletionTimestamp"] = now.into();
        assert!(ready(&ending, "10.96.0.0/16", now).is_none());
    }
}
