//! An operator written with kube-rs: it defines its kind, waits until that is established, and brings the world to what its
//! objects say.

use crate::harness::{Harness, LIMIT};
use coracle_apiserver::UserInfo;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

fn definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": {"name": "greetings.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "greetings", "singular": "greeting", "kind": "Greeting"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"words": {"type": "string", "default": "hello"}}},
                    "status": {"type": "object", "properties": {"said": {"type": "string"}, "observedGeneration": {"type": "integer"}}}}}}}]}
    }))
    .unwrap()
}

/// Writes the words into a ConfigMap that the greeting owns, and says so in its status.
async fn reconcile(greeting: Arc<DynamicObject>, context: Arc<(Client, ApiResource)>) -> Result<Action, kube::Error> {
    let (client, kind) = &*context;
    let namespace = greeting.namespace().unwrap_or_default();
    let words = greeting.data["spec"]["words"].as_str().unwrap_or_default().to_owned();
    let params = PatchParams::apply("greeter").force();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"words": words},
        "metadata": {"name": greeting.name_any(), "ownerReferences": [greeting.controller_owner_ref(kind)]}});
    Api::<ConfigMap>::namespaced(client.clone(), &namespace)
        .patch(&greeting.name_any(), &params, &Patch::Apply(&map))
        .await?;
    let status = json!({"apiVersion": kind.api_version, "kind": kind.kind,
        "status": {"said": words, "observedGeneration": greeting.metadata.generation}});
    let greetings = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, kind);
    greetings.patch_status(&greeting.name_any(), &params, &Patch::Apply(&status)).await?;
    Ok(Action::await_change())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator() {
    tokio::time::timeout(LIMIT, story()).await.expect("the operator does its work in time");
}

async fn story() {
    let harness = Harness::start().await;
    let client = Client::new(harness.server.service(UserInfo::admin()), "default");
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    definitions.create(&PostParams::default(), &definition()).await.unwrap();
    await_condition(definitions.clone(), "greetings.example.com", conditions::is_crd_established()).await.unwrap();

    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Greeting"));
    let greetings = Api::<DynamicObject>::default_namespaced_with(client.clone(), &kind);
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    let operator = Controller::new_with(greetings.clone(), watcher::Config::default(), kind.clone())
        .owns(maps.clone(), watcher::Config::default())
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_millis(100)),
            Arc::new((client.clone(), kind.clone())),
        );
    let running = tokio::spawn(operator.for_each(|_| async {}));

    let mut greeting = DynamicObject::new("first", &kind).data(json!({"spec": {}}));
    greeting.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let made = greetings.create(&PostParams::default(), &greeting).await.unwrap();
    assert_eq!(made.data["spec"]["words"], "hello");
    let said = |words: &'static str| {
        move |found: Option<&DynamicObject>| found.is_some_and(|found| found.data["status"]["said"] == words)
    };
    await_condition(greetings.clone(), "first", said("hello")).await.unwrap();
    let change = Patch::Merge(json!({"spec": {"words": "goodbye"}}));
    greetings.patch("first", &PatchParams::default(), &change).await.unwrap();
    await_condition(greetings.clone(), "first", said("goodbye")).await.unwrap();
    let map = maps.get("first").await.unwrap();
    assert_eq!(map.data.as_ref().unwrap()["words"], "goodbye");
    assert_eq!(map.owner_references()[0].kind, "Greeting");
    // What somebody else breaks is mended.
    maps.delete("first", &DeleteParams::default()).await.unwrap();
    let mended = |found: Option<&ConfigMap>| found.is_some_and(|found| found.meta().uid != map.meta().uid);
    await_condition(maps.clone(), "first", mended).await.unwrap();
    running.abort();

    definitions.delete("greetings.example.com", &DeleteParams::default()).await.unwrap();
    let gone = |found: Option<&CustomResourceDefinition>| found.is_none();
    await_condition(definitions, "greetings.example.com", gone).await.unwrap();
    // The definition is gone first, and what it served a moment later.
    let error = loop {
        if let Err(error) = greetings.list(&Default::default()).await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(error, kube::Error::Api(status) if status.code == 404));
}
