//! What a job's status can say, and what it cannot say after what it said before (batch `ValidateJobStatusUpdate`).
//!
//! Whoever runs jobs in the controller's place is held to what its clients expect. Most rules look only at what changed: a
//! status that broke one before can still be written, and one that a change of the spec made wrong can be mended
//! (registry/batch/job `getStatusValidationOptions`).

use super::{condition, condition_is, has, indexed, indexes, internal, number, on};
use crate::registry::apps::workload;
use crate::registry::fields::{alike, items, same, text};
use coracle_api::Cause;
use coracle_api::clock::{parse_rfc3339, rfc3339};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use jiff::Timestamp;
use std::collections::HashSet;

/// A job and its status, and what the status was before.
struct Change<'a> {
    job: &'a Value,
    status: &'a Value,
    before: &'a Value,
    is: Conditions,
    was: Conditions,
}

/// What counts of the conditions.
#[derive(Clone, Copy)]
struct Conditions {
    complete: bool,
    failed: bool,
    failing: bool,
    succeeding: bool,
}

impl Conditions {
    fn of(job: &Value) -> Self {
        Self {
            complete: condition(job, "Complete"),
            failed: condition(job, "Failed"),
            failing: condition(job, "FailureTarget"),
            succeeding: condition(job, "SuccessCriteriaMet"),
        }
    }

    fn finished(self) -> bool {
        self.complete || self.failed
    }
}

impl Change<'_> {
    /// A field is another; a number or text that is zero is as good as absent.
    fn of(&self, field: &str) -> bool {
        let zero = |status: &Value| match status.get(field) {
            Some(Value::String(text)) => text.is_empty(),
            Some(value) => value.is_null() || value.as_i64() == Some(0),
            None => true,
        };
        !(same(self.status, self.before, field) || zero(self.status) && zero(self.before))
    }

    /// A field is another, and zero is not the same as absent: a pointer upstream.
    fn of_pointer(&self, field: &str) -> bool {
        !same(self.status, self.before, field)
    }

    fn of_time(&self, field: &str) -> bool {
        time(self.status, field) != time(self.before, field)
    }

    fn finished(&self) -> bool {
        self.is.finished() != self.was.finished()
    }

    fn complete(&self) -> bool {
        self.is.complete != self.was.complete
    }
}

/// A time. It is kept in whole seconds.
fn time(status: &Value, field: &str) -> Option<Timestamp> {
    let time = parse_rfc3339(text(status, field))?;
    Timestamp::from_second(time.as_second()).ok()
}

fn count(status: &Value, field: &str) -> i64 {
    number(status, field).unwrap_or(0)
}

fn at(field: &str) -> FieldPath {
    FieldPath::new("status").child(field)
}

fn refuse(why: &str, causes: &mut Vec<Cause>) {
    causes.push(Cause::invalid_omitted(&at("conditions"), why));
}

pub fn validate(job: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let (status, before) = (&job["status"], &old["status"]);
    let change = Change { job, status, before, is: Conditions::of(job), was: Conditions::of(old) };
    workload::counts(status, &["active", "succeeded", "failed", "ready", "terminating"], &[], causes);
    uncounted(&status["uncountedTerminatedPods"], causes);
    completion(&change, causes);
    finished(&change, causes);
    of_indexes(&change, causes);
    running(&change, causes);
    criteria(&change, causes);
    backwards(&change, old, causes);
}

/// Pods that ended and are not counted yet are each named once.
fn uncounted(pods: &Value, causes: &mut Vec<Cause>) {
    let (path, mut seen) = (at("uncountedTerminatedPods"), HashSet::new());
    for list in ["succeeded", "failed"] {
        for (nth, uid) in items(pods, list).iter().enumerate() {
            let (path, uid) = (path.child(list).index(nth), uid.as_str().unwrap_or_default());
            if uid.is_empty() {
                causes.push(Cause::invalid(&path, uid, "must not be empty"));
            } else if !seen.insert(uid) {
                causes.push(Cause::duplicate(&path, uid));
            }
        }
    }
}

/// A job is complete or failed, and says since when it is complete.
fn completion(change: &Change, causes: &mut Vec<Cause>) {
    let (is, was) = (change.is, change.was);
    if is.complete && is.failed && (change.complete() || is.failed != was.failed) {
        refuse("cannot set Complete=True and Failed=true conditions", causes);
    }
    if is.complete && is.failing && (change.complete() || is.failing != was.failing) {
        refuse("cannot set Complete=True and FailureTarget=true conditions", causes);
    }
    let path = at("completionTime");
    let (start, end) = (time(change.status, "startTime"), time(change.status, "completionTime"));
    let ended = change.of_time("completionTime");
    if change.complete() || ended {
        match end {
            Some(end) if !is.complete => {
                let why = "cannot set completionTime when there is no Complete=True condition";
                causes.push(Cause::invalid(&path, rfc3339(end), why));
            }
            None if is.complete => {
                causes.push(Cause::required(&path, "completionTime is required for Complete jobs"));
            }
            _ => {}
        }
    }
    if let (Some(start), Some(end)) = (start, end)
        && end < start
        && (ended || change.of_time("startTime"))
    {
        causes.push(Cause::invalid(&path, rfc3339(end), "must be equal to or after `startTime`"));
    }
    if is.failed && !is.failing && (is.failed != was.failed || change.of_pointer("failedIndexes")) {
        refuse("cannot set Failed=True condition without the FailureTarget=true condition", causes);
    }
    if is.complete && !is.succeeding && (change.complete() || is.succeeding != was.succeeding) {
        refuse("cannot set Complete=True condition without the SuccessCriteriaMet=true condition", causes);
    }
}

/// A job that is over has started, has no pods and counted them all.
fn finished(change: &Change, causes: &mut Vec<Cause>) {
    if !change.is.finished() {
        return;
    }
    let (status, spec) = (change.status, &change.job["spec"]);
    let active = count(status, "active");
    if active > 0 && (change.finished() || change.of("active")) {
        causes.push(Cause::invalid(&at("active"), active, "active>0 is invalid for finished job"));
    }
    // One that is suspended and wants no pods never starts, and is done.
    let empty = on(spec, "suspend") && number(spec, "completions") == Some(0);
    if time(status, "startTime").is_none() && !empty && (change.finished() || change.of_time("startTime")) {
        causes.push(Cause::required(&at("startTime"), "startTime is required for finished job"));
    }
    let field = "uncountedTerminatedPods";
    let (pods, before) = (&status[field], &change.before[field]);
    let some = ["succeeded", "failed"].iter().any(|list| !items(pods, list).is_empty());
    if some && (change.finished() || !alike(pods, before)) {
        causes.push(Cause::invalid(&at(field), internal::uncounted(pods), "must be empty for finished job"));
    }
}

/// Indexes that are done and those that failed can be read, belong to the job, and are not the same ones.
fn of_indexes(change: &Change, causes: &mut Vec<Cause>) {
    let (status, spec) = (change.status, &change.job["spec"]);
    let (completions, per_index) = (number(spec, "completions"), has(spec, "backoffLimitPerIndex"));
    let (completed, failed) = (text(status, "completedIndexes"), text(status, "failedIndexes"));
    let (any_failed, more) = (has(status, "failedIndexes"), change.of_pointer("failedIndexes"));
    let (completed_path, failed_path) = (at("completedIndexes"), at("failedIndexes"));
    if change.of("completedIndexes")
        && let Some(Err(why)) = completions.map(|completions| indexes::count(completed, completions))
    {
        let why = format!("error parsing completedIndexes: {why}");
        causes.push(Cause::invalid(&completed_path, completed, why));
    }
    if more
        && per_index
        && let Some(Err(why)) = completions.map(|completions| indexes::count(failed, completions))
    {
        causes.push(Cause::invalid(&failed_path, failed, format!("error parsing failedIndexes: {why}")));
    }
    if change.of("completedIndexes") && !completed.is_empty() && !indexed(spec) {
        let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
        causes.push(Cause::invalid(&completed_path, completed, why));
    }
    if more && any_failed && !per_index {
        let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        causes.push(Cause::invalid(&failed_path, failed, why));
    }
    if (more || change.of("completedIndexes"))
        && let Some(index) = completions.and_then(|completions| indexes::overlap(completed, failed, completions))
    {
        let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
        causes.push(Cause::invalid(&failed_path, failed, why));
    }
}

/// Pods that end or are ready.
fn running(change: &Change, causes: &mut Vec<Cause>) {
    let status = change.status;
    if let Some(ending) = number(status, "terminating").filter(|ending| *ending > 0)
        && change.is.finished()
        && (change.finished() || change.of_pointer("terminating"))
    {
        causes.push(Cause::invalid(&at("terminating"), ending, "terminating>0 is invalid for finished job"));
    }
    if let Some(ready) = number(status, "ready").filter(|ready| *ready > count(status, "active"))
        && (change.of_pointer("ready") || change.of("active"))
    {
        causes.push(Cause::invalid(&at("ready"), ready, "cannot set more ready pods than active"));
    }
}

/// A job that has what it was to reach does not fail.
fn criteria(change: &Change, causes: &mut Vec<Cause>) {
    let is = change.is;
    if is.succeeding && is.failed {
        refuse("cannot set SuccessCriteriaMet=True and Failed=true conditions", causes);
    }
    if is.succeeding && is.failing {
        refuse("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions", causes);
    }
    if has(&change.job["spec"], "successPolicy") && !is.succeeding && is.complete {
        refuse("cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True", causes);
    }
}

/// What is over stays over, and what was counted stays counted.
fn backwards(change: &Change, old: &Value, causes: &mut Vec<Cause>) {
    let (is, was, spec) = (change.is, change.was, &change.job["spec"]);
    for (kind, was, is) in [
        ("Failed", was.failed, is.failed),
        ("Complete", was.complete, is.complete),
        ("FailureTarget", was.failing, is.failing),
    ] {
        if was && !is {
            refuse(&format!("cannot disable the terminal {kind}=True condition"), causes);
        }
    }
    // An indexed job that was made narrower has fewer pods that count.
    let elastic = indexed(spec) && number(spec, "completions") == number(spec, "parallelism");
    for (field, free) in [("failed", false), ("succeeded", elastic)] {
        let now = count(change.status, field);
        if !free && now < count(change.before, field) {
            causes.push(Cause::invalid(&at(field), now, format!("cannot decrease the {field} counter")));
        }
    }
    if let (Some(now), Some(before)) = (time(change.status, "completionTime"), time(change.before, "completionTime"))
        && now != before
    {
        causes.push(Cause::immutable(&at("completionTime"), rfc3339(now)));
    }
    // One that goes on starts anew (kubernetes #134521).
    let resumed = condition(old, "Suspended") && condition_is(change.job, "Suspended", "False");
    let started = time(change.before, "startTime").is_some();
    if started && change.of_time("startTime") && !resumed && !on(spec, "suspend") {
        causes.push(Cause::required(&at("startTime"), "startTime cannot be removed for unsuspended job"));
    }
    if was.succeeding && !is.succeeding {
        refuse("cannot disable the SuccessCriteriaMet=True condition", causes);
    }
    if was.complete && !was.succeeding && is.succeeding {
        refuse("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions", causes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    const START: &str = "2026-01-01T00:00:00Z";
    const END: &str = "2026-01-01T00:01:00Z";

    fn changed(spec: Value, before: Value, now: Value) -> Vec<String> {
        let mut causes = Vec::new();
        let of = |status: Value| json!({"spec": spec, "status": status});
        validate(&of(now), &of(before), &mut causes);
        causes
            .iter()
            .map(|cause| cause.to_string().replace("Invalid value", "I").replace("Required value", "R"))
            .collect()
    }

    fn told(now: Value) -> Vec<String> {
        changed(json!({}), json!({}), now)
    }

    /// A status with these conditions that are true.
    fn with(conditions: &[&str], mut status: Value) -> Value {
        let conditions: Vec<Value> = conditions.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        status["conditions"] = conditions.into();
        status
    }

    fn complete() -> Value {
        with(&["SuccessCriteriaMet", "Complete"], json!({"startTime": START, "completionTime": END, "succeeded": 1}))
    }

    fn failed() -> Value {
        with(&["FailureTarget", "Failed"], json!({"startTime": START, "failed": 1}))
    }

    #[test]
    fn jobs_run_and_end() {
        let running = json!({"startTime": START, "active": 2, "ready": 1, "terminating": 0,
            "uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["b"]}});
        assert!(told(running.clone()).is_empty());
        for ended in [complete(), failed()] {
            assert!(changed(json!({}), running.clone(), ended.clone()).is_empty());
            assert!(changed(json!({}), ended.clone(), ended).is_empty());
        }
    }

    #[test]
    fn counts_are_not_negative_and_pods_are_named_once() {
        assert_eq!(
            told(json!({"active": -1, "uncountedTerminatedPods": {"succeeded": ["a", ""], "failed": ["a", "b", "b"]}})),
            [
                "status.active: I: -1: must be greater than or equal to 0",
                "status.uncountedTerminatedPods.succeeded[1]: I: \"\": must not be empty",
                "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
                "status.uncountedTerminatedPods.failed[2]: Duplicate value: \"b\"",
            ]
        );
    }

    #[test]
    fn a_job_does_not_end_in_two_ways() {
        let time = json!({"startTime": START, "completionTime": END});
        assert_eq!(
            told(with(&["Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"], time)),
            [
                "status.conditions: I: cannot set Complete=True and Failed=true conditions",
                "status.conditions: I: cannot set Complete=True and FailureTarget=true conditions",
                "status.conditions: I: cannot set SuccessCriteriaMet=True and Failed=true conditions",
                "status.conditions: I: cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
            ]
        );
        assert_eq!(
            told(with(&["Complete", "Failed"], json!({}))),
            [
                "status.conditions: I: cannot set Complete=True and Failed=true conditions",
                "status.completionTime: R: completionTime is required for Complete jobs",
                "status.conditions: I: cannot set Failed=True condition without the FailureTarget=true condition",
                "status.conditions: I: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                "status.startTime: R: startTime is required for finished job",
            ]
        );
    }

    #[test]
    fn only_complete_jobs_say_since_when() {
        assert_eq!(
            told(json!({"startTime": START, "completionTime": END})),
            [format!(
                "status.completionTime: I: {END:?}: cannot set completionTime when there is no Complete=True condition"
            )]
        );
        let mut early = complete();
        (early["startTime"], early["completionTime"]) = (END.into(), START.into());
        assert_eq!(
            told(early),
            [format!("status.completionTime: I: {START:?}: must be equal to or after `startTime`")]
        );
        let mut later = complete();
        later["completionTime"] = "2026-01-01T00:02:00Z".into();
        assert_eq!(
            changed(json!({}), complete(), later),
            ["status.completionTime: I: \"2026-01-01T00:02:00Z\": field is immutable"]
        );
    }

    #[test]
    fn a_job_that_is_over_has_no_pods() {
        let mut ended = complete();
        (ended["active"], ended["terminating"], ended["startTime"]) = (2.into(), 1.into(), Value::Null);
        ended["uncountedTerminatedPods"] = json!({"succeeded": ["a"]});
        assert_eq!(
            told(ended.clone()),
            [
                "status.active: I: 2: active>0 is invalid for finished job",
                "status.startTime: R: startTime is required for finished job",
                "status.uncountedTerminatedPods: I: {\"Succeeded\":[\"a\"],\"Failed\":null}: must be empty for finished job",
                "status.terminating: I: 1: terminating>0 is invalid for finished job",
            ]
        );
        let mut later = ended.clone();
        later["failed"] = 1.into();
        assert!(changed(json!({}), ended.clone(), later).is_empty(), "what was wrong before stands in no one's way");
        let mut more = ended.clone();
        more["active"] = 3.into();
        assert_eq!(changed(json!({}), ended, more), ["status.active: I: 3: active>0 is invalid for finished job"]);
        let mut none = complete();
        none["startTime"] = Value::Null;
        assert!(changed(json!({"suspend": true, "completions": 0}), json!({}), none).is_empty());
    }

    #[test]
    fn indexes_are_those_of_the_job() {
        let spec = json!({"completionMode": "Indexed", "completions": 5, "backoffLimitPerIndex": 1});
        let of = |completed: &str, failed: Value| {
            changed(spec.clone(), json!({}), json!({"completedIndexes": completed, "failedIndexes": failed}))
        };
        assert!(of("0-2", "3,4".into()).is_empty());
        assert!(of("0-2", Value::Null).is_empty());
        assert_eq!(
            of("0-5", "x".into()),
            [
                "status.completedIndexes: I: \"0-5\": error parsing completedIndexes: too large index: \"5\"",
                "status.failedIndexes: I: \"x\": error parsing failedIndexes: cannot convert string to integer for index: \"x\"",
            ]
        );
        assert_eq!(
            of("0-2", "2-3".into()),
            ["status.failedIndexes: I: \"2-3\": failedIndexes and completedIndexes overlap at index: 2"]
        );
        let wrong = json!({"completedIndexes": "0-5", "failedIndexes": "x"});
        assert!(changed(spec, wrong.clone(), wrong).is_empty(), "what did not change is not looked at");
        assert_eq!(
            changed(json!({"completions": 5}), json!({}), json!({"completedIndexes": "0", "failedIndexes": ""})),
            [
                "status.completedIndexes: I: \"0\": cannot set non-empty completedIndexes when non-indexed completion mode",
                "status.failedIndexes: I: \"\": cannot set non-null failedIndexes when backoffLimitPerIndex is null",
            ]
        );
    }

    #[test]
    fn no_more_pods_are_ready_than_there_are() {
        let many = json!({"active": 1, "ready": 2});
        assert_eq!(told(many.clone()), ["status.ready: I: 2: cannot set more ready pods than active"]);
        assert!(changed(json!({}), many.clone(), many).is_empty());
    }

    #[test]
    fn a_policy_of_success_is_met_first() {
        let spec = json!({"successPolicy": {"rules": [{"succeededCount": 1}]}});
        let met = with(&["Complete"], json!({"startTime": START, "completionTime": END}));
        let why = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        assert_eq!(changed(spec, met.clone(), met), [format!("status.conditions: I: {why}")]);
    }

    #[test]
    fn what_is_over_stays_over() {
        assert_eq!(
            changed(json!({}), failed(), json!({"startTime": START, "failed": 1})),
            [
                "status.conditions: I: cannot disable the terminal Failed=True condition",
                "status.conditions: I: cannot disable the terminal FailureTarget=True condition",
            ]
        );
        assert_eq!(
            changed(json!({}), complete(), json!({"startTime": START, "succeeded": 1})),
            [
                "status.conditions: I: cannot disable the terminal Complete=True condition",
                "status.conditions: I: cannot disable the SuccessCriteriaMet=True condition",
            ]
        );
        let old = with(&["Complete"], json!({"startTime": START, "completionTime": END, "succeeded": 1}));
        let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        assert_eq!(changed(json!({}), old, complete()), [format!("status.conditions: I: {why}")]);
    }

    #[test]
    fn what_was_counted_stays_counted() {
        let before = json!({"failed": 2, "succeeded": 2});
        let fewer = json!({"failed": 1, "succeeded": 1});
        let failed = "status.failed: I: 1: cannot decrease the failed counter";
        let succeeded = "status.succeeded: I: 1: cannot decrease the succeeded counter";
        assert_eq!(
            changed(json!({"completions": 3, "parallelism": 3}), before.clone(), fewer.clone()),
            [failed, succeeded]
        );
        let narrow = json!({"completionMode": "Indexed", "completions": 1, "parallelism": 1});
        assert_eq!(changed(narrow, before.clone(), fewer.clone()), [failed]);
        let wide = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 1});
        assert_eq!(changed(wide, before, fewer), [failed, succeeded]);
    }

    #[test]
    fn a_job_starts_anew_only_when_it_was_suspended() {
        let started = json!({"startTime": START});
        let why = "status.startTime: R: startTime cannot be removed for unsuspended job";
        for now in [json!({}), json!({"startTime": END})] {
            assert_eq!(changed(json!({}), started.clone(), now.clone()), [why]);
            assert!(changed(json!({"suspend": true}), started.clone(), now).is_empty());
        }
        assert!(changed(json!({}), json!({}), started.clone()).is_empty());
        let same = json!({"startTime": "2026-01-01T01:00:00+01:00"});
        assert!(changed(json!({}), started, same).is_empty(), "the same moment");
        let resumed = json!({"startTime": END, "conditions": [{"type": "Suspended", "status": "False"}]});
        assert!(changed(json!({}), with(&["Suspended"], json!({"startTime": START})), resumed).is_empty());
    }
}
