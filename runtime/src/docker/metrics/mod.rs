//! What the daemon counts, in the text format of Prometheus and under dockerd's names (moby `daemon/metrics.go`,
//! `builder/dockerfile/metrics.go`; <https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Not here are dockerd's counts of what there is not in this daemon: Go's memory, Swarm and its etcd, and what its loggers
//! fail to write (`logger_…`), which is the shims' work here.

mod process;

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

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Changes,
    Commit,
    Create,
    Delete,
    Start,
    /// All networks of a container that starts.
    AllocateNetworks,
    ConnectNetwork,
    ReleaseNetworks,
    OperatingSystem,
    OperatingSystemVersion,
    Info,
    Version,
}

/// A histogram: its name, its help, its label, and the actions with the label's values.
type Family = (&'static str, &'static str, &'static str, &'static [(Action, &'static str)]);

const CONTAINERS: Family = (
    "engine_daemon_container_actions_seconds",
    "The number of seconds it takes to process each container action",
    "action",
    &[
        (Action::Changes, "changes"),
        (Action::Commit, "commit"),
        (Action::Create, "create"),
        (Action::Delete, "delete"),
        (Action::Start, "start"),
    ],
);
const NETWORKS: Family = (
    "engine_daemon_network_actions_seconds",
    "The number of seconds it takes to process each network action",
    "action",
    &[
        (Action::AllocateNetworks, "allocate"),
        (Action::ConnectNetwork, "connect"),
        (Action::ReleaseNetworks, "release"),
    ],
);
const HOST: Family = (
    "engine_daemon_host_info_functions_seconds",
    "The number of seconds it takes to call functions gathering info about the host",
    "function",
    &[
        (Action::OperatingSystem, "operating_system"),
        (Action::OperatingSystemVersion, "os_version"),
        (Action::Info, "system_info"),
        (Action::Version, "system_version"),
    ],
);

/// Why a build failed. dockerd has the names of all and counts three of them: those of a Dockerfile that it cannot read
/// are unknown instructions there or nothing, and a step that fails is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BuildFailure {
    Cancelled,
    Target,
    Empty,
    Syntax,
    Step,
    Onbuild,
    Instruction,
}

const BUILD_FAILURES: [(BuildFailure, &str); 7] = [
    (BuildFailure::Cancelled, "build_canceled"),
    (BuildFailure::Target, "build_target_not_reachable_error"),
    (BuildFailure::Empty, "dockerfile_empty_error"),
    (BuildFailure::Syntax, "dockerfile_syntax_error"),
    (BuildFailure::Step, "error_processing_commands_error"),
    (BuildFailure::Onbuild, "missing_onbuild_arguments_error"),
    (BuildFailure::Instruction, "unknown_instruction_error"),
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
    builds_failed: Mutex<BTreeMap<BuildFailure, u64>>,
    /// Those that were asked for these counts, and those that are answered now.
    scrapes: AtomicU64,
    scraping: AtomicU64,
}

impl Metrics {
    /// An action that went well and began then.
    pub fn did(&self, action: Action, began: Instant) {
        self.actions.lock().entry(action).or_default().observe(began.elapsed().as_secs_f64());
    }

    /// The same of what cannot go wrong.
    pub fn timed<T>(&self, action: Action, act: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let out = act();
        self.did(action, began);
        out
    }

    pub fn build_failed(&self, why: BuildFailure) {
        *self.builds_failed.lock().entry(why).or_default() += 1;
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
        let failed = metrics.builds_failed.lock().clone();
        for (failure, reason) in BUILD_FAILURES {
            let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {}", failed.get(&failure).unwrap_or(&0));
        }
        let name = "builder_builds_triggered_total";
        one(&mut out, name, "counter", "Number of triggered image builds", total(&metrics.builds));
        let actions = metrics.actions.lock().clone();
        write_family(&mut out, &CONTAINERS, &actions);
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
        write_family(&mut out, &HOST, &actions);
        write_family(&mut out, &NETWORKS, &actions);
        process::write(&mut out);
        let name = "promhttp_metric_handler_requests_in_flight";
        one(&mut out, name, "gauge", "Current number of scrapes being served.", total(&metrics.scraping));
        let name = "promhttp_metric_handler_requests_total";
        head(&mut out, name, "counter", "Total number of scrapes by HTTP status code.");
        let _ = writeln!(out, "{name}{{code=\"200\"}} {}", total(&metrics.scrapes));
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
            ("os", self.metrics.timed(Action::OperatingSystem, system::operating_system)),
            ("os_type", "linux".to_owned()),
            ("os_version", self.metrics.timed(Action::OperatingSystemVersion, system::operating_system_version)),
            ("version", system::DOCKER_VERSION.to_owned()),
        ];
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect::<Vec<_>>().join(",")
    }
}

fn write_family(out: &mut String, (name, help, label, values): &Family, actions: &BTreeMap<Action, Histogram>) {
    head(out, name, "histogram", help);
    for (action, value) in *values {
        let label = format!("{label}=\"{value}\"");
        write_histogram(out, name, &label, &actions.get(action).cloned().unwrap_or_default());
    }
}

fn write_histogram(out: &mut String, name: &str, label: &str, histogram: &Histogram) {
    for (bound, count) in BOUNDS.iter().zip(histogram.counts) {
        let _ = writeln!(out, "{name}_bucket{{{label},le=\"{bound}\"}} {count}");
    }
    let _ = writeln!(out, "{name}_bucket{{{label},le=\"+Inf\"}} {}", histogram.count);
    let _ = writeln!(out, "{name}_sum{{{label}}} {}", histogram.sum);
    let _ = writeln!(out, "{name}_count{{{label}}} {}", histogram.count);
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
    let text = || {
        count(&docker.metrics.scraping);
        let text = docker.metrics_text();
        docker.metrics.scraping.fetch_sub(1, Ordering::Relaxed);
        count(&docker.metrics.scrapes);
        text
    };
    let mut response = Response::new(Body::from(if found { text() } else { "not found\n".into() }));
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
        write_histogram(&mut text, "x", "action=\"start\"", &histogram);
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
