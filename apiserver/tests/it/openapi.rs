//! OpenAPI: what the documents say of operations. Built-in ones are held against the Python client in `client.py`.

use crate::custom::{define, widgets};
use crate::harness::{Client, Harness};
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Each operation with its path and method.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let all = paths.flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters");
        operations.map(move |(method, operation)| (format!("{method} {path}"), operation))
    });
    all.collect()
}

async fn ids(client: &Client, url: &str) -> Vec<(String, String)> {
    let (code, document) = client.get(url).await;
    assert_eq!(code, StatusCode::OK, "{url}");
    let id = |operation: &Value| operation["operationId"].as_str().unwrap().to_owned();
    operations(&document).into_iter().map(|(place, operation)| (place, id(operation))).collect()
}

#[tokio::test]
async fn both_documents_call_operations_the_same() {
    let harness = Harness::start().await;
    let client = harness.admin();
    define(&client, &widgets()).await;
    let (_, root) = client.get("/openapi/v3").await;
    let mut of_v3 = Vec::new();
    for page in root["paths"].as_object().unwrap().values() {
        of_v3.extend(ids(&client, page["serverRelativeURL"].as_str().unwrap()).await);
    }
    let mut of_v2 = ids(&client, "/openapi/v2").await;
    let unique: HashSet<&String> = of_v3.iter().map(|(_, id)| id).collect();
    assert_eq!(unique.len(), of_v3.len());
    of_v3.sort();
    of_v2.sort();
    assert_eq!(of_v3, of_v2);
    let known = |place: &str, id: &str| of_v3.contains(&(place.to_owned(), id.to_owned()));
    assert!(known("get /api/v1/watch/namespaces/{namespace}/pods/{name}", "watchCoreV1NamespacedPod"));
    assert!(known("get /api/v1/watch/namespaces/{namespace}/pods", "watchCoreV1NamespacedPodList"));
    assert!(known("get /api/v1/watch/pods", "watchCoreV1PodListForAllNamespaces"));
    assert!(known("delete /api/v1/namespaces/{namespace}/pods", "deleteCoreV1CollectionNamespacedPod"));
}

#[tokio::test]
async fn operations_of_custom_resources() {
    let harness = Harness::start().await;
    let client = harness.admin();
    define(&client, &widgets()).await;
    let (_, document) = client.get("/openapi/v3/apis/example.com/v1").await;
    let base = "/apis/example.com/v1";
    let item = format!("{base}/namespaces/{{namespace}}/widgets");
    let expected = [
        ("get", format!("{base}/"), "getExampleComV1APIResources"),
        ("get", format!("{base}/widgets"), "listExampleComV1WidgetForAllNamespaces"),
        ("delete", item.clone(), "deleteExampleComV1CollectionNamespacedWidget"),
        ("get", item.clone(), "listExampleComV1NamespacedWidget"),
        ("post", item.clone(), "createExampleComV1NamespacedWidget"),
        ("delete", format!("{item}/{{name}}"), "deleteExampleComV1NamespacedWidget"),
        ("get", format!("{item}/{{name}}"), "readExampleComV1NamespacedWidget"),
        ("patch", format!("{item}/{{name}}"), "patchExampleComV1NamespacedWidget"),
        ("put", format!("{item}/{{name}}"), "replaceExampleComV1NamespacedWidget"),
        ("get", format!("{item}/{{name}}/scale"), "readExampleComV1NamespacedWidgetScale"),
        ("patch", format!("{item}/{{name}}/scale"), "patchExampleComV1NamespacedWidgetScale"),
        ("put", format!("{item}/{{name}}/scale"), "replaceExampleComV1NamespacedWidgetScale"),
        ("get", format!("{item}/{{name}}/status"), "readExampleComV1NamespacedWidgetStatus"),
        ("patch", format!("{item}/{{name}}/status"), "patchExampleComV1NamespacedWidgetStatus"),
        ("put", format!("{item}/{{name}}/status"), "replaceExampleComV1NamespacedWidgetStatus"),
    ];
    let found = operations(&document);
    assert_eq!(found.len(), expected.len());
    for (method, path, id) in &expected {
        let operation = &document["paths"][path][method];
        assert_eq!((&operation["operationId"], &operation["tags"]), (&json!(id), &json!(["exampleCom_v1"])));
        if id.contains("Widget") {
            let kind = json!({"group": "example.com", "version": "v1", "kind": "Widget"});
            assert_eq!(operation["x-kubernetes-group-version-kind"], kind, "{id}");
        }
    }
    let named = &document["paths"][format!("{item}/{{name}}")];
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|each| each["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&named["parameters"]), ["namespace", "name", "pretty"]);
    assert_eq!(names(&named["patch"]["parameters"]), ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let patches = named["patch"]["requestBody"]["content"].as_object().unwrap();
    assert!(!patches.contains_key("application/strategic-merge-patch+json"), "which they do not take");
    let described = |list: &Value| list.as_array().unwrap().iter().all(|each| each["description"].is_string());
    assert!(described(&named["parameters"]) && described(&named["patch"]["parameters"]));
}

#[tokio::test]
async fn what_goes_and_comes() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (_, core) = client.get("/openapi/v3/api/v1").await;
    let namespaced = |rest: &str| &core["paths"][format!("/api/v1/namespaces/{{namespace}}/{rest}")];
    let gives = |operation: &Value, code: &str| {
        let schema = &operation["responses"][code]["content"]["application/json"]["schema"];
        schema["$ref"].as_str().map(|name| name.rsplit('.').next().unwrap().to_owned())
    };
    // Some kinds are answered with what went.
    assert_eq!(gives(&namespaced("pods/{name}")["delete"], "202").as_deref(), Some("Pod"));
    assert_eq!(gives(&namespaced("configmaps/{name}")["delete"], "200").as_deref(), Some("Status"));
    assert_eq!(gives(&namespaced("pods")["post"], "201").as_deref(), Some("Pod"));
    assert_eq!(gives(&namespaced("pods")["get"], "200").as_deref(), Some("PodList"));
    assert_eq!(gives(&core["paths"]["/api/v1/watch/pods"]["get"], "200").as_deref(), Some("WatchEvent"));
    let log = &namespaced("pods/{name}/log")["get"];
    assert_eq!(log["responses"]["200"]["content"]["text/plain"]["schema"], json!({"type": "string"}));
    assert_eq!(log["x-kubernetes-group-version-kind"]["kind"], "Pod");
    let token = &core["components"]["securitySchemes"]["BearerToken"];
    assert_eq!(
        (&token["type"], &token["in"], &token["name"]),
        (&json!("apiKey"), &json!("header"), &json!("authorization"))
    );
    let (_, version) = client.get("/openapi/v3/version").await;
    assert_eq!(version["paths"]["/version/"]["get"]["operationId"], "getCodeVersion");
}
