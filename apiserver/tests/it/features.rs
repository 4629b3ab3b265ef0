//! What is added to new objects, and what nodes must declare before their pods are changed.

use crate::harness::{Client, Harness};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// StorageObjectInUseProtection: on create only, after what the client wrote, and nobody owns it. As kube-apiserver 1.20.2 answers.
#[tokio::test]
async fn claims_and_volumes_are_made_with_their_protection() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let size = json!({"storage": "1Gi"});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": size}});
    let volume = json!({"capacity": size, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"}});
    for (path, spec, own) in [
        ("/api/v1/namespaces/default/persistentvolumeclaims", claim, "kubernetes.io/pvc-protection"),
        ("/api/v1/persistentvolumes", volume, "kubernetes.io/pv-protection"),
    ] {
        for (nth, (given, made)) in [
            (json!([]), json!([own])),
            (json!(["example.com/a"]), json!(["example.com/a", own])),
            (json!([own, "example.com/a"]), json!([own, "example.com/a"])),
        ]
        .into_iter()
        .enumerate()
        {
            let object = json!({"metadata": {"name": format!("o{nth}"), "finalizers": given}, "spec": spec});
            let (code, answer) = client.post(&format!("{path}?dryRun=All"), &object).await;
            assert_eq!((code, &answer["metadata"]["finalizers"]), (StatusCode::CREATED, &made));
            let (code, answer) = client.post(path, &object).await;
            assert_eq!((code, &answer["metadata"]["finalizers"]), (StatusCode::CREATED, &made));
            let owned = answer.pointer("/metadata/managedFields/0/fieldsV1/f:metadata/f:finalizers");
            assert_eq!(
                owned.map(|owned| owned.to_string().contains(own)),
                owned.map(|_| given.to_string().contains(own))
            );
        }
        // An update may take it off, and nothing puts it on again but its controller.
        let (code, answer) = client.merge(&format!("{path}/o0"), &json!({"metadata": {"finalizers": null}})).await;
        assert_eq!((code, &answer["metadata"]["finalizers"]), (StatusCode::OK, &Value::Null));
        // Without its controller it stays until somebody takes the finalizer off.
        let (code, answer) = client.delete(&format!("{path}/o2")).await;
        assert_eq!(code, StatusCode::OK);
        assert!(answer["metadata"]["deletionTimestamp"].is_string(), "{answer}");
        assert_eq!(client.get(&format!("{path}/o2")).await.0, StatusCode::OK);
        client.merge(&format!("{path}/o2"), &json!({"metadata": {"finalizers": null}})).await;
        assert_eq!(client.get(&format!("{path}/o2")).await.0, StatusCode::NOT_FOUND);
    }
}

/// A pod on the node, with an init container, resources of its own and a status that says what its containers have.
async fn running(client: &Client, name: &str, node: &str) {
    let asks = json!({"requests": {"cpu": "1"}});
    let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "resources": {"requests": {"cpu": "4"}},
        "initContainers": [{"name": "i", "image": "i", "resources": asks}, {"name": "s", "image": "i", "restartPolicy": "Always", "resources": asks}],
        "containers": [{"name": "c", "image": "i", "resources": asks}]}});
    let (code, made) = client.post(PODS, &pod).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let has = |name: &str| json!({"name": name, "image": "i", "imageID": "", "ready": true, "restartCount": 0, "resources": asks});
    let status = json!({"status": {"phase": "Running", "containerStatuses": [has("c")], "initContainerStatuses": [has("i"), has("s")]}});
    let (code, made) = client.merge(&format!("{PODS}/{name}/status"), &status).await;
    assert_eq!(code, StatusCode::OK, "{made}");
}

/// NodeDeclaredFeatureValidator of v1.36.
#[tokio::test]
async fn pods_are_resized_where_the_node_declares_it() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let declared = [
        ("none", json!([])),
        ("pod", json!(["InPlacePodLevelResourcesVerticalScaling"])),
        ("all", json!(["InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers"])),
    ];
    for (name, features) in declared {
        let node = json!({"metadata": {"name": name}, "status": {"declaredFeatures": features}});
        assert_eq!(client.post("/api/v1/nodes", &node).await.0, StatusCode::CREATED);
    }
    const POD: &str = "InPlacePodLevelResourcesVerticalScaling";
    const INIT: &str = "InPlacePodVerticalScalingInitContainers";
    let whole = json!({"resources": {"requests": {"cpu": "5"}}});
    let one = |list: &str, name: &str| json!({list: [{"name": name, "resources": {"requests": {"cpu": "2"}}}]});
    let both = json!({"resources": {"requests": {"cpu": "5"}}, "initContainers": one("initContainers", "i")["initContainers"]});
    let lacks = |names: &str, node: &str| {
        format!(
            "pods \"p-{node}\" is forbidden: pod update requires features {names} which are not available on node \"{node}\""
        )
    };
    let resize = async |node: &str, spec: &Value| {
        let path = format!("{PODS}/p-{node}/resize?dryRun=All");
        let patch = json!({"spec": spec}).to_string();
        let (code, answer) = client.send(Method::PATCH, &path, "application/strategic-merge-patch+json", patch).await;
        (code, answer["message"].as_str().unwrap_or_default().to_owned())
    };
    for (node, spec, refused) in [
        ("none", &whole, Some(lacks(POD, "none"))),
        ("none", &one("initContainers", "i"), Some(lacks(INIT, "none"))),
        ("none", &both, Some(lacks(&format!("{POD}, {INIT}"), "none"))),
        ("none", &one("initContainers", "s"), None),
        ("none", &one("containers", "c"), None),
        ("pod", &whole, None),
        ("pod", &both, Some(lacks(INIT, "pod"))),
        ("all", &both, None),
        ("gone", &one("containers", "c"), None),
        ("gone", &whole, Some("pods \"p-gone\" is forbidden: node \"gone\" not found".to_owned())),
    ] {
        if client.get(&format!("{PODS}/p-{node}")).await.0 == StatusCode::NOT_FOUND {
            running(&client, &format!("p-{node}"), node).await;
        }
        let (code, message) = resize(node, spec).await;
        let wanted = if refused.is_some() { StatusCode::FORBIDDEN } else { StatusCode::OK };
        assert_eq!((code, message), (wanted, refused.unwrap_or_default()), "{node}: {spec}");
    }
}

/// Names of features are checked as core `validateNodeDeclaredFeatures` does.
#[tokio::test]
async fn what_a_node_declares_is_in_order() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post("/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await;
    let told = async |features: Value| {
        let patch = json!({"status": {"declaredFeatures": features}});
        let (code, answer) = client.merge("/api/v1/nodes/n/status", &patch).await;
        let causes = answer.pointer("/details/causes").and_then(Value::as_array).cloned().unwrap_or_default();
        let line =
            |cause: &Value| format!("{}: {}", cause["field"].as_str().unwrap(), cause["message"].as_str().unwrap());
        (code, causes.iter().map(line).collect::<Vec<_>>())
    };
    assert_eq!(told(json!(["A", "B/c", "B/d"])).await, (StatusCode::OK, vec![]));
    let (code, causes) = told(json!(["B", "A", "A", "b"])).await;
    const FORM: &str = "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes";
    let wanted = [
        "status.declaredFeatures[1]: Invalid value: \"A\": list must be sorted alphabetically".to_owned(),
        "status.declaredFeatures[2]: Duplicate value: \"A\"".to_owned(),
        format!("status.declaredFeatures[3]: Invalid value: \"b\": invalid feature name \"b\": {FORM}"),
    ];
    assert_eq!((code, causes), (StatusCode::UNPROCESSABLE_ENTITY, wanted.to_vec()));
}

/// What clients write back as it was made, or leave out, counts as upstream's strategies count it.
#[tokio::test]
async fn what_is_left_out_is_filled_in() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let size = json!({"storage": "1Gi"});
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": size},
        "dataSource": {"kind": "PersistentVolumeClaim", "name": "other"}}});
    assert_eq!(client.post(claims, &claim).await.0, StatusCode::CREATED);
    let (code, answer) = client.put(&format!("{claims}/c"), &claim).await;
    assert_eq!((code, &answer["spec"]["dataSourceRef"]["name"]), (StatusCode::OK, &json!("other")), "{answer}");

    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": size, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"}}});
    assert_eq!(client.post("/api/v1/persistentvolumes", &volume).await.0, StatusCode::CREATED);
    let status = "/api/v1/persistentvolumes/v/status";
    let since = |answer: &Value| answer["status"]["lastPhaseTransitionTime"].clone();
    let told = json!("2026-01-01T00:00:00Z");
    let (_, answer) =
        client.merge(status, &json!({"status": {"phase": "Pending", "lastPhaseTransitionTime": told}})).await;
    assert_eq!(since(&answer), told, "as it was said");
    let (_, answer) = client.merge(status, &json!({"status": {"message": "m", "lastPhaseTransitionTime": null}})).await;
    assert_eq!(since(&answer), told, "as it was");
    let (_, answer) = client.merge(status, &json!({"status": {"phase": "Available"}})).await;
    assert!(answer["status"]["phase"] == "Available" && since(&answer) != told, "{answer}");

    let limits = "/api/v1/namespaces/default/limitranges/l";
    assert_eq!(
        client.put(limits, &json!({"metadata": {"name": "l"}, "spec": {"limits": []}})).await.0,
        StatusCode::CREATED
    );
    let class = json!({"metadata": {"name": "r"}, "handler": "h"});
    assert_eq!(client.put("/apis/node.k8s.io/v1/runtimeclasses/r", &class).await.0, StatusCode::CREATED);

    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(client.post(PODS, &pod).await.0, StatusCode::CREATED);
    client.merge(&format!("{PODS}/p/status"), &json!({"status": {"podIPs": [{"ip": "10.1.1.9"}]}})).await;
    for (ip, count) in [("10.1.1.9", 1), ("10.1.1.8", 0)] {
        let (code, list) = client.get(&format!("{PODS}?fieldSelector=status.podIP%3D{ip}")).await;
        assert_eq!((code, list["items"].as_array().map(Vec::len)), (StatusCode::OK, Some(count)), "{ip}");
    }
}
