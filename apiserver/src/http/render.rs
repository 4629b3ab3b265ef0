//! Answers: objects, lists, tables, statuses, in the form the client asked for.

use super::fairness::TooMany;
use super::negotiate::{Accept, Format, Meta, Shape};
use super::pretty::Layout;
use super::{protobuf, table};
use crate::cache::watcher::{FrameEncoder, bookmark_object, error_frame, json_frame};
use crate::cache::{Change, Object, Selection, Snapshot};
use crate::registry::Row;
use crate::registry::warnings::Warnings;
use crate::store::Revision;
use crate::verbs::{Call, Response};
use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use coracle_api::json::{Value, json};
use coracle_api::printing::{self, Printing};
use coracle_api::status::Reason;
use coracle_api::{Gvk, Status};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A list is written in pieces of about this size: it bounds what a slow reader holds, and larger lists are compressed
/// when the client takes that (upstream compresses from 128 KiB on).
const PIECE: usize = 128 << 10;

/// How a call's objects are written.
#[derive(Debug)]
pub struct Form {
    row: Arc<Row>,
    served: usize,
    shape: Shape,
    meta: Meta,
    protobuf: bool,
    include_object: table::Include,
    now: Timestamp,
    /// What a stored object begins with.
    head: String,
    /// Whether a watch's table has named its columns.
    columns_sent: AtomicBool,
}

impl Form {
    fn of(call: &Call) -> Result<Self, Status> {
        let gvk = call.row().gvk(call.resolved.served);
        Ok(Self {
            head: format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", gvk.kind, gvk.api_version()),
            row: call.row().clone(),
            served: call.resolved.served,
            shape: call.accept.shape,
            meta: call.accept.meta,
            protobuf: call.accept.format == Format::Protobuf,
            include_object: match call.accept.shape {
                Shape::Table => table::Include::parse(call.options.include_object.as_deref())?,
                _ => table::Include::Metadata,
            },
            now: call.server.config.clock.now(),
            columns_sent: AtomicBool::new(false),
        })
    }

    /// Refuses the metadata of a list as that of an object, and the other way round (apiserver `handlers/response.go`).
    fn check_shape(&self, is_list: bool) -> Result<(), Status> {
        let (asked, is) = match (self.shape, is_list) {
            (Shape::Partial, true) => ("PartialObjectMetadata", "a list"),
            (Shape::Partials, false) => ("PartialObjectMetadataList", "not a list"),
            _ => return Ok(()),
        };
        let gvk = self.row.gvk(self.served);
        let (package, kind) = match gvk.group.split('.').next() {
            _ if self.row.strategy.custom().is_some() => ("unstructured", "Unstructured"),
            Some("" | "events") | None => ("core", &*gvk.kind),
            Some(package) => (package, &*gvk.kind),
        };
        let list = if is_list { "List" } else { "" };
        let why = format!("you requested {asked}, but the requested object is {is} (*{package}.{kind}{list})");
        Err(Status::new(406, Reason::NotAcceptable, why))
    }

    /// The stored bytes are what the client wants.
    fn is_stored(&self) -> bool {
        self.shape == Shape::Object && !self.converts()
    }

    /// The version asked for is not the one that is kept.
    fn converts(&self) -> bool {
        self.served != 0 || self.row.strategy.custom().is_some_and(|custom| custom.converts())
    }

    fn printing(&self) -> Printing<'_> {
        self.row.printing(self.served)
    }

    /// An object in this form's version.
    fn converted(&self, json: &[u8]) -> Value {
        let mut object: Value = serde_json::from_slice(json).unwrap_or(Value::Null);
        if self.converts() {
            self.row.to_served(&mut object, self.served);
            object["apiVersion"] = self.row.gvk(self.served).api_version().into();
        }
        object
    }

    /// One item of a list. Those of Go's typed lists say no kind, for the list does; those of custom resources do.
    fn put_item(&self, object: &Object, out: &mut BytesMut) {
        if self.shape != Shape::Object || self.row.strategy.custom().is_some() {
            return out.put_slice(&self.shown(object));
        }
        if self.is_stored()
            && let Some(rest) = object.json_slice().strip_prefix(self.head.as_bytes())
        {
            out.put_u8(b'{');
            return out.put_slice(rest);
        }
        let mut value = self.converted(object.json_slice());
        if let Some(map) = value.as_object_mut() {
            map.retain(|name, _| name != "kind" && name != "apiVersion");
        }
        out.put_slice(value.to_string().as_bytes());
    }

    /// One object without an envelope.
    fn shown(&self, object: &Object) -> Bytes {
        if self.is_stored() {
            return object.json();
        }
        let value = self.converted(object.json_slice());
        match self.shape {
            Shape::Object => value.to_string().into(),
            Shape::Partial | Shape::Partials => partial(&value, self.meta).to_string().into(),
            Shape::Table => {
                table::row(self.printing(), &value, self.include_object, self.meta, self.now).to_string().into()
            }
        }
    }

    /// A whole answer with one object.
    fn document(&self, json: &Bytes) -> Bytes {
        if self.is_stored() {
            return json.clone();
        }
        let value = self.converted(json);
        match self.shape {
            Shape::Object => value.to_string().into(),
            Shape::Partial | Shape::Partials => partial(&value, self.meta).to_string().into(),
            Shape::Table => {
                let printing = self.printing();
                let revision = coracle_api::meta::resource_version(&value).to_owned();
                table::document(
                    printing,
                    &revision,
                    vec![table::row(printing, &value, self.include_object, self.meta, self.now)],
                    true,
                    self.meta,
                )
                .to_string()
                .into()
            }
        }
    }
}

impl Form {
    /// The message of an object, without its envelope.
    fn message(&self, object: &Object) -> Bytes {
        let encode = |value: &Value| protobuf::message(value).map(Bytes::from).unwrap_or_default();
        if self.is_stored() {
            return object.encoded(encode);
        }
        let value = self.converted(object.json_slice());
        let is_partial = matches!(self.shape, Shape::Partial | Shape::Partials);
        encode(&if is_partial { partial(&value, self.meta) } else { value })
    }

    /// The version and kind that objects are shown in.
    fn shown_kind(&self) -> (String, String) {
        let gvk = self.row.gvk(self.served);
        match self.shape {
            Shape::Partial | Shape::Partials => {
                (self.meta.api_version().to_owned(), "PartialObjectMetadata".to_owned())
            }
            _ => (gvk.api_version(), gvk.kind.to_string()),
        }
    }

    /// An object with its envelope.
    fn enveloped(&self, object: &Object) -> Vec<u8> {
        let (api_version, kind) = self.shown_kind();
        protobuf::envelope(&api_version, &kind, &self.message(object))
    }

    fn json_object(&self, object: &Object) -> Bytes {
        if self.shape != Shape::Table {
            return self.shown(object);
        }
        let printing = self.printing();
        let value = self.converted(object.json_slice());
        let row = table::row(printing, &value, self.include_object, self.meta, self.now);
        let columns = !self.columns_sent.swap(true, Ordering::Relaxed);
        table::document(printing, &object.revision.to_string(), vec![row], columns, self.meta).to_string().into()
    }

    fn json_bookmark(&self, revision: Revision, initial_end: bool) -> Bytes {
        let (api_version, kind) = self.shown_kind();
        if self.shape != Shape::Table {
            return bookmark_object(&kind, &api_version, revision, initial_end);
        }
        let object = bookmark_object("PartialObjectMetadata", self.meta.api_version(), revision, initial_end);
        let object: Value = serde_json::from_slice(&object).unwrap_or(Value::Null);
        let rows = vec![json!({"cells": [], "object": object})];
        table::document(self.printing(), &revision.to_string(), rows, false, self.meta).to_string().into()
    }
}

/// A frame that holds a document.
fn protobuf_frame(change: &str, document: &[u8]) -> Bytes {
    let document: Value = serde_json::from_slice(document).unwrap_or(Value::Null);
    protobuf::frame(change, &protobuf::encode(&document).unwrap_or_default()).into()
}

impl FrameEncoder for Form {
    fn object(&self, change: Change, object: &Object, out: &mut BytesMut) {
        if self.protobuf {
            out.put_slice(&protobuf::frame(change.name(), &self.enveloped(object)));
        } else {
            json_frame(out, change.name(), &self.json_object(object));
        }
    }

    fn bookmark(&self, revision: Revision, initial_end: bool) -> Bytes {
        let object = self.json_bookmark(revision, initial_end);
        if self.protobuf {
            return protobuf_frame("BOOKMARK", &object);
        }
        let mut out = BytesMut::with_capacity(object.len() + 40);
        json_frame(&mut out, "BOOKMARK", &object);
        out.freeze()
    }

    fn error(&self, status: &Status) -> Bytes {
        if self.protobuf { protobuf_frame("ERROR", &status.to_json()) } else { error_frame(status) }
    }
}

/// The encoder of a watch, when its frames are not the stored ones.
pub fn frame_encoder(call: &Call) -> Result<Option<Arc<dyn FrameEncoder>>, Status> {
    let form = Form::of(call)?;
    Ok(if form.is_stored() && !form.protobuf { None } else { Some(Arc::new(form)) })
}

/// Metadata alone.
pub(super) fn partial(object: &Value, meta: Meta) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": meta.api_version(), "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({}))})
}

/// An answer of one document that is JSON so far.
fn respond(accept: &Accept, code: StatusCode, json: Bytes) -> Response {
    let body = match accept.format {
        Format::Json if accept.pretty => Layout::default().piece(&json),
        Format::Json => json,
        Format::Yaml => yaml(&json),
        Format::Protobuf => {
            let document: Value = serde_json::from_slice(&json).unwrap_or(Value::Null);
            match protobuf::encode(&document) {
                Some(encoded) => encoded.into(),
                // What has no protobuf form is JSON, and says so.
                None => return finished(&Accept::default(), code, Body::from(json)),
            }
        }
    };
    finished(accept, code, Body::from(body))
}

fn finished(accept: &Accept, code: StatusCode, body: Body) -> Response {
    let mut response = http::Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, accept.content_type());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Answers with an object of the cache.
pub fn cached(call: &Call, object: &Object) -> Result<Response, Status> {
    let form = Form::of(call)?;
    form.check_shape(false)?;
    if form.protobuf {
        return Ok(finished(&call.accept, StatusCode::OK, Body::from(form.enveloped(object))));
    }
    Ok(respond(&call.accept, StatusCode::OK, form.document(&object.json())))
}

/// A document of JSON in YAML.
pub fn yaml(json: &Bytes) -> Bytes {
    let value: Value = serde_json::from_slice(json).unwrap_or(Value::Null);
    serde_saphyr::to_string(&value).map(Bytes::from).unwrap_or_else(|_| json.clone())
}

/// Answers with one object in its stored encoding.
pub fn object(call: &Call, code: StatusCode, json: Bytes) -> Result<Response, Status> {
    let form = Form::of(call)?;
    form.check_shape(false)?;
    Ok(respond(&call.accept, code, form.document(&json)))
}

/// Answers with a document that is no stored object: a Scale.
pub fn value(call: &Call, code: StatusCode, gvk: &Gvk, value: &Value) -> Result<Response, Status> {
    let document = match call.accept.shape {
        Shape::Object => value.clone(),
        Shape::Partial | Shape::Partials => partial(value, call.accept.meta),
        Shape::Table => {
            let include = table::Include::parse(call.options.include_object.as_deref())?;
            let printing = Printing::Builtin(printing::of(gvk));
            let row = table::row(printing, value, include, call.accept.meta, call.server.config.clock.now());
            table::document(printing, coracle_api::meta::resource_version(value), vec![row], true, call.accept.meta)
        }
    };
    Ok(respond(&call.accept, code, document.to_string().into()))
}

/// Answers with a plain document.
pub fn plain(accept: &Accept, code: StatusCode, value: &Value) -> Response {
    respond(accept, code, value.to_string().into())
}

/// Answers with what is in its envelope already.
pub fn encoded(code: StatusCode, body: Vec<u8>) -> Response {
    finished(&Accept { format: Format::Protobuf, ..Accept::default() }, code, Body::from(body))
}

/// Answers with a document that people read, whoever asks (apiserver `responsewriters.WriteRawJSON`).
pub fn raw(value: &Value) -> Response {
    let accept = Accept { pretty: true, ..Accept::default() };
    respond(&accept, StatusCode::OK, value.to_string().into())
}

/// What Go's server says of text: also of what says nothing of itself, and is JSON.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Answers with a line of text (Go's `http.Error`). Clients make a status of it.
fn page(code: StatusCode, text: &'static str) -> Response {
    let mut response = http::Response::new(Body::from(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, TEXT);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Answers that there is nothing at a path (Go's `http.NotFound`).
pub fn no_page() -> Response {
    page(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Answers that serving a request failed in a way that nobody thought of (apiserver `server/filters/wrap.go`).
pub fn panicked() -> Response {
    let text = "This request caused apiserver to panic. Look in the logs for details.\n";
    page(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// Answers that there is no seat for a request (apiserver `server/filters/maxinflight.go`, tooManyRequests).
pub fn too_many(refusal: TooMany) -> Response {
    let mut response = page(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(refusal.retry_after.as_secs()));
    response.extensions_mut().insert(GivenUp::TooMany);
    response
}

/// Answers that a request was not done in its time. Whoever gives it up knows nothing of what the client takes, nor of types: it
/// is JSON without a kind, and says that it is text (apiserver `server/filters/timeout.go`).
pub fn late(status: &Status) -> Response {
    let mut document: Value = serde_json::from_slice(&status.to_json()).unwrap_or(Value::Null);
    if let Some(map) = document.as_object_mut() {
        map.retain(|name, _| name != "kind" && name != "apiVersion");
    }
    let mut response = http::Response::new(Body::from(format!("{document}\n")));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    response.extensions_mut().insert(GivenUp::Late);
    response
}

/// Of an answer: the server gave the request up, in self-defence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    TooMany,
    /// What would have stood in its headers is not told either.
    Late,
}

impl GivenUp {
    /// Whether an answer is of that sort.
    pub fn of(response: &Response) -> Option<Self> {
        response.extensions().get().copied()
    }
}

/// Answers with a status.
pub fn status(accept: &Accept, status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(accept, code, status.to_json().into());
    if let Some(seconds) = status.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A Status that says that something was made.
pub fn created(accept: &Accept) -> Response {
    status(accept, &Status { code: StatusCode::CREATED.as_u16(), ..Status::success() })
}

/// Adds `Warning` headers (RFC 7234; code 299, agent `-`).
pub fn warn(response: &mut Response, warnings: &Warnings) {
    for warning in warnings.shown() {
        let escaped = warning.replace('\\', "\\\\").replace('"', "\\\"");
        // Also with letters that are not ASCII, as they are.
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// What stands in a list's metadata.
#[derive(Clone, Debug)]
pub struct ListMeta {
    pub revision: Revision,
    pub next: Option<String>,
    pub remaining: Option<usize>,
}

impl ListMeta {
    fn json(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = &self.next {
            meta["continue"] = next.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = remaining.into();
        }
        meta
    }
}

/// A list while it is written.
struct Writing {
    form: Form,
    snapshot: Snapshot,
    selection: Selection,
    prefix: String,
    from: String,
    left: usize,
    /// What stands before the items, until it is written.
    opening: Option<String>,
    any: bool,
    done: bool,
}

impl Writing {
    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = BytesMut::with_capacity(PIECE / 4);
        if let Some(opening) = self.opening.take() {
            out.put_slice(opening.as_bytes());
        }
        let mut last = None;
        let mut ended = true;
        for object in self.snapshot.range(&self.prefix, &self.from) {
            if self.left == 0 {
                break;
            }
            if out.len() >= PIECE {
                ended = false;
                break;
            }
            last = Some(object.key.clone());
            if !self.selection.matches(object) {
                continue;
            }
            self.left -= 1;
            if std::mem::replace(&mut self.any, true) {
                out.put_u8(b',');
            }
            self.form.put_item(object, &mut out);
        }
        if ended {
            self.done = true;
            out.put_slice(b"]}\n");
        } else if let Some(key) = last {
            self.from = format!("{key}\0");
        }
        Some(out.freeze())
    }
}

/// Rows in the order of the numbers in a column.
fn sorted_rows<'a>(form: &Form, column: usize, objects: impl Iterator<Item = &'a Arc<Object>>) -> Vec<Value> {
    let row = |object: &Arc<Object>| {
        let value = form.converted(object.json_slice());
        table::row(form.printing(), &value, form.include_object, form.meta, form.now)
    };
    let mut rows: Vec<Value> = objects.map(row).collect();
    // Stable, and the objects come by their names.
    rows.sort_by_key(|row| row["cells"][column].as_i64());
    rows
}

/// Answers with the objects of a snapshot that are selected, from a key on.
pub fn list(
    call: &Call,
    snapshot: Snapshot,
    selection: Selection,
    prefix: String,
    from: String,
    limit: usize,
    meta: ListMeta,
) -> Result<Response, Status> {
    let form = Form::of(call)?;
    form.check_shape(true)?;
    let gvk = form.row.gvk(form.served);
    let mut meta = meta.json();
    // Lists of custom resources are written as they are, which is with a place to go on from.
    if form.row.strategy.custom().is_some() && form.shape == Shape::Object && meta.get("continue").is_none() {
        meta["continue"] = "".into();
    }
    let api_version = form.meta.api_version();
    if form.protobuf {
        return Ok(protobuf_list(call, &form, &snapshot, &selection, (&prefix, &from), limit, &meta));
    }
    if let (Shape::Table, Some(column)) = (form.shape, printing::sorted_by(&gvk)) {
        let selected = snapshot.range(&prefix, &from).filter(|object| selection.matches(object)).take(limit);
        let rows = sorted_rows(&form, column, selected);
        let columns = form.printing().columns();
        let table = json!({"kind": "Table", "apiVersion": api_version, "metadata": meta, "columnDefinitions": columns, "rows": rows});
        return Ok(respond(&call.accept, StatusCode::OK, format!("{table}\n").into()));
    }
    let opening = match form.shape {
        Shape::Object => format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
            gvk.kind,
            gvk.api_version()
        ),
        Shape::Partial | Shape::Partials => {
            format!(
                "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"items\":["
            )
        }
        Shape::Table => {
            let columns = form.printing().columns();
            format!(
                "{{\"kind\":\"Table\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"columnDefinitions\":{columns},\"rows\":["
            )
        }
    };
    let mut writing = Writing {
        form,
        snapshot,
        selection,
        prefix,
        from,
        left: limit,
        opening: Some(opening),
        any: false,
        done: false,
    };
    let first = writing.next().unwrap_or_default();
    if writing.done {
        return Ok(respond(&call.accept, StatusCode::OK, first));
    }
    if call.accept.format == Format::Yaml {
        let mut all = BytesMut::from(&first[..]);
        while let Some(piece) = writing.next() {
            all.put_slice(&piece);
        }
        return Ok(respond(&call.accept, StatusCode::OK, all.freeze()));
    }
    if call.accept.pretty {
        let mut layout = Layout::default();
        let first = layout.piece(&first);
        return Ok(streamed(call, first, move || writing.next().map(|piece| layout.piece(&piece))));
    }
    Ok(streamed(call, first, move || writing.next()))
}

/// An answer that comes in pieces.
fn streamed(call: &Call, first: Bytes, rest: impl FnMut() -> Option<Bytes> + Send + 'static) -> Response {
    let body = if call.gzip { compressed(first, rest) } else { pieces(first, rest) };
    let mut response = finished(&call.accept, StatusCode::OK, body);
    if call.gzip {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// A list in protobuf: its length stands in front, so all items are there before the first byte is sent. They are the
/// cache's own.
fn protobuf_list(
    call: &Call,
    form: &Form,
    snapshot: &Snapshot,
    selection: &Selection,
    (prefix, from): (&str, &str),
    limit: usize,
    meta: &Value,
) -> Response {
    let selected = snapshot.range(prefix, from).filter(|object| selection.matches(object)).take(limit);
    let items: Vec<Bytes> = selected.map(|object| form.message(object)).collect();
    let meta = protobuf::list_meta(meta);
    let mut head = Vec::new();
    protobuf::length_of(&mut head, 1, meta.len());
    head.extend_from_slice(&meta);
    let key = |item: &Bytes| {
        let mut key = Vec::with_capacity(6);
        protobuf::length_of(&mut key, 2, item.len());
        key
    };
    let length = head.len() + items.iter().map(|item| key(item).len() + item.len()).sum::<usize>();
    let (api_version, kind) = form.shown_kind();
    let mut first = BytesMut::from(&protobuf::envelope_head(&api_version, &format!("{kind}List"), length)[..]);
    first.put_slice(&head);
    let mut items = items.into_iter();
    let mut next = move |mut out: BytesMut| {
        for item in items.by_ref() {
            out.put_slice(&key(&item));
            out.put_slice(&item);
            if out.len() >= PIECE {
                break;
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    };
    let first = next(first).unwrap_or_default();
    if first.len() < PIECE {
        return finished(&call.accept, StatusCode::OK, Body::from(first));
    }
    streamed(call, first, move || next(BytesMut::new()))
}

fn pieces(first: Bytes, rest: impl FnMut() -> Option<Bytes> + Send + 'static) -> Body {
    Body::from_stream(futures::stream::unfold((Some(first), rest), |(first, mut rest)| async move {
        let piece = first.or_else(&mut rest)?;
        Some((Ok::<_, Infallible>(piece), (None, rest)))
    }))
}

fn compressed(first: Bytes, rest: impl FnMut() -> Option<Bytes> + Send + 'static) -> Body {
    // Level 1, as upstream: most of the gain for the least of the work.
    let encoder = GzEncoder::new(Vec::with_capacity(PIECE), Compression::fast());
    let state = (Some(encoder), Some(first), rest);
    Body::from_stream(futures::stream::unfold(state, |(encoder, mut first, mut rest)| async move {
        let mut encoder = encoder?;
        loop {
            match first.take().or_else(&mut rest) {
                // Writing to a Vec does not fail.
                Some(piece) => drop(encoder.write_all(&piece)),
                None => {
                    let last = encoder.finish().unwrap_or_default();
                    return Some((Ok::<_, Infallible>(Bytes::from(last)), (None, None, rest)));
                }
            }
            if encoder.get_ref().len() >= PIECE / 8 {
                let piece = std::mem::take(encoder.get_mut());
                return Some((Ok(Bytes::from(piece)), (Some(encoder), None, rest)));
            }
        }
    }))
}
