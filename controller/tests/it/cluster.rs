//! A whole control plane in this process: API server in memory, controllers, scheduler, and kubelets that only pretend.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coracle_api::clock::{Clock, SystemClock};
use coracle_api::names::{Names, RandomNames};
use coracle_apiserver::{ApiServer, UserInfo, store::Store, store::embedded::Embedded};
use coracle_client::{Client, Informers, Scope, in_process};
use coracle_controller::Grace;
use coracle_pki::Authority;
use jiff::Timestamp;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::kubelet::{self, Manner};

/// Nothing in these tests takes longer.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What a cluster stands on.
#[derive(Clone)]
pub struct Ground {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub names: Arc<dyn Names>,
    pub grace: Grace,
    pub seed: u64,
    pub kubelets: Manner,
}

impl Ground {
    /// The real clock, and a store in memory.
    fn real(grace: Grace) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self {
            store: Arc::new(Embedded::in_memory(clock.clone()).unwrap()),
            clock,
            names: Arc::new(RandomNames),
            grace,
            seed: 7,
            kubelets: Manner::prompt(),
        }
    }
}

pub struct Cluster {
    ground: Ground,
    authority: Arc<Authority>,
    pub server: Arc<ApiServer>,
    pub client: Client,
    /// Ends controllers and scheduler.
    stop: CancellationToken,
    kubelets: BTreeMap<String, CancellationToken>,
}

impl Cluster {
    /// A cluster of so many ready nodes called n1, n2, …
    /// With nodes that take pods.
    pub async fn start(nodes: usize, grace: Grace) -> Self {
        let cluster = Self::on(Ground::real(grace), nodes).await;
        let free = async |cluster: &Self| {
            let found = cluster.list("v1", "Node", "").await;
            let tainted = found.iter().any(|node| node.pointer("/spec/taints/0").is_some());
            (found.len() == nodes && !tainted, found)
        };
        cluster.wait("nodes without taints", free).await;
        cluster
    }

    pub async fn on(ground: Ground, nodes: usize) -> Self {
        let authority = Arc::new(Authority::create("test", Timestamp::now()).unwrap());
        let server = serve(&ground, &authority).await;
        let client = in_process(server.service(UserInfo::admin()));
        let stop = CancellationToken::new();
        let mut cluster = Self { ground, authority, server, client, stop, kubelets: BTreeMap::new() };
        cluster.start_control();
        for number in 1..=nodes {
            cluster.start_node(&format!("n{number}")).await;
        }
        cluster
    }

    pub async fn stop(mut self) {
        self.stop_all().await;
    }

    async fn stop_all(&mut self) {
        self.stop.cancel();
        for kubelet in self.kubelets.values() {
            kubelet.cancel();
        }
        self.server.stop().await;
    }

    /// Controllers and scheduler forget all they know and begin again.
    pub fn restart_control(&mut self) {
        self.stop.cancel();
        self.start_control();
    }

    /// The server, and with it everything that talks to it, begins again on the same store.
    pub async fn restart(&mut self) {
        self.stop_all().await;
        self.server = serve(&self.ground, &self.authority).await;
        self.client = in_process(self.server.service(UserInfo::admin()));
        self.start_control();
        for name in std::mem::take(&mut self.kubelets).into_keys() {
            self.start_node(&name).await;
        }
    }

    fn start_control(&mut self) {
        let stop = CancellationToken::new();
        let manager =
            in_process(self.server.service(UserInfo::new("system:kube-controller-manager", &["system:authenticated"])));
        // One set of informers for the process, as in the server.
        let informers = Informers::with_shutdown(manager.clone(), Scope::all(), stop.clone());
        let mut controllers = coracle_controller::Config::new(manager);
        controllers.informers = Some(informers.clone());
        controllers.clock = self.ground.clock.clone();
        controllers.cluster_cidr = Some("10.42.0.0/16".parse().unwrap());
        controllers.authority = Some(self.authority.clone());
        controllers.grace = self.ground.grace;
        tokio::spawn(coracle_controller::run(controllers, stop.clone()));

        let user = UserInfo::new("system:kube-scheduler", &["system:authenticated"]);
        let mut scheduler = coracle_scheduler::Config::new(in_process(self.server.service(user)));
        scheduler.seed = self.ground.seed;
        scheduler.clock = self.ground.clock.clone();
        scheduler.informers = Some(informers);
        tokio::spawn(coracle_scheduler::run(scheduler, stop.clone()));
        self.stop = stop;
    }

    /// Registers a node as a kubelet does, and plays its part.
    pub async fn start_node(&mut self, name: &str) {
        let user = UserInfo::new(format!("system:node:{name}"), &["system:nodes", "system:authenticated"]);
        let client = in_process(self.server.service(user));
        let token = CancellationToken::new();
        self.kubelets.insert(name.to_owned(), token.clone());
        kubelet::start(client, name, self.ground.clock.clone(), self.ground.kubelets.clone(), token).await;
    }

    /// The node says nothing any more.
    pub fn kill_node(&mut self, name: &str) {
        self.kubelets.remove(name).expect("it runs").cancel();
    }

    /// The nodes that have a kubelet.
    pub fn live_nodes(&self) -> Vec<String> {
        self.kubelets.keys().cloned().collect()
    }

    pub fn api(&self, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        }
    }

    pub async fn create(&self, object: &Value) -> Value {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let api = self.api(&text("/apiVersion"), &text("/kind"), &text("/metadata/namespace"));
        let made = api.create(&PostParams::default(), &serde_json::from_value(object.clone()).unwrap()).await;
        serde_json::to_value(made.unwrap()).unwrap()
    }

    pub async fn get(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.api(api_version, kind, namespace)
            .get_opt(name)
            .await
            .unwrap()
            .map(|object| serde_json::to_value(object).unwrap())
    }

    pub async fn list(&self, api_version: &str, kind: &str, namespace: &str) -> Vec<Value> {
        let list = self.api(api_version, kind, namespace).list(&Default::default()).await.unwrap();
        list.items.into_iter().map(|object| serde_json::to_value(object).unwrap()).collect()
    }

    pub async fn merge(&self, api_version: &str, kind: &str, namespace: &str, name: &str, patch: Value) -> Value {
        let api = self.api(api_version, kind, namespace);
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        serde_json::to_value(patched.unwrap()).unwrap()
    }

    pub async fn delete(&self, api_version: &str, kind: &str, namespace: &str, name: &str, how: DeleteParams) {
        self.api(api_version, kind, namespace).delete(name, &how).await.unwrap();
    }

    /// Waits until `done` holds, looking again with every change of the cluster; the last state it saw is in the panic.
    pub async fn wait<T: std::fmt::Debug>(&self, what: &str, mut look: impl AsyncFnMut(&Self) -> (bool, T)) -> T {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let (done, seen) = look(self).await;
            if done {
                return seen;
            }
            assert!(tokio::time::Instant::now() < deadline, "{what}: {seen:#?}");
            self.next_change().await;
        }
    }

    /// Some object of those that these tests look at changes, or a moment passes.
    async fn next_change(&self) {
        use futures::StreamExt;
        let pods = self.api("v1", "Pod", "");
        let change = async {
            if let Ok(stream) = pods.watch(&Default::default(), "0").await {
                // The first events are what is there already.
                std::pin::pin!(stream).next().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(20), async {
            change.await;
            std::future::pending::<()>().await;
        })
        .await;
    }
}

async fn serve(ground: &Ground, authority: &Authority) -> Arc<ApiServer> {
    let advertise = "127.0.0.1:6443".parse().unwrap();
    let mut config = coracle_apiserver::Config::new(ground.store.clone(), authority.cert_pem(), advertise);
    config.clock = ground.clock.clone();
    config.names = ground.names.clone();
    ApiServer::start(config).await.unwrap()
}
