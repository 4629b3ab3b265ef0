//! How much the server takes on at a time, and whose turn it is: priority and fairness, as flow schemas and priority levels
//! say (apiserver `util/flowcontrol`, KEP-1040).
//!
//! ```text
//! request ─► first schema that matches ─► its level ─► free seat? ──────────────► runs
//!                 (Table, one load)                      └► a queue of its flow ─► each queue in turn ─┘
//!                                                             └► full, or the level has none: 429
//! ```
//!
//! The table is immutable and swapped as a whole when a schema or a level changes; the levels' seats and queues live on.
//! Streams (watches, logs, connections) take no seat, but there is a most of them.

mod table;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use coracle_api::Status;
use http::HeaderMap;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::{Attributes, UserInfo};
use crate::server::Server;
pub use table::Schema;
use table::Table;
use turns::{Seat, Turns};

/// What all levels share (upstream: `--max-requests-inflight` and `--max-mutating-requests-inflight` together).
pub const SEATS: usize = 600;

/// Watches and other streams, at most.
pub const STREAMS: usize = 20_000;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// How many of a kind are in flight, and how many wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub running: usize,
    pub waiting: usize,
}

/// Counts of one kind of request.
#[derive(Debug, Default)]
struct Count {
    running: AtomicUsize,
    waiting: AtomicUsize,
}

/// Counts something for as long as it is there.
#[derive(Debug)]
struct Counted(Arc<Count>, fn(&Count) -> &AtomicUsize);

impl Counted {
    fn new(count: &Arc<Count>, which: fn(&Count) -> &AtomicUsize) -> Self {
        which(count).fetch_add(1, Ordering::Relaxed);
        Self(count.clone(), which)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a request belongs.
#[derive(Clone, Debug)]
pub struct Flow {
    pub schema: Arc<Schema>,
    /// Of the schema and what it tells flows apart by.
    hash: u64,
}

impl Flow {
    /// Says in an answer which schema and level the request was of.
    pub fn mark(&self, headers: &mut HeaderMap) {
        headers.insert("x-kubernetes-pf-flowschema-uid", self.schema.uid.clone());
        headers.insert("x-kubernetes-pf-prioritylevel-uid", self.schema.level.uid.clone());
    }
}

/// What a request holds while it runs.
#[derive(Debug, Default)]
pub struct Permit {
    _seat: Option<Seat>,
    _stream: Option<OwnedSemaphorePermit>,
    _counted: Option<Counted>,
}

/// The server's limits.
#[derive(Debug)]
pub struct Limits {
    table: ArcSwap<Table>,
    reads: Arc<Count>,
    writes: Arc<Count>,
    streams: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        let table = Table::compile(&[], &[], &BTreeMap::new(), SEATS);
        Self {
            table: ArcSwap::from_pointee(table),
            reads: Arc::default(),
            writes: Arc::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }
}

impl Limits {
    /// Where a request belongs.
    pub fn classify(&self, user: &UserInfo, request: &Attributes) -> Flow {
        let table = self.table.load();
        let (schema, hash) = table.find(user, request);
        Flow { schema: schema.clone(), hash }
    }

    /// A seat at the request's level, at once or after those before it.
    ///
    /// # Errors
    /// 429 when too many wait, or this one waited too long.
    pub async fn seat(&self, flow: &Flow, writes: bool) -> Result<Permit, Status> {
        let count = if writes { &self.writes } else { &self.reads };
        let seat = match &flow.schema.level.turns {
            None => None,
            Some(turns) => match turns.take_now(flow.hash, flow.schema.is_distinguished()) {
                Ok(seat) => Some(seat),
                Err(full) => {
                    let _waiting = Counted::new(count, |count| &count.waiting);
                    Some(turns.wait(full).await.ok_or_else(too_many)?)
                }
            },
        };
        let counted = Some(Counted::new(count, |count| &count.running));
        Ok(Permit { _seat: seat, _stream: None, _counted: counted })
    }

    /// A place for a stream that lasts.
    ///
    /// # Errors
    /// 429 when there are too many.
    pub fn stream(&self) -> Result<Permit, Status> {
        let stream = self.streams.clone().try_acquire_owned().map_err(|_| too_many())?;
        Ok(Permit { _stream: Some(stream), ..Permit::default() })
    }

    /// Reads and writes.
    pub fn load(&self) -> [(&'static str, Load); 2] {
        let of = |count: &Count| Load {
            running: count.running.load(Ordering::Relaxed),
            waiting: count.waiting.load(Ordering::Relaxed),
        };
        [("readOnly", of(&self.reads)), ("mutating", of(&self.writes))]
    }

    /// Goes by these schemas and levels from now on.
    fn configure(&self, schemas: &[Value], levels: &[Value]) {
        let known: BTreeMap<String, Arc<Turns>> = self.table.load().turns();
        self.table.store(Arc::new(Table::compile(schemas, levels, &known, SEATS)));
    }
}

fn too_many() -> Status {
    Status::too_many_requests("Too many requests, please try again later.", 1)
}

/// Takes the schemas and levels that there are now.
///
/// # Errors
/// When the server does not keep them.
pub fn configure(server: &Server) -> Result<(), Status> {
    let all = |plural: &str| -> Result<Vec<Value>, Status> {
        let snapshot = server.cache_of(GROUP, plural)?.snapshot();
        Ok(snapshot.objects.values().map(|object| object.parse()).collect())
    };
    server.limits.configure(&all("flowschemas")?, &all("prioritylevelconfigurations")?);
    Ok(())
}

/// Follows the schemas and levels until the server stops.
pub async fn follow(server: Arc<Server>) {
    let caches = server.cache_of(GROUP, "flowschemas").and_then(|schemas| {
        Ok((schemas.subscribe(), server.cache_of(GROUP, "prioritylevelconfigurations")?.subscribe()))
    });
    let Ok((mut schemas, mut levels)) = caches else { return };
    loop {
        schemas.borrow_and_update();
        levels.borrow_and_update();
        if let Err(status) = configure(&server) {
            tracing::warn!(%status, "priority and fairness");
        }
        tokio::select! {
            () = server.stop.cancelled() => return,
            changed = schemas.changed() => if changed.is_err() { return },
            changed = levels.changed() => if changed.is_err() { return },
        }
    }
}
