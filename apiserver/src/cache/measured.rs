//! What the server asks of its store, counted by resource, as upstream's client of etcd does (apiserver
//! `storage/etcd3/metrics`), whichever store it is.

use super::PREFIX;
use crate::http::metrics::BUCKETS;
use crate::registry::Rows;
use crate::store::{Batches, Op, Outcome, Page, Pieces, Range, Record, Revision, Store, StoreError, Txn, Watch};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: &'static str,
    group: String,
    resource: String,
}

/// The figures of all resources.
#[derive(Clone, Debug)]
pub struct Meters {
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    requests: Family<Labels, Counter>,
    errors: Family<Labels, Counter>,
}

impl Default for Meters {
    fn default() -> Self {
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        Self { durations, requests: Family::default(), errors: Family::default() }
    }
}

impl Meters {
    /// Adds the figures to what is told.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("etcd_request_duration_seconds", "Time that the store took", self.durations.clone());
        registry.register("etcd_requests", "Requests of the store", self.requests.clone());
        registry.register("etcd_request_errors", "Requests of the store that failed", self.errors.clone());
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Get,
    List,
    Create,
    Update,
    Delete,
}

impl Operation {
    const ALL: [&'static str; 5] = ["get", "list", "create", "update", "delete"];

    /// The first of a transaction's writes is the object that it is about.
    fn of(txn: &Txn, ops: &[Op]) -> Option<(Self, Arc<str>)> {
        let op = ops.first()?;
        let is_new = || txn.compare.iter().any(|compare| compare.key == *op.key() && compare.modified == 0);
        let operation = match op {
            Op::Delete { .. } => Self::Delete,
            Op::Put { .. } if is_new() => Self::Create,
            Op::Put { .. } => Self::Update,
        };
        Some((operation, op.key().clone()))
    }
}

/// The figures of one resource, each made when it is first needed.
#[derive(Debug)]
struct Resource {
    group: String,
    resource: String,
    meters: Meters,
    operations: [OnceLock<(Histogram, Counter)>; Operation::ALL.len()],
}

impl Resource {
    fn labels(&self, operation: Operation) -> Labels {
        let (group, resource) = (self.group.clone(), self.resource.clone());
        Labels { operation: Operation::ALL[operation as usize], group, resource }
    }

    fn count<T>(&self, operation: Operation, since: Instant, answer: &Result<T, StoreError>) {
        let (duration, requests) = self.operations[operation as usize].get_or_init(|| {
            let labels = self.labels(operation);
            let duration = self.meters.durations.get_or_create(&labels).clone();
            (duration, self.meters.requests.get_or_create(&labels).clone())
        });
        duration.observe(since.elapsed().as_secs_f64());
        requests.inc();
        if answer.is_err() {
            self.meters.errors.get_or_create(&self.labels(operation)).inc();
        }
    }
}

/// A store that is counted.
pub struct Measured {
    store: Arc<dyn Store>,
    meters: Meters,
    /// By what their keys begin with.
    resources: RwLock<HashMap<String, Arc<Resource>>>,
}

impl Measured {
    /// `rows`: what there is from the start; what is added at run time is known by the dot in its group.
    pub fn new(store: Arc<dyn Store>, meters: Meters, rows: &Rows) -> Self {
        let measured = Self { store, meters, resources: RwLock::default() };
        for row in rows.rows().filter(|row| row.is_stored()) {
            measured.add(&row.storage, &row.served[0].0, &row.plural);
        }
        measured
    }

    fn add(&self, storage: &str, group: &str, resource: &str) -> Arc<Resource> {
        let (group, resource) = (group.to_owned(), resource.to_owned());
        let meters = self.meters.clone();
        let made = Resource { group, resource, meters, operations: Default::default() };
        self.resources.write().entry(storage.to_owned()).or_insert(Arc::new(made)).clone()
    }

    /// The resource that a key is of: `pods/…`, `apps/deployments/…`.
    fn resource(&self, key: &str) -> Option<Arc<Resource>> {
        let path = key.strip_prefix(PREFIX)?;
        let one = path.find('/')?;
        let (first, rest) = (&path[..one], &path[one + 1..]);
        let second = rest.split('/').next().unwrap_or_default();
        let both = &path[..one + 1 + second.len()];
        let known = {
            let resources = self.resources.read();
            resources.get(first).or_else(|| resources.get(both)).cloned()
        };
        let is_custom = first.contains('.') && !second.is_empty();
        known.or_else(|| is_custom.then(|| self.add(both, first, second)))
    }

    async fn counted<T>(
        &self,
        operation: Operation,
        key: &str,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let since = Instant::now();
        let answer = request.await;
        if let Some(resource) = self.resource(key) {
            resource.count(operation, since, &answer);
        }
        answer
    }
}

impl Store for Measured {
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        match Operation::of(&txn, &txn.ops) {
            None => self.store.txn(txn),
            Some((operation, key)) => async move { self.counted(operation, &key, self.store.txn(txn)).await }.boxed(),
        }
    }

    fn txn_then(&self, txn: Txn, then: Vec<Op>) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        match Operation::of(&txn, &then) {
            None => self.store.txn_then(txn, then),
            Some((operation, key)) => {
                async move { self.counted(operation, &key, self.store.txn_then(txn, then)).await }.boxed()
            }
        }
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.counted(Operation::Get, key, self.store.get(key)).boxed()
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>> {
        async move {
            let prefix = range.prefix.clone();
            self.counted(Operation::List, &prefix, self.store.range(range)).await
        }
        .boxed()
    }

    fn watch(&self, watch: Watch) -> BoxFuture<'_, Result<Batches, StoreError>> {
        self.store.watch(watch)
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.store.revision()
    }

    fn revision_now(&self) -> Option<Revision> {
        self.store.revision_now()
    }

    fn announce(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.announce()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.compact(revision)
    }

    fn expire(&self) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.store.expire()
    }

    fn back_up(&self) -> Option<Result<Pieces, StoreError>> {
        self.store.back_up()
    }
}
