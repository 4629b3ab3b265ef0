//! Nodes.

use super::amounts;
use crate::cache::Field;
use crate::registry::fields::{invalid_all, is_set, items, object_mut, remove, set, text};
use crate::registry::strategy::{Strategy, Traits, WriteContext};
use crate::registry::warnings::Warnings;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

/// core/v1 Node
#[derive(Debug)]
pub struct NodeStrategy;

static FIELDS: [Field; 1] = [Field::of("spec.unschedulable", &["spec", "unschedulable"], "false")];

/// Kubelets took their configuration from there until v1.22; it is dropped.
const CONFIG_SOURCE: &str = "configSource";

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

impl Strategy for NodeStrategy {
    fn traits(&self) -> Traits {
        // A kubelet registers its node together with what it knows of it.
        Traits { status_on_create: true, ..Traits::DEFAULT }
    }

    fn blank_status(&self) -> Value {
        // In this one name upstream's type has a capital.
        json!({"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}, "nodeInfo": {"machineID": "", "systemUUID": "",
            "bootID": "", "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "", "kubeletVersion": "",
            "kubeProxyVersion": "", "operatingSystem": "", "architecture": ""}})
    }

    fn fields(&self) -> &[Field] {
        &FIELDS
    }

    fn default(&self, node: &mut Value) {
        let spec = object_mut(node, "spec");
        // The first of several ranges is also named alone.
        let first = items(spec, "podCIDRs").first().and_then(Value::as_str).map(str::to_owned);
        match (first, text(spec, "podCIDR").to_owned()) {
            (Some(first), alone) if alone.is_empty() => set(spec, "podCIDR", first),
            // When both are given and differ, the one wins, as for clients that do not know of several.
            (Some(first), alone) if alone != first => set(spec, "podCIDRs", vec![alone]),
            (None, alone) if !alone.is_empty() => set(spec, "podCIDRs", vec![alone]),
            _ => {}
        }
        // What can be allocated is all there is, until the kubelet says otherwise.
        if let Some(status) =
            node.get_mut("status").filter(|status| is_set(status, "capacity") && !is_set(status, "allocatable"))
        {
            let capacity = status["capacity"].clone();
            set(status, "allocatable", capacity);
        }
        amounts::round(node, amounts::NODE);
    }

    fn validate(&self, node: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("spec");
        let mut seen = HashSet::new();
        for (nth, taint) in items(&node["spec"], "taints").iter().enumerate() {
            // Upstream reports them here, where they once stood.
            let path = FieldPath::new("metadata").child("taints").index(nth);
            let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
            invalid_all(&path.child("key"), key, validation::qualified_name(key), causes);
            let wrong = validation::label_value(value);
            if !wrong.is_empty() {
                causes.push(Cause::invalid(&path.child("value"), value, wrong.join(";")));
            }
            match effect {
                "" => causes.push(Cause::required(&path.child("effect"), "")),
                effect if !EFFECTS.contains(&effect) => {
                    causes.push(Cause::not_supported(&path.child("effect"), effect, &EFFECTS))
                }
                _ => {}
            }
            if !seen.insert((key, effect)) {
                // In the field names of upstream's internal type.
                let shown = json!({"Key": key, "Value": value, "Effect": effect, "TimeAdded": taint.get("timeAdded")});
                let mut cause = Cause::duplicate(&path, shown);
                cause.message.push_str(": taints must be unique by key and effect pair");
                causes.push(cause);
            }
        }
        resources(node, causes);
        if let Some(swap) = node.pointer("/status/nodeInfo/swap/capacity").and_then(Value::as_i64)
            && swap <= 0
        {
            let path = FieldPath::new("metadata.nodeSwapStatus.capacity");
            causes.push(Cause::invalid(&path, swap, "must be greater than zero"));
        }
        declared_features(&node["status"], &FieldPath::new("status.declaredFeatures"), causes);
        pod_ranges(&node["spec"], &path.child("podCIDRs"), causes);
    }

    fn validate_update(&self, node: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("spec");
        let (now, before) = (items(&node["spec"], "podCIDRs"), items(&old["spec"], "podCIDRs"));
        const FIXED: &str = "node updates may not change podCIDR except from \"\" to valid";
        if !before.is_empty() && now.len() != before.len() {
            causes.push(Cause::forbidden(&path.child("podCIDRs"), FIXED));
        }
        if now.len() == before.len() {
            let changed = now.iter().zip(before).filter(|(now, before)| now != before);
            causes.extend(changed.map(|_| Cause::forbidden(&path.child("podCIDRs"), FIXED)));
        }
        if is_set(&old["spec"], "providerID") && text(&node["spec"], "providerID") != text(&old["spec"], "providerID") {
            causes.push(Cause::forbidden(
                &path.child("providerID"),
                "node updates may not change providerID except from \"\" to valid",
            ));
        }
        if text(&node["spec"], "externalID") != text(&old["spec"], "externalID") {
            causes.push(Cause::forbidden(&path.child("externalID"), "may not be updated"));
        }
    }

    fn warnings(&self, node: &Value, _old: Option<&Value>) -> Vec<String> {
        let (mut told, spec, path) = (Warnings::default(), &node["spec"], FieldPath::new("spec"));
        if spec.get(CONFIG_SOURCE).is_some_and(|source| !source.is_null()) {
            told.at(&path.child(CONFIG_SOURCE), "the feature is removed");
        }
        if is_set(spec, "externalID") {
            told.at(&path.child("externalID"), "this field is deprecated, and is unused by Kubernetes");
        }
        for (nth, range) in items(spec, "podCIDRs").iter().filter_map(Value::as_str).enumerate() {
            told.cidr(|| path.child("podCIDRs").index(nth), range);
        }
        told.into()
    }

    fn prepare_create(&self, node: &mut Value, _context: &WriteContext) {
        remove(object_mut(node, "spec"), CONFIG_SOURCE);
    }

    fn prepare_update(&self, node: &mut Value, old: &Value, _context: &WriteContext) {
        if !is_set(&old["spec"], CONFIG_SOURCE) {
            remove(object_mut(node, "spec"), CONFIG_SOURCE);
        }
    }

    fn prepare_status(&self, node: &mut Value, old: &Value, _context: &WriteContext) {
        if !is_set(&old["status"], "config") {
            remove(object_mut(node, "status"), "config");
        }
    }

    fn validate_status(&self, node: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("status");
        resources(node, causes);
        let mut seen = HashSet::new();
        for (nth, address) in items(&node["status"], "addresses").iter().enumerate() {
            if !seen.insert((text(address, "type"), text(address, "address"))) {
                let shown = json!({"Type": text(address, "type"), "Address": text(address, "address")});
                causes.push(Cause::duplicate(&path.child("addresses").index(nth), shown));
            }
        }
        declared_features(&node["status"], &path.child("declaredFeatures"), causes);
    }
}

/// Ranges for pods: one, or one of each family.
fn pod_ranges(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let ranges: Vec<&str> = items(spec, "podCIDRs").iter().filter_map(Value::as_str).collect();
    for (nth, range) in ranges.iter().enumerate() {
        invalid_all(&path.index(nth), range, validation::cidr(range), causes);
    }
    let count = |is_v4: bool| {
        let parsed = ranges.iter().filter_map(|range| validation::sloppy_cidr(range));
        parsed.filter(|range| range.addr().is_ipv4() == is_v4).count()
    };
    if ranges.len() > 1 && (count(true), count(false)) != (1, 1) {
        causes.push(Cause::invalid(path, ranges, "may specify no more than one CIDR for each IP family"));
    }
}

/// What a node says that it can do: names in their order (core `validateNodeDeclaredFeatures`).
fn declared_features(status: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut before = "";
    for (nth, name) in items(status, "declaredFeatures").iter().filter_map(Value::as_str).enumerate() {
        let path = path.index(nth);
        if let Some(why) = no_feature(name) {
            causes.push(Cause::invalid(&path, name, format!("invalid feature name {name:?}: {why}")));
        }
        if nth > 0 && name == before {
            causes.push(Cause::duplicate(&path, name));
        } else if name < before {
            causes.push(Cause::invalid(&path, name, "list must be sorted alphabetically"));
        }
        before = name;
    }
}

/// Why a name is none of a feature.
fn no_feature(name: &str) -> Option<&'static str> {
    if name.len() > 253 {
        return Some("must be no more than 253 characters");
    }
    let is_segment = |(nth, segment): (usize, &str)| {
        let first = segment.bytes().next();
        let begins = |byte: u8| if nth == 0 { byte.is_ascii_uppercase() } else { byte.is_ascii_alphabetic() };
        first.is_some_and(begins) && segment.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    (!name.split('/').enumerate().all(is_segment)).then_some(
        "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes",
    )
}

/// How much there is of what (core `ValidateNodeResources`).
fn resources(node: &Value, causes: &mut Vec<Cause>) {
    for list in ["capacity", "allocatable"] {
        for (name, value) in node["status"].get(list).and_then(Value::as_object).into_iter().flatten() {
            super::limits::amount(name, value, &FieldPath::new("status").child(list).child(name), causes);
        }
    }
}
