//! What is allowed in a pod, and is most likely not what was meant (kubernetes `pkg/api/pod/warnings.go`).

use crate::registry::Row;
use crate::registry::fields::{field, items, quantity, text};
use coracle_api::json::Value;
use coracle_api::meta;
use coracle_api::status::FieldPath;

/// Labels of nodes that have other names now.
const NODE_LABELS: [(&str, &str, &str); 5] = [
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

const ANNOTATIONS: [(&str, &str); 4] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("seccomp.security.alpha.kubernetes.io/pod", SECCOMP),
];
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";

/// Sources of volumes that are on their way out, or gone.
const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// What to tell whoever makes an object that holds a pod or a template of pods.
pub fn on_create(row: &Row, object: &Value) -> Vec<String> {
    let mut told = Vec::new();
    match (&*row.served[0].0, &*row.kind) {
        ("", "Pod") => pod(object, None, &mut told),
        _ => template(row, object, &mut told),
    }
    told
}

/// What to tell whoever changes one. Pods themselves are rarely changed by people.
pub fn on_update(row: &Row, object: &Value, old: &Value) -> Vec<String> {
    let mut told = Vec::new();
    if meta::generation(object) != meta::generation(old) {
        template(row, object, &mut told);
    }
    told
}

fn template(row: &Row, object: &Value, told: &mut Vec<String>) {
    let path = FieldPath::new("spec");
    let (found, path) = match (&*row.served[0].0, &*row.kind) {
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job")
        | ("", "ReplicationController") => (object.pointer("/spec/template"), path.child("template")),
        ("batch", "CronJob") => (
            object.pointer("/spec/jobTemplate/spec/template"),
            path.child("jobTemplate").child("spec").child("template"),
        ),
        ("", "PodTemplate") => (object.get("template"), FieldPath::new("template")),
        _ => return,
    };
    if let Some(found) = found {
        pod(found, Some(&path), told);
    }
}

/// A pod, or a template at a path.
fn pod(object: &Value, path: Option<&FieldPath>, told: &mut Vec<String>) {
    let at = |name: &str| path.map_or_else(|| FieldPath::new(name), |path| path.child(name));
    for (name, _) in object.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten() {
        let known = ANNOTATIONS.iter().find(|(known, _)| known == name).map(|(_, why)| *why);
        if let Some(why) = known.or_else(|| name.starts_with(SECCOMP_OF_CONTAINER).then_some(SECCOMP)) {
            told.push(format!("{}: {why}", at("metadata").child("annotations").key(name).as_str()));
        }
    }
    let (spec, path) = (&object["spec"], at("spec"));
    placement(spec, &path, told);
    for (nth, volume) in items(spec, "volumes").iter().enumerate() {
        for (source, why) in VOLUMES.iter().filter(|(source, _)| field(volume, source).is_some()) {
            told.push(format!("{}: {why}", path.child("volumes").index(nth).child(source).as_str()));
        }
    }
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        let path = path.child("terminationGracePeriodSeconds");
        told.push(format!("{}: must be >= 0; negative values are invalid and will be treated as 1", path.as_str()));
    }
    for list in ["initContainers", "containers"] {
        for (nth, container) in items(spec, list).iter().enumerate() {
            self::container(container, &path.child(list).index(nth), told);
        }
    }
}

/// Where a pod may run, by labels that nodes had once.
fn placement(spec: &Value, path: &FieldPath, told: &mut Vec<String>) {
    let replaced = |label: &str| {
        let (_, since, instead) = NODE_LABELS.iter().find(|(known, ..)| *known == label)?;
        Some(format!("deprecated since {since}; use {instead:?} instead"))
    };
    for (label, _) in field(spec, "nodeSelector").and_then(Value::as_object).into_iter().flatten() {
        if let Some(why) = replaced(label) {
            told.push(format!("{}: {why}", path.child("nodeSelector").key(label).as_str()));
        }
    }
    let affinity = spec.pointer("/affinity/nodeAffinity").unwrap_or(&Value::Null);
    let path_of = path.child("affinity").child("nodeAffinity");
    let required = &affinity["requiredDuringSchedulingIgnoredDuringExecution"];
    let at = path_of.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    let required = items(required, "nodeSelectorTerms").iter().enumerate().map(|(nth, term)| (term, at.index(nth)));
    let at = path_of.child("preferredDuringSchedulingIgnoredDuringExecution");
    let preferred = items(affinity, "preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate();
    let preferred = preferred.map(|(nth, term)| (&term["preference"], at.index(nth).child("preference")));
    for (term, path) in required.chain(preferred) {
        for (nth, rule) in items(term, "matchExpressions").iter().enumerate() {
            let label = text(rule, "key");
            if let Some(why) = replaced(label) {
                let path = path.child("matchExpressions").index(nth).child("key");
                told.push(format!("{}: {label} is {why}", path.as_str()));
            }
        }
    }
    for (nth, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        let label = text(constraint, "topologyKey");
        if let Some(why) = replaced(label) {
            let path = path.child("topologySpreadConstraints").index(nth).child("topologyKey");
            told.push(format!("{}: {label} is {why}", path.as_str()));
        }
    }
}

fn container(container: &Value, path: &FieldPath, told: &mut Vec<String>) {
    let resources = field(container, "resources").unwrap_or(&Value::Null);
    for kind in ["limits", "requests"] {
        for name in ["memory", "ephemeral-storage"] {
            let amount = field(resources, kind).and_then(|list| field(list, name));
            if let Some(amount) = amount.filter(|amount| quantity(amount).is_some_and(|amount| !amount.is_integer())) {
                let path = path.child("resources").child(kind).key(name);
                told.push(format!("{}: fractional byte value {amount} is invalid, must be an integer", path.as_str()));
            }
        }
    }
    let env = items(container, "env");
    for (nth, variable) in env.iter().enumerate() {
        let name = text(variable, "name");
        if env[..nth].iter().any(|earlier| text(earlier, "name") == name) {
            let path = path.child("env").index(nth);
            told.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                path.as_str()
            ));
        }
    }
    let ports = items(container, "ports");
    let key = |port: &Value| {
        let number = |name: &str| port.get(name).and_then(Value::as_i64).unwrap_or(0);
        (
            number("containerPort"),
            text(port, "protocol").to_owned(),
            number("hostPort"),
            text(port, "hostIP").to_owned(),
        )
    };
    for (nth, port) in ports.iter().enumerate() {
        if let Some(earlier) = ports[..nth].iter().position(|earlier| key(earlier) == key(port)) {
            let (this, earlier) = (path.child("ports").index(nth), path.child("ports").index(earlier));
            told.push(format!("{}: duplicate port definition with {}", this.as_str(), earlier.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn what_was_hardly_meant_is_told() {
        let pod = json!({"metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "x", "a": "b"}}, "spec": {
            "nodeSelector": {"beta.kubernetes.io/os": "linux", "disk": "ssd"},
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference":
                {"matchExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone", "operator": "Exists"}]}}]}},
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "g", "gitRepo": {"repository": "x"}}],
            "containers": [{"name": "c", "env": [{"name": "A"}, {"name": "B"}, {"name": "A"}],
                "ports": [{"containerPort": 80}, {"containerPort": 80}, {"containerPort": 81}],
                "resources": {"limits": {"memory": "100m", "cpu": "100m"}}}]}});
        let told = on_create(crate::registry::pods(), &pod);
        let expected = [
            "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the \"seccompProfile\" field instead",
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
            "spec.volumes[1].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
            "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
        ];
        assert_eq!(told, expected);
        assert!(on_update(crate::registry::pods(), &pod, &json!({})).is_empty());
    }
}
