//! The kubelet's side.

use http::uri::PathAndQuery;
use k8s_cri::v1;
use tonic::{Request, Response, Status, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

use crate::{
    CREATE_CONTAINER, CreateContainer, UPDATE_POD_SANDBOX_RESOURCES, UpdatePodSandboxResourcesRequest,
    UpdatePodSandboxResourcesResponse, messages::Envelope,
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
        request: CreateContainer,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        self.unary::<Envelope, _>(CREATE_CONTAINER, request.into()).await
    }

    pub async fn update_pod_sandbox_resources(
        &mut self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<Response<UpdatePodSandboxResourcesResponse>, Status> {
        self.unary(UPDATE_POD_SANDBOX_RESOURCES, request).await
    }

    async fn unary<Q, A>(&mut self, path: &'static str, request: Q) -> Result<Response<A>, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::unavailable(format!("the runtime cannot be reached: {error}")))?;
        let codec = ProstCodec::<Q, A>::default();
        self.grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await
    }
}
