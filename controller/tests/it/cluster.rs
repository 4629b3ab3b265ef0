//! A whole control plane in this process: API server in memory, controllers, scheduler, and kubelets that only pretend.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coracle_api::clock::{Clock, SystemClock};
use coracle_apiserver::{ApiServer, UserInfo, store::embedded::Embedded};
use coracle_client::{Client, Event, Informers, Scope, WorkQueue, in_process};
use coracle_controller::Grace;
use coracle_pki::Authority;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes longer.
pub const LIMIT: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub server: Arc<ApiServer>,
    pub client: Client,
    stop: CancellationToken,
    kubelets: BTreeMap<String, CancellationToken>,
}

impl Cluster {
    /// A cluster of so many ready nodes called n1, n2, …
    pub async fn start(nodes: usize, grace: Grace) -> Self {
        let authority = Arc::new(Authority::create("test", Timestamp::now()).unwrap());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let store = Arc::new(Embedded::in_memory(clock.clone()).unwrap());
        let config = coracle_apiserver::Config::new(store, authority.cert_pem(), "127.0.0.1:6443".parse().unwrap());
        let server = ApiServer::start(config).await.unwrap();
        let stop = CancellationToken::new();

        let manager =
            in_process(server.service(UserInfo::new("system:kube-controller-manager", &["system:authenticated"])));
        // One set of informers for the process, as in the server.
        let informers = Informers::with_shutdown(manager.clone(), Scope::all(), stop.clone());
        let mut controllers = coracle_controller::Config::new(manager);
        controllers.informers = Some(informers.clone());
        controllers.cluster_cidr = Some("10.42.0.0/16".parse().unwrap());
        controllers.authority = Some(authority);
        controllers.grace = grace;
        tokio::spawn(coracle_controller::run(controllers, stop.clone()));

        let scheduler = in_process(server.service(UserInfo::new("system:kube-scheduler", &["system:authenticated"])));
        let mut scheduler = coracle_scheduler::Config::new(scheduler);
        scheduler.seed = 7;
        scheduler.informers = Some(informers);
        tokio::spawn(coracle_scheduler::run(scheduler, stop.clone()));

        let client = in_process(server.service(UserInfo::admin()));
        let mut cluster = Self { server, client, stop, kubelets: BTreeMap::new() };
        for number in 1..=nodes {
            cluster.start_node(&format!("n{number}")).await;
        }
        cluster
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.server.stop().await;
    }

    /// Registers a node as a kubelet does, and plays its part.
    pub async fn start_node(&mut self, name: &str) {
        let user = UserInfo::new(format!("system:node:{name}"), &["system:nodes", "system:authenticated"]);
        let client = in_process(self.server.service(user));
        if self.get("v1", "Node", "", name).await.is_none() {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
                "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}});
            self.create(&node).await;
            let status = json!({"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                    "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
            let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client.clone());
            nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        }
        let token = self.stop.child_token();
        self.kubelets.insert(name.to_owned(), token.clone());
        tokio::spawn(lease(client.clone(), name.to_owned(), token.clone()));
        tokio::spawn(kubelet(client, name.to_owned(), token));
    }

    /// The node says nothing any more.
    pub fn kill_node(&mut self, name: &str) {
        self.kubelets.remove(name).expect("it runs").cancel();
    }

    fn api(&self, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
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

async fn lease(client: Client, name: String, stop: CancellationToken) {
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(client, "kube-node-lease");
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let spec = json!({"holderIdentity": name, "leaseDurationSeconds": 40,
            "renewTime": coracle_api::clock::rfc3339_micro(Timestamp::now())});
        let patch = Patch::Merge(json!({"spec": spec}));
        if leases.patch(&name, &PatchParams::default(), &patch).await.is_err() {
            let lease = json!({"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": spec});
            let _ = leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await;
        }
    }
}

/// Runs pods by saying so, unless their image is called bad; ends them when asked.
async fn kubelet(client: Client, name: String, stop: CancellationToken) {
    let informers = Informers::with_shutdown(client.clone(), Scope::all(), stop.clone());
    let pods = informers.scoped::<Pod>(Scope::field("spec.nodeName", &name));
    let queue = Arc::new(WorkQueue::new(Arc::new(SystemClock::new()) as Arc<dyn Clock>));
    let adding = queue.clone();
    pods.subscribe(move |event: &Event<Pod>| adding.add(coracle_client::Key::of(&event.object().metadata))).forever();
    loop {
        let key = tokio::select! {
            () = stop.cancelled() => return,
            key = queue.get() => key,
        };
        let Some(key) = key else { return };
        if let Some(pod) = pods.snapshot().get(&key) {
            let api: Api<Pod> = Api::namespaced(client.clone(), key.namespace());
            run(&api, pod, &name).await;
        }
        queue.done(&key);
    }
}

async fn run(api: &Api<Pod>, pod: &Pod, node: &str) {
    let name = pod.metadata.name.as_deref().unwrap();
    if pod.metadata.deletion_timestamp.is_some() {
        let _ = api.delete(name, &DeleteParams::default().grace_period(0)).await;
        return;
    }
    let image = pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone()).unwrap_or_default();
    let ready = if image.contains("bad") { "False" } else { "True" };
    let current = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    if current.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == ready) {
        return;
    }
    // An address of its own for each pod will do: nobody sends anything there.
    let number = pod
        .metadata
        .uid
        .as_deref()
        .unwrap_or_default()
        .bytes()
        .fold(7u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
    let address = format!("10.42.{}.{}", node.bytes().last().unwrap_or(0), number % 250 + 2);
    let condition =
        json!({"type": "Ready", "status": ready, "lastTransitionTime": coracle_api::clock::rfc3339(Timestamp::now())});
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [condition]}});
    let _ = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await;
}
