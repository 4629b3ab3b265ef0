//! The forms that answers come in: tables, metadata only, YAML, gzip; discovery and health.

use crate::harness::{Client, Harness, pod};
use axum::body::Body;
use coracle_apiserver::UserInfo;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::io::Read;
use tower::ServiceExt;

const PODS: &str = "/api/v1/namespaces/default/pods";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PARTIAL: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

async fn get(client: &Client, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.0.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    (head.status, head.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test]
async fn tables_metadata_and_yaml() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    let (_, _, body) = get(&client, PODS, &[("accept", TABLE)]).await;
    let table: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")), "{table}");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let (_, _, body) = get(&client, &format!("{PODS}/a?includeObject=None"), &[("accept", TABLE)]).await;
    let table: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(table["rows"][0].get("object"), Some(&Value::Null));
    let (_, _, body) = get(&client, PODS, &[("accept", PARTIAL)]).await;
    let list: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&list["kind"], list["items"][0].get("spec")), (&json!("PartialObjectMetadataList"), None), "{list}");
    let (_, headers, body) = get(&client, &format!("{PODS}/a"), &[("accept", "application/yaml")]).await;
    assert_eq!(headers["content-type"], "application/yaml");
    assert!(String::from_utf8(body).unwrap().contains("phase: Pending"));
    // A browser takes anything else, too, and is shown it laid out.
    let browser = [
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
    ];
    let (code, headers, body) = get(&client, &format!("{PODS}/a"), &browser).await;
    assert_eq!((code, &headers["content-type"]), (StatusCode::OK, &"application/json".parse().unwrap()));
    assert!(body.starts_with(b"{\n  \"kind\": \"Pod\""), "{}", String::from_utf8_lossy(&body));
    // Whoever takes nothing else is told what there is, in JSON.
    let (code, headers, body) = get(&client, &format!("{PODS}/a"), &[("accept", "text/html")]).await;
    assert_eq!((code, &headers["content-type"]), (StatusCode::NOT_ACCEPTABLE, &"application/json".parse().unwrap()));
    let status: Value = serde_json::from_slice(&body).unwrap();
    let message = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    assert_eq!((&status["reason"], &status["message"]), (&json!("NotAcceptable"), &json!(message)));
    // Nor is there a page for it, as without `--enable-logs-handler`.
    assert_eq!(get(&client, "/logs/", &browser).await.0, StatusCode::NOT_FOUND);
    // An error is a Status whatever was asked for.
    let (_, _, body) = get(&client, &format!("{PODS}/none"), &[("accept", TABLE)]).await;
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["kind"], "Status");
}

#[tokio::test]
async fn flow_schemas_are_shown_in_the_order_in_which_they_are_asked() {
    let harness = Harness::start().await;
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let (_, _, body) = get(&harness.admin(), path, &[("accept", TABLE)]).await;
    let table: Value = serde_json::from_slice(&body).unwrap();
    let cells = table["rows"].as_array().unwrap().iter().map(|row| &row["cells"]);
    let order: Vec<_> = cells.map(|cells| (cells[2].as_i64().unwrap(), cells[0].as_str().unwrap())).collect();
    assert!(order.len() > 10 && order.is_sorted(), "{order:?}");
    let (_, _, body) = get(&harness.admin(), &format!("{path}?limit=3"), &[("accept", TABLE)]).await;
    let table: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(table["rows"].as_array().unwrap().len(), 3, "a page has its first objects by name: {table}");
    assert_eq!(table["rows"][2]["cells"][0], "catch-all");
}

/// Go's typed lists say once what their items are; a list of custom resources says it of each.
#[tokio::test]
async fn a_lists_items_say_no_kind() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    let typed = |object: &Value| (object.get("kind").is_some(), object.get("apiVersion").is_some());
    let (_, list) = client.get(PODS).await;
    assert_eq!((&list["kind"], typed(&list["items"][0])), (&json!("PodList"), (false, false)), "{list}");
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    let (_, _, body) = get(&client, PODS, &[("accept", "application/yaml")]).await;
    assert!(String::from_utf8(body).unwrap().contains("items:\n"), "it is still a document");
    let (_, one) = client.get(&format!("{PODS}/a")).await;
    assert_eq!(typed(&one), (true, true));
    // Another version than the stored one.
    let lists = ["/apis/events.k8s.io/v1/events", "/api/v1/events", "/apis/autoscaling/v1/horizontalpodautoscalers"];
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    client.post("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", &scaler).await;
    let event = json!({"metadata": {"name": "e", "namespace": "default"}, "involvedObject": {"namespace": "default"}});
    client.post("/api/v1/namespaces/default/events", &event).await;
    for path in lists {
        let (_, list) = client.get(path).await;
        assert_eq!(typed(&list["items"][0]), (false, false), "{path}: {list}");
        assert!(list["items"][0]["metadata"].is_object(), "{path}: {list}");
    }
}

#[tokio::test]
async fn a_large_list_is_compressed() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for nth in 0..150 {
        client.post(PODS, &pod(&format!("p{nth:03}"))).await;
    }
    let (_, plain_headers, plain) = get(&client, PODS, &[]).await;
    assert!(!plain_headers.contains_key("content-encoding") && plain.len() > 128 << 10, "{}", plain.len());
    let (_, headers, body) = get(&client, PODS, &[("accept-encoding", "gzip")]).await;
    assert_eq!(headers["content-encoding"], "gzip");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut text).unwrap();
    assert!(body.len() < text.len() / 4);
    assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), serde_json::from_slice::<Value>(&plain).unwrap());
}

#[tokio::test]
async fn discovery_and_health() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let (_, headers, body) = get(&client, "/apis", &[("accept", aggregated)]).await;
    assert_eq!(headers["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let groups: Value = serde_json::from_slice(&body).unwrap();
    let apps = groups["items"].as_array().unwrap().iter().find(|group| group["metadata"]["name"] == "apps").unwrap();
    let deployments = apps["versions"][0]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["resource"] == "deployments")
        .unwrap();
    assert_eq!(
        (&deployments["shortNames"], &deployments["subresources"][0]["subresource"]),
        (&json!(["deploy"]), &json!("scale"))
    );
    let (_, groups) = client.get("/apis").await;
    let autoscaling = groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == "autoscaling").unwrap();
    assert_eq!(autoscaling["preferredVersion"]["version"], "v2");
    let (_, core) = client.get("/openapi/v3/api/v1").await;
    assert_eq!(
        core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]["parameters"][2]["name"],
        "fieldValidation"
    );
    let schema = |name: &str| &core["components"]["schemas"][format!("io.k8s.api.core.v1.{name}")]["properties"];
    assert_eq!(schema("ContainerPort")["protocol"]["default"], "TCP");
    assert_eq!(
        (&schema("Container")["name"]["default"], schema("Container")["image"].get("default")),
        (&json!(""), None)
    );
    assert_eq!(schema("Container")["command"]["items"], json!({"type": "string", "default": ""}));
    assert_eq!(schema("PodSpec")["containers"]["items"]["default"], json!({}));
    let proxied = &core["paths"]["/api/v1/namespaces/{namespace}/services/{name}/proxy/{path}"];
    assert_eq!(proxied["options"]["x-kubernetes-action"], "connect");
    assert_eq!(proxied["options"]["x-kubernetes-group-version-kind"]["kind"], "ServiceProxyOptions");

    let anonymous = harness.user(UserInfo::anonymous());
    let (code, text) = anonymous.get("/readyz?verbose").await;
    assert_eq!(code, StatusCode::OK);
    let text = text.as_str().unwrap();
    for line in [
        "[+]ping ok\n[+]log ok\n",
        "[+]etcd ok\n[+]etcd-readiness ok\n",
        "[+]poststarthook/start-apiextensions-controllers ok\n",
        "[+]poststarthook/start-cluster-authentication-info-controller ok\n",
        "[+]shutdown ok\nreadyz check passed\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let (_, text) = anonymous.get("/livez?verbose&exclude=ping&exclude=pong").await;
    let text = text.as_str().unwrap();
    assert!(text.starts_with("[+]ping excluded: ok\n[+]log ok\n[+]etcd ok\n"), "{text}");
    let warning = "warn: some health checks cannot be excluded: no matches for \"pong\"\nlivez check passed\n";
    assert!(text.ends_with(warning), "{text}");
    assert_eq!(anonymous.get("/readyz/poststarthook/bootstrap-controller").await.1, "ok");
    for endpoint in ["healthz", "livez", "readyz"] {
        assert_eq!(anonymous.get(&format!("/{endpoint}/log")).await.1, "ok", "{endpoint}");
    }
    assert_eq!(anonymous.get("/readyz/pong").await.0, StatusCode::NOT_FOUND);
    assert_eq!(anonymous.get("/livez").await.1, "ok");
    assert_eq!(anonymous.get("/cacerts").await.1, harness.authority.cert_pem());
    assert_eq!(anonymous.get("/version").await.1["gitVersion"], "v1.36.0+coracle");
    assert_eq!(anonymous.get("/apis").await.0, StatusCode::FORBIDDEN);
    assert_eq!(anonymous.get(PODS).await.0, StatusCode::FORBIDDEN);
    client.get(PODS).await;
    let (_, metrics) = client.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("apiserver_request_total"), "{metrics}");
}

#[tokio::test]
async fn unknown_fields_warn_or_are_refused() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut object = pod("a");
    object["spec"]["colour"] = "red".into();
    let (code, status) = client.post(&format!("{PODS}?fieldValidation=Strict"), &object).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(status["message"].as_str().unwrap().contains("unknown field \"spec.colour\""), "{status}");
    let request =
        Request::post(PODS).header("content-type", "application/json").body(Body::from(object.to_string())).unwrap();
    let response = client.0.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["warning"], "299 - \"unknown field \\\"spec.colour\\\"\"");
}

#[tokio::test]
async fn a_signing_request_says_who_asked() {
    use base64::Engine;
    let harness = Harness::start().await;
    let node = harness.user(UserInfo::new("system:bootstrap:abcdef", &["system:bootstrappers"]));
    let (pem, _) = coracle_pki::request(&coracle_pki::Subject::member("system:node:n1", "system:nodes"), &[]).unwrap();
    let object = json!({"metadata": {"name": "n1"}, "spec": {"request": base64::engine::general_purpose::STANDARD.encode(pem),
        "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": ["client auth"], "username": "somebody else"}});
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let (code, made) = node.post(path, &object).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["username"], "system:bootstrap:abcdef");
    assert_eq!(made["spec"]["groups"], json!(["system:bootstrappers", "system:authenticated"]));
    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Test"}]}});
    assert_eq!(node.merge(&format!("{path}/n1/approval"), &approved).await.0, StatusCode::FORBIDDEN);
    let admin = harness.admin();
    let (code, answer) = admin.merge(&format!("{path}/n1/approval"), &approved).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert!(answer["status"]["conditions"][0]["lastUpdateTime"].is_string());
    let certificate = base64::engine::general_purpose::STANDARD.encode(harness.authority.cert_pem());
    let (_, answer) = admin.merge(&format!("{path}/n1/status"), &json!({"status": {"certificate": certificate}})).await;
    assert_eq!(answer["status"]["certificate"], certificate, "{answer}");
    assert_eq!(answer["status"]["conditions"][0]["type"], "Approved");
}
