//! Servers on a store that is not theirs alone: whose news may not come, then what the store knows is answered from there.

use crate::custom::define;
use crate::harness::{Harness, pod};
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::embedded::Embedded;
use coracle_apiserver::store::{Batches, Outcome, Page, Range, Record, Revision, Store, StoreError, Txn, Watch};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A store whose watches stop when told to, as those of a cluster that a server is cut off from.
struct Stalling {
    store: Embedded,
    stalls: Arc<AtomicBool>,
}

impl Store for Stalling {
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        self.store.txn(txn)
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.store.get(key)
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.store.range(range)
    }

    fn watch(&self, watch: Watch) -> BoxFuture<'_, Result<Batches, StoreError>> {
        let stalls = self.stalls.clone();
        let batches = self.store.watch(watch);
        async move {
            let held = move |batch| {
                let stalls = stalls.clone();
                async move {
                    if stalls.load(Ordering::SeqCst) {
                        std::future::pending::<()>().await;
                    }
                    batch
                }
            };
            Ok(batches.await?.then(held).boxed())
        }
        .boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.store.revision()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.compact(revision)
    }

    fn expire(&self) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.store.expire()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_cache_lacks_the_store_is_asked_for() {
    let stalls = Arc::new(AtomicBool::new(false));
    let store = Embedded::in_memory(Arc::new(SystemClock::new())).unwrap();
    let harness = Harness::on(Arc::new(Stalling { store, stalls: stalls.clone() })).await;
    let client = harness.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |name: &str| json!({"metadata": {"name": name}, "data": {"a": "1"}});
    assert_eq!(client.post(maps, &map("old")).await.0, StatusCode::CREATED);
    assert_eq!(client.get(&format!("{maps}/old")).await.0, StatusCode::OK);
    stalls.store(true, Ordering::SeqCst);
    let (code, made) = client.post(maps, &map("new")).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let one = format!("{maps}/new");
    let (code, found) = client.get(&one).await;
    assert_eq!((code, &found["metadata"]["uid"]), (StatusCode::OK, &made["metadata"]["uid"]), "{found}");
    let (code, changed) = client.merge(&one, &json!({"data": {"a": "2"}})).await;
    assert_eq!((code, &changed["data"]["a"]), (StatusCode::OK, &json!("2")), "{changed}");
    let (code, list) = client.get(maps).await;
    assert_eq!(code, StatusCode::OK, "{list}");
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert!(names.contains(&&json!("new")) && names.contains(&&json!("old")), "{list}");
    let version = |value: &serde_json::Value| value["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>();
    assert!(version(&list).unwrap() >= version(&changed).unwrap(), "{list}");
    assert_eq!(client.get(&format!("{maps}/none")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(client.delete(&one).await.0, StatusCode::OK);
    assert_eq!(client.get(&one).await.0, StatusCode::NOT_FOUND);
    // What asks for the cache's own revision waits for it.
    let (code, answer) = client.get(&format!("{maps}?resourceVersion={}", version(&changed).unwrap())).await;
    assert_eq!(code, StatusCode::GATEWAY_TIMEOUT, "{answer}");
    assert_eq!(client.post("/api/v1/namespaces/default/pods", &pod("a")).await.0, StatusCode::CREATED);
}

fn definition(name: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{name}s.example.com")},
        "spec": {"group": "example.com", "scope": "Cluster", "names": {"plural": format!("{name}s"), "kind": name},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_is_established_when_all_servers_serve_it() {
    let store = Embedded::in_memory(Arc::new(SystemClock::new())).unwrap();
    let store: Arc<dyn Store> = Arc::new(Stalling { store, stalls: Arc::default() });
    let first = Harness::on(store.clone()).await;
    let begun = Instant::now();
    define(&first.admin(), &definition("one")).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "nobody else has to know");
    let second = Harness::with(store, |config, _| config.advertise = "127.0.0.2:6443".parse().unwrap()).await;
    let begun = Instant::now();
    define(&first.admin(), &definition("two")).await;
    // Times of conditions are whole seconds.
    assert!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
    let object = json!({"apiVersion": "example.com/v1", "kind": "two", "metadata": {"name": "a"}});
    let (code, answer) = second.admin().post("/apis/example.com/v1/twos", &object).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
}
