//! What a pod takes of its node (component-helpers `resource.PodRequests`), and containers' amounts compared and replaced.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource;

use super::{Role, containers, qos};

/// Containers' resources by the containers' names.
pub type Resources = BTreeMap<String, ResourceRequirements>;

/// What can be changed of a container that runs.
const RESIZED: [&str; 2] = ["cpu", "memory"];

/// CPU in thousandths and memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    pub cpu_millis: i64,
    pub memory: i64,
}

impl Amounts {
    fn of(container: &Container) -> Self {
        Self { cpu_millis: qos::request(container, "cpu").millis(), memory: qos::request(container, "memory").units() }
    }
    fn with(self, other: Self, combine: fn(i64, i64) -> i64) -> Self {
        Self { cpu_millis: combine(self.cpu_millis, other.cpu_millis), memory: combine(self.memory, other.memory) }
    }
    pub fn plus(self, other: Self) -> Self {
        self.with(other, i64::saturating_add)
    }
    fn or_more(self, other: Self) -> Self {
        self.with(other, i64::max)
    }
}

/// What the pod asks for as a whole, else what its containers do together, and its overhead.
pub fn of_pod(pod: &Pod) -> Amounts {
    let mut amounts = of_containers(pod);
    if let Some(cpu) = qos::own_request(pod, "cpu") {
        amounts.cpu_millis = cpu.millis();
    }
    if let Some(memory) = qos::own_request(pod, "memory") {
        amounts.memory = memory.units();
    }
    amounts.plus(overhead(pod))
}

/// What running the pod costs beside its containers.
pub fn overhead(pod: &Pod) -> Amounts {
    let overhead = pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref());
    Amounts { cpu_millis: amount(overhead, "cpu").millis(), memory: amount(overhead, "memory").units() }
}

/// The containers together, or the largest moment while init containers run beside the sidecars that run already.
pub fn of_containers(pod: &Pod) -> Amounts {
    of_moments(pod, Amounts::of)
}

/// The same of anything that containers have.
pub fn of_moments(pod: &Pod, of: impl Fn(&Container) -> Amounts) -> Amounts {
    let (mut apps, mut sidecars, mut starting) = (Amounts::default(), Amounts::default(), Amounts::default());
    for (role, container) in containers(pod) {
        let own = of(container);
        match role {
            Role::Sidecar => {
                sidecars = sidecars.plus(own);
                starting = starting.or_more(sidecars);
            }
            Role::Init => starting = starting.or_more(sidecars.plus(own)),
            Role::App | Role::Ephemeral => apps = apps.plus(own),
        }
    }
    apps.plus(sidecars).or_more(starting)
}

fn amount(list: Option<&BTreeMap<String, resource::Quantity>>, name: &str) -> Quantity {
    qos::amount(list, name).unwrap_or(Quantity::ZERO)
}

/// Whether a container's resources can be changed while it runs.
pub fn resizable(role: Role) -> bool {
    matches!(role, Role::App | Role::Sidecar)
}

/// The resources that differ, among those that can be changed.
pub fn differing<'a>(
    one: &'a ResourceRequirements,
    other: &'a ResourceRequirements,
) -> impl Iterator<Item = &'static str> + 'a {
    RESIZED.into_iter().filter(|name| {
        amount(one.requests.as_ref(), name) != amount(other.requests.as_ref(), name)
            || amount(one.limits.as_ref(), name) != amount(other.limits.as_ref(), name)
    })
}

/// The resources of the containers that can be changed, as the specification has them.
pub fn desired(pod: &Pod) -> Resources {
    let chosen = containers(pod).filter(|(role, _)| resizable(*role));
    chosen.map(|(_, container)| (container.name.clone(), container.resources.clone().unwrap_or_default())).collect()
}

/// Whether the specification asks for something else than `allocated`.
pub fn differs(pod: &Pod, allocated: &Resources) -> bool {
    let none = ResourceRequirements::default();
    containers(pod).filter(|(role, _)| resizable(*role)).any(|(_, container)| {
        let wanted = container.resources.as_ref().unwrap_or(&none);
        allocated.get(&container.name).is_some_and(|has| differing(wanted, has).next().is_some())
    })
}

/// The pod with the resources it has been given instead of those it asks for.
pub fn with_allocated(pod: &Arc<Pod>, allocated: &Resources) -> Arc<Pod> {
    if !differs(pod, allocated) {
        return pod.clone();
    }
    let mut given = Pod::clone(pod);
    if let Some(spec) = &mut given.spec {
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            if let Some(resources) = allocated.get(&container.name) {
                container.resources = Some(resources.clone());
            }
        }
    }
    Arc::new(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Arc<Pod> {
        Arc::new(serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
    }

    #[test]
    fn a_pod_takes_its_largest_moment() {
        let container = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}});
        let mut sidecar = container("300m");
        sidecar["restartPolicy"] = "Always".into();
        let spec = json!({"initContainers": [container("2"), sidecar, container("1")],
            "containers": [container("500m"), container("400m")], "overhead": {"cpu": "10m"}});
        let taken = of_pod(&pod(spec));
        assert_eq!((taken.cpu_millis, taken.memory), (2010, 3 << 20));
    }

    #[test]
    fn a_pods_own_requests_go_first() {
        let spec = json!({"resources": {"requests": {"cpu": "3"}}, "overhead": {"cpu": "10m"},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Mi"}}}]});
        let taken = of_pod(&pod(spec));
        assert_eq!((taken.cpu_millis, taken.memory), (3010, 1 << 20));
    }

    #[test]
    fn given_resources_replace_wanted_ones() {
        let spec = |cpu: &str| json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]});
        let (old, new) = (pod(spec("1")), pod(spec("2")));
        let allocated = desired(&old);
        assert!(differs(&new, &allocated) && !differs(&pod(spec("1000m")), &allocated));
        let given = with_allocated(&new, &allocated);
        assert_eq!(of_pod(&given).cpu_millis, 1000);
        assert!(Arc::ptr_eq(&with_allocated(&old, &allocated), &old));
    }
}
