//! From requests and limits to cgroup values (kubernetes `pkg/kubelet/cm/helpers_linux.go`, `pkg/kubelet/qos/policy.go`).

use k8s_cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{containers, qos};
use crate::pod::qos::Qos;

const PERIOD: i64 = 100_000;
const MIN_QUOTA: i64 = 1000;
pub const MIN_SHARES: i64 = 2;
pub const MAX_SHARES: i64 = 262_144;

fn shares(millis: i64) -> i64 {
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
            let request = i128::from(qos::request(container, "memory").units());
            let share = 1000 * request / i128::from(memory_capacity.max(1));
            // Never as safe as guaranteed, never as exposed as best effort.
            i64::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// A container's cgroup values.
pub fn of_container(pod: &Pod, container: &Container, memory_capacity: u64) -> LinuxContainerResources {
    let limit = qos::limit(container, "cpu");
    LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: quota(limit.millis()),
        cpu_shares: shares(qos::request(container, "cpu").millis()),
        memory_limit_in_bytes: qos::limit(container, "memory").units(),
        oom_score_adj: oom_score_adj(pod, container, memory_capacity),
        ..Default::default()
    }
}

/// The whole pod's cgroup values: the sums, limits only where every container has one.
pub fn of_pod(pod: &Pod) -> LinuxContainerResources {
    let sum = |read: fn(&Container, &str) -> coracle_api::quantity::Quantity, resource: &'static str| {
        containers(pod).map(move |(_, container)| read(container, resource))
    };
    let bounded = |resource: &'static str| sum(qos::limit, resource).all(|limit| !limit.is_zero());
    let total = |resource: &'static str| sum(qos::limit, resource).sum::<coracle_api::quantity::Quantity>();
    LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: if bounded("cpu") { quota(total("cpu").millis()) } else { 0 },
        cpu_shares: shares(sum(qos::request, "cpu").sum::<coracle_api::quantity::Quantity>().millis()),
        memory_limit_in_bytes: if bounded("memory") { total("memory").units() } else { 0 },
        ..Default::default()
    }
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
            let r = of_container(&pod, &pod.spec.as_ref().unwrap().containers[0], 4 * GIB);
            (r.cpu_shares, r.cpu_quota, r.memory_limit_in_bytes, r.oom_score_adj)
        };
        assert_eq!(of(json!({})), (2, 0, 0, 1000));
        assert_eq!(of(json!({"requests": {"cpu": "100m", "memory": "1Gi"}})), (102, 0, 0, 750));
        assert_eq!(of(json!({"limits": {"cpu": "500m", "memory": "64Mi"}})), (512, 50_000, 67_108_864, -997));
        assert_eq!(of(json!({"limits": {"cpu": "1m"}})), (2, 1000, 0, 999));
        assert_eq!(of(json!({"requests": {"memory": "100Gi"}})), (2, 0, 0, 3));
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
