//! Jobs.

use super::{default_policy, has, indexed, job_spec, job_status, job_update, number, on, warnings};
use crate::cache::Field;
use crate::registry::apps::workload;
use crate::registry::fields::{label_selector, object_mut, set, set_default};
use crate::registry::strategy::{Dependents, Strategy, Traits, WriteContext};
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};

/// Tries before a job counts as failed.
const BACKOFF: i64 = 6;

/// Labels that tell a job's pods; the bare ones are older.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// batch/v1 Job
#[derive(Debug)]
pub struct JobStrategy;

static FIELDS: [Field; 1] = [Field::of("status.successful", &["status", "succeeded"], "0")];

impl Strategy for JobStrategy {
    fn traits(&self) -> Traits {
        // The garbage collector of old leaves pods alone unless told otherwise.
        Traits { generation: true, dependents: Dependents::Orphaned, ..Traits::DEFAULT }
    }

    fn fields(&self) -> &[Field] {
        &FIELDS
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
        let replaced = if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        set_default(spec, "podReplacementPolicy", replaced);
        default_policy(spec);
        // A new job's pods get labels of their own first: see `prepare_create`.
        let complete = |labels: &Map| labels.contains_key(UID_LABELS[1]);
        if on(spec, "manualSelector") || workload::template_labels(spec).is_some_and(complete) {
            default_labels(object);
        }
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext) {
        let (name, uid) = (meta::name(object).to_owned(), meta::uid(object).to_owned());
        let spec = &mut object["spec"];
        if on(spec, "manualSelector") {
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
        job(object, true, causes);
    }

    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        job(object, prefixed(&old["spec"]), causes);
        self.validate_update(object, old, causes);
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        job_update::validate(object, old, causes);
    }

    fn validate_status(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        job_status::validate(object, old, causes);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut told = workload::name_warnings(object, old);
        warnings::spec(object, old, "/spec", &mut told);
        told
    }
}

/// A job whose pods need the prefixed labels, or do not (`ValidateJob`).
fn job(job: &Value, prefixed: bool, causes: &mut Vec<Cause>) {
    let (spec, path) = (&job["spec"], FieldPath::new("spec"));
    generated_selector(job, prefixed, causes);
    job_spec::validate(spec, &path, causes);
    match workload::given(spec) {
        None => causes.push(Cause::required(&path.child("selector"), "")),
        Some(selector) => label_selector(selector, &path.child("selector"), causes),
    }
    if workload::selects(workload::given(spec), workload::template_labels(spec)) == Some(false) {
        causes.push(workload::mismatch(spec, &path));
    }
    host_names(job, causes);
}

/// Pods of an indexed job are called as it is, with the index behind.
fn host_names(job: &Value, causes: &mut Vec<Cause>) {
    let (spec, name) = (&job["spec"], meta::name(job));
    let Some(last) = number(spec, "completions").filter(|number| indexed(spec) && *number > 0) else { return };
    let longest = format!("{name}-{}", last - 1);
    if !validation::dns1123_label(&longest).is_empty() {
        let why = format!("will not able to create pod with invalid DNS label: {longest}");
        causes.push(Cause::invalid(&FieldPath::new("metadata.name"), name, why));
    }
}

/// Labels of a job that brings none are those of its pods.
fn default_labels(job: &mut Value) {
    let labels = workload::template_labels(&job["spec"]).filter(|labels| !labels.is_empty()).cloned();
    if let Some(labels) = labels
        && meta::labels(job).is_none_or(Map::is_empty)
    {
        meta::set(job, "labels", labels);
    }
}

/// Whether the pods have the newer labels: those of jobs that were there before the labels do not.
fn prefixed(spec: &Value) -> bool {
    let has = |key: &&str| workload::template_labels(spec).is_some_and(|labels| labels.contains_key(key));
    [UID_LABELS[0], NAME_LABELS[0]].iter().all(has)
}

/// A selector that the job did not choose takes the pods that carry its uid and name (`ValidateGeneratedSelector`).
fn generated_selector(job: &Value, prefixed: bool, causes: &mut Vec<Cause>) {
    let spec = &job["spec"];
    let Some(selector) = workload::given(spec).filter(|_| !on(spec, "manualSelector")) else { return };
    let path = FieldPath::new("spec.template.metadata.labels");
    let labels = workload::template_labels(spec);
    let mut expected = Map::new();
    let nths: &[usize] = if prefixed { &[1, 0] } else { &[1] };
    for nth in nths {
        for (key, value) in [(UID_LABELS[*nth], meta::uid(job)), (NAME_LABELS[*nth], meta::name(job))] {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::fields::{below_mut, remove};
    use coracle_api::json::json;

    fn made(name: &str, spec: Value) -> Value {
        let mut job = json!({"kind": "Job", "metadata": {"name": name, "uid": "u"}, "spec": spec});
        job["spec"]["template"] =
            json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}});
        JobStrategy.default(&mut job);
        let user = crate::UserInfo::admin();
        let context =
            WriteContext { user: &user, now: jiff::Timestamp::UNIX_EPOCH, names: &coracle_api::names::RandomNames };
        JobStrategy.prepare_create(&mut job, &context);
        job
    }

    fn told(job: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        JobStrategy.validate(job, &mut causes);
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn a_job_gets_a_selector_of_its_own() {
        let mut job = made("a", json!({}));
        assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "a");
        assert_eq!((&job["spec"]["completions"], &job["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
        assert!(told(&job).is_empty());
        job["spec"]["template"]["spec"]["restartPolicy"] = "Always".into();
        job["spec"]["completionMode"] = "Indexed".into();
        job["spec"]["completions"] = Value::Null;
        assert_eq!(
            told(&job),
            [
                "spec.completions: Required value: when completion mode is Indexed",
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""
            ]
        );
    }

    #[test]
    fn older_jobs_do_without_the_newer_labels() {
        let mut old = made("a", json!({"manualSelector": false}));
        old["spec"]["selector"] = json!({"matchLabels": {"controller-uid": "u"}});
        let labels = below_mut(&mut old, &["spec", "template", "metadata", "labels"]).unwrap();
        for key in [UID_LABELS[0], NAME_LABELS[0]] {
            remove(labels, key);
        }
        let mut causes = Vec::new();
        JobStrategy.validate_changed(&old, &old, &mut causes);
        assert_eq!(causes, []);
        assert_eq!(
            told(&old),
            [
                "spec.template.metadata.labels[batch.kubernetes.io/controller-uid]: Required value: must be 'u'",
                "spec.template.metadata.labels[batch.kubernetes.io/job-name]: Required value: must be 'a'",
            ]
        );
    }

    #[test]
    fn names_of_pods_with_their_index_are_labels() {
        let indexed = |name: &str| made(name, json!({"completionMode": "Indexed", "completions": 11}));
        assert!(told(&indexed(&"a".repeat(60))).is_empty());
        for name in ["a".repeat(61), "a.b".to_owned()] {
            let why = format!("will not able to create pod with invalid DNS label: {name}-10");
            assert_eq!(told(&indexed(&name)), [format!("metadata.name: Invalid value: {name:?}: {why}")]);
        }
        assert!(told(&made("a.b", json!({}))).is_empty(), "without indexes the names are made otherwise");
    }

    #[test]
    fn a_condition_that_a_policy_names_is_a_true_one() {
        let job = made(
            "a",
            json!({"podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions":
            [{"type": "a"}, {"type": "b", "status": "False"}]}]}}),
        );
        let patterns = &job["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"];
        assert_eq!(patterns, &json!([{"type": "a", "status": "True"}, {"type": "b", "status": "False"}]));
        assert_eq!(job["spec"]["podReplacementPolicy"], "Failed");
        assert!(told(&job).is_empty());
    }

    #[test]
    fn jobs_with_unusual_names_and_many_indexes_are_warned_of() {
        let wide = json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001});
        let mut job = made("a.b", wide);
        let spec = "spec: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
        assert_eq!(
            JobStrategy.warnings(&job, None),
            [
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
                spec
            ]
        );
        let old = job.clone();
        assert!(JobStrategy.warnings(&job, Some(&old)).is_empty());
        meta::set(&mut job, "generation", 2);
        assert_eq!(JobStrategy.warnings(&job, Some(&old)), [spec]);
    }
}
