//! Policies in CEL: what they are about, and what they say (admissionregistration `validation.go`).

use super::expressions::{self, Wanted};
use super::rules;
use crate::custom::cel::{Given, Scope, Type};
use crate::registry::fields::{alike, invalid_all, items, one_of, text};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use std::collections::HashSet;

const ANNOTATIONS_MAX: usize = 20;
/// Longest expression of an audit annotation, in bytes.
const ANNOTATION_MAX: usize = 5 << 10;

/// What the expressions of a policy are given.
struct Scopes {
    own: Scope<'static>,
    /// No message is made of what somebody may do.
    messages: Scope<'static>,
}

impl Scopes {
    fn of(spec: &Value, mutating: bool) -> Self {
        let variables = !items(spec, "variables").is_empty();
        let given = Given { params: !spec["paramKind"].is_null(), authorizer: true, variables, patches: mutating };
        Self { own: Scope::of_request(given), messages: Scope::of_request(Given { authorizer: false, ..given }) }
    }

    fn declare(&mut self, name: &str, ty: Option<&Type>) {
        self.own.declare(name, ty);
        self.messages.declare(name, ty);
    }
}

/// The expressions that a list of the policy before had.
fn before<'o>(old: Option<&'o Value>, list: &str, field: &'o str) -> impl Iterator<Item = &'o str> {
    old.map_or(&[][..], |old| items(&old["spec"], list)).iter().map(move |item| text(item, field))
}

/// Checks a policy that lets in or turns away (`validateValidatingAdmissionPolicySpec`).
pub(super) fn validating(policy: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, path) = (&policy["spec"], FieldPath::new("spec"));
    let scopes = about(spec, old, false, causes);
    let (checks, notes) = (items(spec, "validations"), items(spec, "auditAnnotations"));
    if checks.is_empty() && notes.is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        causes.push(Cause::required(&path.child("validations"), why));
        causes.push(Cause::required(&path.child("auditAnnotations"), why));
    }
    let wanted = (
        Wanted::new([Type::Bool], before(old, "validations", "expression")),
        Wanted::new([Type::String], before(old, "validations", "messageExpression")),
    );
    for (nth, check) in checks.iter().enumerate() {
        validation(check, &scopes, &wanted, &path.child("validations").index(nth), causes);
    }
    let wanted = Wanted::new([Type::String, Type::Null], before(old, "auditAnnotations", "valueExpression"));
    annotations(notes, meta::name(policy), (&scopes.own, &wanted), &path.child("auditAnnotations"), causes);
}

/// Checks a policy that changes what comes in (`validateMutatingAdmissionPolicySpec`).
pub(super) fn mutating(policy: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    const REINVOCATION: [&str; 2] = ["IfNeeded", "Never"];
    let (spec, path) = (&policy["spec"], FieldPath::new("spec"));
    let scopes = about(spec, old, true, causes);
    let (mutations, at) = (items(spec, "mutations"), path.child("mutations"));
    if mutations.is_empty() {
        causes.push(Cause::required(&at, "mutations must contain at least one item"));
    }
    let patches = Patches::new(scopes.own, old);
    for (nth, mutation) in mutations.iter().enumerate() {
        check_mutation(mutation, &patches, &at.index(nth), causes);
    }
    let (again, at) = (text(spec, "reinvocationPolicy"), path.child("reinvocationPolicy"));
    match again {
        "" => causes.push(Cause::required(&at, "")),
        again if !REINVOCATION.contains(&again) => causes.push(Cause::not_supported(&at, again, &REINVOCATION)),
        _ => {}
    }
}

/// What requests a policy is about, and what it is asked with: what its expressions are given.
fn about(spec: &Value, old: Option<&Value>, mutating: bool, causes: &mut Vec<Cause>) -> Scopes {
    let path = FieldPath::new("spec");
    one_of(spec, "failurePolicy", &["Fail", "Ignore"], &path, causes);
    if !spec["paramKind"].is_null() {
        param_kind(&spec["paramKind"], &path.child("paramKind"), causes);
    }
    let (constraints, at) = (&spec["matchConstraints"], path.child("matchConstraints"));
    if constraints.is_null() {
        causes.push(Cause::required(&at, ""));
    } else {
        rules::match_resources(constraints, &at, causes);
        if items(constraints, "resourceRules").is_empty() {
            causes.push(Cause::required(&at.child("resourceRules"), ""));
        }
        if mutating {
            rules::mutable(constraints, &at, causes);
        }
    }
    // What nobody touched may stay, though a newer server would refuse it.
    let untouched = |old: &Value| ["paramKind", "matchConditions"].iter().all(|name| alike(&spec[*name], &old[*name]));
    if !old.is_some_and(|old| untouched(&old["spec"])) {
        let given = Given { params: !spec["paramKind"].is_null(), authorizer: true, ..Given::default() };
        let known = old.map_or(&[][..], |old| items(&old["spec"], "matchConditions"));
        let (scope, wanted) = (Scope::of_request(given), Wanted::conditions(known));
        let (list, at) = (items(spec, "matchConditions"), path.child("matchConditions"));
        expressions::match_conditions(list, &scope, &wanted, &at, causes);
    }
    let mut scopes = Scopes::of(spec, mutating);
    let wanted = Wanted::new([], before(old, "variables", "expression"));
    for (nth, variable) in items(spec, "variables").iter().enumerate() {
        check_variable(variable, &mut scopes, &wanted, &path.child("variables").index(nth), causes);
    }
    scopes
}

/// The kind of what a policy is asked with (`validateParamKind`).
fn param_kind(kind: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    api_version(text(kind, "apiVersion"), &path.child("apiVersion"), causes);
    let (kind, path) = (text(kind, "kind"), path.child("kind"));
    if kind.is_empty() {
        causes.push(Cause::required(&path, ""));
        return;
    }
    let messages = validation::dns1035_label(&kind.to_lowercase());
    if !messages.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
        causes.push(Cause::invalid(&path, kind, why));
    }
}

fn api_version(whole: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if whole.is_empty() {
        causes.push(Cause::required(path, ""));
        return;
    }
    let (group, version) = whole.split_once('/').unwrap_or(("", whole));
    if version.contains('/') {
        causes.push(Cause::invalid(path, whole, format!("unexpected GroupVersion string: {whole}")));
        return;
    }
    let mut joined = |value: &str, messages: Vec<String>| {
        if !messages.is_empty() {
            causes.push(Cause::invalid(path, value, messages.join(",")));
        }
    };
    if !group.is_empty() {
        joined(group, validation::dns1123_subdomain(group));
    }
    match version {
        "" => joined(whole, vec!["version must be specified".to_owned()]),
        version => joined(version, validation::dns1035_label(version)),
    }
}

/// A value that other expressions name (`validateVariable`).
fn check_variable(
    variable: &Value,
    scopes: &mut Scopes,
    wanted: &Wanted<'_>,
    path: &FieldPath,
    causes: &mut Vec<Cause>,
) {
    let (name, at) = (text(variable, "name"), path.child("name"));
    if name.trim().is_empty() {
        causes.push(Cause::required(&at, "name is not specified"));
    } else if !expressions::is_identifier(name) {
        causes.push(Cause::invalid(&at, name, "name is not a valid CEL identifier"));
    }
    let (expression, none) = (text(variable, "expression"), "expression is not specified");
    let ty = wanted.require(&scopes.own, expression, none, &path.child("expression"), causes);
    if !expression.trim().is_empty() {
        scopes.declare(name, ty.as_ref());
    }
}

/// What must hold, and what is said when it does not (`validateValidation`).
fn validation(
    check: &Value,
    scopes: &Scopes,
    (holds, says): &(Wanted<'_>, Wanted<'_>),
    path: &FieldPath,
    causes: &mut Vec<Cause>,
) {
    let none = "expression is not specified";
    holds.require(&scopes.own, text(check, "expression"), none, &path.child("expression"), causes);
    let (made, at) = (text(check, "messageExpression"), path.child("messageExpression"));
    if !made.trim().is_empty() {
        says.check(&scopes.messages, made, &at, causes);
    } else if !made.is_empty() {
        causes.push(Cause::invalid(&at, made, "must be non-empty if specified"));
    }
    let (message, at) = (text(check, "message"), path.child("message"));
    if !message.is_empty() && message.trim().is_empty() {
        causes.push(Cause::invalid(&at, message, "message must be non-empty if specified"));
    } else if message.trim().contains(['\n', '\r']) {
        causes.push(Cause::invalid(&at, message, "message must not contain line breaks"));
    }
    one_of(check, "reason", &["Forbidden", "Invalid", "RequestEntityTooLarge"], path, causes);
}

/// What is written down about a request (`validateAuditAnnotation`).
fn annotations(
    notes: &[Value],
    policy: &str,
    given: (&Scope<'_>, &Wanted<'_>),
    path: &FieldPath,
    causes: &mut Vec<Cause>,
) {
    if notes.len() > ANNOTATIONS_MAX {
        // In the field names of upstream's internal type.
        let shown = |note: &Value| json!({"Key": text(note, "key"), "ValueExpression": text(note, "valueExpression")});
        let why = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        causes.push(Cause::invalid(path, notes.iter().map(shown).collect::<Vec<_>>(), why));
    }
    let mut keys = HashSet::new();
    for (nth, note) in notes.iter().enumerate() {
        let (path, key) = (path.index(nth), text(note, "key"));
        let whole = format!("{policy}/{key}");
        invalid_all(&path.child("key"), &whole, validation::qualified_name(&whole), causes);
        value_expression(text(note, "valueExpression"), given, &path.child("valueExpression"), causes);
        if !keys.insert(key) {
            causes.push(Cause::duplicate(&path.child("key"), key));
        }
    }
}

fn value_expression(
    shown: &str,
    (scope, wanted): (&Scope<'_>, &Wanted<'_>),
    path: &FieldPath,
    causes: &mut Vec<Cause>,
) {
    let expression = shown.trim();
    if expression.is_empty() {
        causes.push(Cause::required(path, "valueExpression is not specified"));
    } else if expression.len() > ANNOTATION_MAX {
        // Upstream says that it is required.
        causes.push(Cause::required(path, &format!("must not exceed {ANNOTATION_MAX} bytes in length")));
    } else {
        wanted.check_shown(scope, expression, shown, path, causes);
    }
}

/// What changes are made by.
struct Patches<'o> {
    scope: Scope<'static>,
    apply: Wanted<'o>,
    json: Wanted<'o>,
}

impl<'o> Patches<'o> {
    fn new(scope: Scope<'static>, old: Option<&'o Value>) -> Self {
        let known = |field: &'static str| {
            let mutations = old.map_or(&[][..], |old| items(&old["spec"], "mutations")).iter();
            mutations.map(move |mutation| text(&mutation[field], "expression"))
        };
        let object = |name: &str| Type::Object(name.into());
        Self {
            scope,
            apply: Wanted::new([object("Object")], known("applyConfiguration")),
            json: Wanted::new([Type::list(object("JSONPatch"))], known("jsonPatch")),
        }
    }
}

/// A change, in one of two ways (`validateMutation`).
fn check_mutation(mutation: &Value, patches: &Patches<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    const KINDS: [(&str, &str); 2] = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
    let (kind, at) = (text(mutation, "patchType"), path.child("patchType"));
    if kind.is_empty() {
        causes.push(Cause::required(&at, ""));
        return;
    }
    let Some((_, field)) = KINDS.into_iter().find(|(known, _)| *known == kind) else {
        causes.push(Cause::not_supported(&at, kind, &KINDS.map(|(known, _)| known)));
        return;
    };
    let given = |field: &str| mutation.get(field).filter(|value| !value.is_null());
    match given(field) {
        None => {
            causes.push(Cause::required(&path.child(field), &format!("must be specified when patchType is {kind}")));
        }
        Some(patch) => {
            let at = path.child(field).child("expression");
            let wanted = if kind == "JSONPatch" { &patches.json } else { &patches.apply };
            wanted.require(&patches.scope, text(patch, "expression").trim(), "", &at, causes);
        }
    }
    for (_, other) in KINDS.into_iter().filter(|(_, other)| *other != field && given(other).is_some()) {
        let why = format!("must not be specified when patchType is {kind}");
        causes.push(Cause::invalid(&path.child(other), format!("{{{other}}}"), why));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AdmissionConfig, told};
    use super::*;
    use coracle_api::patch;

    fn policy(change: &Value) -> Value {
        let rule = json!({"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
        let mut spec = json!({"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "true"}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: \"test\"}]"}}],
            "reinvocationPolicy": "Never"});
        patch::merge(&mut spec, change.clone());
        json!({"metadata": {"name": "p"}, "spec": spec})
    }

    fn check(change: &Value) -> Vec<String> {
        told(AdmissionConfig::ValidatingPolicy, policy(change), None)
    }

    fn mutate(change: &Value) -> Vec<String> {
        told(AdmissionConfig::Policy, policy(change), None)
    }

    #[test]
    fn policies_are_asked_with_a_kind() {
        let asked = |version: &str, kind: &str| check(&json!({"paramKind": {"apiVersion": version, "kind": kind}}));
        assert_eq!(asked("v1", "ConfigMap"), [""; 0]);
        assert_eq!(asked("a.b/v1", "K"), [""; 0]);
        assert_eq!(asked("", ""), ["spec.paramKind.apiVersion: Required value", "spec.paramKind.kind: Required value"]);
        let slashes = "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c";
        assert_eq!(asked("a/b/c", "K"), [slashes]);
        let none =
            |given: &str| format!("spec.paramKind.apiVersion: Invalid value: {given:?}: version must be specified");
        assert_eq!(asked("/", "K"), [none("/")]);
        assert_eq!(asked("a/", "K"), [none("a/")]);
        let odd = asked("A/1", "K K");
        assert!(odd[0].starts_with("spec.paramKind.apiVersion: Invalid value: \"A\": a lowercase RFC 1123"), "{odd:?}");
        assert!(odd[1].starts_with("spec.paramKind.apiVersion: Invalid value: \"1\": a DNS-1035 label"), "{odd:?}");
        let kind =
            "spec.paramKind.kind: Invalid value: \"K K\": may have mixed case, but should otherwise match: a DNS-1035";
        assert!(odd[2].starts_with(kind), "{odd:?}");
    }

    #[test]
    fn policies_are_about_something() {
        assert_eq!(check(&json!({"matchConstraints": null})), ["spec.matchConstraints: Required value"]);
        let rule = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"],
            "resourceNames": ["a", "a", "b%"]});
        let constraints = json!({"resourceRules": [], "excludeResourceRules": [rule]});
        assert_eq!(
            check(&json!({"matchConstraints": constraints})),
            [
                "spec.matchConstraints.excludeResourceRules[0].resourceNames[1]: Duplicate value: \"a\"",
                "spec.matchConstraints.excludeResourceRules[0].resourceNames[2]: Invalid value: \"b%\": may not contain '%'",
                "spec.matchConstraints.resourceRules: Required value",
            ]
        );
    }

    #[test]
    fn conditions_that_nobody_touched_are_not_looked_at() {
        let named = |change: Value| policy(&change);
        let old = named(json!({"matchConditions": [{"expression": "true"}]}));
        let wrong = ["spec.matchConditions[0].name: Required value"];
        for config in [AdmissionConfig::ValidatingPolicy, AdmissionConfig::Policy] {
            assert_eq!(told(config, old.clone(), None), wrong);
            assert_eq!(told(config, old.clone(), Some(&old)), [""; 0]);
            let kind = json!({"apiVersion": "v1", "kind": "K"});
            let now = named(json!({"matchConditions": [{"expression": "true"}], "paramKind": kind}));
            assert_eq!(told(config, now, Some(&old)), wrong);
        }
    }

    #[test]
    fn variables_are_named_in_expressions() {
        let variables = json!([{"name": "a", "expression": "1"}, {"name": " "}, {"name": "in", "expression": "("}]);
        let told = check(&json!({"matchConditions": [{"name": "m"}], "variables": variables}));
        assert_eq!(
            told[..4],
            [
                "spec.matchConditions[0].expression: Required value",
                "spec.variables[1].name: Required value: name is not specified",
                "spec.variables[1].expression: Required value: expression is not specified",
                "spec.variables[2].name: Invalid value: \"in\": name is not a valid CEL identifier",
            ]
        );
        assert!(told[4].starts_with("spec.variables[2].expression: Invalid value: \"(\": compilation failed: ERROR: "));
    }

    #[test]
    fn variables_have_the_types_of_their_values() {
        let of = |expression: &str, message: &str| {
            let variables = json!([{"name": "a", "expression": "object.b == 'c'"}, {"name": "d", "expression": "variables.a ? 1 : 2"},
                {"name": "wrong", "expression": "nothing"}]);
            let validations = json!([{"expression": expression, "messageExpression": message}]);
            check(&json!({"variables": variables, "validations": validations}))
        };
        let first = of("variables.a && variables.d > 1", "string(variables.d)");
        assert_eq!(first.len(), 1);
        assert!(first[0].starts_with("spec.variables[2].expression: Invalid value: \"nothing\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'nothing' (in container '')"), "{first:?}");
        let at = "spec.validations[0]";
        assert_eq!(
            of("variables.d", "variables.a")[1..],
            [
                format!("{at}.expression: Invalid value: \"variables.d\": must evaluate to bool but got int"),
                format!("{at}.messageExpression: Invalid value: \"variables.a\": must evaluate to string but got bool"),
            ]
        );
        assert_eq!(of("variables.wrong.a == 1", "variables.wrong + 'a'").len(), 1);
        assert!(of("variables.e", "'m'")[1].contains("undefined field 'e'"));
        assert!(
            check(&json!({"validations": [{"expression": "variables.a"}]}))[0]
                .contains("undeclared reference to 'variables'")
        );
    }

    #[test]
    fn expressions_name_what_they_are_given() {
        let mut spec = json!({
            "matchConditions": [{"name": "a", "expression": "authorizer.requestResource.check('a').allowed() && params.a == 1"}],
            "validations": [{"expression": "params.a == 1 && authorizer.path('/a').check('get').allowed()", "messageExpression": "string(params.a)"}],
            "auditAnnotations": [{"key": "a", "valueExpression": " params.a == 1 ? 'a' : object.b.c.d.e().f "}],
        });
        let told = check(&spec);
        assert_eq!(told.len(), 4, "{told:?}");
        for (told, start) in told.iter().zip([
            "spec.matchConditions[0].expression: Invalid value: \"authorizer.",
            "spec.validations[0].expression: Invalid value: \"params.a",
            "spec.validations[0].messageExpression: Invalid value: \"string(params.a)\"",
            // What is shown is what was written, what is compiled has no blanks around it.
            "spec.auditAnnotations[0].valueExpression: Invalid value: \" params.a == 1 ? 'a' : object.b.c.d.e().f \": compilation failed: ERROR: <input>:1:1: ",
        ]) {
            assert!(told.starts_with(start) && told.contains("undeclared reference to 'params'"), "{told}");
        }
        spec["paramKind"] = json!({"apiVersion": "v1", "kind": "K"});
        spec["auditAnnotations"][0]["valueExpression"] = json!("params.a == 1 ? 'a' : null");
        assert_eq!(
            check(&spec),
            [
                "spec.auditAnnotations[0].valueExpression: Invalid value: \"params.a == 1 ? 'a' : null\": compilation failed: ERROR: <input>:1:15: found no matching overload for '_?_:_' applied to '(bool, string, null)'\n | params.a == 1 ? 'a' : null\n | ..............^"
            ]
        );
        spec["auditAnnotations"][0]["valueExpression"] = json!("1");
        let why = "must evaluate to one of [string null_type] but got int";
        assert_eq!(check(&spec), [format!("spec.auditAnnotations[0].valueExpression: Invalid value: \"1\": {why}")]);
        spec["auditAnnotations"][0]["valueExpression"] = json!("null");
        spec["validations"][0]["messageExpression"] = json!("authorizer.path('/a').check('get').reason()");
        let told = check(&spec);
        assert!(told.len() == 1 && told[0].contains("undeclared reference to 'authorizer'"), "{told:?}");
    }

    #[test]
    fn expressions_that_were_there_before_may_stay() {
        let wrong = json!({
            "matchConditions": [{"name": "a", "expression": "nothing"}],
            "variables": [{"name": "a", "expression": "nothing"}],
            "validations": [{"expression": "1", "messageExpression": "1"}],
            "auditAnnotations": [{"key": "a", "valueExpression": "1"}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "1"}},
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "1"}}],
        });
        let old = policy(&wrong);
        let mut new = old.clone();
        new["spec"]["paramKind"] = json!({"apiVersion": "v1", "kind": "K"});
        for (config, count) in [(AdmissionConfig::ValidatingPolicy, 5), (AdmissionConfig::Policy, 4)] {
            assert_eq!(told(config, old.clone(), None).len(), count);
            assert_eq!(told(config, new.clone(), Some(&old)), [""; 0]);
        }
        new["spec"]["validations"][0]["messageExpression"] = json!("2");
        assert_eq!(told(AdmissionConfig::ValidatingPolicy, new, Some(&old)).len(), 1);
    }

    #[test]
    fn a_check_says_why_it_fails() {
        let of = |validation: Value| check(&json!({"validations": [validation]}));
        let good = json!({"expression": "true", "message": "\nm\n", "messageExpression": "'m'", "reason": "Invalid"});
        assert_eq!(of(good), [""; 0]);
        assert_eq!(
            of(json!({"messageExpression": " ", "message": " ", "reason": "NotFound"})),
            [
                "spec.validations[0].expression: Required value: expression is not specified",
                "spec.validations[0].messageExpression: Invalid value: \" \": must be non-empty if specified",
                "spec.validations[0].message: Invalid value: \" \": message must be non-empty if specified",
                "spec.validations[0].reason: Unsupported value: \"NotFound\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
            ]
        );
        let broken = of(json!({"expression": "true", "message": "a\rb", "messageExpression": "1 +"}));
        assert!(
            broken[0].starts_with("spec.validations[0].messageExpression: Invalid value: \"1 +\": compilation failed")
        );
        assert!(broken[1].ends_with("message must not contain line breaks"), "{broken:?}");
    }

    #[test]
    fn annotations_are_named_below_the_policy() {
        let of = |notes: Value| check(&json!({"auditAnnotations": notes}));
        assert_eq!(of(json!([{"key": "a", "valueExpression": "'v'"}])), [""; 0]);
        let long = format!("'{}'", "v".repeat(ANNOTATION_MAX));
        let told =
            of(json!([{"key": "a", "valueExpression": long}, {"key": "a"}, {"key": "a b", "valueExpression": "'v'"}]));
        assert_eq!(
            told[..3],
            [
                "spec.auditAnnotations[0].valueExpression: Required value: must not exceed 5120 bytes in length",
                "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
                "spec.auditAnnotations[1].key: Duplicate value: \"a\"",
            ]
        );
        assert!(
            told[3].starts_with("spec.auditAnnotations[2].key: Invalid value: \"p/a b\": name part must consist of")
        );
        let many = |count: usize| {
            of((0..count).map(|nth| json!({"key": format!("k{nth}"), "valueExpression": "'v'"})).collect())
        };
        assert_eq!(many(20), [""; 0]);
        let told = many(21);
        assert!(
            told[0].starts_with("spec.auditAnnotations: Invalid value: [{\"Key\":\"k0\",\"ValueExpression\":\"'v'\"},")
        );
        assert!(told[0].ends_with("]: must not have more than 20 auditAnnotations"));
    }

    #[test]
    fn a_mutation_is_of_one_type() {
        assert_eq!(mutate(&json!({})), [""; 0]);
        let of = |mutation: Value| mutate(&json!({"mutations": [mutation]}));
        let apply = "Object{spec: Object.spec{replicas: 1}}";
        let good = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": apply}});
        assert_eq!(of(good), [""; 0]);
        assert_eq!(of(json!({})), ["spec.mutations[0].patchType: Required value"]);
        let unknown = "spec.mutations[0].patchType: Unsupported value: \"X\": supported values: \"ApplyConfiguration\", \"JSONPatch\"";
        assert_eq!(of(json!({"patchType": "X"})), [unknown]);
        assert_eq!(
            of(json!({"patchType": "JSONPatch", "applyConfiguration": {}})),
            [
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
                "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when patchType is JSONPatch",
            ]
        );
        let gives = |expression: &str| json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}});
        let at = "spec.mutations[0].jsonPatch.expression: Invalid value";
        let why = "must evaluate to list(JSONPatch) but got list(dyn)";
        assert_eq!(of(gives("[]")), [format!("{at}: \"[]\": {why}")]);
        assert_eq!(of(gives("object.a == 1 ? [JSONPatch{op: 'remove', path: '/a'}] : []")), [""; 0]);
        let object = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "object"}});
        let at = "spec.mutations[0].applyConfiguration.expression: Invalid value";
        assert_eq!(of(object), [format!("{at}: \"object\": must evaluate to Object but got dyn")]);
        let blank = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": " "}});
        assert_eq!(of(blank), ["spec.mutations[0].jsonPatch.expression: Required value"]);
    }

    #[test]
    fn what_is_deleted_is_not_mutated() {
        let rule = json!({"operations": ["DELETE", "X"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
        let told = mutate(
            &json!({"matchConstraints": {"resourceRules": [rule]}, "mutations": [], "reinvocationPolicy": "Always"}),
        );
        let known = "supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"";
        let at = "spec.matchConstraints.resourceRules";
        assert_eq!(
            told,
            [
                format!(
                    "{at}[0].operations[1]: Unsupported value: \"X\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\""
                ),
                format!("{at}.operations: Unsupported value: \"DELETE\": {known}"),
                format!("{at}.operations: Unsupported value: \"X\": {known}"),
                "spec.mutations: Required value: mutations must contain at least one item".to_owned(),
                "spec.reinvocationPolicy: Unsupported value: \"Always\": supported values: \"IfNeeded\", \"Never\""
                    .to_owned(),
            ]
        );
        assert_eq!(mutate(&json!({"reinvocationPolicy": null})), ["spec.reinvocationPolicy: Required value"]);
    }
}
