//! /metrics, under upstream's names.

use super::limits::Limits;
use crate::auth::Attributes;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    verb: String,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resource {
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requests {
    request_kind: &'static str,
}

/// Upstream's bounds of request durations, thinned out.
const BUCKETS: [f64; 12] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 2.0, 5.0, 15.0, 60.0];

/// The server's figures.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Request, Counter>,
    durations: Family<Kind, Histogram, fn() -> Histogram>,
    watchers: Family<Resource, Gauge>,
    inflight: Family<Requests, Gauge>,
    inqueue: Family<Requests, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let watchers = Family::default();
        let (inflight, inqueue) = (Family::default(), Family::default());
        registry.register("apiserver_request", "Requests by verb, resource and code", requests.clone());
        registry.register("apiserver_request_duration_seconds", "Response latency in seconds", durations.clone());
        registry.register("apiserver_longrunning_requests", "Watches that are open", watchers.clone());
        registry.register("apiserver_current_inflight_requests", "Requests being served", inflight.clone());
        registry.register("apiserver_current_inqueue_requests", "Requests that wait for their turn", inqueue.clone());
        Self { registry: Mutex::new(registry), requests, durations, watchers, inflight, inqueue }
    }
}

impl Metrics {
    /// Counts an answered request.
    pub fn request(&self, about: &Attributes, code: u16, took: Duration) {
        let own = str::to_owned;
        let verb = about.verb.to_ascii_uppercase();
        let kind = Kind { verb: verb.clone(), resource: own(about.resource) };
        let labels = Request {
            verb,
            group: own(about.group),
            version: own(about.version),
            resource: own(about.resource),
            subresource: own(about.subresource),
            code: code.into(),
        };
        self.requests.get_or_create(&labels).inc();
        if kind.verb != "WATCH" {
            self.durations.get_or_create(&kind).observe(took.as_secs_f64());
        }
    }

    /// Counts a watch while the guard lives.
    pub fn watcher(&self, resource: &str) -> Guard {
        let gauge = self.watchers.get_or_create(&Resource { resource: resource.to_owned() }).clone();
        gauge.inc();
        Guard(gauge)
    }

    /// The text of /metrics.
    pub fn text(&self, limits: &Limits) -> String {
        for (request_kind, load) in limits.load() {
            let of = |family: &Family<Requests, Gauge>, count: usize| {
                family.get_or_create(&Requests { request_kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
            };
            of(&self.inflight, load.running);
            of(&self.inqueue, load.waiting);
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry.lock());
        text
    }
}

/// Lowers a gauge when dropped.
#[derive(Debug)]
pub struct Guard(Gauge);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
