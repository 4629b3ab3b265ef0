//! Which containers to start, restart and stop while a pod is to run.

use k8s_openapi::api::core::v1::Container;

use super::{Action, Backoff, Draft, Input, Waiting, resize};
use crate::observed::{Instance, State};
use crate::pod::{self, Role};

/// How far a pod's containers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// All containers have ended and none will run again.
    pub ended: bool,
}

/// Seconds for which a pull is shown as failed before it is shown as backing off.
const SHOW_PULL_ERROR: i64 = 5;

/// Whether a run that ended is followed by another.
pub(super) fn restarts(input: &Input<'_>, role: Role, container: &Container, instance: &Instance) -> bool {
    if input.memory.resized.contains(&instance.id) {
        return true;
    }
    // Of a run that was lost it is not known how it ended, but for the status: as if it had been killed.
    let code = if instance.state == State::Unknown { 137 } else { instance.exit_code };
    match role {
        Role::Sidecar => true,
        Role::Init => code != 0 && pod::restarts(input.pod, container, code),
        Role::App => pod::restarts(input.pod, container, code),
        Role::Ephemeral => false,
    }
}

pub(super) fn progress(input: &Input<'_>) -> Progress {
    let over = |role: Role, container: &Container| {
        input
            .observed
            .latest(&container.name)
            .is_some_and(|latest| latest.ended() && !restarts(input, role, container, latest))
    };
    let mut apps = pod::containers(input.pod).filter(|(role, _)| *role == Role::App).peekable();
    let all_over = apps.peek().is_some() && apps.all(|(role, container)| over(role, container));
    let init_failed = pod::containers(input.pod).filter(|(role, _)| *role == Role::Init).any(|(role, container)| {
        over(role, container)
            && input
                .observed
                .latest(&container.name)
                .is_some_and(|latest| latest.exit_code != 0 || latest.state == State::Unknown)
    });
    Progress { ended: all_over || init_failed }
}

impl Draft<'_> {
    pub(super) fn run_containers(&mut self, sandbox: &str) {
        let pod = self.input.pod;
        if self.initialize(sandbox) {
            for (role, container) in pod::containers(pod).filter(|(role, _)| *role == Role::App) {
                self.container(sandbox, role, container);
            }
        }
    }

    /// Starts the ephemeral containers that never ran. They are not kept running, nor started again.
    pub(super) fn run_ephemeral(&mut self, sandbox: &str) {
        let Input { pod, observed, .. } = self.input;
        for container in pod::ephemeral(pod).iter().filter(|one| observed.latest(&one.name).is_none()) {
            self.container(sandbox, Role::Ephemeral, &pod::as_container(container));
        }
    }

    /// Brings the init containers on, one after the other. Whether they are done.
    fn initialize(&mut self, sandbox: &str) -> bool {
        let Input { pod, observed, memory, .. } = self.input;
        let apps_began = pod::containers(pod).filter(|(role, _)| *role == Role::App).any(|(_, c)| {
            observed.latest(&c.name).is_some_and(|latest| latest.sandbox == sandbox)
                || memory.busy.starting.contains(&c.name)
        });
        for (role, container) in pod::containers(pod).filter(|(role, _)| *role != Role::App) {
            let latest = observed.latest(&container.name).filter(|latest| latest.sandbox == sandbox);
            let done = match (role, latest) {
                (Role::Sidecar, Some(latest)) => {
                    let up = latest.running() && memory.health.get(&latest.id).is_some_and(|health| health.started);
                    self.container(sandbox, role, container);
                    up
                }
                (_, Some(latest)) if latest.state == State::Exited && latest.exit_code == 0 => true,
                _ if apps_began && role == Role::Init => true,
                _ => {
                    self.container(sandbox, role, container);
                    false
                }
            };
            if !done && !apps_began {
                return false;
            }
        }
        true
    }

    /// One container: starts it, lets it run, ends it, or waits.
    fn container(&mut self, sandbox: &str, role: Role, container: &Container) {
        let Input { observed, memory, .. } = self.input;
        if memory.busy.starting.contains(&container.name) {
            // A start that goes on after a failure still shows the failure.
            if let Some(failure) = memory.start_failures.get(&container.name) {
                self.wait(container, failure.reason, Some(failure.message.clone()));
            }
            return;
        }
        let latest = observed.latest(&container.name);
        match latest {
            Some(latest) if latest.running() => self.keep(role, container, latest),
            // What ended for good does so in every sandbox; only those that prepare one run anew in another.
            Some(latest)
                if (role == Role::App || latest.sandbox == sandbox)
                    && latest.ended()
                    && !restarts(&self.input, role, container, latest) => {}
            _ => self.start(role, container, latest),
        }
    }

    /// A running container goes on unless a probe, a new definition or a resize ends it.
    fn keep(&mut self, role: Role, container: &Container, instance: &Instance) {
        let Input { memory, pod, .. } = self.input;
        if memory.busy.stopping.contains(&instance.id) {
            return;
        }
        let failed = memory.health.get(&instance.id).and_then(|health| health.failed);
        let changed = !instance.hash.is_empty() && instance.hash != pod::definition_hash(container);
        let (why, grace) = match failed {
            Some(failed) => {
                (format!("Container {} failed {} probe, will be restarted", container.name, failed.probe), failed.grace)
            }
            None if changed => (format!("Container {} definition changed, will be restarted", container.name), None),
            None if resize::needs_restart(&self.input, role, container, instance) => {
                let (id, container) = (instance.id.clone(), container.name.clone());
                return self.actions.push(Action::StopToResize { id, container, grace: pod::grace(pod) });
            }
            None => return,
        };
        let grace = grace.unwrap_or_else(|| pod::grace(pod));
        self.actions.push(Action::Stop {
            id: instance.id.clone(),
            container: container.name.clone(),
            message: why,
            grace,
        });
    }

    fn start(&mut self, role: Role, container: &Container, latest: Option<&Instance>) {
        let Input { memory, now, .. } = self.input;
        if let Some(failure) = memory.start_failures.get(&container.name) {
            if failure.retry_at > now {
                self.show_failure(container, failure);
                return;
            }
            self.wait(container, failure.reason, Some(failure.message.clone()));
        }
        if let Some((backoff, ended)) = memory
            .restarts
            .get(&container.name)
            .zip(latest.filter(|latest| latest.ended() && !memory.resized.contains(&latest.id)))
            && let Some(until) =
                backoff.until(ended.finished.unwrap_or(ended.created), now).filter(|until| *until > now)
        {
            self.crash_loop(container, ended, *backoff, until);
            return;
        }
        // One after the other, in their order: a start that hangs holds back the next, as upstream's.
        if !memory.busy.starting.is_empty() || self.actions.iter().any(|action| matches!(action, Action::Start { .. }))
        {
            return;
        }
        let attempt = latest.map_or_else(|| self.input.lost_runs(&container.name), |latest| latest.attempt + 1);
        self.actions.push(Action::Start { container: container.name.clone(), role, attempt });
    }

    fn show_failure(&mut self, container: &Container, failure: &super::Failure) {
        let Input { memory, now, .. } = self.input;
        self.wake_at(failure.retry_at);
        let back_off_at = failure.since.saturating_add(jiff::SignedDuration::from_secs(SHOW_PULL_ERROR)).unwrap_or(now);
        if failure.reason != "ErrImagePull" {
            self.wait(container, failure.reason, Some(failure.message.clone()));
        } else if now < back_off_at {
            self.wake_at(back_off_at);
            self.wait(container, "ErrImagePull", Some(failure.message.clone()));
        } else {
            let image = container.image.as_deref().unwrap_or_default();
            let message = format!("Back-off pulling image \"{image}\"");
            let about = format!("pull {}", failure.since);
            if memory.told.get(&container.name) != Some(&about) {
                self.tell(container, true, "Failed", "Error: ImagePullBackOff".into());
                self.tell(container, false, "BackOff", message.clone());
            }
            self.wait(container, "ImagePullBackOff", Some(format!("{message}: ErrImagePull: {}", failure.message)));
        }
    }

    pub(super) fn crash_loop(
        &mut self,
        container: &Container,
        ended: &Instance,
        backoff: Backoff,
        until: jiff::Timestamp,
    ) {
        let Input { memory, pod, .. } = self.input;
        let (name, described) = (&container.name, pod::described(pod));
        self.wake_at(until);
        if memory.told.get(name) != Some(&ended.id) {
            self.tell(
                container,
                true,
                "BackOff",
                format!("Back-off restarting failed container {name} in pod {described}"),
            );
        }
        let message = format!("back-off {} restarting failed container={name} pod={described}", backoff.text());
        self.wait(container, "CrashLoopBackOff", Some(message));
    }

    fn tell(&mut self, container: &Container, warning: bool, reason: &'static str, message: String) {
        self.actions.push(Action::Tell { warning, reason, message, container: Some(container.name.clone()) });
    }

    fn wait(&mut self, container: &Container, reason: &str, message: Option<String>) {
        self.waiting.insert(container.name.clone(), Waiting { reason: reason.to_owned(), message });
    }
}
