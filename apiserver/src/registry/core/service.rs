//! Services.

use crate::cache::Field;
use crate::registry::fields::{
    self, invalid_all, is_set, items, items_mut, object_mut, one_of, remove, set, set_default, text,
};
use crate::registry::strategy::{Allocation, NameRule, Strategy, Traits, WriteContext};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::{Value, json};
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

impl Strategy for ServiceStrategy {
    fn traits(&self) -> Traits {
        Traits { create_on_update: true, allocation: Allocation::Service, ..Traits::DEFAULT }
    }

    fn fields(&self) -> &[Field] {
        &FIELDS
    }

    fn name_rule(&self) -> NameRule {
        validation::dns1035_label
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
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            set_default(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            set_default(spec, "allocateLoadBalancerNodePorts", true);
        }
        if kind != "ExternalName" {
            set_default(spec, "internalTrafficPolicy", "Cluster");
            if !is_set(spec, "ipFamilies") {
                set(spec, "ipFamilies", json!(["IPv4"]));
            }
            set_default(spec, "ipFamilyPolicy", "SingleStack");
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
            remove(spec, "externalTrafficPolicy");
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
        one_of(spec, "sessionAffinity", &["ClientIP", "None"], &path, causes);
        one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"], &path, causes);
        one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], &path, causes);
        fields::labels(spec.get("selector"), &path.child("selector"), causes);
        let headless = text(spec, "clusterIP") == "None";
        match text(spec, "type") {
            "ExternalName" => {
                let name = text(spec, "externalName").trim_end_matches('.');
                if name.is_empty() {
                    causes.push(Cause::required(&path.child("externalName"), ""));
                } else {
                    invalid_all(&path.child("externalName"), name, validation::dns1123_subdomain(name), causes);
                }
            }
            kind => {
                if items(spec, "ports").is_empty() && !headless {
                    causes.push(Cause::required(&path.child("ports"), ""));
                }
                if headless && kind != "ClusterIP" {
                    causes.push(Cause::invalid(
                        &path.child("clusterIPs").index(0),
                        "None",
                        format!("may not be set to 'None' for {kind} services"),
                    ));
                }
            }
        }
        let ip = text(spec, "clusterIP");
        if !ip.is_empty() && !headless {
            invalid_all(&path.child("clusterIPs").index(0), ip, validation::ip(ip), causes);
        }
        for (nth, ip) in items(spec, "externalIPs").iter().filter_map(Value::as_str).enumerate() {
            invalid_all(&path.child("externalIPs").index(nth), ip, validation::ip(ip), causes);
        }
        ports(spec, &path.child("ports"), causes);
    }

    fn validate_update(&self, service: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let (now, before) = (text(&service["spec"], "clusterIP"), text(&old["spec"], "clusterIP"));
        let keeps = |value: &Value| text(&value["spec"], "type") != "ExternalName";
        if keeps(service) && keeps(old) && !before.is_empty() && now != before {
            let path = FieldPath::new("spec").child("clusterIPs").index(0);
            causes.push(Cause::invalid(&path, json!([now]), "may not change once set"));
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
            _ => {}
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
