//! Having all containers of a pod run anew, in the pod's sandbox, because one ended as a rule of it says (KEP-5532; kubernetes
//! `pkg/kubelet/container`, `ShouldAllContainersRestart`).
//!
//! Everything that runs is ended at once, without hooks. Then all runs are removed, and what the pod does with no runs is start:
//! init containers first. The run that began this goes last, so that a kubelet that starts anew meanwhile goes on.

use k8s_openapi::api::core::v1::{Container, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Action, Draft, Input, status::whole_seconds};
use crate::observed::{Instance, State};
use crate::pod;

const CONDITION: &str = "AllContainersRestarting";

/// The container whose end has all of them run anew, and the run that ended.
pub(super) fn trigger<'a>(input: &Input<'a>) -> Option<(&'a Container, &'a Instance)> {
    let sandbox = input.observed.sandbox()?;
    pod::containers(input.pod).find_map(|(_, container)| {
        let latest = input.observed.latest(&container.name).filter(|latest| latest.sandbox == sandbox.id)?;
        let ended = latest.state == State::Exited && pod::restarts_all(container, latest.exit_code);
        (ended && !input.memory.resized.contains(&latest.id)).then_some((container, latest))
    })
}

impl Draft<'_> {
    pub(super) fn restart_all(&mut self, container: &Container, ended: &Instance) {
        let Input { observed, memory, pod, now, .. } = self.input;
        let running: Vec<_> = observed.instances.iter().filter(|instance| instance.running()).collect();
        for instance in running.iter().filter(|instance| !memory.busy.stopping.contains(&instance.id)) {
            let (id, container) = (instance.id.clone(), instance.name.clone());
            let message = format!("Stopping container {container}, all containers will be restarted");
            self.actions.push(Action::Stop { id, container, message, grace: 0 });
        }
        if !running.is_empty() || !memory.busy.starting.is_empty() {
            return;
        }
        // A pod that does so again and again waits as a container would.
        let until = memory
            .restarts
            .get(&container.name)
            .copied()
            .and_then(|backoff| Some((backoff, backoff.until(ended.finished.unwrap_or(ended.created), now)?)));
        if let Some((backoff, until)) = until.filter(|(_, until)| *until > now) {
            self.crash_loop(container, ended, backoff, until);
            return;
        }
        let lasting = |instance: &&Instance| pod::containers(pod).any(|(_, one)| one.name == instance.name);
        let others: Vec<_> = observed.instances.iter().filter(lasting).filter(|other| other.id != ended.id).collect();
        for other in others.iter().filter(|other| !memory.busy.stopping.contains(&other.id)) {
            let remove = Action::Remove { id: other.id.clone() };
            if !self.actions.contains(&remove) {
                self.actions.push(remove);
            }
        }
        if others.is_empty() && !memory.busy.stopping.contains(&ended.id) {
            self.actions.push(Action::Reset { id: ended.id.clone(), container: container.name.clone() });
        }
    }
}

/// The condition of a pod of which this could happen.
pub(super) fn condition(draft: &Draft<'_>, phase: &str) -> Option<PodCondition> {
    let Input { pod, now, .. } = draft.input;
    if !pod::could_restart_all(pod) {
        return None;
    }
    let (holds, reason, message) = match (phase, trigger(&draft.input)) {
        ("Succeeded", _) => (false, Some("PodCompleted"), None),
        ("Failed", _) => (false, Some("PodFailed"), None),
        (_, Some((container, ended))) => {
            let (name, code) = (&container.name, ended.exit_code);
            let message = format!("Container {name} exited with code {code}, triggering restart of all containers");
            (true, Some("ContainerExited"), Some(message))
        }
        (_, None) => (false, None, None),
    };
    let status = if holds { "True" } else { "False" };
    let old = draft.input.old().and_then(|status| status.conditions.as_ref());
    let old = old.and_then(|all| all.iter().find(|old| old.type_ == CONDITION && old.status == status));
    Some(PodCondition {
        type_: CONDITION.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or(Some(Time(whole_seconds(now)))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    })
}
