//! Bringing running containers to what the pod has been given, and telling of it (KEP-1287; kubernetes
//! `computePodResizeAction`, `pkg/kubelet/status`, `pkg/kubelet/events`).

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{Action, Draft, Input, status::whole_seconds};
use crate::cgroups::widest;
use crate::observed::Instance;
use crate::pod::{self, Role, qos, requests, resources};
use crate::work::Resizing;

/// The conditions, which are there while they hold and gone otherwise.
pub const PENDING: &str = "PodResizePending";
pub const IN_PROGRESS: &str = "PodResizeInProgress";

/// What a run has of CPU and memory, with the limits that are its pod's; not known of one that another kubelet started.
pub(super) fn has<'a>(input: &Input<'a>, instance: &'a Instance) -> Option<&'a ResourceRequirements> {
    input.resize.actuated.get(&instance.id).or(instance.resources.as_ref())
}

/// Whether a run has something else than its container has been given.
fn outdated<'a>(
    input: &Input<'a>,
    role: Role,
    container: &'a Container,
    instance: &'a Instance,
) -> Option<&'a ResourceRequirements> {
    let given = requests::effective(input.pod, container);
    let has = has(input, instance).filter(|_| requests::resizable(role) && instance.running())?;
    requests::differing(&given, has).next().is_some().then_some(has)
}

/// Whether a run must end for its container to get what it has been given.
pub(super) fn needs_restart(input: &Input<'_>, role: Role, container: &Container, instance: &Instance) -> bool {
    let Some(has) = outdated(input, role, container, instance) else { return false };
    let given = requests::effective(input.pod, container);
    let policies = container.resize_policy.as_deref().unwrap_or_default();
    requests::differing(&given, has).any(|name| {
        policies.iter().any(|policy| policy.resource_name == name && policy.restart_policy == "RestartContainer")
    })
}

/// Whether a run ends for a resize: its container has what it is to have with the next one.
fn restarts(input: &Input<'_>) -> bool {
    pod::containers(input.pod).any(|(role, container)| {
        let latest = input.observed.latest(&container.name);
        latest.is_some_and(|latest| {
            input.memory.resized.contains(&latest.id) || needs_restart(input, role, container, latest)
        })
    })
}

/// Whether the pod's group has something else than the pod has been given: as a whole, or as what its containers come to.
pub(super) fn group_outdated(input: &Input<'_>) -> bool {
    input.group.is_some_and(|has| *has != resources::of_pod(input.pod))
}

/// The containers whose runs have something else than they have been given.
fn unfinished<'a>(input: &Input<'a>) -> impl Iterator<Item = (Role, &'a Container, &'a Instance)> {
    let input = *input;
    pod::containers(input.pod).filter_map(move |(role, container)| {
        let latest = input.observed.latest(&container.name)?;
        outdated(&input, role, container, latest).map(|_| (role, container, latest))
    })
}

impl Draft<'_> {
    /// Changes what can be changed without a restart. The pod's group never needs one.
    pub(super) fn resize(&mut self) {
        let Input { memory, .. } = self.input;
        let runs: Vec<Resizing> = unfinished(&self.input)
            .filter(|(role, container, instance)| !needs_restart(&self.input, *role, container, instance))
            .filter(|(_, _, instance)| !memory.busy.stopping.contains(&instance.id))
            .filter_map(|(_, container, instance)| {
                let has = has(&self.input, instance)?.clone();
                Some(Resizing { id: instance.id.clone(), container: container.name.clone(), has })
            })
            .collect();
        let whole = !restarts(&self.input);
        let group = self.input.group.is_some_and(|has| {
            let wanted = resources::of_pod(self.input.pod);
            *has != if whole { wanted } else { widest(has, &wanted) }
        });
        if (group || !runs.is_empty()) && !memory.busy.resizing && !self.blocked(memory.resize_failure.as_ref()) {
            self.actions.push(Action::Resize { runs, whole });
        }
    }

    /// Tells what is new in the conditions.
    pub(super) fn tell_resize(&mut self, status: &PodStatus) {
        let news = |old: Option<&PodCondition>, new: Option<&PodCondition>| match (old, new) {
            (Some(old), Some(new)) => {
                (&old.reason, &old.message, old.observed_generation)
                    != (&new.reason, &new.message, new.observed_generation)
            }
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let (old, new) = (self.input.old(), Some(status));
        let pod = self.input.pod;
        if let Some(pending) = find(new, PENDING).filter(|new| news(find(old, PENDING), Some(new))) {
            let (event, word) = match pending.reason.as_deref() {
                Some("Infeasible") => ("ResizeInfeasible", "Infeasible"),
                _ => ("ResizeDeferred", "Deferred"),
            };
            let wanted = self.input.desired;
            let message = summary(wanted, &format!("Pod resize {word}"), pending);
            self.tell_pod(true, event, message);
        }
        let (before, now) = (find(old, IN_PROGRESS), find(new, IN_PROGRESS));
        let failed = now.is_some_and(|now| now.reason.as_deref() == Some("Error"));
        match (before, now) {
            (before, Some(now)) if failed && news(before, Some(now)) => {
                let message = summary(pod, "Pod resize error", now);
                self.tell_pod(true, "ResizeError", message);
            }
            (before, Some(now))
                if !failed && before.map(|before| before.observed_generation) != Some(now.observed_generation) =>
            {
                let message = summary(pod, "Pod resize started", now);
                self.tell_pod(false, "ResizeStarted", message);
            }
            (Some(before), None) => {
                let message = summary(pod, "Pod resize completed", &PodCondition { message: None, ..before.clone() });
                self.tell_pod(false, "ResizeCompleted", message);
            }
            _ => {}
        }
    }

    fn tell_pod(&mut self, warning: bool, reason: &'static str, message: String) {
        self.actions.push(Action::Tell { warning, reason, message, container: None });
    }
}

fn find<'a>(status: Option<&'a PodStatus>, kind: &str) -> Option<&'a PodCondition> {
    status?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// The conditions that hold now.
pub(super) fn conditions(draft: &Draft<'_>) -> Vec<PodCondition> {
    let Input { resize, pod, desired, memory, now, .. } = draft.input;
    let old = draft.input.old();
    let condition = |kind: &str, reason: Option<&str>, message: Option<String>, generation: Option<i64>| PodCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_transition_time: find(old, kind)
            .and_then(|old| old.last_transition_time.clone())
            .or(Some(Time(whole_seconds(now)))),
        observed_generation: generation,
        ..PodCondition::default()
    };
    let pending = resize.pending.as_ref().map(|pending| {
        condition(PENDING, Some(pending.reason), Some(pending.message.clone()), desired.metadata.generation)
    });
    let unfinished = || group_outdated(&draft.input) || unfinished(&draft.input).next().is_some();
    let in_progress = (restarts(&draft.input) || unfinished()).then(|| {
        let failure = memory.resize_failure.as_ref();
        let generation = resize.generation.or(pod.metadata.generation);
        condition(IN_PROGRESS, failure.map(|f| f.reason), failure.map(|f| f.message.clone()), generation)
    });
    pending.into_iter().chain(in_progress).collect()
}

/// The text of an event: what the containers are to have, as JSON (kubernetes `podResizeMessage`).
fn summary(pod: &Pod, prefix: &str, condition: &PodCondition) -> String {
    let list = |wanted: &[Role]| -> Vec<Value> {
        let chosen = pod::containers(pod).filter(|(role, _)| wanted.contains(role));
        chosen.map(|(_, container)| json!({"name": container.name, "resources": container.resources.clone().unwrap_or_default()})).collect()
    };
    let mut parts = Vec::new();
    if let Some(own) = qos::own(pod) {
        parts.push(format!("\"resources\":{}", json!(own)));
    }
    for (name, list) in [("initContainers", list(&[Role::Init, Role::Sidecar])), ("containers", list(&[Role::App]))] {
        if !list.is_empty() {
            parts.push(format!("\"{name}\":{}", Value::Array(list)));
        }
    }
    parts.push(format!("\"generation\":{}", condition.observed_generation.unwrap_or(0)));
    if let Some(error) = condition.message.as_deref().filter(|message| !message.is_empty()) {
        parts.push(format!("\"error\":{}", Value::from(error)));
    }
    format!("{prefix}: {{{}}}", parts.join(","))
}
