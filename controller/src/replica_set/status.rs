//! The status of a ReplicaSet (upstream's pkg/controller/replicaset/replica_set_utils.go).

use std::{sync::Arc, time::Duration};

use coracle_client::{Context, Snapshot, outline::Pod};
use k8s_openapi::{
    api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{ownership, pods};

/// How many pods of the set are being deleted and have not ended yet.
pub fn terminating(set: &ReplicaSet, pods: &Snapshot<Pod>) -> i32 {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let all = pods.by_index(ownership::BY_CONTROLLER, uid);
    count(all.filter(|pod| pod.metadata.deletion_timestamp.is_some() && !pods::is_terminal(pod)).count())
}

/// The status that follows from the pods.
pub fn calculate(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    terminating: i32,
    wanted: usize,
    context: &Context<'_>,
) -> ReplicaSetStatus {
    let spec = set.spec.as_ref();
    let template = spec.and_then(|spec| spec.template.as_ref()).and_then(|template| template.metadata.as_ref());
    let template_labels = template.and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    let min_ready =
        Duration::from_secs(spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0).try_into().unwrap_or(0));
    let labelled = |pod: &&Arc<Pod>| {
        let labels = pod.metadata.labels.as_ref();
        template_labels.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    };
    let available = |pod: &&Arc<Pod>| pods::available_in(pod, min_ready, context.now) == Some(Duration::ZERO);
    let old = set.status.clone().unwrap_or_default();
    ReplicaSetStatus {
        replicas: count(owned.len()),
        fully_labeled_replicas: some(owned.iter().filter(labelled).count()),
        ready_replicas: some(owned.iter().filter(|pod| pods::is_ready(pod)).count()),
        available_replicas: some(owned.iter().filter(available).count()),
        terminating_replicas: Some(terminating),
        observed_generation: set.metadata.generation.or(old.observed_generation),
        conditions: conditions(old.conditions, owned.len(), wanted, context),
    }
}

/// ReplicaFailure stands while the last attempt to create or delete pods failed.
fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    have: usize,
    wanted: usize,
    context: &Context<'_>,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.unwrap_or_default();
    let failed = context.failure.filter(|failure| matches!(failure.reason, Some("FailedCreate" | "FailedDelete")));
    match failed {
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
        Some(_) if conditions.iter().any(|condition| condition.type_ == "ReplicaFailure") => {}
        Some(failure) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some(if have < wanted { "FailedCreate" } else { "FailedDelete" }.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(context.now)),
        }),
    }
    if conditions.is_empty() { None } else { Some(conditions) }
}

/// Zero counts are left out of the object, as upstream's omitempty does: the server's copy would never equal ours otherwise.
fn some(number: usize) -> Option<i32> {
    if number == 0 { None } else { Some(count(number)) }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
