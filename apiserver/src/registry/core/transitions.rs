//! What containers' states can follow on what they were (core `ValidateContainerStateTransition`): one that ended for good does not
//! run again.

use super::pod_status::LISTS;
use crate::registry::fields::{field, items, text};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use std::collections::{HashMap, HashSet};

/// The states of all containers; `old` is the pod as it was.
pub fn validate(status: &Value, old: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (spec, before) = (&old["spec"], &old["status"]);
    for (list, containers) in LISTS {
        let before = items(before, list);
        // Mostly none has ended.
        if !before.iter().any(|status| ended(status).is_some()) {
            continue;
        }
        let (now, path) = (items(status, list), path.child(list));
        if containers == "ephemeralContainers" {
            // They are never run again.
            again(now, before, |_, _| false, &path, causes);
        } else if !all_restart(spec) {
            let policy = text(spec, "restartPolicy");
            // Of two of one name, the first counts.
            let mut known: HashMap<&str, &Value> = HashMap::new();
            for container in items(spec, containers) {
                known.entry(text(container, "name")).or_insert(container);
            }
            let may = |name: &str, code: i64| known.get(name).is_some_and(|one| restarts(one, policy, code));
            again(now, before, may, &path, causes);
        }
    }
}

fn ended(status: &Value) -> Option<&Value> {
    field(field(status, "state")?, "terminated").filter(|state| !state.is_null())
}

fn again(now: &[Value], before: &[Value], may: impl Fn(&str, i64) -> bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let runs: HashSet<&str> =
        now.iter().filter(|status| ended(status).is_none()).map(|status| text(status, "name")).collect();
    for (nth, old) in before.iter().enumerate() {
        let (Some(state), name) = (ended(old), text(old, "name")) else { continue };
        let code = field(state, "exitCode").and_then(Value::as_i64).unwrap_or(0);
        if runs.contains(name) && !may(name, code) {
            let why = "may not be transitioned to non-terminated state";
            causes.push(Cause::forbidden(&path.index(nth).child("state"), why));
        }
    }
}

/// Whether some container's end has all of them run again, whatever their policies are (KEP-5532).
fn all_restart(spec: &Value) -> bool {
    let all = ["initContainers", "containers"].iter().flat_map(|list| items(spec, list));
    all.flat_map(|container| items(container, "restartPolicyRules"))
        .any(|rule| text(rule, "action") == "RestartAllContainers")
}

/// Whether a container that ended so is run again, by its own rules (KEP-5307), its own policy, or its pod's.
fn restarts(container: &Value, policy: &str, code: i64) -> bool {
    let applies = |rule: &Value| {
        let codes = field(rule, "exitCodes").unwrap_or(&Value::Null);
        let listed = items(codes, "values").iter().any(|value| value.as_i64() == Some(code));
        match text(codes, "operator") {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    let own = text(container, "restartPolicy");
    // The one action that is left is to run it again.
    if !own.is_empty() && items(container, "restartPolicyRules").iter().any(applies) {
        return true;
    }
    match if own.is_empty() { policy } else { own } {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn changed(spec: Value, before: Value, now: Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate(&now, &json!({"spec": spec, "status": before}), &FieldPath::new("status"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
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
            (json!({"name": "b"}), "OnFailure", 1, false),
            (json!({"name": "b"}), "Always", 1, false),
            (json!({"name": "a", "restartPolicy": "Never"}), "Always", 1, false),
            (json!({"name": "a", "restartPolicy": "OnFailure"}), "Always", 0, false),
            (json!({"name": "a", "restartPolicy": "OnFailure"}), "Always", 1, true),
            (
                json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules":
                [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]}),
                "Never",
                1,
                true,
            ),
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
}
