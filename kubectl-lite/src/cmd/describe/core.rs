//! Nodes, services, config maps, secrets, namespaces, and whatever has no description of its own.

use coracle_api::json::Value;
use coracle_api::{meta, yaml};

use super::{Text, moment, text};
use crate::{cmd::get::encode, error::Result, session::Session};

/// A node with its pods.
pub async fn node(session: &Session, node: &Value) -> Result<String> {
    let (spec, status) = (&node["spec"], &node["status"]);
    let mut out = Text::new();
    out.head(node);
    let mut roles: Vec<_> = meta::labels(node)
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    roles.sort_unstable();
    out.line(0, "Roles", if roles.is_empty() { "<none>".into() } else { roles.join(",") });
    out.labels(node);
    out.line(0, "CreationTimestamp", moment(&node["metadata"]["creationTimestamp"]));
    let taints: Vec<String> = spec["taints"].as_array().into_iter().flatten().map(taint).collect();
    out.line(0, "Taints", if taints.is_empty() { "<none>".into() } else { taints.join("\n\t") });
    out.line(0, "Unschedulable", spec["unschedulable"] == true);
    out.raw(0, "Conditions:");
    out.raw(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    out.raw(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for condition in status["conditions"].as_array().into_iter().flatten() {
        out.raw(
            1,
            format!(
                "{}\t{}\t{}\t{}\t{}\t{}",
                text(&condition["type"]),
                text(&condition["status"]),
                moment(&condition["lastHeartbeatTime"]),
                moment(&condition["lastTransitionTime"]),
                text(&condition["reason"]),
                text(&condition["message"])
            ),
        );
    }
    out.raw(0, "Addresses:");
    for address in status["addresses"].as_array().into_iter().flatten() {
        out.line(1, &text(&address["type"]), text(&address["address"]));
    }
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        out.raw(0, format!("{title}:"));
        for (name, quantity) in status[field].as_object().into_iter().flatten() {
            out.line(1, name, text(quantity));
        }
    }
    out.raw(0, "System Info:");
    for (name, value) in status["nodeInfo"].as_object().into_iter().flatten().filter(|(_, value)| value.is_string()) {
        out.line(1, name, text(value));
    }
    if !text(&spec["podCIDR"]).is_empty() {
        out.line(0, "PodCIDR", text(&spec["podCIDR"]));
    }
    let selector = encode(&format!("spec.nodeName={}", meta::name(node)));
    let pods = session.get(&format!("/api/v1/pods?fieldSelector={selector}")).await?;
    let pods: Vec<_> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")))
        .collect();
    out.line(0, "Non-terminated Pods", format!("({} in total)", pods.len()));
    out.raw(1, "Namespace\tName");
    out.raw(1, "---------\t----");
    for pod in pods {
        out.raw(1, format!("{}\t{}", meta::namespace(pod), meta::name(pod)));
    }
    Ok(out.into_string())
}

fn taint(taint: &Value) -> String {
    let value = text(&taint["value"]);
    let value = if value.is_empty() { value } else { format!("={value}") };
    format!("{}{value}:{}", text(&taint["key"]), text(&taint["effect"]))
}

/// A service with its endpoints.
pub async fn service(session: &Session, service: &Value) -> Result<String> {
    let spec = &service["spec"];
    let mut out = Text::new();
    out.head(service).labels(service);
    out.map(0, "Selector", spec["selector"].as_object(), "=");
    out.line(0, "Type", text(&spec["type"]));
    out.line(0, "IP Family Policy", text(&spec["ipFamilyPolicy"]));
    let families: Vec<_> = spec["ipFamilies"].as_array().into_iter().flatten().map(text).collect();
    out.line(0, "IP Families", families.join(","));
    out.line(0, "IP", text(&spec["clusterIP"]));
    let addresses: Vec<_> = spec["clusterIPs"].as_array().into_iter().flatten().map(text).collect();
    out.line(0, "IPs", addresses.join(","));
    let selector = encode(&format!("kubernetes.io/service-name={}", meta::name(service)));
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector={selector}",
        meta::namespace(service)
    );
    let slices = session.get(&path).await?;
    for port in spec["ports"].as_array().into_iter().flatten() {
        let name = text(&port["name"]);
        let name = if name.is_empty() { "<unset>".into() } else { name };
        out.line(0, "Port", format!("{name}\t{}/{}", text(&port["port"]), text(&port["protocol"])));
        out.line(0, "TargetPort", format!("{}/{}", text(&port["targetPort"]), text(&port["protocol"])));
        if port["nodePort"].is_number() {
            out.line(0, "NodePort", format!("{name}\t{}/{}", text(&port["nodePort"]), text(&port["protocol"])));
        }
        out.line(0, "Endpoints", endpoints(&slices, &port["name"]));
    }
    out.line(0, "Session Affinity", text(&spec["sessionAffinity"]));
    Ok(out.into_string())
}

fn endpoints(slices: &Value, port_name: &Value) -> String {
    let mut found = Vec::new();
    for slice in slices["items"].as_array().into_iter().flatten() {
        let same = |name: &Value| name.as_str().unwrap_or_default() == port_name.as_str().unwrap_or_default();
        let port = slice["ports"].as_array().into_iter().flatten().find(|port| same(&port["name"]));
        let Some(port) = port else { continue };
        for endpoint in
            slice["endpoints"].as_array().into_iter().flatten().filter(|it| it["conditions"]["ready"] != false)
        {
            found.extend(
                endpoint["addresses"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|ip| format!("{}:{}", text(ip), text(&port["port"]))),
            );
        }
    }
    let more = found.len().saturating_sub(3);
    found.truncate(3);
    if more > 0 { format!("{} + {more} more...", found.join(",")) } else { found.join(",") }
}

/// A config map.
pub fn config_map(object: &Value) -> String {
    let mut out = Text::new();
    out.head(object).labels(object);
    out.raw(0, "\nData\n====");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        out.raw(0, format!("{key}:\n----\n{}\n", text(value)));
    }
    out.raw(0, "\nBinaryData\n====");
    for (key, value) in object["binaryData"].as_object().into_iter().flatten() {
        out.raw(0, format!("{key}: {} bytes", decoded_length(value)));
    }
    out.raw(0, "");
    out.into_string()
}

/// A secret, without what is secret.
pub fn secret(object: &Value) -> String {
    let mut out = Text::new();
    out.head(object).labels(object);
    out.raw(0, "").line(0, "Type", text(&object["type"]));
    out.raw(0, "\nData\n====");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        out.line(0, key, format!("{} bytes", decoded_length(value)));
    }
    out.into_string()
}

fn decoded_length(value: &Value) -> usize {
    use base64::{Engine, engine::general_purpose::STANDARD};
    value.as_str().and_then(|text| STANDARD.decode(text).ok()).map_or(0, |bytes| bytes.len())
}

/// A namespace.
pub fn namespace(object: &Value) -> String {
    let mut out = Text::new();
    out.head(object).labels(object);
    out.line(0, "Status", text(&object["status"]["phase"]));
    out.into_string()
}

/// Any object: the usual head, then its fields as YAML.
pub fn anything(object: &Value) -> String {
    let mut out = Text::new();
    out.head(object).labels(object);
    out.line(0, "API Version", meta::api_version(object)).line(0, "Kind", meta::kind(object));
    let rest: coracle_api::json::Map = object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "apiVersion" | "kind"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    out.raw(0, yaml::to_string(&Value::Object(rest)).trim_end());
    out.into_string()
}
