//! What changed between two objects.

use crate::json::Value;

use super::paths::elements;
use super::place::{Form, Place};
use super::set::{Element, Set};
use crate::json::same;
use crate::schema::TypeRef;

/// Paths that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison<'a> {
    /// Added or modified.
    pub changed: Set<'a>,
    /// No longer there.
    pub removed: Set<'a>,
}

impl Comparison<'_> {
    /// Whether the objects are alike.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Compares two objects path by path (structured-merge-diff `Compare`). A structure that comes or goes counts itself, with
/// all that is in it.
pub fn compare<'a>(old: &'a Value, new: &'a Value, ty: TypeRef<'_>) -> Comparison<'a> {
    let (comparison, _) = both(Some(old), Some(new), Place::root(ty));
    comparison
}

/// What changed below, and how the place itself did.
fn both<'a>(old: Option<&'a Value>, new: Option<&'a Value>, place: Place<'_>) -> (Comparison<'a>, Change) {
    if is_same(old, new) { (Comparison::default(), Change::None) } else { differing(old, new, place) }
}

fn is_same(old: Option<&Value>, new: Option<&Value>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => same(old, new),
        (old, new) => old.is_none() && new.is_none(),
    }
}

/// The same of values that are not equal.
fn differing<'a>(old: Option<&'a Value>, new: Option<&'a Value>, place: Place<'_>) -> (Comparison<'a>, Change) {
    let change = match (old, new) {
        (None, _) => Change::Changed,
        (_, None) => Change::Removed,
        (Some(_), Some(_)) => Change::None,
    };
    let forms = (old.map(|value| place.form(value)), new.map(|value| place.form(value)));
    let below = match forms {
        (Some(Form::Fields(old)), Some(Form::Fields(new))) if !(old.is_empty() && new.is_empty()) => {
            fields(Some(old), Some(new), place)
        }
        (Some(Form::Items(old)), Some(Form::Items(new))) => items(old, new, place),
        // Where null stands, what comes is compared with nothing, but the place was there before.
        (Some(Form::Fields(map)), _) if !map.is_empty() && is_nothing(new) => fields(Some(map), None, place),
        (_, Some(Form::Fields(map))) if !map.is_empty() && is_nothing(old) => fields(None, Some(map), place),
        (Some(Form::Items(list)), _) if !list.is_empty() && is_nothing(new) => items(list, &[], place),
        (_, Some(Form::Items(list))) if !list.is_empty() && is_nothing(old) => items(&[], list, place),
        _ if new.is_some() => return (Comparison::default(), Change::Changed),
        _ => return (Comparison::default(), change),
    };
    (below, change)
}

fn is_nothing(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Changed,
    Removed,
    /// Both: the one that was is gone, and another one is there.
    Replaced,
}

type Fields = crate::json::Map;

fn fields<'a>(old: Option<&'a Fields>, new: Option<&'a Fields>, place: Place<'_>) -> Comparison<'a> {
    let mut found = Comparison::default();
    for (name, value) in new.into_iter().flatten() {
        let before = old.and_then(|old| old.get(name));
        // Equal values are passed over without a look at the schema.
        if is_same(before, Some(value)) {
            continue;
        }
        let Some(inner) = place.field(name) else { continue };
        add(&mut found, Element::field(name), differing(before, Some(value), inner));
    }
    for (name, value) in old.into_iter().flatten() {
        if new.is_some_and(|new| new.contains_key(name)) {
            continue;
        }
        let Some(inner) = place.field(name) else { continue };
        add(&mut found, Element::field(name), differing(Some(value), None, inner));
    }
    found.changed.sort();
    found.removed.sort();
    found
}

fn items<'a>(old: &'a [Value], new: &'a [Value], place: Place<'_>) -> Comparison<'a> {
    let mut found = Comparison::default();
    let (old, new) = (elements(old, place), elements(new, place));
    let (mut old, mut new) = (old.as_slice(), new.as_slice());
    while let Some(element) = old.first().into_iter().chain(new.first()).map(|(element, _)| element).min().cloned() {
        let (before, after) = (take(&mut old, &element), take(&mut new, &element));
        add(&mut found, element, item(before, after, place.item()));
    }
    found
}

type Items<'s, 'a> = &'s [(Element<'a>, &'a Value)];

/// Those at the front that are this element.
fn take<'s, 'a>(items: &mut Items<'s, 'a>, element: &Element<'_>) -> Items<'s, 'a> {
    let count = items.iter().take_while(|(known, _)| known == element).count();
    let (same, rest) = items.split_at(count);
    *items = rest;
    same
}

/// What changed of one item. Items that are there more than once are one value, and what they are is owned by the element
/// alone (structured-merge-diff `compareWalker.visitListItems`).
fn item<'a>(old: Items<'_, 'a>, new: Items<'_, 'a>, place: Place<'_>) -> (Comparison<'a>, Change) {
    match (old, new) {
        ([] | [_], [] | [_]) => both(old.first().map(|(_, old)| *old), new.first().map(|(_, new)| *new), place),
        ([_, _, ..], [_, _, ..]) => {
            let alike = old.len() == new.len() && old.iter().zip(new).all(|((_, old), (_, new))| same(old, new));
            (Comparison::default(), if alike { Change::None } else { Change::Changed })
        }
        ([_, _, ..], []) => (Comparison::default(), Change::Removed),
        // One that is left is new, and what they were together is gone.
        ([_, _, ..], [(_, new)]) => (both(None, Some(new), place).0, Change::Replaced),
        ([], _) => (Comparison::default(), Change::Changed),
        ([(_, old)], _) => (both(Some(old), None, place).0, Change::Replaced),
    }
}

fn add<'a>(found: &mut Comparison<'a>, element: Element<'a>, (below, change): (Comparison<'a>, Change)) {
    found.changed.push(element.clone(), matches!(change, Change::Changed | Change::Replaced), below.changed);
    found.removed.push(element, matches!(change, Change::Removed | Change::Replaced), below.removed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::Gvk;
    use crate::json::json;
    use crate::schema;

    #[test]
    fn added_changed_and_removed() {
        let ty = schema::of(&Gvk::of("", "v1", "Pod")).unwrap();
        let old = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeSelector": {"x": "y"},
            "containers": [{"name": "a", "image": "i:1"}, {"name": "b"}]}});
        let new = json!({"metadata": {"labels": {"a": "2"}, "annotations": {"n": ""}}, "spec": {"nodeSelector": {"x": "z"},
            "containers": [{"name": "c", "args": ["x"]}, {"name": "a", "image": "i:1", "tty": true}]}});
        let found = compare(&old, &new, ty);
        assert_eq!(
            found.changed.encode(),
            json!({"f:metadata": {"f:annotations": {".": {}, "f:n": {}}, "f:labels": {"f:a": {}}}, "f:spec": {
                "f:containers": {"k:{\"name\":\"a\"}": {"f:tty": {}}, "k:{\"name\":\"c\"}": {".": {}, "f:args": {}, "f:name": {}}}, "f:nodeSelector": {}}})
        );
        assert_eq!(
            found.removed.encode(),
            json!({"f:metadata": {"f:labels": {"f:b": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"b\"}": {".": {}, "f:name": {}}}}})
        );
        assert!(compare(&old, &old.clone(), ty).is_empty());
    }
}
