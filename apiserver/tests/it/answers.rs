//! What a person with curl or kubectl sees besides the objects: layout, warnings, pages that are not there, options that are wrong.

use crate::harness::{Client, Harness, pod};
use axum::body::Body;
use coracle_apiserver::UserInfo;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

const PODS: &str = "/api/v1/namespaces/default/pods";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn ask(client: &Client, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let (head, body) = client.0.clone().oneshot(request).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    (head.status, head.headers, text)
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    request.body(Body::empty()).unwrap()
}

fn warnings(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all("warning").iter().map(|warning| warning.to_str().unwrap()).collect()
}

#[tokio::test]
async fn json_is_laid_out_for_people() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for nth in 0..200 {
        client.post(PODS, &pod(&format!("p{nth:03}"))).await;
    }
    let curl = [("user-agent", "curl/8.5.0")];
    for path in [PODS, &format!("{PODS}/p001"), &format!("{PODS}/none"), "/apis", "/apis/apps/v1"] {
        let (_, _, text) = ask(&client, get(path, &curl)).await;
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text.trim_end(), serde_json::to_string_pretty(&value).unwrap(), "{path}");
        let (_, _, text) = ask(&client, get(&format!("{path}?pretty=false"), &curl)).await;
        assert!(text.starts_with("{\""), "{path}: {text}");
        let (_, _, text) = ask(&client, get(&format!("{path}?pretty=true"), &[])).await;
        assert!(text.starts_with("{\n  \""), "{path}: {text}");
    }
    // This one always.
    assert!(ask(&client, get("/version", &[])).await.2.starts_with("{\n  \"major\": \"1\",\n"));
}

#[tokio::test]
async fn where_there_is_nothing() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for path in ["/nope", "/apis/none", "/apis/none/v1", "/openapi/v3/apis/none/v1"] {
        let (code, headers, text) = ask(&client, get(path, &[])).await;
        assert_eq!((code, text.as_str()), (StatusCode::NOT_FOUND, "404 page not found\n"), "{path}");
        assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    }
    // In the server's own groups it is told as a status, as upstream's router has paths for each of them.
    for path in [
        "/api/v1/nones",
        "/api/v1/pods/a",
        "/api/v1/a/b/c/d",
        "/api/v2/pods",
        "/api/v1/namespaces/default/nodes",
        "/apis/apps/v1beta1/deployments",
        "/apis/apps/v1/namespaces/default/deployments/a/none",
    ] {
        let (code, status) = client.get(path).await;
        let expected = "the server could not find the requested resource";
        assert_eq!((code, status["message"].as_str()), (StatusCode::NOT_FOUND, Some(expected)), "{path}");
        assert_eq!((&status["reason"], &status["details"]), (&json!("NotFound"), &json!({})), "{path}");
    }
    // What is a resource, but not there, is told as a status.
    let (code, status) = client.get("/apis/apps/v1/namespaces/default/deployments/a").await;
    assert_eq!((code, &status["reason"]), (StatusCode::NOT_FOUND, &json!("NotFound")));
}

#[tokio::test]
async fn aggregated_discovery_is_not_sent_twice() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let accept = ("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let (code, headers, text) = ask(&client, get("/apis", &[accept])).await;
    assert_eq!((code, headers["vary"].to_str().unwrap()), (StatusCode::OK, "Accept"));
    assert!(text.contains("\"kind\":\"APIGroupDiscoveryList\""), "{text}");
    let etag = headers["etag"].to_str().unwrap().to_owned();
    let (code, _, text) = ask(&client, get("/apis", &[accept, ("if-none-match", &etag)])).await;
    assert_eq!((code, text.as_str()), (StatusCode::NOT_MODIFIED, ""));
    let (code, ..) = ask(&client, get("/api", &[accept, ("if-none-match", &etag)])).await;
    assert_eq!(code, StatusCode::OK);
}

#[tokio::test]
async fn warnings_come_with_what_failed_too() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut object = pod("a");
    object["spec"]["colour"] = "red".into();
    object["spec"]["restartPolicy"] = "Sometimes".into();
    let post = Request::post(PODS).header("content-type", "application/json");
    let (code, headers, _) = ask(&client, post.body(Body::from(object.to_string())).unwrap()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(warnings(&headers), ["299 - \"unknown field \\\"spec.colour\\\"\""]);
}

#[tokio::test]
async fn deprecated_kinds_say_so() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (_, headers, _) = ask(&client, get("/api/v1/endpoints", &[])).await;
    let expected = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!(warnings(&headers), [expected]);
    let (_, headers, _) = ask(&client, get("/api/v1/componentstatuses", &[])).await;
    assert_eq!(warnings(&headers), ["299 - \"v1 ComponentStatus is deprecated in v1.19+\""]);

    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let version =
        |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": schema});
    let mut versions = [version("v1", true), version("v1beta1", false), version("v1alpha1", false)];
    versions[1]["deprecated"] = true.into();
    versions[2]["deprecated"] = true.into();
    versions[2]["deprecationWarning"] = "sinks".into();
    let definition = json!({"metadata": {"name": "boats.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "boats", "kind": "Boat"}, "versions": versions}});
    let (code, made) = client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    for (version, expected) in [
        ("v1", None),
        ("v1beta1", Some("299 - \"example.com/v1beta1 Boat is deprecated; use example.com/v1 Boat\"")),
        ("v1alpha1", Some("299 - \"sinks\"")),
    ] {
        let path = format!("/apis/example.com/{version}/boats");
        let mut answer = ask(&client, get(&path, &[])).await;
        while answer.0 == StatusCode::NOT_FOUND {
            tokio::task::yield_now().await;
            answer = ask(&client, get(&path, &[])).await;
        }
        assert_eq!(warnings(&answer.1), expected.into_iter().collect::<Vec<_>>(), "{version}");
    }
}

#[tokio::test]
async fn options_that_are_wrong() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (_, list) = client.get(&format!("{CONFIG_MAPS}?continue=abc")).await;
    assert!(
        list["message"].as_str().unwrap().starts_with("invalid continue token: continue key is not valid: "),
        "{list}"
    );
    let (code, status) = client.delete(&format!("{CONFIG_MAPS}/a?dryRun=Some")).await;
    assert_eq!((code, &status["details"]["kind"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("DeleteOptions")));
    client.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}})).await;
    let (code, status) =
        client.delete(&format!("{CONFIG_MAPS}/a?propagationPolicy=Orphan&orphanDependents=true")).await;
    assert_eq!(
        (code, &status["details"]["causes"][0]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("propagationPolicy"))
    );
    assert_eq!(client.get(&format!("{CONFIG_MAPS}/a")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn pods_are_warned_of_what_was_hardly_meant() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut object = pod("a");
    object["spec"]["nodeSelector"] = json!({"beta.kubernetes.io/os": "linux"});
    let deployment = json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": object["spec"]}}});
    let why = "nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \\\"kubernetes.io/os\\\" instead\"";
    for (method, path, body, expected) in [
        ("POST", PODS, &object, format!("299 - \"spec.{why}")),
        (
            "POST",
            "/apis/apps/v1/namespaces/default/deployments",
            &deployment,
            format!("299 - \"spec.template.spec.{why}"),
        ),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/default/deployments/a",
            &json!({"spec": {"paused": true}}),
            format!("299 - \"spec.template.spec.{why}"),
        ),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/default/deployments/a",
            &json!({"metadata": {"labels": {"x": "y"}}}),
            String::new(),
        ),
    ] {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let (code, headers, text) = ask(&client, request.body(Body::from(body.to_string())).unwrap()).await;
        assert!(code.is_success(), "{method} {path}: {text}");
        assert_eq!(warnings(&headers).first().copied().unwrap_or_default(), expected, "{method} {path}");
    }
}

#[tokio::test]
async fn figures_are_in_the_text_that_every_scraper_reads() {
    let harness = Harness::start().await;
    let client = harness.admin();
    // A figure that nothing was counted in is not told.
    client.get(PODS).await;
    let (_, headers, text) = ask(&client, get("/metrics", &[("accept", "application/openmetrics-text")])).await;
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "# TYPE apiserver_flowcontrol_dispatched_requests_total counter",
        "# TYPE apiserver_request_total counter",
        "# TYPE apiserver_request_duration_seconds histogram",
        "# TYPE kubernetes_build_info gauge",
        "# TYPE process_start_time_seconds gauge",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in {text}");
    }
    assert!(text.contains("# HELP process_open_fds Open file descriptors") && !text.contains("# EOF"), "{text}");
}

#[tokio::test]
async fn groups_are_tried_in_upstreams_order() {
    let harness = Harness::start().await;
    let (_, groups) = harness.admin().get("/apis").await;
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["apiregistration.k8s.io", "apps", "events.k8s.io"]);
}

#[tokio::test]
async fn what_a_server_says_of_itself() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let said = "This endpoint is not meant to be machine parseable";
    for accept in [None, Some("text/plain"), Some("*/*"), Some("application/json;v=foo;g=config.k8s.io;as=Statusz,*/*")]
    {
        let accept = accept.map(|accept| ("accept", accept));
        let (code, headers, text) = ask(&client, get("/statusz", accept.as_slice())).await;
        assert_eq!((code, &headers["content-type"]), (StatusCode::OK, &"text/plain; charset=utf-8".parse().unwrap()));
        assert!(text.starts_with("\nkube-apiserver statusz\nWarning: ") && text.contains(said), "{text}");
        assert!(
            text.contains("\nEmulation version: 1.36\nPaths: /cacerts")
                || text.contains("\nPaths: /flagz /healthz /livez /metrics /readyz /statusz /version\n"),
            "{text}"
        );
    }
    for accept in ["application/xml", "application/json", "application/json;v=v1beta1;g=config.k8s.io", "application/*"]
    {
        let (code, _, text) = ask(&client, get("/statusz", &[("accept", accept)])).await;
        assert_eq!(code, StatusCode::NOT_ACCEPTABLE, "{accept}");
        assert!(
            text.contains("only the following media types are accepted: application/json, application/yaml"),
            "{text}"
        );
    }
    for (version, warned) in [("v1beta1", false), ("v1alpha1", true)] {
        let accept = format!("application/json;v={version};g=config.k8s.io;as=Statusz");
        let (code, headers, text) = ask(&client, get("/statusz", &[("accept", &accept)])).await;
        let page: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, headers.contains_key("warning")), (StatusCode::OK, warned), "{version}");
        assert_eq!((&page["kind"], &page["metadata"]["name"]), (&json!("Statusz"), &json!("kube-apiserver")));
        assert_eq!(page["apiVersion"], format!("config.k8s.io/{version}"));
        assert_eq!(page["emulationVersion"], "1.36");
        assert!(page["uptimeSeconds"].is_i64() && page["startTime"].is_string(), "{page}");
    }
    let (_, _, text) = ask(&client, get("/flagz", &[])).await;
    assert!(text.contains(said) && text.contains("\nservice-node-port-range=30000-32767\n"), "{text}");
    let accept = "application/yaml;v=v1beta1;g=config.k8s.io;as=Flagz";
    let (_, _, text) = ask(&client, get("/flagz", &[("accept", accept)])).await;
    assert!(text.contains("kind: Flagz\n") && text.contains("  service-cluster-ip-range: 10.96.0.0/16\n"), "{text}");
    // Only who watches over the server reads them.
    let jane = harness.user(UserInfo::new("jane", &["system:authenticated"]));
    for path in ["/statusz", "/flagz"] {
        assert_eq!(jane.get(path).await.0, StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn the_paths_that_there_are() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (code, headers, text) = ask(&client, get("/", &[])).await;
    let index: Value = serde_json::from_str(&text).unwrap();
    let paths: Vec<&str> = index["paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert_eq!((code, &headers["cache-control"]), (StatusCode::OK, &"no-cache, private".parse().unwrap()));
    assert!(paths.is_sorted(), "{paths:?}");
    for path in [
        "/apis/apps",
        "/apis/apps/v1",
        "/livez/ping",
        "/readyz/informer-sync",
        "/healthz/poststarthook/crd-informer-synced",
    ] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    for path in paths {
        let (code, headers, text) = ask(&client, get(path, &[])).await;
        assert_eq!(code, StatusCode::OK, "{path}: {text}");
        assert!(headers.contains_key("cache-control"), "{path}");
    }
}
