//! RuntimeService: sandboxes, containers, events, statistics.

use std::{pin::Pin, sync::Arc, time::Duration};

use coracle_cri::{CreateContainer, Newer, UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse};
use coracle_streaming::{Wanted, server as streaming};
use futures::Stream;
use k8s_cri::v1::{self, runtime_service_server::RuntimeService};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    task::spawn_blocking,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{convert, metrics, missing, status};
use crate::{
    engine::{
        Container, Engine, Sandbox,
        model::{self, Event, EventKind},
        namespaces::can_map_users,
    },
    error::Error,
};

/// The CRI's service of runtimes.
pub struct Service {
    engine: Arc<Engine>,
    streams: Arc<Streams>,
    shutdown: CancellationToken,
}

impl Newer for Service {
    async fn create_container(&self, create: CreateContainer) -> Result<v1::CreateContainerResponse, Status> {
        let CreateContainer { request, image_sub_paths } = create;
        let config = request.config.ok_or_else(|| missing("config"))?;
        let config = convert::container_config(config, image_sub_paths).map_err(status)?;
        let container_id = self.engine.create_container(&request.pod_sandbox_id, config).await.map_err(status)?;
        Ok(v1::CreateContainerResponse { container_id })
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse, Status> {
        let (overhead, resources) =
            (request.overhead.map(convert::resources), request.resources.map(convert::resources));
        self.engine.update_sandbox(&request.pod_sandbox_id, overhead, resources).await.map_err(status)?;
        Ok(UpdatePodSandboxResourcesResponse {})
    }
}

/// Where exec, attach and port-forward are served.
pub type Streams = coracle_streaming::Server<super::streaming::Containers>;

type Answer<T> = Result<Response<T>, Status>;

/// Two channels for each port, and a byte for a channel's number.
const MOST_PORTS: usize = 128;

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

/// Runtimes that containers can be started with; there is one.
const HANDLERS: [&str; 2] = ["", "coracle"];

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
            other => Err(Status::failed_precondition(format!("container is in {other:?} state"))),
        }
    }

    fn container_status(&self, container: &Container) -> v1::ContainerStatus {
        container_status(&self.engine, container)
    }

    fn containers_statuses(&self, sandbox: &str) -> Vec<v1::ContainerStatus> {
        self.engine.containers_of(sandbox).iter().map(|container| self.container_status(container)).collect()
    }

    async fn stats_of(&self, container: Arc<Container>) -> Result<v1::ContainerStats, Status> {
        let engine = self.engine.clone();
        let stats = spawn_blocking(move || stats(&engine, &container)).await.map_err(|error| status(error.into()))?;
        stats.map_err(status)
    }

    async fn sandbox_stats_of(&self, sandbox: Arc<Sandbox>) -> Result<v1::PodSandboxStats, Status> {
        let engine = self.engine.clone();
        let stats =
            spawn_blocking(move || sandbox_stats(&engine, &sandbox)).await.map_err(|error| status(error.into()))?;
        stats.map_err(status)
    }
}

fn container_status(engine: &Engine, container: &Container) -> v1::ContainerStatus {
    let tags = engine.images().find(container.image.id.as_str()).map(|image| image.tags.clone()).unwrap_or_default();
    convert::container_status(container, &tags)
}

fn stats(engine: &Engine, container: &Container) -> Result<v1::ContainerStats, Error> {
    let stats = engine.container_stats(container)?;
    let usage = engine.writable_usage(container);
    let mountpoint = engine.data_dir().join("snapshots").to_string_lossy().into_owned();
    Ok(convert::container_stats(
        container,
        &stats,
        convert::filesystem_usage(mountpoint, stats.at, usage.bytes, usage.inodes),
    ))
}

fn sandbox_stats(engine: &Engine, sandbox: &Sandbox) -> Result<v1::PodSandboxStats, Error> {
    let total = engine.sandbox_stats(sandbox)?;
    let containers = engine.containers_of(&sandbox.id);
    let linux = v1::LinuxPodSandboxStats {
        cpu: Some(convert::cpu_usage(&total)),
        memory: Some(convert::memory_usage(&total)),
        network: convert::network_usage(total.at, &engine.sandbox_interfaces(sandbox)),
        process: Some(v1::ProcessUsage {
            timestamp: total.at,
            process_count: Some(v1::UInt64Value { value: total.pids }),
        }),
        containers: containers.iter().map(|container| stats(engine, container)).collect::<Result<_, _>>()?,
    };
    Ok(v1::PodSandboxStats {
        attributes: Some(convert::sandbox_attributes(sandbox)),
        linux: Some(linux),
        windows: None,
    })
}

/// An event with the state that it led to. `None` for kinds that CRI does not know.
fn event_message(engine: &Engine, event: &Event) -> v1::ContainerEventResponse {
    let kind = match event.kind {
        EventKind::Created => v1::ContainerEventType::ContainerCreatedEvent,
        EventKind::Started => v1::ContainerEventType::ContainerStartedEvent,
        EventKind::Stopped => v1::ContainerEventType::ContainerStoppedEvent,
        EventKind::Deleted => v1::ContainerEventType::ContainerDeletedEvent,
    };
    let sandbox = engine.sandbox(&event.sandbox).ok();
    v1::ContainerEventResponse {
        container_id: event.id.clone(),
        container_event_type: kind as i32,
        created_at: event.at,
        pod_sandbox_status: sandbox.map(|sandbox| convert::sandbox_status(&sandbox)),
        containers_statuses: engine
            .containers_of(&event.sandbox)
            .iter()
            .map(|container| container_status(engine, container))
            .collect(),
    }
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        Ok(Response::new(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "coracle".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let condition = |kind: &str, problem: Option<(&str, String)>| {
            let status = problem.is_none();
            let (reason, message) = problem.map(|(reason, message)| (reason.to_owned(), message)).unwrap_or_default();
            v1::RuntimeCondition { r#type: kind.into(), status, reason, message }
        };
        let network = self
            .engine
            .network_problem()
            .await
            .map(|message| ("NetworkPluginNotReady", format!("Network plugin returns error: {message}")));
        let features = v1::RuntimeHandlerFeatures {
            recursive_read_only_mounts: coracle_launcher::sys::has_mount_setattr(),
            user_namespaces: can_map_users(),
        };
        Ok(Response::new(v1::StatusResponse {
            status: Some(v1::RuntimeStatus {
                conditions: vec![condition("RuntimeReady", None), condition("NetworkReady", network)],
            }),
            runtime_handlers: HANDLERS
                .iter()
                .map(|name| v1::RuntimeHandler { name: (*name).into(), features: Some(features) })
                .collect(),
            features: Some(v1::RuntimeFeatures { supplemental_groups_policy: true }),
            ..Default::default()
        }))
    }

    async fn run_pod_sandbox(&self, request: Request<v1::RunPodSandboxRequest>) -> Answer<v1::RunPodSandboxResponse> {
        let request = request.into_inner();
        if !HANDLERS.contains(&request.runtime_handler.as_str()) {
            return Err(Status::not_found(format!(
                "failed to get sandbox runtime: no runtime for {:?} is configured",
                request.runtime_handler
            )));
        }
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
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id: made.map_err(status)? }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        match self.engine.stop_sandbox(&request.into_inner().pod_sandbox_id).await {
            Err(error) if !error.is_not_found() => Err(status(error)),
            _ => Ok(Response::new(v1::StopPodSandboxResponse {})),
        }
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        self.engine.remove_sandbox(&request.into_inner().pod_sandbox_id).await.map_err(status)?;
        Ok(Response::new(v1::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let sandbox = self.engine.sandbox(&request.pod_sandbox_id).map_err(status)?;
        let info = request.verbose.then(|| ("info".to_owned(), convert::sandbox_info(&sandbox).to_string()));
        Ok(Response::new(v1::PodSandboxStatusResponse {
            status: Some(convert::sandbox_status(&sandbox)),
            info: info.into_iter().collect(),
            containers_statuses: self.containers_statuses(&sandbox.id),
            timestamp: crate::engine::model::now(),
        }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let mut sandboxes = self.engine.pod_sandboxes();
        sandboxes.retain(|sandbox| {
            sandbox.id.starts_with(&filter.id) && convert::selected(&sandbox.config.labels, &filter.label_selector)
        });
        let mut items: Vec<v1::PodSandbox> =
            sandboxes.iter().map(|sandbox| convert::sandbox_summary(sandbox)).collect();
        if let Some(state) = filter.state {
            items.retain(|item| item.state == state.state);
        }
        Ok(Response::new(v1::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        let create = CreateContainer { request: request.into_inner(), ..CreateContainer::default() };
        Newer::create_container(self, create).await.map(Response::new)
    }

    async fn start_container(&self, request: Request<v1::StartContainerRequest>) -> Answer<v1::StartContainerResponse> {
        let (engine, id) = (self.engine.clone(), request.into_inner().container_id);
        let started = tokio::spawn(async move { engine.start_container(&id).await })
            .await
            .map_err(|error| status(error.into()))?;
        started.map_err(status)?;
        Ok(Response::new(v1::StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<v1::StopContainerRequest>) -> Answer<v1::StopContainerResponse> {
        let request = request.into_inner();
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        match self.engine.stop_container(&request.container_id, grace).await {
            Err(error) if !error.is_not_found() => Err(status(error)),
            _ => Ok(Response::new(v1::StopContainerResponse {})),
        }
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        self.engine.remove_container(&request.into_inner().container_id).await.map_err(status)?;
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<v1::ListContainersRequest>) -> Answer<v1::ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let mut all = self.engine.pod_containers();
        all.retain(|container| {
            container.id.starts_with(&filter.id)
                && container.sandbox.starts_with(&filter.pod_sandbox_id)
                && convert::selected(&container.config.labels, &filter.label_selector)
        });
        let mut containers: Vec<v1::Container> =
            all.iter().map(|container| convert::container_summary(container)).collect();
        if let Some(state) = filter.state {
            containers.retain(|container| container.state == state.state);
        }
        Ok(Response::new(v1::ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        let request = request.into_inner();
        let container = self.engine.container(&request.container_id).map_err(status)?;
        let mut info = std::collections::HashMap::new();
        if request.verbose {
            info.insert(
                "info".to_owned(),
                serde_json::json!({ "sandboxID": container.sandbox, "pid": container.state().pid }).to_string(),
            );
        }
        Ok(Response::new(v1::ContainerStatusResponse { status: Some(self.container_status(&container)), info }))
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        // There is nothing to change, but what is not there is told of all the same.
        self.engine.container(&request.container_id).map_err(status)?;
        if let Some(linux) = request.linux {
            self.engine.update_container(&request.container_id, convert::resources(linux)).await.map_err(status)?;
        }
        Ok(Response::new(v1::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        self.engine.reopen_log(&request.into_inner().container_id).await.map_err(status)?;
        Ok(Response::new(v1::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        let request = request.into_inner();
        let limit = u64::try_from(request.timeout).ok().filter(|&seconds| seconds > 0).map(Duration::from_secs);
        let result = self.engine.exec_sync(&request.container_id, &request.cmd, limit).await.map_err(status)?;
        Ok(Response::new(v1::ExecSyncResponse {
            stdout: result.stdout,
            stderr: result.stderr,
            exit_code: result.exit_code,
        }))
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        let v1::ExecRequest { container_id, cmd: command, tty, stdin, stdout, stderr } = request.into_inner();
        let wanted = wanted(stdin, stdout, stderr, tty)?;
        let container = self.running(&container_id)?.id.clone();
        let url = self.url(streaming::Request::Exec { container, command, wanted })?;
        Ok(Response::new(v1::ExecResponse { url }))
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        let v1::AttachRequest { container_id, tty, stdin, stdout, stderr } = request.into_inner();
        let wanted = wanted(stdin, stdout, stderr, tty)?;
        let container = self.running(&container_id)?.id.clone();
        let url = self.url(streaming::Request::Attach { container, wanted })?;
        Ok(Response::new(v1::AttachResponse { url }))
    }

    async fn port_forward(&self, request: Request<v1::PortForwardRequest>) -> Answer<v1::PortForwardResponse> {
        let request = request.into_inner();
        let sandbox = self.engine.sandbox(&request.pod_sandbox_id).map_err(status)?.id.clone();
        let ports = request.port.into_iter().map(|port| u16::try_from(port).ok().filter(|port| *port != 0));
        let ports = ports.collect::<Option<Vec<_>>>().filter(|ports| ports.len() <= MOST_PORTS);
        let ports = ports.ok_or_else(|| Status::invalid_argument("ports are 1 to 65535, and 128 at most"))?;
        let url = self.url(streaming::Request::PortForward { sandbox, ports })?;
        Ok(Response::new(v1::PortForwardResponse { url }))
    }

    async fn container_stats(&self, request: Request<v1::ContainerStatsRequest>) -> Answer<v1::ContainerStatsResponse> {
        let container = self.engine.container(&request.into_inner().container_id).map_err(status)?;
        Ok(Response::new(v1::ContainerStatsResponse { stats: Some(self.stats_of(container).await?) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let mut out = Vec::new();
        for container in self.engine.pod_containers() {
            let wanted = container.id.starts_with(&filter.id)
                && container.sandbox.starts_with(&filter.pod_sandbox_id)
                && convert::selected(&container.config.labels, &filter.label_selector);
            if wanted {
                out.push(self.stats_of(container).await?);
            }
        }
        Ok(Response::new(v1::ListContainerStatsResponse { stats: out }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Answer<v1::PodSandboxStatsResponse> {
        let sandbox = self.engine.sandbox(&request.into_inner().pod_sandbox_id).map_err(status)?;
        Ok(Response::new(v1::PodSandboxStatsResponse { stats: Some(self.sandbox_stats_of(sandbox).await?) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let mut stats = Vec::new();
        for sandbox in self.engine.pod_sandboxes() {
            if sandbox.id.starts_with(&filter.id) && convert::selected(&sandbox.config.labels, &filter.label_selector) {
                stats.push(self.sandbox_stats_of(sandbox).await?);
            }
        }
        Ok(Response::new(v1::ListPodSandboxStatsResponse { stats }))
    }

    async fn update_runtime_config(
        &self,
        _: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        // The pod range is the network configuration's; containerd without a template ignores it as well.
        Ok(Response::new(v1::UpdateRuntimeConfigResponse {}))
    }

    async fn checkpoint_container(
        &self,
        _: Request<v1::CheckpointContainerRequest>,
    ) -> Answer<v1::CheckpointContainerResponse> {
        Err(Status::unimplemented("CheckpointContainer is not supported"))
    }

    type GetContainerEventsStream = Pin<Box<dyn Stream<Item = Result<v1::ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(&self, _: Request<v1::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
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
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        Ok(Response::new(v1::ListMetricDescriptorsResponse { descriptors: metrics::descriptors() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Answer<v1::ListPodSandboxMetricsResponse> {
        let engine = self.engine.clone();
        let collect = move || {
            let ready = engine.pod_sandboxes().into_iter().filter(|sandbox| sandbox.state().ready);
            ready.map(|sandbox| metrics::of_sandbox(&engine, &sandbox)).collect::<Result<Vec<_>, _>>()
        };
        let collected = spawn_blocking(collect).await.map_err(|error| status(error.into()))?;
        Ok(Response::new(v1::ListPodSandboxMetricsResponse { pod_metrics: collected.map_err(status)? }))
    }

    async fn runtime_config(&self, _: Request<v1::RuntimeConfigRequest>) -> Answer<v1::RuntimeConfigResponse> {
        let linux = v1::LinuxRuntimeConfiguration { cgroup_driver: v1::CgroupDriver::Cgroupfs as i32 };
        Ok(Response::new(v1::RuntimeConfigResponse { linux: Some(linux) }))
    }
}
