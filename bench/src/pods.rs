//! How long a pod takes from its creation to Running, seen by a client that watches.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use coracle_client::Client;
use futures::{StreamExt, future::try_join_all, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(120);

/// Creates `count` pods at once and returns how long each took.
pub async fn created_to_running(client: &Client, round: &str, count: usize) -> Result<Vec<Duration>> {
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let version = pods.list_metadata(&Default::default()).await?.metadata.resource_version.unwrap_or_default();
    let watch = pods.watch(&WatchParams::default(), &version).await?;
    pin_mut!(watch);
    let names: Vec<String> = (0..count).map(|number| format!("bench-{round}-{number}")).collect();
    let started: HashMap<String, Instant> = names.iter().map(|name| (name.clone(), Instant::now())).collect();
    let create = try_join_all(names.iter().map(|name| create(&pods, name)));
    let watching = async {
        let mut times: HashMap<String, Duration> = HashMap::new();
        while times.len() < count {
            let event = watch.next().await.context("the watch ended")??;
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else { continue };
            let name = pod.metadata.name.unwrap_or_default();
            let running = pod.status.and_then(|status| status.phase).is_some_and(|phase| phase == "Running");
            if let (true, Some(start)) = (running, started.get(&name)) {
                times.entry(name).or_insert_with(|| start.elapsed());
            }
        }
        anyhow::Ok(times.into_values().collect())
    };
    let (_, times) = tokio::time::timeout(LIMIT, futures::future::try_join(create, watching))
        .await
        .context("pods are not Running in time")??;
    Ok(times)
}

async fn create(pods: &Api<Pod>, name: &str) -> Result<()> {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"bench": "pods"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "hello", "image": "coracle/hello:v1"}],
        },
    }))?;
    pods.create(&PostParams::default(), &pod).await.map(drop).with_context(|| format!("create pod {name}"))
}

/// Deletes the pods of all rounds and waits until they are gone.
pub async fn clean(client: &Client) -> Result<()> {
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let mine = kube::api::ListParams::default().labels("bench=pods");
    pods.delete_collection(&DeleteParams::default().grace_period(0), &mine).await?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = pods.list_metadata(&mine).await?;
        if left.items.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{} pods are still there", left.items.len());
        let version = left.metadata.resource_version.unwrap_or_default();
        let watch = pods.watch(&WatchParams::default().labels("bench=pods").timeout(5), &version).await?;
        pin_mut!(watch);
        while let Some(Ok(event)) = watch.next().await {
            if matches!(event, WatchEvent::Deleted(_)) {
                break;
            }
        }
    }
}
