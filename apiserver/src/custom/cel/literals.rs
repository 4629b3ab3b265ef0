//! What can be told of literals once the types agree (cel-go's validators): times, durations and patterns that are none, and
//! lists and maps whose parts are not alike.

use super::checker::Checked;
use super::source::Issue;
use super::types::Type;
use super::{eval, format};
use crate::custom::patterns;
use coracle_api::clock;
use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, MapExpr};
use std::collections::HashMap;

/// Everything that is wrong with the literals of a tree.
pub fn check(tree: &IdedExpr, offsets: &HashMap<u64, u32>, checked: &Checked) -> Vec<Issue> {
    let (mut nodes, mut plain) = (Vec::new(), Vec::new());
    gather(tree, false, &mut nodes, &mut plain);
    let mut literals = Literals { checked, offsets, issues: Vec::new() };
    for name in ["duration", "timestamp", "matches"] {
        for node in &nodes {
            if let Expr::Call(call) = &node.expr
                && call.func_name == name
            {
                literals.argument(call);
            }
        }
    }
    for node in &plain {
        if let Expr::List(list) = &node.expr {
            let parts = list.elements.iter().enumerate();
            literals.items(parts.map(|(nth, item)| (item, list.optional_indices.contains(&nth))));
        }
    }
    for node in &plain {
        if let Expr::Map(map) = &node.expr {
            literals.entries(map);
        }
    }
    for node in &nodes {
        if let Expr::Call(call) = &node.expr {
            literals.places(node, call);
        }
    }
    literals.issues
}

/// Why a literal cannot become what it is turned into: upstream does so before anything runs.
pub fn unfit(tree: &IdedExpr) -> Option<String> {
    const TURNED: [&str; 8] = ["bool", "bytes", "double", "duration", "int", "string", "timestamp", "uint"];
    let (mut nodes, mut plain) = (Vec::new(), Vec::new());
    gather(tree, false, &mut nodes, &mut plain);
    nodes.into_iter().find_map(|node| match &node.expr {
        Expr::Call(CallExpr { func_name, target: None, args }) if TURNED.contains(&func_name.as_str()) => {
            matches!(args.as_slice(), [IdedExpr { expr: Expr::Literal(_), .. }])
                .then(|| eval::measure(node, Vec::new()).0.err())?
        }
        _ => None,
    })
}

/// A node and all below it; `plain`: those that are not in what is put into a text, which may be of all kinds.
fn gather<'t>(node: &'t IdedExpr, inside: bool, nodes: &mut Vec<&'t IdedExpr>, plain: &mut Vec<&'t IdedExpr>) {
    nodes.push(node);
    if !inside {
        plain.push(node);
    }
    let inside = inside || matches!(&node.expr, Expr::Call(call) if call.func_name == "format");
    for child in children(node) {
        gather(child, inside, nodes, plain);
    }
}

/// The nodes right below one.
fn children(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Expr::Select(select) => vec![&select.operand],
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(MapExpr { entries }) => entries.iter().flat_map(|entry| parts(&entry.expr)).collect(),
        Expr::Comprehension(of) => {
            vec![&of.iter_range, &of.accu_init, &of.loop_cond, &of.loop_step, &of.result]
        }
        Expr::Struct(of) => of.entries.iter().flat_map(|entry| parts(&entry.expr)).collect(),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

fn parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}

struct Literals<'c> {
    checked: &'c Checked,
    offsets: &'c HashMap<u64, u32>,
    issues: Vec<Issue>,
}

impl Literals<'_> {
    fn wrong(&mut self, id: u64, message: String) {
        self.issues.push(Issue { at: self.offsets.get(&id).copied().unwrap_or_default(), message });
    }

    /// Only the first argument is looked at.
    fn argument(&mut self, call: &CallExpr) {
        let Some(first) = call.args.first() else { return };
        let Expr::Literal(literal) = &first.expr else { return };
        let fits = match (call.func_name.as_str(), literal) {
            ("duration", LiteralValue::String(text)) => duration(text.inner()).is_some(),
            ("timestamp", LiteralValue::String(text)) => clock::parse_rfc3339(text.inner()).is_some(),
            // The first second of the year 1, and the last of 9999.
            ("timestamp", LiteralValue::Int(seconds)) => (-62_135_596_800..=253_402_300_799).contains(seconds.inner()),
            ("matches", LiteralValue::String(pattern)) => patterns::compile(pattern.inner()).is_ok(),
            _ => true,
        };
        if !fits {
            self.wrong(first.id, format!("invalid {} argument", call.func_name));
        }
    }

    /// A text that is written there, and what is put into it.
    fn places(&mut self, node: &IdedExpr, call: &CallExpr) {
        let Some(IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }) = call.target.as_deref() else {
            return;
        };
        let ("format", [IdedExpr { expr: Expr::List(list), .. }]) = (call.func_name.as_str(), call.args.as_slice())
        else {
            return;
        };
        let types: Vec<Type> = list.elements.iter().map(|item| self.type_of(item, false)).collect();
        if let Err((why, at)) = format::check(text.inner(), &types) {
            let at = at.and_then(|at| list.elements.get(at)).unwrap_or(node);
            self.wrong(at.id, why);
        }
    }

    fn type_of(&self, node: &IdedExpr, optional: bool) -> Type {
        let ty = self.checked.types.get(&node.id).cloned().unwrap_or(Type::Error);
        match ty.unwrapped().filter(|_| optional) {
            Some(inner) => inner.clone(),
            None => ty,
        }
    }

    /// Whether a part is like the first one.
    fn alike(&mut self, node: &IdedExpr, optional: bool, first: &mut Option<Type>) -> bool {
        let ty = self.type_of(node, optional);
        match first {
            None => *first = Some(ty),
            Some(first) if *first != ty && !first.is_like(&ty) => {
                self.wrong(node.id, format!("expected type '{first}' but found '{ty}'"));
                return false;
            }
            Some(_) => {}
        }
        true
    }

    fn items<'t>(&mut self, parts: impl Iterator<Item = (&'t IdedExpr, bool)>) {
        let mut first = None;
        for (item, optional) in parts {
            if !self.alike(item, optional, &mut first) {
                return;
            }
        }
    }

    fn entries(&mut self, map: &MapExpr) {
        let (mut key, mut value) = (None, None);
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
            self.alike(&entry.key, false, &mut key);
            self.alike(&entry.value, entry.optional, &mut value);
        }
    }
}

/// Nanoseconds of a duration as Go writes it (`time.ParseDuration`).
pub fn duration(text: &str) -> Option<i64> {
    let (minus, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0_i128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000_i128,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() || part.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()?.into() };
        // Digits below a nanosecond do not count.
        let part: String = part.chars().take(18).collect();
        let scale = 10_i128.pow(u32::try_from(part.len()).ok()?);
        let part = if part.is_empty() { 0 } else { part.parse::<i128>().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?.checked_add(part * unit / scale)?;
        rest = behind;
    }
    i64::try_from(if minus { -total } else { total }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, expected) in [
            ("1h2m3.5s", Some(3_723_500_000_000)),
            ("-1.5ms", Some(-1_500_000)),
            ("0", Some(0)),
            (".5s", Some(500_000_000)),
            ("+1us", Some(1000)),
            ("1", None),
            ("", None),
            ("1d", None),
            (".s", None),
            ("1.1.1s", None),
            ("9999999999h", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }
}
