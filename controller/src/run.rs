//! Runs all controllers of the table, under one leadership where there may be several processes.

use std::sync::Arc;

use coracle_api::clock::{Clock, SystemClock};
use coracle_client::{
    Client, Driver, Informers, LeaderLease, Metrics, Reconciler, Recorder, Scope, executor::Executor,
    supervise::supervise,
};
use futures::{FutureExt, future::BoxFuture};
use ipnet::Ipv4Net;
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::Catalog, certificates, claim_protection, deployment, endpoint_slices, garbage, namespace, node_ipam,
    node_lifecycle, pod_gc, replica_set, service_account, service_cidrs, stateful_set, taint_eviction,
    volume_protection,
};

/// Gives the client that a controller acts with. In one process with the API server each gets its own identity
/// (`system:serviceaccount:kube-system:NAME-controller`), as upstream with `--use-service-account-credentials`.
pub type Clients = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// How the controllers run.
#[derive(Clone)]
pub struct Config {
    /// Watches for all controllers and holds the lease.
    pub client: Client,
    /// The informers of the process, where it has some; else the controllers make their own with `client`.
    pub informers: Option<Informers>,
    /// Acts for each controller by its name.
    pub clients: Clients,
    pub clock: Arc<dyn Clock>,
    /// Pod addresses; none where ranges come from elsewhere.
    pub cluster_cidr: Option<Ipv4Net>,
    /// Signs certificate requests and is published in every namespace.
    pub authority: Option<Arc<coracle_pki::Authority>>,
    /// Signs kubelets' serving certificates; see [`certificates::Authorities`].
    pub kubelet_authority: Option<Arc<coracle_pki::Authority>>,
    pub grace: node_lifecycle::Grace,
    /// Waits for the lease `kube-controller-manager` before acting.
    pub leader_elect: bool,
    /// The name under which the lease is held: unique per process.
    pub identity: String,
    pub metrics: Metrics,
}

impl Config {
    /// All controllers with one client and upstream's defaults.
    pub fn new(client: Client) -> Self {
        let for_all = client.clone();
        Self {
            client,
            informers: None,
            clients: Arc::new(move |_| for_all.clone()),
            clock: Arc::new(SystemClock::new()),
            cluster_cidr: None,
            authority: None,
            kubelet_authority: None,
            grace: node_lifecycle::Grace::default(),
            leader_elect: false,
            identity: format!("controller-manager_{}", std::process::id()),
            metrics: Metrics::default(),
        }
    }
}

type Run = Arc<dyn Fn(&Setting, CancellationToken) -> BoxFuture<'static, ()> + Send + Sync>;

/// What a row of the table starts from.
struct Setting {
    config: Config,
    informers: Informers,
    catalog: Catalog,
}

/// The controllers by name. To add one: a folder, and a row here.
fn table() -> Vec<(&'static str, Run)> {
    vec![
        row("replicaset", |setting| Some(replica_set::ReplicaSets::new(&setting.informers))),
        row("statefulset", |setting| Some(stateful_set::StatefulSets::new(&setting.informers))),
        row("deployment", |setting| Some(deployment::Deployments::new(&setting.informers))),
        row("node-lifecycle", |setting| {
            let Config { clock, grace, .. } = &setting.config;
            Some(node_lifecycle::NodeLifecycle::new(&setting.informers, clock.clone(), *grace))
        }),
        row("taint-eviction", |setting| Some(taint_eviction::TaintEviction::new(&setting.informers))),
        row("node-ipam", |setting| Some(node_ipam::NodeIpam::new(&setting.informers, setting.config.cluster_cidr?))),
        row("pod-garbage-collector", |setting| {
            let Config { clock, grace, .. } = &setting.config;
            Some(pod_gc::PodGc::new(&setting.informers, clock.clone(), grace.deleted))
        }),
        row("endpointslice", |setting| Some(endpoint_slices::EndpointSlices::new(&setting.informers))),
        row("generic-garbage-collector", |setting| {
            Some(garbage::Garbage::new(&setting.catalog, setting.config.clock.clone()))
        }),
        row("namespace", |setting| Some(namespace::Namespaces::new(&setting.informers, &setting.catalog))),
        row("pvc-protection", |setting| Some(claim_protection::ClaimProtection::new(&setting.informers))),
        row("pv-protection", |setting| Some(volume_protection::VolumeProtection::new(&setting.informers))),
        row("service-cidrs", |setting| Some(service_cidrs::ServiceCidrs::new(&setting.informers))),
        row("certificate", |setting| {
            let cluster = setting.config.authority.clone()?;
            let authorities = certificates::Authorities { cluster, kubelets: setting.config.kubelet_authority.clone() };
            Some(certificates::Certificates::new(&setting.informers, authorities))
        }),
        row("namespace-furniture", |setting| {
            let ca = setting.config.authority.as_ref().map(|authority| authority.cert_pem().to_owned());
            Some(service_account::Furniture::new(&setting.informers, ca))
        }),
    ]
}

/// A row whose controller is made anew for each run; None where the configuration has no place for it.
fn row<R: Reconciler>(
    name: &'static str,
    make: impl Fn(&Setting) -> Option<R> + Send + Sync + 'static,
) -> (&'static str, Run) {
    let run = move |setting: &Setting, token: CancellationToken| -> BoxFuture<'static, ()> {
        let Some(reconciler) = make(setting) else { return Box::pin(async move { token.cancelled().await }) };
        let Config { clock, metrics, clients, .. } = &setting.config;
        let client = clients(name);
        let recorder = Recorder::new(client.clone(), clock.clone(), &format!("{name}-controller"), None);
        let driver = Driver::new(reconciler, Executor::new(client, recorder), clock.clone(), metrics.clone());
        Box::pin(driver.run(token))
    };
    (name, Arc::new(run))
}

/// Runs the controllers until `shutdown`.
///
/// Boxed, so that it is compiled once, here, and not in every program that awaits it.
pub fn run(config: Config, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
    led(config, shutdown).boxed()
}

async fn led(config: Config, shutdown: CancellationToken) {
    if !config.leader_elect {
        return controllers(config, shutdown).await;
    }
    let lease = LeaderLease::new(
        config.client.clone(),
        "kube-system",
        "kube-controller-manager",
        &config.identity,
        config.clock.clone(),
    )
    .with_metrics(config.metrics.clone());
    lease.run(shutdown, move |term| controllers(config.clone(), term)).await;
}

async fn controllers(config: Config, shutdown: CancellationToken) {
    let informers = config
        .informers
        .clone()
        .unwrap_or_else(|| Informers::with_shutdown(config.client.clone(), Scope::all(), shutdown.clone()));
    let catalog = Catalog::new(&informers);
    let learning = supervise("catalog", &shutdown, |token| catalog.clone().follow(token));
    let setting = Arc::new(Setting { config, informers, catalog: catalog.clone() });
    let rows = table().into_iter().map(|(name, run)| {
        let (setting, shutdown) = (setting.clone(), shutdown.clone());
        async move { supervise(name, &shutdown, |token| run(&setting, token)).await }
    });
    futures::future::join(learning, futures::future::join_all(rows)).await;
}
