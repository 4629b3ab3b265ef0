//! Actions carried out over CRI and the API. Nothing here decides what to do.

mod resize;
mod sandbox;
mod start;
mod stop;
mod users;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use coracle_api::clock::Clock;
use coracle_client::{EventType, Recorder};
use coracle_link::Place;
use k8s_cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};
use kube::Client;
use tokio::sync::Semaphore;

pub use resize::{Resizing, resize};
pub use sandbox::{config as sandbox_config, create as create_sandbox};
pub use start::start;
pub use stop::stop;

use crate::allocation::Allocations;
use crate::cgroups::Cgroups;
use crate::cri::Cri;
use crate::objects;
use crate::observed::Observed;
use crate::pod::dns::{ClusterDns, HostDns};
use crate::pod::env::Facts;
use crate::pod::sysctls::SysctlPattern;
use crate::pod::{self};
use crate::volumes::{self, Paths};

/// What all pods of the node share.
pub struct Shared {
    pub node_name: String,
    pub node_ip: IpAddr,
    pub place: Place,
    pub paths: Paths,
    pub cri: Cri,
    pub client: Client,
    pub recorder: Recorder,
    pub clock: Arc<dyn Clock>,
    pub cgroup_parent: String,
    pub cgroups: Cgroups,
    pub cluster_dns: ClusterDns,
    pub host_dns: HostDns,
    pub memory_capacity: u64,
    pub cpu_millis: i64,
    /// Whether the node has AppArmor.
    pub apparmor: bool,
    /// Kernel parameters beside the safe ones that pods may set.
    pub sysctls: Vec<SysctlPattern>,
    pub storage_capacity: u64,
    /// What each pod has been given of CPU and memory.
    pub allocations: Allocations,
    /// The runtime's own name, which stands before its containers' ids; known once it has answered.
    pub runtime_name: OnceLock<String>,
    /// Bounds the pulls that run at a time.
    pub pulls: Semaphore,
}

/// Why something did not work: a reason of the API and words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub reason: &'static str,
    pub message: String,
}

impl Trouble {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl Shared {
    /// The runtime's name.
    pub fn runtime_name(&self) -> &str {
        self.runtime_name.get().map_or("cri", String::as_str)
    }

    /// What a container's group is to have.
    pub fn resources_of(&self, pod: &Pod, container: &Container) -> LinuxContainerResources {
        pod::resources::of_container(pod, container, self.memory_capacity, self.cgroups.huge_pages())
    }

    /// Tells an event about a pod, or about one of its containers.
    pub fn tell(&self, pod: &Pod, container: Option<&str>, kind: EventType, reason: &str, message: &str) {
        let field_path = container.map(|name| {
            let list = match pod::container(pod, name) {
                Some((pod::Role::Init | pod::Role::Sidecar, _)) => "initContainers",
                Some((pod::Role::Ephemeral, _)) => "ephemeralContainers",
                _ => "containers",
            };
            format!("spec.{list}{{{name}}}")
        });
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path,
        };
        self.recorder.record(&about, kind, reason, message);
    }

    /// What a pod is told about itself and the node.
    pub fn facts(&self, pod: &Pod, observed: &Observed) -> Facts {
        let host_ip = self.node_ip.to_string();
        let addresses = observed.sandbox().map(|sandbox| sandbox.addresses.clone()).unwrap_or_default();
        Facts {
            pod_ips: if pod::host_network(pod) { vec![host_ip.clone()] } else { addresses },
            host_ip,
            node_cpu_millis: self.cpu_millis,
            node_memory: i64::try_from(self.memory_capacity).unwrap_or(i64::MAX),
            node_ephemeral_storage: i64::try_from(self.storage_capacity).unwrap_or(i64::MAX),
        }
    }
}

/// Makes a pod's volumes, or brings them up to date.
pub async fn prepare_volumes(shared: Arc<Shared>, pod: Arc<Pod>) -> Result<(), Trouble> {
    let failed = |message: String| {
        shared.tell(&pod, None, EventType::Warning, "FailedMount", &message);
        Trouble::new("FailedMount", message)
    };
    let objects =
        objects::fetch(&shared.client, pod::namespace(&pod), &volumes::references(&pod)).await.map_err(failed)?;
    let tokens = objects::tokens(&shared.client, &pod, &volumes::token_requests(&pod)).await.map_err(failed)?;
    let facts = shared.facts(&pod, &Observed::default());
    let (paths, of) = (shared.paths.clone(), pod.clone());
    let made = tokio::task::spawn_blocking(move || volumes::prepare(&paths, &of, &objects, &facts, &tokens)).await;
    match made {
        Ok(made) => made.map_err(failed),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Removes what a pod left on the node.
pub async fn clean_up(
    shared: &Arc<Shared>,
    namespace: &str,
    name: &str,
    uid: &str,
    cgroup: Option<String>,
) -> Result<(), Trouble> {
    let (shared, paths) = (shared.clone(), shared.paths.clone());
    let (namespace, name, uid) = (namespace.to_owned(), name.to_owned(), uid.to_owned());
    let removed = tokio::task::spawn_blocking(move || {
        if let Some(cgroup) = cgroup {
            remove_cgroup(&cgroup);
        }
        shared.cgroups.forget(&uid);
        volumes::remove(&paths, &namespace, &name, &uid)
    })
    .await;
    match removed {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Trouble::new("FailedCleanUp", error.to_string())),
        Err(error) => Err(Trouble::new("FailedCleanUp", error.to_string())),
    }
}

/// Removes the pod's own cgroup in every hierarchy; the runtime removes those of its containers. One that is still in use
/// stays, and so does one that was never made.
fn remove_cgroup(cgroup: &str) {
    let relative = cgroup.trim_start_matches('/');
    if relative.is_empty() || relative.split('/').any(|part| part == "..") {
        return;
    }
    let root = std::path::Path::new("/sys/fs/cgroup");
    // On cgroup v2 the root is the hierarchy; on v1 each directory in it is one.
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    for hierarchy in std::iter::once(root.to_owned()).chain(hierarchies) {
        let _ = std::fs::remove_dir(hierarchy.join(relative));
    }
}
