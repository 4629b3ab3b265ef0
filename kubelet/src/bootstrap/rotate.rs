//! New certificates before the old ones end, taken into use while everything runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use coracle_pki::Identity;
use futures::future::BoxFuture;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::request::{Wish, obtain};
use super::{CLIENT, Join, authority};

/// How often it is looked whether a certificate grows old. Certificates last days at least.
const LOOK: Duration = Duration::from_secs(60);

/// The client with the newest certificate.
#[derive(Clone)]
pub(super) struct Current(Arc<ArcSwap<Client>>);

impl Current {
    pub fn new(client: Client) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(client)))
    }

    fn replace(&self, client: Client) {
        self.0.store(Arc::new(client));
    }

    /// A client whose requests always go by the newest certificate; what is under way stays on its connection.
    pub fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }
}

impl tower::Service<Request<Body>> for Current {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, kube::Result<Response<Body>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<kube::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = Client::clone(&self.0.load());
        Box::pin(async move { client.send(request).await })
    }
}

type Kept = (Wish, watch::Sender<Identity>, &'static str);

/// Renews each certificate when two thirds of its time are over, until `shutdown`.
pub(super) async fn keep_fresh(join: Join, ca_pem: String, pki: PathBuf, current: Current, kept: [Kept; 2], shutdown: CancellationToken) {
    loop {
        for (wish, sender, name) in &kept {
            let fresh = sender.borrow().validity().is_ok_and(|validity| validity.fresh(join.clock.now()));
            if fresh {
                continue;
            }
            let client = current.client();
            let renewed = tokio::select! {
                () = shutdown.cancelled() => return,
                renewed = obtain(&client, wish) => renewed,
            };
            match renewed.and_then(|identity| identity.save(&pki, name).map(|()| identity).map_err(Into::into)) {
                Ok(identity) => {
                    if *name == CLIENT {
                        match authority::connect(&join, &ca_pem, authority::Proof::Identity(&identity)) {
                            Ok(client) => current.replace(client),
                            Err(error) => tracing::error!(error = %error, "the new client certificate is not usable"),
                        }
                    }
                    tracing::info!(name, "a certificate was renewed");
                    sender.send_replace(identity);
                }
                Err(error) => tracing::warn!(name, error = %error, "a certificate could not be renewed"),
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
