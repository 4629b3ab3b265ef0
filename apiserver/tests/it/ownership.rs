//! Who owns what: server-side apply where schemas, versions and other writers make it hard (structured-merge-diff,
//! apimachinery `util/managedfields`).

use crate::custom::{DEFINITIONS, define};
use crate::harness::{Client, Harness};
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::embedded::Embedded;
use coracle_apiserver::store::{Op, Store, Txn};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";

async fn apply(client: &Client, path: &str, query: &str, config: &Value) -> (StatusCode, Value) {
    client
        .send(
            Method::PATCH,
            &format!("{path}?fieldManager={query}"),
            "application/apply-patch+yaml",
            config.to_string(),
        )
        .await
}

fn web(spec: &Value) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    for (name, value) in spec.as_object().unwrap() {
        object["spec"][name] = value.clone();
    }
    object
}

/// A definition of things whose spec has this schema.
fn things(spec: &Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}})
}

fn thing(spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec})
}

fn entry<'o>(object: &'o Value, manager: &str) -> &'o Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().find(|entry| entry["manager"] == manager).unwrap_or(&Value::Null)
}

fn spec_of<'o>(object: &'o Value, manager: &str) -> &'o Value {
    &entry(object, manager)["fieldsV1"]["f:spec"]
}

fn owner_versions(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    entries.iter().map(|entry| format!("{} {}", text(entry, "manager"), text(entry, "apiVersion"))).collect()
}

#[tokio::test]
async fn what_client_side_apply_lost_is_not_taken_back() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let config = web(&json!({"replicas": 2}));
    let with_last = |last: &Value| {
        let mut made = config.clone();
        made["metadata"]["annotations"] =
            json!({"kubectl.kubernetes.io/last-applied-configuration": format!("{last}\n")});
        made
    };
    let path = "/apis/apps/v1/namespaces/default/deployments?fieldManager=kubectl-client-side-apply";
    let (code, made) = client.post(path, &with_last(&config)).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    // What is as it was applied is kubectl's to take, whatever it is now to be.
    let mut next = config.clone();
    next["spec"]["template"]["spec"]["containers"][0]["image"] = "i:2".into();
    let (code, answer) = apply(&client, WEB, "kubectl&dryRun=All", &next).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    // Somebody else set the replicas since.
    client.merge(&format!("{WEB}/scale?fieldManager=scaler"), &json!({"spec": {"replicas": 5}})).await;
    let (code, answer) = apply(&client, WEB, "kubectl", &next).await;
    assert_eq!(
        (code, &answer["message"]),
        (
            StatusCode::CONFLICT,
            &json!(
                "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
            )
        ),
    );
    client.delete(WEB).await;
    // What was applied in another version says nothing.
    let mut other = config.clone();
    other["apiVersion"] = "apps/v1beta1".into();
    let (code, _) = client.post(path, &with_last(&other)).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(apply(&client, WEB, "kubectl", &next).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn client_side_apply_is_told_what_was_applied_as_go_writes_it() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut made = web(&json!({}));
    made["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"});
    client.post("/apis/apps/v1/namespaces/default/deployments?fieldManager=kubectl-client-side-apply", &made).await;
    let text = r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"web","annotations":{"b":"<&>","a":"1"}},"spec":{"paused":null}}"#;
    let path = format!("{WEB}?fieldManager=kubectl");
    let (code, now) = client.send(Method::PATCH, &path, "application/apply-patch+yaml", text.to_owned()).await;
    assert_eq!(code, StatusCode::OK, "{now}");
    assert_eq!(
        now["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"],
        "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"annotations\":{\"a\":\"1\",\"b\":\"\\u003c\\u0026\\u003e\"},\"name\":\"web\"},\"spec\":{\"paused\":null}}\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_anything_is_owned_field_by_field() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let spec = json!({"type": "object", "properties": {
        "values": {"x-kubernetes-preserve-unknown-fields": true},
        "any": {"type": "object", "additionalProperties": true},
        "each": {"type": "object", "additionalProperties": {"x-kubernetes-preserve-unknown-fields": true}},
        "deep": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "in": {"type": "object", "properties": {"known": {"type": "string"}}}}}}});
    define(&client, &things(&spec)).await;
    let path = format!("{THINGS}/a");
    let one = json!({"values": {"a": {"x": 1}, "list": [1]}, "any": {"a": 1}, "each": {"k": {"a": 1}}});
    let (code, made) = apply(&client, &path, "one", &thing(&one)).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(
        spec_of(&made, "one"),
        &json!({"f:values": {"f:a": {".": {}, "f:x": {}}, "f:list": {}}, "f:any": {"f:a": {}}, "f:each": {"f:k": {".": {}, "f:a": {}}}})
    );
    let two = json!({"values": {"a": {"y": 2}}, "any": {"b": 2}, "each": {"k": {"b": 2}}});
    let (code, both) = apply(&client, &path, "two", &thing(&two)).await;
    assert_eq!(code, StatusCode::OK, "{both}");
    assert_eq!(
        both["spec"],
        json!({"values": {"a": {"x": 1, "y": 2}, "list": [1]}, "any": {"a": 1, "b": 2}, "each": {"k": {"a": 1, "b": 2}}})
    );
    let (_, patched) =
        client.merge(&format!("{path}?fieldManager=three"), &json!({"spec": {"values": {"z": 3}}})).await;
    assert_eq!(spec_of(&patched, "three"), &json!({"f:values": {"f:z": {}}}));
    assert_eq!(spec_of(&patched, "one")["f:values"]["f:list"], json!({}));
    // What was anything may be a scalar, too.
    let (code, scalar) = apply(&client, &path, "four&force=true", &thing(&json!({"values": 7}))).await;
    assert_eq!((code, &scalar["spec"]["values"]), (StatusCode::OK, &json!(7)), "{scalar}");
    // What is unknown below something that keeps unknown fields is taken, owned and dropped.
    let (code, pruned) =
        apply(&client, &path, "five", &thing(&json!({"deep": {"free": 1, "in": {"known": "x", "odd": 1}}}))).await;
    assert_eq!(
        (code, &pruned["spec"]["deep"]),
        (StatusCode::OK, &json!({"free": 1, "in": {"known": "x"}})),
        "{pruned}"
    );
    assert_eq!(spec_of(&pruned, "five")["f:deep"]["f:in"], json!({"f:known": {}, "f:odd": {}}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_level_of_a_schema_says_how_it_is_owned() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let reference = json!({"type": "object", "x-kubernetes-map-type": "atomic", "required": ["name"],
        "properties": {"name": {"type": "string"}, "key": {"type": "string"}}});
    let spec = json!({"type": "object", "properties": {
        "named": {"type": "object", "additionalProperties": reference},
        "sets": {"type": "object", "additionalProperties": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": reference},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}}}});
    define(&client, &things(&spec)).await;
    let path = format!("{THINGS}/a");
    let one = json!({"named": {"a": {"name": "n", "key": "k"}}, "sets": {"s": ["x"]}, "keyed": [{"name": "p", "key": "k"}], "whole": {"a": "b"}});
    let (code, made) = apply(&client, &path, "one", &thing(&one)).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(
        spec_of(&made, "one"),
        &json!({"f:named": {"f:a": {}}, "f:sets": {"f:s": {".": {}, "v:\"x\"": {}}}, "f:keyed": {"k:{\"name\":\"p\"}": {}}, "f:whole": {}})
    );
    let two = json!({"named": {"b": {"name": "m"}}, "sets": {"s": ["y"], "t": ["z"]}});
    let (code, both) = apply(&client, &path, "two", &thing(&two)).await;
    assert_eq!(code, StatusCode::OK, "{both}");
    assert_eq!(both["spec"]["named"], json!({"a": {"name": "n", "key": "k"}, "b": {"name": "m"}}));
    assert_eq!(both["spec"]["sets"], json!({"s": ["x", "y"], "t": ["z"]}));
    let (code, conflict) = apply(&client, &path, "two", &thing(&json!({"named": {"a": {"name": "n"}}}))).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert_eq!(conflict["message"], "Apply failed with 1 conflict: conflict with \"one\": .spec.named.a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_says_nothing_of_what_others_have() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let spec = json!({"type": "object", "properties": {"size": {"type": "integer"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "list": {"type": "array", "items": {"type": "string"}}}});
    define(&client, &things(&spec)).await;
    let path = format!("{THINGS}/a");
    let all = json!({"labels": {"a": "1"}, "set": ["x"], "list": ["y"], "size": 1});
    apply(&client, &path, "one", &thing(&all)).await;
    let (code, now) = apply(&client, &path, "two", &thing(&json!({"labels": null, "set": null}))).await;
    assert_eq!((code, &now["spec"]), (StatusCode::OK, &all), "{now}");
    assert_eq!(spec_of(&now, "two"), &json!({"f:labels": {}, "f:set": {}}));
    // Of what is one value, it is another one.
    let (code, answer) = apply(&client, &path, "two", &thing(&json!({"list": null, "size": null}))).await;
    assert_eq!(
        (code, &answer["message"]),
        (
            StatusCode::CONFLICT,
            &json!("Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.list\n- .spec.size")
        )
    );
    let (_, forced) = apply(&client, &path, "two&force=true", &thing(&json!({"list": null, "size": null}))).await;
    assert_eq!(forced["spec"], json!({"labels": {"a": "1"}, "set": ["x"]}));

    // So it is of built-in kinds.
    apply(&client, WEB, "one", &web(&json!({"replicas": 3}))).await;
    let nothing = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": null}, "spec": {"replicas": null}});
    let (code, answer) = apply(&client, WEB, "two", &nothing).await;
    assert_eq!(
        (code, &answer["message"]),
        (StatusCode::CONFLICT, &json!("Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"))
    );
    let (code, now) = apply(&client, WEB, "two&force=true", &nothing).await;
    assert_eq!((code, &now["spec"]["replicas"]), (StatusCode::OK, &json!(1)), "{now}");
    assert_eq!(entry(&now, "two")["fieldsV1"], json!({"f:metadata": {"f:labels": {}}, "f:spec": {"f:replicas": {}}}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_follow_a_schema_that_takes_apart_what_was_one() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let items = json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}});
    let atomic = json!({"type": "object", "properties": {"parts": {"type": "array", "items": items}}});
    let mut keyed = atomic.clone();
    keyed["properties"]["parts"]["x-kubernetes-list-type"] = "map".into();
    keyed["properties"]["parts"]["x-kubernetes-list-map-keys"] = json!(["name"]);
    define(&client, &things(&atomic)).await;
    let path = format!("{THINGS}/a");
    let definition = format!("{DEFINITIONS}/things.example.com");
    let (_, made) =
        apply(&client, &path, "one", &thing(&json!({"parts": [{"name": "p", "size": 1}, {"name": "q"}]}))).await;
    assert_eq!(spec_of(&made, "one"), &json!({"f:parts": {}}));

    let becomes = async |schema: &Value, wanted: Value| {
        let mut versions = things(schema)["spec"]["versions"].clone();
        versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["description"] = wanted.to_string().into();
        let (code, answer) = client.merge(&definition, &json!({"spec": {"versions": versions}})).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
        // Until the new schema is served.
        loop {
            let (_, probe) = apply(
                &client,
                &format!("{THINGS}/probe"),
                "probe&dryRun=All",
                &json!({"apiVersion": "example.com/v1", "kind": "Thing", "spec": {"parts": [{"name": "p"}]}}),
            )
            .await;
            if spec_of(&probe, "probe")["f:parts"] == wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    becomes(&keyed, json!({"k:{\"name\":\"p\"}": {".": {}, "f:name": {}}})).await;
    let (code, less) = apply(&client, &path, "one", &thing(&json!({"parts": [{"name": "p", "size": 1}]}))).await;
    assert_eq!((code, &less["spec"]["parts"]), (StatusCode::OK, &json!([{"name": "p", "size": 1}])), "{less}");
    let (code, answer) = apply(&client, &path, "two", &thing(&json!({"parts": [{"name": "p", "size": 2}]}))).await;
    assert_eq!(
        (code, &answer["message"]),
        (
            StatusCode::CONFLICT,
            &json!("Apply failed with 1 conflict: conflict with \"one\": .spec.parts[name=\"p\"].size")
        )
    );
    becomes(&atomic, json!({})).await;
    let (code, answer) = apply(&client, &path, "two", &thing(&json!({"parts": [{"name": "r"}]}))).await;
    assert_eq!(
        (code, &answer["message"]),
        (StatusCode::CONFLICT, &json!("Apply failed with 1 conflict: conflict with \"one\": .spec.parts"))
    );
    // A plain update brings them in line, too.
    let (_, patched) =
        client.merge(&format!("{path}?fieldManager=three"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(spec_of(&patched, "one"), &json!({"f:parts": {}}));
}

#[tokio::test]
async fn items_that_stand_twice_are_one_value() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let env = |second: &str, more: &[Value]| {
        let mut env = vec![json!({"name": "A", "value": "1"}), json!({"name": "A", "value": second})];
        env.extend_from_slice(more);
        let mut object = web(&json!({}));
        object["spec"]["template"]["spec"]["containers"][0]["env"] = env.into();
        object
    };
    let fields = |object: &Value, manager: &str| {
        spec_of(object, manager)["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"]["f:env"].clone()
    };
    let (code, made) = client
        .post(
            "/apis/apps/v1/namespaces/default/deployments?fieldManager=one",
            &env("2", &[json!({"name": "B", "value": "x"})]),
        )
        .await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let alone = json!({".": {}, "f:name": {}, "f:value": {}});
    assert_eq!(fields(&made, "one"), json!({".": {}, "k:{\"name\":\"A\"}": {}, "k:{\"name\":\"B\"}": alone}));
    // A change of the second is a change of both.
    let (_, changed) = client.put(&format!("{WEB}?fieldManager=two"), &env("3", &[])).await;
    assert_eq!(fields(&changed, "two"), json!({"k:{\"name\":\"A\"}": {}}));
    assert_eq!(fields(&changed, "one"), json!({}));
    // One that is left is new.
    let mut less = env("3", &[]);
    less["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "3"}]);
    let (_, changed) = client.put(&format!("{WEB}?fieldManager=three"), &less).await;
    assert_eq!(fields(&changed, "three"), json!({"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_applied_in_another_version_goes_when_it_is_left_out() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/h");
    let scaler = |version: &str, more: Value| {
        let mut object = json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
        for (name, value) in more.as_object().unwrap() {
            object["spec"][name] = value.clone();
        }
        object
    };
    let (code, made) =
        apply(&client, &path("v1"), "one", &scaler("v1", json!({"targetCPUUtilizationPercentage": 50}))).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let (code, now) = apply(&client, &path("v2"), "one", &scaler("v2", json!({"minReplicas": 2}))).await;
    assert_eq!(code, StatusCode::OK, "{now}");
    // In v2 nothing of it went: what has no metric in v1 has one in v2.
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]);
    assert_eq!((&now["spec"]["metrics"], &now["spec"]["minReplicas"]), (&metrics, &json!(2)), "{now}");
    let (code, now) = apply(&client, &path("v1"), "one", &scaler("v1", json!({}))).await;
    assert_eq!((code, &now["spec"]["minReplicas"]), (StatusCode::OK, &json!(1)), "{now}");
    assert_eq!(owner_versions(&now), ["one autoscaling/v1"]);

    // Owners of a custom resource speak of its versions, whichever is written.
    let mut definition = things(&json!({"type": "object", "additionalProperties": {"type": "integer"}}));
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    definition["spec"]["versions"].as_array_mut().unwrap().push(second);
    define(&client, &definition).await;
    let first = format!("{THINGS}/a");
    let second = first.replace("/v1/", "/v2/");
    let of = |version: &str, spec: Value| json!({"apiVersion": format!("example.com/{version}"), "kind": "Thing", "metadata": {"name": "a"}, "spec": spec});
    apply(&client, &first, "one", &of("v1", json!({"a": 1}))).await;
    let (code, answer) = apply(&client, &second, "two", &of("v2", json!({"a": 2}))).await;
    assert_eq!(code, StatusCode::CONFLICT, "{answer}");
    let (code, now) = client.merge(&format!("{second}?fieldManager=three"), &json!({"spec": {"b": 1}})).await;
    assert_eq!((code, spec_of(&now, "one")), (StatusCode::OK, &json!({"f:a": {}})), "{now}");
    assert_eq!(entry(&now, "three")["apiVersion"], "example.com/v2");
    let (code, now) = apply(&client, &second, "one", &of("v2", json!({"c": 3}))).await;
    assert_eq!((code, &now["spec"]), (StatusCode::OK, &json!({"b": 1, "c": 3})), "{now}");
}

#[tokio::test]
async fn the_account_is_reset_and_only_replaced_by_one() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/api/v1/namespaces/default/configmaps/a";
    let (_, made) = client
        .post(
            "/api/v1/namespaces/default/configmaps?fieldManager=one",
            &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}}),
        )
        .await;
    let entry = |change: &dyn Fn(&mut Value)| {
        let mut entry = json!({"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}});
        change(&mut entry);
        entry
    };
    let wrong: [&dyn Fn(&mut Value); 5] = [
        &|entry| entry["apiVersion"] = "".into(),
        &|entry| entry["fieldsType"] = "".into(),
        &|entry| entry["fieldsType"] = "FieldsV2".into(),
        &|entry| entry["operation"] = "Create".into(),
        &|entry| entry["fieldsV1"] = json!({"x:data": {}}),
    ];
    for change in wrong {
        let (code, now) = client.merge(path, &json!({"metadata": {"managedFields": [entry(change)]}})).await;
        assert_eq!((code, &now["metadata"]["managedFields"]), (StatusCode::OK, &made["metadata"]["managedFields"]));
    }
    let mut put = made.clone();
    put["metadata"]["managedFields"] = json!([]);
    let (code, now) = client.put(path, &put).await;
    assert_eq!((code, now["metadata"].get("managedFields")), (StatusCode::OK, None), "{now}");
    let (code, now) = client.merge(path, &json!({"metadata": {"managedFields": [entry(&|_| {})]}})).await;
    assert_eq!((code, &now["metadata"]["managedFields"]), (StatusCode::OK, &json!([entry(&|_| {})])), "{now}");
    let (code, now) = client.merge(path, &json!({"metadata": {"managedFields": []}})).await;
    assert_eq!((code, now["metadata"].get("managedFields")), (StatusCode::OK, None), "{now}");
    // Nobody else's metadata is kept for it.
    let mut deployment = web(&json!({}));
    deployment["spec"]["template"]["metadata"]["managedFields"] = json!([]);
    let (_, made) = client.post("/apis/apps/v1/namespaces/default/deployments", &deployment).await;
    assert_eq!(made["spec"]["template"]["metadata"], json!({"labels": {"app": "web"}}), "{made}");
}

#[tokio::test]
async fn an_apply_that_changes_nothing_has_no_time_of_its_own() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (_, made) = apply(&client, WEB, "one", &web(&json!({"replicas": 2, "paused": true}))).await;
    let time = entry(&made, "one")["time"].clone();
    assert!(time.is_string());
    let mut share =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 2}});
    let (code, shared) = apply(&client, WEB, "two", &share).await;
    assert_eq!((code, entry(&shared, "two").get("time")), (StatusCode::OK, None), "{shared}");
    assert_eq!(spec_of(&shared, "two"), &json!({"f:replicas": {}}));
    // One who shares more or less than before keeps the old time.
    share["spec"]["paused"] = true.into();
    let (_, more) = apply(&client, WEB, "two", &share).await;
    assert_eq!(spec_of(&more, "two"), &json!({"f:replicas": {}, "f:paused": {}}));
    assert_eq!((entry(&more, "two").get("time"), &entry(&more, "one")["time"]), (None, &time));
    share["spec"]["minReadySeconds"] = 3.into();
    let (_, changed) = apply(&client, WEB, "two", &share).await;
    assert!(entry(&changed, "two")["time"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_a_custom_resource_is_written_with_all_but_its_spec() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut definition = things(&json!({"type": "object", "properties": {"size": {"type": "integer"}}}));
    let version = &mut definition["spec"]["versions"][0];
    version["subresources"] = json!({"status": {}});
    let properties = &mut version["schema"]["openAPIV3Schema"]["properties"];
    properties["status"] = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}});
    properties["data"] = json!({"type": "object", "additionalProperties": {"type": "string"}});
    define(&client, &definition).await;
    let mut made = thing(&json!({"size": 1}));
    made["data"] = json!({"a": "b"});
    client.post(&format!("{THINGS}?fieldManager=one"), &made).await;
    let mut status = thing(&json!({"size": 1}));
    status["data"] = json!({"a": "b"});
    status["status"] = json!({"ok": true});
    let (code, now) = apply(&client, &format!("{THINGS}/a/status"), "two", &status).await;
    assert_eq!(code, StatusCode::OK, "{now}");
    assert_eq!(entry(&now, "two")["fieldsV1"], json!({"f:data": {"f:a": {}}, "f:status": {"f:ok": {}}}));
}

#[tokio::test]
async fn an_account_that_cannot_be_read_is_told_by_applies_and_lost_by_updates() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let entry = json!({"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:data": {}}});
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": "default", "uid": "u", "managedFields": [entry]}, "data": {"a": "b"}});
    let key: Arc<str> = "/registry/configmaps/default/a".into();
    store.txn(Txn { compare: Vec::new(), ops: vec![Op::put(key, object.to_string().into_bytes())] }).await.unwrap();
    let harness = Harness::on(store).await;
    let client = harness.admin();
    let path = "/api/v1/namespaces/default/configmaps/a";
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "c"}});
    let (code, answer) = apply(&client, path, "one", &config).await;
    assert_eq!(
        (code, &answer["message"]),
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            &json!("failed to decode managed fields: missing fieldsType in managed fields entry 0")
        )
    );
    let (code, now) = client.merge(path, &json!({"data": {"a": "d"}})).await;
    assert_eq!((code, now["metadata"].get("managedFields")), (StatusCode::OK, None), "{now}");
    assert_eq!(apply(&client, path, "one&force=true", &config).await.0, StatusCode::OK);
}

/// Upstream's objects in Go tell a list that is empty from none, until they are stored.
#[tokio::test]
async fn lists_that_are_given_empty_are_owned() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/api/v1/namespaces/default/limitranges?fieldManager=one";
    let range = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": name}, "spec": spec});
    let (code, made) = client.post(path, &range("a", json!({"limits": []}))).await;
    assert_eq!((code, &made["spec"]), (StatusCode::CREATED, &json!({"limits": null})), "{made}");
    assert_eq!(entry(&made, "one")["fieldsV1"], json!({"f:spec": {"f:limits": {}}}));
    let (_, made) = client.post(path, &range("b", json!({"limits": null}))).await;
    assert_eq!(made["metadata"].get("managedFields"), None, "{made}");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "a", "labels": {"a": "b"}}, "rules": []});
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles?fieldManager=one";
    let (code, made) = client.post(path, &role).await;
    assert_eq!((code, &made["rules"]), (StatusCode::CREATED, &json!(null)), "{made}");
    assert_eq!(
        entry(&made, "one")["fieldsV1"],
        json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:rules": {}})
    );
    // So are those that take the place of none, whichever way: they change hands, once.
    let path = "/api/v1/namespaces/default/limitranges/a";
    let (code, now) = client.put(&format!("{path}?fieldManager=two"), &range("a", json!({"limits": []}))).await;
    assert_eq!(code, StatusCode::OK, "{now}");
    assert_eq!(now["metadata"]["managedFields"].as_array().unwrap().len(), 1, "{now}");
    assert_eq!(entry(&now, "two")["fieldsV1"], json!({"f:spec": {"f:limits": {}}}));
    let (_, same) = client.put(&format!("{path}?fieldManager=two"), &range("a", json!({"limits": []}))).await;
    assert_eq!(same["metadata"], now["metadata"]);
    let (_, now) = client.put(&format!("{path}?fieldManager=three"), &range("a", json!({"limits": null}))).await;
    assert_eq!(now["metadata"], same["metadata"]);
    let patch = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"limits": []}});
    let (code, now) = client.merge(&format!("{path}?fieldManager=four"), &patch).await;
    assert_eq!(code, StatusCode::OK, "{now}");
    assert_eq!(now["metadata"]["managedFields"].as_array().unwrap().len(), 1, "{now}");
    let owned = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:limits": {}}});
    assert_eq!(entry(&now, "four")["fieldsV1"], owned);
    let (_, now) =
        client.merge(&format!("{path}?fieldManager=five"), &json!({"metadata": {"labels": {"a": "c"}}})).await;
    assert_eq!(entry(&now, "four")["fieldsV1"]["f:spec"], json!({"f:limits": {}}), "{now}");
    // An apply owns what it says.
    let path = "/api/v1/namespaces/default/limitranges/c";
    let (_, made) = apply(&client, path, "one", &range("c", json!({"limits": []}))).await;
    assert_eq!(entry(&made, "one")["fieldsV1"], json!({"f:spec": {"f:limits": {}}}));
}
