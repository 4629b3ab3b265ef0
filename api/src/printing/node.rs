//! Nodes.

use crate::json::Value;

use super::access::{list_at, or_none, str_at};
use super::{AGE, NAME, Printer, age, text, wide};
use crate::meta;

pub(super) fn find(group: &str, kind: &str) -> Option<&'static Printer> {
    match (group, kind) {
        ("", "Node") => Some(&NODE),
        ("node.k8s.io", "RuntimeClass") => Some(&RUNTIME_CLASS),
        _ => None,
    }
}

static NODE: Printer = Printer {
    columns: &[
        NAME,
        text("Status"),
        text("Roles"),
        AGE,
        text("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    cells: |o, now| {
        let unknown = |text: &str| if text.is_empty() { "<unknown>".to_owned() } else { text.to_owned() };
        let info = |field: &str| unknown(str_at(o, &format!("/status/nodeInfo/{field}")));
        vec![
            meta::name(o).into(),
            status(o).into(),
            roles(o).into(),
            age(o, now).into(),
            str_at(o, "/status/nodeInfo/kubeletVersion").into(),
            or_none(address(o, "InternalIP")).into(),
            or_none(address(o, "ExternalIP")).into(),
            info("osImage").into(),
            info("kernelVersion").into(),
            info("containerRuntimeVersion").into(),
        ]
    },
};

fn status(node: &Value) -> String {
    let ready = list_at(node, "/status/conditions").iter().find(|c| str_at(c, "/type") == "Ready");
    let mut words = match ready.map(|c| str_at(c, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        words.push_str(",SchedulingDisabled");
    }
    words
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (label, value) in meta::labels(node).into_iter().flatten() {
        match (label.strip_prefix("node-role.kubernetes.io/"), label.as_str(), value.as_str()) {
            (Some(role), ..) if !role.is_empty() => roles.push(role),
            (None, "kubernetes.io/role", Some(role)) if !role.is_empty() => roles.push(role),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    or_none(&roles.join(",")).to_owned()
}

fn address<'v>(node: &'v Value, kind: &str) -> &'v str {
    list_at(node, "/status/addresses").iter().find(|a| str_at(a, "/type") == kind).map_or("", |a| str_at(a, "/address"))
}

static RUNTIME_CLASS: Printer = Printer {
    columns: &[NAME, text("Handler"), AGE],
    cells: |o, now| vec![meta::name(o).into(), str_at(o, "/handler").into(), age(o, now).into()],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;
    use jiff::Timestamp;

    #[test]
    fn a_node() {
        let node = json!({"metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "False"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian"}}});
        assert_eq!(
            NODE.row(&node, Timestamp::UNIX_EPOCH),
            [
                "n1",
                "NotReady,SchedulingDisabled",
                "control-plane,worker",
                "<unknown>",
                "v1.36.0",
                "10.0.0.1",
                "<none>",
                "Debian",
                "<unknown>",
                "<unknown>"
            ]
        );
        assert_eq!((status(&json!({})), roles(&json!({}))), ("Unknown".into(), "<none>".into()));
    }
}
