//! The server's parts, and what every request finds in them.

use crate::Config;
use crate::bootstrap::Lease;
use crate::cache::{Cacher, ResourceCache};
use crate::http::fairness::Limits;
use crate::http::metrics::Metrics;
use crate::registry::{Registry, Row};
use crate::store::{Revision, Store, StoreError};
use coracle_api::Status;
use coracle_api::status::Reason;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a read waits for the cache to come up to the store (upstream: 3 seconds).
pub const FRESH_WITHIN: Duration = Duration::from_secs(3);

/// The same of a read that the store can answer as well: so little that writers do not lose their leases meanwhile.
pub const ONE_FRESH_WITHIN: Duration = Duration::from_millis(500);

/// How far the caches have come in the time they had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// They hold every write acknowledged before; up to this revision.
    All(Revision),
    /// They do not yet: the store's watch is cut, or behind.
    Behind,
}

/// How often expired keys are looked for, and how old a revision must be to be compacted.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
const COMPACT_EVERY: Duration = Duration::from_secs(300);

/// Everything behind the listeners.
pub struct Server {
    pub config: Config,
    pub registry: Registry,
    pub cacher: Arc<Cacher>,
    pub limits: Limits,
    pub metrics: Metrics,
    /// What has been done since the start.
    pub hooks: crate::http::health::Hooks,
    /// Whether log lines get through.
    pub log: crate::http::health::Log,
    pub openapi: crate::http::openapi::Documents,
    pub kubelet: crate::http::kubelet::KubeletClient,
    /// What was created lately.
    pub twins: crate::verbs::Twins,
    /// Signs the tokens of service accounts.
    pub signer: crate::auth::tokens::Signer,
    /// Of the key that tells other servers of this one.
    pub lease: tokio::sync::Mutex<Lease>,
    /// Ends watches and background work.
    pub stop: CancellationToken,
}

impl Server {
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.config.store
    }

    /// The cache of a row of this server's registry.
    ///
    /// # Errors
    /// 404 for a row that the server does not keep.
    pub fn cache(&self, row: &Row) -> Result<Arc<ResourceCache>, Status> {
        self.cacher.resource(row).ok_or_else(Status::no_such_resource)
    }

    /// The cache of a built-in resource.
    pub fn cache_of(&self, group: &str, plural: &str) -> Result<Arc<ResourceCache>, Status> {
        let resolved = self.registry.find(group, "v1", plural).ok_or_else(Status::no_such_resource)?;
        self.cache(&resolved.row)
    }

    /// Waits until the caches hold every write acknowledged before this call.
    ///
    /// # Errors
    /// 503 when the store does not answer, 504 when the cache does not catch up.
    pub async fn fresh(&self) -> Result<Revision, Status> {
        self.not_older_than(self.newest().await?).await
    }

    /// The same, for whoever can turn to the store when the caches do not catch up.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn reach_newest(&self, limit: Duration) -> Result<Reached, Status> {
        Ok(match self.cacher.reached(self.newest().await?, limit).await {
            true => Reached::All(self.cacher.progress()),
            false => Reached::Behind,
        })
    }

    /// The store's newest revision.
    async fn newest(&self) -> Result<Revision, Status> {
        Ok(match self.store().revision_now() {
            Some(revision) => revision,
            None => {
                let revision = tokio::time::timeout(FRESH_WITHIN, self.store().revision()).await;
                revision.map_err(|_| Status::timeout("the store did not answer in time", 1))?.map_err(store_status)?
            }
        })
    }

    /// Waits until the caches have reached a revision.
    ///
    /// # Errors
    /// 504 when they do not.
    pub async fn not_older_than(&self, revision: Revision) -> Result<Revision, Status> {
        if self.cacher.reached(revision, FRESH_WITHIN).await {
            Ok(self.cacher.progress())
        } else {
            Err(Status::too_large_resource_version(revision, self.cacher.progress()))
        }
    }

    /// Expires and compacts until told to stop.
    pub(crate) async fn maintain(self: Arc<Self>) {
        let mut expire = tokio::time::interval(EXPIRE_EVERY);
        let mut compact = tokio::time::interval(COMPACT_EVERY);
        // The first look comes a period after the start, not in the middle of it.
        expire.reset();
        compact.reset();
        // Compaction stays one period behind, so that no watch younger than that is cut off.
        let mut before = None;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = expire.tick() => {
                    self.cacher.forget_kept();
                    match self.store().expire().await {
                        Ok(0) => {}
                        Ok(keys) => tracing::debug!(keys, "expired"),
                        Err(error) => tracing::warn!(%error, "expiring keys"),
                    }
                }
                _ = compact.tick() => {
                    if let Some(revision) = before.replace(self.cacher.progress()) {
                        match self.store().compact(revision).await {
                            Ok(()) | Err(StoreError::Compacted { .. }) => {}
                            Err(error) => tracing::warn!(%error, "compacting"),
                        }
                    }
                }
            }
        }
    }
}

/// What a client is told about a failure of the store.
pub fn store_status(error: StoreError) -> Status {
    match error {
        StoreError::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old."),
        StoreError::Future { asked, current } => Status::too_large_resource_version(asked, current),
        StoreError::Invalid(why) => Status::too_large(&why),
        // Upstream passes on what etcd says, and knows no reason for it (apiserver `responsewriters/status.go`).
        StoreError::Refused(why) => Status::new(500, Reason::Unknown, why),
        StoreError::Unavailable(why) => Status::service_unavailable(why),
        StoreError::Damaged(why) => Status::internal(why),
    }
}
