//! The control plane as a whole: what users do, and what follows from it.

mod cluster;
mod emptying;
mod history;
mod kubelet;
#[path = "../../../apiserver/tests/it/model.rs"]
mod model;
mod protection;
mod simulation;

use std::{collections::BTreeMap, time::Duration};

use cluster::Cluster;
use coracle_controller::Grace;
use kube::api::DeleteParams;
use serde_json::{Value, json};

fn deployment(replicas: i64, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// As `kubectl rollout status` sees it.
fn is_rolled_out(deployment: &Value) -> bool {
    let wanted = number(deployment, "/spec/replicas");
    number(deployment, "/status/observedGeneration") >= number(deployment, "/metadata/generation")
        && ["updatedReplicas", "replicas", "availableReplicas", "readyReplicas"]
            .iter()
            .all(|field| number(deployment, &format!("/status/{field}")) == wanted)
}

async fn rolled_out(cluster: &Cluster) -> Value {
    cluster
        .wait("the rollout", async |cluster| {
            let deployment = cluster.get("apps/v1", "Deployment", "default", "web").await.unwrap_or_default();
            (is_rolled_out(&deployment), deployment)
        })
        .await
}

/// Pods of the namespace by node and by image.
async fn pods(cluster: &Cluster) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let (mut nodes, mut images) = (BTreeMap::new(), BTreeMap::new());
    for pod in cluster.list("v1", "Pod", "default").await {
        *nodes.entry(text(&pod, "/spec/nodeName").to_owned()).or_default() += 1;
        *images.entry(text(&pod, "/spec/containers/0/image").to_owned()).or_default() += 1;
    }
    (nodes, images)
}

fn same(number: usize, names: &[&str]) -> BTreeMap<String, usize> {
    names.iter().map(|name| ((*name).to_owned(), number)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_created_scaled_updated_rolled_back_and_deleted() {
    let cluster = Cluster::start(3, Grace::default()).await;
    cluster.create(&deployment(3, "hello:v1")).await;
    rolled_out(&cluster).await;
    let nodes = ["n1", "n2", "n3"];
    assert_eq!(pods(&cluster).await, (same(1, &nodes), same(3, &["hello:v1"])));

    cluster.merge("apps/v1", "Deployment", "default", "web", json!({"spec": {"replicas": 9}})).await;
    rolled_out(&cluster).await;
    assert_eq!(pods(&cluster).await.0, same(3, &nodes));

    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    cluster.merge("apps/v1", "Deployment", "default", "web", image("hello:v2")).await;
    let updated = rolled_out(&cluster).await;
    assert_eq!(text(&updated, "/metadata/annotations/deployment.kubernetes.io~1revision"), "2");
    cluster
        .wait("old pods gone", async |cluster| {
            let seen = pods(cluster).await.1;
            (seen == same(9, &["hello:v2"]), seen)
        })
        .await;

    cluster.merge("apps/v1", "Deployment", "default", "web", image("hello:v1")).await;
    let undone = rolled_out(&cluster).await;
    assert_eq!(text(&undone, "/metadata/annotations/deployment.kubernetes.io~1revision"), "3");
    let progressing = undone["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|condition| condition["type"] == "Progressing")
        .unwrap();
    assert_eq!(progressing["reason"], "NewReplicaSetAvailable");
    let sets = cluster.list("apps/v1", "ReplicaSet", "default").await;
    assert_eq!(sets.len(), 2);

    let reasons: Vec<String> =
        cluster.list("v1", "Event", "default").await.iter().map(|event| text(event, "/reason").to_owned()).collect();
    for reason in ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled", "SuccessfulDelete"] {
        assert!(reasons.iter().any(|have| have == reason), "{reason} is not in {reasons:?}");
    }

    cluster.delete("apps/v1", "Deployment", "default", "web", DeleteParams::background()).await;
    cluster
        .wait("everything gone", async |cluster| {
            let left = (
                cluster.list("v1", "Pod", "default").await.len(),
                cluster.list("apps/v1", "ReplicaSet", "default").await.len(),
            );
            (left == (0, 0), left)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreground_and_orphan_deletion() {
    let cluster = Cluster::start(1, Grace::default()).await;
    cluster.create(&deployment(2, "hello:v1")).await;
    rolled_out(&cluster).await;
    cluster.delete("apps/v1", "Deployment", "default", "web", DeleteParams::orphan()).await;
    cluster
        .wait("the deployment gone", async |cluster| {
            let found = cluster.get("apps/v1", "Deployment", "default", "web").await;
            (found.is_none(), found)
        })
        .await;
    let sets = cluster.list("apps/v1", "ReplicaSet", "default").await;
    assert_eq!((sets.len(), sets[0]["metadata"].get("ownerReferences")), (1, None), "the set is an orphan");
    // The same deployment again takes the set back.
    cluster.create(&deployment(2, "hello:v1")).await;
    rolled_out(&cluster).await;
    assert_eq!(cluster.list("apps/v1", "ReplicaSet", "default").await.len(), 1);
    cluster.delete("apps/v1", "Deployment", "default", "web", DeleteParams::foreground()).await;
    cluster
        .wait("everything gone from below", async |cluster| {
            let found = cluster.get("apps/v1", "Deployment", "default", "web").await;
            let pods = cluster.list("v1", "Pod", "default").await.len();
            assert!(found.is_some() || pods == 0, "the owner went before its dependents");
            (found.is_none(), found)
        })
        .await;
    cluster.stop().await;
}

/// pkg/controller/garbagecollector `isDangling`: an owner is who has the reference's kind and name as well as its uid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_under_a_wrong_name_is_none() {
    let cluster = Cluster::start(0, Grace::default()).await;
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}});
    let owner = cluster.create(&map("owner")).await;
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "told", "namespace": "default"},
        "involvedObject": {"kind": "ConfigMap", "namespace": "default", "name": "owner"}});
    let told = cluster.create(&event).await;
    for (name, api_version, kind, called, uid) in [
        ("right", "v1", "ConfigMap", "owner", text(&owner, "/metadata/uid")),
        ("misnamed", "v1", "ConfigMap", "other", text(&owner, "/metadata/uid")),
        ("of-another-kind", "v1", "Secret", "owner", text(&owner, "/metadata/uid")),
        // The same object is of another group, too.
        ("twice", "events.k8s.io/v1", "Event", "told", text(&told, "/metadata/uid")),
    ] {
        let mut dependent = map(name);
        dependent["metadata"]["ownerReferences"] =
            json!([{"apiVersion": api_version, "kind": kind, "name": called, "uid": uid}]);
        cluster.create(&dependent).await;
    }
    let left = async |expected: &[&str]| {
        cluster
            .wait("only those that have an owner", async |cluster| {
                let maps = cluster.list("v1", "ConfigMap", "default").await;
                let mut names: Vec<String> = maps.iter().map(|map| text(map, "/metadata/name").to_owned()).collect();
                names.retain(|name| name != "kube-root-ca.crt");
                (names == expected, names)
            })
            .await
    };
    left(&["owner", "right", "twice"]).await;
    cluster.delete("v1", "ConfigMap", "default", "owner", DeleteParams::default()).await;
    left(&["twice"]).await;
    cluster.delete("v1", "Event", "default", "told", DeleteParams::default()).await;
    left(&[]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_tainted_and_its_pods_move() {
    let grace =
        Grace { running: Duration::from_secs(2), starting: Duration::from_secs(5), deleted: Duration::from_secs(1) };
    let mut cluster = Cluster::start(3, grace).await;
    let mut short = deployment(3, "hello:v1");
    short["spec"]["template"]["spec"]["tolerations"] = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]);
    cluster.create(&short).await;
    rolled_out(&cluster).await;
    cluster.kill_node("n2");
    cluster
        .wait("pods moved", async |cluster| {
            let mut running = same(0, &[]);
            for pod in cluster.list("v1", "Pod", "default").await {
                if pod["metadata"].get("deletionTimestamp").is_none() && text(&pod, "/status/phase") == "Running" {
                    *running.entry(text(&pod, "/spec/nodeName").to_owned()).or_default() += 1;
                }
            }
            (!running.contains_key("n2") && running.values().sum::<usize>() == 3, running)
        })
        .await;
    let node = cluster.get("v1", "Node", "", "n2").await.unwrap();
    let ready =
        node["status"]["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "Ready").unwrap();
    assert_eq!((text(ready, "/status"), text(ready, "/reason")), ("Unknown", "NodeStatusUnknown"));
    // What is left there goes with the node.
    cluster.delete("v1", "Node", "", "n2", DeleteParams::default()).await;
    cluster
        .wait("no pod on the node that is gone", async |cluster| {
            let left = pods(cluster).await.0;
            (!left.contains_key("n2"), left)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_gets_a_range_and_loses_its_taint() {
    let cluster = Cluster::start(3, Grace::default()).await;
    let ranges = cluster
        .wait("ranges", async |cluster| {
            let nodes = cluster.list("v1", "Node", "").await;
            let mut ranges: Vec<String> = nodes.iter().map(|node| text(node, "/spec/podCIDR").to_owned()).collect();
            ranges.sort();
            let tainted = nodes.iter().any(|node| node.pointer("/spec/taints/0").is_some());
            (!tainted && ranges.iter().all(|range| !range.is_empty()), ranges)
        })
        .await;
    assert_eq!(ranges, ["10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_knows_its_pods() {
    let cluster = Cluster::start(2, Grace::default()).await;
    cluster
        .create(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}}))
        .await;
    cluster.create(&deployment(4, "hello:v1")).await;
    let ready = async |cluster: &Cluster| {
        let slices = cluster.list("discovery.k8s.io/v1", "EndpointSlice", "default").await;
        let ours = slices.iter().filter(|slice| text(slice, "/metadata/labels/kubernetes.io~1service-name") == "web");
        let endpoints = ours.flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
    };
    cluster
        .wait("four endpoints", async |cluster| {
            let count = ready(cluster).await;
            (count == 4, count)
        })
        .await;
    cluster.merge("apps/v1", "Deployment", "default", "web", json!({"spec": {"replicas": 1}})).await;
    cluster
        .wait("one endpoint", async |cluster| {
            let count = ready(cluster).await;
            (count == 1, count)
        })
        .await;
    cluster
        .wait("the older form", async |cluster| {
            let endpoints = cluster.get("v1", "Endpoints", "default", "web").await.unwrap_or_default();
            let addresses = endpoints.pointer("/subsets/0/addresses").and_then(Value::as_array).map_or(0, Vec::len);
            (addresses == 1, endpoints)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_furnished_and_emptied() {
    let cluster = Cluster::start(1, Grace::default()).await;
    cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})).await;
    cluster
        .wait("its furniture", async |cluster| {
            let account = cluster.get("v1", "ServiceAccount", "team", "default").await;
            let map = cluster.get("v1", "ConfigMap", "team", "kube-root-ca.crt").await;
            (account.is_some() && map.is_some(), (account, map))
        })
        .await;
    let mut there = deployment(2, "hello:v1");
    there["metadata"]["namespace"] = "team".into();
    cluster.create(&there).await;
    cluster
        .wait("its pods", async |cluster| {
            let count = cluster.list("v1", "Pod", "team").await.len();
            (count == 2, count)
        })
        .await;
    cluster.delete("v1", "Namespace", "", "team", DeleteParams::default()).await;
    cluster
        .wait("the namespace gone", async |cluster| {
            let found = cluster.get("v1", "Namespace", "", "team").await;
            (found.is_none(), found)
        })
        .await;
    assert_eq!(cluster.list("v1", "Pod", "team").await.len(), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_says_why_and_is_placed_when_it_can() {
    let mut cluster = Cluster::start(1, Grace::default()).await;
    let big = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "big", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "3"}}}]}});
    cluster.create(&big).await;
    cluster
        .wait("the first pod", async |cluster| {
            let pod = cluster.get("v1", "Pod", "default", "big").await.unwrap();
            (text(&pod, "/spec/nodeName") == "n1", pod)
        })
        .await;
    let mut second = big.clone();
    second["metadata"]["name"] = "second".into();
    cluster.create(&second).await;
    let pod = cluster
        .wait("a reason", async |cluster| {
            let pod = cluster.get("v1", "Pod", "default", "second").await.unwrap();
            (pod.pointer("/status/conditions/0/message").is_some(), pod)
        })
        .await;
    assert_eq!(text(&pod, "/status/conditions/0/reason"), "Unschedulable");
    assert_eq!(
        text(&pod, "/status/conditions/0/message"),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
    cluster.start_node("n2").await;
    cluster
        .wait("a place on the new node", async |cluster| {
            let pod = cluster.get("v1", "Pod", "default", "second").await.unwrap();
            (text(&pod, "/spec/nodeName") == "n2", pod)
        })
        .await;
    cluster.stop().await;
}
