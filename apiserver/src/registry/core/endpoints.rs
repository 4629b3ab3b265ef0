//! Endpoints and EndpointSlices.

use crate::registry::fields::{invalid_all, items, items_mut, one_of, require, set_default, text};
use crate::registry::strategy::{Strategy, Traits};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::Value;
use std::collections::HashSet;

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
        for (nth, subset) in items(endpoints, "subsets").iter().enumerate() {
            let path = FieldPath::new("subsets").index(nth);
            if items(subset, "addresses").is_empty() && items(subset, "notReadyAddresses").is_empty() {
                causes.push(Cause::required(&path, "must specify `addresses` or `notReadyAddresses`"));
            }
            for list in ["addresses", "notReadyAddresses"] {
                for (nth, address) in items(subset, list).iter().enumerate() {
                    let ip = text(address, "ip");
                    invalid_all(&path.child(list).index(nth).child("ip"), ip, validation::ip(ip), causes);
                }
            }
            let ports = items(subset, "ports");
            for (nth, port) in ports.iter().enumerate() {
                let path = path.child("ports").index(nth);
                if ports.len() > 1 && text(port, "name").is_empty() {
                    causes.push(Cause::required(&path.child("name"), ""));
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

/// discovery.k8s.io/v1 EndpointSlice
#[derive(Debug)]
pub struct EndpointSliceStrategy;

const FAMILIES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;

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
                let wrong = match text(slice, "addressType") {
                    "FQDN" => validation::dns1123_subdomain(address),
                    _ => validation::ip(address),
                };
                invalid_all(&path.index(nth), address, wrong, causes);
            }
        }
        let mut names = HashSet::new();
        for (nth, port) in items(slice, "ports").iter().enumerate() {
            let path = FieldPath::new("ports").index(nth);
            if !names.insert(text(port, "name")) {
                causes.push(Cause::duplicate(&path.child("name"), text(port, "name")));
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
