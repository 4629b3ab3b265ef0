//! Services.

use super::families;
use crate::cache::Field;
use crate::registry::fields::{
    self, invalid_all, is_set, items, items_mut, object_mut, one_of, remove, set, set_default, text,
};
use crate::registry::strategy::{Allocation, NameRule, Strategy, Traits, WriteContext};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

/// core/v1 Service
#[derive(Debug)]
pub struct ServiceStrategy;

static FIELDS: [Field; 2] =
    [Field::of("spec.clusterIP", &["spec", "clusterIP"], ""), Field::of("spec.type", &["spec", "type"], "")];

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// Three hours (core/v1 `DefaultClientIPServiceAffinitySeconds`).
const AFFINITY_SECONDS: i64 = 10_800;
/// A day (core `MaxClientIPServiceAffinitySeconds`).
const AFFINITY_MOST: i64 = 86_400;
const KUBELET_PORT: i64 = 10250;

impl Strategy for ServiceStrategy {
    fn traits(&self) -> Traits {
        Traits { create_on_update: true, allocation: Allocation::Service, ..Traits::DEFAULT }
    }

    fn fields(&self) -> &[Field] {
        &FIELDS
    }

    fn name_rule(&self) -> NameRule {
        // RelaxedServiceNameValidation, on since v1.36 (KEP-5311).
        validation::dns1123_label
    }

    fn default(&self, service: &mut Value) {
        let spec = object_mut(service, "spec");
        set_default(spec, "type", "ClusterIP");
        set_default(spec, "sessionAffinity", "None");
        if text(spec, "sessionAffinity") == "ClientIP" {
            let config = object_mut(object_mut(spec, "sessionAffinityConfig"), "clientIP");
            set_default(config, "timeoutSeconds", AFFINITY_SECONDS);
        }
        for port in items_mut(spec, "ports") {
            set_default(port, "protocol", "TCP");
            let target = port.get("targetPort");
            if target.is_none_or(|target| target.is_null() || target.as_i64() == Some(0) || target.as_str() == Some(""))
            {
                let number = port.get("port").cloned().unwrap_or(Value::Null);
                set(port, "targetPort", number);
            }
        }
        let kind = text(spec, "type").to_owned();
        if is_external(spec) {
            set_default(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            set_default(spec, "allocateLoadBalancerNodePorts", true);
        }
        if kind != "ExternalName" {
            set_default(spec, "internalTrafficPolicy", "Cluster");
            families::default(spec);
        }
    }

    fn prepare_create(&self, service: &mut Value, _context: &WriteContext) {
        service["status"] = json!({"loadBalancer": {}});
    }

    fn prepare_update(&self, service: &mut Value, old: &Value, _context: &WriteContext) {
        // A change of type gives up what the new type does not have (core/service `patchAllocatedValues`, `dropTypeDependentFields`).
        let (now, before) = (text(&service["spec"], "type").to_owned(), text(&old["spec"], "type").to_owned());
        let spec = object_mut(service, "spec");
        if now == "ExternalName" && before != now {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
                remove(spec, field);
            }
        }
        if !matches!(now.as_str(), "NodePort" | "LoadBalancer") && before != now {
            for port in items_mut(spec, "ports") {
                remove(port, "nodePort");
            }
            if !is_external(spec) {
                remove(spec, "externalTrafficPolicy");
            }
        }
        if now != "LoadBalancer" && before == "LoadBalancer" {
            for field in ["allocateLoadBalancerNodePorts", "healthCheckNodePort", "loadBalancerClass"] {
                remove(spec, field);
            }
        }
        if now != "ExternalName" && text(spec, "clusterIP").is_empty() && before != "ExternalName" {
            for field in ["clusterIP", "clusterIPs"] {
                fields::copy(spec, &old["spec"], field);
            }
        }
    }

    fn validate(&self, service: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&service["spec"], FieldPath::new("spec"));
        one_of(spec, "type", &TYPES, &path, causes);
        fields::labels(spec.get("selector"), &path.child("selector"), causes);
        kind(spec, &path, causes);
        affinity(spec, &path, causes);
        families::validate(spec, &path, causes);
        for (nth, ip) in items(spec, "externalIPs").iter().filter_map(Value::as_str).enumerate() {
            let path = path.child("externalIPs").index(nth);
            match ip.parse() {
                Ok(parsed) => super::endpoints::endpoint_ip(parsed, ip, &path, causes),
                Err(_) => invalid_all(&path, ip, validation::ip(ip), causes),
            }
        }
        ports(spec, &path.child("ports"), causes);
        balancer(spec, &path, causes);
        traffic(spec, &path, causes);
    }

    fn validate_update(&self, service: &Value, old: &Value, causes: &mut Vec<Cause>) {
        families::validate_update(&service["spec"], &old["spec"], causes);
        let is_balancer = |value: &Value| text(&value["spec"], "type") == "LoadBalancer";
        if is_balancer(service)
            && is_balancer(old)
            && !fields::same(&service["spec"], &old["spec"], "loadBalancerClass")
        {
            let class = service["spec"].get("loadBalancerClass").cloned().unwrap_or(Value::Null);
            let path = FieldPath::new("spec").child("loadBalancerClass");
            causes.push(Cause::invalid(&path, class, "may not change once set"));
        }
    }
}

/// Whether a service takes what comes from outside the cluster (core/service `ExternallyAccessible`).
fn is_external(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !items(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

/// What each type must have, and what it cannot.
fn kind(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let headless = text(spec, "clusterIP") == "None";
    match text(spec, "type") {
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"].into_iter().filter(|field| is_set(spec, field))
            {
                causes.push(Cause::forbidden(&path.child(field), "may not be set for ExternalName services"));
            }
            let name = text(spec, "externalName");
            match name.strip_suffix('.').unwrap_or(name) {
                "" => causes.push(Cause::required(&path.child("externalName"), "")),
                name => invalid_all(&path.child("externalName"), name, validation::dns1123_subdomain(name), causes),
            }
        }
        kind => {
            if items(spec, "ports").is_empty() && !headless {
                causes.push(Cause::required(&path.child("ports"), ""));
            }
            if headless && kind != "ClusterIP" {
                let why = format!("may not be set to 'None' for {kind} services");
                causes.push(Cause::invalid(&path.child("clusterIPs").index(0), "None", why));
            }
            if kind == "LoadBalancer" {
                let own = items(spec, "ports").iter().position(|port| port["port"].as_i64() == Some(KUBELET_PORT));
                if let Some(nth) = own {
                    let why = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
                    causes.push(Cause::invalid(&path.child("ports").index(nth), KUBELET_PORT, why));
                }
            }
        }
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

/// What only load balancers have.
fn balancer(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let is_balancer = text(spec, "type") == "LoadBalancer";
    for field in ["loadBalancerSourceRanges", "allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if !is_balancer && is_set(spec, field) {
            causes.push(Cause::forbidden(&path.child(field), ONLY));
        }
    }
    for (nth, range) in items(spec, "loadBalancerSourceRanges").iter().filter_map(Value::as_str).enumerate() {
        if range.trim().parse::<ipnet::IpNet>().is_err() {
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            causes.push(Cause::invalid(&path.child("loadBalancerSourceRanges").index(nth), range, why));
        }
    }
    let class = text(spec, "loadBalancerClass");
    if is_balancer && spec.get("loadBalancerClass").is_some_and(|class| !class.is_null()) {
        invalid_all(&path.child("loadBalancerClass"), class, validation::qualified_name(class), causes);
    }
}

/// Where traffic goes, from outside and from inside.
fn traffic(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let policy = text(spec, "externalTrafficPolicy");
    if !is_external(spec) && !policy.is_empty() {
        let why = "may only be set for externally-accessible services";
        causes.push(Cause::invalid(&path.child("externalTrafficPolicy"), policy, why));
    } else {
        one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"], path, causes);
    }
    one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], path, causes);
    one_of(spec, "trafficDistribution", &["PreferClose", "PreferSameNode", "PreferSameZone"], path, causes);
    let port = spec.get("healthCheckNodePort").and_then(Value::as_i64).unwrap_or(0);
    if port != 0 {
        let path = path.child("healthCheckNodePort");
        if text(spec, "type") == "LoadBalancer" && policy == "Local" {
            causes.extend(validation::port_number(port).into_iter().map(|why| Cause::invalid(&path, port, why)));
        } else {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            causes.push(Cause::invalid(&path, port, why));
        }
    }
}

fn ports(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let ports = items(spec, "ports");
    let (mut names, mut numbers, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (nth, port) in ports.iter().enumerate() {
        let path = path.index(nth);
        let name = text(port, "name");
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(&path.child("name"), ""));
        } else if !name.is_empty() {
            invalid_all(&path.child("name"), name, validation::dns1123_label(name), causes);
            if !names.insert(name) {
                causes.push(Cause::duplicate(&path.child("name"), name));
            }
        }
        let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
        causes.extend(
            validation::port_number(number).into_iter().map(|why| Cause::invalid(&path.child("port"), number, why)),
        );
        if text(port, "protocol").is_empty() {
            causes.push(Cause::required(&path.child("protocol"), ""));
        }
        one_of(port, "protocol", &PROTOCOLS, &path, causes);
        if let Some(spoken) = port.get("appProtocol").and_then(Value::as_str) {
            invalid_all(&path.child("appProtocol"), spoken, validation::qualified_name(spoken), causes);
        }
        match port.get("targetPort") {
            Some(Value::String(name)) => {
                invalid_all(&path.child("targetPort"), name, validation::port_name(name), causes)
            }
            Some(Value::Number(target)) => {
                let target = target.as_i64().unwrap_or(0);
                causes.extend(
                    validation::port_number(target)
                        .into_iter()
                        .map(|why| Cause::invalid(&path.child("targetPort"), target, why)),
                );
            }
            _ => causes.push(Cause::invalid(&path.child("targetPort"), 0, "must be between 1 and 65535, inclusive")),
        }
        if !numbers.insert((text(port, "protocol"), number)) {
            causes.push(Cause::duplicate(&path, json!({"protocol": text(port, "protocol"), "port": number})));
        }
        let node_port = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
        if node_port != 0 {
            if !matches!(text(spec, "type"), "NodePort" | "LoadBalancer") {
                let why = format!("may not be used when `type` is '{}'", text(spec, "type"));
                causes.push(Cause::forbidden(&path.child("nodePort"), why));
            }
            if !node_ports.insert((text(port, "protocol"), node_port)) {
                causes.push(Cause::duplicate(&path.child("nodePort"), node_port));
            }
        }
    }
}
