//! What running costs (cel-go `interpreter/runtimecost.go`, `ext/lists.go` and `ext/sets.go`, apiserver `cel/library/cost.go`):
//! names and members one each, new lists and maps more, calls by the size of what they go through.

use super::cost::{NEW_LIST, NEW_MAP, TEXT, scaled};
use super::cost_calls::PATTERN;
use super::optionals;
use kube_cel::cel::common::ast::{CallExpr, EntryExpr, Expr, operators};
use kube_cel::cel::objects::Key;
use kube_cel::cel::{IdedExpr, Value};

/// The most that one run may cost (apiserver `PerCallLimit`).
pub const LIMIT: u64 = 1_000_000;

/// How long the pattern of a format is that is not known here.
const FORMAT: u64 = 30;

/// Types that a constant is converted to when the rule is read.
const CONVERSIONS: [&str; 9] = ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "uint"];

/// Whether a value is made when the rule is read, and costs nothing when it runs.
pub fn is_constant(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Literal(_) => true,
        Expr::List(list) => list.optional_indices.is_empty() && list.elements.iter().all(is_constant),
        Expr::Map(map) => map.entries.iter().all(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => !entry.optional && is_constant(&entry.key) && is_constant(&entry.value),
            _ => false,
        }),
        Expr::Call(CallExpr { func_name, target: None, args }) => {
            CONVERSIONS.contains(&func_name.as_str()) && args.len() == 1 && matches!(args[0].expr, Expr::Literal(_))
        }
        _ => false,
    }
}

/// What a list or map costs that is made of what is known only when the rule runs.
pub fn made(node: &IdedExpr) -> u64 {
    match &node.expr {
        _ if is_constant(node) => 0,
        Expr::List(_) => NEW_LIST,
        Expr::Map(_) => NEW_MAP,
        _ => 0,
    }
}

/// What taking something out of a value costs: what is no variable, nor below one, is a place of its own first.
pub fn selected(operand: &IdedExpr) -> u64 {
    match &operand.expr {
        Expr::Ident(_) | Expr::Select(_) => 1,
        Expr::Call(call) if is_index(call) || call.func_name == operators::CONDITIONAL => 1,
        _ => 2,
    }
}

/// What a place costs less as a branch of a choice, or as an index, than it does alone.
pub fn discount(node: &IdedExpr) -> u64 {
    match &node.expr {
        Expr::Ident(_) => 1,
        Expr::Select(select) if !select.test => discount_below(&select.operand),
        Expr::Call(call) if is_index(call) => call.args.first().map_or(0, discount_below),
        _ => 0,
    }
}

fn discount_below(operand: &IdedExpr) -> u64 {
    match &operand.expr {
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => 0,
        Expr::Call(call) if is_index(call) => discount(operand),
        Expr::Ident(_) | Expr::Select(_) => discount(operand),
        _ => 1,
    }
}

/// Whether a call takes something out of a list or map.
pub fn is_index(call: &CallExpr) -> bool {
    matches!(call.func_name.as_str(), operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT)
}

/// Whether a call looks for something in a list that is known when the rule is read, which costs nothing.
pub fn is_membership(call: &CallExpr) -> bool {
    call.func_name == operators::IN
        && matches!(call.args.as_slice(), [_, list] if matches!(list.expr, Expr::List(_)) && is_constant(list))
}

/// How large a value is.
fn size(value: &Value) -> u64 {
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.map.len(),
        value => match optionals::inner(value) {
            Some(Some(inner)) => return size(inner),
            _ => 1,
        },
    };
    size as u64
}

/// What going through all of a value costs; of texts, what their bytes do.
fn traversal(value: &Value) -> u64 {
    let text = |bytes: usize| (bytes as f64 * TEXT) as u64;
    match value {
        Value::String(string) => text(string.len()),
        Value::Bytes(bytes) => text(bytes.len()),
        Value::List(items) => items.iter().map(traversal).sum(),
        Value::Map(map) => {
            let key = |key: &Key| if let Key::String(key) = key { text(key.len()) } else { 1 };
            map.map.iter().map(|(name, value)| key(name) + traversal(value)).sum()
        }
        _ => 1,
    }
}

/// Whether what a call costs depends on what it gives.
pub fn by_result(name: &str) -> bool {
    matches!(name, "join" | "slice" | "lists.range" | "reverse")
}

/// What a call costs, its target first among the arguments.
pub fn call(name: &str, args: &[Value], result: Option<&Value>) -> u64 {
    let of = |nth: usize| args.get(nth).map_or(1, size);
    let text = |size: u64| scaled(size, TEXT);
    let is_text = |nth: usize| matches!(args.get(nth), Some(Value::String(_) | Value::Bytes(_)));
    let pattern = |nth: usize| text(of(0).saturating_add(1)).saturating_mul(scaled(of(nth), PATTERN));
    match name {
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => args.first().map_or(0, traversal),
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey" => text(of(0)),
        "replace" | "split" | "ip.isCanonical" => scaled(of(0), 2.0 * TEXT),
        "join" => scaled(result.map_or(1, size), 2.0 * TEXT),
        "find" | "findAll" | "matches" => pattern(1),
        "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => text(of(0)),
        "validate" => text(of(1).saturating_add(1)).saturating_mul(scaled(FORMAT, PATTERN)),
        // A text is read first.
        "containsIP" | "containsCIDR" => {
            let read = if is_text(1) { text(of(1)) } else { 0 };
            read.saturating_add(if name == "containsIP" { 1 } else { 3 })
        }
        "startsWith" | "endsWith" => text(of(1)),
        "contains" if is_text(0) => text(of(0)).saturating_mul(text(of(1))),
        "format" | "strings.quote" => text(of(0)),
        "bytes" if matches!(args, [Value::String(_)]) => text(of(0)),
        "string" if matches!(args, [Value::Bytes(_)]) => text(of(0)),
        operators::IN if matches!(args.get(1), Some(Value::List(_))) => of(1),
        operators::EQUALS | operators::NOT_EQUALS => text(of(0).min(of(1))),
        operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS if is_text(0) => {
            text(of(0).min(of(1)))
        }
        operators::ADD if is_text(0) => text(of(0).saturating_add(of(1))),
        "sets.contains" | "sets.intersects" => of(0).saturating_mul(of(1)).saturating_add(1),
        "sets.equivalent" => of(0).saturating_mul(of(1)).saturating_mul(2).saturating_add(1),
        "slice" | "lists.range" | "reverse" if !is_text(0) => {
            NEW_LIST.saturating_add(1).saturating_add(result.map_or(0, size))
        }
        "distinct" | "sort" => compared(args.first()),
        super::macros::SORT_BY => compared(args.get(1)),
        _ => 1,
    }
}

/// Each item compared with each.
fn compared(list: Option<&Value>) -> u64 {
    let Some(Value::List(items)) = list else { return 1 };
    let each = if matches!(items.first(), Some(Value::String(_) | Value::Bytes(_))) { 2.0 + TEXT } else { 2.0 };
    let count = items.len() as f64;
    ((count * count * each) as u64).saturating_add(NEW_LIST + 1)
}
