//! What containers and sandboxes use, read from files, and so apart from what answers calls.

use std::sync::Arc;

use coracle_cri::{ContainerStats, Items, LinuxPodSandboxStats, PodSandboxStats};
use futures::{StreamExt, stream};
use k8s_cri::v1;
use tokio::task::spawn_blocking;
use tonic::Status;

use super::{convert, metrics, status};
use crate::{
    engine::{Container, Engine, Sandbox, model::now},
    error::Error,
};

pub async fn of_container(engine: Arc<Engine>, container: Arc<Container>) -> Result<ContainerStats, Status> {
    read(move || stats(&engine, &container)).await
}

pub async fn of_sandbox(engine: Arc<Engine>, sandbox: Arc<Sandbox>) -> Result<PodSandboxStats, Status> {
    read(move || sandbox_stats(&engine, &sandbox)).await
}

pub async fn metrics_of_sandbox(engine: Arc<Engine>, sandbox: Arc<Sandbox>) -> Result<v1::PodSandboxMetrics, Status> {
    read(move || metrics::of_sandbox(&engine, &sandbox)).await
}

/// What is known of each, which goes by its id; of what nothing can be read, for it may be going, the log tells, and the rest is
/// answered all the same (containerd `internal/cri/server/container_stats_list.go`).
pub fn all<T: Send + 'static, F>(reads: impl Iterator<Item = (String, F)> + Send + 'static) -> Items<T>
where
    F: Future<Output = Result<T, Status>> + Send + 'static,
{
    stream::iter(reads).filter_map(|(id, read)| async move { told(&id, read.await).map(Ok) }).boxed()
}

pub(super) fn told<T, E: std::fmt::Display>(id: &str, result: Result<T, E>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(id, %error, "what it uses cannot be read")).ok()
}

async fn read<T: Send + 'static>(read: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Status> {
    spawn_blocking(read).await.map_err(|error| status(error.into()))?.map_err(status)
}

fn stats(engine: &Engine, container: &Container) -> Result<ContainerStats, Error> {
    let stats = engine.container_stats(container)?;
    let usage = engine.writable_usage(container);
    let mountpoint = engine.data_dir().join("snapshots").to_string_lossy().into_owned();
    let at = stats.as_ref().map_or_else(now, |stats| stats.at);
    let writable = convert::filesystem_usage(mountpoint, at, usage.bytes, usage.inodes);
    Ok(convert::container_stats(container, stats.as_ref(), writable))
}

fn sandbox_stats(engine: &Engine, sandbox: &Sandbox) -> Result<PodSandboxStats, Error> {
    let total = engine.sandbox_stats(sandbox)?;
    let containers = engine.containers_of(&sandbox.id);
    let linux = LinuxPodSandboxStats {
        cpu: Some(convert::cpu_usage(&total)),
        memory: Some(convert::memory_usage(&total)),
        network: convert::network_usage(total.at, &engine.sandbox_interfaces(sandbox)),
        process: Some(v1::ProcessUsage {
            timestamp: total.at,
            process_count: Some(v1::UInt64Value { value: total.pids }),
        }),
        containers: containers.iter().filter_map(|container| told(&container.id, stats(engine, container))).collect(),
        io: convert::io_usage(&total),
    };
    Ok(PodSandboxStats { attributes: Some(convert::sandbox_attributes(sandbox)), linux: Some(linux) })
}
