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
use super::{CLIENT, Error, Join, authority};

/// How often it is looked whether a certificate grows old. Certificates last days at least.
const LOOK: Duration = Duration::from_secs(60);
/// How soon a failed request is tried again, at first.
const RETRY: Duration = Duration::from_millis(500);

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

/// What is needed to ask for a certificate again.
#[derive(Clone)]
pub(super) struct Rotation {
    pub join: Join,
    pub ca_pem: String,
    pub pki: PathBuf,
    pub current: Current,
}

/// One certificate that is kept fresh.
pub(super) struct Kept {
    pub wish: Wish,
    pub sender: watch::Sender<Identity>,
    /// Its name in `pki`.
    pub file: &'static str,
    /// It only stands in for one that was not signed yet.
    pub provisional: bool,
}

/// Renews a certificate when two thirds of its time are over, until `shutdown`.
pub(super) async fn keep_fresh(rotation: Rotation, mut kept: Kept, shutdown: CancellationToken) {
    let mut pause = RETRY;
    loop {
        let fresh = !kept.provisional
            && kept.sender.borrow().validity().is_ok_and(|validity| validity.fresh(rotation.join.clock.now()));
        let wait = if fresh {
            LOOK
        } else {
            let renewed = tokio::select! {
                () = shutdown.cancelled() => return,
                renewed = renew(&rotation, &kept) => renewed,
            };
            match renewed {
                Ok(identity) => {
                    tracing::info!(name = kept.file, "a certificate was signed");
                    kept.sender.send_replace(identity);
                    kept.provisional = false;
                    pause = RETRY;
                    LOOK
                }
                Err(error) => {
                    tracing::warn!(name = kept.file, error = %error, "a certificate could not be renewed");
                    pause = (pause * 2).min(LOOK);
                    pause
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn renew(rotation: &Rotation, kept: &Kept) -> Result<Identity, Error> {
    let Rotation { join, ca_pem, pki, current } = rotation;
    let client = current.client();
    let identity = obtain(&client, &kept.wish).await?;
    identity.save(pki, kept.file)?;
    if kept.file == CLIENT {
        current.replace(authority::connect(join, ca_pem, authority::Proof::Identity(&identity))?);
    }
    Ok(identity)
}
