//! Jobs and cron jobs.

use crate::json::Value;
use jiff::Timestamp;

use super::access::{containers, int_at, list_at, or_none, selector, str_at};
use super::duration::{since, whole_seconds};
use super::{AGE, NAME, Printer, age, human_duration, number, text, wide};
use crate::{clock, meta};

pub(super) fn find(group: &str, kind: &str) -> Option<&'static Printer> {
    match (group, kind) {
        ("batch", "Job") => Some(&JOB),
        ("batch", "CronJob") => Some(&CRON_JOB),
        _ => None,
    }
}

static JOB: Printer = Printer {
    columns: &[
        NAME,
        text("Status"),
        text("Completions"),
        text("Duration"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |o, now| {
        let (names, images) = containers(o, "/spec/template/spec/containers");
        vec![
            meta::name(o).into(),
            job_status(o).into(),
            completions(o).into(),
            job_duration(o, now).into(),
            age(o, now).into(),
            names.into(),
            images.into(),
            selector(o.pointer("/spec/selector")).into(),
        ]
    },
};

fn job_status(job: &Value) -> &'static str {
    let has = |kind: &str| {
        list_at(job, "/status/conditions").iter().any(|c| str_at(c, "/type") == kind && str_at(c, "/status") == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if meta::deletion_timestamp(job).is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let succeeded = int_at(job, "/status/succeeded");
    let number = |pointer: &str| job.pointer(pointer).and_then(Value::as_i64);
    match (number("/spec/completions"), number("/spec/parallelism").unwrap_or(0)) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn job_duration(job: &Value, now: Timestamp) -> String {
    let Some(start) = clock::parse_rfc3339(str_at(job, "/status/startTime")) else { return String::new() };
    let end = clock::parse_rfc3339(str_at(job, "/status/completionTime")).unwrap_or(now);
    human_duration(whole_seconds(start, end))
}

static CRON_JOB: Printer = Printer {
    columns: &[
        NAME,
        text("Schedule"),
        text("Timezone"),
        text("Suspend"),
        number("Active"),
        text("Last Schedule"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |o, now| {
        let (names, images) = containers(o, "/spec/jobTemplate/spec/template/spec/containers");
        let last = match str_at(o, "/status/lastScheduleTime") {
            "" => "<none>".into(),
            time => since(time, now),
        };
        let suspend = o.pointer("/spec/suspend").and_then(Value::as_bool).unwrap_or(false);
        vec![
            meta::name(o).into(),
            str_at(o, "/spec/schedule").into(),
            or_none(str_at(o, "/spec/timeZone")).into(),
            (if suspend { "True" } else { "False" }).into(),
            list_at(o, "/status/active").len().into(),
            last.into(),
            age(o, now).into(),
            names.into(),
            images.into(),
            selector(o.pointer("/spec/jobTemplate/spec/selector")).into(),
        ]
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;

    #[test]
    fn a_job() {
        let now = clock::parse_rfc3339("2026-01-01T00:10:00Z").unwrap();
        let job = json!({"metadata": {"name": "j"}, "spec": {"completions": 3}, "status": {"succeeded": 3, "startTime": "2026-01-01T00:00:00Z",
            "completionTime": "2026-01-01T00:00:30Z", "conditions": [{"type": "Complete", "status": "True"}]}});
        assert_eq!(JOB.row(&job, now)[..4], ["j", "Complete", "3/3", "30s"]);
        assert_eq!(JOB.row(&json!({"spec": {"parallelism": 4}}), now)[1..4], ["Running", "0/1 of 4", ""]);
    }
}
