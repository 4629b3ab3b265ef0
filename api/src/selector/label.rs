//! Label selectors, from a query's text or from metav1.LabelSelector.

use std::collections::BTreeMap;
use std::fmt;

use crate::json::{Map, Value};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;

use super::ParseError;
use crate::validation;

/// Anything labels can be read from.
pub trait Labels {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}
impl Labels for Map {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}
impl Labels for [(String, String)] {
    fn label(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}
impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}
impl<L: Labels> Labels for Option<L> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref()?.label(key)
    }
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `key in (a,b)`, `key=a`
    In,
    /// `key notin (a,b)`, `key!=a`: also when the label is missing.
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>1`
    GreaterThan,
    /// `key<1`
    LessThan,
}

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what; sorted.
    pub values: Vec<String>,
}

impl Requirement {
    fn new(key: String, operator: Operator, mut values: Vec<String>) -> Result<Self, ParseError> {
        let invalid = |field: &str, value: &str, why: &[String]| {
            Err(ParseError(format!("{field}: Invalid value: {value:?}: {}", why.join("; "))))
        };
        let wrong = validation::qualified_name(&key);
        if !wrong.is_empty() {
            return invalid("key", &key, &wrong);
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return Err(ParseError(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into(),
                ));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if let Some(value) = values.iter().find(|v| v.parse::<i64>().is_err()) {
                    return Err(ParseError(format!(
                        "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                    )));
                }
            }
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            let wrong = validation::label_value(value);
            if !wrong.is_empty() {
                return invalid(&format!("values[{i}][{key}]"), value, &wrong);
            }
        }
        values.sort_unstable();
        values.dedup();
        Ok(Self { key, operator, values })
    }

    /// Whether labels satisfy the requirement.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let value = labels.label(&self.key);
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = || number(self.values.first()?);
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v > b),
            Operator::LessThan => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v < b),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In if self.values.len() == 1 => write!(f, "{key}={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn if self.values.len() == 1 => write!(f, "{key}!={values}"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// Requirements that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Selects everything.
    pub const EVERYTHING: Self = Self { requirements: Vec::new(), nothing: false };
    /// Selects nothing.
    pub const NOTHING: Self = Self { requirements: Vec::new(), nothing: true };

    /// Reads a selector as it stands in a query (apimachinery `labels.Parse`).
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut requirements = Parser::new(text).parse()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// All pairs of a map must be there: how Services and ReplicationControllers select.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        let equal = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        };
        Self { requirements: labels.iter().map(equal).collect(), nothing: false }
    }

    /// From an object's selector. An empty one selects everything, a missing one ([`LabelSelector::NOTHING`]) nothing.
    pub fn from_metav1(selector: &metav1::LabelSelector) -> Result<Self, ParseError> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key.clone(), Operator::In, vec![value.clone()])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(ParseError(format!("{other:?} is not a valid label selector operator"))),
            };
            requirements.push(Requirement::new(
                expression.key.clone(),
                operator,
                expression.values.clone().unwrap_or_default(),
            )?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// From an optional selector of an object.
    pub fn from_optional(selector: Option<&metav1::LabelSelector>) -> Result<Self, ParseError> {
        selector.map_or(Ok(Self::NOTHING), Self::from_metav1)
    }

    /// From the JSON of an object's metav1.LabelSelector; null selects nothing.
    pub fn from_json(selector: &Value) -> Result<Self, ParseError> {
        let read: Option<metav1::LabelSelector> = serde::Deserialize::deserialize(selector)
            .map_err(|error| ParseError(format!("invalid label selector: {error}")))?;
        Self::from_optional(read.as_ref())
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether all requirements hold.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    End,
    Open,
    Close,
    Comma,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
    In,
    NotIn,
    Identifier,
    Bad,
}

/// Reads the grammar of apimachinery `labels/selector.go`.
struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    position: usize,
}

const SPECIAL: &[u8] = b"=!(),<>";

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let start = at;
            if b" \t\r\n".contains(&bytes[at]) {
                at += 1;
                continue;
            }
            if SPECIAL.contains(&bytes[at]) {
                at += if matches!(bytes.get(at..at + 2), Some(b"==" | b"!=")) { 2 } else { 1 };
            } else {
                while at < bytes.len() && !SPECIAL.contains(&bytes[at]) && !b" \t\r\n".contains(&bytes[at]) {
                    at += 1;
                }
            }
            // Every byte a token ends at is ASCII, so the slice falls on character boundaries.
            let literal = &text[start..at];
            tokens.push((token(literal), literal));
        }
        Self { tokens, position: 0 }
    }

    /// The next token; `in` and `notin` are plain words where a key or a value is expected.
    fn peek(&self, words: bool) -> (Token, &'a str) {
        match self.tokens.get(self.position) {
            None => (Token::End, ""),
            Some((Token::In | Token::NotIn, literal)) if words => (Token::Identifier, literal),
            Some(found) => *found,
        }
    }

    fn next(&mut self, words: bool) -> (Token, &'a str) {
        let found = self.peek(words);
        self.position += 1;
        found
    }

    fn parse(mut self) -> Result<Vec<Requirement>, ParseError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek(true) {
                (Token::Identifier | Token::Not, _) => {
                    let requirement =
                        self.requirement().map_err(|e| ParseError(format!("unable to parse requirement: {e}")))?;
                    requirements.push(requirement);
                    match self.next(true) {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => match self.peek(true) {
                            (Token::Identifier | Token::Not, _) => {}
                            (_, found) => {
                                return Err(ParseError(format!("found '{found}', expected: identifier after ','")));
                            }
                        },
                        (_, found) => {
                            return Err(ParseError(format!("found '{found}', expected: ',' or 'end of string'")));
                        }
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, found) => {
                    return Err(ParseError(format!("found '{found}', expected: !, identifier, or 'end of string'")));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, ParseError> {
        let absent = self.peek(true).0 == Token::Not;
        if absent {
            self.position += 1;
        }
        let (kind, key) = self.next(true);
        if kind != Token::Identifier {
            return Err(ParseError(format!("found '{key}', expected: identifier")));
        }
        if absent || matches!(self.peek(true).0, Token::End | Token::Comma) {
            let operator = if absent { Operator::DoesNotExist } else { Operator::Exists };
            return Requirement::new(key.into(), operator, Vec::new());
        }
        let (operator, set) = match self.next(false) {
            (Token::Equals, _) => (Operator::In, false),
            (Token::NotEquals, _) => (Operator::NotIn, false),
            (Token::Greater, _) => (Operator::GreaterThan, false),
            (Token::Less, _) => (Operator::LessThan, false),
            (Token::In, _) => (Operator::In, true),
            (Token::NotIn, _) => (Operator::NotIn, true),
            (_, found) => return Err(ParseError(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt"))),
        };
        let values = if set { self.set()? } else { vec![self.exact_value()?] };
        Requirement::new(key.into(), operator, values)
    }

    fn exact_value(&mut self) -> Result<String, ParseError> {
        match self.peek(true) {
            (Token::End | Token::Comma, _) => Ok(String::new()),
            (Token::Identifier, value) => {
                self.position += 1;
                Ok(value.into())
            }
            (_, found) => Err(ParseError(format!("found '{found}', expected: identifier"))),
        }
    }

    fn set(&mut self) -> Result<Vec<String>, ParseError> {
        let (open, found) = self.next(true);
        if open != Token::Open {
            return Err(ParseError(format!("found '{found}' expected: '('")));
        }
        let mut values = Vec::new();
        let mut expects_value = true;
        loop {
            match self.next(true) {
                (Token::Identifier, value) if expects_value => {
                    values.push(value.into());
                    expects_value = false;
                }
                (Token::Comma, _) => {
                    // `(a,,b)` and `(,a)` hold the empty value.
                    if expects_value {
                        values.push(String::new());
                    }
                    expects_value = true;
                }
                (Token::Close, _) => {
                    if expects_value {
                        values.push(String::new());
                    }
                    return Ok(values);
                }
                (_, found) if expects_value => {
                    return Err(ParseError(format!("found '{found}', expected: ',', ')' or identifier")));
                }
                (_, found) => return Err(ParseError(format!("found '{found}', expected: ',' or ')'"))),
            }
        }
    }
}

fn token(literal: &str) -> Token {
    match literal {
        "(" => Token::Open,
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "=" | "==" => Token::Equals,
        "!=" => Token::NotEquals,
        ">" => Token::Greater,
        "<" => Token::Less,
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ if literal.bytes().any(|b| SPECIAL.contains(&b)) => Token::Bad,
        _ => Token::Identifier,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_operator_matches() {
        let of = labels(&[("app", "web"), ("tier", "1"), ("in", "x")]);
        let rows = [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("app in (a, web)", true),
            ("app notin (a,b)", true),
            ("missing notin (a)", true),
            ("missing!=a", true),
            ("missing in (a)", false),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("tier>0", true),
            ("tier<1", false),
            ("app=web,tier in (1,2),!x", true),
            ("app=", false),
            ("app in (web,)", true),
            ("in=x", true),
            ("in in (x)", true),
        ];
        for (text, matches) in rows {
            let selector = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(&of), matches, "{text}");
            assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector, "{text}");
        }
    }

    #[test]
    fn refuses_with_upstreams_words() {
        let rows = [
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
            ("a=b!", "found '!', expected: ',' or 'end of string'"),
        ];
        for (text, message) in rows {
            assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), message, "{text}");
        }
        assert!(
            LabelSelector::parse("a=-x").is_err()
                && LabelSelector::parse("a in (").is_err()
                && LabelSelector::parse("é>1").is_err()
        );
    }

    #[test]
    fn an_objects_selector() {
        let of = labels(&[("app", "web")]);
        let json = crate::json::json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]});
        assert!(LabelSelector::from_json(&json).unwrap().matches(&of));
        assert!(LabelSelector::from_json(&crate::json::json!({})).unwrap().matches(&of));
        assert!(!LabelSelector::from_json(&Value::Null).unwrap().matches(&of));
        assert!(LabelSelector::from_map(&of).matches(&of));
        assert_eq!(
            LabelSelector::from_json(&crate::json::json!({"matchExpressions": [{"key": "x", "operator": "Like"}]}))
                .unwrap_err()
                .to_string(),
            r#""Like" is not a valid label selector operator"#
        );
    }
}
