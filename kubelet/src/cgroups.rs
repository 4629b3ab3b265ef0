//! The groups of pods and of their classes, above those that the runtime makes (kubernetes `pkg/kubelet/cm`,
//! `pod_container_manager_linux.go`, `qos_container_manager_linux.go`).
//!
//! ```text
//! ROOT ─┬                    what of the machine is not reserved
//!       ├─ podUID            guaranteed: what its containers sum up to
//!       ├─ burstable         shares: what its pods request together
//!       │  └─ podUID
//!       └─ besteffort        the least there is
//!          └─ podUID
//! ```

use std::collections::HashMap;

use coracle_launcher::cgroup::Hierarchy;
use coracle_launcher::json::Json;
use k8s_cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::node::{HugePages, Share};
use crate::pod::qos::{self, Qos};
use crate::pod::{self, resources};

/// The groups of a node's pods. Without a root, or on a system without groups, there are none to keep.
pub struct Cgroups {
    root: String,
    hierarchy: Option<Hierarchy>,
    /// The sizes of the machine's huge pages.
    huge_pages: Vec<HugePages>,
    /// Held while groups are written, so that the last sum that is written is the newest.
    pods: Mutex<HashMap<String, Given>>,
}

/// What a pod's group was given.
#[derive(Clone)]
struct Given {
    class: Qos,
    resources: LinuxContainerResources,
}

impl Cgroups {
    pub fn new(root: &str, huge_pages: &[HugePages]) -> Self {
        let hierarchy = if root.is_empty() { None } else { Hierarchy::discover().ok() };
        let root = root.trim_end_matches('/').to_owned();
        Self { root, hierarchy, huge_pages: huge_pages.to_vec(), pods: Mutex::default() }
    }

    /// The sizes of the machine's huge pages.
    pub fn huge_pages(&self) -> &[HugePages] {
        &self.huge_pages
    }

    /// Gives the group of all pods what is theirs of the machine; false where there are no groups, or the group is the
    /// system's own. Blocks.
    pub fn enforce(&self, share: &Share) -> Result<bool, String> {
        let Some(hierarchy) = self.hierarchy.as_ref().filter(|_| !self.root.is_empty()) else { return Ok(false) };
        let cpu = i64::try_from(share.cpu_millis).unwrap_or(i64::MAX);
        let pages = share.huge_pages.iter().map(|pages| (*pages, pages.size.saturating_mul(pages.count)));
        let mut wanted = json!({ "cpu": { "shares": resources::shares(cpu) }, "memory": { "limit": share.memory } });
        if let Some(processes) = share.processes {
            wanted["pids"] = json!({ "limit": processes });
        }
        apply(hierarchy, &self.root, wanted, pages).map(|()| true)
    }

    /// Makes a pod's group, or gives it what the pod has been given now. Blocks.
    pub fn set(&self, pod: &Pod) -> Result<(), String> {
        self.write(pod, resources::of_pod(pod))
    }

    /// Before containers change: nothing becomes less than they have, and what is to be more is more already.
    pub fn widen(&self, pod: &Pod) -> Result<(), String> {
        let wanted = resources::of_pod(pod);
        let before = self.pods.lock().get(pod::uid(pod)).map(|given| given.resources.clone());
        self.write(pod, before.map_or(wanted.clone(), |before| widest(&before, &wanted)))
    }

    /// After a start of the kubelet: what `running` says that is there stays until a resize is brought to its end.
    pub fn resume(&self, pod: &Pod, running: &Pod) -> Result<(), String> {
        self.write(pod, widest(&resources::of_pod(running), &resources::of_pod(pod)))
    }

    /// What a pod's group was given last.
    pub fn given(&self, uid: &str) -> Option<LinuxContainerResources> {
        self.pods.lock().get(uid).map(|given| given.resources.clone())
    }

    /// Refuses a memory limit for the pod's group that is lower than the one it has and than what is in use: the kernel would
    /// refuse it too (v1), or kill (v2). Blocks.
    pub fn check_memory(&self, pod: &Pod) -> Result<(), String> {
        let Some((hierarchy, given)) = self.hierarchy.as_ref().zip(self.given(pod::uid(pod))) else { return Ok(()) };
        let (new, old) = (resources::of_pod(pod).memory_limit_in_bytes, given.memory_limit_in_bytes);
        if new == 0 || old != 0 && new >= old {
            return Ok(());
        }
        let path = resources::cgroup_parent(&self.root, pod);
        let group = hierarchy.group(&path).map_err(|error| error.to_string())?;
        let file = if group.is_v2() { "memory.current" } else { "memory.usage_in_bytes" };
        let Some(file) = group.dir("memory").map(|dir| dir.join(file)) else { return Ok(()) };
        let read = std::fs::read_to_string(&file).map_err(|error| format!("reading {}: {error}", file.display()))?;
        let used: i64 = read.trim().parse().map_err(|error| format!("reading {}: {error}", file.display()))?;
        // In upstream's words (kuberuntime, `validateMemoryResizeAction`).
        let why = || format!("attempting to set pod memory limit ({new}) below current usage ({used})");
        if used > new { Err(why()) } else { Ok(()) }
    }

    fn write(&self, pod: &Pod, resources: LinuxContainerResources) -> Result<(), String> {
        let Some(hierarchy) = &self.hierarchy else { return Ok(()) };
        let path = resources::cgroup_parent(&self.root, pod);
        let mut pods = self.pods.lock();
        let pages = self.huge_pages.iter().map(|pages| (*pages, resources::huge_pages(pod, *pages)));
        write(hierarchy, &path, &resources, pages).map_err(|error| {
            format!("unable to ensure pod container exists: failed to create container for {path}: {error}")
        })?;
        pods.insert(pod::uid(pod).to_owned(), Given { class: qos::of(pod), resources });
        self.write_classes(hierarchy, &pods);
        Ok(())
    }

    /// Forgets a pod, whose group is gone.
    pub fn forget(&self, uid: &str) {
        let Some(hierarchy) = &self.hierarchy else { return };
        let mut pods = self.pods.lock();
        if pods.remove(uid).is_some() {
            self.write_classes(hierarchy, &pods);
        }
    }

    /// Classes share what guaranteed pods leave: the burstable by their requests, the rest get what nobody wants.
    fn write_classes(&self, hierarchy: &Hierarchy, pods: &HashMap<String, Given>) {
        for (class, name) in [(Qos::Burstable, "burstable"), (Qos::BestEffort, "besteffort")] {
            let given = pods.values().filter(|given| given.class == class);
            let shares = given.map(|given| given.resources.cpu_shares).fold(0, i64::saturating_add);
            if shares == 0 {
                // Nobody is in it, or it is not there.
                continue;
            }
            let shares = if class == Qos::Burstable { shares } else { 0 };
            let shares = shares.clamp(resources::MIN_SHARES, resources::MAX_SHARES);
            let share = LinuxContainerResources { cpu_shares: shares, ..Default::default() };
            // The next pod brings it up to date.
            if let Err(error) = write(hierarchy, &format!("{}/{name}", self.root), &share, std::iter::empty()) {
                tracing::warn!(class = name, error, "the group of a class could not be changed");
            }
        }
    }
}

/// More of both; no limit is the most.
pub fn widest(one: &LinuxContainerResources, other: &LinuxContainerResources) -> LinuxContainerResources {
    let limit = |one: i64, other: i64| if one == 0 || other == 0 { 0 } else { one.max(other) };
    LinuxContainerResources {
        cpu_period: other.cpu_period,
        cpu_shares: one.cpu_shares.max(other.cpu_shares),
        cpu_quota: limit(one.cpu_quota, other.cpu_quota),
        memory_limit_in_bytes: limit(one.memory_limit_in_bytes, other.memory_limit_in_bytes),
        ..Default::default()
    }
}

/// Makes a group and gives it limits. A period says that quota and memory are meant too, where none is no limit.
fn write(
    hierarchy: &Hierarchy,
    path: &str,
    resources: &LinuxContainerResources,
    huge_pages: impl Iterator<Item = (HugePages, u64)>,
) -> Result<(), String> {
    let unlimited = |limit: i64| if limit == 0 { -1 } else { limit };
    let mut wanted = json!({ "cpu": { "shares": resources.cpu_shares } });
    if resources.cpu_period != 0 {
        wanted["cpu"]["period"] = resources.cpu_period.into();
        wanted["cpu"]["quota"] = unlimited(resources.cpu_quota).into();
        wanted["memory"] = json!({ "limit": unlimited(resources.memory_limit_in_bytes) });
    }
    apply(hierarchy, path, wanted, huge_pages)
}

/// The same with limits as the OCI configuration has them. Huge pages and processes are limited where the kernel counts
/// them.
fn apply(
    hierarchy: &Hierarchy,
    path: &str,
    mut wanted: Value,
    huge_pages: impl Iterator<Item = (HugePages, u64)>,
) -> Result<(), String> {
    let group = hierarchy.group(path).map_err(|error| error.to_string())?;
    group.create().map_err(|error| error.to_string())?;
    let counted = |controller: &str, file: String| group.dir(controller).is_some_and(|dir| dir.join(file).exists());
    let suffix = if group.is_v2() { "max" } else { "limit_in_bytes" };
    let limits = huge_pages.map(|(pages, limit)| (pages.group_name(), limit));
    let limits = limits.filter(|(size, _)| counted("hugetlb", format!("hugetlb.{size}.{suffix}")));
    let limits: Vec<Value> = limits.map(|(size, limit)| json!({ "pageSize": size, "limit": limit })).collect();
    if !limits.is_empty() {
        wanted["hugepageLimits"] = limits.into();
    }
    if !wanted["pids"].is_null() && !counted("pids", "pids.max".to_owned()) {
        wanted["pids"] = Value::Null;
    }
    let wanted = Json::parse(wanted.to_string().as_bytes()).map_err(|error| error.to_string())?;
    group.apply(&wanted).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_before_containers_have_let_go() {
        let of = |cpu_quota: i64, memory_limit_in_bytes: i64, cpu_shares: i64| LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota,
            memory_limit_in_bytes,
            cpu_shares,
            ..Default::default()
        };
        assert_eq!(widest(&of(1000, 64, 10), &of(2000, 32, 5)), of(2000, 64, 10));
        assert_eq!(widest(&of(0, 64, 10), &of(2000, 0, 20)), of(0, 0, 20));
    }

    /// In a group of its own, which is gone in the end.
    #[test]
    fn pods_and_classes_have_what_they_ask_for() {
        const HUGE: [&str; 2] = ["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"];
        let root = format!("/coracle-kubelet-{}", std::process::id());
        let mut facts = crate::node::Facts::read(std::path::Path::new("/"));
        facts.processes = Some(4000);
        let share = Share::of(&facts, "cpu=500m,memory=128Mi,pid=1000".parse().unwrap());
        let cgroups = Cgroups::new(&root, &share.huge_pages);
        let Some(hierarchy) = &cgroups.hierarchy else { return };
        let pod = |uid: &str, requests: serde_json::Value, limits: serde_json::Value| -> Pod {
            let resources = json!({ "requests": requests, "limits": limits });
            let containers = json!([{ "name": "a", "resources": resources }]);
            serde_json::from_value(json!({ "metadata": { "uid": uid }, "spec": { "containers": containers } })).unwrap()
        };
        let group = hierarchy.group(&root).unwrap();
        let (v2, cpu, memory) = (group.is_v2(), group.dir("cpu").unwrap(), group.dir("memory").unwrap());
        let read = |dir: &std::path::Path, at: &str, v1_file: &str, v2_file: &str| {
            let file = if v2 { v2_file } else { v1_file };
            std::fs::read_to_string(dir.join(at).join(file)).unwrap().trim().to_owned()
        };
        let shares = |at: &str| read(cpu, at, "cpu.shares", "cpu.weight");
        let weight =
            |shares: u64| if v2 { coracle_launcher::cgroup::cpu::weight_of_shares(shares) } else { shares }.to_string();
        assert!(cgroups.enforce(&share).unwrap());
        cgroups.set(&pod("one", json!({ "cpu": "500m" }), json!({}))).unwrap();
        cgroups.set(&pod("two", json!({ "cpu": "250m" }), json!({ "memory": "64Mi" }))).unwrap();
        cgroups.set(&pod("none", json!({}), json!({}))).unwrap();
        let guaranteed = |memory: &str| pod("all", json!({}), json!({ "cpu": "100m", "memory": memory }));
        cgroups.set(&guaranteed("64Mi")).unwrap();
        assert_eq!((shares("burstable"), shares("burstable/podone")), (weight(768), weight(512)));
        assert_eq!((shares("besteffort"), shares("besteffort/podnone")), (weight(2), weight(2)));
        let limit = |at: &str| read(memory, at, "memory.limit_in_bytes", "memory.max");
        assert_eq!((limit("podall"), limit("burstable/podtwo")), ((64 << 20).to_string(), (64 << 20).to_string()));
        let quota = read(cpu, "podall", "cpu.cfs_quota_us", "cpu.max");
        assert!(quota.starts_with("10000"), "{quota}");
        // All pods together have what is not reserved.
        assert_eq!(shares(""), weight(facts.cpus * 1024 - 512));
        let page = 4096;
        assert_eq!(limit(""), ((facts.memory - (128 << 20)) / page * page).to_string());
        let pids = |at: &str| read(group.dir("pids").unwrap(), at, "pids.max", "pids.max");
        assert_eq!(pids(""), "3000");
        // Huge pages are nobody's who does not ask for them.
        let asks = json!({ "memory": "64Mi", "hugepages-2Mi": "4Mi" });
        cgroups.set(&pod("huge", json!({}), asks)).unwrap();
        let huge = |at: &str| {
            let dir = group.dir("hugetlb").filter(|dir| dir.join("podall").join(HUGE[usize::from(v2)]).exists())?;
            Some(read(dir, at, HUGE[0], HUGE[1]))
        };
        if let (Some(all), Some(asking)) = (huge("podall"), huge("burstable/podhuge")) {
            assert_eq!((all.as_str(), asking.as_str()), ("0", "4194304"));
            assert_eq!(huge("").unwrap(), share.huge_pages[0].count.saturating_mul(2 << 20).to_string());
        }
        // Less: first nothing changes, then it does.
        cgroups.check_memory(&guaranteed("32Mi")).unwrap();
        cgroups.widen(&guaranteed("32Mi")).unwrap();
        assert_eq!(limit("podall"), (64 << 20).to_string());
        cgroups.resume(&guaranteed("32Mi"), &guaranteed("64Mi")).unwrap();
        assert_eq!(limit("podall"), (64 << 20).to_string());
        cgroups.set(&guaranteed("32Mi")).unwrap();
        assert_eq!(limit("podall"), (32 << 20).to_string());
        cgroups.forget("two");
        cgroups.forget("huge");
        assert_eq!(shares("burstable"), weight(512));
        for at in [
            "podall",
            "burstable/podone",
            "burstable/podtwo",
            "burstable/podhuge",
            "besteffort/podnone",
            "burstable",
            "besteffort",
            "",
        ] {
            hierarchy.group(&format!("{root}/{at}")).unwrap().remove().unwrap();
        }
    }
}
