//! What a pod's status can say, and what it cannot say after what it said before (core `ValidatePodStatusUpdate`).

use super::pod_security::id;
use super::{pod_annotations, transitions};
use crate::registry::fields::{field, invalid_all, items, same, text};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// The conditions of the system, whose names are no qualified ones.
const CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];
const HEALTH: [&str; 3] = ["Healthy", "Unhealthy", "Unknown"];

pub fn validate(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let (status, before, spec) = (&pod["status"], &old["status"], &pod["spec"]);
    pod_annotations::changed(pod, old, causes);
    let path = FieldPath::new("status");
    for (nth, condition) in items(status, "conditions").iter().enumerate() {
        let (kind, path) = (text(condition, "type"), path.child("conditions").index(nth));
        observed(condition, &path, causes);
        if !CONDITIONS.contains(&kind) {
            // The capital is upstream's.
            invalid_all(&path.child("Type"), kind, validation::qualified_name(kind), causes);
        }
    }
    if !same(spec, &old["spec"], "nodeName") {
        causes.push(Cause::forbidden(&path.child("nodeName"), "may not be changed directly"));
    }
    let nominated = text(status, "nominatedNodeName");
    if !nominated.is_empty() && nominated != text(before, "nominatedNodeName") {
        let told = validation::dns1123_subdomain(nominated);
        invalid_all(&path.child("nominatedNodeName"), nominated, told, causes);
        if !text(&old["spec"], "nodeName").is_empty() {
            let why = "may not be set on pods that are already bound to a node";
            causes.push(Cause::forbidden(&path.child("nominatedNodeName"), why));
        }
    }
    observed(status, &path, causes);
    let class = text(status, "qosClass");
    if class != text(before, "qosClass") {
        causes.push(Cause::immutable(&path.child("qosClass"), class));
    }
    transitions::validate(status, old, &path, causes);
    claims(status, spec, &path.child("resourceClaimStatuses"), causes);
    if let Some(made) = field(status, "extendedResourceClaimStatus").filter(|made| !made.is_null()) {
        extended(made, spec, &path.child("extendedResourceClaimStatus"), causes);
    }
    pod_ips(status, before, &path.child("podIPs"), causes);
    host_ips(status, before, &path.child("hostIPs"), causes);
    for (list, _) in LISTS {
        users(items(status, list), spec, &path.child(list), causes);
    }
    for (list, containers) in LISTS {
        let path = path.child(list);
        for (nth, one) in items(status, list).iter().enumerate() {
            let path = path.index(nth).child("allocatedResourcesStatus");
            match containers {
                "ephemeralContainers" if items(one, "allocatedResourcesStatus").is_empty() => {}
                "ephemeralContainers" => {
                    causes.push(Cause::forbidden(&path, "must not be specified in container status"));
                }
                _ => allocated(one, items(spec, containers), &path, causes),
            }
        }
    }
}

/// Statuses, and the containers that they are of, in the order in which they are judged.
pub(super) const LISTS: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", "ephemeralContainers"),
];

/// What was observed is a generation.
fn observed(holder: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(generation) = field(holder, "observedGeneration").and_then(Value::as_i64)
        && generation < 0
    {
        let path = path.child("observedGeneration");
        causes.push(Cause::invalid(&path, generation, "must be a non-negative integer"));
    }
}

/// Claims made for a pod are those that it asks for (core `validatePodResourceClaimStatuses`).
fn claims(status: &Value, spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let statuses = items(status, "resourceClaimStatuses");
    if statuses.is_empty() {
        return;
    }
    let wanted: HashSet<&str> = items(spec, "resourceClaims").iter().map(|claim| text(claim, "name")).collect();
    let mut seen = HashSet::new();
    for (nth, claim) in statuses.iter().enumerate() {
        let (path, name) = (path.index(nth), text(claim, "name"));
        if !wanted.contains(name) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            causes.push(Cause::invalid(&path.child("name"), name, why));
        }
        if !seen.insert(name) {
            causes.push(Cause::duplicate(&path.child("name"), name));
        }
        if let Some(made) = claim.get("resourceClaimName").and_then(Value::as_str) {
            invalid_all(&path.child("resourceClaimName"), made, validation::dns1123_subdomain(made), causes);
        }
    }
}

/// The claim made for what a pod asks for by other names (core `validatePodExtendedResourceClaimStatus`, KEP-5004).
fn extended(made: &Value, spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let containers: HashMap<&str, &Value> = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| items(spec, list))
        .map(|container| (text(container, "name"), container))
        .collect();
    let (mappings, mut seen) = (items(made, "requestMappings"), HashSet::new());
    if mappings.is_empty() {
        causes.push(Cause::required(&path.child("requestMappings"), "at least one request mapping is required"));
    }
    for (nth, mapping) in mappings.iter().enumerate() {
        let at = path.child("requestMappings").index(nth);
        let [container, resource, request] =
            ["containerName", "resourceName", "requestName"].map(|name| (name, text(mapping, name)));
        match containers.get(container.1) {
            None => {
                let why = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                causes.push(Cause::invalid(&at.child(container.0), container.1, why));
            }
            Some(found) if found["resources"]["requests"].get(resource.1).is_none() => {
                let why = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                causes.push(Cause::invalid(&at.child(resource.0), resource.1, why));
            }
            Some(_) => {}
        }
        // The place is upstream's.
        invalid_all(&path.child(request.0), request.1, validation::dns1123_label(request.1), causes);
        if !seen.insert([container.1, resource.1, request.1]) {
            let again = [container, resource, request];
            causes.extend(again.map(|(name, value)| Cause::duplicate(&at.child(name), value)));
        }
    }
    match text(made, "resourceClaimName") {
        "" => causes.push(Cause::required(&path.child("resourceClaimName"), "")),
        name => invalid_all(&path.child("resourceClaimName"), name, validation::dns1123_subdomain(name), causes),
    }
}

fn pod_ips(status: &Value, before: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    addresses(items(status, "podIPs"), items(before, "podIPs"), path, causes);
}

fn host_ips(status: &Value, before: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let ips = items(status, "hostIPs");
    let Some(first) = ips.first() else { return };
    if text(status, "hostIP") != text(first, "ip") {
        let path = path.index(0).child("ip");
        causes.push(Cause::invalid(&path, text(first, "ip"), "must be equal to `hostIP`"));
    }
    addresses(ips, items(before, "hostIPs"), path, causes);
}

/// Addresses, no two of one family; those that were there may be wrong.
fn addresses(ips: &[Value], before: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut known: Option<HashSet<&str>> = None;
    for (nth, ip) in ips.iter().enumerate() {
        let ip = text(ip, "ip");
        let wrong = validation::ip(ip);
        if wrong.is_empty() {
            continue;
        }
        let known = known.get_or_insert_with(|| before.iter().map(|ip| text(ip, "ip")).collect());
        if !known.contains(ip) {
            invalid_all(&path.index(nth), ip, wrong, causes);
        }
    }
    if ips.len() < 2 {
        return;
    }
    let parsed: Result<Vec<IpAddr>, &str> =
        ips.iter().map(|ip| validation::sloppy_ip(text(ip, "ip")).ok_or(text(ip, "ip"))).collect();
    if let Err(wrong) = &parsed {
        let why = format!("failed to check for dual stack with error:invalid IPs: {wrong}");
        causes.push(Cause::internal(path, why));
    }
    let families = |ips: &[IpAddr]| ips.iter().any(IpAddr::is_ipv4) && ips.iter().any(IpAddr::is_ipv6);
    if ips.len() > 2 || !parsed.is_ok_and(|ips| families(&ips)) {
        let shown: Value = ips.iter().map(|ip| json!({"IP": text(ip, "ip")})).collect();
        causes.push(Cause::invalid(path, shown, "may specify no more than one IP for each IP family"));
    }
}

/// Who a container runs as.
fn users(statuses: &[Value], spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let system = spec.pointer("/os/name").and_then(Value::as_str).unwrap_or("linux");
    for (nth, status) in statuses.iter().enumerate() {
        let Some(user) = status.pointer("/user/linux").filter(|user| !user.is_null()) else { continue };
        let path = path.index(nth).child("user").child("linux");
        match system {
            "windows" => causes.push(Cause::forbidden(&path, "cannot be set for a windows pod")),
            "linux" => {
                for field in ["uid", "gid"] {
                    id(user[field].as_i64().unwrap_or(0), &path.child(field), causes);
                }
                for (nth, group) in items(user, "supplementalGroups").iter().filter_map(Value::as_i64).enumerate() {
                    id(group, &path.child("supplementalGroups").index(nth), causes);
                }
            }
            _ => {}
        }
    }
}

/// How the devices are that a container has: those that it asks for, each once.
fn allocated(status: &Value, containers: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    let container = containers.iter().find(|container| text(container, "name") == text(status, "name"));
    for (nth, resource) in items(status, "allocatedResourcesStatus").iter().enumerate() {
        let (path, name) = (path.index(nth), text(resource, "name"));
        // Containers that are not there are not judged (kubernetes #124915).
        if let Some(why) = container.and_then(|container| unasked(container, name)) {
            causes.push(Cause::invalid(&path.child("name"), name, why));
        }
        let mut seen = HashSet::new();
        for (nth, device) in items(resource, "resources").iter().enumerate() {
            let path = path.child("resources").index(nth);
            let (health, id) = (text(device, "health"), text(device, "resourceID"));
            if !HEALTH.contains(&health) {
                causes.push(Cause::not_supported(&path.child("health"), health, &HEALTH));
            }
            if !seen.insert(id) {
                causes.push(Cause::duplicate(&path.child("resourceID"), id));
            }
        }
    }
}

/// What is wrong with the name of a resource that the container does not ask for.
fn unasked(container: &Value, name: &str) -> Option<&'static str> {
    let asks = &container["resources"];
    if !name.starts_with("claim:") {
        let known = asks["requests"].get(name).is_some();
        return (!known).then_some("must match one of the container's resource requests");
    }
    let known = items(asks, "claims").iter().any(|claim| match text(claim, "request") {
        "" => name == format!("claim:{}", text(claim, "name")),
        request => name == format!("claim:{}/{request}", text(claim, "name")),
    });
    (!known).then_some(
        "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pod: &Value, old: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate(pod, old, &mut causes);
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn changed(spec: Value, before: Value, now: Value) -> Vec<String> {
        told(&json!({"spec": spec, "status": now}), &json!({"spec": spec, "status": before}))
    }

    #[test]
    fn addresses() {
        let check = |status: Value| changed(json!({}), json!({}), status);
        let two = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]);
        assert!(check(json!({"podIPs": two, "hostIPs": two, "hostIP": "10.0.0.1"})).is_empty());
        let why = "may specify no more than one IP for each IP family";
        let same = json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}]);
        let shown = r#"[{"IP":"10.0.0.1"},{"IP":"10.0.0.1"}]"#;
        assert_eq!(check(json!({"podIPs": same})), [format!("status.podIPs: Invalid value: {shown}: {why}")]);
        assert_eq!(
            check(json!({"hostIPs": same, "hostIP": "10.0.0.2"})),
            [
                "status.hostIPs[0].ip: Invalid value: \"10.0.0.1\": must be equal to `hostIP`".to_owned(),
                format!("status.hostIPs: Invalid value: {shown}: {why}"),
            ]
        );
        let wrong = check(json!({"podIPs": [{"ip": "x"}]}));
        assert_eq!(
            wrong,
            ["status.podIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
        );
        let known = json!({"podIPs": [{"ip": "010.0.0.1"}]});
        assert_eq!(check(known.clone()), ["status.podIPs[0]: Invalid value: \"010.0.0.1\": must not have leading 0s"]);
        assert!(changed(json!({}), known.clone(), known).is_empty(), "one that was there may stay");
    }

    #[test]
    fn claims_and_devices_are_those_that_were_asked_for() {
        let spec = json!({"resourceClaims": [{"name": "gpu"}], "containers": [{"name": "a", "resources":
            {"requests": {"example.com/card": "1"}, "claims": [{"name": "gpu"}, {"name": "net", "request": "fast"}]}}]});
        let check = |status: Value| changed(spec.clone(), json!({}), status);
        assert!(
            check(json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "pod-gpu-x"}]})).is_empty()
        );
        assert_eq!(
            check(json!({"resourceClaimStatuses": [{"name": "gpu"}, {"name": "gpu"}, {"name": "other"}]})),
            [
                "status.resourceClaimStatuses[1].name: Duplicate value: \"gpu\"",
                "status.resourceClaimStatuses[2].name: Invalid value: \"other\": must match the name of an entry in `spec.resourceClaims`",
            ]
        );
        let made = check(json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "A"}]}));
        assert!(
            made[0].starts_with("status.resourceClaimStatuses[0].resourceClaimName: Invalid value: \"A\""),
            "{made:?}"
        );
        let health = |name: &str, health: &str| {
            json!({"containerStatuses": [{"name": "a", "allocatedResourcesStatus":
                [{"name": name, "resources": [{"resourceID": "0", "health": health}]}]}]})
        };
        for name in ["example.com/card", "claim:gpu", "claim:net/fast"] {
            assert!(check(health(name, "Healthy")).is_empty(), "{name}");
        }
        let path = "status.containerStatuses[0].allocatedResourcesStatus[0]";
        assert_eq!(
            check(health("cpu", "Ill")),
            [
                format!("{path}.name: Invalid value: \"cpu\": must match one of the container's resource requests"),
                format!(
                    "{path}.resources[0].health: Unsupported value: \"Ill\": supported values: \"Healthy\", \"Unhealthy\", \"Unknown\""
                ),
            ]
        );
        let none = check(
            json!({"ephemeralContainerStatuses": [{"name": "e", "allocatedResourcesStatus": [{"name": "cpu"}]}]}),
        );
        assert_eq!(
            none,
            [
                "status.ephemeralContainerStatuses[0].allocatedResourcesStatus: Forbidden: must not be specified in container status"
            ]
        );
    }

    #[test]
    fn users_have_numbers_that_there_are() {
        let user = |uid: i64| json!({"containerStatuses": [{"name": "a", "user": {"linux": {"uid": uid, "gid": 0, "supplementalGroups": [5, -1]}}}]});
        assert_eq!(
            changed(json!({}), json!({}), user(1 << 31)),
            [
                "status.containerStatuses[0].user.linux.uid: Invalid value: 2147483648: must be between 0 and 2147483647, inclusive",
                "status.containerStatuses[0].user.linux.supplementalGroups[1]: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ]
        );
        let windows = changed(json!({"os": {"name": "windows"}}), json!({}), user(0));
        assert_eq!(windows, ["status.containerStatuses[0].user.linux: Forbidden: cannot be set for a windows pod"]);
    }

    #[test]
    fn generations_and_conditions_are_what_there_can_be() {
        let check = |status: Value| changed(json!({}), json!({}), status);
        let why = "Invalid value: -1: must be a non-negative integer";
        let found = check(
            json!({"observedGeneration": -1, "conditions": [{"type": "Ready", "observedGeneration": -1}, {"type": "a b"}]}),
        );
        assert_eq!(found[0], format!("status.conditions[0].observedGeneration: {why}"));
        assert!(found[1].starts_with("status.conditions[1].Type: Invalid value: \"a b\""), "{found:?}");
        assert_eq!(found[2], format!("status.observedGeneration: {why}"));
    }

    #[test]
    fn pods_that_have_a_node_are_promised_none() {
        let bound = || json!({"nodeName": "n"});
        let why = "status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node";
        assert_eq!(changed(bound(), json!({}), json!({"nominatedNodeName": "m"})), [why]);
        assert!(changed(json!({}), json!({}), json!({"nominatedNodeName": "m"})).is_empty());
        let known = || json!({"nominatedNodeName": "m"});
        assert!(changed(bound(), known(), known()).is_empty());
        assert!(changed(bound(), known(), json!({})).is_empty());
    }

    #[test]
    fn claims_for_extended_resources_are_for_what_was_asked_for() {
        let spec = json!({"containers": [{"name": "a", "resources": {"requests": {"example.com/card": "1"}}}]});
        let check = |made: Value| changed(spec.clone(), json!({}), json!({"extendedResourceClaimStatus": made}));
        let map = |container: &str, resource: &str| json!({"containerName": container, "resourceName": resource, "requestName": "r"});
        let good = map("a", "example.com/card");
        assert!(check(json!({"resourceClaimName": "x", "requestMappings": [good]})).is_empty());
        let path = "status.extendedResourceClaimStatus";
        assert_eq!(
            check(json!({})),
            [
                format!("{path}.requestMappings: Required value: at least one request mapping is required"),
                format!("{path}.resourceClaimName: Required value"),
            ]
        );
        let found =
            check(json!({"resourceClaimName": "x", "requestMappings": [good, good, map("b", "y"), map("a", "y")]}));
        let at = |nth: usize, name: &str, value: &str| {
            format!("{path}.requestMappings[{nth}].{name}: Duplicate value: \"{value}\"")
        };
        assert_eq!(
            found,
            [
                at(1, "containerName", "a"),
                at(1, "resourceName", "example.com/card"),
                at(1, "requestName", "r"),
                format!(
                    "{path}.requestMappings[2].containerName: Invalid value: \"b\": must match the name of an entry in spec.initContainers.name or spec.containers.name"
                ),
                format!(
                    "{path}.requestMappings[3].resourceName: Invalid value: \"y\": must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests"
                ),
            ]
        );
    }
}
