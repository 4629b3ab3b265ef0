//! What is in use that no record names yet, and when the rest is collected.
//!
//! Short work ([`Hold`]) keeps everything: a collection meanwhile is put off until the last of it is done. Work that goes
//! at the pace of somebody else, a registry or a client, has a [`Lease`] on what it needs by name, and keeps nothing but
//! that: whoever trickles must not be able to stop the collector.

use std::{
    collections::HashSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{OwnedRwLockReadGuard, RwLock},
};
use tracing::warn;

use super::{Images, Inner, catalogue::ImageRecord};
use crate::digest::Digest;

/// How long what a broken pull brought is kept for the next try: longer than a kubelet waits between two.
const GRACE: Duration = Duration::from_secs(600);

/// Gives the layers (chain ids) of all containers; none when nobody can say any more.
type InUse = Box<dyn Fn() -> Option<Vec<Digest>> + Send + Sync>;

#[derive(Default)]
pub(super) struct Leases {
    /// Held for reading while something begins to be in use, for writing while content is collected.
    adding: Arc<RwLock<()>>,
    leased: Mutex<Vec<Arc<Leased>>>,
    in_use: OnceLock<InUse>,
    /// A collection was asked for and could not be.
    due: AtomicBool,
    /// Counts pulls that ended badly, so that the last of them decides when to collect.
    failures: AtomicU64,
}

#[derive(Default)]
struct Leased(Mutex<(HashSet<Digest>, HashSet<Digest>)>);

/// While one is kept, no content and no layer is collected.
pub struct Hold {
    images: Images,
    guard: Option<OwnedRwLockReadGuard<()>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.guard = None;
        self.images.collect_if_due();
    }
}

/// Keeps the content and the layers that were added to it.
pub(super) struct Lease {
    inner: Arc<Inner>,
    own: Arc<Leased>,
}

impl Lease {
    /// Keeps blobs and unpacked layers from here on, whether they are there or not. What is there after the call stays.
    pub async fn add(&self, blobs: impl IntoIterator<Item = Digest>, chains: impl IntoIterator<Item = Digest>) {
        // Not in the middle of a collection, which has looked already.
        let _adding = self.inner.leases.adding.read().await;
        let mut own = self.own.0.lock();
        own.0.extend(blobs);
        own.1.extend(chains);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.inner.leases.leased.lock().retain(|other| !Arc::ptr_eq(other, &self.own));
    }
}

/// Sees to it that what a pull brought is collected, unless the pull is [`Remains::recorded`].
pub(super) struct Remains {
    images: Images,
    /// From its end on; none when a record names it.
    collect_after: Option<Duration>,
}

impl Remains {
    pub fn recorded(&mut self) {
        self.collect_after = None;
    }

    /// The next try would bring the same.
    pub fn useless(&mut self) {
        self.collect_after = Some(Duration::ZERO);
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        let (Some(after), Ok(handle)) = (self.collect_after, Handle::try_current()) else { return };
        let images = self.images.clone();
        let number = images.inner.leases.failures.fetch_add(1, Ordering::Relaxed) + 1;
        handle.spawn(async move {
            tokio::time::sleep(after).await;
            if after.is_zero() || images.inner.leases.failures.load(Ordering::Relaxed) == number {
                images.collect_again().await;
            }
        });
    }
}

impl Leases {
    /// Keeps the collector away for good if something is being added; none if it is.
    pub fn exclusively(&self) -> Option<tokio::sync::RwLockWriteGuard<'_, ()>> {
        let guard = self.adding.try_write().ok();
        self.due.store(guard.is_none(), Ordering::Release);
        guard
    }

    /// The blobs and the layers that are leased. To be asked before the records: what is released after it is recorded.
    pub fn leased(&self) -> (Vec<Digest>, Vec<Digest>) {
        let (mut blobs, mut chains) = (Vec::new(), Vec::new());
        for leased in self.leased.lock().iter() {
            let leased = leased.0.lock();
            blobs.extend(leased.0.iter().cloned());
            chains.extend(leased.1.iter().cloned());
        }
        (blobs, chains)
    }
}

impl Images {
    /// Keeps every image's content and layers while something that will use one is being made.
    pub async fn hold(&self) -> Hold {
        Hold { images: self.clone(), guard: Some(self.inner.leases.adding.clone().read_owned().await) }
    }

    /// Says who knows the layers (chain ids) of all containers, for collections that nobody waits for: those that were put
    /// off, and those of what a failed pull left. Without it there are none.
    pub fn know_use(&self, in_use: impl Fn() -> Option<Vec<Digest>> + Send + Sync + 'static) {
        // The first stays; there is one engine.
        let _ = self.inner.leases.in_use.set(Box::new(in_use));
    }

    pub(super) fn lease(&self) -> Lease {
        let own = Arc::new(Leased::default());
        self.inner.leases.leased.lock().push(own.clone());
        Lease { inner: self.inner.clone(), own }
    }

    /// Keeps one image's content.
    pub(super) async fn lease_image(&self, image: &ImageRecord) -> Lease {
        let lease = self.lease();
        lease.add(image.blobs().cloned(), image.chains.iter().cloned()).await;
        lease
    }

    pub(super) fn remains(&self) -> Remains {
        Remains { images: self.clone(), collect_after: Some(GRACE) }
    }

    fn collect_if_due(&self) {
        if self.inner.leases.due.load(Ordering::Acquire)
            && let Ok(handle) = Handle::try_current()
        {
            let images = self.clone();
            handle.spawn(async move { images.collect_again().await });
        }
    }

    async fn collect_again(&self) {
        let inner = self.inner.clone();
        let Some(in_use) = self.inner.leases.in_use.get() else { return };
        // Those who make containers keep a hold: asked before that is away, the answer would be old.
        let Some(_guard) = self.inner.leases.exclusively() else { return };
        let Some(in_use) = in_use() else { return };
        let swept = tokio::task::spawn_blocking(move || inner.sweep(&in_use)).await;
        if let Err(error) = swept.map_err(crate::Error::from).flatten() {
            warn!(%error, "what no image needs cannot be collected");
        }
    }
}
