//! What a pull or a push tells while it works, for those who show it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::digest::Digest;

/// Called from any thread, in the order of each layer's steps. It must not block.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What the name stands for in the registry; comes before every layer.
    Resolved { digest: Digest },
    /// A layer, by its digest as transferred.
    Layer { digest: Digest, step: Step },
}

/// Where a layer is. A pull: `Waiting`, `Downloading` …, `Downloaded`, `Extracting` …, `Done`, or `Exists` alone. A push:
/// `Waiting`, `Uploading` …, `Done`, or `Exists` or `Mounted` instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Waiting,
    Exists,
    Downloading {
        current: u64,
        total: u64,
    },
    Downloaded,
    /// In bytes as transferred.
    Extracting {
        current: u64,
        total: u64,
    },
    Uploading {
        current: u64,
        total: u64,
    },
    /// The registry took the layer over from another of its repositories.
    Mounted {
        from: String,
    },
    Done,
}

/// Sends an event if anybody listens.
pub(super) fn tell(sink: Option<&Sink>, digest: &Digest, step: Step) {
    if let Some(sink) = sink {
        sink(Event::Layer { digest: digest.clone(), step });
    }
}

/// A display does not need more.
const INTERVAL: Duration = Duration::from_millis(100);

/// Counts bytes of a layer and tells now and then.
pub(super) struct Meter {
    sink: Option<Sink>,
    digest: Digest,
    total: u64,
    step: fn(u64, u64) -> Step,
    told: Option<Instant>,
}

impl Meter {
    pub fn new(sink: Option<Sink>, digest: &Digest, total: u64, step: fn(u64, u64) -> Step) -> Meter {
        Meter { sink, digest: digest.clone(), total, step, told: None }
    }

    /// The bytes so far.
    pub fn at(&mut self, current: u64) {
        if self.sink.is_some() && self.told.is_none_or(|told| told.elapsed() >= INTERVAL) {
            self.told = Some(Instant::now());
            tell(self.sink.as_ref(), &self.digest, (self.step)(current, self.total));
        }
    }
}
