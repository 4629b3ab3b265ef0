//! The account of a new object: all that its writer set is the writer's.
//!
//! Every object that is created gets one and few are ever read, so it is written as JSON in one walk over the object, without
//! the sets that comparing and merging need.

use serde_json::{Map, Value};

use super::managers::{Operation, ROOM, STRIPPED_SET, Writer, put_closing, put_opening};
use super::place::{Form, Place};
use super::set::{Element, Set};
use crate::schema::TypeRef;

/// Structures that every object has, empty or not, because upstream's types hold them by value: they come with the object and
/// nobody owns them as a whole.
const BY_VALUE: [&str; 7] = ["metadata", "spec", "status", "template", "strategy", "updateStrategy", "jobTemplate"];

/// Lists that are there by value, too.
const LISTS_BY_VALUE: [&str; 1] = ["containers"];

/// The `managedFields` of an object that a plain create makes, as JSON; None when nothing in it can be owned. `ignored` is what
/// a create cannot set.
pub fn encode_created(object: &Value, ty: TypeRef<'_>, writer: &Writer<'_>, ignored: &Set<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(ROOM);
    out.push(b'[');
    put_opening(&mut out, writer.manager, Operation::Update, writer.api_version, writer.now);
    out.push(b'{');
    let start = out.len();
    let Form::Fields(fields) = Place::root(ty).form(object) else { return None };
    put_nodes(&mut out, start, fields_of(fields, Place::root(ty), true), Some(ignored), Some(&STRIPPED_SET));
    if out.len() == start {
        return None;
    }
    out.push(b'}');
    put_closing(&mut out, writer.subresource);
    out.push(b']');
    Some(out)
}

/// A value below another, and where it stands.
struct Child<'v, 's> {
    element: Element<'v>,
    value: &'v Value,
    place: Place<'s>,
    /// There before anything was set.
    by_value: bool,
}

/// The fields of a structure or map; what stands in one that is there by value may be there by value itself.
fn fields_of<'v, 's>(fields: &'v Map<String, Value>, place: Place<'s>, by_value: bool) -> Vec<Child<'v, 's>> {
    let child = |(name, value): (&'v String, &'v Value)| {
        let by_value = by_value && is_by_value(name, value);
        Some(Child { element: Element::field(name), value, place: place.field(name)?, by_value })
    };
    let mut children: Vec<_> = fields.iter().filter_map(child).collect();
    children.sort_unstable_by(|a, b| a.element.cmp(&b.element));
    children
}

fn items_of<'v, 's>(items: &'v [Value], place: Place<'s>) -> Vec<Child<'v, 's>> {
    let child = |value: &'v Value| {
        Some(Child { element: place.element(value).ok()?, value, place: place.item(), by_value: false })
    };
    let mut children: Vec<_> = items.iter().filter_map(child).collect();
    children.sort_by(|a, b| a.element.cmp(&b.element));
    // Of items that occur twice, the first counts.
    children.dedup_by(|second, first| second.element == first.element);
    children
}

/// Writes children that are owned, each followed by what is owned below it; `first` is where nothing precedes a child.
fn put_nodes(
    out: &mut Vec<u8>,
    first: usize,
    children: Vec<Child<'_, '_>>,
    ignored: Option<&Set<'_>>,
    stripped: Option<&Set<'_>>,
) {
    for child in children {
        if ignored.is_some_and(|set| set.has(&child.element)) {
            continue;
        }
        let (whole, below) = match child.place.form(child.value) {
            Form::Fields(fields) => (!child.by_value, fields_of(fields, child.place, child.by_value)),
            Form::Items(items) => (!child.by_value, items_of(items, child.place)),
            Form::Leaf => (!(child.by_value && is_bare(child.value)), Vec::new()),
        };
        let member = whole && !stripped.is_some_and(|set| set.has(&child.element));
        let before = out.len();
        if before > first {
            out.push(b',');
        }
        child.element.put(out);
        out.extend_from_slice(b":{");
        let start = out.len();
        if !below.is_empty() {
            if member {
                out.extend_from_slice(b"\".\":{}");
            }
            let itself = out.len();
            let (ignored, stripped) =
                (ignored.and_then(|set| set.below(&child.element)), stripped.and_then(|set| set.below(&child.element)));
            put_nodes(out, start, below, ignored, stripped);
            if out.len() == itself {
                out.truncate(start);
            }
        }
        if member || out.len() > start {
            out.push(b'}');
        } else {
            out.truncate(before);
        }
    }
}

/// Whether an entry of a structure is there before anything is set.
fn is_by_value(name: &str, value: &Value) -> bool {
    (value.is_object() && BY_VALUE.contains(&name)) || (value.is_array() && LISTS_BY_VALUE.contains(&name))
}

/// Whether a value that is there by value holds nothing that was set.
fn is_bare(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().all(|(name, value)| is_by_value(name, value) && is_bare(value)),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare;
    use super::*;
    use crate::gvk::Gvk;
    use crate::schema;
    use proptest::prelude::*;
    use serde_json::json;

    /// What an object of the kind is before anything is set.
    fn skeleton(object: &Value) -> Value {
        let mut empty = Map::new();
        for (name, value) in object.as_object().into_iter().flatten().filter(|(name, value)| is_by_value(name, value)) {
            empty.insert(name.clone(), if value.is_array() { json!([]) } else { skeleton(value) });
        }
        Value::Object(empty)
    }

    /// The fields as sets find them: what was added to an object that had nothing.
    fn by_sets(object: &Value, ty: TypeRef<'_>, ignored: &Set<'_>) -> Option<Value> {
        let before = skeleton(object);
        let set = compare(&before, object, ty).changed.without(ignored).difference(&STRIPPED_SET);
        (!set.is_empty()).then(|| set.encode())
    }

    fn check(object: &Value, kind: &Gvk) {
        let ty = schema::of(kind).unwrap();
        let writer = Writer { manager: "a \"b\"", api_version: "v1", subresource: "", now: "2026-01-01T00:00:01Z" };
        let status = json!({"f:status": {}, "f:metadata": {"f:labels": {}}});
        for ignored in [Set::default(), Set::decode(&status).unwrap()] {
            let written = encode_created(object, ty, &writer, &ignored);
            let written: Option<Value> = written.map(|bytes| serde_json::from_slice(&bytes).unwrap());
            let fields = written.as_ref().map(|written| &written[0]["fieldsV1"]);
            assert_eq!(fields.cloned(), by_sets(object, ty, &ignored), "{object}");
            // The order counts, too: it is how fieldsV1 is written.
            let text = fields.map(Value::to_string);
            assert_eq!(text, by_sets(object, ty, &ignored).map(|fields| fields.to_string()));
        }
    }

    #[test]
    fn it_is_what_the_sets_say() {
        let pod = Gvk::of("", "v1", "Pod");
        check(
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"b\"": "1", "a": "2"},
                "annotations": {}, "finalizers": ["z", "y", "z"], "ownerReferences": [{"uid": "1", "kind": "X"}]},
                "spec": {"containers": [{"name": "b", "ports": [{"containerPort": 80}], "args": ["x"]}, {"name": "a"}],
                    "nodeSelector": {"x": "y"}, "securityContext": {}, "tolerations": [{"key": "k"}],
                    "volumes": [{"name": "v", "emptyDir": {}}]},
                "status": {"phase": "Running"}}),
            &pod,
        );
        check(&json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"containers": []}}), &pod);
        check(&json!({}), &pod);
        let deployment = Gvk::of("apps", "v1", "Deployment");
        check(
            &json!({"spec": {"template": {"metadata": {}, "spec": {}}, "strategy": {"rollingUpdate": {}}}}),
            &deployment,
        );
        check(
            &json!({"data": {"metadata": "x", "spec": ""}, "metadata": {"name": "c"}}),
            &Gvk::of("", "v1", "ConfigMap"),
        );
    }

    fn values() -> impl Strategy<Value = Value> {
        let names = prop::sample::select(vec![
            "metadata",
            "spec",
            "status",
            "template",
            "containers",
            "name",
            "labels",
            "ports",
            "containerPort",
            "strategy",
            "volumes",
            "emptyDir",
            "finalizers",
            "selector",
            "matchLabels",
            "uid",
            "x",
        ]);
        let scalar =
            prop_oneof![Just(json!("a")), Just(json!(80)), Just(json!(true)), Just(json!({})), Just(json!([]))];
        scalar.prop_recursive(6, 64, 5, move |inner| {
            prop_oneof![
                3 => prop::collection::vec((names.clone(), inner.clone()), 0..5).prop_map(|entries| Value::Object(
                    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
                )),
                1 => prop::collection::vec(inner, 0..3).prop_map(Value::Array),
            ]
        })
    }

    proptest! {
        #[test]
        fn of_any_document_it_is_what_the_sets_say(object in values().prop_filter("an object", Value::is_object)) {
            for kind in [Gvk::of("", "v1", "Pod"), Gvk::of("apps", "v1", "Deployment")] {
                check(&object, &kind);
            }
        }
    }
}
