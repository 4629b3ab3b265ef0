//! Kinds of storage.k8s.io/v1 (upstream `pkg/apis/storage`).

use super::core::{amounts, node_labels, volume};
use super::fields::{
    self, alike, invalid_all, items, label_selector, labels, non_negative, object_mut, one_of, quantity, same,
    set_default, text,
};
use super::strategy::{Strategy, ThroughStatus, Traits};
use super::warnings::Warnings;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::{BTreeMap, BTreeSet, HashSet};

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_SIZE: usize = 256 << 10;
const DRIVER_NAME_MAX: usize = 63;
const NODE_ID_MAX: usize = 256;
const ATTACHMENT_METADATA_MAX: usize = 256 << 10;
const ERROR_MAX: usize = 1024;
const TOKEN_SECONDS_LEAST: i64 = 600;
const TOKEN_SECONDS_MOST: i64 = 1 << 32;

/// The name of a CSI driver (core `ValidateCSIDriverName`).
pub fn driver_name(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        causes.push(Cause::required(path, ""));
    }
    if name.len() > DRIVER_NAME_MAX {
        causes.push(Cause::too_long(path, DRIVER_NAME_MAX));
    }
    let lower = name.to_lowercase();
    invalid_all(path, &lower, validation::dns1123_subdomain(&lower), causes);
}

fn provisioner(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        causes.push(Cause::required(path, ""));
    } else {
        let lower = name.to_lowercase();
        invalid_all(path, &lower, validation::qualified_name(&lower), causes);
    }
}

fn parameters(object: &Value, needed: bool, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("parameters");
    let given = object.get("parameters").and_then(Value::as_object);
    let count = given.map_or(0, coracle_api::json::Map::len);
    if needed && count == 0 {
        causes.push(Cause::required(&path, "must contain at least one key/value pair"));
    }
    if count > PARAMETERS_MAX {
        causes.push(Cause::too_long(&path, PARAMETERS_MAX));
        return;
    }
    let mut size = 0;
    for (key, value) in given.into_iter().flatten() {
        if key.is_empty() {
            causes.push(Cause::invalid(&path, "", "field can not be empty."));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > PARAMETERS_SIZE {
        causes.push(Cause::too_long(&path, PARAMETERS_SIZE));
    }
}

fn unchanged(object: &Value, old: &Value, field: &str, causes: &mut Vec<Cause>) {
    if !same(object, old, field) {
        causes.push(Cause::forbidden(&FieldPath::new(field), format!("updates to {field} are forbidden.")));
    }
}

fn immutable(object: &Value, old: &Value, field: &str, path: &str, causes: &mut Vec<Cause>) {
    if !same(object, old, field) {
        causes.push(Cause::immutable(&FieldPath::new(path), object.get(field).cloned().unwrap_or(Value::Null)));
    }
}

#[derive(Debug)]
pub struct ClassStrategy;

impl Strategy for ClassStrategy {
    fn default(&self, class: &mut Value) {
        set_default(class, "reclaimPolicy", "Delete");
        set_default(class, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, class: &Value, causes: &mut Vec<Cause>) {
        let root = FieldPath::default();
        provisioner(text(class, "provisioner"), &FieldPath::new("provisioner"), causes);
        parameters(class, false, causes);
        one_of(class, "reclaimPolicy", &["Delete", "Retain"], &root, causes);
        one_of(class, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], &root, causes);
        let terms = items(class, "allowedTopologies");
        // Upstream compares each with all before, and with as many empty terms as there are terms, too.
        let mut known = BTreeMap::from([(BTreeMap::new(), terms.len())]);
        let mut told = 0;
        for (nth, term) in terms.iter().enumerate() {
            let path = FieldPath::new("allowedTopologies").index(nth).child("matchLabelExpressions");
            topology(term, &path, causes);
            let same = known.entry(places(term)).or_insert(0);
            let repeats = (*same).min(MOST_REPEATS - told);
            causes.extend((0..repeats).map(|_| Cause::duplicate(&path, "")));
            told += repeats;
            *same += 1;
        }
    }

    fn warnings(&self, class: &Value, _old: Option<&Value>) -> Vec<String> {
        let (mut told, path) = (Warnings::default(), FieldPath::new("allowedTopologies"));
        for (nth, term) in items(class, "allowedTopologies").iter().enumerate() {
            for (at, expression) in items(term, "matchLabelExpressions").iter().enumerate() {
                if let Some(why) = node_labels::deprecated(text(expression, "key")) {
                    told.at(&path.index(nth).child("matchLabelExpressions").index(at).child("key"), why);
                }
            }
        }
        told.into()
    }

    fn validate_update(&self, class: &Value, old: &Value, causes: &mut Vec<Cause>) {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            unchanged(class, old, field, causes);
        }
        immutable(class, old, "volumeBindingMode", "volumeBindingMode", causes);
    }
}

/// Terms that say the same are told no more often: their number grows with the square of what is sent.
const MOST_REPEATS: usize = 256;

/// The values of each key, in whatever order they stand.
fn places(term: &Value) -> BTreeMap<&str, BTreeSet<&str>> {
    let expressions = items(term, "matchLabelExpressions").iter();
    let values = |expression| items(expression, "values").iter().filter_map(Value::as_str).collect();
    expressions.map(|expression| (text(expression, "key"), values(expression))).collect()
}

/// core `ValidateTopologySelectorTerm`
fn topology(term: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut keys = HashSet::new();
    for (nth, expression) in items(term, "matchLabelExpressions").iter().enumerate() {
        let path = path.index(nth);
        let key = text(expression, "key");
        let values = items(expression, "values");
        if values.is_empty() {
            causes.push(Cause::required(&path.child("values"), ""));
        }
        let mut seen = HashSet::new();
        for (at, value) in values.iter().enumerate().filter(|(_, value)| !seen.insert(value.as_str())) {
            causes.push(Cause::duplicate(&path.child("values").index(at), value.clone()));
        }
        invalid_all(&path.child("key"), key, validation::qualified_name(key), causes);
        if !keys.insert(key) {
            causes.push(Cause::duplicate(&path.child("key"), key));
        }
    }
}

#[derive(Debug)]
pub struct DriverStrategy;

impl Strategy for DriverStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, generation_of_new: false, unconditional_update: false, ..Traits::DEFAULT }
    }

    fn default(&self, driver: &mut Value) {
        let spec = object_mut(driver, "spec");
        set_default(spec, "attachRequired", true);
        set_default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        for field in ["podInfoOnMount", "requiresRepublish", "seLinuxMount", "storageCapacity"] {
            set_default(spec, field, false);
        }
        if items(spec, "volumeLifecycleModes").is_empty() {
            fields::set(spec, "volumeLifecycleModes", json!(["Persistent"]));
        }
    }

    fn validate(&self, driver: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&driver["spec"], FieldPath::new("spec"));
        one_of(spec, "fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"], &path, causes);
        let mut audiences = HashSet::new();
        for (nth, request) in items(spec, "tokenRequests").iter().enumerate() {
            let path = path.child("tokenRequests").index(nth);
            if !audiences.insert(text(request, "audience")) {
                causes.push(Cause::duplicate(&path.child("audience"), text(request, "audience")));
                continue;
            }
            let seconds = request.get("expirationSeconds").and_then(Value::as_i64).unwrap_or(TOKEN_SECONDS_LEAST);
            let path = path.child("expirationSeconds");
            if seconds < TOKEN_SECONDS_LEAST {
                causes.push(Cause::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
            }
            if seconds > TOKEN_SECONDS_MOST {
                causes.push(Cause::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds"));
            }
        }
        for mode in items(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str) {
            if !matches!(mode, "Persistent" | "Ephemeral") {
                let path = path.child("volumeLifecycleModes");
                causes.push(Cause::not_supported(&path, mode, &["Persistent", "Ephemeral"]));
            }
        }
        if let Some(seconds) = spec.get("nodeAllocatableUpdatePeriodSeconds").and_then(Value::as_i64)
            && seconds < 10
        {
            let path = path.child("nodeAllocatableUpdatePeriodSeconds");
            causes.push(Cause::invalid(&path, seconds, "must be greater than or equal to 10 seconds"));
        }
    }

    fn validate_update(&self, driver: &Value, old: &Value, causes: &mut Vec<Cause>) {
        // The first path is upstream's own spelling.
        immutable(&driver["spec"], &old["spec"], "attachRequired", "spec.attachedRequired", causes);
        immutable(&driver["spec"], &old["spec"], "volumeLifecycleModes", "spec.volumeLifecycleModes", causes);
    }
}

#[derive(Debug)]
pub struct NodeStrategy;

impl Strategy for NodeStrategy {
    fn traits(&self) -> Traits {
        Traits { unconditional_update: false, ..Traits::DEFAULT }
    }

    fn validate(&self, node: &Value, causes: &mut Vec<Cause>) {
        let mut names = HashSet::new();
        for (nth, driver) in items(&node["spec"], "drivers").iter().enumerate() {
            let path = FieldPath::new("spec").child("drivers").index(nth);
            let name = text(driver, "name");
            driver_name(name, &path.child("name"), causes);
            match text(driver, "nodeID") {
                "" => causes.push(Cause::required(&path.child("nodeID"), "")),
                id if id.len() > NODE_ID_MAX => {
                    let why = format!("must be {NODE_ID_MAX} characters or less");
                    causes.push(Cause::invalid(&path.child("nodeID"), id, why));
                }
                _ => {}
            }
            non_negative(&driver["allocatable"], "count", &path.child("allocatable"), causes);
            if !names.insert(name) {
                causes.push(Cause::duplicate(&path.child("name"), name));
            }
            // The place is upstream's.
            let mut keys = HashSet::new();
            for key in items(driver, "topologyKeys").iter().filter_map(Value::as_str) {
                if key.is_empty() {
                    causes.push(Cause::required(&path, ""));
                }
                if !keys.insert(key) {
                    causes.push(Cause::duplicate(&path, key));
                }
                invalid_all(&path, key, validation::qualified_name(key), causes);
            }
        }
    }

    fn validate_update(&self, node: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            fields::remove(&mut driver, "allocatable");
            driver
        };
        for known in items(&old["spec"], "drivers") {
            let now = items(&node["spec"], "drivers").iter().find(|now| text(now, "name") == text(known, "name"));
            if let Some(now) = now
                && !alike(&fixed(now), &fixed(known))
            {
                // In the field names of upstream's internal type.
                let shown = json!({"Name": text(now, "name"), "NodeID": text(now, "nodeID"),
                    "TopologyKeys": now.get("topologyKeys"), "Allocatable": null});
                causes.push(Cause::immutable(&FieldPath::new("spec.drivers"), shown));
            }
        }
    }
}

#[derive(Debug)]
pub struct CapacityStrategy;

impl Strategy for CapacityStrategy {
    fn traits(&self) -> Traits {
        Traits { unconditional_update: false, ..Traits::DEFAULT }
    }

    fn validate(&self, capacity: &Value, causes: &mut Vec<Cause>) {
        label_selector(&capacity["nodeTopology"], &FieldPath::new("nodeTopology"), causes);
        let class = text(capacity, "storageClassName");
        invalid_all(&FieldPath::new("storageClassName"), class, validation::dns1123_subdomain(class), causes);
        if let Some(size) = capacity.get("capacity").and_then(quantity)
            && size.is_negative()
        {
            causes.push(Cause::invalid(&FieldPath::new("capacity"), size.to_string(), fields::NON_NEGATIVE));
        }
    }

    fn warnings(&self, capacity: &Value, old: Option<&Value>) -> Vec<String> {
        let (mut told, path) = (Warnings::default(), FieldPath::new("nodeTopology"));
        // It stays what it is.
        let Some(topology) = capacity.get("nodeTopology").filter(|_| old.is_none()) else { return Vec::new() };
        node_labels::term(topology, false, &path, &mut told);
        for (label, _) in topology.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            if let Some(why) = node_labels::deprecated(label) {
                told.at(&path.child("matchLabels").child(label), why);
            }
        }
        told.into()
    }

    fn validate_update(&self, capacity: &Value, old: &Value, causes: &mut Vec<Cause>) {
        for field in ["nodeTopology", "storageClassName"] {
            immutable(capacity, old, field, field, causes);
        }
    }
}

#[derive(Debug)]
pub struct AttachmentStrategy;

impl Strategy for AttachmentStrategy {
    fn traits(&self) -> Traits {
        Traits { unconditional_update: false, through_status: ThroughStatus::Nothing, ..Traits::DEFAULT }
    }

    fn blank_status(&self) -> Value {
        json!({"attached": false})
    }

    fn default(&self, attachment: &mut Value) {
        if let Some(spec) = attachment.pointer_mut("/spec/source/inlineVolumeSpec").filter(|spec| spec.is_object()) {
            volume::default_source(spec);
        }
    }

    fn validate(&self, attachment: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&attachment["spec"], FieldPath::new("spec"));
        if text(spec, "attacher").is_empty() {
            causes.push(Cause::required(&path.child("attacher"), ""));
        }
        const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        let (source, at) = (&spec["source"], path.child("source"));
        let has = |field: &str| source.get(field).is_some_and(|value| !value.is_null());
        match (has("inlineVolumeSpec"), has("persistentVolumeName")) {
            (false, false) => causes.push(Cause::required(&at, ONE)),
            (true, true) => causes.push(Cause::forbidden(&at, ONE)),
            (false, true) if text(source, "persistentVolumeName").is_empty() => {
                let why = "must specify non empty persistentVolumeName";
                causes.push(Cause::required(&at.child("persistentVolumeName"), why));
            }
            (true, false) => {
                volume::inline_spec(&source["inlineVolumeSpec"], &at.child("inlineVolumeSpec"), causes);
            }
            _ => {}
        }
        let node = text(spec, "nodeName");
        invalid_all(&path.child("nodeName"), node, validation::dns1123_subdomain(node), causes);
        attachment_status(&attachment["status"], causes);
    }

    fn validate_create(&self, attachment: &Value, causes: &mut Vec<Cause>) {
        self.validate(attachment, causes);
        let attacher = text(&attachment["spec"], "attacher");
        driver_name(attacher, &FieldPath::new("spec.attacher"), causes);
        if let Some(volume) = attachment["spec"]["source"]["persistentVolumeName"].as_str() {
            let path = FieldPath::new("spec").child("source").child("persistentVolumeName");
            invalid_all(&path, volume, validation::dns1123_subdomain(volume), causes);
        }
    }

    fn validate_update(&self, attachment: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !amounts::alike(&attachment["spec"], &old["spec"], amounts::ATTACHMENT_SPEC) {
            causes.push(Cause::immutable(&FieldPath::new("spec"), attachment["spec"].clone()));
        }
    }

    fn validate_status(&self, attachment: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        self.validate(attachment, causes);
    }
}

/// What was attached and what went wrong (`validateVolumeAttachmentStatus`).
fn attachment_status(status: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("status");
    let metadata = status.get("attachmentMetadata").and_then(Value::as_object);
    let size: usize =
        metadata.into_iter().flatten().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > ATTACHMENT_METADATA_MAX {
        causes.push(Cause::too_long(&path.child("attachmentMetadata"), ATTACHMENT_METADATA_MAX));
    }
    for field in ["attachError", "detachError"] {
        let (error, path) = (&status[field], path.child(field));
        if text(error, "message").len() > ERROR_MAX {
            // The number that is told is upstream's.
            causes.push(Cause::too_long(&path.child("message"), ATTACHMENT_METADATA_MAX));
        }
        if let Some(code) = error.get("errorCode").and_then(Value::as_i64)
            && !(0..=i64::from(i32::MAX)).contains(&code)
        {
            let why = "must be between 0 and 2147483647, inclusive";
            causes.push(Cause::invalid(&path.child("errorCode"), code, why));
        }
    }
}

#[derive(Debug)]
pub struct AttributesStrategy;

impl Strategy for AttributesStrategy {
    fn validate(&self, class: &Value, causes: &mut Vec<Cause>) {
        provisioner(text(class, "driverName"), &FieldPath::new("driverName"), causes);
        parameters(class, true, causes);
    }

    fn validate_changed(&self, class: &Value, old: &Value, causes: &mut Vec<Cause>) {
        for field in ["driverName", "parameters"] {
            unchanged(class, old, field, causes);
        }
        self.validate(class, causes);
    }
}

/// node.k8s.io/v1 RuntimeClass (upstream `pkg/apis/node`)
#[derive(Debug)]
pub struct RuntimeClassStrategy;

impl Strategy for RuntimeClassStrategy {
    fn traits(&self) -> Traits {
        Traits { unconditional_update: false, create_on_update: true, ..Traits::DEFAULT }
    }

    fn default(&self, class: &mut Value) {
        amounts::round(class, amounts::RUNTIME_CLASS);
    }

    fn validate(&self, class: &Value, causes: &mut Vec<Cause>) {
        let handler = text(class, "handler");
        invalid_all(&FieldPath::new("handler"), handler, validation::dns1123_label(handler), causes);
        if let Some(amounts) = class.pointer("/overhead/podFixed") {
            let limits = json!({"limits": amounts});
            let level = super::core::resources::Level::Container;
            super::core::resources::validate(&limits, level, &FieldPath::new("overhead"), causes);
        }
        let (scheduling, path) = (&class["scheduling"], FieldPath::new("scheduling"));
        labels(scheduling.get("nodeSelector"), &path.child("nodeSelector"), causes);
        let tolerations = items(scheduling, "tolerations");
        super::core::scheduling::tolerations(tolerations, &path.child("tolerations"), causes);
        let mut known = HashSet::new();
        for (nth, toleration) in tolerations.iter().enumerate() {
            let part = |field| text(toleration, field);
            let (key, operator, value, effect) = (part("key"), part("operator"), part("value"), part("effect"));
            // For how long does not tell them apart.
            if !known.insert((key, operator, value, effect)) {
                // In the field names of upstream's internal type.
                let shown = json!({"Key": key, "Operator": operator, "Value": value, "Effect": effect,
                    "TolerationSeconds": toleration.get("tolerationSeconds")});
                causes.push(Cause::duplicate(&path.child("tolerations").index(nth), shown));
            }
        }
    }

    fn validate_update(&self, class: &Value, old: &Value, causes: &mut Vec<Cause>) {
        immutable(class, old, "handler", "handler", causes);
    }

    fn warnings(&self, class: &Value, _old: Option<&Value>) -> Vec<String> {
        let (mut told, path) = (Warnings::default(), FieldPath::new("scheduling.nodeSelector"));
        let selector = class.pointer("/scheduling/nodeSelector").and_then(Value::as_object);
        for why in selector.into_iter().flatten().filter_map(|(label, _)| node_labels::deprecated(label)) {
            told.at(&path, why);
        }
        told.into()
    }
}
