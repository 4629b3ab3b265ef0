//! Quality of service classes (kubernetes `pkg/apis/core/v1/helper/qos`).

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use coracle_api::resources::is_pod_level;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource;

use super::containers;

/// How a pod stands when resources run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// Every container's limits are set and are its requests.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl Qos {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// An amount in a list, if it is in there.
pub fn amount(list: Option<&BTreeMap<String, resource::Quantity>>, name: &str) -> Option<Quantity> {
    Quantity::parse(&list?.get(name)?.0).ok()
}

/// A container's request (or limit) of a resource; a limit alone is the request too.
pub fn request(container: &Container, resource: &str) -> Quantity {
    let resources = container.resources.as_ref();
    let requests = amount(resources.and_then(|r| r.requests.as_ref()), resource);
    requests.unwrap_or_else(|| limit(container, resource))
}

/// A container's limit of a resource, zero when there is none.
pub fn limit(container: &Container, resource: &str) -> Quantity {
    amount(container.resources.as_ref().and_then(|r| r.limits.as_ref()), resource).unwrap_or(Quantity::ZERO)
}

/// What a pod has as a whole (KEP-2837); none if that is nothing.
pub fn own(pod: &Pod) -> Option<&ResourceRequirements> {
    let own = pod.spec.as_ref()?.resources.as_ref()?;
    let named = |list: Option<&BTreeMap<String, resource::Quantity>>| {
        list.is_some_and(|list| list.keys().any(|name| is_pod_level(name)))
    };
    (named(own.requests.as_ref()) || named(own.limits.as_ref())).then_some(own)
}

/// A pod's own limit of a resource.
pub fn own_limit(pod: &Pod, resource: &str) -> Option<Quantity> {
    amount(own(pod)?.limits.as_ref(), resource).filter(|limit| !limit.is_zero())
}

/// A pod's own request of a resource.
pub fn own_request(pod: &Pod, resource: &str) -> Option<Quantity> {
    amount(own(pod)?.requests.as_ref(), resource)
}

/// The class of a pod. What it has as a whole decides alone.
pub fn of(pod: &Pod) -> Qos {
    let (mut any, mut guaranteed) = (false, true);
    let mut count = |request: Quantity, limit: Quantity| {
        any |= !request.is_zero() || !limit.is_zero();
        guaranteed &= !limit.is_zero() && request == limit;
    };
    for resource in ["cpu", "memory"] {
        if own(pod).is_some() {
            let limit = own_limit(pod, resource).unwrap_or(Quantity::ZERO);
            count(own_request(pod, resource).unwrap_or(limit), limit);
        } else {
            containers(pod).for_each(|(_, container)| count(request(container, resource), limit(container, resource)));
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let class = |resources: serde_json::Value| {
            let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a", "resources": resources}]}});
            of(&serde_json::from_value(pod).unwrap())
        };
        assert_eq!(class(json!({})), Qos::BestEffort);
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), Qos::Burstable);
        assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), Qos::Guaranteed);
        assert_eq!(
            class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Mi"}})),
            Qos::Burstable
        );
    }

    #[test]
    fn a_pods_own_resources_decide_alone() {
        let class = |own: serde_json::Value, container: serde_json::Value| {
            let pod = json!({"metadata": {}, "spec": {"resources": own, "containers": [{"name": "a", "resources": container}]}});
            of(&serde_json::from_value(pod).unwrap())
        };
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(class(json!({"requests": both, "limits": both}), json!({})), Qos::Guaranteed);
        assert_eq!(class(json!({"requests": {"cpu": "1"}}), json!({"limits": both})), Qos::Burstable);
        assert_eq!(class(json!({}), json!({"limits": both})), Qos::Guaranteed);
        assert_eq!(class(json!({"limits": {"hugepages-2Mi": "0"}}), json!({})), Qos::BestEffort);
    }
}
