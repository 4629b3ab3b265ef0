//! Patches, bodies and options that are strange or wrong, as kube-apiserver answered them: v1.20.2 (config maps) and the
//! apiextensions-apiserver of v1.36.4 (definitions, which are a built-in kind there).

use crate::harness::{Client, Harness};
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/a";

/// Code, warnings and what is said; of an object nothing.
async fn send(client: &Client, method: Method, path: &str, kind: &str, body: &[u8]) -> (u16, Vec<String>, String) {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.body(Body::from(body.to_vec())).unwrap();
    let (head, body) = client.0.clone().oneshot(request).await.unwrap().into_parts();
    let warnings = head.headers.get_all("warning").iter().map(|text| text.to_str().unwrap().to_owned()).collect();
    let answer: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    (head.status.as_u16(), warnings, answer["message"].as_str().unwrap_or_default().to_owned())
}

/// A message without the object that it shows.
fn without_object(message: &str) -> String {
    match (message.find("\"{"), message.rfind("}\": ")) {
        (Some(start), Some(end)) => format!("{}\"{{..}}\": {}", &message[..start], &message[end + 4..]),
        _ => message.to_owned(),
    }
}

#[tokio::test]
async fn what_is_strange_in_a_patch() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(MAPS, &json!({"metadata": {"name": "a"}, "data": {"x": "1"}})).await;
    let rows: [(&str, &[u8], u16, &str); 26] = [
        (MERGE, br#"{"data":{"x":"1","x":"2"}}"#, 422, "{..}: strict decoding error: duplicate field \"data.x\""),
        (MERGE, br#"{"foo":1}"#, 422, "{..}: strict decoding error: unknown field \"foo\""),
        (
            MERGE,
            b"3",
            400,
            "error decoding patch: json: cannot unmarshal number into Go value of type map[string]interface {}",
        ),
        (
            MERGE,
            b"[]",
            400,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (MERGE, b"{", 400, "error decoding patch: unexpected end of JSON input"),
        (MERGE, b"null", 400, "Invalid JSON Patch"),
        (
            MERGE,
            br#"{"data":{"x":3}}"#,
            422,
            "{..}: json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (MERGE, b"{\"data\":{\"x\":\"\xff\"}}", 200, ""),
        (
            STRATEGIC,
            br#"{"data":{"x":"1","x":"2"}}"#,
            422,
            "map[data:map[x:2]]: strict decoding error: duplicate field \"data.x\"",
        ),
        (
            STRATEGIC,
            br#"{"metadata":{"foo":1,"labels":{"a":"1","a":"1"}},"bar":2}"#,
            422,
            "map[bar:2 metadata:map[foo:1 labels:map[a:1]]]: strict decoding error: duplicate field \"metadata.labels.a\", unknown field \"bar\", unknown field \"metadata.foo\"",
        ),
        (STRATEGIC, b"3", 400, "json: cannot unmarshal number into Go value of type map[string]interface {}"),
        (STRATEGIC, b"{", 400, "unexpected end of JSON input"),
        (STRATEGIC, b"null", 200, ""),
        (STRATEGIC, br#"{"data":3}"#, 422, "map[data:3]: cannot restore map from int64"),
        (STRATEGIC, br#"{"data":{"x":3}}"#, 422, "map[data:map[x:3]]: cannot convert int64 to string"),
        (
            JSON,
            br#"[{"op":"add","path":"/data/k","value":"v","foo":1}]"#,
            422,
            "{..}: strict decoding error: json patch unknown field \"[0].foo\"",
        ),
        (
            JSON,
            br#"[{"op":"add","path":"/foo","value":"v"}]"#,
            422,
            "{..}: strict decoding error: unknown field \"foo\"",
        ),
        (
            JSON,
            br#"[{"op":"add","path":"/data","value":3}]"#,
            422,
            "{..}: json: cannot unmarshal number into Go struct field ConfigMap.data of type map[string]string",
        ),
        (
            JSON,
            b"{}",
            400,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (
            JSON,
            b"[3]",
            400,
            "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
        ),
        (JSON, b"[", 400, "error decoding patch: unexpected end of JSON input"),
        (
            JSON,
            br#"[{"op":3,"path":"/data/k"}]"#,
            400,
            "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
        ),
        (JSON, b"null", 200, ""),
        (JSON, br#"[{"op":"replace","path":"/data/new","value":"v"}]"#, 200, ""),
        (
            JSON,
            br#"[{"op":"remove","path":"/data/none"}]"#,
            422,
            "the server rejected our request due to an error in our request",
        ),
        (
            JSON,
            br#"[{"op":"test","path":"/metadata/name","value":"b"}]"#,
            422,
            "the server rejected our request due to an error in our request",
        ),
    ];
    let path = format!("{MAP}?fieldValidation=Strict");
    for (kind, body, code, message) in rows {
        let (found, _, said) = send(&client, Method::PATCH, &path, kind, body).await;
        let shown = without_object(&said).replace(" \"\" is invalid: patch: Invalid value: ", "").replacen("\"", "", 2);
        let expected = if code == 422 { message.to_owned() } else { without_object(message) };
        let shown = if code == 422 { shown } else { said.clone() };
        assert_eq!((found, shown), (code, expected), "{kind}: {}", String::from_utf8_lossy(body));
    }
    let pod = crate::harness::pod("p");
    client.post("/api/v1/namespaces/default/pods", &pod).await;
    let strategic: [(&[u8], u16, &str); 4] = [
        (
            br#"{"spec":{"containers":[{"image":"x"}]}}"#,
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (br#"{"metadata":{"$patch":"foo"}}"#, 500, "unknown patch type: foo in map: map[$patch:foo]"),
        (br#"{"spec":{"$retainKeys":3}}"#, 400, "invalid patch format of retainKeys"),
        (br#"{"spec":{"$setElementOrder/containers":3}}"#, 500, "expected a []interface {}, but received a int64"),
    ];
    for (body, code, message) in strategic {
        let (found, _, said) = send(&client, Method::PATCH, "/api/v1/namespaces/default/pods/p", STRATEGIC, body).await;
        assert_eq!((found, said.as_str()), (code, message));
    }
    let secret = "/api/v1/namespaces/default/secrets";
    client.post(secret, &json!({"metadata": {"name": "a"}})).await;
    let path = format!("{secret}/a");
    let (code, _, said) = send(&client, Method::PATCH, &path, STRATEGIC, br#"{"data":{"a":"../x"}}"#).await;
    let why = "map[data:map[a:../x]]\": error decoding from json: illegal base64 data at input byte 0";
    assert!(code == 422 && said.ends_with(why), "{said}");
    // A client that wants no more than to be told is told.
    for (kind, body, told) in [
        (MERGE, br#"{"data":{"x":"1","x":"2"}}"#.as_slice(), r#"duplicate field \"data.x\""#),
        (JSON, br#"[{"op":"add","path":"/data/k","value":"v","foo":1}]"#, r#"json patch unknown field \"[0].foo\""#),
    ] {
        let (code, warnings, _) = send(&client, Method::PATCH, MAP, kind, body).await;
        assert_eq!((code, warnings), (200, vec![format!("299 - \"{told}\"")]));
        let (code, warnings, _) =
            send(&client, Method::PATCH, &format!("{MAP}?fieldValidation=Ignore"), kind, body).await;
        assert!(code == 200 && warnings.is_empty(), "{warnings:?}");
    }
    // Copied into its innermost again and again, a value nests too deeply for whoever walks it.
    let mut nested = vec![json!({"op": "add", "path": "/a", "value": {}})];
    nested.extend((0..18).map(|i| json!({"op": "copy", "from": "/a", "path": "/a".repeat((1 << i) + 1)})));
    let (code, ..) = send(&client, Method::PATCH, MAP, JSON, json!(nested).to_string().as_bytes()).await;
    assert_eq!(code, 422);
    let apply = format!("{MAP}?fieldManager=m&force=true");
    for (body, code, message) in [
        (
            b"- a".as_slice(),
            400,
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (b"a: \"\xff\"", 400, "error decoding YAML: error converting YAML to JSON: yaml: invalid leading UTF-8 octet"),
        (
            b"a: b: c",
            400,
            "error decoding YAML: error converting YAML to JSON: yaml: mapping values are not allowed in this context",
        ),
        (
            b"a: 1\n~: 2",
            400,
            "error decoding YAML: error converting YAML to JSON: unsupported map key of type: %!s(<nil>), key: <nil>, value: 2",
        ),
        (b"", 400, "invalid object type: /, Kind="),
        (b"kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\ndata: {x: \"1\"}\n---\nfoo: [\n", 200, ""),
    ] {
        let (found, _, said) = send(&client, Method::PATCH, &apply, APPLY, body).await;
        assert_eq!((found, said.as_str()), (code, message));
    }
}

#[tokio::test]
async fn documents_that_are_none_and_documents_behind_the_first() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let unrecognized = |why: &str| format!("the object provided is unrecognized (must be of type ConfigMap): {why}");
    let named = "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required".to_owned();
    let rows: [(&str, &[u8], u16, String); 16] = [
        (
            "json",
            b"",
            400,
            unrecognized("couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"),
        ),
        (
            "json",
            b"{\"a\" 1}",
            400,
            unrecognized(
                "couldn't get version/kind; json parse error: invalid character '1' after object key ({\"a\" 1})",
            ),
        ),
        ("json", b"null", 422, named.clone()),
        ("json", b"{\"metadata\":{\"name\":\"u1\"},\"data\":{\"a\":\"\xff\\ud800\"}}", 201, String::new()),
        ("yaml", b"\xff", 400, unrecognized("yaml: invalid leading UTF-8 octet (ff)")),
        ("yaml", b"a: [\n", 400, unrecognized("yaml: line 1: did not find expected node content (613a205b0a)")),
        (
            "yaml",
            b"a: 1\n\tb: 2\n",
            400,
            unrecognized("yaml: line 2: found a tab character that violates indentation (613a20310a09623a20320a)"),
        ),
        (
            "yaml",
            b"{{ a }}: 1",
            400,
            unrecognized("yaml: invalid map key: map[interface {}]interface {}{\"a\":interface {}(nil)} ({{ a }}: 1)"),
        ),
        ("yaml", b"a: *x", 400, unrecognized("yaml: unknown anchor 'x' referenced (613a202a78)")),
        ("yaml", b"a: .inf", 400, unrecognized("json: unsupported value: +Inf (613a202e696e66)")),
        ("yaml", b"a: \x01", 400, unrecognized("yaml: control characters are not allowed (613a2001)")),
        ("yaml", b"", 422, named.clone()),
        ("yaml", b"---\n---\nkind: ConfigMap\nmetadata: {name: y2}\n", 422, named.clone()),
        ("yaml", b"kind: ConfigMap\nmetadata: {name: y1}\n---\nkind: [\n", 201, String::new()),
        ("yaml", b"# c\n---\nkind: ConfigMap\nmetadata: {name: y5}\n...\nfoo: bar\n", 201, String::new()),
        ("yaml", b"%YAML 1.1\n---\nkind: ConfigMap\nmetadata: {name: y6}\n---\n", 201, String::new()),
    ];
    for (kind, body, code, message) in rows {
        let (found, _, said) = send(&client, Method::POST, MAPS, &format!("application/{kind}"), body).await;
        assert_eq!((found, said), (code, message), "{}", String::from_utf8_lossy(body));
    }
    assert_eq!(client.get(&format!("{MAPS}/u1")).await.1["data"], json!({"a": "\u{fffd}\u{fffd}"}));
}

/// What upstream 0.36.4 says of keys that stand twice: it reads bodies once loosely, and once more to tell of these.
#[tokio::test]
async fn keys_given_twice_are_told_with_their_lines() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: \"1\"\n  x: \"2\"\n  0x10: a\n  16: b\nfoo: 1\nfoo: 2\n";
    let lines = [
        "line 6: key \"x\" already set in map",
        "line 8: key 16 already set in map",
        "line 10: key \"foo\" already set in map",
    ];
    let told = format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "));
    let warned = |more: &[&str]| -> Vec<String> {
        lines.iter().chain(more).map(|line| format!("299 - \"{}\"", line.replace('"', "\\\""))).collect()
    };
    for (query, code, warnings, message) in [
        ("", 201, warned(&["unknown field \"foo\""]), String::new()),
        ("&fieldValidation=Ignore", 201, Vec::new(), String::new()),
        (
            "&fieldValidation=Strict",
            400,
            Vec::new(),
            format!(
                "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: {told}, unknown field \"foo\""
            ),
        ),
    ] {
        let answer =
            send(&client, Method::POST, &format!("{MAPS}?dryRun=All{query}"), "application/yaml", text.as_bytes())
                .await;
        assert_eq!(answer, (code, warnings, message), "{query}");
    }
    let text = text.replace("foo: 1\nfoo: 2\n", "");
    let lines = &lines[..2];
    let told = format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "));
    let told = format!("error strict decoding YAML: error converting YAML to JSON: {told}");
    for (query, code, count, message) in
        [("", 201, 2, ""), ("&fieldValidation=Ignore", 201, 0, ""), ("&fieldValidation=Strict", 400, 0, &told)]
    {
        let path = format!("{MAPS}/a?dryRun=All&fieldManager=m{query}");
        let (found, warnings, said) = send(&client, Method::PATCH, &path, APPLY, text.as_bytes()).await;
        assert_eq!((found, warnings.len(), said.as_str()), (code, count, message), "{query}");
    }
    // JSON is YAML, too.
    let json = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1","x":"2"}}"#;
    let (_, warnings, _) = send(&client, Method::PATCH, &format!("{MAPS}/a?fieldManager=m"), APPLY, json).await;
    assert_eq!(warnings, ["299 - \"line 1: key \\\"x\\\" already set in map\""]);
    assert_eq!(client.get(&format!("{MAPS}/a")).await.1["data"], json!({"x": "2"}));
}

#[tokio::test]
async fn options_of_reading() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for name in ["a", "b", "c"] {
        client.post(MAPS, &json!({"metadata": {"name": name}})).await;
    }
    let no_token = "invalid continue token: continue key is not valid: ";
    let no_version = r#"resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax"#;
    let rows = [
        (MAPS, "continue=x", 400, format!("{no_token}illegal base64 data at input byte 0")),
        (MAPS, "continue=abcde", 400, format!("{no_token}illegal base64 data at input byte 4")),
        (MAPS, "continue=ab!c", 400, format!("{no_token}illegal base64 data at input byte 2")),
        (MAPS, "continue=e30", 400, format!("{no_token}server does not recognize this encoded version ")),
        (MAPS, "continue=eyJ2IjoieCJ9", 400, format!("{no_token}server does not recognize this encoded version x")),
        (
            MAPS,
            "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ",
            400,
            format!("{no_token}incorrect encoded start resourceVersion (version meta.k8s.io/v1)"),
        ),
        (MAPS, "resourceVersion=x", 400, format!("invalid resource version: {no_version}")),
        (MAP, "resourceVersion=x", 500, no_version.to_owned()),
        (MAPS, "watch=1&resourceVersion=x", 500, no_version.to_owned()),
        (
            MAPS,
            "watch=1&continue=x",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided".to_owned(),
        ),
    ];
    for (path, query, code, message) in rows {
        let (found, _, said) = send(&client, Method::GET, &format!("{path}?{query}"), "", b"").await;
        assert_eq!((found, said), (code, message), "{query}");
    }
    // Whatever is there comes from the cache, which knows no pages.
    for (query, items, goes_on) in [
        ("limit=2", 2, true),
        ("limit=2&resourceVersion=0", 3, false),
        ("limit=2&resourceVersion=0&resourceVersionMatch=NotOlderThan", 3, false),
    ] {
        let list = client.get(&format!("{MAPS}?{query}")).await.1;
        let found = (list["items"].as_array().unwrap().len(), list["metadata"].get("continue").is_some());
        assert_eq!(found, (items, goes_on), "{query}");
    }
}

#[tokio::test]
async fn metadata_and_tables_of_either_version() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(MAPS, &json!({"metadata": {"name": "a"}})).await;
    let ask = async |path: &str, kind: &str, version: &str| {
        let accept = format!("application/json;as={kind};g=meta.k8s.io;v={version}");
        let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
        let (head, body) = client.0.clone().oneshot(request).await.unwrap().into_parts();
        let answer: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        (head.status.as_u16(), answer)
    };
    for version in ["v1", "v1beta1"] {
        let expected = json!(format!("meta.k8s.io/{version}"));
        for (path, kind) in
            [(MAPS, "PartialObjectMetadataList"), (MAP, "PartialObjectMetadata"), (MAPS, "Table"), (MAP, "Table")]
        {
            let (code, answer) = ask(path, kind, version).await;
            assert_eq!((code, &answer["apiVersion"], &answer["kind"]), (200, &expected, &json!(kind)));
            for inner in [answer.pointer("/items/0"), answer.pointer("/rows/0/object")].into_iter().flatten() {
                assert_eq!((&inner["apiVersion"], &inner["kind"]), (&expected, &json!("PartialObjectMetadata")));
            }
        }
        let refused = [
            (
                MAP,
                "PartialObjectMetadataList",
                "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)",
            ),
            (
                MAPS,
                "PartialObjectMetadata",
                "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)",
            ),
        ];
        for (path, kind, message) in refused {
            let (code, answer) = ask(path, kind, version).await;
            assert_eq!((code, &answer["message"]), (406, &json!(message)));
        }
    }
    assert_eq!(ask(MAP, "Table", "v2").await.0, 406);
}
