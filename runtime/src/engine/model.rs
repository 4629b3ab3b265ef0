//! The engine's nouns: sandboxes and containers as asked for, and as they are.

use std::{collections::BTreeMap, fmt, sync::Arc};

use coracle_launcher::identity::{Mapping, Mappings};
use serde::{Deserialize, Serialize};

use super::{Sandbox, selinux::Labels};
use crate::{cni::Bandwidth, digest::Digest};

/// A sandbox as asked for: what a pod's containers share.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxConfig {
    pub name: String,
    pub uid: String,
    pub namespace: String,
    pub attempt: u32,
    pub hostname: String,
    /// Where the containers' relative log paths begin.
    pub log_directory: String,
    pub dns: Option<Dns>,
    pub port_mappings: Vec<PortMapping>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The group that its containers' groups are in; empty for the engine's own choice.
    pub cgroup_parent: String,
    pub sysctls: BTreeMap<String, String>,
    /// How much of the network it may use.
    #[serde(default)]
    pub bandwidth: Bandwidth,
    pub host_network: bool,
    pub host_ipc: bool,
    pub host_pid: bool,
    /// Containers that ask for it see each other's processes.
    pub shared_pid: bool,
    pub privileged: bool,
    pub runtime_handler: String,
    /// Options of SELinux's labels ([`super::selinux::Selinux::init`]).
    #[serde(default)]
    pub selinux: Vec<String>,
    /// Users and groups of its own; empty for the host's.
    #[serde(default)]
    pub users: IdMappings,
    /// Made for one container of the same id, and nobody else's business: not shown to CRI.
    #[serde(default)]
    pub standalone: bool,
}

/// Which of the host's users and groups stand for those of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMappings {
    pub users: Vec<IdRange>,
    pub groups: Vec<IdRange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    pub size: u32,
}

impl IdMappings {
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The same for the launcher.
    pub fn mappings(&self) -> Mappings {
        let of = |ranges: &[IdRange]| {
            let of = |range: &IdRange| Mapping { inside: range.inside, outside: range.outside, size: range.size };
            ranges.iter().map(of).collect()
        };
        Mappings { users: of(&self.users), groups: of(&self.groups) }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortMapping {
    /// `tcp`, `udp` or `sctp`
    pub protocol: String,
    pub container_port: u16,
    pub host_port: u16,
    pub host_ip: String,
}

/// A sandbox as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxState {
    /// False once it is stopped.
    pub ready: bool,
    /// Nanoseconds since 1970.
    pub created_at: i64,
    pub ips: Vec<String>,
    /// The network was given back.
    pub network_released: bool,
    /// SELinux's names for the pod's processes and files.
    #[serde(default)]
    pub labels: Labels,
    /// What the kubelet gave the pod's group for the sandbox itself and for its containers together: told in answers, no
    /// limit of ours (CRI, `LinuxPodSandboxConfig`).
    #[serde(default)]
    pub overhead: Option<Resources>,
    #[serde(default)]
    pub resources: Option<Resources>,
}

/// A container as asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub name: String,
    pub attempt: u32,
    /// As the caller named it.
    pub image: String,
    /// As the user named it.
    pub user_image: String,
    /// Told as they were asked for.
    #[serde(default)]
    pub image_annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub image_handler: String,
    /// In place of the image's entry point.
    pub command: Vec<String>,
    /// In place of the image's arguments.
    pub args: Vec<String>,
    pub working_dir: String,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// From the sandbox's log directory; empty for no log.
    pub log_path: String,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    /// What it is asked to end with, in place of the image's signal.
    #[serde(default)]
    pub stop_signal: Option<i32>,
    /// Devices that files on the node describe, as `vendor/class=name`.
    #[serde(default)]
    pub cdi_devices: Vec<String>,
    pub resources: Resources,
    pub security: Security,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Mount {
    pub container_path: String,
    pub host_path: String,
    pub readonly: bool,
    pub recursive_read_only: bool,
    pub propagation: Propagation,
    /// Its files get SELinux's label of the container's.
    #[serde(default)]
    pub relabel: bool,
    /// Who its owners are; empty for as they are.
    #[serde(default)]
    pub owners: IdMappings,
    /// An image whose files are mounted, in place of the host's.
    #[serde(default)]
    pub image: Option<MountedImage>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MountedImage {
    /// As the caller named it.
    pub name: String,
    /// A digest name of it, or the id; found when the container is made.
    #[serde(default)]
    pub reference: String,
    /// Its layers, which must stay while the container is there; found when the container is made.
    pub chains: Vec<Digest>,
    /// The directory of it that is mounted; empty for all.
    #[serde(default)]
    pub sub_path: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Device {
    pub container_path: String,
    pub host_path: String,
    pub permissions: String,
}

impl ContainerConfig {
    /// Layers of the images that are mounted into it.
    pub fn mounted_chains(&self) -> impl Iterator<Item = &Digest> {
        self.mounts.iter().filter_map(|mount| mount.image.as_ref()).flat_map(|image| &image.chains)
    }
}

/// Limits; 0 or empty leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpu_shares: i64,
    pub memory_limit: i64,
    pub memory_swap_limit: i64,
    pub oom_score_adj: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub pids_limit: i64,
    /// Page size and bytes.
    pub hugepages: Vec<(String, u64)>,
    pub unified: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Security {
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub add_ambient_capabilities: Vec<String>,
    pub privileged: bool,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// Use the sandbox's pid namespace.
    pub shared_pid: bool,
    /// Use the pid namespace of this container's process.
    pub pid_of: Option<String>,
    /// The users that it takes for its sandbox's; none where it does not say.
    #[serde(default)]
    pub users: Option<IdMappings>,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_username: String,
    pub readonly_rootfs: bool,
    pub supplemental_groups: Vec<i64>,
    /// Only the groups given, not those of the image's `/etc/group`.
    pub strict_groups: bool,
    pub no_new_privileges: bool,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub seccomp: Seccomp,
    /// A profile that the kernel has, or `unconfined`; empty for the default one.
    #[serde(default)]
    pub apparmor: String,
    /// Options of SELinux's labels; none for the pod's.
    #[serde(default)]
    pub selinux: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// A profile on the node.
    Localhost(String),
}

/// Who a container's first process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Its home directory.
    #[serde(default)]
    pub home: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    #[default]
    Created,
    Running,
    Exited,
}

/// As CRI calls it.
impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Status::Created => "CONTAINER_CREATED",
            Status::Running => "CONTAINER_RUNNING",
            Status::Exited => "CONTAINER_EXITED",
        })
    }
}

/// A container as it is. Times are nanoseconds since 1970, 0 for never.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerState {
    pub status: Status,
    pub pid: u32,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `Unknown`, `StartError`; empty while it runs.
    pub reason: String,
    pub message: String,
    pub resources: Resources,
}

impl ContainerState {
    /// Its process runs since `at`, as far as is known: that it has ended may have been told before.
    pub(super) fn started(&mut self, pid: u32, at: u64) {
        if self.status == Status::Created {
            self.status = Status::Running;
            self.pid = pid;
        }
        self.started_at = i64::try_from(at).unwrap_or_default();
    }
}

/// What of its image a container keeps for itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerImage {
    pub id: Digest,
    /// A digest name of it, or the id.
    pub reference: String,
    /// Layers that must stay while the container is there.
    pub chains: Vec<Digest>,
    pub stop_signal: String,
}

/// What happens to sandboxes and containers.
#[derive(Clone)]
pub struct Event {
    pub kind: EventKind,
    /// Container, or sandbox where it is the sandbox that changed.
    pub id: String,
    /// Itself: when a listener hears of its end it is in no list any more.
    pub sandbox: Option<Arc<Sandbox>>,
    /// Nanoseconds since 1970.
    pub at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Created,
    Started,
    Stopped,
    Deleted,
}

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// An id nobody can guess: 64 hexadecimal digits, as containerd's and Docker's.
pub fn new_id() -> String {
    (0..4).map(|_| format!("{:016x}", fastrand::u64(..))).collect()
}
