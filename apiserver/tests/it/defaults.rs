//! What is filled in and what is dropped when an object is read: upstream's defaults and conversions of v1.36.

use crate::harness::{Client, Harness};
use http::StatusCode;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn made(client: &Client, path: &str, object: &Value) -> Value {
    let (code, made) = client.post(path, object).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    made
}

fn workload(name: &str, pod: Value) -> Value {
    let labels = json!({"app": name});
    json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}})
}

#[tokio::test]
async fn amounts_are_rounded_up_to_thousandths() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let fine = json!({"limits": {"cpu": "1.0005", "memory": "1Gi"}, "requests": {"cpu": "0.0001"}});
    let rounded = json!({"limits": {"cpu": "1001m", "memory": "1Gi"}, "requests": {"cpu": "1m", "memory": "1Gi"}});
    let container = json!({"name": "c", "image": "i", "resources": fine});
    let pod = made(&client, PODS, &json!({"metadata": {"name": "a"}, "spec": {"containers": [container]}})).await;
    assert_eq!(pod["spec"]["containers"][0]["resources"], rounded);
    for (path, object, at, amount) in [
        (
            "/api/v1/namespaces/default/persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1.0001"}}}}),
            "/spec/resources/requests/storage",
            "1001m",
        ),
        (
            "/api/v1/persistentvolumes",
            json!({"spec": {"capacity": {"storage": "1.0001"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"}}}),
            "/spec/capacity/storage",
            "1001m",
        ),
        (
            "/api/v1/namespaces/default/limitranges",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "100u"}}]}}),
            "/spec/limits/0/default/cpu",
            "1m",
        ),
        (
            "/api/v1/namespaces/default/resourcequotas",
            json!({"spec": {"hard": {"cpu": "100u"}}}),
            "/spec/hard/cpu",
            "1m",
        ),
        ("/api/v1/nodes", json!({"status": {"capacity": {"cpu": "100u"}}}), "/status/allocatable/cpu", "1m"),
        (
            "/apis/node.k8s.io/v1/runtimeclasses",
            json!({"handler": "h", "overhead": {"podFixed": {"cpu": "100u"}}}),
            "/overhead/podFixed/cpu",
            "1m",
        ),
    ] {
        let mut object = object;
        object["metadata"] = json!({"name": "a"});
        let made = made(&client, &format!("{path}?dryRun=All"), &object).await;
        assert_eq!(made.pointer(at), Some(&json!(amount)), "{path}: {made}");
    }
}

#[tokio::test]
async fn jobs_say_that_their_selector_is_the_servers() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let pod = json!({"restartPolicy": "Never", "hostNetwork": true,
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]});
    let manifest = json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": pod}}});
    let job = made(&client, JOBS, &manifest).await;
    assert_eq!(job["spec"]["manualSelector"], false);
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["ports"][0].get("hostPort"), None);
    assert_eq!(job["metadata"]["labels"]["job-name"], "a");
    // One that a client keeps as it was filled in once is the same; another port is not.
    let path = format!("{JOBS}/a");
    let mut kept = job.clone();
    kept["metadata"]["resourceVersion"].take();
    let port = |number: i64| json!({"containerPort": 80, "hostPort": number, "protocol": "TCP"});
    for (number, code) in [(80, StatusCode::OK), (81, StatusCode::UNPROCESSABLE_ENTITY)] {
        kept["spec"]["template"]["spec"]["containers"][0]["ports"][0] = port(number);
        assert_eq!(client.put(&path, &kept).await.0, code, "{number}");
    }
    let mut back = job;
    back["metadata"]["resourceVersion"].take();
    assert_eq!(client.put(&path, &back).await.0, StatusCode::OK, "and without it again");
}

#[tokio::test]
async fn claims_of_stateful_sets_are_claims_whatever_they_say() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut set = workload("a", json!({"containers": [{"name": "c", "image": "i"}]}));
    set["spec"]["volumeClaimTemplates"] = json!([{"apiVersion": "x/v9", "kind": "Y", "metadata": {"name": "d"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    let claim = |set: &Value| {
        let claim = &set["spec"]["volumeClaimTemplates"][0];
        (claim["apiVersion"].clone(), claim["kind"].clone())
    };
    let wanted = (json!("v1"), json!("PersistentVolumeClaim"));
    assert_eq!(claim(&made(&client, SETS, &set).await), wanted);
    set["spec"]["volumeClaimTemplates"][0]["kind"] = "Z".into();
    let (code, answer) = client.put(&format!("{SETS}/a"), &set).await;
    assert_eq!((code, claim(&answer)), (StatusCode::OK, wanted));
}

#[tokio::test]
async fn annotations_that_were_fields_are_numbers() {
    let harness = Harness::start().await;
    let client = harness.admin();
    const ROLLBACK: &str = "deprecated.deployment.rollback.to";
    const GENERATION: &str = "deprecated.daemonset.template.generation";
    let noted = |key: &str, value: &str| {
        let mut object = workload("a", json!({"containers": [{"name": "c", "image": "i"}]}));
        object["metadata"]["annotations"] = json!({key: value});
        object
    };
    for (given, kept) in [("007", json!("7")), ("", Value::Null), ("-3", json!("-3"))] {
        let made = made(&client, &format!("{DEPLOYMENTS}?dryRun=All"), &noted(ROLLBACK, given)).await;
        assert_eq!(made["metadata"]["annotations"][ROLLBACK], kept, "{given}");
    }
    for (path, key, given, why) in [
        (
            DEPLOYMENTS,
            ROLLBACK,
            "x",
            "Deployment in version \"v1\" cannot be handled as a Deployment: failed to parse annotation[deprecated.deployment.rollback.to]=x as int64: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "/apis/apps/v1/namespaces/default/daemonsets",
            GENERATION,
            "9223372036854775808",
            "DaemonSet in version \"v1\" cannot be handled as a DaemonSet: strconv.ParseInt: parsing \"9223372036854775808\": value out of range",
        ),
        (
            "/apis/apps/v1/namespaces/default/daemonsets",
            GENERATION,
            "",
            "DaemonSet in version \"v1\" cannot be handled as a DaemonSet: strconv.ParseInt: parsing \"\": invalid syntax",
        ),
    ] {
        let (code, told) = client.post(path, &noted(key, given)).await;
        assert_eq!((code, told["message"].as_str()), (StatusCode::BAD_REQUEST, Some(why)));
    }
}

#[tokio::test]
async fn small_things_are_filled_in_or_dropped() {
    let harness = Harness::start().await;
    let client = harness.admin();
    // A status of a namespace that tells no phase.
    made(&client, "/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    let told = json!({"metadata": {"name": "n"}, "status": {}});
    let (code, answer) = client.put("/api/v1/namespaces/n/status", &told).await;
    assert_eq!((code, &answer["status"]["phase"]), (StatusCode::OK, &json!("Active")));
    // Autoscalers of v2 have fields for what those of v1 keep in annotations.
    let scaler = json!({"metadata": {"name": "a", "annotations": {"autoscaling.alpha.kubernetes.io/behavior": "{}", "a": "b"}},
        "spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let made = made(&client, "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", &scaler).await;
    assert_eq!(made["metadata"]["annotations"], json!({"a": "b"}));
    // What a claim is filled from is in its own namespace when that is empty.
    let from = json!({"apiGroup": "a.io", "kind": "K", "name": "n", "namespace": ""});
    let claim = json!({"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"], "dataSourceRef": from,
        "resources": {"requests": {"storage": "1Gi"}}}});
    let (_, claim) = client.post("/api/v1/namespaces/default/persistentvolumeclaims", &claim).await;
    assert_eq!(claim["spec"]["dataSource"], json!({"apiGroup": "a.io", "kind": "K", "name": "n"}), "{claim}");
}

/// Its strategy upstream knows no status.
#[tokio::test]
async fn the_status_of_a_range_is_written_with_it() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/networking.k8s.io/v1/servicecidrs";
    let condition = |status: &str| json!({"conditions": [{"type": "Ready", "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let range = json!({"metadata": {"name": "a"}, "spec": {"cidrs": ["10.7.0.0/24"]}, "status": condition("False")});
    assert_eq!(made(&client, path, &range).await["status"], condition("False"));
    let (_, now) = client.merge(&format!("{path}/a"), &json!({"status": condition("True")})).await;
    assert_eq!(now["status"], condition("True"));
    let mut plain = json!({"metadata": {"name": "b"}, "spec": {"cidrs": ["10.8.0.0/24"]}});
    assert_eq!(made(&client, path, &plain).await["status"], json!({}));
    plain["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(client.put(&format!("{path}/b"), &plain).await.1["status"], json!({}));
}
