//! API server, scheduler and controllers in one process: each a client under an identity of its own.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context, Result};
use coracle_api::clock::Clock;
use coracle_apiserver::{
    ApiServer, Config, UserInfo,
    store::{Store, embedded::Embedded},
};
use coracle_client::{Client, Informers, Scope, in_process};
use coracle_link::Place;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Credentials, Etcd};

/// Where pods get their addresses.
const CLUSTER_CIDR: &str = "10.244.0.0/16";

/// The API server and what belongs to it.
pub struct ControlPlane {
    api: Arc<ApiServer>,
    clock: Arc<dyn Clock>,
}

impl ControlPlane {
    /// Opens the store and starts the API server, which listens nowhere yet.
    pub async fn start(
        data_dir: &Path,
        etcd: &Etcd,
        credentials: &Credentials,
        nodes: Place,
        advertise: SocketAddr,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let store = open_store(data_dir, etcd, clock.clone()).await?;
        let mut config = Config::new(store, credentials.authority.cert_pem(), advertise);
        config.clock = clock.clone();
        let kubelet = &credentials.kubelet_client;
        config.kubelet_ca_pem = Some(credentials.kubelet_authority.cert_pem().to_owned());
        config.kubelet_client = Some((kubelet.cert_pem.clone(), kubelet.key_pem.clone()));
        config.service_account_key = Some(credentials.service_account_key.clone());
        config.node_place = nodes;
        let api = ApiServer::start(config).await.context("start the API server")?;
        Ok(Self { api, clock })
    }

    /// A client of the API under an identity; its requests go the way of all.
    pub fn client(&self, user: UserInfo) -> Client {
        in_process(self.api.service(user))
    }

    /// Serves on `listener` until `stop`.
    pub fn serve(
        &self,
        listener: TcpListener,
        credentials: &Credentials,
        stop: &CancellationToken,
    ) -> Result<JoinHandle<()>> {
        let tls = self.api.tls(&credentials.server.cert_pem, &credentials.server.key_pem)?;
        let (api, stop) = (self.api.clone(), stop.clone());
        Ok(tokio::spawn(async move { api.serve(listener, tls, stop).await }))
    }

    /// Makes the bootstrap token known, so that nodes can join with it (bootstrap.kubernetes.io/token).
    pub async fn admit_nodes(&self, credentials: &Credentials) -> Result<()> {
        let secrets = Api::<Secret>::namespaced(self.client(UserInfo::admin()), "kube-system");
        let name = format!("bootstrap-token-{}", credentials.token.id);
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": name},
            "type": "bootstrap.kubernetes.io/token",
            "stringData": {
                "token-id": credentials.token.id,
                "token-secret": credentials.token.secret,
                "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
                "description": "The token that the server's data directory holds for new nodes.",
            },
        }))?;
        match secrets.create(&PostParams::default(), &secret).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let patch = Patch::Merge(json!({"stringData": secret.string_data}));
                secrets.patch(&name, &PatchParams::default(), &patch).await.map(drop).context("renew the join token")
            }
            outcome => outcome.map(drop).context("make the join token known"),
        }
    }

    /// Starts the scheduler and the controllers, which act only while `leader` leads if it is one of several; the future
    /// ends when they have.
    pub fn run_components(
        &self,
        credentials: &Credentials,
        leader: Option<&str>,
        lab: Option<Place>,
        stop: &CancellationToken,
    ) -> Result<impl Future<Output = ()> + use<>> {
        let manager = self.client(UserInfo::new("system:kube-controller-manager", &["system:authenticated"]));
        // One informer a resource for all of them: a pod is held once.
        let informers = Informers::with_shutdown(manager.clone(), Scope::all(), stop.clone());
        let mut controllers = coracle_controller::Config::new(manager);
        controllers.informers = Some(informers.clone());
        controllers.clock = self.clock.clone();
        controllers.cluster_cidr = Some(CLUSTER_CIDR.parse().context("the cluster's range")?);
        controllers.authority = Some(credentials.authority.clone());
        controllers.kubelet_authority = Some(credentials.kubelet_authority.clone());
        let scheduler = self.client(UserInfo::new("system:kube-scheduler", &["system:authenticated"]));
        let mut scheduler = coracle_scheduler::Config::new(scheduler);
        scheduler.clock = self.clock.clone();
        scheduler.informers = Some(informers.clone());
        if let Some(name) = leader {
            // A server that comes back under its name need not wait for its own lease to run out.
            (controllers.leader_elect, scheduler.leader_elect) = (true, true);
            (controllers.identity, scheduler.identity) = (name.to_owned(), name.to_owned());
        }
        if let Some(place) = lab {
            tokio::spawn(keep_routes(informers, place, stop.clone()));
        }
        let controllers = tokio::spawn(coracle_controller::run(controllers, stop.clone()));
        let scheduler = tokio::spawn(coracle_scheduler::run(scheduler, stop.clone()));
        Ok(async move {
            for (name, task) in [("controllers", controllers), ("scheduler", scheduler)] {
                if let Err(error) = task.await {
                    tracing::error!(%error, "the {name} ended badly");
                }
            }
        })
    }

    /// Ends watches and background work.
    pub async fn stop(&self) {
        self.api.stop().await;
    }
}

/// Keeps routes from a lab's own network to its pods, as a node has them: the API server's proxy dials from there.
async fn keep_routes(informers: Informers, place: Place, stop: CancellationToken) {
    // No node is called so: all of them are other nodes.
    if let Err(error) = coracle_network::routes::run(&informers, "", &place, stop).await {
        tracing::error!(%error, "pods cannot be reached from the lab's network");
    }
}

async fn open_store(data_dir: &Path, etcd: &Etcd, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>> {
    if let Some(config) = etcd.config()? {
        let store = coracle_apiserver::store::etcd::Etcd::connect(config).await;
        let store = store.with_context(|| format!("connect to etcd at {}", etcd.servers.join(", ")))?;
        return Ok(Arc::new(store));
    }
    let path = data_dir.join(super::backup::STORE);
    let open =
        move || Embedded::open(path.clone(), clock).with_context(|| format!("open the store {}", path.display()));
    Ok(Arc::new(tokio::task::spawn_blocking(open).await??))
}
