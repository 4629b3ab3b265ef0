//! Each verb, over the in-process service.

use crate::harness::{Harness, pod};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn create_get_update_delete() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (code, made) = client.post(PODS, &pod("a")).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let (code, got) = client.get(&format!("{PODS}/a")).await;
    assert_eq!((code, &got), (StatusCode::OK, &made));
    let (code, status) = client.post(PODS, &pod("a")).await;
    assert_eq!((code, status["reason"].as_str()), (StatusCode::CONFLICT, Some("AlreadyExists")));

    let mut changed = got.clone();
    changed["metadata"]["labels"]["x"] = "y".into();
    let (code, second) = client.put(&format!("{PODS}/a"), &changed).await;
    assert_eq!(code, StatusCode::OK, "{second}");
    assert_ne!(second["metadata"]["resourceVersion"], got["metadata"]["resourceVersion"]);
    let (code, status) = client.put(&format!("{PODS}/a"), &changed).await;
    assert_eq!((code, status["reason"].as_str()), (StatusCode::CONFLICT, Some("Conflict")));
    let (_, same) = client.put(&format!("{PODS}/a"), &second).await;
    assert_eq!(same, second, "an update without a change writes nothing");

    let (code, gone) = client.delete(&format!("{PODS}/a")).await;
    assert_eq!((code, gone["kind"].as_str(), &gone["spec"]), (StatusCode::OK, Some("Pod"), &second["spec"]));
    assert_eq!(client.get(&format!("{PODS}/a")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_generated_name_and_a_dry_run() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut object = pod("");
    object["metadata"] = json!({"generateName": "web-"});
    let (_, made) = client.post(PODS, &object).await;
    assert!(made["metadata"]["name"].as_str().unwrap().starts_with("web-"), "{made}");
    object["metadata"] = json!({"generateName": "web-", "name": "web-1"});
    assert_eq!(client.post(PODS, &object).await.0, StatusCode::CREATED);
    assert_eq!(client.post(PODS, &object).await.0, StatusCode::CONFLICT, "a chosen name is not replaced");
    let (code, _) = client.post(&format!("{PODS}?dryRun=All"), &pod("dry")).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(client.get(&format!("{PODS}/dry")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn all_that_is_wrong_is_told() {
    let harness = Harness::start().await;
    let object = json!({"metadata": {"name": "a"}, "spec": {"restartPolicy": "Sometimes", "containers": [
        {"name": "a", "image": ""}, {"name": "a", "image": "b", "ports": [{"containerPort": 70000}], "volumeMounts": [{"name": "no", "mountPath": "/x"}]}]}});
    let (code, status) = harness.admin().post(PODS, &object).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let causes: Vec<String> = status["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| format!("{}: {}", cause["field"].as_str().unwrap(), cause["message"].as_str().unwrap()))
        .collect();
    for expected in [
        "spec.containers[0].image: Required value",
        "spec.containers[1].name: Duplicate value: \"a\"",
        "spec.containers[1].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        "spec.containers[1].volumeMounts[0].name: Not found: \"no\"",
        "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
    ] {
        assert!(causes.iter().any(|cause| cause == expected), "{expected} not in {causes:#?}");
    }
}

#[tokio::test]
async fn binding_grace_and_force() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    let (code, status) = client.post(&format!("{PODS}/a/binding"), &binding).await;
    assert_eq!(code, StatusCode::CREATED, "{status}");
    let (code, status) = client.post(&format!("{PODS}/a/binding"), &binding).await;
    assert_eq!(code, StatusCode::CONFLICT, "{status}");
    let (_, bound) = client.get(&format!("{PODS}/a")).await;
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");

    let (code, going) = client.delete(&format!("{PODS}/a")).await;
    assert_eq!((code, &going["metadata"]["deletionGracePeriodSeconds"]), (StatusCode::OK, &json!(30)));
    let (_, again) = client.delete(&format!("{PODS}/a?gracePeriodSeconds=60")).await;
    assert_eq!(
        again["metadata"]["deletionTimestamp"], going["metadata"]["deletionTimestamp"],
        "a delete cannot be put off"
    );
    client.delete(&format!("{PODS}/a?gracePeriodSeconds=0")).await;
    assert_eq!(client.get(&format!("{PODS}/a")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn finalizers_keep_an_object() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    client.post(maps, &json!({"metadata": {"name": "a", "finalizers": ["example.com/x"]}})).await;
    let (code, going) = client.delete(&format!("{maps}/a?propagationPolicy=Foreground")).await;
    assert_eq!(
        (code, &going["metadata"]["finalizers"]),
        (StatusCode::OK, &json!(["example.com/x", "foregroundDeletion"]))
    );
    let (code, _) = client
        .merge(&format!("{maps}/a"), &json!({"metadata": {"finalizers": ["example.com/x", "example.com/y"]}}))
        .await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    client.merge(&format!("{maps}/a"), &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(client.get(&format!("{maps}/a")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn patches_of_each_kind() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    let path = format!("{PODS}/a");
    let strategic = json!({"spec": {"containers": [{"name": "c", "image": "busybox:2"}]}});
    let (code, patched) =
        client.send(Method::PATCH, &path, "application/strategic-merge-patch+json", strategic.to_string()).await;
    assert_eq!((code, &patched["spec"]["containers"][0]["image"]), (StatusCode::OK, &json!("busybox:2")), "{patched}");
    let json_patch = json!([{"op": "add", "path": "/metadata/labels/k", "value": "v"}]);
    let (_, patched) = client.send(Method::PATCH, &path, "application/json-patch+json", json_patch.to_string()).await;
    assert_eq!(patched["metadata"]["labels"]["k"], "v");
    let (code, status) = client.send(Method::PATCH, &path, "application/apply-patch+cbor", "{}").await;
    assert_eq!((code, status["reason"].as_str()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, Some("UnsupportedMediaType")));
    let (code, _) = client.merge(&path, &json!({"metadata": {"resourceVersion": "1"}})).await;
    assert_eq!(code, StatusCode::CONFLICT);
}

#[tokio::test]
async fn lists_in_pages_over_one_snapshot() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for name in ["a", "b", "c", "d", "e"] {
        client.post(PODS, &pod(name)).await;
    }
    let names = |list: &Value| {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (_, first) = client.get(&format!("{PODS}?limit=2")).await;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a".into(), "b".into()], &json!(3)));
    client.delete(&format!("{PODS}/c")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = client.get(&format!("{PODS}?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c", "d"], "the second page is of the first page's time");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let (_, third) = client.get(&format!("{PODS}?limit=2&continue={token}")).await;
    assert_eq!((names(&third), third["metadata"].get("continue")), (vec!["e".to_owned()], None));
    let (_, exact) = client
        .get(&format!(
            "{PODS}?resourceVersionMatch=Exact&resourceVersion={}",
            first["metadata"]["resourceVersion"].as_str().unwrap()
        ))
        .await;
    assert_eq!(names(&exact).len(), 5);
    let (_, selected) = client.get(&format!("{PODS}?labelSelector=app+in+(a,e)&fieldSelector=metadata.name!=a")).await;
    assert_eq!(names(&selected), ["e"]);
    assert_eq!(client.get(&format!("{PODS}?fieldSelector=spec.color=red")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn watches_see_what_they_select() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    let mut all = client.watch(&format!("{PODS}?watch=1")).await;
    let mut selected = client.watch(&format!("{PODS}?watch=1&labelSelector=color%3Dred")).await;
    let mut streamed = client
        .watch(&format!(
            "{PODS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        ))
        .await;
    assert_eq!(all.seen().await, ("ADDED".into(), "a".into()));
    assert_eq!(streamed.seen().await, ("ADDED".into(), "a".into()));
    let bookmark = streamed.next().await.unwrap();
    assert_eq!(
        (&bookmark["type"], &bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"]),
        (&json!("BOOKMARK"), &json!("true"))
    );
    client.merge(&format!("{PODS}/a"), &json!({"metadata": {"labels": {"color": "red"}}})).await;
    client.merge(&format!("{PODS}/a"), &json!({"metadata": {"labels": {"color": "blue"}}})).await;
    client.delete(&format!("{PODS}/a")).await;
    for kind in ["MODIFIED", "MODIFIED", "MODIFIED", "DELETED"] {
        assert_eq!(all.seen().await, (kind.into(), "a".into()));
        assert_eq!(streamed.seen().await, (kind.into(), "a".into()));
    }
    assert_eq!(selected.seen().await, ("ADDED".into(), "a".into()));
    assert_eq!(selected.seen().await, ("DELETED".into(), "a".into()));
}

#[tokio::test]
async fn cluster_ips_and_node_ports_are_given_once_and_given_back() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, ip: Option<&str>| {
        let mut object = json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80, "nodePort": 30080}]}});
        if let Some(ip) = ip {
            object["spec"]["clusterIP"] = ip.into();
        }
        object
    };
    let (code, first) = client.post(services, &service("a", Some("10.96.7.7"))).await;
    assert_eq!(code, StatusCode::CREATED, "{first}");
    let (code, status) = client.post(services, &service("b", Some("10.96.7.7"))).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(status["message"].as_str().unwrap().contains("provided IP is already allocated"), "{status}");
    assert!(!status["message"].as_str().unwrap().contains("provided port"), "the address comes first: {status}");
    let (code, status) = client.post(services, &service("b", None)).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let why = "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated";
    assert!(status["message"].as_str().unwrap().ends_with(why), "{status}");
    let (_, addresses) = client.get("/apis/networking.k8s.io/v1/ipaddresses").await;
    assert_eq!(addresses["items"].as_array().unwrap().len(), 2, "this one's and that of the kubernetes service");
    client.delete(&format!("{services}/a")).await;
    let (code, _) = client.post(services, &service("b", Some("10.96.7.7"))).await;
    assert_eq!(code, StatusCode::CREATED);
    let (_, changed) = client.merge(&format!("{services}/b"), &json!({"spec": {"type": "ClusterIP"}})).await;
    assert_eq!(changed["spec"]["ports"][0].get("nodePort"), None, "{changed}");
    let (code, _) = client.post(services, &service("c", None)).await;
    assert_eq!(code, StatusCode::CREATED);
}

/// A Service without an address of its own that has these ports of the nodes.
fn with_ports(name: &str, spec: &Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {"type": "LoadBalancer"}});
    json_patch::merge(&mut object["spec"], spec);
    object
}

#[tokio::test]
async fn ports_of_nodes_go_with_what_needs_them() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let services = "/api/v1/namespaces/default/services";
    let one = format!("{services}/a");
    let dns = |tcp: Value, udp: Value| json!([{"name": "udp", "port": 53, "protocol": "UDP", "nodePort": udp}, {"name": "tcp", "port": 53, "nodePort": tcp}]);
    let is_free = async |port: i64| {
        let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
        client.post(&format!("{services}?dryRun=All"), &with_ports("probe", &spec)).await.0 == StatusCode::CREATED
    };

    let checked = json!({"allocateLoadBalancerNodePorts": false, "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001, "ports": [{"port": 80, "nodePort": 30080}]});
    let (code, made) = client.post(services, &with_ports("a", &checked)).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert!(!is_free(30001).await && !is_free(30080).await);
    let (code, status) = client.post(services, &with_ports("b", &checked)).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "the first that is taken: {status}");
    let mut other = checked.clone();
    other["ports"] = json!([{"port": 80}]);
    let (code, status) = client.post(services, &with_ports("b", &other)).await;
    let why = "Internal error occurred: failed to allocate requested HealthCheck NodePort 30001: provided port is already allocated";
    assert_eq!((code, &status["message"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!(why)));
    other["healthCheckNodePort"] = Value::Null;
    let (_, made) = client.post(services, &with_ports("b", &other)).await;
    let chosen = made["spec"]["healthCheckNodePort"].as_i64().unwrap();
    assert!(chosen != 30001 && !is_free(chosen).await, "one is needed without node ports, too: {made}");
    assert!(made["spec"]["ports"][0].get("nodePort").is_none(), "{made}");

    let (code, changed) = client.merge(&one, &json!({"spec": {"externalTrafficPolicy": "Cluster"}})).await;
    assert_eq!((code, changed["spec"].get("healthCheckNodePort")), (StatusCode::OK, None), "{changed}");
    assert!(is_free(30001).await && !is_free(30080).await);
    let name = json!({"spec": {"type": "ExternalName", "externalName": "a.example"}});
    let (code, changed) = client.merge(&one, &name).await;
    assert_eq!(code, StatusCode::OK, "{changed}");
    for gone in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
        assert!(changed["spec"].get(gone).is_none(), "{changed}");
    }
    assert!(is_free(30080).await);
    let (_, addresses) = client.get("/apis/networking.k8s.io/v1/ipaddresses").await;
    assert_eq!(addresses["items"].as_array().unwrap().len(), 2, "b's and that of the kubernetes service");

    // A number at a Service that has no ports of the nodes is nobody's.
    let (code, _) = client.merge(&one, &json!({"spec": {"ports": [{"port": 80, "nodePort": 30080}]}})).await;
    assert_eq!(code, StatusCode::OK);
    assert!(is_free(30080).await);
    let (code, changed) = client.merge(&one, &json!({"spec": {"type": "NodePort"}})).await;
    assert_eq!(code, StatusCode::OK, "{changed}");
    assert!(!is_free(30080).await && changed["spec"]["clusterIP"].is_string(), "{changed}");
    client.delete(&one).await;
    assert!(is_free(30080).await);

    let both =
        |made: &Value| (0..2).map(|nth| made["spec"]["ports"][nth]["nodePort"].as_i64().unwrap()).collect::<Vec<_>>();
    let (_, made) = client.post(services, &with_ports("a", &json!({"ports": dns(Value::Null, Value::Null)}))).await;
    assert_eq!(both(&made)[0], both(&made)[1], "TCP and UDP share one: {made}");
    let (_, made) = client.post(services, &with_ports("c", &json!({"ports": dns(json!(30053), Value::Null)}))).await;
    assert_eq!(both(&made), [30053, 30053], "{made}");
    let (code, status) =
        client.post(services, &with_ports("d", &json!({"ports": dns(json!(30053), Value::Null)}))).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
    let (_, changed) =
        client.merge(&format!("{services}/c"), &json!({"spec": {"ports": dns(Value::Null, json!(30054))}})).await;
    assert_eq!(both(&changed), [30054, 30053], "the name keeps it: {changed}");
    let outside = json!({"spec": {"ports": dns(json!(80), json!(30054))}});
    let (_, status) = client.merge(&format!("{services}/c"), &outside).await;
    let why = "spec.ports[1].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767";
    assert!(status["message"].as_str().unwrap().ends_with(why), "{status}");
}

#[tokio::test]
async fn services_get_addresses_of_every_range_that_is_ready() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (services, ranges) = ("/api/v1/namespaces/default/services", "/apis/networking.k8s.io/v1/servicecidrs");
    let service =
        |name: &str, ip: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    for outside in ["10.100.0.9", "10.96.0.0", "10.96.255.255"] {
        let (code, status) = client.post(services, &service("a", outside)).await;
        let why = format!(
            "spec.clusterIPs: Invalid value: [\"{outside}\"]: failed to allocate IP {outside}: the provided network does not match the current range"
        );
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
        assert!(status["message"].as_str().unwrap().contains(&why), "{status}");
    }
    // Of which nobody says yet that it is ready.
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.100.0.0/30"]}});
    assert_eq!(client.post(ranges, &range).await.0, StatusCode::CREATED);
    assert_eq!(client.post(services, &service("a", "10.100.0.1")).await.0, StatusCode::CREATED);
    let ready = |name: &str, status: &str| {
        let path = format!("{ranges}/{name}/status");
        let condition = json!({"type": "Ready", "status": status, "reason": "Test", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        (path, json!({"status": {"conditions": [condition]}}))
    };
    let (path, not_ready) = ready("kubernetes", "False");
    assert_eq!(client.merge(&path, &not_ready).await.0, StatusCode::OK);
    let free = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    let (_, made) = client.post(services, &free("b")).await;
    assert_eq!(made["spec"]["clusterIP"], "10.100.0.2", "the only one that is left: {made}");
    let (code, status) = client.post(services, &free("c")).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR, "{status}");
    assert!(status["message"].as_str().unwrap().contains("failed to allocate a serviceIP: range is full"), "{status}");
    let (path, ready) = ready("kubernetes", "True");
    assert_eq!(client.merge(&path, &ready).await.0, StatusCode::OK);
    let (_, made) = client.post(services, &free("c")).await;
    assert!(made["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96."), "{made}");
}

#[tokio::test]
async fn scale_and_status_are_written_apart() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let object = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
    client.post(path, &object).await;
    let (_, scale) = client.merge(&format!("{path}/web/scale"), &json!({"spec": {"replicas": 5}})).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(5), &json!("a=b")), "{scale}");
    let (_, mut web) = client.get(&format!("{path}/web")).await;
    assert_eq!((&web["spec"]["replicas"], &web["metadata"]["generation"]), (&json!(5), &json!(2)));
    web["status"] = json!({"replicas": 3});
    web["spec"]["replicas"] = 1.into();
    let (_, written) = client.put(&format!("{path}/web/status"), &web).await;
    assert_eq!(
        (&written["status"]["replicas"], &written["spec"]["replicas"], &written["metadata"]["generation"]),
        (&json!(3), &json!(5), &json!(2)),
        "{written}"
    );
    let (code, status) =
        client.merge(&format!("{path}/web"), &json!({"spec": {"selector": {"matchLabels": {"a": "c"}}}})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(status["message"].as_str().unwrap().contains("field is immutable"), "{status}");
}

#[tokio::test]
async fn namespaces_end_in_two_steps() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post("/api/v1/namespaces", &json!({"metadata": {"name": "a"}})).await;
    let (code, going) = client.delete("/api/v1/namespaces/a").await;
    assert_eq!((code, &going["status"]["phase"]), (StatusCode::OK, &json!("Terminating")), "{going}");
    let (code, status) = client.post("/api/v1/namespaces/a/pods", &pod("x")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(status["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut finalized = going.clone();
    finalized["spec"]["finalizers"] = json!([]);
    let (code, answer) = client.put("/api/v1/namespaces/a/finalize", &finalized).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(client.get("/api/v1/namespaces/a").await.0, StatusCode::NOT_FOUND);
    assert_eq!(client.delete("/api/v1/namespaces/default").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn broken_requests_get_an_answer() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let json = "application/json";
    let big = format!("{{\"metadata\":{{\"name\":\"{}\"}}}}", "a".repeat(4 << 20));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (method, path, kind, body, code) in [
        (Method::POST, PODS, json, "{", 400),
        (Method::POST, PODS, json, deep.as_str(), 400),
        (Method::POST, PODS, json, big.as_str(), 413),
        (Method::POST, PODS, "text/plain", "{}", 415),
        (Method::POST, PODS, json, "{\"kind\":\"Service\",\"apiVersion\":\"v1\"}", 400),
        (Method::POST, PODS, json, "{\"kind\":\"Pod\",\"apiVersion\":\"v2\"}", 400),
        (Method::PATCH, "/api/v1/namespaces/default/services/kubernetes", "application/json-patch+json", "{}", 400),
        (Method::POST, "/api/v1/namespaces/default/pods/a", json, "{}", 405),
        (Method::GET, "/api/v1/namespaces/default/pods?continue=%21", json, "", 400),
        (Method::GET, "/api/v1/namespaces/default/pods?watch=1&resourceVersion=x", json, "", 500),
    ] {
        let (status, answer) = client.send(method.clone(), path, kind, body.to_owned()).await;
        assert_eq!(status.as_u16(), code, "{method} {path}: {answer}");
        assert_eq!(answer["kind"], "Status", "{answer}");
    }
}

#[tokio::test]
async fn evictions_respect_budgets() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    client.post(PODS, &pod("b")).await;
    for name in ["a", "b"] {
        let binding = json!({"metadata": {"name": name}, "target": {"name": "n1"}});
        let (code, answer) = client.post("/api/v1/namespaces/default/bindings", &binding).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
        let (code, answer) = client
            .merge(
                &format!("{PODS}/{name}/status"),
                &json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
            )
            .await;
        assert_eq!((code, &answer["status"]["phase"]), (StatusCode::OK, &json!("Running")), "{answer}");
    }
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "one"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    client.post(budgets, &budget).await;
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 0, "desiredHealthy": 1, "currentHealthy": 1, "expectedPods": 1}});
    client.merge(&format!("{budgets}/one/status"), &status).await;
    let eviction = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let (code, answer) = client.post(&format!("{PODS}/a/eviction"), &eviction("a")).await;
    assert_eq!(code, StatusCode::TOO_MANY_REQUESTS, "{answer}");
    assert_eq!(answer["details"]["causes"][0]["reason"], "DisruptionBudget");
    let (code, _) = client.post(&format!("{PODS}/b/eviction"), &eviction("b")).await;
    assert_eq!(code, StatusCode::CREATED, "no budget counts this one");
    client.merge(&format!("{budgets}/one/status"), &json!({"status": {"disruptionsAllowed": 1}})).await;
    let (code, _) = client.post(&format!("{PODS}/a/eviction"), &eviction("a")).await;
    assert_eq!(code, StatusCode::CREATED);
    let (_, budget) = client.get(&format!("{budgets}/one")).await;
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(budget["status"]["disruptedPods"]["a"].is_string());
    let (_, gone) = client.get(&format!("{PODS}/a")).await;
    assert!(gone["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    for nth in 0..300 {
        let parity = if nth % 2 == 0 { "even" } else { "odd" };
        client.post(maps, &json!({"metadata": {"name": format!("m{nth}"), "labels": {"parity": parity}}})).await;
    }
    let (code, deleted) = client.delete(&format!("{maps}?labelSelector=parity%3Deven")).await;
    assert_eq!((code, deleted["items"].as_array().unwrap().len()), (StatusCode::OK, 150));
    let (_, left) = client.get(maps).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 150);
    client.delete(maps).await;
    assert_eq!(client.get(maps).await.1["items"], json!([]));
}
