//! A histogram of sizes that many fill at a time without waiting for each other.

use axum::body::Body;
use futures::StreamExt;
use http_body::Body as _;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::verbs::Response;

/// What was measured, in bytes.
#[derive(Clone, Debug)]
pub struct Sizes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: &'static [u64],
    /// As many as there are bounds, and what is larger than all of them.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Sizes {
    pub fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner { bounds, counts, sum: AtomicU64::new(0) }))
    }

    pub fn observe(&self, size: usize) {
        let size = size as u64;
        let at = self.0.bounds.partition_point(|bound| *bound < size);
        if let Some(count) = self.0.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.0.sum.fetch_add(size, Ordering::Relaxed);
    }

    /// Takes the size of an answer's body: now, or when it has been sent.
    pub fn measure(self, response: Response) -> Response {
        let (head, body) = response.into_parts();
        if let Some(size) = body.size_hint().exact() {
            self.observe(usize::try_from(size).unwrap_or(usize::MAX));
            return http::Response::from_parts(head, body);
        }
        let mut sent = Sent { sizes: self, size: 0 };
        let stream = body.into_data_stream().map(move |piece| {
            sent.add(piece.as_ref().map_or(0, |piece| piece.len()));
            piece
        });
        http::Response::from_parts(head, Body::from_stream(stream))
    }

    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// An answer while it is sent.
struct Sent {
    sizes: Sizes,
    size: usize,
}

impl Sent {
    fn add(&mut self, size: usize) {
        self.size += size;
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.sizes.observe(self.size);
    }
}

impl TypedMetric for Sizes {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Sizes {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = self.0.bounds.iter().map(|bound| *bound as f64).chain([f64::MAX]);
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(self.0.sum.load(Ordering::Relaxed) as f64, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
