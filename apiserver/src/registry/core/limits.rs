//! ResourceQuotas and LimitRanges (core/v1 `defaults.go`, `validation.go`).

use super::amounts;
use super::resources::{can_overcommit, is_extended};
use crate::registry::fields::{invalid_all, items, items_mut, object_mut, quantity, text};
use crate::registry::strategy::{Strategy, Traits, WriteContext};
use coracle_api::json::{Map, Value, json};
use coracle_api::quantity::Quantity;
use coracle_api::resources::HUGE_PAGES;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use std::collections::{BTreeSet, HashSet};

/// v1 ResourceQuota
#[derive(Debug)]
pub struct QuotaStrategy;

/// What limits are of (core/helper `standardLimitRangeTypes`).
const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// What a quota can bound by a name without a domain (core/helper `standardQuotaResources`).
const QUOTA: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Resources that are there in whole ones (core/helper `integerResources`).
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
/// What pods use (core/helper `podComputeQuotaResources`).
const POD_RESOURCES: [&str; 7] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "pods", "requests.cpu", "requests.memory"];

impl Strategy for QuotaStrategy {
    fn default(&self, object: &mut Value) {
        amounts::round(object, amounts::QUOTA);
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        for (name, value) in spec.get("hard").and_then(Value::as_object).into_iter().flatten() {
            let path = path.child("hard").key(name);
            quota_resource(name, &path, causes);
            amount(name, value, &path, causes);
        }
        scopes(spec, &path, causes);
        selector(spec, &path.child("scopeSelector"), causes);
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let of = |object: &Value| -> BTreeSet<String> {
            items(&object["spec"], "scopes").iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        if of(object) != of(old) {
            let path = FieldPath::new("spec").child("scopes");
            causes.push(Cause::immutable(&path, object["spec"]["scopes"].clone()));
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        for part in ["hard", "used"] {
            let path = FieldPath::new("status").child(part);
            for (name, value) in object["status"].get(part).and_then(Value::as_object).into_iter().flatten() {
                quota_resource(name, &path.key(name), causes);
                amount(name, value, &path.key(name), causes);
            }
        }
    }
}

/// A resource that a quota can bound (core `ValidateResourceQuotaResourceName`).
fn quota_resource(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    resource_name(name, path, causes);
    if !name.contains('/') && !is_quota_resource(name) {
        causes.push(Cause::invalid(path, name, "must be a standard resource for quota"));
    }
}

fn is_quota_resource(name: &str) -> bool {
    QUOTA.contains(&name) || is_huge(name)
}

fn is_huge(name: &str) -> bool {
    name.strip_prefix("requests.").unwrap_or(name).starts_with(HUGE_PAGES)
}

/// A resource of any kind (core `validateResourceName`).
pub(super) fn resource_name(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let wrong = validation::qualified_name(name);
    if wrong.is_empty() && !name.contains('/') && !is_quota_resource(name) && name != "storage" {
        causes.push(Cause::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
    invalid_all(path, name, wrong, causes);
}

/// How much there may be: not less than nothing, and of what is counted, whole ones (core `ValidateResourceQuantityValue`).
pub fn amount(name: &str, value: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(amount) = quantity(value) else { return };
    if amount.is_negative() {
        causes.push(Cause::invalid(path, amount.to_string(), crate::registry::fields::NON_NEGATIVE));
    }
    if (COUNTED.contains(&name) || is_extended(name)) && !amount.is_integer() {
        causes.push(Cause::invalid(path, amount.to_string(), "must be an integer"));
    }
}

/// Whether pods of a scope use the resource at all (core/helper `IsResourceQuotaScopeValidForResource`).
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            POD_RESOURCES.contains(&resource)
        }
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        "BestEffort" => resource == "pods",
        _ => true,
    }
}

fn unfit(spec: &Value, scope: &str) -> usize {
    let hard = spec.get("hard").and_then(Value::as_object);
    hard.into_iter().flatten().filter(|(name, _)| is_quota_resource(name) && !fits(scope, name)).count()
}

fn scopes(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (given, path) = (items(spec, "scopes"), path.child("scopes"));
    for scope in given.iter().filter_map(Value::as_str) {
        if !SCOPES.contains(&scope) {
            causes.push(Cause::invalid(&path, given.to_vec(), "unsupported scope"));
        }
        for _ in 0..unfit(spec, scope) {
            causes.push(Cause::invalid(&path, given.to_vec(), "unsupported scope applied to resource"));
        }
    }
    let names: Vec<&str> = given.iter().filter_map(Value::as_str).collect();
    conflicts(&names, &spec["scopes"], &path, causes);
}

fn conflicts(names: &[&str], shown: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| names.contains(scope)) {
            causes.push(Cause::invalid(path, shown.clone(), "conflicting scopes"));
        }
    }
}

/// Scopes with values. Upstream reports them without their place in the list (core
/// `validateScopedResourceSelectorRequirement`).
fn selector(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const EXISTS: [&str; 5] =
        ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
    let (expressions, path) = (items(&spec["scopeSelector"], "matchExpressions"), path.child("matchExpressions"));
    for expression in expressions {
        let (scope, operator) = (text(expression, "scopeName"), text(expression, "operator"));
        if !SCOPES.contains(&scope) {
            causes.push(Cause::invalid(&path.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in 0..unfit(spec, scope) {
            let why = "unsupported scope applied to resource";
            // In the field names of upstream's internal type.
            let shown = |expression: &Value| {
                json!({"ScopeName": text(expression, "scopeName"),
                "Operator": text(expression, "operator"), "Values": expression.get("values")})
            };
            let shown = json!({"MatchExpressions": expressions.iter().map(shown).collect::<Vec<_>>()});
            causes.push(Cause::invalid(&path, shown, why));
        }
        if EXISTS.contains(&scope) && operator != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            causes.push(Cause::invalid(&path.child("operator"), operator, why));
        }
        let values = items(expression, "values");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                causes.push(Cause::required(&path.child("values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                causes.push(Cause::invalid(&path.child("values"), values.to_vec(), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => causes.push(Cause::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
    }
    let names: Vec<&str> = expressions.iter().map(|expression| text(expression, "scopeName")).collect();
    conflicts(&names, &spec["scopes"], &path, causes);
}

/// v1 LimitRange
#[derive(Debug)]
pub struct LimitRangeStrategy;

impl Strategy for LimitRangeStrategy {
    fn traits(&self) -> Traits {
        Traits { create_on_update: true, ..Traits::DEFAULT }
    }

    fn default(&self, object: &mut Value) {
        for limit in items_mut(object_mut(object, "spec"), "limits") {
            if text(limit, "type") == "Container" {
                default_container(limit);
            }
        }
        amounts::round(object, amounts::LIMIT_RANGE);
    }

    fn prepare_create(&self, object: &mut Value, context: &WriteContext) {
        // core/limitrange `strategy.go`: it need not be named.
        if meta::name(object).is_empty() {
            meta::set(object, "name", context.names.uid());
        }
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("spec").child("limits");
        let mut types = HashSet::new();
        for (nth, limit) in items(&object["spec"], "limits").iter().enumerate() {
            let (kind, path) = (text(limit, "type"), path.index(nth));
            let wrong = validation::qualified_name(kind);
            if wrong.is_empty() && !kind.contains('/') && !TYPES.contains(&kind) {
                let why = "must be a standard limit type or fully qualified";
                causes.push(Cause::invalid(&path.child("type"), kind, why));
            }
            invalid_all(&path.child("type"), kind, wrong, causes);
            if !types.insert(kind) {
                causes.push(Cause::duplicate(&path.child("type"), kind));
            }
            check(limit, &path, causes);
        }
    }
}

/// What a limit says for containers that say nothing: defaults follow from the most and the least.
fn default_container(limit: &mut Value) {
    let of = |limit: &Value, name: &str| limit.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let fill = |limit: &mut Value, name: &str, from: Map| {
        for (resource, value) in from {
            let map = object_mut(limit, name);
            if map.get(&resource).is_none() {
                map[resource.as_str()] = value;
            }
        }
    };
    let most = of(limit, "max");
    fill(limit, "default", most);
    let default = of(limit, "default");
    fill(limit, "defaultRequest", default);
    let least = of(limit, "min");
    fill(limit, "defaultRequest", least);
}

fn check(limit: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let kind = text(limit, "type");
    let mut names = BTreeSet::new();
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        if kind == "PersistentVolumeClaim" && field == "maxLimitRequestRatio" {
            storage_is_bounded(limit, path, causes);
        }
        let map = limit.get(field).and_then(Value::as_object);
        if kind == "Pod" && field.starts_with("default") {
            if map.is_some_and(|map| !map.is_empty()) {
                causes.push(Cause::forbidden(&path.child(field), "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for name in map.into_iter().flat_map(Map::keys) {
            limited(kind, name, &path.child(field).key(name), causes);
            names.insert(name.as_str());
        }
    }
    for name in names {
        bounds(limit, name, path, causes);
    }
}

fn storage_is_bounded(limit: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if ["min", "max"].iter().all(|field| limit[*field].get("storage").is_none()) {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        causes.push(Cause::required(&path.child("limits"), why));
    }
}

/// A resource that can be limited; those of containers are fewer (core `validateLimitRangeResourceName`).
fn limited(kind: &str, name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if matches!(kind, "Pod" | "Container") {
        container_resource(name, path, causes);
    } else {
        resource_name(name, path, causes);
    }
}

/// A resource that a container can have (core `ValidateContainerResourceName`).
pub fn container_resource(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    const OF_CONTAINERS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
    resource_name(name, path, causes);
    if !name.contains('/') && !OF_CONTAINERS.contains(&name) && !name.starts_with(HUGE_PAGES) {
        causes.push(Cause::invalid(path, name, "must be a standard resource for containers"));
    } else if name.contains('/') && !name.contains("kubernetes.io/") && !is_extended(name) {
        causes.push(Cause::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

/// What the bounds of one resource say of each other. Which of them is shown is upstream's choice.
fn bounds(limit: &Value, name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    // What pods cannot have is not compared.
    let is_pod = text(limit, "type") == "Pod";
    let value = |field: &str| match field {
        "default" | "defaultRequest" if is_pod => None,
        field => limit.get(field).and_then(|map| map.get(name)).and_then(quantity),
    };
    let at = |field: &str| path.child(field).key(name);
    for (below, above, field, shown, words) in [
        ("min", "max", "min", "min", ["min", "max"]),
        ("min", "defaultRequest", "defaultRequest", "defaultRequest", ["min", "default request"]),
        ("defaultRequest", "max", "defaultRequest", "defaultRequest", ["default request", "max"]),
        ("defaultRequest", "default", "defaultRequest", "defaultRequest", ["default request", "default limit"]),
        ("min", "default", "default", "min", ["min", "default"]),
        ("default", "max", "default", "max", ["default", "max"]),
    ] {
        let (Some(low), Some(high)) = (value(below), value(above)) else { continue };
        if low > high {
            let why = format!("{} value {low} is greater than {} value {high}", words[0], words[1]);
            let found = if shown == below { low } else { high };
            causes.push(Cause::invalid(&at(field), found.to_string(), why));
        }
    }
    ratio(value("maxLimitRequestRatio"), value("min"), value("max"), &at("maxLimitRequestRatio"), causes);
    if let (Some(default), Some(request)) = (value("default"), value("defaultRequest"))
        && !can_overcommit(name)
        && default != request
    {
        let why = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        causes.push(Cause::invalid(&at("defaultRequest"), request.to_string(), why));
    }
}

/// How much more than its request a limit may be.
fn ratio(
    ratio: Option<Quantity>,
    min: Option<Quantity>,
    max: Option<Quantity>,
    path: &FieldPath,
    causes: &mut Vec<Cause>,
) {
    let Some(ratio) = ratio else { return };
    if ratio < Quantity::from_units(1) {
        causes.push(Cause::invalid(path, ratio.to_string(), format!("ratio {ratio} is less than 1")));
    }
    let (Some(min), Some(max)) = (min, max) else { return };
    // A fraction that is shown and compared as one, as upstream does.
    #[expect(clippy::cast_precision_loss, reason = "a ratio of two bounds, not an amount")]
    let (limit, wanted) = (max.millis() as f64 / min.millis() as f64, ratio.millis() as f64 / 1000.0);
    if wanted > limit {
        let why = format!("ratio {ratio} is greater than max/min = {limit:.6}");
        causes.push(Cause::invalid(path, ratio.to_string(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn limits_default_and_contradict() {
        let mut range =
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}});
        LimitRangeStrategy.default(&mut range);
        let limit = &range["spec"]["limits"][0];
        assert_eq!(
            (&limit["default"], &limit["defaultRequest"]),
            (&json!({"cpu": "2"}), &json!({"cpu": "2", "memory": "1Mi"}))
        );
        let mut causes = Vec::new();
        LimitRangeStrategy.validate(&range, &mut causes);
        assert_eq!(causes, []);
        let wrong = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}});
        LimitRangeStrategy.validate(&wrong, &mut causes);
        assert_eq!(
            causes[0].to_string(),
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"
        );
        causes.clear();
        QuotaStrategy.validate(
            &json!({"spec": {"hard": {"pods": "-1"}, "scopes": ["Terminating", "NotTerminating"]}}),
            &mut causes,
        );
        assert_eq!(causes.len(), 2);
    }
}
