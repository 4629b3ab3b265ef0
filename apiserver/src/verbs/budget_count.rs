//! What a disruption budget allows when nobody has ever said it: no disruption controller runs here, and a budget that was
//! never observed would refuse evictions for ever. Counted as upstream's controller counts (controller/disruption `disruption.go`,
//! `trySync`); as soon as one has observed the budget, what that says counts.

use crate::bootstrap;
use crate::cache::Object;
use crate::registry::core::pod::is_ready;
use crate::registry::fields::{items, object_mut, text};
use crate::server::Server;
use coracle_api::clock::parse_rfc3339;
use coracle_api::json::{Map, Value};
use coracle_api::selector::LabelSelector;
use coracle_api::{Status, meta};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashSet;
use std::sync::Arc;

/// So long a controller has time to observe a new budget.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// So long an evicted pod counts as on its way though nobody deletes it (upstream's `DeletionTimeout`).
const ON_ITS_WAY: SignedDuration = SignedDuration::from_secs(120);

/// Controllers of pods that have a number of them, and whose number counts when they are controlled in turn.
const SCALED: [(&str, &str, &str); 4] = [
    ("", "ReplicationController", "replicationcontrollers"),
    ("apps", "ReplicaSet", "replicasets"),
    ("apps", "StatefulSet", "statefulsets"),
    ("apps", "Deployment", "deployments"),
];

/// Whether nobody has ever observed a budget that has been there for a while.
pub fn is_unobserved(budget: &Value, now: Timestamp) -> bool {
    let status = &budget["status"];
    let observed = status.get("observedGeneration").and_then(Value::as_i64).unwrap_or(0);
    let made = parse_rfc3339(meta::creation_timestamp(budget));
    observed == 0
        && items(status, "conditions").is_empty()
        && made.is_some_and(|made| now.duration_since(made) > PATIENCE)
}

/// Fills in the status of a budget as a controller would.
///
/// # Errors
/// When pods or their controllers are not served.
pub fn count(server: &Arc<Server>, budget: &mut Value, now: Timestamp) -> Result<(), Status> {
    let namespace = meta::namespace(budget).to_owned();
    let spec = &budget["spec"];
    let selector = spec.get("selector").and_then(|selector| LabelSelector::from_json(selector).ok());
    let snapshot = server.cache_of("", "pods")?.snapshot();
    let prefix = format!("{namespace}/");
    let selected = |object: &&Arc<Object>| selector.as_ref().is_some_and(|selector| selector.matches(object.labels()));
    let pods: Vec<Value> = snapshot.range(&prefix, "").filter(selected).map(|object| object.parse()).collect();
    let disrupted = on_their_way(&budget["status"], &pods, now);
    let (most, least) = (&spec["maxUnavailable"], &spec["minAvailable"]);
    let (expected, desired) = match (most, least.as_i64()) {
        (Value::Null, Some(least)) => (i64::try_from(pods.len()).ok(), least),
        (Value::Null, None) => {
            let expected = expected(server, &namespace, &pods)?;
            (expected, expected.map_or(0, |all| part(least, all)))
        }
        (most, _) => {
            let expected = expected(server, &namespace, &pods)?;
            (expected, expected.map_or(0, |all| (all - part(most, all)).max(0)))
        }
    };
    let counts = |pod: &&Value| {
        meta::deletion_timestamp(pod).is_none() && !disrupted.contains_key(meta::name(pod)) && is_ready(pod)
    };
    let healthy = i64::try_from(pods.iter().filter(counts).count()).unwrap_or(i64::MAX);
    // How many there are to be is not known of pods whose controller nobody knows: none may go then.
    let allowed = expected.filter(|expected| *expected > 0).map_or(0, |_| (healthy - desired).max(0));
    let generation = meta::generation(budget);
    let status = object_mut(budget, "status");
    for (field, number) in [
        ("observedGeneration", generation),
        ("currentHealthy", healthy),
        ("desiredHealthy", desired),
        ("expectedPods", expected.unwrap_or(0)),
        ("disruptionsAllowed", allowed),
    ] {
        status[field] = number.into();
    }
    status["disruptedPods"] = Value::Object(disrupted);
    Ok(())
}

/// The pods whose eviction was allowed and that are not being deleted yet (upstream's `buildDisruptedPodMap`).
fn on_their_way(status: &Value, pods: &[Value], now: Timestamp) -> Map {
    let known = status.get("disruptedPods").and_then(Value::as_object);
    let is_there =
        |name: &str| pods.iter().any(|pod| meta::name(pod) == name && meta::deletion_timestamp(pod).is_none());
    let mut left = Map::new();
    for (name, since) in known.into_iter().flatten() {
        let is_fresh =
            since.as_str().and_then(parse_rfc3339).is_some_and(|since| now.duration_since(since) < ON_ITS_WAY);
        if is_fresh && is_there(name) {
            left.insert(name.clone(), since.clone());
        }
    }
    left
}

/// How many pods the controllers of these want; None when one of them says no number. Pods without a controller are not counted
/// (upstream's `getExpectedScale`).
fn expected(server: &Arc<Server>, namespace: &str, pods: &[Value]) -> Result<Option<i64>, Status> {
    let (mut seen, mut sum) = (HashSet::new(), 0_i64);
    for pod in pods {
        let Some(owner) = meta::controller(pod) else { continue };
        let Some(mut found) = scaled(server, namespace, owner.api_version, owner.kind, owner.name, owner.uid)? else {
            return Ok(None);
        };
        if let Some(owner) = meta::controller(&found)
            && let Some(above) = scaled(server, namespace, owner.api_version, owner.kind, owner.name, owner.uid)?
        {
            found = above;
        }
        if seen.insert(meta::uid(&found).to_owned()) {
            sum = sum.saturating_add(found.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0));
        }
    }
    Ok(Some(sum))
}

/// A controller of pods that has a number of them.
fn scaled(
    server: &Arc<Server>,
    namespace: &str,
    api_version: &str,
    kind: &str,
    name: &str,
    uid: &str,
) -> Result<Option<Value>, Status> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let Some((.., plural)) = SCALED.into_iter().find(|(g, k, _)| (*g, *k) == (group, kind)) else { return Ok(None) };
    let snapshot = bootstrap::call(server, (group, plural), namespace, name)?.cache()?.snapshot();
    let found = snapshot.get(&format!("{namespace}/{name}")).map(|object| object.parse());
    Ok(found.filter(|found| meta::uid(found) == uid && text(found, "kind") == kind))
}

/// A number, or so many in a hundred, rounded up (apimachinery `intstr.GetScaledValueFromIntOrPercent`).
fn part(amount: &Value, all: i64) -> i64 {
    let percent = amount.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok());
    match percent {
        Some(percent) => all.saturating_mul(percent).saturating_add(99).div_euclid(100),
        None => amount.as_i64().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn parts_are_rounded_up() {
        for (amount, all, wanted) in
            [(json!(2), 5, 2), (json!("50%"), 5, 3), (json!("0%"), 5, 0), (json!("100%"), 3, 3), (json!("x"), 5, 0)]
        {
            assert_eq!(part(&amount, all), wanted, "{amount}");
        }
    }

    #[test]
    fn what_a_controller_said_or_can_still_say_counts() {
        let now: Timestamp = "2026-01-01T00:02:00Z".parse().unwrap();
        let of = |made: &str, status: Value| json!({"metadata": {"creationTimestamp": made}, "status": status});
        assert!(is_unobserved(&of("2026-01-01T00:00:00Z", json!({"disruptionsAllowed": 0})), now));
        assert!(!is_unobserved(&of("2026-01-01T00:01:30Z", json!({})), now));
        assert!(!is_unobserved(&of("2026-01-01T00:00:00Z", json!({"observedGeneration": 1})), now));
        assert!(!is_unobserved(&of("2026-01-01T00:00:00Z", json!({"conditions": [{"type": "x"}]})), now));
    }
}
