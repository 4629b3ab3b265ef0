//! The load, and what came of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinSet};

use super::client::{Connection, Target};

const JSON: &str = "application/json";
const NODE: &str = "node-1";
const MERGE: &str = "application/merge-patch+json";
/// Events that do not come within this are lost.
const EVENTS_WITHIN: Duration = Duration::from_secs(60);

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub pods: usize,
    pub clients: usize,
    pub connections: usize,
    pub watchers: usize,
    pub updates: usize,
    pub gets: usize,
    pub lists: usize,
}

/// Per second, but for the list's, which is MB/s.
#[derive(Clone, Copy, Debug, Default)]
pub struct Results {
    create: f64,
    get: f64,
    list: f64,
    updates: f64,
    events: f64,
    delete: f64,
    /// Events that come together.
    together: f64,
    /// Processor time of the server: a create, a get, an update with its events, a delete; in µs.
    cost: [f64; 4],
}

impl Results {
    pub fn rows(&self) -> Vec<(String, &'static str, f64)> {
        let row = |name: &str, unit, value| (name.to_owned(), unit, value);
        vec![
            row("create", "1/s", self.create),
            row("get", "1/s", self.get),
            row("full list", "MB/s", self.list),
            row("updates with watchers", "1/s", self.updates),
            row("events delivered", "1/s", self.events),
            row("events in one piece", "", self.together),
            row("delete of the collection", "1/s", self.delete),
            row("processor time of a create", "µs", self.cost[0]),
            row("processor time of a get", "µs", self.cost[1]),
            row("processor time of an update with its events", "µs", self.cost[2]),
            row("processor time of a delete", "µs", self.cost[3]),
        ]
    }
}

impl Load {
    /// The whole load; `spent` is the processor time that the server has taken so far.
    pub async fn run(&self, target: &Target, spent: impl Fn() -> Duration) -> Result<Results> {
        let mut before = spent();
        let mut cost = |requests: usize| {
            let (from, now) = (std::mem::replace(&mut before, spent()), spent());
            now.saturating_sub(from).as_secs_f64() * 1e6 / requests as f64
        };
        let create = self.create(target, "bench").await?;
        let create_cost = cost(self.pods);
        let get = self.get(target).await?;
        let get_cost = cost(self.gets);
        let list = self.list(target).await?;
        cost(self.lists);
        let (updates, events, together) = self.watch(target).await?;
        let update_cost = cost(self.updates);
        let delete = self.delete(target).await?;
        let cost = [create_cost, get_cost, update_cost, cost(self.pods)];
        Ok(Results { create, get, list, updates, events, delete, together, cost })
    }

    /// What can be asked of a server that does nothing.
    pub async fn ceiling(&self, target: &Target, spent: impl Fn() -> Duration) -> Result<Results> {
        let before = spent();
        let create = self.create(target, "bench").await?;
        let between = spent();
        let get = self.get(target).await?;
        let after = spent();
        let list = self.list(target).await?;
        let start = spent();
        let (updates, events, together) = self.watch(target).await?;
        let end = spent();
        let each = |from: Duration, to: Duration, requests: usize| (to - from).as_secs_f64() * 1e6 / requests as f64;
        let cost =
            [each(before, between, self.pods), each(between, after, self.gets), each(start, end, self.updates), 0.0];
        Ok(Results { create, get, list, updates, events, together, cost, ..Results::default() })
    }

    /// Creates the pods of a namespace, as a ReplicaSet's are: only their names differ. How many a second.
    pub async fn create(&self, target: &Target, namespace: &str) -> Result<f64> {
        self.create_all(target, namespace, pod).await
    }

    /// The same of pods of which no two have anything in common that could be remembered.
    pub async fn create_different(&self, target: &Target, namespace: &str) -> Result<f64> {
        let different = |name: &str| {
            let mut pod = pod(name);
            pod["spec"]["containers"][0]["image"] = format!("registry.example/web:{name}").into();
            pod
        };
        self.create_all(target, namespace, different).await
    }

    async fn create_all(&self, target: &Target, namespace: &str, pod: impl Fn(&str) -> Value) -> Result<f64> {
        let mut connection = target.connect().await?;
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        connection.call(Method::POST, "/api/v1/namespaces", JSON, object.to_string().into()).await?;
        let path: Arc<str> = format!("/api/v1/namespaces/{namespace}/pods").into();
        // Made before the clock runs: what a client costs is not to be measured.
        let bodies: Arc<[Bytes]> = (0..self.pods).map(|number| pod(&name(number)).to_string().into()).collect();
        let rate = self.spread(target, self.pods, move |mut connection, number| {
            let (path, body) = (path.clone(), bodies[number].clone());
            async move { connection.call(Method::POST, &path, JSON, body).await.map(drop) }
        });
        rate.await
    }

    /// The node that the pods are bound to.
    pub async fn register_node(&self, target: &Target) -> Result<()> {
        let mut connection = target.connect().await?;
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
            "status": {"allocatable": {"cpu": "10000", "memory": "10Ti", "pods": "10000"}}});
        connection.call(Method::POST, "/api/v1/nodes", JSON, node.to_string().into()).await.map(drop)
    }

    /// How many pods there are.
    pub async fn count(&self, target: &Target) -> Result<usize> {
        let mut connection = target.connect().await?;
        let path = "/api/v1/namespaces/bench/pods";
        let response = connection.open(Method::GET, path, JSON, Bytes::new()).await?;
        let list: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
        Ok(list["items"].as_array().map_or(0, Vec::len))
    }

    async fn get(&self, target: &Target) -> Result<f64> {
        let pods = self.pods;
        let rate = self.spread(target, self.gets, move |mut connection, number| async move {
            // Not in the order in which they were made.
            let path = format!("/api/v1/namespaces/bench/pods/{}", name(number * 7919 % pods));
            connection.call(Method::GET, &path, JSON, Bytes::new()).await.map(drop)
        });
        rate.await
    }

    async fn list(&self, target: &Target) -> Result<f64> {
        let mut connection = target.connect().await?;
        let path = "/api/v1/namespaces/bench/pods";
        connection.call(Method::GET, path, JSON, Bytes::new()).await?;
        let (start, mut bytes) = (Instant::now(), 0);
        for _ in 0..self.lists {
            bytes += connection.call(Method::GET, path, JSON, Bytes::new()).await?;
        }
        Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
    }

    /// Updates while watchers watch: updates a second, events a second over all watchers, and how many come together.
    async fn watch(&self, target: &Target) -> Result<(f64, f64, f64)> {
        let (seen, done) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let pieces = Arc::new(AtomicU64::new(0));
        let wanted = (self.watchers * self.updates) as u64;
        let mut watchers = JoinSet::new();
        let version = self.version(target).await?;
        for number in 0..self.connections {
            let connection = target.connect().await?;
            for _ in 0..self.watchers / self.connections + usize::from(number < self.watchers % self.connections) {
                let (mut connection, seen, done) = (connection.clone(), seen.clone(), done.clone());
                let pieces = pieces.clone();
                let path = format!("/api/v1/namespaces/bench/pods?watch=true&resourceVersion={version}");
                let response = connection.open(Method::GET, &path, JSON, Bytes::new()).await?;
                watchers.spawn(async move {
                    let mut body = response.into_body();
                    while let Some(Ok(frame)) = body.frame().await {
                        let Ok(data) = frame.into_data() else { continue };
                        // An event is a line.
                        let events = data.iter().filter(|byte| **byte == b'\n').count() as u64;
                        pieces.fetch_add(1, Ordering::Relaxed);
                        if seen.fetch_add(events, Ordering::Relaxed) + events >= wanted {
                            done.notify_one();
                        }
                    }
                });
            }
        }
        let (pods, start) = (self.pods, Instant::now());
        let updates = self.spread(target, self.updates, move |mut connection, number| async move {
            let path = format!("/api/v1/namespaces/bench/pods/{}", name(number % pods));
            let patch = json!({"metadata": {"labels": {"round": format!("r{number}")}}}).to_string();
            connection.call(Method::PATCH, &path, MERGE, patch.into()).await.map(drop)
        });
        let updates = updates.await?;
        tokio::time::timeout(EVENTS_WITHIN, done.notified()).await.context("events were lost")?;
        let events = wanted as f64 / start.elapsed().as_secs_f64();
        Ok((updates, events, wanted as f64 / pieces.load(Ordering::Relaxed).max(1) as f64))
    }

    async fn version(&self, target: &Target) -> Result<String> {
        let mut connection = target.connect().await?;
        let path = "/api/v1/namespaces/bench/pods?limit=1";
        let response = connection.open(Method::GET, path, JSON, Bytes::new()).await?;
        let list: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
        list["metadata"]["resourceVersion"].as_str().map(str::to_owned).context("a list without a version")
    }

    /// Deletes the pods at once, as a collection; how many a second.
    pub async fn delete(&self, target: &Target) -> Result<f64> {
        let mut connection = target.connect().await?;
        let start = Instant::now();
        let path = "/api/v1/namespaces/bench/pods?gracePeriodSeconds=0";
        connection.call(Method::DELETE, path, JSON, Bytes::new()).await?;
        Ok(self.pods as f64 / start.elapsed().as_secs_f64())
    }

    /// Does something `count` times over all clients; how many a second.
    async fn spread<W, F>(&self, target: &Target, count: usize, work: W) -> Result<f64>
    where
        W: Fn(Connection, usize) -> F + Clone + Send + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut connections = Vec::new();
        for _ in 0..self.connections {
            connections.push(target.connect().await?);
        }
        let next = Arc::new(AtomicUsize::new(0));
        let start = Instant::now();
        let mut clients = JoinSet::new();
        for client in 0..self.clients {
            let (connection, next, work) =
                (connections[client % connections.len()].clone(), next.clone(), work.clone());
            clients.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return anyhow::Ok(());
                    }
                    work(connection.clone(), number).await?;
                }
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        Ok(count as f64 / start.elapsed().as_secs_f64())
    }
}

fn name(number: usize) -> String {
    format!("pod-{number:05}")
}

/// A pod of the usual kind: two containers, probes, resources, volumes; bound, so that no scheduler is measured.
pub fn pod(name: &str) -> Value {
    let container = |name: &str, port: u16| {
        json!({
            "name": name, "image": format!("registry.example/{name}:1.27.3"), "imagePullPolicy": "IfNotPresent",
            "ports": [{"containerPort": port, "name": "http"}],
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "MODE", "value": "production"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
            "livenessProbe": {"httpGet": {"path": "/live", "port": "http"}, "initialDelaySeconds": 10},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "scratch", "mountPath": "/scratch"}],
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name,
            "labels": {"app": "web", "tier": "front", "pod-template-hash": "5f4fc5d67f"},
            "annotations": {"example.com/owner": "team-a", "example.com/checksum": "0123456789abcdef0123456789abcdef"}},
        "spec": {
            "nodeName": NODE, "automountServiceAccountToken": false,
            "containers": [container("web", 8080), container("sidecar", 9090)],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}, {"name": "scratch", "emptyDir": {}}],
        },
    })
}
