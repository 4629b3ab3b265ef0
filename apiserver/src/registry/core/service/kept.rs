//! What a Service keeps of what it was given, and what it gives up with its type.

use super::{gets_node_ports, has_health_check, has_node_ports, is_external, number};
use crate::registry::core::families;
use crate::registry::fields::{below_mut, copy, items, items_mut, object_mut, remove, same, set, text};
use coracle_api::json::{Value, json};
use std::collections::{HashMap, HashSet};

/// An update begins with what is there already.
pub fn prepare(service: &mut Value, old: &Value) {
    let (spec, before) = (object_mut(service, "spec"), &old["spec"]);
    keep_allocated(spec, before);
    families::pair(spec, Some(before));
    families::fill(spec, Some(before));
    drop_dependent(spec, before);
    if text(spec, "type") != "LoadBalancer"
        && let Some(balancer) = below_mut(service, &["status", "loadBalancer"])
    {
        // The balancer itself goes some time later, but nobody need know.
        *balancer = json!({});
    }
}

fn has_address(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName"
}

fn node_ports(spec: &Value) -> HashSet<i64> {
    items(spec, "ports").iter().map(|port| number(port, "nodePort")).filter(|port| *port != 0).collect()
}

/// Whoever writes again what made the Service need not say what it got (core/service/storage `patchAllocatedValues`).
fn keep_allocated(spec: &mut Value, before: &Value) {
    if has_address(before) && has_address(spec) {
        if text(spec, "clusterIP").is_empty() {
            copy(spec, before, "clusterIP");
        }
        if items(spec, "clusterIPs").is_empty() {
            copy(spec, before, "clusterIPs");
        }
    }
    if gets_node_ports(before) && gets_node_ports(spec) {
        keep_node_ports(spec, before);
    }
    if has_health_check(before) && has_health_check(spec) && number(spec, "healthCheckNodePort") == 0 {
        copy(spec, before, "healthCheckNodePort");
    }
}

/// A port has the node port of the one that had its name, unless that one stands at another port now.
fn keep_node_ports(spec: &mut Value, before: &Value) {
    let named: HashMap<&str, i64> =
        items(before, "ports").iter().map(|port| (text(port, "name"), number(port, "nodePort"))).collect();
    let used = node_ports(spec);
    for port in items_mut(spec, "ports").filter(|port| number(port, "nodePort") == 0) {
        if let Some(known) = named.get(text(port, "name"))
            && *known != 0
            && !used.contains(known)
        {
            set(port, "nodePort", *known);
        }
    }
}

/// Fields that mean nothing to the new type go, if they stand there only because nobody took them away: one that was changed
/// in the same breath is wrong, and told as such (core/service `dropTypeDependentFields`).
fn drop_dependent(spec: &mut Value, before: &Value) {
    let mut gone = Vec::new();
    let is_same = |fields: &[&str]| fields.iter().all(|field| same(spec, before, field));
    let mut give_up = |fields: &[&'static str], is_lost: bool| {
        if is_lost && is_same(fields) {
            gone.extend_from_slice(fields);
        }
    };
    let loses = |has: fn(&Value) -> bool| has(before) && !has(spec);
    for fields in [&["clusterIP", "clusterIPs"][..], &["ipFamilies"], &["ipFamilyPolicy"]] {
        give_up(fields, loses(has_address));
    }
    give_up(&["healthCheckNodePort"], loses(has_health_check));
    for field in [["allocateLoadBalancerNodePorts"], ["loadBalancerClass"]] {
        give_up(&field, loses(|spec| text(spec, "type") == "LoadBalancer"));
    }
    give_up(&["externalTrafficPolicy"], loses(is_external));
    if loses(has_node_ports) && node_ports(spec).is_subset(&node_ports(before)) {
        items_mut(spec, "ports").for_each(|port| drop(remove(port, "nodePort")));
    }
    for field in gone {
        remove(spec, field);
    }
}
