//! The status of a StatefulSet.

use std::{sync::Arc, time::Duration};

use coracle_client::outline::Pod;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};

use super::{identity, revisions::Settled};
use crate::pods;

/// How long a pod must be ready before it counts as available.
pub fn min_ready(set: &StatefulSet) -> Duration {
    let seconds = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    Duration::from_secs(seconds.try_into().unwrap_or(0))
}

/// Runs, is available, and stays.
pub fn is_healthy(set: &StatefulSet, pod: &Pod, now: Timestamp) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pods::phase(pod) == "Running"
        && pods::available_in(pod, min_ready(set), now) == Some(Duration::ZERO)
}

/// The status that follows from the pods.
pub fn calculate(set: &StatefulSet, owned: &[Arc<Pod>], settled: &Settled, now: Timestamp) -> StatefulSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let stays = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_none() && !pods::phase(pod).is_empty();
    let of = |revision: &str| owned.iter().filter(stays).filter(|pod| identity::revision(pod) == revision).count();
    let running = || owned.iter().filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod));
    let available = running().filter(|pod| pods::available_in(pod, min_ready(set), now) == Some(Duration::ZERO));
    let (update, ready) = (of(&settled.update.name), running().count());
    let mut status = StatefulSetStatus {
        replicas: count(owned.len()),
        ready_replicas: some(ready),
        available_replicas: Some(count(available.count())),
        current_replicas: some(of(&settled.current.name)),
        updated_replicas: some(update),
        current_revision: Some(settled.current.name.clone()),
        update_revision: Some(settled.update.name.clone()),
        observed_generation: set.metadata.generation.or(old.observed_generation),
        collision_count: Some(settled.collisions),
        conditions: old.conditions,
    };
    let rolling =
        set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref()?.type_.as_deref()) != Some("OnDelete");
    // The rollout is complete when every pod is of the new revision and ready.
    if rolling && update == owned.len() && ready == owned.len() {
        status.current_revision = status.update_revision.clone();
        status.current_replicas = status.updated_replicas;
    }
    status
}

/// Zero counts are left out of the object, as upstream's omitempty does: the server's copy would never equal ours otherwise.
fn some(number: usize) -> Option<i32> {
    if number == 0 { None } else { Some(count(number)) }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
