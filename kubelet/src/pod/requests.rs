//! What a pod takes of its node (component-helpers `resource.PodRequests`), and containers' amounts compared and replaced.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::quantity::Quantity;
use coracle_api::resources::{self, Amounts as _, Part, is_pod_level};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource;
use serde::{Deserialize, Serialize};

use super::{Role, containers, qos};

/// What can be changed of a pod's resources while it runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// By the containers' names.
    #[serde(rename = "allocated")]
    pub containers: BTreeMap<String, ResourceRequirements>,
    /// Of the pod as a whole (KEP-5419).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ResourceRequirements>,
}

/// Amounts as the API writes them.
type List = BTreeMap<String, resource::Quantity>;

/// What can be changed of a container that runs, and of its pod.
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
}

impl resources::Amounts for Amounts {
    fn add(&mut self, other: &Self) {
        *self = self.with(*other, i64::saturating_add);
    }
    fn raise(&mut self, other: &Self) {
        *self = self.with(*other, i64::max);
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
    amounts.add(&overhead(pod));
    amounts
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
pub fn of_moments<T: resources::Amounts>(pod: &Pod, of: impl Fn(&Container) -> T) -> T {
    let part = |role: Role| match role {
        Role::Init => Part::Init,
        Role::Sidecar => Part::Sidecar,
        Role::App | Role::Ephemeral => Part::App,
    };
    resources::together(containers(pod).map(|(role, container)| (part(role), of(container))))
}

/// What a pod has of everything without its overhead, as its status tells it: its own amounts, else what its containers have
/// together, which is a limit only where each of them has one (KEP-5419, `PodStatus.resources`). `of` says what a container has.
pub fn told(pod: &Pod, of: impl Fn(&Container) -> ResourceRequirements) -> ResourceRequirements {
    let together = |list: fn(ResourceRequirements) -> Option<List>| {
        of_moments(pod, |container| -> BTreeMap<String, Quantity> {
            let named = list(of(container)).unwrap_or_default().into_iter();
            named.filter_map(|(name, amount)| Some((name, Quantity::parse(&amount.0).ok()?))).collect()
        })
    };
    let own = qos::own(pod);
    let finish = |sum: BTreeMap<String, Quantity>, own: Option<&List>| {
        let mut list: List = sum.into_iter().map(|(name, sum)| (name, resource::Quantity(sum.to_string()))).collect();
        let own = own.into_iter().flatten().filter(|(name, _)| is_pod_level(name));
        list.extend(own.map(|(name, amount)| (name.clone(), amount.clone())));
        (!list.is_empty()).then_some(list)
    };
    let mut limits = together(|resources| resources.limits);
    limits.retain(|name, _| containers(pod).all(|(_, container)| !qos::limit(container, name).is_zero()));
    ResourceRequirements {
        requests: finish(together(|resources| resources.requests), own.and_then(|own| own.requests.as_ref())),
        limits: finish(limits, own.and_then(|own| own.limits.as_ref())),
        ..ResourceRequirements::default()
    }
}

fn amount(list: Option<&BTreeMap<String, resource::Quantity>>, name: &str) -> Quantity {
    qos::amount(list, name).unwrap_or(Quantity::ZERO)
}

/// Whether a container's resources can be changed while it runs: of all but those that come for debugging.
pub fn resizable(role: Role) -> bool {
    matches!(role, Role::App | Role::Sidecar | Role::Init)
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

/// What a container is given: where it has no limit it has the pod's own, and is changed with that (KEP-5419).
pub fn effective(pod: &Pod, container: &Container) -> ResourceRequirements {
    let mut given = container.resources.clone().unwrap_or_default();
    let own = qos::own(pod).and_then(|own| own.limits.as_ref());
    for name in RESIZED.into_iter().filter(|name| qos::limit(container, name).is_zero()) {
        if let Some(limit) = own.and_then(|own| own.get(name)).filter(|_| qos::own_limit(pod, name).is_some()) {
            given.limits.get_or_insert_default().insert(name.to_owned(), limit.clone());
        }
    }
    given
}

/// What of that is the container's own. A limit that it once had is never taken from it.
pub fn without_inherited(container: &Container, mut given: ResourceRequirements) -> ResourceRequirements {
    let own = container.resources.as_ref().and_then(|own| own.limits.as_ref());
    if let Some(limits) = &mut given.limits {
        limits.retain(|name, _| !RESIZED.contains(&name.as_str()) || own.is_some_and(|own| own.contains_key(name)));
        if limits.is_empty() && own.is_none() {
            given.limits = None;
        }
    }
    given
}

/// The resources that can be changed, as the specification has them.
pub fn desired(pod: &Pod) -> Resources {
    let chosen = containers(pod).filter(|(role, _)| resizable(*role));
    let of = |container: &Container| (container.name.clone(), container.resources.clone().unwrap_or_default());
    Resources {
        containers: chosen.map(|(_, container)| of(container)).collect(),
        pod: pod.spec.as_ref().and_then(|spec| spec.resources.clone()),
    }
}

/// Whether the specification asks for something else than `allocated`.
pub fn differs(pod: &Pod, allocated: &Resources) -> bool {
    let none = ResourceRequirements::default();
    let own = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()).unwrap_or(&none);
    let whole = differing(own, allocated.pod.as_ref().unwrap_or(&none)).next().is_some();
    whole
        || containers(pod).filter(|(role, _)| resizable(*role)).any(|(_, container)| {
            let wanted = container.resources.as_ref().unwrap_or(&none);
            allocated.containers.get(&container.name).is_some_and(|has| differing(wanted, has).next().is_some())
        })
}

/// The pod with the resources it has been given instead of those it asks for.
pub fn with_allocated(pod: &Arc<Pod>, allocated: &Resources) -> Arc<Pod> {
    if !differs(pod, allocated) {
        return pod.clone();
    }
    let mut given = Pod::clone(pod);
    if let Some(spec) = &mut given.spec {
        spec.resources.clone_from(&allocated.pod);
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            if let Some(resources) = allocated.containers.get(&container.name) {
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

    #[test]
    fn a_whole_pod_is_given_too() {
        let spec = |memory: &str| json!({"resources": {"limits": {"memory": memory}}, "containers": [{"name": "a"}]});
        let (old, new) = (pod(spec("1Gi")), pod(spec("2Gi")));
        let allocated = desired(&old);
        assert!(differs(&new, &allocated) && !differs(&pod(spec("1024Mi")), &allocated));
        assert_eq!(with_allocated(&new, &allocated).spec.as_ref().unwrap().resources, allocated.pod);
        let first = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].clone();
        let limits = json!({"limits": {"memory": "2Gi"}});
        let given = effective(&new, &first(&new));
        assert_eq!(serde_json::to_value(&given).unwrap(), limits, "it has the pod's");
        assert_eq!(without_inherited(&first(&new), given.clone()), ResourceRequirements::default());
        let limited = pod(json!({"containers": [{"name": "a", "resources": limits}]}));
        assert_eq!(without_inherited(&first(&limited), given.clone()), given);
    }

    #[test]
    fn a_status_tells_the_pods_own_or_the_sum() {
        let two = |own: serde_json::Value, other: serde_json::Value| {
            let limited =
                json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
            let spec = json!({"resources": own, "overhead": {"cpu": "1"},
                "containers": [{"name": "a", "resources": limited}, {"name": "b", "resources": other}]});
            let told = told(&pod(spec), |container| container.resources.clone().unwrap_or_default());
            serde_json::to_value(told).unwrap()
        };
        let other = || json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}});
        let sum = json!({"requests": {"cpu": "1500m", "memory": "1Gi"}, "limits": {"cpu": "2"}});
        assert_eq!(two(json!(null), other()), sum, "one has no limit of memory, so the pod has none");
        let own = two(json!({"requests": {"cpu": "3"}, "limits": {"memory": "4Gi"}}), other());
        assert_eq!(own, json!({"requests": {"cpu": "3", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}}));
    }
}
