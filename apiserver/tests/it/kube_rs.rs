//! kube-rs: typed objects, server-side apply, streaming lists, metadata, discovery.

use crate::harness::{Harness, LIMIT, Served};
use coracle_apiserver::UserInfo;
use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use std::pin::pin;

fn map(name: &str, data: serde_json::Value) -> ConfigMap {
    serde_json::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}))
        .unwrap()
}

async fn story(client: Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let made = maps.create(&PostParams::default(), &map("a", json!({"k": "v"}))).await.unwrap();
    assert!(made.uid().is_some());
    let taken = maps.create(&PostParams::default(), &map("a", json!({}))).await.unwrap_err();
    assert!(matches!(taken, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists"));
    let mut stale = made.clone();
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "w"}}))).await.unwrap();
    stale.data.get_or_insert_default().insert("x".into(), "y".into());
    let conflict = maps.replace("a", &PostParams::default(), &stale).await.unwrap_err();
    assert!(matches!(conflict, kube::Error::Api(status) if status.reason == "Conflict"));

    // Appliers, as operators use them.
    let one = PatchParams::apply("one");
    let applied = maps.patch("b", &one, &Patch::Apply(&map("b", json!({"k": "1", "l": "1"})))).await.unwrap();
    let conflict =
        maps.patch("b", &PatchParams::apply("two"), &Patch::Apply(&map("b", json!({"k": "2"})))).await.unwrap_err();
    assert!(matches!(conflict, kube::Error::Api(status) if status.message.contains("conflict with \"one\": .data.k")));
    let less = maps.patch("b", &one, &Patch::Apply(&map("b", json!({"k": "1"})))).await.unwrap();
    assert_eq!(less.data.unwrap().len(), 1);
    assert_ne!(applied.resource_version(), less.metadata.resource_version);

    // A streaming list, and then what happens.
    let config = watcher::Config::default().streaming_lists();
    let mut events = pin!(watcher(maps.clone(), config).applied_objects());
    let mut names = Vec::new();
    while names.len() < 3 {
        let object = tokio::time::timeout(LIMIT, events.try_next()).await.expect("an event in time").unwrap().unwrap();
        // It asks for any list, so the newest write may come after it.
        if names.last() == Some(&object.name_any()) {
            continue;
        }
        names.push(object.name_any());
        if names.len() == 2 {
            maps.create(&PostParams::default(), &map("c", json!({}))).await.unwrap();
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
    let metas: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client.clone(), "default");
    let mut metadata = pin!(watcher(metas, watcher::Config::default().any_semantic()).applied_objects());
    let first: PartialObjectMeta<ConfigMap> =
        tokio::time::timeout(LIMIT, metadata.try_next()).await.expect("an event in time").unwrap().unwrap();
    assert_eq!((first.name_any().as_str(), first.metadata.uid.clone()), ("a", made.uid()));

    // Without types.
    let group = kube::discovery::group(&client, "apps").await.unwrap();
    let (resource, _) = group.recommended_kind("Deployment").unwrap();
    let untyped: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    untyped.create(&PostParams::default(), &serde_json::from_value(web).unwrap()).await.unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let mut scale = deployments.get_scale("web").await.unwrap();
    scale.spec.get_or_insert_default().replicas = Some(4);
    deployments.replace_scale("web", &PostParams::default(), &scale).await.unwrap();
    let status = Patch::Apply(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "status": {"replicas": 2, "readyReplicas": 2}}),
    );
    let now = deployments.patch_status("web", &PatchParams::apply("controller"), &status).await.unwrap();
    assert_eq!((now.spec.unwrap().replicas, now.status.unwrap().ready_replicas), (Some(4), Some(2)));
    let listed = maps.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!((listed.items.len(), listed.metadata.remaining_item_count), (2, Some(1)));
    maps.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
    let pods: Api<Pod> = Api::all(client);
    assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn in_process() {
    let harness = Harness::start().await;
    story(Client::new(harness.server.service(UserInfo::admin()), "default")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls() {
    let served = Served::start().await;
    let kubeconfig = kube::config::Kubeconfig::read_from(served.directory.path().join("config")).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    story(Client::try_from(config).unwrap()).await;
}
