//! Reading, checked with what kube-apiserver makes of documents.

use super::refusal::NO_KIND;
use super::*;
use crate::gvk::Gvk;
use crate::json::json;

fn read(gvk: &Gvk, text: &str, validation: FieldValidation) -> Result<Decoded, Status> {
    let format = if text.trim_start().starts_with('{') { Format::Json } else { Format::Yaml };
    decode(text.as_bytes(), format, schema::of(gvk).unwrap(), validation)
}

const DEPLOYMENT: Gvk = Gvk::of("apps", "v1", "Deployment");
const POD: Gvk = Gvk::of("", "v1", "Pod");
const SECRET: Gvk = Gvk::of("", "v1", "Secret");

#[test]
fn unknown_and_duplicate_fields() {
    let text = r#"{"kind":"Deployment","spec":{"foo":{"a":1},"replicas":1,"replicas":2,"template":{"spec":{"containers":[{"name":"a"},{"name":"b","Image":"x","env":null,"env":[]}]}}},"metadata":{"labels":{"a":"1","a":"2"}}}"#;
    let problems = [
        r#"unknown field "spec.foo""#,
        r#"duplicate field "spec.replicas""#,
        r#"unknown field "spec.template.spec.containers[1].Image""#,
        r#"duplicate field "spec.template.spec.containers[1].env""#,
        r#"duplicate field "metadata.labels.a""#,
    ];
    let strict = read(&DEPLOYMENT, text, FieldValidation::Strict).unwrap_err();
    assert_eq!(
        (strict.code, strict.message),
        (
            400,
            format!(
                "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: {}",
                problems.join(", ")
            )
        )
    );
    let warned = read(&DEPLOYMENT, text, FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings, problems);
    assert_eq!(
        warned.object,
        json!({"kind": "Deployment", "spec": {"replicas": 2, "selector": null, "strategy": {}, "template": {"metadata": {},
            "spec": {"containers": [{"name": "a", "resources": {}}, {"name": "b", "resources": {}}]}}},
            "metadata": {"labels": {"a": "2"}}, "status": {}})
    );
    assert!(read(&DEPLOYMENT, text, FieldValidation::Ignore).unwrap().warnings.is_empty());
}

#[test]
fn what_is_gated_off_is_known_but_left_out() {
    let text = r#"{"kind":"Pod","spec":{"schedulingGroup":{"podGroupName":"a"},"hostname":"b"}}"#;
    let found = read(&POD, text, FieldValidation::Strict).unwrap().object;
    let expected = json!({"kind": "Pod", "metadata": {}, "spec": {"hostname": "b", "containers": null}, "status": {}});
    assert_eq!(found, expected);
    let patched = check(serde_json::from_str(text).unwrap(), schema::of(&POD).unwrap(), FieldValidation::Strict);
    assert_eq!(patched.unwrap().object, found);
    let wrong = read(&POD, r#"{"spec":{"schedulingGroup":1}}"#, FieldValidation::Ignore).unwrap_err();
    assert!(wrong.message.contains("cannot unmarshal number"), "{}", wrong.message);
}

#[test]
fn wrong_types_are_refused_in_gos_words() {
    let rows = [
        (
            &DEPLOYMENT,
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            &DEPLOYMENT,
            r#"{"spec":{"replicas":3.5}}"#,
            "json: cannot unmarshal number 3.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            &DEPLOYMENT,
            r#"{"spec":{"replicas":99999999999}}"#,
            "json: cannot unmarshal number 99999999999 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            &DEPLOYMENT,
            r#"{"spec":[]}"#,
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            &POD,
            r#"{"spec":{"containers":[{"image":1}]}}"#,
            "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
        ),
        (
            &POD,
            r#"{"spec":{"containers":{}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            &POD,
            r#"{"metadata":{"labels":{"a":true}}}"#,
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            &POD,
            r#"{"metadata":{"creationTimestamp":"now"}}"#,
            r#"parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006""#,
        ),
        (&POD, r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}"#, crate::quantity::FORMAT_WRONG),
        (&SECRET, r#"{"data":{"a":"b!!"}}"#, "illegal base64 data at input byte 1"),
    ];
    for (gvk, text, message) in rows {
        let status = read(gvk, text, FieldValidation::Warn).unwrap_err();
        assert!(status.message.ends_with(&format!(": {message}")), "{text}: {}", status.message);
    }
    for text in ["{", "[]", "3", r#"{"a":1} x"#] {
        assert_eq!(
            decode(text.as_bytes(), Format::Json, schema::of(&POD).unwrap(), FieldValidation::Ignore).unwrap_err().code,
            400,
            "{text}"
        );
    }
}

/// As a kube-apiserver answered.
#[test]
fn what_is_no_document_is_unrecognized() {
    let long = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let rows: [(&[u8], String); 7] = [
        (b"", format!("{NO_KIND}unexpected end of JSON input (<empty>)")),
        (b"{", format!("{NO_KIND}unexpected end of JSON input ({{)")),
        (b"[]", format!("{NO_KIND}json: cannot unmarshal array into Go value of type {long} (5b5d)")),
        (br#"{"a":1} x"#, format!("{NO_KIND}invalid character 'x' after top-level value ({{\"a\":1}} x)")),
        (
            br#"{"kind":3}"#,
            format!(
                "{NO_KIND}json: cannot unmarshal number into Go struct field .kind of type string ({{\"kind\":3}})"
            ),
        ),
        (b"\xff", format!("{NO_KIND}invalid character '\\xff' looking for beginning of value (ff)")),
        (b"\"abc", format!("{NO_KIND}unexpected end of JSON input (22616263)")),
    ];
    let pod = schema::of(&POD).unwrap();
    for (text, why) in rows {
        let status = decode(text, Format::Json, pod, FieldValidation::Warn).unwrap_err();
        let expected = format!("the object provided is unrecognized (must be of type Pod): {why}");
        assert_eq!((status.code, status.message), (400, expected));
    }
    // Null is an object with nothing in it; bytes that are no text are replaced.
    assert_eq!(decode(b"null", Format::Json, pod, FieldValidation::Strict).unwrap().object, pod.zero());
    let read =
        decode(b"{\"metadata\":{\"name\":\"\xff\\ud800\"}}", Format::Json, pod, FieldValidation::Strict).unwrap();
    assert_eq!(read.object["metadata"]["name"], "\u{fffd}\u{fffd}");
    let yaml = decode(b"a: \xff", Format::Yaml, pod, FieldValidation::Warn).unwrap_err();
    assert!(yaml.message.contains(": yaml: invalid leading UTF-8 octet (61"), "{yaml}");
}

#[test]
fn values_come_out_canonical() {
    let text = r#"{"metadata":{"creationTimestamp":"2026-01-01T02:00:00.5+02:00","labels":{"a":null},"deletionTimestamp":null},
        "spec":{"containers":[null,{"resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}},"ports":[{"containerPort":80}],"args":["a",null]}]}}"#;
    assert_eq!(
        read(&POD, text, FieldValidation::Strict).unwrap().object,
        json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": ""}},
            "spec": {"containers": [{"name": "", "resources": {}}, {"name": "", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                "ports": [{"containerPort": 80}], "args": ["a", ""]}]}, "status": {}})
    );
}

#[test]
fn nothing_is_left_out_or_there_as_upstreams_types_have_it() {
    let text = r#"{"metadata":{"labels":{},"name":"","creationTimestamp":null,"ownerReferences":[{"controller":false}]},
        "spec":{"hostNetwork":false,"priority":0,"activeDeadlineSeconds":null,"nodeSelector":{"a":""},"securityContext":{},"volumes":[],
        "containers":[{"name":"c","env":[{"value":""}],"tty":false,"readinessProbe":{"httpGet":{"path":""},"periodSeconds":0}}]},
        "status":{"conditions":[{"type":"a"}]}}"#;
    let expected = json!({
        "metadata": {"ownerReferences": [{"controller": false, "apiVersion": "", "kind": "", "name": "", "uid": ""}]},
        "spec": {"priority": 0, "nodeSelector": {"a": ""}, "securityContext": {}, "containers": [{"name": "c",
            "env": [{"name": ""}], "resources": {}, "readinessProbe": {"httpGet": {"port": 0}}}]},
        "status": {"conditions": [{"type": "a", "status": "", "lastProbeTime": null, "lastTransitionTime": null}]}
    });
    let found = read(&POD, text, FieldValidation::Strict).unwrap().object;
    assert_eq!(found, expected);
    assert_eq!(completed(serde_json::from_str(text).unwrap(), schema::of(&POD).unwrap()), expected);
    // It stays so, whether it is looked through or read.
    let reread = read(&POD, &expected.to_string(), FieldValidation::Strict).unwrap().object;
    assert!(reread == expected && completed(expected.clone(), schema::of(&POD).unwrap()) == expected);
    // What is given twice counts as it is given last.
    let twice =
        r#"{"spec":{"hostname":"a","hostname":"","containers":[],"containers":[{"name":"c"}],"containers":null}}"#;
    let found = read(&POD, twice, FieldValidation::Ignore).unwrap().object;
    assert_eq!(found["spec"], json!({"containers": null}));
    // A part is what is given.
    let part = r#"{"spec":{"hostNetwork":false,"containers":[{"env":[]}]},"status":null}"#;
    let part = serde_json::from_str(part).unwrap();
    let found = partial(part, schema::of(&POD).unwrap(), FieldValidation::Strict).unwrap();
    assert_eq!(found.object, json!({"spec": {"hostNetwork": false, "containers": [{"env": []}]}, "status": null}));
}

#[test]
fn checking_a_document_is_reading_it() {
    let texts = [
        r#"{"kind":"Pod","metadata":{"name":"a","labels":{"a":"b"},"creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"containers":[{"name":"c","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"1"}}}]}}"#,
        r#"{"metadata":{"name":null,"labels":{"a":null}},"spec":{"containers":[null,{"name":"c","args":["a",null]}]}}"#,
        r#"{"metadata":{"creationTimestamp":"2026-01-01T02:00:00+02:00"},"spec":{"containers":[{"resources":{"limits":{"cpu":"1000m","memory":1}}}]}}"#,
        r#"{"spec":{"unknown":1,"containers":[{"ports":[{"containerPort":99999999999}]}]}}"#,
        r#"{"spec":{"containers":{}}}"#,
        r#"{"metadata":{"managedFields":[{"manager":"a","fieldsV1":{"f:a":{".":{}}}}]}}"#,
        r#"{"spec":{"containers":[{"ports":[{"containerPort":"80"}],"readinessProbe":{"httpGet":{"port":1.5}}}]}}"#,
    ];
    for text in texts {
        for validation in [FieldValidation::Strict, FieldValidation::Warn, FieldValidation::Ignore] {
            let checked = check(serde_json::from_str(text).unwrap(), schema::of(&POD).unwrap(), validation);
            let read = decode(text.as_bytes(), Format::Json, schema::of(&POD).unwrap(), validation);
            assert_eq!(checked.map_err(|status| status.message), read.map_err(|status| status.message), "{text}");
        }
    }
}

#[test]
fn yaml_goes_the_same_way() {
    let text = "kind: Deployment\nspec:\n  replicas: 2\n  replicas: 3\n  foo: bar\n  template:\n    metadata:\n      labels: {1: a}\n";
    let decoded = read(&DEPLOYMENT, text, FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, [r#"line 4: key "replicas" already set in map"#, r#"unknown field "spec.foo""#]);
    assert_eq!(
        decoded.object,
        json!({"kind": "Deployment", "metadata": {}, "spec": {"replicas": 3, "selector": null, "strategy": {},
            "template": {"metadata": {"labels": {"1": "a"}}, "spec": {"containers": null}}}, "status": {}})
    );
    let strict = read(&DEPLOYMENT, text, FieldValidation::Strict).unwrap_err();
    let why = "strict decoding error: yaml: unmarshal errors:\n  line 4: key \"replicas\" already set in map, unknown field \"spec.foo\"";
    assert!(strict.message.ends_with(why), "{strict}");
    let ignored = read(&DEPLOYMENT, text, FieldValidation::Ignore).unwrap();
    assert_eq!((ignored.warnings, ignored.object), (Vec::new(), decoded.object));
    let wrong = read(&DEPLOYMENT, "spec:\n  replicas: two\n", FieldValidation::Warn).unwrap_err();
    assert!(wrong.message.ends_with("of type int32"), "{wrong}");
}

#[test]
fn size_and_depth_are_bounded() {
    let big = vec![b' '; MAX_BYTES + 1];
    assert_eq!(decode(&big, Format::Json, schema::of(&POD).unwrap(), FieldValidation::Warn).unwrap_err().code, 413);
    let crd = Gvk::of("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let deep = format!(
        r#"{{"spec":{{"versions":[{{"schema":{{"openAPIV3Schema":{{"default":{}1{}}}}}}}]}}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    assert_eq!(
        decode(deep.as_bytes(), Format::Json, schema::of(&crd).unwrap(), FieldValidation::Warn).unwrap_err().code,
        400
    );
}

#[test]
fn types_have_the_names_that_go_has_for_them() {
    for (text, told) in [
        (r#"{"metadata":{"uid":3}}"#, "number into Go struct field ObjectMeta.metadata.uid of type types.UID"),
        (
            r#"{"spec":{"restartPolicy":[]}}"#,
            "array into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            r#"{"spec":{"containers":[{"securityContext":{"capabilities":{"add":[3]}}}]}}"#,
            "number into Go struct field Capabilities.spec.containers.securityContext.capabilities.add of type v1.Capability",
        ),
        (
            r#"{"spec":{"containers":[{"securityContext":{"capabilities":{"add":"a"}}}]}}"#,
            "string into Go struct field Capabilities.spec.containers.securityContext.capabilities.add of type []v1.Capability",
        ),
        (r#"{"spec":{"nodeName":3}}"#, "number into Go struct field PodSpec.spec.nodeName of type string"),
    ] {
        let wrong =
            decode(text.as_bytes(), Format::Json, schema::of(&POD).unwrap(), FieldValidation::Warn).unwrap_err();
        assert!(wrong.message.ends_with(&format!("json: cannot unmarshal {told}")), "{wrong}");
    }
}

/// As Go's decoder has it.
#[test]
fn base64_ends_where_go_says() {
    let of = |text: &str| {
        let body = json!({"data": {"a": text}}).to_string();
        let found = read(&SECRET, &body, FieldValidation::Ignore);
        found.map(|found| found.object["data"]["a"].clone()).map_err(|status| status.message)
    };
    for (text, at) in [
        ("A", 0),
        ("YQ", 0),
        ("YWI", 0),
        ("YWJjYQ", 4),
        ("YWJjA", 4),
        ("=", 0),
        ("Y=", 1),
        ("YQ=", 3),
        ("YQ=a", 2),
        ("YQ==YQ==", 4),
        ("YQ\n=", 4),
        ("b!!", 1),
        ("YW\nJj!", 5),
        ("YW Jj", 2),
    ] {
        let wrong = of(text).unwrap_err();
        assert!(wrong.ends_with(&format!("illegal base64 data at input byte {at}")), "{text:?} {at}: {wrong}");
    }
    for (text, written) in [("", ""), ("YQ==", "YQ=="), ("YR==", "YQ=="), ("YWJ=", "YWI="), ("Y\r\nQ==\n", "YQ==")] {
        assert_eq!(of(text).unwrap(), written, "{text:?}");
    }
}
