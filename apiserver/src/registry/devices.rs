//! Devices that pods claim (resource/v1 `validation.go`).

use super::fields::{is_set, items, items_mut, object_mut, require, same, set_default, text};
use super::strategy::{Strategy, ThroughStatus, Traits};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

/// Most requests of a claim, and devices of a slice.
const REQUESTS_MAX: usize = 32;
const DEVICES_MAX: usize = 128;

#[derive(Debug)]
pub struct ClaimStrategy;

impl Strategy for ClaimStrategy {
    fn traits(&self) -> Traits {
        Traits { through_status: ThroughStatus::Nothing, ..Traits::DEFAULT }
    }

    fn default(&self, object: &mut Value) {
        default_claim(object_mut(object, "spec"));
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        claim(&object["spec"], &FieldPath::new("spec"), causes);
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !same(object, old, "spec") {
            causes.push(Cause::immutable(&FieldPath::new("spec"), object["spec"].clone()));
        }
    }
}

#[derive(Debug)]
pub struct TemplateStrategy;

impl Strategy for TemplateStrategy {
    fn default(&self, object: &mut Value) {
        default_claim(object_mut(object_mut(object, "spec"), "spec"));
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        claim(&object["spec"]["spec"], &FieldPath::new("spec").child("spec"), causes);
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !same(object, old, "spec") {
            causes.push(Cause::immutable(&FieldPath::new("spec"), object["spec"].clone()));
        }
    }
}

#[derive(Debug)]
pub struct SliceStrategy;

impl Strategy for SliceStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, ..Traits::DEFAULT }
    }

    fn fields(&self) -> &[crate::cache::Field] {
        use crate::cache::Field;
        static FIELDS: [Field; 2] =
            [Field::of("spec.nodeName", &["spec", "nodeName"], ""), Field::of("spec.driver", &["spec", "driver"], "")];
        &FIELDS
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        require(spec, "driver", &path, causes);
        require(&spec["pool"], "name", &path.child("pool"), causes);
        let places = [
            is_set(spec, "nodeName"),
            is_set(spec, "nodeSelector"),
            spec["allNodes"] == true,
            spec["perDeviceNodeSelection"] == true,
        ];
        if places.iter().filter(|set| **set).count() != 1 {
            let why = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
            causes.push(Cause::invalid(&path, Value::Null, why));
        }
        let devices = items(spec, "devices");
        if devices.len() > DEVICES_MAX {
            causes.push(Cause::too_many(&path.child("devices"), devices.len(), DEVICES_MAX));
        }
        names(devices, &path.child("devices"), causes);
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        for field in ["driver", "nodeName"] {
            if !same(&object["spec"], &old["spec"], field) {
                let value = object["spec"].get(field).cloned().unwrap_or(Value::Null);
                causes.push(Cause::immutable(&FieldPath::new("spec").child(field), value));
            }
        }
    }
}

fn default_claim(spec: &mut Value) {
    if let Some(devices) = spec.get_mut("devices") {
        for request in items_mut(devices, "requests") {
            if let Some(exactly) = request.get_mut("exactly").filter(|exactly| exactly.is_object()) {
                default_request(exactly);
            }
            for one in items_mut(request, "firstAvailable") {
                default_request(one);
            }
        }
    }
}

fn default_request(request: &mut Value) {
    set_default(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        set_default(request, "count", 1);
    }
}

fn names(list: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for (nth, item) in list.iter().enumerate() {
        let (name, path) = (text(item, "name"), path.index(nth).child("name"));
        if name.is_empty() {
            causes.push(Cause::required(&path, ""));
            continue;
        }
        causes.extend(validation::dns1123_label(name).into_iter().map(|why| Cause::invalid(&path, name, why)));
        if !seen.insert(name) {
            causes.push(Cause::duplicate(&path, name));
        }
    }
}

fn claim(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let path = path.child("devices").child("requests");
    let requests = items(&spec["devices"], "requests");
    if requests.len() > REQUESTS_MAX {
        causes.push(Cause::too_many(&path, requests.len(), REQUESTS_MAX));
    }
    names(requests, &path, causes);
    for (nth, request) in requests.iter().enumerate() {
        let path = path.index(nth);
        let (exactly, first) = (is_set(request, "exactly"), is_set(request, "firstAvailable"));
        if exactly == first {
            let why = "exactly one of `exactly` or `firstAvailable` is required";
            causes.push(if exactly { Cause::invalid(&path, Value::Null, why) } else { Cause::required(&path, why) });
        }
        if exactly {
            let (of, path) = (&request["exactly"], path.child("exactly"));
            require(of, "deviceClassName", &path, causes);
            match (text(of, "allocationMode"), of.get("count").and_then(Value::as_i64)) {
                ("ExactCount", Some(count)) if count < 1 => {
                    causes.push(Cause::invalid(&path.child("count"), count, "must be greater than zero"));
                }
                ("All", Some(count)) if count != 0 => {
                    let why = "must not be specified when allocationMode is 'All'";
                    causes.push(Cause::invalid(&path.child("count"), count, why));
                }
                ("ExactCount" | "All", _) => {}
                (other, _) => {
                    causes.push(Cause::not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"]));
                }
            }
        }
        for (at, one) in items(request, "firstAvailable").iter().enumerate() {
            require(one, "deviceClassName", &path.child("firstAvailable").index(at), causes);
        }
    }
}
