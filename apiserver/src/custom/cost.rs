//! What a rule can cost at most, and what it names that is not there, before any object is measured by it (apiserver
//! `cel` cost estimation, apiextensions `schema/cel/compilation.go`).
//!
//! The estimate walks the expression with the schema beside it: a loop costs its body times the most items that the list
//! can have, which is what the schema says, or what fits into a request. So nested loops over lists without a limit are
//! refused, and what is accepted is bounded.

use super::rules::escaped;
use super::structural::{Additional, Node, Type};
use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{EntryExpr, Expr};
use std::collections::HashMap;

/// The most that one rule may cost (apiserver `StaticEstimatedCostLimit`), and all rules of a schema together.
pub const RULE_MAX: u64 = 10_000_000;
pub const SCHEMA_MAX: u64 = 100_000_000;

/// The largest object that there can be.
const REQUEST_MAX: u64 = 3 << 20;

/// What is known of an expression.
pub struct Estimate {
    pub cost: u64,
    /// It names a field or a variable that is not there.
    pub unknown: Option<String>,
    pub not_a_bool: bool,
    pub not_text: bool,
}

/// Estimates a rule that stands at a node; `resource`: whether the value is a resource, whatever the node says.
pub fn estimate(expression: &IdedExpr, node: &Node, resource: bool) -> Estimate {
    let mut walk = Walk { unknown: None, resource: resource.then_some(std::ptr::from_ref(node)) };
    let scope = HashMap::from([("self", Shape::Node(node)), ("oldSelf", Shape::Node(node))]);
    let (cost, shape) = walk.walk(&expression.expr, &scope);
    let not_a_bool = match shape {
        Shape::Node(node) => !super::check_rules::may_be_bool(node),
        Shape::Text(_) | Shape::List(..) | Shape::Metadata => true,
        Shape::Unknown => false,
    };
    let not_text = match shape {
        Shape::Node(node) => !matches!(node.ty, Type::String | Type::Any),
        Shape::List(..) | Shape::Metadata => true,
        Shape::Text(_) | Shape::Unknown => false,
    };
    Estimate { cost, unknown: walk.unknown, not_a_bool, not_text }
}

/// A factor as upstream writes it.
pub fn shown(factor: f64) -> String {
    match factor {
        100.0.. => "more than 100x".to_owned(),
        // "by factor of 1.0x" would say nothing.
        ..1.5 => format!("{factor:.6}x"),
        _ => format!("{factor:.1}x"),
    }
}

/// The most items that a list or map of a schema can have.
pub fn items_of(node: &Node) -> u64 {
    let fits = |item: Option<&Node>, key: u64| REQUEST_MAX / (item.map_or(1, least_bytes) + key + 1);
    match node.ty {
        Type::Array => node.checks.max_items.unwrap_or_else(|| fits(node.items.as_deref(), 0)),
        Type::Object => match &node.additional {
            Additional::Schema(values) => node.checks.max_properties.unwrap_or_else(|| fits(Some(values), 5)),
            _ => node.properties.len() as u64 + 1,
        },
        Type::String => node.checks.max_length.unwrap_or(REQUEST_MAX),
        _ => 1,
    }
}

/// The fewest bytes that a value can take in JSON.
fn least_bytes(node: &Node) -> u64 {
    match node.ty {
        Type::Object => {
            let needed = node.checks.required.iter().filter_map(|name| Some((name, node.properties.get(name)?)));
            2 + needed.map(|(name, node)| name.len() as u64 + 4 + least_bytes(node)).sum::<u64>()
        }
        Type::Array | Type::String => 2,
        Type::Boolean => 4,
        _ => 1,
    }
}

/// What a part of an expression gives.
#[derive(Clone, Copy)]
enum Shape<'a> {
    Node(&'a Node),
    /// Text of at most so many bytes.
    Text(u64),
    /// A list of at most so many items.
    List(u64, Option<&'a Node>),
    /// `metadata` of a resource, of which rules see the names alone.
    Metadata,
    Unknown,
}

impl Shape<'_> {
    fn size(self) -> u64 {
        match self {
            Shape::Node(node) => items_of(node),
            Shape::Text(size) | Shape::List(size, _) => size,
            // Numbers and the like; what is made by functions is bounded by what they are given, which is counted.
            Shape::Unknown | Shape::Metadata => 16,
        }
    }
}

struct Walk {
    unknown: Option<String>,
    /// The node that is a resource's without saying so; only compared with, by where it is.
    resource: Option<*const Node>,
}

/// Variables of a macro are made by the compiler; they have names that no rule can have.
fn is_internal(name: &str) -> bool {
    name.starts_with('@') || name.starts_with("__")
}

/// Names of types, which are variables to the parser.
const TYPES: [&str; 13] = [
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "optional",
    "math",
    "sets",
];

impl Walk {
    fn walk<'a>(&mut self, expression: &'a Expr, scope: &HashMap<&'a str, Shape<'a>>) -> (u64, Shape<'a>) {
        match expression {
            Expr::Ident(name) => (1, self.variable(name, scope)),
            Expr::Literal(kube_cel::cel::common::ast::LiteralValue::String(text)) => {
                (0, Shape::Text(text.inner().len() as u64))
            }
            Expr::Literal(_) | Expr::Unspecified => (0, Shape::Unknown),
            Expr::Select(select) => {
                let (cost, of) = self.walk(&select.operand.expr, scope);
                (
                    cost + 1,
                    if select.test {
                        self.select(of, &select.field);
                        Shape::Unknown
                    } else {
                        self.select(of, &select.field)
                    },
                )
            }
            Expr::List(list) => {
                let cost = list.elements.iter().map(|item| self.walk(&item.expr, scope).0).fold(1, u64::saturating_add);
                (cost, Shape::List(list.elements.len() as u64, None))
            }
            Expr::Map(map) => (self.entries(&map.entries, scope), Shape::Unknown),
            Expr::Struct(of) => (self.entries(&of.entries, scope), Shape::Unknown),
            Expr::Comprehension(of) => self.comprehension(of, scope),
            Expr::Call(call) => self.call(call, scope),
        }
    }

    fn entries<'a>(
        &mut self,
        entries: &'a [kube_cel::cel::common::ast::IdedEntryExpr],
        scope: &HashMap<&'a str, Shape<'a>>,
    ) -> u64 {
        let mut cost = 1_u64;
        for entry in entries {
            let parts = match &entry.expr {
                EntryExpr::StructField(field) => vec![&field.value],
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
            };
            for part in parts {
                cost = cost.saturating_add(self.walk(&part.expr, scope).0);
            }
        }
        cost
    }

    fn comprehension<'a>(
        &mut self,
        of: &'a kube_cel::cel::common::ast::ComprehensionExpr,
        scope: &HashMap<&'a str, Shape<'a>>,
    ) -> (u64, Shape<'a>) {
        let (range_cost, range) = self.walk(&of.iter_range.expr, scope);
        let size = range.size();
        let mut inner = scope.clone();
        let (key, value) = match range {
            Shape::Node(node) => match (&node.items, &node.additional) {
                (Some(item), _) => (Shape::Node(item), Shape::Node(item)),
                (None, Additional::Schema(value)) => (Shape::Text(64), Shape::Node(value)),
                _ => (Shape::Unknown, Shape::Unknown),
            },
            Shape::List(_, Some(item)) => (Shape::Node(item), Shape::Node(item)),
            _ => (Shape::Unknown, Shape::Unknown),
        };
        match &of.iter_var2 {
            // With two variables the first is the index or the key.
            Some(second) => {
                inner.insert(&of.iter_var, Shape::Unknown);
                inner.insert(second, value);
            }
            None => drop(inner.insert(&of.iter_var, key)),
        }
        inner.insert(&of.accu_var, Shape::Unknown);
        let (init, _) = self.walk(&of.accu_init.expr, scope);
        let (condition, _) = self.walk(&of.loop_cond.expr, &inner);
        let (step, _) = self.walk(&of.loop_step.expr, &inner);
        let (result, _) = self.walk(&of.result.expr, &inner);
        let body = condition.saturating_add(step).saturating_mul(size);
        let cost = range_cost.saturating_add(init).saturating_add(body).saturating_add(result);
        // `map` and `filter` give a list that is no longer than the one they go over.
        let makes_list = matches!(of.accu_init.expr, Expr::List(_));
        (cost, if makes_list { Shape::List(size, None) } else { Shape::Unknown })
    }

    fn call<'a>(
        &mut self,
        call: &'a kube_cel::cel::common::ast::CallExpr,
        scope: &HashMap<&'a str, Shape<'a>>,
    ) -> (u64, Shape<'a>) {
        let mut cost = 1_u64;
        let mut shapes = Vec::new();
        for part in call.target.as_deref().into_iter().chain(&call.args) {
            let (part_cost, shape) = self.walk(&part.expr, scope);
            cost = cost.saturating_add(part_cost);
            shapes.push(shape);
        }
        let largest = shapes.iter().map(|shape| shape.size()).max().unwrap_or(1);
        let all: u64 = shapes.iter().map(|shape| shape.size()).fold(0, u64::saturating_add);
        // A tenth of what is gone through, as upstream counts texts.
        let traversal = match call.func_name.as_str() {
            "matches" | "find" | "findAll" => {
                largest / 10 * (shapes.last().map_or(1, |pattern| pattern.size()) / 4 + 1)
            }
            "startsWith" | "endsWith" => shapes.last().map_or(0, |part| part.size()) / 10,
            "contains" | "indexOf" | "lastIndexOf" | "replace" | "split" | "join" | "lowerAscii" | "upperAscii"
            | "trim" | "substring" | "charAt" | "_+_" | "string" | "quantity" | "url" | "ip" | "cidr" | "isSorted"
            | "sum" | "min" | "max" | "sort" | "distinct" => all / 10,
            "@in" | "_in_" | "in" => shapes.last().map_or(1, |list| list.size()),
            _ => 0,
        };
        let shape = match (call.func_name.as_str(), shapes.first().copied()) {
            ("_[_]" | "_[?_]", Some(Shape::Node(node))) => match (&node.items, &node.additional) {
                (Some(item), _) => Shape::Node(item),
                (None, Additional::Schema(value)) => Shape::Node(value),
                _ => Shape::Unknown,
            },
            ("_+_" | "lowerAscii" | "upperAscii" | "trim" | "substring" | "replace" | "join", Some(Shape::Text(_))) => {
                Shape::Text(all)
            }
            ("_?_:_", _) => Shape::Unknown,
            ("value" | "orValue", Some(node @ Shape::Node(_))) => node,
            ("split" | "findAll", _) => Shape::List(largest, None),
            _ => Shape::Unknown,
        };
        (cost.saturating_add(traversal), shape)
    }

    fn variable<'a>(&mut self, name: &str, scope: &HashMap<&'a str, Shape<'a>>) -> Shape<'a> {
        match scope.get(name) {
            Some(shape) => *shape,
            None => {
                if !is_internal(name) && !TYPES.contains(&name) && !name.contains('.') {
                    self.unknown.get_or_insert_with(|| format!("undeclared reference to '{name}' (in container '')"));
                }
                Shape::Unknown
            }
        }
    }

    fn select<'a>(&mut self, of: Shape<'a>, field: &str) -> Shape<'a> {
        let node = match of {
            Shape::Node(node) => node,
            Shape::Metadata if matches!(field, "name" | "generateName") => return Shape::Unknown,
            Shape::Metadata => return self.undefined(field),
            _ => return Shape::Unknown,
        };
        let resource = node.embedded || self.resource.is_some_and(|resource| std::ptr::eq(resource, node));
        let known = node.properties.iter().find(|(name, _)| escaped(name) == field).map(|(_, node)| node);
        match (known, &node.additional) {
            _ if resource && field == "metadata" => Shape::Metadata,
            (Some(node), _) => Shape::Node(node),
            (None, Additional::Schema(values)) => Shape::Node(values),
            (None, _) if resource && matches!(field, "apiVersion" | "kind") => Shape::Unknown,
            // An optional value's own functions are calls; a field of an object must be declared, be it kept or not.
            (None, Additional::None) if node.ty == Type::Object => self.undefined(field),
            _ => Shape::Unknown,
        }
    }

    fn undefined<'a>(&mut self, field: &str) -> Shape<'a> {
        self.unknown.get_or_insert_with(|| format!("undefined field '{field}'"));
        Shape::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custom::rules::compile;
    use serde_json::json;

    #[test]
    fn costs_grow_with_what_the_schema_allows() {
        let list = |most: Option<u64>| {
            let mut list = json!({"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 63}}}});
            if let Some(most) = most {
                list["maxItems"] = most.into();
            }
            Node::parse(&json!({"type": "object", "properties": {"list": list, "n": {"type": "integer"}}}))
        };
        let cost = |rule: &str, node: &Node| estimate(&compile(rule).unwrap(), node, true).cost;
        let nested = "self.list.all(a, self.list.exists_one(b, a.name == b.name))";
        assert!(cost(nested, &list(None)) > RULE_MAX);
        assert!(cost(nested, &list(Some(100))) < RULE_MAX);
        assert!(cost("self.list.all(a, a.name != '')", &list(None)) < RULE_MAX * 2);
        assert!(cost("self.n > 1", &list(None)) < 10);
        assert_eq!(
            (shown(1.25), shown(1.94), shown(200.0)),
            ("1.250000x".into(), "1.9x".into(), "more than 100x".into())
        );
    }

    #[test]
    fn what_is_not_there_is_told() {
        let node = Node::parse(
            &json!({"type": "object", "properties": {"a": {"type": "integer"}, "b-c": {"type": "boolean"}}}),
        );
        let of = |rule: &str| estimate(&compile(rule).unwrap(), &node, true);
        assert_eq!(of("self.x > 1").unknown.as_deref(), Some("undefined field 'x'"));
        assert!(of("other.a > 1").unknown.unwrap().starts_with("undeclared reference to 'other'"));
        assert!(of("self.b__dash__c").unknown.is_none() && !of("self.b__dash__c").not_a_bool);
        assert!(of("self.a").not_a_bool && of("'x'").not_a_bool && !of("self.a == 1").not_a_bool);
        assert!(of("type(self.a) == int").unknown.is_none());
    }
}
