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
    pub allocated: Resources,
    #[serde(default)]
    pub actuated: BTreeMap<String, ResourceRequirements>,
}

impl Record {
    /// The record of a pod, or what follows from what runs: a run's annotation says what it was started with.
    pub fn of(path: &Path, pod: &Arc<Pod>, observed: &Observed) -> Self {
        if let Some(record) = Self::load(path) {
            return record;
        }
        let mut allocated = requests::desired(pod);
        for (name, resources) in &mut allocated {
            if let Some(started) = observed.latest(name).and_then(|latest| latest.resources.clone()) {
                *resources = started;
            }
        }
        Self { generation: None, allocated, actuated: BTreeMap::new() }
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
    let resources = container.resources.clone().unwrap_or_default();
    requests::resizable(role).then(|| serde_json::to_string(&resources).ok()).flatten()
}
