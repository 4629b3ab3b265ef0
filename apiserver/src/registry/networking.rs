//! Ingresses, their classes, network policies and service ranges (networking/v1 `defaults.go`, `validation.go`).

use super::fields::{
    invalid_all, is_set, items, items_mut, label_selector, object_mut, one_of, require, same, set, set_default, text,
};
use super::strategy::{NameRule, Strategy, Traits};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use ipnet::IpNet;
use std::net::IpAddr;

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];

/// The longest name of a controller of ingresses.
const CONTROLLER_MAX: usize = 250;

const GENERATION: Traits = Traits { generation: true, ..Traits::DEFAULT };

/// networking.k8s.io/v1 Ingress
#[derive(Debug)]
pub struct IngressStrategy;

impl Strategy for IngressStrategy {
    fn traits(&self) -> Traits {
        GENERATION
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        if let Some(class) = spec.get("ingressClassName").and_then(Value::as_str) {
            invalid_all(&path.child("ingressClassName"), class, validation::dns1123_subdomain(class), causes);
        }
        if items(spec, "rules").is_empty() && !is_set(spec, "defaultBackend") {
            let why = "either `defaultBackend` or `rules` must be specified";
            causes.push(Cause::invalid(&path, Value::Null, why));
        }
        if is_set(spec, "defaultBackend") {
            backend(&spec["defaultBackend"], &path.child("defaultBackend"), causes);
        }
        for (nth, rule) in items(spec, "rules").iter().enumerate() {
            let path = path.child("rules").index(nth);
            host(text(rule, "host"), &path.child("host"), causes);
            if is_set(rule, "http") {
                paths(items(&rule["http"], "paths"), &path.child("http").child("paths"), causes);
            }
        }
        for (nth, tls) in items(spec, "tls").iter().enumerate() {
            let path = path.child("tls").index(nth);
            for (at, name) in items(tls, "hosts").iter().filter_map(Value::as_str).enumerate() {
                invalid_all(&path.child("hosts").index(at), name, host_messages(name), causes);
            }
            let secret = text(tls, "secretName");
            if !secret.is_empty() {
                invalid_all(&path.child("secretName"), secret, validation::dns1123_subdomain(secret), causes);
            }
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("status").child("loadBalancer").child("ingress");
        for (nth, point) in items(&object["status"]["loadBalancer"], "ingress").iter().enumerate() {
            let (path, ip, name) = (path.index(nth), text(point, "ip"), text(point, "hostname"));
            if !ip.is_empty() {
                invalid_all(&path.child("ip"), ip, validation::ip(ip), causes);
            }
            if !name.is_empty() {
                invalid_all(&path.child("hostname"), name, validation::dns1123_subdomain(name), causes);
                if name.parse::<IpAddr>().is_ok() {
                    let why = "must be a DNS name, not an IP address";
                    causes.push(Cause::invalid(&path.child("hostname"), name, why));
                }
            }
        }
    }
}

/// The messages for a host name, or a pattern of them.
fn host_messages(name: &str) -> Vec<String> {
    if !name.contains('*') {
        return validation::dns1123_subdomain(name);
    }
    let plain = name.strip_prefix("*.").is_some_and(|rest| validation::dns1123_subdomain(rest).is_empty());
    if plain {
        return Vec::new();
    }
    vec![
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            .to_owned(),
    ]
}

fn host(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        return;
    }
    if name.parse::<IpAddr>().is_ok() {
        causes.push(Cause::invalid(path, name, "must be a DNS name, not an IP address"));
    }
    invalid_all(path, name, host_messages(name), causes);
}

fn paths(list: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    if list.is_empty() {
        causes.push(Cause::required(path, ""));
    }
    for (nth, one) in list.iter().enumerate() {
        let path = path.index(nth);
        let (value, path_path) = (text(one, "path"), path.child("path"));
        let kind = one.get("pathType").and_then(Value::as_str);
        if kind.is_none() {
            causes.push(Cause::required(&path.child("pathType"), "pathType must be specified"));
        }
        match kind.unwrap_or("ImplementationSpecific") {
            _ if kind.is_none() => {}
            "Exact" | "Prefix" => {
                if !value.starts_with('/') {
                    causes.push(Cause::invalid(&path_path, value, "must be an absolute path"));
                }
                for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| value.contains(*part)) {
                    causes.push(Cause::invalid(&path_path, value, format!("must not contain '{part}'")));
                }
                for end in ["/..", "/."].into_iter().filter(|end| value.ends_with(*end)) {
                    causes.push(Cause::invalid(&path_path, value, format!("cannot end with '{end}'")));
                }
            }
            "ImplementationSpecific" if !value.is_empty() && !value.starts_with('/') => {
                causes.push(Cause::invalid(&path_path, value, "must be an absolute path"));
            }
            "ImplementationSpecific" => {}
            other => causes.push(Cause::not_supported(&path.child("pathType"), other, &PATH_TYPES)),
        }
        backend(&one["backend"], &path.child("backend"), causes);
    }
}

fn backend(backend: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    // What is wrong as a whole is told with an empty value.
    let wrong = |why: &str| Cause::invalid(path, "", why);
    match (is_set(backend, "service"), is_set(backend, "resource")) {
        (true, true) => causes.push(wrong("cannot set both resource and service backends")),
        (false, false) => causes.push(wrong("resource or service backend is required")),
        (false, true) => reference(&backend["resource"], &path.child("resource"), causes),
        (true, false) => {
            let (service, at) = (&backend["service"], path.child("service"));
            let name = text(service, "name");
            if require(service, "name", &at, causes) {
                invalid_all(&at.child("name"), name, validation::dns1035_label(name), causes);
            }
            let (port, at) = (&service["port"], at.child("port"));
            let (number, name) = (port.get("number").and_then(Value::as_i64).unwrap_or(0), text(port, "name"));
            match (number, name) {
                (0, "") => causes.push(Cause::required(path, "port name or number is required")),
                (0, name) => invalid_all(&at.child("name"), name, validation::port_name(name), causes),
                (number, "") => {
                    let messages = validation::port_number(number);
                    causes.extend(messages.into_iter().map(|why| Cause::invalid(&at.child("number"), number, why)));
                }
                _ => causes.push(wrong("cannot set both port name & port number")),
            }
        }
    }
}

/// A reference to an object of any kind (`validateIngressTypedLocalObjectReference`).
fn reference(reference: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(group) = reference.get("apiGroup").and_then(Value::as_str) {
        invalid_all(&path.child("apiGroup"), group, validation::dns1123_subdomain(group), causes);
    }
    for field in ["kind", "name"] {
        match text(reference, field) {
            "" => causes.push(Cause::required(&path.child(field), &format!("{field} is required"))),
            value => invalid_all(&path.child(field), value, validation::path_segment(value), causes),
        }
    }
}

/// networking.k8s.io/v1 IngressClass
#[derive(Debug)]
pub struct IngressClassStrategy;

impl Strategy for IngressClassStrategy {
    fn traits(&self) -> Traits {
        GENERATION
    }

    fn default(&self, object: &mut Value) {
        if let Some(parameters) = object.pointer_mut("/spec/parameters").filter(|parameters| parameters.is_object()) {
            set_default(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let controller = text(spec, "controller");
        let at = path.child("controller");
        if controller.len() > CONTROLLER_MAX {
            causes.push(Cause::too_long(&at, CONTROLLER_MAX));
        }
        match controller.split_once('/') {
            _ if controller.is_empty() => causes.push(Cause::required(&at, "")),
            Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
                invalid_all(&at, domain, validation::dns1123_subdomain(domain), causes);
                if !rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)) {
                    let why = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                    causes.push(Cause::invalid(&at, rest, why));
                }
            }
            _ => {
                let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                causes.push(Cause::invalid(&at, controller, why));
            }
        }
        if is_set(spec, "parameters") {
            let (parameters, path) = (&spec["parameters"], path.child("parameters"));
            reference(parameters, &path, causes);
            one_of(parameters, "scope", &["Cluster", "Namespace"], &path, causes);
            match (text(parameters, "scope"), is_set(parameters, "namespace")) {
                ("Namespace", false) => {
                    let why = "`parameters.scope` is set to 'Namespace'";
                    causes.push(Cause::required(&path.child("namespace"), why));
                }
                ("Cluster", true) => {
                    let why = "`parameters.scope` is set to 'Cluster'";
                    causes.push(Cause::forbidden(&path.child("namespace"), why));
                }
                _ => {}
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !same(&object["spec"], &old["spec"], "controller") {
            causes.push(Cause::immutable(&FieldPath::new("spec.controller"), text(&object["spec"], "controller")));
        }
    }
}

/// networking.k8s.io/v1 NetworkPolicy
#[derive(Debug)]
pub struct NetworkPolicyStrategy;

impl Strategy for NetworkPolicyStrategy {
    fn traits(&self) -> Traits {
        GENERATION
    }

    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        set_default(spec, "podSelector", json!({}));
        if items(spec, "policyTypes").is_empty() {
            let egress = spec.get("egress").is_some_and(|egress| !egress.is_null());
            set(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
        for direction in ["ingress", "egress"] {
            for rule in items_mut(spec, direction) {
                for port in items_mut(rule, "ports") {
                    set_default(port, "protocol", "TCP");
                }
            }
        }
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        label_selector(&spec["podSelector"], &path.child("podSelector"), causes);
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for (nth, rule) in items(spec, direction).iter().enumerate() {
                let path = path.child(direction).index(nth);
                for (at, port) in items(rule, "ports").iter().enumerate() {
                    policy_port(port, &path.child("ports").index(at), causes);
                }
                for (at, peer) in items(rule, peers).iter().enumerate() {
                    policy_peer(peer, &path.child(peers).index(at), causes);
                }
            }
        }
        let types = items(spec, "policyTypes");
        if types.len() > 2 {
            let why = "may not specify more than two policyTypes";
            causes.push(Cause::invalid(&path.child("policyTypes"), types.to_vec(), why));
            return;
        }
        for (nth, kind) in types.iter().filter_map(Value::as_str).enumerate() {
            if !["Egress", "Ingress"].contains(&kind) {
                causes.push(Cause::not_supported(&path.child("policyTypes").index(nth), kind, &["Egress", "Ingress"]));
            }
        }
    }
}

fn policy_port(port: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    one_of(port, "protocol", &["SCTP", "TCP", "UDP"], path, causes);
    let end = port.get("endPort").and_then(Value::as_i64);
    match port.get("port") {
        Some(Value::Number(number)) => {
            let number = number.as_i64().unwrap_or(0);
            let messages = validation::port_number(number);
            causes.extend(messages.into_iter().map(|why| Cause::invalid(&path.child("port"), number, why)));
            if let Some(end) = end.filter(|end| *end < number) {
                causes.push(Cause::invalid(&path.child("endPort"), end, "must be greater than or equal to `port`"));
            }
        }
        Some(Value::String(name)) => {
            invalid_all(&path.child("port"), name, validation::port_name(name), causes);
            if let Some(end) = end {
                let why = "may not be specified when `port` is non-numeric";
                causes.push(Cause::invalid(&path.child("endPort"), end, why));
            }
        }
        _ => {
            if let Some(end) = end {
                let why = "may not be specified when `port` is not specified";
                causes.push(Cause::invalid(&path.child("endPort"), end, why));
            }
        }
    }
}

fn policy_peer(peer: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let is = |name: &str| peer.get(name).is_some_and(|value| !value.is_null());
    for name in ["podSelector", "namespaceSelector"].into_iter().filter(|name| is(name)) {
        label_selector(&peer[name], &path.child(name), causes);
    }
    let selects = is("podSelector") || is("namespaceSelector");
    match (is("ipBlock"), selects) {
        (false, false) => causes.push(Cause::required(path, "must specify a peer")),
        (true, true) => causes.push(Cause::forbidden(path, "may not specify both ipBlock and another peer")),
        (true, false) => ip_block(&peer["ipBlock"], &path.child("ipBlock"), causes),
        (false, true) => {}
    }
}

const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

fn ip_block(block: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if !require(block, "cidr", path, causes) {
        return;
    }
    let cidr = text(block, "cidr");
    let Ok(range) = cidr.parse::<IpNet>() else {
        causes.push(Cause::invalid(&path.child("cidr"), cidr, NO_RANGE));
        return;
    };
    for (nth, except) in items(block, "except").iter().filter_map(Value::as_str).enumerate() {
        let path = path.child("except").index(nth);
        match except.parse::<IpNet>() {
            Err(_) => causes.push(Cause::invalid(&path, except, NO_RANGE)),
            Ok(part) if !range.contains(&part) || range.prefix_len() >= part.prefix_len() => {
                let why = format!("must be a strict subset of `cidr`: {cidr:?}");
                causes.push(Cause::invalid(&path, except, why));
            }
            Ok(_) => {}
        }
    }
}

/// networking.k8s.io/v1 IPAddress
#[derive(Debug)]
pub struct AddressStrategy;

impl Strategy for AddressStrategy {
    fn traits(&self) -> Traits {
        GENERATION
    }

    fn name_rule(&self) -> NameRule {
        |name| match name.parse::<IpAddr>() {
            Ok(address) if address.to_string() == name => Vec::new(),
            Ok(_) => vec!["must be a canonical form of an IP address".into()],
            Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
        }
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("spec").child("parentRef");
        let parent = &object["spec"]["parentRef"];
        if parent.is_null() {
            causes.push(Cause::required(&path, ""));
            return;
        }
        for field in ["resource", "name"] {
            require(parent, field, &path, causes);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !same(&object["spec"], &old["spec"], "parentRef") {
            causes.push(Cause::immutable(&FieldPath::new("spec.parentRef"), object["spec"]["parentRef"].clone()));
        }
    }
}

/// networking.k8s.io/v1 ServiceCIDR
#[derive(Debug)]
pub struct ServiceRangeStrategy;

impl Strategy for ServiceRangeStrategy {
    fn traits(&self) -> Traits {
        GENERATION
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("spec").child("cidrs");
        let ranges: Vec<&str> = items(&object["spec"], "cidrs").iter().filter_map(Value::as_str).collect();
        if ranges.is_empty() {
            causes.push(Cause::required(&path, "at least one CIDR required"));
        }
        if ranges.len() > 2 {
            let why = "may only hold up to 2 values";
            causes.push(Cause::invalid(&path, ranges.iter().map(|range| Value::from(*range)).collect::<Vec<_>>(), why));
        }
        let mut families = Vec::new();
        for (nth, range) in ranges.iter().enumerate() {
            match range.parse::<IpNet>() {
                Ok(parsed) => families.push(parsed.addr().is_ipv4()),
                Err(_) => causes.push(Cause::invalid(&path.index(nth), *range, NO_RANGE)),
            }
        }
        if let [first, second] = families.as_slice()
            && first == second
        {
            let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            causes.push(Cause::invalid(&path, Value::Null, why));
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !same(&object["spec"], &old["spec"], "cidrs") {
            causes.push(Cause::immutable(&FieldPath::new("spec.cidrs"), object["spec"]["cidrs"].clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn causes(strategy: &dyn Strategy, mut object: Value) -> Vec<String> {
        strategy.default(&mut object);
        let mut causes = Vec::new();
        strategy.validate(&object, &mut causes);
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn ingresses() {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let with = |path: Value| json!({"spec": {"rules": [{"host": "a.example.com", "http": {"paths": [path]}}]}});
        assert_eq!(
            causes(&IngressStrategy, with(json!({"path": "/", "pathType": "Prefix", "backend": backend}))),
            Vec::<String>::new()
        );
        assert_eq!(
            causes(
                &IngressStrategy,
                with(json!({"path": "x", "pathType": "Prefix", "backend": {"service": {"name": "web"}}}))
            ),
            [
                "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
                "spec.rules[0].http.paths[0].backend: Required value: port name or number is required"
            ]
        );
        assert_eq!(
            causes(&IngressStrategy, with(json!({"path": "/", "backend": backend}))),
            ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]
        );
        assert!(
            causes(&IngressStrategy, json!({}))[0].contains("either `defaultBackend` or `rules` must be specified")
        );
    }

    #[test]
    fn network_policies() {
        let mut policy = json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}});
        NetworkPolicyStrategy.default(&mut policy);
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
        let rows = [
            (json!({"from": [{}]}), "spec.ingress[0].from[0]: Required value: must specify a peer"),
            (
                json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}),
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`: \"10.0.0.0/8\"",
            ),
            (
                json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}),
                "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                json!({"ports": [{"port": 80, "endPort": 79}]}),
                "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
            ),
        ];
        for (rule, expected) in rows {
            assert_eq!(causes(&NetworkPolicyStrategy, json!({"spec": {"ingress": [rule]}})), [expected]);
        }
    }
}
