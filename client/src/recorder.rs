//! Records events about objects, in the background and without ever holding up the one who reports.

use std::{fmt, sync::Arc, time::Duration};

use coracle_api::clock::{Clock, rfc3339};
use coracle_api::json::{Value, json};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};
use tokio::sync::mpsc;

use crate::correlator::{Correlator, Report, Verdict};

/// Events that wait to be sent; what comes beyond is dropped, as upstream's broadcaster does.
const WAITING: usize = 1000;
/// Upstream's `maxTriesPerEvent`.
const TRIES: u32 = 12;
const RETRY: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(30);
/// Events sent at once, and then a second: a flood of them must not cost more than what they tell of. Upstream's clients
/// are bounded in the same way (50 requests a second for the scheduler's and the controllers' events).
const BURST: f64 = 1000.0;
const RATE: f64 = 50.0;

/// Whether an event tells of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Where a component reports its events. Clones share the queue and the memory of what was said before.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Report>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

impl Recorder {
    /// A recorder that reports as `component` (with the node's name as `host`, for what runs on one). Needs a tokio runtime.
    pub fn new(client: Client, clock: Arc<dyn Clock>, component: &str, host: Option<&str>) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let sink = Sink { client, clock, component: component.to_owned(), host: host.unwrap_or_default().to_owned() };
        tokio::spawn(sink.run(receiver));
        Self { sender }
    }

    /// A recorder whose reports are taken from the receiver: for tests.
    pub fn channel() -> (Self, mpsc::Receiver<Report>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { sender }, receiver)
    }

    /// Reports an event about an object. Never waits.
    pub fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, message: &str) {
        let report = Report { about: about.clone(), kind, reason: reason.to_owned(), message: message.to_owned() };
        if self.sender.try_send(report).is_err() {
            tracing::warn!(reason, "an event was dropped: too many are waiting");
        }
    }

    /// Reports an event about a typed object.
    pub fn event<K: Resource>(&self, object: &K, kind: EventType, reason: &str, message: &str)
    where
        K::DynamicType: Default,
    {
        self.record(&reference(object), kind, reason, message);
    }
}

/// A reference to a typed object, as events and owners carry it.
pub fn reference<K: Resource>(object: &K) -> ObjectReference
where
    K::DynamicType: Default,
{
    object.object_ref(&K::DynamicType::default())
}

struct Sink {
    client: Client,
    clock: Arc<dyn Clock>,
    component: String,
    host: String,
}

impl Sink {
    async fn run(self, mut reports: mpsc::Receiver<Report>) {
        let mut correlator = Correlator::default();
        let (mut tokens, mut at) = (BURST, self.clock.monotonic());
        while let Some(report) = reports.recv().await {
            let now = self.clock.monotonic();
            tokens = (tokens + now.saturating_sub(at).as_secs_f64() * RATE).min(BURST);
            at = now;
            if tokens < 1.0 {
                // What comes while the queue behind this one is full is dropped.
                tokio::time::sleep(Duration::from_secs_f64((1.0 - tokens) / RATE)).await;
            }
            tokens -= 1.0;
            match correlator.judge(&report, self.clock.monotonic()) {
                Verdict::Drop => {}
                Verdict::Create { id, message } => self.create(&mut correlator, id, &report, &message).await,
                Verdict::Count { id, name, count, message } => {
                    if !self.count(&report, &name, count, &message).await {
                        correlator.expired(id);
                        self.create(&mut correlator, id, &report, &message).await;
                    }
                }
            }
        }
    }

    async fn create(&self, correlator: &mut Correlator, id: u64, report: &Report, message: &str) {
        let event = self.event(report, message);
        let path = format!("/api/v1/namespaces/{}/events", namespace(report));
        if let Some(made) = self.send(http::Method::POST, &path, "application/json", &event).await {
            correlator.created(id, coracle_api::meta::name(&made));
        }
    }

    async fn count(&self, report: &Report, name: &str, count: u32, message: &str) -> bool {
        let patch = json!({"count": count, "lastTimestamp": rfc3339(self.clock.now()), "message": message});
        let path = format!("/api/v1/namespaces/{}/events/{name}", namespace(report));
        self.send(http::Method::PATCH, &path, "application/merge-patch+json", &patch).await.is_some()
    }

    fn event(&self, report: &Report, message: &str) -> Value {
        let now = self.clock.now();
        let about = report.about.name.as_deref().unwrap_or_default();
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": format!("{about}.{:x}", now.as_nanosecond()), "namespace": namespace(report)},
            "involvedObject": report.about,
            "type": report.kind.as_str(),
            "reason": report.reason,
            "message": shorten(message),
            "source": {"component": self.component, "host": self.host},
            "reportingComponent": self.component,
            "reportingInstance": self.host,
            "count": 1,
            "firstTimestamp": rfc3339(now),
            "lastTimestamp": rfc3339(now),
            "eventTime": Value::Null,
        })
    }

    /// Sends, repeating while the server is not there; None where it refuses.
    async fn send(&self, method: http::Method, path: &str, content_type: &str, body: &Value) -> Option<Value> {
        for attempt in 1..=TRIES {
            let request = http::Request::builder()
                .method(method.clone())
                .uri(path)
                .header(http::header::CONTENT_TYPE, content_type)
                .body(body.to_string().into_bytes())
                .ok()?;
            match tokio::time::timeout(DEADLINE, self.client.request::<Value>(request)).await {
                Ok(Ok(made)) => return Some(made),
                Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
                    tracing::debug!(code = status.code, message = status.message, "event refused");
                    return None;
                }
                _ => {}
            }
            if attempt < TRIES {
                tokio::time::sleep(RETRY).await;
            }
        }
        tracing::warn!("an event was given up: the API server did not answer");
        None
    }
}

/// Events about cluster-scoped objects live in `default`.
fn namespace(report: &Report) -> &str {
    match report.about.namespace.as_deref() {
        None | Some("") => "default",
        Some(namespace) => namespace,
    }
}

/// Upstream's validation admits 1024 bytes (pkg/apis/core/validation/events.go).
fn shorten(message: &str) -> &str {
    let mut end = message.len().min(1024);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}
