//! Server-side apply and managedFields.

use crate::harness::{Client, Harness};
use coracle_apiserver::UserInfo;
use http::{Method, StatusCode};
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";

fn web(spec: &Value) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    for (name, value) in spec.as_object().unwrap() {
        object["spec"][name] = value.clone();
    }
    object
}

async fn apply(client: &Client, path: &str, query: &str, config: &Value) -> (StatusCode, Value) {
    let path = format!("{path}?{query}");
    client.send(Method::PATCH, &path, "application/apply-patch+yaml", config.to_string()).await
}

/// Manager, operation, version and subresource of each entry.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let line = |entry: &Value| {
        ["manager", "operation", "apiVersion", "subresource"].map(|name| text(entry, name)).join(" ").trim().to_owned()
    };
    entries.iter().map(line).collect()
}

/// The fields of the nth entry.
fn fields(object: &Value, nth: usize) -> &Value {
    &object["metadata"]["managedFields"][nth]["fieldsV1"]
}

#[tokio::test]
async fn an_apply_makes_changes_and_removes() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (code, made) = apply(&client, WEB, "fieldManager=one", &web(&json!({"replicas": 2, "paused": true}))).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(owners(&made), ["one Apply apps/v1"]);
    assert_eq!(made["spec"]["progressDeadlineSeconds"], 600, "defaults are not owned");
    assert_eq!(
        fields(&made, 0)["f:spec"],
        json!({"f:paused": {}, "f:replicas": {}, "f:selector": {}, "f:template": {"f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}}}}})
    );
    let (code, same) = apply(&client, WEB, "fieldManager=one", &web(&json!({"replicas": 2, "paused": true}))).await;
    assert_eq!((code, &same["metadata"]), (StatusCode::OK, &made["metadata"]), "nothing changed, nothing is written");
    let (_, less) = apply(&client, WEB, "fieldManager=one", &web(&json!({"replicas": 2}))).await;
    assert_eq!((less["spec"].get("paused"), &less["metadata"]["generation"]), (None, &json!(2)), "{less}");

    let (code, status) = apply(&client, WEB, "fieldManager=two", &web(&json!({"replicas": 3}))).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert_eq!(status["message"], "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.replicas"}])
    );
    let (code, forced) = apply(&client, WEB, "fieldManager=two&force=true", &web(&json!({"replicas": 3}))).await;
    assert_eq!((code, &forced["spec"]["replicas"]), (StatusCode::OK, &json!(3)));
    assert_eq!(fields(&forced, 0)["f:spec"].get("f:replicas"), None, "{forced}");
    // Two appliers own the container: one of them cannot remove it.
    let (_, shared) = apply(
        &client,
        WEB,
        "fieldManager=one",
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}),
    )
    .await;
    assert_eq!(shared["spec"]["template"]["spec"]["containers"][0]["name"], "c");
    assert_eq!(owners(&shared), ["two Apply apps/v1"]);
}

#[tokio::test]
async fn writes_are_told_apart_by_manager_and_subresource() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (_, made) = client.post(&format!("{DEPLOYMENTS}?fieldManager=maker"), &web(&json!({"replicas": 1}))).await;
    assert_eq!(owners(&made), ["maker Update apps/v1"]);
    assert!(
        fields(&made, 0)["f:spec"]["f:template"]["f:spec"].get("f:restartPolicy").is_some(),
        "defaults are the maker's"
    );
    client.merge(&format!("{WEB}/status?fieldManager=controller"), &json!({"status": {"replicas": 1}})).await;
    let scale = json!({"spec": {"replicas": 4}});
    let (code, _) = client.merge(&format!("{WEB}/scale?fieldManager=scaler"), &scale).await;
    assert_eq!(code, StatusCode::OK);
    let (_, now) = client.get(WEB).await;
    let mut found = owners(&now);
    found.sort();
    assert_eq!(found, ["controller Update apps/v1 status", "maker Update apps/v1", "scaler Update apps/v1 scale"]);
    let scaler = now["metadata"]["managedFields"].as_array().unwrap().iter().find(|entry| entry["manager"] == "scaler");
    assert_eq!(scaler.unwrap()["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    let (code, status) = apply(&client, WEB, "fieldManager=x", &web(&json!({"replicas": 9}))).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert_eq!(
        status["message"],
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 5}});
    let (code, status) = apply(&client, &format!("{WEB}/scale"), "fieldManager=y", &scale).await;
    assert_eq!(code, StatusCode::CONFLICT, "{status}");
    let (code, scaled) = apply(&client, &format!("{WEB}/scale"), "fieldManager=y&force=true", &scale).await;
    assert_eq!((code, &scaled["kind"], &scaled["spec"]["replicas"]), (StatusCode::OK, &json!("Scale"), &json!(5)));
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 7}, "status": {"readyReplicas": 1}});
    let (code, answer) = apply(&client, &format!("{WEB}/status"), "fieldManager=z", &status).await;
    assert_eq!(
        (code, &answer["spec"]["replicas"], &answer["status"]["readyReplicas"]),
        (StatusCode::OK, &json!(5), &json!(1))
    );
    let applied = answer["metadata"]["managedFields"].as_array().unwrap().iter().find(|entry| entry["manager"] == "z");
    assert_eq!(applied.unwrap()["fieldsV1"], json!({"f:status": {"f:readyReplicas": {}}}));
}

#[tokio::test]
async fn a_dry_run_applies_nothing() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (code, _) = apply(&client, WEB, "fieldManager=one&dryRun=All", &web(&json!({}))).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(client.get(WEB).await.0, StatusCode::NOT_FOUND);
    apply(&client, WEB, "fieldManager=one", &web(&json!({"replicas": 1}))).await;
    let (_, tried) = apply(&client, WEB, "fieldManager=one&dryRun=All", &web(&json!({"replicas": 2}))).await;
    assert_eq!(tried["spec"]["replicas"], 2);
    assert_eq!(client.get(WEB).await.1["spec"]["replicas"], 1);
}

#[tokio::test]
async fn bad_applies_are_refused() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let rows: [(&str, Value, u16, &str); 7] = [
        (
            "",
            web(&json!({})),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        ("fieldManager=a", json!({"kind": "Deployment"}), 400, "invalid object type: /, Kind=Deployment"),
        (
            "fieldManager=a",
            json!([]),
            400,
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            "fieldManager=a",
            web(&json!({"colour": "red"})),
            500,
            "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.colour: field not declared in schema",
        ),
        (
            "fieldManager=a",
            {
                let mut object = web(&json!({}));
                object["metadata"]["managedFields"] = json!([{"manager": "x"}]);
                object
            },
            400,
            "metadata.managedFields must be nil",
        ),
        (
            "fieldManager=a",
            {
                let mut object = web(&json!({}));
                object["metadata"]["uid"] = "1".into();
                object
            },
            409,
            "Operation cannot be fulfilled on deployments.apps \"web\": uid mismatch: the provided object specified uid 1, and no existing object was found",
        ),
        (
            "fieldManager=a",
            {
                let mut object = web(&json!({}));
                object["metadata"]["name"] = "other".into();
                object
            },
            400,
            "the name of the object (other) does not match the name on the URL (web)",
        ),
    ];
    for (query, config, code, message) in rows {
        let (found, status) = apply(&client, WEB, query, &config).await;
        assert_eq!((found.as_u16(), status["message"].as_str().unwrap_or_default()), (code, message));
    }
    let (code, _) =
        client.send(Method::PATCH, &format!("{WEB}?fieldManager=a"), "application/apply-patch+yaml", "a: [").await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    let (code, status) =
        client.send(Method::PATCH, &format!("{WEB}?force=true"), "application/merge-patch+json", "{}").await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(status["message"].as_str().unwrap().contains("force: Forbidden: may not be specified for non-apply patch"));
}

#[tokio::test]
async fn what_a_path_cannot_set_is_not_owned() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": "1"}}}]}});
    assert_eq!(client.post(&format!("{path}?fieldManager=maker"), &pod).await.0, StatusCode::CREATED);
    let resize = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "other", "resources": {"requests": {"cpu": "1"}}}]}});
    let (code, now) = apply(&client, &format!("{path}/p/resize"), "fieldManager=sizer", &resize).await;
    assert_eq!(code, StatusCode::OK, "{now}");
    assert_eq!((now["metadata"].get("labels"), &now["spec"]["containers"][0]["image"]), (None, &json!("i")));
    assert_eq!(owners(&now), ["sizer Apply v1 resize", "maker Update v1"]);
    let container = json!({".": {}, "f:resources": {"f:requests": {"f:cpu": {}}}});
    assert_eq!(fields(&now, 0), &json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": container}}}));

    // A status that comes with the whole object changes nothing, and nobody's account.
    client.post(&format!("{DEPLOYMENTS}?fieldManager=maker"), &web(&json!({}))).await;
    client.merge(&format!("{WEB}/status?fieldManager=controller"), &json!({"status": {"observedGeneration": 1}})).await;
    let (_, now) = client
        .merge(
            &format!("{WEB}?fieldManager=other"),
            &json!({"status": {"observedGeneration": 2}, "spec": {"paused": true}}),
        )
        .await;
    assert_eq!(now["status"]["observedGeneration"], 1);
    // In the order of their names, if they wrote in the same second.
    let all = owners(&now);
    assert!(all.contains(&"controller Update apps/v1 status".to_owned()), "{all:?}");
    let other = all.iter().position(|owner| owner == "other Update apps/v1").unwrap();
    assert_eq!(fields(&now, other), &json!({"f:spec": {"f:paused": {}}}));
}

#[tokio::test]
async fn clients_can_write_the_account() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(&format!("{DEPLOYMENTS}?fieldManager=maker"), &web(&json!({"replicas": 1}))).await;
    let owned = json!([{"manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
    let (_, now) = client.merge(WEB, &json!({"metadata": {"managedFields": owned}})).await;
    assert_eq!(now["metadata"]["managedFields"], owned);
    // Through a subresource it cannot be written.
    let (_, now) = client.merge(&format!("{WEB}/status"), &json!({"metadata": {"managedFields": [{}]}})).await;
    assert_eq!(now["metadata"]["managedFields"], owned);
    let (_, now) = client.merge(WEB, &json!({"metadata": {"managedFields": [{}]}})).await;
    assert_eq!(now["metadata"].get("managedFields"), None, "{now}");
    // The first apply after that begins the account again.
    let (code, status) = apply(&client, WEB, "fieldManager=a", &web(&json!({"replicas": 3}))).await;
    assert_eq!(
        (code, status["message"].as_str()),
        (
            StatusCode::CONFLICT,
            Some("Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas")
        )
    );
}

#[tokio::test]
async fn applies_side_by_side_lose_nothing() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/api/v1/namespaces/default/configmaps/shared";
    let each = (0..12).map(|nth| {
        let client = client.clone();
        async move {
            let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": {format!("k{nth}"): "v"}});
            apply(&client, path, &format!("fieldManager=m{nth}"), &config).await.0
        }
    });
    for code in futures::future::join_all(each).await {
        assert!(code.is_success(), "{code}");
    }
    let (_, now) = client.get(path).await;
    assert_eq!((now["data"].as_object().unwrap().len(), owners(&now).len()), (12, 12), "{now}");
}

/// Making is another right than changing, whichever way something is made.
#[tokio::test]
async fn who_may_only_change_makes_nothing() {
    let harness = Harness::start().await;
    let scheduler = harness.user(UserInfo::new("system:kube-scheduler", &[]));
    let path = "/api/v1/namespaces/default/persistentvolumeclaims/c";
    let config = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let (code, status) = apply(&scheduler, path, "fieldManager=s", &config).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{status}");
    assert_eq!(
        status["message"],
        "persistentvolumeclaims \"c\" is forbidden: User \"system:kube-scheduler\" cannot create resource \
         \"persistentvolumeclaims\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(apply(&harness.admin(), path, "fieldManager=a", &config).await.0, StatusCode::CREATED);
    let (code, claim) = apply(&scheduler, path, "fieldManager=s", &config).await;
    assert_eq!(code, StatusCode::OK, "{claim}");
}
