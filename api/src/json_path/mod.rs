//! Kubernetes' dialect of JSONPath (<https://kubernetes.io/docs/reference/kubectl/jsonpath/>), which is a language of templates
//! and not RFC 9535: text outside of braces, `{range}…{end}`, quoted text, filters, unions, slices and `..`.
//!
//! ```text
//!   "{.items[*].x} y" ── read ──► Part, Step ── find (object) ──► values of each part ── text ──► "1 2 y"
//! ```
//!
//! One reader serves `-o jsonpath` and the columns of definitions, as client-go's `util/jsonpath` does (1.32), whose rules and
//! words these are; fields that are not there find nothing (`AllowMissingKeys`).

mod find;
mod read;
mod text;

use std::borrow::Cow;
use std::fmt;

use crate::json::Value;
pub use text::text;

/// A template that has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    parts: Vec<Part>,
    text: String,
}

/// What a part of a template has found: values of the object's, or made on the way.
pub type Found<'a> = Vec<Cow<'a, Value>>;

/// Why a template cannot be read, or finds nothing in an object: client-go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(Value),
    /// What stands in braces.
    Action(Vec<Step>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// All that is in a map or list: `.*`.
    All,
    /// The value itself and all that holds something below it: `..`.
    Below,
    Slice(Slice),
    /// `[0,2]`
    Union(Vec<Vec<Step>>),
    /// `[?(@.a.b == "c")]`; without a comparison, what has it.
    Filter {
        left: Vec<Step>,
        compare: Option<(String, Vec<Step>)>,
    },
    /// A quoted text, one whatever stands before it.
    Text(Value),
    /// A number or truth value, one for each value before it.
    Literal(Value),
    /// A bare word: `range`, `end`, or one without a meaning.
    Word(String),
}

/// `[from:to:step]`, or `[2]`; a place is counted from the end when it is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slice {
    from: Option<i64>,
    to: To,
    step: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    /// Behind the one it begins with.
    Next,
    End,
    Place(i64),
}

/// Most values that are found on the way to a column's, for each object.
const MOST_OF_COLUMN: usize = 100_000;

/// Most values that are found on the way to what a template shows.
const MOST_OF_TEMPLATE: usize = 50_000_000;

impl JsonPath {
    /// Reads a template: `{.metadata.name} is {.status.phase}`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(template: &str) -> Result<Self> {
        Ok(Self { parts: read::parts(template, 0)?, text: template.to_owned() })
    }

    /// Reads a column's path, which has no braces: `.spec.replicas` (apiextensions `tableconvertor.New`).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_column(path: &str) -> Result<Self> {
        let braced = Self::parse(&format!("{{{path}}}"))?;
        Ok(Self { text: path.to_owned(), ..braced })
    }

    /// What each part of the template finds, in order, parts in `range` once for each value.
    ///
    /// # Errors
    /// When a list is not where one is wanted, or too short, when values do not compare, or a word means nothing.
    pub fn find<'a>(&'a self, object: &'a Value) -> Result<Vec<Found<'a>>> {
        find::parts(&self.parts, object, MOST_OF_TEMPLATE)
    }

    /// The value that a column shows: the first of the first part; none where there is an error.
    pub fn first<'a>(&'a self, object: &'a Value) -> Option<Cow<'a, Value>> {
        let found = find::parts(&self.parts, object, MOST_OF_COLUMN).ok()?;
        found.into_iter().next()?.into_iter().next()
    }

    /// The text that the template makes of `object`.
    ///
    /// # Errors
    /// As [`JsonPath::find`].
    pub fn render(&self, object: &Value) -> Result<String> {
        let mut out = String::new();
        for found in self.find(object)? {
            let texts: Vec<_> = found.iter().map(|value| text(value)).collect();
            out.push_str(&texts.join(" "));
        }
        Ok(out)
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
