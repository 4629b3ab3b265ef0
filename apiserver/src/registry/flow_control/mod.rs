//! Priority and fairness: which requests wait for which (flowcontrol/v1 `defaults.go`, `validation.go`).

mod mandatory;

use super::fields::{below_mut, field_mut, invalid_all, items, object_mut, set, set_default, text};
use super::strategy::{Strategy, ThroughStatus, Traits, WriteContext};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use std::collections::HashSet;

/// How early a schema is tried when it does not say, and the last place.
const PRECEDENCE: i64 = 1000;
const PRECEDENCE_MAX: i64 = 10_000;

const GENERATION: Traits = Traits { generation: true, through_status: ThroughStatus::Nothing, ..Traits::DEFAULT };

#[derive(Debug)]
pub struct FlowSchemaStrategy;

impl Strategy for FlowSchemaStrategy {
    fn traits(&self) -> Traits {
        GENERATION
    }

    fn default(&self, object: &mut Value) {
        unless_zero(object_mut(object, "spec"), "matchingPrecedence", PRECEDENCE);
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let precedence = spec.get("matchingPrecedence").and_then(Value::as_i64).unwrap_or(0);
        if !(1..=PRECEDENCE_MAX).contains(&precedence) {
            let why = if precedence < 1 { "must be a positive value" } else { "must not be greater than 10000" };
            causes.push(Cause::invalid(&path.child("matchingPrecedence"), precedence, why));
        }
        if precedence == 1 && meta::name(object) != "exempt" {
            let why = "only the schema named 'exempt' may have matchingPrecedence 1";
            causes.push(Cause::invalid(&path.child("matchingPrecedence"), 1, why));
        }
        let method = text(&spec["distinguisherMethod"], "type");
        if spec["distinguisherMethod"].is_object() && !matches!(method, "ByNamespace" | "ByUser") {
            let path = path.child("distinguisherMethod").child("type");
            causes.push(Cause::not_supported(&path, json!({"Type": method}), &["ByNamespace", "ByUser"]));
        }
        let (level, at) =
            (text(&spec["priorityLevelConfiguration"], "name"), path.child("priorityLevelConfiguration").child("name"));
        match level {
            "" => causes.push(Cause::required(&at, "must reference a priority level")),
            level => invalid_all(&at, level, validation::dns1123_subdomain(level), causes),
        }
        for (nth, rule) in items(spec, "rules").iter().enumerate() {
            check_rule(rule, &path.child("rules").index(nth), causes);
        }
        mandatory::schema(object, causes);
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _context: &WriteContext) {
        keep_metadata(object, old);
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        conditions(&object["status"], causes);
    }
}

/// Upstream's number is no pointer: none is as good as zero.
fn unless_zero(value: &mut Value, name: &str, default: i64) {
    if value.get(name).is_none_or(|number| number.is_null() || *number == 0) {
        set(value, name, default);
    }
}

/// Status updates touch nothing of the metadata (apimachinery `ResetObjectMetaForStatus`).
fn keep_metadata(object: &mut Value, old: &Value) {
    for field in ["annotations", "finalizers"] {
        meta::set(object, field, old["metadata"].get(field).cloned().unwrap_or(Value::Null));
    }
}

fn conditions(status: &Value, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for (nth, condition) in items(status, "conditions").iter().enumerate() {
        let path = FieldPath::new("status").child("conditions").index(nth).child("type");
        let kind = text(condition, "type");
        if !seen.insert(kind) {
            causes.push(Cause::duplicate(&path, kind));
        }
        if kind.is_empty() {
            causes.push(Cause::required(&path, "must not be empty"));
        }
    }
}

fn check_rule(rule: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (subjects, resource, other) =
        (items(rule, "subjects"), items(rule, "resourceRules"), items(rule, "nonResourceRules"));
    if subjects.is_empty() {
        causes.push(Cause::required(&path.child("subjects"), "subjects must contain at least one value"));
    }
    for (nth, subject) in subjects.iter().enumerate() {
        check_subject(subject, &path.child("subjects").index(nth), causes);
    }
    if resource.is_empty() && other.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        causes.push(Cause::required(path, why));
    }
    for (nth, rule) in resource.iter().enumerate() {
        let path = path.child("resourceRules").index(nth);
        verbs(rule, &path, causes);
        list(rule, "apiGroups", "resource rules must supply at least one api group", "api groups", &path, causes);
        list(rule, "resources", "resource rules must supply at least one resource", "resources", &path, causes);
        namespaces(rule, &path, causes);
    }
    for (nth, rule) in other.iter().enumerate() {
        let path = path.child("nonResourceRules").index(nth);
        verbs(rule, &path, causes);
        let none = "nonResourceURLs must contain at least one value";
        if list(rule, "nonResourceURLs", none, "non-resource URLs", &path, causes) {
            continue;
        }
        for (at, url) in items(rule, "nonResourceURLs").iter().filter_map(Value::as_str).enumerate() {
            if let Some(why) = url_path(url) {
                causes.push(Cause::invalid(&path.child("nonResourceURLs").index(at), url, why));
            }
        }
    }
}

fn check_subject(subject: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const KINDS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = text(subject, "kind");
    let Some((_, field)) = KINDS.into_iter().find(|(name, _)| *name == kind) else {
        causes.push(Cause::not_supported(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"]));
        return;
    };
    let (one, at) = (&subject[field], path.child(field));
    if one.is_null() {
        causes.push(Cause::required(&at, &format!("{field} is required when subject kind is '{kind}'")));
    } else {
        let (name, namespace) = (text(one, "name"), text(one, "namespace"));
        if name.is_empty() {
            causes.push(Cause::required(&at.child("name"), ""));
        } else if kind == "ServiceAccount" && name != "*" {
            invalid_all(&at.child("name"), name, validation::dns1123_subdomain(name), causes);
        }
        match namespace {
            _ if kind != "ServiceAccount" => {}
            "" => causes.push(Cause::required(&at.child("namespace"), "must specify namespace for service account")),
            _ => invalid_all(&at.child("namespace"), namespace, validation::dns1123_label(namespace), causes),
        }
    }
    for (kind, other) in KINDS.into_iter().filter(|(_, other)| *other != field && !subject[*other].is_null()) {
        let why = format!("{other} is forbidden when subject kind is not '{kind}'");
        causes.push(Cause::forbidden(&path.child(other), why));
    }
}

/// A list that must be there, and that a star says all of. True when it has one.
fn list(rule: &Value, field: &str, none: &str, what: &str, path: &FieldPath, causes: &mut Vec<Cause>) -> bool {
    let (given, path) = (items(rule, field), path.child(field));
    let star = given.iter().any(|item| item == "*");
    if given.is_empty() {
        causes.push(Cause::required(&path, none));
    } else if star && given.len() > 1 {
        let why = format!("if '*' is present, must not specify other {what}");
        causes.push(Cause::invalid(&path, given.to_vec(), why));
    }
    star
}

fn verbs(rule: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const KNOWN: [&str; 9] =
        ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
    let star = list(rule, "verbs", "verbs must contain at least one value", "verbs", path, causes);
    let given = items(rule, "verbs");
    if !star && !given.iter().all(|verb| verb.as_str().is_some_and(|verb| KNOWN.contains(&verb))) {
        causes.push(Cause::not_supported(&path.child("verbs"), given.to_vec(), &KNOWN));
    }
}

fn namespaces(rule: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let given = items(rule, "namespaces");
    if given.is_empty() {
        if rule.get("clusterScope").and_then(Value::as_bool) != Some(true) {
            let why = "resource rules that are not cluster scoped must supply at least one namespace";
            causes.push(Cause::required(&path.child("namespaces"), why));
        }
    } else if !list(rule, "namespaces", "", "namespaces", path, causes) {
        for (nth, name) in given.iter().filter_map(Value::as_str).enumerate() {
            for why in validation::dns1123_label(name) {
                let why = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
                causes.push(Cause::invalid(&path.child("namespaces").index(nth), name, why));
            }
        }
    }
}

/// What is wrong with a path that no resource has (`ValidateNonResourceURLPath`).
fn url_path(path: &str) -> Option<&'static str> {
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if path.matches('*').count() > usize::from(path.ends_with("/*")) => {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
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
                let Some(limited) = field_mut(spec, "limited").filter(|limited| limited.is_object()) else { return };
                set_default(limited, "nominalConcurrencyShares", 30);
                set_default(limited, "lendablePercent", 0);
                if let Some(queuing) = below_mut(limited, &["limitResponse", "queuing"]).filter(|it| it.is_object()) {
                    for (field, default) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                        unless_zero(queuing, field, default);
                    }
                }
            }
            _ => {}
        }
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let is_exempt = meta::name(object) == "exempt";
        let kind = text(spec, "type");
        if is_exempt != (kind == "Exempt") {
            let why = "type must be 'Exempt' if and only if name is 'exempt'";
            causes.push(Cause::invalid(&path.child("type"), kind, why));
        }
        match kind {
            "Exempt" => {
                if has(spec, "limited") {
                    causes.push(Cause::forbidden(&path.child("limited"), "must be nil if the type is not Limited"));
                }
                check_exempt(&spec["exempt"], &path.child("exempt"), causes);
            }
            "Limited" => {
                if has(spec, "exempt") {
                    causes.push(Cause::forbidden(&path.child("exempt"), "must be nil if the type is Limited"));
                }
                if has(spec, "limited") {
                    check_limited(&spec["limited"], &path.child("limited"), causes);
                } else {
                    causes.push(Cause::required(&path.child("limited"), "must not be empty when type is Limited"));
                }
            }
            other => causes.push(Cause::not_supported(&path.child("type"), other, &["Exempt", "Limited"])),
        }
        mandatory::level(object, causes);
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _context: &WriteContext) {
        keep_metadata(object, old);
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        conditions(&object["status"], causes);
    }
}

fn has(value: &Value, field: &str) -> bool {
    value.get(field).is_some_and(|value| !value.is_null())
}

fn check_exempt(exempt: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    check_shares(exempt, path, causes);
    check_lendable(exempt, path, causes);
}

fn check_shares(level: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(shares) = level["nominalConcurrencyShares"].as_i64().filter(|shares| *shares < 0) {
        let why = "must be a non-negative integer";
        causes.push(Cause::invalid(&path.child("nominalConcurrencyShares"), shares, why));
    }
}

fn check_lendable(level: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(percent) = level["lendablePercent"].as_i64().filter(|percent| !(0..=100).contains(percent)) {
        let why = "must be between 0 and 100, inclusive";
        causes.push(Cause::invalid(&path.child("lendablePercent"), percent, why));
    }
}

fn check_limited(limited: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    check_shares(limited, path, causes);
    let (response, at) = (&limited["limitResponse"], path.child("limitResponse"));
    match (text(response, "type"), has(response, "queuing")) {
        ("Reject", false) => {}
        // Upstream's messages speak of the wrong type.
        ("Reject", true) => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            causes.push(Cause::forbidden(&at.child("queuing"), why));
        }
        ("Queue", false) => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            causes.push(Cause::required(&at.child("queuing"), why));
        }
        ("Queue", true) => check_queuing(&response["queuing"], &at.child("queuing"), causes),
        (other, _) => causes.push(Cause::not_supported(&at.child("type"), other, &["Queue", "Reject"])),
    }
    check_lendable(limited, path, causes);
    if let Some(percent) = limited["borrowingLimitPercent"].as_i64().filter(|percent| *percent < 0) {
        let why = "if specified, must be a non-negative integer";
        causes.push(Cause::invalid(&path.child("borrowingLimitPercent"), percent, why));
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
            told(i64::from(i32::MAX), -1, -1),
            [
                format!("{path}.queueLengthLimit: Invalid value: -1: must be positive"),
                format!("{path}.queues: Invalid value: 2147483647: must not be greater than 10000000"),
                format!("{path}.handSize: Invalid value: -1: must be positive"),
            ]
        );
        assert_eq!(
            told(4, 5, 1),
            [format!("{path}.handSize: Invalid value: 5: should not be greater than queues (4)")]
        );
        let bits = "required entropy bits of deckSize 1024 and handSize 7 should not be greater than 60";
        assert_eq!(told(1024, 7, 1), [format!("{path}.handSize: Invalid value: 7: {bits}")]);
    }

    #[test]
    fn a_level_lends_and_borrows_parts_of_its_shares() {
        let told = |name: &str, spec: Value| {
            let mut causes = Vec::new();
            LevelStrategy.validate(&json!({"metadata": {"name": name}, "spec": spec}), &mut causes);
            causes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let limited = |lent: i64, borrowed: i64| {
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "lendablePercent": lent,
                "borrowingLimitPercent": borrowed, "limitResponse": {"type": "Reject"}}})
        };
        assert_eq!(told("a", limited(100, 200)), [""; 0]);
        assert_eq!(
            told("a", limited(101, -1)),
            [
                "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
            ]
        );
        assert_eq!(
            told("a", json!({"type": "Exempt", "limited": {}, "exempt": {"lendablePercent": -1}})),
            [
                "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'",
                "spec.limited: Forbidden: must be nil if the type is not Limited",
                "spec.exempt.lendablePercent: Invalid value: -1: must be between 0 and 100, inclusive",
            ]
        );
        let unknown = told("exempt", json!({"type": "X"}));
        assert_eq!(
            unknown[..2],
            [
                "spec.type: Invalid value: \"X\": type must be 'Exempt' if and only if name is 'exempt'",
                "spec.type: Unsupported value: \"X\": supported values: \"Exempt\", \"Limited\"",
            ]
        );
    }
}
