//! What an expression can cost at most, before any object is measured by it (cel-go `checker/cost.go`): a loop costs its
//! body as often as there can be items, which is what the schema says, or what fits into a request.

use super::checker::Checked;
use super::cost_calls::{Argument, Call};
use super::macros::{RESULT, UNUSED};
use super::schema::Declared;
use super::types::Type;
use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, LiteralValue, operators,
};
use std::collections::HashMap;

/// How long something can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub min: u64,
    pub max: u64,
}

impl Size {
    pub const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    pub fn exactly(size: u64) -> Self {
        Self { min: size, max: size }
    }

    pub fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub fn or(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// What it costs to go through it.
    pub fn at(self, factor: f64) -> u64 {
        scaled(self.max, factor)
    }
}

/// What a text costs for each of its characters.
pub const TEXT: f64 = 0.1;
pub const NEW_LIST: u64 = 10;
pub const NEW_MAP: u64 = 30;

/// A part of a cost, rounded up.
pub fn scaled(cost: u64, factor: f64) -> u64 {
    let scaled = (cost as f64 * factor).ceil();
    if scaled >= u64::MAX as f64 { u64::MAX } else { scaled as u64 }
}

/// The sizes of what a list or map holds.
#[derive(Clone, Copy, Debug)]
pub struct Entries {
    list: bool,
    key: Size,
    value: Size,
}

impl Entries {
    fn or(self, other: Self) -> Self {
        Self { list: self.list, key: self.key.or(other.key), value: self.value.or(other.value) }
    }
}

/// Where a value stands below a variable.
pub type Path = Vec<String>;

#[derive(Clone, Debug, Default)]
struct Local {
    path: Path,
    size: Option<Size>,
    entries: Option<Entries>,
}

/// What sizes are known of.
#[derive(Clone, Copy)]
pub struct Root<'d> {
    pub declared: &'d Declared,
    /// The variable that it is; for a schema upstream does not ask what a path begins with.
    pub variable: Option<&'static str>,
}

/// The most that a tree can cost.
pub fn estimate(tree: &IdedExpr, checked: &Checked, root: Option<Root<'_>>) -> u64 {
    let mut costs = Costs {
        checked,
        root,
        paths: HashMap::new(),
        locals: Vec::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
    };
    costs.node(tree)
}

pub struct Costs<'c> {
    checked: &'c Checked,
    root: Option<Root<'c>>,
    paths: HashMap<u64, Path>,
    locals: Vec<(String, Local)>,
    sizes: HashMap<u64, Size>,
    entries: HashMap<u64, Entries>,
}

impl Costs<'_> {
    fn node(&mut self, node: &IdedExpr) -> u64 {
        match &node.expr {
            Expr::Literal(_) | Expr::Unspecified => 0,
            Expr::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(node.id, path);
                1
            }
            Expr::Select(select) => {
                let cost = self.node(&select.operand);
                if select.test {
                    return cost;
                }
                let mut path = self.path(&select.operand);
                path.push(select.field.clone());
                self.paths.insert(node.id, path);
                let counts = matches!(self.type_of(&select.operand), Type::Map(_) | Type::Object(_));
                cost.saturating_add(u64::from(counts))
            }
            Expr::Call(call) => self.call(node, call),
            Expr::List(list) => {
                let mut cost = NEW_LIST;
                let mut value = Size { min: if list.elements.is_empty() { 0 } else { u64::MAX }, max: 0 };
                for item in &list.elements {
                    cost = cost.saturating_add(self.node(item));
                    value = value.or(self.size_or_unknown(item));
                }
                self.entries.insert(node.id, Entries { list: true, key: Size::exactly(1), value });
                cost
            }
            Expr::Map(map) => self.map(node, &map.entries),
            Expr::Struct(_) => 0,
            Expr::Comprehension(of) if is_bind(of) => self.bind(node, of),
            Expr::Comprehension(of) => self.comprehension(node, of),
        }
    }

    fn map(&mut self, node: &IdedExpr, entries: &[IdedEntryExpr]) -> u64 {
        let mut cost = NEW_MAP;
        let nothing = Size { min: if entries.is_empty() { 0 } else { u64::MAX }, max: 0 };
        let (mut key, mut value) = (nothing, nothing);
        for entry in entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
            cost = cost.saturating_add(self.node(&entry.key)).saturating_add(self.node(&entry.value));
            key = key.or(self.size_or_unknown(&entry.key));
            value = value.or(self.size_or_unknown(&entry.value));
        }
        self.entries.insert(node.id, Entries { list: false, key, value });
        cost
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|(local, _)| local == name).map(|(_, local)| local)
    }

    pub fn type_of(&self, node: &IdedExpr) -> Type {
        self.checked.types.get(&node.id).cloned().unwrap_or(Type::Error)
    }

    fn path(&self, node: &IdedExpr) -> Path {
        if let Expr::Ident(name) = &node.expr
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&node.id).cloned().unwrap_or_default()
    }

    pub fn size_or_unknown(&mut self, node: &IdedExpr) -> Size {
        self.size(node).unwrap_or(Size::UNKNOWN)
    }

    fn size(&mut self, node: &IdedExpr) -> Option<Size> {
        if let Some(size) = self.sizes.get(&node.id) {
            return Some(*size);
        }
        if let Some(size) = literal_size(&node.expr) {
            return Some(size);
        }
        if let Some(size) = self.declared(&self.path(node)) {
            self.sizes.insert(node.id, size);
            return Some(size);
        }
        if is_scalar(&self.type_of(node)) {
            return Some(Size::exactly(1));
        }
        let Expr::Ident(name) = &node.expr else { return None };
        self.local(name).and_then(|local| local.size)
    }

    /// The size that is declared for what stands there.
    pub fn declared(&self, path: &[String]) -> Option<Size> {
        let (first, steps) = path.split_first()?;
        let root = self.root.filter(|root| root.variable.is_none_or(|variable| variable == first))?;
        let mut declared = root.declared;
        for step in steps {
            declared = match step.as_str() {
                "@items" | "@values" => declared.item.as_deref()?,
                "@keys" => declared.key.as_deref()?,
                field => {
                    let named = || declared.item.as_ref().filter(|item| item.by_name);
                    declared.fields.get(field).or_else(named)?
                }
            };
        }
        Some(Size { min: 0, max: declared.most })
    }

    pub fn entries_of(&self, node: &IdedExpr) -> Option<Entries> {
        if let Some(entries) = self.entries.get(&node.id) {
            return Some(*entries);
        }
        let Expr::Ident(name) = &node.expr else { return None };
        self.local(name).and_then(|local| local.entries)
    }

    /// What is to be known of a part of a call, once its own cost is.
    fn argument<'n>(&mut self, node: &'n IdedExpr, cost: u64) -> Argument<'n> {
        let mut path = self.path(node);
        if path.first().is_some_and(|name| matches!(name.as_str(), RESULT | "__result__")) {
            path.clear();
        }
        Argument { node, path, ty: self.type_of(node), size: self.size(node), cost }
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr) -> u64 {
        if let ("dyn", [arg]) = (call.func_name.as_str(), call.args.as_slice()) {
            let cost = self.node(arg);
            self.copy(node, arg);
            return cost.saturating_add(1);
        }
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            let cost = self.node(arg);
            args.push(self.argument(arg, cost));
        }
        let Some(overloads) = self.checked.overloads.get(&node.id) else { return 0 };
        let mut outer = 0;
        let target = call.target.as_deref().map(|target| {
            outer = self.node(target);
            self.argument(target, 0)
        });
        let (mut most, mut result) = (0, None::<Size>);
        for overload in overloads {
            let of = Call { function: &call.func_name, overload, target: target.as_ref(), args: &args };
            let (cost, size) = of.cost(self);
            most = most.max(cost);
            result = match (result, size) {
                (Some(before), Some(size)) => Some(before.or(size)),
                (before, size) => before.or(size),
            };
            self.indexed(node, overload, &call.args, &mut result);
            if result.is_none() {
                result = self.size(node);
            }
        }
        self.joined_entries(node, call);
        if let Some(size) = result {
            self.sizes.insert(node.id, size);
        }
        outer.saturating_add(most)
    }

    /// What is taken out of a list or map stands below it.
    fn indexed(&mut self, node: &IdedExpr, overload: &str, args: &[IdedExpr], result: &mut Option<Size>) {
        let step = match overload {
            "index_list" => "@items",
            "index_map" => "@values",
            _ => return,
        };
        let Some(of) = args.first() else { return };
        *result = self.entries_of(of).map(|entries| entries.value);
        let mut path = self.path(of);
        path.push(step.to_owned());
        self.paths.insert(node.id, path);
    }

    /// Choices and sums of lists hold what their parts hold.
    fn joined_entries(&mut self, node: &IdedExpr, call: &CallExpr) {
        let parts = match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::CONDITIONAL, [_, yes, no]) => (yes, no),
            (operators::ADD, [left, right]) => (left, right),
            _ => return,
        };
        if let (Some(one), Some(other)) = (self.entries_of(parts.0), self.entries_of(parts.1)) {
            self.entries.insert(node.id, one.or(other));
        }
    }

    fn copy(&mut self, to: &IdedExpr, from: &IdedExpr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entries) = self.entries_of(from) {
            self.entries.insert(to.id, entries);
        }
    }

    fn named(&mut self, value: &IdedExpr) -> Local {
        Local { path: self.path(value), size: self.size(value), entries: self.entries_of(value) }
    }

    fn bind(&mut self, node: &IdedExpr, of: &ComprehensionExpr) -> u64 {
        let mut cost = self.node(&of.iter_range).saturating_add(self.node(&of.accu_init));
        let local = self.named(&of.accu_init);
        self.locals.push((of.accu_var.clone(), local));
        cost = cost.saturating_add(self.node(&of.result));
        self.locals.pop();
        self.copy(node, &of.result);
        cost
    }

    fn comprehension(&mut self, node: &IdedExpr, of: &ComprehensionExpr) -> u64 {
        let before = self.node(&of.iter_range).saturating_add(self.node(&of.accu_init));
        let depth = self.locals.len();
        let gathered = self.named(&of.accu_init);
        self.locals.push((of.accu_var.clone(), gathered));
        let entries = self.entries_of(&of.iter_range);
        let list =
            entries.map_or_else(|| matches!(self.type_of(&of.iter_range), Type::List(_)), |entries| entries.list);
        let path = self.path(&of.iter_range);
        let variable = |step: &str, size: Option<Size>| {
            let mut path = path.clone();
            path.push(step.to_owned());
            Local { path, size, entries: None }
        };
        let (key, value) = (entries.map(|entries| entries.key), entries.map(|entries| entries.value));
        let values = if list { "@items" } else { "@values" };
        match &of.iter_var2 {
            Some(second) => {
                let keys = if list { "@indices" } else { "@keys" };
                self.locals.push((of.iter_var.clone(), variable(keys, key)));
                self.locals.push((second.clone(), variable(values, value)));
            }
            None if list => self.locals.push((of.iter_var.clone(), variable("@items", value))),
            None => self.locals.push((of.iter_var.clone(), variable("@keys", key))),
        }
        let round = self.node(&of.loop_cond).saturating_add(self.node(&of.loop_step));
        self.locals.truncate(depth + 1);
        let after = self.node(&of.result);
        self.locals.pop();
        let range = self.size_or_unknown(&of.iter_range);
        match &of.accu_init.expr {
            Expr::Literal(_) => {
                if let Some(size) = self.size(&of.accu_init) {
                    self.sizes.insert(node.id, size);
                }
            }
            Expr::List(_) | Expr::Map(_) => {
                self.sizes.insert(node.id, range);
                if let Some(entries) = self.entries_of(&of.loop_step) {
                    self.entries.insert(node.id, entries);
                }
            }
            _ => {}
        }
        before.saturating_add(after).saturating_add(range.max.saturating_mul(round))
    }
}

/// A loop over nothing, which only names a value.
fn is_bind(of: &ComprehensionExpr) -> bool {
    of.iter_var == UNUSED && matches!(&of.iter_range.expr, Expr::List(list) if list.elements.is_empty())
}

fn literal_size(expr: &Expr) -> Option<Size> {
    let size = match expr {
        Expr::Literal(LiteralValue::String(text)) => text.inner().chars().count(),
        Expr::Literal(LiteralValue::Bytes(bytes)) => bytes.inner().len(),
        Expr::Literal(_) => 1,
        Expr::List(list) => list.elements.len(),
        Expr::Map(map) => map.entries.len(),
        _ => return None,
    };
    Some(Size::exactly(size as u64))
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        other => other.unwrapped().is_some_and(is_scalar),
    }
}
