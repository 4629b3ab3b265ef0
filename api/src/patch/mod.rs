//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7396) and Kubernetes' strategic merge patch, applied and made.

mod diff;
mod json;
mod merge;
mod strategic;

use crate::json::{Map, Value};

pub use diff::{strategic_diff, three_way_strategic};
pub use merge::{merge, merge_diff, three_way_merge};

use crate::decode::{self, FieldValidation, MAX_BYTES};
use crate::go;
use crate::gvk::Gvk;
use crate::schema::{Kind, Strategy, TypeRef, ValueRef};
use crate::status::{Cause, FieldPath, Reason, Status};

/// Most operations in one JSON patch (apiserver `maxJSONPatchOperations`).
const MAX_OPERATIONS: usize = 10_000;

/// The kinds of patch that are applied to an object as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

impl PatchType {
    /// The media type, without parameters.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            _ => None,
        }
    }

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// What came of a patch.
#[derive(Debug)]
pub struct Patched {
    /// The object, not checked against the schema; null when it was read, and taken.
    object: Value,
    /// Fields that are unknown or given twice, in the patch or in what came of it.
    pub problems: Vec<String>,
    /// What came of it as empty and was read as null ([`decode::Decoded::empty`]).
    pub empty: Vec<Vec<String>>,
    patch_type: PatchType,
    /// A strategic patch, to be shown.
    patch: Value,
    /// The names in the patch; null for all that is below.
    named: Value,
}

impl Patched {
    /// What came of it, before it was read.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// The object, read as any body of its type is, but with what is unknown put to the problems.
    ///
    /// # Errors
    /// 422 for an object that is none of its type.
    pub fn read(&mut self, ty: TypeRef<'_>, validation: FieldValidation) -> Result<Value, Status> {
        self.read_where(decode::conforms(&self.object, ty), ty, validation)
    }

    /// The same where the object that was patched was itself read so: what the patch does not name still is as it was read.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_again(&mut self, of: &Value, ty: TypeRef<'_>, validation: FieldValidation) -> Result<Value, Status> {
        self.read_where(decode::conforms_still(&self.object, of, &self.named, ty), ty, validation)
    }

    fn read_where(&mut self, conforms: bool, ty: TypeRef<'_>, validation: FieldValidation) -> Result<Value, Status> {
        if conforms {
            return Ok(std::mem::take(&mut self.object));
        }
        let validation = if validation == FieldValidation::Strict { FieldValidation::Warn } else { validation };
        let decoded = match self.patch_type {
            PatchType::Strategic => decode::restore(self.object.clone(), ty, validation),
            PatchType::Json | PatchType::Merge => decode::examine(self.object.clone(), ty, validation),
        }
        .map_err(|why| self.refuse(&Value::Null, &why))?;
        self.problems.extend(decoded.warnings);
        self.empty = decoded.empty;
        Ok(decoded.object)
    }

    /// The warnings about the problems. `object`: what was read.
    ///
    /// # Errors
    /// 422 when there are any and fields are validated strictly.
    pub fn settle(&mut self, object: &Value, validation: FieldValidation) -> Result<Vec<String>, Status> {
        match validation {
            FieldValidation::Ignore => Ok(Vec::new()),
            FieldValidation::Strict if !self.problems.is_empty() => {
                Err(self.refuse(object, &format!("strict decoding error: {}", self.problems.join(", "))))
            }
            _ => Ok(std::mem::take(&mut self.problems)),
        }
    }

    /// In the words of apiserver `endpoints/handlers/patch.go`: a strategic patch is shown as Go prints it; of the others,
    /// what came of them.
    fn refuse(&self, object: &Value, why: &str) -> Status {
        let shown = match self.patch_type {
            PatchType::Strategic => go::print(&self.patch),
            _ if self.object.is_null() => object.to_string(),
            _ => self.object.to_string(),
        };
        let cause = Cause::invalid(&FieldPath::new("patch"), shown, why);
        Status::invalid(&Gvk::of("", "", ""), "", vec![cause])
    }
}

/// `current` as `patch` changes it. `collect`: look for what stands twice and is unknown.
///
/// # Errors
/// 400 for what is no patch, 413 for one that is too large, 422 for a JSON patch that cannot be applied.
pub fn apply(
    patch_type: PatchType,
    current: &Value,
    patch: &[u8],
    ty: TypeRef<'_>,
    collect: bool,
) -> Result<Patched, Status> {
    if patch.len() > MAX_BYTES {
        return Err(Status::too_large(&format!("limit is {MAX_BYTES}")));
    }
    let (object, problems, patch, named) = match patch_type {
        PatchType::Json => {
            let (object, problems, named) = json::apply(current, patch, collect)?;
            (object, problems, Value::Null, named)
        }
        PatchType::Merge => {
            let (patch, problems) = read_object(patch, collect).map_err(|why| {
                // When nothing has read it before the library, no more is told.
                let told =
                    if collect { format!("error decoding patch: {why}") } else { "Invalid JSON Patch".to_owned() };
                Status::bad_request(told)
            })?;
            if patch.is_null() {
                return Err(Status::bad_request("Invalid JSON Patch"));
            }
            let mut object = current.clone();
            let named = names(&patch);
            merge::merge(&mut object, patch);
            (object, problems, Value::Null, named)
        }
        PatchType::Strategic => {
            let (patch, problems) = read_object(patch, collect).map_err(Status::bad_request)?;
            let patch = if patch.is_null() { Value::Object(Map::new()) } else { patch };
            let named = names(&patch);
            (strategic(current, patch.clone(), ty)?, problems, patch, named)
        }
    };
    Ok(Patched { object, problems, empty: Vec::new(), patch_type, patch, named })
}

/// The names in a merge patch, without what it puts there.
fn names(patch: &Value) -> Value {
    match patch {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), names(value))).collect::<Map>().into()
        }
        _ => Value::Null,
    }
}

/// `current` as a strategic merge patch changes it.
///
/// # Errors
/// 400 and 500 for a patch with directives that do not fit, as upstream has it.
pub fn strategic(current: &Value, patch: Value, ty: TypeRef<'_>) -> Result<Value, Status> {
    let (Value::Object(current), Value::Object(patch)) = (current.clone(), patch) else {
        return Err(Status::bad_request("a strategic merge patch must be an object"));
    };
    strategic::merge_map(current, patch, Some(ty.value())).map(Value::Object).map_err(|why| {
        // Apiserver `endpoints/handlers/patch.go`, `interpretStrategicMergePatchError`.
        if why == strategic::BAD_RETAIN_KEYS {
            Status::bad_request(why)
        } else {
            Status::new(500, Reason::Unknown, why)
        }
    })
}

/// A patch that is an object, and what stands twice in it.
fn read_object(patch: &[u8], collect: bool) -> Result<(Value, Vec<String>), String> {
    match decode::any(patch, collect)? {
        (read, problems) if read.is_object() => Ok((read, problems)),
        // Go's null is an empty map.
        (Value::Null, problems) => Ok((Value::Null, problems)),
        (read, _) => {
            Err(format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", go::kind(&read)))
        }
    }
}

/// What the schema says of a value inside another.
#[derive(Clone, Copy, Default)]
struct Inside<'s> {
    value: Option<ValueRef<'s>>,
    strategy: Strategy,
    merge_key: Option<&'s str>,
}

impl<'s> Inside<'s> {
    /// Of the field or entry `key` of `outer`; nothing is said of what the schema does not know.
    fn of(outer: Option<ValueRef<'s>>, key: &str) -> Self {
        match outer.map(ValueRef::kind) {
            Some(Kind::Object(ty)) => ty.field(key).map_or_else(Self::default, |field| Self {
                value: Some(field.value()),
                strategy: field.strategy(),
                merge_key: field.merge_key(),
            }),
            Some(Kind::Map(value)) => Self { value: Some(value), ..Self::default() },
            _ => Self::default(),
        }
    }

    /// The form of the items, if it is a list.
    fn item(self) -> Option<ValueRef<'s>> {
        match self.value?.kind() {
            Kind::List(item) => Some(item),
            _ => None,
        }
    }
}

type Object = Map;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::Gvk;
    use crate::json::json;
    use crate::schema;
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::strategy::Strategy;

    fn pod() -> TypeRef<'static> {
        schema::of(&Gvk::of("", "v1", "Pod")).unwrap()
    }

    fn run(patch_type: PatchType, current: &Value, patch: &Value) -> Result<Value, Status> {
        apply(patch_type, current, patch.to_string().as_bytes(), pod(), false).map(|patched| patched.object)
    }

    #[test]
    fn json_and_merge_patches() {
        let current = json!({"metadata": {"name": "a", "labels": {"x": "1"}}});
        let json = json!([{"op": "add", "path": "/metadata/labels/y", "value": "2"}, {"op": "remove", "path": "/metadata/labels/x"}]);
        let expected = json!({"metadata": {"name": "a", "labels": {"y": "2"}}});
        assert_eq!(run(PatchType::Json, &current, &json).unwrap(), expected);
        let failed = run(PatchType::Json, &current, &json!([{"op": "test", "path": "/metadata/name", "value": "b"}]))
            .unwrap_err();
        assert_eq!((failed.code, failed.reason, failed.causes().len()), (422, crate::status::Reason::Invalid, 0));
        let merge = json!({"metadata": {"labels": {"x": null, "y": "2"}}});
        assert_eq!(run(PatchType::Merge, &current, &merge).unwrap(), expected);
        for patch_type in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
            assert_eq!(apply(patch_type, &current, b"3", pod(), true).unwrap_err().code, 400);
        }
        // Only a strategic patch may be nothing.
        assert_eq!(run(PatchType::Merge, &current, &Value::Null).unwrap_err().message, "Invalid JSON Patch");
        assert_eq!(run(PatchType::Strategic, &current, &Value::Null).unwrap(), current);
    }

    #[test]
    fn problems_are_told_or_refused() {
        let current = json!({"metadata": {"name": "a"}});
        let patch = br#"{"spec":{"foo":[1,2.5,"s",null,true],"hostname":"a","hostname":"b"}}"#;
        let read = |patch_type, validation| {
            let mut patched = apply(patch_type, &current, patch, pod(), validation != FieldValidation::Ignore)?;
            let object = patched.read(pod(), validation)?;
            assert_eq!((&object["metadata"]["name"], &object["spec"]["hostname"]), (&json!("a"), &json!("b")));
            assert!(object["spec"].get("foo").is_none(), "{object}");
            patched.settle(&object, validation)
        };
        let problems = [r#"duplicate field "spec.hostname""#, r#"unknown field "spec.foo""#];
        for (patch_type, shown) in [
            (
                PatchType::Merge,
                r#"{\"metadata\":{\"name\":\"a\"},\"spec\":{\"foo\":[1,2.5,\"s\",null,true],\"hostname\":\"b\"}}"#,
            ),
            (PatchType::Strategic, "map[spec:map[foo:[1 2.5 s <nil> true] hostname:b]]"),
        ] {
            assert!(read(patch_type, FieldValidation::Ignore).unwrap().is_empty());
            assert_eq!(read(patch_type, FieldValidation::Warn).unwrap(), problems);
            let strict = read(patch_type, FieldValidation::Strict).unwrap_err();
            let expected = format!(
                " \"\" is invalid: patch: Invalid value: \"{shown}\": strict decoding error: {}",
                problems.join(", ")
            );
            assert_eq!((strict.code, strict.message), (422, expected));
        }
    }

    /// As a kube-apiserver answered.
    #[test]
    fn what_a_strategic_patch_makes_unreadable() {
        let rows = [
            (r#"{"spec":3}"#, "map[spec:3]", "cannot restore struct from: int64"),
            (
                r#"{"metadata":{"labels":{"x":3}}}"#,
                "map[metadata:map[labels:map[x:3]]]",
                "cannot convert int64 to string",
            ),
            (r#"{"metadata":{"labels":{"x":[]}}}"#, "map[metadata:map[labels:map[x:[]]]]", "unrecognized type: string"),
            (
                r#"{"metadata":{"finalizers":{}}}"#,
                "map[metadata:map[finalizers:map[]]]",
                "cannot restore slice from map",
            ),
            (r#"{"metadata":{"labels":3}}"#, "map[metadata:map[labels:3]]", "cannot restore map from int64"),
            (r#"{"metadata":{"generation":"3"}}"#, "map[metadata:map[generation:3]]", "unrecognized type: int64"),
            (
                r#"{"metadata":{"generation":3.5}}"#,
                "map[metadata:map[generation:3.5]]",
                "cannot convert float64 to int64",
            ),
            (r#"{"spec":{"hostNetwork":"x"}}"#, "map[spec:map[hostNetwork:x]]", "unrecognized type: bool"),
        ];
        for (patch, shown, why) in rows {
            let mut patched = apply(PatchType::Strategic, &json!({}), patch.as_bytes(), pod(), true).unwrap();
            let refused = patched.read(pod(), FieldValidation::Warn).unwrap_err();
            let expected = format!(" \"\" is invalid: patch: Invalid value: \"{shown}\": {why}");
            assert_eq!((refused.code, refused.message), (422, expected));
        }
    }

    const NAMES: [&str; 22] = [
        "metadata",
        "labels",
        "annotations",
        "a",
        "b",
        "creationTimestamp",
        "spec",
        "containers",
        "hostname",
        "securityContext",
        "fsGroup",
        "nodeSelector",
        "strategy",
        "status",
        "conditions",
        "volumes",
        "emptyDir",
        "resources",
        "no",
        "$patch",
        "$retainKeys",
        "$deleteFromPrimitiveList/finalizers",
    ];

    /// Objects of the words that pods and deployments have, and patches of them.
    fn documents() -> BoxedStrategy<Value> {
        let scalars =
            [json!(null), json!("x"), json!(3), json!({}), json!([]), json!("replace"), json!("2026-01-01T00:00:00Z")];
        let lists = [
            json!([{"name": "a"}]),
            json!([{"name": "a", "image": "x", "resources": {}}, {"name": "b"}]),
            json!(["x"]),
        ];
        let below = select([scalars.as_slice(), &lists].concat()).prop_recursive(4, 30, 5, |below| {
            prop::collection::vec((select(NAMES.as_slice()), below), 1..6)
                .prop_map(|fields| fields.into_iter().collect::<Map>().into())
        });
        let root = |name: &'static str| {
            prop::option::of(below.clone()).prop_map(move |value| value.map(|value| (name, value)))
        };
        (root("metadata"), root("spec"), root("status"), prop::option::of((select(NAMES.as_slice()), below.clone())))
            .prop_map(|(metadata, spec, status, any)| {
                [metadata, spec, status, any].into_iter().flatten().collect::<Map>().into()
            })
            .boxed()
    }

    fn operations() -> impl Strategy<Value = Value> {
        let way = prop::collection::vec(select([&NAMES[..], &["0", "-"]].concat()), 0..4)
            .prop_map(|names| names.iter().map(|name| format!("/{name}")).collect::<String>());
        let one = (select(vec!["add", "remove", "replace", "move", "copy", "test"]), way.clone(), way, documents())
            .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}));
        prop::collection::vec(one, 1..4).prop_map(Value::Array)
    }

    /// What comes of a patch when all of it is looked at, and when only what it names is; None when it cannot be applied.
    fn both_ways(patch_type: PatchType, current: &Value, patch: &Value, ty: TypeRef<'_>) -> Option<[String; 2]> {
        let run = |read: &dyn Fn(&mut Patched) -> Result<Value, Status>| {
            let mut patched = apply(patch_type, current, patch.to_string().as_bytes(), ty, true).ok()?;
            let read = read(&mut patched).map_err(|status| status.message);
            Some(format!("{read:?} {:?} {:?}", patched.problems, patched.empty))
        };
        let whole = run(&|patched| patched.read(ty, FieldValidation::Warn))?;
        Some([whole, run(&|patched| patched.read_again(current, ty, FieldValidation::Warn))?])
    }

    proptest! {
        #[test]
        fn what_is_not_named_need_not_be_looked_at(current in documents(), patch in documents(), operations in operations()) {
            for kind in ["Pod", "Deployment"] {
                let group = if kind == "Pod" { "" } else { "apps" };
                let ty = schema::of(&Gvk::of(group, "v1", kind)).unwrap();
                let current = decode::completed(current.clone(), ty);
                if !decode::conforms(&current, ty) {
                    continue;
                }
                for (patch_type, patch) in
                    [(PatchType::Merge, &patch), (PatchType::Strategic, &patch), (PatchType::Json, &operations)]
                {
                    if let Some([whole, named]) = both_ways(patch_type, &current, patch, ty) {
                        prop_assert_eq!(whole, named, "{:?} {} {}", patch_type, current, patch);
                    }
                }
            }
        }
    }

    #[test]
    fn what_must_be_there_is_missed_where_it_is_named() {
        let current =
            decode::completed(json!({"metadata": {"labels": {"a": "1"}}, "status": {"phase": "Running"}}), pod());
        for patch in [
            json!({"metadata": {"labels": {"a": null}}}),
            json!({"metadata": null}),
            json!({"metadata": {"labels": {"a": 3}}}),
            json!({"spec": {"hostname": ""}}),
            json!({"spec": {"containers": [{"name": "a"}]}}),
            json!({"spec": {"no": 1}}),
            json!({"no": 1}),
            json!({"$patch": "replace", "spec": {"hostname": "a"}}),
        ] {
            for patch_type in [PatchType::Merge, PatchType::Strategic] {
                let [whole, named] = both_ways(patch_type, &current, &patch, pod()).unwrap();
                assert_eq!(whole, named, "{patch_type:?} {patch}");
            }
        }
        let moved = json!([{"op": "move", "from": "/metadata/labels/a", "path": "/metadata/generateName"}]);
        let emptied = json!([{"op": "test", "path": "/status/phase", "value": "Running"}, {"op": "remove", "path": "/metadata/labels/a"}]);
        let again = json!([{"op": "add", "path": "/spec/no", "value": {}}, {"op": "add", "path": "/spec/no/a", "value": 1},
            {"op": "replace", "path": "", "value": {"status": {}}}, {"op": "add", "path": "/spec", "value": {"hostname": "a"}}]);
        for patch in [moved, emptied, again] {
            let [whole, named] = both_ways(PatchType::Json, &current, &patch, pod()).unwrap();
            assert_eq!(whole, named, "{patch}");
        }
    }
}
