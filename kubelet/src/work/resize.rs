//! Changing what containers have while they run (kubernetes `pkg/kubelet/kuberuntime`, `doPodResizeAction`).

use std::collections::HashMap;
use std::sync::Arc;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

use super::Shared;
use crate::cgroups::Cgroups;
use crate::pod::{self, qos, requests, resources};

/// A run that is to get what its pod has been given.
#[derive(Debug, Clone, PartialEq)]
pub struct Resizing {
    pub id: String,
    pub container: String,
    /// What it has, with the limits that are its pod's.
    pub has: ResourceRequirements,
}

/// Gives the pod's group and the runs what the pod's specification says. The runs that got it, and what kept the others from
/// it. The group grows before they do, and shrinks after them, if it is all of it (KEP-5419, "Actuating Pod-level Resource In
/// Place Resize").
pub async fn resize(
    shared: &Arc<Shared>,
    pod: &Pod,
    sandbox: Option<&str>,
    runs: Vec<Resizing>,
    whole: bool,
) -> (Vec<(String, ResourceRequirements)>, Result<(), String>) {
    let mut done = Vec::new();
    if let Err(why) = check_memory(shared, pod, &runs, whole).await {
        return (done, Err(format!("cannot decrease memory limits: {why}")));
    }
    let widened = in_background(shared, pod, |cgroups, pod| cgroups.widen(pod)).await;
    if let Err(why) = widened {
        return (done, Err(why));
    }
    for run in runs {
        let Some((_, container)) = pod::container(pod, &run.container) else { continue };
        let request = cri::UpdateContainerResourcesRequest {
            container_id: run.id.clone(),
            linux: Some(shared.resources_of(pod, &container)),
            ..Default::default()
        };
        match shared.cri.update_container_resources(request).await {
            Ok(_) => done.push((run.id, requests::effective(pod, &container))),
            // The others are tried with it again.
            Err(error) => return (done, Err(error.to_string())),
        }
    }
    if !whole {
        return (done, Ok(()));
    }
    if let Err(why) = in_background(shared, pod, |cgroups, pod| cgroups.set(pod)).await {
        return (done, Err(why));
    }
    if let Some(id) = sandbox {
        tell_sandbox(shared, pod, id).await;
    }
    (done, Ok(()))
}

/// Works on the pod's group.
async fn in_background(
    shared: &Arc<Shared>,
    pod: &Pod,
    write: impl FnOnce(&Cgroups, &Pod) -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    let (shared, pod) = (shared.clone(), pod.clone());
    let written = tokio::task::spawn_blocking(move || write(&shared.cgroups, &pod)).await;
    written.map_err(|error| error.to_string())?
}

/// The runtime may have to know the pod's sums; it is no part of the resize that it does (kuberuntime,
/// `updatePodSandboxResources`).
async fn tell_sandbox(shared: &Shared, pod: &Pod, id: &str) {
    let request = coracle_cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: id.to_owned(),
        overhead: None,
        resources: Some(resources::of_pod(pod)),
    };
    match shared.cri.update_pod_sandbox_resources(request).await {
        Ok(()) => {}
        Err(error) if error.code == tonic::Code::Unimplemented => {
            tracing::debug!(pod = pod::name(pod), "the runtime has no UpdatePodSandboxResources");
        }
        Err(error) => tracing::warn!(pod = pod::name(pod), %error, "the sandbox's resources could not be told"),
    }
}

fn memory_limit(resources: &ResourceRequirements) -> i64 {
    qos::amount(resources.limits.as_ref(), "memory").map_or(0, |limit| limit.units())
}

/// A limit below what is in use would have the kernel kill the container: that is not what was asked for. It may use more a
/// moment later, so this is no promise.
async fn check_memory(shared: &Arc<Shared>, pod: &Pod, runs: &[Resizing], whole: bool) -> Result<(), String> {
    let mut errors: Vec<String> = Vec::new();
    if whole {
        errors.extend(in_background(shared, pod, Cgroups::check_memory).await.err());
    }
    if runs.iter().any(|run| lowers(pod, run).is_some()) {
        let mut used = HashMap::new();
        for run in runs {
            used.insert(run.id.as_str(), usage(shared, &run.id).await?);
        }
        for run in runs {
            let used = used.get(run.id.as_str()).copied().unwrap_or(0);
            if let Some(limit) = lowers(pod, run).filter(|limit| used > *limit) {
                let container = &run.container;
                errors.push(format!(
                    "attempting to set container {container:?} memory limit ({limit}) below current usage ({used})"
                ));
            }
        }
    }
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        // As upstream joins several.
        _ => Err(format!("[{}]", errors.join(", "))),
    }
}

/// The new memory limit of a run, if it is lower than its old one.
fn lowers(pod: &Pod, run: &Resizing) -> Option<i64> {
    let (_, container) = pod::container(pod, &run.container)?;
    let (new, old) = (memory_limit(&requests::effective(pod, &container)), memory_limit(&run.has));
    (new > 0 && (old == 0 || new < old)).then_some(new)
}

async fn usage(shared: &Shared, id: &str) -> Result<i64, String> {
    let request = cri::ContainerStatsRequest { container_id: id.to_owned() };
    let answer = shared.cri.container_stats(request).await.map_err(|error| error.to_string())?;
    let memory = answer.stats.and_then(|stats| stats.memory).unwrap_or_default();
    let used = memory.usage_bytes.or(memory.working_set_bytes).map_or(0, |bytes| bytes.value);
    Ok(i64::try_from(used).unwrap_or(i64::MAX))
}
