//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7396) and Kubernetes' strategic merge patch, applied and made.

mod diff;
mod merge;
mod strategic;

use serde_json::{Map, Value};

pub use diff::{strategic_diff, three_way_strategic};
pub use merge::{merge_diff, three_way_merge};

use crate::decode::MAX_BYTES;
use crate::schema::{Kind, Strategy, TypeRef, ValueRef};
use crate::status::{Reason, Status};

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

/// `current` as `patch` changes it. The result is not checked against the schema: [`crate::decode::check`] does that.
///
/// # Errors
/// 400 for what is no patch, 413 for one that is too large, 422 for a JSON patch that cannot be applied.
pub fn apply(patch_type: PatchType, current: &Value, patch: &[u8], ty: TypeRef<'_>) -> Result<Value, Status> {
    if patch.len() > MAX_BYTES {
        return Err(Status::too_large(&format!("limit is {MAX_BYTES}")));
    }
    match patch_type {
        PatchType::Json => apply_json(current, patch),
        PatchType::Merge => {
            let patch = read_object(patch)?;
            let mut object = current.clone();
            json_patch::merge(&mut object, &patch);
            Ok(object)
        }
        PatchType::Strategic => strategic(current, read_object(patch)?, ty),
    }
}

/// `current` as a strategic merge patch changes it.
///
/// # Errors
/// 400 for a patch with directives that do not fit.
pub fn strategic(current: &Value, patch: Value, ty: TypeRef<'_>) -> Result<Value, Status> {
    let (Value::Object(current), Value::Object(patch)) = (current.clone(), patch) else {
        return Err(Status::bad_request("a strategic merge patch must be an object"));
    };
    strategic::merge_map(current, patch, Some(ty.value())).map(Value::Object).map_err(Status::bad_request)
}

fn read_object(patch: &[u8]) -> Result<Value, Status> {
    let read: Value =
        serde_json::from_slice(patch).map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    if read.is_object() {
        Ok(read)
    } else {
        Err(Status::bad_request("error decoding patch: the patch must be an object"))
    }
}

fn apply_json(current: &Value, patch: &[u8]) -> Result<Value, Status> {
    let operations: json_patch::Patch =
        serde_json::from_slice(patch).map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    if operations.0.len() > MAX_OPERATIONS {
        let message =
            format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}", operations.0.len());
        return Err(Status::too_large(&message));
    }
    let mut object = current.clone();
    let mut copied = 0;
    for operation in &operations.0 {
        if let json_patch::PatchOperation::Copy(copy) = operation {
            copied += object.pointer(copy.from.as_str()).map_or(0, weight);
            if copied > MAX_BYTES {
                return Err(Status::too_large(&format!("limit of copied values is {MAX_BYTES}")));
            }
        }
        if let json_patch::PatchOperation::Test(test) = operation
            && test.value.is_null()
            && object.pointer(test.path.as_str()).is_none()
        {
            // What is not there is null.
            continue;
        }
        // Why is not told.
        json_patch::patch(&mut object, std::slice::from_ref(operation)).map_err(|_| {
            Status::new(422, Reason::Invalid, "the server rejected our request due to an error in our request")
        })?;
    }
    Ok(object)
}

/// About how many bytes a value takes; copies of copies would otherwise grow without bound.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| 1 + weight(item)).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(key, value)| key.len() + 4 + weight(value)).sum::<usize>(),
        _ => 5,
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

type Object = Map<String, Value>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::Gvk;
    use crate::schema;
    use serde_json::json;

    fn pod() -> TypeRef<'static> {
        schema::of(&Gvk::of("", "v1", "Pod")).unwrap()
    }

    fn run(patch_type: PatchType, current: &Value, patch: &Value) -> Result<Value, Status> {
        apply(patch_type, current, patch.to_string().as_bytes(), pod())
    }

    #[test]
    fn json_and_merge_patches() {
        let current = json!({"metadata": {"name": "a", "labels": {"x": "1"}}});
        let json = json!([{"op": "add", "path": "/metadata/labels/y", "value": "2"}, {"op": "remove", "path": "/metadata/labels/x"}]);
        assert_eq!(
            run(PatchType::Json, &current, &json).unwrap(),
            json!({"metadata": {"name": "a", "labels": {"y": "2"}}})
        );
        let failed = run(PatchType::Json, &current, &json!([{"op": "test", "path": "/metadata/name", "value": "b"}]))
            .unwrap_err();
        assert_eq!((failed.code, failed.reason, failed.causes().len()), (422, Reason::Invalid, 0));
        let absent = json!([{"op": "test", "path": "/metadata/uid", "value": null}]);
        assert_eq!(run(PatchType::Json, &current, &absent).unwrap(), current);
        let merge = json!({"metadata": {"labels": {"x": null, "y": "2"}}});
        assert_eq!(
            run(PatchType::Merge, &current, &merge).unwrap(),
            json!({"metadata": {"name": "a", "labels": {"y": "2"}}})
        );
        let doubling: Vec<Value> =
            (0..64).map(|i| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/x{i}")})).collect();
        assert_eq!(run(PatchType::Json, &current, &json!(doubling)).unwrap_err().code, 413);
        for patch_type in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
            assert_eq!(apply(patch_type, &current, b"3", pod()).unwrap_err().code, 400);
        }
    }
}
