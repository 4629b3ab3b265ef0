//! /metrics, under upstream's names.

mod sizes;

pub use sizes::Sizes;

use super::fairness::{Limits, Meters};
use crate::auth::Attributes;
use crate::cache::measured;
use crate::server::Server;
use coracle_api::Gvr;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    #[prometheus(flatten)]
    timed: Timed,
    code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    #[prometheus(flatten)]
    kind: Kind,
    dry_run: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Terminated {
    #[prometheus(flatten)]
    kind: Kind,
    code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

impl Kind {
    fn of(about: &Attributes, applies: bool) -> Self {
        About::of(about, applies).own()
    }

    fn counted(&self, is_dry: bool, code: u16) -> Request {
        Request { timed: self.timed(is_dry), code: code.into() }
    }

    fn timed(&self, is_dry: bool) -> Timed {
        Timed { kind: self.clone(), dry_run: if is_dry { "All" } else { "" } }
    }
}

/// The same, not yet kept for ever.
#[derive(Clone, Copy, Hash)]
struct About<'a> {
    verb: &'static str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    scope: &'static str,
    component: &'static str,
}

impl<'a> About<'a> {
    fn of(about: &Attributes<'a>, applies: bool) -> Self {
        Self {
            verb: reported(about, applies),
            group: about.group,
            version: about.version,
            resource: about.resource,
            subresource: about.subresource,
            scope: scope(about),
            component: COMPONENT,
        }
    }

    fn own(self) -> Kind {
        let own = str::to_owned;
        Kind {
            verb: self.verb,
            group: own(self.group),
            version: own(self.version),
            resource: own(self.resource),
            subresource: own(self.subresource),
            scope: self.scope,
            component: self.component,
        }
    }

    fn is(self, kind: &Kind) -> bool {
        (self.verb, self.scope, self.component) == (kind.verb, kind.scope, kind.component)
            && (self.resource, self.subresource) == (&*kind.resource, &*kind.subresource)
            && (self.group, self.version) == (&*kind.group, &*kind.version)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Own {
    verb: &'static str,
    group: String,
    resource: String,
    subresource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Watched {
    group: String,
    version: String,
    resource: String,
}

/// A step of admission, or what one of its plugins takes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Step {
    operation: &'static str,
    rejected: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Plugin {
    name: &'static str,
    operation: &'static str,
    rejected: &'static str,
    r#type: &'static str,
}

/// Upstream's bounds of what admission takes (apiserver `admission/metrics`).
const ADMISSION: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// The figures of one kind of request: found once, and then filled without looking for them by their labels. Each is made when it
/// is first needed.
#[derive(Debug)]
struct Figures {
    kind: Kind,
    counts: RwLock<Vec<(u16, bool, Counter)>>,
    /// For what changes something, and for what does as if.
    durations: [OnceLock<Histogram>; 2],
    served: OnceLock<Histogram>,
    sizes: OnceLock<Sizes>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resource {
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupResource {
    group: String,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requests {
    request_kind: &'static str,
}

/// How long a request took, and how much of that it waited for its turn.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    pub all: Duration,
    pub waiting: Duration,
}

const COMPONENT: &str = "apiserver";

/// Linux's unit of processor time for programs, USER_HZ, is a hundredth of a second on every architecture that is built for.
const TICKS: f64 = 100.0;

/// Upstream's bounds of request durations: rules ask for some of them by name.
pub const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// Upstream's bounds of answers' and events' sizes (apiserver `endpoints/metrics`).
const RESPONSES: [u64; 7] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];
const EVENTS: [u64; 8] = [1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10];

/// The server's figures.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    hasher: RandomState,
    /// By the hash of their kind.
    figures: RwLock<HashMap<u64, Vec<Arc<Figures>>>>,
    requests: Family<Request, Counter>,
    durations: Family<Timed, Histogram, fn() -> Histogram>,
    /// The same without the time that requests waited for their turn, by which service levels are judged.
    served: Family<Kind, Histogram, fn() -> Histogram>,
    sizes: Family<Kind, Sizes, fn() -> Sizes>,
    terminations: Family<Terminated, Counter>,
    own: Family<Own, Counter>,
    /// Events sent to watchers; how many there were is told by their sizes.
    events: Family<Watched, Counter>,
    event_sizes: Family<Watched, Sizes, fn() -> Sizes>,
    watched: Mutex<HashMap<Watched, Sizes>>,
    handshake_errors: Counter,
    steps: Family<Step, Histogram, fn() -> Histogram>,
    plugins: Family<Plugin, Histogram, fn() -> Histogram>,
    lasting: Family<Kind, Gauge>,
    inflight: Family<Requests, Gauge>,
    inqueue: Family<Requests, Gauge>,
    objects: Family<Resource, Gauge>,
    /// The same, as it is called since v1.34.
    resources: Family<GroupResource, Gauge>,
    memory: Gauge,
    virtual_memory: Gauge,
    files: Gauge,
    most_files: Gauge,
    started: Gauge<f64, AtomicU64>,
    processor: Counter<f64, AtomicU64>,
}

impl Metrics {
    /// All figures, with those of priority and fairness and of the store.
    pub fn new(fairness: &Meters, store: &measured::Meters) -> Self {
        let mut registry = Registry::default();
        fairness.register(&mut registry);
        store.register(&mut registry);
        let requests = Family::default();
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let served = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let sizes = Family::new_with_constructor((|| Sizes::new(&RESPONSES)) as fn() -> Sizes);
        let event_sizes = Family::new_with_constructor((|| Sizes::new(&EVENTS)) as fn() -> Sizes);
        let (terminations, own, events) = (Family::default(), Family::default(), Family::default());
        let handshake_errors = Counter::default();
        let steps = Family::new_with_constructor((|| Histogram::new(ADMISSION)) as fn() -> Histogram);
        let plugins = Family::new_with_constructor((|| Histogram::new(ADMISSION)) as fn() -> Histogram);
        let lasting = Family::default();
        let (inflight, inqueue) = (Family::default(), Family::default());
        registry.register("apiserver_request", "Requests by verb, resource and code", requests.clone());
        registry.register("apiserver_request_duration_seconds", "Response latency in seconds", durations.clone());
        let indicator = "Response latency in seconds without the time in queues";
        registry.register("apiserver_request_sli_duration_seconds", indicator, served.clone());
        registry.register("apiserver_response_sizes", "Sizes of what was read, in bytes", sizes.clone());
        let given_up = "Requests that were given up in self-defence";
        registry.register("apiserver_request_terminations", given_up, terminations.clone());
        registry.register("apiserver_selfrequest", "Requests of the server to itself", own.clone());
        registry.register("apiserver_watch_events", "Events sent to watchers", events.clone());
        registry.register("apiserver_watch_events_sizes", "Sizes of events, in bytes", event_sizes.clone());
        let handshakes = "Connections that were not agreed on";
        registry.register("apiserver_tls_handshake_errors", handshakes, handshake_errors.clone());
        let admitted = "Time that admission took, by step";
        registry.register("apiserver_admission_step_admission_duration_seconds", admitted, steps.clone());
        let admitted = "Time that admission took, by plugin";
        registry.register("apiserver_admission_controller_admission_duration_seconds", admitted, plugins.clone());
        registry.register("apiserver_longrunning_requests", "Watches, logs and connections", lasting.clone());
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests being served, at most in the last second",
            inflight.clone(),
        );
        registry.register(
            "apiserver_current_inqueue_requests",
            "Requests that wait for their turn, at most in the last second",
            inqueue.clone(),
        );
        let (objects, resources) = (Family::default(), Family::default());
        let (virtual_memory, most_files) = (Gauge::default(), Gauge::default());
        let (memory, files, processor) = (Gauge::default(), Gauge::default(), Counter::<f64, AtomicU64>::default());
        registry.register("apiserver_storage_objects", "Objects kept, by resource", objects.clone());
        registry.register("apiserver_resource_objects", "Objects kept, by group and resource", resources.clone());
        registry.register("process_virtual_memory_bytes", "Virtual memory", virtual_memory.clone());
        registry.register("process_max_fds", "Most file descriptors", most_files.clone());
        registry.register("process_resident_memory_bytes", "Resident memory", memory.clone());
        registry.register("process_open_fds", "Open file descriptors", files.clone());
        let started = Gauge::<f64, AtomicU64>::default();
        registry.register("process_start_time_seconds", "When the process started, since the epoch", started.clone());
        registry.register("process_cpu_seconds", "User and system time", processor.clone());
        let build = Info::new([("major", "1"), ("minor", "36"), ("git_version", super::version::GIT_VERSION)]);
        registry.register("kubernetes_build", "The version that is served", build);
        Self {
            registry: Mutex::new(registry),
            hasher: RandomState::new(),
            figures: RwLock::default(),
            requests,
            durations,
            served,
            sizes,
            terminations,
            own,
            events,
            event_sizes,
            watched: Mutex::default(),
            handshake_errors,
            steps,
            plugins,
            lasting,
            inflight,
            inqueue,
            objects,
            resources,
            memory,
            virtual_memory,
            files,
            most_files,
            started,
            processor,
        }
    }

    /// Counts an answered request; `applies`: its patch is a configuration to be applied. Gives where the answer's size goes, when
    /// that is of interest.
    pub fn request(&self, about: &Attributes, applies: bool, dry_run: bool, code: u16, took: Took) -> Option<Sizes> {
        self.count(About::of(about, applies), dry_run, code, took)
    }

    /// Counts an answer to a probe, which is of no resource and no component (apiserver `server/healthz`).
    pub fn probed(&self, path: &str, code: u16, took: Took) -> Option<Sizes> {
        let nothing = About::of(&Attributes { verb: "get", ..Attributes::default() }, false);
        self.count(About { subresource: path, component: "", ..nothing }, false, code, took)
    }

    fn count(&self, about: About<'_>, is_dry: bool, code: u16, took: Took) -> Option<Sizes> {
        let figures = self.figures(about);
        let Figures { kind, counts, durations, served, sizes } = &*figures;
        let is = |(known, dry, _): &&(u16, bool, Counter)| (*known, *dry) == (code, is_dry);
        let known = counts.read().iter().find(is).map(|(.., count)| count.inc());
        if known.is_none() {
            let count = self.requests.get_or_create(&kind.counted(is_dry, code)).clone();
            count.inc();
            let mut counts = counts.write();
            if counts.iter().find(is).is_none() {
                counts.push((code, is_dry, count));
            }
        }
        if kind.verb != "WATCH" {
            let duration = || self.durations.get_or_create(&kind.timed(is_dry)).clone();
            durations[usize::from(is_dry)].get_or_init(duration).observe(took.all.as_secs_f64());
            let served = served.get_or_init(|| self.served.get_or_create(kind).clone());
            served.observe(took.all.saturating_sub(took.waiting).as_secs_f64());
        }
        let is_read = matches!(kind.verb, "GET" | "LIST");
        is_read.then(|| sizes.get_or_init(|| self.sizes.get_or_create(kind).clone()).clone())
    }

    fn figures(&self, about: About<'_>) -> Arc<Figures> {
        let hash = self.hasher.hash_one(about);
        let find = |all: &[Arc<Figures>]| all.iter().find(|figures| about.is(&figures.kind)).cloned();
        if let Some(known) = self.figures.read().get(&hash).and_then(|all| find(all)) {
            return known;
        }
        let mut all = self.figures.write();
        let all = all.entry(hash).or_default();
        find(all).unwrap_or_else(|| {
            let figures = Arc::new(Figures {
                kind: about.own(),
                counts: RwLock::default(),
                durations: <[OnceLock<Histogram>; 2]>::default(),
                served: OnceLock::new(),
                sizes: OnceLock::new(),
            });
            all.push(figures.clone());
            figures
        })
    }

    /// Counts a request that the server gave up.
    pub fn terminated(&self, about: &Attributes, applies: bool, code: u16) {
        let labels = Terminated { kind: Kind::of(about, applies), code: code.into() };
        self.terminations.get_or_create(&labels).inc();
    }

    /// Counts a request that the server made to itself.
    pub fn own_request(&self, about: &Attributes, applies: bool) {
        let Kind { verb, group, resource, subresource, .. } = Kind::of(about, applies);
        self.own.get_or_create(&Own { verb, group, resource, subresource }).inc();
    }

    /// Counts a step of admission.
    pub fn admission(&self, r#type: &'static str, operation: &'static str, is_rejected: bool, took: Duration) {
        let rejected = if is_rejected { "true" } else { "false" };
        self.steps.get_or_create(&Step { operation, rejected, r#type }).observe(took.as_secs_f64());
    }

    /// Counts what a plugin takes of it.
    pub fn admission_of(
        &self,
        name: &'static str,
        r#type: &'static str,
        operation: &'static str,
        is_rejected: bool,
        took: Duration,
    ) {
        let rejected = if is_rejected { "true" } else { "false" };
        let labels = Plugin { name, operation, rejected, r#type };
        self.plugins.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts a connection that came to nothing.
    pub fn handshake_error(&self) {
        self.handshake_errors.inc();
    }

    /// Where the events go that are sent to watchers of a resource.
    pub fn events(&self, resource: &Gvr) -> Sizes {
        let own = |text: &str| text.to_owned();
        let (group, version, resource) = (own(&resource.group), own(&resource.version), own(&resource.resource));
        let labels = Watched { group, version, resource };
        let sizes = self.event_sizes.get_or_create(&labels).clone();
        self.watched.lock().entry(labels).or_insert(sizes).clone()
    }

    /// Counts a watch, a log or a connection while the guard lives.
    pub fn lasting(&self, about: &Attributes) -> Guard {
        let gauge = self.lasting.get_or_create(&Kind::of(about, false)).clone();
        gauge.inc();
        Guard(gauge)
    }

    fn text(&self, limits: &Limits) -> String {
        for (request_kind, load) in limits.load() {
            let of = |family: &Family<Requests, Gauge>, count: usize| {
                family.get_or_create(&Requests { request_kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
            };
            of(&self.inflight, load.running);
            of(&self.inqueue, load.waiting);
        }
        for (labels, sizes) in self.watched.lock().iter().filter(|(_, sizes)| sizes.count() > 0) {
            let events = self.events.get_or_create(labels);
            events.inc_by(sizes.count().saturating_sub(events.get()));
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry.lock());
        classic(&text)
    }
}

/// The older text format, which upstream's servers write whatever is asked for: a counter is named with its `_total`, there are no
/// units and no end.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines().filter(|line| !line.starts_with("# UNIT") && *line != "# EOF") {
        if line.starts_with("# HELP ") {
            help = Some(line);
            continue;
        }
        let mut words = line.split(' ');
        let (name, kind) = match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => (name, kind),
            _ => {
                out.push_str(line);
                out.push('\n');
                continue;
            }
        };
        let (suffix, kind) = match kind {
            "counter" => ("_total", kind),
            "info" => ("_info", "gauge"),
            _ => ("", kind),
        };
        let about = help.take().and_then(|help| help.strip_prefix("# HELP ")?.strip_prefix(name)).unwrap_or_default();
        // Writing to a String does not fail.
        let _ = write!(out, "# HELP {name}{suffix}{about}\n# TYPE {name}{suffix} {kind}\n");
    }
    out
}

/// A verb as boards and rules of monitoring know it: the method's name, but for what a GET, a DELETE or a PATCH can be besides
/// (apiserver `endpoints/metrics`, cleanVerb).
fn reported(about: &Attributes, applies: bool) -> &'static str {
    match (about.verb, about.subresource) {
        (_, "attach" | "exec" | "log" | "portforward" | "proxy") => "CONNECT",
        ("get", _) => "GET",
        ("list", _) => "LIST",
        ("watch", _) => "WATCH",
        ("create", _) => "POST",
        ("update", _) => "PUT",
        ("patch", _) if applies => "APPLY",
        ("patch", _) => "PATCH",
        ("delete", _) => "DELETE",
        ("deletecollection", _) => "DELETECOLLECTION",
        _ => "other",
    }
}

/// What a request was about (apiserver `endpoints/metrics`, CleanScope).
fn scope(about: &Attributes) -> &'static str {
    match (about.resource, about.name, about.namespace) {
        ("", ..) => "",
        (_, name, _) if !name.is_empty() => "resource",
        (_, _, "") => "cluster",
        _ => "namespace",
    }
}

/// The text of /metrics.
pub fn text(server: &Server) -> String {
    let metrics = &server.metrics;
    for row in server.registry.current().rows().filter(|row| row.is_stored()) {
        let Ok(cache) = server.cache(row) else { continue };
        let group = &row.served[0].0;
        let resource = if group.is_empty() { row.plural.to_string() } else { format!("{}.{group}", row.plural) };
        let count = i64::try_from(cache.snapshot().objects.len()).unwrap_or(i64::MAX);
        metrics.objects.get_or_create(&Resource { resource }).set(count);
        let of_group = GroupResource { group: group.to_string(), resource: row.plural.to_string() };
        metrics.resources.get_or_create(&of_group).set(count);
    }
    let process = Process::look();
    metrics.memory.set(process.resident);
    metrics.virtual_memory.set(process.virtual_memory);
    metrics.files.set(process.files);
    metrics.most_files.set(process.most_files);
    metrics.started.set(process.started);
    metrics.processor.inc_by((process.seconds - metrics.processor.get()).max(0.0));
    metrics.text(&server.limits)
}

/// When this process started.
pub fn process_started() -> Timestamp {
    Timestamp::from_second(Process::look().started as i64).unwrap_or_default()
}

/// This process, as the kernel sees it.
struct Process {
    resident: i64,
    virtual_memory: i64,
    files: i64,
    most_files: i64,
    seconds: f64,
    /// Seconds since the epoch.
    started: f64,
}

impl Process {
    fn look() -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        let status = read("status");
        let memory = |name: &str| {
            let kibibytes = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
            kibibytes.and_then(|kibibytes| kibibytes.parse::<i64>().ok()).unwrap_or(0) * 1024
        };
        let limits = read("limits");
        let most_files = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
        // proc_pid_stat(5): the name stands in brackets and may hold anything; utime and stime are the 14th and 15th.
        let stat = read("stat");
        let after = stat.rsplit(')').next().unwrap_or_default();
        let ticks: f64 = after.split(' ').skip(12).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        // starttime, the 22nd, counts from the machine's start.
        let since_boot: f64 = after.split(' ').nth(20).and_then(|ticks| ticks.parse().ok()).unwrap_or(0.0);
        let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok()).unwrap_or(0.0);
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self {
            resident: memory("VmRSS:"),
            virtual_memory: memory("VmSize:"),
            // What has no limit has the largest number.
            most_files: most_files.map_or(0, |most| most.parse().unwrap_or(i64::MAX)),
            files: i64::try_from(files).unwrap_or(i64::MAX),
            seconds: ticks / TICKS,
            started: boot + since_boot / TICKS,
        }
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
