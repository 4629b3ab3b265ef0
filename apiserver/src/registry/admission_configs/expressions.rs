//! Expressions in CEL, which must fit what they are given (admissionregistration `validation.go`).

use crate::custom::cel::{Scope, Type, compile_to};
use crate::custom::rules::RESERVED;
use crate::registry::fields::{invalid_all, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

const CONDITIONS_MAX: usize = 64;

/// What expressions of one kind must be.
pub(super) struct Wanted<'o> {
    /// What they give: one of these, or anything.
    types: Vec<Type>,
    /// Those that were there before, which may stay: a newer server may have taken them.
    known: HashSet<&'o str>,
}

impl<'o> Wanted<'o> {
    pub(super) fn new(types: impl Into<Vec<Type>>, known: impl Iterator<Item = &'o str>) -> Self {
        Self { types: types.into(), known: known.map(str::trim).collect() }
    }

    /// Conditions, some of which were there before.
    pub(super) fn conditions(known: &'o [Value]) -> Self {
        Self::new([Type::Bool], known.iter().map(|condition| text(condition, "expression")))
    }

    /// Checks one; what it gives, where that is known.
    pub(super) fn check(
        &self,
        scope: &Scope<'_>,
        expression: &str,
        path: &FieldPath,
        causes: &mut Vec<Cause>,
    ) -> Option<Type> {
        self.check_shown(scope, expression, expression, path, causes)
    }

    /// `shown`: the expression as messages have it.
    pub(super) fn check_shown(
        &self,
        scope: &Scope<'_>,
        expression: &str,
        shown: &str,
        path: &FieldPath,
        causes: &mut Vec<Cause>,
    ) -> Option<Type> {
        let wrong = match compile_to(scope, expression, &self.types) {
            Ok(compiled) => return Some(compiled.ty),
            Err(_) if self.known.contains(expression.trim()) => return None,
            Err(wrong) => wrong,
        };
        causes.push(match wrong.internal {
            true => Cause::internal(path, &wrong.why),
            false => Cause::invalid(path, shown, wrong.why),
        });
        None
    }

    /// One that must be there: `none` is told where it is blank.
    pub(super) fn require(
        &self,
        scope: &Scope<'_>,
        expression: &str,
        none: &str,
        path: &FieldPath,
        causes: &mut Vec<Cause>,
    ) -> Option<Type> {
        if expression.trim().is_empty() {
            causes.push(Cause::required(path, none));
            return None;
        }
        self.check(scope, expression, path, causes)
    }
}

/// What must hold for a webhook or a policy to be asked (`validateMatchConditions`).
pub(super) fn match_conditions(
    conditions: &[Value],
    scope: &Scope<'_>,
    wanted: &Wanted<'_>,
    path: &FieldPath,
    causes: &mut Vec<Cause>,
) {
    if conditions.len() > CONDITIONS_MAX {
        causes.push(Cause::too_many(path, conditions.len(), CONDITIONS_MAX));
    }
    let mut names = HashSet::new();
    for (nth, condition) in conditions.iter().enumerate() {
        let path = path.index(nth);
        wanted.require(scope, text(condition, "expression").trim(), "", &path.child("expression"), causes);
        let (name, path) = (text(condition, "name"), path.child("name"));
        if name.is_empty() {
            causes.push(Cause::required(&path, ""));
            continue;
        }
        invalid_all(&path, name, validation::qualified_name(name), causes);
        if !names.insert(name) {
            causes.push(Cause::duplicate(&path, name));
        }
    }
}

/// Whether a variable can be named so (`isCELIdentifier`).
pub(super) fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !RESERVED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custom::cel::Given;
    use coracle_api::json::json;

    fn told(conditions: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        let scope = Scope::of_request(Given { authorizer: true, ..Given::default() });
        let (list, wanted) = (conditions.as_array().unwrap(), Wanted::conditions(&[]));
        match_conditions(list, &scope, &wanted, &FieldPath::new("m"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn match_conditions_have_names_of_their_own() {
        assert_eq!(told(&json!([{"name": "a.b/c", "expression": "true"}])), [""; 0]);
        let none = json!([{"expression": " "}]);
        assert_eq!(told(&none), ["m[0].expression: Required value", "m[0].name: Required value"]);
        let twice = json!([{"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}]);
        assert_eq!(told(&twice), ["m[1].name: Duplicate value: \"a\""]);
        let odd = told(&json!([{"name": "a b", "expression": " 1 + "}]));
        assert_eq!(odd.len(), 2);
        assert!(odd[0].starts_with("m[0].expression: Invalid value: \"1 +\": compilation failed: ERROR: "), "{odd:?}");
        assert!(odd[1].starts_with("m[0].name: Invalid value: \"a b\": name part must consist of"), "{odd:?}");
    }

    #[test]
    fn match_conditions_are_64_at_most() {
        let many = |count: usize| (0..count).map(|nth| json!({"name": format!("a{nth}"), "expression": "true"}));
        assert_eq!(told(&many(64).collect()), [""; 0]);
        assert_eq!(told(&many(65).collect()), ["m: Too many: 65: must have at most 64 items"]);
    }

    #[test]
    fn identifiers_are_words_that_nothing_else_is_meant_by() {
        for good in ["a", "_", "A1_b"] {
            assert!(is_identifier(good), "{good}");
        }
        for bad in ["", "1a", "a-b", "a.b", "in", "void", "ä"] {
            assert!(!is_identifier(bad), "{bad}");
        }
    }
}
