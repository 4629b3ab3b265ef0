//! Deployments: one ReplicaSet per pod template, moved from one to the next (upstream's pkg/controller/deployment).
//!
//! ```text
//! Deployment + its ReplicaSets ─► Rollout (a working copy) ─► scale / roll / recreate / clean up ─► plan
//! ```

mod annotations;
mod conditions;
mod math;
mod rollout;
mod scale;
mod strategy;

use std::sync::Arc;

use coracle_client::{Context, Informer, Informers, Key, Plan, Reconciler, Snapshot, Wires, outline::Pod};
use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::ownership;
use rollout::Rollout;

/// Rolls out Deployments.
pub struct Deployments {
    deployments: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
}

/// What a plan reads.
pub struct State {
    pub deployments: Arc<Snapshot<Deployment>>,
    /// With the index by controller.
    pub sets: Arc<Snapshot<ReplicaSet>>,
    /// With the index by controller.
    pub pods: Arc<Snapshot<Pod>>,
}

impl Deployments {
    /// The controller over the process's informers.
    pub fn new(informers: &Informers) -> Self {
        let (sets, pods) = (informers.get::<ReplicaSet>(), informers.get::<Pod>());
        sets.add_index(ownership::BY_CONTROLLER, ownership::by_controller);
        pods.add_index(ownership::BY_CONTROLLER, ownership::by_controller);
        Self { deployments: informers.get(), sets, pods }
    }
}

impl Reconciler for Deployments {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "deployment"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        wires.on(&self.deployments, |event, emit| emit(Key::of(&event.object().metadata)));
        let deployments = self.deployments.clone();
        wires.on(&self.sets, move |event, emit| {
            let selects = |deployment: &Deployment, meta: &ObjectMeta| {
                let spec = deployment.spec.as_ref();
                spec.is_some_and(|spec| ownership::selects(&ownership::selector(&spec.selector), meta))
            };
            ownership::owners_of(event, "Deployment", &deployments.snapshot(), selects, emit);
        });
        // Recreate waits for the last old pod to end; nothing else depends on pods.
        let sets = self.sets.clone();
        wires.on(&self.pods, move |event, emit| {
            if !event.is_deleted() && !crate::pods::is_terminal(event.object()) {
                return;
            }
            let meta = &event.object().metadata;
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            let set = ownership::controller(meta).and_then(|owner| sets.find(namespace, &owner.name));
            if let Some(owner) = set.as_ref().and_then(|set| ownership::controller(&set.metadata)) {
                emit(Key::new(namespace, &owner.name));
            }
        });
    }

    fn snapshot(&self) -> State {
        State { deployments: self.deployments.snapshot(), sets: self.sets.snapshot(), pods: self.pods.snapshot() }
    }

    fn plan(&self, state: &State, key: &Key, context: &Context<'_>) -> Plan {
        plan(state, key, context)
    }
}

/// What has to be done for one Deployment.
pub fn plan(state: &State, key: &Key, context: &Context<'_>) -> Plan {
    let Some(deployment) = state.deployments.get(key) else { return Plan::nothing() };
    let Some(spec) = &deployment.spec else { return Plan::nothing() };
    let everything = spec.selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
        && spec.selector.match_expressions.as_ref().is_none_or(|expressions| expressions.is_empty());
    if everything {
        let mut plan = Plan::default();
        let about = coracle_client::recorder::reference(deployment.as_ref());
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        plan.note(about, coracle_client::EventType::Warning, "SelectingAll", message);
        return plan;
    }
    let claim = ownership::claim(deployment.as_ref(), &ownership::selector(&spec.selector), &state.sets, |_| true);
    let mut rollout = Rollout::new(deployment, spec, &claim.owned, state, context);
    if deployment.metadata.deletion_timestamp.is_some() {
        rollout.find_new(false);
        rollout.sync_status();
    } else {
        rollout.check_paused();
        if spec.paused == Some(true) || rollout.is_scaling() {
            rollout.find_new(false);
            rollout.scale();
            if spec.paused == Some(true) {
                rollout.clean_up();
            }
            rollout.sync_status();
        } else if math::is_rolling(spec) {
            rollout.roll();
        } else {
            rollout.recreate();
        }
    }
    rollout.into_plan(claim.actions)
}

#[cfg(test)]
mod tests;
