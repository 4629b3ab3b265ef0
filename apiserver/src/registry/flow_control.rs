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
        let (response, path) = (&limited["limitResponse"], path.child("limitResponse"));
        one_of(response, "type", &["Queue", "Reject"], &path, causes);
        if let Some(queuing) = response.get("queuing").filter(|queuing| !queuing.is_null()) {
            check_queuing(queuing, &path.child("queuing"), causes);
        }
    }
}

/// Queues that a level may have, at most, and the bits of a flow's hash that dealing a hand of them may use
/// (`pkg/apis/flowcontrol/validation`, apiserver `util/shufflesharding`).
const MOST_QUEUES: i64 = 10_000_000;
const HASH_BITS: f64 = 60.0;

fn check_queuing(queuing: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let number = |key: &str| queuing.get(key).and_then(Value::as_i64).unwrap_or(0);
    let (queues, hand, length) = (number("queues"), number("handSize"), number("queueLengthLimit"));
    let mut wrong = |key: &str, value: i64, why: &str| causes.push(Cause::invalid(&path.child(key), value, why));
    if length <= 0 {
        wrong("queueLengthLimit", length, "must be positive");
    }
    if queues <= 0 {
        wrong("queues", queues, "must be positive");
    } else if queues > MOST_QUEUES {
        wrong("queues", queues, &format!("must not be greater than {MOST_QUEUES}"));
    }
    #[allow(clippy::cast_precision_loss, reason = "both are small where it counts")]
    let bits = ((queues.max(1) as f64).log2() * hand as f64).ceil();
    if hand <= 0 {
        wrong("handSize", hand, "must be positive");
    } else if hand > queues {
        wrong("handSize", hand, &format!("should not be greater than queues ({queues})"));
    } else if bits > HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        wrong("handSize", hand, &why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_as_many_as_can_be_dealt() {
        let told = |queues: i64, hand: i64, length: i64| {
            let mut level = json!({"metadata": {"name": "a"}, "spec": {"type": "Limited", "limited": {"limitResponse":
                {"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}}}}});
            LevelStrategy.default(&mut level);
            let mut causes = Vec::new();
            LevelStrategy.validate(&level, &mut causes);
            causes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(64, 8, 50), [""; 0]);
        assert_eq!(told(10_000_000, 2, 1), [""; 0]);
        let path = "spec.limited.limitResponse.queuing";
        assert_eq!(
            told(i64::from(i32::MAX), 0, 0),
            [
                format!("{path}.queueLengthLimit: Invalid value: 0: must be positive"),
                format!("{path}.queues: Invalid value: 2147483647: must not be greater than 10000000"),
                format!("{path}.handSize: Invalid value: 0: must be positive"),
            ]
        );
        assert_eq!(
            told(4, 5, 1),
            [format!("{path}.handSize: Invalid value: 5: should not be greater than queues (4)")]
        );
        let bits = "required entropy bits of deckSize 1024 and handSize 7 should not be greater than 60";
        assert_eq!(told(1024, 7, 1), [format!("{path}.handSize: Invalid value: 7: {bits}")]);
    }
}
