//! What a namespace held is gone with it, whatever it was, and pods go first.

use crate::cluster::Cluster;
use coracle_controller::Grace;
use kube::api::DeleteParams;
use serde_json::{Value, json};

const GROUP: &str = "boats.example.com";

async fn define(cluster: &Cluster, plural: &str, kind: &str, version: &str) {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let name = format!("{plural}.{GROUP}");
    cluster
        .create(&json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name},
            "spec": {"group": GROUP, "scope": "Namespaced", "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind},
                "versions": [{"name": version, "served": true, "storage": true, "schema": schema}]}}))
        .await;
    cluster
        .wait("the definition established", async |cluster| {
            let found =
                cluster.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", &name).await.unwrap_or_default();
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_there = |condition: &Value| condition["type"] == "Established" && condition["status"] == "True";
            (conditions.iter().any(is_there), conditions)
        })
        .await;
}

fn object(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "team"}})
}

async fn namespace(cluster: &Cluster) {
    cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})).await;
}

async fn gone(cluster: &Cluster) {
    cluster
        .wait("the namespace gone", async |cluster| {
            let found = cluster.get("v1", "Namespace", "", "team").await;
            (found.is_none(), found)
        })
        .await;
}

/// The namespace's conditions: type, status and message.
async fn conditions(cluster: &Cluster) -> Vec<[String; 3]> {
    let found = cluster.get("v1", "Namespace", "", "team").await.unwrap_or_default();
    let text = |condition: &Value, name: &str| condition[name].as_str().unwrap_or_default().to_owned();
    let told = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
    told.iter().map(|condition| ["type", "status", "message"].map(|name| text(condition, name))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_that_are_new_or_of_lesser_versions_go_too() {
    let cluster = Cluster::start(0, Grace::default()).await;
    namespace(&cluster).await;
    define(&cluster, "boats", "Boat", "v1").await;
    define(&cluster, "oars", "Oar", "v1alpha1").await;
    define(&cluster, "events", "Event", "v1").await;
    let (new, lesser) = (format!("{GROUP}/v1"), format!("{GROUP}/v1alpha1"));
    let held = [(new.as_str(), "Boat"), (lesser.as_str(), "Oar"), (new.as_str(), "Event"), ("v1", "Event")];
    for (api_version, kind) in held {
        let mut object = object(api_version, kind, "a");
        if api_version == "v1" {
            object["involvedObject"] = json!({"kind": "Pod", "name": "p", "namespace": "team"});
        }
        cluster.create(&object).await;
    }
    cluster.delete("v1", "Namespace", "", "team", DeleteParams::default()).await;
    gone(&cluster).await;
    for (api_version, kind) in held {
        let left = cluster.list(api_version, kind, "").await;
        let left: Vec<&Value> = left.iter().filter(|object| object["metadata"]["namespace"] == "team").collect();
        assert!(left.is_empty(), "{api_version} {kind}: {left:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_before_the_pods() {
    let cluster = Cluster::start(0, Grace::default()).await;
    namespace(&cluster).await;
    let mut pod = object("v1", "Pod", "slow");
    pod["metadata"]["finalizers"] = json!(["example.com/slow"]);
    pod["spec"] = json!({"containers": [{"name": "c", "image": "hello:v1"}], "nodeName": "none"});
    cluster.create(&pod).await;
    cluster.create(&object("v1", "ConfigMap", "needed")).await;
    cluster.delete("v1", "Namespace", "", "team", DeleteParams::default()).await;
    let told = cluster
        .wait("what keeps it", async |cluster| {
            let told = conditions(cluster).await;
            (told.len() == 5 && told[4][1] == "True", told)
        })
        .await;
    assert_eq!(told[3][2], "Some resources are remaining: pods. has 1 resource instances");
    assert_eq!(
        told[4][2],
        "Some content in the namespace has finalizers remaining: example.com/slow in 1 resource instances"
    );
    assert!(cluster.get("v1", "ConfigMap", "team", "needed").await.is_some(), "its pod still runs");
    cluster.merge("v1", "Pod", "team", "slow", json!({"metadata": {"finalizers": null}})).await;
    // Its node does not exist and ends nothing.
    cluster.delete("v1", "Pod", "team", "slow", DeleteParams::default().grace_period(0)).await;
    gone(&cluster).await;
    assert!(cluster.get("v1", "ConfigMap", "team", "needed").await.is_none());
    cluster.stop().await;
}
