//! What a pod has been given, on disk beside its volumes, where it goes with them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};

use crate::observed::Observed;
use crate::pod;
use crate::pod::requests::{self, Resources};

/// Written when a pod is resized, read when a kubelet meets it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    #[serde(default)]
    pub generation: Option<i64>,
    #[serde(flatten)]
    pub allocated: Resources,
    /// By run: what it has, with the limits that are its pod's.
    #[serde(default)]
    pub actuated: BTreeMap<String, ResourceRequirements>,
}

impl Record {
    /// The record of a pod, or what follows from what runs: annotations say what sandbox and runs were started with.
    pub fn of(path: &Path, pod: &Arc<Pod>, observed: &Observed) -> Self {
        if let Some(record) = Self::load(path) {
            return record;
        }
        let mut allocated = requests::desired(pod);
        for (name, resources) in &mut allocated.containers {
            let started = observed.latest(name).and_then(|latest| latest.resources.clone());
            if let Some((started, (_, container))) = started.zip(pod::container(pod, name)) {
                *resources = requests::without_inherited(&container, started);
            }
        }
        if let Some(started) = observed.sandbox().and_then(|sandbox| sandbox.resources.clone()) {
            allocated.pod = (started != ResourceRequirements::default()).then_some(started);
        }
        Self { generation: None, allocated, actuated: BTreeMap::new() }
    }

    /// The pod with what is known to run of it: not more than it was given while a resize goes on.
    pub fn running(&self, pod: &Arc<Pod>, observed: &Observed) -> Arc<Pod> {
        let mut has = self.allocated.clone();
        for (name, resources) in &mut has.containers {
            let Some(latest) = observed.latest(name) else { continue };
            let known = self.actuated.get(&latest.id).or(latest.resources.as_ref()).cloned();
            if let Some((known, (_, container))) = known.zip(pod::container(pod, name)) {
                *resources = requests::without_inherited(&container, known);
            }
        }
        // The API was told last what the pod as a whole has.
        let told = pod.status.as_ref().and_then(|status| status.resources.clone());
        if has.pod.is_some()
            && let Some(told) = told
        {
            has.pod = Some(told);
        }
        requests::with_allocated(pod, &has)
    }

    /// Blocks. A file that cannot be read as one is none.
    pub fn load(path: &Path) -> Option<Self> {
        let text = std::fs::read(path).ok()?;
        serde_json::from_slice(&text).inspect_err(|error| tracing::warn!(error = %error, "a record is torn")).ok()
    }

    /// Blocks. The old one stays until the new one is whole.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        std::fs::create_dir_all(directory)?;
        let draft = path.with_extension("new");
        // The new content is on the disk before the name is: after a power loss there is the one or the other.
        let mut file = std::fs::File::create(&draft)?;
        io::Write::write_all(&mut file, &serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        std::fs::File::open(directory)?.sync_all()
    }
}

/// What a container is started with, as its annotation keeps it.
pub fn annotation(pod: &Pod, container: &str) -> Option<String> {
    let (role, container) = pod::container(pod, container)?;
    let resources = requests::effective(pod, &container);
    requests::resizable(role).then(|| serde_json::to_string(&resources).ok()).flatten()
}

/// What a pod as a whole is started with, as its sandbox's annotation keeps it.
pub fn annotation_of_pod(pod: &Pod) -> Option<String> {
    let own = pod.spec.as_ref().and_then(|spec| spec.resources.clone());
    serde_json::to_string(&own.unwrap_or_default()).ok()
}
