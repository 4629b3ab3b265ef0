//! A pod's containers, init containers and ephemeral containers (core `validateContainers`, `validateInitContainers`,
//! `validateEphemeralContainers`).

use super::container::{self, Around};
use super::mounts::Volumes;
use super::{probe, restarts};
use crate::registry::fields::{field, invalid_all, is_set, items, text};
use coracle_api::Cause;
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;
use std::collections::HashSet;

/// Names that are taken.
type Names<'a> = HashSet<&'a str>;

/// Host ports that are taken: number, protocol and address.
type Ports<'a> = HashSet<(i64, &'a str, &'a str)>;

/// All containers of a spec with these volumes.
pub fn validate(spec: &Value, volumes: &Volumes<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let around = Around::of(spec, volumes);
    let mut names = Names::new();
    regular(items(spec, "containers"), &around, &mut names, &path.child("containers"), causes);
    let init_containers = items(spec, "initContainers");
    if !init_containers.is_empty() {
        init(init_containers, &around, &mut names, &path.child("initContainers"), causes);
    }
    let guests = items(spec, "ephemeralContainers");
    if !guests.is_empty() {
        ephemeral(guests, &around, names, &path.child("ephemeralContainers"), causes);
    }
}

fn regular<'a>(
    containers: &'a [Value],
    around: &Around<'_>,
    names: &mut Names<'a>,
    path: &FieldPath,
    causes: &mut Vec<Cause>,
) {
    if containers.is_empty() {
        causes.push(Cause::required(path, ""));
    }
    for (nth, one) in containers.iter().enumerate() {
        let path = path.index(nth);
        container::validate(one, around, &path, causes);
        take_name(one, names, &path, causes);
        active(one, around, &path, causes);
        restarts::rules(one, &path, causes);
    }
    let mut taken = Ports::new();
    for (nth, one) in containers.iter().enumerate() {
        take_ports(one, &mut taken, nth, path, causes);
    }
}

fn init<'a>(
    containers: &'a [Value],
    around: &Around<'_>,
    names: &mut Names<'a>,
    list: &FieldPath,
    causes: &mut Vec<Cause>,
) {
    for (nth, one) in containers.iter().enumerate() {
        let path = list.index(nth);
        container::validate(one, around, &path, causes);
        restarts::init_rules(one, &path, causes);
        take_name(one, names, &path, causes);
        // They run one by one: each may have what another has. The place is upstream's.
        take_ports(one, &mut Ports::new(), 0, list, causes);
        if text(one, "restartPolicy") == "Always" {
            active(one, around, &path, causes);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if given(one, field).is_some() {
                let why = "may not be set for init containers without restartPolicy=Always";
                causes.push(Cause::forbidden(&path.child(field), why));
            }
        }
        restarts::resized_at_once(one, &path, causes);
    }
}

fn ephemeral<'a>(
    containers: &'a [Value],
    around: &Around<'_>,
    mut names: Names<'a>,
    path: &FieldPath,
    causes: &mut Vec<Cause>,
) {
    let others = names.clone();
    for (nth, one) in containers.iter().enumerate() {
        let path = path.index(nth);
        container::validate(one, around, &path, causes);
        container::trimmed_image(one, &path, causes);
        take_name(one, &mut names, &path, causes);
        let target = text(one, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            causes.push(Cause::not_found(&path.child("targetContainerName"), target));
        }
        guest(one, &path, causes);
    }
}

/// A field of a type that is a pointer upstream, when it is given.
fn given<'v>(container: &'v Value, name: &str) -> Option<&'v Value> {
    field(container, name).filter(|value| !value.is_null())
}

fn take_name<'a>(container: &'a Value, names: &mut Names<'a>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let name = text(container, "name");
    if !names.insert(name) {
        causes.push(Cause::duplicate(&path.child("name"), name));
    }
}

/// Host ports are taken once (core `AccumulateUniqueHostPorts`). `nth` is where the container is told to be.
fn take_ports<'a>(container: &'a Value, taken: &mut Ports<'a>, nth: usize, list: &FieldPath, causes: &mut Vec<Cause>) {
    for (at, port) in items(container, "ports").iter().enumerate() {
        let number = field(port, "hostPort").and_then(Value::as_i64).unwrap_or(0);
        let (protocol, ip) = (text(port, "protocol"), text(port, "hostIP"));
        if number != 0 && !taken.insert((number, protocol, ip)) {
            let path = list.index(nth).child("ports").index(at).child("hostPort");
            causes.push(Cause::duplicate(&path, format!("{protocol}/{ip}/{number}")));
        }
    }
}

/// What is done with a container that runs on: its hooks and its probes.
fn active(container: &Value, around: &Around<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(lifecycle) = given(container, "lifecycle") {
        let path = path.child("lifecycle");
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = given(lifecycle, hook) {
                probe::hook(handler, around.grace, &path.child(hook), causes);
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = given(container, name) {
            probe::validate(probe, name != "readinessProbe", &path.child(name), causes);
        }
    }
}

/// An ephemeral container is there to look, not to serve (core `allowedEphemeralContainerFields`).
fn guest(one: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
    let lists = [("ports", true), ("resources", false), ("resizePolicy", true), ("restartPolicy", false)];
    let others = [("restartPolicyRules", true), ("livenessProbe", false), ("readinessProbe", false)];
    let rest = [("startupProbe", false), ("lifecycle", false)];
    for (name, list) in lists.into_iter().chain(others).chain(rest) {
        let there = if list { is_set(one, name) } else { given(one, name).is_some() };
        if there && !(name == "resources" && empty(&one[name])) {
            causes.push(Cause::forbidden(&path.child(name), WHY));
        }
    }
    for (nth, mount) in items(one, "volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"].into_iter().filter(|field| is_set(mount, field)) {
            causes.push(Cause::forbidden(&path.child("volumeMounts").index(nth).child(field), WHY));
        }
    }
}

/// What a pod's host ports are on its host's network: those that it listens on (core `validatePodHostNetworkDeps`). In a template
/// they need not be given.
pub fn host_network(spec: &Value, is_pod: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    if spec["hostNetwork"] != true {
        return;
    }
    let number = |port: &Value, name: &str| field(port, name).and_then(Value::as_i64).unwrap_or(0);
    for (nth, container) in items(spec, "containers").iter().enumerate() {
        for (at, port) in items(container, "ports").iter().enumerate() {
            let (host, own) = (number(port, "hostPort"), number(port, "containerPort"));
            if host != own && (is_pod || host != 0) {
                let path = path.child("containers").index(nth).child("ports").index(at).child("hostPort");
                causes.push(Cause::invalid(&path, host, "must match `containerPort` when `hostNetwork` is true"));
            }
        }
    }
}

/// What pods are asked and templates are not (core `validatePodMetadataAndSpec`).
pub fn of_pod(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if text(spec, "serviceAccountName").is_empty() {
        for (nth, volume) in items(spec, "volumes").iter().enumerate() {
            let Some(projected) = field(volume, "projected") else { continue };
            for (at, _) in items(projected, "sources")
                .iter()
                .enumerate()
                .filter(|(_, source)| given(source, "serviceAccountToken").is_some())
            {
                let path = path.child("volumes").index(nth).child("projected").child("sources").index(at);
                let why = "must not be specified when serviceAccountName is not set";
                causes.push(Cause::forbidden(&path.child("serviceAccountToken"), why));
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for (nth, container) in items(spec, list).iter().enumerate() {
            let image = text(container, "image");
            if image.trim().len() != image.len() {
                container::trimmed_image(container, &path.child(list).index(nth), causes);
            }
        }
    }
}

/// The names of scheduling gates (core `validateSchedulingGates`).
pub fn gates(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for (nth, gate) in items(spec, "schedulingGates").iter().enumerate() {
        let (name, path) = (text(gate, "name"), path.child("schedulingGates").index(nth));
        invalid_all(&path, name, coracle_api::validation::qualified_name(name), causes);
        if !seen.insert(name) {
            causes.push(Cause::duplicate(&path, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(spec: Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate(&spec, &Volumes::new(), &FieldPath::new("spec"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    fn with(name: &str, more: Value) -> Value {
        let mut container =
            json!({"name": name, "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"});
        json_patch(&mut container, more);
        container
    }

    fn json_patch(container: &mut Value, more: Value) {
        for (name, value) in more.as_object().unwrap() {
            container[name.as_str()] = value.clone();
        }
    }

    fn port(number: i64) -> Value {
        json!({"ports": [{"containerPort": number, "hostPort": number, "protocol": "TCP"}]})
    }

    #[test]
    fn host_ports_are_taken_by_containers_that_run_together() {
        let spec =
            json!({"initContainers": [with("i", port(80)), with("s", port(80))], "containers": [with("a", port(80))]});
        assert!(told(spec).is_empty());
        let spec = json!({"containers": [with("a", port(80)), with("b", port(80)), with("c", port(81))]});
        assert_eq!(told(spec), ["spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//80\""]);
        let mut twice = port(80);
        twice["ports"] = json!([twice["ports"][0], twice["ports"][0]]);
        let spec =
            json!({"initContainers": [with("i", json!({})), with("j", twice)], "containers": [with("a", json!({}))]});
        assert_eq!(told(spec), ["spec.initContainers[0].ports[1].hostPort: Duplicate value: \"TCP//80\""]);
    }

    #[test]
    fn ports_of_the_host_are_those_of_the_container() {
        let check = |spec: Value, is_pod: bool| {
            let mut causes = Vec::new();
            host_network(&spec, is_pod, &FieldPath::new("spec"), &mut causes);
            causes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let spec = |host: i64, network: bool| {
            let ports = json!([{"ports": [{"containerPort": 80, "hostPort": host}]}]);
            json!({"hostNetwork": network, "containers": ports, "initContainers": ports})
        };
        let why = |host: i64| {
            vec![format!(
                "spec.containers[0].ports[0].hostPort: Invalid value: {host}: must match `containerPort` when `hostNetwork` is true"
            )]
        };
        assert_eq!(check(spec(81, true), false), why(81));
        assert_eq!(check(spec(0, true), true), why(0));
        assert!(check(spec(0, true), false).is_empty());
        assert!(check(spec(81, false), true).is_empty());
    }

    #[test]
    fn names_are_told_where_they_come_second() {
        let none = || json!({});
        let spec = json!({"initContainers": [with("a", none())], "containers": [with("a", none()), with("b", none())],
            "ephemeralContainers": [with("b", none())]});
        assert_eq!(
            told(spec),
            [
                "spec.initContainers[0].name: Duplicate value: \"a\"",
                "spec.ephemeralContainers[0].name: Duplicate value: \"b\""
            ]
        );
        let spec = json!({"containers": [with("", none()), with("", none())], "initContainers": [with("", none())]});
        assert_eq!(
            told(spec),
            [
                "spec.containers[0].name: Required value",
                "spec.containers[1].name: Required value",
                "spec.containers[1].name: Duplicate value: \"\"",
                "spec.initContainers[0].name: Required value",
                "spec.initContainers[0].name: Duplicate value: \"\"",
            ]
        );
        let spec = json!({"initContainers": [with("a", none()), with("a", none())]});
        assert_eq!(
            told(spec),
            ["spec.containers: Required value", "spec.initContainers[1].name: Duplicate value: \"a\""]
        );
    }

    #[test]
    fn ephemeral_containers_only_look() {
        let more = json!({"lifecycle": {}, "livenessProbe": {}, "resources": {}, "restartPolicy": "Never",
            "ports": [{"containerPort": 0, "protocol": "TCP"}], "image": " i", "targetContainerName": "b"});
        let spec = json!({"containers": [with("a", json!({}))], "ephemeralContainers": [with("e", more)]});
        let path = "spec.ephemeralContainers[0]";
        let forbidden = |field: &str| format!("{path}.{field}: Forbidden: cannot be set for an Ephemeral Container");
        assert_eq!(
            told(spec),
            [
                format!("{path}.ports[0].containerPort: Required value"),
                format!("{path}.image: Invalid value: \" i\": must not have leading or trailing whitespace"),
                format!("{path}.targetContainerName: Not found: \"b\""),
                forbidden("ports"),
                forbidden("restartPolicy"),
                forbidden("livenessProbe"),
                forbidden("lifecycle"),
            ]
        );
    }

    #[test]
    fn only_init_containers_that_stay_are_probed() {
        let more = || json!({"livenessProbe": {"exec": {"command": ["x"]}, "successThreshold": 1}, "lifecycle": {}});
        let mut stays = more();
        stays["restartPolicy"] = "Always".into();
        let spec = json!({"containers": [with("a", more())], "initContainers": [with("i", more()), with("s", stays)]});
        let why = "may not be set for init containers without restartPolicy=Always";
        assert_eq!(
            told(spec),
            ["lifecycle", "livenessProbe"].map(|field| format!("spec.initContainers[0].{field}: Forbidden: {why}"))
        );
    }

    #[test]
    fn hooks_sleep_no_longer_than_a_pod_may_take_to_end() {
        let of = |seconds: i64| with("a", json!({"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}}));
        let spec = |seconds: i64| json!({"terminationGracePeriodSeconds": 30, "containers": [of(seconds)]});
        assert!(told(spec(0)).is_empty());
        assert!(told(spec(30)).is_empty());
        for seconds in [-1, 31] {
            let why = "must be non-negative and less than terminationGracePeriodSeconds (30)";
            assert_eq!(
                told(spec(seconds)),
                [format!("spec.containers[0].lifecycle.preStop.sleep: Invalid value: {seconds}: {why}")]
            );
        }
    }

    #[test]
    fn claims_are_those_of_the_pod() {
        let container = with("a", json!({"resources": {"claims": [{"name": "x"}, {"name": "y"}]}}));
        assert_eq!(
            told(json!({"resourceClaims": [{"name": "x"}], "containers": [container]})),
            [
                "spec.containers[0].resources.claims[1]: Not found: \"y\": must be one of the names in pod.spec.resourceClaims: x"
            ]
        );
    }

    #[test]
    fn pods_are_asked_more_than_templates() {
        let check = |spec: Value| {
            let mut causes = Vec::new();
            of_pod(&spec, &FieldPath::new("spec"), &mut causes);
            causes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let token = json!({"projected": {"sources": [{"configMap": {}}, {"serviceAccountToken": {"path": "t"}}]}});
        let images = |list: &str| {
            format!("spec.{list}[0].image: Invalid value: \"i \": must not have leading or trailing whitespace")
        };
        assert_eq!(
            check(json!({"volumes": [token], "containers": [{"image": "i "}], "initContainers": [{"image": "i "}]})),
            [
                "spec.volumes[0].projected.sources[1].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set".to_owned(),
                images("containers"),
                images("initContainers"),
            ]
        );
        assert!(check(json!({"volumes": [token], "serviceAccountName": "a"})).is_empty());
    }

    #[test]
    fn gates_have_names_of_their_own() {
        let mut causes = Vec::new();
        let spec = json!({"schedulingGates": [{"name": "a.b/c"}, {"name": "a.b/c"}, {"name": ""}]});
        gates(&spec, &FieldPath::new("spec"), &mut causes);
        let causes: Vec<String> = causes.iter().map(ToString::to_string).collect();
        assert_eq!(causes[0], "spec.schedulingGates[1]: Duplicate value: \"a.b/c\"");
        assert_eq!(causes[1], "spec.schedulingGates[2]: Invalid value: \"\": name part must be non-empty");
        assert_eq!(causes.len(), 3);
    }
}
