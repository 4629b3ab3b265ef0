//! EndpointSlices (discovery `validation.go`).

use super::endpoints::{endpoint_ip, is_api_server};
use crate::registry::fields::{self, invalid_all, items, items_mut, one_of, remove, require, same, set_default, text};
use crate::registry::strategy::{Strategy, Traits, WriteContext};
use crate::registry::warnings::Warnings;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use std::collections::HashSet;
use std::net::IpAddr;

/// An address of the kind that the slice says.
fn address(kind: &str, text: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    match (kind, text.parse::<IpAddr>()) {
        ("FQDN", _) => domain(text, path, causes),
        (kind, _) if !FAMILIES.contains(&kind) => {}
        (_, Err(_)) => invalid_all(path, text, validation::ip(text), causes),
        ("IPv4", Ok(IpAddr::V6(_))) => causes.push(Cause::invalid(path, text, "must be an IPv4 address")),
        ("IPv6", Ok(IpAddr::V4(_))) => causes.push(Cause::invalid(path, text, "must be an IPv6 address")),
        (_, Ok(ip)) => endpoint_ip(ip, text, path, causes),
    }
}

/// A name that is no label alone (apimachinery `IsFullyQualifiedDomainName`).
fn domain(text: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if text.is_empty() {
        causes.push(Cause::required(path, ""));
        return;
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let wrong = validation::dns1123_subdomain(name);
    if !wrong.is_empty() {
        causes.push(Cause::invalid(path, name, wrong.join(",")));
    } else if !name.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        causes.push(Cause::invalid(path, name, why));
    } else if let Some((label, wrong)) =
        name.split('.').map(|label| (label, validation::dns1123_label(label))).find(|(_, wrong)| !wrong.is_empty())
    {
        causes.push(Cause::invalid(path, label, wrong.join(",")));
    }
}

/// For whom an endpoint is meant: zones, and nodes (`validateEndpoints`).
fn hints(hints: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    type Check = fn(&str) -> Vec<String>;
    let checks: [(&str, Check); 2] =
        [("forZones", validation::label_value), ("forNodes", validation::dns1123_subdomain)];
    for (list, check) in checks {
        let (given, path) = (items(hints, list), path.child(list));
        if given.len() > MAX_HINTS {
            causes.push(Cause::too_many(&path, given.len(), MAX_HINTS));
            return;
        }
        let mut seen = HashSet::new();
        for (nth, hint) in given.iter().enumerate() {
            let (path, name) = (path.index(nth).child("name"), text(hint, "name"));
            if !seen.insert(name) {
                causes.push(Cause::duplicate(&path, name));
            }
            invalid_all(&path, name, check(name), causes);
        }
    }
}

/// A field of the beta version alone (`dropTopologyOnV1`).
fn drop_topology(slice: &mut Value) {
    for endpoint in items_mut(slice, "endpoints") {
        remove(endpoint, "deprecatedTopology");
    }
}

/// discovery.k8s.io/v1 EndpointSlice
#[derive(Debug)]
pub struct EndpointSliceStrategy;

const FAMILIES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
/// Who writes slices and need not be told of what they copy.
const CONTROLLERS: [&str; 2] = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;
const MAX_TOPOLOGY: usize = 16;

impl Strategy for EndpointSliceStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, labels_count: true, ..Traits::DEFAULT }
    }

    fn default(&self, slice: &mut Value) {
        for port in items_mut(slice, "ports") {
            set_default(port, "name", "");
            set_default(port, "protocol", "TCP");
        }
    }

    fn prepare_create(&self, slice: &mut Value, _context: &WriteContext) {
        drop_topology(slice);
    }

    fn prepare_update(&self, slice: &mut Value, old: &Value, _context: &WriteContext) {
        if !same(slice, old, "endpoints") {
            drop_topology(slice);
        }
    }

    fn warnings(&self, slice: &Value, old: Option<&Value>) -> Vec<String> {
        let mut told = Warnings::default();
        if old.is_none() && text(slice, "addressType") == "FQDN" {
            // The place is upstream's.
            told.at(&FieldPath::new("spec.addressType"), "FQDN endpoints are deprecated");
        }
        if meta::label(slice, "endpointslice.kubernetes.io/managed-by").is_some_and(|by| CONTROLLERS.contains(&by)) {
            return told.into();
        }
        let path = FieldPath::new("endpoints");
        for (at, endpoint) in items(slice, "endpoints").iter().enumerate() {
            for (nth, address) in items(endpoint, "addresses").iter().filter_map(Value::as_str).enumerate() {
                told.ip(|| path.index(at).child("addresses").index(nth), address);
            }
        }
        told.into()
    }

    fn validate(&self, slice: &Value, causes: &mut Vec<Cause>) {
        let root = FieldPath::default();
        if require(slice, "addressType", &root, causes) {
            one_of(slice, "addressType", &FAMILIES, &root, causes);
        }
        let endpoints = items(slice, "endpoints");
        if endpoints.len() > MAX_ENDPOINTS {
            causes.push(Cause::too_many(&FieldPath::new("endpoints"), endpoints.len(), MAX_ENDPOINTS));
            return;
        }
        for (nth, endpoint) in endpoints.iter().enumerate() {
            let path = FieldPath::new("endpoints").index(nth).child("addresses");
            let addresses = items(endpoint, "addresses");
            if addresses.is_empty() {
                causes.push(Cause::required(&path, "must contain at least 1 address"));
            }
            if addresses.len() > MAX_ADDRESSES {
                causes.push(Cause::too_many(&path, addresses.len(), MAX_ADDRESSES));
            }
            for (nth, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
                let mut found = Vec::new();
                self::address(text(slice, "addressType"), address, &path.index(nth), &mut found);
                if !is_api_server(slice, "kubernetes") {
                    causes.append(&mut found);
                }
            }
            let path = FieldPath::new("endpoints").index(nth);
            if let Some(node) = endpoint.get("nodeName").and_then(Value::as_str) {
                invalid_all(&path.child("nodeName"), node, validation::dns1123_subdomain(node), causes);
            }
            let topology = endpoint.get("deprecatedTopology");
            let count = topology.and_then(Value::as_object).map_or(0, coracle_api::json::Map::len);
            if count > MAX_TOPOLOGY {
                causes.push(Cause::too_many(&path.child("deprecatedTopology"), count, MAX_TOPOLOGY));
            }
            fields::labels(topology, &path.child("deprecatedTopology"), causes);
            if let Some(host) = endpoint.get("hostname").and_then(Value::as_str) {
                invalid_all(&path.child("hostname"), host, validation::dns1123_label(host), causes);
            }
            hints(&endpoint["hints"], &path.child("hints"), causes);
        }
        let mut names = HashSet::new();
        let ports = items(slice, "ports");
        if ports.len() > MAX_PORTS {
            causes.push(Cause::too_many(&FieldPath::new("ports"), ports.len(), MAX_PORTS));
            return;
        }
        for (nth, port) in ports.iter().enumerate() {
            let path = FieldPath::new("ports").index(nth);
            let name = text(port, "name");
            if !name.is_empty() {
                invalid_all(&path.child("name"), name, validation::dns1123_label(name), causes);
            }
            if !names.insert(name) {
                causes.push(Cause::duplicate(&path.child("name"), name));
            }
            one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &path, causes);
            if let Some(protocol) = port.get("appProtocol").and_then(Value::as_str) {
                invalid_all(&path.child("appProtocol"), protocol, validation::qualified_name(protocol), causes);
            }
        }
    }

    fn validate_update(&self, slice: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if text(slice, "addressType") != text(old, "addressType") {
            causes.push(Cause::immutable(&FieldPath::new("addressType"), text(slice, "addressType")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(slice: Value) -> Vec<String> {
        let mut causes = Vec::new();
        EndpointSliceStrategy.validate(&slice, &mut causes);
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn domains_may_end_with_a_dot() {
        let of = |name: &str| told(json!({"addressType": "FQDN", "endpoints": [{"addresses": [name]}]}));
        assert!(of("a.example.com").is_empty() && of("a.example.com.").is_empty());
        let path = "endpoints[0].addresses[0]";
        let two = "should be a domain with at least two segments separated by dots";
        assert_eq!(of("single."), [format!("{path}: Invalid value: \"single\": {two}")]);
        assert_eq!(of(""), [format!("{path}: Required value")]);
        let long = "a".repeat(64);
        let why = format!("{path}: Invalid value: \"{long}\": must be no more than 63 characters");
        assert_eq!(of(&format!("{long}.example.com")), [why]);
    }

    #[test]
    fn hints_name_zones_and_nodes_once() {
        let of = |hints: Value| {
            told(json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "hints": hints}]}))
        };
        assert!(of(json!({"forZones": [{"name": "a"}], "forNodes": [{"name": "n"}]})).is_empty());
        let path = "endpoints[0].hints.forZones";
        assert_eq!(
            of(json!({"forZones": [{"name": "a"}, {"name": "a"}]})),
            [format!("{path}[1].name: Duplicate value: \"a\"")]
        );
        let nine: Vec<Value> = (0..9).map(|nth| json!({"name": format!("z{nth}")})).collect();
        assert_eq!(of(json!({"forZones": nine})), [format!("{path}: Too many: 9: must have at most 8 items")]);
    }

    #[test]
    fn what_the_beta_version_had_is_dropped() {
        let mut slice = json!({"endpoints": [{"addresses": ["10.0.0.1"], "deprecatedTopology": {"a": "b"}}]});
        drop_topology(&mut slice);
        assert_eq!(slice, json!({"endpoints": [{"addresses": ["10.0.0.1"]}]}));
    }
}
