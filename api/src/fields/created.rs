//! The account of a new object: all that its writer set is the writer's.
//!
//! Every object that is created gets one and few are ever read, so it is written as JSON in one walk over the object, without
//! the sets that comparing and merging need.

use crate::json::{Map, Value};

use super::entry::{Operation, Writer, put_closing, put_opening};
use super::managers::{ROOM, STRIPPED_SET};
use super::paths::elements;
use super::place::{Form, Place};
use super::set::{Element, Set};
use crate::schema::{self, TypeRef};

/// Fields that are open at a time in most objects.
const OPEN: usize = 64;

/// The `managedFields` of an object that a plain create makes, as JSON; None when nothing in it can be owned. `ignored` is what
/// a create cannot set.
pub fn encode_created(object: &Value, ty: TypeRef<'_>, writer: &Writer<'_>, ignored: &Set<'_>) -> Option<Vec<u8>> {
    let mut account = Account { out: Vec::with_capacity(ROOM), open: Vec::with_capacity(OPEN) };
    account.out.push(b'[');
    put_opening(&mut account.out, writer.manager, Operation::Update, writer.api_version, writer.now);
    account.out.push(b'{');
    let start = account.out.len();
    let place = Place::root(ty);
    let Form::Fields(fields) = place.form(object) else { return None };
    account.put_fields(
        start,
        fields,
        place,
        Depth::Root,
        Sets { ignored: Some(ignored), stripped: Some(&STRIPPED_SET) },
    );
    let mut out = account.out;
    if out.len() == start {
        return None;
    }
    out.push(b'}');
    put_closing(&mut out, writer.subresource);
    out.push(b']');
    Some(out)
}

/// What cannot be set and what is not told of, at one place of the object.
#[derive(Clone, Copy)]
struct Sets<'s> {
    ignored: Option<&'s Set<'s>>,
    stripped: Option<&'s Set<'s>>,
}

impl<'s> Sets<'s> {
    fn below(self, element: &Element<'_>) -> Self {
        let below = |set: Option<&'s Set<'s>>| set.and_then(|set| set.below(element));
        Self { ignored: below(self.ignored), stripped: below(self.stripped) }
    }
}

/// A field of a structure or map.
#[derive(Clone, Copy)]
struct Entry<'v> {
    /// The name's first bytes as a number: most names differ there, and comparing numbers costs less.
    prefix: u64,
    name: &'v str,
    value: &'v Value,
}

/// How far a value is from what is there before anything is set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// The object itself.
    Root,
    /// In structures that upstream's types hold by value alone: they come with the object, empty or not, and nobody owns them as
    /// a whole.
    ByValue,
    /// In something that was set.
    Set,
}

struct Account<'v> {
    out: Vec<u8>,
    /// The fields of the structures that are being written, the innermost last.
    open: Vec<Entry<'v>>,
}

impl<'v> Account<'v> {
    /// The fields of a structure or map; what stands in one that is there by value may be there by value itself. `first` is
    /// where nothing precedes a field.
    fn put_fields(&mut self, first: usize, fields: &'v Map, at: Place<'_>, depth: Depth, sets: Sets<'_>) {
        let start = self.open.len();
        self.open.extend(fields.iter().map(|(name, value)| Entry { prefix: schema::prefix(name), name, value }));
        self.open[start..].sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix).then_with(|| a.name.cmp(b.name)));
        for nth in start..self.open.len() {
            let Entry { name, value, .. } = self.open[nth];
            let Some(place) = at.field(name) else { continue };
            // Objects of custom resources hold nothing by value but their metadata.
            let custom = depth == Depth::Root && name == "metadata";
            let by_value = depth != Depth::Set && (place.is_by_value() || custom);
            let depth = if by_value { Depth::ByValue } else { Depth::Set };
            self.put(first, &Element::field(name), value, place, depth, sets);
        }
        self.open.truncate(start);
    }

    /// The items of a list, as above.
    fn put_items(&mut self, first: usize, items: &'v [Value], at: Place<'_>, sets: Sets<'_>) {
        for same in elements(items, at).chunk_by(|(a, _), (b, _)| a == b) {
            // What stands there more than once is one value, and so is one of which nothing is said.
            let (value, place) =
                if let [(_, value)] = same { (*value, at.item()) } else { (&Value::Null, Place::UNKNOWN) };
            self.put(first, &same[0].0, value, place, Depth::Set, sets);
        }
    }

    /// A child that is owned, followed by what is owned below it.
    fn put(
        &mut self,
        first: usize,
        element: &Element<'_>,
        value: &'v Value,
        place: Place<'_>,
        depth: Depth,
        sets: Sets<'_>,
    ) {
        if sets.ignored.is_some_and(|set| set.has(element)) {
            return;
        }
        let form = place.form(value);
        let form = if depth == Depth::ByValue && place.is_one(value) { Form::Leaf } else { form };
        let whole = depth == Depth::Set || (matches!(form, Form::Leaf) && !place.is_zero(value));
        let member = whole && !sets.stripped.is_some_and(|set| set.has(element));
        let before = self.out.len();
        if before > first {
            self.out.push(b',');
        }
        element.put(&mut self.out);
        self.out.extend_from_slice(b":{");
        let start = self.out.len();
        if !matches!(form, Form::Leaf) {
            if member {
                self.out.extend_from_slice(b"\".\":{}");
            }
            let itself = self.out.len();
            match form {
                Form::Fields(fields) => self.put_fields(start, fields, place, depth, sets.below(element)),
                Form::Items(items) => self.put_items(start, items, place, sets.below(element)),
                Form::Leaf => {}
            }
            if self.out.len() == itself {
                self.out.truncate(start);
            }
        }
        if member || self.out.len() > start {
            self.out.push(b'}');
        } else {
            self.out.truncate(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare;
    use super::*;
    use crate::gvk::Gvk;
    use crate::json::json;
    use crate::schema;
    use proptest::prelude::*;

    /// The fields as sets find them: what was added to an object that had nothing.
    fn by_sets(object: &Value, ty: TypeRef<'_>, ignored: &Set<'_>) -> Option<Value> {
        // What an object of the kind is before anything is set.
        let before = ty.zero();
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
