//! Objects that differ in nothing but their names.
//!
//! The pods of a ReplicaSet, a Job or a test of load are asked for in the same words, hundreds of times. What the server makes
//! of the words is found out once: reading, defaults, owners of fields, admission and checks give the same again, as long as
//! what they looked at is as it was. What is different is filled in, and the store decides as of any other object.
//!
//! ```text
//! {"kind":"Pod","metadata":{"name":"  web-1  "},"spec":{…}}                  as asked
//!  ───────────── before ────────────         ─── after ───
//! {"kind":"Pod",…"name":"  web-1  ","uid":"  …  ","creationTimestamp":"  …  "…}   as stored
//! ```

use super::Call;
use super::create::Made;
use crate::admission::{self, Grounds};
use crate::cache::scan::Scan;
use crate::http::{protobuf, request::Body};
use crate::registry::Row;
use bytes::Bytes;
use coracle_api::clock::rfc3339;
use coracle_api::decode::FieldValidation;
use coracle_api::json::put_inside;
use coracle_api::validation;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// How many are remembered: as many ReplicaSets as grow at a time.
const KEPT: usize = 16;

/// The largest body, the largest object and the most warnings that are remembered, in bytes.
const LARGEST: usize = 32 << 10;

/// What was made lately.
#[derive(Debug, Default)]
pub struct Twins(Mutex<VecDeque<Arc<Twin>>>);

/// What is about to be made after another's pattern.
pub(super) struct Draft {
    pub name: String,
    /// What the name was generated from; empty when the client chose it.
    pub prefix: String,
    pub stored: Bytes,
}

impl Twins {
    /// The object that a request asks for, if one was made of the same request under another name.
    pub(super) fn draft(&self, call: &Call, body: &Body) -> Option<Draft> {
        if call.options.dry_run {
            return None;
        }
        let found = self.0.lock().iter().find(|twin| twin.asked.is_same(call, body)).cloned();
        let twin = found?;
        let name = match twin.asked.name_in(&body.bytes)? {
            "" => call.row().strategy.generate_name(&twin.prefix, &*call.server.config.names),
            name => name.to_owned(),
        };
        // What names are else is told of, or refused.
        if !validation::dns1123_label(&name).is_empty() || !admission::repeats(call, &name, &twin.grounds) {
            return None;
        }
        call.warn(twin.warnings.iter().cloned());
        let (uid, now) = (call.server.config.names.uid(), rfc3339(call.server.config.clock.now()));
        let stored = twin.stored.filled(&name, &uid, &now);
        Some(Draft { name, prefix: twin.prefix.clone(), stored })
    }

    /// Remembers what was made of a request, if it can be made again.
    pub(super) fn remember(&self, call: &Call, body: &Body, made: Made) {
        let Some(twin) = Twin::of(call, body, made) else { return };
        let mut kept = self.0.lock();
        // Of those that were made at the same time, one; and what it rested on may have changed.
        kept.retain(|known| !known.asked.is_same(call, body));
        kept.truncate(KEPT - 1);
        kept.push_front(Arc::new(twin));
    }
}

#[derive(Debug)]
struct Twin {
    asked: Asked,
    prefix: String,
    stored: Pattern,
    grounds: Grounds,
    warnings: Vec<String>,
}

impl Twin {
    fn of(call: &Call, body: &Body, made: Made) -> Option<Self> {
        let Made { stored, prefix, grounds, repeats, .. } = made;
        if !repeats || call.options.dry_run || !grounds.last() {
            return None;
        }
        let warnings = call.warnings.lock().texts().to_vec();
        let told: usize = warnings.iter().map(String::len).sum();
        if body.bytes.len().max(stored.len()).max(told) > LARGEST {
            return None;
        }
        let stored = Pattern::of(&stored)?;
        let asked = Asked::of(call, body, prefix.is_empty())?;
        let name = stored.name.as_str();
        let is_named = asked.name.is_none() || asked.name_in(&body.bytes) == Some(name);
        let is_label = validation::dns1123_label(name).is_empty();
        (is_named && is_label).then_some(Self { asked, prefix, stored, grounds, warnings })
    }
}

/// All of a request that what is made of it follows from.
#[derive(Debug)]
struct Asked {
    row: Arc<Row>,
    served: usize,
    namespace: String,
    manager: String,
    validation: FieldValidation,
    content_type: String,
    body: Box<[u8]>,
    /// Where the name stands in the body, without its quotes; None when the client leaves it to the server.
    name: Option<Range<usize>>,
}

impl Asked {
    fn of(call: &Call, body: &Body, is_named: bool) -> Option<Self> {
        let name = match (&*body.content_type, is_named) {
            ("" | "application/json", true) => Some(name_of(&body.bytes)?),
            // Its lengths are written before the name, and not looked into.
            ("" | "application/json" | protobuf::MEDIA_TYPE, false) => None,
            _ => return None,
        };
        Some(Self {
            row: call.row().clone(),
            served: call.resolved.served,
            namespace: call.namespace.clone(),
            manager: call.manager().to_owned(),
            validation: call.options.field_validation,
            content_type: body.content_type.clone(),
            body: (*body.bytes).into(),
            name,
        })
    }

    /// The text around the name.
    fn around(&self) -> (&[u8], &[u8]) {
        match &self.name {
            Some(name) => (&self.body[..name.start], &self.body[name.end..]),
            None => (&self.body, &[]),
        }
    }

    /// The name in a body; empty when none stands there. None when the body is another one.
    ///
    /// A name is a DNS label, which holds nothing that ends a string: with the same text around it, it is the same string in
    /// the same place of the same document.
    fn name_in<'b>(&self, body: &'b [u8]) -> Option<&'b str> {
        let (before, after) = self.around();
        let name = body.strip_prefix(before)?.strip_suffix(after)?;
        if name.is_empty() != self.name.is_none() || name.len() > validation::DNS_LABEL_MAX {
            return None;
        }
        let is_label = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        name.iter().all(is_label).then(|| std::str::from_utf8(name).ok()).flatten()
    }

    fn is_same(&self, call: &Call, body: &Body) -> bool {
        Arc::ptr_eq(&self.row, call.row())
            && self.name_in(&body.bytes).is_some()
            && self.served == call.resolved.served
            && self.namespace == call.namespace
            && self.manager == call.manager()
            && self.validation == call.options.field_validation
            && self.content_type == body.content_type
    }
}

/// What is another in each object.
#[derive(Clone, Copy, Debug)]
enum Hole {
    Name,
    Uid,
    Now,
}

/// A stored document with holes.
#[derive(Debug)]
struct Pattern {
    /// Without what stood in the holes.
    json: Vec<u8>,
    /// Where they are, in their order.
    holes: Vec<(usize, Hole)>,
    /// What it was called.
    name: String,
}

impl Pattern {
    fn of(stored: &[u8]) -> Option<Self> {
        let root = Scan::new(stored).fields()?;
        let metadata = Scan::from(stored, one(&root, "metadata")?.start).fields()?;
        let name = inside(stored, one(&metadata, "name")?)?;
        let mut places = vec![
            (name.clone(), Hole::Name),
            (inside(stored, one(&metadata, "uid")?)?, Hole::Uid),
            (inside(stored, one(&metadata, "creationTimestamp")?)?, Hole::Now),
        ];
        if let Some(account) = one(&metadata, "managedFields") {
            let mut owners = Scan::from(stored, account.start);
            let owner = owners.take(b'[').then(|| owners.fields()).flatten()?;
            // Of a new object there is one owner.
            owners.take(b']').then_some(())?;
            places.push((inside(stored, one(&owner, "time")?)?, Hole::Now));
        }
        places.sort_by_key(|(place, _)| place.start);
        let name = std::str::from_utf8(&stored[name]).ok()?.to_owned();
        let (mut json, mut holes, mut done) = (Vec::with_capacity(stored.len()), Vec::new(), 0);
        for (place, hole) in places {
            json.extend_from_slice(stored.get(done..place.start)?);
            holes.push((json.len(), hole));
            done = place.end;
        }
        json.extend_from_slice(&stored[done..]);
        Some(Self { json, holes, name })
    }

    fn filled(&self, name: &str, uid: &str, now: &str) -> Bytes {
        let of = |hole: &Hole| match hole {
            Hole::Name => name,
            Hole::Uid => uid,
            Hole::Now => now,
        };
        let room: usize = self.holes.iter().map(|(_, hole)| of(hole).len()).sum();
        let (mut out, mut done) = (Vec::with_capacity(self.json.len() + room), 0);
        for (at, hole) in &self.holes {
            out.extend_from_slice(&self.json[done..*at]);
            put_inside(&mut out, of(hole));
            done = *at;
        }
        out.extend_from_slice(&self.json[done..]);
        out.into()
    }
}

/// Where the name of a document's object stands, without its quotes.
fn name_of(json: &[u8]) -> Option<Range<usize>> {
    let root = Scan::new(json).fields()?;
    let metadata = Scan::from(json, one(&root, "metadata")?.start).fields()?;
    inside(json, one(&metadata, "name")?)
}

/// The value of a field that is there once.
fn one(fields: &[(&[u8], Range<usize>)], name: &str) -> Option<Range<usize>> {
    let mut found = fields.iter().filter(|(known, _)| *known == name.as_bytes());
    let (_, place) = found.next()?;
    found.next().is_none().then(|| place.clone())
}

/// Of a string, what stands between its quotes; None for what is none, or has escapes.
fn inside(json: &[u8], place: Range<usize>) -> Option<Range<usize>> {
    let (_, escapes) = Scan::from(json, place.start).string()?;
    (!escapes).then_some(place.start + 1..place.end - 1)
}
