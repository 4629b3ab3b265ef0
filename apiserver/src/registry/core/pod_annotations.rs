//! Annotations of pods that say what fields say today, or that the system reads (core `ValidatePodSpecificAnnotations`).

use super::profiles::{self, APP_ARMOR, SECCOMP_OF_CONTAINER, SECCOMP_OF_POD};
use super::volume_kinds::descending;
use super::{go_json, scheduling};
use crate::registry::fields::{invalid_all, items, text};
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use std::collections::HashSet;

/// A pod of a file on its node's disk: what the API says of it is a mirror.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// How large an object's annotations are together (apimachinery `TotalAnnotationSizeLimitB`).
const MAX: usize = 256 * 1024;

/// The annotations of a template: their keys and their size (apimachinery `ValidateAnnotations`). Pods' are looked at with the rest of
/// their metadata.
pub fn of_template(annotations: &Map, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut size = 0;
    for (key, value) in annotations {
        size += key.len() + value.as_str().map_or(0, str::len);
        invalid_all(path, key, validation::qualified_name(&key.to_ascii_lowercase()), causes);
    }
    if size > MAX {
        causes.push(Cause::too_long(path, MAX));
    }
}

/// The annotations of a pod or template with this spec; `before` are those that they replace.
pub fn validate(annotations: &Map, before: Option<&Map>, spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let of = |key: &str| annotations.get(key).and_then(Value::as_str);
    if let Some(mirror) = of(MIRROR)
        && text(spec, "nodeName").is_empty()
    {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        causes.push(Cause::invalid(&path.key(MIRROR), mirror, why));
    }
    if let Some(tolerations) = of(TOLERATIONS).filter(|tolerations| !tolerations.is_empty()) {
        match go_json::list(tolerations.as_bytes(), "v1.Toleration") {
            Ok(tolerations) => scheduling::tolerations(&tolerations, &path.child(TOLERATIONS), causes),
            Err(why) => causes.push(Cause::invalid(path, TOLERATIONS, why)),
        }
    }
    if let Some(cost) = of(DELETION_COST).filter(|cost| !is_cost(cost)) {
        let known = before.and_then(|before| before.get(DELETION_COST)).and_then(Value::as_str);
        if known.is_none_or(is_cost) {
            causes.push(Cause::invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer"));
        }
    }
    seccomp(annotations, path, causes);
    app_armor(annotations, spec, path, causes);
}

/// A number as it is printed, but for zeros behind a minus.
fn is_cost(text: &str) -> bool {
    text.parse::<i32>().is_ok() && (text == "0" || !text.starts_with(['+', '0']))
}

fn seccomp(annotations: &Map, path: &FieldPath, causes: &mut Vec<Cause>) {
    let of_pod = annotations.get(SECCOMP_OF_POD).map(|profile| (SECCOMP_OF_POD, profile));
    let of_containers = annotations.iter().filter(|(key, _)| key.starts_with(SECCOMP_OF_CONTAINER));
    for (key, profile) in of_pod.into_iter().chain(of_containers.map(|(key, profile)| (key.as_str(), profile))) {
        let (path, profile) = (path.child(key), profile.as_str().unwrap_or_default());
        match (profile, profile.strip_prefix(profiles::LOCALHOST)) {
            ("runtime/default" | "docker/default" | "unconfined", _) => {}
            (_, Some(file)) => descending(file, &path, causes),
            _ => causes.push(Cause::invalid(&path, profile, "must be a valid seccomp profile")),
        }
    }
}

fn app_armor(annotations: &Map, spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut names: Option<HashSet<&str>> = None;
    for (key, profile) in annotations {
        let Some(name) = key.strip_prefix(APP_ARMOR) else { continue };
        let names = names.get_or_insert_with(|| {
            let lists = ["initContainers", "containers", "ephemeralContainers"];
            lists.iter().flat_map(|list| items(spec, list)).map(|container| text(container, "name")).collect()
        });
        if !names.contains(name) {
            causes.push(Cause::invalid(&path.key(key), name, "container not found"));
        }
        let profile = profile.as_str().unwrap_or_default();
        if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with(profiles::LOCALHOST) {
            let why = format!("invalid AppArmor profile name: {}", Value::from(profile));
            causes.push(Cause::invalid(&path.key(key), profile, why));
        }
    }
}

/// What of a pod's annotations changes (core `ValidatePodSpecificAnnotationUpdates`): what the node has done by them already, and
/// that the pod is a mirror, stays. What they are is judged once more then.
pub fn changed(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let (now, before) = (meta::annotations(pod), meta::annotations(old));
    if now.is_none() && before.is_none() {
        return;
    }
    let path = FieldPath::new("metadata").child("annotations");
    let kind = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key => key.starts_with(APP_ARMOR).then_some("AppArmor annotations"),
    };
    for (key, value) in before.into_iter().flatten() {
        if let Some(kind) = kind(key)
            && now.and_then(|now| now.get(key)) != Some(value)
        {
            causes.push(Cause::forbidden(&path.key(key), format!("may not remove or update {kind}")));
        }
    }
    for (key, _) in now.into_iter().flatten() {
        if let Some(kind) = kind(key)
            && before.is_none_or(|before| !before.contains_key(key))
        {
            causes.push(Cause::forbidden(&path.key(key), format!("may not add {kind}")));
        }
    }
    if let Some(now) = now {
        validate(now, before, &pod["spec"], &path, causes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(ToString::to_string).collect()
    }

    fn check(annotations: Value, spec: Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate(annotations.as_object().unwrap(), None, &spec, &FieldPath::new("a"), &mut causes);
        told(&causes)
    }

    #[test]
    fn mirrors_have_a_node() {
        let mirror = json!({MIRROR: "hash"});
        assert!(check(mirror.clone(), json!({"nodeName": "n"})).is_empty());
        let why = "must set spec.nodeName if mirror pod annotation is set";
        assert_eq!(check(mirror, json!({})), [format!("a[{MIRROR}]: Invalid value: \"hash\": {why}")]);
    }

    #[test]
    fn deletion_costs_are_numbers() {
        for (cost, good) in [
            ("0", true),
            ("10", true),
            ("-10", true),
            ("-01", true),
            ("2147483647", true),
            ("2147483648", false),
            ("+1", false),
            ("01", false),
            ("00", false),
            ("", false),
            ("-", false),
            ("1.5", false),
        ] {
            assert_eq!(check(json!({DELETION_COST: cost}), json!({})).is_empty(), good, "{cost}");
        }
        let told = check(json!({DELETION_COST: "x"}), json!({}));
        assert_eq!(told, [format!("a[{DELETION_COST}]: Invalid value: \"x\": must be a 32bit integer")]);
        let of = |cost: &str| json!({"metadata": {"annotations": {DELETION_COST: cost}}, "spec": {}});
        let mut causes = Vec::new();
        changed(&of("x"), &of("y"), &mut causes);
        assert_eq!(causes, [], "one that was wrong before may be");
        changed(&of("x"), &of("1"), &mut causes);
        assert_eq!(causes.len(), 1);
    }

    #[test]
    fn tolerations_of_old_are_tolerations() {
        let told = |text: &str| check(json!({TOLERATIONS: text}), json!({}));
        assert!(told("").is_empty());
        assert!(told("[]").is_empty());
        assert!(told("[{\"key\": \"a\", \"operator\": \"Exists\"}]").is_empty());
        assert_eq!(told("{")[0], format!("a: Invalid value: \"{TOLERATIONS}\": unexpected end of JSON input"));
        assert_eq!(
            told("{}")[0],
            format!(
                "a: Invalid value: \"{TOLERATIONS}\": json: cannot unmarshal object into Go value of type []v1.Toleration"
            )
        );
        assert_eq!(
            told("[1]")[0],
            format!(
                "a: Invalid value: \"{TOLERATIONS}\": json: cannot unmarshal number into Go value of type v1.Toleration"
            )
        );
        assert!(told("[{\"operator\": \"Equal\"}]")[0].starts_with(&format!("a.{TOLERATIONS}[0].operator: Invalid")));
    }

    #[test]
    fn profiles_are_ones_that_there_can_be() {
        let seccomp = |profile: &str| check(json!({SECCOMP_OF_POD: profile}), json!({}));
        for good in ["runtime/default", "docker/default", "unconfined", "localhost/a/b"] {
            assert!(seccomp(good).is_empty(), "{good}");
        }
        assert_eq!(
            seccomp("x"),
            [format!("a.{SECCOMP_OF_POD}: Invalid value: \"x\": must be a valid seccomp profile")]
        );
        assert_eq!(
            seccomp("localhost/../a"),
            [format!("a.{SECCOMP_OF_POD}: Invalid value: \"../a\": must not contain '..'")]
        );
        let key = format!("{SECCOMP_OF_CONTAINER}c");
        assert_eq!(
            check(json!({key.as_str(): "localhost//a"}), json!({})),
            [format!("a.{key}: Invalid value: \"/a\": must be a relative path")]
        );
        let app_armor = |name: &str, profile: &str| {
            let key = format!("{APP_ARMOR}{name}");
            check(json!({key.as_str(): profile}), json!({"initContainers": [{"name": "c"}]}))
        };
        for good in ["", "runtime/default", "unconfined", "localhost/"] {
            assert!(app_armor("c", good).is_empty(), "{good}");
        }
        assert_eq!(
            app_armor("d", "x"),
            [
                format!("a[{APP_ARMOR}d]: Invalid value: \"d\": container not found"),
                format!("a[{APP_ARMOR}d]: Invalid value: \"x\": invalid AppArmor profile name: \"x\""),
            ]
        );
    }

    #[test]
    fn what_a_pod_was_made_with_stays() {
        let key = format!("{APP_ARMOR}c");
        let pod = |annotations: Value| json!({"metadata": {"annotations": annotations}, "spec": {"nodeName": "n", "containers": [{"name": "c"}]}});
        let check = |now: Value, before: Value| {
            let mut causes = Vec::new();
            changed(&pod(now), &pod(before), &mut causes);
            told(&causes)
        };
        let known = json!({MIRROR: "a", key.as_str(): "unconfined", "other": "x"});
        assert!(check(known.clone(), known.clone()).is_empty());
        let path = "metadata.annotations";
        assert_eq!(
            check(json!({MIRROR: "b"}), known.clone()),
            [
                format!("{path}[{MIRROR}]: Forbidden: may not remove or update mirror pod annotation"),
                format!("{path}[{key}]: Forbidden: may not remove or update AppArmor annotations"),
            ]
        );
        assert_eq!(
            check(known, json!({})),
            [
                format!("{path}[{MIRROR}]: Forbidden: may not add mirror pod annotation"),
                format!("{path}[{key}]: Forbidden: may not add AppArmor annotations"),
            ]
        );
    }

    #[test]
    fn annotations_of_templates_have_a_size() {
        let of = |size: usize| json!({"a": "x".repeat(size)});
        let check = |annotations: Value| {
            let mut causes = Vec::new();
            of_template(annotations.as_object().unwrap(), &FieldPath::new("t.annotations"), &mut causes);
            told(&causes)
        };
        assert!(check(of(MAX - 1)).is_empty());
        assert_eq!(check(of(MAX)), ["t.annotations: Too long: may not be more than 262144 bytes"]);
    }
}
