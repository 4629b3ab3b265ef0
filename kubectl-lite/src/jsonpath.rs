//! kubectl's dialect of JSONPath (https://kubernetes.io/docs/reference/kubectl/jsonpath/), which is a template language
//! and not RFC 9535: text outside braces, `{range}…{end}`, quoted text, filters, unions, slices and `..`.

use coracle_api::json::Value;

use crate::error::{Error, Result};

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Paths(Vec<Vec<Step>>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Recursive,
    Indexes(Vec<i64>),
    Fields(Vec<String>),
    Slice(Option<i64>, Option<i64>, i64),
    Filter(Operand, Option<(Comparison, Operand)>),
    /// Back to the whole object.
    Root,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
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

impl JsonPath {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self> {
        let mut tokens = tokens(text)?.into_iter();
        let parts = parts(&mut tokens, false)?;
        Ok(Self(parts))
    }

    /// The text that the template makes of `object`.
    pub fn render(&self, object: &Value) -> Result<String> {
        let mut out = String::new();
        render(&self.0, object, object, &mut out)?;
        Ok(out)
    }

    /// Everything that the template's paths find in `object`.
    pub fn find<'v>(&self, object: &'v Value) -> Vec<&'v Value> {
        let paths = self.0.iter().filter_map(|part| match part {
            Part::Paths(paths) => Some(paths),
            _ => None,
        });
        paths.flatten().flat_map(|path| walk(path, object, object)).collect()
    }
}

/// A value as kubectl writes it: text as it is, the rest as JSON.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn render(parts: &[Part], root: &Value, current: &Value, out: &mut String) -> Result<()> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Paths(paths) => {
                let found: Vec<_> = paths.iter().flat_map(|path| walk(path, root, current)).map(text).collect();
                out.push_str(&found.join(" "));
            }
            Part::Range(path, body) => {
                for item in walk(path, root, current) {
                    render(body, root, item, out)?;
                }
            }
        }
    }
    Ok(())
}

fn walk<'v>(path: &[Step], root: &'v Value, current: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![current];
    for step in path {
        found = found.into_iter().flat_map(|value| advance(step, root, value)).collect();
    }
    found
}

fn advance<'v>(step: &Step, root: &'v Value, value: &'v Value) -> Vec<&'v Value> {
    match step {
        Step::Root => vec![root],
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Fields(names) => names.iter().filter_map(|name| value.get(name)).collect(),
        Step::Wildcard => children(value),
        Step::Recursive => {
            let mut all = vec![value];
            for child in children(value) {
                all.extend(advance(&Step::Recursive, root, child));
            }
            all
        }
        Step::Indexes(indexes) => {
            let Some(array) = value.as_array() else { return Vec::new() };
            let length = i64::try_from(array.len()).unwrap_or(i64::MAX);
            let at = |index: &i64| usize::try_from(if *index < 0 { index + length } else { *index }).ok();
            indexes.iter().filter_map(at).filter_map(|index| array.get(index)).collect()
        }
        Step::Slice(from, to, step) => {
            let Some(array) = value.as_array() else { return Vec::new() };
            let length = i64::try_from(array.len()).unwrap_or(i64::MAX);
            let bound = |bound: Option<i64>, or: i64| match bound {
                Some(bound) if bound < 0 => (bound + length).clamp(0, length),
                Some(bound) => bound.min(length),
                None => or,
            };
            let (from, to) = (bound(*from, 0), bound(*to, length));
            let step = usize::try_from(*step).unwrap_or(1).max(1);
            (from..to).step_by(step).filter_map(|index| array.get(usize::try_from(index).ok()?)).collect()
        }
        Step::Filter(left, comparison) => {
            let items = value.as_array().into_iter().flatten();
            items.filter(|item| holds(left, comparison.as_ref(), root, item)).collect()
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn holds(left: &Operand, comparison: Option<&(Comparison, Operand)>, root: &Value, item: &Value) -> bool {
    let value = |operand: &Operand| match operand {
        Operand::Literal(value) => Some(value.clone()),
        Operand::Path(path) => walk(path, root, item).first().map(|value| (*value).clone()),
    };
    let Some((comparison, right)) = comparison else { return value(left).is_some() };
    let (Some(left), Some(right)) = (value(left), value(right)) else { return false };
    let order = match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.partial_cmp(&right),
        _ => Some(text(&left).cmp(&text(&right))),
    };
    let Some(order) = order else { return false };
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

enum Token {
    Text(String),
    Action(String),
}

/// Splits a template at its braces; braces inside quotes are text.
fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        if open > 0 {
            tokens.push(Token::Text(rest[..open].to_owned()));
        }
        let body = &rest[open + 1..];
        let close = closing_brace(body).ok_or_else(|| broken(text, "unclosed action"))?;
        tokens.push(Token::Action(body[..close].trim().to_owned()));
        rest = &body[close + 1..];
    }
    if !rest.is_empty() {
        tokens.push(Token::Text(rest.to_owned()));
    }
    Ok(tokens)
}

fn closing_brace(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            _ => {}
        }
    }
    None
}

fn parts(tokens: &mut impl Iterator<Item = Token>, inside: bool) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    while let Some(token) = tokens.next() {
        match token {
            Token::Text(text) => parts.push(Part::Text(text)),
            Token::Action(action) if action == "end" => {
                return if inside { Ok(parts) } else { Err(broken(&action, "not in range, nothing to end")) };
            }
            Token::Action(action) => match action.strip_prefix("range") {
                Some(path) if path.starts_with([' ', '.', '[', '$']) => {
                    let mut parser = Parser::new(path.trim());
                    let path = parser.path()?;
                    parts.push(Part::Range(path, self::parts(tokens, true)?));
                }
                _ => parts.push(expression(&action)?),
            },
        }
    }
    if inside { Err(broken("range", "unexpected end of template, {end} is missing")) } else { Ok(parts) }
}

fn expression(action: &str) -> Result<Part> {
    if action.starts_with(['"', '\'']) {
        let mut parser = Parser::new(action);
        return Ok(Part::Text(parser.quoted()?));
    }
    let mut parser = Parser::new(action);
    let mut paths = Vec::new();
    loop {
        paths.push(parser.path()?);
        parser.skip_spaces();
        if !parser.take(',') && parser.rest().is_empty() {
            return Ok(Part::Paths(paths));
        }
    }
}

fn broken(text: &str, why: &str) -> Error {
    Error::usage(format!("error parsing jsonpath {text}, {why}"))
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, c: char) -> bool {
        let found = self.rest().starts_with(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn skip_spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn error(&self, why: &str) -> Error {
        broken(self.text, why)
    }

    fn path(&mut self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        if self.take('$') {
            steps.push(Step::Root);
        } else {
            self.take('@');
        }
        loop {
            match self.peek() {
                Some('.') => {
                    self.at += 1;
                    if self.take('.') {
                        steps.push(Step::Recursive);
                    }
                    match self.peek() {
                        Some('*') => {
                            self.at += 1;
                            steps.push(Step::Wildcard);
                        }
                        Some('[') | None => {}
                        Some(_) => {
                            if let Some(name) = self.name() {
                                steps.push(Step::Field(name));
                            }
                        }
                    }
                }
                Some('[') => {
                    self.at += 1;
                    steps.push(self.bracket()?);
                }
                // The first name may stand without its dot.
                Some(c) if steps.is_empty() && (c.is_alphanumeric() || c == '_') => {
                    steps.extend(self.name().map(Step::Field));
                }
                _ => return Ok(steps),
            }
        }
    }

    /// A field's name; a backslash takes the next character as it is (`.metadata.labels.app\.kubernetes\.io/name`).
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut characters = self.rest().char_indices();
        let mut end = self.rest().len();
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' => name.extend(characters.next().map(|(_, c)| c)),
                '.' | '[' | ']' | ' ' | ',' | ')' | '=' | '!' | '<' | '>' | '}' => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.at += end;
        (!name.is_empty()).then_some(name)
    }

    fn bracket(&mut self) -> Result<Step> {
        self.skip_spaces();
        let step = match self.peek() {
            Some('*') => {
                self.at += 1;
                Step::Wildcard
            }
            Some('?') => {
                self.at += 1;
                self.filter()?
            }
            Some('"' | '\'') => {
                let mut names = vec![self.quoted()?];
                while self.comma() {
                    names.push(self.quoted()?);
                }
                Step::Fields(names)
            }
            _ => self.indexes()?,
        };
        self.skip_spaces();
        if self.take(']') { Ok(step) } else { Err(self.error("unterminated array")) }
    }

    fn comma(&mut self) -> bool {
        self.skip_spaces();
        let found = self.take(',');
        self.skip_spaces();
        found
    }

    fn indexes(&mut self) -> Result<Step> {
        let first = self.integer();
        if self.take(':') {
            let to = self.integer();
            let step = if self.take(':') { self.integer().unwrap_or(1) } else { 1 };
            return Ok(Step::Slice(first, to, step));
        }
        let mut indexes = vec![first.ok_or_else(|| self.error("invalid array index"))?];
        while self.comma() {
            indexes.push(self.integer().ok_or_else(|| self.error("invalid array index"))?);
        }
        Ok(Step::Indexes(indexes))
    }

    fn integer(&mut self) -> Option<i64> {
        let length = self.rest().find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(self.rest().len());
        let number = self.rest()[..length].parse().ok()?;
        self.at += length;
        Some(number)
    }

    fn filter(&mut self) -> Result<Step> {
        if !self.take('(') {
            return Err(self.error("a filter is ?(…)"));
        }
        let left = self.operand()?;
        self.skip_spaces();
        const OPERATORS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let comparison = match OPERATORS.iter().find(|(text, _)| self.rest().starts_with(text)) {
            Some((text, comparison)) => {
                self.at += text.len();
                Some((*comparison, self.operand()?))
            }
            None => None,
        };
        self.skip_spaces();
        if self.take(')') { Ok(Step::Filter(left, comparison)) } else { Err(self.error("unterminated filter")) }
    }

    fn operand(&mut self) -> Result<Operand> {
        self.skip_spaces();
        match self.peek() {
            Some('@' | '$' | '.') => Ok(Operand::Path(self.path()?)),
            Some('"' | '\'') => Ok(Operand::Literal(Value::String(self.quoted()?))),
            _ => {
                let length = self.rest().find([' ', ')', '=', '!', '<', '>']).unwrap_or(self.rest().len());
                let word = &self.rest()[..length];
                let literal = serde_json::from_str(word).map_err(|_| self.error(&format!("unexpected {word:?}")))?;
                self.at += length;
                Ok(Operand::Literal(literal))
            }
        }
    }

    fn quoted(&mut self) -> Result<String> {
        let Some(quote @ ('"' | '\'')) = self.peek() else { return Err(self.error("a quoted text is expected")) };
        self.at += 1;
        let mut text = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' => match characters.next().map(|(_, c)| c) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(c) => text.push(c),
                    None => break,
                },
                c if c == quote => {
                    self.at += at + 1;
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err(self.error("unterminated quoted string"))
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::json::json;

    use super::*;

    /// The expectations are the examples of upstream's JSONPath page.
    #[test]
    fn the_documented_examples_hold() {
        let object = json!({
            "kind": "List",
            "items": [
                {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
                 "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]}},
                {"kind": "None", "metadata": {"name": "127.0.0.2"}, "status": {"capacity": {"cpu": "8"},
                 "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.2"}, {"type": "another", "address": "127.0.0.3"}]}},
            ],
            "users": [{"name": "myself", "user": {}}, {"name": "e2e", "user": {"username": "admin", "password": "secret"}}],
            "number": 3,
        });
        for (template, expected) in [
            ("kind is {.kind}", "kind is List"),
            ("{.kind}", "List"),
            ("{['kind']}", "List"),
            ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
            ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
            ("{.users[0].name}", "myself"),
            ("{.users[-1].name}", "e2e"),
            ("{.items[*]['metadata.name', 'kind']}", "None None"),
            ("{.users[?(@.name==\"e2e\")].user.password}", "secret"),
            ("{range .items[*]}[{.metadata.name}, {.status.capacity.cpu}] {end}", "[127.0.0.1, 4] [127.0.0.2, 8] "),
            ("{range .items[*]}{.metadata.name}{'\\t'}{end}", "127.0.0.1\t127.0.0.2\t"),
            ("{.items[0].metadata.labels.kubernetes\\.io/hostname}", "127.0.0.1"),
            ("{.users[0:1].name}", "myself"),
            ("{.number}{\"\\n\"}", "3\n"),
            ("{.users[1].user}", "{\"username\":\"admin\",\"password\":\"secret\"}"),
            ("{.missing.field}", ""),
            ("{$.kind}", "List"),
        ] {
            assert_eq!(JsonPath::parse(template).unwrap().render(&object).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for template in ["{.a", "{range .a}x", "{end}", "{.a[}", "{.a[?(@.b==)]}", "{'a}"] {
            assert!(JsonPath::parse(template).unwrap_err().to_string().contains("jsonpath"), "{template}");
        }
    }
}
