//! The JSONPath of printer columns: fields, indexes, `[*]` and filters by equality (client-go `util/jsonpath`, as far as
//! definitions of custom resources use it).

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
    /// From the end when negative.
    Index(i64),
    All,
    /// `[?(@.a.b == "c")]`
    Filter {
        path: Vec<Step>,
        compare: Option<(bool, Value)>,
    },
}

/// Longest path that is read; more is no column.
const MAX: usize = 4096;

impl JsonPath {
    /// Reads a path that begins with a dot: `.spec.replicas`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX {
            return Err("is too long".into());
        }
        let mut reader = Reader { rest: text };
        let steps = reader.steps(&[])?;
        if !reader.rest.is_empty() {
            return Err(format!("unrecognized character in action: {:?}", reader.rest));
        }
        Ok(Self { steps, text: text.to_owned() })
    }

    /// Whether it is nothing but fields: `.a.b`.
    pub fn is_simple(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Field(_)))
    }

    /// The names of a path that is nothing but fields.
    pub fn fields(&self) -> Vec<&str> {
        self.steps
            .iter()
            .filter_map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None })
            .collect()
    }

    /// What it finds, in order.
    pub fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        find(&self.steps, object)
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn find<'a>(steps: &[Step], object: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![object];
    for step in steps {
        found = found.into_iter().flat_map(|value| next(step, value)).collect();
    }
    found
}

fn next<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    let items = || value.as_array().map(|items| items.iter().collect::<Vec<_>>()).unwrap_or_default();
    match step {
        Step::Field(name) => value.get(name).filter(|value| !value.is_null()).into_iter().collect(),
        Step::Index(at) => {
            let items = items();
            let at = if *at < 0 { items.len() as i64 + at } else { *at };
            usize::try_from(at).ok().and_then(|at| items.get(at).copied()).into_iter().collect()
        }
        Step::All => match value {
            Value::Object(map) => map.values().collect(),
            _ => items(),
        },
        Step::Filter { path, compare } => items()
            .into_iter()
            .filter(|item| {
                let found = find(path, item);
                match compare {
                    None => !found.is_empty(),
                    Some((equal, wanted)) => found.first().is_some_and(|found| (*found == wanted) == *equal),
                }
            })
            .collect(),
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn take(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Steps up to the end, or to one of the characters that end a filter's path.
    fn steps(&mut self, ends: &[char]) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        while !self.rest.is_empty() && !self.rest.starts_with(|c| ends.contains(&c)) {
            if self.take("[") {
                steps.push(self.bracket()?);
            } else if self.take(".") {
                if self.rest.starts_with('[') || self.rest.is_empty() {
                    continue;
                }
                steps.push(self.field(ends)?);
            } else {
                return Err(format!("unrecognized character in action: {:?}", self.rest));
            }
        }
        Ok(steps)
    }

    fn field(&mut self, ends: &[char]) -> Result<Step, String> {
        if self.take("*") {
            return Ok(Step::All);
        }
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' => {
                    end = at;
                    break;
                }
                c if ends.contains(&c) => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.rest = &self.rest[end..];
        if name.is_empty() { Err("a field has no name".into()) } else { Ok(Step::Field(name)) }
    }

    /// What stands behind `[`.
    fn bracket(&mut self) -> Result<Step, String> {
        if self.take("*]") {
            return Ok(Step::All);
        }
        if self.take("?(") {
            return self.filter();
        }
        for quote in ["'", "\""] {
            if self.take(quote) {
                let end = self.rest.find(quote).ok_or("unterminated quoted string")?;
                let name = self.rest[..end].to_owned();
                self.rest = &self.rest[end + 1..];
                return if self.take("]") { Ok(Step::Field(name)) } else { Err("unterminated array".into()) };
            }
        }
        let end = self.rest.find(']').ok_or("unterminated array")?;
        let index =
            self.rest[..end].trim().parse().map_err(|_| format!("invalid array index {}", &self.rest[..end]))?;
        self.rest = &self.rest[end + 1..];
        Ok(Step::Index(index))
    }

    fn filter(&mut self) -> Result<Step, String> {
        self.spaces();
        if !self.take("@") {
            return Err("a filter must begin with @".into());
        }
        let path = self.steps(&[' ', '=', '!', ')'])?;
        self.spaces();
        let compare = if self.take("==") {
            Some((true, self.literal()?))
        } else if self.take("!=") {
            Some((false, self.literal()?))
        } else {
            None
        };
        self.spaces();
        if self.take(")]") { Ok(Step::Filter { path, compare }) } else { Err("unterminated filter".into()) }
    }

    fn literal(&mut self) -> Result<Value, String> {
        self.spaces();
        for quote in ["'", "\""] {
            if self.take(quote) {
                let end = self.rest.find(quote).ok_or("unterminated quoted string")?;
                let text = self.rest[..end].to_owned();
                self.rest = &self.rest[end + 1..];
                return Ok(Value::String(text));
            }
        }
        let end = self.rest.find([')', ' ']).ok_or("unterminated filter")?;
        let value = serde_json::from_str(&self.rest[..end]).map_err(|error| error.to_string())?;
        self.rest = &self.rest[end..];
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;

    #[test]
    fn paths_find_values() {
        let object = json!({"a": {"b.c": 1, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}], "d": null}});
        let rows = [
            (".a.b\\.c", vec![json!(1)]),
            (".a['b.c']", vec![json!(1)]),
            (".a.list[1].v", vec![json!(2)]),
            (".a.list[-1].n", vec![json!("y")]),
            (".a.list[*].n", vec![json!("x"), json!("y")]),
            (".a.list[?(@.n==\"y\")].v", vec![json!(2)]),
            (".a.list[?(@.n != 'y')].v", vec![json!(1)]),
            (".a.list[?(@.v == 2)].n", vec![json!("y")]),
            (".a.d", vec![]),
            (".x.y", vec![]),
        ];
        for (path, expected) in rows {
            let path = JsonPath::parse(path).unwrap();
            assert_eq!(path.find(&object).into_iter().cloned().collect::<Vec<_>>(), expected, "{path}");
        }
        for wrong in ["a", ".a[", ".a[x]", ".a[?(b)]", ".a[?(@.b=='c'", ".a['b", "{.a}"] {
            assert!(JsonPath::parse(wrong).is_err(), "{wrong}");
        }
        assert!(JsonPath::parse(".spec.a").unwrap().is_simple());
        assert!(!JsonPath::parse(".spec[0]").unwrap().is_simple());
    }
}
