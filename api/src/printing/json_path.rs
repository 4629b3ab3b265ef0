//! The JSONPath of printer columns (client-go `util/jsonpath`): fields, slices, unions, `..` and filters that compare.

use std::cmp::Ordering;
use std::fmt;

use crate::json::Value;

/// A path that has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
    text: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// All that is in a map or list: `.*`.
    All,
    /// The value itself and all that holds something below it: `..`.
    Below,
    /// `[from:to:step]`; a place is counted from the end when it is negative.
    Slice {
        from: Option<i64>,
        to: Option<i64>,
        step: Option<i64>,
    },
    /// `[2]`
    Index(i64),
    /// `[0,2]`
    Union(Vec<Vec<Step>>),
    /// `[?(@.a.b == "c")]`; without a comparison, what has it.
    Filter {
        left: Vec<Step>,
        compare: Option<(Comparison, Vec<Step>)>,
    },
    /// A text, number or truth value, in a filter.
    Literal(Value),
    /// What can be read and means nothing here: words of templates, operators that there are none of.
    Meaningless,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Longest path that is read.
const MAX: usize = 4096;

/// Most brackets that stand in brackets.
const MAX_DEPTH: usize = 16;

/// Most values that `..` finds: paths with several of them would find more with each.
const MOST: usize = 10_000;

/// Why nothing is shown: a place that is not there, or values that do not compare.
struct Nothing;

impl JsonPath {
    /// Reads a path: `.spec.replicas`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX {
            return Err("is too long".into());
        }
        Ok(Self { steps: steps(text, 0)?, text: text.to_owned() })
    }

    /// What it finds, in order; nothing where upstream fails.
    pub fn find<'a>(&'a self, object: &'a Value) -> Vec<&'a Value> {
        find(&self.steps, vec![object]).unwrap_or_default()
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn find<'a>(steps: &'a [Step], mut found: Vec<&'a Value>) -> Result<Vec<&'a Value>, Nothing> {
    for step in steps {
        found = next(step, found)?;
        if found.len() > MOST {
            return Err(Nothing);
        }
    }
    Ok(found)
}

fn next<'a>(step: &'a Step, values: Vec<&'a Value>) -> Result<Vec<&'a Value>, Nothing> {
    let mut found = Vec::new();
    match step {
        Step::Field(name) => found.extend(values.into_iter().filter_map(|value| value.get(name))),
        Step::All => values.into_iter().for_each(|value| found.extend(inside(value))),
        Step::Below => {
            for value in values {
                below(value, &mut found);
            }
        }
        Step::Literal(literal) => found.push(literal),
        Step::Meaningless => return Err(Nothing),
        Step::Union(each) => {
            for steps in each {
                found.extend(find(steps, values.clone())?);
            }
        }
        Step::Index(at) => {
            for items in lists(values) {
                let items = items?;
                let at = if *at < 0 { at.saturating_add_unsigned(items.len() as u64) } else { *at };
                found.push(usize::try_from(at).ok().and_then(|at| items.get(at)).ok_or(Nothing)?);
            }
        }
        Step::Slice { from, to, step } => {
            for items in lists(values) {
                found.extend(slice(items?, (*from, *to), *step)?);
            }
        }
        Step::Filter { left, compare } => {
            for items in
                values.into_iter().filter(|value| !value.is_null()).map(|value| value.as_array().ok_or(Nothing))
            {
                for item in items? {
                    if passes(item, left, compare.as_ref())? {
                        found.push(item);
                    }
                }
            }
        }
    }
    // Null is where nothing is.
    found.retain(|value| !value.is_null());
    Ok(found)
}

fn lists(values: Vec<&Value>) -> impl Iterator<Item = Result<&[Value], Nothing>> {
    values.into_iter().map(|value| value.as_array().map(Vec::as_slice).ok_or(Nothing))
}

fn inside(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(map) => map.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    }
}

fn below<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    let inner = inside(value);
    if inner.is_empty() || found.len() > MOST {
        return;
    }
    found.push(value);
    inner.into_iter().for_each(|value| below(value, found));
}

/// Places outside of the list are none at all, but where nothing is asked for.
fn slice(items: &[Value], (from, to): (Option<i64>, Option<i64>), step: Option<i64>) -> Result<Vec<&Value>, Nothing> {
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let place = |at: i64| if at < 0 { at.saturating_add(count) } else { at };
    let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(count)));
    if from == to {
        return Ok(Vec::new());
    }
    let inside = (0..count).contains(&from) && (0..=count).contains(&to) && from < to;
    let step = step.map_or(Some(1), |step| usize::try_from(step).ok().filter(|step| *step > 0));
    let (Ok(from), Ok(to), Some(step), true) = (usize::try_from(from), usize::try_from(to), step, inside) else {
        return Err(Nothing);
    };
    Ok(items[from..to].iter().step_by(step).collect())
}

fn passes(item: &Value, left: &[Step], compare: Option<&(Comparison, Vec<Step>)>) -> Result<bool, Nothing> {
    let Some((comparison, right)) = compare else {
        return Ok(find(left, vec![item]).is_ok_and(|found| !found.is_empty()));
    };
    let one = |steps| match find(steps, vec![item])?.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        _ => Err(Nothing),
    };
    let (Some(left), Some(right)) = (one(left)?, one(right)?) else { return Ok(false) };
    let order = order(&left, &right).ok_or(Nothing)?;
    Ok(match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        // Truth values have no order.
        _ if left.is_boolean() => return Err(Nothing),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}

/// Only values of one type compare, and whole numbers are another type than others (Go's `text/template`).
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            (None, None) => left.as_f64()?.partial_cmp(&right.as_f64()?),
            _ => None,
        },
        _ => None,
    }
}

/// What ends a name.
fn is_end(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}')
}

fn steps(text: &str, depth: usize) -> Result<Vec<Step>, String> {
    if depth > MAX_DEPTH {
        return Err("nests too deeply".into());
    }
    let mut steps = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(inner) = rest.strip_prefix("[?(") {
            let (step, behind) = filter(inner, depth)?;
            steps.push(step);
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix("..") {
            if steps.last() == Some(&Step::Below) {
                return Err("invalid multiple recursive descent".into());
            }
            steps.push(Step::Below);
            rest = behind;
            if rest.starts_with(|c: char| c == '_' || c.is_alphanumeric()) {
                rest = field(rest, &mut steps);
            }
        } else {
            rest = match first {
                // The object that is looked at, by which all paths begin.
                ' ' | '@' | '$' => &rest[1..],
                '[' => bracket(&rest[1..], &mut steps, depth)?,
                '"' | '\'' => quoted(rest, first, &mut steps)?,
                '.' => field(&rest[1..], &mut steps),
                '+' | '-' => number(rest, &mut steps)?,
                c if c.is_numeric() => number(rest, &mut steps)?,
                c if c == '_' || c.is_alphabetic() => word(rest, &mut steps),
                _ => return Err(format!("unrecognized character in action: {rest:?}")),
            };
        }
    }
    Ok(steps)
}

/// A name, up to what ends it; with a backslash before it, nothing does.
fn field<'t>(text: &'t str, steps: &mut Vec<Step>) -> &'t str {
    let mut end = text.len();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if is_end(c) {
            end = at;
            break;
        }
    }
    let (name, rest) = text.split_at(end);
    steps.push(if name == "*" { Step::All } else { Step::Field(name.replace('\\', "")) });
    rest
}

fn word<'t>(text: &'t str, steps: &mut Vec<Step>) -> &'t str {
    let (word, rest) = text.split_at(text.find(is_end).unwrap_or(text.len()));
    steps.push(match word {
        "true" | "false" => Step::Literal((word == "true").into()),
        _ => Step::Meaningless,
    });
    rest
}

fn number<'t>(text: &'t str, steps: &mut Vec<Step>) -> Result<&'t str, String> {
    let signed = usize::from(text.starts_with(['+', '-']));
    let end = text[signed..].find(|c: char| c != '.' && !c.is_ascii_digit()).map_or(text.len(), |end| signed + end);
    let (number, rest) = text.split_at(end);
    let whole = number.parse::<i64>().ok().map(Value::from);
    let value = whole.or_else(|| number.parse::<f64>().ok().map(Value::from));
    steps.push(Step::Literal(value.ok_or_else(|| format!("cannot parse number {number}"))?));
    Ok(rest)
}

fn quoted<'t>(text: &'t str, quote: char, steps: &mut Vec<Step>) -> Result<&'t str, String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\n' => break,
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c if c == quote => {
                steps.push(Step::Literal(value.into()));
                return Ok(&text[at + 1..]);
            }
            c => value.push(c),
        }
    }
    Err("unterminated quoted string".into())
}

/// What stands behind `[`.
fn bracket<'t>(text: &'t str, steps: &mut Vec<Step>, depth: usize) -> Result<&'t str, String> {
    let (inner, rest) = text.split_once(']').filter(|(inner, _)| !inner.contains('\n')).ok_or("unterminated array")?;
    let name = inner.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')).filter(|name| !name.contains('\''));
    if inner.contains(',') {
        let each = inner.split(',').map(|part| self::steps(&format!("[{}]", part.trim_matches(' ')), depth + 1));
        steps.push(Step::Union(each.collect::<Result<_, _>>()?));
    } else if let Some(name) = name {
        // As if it stood behind a dot.
        steps.extend(self::steps(&format!(".{name}"), depth + 1)?);
    } else {
        steps.push(range(if inner == "*" { ":" } else { inner })?);
    }
    Ok(rest)
}

fn range(text: &str) -> Result<Step, String> {
    let wrong = || format!("invalid array index {text}");
    let place = |part: &str| match part {
        "" => Ok(None),
        part if part.starts_with('+') => Err(wrong()),
        part => part.parse::<i64>().map(Some).map_err(|_| wrong()),
    };
    let mut parts = text.split(':');
    let from = place(parts.next().unwrap_or_default())?;
    let Some(to) = parts.next() else { return Ok(Step::Index(from.unwrap_or(0))) };
    let (to, step) = (place(to)?, place(parts.next().unwrap_or_default())?);
    if parts.next().is_some() { Err(wrong()) } else { Ok(Step::Slice { from, to, step }) }
}

/// What stands behind `[?(`.
fn filter(text: &str, depth: usize) -> Result<(Step, &str), String> {
    let mut quote = None;
    let mut closed = false;
    let mut before = ' ';
    let end = text.char_indices().find(|&(_, c)| {
        match c {
            '"' | '\'' if quote.is_none() => quote = Some(c),
            c if Some(c) == quote && before != '\\' => closed = true,
            _ => {}
        }
        before = c;
        c == ')' && quote.is_some() == closed
    });
    let (end, _) = end.ok_or("unterminated filter")?;
    let rest = text[end + 1..].strip_prefix(']').ok_or("unclosed array expect ]")?;
    let inner = &text[..end];
    let is_operator = |c: char| matches!(c, '!' | '<' | '>' | '=');
    let split = inner.find(is_operator).filter(|at| *at > 0).map(|at| inner.split_at(at));
    let compare = split.and_then(|(left, behind)| {
        let behind_operator = behind.trim_start_matches(is_operator);
        let operator = &behind[..behind.len() - behind_operator.len()];
        (!behind_operator.is_empty()).then_some((left, operator, behind_operator))
    });
    let Some((left, operator, right)) = compare else {
        return Ok((Step::Filter { left: steps(inner, depth + 1)?, compare: None }, rest));
    };
    let (left, right) = (steps(left, depth + 1)?, steps(right, depth + 1)?);
    let comparison = match operator {
        "==" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        "<" => Comparison::Less,
        "<=" => Comparison::LessOrEqual,
        ">" => Comparison::Greater,
        ">=" => Comparison::GreaterOrEqual,
        _ => return Ok((Step::Meaningless, rest)),
    };
    Ok((Step::Filter { left, compare: Some((comparison, right)) }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;

    #[test]
    fn paths_find_values() {
        let object = json!({"a": {"b.c": 1, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}, {"n": "z", "v": 3, "ok": true}],
            "d": null, "in": {"v": 7, "deep": {"v": 8}}}});
        let rows = [
            (".a.b\\.c", json!([1])),
            (".a['b\\.c']", json!([1])),
            (".a.list[1].v", json!([2])),
            (".a.list[-1].n", json!(["z"])),
            (".a.list[-1:].n", json!(["z"])),
            (".a.list[:2].n", json!(["x", "y"])),
            (".a.list[1:].n", json!(["y", "z"])),
            (".a.list[0:3:2].n", json!(["x", "z"])),
            (".a.list[*].n", json!(["x", "y", "z"])),
            (".a.list[0,2].n", json!(["x", "z"])),
            (".a['b\\.c', 'in'].v", json!([7])),
            (".a.in..v", json!([7, 8])),
            (".a.in.*", json!([7, {"v": 8}])),
            (".a.list[?(@.n==\"y\")].v", json!([2])),
            (".a.list[?(@.n != 'y')].v", json!([1, 3])),
            (".a.list[?(@.v == 2)].n", json!(["y"])),
            (".a.list[?(@.v<2)].n", json!(["x"])),
            (".a.list[?(@.v>=2)].n", json!(["y", "z"])),
            (".a.list[?(@.v > 2)].n", json!(["z"])),
            (".a.list[?(@.ok)].n", json!(["z"])),
            (".a.list[?(@.ok==true)].n", json!(["z"])),
            (".a.list[?(@.n==')')].n", json!([])),
            ("$.a.list[0].n", json!(["x"])),
            // Beyond the end, of another type, and null.
            (".a.list[7].n", json!([])),
            (".a.list[0:9].n", json!([])),
            (".a.list[?(@.n > 2)].n", json!([])),
            (".a.in[0]", json!([])),
            (".a.list[?(@.n=!'x')]", json!([])),
            ("a", json!([])),
            (".a.d", json!([])),
            (".x.y", json!([])),
        ];
        for (path, expected) in rows {
            let path = JsonPath::parse(path).unwrap();
            let found: Value = path.find(&object).into_iter().cloned().collect();
            assert_eq!(found, expected, "{path}");
        }
        for wrong in [
            ".a[",
            ".a[x]",
            ".a[\"x\"]",
            ".a[?(@.b=='c'",
            "-",
            ".a[?(@.b=~'c')]",
            ".a['b",
            "{.a}",
            ".a[1:2:3:4]",
            ".a....b",
            ".a(b)[",
        ] {
            assert!(JsonPath::parse(wrong).is_err(), "{wrong}");
        }
    }
}
