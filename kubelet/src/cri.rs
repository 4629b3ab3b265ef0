//! The container runtime, over CRI v1 on a unix socket. Every call has a deadline.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_cri::{CreateContainerRequest, Part, UpdatePodSandboxResourcesRequest};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{self as cri};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Calls that only look or change a record (upstream's `runtimeRequestTimeout`).
const CALL: Duration = Duration::from_secs(120);
/// A sandbox brings the pod's network up, which may take a while (upstream gives it twice the time).
const SANDBOX: Duration = Duration::from_secs(240);
/// An image may be large and the line slow; a pull that makes no progress is the runtime's to end.
const PULL: Duration = Duration::from_secs(1800);
/// Largest message, as upstream's kubelet.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A connection to the runtime. Clones share it; it is opened again when the runtime comes back.
#[derive(Debug, Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    newer: coracle_cri::Client,
    /// Whether the runtime gives lists in parts, as far as is known.
    in_parts: Arc<AtomicBool>,
}

/// What the runtime answered instead, in the form in which Go's gRPC writes it: people search for these words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("rpc error: code = {} desc = {}", go_code(*.code), .message)]
pub struct Error {
    /// The gRPC code.
    pub code: tonic::Code,
    /// What the runtime says.
    pub message: String,
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self { code: status.code(), message: status.message().to_owned() }
    }
}

impl Error {
    /// Whether what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        self.code == tonic::Code::NotFound
    }
}

fn go_code(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

type Answer<T> = Result<T, Error>;

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Answer<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Error { code: tonic::Code::DeadlineExceeded, message: "context deadline exceeded".into() }),
    }
}

/// Methods that pass a request on and hand the answer back, each with its deadline.
macro_rules! calls {
    ($($(#[$doc:meta])* $field:ident.$method:ident($request:ident) -> $answer:ident within $limit:expr;)*) => {
        $($(#[$doc])* pub async fn $method(&self, request: cri::$request) -> Answer<cri::$answer> {
            let mut client = self.$field.clone();
            within($limit, client.$method(request)).await
        })*
    };
}

impl Cri {
    /// A connection to the runtime that listens on `socket`. Nothing is dialled before the first call.
    pub fn new(socket: &Path) -> Self {
        let path = socket.to_owned();
        let dial = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is never dialled: the connector opens the socket.
        let channel = Endpoint::from_static("http://cri.invalid").connect_with_connector_lazy(dial);
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            newer: coracle_cri::Client::new(channel.clone()),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
            in_parts: Arc::new(AtomicBool::new(true)),
        }
    }

    calls! {
        /// Name and version of the runtime.
        runtime.version(VersionRequest) -> VersionResponse within CALL;
        /// Whether the runtime and its network are ready.
        runtime.status(StatusRequest) -> StatusResponse within CALL;
        runtime.run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse within SANDBOX;
        runtime.stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse within SANDBOX;
        runtime.remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse within CALL;
        runtime.pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse within CALL;
        runtime.start_container(StartContainerRequest) -> StartContainerResponse within CALL;
        runtime.remove_container(RemoveContainerRequest) -> RemoveContainerResponse within CALL;
        runtime.container_status(ContainerStatusRequest) -> ContainerStatusResponse within CALL;
        runtime.update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse within CALL;
        runtime.container_stats(ContainerStatsRequest) -> ContainerStatsResponse within CALL;
        runtime.reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse within CALL;
        /// Where to have a command's streams.
        runtime.exec(ExecRequest) -> ExecResponse within CALL;
        /// Where to have a container's streams.
        runtime.attach(AttachRequest) -> AttachResponse within CALL;
        /// Where to have connections to a pod's ports.
        runtime.port_forward(PortForwardRequest) -> PortForwardResponse within CALL;
        runtime.update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse within CALL;
        images.image_status(ImageStatusRequest) -> ImageStatusResponse within CALL;
        images.pull_image(PullImageRequest) -> PullImageResponse within PULL;
    }

    pub async fn list_pod_sandbox(&self, request: cri::ListPodSandboxRequest) -> Answer<cri::ListPodSandboxResponse> {
        let mut client = self.runtime.clone();
        self.list("/runtime.v1.RuntimeService/StreamPodSandboxes", request, |request| async move {
            client.list_pod_sandbox(request).await
        })
        .await
    }

    pub async fn list_containers(&self, request: cri::ListContainersRequest) -> Answer<cri::ListContainersResponse> {
        let mut client = self.runtime.clone();
        self.list("/runtime.v1.RuntimeService/StreamContainers", request, |request| async move {
            client.list_containers(request).await
        })
        .await
    }

    pub async fn list_images(&self, request: cri::ListImagesRequest) -> Answer<cri::ListImagesResponse> {
        let mut client = self.images.clone();
        self.list("/runtime.v1.ImageService/StreamImages", request, |request| async move {
            client.list_images(request).await
        })
        .await
    }

    /// A list in parts, which no message has to hold whole; from a runtime that does not have that, in one (KEP-5825).
    async fn list<Q, P, F>(&self, path: &'static str, request: Q, whole: impl FnOnce(Q) -> F) -> Answer<P>
    where
        Q: prost::Message + Clone + 'static,
        P: Part,
        F: Future<Output = Result<tonic::Response<P>, tonic::Status>>,
    {
        if self.in_parts.load(Ordering::Relaxed) {
            match within(CALL, self.parts(path, request.clone())).await {
                Err(error) if error.code == tonic::Code::Unimplemented => self.in_parts.store(false, Ordering::Relaxed),
                answer => return answer,
            }
        }
        within(CALL, whole(request)).await
    }

    async fn parts<Q, P>(&self, path: &'static str, request: Q) -> Result<tonic::Response<P>, tonic::Status>
    where
        Q: prost::Message + 'static,
        P: Part,
    {
        let mut parts = self.newer.clone().parts::<Q, P>(path, request).await?;
        let mut items = Vec::new();
        while let Some(part) = parts.message().await? {
            items.extend(part.items());
        }
        Ok(tonic::Response::new(P::of(items)))
    }

    pub async fn create_container(&self, request: CreateContainerRequest) -> Answer<cri::CreateContainerResponse> {
        let mut client = self.newer.clone();
        within(CALL, client.create_container(request)).await
    }

    /// Tells the runtime what the pod's group was given.
    pub async fn update_pod_sandbox_resources(&self, request: UpdatePodSandboxResourcesRequest) -> Answer<()> {
        let mut client = self.newer.clone();
        within(CALL, client.update_pod_sandbox_resources(request)).await.map(drop)
    }

    /// Stops a container: SIGTERM (or its own signal), after `grace` seconds SIGKILL. Answers when it has ended.
    pub async fn stop_container(&self, id: &str, grace: i64) -> Answer<()> {
        let mut client = self.runtime.clone();
        let limit = CALL + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout: grace };
        within(limit, client.stop_container(request)).await.map(drop)
    }

    /// Runs a command in a container and answers with its output and exit code.
    pub async fn exec_sync(&self, id: &str, command: &[String], limit: Duration) -> Answer<cri::ExecSyncResponse> {
        let mut client = self.runtime.clone();
        let timeout = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        let request = cri::ExecSyncRequest { container_id: id.to_owned(), cmd: command.to_vec(), timeout };
        // The runtime keeps the time; ours is for a runtime that does not.
        within(limit + Duration::from_secs(5), client.exec_sync(request)).await
    }

    /// The runtime's events, as they happen. Runtimes that have none answer `Unimplemented`.
    pub async fn events(&self) -> Answer<tonic::Streaming<cri::ContainerEventResponse>> {
        let mut client = self.runtime.clone();
        within(CALL, client.get_container_events(cri::GetEventsRequest {})).await
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, pin::Pin, task};

    use futures::stream;
    use tokio::net::UnixListener;
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::{Response, Status, body::Body, server::Grpc};

    use super::*;

    /// A runtime that has one list, in parts alone: sandboxes, until the last part fails for who asks for a failure.
    #[derive(Clone)]
    struct InParts;

    impl tonic::server::NamedService for InParts {
        const NAME: &'static str = "runtime.v1.RuntimeService";
    }

    type Parts = Pin<Box<dyn futures::Stream<Item = Result<cri::ListPodSandboxResponse, Status>> + Send>>;

    async fn sandboxes(request: tonic::Request<cri::ListPodSandboxRequest>) -> Result<Response<Parts>, Status> {
        let fails = request.into_inner().filter.is_some_and(|filter| filter.id == "fails");
        let part = |ids: &[&str]| {
            let of = |id: &&str| cri::PodSandbox { id: (*id).to_owned(), ..Default::default() };
            Ok(cri::ListPodSandboxResponse { items: ids.iter().map(of).collect() })
        };
        let last = if fails { Err(Status::internal("the disk is gone")) } else { part(&["d"]) };
        Ok(Response::new(Box::pin(stream::iter([part(&["a", "b"]), part(&["c"]), last]))))
    }

    impl tower::Service<http::Request<Body>> for InParts {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
            task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            Box::pin(async move {
                if !request.uri().path().ends_with("/StreamPodSandboxes") {
                    return Ok(Status::unimplemented("").into_http());
                }
                let codec = tonic_prost::ProstCodec::default();
                Ok(Grpc::new(codec).server_streaming(tower::service_fn(sandboxes), request).await)
            })
        }
    }

    #[tokio::test]
    async fn a_list_in_parts_is_one_list() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cri.sock");
        let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let server = tonic::transport::Server::builder().add_service(InParts).serve_with_incoming(incoming);
        let server = tokio::spawn(server);
        let cri = Cri::new(&socket);
        let list = cri.list_pod_sandbox(Default::default()).await.unwrap();
        assert_eq!(list.items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        // Half a list is none: what is missing in it would be taken for gone.
        let filter = cri::PodSandboxFilter { id: "fails".into(), ..Default::default() };
        let error = cri.list_pod_sandbox(cri::ListPodSandboxRequest { filter: Some(filter) }).await.unwrap_err();
        assert_eq!(error.message, "the disk is gone");
        // It asks for parts again the next time, and what is not there in parts it asks for whole.
        assert_eq!(cri.list_pod_sandbox(Default::default()).await.unwrap().items.len(), 4);
        let error = cri.list_containers(Default::default()).await.unwrap_err();
        assert!(error.code == tonic::Code::Unimplemented && !cri.in_parts.load(Ordering::Relaxed));
        server.abort();
    }
}
