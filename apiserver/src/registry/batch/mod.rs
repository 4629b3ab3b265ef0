//! Jobs and CronJobs (batch/v1 `defaults.go`, `validation.go`, registry/batch `strategy.go`).

mod cron_job;
mod duration;
mod schedule;
mod time_zone;

pub use cron_job::CronJobStrategy;

use super::apps::workload;
use super::core::pod_spec;
use super::fields::{is_set, label_selector, non_negative, object_mut, one_of, same, set, set_default, text};
use super::strategy::{Strategy, Traits, WriteContext};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta};

/// Tries before a job counts as failed.
const BACKOFF: i64 = 6;
/// Labels that tell a job's pods; the bare ones are older.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// batch/v1 Job
#[derive(Debug)]
pub struct JobStrategy;

impl Strategy for JobStrategy {
    fn traits(&self) -> Traits {
        // The garbage collector of old leaves pods alone unless told otherwise.
        Traits { generation: true, orphan_by_default: true, ..Traits::DEFAULT }
    }

    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        workload::default_template(spec);
        if !has(spec, "completions") && !has(spec, "parallelism") {
            set(spec, "completions", 1);
        }
        set_default(spec, "parallelism", 1);
        let per_index = has(spec, "backoffLimitPerIndex");
        set_default(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { BACKOFF });
        set_default(spec, "completionMode", "NonIndexed");
        set_default(spec, "suspend", false);
        set_default(spec, "manualSelector", false);
        let replaced = if is_set(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        set_default(spec, "podReplacementPolicy", replaced);
        if spec["manualSelector"] == false {
            // Upstream leaves it out when it says nothing.
            super::fields::remove(spec, "manualSelector");
        }
        // A new job's pods get labels of their own first: see `prepare_create`.
        let complete = |labels: &coracle_api::json::Map| labels.contains_key(UID_LABELS[1]);
        if has(spec, "manualSelector") || workload::template_labels(spec).is_some_and(complete) {
            default_labels(object);
        }
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext) {
        let (name, uid) = (meta::name(object).to_owned(), meta::uid(object).to_owned());
        let spec = &mut object["spec"];
        if manual(spec) {
            return;
        }
        let labels = object_mut(object_mut(object_mut(spec, "template"), "metadata"), "labels");
        for (keys, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
            for key in keys {
                set_default(labels, key, value.as_str());
            }
        }
        set_default(object_mut(object_mut(spec, "selector"), "matchLabels"), UID_LABELS[0], uid);
        default_labels(object);
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        generated_selector(object, causes);
        job_spec(spec, &path, causes);
        match workload::given(spec) {
            None => causes.push(Cause::required(&path.child("selector"), "")),
            Some(selector) => label_selector(selector, &path.child("selector"), causes),
        }
        if workload::selects(workload::given(spec), workload::template_labels(spec)) == Some(false) {
            causes.push(workload::mismatch(spec, &path));
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        workload::counts(&object["status"], &["active", "succeeded", "failed", "ready", "terminating"], &[], causes);
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let (spec, known) = (&object["spec"], &old["spec"]);
        let suspended =
            known.get("suspend").and_then(Value::as_bool) == Some(true) && old.pointer("/status/startTime").is_none();
        // An indexed job can be made wider or narrower, both numbers together.
        let elastic = text(spec, "completionMode") == "Indexed" && spec.get("completions") == spec.get("parallelism");
        for field in [
            "completions",
            "selector",
            "template",
            "completionMode",
            "podFailurePolicy",
            "backoffLimitPerIndex",
            "managedBy",
        ] {
            let free = field == "completions" && elastic || field == "template" && suspended;
            if !free && !same(spec, known, field) {
                let given = spec.get(field).filter(|value| !value.is_null());
                // As upstream tells a nil pointer.
                let value = given.cloned().unwrap_or_else(|| "null".into());
                causes.push(Cause::immutable(&FieldPath::new("spec").child(field), value));
            }
        }
    }
}

/// Labels of a job that brings none are those of its pods.
fn default_labels(job: &mut Value) {
    let labels = workload::template_labels(&job["spec"]).filter(|labels| !labels.is_empty()).cloned();
    if let Some(labels) = labels
        && meta::labels(job).is_none_or(coracle_api::json::Map::is_empty)
    {
        meta::set(job, "labels", labels);
    }
}

fn manual(spec: &Value) -> bool {
    spec.get("manualSelector").and_then(Value::as_bool) == Some(true)
}

/// A selector that the job did not choose takes the pods that carry its uid and name (`ValidateGeneratedSelector`).
fn generated_selector(job: &Value, causes: &mut Vec<Cause>) {
    let spec = &job["spec"];
    let Some(selector) = workload::given(spec).filter(|_| !manual(spec)) else { return };
    let path = FieldPath::new("spec.template.metadata.labels");
    let labels = workload::template_labels(spec);
    let mut expected = coracle_api::json::Map::new();
    for nth in [1, 0] {
        for (key, value) in [(UID_LABELS[nth], meta::uid(job)), (NAME_LABELS[nth], meta::name(job))] {
            expected.insert(key.to_owned(), value.into());
            let why = format!("must be '{value}'");
            match labels.and_then(|labels| labels.get(key)) {
                None => causes.push(Cause::required(&path.key(key), &why)),
                Some(found) if found != value => {
                    let labels = labels.cloned().unwrap_or_default();
                    causes.push(Cause::invalid(&path.key(key), labels, why));
                }
                Some(_) => {}
            }
        }
    }
    if workload::selects(Some(selector), Some(&expected)) == Some(false) {
        let why = "`selector` not auto-generated";
        causes.push(Cause::invalid(&FieldPath::new("spec.selector"), selector.clone(), why));
    }
}

fn has(spec: &Value, field: &str) -> bool {
    spec.get(field).is_some_and(|value| !value.is_null())
}

fn job_spec(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
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
    one_of(spec, "completionMode", &["Indexed", "NonIndexed"], path, causes);
    one_of(spec, "podReplacementPolicy", &["Failed", "TerminatingOrFailed"], path, causes);
    let indexed = text(spec, "completionMode") == "Indexed";
    if indexed && !has(spec, "completions") {
        causes.push(Cause::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    if !indexed {
        for field in
            ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"].into_iter().filter(|field| has(spec, field))
        {
            let why = "requires indexed completion mode";
            causes.push(Cause::invalid(&path.child(field), spec[field].clone(), why));
        }
    }
    pod_spec::template(&spec["template"], &path.child("template"), causes);
    let template = path.child("template").child("spec");
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    if matches!(policy, "Always" | "") {
        causes.push(Cause::required(&template.child("restartPolicy"), "valid values: \"OnFailure\", \"Never\""));
    } else if !matches!(policy, "OnFailure" | "Never") {
        causes.push(Cause::not_supported(&template.child("restartPolicy"), policy, &["Never", "OnFailure"]));
    } else if policy != "Never" && is_set(spec, "podFailurePolicy") {
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        causes.push(Cause::invalid(&template.child("restartPolicy"), policy, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn a_job_gets_a_selector_of_its_own() {
        let mut job = json!({"kind": "Job", "metadata": {"name": "a", "uid": "u"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}}});
        JobStrategy.default(&mut job);
        let user = crate::UserInfo::admin();
        let context =
            WriteContext { user: &user, now: jiff::Timestamp::UNIX_EPOCH, names: &coracle_api::names::RandomNames };
        JobStrategy.prepare_create(&mut job, &context);
        assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "a");
        assert_eq!((&job["spec"]["completions"], &job["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
        let mut causes = Vec::new();
        JobStrategy.validate(&job, &mut causes);
        assert_eq!(causes, []);
        job["spec"]["template"]["spec"]["restartPolicy"] = "Always".into();
        job["spec"]["completionMode"] = "Indexed".into();
        job["spec"]["completions"] = Value::Null;
        JobStrategy.validate(&job, &mut causes);
        let found: Vec<String> = causes.iter().map(Cause::to_string).collect();
        assert_eq!(
            found,
            [
                "spec.completions: Required value: when completion mode is Indexed",
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""
            ]
        );
    }
}
