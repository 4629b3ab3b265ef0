//! What a pod's status can say, and what it cannot say after what it said before (core `ValidatePodStatusUpdate`).

use super::pod_security::id;
use crate::registry::fields::{invalid_all, items, same, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;
use std::net::IpAddr;

/// The conditions of the system, whose names are no qualified ones.
const CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];
const HEALTH: [&str; 3] = ["Healthy", "Unhealthy", "Unknown"];

pub fn validate(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let (status, before, spec) = (&pod["status"], &old["status"], &pod["spec"]);
    for (nth, condition) in items(status, "conditions").iter().enumerate() {
        let kind = text(condition, "type");
        if !CONDITIONS.contains(&kind) {
            // The place is upstream's.
            let path = FieldPath::new("metadata").child("conditions").index(nth).child("Type");
            invalid_all(&path, kind, validation::qualified_name(kind), causes);
        }
    }
    let path = FieldPath::new("status");
    if !same(spec, &old["spec"], "nodeName") {
        causes.push(Cause::forbidden(&path.child("nodeName"), "may not be changed directly"));
    }
    let nominated = text(status, "nominatedNodeName");
    if !nominated.is_empty() && nominated != text(before, "nominatedNodeName") {
        let told = validation::dns1123_subdomain(nominated);
        invalid_all(&path.child("nominatedNodeName"), nominated, told, causes);
    }
    let class = text(status, "qosClass");
    if class != text(before, "qosClass") {
        causes.push(Cause::immutable(&path.child("qosClass"), class));
    }
    for (list, containers) in LISTS {
        let policy = if containers == "ephemeralContainers" { "Never" } else { text(&old["spec"], "restartPolicy") };
        let containers = items(&old["spec"], containers);
        transitions(items(status, list), items(before, list), policy, containers, &path.child(list), causes);
    }
    claims(status, spec, &path.child("resourceClaimStatuses"), causes);
    pod_ips(status, &path.child("podIPs"), causes);
    host_ips(status, &path.child("hostIPs"), causes);
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
const LISTS: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", "ephemeralContainers"),
];

/// A container that ended for good does not run again.
fn transitions(
    now: &[Value],
    before: &[Value],
    policy: &str,
    containers: &[Value],
    path: &FieldPath,
    causes: &mut Vec<Cause>,
) {
    if policy == "Always" {
        return;
    }
    let ended = |status: &Value| status.pointer("/state/terminated").is_some_and(|state| !state.is_null());
    for (nth, old) in before.iter().enumerate().filter(|(_, old)| ended(old)) {
        let (name, code) = (text(old, "name"), old.pointer("/state/terminated/exitCode").and_then(Value::as_i64));
        let container = containers.iter().find(|container| text(container, "name") == name);
        if restarts(container, policy, code.unwrap_or(0)) {
            continue;
        }
        for _ in now.iter().filter(|status| text(status, "name") == name && !ended(status)) {
            let why = "may not be transitioned to non-terminated state";
            causes.push(Cause::forbidden(&path.index(nth).child("state"), why));
        }
    }
}

/// Whether a container that ended so is run again, by its own rules (KEP-5307), its own policy, or its pod's.
fn restarts(container: Option<&Value>, policy: &str, code: i64) -> bool {
    let Some(container) = container else { return policy == "OnFailure" && code != 0 };
    let applies = |rule: &&Value| {
        let listed = items(&rule["exitCodes"], "values").iter().any(|value| value.as_i64() == Some(code));
        listed == (text(&rule["exitCodes"], "operator") == "In")
    };
    if items(container, "restartPolicyRules").iter().any(|rule| applies(&rule)) {
        return true;
    }
    match text(container, "restartPolicy") {
        "Always" => true,
        "Never" => false,
        "OnFailure" => code != 0,
        _ => policy == "OnFailure" && code != 0,
    }
}

/// Claims made for a pod are those that it asks for.
fn claims(status: &Value, spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for (nth, claim) in items(status, "resourceClaimStatuses").iter().enumerate() {
        let (path, name) = (path.index(nth).child("name"), text(claim, "name"));
        if !items(spec, "resourceClaims").iter().any(|wanted| text(wanted, "name") == name) {
            causes.push(Cause::invalid(&path, name, "must match the name of an entry in `spec.resourceClaims`"));
        }
        if !seen.insert(name) {
            causes.push(Cause::duplicate(&path, name));
        }
        if let Some(made) = claim.get("resourceClaimName").and_then(Value::as_str) {
            // The place is upstream's.
            invalid_all(&path, made, validation::dns1123_subdomain(made), causes);
        }
    }
}

fn pod_ips(status: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let ips = items(status, "podIPs");
    for (nth, ip) in ips.iter().enumerate() {
        let ip = text(ip, "ip");
        invalid_all(&path.index(nth), ip, validation::ip(ip), causes);
    }
    if ips.len() > 1 {
        of_two_families(ips, path, causes);
        duplicates(ips, |nth| path.index(nth), causes);
    }
}

fn host_ips(status: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let ips = items(status, "hostIPs");
    let Some(first) = ips.first() else { return };
    if text(status, "hostIP") != text(first, "ip") {
        let path = path.index(0).child("ip");
        causes.push(Cause::invalid(&path, text(first, "ip"), "must be equal to `hostIP`"));
    }
    for (nth, ip) in ips.iter().enumerate() {
        let ip = text(ip, "ip");
        invalid_all(&path.index(nth), ip, validation::ip(ip), causes);
    }
    if ips.len() > 1 {
        duplicates(ips, |nth| path.index(nth).child("ip"), causes);
        of_two_families(ips, path, causes);
    }
}

fn duplicates(ips: &[Value], path: impl Fn(usize) -> FieldPath, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for (nth, ip) in ips.iter().enumerate() {
        if !seen.insert(text(ip, "ip")) {
            causes.push(Cause::duplicate(&path(nth), ip.clone()));
        }
    }
}

fn of_two_families(ips: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    let parsed: Result<Vec<IpAddr>, &str> =
        ips.iter().map(|ip| text(ip, "ip").parse().map_err(|_| text(ip, "ip"))).collect();
    if let Err(wrong) = &parsed {
        let why = format!("failed to check for dual stack with error:invalid IPs: {wrong}");
        causes.push(Cause::internal(path, why));
    }
    let families = |ips: &[IpAddr]| ips.iter().any(IpAddr::is_ipv4) && ips.iter().any(IpAddr::is_ipv6);
    if ips.len() > 2 || !parsed.is_ok_and(|ips| families(&ips)) {
        causes.push(Cause::invalid(path, ips.to_vec(), "may specify no more than one IP for each IP family"));
    }
}

/// Who a container runs as.
fn users(statuses: &[Value], spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let system = spec.pointer("/os/name").and_then(Value::as_str).unwrap_or("linux");
    for (nth, status) in statuses.iter().enumerate() {
        let Some(user) = status.pointer("/user/linux").filter(|user| !user.is_null()) else { continue };
        let path = path.index(nth).child("linux");
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
    use coracle_api::json::json;

    fn told(pod: &Value, old: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate(pod, old, &mut causes);
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn changed(spec: Value, before: Value, now: Value) -> Vec<String> {
        told(&json!({"spec": spec, "status": now}), &json!({"spec": spec, "status": before}))
    }

    #[test]
    fn what_ended_for_good_does_not_run_again() {
        let of = |list: &str, state: Value| json!({list: [{"name": "a", "state": state}]});
        let ended = |code: i64| json!({"terminated": {"exitCode": code}});
        let running = || json!({"running": {}});
        let try_it = |container: Value, policy: &str, list: &str, code: i64| {
            let containers = LISTS.iter().find(|known| known.0 == list).unwrap().1;
            let spec = json!({"restartPolicy": policy, containers: [container]});
            changed(spec, of(list, ended(code)), of(list, running()))
        };
        let refused = |list: &str| {
            vec![format!("status.{list}[0].state: Forbidden: may not be transitioned to non-terminated state")]
        };
        let plain = || json!({"name": "a"});
        for (container, policy, code, may) in [
            (plain(), "Always", 0, true),
            (plain(), "Never", 1, false),
            (plain(), "OnFailure", 1, true),
            (plain(), "OnFailure", 0, false),
            (json!({"name": "b"}), "Never", 1, false),
            (json!({"name": "b"}), "OnFailure", 1, true),
            (json!({"name": "a", "restartPolicy": "Always"}), "Never", 0, true),
            (json!({"name": "a", "restartPolicy": "OnFailure"}), "Never", 7, true),
            (json!({"name": "a", "restartPolicy": "Never"}), "OnFailure", 7, false),
            (
                json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules":
                [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}),
                "Never",
                42,
                true,
            ),
            (
                json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules":
                [{"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [42]}}]}),
                "Never",
                42,
                false,
            ),
        ] {
            for list in ["containerStatuses", "initContainerStatuses"] {
                let wanted = if may { Vec::new() } else { refused(list) };
                assert_eq!(try_it(container.clone(), policy, list, code), wanted, "{container} {policy} {code}");
            }
        }
        let list = "ephemeralContainerStatuses";
        assert_eq!(try_it(plain(), "Always", list, 1), refused(list));
        let gone = changed(json!({"restartPolicy": "Never"}), of("containerStatuses", ended(0)), json!({}));
        assert!(gone.is_empty(), "one that is no longer told of is no transition: {gone:?}");
    }

    #[test]
    fn addresses() {
        let check = |status: Value| changed(json!({}), json!({}), status);
        let two = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]);
        assert!(check(json!({"podIPs": two, "hostIPs": two, "hostIP": "10.0.0.1"})).is_empty());
        let why = "may specify no more than one IP for each IP family";
        let same = json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}]);
        let shown = r#"[{"ip":"10.0.0.1"},{"ip":"10.0.0.1"}]"#;
        assert_eq!(
            check(json!({"podIPs": same})),
            [
                format!("status.podIPs: Invalid value: {shown}: {why}"),
                "status.podIPs[1]: Duplicate value: {\"ip\":\"10.0.0.1\"}".to_owned()
            ]
        );
        assert_eq!(
            check(json!({"hostIPs": same, "hostIP": "10.0.0.2"})),
            [
                "status.hostIPs[0].ip: Invalid value: \"10.0.0.1\": must be equal to `hostIP`".to_owned(),
                "status.hostIPs[1].ip: Duplicate value: {\"ip\":\"10.0.0.1\"}".to_owned(),
                format!("status.hostIPs: Invalid value: {shown}: {why}"),
            ]
        );
        let wrong = check(json!({"podIPs": [{"ip": "x"}]}));
        assert_eq!(
            wrong,
            ["status.podIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
        );
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
                "status.containerStatuses[0].linux.uid: Invalid value: 2147483648: must be between 0 and 2147483647, inclusive",
                "status.containerStatuses[0].linux.supplementalGroups[1]: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ]
        );
        let windows = changed(json!({"os": {"name": "windows"}}), json!({}), user(0));
        assert_eq!(windows, ["status.containerStatuses[0].linux: Forbidden: cannot be set for a windows pod"]);
    }
}
