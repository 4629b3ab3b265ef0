//! Requests and limits.

use super::{limits, pod_resources};
use crate::registry::fields::{field, items, quantity};
use coracle_api::json::{Map, Value};
use coracle_api::quantity::Quantity;
use coracle_api::resources::{HUGE_PAGES, is_pod_level};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

/// Resources of containers that need no domain in their name.
const NATIVE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Whose resources they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Container,
    Pod,
}

/// The resources of a container or of a pod (core `ValidateResourceRequirements`), but for its claims.
pub fn validate(resources: &Value, level: Level, path: &FieldPath, causes: &mut Vec<Cause>) {
    let limits = field(resources, "limits").and_then(Value::as_object);
    let requests = field(resources, "requests").and_then(Value::as_object);
    let (limit_path, request_path) = (path.child("limits"), path.child("requests"));
    for (name, value) in limits.into_iter().flatten() {
        let path = limit_path.key(name);
        one(name, value, level, &path, causes);
        huge_pages(name, value, &path, causes);
    }
    for (name, value) in requests.into_iter().flatten() {
        let path = request_path.key(name);
        one(name, value, level, &path, causes);
        compare(name, value, limits, [&limit_path, &request_path], causes);
        huge_pages(name, value, &path, causes);
    }
    let named = |wanted: fn(&str) -> bool| limits.into_iter().chain(requests).flatten().any(|(name, _)| wanted(name));
    if named(|name| name.starts_with(HUGE_PAGES)) && !named(|name| matches!(name, "cpu" | "memory")) {
        causes.push(Cause::forbidden(path, "HugePages require cpu or memory"));
    }
}

/// A request is no more than its limit, and as much of what cannot be shared.
fn compare(name: &str, request: &Value, limits: Option<&Map>, paths: [&FieldPath; 2], causes: &mut Vec<Cause>) {
    let limit = limits.and_then(|limits| limits.get(name)).and_then(quantity);
    match (limit, quantity(request)) {
        (Some(limit), Some(request)) if !can_overcommit(name) && request != limit => {
            let why = format!("must be equal to {name} limit of {limit}");
            causes.push(Cause::invalid(paths[1], request.to_string(), why));
        }
        (Some(limit), Some(request)) if request > limit => {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            causes.push(Cause::invalid(paths[1], request.to_string(), why));
        }
        (None, Some(_)) if !can_overcommit(name) => {
            causes.push(Cause::required(paths[0], "Limit must be set for non overcommitable resources"));
        }
        _ => {}
    }
}

/// Extended resources and huge pages are given whole.
pub fn can_overcommit(name: &str) -> bool {
    !name.starts_with(HUGE_PAGES) && (!name.contains('/') || name.contains("kubernetes.io/"))
}

/// Whether the resource is one that nodes offer beyond Kubernetes' own: it has a domain, and a name that a quota can ask requests
/// for (core/helper `IsExtendedResourceName`).
pub fn is_extended(name: &str) -> bool {
    name.contains('/')
        && !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && validation::qualified_name(&format!("requests.{name}")).is_empty()
}

/// One resource and how much of it.
fn one(name: &str, value: &Value, level: Level, path: &FieldPath, causes: &mut Vec<Cause>) {
    if !matches!(name, "cpu" | "memory") {
        let before = causes.len();
        limits::resource_name(name, path, causes);
        match level {
            Level::Container => of_containers(name, path, causes),
            Level::Pod if causes.len() == before && !is_pod_level(name) => {
                causes.push(Cause::not_supported(path, name, &["cpu", HUGE_PAGES, "memory"]));
            }
            Level::Pod => {}
        }
    }
    match quantity(value) {
        Some(_) => limits::amount(name, value, path, causes),
        None => causes.push(Cause::invalid(path, value.clone(), "must be a quantity")),
    }
}

/// A resource that containers can have (core `validateContainerResourceName`).
fn of_containers(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if !name.contains('/') {
        if !NATIVE.contains(&name) && !name.starts_with(HUGE_PAGES) {
            causes.push(Cause::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !name.contains("kubernetes.io/") && !is_extended(name) {
        causes.push(Cause::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

/// Huge pages are given in whole ones (core `validateResourceRequirements`).
fn huge_pages(name: &str, value: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(page) = name.strip_prefix(HUGE_PAGES) else { return };
    let Some(amount) = quantity(value) else { return };
    let page = Quantity::parse(page).ok().filter(|page| page.is_integer() && page.units() > 0);
    if page.is_none_or(|page| !amount.is_integer() || amount.units() % page.units() != 0) {
        let why = format!("{amount} is not positive integer multiple of {name}");
        causes.push(Cause::invalid(path, amount.to_string(), why));
    }
}

/// How a pod is treated when its node runs short (core `qos.ComputePodQOS`). What it has as a whole decides alone.
pub fn qos_class(spec: &Value) -> &'static str {
    let mut guaranteed = true;
    let mut any = false;
    let containers = || items(spec, "containers").iter().chain(items(spec, "initContainers"));
    let holders: Vec<&Value> = if pod_resources::are_set(spec) { vec![spec] } else { containers().collect() };
    for container in holders {
        for name in ["cpu", "memory"] {
            let amount = |kind: &str| {
                let amount = field(field(field(container, "resources")?, kind)?, name);
                amount.and_then(quantity).filter(|amount| !amount.is_zero())
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn classes() {
        let spec = |resources: Value| json!({"containers": [{"resources": resources}]});
        assert_eq!(qos_class(&spec(json!({}))), "BestEffort");
        assert_eq!(qos_class(&spec(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(
            qos_class(&spec(json!({"requests": both, "limits": {"cpu": "1000m", "memory": "1Gi"}}))),
            "Guaranteed"
        );
    }

    #[test]
    fn requests_stay_below_limits() {
        let mut causes = Vec::new();
        let resources = json!({"requests": {"cpu": "2", "memory": "-1"}, "limits": {"cpu": "1", "nonsense": "1"}});
        validate(&resources, Level::Container, &FieldPath::new("resources"), &mut causes);
        let text: Vec<String> = causes.iter().map(ToString::to_string).collect();
        assert!(
            text.contains(
                &"resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1".to_owned()
            ),
            "{text:?}"
        );
        assert!(
            text.contains(
                &"resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0".to_owned()
            ),
            "{text:?}"
        );
        assert!(
            text.iter().any(|cause| cause.contains("must be a standard resource type or fully qualified")),
            "{text:?}"
        );
    }

    #[test]
    fn names_are_those_of_what_containers_have() {
        let check = |resources: Value, level: Level| {
            let mut causes = Vec::new();
            validate(&resources, level, &FieldPath::new("r"), &mut causes);
            causes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let container = |name: &str| check(json!({"limits": {name: "1"}}), Level::Container);
        for good in ["cpu", "ephemeral-storage", "example.com/card", "kubernetes.io/x"] {
            assert!(container(good).is_empty(), "{good}");
        }
        for of_others in ["storage", "pods", "limits.cpu"] {
            let why = "must be a standard resource for containers";
            assert_eq!(container(of_others), [format!("r.limits[{of_others}]: Invalid value: \"{of_others}\": {why}")]);
        }
        assert_eq!(container("nonsense").len(), 2);
        let whole = check(json!({"limits": {"storage": "1"}}), Level::Pod);
        assert_eq!(
            whole,
            [
                "r.limits[storage]: Unsupported value: \"storage\": supported values: \"cpu\", \"hugepages-\", \"memory\""
            ]
        );
        assert_eq!(
            check(json!({"limits": {"example.com/card": "-1500m"}}), Level::Container),
            [
                "r.limits[example.com/card]: Invalid value: \"-1500m\": must be greater than or equal to 0",
                "r.limits[example.com/card]: Invalid value: \"-1500m\": must be an integer",
            ]
        );
        assert_eq!(
            check(json!({"requests": {"example.com/card": "2", "cpu": "2"}, "limits": {"cpu": "1"}}), Level::Container),
            [
                "r.limits: Required value: Limit must be set for non overcommitable resources",
                "r.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ]
        );
    }
}
