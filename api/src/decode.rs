//! From bytes to an object checked against its schema, in one pass.
//!
//! What the schema does not name is left out and, as the client wishes, refused or warned about; what has the wrong type is
//! refused. Times, quantities and numbers come out in canonical form, fields that are null or hold nothing are left out, and
//! others are there without being given, as Go's decoder and encoder leave them after a round trip ([`schema::Nothing`]).
//!
//! [`schema::Nothing`]: crate::schema::Nothing

mod conforming;
mod problem;
mod scalar;
mod walk;

use serde::de::DeserializeSeed;
use serde::{Deserializer, Serialize};
use serde_json::Value;

use crate::json;
use crate::schema::{self, TypeRef};
use crate::status::Status;
use crate::yaml;
use walk::{Context, Walk};

/// Largest body that is read (apiserver `MaxRequestBodyBytes`).
pub const MAX_BYTES: usize = 3 * 1024 * 1024;

/// The encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// application/json
    Json,
    /// application/yaml
    Yaml,
}

/// What to do about unknown and duplicate fields (the query parameter `fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Refuse.
    Strict,
    /// Leave out and warn: the server's default.
    #[default]
    Warn,
    /// Leave out silently.
    Ignore,
}

impl FieldValidation {
    /// The value of the query parameter; empty is the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Strict" => Some(Self::Strict),
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            _ => None,
        }
    }
}

/// An object as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object, holding only what the schema names.
    pub object: Value,
    /// One line for each `Warning` header.
    pub warnings: Vec<String>,
}

/// Reads an object.
///
/// # Errors
/// 400 in upstream's words for what cannot be read, has the wrong type or, in strict mode, is unknown or given twice; 413
/// for more than [`MAX_BYTES`].
pub fn decode(bytes: &[u8], format: Format, ty: TypeRef<'_>, validation: FieldValidation) -> Result<Decoded, Status> {
    read(bytes, format, ty, How { validation, complete: true })
}

/// Reads a part of an object, to be merged into one: fields are there as they are given, if they are not null.
///
/// # Errors
/// As [`decode`].
pub fn partial(bytes: &[u8], format: Format, ty: TypeRef<'_>, validation: FieldValidation) -> Result<Decoded, Status> {
    read(bytes, format, ty, How { validation, complete: false })
}

#[derive(Clone, Copy)]
struct How {
    validation: FieldValidation,
    /// Fields that hold nothing are left out or there as Go's structures have them.
    complete: bool,
}

fn read(bytes: &[u8], format: Format, ty: TypeRef<'_>, how: How) -> Result<Decoded, Status> {
    if bytes.len() > MAX_BYTES {
        return Err(Status::too_large(&format!("limit is {MAX_BYTES}")));
    }
    match format {
        Format::Json => {
            // Looked at whole, text is checked faster than string by string; what is no text fails where it stops being so.
            match std::str::from_utf8(bytes) {
                Ok(text) => from_json(&mut serde_json::Deserializer::from_str(text), ty, how),
                Err(_) => from_json(&mut serde_json::Deserializer::from_slice(bytes), ty, how),
            }
        }
        Format::Yaml => {
            let text = std::str::from_utf8(bytes)
                .map_err(|error| Status::bad_request(format!("yaml: invalid text: {error}")))?;
            run(ty, how, |walk| yaml::with_deserializer(text, |reader| walk.deserialize(reader)))
        }
    }
}

fn from_json<'de, R: serde_json::de::Read<'de>>(
    reader: &mut serde_json::Deserializer<R>,
    ty: TypeRef<'_>,
    how: How,
) -> Result<Decoded, Status> {
    run(ty, how, |walk| walk.deserialize(&mut *reader).and_then(|object| reader.end().map(|()| object)))
}

/// So much of a body is shown.
const SHOWN: usize = 30;

/// The words for a body of which not even the kind can be told (apiserver `endpoints/handlers/rest.go`).
pub fn unrecognized(kind: &str, why: &str, body: &[u8]) -> String {
    let (start, more) = if body.len() > SHOWN { (&body[..SHOWN], " ...") } else { (body, "") };
    let shown = match std::str::from_utf8(start) {
        _ if body.is_empty() => "<empty>".to_owned(),
        Ok(text) if text.starts_with('{') => text.to_owned(),
        _ => start.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    format!("the object provided is unrecognized (must be of type {kind}): {why} ({shown}{more})")
}

/// Checks an object that was made otherwise: by a patch, by a conversion.
///
/// # Errors
/// As [`decode`].
pub fn check(object: Value, ty: TypeRef<'_>, validation: FieldValidation) -> Result<Decoded, Status> {
    if object.is_object() && conforming::conforms(&object, ty.value(), 0) {
        return Ok(Decoded { object, warnings: Vec::new() });
    }
    run(ty, How { validation, complete: true }, |walk| walk.deserialize(object))
}

/// An object as reading it would make it; as it is when it cannot be read.
pub fn completed(object: Value, ty: TypeRef<'_>) -> Value {
    if object.is_object() && conforming::conforms(&object, ty.value(), 0) {
        return object;
    }
    let how = How { validation: FieldValidation::Ignore, complete: true };
    run(ty, how, |walk| walk.deserialize(&object)).map_or(object, |decoded| decoded.object)
}

/// Whether two objects of a type, by its published name, are the same to the API: what holds nothing may be told or not, as the
/// type has it.
pub fn same<T: Serialize + PartialEq>(a: &T, b: &T, name: &str) -> bool {
    let read = |object: &T| {
        let object = serde_json::to_value(object).ok()?;
        Some(completed(object, schema::named(name)?))
    };
    a == b || read(a).zip(read(b)).is_some_and(|(a, b)| json::same(&a, &b))
}

/// Reads from any deserializer: a part of a larger document.
///
/// # Errors
/// As [`decode`].
pub fn from_deserializer<'de, D: Deserializer<'de>>(
    reader: D,
    ty: TypeRef<'_>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    run(ty, How { validation, complete: true }, |walk| walk.deserialize(reader))
}

fn run<E: std::fmt::Display>(
    ty: TypeRef<'_>,
    how: How,
    read: impl FnOnce(Walk<'_, '_>) -> Result<Value, E>,
) -> Result<Decoded, Status> {
    let How { validation, complete } = how;
    let mut context = Context::new(validation != FieldValidation::Ignore, complete);
    let result = read(Walk::new(ty, &mut context));
    let refuse = |why: String| {
        let (kind, version) = (ty.name(), ty.package());
        Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    };
    let object = match (result, context.wrong.take()) {
        (_, Some(wrong)) => return Err(refuse(wrong)),
        (Err(error), None) => return Err(refuse(format!("couldn't get version/kind; json parse error: {error}"))),
        (Ok(object), None) if object.is_object() => object,
        (Ok(_), None) => {
            return Err(refuse("couldn't get version/kind; json parse error: the document is not an object".into()));
        }
    };
    let warnings = context.problems.into_messages();
    if validation == FieldValidation::Strict && !warnings.is_empty() {
        return Err(refuse(format!("strict decoding error: {}", warnings.join(", "))));
    }
    Ok(Decoded { object, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::Gvk;
    use serde_json::json;

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
        let expected =
            json!({"kind": "Pod", "metadata": {}, "spec": {"hostname": "b", "containers": null}, "status": {}});
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
                "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels.a of type string",
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
        for text in ["{", "[]", "3", r#"{"a":1} x"#, "null"] {
            assert_eq!(
                decode(text.as_bytes(), Format::Json, schema::of(&POD).unwrap(), FieldValidation::Ignore)
                    .unwrap_err()
                    .code,
                400,
                "{text}"
            );
        }
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
        let found = partial(part.as_bytes(), Format::Json, schema::of(&POD).unwrap(), FieldValidation::Strict).unwrap();
        assert_eq!(found.object, json!({"spec": {"hostNetwork": false, "containers": [{"env": []}]}}));
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
            "[]",
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
        assert_eq!(decoded.warnings, [r#"duplicate field "spec.replicas""#, r#"unknown field "spec.foo""#]);
        assert_eq!(
            decoded.object,
            json!({"kind": "Deployment", "metadata": {}, "spec": {"replicas": 3, "selector": null, "strategy": {},
                "template": {"metadata": {"labels": {"1": "a"}}, "spec": {"containers": null}}}, "status": {}})
        );
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
}
