//! What may change in a job that is there (batch `ValidateJobSpecUpdate`).

use super::{condition, indexed, internal, number, on};
use crate::registry::core::pod_defaults;
use crate::registry::fields::{alike, below_mut, field_mut, items, items_mut, remove, same, text};
use coracle_api::Cause;
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;

/// A change of the job itself.
pub fn validate(job: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let (spec, known, path) = (&job["spec"], &old["spec"], FieldPath::new("spec"));
    let immutable = |field: &str, shown: fn(&Value) -> Value, causes: &mut Vec<Cause>| {
        if !same(spec, known, field) {
            let given = spec.get(field).filter(|value| !value.is_null());
            // As upstream tells a nil pointer.
            let value = given.map_or_else(|| "null".into(), shown);
            causes.push(Cause::immutable(&path.child(field), value));
        }
    };
    if indexed(spec) {
        elastic(spec, known, &path, causes);
    } else {
        immutable("completions", Value::clone, causes);
    }
    immutable("selector", Value::clone, causes);
    template(job, old, causes);
    immutable("completionMode", Value::clone, causes);
    immutable("podFailurePolicy", internal::pod_failure_policy, causes);
    immutable("backoffLimitPerIndex", Value::clone, causes);
    immutable("managedBy", Value::clone, causes);
    immutable("successPolicy", internal::success_policy, causes);
}

/// An indexed job can be made wider or narrower, both numbers together (`validateCompletions`). That it must say how many
/// completions it has is checked elsewhere.
fn elastic(spec: &Value, known: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(completions) = number(spec, "completions") else { return };
    if Some(completions) != number(known, "completions") && Some(completions) != number(spec, "parallelism") {
        let why = "can only be modified in tandem with spec.parallelism";
        causes.push(Cause::invalid(&path.child("completions"), completions, why));
    }
}

/// While no pod is made from it, some of the template may change (`validatePodTemplateUpdate`, KEP-2926, KEP-5440).
fn template(job: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let (new, known) = (&job["spec"]["template"], &old["spec"]["template"]);
    let path = FieldPath::new("spec.template");
    if !at_rest(old) {
        if !alike(new, known) && !alike(&pod_defaults::settled(new), &pod_defaults::settled(known)) {
            causes.push(Cause::immutable(&path, new.clone()));
        }
        return;
    }
    let (new, known) = (&new["spec"], &known["spec"]);
    let (mut fixed, mut before) = (new.clone(), known.clone());
    for spec in [&mut fixed, &mut before] {
        drop_placement(spec);
        pod_defaults::settle_spec(spec);
    }
    for list in ["containers", "initContainers"] {
        if items(new, list).len() == items(known, list).len() {
            let both = items_mut(&mut fixed, list).zip(items_mut(&mut before, list));
            for (one, other) in both.filter(|(one, other)| text(one, "name") == text(other, "name")) {
                remove(one, "resources");
                remove(other, "resources");
            }
        }
    }
    if !alike(&fixed, &before) {
        causes.push(Cause::immutable(&path.child("spec"), new.clone()));
    }
}

/// A suspended job that has no pods: it never had any, or its controller has seen that it is suspended.
fn at_rest(job: &Value) -> bool {
    let status = &job["status"];
    let started = status.get("startTime").is_some_and(|time| !time.is_null());
    on(&job["spec"], "suspend")
        && number(status, "active").unwrap_or(0) == 0
        && (!started || condition(job, "Suspended"))
}

/// Takes away where pods may run. Of affinities only the one to nodes is free.
fn drop_placement(spec: &mut Value) {
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        remove(spec, field);
    }
    if let Some(affinity) = below_mut(spec, &["affinity"]) {
        remove(affinity, "nodeAffinity");
    }
    if field_mut(spec, "affinity").and_then(|affinity| affinity.as_object()).is_some_and(Map::is_empty) {
        remove(spec, "affinity");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(job: &Value, old: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate(job, old, &mut causes);
        causes.iter().map(Cause::to_string).collect()
    }

    fn job(spec: Value) -> Value {
        json!({"spec": spec})
    }

    #[test]
    fn only_indexed_jobs_change_their_completions_and_their_parallelism_with_them() {
        let plain = |completions: i64| job(json!({"completions": completions, "parallelism": 1}));
        assert_eq!(told(&plain(2), &plain(1)), ["spec.completions: Invalid value: 2: field is immutable"]);
        let wide = |completions: i64, parallelism: i64| {
            job(json!({"completionMode": "Indexed", "completions": completions, "parallelism": parallelism}))
        };
        assert!(told(&wide(2, 2), &wide(3, 3)).is_empty());
        assert!(told(&wide(3, 1), &wide(3, 3)).is_empty());
        let why = "can only be modified in tandem with spec.parallelism";
        assert_eq!(told(&wide(2, 3), &wide(3, 3)), [format!("spec.completions: Invalid value: 2: {why}")]);
        let none = job(json!({"completionMode": "Indexed", "parallelism": 3}));
        assert!(told(&none, &wide(3, 3)).is_empty(), "that they are missing is told elsewhere");
    }

    #[test]
    fn policies_stay() {
        let old = job(json!({}));
        let new = job(json!({"managedBy": "a.io/b",
            "podFailurePolicy": {"rules": [{"action": "Count", "onExitCodes": {"operator": "In", "values": [1]}}]},
            "successPolicy": {"rules": [{"succeededCount": 1}]}}));
        let failure = r#"{"Rules":[{"Action":"Count","OnExitCodes":{"ContainerName":null,"Operator":"In","Values":[1]},"OnPodConditions":null}]}"#;
        let success = r#"{"Rules":[{"SucceededIndexes":null,"SucceededCount":1}]}"#;
        assert_eq!(
            told(&new, &old),
            [
                format!("spec.podFailurePolicy: Invalid value: {failure}: field is immutable"),
                "spec.managedBy: Invalid value: \"a.io/b\": field is immutable".to_owned(),
                format!("spec.successPolicy: Invalid value: {success}: field is immutable"),
            ]
        );
        assert_eq!(
            told(&old, &new).last().map(String::as_str),
            Some("spec.successPolicy: Invalid value: \"null\": field is immutable")
        );
    }

    fn pod() -> Value {
        json!({"containers": [{"name": "a", "image": "x", "resources": {"requests": {"cpu": "1"}}}],
            "affinity": {"podAffinity": {"a": 1}}, "nodeSelector": {"disk": "ssd"}})
    }

    fn of(pod: Value, suspend: bool, status: Value) -> Value {
        json!({"spec": {"suspend": suspend, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}, "status": status})
    }

    /// Where its pods run, what they need and how they are labelled.
    fn moved() -> Value {
        let mut job = of(pod(), true, json!({}));
        let template = &mut job["spec"]["template"];
        template["metadata"] = json!({"labels": {"a": "c"}, "annotations": {"d": "e"}});
        let pod = &mut template["spec"];
        pod["nodeSelector"] = json!({"disk": "nvme"});
        pod["tolerations"] = json!([{"operator": "Exists"}]);
        pod["schedulingGates"] = json!([{"name": "a.io/b"}]);
        pod["affinity"]["nodeAffinity"] = json!({"b": 2});
        pod["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}});
        job
    }

    fn fields(causes: &[String]) -> Vec<&str> {
        causes.iter().filter_map(|cause| cause.strip_suffix(": field is immutable")?.split(": ").next()).collect()
    }

    #[test]
    fn a_job_that_waits_lets_its_pods_be_placed_elsewhere() {
        let moved = moved();
        let started = json!({"startTime": "2026-01-01T00:00:00Z"});
        let seen =
            json!({"startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Suspended", "status": "True"}]});
        for (suspend, status, free) in [
            (true, json!({}), true),
            (true, json!({"active": 0}), true),
            (true, json!({"active": 1}), false),
            (true, started, false),
            (true, seen.clone(), true),
            (false, json!({}), false),
            (false, seen, false),
        ] {
            let found = told(&moved, &of(pod(), suspend, status.clone()));
            let wanted: &[&str] = if free { &[] } else { &["spec.template"] };
            assert_eq!(fields(&found), wanted, "{suspend} {status}");
        }
        assert!(told(&of(pod(), false, json!({})), &of(pod(), false, json!({"active": 1}))).is_empty());
    }

    #[test]
    fn the_rest_of_the_pods_of_a_job_that_waits_stays() {
        let old = of(pod(), true, json!({}));
        let changes: [fn(&mut Value); 5] = [
            |pod| pod["containers"][0]["image"] = "y".into(),
            |pod| pod["containers"][0]["name"] = "b".into(),
            |pod| pod["affinity"]["podAffinity"]["a"] = 2.into(),
            |pod| drop(remove(pod, "affinity")),
            |pod| pod["initContainers"] = json!([{"name": "i", "image": "x"}]),
        ];
        for (nth, change) in changes.into_iter().enumerate() {
            let mut new = moved();
            change(&mut new["spec"]["template"]["spec"]);
            assert_eq!(fields(&told(&new, &old)), ["spec.template.spec"], "{nth}");
        }
    }

    #[test]
    fn an_affinity_to_nodes_alone_may_come_and_go() {
        let with = |affinity: Value| {
            let mut pod = pod();
            pod["affinity"] = affinity;
            of(pod, true, json!({}))
        };
        let (none, nodes) = (with(Value::Null), with(json!({"nodeAffinity": {"a": 1}})));
        assert!(told(&none, &nodes).is_empty());
        assert!(told(&nodes, &none).is_empty());
        let pods = with(json!({"nodeAffinity": {"a": 1}, "podAffinity": {"b": 1}}));
        assert_eq!(fields(&told(&pods, &none)), ["spec.template.spec"]);
    }
}
