//! Bringing an owner's paths in line with a schema that has changed since they were written (structured-merge-diff
//! `reconcile_schema.go`).
//!
//! What the schema takes as one value now, its owner has as a whole; what it takes apart now and was owned as one value, its
//! owner has with all that is in it.

use crate::json::Value;

use super::paths::below;
use super::place::{Owned, Place};
use super::set::{Element, Set};
use crate::schema::TypeRef;

/// The paths as they are to be for `live`, an object of `ty`. None when they are so already, as they are mostly.
pub(super) fn reconciled<'a>(set: &Set<'a>, live: &'a Value, ty: TypeRef<'_>) -> Option<Set<'a>> {
    inside(set, &Way { live, place: Place::root(ty), above: None })
}

/// The way to a place in the object; what stands there is looked for only when somebody asks.
struct Way<'w, 'a, 's> {
    live: &'a Value,
    place: Place<'s>,
    above: Option<(&'w Way<'w, 'a, 's>, &'w Element<'a>)>,
}

impl<'a> Way<'_, 'a, '_> {
    fn value(&self) -> Option<&'a Value> {
        let Some((above, element)) = self.above else { return Some(self.live) };
        match (element, above.value()?) {
            (Element::Field(name), value) => value.get(&**name),
            (element, Value::Array(items)) => {
                let mut same =
                    items.iter().filter(|item| above.place.element(item).is_ok_and(|found| found == *element));
                // What stands there more than once is one value.
                same.next().filter(|_| same.next().is_none())
            }
            _ => None,
        }
    }
}

fn inside<'a>(set: &Set<'a>, way: &Way<'_, 'a, '_>) -> Option<Set<'a>> {
    let mut new: Option<Set<'a>> = None;
    for (nth, (element, member, below)) in set.entries().enumerate() {
        let place = match element {
            Element::Field(name) => way.place.field(name),
            _ => Some(way.place.item()),
        };
        let changed =
            place.and_then(|place| one(member, below, &Way { live: way.live, place, above: Some((way, element)) }));
        match (changed, &mut new) {
            (Some((member, below)), _) => {
                new.get_or_insert_with(|| set.first(nth)).push(element.clone(), member, below);
            }
            (None, Some(new)) => new.push(element.clone(), member, below.clone()),
            (None, None) => {}
        }
    }
    new
}

/// What is owned at the end of a way: the place itself, and what is below it.
fn one<'a>(member: bool, set: &Set<'a>, way: &Way<'_, 'a, '_>) -> Option<(bool, Set<'a>)> {
    let alone = member && set.is_empty();
    match way.place.owned() {
        Owned::Scalar => None,
        Owned::Whole => (!alone).then(|| (true, Set::default())),
        Owned::Apart if alone => {
            let all = below(way.value()?, way.place);
            (!all.is_empty()).then_some((true, all))
        }
        Owned::Apart => inside(set, way).map(|set| (member, set)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::Gvk;
    use crate::json::json;
    use crate::schema;

    fn check(before: Value, after: Option<Value>) {
        let live = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x/y", "z"]}, "spec": {"nodeSelector": {"n": "1"},
            "containers": [{"name": "c", "args": ["x"], "resources": {"limits": {"cpu": "1"}}}]}});
        let set = Set::decode(&before).unwrap();
        let ty = schema::of(&Gvk::of("", "v1", "Pod")).unwrap();
        assert_eq!(reconciled(&set, &live, ty).map(|set| set.encode()), after, "{before}");
    }

    #[test]
    fn what_was_one_value_is_taken_apart_and_the_other_way_round() {
        check(
            json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:nodeSelector": {}, "f:hostname": {}}}),
            None,
        );
        check(
            json!({"f:metadata": {"f:finalizers": {}, "f:labels": {}, "f:name": {}}}),
            Some(json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"x/y\"": {}, "v:\"z\"": {}},
                "f:labels": {".": {}, "f:a": {}, "f:b": {}}, "f:name": {}}})),
        );
        check(
            json!({"f:spec": {"f:nodeSelector": {"f:n": {}, "f:m": {}}}}),
            Some(json!({"f:spec": {"f:nodeSelector": {}}})),
        );
        check(
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:args": {"i:0": {}}, "f:resources": {}}}}}),
            Some(json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:args": {},
                "f:resources": {".": {}, "f:limits": {"f:cpu": {}}}}}}})),
        );
        // What is not there, and what the schema does not have, stays as it is.
        check(json!({"f:metadata": {"f:annotations": {}}, "f:spec": {"f:gone": {"f:x": {}}}}), None);
    }
}
