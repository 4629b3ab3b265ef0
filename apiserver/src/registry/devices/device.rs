//! Devices of a ResourceSlice.

use super::request::{EFFECTS, label_value};
use super::{capacity, internal, lists, names, slice};
use crate::registry::core::scheduling;
use crate::registry::fields::{alike, is_set, items, text};
use coracle_api::Cause;
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;
use coracle_api::validation::DNS_LABEL_MAX;
use std::collections::HashSet;

/// Most attributes and capacities of a device together.
const PROPERTIES_MAX: usize = 32;
const VALUE_MAX: usize = 64;
const TAINTS_MAX: usize = 16;
const CONSUMED_MAX: usize = 2;
const COUNTERS_MAX: usize = 32;
const BINDING_MAX: usize = 4;

/// Everything that is wrong with a device (`validateDevice`); `apart` says of itself where it is.
pub fn validate(device: &Value, old: Option<&Value>, apart: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    names::label(text(device, "name"), &path.child("name"), causes);
    properties(device, path, causes);
    // Taints that stay are not judged again.
    if !old.is_some_and(|old| alike(&device["taints"], &old["taints"])) {
        lists::slice(items(device, "taints"), TAINTS_MAX, &path.child("taints"), causes, taint);
    }
    let (list, at) = (items(device, "consumesCounters"), path.child("consumesCounters"));
    lists::set(list, CONSUMED_MAX, &at, causes, consumption, lists::by("counterSet"));
    if apart {
        places(device, path, causes);
    } else if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| !device[*field].is_null()) {
        let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        causes.push(Cause::invalid(path, "null", why));
    }
    binding(device, path, causes);
}

/// Attributes and capacities.
fn properties(device: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let map = |field: &str| device.get(field).and_then(Value::as_object);
    let (attributes, capacities) = (map("attributes"), map("capacity"));
    let count = attributes.map_or(0, Map::len) + capacities.map_or(0, Map::len);
    if count > PROPERTIES_MAX {
        let why = format!("the total number of attributes and capacities must not exceed {PROPERTIES_MAX}");
        causes.push(Cause::invalid(path, count, why));
    }
    lists::map(attributes, names::KEY_MAX, &path.child("attributes"), causes, |key, value, path, causes| {
        names::attribute(key, path, causes);
        attribute(value, path, causes);
    });
    let shared = device["allowMultipleAllocations"] == true;
    lists::map(capacities, names::KEY_MAX, &path.child("capacity"), causes, |key, value, path, causes| {
        names::attribute(key, path, causes);
        capacity::validate(value, shared, path, causes);
    });
}

/// One value (`validateDeviceAttribute`).
fn attribute(attribute: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let given = |name: &str| attribute.get(name).filter(|value| !value.is_null());
    let text = |name: &str| given(name).and_then(Value::as_str);
    if text("string").is_some_and(|value| value.len() > VALUE_MAX) {
        causes.push(Cause::too_long(&path.child("string"), VALUE_MAX));
    }
    if let Some(version) = text("version") {
        let path = path.child("version");
        if !is_version(version) {
            causes.push(Cause::invalid(&path, version, "must be a string compatible with semver.org spec 2.0.0"));
        }
        if version.len() > VALUE_MAX {
            causes.push(Cause::too_long(&path, VALUE_MAX));
        }
    }
    let why = "exactly one value must be specified";
    match ["int", "bool", "string", "version"].iter().filter(|name| given(name).is_some()).count() {
        0 => causes.push(Cause::invalid(path, "", why)),
        1 => {}
        _ => causes.push(Cause::invalid(path, internal::attribute(attribute), why)),
    }
}

/// Whether it is a version as semver.org has it, in version 2.0.0.
fn is_version(text: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |part: &str| !part.is_empty() && digits(part) && (part == "0" || !part.starts_with('0'));
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && before.is_none_or(|before| before.split('.').all(|part| number(part) || word(part) && !digits(part)))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// What keeps claims away (`validateDeviceTaint`).
fn taint(taint: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    names::qualified(text(taint, "key"), &path.child("key"), causes);
    label_value(text(taint, "value"), &path.child("value"), causes);
    match text(taint, "effect") {
        "" => causes.push(Cause::required(&path.child("effect"), "")),
        effect if EFFECTS.contains(&effect) => {}
        effect => causes.push(Cause::not_supported(&path.child("effect"), effect, &EFFECTS)),
    }
}

/// `validateDeviceCounterConsumption`
fn consumption(consumption: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    names::required_label(text(consumption, "counterSet"), &path.child("counterSet"), causes);
    counters(consumption, path, causes);
}

/// Counters, of which there is at least one.
pub fn counters(of: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let path = path.child("counters");
    let counters = of.get("counters").and_then(Value::as_object);
    match counters.map_or(0, Map::len) {
        0 => causes.push(Cause::required(&path, "")),
        count if count > COUNTERS_MAX => causes.push(Cause::too_many(&path, count, COUNTERS_MAX)),
        _ => lists::map(counters, DNS_LABEL_MAX, &path, causes, |key, _, path, causes| names::label(key, path, causes)),
    }
}

/// Where the device is: said in one way.
fn places(device: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut set = Vec::new();
    match device.get("nodeName").and_then(Value::as_str) {
        None => {}
        Some("") => causes.push(Cause::invalid(&path.child("nodeName"), "", "must not be empty")),
        Some(name) => {
            set.push("`nodeName`");
            names::subdomain(name, &path.child("nodeName"), causes);
        }
    }
    if is_set(device, "nodeSelector") {
        set.push("`nodeSelector`");
        scheduling::node_selector(&device["nodeSelector"], &path.child("nodeSelector"), causes);
    }
    slice::truth(device, "allNodes", "`allNodes`", path, &mut set, causes);
    let why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match set.len() {
        0 => causes.push(Cause::required(path, why)),
        1 => {}
        _ => causes.push(Cause::invalid(path, format!("{{{}}}", set.join(", ")), why)),
    }
}

/// Conditions that pods wait for before they are bound, and those that end it (`validateDeviceBindingParameters`).
pub fn binding(of: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const FIELDS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    let lists = FIELDS.map(|field| (items(of, field), path.child(field)));
    for (list, path) in &lists {
        lists::slice(list, BINDING_MAX, path, causes, |condition, path, causes| {
            names::qualified(condition.as_str().unwrap_or_default(), path, causes);
        });
    }
    let [(conditions, conditions_path), (failures, failures_path)] = &lists;
    lists::unique(conditions, conditions_path, causes, Clone::clone);
    let wanted: HashSet<&str> = conditions.iter().filter_map(Value::as_str).collect();
    let mut seen = HashSet::new();
    for (nth, failure) in failures.iter().filter_map(Value::as_str).enumerate() {
        let path = failures_path.index(nth);
        if !seen.insert(failure) {
            causes.push(Cause::duplicate(&path, failure));
        }
        if wanted.contains(failure) {
            let why = "bindingFailureConditions must not overlap with bindingConditions";
            causes.push(Cause::invalid(&path, failure, why));
        }
    }
    if conditions.is_empty() && !failures.is_empty() {
        let why = "bindingConditions are required to use bindingFailureConditions";
        causes.push(Cause::invalid(conditions_path, of[FIELDS[0]].clone(), why));
    }
    if failures.is_empty() && !conditions.is_empty() {
        let why = "bindingFailureConditions are required to use bindingConditions";
        causes.push(Cause::invalid(failures_path, of[FIELDS[1]].clone(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::super::told;
    use super::*;
    use coracle_api::json::json;

    /// What is wrong with a device that is called "a".
    fn check(mut device: Value, old: Option<&Value>, apart: bool) -> Vec<String> {
        device["name"] = json!("a");
        told(|causes| validate(&device, old, apart, &FieldPath::new("d"), causes))
    }

    fn plain(device: Value) -> Vec<String> {
        check(device, None, false)
    }

    #[test]
    fn an_attribute_has_one_value() {
        let of = |value: Value| plain(json!({"attributes": {"k": value}}));
        for value in [json!({"int": 0}), json!({"bool": false}), json!({"string": ""}), json!({"version": "1.0.0"})] {
            assert!(of(value.clone()).is_empty(), "{value}");
        }
        assert_eq!(of(json!({})), ["d.attributes[k]: Invalid value: \"\": exactly one value must be specified"]);
        assert_eq!(
            of(json!({"bool": true, "int": 1})),
            [
                r#"d.attributes[k]: Invalid value: {"IntValue":1,"BoolValue":true,"StringValue":null,"VersionValue":null,"IntValues":null,"BoolValues":null,"StringValues":null,"VersionValues":null}: exactly one value must be specified"#
            ]
        );
        let long = "1".repeat(65);
        assert_eq!(of(json!({"string": long})), ["d.attributes[k].string: Too long: may not be more than 64 bytes"]);
        assert_eq!(
            of(json!({"version": long})),
            [
                format!(
                    "d.attributes[k].version: Invalid value: \"{long}\": must be a string compatible with semver.org spec 2.0.0"
                ),
                "d.attributes[k].version: Too long: may not be more than 64 bytes".to_owned(),
            ]
        );
    }

    #[test]
    fn versions_are_semantic() {
        for version in ["0.0.0", "1.2.30", "1.0.0-alpha.1", "1.0.0--", "1.0.0-0a.b+001.x-y", "1.0.0+a-b"] {
            assert!(is_version(version), "{version}");
        }
        for version in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3+",
            "1.2.3+a+b",
            "v1.2.3",
            "1.2.3-a..b",
            "1.2.x",
        ] {
            assert!(!is_version(version), "{version}");
        }
    }

    #[test]
    fn a_device_has_few_attributes_with_proper_keys() {
        let map = |count: usize, value: Value| -> Value {
            (0..count).map(|nth| (format!("k{nth}"), value.clone())).collect::<Map>().into()
        };
        let (number, amount) = (json!({"int": 1}), json!({"value": "1"}));
        assert!(plain(json!({"attributes": map(16, number.clone()), "capacity": map(16, amount.clone())})).is_empty());
        assert_eq!(
            plain(json!({"attributes": map(16, number.clone()), "capacity": map(17, amount)})),
            ["d: Invalid value: 33: the total number of attributes and capacities must not exceed 32"]
        );
        let told = plain(json!({"attributes": {"a-b": number}, "capacity": {"c-d": {"value": "1"}}}));
        assert!(told[0].starts_with("d.attributes[a-b]: Invalid value: \"a-b\": a valid C identifier"));
        assert!(told[1].starts_with("d.capacity[c-d]: Invalid value: \"c-d\": a valid C identifier"));
    }

    #[test]
    fn taints_are_judged_when_they_change() {
        let device = json!({"taints": [{"effect": "Never", "value": "_"}, {"key": "k"}]});
        let told = plain(device.clone());
        let places: Vec<&str> = told.iter().map(|told| told.split(": ").next().unwrap()).collect();
        let first = "d.taints[0]";
        assert_eq!(
            places,
            [
                format!("{first}.key"),
                format!("{first}.key"),
                format!("{first}.value"),
                format!("{first}.effect"),
                "d.taints[1].effect".to_owned()
            ]
        );
        assert!(
            told[3]
                .ends_with("Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"")
        );
        assert!(check(device.clone(), Some(&device), false).is_empty());
        assert_eq!(
            plain(json!({"taints": vec![json!({}); 17]})),
            ["d.taints: Too many: 17: must have at most 16 items"]
        );
    }

    #[test]
    fn counters_are_consumed_of_two_sets() {
        let of = |set: &str| json!({"counterSet": set, "counters": {"x": {"value": "1"}}});
        assert!(plain(json!({"consumesCounters": [of("a"), of("b")]})).is_empty());
        assert_eq!(
            plain(json!({"consumesCounters": [of("a"), of("a")]})),
            ["d.consumesCounters[1]: Duplicate value: \"a\""]
        );
        assert_eq!(
            plain(json!({"consumesCounters": vec![of("a"); 3]})),
            ["d.consumesCounters: Too many: 3: must have at most 2 items"]
        );
        let many: Map = (0..33).map(|nth| (format!("c{nth}"), json!({"value": "1"}))).collect();
        assert_eq!(
            plain(json!({"consumesCounters": [{"counters": many}]})),
            [
                "d.consumesCounters[0].counterSet: Required value",
                "d.consumesCounters[0].counters: Too many: 33: must have at most 32 items"
            ]
        );
    }

    #[test]
    fn devices_say_where_they_are_when_their_slice_does_not() {
        let one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        assert!(check(json!({"nodeName": "n"}), None, true).is_empty());
        assert_eq!(check(json!({}), None, true), [format!("d: Required value: {one}")]);
        assert_eq!(
            check(json!({"nodeName": "n", "allNodes": true}), None, true),
            [format!("d: Invalid value: \"{{`nodeName`, `allNodes`}}\": {one}")]
        );
        assert_eq!(
            check(json!({"nodeName": "", "allNodes": false}), None, true),
            [
                "d.nodeName: Invalid value: \"\": must not be empty".to_owned(),
                "d.allNodes: Invalid value: false: must be either unset or set to true".to_owned(),
                format!("d: Required value: {one}")
            ]
        );
        let only = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        assert_eq!(plain(json!({"allNodes": false})), [format!("d: Invalid value: \"null\": {only}")]);
    }

    #[test]
    fn binding_waits_for_some_conditions_and_ends_with_others() {
        let of = |wait: Value, end: Value| plain(json!({"bindingConditions": wait, "bindingFailureConditions": end}));
        assert!(of(json!(["a", "b"]), json!(["c"])).is_empty());
        assert_eq!(
            of(json!(["a", "a"]), json!(["b", "a", "b"])),
            [
                "d.bindingConditions[1]: Duplicate value: \"a\"",
                "d.bindingFailureConditions[1]: Invalid value: \"a\": bindingFailureConditions must not overlap with bindingConditions",
                "d.bindingFailureConditions[2]: Duplicate value: \"b\"",
            ]
        );
        assert_eq!(
            of(json!(["a"]), json!(null)),
            [
                "d.bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions"
            ]
        );
        assert_eq!(
            of(json!([]), json!(["a"])),
            ["d.bindingConditions: Invalid value: []: bindingConditions are required to use bindingFailureConditions"]
        );
        assert_eq!(
            of(json!(["a", "b", "c", "d", "e"]), json!(["/f"])),
            [
                "d.bindingConditions: Too many: 5: must have at most 4 items",
                "d.bindingFailureConditions[0]: Invalid value: \"/f\": prefix part must be non-empty",
            ]
        );
    }
}
