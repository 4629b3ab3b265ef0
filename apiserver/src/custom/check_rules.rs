//! What is wrong with rules: how they are written, whether they compile, and what they can cost (apiextensions
//! `validation.go`).

use super::cel::{Compiled, Declared, Scope, Type};
use super::check_schema::Place;
use super::field_path;
use crate::registry::fields::{items, text};
use coracle_api::Cause;
use coracle_api::json::{Value, json};
use coracle_api::status::{CauseReason, FieldPath};

const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// The most that one rule may cost (apiserver `StaticEstimatedCostLimit`), and all rules of a schema together.
const RULE_MAX: u64 = 10_000_000;
const SCHEMA_MAX: u64 = 100_000_000;

/// So many of the most expensive rules are named where all together cost too much.
const NAMED: usize = 4;

/// What the rules of a schema can cost.
#[derive(Default)]
pub struct Costs {
    total: u64,
    each: Vec<(FieldPath, u64)>,
}

impl Costs {
    fn add(&mut self, path: &FieldPath, cost: u64) {
        self.total = self.total.saturating_add(cost);
        // Less than a hundredth of what all may cost does not count as expensive.
        if cost >= SCHEMA_MAX / 100 {
            self.each.push((path.clone(), cost));
            self.each.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.each.truncate(NAMED);
        }
    }

    /// Says that all together cost too much, where they do.
    pub fn tell(self, path: &FieldPath, causes: &mut Vec<Cause>) {
        if self.total <= SCHEMA_MAX {
            return;
        }
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        causes.extend(self.each.iter().map(|(path, _)| Cause::forbidden(path, why)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        causes.push(Cause::forbidden(path, exceeds(what, self.total, SCHEMA_MAX)));
    }
}

fn exceeds(what: &str, cost: u64, most: u64) -> String {
    let factor = shown(cost as f64 / most as f64);
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// A factor as upstream writes it.
fn shown(factor: f64) -> String {
    match factor {
        100.0.. => "more than 100x".to_owned(),
        // "by factor of 1.0x" would say nothing.
        ..1.5 => format!("{factor:.6}x"),
        _ => format!("{factor:.1}x"),
    }
}

/// How the rules of a schema are written.
pub fn form(schema: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    for (nth, rule) in items(schema, "x-kubernetes-validations").iter().enumerate() {
        let path = path.child("x-kubernetes-validations").index(nth);
        let (expression, message) = (text(rule, "rule").trim(), text(rule, "message"));
        let message_path = path.child("message");
        if expression.is_empty() {
            causes.push(Cause::required(&path.child("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            causes.push(Cause::invalid(&message_path, message, "must be non-empty if specified"));
        } else if breaks(message.trim()) {
            causes.push(Cause::invalid(&message_path, message, "must not contain line breaks"));
        } else if breaks(expression) && message.trim().is_empty() {
            causes.push(Cause::required(&message_path, "message must be specified if rule contains line breaks"));
        }
        let computed = text(rule, "messageExpression");
        if !computed.is_empty() && computed.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            causes.push(Cause::required(&path.child("messageExpression"), why));
        }
        if let Some(reason) = rule.get("reason").and_then(Value::as_str).filter(|reason| !REASONS.contains(reason)) {
            causes.push(Cause::not_supported(&path.child("reason"), reason, &REASONS));
        }
        let (field, path) = (text(rule, "fieldPath"), path.child("fieldPath"));
        if field.is_empty() {
            continue;
        }
        if field.trim().is_empty() {
            causes.push(Cause::invalid(&path, field, "must be non-empty if specified"));
        }
        if breaks(field) {
            causes.push(Cause::invalid(&path, field, "must not contain line breaks"));
        }
        if field_path::follow(field, schema, true).is_err() {
            causes.push(Cause::invalid(&path, field, "must be a valid path"));
        }
    }
}

/// Whether the rules of a schema compile, and what they cost. `apart`: the schema of whose values it is not known what each
/// was before.
pub fn rules(
    schema: &Value,
    place: Place<'_>,
    path: &FieldPath,
    apart: Option<&FieldPath>,
    costs: &mut Costs,
    causes: &mut Vec<Cause>,
) {
    let path = path.child("x-kubernetes-validations");
    let list = items(schema, "x-kubernetes-validations");
    if list.is_empty() {
        return;
    }
    let Some(declared) = Declared::of(place.node, place.resource || place.node.embedded, SELF_TYPE) else {
        let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
        causes.push(Cause::internal(&path, why));
        return;
    };
    let (plain, optional) = (Scope::new(&declared, false), Scope::new(&declared, true));
    let count = place.count.unwrap_or_else(|| declared.most_in_a_request());
    for (nth, rule) in list.iter().enumerate() {
        let is_optional = rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false);
        let scope = if is_optional { &optional } else { &plain };
        let mut check = Check { rule, scope, count, path: path.index(nth), costs, causes };
        check.all(apart);
    }
}

/// What the type of an object is called that has no name.
const SELF_TYPE: &str = "selfType0";

struct Check<'c> {
    rule: &'c Value,
    scope: &'c Scope<'c>,
    /// How many values there can be in one object.
    count: u64,
    path: FieldPath,
    costs: &'c mut Costs,
    causes: &'c mut Vec<Cause>,
}

impl Check<'_> {
    fn all(&mut self, apart: Option<&FieldPath>) {
        let compiled = self.rule();
        if compiled.is_some() {
            self.message();
        }
        let flag = self.rule.get("optionalOldSelf").filter(|flag| !flag.is_null());
        if compiled.is_some_and(|compiled| compiled.names_old) {
            if let Some(apart) = apart {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {apart}");
                self.causes.push(Cause::invalid(&self.path.child("rule"), text(self.rule, "rule"), why));
            }
        } else if let Some(flag) = flag {
            let why = "may not be set if oldSelf is not used in rule";
            self.causes.push(Cause::invalid(&self.path.child("optionalOldSelf"), flag.clone(), why));
        }
    }

    /// A rule that is none has no message and no cost.
    fn rule(&mut self) -> Option<Compiled> {
        let path = self.path.child("rule");
        let compiled = match self.scope.compile(text(self.rule, "rule")) {
            Ok(compiled) => compiled,
            Err(why) => {
                self.wrong(&path, &why.why);
                return None;
            }
        };
        if compiled.ty != Type::Bool {
            self.wrong(&path, "cel expression must evaluate to a bool");
            return None;
        }
        let total = compiled.cost.saturating_mul(self.count);
        if total > RULE_MAX {
            self.causes.push(Cause::forbidden(&path, exceeds("estimated rule cost", total, RULE_MAX)));
        }
        self.costs.add(&path, total);
        Some(compiled)
    }

    fn message(&mut self) {
        let expression = text(self.rule, "messageExpression");
        if expression.is_empty() {
            return;
        }
        let path = self.path.child("messageExpression");
        let compiled = match self.scope.compile(expression) {
            Ok(compiled) => compiled,
            Err(why) => {
                return self.wrong(&path, &format!("messageExpression {}", why.why.trim_start_matches("program ")));
            }
        };
        if compiled.ty != Type::String {
            return self.wrong(&path, "messageExpression must evaluate to a string");
        }
        if compiled.cost > RULE_MAX {
            let why = exceeds("estimated messageExpression cost", compiled.cost, RULE_MAX);
            self.causes.push(Cause::forbidden(&path, why));
        }
        self.costs.add(&path, compiled.cost);
    }

    /// Upstream shows the whole rule, under the names of its fields in Go, with what HTML would read escaped.
    fn wrong(&mut self, path: &FieldPath, why: &str) {
        let or_null = |name: &str| self.rule.get(name).cloned().unwrap_or_default();
        let shown = json!({
            "Rule": text(self.rule, "rule"),
            "Message": text(self.rule, "message"),
            "MessageExpression": text(self.rule, "messageExpression"),
            "Reason": or_null("reason"),
            "FieldPath": text(self.rule, "fieldPath"),
            "OptionalOldSelf": or_null("optionalOldSelf"),
        });
        let shown = shown.to_string().replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
        self.causes.push(Cause::new(CauseReason::Invalid, path, format!("Invalid value: {shown}: {why}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_shown() {
        assert_eq!(
            (shown(1.25), shown(1.94), shown(200.0)),
            ("1.250000x".into(), "1.9x".into(), "more than 100x".into())
        );
    }
}
