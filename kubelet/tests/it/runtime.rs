//! A CRI runtime that holds everything in memory and runs nothing. Tests end its containers and break its calls.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use futures::stream::{self, StreamExt};
use k8s_cri::v1 as cri;
use k8s_cri::v1::image_service_server::{ImageService, ImageServiceServer};
use k8s_cri::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// What the runtime has.
#[derive(Default)]
struct State {
    next: u64,
    sandboxes: BTreeMap<String, cri::PodSandbox>,
    containers: BTreeMap<String, (cri::ContainerStatus, String)>,
    configs: HashMap<String, cri::ContainerConfig>,
}

/// The runtime; clones are the same one.
#[derive(Clone)]
pub struct Runtime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<cri::ContainerEventResponse>,
}

impl Runtime {
    /// Serves on `socket` until the test ends.
    pub fn serve(socket: &Path) -> Self {
        let runtime = Self { state: Arc::default(), events: broadcast::Sender::new(64) };
        let listener = UnixListener::bind(socket).unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(RuntimeServiceServer::new(runtime.clone()))
            .add_service(ImageServiceServer::new(runtime.clone()));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        runtime
    }

    /// Ends the newest run of a container.
    pub fn end(&self, name: &str, exit_code: i32) {
        let mut state = self.state.lock();
        let runs = state.containers.values_mut().filter(|(run, _)| run.metadata.as_ref().unwrap().name == name);
        let (run, _) = runs.max_by_key(|(run, _)| run.created_at).unwrap();
        end(run, exit_code);
        let labels = run.labels.clone();
        drop(state);
        self.tell(labels);
    }

    /// Everything that is there: sandboxes, then containers as `name#attempt state`.
    pub fn all(&self) -> Vec<String> {
        let state = self.state.lock();
        let sandboxes =
            state.sandboxes.values().map(|s| format!("sandbox {}", if s.state == 0 { "ready" } else { "stopped" }));
        let containers = state.containers.values().map(|(run, _)| {
            let metadata = run.metadata.as_ref().unwrap();
            format!("{}#{} {:?}", metadata.name, metadata.attempt, run.state())
        });
        sandboxes.chain(containers).collect()
    }

    /// How the newest run of a container was made.
    pub fn config(&self, name: &str) -> cri::ContainerConfig {
        let state = self.state.lock();
        let named = state.configs.values().filter(|config| config.metadata.as_ref().unwrap().name == name);
        named.max_by_key(|config| config.metadata.as_ref().unwrap().attempt).unwrap().clone()
    }

    /// What the newest run of a container was given while it ran.
    pub fn resources(&self, name: &str) -> Option<cri::LinuxContainerResources> {
        let state = self.state.lock();
        let named = |run: &&cri::ContainerStatus| run.metadata.as_ref().is_some_and(|metadata| metadata.name == name);
        let runs = state.containers.values().map(|(run, _)| run).filter(named);
        runs.max_by_key(|run| run.created_at)?.resources.clone()?.linux
    }

    fn tell(&self, labels: HashMap<String, String>) {
        let status = cri::PodSandboxStatus { labels, ..Default::default() };
        // Nobody may be listening yet.
        let _ =
            self.events.send(cri::ContainerEventResponse { pod_sandbox_status: Some(status), ..Default::default() });
    }
}

fn end(run: &mut cri::ContainerStatus, exit_code: i32) {
    run.state = cri::ContainerState::ContainerExited as i32;
    run.exit_code = exit_code;
    run.finished_at = now();
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap()
}

fn matches(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Calls that no test makes.
macro_rules! unsupported {
    ($($method:ident($request:ident) -> $answer:ident;)*) => {
        // Written out as `async_trait` would: it does not look into macros.
        $(fn $method<'s, 'a>(
            &'s self,
            _: Request<cri::$request>,
        ) -> Pin<Box<dyn Future<Output = Answer<cri::$answer>> + Send + 'a>>
        where
            's: 'a,
            Self: 'a,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($method))) })
        })*
    };
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        Ok(Response::new(cri::VersionResponse {
            runtime_name: "fake".into(),
            runtime_version: "1".into(),
            ..Default::default()
        }))
    }

    async fn status(&self, _: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let condition = |kind: &str| cri::RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        let status = cri::RuntimeStatus { conditions: vec![condition("RuntimeReady"), condition("NetworkReady")] };
        Ok(Response::new(cri::StatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn run_pod_sandbox(&self, request: Request<cri::RunPodSandboxRequest>) -> Answer<cri::RunPodSandboxResponse> {
        let config = request.into_inner().config.unwrap();
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("sandbox-{}", state.next);
        let sandbox = cri::PodSandbox {
            id: id.clone(),
            metadata: config.metadata,
            created_at: now(),
            labels: config.labels,
            annotations: config.annotations,
            ..Default::default()
        };
        state.sandboxes.insert(id.clone(), sandbox);
        Ok(Response::new(cri::RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.state.lock();
        for (run, sandbox) in state.containers.values_mut() {
            if *sandbox == id && run.state() != cri::ContainerState::ContainerExited {
                end(run, 137);
            }
        }
        let sandbox = state.sandboxes.get_mut(&id).ok_or_else(|| Status::not_found(id))?;
        sandbox.state = cri::PodSandboxState::SandboxNotready as i32;
        Ok(Response::new(cri::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.state.lock();
        state.containers.retain(|_, (_, sandbox)| *sandbox != id);
        state.sandboxes.remove(&id);
        Ok(Response::new(cri::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let network = cri::PodSandboxNetworkStatus { ip: "10.0.0.7".into(), ..Default::default() };
        let status = cri::PodSandboxStatus { id, network: Some(network), ..Default::default() };
        Ok(Response::new(cri::PodSandboxStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let selector = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let items = state.sandboxes.values().filter(|sandbox| matches(&sandbox.labels, &selector)).cloned().collect();
        Ok(Response::new(cri::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.unwrap();
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("container-{}", state.next);
        let status = cri::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            created_at: now(),
            image: config.image.clone(),
            image_ref: "sha256:image".into(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            ..Default::default()
        };
        state.containers.insert(id.clone(), (status, request.pod_sandbox_id));
        state.configs.insert(id.clone(), config);
        Ok(Response::new(cri::CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        let id = request.into_inner().container_id;
        let mut state = self.state.lock();
        let (run, _) = state.containers.get_mut(&id).ok_or_else(|| Status::not_found(id))?;
        run.state = cri::ContainerState::ContainerRunning as i32;
        run.started_at = now();
        Ok(Response::new(cri::StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<cri::StopContainerRequest>) -> Answer<cri::StopContainerResponse> {
        let id = request.into_inner().container_id;
        let mut state = self.state.lock();
        let (run, _) = state.containers.get_mut(&id).ok_or_else(|| Status::not_found(id))?;
        end(run, 0);
        Ok(Response::new(cri::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        self.state.lock().containers.remove(&request.into_inner().container_id);
        Ok(Response::new(cri::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let selector = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let runs = state.containers.values().filter(|(run, _)| matches(&run.labels, &selector));
        let runs = runs.map(|(run, sandbox)| cri::Container {
            id: run.id.clone(),
            pod_sandbox_id: sandbox.clone(),
            state: run.state,
            labels: run.labels.clone(),
            ..Default::default()
        });
        Ok(Response::new(cri::ListContainersResponse { containers: runs.collect() }))
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let state = self.state.lock();
        let (run, _) = state.containers.get(&id).ok_or_else(|| Status::not_found(id))?;
        Ok(Response::new(cri::ContainerStatusResponse { status: Some(run.clone()), ..Default::default() }))
    }

    type GetContainerEventsStream = Pin<Box<dyn Stream<Item = Result<cri::ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(&self, _: Request<cri::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let events = BroadcastStream::new(self.events.subscribe());
        let events = events.flat_map(|event| stream::iter(event.ok().map(Ok)));
        Ok(Response::new(Box::pin(events)))
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        let (run, _) =
            state.containers.get_mut(&request.container_id).ok_or_else(|| Status::not_found(&request.container_id))?;
        run.resources = Some(cri::ContainerResources { linux: request.linux, windows: None });
        Ok(Response::new(cri::UpdateContainerResourcesResponse {}))
    }

    /// Every container uses 50 MiB.
    async fn container_stats(&self, _: Request<cri::ContainerStatsRequest>) -> Answer<cri::ContainerStatsResponse> {
        let usage_bytes = Some(cri::UInt64Value { value: 50 << 20 });
        let memory = Some(cri::MemoryUsage { usage_bytes, ..Default::default() });
        let stats = Some(cri::ContainerStats { memory, ..Default::default() });
        Ok(Response::new(cri::ContainerStatsResponse { stats }))
    }

    unsupported! {
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        exec_sync(ExecSyncRequest) -> ExecSyncResponse;
        exec(ExecRequest) -> ExecResponse;
        attach(AttachRequest) -> AttachResponse;
        port_forward(PortForwardRequest) -> PortForwardResponse;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
    }
}

#[tonic::async_trait]
impl ImageService for Runtime {
    async fn list_images(&self, _: Request<cri::ListImagesRequest>) -> Answer<cri::ListImagesResponse> {
        Ok(Response::new(cri::ListImagesResponse::default()))
    }

    /// Every image is there but those of the registry `gone`.
    async fn image_status(&self, request: Request<cri::ImageStatusRequest>) -> Answer<cri::ImageStatusResponse> {
        let name = request.into_inner().image.unwrap().image;
        let image =
            (!name.starts_with("gone/")).then(|| cri::Image { id: "sha256:image".into(), ..Default::default() });
        Ok(Response::new(cri::ImageStatusResponse { image, ..Default::default() }))
    }

    async fn pull_image(&self, _: Request<cri::PullImageRequest>) -> Answer<cri::PullImageResponse> {
        Err(Status::not_found("no such image"))
    }

    unsupported! {
        remove_image(RemoveImageRequest) -> RemoveImageResponse;
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    }
}
