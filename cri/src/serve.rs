//! The runtime's side: both services, call by call.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use k8s_cri::v1;
use prost::Message;
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService},
};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::{
    ContainerEventResponse, ContainerStats, ContainerStatsResponse, ContainerStatusResponse, CreateContainerRequest,
    ListContainerStatsResponse, ListPodSandboxStatsResponse, Part, PodSandboxStats, PodSandboxStatsResponse,
    PodSandboxStatusResponse, StatusResponse, UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse,
};

/// What comes one after the other, until the end or an error.
pub type Items<T> = BoxStream<'static, Result<T, Status>>;

/// Declares a service and the server that leads to it. An `items` call gives what a list has, which is asked for under two
/// names: in one message, and in several.
macro_rules! service {
    (
        $(#[$doc:meta])* $service:ident by $server:ident as $name:literal;
        $(unary $path:literal $method:ident($request:ty) -> $answer:ty;)*
        $(stream $stream_path:literal $stream_method:ident($stream_request:ty) -> $message:ty;)*
        $(items $list_path:literal $parts_path:literal $list_method:ident($list_request:ty) -> $item:ty as $part:ty;)*
    ) => {
        $(#[$doc])*
        pub trait $service: Send + Sync + 'static {
            $(fn $method(&self, request: $request) -> impl Future<Output = Result<$answer, Status>> + Send;)*
            $(fn $stream_method(
                &self,
                request: $stream_request,
            ) -> impl Future<Output = Result<Items<$message>, Status>> + Send;)*
            $(fn $list_method(
                &self,
                request: $list_request,
            ) -> impl Future<Output = Result<Items<$item>, Status>> + Send;)*
        }

        /// The service on the wire.
        pub struct $server<S> {
            service: Arc<S>,
            max_message: usize,
        }

        impl<S> $server<S> {
            pub fn new(service: S, max_message: usize) -> Self {
                Self { service: Arc::new(service), max_message }
            }
        }

        impl<S> Clone for $server<S> {
            fn clone(&self) -> Self {
                Self { service: self.service.clone(), max_message: self.max_message }
            }
        }

        impl<S> NamedService for $server<S> {
            const NAME: &'static str = $name;
        }

        impl<S: $service> Service<http::Request<Body>> for $server<S> {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = Answer;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Answer {
                let (service, max) = (self.service.clone(), self.max_message);
                match request.uri().path() {
                    $(concat!("/", $name, "/", $path) => unary(request, max, move |message: $request| async move {
                        service.$method(message).await
                    }),)*
                    $(concat!("/", $name, "/", $stream_path) => {
                        streaming(request, max, move |message: $stream_request| async move {
                            service.$stream_method(message).await
                        })
                    })*
                    $(concat!("/", $name, "/", $list_path) => unary(request, max, move |message: $list_request| async move {
                        gather::<$part>(service.$list_method(message).await?).await
                    }),
                    concat!("/", $name, "/", $parts_path) => {
                        streaming(request, max, move |message: $list_request| async move {
                            service.$list_method(message).await.map(parts::<$part>)
                        })
                    })*
                    _ => Box::pin(std::future::ready(Ok(Status::unimplemented("").into_http()))),
                }
            }
        }
    };
}

service! {
    /// What runs sandboxes and containers.
    RuntimeService by RuntimeServer as "runtime.v1.RuntimeService";
    unary "Version" version(v1::VersionRequest) -> v1::VersionResponse;
    unary "Status" status(v1::StatusRequest) -> StatusResponse;
    unary "RuntimeConfig" runtime_config(v1::RuntimeConfigRequest) -> v1::RuntimeConfigResponse;
    unary "UpdateRuntimeConfig" update_runtime_config(v1::UpdateRuntimeConfigRequest) -> v1::UpdateRuntimeConfigResponse;
    unary "RunPodSandbox" run_pod_sandbox(v1::RunPodSandboxRequest) -> v1::RunPodSandboxResponse;
    unary "StopPodSandbox" stop_pod_sandbox(v1::StopPodSandboxRequest) -> v1::StopPodSandboxResponse;
    unary "RemovePodSandbox" remove_pod_sandbox(v1::RemovePodSandboxRequest) -> v1::RemovePodSandboxResponse;
    unary "PodSandboxStatus" pod_sandbox_status(v1::PodSandboxStatusRequest) -> PodSandboxStatusResponse;
    unary "PodSandboxStats" pod_sandbox_stats(v1::PodSandboxStatsRequest) -> PodSandboxStatsResponse;
    unary "UpdatePodSandboxResources"
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
    unary "CreateContainer" create_container(CreateContainerRequest) -> v1::CreateContainerResponse;
    unary "StartContainer" start_container(v1::StartContainerRequest) -> v1::StartContainerResponse;
    unary "StopContainer" stop_container(v1::StopContainerRequest) -> v1::StopContainerResponse;
    unary "RemoveContainer" remove_container(v1::RemoveContainerRequest) -> v1::RemoveContainerResponse;
    unary "ContainerStatus" container_status(v1::ContainerStatusRequest) -> ContainerStatusResponse;
    unary "ContainerStats" container_stats(v1::ContainerStatsRequest) -> ContainerStatsResponse;
    unary "UpdateContainerResources"
        update_container_resources(v1::UpdateContainerResourcesRequest) -> v1::UpdateContainerResourcesResponse;
    unary "ReopenContainerLog" reopen_container_log(v1::ReopenContainerLogRequest) -> v1::ReopenContainerLogResponse;
    unary "CheckpointContainer" checkpoint_container(v1::CheckpointContainerRequest) -> v1::CheckpointContainerResponse;
    unary "ExecSync" exec_sync(v1::ExecSyncRequest) -> v1::ExecSyncResponse;
    unary "Exec" exec(v1::ExecRequest) -> v1::ExecResponse;
    unary "Attach" attach(v1::AttachRequest) -> v1::AttachResponse;
    unary "PortForward" port_forward(v1::PortForwardRequest) -> v1::PortForwardResponse;
    unary "ListMetricDescriptors"
        list_metric_descriptors(v1::ListMetricDescriptorsRequest) -> v1::ListMetricDescriptorsResponse;
    stream "GetContainerEvents" get_container_events(v1::GetEventsRequest) -> ContainerEventResponse;
    items "ListPodSandbox" "StreamPodSandboxes"
        list_pod_sandbox(v1::ListPodSandboxRequest) -> v1::PodSandbox as v1::ListPodSandboxResponse;
    items "ListContainers" "StreamContainers"
        list_containers(v1::ListContainersRequest) -> v1::Container as v1::ListContainersResponse;
    items "ListContainerStats" "StreamContainerStats"
        list_container_stats(v1::ListContainerStatsRequest) -> ContainerStats as ListContainerStatsResponse;
    items "ListPodSandboxStats" "StreamPodSandboxStats"
        list_pod_sandbox_stats(v1::ListPodSandboxStatsRequest) -> PodSandboxStats as ListPodSandboxStatsResponse;
    items "ListPodSandboxMetrics" "StreamPodSandboxMetrics"
        list_pod_sandbox_metrics(v1::ListPodSandboxMetricsRequest)
            -> v1::PodSandboxMetrics as v1::ListPodSandboxMetricsResponse;
}

service! {
    /// What has the images.
    ImageService by ImageServer as "runtime.v1.ImageService";
    unary "ImageStatus" image_status(v1::ImageStatusRequest) -> v1::ImageStatusResponse;
    unary "PullImage" pull_image(v1::PullImageRequest) -> v1::PullImageResponse;
    unary "RemoveImage" remove_image(v1::RemoveImageRequest) -> v1::RemoveImageResponse;
    unary "ImageFsInfo" image_fs_info(v1::ImageFsInfoRequest) -> v1::ImageFsInfoResponse;
    items "ListImages" "StreamImages" list_images(v1::ListImagesRequest) -> v1::Image as v1::ListImagesResponse;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// A part of a list is sent once its items take this many bytes.
const PART: usize = 256 << 10;

/// A whole list.
async fn gather<P: Part>(mut items: Items<P::Item>) -> Result<P, Status> {
    let mut all = Vec::new();
    while let Some(item) = items.next().await {
        all.push(item?);
    }
    Ok(P::of(all))
}

/// A list in messages that are as small as its items allow. An empty one has none.
fn parts<P: Part>(items: Items<P::Item>) -> Items<P> {
    let parts = stream::unfold(Some(items), |items| async {
        let mut items = items?;
        let (mut part, mut size) = (Vec::new(), 0);
        while size < PART {
            match items.next().await {
                Some(Ok(item)) => {
                    size += item.encoded_len();
                    part.push(item);
                }
                Some(Err(error)) => return Some((Err(error), None)),
                None if part.is_empty() => return None,
                None => return Some((Ok(P::of(part)), None)),
            }
        }
        Some((Ok(P::of(part)), Some(items)))
    });
    parts.boxed()
}

/// Answers one request with one message.
fn unary<Q, A, F>(
    request: http::Request<Body>,
    max_message: usize,
    handle: impl FnOnce(Q) -> F + Send + 'static,
) -> Answer
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    F: Future<Output = Result<A, Status>> + Send + 'static,
{
    let service = once(handle);
    Box::pin(async move { Ok(grpc::<Q, A>(max_message).unary(service, request).await) })
}

/// Answers one request with as many messages as there are.
fn streaming<Q, A, F, T>(
    request: http::Request<Body>,
    max_message: usize,
    handle: impl FnOnce(Q) -> F + Send + 'static,
) -> Answer
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    F: Future<Output = Result<T, Status>> + Send + 'static,
    T: Stream<Item = Result<A, Status>> + Send + 'static,
{
    let service = once(handle);
    Box::pin(async move { Ok(grpc::<Q, A>(max_message).server_streaming(service, request).await) })
}

fn grpc<Q, A>(max_message: usize) -> Grpc<ProstCodec<A, Q>>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(max_message).max_encoding_message_size(max_message)
}

/// A service for the one request that it is made for.
fn once<Q, A, F>(
    handle: impl FnOnce(Q) -> F + Send + 'static,
) -> impl Service<Request<Q>, Response = Response<A>, Error = Status, Future: Send> + Send
where
    F: Future<Output = Result<A, Status>> + Send + 'static,
{
    let mut handle = Some(handle);
    tower::service_fn(move |request: Request<Q>| {
        let answer = handle.take().map(|handle| handle(request.into_inner()));
        async move {
            match answer {
                Some(answer) => answer.await.map(Response::new),
                None => Err(Status::internal("asked twice")),
            }
        }
    })
}
