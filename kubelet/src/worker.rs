//! A pod's own task: observes, plans, carries out, reports; until nothing is left of the pod.
//!
//! ```text
//! desired pod ─┐                      ┌─► operations (tasks) ─┐
//! CRI events  ─┼─► observe ─► plan() ─┤                       ├─► outcome ─► observe …
//! probes      ─┘                      └─► status patch ───────┘
//! ```

mod outcome;
mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::EventType;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use self::outcome::{Outcome, held};
use crate::allocation::{Record, Resize};
use crate::observed::{Observed, Observer};
use crate::plan::{Action, Input, Memory, Plan, Wanted, plan};
use crate::pod::{self, requests, resources};
use crate::probes;
use crate::work::{self, Shared};

/// The pod as the API has it.
#[derive(Debug, Clone)]
pub struct Desired {
    pub pod: Arc<Pod>,
    pub wanted: Wanted,
}

/// How long a failed look at the runtime waits for the next.
const OBSERVE_AGAIN: Duration = Duration::from_secs(1);
/// How often ConfigMaps, Secrets and tokens in volumes are brought up to date (upstream's `syncFrequency`).
const REFRESH: Duration = Duration::from_secs(60);

/// A run's id, and what its probes say.
type Report = (String, crate::plan::Health);

/// A pod's task.
pub struct Worker {
    shared: Arc<Shared>,
    desired: watch::Receiver<Desired>,
    /// Rung when the runtime has news of the pod.
    nudge: Arc<Notify>,
    observer: Observer,
    observed: Arc<Observed>,
    /// Rises when a pod that waited for more was given it.
    given: watch::Receiver<u64>,
    /// Whether this one waits.
    waits: bool,
    /// The generation whose resources it was given last.
    generation: Option<i64>,
    memory: Memory,
    operations: JoinSet<Outcome>,
    probes: HashMap<String, AbortHandle>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    probing: JoinSet<()>,
    /// The status that was planned last, and the one that the API has taken.
    last: Option<PodStatus>,
    sent: Option<PodStatus>,
    sending: bool,
    resend_at: Option<tokio::time::Instant>,
}

impl Worker {
    /// A worker that has not looked yet.
    pub fn new(shared: Arc<Shared>, desired: watch::Receiver<Desired>, nudge: Arc<Notify>) -> Self {
        Self {
            given: shared.allocations.changes(),
            waits: false,
            generation: None,
            shared,
            desired,
            nudge,
            observer: Observer::default(),
            observed: Arc::default(),
            memory: Memory::default(),
            operations: JoinSet::new(),
            probes: HashMap::new(),
            reports: mpsc::channel(16),
            probing: JoinSet::new(),
            last: None,
            sent: None,
            sending: false,
            resend_at: None,
        }
    }

    /// Runs until nothing is left of the pod, or until `shutdown`: then everything of the pod goes on without the kubelet.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut refresh = tokio::time::interval_at(tokio::time::Instant::now() + REFRESH, REFRESH);
        let mut seen = self.observe().await;
        let mut recovered = false;
        loop {
            if seen && !recovered {
                self.recover().await;
                recovered = true;
            }
            let wake = if seen { self.step() } else { Some(OBSERVE_AGAIN) };
            let Some(wake) = wake else { return };
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.desired.changed() => if changed.is_err() { return },
                // The sender lives as long as the node's shared state.
                Ok(()) = self.given.changed(), if self.waits => {}
                () = self.nudge.notified() => seen = self.observe().await,
                Some(outcome) = self.operations.join_next() => seen = self.settle(outcome).await,
                Some((id, health)) = self.reports.1.recv() => drop(self.memory.health.insert(id, health)),
                Some(_) = self.probing.join_next(), if !self.probing.is_empty() => {}
                _ = refresh.tick() => self.refresh(),
                () = tokio::time::sleep(wake) => if !seen { seen = self.observe().await },
            }
        }
    }

    async fn observe(&mut self) -> bool {
        let uid = pod::uid(&self.desired.borrow().pod).to_owned();
        match self.observer.observe(&self.shared.cri, &uid).await {
            Ok(observed) => {
                self.memory.resized.retain(|run| observed.instances.iter().any(|instance| instance.id == *run));
                self.observed = Arc::new(observed);
                self.sync_probes();
                true
            }
            Err(error) => {
                tracing::warn!(uid, error = %error, "the runtime did not tell the pod's state");
                false
            }
        }
    }

    /// Finds out what the pod was given by an earlier kubelet.
    async fn recover(&self) {
        let pod = self.desired.borrow().pod.clone();
        let (path, of, observed) = (self.shared.paths.resources(pod::uid(&pod)), pod.clone(), self.observed.clone());
        let shared = self.shared.clone();
        let record = tokio::task::spawn_blocking(move || {
            let record = Record::of(&path, &of, &observed);
            let (given, running) = (requests::with_allocated(&of, &record.allocated), record.running(&of, &observed));
            if observed.sandbox().is_some()
                && let Err(error) = shared.cgroups.resume(&given, &running)
            {
                tracing::warn!(pod = %pod::described(&of), error, "the pod's group could not be brought up to date");
            }
            record
        })
        .await;
        if let Ok(record) = record {
            self.shared.allocations.recover(&pod, record);
        }
    }

    /// The pod with what it has been given, and where its resize stands.
    fn given(&mut self, pod: &Arc<Pod>, wanted: Wanted) -> (Arc<Pod>, Resize) {
        let ended =
            self.last.as_ref().is_some_and(|last| matches!(last.phase.as_deref(), Some("Succeeded" | "Failed")));
        let given = match wanted {
            Wanted::Run if !ended => self.shared.allocations.offer(pod),
            _ => self.shared.allocations.given(pod),
        };
        if ended {
            self.shared.allocations.forget(pod::uid(pod));
        }
        self.waits = given.1.pending.is_some();
        // What failed was to bring it to something else.
        if self.generation != given.1.generation {
            self.generation = given.1.generation;
            self.memory.resize_failure = None;
        }
        given
    }

    /// Plans and begins what was planned. How long until the next plan at the latest; `None` when the pod is no more.
    fn step(&mut self) -> Option<Duration> {
        let Desired { pod, wanted } = self.desired.borrow_and_update().clone();
        let (desired, (pod, resize)) = (pod.clone(), self.given(&pod, wanted));
        let now = self.shared.clock.now();
        let host_ip = self.shared.node_ip.to_string();
        let group = self.shared.cgroups.given(pod::uid(&pod));
        let input = Input {
            group: group.as_ref(),
            pod: &pod,
            desired: &desired,
            resize: &resize,
            wanted,
            observed: &self.observed,
            memory: &self.memory,
            last: self.last.as_ref(),
            apparmor: self.shared.apparmor,
            sysctls: &self.shared.sysctls,
            host_ip: &host_ip,
            runtime: self.shared.runtime_name(),
            now,
        };
        let Plan { actions, status, wake, done } = plan(input);
        if done {
            self.shared.allocations.forget(pod::uid(&pod));
            return None;
        }
        self.last = Some(status);
        for action in actions {
            tracing::debug!(pod = %pod::described(&pod), action = %action, "planned");
            self.begin(&pod, action);
        }
        if wanted != Wanted::Gone {
            self.report(&pod);
        }
        let until = |at: jiff::Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
        let resend = self.resend_at.map(|at| at.saturating_duration_since(tokio::time::Instant::now()));
        let wake = wake.map(until).into_iter().chain(resend).min();
        // A plan that is due now still lets others run first.
        Some(wake.unwrap_or(REFRESH).max(Duration::from_millis(1)))
    }

    fn begin(&mut self, pod: &Arc<Pod>, action: Action) {
        let (shared, of) = (self.shared.clone(), pod.clone());
        let busy = &mut self.memory.busy;
        match action {
            Action::PrepareVolumes => {
                busy.volumes = true;
                self.operations.spawn(async move { Outcome::Volumes(work::prepare_volumes(shared, of).await) });
            }
            Action::CreateSandbox { attempt } => {
                busy.sandbox = true;
                self.operations
                    .spawn(async move { Outcome::Sandbox(work::create_sandbox(&shared, &of, attempt).await) });
            }
            Action::StopSandbox { id } => {
                busy.sandbox = true;
                let request = k8s_cri::v1::StopPodSandboxRequest { pod_sandbox_id: id };
                self.operations.spawn(async move {
                    Outcome::SandboxGone(
                        held(shared.cri.stop_pod_sandbox(request).await, crate::cri::Error::is_not_found).await,
                    )
                });
            }
            Action::RemoveSandbox { id } => {
                busy.sandbox = true;
                let request = k8s_cri::v1::RemovePodSandboxRequest { pod_sandbox_id: id };
                self.operations.spawn(async move {
                    Outcome::SandboxGone(
                        held(shared.cri.remove_pod_sandbox(request).await, crate::cri::Error::is_not_found).await,
                    )
                });
            }
            Action::Start { container, attempt, .. } => self.begin_start(pod, container, attempt),
            Action::Stop { id, container, message, grace } => {
                busy.stopping.insert(id.clone());
                let observed = self.observed.clone();
                self.operations.spawn(async move {
                    let stopped = work::stop(&shared, &of, &observed, &id, &container, &message, grace).await;
                    Outcome::Stopped { id, result: held(stopped, |_| false).await }
                });
            }
            Action::StopToResize { id, container, grace } => {
                self.memory.resized.insert(id.clone());
                let message = format!("Container {container} resize requires restart");
                self.begin(pod, Action::Stop { id, container, message, grace });
            }
            Action::Resize { runs, whole } => {
                busy.resizing = true;
                let sandbox = self.observed.sandbox().map(|sandbox| sandbox.id.clone());
                self.operations.spawn(async move {
                    let (done, result) = work::resize(&shared, &of, sandbox.as_deref(), runs, whole).await;
                    Outcome::Resized { done, result }
                });
            }
            Action::Remove { id } => {
                busy.stopping.insert(id.clone());
                let request = k8s_cri::v1::RemoveContainerRequest { container_id: id.clone() };
                self.operations.spawn(async move {
                    let removed = shared.cri.remove_container(request).await;
                    Outcome::Stopped { id, result: held(removed, crate::cri::Error::is_not_found).await }
                });
            }
            Action::Reset { id, container } => {
                let next =
                    crate::plan::Backoff::after(self.memory.restarts.get(&container).copied(), self.shared.clock.now());
                self.memory.restarts.insert(container, next);
                self.begin(pod, Action::Remove { id });
            }
            Action::Tell { warning, reason, message, container } => {
                self.tell(pod, warning, reason, &message, container)
            }
            Action::Finish => {
                busy.finishing = true;
                let status = self.last.clone();
                self.operations.spawn(async move {
                    Outcome::Finished(held(report::finish(&shared, &of, status.as_ref()).await, |_| false).await)
                });
            }
            Action::CleanUp => {
                busy.cleaning = true;
                let cgroup = resources::cgroup_parent(&self.shared.cgroup_parent, pod);
                self.operations.spawn(async move {
                    let cleaned =
                        work::clean_up(&shared, pod::namespace(&of), pod::name(&of), pod::uid(&of), Some(cgroup)).await;
                    Outcome::Cleaned(cleaned)
                });
            }
        }
    }

    fn begin_start(&mut self, pod: &Arc<Pod>, name: String, attempt: u32) {
        let Some((_, container)) = pod::container(pod, &name) else { return };
        self.memory.busy.starting.insert(name.clone());
        let now = self.shared.clock.now();
        // A run that follows another counts against the back-off; one after a failed start has its own pause.
        let resized = &self.memory.resized;
        if self.observed.latest(&name).is_some_and(|latest| latest.ended() && !resized.contains(&latest.id)) {
            let next = crate::plan::Backoff::after(self.memory.restarts.get(&name).copied(), now);
            self.memory.restarts.insert(name.clone(), next);
        }
        let (shared, pod, observed, container) =
            (self.shared.clone(), pod.clone(), self.observed.clone(), container.into_owned());
        self.operations.spawn(async move {
            let result = work::start(shared, pod, observed, container, attempt).await;
            Outcome::Started { container: name, result }
        });
    }

    fn tell(&mut self, pod: &Pod, warning: bool, reason: &str, message: &str, container: Option<String>) {
        let kind = if warning { EventType::Warning } else { EventType::Normal };
        self.shared.tell(pod, container.as_deref(), kind, reason, message);
        if let Some(name) = container {
            // What was told once is told again when there is a new failure or a new run.
            let about = match self.memory.start_failures.get(&name) {
                Some(failure) if failure.reason == "ErrImagePull" => format!("pull {}", failure.since),
                _ => self.observed.latest(&name).map(|latest| latest.id.clone()).unwrap_or_default(),
            };
            self.memory.told.insert(name, about);
        }
    }

    /// Probes the runs there are, and no others.
    fn sync_probes(&mut self) {
        let pod = self.desired.borrow().pod.clone();
        let alive: Vec<_> = self.observed.instances.iter().filter(|instance| instance.running()).cloned().collect();
        self.probes.retain(|id, task| {
            let keep = alive.iter().any(|instance| instance.id == *id);
            if !keep {
                task.abort();
            }
            keep
        });
        self.memory.health.retain(|id, _| alive.iter().any(|instance| instance.id == *id));
        let addresses = self.shared.facts(&pod, &self.observed).pod_ips;
        for instance in alive {
            let Some((role, container)) = pod::container(&pod, &instance.name) else { continue };
            if self.memory.health.contains_key(&instance.id) {
                continue;
            }
            let mut health = probes::initial(role, &container);
            // A run that was ready when the kubelet was started again stays so until a probe says otherwise.
            if let Some(before) = earlier_health(&pod, &instance.id) {
                health.started |= before.0;
                health.ready |= before.1;
            }
            self.memory.health.insert(instance.id.clone(), health);
            if probes::wanted(&container) {
                let target = probes::Target {
                    pod: pod.clone(),
                    container: container.into_owned(),
                    id: instance.id.clone(),
                    started: instance.started.unwrap_or(instance.created),
                    address: addresses.first().cloned(),
                };
                let task = self.probing.spawn(probes::run(self.shared.clone(), target, health, self.reports.0.clone()));
                self.probes.insert(instance.id, task);
            }
        }
    }

    /// Brings the content of volumes up to date.
    fn refresh(&mut self) {
        let Desired { pod, wanted } = self.desired.borrow().clone();
        let content = pod.spec.as_ref().is_some_and(|spec| {
            spec.volumes
                .iter()
                .flatten()
                .any(|volume| crate::volumes::Kind::of(volume).is_ok_and(|kind| kind.has_payload()))
        });
        if content && wanted == Wanted::Run && self.memory.volumes_ready && !self.memory.busy.volumes {
            let shared = self.shared.clone();
            self.operations.spawn(async move {
                // Told by an event when it fails; the volumes keep what they hold.
                let _ = work::prepare_volumes(shared, pod).await;
                Outcome::Refreshed
            });
        }
    }
}

/// Whether a run was started and ready when the API last heard of it.
fn earlier_health(pod: &Pod, id: &str) -> Option<(bool, bool)> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let found =
        all.into_iter().find(|status| status.container_id.as_deref().is_some_and(|known| known.ends_with(id)))?;
    Some((found.started == Some(true), found.ready))
}
