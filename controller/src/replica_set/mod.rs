//! ReplicaSets: as many pods as asked for (upstream's pkg/controller/replicaset).

mod rank;
mod status;

use std::{sync::Arc, time::Duration};

use coracle_api::decode;
use coracle_client::{
    Action, Context, Informer, Informers, Key, Plan, Reconciler, Snapshot, Step, Wires, outline::Pod,
    recorder::reference,
};
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod as WholePod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{ownership, pods};

/// Most pods created or deleted in one plan (upstream's `BurstReplicas`).
const BURST: usize = 500;

/// Keeps the number of pods of each ReplicaSet.
pub struct ReplicaSets {
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
}

/// What a plan reads.
pub struct State {
    pub sets: Arc<Snapshot<ReplicaSet>>,
    /// With the index by controller.
    pub pods: Arc<Snapshot<Pod>>,
}

impl ReplicaSets {
    /// The controller over the process's informers.
    pub fn new(informers: &Informers) -> Self {
        let (sets, pods) = (informers.get::<ReplicaSet>(), informers.get::<Pod>());
        sets.add_index(ownership::BY_CONTROLLER, ownership::by_controller);
        pods.add_index(ownership::BY_CONTROLLER, ownership::by_controller);
        Self { sets, pods }
    }
}

impl Reconciler for ReplicaSets {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        wires.on(&self.sets, |event, emit| emit(Key::of(&event.object().metadata)));
        let sets = self.sets.clone();
        wires.on(&self.pods, move |event, emit| {
            let selects = |set: &ReplicaSet, meta: &ObjectMeta| {
                set.spec.as_ref().is_some_and(|spec| ownership::selects(&ownership::selector(&spec.selector), meta))
            };
            ownership::owners_of(event, "ReplicaSet", &sets.snapshot(), selects, emit);
        });
    }

    fn snapshot(&self) -> State {
        State { sets: self.sets.snapshot(), pods: self.pods.snapshot() }
    }

    fn plan(&self, state: &State, key: &Key, context: &Context<'_>) -> Plan {
        plan(state, key, context)
    }
}

/// What has to be done for one ReplicaSet.
pub fn plan(state: &State, key: &Key, context: &Context<'_>) -> Plan {
    let Some(set) = state.sets.get(key) else { return Plan::nothing() };
    let Some(spec) = &set.spec else { return Plan::nothing() };
    let selector = ownership::selector(&spec.selector);
    let mut claim = ownership::claim(set.as_ref(), &selector, &state.pods, pods::is_active);
    let mut plan = Plan::default();
    if !claim.actions.is_empty() {
        plan.actions.push(Step::Parallel(std::mem::take(&mut claim.actions)));
    }
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if set.metadata.deletion_timestamp.is_none() {
        plan.actions.extend(scale(state, set, &claim.owned, wanted, context));
    }
    let min_ready = Duration::from_secs(u64::try_from(spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0));
    let status = status::calculate(set, &claim.owned, status::terminating(set, &state.pods), wanted, context);
    // What counts nothing is told of by some counts only.
    if set.status.as_ref().is_none_or(|known| !decode::same(known, &status, "io.k8s.api.apps.v1.ReplicaSetStatus")) {
        let mut changed = set.as_ref().clone();
        changed.status = Some(status);
        plan.status = Some(Action::update_status(&changed));
    }
    let waits = claim.owned.iter().filter_map(|pod| pods::available_in(pod, min_ready, context.now));
    if let Some(next) = waits.filter(|wait| !wait.is_zero()).min() {
        plan.requeue(next);
    }
    plan
}

fn scale(state: &State, set: &ReplicaSet, owned: &[Arc<Pod>], wanted: usize, context: &Context<'_>) -> Option<Step> {
    let about = reference(set);
    if owned.len() < wanted {
        let pod = pod_of(set);
        let create = Action::create(&pod)
            .on_success(about.clone(), "SuccessfulCreate", "Created pod: {name}")
            .on_failure(about, "FailedCreate", "Error creating: {error}");
        return Some(Step::SlowStart(vec![create; (wanted - owned.len()).min(BURST)]));
    }
    let surplus = (owned.len() - wanted).min(BURST);
    if surplus == 0 {
        return None;
    }
    let victims = rank::victims(owned, &rank::related(set, &state.sets, &state.pods), surplus, context.now);
    let delete = |pod: &Arc<Pod>| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        Action::delete(pod.as_ref())
            .on_success(about.clone(), "SuccessfulDelete", format!("Deleted pod: {name}"))
            .on_failure(about.clone(), "FailedDelete", "Error deleting: {error}")
    };
    Some(Step::Parallel(victims.iter().map(delete).collect()))
}

/// A pod from the set's template. The server completes the name.
fn pod_of(set: &ReplicaSet) -> WholePod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let of_template = template.metadata.unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: set.metadata.namespace.clone(),
        labels: of_template.labels,
        annotations: of_template.annotations,
        finalizers: of_template.finalizers,
        owner_references: Some(vec![ownership::controlled_by(set)]),
        ..ObjectMeta::default()
    };
    WholePod { metadata, spec: template.spec, status: None }
}

#[cfg(test)]
mod tests;
