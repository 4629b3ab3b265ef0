//! The node's own object: registration, status, lease.

mod enforce;
mod facts;
mod lease;
mod pod_range;
mod reserved;
mod status;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::{Informer, store::version_of};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use enforce::limit_pods;
pub use facts::{Facts, HugePages};
pub use pod_range::tell_pod_range;
pub use reserved::{Reserved, Share};
pub use status::allocatable_memory;

use crate::Progress;
use crate::objects::within;
use crate::work::Shared;

/// The version of Kubernetes that the node implements.
pub const VERSION: &str = "v1.36.0";

/// What an administrator says about the node.
#[derive(Debug, Clone)]
pub struct Description {
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub max_pods: u32,
    pub reserved: Reserved,
    pub addresses: Vec<IpAddr>,
    pub port: u16,
}

/// Status is written at least this often (upstream's `nodeStatusReportFrequency`).
const REPORT: Duration = Duration::from_secs(300);
/// The runtime is asked this often how it is; CRI has no event for that (upstream looks every 5 s too).
const LOOK: Duration = Duration::from_secs(5);
/// While the node is not ready it is looked at more often, so that it becomes ready at once.
const LOOK_EAGERLY: Duration = Duration::from_millis(25);
const LOOK_EAGERLY_MOST: Duration = Duration::from_millis(1000);

/// Keeps the node's object.
pub struct Keeper {
    pub shared: Arc<Shared>,
    pub description: Description,
    pub facts: Facts,
    pub progress: watch::Sender<Progress>,
    /// The node's object as the API has it.
    pub own: Arc<Informer<Node>>,
}

/// What was last written, when, and the version of the object that came of it.
struct Sent {
    status: NodeStatus,
    at: tokio::time::Instant,
    version: u64,
}

impl Keeper {
    /// Registers the node and keeps its status and lease until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let keep = async {
            let uid = self.register().await;
            self.progress.send_if_modified(|progress| advance(progress, Progress::Registered));
            tokio::join!(lease::keep(&self.shared, uid), self.keep_status());
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = keep => {}
        }
    }

    /// Creates the node's object, or takes the one that is there. Tries until it works. The object's uid.
    async fn register(&self) -> String {
        let api = Api::<Node>::all(self.shared.client.clone());
        let mut pause = Duration::from_millis(100);
        loop {
            match self.try_register(&api).await {
                Ok(uid) => return uid,
                Err(error) => tracing::warn!(error, "the node could not be registered"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(7));
        }
    }

    async fn try_register(&self, api: &Api<Node>) -> Result<String, String> {
        let name = &self.shared.node_name;
        if let Some(found) = within(api.get_opt(name)).await? {
            let labels = self.labels();
            let have = found.metadata.labels.unwrap_or_default();
            if labels.iter().any(|(key, value)| have.get(key) != Some(value)) {
                let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
                within(api.patch(name, &PatchParams::default(), &patch)).await?;
            }
            return Ok(found.metadata.uid.unwrap_or_default());
        }
        let status = self.status(None).await;
        let node = Node {
            metadata: ObjectMeta { name: Some(name.clone()), labels: Some(self.labels()), ..ObjectMeta::default() },
            spec: Some(NodeSpec {
                taints: (!self.description.taints.is_empty()).then(|| self.description.taints.clone()),
                ..NodeSpec::default()
            }),
            status: Some(status),
        };
        let created = within(api.create(&PostParams::default(), &node)).await?;
        Ok(created.metadata.uid.unwrap_or_default())
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let arch = facts::architecture();
        let own = [
            ("kubernetes.io/hostname", self.shared.node_name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch),
        ];
        let mut labels: BTreeMap<String, String> =
            own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        labels.extend(self.description.labels.clone());
        labels
    }

    async fn status(&self, old: Option<&NodeStatus>) -> NodeStatus {
        status::make(&self.shared, &self.description, &self.facts, old).await
    }

    /// Writes the status when it changes, when somebody else changed it (the node controller, of a node that was not heard
    /// of), and now and then when nothing did.
    async fn keep_status(&self) {
        let api = Api::<Node>::all(self.shared.client.clone());
        let mut changes = self.own.changes();
        let mut sent: Option<Sent> = None;
        let mut eager = LOOK_EAGERLY;
        loop {
            changes.mark_unchanged();
            let status = self.status(sent.as_ref().map(|sent| &sent.status)).await;
            if sent.as_ref().is_none_or(|sent| self.is_due(sent, &status)) {
                match self.send(&api, &status).await {
                    Ok(version) => {
                        if status::is_ready(&status) {
                            self.progress.send_if_modified(|progress| advance(progress, Progress::Ready));
                        }
                        sent = Some(Sent { status: status.clone(), at: tokio::time::Instant::now(), version });
                    }
                    Err(error) => tracing::warn!(error, "the node's status was not taken"),
                }
            }
            let ready = status::is_ready(&status) && sent.as_ref().is_some_and(|sent| status::is_ready(&sent.status));
            let pause = if ready { LOOK } else { eager };
            eager = if ready { LOOK_EAGERLY } else { (eager * 5 / 4).min(LOOK_EAGERLY_MOST) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Not before there is something to compare with: each look costs the runtime a question.
                Ok(()) = changes.changed(), if ready => {}
            }
        }
    }

    fn is_due(&self, sent: &Sent, status: &NodeStatus) -> bool {
        if sent.at.elapsed() >= REPORT || status::differs(&sent.status, status) {
            return true;
        }
        match self.own.find("", &self.shared.node_name) {
            // Older than what was written: the news of it is still on its way.
            Some(node) if version_of(&*node) < sent.version => false,
            Some(node) => status::overruled(node.status.as_ref(), status),
            None => self.own.has_synced(),
        }
    }

    /// Writes the status; the version of the object that came of it.
    async fn send(&self, api: &Api<Node>, status: &NodeStatus) -> Result<u64, String> {
        let mut status = status::beat(status, self.shared.clock.now());
        // Merged by kind otherwise: an address that is gone would stay.
        let addresses = status.addresses.take().unwrap_or_default();
        // A status holds nothing that cannot be written as JSON.
        let mut value = serde_json::to_value(&status).unwrap_or_default();
        let mut list: Vec<_> =
            addresses.iter().map(|address| json!({"type": address.type_, "address": address.address})).collect();
        list.push(json!({"$patch": "replace"}));
        value["addresses"] = json!(list);
        let patch = Patch::Strategic(json!({"status": value}));
        match within(api.patch_status(&self.shared.node_name, &PatchParams::default(), &patch)).await {
            Ok(node) => Ok(version_of(&node)),
            Err(error) => {
                // The object may have been deleted: a node that runs says so.
                self.try_register(api).await?;
                Err(error)
            }
        }
    }
}

fn advance(progress: &mut Progress, to: Progress) -> bool {
    let more = *progress < to;
    if more {
        *progress = to;
    }
    more
}
