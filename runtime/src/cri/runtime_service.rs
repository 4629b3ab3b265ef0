//! RuntimeService: sandboxes, containers, events, statistics.

use std::{collections::HashMap, sync::Arc, time::Duration};

use coracle_cri::{
    ContainerEventResponse, ContainerStats, ContainerStatsResponse, ContainerStatus, ContainerStatusResponse,
    CreateContainerRequest, Items, PodSandboxStats, PodSandboxStatsResponse, PodSandboxStatusResponse, RuntimeFeatures,
    RuntimeService, StatusResponse, UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse,
};
use coracle_streaming::{Wanted, server as streaming};
use futures::{StreamExt, stream};
use k8s_cri::v1;
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{HANDLERS, MAX_MESSAGE, convert, info, known_handler, metrics, missing, status, usage};
use crate::engine::{
    Container, Engine, Sandbox,
    model::{self, Event, EventKind},
    namespaces::can_map_users,
};

/// The CRI's service of runtimes.
pub struct Service {
    engine: Arc<Engine>,
    streams: Arc<Streams>,
    shutdown: CancellationToken,
}

/// Where exec, attach and port-forward are served.
pub type Streams = coracle_streaming::Server<super::streaming::Containers>;

type Answer<T> = Result<T, Status>;

/// Two channels for each port, and a byte for a channel's number.
const MOST_PORTS: usize = 128;

/// What of an output an answer has room for, as the kubelet takes none that is larger: the rest is discarded (CRI,
/// ExecSyncResponse). Neither stream takes the other's half.
fn fit(mut stdout: Vec<u8>, mut stderr: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    // Beside the output there are two lengths and the exit code.
    const ROOM: usize = MAX_MESSAGE - 64;
    stderr.truncate((ROOM / 2).max(ROOM.saturating_sub(stdout.len())));
    stdout.truncate(ROOM - stderr.len());
    (stdout, stderr)
}

/// The streams of a request (the rules stand at ExecRequest and AttachRequest in CRI).
fn wanted(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<Wanted, Status> {
    if tty && stderr {
        return Err(Status::invalid_argument("tty and stderr cannot both be true"));
    }
    if !stdin && !stdout && !stderr {
        return Err(Status::invalid_argument("one of stdin, stdout, or stderr must be set"));
    }
    Ok(Wanted { stdin, stdout, stderr, tty })
}

impl Service {
    pub fn new(engine: Arc<Engine>, streams: Arc<Streams>, shutdown: CancellationToken) -> Service {
        Service { engine, streams, shutdown }
    }

    fn url(&self, request: streaming::Request) -> Result<String, Status> {
        self.streams.url(request).ok_or_else(|| Status::resource_exhausted("too many streams wait for their clients"))
    }

    /// A container that runs, and has the terminal that is asked for.
    fn running(&self, id: &str) -> Result<Arc<Container>, Status> {
        let container = self.engine.container(id).map_err(status)?;
        match container.state().status {
            model::Status::Running => Ok(container),
            other => Err(Status::failed_precondition(format!("container is in {other} state"))),
        }
    }

    /// The containers that a filter leaves, but for their state.
    fn containers(&self, id: &str, sandbox: &str, labels: &HashMap<String, String>) -> Vec<Arc<Container>> {
        let mut all = self.engine.pod_containers();
        all.retain(|container| {
            container.id.starts_with(id)
                && container.sandbox.starts_with(sandbox)
                && convert::selected(&container.config.labels, labels)
        });
        all
    }

    fn container_status(&self, container: &Container) -> ContainerStatus {
        container_status(&self.engine, container)
    }

    fn containers_statuses(&self, sandbox: &str) -> Vec<ContainerStatus> {
        self.engine.containers_of(sandbox).iter().map(|container| self.container_status(container)).collect()
    }
}

fn container_status(engine: &Engine, container: &Container) -> ContainerStatus {
    let tags = engine.images().find(container.image.id.as_str()).map(|image| image.tags.clone()).unwrap_or_default();
    convert::container_status(container, &tags)
}

/// An event with the state that it led to. `None` for kinds that CRI does not know.
fn event_message(engine: &Engine, event: &Event) -> ContainerEventResponse {
    let kind = match event.kind {
        EventKind::Created => v1::ContainerEventType::ContainerCreatedEvent,
        EventKind::Started => v1::ContainerEventType::ContainerStartedEvent,
        EventKind::Stopped => v1::ContainerEventType::ContainerStoppedEvent,
        EventKind::Deleted => v1::ContainerEventType::ContainerDeletedEvent,
    };
    let containers = event.sandbox.as_ref().map(|sandbox| engine.containers_of(&sandbox.id)).unwrap_or_default();
    ContainerEventResponse {
        container_id: event.id.clone(),
        container_event_type: kind as i32,
        created_at: event.at,
        pod_sandbox_status: event.sandbox.as_deref().map(convert::sandbox_status),
        containers_statuses: containers.iter().map(|container| container_status(engine, container)).collect(),
    }
}

impl RuntimeService for Service {
    async fn version(&self, _: v1::VersionRequest) -> Answer<v1::VersionResponse> {
        Ok(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "coracle".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self, request: v1::StatusRequest) -> Answer<StatusResponse> {
        let condition = |kind: &str, problem: Option<(&str, String)>| {
            let status = problem.is_none();
            let (reason, message) = problem.map(|(reason, message)| (reason.to_owned(), message)).unwrap_or_default();
            v1::RuntimeCondition { r#type: kind.into(), status, reason, message }
        };
        let problem = self.engine.network_problem().await;
        let info = request.verbose.then(|| convert::runtime_info(&self.engine, problem.as_deref()));
        let network =
            problem.map(|message| ("NetworkPluginNotReady", format!("Network plugin returns error: {message}")));
        let features = v1::RuntimeHandlerFeatures {
            recursive_read_only_mounts: coracle_launcher::sys::has_mount_setattr(),
            user_namespaces: can_map_users(),
        };
        Ok(StatusResponse {
            status: Some(v1::RuntimeStatus {
                conditions: vec![condition("RuntimeReady", None), condition("NetworkReady", network)],
            }),
            runtime_handlers: HANDLERS
                .iter()
                .map(|name| v1::RuntimeHandler { name: (*name).into(), features: Some(features) })
                .collect(),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: features.user_namespaces,
            }),
            info: info.unwrap_or_default(),
        })
    }

    async fn run_pod_sandbox(&self, request: v1::RunPodSandboxRequest) -> Answer<v1::RunPodSandboxResponse> {
        known_handler(&request.runtime_handler)?;
        let mut config = request.config.ok_or_else(|| missing("config"))?;
        let linux = config.linux.as_mut();
        let (overhead, resources) =
            linux.map(|linux| (linux.overhead.take(), linux.resources.take())).unwrap_or_default();
        let (overhead, resources) = (overhead.map(convert::resources), resources.map(convert::resources));
        let config = convert::sandbox_config(config, request.runtime_handler).map_err(status)?;
        let engine = self.engine.clone();
        // A kubelet that gives up waiting must not leave a sandbox half made.
        let made = tokio::spawn(async move { engine.run_sandbox(config, overhead, resources).await })
            .await
            .map_err(|error| status(error.into()))?;
        Ok(v1::RunPodSandboxResponse { pod_sandbox_id: made.map_err(status)? })
    }

    async fn stop_pod_sandbox(&self, request: v1::StopPodSandboxRequest) -> Answer<v1::StopPodSandboxResponse> {
        match self.engine.stop_sandbox(&request.pod_sandbox_id).await {
            Err(error) if !error.is_not_found() => Err(status(error)),
            _ => Ok(v1::StopPodSandboxResponse {}),
        }
    }

    async fn remove_pod_sandbox(&self, request: v1::RemovePodSandboxRequest) -> Answer<v1::RemovePodSandboxResponse> {
        self.engine.remove_sandbox(&request.pod_sandbox_id).await.map_err(status)?;
        Ok(v1::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, request: v1::PodSandboxStatusRequest) -> Answer<PodSandboxStatusResponse> {
        let sandbox = self.engine.sandbox(&request.pod_sandbox_id).map_err(status)?;
        let (engine, of) = (self.engine.clone(), sandbox.clone());
        let info = if request.verbose { Some(info::read(move || info::sandbox(&engine, &of)).await?) } else { None };
        Ok(PodSandboxStatusResponse {
            status: Some(convert::sandbox_status(&sandbox)),
            info: info.into_iter().collect(),
            containers_statuses: self.containers_statuses(&sandbox.id),
            timestamp: crate::engine::model::now(),
        })
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        let (overhead, resources) =
            (request.overhead.map(convert::resources), request.resources.map(convert::resources));
        self.engine.update_sandbox(&request.pod_sandbox_id, overhead, resources).await.map_err(status)?;
        Ok(UpdatePodSandboxResourcesResponse {})
    }

    async fn list_pod_sandbox(&self, request: v1::ListPodSandboxRequest) -> Answer<Items<v1::PodSandbox>> {
        let filter = request.filter.unwrap_or_default();
        let mut sandboxes = self.engine.pod_sandboxes();
        sandboxes.retain(|sandbox| {
            sandbox.id.starts_with(&filter.id) && convert::selected(&sandbox.config.labels, &filter.label_selector)
        });
        let items = sandboxes.into_iter().map(|sandbox| convert::sandbox_summary(&sandbox));
        let state = filter.state.map(|filter| filter.state);
        Ok(stream::iter(items.filter(move |item| state.is_none_or(|state| item.state == state)).map(Ok)).boxed())
    }

    async fn create_container(&self, request: CreateContainerRequest) -> Answer<v1::CreateContainerResponse> {
        let config = convert::container_config(request.config.ok_or_else(|| missing("config"))?).map_err(status)?;
        let (engine, sandbox) = (self.engine.clone(), request.pod_sandbox_id);
        // A kubelet that gives up waiting must not leave a container half made, whose name nothing gives back.
        let made = tokio::spawn(async move { engine.create_container(&sandbox, config).await })
            .await
            .map_err(|error| status(error.into()))?;
        Ok(v1::CreateContainerResponse { container_id: made.map_err(status)? })
    }

    async fn start_container(&self, request: v1::StartContainerRequest) -> Answer<v1::StartContainerResponse> {
        let (engine, id) = (self.engine.clone(), request.container_id);
        let started = tokio::spawn(async move { engine.start_container(&id).await })
            .await
            .map_err(|error| status(error.into()))?;
        started.map_err(status)?;
        Ok(v1::StartContainerResponse {})
    }

    async fn stop_container(&self, request: v1::StopContainerRequest) -> Answer<v1::StopContainerResponse> {
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        match self.engine.stop_container(&request.container_id, grace).await {
            Err(error) if !error.is_not_found() => Err(status(error)),
            _ => Ok(v1::StopContainerResponse {}),
        }
    }

    async fn remove_container(&self, request: v1::RemoveContainerRequest) -> Answer<v1::RemoveContainerResponse> {
        self.engine.remove_container(&request.container_id).await.map_err(status)?;
        Ok(v1::RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: v1::ListContainersRequest) -> Answer<Items<v1::Container>> {
        let filter = request.filter.unwrap_or_default();
        let containers = self.containers(&filter.id, &filter.pod_sandbox_id, &filter.label_selector);
        let items = containers.into_iter().map(|container| convert::container_summary(&container));
        let state = filter.state.map(|filter| filter.state);
        Ok(stream::iter(items.filter(move |item| state.is_none_or(|state| item.state == state)).map(Ok)).boxed())
    }

    async fn container_status(&self, request: v1::ContainerStatusRequest) -> Answer<ContainerStatusResponse> {
        let container = self.engine.container(&request.container_id).map_err(status)?;
        let (engine, of) = (self.engine.clone(), container.clone());
        let info = if request.verbose { Some(info::read(move || info::container(&engine, &of)).await?) } else { None };
        Ok(ContainerStatusResponse {
            status: Some(self.container_status(&container)),
            info: info.into_iter().collect(),
        })
    }

    async fn update_container_resources(
        &self,
        request: v1::UpdateContainerResourcesRequest,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        // There is nothing to change, but what is not there is told of all the same.
        self.engine.container(&request.container_id).map_err(status)?;
        if let Some(linux) = request.linux {
            self.engine.update_container(&request.container_id, convert::resources(linux)).await.map_err(status)?;
        }
        Ok(v1::UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: v1::ReopenContainerLogRequest,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        self.engine.reopen_log(&request.container_id).await.map_err(status)?;
        Ok(v1::ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: v1::ExecSyncRequest) -> Answer<v1::ExecSyncResponse> {
        let limit = u64::try_from(request.timeout).ok().filter(|&seconds| seconds > 0).map(Duration::from_secs);
        let result = self.engine.exec_sync(&request.container_id, &request.cmd, limit).await.map_err(status)?;
        let (stdout, stderr) = fit(result.stdout, result.stderr);
        Ok(v1::ExecSyncResponse { stdout, stderr, exit_code: result.exit_code })
    }

    async fn exec(&self, request: v1::ExecRequest) -> Answer<v1::ExecResponse> {
        let v1::ExecRequest { container_id, cmd: command, tty, stdin, stdout, stderr } = request;
        let wanted = wanted(stdin, stdout, stderr, tty)?;
        let container = self.running(&container_id)?.id.clone();
        let url = self.url(streaming::Request::Exec { container, command, wanted })?;
        Ok(v1::ExecResponse { url })
    }

    async fn attach(&self, request: v1::AttachRequest) -> Answer<v1::AttachResponse> {
        let v1::AttachRequest { container_id, tty, stdin, stdout, stderr } = request;
        let wanted = wanted(stdin, stdout, stderr, tty)?;
        let container = self.running(&container_id)?.id.clone();
        let url = self.url(streaming::Request::Attach { container, wanted })?;
        Ok(v1::AttachResponse { url })
    }

    async fn port_forward(&self, request: v1::PortForwardRequest) -> Answer<v1::PortForwardResponse> {
        let sandbox = self.engine.sandbox(&request.pod_sandbox_id).map_err(status)?;
        if !sandbox.state().ready {
            return Err(Status::failed_precondition(format!("sandbox container {:?} is not running", sandbox.id)));
        }
        let sandbox = sandbox.id.clone();
        let ports = request.port.into_iter().map(|port| u16::try_from(port).ok().filter(|port| *port != 0));
        let ports = ports.collect::<Option<Vec<_>>>().filter(|ports| ports.len() <= MOST_PORTS);
        let ports = ports.ok_or_else(|| Status::invalid_argument("ports are 1 to 65535, and 128 at most"))?;
        let url = self.url(streaming::Request::PortForward { sandbox, ports })?;
        Ok(v1::PortForwardResponse { url })
    }

    async fn container_stats(&self, request: v1::ContainerStatsRequest) -> Answer<ContainerStatsResponse> {
        let container = self.engine.container(&request.container_id).map_err(status)?;
        Ok(ContainerStatsResponse { stats: Some(usage::of_container(self.engine.clone(), container).await?) })
    }

    async fn list_container_stats(&self, request: v1::ListContainerStatsRequest) -> Answer<Items<ContainerStats>> {
        let filter = request.filter.unwrap_or_default();
        let containers = self.containers(&filter.id, &filter.pod_sandbox_id, &filter.label_selector);
        let engine = self.engine.clone();
        let read =
            move |container: Arc<Container>| (container.id.clone(), usage::of_container(engine.clone(), container));
        Ok(usage::all(containers.into_iter().map(read)))
    }

    async fn pod_sandbox_stats(&self, request: v1::PodSandboxStatsRequest) -> Answer<PodSandboxStatsResponse> {
        let sandbox = self.engine.sandbox(&request.pod_sandbox_id).map_err(status)?;
        Ok(PodSandboxStatsResponse { stats: Some(usage::of_sandbox(self.engine.clone(), sandbox).await?) })
    }

    async fn list_pod_sandbox_stats(&self, request: v1::ListPodSandboxStatsRequest) -> Answer<Items<PodSandboxStats>> {
        let filter = request.filter.unwrap_or_default();
        let mut sandboxes = self.engine.pod_sandboxes();
        sandboxes.retain(|sandbox| {
            sandbox.id.starts_with(&filter.id) && convert::selected(&sandbox.config.labels, &filter.label_selector)
        });
        let engine = self.engine.clone();
        let read = move |sandbox: Arc<Sandbox>| (sandbox.id.clone(), usage::of_sandbox(engine.clone(), sandbox));
        Ok(usage::all(sandboxes.into_iter().map(read)))
    }

    async fn update_runtime_config(
        &self,
        _: v1::UpdateRuntimeConfigRequest,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        // The pod range is the network configuration's; containerd without a template ignores it as well.
        Ok(v1::UpdateRuntimeConfigResponse {})
    }

    async fn checkpoint_container(&self, _: v1::CheckpointContainerRequest) -> Answer<v1::CheckpointContainerResponse> {
        Err(Status::unimplemented("CheckpointContainer is not supported"))
    }

    async fn get_container_events(&self, _: v1::GetEventsRequest) -> Answer<Items<ContainerEventResponse>> {
        let mut events = self.engine.events();
        let (sender, receiver) = mpsc::channel(64);
        let (engine, shutdown) = (self.engine.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    event = events.recv() => match event {
                        Ok(event) => Ok(event_message(&engine, &event)),
                        // The listener lists everything again when the stream ends.
                        Err(RecvError::Lagged(missed)) => Err(Status::data_loss(format!("{missed} events were lost to a slow reader"))),
                        Err(RecvError::Closed) => break,
                    },
                    () = shutdown.cancelled() => break,
                    () = sender.closed() => break,
                };
                let last = message.is_err();
                if sender.send(message).await.is_err() || last {
                    break;
                }
            }
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }

    async fn list_metric_descriptors(
        &self,
        _: v1::ListMetricDescriptorsRequest,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        Ok(v1::ListMetricDescriptorsResponse { descriptors: metrics::descriptors() })
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: v1::ListPodSandboxMetricsRequest,
    ) -> Answer<Items<v1::PodSandboxMetrics>> {
        let engine = self.engine.clone();
        let mut ready = engine.pod_sandboxes();
        ready.retain(|sandbox| sandbox.state().ready);
        let read =
            move |sandbox: Arc<Sandbox>| (sandbox.id.clone(), usage::metrics_of_sandbox(engine.clone(), sandbox));
        Ok(usage::all(ready.into_iter().map(read)))
    }

    async fn runtime_config(&self, _: v1::RuntimeConfigRequest) -> Answer<v1::RuntimeConfigResponse> {
        let linux = v1::LinuxRuntimeConfiguration { cgroup_driver: v1::CgroupDriver::Cgroupfs as i32 };
        Ok(v1::RuntimeConfigResponse { linux: Some(linux) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_fits_an_answer() {
        const ROOM: usize = MAX_MESSAGE - 64;
        let lengths = |stdout: usize, stderr: usize| {
            let (stdout, stderr) = fit(vec![b'o'; stdout], vec![b'e'; stderr]);
            let answer = v1::ExecSyncResponse { stdout, stderr, exit_code: -1 };
            assert!(prost::Message::encoded_len(&answer) <= MAX_MESSAGE);
            (answer.stdout.len(), answer.stderr.len())
        };
        assert_eq!(lengths(3, 4), (3, 4));
        assert_eq!(lengths(MAX_MESSAGE, 0), (ROOM, 0));
        assert_eq!(lengths(0, MAX_MESSAGE), (0, ROOM));
        assert_eq!(lengths(MAX_MESSAGE, 10), (ROOM - 10, 10));
        assert_eq!(lengths(MAX_MESSAGE, MAX_MESSAGE), (ROOM / 2, ROOM / 2));
    }
}
