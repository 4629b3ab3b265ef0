//! What is wrong with a Service, in upstream's order (core `ValidateService`, `ValidateServiceUpdate`).

use super::{has_health_check, is_external, number, ports};
use crate::registry::core::endpoints::endpoint_ip;
use crate::registry::core::families;
use crate::registry::fields::{self, invalid_all, items, one_of, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use std::collections::HashSet;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// In the order in which upstream has it, which is none.
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
/// A day (core `MaxClientIPServiceAffinitySeconds`).
const AFFINITY_MOST: i64 = 86_400;

const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";

const MODE: &str = "service.kubernetes.io/topology-mode";
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// A field that is a pointer upstream: an empty text is given as well.
fn is_given(spec: &Value, field: &str) -> bool {
    spec.get(field).is_some_and(|value| !value.is_null())
}

fn is_balancer(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer"
}

/// Everything that is wrong with a Service. Addresses and ranges that `old` has already are taken as they are: they were
/// written before the rules for them became strict.
pub fn validate(service: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, path) = (&service["spec"], FieldPath::new("spec"));
    let before = old.map(|old| &old["spec"]);
    topology(service, causes);
    kind(spec, &path, causes);
    ports::each(items(spec, "ports"), &path.child("ports"), causes);
    fields::labels(spec.get("selector"), &path.child("selector"), causes);
    affinity(spec, &path, causes);
    families::related(spec, before, causes);
    external_ips(spec, before, &path.child("externalIPs"), causes);
    one_of(spec, "type", &TYPES, &path, causes);
    ports::together(spec, &path.child("ports"), causes);
    source_ranges(service, old, causes);
    if is_given(spec, "allocateLoadBalancerNodePorts") && !is_balancer(spec) {
        causes.push(Cause::forbidden(&path.child("allocateLoadBalancerNodePorts"), ONLY_BALANCERS));
    }
    class(spec, &path.child("loadBalancerClass"), causes);
    traffic(spec, &path, causes);
}

/// Everything that is wrong with a change.
pub fn validate_update(now: &Value, before: &Value, causes: &mut Vec<Cause>) {
    families::validate_update(now, before, causes);
    let path = FieldPath::new("spec");
    let class_path = path.child("loadBalancerClass");
    if is_balancer(now) && is_balancer(before) && !fields::same(now, before, "loadBalancerClass") {
        let shown = now.get("loadBalancerClass").cloned().unwrap_or(Value::Null);
        causes.push(Cause::invalid(&class_path, shown, "may not change once set"));
    }
    // Upstream looks at it here and once more with everything else.
    class(now, &class_path, causes);
    let is_checked = has_health_check(now) && has_health_check(before);
    if is_checked && number(now, "healthCheckNodePort") != number(before, "healthCheckNodePort") {
        causes.push(Cause::forbidden(&path.child("healthCheckNodePort"), "field is immutable"));
    }
}

/// One annotation has two names, which say the same.
fn topology(service: &Value, causes: &mut Vec<Cause>) {
    if let (Some(mode), Some(hints)) = (meta::annotation(service, MODE), meta::annotation(service, HINTS))
        && mode != hints
    {
        let why = format!("must match annotations[{HINTS}] when both are specified");
        causes.push(Cause::invalid(&annotation(MODE), mode, why));
    }
}

fn annotation(key: &str) -> FieldPath {
    FieldPath::new("metadata").child("annotations").key(key)
}

/// What each type must have, and what it cannot.
fn kind(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (kind, is_headless) = (text(spec, "type"), families::is_headless(spec));
    if kind != "ExternalName" && items(spec, "ports").is_empty() && !is_headless {
        causes.push(Cause::required(&path.child("ports"), ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            causes.push(Cause::invalid(&path.child("clusterIPs").index(0), "None", why));
        }
        "ExternalName" => external_name(spec, path, causes),
        _ => {}
    }
}

fn external_name(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let lists = ["clusterIPs", "ipFamilies"].into_iter().filter(|list| !items(spec, list).is_empty());
    for field in lists.chain(Some("ipFamilyPolicy").filter(|policy| is_given(spec, policy))) {
        causes.push(Cause::forbidden(&path.child(field), "may not be set for ExternalName services"));
    }
    let name = text(spec, "externalName");
    match name.strip_suffix('.').unwrap_or(name) {
        "" => causes.push(Cause::required(&path.child("externalName"), "")),
        name => invalid_all(&path.child("externalName"), name, validation::dns1123_subdomain(name), causes),
    }
}

/// Who comes back to the pod that answered before.
fn affinity(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const WHEN: &str = "when session affinity type is ClientIP";
    one_of(spec, "sessionAffinity", &["ClientIP", "None"], path, causes);
    let (config, path) = (&spec["sessionAffinityConfig"], path.child("sessionAffinityConfig"));
    match text(spec, "sessionAffinity") {
        "None" if !config.is_null() => {
            causes.push(Cause::forbidden(&path, "must not be set when session affinity is None"));
        }
        "ClientIP" => match config.pointer("/clientIP/timeoutSeconds").and_then(Value::as_i64) {
            None => causes.push(Cause::required(&path, WHEN)),
            Some(seconds) if !(1..=AFFINITY_MOST).contains(&seconds) => {
                let why = format!("must be greater than 0 and less than {AFFINITY_MOST}");
                causes.push(Cause::invalid(&path.child("clientIP").child("timeoutSeconds"), seconds, why));
            }
            Some(_) => {}
        },
        _ => {}
    }
}

fn external_ips(spec: &Value, before: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let known: HashSet<&str> = before.map(|old| texts(old, "externalIPs").collect()).unwrap_or_default();
    for (nth, ip) in texts(spec, "externalIPs").enumerate() {
        let path = path.index(nth);
        let told = if known.contains(ip) { Vec::new() } else { validation::ip(ip) };
        match validation::sloppy_ip(ip) {
            Some(parsed) if told.is_empty() => endpoint_ip(parsed.to_canonical(), ip, &path, causes),
            _ => invalid_all(&path, ip, told, causes),
        }
    }
}

fn texts<'a>(spec: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    items(spec, list).iter().map(|item| item.as_str().unwrap_or_default())
}

/// Who may ask a balancer: in a field, or in the annotation that was there before it. Ranges may stand between blanks.
fn source_ranges(service: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    const FIELD: &str = "loadBalancerSourceRanges";
    let spec = &service["spec"];
    let forbid = |path: &FieldPath, causes: &mut Vec<Cause>| {
        if !is_balancer(spec) {
            causes.push(Cause::forbidden(path, ONLY_BALANCERS));
        }
    };
    if !items(spec, FIELD).is_empty() {
        // With a capital, as upstream writes it.
        let path = FieldPath::new("spec").child("LoadBalancerSourceRanges");
        forbid(&path, causes);
        let known: HashSet<&str> =
            old.map(|old| texts(&old["spec"], FIELD).map(str::trim).collect()).unwrap_or_default();
        for (nth, range) in texts(spec, FIELD).map(str::trim).enumerate().filter(|(_, range)| !known.contains(range)) {
            invalid_all(&path.index(nth), range, validation::cidr(range), causes);
        }
    } else if let Some(ranges) = meta::annotation(service, RANGES) {
        let path = annotation(RANGES);
        forbid(&path, causes);
        let is_known = old.and_then(|old| meta::annotation(old, RANGES)) == Some(ranges);
        if !is_known && !ranges.trim().is_empty() {
            for range in ranges.split(',').map(str::trim) {
                invalid_all(&path, range, validation::cidr(range), causes);
            }
        }
    }
}

/// core `validateLoadBalancerClassField`
fn class(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if !is_given(spec, "loadBalancerClass") {
        return;
    }
    let class = text(spec, "loadBalancerClass");
    if is_balancer(spec) {
        invalid_all(path, class, validation::qualified_name(class), causes);
    } else {
        causes.push(Cause::forbidden(path, ONLY_BALANCERS));
    }
}

/// Where traffic goes, from outside and from inside.
fn traffic(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let policy = text(spec, "externalTrafficPolicy");
    if is_external(spec) {
        one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"], path, causes);
    } else if !policy.is_empty() {
        let why = "may only be set for externally-accessible services";
        causes.push(Cause::invalid(&path.child("externalTrafficPolicy"), policy, why));
    }
    health_check(number(spec, "healthCheckNodePort"), has_health_check(spec), path, causes);
    one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], path, causes);
    one_of(spec, "trafficDistribution", &DISTRIBUTIONS, path, causes);
}

/// One that is needed and not asked for is chosen later.
fn health_check(port: i64, is_needed: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let path = path.child("healthCheckNodePort");
    match port {
        0 => {}
        port if is_needed => ports::in_range(port, &path, causes),
        port => {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            causes.push(Cause::invalid(&path, port, why));
        }
    }
}
