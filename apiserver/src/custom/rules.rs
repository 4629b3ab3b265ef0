//! Rules in CEL: `x-kubernetes-validations` (apiextensions `schema/cel`, KEP-2876).
//!
//! A rule sees the value it stands at as `self`, and on updates what that was before as `oldSelf`. Values are converted by
//! their schema: times, durations and bytes are such in a rule, names that CEL cannot write are escaped.

use super::cel::{self, Program};
use super::field_path;
use super::structural::{Node, Type};
use super::validate::{MAX_CAUSES, correlated};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::json::Value;
use coracle_api::status::{CauseReason, FieldPath};
use coracle_api::{Cause, clock};
use kube_cel::cel::Value as Cel;
use kube_cel::cel::objects::{Key, Map as CelMap};
use std::collections::HashMap;
use std::sync::Arc;

/// One rule of a node.
#[derive(Debug)]
pub struct Rule {
    pub text: String,
    program: Program,
    message: String,
    message_text: String,
    message_program: Option<Program>,
    reason: CauseReason,
    field_path: Vec<String>,
    optional_old_self: bool,
    pub is_transition: bool,
}

impl Rule {
    /// The rules of a schema; those that validation would have refused are left out.
    pub fn read_all(schema: &Value) -> Vec<Self> {
        let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
        rules.filter_map(Self::read).collect()
    }

    fn read(rule: &Value) -> Option<Self> {
        let text = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default();
        let program = Program::parse(text("rule")).ok()?;
        Some(Self {
            text: text("rule").to_owned(),
            is_transition: program.names("oldSelf"),
            program,
            message: text("message").to_owned(),
            message_text: text("messageExpression").to_owned(),
            message_program: Some(text("messageExpression"))
                .filter(|text| !text.is_empty())
                .and_then(|text| Program::parse(text).ok()),
            reason: match text("reason") {
                "FieldValueRequired" => CauseReason::Required,
                "FieldValueForbidden" => CauseReason::Forbidden,
                "FieldValueDuplicate" => CauseReason::Duplicate,
                _ => CauseReason::Invalid,
            },
            field_path: field_path::names(text("fieldPath")),
            optional_old_self: rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false),
        })
    }

    /// What is wrong, and whether the rule says so itself: it can also be that it has no answer.
    fn check(
        &self,
        node: &Node,
        value: &Value,
        scope: &Scope,
        path: &FieldPath,
        budget: &mut Budget,
    ) -> Option<(Cause, bool)> {
        let variables = scope.variables(self)?;
        let shown = shown(node);
        let (outcome, cost) = self.program.measure(variables.clone());
        if !budget.pay(cost) {
            return Some((Cause::invalid(path, shown, OUT_OF_BUDGET), false));
        }
        let mut place = path.clone();
        for name in &self.field_path {
            place = place.child(name);
        }
        match outcome {
            Ok(Cel::Bool(true)) => None,
            Ok(Cel::Bool(false)) => {
                let message = match self.message(variables, budget) {
                    Ok(message) => message,
                    Err(why) => return Some((Cause::invalid(&place, shown, why), true)),
                };
                let cause = match self.reason {
                    CauseReason::Required => Cause::required(&place, &message),
                    CauseReason::Forbidden => Cause::forbidden(&place, message),
                    // Of what holds other values nothing is shown.
                    reason if matches!(node.ty, Type::Object | Type::Array) => {
                        let word = if reason == CauseReason::Duplicate { "Duplicate" } else { "Invalid" };
                        Cause::new(reason, place, format!("{word} value: {message}"))
                    }
                    CauseReason::Duplicate => Cause::duplicate(&place, value.clone()),
                    _ => Cause::invalid(&place, value.clone(), message),
                };
                Some((cause, true))
            }
            Ok(_) => Some((Cause::invalid(path, shown, format!("rule did not give a bool: {}", self.text)), false)),
            Err(why) => Some((Cause::invalid(path, shown, self.failure(&why, budget)), false)),
        }
    }

    /// Why there is no answer.
    fn failure(&self, why: &str, budget: &mut Budget) -> String {
        match why {
            "no such overload" => {
                let what = "call arguments did not match a supported operator, function or macro signature";
                format!("'{why}': {what} for rule: {}", self.name())
            }
            cel::TOO_COSTLY => {
                budget.end();
                let what = "no further validation rules will be run due to call cost exceeds limit";
                format!("'{why}': {what} for rule: {}", self.name())
            }
            _ => format!("{why} evaluating rule: {}", self.name()),
        }
    }

    fn name(&self) -> &str {
        if self.message.is_empty() { &self.text } else { &self.message }
    }

    /// What a rule that does not hold says, or why nothing more is run.
    fn message(&self, variables: Variables, budget: &mut Budget) -> Result<String, String> {
        let made = match &self.message_program {
            Some(program) => {
                let (outcome, cost) = program.measure(variables);
                if !budget.pay(cost) {
                    let why = "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run";
                    return Err(why.to_owned());
                }
                match outcome {
                    Err(why) if why == cel::TOO_COSTLY => {
                        budget.end();
                        let what = "no further validation rules will be run due to call cost exceeds limit for messageExpression";
                        return Err(format!("{what}: {:?}", self.message_text));
                    }
                    Ok(Cel::String(text)) => Some(text.trim().to_owned()),
                    _ => None,
                }
            }
            None => None,
        };
        Ok(match made.filter(|text| !text.is_empty() && !text.contains('\n') && text.len() <= 5 << 10) {
            Some(text) => text,
            None if self.message.is_empty() => format!("failed rule: {}", self.text),
            None => self.message.clone(),
        })
    }
}

fn shown(node: &Node) -> &'static str {
    if node.int_or_string { "" } else { node.ty.as_str() }
}

/// What the rules of one object may cost together (apiserver `RuntimeCELCostBudget`).
const BUDGET: u64 = 10_000_000;

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What is left of it; None when no more rules are run.
struct Budget(Option<u64>);

impl Budget {
    /// False when there is not so much left, and nothing will be.
    fn pay(&mut self, cost: u64) -> bool {
        self.0 = self.0.and_then(|left| left.checked_sub(cost));
        self.0.is_some()
    }

    fn end(&mut self) {
        self.0 = None;
    }
}

/// What a rule names, and the values of it.
type Variables = Vec<(String, Cel)>;

/// What the rules of one node see.
struct Scope {
    own: Cel,
    old: Option<Cel>,
}

impl Scope {
    /// The variables of a rule; None when it does not apply.
    fn variables(&self, rule: &Rule) -> Option<Variables> {
        let mut variables = vec![("self".to_owned(), self.own.clone())];
        if rule.is_transition {
            let old = match (&self.old, rule.optional_old_self) {
                (old, true) => cel::optional(old.clone()),
                (Some(old), false) => old.clone(),
                (None, false) => return None,
            };
            variables.push(("oldSelf".to_owned(), old));
        }
        Some(variables)
    }
}

/// Checks every rule of a schema against a value. What was wrong before and did not change does not stand in the way of a
/// change elsewhere (KEP-4008, ratcheting).
pub fn validate(node: &Node, value: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    check(true, node, value, old, path, causes);
}

/// The same for a default, whatever it was before.
pub fn validate_default(node: &Node, value: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    check(false, node, value, old, path, causes);
}

fn check(ratchets: bool, node: &Node, value: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(most) = MAX_CAUSES.checked_sub(causes.len()) else { return };
    cel::roomy(causes, |causes| {
        Walk { ratchets, most, causes, warnings: &mut Vec::new(), budget: Budget(Some(BUDGET)) }
            .node(node, value, old, false, path);
    });
}

/// What was wrong before, and is still.
pub fn warnings(node: &Node, value: &Value, old: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    cel::roomy(&mut warnings, |warnings| {
        let causes = &mut Vec::new();
        Walk { ratchets: true, most: MAX_CAUSES, causes, warnings, budget: Budget(Some(BUDGET)) }.node(
            node,
            value,
            Some(old),
            false,
            &FieldPath::default(),
        );
    });
    warnings
}

struct Walk<'w> {
    ratchets: bool,
    /// Behind so many causes nothing more is looked at.
    most: usize,
    causes: &'w mut Vec<Cause>,
    warnings: &'w mut Vec<String>,
    budget: Budget,
}

impl Walk<'_> {
    /// `same`: the nearest value around it of which it is known what it was before did not change.
    fn node(&mut self, node: &Node, value: &Value, old: Option<&Value>, same: bool, path: &FieldPath) {
        if !node.ruled || self.causes.len() > self.most || value.is_null() || self.budget.0.is_none() {
            return;
        }
        let same = self.ratchets && old.map_or(same, |old| old == value);
        if !node.rules.is_empty() {
            if self.budget.0 == Some(0) {
                self.budget.end();
                self.causes.push(Cause::invalid(path, shown(node), OUT_OF_BUDGET));
                return;
            }
            let old = old.filter(|old| !old.is_null()).map(|old| convert(node, old, path_is_root(path)));
            let scope = Scope { own: convert(node, value, path_is_root(path)), old };
            for rule in &node.rules {
                match rule.check(node, value, &scope, path, &mut self.budget) {
                    Some((cause, true)) if same && !rule.is_transition && self.warnings.len() < MAX_CAUSES => {
                        self.warnings.push(cause.to_string());
                    }
                    Some((_, true)) if same && !rule.is_transition => {}
                    Some((cause, _)) => self.causes.push(cause),
                    None => {}
                }
                if self.budget.0.is_none() {
                    return;
                }
            }
        }
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    if let Some(child) = node.field(name) {
                        let path =
                            if node.properties.contains_key(name.as_str()) { path.child(name) } else { path.key(name) };
                        self.node(child, value, old.and_then(|old| old.get(name)), same, &path);
                    }
                }
            }
            Value::Array(items) => {
                for (nth, item) in items.iter().enumerate() {
                    if let Some(child) = &node.items {
                        self.node(child, item, correlated(node, item, old), same, &path.index(nth));
                    }
                }
            }
            _ => {}
        }
    }
}

fn path_is_root(path: &FieldPath) -> bool {
    *path == FieldPath::default()
}

/// A value as rules see it.
pub fn convert(node: &Node, value: &Value, resource: bool) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match (number.as_i64(), node.ty) {
            (Some(whole), Type::Number) => Cel::Float(whole as f64),
            (Some(whole), _) => Cel::Int(whole),
            (None, Type::Integer) => Cel::Int(number.as_f64().unwrap_or_default() as i64),
            (None, _) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => string(node, text),
        Value::Array(items) => {
            let unknown = Node::default();
            let child = node.items.as_deref().unwrap_or(&unknown);
            Cel::List(Arc::new(items.iter().map(|item| convert(child, item, false)).collect()))
        }
        Value::Object(map) => object(node, map, resource || node.embedded),
    }
}

fn object(node: &Node, map: &coracle_api::json::Map, resource: bool) -> Cel {
    let mut fields = HashMap::with_capacity(map.len());
    for (name, value) in map {
        let (key, value) = match node.properties.get(name.as_str()) {
            Some(child) if !(resource && name == "metadata") => (escaped(name), convert(child, value, false)),
            _ if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") => {
                (name.to_string(), convert(&Node::default(), value, false))
            }
            _ => match node.field(name) {
                // Keys of maps are data and stay as they are.
                Some(child) => (name.to_string(), convert(child, value, false)),
                // What is kept without being known cannot be reached by rules.
                None if node.ty == Type::Object && !node.preserves => continue,
                None => (name.to_string(), convert(&Node::default(), value, false)),
            },
        };
        fields.insert(Key::String(Arc::new(key)), value);
    }
    Cel::Map(CelMap { map: Arc::new(fields) })
}

fn string(node: &Node, text: &str) -> Cel {
    let plain = || Cel::String(Arc::new(text.to_owned()));
    if node.int_or_string {
        return plain();
    }
    match node.checks.format.as_str() {
        "date-time" | "date" => {
            let time = clock::parse_rfc3339(text).or_else(|| clock::parse_rfc3339(&format!("{text}T00:00:00Z")));
            let time = time.and_then(|time| {
                chrono::DateTime::from_timestamp(time.as_second(), time.subsec_nanosecond().try_into().unwrap_or(0))
            });
            time.map_or_else(plain, |time| Cel::Timestamp(time.fixed_offset()))
        }
        "duration" => match super::formats::duration(text) {
            Some(seconds) => Cel::Duration(chrono::Duration::nanoseconds((seconds * 1e9) as i64)),
            None => plain(),
        },
        "byte" => STANDARD.decode(text).map_or_else(|_| plain(), |bytes| Cel::Bytes(Arc::new(bytes))),
        _ => plain(),
    }
}

/// Words that cannot be names in CEL.
pub const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A field's name as rules write it (apiextensions `cel/model/escaping.go`).
pub fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn causes(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut causes = Vec::new();
        validate(&Node::parse(schema), object, old, &FieldPath::default(), &mut causes);
        causes.iter().map(Cause::to_string).collect()
    }

    fn spec(properties: Value, rules: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties, "x-kubernetes-validations": rules}}})
    }

    #[test]
    fn rules_hold_or_say_why() {
        let properties = json!({"min": {"type": "integer"}, "max": {"type": "integer"}, "name-x": {"type": "string"}, "ratio": {"type": "number"},
            "at": {"type": "string", "format": "date-time"}, "wait": {"type": "string", "format": "duration"}, "names": {"type": "array", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}}, "any": {"x-kubernetes-int-or-string": true}, "cpu": {"type": "string"}});
        let rows = [
            (json!({"rule": "self.min <= self.max"}), json!({"min": 1, "max": 2}), ""),
            (
                json!({"rule": "self.min <= self.max"}),
                json!({"min": 3, "max": 2}),
                "spec: Invalid value: failed rule: self.min <= self.max",
            ),
            (
                json!({"rule": "self.min <= self.max", "message": "too small"}),
                json!({"min": 3, "max": 2}),
                "spec: Invalid value: too small",
            ),
            (
                json!({"rule": "self.min <= self.max", "messageExpression": "'max is ' + string(self.max)"}),
                json!({"min": 3, "max": 2}),
                "spec: Invalid value: max is 2",
            ),
            (
                json!({"rule": "self.min <= self.max", "message": "no", "reason": "FieldValueForbidden", "fieldPath": ".min"}),
                json!({"min": 3, "max": 2}),
                "spec.min: Forbidden: no",
            ),
            (
                json!({"rule": "has(self.min)", "message": "needed", "reason": "FieldValueRequired", "fieldPath": ".min"}),
                json!({}),
                "spec.min: Required value: needed",
            ),
            (json!({"rule": "self.name__dash__x.startsWith('a')"}), json!({"name-x": "ab"}), ""),
            (json!({"rule": "self.ratio > 0.5"}), json!({"ratio": 1}), ""),
            (json!({"rule": "self.at < timestamp('2026-01-02T00:00:00Z')"}), json!({"at": "2026-01-01T00:00:00Z"}), ""),
            (json!({"rule": "self.wait <= duration('1h')"}), json!({"wait": "59m"}), ""),
            (
                json!({"rule": "self.names.all(n, n.matches('^[a-z]+$')) && self.names.exists(n, n == 'a')"}),
                json!({"names": ["a", "b"]}),
                "",
            ),
            (json!({"rule": "'k' in self.labels && self.labels['k'] == 'v'"}), json!({"labels": {"k": "v"}}), ""),
            (json!({"rule": "type(self.any) == int ? self.any < 5 : self.any == 'x'"}), json!({"any": "x"}), ""),
            (json!({"rule": "quantity(self.cpu).isLessThan(quantity('2'))"}), json!({"cpu": "500m"}), ""),
            (
                json!({"rule": "self.names.isSorted() && self.names.join(',') == 'a,b'"}),
                json!({"names": ["a", "b"]}),
                "",
            ),
        ];
        for (rule, value, expected) in rows {
            let found = causes(&spec(properties.clone(), json!([rule])), &json!({"spec": value}), None);
            assert_eq!(found.join("; "), expected, "{rule}");
        }
    }

    #[test]
    fn rules_about_changes() {
        let properties = json!({"size": {"type": "integer"}, "other": {"type": "integer"}});
        let grow = spec(properties.clone(), json!([{"rule": "self.size >= oldSelf.size", "message": "cannot shrink"}]));
        let of = |size: i64| json!({"spec": {"size": size}});
        assert!(causes(&grow, &of(1), None).is_empty());
        assert!(causes(&grow, &of(2), Some(&of(1))).is_empty());
        assert_eq!(causes(&grow, &of(1), Some(&of(2))).len(), 1);
        let optional = spec(
            properties.clone(),
            json!([{"rule": "!oldSelf.hasValue() || self.size >= oldSelf.value().size", "optionalOldSelf": true}]),
        );
        assert!(causes(&optional, &of(1), None).is_empty());
        assert_eq!(causes(&optional, &of(1), Some(&of(2))).len(), 1);
        // What was wrong before and did not change does not stand in the way.
        let strict = spec(properties, json!([{"rule": "self.size < 3"}]));
        assert!(causes(&strict, &of(5), Some(&of(5))).is_empty());
        assert_eq!(causes(&strict, &of(6), Some(&of(5))).len(), 1);
    }

    #[test]
    fn hostile_expressions_are_refused_and_the_stack_holds() {
        let brackets = |start: &str, count: usize| format!("{start}{}true{}", "(".repeat(count), ")".repeat(count));
        let limit = "ERROR: <input>:-1:0: expression recursion limit exceeded: 250";
        // However the brackets hide behind quotes.
        let starts =
            ["", "a == 'x' || ", r"a == r'\' || ", r#"a == """x"y""" || "#, r#"a == '''"''' || "#, r"a == '\'' || "];
        for start in starts {
            assert!(Program::parse(&brackets(start, 240)).is_ok(), "{start}");
            for count in [250, 3000, 40_000] {
                assert_eq!(Program::parse(&brackets(start, count)).unwrap_err(), limit, "{start} {count}");
            }
        }
        assert_eq!(Program::parse(&("a ? b : ".repeat(4000) + "c")).unwrap_err(), limit);
        assert_eq!(Program::parse(&("a[".repeat(4000) + "c")).unwrap_err(), limit);
        let unclosed = format!("'{}", "(".repeat(40_000));
        for text in [&*"(".repeat(200), &*"a?".repeat(500), "1 +", &*"[".repeat(40), &unclosed] {
            assert!(Program::parse(text).is_err());
        }
        // Long and flat with a slip keeps its words.
        let slip = vec!["(a == 1)"; 500].join(" && ") + " && (a ==";
        assert!(Program::parse(&slip).unwrap_err().contains("Syntax error: mismatched input '<EOF>'"), "{slip}");
        let long = "a".repeat(100_001);
        let size = "ERROR: <input>:-1:0: expression code point size exceeds limit: size: 100001, limit 100000";
        assert_eq!(Program::parse(&long).unwrap_err(), size);
        assert!(Program::parse(&long[1..]).is_ok());
        // What nests without brackets.
        let variables = || vec![("a".to_owned(), Cel::Int(1))];
        for (start, part) in [("true", "!"), ("1", "-")] {
            let program = Program::parse(&(part.repeat(4000) + start)).unwrap();
            assert!(program.measure(variables()).0.is_ok());
        }
        for part in [".a", "[0]", "+1", "*1", "<1", ".f()", " in a"] {
            let fits = Program::parse(&("a".to_owned() + &part.repeat(250))).unwrap();
            let _ = fits.measure(variables());
            let deep = Program::parse(&("a".to_owned() + &part.repeat(251))).unwrap_err();
            assert_eq!(deep, "ERROR: <input>:-1:0: max recursion depth exceeded", "{part}");
            assert!(Program::parse(&("a".to_owned() + &part.repeat(10_000))).is_err());
        }
        let flat = Program::parse(&vec!["a == 1"; 10_000].join(" && ")).unwrap();
        assert_eq!(flat.measure(variables()).0, Ok(Cel::Bool(true)));
        // All that there is of levels, one in another.
        let nested = (0..240).fold("a".to_owned(), |inner, _| format!("-({inner} + 1)"));
        let nested = Program::parse(&nested).unwrap();
        assert!(nested.measure(variables()).0.is_ok());
        assert!(!nested.names("b"));
    }

    #[test]
    fn a_backslash_in_a_raw_text_is_one() {
        let variables = || vec![("a".to_owned(), Cel::String(Arc::new(r"\d".to_owned())))];
        for rule in [r"a == r'\d'", r"a == r'\' + 'd'", r#"a == R"""\d""""#, r"a == '\\d'", r"r'\'.size() == 1"] {
            assert_eq!(Program::parse(rule).unwrap().measure(variables()).0, Ok(Cel::Bool(true)), "{rule}");
        }
        assert!(Program::parse(r"a == r'\''").is_err(), "the quote behind the backslash ends it");
    }

    #[test]
    fn names_are_escaped() {
        for (name, expected) in
            [("a_b", "a_b"), ("a-b", "a__dash__b"), ("namespace", "__namespace__"), ("a__b", "a__underscores__b")]
        {
            assert_eq!(escaped(name), expected);
        }
    }
}
