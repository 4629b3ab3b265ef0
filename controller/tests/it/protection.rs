//! Claims and volumes that are used do not go, and what waits for them goes on when they are gone.

use crate::cluster::Cluster;
use crate::text;
use coracle_controller::Grace;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

fn set(namespace: &str, replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": namespace},
        "spec": {"replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
            "template": {"metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "c", "image": "hello:v1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}}})
}

async fn ready(cluster: &Cluster, namespace: &str, replicas: i64) {
    cluster
        .wait("the set's pods", async |cluster| {
            let set = cluster.get("apps/v1", "StatefulSet", namespace, "db").await.unwrap();
            let count = |field: &str| set["status"][field].as_i64().unwrap_or(0);
            ((count("readyReplicas"), count("replicas")) == (replicas, replicas), set["status"].clone())
        })
        .await;
}

/// The claims of a namespace: name, uid, and whether it is to go.
async fn claims(cluster: &Cluster, namespace: &str) -> Vec<(String, String, bool)> {
    let claims = cluster.list("v1", "PersistentVolumeClaim", namespace).await;
    let seen = |claim: &Value| {
        let going = claim["metadata"].get("deletionTimestamp").is_some();
        (text(claim, "/metadata/name").to_owned(), text(claim, "/metadata/uid").to_owned(), going)
    };
    claims.iter().map(seen).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_goes_after_the_pod_that_uses_it_and_both_come_back() {
    let cluster = Cluster::start(1, Grace::default()).await;
    cluster.create(&set("default", 2)).await;
    ready(&cluster, "default", 2).await;
    let before = claims(&cluster, "default").await;
    assert_eq!(before.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["data-db-0", "data-db-1"]);
    for claim in cluster.list("v1", "PersistentVolumeClaim", "default").await {
        assert_eq!(claim["metadata"]["finalizers"], json!([CLAIM]));
    }

    cluster.delete("v1", "PersistentVolumeClaim", "default", "data-db-1", DeleteParams::default()).await;
    // Another that nobody uses goes at once: the controller has seen the first by then.
    let unused = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "unused", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.create(&unused).await;
    cluster.delete("v1", "PersistentVolumeClaim", "default", "unused", DeleteParams::default()).await;
    let seen = cluster
        .wait("the unused claim gone", async |cluster| {
            let seen = claims(cluster, "default").await;
            (seen.len() == 2, seen)
        })
        .await;
    assert_eq!(seen[1], ("data-db-1".to_owned(), before[1].1.clone(), true), "it is used");

    cluster.delete("v1", "Pod", "default", "db-1", DeleteParams::default()).await;
    cluster
        .wait("a new claim", async |cluster| {
            let seen = claims(cluster, "default").await;
            (seen.len() == 2 && seen[1].1 != before[1].1 && !seen[1].2, seen)
        })
        .await;
    ready(&cluster, "default", 2).await;

    // What is scaled away takes its claim along.
    cluster.merge("apps/v1", "StatefulSet", "default", "db", json!({"spec": {"replicas": 1}})).await;
    let left = cluster
        .wait("the second claim gone", async |cluster| {
            let seen = claims(cluster, "default").await;
            (seen.len() == 1, seen)
        })
        .await;
    assert_eq!(left[0], before[0]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_with_used_claims_is_emptied() {
    let cluster = Cluster::start(1, Grace::default()).await;
    cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})).await;
    cluster.create(&set("team", 2)).await;
    ready(&cluster, "team", 2).await;
    cluster.delete("v1", "Namespace", "", "team", DeleteParams::default()).await;
    cluster
        .wait("the namespace gone", async |cluster| {
            let found = cluster.get("v1", "Namespace", "", "team").await;
            (found.is_none(), (found, claims(cluster, "team").await))
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_goes_when_it_is_not_bound_any_more() {
    let cluster = Cluster::start(0, Grace::default()).await;
    let volume = |name: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "finalizers": ["example.com/first"]},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/v"}}})
    };
    let phase = async |name: &str, phase: &str| {
        let patch = Patch::Merge(json!({"status": {"phase": phase}}));
        let api = cluster.api("v1", "PersistentVolume", "");
        api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    };
    let finalizers = async |name: &str| {
        let found = cluster.get("v1", "PersistentVolume", "", name).await.unwrap();
        found["metadata"]["finalizers"].clone()
    };
    for name in ["bound", "free"] {
        let made = cluster.create(&volume(name)).await;
        assert_eq!(made["metadata"]["finalizers"], json!(["example.com/first", VOLUME]));
    }
    phase("bound", "Bound").await;
    for name in ["bound", "free"] {
        cluster.delete("v1", "PersistentVolume", "", name, DeleteParams::default()).await;
    }
    let only = async |name: &str| {
        cluster
            .wait("the finalizer gone", async |_| {
                let seen = finalizers(name).await;
                (seen == json!(["example.com/first"]), seen)
            })
            .await;
    };
    only("free").await;
    assert_eq!(finalizers("bound").await, json!(["example.com/first", VOLUME]));
    phase("bound", "Released").await;
    only("bound").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_lost_its_protection_gets_it_again() {
    let cluster = Cluster::start(0, Grace::default()).await;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.create(&claim).await;
    let patch = json!({"metadata": {"finalizers": ["example.com/other"]}});
    cluster.merge("v1", "PersistentVolumeClaim", "default", "c", patch).await;
    cluster
        .wait("both finalizers", async |cluster| {
            let found = cluster.get("v1", "PersistentVolumeClaim", "default", "c").await.unwrap();
            (found["metadata"]["finalizers"] == json!(["example.com/other", CLAIM]), found)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_services_goes_when_no_service_has_an_address_of_it() {
    const KIND: (&str, &str) = ("networking.k8s.io/v1", "ServiceCIDR");
    let cluster = Cluster::start(0, Grace::default()).await;
    let condition = async |name: &str, status: &str, reason: &str| {
        cluster
            .wait("what the range says", async |cluster| {
                let found = cluster.get(KIND.0, KIND.1, "", name).await.unwrap();
                let ready = &found["status"]["conditions"][0];
                ((text(ready, "/status"), text(ready, "/reason")) == (status, reason), found.clone())
            })
            .await
    };
    condition("kubernetes", "True", "").await;
    let range = json!({"apiVersion": KIND.0, "kind": KIND.1, "metadata": {"name": "more"}, "spec": {"cidrs": ["10.100.0.0/24"]}});
    cluster.create(&range).await;
    let ready = condition("more", "True", "").await;
    assert_eq!(ready["metadata"]["finalizers"], json!(["networking.k8s.io/service-cidr-finalizer"]));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"clusterIP": "10.100.0.9", "ports": [{"port": 80}]}});
    cluster.create(&service).await;

    cluster.delete(KIND.0, KIND.1, "", "more", DeleteParams::default()).await;
    condition("more", "False", "Terminating").await;
    cluster.delete("v1", "Service", "default", "a", DeleteParams::default()).await;
    cluster
        .wait("the range gone", async |cluster| {
            let found = cluster.get(KIND.0, KIND.1, "", "more").await;
            (found.is_none(), found)
        })
        .await;
    cluster.stop().await;
}
