//! What a job, alone or of a CronJob, can ask for (batch `validateJobSpec`).

use super::{has, indexed, internal, number, pod_failure_policy, success_policy};
use crate::registry::core::pod_spec;
use crate::registry::fields::{domain_prefixed_path, non_negative, one_of, text};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

/// Most pods at a time, and most indexes that fail, of an indexed job: its status lists the indexes.
const INDEXED_MAX: i64 = 100_000;
/// The same of a job of more completions than this, when each index has tries of its own.
const MANY_COMPLETIONS: i64 = 100_000;
const AMONG_MANY_MAX: i64 = 10_000;
const MANAGER_MAX: usize = 63;

/// The spec of a job; `path` is the spec's.
pub fn validate(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        non_negative(spec, field, path, causes);
    }
    if has(spec, "maxFailedIndexes") && !has(spec, "backoffLimitPerIndex") {
        causes.push(Cause::required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if has(spec, "managedBy") {
        let (path, manager) = (path.child("managedBy"), text(spec, "managedBy"));
        domain_prefixed_path(manager, &path, causes);
        if manager.len() > MANAGER_MAX {
            causes.push(Cause::too_long(&path, MANAGER_MAX));
        }
    }
    completion_mode(spec, path, causes);
    if has(spec, "podFailurePolicy") {
        pod_failure_policy::validate(spec, &path.child("podFailurePolicy"), causes);
    }
    if has(spec, "successPolicy") {
        let path = path.child("successPolicy");
        if indexed(spec) {
            success_policy::validate(spec, &path, causes);
        } else {
            let shown = internal::success_policy(&spec["successPolicy"]);
            causes.push(Cause::invalid(&path, shown, "requires indexed completion mode"));
        }
    }
    // A pod that is on its way out may yet fail in a way that the policy knows.
    let replaced: &[&str] =
        if has(spec, "podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    one_of(spec, "podReplacementPolicy", replaced, path, causes);
    pod_spec::template(&spec["template"], &path.child("template"), causes);
    restart_policy(spec, path, causes);
}

/// Whether pods have indexes, and what goes with that.
fn completion_mode(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    one_of(spec, "completionMode", &["NonIndexed", "Indexed"], path, causes);
    if indexed(spec) {
        limits(spec, path, causes);
    }
    if !has(spec, "completionMode") || text(spec, "completionMode") == "NonIndexed" {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"].into_iter().filter(|field| has(spec, field)) {
            let why = "requires indexed completion mode";
            causes.push(Cause::invalid(&path.child(field), spec[field].clone(), why));
        }
    }
}

/// What an indexed job can have at most.
fn limits(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let at_most = |field: &str, most: i64, why: String, causes: &mut Vec<Cause>| {
        if let Some(number) = number(spec, field).filter(|number| *number > most) {
            causes.push(Cause::invalid(&path.child(field), number, format!("must be less than or equal to {why}")));
        }
    };
    let completions = number(spec, "completions");
    if completions.is_none() {
        causes.push(Cause::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    at_most("parallelism", INDEXED_MAX, format!("{INDEXED_MAX} when completion mode is Indexed"), causes);
    at_most("maxFailedIndexes", completions.unwrap_or(i64::MAX), "completions".to_owned(), causes);
    at_most("maxFailedIndexes", INDEXED_MAX, INDEXED_MAX.to_string(), causes);
    if completions.is_none_or(|completions| completions <= MANY_COMPLETIONS) || !has(spec, "backoffLimitPerIndex") {
        return;
    }
    if !has(spec, "maxFailedIndexes") {
        let why = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        causes.push(Cause::required(&path.child("maxFailedIndexes"), &why));
    }
    for field in ["parallelism", "maxFailedIndexes"] {
        let why = format!(
            "{AMONG_MANY_MAX} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
        );
        at_most(field, AMONG_MANY_MAX, why, causes);
    }
}

/// Pods of a job end at some time.
fn restart_policy(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let path = path.child("template").child("spec").child("restartPolicy");
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    match policy {
        // The first is the default, for a client that said nothing.
        "Always" | "" => causes.push(Cause::required(&path, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if has(spec, "podFailurePolicy") => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            causes.push(Cause::invalid(&path, policy, why));
        }
        "OnFailure" | "Never" => {}
        _ => causes.push(Cause::not_supported(&path, policy, &["OnFailure", "Never"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::{Map, json};

    fn told(fields: Value) -> Vec<String> {
        let container =
            json!({"name": "c", "image": "x", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"});
        let pod = json!({"restartPolicy": "Never", "dnsPolicy": "Default", "containers": [container]});
        let mut spec = json!({"template": {"spec": pod}});
        for (name, value) in fields.as_object().cloned().unwrap_or_else(Map::new) {
            spec[&*name] = value;
        }
        let mut causes = Vec::new();
        validate(&spec, &FieldPath::new("spec"), &mut causes);
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn most_jobs_say_little() {
        assert!(told(json!({})).is_empty());
        let all = json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_000,
            "backoffLimitPerIndex": 1, "maxFailedIndexes": 10_000, "managedBy": "example.com/queue",
            "podReplacementPolicy": "TerminatingOrFailed", "successPolicy": {"rules": [{"succeededCount": 1}]}});
        assert!(told(all).is_empty());
    }

    #[test]
    fn numbers_are_not_negative_and_failed_indexes_need_tries_of_their_own() {
        assert_eq!(
            told(json!({"completionMode": "Indexed", "completions": 2, "maxFailedIndexes": -1, "parallelism": -1})),
            [
                "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
                "spec.maxFailedIndexes: Invalid value: -1: must be greater than or equal to 0",
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            ]
        );
    }

    #[test]
    fn whoever_runs_a_job_in_our_place_has_a_domain() {
        for (manager, wanted) in [
            ("", "spec.managedBy: Required value"),
            ("me", "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")"),
            (
                "acme.io/a b",
                "spec.managedBy: Invalid value: \"a b\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
            ),
        ] {
            assert_eq!(told(json!({"managedBy": manager})), [wanted]);
        }
        let upper = told(json!({"managedBy": "Acme/a"}));
        assert!(upper[0].starts_with("spec.managedBy: Invalid value: \"Acme\": a lowercase RFC 1123 subdomain"));
        let long = format!("a.io/{}", "x".repeat(59));
        assert_eq!(told(json!({"managedBy": long})), ["spec.managedBy: Too long: may not be more than 63 bytes"]);
    }

    #[test]
    fn indexed_jobs_have_limits() {
        let of = |fields: Value| {
            let mut spec = json!({"completionMode": "Indexed"});
            for (name, value) in fields.as_object().cloned().unwrap_or_else(Map::new) {
                spec[&*name] = value;
            }
            told(spec)
        };
        assert_eq!(
            of(json!({"parallelism": 100_001})),
            [
                "spec.completions: Required value: when completion mode is Indexed",
                "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
            ]
        );
        assert_eq!(
            of(json!({"completions": 2, "backoffLimitPerIndex": 1, "maxFailedIndexes": 3})),
            ["spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions"]
        );
        let many = "must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index";
        assert_eq!(
            of(json!({"completions": 200_000, "backoffLimitPerIndex": 1, "maxFailedIndexes": 100_001})),
            [
                "spec.maxFailedIndexes: Invalid value: 100001: must be less than or equal to 100000".to_owned(),
                format!("spec.maxFailedIndexes: Invalid value: 100001: {many}"),
            ]
        );
        assert_eq!(
            of(json!({"completions": 200_000, "backoffLimitPerIndex": 1, "parallelism": 10_001})),
            [
                "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000".to_owned(),
                format!("spec.parallelism: Invalid value: 10001: {many}"),
            ]
        );
        assert!(of(json!({"completions": 200_000, "parallelism": 100_000})).is_empty());
        assert!(of(json!({"completions": 100_000, "backoffLimitPerIndex": 1, "parallelism": 100_000})).is_empty());
    }

    #[test]
    fn jobs_without_indexes_have_nothing_that_goes_by_them() {
        let policy = json!({"rules": [{"succeededIndexes": "0"}]});
        let why = "requires indexed completion mode";
        assert_eq!(
            told(json!({"backoffLimitPerIndex": 1, "maxFailedIndexes": 2, "successPolicy": policy})),
            [
                format!("spec.backoffLimitPerIndex: Invalid value: 1: {why}"),
                format!("spec.maxFailedIndexes: Invalid value: 2: {why}"),
                format!(
                    "spec.successPolicy: Invalid value: {{\"Rules\":[{{\"SucceededIndexes\":\"0\",\"SucceededCount\":null}}]}}: {why}"
                ),
            ]
        );
        assert_eq!(
            told(json!({"completionMode": "Some", "backoffLimitPerIndex": 1})),
            ["spec.completionMode: Unsupported value: \"Some\": supported values: \"NonIndexed\", \"Indexed\""]
        );
    }

    #[test]
    fn a_policy_about_failures_waits_until_pods_failed() {
        let policy = json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "a", "status": "True"}]}]});
        assert!(told(json!({"podFailurePolicy": policy, "podReplacementPolicy": "Failed"})).is_empty());
        assert_eq!(
            told(json!({"podFailurePolicy": policy, "podReplacementPolicy": "TerminatingOrFailed"})),
            ["spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\""]
        );
        assert_eq!(
            told(json!({"podReplacementPolicy": "Soon"})),
            [
                "spec.podReplacementPolicy: Unsupported value: \"Soon\": supported values: \"Failed\", \"TerminatingOrFailed\""
            ]
        );
    }

    #[test]
    fn pods_of_jobs_end() {
        let pod = |policy: &str| {
            json!({"spec": {"restartPolicy": policy, "dnsPolicy": "Default", "containers":
            [{"name": "c", "image": "x", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}]}})
        };
        let path = "spec.template.spec.restartPolicy";
        assert_eq!(
            told(json!({"template": pod("Always")})),
            [format!("{path}: Required value: valid values: \"OnFailure\", \"Never\"")]
        );
        let other = told(json!({"template": pod("Sometimes")}));
        assert_eq!(
            other.last().map(String::as_str),
            Some(
                "spec.template.spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"OnFailure\", \"Never\""
            )
        );
        assert_eq!(
            told(json!({"template": pod("OnFailure"), "podFailurePolicy": {"rules": []}})),
            [format!(
                "{path}: Invalid value: \"OnFailure\": only \"Never\" is supported when podFailurePolicy is specified"
            )]
        );
    }
}
