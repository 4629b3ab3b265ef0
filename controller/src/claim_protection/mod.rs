//! PersistentVolumeClaims that pods use do not go (upstream's pkg/controller/volume/pvcprotection).
//!
//! A pod uses a claim from when it has a node, for then it may run, until it is gone, also after it ended. Before a claim is let go the
//! server itself is asked for the pods: ours may not be seen yet. The answer stays true, because a node starts no pod
//! whose claim is to go. Keys are namespaces, so that one list answers for all claims of a namespace.

use std::{collections::HashMap, sync::Arc, time::Duration};

use coracle_api::json::Value;
use coracle_client::{
    Action, Context, Informer, Informers, Key, Plan, Reconciler, ResourceId, Snapshot, Step, Verb, Wires,
    executor::Outcome,
    outline::{Pod, Volume},
};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::{ownership, pods, protection};

const FINALIZER: &str = "kubernetes.io/pvc-protection";
/// When the server is asked again about a pod that it knows and we do not see.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The index of claims that something may have to be done for, by namespace.
pub const BY_NEED: &str = "protection";
/// The index of pods by the claims that their volumes name: `namespace/claim`.
pub const BY_CLAIM: &str = "claim";

/// Values of the index [`BY_NEED`].
pub fn by_need(claim: &PersistentVolumeClaim, emit: &mut dyn FnMut(&str)) {
    let meta = &claim.metadata;
    if protection::is_leaving(meta, FINALIZER) || protection::is_unprotected(meta, FINALIZER) {
        emit(meta.namespace.as_deref().unwrap_or_default());
    }
}

/// Values of the index [`BY_CLAIM`].
pub fn by_claim(pod: &Pod, emit: &mut dyn FnMut(&str)) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    for name in volumes(pod).iter().filter_map(|volume| claim_of(pod, volume)) {
        emit(&format!("{namespace}/{name}"));
    }
}

/// Lets claims go that no pod uses.
pub struct ClaimProtection {
    claims: Arc<Informer<PersistentVolumeClaim>>,
    pods: Arc<Informer<Pod>>,
    /// By the uid of claims that are to go: whether a pod uses it, as the server itself said.
    answers: Arc<Mutex<HashMap<String, bool>>>,
}

/// What a plan reads.
pub struct State {
    /// With the index by need.
    pub claims: Arc<Snapshot<PersistentVolumeClaim>>,
    /// With the index by claim.
    pub pods: Arc<Snapshot<Pod>>,
    /// See `ClaimProtection::answers`.
    pub answers: HashMap<String, bool>,
}

impl ClaimProtection {
    /// The controller over the process's informers.
    pub fn new(informers: &Informers) -> Self {
        let (claims, pods) = (informers.get::<PersistentVolumeClaim>(), informers.get::<Pod>());
        claims.add_index(BY_NEED, by_need);
        pods.add_index(BY_CLAIM, by_claim);
        Self { claims, pods, answers: Arc::default() }
    }
}

impl Reconciler for ClaimProtection {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "pvc-protection"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        let answers = self.answers.clone();
        wires.on(&self.claims, move |event, emit| {
            let meta = &event.object().metadata;
            if event.is_deleted() {
                answers.lock().remove(meta.uid.as_deref().unwrap_or_default());
            }
            emit(Key::cluster(meta.namespace.as_deref().unwrap_or_default()));
        });
        let claims = self.claims.clone();
        wires.on(&self.pods, move |event, emit| {
            let pod = event.object();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            // A claim that is to go is looked at when that is seen; a pod only matters to those that wait already.
            if volumes(pod).iter().any(|volume| claim_of(pod, volume).is_some())
                && claims.snapshot().count_by_index(BY_NEED, namespace) > 0
            {
                emit(Key::cluster(namespace));
            }
        });
    }

    fn snapshot(&self) -> State {
        State { claims: self.claims.snapshot(), pods: self.pods.snapshot(), answers: self.answers.lock().clone() }
    }

    fn plan(&self, state: &State, key: &Key, _: &Context<'_>) -> Plan {
        plan(state, key.name())
    }

    fn observe(&self, key: &Key, action: &Action, outcome: &Outcome) {
        let (Verb::List, Ok(list)) = (&action.verb, outcome) else { return };
        let Some(pods) = list.get("items").and_then(Value::as_array) else { return };
        let pods: Result<Vec<Pod>, _> = pods.iter().map(Pod::deserialize).collect();
        // A list that cannot be read says nothing about who is not in it.
        let Ok(pods) = pods else { return };
        // Held while the claims are looked at: the event of one that is gone by then comes after, and forgets it.
        let mut answers = self.answers.lock();
        for claim in leaving(&self.claims.snapshot(), key.name()) {
            if let Some(uid) = claim.metadata.uid.clone() {
                answers.insert(uid, pods.iter().any(|pod| uses(pod, claim)));
            }
        }
    }
}

fn leaving<'a>(
    claims: &'a Snapshot<PersistentVolumeClaim>,
    namespace: &str,
) -> impl Iterator<Item = &'a Arc<PersistentVolumeClaim>> {
    claims.by_index(BY_NEED, namespace).filter(|claim| claim.metadata.deletion_timestamp.is_some())
}

/// What has to be done for the claims of one namespace.
pub fn plan(state: &State, namespace: &str) -> Plan {
    let mut plan = Plan::default();
    let claims = state.claims.by_index(BY_NEED, namespace);
    let unprotected = claims.filter(|claim| claim.metadata.deletion_timestamp.is_none());
    let mut updates: Vec<Action> = unprotected.map(|claim| protection::protect(claim.as_ref(), FINALIZER)).collect();
    let mut ask = None;
    for claim in leaving(&state.claims, namespace) {
        let answer = claim.metadata.uid.as_ref().and_then(|uid| state.answers.get(uid));
        if answer == Some(&false) {
            updates.push(protection::release(claim.as_ref(), FINALIZER));
        } else if !state.pods.by_index(BY_CLAIM, Key::of(&claim.metadata).as_str()).any(|pod| uses(pod, claim)) {
            let again = if answer.is_none() { Duration::from_millis(1) } else { ASK_AGAIN };
            ask = Some(ask.map_or(again, |have: Duration| have.min(again)));
        }
    }
    if !updates.is_empty() {
        plan.actions.push(Step::Parallel(updates));
    }
    if let Some(again) = ask {
        plan.push(Action::at(ResourceId::of::<Pod>(), &Key::new(namespace, ""), Verb::List));
        plan.requeue(again);
    }
    plan
}

fn volumes(pod: &Pod) -> &[Volume] {
    pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default()
}

/// The claim that a volume of the pod is of: one that is named, or that is made for the pod (component-helpers
/// `storage/ephemeral`).
fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.to_string()),
        None => volume.ephemeral.as_ref().map(|_| made_for(pod, volume)),
    }
}

fn made_for(pod: &Pod, volume: &Volume) -> String {
    format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name)
}

/// Whether the pod uses the claim (upstream's `podUsesPVC`).
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    pods::node(pod).is_some()
        && volumes(pod).iter().any(|volume| match &volume.persistent_volume_claim {
            Some(source) => &*source.claim_name == name,
            None => {
                let own = ownership::controller(&claim.metadata).map(|owner| &owner.uid);
                volume.ephemeral.is_some()
                    && made_for(pod, volume) == name
                    && own.is_some_and(|own| Some(own) == pod.metadata.uid.as_ref())
                    && !is_shut_down(pod)
            }
        })
}

/// A pod that waits for nothing but finalizers, of which one may itself wait for the claim.
fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

#[cfg(test)]
mod tests;
