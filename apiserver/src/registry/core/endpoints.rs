//! Endpoints and EndpointSlices.

use crate::registry::fields::{self, invalid_all, items, items_mut, one_of, require, set_default, text};
use crate::registry::strategy::{Strategy, Traits};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use std::collections::HashSet;
use std::net::IpAddr;

/// core/v1 Endpoints
#[derive(Debug)]
pub struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    fn traits(&self) -> Traits {
        Traits { create_on_update: true, ..Traits::DEFAULT }
    }

    fn default(&self, endpoints: &mut Value) {
        for subset in items_mut(endpoints, "subsets") {
            for port in items_mut(subset, "ports") {
                set_default(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, endpoints: &Value, causes: &mut Vec<Cause>) {
        let own = is_api_server(endpoints, "kubernetes");
        for (nth, subset) in items(endpoints, "subsets").iter().enumerate() {
            let path = FieldPath::new("subsets").index(nth);
            if items(subset, "addresses").is_empty() && items(subset, "notReadyAddresses").is_empty() {
                causes.push(Cause::required(&path, "must specify `addresses` or `notReadyAddresses`"));
            }
            for list in ["addresses", "notReadyAddresses"] {
                for (nth, address) in items(subset, list).iter().enumerate() {
                    let ip = text(address, "ip");
                    let path = path.child(list).index(nth);
                    let (at, host) = (path.child("ip"), text(address, "hostname"));
                    let parsed = ip.parse();
                    if parsed.is_err() {
                        invalid_all(&at, ip, validation::ip(ip), causes);
                    }
                    if !host.is_empty() {
                        invalid_all(&path.child("hostname"), host, validation::dns1123_label(host), causes);
                    }
                    if let Some(node) = address.get("nodeName").and_then(Value::as_str) {
                        invalid_all(&path.child("nodeName"), node, validation::dns1123_subdomain(node), causes);
                    }
                    match parsed {
                        Ok(parsed) if !own => endpoint_ip(parsed, ip, &at, causes),
                        Ok(_) => {}
                        Err(_) => causes.push(Cause::invalid(&at, ip, "must be a valid IP address")),
                    }
                }
            }
            let ports = items(subset, "ports");
            for (nth, port) in ports.iter().enumerate() {
                let path = path.child("ports").index(nth);
                match text(port, "name") {
                    "" if ports.len() > 1 => causes.push(Cause::required(&path.child("name"), "")),
                    "" => {}
                    name => invalid_all(&path.child("name"), name, validation::dns1123_label(name), causes),
                }
                if let Some(protocol) = port.get("appProtocol").and_then(Value::as_str) {
                    invalid_all(&path.child("appProtocol"), protocol, validation::qualified_name(protocol), causes);
                }
                let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
                causes.extend(
                    validation::port_number(number)
                        .into_iter()
                        .map(|why| Cause::invalid(&path.child("port"), number, why)),
                );
                one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &path, causes);
            }
        }
    }
}

/// The server's own endpoints are where it says it is reached, on one machine that is a loopback address.
fn is_api_server(object: &Value, name: &str) -> bool {
    (meta::namespace(object), meta::name(object)) == ("default", name)
}

/// An address that an endpoint cannot have (core `ValidateEndpointIP`): the server and proxies must not be led to
/// themselves.
pub fn endpoint_ip(ip: IpAddr, text: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let link_group = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.octets()[0] == 0xff && ip.octets()[1] & 0xf == 2,
    };
    let rules = [
        (ip.is_unspecified(), format!("may not be unspecified ({text})")),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (link_group, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()),
    ];
    for (_, why) in rules.into_iter().filter(|(holds, _)| *holds) {
        causes.push(Cause::invalid(path, text, why));
    }
}

fn slice_address(kind: &str, text: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    match (kind, text.parse::<IpAddr>()) {
        ("FQDN", _) => {
            let wrong = validation::dns1123_subdomain(text);
            if wrong.is_empty() && !text.contains('.') {
                let why = "should be a domain with at least two segments separated by dots";
                causes.push(Cause::invalid(path, text, why));
            }
            invalid_all(path, text, wrong, causes);
        }
        (_, Err(_)) => invalid_all(path, text, validation::ip(text), causes),
        ("IPv4", Ok(IpAddr::V6(_))) => causes.push(Cause::invalid(path, text, "must be an IPv4 address")),
        ("IPv6", Ok(IpAddr::V4(_))) => causes.push(Cause::invalid(path, text, "must be an IPv6 address")),
        (_, Ok(ip)) => endpoint_ip(ip, text, path, causes),
    }
}

/// discovery.k8s.io/v1 EndpointSlice
#[derive(Debug)]
pub struct EndpointSliceStrategy;

const FAMILIES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 100;

impl Strategy for EndpointSliceStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, ..Traits::DEFAULT }
    }

    fn default(&self, slice: &mut Value) {
        for port in items_mut(slice, "ports") {
            set_default(port, "name", "");
            set_default(port, "protocol", "TCP");
        }
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
                slice_address(text(slice, "addressType"), address, &path.index(nth), &mut found);
                if !is_api_server(slice, "kubernetes") {
                    causes.append(&mut found);
                }
            }
            let path = FieldPath::new("endpoints").index(nth);
            let topology = endpoint.get("deprecatedTopology");
            fields::labels(topology, &path.child("deprecatedTopology"), causes);
            if let Some(node) = endpoint.get("nodeName").and_then(Value::as_str) {
                invalid_all(&path.child("nodeName"), node, validation::dns1123_subdomain(node), causes);
            }
            if let Some(host) = endpoint.get("hostname").and_then(Value::as_str) {
                invalid_all(&path.child("hostname"), host, validation::dns1123_label(host), causes);
            }
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
            if let Some(protocol) = port.get("appProtocol").and_then(Value::as_str) {
                invalid_all(&path.child("appProtocol"), protocol, validation::qualified_name(protocol), causes);
            }
            one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &path, causes);
        }
    }

    fn validate_update(&self, slice: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if text(slice, "addressType") != text(old, "addressType") {
            causes.push(Cause::immutable(&FieldPath::new("addressType"), text(slice, "addressType")));
        }
    }
}
