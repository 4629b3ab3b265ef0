//! Probes of running containers (kubernetes `pkg/kubelet/prober`).
//!
//! One task per running container: the startup probe first, if there is one; when it has passed, liveness and readiness
//! side by side. Every change of what they say goes to the pod's worker.

mod check;
mod grpc;
mod state;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use coracle_client::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::sync::mpsc;

use self::check::Verdict;
use self::state::{Kind, Progress};
use crate::plan::{FailedProbe, Health};
use crate::pod::Role;
use crate::work::Shared;

/// What a probe's result is about.
#[derive(Debug, Clone)]
pub struct Target {
    pub pod: Arc<Pod>,
    pub container: Container,
    /// The run's id.
    pub id: String,
    pub started: Timestamp,
    /// The pod's address.
    pub address: Option<String>,
}

/// What a container's health is before any probe has run.
pub fn initial(role: Role, container: &Container) -> Health {
    Health {
        started: container.startup_probe.is_none(),
        ready: role != Role::Init && container.readiness_probe.is_none(),
        failed: None,
    }
}

/// Whether a container has anything to probe.
pub fn wanted(container: &Container) -> bool {
    container.startup_probe.is_some() || container.liveness_probe.is_some() || container.readiness_probe.is_some()
}

/// Probes one run of a container until it is cancelled or one of its probes has failed for good. Reports go to `reports`.
pub async fn run(shared: Arc<Shared>, target: Target, mut health: Health, reports: mpsc::Sender<(String, Health)>) {
    let container = target.container.clone();
    if let Some(probe) = &container.startup_probe
        && !health.started
    {
        let passed = watch(&shared, &target, Kind::Startup, probe, |_| Step::End).await;
        health.started = passed;
        health.failed = (!passed).then(|| failed("startup", probe));
        if reports.send((target.id.clone(), health)).await.is_err() || !passed {
            return;
        }
    }
    let (changes, mut changed) = mpsc::channel(4);
    let live = async {
        let Some(probe) = &container.liveness_probe else { return std::future::pending().await };
        watch(&shared, &target, Kind::Liveness, probe, |passed| if passed { Step::Go } else { Step::End }).await;
        failed("liveness", probe)
    };
    let ready = async {
        let Some(probe) = &container.readiness_probe else { return std::future::pending::<bool>().await };
        watch(&shared, &target, Kind::Readiness, probe, |passed| {
            // The receiver takes every change at once; a full channel means that it is gone.
            let _ = changes.try_send(passed);
            Step::Go
        })
        .await
    };
    tokio::pin!(live, ready);
    loop {
        tokio::select! {
            failed = &mut live => {
                health.failed = Some(failed);
                let _ = reports.send((target.id.clone(), health)).await;
                return;
            }
            _ = &mut ready => return,
            Some(passed) = changed.recv() => {
                health.ready = passed;
                if reports.send((target.id.clone(), health)).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn failed(probe: &'static str, spec: &Probe) -> FailedProbe {
    FailedProbe { probe, grace: spec.termination_grace_period_seconds }
}

enum Step {
    Go,
    End,
}

/// Probes again and again, tells every change of the result to `changed`, and answers with the last result.
async fn watch(
    shared: &Shared,
    target: &Target,
    kind: Kind,
    probe: &Probe,
    mut changed: impl FnMut(bool) -> Step,
) -> bool {
    let delay = Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
    let age = shared.clock.now().duration_since(target.started);
    let age = Duration::try_from(age).unwrap_or(Duration::ZERO);
    tokio::time::sleep(delay.saturating_sub(age)).await;
    let period = Duration::from_secs(u64::try_from(probe.period_seconds.unwrap_or(10)).unwrap_or(10).max(1));
    let mut ticks = tokio::time::interval(period);
    // A probe that takes longer than its period is not made up for.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut progress = Progress::new(kind, probe);
    loop {
        ticks.tick().await;
        let limit = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1));
        let verdict = check::run(shared, target, probe, limit).await;
        if let Verdict::Failure(why) | Verdict::Error(why) = &verdict {
            let how = if matches!(verdict, Verdict::Failure(_)) { "failed" } else { "errored" };
            let message = format!("{} probe {how}: {why}", kind.word());
            shared.tell(&target.pod, Some(&target.container.name), EventType::Warning, "Unhealthy", &message);
        }
        let passed = match verdict {
            Verdict::Success => true,
            Verdict::Failure(_) => false,
            // The probe could not be made: that says nothing about the container.
            Verdict::Error(_) => continue,
        };
        if let Some(result) = progress.observe(passed)
            && matches!(changed(result), Step::End)
        {
            return result;
        }
    }
}
