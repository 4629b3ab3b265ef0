//! What definitions of custom resources make of objects, and what becomes of them (apiextensions).

use crate::custom::{DEFINITIONS, define};
use crate::harness::{Client, Harness};
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::embedded::Embedded;
use coracle_apiserver::store::{Op, Store, Txn};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";

fn things(spec: &Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}})
}

fn thing(spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec})
}

/// Waits until the definition is as it is wanted.
async fn until(client: &Client, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut watch = client.watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}")).await;
    loop {
        let frame = watch.next().await.unwrap();
        if is(&frame["object"]) {
            return frame["object"].clone();
        }
    }
}

fn condition<'d>(definition: &'d Value, kind: &str) -> &'d Value {
    let conditions = definition["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_dropped_and_filled_in() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let spec = json!({"type": "object", "properties": {
        "kept": {"type": "array", "x-kubernetes-preserve-unknown-fields": true,
            "items": {"type": "object", "properties": {"in": {"type": "object"}}}},
        "any": {"type": "object", "additionalProperties": true},
        "named": {"type": "object", "additionalProperties": {"type": "string", "default": "d"}}}});
    define(&client, &things(&spec)).await;
    let given = json!({"kept": [{"x": {"y": 1}, "in": {"z": 1}}], "any": {"n": 1, "o": {"x": 1}}, "named": {"a": null, "b": "c"}});
    let (code, made) = client.post(THINGS, &thing(&given)).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(
        made["spec"],
        json!({"kept": [{"x": {"y": 1}, "in": {}}], "any": {"n": 1, "o": {}}, "named": {"a": "d", "b": "c"}})
    );
    let mut strict = thing(&json!({"kept": [{"x": {"y": 1}}]}));
    strict["metadata"]["name"] = "b".into();
    let (code, answer) = client.post(&format!("{THINGS}?fieldValidation=Strict"), &strict).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_had_duplicates_may_have_them() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let schema = |kind: &str| {
        json!({"type": "object", "properties": {
            "one": {"type": "array", "x-kubernetes-list-type": kind, "items": {"type": "string"}},
            "two": {"type": "array", "x-kubernetes-list-type": kind, "items": {"type": "string"}},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}})
    };
    define(&client, &things(&schema("atomic"))).await;
    client.post(THINGS, &thing(&json!({"one": ["a", "a"]}))).await;
    let clean =
        json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "clean"}, "spec": {"one": ["a"]}});
    client.post(THINGS, &clean).await;
    let versions = &things(&schema("set"))["spec"]["versions"];
    client.merge(&format!("{DEFINITIONS}/things.example.com"), &json!({"spec": {"versions": versions}})).await;
    let twice = json!({"spec": {"one": ["b", "b"]}});
    loop {
        let (code, answer) = client.merge(&format!("{THINGS}/clean?dryRun=All"), &twice).await;
        if code == StatusCode::UNPROCESSABLE_ENTITY {
            assert_eq!(answer["details"]["causes"][0]["message"], "Duplicate value: \"b\"");
            break;
        }
    }
    let (code, now) =
        client.merge(&format!("{THINGS}/a"), &json!({"spec": {"one": ["a", "a", "c"], "two": ["x", "x"]}})).await;
    assert_eq!(code, StatusCode::OK, "{now}");
    // Embedded resources have no past.
    let (code, now) = client.merge(&format!("{THINGS}/a"), &json!({"spec": {"pod": {"kind": "Pod"}}})).await;
    assert_eq!(
        (code, &now["details"]["causes"][0]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("spec.pod.apiVersion"))
    );
}

/// A store with a definition of `spec` that no server of today would let in.
async fn with_stored(spec: &Value) -> (Arc<dyn Store>, Value) {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let mut definition = things(spec);
    definition["metadata"]["uid"] = "u".into();
    definition["metadata"]["generation"] = 1.into();
    definition["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    definition["spec"]["names"] =
        json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
    definition["spec"]["conversion"] = json!({"strategy": "None"});
    definition["status"] = json!({"storedVersions": ["v1"], "acceptedNames": definition["spec"]["names"],
        "conditions": [{"type": "Established", "status": "True", "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let key: Arc<str> = "/registry/apiextensions.k8s.io/customresourcedefinitions/things.example.com".into();
    store.txn(Txn { compare: Vec::new(), ops: vec![Op::put(key, definition.to_string().into_bytes())] }).await.unwrap();
    (store, definition)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_that_would_not_pass_today_can_be_changed_elsewhere() {
    // Its rule costs too much, and its default does not fit.
    let spec = json!({"type": "object", "properties": {"size": {"type": "integer", "default": "x"},
        "list": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a != b))"}]}}});
    let (store, definition) = with_stored(&spec).await;
    let harness = Harness::on(store).await;
    let client = harness.admin();
    let path = format!("{DEFINITIONS}/things.example.com");
    let (code, now) = client.merge(&path, &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(code, StatusCode::OK, "{now}");
    // A change of the schema must pass.
    let mut versions = definition["spec"]["versions"].clone();
    versions[0]["schema"]["openAPIV3Schema"]["description"] = "new".into();
    let (code, now) = client.merge(&path, &json!({"spec": {"versions": versions}})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{now}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_came_later_are_not_asked_for_where_they_were_broken_before() {
    let list = |kind: &str, item: Value| json!({"type": "array", "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": (kind == "map").then(|| json!(["k"])), "items": item});
    let granular = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let keyless = json!({"type": "object", "properties": {"k": {"type": "string"}}});
    let broken = [
        ("set", list("set", granular), "must be atomic as item of a list"),
        ("map", list("map", keyless), "so it must have a default or be a required property"),
        ("default", json!({"type": "object", "default": {"unknown": 1}}), "must not have unknown fields"),
    ];
    for (name, field, why) in &broken {
        let spec = |more: Value| {
            let mut properties = json!({(*name): field});
            properties.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"type": "object", "properties": properties})
        };
        let (store, _) = with_stored(&spec(json!({}))).await;
        let harness = Harness::on(store).await;
        let client = harness.admin();
        let path = format!("{DEFINITIONS}/things.example.com");
        let changed = |more: Value| json!({"spec": {"versions": things(&spec(more))["spec"]["versions"]}});
        // Also a new field may break the rule, as upstream has it; the others are asked for.
        let (code, now) = client.merge(&path, &changed(json!({"new": {"type": "string"}, "again": field}))).await;
        assert_eq!(code, StatusCode::OK, "{name}: {now}");
        for (other, field, why) in broken.iter().filter(|(other, ..)| other != name) {
            let (code, now) = client.merge(&path, &changed(json!({(*other): field}))).await;
            assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{name} {other}: {now}");
            assert!(now["message"].as_str().unwrap().contains(why), "{name} {other}: {now}");
        }
        let mut made = things(&spec(json!({})));
        made["metadata"]["name"] = "others.example.com".into();
        made["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
        let (code, now) = client.post(DEFINITIONS, &made).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{now}");
        assert!(now["message"].as_str().unwrap().contains(why), "{name}: {now}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_before_a_default_came_is_read_with_it() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let harness = Harness::on(store.clone()).await;
    let client = harness.admin();
    let spec = |more: Value| json!({"type": "object", "properties": more});
    define(&client, &things(&spec(json!({"a": {"type": "string"}})))).await;
    client.post(THINGS, &thing(&json!({"a": "x"}))).await;
    let later = things(&spec(json!({"a": {"type": "string"}, "b": {"type": "integer", "default": 7}})));
    let path = format!("{DEFINITIONS}/things.example.com");
    let (code, answer) = client.merge(&path, &json!({"spec": {"versions": later["spec"]["versions"]}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let deadline = std::time::Instant::now() + crate::harness::LIMIT;
    while client.get(&format!("{THINGS}/a")).await.1["spec"]["b"] != 7 {
        assert!(std::time::Instant::now() < deadline, "the default does not come");
        tokio::task::yield_now().await;
    }
    let read = async |client: &Client| {
        let (_, list) = client.get(THINGS).await;
        assert_eq!(list["items"][0]["spec"], json!({"a": "x", "b": 7}));
        let mut watch = client.watch(&format!("{THINGS}?watch=1")).await;
        let event = watch.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["spec"]["b"]), (&json!("ADDED"), &json!(7)));
    };
    read(&client).await;
    // In the store it stands as it was written, for the next server as well.
    let key = "/registry/example.com/things/default/a";
    let stored = store.get(key).await.unwrap().unwrap();
    let stored: Value = serde_json::from_slice(&stored.value).unwrap();
    assert_eq!(stored["spec"], json!({"a": "x"}));
    drop(client);
    drop(harness);
    let next = Harness::on(store).await;
    let client = next.admin();
    let deadline = std::time::Instant::now() + crate::harness::LIMIT;
    while client.get(&format!("{THINGS}/a")).await.0 != StatusCode::OK {
        assert!(std::time::Instant::now() < deadline, "it is not served");
        tokio::task::yield_now().await;
    }
    read(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_of_any_path() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut definition = things(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    let columns = vec![
        column("Last", "string", ".spec.conditions[-1:].type"),
        column("Big", "integer", ".spec.conditions[?(@.n>=2)].n"),
        column("Deep", "string", ".spec..name"),
        column("Either", "string", ".spec['none','conditions'][0].type"),
        column("Never", "date", ".spec.never"),
    ];
    definition["spec"]["versions"][0]["additionalPrinterColumns"] = columns.clone().into();
    define(&client, &definition).await;
    client
        .post(THINGS, &thing(&json!({"conditions": [{"type": "A", "n": 1}, {"type": "B", "n": 2, "by": {"name": "x"}}], "never": ""})))
        .await;
    let mut other = definition.clone();
    other["metadata"]["name"] = "others.example.com".into();
    other["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
    let columns = [&columns[..1], &[column("Wrong", "string", ".spec[x]")], &columns[1..]].concat();
    other["spec"]["versions"][0]["additionalPrinterColumns"] = columns.into();
    define(&client, &other).await;
    let shown = client.table(THINGS).await;
    assert_eq!(shown["rows"][0]["cells"], json!(["a", "B", 2, "x", "A", "<unknown>"]), "{shown}");
    let shown = client.table("/apis/example.com/v1/others").await;
    let names: Vec<&Value> =
        shown["columnDefinitions"].as_array().unwrap().iter().map(|column| &column["name"]).collect();
    // A path that cannot be read ends them.
    assert_eq!(names, ["Name", "Last"]);
    // Columns of the metadata are described as its fields are.
    let mut plain = things(&json!({"type": "object"}));
    plain["metadata"]["name"] = "plains.example.com".into();
    plain["spec"]["names"] = json!({"plural": "plains", "kind": "Plain"});
    define(&client, &plain).await;
    let (_, published) = client.get("/openapi/v3/api/v1").await;
    let fields = &published["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]["properties"];
    for path in ["/apis/example.com/v1/plains", "/api/v1/configmaps"] {
        let shown = client.table(path).await;
        let described = |name: &str| {
            let columns = shown["columnDefinitions"].as_array().unwrap();
            columns.iter().find(|column| column["name"] == name).unwrap()["description"].clone()
        };
        assert_eq!(described("Name"), fields["name"]["description"], "{path}");
        assert_eq!(described("Age"), fields["creationTimestamp"]["description"], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_replicas_has_no_scale() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let spec = json!({"type": "object", "properties": {"replicas": {"type": "integer"}}});
    let mut definition = things(&spec);
    let version = &mut definition["spec"]["versions"][0];
    version["schema"]["openAPIV3Schema"]["properties"]["status"] =
        json!({"type": "object", "properties": {"replicas": {"type": "integer"}}});
    version["subresources"] =
        json!({"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}});
    define(&client, &definition).await;
    client.post(THINGS, &thing(&json!({}))).await;
    let path = format!("{THINGS}/a/scale");
    let (code, answer) = client.get(&path).await;
    assert_eq!(
        (code, &answer["message"]),
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            &json!("Internal error occurred: the spec replicas field \".spec.replicas\" does not exist")
        )
    );
    let (code, answer) = client.merge(&path, &json!({"spec": {"replicas": 2}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(client.get(&path).await.1["spec"]["replicas"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_had_are_kept() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut first = things(&json!({"type": "object"}));
    first["spec"]["names"]["shortNames"] = json!(["t", "th"]);
    define(&client, &first).await;
    let mut other = things(&json!({"type": "object"}));
    other["metadata"]["name"] = "others.example.com".into();
    other["spec"]["names"] = json!({"plural": "others", "kind": "Other", "shortNames": ["t", "th", "o"]});
    client.post(DEFINITIONS, &other).await;
    let is = |definition: &Value| !condition(definition, "NamesAccepted").is_null();
    let refused = until(&client, "others.example.com", is).await;
    let told = condition(&refused, "NamesAccepted");
    assert_eq!(
        (&told["reason"], &told["message"]),
        (&json!("ShortNamesConflict"), &json!("[\"t\" is already in use, \"th\" is already in use]"))
    );
    // A name of its own that somebody else has come to have, too, does not lose it any.
    let path = format!("{DEFINITIONS}/others.example.com");
    let (_, mut status) = client.get(&path).await;
    status["status"]["acceptedNames"]["shortNames"] = json!(["t", "th"]);
    let (code, answer) = client.put(&format!("{path}/status"), &status).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let is = |definition: &Value| condition(definition, "NamesAccepted")["status"] == "True";
    let accepted = until(&client, "others.example.com", is).await;
    assert_eq!(accepted["status"]["acceptedNames"]["shortNames"], json!(["t", "th", "o"]));
    let (_, first) = client.get(&format!("{DEFINITIONS}/things.example.com")).await;
    assert_eq!(condition(&first, "NamesAccepted")["status"], "True", "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_is_told_as_it_is_judged() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let of = |group: &str, approval: &str| {
        let mut definition = things(&json!({"type": "object"}));
        definition["metadata"] =
            json!({"name": format!("things.{group}"), "annotations": {"api-approved.kubernetes.io": approval}});
        definition["spec"]["group"] = group.into();
        definition
    };
    for (group, approval, expected) in [
        ("a.k8s.io", "http://example.com/1", ("True", "ApprovedAnnotation", "approved in http://example.com/1")),
        ("b.k8s.io", "unapproved, a test", ("False", "UnapprovedAnnotation", "not approved: \"unapproved, a test\"")),
    ] {
        define(&client, &of(group, approval)).await;
        let (_, found) = client.get(&format!("{DEFINITIONS}/things.{group}")).await;
        let told = condition(&found, "KubernetesAPIApprovalPolicyConformant");
        assert_eq!(
            (&told["status"], &told["reason"], &told["message"]),
            (&json!(expected.0), &json!(expected.1), &json!(expected.2))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_tells_what_can_be_done() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let definition = things(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    define(&client, &definition).await;
    let (name, group) = (definition["metadata"]["name"].as_str().unwrap(), &definition["spec"]["group"]);
    let version = format!("/apis/{}/v1", group.as_str().unwrap());
    let (_, found) = client.get(&version).await;
    assert_eq!(found["apiVersion"], "v1");
    let verbs = json!(["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]);
    assert_eq!(found["resources"][0]["verbs"], verbs, "{found}");
    let (_, core) = client.get("/api/v1").await;
    assert_eq!((core.get("apiVersion"), &core["groupVersion"]), (None, &json!("v1")));

    // What holds its definition up can still be let go.
    let plural = found["resources"][0]["name"].as_str().unwrap().to_owned();
    let objects = match found["resources"][0]["namespaced"] == true {
        true => format!("{version}/namespaces/default/{plural}"),
        false => format!("{version}/{plural}"),
    };
    let held = json!({"apiVersion": format!("{}/v1", group.as_str().unwrap()), "kind": definition["spec"]["names"]["kind"],
        "metadata": {"name": "a", "finalizers": ["example.com/held"]}});
    let (code, answer) = client.post(&objects, &held).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    client.delete(&format!("{DEFINITIONS}/{name}")).await;
    let deadline = std::time::Instant::now() + crate::harness::LIMIT;
    let left = json!(["delete", "deletecollection", "get", "list", "watch"]);
    while client.get(&version).await.1["resources"][0]["verbs"] != left {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let (code, answer) = client.merge(&format!("{objects}/a"), &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    while client.get(&format!("{DEFINITIONS}/{name}")).await.0 != StatusCode::NOT_FOUND {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_stays_while_records_of_it_cannot_be_read() {
    use coracle_apiserver::store::{Op, Store, Txn, embedded::Embedded};
    let clock = std::sync::Arc::new(coracle_api::clock::SystemClock::new());
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::new(Embedded::in_memory(clock).unwrap());
    let harness = Harness::on(store.clone()).await;
    let client = harness.admin();
    let definition = things(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    define(&client, &definition).await;
    let name = definition["metadata"]["name"].as_str().unwrap();
    let (plural, group) = name.split_once('.').unwrap();
    let key = format!("/registry/{group}/{plural}/default/broken");
    store.txn(Txn { compare: Vec::new(), ops: vec![Op::put(key.as_str(), "[]")] }).await.unwrap();
    let path = format!("{DEFINITIONS}/{name}");
    client.delete(&path).await;
    let deadline = std::time::Instant::now() + crate::harness::LIMIT;
    loop {
        let (code, found) = client.get(&path).await;
        assert_eq!(code, StatusCode::OK, "{found}");
        let told = found["status"]["conditions"].as_array().unwrap().iter().any(|condition| {
            condition["reason"] == "InstanceDeletionFailed" && condition["message"].as_str().unwrap().contains("broken")
        });
        if told {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{found}");
        tokio::task::yield_now().await;
    }
    store.txn(Txn { compare: Vec::new(), ops: vec![Op::delete(key.as_str())] }).await.unwrap();
    while client.get(&path).await.0 != StatusCode::NOT_FOUND {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}
