//! Priority and fairness: which requests wait for which (flowcontrol/v1 `defaults.go`, `validation.go`).

use super::fields::{items, object_mut, one_of, require, set_default, text};
use super::strategy::{Strategy, Traits};
use coracle_api::Cause;
use coracle_api::status::FieldPath;
use serde_json::{Value, json};

/// How early a schema is tried when it does not say, and the last place.
const PRECEDENCE: i64 = 1000;
const PRECEDENCE_MAX: i64 = 10_000;

const GENERATION: Traits = Traits { generation: true, ..Traits::DEFAULT };

#[derive(Debug)]
pub struct FlowSchemaStrategy;

impl Strategy for FlowSchemaStrategy {
    fn traits(&self) -> Traits {
        GENERATION
    }

    fn default(&self, object: &mut Value) {
        set_default(object_mut(object, "spec"), "matchingPrecedence", PRECEDENCE);
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let precedence = spec.get("matchingPrecedence").and_then(Value::as_i64).unwrap_or(0);
        if !(1..=PRECEDENCE_MAX).contains(&precedence) {
            let why = if precedence < 1 { "must be a positive value" } else { "must not be greater than 10000" };
            causes.push(Cause::invalid(&path.child("matchingPrecedence"), precedence, why));
        }
        one_of(
            &spec["distinguisherMethod"],
            "type",
            &["ByNamespace", "ByUser"],
            &path.child("distinguisherMethod"),
            causes,
        );
        require(&spec["priorityLevelConfiguration"], "name", &path.child("priorityLevelConfiguration"), causes);
        for (nth, rule) in items(spec, "rules").iter().enumerate() {
            let path = path.child("rules").index(nth);
            if items(rule, "subjects").is_empty() {
                causes.push(Cause::required(&path.child("subjects"), "subjects must contain at least one value"));
            }
            for (at, subject) in items(rule, "subjects").iter().enumerate() {
                one_of(
                    subject,
                    "kind",
                    &["Group", "ServiceAccount", "User"],
                    &path.child("subjects").index(at),
                    causes,
                );
            }
            if items(rule, "resourceRules").is_empty() && items(rule, "nonResourceRules").is_empty() {
                causes.push(Cause::required(
                    &path,
                    "at least one of resourceRules and nonResourceRules has to be non-empty",
                ));
            }
        }
    }
}

#[derive(Debug)]
pub struct LevelStrategy;

impl Strategy for LevelStrategy {
    fn traits(&self) -> Traits {
        GENERATION
    }

    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        match text(spec, "type") {
            "Exempt" => {
                let exempt = object_mut(spec, "exempt");
                set_default(exempt, "nominalConcurrencyShares", 0);
                set_default(exempt, "lendablePercent", 0);
            }
            "Limited" => {
                let limited = object_mut(spec, "limited");
                set_default(limited, "nominalConcurrencyShares", 30);
                set_default(limited, "lendablePercent", 0);
                set_default(limited, "limitResponse", json!({"type": "Reject"}));
                let response = object_mut(limited, "limitResponse");
                if text(response, "type") == "Queue" {
                    let queuing = object_mut(response, "queuing");
                    set_default(queuing, "queues", 64);
                    set_default(queuing, "handSize", 8);
                    set_default(queuing, "queueLengthLimit", 50);
                }
            }
            _ => {}
        }
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let is_exempt = coracle_api::meta::name(object) == "exempt";
        let kind = text(spec, "type");
        match kind {
            "Exempt" | "Limited" if is_exempt != (kind == "Exempt") => {
                let why = "type must be 'Exempt' if and only if name is 'exempt'";
                causes.push(Cause::invalid(&path.child("type"), kind, why));
            }
            "Exempt" if spec.get("limited").is_some() => {
                causes.push(Cause::forbidden(&path.child("limited"), "must be nil if the type is not Limited"));
            }
            "Exempt" | "Limited" => {}
            other => causes.push(Cause::not_supported(&path.child("type"), other, &["Exempt", "Limited"])),
        }
        let limited = &spec["limited"];
        let path = path.child("limited");
        let percent = limited.get("lendablePercent").and_then(Value::as_i64).unwrap_or(0);
        if !(0..=100).contains(&percent) {
            let why = "must be between 0 and 100, inclusive";
            causes.push(Cause::invalid(&path.child("lendablePercent"), percent, why));
        }
        one_of(&limited["limitResponse"], "type", &["Queue", "Reject"], &path.child("limitResponse"), causes);
    }
}
