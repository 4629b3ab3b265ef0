//! What to do next about the pods: make, correct, take away, update; one after the other, or all at once where the set
//! allows it (upstream's `updateStatefulSet` in stateful_set_control.go).

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use coracle_client::{Action, Step, action::PatchKind, outline::Pod, recorder::reference};
use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{StatefulSet, StatefulSetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    State, claims, identity,
    revisions::{Revision, Settled},
    status::is_healthy,
};
use crate::pods;

/// What the next step follows from.
pub struct Work<'a> {
    pub set: &'a StatefulSet,
    pub state: &'a State,
    pub owned: &'a [Arc<Pod>],
    pub settled: &'a Settled,
    pub now: Timestamp,
}

/// Actions so far, and whether to stop here until something changes.
#[derive(Default)]
struct Steps {
    steps: Vec<Step>,
    wait: bool,
}

impl Steps {
    fn push(&mut self, actions: Vec<Action>) {
        if !actions.is_empty() {
            self.steps.push(Step::Parallel(actions));
        }
    }
}

impl Work<'_> {
    /// The steps that can be done now.
    pub fn next(&self) -> Vec<Step> {
        let Some(spec) = &self.set.spec else { return Vec::new() };
        let (start, replicas) = (identity::start(self.set), count(spec.replicas.unwrap_or(1)));
        let (mut wanted, mut condemned) = (BTreeMap::new(), Vec::new());
        for pod in self.owned {
            match identity::ordinal(self.set, pod) {
                Some(ordinal) if (start..start + replicas).contains(&ordinal) => {
                    wanted.insert(ordinal, pod);
                }
                Some(ordinal) => condemned.push((ordinal, pod)),
                None => {}
            }
        }
        condemned.sort_by_key(|(ordinal, _)| Reverse(*ordinal));
        // One at a time: every pod must be well before the next is touched.
        let ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
        let mut steps = Steps::default();
        for ordinal in start..start + replicas {
            self.keep(ordinal, wanted.get(&ordinal).copied(), &mut steps);
            if ordered && steps.wait {
                return steps.steps;
            }
        }
        let first_unwell = self.first_unwell(&wanted, &condemned);
        for (ordinal, pod) in &condemned {
            self.take_away(*ordinal, pod, ordered, first_unwell, &mut steps);
            if ordered && steps.wait {
                return steps.steps;
            }
        }
        if spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete") {
            steps.push(self.update(spec, start, &wanted));
        }
        steps.steps
    }

    /// Makes the pod of an ordinal be there and be right.
    fn keep(&self, ordinal: u64, pod: Option<&Arc<Pod>>, steps: &mut Steps) {
        let Some(pod) = pod else {
            steps.wait = true;
            if !claims::leaving(self.set, ordinal, &self.state.claims) {
                steps.push(claims::missing(self.set, ordinal, &self.state.claims));
                steps.push(vec![self.create(ordinal)]);
            }
            return;
        };
        if pods::is_terminal(pod) {
            // It comes back under the same name, and only once this one is gone.
            steps.wait = true;
            if pod.metadata.deletion_timestamp.is_none() {
                steps.push(vec![self.delete(pod)]);
            }
            return;
        }
        if pods::phase(pod) == "Pending" {
            steps.push(claims::missing(self.set, ordinal, &self.state.claims));
        }
        if pod.metadata.deletion_timestamp.is_some() || !is_healthy(self.set, pod, self.now) {
            steps.wait = true;
        }
        if pod.metadata.deletion_timestamp.is_none() {
            let patch = |patch| Action::patch(pod.as_ref(), PatchKind::Strategic, patch).lenient();
            steps.push(identity::correction(self.set, pod, ordinal).map(patch).into_iter().collect());
            steps.push(claims::owners(self.set, ordinal, None, &self.state.claims));
        }
    }

    /// Takes away a pod that is too many, highest ordinal first.
    fn take_away(&self, ordinal: u64, pod: &Arc<Pod>, ordered: bool, first_unwell: Option<u64>, steps: &mut Steps) {
        steps.wait = true;
        if pod.metadata.deletion_timestamp.is_some() {
            // Whoever deletes it: it does not come back, and its claims go as the policy says.
            steps.push(claims::owners(self.set, ordinal, Some(pod), &self.state.claims));
            return;
        }
        if ordered && !is_healthy(self.set, pod, self.now) && first_unwell != Some(ordinal) {
            return;
        }
        steps.push(claims::owners(self.set, ordinal, Some(pod), &self.state.claims));
        steps.push(vec![self.delete(pod)]);
    }

    /// Deletes pods of an old revision, highest ordinal first; they come back with the new one.
    fn update(&self, spec: &StatefulSetSpec, start: u64, wanted: &BTreeMap<u64, &Arc<Pod>>) -> Vec<Action> {
        let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).map_or(0, count);
        let replicas = count(spec.replicas.unwrap_or(1));
        let most = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let most = most.map_or(1, |most| unavailable(most, replicas));
        let candidates = || wanted.iter().rev().filter(|(ordinal, _)| **ordinal >= start + partition);
        let old = |pod: &Arc<Pod>| identity::revision(pod) != self.settled.update.name;
        let leaving = |pod: &Arc<Pod>| pod.metadata.deletion_timestamp.is_some();
        if most == 1 {
            // The first that is old goes, also when it is not well: that is how a broken rollout is mended.
            let first =
                candidates().find(|(_, pod)| (old(pod) && !leaving(pod)) || !is_healthy(self.set, pod, self.now));
            return first
                .filter(|(_, pod)| old(pod) && !leaving(pod))
                .map(|(_, pod)| self.delete(pod))
                .into_iter()
                .collect();
        }
        let unwell = wanted.values().filter(|pod| !is_healthy(self.set, pod, self.now)).count();
        let room = most.saturating_sub(unwell);
        candidates().filter(|(_, pod)| old(pod) && !leaving(pod)).take(room).map(|(_, pod)| self.delete(pod)).collect()
    }

    /// The lowest ordinal whose pod is missing or not well.
    fn first_unwell(&self, wanted: &BTreeMap<u64, &Arc<Pod>>, condemned: &[(u64, &Arc<Pod>)]) -> Option<u64> {
        let all = wanted.iter().map(|(ordinal, pod)| (*ordinal, *pod)).chain(condemned.iter().copied());
        all.filter(|(_, pod)| !is_healthy(self.set, pod, self.now)).map(|(ordinal, _)| ordinal).min()
    }

    fn create(&self, ordinal: u64) -> Action {
        let Revision { name, template } = self.revision_for(ordinal);
        let pod = identity::pod(self.set, template, name, ordinal);
        let (about, pod_name) = (reference(self.set), identity::pod_name(self.set, ordinal));
        let set = self.set.metadata.name.as_deref().unwrap_or_default();
        Action::create(&pod)
            .lenient()
            .on_success(
                about.clone(),
                "SuccessfulCreate",
                format!("create Pod {pod_name} in StatefulSet {set} successful"),
            )
            .on_failure(
                about,
                "FailedCreate",
                format!("create Pod {pod_name} in StatefulSet {set} failed error: {{error}}"),
            )
    }

    /// Below the partition of a rolling update pods stay what they were.
    fn revision_for(&self, ordinal: u64) -> &Revision {
        let strategy = self.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        let on_delete = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete");
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let kept = match rolling.and_then(|rolling| rolling.partition) {
            Some(partition) => count(partition),
            None => self.set.status.as_ref().and_then(|status| status.current_replicas).map_or(0, count),
        };
        if !on_delete && ordinal < identity::start(self.set) + kept {
            &self.settled.current
        } else {
            &self.settled.update
        }
    }

    fn delete(&self, pod: &Arc<Pod>) -> Action {
        let (about, name) = (reference(self.set), pod.metadata.name.as_deref().unwrap_or_default());
        let set = self.set.metadata.name.as_deref().unwrap_or_default();
        Action::delete(pod.as_ref())
            .on_success(about.clone(), "SuccessfulDelete", format!("delete Pod {name} in StatefulSet {set} successful"))
            .on_failure(
                about,
                "FailedDelete",
                format!("delete Pod {name} in StatefulSet {set} failed error: {{error}}"),
            )
    }
}

/// How many pods may be away at a time: at least one. A percentage is rounded up.
fn unavailable(most: &IntOrString, replicas: u64) -> usize {
    let number = match most {
        IntOrString::Int(number) => count(*number),
        IntOrString::String(text) => {
            let percent: u64 = text.trim_end_matches('%').parse().unwrap_or(0);
            (replicas * percent.min(100)).div_ceil(100)
        }
    };
    usize::try_from(number.max(1)).unwrap_or(usize::MAX)
}

fn count(number: i32) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
