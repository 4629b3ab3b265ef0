//! One watch of one client: it pulls from the history, so it costs the writer nothing.

use super::object::{CLOSING, Change, Object};
use super::resource::{CacheEvent, ResourceCache, Snapshot};
use super::watchers::{Interest, Watchers};
use super::{Cacher, Selection};
use crate::http::metrics::Sizes;
use crate::store::Revision;
use bytes::{BufMut, Bytes, BytesMut};
use coracle_api::Status;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// Events taken from the history at a time.
const PULL: usize = 512;

/// Frames are joined into one write up to this many bytes.
const WRITE: usize = 64 << 10;

/// How often a watch that asked for bookmarks gets one (upstream: about once a minute).
const BOOKMARK_EVERY: Duration = Duration::from_secs(57);

/// Makes the frames of a watch that does not want the objects as they are stored: tables, metadata only, another version,
/// another encoding.
pub trait FrameEncoder: Send + Sync + 'static {
    /// The frame of an object.
    fn object(&self, change: Change, object: &Object, out: &mut BytesMut);
    /// The frame of a bookmark.
    fn bookmark(&self, revision: Revision, initial_end: bool) -> Bytes;
    /// The frame that tells a watcher why its watch ends.
    fn error(&self, status: &Status) -> Bytes {
        error_frame(status)
    }
}

/// A frame of JSON.
pub fn json_frame(out: &mut BytesMut, change: &str, object: &[u8]) {
    out.put_slice(b"{\"type\":\"");
    out.put_slice(change.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(CLOSING);
}

/// How a watch begins and what it wants.
pub struct WatchStart {
    pub selection: Selection,
    /// Events after this revision.
    pub after: Revision,
    /// The state to begin with as ADDED events, when it was asked for.
    pub initial: Option<Arc<Snapshot>>,
    /// Whether the end of the initial state is marked by a bookmark.
    pub mark_initial_end: bool,
    pub bookmarks: bool,
    pub timeout: Duration,
    /// Absent when the stored encoding is what the client wants.
    pub encoder: Option<Arc<dyn FrameEncoder>>,
    /// Where the sizes of what is sent go.
    pub events: Sizes,
    /// Let go of when the state to begin with has been sent, or has not for a while.
    pub begins: Option<Box<dyn Send>>,
    pub stop: CancellationToken,
}

/// A running watch. Call [`next`](Watcher::next) until it gives None.
pub struct Watcher {
    cacher: Arc<Cacher>,
    cache: Arc<ResourceCache>,
    signal: watch::Receiver<Revision>,
    selection: Selection,
    position: Revision,
    initial: Option<Initial>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    encoder: Option<Arc<dyn FrameEncoder>>,
    events: Sizes,
    _counted: Interest,
    /// These three wait across events: registering them anew for each would cost more than the event.
    alarm: Pin<Box<Sleep>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

/// The part of the initial state that is still to be sent.
struct Initial {
    snapshot: Arc<Snapshot>,
    from: String,
    mark_end: bool,
    _begins: Option<DropGuard>,
}

/// How long a client that does not read keeps others out.
const BEGINS_WITHIN: Duration = Duration::from_secs(60);

/// Lets go when the guard is dropped, or after a while.
fn hold(held: Box<dyn Send>) -> DropGuard {
    let done = CancellationToken::new();
    let guard = done.clone().drop_guard();
    tokio::spawn(async move {
        // Either way it is over.
        let _ = tokio::time::timeout(BEGINS_WITHIN, done.cancelled()).await;
        drop(held);
    });
    guard
}

impl Watcher {
    pub fn new(cacher: Arc<Cacher>, cache: Arc<ResourceCache>, start: WatchStart) -> Self {
        let now = Instant::now();
        let mark_end = start.mark_initial_end;
        Self {
            signal: cache.subscribe(),
            _counted: Watchers::count(cache.watchers(), start.selection.interest()),
            alarm: Box::pin(tokio::time::sleep_until(now + start.timeout)),
            stopped: Box::pin(start.stop.cancelled_owned()),
            gone: Box::pin(cache.ended()),
            cacher,
            cache,
            selection: start.selection,
            position: start.after,
            initial: start.initial.map(|snapshot| {
                let begins = start.begins.map(hold);
                Initial { snapshot, from: String::new(), mark_end, _begins: begins }
            }),
            bookmarks: start.bookmarks,
            next_bookmark: now + BOOKMARK_EVERY,
            deadline: now + start.timeout,
            encoder: start.encoder,
            events: start.events,
            ended: false,
        }
    }

    /// The next bytes to write: one or more whole frames. None when the watch is over.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if self.initial.is_some()
            && let Some(bytes) = self.initial_frames()
        {
            return Some(bytes);
        }
        loop {
            // Before the history is read: everything up to here is in it by now.
            let progress = self.cacher.progress();
            self.signal.borrow_and_update();
            match self.cache.since(self.position, PULL) {
                Err(gap) => return Some(self.expired(gap.oldest)),
                Ok(events) if events.is_empty() => self.position = self.position.max(progress),
                Ok(events) => {
                    if let Some(bytes) = self.frames(&events) {
                        return Some(bytes);
                    }
                    continue;
                }
            }
            let bookmark_at = if self.bookmarks { self.next_bookmark } else { self.deadline };
            let alarm_at = self.deadline.min(bookmark_at);
            if self.alarm.deadline() != alarm_at {
                self.alarm.as_mut().reset(alarm_at);
            }
            tokio::select! {
                biased;
                () = self.stopped.as_mut() => return self.over(),
                () = self.gone.as_mut() => return self.over(),
                changed = self.signal.changed() => if changed.is_err() { return self.over() },
                () = self.alarm.as_mut() => {
                    let now = Instant::now();
                    if now >= self.deadline {
                        self.ended = true;
                        return self.bookmarks.then(|| self.bookmark(false));
                    }
                    self.next_bookmark = now + BOOKMARK_EVERY;
                    // The position may have moved on while nothing of this resource changed.
                    let progress = self.cacher.progress();
                    if matches!(self.cache.since(self.position, 1), Ok(events) if events.is_empty()) {
                        self.position = self.position.max(progress);
                        return Some(self.bookmark(false));
                    }
                }
            }
        }
    }

    fn over(&mut self) -> Option<Bytes> {
        self.ended = true;
        None
    }

    /// The next piece of the initial state.
    fn initial_frames(&mut self) -> Option<Bytes> {
        let initial = self.initial.as_mut()?;
        let prefix = self.selection.prefix();
        let mut out = BytesMut::new();
        let mut last = None;
        for object in initial.snapshot.range(&prefix, &initial.from) {
            if out.len() >= WRITE {
                break;
            }
            last = Some(object.key.clone());
            if self.selection.matches(object) {
                self.events.observe(put_frame(&mut out, Change::Added, object, self.encoder.as_deref()));
            }
        }
        match last {
            Some(key) if !out.is_empty() => {
                initial.from = format!("{key}\0");
                Some(out.freeze())
            }
            _ => {
                let mark_end = initial.mark_end;
                self.initial = None;
                mark_end.then(|| self.bookmark(true))
            }
        }
    }

    /// The frames of these events that concern the watch, and moves on behind them.
    fn frames(&mut self, events: &[Arc<CacheEvent>]) -> Option<Bytes> {
        let (mut seen, mut bytes): (Vec<(Change, Arc<Object>)>, usize) = (Vec::new(), 0);
        let (mut passed, mut alike) = (0, true);
        for event in events {
            if bytes >= WRITE && events[passed - 1].revision != event.revision {
                break;
            }
            passed += 1;
            self.position = event.revision;
            let Some((change, object)) = self.seen(event) else { continue };
            alike &= change == event.change && Arc::ptr_eq(&object, event.object());
            bytes += object.size();
            seen.push((change, object));
        }
        let encoder = self.encoder.as_deref();
        let join = || {
            let mut out = BytesMut::with_capacity(if encoder.is_none() { bytes } else { 0 });
            for (change, object) in &seen {
                let size = put_frame(&mut out, *change, object, encoder);
                // The others are shared, and counted for each watcher.
                if encoder.is_some() {
                    self.events.observe(size);
                }
            }
            out.freeze()
        };
        if encoder.is_none() {
            seen.iter().for_each(|(_, object)| self.events.observe(object.json_slice().len()));
        }
        match (seen.as_slice(), encoder) {
            ([], _) => None,
            // An unchanged frame is written without a copy.
            ([(change, object)], None) if object.frame(*change).0.is_empty() => Some(object.frame(*change).1),
            (all, None) if alike && all.len() == passed => {
                Some(self.cache.joined(events[0].revision, self.position, join))
            }
            _ => Some(join()).filter(|bytes| !bytes.is_empty()),
        }
    }

    /// What a watcher of this selection sees of an event: an object that comes to match is added, one that no longer
    /// does is deleted (apiserver `storage/cacher`).
    fn seen(&self, event: &CacheEvent) -> Option<(Change, Arc<Object>)> {
        if self.selection.is_everything() {
            return Some((event.change, event.object().clone()));
        }
        let before = event.previous.as_ref().is_some_and(|object| self.selection.matches(object));
        let after = event.change != Change::Deleted && self.selection.matches(event.object());
        match (before, after) {
            (false, false) => None,
            (false, true) => Some((Change::Added, event.object().clone())),
            (true, true) => Some((Change::Modified, event.object().clone())),
            (true, false) => Some((Change::Deleted, event.gone().clone())),
        }
    }

    fn bookmark(&self, initial_end: bool) -> Bytes {
        let frame = self.bookmark_frame(initial_end);
        self.events.observe(frame.len());
        frame
    }

    fn bookmark_frame(&self, initial_end: bool) -> Bytes {
        match &self.encoder {
            Some(encoder) => encoder.bookmark(self.position, initial_end),
            None => {
                let row = &self.cache.row;
                let object = bookmark_object(&row.kind, &row.stored_api_version(), self.position, initial_end);
                let mut out = BytesMut::with_capacity(object.len() + 40);
                json_frame(&mut out, "BOOKMARK", &object);
                out.freeze()
            }
        }
    }

    /// The last frame of a watch that fell behind the history.
    fn expired(&mut self, oldest: Revision) -> Bytes {
        self.ended = true;
        let status = Status::expired(format!("too old resource version: {} ({oldest})", self.position));
        self.encoder.as_ref().map_or_else(|| error_frame(&status), |encoder| encoder.error(&status))
    }
}

/// The frame that tells a watcher why its watch ends.
pub fn error_frame(status: &Status) -> Bytes {
    let mut out = BytesMut::new();
    json_frame(&mut out, "ERROR", &status.to_json());
    out.freeze()
}

/// A bookmark's object: kind and revision only.
pub fn bookmark_object(kind: &str, api_version: &str, revision: Revision, initial_end: bool) -> Bytes {
    let mut metadata = coracle_api::json::json!({"resourceVersion": revision.to_string()});
    if initial_end {
        metadata["annotations"] = coracle_api::json::json!({"k8s.io/initial-events-end": "true"});
    }
    let object = coracle_api::json::json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
    object.to_string().into()
}

/// Gives the size of the object in the frame, or a little more where it is not as it is stored.
fn put_frame(out: &mut BytesMut, change: Change, object: &Object, encoder: Option<&dyn FrameEncoder>) -> usize {
    let before = out.len();
    match encoder {
        None => {
            let (opening, rest) = object.frame(change);
            out.reserve(opening.len() + rest.len());
            out.put_slice(opening);
            out.put_slice(&rest);
        }
        Some(encoder) => encoder.object(change, object, out),
    }
    (out.len() - before).saturating_sub(change.opening().len() + CLOSING.len())
}
