//! What operations come to.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PodStatus, ResourceRequirements};

use super::Worker;
use crate::plan::{Backoff, Failure};
use crate::work::Trouble;

/// The end of an operation.
#[derive(Debug)]
pub enum Outcome {
    Volumes(Result<(), Trouble>),
    Refreshed,
    /// A sandbox was made.
    Sandbox(Result<(), Trouble>),
    /// A sandbox was stopped or removed.
    SandboxGone(Result<(), String>),
    Started {
        container: String,
        result: Result<(), Trouble>,
    },
    /// A run was stopped or removed.
    Stopped {
        id: String,
        result: Result<(), String>,
    },
    /// Runs that have what their pod has been given now.
    Resized {
        done: Vec<(String, ResourceRequirements)>,
        result: Result<(), String>,
    },
    /// Whether the object was released.
    Finished(Result<(), String>),
    Cleaned(Result<(), Trouble>),
    /// A status was sent.
    Reported {
        status: Box<PodStatus>,
        result: Result<(), String>,
    },
}

/// A failed operation holds its place for this long, so that it is not begun again at once.
const HOLD: Duration = Duration::from_secs(1);

/// Waits before a failure is told to the worker; what is gone already is no failure.
pub(super) async fn held<T, E: std::fmt::Display>(
    answer: Result<T, E>,
    gone: impl Fn(&E) -> bool,
) -> Result<(), String> {
    match answer {
        Err(error) if !gone(&error) => {
            tokio::time::sleep(HOLD).await;
            Err(error.to_string())
        }
        _ => Ok(()),
    }
}

const RESEND: Duration = Duration::from_secs(1);

impl Worker {
    /// Remembers what an operation came to, and looks again when it changed something. Whether the state is known.
    pub(super) async fn settle(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) -> bool {
        let now = self.shared.clock.now();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                // A panic in an operation: which one is not known any more, so none counts as running.
                tracing::error!(error = %error, "an operation of a pod crashed");
                self.memory.busy = Default::default();
                self.sending = false;
                return self.observe().await;
            }
        };
        let memory = &mut self.memory;
        match outcome {
            Outcome::Volumes(result) => {
                memory.busy.volumes = false;
                memory.volumes_ready = result.is_ok();
                memory.volumes_failure = again(memory.volumes_failure.as_ref(), result, now);
                return true;
            }
            Outcome::Refreshed => return true,
            Outcome::Sandbox(result) => {
                memory.busy.sandbox = false;
                memory.sandbox_failure = again(memory.sandbox_failure.as_ref(), result, now);
            }
            Outcome::SandboxGone(result) => {
                memory.busy.sandbox = false;
                if let Err(error) = result {
                    tracing::warn!(error, "the sandbox could not be stopped");
                }
            }
            Outcome::Started { container, result } => self.started(container, result, now),
            Outcome::Stopped { id, result } => {
                memory.busy.stopping.remove(&id);
                if let Err(error) = result {
                    tracing::warn!(id, error, "the container could not be stopped");
                }
            }
            Outcome::Resized { done, result } => {
                memory.busy.resizing = false;
                let result = result.map_err(|message| Trouble::new("Error", message));
                memory.resize_failure = again(memory.resize_failure.as_ref(), result, now);
                self.resized(done);
            }
            Outcome::Finished(result) => {
                memory.busy.finishing = false;
                memory.finished = result.is_ok();
                if let Err(error) = result {
                    tracing::warn!(error, "the pod's object could not be released");
                }
                return true;
            }
            Outcome::Cleaned(result) => {
                memory.busy.cleaning = false;
                memory.cleaned = true;
                if let Err(trouble) = result {
                    tracing::warn!(error = trouble.message, "the pod's files could not be removed");
                }
                return true;
            }
            Outcome::Reported { status, result } => {
                self.sending = false;
                match result {
                    Ok(()) => self.sent = Some(*status),
                    Err(error) => {
                        tracing::warn!(error, "the pod's status was not taken");
                        self.resend_at = Some(tokio::time::Instant::now() + RESEND);
                    }
                }
                return true;
            }
        }
        self.observe().await
    }

    fn resized(&self, done: Vec<(String, ResourceRequirements)>) {
        let uid = crate::pod::uid(&self.desired.borrow().pod).to_owned();
        let runs: Vec<_> = self.observed.instances.iter().map(|instance| instance.id.clone()).collect();
        for (run, resources) in done {
            self.shared.allocations.actuated(&uid, &run, resources, &runs);
        }
    }

    fn started(&mut self, container: String, result: Result<(), Trouble>, now: jiff::Timestamp) {
        let memory = &mut self.memory;
        memory.busy.starting.remove(&container);
        match result {
            Ok(()) => {
                memory.start_failures.remove(&container);
            }
            Err(trouble) => {
                let previous = memory.start_failures.get(&container);
                let mut failure = Failure::again(previous, trouble.reason, trouble.message, now);
                // Pulls have the long back-off, so that a registry is not asked every few seconds.
                if trouble.reason == "ErrImagePull" {
                    let key = format!("{container}/pull");
                    let backoff = Backoff::after(memory.restarts.get(&key).copied(), now);
                    failure.retry_at = backoff.until(now, now).unwrap_or(now);
                    memory.restarts.insert(key, backoff);
                }
                memory.start_failures.insert(container, failure);
            }
        }
    }
}

fn again(previous: Option<&Failure>, result: Result<(), Trouble>, now: jiff::Timestamp) -> Option<Failure> {
    result.err().map(|trouble| Failure::again(previous, trouble.reason, trouble.message, now))
}
