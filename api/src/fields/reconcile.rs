//! Bringing an owner's paths in line with a schema that has changed since they were written (structured-merge-diff
//! `reconcile_schema.go`).
//!
//! What the schema takes as one value now, its owner has as a whole; what it takes apart now and was owned as one value, its
//! owner has with all that is in it.

use std::borrow::Cow;

use crate::json::Value;

use super::paths::below;
use super::place::{Owned, Place};
use super::set::{Element, Set};
use crate::schema::TypeRef;

/// The paths as they are to be for `live`, an object of `ty`. None when they are so already, as they are mostly.
pub(super) fn reconciled<'a>(set: &Set<'a>, live: &'a Value, ty: TypeRef<'_>) -> Option<Set<'a>> {
    inside(set, &Way::root(live, ty))
}

/// The way to a place in the object; what stands there is looked for only when somebody asks.
pub(super) struct Way<'w, 'a, 's> {
    live: &'a Value,
    pub place: Place<'s>,
    above: Option<(&'w Way<'w, 'a, 's>, Step<'w, 'a>)>,
}

/// One step of a way.
#[derive(Clone, Copy)]
pub(super) enum Step<'w, 'a> {
    Read(&'w Element<'a>),
    /// An item as its name is written, with all quotes escaped and nothing else to be.
    Written(&'a str),
}

impl<'w, 'a> Step<'w, 'a> {
    fn element(self) -> Option<Cow<'w, Element<'a>>> {
        match self {
            Self::Read(element) => Some(Cow::Borrowed(element)),
            Self::Written(name) => Element::parse(name.replace('\\', "").into()).map(Cow::Owned),
        }
    }

    /// The place to which it leads from another. None for a field that the structure does not have.
    #[inline]
    fn from<'s>(self, place: Place<'s>) -> Option<Place<'s>> {
        match self {
            Self::Read(Element::Field(name)) => place.field(name),
            _ => Some(place.item()),
        }
    }
}

impl<'a, 's> Way<'_, 'a, 's> {
    /// To the root of an object.
    pub fn root(live: &'a Value, ty: TypeRef<'s>) -> Self {
        Self { live, place: Place::root(ty), above: None }
    }

    /// One step further. None where the schema has nothing of this name.
    pub fn to<'n>(&'n self, step: Step<'n, 'a>) -> Option<Way<'n, 'a, 's>> {
        Some(Way { live: self.live, place: step.from(self.place)?, above: Some((self, step)) })
    }

    /// Whether what stands one step further is owned apart.
    pub fn leads_apart(&self, step: Step<'_, 'a>) -> bool {
        step.from(self.place).is_some_and(|place| place.owned() == Owned::Apart)
    }

    /// What is owned by who owns all that stands at its end.
    pub fn whole(&self) -> Option<Set<'a>> {
        Some(below(self.value()?, self.place)).filter(|all| !all.is_empty())
    }

    fn value(&self) -> Option<&'a Value> {
        let Some((above, step)) = self.above else { return Some(self.live) };
        let element = step.element()?;
        match (&*element, above.value()?) {
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
        let changed = way.to(Step::Read(element)).and_then(|way| one(member, below, &way));
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
        Owned::Apart if alone => way.whole().map(|all| (true, all)),
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
