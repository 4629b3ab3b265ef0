//! The fields of an object, in the order in which they were given.
//!
//! Objects have few fields, whose names are mostly the schema's: looking through them in turn is faster than hashing, and a
//! name costs no memory of its own. A large object has an index, so that nothing takes a time that grows with its square.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::slice;

use hashbrown::HashTable;

use super::Value;
use crate::gvk::Symbol;

/// Objects of more fields than this have an index.
const SMALL: usize = 24;

/// An object's fields.
#[derive(Clone)]
pub struct Map(Repr);

#[derive(Clone)]
enum Repr {
    Small(Vec<(Symbol, Value)>),
    Large(Box<Large>),
}

#[derive(Clone)]
struct Large {
    fields: Vec<(Symbol, Value)>,
    /// Where each name stands.
    places: HashTable<usize>,
    hasher: RandomState,
}

impl Large {
    fn new(fields: Vec<(Symbol, Value)>) -> Box<Self> {
        let mut large = Self { places: HashTable::new(), hasher: RandomState::new(), fields };
        large.index();
        Box::new(large)
    }

    /// Makes the index anew.
    fn index(&mut self) {
        let Self { fields, places, hasher } = self;
        places.clear();
        let hash = |at: &usize| hasher.hash_one(fields[*at].0.as_str());
        places.reserve(fields.len(), hash);
        for at in 0..fields.len() {
            places.insert_unique(hash(&at), at, hash);
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        let hash = self.hasher.hash_one(name);
        self.places.find(hash, |at| self.fields[*at].0 == *name).copied()
    }

    fn push(&mut self, name: Symbol, value: Value) {
        let Self { fields, places, hasher } = self;
        let hash = hasher.hash_one(name.as_str());
        places.insert_unique(hash, fields.len(), |at| hasher.hash_one(fields[*at].0.as_str()));
        fields.push((name, value));
    }

    /// Takes the last field's name out of the index.
    fn forget_last(&mut self) {
        let Self { fields, places, hasher } = self;
        let Some((name, _)) = fields.last() else { return };
        let last = fields.len() - 1;
        if let Ok(place) = places.find_entry(hasher.hash_one(name.as_str()), |at| *at == last) {
            place.remove();
        }
    }
}

impl Map {
    /// No fields.
    pub const fn new() -> Self {
        Self(Repr::Small(Vec::new()))
    }

    /// No fields, and room for so many.
    pub fn with_capacity(fields: usize) -> Self {
        Self(Repr::Small(Vec::with_capacity(fields)))
    }

    /// An object of fields of which no two have the same name.
    pub(crate) fn of_distinct(fields: Vec<(Symbol, Value)>) -> Self {
        if fields.len() > SMALL { Self(Repr::Large(Large::new(fields))) } else { Self(Repr::Small(fields)) }
    }

    /// An object of fields as they stand in a document: of two of one name the later counts.
    pub(super) fn of(fields: impl ExactSizeIterator<Item = (Symbol, Value)>) -> Self {
        let mut map = Self::with_capacity(fields.len().min(SMALL));
        for (name, value) in fields {
            map.insert(name, value);
        }
        map
    }

    fn fields(&self) -> &[(Symbol, Value)] {
        match &self.0 {
            Repr::Small(fields) => fields,
            Repr::Large(large) => &large.fields,
        }
    }

    fn fields_mut(&mut self) -> &mut [(Symbol, Value)] {
        match &mut self.0 {
            Repr::Small(fields) => fields,
            Repr::Large(large) => &mut large.fields,
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        match &self.0 {
            Repr::Small(fields) => fields.iter().position(|(known, _)| is(known, name)),
            Repr::Large(large) => large.find(name),
        }
    }

    fn push(&mut self, name: Symbol, value: Value) -> &mut Value {
        match &mut self.0 {
            Repr::Small(fields) if fields.len() < SMALL => fields.push((name, value)),
            Repr::Small(fields) => {
                let mut large = Large::new(std::mem::take(fields));
                large.push(name, value);
                self.0 = Repr::Large(large);
            }
            Repr::Large(large) => large.push(name, value),
        }
        let last = self.len() - 1;
        &mut self.fields_mut()[last].1
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fields().is_empty()
    }

    /// What a field holds.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.find(name).map(|at| &self.fields()[at].1)
    }

    /// What a field holds.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.find(name).map(|at| &mut self.fields_mut()[at].1)
    }

    /// Whether there is such a field.
    pub fn contains_key(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Sets a field, and gives what it held.
    pub fn insert(&mut self, name: impl Into<Symbol>, value: Value) -> Option<Value> {
        let name = name.into();
        match self.find(&name) {
            Some(at) => Some(std::mem::replace(&mut self.fields_mut()[at].1, value)),
            None => {
                self.push(name, value);
                None
            }
        }
    }

    /// Removes a field; the others stay in their order.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.find(name)?;
        match &mut self.0 {
            Repr::Small(fields) => Some(fields.remove(at).1),
            Repr::Large(large) if at + 1 == large.fields.len() => {
                large.forget_last();
                large.fields.pop().map(|(_, value)| value)
            }
            Repr::Large(large) => {
                // Those behind move up: no more than a copy of what they are, and of their places.
                let hash = large.hasher.hash_one(name);
                if let Ok(place) = large.places.find_entry(hash, |place| *place == at) {
                    place.remove();
                }
                for place in large.places.iter_mut().filter(|place| **place > at) {
                    *place -= 1;
                }
                Some(large.fields.remove(at).1)
            }
        }
    }

    /// A field that is there or not.
    pub fn entry(&mut self, name: impl Into<Symbol>) -> Entry<'_> {
        let name = name.into();
        Entry { at: self.find(&name), map: self, name }
    }

    /// Keeps what a question is answered yes for.
    pub fn retain(&mut self, mut keep: impl FnMut(&Symbol, &mut Value) -> bool) {
        match &mut self.0 {
            Repr::Small(fields) => fields.retain_mut(|(name, value)| keep(name, value)),
            Repr::Large(large) => {
                let before = large.fields.len();
                large.fields.retain_mut(|(name, value)| keep(name, value));
                if large.fields.len() < before {
                    large.index();
                }
            }
        }
    }

    /// Puts the fields into the order of their names.
    pub fn sort_keys(&mut self) {
        self.fields_mut().sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Repr::Large(large) = &mut self.0 {
            large.index();
        }
    }

    /// Removes all fields.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// The fields in turn.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.fields().iter())
    }

    /// The fields in turn.
    pub fn iter_mut(&mut self) -> IterMut<'_> {
        IterMut(self.fields_mut().iter_mut())
    }

    /// The names in turn.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &Symbol> + ExactSizeIterator + Clone {
        self.fields().iter().map(|(name, _)| name)
    }

    /// What the fields hold, in turn.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Value> + ExactSizeIterator + Clone {
        self.fields().iter().map(|(_, value)| value)
    }

    /// What the fields hold, in turn.
    pub fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Value> + ExactSizeIterator {
        self.fields_mut().iter_mut().map(|(_, value)| value)
    }
}

/// Names are mostly told apart by their lengths.
fn is(known: &Symbol, name: &str) -> bool {
    let known = known.as_str();
    known.len() == name.len() && (std::ptr::eq(known, name) || known == name)
}

impl Default for Map {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// The order of fields does not count.
impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.iter().zip(other).all(
                |((name, value), (beside, same))| {
                    if name == beside { value == same } else { other.get(name) == Some(value) }
                },
            )
    }
}

impl Eq for Map {}

/// Of two fields of one name the later counts, in the place of the first.
impl<K: Into<Symbol>, V: Into<Value>> Extend<(K, V)> for Map {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, fields: I) {
        for (name, value) in fields {
            self.insert(name, value.into());
        }
    }
}

impl<K: Into<Symbol>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(fields: I) -> Self {
        let fields = fields.into_iter();
        let mut map = Self::with_capacity(fields.size_hint().0.min(SMALL));
        map.extend(fields);
        map
    }
}

impl IntoIterator for Map {
    type Item = (Symbol, Value);
    type IntoIter = std::vec::IntoIter<(Symbol, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        match self.0 {
            Repr::Small(fields) => fields.into_iter(),
            Repr::Large(large) => large.fields.into_iter(),
        }
    }
}

impl<'m> IntoIterator for &'m Map {
    type Item = (&'m Symbol, &'m Value);
    type IntoIter = Iter<'m>;
    fn into_iter(self) -> Iter<'m> {
        self.iter()
    }
}

impl<'m> IntoIterator for &'m mut Map {
    type Item = (&'m Symbol, &'m mut Value);
    type IntoIter = IterMut<'m>;
    fn into_iter(self) -> IterMut<'m> {
        self.iter_mut()
    }
}

impl std::ops::Index<&str> for Map {
    type Output = Value;
    fn index(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&Value::Null)
    }
}

/// Fields in turn.
#[derive(Clone, Debug)]
pub struct Iter<'m>(slice::Iter<'m, (Symbol, Value)>);

impl<'m> Iterator for Iter<'m> {
    type Item = (&'m Symbol, &'m Value);
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name, value))
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(|(name, value)| (name, value))
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// Fields in turn.
#[derive(Debug)]
pub struct IterMut<'m>(slice::IterMut<'m, (Symbol, Value)>);

impl<'m> Iterator for IterMut<'m> {
    type Item = (&'m Symbol, &'m mut Value);
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (&*name, value))
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// A field that is there or not.
#[derive(Debug)]
pub struct Entry<'m> {
    map: &'m mut Map,
    name: Symbol,
    at: Option<usize>,
}

impl<'m> Entry<'m> {
    /// What it holds; what is made when it is not there.
    pub fn or_insert_with(self, make: impl FnOnce() -> Value) -> &'m mut Value {
        match self.at {
            Some(at) => &mut self.map.fields_mut()[at].1,
            None => self.map.push(self.name, make()),
        }
    }

    /// What it holds; `value` when it is not there.
    pub fn or_insert(self, value: Value) -> &'m mut Value {
        self.or_insert_with(|| value)
    }
}

impl From<Map> for Value {
    fn from(fields: Map) -> Self {
        Self::Object(fields)
    }
}

impl From<Cow<'_, str>> for Value {
    fn from(text: Cow<'_, str>) -> Self {
        Self::String(text.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Change {
        Set(u8, i64),
        Remove(u8),
        Retain(u8),
        Sort,
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        // Small numbers of names and large ones.
        let names = prop_oneof![0..6_u8, 0..=255_u8];
        let change = prop_oneof![
            8 => (names.clone(), any::<i64>()).prop_map(|(name, value)| Change::Set(name, value)),
            3 => names.clone().prop_map(Change::Remove),
            1 => (1..5_u8).prop_map(Change::Retain),
            1 => Just(Change::Sort),
        ];
        prop::collection::vec(change, 0..200)
    }

    proptest! {
        /// What it holds is what a list holds that is looked through from its start.
        #[test]
        fn it_does_as_a_list_would(changes in changes()) {
            let mut map = Map::new();
            let mut list: Vec<(String, i64)> = Vec::new();
            for change in changes {
                match change {
                    Change::Set(name, value) => {
                        let name = format!("name-{name}");
                        let before = map.insert(name.as_str(), value.into());
                        match list.iter_mut().find(|(known, _)| *known == name) {
                            Some((_, known)) => assert_eq!(before, Some(std::mem::replace(known, value).into())),
                            None => list.push((name, value)),
                        }
                    }
                    Change::Remove(name) => {
                        let name = format!("name-{name}");
                        let at = list.iter().position(|(known, _)| *known == name);
                        assert_eq!(map.remove(&name), at.map(|at| list.remove(at).1.into()));
                    }
                    Change::Retain(part) => {
                        map.retain(|_, value| value.as_i64().unwrap() % i64::from(part) == 0);
                        list.retain(|(_, value)| value % i64::from(part) == 0);
                    }
                    Change::Sort => {
                        map.sort_keys();
                        list.sort();
                    }
                }
                assert_eq!(map.len(), list.len());
            }
            assert!(map.iter().map(|(name, value)| (name.as_str(), value.as_i64().unwrap()))
                .eq(list.iter().map(|(name, value)| (name.as_str(), *value))));
            for (name, value) in &list {
                assert_eq!(map.get(name), Some(&Value::from(*value)));
            }
            let reversed: Map = list.iter().rev().map(|(name, value)| (name.as_str(), *value)).collect();
            assert_eq!(reversed, map);
        }
    }
}
