//! Running an expression (the language's definition, "Evaluation"). What is the language's own is done here; functions on
//! values that are only passed on (quantities, addresses, versions) are those of the library of functions.

use super::cost::NEW_LIST;
use super::macros::{INSERT, SORT_BY, path};
use super::parser::RESERVED;
use super::{format, lists, optionals, spend, values, words};
use crate::custom::patterns;
use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, ListExpr, LiteralValue, SelectExpr, operators,
};
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, IdedExpr, Value};
use regex::Regex;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// A value, or why there is none, in cel-go's words.
pub type Outcome = Result<Value, String>;

pub const NO_OVERLOAD: &str = "no such overload";
/// What takes too long is given up.
pub const TOO_COSTLY: &str = "operation cancelled: actual cost limit exceeded";

/// Most nodes that are gone through in one run: constants cost nothing.
const MAX_STEPS: u32 = 5_000_000;

/// The functions that can be called beside those of the language, set up once.
static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(|| Context::default().with_all());

/// Runs a tree with variables: what it gives, or why it has no value, and what it cost.
pub fn measure(tree: &IdedExpr, variables: Vec<(String, Value)>) -> (Outcome, u64) {
    let mut run = Run { variables, patterns: HashMap::new(), steps: 0, cost: 0 };
    let outcome = run.node(tree);
    let outcome = if run.cost > spend::LIMIT { Err(TOO_COSTLY.to_owned()) } else { outcome };
    (outcome, run.cost)
}

struct Run {
    /// The innermost last.
    variables: Vec<(String, Value)>,
    patterns: HashMap<String, Result<Regex, String>>,
    steps: u32,
    cost: u64,
}

impl Run {
    fn node(&mut self, node: &IdedExpr) -> Outcome {
        self.steps += 1;
        if self.steps > MAX_STEPS || self.cost > spend::LIMIT {
            return Err(TOO_COSTLY.to_owned());
        }
        if matches!(node.expr, Expr::List(_) | Expr::Map(_) | Expr::Call(_)) && spend::is_constant(node) {
            let before = self.cost;
            let value = self.composed(node);
            self.cost = before;
            return value;
        }
        self.spend(spend::made(node));
        self.composed(node)
    }

    fn spend(&mut self, cost: u64) {
        self.cost = self.cost.saturating_add(cost);
    }

    /// A branch of a choice, or an index.
    fn inner(&mut self, node: &IdedExpr) -> Outcome {
        let value = self.node(node);
        self.cost = self.cost.saturating_sub(spend::discount(node));
        value
    }

    fn composed(&mut self, node: &IdedExpr) -> Outcome {
        match &node.expr {
            Expr::Literal(literal) => Ok(literal_value(literal)),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(&map.entries),
            Expr::Comprehension(of) => self.comprehension(of),
            Expr::Struct(_) | Expr::Unspecified => Err(NO_OVERLOAD.to_owned()),
        }
    }

    fn variable(&mut self, name: &str) -> Outcome {
        let plain = name.strip_prefix('.').unwrap_or(name);
        // A point before a name passes by the variables of loops, which come behind the rule's own.
        let found = match plain == name {
            true => self.variables.iter().rev().find(|(variable, _)| variable == name),
            false => self.variables.iter().find(|(variable, _)| variable == plain),
        };
        match found {
            Some((_, value)) => {
                let value = value.clone();
                self.spend(1);
                Ok(value)
            }
            None => values::type_named(plain).ok_or_else(|| format!("no such attribute(s): {name}")),
        }
    }

    fn select(&mut self, select: &SelectExpr) -> Outcome {
        let operand = match self.node(&select.operand) {
            Ok(operand) => operand,
            Err(why) => {
                let full = path(&select.operand).map(|prefix| format!("{prefix}.{}", select.field));
                return full.and_then(|full| values::type_named(&full)).ok_or(why);
            }
        };
        if !select.test {
            self.spend(spend::selected(&select.operand));
        }
        let (of, wrapped) = match optionals::inner(&operand) {
            Some(None) if select.test => return Ok(Value::Bool(false)),
            Some(None) => return Ok(operand),
            Some(Some(inner)) => (inner.clone(), true),
            None => (operand, false),
        };
        let Value::Map(map) = of else { return Err(format!("no such key: {}", select.field)) };
        let key = |name: String| Key::String(Arc::new(name));
        // Fields by the names of words that are no names are there by others.
        let found = map.map.get(&key(select.field.clone())).or_else(|| {
            let reserved = RESERVED.contains(&select.field.as_str());
            reserved.then(|| map.map.get(&key(format!("__{}__", select.field)))).flatten()
        });
        match found {
            _ if select.test => Ok(Value::Bool(found.is_some())),
            _ if wrapped => Ok(optionals::of(found.cloned())),
            Some(value) => Ok(value.clone()),
            None => Err(format!("no such key: {}", select.field)),
        }
    }

    fn list(&mut self, list: &ListExpr) -> Outcome {
        let mut items = Vec::with_capacity(list.elements.len());
        for (nth, item) in list.elements.iter().enumerate() {
            let value = self.node(item)?;
            match list.optional_indices.contains(&nth).then(|| optionals::inner(&value)).flatten() {
                Some(inner) => items.extend(inner.cloned()),
                None => items.push(value),
            }
        }
        Ok(Value::List(Arc::new(items)))
    }

    fn map(&mut self, entries: &[IdedEntryExpr]) -> Outcome {
        let mut map = HashMap::with_capacity(entries.len());
        for entry in entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else { return Err(NO_OVERLOAD.to_owned()) };
            let key = values::key(&self.node(&entry.key)?)?;
            let value = self.node(&entry.value)?;
            match entry.optional.then(|| optionals::inner(&value)).flatten() {
                Some(None) => {}
                Some(Some(inner)) => drop(map.insert(key, inner.clone())),
                None => drop(map.insert(key, value)),
            }
        }
        Ok(Value::Map(Map { map: Arc::new(map) }))
    }

    fn comprehension(&mut self, of: &ComprehensionExpr) -> Outcome {
        let range = self.node(&of.iter_range)?;
        let gathered = self.node(&of.accu_init)?;
        let depth = self.variables.len();
        self.variables.push((of.accu_var.clone(), gathered));
        let result = self.rounds(of, &range, depth);
        self.variables.truncate(depth + 1);
        let result = result.and_then(|()| self.node(&of.result));
        self.variables.truncate(depth);
        match result {
            Ok(Value::Function(why, None)) => Err(why.to_string()),
            result => result,
        }
    }

    fn rounds(&mut self, of: &ComprehensionExpr, range: &Value, depth: usize) -> Result<(), String> {
        for (key, value) in values::entries(range).ok_or(NO_OVERLOAD)? {
            self.variables.truncate(depth + 1);
            let one = if matches!(range, Value::List(_)) { value.clone() } else { key.clone() };
            match &of.iter_var2 {
                Some(second) => {
                    self.variables.push((of.iter_var.clone(), key));
                    self.variables.push((second.clone(), value));
                }
                None => self.variables.push((of.iter_var.clone(), one)),
            }
            if self.node(&of.loop_cond)? == Value::Bool(false) {
                return Ok(());
            }
            let step = self.step(of, depth);
            // What fails in a round of `all` or `exists` counts only where no other round decides.
            if let Some((_, gathered)) = self.variables.get_mut(depth) {
                *gathered = match step {
                    Ok(value) => value,
                    Err(why) if matches!(of.accu_init.expr, Expr::Literal(LiteralValue::Boolean(_))) => failure(why),
                    Err(why) => return Err(why),
                };
            }
        }
        Ok(())
    }

    /// What a round adds is not copied into what was there, but taken over.
    fn step(&mut self, of: &ComprehensionExpr, depth: usize) -> Outcome {
        if let Some((Value::List(_), item)) = self.variables.get(depth).map(|(_, value)| value).zip(appended(of)) {
            // What has been gathered, a list of the item, and putting them together.
            self.spend(if spend::is_constant(item) { 2 } else { 2 + NEW_LIST });
            let value = self.node(item)?;
            if let Some((_, Value::List(list))) = self.variables.get_mut(depth) {
                Arc::make_mut(list).push(value);
                return Ok(Value::List(std::mem::take(list)));
            }
        }
        self.node(&of.loop_step)
    }

    fn call(&mut self, call: &CallExpr) -> Outcome {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => match self.node(condition)? {
                Value::Bool(true) => self.inner(yes),
                Value::Bool(false) => self.inner(no),
                other => Err(reason(&other)),
            },
            (operators::LOGICAL_AND, [one, other]) => self.logic(one, other, false),
            (operators::LOGICAL_OR, [one, other]) => self.logic(one, other, true),
            (operators::NOT_STRICTLY_FALSE, [arg]) => {
                self.spend(1);
                Ok(Value::Bool(!matches!(self.node(arg), Ok(Value::Bool(false)))))
            }
            ("or" | "orValue", [other]) if call.target.is_some() => self.or(call, other),
            _ => self.function(call),
        }
    }

    /// One side can decide, whatever is wrong with the other.
    fn logic(&mut self, one: &IdedExpr, other: &IdedExpr, decides: bool) -> Outcome {
        let mut wrong = None;
        for side in [one, other] {
            match self.node(side) {
                Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(value) => drop(wrong.get_or_insert_with(|| reason(&value))),
                Err(why) => drop(wrong.get_or_insert(why)),
            }
        }
        wrong.map_or(Ok(Value::Bool(!decides)), Err)
    }

    /// The other is looked at only where there is none.
    fn or(&mut self, call: &CallExpr, other: &IdedExpr) -> Outcome {
        let target = call.target.as_deref().ok_or(NO_OVERLOAD)?;
        let value = self.node(target)?;
        match (optionals::inner(&value), call.func_name.as_str()) {
            (Some(Some(inner)), "orValue") => Ok(inner.clone()),
            (Some(Some(_)), _) => Ok(value),
            (Some(None), _) => self.node(other),
            (None, _) => Err(NO_OVERLOAD.to_owned()),
        }
    }

    fn function(&mut self, call: &CallExpr) -> Outcome {
        let mut args = Vec::with_capacity(call.args.len() + 1);
        if let Some(target) = &call.target {
            args.push(self.node(target)?);
        }
        let is_index = spend::is_index(call);
        for (nth, arg) in call.args.iter().enumerate() {
            args.push(if is_index && nth > 0 { self.inner(arg)? } else { self.node(arg)? });
        }
        let name = call.func_name.strip_prefix('.').unwrap_or(&call.func_name);
        match call.args.first() {
            Some(of) if is_index => self.spend(spend::selected(of)),
            _ if spend::is_membership(call) => {}
            _ if spend::by_result(name) => {
                let outcome = self.called(name, call, &args);
                self.spend(spend::call(name, &args, outcome.as_ref().ok()));
                return outcome;
            }
            _ => self.spend(spend::call(name, &args, None)),
        }
        self.called(name, call, &args)
    }

    fn called(&mut self, name: &str, call: &CallExpr, args: &[Value]) -> Outcome {
        if let Some(outcome) = values::operator(name, args) {
            return outcome;
        }
        match (name, args) {
            ("matches" | "find" | "findAll", [Value::String(text), Value::String(pattern), rest @ ..]) => {
                let pattern = self.pattern(pattern)?;
                return Ok(matched(name, text, pattern, rest));
            }
            (INSERT, [Value::Map(map), rest @ ..]) => return insert(map, rest),
            (SORT_BY, [items, keys]) => return lists::sort_by(items, keys),
            ("format", [Value::String(text), Value::List(args)]) => {
                return format::format(text, args).map(|text| Value::String(Arc::new(text)));
            }
            _ => {}
        }
        let own = lists::call(name, args).or_else(|| optionals::call(name, args));
        own.unwrap_or_else(|| {
            let value = Self::library(name, call.target.is_some(), args)?;
            Ok(match name {
                // The library has no values that may not be there.
                "validate" | "format.named" => optionals::from_library(value),
                _ => value,
            })
        })
    }

    fn pattern(&mut self, text: &str) -> Result<&Regex, String> {
        let compiled = self.patterns.entry(text.to_owned()).or_insert_with(|| patterns::compile(text));
        compiled.as_ref().map_err(Clone::clone)
    }

    /// A function of the library, which takes values as variables.
    fn library(name: &str, member: bool, args: &[Value]) -> Outcome {
        let mut context = FUNCTIONS.new_inner_scope();
        let mut names = Vec::with_capacity(args.len());
        for (nth, arg) in args.iter().enumerate() {
            let name = format!("@{nth}");
            context.add_variable_from_value(&name, arg.clone());
            names.push(IdedExpr { id: 0, expr: Expr::Ident(name) });
        }
        let target = (member && !names.is_empty()).then(|| Box::new(names.remove(0)));
        let call = CallExpr { func_name: name.to_owned(), target, args: names };
        let value = Value::resolve(&IdedExpr { id: 0, expr: Expr::Call(call) }, &context);
        value.map_err(|error| words::of(name, args, &error))
    }
}

/// What `map` and `filter` without a condition put behind what they have.
fn appended(of: &ComprehensionExpr) -> Option<&IdedExpr> {
    let Expr::Call(CallExpr { func_name, args, .. }) = &of.loop_step.expr else { return None };
    match args.as_slice() {
        [so_far, IdedExpr { expr: Expr::List(list), .. }]
            if func_name == operators::ADD && matches!(&so_far.expr, Expr::Ident(name) if *name == of.accu_var) =>
        {
            list.elements.first().filter(|_| list.elements.len() == 1 && list.optional_indices.is_empty())
        }
        _ => None,
    }
}

/// Stands for what went wrong, in what a loop gathers.
fn failure(why: String) -> Value {
    Value::Function(Arc::new(why), None)
}

/// Why a value is not the bool that it should be.
fn reason(value: &Value) -> String {
    match value {
        Value::Function(why, None) => why.to_string(),
        _ => NO_OVERLOAD.to_owned(),
    }
}

fn insert(map: &Map, rest: &[Value]) -> Outcome {
    let mut entries = (*map.map).clone();
    let more = match rest {
        [key, value] => vec![(values::key(key)?, value.clone())],
        [Value::Map(more)] => more.map.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        _ => return Err(NO_OVERLOAD.to_owned()),
    };
    for (key, value) in more {
        if entries.contains_key(&key) {
            return Err(format!("insert failed: key {} already exists", values::shown_key(&key)));
        }
        entries.insert(key, value);
    }
    Ok(Value::Map(Map { map: Arc::new(entries) }))
}

fn matched(name: &str, text: &str, pattern: &Regex, rest: &[Value]) -> Value {
    let string = |text: &str| Value::String(Arc::new(text.to_owned()));
    match name {
        "matches" => Value::Bool(pattern.is_match(text)),
        "find" => string(pattern.find(text).map_or("", |found| found.as_str())),
        _ => {
            // Below zero there is no limit.
            let most = match rest {
                [Value::Int(most)] => usize::try_from(*most).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            let found = pattern.find_iter(text).take(most).map(|found| string(found.as_str()));
            Value::List(Arc::new(found.collect()))
        }
    }
}

fn literal_value(literal: &LiteralValue) -> Value {
    match literal {
        LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
        LiteralValue::Bytes(value) => Value::Bytes(Arc::new(value.inner().to_vec())),
        LiteralValue::Double(value) => Value::Float(*value.inner()),
        LiteralValue::Int(value) => Value::Int(*value.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(value) => Value::String(Arc::new(value.inner().to_owned())),
        LiteralValue::UInt(value) => Value::UInt(*value.inner()),
    }
}
