//! Ingresses, their classes, network policies and service ranges (networking/v1 `defaults.go`, `validation.go`).

use super::Subresource;
use super::fields::{
    domain_prefixed_path, invalid_all, is_set, items, items_mut, label_selector, object_mut, one_of, require, same,
    set, set_default, text,
};
use super::strategy::{NameRule, Strategy, ThroughStatus, Traits};
use super::warnings::Warnings;
use coracle_api::fields::Set;
use coracle_api::json::{Value, json};
use coracle_api::names::Names;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use std::net::IpAddr;
use std::sync::LazyLock;

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];

/// Says what `spec.ingressClassName` says, as Ingresses did before v1.18.
const CLASS: &str = "kubernetes.io/ingress.class";

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
        if items(spec, "rules").is_empty() && !is_set(spec, "defaultBackend") {
            let why = "either `defaultBackend` or `rules` must be specified";
            causes.push(Cause::invalid(&path, spec["rules"].clone(), why));
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
        if let Some(class) = spec.get("ingressClassName").and_then(Value::as_str) {
            invalid_all(&path.child("ingressClassName"), class, validation::dns1123_subdomain(class), causes);
        }
    }

    fn validate_create(&self, object: &Value, causes: &mut Vec<Cause>) {
        self.validate(object, causes);
        let class = object["spec"].get("ingressClassName").and_then(Value::as_str);
        if let (Some(annotated), Some(class)) = (meta::annotation(object, CLASS), class)
            && annotated != class
        {
            let path = FieldPath::new("annotations").child(CLASS);
            causes.push(Cause::invalid(&path, annotated, "must match `ingressClassName` when both are specified"));
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let annotated = old.is_none() && meta::annotation(object, CLASS).is_some();
        if !annotated || object["spec"].get("ingressClassName").is_some_and(|class| !class.is_null()) {
            return Vec::new();
        }
        vec![format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead")]
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
    let mut told = Vec::new();
    if name.len() > validation::DNS_SUBDOMAIN_MAX {
        told.push(format!("must be no more than {} characters", validation::DNS_SUBDOMAIN_MAX));
    }
    let plain = name.strip_prefix("*.").is_some_and(|rest| validation::dns1123_subdomain(rest).is_empty());
    if plain {
        return told;
    }
    told.push(
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            .to_owned(),
    );
    told
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
        let Some(kind) = one.get("pathType").and_then(Value::as_str) else {
            causes.push(Cause::required(&path.child("pathType"), "pathType must be specified"));
            continue;
        };
        match kind {
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
                invalid_all(&at.child("name"), name, validation::dns1123_label(name), causes);
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
        domain_prefixed_path(controller, &at, causes);
        if is_set(spec, "parameters") {
            let (parameters, path) = (&spec["parameters"], path.child("parameters"));
            reference(parameters, &path, causes);
            one_of(parameters, "scope", &["Cluster", "Namespace"], &path, causes);
            match (text(parameters, "scope"), parameters.get("namespace").and_then(Value::as_str)) {
                ("Namespace", None) => {
                    let why = "`parameters.scope` is set to 'Namespace'";
                    causes.push(Cause::required(&path.child("namespace"), why));
                }
                ("Namespace", Some(namespace)) => {
                    let told = validation::dns1123_label(namespace);
                    invalid_all(&path.child("namespace"), namespace, told, causes);
                }
                ("Cluster", Some(_)) => {
                    let why = "`parameters.scope` is set to 'Cluster'";
                    causes.push(Cause::forbidden(&path.child("namespace"), why));
                }
                _ => {}
            }
        }
    }

    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !same(&object["spec"], &old["spec"], "controller") {
            causes.push(Cause::immutable(&FieldPath::new("spec.controller"), text(&object["spec"], "controller")));
        }
        self.validate(object, causes);
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
            if !["Ingress", "Egress"].contains(&kind) {
                causes.push(Cause::not_supported(&path.child("policyTypes").index(nth), kind, &["Ingress", "Egress"]));
            }
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let (mut told, path) = (Warnings::default(), FieldPath::new("spec"));
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for (nth, rule) in items(&object["spec"], direction).iter().enumerate() {
                for (at, peer) in items(rule, peers).iter().enumerate() {
                    let Some(block) = peer.get("ipBlock") else { continue };
                    let path = || path.child(direction).index(nth).child(peers).index(at).child("ipBlock");
                    told.cidr(|| path().child("cidr"), text(block, "cidr"));
                    for (at, range) in items(block, "except").iter().filter_map(Value::as_str).enumerate() {
                        told.cidr(|| path().child("except").index(at), range);
                    }
                }
            }
        }
        told.into()
    }
}

fn policy_port(port: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    one_of(port, "protocol", &["TCP", "UDP", "SCTP"], path, causes);
    let end = port.get("endPort").and_then(Value::as_i64);
    match port.get("port") {
        Some(Value::Number(number)) => {
            let number = number.as_i64().unwrap_or(0);
            let messages = validation::port_number(number);
            causes.extend(messages.into_iter().map(|why| Cause::invalid(&path.child("port"), number, why)));
            if let Some(end) = end {
                let path = path.child("endPort");
                if end < number {
                    causes.push(Cause::invalid(&path, end, "must be greater than or equal to `port`"));
                }
                causes.extend(validation::port_number(end).into_iter().map(|why| Cause::invalid(&path, end, why)));
            }
        }
        Some(Value::String(name)) => {
            if let Some(end) = end {
                let why = "may not be specified when `port` is non-numeric";
                causes.push(Cause::invalid(&path.child("endPort"), end, why));
            }
            invalid_all(&path.child("port"), name, validation::port_name(name), causes);
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
    if is("ipBlock") {
        ip_block(&peer["ipBlock"], &path.child("ipBlock"), causes);
    }
    match (is("ipBlock"), is("podSelector") || is("namespaceSelector")) {
        (false, false) => causes.push(Cause::required(path, "must specify a peer")),
        (true, true) => causes.push(Cause::forbidden(path, "may not specify both ipBlock and another peer")),
        _ => {}
    }
}

fn ip_block(block: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if !require(block, "cidr", path, causes) {
        return;
    }
    let cidr = text(block, "cidr");
    invalid_all(&path.child("cidr"), cidr, validation::cidr(cidr), causes);
    let Some(range) = validation::sloppy_cidr(cidr) else { return };
    for (nth, except) in items(block, "except").iter().filter_map(Value::as_str).enumerate() {
        let path = path.child("except").index(nth);
        invalid_all(&path, except, validation::cidr(except), causes);
        if let Some(part) = validation::sloppy_cidr(except)
            && (!range.contains(&part.network()) || range.prefix_len() >= part.prefix_len())
        {
            causes.push(Cause::invalid(&path, except, "must be a strict subset of `cidr`"));
        }
    }
}

/// networking.k8s.io/v1 IPAddress
#[derive(Debug)]
pub struct AddressStrategy;

impl Strategy for AddressStrategy {
    fn name_rule(&self) -> NameRule {
        validation::canonical_ip
    }

    fn generate_name(&self, prefix: &str, _names: &dyn Names) -> String {
        // With something behind it would be no address (networking/ipaddress `noopNameGenerator`).
        prefix.to_owned()
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("spec").child("parentRef");
        let parent = &object["spec"]["parentRef"];
        if parent.is_null() {
            causes.push(Cause::required(&path, ""));
            return;
        }
        if !text(parent, "group").is_empty() {
            let group = text(parent, "group");
            invalid_all(&path.child("group"), group, validation::dns1123_subdomain(group), causes);
        }
        for field in ["resource", "name", "namespace"] {
            let value = text(parent, field);
            if !value.is_empty() {
                invalid_all(&path.child(field), value, validation::path_segment(value), causes);
            } else if field != "namespace" {
                causes.push(Cause::required(&path.child(field), ""));
            }
        }
    }

    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !same(&object["spec"], &old["spec"], "parentRef") {
            let parent = &object["spec"]["parentRef"];
            let shown = match parent.is_null() {
                true => Value::Null,
                false => json!({"Group": text(parent, "group"), "Resource": text(parent, "resource"),
                    "Namespace": text(parent, "namespace"), "Name": text(parent, "name")}),
            };
            causes.push(Cause::immutable(&FieldPath::new("spec.parentRef"), shown));
        }
    }
}

/// networking.k8s.io/v1 ServiceCIDR
#[derive(Debug)]
pub struct ServiceRangeStrategy;

impl Strategy for ServiceRangeStrategy {
    fn traits(&self) -> Traits {
        // Upstream's strategy neither clears the status nor keeps it.
        let through_status = ThroughStatus::Nothing;
        Traits { status_on_create: true, status_on_update: true, through_status, ..Traits::DEFAULT }
    }

    fn reset_fields(&self, _through: Option<Subresource>) -> Option<&'static Set<'static>> {
        // Upstream's are those of a version that there is not (networking/servicecidr `GetResetFields`).
        static NONE: LazyLock<Set<'static>> = LazyLock::new(Set::default);
        Some(&NONE)
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("spec").child("cidrs");
        let ranges = cidrs(object);
        if ranges.is_empty() {
            causes.push(Cause::required(&path, "at least one CIDR required"));
            return;
        }
        if ranges.len() > 2 {
            causes.push(Cause::invalid(&path, json!({"CIDRs": ranges}), "may only hold up to 2 values"));
            return;
        }
        for (nth, range) in ranges.iter().enumerate() {
            invalid_all(&path.index(nth), range, validation::canonical_cidr(range), causes);
        }
        let is_v4 = |range: &str| validation::sloppy_cidr(range).map(|range| range.addr().is_ipv4());
        if let [first, second] = ranges.as_slice()
            && (is_v4(first).is_none() || is_v4(second).is_none() || is_v4(first) == is_v4(second))
        {
            let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            causes.push(Cause::invalid(&path, ranges, why));
        }
    }

    /// The second family can be added later; nothing else changes (`ValidateServiceCIDRUpdate`).
    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("spec").child("cidrs");
        let (now, before) = (cidrs(object), cidrs(old));
        match (before.len(), now.len()) {
            (1, 2) if now[0] == before[0] => self.validate(object, causes),
            (1, 2) => causes.push(Cause::immutable(&path.index(0), now[0])),
            (had, have) if had != have => causes.push(Cause::immutable(&path, now)),
            _ => {
                let changed = now.iter().zip(&before).enumerate().filter(|(_, (now, before))| now != before);
                causes.extend(changed.map(|(nth, (now, _))| Cause::immutable(&path.index(nth), *now)));
            }
        }
    }
}

fn cidrs(object: &Value) -> Vec<&str> {
    items(&object["spec"], "cidrs").iter().filter_map(Value::as_str).collect()
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
    fn ingresses_name_their_class_once() {
        let with = |annotation: Value, class: Value| {
            json!({"metadata": {"annotations": {CLASS: annotation}}, "spec": {"ingressClassName": class,
                "defaultBackend": {"service": {"name": "0web", "port": {"number": 80}}}}})
        };
        let mut causes = Vec::new();
        for class in [json!("a"), Value::Null] {
            IngressStrategy.validate_create(&with("a".into(), class), &mut causes);
        }
        assert_eq!(causes, []);
        IngressStrategy.validate_create(&with("a".into(), "b".into()), &mut causes);
        let why = "annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when both are specified";
        assert_eq!(causes[0].to_string(), why);
        let old = with("a".into(), Value::Null);
        let told =
            "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead";
        assert_eq!(IngressStrategy.warnings(&old, None), [told]);
        assert!(IngressStrategy.warnings(&old, Some(&old)).is_empty());
        assert!(IngressStrategy.warnings(&with("a".into(), "a".into()), None).is_empty());
    }

    #[test]
    fn classes_of_namespaces_name_one() {
        let with = |parameters: Value| json!({"spec": {"controller": "a.io/b", "parameters": parameters}});
        let check = |more: Value| {
            let mut parameters = json!({"kind": "K", "name": "n"});
            more.as_object().unwrap().iter().for_each(|(key, value)| parameters[&**key] = value.clone());
            causes(&IngressClassStrategy, with(parameters))
        };
        assert!(check(json!({"scope": "Namespace", "namespace": "a"})).is_empty());
        assert!(check(json!({"scope": "Namespace", "namespace": "A"}))[0].contains("RFC 1123 label"));
        let why = "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'";
        assert_eq!(check(json!({"namespace": ""})), [why]);
    }

    #[test]
    fn ranges_get_their_second_family_later() {
        let of = |ranges: Value| json!({"spec": {"cidrs": ranges}});
        let made = |ranges: Value| causes(&ServiceRangeStrategy, of(ranges));
        let (v4, v6) = ("10.1.0.0/16", "fd00::/112");
        assert!(made(json!([v4])).is_empty() && made(json!([v6, v4])).is_empty());
        assert_eq!(made(json!([])), ["spec.cidrs: Required value: at least one CIDR required"]);
        assert_eq!(
            made(json!([v4, "10.2.0.0/16"])),
            [
                "spec.cidrs: Invalid value: [\"10.1.0.0/16\",\"10.2.0.0/16\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
            ]
        );
        let shown = "{\"CIDRs\":[\"10.1.0.0/16\",\"fd00::/112\",\"x\"]}";
        assert_eq!(
            made(json!([v4, v6, "x"])),
            [format!("spec.cidrs: Invalid value: {shown}: may only hold up to 2 values")]
        );
        let why = "spec.cidrs[0]: Invalid value: \"10.1.2.0/16\": must not have bits set beyond the prefix length";
        assert_eq!(made(json!(["10.1.2.0/16"])), [why]);
        let changed = |now: Value, before: Value| {
            let mut causes = Vec::new();
            ServiceRangeStrategy.validate_changed(&of(now), &of(before), &mut causes);
            causes.iter().map(Cause::to_string).collect::<Vec<_>>()
        };
        assert!(changed(json!([v4, v6]), json!([v4])).is_empty());
        let fixed = "Invalid value: \"10.9.0.0/16\": field is immutable";
        assert_eq!(changed(json!(["10.9.0.0/16", v6]), json!([v4])), [format!("spec.cidrs[0]: {fixed}")]);
        assert_eq!(changed(json!(["10.9.0.0/16"]), json!([v4])), [format!("spec.cidrs[0]: {fixed}")]);
        assert_eq!(
            changed(json!([v4]), json!([v4, v6])),
            ["spec.cidrs: Invalid value: [\"10.1.0.0/16\"]: field is immutable"]
        );
    }

    #[test]
    fn addresses_name_their_parent() {
        let of = |parent: Value| causes(&AddressStrategy, json!({"spec": {"parentRef": parent}}));
        assert!(of(json!({"resource": "services", "namespace": "default", "name": "a"})).is_empty());
        assert_eq!(
            of(json!({"group": "A", "namespace": "a/b"})),
            [
                "spec.parentRef.group: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "spec.parentRef.resource: Required value",
                "spec.parentRef.name: Required value",
                "spec.parentRef.namespace: Invalid value: \"a/b\": may not contain '/'",
            ]
        );
        assert_eq!((AddressStrategy.name_rule())("010.0.0.1"), ["must not have leading 0s"]);
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
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            ),
            (
                json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}),
                "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                json!({"ports": [{"port": 80, "endPort": 79}]}),
                "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
            ),
            (
                json!({"ports": [{"port": 80, "endPort": 65536}]}),
                "spec.ingress[0].ports[0].endPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"from": [{"ipBlock": {"cidr": "10.0.0.5/8"}}]}),
                "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.5/8\": must not have bits set beyond the prefix length",
            ),
        ];
        for (rule, expected) in rows {
            assert_eq!(causes(&NetworkPolicyStrategy, json!({"spec": {"ingress": [rule]}})), [expected]);
        }
    }
}
