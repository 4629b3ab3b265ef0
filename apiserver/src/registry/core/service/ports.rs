//! The ports of a Service.

use super::number;
use crate::registry::fields::{invalid_all, items, one_of, text};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// Each port by itself (core `validateServicePort`).
pub fn each(ports: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut names = HashSet::new();
    for (nth, port) in ports.iter().enumerate() {
        let path = path.index(nth);
        match text(port, "name") {
            "" if ports.len() > 1 => causes.push(Cause::required(&path.child("name"), "")),
            "" => {}
            name => {
                invalid_all(&path.child("name"), name, validation::dns1123_label(name), causes);
                if !names.insert(name) {
                    causes.push(Cause::duplicate(&path.child("name"), name));
                }
            }
        }
        in_range(number(port, "port"), &path.child("port"), causes);
        if text(port, "protocol").is_empty() {
            causes.push(Cause::required(&path.child("protocol"), ""));
        } else {
            one_of(port, "protocol", &PROTOCOLS, &path, causes);
        }
        match port.get("targetPort") {
            Some(Value::String(name)) => {
                invalid_all(&path.child("targetPort"), name, validation::port_name(name), causes)
            }
            _ => in_range(number(port, "targetPort"), &path.child("targetPort"), causes),
        }
        if let Some(spoken) = port.get("appProtocol").and_then(Value::as_str) {
            invalid_all(&path.child("appProtocol"), spoken, validation::qualified_name(spoken), causes);
        }
    }
}

/// A number that ports can have.
pub fn in_range(number: i64, path: &FieldPath, causes: &mut Vec<Cause>) {
    causes.extend(validation::port_number(number).into_iter().map(|why| Cause::invalid(path, number, why)));
}

/// All of them together: no two are the same, and only some types have ports of the nodes.
pub fn together(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let ports = items(spec, "ports");
    let has_node_port = |(_, port): &(usize, &Value)| number(port, "nodePort") != 0;
    if text(spec, "type") == "ClusterIP" {
        for (nth, _) in ports.iter().enumerate().filter(has_node_port) {
            let why = "may not be used when `type` is 'ClusterIP'";
            causes.push(Cause::forbidden(&path.index(nth).child("nodePort"), why));
        }
    }
    let mut seen = HashSet::new();
    for (nth, port) in ports.iter().enumerate().filter(has_node_port) {
        let node_port = number(port, "nodePort");
        if !seen.insert((text(port, "protocol"), node_port)) {
            causes.push(Cause::duplicate(&path.index(nth).child("nodePort"), node_port));
        }
    }
    let mut seen = HashSet::new();
    for (nth, port) in ports.iter().enumerate() {
        let (protocol, number) = (text(port, "protocol"), number(port, "port"));
        if !seen.insert((protocol, number)) {
            causes.push(Cause::duplicate(&path.index(nth), internal(protocol, number)));
        }
    }
}

/// What is compared, as upstream shows it: in the names of its internal type, which leaves nothing out.
fn internal(protocol: &str, port: i64) -> Value {
    json!({"Name": "", "Protocol": protocol, "AppProtocol": null, "Port": port, "TargetPort": 0, "NodePort": 0})
}
