//! Field selectors: `status.phase=Running,metadata.name!=x`.

use std::fmt;

use super::ParseError;

/// One field that must, or must not, have a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// `spec.nodeName`
    pub field: String,
    /// The value.
    pub value: String,
    /// Whether the field must have the value, or must not.
    pub equal: bool,
}

/// Requirements that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Reads a selector as it stands in a query (apimachinery `fields.ParseSelector`).
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut requirements = Vec::new();
        for term in split_unescaped(text).into_iter().filter(|term| !term.is_empty()) {
            let invalid = || ParseError(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (field, value, equal) = split_operator(term).ok_or_else(invalid)?;
            let value = unescape(value).ok_or_else(|| {
                ParseError(format!("invalid field selector: invalid escape sequence in value {value:?}"))
            })?;
            requirements.push(FieldRequirement { field: field.to_owned(), value, equal });
        }
        Ok(Self { requirements })
    }

    /// One field with one value.
    pub fn equals(field: &str, value: &str) -> Self {
        Self { requirements: vec![FieldRequirement { field: field.into(), value: value.into(), equal: true }] }
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The requirements.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// The value that `field` must have, where the selector says one: for indexes.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }

    /// Whether all requirements hold, with `value` giving each field's value (a missing field is an empty one).
    pub fn matches<'a>(&self, value: impl Fn(&str) -> &'a str) -> bool {
        self.requirements.iter().all(|r| (value(&r.field) == r.value) == r.equal)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}{}", r.field, if r.equal { "=" } else { "!=" })?;
            for c in r.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// Splits at commas that no backslash stands before.
fn split_unescaped(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// Field, value and whether they must be equal, split at the first `!=`, `==` or `=`.
fn split_operator(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, value, false));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((field, value, true))
}

/// Undoes `\\`, `\,` and `\=`. `None` when a backslash stands before anything else, or a bare `=` or `,` is left.
fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('\\' | ',' | '=') => out.push(c),
                _ => return None,
            },
            ',' | '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_writes_and_matches() {
        let selector = FieldSelector::parse(r"spec.nodeName=n1,status.phase!=Failed,a==x\,y\=z,").unwrap();
        assert_eq!(selector.to_string(), r"spec.nodeName=n1,status.phase!=Failed,a=x\,y\=z");
        assert_eq!(selector.required_value("a"), Some("x,y=z"));
        let of = |phase: &'static str| {
            move |field: &str| match field {
                "spec.nodeName" => "n1",
                "status.phase" => phase,
                "a" => "x,y=z",
                _ => "",
            }
        };
        assert!(selector.matches(of("Running")) && !selector.matches(of("Failed")));
        assert!(FieldSelector::parse("").unwrap().is_empty());
        assert!(FieldSelector::equals("spec.nodeName", "").matches(|_| ""));
    }

    #[test]
    fn refuses_with_upstreams_words() {
        assert_eq!(
            FieldSelector::parse("abc").unwrap_err().to_string(),
            "invalid selector: 'abc'; can't understand 'abc'"
        );
        assert!(
            FieldSelector::parse(r"a=\x").is_err()
                && FieldSelector::parse("a=b=c").is_err()
                && FieldSelector::parse("a!b").is_err()
        );
    }
}
