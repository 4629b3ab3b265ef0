//! Requests and limits of a whole pod (KEP-2837).

use super::pod_claims;
use super::resources::{self, Level};
use crate::registry::fields::{field, items, object_mut, quantity, set, text};
use coracle_api::Cause;
use coracle_api::json::{Map, Value};
use coracle_api::quantity::Quantity;
use coracle_api::resources::{HUGE_PAGES, Part, is_pod_level, together};
use coracle_api::status::FieldPath;
use std::collections::BTreeMap;

/// Amounts by resource.
type Amounts = BTreeMap<String, Quantity>;

/// Whether the pod has any of its own (component-helpers `IsPodLevelResourcesSet`).
pub fn are_set(spec: &Value) -> bool {
    ["requests", "limits"].iter().any(|kind| amounts_of_kind(spec, kind))
}

fn amounts_of_kind(spec: &Value, kind: &str) -> bool {
    own(spec, kind).is_some_and(|own| own.keys().any(|name| is_pod_level(name)))
}

fn own<'a>(spec: &'a Value, kind: &str) -> Option<&'a Map> {
    field(field(spec, "resources")?, kind)?.as_object()
}

fn of(holder: &Value, kind: &str) -> Amounts {
    let list = field(holder, "resources").and_then(|resources| field(resources, kind)).and_then(Value::as_object);
    list.into_iter().flatten().filter_map(|(name, value)| Some((name.to_string(), quantity(value)?))).collect()
}

/// What the containers have together.
fn aggregate(spec: &Value, kind: &str) -> Amounts {
    let init = items(spec, "initContainers").iter().map(|container| {
        let part = if text(container, "restartPolicy") == "Always" { Part::Sidecar } else { Part::Init };
        (part, of(container, kind))
    });
    together(init.chain(items(spec, "containers").iter().map(|container| (Part::App, of(container, kind)))))
}

/// Fills in what follows from the containers' and from the limits (core/v1 `defaultHugePagePodLimits`, `defaultPodRequests`). After the
/// containers' own defaults. The limits but for huge pages do not follow from the containers' (kubernetes/kubernetes#136120).
pub fn default(spec: &mut Value) {
    if !are_set(spec) {
        return;
    }
    let limits = aggregate(spec, "limits");
    for (name, amount) in limits.iter().filter(|(name, _)| name.starts_with(HUGE_PAGES)) {
        if own(spec, "requests").is_none_or(|own| !own.contains_key(name)) {
            fill(spec, "limits", name, amount.to_string().into());
        }
    }
    if let Some(own) = own(spec, "limits").filter(|own| !own.is_empty()).cloned() {
        for (name, amount) in aggregate(spec, "requests") {
            if is_pod_level(&name) && resources::can_overcommit(&name) {
                fill(spec, "requests", &name, amount.to_string().into());
            }
        }
        for (name, limit) in own.into_iter().filter(|(name, _)| is_pod_level(name)) {
            fill(spec, "requests", &name, limit);
        }
    }
}

fn fill(spec: &mut Value, kind: &str, name: &str, amount: Value) {
    if own(spec, kind).is_none_or(|own| !own.contains_key(name)) {
        set(object_mut(object_mut(spec, "resources"), kind), name, amount);
    }
}

/// The rules for them (core `validatePodResources`).
pub fn validate(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(own) = field(spec, "resources").filter(|own| own.is_object()) else { return };
    let path = path.child("resources");
    if spec.pointer("/os/name").and_then(Value::as_str) == Some("windows") {
        causes.push(Cause::forbidden(&path, "may not be set for a windows pod"));
        return;
    }
    if field(own, "claims").is_some() {
        causes.push(Cause::forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level"));
    }
    resources::validate(own, Level::Pod, &path, causes);
    pod_claims::used(own, &pod_claims::names(spec), &path, causes);
    consistent(spec, &path, causes);
}

/// Containers ask for no more together, and each may have no more, than the pod (core `validatePodResourceConsistency`).
fn consistent(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (requests, limits) = (of(spec, "requests"), of(spec, "limits"));
    let mut covers = |own: &Amounts, kind: &str, only: fn(&str) -> bool| {
        for (name, together) in aggregate(spec, kind).into_iter().filter(|(name, _)| only(name)) {
            let Some(amount) = own.get(&name).filter(|amount| together > **amount) else { continue };
            let why = format!("must be greater than or equal to aggregate container {kind} of {together}");
            causes.push(Cause::invalid(&path.child(kind).key(&name), amount.to_string(), why));
        }
    };
    covers(&requests, "requests", |_| true);
    covers(&limits, "limits", |name| name.starts_with(HUGE_PAGES));
    for (nth, container) in items(spec, "containers").iter().enumerate() {
        for (name, limit) in of(container, "limits") {
            let Some(most) = limits.get(&name).filter(|most| limit > **most) else { continue };
            // Upstream writes the path like this.
            let path = path.child("containers").index(nth).key(&name).child("limits");
            let why = format!("must be less than or equal to pod limits of {most}");
            causes.push(Cause::invalid(&path, limit.to_string(), why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn spec(own: Value, containers: &[Value]) -> Value {
        let containers: Vec<Value> = containers.iter().map(|own| json!({"name": "c", "resources": own})).collect();
        json!({"containers": containers, "resources": own})
    }

    /// What `default` makes of a pod's own resources.
    fn defaulted(own: Value, containers: &[Value]) -> Value {
        let mut spec = spec(own, containers);
        default(&mut spec);
        spec["resources"].take()
    }

    /// The rows of KEP-2837's table.
    #[test]
    fn defaults() {
        let limits = json!({"limits": {"cpu": "2"}});
        assert_eq!(defaulted(limits.clone(), &[json!({})])["requests"], json!({"cpu": "2"}));
        let asks = |cpu: &str| json!({"requests": {"cpu": cpu}});
        assert_eq!(defaulted(limits.clone(), &[asks("500m"), asks("1")])["requests"], json!({"cpu": "1500m"}));
        assert_eq!(defaulted(limits, &[json!({}), asks("1")])["requests"], json!({"cpu": "1"}));
        let requests = json!({"requests": {"cpu": "2"}});
        let limited = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(defaulted(requests.clone(), &[limited.clone(), limited]).get("limits"), None, "as v1.36 has it");
        assert_eq!(defaulted(json!({}), &[asks("1")]), json!({}));
        let pages = json!({"limits": {"hugepages-2Mi": "4Mi", "memory": "1Gi"}});
        let huge = defaulted(json!({"limits": {"memory": "2Gi"}}), &[pages]);
        assert_eq!(huge["limits"]["hugepages-2Mi"], "4Mi");
        assert_eq!(huge["requests"]["hugepages-2Mi"], "4Mi");
    }

    #[test]
    fn init_containers_count_in_their_moment() {
        let mut spec = spec(json!({"limits": {"cpu": "8"}}), &[json!({"requests": {"cpu": "1"}})]);
        let init = |policy: Option<&str>, cpu: &str| {
            let mut container = json!({"name": "i", "resources": {"requests": {"cpu": cpu}}});
            if let Some(policy) = policy {
                container["restartPolicy"] = policy.into();
            }
            container
        };
        spec["initContainers"] = json!([init(None, "3"), init(Some("Always"), "2"), init(None, "4")]);
        default(&mut spec);
        assert_eq!(spec["resources"]["requests"]["cpu"], "6");
    }

    #[test]
    fn rules() {
        let said = |own: Value, containers: &[Value]| {
            let mut causes = Vec::new();
            validate(&spec(own, containers), &FieldPath::new("spec"), &mut causes);
            causes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let cpu = |kind: &str, amount: &str| json!({kind: {"cpu": amount}});
        assert_eq!(said(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}), &[cpu("requests", "2")]), "");
        assert_eq!(
            said(cpu("requests", "1"), &[cpu("requests", "600m"), cpu("requests", "600m")]),
            "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 1200m"
        );
        assert_eq!(
            said(cpu("limits", "1"), &[cpu("limits", "2")]),
            "spec.resources.containers[0][cpu].limits: Invalid value: \"2\": must be less than or equal to pod limits of 1"
        );
        assert_eq!(
            said(json!({"limits": {"ephemeral-storage": "1Gi"}}), &[]),
            "spec.resources.limits[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\""
        );
        assert_eq!(
            said(json!({"claims": [{"name": "a"}]}), &[]),
            "spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level\n\
             spec.resources.claims[0]: Not found: \"a\": must be one of the names in pod.spec.resourceClaims which is empty"
        );
        let mut windows = spec(cpu("limits", "1"), &[]);
        windows["os"] = json!({"name": "windows"});
        let mut causes = Vec::new();
        validate(&windows, &FieldPath::new("spec"), &mut causes);
        assert_eq!(causes[0].to_string(), "spec.resources: Forbidden: may not be set for a windows pod");
    }
}
