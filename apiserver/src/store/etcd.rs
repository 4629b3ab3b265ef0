//! The store on an etcd cluster, 3.4 or newer.
//!
//! Keys, transactions, revisions and watches are etcd's own, so `etcdctl get --prefix /registry/` shows what is there, and
//! several servers share one cluster. A time to live is a lease; leases are shared by puts that end at about the same time.
//!
//! Progress notifications of etcd before 3.4.31 and 3.5.13 can run ahead of the events they vouch for (etcd #15220,
//! #17507), so none are used: [`Store::announce`] writes a key, which the watch then delivers like any other.

use super::{
    Batch, Batches, Compare, Event, Op, Outcome, Page, Range, Record, Revision, Store, StoreError, Txn, Watch,
    check_txn,
};
use bytes::Bytes;
use etcd_client::{
    Client, CompareOp, ConnectOptions, EventType, GetOptions, GetResponse, KvClient, LeaseGrantOptions, PutOptions,
    SortOrder, SortTarget, TlsOptions, TxnOp, TxnOpResponse, WatchOptions, WatchStream,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A request that takes longer has an unknown outcome.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(5);

/// How often a request that found no connection is sent.
const ATTEMPTS: usize = 8;

/// The largest answer that is read; a page of large objects passes gRPC's default of 4 MiB.
const MAX_ANSWER: usize = 512 << 20;

/// A lease is shared for this part of its time (upstream's lease manager: 5 %), at most for a minute.
const SHARED_PART: u32 = 20;
const SHARED_AT_MOST: Duration = Duration::from_secs(60);

/// Written when a watch is to show how far it has come.
const HEARTBEAT: &str = "/registry/coracle/heartbeat";

/// Where the cluster is and how it is spoken to.
#[derive(Clone, Debug, Default)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// The authority that signed the members' certificates.
    pub ca_pem: Option<String>,
    /// Certificate and key of this client.
    pub identity: Option<(String, String)>,
}

/// A connection to the cluster.
pub struct Etcd {
    client: Client,
    leases: Mutex<HashMap<Duration, Lease>>,
}

/// A lease that later puts may share until `until`.
#[derive(Clone, Copy)]
struct Lease {
    id: i64,
    until: Instant,
}

impl Etcd {
    /// Connects to the cluster.
    ///
    /// # Errors
    /// When no endpoint answers or TLS cannot be set up.
    pub async fn connect(config: EtcdConfig) -> Result<Self, StoreError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_WITHIN)
            .with_keep_alive(KEEP_ALIVE_EVERY, KEEP_ALIVE_WITHIN)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if config.ca_pem.is_some() || config.identity.is_some() {
            let mut tls = TlsOptions::new();
            if let Some(ca) = &config.ca_pem {
                tls = tls.ca_certificate(etcd_client::Certificate::from_pem(ca));
            }
            if let Some((certificate, key)) = &config.identity {
                tls = tls.identity(etcd_client::Identity::from_pem(certificate, key));
            }
            options = options.with_tls(tls);
        }
        let client = within(|| Client::connect(&config.endpoints, Some(options.clone()))).await?;
        let etcd = Self { client, leases: Mutex::default() };
        etcd.revision().await?;
        Ok(etcd)
    }

    fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(MAX_ANSWER).max_encoding_message_size(MAX_ANSWER)
    }

    async fn read(&self, key: &str, options: GetOptions) -> Result<GetResponse, StoreError> {
        within(|| {
            let (mut kv, options) = (self.kv(), options.clone());
            async move { kv.get(key, Some(options)).await }
        })
        .await
    }

    /// A lease that ends after `ttl`, or a little later.
    async fn lease(&self, ttl: Duration) -> Result<i64, StoreError> {
        let mut leases = self.leases.lock().await;
        let now = Instant::now();
        leases.retain(|_, lease| lease.until > now);
        if let Some(lease) = leases.get(&ttl) {
            return Ok(lease.id);
        }
        let shared = (ttl / SHARED_PART).min(SHARED_AT_MOST);
        let seconds = i64::try_from((ttl + shared).as_secs().max(1)).unwrap_or(i64::MAX);
        let granted = within(|| {
            let mut client = self.client.lease_client();
            async move { client.grant(seconds, None::<LeaseGrantOptions>).await }
        })
        .await?;
        leases.insert(ttl, Lease { id: granted.id(), until: now + shared });
        Ok(granted.id())
    }

    async fn operation(&self, op: Op) -> Result<TxnOp, StoreError> {
        Ok(match op {
            Op::Put { key, value, ttl } => {
                let options = match ttl {
                    Some(ttl) => Some(PutOptions::new().with_lease(self.lease(ttl).await?)),
                    None => None,
                };
                TxnOp::put(key.as_bytes(), value.to_vec(), options)
            }
            Op::Delete { key } => TxnOp::delete(key.as_bytes(), None),
        })
    }
}

/// Sends a request and waits for the answer, but not for ever. One that found no connection is sent again: the channel
/// takes another endpoint then. One that was sent is never repeated, because it may have been done.
async fn within<T, F>(request: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, etcd_client::Error>>,
{
    let attempts = async {
        for _ in 1..ATTEMPTS {
            match request().await {
                Err(error) if was_never_sent(&error) => {}
                answer => return answer,
            }
        }
        request().await
    };
    match tokio::time::timeout(ANSWER_WITHIN, attempts).await {
        Ok(answer) => answer.map_err(refused),
        Err(_) => Err(StoreError::Unavailable("etcd did not answer in time".to_owned())),
    }
}

/// Whether there was no connection to send a request on.
fn was_never_sent(error: &etcd_client::Error) -> bool {
    let etcd_client::Error::GRpcStatus(status) = error else { return false };
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What etcd says of requests that it does not take (etcd `api/v3rpc/rpctypes`).
const REFUSALS: [&str; 5] = [
    "etcdserver: request is too large",
    "etcdserver: too many operations in txn request",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: mvcc: database space exceeded",
    "etcdserver: permission denied",
];

fn refused(error: etcd_client::Error) -> StoreError {
    if let etcd_client::Error::GRpcStatus(status) = &error {
        // etcd's own words for these two (etcd `api/v3rpc/rpctypes`); both have the code OutOfRange.
        let message = status.message();
        if message.contains("required revision has been compacted") {
            return StoreError::Compacted { asked: 0, oldest: 0 };
        }
        if message.contains("required revision is a future revision") {
            return StoreError::Future { asked: 0, current: 0 };
        }
        if REFUSALS.contains(&message) {
            return StoreError::Refused(message.to_owned());
        }
        // etcd's Go client says so before it sends; its limit is that of a member that was not told another.
        if let Some(sizes) = message.strip_prefix("grpc: received message larger than max ") {
            let why = "rpc error: code = ResourceExhausted desc = trying to send message larger than max";
            return StoreError::Refused(format!("{why} {sizes}"));
        }
    }
    StoreError::Unavailable(error.to_string())
}

/// etcd counts in signed numbers, and never below zero.
fn unsigned(revision: i64) -> Revision {
    Revision::try_from(revision).unwrap_or(0)
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn record(kv: &etcd_client::KeyValue) -> Result<Record, StoreError> {
    Ok(Record {
        key: key_of(kv)?,
        value: Bytes::copy_from_slice(kv.value()),
        created: unsigned(kv.create_revision()),
        modified: unsigned(kv.mod_revision()),
    })
}

fn key_of(kv: &etcd_client::KeyValue) -> Result<Arc<str>, StoreError> {
    let key = std::str::from_utf8(kv.key()).map_err(|_| StoreError::Damaged("a key is not UTF-8".to_owned()))?;
    Ok(key.into())
}

/// The first key that does not begin with the prefix.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // Every key there is.
    vec![0]
}

impl Store for Etcd {
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        async move {
            check_txn(&txn)?;
            let compare: Vec<_> = txn
                .compare
                .iter()
                .map(|Compare { key, modified }| {
                    etcd_client::Compare::mod_revision(key.as_bytes(), CompareOp::Equal, signed(*modified))
                })
                .collect();
            let current: Vec<_> = txn.compare.iter().map(|compare| TxnOp::get(compare.key.as_bytes(), None)).collect();
            let mut ops = Vec::with_capacity(txn.ops.len());
            for op in txn.ops {
                ops.push(self.operation(op).await?);
            }
            let request = etcd_client::Txn::new().when(compare).and_then(ops).or_else(current);
            let response = within(|| {
                let (mut kv, request) = (self.kv(), request.clone());
                async move { kv.txn(request).await }
            })
            .await?;
            if response.succeeded() {
                let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
                return Ok(Outcome::Committed(unsigned(revision)));
            }
            let mut found = Vec::new();
            for answer in response.op_responses() {
                if let TxnOpResponse::Get(get) = answer {
                    found.push(get.kvs().first().map(record).transpose()?);
                }
            }
            Ok(Outcome::Conflict(found))
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        async move {
            let response = self.read(key, GetOptions::new()).await?;
            response.kvs().first().map(record).transpose()
        }
        .boxed()
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>> {
        async move {
            let from = range.from.as_deref().filter(|from| *from > range.prefix.as_str()).unwrap_or(&range.prefix);
            // A key cannot be empty; the smallest is a zero byte.
            let from = if from.is_empty() { "\0" } else { from };
            let mut options = GetOptions::new()
                .with_range(prefix_end(&range.prefix))
                .with_sort(SortTarget::Key, SortOrder::Ascend)
                .with_limit(i64::try_from(range.limit).unwrap_or(i64::MAX));
            if let Some(at) = range.at {
                options = options.with_revision(signed(at));
            }
            let response = self.read(from, options).await.map_err(|error| match error {
                StoreError::Compacted { .. } => StoreError::Compacted { asked: range.at.unwrap_or(0), oldest: 0 },
                StoreError::Future { .. } => StoreError::Future { asked: range.at.unwrap_or(0), current: 0 },
                error => error,
            })?;
            let newest = response.header().map_or(0, etcd_client::ResponseHeader::revision);
            Ok(Page {
                records: response.kvs().iter().map(record).collect::<Result<_, _>>()?,
                revision: range.at.unwrap_or(unsigned(newest)),
                more: response.more(),
            })
        }
        .boxed()
    }

    fn watch(&self, watch: Watch) -> BoxFuture<'_, Result<Batches, StoreError>> {
        async move {
            let from = watch.from.max(1);
            let mut options =
                WatchOptions::new().with_range(prefix_end(&watch.prefix)).with_start_revision(signed(from));
            if watch.previous {
                options = options.with_prev_key();
            }
            let client = self.client.watch_client().max_decoding_message_size(MAX_ANSWER);
            let key = if watch.prefix.is_empty() { "\0" } else { &watch.prefix };
            let stream = within(|| {
                let (mut client, options) = (client.clone(), options.clone());
                async move { client.watch(key, Some(options)).await }
            })
            .await?;
            Ok(futures::stream::unfold(Some((stream, from)), |state| async move {
                let (mut stream, from) = state?;
                match next_batch(&mut stream, from).await {
                    Ok(batch) => Some((Ok(batch), Some((stream, from)))),
                    Err(error) => Some((Err(error), None)),
                }
            })
            .boxed())
        }
        .boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        async move {
            // A linearizable read of any key carries the newest revision.
            let response = self.read(HEARTBEAT, GetOptions::new().with_count_only()).await?;
            Ok(unsigned(response.header().map_or(0, etcd_client::ResponseHeader::revision)))
        }
        .boxed()
    }

    fn announce(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let put = within(|| {
                let mut kv = self.kv();
                async move { kv.put(HEARTBEAT, "", None).await }
            });
            put.await.map(drop)
        }
        .boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let compacted = within(|| {
                let mut kv = self.kv();
                async move { kv.compact(signed(revision), None).await }
            });
            compacted.await.map(drop).map_err(|error| match error {
                StoreError::Compacted { .. } => StoreError::Compacted { asked: revision, oldest: revision },
                StoreError::Future { .. } => StoreError::Future { asked: revision, current: 0 },
                error => error,
            })
        }
        .boxed()
    }

    fn expire(&self) -> BoxFuture<'_, Result<usize, StoreError>> {
        std::future::ready(Ok(0)).boxed()
    }
}

/// The next events. etcd sends a revision's events together unless asked to split them.
async fn next_batch(stream: &mut WatchStream, asked: Revision) -> Result<Batch, StoreError> {
    loop {
        let message = stream.message().await.map_err(refused)?;
        let message = message.ok_or_else(|| StoreError::Unavailable("etcd ended the watch".to_owned()))?;
        if message.canceled() {
            return Err(match unsigned(message.compact_revision()) {
                0 => StoreError::Unavailable(format!("etcd cancelled the watch: {}", message.cancel_reason())),
                oldest => StoreError::Compacted { asked, oldest },
            });
        }
        let mut batch = Batch::default();
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            let deleted = event.event_type() == EventType::Delete;
            batch.revision = batch.revision.max(unsigned(kv.mod_revision()));
            batch.events.push(Event {
                key: key_of(kv)?,
                value: (!deleted).then(|| Bytes::copy_from_slice(kv.value())),
                previous: event.prev_kv().map(|previous| Bytes::copy_from_slice(previous.value())),
                created: unsigned(kv.create_revision()),
                modified: unsigned(kv.mod_revision()),
            });
        }
        if !batch.events.is_empty() {
            return Ok(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next() {
        assert_eq!(prefix_end("/a/"), b"/a0");
        assert_eq!(prefix_end(""), [0]);
    }
}
