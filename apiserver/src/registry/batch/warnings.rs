//! What is hardly meant in jobs and CronJobs (registry/batch `WarningsOnCreate`, api/job `WarningsForJobSpec`).

use super::{indexed, number};
use crate::registry::core::pod_warnings;
use coracle_api::json::Value;
use coracle_api::meta;

const COMPLETIONS_MANY: i64 = 100_000;
const PARALLELISM_MANY: i64 = 10_000;

/// Whether there is a new spec to tell of.
fn due(object: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| meta::generation(object) != meta::generation(old))
}

/// The spec of a job, which a JSON pointer leads to.
pub fn spec(object: &Value, old: Option<&Value>, pointer: &str, told: &mut Vec<String>) {
    let (spec, path) = (object.pointer(pointer).unwrap_or(&Value::Null), pointer[1..].replace('/', "."));
    let above = |field: &str, many: i64| number(spec, field).is_some_and(|number| number > many);
    if due(object, old)
        && indexed(spec)
        && above("completions", COMPLETIONS_MANY)
        && above("parallelism", PARALLELISM_MANY)
    {
        told.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    told.extend(pod_warnings::of_template(object, old, &format!("{pointer}/template")));
}
