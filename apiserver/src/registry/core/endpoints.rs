//! Endpoints.

use crate::registry::fields::{invalid_all, items, items_mut, one_of, same, set_default, text};
use crate::registry::strategy::{Strategy, Traits};
use crate::registry::warnings::Warnings;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
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

    /// What stays as it was is not judged again.
    fn validate_changed(&self, endpoints: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !same(endpoints, old, "subsets") {
            self.validate(endpoints, causes);
        }
    }

    /// Of what a controller writes nobody needs to be told.
    fn warnings(&self, endpoints: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut told = Warnings::default();
        if meta::label(endpoints, "endpoints.kubernetes.io/managed-by") == Some("endpoint-controller") {
            return Vec::new();
        }
        let path = FieldPath::new("subsets");
        for (at, subset) in items(endpoints, "subsets").iter().enumerate() {
            for list in ["addresses", "notReadyAddresses"] {
                for (nth, address) in items(subset, list).iter().enumerate() {
                    told.ip(|| path.index(at).child(list).index(nth).child("ip"), text(address, "ip"));
                }
            }
        }
        told.into()
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
                let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
                causes.extend(
                    validation::port_number(number)
                        .into_iter()
                        .map(|why| Cause::invalid(&path.child("port"), number, why)),
                );
                one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &path, causes);
                if let Some(protocol) = port.get("appProtocol").and_then(Value::as_str) {
                    invalid_all(&path.child("appProtocol"), protocol, validation::qualified_name(protocol), causes);
                }
            }
        }
    }
}

/// The server's own endpoints are where it says it is reached, on one machine that is a loopback address.
pub fn is_api_server(object: &Value, name: &str) -> bool {
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
