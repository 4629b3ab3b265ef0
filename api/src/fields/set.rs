//! Sets of field paths, and their encoding in `fieldsV1`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use crate::json::{Map, Value};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::canonical::{is_canonical_key, is_canonical_value};
use crate::json::{put_field, put_inside};
use crate::schema::{Kind, ValueRef};

/// One step of a path.
///
/// Keys and values are held as the JSON text they have in `fieldsV1`, keys with their names sorted, so that steps compare as
/// text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element<'a> {
    /// A field of a structure, or an entry of a map: `f:name`.
    Field(Cow<'a, str>),
    /// An item of a list, by its keys: `k:{"name":"web"}`.
    Key(Cow<'a, str>),
    /// An item of a set: `v:"text"`.
    Value(Cow<'a, str>),
    /// An item of any other list: `i:0`.
    Index(usize),
}

impl<'a> Element<'a> {
    /// A field, or an entry of a map.
    pub fn field(name: &'a str) -> Self {
        Self::Field(Cow::Borrowed(name))
    }

    /// From a field name of `fieldsV1`.
    pub fn parse(text: Cow<'a, str>) -> Option<Self> {
        Self::read(text).map(|(element, _)| element)
    }

    /// The same, and whether it is written as it was read.
    pub(super) fn read(text: Cow<'a, str>) -> Option<(Self, bool)> {
        let (kind, rest) = text.split_at_checked(2)?;
        let canonical = match kind {
            "f:" => return Some((Self::Field(behind(text, 2)), true)),
            "i:" => {
                let at: usize = rest.parse().ok()?;
                return Some((Self::Index(at), is_canonical_value(rest)));
            }
            "k:" if is_canonical_key(rest) => return Some((Self::Key(behind(text, 2)), true)),
            "v:" if is_canonical_value(rest) => return Some((Self::Value(behind(text, 2)), true)),
            "k:" => {
                let Value::Object(keys) = serde_json::from_str(rest).ok()? else { return None };
                let mut keys: Vec<_> = keys.into_iter().collect();
                keys.sort_by(|a, b| a.0.cmp(&b.0));
                key_text(keys.iter().map(|(name, value)| (name.as_str(), value)))
            }
            "v:" => serde_json::from_str::<Value>(rest).ok()?.to_string(),
            _ => return None,
        };
        let (same, is_key) = (canonical == rest, kind == "k:");
        let text = if same { behind(text, 2) } else { Cow::Owned(canonical) };
        Some((if is_key { Self::Key(text) } else { Self::Value(text) }, same))
    }

    /// Appends the field name in `fieldsV1`, as JSON.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let (prefix, text): (&[u8], &str) = match self {
            Self::Field(name) => (b"\"f:", name),
            Self::Key(keys) => (b"\"k:", keys),
            Self::Value(value) => (b"\"v:", value),
            Self::Index(at) => (b"\"i:", &at.to_string()),
        };
        out.extend_from_slice(prefix);
        put_inside(out, text);
        out.push(b'"');
    }

    /// As it stands in a path: `.name`, `[name="web"]`, `[="text"]`, `[0]`.
    pub fn path(&self) -> String {
        match self {
            Self::Field(name) => format!(".{name}"),
            Self::Key(keys) => {
                let keys: Map = serde_json::from_str(keys).unwrap_or_default();
                let each: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("[{}]", each.join(","))
            }
            Self::Value(value) => format!("[={value}]"),
            Self::Index(at) => format!("[{at}]"),
        }
    }
}

/// The text from a byte on.
fn behind(text: Cow<'_, str>, at: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[at..]),
        Cow::Owned(mut text) => {
            text.drain(..at);
            Cow::Owned(text)
        }
    }
}

/// The JSON text of an item's keys; their names come sorted.
pub(super) fn key_text<'k>(keys: impl Iterator<Item = (&'k str, &'k Value)>) -> String {
    let mut text = Vec::with_capacity(64);
    text.push(b'{');
    for (name, value) in keys {
        if text.len() > 1 {
            text.push(b',');
        }
        put_field(&mut text, name, value);
    }
    text.push(b'}');
    // JSON of text is text.
    String::from_utf8(text).unwrap_or_default()
}

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set<'a> {
    /// Sorted by element; none is empty.
    nodes: Vec<Node<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node<'a> {
    element: Element<'a>,
    /// The path that ends here is in the set.
    member: bool,
    below: Set<'a>,
}

impl Node<'_> {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl<'a> Set<'a> {
    /// Whether no path is in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn at(&self, element: &Element<'_>) -> Option<&Node<'a>> {
        // Elements of any two lifetimes compare alike.
        let found = self.nodes.binary_search_by(|node| order(&node.element, element)).ok()?;
        self.nodes.get(found)
    }

    /// Its elements in order: whether the path of each is in the set, and what is below it.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Element<'a>, bool, &Set<'a>)> {
        self.nodes.iter().map(|node| (&node.element, node.member, &node.below))
    }

    /// The first of its elements, with what is below them.
    pub(super) fn first(&self, count: usize) -> Set<'a> {
        Set { nodes: self.nodes[..count.min(self.nodes.len())].to_vec() }
    }

    /// Whether the path of this one element is in the set.
    pub fn has(&self, element: &Element<'_>) -> bool {
        self.at(element).is_some_and(|node| node.member)
    }

    /// Whether the path of this one element is in the set, or another below it.
    pub(super) fn leads(&self, element: &Element<'_>) -> bool {
        self.at(element).is_some()
    }

    /// The paths below an element.
    pub fn below(&self, element: &Element<'_>) -> Option<&Set<'a>> {
        self.at(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// Adds an element that is known not to be there, in any order; [`Set::sort`] must follow.
    pub(super) fn push(&mut self, element: Element<'a>, member: bool, below: Set<'a>) {
        if member || !below.is_empty() {
            self.nodes.push(Node { element, member, below });
        }
    }

    /// Whether an element comes after all that were pushed.
    pub(super) fn is_behind(&self, element: &Element<'_>) -> bool {
        self.nodes.last().is_none_or(|last| last.element < *element)
    }

    /// Puts what was pushed in order, and merges what was pushed twice.
    pub(super) fn sort(&mut self) {
        if self.nodes.is_sorted_by(|a, b| a.element < b.element) {
            return;
        }
        self.nodes.sort_by(|a, b| a.element.cmp(&b.element));
        self.nodes.dedup_by(|second, first| {
            let same = second.element == first.element;
            if same {
                first.member |= second.member;
                let below = std::mem::take(&mut second.below);
                first.below = std::mem::take(&mut first.below).union(below);
            }
            same
        });
    }

    /// These paths, each by the names of its fields.
    pub fn of(paths: &[&[&'a str]]) -> Set<'a> {
        let one = |path: &&[&'a str]| {
            path.iter().rev().fold(Set::default(), |below, name| {
                let (element, member) = (Element::field(name), below.is_empty());
                Set { nodes: vec![Node { element, member, below }] }
            })
        };
        paths.iter().map(one).fold(Set::default(), Set::union)
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: Set<'a>) -> Set<'a> {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut left, mut right) = (self.nodes.into_iter().peekable(), other.nodes.into_iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.element.cmp(&b.element),
            };
            match order {
                Ordering::Less => nodes.extend(left.next()),
                Ordering::Greater => nodes.extend(right.next()),
                Ordering::Equal => {
                    if let (Some(a), Some(b)) = (left.next(), right.next()) {
                        let (member, below) = (a.member || b.member, a.below.union(b.below));
                        nodes.push(Node { element: a.element, member, below });
                    }
                }
            }
        }
        Set { nodes }
    }

    /// Keeps what `keep` says of (member, below), given what `other` has at the same place.
    fn combined(&self, other: &Set<'_>, intersect: bool) -> Set<'a> {
        let nodes = self.nodes.iter().filter_map(|node| {
            let there = other.at(&node.element);
            let kept = match (there, intersect) {
                (None, true) => return None,
                (None, false) => node.clone(),
                (Some(there), true) => Node {
                    element: node.element.clone(),
                    member: node.member && there.member,
                    below: node.below.combined(&there.below, true),
                },
                (Some(there), false) => Node {
                    element: node.element.clone(),
                    member: node.member && !there.member,
                    below: node.below.combined(&there.below, false),
                },
            };
            (!kept.is_empty()).then_some(kept)
        });
        Set { nodes: nodes.collect() }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Set<'_>) -> Set<'a> {
        self.combined(other, true)
    }

    /// What is not in `other`, path by path.
    #[must_use]
    pub fn difference(&self, other: &Set<'_>) -> Set<'a> {
        self.combined(other, false)
    }

    /// What is neither in `other` nor below a path that is.
    #[must_use]
    pub fn without(&self, other: &Set<'_>) -> Set<'a> {
        let nodes = self.nodes.iter().filter_map(|node| {
            let kept = match other.at(&node.element) {
                None => node.clone(),
                Some(there) if there.member => return None,
                Some(there) => Node { below: node.below.without(&there.below), ..node.clone() },
            };
            (!kept.is_empty()).then_some(kept)
        });
        Set { nodes: nodes.collect() }
    }

    /// What lies on one of these ways, or below its end; `*` is any one step.
    pub(super) fn only(&self, ways: &[&[&str]]) -> Set<'a> {
        if ways.iter().any(|way| way.is_empty()) {
            return self.clone();
        }
        let nodes = self.nodes.iter().filter_map(|node| {
            let leads = |step: &str| step == "*" || matches!(&node.element, Element::Field(name) if name == step);
            let ways: Vec<&[&str]> = ways
                .iter()
                .filter_map(|way| way.split_first())
                .filter(|(step, _)| leads(step))
                .map(|(_, rest)| rest)
                .collect();
            if ways.is_empty() {
                return None;
            }
            let kept = Node { element: node.element.clone(), member: node.member, below: node.below.only(&ways) };
            (!kept.is_empty()).then_some(kept)
        });
        Set { nodes: nodes.collect() }
    }

    /// With every structure's field that has paths below it as a member: what leaves such a field without children leaves it
    /// out (`EnsureNamedFieldsAreMembers`).
    #[must_use]
    pub fn with_named_fields(&self, value: Option<ValueRef<'_>>) -> Set<'a> {
        let nodes = self.nodes.iter().map(|node| {
            let (named, below) = match (value.map(ValueRef::kind), &node.element) {
                (Some(Kind::Object(ty)), Element::Field(name)) => {
                    let field = ty.field(name);
                    (field.is_some(), field.map(crate::schema::Field::value))
                }
                (Some(Kind::Map(inner)), Element::Field(_)) => (false, Some(inner)),
                (Some(Kind::List(inner)), _) => (false, Some(inner)),
                _ => (false, None),
            };
            Node {
                element: node.element.clone(),
                member: node.member || named,
                below: node.below.with_named_fields(below),
            }
        });
        Set { nodes: nodes.collect() }
    }

    /// Every path in it, as text: `.spec.containers[name="web"].image`.
    pub fn list(&self) -> Vec<String> {
        fn add(set: &Set<'_>, prefix: &str, out: &mut Vec<String>) {
            for node in &set.nodes {
                let path = format!("{prefix}{}", node.element.path());
                if node.member {
                    out.push(path.clone());
                }
                add(&node.below, &path, out);
            }
        }
        let mut out = Vec::new();
        add(self, "", &mut out);
        out
    }

    /// Takes away what is in `other`, path by path. False when none of it was there.
    pub(super) fn subtract(&mut self, other: &Set<'_>) -> bool {
        let mut any = false;
        for there in &other.nodes {
            let Ok(at) = self.nodes.binary_search_by(|node| order(&node.element, &there.element)) else { continue };
            let node = &mut self.nodes[at];
            any |= node.member && there.member;
            node.member &= !there.member;
            any |= node.below.subtract(&there.below);
            if node.is_empty() {
                self.nodes.remove(at);
            }
        }
        any
    }

    /// Reads `fieldsV1`. None when it is none.
    pub fn decode(fields: &'a Value) -> Option<Set<'a>> {
        Set::deserialize(fields).ok()
    }

    /// As `fieldsV1`.
    pub fn encode(&self) -> Value {
        let mut out = Vec::new();
        self.put(&mut out);
        // It is JSON.
        serde_json::from_slice(&out).unwrap_or_default()
    }

    /// Appends `fieldsV1`, as JSON.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        self.put_below(out, false);
    }

    fn put_below(&self, out: &mut Vec<u8>, member: bool) {
        out.push(b'{');
        let mut separator = None;
        if member && !self.nodes.is_empty() {
            out.extend_from_slice(b"\".\":{}");
            separator = Some(b',');
        }
        for node in &self.nodes {
            out.extend(separator.replace(b','));
            Self::put_entry(out, &node.element, node.member, &node.below);
        }
        out.push(b'}');
    }

    /// Appends an element with what is below it, as a field of JSON.
    pub(super) fn put_entry(out: &mut Vec<u8>, element: &Element<'_>, member: bool, below: &Set<'_>) {
        element.put(out);
        out.push(b':');
        below.put_below(out, member);
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Set<'a> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Below { depth: 0 }.deserialize(reader).map(|(set, _)| set)
    }
}

/// Reads a set, and whether the path that leads to it is a member.
struct Below {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Below {
    type Value = (Set<'de>, bool);
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Below {
    type Value = (Set<'de>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of fieldsV1")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        // serde_json reads no deeper than 128 levels; what was made otherwise is bounded here.
        if self.depth > 128 {
            return Err(A::Error::custom("too deep"));
        }
        let (mut set, mut member, mut empty) = (Set::default(), false, true);
        while let Some(Name(name)) = access.next_key()? {
            empty = false;
            let (below, is_member) = access.next_value_seed(Below { depth: self.depth + 1 })?;
            if name == "." {
                member = true;
                continue;
            }
            let element = Element::parse(name).ok_or_else(|| A::Error::custom("no element of a path"))?;
            set.nodes.push(Node { element, member: is_member, below });
        }
        set.sort();
        Ok((set, member || empty))
    }
}

/// A field name, borrowed where nothing in it is escaped.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        reader.deserialize_str(Text)
    }
}

fn order(a: &Element<'_>, b: &Element<'_>) -> Ordering {
    a.cmp(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;

    fn set(fields: &Value) -> Set<'_> {
        Set::decode(fields).unwrap()
    }

    #[test]
    fn the_algebra() {
        let a = json!({"f:a": {".": {}, "f:b": {}}, "k:{\"name\":\"x\"}": {"f:c": {}}, "v:1": {}});
        let b = json!({"f:a": {}, "k:{\"name\":\"x\"}": {"f:c": {}, "f:d": {}}});
        let (a, b) = (set(&a), set(&b));
        assert_eq!(a.intersection(&b).encode(), json!({"f:a": {}, "k:{\"name\":\"x\"}": {"f:c": {}}}));
        assert_eq!(a.difference(&b).encode(), json!({"f:a": {"f:b": {}}, "v:1": {}}));
        assert_eq!(a.without(&b).encode(), json!({"v:1": {}}));
        let union = a.clone().union(b.clone());
        assert_eq!(
            union.encode(),
            json!({"f:a": {".": {}, "f:b": {}}, "k:{\"name\":\"x\"}": {"f:c": {}, "f:d": {}}, "v:1": {}})
        );
        assert_eq!(union.list(), [".a", ".a.b", "[name=\"x\"].c", "[name=\"x\"].d", "[=1]"]);
        assert_eq!(union.difference(&a).union(a.clone()), union);
        for (from, other) in [(&union, &a), (&union, &b), (&a, &b), (&b, &a), (&a, &a)] {
            let mut left = from.clone();
            left.subtract(other);
            assert_eq!(left, from.difference(other));
        }
    }

    #[test]
    fn only_what_leads_somewhere_stays() {
        let a = json!({".": {}, "f:x": {".": {}, "f:deep": {}}, "f:y": {}});
        let fields = json!({"f:list": {"k:{\"name\":\"a\"}": a, "k:{\"name\":\"b\"}": {"f:y": {}}}, "f:x": {}});
        let wanted = json!({"f:list": {"k:{\"name\":\"a\"}": {".": {}, "f:x": {".": {}, "f:deep": {}}}}});
        assert_eq!(set(&fields).only(&[&["list", "*", "x"], &["other"]]), set(&wanted));
        assert_eq!(set(&fields).only(&[]), Set::default());
        assert_eq!(set(&fields).only(&[&[]]), set(&fields));
    }

    #[test]
    fn sets_are_made_of_paths() {
        let made = Set::of(&[&["x", "y"], &["a"], &["x"], &["x", "b", "c"]]);
        assert_eq!(made.encode(), json!({"f:a": {}, "f:x": {".": {}, "f:b": {"f:c": {}}, "f:y": {}}}));
        assert_eq!(Set::of(&[&[]]), Set::default());
    }

    #[test]
    fn foreign_encodings_become_canonical() {
        let fields = json!({"f:ports": {"k:{\"protocol\": \"TCP\", \"containerPort\": 80}": {".": {}}}});
        assert_eq!(set(&fields).encode(), json!({"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {}}}));
        for broken in [
            json!(3),
            json!({"x:y": {}}),
            json!({"k:[]": {}}),
            json!({"f:a": 3}),
            json!({"i:x": {}}),
            json!({"nothing": {}}),
        ] {
            assert!(Set::decode(&broken).is_none(), "{broken}");
            assert!(serde_json::from_str::<Set<'_>>(&broken.to_string()).is_err(), "{broken}");
        }
    }

    #[test]
    fn text_and_documents_are_read_alike() {
        let fields =
            json!({"f:b": {".": {}, "k:{\"name\":\"x\\\"\"}": {"f:c\"": {}}}, "f:a": {}, "v:\"x\"": {}, "i:3": {}});
        let text = fields.to_string();
        let read: Set<'_> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, set(&fields));
        assert_eq!(
            read.encode().to_string(),
            r#"{"f:a":{},"f:b":{".":{},"k:{\"name\":\"x\\\"\"}":{"f:c\"":{}}},"v:\"x\"":{},"i:3":{}}"#
        );
    }
}
