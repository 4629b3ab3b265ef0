//! Parts of objects that are written apart: what kube-apiserver 1.20.2 answered, and upstream's sources of v1.36 where they differ.

use crate::harness::{Client, Harness, pod};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const NOBODY: &str = "6e0ed5b2-0000-4000-8000-000000000000";

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

async fn send(client: &Client, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
    let method: Method = method.parse().unwrap();
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    client.send(method, path, kind, body.to_string()).await
}

#[tokio::test]
async fn subresources_take_no_other_verbs() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    client.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    for (path, refused) in [
        (format!("{PODS}/a/binding"), &["GET", "PUT", "PATCH", "DELETE"][..]),
        (format!("{PODS}/a/eviction"), &["GET", "PUT", "PATCH", "DELETE"]),
        (format!("{account}/token"), &["GET", "PUT", "PATCH", "DELETE"]),
        ("/api/v1/namespaces/default/finalize".to_owned(), &["GET", "POST", "PATCH", "DELETE"]),
        (format!("{PODS}/a/status"), &["POST", "DELETE"]),
        (format!("{PODS}/a/resize"), &["POST", "DELETE"]),
    ] {
        for method in refused {
            let (code, answer) = send(&client, method, &path, &json!({"metadata": {"name": "a"}})).await;
            assert_eq!(code, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_binding_is_of_the_pod_in_its_path() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let place = json!({"topology.kubernetes.io/zone": "z1", "topology.kubernetes.io/region": "r1", "other": "x"});
    client.post("/api/v1/nodes", &json!({"metadata": {"name": "n1", "labels": place}})).await;
    let mut waits = pod("a");
    waits["metadata"]["labels"] = json!({"app": "a", "topology.kubernetes.io/zone": "own"});
    client.post(PODS, &waits).await;
    let nominated = json!({"status": {"nominatedNodeName": "n2", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}, {"type": "Other", "status": "True"}]}});
    client.merge(&format!("{PODS}/a/status"), &nominated).await;
    client.merge(&format!("{PODS}/a"), &json!({"spec": {"activeDeadlineSeconds": 100}})).await;
    let binding = |metadata: Value, target: Value| json!({"metadata": metadata, "target": target});
    let (named, node) = (json!({"name": "a"}), json!({"kind": "Node", "name": "n1"}));
    let (_, found) = client.get(&format!("{PODS}/a")).await;
    let uid = found["metadata"]["uid"].as_str().unwrap().to_owned();
    let stale = |what: &str, asked: &str, is: &str| {
        format!(
            "Operation cannot be fulfilled on pods \"a\": StorageError: invalid object, Code: 4, Key: /registry/pods/default/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {what} in precondition: {asked}, {what} in object meta: {is}"
        )
    };
    let other_name = "name in URL does not match name in Binding object";
    let kinds = "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"";
    for (body, code, why) in [
        (json!({}), 400, other_name.to_owned()),
        (binding(json!({}), node.clone()), 400, other_name.to_owned()),
        (binding(json!({"name": "b"}), node.clone()), 400, other_name.to_owned()),
        (
            binding(json!({"name": "a", "namespace": "other"}), node.clone()),
            400,
            "the namespace of the provided object does not match the namespace sent on the request".to_owned(),
        ),
        (binding(named.clone(), json!({})), 500, "target.name: Required value".to_owned()),
        (binding(named.clone(), json!({"kind": "Pod", "name": "x"})), 500, kinds.to_owned()),
        (binding(named.clone(), json!({"kind": "Pod"})), 500, format!("[{kinds}, target.name: Required value]")),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": named}),
            400,
            "Pod in version \"v1\" cannot be handled as a Binding: converting (v1.Pod) to (core.Binding): unknown conversion".to_owned(),
        ),
        (binding(json!({"name": "a", "uid": NOBODY}), node.clone()), 409, stale("UID", NOBODY, &uid)),
    ] {
        let (got, answer) = client.post(&format!("{PODS}/a/binding"), &body).await;
        assert_eq!((got.as_u16(), message(&answer)), (code, why.as_str()), "{body}");
    }
    let (code, answer) = client.post("/api/v1/namespaces/default/bindings", &binding(json!({}), node.clone())).await;
    assert_eq!((code, message(&answer)), (StatusCode::BAD_REQUEST, "Name parameter required."));

    let full = json!({"name": "a", "uid": uid, "annotations": {"k": "v"}, "labels": {"l": "w", "app": "over"}});
    let (code, answer) = client.post(&format!("{PODS}/a/binding"), &binding(full, node)).await;
    assert_eq!((code, &answer["code"]), (StatusCode::CREATED, &json!(201)));
    let (_, bound) = client.get(&format!("{PODS}/a")).await;
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["metadata"]["annotations"], json!({"k": "v"}));
    // The binding's labels count, and it gets what tells of the node's place.
    let labels =
        json!({"app": "over", "l": "w", "topology.kubernetes.io/zone": "z1", "topology.kubernetes.io/region": "r1"});
    assert_eq!(bound["metadata"]["labels"], labels);
    assert_eq!(bound["status"]["nominatedNodeName"], Value::Null);
    let conditions = bound["status"]["conditions"].as_array().unwrap();
    let told: Vec<_> = conditions.iter().map(|one| (&one["type"], &one["status"], &one["reason"])).collect();
    assert_eq!(
        told[0],
        (&json!("PodScheduled"), &json!("True"), &Value::Null),
        "in its place, and without the old reason"
    );
    assert_eq!((&bound["metadata"]["generation"], &conditions[0]["observedGeneration"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn a_pod_that_is_made_on_a_node_tells_its_place() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let place = json!({"topology.kubernetes.io/zone": "z1", "topology.kubernetes.io/region": "r1"});
    client.post("/api/v1/nodes", &json!({"metadata": {"name": "n1", "labels": place}})).await;
    // Admission looks at what the server has seen, as upstream's does: reading the node waits for that.
    client.get("/api/v1/nodes/n1").await;
    for (name, node, zone, region) in [("a", "n1", json!("own"), json!("r1")), ("b", "gone", json!("own"), Value::Null)]
    {
        let mut made = pod(name);
        made["metadata"]["labels"]["topology.kubernetes.io/zone"] = "own".into();
        made["spec"]["nodeName"] = node.into();
        let (_, made) = client.post(PODS, &made).await;
        let label = |name: &str| made["metadata"]["labels"][format!("topology.kubernetes.io/{name}")].clone();
        assert_eq!((label("zone"), label("region")), (zone, region), "{made}");
    }
}

/// A pod on a node that runs, ready or not.
async fn running(client: &Client, name: &str, ready: &str) {
    let mut made = pod(name);
    made["metadata"]["labels"] = json!({"app": "x"});
    made["spec"]["nodeName"] = "n1".into();
    client.post(PODS, &made).await;
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    assert_eq!(client.merge(&format!("{PODS}/{name}/status"), &status).await.0, StatusCode::OK);
}

fn eviction(name: &str) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}})
}

#[tokio::test]
async fn a_budget_says_why_it_refuses() {
    let harness = Harness::start().await;
    let client = harness.admin();
    running(&client, "a", "True").await;
    running(&client, "unready", "False").await;
    const BUSY: &str = "The disruption budget b is still being processed by the server.";
    let needs = |desired: u8, healthy: u8| {
        format!("The disruption budget b needs {desired} healthy pods and has {healthy} currently")
    };
    let told = |reason: &str| json!([{"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": "hm", "lastTransitionTime": "2020-01-01T00:00:00Z"}]);
    let status = |observed: u8, allowed: i8, healthy: u8, desired: u8| json!({"observedGeneration": observed, "disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": 3});
    let with = |mut status: Value, conditions: Value| {
        status["conditions"] = conditions;
        status
    };
    let (none, always) = (json!({}), json!({"unhealthyPodEvictionPolicy": "AlwaysAllow"}));
    for (spec, status, pod, code, retry, why) in [
        (&none, json!({}), "a", 429, 10, BUSY.to_owned()),
        (&none, status(0, 1, 1, 1), "a", 429, 10, BUSY.to_owned()),
        (&none, status(1, 0, 1, 1), "a", 429, 0, needs(1, 1)),
        (
            &none,
            status(1, 0, 3, 1),
            "a",
            429,
            0,
            "The disruption budget b does not allow evicting pods currently".to_owned(),
        ),
        (
            &none,
            with(status(1, 0, 3, 1), told("Hm")),
            "a",
            429,
            0,
            "The disruption budget b does not allow evicting pods currently (Hm): hm".to_owned(),
        ),
        (
            &none,
            with(status(1, 0, 1, 1), told("SyncFailed")),
            "a",
            429,
            0,
            "The disruption budget b does not allow evicting pods currently because it failed sync: hm".to_owned(),
        ),
        (&none, status(1, 1, 1, 1), "a", 201, 0, String::new()),
        // One that is not ready is not counted while enough are, or where the budget says so.
        (&none, status(1, 0, 1, 1), "unready", 201, 0, String::new()),
        (&none, status(1, 0, 0, 1), "unready", 429, 0, needs(1, 0)),
        (&none, status(1, 0, 0, 0), "unready", 429, 0, needs(0, 0)),
        (&always, status(1, 0, 0, 1), "unready", 201, 0, String::new()),
    ] {
        let mut budget =
            json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
        budget["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        assert_eq!(client.post(BUDGETS, &budget).await.0, StatusCode::CREATED);
        client.merge(&format!("{BUDGETS}/b/status"), &json!({"status": status})).await;
        let (got, answer) = client.post(&format!("{PODS}/{pod}/eviction?dryRun=All"), &eviction(pod)).await;
        let cause = answer["details"]["causes"][0]["message"].as_str().unwrap_or_default();
        let after = answer["details"]["retryAfterSeconds"].as_i64().unwrap_or(0);
        assert_eq!((got.as_u16(), cause, after), (code, why.as_str(), retry), "{status}: {answer}");
        client.delete(&format!("{BUDGETS}/b")).await;
    }
}

#[tokio::test]
async fn an_eviction_is_told_on_the_pod_and_counted_in_its_budget() {
    let harness = Harness::start().await;
    let client = harness.admin();
    running(&client, "a", "True").await;
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {}}});
    let (_, made) = client.post(BUDGETS, &budget).await;
    let blank = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
    assert_eq!(made["status"], blank);
    let status = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1});
    client.merge(&format!("{BUDGETS}/b/status"), &json!({"status": status})).await;
    for body in [json!({}), eviction(""), eviction("b")] {
        let (code, answer) = client.post(&format!("{PODS}/a/eviction"), &body).await;
        assert_eq!(
            (code, message(&answer)),
            (StatusCode::BAD_REQUEST, "name in URL does not match name in Eviction object")
        );
    }
    let (code, answer) = client.post(&format!("{PODS}/a/eviction"), &eviction("a")).await;
    assert_eq!((code, &answer["code"]), (StatusCode::CREATED, &json!(201)), "{answer}");
    let (_, going) = client.get(&format!("{PODS}/a")).await;
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let told = going["status"]["conditions"].as_array().unwrap().last().unwrap();
    let words = ["type", "status", "reason", "message"].map(|field| told[field].as_str().unwrap());
    assert_eq!(words, ["DisruptionTarget", "True", "EvictionByEvictionAPI", "Eviction API: evicting"]);
    // What was seen is the pod before it was asked to end, which is a generation of its own.
    let generation = going["metadata"]["generation"].as_i64().unwrap();
    assert_eq!((told["observedGeneration"].as_i64(), generation), (Some(1), 2));
    let (_, counted) = client.get(&format!("{BUDGETS}/b")).await;
    assert_eq!(counted["status"]["disruptionsAllowed"], 0);
    assert!(counted["status"]["disruptedPods"]["a"].is_string());
    let condition = &counted["status"]["conditions"][0];
    assert_eq!(
        [&condition["type"], &condition["status"], &condition["reason"]],
        ["DisruptionAllowed", "False", "InsufficientPods"]
    );
    let owner = counted["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["manager"] == "kube-apiserver");
    let owned = owner.unwrap_or_else(|| panic!("{counted}"));
    assert_eq!(owned["subresource"], "status");
    assert!(owned.pointer("/fieldsV1/f:status/f:disruptedPods/f:a").is_some(), "{owned}");
    client.post(BUDGETS, &json!({"metadata": {"name": "c"}, "spec": {"minAvailable": 1, "selector": {}}})).await;
    running(&client, "d", "True").await;
    let (code, answer) = client.post(&format!("{PODS}/d/eviction"), &eviction("d")).await;
    let twice = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    assert_eq!((code.as_u16(), message(&answer), &answer["reason"]), (500, twice, &Value::Null));
}

#[tokio::test]
async fn a_namespace_is_finalized_with_its_metadata() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/api/v1/namespaces/n";
    let made = json!({"metadata": {"name": "n", "labels": {"a": "b"}, "finalizers": ["example.com/f"]}});
    client.post("/api/v1/namespaces", &made).await;
    let (code, answer) = client
        .put(&format!("{path}/finalize"), &json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["Bad_", "x"]}}))
        .await;
    let fields: Vec<_> =
        answer["details"]["causes"].as_array().unwrap().iter().map(|cause| cause["field"].clone()).collect();
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        fields.contains(&json!("spec.finalizers[0]")) && fields.contains(&json!("spec.finalizers[1]")),
        "{fields:?}"
    );
    let whole = json!({"metadata": {"name": "n", "labels": {"q": "r"}, "finalizers": ["example.com/f"]},
        "spec": {"finalizers": ["example.com/g", "kubernetes"]}, "status": {"phase": "Terminating"}});
    let (code, answer) = client.put(&format!("{path}/finalize"), &whole).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(answer["metadata"]["labels"], json!({"q": "r", "kubernetes.io/metadata.name": "n"}));
    assert_eq!(
        (&answer["spec"]["finalizers"], &answer["status"]["phase"]),
        (&json!(["example.com/g", "kubernetes"]), &json!("Active"))
    );
    let (_, going) = client.delete(path).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], Value::Null, "{going}");
    assert!(going["metadata"]["deletionTimestamp"].is_string(), "{going}");
    let (code, answer) = client.put(&format!("{path}/finalize"), &json!({"metadata": {"name": "n"}, "spec": {}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(client.get(path).await.0, StatusCode::NOT_FOUND, "the metadata's finalizers went with the others");
}

#[tokio::test]
async fn a_token_is_of_the_account_in_its_path() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let (_, account) = client.post(accounts, &json!({"metadata": {"name": "a"}})).await;
    client.post("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": "s"}})).await;
    client.post(PODS, &pod("p")).await;
    let bound = |kind: &str, version: &str, name: &str| json!({"spec": {"boundObjectRef": {"kind": kind, "apiVersion": version, "name": name}}});
    let mut secret = bound("Secret", "v1", "s");
    secret["spec"]["boundObjectRef"]["uid"] = NOBODY.into();
    let known = account["metadata"]["uid"].as_str().unwrap();
    for (body, code, why) in [
        (json!({"metadata": {"name": "b"}}), 422, "TokenRequest.authentication.k8s.io \"a\" is invalid: metadata.name: Invalid value: \"b\": must match the service account name if specified".to_owned()),
        (json!({"metadata": {"namespace": "b"}}), 400, "the namespace of the provided object does not match the namespace sent on the request".to_owned()),
        (json!({"metadata": {"uid": NOBODY}}), 409, format!("Operation cannot be fulfilled on TokenRequest.authentication.k8s.io \"a\": the UID in the token request ({NOBODY}) does not match the UID of the service account ({known})")),
        (json!({"spec": {"expirationSeconds": 1}}), 422, "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes".to_owned()),
        (bound("ConfigMap", "v1", "c"), 400, "cannot bind token to object of type /v1, Kind=ConfigMap".to_owned()),
        (bound("Deployment", "apps/v1", "c"), 400, "cannot bind token to object of type apps/v1, Kind=Deployment".to_owned()),
        (bound("Pod", "", "p"), 400, "cannot bind token for serviceaccount \"a\" to pod running with different serviceaccount name.".to_owned()),
        (secret, 409, format!("Operation cannot be fulfilled on Secret \"s\": the UID in the bound object reference ({NOBODY}) does not match the UID in record. The object might have been deleted and then recreated")),
    ] {
        let (got, answer) = client.post(&format!("{accounts}/a/token"), &body).await;
        assert_eq!((got.as_u16(), message(&answer)), (code, why.as_str()), "{body}");
    }
    let (code, answer) =
        client.post(&format!("{accounts}/a/token"), &json!({"metadata": {"labels": {"l": "v"}}})).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let metadata = &answer["metadata"];
    assert_eq!([&metadata["name"], &metadata["namespace"], &metadata["uid"]], ["a", "default", known]);
    assert_eq!(metadata["labels"], json!({"l": "v"}));
}

/// What of the metadata goes with the status is the kind's own matter.
#[tokio::test]
async fn metadata_through_status() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let workload = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let storage = json!({"storage": "1Gi"});
    let all = ["labels", "annotations", "finalizers", "ownerReferences"];
    for (path, spec, taken) in [
        (PODS, json!({"containers": [{"name": "c", "image": "i"}]}), &["labels", "annotations", "finalizers"][..]),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            workload.clone(),
            &["annotations", "finalizers", "ownerReferences"],
        ),
        ("/apis/apps/v1/namespaces/default/replicasets", workload, &all),
        (
            "/api/v1/namespaces/default/persistentvolumeclaims",
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": storage}}),
            &all,
        ),
        (
            "/api/v1/persistentvolumes",
            json!({"capacity": storage, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"}}),
            &all,
        ),
        ("/api/v1/namespaces/default/services", json!({"ports": [{"port": 80}]}), &all),
        ("/api/v1/namespaces/default/resourcequotas", json!({"hard": {"pods": "1"}}), &all),
        ("/api/v1/nodes", json!({}), &all),
        (
            "/apis/storage.k8s.io/v1/volumeattachments",
            json!({"attacher": "a.b", "nodeName": "n", "source": {"persistentVolumeName": "v"}}),
            &[],
        ),
    ] {
        let (code, made) =
            client.post(path, &json!({"metadata": {"name": "o", "labels": {"l": "v"}}, "spec": spec})).await;
        assert_eq!(code, StatusCode::CREATED, "{path}: {made}");
        let mut wanted = made.clone();
        let given = json!({"labels": {"q": "r"}, "annotations": {"q": "r"}, "finalizers": ["example.com/f"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]});
        wanted["metadata"].as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
        let (code, answer) = client.put(&format!("{path}/o/status?fieldManager=st"), &wanted).await;
        assert_eq!(code, StatusCode::OK, "{path}: {answer}");
        for field in all {
            let expected = if taken.contains(&field) { &given[field] } else { &made["metadata"][field] };
            assert_eq!(&answer["metadata"][field], expected, "{path}: {field}");
        }
        let entries = answer["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let owned =
            entries.iter().find(|entry| entry["manager"] == "st").map(|entry| entry["fieldsV1"]["f:metadata"].clone());
        let owned: Vec<String> = owned
            .as_ref()
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, _)| name[2..].to_owned())
            .collect();
        let mut expected: Vec<&str> = taken.to_vec();
        expected.sort_unstable();
        assert_eq!(owned, expected, "{path}");
    }
}

/// Numbers and texts that upstream's types write though they are nothing.
#[tokio::test]
async fn a_status_is_never_without_its_numbers() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let workload = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let attachment = json!({"attacher": "a.b", "nodeName": "n", "source": {"persistentVolumeName": "v"}});
    let storage = json!({"storage": "1Gi"});
    for (path, spec, blank) in [
        ("/apis/apps/v1/namespaces/default/replicasets", workload.clone(), json!({"replicas": 0})),
        (
            "/apis/apps/v1/namespaces/default/statefulsets",
            workload.clone(),
            json!({"replicas": 0, "availableReplicas": 0}),
        ),
        (
            "/apis/apps/v1/namespaces/default/daemonsets",
            workload.clone(),
            json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}),
        ),
        ("/apis/apps/v1/namespaces/default/deployments", workload, json!({})),
        (
            BUDGETS,
            json!({"minAvailable": 1}),
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}),
        ),
        (
            "/api/v1/namespaces/default/persistentvolumeclaims",
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": storage}}),
            json!({"phase": "Pending"}),
        ),
        ("/apis/storage.k8s.io/v1/volumeattachments", attachment, json!({"attached": false})),
    ] {
        let (code, made) = client.post(path, &json!({"metadata": {"name": "o"}, "spec": spec})).await;
        assert_eq!((code, &made["status"]), (StatusCode::CREATED, &blank), "{path}: {made}");
        let mut without = made.clone();
        without.as_object_mut().unwrap().remove("status");
        let (code, answer) = client.put(&format!("{path}/o/status"), &without).await;
        assert_eq!((code, &answer["status"]), (StatusCode::OK, &blank), "{path}: {answer}");
    }
    client.post("/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await;
    let (_, node) = client.get("/api/v1/nodes/n").await;
    assert_eq!(node["status"]["daemonEndpoints"], json!({"kubeletEndpoint": {"Port": 0}}));
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "");
    client.post(PODS, &pod("p")).await;
    for (given, shown) in [
        (json!({"podIP": "1.2.3.4"}), ("1.2.3.4", json!([{"ip": "1.2.3.4"}]))),
        (json!({"podIP": "1.2.3.5", "podIPs": [{"ip": "1.2.3.4"}]}), ("1.2.3.5", json!([{"ip": "1.2.3.5"}]))),
        (
            json!({"podIP": null, "podIPs": [{"ip": "1.2.3.6"}, {"ip": "fd00::1"}]}),
            ("1.2.3.6", json!([{"ip": "1.2.3.6"}, {"ip": "fd00::1"}])),
        ),
    ] {
        let (code, answer) = client.merge(&format!("{PODS}/p/status"), &json!({"status": given})).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
        assert_eq!((answer["status"]["podIP"].as_str().unwrap(), answer["status"]["podIPs"].clone()), shown);
    }
}

#[tokio::test]
async fn a_scale_is_of_the_object_in_its_path() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let (_, made) = client.post(path, &json!({"metadata": {"name": "d"}, "spec": spec})).await;
    for (missing, group) in [
        (format!("{path}/x"), "apps"),
        ("/api/v1/namespaces/default/replicationcontrollers/x".to_owned(), "autoscaling"),
    ] {
        let (code, answer) = client.get(&format!("{missing}/scale")).await;
        let resource = missing.rsplit('/').nth(1).unwrap();
        let why = format!("{resource}/scale.{group} \"x\" not found");
        assert_eq!((code, message(&answer)), (StatusCode::NOT_FOUND, why.as_str()));
    }
    let (code, answer) = client.merge(&format!("{path}/d/scale"), &json!({"metadata": {"name": "e"}})).await;
    let why = "the name of the object (e) does not match the name on the URL (d)";
    assert_eq!((code, message(&answer)), (StatusCode::BAD_REQUEST, why));
    let other = json!({"metadata": {"name": "d", "uid": NOBODY}, "spec": {"replicas": 3}});
    let uid = made["metadata"]["uid"].as_str().unwrap();
    for at in [format!("{path}/d/scale"), format!("{path}/d/status"), format!("{path}/d")] {
        let (code, answer) = client.put(&at, &other).await;
        let why = format!(
            "Operation cannot be fulfilled on deployments.apps \"d\": StorageError: invalid object, Code: 4, Key: /registry/deployments/default/d, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {NOBODY}, UID in object meta: {uid}"
        );
        assert_eq!((code, message(&answer)), (StatusCode::CONFLICT, why.as_str()), "{at}");
    }
    let (_, scaled) = client
        .put(&format!("{path}/d/scale?fieldManager=sc"), &json!({"metadata": {"name": "d"}, "spec": {"replicas": 3}}))
        .await;
    assert_eq!(scaled["spec"]["replicas"], 3);
    let (_, found) = client.get(&format!("{path}/d")).await;
    let entry =
        found["metadata"]["managedFields"].as_array().unwrap().iter().find(|entry| entry["manager"] == "sc").unwrap();
    assert_eq!((&entry["subresource"], &entry["fieldsV1"]), (&json!("scale"), &json!({"f:spec": {"f:replicas": {}}})));
}

#[tokio::test]
async fn a_budget_that_nobody_observes_is_counted_by_the_server() {
    use coracle_api::clock::{ManualClock, SystemClock};
    let clock = std::sync::Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let own = clock.clone();
    let store =
        coracle_apiserver::store::embedded::Embedded::in_memory(std::sync::Arc::new(SystemClock::new())).unwrap();
    let harness = Harness::with(std::sync::Arc::new(store), move |config, _| config.clock = own).await;
    let client = harness.admin();
    let template = json!({"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set = json!({"metadata": {"name": "w"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "w"}}, "template": template}});
    let (code, set) = client.post("/apis/apps/v1/namespaces/default/replicasets", &set).await;
    assert_eq!(code, StatusCode::CREATED, "{set}");
    for name in ["a", "b", "c"] {
        running(&client, name, "True").await;
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "w", "uid": set["metadata"]["uid"], "controller": true}]);
        let owned = json!({"metadata": {"labels": {"app": "w"}, "ownerReferences": owner}});
        assert_eq!(client.merge(&format!("{PODS}/{name}"), &owned).await.0, StatusCode::OK);
    }
    let budget = json!({"metadata": {"name": "w"}, "spec": {"maxUnavailable": "34%", "selector": {"matchLabels": {"app": "w"}}}});
    assert_eq!(client.post(BUDGETS, &budget).await.0, StatusCode::CREATED);
    let evict = async |name: &str| {
        let (code, answer) = client.post(&format!("{PODS}/{name}/eviction"), &eviction(name)).await;
        (code.as_u16(), answer.pointer("/details/causes/0/message").cloned().unwrap_or_default())
    };
    let processed = "The disruption budget w is still being processed by the server.";
    clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(evict("a").await, (429, json!(processed)), "a controller may still come");
    clock.advance(std::time::Duration::from_secs(1));
    // A third of three, rounded up: two.
    assert_eq!(evict("a").await.0, 201);
    assert_eq!(evict("b").await.0, 201);
    let needs = "The disruption budget w needs 1 healthy pods and has 1 currently";
    assert_eq!(evict("c").await, (429, json!(needs)));
    let (_, found) = client.get(&format!("{BUDGETS}/w")).await;
    assert_eq!((found["status"].get("observedGeneration"), found["status"].get("conditions")), (None, None), "{found}");
    assert!(found["status"]["disruptedPods"]["b"].is_string(), "{found}");
    // From when a controller has observed it, what that says counts.
    let status = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 1, "desiredHealthy": 0, "expectedPods": 1});
    client.merge(&format!("{BUDGETS}/w/status"), &json!({"status": status})).await;
    assert_eq!(evict("c").await.0, 201);
}
