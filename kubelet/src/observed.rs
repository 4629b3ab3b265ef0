//! What the runtime has of a pod: the snapshot that plans are made on.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::ResourceRequirements;

use crate::cri::{Cri, Error};

/// Labels of sandboxes and containers, as upstream's kubelet sets them.
pub mod label {
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
}

/// Annotations of containers, as upstream's kubelet sets them.
pub mod annotation {
    pub const HASH: &str = "io.kubernetes.container.hash";
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// The requests and limits that a container was started with. Upstream's kubelet keeps them in a file.
    pub const RESOURCES: &str = "io.coracle.container.resources";
    /// Those that a pod had as a whole when its sandbox was made.
    pub const POD_RESOURCES: &str = "io.coracle.pod.resources";
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Made, never started.
    Created,
    Running,
    Exited,
    /// The runtime lost sight of it.
    Unknown,
}

/// One run of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    pub id: String,
    pub name: String,
    pub sandbox: String,
    /// How many runs came before.
    pub attempt: u32,
    pub state: State,
    pub created: Timestamp,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub image: String,
    pub image_id: String,
    /// Of the container's definition when it was made.
    pub hash: String,
    pub log_path: String,
    /// What it was started with, where its container can be resized.
    pub resources: Option<ResourceRequirements>,
}

impl Instance {
    pub fn running(&self) -> bool {
        self.state == State::Running
    }
    /// Whether it will never run again.
    pub fn ended(&self) -> bool {
        matches!(self.state, State::Exited | State::Unknown)
    }
}

/// One sandbox of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created: Timestamp,
    /// The pod's addresses; empty in the host's network.
    pub addresses: Vec<String>,
    /// What the pod had as a whole when it was made.
    pub resources: Option<ResourceRequirements>,
}

/// What the runtime has of one pod, newest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub instances: Vec<Instance>,
}

impl Observed {
    /// The sandbox that containers run in now.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().find(|sandbox| sandbox.ready)
    }
    /// The newest run of a container.
    pub fn latest(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == name)
    }
    /// The run of a container before the newest.
    pub fn previous(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().filter(|instance| instance.name == name).nth(1)
    }
}

/// CRI's times are nanoseconds; zero is none.
fn time(nanos: i64) -> Option<Timestamp> {
    if nanos <= 0 { None } else { Timestamp::from_nanosecond(i128::from(nanos)).ok() }
}

/// Reads a pod's state from the runtime. What cannot change any more is asked for once.
#[derive(Debug, Default)]
pub struct Observer {
    addresses: HashMap<String, Vec<String>>,
    ended: HashMap<String, Instance>,
}

impl Observer {
    /// What the runtime has of the pod `uid` now.
    pub async fn observe(&mut self, cri: &Cri, uid: &str) -> Result<Observed, Error> {
        let labels = HashMap::from([(label::POD_UID.to_owned(), uid.to_owned())]);
        let sandboxes = cri::PodSandboxFilter { label_selector: labels.clone(), ..Default::default() };
        let containers = cri::ContainerFilter { label_selector: labels, ..Default::default() };
        let (sandboxes, containers) = tokio::try_join!(
            cri.list_pod_sandbox(cri::ListPodSandboxRequest { filter: Some(sandboxes) }),
            cri.list_containers(cri::ListContainersRequest { filter: Some(containers) }),
        )?;
        let mut observed = Observed::default();
        for found in sandboxes.items {
            observed.sandboxes.push(self.sandbox(cri, found).await?);
        }
        for found in containers.containers {
            observed.instances.extend(self.instance(cri, found).await?);
        }
        observed.sandboxes.sort_by(|a, b| b.created.cmp(&a.created).then(b.attempt.cmp(&a.attempt)));
        observed.instances.sort_by(|a, b| b.created.cmp(&a.created).then(b.attempt.cmp(&a.attempt)));
        self.ended.retain(|id, _| observed.instances.iter().any(|instance| instance.id == *id));
        self.addresses.retain(|id, _| observed.sandboxes.iter().any(|sandbox| sandbox.id == *id));
        Ok(observed)
    }

    async fn sandbox(&mut self, cri: &Cri, found: cri::PodSandbox) -> Result<Sandbox, Error> {
        let ready = found.state == cri::PodSandboxState::SandboxReady as i32;
        let addresses = match self.addresses.get(&found.id) {
            Some(known) => known.clone(),
            None if ready => {
                let request = cri::PodSandboxStatusRequest { pod_sandbox_id: found.id.clone(), verbose: false };
                let addresses = match cri.pod_sandbox_status(request).await {
                    Ok(answer) => addresses(answer.status.and_then(|status| status.network)),
                    Err(error) if error.is_not_found() => Vec::new(),
                    Err(error) => return Err(error),
                };
                self.addresses.insert(found.id.clone(), addresses.clone());
                addresses
            }
            None => Vec::new(),
        };
        Ok(Sandbox {
            ready,
            attempt: found.metadata.map_or(0, |metadata| metadata.attempt),
            created: time(found.created_at).unwrap_or_default(),
            resources: found
                .annotations
                .get(annotation::POD_RESOURCES)
                .and_then(|text| serde_json::from_str(text).ok()),
            id: found.id,
            addresses,
        })
    }

    async fn instance(&mut self, cri: &Cri, found: cri::Container) -> Result<Option<Instance>, Error> {
        if let Some(known) = self.ended.get(&found.id) {
            return Ok(Some(known.clone()));
        }
        let request = cri::ContainerStatusRequest { container_id: found.id.clone(), verbose: false };
        let status = match cri.container_status(request).await {
            Ok(answer) => answer.status,
            // Removed between the list and now.
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(status) = status else { return Ok(None) };
        let words = LastWords::of(&status);
        let mut instance = instance(status, found.pod_sandbox_id);
        if instance.ended() {
            let read = tokio::task::spawn_blocking(move || words.read()).await;
            if let Ok(Some(message)) = read {
                instance.message = message;
            }
            self.ended.insert(instance.id.clone(), instance.clone());
        }
        Ok(Some(instance))
    }
}

/// Bounds of a termination message (kubernetes `pkg/kubelet/container`, `MaxContainerTerminationMessage…`).
const MAX_MESSAGE: u64 = 4096;
const MAX_LOG_MESSAGE: u64 = 2048;
const MAX_LOG_LINES: usize = 80;

/// Where a container left the reason of its end.
struct LastWords {
    file: Option<String>,
    /// The log, for a container that failed and whose pod wants that.
    log: Option<String>,
}

impl LastWords {
    fn of(status: &cri::ContainerStatus) -> Self {
        let path = status.annotations.get(annotation::TERMINATION_PATH);
        let file = path.and_then(|path| status.mounts.iter().find(|mount| mount.container_path == *path));
        let fallback = status
            .annotations
            .get(annotation::TERMINATION_POLICY)
            .is_some_and(|policy| policy == "FallbackToLogsOnError");
        Self {
            file: file.map(|mount| mount.host_path.clone()),
            log: (fallback && status.exit_code != 0).then(|| status.log_path.clone()),
        }
    }

    /// Reads them. Blocks.
    fn read(&self) -> Option<String> {
        let written =
            self.file.as_deref().and_then(|path| read_text(path, MAX_MESSAGE, false)).filter(|text| !text.is_empty());
        written.or_else(|| {
            let text = read_text(self.log.as_deref()?, MAX_LOG_MESSAGE * 2, true)?;
            let lines: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
            let mut text = lines[lines.len().saturating_sub(MAX_LOG_LINES)..].join("\n");
            let over = text.len().saturating_sub(usize::try_from(MAX_LOG_MESSAGE).unwrap_or(0));
            let start = (over..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.drain(..start);
            (!text.is_empty()).then_some(text)
        })
    }
}

/// The first (or last) bytes of a regular file. A container writes into it, and may have made something else of it.
fn read_text(path: &str, most: u64, from_end: bool) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() {
        return None;
    }
    if from_end {
        file.seek(SeekFrom::Start(metadata.len().saturating_sub(most))).ok()?;
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn addresses(network: Option<cri::PodSandboxNetworkStatus>) -> Vec<String> {
    let Some(network) = network else { return Vec::new() };
    let others = network.additional_ips.into_iter().map(|additional| additional.ip);
    std::iter::once(network.ip).chain(others).filter(|ip| !ip.is_empty()).collect()
}

fn instance(status: cri::ContainerStatus, sandbox: String) -> Instance {
    let state = match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::ContainerCreated) => State::Created,
        Ok(cri::ContainerState::ContainerRunning) => State::Running,
        Ok(cri::ContainerState::ContainerExited) => State::Exited,
        Ok(cri::ContainerState::ContainerUnknown) | Err(_) => State::Unknown,
    };
    let mut annotations = status.annotations;
    let metadata = status.metadata.unwrap_or_default();
    let counted = annotations.get(annotation::RESTART_COUNT).and_then(|count| count.parse().ok());
    let image = status.image.unwrap_or_default();
    Instance {
        id: status.id,
        sandbox,
        attempt: counted.unwrap_or(metadata.attempt),
        name: status.labels.get(label::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        state,
        created: time(status.created_at).unwrap_or_default(),
        started: time(status.started_at),
        finished: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image },
        image_id: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
        hash: annotations.remove(annotation::HASH).unwrap_or_default(),
        log_path: status.log_path,
        resources: annotations.get(annotation::RESOURCES).and_then(|text| serde_json::from_str(text).ok()),
    }
}

/// What every pod on the node has, told apart cheaply: to find out whose state changed, and what belongs to nobody.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overview(pub BTreeMap<String, PodOverview>);

/// One pod in an [`Overview`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PodOverview {
    pub namespace: String,
    pub name: String,
    /// Ids and states of sandboxes and containers.
    pub parts: BTreeMap<String, i32>,
}

impl Overview {
    /// Asks the runtime.
    pub async fn take(cri: &Cri) -> Result<Self, Error> {
        let (sandboxes, containers) = tokio::try_join!(
            cri.list_pod_sandbox(cri::ListPodSandboxRequest { filter: None }),
            cri.list_containers(cri::ListContainersRequest { filter: None }),
        )?;
        let mut overview = Self::default();
        let parts = sandboxes.items.into_iter().map(|s| (s.labels, s.id, s.state));
        for (labels, id, state) in parts.chain(containers.containers.into_iter().map(|c| (c.labels, c.id, c.state))) {
            // What carries no uid was not made by a kubelet: it is someone else's and left alone.
            let Some(uid) = labels.get(label::POD_UID) else { continue };
            let pod = overview.0.entry(uid.clone()).or_default();
            pod.namespace = labels.get(label::POD_NAMESPACE).cloned().unwrap_or_default();
            pod.name = labels.get(label::POD_NAME).cloned().unwrap_or_default();
            pod.parts.insert(id, state);
        }
        Ok(overview)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_read_from_file_or_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("message"), "why").unwrap();
        std::fs::write(path("empty"), "").unwrap();
        std::fs::write(path("log"), "2026-01-01T00:00:00Z stderr F one\n2026-01-01T00:00:00Z stderr F two words\n")
            .unwrap();
        std::os::unix::fs::symlink(path("message"), path("link")).unwrap();
        let read = |file: &str, log: Option<&str>| LastWords { file: Some(path(file)), log: log.map(path) }.read();
        assert_eq!(read("message", Some("log")).as_deref(), Some("why"));
        assert_eq!(read("empty", Some("log")).as_deref(), Some("one\ntwo words"));
        assert_eq!(read("empty", None), None);
        assert_eq!(read("link", None), None);
    }
}
