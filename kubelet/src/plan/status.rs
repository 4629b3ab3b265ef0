//! The status a pod's object gets (kubernetes `pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/status`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Draft, Input, phase, resize, restart_all};
use crate::observed::{Instance, State};
use crate::pod::{self, Role, qos, requests};

/// A container's id as the API writes it.
fn container_id(input: &Input<'_>, id: &str) -> String {
    format!("{}://{id}", input.runtime)
}

pub(super) fn of(draft: &Draft<'_>, ending: bool) -> PodStatus {
    if let Some(status) = draft.rejection() {
        return status;
    }
    let Input { pod, observed, host_ip, now, .. } = draft.input;
    let old = draft.input.old();
    let initialized = initialized(&draft.input);
    let statuses = |init: bool| -> Vec<ContainerStatus> {
        let chosen = pod::containers(pod).filter(|(role, _)| (*role != Role::App) == init);
        chosen.map(|(role, container)| container_status(draft, role, container, initialized, ending)).collect()
    };
    let (init, app) = (statuses(true), statuses(false));
    let ephemeral: Vec<ContainerStatus> = pod::ephemeral(pod)
        .iter()
        .map(|one| {
            let container = pod::as_container(one);
            let status = container_status(draft, Role::Ephemeral, &container, initialized, ending);
            // Nobody asks whether it is ready, and so it is not.
            ContainerStatus { ready: false, started: None, ..status }
        })
        .collect();
    let mut phases = [draft.input.last, pod.status.as_ref()].into_iter().flatten().filter_map(|s| s.phase.as_deref());
    let final_phase = phases.find(|phase| matches!(*phase, "Succeeded" | "Failed"));
    let phase = match final_phase {
        Some(phase) => phase.to_owned(),
        None if draft.overdue => "Failed".to_owned(),
        // Whatever its containers came to, they run anew.
        None if !ending && restart_all::trigger(&draft.input).is_some() => "Pending".to_owned(),
        None => phase::of(pod, &init, &app, ending).to_owned(),
    };
    let (reason, message) = if draft.overdue {
        (
            Some("DeadlineExceeded".to_owned()),
            Some("Pod was active on the node longer than the specified deadline".to_owned()),
        )
    } else {
        (old.and_then(|s| s.reason.clone()), old.and_then(|s| s.message.clone()))
    };
    let addresses = match observed.sandboxes.first() {
        _ if pod::host_network(pod) => vec![host_ip.to_owned()],
        Some(sandbox) if !sandbox.addresses.is_empty() => sandbox.addresses.clone(),
        _ => old
            .and_then(|s| s.pod_ips.as_ref())
            .map(|ips| ips.iter().map(|ip| ip.ip.clone()).collect())
            .unwrap_or_default(),
    };
    let mut status = PodStatus {
        phase: Some(phase),
        reason,
        message,
        host_ip: Some(host_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: host_ip.to_owned() }]),
        pod_ip: addresses.first().cloned(),
        pod_ips: (!addresses.is_empty()).then(|| addresses.into_iter().map(|ip| PodIP { ip }).collect()),
        qos_class: old.and_then(|s| s.qos_class.clone()).or_else(|| Some(qos::of(pod).as_str().to_owned())),
        start_time: old.and_then(|s| s.start_time.clone()).or(Some(Time(whole_seconds(now)))),
        observed_generation: pod.metadata.generation,
        container_statuses: Some(app),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        ..PodStatus::default()
    };
    (status.allocated_resources, status.resources) = whole(&draft.input);
    let mut all = conditions(draft, &status, initialized);
    if !ending {
        all.extend(resize::conditions(draft));
    }
    all.extend(restart_all::condition(draft, status.phase.as_deref().unwrap_or_default()));
    status.conditions = Some(all);
    status
}

/// What the pod has been given of its requests, and what it has where it asks as a whole (KEP-5419).
fn whole(input: &Input<'_>) -> (Option<BTreeMap<String, Quantity>>, Option<ResourceRequirements>) {
    let own = |container: &Container| container.resources.clone().unwrap_or_default();
    let allocated = requests::told(input.pod, own).requests;
    if qos::own(input.pod).is_none() {
        return (allocated, None);
    }
    let told = input.old().and_then(|old| old.resources.clone());
    if let Some(told) = told.filter(|_| resize::group_outdated(input)) {
        return (allocated, Some(told));
    }
    let has = requests::told(input.pod, |container| {
        let latest = input.observed.latest(&container.name).filter(|latest| latest.running());
        let has = latest.and_then(|latest| resize::has(input, latest)).cloned();
        has.map_or_else(|| own(container), |has| requests::without_inherited(container, has))
    });
    (allocated, Some(has))
}

/// Times are written with whole seconds; equal statuses must compare equal.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

pub(super) fn api_time(time: Option<Timestamp>) -> Option<Time> {
    time.map(|time| Time(whole_seconds(time)))
}

/// Whether all init containers are done, and sidecars among them up.
fn initialized(input: &Input<'_>) -> bool {
    let apps_began =
        pod::containers(input.pod).any(|(role, c)| role == Role::App && input.observed.latest(&c.name).is_some());
    apps_began
        || pod::containers(input.pod).filter(|(role, _)| *role != Role::App).all(|(role, container)| {
            input.observed.latest(&container.name).is_some_and(|latest| match role {
                Role::Sidecar => {
                    latest.running() && input.memory.health.get(&latest.id).is_some_and(|health| health.started)
                }
                _ => latest.state == State::Exited && latest.exit_code == 0,
            })
        })
}

fn container_status(
    draft: &Draft<'_>,
    role: Role,
    container: &Container,
    initialized: bool,
    ending: bool,
) -> ContainerStatus {
    let Input { observed, memory, pod, .. } = draft.input;
    let latest = observed.latest(&container.name);
    let waiting = draft.waiting.get(container.name.as_str());
    let health = latest.and_then(|latest| memory.health.get(&latest.id)).copied().unwrap_or_default();
    let running = latest.is_some_and(Instance::running);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ready: match role {
            Role::Init => latest.is_some_and(|latest| latest.state == State::Exited && latest.exit_code == 0),
            _ => running && health.started && health.ready,
        },
        started: Some(running && (role == Role::Init || health.started)),
        ..ContainerStatus::default()
    };
    if role != Role::Ephemeral {
        let given = container.resources.clone().unwrap_or_default();
        status.allocated_resources.clone_from(&given.requests);
        // What runs has what it was started with until it has been resized.
        let has = latest.filter(|latest| latest.running()).and_then(|latest| resize::has(&draft.input, latest));
        let has = has.map(|has| requests::without_inherited(container, has.clone()));
        status.resources = Some(has.unwrap_or(given));
    }
    if let Some(latest) = latest {
        status.restart_count = i32::try_from(latest.attempt).unwrap_or(i32::MAX);
        status.container_id = Some(container_id(&draft.input, &latest.id));
        status.image_id = latest.image_id.clone();
        if !latest.image.is_empty() {
            status.image = latest.image.clone();
        }
    } else {
        status.restart_count = i32::try_from(draft.input.lost_runs(&container.name)).unwrap_or(i32::MAX);
    }
    let state = latest.filter(|latest| latest.state != State::Created).map(|latest| self::state(&draft.input, latest));
    let earlier = |instance: Option<&Instance>| {
        let earlier = instance.filter(|i| i.ended()).map(|i| self::state(&draft.input, i));
        // Of runs that the runtime knows no more, what was told is known.
        earlier.or_else(|| told_end(&draft.input, container, latest))
    };
    match (state, waiting) {
        // It ended and waits for its next run: that is its state, and the end is its last one.
        (Some(ended), Some(waiting)) if ended.terminated.is_some() && !ending => {
            status.state = Some(waiting_state(&waiting.reason, waiting.message.clone()));
            status.last_state = Some(ended);
        }
        (Some(state), _) => {
            status.state = Some(state);
            status.last_state = earlier(observed.previous(&container.name)).or(Some(ContainerState::default()));
        }
        (None, waiting) => {
            status.last_state = earlier(observed.previous(&container.name)).or(Some(ContainerState::default()));
            status.state = Some(match waiting {
                Some(waiting) => waiting_state(&waiting.reason, waiting.message.clone()),
                None if role == Role::App && !initialized => waiting_state("PodInitializing", None),
                None if role != Role::Ephemeral && has_init(pod) => waiting_state("PodInitializing", None),
                None => waiting_state("ContainerCreating", None),
            });
        }
    }
    status
}

/// How the last run ended that was told of, and is not `latest`.
fn told_end(input: &Input<'_>, container: &Container, latest: Option<&Instance>) -> Option<ContainerState> {
    let told = input.told(&container.name)?;
    let ends = [&told.state, &told.last_state].into_iter().flatten().filter_map(|state| state.terminated.as_ref());
    let own = latest.map(|latest| container_id(input, &latest.id));
    let mut ends = ends.filter(|end| own.is_none() || end.container_id != own);
    ends.next().map(|end| ContainerState { terminated: Some(end.clone()), ..ContainerState::default() })
}

fn has_init(pod: &Pod) -> bool {
    pod::containers(pod).any(|(role, _)| role != Role::App)
}

fn waiting_state(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

fn state(input: &Input<'_>, instance: &Instance) -> ContainerState {
    match instance.state {
        State::Running => {
            let running = ContainerStateRunning { started_at: api_time(instance.started.or(Some(instance.created))) };
            ContainerState { running: Some(running), ..ContainerState::default() }
        }
        State::Created => waiting_state("ContainerCreating", None),
        State::Exited | State::Unknown => {
            let lost = instance.state == State::Unknown;
            let reason = match (lost, instance.reason.as_str(), instance.exit_code) {
                // The runtime does not know how it ended (upstream's words and code for that).
                (true, ..) => "ContainerStatusUnknown".to_owned(),
                (_, "", 0) => "Completed".to_owned(),
                (_, "", _) => "Error".to_owned(),
                (_, reason, _) => reason.to_owned(),
            };
            let message = if lost && instance.message.is_empty() {
                Some("The container could not be located when the pod was terminated".to_owned())
            } else {
                (!instance.message.is_empty()).then(|| instance.message.clone())
            };
            let ended = ContainerStateTerminated {
                container_id: Some(container_id(input, &instance.id)),
                exit_code: if lost { 137 } else { instance.exit_code },
                finished_at: api_time(instance.finished),
                message,
                reason: Some(reason),
                signal: None,
                started_at: api_time(instance.started),
            };
            ContainerState { terminated: Some(ended), ..ContainerState::default() }
        }
    }
}

/// A condition before it is compared with the one that stands.
struct Finding {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

fn conditions(draft: &Draft<'_>, status: &PodStatus, initialized: bool) -> Vec<PodCondition> {
    let Input { pod, observed, .. } = draft.input;
    let phase = status.phase.as_deref().unwrap_or_default();
    let over = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let sandbox = observed.sandbox().is_some_and(|sandbox| pod::host_network(pod) || !sandbox.addresses.is_empty());
    let unready: Vec<&str> =
        status.container_statuses.iter().flatten().filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    let containers = match over {
        Some(reason) => Finding { kind: "ContainersReady", holds: false, reason: Some(reason), message: None },
        None if unready.is_empty() => Finding { kind: "ContainersReady", holds: true, reason: None, message: None },
        None => {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            Finding {
                kind: "ContainersReady",
                holds: false,
                reason: Some("ContainersNotReady"),
                message: Some(message),
            }
        }
    };
    let ready = ready(pod, &containers);
    let incomplete: Vec<&str> = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|s| !(s.ready || s.started == Some(true)))
        .map(|s| s.name.as_str())
        .collect();
    let init = match over {
        _ if initialized || phase == "Succeeded" => {
            Finding { kind: "Initialized", holds: true, reason: over.filter(|_| phase == "Succeeded"), message: None }
        }
        _ => {
            let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            Finding {
                kind: "Initialized",
                holds: false,
                reason: Some("ContainersNotInitialized"),
                message: Some(message),
            }
        }
    };
    let ready_to_start = Finding { kind: "PodReadyToStartContainers", holds: sandbox, reason: None, message: None };
    let mut found = vec![ready_to_start, init, ready, containers];
    if !pod
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_ref())
        .is_some_and(|c| c.iter().any(|c| c.type_ == "PodScheduled"))
    {
        found.push(Finding { kind: "PodScheduled", holds: true, reason: None, message: None });
    }
    found.into_iter().map(|finding| condition(draft, finding)).collect()
}

fn ready(pod: &Pod, containers: &Finding) -> Finding {
    let base = |holds, reason, message| Finding { kind: "Ready", holds, reason, message };
    if !containers.holds {
        return base(false, containers.reason, containers.message.clone());
    }
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let closed =
        gates.iter().find(|gate| !conditions.iter().any(|c| c.type_ == gate.condition_type && c.status == "True"));
    match closed {
        Some(gate) => {
            let there = conditions.iter().any(|c| c.type_ == gate.condition_type);
            let state = if there {
                "the status of pod readiness gate"
            } else {
                "corresponding condition of pod readiness gate"
            };
            let what = if there { "is not \"True\", but False" } else { "does not exist." };
            base(false, Some("ReadinessGatesNotReady"), Some(format!("{state} \"{}\" {what}", gate.condition_type)))
        }
        None => base(true, None, None),
    }
}

/// Keeps the time of the last transition while the status stays the same.
fn condition(draft: &Draft<'_>, finding: Finding) -> PodCondition {
    let Input { pod, now, .. } = draft.input;
    let status = if finding.holds { "True" } else { "False" };
    let old =
        draft.input.old().and_then(|s| s.conditions.as_ref()).and_then(|c| c.iter().find(|c| c.type_ == finding.kind));
    let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
    PodCondition {
        type_: finding.kind.to_owned(),
        status: status.to_owned(),
        reason: finding.reason.map(str::to_owned),
        message: finding.message,
        last_transition_time: since.or(Some(Time(whole_seconds(now)))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}
