//! Custom resources: definitions come, are served, change and go.

use crate::harness::{Client, Harness};
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::Store;
use coracle_apiserver::store::embedded::Embedded;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

/// A definition that uses most of what there is.
pub fn widgets() -> Value {
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 0, "maximum": 10},
            "color": {"type": "string", "default": "red", "enum": ["red", "green", "blue"]},
            "replicas": {"type": "integer", "default": 1},
            "port": {"x-kubernetes-int-or-string": true},
            "when": {"type": "string", "format": "date-time"},
            "parts": {"type": "array", "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 20}, "weight": {"type": "integer", "default": 5}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }, "x-kubernetes-validations": [
            {"rule": "self.size <= 5 || self.color != 'green'", "message": "green widgets are small"},
            {"rule": "!has(oldSelf.port) || has(self.port)", "message": "port cannot be removed"}]},
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}, "replicas": {"type": "integer"}, "selector": {"type": "string"}}},
    }});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}, {"name": "Color", "type": "string", "jsonPath": ".spec.color"}]}]}})
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

/// Creates a definition and waits until it is established.
pub async fn define(client: &Client, definition: &Value) {
    let name = definition["metadata"]["name"].as_str().unwrap();
    let mut watch = client.watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}")).await;
    let (code, answer) = client.post(DEFINITIONS, definition).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    loop {
        let frame = watch.next().await.unwrap();
        let conditions = frame["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
            return;
        }
    }
}

fn causes(status: &Value) -> Vec<String> {
    let causes = status.pointer("/details/causes").and_then(Value::as_array).cloned().unwrap_or_default();
    causes
        .iter()
        .map(|cause| format!("{}: {}", cause["field"].as_str().unwrap_or_default(), cause["message"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn served_validated_pruned_defaulted_printed() {
    let harness = Harness::start().await;
    let client = harness.admin();
    assert_eq!(client.get(WIDGETS).await.0, StatusCode::NOT_FOUND);
    define(&client, &widgets()).await;

    let (_, resources) = client.get("/apis/example.com/v1").await;
    let names: Vec<&str> =
        resources["resources"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["wd"]));

    let mut watch = client.watch(&format!("{WIDGETS}?watch=1")).await;
    let (code, made) = client
        .post(WIDGETS, &widget("a", json!({"size": 3, "odd": 1, "free": {"x": [1]}, "parts": [{"name": "p"}]})))
        .await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(
        made["spec"],
        json!({"size": 3, "free": {"x": [1]}, "parts": [{"name": "p", "weight": 5}], "color": "red", "replicas": 1})
    );
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(watch.seen().await, ("ADDED".into(), "a".into()));

    let (code, strict) = client
        .send(
            Method::POST,
            &format!("{WIDGETS}?fieldValidation=Strict"),
            "application/json",
            widget("b", json!({"size": 3, "odd": 1})).to_string(),
        )
        .await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(
        strict["message"].as_str().unwrap().ends_with("strict decoding error: unknown field \"spec.odd\""),
        "{strict}"
    );

    let (code, wrong) = client
        .post(WIDGETS, &widget("b", json!({"size": 11, "color": "pink", "port": true, "when": "now", "parts": [{"name": "p"}, {"name": "p"}]})))
        .await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let found = causes(&wrong);
    for expected in [
        "spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10",
        "spec.color: Unsupported value: \"pink\": supported values: \"red\", \"green\", \"blue\"",
        "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        "spec.when: Invalid value: \"now\": spec.when in body must be of type date-time: \"now\"",
        "spec.parts[1]: Duplicate value: {\"name\":\"p\"}",
    ] {
        assert!(found.iter().any(|cause| cause == expected), "{expected}: {found:?}");
    }
    let (_, rule) = client.post(WIDGETS, &widget("b", json!({"size": 6, "color": "green"}))).await;
    assert_eq!(causes(&rule), ["spec: Invalid value: green widgets are small"]);

    let path = format!("{WIDGETS}/a");
    let (code, ported) = client.merge(&path, &json!({"spec": {"port": "http"}})).await;
    assert_eq!((code, &ported["metadata"]["generation"]), (StatusCode::OK, &json!(2)), "{ported}");
    let (code, _) = client.merge(&path, &json!({"spec": {"port": null}})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let (code, _) = client.send(Method::PATCH, &path, "application/strategic-merge-patch+json", "{}").await;
    assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE);

    // Status and scale are written apart.
    let (code, _) = client.merge(&path, &json!({"status": {"ready": true}})).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(client.get(&path).await.1.get("status"), None);
    let (code, with_status) = client
        .merge(
            &format!("{path}/status"),
            &json!({"spec": {"size": 9}, "status": {"ready": true, "replicas": 1, "selector": "a=b"}}),
        )
        .await;
    assert_eq!(code, StatusCode::OK, "{with_status}");
    assert_eq!((&with_status["spec"]["size"], &with_status["metadata"]["generation"]), (&json!(3), &json!(2)));
    let (_, mut scale) = client.get(&format!("{path}/scale")).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]), (&json!(1), &json!({"replicas": 1, "selector": "a=b"})));
    scale["spec"]["replicas"] = 4.into();
    let (code, scaled) = client.put(&format!("{path}/scale"), &scale).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (StatusCode::OK, &json!(4)), "{scaled}");

    let (_, selected) = client.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dred")).await;
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    assert_eq!(client.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D3")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_measured_in_upstreams_words() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let with = |pointer: &str, value: Value| {
        let mut definition = widgets();
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        let parent = definition.pointer_mut(parent).unwrap();
        if value.is_null() {
            parent.as_object_mut().unwrap().remove(last);
        } else {
            parent[last] = value;
        }
        definition
    };
    const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";
    // What all versions have alike stands where upstream holds it.
    const AT: &str = "spec.validation.openAPIV3Schema";
    let spec = |name: &str| format!("{SCHEMA}/properties/spec/properties/{name}");
    let at = |name: &str| format!("{AT}.properties[spec].properties[{name}]");
    let rows = [
        (with("/metadata/name", json!("x.example.com")), "metadata.name: Invalid value: \"x.example.com\": must be spec.names.plural+\".\"+spec.group".to_owned()),
        (with("/spec/scope", json!("Galaxy")), "spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\"".into()),
        (with("/spec/versions/0/storage", json!(false)), "spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version".into()),
        (with("/spec/versions/0/schema", Value::Null), "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required".into()),
        (with(&spec("size"), json!({"minimum": 1})), format!("{}.type: Required value: must not be empty for specified object fields", at("size"))),
        (with(&spec("size"), json!({"type": "intger"})), format!("{}.type: Unsupported value: \"intger\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"", at("size"))),
        (with(&spec("size"), json!({"type": "array"})), format!("{}.items: Required value: must be specified", at("size"))),
        (with(&spec("size"), json!({"type": "integer", "default": "x"})), format!("{}.default: Invalid value: \"string\":  in body must be of type integer: \"string\"", at("size"))),
        (with(&spec("new"), json!({"type": "string", "pattern": "("})), format!("{}.pattern: Invalid value: \"(\": must be a valid regular expression", at("new"))),
        (with(&spec("new"), json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"})), format!("{}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map", at("new"))),
        (with(&spec("new"), json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self >"}]})), format!("{}.x-kubernetes-validations[0].rule: Invalid value: {{\"Rule\":\"self \\u003e\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}: compilation failed", at("new"))),
        (with(&spec("new"), json!({"type": "object", "properties": {}, "x-kubernetes-validations": [{"rule": "self.x == 1"}]})), format!("{}.x-kubernetes-validations[0].rule: Invalid value: {{\"Rule\":\"self.x == 1\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}: compilation failed: ERROR: <input>:1:5: undefined field 'x'\n | self.x == 1\n | ....^", at("new"))),
        (with(&spec("new"), json!({"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a != b))"}]})), format!("{}.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x", at("new"))),
        (with("/spec/conversion", json!({"strategy": "Webhook"})), "spec.conversion.strategy: Forbidden: this server does not call conversion webhooks".into()),
        (with("/spec/versions/0/additionalPrinterColumns/0/type", json!("thing")), "spec.additionalPrinterColumns[0].type: Invalid value: \"thing\": must be one of boolean,date,integer,number,string".into()),
    ];
    for (definition, expected) in rows {
        let (code, answer) = client.post(DEFINITIONS, &definition).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{expected}: {answer}");
        let found = causes(&answer);
        assert!(found.iter().any(|cause| cause.starts_with(&expected)), "{expected}: {found:?}");
    }
}

/// What upstream's server of definitions (v0.36.4) answered to each of these schemas.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_are_judged_as_upstream_judges_them() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let rows: Vec<(Value, Vec<String>)> = serde_json::from_str(include_str!("schemas.json")).unwrap();
    assert!(rows.len() > 150);
    for (schema, expected) in rows {
        let mut definition = widgets();
        definition["spec"]["versions"] =
            json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]);
        let (code, answer) = client.post(&format!("{DEFINITIONS}?dryRun=All"), &definition).await;
        let found: Vec<String> =
            causes(&answer).into_iter().map(|cause| cause.replace("spec.validation.openAPIV3Schema", "$")).collect();
        assert_eq!(found, expected, "{schema}");
        assert_eq!(code == StatusCode::CREATED, expected.is_empty(), "{schema}: {answer}");
    }
}

/// What the same server answered to each of these schemas with rules.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_judged_as_upstream_judges_them() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let rows: Vec<(Value, Vec<String>)> = serde_json::from_str(include_str!("rules.json")).unwrap();
    assert!(rows.len() > 150);
    let mut differ = Vec::new();
    for (schema, mut expected) in rows {
        let mut definition = widgets();
        definition["spec"]["versions"] =
            json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]);
        let (_, answer) = client.post(&format!("{DEFINITIONS}?dryRun=All"), &definition).await;
        let mut found: Vec<String> =
            causes(&answer).into_iter().map(|cause| cause.replace("spec.validation.openAPIV3Schema", "$")).collect();
        // Upstream goes through fields in no order.
        found.sort();
        expected.sort();
        if found != expected {
            differ.push(format!("{schema}\n  upstream {expected:#?}\n  here     {found:#?}"));
        }
    }
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
}

/// What is allowed and most likely not meant is told: formats that check nothing, and rules that are broken since before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warnings_of_schemas_and_rules() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut definition = widgets();
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let fields = definition.pointer_mut(schema).unwrap();
    fields["odd"] = json!({"type": "string", "format": "foo"});
    fields["level"] = json!({"type": "integer"});
    fields["levels"] = json!({"type": "array", "maxItems": 5, "items": {"type": "integer"}});
    define(&client, &definition).await;
    let (_, list) = client.get(WIDGETS).await;
    assert_eq!(list["metadata"]["continue"], "", "{list}");
    // Clients tell by it whether what is stored has changed its version (as upstream gives it for this kind).
    let (_, found) = client.get("/apis/example.com/v1").await;
    let resources = found["resources"].as_array().unwrap();
    let hashes: Vec<&str> =
        resources.iter().filter_map(|resource| resource.get("storageVersionHash")?.as_str()).collect();
    assert_eq!(hashes, ["gIwvi5rymmg="]);
    let (_, published) = client.get("/openapi/v3/apis/example.com/v1").await;
    let schema_of = &published["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema_of["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.color"}]));
    let (code, _) = client.post(WIDGETS, &widget("a", json!({"size": 1, "level": 1, "levels": [1]}))).await;
    assert_eq!(code, StatusCode::CREATED);

    // A second version with rules that the object breaks.
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let (_, mut current) = client.get(&path).await;
    let mut second = current["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    let fields = second.pointer_mut("/schema/openAPIV3Schema/properties/spec/properties").unwrap();
    let rule = json!([{"rule": "self > 5", "message": "more"}]);
    fields["level"]["x-kubernetes-validations"] = rule.clone();
    fields["levels"]["items"]["x-kubernetes-validations"] = rule;
    current["spec"]["versions"].as_array_mut().unwrap().push(second);
    let (code, answer) = client.put(&path, &current).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let v2 = WIDGETS.replace("/v1/", "/v2/");
    wait_for(&client, &format!("{v2}/a")).await;
    let patch = async |body: &Value| {
        let path = format!("{v2}/a?dryRun=All");
        client.send_for_warnings(Method::PATCH, &path, "application/merge-patch+json", body.to_string()).await
    };
    assert_eq!(patch(&json!({"spec": {"level": 2}})).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(patch(&json!({"spec": {"levels": [1, 9]}})).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    // What did not change is told of, items of lists too that cannot be told apart.
    let (code, told) = patch(&json!({"spec": {"size": 2}})).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(
        told,
        ["299 - \"spec.level: Invalid value: 1: more\"", "299 - \"spec.levels[0]: Invalid value: 1: more\""]
    );

    let mut other = widgets();
    other.pointer_mut(schema).unwrap()["odd"] = json!({"type": "integer", "format": "date"});
    let path = format!("{DEFINITIONS}?dryRun=All");
    let (_, told) = client.send_for_warnings(Method::POST, &path, "application/json", other.to_string()).await;
    assert_eq!(told, ["299 - \"unrecognized format \\\"date\\\"\""]);
}

/// The defaults of keys belong to them, and who sets what is told field by field (as upstream does for custom resources).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applied_field_by_field() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut definition = widgets();
    let parts = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "kind"],
        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"},
            "kind": {"type": "string", "default": "plain"}, "weight": {"type": "integer"}}}});
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["parts"] = parts;
    define(&client, &definition).await;
    let apply = async |manager: &str, spec: Value| {
        let path = format!("{WIDGETS}/a?fieldManager={manager}");
        client.send(Method::PATCH, &path, "application/apply-patch+yaml", widget("a", spec).to_string()).await
    };
    let spec = json!({"size": 1, "parts": [{"name": "p", "weight": 1}], "free": {"x": 1}});
    assert_eq!(apply("one", spec.clone()).await.0, StatusCode::CREATED);
    let (code, again) = apply("one", spec).await;
    assert_eq!(code, StatusCode::OK, "{again}");
    assert_eq!(again["spec"]["parts"], json!([{"name": "p", "weight": 1, "kind": "plain"}]));
    let owned = &again["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert_eq!(owned["f:free"], json!({"f:x": {}}));
    assert_eq!(owned["f:parts"], json!({r#"k:{"kind":"plain","name":"p"}"#: {".": {}, "f:name": {}, "f:weight": {}}}));
    // Somebody else has a field of the same free part, and an item of another key.
    let (code, shared) =
        apply("two", json!({"size": 1, "parts": [{"name": "p", "kind": "odd"}], "free": {"y": 2}})).await;
    assert_eq!(code, StatusCode::OK, "{shared}");
    assert_eq!(shared["spec"]["free"], json!({"x": 1, "y": 2}));
    let (code, conflict) = apply("two", json!({"size": 1, "parts": [{"name": "p", "weight": 2}]})).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert!(
        conflict["message"].as_str().unwrap().ends_with(r#".spec.parts[kind="plain",name="p"].weight"#),
        "{conflict}"
    );

    // What a plain create sets, it owns with the structures around it.
    client.post(WIDGETS, &widget("b", json!({"size": 1, "free": {"x": {"y": [1]}}}))).await;
    let (_, made) = client.get(&format!("{WIDGETS}/b")).await;
    let owned = &made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert_eq!((&owned["."], &owned["f:free"]), (&json!({}), &json!({".": {}, "f:x": {".": {}, "f:y": {}}})));
}

/// What a rule says of a value: scalars are shown, of what holds others nothing is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_speak_as_upstreams_do() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut definition = widgets();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({"type": "object", "properties": {
        "s": {"type": "string", "maxLength": 10, "x-kubernetes-validations": [{"rule": "self != 'bad'"}, {"rule": "self != 'dup'", "reason": "FieldValueDuplicate"}]},
        "i": {"type": "integer", "x-kubernetes-validations": [{"rule": "self < 5", "messageExpression": "self > 7 ? 'much' : 'more'"}, {"rule": "10 / self > 0"}]},
        "l": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 5}, "x-kubernetes-validations": [{"rule": "self.size() < 3", "message": "too many"}]},
        "o": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.a < self.b", "fieldPath": ".a", "message": "order"}]},
        "color": {"type": "string"}, "size": {"type": "integer"}, "replicas": {"type": "integer"}}});
    define(&client, &definition).await;
    for (spec, expected) in [
        (json!({"s": "bad"}), "spec.s: Invalid value: \"bad\": failed rule: self != 'bad'"),
        (json!({"s": "dup"}), "spec.s: Duplicate value: \"dup\""),
        (json!({"i": 6}), "spec.i: Invalid value: 6: more"),
        (json!({"i": 0}), "spec.i: Invalid value: \"integer\": division by zero evaluating rule: 10 / self > 0"),
        (json!({"l": ["a", "b", "c"]}), "spec.l: Invalid value: too many"),
        (json!({"o": {"a": 3, "b": 2}}), "spec.o.a: Invalid value: order"),
    ] {
        let (code, answer) = client.post(WIDGETS, &widget("x", spec)).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert_eq!(causes(&answer), [expected]);
    }
}

/// A custom resource says what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_custom_resources() {
    let harness = Harness::start().await;
    let client = harness.admin();
    define(&client, &widgets()).await;
    let rows = [
        (
            json!({}),
            400,
            "the object provided is unrecognized (must be of type Widget): Object 'Kind' is missing in '{}' ({})",
        ),
        (
            json!({"kind": "Widget"}),
            400,
            "the API version in the data () does not match the expected API version (example.com/v1)",
        ),
        (
            json!({"apiVersion": "a/b/c", "kind": "Widget"}),
            400,
            "the object provided is unrecognized (must be of type Widget): unexpected GroupVersion string: a/b/c ({\"apiVersion\":\"a/b/c\",\"kind\":\" ...)",
        ),
        (
            json!({"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "x"}}),
            422,
            "Gadget.example.com \"x\" is invalid: kind: Invalid value: \"Gadget\": must be Widget",
        ),
    ];
    for (body, code, message) in rows {
        let (found, answer) = client.post(WIDGETS, &body).await;
        assert_eq!((found.as_u16(), answer["message"].as_str()), (code, Some(message)), "{body}");
    }
    let twice = r#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"x","odd":1},"spec":{"zz":1,"size":1,"size":2},"above":1}"#;
    let (code, answer) =
        client.send(Method::POST, &format!("{WIDGETS}?fieldValidation=Strict"), "application/json", twice).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    let why = r#"strict decoding error: duplicate field "spec.size", unknown field "metadata.odd", unknown field "above", unknown field "spec.zz""#;
    assert!(answer["message"].as_str().unwrap().ends_with(why), "{answer}");
    // Nor can a patch or a precondition make something else of it.
    client.post(WIDGETS, &widget("a", json!({"size": 1}))).await;
    let (_, made) = client.get(&format!("{WIDGETS}/a")).await;
    for (patch, code, message) in [
        (
            json!({"kind": "Gadget"}),
            422,
            "Gadget.example.com \"a\" is invalid: kind: Invalid value: \"Gadget\": must be Widget",
        ),
        (
            json!({"apiVersion": "x/v1"}),
            422,
            "Widget.x \"a\" is invalid: apiVersion: Invalid value: \"x/v1\": must be example.com/v1",
        ),
        (json!({"metadata": {"name": "b"}}), 400, "the name of the object (b) does not match the name on the URL (a)"),
        (
            json!({"metadata": {"uid": "x"}}),
            422,
            "Widget.example.com \"a\" is invalid: metadata.uid: Invalid value: \"x\": field is immutable",
        ),
    ] {
        let path = format!("{WIDGETS}/a");
        let (found, answer) =
            client.send(Method::PATCH, &path, "application/merge-patch+json", patch.to_string()).await;
        assert_eq!((found.as_u16(), answer["message"].as_str()), (code, Some(message)), "{patch}");
    }
    let (code, answer) = client
        .send(
            Method::DELETE,
            &format!("{WIDGETS}/a"),
            "application/json",
            json!({"preconditions": {"uid": "x"}}).to_string(),
        )
        .await;
    assert_eq!(code, StatusCode::CONFLICT);
    let why = format!(
        "Operation cannot be fulfilled on Widget.example.com \"a\": the UID in the precondition (x) does not match the UID in record ({}). The object might have been deleted and then recreated",
        made["metadata"]["uid"].as_str().unwrap()
    );
    assert_eq!(answer["message"], why);
    // Numbers of the scale are such.
    let (code, answer) = client.post(WIDGETS, &widget("x", json!({"size": 1, "replicas": -1}))).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(causes(&answer), [".spec.replicas: Invalid value: -1: should be a non-negative integer"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_change_and_versions_are_added() {
    let harness = Harness::start().await;
    let client = harness.admin();
    define(&client, &widgets()).await;
    client.post(WIDGETS, &widget("a", json!({"size": 8}))).await;
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let (_, mut definition) = client.get(&path).await;
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    definition["spec"]["versions"][0]["storage"] = false.into();
    // The new version is stricter, and has one more default.
    second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"]["maximum"] = 5.into();
    second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["more"] =
        json!({"type": "string", "default": "yes"});
    definition["spec"]["versions"].as_array_mut().unwrap().push(second);
    let (code, changed) = client.put(&path, &definition).await;
    assert_eq!(code, StatusCode::OK, "{changed}");
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    let v2 = WIDGETS.replace("/v1/", "/v2/");
    let new = wait_for(&client, &format!("{v2}/a")).await;
    assert_eq!((new["apiVersion"].as_str(), &new["spec"]["more"]), (Some("example.com/v2"), &json!("yes")));
    let (_, old) = client.get(&format!("{WIDGETS}/a")).await;
    assert_eq!((old["apiVersion"].as_str(), old["spec"].get("more")), (Some("example.com/v1"), None));
    let (_, list) = client.get(&v2).await;
    assert_eq!(
        (list["apiVersion"].as_str(), list["items"].as_array().map(Vec::len)),
        (Some("example.com/v2"), Some(1))
    );
    // What was valid once and does not change stands in nobody's way; what changes is measured.
    let (code, answer) = client.merge(&format!("{v2}/a"), &json!({"spec": {"color": "blue"}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(
        client.merge(&format!("{v2}/a"), &json!({"spec": {"size": 7}})).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    // A stored version cannot go.
    let (_, mut definition) = client.get(&path).await;
    definition["spec"]["versions"].as_array_mut().unwrap().remove(0);
    let (code, answer) = client.put(&path, &definition).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        causes(&answer)[0].starts_with("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions"),
        "{answer}"
    );
    // Until a migration says that nothing of it is left.
    let migrated = json!({"status": {"storedVersions": ["v2"]}});
    let (code, answer) = client.merge(&format!("{path}/status"), &migrated).await;
    assert_eq!((code, &answer["status"]["storedVersions"]), (StatusCode::OK, &json!(["v2"])), "{answer}");
    definition["metadata"]["resourceVersion"] = answer["metadata"]["resourceVersion"].clone();
    definition["status"] = answer["status"].clone();
    let (code, answer) = client.put(&path, &definition).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let bad = json!({"status": {"acceptedNames": {"plural": "A"}}});
    let (code, answer) = client.merge(&format!("{path}/status"), &bad).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert!(causes(&answer)[0].starts_with("status.acceptedNames.plural: Invalid value: \"A\""), "{answer}");
}

#[tokio::test]
async fn an_approval_that_stays_is_not_asked_for_again() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut definition = widgets();
    definition["metadata"]["name"] = "widgets.example.k8s.io".into();
    definition["spec"]["group"] = "example.k8s.io".into();
    let approval = "api-approved.kubernetes.io";
    definition["metadata"]["annotations"] = json!({approval: "unapproved, an experiment"});
    let (code, answer) = client.post(DEFINITIONS, &definition).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let path = format!("{DEFINITIONS}/widgets.example.k8s.io");
    for (given, code) in [
        (json!("https://example.com/1"), StatusCode::OK),
        (json!("neither"), StatusCode::UNPROCESSABLE_ENTITY),
        (json!(null), StatusCode::UNPROCESSABLE_ENTITY),
        (json!("https://example.com/2"), StatusCode::OK),
    ] {
        let (found, answer) = client.merge(&path, &json!({"metadata": {"annotations": {approval: given}}})).await;
        assert_eq!(found, code, "{given}: {answer}");
    }
}

/// Waits until a path is served.
async fn wait_for(client: &Client, path: &str) -> Value {
    let deadline = std::time::Instant::now() + crate::harness::LIMIT;
    loop {
        let (code, answer) = client.get(path).await;
        if code == StatusCode::OK {
            return answer;
        }
        assert!(std::time::Instant::now() < deadline, "{path}: {answer}");
        tokio::task::yield_now().await;
    }
}

/// Waits until a path is not served any more.
async fn wait_gone(client: &Client, path: &str) {
    let deadline = std::time::Instant::now() + crate::harness::LIMIT;
    while client.get(path).await.0 != StatusCode::NOT_FOUND {
        assert!(std::time::Instant::now() < deadline, "{path}");
        tokio::task::yield_now().await;
    }
}

/// Upstream's gate `CRDObservedGenerationTracking` is on since v1.36 (`apiextensions-apiserver/pkg/features`); whoever writes
/// the conditions may tell.
#[tokio::test]
async fn conditions_of_a_definition_may_say_which_generation_they_are_of() {
    let harness = Harness::start().await;
    let client = harness.admin();
    define(&client, &widgets()).await;
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let (_, mut definition) = client.get(&path).await;
    definition["status"]["observedGeneration"] = 1.into();
    definition["status"]["conditions"][0]["observedGeneration"] = 1.into();
    definition["status"]["conditions"][0]["message"] = "written".into();
    let (code, written) = client.put(&format!("{path}/status"), &definition).await;
    assert_eq!(code, StatusCode::OK, "{written}");
    let condition = &written["status"]["conditions"][0];
    assert_eq!((&written["status"]["observedGeneration"], &condition["observedGeneration"]), (&json!(1), &json!(1)));
    assert_eq!(condition["message"], "written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_goes_after_its_objects() {
    let harness = Harness::start().await;
    let client = harness.admin();
    define(&client, &widgets()).await;
    let mut held = widget("held", json!({"size": 1}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    client.post(WIDGETS, &held).await;
    client.post(WIDGETS, &widget("free", json!({"size": 1}))).await;
    let mut watch = client.watch(&format!("{WIDGETS}?watch=1&fieldSelector=metadata.name%3Dheld")).await;
    assert_eq!(watch.seen().await.0, "ADDED");
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let (code, going) = client.delete(&path).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]), "{going}");
    wait_gone(&client, &format!("{WIDGETS}/free")).await;
    assert_eq!(watch.seen().await.0, "MODIFIED");
    assert_eq!(client.get(&path).await.0, StatusCode::OK);
    let refusal =
        "widgets.example.com \"late\" is forbidden: create not allowed while custom resource definition is terminating";
    let late = widget("late", json!({"size": 1}));
    let (code, answer) = client.post(WIDGETS, &late).await;
    assert_eq!((code, &answer["message"]), (StatusCode::FORBIDDEN, &json!(refusal)));
    let (code, answer) = client
        .send(
            Method::PATCH,
            &format!("{WIDGETS}/late?fieldManager=m"),
            "application/apply-patch+yaml",
            late.to_string(),
        )
        .await;
    assert_eq!((code, &answer["message"]), (StatusCode::FORBIDDEN, &json!(refusal)));
    // What is there already is written as ever.
    let config = json!({"apiVersion": "example.com/v1", "kind": "Widget", "spec": {"size": 2}});
    let (code, answer) = client
        .send(
            Method::PATCH,
            &format!("{WIDGETS}/held?fieldManager=m&force=true"),
            "application/apply-patch+yaml",
            config.to_string(),
        )
        .await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(watch.seen().await.0, "MODIFIED");
    let (_, definition) = client.get(&path).await;
    let conditions = definition["status"]["conditions"].as_array().unwrap();
    let terminating = conditions.iter().find(|condition| condition["type"] == "Terminating").unwrap();
    assert_eq!(
        (&terminating["reason"], &terminating["message"]),
        (&json!("InstanceDeletionInProgress"), &json!("CustomResource deletion is in progress"))
    );
    let (code, answer) = client.merge(&format!("{WIDGETS}/held"), &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    wait_gone(&client, &path).await;
    wait_gone(&client, WIDGETS).await;
    assert_eq!(watch.seen().await.0, "DELETED");
    assert!(watch.next().await.is_none(), "the watch ends with the resource");
    // Nothing of it is left when it comes again.
    define(&client, &widgets()).await;
    let (_, list) = client.get(WIDGETS).await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_and_a_restart() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let (first, second) = (Harness::on(store.clone()).await, Harness::on(store.clone()).await);
    define(&first.admin(), &widgets()).await;
    // Either may have established it; the other hears of it a moment later.
    wait_for(&first.admin(), WIDGETS).await;
    wait_for(&second.admin(), WIDGETS).await;
    let (code, _) = second.admin().post(WIDGETS, &widget("a", json!({"size": 1}))).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(first.admin().get(&format!("{WIDGETS}/a")).await.0, StatusCode::OK);
    let revision = first.admin().get(WIDGETS).await.1["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    first.admin().post(WIDGETS, &widget("b", json!({"size": 1}))).await;
    first.server.stop().await;
    second.server.stop().await;
    // Served from the first moment, with its past.
    let again = Harness::on(store).await;
    let mut watch = again.admin().watch(&format!("{WIDGETS}?watch=1&resourceVersion={revision}")).await;
    assert_eq!(watch.seen().await, ("ADDED".into(), "b".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_given_once() {
    let harness = Harness::start().await;
    let client = harness.admin();
    define(&client, &widgets()).await;
    let mut other = widgets();
    other["metadata"]["name"] = "gadgets.example.com".into();
    other["spec"]["names"] = json!({"plural": "gadgets", "kind": "Widget"});
    let mut watch =
        client.watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3Dgadgets.example.com")).await;
    client.post(DEFINITIONS, &other).await;
    let condition = loop {
        let frame = watch.next().await.unwrap();
        let conditions = frame["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if let Some(found) = conditions.into_iter().find(|condition| condition["type"] == "NamesAccepted") {
            break found;
        }
    };
    assert_eq!((condition["status"].as_str(), condition["reason"].as_str()), (Some("False"), Some("ListKindConflict")));
    assert_eq!(client.get("/apis/example.com/v1/namespaces/default/gadgets").await.0, StatusCode::NOT_FOUND);
    // When the first goes, the second gets its names.
    client.delete(&format!("{DEFINITIONS}/widgets.example.com")).await;
    wait_for(&client, "/apis/example.com/v1/namespaces/default/gadgets").await;
}
