//! Requests of a claim, and references to them.

use super::{config, lists, names, selectors};
use crate::custom::cel;
use crate::registry::fields::{is_set, items, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::{HashMap, HashSet};

/// Most requests of a claim, references to them, and devices that it gets.
pub const REQUESTS_MAX: usize = 32;
const FIRST_AVAILABLE_MAX: usize = 8;
const CONSTRAINTS_MAX: usize = 32;
const MODES: [&str; 2] = ["All", "ExactCount"];
const OPERATORS: [&str; 2] = ["Equal", "Exists"];
pub const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// Everything that a claim asks for (`validateDeviceClaim`).
pub fn devices(devices: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    cel::roomy(causes, |causes| claim(devices, path, causes));
}

fn claim(devices: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let names = Names::of(devices);
    let by_name = lists::by("name");
    lists::set(items(devices, "requests"), REQUESTS_MAX, &path.child("requests"), causes, request, by_name);
    let (list, at) = (items(devices, "constraints"), path.child("constraints"));
    lists::slice(list, CONSTRAINTS_MAX, &at, causes, |item, path, causes| constraint(item, &names, path, causes));
    lists::slice(items(devices, "config"), config::CONFIG_MAX, &path.child("config"), causes, |item, path, causes| {
        names.references(item, path, causes);
        config::check(item, false, path, causes);
    });
}

/// `validateDeviceRequest`
fn request(request: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    names::label(text(request, "name"), &path.child("name"), causes);
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    match (is_set(request, "exactly"), is_set(request, "firstAvailable")) {
        (false, false) => causes.push(Cause::required(path, ONE)),
        (true, true) => causes.push(Cause::invalid(path, "null", format!("{ONE}, but multiple fields are set"))),
        (true, false) => exactly(&request["exactly"], &path.child("exactly"), causes),
        (false, true) => {
            let (list, path) = (items(request, "firstAvailable"), path.child("firstAvailable"));
            lists::set(list, FIRST_AVAILABLE_MAX, &path, causes, alternative, lists::by("name"));
        }
    }
}

/// `validateDeviceSubRequest`
fn alternative(one: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    names::label(text(one, "name"), &path.child("name"), causes);
    exactly(one, path, causes);
}

/// `validateExactDeviceRequest`
fn exactly(of: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    names::class(text(of, "deviceClassName"), &path.child("deviceClassName"), causes);
    selectors::check(items(of, "selectors"), &[], &path.child("selectors"), causes);
    mode(of, path, causes);
    for (nth, item) in items(of, "tolerations").iter().enumerate() {
        toleration(item, &path.child("tolerations").index(nth), causes);
    }
}

/// `validateDeviceAllocationMode`
fn mode(of: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let count = of.get("count").and_then(Value::as_i64).unwrap_or(0);
    let why = match text(of, "allocationMode") {
        "All" if count != 0 => "must not be specified when allocationMode is 'All'",
        "ExactCount" if count <= 0 => "must be greater than zero",
        "All" | "ExactCount" => return,
        other => return causes.push(Cause::not_supported(&path.child("allocationMode"), other, &MODES)),
    };
    causes.push(Cause::invalid(&path.child("count"), count, why));
}

/// `validateDeviceToleration`
fn toleration(toleration: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let field = |name: &str| (text(toleration, name).to_owned(), path.child(name));
    let ((key, key_path), (value, value_path)) = (field("key"), field("value"));
    if !key.is_empty() {
        names::qualified(&key, &key_path, causes);
    }
    match text(toleration, "operator") {
        "Exists" if value.is_empty() => {}
        "Exists" => causes.push(Cause::invalid(&value_path, value, "must be empty for operator `Exists`")),
        "Equal" => label_value(&value, &value_path, causes),
        "" => causes.push(Cause::required(&path.child("operator"), "")),
        other => causes.push(Cause::not_supported(&path.child("operator"), other, &OPERATORS)),
    }
    let effect = text(toleration, "effect");
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        causes.push(Cause::not_supported(&path.child("effect"), effect, &EFFECTS));
    }
}

/// The value of a taint.
pub fn label_value(value: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    crate::registry::fields::invalid_all(path, value, validation::label_value(value), causes);
}

/// What devices have in common, or not (`validateDeviceConstraint`).
fn constraint(constraint: &Value, names: &Names, path: &FieldPath, causes: &mut Vec<Cause>) {
    names.references(constraint, path, causes);
    let given = |name: &str| constraint.get(name).and_then(Value::as_str);
    // One that is given and empty is looked at, and the second one is not when both are given.
    for name in ["matchAttribute", "distinctAttribute"] {
        if let Some(attribute) = given(name) {
            return names::foreign_attribute(attribute, &path.child(name), causes);
        }
    }
    let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
    causes.push(Cause::required(path, why));
}

/// The names of requests, each with those of its alternatives (`gatherRequestNames`).
pub struct Names<'c>(HashMap<&'c str, HashSet<&'c str>>);

impl<'c> Names<'c> {
    pub fn of(devices: &'c Value) -> Self {
        // Of too many nothing is looked at.
        let requests = items(devices, "requests").iter().map(|request| {
            let alternatives = items(request, "firstAvailable").iter().map(|one| text(one, "name")).collect();
            (text(request, "name"), alternatives)
        });
        Self(requests.collect())
    }

    /// The requests that something is for.
    pub fn references(&self, of: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
        let check = |name: &Value, path: &FieldPath, causes: &mut Vec<Cause>| {
            self.reference(name.as_str().unwrap_or_default(), path, causes);
        };
        lists::set(items(of, "requests"), REQUESTS_MAX, &path.child("requests"), causes, check, Clone::clone);
    }

    /// `validateRequestNameRef`
    pub fn reference(&self, name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
        let segments: Vec<&str> = name.splitn(3, '/').collect();
        if segments.len() <= 2 {
            for segment in &segments {
                names::label(segment, path, causes);
            }
        }
        let known = match segments.as_slice() {
            [request] => self.0.contains_key(request),
            [request, one] => self.0.get(request).is_some_and(|known| known.contains(one)),
            _ => false,
        };
        if !known {
            let why =
                "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
            causes.push(Cause::invalid(path, name, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::told;
    use super::*;
    use coracle_api::json::json;

    fn claim(of: Value) -> Vec<String> {
        told(|causes| devices(&of, &FieldPath::new("d"), causes))
    }

    /// What is wrong with one request for exactly this.
    fn exact(more: Value) -> Vec<String> {
        let mut of = json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1});
        for (name, value) in more.as_object().unwrap() {
            of[name.as_str()] = value.clone();
        }
        claim(json!({"requests": [{"name": "a", "exactly": of}]}))
    }

    fn alternative(name: &str) -> Value {
        json!({"name": name, "deviceClassName": "c", "allocationMode": "All"})
    }

    #[test]
    fn a_request_is_exact_or_has_alternatives() {
        let one = "exactly one of `exactly` or `firstAvailable` is required";
        assert_eq!(claim(json!({"requests": [{"name": "a"}]})), [format!("d.requests[0]: Required value: {one}")]);
        let both = json!({"requests": [{"name": "a", "exactly": {}, "firstAvailable": [{}]}]});
        let why = format!("d.requests[0]: Invalid value: \"null\": {one}, but multiple fields are set");
        assert_eq!(claim(both), [why]);
        assert!(
            claim(json!({"requests": [{"name": "a", "firstAvailable": [alternative("a"), alternative("b")]}]}))
                .is_empty()
        );
        let twice = json!({"requests": [{"name": "a", "firstAvailable": [alternative("a"), alternative("a")]}]});
        assert_eq!(claim(twice), ["d.requests[0].firstAvailable[1]: Duplicate value: \"a\""]);
        let many = json!({"requests": [{"name": "a", "firstAvailable": vec![json!({}); 9]}]});
        assert_eq!(claim(many), ["d.requests[0].firstAvailable: Too many: 9: must have at most 8 items"]);
    }

    #[test]
    fn requests_have_names_of_their_own_that_are_labels() {
        let of = |name: &str| json!({"name": name, "firstAvailable": [alternative("x")]});
        assert_eq!(claim(json!({"requests": [of("a"), of("a")]})), ["d.requests[1]: Duplicate value: \"a\""]);
        let nameless = claim(json!({"requests": [of("")]}));
        assert!(nameless[0].starts_with("d.requests[0].name: Invalid value: \"\": a lowercase RFC 1123 label"));
        assert_eq!(nameless.len(), 1);
        let many = json!({"requests": vec![json!({}); 33]});
        assert_eq!(claim(many), ["d.requests: Too many: 33: must have at most 32 items"]);
    }

    #[test]
    fn a_request_names_its_class_and_how_many_it_wants() {
        assert!(exact(json!({})).is_empty());
        let at = "d.requests[0].exactly";
        assert_eq!(exact(json!({"deviceClassName": ""})), [format!("{at}.deviceClassName: Required value")]);
        assert!(
            exact(json!({"deviceClassName": "_"}))[0]
                .starts_with(&format!("{at}.deviceClassName: Invalid value: \"_\""))
        );
        assert_eq!(exact(json!({"count": 0})), [format!("{at}.count: Invalid value: 0: must be greater than zero")]);
        assert_eq!(
            exact(json!({"allocationMode": "All"})),
            [format!("{at}.count: Invalid value: 1: must not be specified when allocationMode is 'All'")]
        );
        assert_eq!(
            exact(json!({"allocationMode": "Some"})),
            [format!("{at}.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"")]
        );
        let mut none = alternative("x");
        none["allocationMode"] = json!("ExactCount");
        assert_eq!(
            claim(json!({"requests": [{"name": "a", "firstAvailable": [none]}]})),
            ["d.requests[0].firstAvailable[0].count: Invalid value: 0: must be greater than zero"]
        );
    }

    #[test]
    fn tolerations_are_of_taints_that_devices_can_have() {
        let of = |toleration: Value| exact(json!({"tolerations": [toleration]}));
        let at = "d.requests[0].exactly.tolerations[0]";
        assert!(of(json!({"operator": "Exists"})).is_empty());
        assert!(of(json!({"key": "a.b/c", "operator": "Equal", "value": "d", "effect": "None"})).is_empty());
        assert_eq!(of(json!({})), [format!("{at}.operator: Required value")]);
        assert_eq!(
            of(json!({"operator": "Lt", "effect": "PreferNoSchedule"})),
            [
                format!("{at}.operator: Unsupported value: \"Lt\": supported values: \"Equal\", \"Exists\""),
                format!(
                    "{at}.effect: Unsupported value: \"PreferNoSchedule\": supported values: \"NoExecute\", \"NoSchedule\", \"None\""
                ),
            ]
        );
        assert_eq!(
            of(json!({"operator": "Exists", "value": "a"})),
            [format!("{at}.value: Invalid value: \"a\": must be empty for operator `Exists`")]
        );
        assert_eq!(of(json!({"operator": "Equal", "key": "/a", "value": "_"})).len(), 2);
    }

    #[test]
    fn references_are_to_requests_that_there_are() {
        let of = |requests: Value| {
            let devices = json!({"requests": [{"name": "a", "firstAvailable": [{"name": "x"}]}, {"name": "b"}]});
            let names = Names::of(&devices);
            told(|causes| names.references(&json!({"requests": requests}), &FieldPath::new("c"), causes))
        };
        assert!(of(json!(["a", "a/x", "b"])).is_empty());
        let why =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        for name in ["c", "a/y", "b/x", "a/x/y"] {
            assert_eq!(of(json!([name])), [format!("c.requests[0]: Invalid value: \"{name}\": {why}")]);
        }
        assert_eq!(of(json!(["a/"])).len(), 2);
        assert_eq!(of(json!(["a", "a"])), ["c.requests[1]: Duplicate value: \"a\""]);
    }

    #[test]
    fn constraints_name_an_attribute_and_its_domain() {
        let of = |constraint: Value| claim(json!({"constraints": [constraint]}));
        assert!(of(json!({"matchAttribute": "a.b/c"})).is_empty());
        assert!(of(json!({"distinctAttribute": "a.b/c"})).is_empty());
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        for name in ["matchAttribute", "distinctAttribute"] {
            assert_eq!(of(json!({name: "c"})), [format!("d.constraints[0].{name}: Invalid value: \"c\": {why}")]);
        }
        let none =
            "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
        assert_eq!(of(json!({})), [format!("d.constraints[0]: Required value: {none}")]);
    }
}
