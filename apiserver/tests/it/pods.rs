//! What may change in a pod, in which of its parts.

use crate::harness::{Client, Harness, pod};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn causes(status: &Value) -> Vec<String> {
    let causes = status.pointer("/details/causes").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |cause: &Value, name: &str| cause[name].as_str().unwrap_or_default().to_owned();
    causes.iter().map(|cause| format!("{}: {}", text(cause, "field"), text(cause, "message"))).collect()
}

/// Sends each patch, which is refused for the cause beside it, among others.
async fn assert_refused<const N: usize>(client: &Client, path: &str, rows: [(Value, &str); N]) {
    for (patch, cause) in rows {
        let (code, status) = strategic(client, path, &patch).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
        assert!(causes(&status).iter().any(|found| found == cause), "{cause}: {:?}", causes(&status));
    }
}

async fn strategic(client: &Client, path: &str, body: &Value) -> (StatusCode, Value) {
    client.send(Method::PATCH, path, "application/strategic-merge-patch+json", body.to_string()).await
}

#[tokio::test]
async fn ephemeral_containers_are_added_and_stay() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut early = pod("early");
    early["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "a:1"}]);
    let (code, status) = client.post(PODS, &early).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(causes(&status), ["spec.ephemeralContainers: Forbidden: cannot be set on create"]);
    client.post(PODS, &pod("a")).await;
    let path = format!("{PODS}/a/ephemeralcontainers");
    // As `kubectl debug` sends it.
    let debugger = json!({"name": "debugger-1", "image": "tools:1", "stdin": true, "tty": true, "targetContainerName": "c",
        "terminationMessagePolicy": "File", "resources": {}});
    let (code, object) = strategic(&client, &path, &json!({"spec": {"ephemeralContainers": [debugger]}})).await;
    assert_eq!(code, StatusCode::OK, "{object}");
    let made = &object["spec"]["ephemeralContainers"][0];
    assert_eq!(
        (made["imagePullPolicy"].as_str(), made["terminationMessagePath"].as_str()),
        (Some("IfNotPresent"), Some("/dev/termination-log"))
    );
    assert_eq!(object["metadata"]["generation"], 2);
    let (_, object) = strategic(
        &client,
        &path,
        &json!({"spec": {"ephemeralContainers": [{"name": "debugger-2", "image": "tools:2"}]}}),
    )
    .await;
    assert_eq!(object["spec"]["ephemeralContainers"].as_array().unwrap().len(), 2, "{object}");
    let wrong = [
        (
            json!({"name": "debugger-1", "image": "tools:9"}),
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debugger-1\" may not be changed\n",
        ),
        (json!({"name": "c", "image": "a:1"}), "spec.ephemeralContainers[INDEX].name: Duplicate value: \"c\""),
        (
            json!({"name": "x", "image": "a:1", "targetContainerName": "y"}),
            "spec.ephemeralContainers[INDEX].targetContainerName: Not found: \"y\"",
        ),
        (
            json!({"name": "x", "image": "a:1", "targetContainerName": "debugger-1"}),
            "spec.ephemeralContainers[INDEX].targetContainerName: Not found: \"debugger-1\"",
        ),
        (
            json!({"name": "x", "image": "a:1", "resources": {"limits": {"cpu": "1"}}}),
            "spec.ephemeralContainers[INDEX].resources: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            json!({"name": "x", "image": "a:1", "ports": [{"containerPort": 1}]}),
            "spec.ephemeralContainers[INDEX].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
    ];
    for (container, cause) in wrong {
        let (code, status) = strategic(&client, &path, &json!({"spec": {"ephemeralContainers": [container]}})).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
        let indexed: Vec<String> = (0..3).map(|nth| cause.replace("INDEX", &nth.to_string())).collect();
        assert!(causes(&status).iter().any(|found| indexed.contains(found)), "{cause}: {:?}", causes(&status));
    }
    let (_, mut object) = client.get(&format!("{PODS}/a")).await;
    object["spec"]["ephemeralContainers"] = json!([]);
    let (code, status) = client.put(&path, &object).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        causes(&status)[0],
        "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debugger-1\" may not be removed\n"
    );
    // The pod itself cannot change them, and its subresource nothing else.
    let (code, status) = client.put(&format!("{PODS}/a"), &object).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
    let (_, object) =
        client.merge(&path, &json!({"metadata": {"labels": {"new": "1"}}, "spec": {"nodeName": "n1"}})).await;
    assert!(object["spec"].get("nodeName").is_none() && object["metadata"]["labels"].get("new").is_none(), "{object}");
}

#[tokio::test]
async fn a_resize_changes_cpu_and_memory() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut object = pod("a");
    let resources = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": "2", "memory": "2Gi"}});
    object["spec"]["containers"][0]["resources"] = resources("1", "1Gi");
    client.post(PODS, &object).await;
    let path = format!("{PODS}/a/resize");
    let with = |resources: Value| json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
    let (code, object) = strategic(&client, &path, &with(resources("1500m", "1Gi"))).await;
    assert_eq!(code, StatusCode::OK, "{object}");
    assert_eq!(object.pointer("/spec/containers/0/resources/requests/cpu").unwrap(), "1500m");
    assert_eq!(object["metadata"]["generation"], 2);
    let rows = [
        (
            with(json!({"requests": {"cpu": "2", "memory": "2Gi"}})),
            "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
        ),
        (
            with(json!({"limits": {"cpu": null}})),
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            json!({"spec": {"containers": [{"name": "c", "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}]}}),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
        (
            with(json!({"requests": {"ephemeral-storage": "1Gi"}})),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
    ];
    assert_refused(&client, &path, rows).await;
    // A kubelet that says nothing of what its containers have cannot resize them.
    let running = json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}]}});
    client.merge(&format!("{PODS}/a/status"), &running).await;
    let (_, status) = strategic(&client, &path, &with(resources("1", "1Gi"))).await;
    assert_eq!(causes(&status), ["spec: Forbidden: Pod running on node without support for resize"]);
}

/// The containers stay, and stay in their order (core/pod `dropNonResizeUpdates`, core `validatePodResizeContainerOrdering`);
/// init containers are resized too, since v1.36 also those that end.
#[tokio::test]
async fn a_resize_is_of_the_containers_that_are_there() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let asks = |name: &str, cpu: &str| json!({"name": name, "image": "i:1", "resources": {"requests": {"cpu": cpu}}});
    let mut object = pod("a");
    let sidecar = |cpu: &str| {
        let mut sidecar = asks("side", cpu);
        sidecar["restartPolicy"] = "Always".into();
        sidecar
    };
    object["spec"]["containers"] = json!([asks("c", "1"), asks("d", "1")]);
    object["spec"]["initContainers"] = json!([asks("first", "1"), sidecar("1")]);
    client.post(PODS, &object).await;
    let path = format!("{PODS}/a/resize");
    let apps = |containers: Value| json!({"spec": {"containers": containers}});
    let inits = |containers: Value| json!({"spec": {"initContainers": containers}});
    let moved = |list: &str, nth: usize| {
        format!("spec.{list}[{nth}].name: Forbidden: {list} may not be renamed or reordered on resize")
    };
    let counted = |list: &str| format!("spec.{list}: Forbidden: {list} may not be added or removed on resize");
    let stored = |container: Value| {
        let mut container = container;
        container["resources"]["requests"]["ephemeral-storage"] = "1Gi".into();
        container
    };
    let fixed = |nth: usize| {
        format!(
            "spec.initContainers[{nth}]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable"
        )
    };
    let rows = [
        (apps(json!([asks("d", "2"), asks("c", "1")])), vec![moved("containers", 0), moved("containers", 1)]),
        (apps(json!([asks("c", "1"), asks("e", "1")])), vec![moved("containers", 1)]),
        (apps(json!([asks("c", "2")])), vec![counted("containers")]),
        (apps(json!([asks("c", "1"), asks("d", "1"), asks("e", "1")])), vec![counted("containers")]),
        (
            inits(json!([sidecar("1"), asks("first", "1")])),
            vec![moved("initContainers", 0), moved("initContainers", 1)],
        ),
        (inits(json!([asks("first", "1")])), vec![counted("initContainers")]),
        (inits(json!([stored(asks("first", "1")), stored(sidecar("1"))])), vec![fixed(0), fixed(1)]),
        (
            inits(json!([asks("first", "1"), {"name": "side", "resources": {}}])),
            vec![
                "spec.initContainers[1].resources.requests: Forbidden: resource requests cannot be removed".to_owned(),
            ],
        ),
        (
            apps(json!([{"name": "c", "resources": {}}, stored(asks("d", "1"))])),
            vec![
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed".to_owned(),
                "spec: Forbidden: only cpu and memory resources are mutable".to_owned(),
            ],
        ),
    ];
    for (patch, wanted) in rows {
        let (code, status) = client.merge(&path, &patch).await;
        assert_eq!((code, causes(&status)), (StatusCode::UNPROCESSABLE_ENTITY, wanted), "{patch}: {status}");
    }
    let (code, resized) = client.merge(&path, &inits(json!([asks("first", "2"), sidecar("3")]))).await;
    assert_eq!(code, StatusCode::OK, "{resized}");
    let asked = |nth: usize| resized["spec"]["initContainers"][nth]["resources"]["requests"]["cpu"].as_str().unwrap();
    assert_eq!((asked(0), asked(1)), ("2", "3"), "{resized}");
    // All else that is said of a container is passed over.
    let (code, resized) = client
        .merge(
            &path,
            &apps(json!([{"name": "c", "image": "j", "resources": {"requests": {"cpu": "2"}}}, asks("d", "1")])),
        )
        .await;
    let container = &resized["spec"]["containers"][0];
    assert_eq!(
        (code, &container["image"], &container["resources"]["requests"]["cpu"]),
        (StatusCode::OK, &json!("i:1"), &json!("2"))
    );
}

/// KEP-5419.
#[tokio::test]
async fn a_resize_changes_a_whole_pod() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut object = pod("a");
    let amounts = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    object["spec"]["containers"][0]["resources"] =
        json!({"requests": amounts("1", "1Gi"), "limits": amounts("2", "2Gi")});
    client.post(PODS, &object).await;
    let path = format!("{PODS}/a/resize");
    let own = |resources: Value| json!({"spec": {"resources": resources}});
    let (code, object) = strategic(&client, &path, &own(json!({"limits": amounts("2", "2Gi")}))).await;
    assert_eq!(code, StatusCode::OK, "{object}");
    let given = json!({"requests": amounts("1", "1Gi"), "limits": amounts("2", "2Gi")});
    assert_eq!(object["spec"]["resources"], given, "requests are the containers'");
    let (code, object) =
        strategic(&client, &path, &own(json!({"requests": {"cpu": "1500m"}, "limits": {"cpu": "3"}}))).await;
    assert_eq!((code, object["metadata"]["generation"].clone()), (StatusCode::OK, json!(3)), "{object}");
    let rows = [
        (
            own(json!({"requests": {"cpu": "3", "memory": "2Gi"}})),
            "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
        ),
        (
            own(json!({"limits": {"cpu": null}})),
            "spec.resources.limits: Forbidden: pod-level resource limits cannot be removed",
        ),
        (own(Value::Null), "spec.resources: Forbidden: pod-level resources cannot be removed"),
        (
            own(json!({"limits": {"hugepages-2Mi": "4Mi"}})),
            "spec: Forbidden: only cpu and memory resources are mutable at pod-level",
        ),
        (
            own(json!({"requests": {"cpu": "500m"}})),
            "spec.resources.requests[cpu]: Invalid value: \"500m\": must be greater than or equal to aggregate container requests of 1",
        ),
        (
            own(json!({"limits": {"memory": "1536Mi"}})),
            "spec.resources.containers[0][memory].limits: Invalid value: \"2Gi\": must be less than or equal to pod limits of 1536Mi",
        ),
    ];
    assert_refused(&client, &path, rows).await;
    // Without the subresource it is as fixed as ever.
    let (code, status) = strategic(&client, &format!("{PODS}/a"), &own(json!({"limits": {"cpu": "4"}}))).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
}

#[tokio::test]
async fn little_of_a_pod_may_change() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut object = pod("a");
    object["spec"]["schedulingGates"] = json!([{"name": "x/one"}, {"name": "x/two"}]);
    object["spec"]["nodeSelector"] = json!({"disk": "fast"});
    let terms = |expressions: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": expressions}}});
    let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
    object["spec"]["affinity"] = terms(json!([{"matchExpressions": [zone]}]));
    let (code, made) = client.post(PODS, &object).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let path = format!("{PODS}/a");
    let more = json!({"key": "rack", "operator": "Exists"});
    let fine = [
        json!({"spec": {"nodeSelector": {"arch": "x"}}}),
        json!({"spec": {"affinity": terms(json!([{"matchExpressions": [zone, more]}]))}}),
        json!({"spec": {"activeDeadlineSeconds": 100}}),
        json!({"spec": {"activeDeadlineSeconds": 50}}),
        json!({"spec": {"containers": [{"name": "c", "image": "busybox:2", "imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File", "resources": {}}]}}),
    ];
    for patch in fine {
        let (code, status) = client.merge(&path, &patch).await;
        assert_eq!(code, StatusCode::OK, "{patch}: {status}");
    }
    let add = json!([{"op": "add", "path": "/spec/tolerations/-", "value": {"key": "a", "operator": "Exists"}}]);
    let (code, status) = client.send(Method::PATCH, &path, "application/json-patch+json", add.to_string()).await;
    assert_eq!(code, StatusCode::OK, "{status}");
    let rows = [
        (
            json!({"spec": {"nodeSelector": {"disk": "slow"}}}),
            "spec.nodeSelector: Invalid value: {\"arch\":\"x\",\"disk\":\"slow\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        ),
        (
            json!({"spec": {"activeDeadlineSeconds": 60}}),
            "spec.activeDeadlineSeconds: Invalid value: 60: must be less than or equal to previous value",
        ),
        (
            json!({"spec": {"activeDeadlineSeconds": null}}),
            "spec.activeDeadlineSeconds: Invalid value: \"null\": must not update from a positive integer to nil value",
        ),
        (
            json!({"spec": {"tolerations": null}}),
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
        ),
        (
            json!({"spec": {"schedulingGates": [{"name": "x/three"}]}}),
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'x/three'",
        ),
        (
            json!({"spec": {"initContainers": [{"name": "i", "image": "i:1"}]}}),
            "spec.initContainers: Forbidden: pod updates may not add or remove containers",
        ),
        (
            json!({"spec": {"affinity": terms(json!([{"matchExpressions": [more]}]))}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid value",
        ),
        (
            json!({"spec": {"hostNetwork": true}}),
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`",
        ),
    ];
    for (patch, cause) in rows {
        let (code, status) = client.merge(&path, &patch).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{patch}: {status}");
        assert!(causes(&status).iter().any(|found| found.starts_with(cause)), "{cause}: {:?}", causes(&status));
    }
    let (code, _) = client.merge(&path, &json!({"spec": {"schedulingGates": null}})).await;
    assert_eq!(code, StatusCode::OK);
    let (code, _) = client.merge(&path, &json!({"spec": {"nodeSelector": {"more": "x"}}})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "past the gates, where it runs is fixed");
}

#[tokio::test]
async fn a_new_pod_is_completed_from_its_labels_and_annotations() {
    const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/c";
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut object = pod("a");
    object["metadata"]["labels"] = json!({"app": "x"});
    object["metadata"]["annotations"] = json!({APP_ARMOR: "unconfined"});
    object["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"a": "b"}}, "matchLabelKeys": ["app"]}]);
    let (code, made) = client.post(PODS, &object).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let selector = &made["spec"]["topologySpreadConstraints"][0]["labelSelector"];
    assert_eq!(selector["matchExpressions"], json!([{"key": "app", "operator": "In", "values": ["x"]}]));
    assert_eq!(made["spec"]["containers"][0]["securityContext"], json!({"appArmorProfile": {"type": "Unconfined"}}));
    for path in [format!("{PODS}/a"), format!("{PODS}/a/status")] {
        let (code, status) = client.merge(&path, &json!({"metadata": {"annotations": {APP_ARMOR: null}}})).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
        let why =
            format!("metadata.annotations[{APP_ARMOR}]: Forbidden: may not remove or update AppArmor annotations");
        assert_eq!(causes(&status), [why]);
    }
    let (code, status) = client.merge(&format!("{PODS}/a"), &json!({"metadata": {"annotations": {"b": "c"}}})).await;
    assert_eq!(code, StatusCode::OK, "{status}");
    let mut early = pod("early");
    early["spec"]["nodeName"] = "n".into();
    early["spec"]["schedulingGates"] = json!([{"name": "a"}]);
    early["metadata"]["annotations"] = json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"});
    early["spec"]["securityContext"] = json!({"seccompProfile": {"type": "RuntimeDefault"}});
    let (code, status) = client.post(PODS, &early).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
    assert_eq!(
        causes(&status),
        [
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
            "spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match",
        ]
    );
}
