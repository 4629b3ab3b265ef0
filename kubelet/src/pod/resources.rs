//! From requests and limits to cgroup values (kubernetes `pkg/kubelet/cm/helpers_linux.go`, `pkg/kubelet/qos/policy.go`).

use coracle_api::quantity::Quantity;
use k8s_cri::v1::{HugepageLimit, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::requests::{self, Amounts};
use super::{containers, qos};
use crate::node::HugePages;
use crate::pod::qos::Qos;

const PERIOD: i64 = 100_000;
const MIN_QUOTA: i64 = 1000;
pub const MIN_SHARES: i64 = 2;
pub const MAX_SHARES: i64 = 262_144;

pub fn shares(millis: i64) -> i64 {
    (millis.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

fn quota(millis: i64) -> i64 {
    if millis == 0 { 0 } else { (millis.saturating_mul(PERIOD) / 1000).max(MIN_QUOTA) }
}

/// How readily the kernel takes a container when memory is short: -997 last, 1000 first.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: u64) -> i64 {
    /// Pods of these priorities are critical for the node or the cluster.
    const CRITICAL: i32 = 2_000_000_000;
    if pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= CRITICAL) {
        return -997;
    }
    match qos::of(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = qos::request(container, "memory").units().saturating_add(memory_for_each(pod));
            let request = i128::from(request);
            let share = 1000 * request / i128::from(memory_capacity.max(1));
            // Never as safe as guaranteed, never as exposed as best effort.
            i64::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// What each container has of the memory that the pod asks for as a whole and none of them asks for (KEP-2837).
fn memory_for_each(pod: &Pod) -> i64 {
    let Some(own) = qos::own_request(pod, "memory") else { return 0 };
    let count = pod.spec.as_ref().map_or(0, |spec| spec.containers.len()).max(1);
    let left = own.units().saturating_sub(requests::of_containers(pod).memory).max(0);
    left / i64::try_from(count).unwrap_or(i64::MAX)
}

/// A container's cgroup values. Where it has no limit it has the pod's: programs read them there.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    memory_capacity: u64,
    huge_pages: &[HugePages],
) -> LinuxContainerResources {
    let limit = |resource: &str| {
        let own = qos::limit(container, resource);
        if own.is_zero() { qos::own_limit(pod, resource).unwrap_or(own) } else { own }
    };
    LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: quota(limit("cpu").millis()),
        cpu_shares: shares(qos::request(container, "cpu").millis()),
        memory_limit_in_bytes: limit("memory").units(),
        oom_score_adj: oom_score_adj(pod, container, memory_capacity),
        hugepage_limits: huge_pages.iter().map(|pages| huge_pages_of_container(pod, container, *pages)).collect(),
        ..Default::default()
    }
}

/// A container's huge pages of one size: its own limit, or its pod's, or none (kuberuntime
/// `GetHugepageLimitsFromResources`).
fn huge_pages_of_container(pod: &Pod, container: &Container, pages: HugePages) -> HugepageLimit {
    let name = pages.resource();
    let own = qos::amount(container.resources.as_ref().and_then(|resources| resources.limits.as_ref()), &name);
    let limit = own.or_else(|| qos::own_limit(pod, &name)).unwrap_or(Quantity::ZERO);
    HugepageLimit { page_size: pages.group_name(), limit: u64::try_from(limit.units()).unwrap_or(0) }
}

/// The whole pod's cgroup values: its own limits, or its containers' where every one has one, and its overhead.
pub fn of_pod(pod: &Pod) -> LinuxContainerResources {
    let amounts = |container: &Container| Amounts {
        cpu_millis: qos::limit(container, "cpu").millis(),
        memory: qos::limit(container, "memory").units(),
    };
    let together = requests::of_moments(pod, amounts);
    let overhead = requests::overhead(pod);
    let limit = |resource: &str, together: i64, overhead: i64, read: fn(Quantity) -> i64| {
        let bounded = || containers(pod).all(|(_, container)| !qos::limit(container, resource).is_zero());
        let limit = qos::own_limit(pod, resource).map(read).or_else(|| bounded().then_some(together));
        limit.map_or(0, |limit| limit.saturating_add(overhead))
    };
    LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: quota(limit("cpu", together.cpu_millis, overhead.cpu_millis, Quantity::millis)),
        cpu_shares: shares(requests::of_pod(pod).cpu_millis),
        memory_limit_in_bytes: limit("memory", together.memory, overhead.memory, Quantity::units),
        ..Default::default()
    }
}

/// The bytes of huge pages of one size that a pod's containers may have together: none unless they ask.
pub fn huge_pages(pod: &Pod, pages: HugePages) -> u64 {
    let name = pages.resource();
    let together = || containers(pod).map(|(_, container)| qos::request(container, &name)).sum::<Quantity>();
    let limit = qos::own_limit(pod, &name).unwrap_or_else(together);
    u64::try_from(limit.units()).unwrap_or(0)
}

/// The cgroup of a pod, below the node's: guaranteed pods directly, others by class.
pub fn cgroup_parent(root: &str, pod: &Pod) -> String {
    let root = root.trim_end_matches('/');
    let class = match qos::of(pod) {
        Qos::Guaranteed => "",
        Qos::Burstable => "/burstable",
        Qos::BestEffort => "/besteffort",
    };
    format!("{root}{class}/pod{}", super::uid(pod))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "a", "resources": resources}]}}),
        )
        .unwrap()
    }

    #[test]
    fn values_are_upstreams() {
        const GIB: u64 = 1 << 30;
        let of = |resources: serde_json::Value| {
            let pod = pod(resources);
            let r = of_container(&pod, &pod.spec.as_ref().unwrap().containers[0], 4 * GIB, &[]);
            (r.cpu_shares, r.cpu_quota, r.memory_limit_in_bytes, r.oom_score_adj)
        };
        assert_eq!(of(json!({})), (2, 0, 0, 1000));
        assert_eq!(of(json!({"requests": {"cpu": "100m", "memory": "1Gi"}})), (102, 0, 0, 750));
        assert_eq!(of(json!({"limits": {"cpu": "500m", "memory": "64Mi"}})), (512, 50_000, 67_108_864, -997));
        assert_eq!(of(json!({"limits": {"cpu": "1m"}})), (2, 1000, 0, 999));
        assert_eq!(of(json!({"requests": {"memory": "100Gi"}})), (2, 0, 0, 3));
    }

    /// KEP-2837: the pod's own values are its group's, bound the containers that have none, and count against the killer.
    #[test]
    fn a_pods_own_values() {
        const GIB: u64 = 1 << 30;
        let limited = json!({"requests": {"cpu": "1", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}});
        let spec = json!({"resources": {"requests": {"cpu": "2", "memory": "1280Mi"}, "limits": {"cpu": "3", "memory": "2Gi"}},
            "overhead": {"cpu": "100m", "memory": "1Mi"},
            "containers": [{"name": "a"}, {"name": "b", "resources": limited}]});
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap();
        let whole = of_pod(&pod);
        assert_eq!((whole.cpu_shares, whole.cpu_quota), (2150, 310_000));
        assert_eq!(whole.memory_limit_in_bytes, (2 << 30) + (1 << 20));
        let of = |at: usize| of_container(&pod, &pod.spec.as_ref().unwrap().containers[at], 4 * GIB, &[]);
        // 1 GiB is left of the request, half for each: 1/8 and 3/16 of the node.
        assert_eq!((of(0).cpu_quota, of(0).memory_limit_in_bytes, of(0).oom_score_adj), (300_000, 2 << 30, 875));
        assert_eq!((of(1).cpu_quota, of(1).memory_limit_in_bytes, of(1).oom_score_adj), (100_000, 256 << 20, 813));
        assert_eq!(cgroup_parent("/kubepods", &pod), "/kubepods/burstable/podu");
    }

    /// A container cannot take another's huge pages: it has a limit for every size.
    #[test]
    fn huge_pages_are_each_containers_own() {
        let sizes = [HugePages { size: 2 << 20, count: 7 }, HugePages { size: 1 << 30, count: 0 }];
        let asks = |amount: &str| json!({"limits": {"memory": "64Mi", "hugepages-2Mi": amount}});
        let limits = |whole: serde_json::Value, own: serde_json::Value| {
            let spec = json!({"resources": whole, "containers": [{"name": "a", "resources": own}]});
            let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap();
            let resources = of_container(&pod, &pod.spec.as_ref().unwrap().containers[0], 1 << 32, &sizes);
            resources.hugepage_limits.into_iter().map(|limit| (limit.page_size, limit.limit)).collect::<Vec<_>>()
        };
        let expected = |amount: u64| vec![("2MB".to_owned(), amount << 20), ("1GB".to_owned(), 0)];
        assert_eq!(limits(json!({}), json!({})), expected(0));
        assert_eq!(limits(json!({}), asks("4Mi")), expected(4));
        // What the pod has as a whole bounds those that say nothing.
        assert_eq!(limits(asks("8Mi"), json!({})), expected(8));
        assert_eq!(limits(asks("8Mi"), asks("2Mi")), expected(2));
        assert_eq!(limits(asks("8Mi"), asks("0")), expected(0));
    }

    #[test]
    fn cgroups_go_by_class() {
        assert_eq!(cgroup_parent("/lab/kubepods/", &pod(json!({}))), "/lab/kubepods/besteffort/podu");
        assert_eq!(
            cgroup_parent("/kubepods", &pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))),
            "/kubepods/podu"
        );
    }
}
