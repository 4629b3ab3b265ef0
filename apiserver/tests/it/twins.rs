//! Pods that are asked for in the same words: what is remembered of one gives the next exactly what it would have got otherwise.
//!
//! Every story is told twice, to a server that remembers and to one that is made to forget before each request; the answers,
//! and what is kept, must be the same.

use crate::harness::{Client, Harness};
use axum::body::Body;
use coracle_apiserver::http::protobuf;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

const PODS: &str = "/api/v1/namespaces/default/pods";
const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
const JSON: &str = "application/json";
/// As many other pods as make a server forget.
const OTHERS: usize = 16;

#[derive(Clone)]
struct Ask {
    method: Method,
    path: String,
    kind: &'static str,
    agent: &'static str,
    body: Vec<u8>,
}

fn ask(body: impl Into<Vec<u8>>) -> Ask {
    Ask { method: Method::POST, path: PODS.to_owned(), kind: JSON, agent: "kubectl/v1", body: body.into() }
}

impl Ask {
    fn at(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }

    fn with(self, query: &str) -> Self {
        Self { path: format!("{}?{query}", self.path), ..self }
    }

    fn by(self, agent: &'static str) -> Self {
        Self { agent, ..self }
    }

    fn of(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }
}

fn other(method: Method, path: &str, body: &Value) -> Ask {
    Ask { method, body: body.to_string().into(), ..ask("").at(path) }
}

fn spec() -> Value {
    json!({"containers": [{"name": "c", "image": "registry.example/web:1.27.3", "ports": [{"containerPort": 80}],
        "env": [{"name": "A", "value": "}\"{\\"}], "resources": {"requests": {"cpu": "100m"}}}]})
}

/// A pod as a client writes it, with the name in its place.
fn named(name: &str) -> String {
    with(name, &spec())
}

fn with(name: &str, spec: &Value) -> String {
    let metadata =
        json!({"name": name, "labels": {"app": "web"}, "annotations": {"name": "x", "note": "\"name\":\"web-1\""}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string()
}

fn generated(prefix: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"generateName": prefix, "labels": {"app": "web"}}, "spec": spec()})
}

/// What an answer says, without what is another each time.
fn lasting(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for (field, shown) in [("uid", 36), ("creationTimestamp", 20)] {
            if let Some(value) = metadata.remove(field) {
                assert_eq!(value.as_str().map(str::len), Some(shown), "{field}: {value}");
            }
        }
        metadata.remove("resourceVersion");
        if let (Some(prefix), Some(name)) = (metadata.get("generateName"), metadata.get("name")) {
            let (prefix, name) = (prefix.as_str().unwrap(), name.as_str().unwrap());
            let suffix = name.len().saturating_sub(5);
            assert!(prefix.starts_with(&name[..suffix]) || !name.starts_with(&prefix[..1]), "{prefix}, {name}");
            metadata["name"] = name[..suffix].into();
        }
        for entry in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            entry.as_object_mut().unwrap().remove("time").unwrap();
        }
    }
    if object["details"]["uid"].is_string() {
        object["details"]["uid"] = Value::Null;
    }
    object
}

async fn send(client: &Client, ask: &Ask) -> (u16, Vec<String>, Value) {
    let request = Request::builder().method(ask.method.clone()).uri(&ask.path).header("user-agent", ask.agent);
    let request = request.header("content-type", ask.kind).body(Body::from(ask.body.clone())).unwrap();
    let (head, body) = client.0.clone().oneshot(request).await.unwrap().into_parts();
    let warnings = head.headers.get_all("warning").iter().map(|text| text.to_str().unwrap().to_owned()).collect();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), warnings, serde_json::from_slice(&body).unwrap())
}

/// How many pods went the whole way.
async fn whole(harness: &Harness) -> u64 {
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let body = harness.admin().0.oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let lines =
        text.lines().filter(|line| line.starts_with("apiserver_admission_controller_admission_duration_seconds_count"));
    let of_pods = lines.filter(|line| line.contains("\"Priority\"") && line.contains("\"CREATE\""));
    of_pods.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Tells a story both ways, and gives the codes of the answers and how many pods were copied.
async fn tell(story: &[Ask]) -> (Vec<u16>, u64) {
    let (remembering, forgetting) = (Harness::start().await, Harness::start().await);
    let away = json!({"kind": "Namespace", "metadata": {"name": "away"}});
    for harness in [&remembering, &forgetting] {
        send(&harness.admin(), &other(Method::POST, "/api/v1/namespaces", &away)).await;
    }
    let mut codes = Vec::new();
    let mut creates = 0;
    let before = whole(&remembering).await;
    for (nth, step) in story.iter().enumerate() {
        for filler in 0..OTHERS {
            let mut spec = spec();
            spec["containers"][0]["args"] = json!([format!("{nth}-{filler}")]);
            let filler = ask(with(&format!("f-{nth}-{filler}"), &spec)).at("/api/v1/namespaces/away/pods");
            assert_eq!(send(&forgetting.admin(), &filler).await.0, 201);
        }
        let full = whole(&forgetting).await;
        let (code, warnings, object) = send(&remembering.admin(), step).await;
        let (expected, told, made) = send(&forgetting.admin(), step).await;
        creates += whole(&forgetting).await - full;
        let text = String::from_utf8_lossy(&step.body);
        assert_eq!((code, warnings), (expected, told), "step {nth}, {text}: {object}");
        assert_eq!(lasting(object), lasting(made), "step {nth}, {text}");
        // A list waits until the caches, which admission looks into, have what was just written.
        for harness in [&remembering, &forgetting] {
            harness.admin().get("/api/v1/nodes").await;
            harness.admin().get(CLASSES).await;
        }
        codes.push(code);
    }
    let copied = creates - (whole(&remembering).await - before);
    for path in [PODS, "/api/v1/namespaces/kube-public/pods"] {
        let mut kept = Vec::new();
        for harness in [&remembering, &forgetting] {
            let (_, list) = harness.admin().get(path).await;
            let items = list["items"].as_array().unwrap().iter();
            kept.push(items.map(|item| lasting(item.clone())).collect::<Vec<_>>());
        }
        assert_eq!(kept[0], kept[1], "{path}");
    }
    (codes, copied)
}

#[tokio::test]
async fn names_are_filled_in() {
    let names = ["web-1", "web-2", "w", "web-1", "web-3", &"x".repeat(63)];
    let story: Vec<Ask> = names.iter().map(|name| ask(named(name))).collect();
    assert_eq!(tell(&story).await, (vec![201, 201, 201, 409, 201, 201], 5));
}

#[tokio::test]
async fn names_that_are_judged_are_judged() {
    let long = "x".repeat(64);
    let longest = "x".repeat(254);
    let names = ["web-1", "web.2", "Web", "", "-", "web-", &long, &longest, "a/b", "é", "web\"", "web-4"];
    let story: Vec<Ask> = names.iter().map(|name| ask(named(name))).collect();
    let expected = vec![201, 201, 422, 422, 422, 422, 201, 422, 422, 422, 422, 201];
    assert_eq!(tell(&story).await, (expected, 1));
    // The other way round: of one that was warned of nothing is remembered.
    let story: Vec<Ask> = ["web.1", "web.2", "web-3", "web-4"].iter().map(|name| ask(named(name))).collect();
    assert_eq!(tell(&story).await, (vec![201; 4], 1));
}

#[tokio::test]
async fn names_are_generated() {
    let pod = generated("web-");
    let story = vec![ask(pod.to_string()); 4];
    assert_eq!(tell(&story).await, (vec![201; 4], 3));
    let long = generated(&"x".repeat(80));
    assert_eq!(tell(&vec![ask(long.to_string()); 2]).await, (vec![201; 2], 1));
    let dotted = generated("web.x-");
    assert_eq!(tell(&vec![ask(dotted.to_string()); 2]).await, (vec![201; 2], 0));
    let binary = protobuf::encode(&pod.clone().into()).unwrap();
    let story = vec![ask(binary).of(protobuf::MEDIA_TYPE); 3];
    assert_eq!(tell(&story).await, (vec![201; 3], 2));
    let both =
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"generateName": "web-", "name": ""}, "spec": spec()});
    assert_eq!(tell(&vec![ask(both.to_string()); 2]).await, (vec![201; 2], 1));
}

#[tokio::test]
async fn what_is_not_json_is_read() {
    let mut pod = generated("");
    pod["metadata"]["name"] = "a".into();
    let first = protobuf::encode(&pod.clone().into()).unwrap();
    pod["metadata"]["name"] = "b".into();
    let second = protobuf::encode(&pod.clone().into()).unwrap();
    let yaml = |name: &str| {
        ask(format!("metadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: a}}]}}")).of("application/yaml")
    };
    let story = [ask(first).of(protobuf::MEDIA_TYPE), ask(second).of(protobuf::MEDIA_TYPE), yaml("c"), yaml("d")];
    assert_eq!(tell(&story).await, (vec![201; 4], 0));
}

#[tokio::test]
async fn the_same_words_of_others_are_others() {
    let agents = [
        ask(named("a")),
        ask(named("b")).by("argo/1"),
        ask(named("c")).by("argo/2"),
        ask(named("d")).with("fieldManager=kubectl"),
    ];
    assert_eq!(tell(&agents).await, (vec![201; 4], 2));
    let wrong = named("a").replace("\"image\"", "\"imagine\":1,\"image\"");
    let loose = ask(wrong.clone()).with("fieldValidation=Ignore");
    let again = ask(wrong.replace("\"a\"", "\"b\"")).with("fieldValidation=Ignore");
    let strict = ask(wrong.replace("\"a\"", "\"c\"")).with("fieldValidation=Strict");
    let warned = ask(wrong.replace("\"a\"", "\"d\""));
    assert_eq!(tell(&[loose, again, strict, warned]).await, (vec![201, 201, 400, 201], 1));
    let elsewhere = ask(named("b")).at("/api/v1/namespaces/kube-public/pods");
    assert_eq!(tell(&[ask(named("a")), elsewhere, ask(named("b"))]).await, (vec![201; 3], 1));
    let mut placed: Value = serde_json::from_str(&named("a")).unwrap();
    placed["metadata"]["namespace"] = "default".into();
    let elsewhere = ask(placed.to_string().replace("\"a\"", "\"b\"")).at("/api/v1/namespaces/kube-public/pods");
    assert_eq!(tell(&[ask(placed.to_string()), elsewhere]).await, (vec![201, 400], 0));
    let nowhere = ask(named("b")).at("/api/v1/namespaces/nowhere/pods");
    assert_eq!(tell(&[ask(named("a")), nowhere]).await, (vec![201, 404], 0));
}

#[tokio::test]
async fn what_is_tried_is_not_made() {
    let story =
        [ask(named("a")).with("dryRun=All"), ask(named("a")), ask(named("b")).with("dryRun=All"), ask(named("b"))];
    assert_eq!(tell(&story).await, (vec![201; 4], 1));
    let versioned = named("a").replace("\"metadata\":{", "\"metadata\":{\"resourceVersion\":\"5\",");
    assert!(versioned.contains("\"5\""));
    let again = versioned.replace("\"a\"", "\"b\"");
    assert_eq!(tell(&[ask(versioned), ask(again)]).await, (vec![500; 2], 0));
}

#[tokio::test]
async fn documents_are_what_they_say() {
    let spaced = |name: &str| {
        format!(" {{ \"spec\" : {} ,\n\"metadata\":{{ \"labels\":{{}} , \"name\" :\"{name}\" }} }}\n", spec())
    };
    assert_eq!(tell(&[ask(spaced("a")), ask(spaced("b"))]).await, (vec![201; 2], 1));
    // The later of two counts, wherever it stands.
    for text in [
        "{\"metadata\":{\"name\":\"N\",\"name\":\"z\"},\"spec\":S}",
        "{\"metadata\":{\"name\":\"z\",\"name\":\"N\"},\"spec\":S}",
        "{\"metadata\":{\"name\":\"z\"},\"metadata\":{\"name\":\"N\"},\"spec\":S}",
        "{\"metadata\":{\"n\\u0061me\":\"N\"},\"spec\":S}",
        "{\"metadata\":{\"Name\":\"N\",\"name\":\"z\"},\"spec\":S}",
        "{\"metadata\":{\"name\":\"\\u0061N\"},\"spec\":S}",
    ] {
        let of = |name: &str| {
            let text = text.replace('S', &spec().to_string()).replace("\"N\"", &format!("\"{name}\""));
            ask(text.replace('N', name)).with("fieldValidation=Ignore")
        };
        assert_eq!(tell(&[of("aa"), of("bb")]).await.1, 0, "{text}");
    }
    let owned = |name: &str| {
        let owner = json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u"});
        ask(json!({"metadata": {"name": name, "ownerReferences": [owner, owner]}, "spec": spec()}).to_string())
    };
    assert_eq!(tell(&[owned("a"), owned("b")]).await, (vec![201; 2], 1));
    let emptied = |name: &str| {
        let mut spec = spec();
        spec["volumes"] = json!([]);
        spec["nodeSelector"] = json!({});
        ask(json!({"metadata": {"name": name, "uid": "mine", "generation": 7, "selfLink": "x"}, "spec": spec, "status": {"phase": "Running"}}).to_string())
    };
    assert_eq!(tell(&[emptied("a"), emptied("b")]).await, (vec![201; 2], 1));
}

#[tokio::test]
async fn claims_called_after_their_pod_are_looked_at() {
    let mut spec = spec();
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let volume = "v".repeat(60);
    spec["volumes"] = json!([{"name": volume, "ephemeral": {"volumeClaimTemplate": claim}},
        {"name": "w", "persistentVolumeClaim": {"claimName": format!("b-{volume}")}}]);
    assert_eq!(tell(&[ask(with("a", &spec)), ask(with("b", &spec))]).await, (vec![201, 422], 0));
}

#[tokio::test]
async fn the_cluster_is_looked_at() {
    let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default});
    let story = [
        ask(named("a")),
        ask(named("b")),
        other(Method::POST, CLASSES, &class("usual", 7, true)),
        ask(named("c")),
        ask(named("d")),
        other(Method::DELETE, &format!("{CLASSES}/usual"), &json!({})),
        ask(named("e")),
        other(Method::POST, CLASSES, &class("usual", 9, true)),
        ask(named("f")),
        other(Method::PATCH, &format!("{CLASSES}/usual"), &json!({"metadata": {"labels": {"a": "b"}}}))
            .of("application/merge-patch+json"),
        ask(named("g")),
    ];
    assert_eq!(tell(&story).await, (vec![201, 201, 201, 201, 201, 200, 201, 201, 201, 200, 201], 2));
    let mut placed = spec();
    placed["nodeName"] = "n1".into();
    let place = |zone: &str| json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
    let mut node = place("z1");
    node["metadata"]["name"] = "n1".into();
    let story = [
        ask(with("a", &placed)),
        ask(with("b", &placed)),
        other(Method::POST, "/api/v1/nodes", &node),
        ask(with("c", &placed)),
        ask(with("d", &placed)),
        other(Method::PATCH, "/api/v1/nodes/n1", &place("z2")).of("application/merge-patch+json"),
        ask(with("e", &placed)),
        other(Method::DELETE, "/api/v1/nodes/n1", &json!({})),
        ask(with("f", &placed)),
    ];
    assert_eq!(tell(&story).await, (vec![201, 201, 201, 201, 201, 200, 201, 200, 201], 2));
}

#[tokio::test]
async fn nothing_is_made_where_everything_goes() {
    let stays = |name: &str| ask(named(name)).at("/api/v1/namespaces/away/pods");
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    let story = [
        stays("a"),
        stays("b"),
        other(Method::PATCH, "/api/v1/namespaces/away/pods/a", &held).of("application/merge-patch+json"),
    ];
    assert_eq!(tell(&story).await, (vec![201, 201, 200], 1));
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post("/api/v1/namespaces", &json!({"metadata": {"name": "away"}})).await;
    for step in &story {
        assert!(send(&client, step).await.0 < 300);
    }
    client.delete("/api/v1/namespaces/away").await;
    let (code, _, status) = send(&client, &stays("c")).await;
    assert_eq!((code, &status["details"]["causes"][0]["reason"]), (403, &json!("NamespaceTerminating")), "{status}");
}

#[tokio::test]
async fn warnings_are_told_again() {
    let mut spec = spec();
    let mut second = spec["containers"][0].clone();
    second["name"] = "d".into();
    spec["containers"].as_array_mut().unwrap().push(second);
    spec["containers"][0]["ports"][0]["name"] = "http".into();
    spec["containers"][1]["ports"] = json!([{"containerPort": 81, "name": "http"}]);
    let story = ["a", "b", "c.d", "e"].map(|name| ask(with(name, &spec)));
    let harness = Harness::start().await;
    let (_, told, _) = send(&harness.admin(), &story[0]).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(tell(&story).await, (vec![201; 4], 2));
}

#[tokio::test]
async fn what_is_large_is_not_kept() {
    let mut spec = spec();
    spec["containers"][0]["args"] = json!(["x".repeat(32 << 10)]);
    assert_eq!(tell(&[ask(with("a", &spec)), ask(with("b", &spec))]).await, (vec![201; 2], 0));
}
