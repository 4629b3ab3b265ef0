//! Kinds of batch/v1 (batch/v1 `defaults.go`, `validation.go`, registry/batch `strategy.go`).

mod cron_job;
pub(crate) mod duration;
mod indexes;
mod internal;
mod job;
mod job_spec;
mod job_status;
mod job_update;
mod pod_failure_policy;
mod schedule;
mod success_policy;
mod time_zone;
mod warnings;

pub use cron_job::CronJobStrategy;
pub use job::JobStrategy;

use super::fields::{field, items, set_default_text};
use coracle_api::json::Value;

/// Whether a field is given, be it empty: most of them are pointers upstream.
fn has(value: &Value, name: &str) -> bool {
    field(value, name).is_some_and(|value| !value.is_null())
}

/// A number that is given.
fn number(value: &Value, name: &str) -> Option<i64> {
    field(value, name).and_then(Value::as_i64)
}

/// Whether a field that is off unless it is given is on.
fn on(value: &Value, name: &str) -> bool {
    field(value, name).and_then(Value::as_bool) == Some(true)
}

/// Every pod of the job has an index.
fn indexed(spec: &Value) -> bool {
    super::fields::text(spec, "completionMode") == "Indexed"
}

/// Conditions of a pod that a policy names are true ones (`SetDefaults_PodFailurePolicyOnPodConditionsPattern`).
fn default_policy(spec: &mut Value) {
    let rules = super::fields::below_mut(spec, &["podFailurePolicy", "rules"]).and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        for pattern in super::fields::items_mut(rule, "onPodConditions") {
            set_default_text(pattern, "status", "True");
        }
    }
}

/// A job's condition is true (`IsConditionTrue`).
fn condition(job: &Value, kind: &str) -> bool {
    condition_is(job, kind, "True")
}

fn condition_is(job: &Value, kind: &str, status: &str) -> bool {
    let text = super::fields::text;
    items(&job["status"], "conditions")
        .iter()
        .any(|found| text(found, "type") == kind && text(found, "status") == status)
}
