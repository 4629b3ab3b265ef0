//! StatefulSets: pods with a name and storage of their own, one of each at a time (upstream's pkg/controller/statefulset).
//!
//! ```text
//! revisions (what the template was and is) ─┐
//! pods by ordinal ──────────────────────────┼─► rollout ─► actions
//! claims (storage by ordinal) ──────────────┘          └─► status
//! ```
//!
//! A pod's name is its identity. While an object of that name exists, also one whose node is silent, no other is made:
//! nobody can know that the first one no longer runs.

mod claims;
mod identity;
mod revisions;
mod rollout;
mod status;

use std::sync::Arc;

use coracle_api::decode;
use coracle_client::{
    Action, Context, Informer, Informers, Key, Plan, Reconciler, Snapshot, Step, Wires, outline::Pod,
};
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet},
        core::v1::PersistentVolumeClaim,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{ownership, pods};

/// Keeps the pods of each StatefulSet.
pub struct StatefulSets {
    sets: Arc<Informer<StatefulSet>>,
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    revisions: Arc<Informer<ControllerRevision>>,
}

/// What a plan reads.
pub struct State {
    pub sets: Arc<Snapshot<StatefulSet>>,
    /// With the index by controller.
    pub pods: Arc<Snapshot<Pod>>,
    pub claims: Arc<Snapshot<PersistentVolumeClaim>>,
    /// With the index by controller.
    pub revisions: Arc<Snapshot<ControllerRevision>>,
}

impl StatefulSets {
    /// The controller over the process's informers.
    pub fn new(informers: &Informers) -> Self {
        let (pods, revisions) = (informers.get::<Pod>(), informers.get::<ControllerRevision>());
        pods.add_index(ownership::BY_CONTROLLER, ownership::by_controller);
        revisions.add_index(ownership::BY_CONTROLLER, ownership::by_controller);
        Self { sets: informers.get(), pods, claims: informers.get(), revisions }
    }
}

impl Reconciler for StatefulSets {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        wires.on(&self.sets, |event, emit| emit(Key::of(&event.object().metadata)));
        let selects = |set: &StatefulSet, meta: &ObjectMeta| {
            set.spec.as_ref().is_some_and(|spec| ownership::selects(&ownership::selector(&spec.selector), meta))
        };
        let sets = self.sets.clone();
        wires.on(&self.pods, move |event, emit| {
            ownership::owners_of(event, "StatefulSet", &sets.snapshot(), selects, emit);
        });
        let sets = self.sets.clone();
        wires.on(&self.revisions, move |event, emit| {
            ownership::owners_of(event, "StatefulSet", &sets.snapshot(), selects, emit);
        });
        let sets = self.sets.clone();
        // Also when one goes: a pod whose claim is on its way out is not made before that is gone.
        wires.on(&self.claims, move |event, emit| {
            let meta = &event.object().metadata;
            let (snapshot, name) = (sets.snapshot(), meta.name.as_deref().unwrap_or_default());
            let near = snapshot.namespace(meta.namespace.as_deref().unwrap_or_default());
            near.filter(|set| identity::is_claim_of(set, name)).for_each(|set| emit(Key::of(&set.metadata)));
        });
    }

    fn snapshot(&self) -> State {
        State {
            sets: self.sets.snapshot(),
            pods: self.pods.snapshot(),
            claims: self.claims.snapshot(),
            revisions: self.revisions.snapshot(),
        }
    }

    fn plan(&self, state: &State, key: &Key, context: &Context<'_>) -> Plan {
        plan(state, key, context)
    }
}

/// What has to be done for one StatefulSet.
pub fn plan(state: &State, key: &Key, context: &Context<'_>) -> Plan {
    let Some(set) = state.sets.get(key) else { return Plan::nothing() };
    let Some(spec) = &set.spec else { return Plan::nothing() };
    let selector = ownership::selector(&spec.selector);
    let member = |pod: &Pod| identity::ordinal(set, pod).is_some();
    let mut claim = ownership::claim(set.as_ref(), &selector, &state.pods, member);
    let mut plan = Plan::default();
    if !claim.actions.is_empty() {
        plan.actions.push(Step::Parallel(std::mem::take(&mut claim.actions)));
    }
    let history = revisions::History::of(set, &state.revisions);
    let settled = history.settle();
    if set.metadata.deletion_timestamp.is_none() {
        plan.actions.extend(settled.actions.iter().cloned().map(Step::One));
        let work = rollout::Work { set, state, owned: &claim.owned, settled: &settled, now: context.now };
        plan.actions.extend(work.next());
        plan.actions.extend(history.surplus(&settled, &claim.owned));
    }
    let status = status::calculate(set, &claim.owned, &settled, context.now);
    // What counts nothing is told of by some counts only.
    if set.status.as_ref().is_none_or(|known| !decode::same(known, &status, "io.k8s.api.apps.v1.StatefulSetStatus")) {
        let mut changed = set.as_ref().clone();
        changed.status = Some(status);
        plan.status = Some(Action::update_status(&changed));
    }
    let min_ready = status::min_ready(set);
    let waits = claim.owned.iter().filter_map(|pod| pods::available_in(pod, min_ready, context.now));
    if let Some(next) = waits.filter(|wait| !wait.is_zero()).min() {
        plan.requeue(next);
    }
    plan
}

#[cfg(test)]
mod tests;
