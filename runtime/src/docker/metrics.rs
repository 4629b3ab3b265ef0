//! What the daemon counts, in the text format of Prometheus and under dockerd's names (moby `daemon/metrics.go`,
//! `builder/dockerfile/metrics.go`; <https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Body;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Docker, system};

/// Upper bounds of the histograms' buckets in seconds: the defaults of Prometheus' own client.
const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// A request that does not come.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// What is done to containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Changes,
    Commit,
    Create,
    Delete,
    Start,
}

const ACTIONS: [(Action, &str); 5] = [
    (Action::Changes, "changes"),
    (Action::Commit, "commit"),
    (Action::Create, "create"),
    (Action::Delete, "delete"),
    (Action::Start, "start"),
];

#[derive(Clone, Debug, Default)]
struct Histogram {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, seconds: f64) {
        for (count, bound) in self.counts.iter_mut().zip(BOUNDS) {
            *count += u64::from(seconds <= bound);
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// Counted since the daemon started.
#[derive(Debug, Default)]
pub struct Metrics {
    actions: Mutex<BTreeMap<Action, Histogram>>,
    pub health_checks: AtomicU64,
    pub health_checks_failed: AtomicU64,
    pub builds: AtomicU64,
    pub builds_failed: AtomicU64,
    pub builds_cancelled: AtomicU64,
}

impl Metrics {
    /// An action that went well and began then.
    pub fn did(&self, action: Action, began: Instant) {
        self.actions.lock().entry(action).or_default().observe(began.elapsed().as_secs_f64());
    }
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn one(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    head(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

impl Docker {
    /// Everything, as it is now.
    pub fn metrics_text(&self) -> String {
        let (metrics, mut out) = (&self.metrics, String::new());
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let name = "builder_builds_failed_total";
        head(&mut out, name, "counter", "Number of failed image builds");
        for (reason, counter) in [("build_canceled", &metrics.builds_cancelled), ("unknown", &metrics.builds_failed)] {
            let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {}", total(counter));
        }
        let name = "builder_builds_triggered_total";
        one(&mut out, name, "counter", "Number of triggered image builds", total(&metrics.builds));
        let name = "engine_daemon_container_actions_seconds";
        head(&mut out, name, "histogram", "The number of seconds it takes to process each container action");
        let actions = metrics.actions.lock().clone();
        for (action, label) in ACTIONS {
            write_histogram(&mut out, name, label, &actions.get(&action).cloned().unwrap_or_default());
        }
        let name = "engine_daemon_container_states_containers";
        head(&mut out, name, "gauge", "The count of containers in various states");
        let containers = self.containers();
        for (state, words) in [
            ("paused", &["paused"][..]),
            ("running", &["running", "restarting"]),
            ("stopped", &["created", "exited", "dead", "removing"]),
        ] {
            let count = containers.iter().filter(|container| words.contains(&container.status())).count();
            let _ = writeln!(out, "{name}{{state=\"{state}\"}} {count}");
        }
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let help = "The number of cpus that the host system of the engine has";
        one(&mut out, "engine_daemon_engine_cpus_cpus", "gauge", help, cpus);
        let name = "engine_daemon_engine_info";
        head(&mut out, name, "gauge", "The information related to the engine and the OS it is running on");
        let _ = writeln!(out, "{name}{{{}}} 1", self.labels());
        let help = "The number of bytes of memory that the host system of the engine has";
        one(&mut out, "engine_daemon_engine_memory_bytes", "gauge", help, system::memory_total());
        let name = "engine_daemon_events_subscribers_total";
        one(&mut out, name, "gauge", "The number of current subscribers to events", self.events.listeners());
        one(&mut out, "engine_daemon_events_total", "counter", "The number of events logged", self.events.total());
        let (failed, all) = (total(&metrics.health_checks_failed), total(&metrics.health_checks));
        let name = "engine_daemon_health_checks_failed_total";
        one(&mut out, name, "counter", "The total number of failed health checks", failed);
        one(&mut out, "engine_daemon_health_checks_total", "counter", "The total number of health checks", all);
        out
    }

    fn labels(&self) -> String {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let labels = [
            ("architecture", std::env::consts::ARCH.to_owned()),
            ("commit", "coracle".to_owned()),
            ("daemon_id", self.id.clone()),
            ("graphdriver", "overlay2".to_owned()),
            ("kernel", kernel.trim().to_owned()),
            ("os", system::operating_system()),
            ("os_type", "linux".to_owned()),
            ("version", system::DOCKER_VERSION.to_owned()),
        ];
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect::<Vec<_>>().join(",")
    }
}

fn write_histogram(out: &mut String, name: &str, action: &str, histogram: &Histogram) {
    for (bound, count) in BOUNDS.iter().zip(histogram.counts) {
        let _ = writeln!(out, "{name}_bucket{{action=\"{action}\",le=\"{bound}\"}} {count}");
    }
    let _ = writeln!(out, "{name}_bucket{{action=\"{action}\",le=\"+Inf\"}} {}", histogram.count);
    let _ = writeln!(out, "{name}_sum{{action=\"{action}\"}} {}", histogram.sum);
    let _ = writeln!(out, "{name}_count{{action=\"{action}\"}} {}", histogram.count);
}

/// One client of `GET /metrics`.
pub async fn converse(docker: Arc<Docker>, stream: TcpStream, shutdown: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let docker = docker.clone();
        async move { Ok::<_, Infallible>(answer(&docker, &request)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Who went away asks again.
        _ = connection => {}
        () = shutdown.cancelled() => {}
    }
}

fn answer(docker: &Docker, request: &Request<Incoming>) -> Response<Body> {
    let found = request.uri().path() == "/metrics" && matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = Response::new(Body::from(if found { docker.metrics_text() } else { "not found\n".into() }));
    if !found {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_all_below_their_bound() {
        let mut histogram = Histogram::default();
        for seconds in [0.001, 0.02, 30.0] {
            histogram.observe(seconds);
        }
        let mut text = String::new();
        write_histogram(&mut text, "x", "start", &histogram);
        for line in [
            "x_bucket{action=\"start\",le=\"0.005\"} 1",
            "x_bucket{action=\"start\",le=\"0.025\"} 2",
            "x_bucket{action=\"start\",le=\"10\"} 2",
            "x_bucket{action=\"start\",le=\"+Inf\"} 3",
            "x_count{action=\"start\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
