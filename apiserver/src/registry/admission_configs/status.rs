//! What the server found out about a policy (admissionregistration `validation.go`, validateValidatingAdmissionPolicyStatus).

use crate::registry::conditions::conditions;
use crate::registry::fields::{items, require, text};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

/// Checks the status of a policy.
pub(super) fn check(status: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("status");
    let at = path.child("typeChecking").child("expressionWarnings");
    for (nth, warning) in items(&status["typeChecking"], "expressionWarnings").iter().enumerate() {
        let path = at.index(nth);
        require(warning, "warning", &path, causes);
        check_reference(text(warning, "fieldRef").trim(), &path.child("fieldRef"), causes);
    }
    conditions(items(status, "conditions"), &path.child("conditions"), causes);
}

/// The field that a warning is about.
fn check_reference(reference: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if reference.is_empty() {
        causes.push(Cause::required(path, ""));
    } else if let Err(why) = Reader(reference).read() {
        causes.push(Cause::invalid(path, reference, format!("invalid JSONPath: {why}")));
    }
}

/// Reads a path of names, fields and indexes, without telling what they lead to (client-go `util/jsonpath/parser.go`).
struct Reader<'t>(&'t str);

impl Reader<'_> {
    fn read(&mut self) -> Result<(), String> {
        while let Some(first) = self.0.chars().next() {
            match first {
                '\n' | '\r' => return Err("unclosed action".into()),
                '[' => self.bracket()?,
                '"' | '\'' => self.quoted(first)?,
                '.' => {
                    self.skip(1);
                    self.word();
                }
                ' ' | '@' | '$' => self.skip(1),
                first if first.is_alphanumeric() || "+-_".contains(first) => self.word(),
                first => return Err(format!("unrecognized character in action: U+{:04X} '{first}'", u32::from(first))),
            }
        }
        Ok(())
    }

    fn skip(&mut self, bytes: usize) {
        self.0 = self.0.get(bytes..).unwrap_or_default();
    }

    /// Up to where a name ends; what a backslash stands before belongs to it.
    fn word(&mut self) {
        let mut is_escaped = false;
        let ends = |c: char| {
            let ends = !is_escaped && (c.is_whitespace() || ".,[]$@{}".contains(c));
            is_escaped = c == '\\' && !is_escaped;
            ends
        };
        self.skip(self.0.find(ends).unwrap_or(self.0.len()));
    }

    fn quoted(&mut self, quote: char) -> Result<(), String> {
        let mut is_escaped = false;
        let ends = |c: char| {
            let ends = c == quote && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            ends
        };
        self.skip(1);
        let end = self.0.find(ends).ok_or("unterminated quoted string")?;
        self.skip(end + 1);
        Ok(())
    }

    /// Whatever stands in brackets, quotes aside.
    fn bracket(&mut self) -> Result<(), String> {
        self.skip(1);
        loop {
            let at = self.0.find(['\'', '"', ']', '\n', '\r']).ok_or("unterminated array")?;
            let found = self.0[at..].chars().next().unwrap_or_default();
            self.skip(at);
            match found {
                ']' => break,
                '\'' | '"' => self.quoted(found)?,
                _ => return Err("unterminated array".into()),
            }
        }
        self.skip(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn a_warning_says_what_is_wrong_and_where() {
        let told = |warning: Value| {
            let mut causes = Vec::new();
            check(&json!({"typeChecking": {"expressionWarnings": [warning]}}), &mut causes);
            causes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let path = "status.typeChecking.expressionWarnings[0]";
        let about = |field: &str| json!({"warning": "w", "fieldRef": field});
        for good in ["spec.validations[0].expression", ".a", "$.a['b.c']", "a[?(@.b==\"]\")].c", "a.b\\.c"] {
            assert_eq!(told(about(good)), [""; 0], "{good}");
        }
        assert_eq!(
            told(json!({})),
            [format!("{path}.warning: Required value"), format!("{path}.fieldRef: Required value")]
        );
        for (bad, why) in [
            ("a[0", "unterminated array"),
            ("a['b]", "unterminated quoted string"),
            ("a !", "unrecognized character in action: U+0021 '!'"),
            ("a]", "unrecognized character in action: U+005D ']'"),
        ] {
            let told = told(about(bad));
            assert!(told.len() == 1 && told[0].contains(&format!("invalid JSONPath: {why}")), "{bad}: {told:?}");
        }
    }
}
