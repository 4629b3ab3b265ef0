//! The kubelet's side.

use http::uri::PathAndQuery;
use k8s_cri::v1;
use tonic::{Request, Response, Status, Streaming, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

use crate::{
    ContainerStatusResponse, CreateContainerRequest, Part, PodSandboxStatsResponse, UpdatePodSandboxResourcesRequest,
    UpdatePodSandboxResourcesResponse,
};

/// Calls over a connection that the generated clients share.
#[derive(Clone, Debug)]
pub struct Client {
    grpc: Grpc<Channel>,
}

impl Client {
    pub fn new(channel: Channel) -> Client {
        Client { grpc: Grpc::new(channel) }
    }

    pub async fn create_container(
        &mut self,
        request: CreateContainerRequest,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        self.unary("/runtime.v1.RuntimeService/CreateContainer", request).await
    }

    pub async fn container_status(
        &mut self,
        request: v1::ContainerStatusRequest,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        self.unary("/runtime.v1.RuntimeService/ContainerStatus", request).await
    }

    pub async fn pod_sandbox_stats(
        &mut self,
        request: v1::PodSandboxStatsRequest,
    ) -> Result<Response<PodSandboxStatsResponse>, Status> {
        self.unary("/runtime.v1.RuntimeService/PodSandboxStats", request).await
    }

    pub async fn update_pod_sandbox_resources(
        &mut self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<Response<UpdatePodSandboxResourcesResponse>, Status> {
        self.unary("/runtime.v1.RuntimeService/UpdatePodSandboxResources", request).await
    }

    /// A list in parts: `path` is a `Stream…` call's. A runtime without it answers `Unimplemented` here or with the first part.
    pub async fn parts<Q, P>(&mut self, path: &'static str, request: Q) -> Result<Streaming<P>, Status>
    where
        Q: prost::Message + 'static,
        P: Part,
    {
        self.ready().await?;
        let codec = ProstCodec::<Q, P>::default();
        let answer = self.grpc.server_streaming(Request::new(request), PathAndQuery::from_static(path), codec).await?;
        Ok(answer.into_inner())
    }

    async fn unary<Q, A>(&mut self, path: &'static str, request: Q) -> Result<Response<A>, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        self.grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::unavailable(format!("the runtime cannot be reached: {error}")))
    }
}
