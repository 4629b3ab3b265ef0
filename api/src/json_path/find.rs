//! Finds what templates name (client-go `util/jsonpath/jsonpath.go`).

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{Error, Found, Part, Result, Slice, Step, To};
use crate::go;
use crate::json::Value;

/// Most ranges that stand in each other.
const MOST_RANGES: usize = 64;

/// All that the parts find; an error where it is more than `most` values on the way.
pub(super) fn parts<'a>(parts: &'a [Part], object: &'a Value, most: usize) -> Result<Vec<Found<'a>>> {
    let mut run = Run { parts, most, begun: 0, ranges: 0, ended: 0, end: None };
    run.from(0, Cow::Borrowed(object))
}

struct Run<'a> {
    parts: &'a [Part],
    /// How many values may still be found.
    most: usize,
    /// Words that were met and not yet acted on: `range`, and `end`.
    begun: usize,
    ended: usize,
    /// In how many ranges this is.
    ranges: usize,
    /// Where the last range ended.
    end: Option<usize>,
}

impl<'a> Run<'a> {
    /// The parts from here on, up to the end of the range that this is in.
    fn from(&mut self, first: usize, object: Cow<'a, Value>) -> Result<Vec<Found<'a>>> {
        let mut all = Vec::new();
        let mut at = first;
        while let Some(part) = self.parts.get(at) {
            let found = match part {
                Part::Text(text) => vec![Cow::Borrowed(text)],
                Part::Action(steps) => self.steps(steps, vec![object.clone()])?,
            };
            if self.ended > 0 && self.ended <= self.ranges {
                self.ended -= 1;
                self.end = Some(at);
                break;
            }
            if self.begun > 0 {
                self.begun -= 1;
                self.range(at, found, &mut all)?;
                // What follows goes on behind the range; where none ended, behind its begin.
                at = self.end.filter(|end| *end > at).unwrap_or(at);
            } else {
                all.push(found);
            }
            at += 1;
        }
        Ok(all)
    }

    fn range(&mut self, at: usize, found: Found<'a>, all: &mut Vec<Found<'a>>) -> Result<()> {
        if self.ranges >= MOST_RANGES {
            return Err(Error("ranges nest too deeply".into()));
        }
        self.ranges += 1;
        if found.is_empty() {
            // Only to know where it ends.
            self.from(at + 1, Cow::Owned(Value::Null))?;
        }
        for value in found {
            all.extend(self.from(at + 1, value)?);
        }
        self.ranges -= 1;
        Ok(())
    }

    fn steps(&mut self, steps: &'a [Step], mut found: Found<'a>) -> Result<Found<'a>> {
        for step in steps {
            found = self.step(step, found)?;
            self.count(found.len())?;
        }
        Ok(found)
    }

    fn count(&mut self, found: usize) -> Result<()> {
        let left = self.most.checked_sub(found + 1);
        self.most = left.unwrap_or(0);
        if left.is_some() { Ok(()) } else { Err(Error("finds too much".into())) }
    }

    fn step(&mut self, step: &'a Step, values: Found<'a>) -> Result<Found<'a>> {
        match step {
            Step::Field(name) => Ok(values.into_iter().filter_map(|value| field(value, name)).collect()),
            Step::All => {
                let mut found = Vec::new();
                for value in values {
                    self.inside(value, &mut found)?;
                }
                Ok(found)
            }
            Step::Below => {
                let mut found = Vec::new();
                for value in values {
                    self.below(value, &mut found)?;
                }
                Ok(found)
            }
            Step::Slice(slice) => places(slice, values),
            Step::Union(each) => {
                let mut found = Vec::new();
                for steps in each {
                    found.extend(self.steps(steps, values.clone())?);
                }
                Ok(found)
            }
            Step::Filter { left, compare } => self.filter(left, compare.as_ref(), values),
            Step::Text(text) => Ok(vec![Cow::Borrowed(text)]),
            Step::Literal(literal) => Ok(values.iter().map(|_| Cow::Borrowed(literal)).collect()),
            Step::Word(word) if word == "range" => {
                self.begun += 1;
                Ok(values)
            }
            Step::Word(word) if word == "end" => {
                if self.ranges == 0 {
                    return Err(Error("not in range, nothing to end".into()));
                }
                self.ended += 1;
                Ok(Vec::new())
            }
            Step::Word(word) => Err(Error(format!("unrecognized identifier {word}"))),
        }
    }

    /// What is in a map, list, or text, whose bytes are numbers in Go.
    fn inside(&mut self, value: Cow<'a, Value>, found: &mut Found<'a>) -> Result<()> {
        let count = match &*value {
            Value::Object(map) => map.len(),
            Value::Array(items) => items.len(),
            Value::String(text) => text.len(),
            _ => 0,
        };
        self.count(count)?;
        match value {
            Cow::Borrowed(Value::Object(map)) => found.extend(map.values().map(Cow::Borrowed)),
            Cow::Borrowed(Value::Array(items)) => found.extend(items.iter().map(Cow::Borrowed)),
            // Only numbers and null are made on the way.
            other => {
                let bytes = other.as_str().unwrap_or_default().bytes();
                found.extend(bytes.map(|byte| Cow::Owned(Value::from(byte))));
            }
        }
        Ok(())
    }

    fn below(&mut self, value: Cow<'a, Value>, found: &mut Found<'a>) -> Result<()> {
        if value.as_str().is_some_and(|text| !text.is_empty()) {
            found.push(value);
            return self.count(1);
        }
        let mut inner = Vec::new();
        self.inside(value.clone(), &mut inner)?;
        if !inner.is_empty() {
            found.push(value);
        }
        inner.into_iter().try_for_each(|value| self.below(value, found))
    }

    fn filter(
        &mut self,
        left: &'a [Step],
        compare: Option<&'a (String, Vec<Step>)>,
        values: Found<'a>,
    ) -> Result<Found<'a>> {
        let mut found = Vec::new();
        for value in values {
            let items = match value {
                Cow::Borrowed(Value::Array(items)) => items,
                other => {
                    let shown = go::print(&other);
                    return Err(Error(format!("{shown} is not array or slice and cannot be filtered")));
                }
            };
            for item in items {
                self.count(1)?;
                if self.passes(item, left, compare)? {
                    found.push(Cow::Borrowed(item));
                }
            }
        }
        Ok(found)
    }

    fn passes(&mut self, item: &'a Value, left: &'a [Step], compare: Option<&'a (String, Vec<Step>)>) -> Result<bool> {
        let Some((operator, right)) = compare else {
            // What cannot be found out counts as being there: upstream looks at what the failing step was given.
            return Ok(self.steps(left, vec![Cow::Borrowed(item)]).map_or(true, |found| !found.is_empty()));
        };
        let mut one = |steps| {
            let mut found = self.steps(steps, vec![Cow::Borrowed(item)])?;
            let one = found.pop();
            if found.is_empty() { Ok(one) } else { Err(Error("can only compare one element at a time".into())) }
        };
        let Some(left) = one(left)? else { return Ok(false) };
        let Some(right) = one(right)? else { return Ok(false) };
        compares(&left, operator, &right)
    }
}

fn field<'a>(value: Cow<'a, Value>, name: &str) -> Option<Cow<'a, Value>> {
    match value {
        Cow::Borrowed(value) => value.get(name).map(Cow::Borrowed),
        // Only numbers and null are made on the way.
        Cow::Owned(_) => None,
    }
}

/// Places outside of the list are errors, but where nothing is asked for.
fn places<'a>(slice: &Slice, values: Found<'a>) -> Result<Found<'a>> {
    let mut found = Vec::new();
    for value in values {
        let items = match value {
            Cow::Borrowed(Value::Array(items)) => items,
            other if other.is_null() => continue,
            other => return Err(Error(format!("{} is not array or slice", go::type_name(&other)))),
        };
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let place = |at: i64| if at < 0 { at.saturating_add(count) } else { at };
        let from = slice.from.unwrap_or(0);
        let to = match slice.to {
            // The one behind the last is the first again, if it is counted from the end.
            To::Next if from == -1 => count,
            To::Next => place(from.wrapping_add(1)),
            To::End => count,
            To::Place(to) => place(to),
        };
        let from = place(from);
        if from == to {
            return Ok(found);
        }
        let out_of_bounds = |at: i64| Err(Error(format!("array index out of bounds: index {at}, length {count}")));
        if !(0..count).contains(&from) {
            return out_of_bounds(from);
        }
        if !(0..=count).contains(&to) {
            return out_of_bounds(to.saturating_sub(1));
        }
        if from > to {
            return Err(Error(format!("starting index {from} is greater than ending index {to}")));
        }
        let step = match slice.step {
            Some(..=0) => return Err(Error("step must be > 0".into())),
            Some(step) => usize::try_from(step).unwrap_or(usize::MAX),
            None => 1,
        };
        // They are between nothing and the length of a list.
        let (from, to) = (usize::try_from(from).unwrap_or(0), usize::try_from(to).unwrap_or(0));
        found.extend(items[from..to].iter().step_by(step).map(Cow::Borrowed));
    }
    Ok(found)
}

fn compares(left: &Value, operator: &str, right: &Value) -> Result<bool> {
    let orders = match operator {
        "==" | "!=" => false,
        "<" | "<=" | ">" | ">=" => true,
        _ => return Err(Error(format!("unrecognized filter operator {operator}"))),
    };
    let order = order(left, right)?;
    // Truth values have no order.
    if orders && left.is_boolean() {
        return Err(Error("invalid type for comparison".into()));
    }
    Ok(match operator {
        "==" => order == Some(Ordering::Equal),
        "!=" => order != Some(Ordering::Equal),
        "<" => order == Some(Ordering::Less),
        "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        ">" => order == Some(Ordering::Greater),
        _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    })
}

/// Only values of one type compare, and whole numbers are another type than others (client-go `third_party/forked/golang/template`).
fn order(left: &Value, right: &Value) -> Result<Option<Ordering>> {
    Ok(match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) if left.as_i64().is_some() == right.as_i64().is_some() => {
            match (left.as_i64(), right.as_i64()) {
                (Some(left), Some(right)) => Some(left.cmp(&right)),
                _ => left.as_f64().and_then(|left| left.partial_cmp(&right.as_f64()?)),
            }
        }
        (Value::Null | Value::Array(_) | Value::Object(_), _)
        | (_, Value::Null | Value::Array(_) | Value::Object(_)) => {
            return Err(Error("invalid type for comparison".into()));
        }
        _ => return Err(Error("incompatible types for comparison".into())),
    })
}
