//! What is wrong with rules: how they are written, whether they compile, and what they can cost (apiextensions
//! `validation.go`).

use super::check_schema::Place;
use super::structural::{Node, Type};
use super::{cost, field_path, rules};
use crate::registry::fields::{items, text};
use coracle_api::Cause;
use coracle_api::status::{CauseReason, FieldPath};
use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{Expr, LiteralValue};
use serde_json::{Value, json};

const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

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
        if cost >= cost::SCHEMA_MAX / 100 {
            self.each.push((path.clone(), cost));
            self.each.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.each.truncate(NAMED);
        }
    }

    /// Says that all together cost too much, where they do.
    pub fn tell(self, path: &FieldPath, causes: &mut Vec<Cause>) {
        if self.total <= cost::SCHEMA_MAX {
            return;
        }
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        causes.extend(self.each.iter().map(|(path, _)| Cause::forbidden(path, why)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        causes.push(Cause::forbidden(path, exceeds(what, self.total, cost::SCHEMA_MAX)));
    }
}

fn exceeds(what: &str, cost: u64, most: u64) -> String {
    let factor = cost::shown(cost as f64 / most as f64);
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
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
    if !list.is_empty() && place.node.ty == Type::Any && !place.node.int_or_string {
        let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
        causes.push(Cause::internal(&path, why));
        return;
    }
    for (nth, rule) in list.iter().enumerate() {
        let mut check = Check { rule, place, path: path.index(nth), costs, causes };
        check.rule(apart);
        check.message();
    }
}

struct Check<'c> {
    rule: &'c Value,
    place: Place<'c>,
    path: FieldPath,
    costs: &'c mut Costs,
    causes: &'c mut Vec<Cause>,
}

impl Check<'_> {
    fn rule(&mut self, apart: Option<&FieldPath>) {
        let expression = text(self.rule, "rule");
        let path = self.path.child("rule");
        let program = match rules::compile(expression) {
            Ok(program) => program,
            Err(why) => return self.wrong(&path, &why),
        };
        let estimate = cost::estimate(&program, self.place.node, self.place.resource);
        let total = estimate.cost.saturating_mul(self.place.count);
        if total > cost::RULE_MAX {
            self.causes.push(Cause::forbidden(&path, exceeds("estimated rule cost", total, cost::RULE_MAX)));
        }
        self.costs.add(&path, total);
        if let Some(why) = estimate.unknown {
            self.wrong(&path, &format!("compilation failed: ERROR: <input>: {why}"));
        } else if estimate.not_a_bool || literal(&program).is_some_and(|kind| kind != "bool") {
            self.wrong(&path, "cel expression must evaluate to a bool");
        }
        let optional = self.rule.get("optionalOldSelf").filter(|flag| !flag.is_null());
        if program.references().has_variable("oldSelf") {
            if let Some(apart) = apart {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {apart}");
                self.causes.push(Cause::invalid(&path, expression, why));
            }
        } else if let Some(flag) = optional {
            let why = "may not be set if oldSelf is not used in rule";
            self.causes.push(Cause::invalid(&self.path.child("optionalOldSelf"), flag.clone(), why));
        }
    }

    fn message(&mut self) {
        let expression = text(self.rule, "messageExpression");
        if expression.is_empty() {
            return;
        }
        let path = self.path.child("messageExpression");
        let program = match rules::compile(expression) {
            Ok(program) => program,
            Err(why) => return self.wrong(&path, &format!("messageExpression {why}")),
        };
        let estimate = cost::estimate(&program, self.place.node, self.place.resource);
        if let Some(why) = estimate.unknown {
            return self.wrong(&path, &format!("messageExpression compilation failed: ERROR: <input>: {why}"));
        }
        if estimate.not_text || literal(&program).is_some_and(|kind| kind != "string") {
            return self.wrong(&path, "messageExpression must evaluate to a string");
        }
        if estimate.cost > cost::RULE_MAX {
            let why = exceeds("estimated messageExpression cost", estimate.cost, cost::RULE_MAX);
            self.causes.push(Cause::forbidden(&path, why));
        }
        self.costs.add(&path, estimate.cost);
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

/// The type of an expression that is nothing but a literal.
fn literal(program: &IdedExpr) -> Option<&'static str> {
    let Expr::Literal(literal) = &program.expr else { return None };
    Some(match literal {
        LiteralValue::Boolean(_) => "bool",
        LiteralValue::Bytes(_) => "bytes",
        LiteralValue::Double(_) => "double",
        LiteralValue::Int(_) => "int",
        LiteralValue::Null => "null",
        LiteralValue::String(_) => "string",
        LiteralValue::UInt(_) => "uint",
    })
}

/// Whether a node can only be a bool, or can be anything.
pub fn may_be_bool(node: &Node) -> bool {
    matches!(node.ty, Type::Boolean | Type::Any) && !node.int_or_string
}
