//! Amounts of resources as numbers: parsed once per pod and node, compared often.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use coracle_api::resources::{Amounts, Part, is_pod_level, together};
use coracle_client::outline::{Container, ContainerStatus, Pod, PodStatus, Quantities, Requests};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// What upstream counts for a container that asks for nothing when nodes are scored (pkg/scheduler/util/pod_resources.go).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts: CPU in thousandths, memory and storage in bytes, all else in its own unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral: i64,
    /// Extended resources and huge pages, ordered by name. Few have any.
    pub others: Vec<(String, i64)>,
}

impl Amounts for Resources {
    fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }
    fn raise(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }
}

impl Resources {
    /// The amounts in a list of quantities; what is no quantity counts nothing (the server refuses it).
    pub fn of(list: Option<&Quantities>) -> Self {
        Self::sum_of(list.into_iter().flat_map(Quantities::iter))
    }

    /// The same, of amounts in a map.
    pub fn of_map(list: Option<&BTreeMap<String, Text>>) -> Self {
        Self::sum_of(list.into_iter().flatten().map(|(name, amount)| (name.as_str(), amount)))
    }

    fn sum_of<'a>(list: impl Iterator<Item = (&'a str, &'a Text)>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            let Ok(quantity) = Quantity::parse(&quantity.0) else { continue };
            match name {
                "cpu" => resources.milli_cpu = quantity.millis(),
                "memory" => resources.memory = quantity.units(),
                "ephemeral-storage" => resources.ephemeral = quantity.units(),
                // Counted apart: a pod takes one whether it says so or not.
                "pods" => {}
                _ => resources.others.push((name.to_owned(), quantity.units())),
            }
        }
        resources
    }

    /// Takes amounts away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral = with(self.ephemeral, other.ephemeral);
        for (name, amount) in &other.others {
            match self.others.binary_search_by(|(have, _)| have.cmp(name)) {
                Ok(at) => self.others[at].1 = with(self.others[at].1, *amount),
                Err(at) => self.others.insert(at, (name.clone(), with(0, *amount))),
            }
        }
    }

    /// Whether it is at least as much of everything.
    pub fn covers(&self, other: &Self) -> bool {
        let mut raised = self.clone();
        raised.raise(other);
        raised == *self
    }

    /// The amount of one of the resources in `others`.
    pub fn other(&self, name: &str) -> i64 {
        self.others.binary_search_by(|(have, _)| have.as_str().cmp(name)).map_or(0, |at| self.others[at].1)
    }

    fn set_other(&mut self, name: &str, amount: i64) {
        match self.others.binary_search_by(|(have, _)| have.as_str().cmp(name)) {
            Ok(at) => self.others[at].1 = amount,
            Err(at) => self.others.insert(at, (name.to_owned(), amount)),
        }
    }

    /// Whether nothing at all is asked for.
    pub fn is_empty(&self) -> bool {
        self.milli_cpu == 0
            && self.memory == 0
            && self.ephemeral == 0
            && self.others.iter().all(|(_, amount)| *amount == 0)
    }
}

/// What a pod asks for, and the CPU and memory it is counted with when nodes are scored.
pub fn of_pod(pod: &Pod) -> (Resources, i64, i64) {
    let requests = sum(pod, |container| requests_of(pod, container));
    // Where the pod asks as a whole, only what nobody asks for is made up (framework `getNonMissingContainerRequests`).
    let whole = own_requests(pod).is_some();
    let counted = sum(pod, |container| {
        let mut resources = requests_of(pod, container);
        let is_asked = |name: &str, by_all: i64| asks(container, name) || whole && by_all > 0;
        if !is_asked("cpu", requests.milli_cpu) {
            resources.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !is_asked("memory", requests.memory) {
            resources.memory = DEFAULT_MEMORY;
        }
        resources
    });
    (requests, counted.milli_cpu, counted.memory)
}

/// What the pod asks for as a whole, instead of what its containers do (KEP-2837).
fn own_requests(pod: &Pod) -> Option<&Quantities> {
    let own = pod.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    own.iter().any(|(name, _)| is_pod_level(name)).then_some(own)
}

/// Puts what the pod asks for as a whole in place of its containers' sum (component-helpers `applyPodLevelResources`): while
/// it is resized the most of what it asks for, has been given and has (KEP-5419; `effectivePodLevelResources`).
fn replace(total: &mut Resources, pod: &Pod, own: &Quantities) {
    let mut amounts = Resources::of(Some(own));
    if let Some((status, has)) = told_whole(pod) {
        let mut most = requests(Some(has));
        most.raise(&Resources::of(status.allocated_resources.as_ref()));
        if !is_infeasible(pod) {
            most.raise(&amounts);
        }
        amounts = most;
    }
    for (name, _) in own.iter().filter(|(name, _)| is_pod_level(name)) {
        match name {
            "cpu" => total.milli_cpu = amounts.milli_cpu,
            "memory" => total.memory = amounts.memory,
            _ => total.set_other(name, amounts.other(name)),
        }
    }
}

/// What a container asks for, has been given or has, whatever is most: while a pod is being resized each of them may be taken
/// (KEP-1287; component-helpers `determineContainerReqs`). What the node will never give does not count.
fn requests_of(pod: &Pod, container: &Container) -> Resources {
    let wanted = requests(container.resources.as_ref());
    let Some(status) = status_of(pod, &container.name).filter(|status| status.resources.is_some()) else {
        return wanted;
    };
    let mut most = requests(status.resources.as_ref());
    most.raise(&Resources::of(status.allocated_resources.as_ref()));
    if !is_infeasible(pod) {
        most.raise(&wanted);
    }
    most
}

/// The state of a pod whose kubelet says what it has as a whole.
fn told_whole(pod: &Pod) -> Option<(&PodStatus, &Requests)> {
    let status = pod.status.as_ref()?;
    Some((status, status.resources.as_ref()?))
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let lists = pod.status.iter().flat_map(|status| [&status.container_statuses, &status.init_container_statuses]);
    lists.flatten().flatten()
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    statuses(pod).find(|status| &*status.name == container)
}

fn is_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible"))
}

/// Whether two states of a pod say the same of what it and its containers have.
pub fn told_the_same(one: &Pod, other: &Pod) -> bool {
    let whole = |pod| told_whole(pod).map(|(status, has)| (&status.allocated_resources, has));
    if whole(one) != whole(other) {
        return false;
    }
    let told = |pod: &Pod| statuses(pod).filter(|status| status.resources.is_some()).count();
    let same = statuses(one).all(|status| {
        let other = status_of(other, &status.name);
        other.is_some_and(|other| {
            other.resources == status.resources && other.allocated_resources == status.allocated_resources
        })
    });
    told(one) == told(other) && same && is_infeasible(one) == is_infeasible(other)
}

fn requests(requirements: Option<&Requests>) -> Resources {
    Resources::of(requirements.and_then(|requirements| requirements.requests.as_ref()))
}

fn asks(container: &Container, name: &str) -> bool {
    container
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref())
        .is_some_and(|requests| requests.names(name))
}

/// What the containers take together, or the pod as a whole, and its overhead.
fn sum(pod: &Pod, of: impl Fn(&Container) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let init = spec.init_containers.iter().flatten().map(|container| {
        let part = if container.restart_policy.as_deref() == Some("Always") { Part::Sidecar } else { Part::Init };
        (part, of(container))
    });
    let mut total = together(init.chain(spec.containers.iter().map(|container| (Part::App, of(container)))));
    if let Some(own) = own_requests(pod) {
        replace(&mut total, pod, own);
    }
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn what_a_pod_asks_for_as_a_whole_goes_first() {
        let of = |own: coracle_api::json::Value, container: coracle_api::json::Value| {
            let pod = json!({"metadata": {}, "spec": {"resources": {"requests": own}, "overhead": {"cpu": "10m"},
                "containers": [{"name": "a", "resources": {"requests": container}}, {"name": "b"}]}});
            of_pod(&coracle_api::json::from_value(pod).unwrap())
        };
        let (asked, cpu, memory) =
            of(json!({"cpu": "2", "hugepages-2Mi": "4Mi"}), json!({"memory": "1Gi", "cpu": "1"}));
        assert_eq!((asked.milli_cpu, asked.memory, asked.other("hugepages-2Mi")), (2010, 1 << 30, 4 << 20));
        assert_eq!((cpu, memory), (2010, 1 << 30));
        let (asked, cpu, memory) = of(json!({"cpu": "2"}), json!({}));
        assert_eq!((asked.memory, cpu, memory), (0, 2010, 2 * DEFAULT_MEMORY));
        // Nothing of the whole pod's: as ever.
        assert_eq!(of(json!({}), json!({"cpu": "1"})).1, 1000 + DEFAULT_MILLI_CPU + 10);
    }

    #[test]
    fn a_pod_that_is_resized_counts_with_the_most() {
        let pod = |condition: &str| -> Pod {
            let amount = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
            coracle_api::json::from_value(json!({"metadata": {},
                "spec": {"containers": [{"name": "c", "resources": {"requests": amount("3", "1Gi")}}]},
                "status": {"conditions": [{"type": "PodResizePending", "status": "True", "reason": condition}],
                    "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                        "allocatedResources": amount("2", "1Gi"), "resources": {"requests": amount("1", "2Gi")}}]}}))
            .unwrap()
        };
        let of = |condition: &str| {
            let (requests, _, _) = of_pod(&pod(condition));
            (requests.milli_cpu, requests.memory >> 30)
        };
        assert_eq!(of("Deferred"), (3000, 2));
        assert_eq!(of("Infeasible"), (2000, 2));
        assert!(!told_the_same(&pod("Deferred"), &pod("Infeasible")) && told_the_same(&pod("x"), &pod("y")));
    }

    #[test]
    fn a_whole_pod_that_is_resized_counts_with_the_most() {
        let pod = |condition: &str, has: &str| -> Pod {
            let amount = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
            coracle_api::json::from_value(json!({"metadata": {},
                "spec": {"resources": {"requests": amount("3", "1Gi")}, "containers": [{"name": "c"}]},
                "status": {"conditions": [{"type": "PodResizePending", "status": "True", "reason": condition}],
                    "allocatedResources": amount("2", "1Gi"), "resources": {"requests": amount("1", has)}}}))
            .unwrap()
        };
        let of = |condition: &str| {
            let (requests, _, _) = of_pod(&pod(condition, "2Gi"));
            (requests.milli_cpu, requests.memory >> 30)
        };
        assert_eq!((of("Deferred"), of("Infeasible")), ((3000, 2), (2000, 2)));
        let same = |one: &Pod, other: &Pod| told_the_same(one, other);
        assert!(!same(&pod("x", "2Gi"), &pod("x", "1Gi")) && same(&pod("x", "2Gi"), &pod("y", "2Gi")));
    }

    #[test]
    fn a_pod_is_the_sum_or_its_largest_start() {
        let container = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi", "example.com/gpu": "1"}}});
        let mut sidecar = container("300m");
        sidecar["restartPolicy"] = "Always".into();
        let pod: Pod = coracle_api::json::from_value(json!({"spec": {
            "containers": [container("100m"), {"name": "nothing"}],
            "initContainers": [sidecar, container("2")],
            "overhead": {"cpu": "50m"},
        }}))
        .unwrap();
        let (requests, milli_cpu, memory) = of_pod(&pod);
        assert_eq!((requests.milli_cpu, requests.memory, requests.other("example.com/gpu")), (2350, 2 << 30, 2));
        assert_eq!((milli_cpu, memory), (2350, (2 << 30) + DEFAULT_MEMORY));
    }
}
