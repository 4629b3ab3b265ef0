//! What becomes of fields that hold nothing. What is expected is what kube-apiserver answers (1.20), but for the times of
//! creation that v1.36 leaves out.

use crate::harness::{Client, Harness};
use coracle_apiserver::http::protobuf::{MEDIA_TYPE, encode};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {}, "annotations": {"a": ""}}, "spec": {
        "paused": false, "minReadySeconds": 0, "replicas": 0, "selector": {"matchLabels": {"a": "b"}, "matchExpressions": []},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"hostNetwork": false, "enableServiceLinks": false, "nodeSelector": {},
            "containers": [{"name": "c", "image": "i", "env": [], "tty": false, "stdin": true, "workingDir": "",
                "securityContext": {"privileged": false, "capabilities": {}}}],
            "volumes": [{"name": "v", "emptyDir": {}}]}}}})
}

/// As it is answered.
fn expected() -> Value {
    json!({
        "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"enableServiceLinks": false,
            "containers": [{"name": "c", "image": "i", "stdin": true, "resources": {}, "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "securityContext": {"privileged": false, "capabilities": {}}}],
            "volumes": [{"name": "v", "emptyDir": {}}], "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulerName": "default-scheduler"}}})
}

async fn apply(client: &Client, path: &str, object: &Value) -> (StatusCode, Value) {
    client.send(Method::PATCH, &format!("{path}?fieldManager=m"), APPLY, object.to_string()).await
}

#[tokio::test]
async fn every_way_of_writing_leaves_out_what_holds_nothing() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (code, created) = client.post(DEPLOYMENTS, &deployment()).await;
    assert_eq!((code, &created["spec"], &created["status"]), (StatusCode::CREATED, &expected(), &json!({})));
    let metadata = created["metadata"].as_object().unwrap();
    assert_eq!((metadata.get("labels"), &metadata["annotations"]), (None, &json!({"a": ""})));
    let owned = &created["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert_eq!((owned.get("f:paused"), &owned["f:replicas"]), (None, &json!({})));
    assert_eq!(owned["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"]["f:resources"], json!({}));

    // A client in Go gives back what its structures hold.
    let path = format!("{DEPLOYMENTS}/a");
    let mut same = created.clone();
    same["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
    same["spec"]["paused"] = false.into();
    let (code, put) = client.put(&path, &same).await;
    assert_eq!((code, put), (StatusCode::OK, created.clone()));
    for (kind, patch) in [
        ("application/merge-patch+json", json!({"spec": {"paused": false, "minReadySeconds": 0}})),
        (
            "application/strategic-merge-patch+json",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": []}]}}}}),
        ),
        (
            "application/json-patch+json",
            json!([{"op": "add", "path": "/spec/paused", "value": false}, {"op": "remove", "path": "/status"}]),
        ),
    ] {
        let (code, patched) = client.send(Method::PATCH, &path, kind, patch.to_string()).await;
        assert_eq!((code, patched), (StatusCode::OK, created.clone()), "{kind}");
    }
    let stored = encode(&deployment().into()).unwrap();
    client.delete(&path).await;
    let (code, created) = client.send(Method::POST, DEPLOYMENTS, MEDIA_TYPE, stored).await;
    assert_eq!((code, &created["spec"]), (StatusCode::CREATED, &expected()));
}

#[tokio::test]
async fn what_is_applied_is_owned_also_where_it_holds_nothing() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = format!("{DEPLOYMENTS}/a");
    let mut applied = deployment();
    applied["metadata"] = json!({"name": "a"});
    for code in [StatusCode::CREATED, StatusCode::OK] {
        let (answered, object) = apply(&client, &path, &applied).await;
        assert_eq!((answered, &object["spec"]), (code, &expected()));
        assert_eq!(object["metadata"]["generation"], 1);
        let owned = &object["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
        assert_eq!((&owned["f:paused"], &owned["f:minReadySeconds"]), (&json!({}), &json!({})));
    }
    // Whoever says something else of it has to force.
    let other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"paused": true}});
    let (code, _) = client.send(Method::PATCH, &format!("{path}?fieldManager=n"), APPLY, other.to_string()).await;
    assert_eq!(code, StatusCode::CONFLICT);
}

#[tokio::test]
async fn what_go_always_writes_is_there() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let rows = [
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({"metadata": {"name": "a"}, "rules": []}),
            json!({"rules": null}),
        ),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles", json!({"metadata": {"name": "b"}}), json!({"rules": null})),
        (
            "/api/v1/namespaces/default/services",
            json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}]}}),
            json!({"status": {"loadBalancer": {}}}),
        ),
        (
            "/api/v1/namespaces/default/events",
            json!({"metadata": {"name": "a"}, "involvedObject": {"namespace": "default"}}),
            json!({"firstTimestamp": null, "lastTimestamp": null, "eventTime": null, "source": {}, "reportingComponent": "",
                "reportingInstance": "", "involvedObject": {"namespace": "default"}}),
        ),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            json!({"metadata": {"name": "a"}, "spec": {"maxUnavailable": 0}}),
            json!({"spec": {"maxUnavailable": 0}, "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}}),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            json!({"metadata": {"name": "a"}, "spec": {"ingress": [{}], "egress": []}}),
            json!({"spec": {"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"]}}),
        ),
        (
            "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
            json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "a/v1", "kind": "A", "name": "a"}}}),
            json!({"status": {"currentReplicas": 0, "desiredReplicas": 0}}),
        ),
        (
            "/api/v1/namespaces/default/configmaps",
            json!({"metadata": {"name": "a"}, "data": {"a": ""}, "binaryData": {}}),
            json!({"data": {"a": ""}}),
        ),
        (
            "/api/v1/namespaces/default/limitranges",
            json!({"metadata": {"name": "a"}}),
            json!({"spec": {"limits": null}}),
        ),
        (
            "/api/v1/nodes",
            json!({"metadata": {"name": "a"}, "spec": {"unschedulable": false}}),
            json!({"status": {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}, "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "",
            "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "",
            "operatingSystem": "", "architecture": ""}}}),
        ),
    ];
    for (path, object, expected) in rows {
        let (code, created) = client.post(path, &object).await;
        assert_eq!(code, StatusCode::CREATED, "{path}: {created}");
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(created.get(field), Some(value), "{path}: {field}");
        }
        for field in ["binaryData", "aggregationRule"] {
            assert_eq!(created.get(field), None, "{path}");
        }
    }
    let (_, v2) = client.get("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/a").await;
    assert_eq!(v2["status"], json!({"desiredReplicas": 0, "currentMetrics": null}));
    let (_, event) = client.get("/apis/events.k8s.io/v1/namespaces/default/events/a").await;
    assert_eq!(
        (event.get("reportingController"), event.get("eventTime"), &event["deprecatedSource"]),
        (None, Some(&Value::Null), &json!({}))
    );
}

#[tokio::test]
async fn the_status_of_a_pod_tells_times_that_are_not_known() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let pods = "/api/v1/namespaces/default/pods";
    client.post(pods, &crate::harness::pod("a")).await;
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "message": ""}], "podIPs": [],
        "containerStatuses": [{"name": "c", "ready": false, "image": "i", "state": {"waiting": {"reason": ""}}}]}});
    let (code, pod) = client.merge(&format!("{pods}/a/status"), &patch).await;
    assert_eq!(code, StatusCode::OK, "{pod}");
    let condition = json!({"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": null});
    assert_eq!(pod["status"]["conditions"], json!([condition]));
    let container = json!({"name": "c", "ready": false, "image": "i", "imageID": "", "restartCount": 0,
        "state": {"waiting": {}}, "lastState": {}});
    assert_eq!((&pod["status"]["containerStatuses"], pod["status"].get("podIPs")), (&json!([container]), None));
    let owned = &pod["metadata"]["managedFields"][1]["fieldsV1"]["f:status"]["f:conditions"]["k:{\"type\":\"Ready\"}"];
    assert_eq!(
        owned,
        &json!({".": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}, "f:status": {}, "f:type": {}})
    );
}
