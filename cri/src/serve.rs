//! The runtime's side: a layer before the generated service, which takes the calls that it knows more of.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use k8s_cri::v1;
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService},
};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::{
    CREATE_CONTAINER, CreateContainer, SERVICE, UPDATE_POD_SANDBOX_RESOURCES, UpdatePodSandboxResourcesRequest,
    UpdatePodSandboxResourcesResponse, messages::Envelope,
};

/// What a runtime does with the newer calls.
pub trait Newer: Send + Sync + 'static {
    fn create_container(
        &self,
        request: CreateContainer,
    ) -> impl Future<Output = Result<v1::CreateContainerResponse, Status>> + Send;

    fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> impl Future<Output = Result<UpdatePodSandboxResourcesResponse, Status>> + Send;
}

/// The service, whole: `inner` is the generated one, whose trait `newer` implements too.
pub struct Front<S, N> {
    inner: S,
    newer: Arc<N>,
    max_message: usize,
}

impl<S, N> Front<S, N> {
    pub fn new(inner: S, newer: Arc<N>, max_message: usize) -> Front<S, N> {
        Front { inner, newer, max_message }
    }
}

impl<S: Clone, N> Clone for Front<S, N> {
    fn clone(&self) -> Self {
        Front { inner: self.inner.clone(), newer: self.newer.clone(), max_message: self.max_message }
    }
}

impl<S, N> NamedService for Front<S, N> {
    const NAME: &'static str = SERVICE;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S, N> Service<http::Request<Body>> for Front<S, N>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
    N: Newer,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let newer = self.newer.clone();
        match request.uri().path() {
            CREATE_CONTAINER => unary(request, self.max_message, move |envelope: Envelope| async move {
                let create = CreateContainer::try_from(envelope);
                let create = create.map_err(|error| Status::internal(format!("decode the request: {error}")))?;
                newer.create_container(create).await
            }),
            UPDATE_POD_SANDBOX_RESOURCES => unary(request, self.max_message, move |message| async move {
                newer.update_pod_sandbox_resources(message).await
            }),
            _ => Box::pin(self.inner.call(request)),
        }
    }
}

/// Answers one request with one message.
fn unary<Q, A, F>(
    request: http::Request<Body>,
    max_message: usize,
    handle: impl FnOnce(Q) -> F + Send + 'static,
) -> Answer
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + 'static,
    F: Future<Output = Result<A, Status>> + Send + 'static,
{
    let mut handle = Some(handle);
    let service = tower::service_fn(move |request: Request<Q>| {
        let answer = handle.take().map(|handle| handle(request.into_inner()));
        async move {
            match answer {
                Some(answer) => answer.await.map(Response::new),
                None => Err(Status::internal("asked twice")),
            }
        }
    });
    Box::pin(async move {
        let codec = ProstCodec::<A, Q>::default();
        let mut grpc = Grpc::new(codec).max_decoding_message_size(max_message).max_encoding_message_size(max_message);
        Ok(grpc.unary(service, request).await)
    })
}
