//! What to do about a pod, decided without I/O, clock or randomness: pod + runtime's state + memory → actions and status.

mod admission;
mod backoff;
mod containers;
mod phase;
mod resize;
mod restart_all;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use k8s_cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

pub use backoff::Backoff;

pub use resize::{IN_PROGRESS as RESIZE_IN_PROGRESS, PENDING as RESIZE_PENDING};

use crate::allocation::Resize;
use crate::observed::Observed;
use crate::pod::sysctls::SysctlPattern;
use crate::pod::{self, Role};
use crate::work::Resizing;

/// Something to do. What takes time runs beside the plan, and is [`Busy`] until it is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make the volumes.
    PrepareVolumes,
    /// Make a sandbox.
    CreateSandbox { attempt: u32 },
    /// Stop a sandbox and take its network away.
    StopSandbox { id: String },
    /// Remove a sandbox with everything in it.
    RemoveSandbox { id: String },
    /// Pull the image if need be, make and start a container.
    Start { container: String, role: Role, attempt: u32 },
    /// End a container: its preStop hook, SIGTERM, SIGKILL after `grace` seconds.
    Stop { id: String, container: String, message: String, grace: i64 },
    /// End a container as [`Action::Stop`] does, because it is to have other resources and wants a restart for that.
    StopToResize { id: String, container: String, grace: i64 },
    /// Change what the pod's group and running containers have.
    /// The group only grows while others restart for it (`whole` is false).
    Resize { runs: Vec<Resizing>, whole: bool },
    /// Remove a container that has ended.
    Remove { id: String },
    /// Remove the run that had all containers of the pod run anew, as the last one.
    Reset { id: String, container: String },
    /// Tell an event about the pod or one of its containers.
    Tell { warning: bool, reason: &'static str, message: String, container: Option<String> },
    /// Everything has ended: tell the API that the object can go.
    Finish,
    /// Remove the pod's directories, volumes and cgroup.
    CleanUp,
}

impl fmt::Display for Action {
    /// A short form for tests and logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrepareVolumes => f.write_str("prepare volumes"),
            Self::CreateSandbox { attempt } => write!(f, "create sandbox #{attempt}"),
            Self::StopSandbox { id } => write!(f, "stop sandbox {id}"),
            Self::RemoveSandbox { id } => write!(f, "remove sandbox {id}"),
            Self::Start { container, attempt, .. } => write!(f, "start {container} #{attempt}"),
            Self::Stop { id, grace, message, .. } => write!(f, "stop {id} in {grace}s: {message}"),
            Self::StopToResize { id, grace, .. } => write!(f, "stop {id} in {grace}s to resize it"),
            Self::Resize { runs, .. } => {
                let ids: Vec<_> = runs.iter().map(|run| run.id.as_str()).collect();
                write!(f, "resize {}", if ids.is_empty() { "the pod".to_owned() } else { ids.join(" ") })
            }
            Self::Remove { id } => write!(f, "remove {id}"),
            Self::Reset { id, .. } => write!(f, "reset {id}"),
            Self::Tell { reason, message, .. } => write!(f, "tell {reason}: {message}"),
            Self::Finish => f.write_str("finish"),
            Self::CleanUp => f.write_str("clean up"),
        }
    }
}

/// Why something does not work, until when it is not tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `ErrImagePull`, `CreateContainerConfigError` …
    pub reason: &'static str,
    pub message: String,
    pub since: Timestamp,
    pub retry_at: Timestamp,
    /// How often it failed in a row.
    pub count: u32,
}

impl Failure {
    /// A failure at `now`, tried again after a second that doubles up to ten (upstream's pod workers wait ten).
    pub fn again(previous: Option<&Self>, reason: &'static str, message: String, now: Timestamp) -> Self {
        let count = previous.map_or(1, |previous| previous.count.saturating_add(1));
        let pause = (1_i64 << (count - 1).min(4)).min(10);
        let retry_at = now.saturating_add(jiff::SignedDuration::from_secs(pause)).unwrap_or(Timestamp::MAX);
        Self { reason, message, since: now, retry_at, count }
    }
}

/// What the probes of a running container say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// The startup probe has passed. Without one, from the start.
    pub started: bool,
    /// The readiness probe passes. Without one, from the start.
    pub ready: bool,
    /// The probe that failed for good, if one did.
    pub failed: Option<FailedProbe>,
}

/// A probe whose failure ends a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedProbe {
    /// `liveness` or `startup`.
    pub probe: &'static str,
    /// The probe's own grace period.
    pub grace: Option<i64>,
}

/// What runs beside the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Busy {
    pub volumes: bool,
    /// A sandbox is being made, stopped or removed.
    pub sandbox: bool,
    /// Containers that are being started.
    pub starting: BTreeSet<String>,
    /// Runs that are being stopped or removed, by id.
    pub stopping: BTreeSet<String>,
    /// What running containers have is being changed.
    pub resizing: bool,
    pub finishing: bool,
    pub cleaning: bool,
}

impl Busy {
    fn any(&self) -> bool {
        self.volumes
            || self.sandbox
            || self.resizing
            || self.finishing
            || self.cleaning
            || !self.starting.is_empty()
            || !self.stopping.is_empty()
    }
}

/// What is remembered of a pod between plans.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    pub busy: Busy,
    pub volumes_ready: bool,
    pub volumes_failure: Option<Failure>,
    pub sandbox_failure: Option<Failure>,
    /// By container.
    pub start_failures: BTreeMap<String, Failure>,
    pub resize_failure: Option<Failure>,
    /// Runs that were ended to be resized: another follows whatever the restart policy says.
    pub resized: BTreeSet<String>,
    /// By container.
    pub restarts: BTreeMap<String, Backoff>,
    /// By container: the runs whose back-off was told.
    pub told: BTreeMap<String, String>,
    /// By run.
    pub health: BTreeMap<String, Health>,
    /// The sandbox of a pod that has ended was stopped, the object released, the directories removed.
    pub finished: bool,
    pub cleaned: bool,
}

/// The pod in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It is to run.
    Run,
    /// It is to end; the object stays until it has.
    End,
    /// Its object is gone.
    Gone,
}

/// Everything a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The pod with the resources that it has been given.
    pub pod: &'a Pod,
    /// The pod with those that it asks for.
    pub desired: &'a Pod,
    /// Where its resize stands.
    pub resize: &'a Resize,
    /// What the pod's group has, where there is one.
    pub group: Option<&'a LinuxContainerResources>,
    pub wanted: Wanted,
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    /// The status that was made last: the object in the API may be older.
    pub last: Option<&'a PodStatus>,
    /// Whether the node has AppArmor.
    pub apparmor: bool,
    /// Kernel parameters beside the safe ones that pods may set.
    pub sysctls: &'a [SysctlPattern],
    /// The node's own address.
    pub host_ip: &'a str,
    /// The runtime's name: containers' ids begin with it.
    pub runtime: &'a str,
    pub now: Timestamp,
}

impl<'a> Input<'a> {
    /// The newest status there is.
    fn old(&self) -> Option<&'a PodStatus> {
        self.last.or(self.pod.status.as_ref())
    }

    /// A container's status as it was told last.
    fn told(&self, container: &str) -> Option<&'a ContainerStatus> {
        let status = self.old()?;
        let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten().find(|status| status.name == container)
    }

    /// How many runs a container has had of which the runtime knows none, because somebody removed them there: the count goes
    /// on all the same (upstream's kubelet counts the container's log files then).
    fn lost_runs(&self, container: &str) -> u32 {
        let Some(told) = self.told(container) else { return 0 };
        let ran = told.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some());
        u32::try_from(told.restart_count).unwrap_or(0) + u32::from(ran)
    }

    /// Whether the pod has ended for good: that is never taken back.
    fn terminal(&self) -> bool {
        let ended = |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        pod::is_terminal(self.pod) || self.last.is_some_and(ended)
    }
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub status: PodStatus,
    /// When to plan again though nothing happened.
    pub wake: Option<Timestamp>,
    /// Nothing is left of the pod.
    pub done: bool,
}

/// Why a container waits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    reason: String,
    message: Option<String>,
}

/// A plan while it is being made.
struct Draft<'a> {
    input: Input<'a>,
    actions: Vec<Action>,
    /// By container.
    waiting: BTreeMap<String, Waiting>,
    wake: Option<Timestamp>,
    /// The pod has outlived its activeDeadlineSeconds.
    overdue: bool,
    /// The pod is not begun: the reason, and what it means.
    rejected: Option<(String, String)>,
}

/// Decides.
pub fn plan(input: Input<'_>) -> Plan {
    let (actions, waiting) = (Vec::new(), BTreeMap::new());
    let mut draft = Draft { input, actions, waiting, wake: None, overdue: false, rejected: None };
    draft.check_deadline();
    let mut ending = input.wanted != Wanted::Run || draft.overdue || input.terminal();
    if !ending {
        draft.admit();
        ending = draft.rejected.is_some();
    }
    let done = if ending { draft.end() } else { draft.run() };
    let status = status::of(&draft, ending);
    if !ending {
        draft.tell_resize(&status);
    }
    Plan { actions: draft.actions, status, wake: draft.wake, done }
}

impl<'a> Draft<'a> {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |earlier| earlier.min(at)));
    }

    /// Whether a failure still stands in the way of trying again.
    fn blocked(&mut self, failure: Option<&Failure>) -> bool {
        match failure {
            Some(failure) if failure.retry_at > self.input.now => {
                self.wake_at(failure.retry_at);
                true
            }
            _ => false,
        }
    }

    fn check_deadline(&mut self) {
        let spec = self.input.pod.spec.as_ref();
        let start = self.input.old().and_then(|status| status.start_time.as_ref());
        let (Some(seconds), Some(start)) = (spec.and_then(|spec| spec.active_deadline_seconds), start) else { return };
        let end = start.0.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        if end <= self.input.now {
            self.overdue = !self.input.terminal();
        } else {
            self.wake_at(end);
        }
    }

    /// Volumes, sandbox, init containers, containers.
    fn run(&mut self) -> bool {
        let Input { observed, memory, .. } = self.input;
        if !memory.volumes_ready && !memory.busy.volumes && !self.blocked(memory.volumes_failure.as_ref()) {
            self.actions.push(Action::PrepareVolumes);
        }
        self.stop_strays();
        if let Some((container, ended)) = restart_all::trigger(&self.input) {
            self.restart_all(container, ended);
            return false;
        }
        let progress = containers::progress(&self.input);
        if progress.ended {
            self.stop_sandboxes();
            return false;
        }
        match observed.sandbox() {
            None => self.make_sandbox(),
            Some(sandbox) if memory.volumes_ready => {
                // Also while an init container fails: that may be what is to be looked into.
                self.run_ephemeral(&sandbox.id);
                self.run_containers(&sandbox.id);
                self.resize();
            }
            Some(_) => {}
        }
        false
    }

    fn make_sandbox(&mut self) {
        let Input { observed, memory, .. } = self.input;
        let alive = observed.instances.iter().any(|instance| instance.running());
        if memory.busy.sandbox || alive || self.blocked(memory.sandbox_failure.as_ref()) {
            return;
        }
        let attempt = observed.sandboxes.iter().map(|sandbox| sandbox.attempt + 1).max().unwrap_or(0);
        self.actions.push(Action::CreateSandbox { attempt });
    }

    /// Ends runs whose sandbox is not the one in use, and removes older sandboxes and all but two runs of a container.
    fn stop_strays(&mut self) {
        let Input { observed, memory, pod, .. } = self.input;
        let current = observed.sandbox().map(|sandbox| sandbox.id.as_str());
        for instance in &observed.instances {
            if memory.busy.stopping.contains(&instance.id) {
                continue;
            }
            if instance.running() && current != Some(instance.sandbox.as_str()) {
                let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
                self.actions.push(Action::Stop {
                    id: instance.id.clone(),
                    container: instance.name.clone(),
                    message,
                    grace: pod::grace(pod),
                });
            }
            let newer = observed
                .instances
                .iter()
                .filter(|other| other.name == instance.name && other.attempt > instance.attempt)
                .count();
            if !instance.running() && newer >= 2 {
                self.actions.push(Action::Remove { id: instance.id.clone() });
            }
        }
        if memory.busy.sandbox {
            return;
        }
        let used = |id: &str| {
            observed
                .instances
                .iter()
                .any(|instance| instance.sandbox == id && (instance.running() || is_kept(observed, instance)))
        };
        for sandbox in
            observed.sandboxes.iter().filter(|sandbox| Some(sandbox.id.as_str()) != current && current.is_some())
        {
            if sandbox.ready {
                self.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
            } else if !used(&sandbox.id) {
                self.actions.push(Action::RemoveSandbox { id: sandbox.id.clone() });
            }
        }
    }

    fn stop_sandboxes(&mut self) {
        let Input { observed, memory, .. } = self.input;
        if memory.busy.sandbox || observed.instances.iter().any(|instance| instance.running()) {
            return;
        }
        if let Some(sandbox) = observed.sandboxes.iter().find(|sandbox| sandbox.ready) {
            self.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }

    /// Ends everything: containers, sidecars after them, sandboxes; then the object, then what is on the disk.
    fn end(&mut self) -> bool {
        let Input { observed, memory, wanted, pod, .. } = self.input;
        let running: Vec<_> = observed.instances.iter().filter(|instance| instance.running()).collect();
        let sidecar = |name: &str| matches!(pod::container(pod, name), Some((Role::Sidecar, _)));
        let apps = running.iter().any(|instance| !sidecar(&instance.name));
        for instance in &running {
            if memory.busy.stopping.contains(&instance.id) || (apps && sidecar(&instance.name)) {
                continue;
            }
            let message = format!("Stopping container {}", instance.name);
            self.actions.push(Action::Stop {
                id: instance.id.clone(),
                container: instance.name.clone(),
                message,
                grace: self.remaining_grace(),
            });
        }
        if !running.is_empty() || !memory.busy.starting.is_empty() {
            return false;
        }
        self.stop_sandboxes();
        let stopped = !observed.sandboxes.iter().any(|sandbox| sandbox.ready) && !memory.busy.any();
        match wanted {
            Wanted::End if stopped && !memory.finished => self.actions.push(Action::Finish),
            Wanted::Gone if stopped => return self.remove(),
            _ => {}
        }
        false
    }

    fn remove(&mut self) -> bool {
        let Input { observed, memory, .. } = self.input;
        if let Some(sandbox) = observed.sandboxes.first() {
            self.actions.push(Action::RemoveSandbox { id: sandbox.id.clone() });
        } else if let Some(instance) = observed.instances.first() {
            self.actions.push(Action::Remove { id: instance.id.clone() });
        } else if !memory.cleaned {
            self.actions.push(Action::CleanUp);
        } else {
            return true;
        }
        false
    }

    /// What is left of the grace period; the deletion timestamp says when it ends.
    fn remaining_grace(&self) -> i64 {
        let Input { pod, now, .. } = self.input;
        let grace = pod::grace(pod);
        let Some(end) = &pod.metadata.deletion_timestamp else { return grace };
        end.0.duration_since(now).as_secs().clamp(0, grace.max(0))
    }
}

/// The last two runs of a container are kept for their logs.
fn is_kept(observed: &Observed, instance: &crate::observed::Instance) -> bool {
    observed.instances.iter().filter(|other| other.name == instance.name && other.attempt > instance.attempt).count()
        < 2
}
