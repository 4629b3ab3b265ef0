//! Requests and limits.

use crate::registry::fields::{NON_NEGATIVE, field, invalid_all, items, quantity};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::{Map, Value};

/// Resources that need no domain in their name.
const NATIVE: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "storage"];

/// A container's resources (core `ValidateResourceRequirements`).
pub fn validate(resources: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let limits = field(resources, "limits").and_then(Value::as_object);
    let requests = field(resources, "requests").and_then(Value::as_object);
    list(limits, &path.child("limits"), causes);
    list(requests, &path.child("requests"), causes);
    for (name, request) in requests.into_iter().flatten() {
        let path = path.child("requests");
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
                causes
                    .push(Cause::required(&path.child("limits"), "Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
    }
}

/// Extended resources and huge pages are given whole.
fn can_overcommit(name: &str) -> bool {
    !name.starts_with("hugepages-") && (!name.contains('/') || name.contains("kubernetes.io/"))
}

fn list(list: Option<&Map<String, Value>>, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (name, value) in list.into_iter().flatten() {
        let path = path.key(name);
        invalid_all(&path, name, validation::qualified_name(name), causes);
        if !name.contains('/') && !NATIVE.contains(&name.as_str()) && !name.starts_with("hugepages-") {
            causes.push(Cause::invalid(&path, name.as_str(), "must be a standard resource type or fully qualified"));
            causes.push(Cause::invalid(&path, name.as_str(), "must be a standard resource for containers"));
        }
        match quantity(value) {
            Some(amount) if amount.is_negative() => {
                causes.push(Cause::invalid(&path, amount.to_string(), NON_NEGATIVE))
            }
            Some(amount) if name.contains('/') && !amount.is_integer() => {
                causes.push(Cause::invalid(&path, amount.to_string(), "must be an integer"));
            }
            Some(_) => {}
            None => causes.push(Cause::invalid(&path, value.clone(), "must be a quantity")),
        }
    }
}

/// How a pod is treated when its node runs short (core `qos.ComputePodQOS`).
pub fn qos_class(spec: &Value) -> &'static str {
    let mut guaranteed = true;
    let mut any = false;
    for container in items(spec, "containers").iter().chain(items(spec, "initContainers")) {
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
    use serde_json::json;

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
        validate(&resources, &FieldPath::new("resources"), &mut causes);
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
