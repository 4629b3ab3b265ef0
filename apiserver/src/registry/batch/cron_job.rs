//! CronJobs.

use super::{default_policy, has, job_spec, on, schedule, time_zone, warnings};
use crate::registry::apps::workload;
use crate::registry::fields::{non_negative, object_mut, one_of, require, same, set_default, text};
use crate::registry::strategy::{Strategy, Traits};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta};

/// Longest name of a CronJob: its jobs' names get eleven characters more.
const NAME_MAX: usize = 52;

/// batch/v1 CronJob
#[derive(Debug)]
pub struct CronJobStrategy;

impl Strategy for CronJobStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, ..Traits::DEFAULT }
    }

    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        set_default(spec, "concurrencyPolicy", "Allow");
        set_default(spec, "suspend", false);
        set_default(spec, "successfulJobsHistoryLimit", 3);
        set_default(spec, "failedJobsHistoryLimit", 1);
        let job = object_mut(object_mut(spec, "jobTemplate"), "spec");
        workload::default_template(job);
        default_policy(job);
        object_mut(&mut spec["jobTemplate"], "metadata");
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        validate(&object["spec"], None, causes);
    }

    fn validate_create(&self, object: &Value, causes: &mut Vec<Cause>) {
        self.validate(object, causes);
        let name = meta::name(object);
        if name.len() > NAME_MAX {
            let why = format!("must be no more than {NAME_MAX} bytes");
            causes.push(Cause::invalid(&FieldPath::new("metadata.name"), name, why));
        }
    }

    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        validate(&object["spec"], Some(&old["spec"]), causes);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut told = workload::name_warnings(object, old);
        warnings::spec(object, old, "/spec/jobTemplate/spec", &mut told);
        if old.is_some() && zoned(&object["spec"]) {
            // The place is upstream's.
            told.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_owned());
        }
        told
    }
}

/// Whether a schedule names a zone of its own, as it could before there was a field for it.
fn zoned(spec: &Value) -> bool {
    text(spec, "schedule").contains("TZ")
}

/// A new spec, or one that replaces another (`validateCronJobSpec`).
fn validate(spec: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("spec");
    if require(spec, "schedule", &path, causes) {
        times(spec, old.is_some_and(zoned), &path.child("schedule"), causes);
    }
    non_negative(spec, "startingDeadlineSeconds", &path, causes);
    // Zones come and go: one that was known once stays.
    if has(spec, "timeZone") && old.is_none_or(|old| !same(spec, old, "timeZone")) {
        time_zone::validate(text(spec, "timeZone"), &path.child("timeZone"), causes);
    }
    one_of(spec, "concurrencyPolicy", &["Allow", "Forbid", "Replace"], &path, causes);
    template(&spec["jobTemplate"]["spec"], &path.child("jobTemplate").child("spec"), causes);
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        non_negative(spec, field, &path, causes);
    }
}

/// When jobs are made (`validateScheduleFormat`).
fn times(spec: &Value, may_be_zoned: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let schedule = text(spec, "schedule");
    if let Err(why) = schedule::check(schedule) {
        causes.push(Cause::invalid(path, schedule, why));
    }
    match (zoned(spec), may_be_zoned) {
        (true, false) => {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            causes.push(Cause::invalid(path, schedule, why));
        }
        (true, true) if has(spec, "timeZone") => {
            let why = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
            causes.push(Cause::invalid(path, schedule, why));
        }
        _ => {}
    }
}

/// The jobs, whose selectors are made with them (`ValidateJobTemplateSpec`).
fn template(job: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    job_spec::validate(job, path, causes);
    if let Some(selector) = workload::given(job) {
        let why = "`selector` will be auto-generated";
        causes.push(Cause::invalid(&path.child("selector"), selector.clone(), why));
    }
    if on(job, "manualSelector") {
        causes.push(Cause::not_supported(&path.child("manualSelector"), true, &["nil", "false"]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn cron(name: &str, change: impl FnOnce(&mut Value)) -> Value {
        let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]});
        let mut cron = json!({"metadata": {"name": name}, "spec":
            {"schedule": "@hourly", "jobTemplate": {"spec": {"template": {"spec": pod}}}}});
        change(&mut cron["spec"]);
        CronJobStrategy.default(&mut cron);
        cron
    }

    fn created(cron: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        CronJobStrategy.validate_create(cron, &mut causes);
        causes.iter().map(Cause::to_string).collect()
    }

    fn changed(cron: &Value, old: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        CronJobStrategy.validate_changed(cron, old, &mut causes);
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn only_new_names_are_measured() {
        let (short, long) = ("a".repeat(52), "a".repeat(53));
        assert!(created(&cron(&short, |_| {})).is_empty());
        let cron = cron(&long, |_| {});
        assert_eq!(created(&cron), [format!("metadata.name: Invalid value: {long:?}: must be no more than 52 bytes")]);
        assert!(changed(&cron, &cron).is_empty());
    }

    #[test]
    fn everything_is_told_in_its_order() {
        let cron = cron("a", |spec| {
            spec["schedule"] = "TZ=Mars * * * * *".into();
            spec["timeZone"] = "Mars".into();
            for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
                spec[field] = (-1).into();
            }
            spec["concurrencyPolicy"] = "Some".into();
            let job = &mut spec["jobTemplate"]["spec"];
            job["parallelism"] = (-1).into();
            job["selector"] = json!({});
            job["manualSelector"] = true.into();
        });
        let schedule = "spec.schedule: Invalid value: \"TZ=Mars * * * * *\"";
        assert_eq!(
            created(&cron),
            [
                format!("{schedule}: provided bad location Mars: unknown time zone Mars"),
                format!("{schedule}: cannot use TZ or CRON_TZ in schedule, use timeZone field instead"),
                "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0".to_owned(),
                "spec.timeZone: Invalid value: \"Mars\": unknown time zone Mars".to_owned(),
                "spec.concurrencyPolicy: Unsupported value: \"Some\": supported values: \"Allow\", \"Forbid\", \"Replace\"".to_owned(),
                "spec.jobTemplate.spec.parallelism: Invalid value: -1: must be greater than or equal to 0".to_owned(),
                "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated".to_owned(),
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"".to_owned(),
                "spec.successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0".to_owned(),
                "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0".to_owned(),
            ]
        );
        assert_eq!(
            created(&super::tests::cron("a", |spec| spec["schedule"] = "".into())),
            ["spec.schedule: Required value"]
        );
    }

    #[test]
    fn schedules_with_a_zone_of_their_own_stay_what_they_were() {
        let zoned = |zone: Value| {
            cron("a", |spec| {
                spec["schedule"] = "TZ=UTC @daily".into();
                spec["timeZone"] = zone;
            })
        };
        let (old, both) = (zoned(Value::Null), zoned("UTC".into()));
        assert!(changed(&old, &old).is_empty());
        let schedule = "spec.schedule: Invalid value: \"TZ=UTC @daily\"";
        assert_eq!(
            changed(&both, &old),
            [format!("{schedule}: cannot use both timeZone field and TZ or CRON_TZ in schedule")]
        );
        assert_eq!(
            changed(&old, &cron("a", |_| {})),
            [format!("{schedule}: cannot use TZ or CRON_TZ in schedule, use timeZone field instead")]
        );
        assert!(CronJobStrategy.warnings(&old, None).is_empty());
        let why = "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details";
        assert_eq!(CronJobStrategy.warnings(&old, Some(&old)), [why]);
    }

    #[test]
    fn a_zone_is_looked_at_when_it_changes() {
        let gone = cron("a", |spec| spec["timeZone"] = "Mars/Base".into());
        assert!(changed(&gone, &gone).is_empty());
        let why = "spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base";
        assert_eq!(changed(&gone, &cron("a", |_| {})), [why]);
    }

    #[test]
    fn jobs_of_a_cron_job_get_what_is_checked_in_them() {
        let cron = cron("a.b", |spec| {
            spec["jobTemplate"]["spec"]["podFailurePolicy"] =
                json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "a"}]}]});
        });
        assert!(created(&cron).is_empty());
        let told = CronJobStrategy.warnings(&cron, None);
        assert!(told[0].ends_with("a DNS label is recommended: [must not contain dots]"), "{told:?}");
    }
}
