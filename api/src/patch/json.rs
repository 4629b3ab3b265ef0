//! JSON patch (RFC 6902) as the API server's library reads it (`evanphx/json-patch` v4): indexes count from the end when they
//! are negative, what stands before a path's first slash is nobody's, a member that is not there is null to `test` and `copy`
//! and can be replaced, a value that is not given is null.

use crate::json::{Map, Value};

use super::MAX_OPERATIONS;
use crate::decode::{self, MAX_BYTES};
use crate::go;
use crate::status::{Reason, Status};

/// What an operation may hold.
const KNOWN: [&str; 4] = ["op", "path", "from", "value"];

/// The operation does not apply. Why is not told: the server's answer has no room for it.
struct Rejected;

/// `current` as the operations change it, what is strange about them, and the names on the ways to what they change; null where
/// such a way ends.
pub(super) fn apply(current: &Value, patch: &[u8], collect: bool) -> Result<(Value, Vec<String>, Value), Status> {
    let (read, mut problems) =
        decode::any(patch, collect).map_err(|why| Status::bad_request(cannot_decode(&why, collect)))?;
    let operations = match read {
        Value::Array(operations) => operations,
        Value::Null => Vec::new(),
        other => {
            return Err(mistyped(&other, if collect { "[]handlers.jsonPatchOp" } else { "jsonpatch.Patch" }, collect));
        }
    };
    if operations.len() > MAX_OPERATIONS {
        let found = operations.len();
        return Err(Status::too_large(&format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {found}"
        )));
    }
    let mut object = current.clone();
    let mut named = Map::new().into();
    let mut copied = 0;
    for (at, operation) in operations.into_iter().enumerate() {
        let operation = match operation {
            Value::Object(operation) => operation,
            Value::Null => Map::new(),
            other => {
                return Err(mistyped(
                    &other,
                    if collect { "handlers.jsonPatchOp" } else { "jsonpatch.Operation" },
                    collect,
                ));
            }
        };
        if collect {
            check_types(&operation)?;
            let unknown = operation.keys().filter(|key| !KNOWN.contains(&key.as_str()));
            problems.extend(unknown.map(|key| format!("unknown field \"[{at}].{key}\"")));
        }
        run(&mut object, &operation, &mut copied).map_err(|Rejected| {
            Status::new(422, Reason::Invalid, "the server rejected our request due to an error in our request")
        })?;
        // It did apply, so that the way is no longer than the object is deep.
        let changed: &[&str] = match operation.get("op").and_then(Value::as_str) {
            Some("test") => &[],
            Some("move") => &["from", "path"],
            _ => &["path"],
        };
        for way in changed.iter().filter_map(|field| operation.get(field)?.as_str()) {
            name(&mut named, way.split('/').skip(1).map(unescaped));
        }
    }
    for problem in &mut problems {
        problem.insert_str(0, "json patch ");
    }
    Ok((object, problems, named))
}

/// Adds the names of a way. What is named as a whole stays so.
fn name(named: &mut Value, mut way: impl Iterator<Item = String>) {
    let Some(first) = way.next() else {
        *named = Value::Null;
        return;
    };
    if let Value::Object(names) = named {
        name(names.entry(first).or_insert_with(|| Map::new().into()), way);
    }
}

/// Only where fields are validated are the operations read as such first.
fn cannot_decode(why: &str, collect: bool) -> String {
    if collect { format!("error decoding patch: {why}") } else { why.to_owned() }
}

fn mistyped(found: &Value, expected: &str, collect: bool) -> Status {
    let why = format!("json: cannot unmarshal {} into Go value of type {expected}", go::kind(found));
    Status::bad_request(cannot_decode(&why, collect))
}

fn check_types(operation: &Map) -> Result<(), Status> {
    for name in ["op", "path", "from"] {
        if let Some(value) = operation.get(name)
            && !value.is_string()
            && !value.is_null()
        {
            let found = go::kind(value);
            let why = format!("json: cannot unmarshal {found} into Go struct field jsonPatchOp.{name} of type string");
            return Err(Status::bad_request(cannot_decode(&why, true)));
        }
    }
    Ok(())
}

fn run(object: &mut Value, operation: &Map, copied: &mut usize) -> Result<(), Rejected> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str).ok_or(Rejected);
    let value = || operation.get("value").cloned().unwrap_or_default();
    match text("op")? {
        "add" => find(object, text("path")?)?.add(bounded(value(), text("path")?)?),
        "remove" => find(object, text("path")?)?.remove().map(drop),
        "replace" if text("path")?.is_empty() => {
            // A scalar is passed over in silence.
            if let root @ (Value::Object(_) | Value::Array(_)) = value() {
                *object = bounded(root, "")?;
            }
            Ok(())
        }
        "replace" => find(object, text("path")?)?.replace(bounded(value(), text("path")?)?),
        "move" => {
            let moved = find(object, text("from")?)?.remove()?;
            find(object, text("path")?)?.add(bounded(moved, text("path")?)?)
        }
        "copy" => {
            let copy = find(object, text("from")?)?.get()?.cloned().unwrap_or_default();
            *copied += weight(&copy);
            if *copied > MAX_BYTES {
                return Err(Rejected);
            }
            find(object, text("path")?)?.add(bounded(copy, text("path")?)?)
        }
        "test" => {
            let path = text("path")?;
            let found = if path.is_empty() { Some(&*object) } else { find(object, path)?.get()? };
            if *found.unwrap_or(&Value::Null) == value() { Ok(()) } else { Err(Rejected) }
        }
        _ => Err(Rejected),
    }
}

/// A place in an object or list, there or not.
enum Place<'o> {
    Member(&'o mut Map, String),
    Item(&'o mut Vec<Value>, String),
}

/// The place that a path names; all before its last part must be there.
fn find<'o>(object: &'o mut Value, path: &str) -> Result<Place<'o>, Rejected> {
    let (_, path) = path.split_once('/').ok_or(Rejected)?;
    let (parents, last) = path.rsplit_once('/').map_or((None, path), |(parents, last)| (Some(parents), last));
    let mut at = object;
    for part in parents.into_iter().flat_map(|parents| parents.split('/')) {
        let part = unescaped(part);
        at = match at {
            Value::Object(members) => members.get_mut(&part),
            Value::Array(items) => {
                let index = index(&part, items.len())?;
                items.get_mut(index)
            }
            _ => None,
        }
        .ok_or(Rejected)?;
    }
    match at {
        Value::Object(members) => Ok(Place::Member(members, unescaped(last))),
        Value::Array(items) => Ok(Place::Item(items, unescaped(last))),
        _ => Err(Rejected),
    }
}

fn unescaped(part: &str) -> String {
    // In one pass, from left to right: `~01` is `~1`.
    let mut text = String::with_capacity(part.len());
    let mut rest = part;
    while let Some(at) = rest.find('~') {
        text.push_str(&rest[..at]);
        let (stands_for, length) = match rest.as_bytes().get(at + 1) {
            Some(b'0') => ('~', 2),
            Some(b'1') => ('/', 2),
            _ => ('~', 1),
        };
        text.push(stands_for);
        rest = &rest[at + length..];
    }
    text + rest
}

/// An index into `length` items, from the end when negative.
fn index(part: &str, length: usize) -> Result<usize, Rejected> {
    let index: i64 = part.parse().map_err(|_| Rejected)?;
    let length = i64::try_from(length).map_err(|_| Rejected)?;
    let index = if index < 0 { index + length } else { index };
    if index < length { usize::try_from(index).map_err(|_| Rejected) } else { Err(Rejected) }
}

impl<'o> Place<'o> {
    /// None is a member that is not there.
    fn get(self) -> Result<Option<&'o Value>, Rejected> {
        match self {
            Self::Member(members, name) => Ok(members.get(&name)),
            Self::Item(items, part) => Ok(items.get(index(&part, items.len())?)),
        }
    }

    fn add(self, value: Value) -> Result<(), Rejected> {
        match self {
            Self::Member(members, name) => {
                members.insert(name, value);
            }
            Self::Item(items, part) if part == "-" => items.push(value),
            Self::Item(items, part) => items.insert(index(&part, items.len() + 1)?, value),
        }
        Ok(())
    }

    fn replace(self, value: Value) -> Result<(), Rejected> {
        match self {
            Self::Member(members, name) => {
                members.insert(name, value);
            }
            Self::Item(items, part) => {
                let index = index(&part, items.len())?;
                items[index] = value;
            }
        }
        Ok(())
    }

    fn remove(self) -> Result<Value, Rejected> {
        match self {
            Self::Member(members, name) => members.remove(&name).ok_or(Rejected),
            Self::Item(items, part) => Ok(items.remove(index(&part, items.len())?)),
        }
    }
}

/// The value, if it does not nest too deeply where it goes: a value copied into itself doubles its depth, and no later
/// step could walk it.
fn bounded(value: Value, path: &str) -> Result<Value, Rejected> {
    let above = path.bytes().filter(|byte| *byte == b'/').count();
    if decode::is_shallow(&value, above) { Ok(value) } else { Err(Rejected) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;

    fn run(current: &Value, patch: &Value) -> Result<Value, u16> {
        let patched = apply(current, patch.to_string().as_bytes(), false);
        patched.map(|(object, ..)| object).map_err(|status| status.code)
    }

    fn one(op: &str, path: &str, value: &Value) -> Value {
        json!([{"op": op, "path": path, "value": value}])
    }

    /// As a kube-apiserver answered; replacing and testing from the end as the library does since (v4.9 failed).
    #[test]
    fn indexes_count_from_either_end() {
        let list = json!({"l": ["a", "b"]});
        let rows: [(&str, &str, Result<Value, u16>); 21] = [
            ("add", "-1", Ok(json!(["a", "b", "x"]))),
            ("add", "-2", Ok(json!(["a", "x", "b"]))),
            ("add", "-3", Ok(json!(["x", "a", "b"]))),
            ("add", "-4", Err(422)),
            ("add", "0", Ok(json!(["x", "a", "b"]))),
            ("add", "2", Ok(json!(["a", "b", "x"]))),
            ("add", "3", Err(422)),
            ("add", "+1", Ok(json!(["a", "x", "b"]))),
            ("add", "01", Ok(json!(["a", "x", "b"]))),
            ("add", "-", Ok(json!(["a", "b", "x"]))),
            ("add", "x", Err(422)),
            ("remove", "-1", Ok(json!(["a"]))),
            ("remove", "-2", Ok(json!(["b"]))),
            ("remove", "-3", Err(422)),
            ("remove", "2", Err(422)),
            ("remove", "-", Err(422)),
            ("replace", "-1", Ok(json!(["a", "x"]))),
            ("replace", "1", Ok(json!(["a", "x"]))),
            ("replace", "2", Err(422)),
            ("replace", "-3", Err(422)),
            ("test", "0", Err(422)),
        ];
        for (op, at, expected) in rows {
            let patched = run(&list, &one(op, &format!("/l/{at}"), &json!("x")));
            assert_eq!(patched, expected.map(|l| json!({"l": l})), "{op} {at}");
        }
        assert_eq!(run(&list, &one("test", "/l/-1", &json!("b"))), Ok(list.clone()));
    }

    /// As a kube-apiserver answered.
    #[test]
    fn what_is_not_there() {
        let current = json!({"data": {"k": "v"}});
        let rows = [
            (one("replace", "/data/z", &json!("1")), Ok(json!({"data": {"k": "v", "z": "1"}}))),
            (one("replace", "/nope/z", &json!("1")), Err(422)),
            (one("remove", "/data/none", &Value::Null), Err(422)),
            (one("foo", "/data/none", &Value::Null), Err(422)),
            (json!([{"path": "/data/k"}]), Err(422)),
            (json!([{"op": "add"}]), Err(422)),
            (json!([{"op": "add", "path": "/data/n"}]), Ok(json!({"data": {"k": "v", "n": null}}))),
            (one("add", "data/k2", &json!("1")), Ok(json!({"data": {"k": "v"}, "k2": "1"}))),
            (one("add", "data", &json!("1")), Err(422)),
            (one("add", "", &json!({})), Err(422)),
            (one("replace", "", &json!(3)), Ok(current.clone())),
            (one("replace", "", &json!({"a": 1})), Ok(json!({"a": 1}))),
            (one("test", "", &json!({})), Err(422)),
            (one("test", "", &current), Ok(current.clone())),
            (one("test", "/data/none", &Value::Null), Ok(current.clone())),
            (
                json!([{"op": "copy", "from": "/data/none", "path": "/data/n"}]),
                Ok(json!({"data": {"k": "v", "n": null}})),
            ),
            (json!([{"op": "move", "from": "/data/none", "path": "/data/n"}]), Err(422)),
            (json!([{"op": "move", "from": "/data/k", "path": "/data/l"}]), Ok(json!({"data": {"l": "v"}}))),
            (json!([{"op": "copy", "path": "/data/n"}]), Err(422)),
            (json!(null), Ok(current.clone())),
            (json!([]), Ok(current.clone())),
            (json!({}), Err(400)),
            (json!([3]), Err(400)),
        ];
        for (patch, expected) in rows {
            assert_eq!(run(&current, &patch), expected, "{patch}");
        }
        let odd = json!({"a/b": {"~1": 1}});
        assert_eq!(run(&odd, &one("replace", "/a~1b/~01", &json!(2))), Ok(json!({"a/b": {"~1": 2}})));
    }

    #[test]
    fn strange_operations_are_told() {
        let patch = br#"[{"op":"add","op":"add","path":"/k","value":"v"},{"op":"remove","path":"/k","foo":1}]"#;
        let (object, problems, _) = apply(&json!({}), patch, true).unwrap_or_else(|status| panic!("{status}"));
        let expected = [r#"json patch duplicate field "[0].op""#, r#"json patch unknown field "[1].foo""#];
        assert_eq!((object, problems.as_slice()), (json!({}), expected.map(str::to_owned).as_slice()));
        let wrong = apply(&json!({}), br#"[{"op":3,"path":"/k"}]"#, true).unwrap_err();
        let expected =
            "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string";
        assert_eq!((wrong.code, wrong.message.as_str()), (400, expected));
        assert_eq!(apply(&json!({}), br#"[{"op":3,"path":"/k"}]"#, false).unwrap_err().code, 422);
    }

    #[test]
    fn copies_are_bounded() {
        let copies: Vec<Value> =
            (0..64).map(|i| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/x{i}")})).collect();
        assert_eq!(run(&json!({"metadata": {"name": "a"}}), &json!(copies)), Err(422));
        // Each copies all into its innermost.
        let nested: Vec<Value> =
            (0..15).map(|i| json!({"op": "copy", "from": "/a", "path": "/a".repeat((1 << i) + 1)})).collect();
        assert_eq!(run(&json!({"a": {}}), &json!(nested)), Err(422));
    }
}
