//! Where a balancer of a Service is reached.

use crate::registry::fields::{below_mut, invalid_all, items, items_mut, one_of, set_default, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

/// Addresses are those of packets, unless it is said that the balancer puts others into them.
pub fn default(service: &mut Value) {
    let Some(balancer) = below_mut(service, &["status", "loadBalancer"]) else { return };
    for point in items_mut(balancer, "ingress").filter(|point| !text(point, "ip").is_empty()) {
        set_default(point, "ipMode", "VIP");
    }
}

/// core `ValidateServiceStatusUpdate`, `ValidateLoadBalancerStatus`
pub fn validate(service: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("status").child("loadBalancer").child("ingress");
    let now = points(service);
    if text(&service["spec"], "type") != "LoadBalancer" {
        if !now.is_empty() {
            causes.push(Cause::forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'"));
        }
        return;
    }
    let known: HashSet<_> = points(old).iter().map(|point| text(point, "ip")).collect();
    for (nth, point) in now.iter().enumerate() {
        let (path, ip) = (path.index(nth), text(point, "ip"));
        if !ip.is_empty() && !known.contains(ip) {
            invalid_all(&path.child("ip"), ip, validation::ip(ip), causes);
        }
        mode(point, &path, causes);
        host(text(point, "hostname"), &path.child("hostname"), causes);
    }
}

fn points(service: &Value) -> &[Value] {
    items(&service["status"]["loadBalancer"], "ingress")
}

fn mode(point: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let has_ip = !text(point, "ip").is_empty();
    match point.get("ipMode").and_then(Value::as_str) {
        None if has_ip => causes.push(Cause::required(&path.child("ipMode"), "must be specified when `ip` is set")),
        None => {}
        Some(_) if !has_ip => {
            causes.push(Cause::forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set"));
        }
        Some(_) => one_of(point, "ipMode", &["Proxy", "VIP"], path, causes),
    }
}

fn host(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        return;
    }
    invalid_all(path, name, validation::dns1123_subdomain(name), causes);
    if validation::sloppy_ip(name).is_some() {
        causes.push(Cause::invalid(path, name, "must be a DNS name, not an IP address"));
    }
}
