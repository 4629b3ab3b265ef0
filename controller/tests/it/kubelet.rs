//! A kubelet that only pretends: it says what a kubelet would say of pods that run.

use std::{collections::BTreeSet, sync::Arc, sync::Mutex, time::Duration};

use coracle_api::clock::Clock;
use coracle_client::{Client, Event, Informers, Key, Scope, WorkQueue};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// How the pretended kubelets behave.
#[derive(Clone)]
pub struct Manner {
    /// Between two signs of life.
    pub lease: Duration,
    /// The longest time it takes to start or to end a pod.
    pub lag: Duration,
    pub random: Arc<Mutex<fastrand::Rng>>,
    /// The uids of the pods that a kubelet said have ended.
    pub ended: Arc<Mutex<BTreeSet<String>>>,
}

impl Manner {
    /// At once.
    pub fn prompt() -> Self {
        Self::slow(Duration::from_millis(200), Duration::ZERO, 0)
    }

    pub fn slow(lease: Duration, lag: Duration, seed: u64) -> Self {
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        Self { lease, lag, random, ended: Arc::default() }
    }

    async fn linger(&self) {
        let most = self.lag.as_millis() as u64;
        if most > 0 {
            let lag = self.random.lock().unwrap().u64(..most);
            tokio::time::sleep(Duration::from_millis(lag)).await;
        }
    }
}

/// Registers the node and runs until `stop`.
pub async fn start(client: Client, name: &str, clock: Arc<dyn Clock>, manner: Manner, stop: CancellationToken) {
    while register(&client, name).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let node = Arc::new(Pretender { client, name: name.to_owned(), clock, manner, stop });
    tokio::spawn(node.clone().lease());
    tokio::spawn(node.run());
}

async fn register(client: &Client, name: &str) -> kube::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let known = nodes.get_opt(name).await?;
    if known.is_none() {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}});
        nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await?;
    }
    let status = json!({"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}

struct Pretender {
    client: Client,
    name: String,
    clock: Arc<dyn Clock>,
    manner: Manner,
    stop: CancellationToken,
}

impl Pretender {
    async fn lease(self: Arc<Self>) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let mut tick = tokio::time::interval(self.manner.lease);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let spec = json!({"holderIdentity": self.name, "leaseDurationSeconds": 40,
                "renewTime": coracle_api::clock::rfc3339_micro(self.clock.now())});
            // A node that was thought dead says that it is not; for any other this changes nothing.
            let _ = register(&self.client, &self.name).await;
            let patch = Patch::Merge(json!({"spec": spec}));
            if leases.patch(&self.name, &PatchParams::default(), &patch).await.is_err() {
                let lease = json!({"metadata": {"name": self.name, "namespace": "kube-node-lease"}, "spec": spec});
                let _ = leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await;
            }
        }
    }

    /// Runs pods by saying so, unless their image is called bad; ends them when asked.
    async fn run(self: Arc<Self>) {
        let informers = Informers::with_shutdown(self.client.clone(), Scope::all(), self.stop.clone());
        let pods = informers.scoped::<Pod>(Scope::field("spec.nodeName", &self.name));
        let queue = Arc::new(WorkQueue::new(self.clock.clone()));
        let adding = queue.clone();
        pods.subscribe(move |event: &Event<Pod>| adding.add(Key::of(&event.object().metadata))).forever();
        loop {
            let key = tokio::select! {
                () = self.stop.cancelled() => return,
                key = queue.get() => key,
            };
            let Some(key) = key else { return };
            self.manner.linger().await;
            if self.stop.is_cancelled() {
                return;
            }
            if let Some(pod) = pods.snapshot().get(&key)
                && self.sync(pod).await.is_err()
            {
                queue.add_after(key.clone(), Duration::from_secs(1));
            }
            queue.done(&key);
        }
    }

    async fn sync(&self, pod: &Pod) -> kube::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        let name = pod.metadata.name.as_deref().unwrap();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() {
            self.manner.ended.lock().unwrap().insert(uid.clone());
            let this_life = kube::api::Preconditions { uid: Some(uid), resource_version: None };
            let at_once = DeleteParams::default().grace_period(0).preconditions(this_life);
            return match api.delete(name, &at_once).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                done => done.map(drop),
            };
        }
        let image = pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone()).unwrap_or_default();
        let ready = if image.contains("bad") { "False" } else { "True" };
        let current = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        if current.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == ready) {
            return Ok(());
        }
        // An address of its own for each pod will do: nobody sends anything there.
        let number = uid.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
        let address = format!("10.42.{}.{}", self.name.bytes().last().unwrap_or(0), number % 250 + 2);
        let condition = json!({"type": "Ready", "status": ready,
            "lastTransitionTime": coracle_api::clock::rfc3339(self.clock.now())});
        let status = json!({"metadata": {"uid": uid},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [condition]}});
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await.map(drop)
    }
}
