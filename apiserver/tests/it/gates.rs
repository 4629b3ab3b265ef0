//! What upstream leaves out in silence, because the feature gate is off in v1.36.

use crate::harness::Harness;
use http::StatusCode;
use serde_json::{Value, json};

#[tokio::test]
async fn fields_whose_gates_are_off_are_left_out_in_silence() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let lease = json!({"metadata": {"name": "l"}, "spec": {"strategy": "OldestEmulationVersion", "preferredHolder": "a", "holderIdentity": "b"}});
    let driver = json!({"metadata": {"name": "d.example.com"}, "spec": {"preventPodSchedulingIfMissing": true}});
    for (path, object, gated) in [
        ("/apis/coordination.k8s.io/v1/namespaces/default/leases", lease, ["strategy", "preferredHolder"].as_slice()),
        ("/apis/storage.k8s.io/v1/csidrivers", driver, &["preventPodSchedulingIfMissing"]),
    ] {
        let (code, made) = client.post(&format!("{path}?fieldValidation=Strict"), &object).await;
        assert_eq!(code, StatusCode::CREATED, "{made}");
        let one = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
        let change = json!({"metadata": {"labels": {"a": "b"}}, "spec": object["spec"]});
        let (code, patched) = client.merge(&one, &change).await;
        assert_eq!(code, StatusCode::OK, "{patched}");
        assert_eq!(patched["metadata"]["labels"]["a"], "b");
        for state in [&made, &patched] {
            let managed = state["metadata"]["managedFields"].to_string();
            let left = gated.iter().find(|field| !state["spec"][**field].is_null() || managed.contains(**field));
            assert!(left.is_none(), "{left:?} in {state}");
        }
    }
}

/// Gates of pods: what upstream's `dropDisabledFields` leaves of a spec, alone and in a template.
#[tokio::test]
async fn parts_of_pods_whose_gates_are_off_are_left_out() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let hook = json!({"exec": {"command": ["true"]}});
    let spec = json!({
        "os": {"name": "linux"},
        "containers": [
            {"name": "a", "image": "i", "lifecycle": {"stopSignal": "SIGUSR1"}},
            {"name": "b", "image": "i", "lifecycle": {"stopSignal": "SIGUSR1", "preStop": hook}},
        ],
        "initContainers": [{"name": "c", "image": "i", "restartPolicy": "Always", "lifecycle": {"stopSignal": "SIGTERM"}}],
        "volumes": [{"name": "v", "projected": {"sources": [
            {"clusterTrustBundle": {"name": "t", "path": "ca.pem"}},
            {"podCertificate": {"signerName": "example.com/s", "keyType": "ED25519", "credentialBundlePath": "b.pem"}},
            {"secret": {"name": "s"}},
        ]}}],
    });
    let labels = json!({"labels": {"a": "b"}});
    let set = json!({"metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": labels, "spec": spec}}});
    for (path, object, at) in [
        ("/api/v1/namespaces/default/pods", json!({"metadata": {"name": "p"}, "spec": spec}), "/spec"),
        ("/apis/apps/v1/namespaces/default/daemonsets", set, "/spec/template/spec"),
    ] {
        let (code, made) = client.post(&format!("{path}?fieldValidation=Strict"), &object).await;
        assert_eq!(code, StatusCode::CREATED, "{made}");
        let made = made.pointer(at).unwrap();
        let lifecycle = |list: &str, nth: usize| &made[list][nth]["lifecycle"];
        assert_eq!(
            (lifecycle("containers", 0), lifecycle("initContainers", 0)),
            (&Value::Null, &Value::Null),
            "{made}"
        );
        assert_eq!(lifecycle("containers", 1), &json!({"preStop": hook}), "{made}");
        assert_eq!(
            made["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "v").unwrap()["projected"]["sources"],
            json!([{}, {}, {"secret": {"name": "s"}}]),
            "{made}"
        );
    }
}

/// Where a claim's content comes from (core/persistentvolumeclaim `util.go`).
#[tokio::test]
async fn claims_are_not_filled_from_elsewhere() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"apiGroup": null, "kind": "PersistentVolumeClaim", "name": "c"});
    let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    let sea = json!({"apiGroup": "example.com", "kind": "Sea", "name": "s"});
    let with = |source: &Value, field: &str, value: &str| {
        let mut source = source.clone();
        source[field] = value.into();
        source
    };
    // What is sent in dataSource and in dataSourceRef, and what is kept in both of them.
    let rows = [
        (Value::Null, with(&claim, "namespace", "other"), Value::Null),
        (snapshot.clone(), with(&snapshot, "namespace", "other"), snapshot.clone()),
        (Value::Null, sea.clone(), sea.clone()),
        (sea.clone(), Value::Null, Value::Null),
        (json!({"kind": "Pod", "name": "p"}), Value::Null, Value::Null),
        (snapshot.clone(), Value::Null, snapshot.clone()),
        (Value::Null, claim.clone(), claim.clone()),
    ];
    for (nth, (source, by_ref, kept)) in rows.into_iter().enumerate() {
        let name = format!("c{nth}");
        let object = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "dataSource": source,
            "dataSourceRef": by_ref, "resources": {"requests": {"storage": "2Gi"}}}});
        let (code, made) = client.post(path, &object).await;
        assert_eq!(code, StatusCode::CREATED, "{nth}: {made}");
        assert_eq!((&made["spec"]["dataSource"], &made["spec"]["dataSourceRef"]), (&kept, &kept), "{nth}");
        // An update that asks for what was left out asks for nothing new; one of what is there is refused.
        let (code, made) = client
            .merge(&format!("{path}/{name}"), &json!({"spec": {"dataSourceRef": with(&claim, "namespace", "other")}}))
            .await;
        let wanted = if kept.is_null() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
        assert_eq!(code, wanted, "{nth}: {made}");
    }
}

/// TaintTolerationComparisonOperators: alpha in v1.35, and no more since.
#[tokio::test]
async fn tolerations_do_not_compare_numbers() {
    let harness = Harness::start().await;
    let toleration = json!({"key": "sla", "operator": "Gt", "value": "950", "effect": "NoSchedule"});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}], "tolerations": [toleration]}});
    let (code, answer) = harness.admin().post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let why = r#"Pod "p" is invalid: spec.tolerations[0].operator: Unsupported value: "Gt": supported values: "Equal", "Exists", "Lt", "Gt""#;
    assert_eq!(answer["message"], why);
}
