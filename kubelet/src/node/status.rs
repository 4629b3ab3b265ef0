//! What the node says of itself (kubernetes `pkg/kubelet/nodestatus`).

use std::collections::BTreeMap;
use std::path::Path;

use coracle_api::node_features;
use coracle_api::quantity::Quantity;
use jiff::Timestamp;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Description, Facts, Reserved, Share, VERSION, facts};
use crate::work::Shared;

/// No more images are told (upstream's `nodeStatusMaxImages`).
const MAX_IMAGES: usize = 50;
/// Less free memory than this is pressure (upstream's hard eviction threshold).
const MEMORY_LEFT: u64 = 100 << 20;
/// Less free disk than a twentieth is pressure, but what is left of a large one is enough. Upstream's tenth would stop a laptop with a
/// nearly full disk from running anything; kind switches the limit off.
const DISK_SHARE_LEFT: u64 = 20;
const DISK_LEFT: u64 = 1 << 30;

/// The status now; conditions that did not change keep their times.
pub(super) async fn make(
    shared: &Shared,
    description: &Description,
    facts: &Facts,
    old: Option<&NodeStatus>,
) -> NodeStatus {
    let (version, runtime, images) = tokio::join!(
        shared.cri.version(cri::VersionRequest { version: "v1".into() }),
        shared.cri.status(cri::StatusRequest { verbose: false }),
        shared.cri.list_images(cri::ListImagesRequest { filter: None }),
    );
    let ready = match runtime {
        Ok(answer) => runtime_trouble(answer.status.map(|status| status.conditions).unwrap_or_default()),
        Err(error) => Some(format!("container runtime is down: {error}")),
    };
    let root = shared.paths.pods();
    let pressures = pressures(&root);
    let now = shared.clock.now();
    let mut conditions: Vec<NodeCondition> =
        pressures.into_iter().map(|pressure| pressure.condition(old, now)).collect();
    conditions.push(ready_condition(ready, old, now));
    let runtime_version = version.map_or_else(
        |_| {
            old.and_then(|old| old.node_info.as_ref())
                .map(|info| info.container_runtime_version.clone())
                .unwrap_or_default()
        },
        |version| format!("{}://{}", version.runtime_name, version.runtime_version),
    );
    NodeStatus {
        addresses: Some(addresses(shared, description)),
        capacity: Some(resources(description, facts, false)),
        allocatable: Some(resources(description, facts, true)),
        conditions: Some(conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(description.port) }),
        }),
        declared_features: Some(node_features::DECLARED.map(str::to_owned).to_vec()),
        images: Some(images.map(|answer| told_images(answer.images)).unwrap_or_default()),
        node_info: Some(NodeSystemInfo {
            architecture: facts::architecture().into(),
            boot_id: facts.boot_id.clone(),
            container_runtime_version: runtime_version,
            kernel_version: facts.kernel.clone(),
            kubelet_version: VERSION.into(),
            machine_id: facts.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: facts.os_image.clone(),
            system_uuid: facts.system_uuid.clone(),
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    }
}

fn addresses(shared: &Shared, description: &Description) -> Vec<NodeAddress> {
    let internal =
        std::iter::once(&shared.node_ip).chain(description.addresses.iter().filter(|ip| **ip != shared.node_ip));
    let address = |type_: &str, address: String| NodeAddress { type_: type_.into(), address };
    internal
        .map(|ip| address("InternalIP", ip.to_string()))
        .chain([address("Hostname", shared.node_name.clone())])
        .collect()
}

/// The memory that pods can have: not what is reserved, nor that below which the node is under pressure, nor huge pages.
pub fn allocatable_memory(share: &Share) -> u64 {
    share.memory.saturating_sub(MEMORY_LEFT).saturating_sub(share.huge())
}

/// The free disk below which the node is under pressure.
fn disk_left(size: u64) -> u64 {
    (size / DISK_SHARE_LEFT).min(DISK_LEFT)
}

fn resources(description: &Description, facts: &Facts, allocatable: bool) -> BTreeMap<String, resource::Quantity> {
    let share = Share::of(facts, if allocatable { description.reserved } else { Reserved::default() });
    let (memory, storage) = if allocatable {
        (allocatable_memory(&share), share.storage.saturating_sub(disk_left(facts.storage)))
    } else {
        (share.memory, share.storage)
    };
    let quantity = |quantity: Quantity| resource::Quantity(quantity.to_string());
    let kibi = |bytes: u64| resource::Quantity(format!("{}Ki", bytes / 1024));
    let mut out = BTreeMap::from([
        ("cpu".to_owned(), quantity(Quantity::from_millis(i64::try_from(share.cpu_millis).unwrap_or(i64::MAX)))),
        ("memory".to_owned(), kibi(memory)),
        ("ephemeral-storage".to_owned(), kibi(storage)),
        ("pods".to_owned(), quantity(Quantity::from_units(i64::from(description.max_pods)))),
    ]);
    for pages in share.huge_pages {
        out.insert(pages.resource(), quantity(Quantity::from_bytes(pages.size.saturating_mul(pages.count))));
    }
    out
}

fn told_images(mut images: Vec<cri::Image>) -> Vec<ContainerImage> {
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let told = images.into_iter().take(MAX_IMAGES).map(|image| {
        let names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).take(5).collect();
        ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
    });
    told.filter(|image| image.names.as_ref().is_some_and(|names| !names.is_empty())).collect()
}

/// What keeps the runtime from running pods, if anything does.
fn runtime_trouble(conditions: Vec<cri::RuntimeCondition>) -> Option<String> {
    let find = |kind: &str| conditions.iter().find(|condition| condition.r#type == kind);
    let describe =
        |c: &cri::RuntimeCondition| format!("{}={} reason:{} message:{}", c.r#type, c.status, c.reason, c.message);
    match (find("RuntimeReady"), find("NetworkReady")) {
        (None, _) => Some("container runtime status check may not have completed yet".into()),
        (Some(runtime), _) if !runtime.status => Some(format!("container runtime not ready: {}", describe(runtime))),
        (_, Some(network)) if !network.status => {
            Some(format!("container runtime network not ready: {}", describe(network)))
        }
        _ => None,
    }
}

fn ready_condition(trouble: Option<String>, old: Option<&NodeStatus>, now: Timestamp) -> NodeCondition {
    let (holds, reason, message) = match trouble {
        None => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        Some(trouble) => (false, "KubeletNotReady", trouble),
    };
    condition("Ready", holds, reason, &message, old, now)
}

struct Pressure {
    kind: &'static str,
    holds: bool,
    /// (reason, message) when it holds, and when it does not.
    words: [(&'static str, &'static str); 2],
}

impl Pressure {
    fn condition(self, old: Option<&NodeStatus>, now: Timestamp) -> NodeCondition {
        let (reason, message) = self.words[usize::from(!self.holds)];
        condition(self.kind, self.holds, reason, message, old, now)
    }
}

fn pressures(root: &Path) -> [Pressure; 3] {
    let memory = facts::memory("MemAvailable");
    let disk = facts::disk(root).is_some_and(|disk| disk.available < disk_left(disk.size));
    let processes = facts::processes().is_some_and(|(most, now)| most.saturating_sub(now) < most / 10);
    [
        Pressure {
            kind: "MemoryPressure",
            holds: memory > 0 && memory < MEMORY_LEFT,
            words: [
                ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ],
        },
        Pressure {
            kind: "DiskPressure",
            holds: disk,
            words: [
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ],
        },
        Pressure {
            kind: "PIDPressure",
            holds: processes,
            words: [
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ],
        },
    ]
}

fn condition(
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    old: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeCondition {
    let status = if holds { "True" } else { "False" };
    let before = old
        .and_then(|old| old.conditions.as_ref())
        .and_then(|all| all.iter().find(|c| c.type_ == kind && c.status == status));
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    NodeCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_heartbeat_time: before.and_then(|before| before.last_heartbeat_time.clone()).or_else(|| Some(now.clone())),
        last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(now)),
    }
}

/// Whether a status has to be written though it is not time: anything but heartbeats changed.
pub(super) fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    old != new
}

/// Whether the API says something else of a condition than the node does.
pub(super) fn overruled(api: Option<&NodeStatus>, own: &NodeStatus) -> bool {
    let conditions =
        |status: Option<&NodeStatus>| status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    let told = conditions(api);
    conditions(Some(own)).iter().any(|own| {
        let told = told.iter().find(|told| told.type_ == own.type_);
        told.is_none_or(|told| told.status != own.status || told.reason != own.reason)
    })
}

/// The status with the heartbeat of now.
pub(super) fn beat(status: &NodeStatus, now: Timestamp) -> NodeStatus {
    let mut status = status.clone();
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = Some(now.clone());
    }
    status
}

pub(super) fn is_ready(status: &NodeStatus) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_controller_says_of_a_silent_node_is_noticed() {
        use k8s_openapi::api::core::v1::NodeCondition;
        let with = |status: &str, reason: &str| NodeStatus {
            conditions: Some(vec![NodeCondition {
                type_: "Ready".into(),
                status: status.into(),
                reason: Some(reason.into()),
                ..NodeCondition::default()
            }]),
            ..NodeStatus::default()
        };
        let own = with("True", "KubeletReady");
        assert!(!overruled(Some(&own), &own));
        assert!(overruled(Some(&with("Unknown", "NodeStatusUnknown")), &own));
        assert!(overruled(None, &own));
    }

    #[test]
    fn a_share_of_a_small_disk_is_left_and_enough_of_a_large_one() {
        assert_eq!((disk_left(10 << 30), disk_left(250 << 30)), (512 << 20, 1 << 30));
    }

    fn runtime(kind: &str, status: bool) -> cri::RuntimeCondition {
        cri::RuntimeCondition { r#type: kind.into(), status, reason: "Why".into(), message: "so".into() }
    }

    #[test]
    fn readiness_is_the_runtimes_and_its_networks() {
        assert_eq!(runtime_trouble(vec![runtime("RuntimeReady", true), runtime("NetworkReady", true)]), None);
        assert_eq!(
            runtime_trouble(vec![runtime("RuntimeReady", true), runtime("NetworkReady", false)]).unwrap(),
            "container runtime network not ready: NetworkReady=false reason:Why message:so"
        );
        assert!(runtime_trouble(vec![]).is_some() && runtime_trouble(vec![runtime("RuntimeReady", false)]).is_some());
    }

    #[test]
    fn conditions_keep_their_times() {
        let early = Timestamp::UNIX_EPOCH;
        let late = early + jiff::SignedDuration::from_secs(60);
        let old = NodeStatus { conditions: Some(vec![ready_condition(None, None, early)]), ..NodeStatus::default() };
        let same =
            NodeStatus { conditions: Some(vec![ready_condition(None, Some(&old), late)]), ..NodeStatus::default() };
        assert!(!differs(&old, &same) && is_ready(&same));
        assert_eq!(beat(&same, late).conditions.unwrap()[0].last_heartbeat_time, Some(Time(late)));
        let down = ready_condition(Some("x".into()), Some(&old), late);
        assert_eq!((down.status.as_str(), down.last_transition_time), ("False", Some(Time(late))));
    }
}
