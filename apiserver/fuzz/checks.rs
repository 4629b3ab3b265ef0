//! What must hold for any bytes a client sends. The fuzz targets call these, and so does a test with every seed.

use coracle_api::decode::{self, FieldValidation, Format};
use coracle_api::fields::{self, How, Managers, Set, Writer};
use coracle_api::json::{Value, json};
use coracle_api::patch::{self, PatchType};
use coracle_api::schema::{self, TypeRef};
use coracle_api::selector::{FieldSelector, LabelSelector};
use coracle_api::{Gvk, meta};
use coracle_apiserver::custom::cel::{Declared, Given, Program, Scope};
use coracle_apiserver::custom::rules;
use coracle_apiserver::custom::structural::Node;
use coracle_apiserver::http::protobuf;

fn ty(group: &'static str, kind: &'static str) -> TypeRef<'static> {
    schema::of(&Gvk::of(group, "v1", kind)).expect("a kind of the table")
}

/// Two documents, separated by a zero byte.
fn two(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    (&data[..at], data.get(at + 1..).unwrap_or_default())
}

/// What was read is canonical: reading it again changes nothing and finds nothing to complain of.
pub fn decoding(data: &[u8]) {
    for ty in [ty("", "Pod"), ty("apiextensions.k8s.io", "CustomResourceDefinition")] {
        for format in [Format::Json, Format::Yaml] {
            let _ = decode::decode(data, format, ty, FieldValidation::Strict);
            let Ok(read) = decode::decode(data, format, ty, FieldValidation::Warn) else { continue };
            let again =
                decode::check(read.object.clone(), ty, FieldValidation::Strict).expect("what was read is valid");
            assert_eq!(again.object, read.object);
            let text = read.object.to_string();
            let again = decode::decode(text.as_bytes(), Format::Json, ty, FieldValidation::Strict);
            assert_eq!(again.expect("what was written can be read").object, read.object);
        }
    }
}

/// A patch gives an object or a Status.
pub fn patches(data: &[u8]) {
    let (current, patch) = two(data);
    let ty = ty("", "Pod");
    let Ok(current) = decode::decode(current, Format::Json, ty, FieldValidation::Ignore) else { return };
    for kind in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
        if let Ok(mut patched) = patch::apply(kind, &current.object, patch, ty, true) {
            let _ = patched.read(ty, FieldValidation::Warn);
        }
    }
    if let Ok(wanted) = decode::decode(patch, Format::Json, ty, FieldValidation::Ignore) {
        // The difference between two objects leads from one to the other.
        let difference = patch::strategic_diff(&current.object, &wanted.object, ty);
        let _ = patch::strategic(&current.object, difference, ty);
    }
}

/// A configuration that was applied is there, owned, and applying it again changes nothing.
pub fn apply(data: &[u8]) {
    let (live, config) = two(data);
    let ty = ty("apps", "Deployment");
    let Ok(live) = decode::decode(live, Format::Json, ty, FieldValidation::Ignore) else { return };
    let Ok(raw) = serde_json::from_slice::<Value>(config) else { return };
    if fields::check(&raw, ty).is_err() {
        return;
    }
    let Ok(config) = decode::check(raw, ty, FieldValidation::Ignore) else { return };
    let (mut live, config) = (live.object, config.object);
    let known = meta::metadata_mut(&mut live).and_then(|metadata| metadata.remove("managedFields"));
    let set = fields::paths(&config, ty);
    assert_eq!(Set::decode(&set.encode()).as_ref(), Some(&set), "a set survives its encoding");
    let known = known.map(|known| known.to_string());
    // What nobody owns goes when it is applied as null: all of it is somebody's, as it is where objects are applied to.
    let before = Writer { manager: "before", api_version: "apps/v1", subresource: "", now: "2026-01-01T00:00:00Z" };
    let before = fields::encode_created(&live, ty, &before, &Set::default());
    let known = known.map(String::into_bytes).filter(|known| Managers::decode(known).is_ok_and(|it| !it.is_empty()));
    let is_whole = known.is_none();
    let known = known.or(before);
    let managers = known.as_ref().and_then(|known| Managers::decode(known).ok()).unwrap_or_default();
    let writer = Writer { manager: "fuzz", api_version: "apps/v1", subresource: "", now: "2026-01-01T00:00:00Z" };
    let none = Set::default();
    let how = |force| How { force, filter: &fields::Filter::All, allowed: &none, convert: &|_, _, _| None };
    let _ = managers.apply(&live, &config, ty, &writer, &how(false));
    let applied = managers.apply(&live, &config, ty, &writer, &how(true)).expect("force leaves no conflict");
    let managers = match &applied.managed_fields {
        Some(written) => Managers::decode(written).expect("what was written can be read"),
        None => Managers::default(),
    };
    let again = managers.apply(&applied.object, &config, ty, &writer, &how(false)).expect("all of it is owned");
    if is_whole {
        assert_eq!(again.object, applied.object);
        assert_eq!(again.managed_fields, applied.managed_fields);
    }
}

/// A selector that was read is written as something that reads the same.
pub fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let written = selector.to_string();
        assert_eq!(LabelSelector::parse(&written).expect("what was written can be read").to_string(), written);
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let written = selector.to_string();
        assert_eq!(FieldSelector::parse(&written).expect("what was written can be read").to_string(), written);
    }
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let _ = LabelSelector::from_json(&value).map(|selector| selector.to_string());
    }
}

/// What was read from protobuf comes back the same way.
pub fn protobuf(data: &[u8]) {
    for gvk in [Gvk::of("", "v1", "Pod"), Gvk::of("apps", "v1", "Deployment"), Gvk::of("", "v1", "DeleteOptions")] {
        let Ok(object) = protobuf::decode(data, &gvk) else { continue };
        let Some(encoded) = protobuf::encode(&object) else { continue };
        let again = protobuf::decode(&encoded, &gvk).expect("what was written can be read");
        assert_eq!(protobuf::encode(&again), Some(encoded));
    }
}

/// An expression is refused in words, or it runs to an end; what fits together is what can be read.
pub fn expressions(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let schema = json!({"type": "object", "properties": {
        "s": {"type": "string"}, "i": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string"}},
        "li": {"type": "array", "items": {"type": "integer"}},
        "m": {"type": "object", "additionalProperties": {"type": "string"}},
        "o": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "integer"}}}}});
    let node = Node::parse(&schema);
    let object = json!({"s": "abc", "i": 3, "l": ["a", "bb"], "li": [1, 2], "m": {"a": "b"}, "o": {"x": "q", "y": 2}});
    let declared = Declared::of(&node, true, "selfType0").expect("the schema has a type");
    let compiled = Scope::new(&declared, false).compile(text);
    match Program::parse(text) {
        Ok(program) => drop(program.measure(vec![("self".to_owned(), rules::convert(&node, &object, true))])),
        Err(why) => assert!(!why.is_empty() && compiled.is_err(), "{text}"),
    }
    let all = Given { params: true, authorizer: true, variables: true, patches: true };
    for scope in [Scope::of_request(all), Scope::of_device()] {
        if let Err(wrong) = scope.compile(text) {
            assert!(!wrong.why.is_empty(), "{text}");
        }
    }
}
