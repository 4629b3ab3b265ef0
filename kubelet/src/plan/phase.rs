//! A pod's phase from its containers' states (kubernetes `pkg/kubelet/kubelet_pods.go`, `getPhase`).

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};

use crate::pod::{self, Role};

/// What the last run of a container came to, if it ended.
fn terminated(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state?.terminated.as_ref()
}

#[derive(Default)]
struct Count {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
    /// Of those that stopped.
    again: usize,
}

/// The phase. `ending`: no container is started any more.
pub(super) fn of(pod: &Pod, init: &[ContainerStatus], app: &[ContainerStatus], ending: bool) -> &'static str {
    let restarts = |name: &str, code: i32| {
        pod::container(pod, name).is_some_and(|(_, container)| pod::restarts(pod, &container, code))
    };
    let mut initializing = false;
    for status in init {
        let sidecar = matches!(pod::container(pod, &status.name), Some((Role::Sidecar, _)));
        let state = status.state.as_ref();
        match terminated(state)
            .or_else(|| terminated(status.last_state.as_ref()).filter(|_| state.is_some_and(|s| s.waiting.is_some())))
        {
            _ if sidecar => initializing |= status.started != Some(true) && terminated(state).is_none(),
            Some(ended) if ended.exit_code == 0 => {}
            Some(ended) if !restarts(&status.name, ended.exit_code) => return "Failed",
            _ => initializing = true,
        }
    }
    let mut count = Count::default();
    for status in app {
        let state = status.state.as_ref();
        if state.is_some_and(|state| state.running.is_some()) {
            count.running += 1;
        } else if let Some(ended) = terminated(state) {
            count.stopped += 1;
            count.succeeded += usize::from(ended.exit_code == 0);
            count.again += usize::from(restarts(&status.name, ended.exit_code));
        } else if terminated(status.last_state.as_ref()).is_some() {
            // It waits for its next run.
            count.stopped += 1;
            count.again += 1;
        } else {
            count.waiting += 1;
        }
    }
    if ending && count.running == 0 && (count.stopped > 0 || initializing) {
        // Nothing will run any more, whatever the policy says.
        return if count.stopped == app.len() && count.succeeded == app.len() { "Succeeded" } else { "Failed" };
    }
    if (initializing && count.running == 0 && count.stopped == 0) || count.waiting > 0 {
        return "Pending";
    }
    if count.running > 0 {
        return "Running";
    }
    match count {
        Count { stopped: 0, .. } => "Pending",
        Count { again: 1.., .. } => "Running",
        Count { stopped, succeeded, .. } if stopped == succeeded => "Succeeded",
        _ => "Failed",
    }
}
