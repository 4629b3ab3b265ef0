//! ResourceSlices: what drivers offer.

use super::{device, internal, lists, names};
use crate::cache::Field;
use crate::registry::core::scheduling;
use crate::registry::fields::{is_set, items, items_mut, object_mut, same, set_default, text};
use crate::registry::strategy::{Strategy, Traits, WriteContext};
use coracle_api::Cause;
use coracle_api::clock::rfc3339;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use std::collections::HashMap;

const DEVICES_MAX: usize = 128;
/// When any of them has taints or consumes counters.
const LARGE_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;

#[derive(Debug)]
pub struct SliceStrategy;

impl Strategy for SliceStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, ..Traits::DEFAULT }
    }

    fn fields(&self) -> &[Field] {
        static FIELDS: [Field; 2] =
            [Field::of("spec.nodeName", &["spec", "nodeName"], ""), Field::of("spec.driver", &["spec", "driver"], "")];
        &FIELDS
    }

    fn prepare_create(&self, object: &mut Value, context: &WriteContext) {
        date_taints(object, context);
    }

    fn prepare_update(&self, object: &mut Value, _old: &Value, context: &WriteContext) {
        date_taints(object, context);
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        spec(&object["spec"], None, causes);
    }

    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        spec(&object["spec"], Some(&old["spec"]), causes);
    }
}

/// A taint that does not say since when it is there is new (v1 `SetDefaults_DeviceTaint`).
fn date_taints(slice: &mut Value, context: &WriteContext) {
    for device in items_mut(object_mut(slice, "spec"), "devices") {
        for taint in items_mut(device, "taints") {
            set_default(taint, "timeAdded", rfc3339(context.now));
        }
    }
}

/// `validateResourceSliceSpec`
fn spec(spec: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("spec");
    names::driver(text(spec, "driver"), &path.child("driver"), causes);
    pool(&spec["pool"], &path.child("pool"), causes);
    if let Some(old) = old {
        fixed(spec, old, &path, causes);
    }
    places(spec, &path, causes);
    if is_set(spec, "sharedCounters") && is_set(spec, "devices") {
        causes.push(Cause::invalid(&path, "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    devices(spec, old, &path.child("devices"), causes);
    let at = path.child("sharedCounters");
    lists::set(items(spec, "sharedCounters"), COUNTER_SETS_MAX, &at, causes, counter_set, lists::by("name"));
}

/// `validateResourcePool`
fn pool(pool: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    names::pool(text(pool, "name"), &path.child("name"), causes);
    let number = |field: &str| pool.get(field).and_then(Value::as_i64).unwrap_or(0);
    let (count, generation) = (number("resourceSliceCount"), number("generation"));
    if count <= 0 {
        causes.push(Cause::invalid(&path.child("resourceSliceCount"), count, "must be greater than zero"));
    }
    if generation < 0 {
        let why = "must be greater than or equal to zero";
        causes.push(Cause::invalid(&path.child("generation"), generation, why));
    }
}

/// A slice stays its pool's, its driver's and its node's.
fn fixed(spec: &Value, old: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if text(&spec["pool"], "name") != text(&old["pool"], "name") {
        causes.push(Cause::immutable(&path.child("pool").child("name"), text(&spec["pool"], "name")));
    }
    if text(spec, "driver") != text(old, "driver") {
        causes.push(Cause::immutable(&path.child("driver"), text(spec, "driver")));
    }
    if !same(spec, old, "nodeName") {
        // Upstream's is a pointer, and one to nothing is told so.
        let name = spec.get("nodeName").and_then(Value::as_str).unwrap_or("null");
        causes.push(Cause::immutable(&path.child("nodeName"), name));
    }
}

/// Where the devices are: said in one way.
fn places(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut set = Vec::new();
    match spec.get("nodeName").and_then(Value::as_str) {
        None => {}
        Some("") => {
            let why = "must be either unset or set to a non-empty string";
            causes.push(Cause::invalid(&path.child("nodeName"), "", why));
        }
        Some(name) => {
            set.push("`nodeName`");
            names::subdomain(name, &path.child("nodeName"), causes);
        }
    }
    if is_set(spec, "nodeSelector") {
        set.push("`nodeSelector`");
        let (selector, path) = (&spec["nodeSelector"], path.child("nodeSelector"));
        scheduling::node_selector(selector, &path, causes);
        if items(selector, "nodeSelectorTerms").len() != 1 {
            let why = "must have exactly one node selector term";
            causes.push(Cause::invalid(&path.child("nodeSelectorTerms"), internal::node_terms(selector), why));
        }
    }
    for (field, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        truth(spec, field, shown, path, &mut set, causes);
    }
    match set.len() {
        0 => causes.push(Cause::required(path, ONE)),
        1 => {}
        _ => {
            let why = format!("{ONE}, but multiple fields are set");
            causes.push(Cause::invalid(path, format!("{{{}}}", set.join(", ")), why));
        }
    }
}

/// A field that is true when it is there.
pub fn truth<'s>(
    of: &Value,
    field: &str,
    shown: &'s str,
    path: &FieldPath,
    set: &mut Vec<&'s str>,
    causes: &mut Vec<Cause>,
) {
    match of.get(field).and_then(Value::as_bool) {
        None => {}
        Some(true) => set.push(shown),
        Some(false) => causes.push(Cause::invalid(&path.child(field), false, "must be either unset or set to true")),
    }
}

fn devices(spec: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let devices = items(spec, "devices");
    let large = |field: &str| devices.iter().any(|device| !items(device, field).is_empty());
    let max = if large("taints") || large("consumesCounters") { LARGE_DEVICES_MAX } else { DEVICES_MAX };
    let mut known = HashMap::new();
    for device in old.map_or(&[][..], |old| items(old, "devices")) {
        known.entry(text(device, "name")).or_insert(device);
    }
    let apart = spec["perDeviceNodeSelection"] == true;
    let check = |device: &Value, path: &FieldPath, causes: &mut Vec<Cause>| {
        device::validate(device, known.get(text(device, "name")).copied(), apart, path, causes);
    };
    lists::set(devices, max, path, causes, check, lists::by("name"));
}

/// `validateCounterSet`
fn counter_set(set: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    names::required_label(text(set, "name"), &path.child("name"), causes);
    device::counters(set, path, causes);
}

#[cfg(test)]
mod tests {
    use super::super::told;
    use super::*;
    use coracle_api::json::json;

    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

    fn slice(more: Value) -> Value {
        let mut spec = json!({"driver": "a.b", "nodeName": "n", "pool": {"name": "p", "resourceSliceCount": 1}});
        for (name, value) in more.as_object().unwrap() {
            spec[name.as_str()] = value.clone();
        }
        json!({"spec": spec})
    }

    fn check(more: Value) -> Vec<String> {
        told(|causes| SliceStrategy.validate(&slice(more), causes))
    }

    #[test]
    fn a_slice_has_a_driver_and_a_pool() {
        assert!(check(json!({})).is_empty());
        assert!(check(json!({"driver": "A.b"})).is_empty(), "as CSI's");
        assert_eq!(check(json!({"driver": "a_"})).len(), 1);
        assert_eq!(
            check(json!({"pool": {"name": "", "generation": -1}})),
            [
                "spec.pool.name: Required value",
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
            ]
        );
    }

    #[test]
    fn a_slice_says_once_where_it_is() {
        assert_eq!(check(json!({"nodeName": null})), [format!("spec: Required value: {ONE}")]);
        assert_eq!(
            check(json!({"nodeName": ""})),
            [
                "spec.nodeName: Invalid value: \"\": must be either unset or set to a non-empty string".to_owned(),
                format!("spec: Required value: {ONE}")
            ]
        );
        assert_eq!(
            check(json!({"allNodes": true, "perDeviceNodeSelection": false})),
            [
                "spec.perDeviceNodeSelection: Invalid value: false: must be either unset or set to true".to_owned(),
                format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {ONE}, but multiple fields are set"),
            ]
        );
        let term = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
        assert!(check(json!({"nodeName": null, "nodeSelector": {"nodeSelectorTerms": [term]}})).is_empty());
        assert_eq!(
            check(json!({"nodeName": null, "nodeSelector": {"nodeSelectorTerms": [term, {}]}})),
            [
                r#"spec.nodeSelector.nodeSelectorTerms: Invalid value: [{"MatchExpressions":[{"Key":"a","Operator":"Exists","Values":null}],"MatchFields":null},{"MatchExpressions":null,"MatchFields":null}]: must have exactly one node selector term"#
            ]
        );
        assert!(
            check(json!({"nodeName": "_"}))[0].starts_with("spec.nodeName: Invalid value: \"_\": a lowercase RFC 1123")
        );
    }

    #[test]
    fn a_slice_has_devices_or_counters_and_few_of_them() {
        let named = |count: usize, more: Value| {
            let device = |nth: usize| {
                let mut device = more.clone();
                device["name"] = json!(format!("d{nth}"));
                device
            };
            (0..count).map(device).collect::<Value>()
        };
        assert!(check(json!({"devices": named(128, json!({}))})).is_empty());
        let many = |count: usize, max: usize| format!("spec.devices: Too many: {count}: must have at most {max} items");
        assert_eq!(check(json!({"devices": named(129, json!({}))})), [many(129, 128)]);
        let taint = json!({"taints": [{"key": "a", "effect": "NoExecute"}]});
        assert!(check(json!({"devices": named(64, taint.clone())})).is_empty());
        assert_eq!(check(json!({"devices": named(65, taint)})), [many(65, 64)]);
        let counters = json!({"consumesCounters": [{"counterSet": "c", "counters": {"x": {"value": "1"}}}]});
        assert_eq!(check(json!({"devices": named(65, counters)})), [many(65, 64)]);
        let counters = json!([{"name": "c", "counters": {"x": {"value": "1"}}}]);
        assert!(check(json!({"sharedCounters": counters})).is_empty());
        assert_eq!(
            check(json!({"sharedCounters": counters, "devices": named(1, json!({}))})),
            ["spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed"]
        );
        assert_eq!(
            check(json!({"devices": [{"name": "a"}, {"name": "a"}]})),
            ["spec.devices[1]: Duplicate value: \"a\""]
        );
    }

    #[test]
    fn counters_have_names() {
        let of = |sets: Value| check(json!({"sharedCounters": sets}));
        assert_eq!(
            of(json!([{}])),
            ["spec.sharedCounters[0].name: Required value", "spec.sharedCounters[0].counters: Required value"]
        );
        let told = of(json!([{"name": "c", "counters": {"X": {"value": "1"}}}]));
        assert!(
            told[0].starts_with("spec.sharedCounters[0].counters[X]: Invalid value: \"X\": a lowercase RFC 1123 label")
        );
        assert_eq!(of(vec![json!({}); 9].into()), ["spec.sharedCounters: Too many: 9: must have at most 8 items"]);
    }

    #[test]
    fn a_slice_stays_where_it_is() {
        let old = slice(json!({}));
        let update = |more: Value| told(|causes| SliceStrategy.validate_changed(&slice(more), &old, causes));
        assert!(update(json!({"pool": {"name": "p", "resourceSliceCount": 2, "generation": 3}})).is_empty());
        assert_eq!(
            update(
                json!({"driver": "c.d", "pool": {"name": "q", "resourceSliceCount": 1}, "nodeName": null, "allNodes": true})
            ),
            [
                "spec.pool.name: Invalid value: \"q\": field is immutable",
                "spec.driver: Invalid value: \"c.d\": field is immutable",
                "spec.nodeName: Invalid value: \"null\": field is immutable",
            ]
        );
    }
}
