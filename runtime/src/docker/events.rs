//! What happened, as `docker events` shows it: told to whoever listens, and the last of it remembered.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::{http::Filters, types::Map};

/// dockerd remembers as many.
const REMEMBERED: usize = 256;
const BACKLOG: usize = 1024;

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: &'static str,
    pub action: String,
    pub id: String,
    pub attributes: Map<String>,
    /// Nanoseconds since 1970.
    pub at: i64,
}

/// The recent past and its listeners.
pub struct Events {
    sender: broadcast::Sender<Arc<Event>>,
    past: Mutex<VecDeque<Arc<Event>>>,
    total: AtomicU64,
}

impl Default for Events {
    fn default() -> Events {
        Events { sender: broadcast::channel(BACKLOG).0, past: Mutex::default(), total: AtomicU64::new(0) }
    }
}

impl Events {
    pub fn tell(&self, kind: &'static str, action: impl Into<String>, id: &str, attributes: Map<String>) {
        let event = Arc::new(Event {
            kind,
            action: action.into(),
            id: id.to_owned(),
            attributes,
            at: crate::engine::model::now(),
        });
        self.total.fetch_add(1, Ordering::Relaxed);
        let mut past = self.past.lock();
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Nobody listening is fine; sent under the lock, so that a listener sees each event once.
        let _ = self.sender.send(event);
    }

    /// How many there were since the daemon started.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// How many listen.
    pub fn listeners(&self) -> u64 {
        self.sender.receiver_count() as u64
    }

    /// What is remembered, and what comes.
    pub fn listen(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let past = self.past.lock();
        (past.iter().cloned().collect(), self.sender.subscribe())
    }
}

impl Event {
    pub fn json(&self) -> Value {
        let mut out = json!({});
        if self.kind == "container" || self.kind == "image" {
            out = json!({ "status": self.action, "id": self.id });
            if let Some(image) = self.attributes.get("image").filter(|_| self.kind == "container") {
                out["from"] = json!(image);
            }
        }
        out["Type"] = json!(self.kind);
        out["Action"] = json!(self.action);
        out["Actor"] = json!({ "ID": self.id, "Attributes": self.attributes });
        out["scope"] = json!("local");
        out["time"] = json!(self.at / 1_000_000_000);
        out["timeNano"] = json!(self.at);
        out
    }

    /// dockerd's event filter: every key given must fit.
    pub fn fits(&self, filters: &Filters) -> bool {
        let action = self.action.split(':').next().unwrap_or_default();
        let named = |kind: &str, wanted: &str| {
            self.kind == kind
                && (self.id.starts_with(wanted) || self.attributes.get("name").is_some_and(|name| name == wanted))
        };
        let of_network = |wanted: &str| {
            named("network", wanted) || self.attributes.get("container").is_some_and(|id| id.starts_with(wanted))
        };
        filters.any("event", |wanted| self.action == wanted || action == wanted)
            && filters.any("type", |wanted| self.kind == wanted)
            && filters.any("scope", |wanted| wanted == "local")
            && filters
                .any("container", |wanted| named("container", wanted) || self.kind == "network" && of_network(wanted))
            && filters.any("volume", |wanted| named("volume", wanted))
            && filters.any("network", |wanted| named("network", wanted))
            && filters.any("daemon", |wanted| named("daemon", wanted))
            && filters.any("image", |wanted| {
                let image =
                    if self.kind == "image" { self.attributes.get("name") } else { self.attributes.get("image") };
                self.kind == "image" && self.id == wanted
                    || image.is_some_and(|image| image == wanted || image.split(':').next() == Some(wanted))
            })
            && filters.labels(&self.attributes)
    }
}
