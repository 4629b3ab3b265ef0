//! Seeded runs of the whole control plane on a clock of its own, over a store that fails: users, nodes and faults do
//! what the seed says, then all faults end, everything must settle, and the history of every write is checked.
//!
//! `SIMULATION_SEEDS=100..200` tries other seeds. A seed that found something is kept in [`KEPT`].

use std::{ops::Range, sync::Arc, time::Duration};

use coracle_api::clock::Clock;
use coracle_api::names::SeededNames;
use coracle_client::clock::TokioClock;
use coracle_controller::Grace;
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Ground};
use crate::history::{self, Bounds};
use crate::kubelet::Manner;
use crate::model::{Faults, ModelStore};
use crate::{number, text};

/// Seeds of runs that once failed.
const KEPT: [u64; 0] = [];
const NODES: usize = 4;
const STEPS: usize = 40;
const DEPLOYMENTS: [&str; 3] = ["d0", "d1", "d2"];
const SET: &str = "s0";
/// On the simulation's clock: longer than an eviction and every back-off.
const SETTLED_WITHIN: Duration = Duration::from_secs(3600);

fn seeds(usual: Range<u64>) -> Vec<u64> {
    let asked = std::env::var("SIMULATION_SEEDS").ok();
    let parsed = asked.as_deref().and_then(|asked| {
        let (from, to) = asked.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    match parsed {
        Some(range) => range.collect(),
        None => KEPT.into_iter().chain(usual).collect(),
    }
}

#[test]
fn a_cluster_on_a_sound_store_keeps_its_promises() {
    for seed in seeds(0..6) {
        run(seed, Faults { delay: Duration::from_millis(20), lag: Duration::from_millis(500), ..Faults::default() });
    }
}

#[test]
fn a_cluster_on_a_failing_store_settles_when_the_faults_end() {
    for seed in seeds(100..104) {
        run(seed, Faults { before: 50, after: 50, delay: Duration::from_millis(200), lag: Duration::from_millis(500) });
    }
}

fn run(seed: u64, faults: Faults) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(simulate(seed, faults))));
    if let Err(panic) = outcome {
        eprintln!("the seed was {seed}");
        std::panic::resume_unwind(panic);
    }
}

async fn simulate(seed: u64, faults: Faults) {
    let mut random = fastrand::Rng::with_seed(seed);
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(start));
    let store = ModelStore::new(clock.clone(), random.u64(..));
    let kubelets = Manner::slow(Duration::from_secs(10), Duration::from_secs(2), random.u64(..));
    let ground = Ground {
        store: store.clone(),
        clock,
        names: Arc::new(SeededNames::new(random.u64(..))),
        grace: Grace::default(),
        seed: random.u64(..),
        kubelets: kubelets.clone(),
    };
    let cluster = Cluster::on(ground, NODES).await;
    let mut world = World { cluster, store: store.clone(), random, version: 1 };
    store.fail(faults);
    for _ in 0..STEPS {
        world.step().await;
        let pause = if world.random.u8(..4) == 0 { 400_000 } else { 20_000 };
        tokio::time::sleep(Duration::from_millis(world.random.u64(..pause))).await;
    }
    world.heal().await;
    world.settle().await;
    world.is_quiet().await;
    let unknown_outcomes = faults.after > 0;
    let ended = kubelets.ended.lock().unwrap().clone();
    let bounds = Bounds { ended: &ended, surplus: unknown_outcomes };
    if let Err(broken) = history::check(&store.history(), &bounds) {
        panic!("{broken}");
    }
    world.cluster.stop().await;
}

struct World {
    cluster: Cluster,
    store: Arc<ModelStore>,
    random: fastrand::Rng,
    version: u32,
}

impl World {
    /// One thing happens. Users' requests may fail: what counts is what the store holds in the end.
    async fn step(&mut self) {
        let deployment = DEPLOYMENTS[self.random.usize(..DEPLOYMENTS.len())];
        let replicas = self.random.i64(0..=6);
        match self.random.u8(..17) {
            0..=2 => {
                let made = self.deployment(deployment, replicas);
                self.create(&made).await;
            }
            3 | 4 => self.merge("Deployment", deployment, json!({"spec": {"replicas": replicas}})).await,
            5..=7 => {
                // Also an older one again: a rollback.
                let back = self.random.bool();
                self.version += u32::from(!back);
                let image = match self.random.u8(..8) {
                    0 => format!("bad:v{}", self.version),
                    _ => format!("hello:v{}", if back { self.random.u32(1..=self.version) } else { self.version }),
                };
                self.merge("Deployment", deployment, with_image(&image)).await;
            }
            8 => {
                let how = if self.random.bool() { DeleteParams::background() } else { DeleteParams::foreground() };
                let _ = self.cluster.api("apps/v1", "Deployment", "default").delete(deployment, &how).await;
            }
            9 => self.delete_one("Pod").await,
            10 => self.turn_a_node().await,
            11 => self.cluster.restart_control(),
            12 => self.restart().await,
            13 => self.store.break_watches(),
            14 => {
                self.create(&stateful_set(replicas)).await;
                self.merge("StatefulSet", SET, json!({"spec": {"replicas": replicas}})).await;
            }
            15 => self.delete_one("PersistentVolumeClaim").await,
            _ => {
                let paused = self.random.bool();
                self.merge("Deployment", deployment, json!({"spec": {"paused": paused}})).await;
            }
        }
    }

    /// The process ends and begins again. It does not come up while its store fails.
    async fn restart(&mut self) {
        let sound = self.store.fail(Faults::default());
        self.cluster.restart().await;
        self.store.fail(sound);
    }

    async fn create(&self, object: &Value) {
        let api = self.cluster.api(text(object, "/apiVersion"), text(object, "/kind"), "default");
        let _ = api.create(&PostParams::default(), &serde_json::from_value(object.clone()).unwrap()).await;
    }

    async fn merge(&self, kind: &str, name: &str, patch: Value) {
        let api = self.cluster.api("apps/v1", kind, "default");
        let _ = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    }

    async fn delete_one(&mut self, kind: &str) {
        let api = self.cluster.api("v1", kind, "default");
        let Ok(found) = api.list(&Default::default()).await else { return };
        if let Some(one) = self.random.choice(&found.items) {
            let _ = api.delete(one.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await;
        }
    }

    /// A node falls silent, or comes back.
    async fn turn_a_node(&mut self) {
        let name = format!("n{}", self.random.usize(1..=NODES));
        if !self.cluster.live_nodes().contains(&name) {
            self.cluster.start_node(&name).await;
        } else if self.cluster.live_nodes().len() > 1 {
            self.cluster.kill_node(&name);
        }
    }

    fn deployment(&mut self, name: &str, replicas: i64) -> Value {
        let random = &mut self.random;
        let strategy = match random.u8(..4) {
            0 => json!({"type": "Recreate"}),
            1 => json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
            2 => json!({"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}}),
            _ => json!({"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": "50%"}}),
        };
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
            "spec": {"replicas": replicas, "strategy": strategy, "minReadySeconds": random.u32(..5),
                "selector": {"matchLabels": {"app": name}}, "template": template(name)}})
    }

    /// The faults end: nodes come back, and users wish what can be had.
    async fn heal(&mut self) {
        self.store.fail(Faults::default());
        for number in 1..=NODES {
            let name = format!("n{number}");
            if !self.cluster.live_nodes().contains(&name) {
                self.cluster.start_node(&name).await;
            }
        }
        for name in DEPLOYMENTS {
            let mut wish = with_image(&format!("hello:v{}", self.random.u32(1..=self.version)));
            wish["spec"]["paused"] = Value::Null;
            self.merge("Deployment", name, wish).await;
        }
    }

    async fn settle(&self) {
        let deadline = tokio::time::Instant::now() + SETTLED_WITHIN;
        while let Err(unsettled) = self.settled().await {
            assert!(tokio::time::Instant::now() < deadline, "it does not settle: {unsettled}");
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    /// Whether what there is, is what was asked for.
    async fn settled(&self) -> Result<(), String> {
        let list = async |api: &str, kind: &str| self.cluster.list(api, kind, "default").await;
        let pods = list("v1", "Pod").await;
        let sets = list("apps/v1", "ReplicaSet").await;
        let deployments = list("apps/v1", "Deployment").await;
        let live = self.cluster.live_nodes();
        for pod in &pods {
            let name = text(pod, "/metadata/name");
            if pod["metadata"].get("deletionTimestamp").is_some() || text(pod, "/status/phase") != "Running" {
                return Err(format!("pod {name} is on its way"));
            }
            if !live.iter().any(|node| node == text(pod, "/spec/nodeName")) {
                return Err(format!("pod {name} runs nowhere"));
            }
        }
        let mut wanted = 0;
        for deployment in &deployments {
            let name = text(deployment, "/metadata/name");
            if !crate::is_rolled_out(deployment) {
                return Err(format!("deployment {name} is not rolled out: {:#}", deployment["status"]));
            }
            let image = text(deployment, "/spec/template/spec/containers/0/image");
            let ours = pods.iter().filter(|pod| text(pod, "/metadata/labels/app") == name);
            let right = ours.clone().filter(|pod| text(pod, "/spec/containers/0/image") == image).count() as i64;
            wanted += number(deployment, "/spec/replicas");
            if right != number(deployment, "/spec/replicas") || ours.count() as i64 != right {
                return Err(format!("deployment {name} has {right} pods of {image}"));
            }
        }
        for set in &sets {
            let owner = text(set, "/metadata/ownerReferences/0/uid");
            if !deployments.iter().any(|deployment| text(deployment, "/metadata/uid") == owner) {
                return Err(format!("{} outlives its deployment", text(set, "/metadata/name")));
            }
        }
        for set in list("apps/v1", "StatefulSet").await {
            let replicas = number(&set, "/spec/replicas");
            wanted += replicas;
            if number(&set, "/status/readyReplicas") != replicas || number(&set, "/status/replicas") != replicas {
                return Err(format!("stateful set: {:#}", set["status"]));
            }
        }
        let claims = list("v1", "PersistentVolumeClaim").await;
        for claim in &claims {
            let name = text(claim, "/metadata/name");
            let uses = |pod: &Value| text(pod, "/spec/volumes/0/persistentVolumeClaim/claimName") == name;
            if claim["metadata"].get("deletionTimestamp").is_some() && !pods.iter().any(uses) {
                return Err(format!("claim {name} waits for nobody"));
            }
        }
        for pod in &pods {
            let name = text(pod, "/spec/volumes/0/persistentVolumeClaim/claimName");
            if !name.is_empty() && !claims.iter().any(|claim| text(claim, "/metadata/name") == name) {
                return Err(format!("claim {name} is not there"));
            }
        }
        if pods.len() as i64 != wanted {
            return Err(format!("{} pods, {wanted} wanted", pods.len()));
        }
        Ok(())
    }

    /// A settled cluster writes nothing but its leases and what expires.
    async fn is_quiet(&self) {
        // What is counted, such as minReadySeconds and the garbage collector's second looks, comes to its end.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let before = self.store.history().len();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let passing = ["/registry/leases/", "/registry/masterleases/", "/registry/events/"];
        let busy = |key: &str| !passing.iter().any(|prefix| key.starts_with(prefix));
        let history = self.store.history();
        let written: Vec<_> = history[before..].iter().map(|event| &*event.key).filter(|key| busy(key)).collect();
        assert!(written.is_empty(), "a settled cluster writes {written:?}");
    }
}

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": "hello:v1"}]}})
}

fn with_image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn stateful_set(replicas: i64) -> Value {
    let mut template = template(SET);
    template["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": SET, "namespace": "default"},
        "spec": {"replicas": replicas, "serviceName": SET, "selector": {"matchLabels": {"app": SET}}, "template": template,
            "volumeClaimTemplates": [claim], "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}})
}
