//! Requests and limits.

use super::pod_resources;
use crate::registry::fields::{NON_NEGATIVE, field, invalid_all, items, quantity};
use coracle_api::json::{Map, Value};
use coracle_api::quantity::Quantity;
use coracle_api::resources::{HUGE_PAGES, is_pod_level};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

/// Resources that need no domain in their name.
const NATIVE: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "storage"];

/// Whose resources they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Container,
    Pod,
}

/// The resources of a container or of a pod (core `ValidateResourceRequirements`).
pub fn validate(resources: &Value, level: Level, path: &FieldPath, causes: &mut Vec<Cause>) {
    let limits = field(resources, "limits").and_then(Value::as_object);
    let requests = field(resources, "requests").and_then(Value::as_object);
    list(limits, level, &path.child("limits"), causes);
    list(requests, level, &path.child("requests"), causes);
    let named = |wanted: fn(&str) -> bool| limits.into_iter().chain(requests).flatten().any(|(name, _)| wanted(name));
    if named(|name| name.starts_with(HUGE_PAGES)) && !named(|name| matches!(name, "cpu" | "memory")) {
        causes.push(Cause::forbidden(path, "HugePages require cpu or memory"));
    }
    let (limit_path, path) = (path.child("limits"), path.child("requests"));
    for (name, request) in requests.into_iter().flatten() {
        let limit = limits.and_then(|limits| limits.get(name));
        match (limit.and_then(quantity), quantity(request)) {
            (Some(limit), Some(request)) if !can_overcommit(name) && request != limit => {
                causes.push(Cause::invalid(
                    &path,
                    request.to_string(),
                    format!("must be equal to {name} limit of {limit}"),
                ));
            }
            (Some(limit), Some(request)) if request > limit => {
                causes.push(Cause::invalid(
                    &path,
                    request.to_string(),
                    format!("must be less than or equal to {name} limit of {limit}"),
                ));
            }
            (None, Some(_)) if !can_overcommit(name) => {
                causes.push(Cause::required(&limit_path, "Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
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

fn list(list: Option<&Map>, level: Level, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (name, value) in list.into_iter().flatten() {
        let path = path.key(name);
        let wrong = validation::qualified_name(name);
        let valid = wrong.is_empty();
        invalid_all(&path, name, wrong, causes);
        let standard = name.contains('/') || NATIVE.contains(&name.as_str()) || name.starts_with(HUGE_PAGES);
        if !standard && valid {
            causes.push(Cause::invalid(&path, name.as_str(), "must be a standard resource type or fully qualified"));
        }
        match level {
            Level::Container if !standard => {
                causes.push(Cause::invalid(&path, name.as_str(), "must be a standard resource for containers"));
            }
            Level::Container if name.contains('/') && !name.contains("kubernetes.io/") && !is_extended(name) => {
                causes.push(Cause::invalid(&path, name.as_str(), "doesn't follow extended resource name standard"));
            }
            Level::Pod if standard && valid && !is_pod_level(name) => {
                causes.push(Cause::not_supported(&path, name.as_str(), &["cpu", HUGE_PAGES, "memory"]));
            }
            _ => {}
        }
        huge_pages(name, value, &path, causes);
        match quantity(value) {
            Some(amount) if amount.is_negative() => {
                causes.push(Cause::invalid(&path, amount.to_string(), NON_NEGATIVE))
            }
            Some(amount) if is_extended(name) && !amount.is_integer() => {
                causes.push(Cause::invalid(&path, amount.to_string(), "must be an integer"));
            }
            Some(_) => {}
            None => causes.push(Cause::invalid(&path, value.clone(), "must be a quantity")),
        }
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
}
