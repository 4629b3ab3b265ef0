//! A cached object: its encoded bytes beside a small index.
//!
//! The bytes are those of a watch frame, `{"type":"ADDED","object":{…}}⏎`, and the object's own JSON is a slice of
//! them. So an object is encoded once for GET, LIST and every watcher.
//!
//! The store keeps objects without their resourceVersion, which is only known once they are written; the cache puts it
//! in as the first field of `metadata`, which the stored encoding always has in third place, after kind and apiVersion.

use super::index::{Index, Labels};
use crate::registry::Row;
use crate::store::Revision;
use bytes::{BufMut, Bytes, BytesMut};
use coracle_api::json::Value;
use coracle_api::json::{self, put, put_field, put_text};
use std::sync::{Arc, OnceLock};

/// What a watch frame says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    /// What stands in a frame before the object.
    pub fn opening(self) -> &'static [u8] {
        match self {
            Change::Added => b"{\"type\":\"ADDED\",\"object\":",
            Change::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
            Change::Deleted => b"{\"type\":\"DELETED\",\"object\":",
        }
    }

    /// The name in the frame.
    pub fn name(self) -> &'static str {
        match self {
            Change::Added => "ADDED",
            Change::Modified => "MODIFIED",
            Change::Deleted => "DELETED",
        }
    }
}

/// What stands in a frame after the object.
pub const CLOSING: &[u8] = b"}\n";

/// One object at one revision.
#[derive(Debug)]
pub struct Object {
    /// `namespace/name`, or `name` of a cluster-wide object.
    pub key: Arc<str>,
    pub revision: Revision,
    /// The revision that created it.
    pub created: Revision,
    frame: Bytes,
    change: Change,
    /// Where the resourceVersion's digits stand in the frame.
    version_at: (u32, u8),
    index: Index,
    /// The object in another encoding, made when it is first asked for.
    encoded: OnceLock<Bytes>,
}

impl Object {
    /// Takes an object from its stored encoding.
    ///
    /// Returns None when the bytes are not an encoded object.
    pub fn new(
        key: Arc<str>,
        stored: &[u8],
        created: Revision,
        revision: Revision,
        change: Change,
        row: &Row,
    ) -> Option<Self> {
        let converted = row.strategy.custom().and_then(|custom| custom.normalized(stored));
        let stored = converted.as_deref().unwrap_or(stored);
        let canonical;
        let (stored, at) = match metadata_at(stored) {
            Some(at) => (stored, at),
            None => {
                canonical = encode(&serde_json::from_slice(stored).ok()?);
                (&*canonical, metadata_at(&canonical)?)
            }
        };
        let index = Index::of(stored, row.strategy.fields())?;
        let (frame, version_at) = splice(change, &stored[..at], &stored[at..], revision);
        Some(Self { key, revision, created, frame, change, version_at, index, encoded: OnceLock::new() })
    }

    /// The object's JSON, sharing the frame's memory.
    pub fn json(&self) -> Bytes {
        self.frame.slice(self.change.opening().len()..self.frame.len() - CLOSING.len())
    }

    /// The object's JSON as a borrowed slice.
    pub fn json_slice(&self) -> &[u8] {
        &self.frame[self.change.opening().len()..self.frame.len() - CLOSING.len()]
    }

    /// The frame's parts for a watcher that is to see `change`: an opening, when the object's own frame has another,
    /// and the rest.
    pub fn frame(&self, change: Change) -> (&'static [u8], Bytes) {
        if change == self.change {
            (b"", self.frame.clone())
        } else {
            (change.opening(), self.frame.slice(self.change.opening().len()..))
        }
    }

    /// The same content, carrying another revision: what a watcher is told about an object that is gone.
    pub fn at(&self, revision: Revision, change: Change) -> Self {
        let json = self.json_slice();
        let start = self.version_at.0 as usize - self.change.opening().len();
        let rest = start + self.version_at.1 as usize;
        let mut digits = itoa(revision);
        let digits = digits.as_str();
        let opening = change.opening();
        let mut frame = BytesMut::with_capacity(opening.len() + json.len() + digits.len() + CLOSING.len());
        frame.put_slice(opening);
        frame.put_slice(&json[..start]);
        let version_at = (frame.len() as u32, digits.len() as u8);
        frame.put_slice(digits.as_bytes());
        frame.put_slice(&json[rest..]);
        frame.put_slice(CLOSING);
        Self {
            key: self.key.clone(),
            revision,
            created: self.created,
            frame: frame.freeze(),
            change,
            version_at,
            index: self.index.clone(),
            encoded: OnceLock::new(),
        }
    }

    /// The object in its other encoding: `make` makes it from the document, once.
    pub fn encoded(&self, make: impl FnOnce(&Value) -> Bytes) -> Bytes {
        self.encoded.get_or_init(|| make(&self.parse())).clone()
    }

    /// The object, parsed.
    pub fn parse(&self) -> Value {
        json::read(self.json_slice()).unwrap_or(Value::Null)
    }

    /// The object, parsed but for its `metadata.managedFields`, and those as JSON.
    pub fn parse_unmanaged(&self) -> (Value, Option<Bytes>) {
        let json = self.json();
        match json::read_apart(&json, &["metadata", "managedFields"]) {
            Ok((value, managed)) => (value, managed.map(|managed| json.slice_ref(managed.as_bytes()))),
            Err(_) => (Value::Null, None),
        }
    }

    /// What stands behind `metadata`, which ends with these `managedFields` of its own.
    pub fn behind_metadata(&self, managed_fields: &Bytes) -> Option<&[u8]> {
        let json = self.json_slice();
        let end = (managed_fields.as_ptr().addr() + managed_fields.len()).checked_sub(json.as_ptr().addr())?;
        json.get(end..)?.strip_prefix(b"}")
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.key.rsplit_once('/').map_or(&*self.key, |(_, name)| name)
    }

    /// The namespace; empty for a cluster-wide object.
    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub fn labels(&self) -> &Labels {
        &self.index.labels
    }

    /// The value of the row's nth selectable field.
    pub fn field(&self, nth: usize) -> &str {
        self.index.fields.get(nth).map_or("", |value| value)
    }

    /// Bytes of memory that this object's encoding takes.
    pub fn size(&self) -> usize {
        self.frame.len()
    }
}

/// A number in decimal without an allocation.
struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    fn as_str(&mut self) -> &str {
        std::str::from_utf8(&self.bytes[self.start..]).unwrap_or("0")
    }
}

fn itoa(mut number: u64) -> Digits {
    let mut digits = Digits { bytes: [b'0'; 20], start: 20 };
    loop {
        digits.start -= 1;
        digits.bytes[digits.start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return digits;
        }
    }
}

/// Where, in a canonical encoding, the first field of `metadata` begins.
fn metadata_at(stored: &[u8]) -> Option<usize> {
    const KIND: &[u8] = b"{\"kind\":\"";
    const VERSION: &[u8] = b",\"apiVersion\":\"";
    const METADATA: &[u8] = b",\"metadata\":{";
    let string_end = |from: usize| memchr::memchr(b'"', stored.get(from..)?).map(|at| from + at + 1);
    if !stored.starts_with(KIND) {
        return None;
    }
    let mut at = string_end(KIND.len())?;
    stored.get(at..)?.starts_with(VERSION).then_some(())?;
    at = string_end(at + VERSION.len())?;
    stored.get(at..)?.starts_with(METADATA).then_some(())?;
    at += METADATA.len();
    (!stored.get(at..)?.starts_with(b"\"resourceVersion\"")).then_some(at)
}

fn splice(change: Change, head: &[u8], rest: &[u8], revision: Revision) -> (Bytes, (u32, u8)) {
    const FIELD: &[u8] = b"\"resourceVersion\":\"";
    let mut digits = itoa(revision);
    let digits = digits.as_str();
    let opening = change.opening();
    let length = opening.len() + head.len() + FIELD.len() + digits.len() + 2 + rest.len() + CLOSING.len();
    let mut frame = BytesMut::with_capacity(length);
    frame.put_slice(opening);
    frame.put_slice(head);
    frame.put_slice(FIELD);
    let version_at = (frame.len() as u32, digits.len() as u8);
    frame.put_slice(digits.as_bytes());
    frame.put_u8(b'"');
    if rest.first() != Some(&b'}') {
        frame.put_u8(b',');
    }
    frame.put_slice(rest);
    frame.put_slice(CLOSING);
    (frame.freeze(), version_at)
}

/// Encodes an object for the store: kind, apiVersion and metadata first, no resourceVersion.
pub fn encode(object: &Value) -> Bytes {
    encode_managed(object, None)
}

/// Encodes an object whose `metadata.managedFields` are JSON already, and not in the object.
pub fn encode_managed(object: &Value, managed_fields: Option<&[u8]>) -> Bytes {
    encode_before(object, managed_fields, None)
}

/// As [`encode_managed`]; `behind` is what stands behind `metadata`, where that is known already.
pub fn encode_before(object: &Value, managed_fields: Option<&[u8]>, behind: Option<&[u8]>) -> Bytes {
    const FIRST: [(&str, &[u8]); 3] = [("kind", b"\"\""), ("apiVersion", b"\"\""), ("metadata", b"{}")];
    let Some(map) = object.as_object() else { return Bytes::new() };
    let mut out = Vec::with_capacity(ROOM);
    for (nth, (name, absent)) in FIRST.iter().enumerate() {
        out.push(if nth == 0 { b'{' } else { b',' });
        put_text(&mut out, name);
        out.push(b':');
        match map.get(name) {
            Some(Value::Object(metadata)) if *name == "metadata" => put_metadata(&mut out, metadata, managed_fields),
            Some(value) => put(&mut out, value),
            None => out.extend_from_slice(absent),
        }
    }
    if let Some(behind) = behind {
        out.extend_from_slice(behind);
        return shrunk(out);
    }
    for (name, value) in map.iter().filter(|(name, _)| FIRST.iter().all(|(first, _)| **name != **first)) {
        out.push(b',');
        put_field(&mut out, name, value);
    }
    out.push(b'}');
    shrunk(out)
}

/// The store keeps these bytes for a while: not the room that was guessed.
fn shrunk(mut out: Vec<u8>) -> Bytes {
    out.shrink_to_fit();
    out.into()
}

/// What most objects fit in without growing.
const ROOM: usize = 4096;

fn put_metadata(out: &mut Vec<u8>, metadata: &coracle_api::json::Map, managed_fields: Option<&[u8]>) {
    out.push(b'{');
    let mut separator = None;
    for (name, value) in metadata.iter().filter(|(name, _)| *name != "resourceVersion") {
        out.extend(separator.replace(b','));
        put_field(out, name, value);
    }
    if let Some(managed_fields) = managed_fields {
        out.extend(separator.replace(b','));
        out.extend_from_slice(b"\"managedFields\":");
        out.extend_from_slice(managed_fields);
    }
    out.push(b'}');
}

/// The answer to a write: the stored encoding with the revision it got.
pub fn with_revision(stored: &Bytes, revision: Revision) -> Bytes {
    match metadata_at(stored) {
        Some(at) => {
            let (frame, _) = splice(Change::Added, &stored[..at], &stored[at..], revision);
            frame.slice(Change::Added.opening().len()..frame.len() - CLOSING.len())
        }
        None => stored.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn object(change: Change) -> Object {
        let value = json!({"apiVersion": "v1", "spec": {"nodeName": "n\"1"}, "kind": "Pod",
            "metadata": {"name": "a", "namespace": "x", "labels": {"app": "web"}, "resourceVersion": "7"}});
        Object::new("x/a".into(), &encode(&value), 3, 12, change, crate::registry::pods()).unwrap()
    }

    #[test]
    fn the_revision_is_spliced_in() {
        let object = object(Change::Modified);
        let value = object.parse();
        assert_eq!(value["metadata"]["resourceVersion"], "12");
        assert_eq!(value["metadata"]["name"], "a");
        assert_eq!(object.labels().get("app"), Some("web"));
        assert_eq!((object.namespace(), object.name()), ("x", "a"));
        let gone = object.at(12345, Change::Deleted);
        assert_eq!(gone.parse()["metadata"]["resourceVersion"], "12345");
        assert!(gone.frame(Change::Deleted).1.starts_with(b"{\"type\":\"DELETED\""));
    }

    #[test]
    fn frames_are_shared_or_reopened() {
        let object = object(Change::Modified);
        assert_eq!(object.frame(Change::Modified).0, b"");
        let (opening, rest) = object.frame(Change::Added);
        let frame = [opening, &rest].concat();
        let value: Value = serde_json::from_slice(&frame).unwrap();
        assert_eq!(value["type"], "ADDED");
        assert_eq!(value["object"]["spec"]["nodeName"], "n\"1");
        assert_eq!(frame.last(), Some(&b'\n'));
    }

    #[test]
    fn foreign_encodings_are_made_canonical() {
        let stored = br#"{"metadata":{"name":"a"},"kind":"Pod","apiVersion":"v1"}"#;
        let object = Object::new("a".into(), stored, 1, 9, Change::Added, crate::registry::pods()).unwrap();
        assert_eq!(object.parse()["metadata"]["resourceVersion"], "9");
        assert!(Object::new("a".into(), b"junk", 1, 9, Change::Added, crate::registry::pods()).is_none());
    }
}
