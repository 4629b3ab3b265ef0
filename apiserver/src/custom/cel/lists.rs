//! Functions on lists (cel-go `ext` lists, apiserver `cel/library/lists.go`).

use super::eval::{NO_OVERLOAD, Outcome, TOO_COSTLY};
use super::optionals;
use super::values::{compare, equal};
use kube_cel::cel::Value;
use kube_cel::cel::common::ast::operators;
use std::cmp::Ordering;
use std::sync::Arc;

/// Most numbers that are listed at once.
const MAX_RANGE: i64 = 100_000;

fn list(items: Vec<Value>) -> Value {
    Value::List(Arc::new(items))
}

/// A function on lists, if this is one.
pub fn call(name: &str, args: &[Value]) -> Option<Outcome> {
    if let ("lists.range", [Value::Int(count)]) = (name, args) {
        return Some(match *count {
            count if count > MAX_RANGE => Err(TOO_COSTLY.to_owned()),
            count => Ok(list((0..count).map(Value::Int).collect())),
        });
    }
    let (Value::List(items), rest) = args.split_first()? else { return None };
    Some(match (name, rest) {
        ("first", []) => Ok(optionals::of(items.first().cloned())),
        ("last", []) => Ok(optionals::of(items.last().cloned())),
        ("reverse", []) => Ok(list(items.iter().rev().cloned().collect())),
        ("distinct", []) => Ok(distinct(items)),
        ("flatten", []) => Ok(list(flat(items, 1))),
        ("flatten", [Value::Int(depth)]) if *depth < 0 => Err("level must be non-negative".to_owned()),
        ("flatten", [Value::Int(depth)]) => Ok(list(flat(items, *depth))),
        ("slice", [Value::Int(start), Value::Int(end)]) => slice(items, *start, *end),
        ("sort", []) => sorted(items, items),
        ("isSorted", []) => is_sorted(items),
        ("min", []) => most(items, Ordering::Less, "min"),
        ("max", []) => most(items, Ordering::Greater, "max"),
        ("sum", []) => sum(items),
        ("indexOf", [item]) => Ok(at(items.iter().position(|other| equal(other, item)))),
        ("lastIndexOf", [item]) => Ok(at(items.iter().rposition(|other| equal(other, item)))),
        _ => return None,
    })
}

fn at(position: Option<usize>) -> Value {
    Value::Int(position.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn distinct(items: &[Value]) -> Value {
    let mut kept: Vec<Value> = Vec::new();
    for item in items {
        if !kept.iter().any(|other| equal(other, item)) {
            kept.push(item.clone());
        }
    }
    list(kept)
}

/// Lists in lists, so many levels of them, as one.
fn flat(items: &[Value], depth: i64) -> Vec<Value> {
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Value::List(inner) if depth > 0 => out.extend(flat(inner, depth - 1)),
            other => out.push(other.clone()),
        }
    }
    out
}

fn slice(items: &[Value], start: i64, end: i64) -> Outcome {
    if start < 0 || end < 0 {
        return Err(format!("cannot slice({start}, {end}), negative indexes not supported"));
    }
    if start > end {
        return Err(format!("cannot slice({start}, {end}), start index must be less than or equal to end index"));
    }
    let part =
        usize::try_from(start).ok().zip(usize::try_from(end).ok()).and_then(|(start, end)| items.get(start..end));
    part.map(|part| list(part.to_vec()))
        .ok_or_else(|| format!("cannot slice({start}, {end}), list is length {}", items.len()))
}

fn sorted(items: &[Value], keys: &[Value]) -> Outcome {
    if items.len() != keys.len() {
        return Err(NO_OVERLOAD.to_owned());
    }
    if keys.windows(2).any(|pair| matches!(pair, [one, other] if compare(one, other).is_none())) {
        return Err("list elements must have the same type".to_owned());
    }
    let mut pairs: Vec<_> = keys.iter().zip(items).collect();
    pairs.sort_by(|one, other| compare(one.0, other.0).unwrap_or(Ordering::Equal));
    Ok(list(pairs.into_iter().map(|(_, item)| item.clone()).collect()))
}

/// A list in the order of keys beside it.
pub fn sort_by(items: &Value, keys: &Value) -> Outcome {
    match (items, keys) {
        (Value::List(items), Value::List(keys)) => sorted(items, keys),
        _ => Err(NO_OVERLOAD.to_owned()),
    }
}

fn is_sorted(items: &[Value]) -> Outcome {
    for pair in items.windows(2) {
        let [one, other] = pair else { continue };
        match compare(one, other) {
            Some(Ordering::Greater) => return Ok(Value::Bool(false)),
            Some(_) => {}
            None => return Err(NO_OVERLOAD.to_owned()),
        }
    }
    Ok(Value::Bool(true))
}

fn most(items: &[Value], wanted: Ordering, name: &str) -> Outcome {
    let mut items = items.iter();
    let mut found = items.next().ok_or_else(|| format!("{name} called on empty list"))?;
    for item in items {
        if compare(item, found).ok_or(NO_OVERLOAD)? == wanted {
            found = item;
        }
    }
    Ok(found.clone())
}

fn sum(items: &[Value]) -> Outcome {
    let Some((first, rest)) = items.split_first() else { return Ok(Value::Int(0)) };
    rest.iter().try_fold(first.clone(), |sum, item| {
        super::values::operator(operators::ADD, &[sum, item.clone()]).unwrap_or_else(|| Err(NO_OVERLOAD.to_owned()))
    })
}
