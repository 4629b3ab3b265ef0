//! Answers in protobuf.

use crate::harness::{Client, Harness, LIMIT, pod};
use axum::body::Body;
use coracle_api::Gvk;
use coracle_apiserver::http::protobuf::{self, MEDIA_TYPE};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn ask(client: &Client, path: &str, accept: &str) -> (StatusCode, String, Vec<u8>) {
    let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
    let response = client.0.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let kind = head.headers["content-type"].to_str().unwrap().to_owned();
    (head.status, kind, body.collect().await.unwrap().to_bytes().to_vec())
}

fn encode(object: &Value) -> Option<Vec<u8>> {
    protobuf::encode(&object.clone().into())
}

fn decode(body: &[u8], gvk: &Gvk) -> Option<Value> {
    protobuf::decode(body, gvk).ok().map(Value::from)
}

fn read(body: &[u8], kind: &'static str) -> Value {
    decode(body, &Gvk::of("", "v1", kind)).unwrap()
}

#[tokio::test]
async fn objects_lists_and_statuses() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for nth in 0..120 {
        client.post(PODS, &pod(&format!("p{nth:03}"))).await;
    }
    let (_, json) = client.get(&format!("{PODS}/p007")).await;
    let (code, kind, body) = ask(&client, &format!("{PODS}/p007"), MEDIA_TYPE).await;
    assert_eq!((code, kind.as_str()), (StatusCode::OK, MEDIA_TYPE));
    let found = read(&body, "Pod");
    assert_eq!((&found["spec"], &found["metadata"]), (&json["spec"], &json["metadata"]));
    // Larger than one piece: the length in front is right.
    let (_, kind, body) = ask(&client, PODS, MEDIA_TYPE).await;
    let list = read(&body, "PodList");
    assert_eq!((kind.as_str(), list["items"].as_array().unwrap().len()), (MEDIA_TYPE, 120));
    assert!(body.len() > 64 << 10 && list["metadata"]["resourceVersion"].is_string());
    assert_eq!(list["items"][7]["spec"], json["spec"]);
    let (_, _, body) = ask(&client, &format!("{PODS}?limit=5"), MEDIA_TYPE).await;
    let page = read(&body, "PodList");
    assert_eq!((page["items"].as_array().unwrap().len(), &page["metadata"]["remainingItemCount"]), (5, &json!(115)));
    let (code, kind, body) = ask(&client, &format!("{PODS}/none"), MEDIA_TYPE).await;
    assert_eq!((code, kind.as_str()), (StatusCode::NOT_FOUND, MEDIA_TYPE));
    let status = read(&body, "Status");
    assert_eq!(
        (status["code"].as_i64(), &status["reason"], &status["details"]["name"]),
        (Some(404), &json!("NotFound"), &json!("none"))
    );
    let (_, kind, body) =
        ask(&client, "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", MEDIA_TYPE).await;
    assert_eq!(kind, MEDIA_TYPE);
    assert_eq!(
        decode(&body, &Gvk::of("autoscaling", "v1", "HorizontalPodAutoscalerList")).unwrap()["apiVersion"],
        "autoscaling/v1"
    );
}

/// What a Go client of apiextensions sends and is told: schemas, and what may stand in their place.
#[tokio::test]
async fn definitions_of_custom_resources() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let gvk = Gvk::of("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "x-kubernetes-validations": [{"rule": "self.size >= 0", "message": "too small", "fieldPath": ".size"}],
                "properties": {
                    "size": {"type": "integer", "minimum": 0.0, "default": 0},
                    "ratio": {"type": "number", "maximum": 0.5},
                    "on": {"type": "boolean", "default": false},
                    "color": {"type": "string", "enum": ["red", ""], "default": "", "minLength": 0},
                    "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "any": {"type": "object", "additionalProperties": true},
                    "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "port": {"x-kubernetes-int-or-string": true},
                },
            },
        },
    });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "boats.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "boats", "kind": "Boat"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}}}],
        },
    });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let request = Request::post(path)
        .header("content-type", MEDIA_TYPE)
        .header("accept", MEDIA_TYPE)
        .body(Body::from(encode(&definition).unwrap()))
        .unwrap();
    let response = client.0.clone().oneshot(request).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["content-type"].to_str().unwrap()),
        (StatusCode::CREATED, &MEDIA_TYPE)
    );
    let made = decode(&response.into_body().collect().await.unwrap().to_bytes(), &gvk).unwrap();
    // The same over JSON: nothing was lost on the way in, nor is on the way out.
    let (_, json) = client.get(&format!("{path}/boats.example.com")).await;
    assert_eq!(json["spec"]["versions"][0]["schema"]["openAPIV3Schema"], schema);
    assert_eq!(made["spec"], json["spec"]);
    let (code, _, body) = ask(&client, path, MEDIA_TYPE).await;
    let list = decode(&body, &Gvk::of("apiextensions.k8s.io", "v1", "CustomResourceDefinitionList")).unwrap();
    assert_eq!((code, &list["items"][0]["spec"]), (StatusCode::OK, &json["spec"]));
    for (path, group, kind) in [
        ("/apis/apiregistration.k8s.io/v1/apiservices", "apiregistration.k8s.io", "APIServiceList"),
        (
            "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies",
            "admissionregistration.k8s.io",
            "MutatingAdmissionPolicyList",
        ),
    ] {
        let (code, kind_of_answer, body) = ask(&client, path, MEDIA_TYPE).await;
        assert_eq!((code, kind_of_answer.as_str()), (StatusCode::OK, MEDIA_TYPE), "{path}");
        assert_eq!(decode(&body, &Gvk::of(group, "v1", kind)).unwrap()["kind"], kind);
    }
}

/// What there is, as a Go client that prefers protobuf asks for it.
#[tokio::test]
async fn discovery() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for (path, kind) in [
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/apis/apps", "APIGroup"),
        ("/api/v1", "APIResourceList"),
        ("/apis/apps/v1", "APIResourceList"),
        ("/apis/authentication.k8s.io/v1/", "APIResourceList"),
    ] {
        let (code, told, body) = ask(&client, path, &format!("{MEDIA_TYPE},application/json")).await;
        assert_eq!((code, told.as_str()), (StatusCode::OK, MEDIA_TYPE), "{path}");
        let (_, mut json) = client.get(path).await;
        // Those of core say no version.
        let version = json["apiVersion"].as_str().unwrap_or_default().to_owned();
        let envelope = [&[10, version.len() as u8][..], version.as_bytes(), &[18, kind.len() as u8], kind.as_bytes()];
        assert_eq!(&body[6..6 + envelope.concat().len()], envelope.concat(), "{path}");
        if path == "/apis/apps/v1" {
            // A resource's verbs are a message of their own, in its field 4 (apimachinery `meta/v1/generated.proto`, Verbs).
            let has = |bytes: &[u8]| body.windows(bytes.len()).any(|window| window == bytes);
            assert!(has(b"\x0a\x06create") && !has(b"\x22\x06create"));
        }
        json["apiVersion"] = "v1".into();
        if version.is_empty() {
            // Read as of the kind that is asked for, which has one.
            let stripped = envelope.concat().len() as u8;
            let raw = &body[6 + usize::from(stripped)..];
            let whole = [b"k8s\0", &[10, 0][..], raw].concat();
            assert_eq!(decode(&whole, &Gvk::of("", "v1", kind)).unwrap(), json, "{path}");
        } else {
            assert_eq!(decode(&body, &Gvk::of("", "v1", kind)).unwrap(), json, "{path}");
        }
    }
}

/// The fields of a message that are bytes, which all are that discovery has.
fn parts(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut parts = Vec::new();
    while let [key, rest @ ..] = bytes {
        assert_eq!(key & 7, 2, "{bytes:?}");
        let (mut length, mut shift, mut rest) = (0, 0, rest);
        loop {
            length |= usize::from(rest[0] & 127) << shift;
            shift += 7;
            let more = rest[0] > 127;
            rest = &rest[1..];
            if !more {
                break;
            }
        }
        parts.push((key >> 3, &rest[..length]));
        bytes = &rest[length..];
    }
    parts
}

/// k8s.io/api/apidiscovery/v2 `generated.proto`.
#[tokio::test]
async fn discovery_of_all_at_once() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let kind = format!("{MEDIA_TYPE};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let accept = format!("{kind},application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    for path in ["/api", "/apis"] {
        let (code, told, body) = ask(&client, path, &accept).await;
        assert_eq!((code, &told), (StatusCode::OK, &kind));
        let (_, _, json) = ask(&client, path, accept.split_once(',').unwrap().1).await;
        let json: Value = serde_json::from_slice(&json).unwrap();
        let unknown = parts(body.strip_prefix(b"k8s\0").unwrap());
        assert_eq!(parts(unknown[0].1), [(1, &b"apidiscovery.k8s.io/v2"[..]), (2, b"APIGroupDiscoveryList")]);
        let text = |bytes: &[u8]| Value::from(String::from_utf8(bytes.to_vec()).unwrap());
        let of_kind = |bytes: &[u8]| {
            let names = ["group", "version", "kind"];
            let fields = parts(bytes)
                .into_iter()
                .map(|(number, bytes)| (names[usize::from(number) - 1].to_owned(), text(bytes)));
            Value::Object(fields.collect())
        };
        let all = |parts: &[(u8, &[u8])], wanted: u8| -> Vec<Vec<u8>> {
            parts.iter().filter(|(number, _)| *number == wanted).map(|(_, bytes)| bytes.to_vec()).collect()
        };
        let texts = |parts: &[(u8, &[u8])], number: u8| -> Vec<Value> {
            all(parts, number).iter().map(|bytes| text(bytes)).collect()
        };
        let mut groups = Vec::new();
        for group in all(&parts(unknown[1].1), 2) {
            let group = parts(&group);
            let mut versions = Vec::new();
            for version in all(&group, 2) {
                let version = parts(&version);
                let mut resources = Vec::new();
                for resource in all(&version, 2) {
                    let resource = parts(&resource);
                    let mut found = json!({"resource": texts(&resource, 1)[0], "responseKind": of_kind(&all(&resource, 2)[0]),
                        "scope": texts(&resource, 3)[0], "singularResource": texts(&resource, 4)[0], "verbs": texts(&resource, 5)});
                    for (number, name) in [(6, "shortNames"), (7, "categories")] {
                        if !texts(&resource, number).is_empty() {
                            found[name] = texts(&resource, number).into();
                        }
                    }
                    let subresources = all(&resource, 8);
                    if !subresources.is_empty() {
                        let each = subresources.iter().map(|subresource| {
                            let subresource = parts(subresource);
                            json!({"subresource": texts(&subresource, 1)[0], "responseKind": of_kind(&all(&subresource, 2)[0]),
                                "verbs": texts(&subresource, 4)})
                        });
                        found["subresources"] = each.collect();
                    }
                    resources.push(found);
                }
                versions.push(json!({"version": texts(&version, 1)[0], "resources": resources, "freshness": texts(&version, 3)[0]}));
            }
            let name = parts(group[0].1);
            groups.push(json!({"metadata": {"name": texts(&name, 1)[0]}, "versions": versions}));
        }
        assert_eq!(Value::from(groups), json["items"], "{path}");
    }
    let (code, told, body) =
        ask(&client, "/api", "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").await;
    assert_eq!(
        (code, told.as_str()),
        (StatusCode::OK, "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
    );
    assert!(String::from_utf8(body).unwrap().contains("kind: APIGroupDiscoveryList\n"));
}

/// Zeros that Go writes on purpose arrive.
#[tokio::test]
async fn zeros_that_count_arrive() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "replicas": 0,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    });
    let request = Request::post("/apis/apps/v1/namespaces/default/deployments")
        .header("content-type", MEDIA_TYPE)
        .body(Body::from(encode(&deployment).unwrap()))
        .unwrap();
    assert_eq!(client.0.clone().oneshot(request).await.unwrap().status(), StatusCode::CREATED);
    let (_, made) = client.get("/apis/apps/v1/namespaces/default/deployments/d").await;
    assert_eq!(made["spec"]["strategy"]["rollingUpdate"], json!({"maxUnavailable": 0, "maxSurge": 1}));
    assert_eq!(made["spec"]["replicas"], 0);
}

#[tokio::test]
async fn what_has_no_protobuf_form_is_refused_or_json() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let table = format!("{MEDIA_TYPE};as=Table;v=v1;g=meta.k8s.io");
    assert_eq!(ask(&client, PODS, &table).await.0, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(ask(&client, PODS, &format!("{table},application/json")).await.1, "application/json");
    assert_eq!(ask(&client, "/version", MEDIA_TYPE).await.0, StatusCode::NOT_ACCEPTABLE);
    let partial = format!("{MEDIA_TYPE};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    client.post(PODS, &pod("a")).await;
    let (code, _, body) = ask(&client, PODS, &partial).await;
    assert_eq!(code, StatusCode::OK);
    assert!(body.windows(25).any(|window| window == b"PartialObjectMetadataList"), "{body:?}");
}

/// Upstream's controllers of StatefulSets and DaemonSets compare a revision's bytes with what Go's encoder writes: when they
/// differ, there is a new revision, and a rollout, with every look.
#[tokio::test]
async fn parts_without_a_type_are_as_go_writes_them() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let data = json!({"spec": {"command": "a <b> && c\u{2028}"}});
    let (code, made) = client.post(path, &json!({"metadata": {"name": "r"}, "revision": 1, "data": data})).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let (_, _, body) = ask(&client, &format!("{path}/r"), MEDIA_TYPE).await;
    let wanted = br#"{"spec":{"command":"a \u003cb\u003e \u0026\u0026 c\u2028"}}"#;
    assert!(body.windows(wanted.len()).any(|window| window == wanted), "{}", String::from_utf8_lossy(&body));
}

#[tokio::test]
async fn watches_are_framed() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    let path =
        format!("{PODS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let request = Request::get(path)
        .header("accept", format!("{MEDIA_TYPE};stream=watch,{MEDIA_TYPE}"))
        .body(Body::empty())
        .unwrap();
    let response = client.0.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let mut body = response.into_body();
    let mut buffer = Vec::new();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        while buffer.len() < 4 || buffer.len() < 4 + length(&buffer) {
            let frame = tokio::time::timeout(LIMIT, body.frame()).await.unwrap().unwrap().unwrap();
            buffer.extend_from_slice(frame.data_ref().unwrap());
        }
        let event: Vec<u8> = buffer.drain(..4 + length(&buffer)).skip(4).collect();
        // type = 1, object = 2 { raw = 1 }
        let end = 2 + usize::from(event[1]);
        let kind = String::from_utf8(event[2..end].to_vec()).unwrap();
        let object = event.windows(4).position(|window| window == b"k8s\0").unwrap();
        seen.push((kind, read(&event[object..], "Pod")));
    }
    assert_eq!((seen[0].0.as_str(), &seen[0].1["metadata"]["name"]), ("ADDED", &json!("a")));
    assert_eq!(
        (seen[1].0.as_str(), &seen[1].1["metadata"]["annotations"]["k8s.io/initial-events-end"]),
        ("BOOKMARK", &json!("true"))
    );
}

fn length(buffer: &[u8]) -> usize {
    u32::from_be_bytes(buffer[..4].try_into().unwrap()) as usize
}
