//! CustomResourceDefinition: defaults, what may change, and the rows that one makes (apiextensions
//! `registry/customresourcedefinition`).

use super::strategy::{Scale, Version};
use super::structural::Node;
use super::{cel, check, check_structural, formats, types};
use crate::cache::Field;
use crate::registry::fields::{items, object_mut, set, set_default, text};
use crate::registry::strategy::{Strategy, ThroughStatus, Traits, WriteContext};
use crate::registry::{Row, Subresource, VERBS_OF_CUSTOM, VERBS_WHILE_ENDING};
use coracle_api::clock::rfc3339;
use coracle_api::gvk::{Symbol, compare_versions};
use coracle_api::json::{Value, json};
use coracle_api::printing::CustomPrinter;
use coracle_api::{Cause, Gvk, meta};

/// Where definitions are stored.
pub const STORAGE: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// Objects are deleted before their definition goes.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

#[derive(Debug)]
pub struct DefinitionStrategy;

impl Strategy for DefinitionStrategy {
    fn traits(&self) -> Traits {
        Traits {
            generation: true,
            unconditional_update: false,
            through_status: ThroughStatus::Nothing,
            ..Traits::DEFAULT
        }
    }

    fn default(&self, object: &mut Value) {
        let kind = text(&object["spec"]["names"], "kind").to_owned();
        let Some(spec) = object.get_mut("spec") else { return };
        if !kind.is_empty() {
            let names = object_mut(spec, "names");
            set_default(names, "singular", kind.to_ascii_lowercase());
            set_default(names, "listKind", format!("{kind}List"));
        }
        set_default(spec, "conversion", json!({"strategy": "None"}));
        let stored = storage_version(object).map(str::to_owned);
        if let Some(stored) = stored
            && let Some(status) = object.get_mut("status").filter(|status| status.is_object())
            && items(status, "storedVersions").is_empty()
        {
            set(status, "storedVersions", vec![stored]);
        }
    }

    /// Formats that check nothing, where they were not before.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let known = old.map(unknown_formats).unwrap_or_default();
        let formats = unknown_formats(object).into_iter().filter(|format| !known.contains(format));
        formats.map(|format| format!("unrecognized format {format:?}")).collect()
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext) {
        let stored: Vec<Value> = storage_version(object).map(Value::from).into_iter().collect();
        set(
            object,
            "status",
            json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": [], "storedVersions": stored}),
        );
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _context: &WriteContext) {
        let Some(version) = storage_version(object).filter(|version| storage_version(old) != Some(version)) else {
            return;
        };
        let mut stored = items(&object["status"], "storedVersions").to_vec();
        let version = Value::from(version);
        if !stored.contains(&version) {
            stored.push(version);
            set(object_mut(object, "status"), "storedVersions", stored);
        }
    }

    fn prepare_delete(&self, object: &mut Value, context: &WriteContext) -> bool {
        if meta::deletion_timestamp(object).is_some() {
            return false;
        }
        let mut finalizers: Vec<Value> = meta::finalizers(object).map(Value::from).collect();
        if !finalizers.contains(&CLEANUP.into()) {
            finalizers.push(CLEANUP.into());
            meta::set(object, "finalizers", finalizers);
        }
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will be initiated as soon as possible";
        let time = rfc3339(context.now);
        set_condition(object, "Terminating", true, "InstanceDeletionPending", message, &time);
        true
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        check::definition(object, None, causes);
    }

    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        check::definition(object, Some(old), causes);
        check::change(object, old, causes);
    }

    /// A migration takes versions out of what is stored there.
    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        check::accepted_names(object, causes);
    }
}

/// Formats that the schemas of a definition name and that are none of their types' (apiextensions
/// `apiserver/validation/formats.go`).
fn unknown_formats(definition: &Value) -> Vec<String> {
    let versions = items(&definition["spec"], "versions").iter();
    let mut next: Vec<&Value> = versions.filter_map(|version| version.pointer("/schema/openAPIV3Schema")).collect();
    let mut found = Vec::new();
    while let Some(schema) = next.pop() {
        let format = text(schema, "format");
        let known = match text(schema, "type") {
            "" | "string" => formats::is_known(format),
            "integer" => matches!(format, "int32" | "int64"),
            "number" => matches!(format, "float" | "double"),
            _ => false,
        };
        if !format.is_empty() && !known && !found.iter().any(|other| other == format) {
            found.push(format.to_owned());
        }
        next.extend(check_structural::children(schema));
    }
    found
}

/// The version that objects are stored in.
pub fn storage_version(definition: &Value) -> Option<&str> {
    let versions = items(&definition["spec"], "versions");
    let stored = versions.iter().find(|version| version.get("storage").and_then(Value::as_bool) == Some(true))?;
    Some(text(stored, "name"))
}

/// Sets a condition; its time moves only with its status. True when anything changed.
pub fn set_condition(object: &mut Value, kind: &str, status: bool, reason: &str, message: &str, now: &str) -> bool {
    let status = if status { "True" } else { "False" };
    let list = object_mut(object, "status")
        .as_object_mut()
        .map(|status| status.entry("conditions").or_insert_with(|| json!([])));
    let Some(Value::Array(conditions)) = list else { return false };
    let mut condition =
        json!({"type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message});
    match conditions.iter_mut().find(|known| text(known, "type") == kind) {
        Some(known) => {
            if text(known, "status") == status {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            let changed = *known != condition;
            *known = condition;
            changed
        }
        None => {
            conditions.push(condition);
            true
        }
    }
}

/// Whether a condition holds.
pub fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = items(&object["status"], "conditions");
    conditions.iter().any(|condition| text(condition, "type") == kind && text(condition, "status") == "True")
}

/// The rows of a definition whose names are accepted: one for each served version, and one that is stored.
pub fn rows(definition: &Value) -> Vec<Row> {
    let spec = &definition["spec"];
    let versions = items(spec, "versions");
    let Some(stored) = storage_version(definition) else { return Vec::new() };
    // What was stored by older versions, or under an older schema, is brought up to date as it is read.
    let reads = meta::generation(definition) > 1 || items(&definition["status"], "storedVersions").len() > 1;
    let served = versions.iter().filter(|version| version.get("served").and_then(Value::as_bool) == Some(true));
    served.map(|version| row(definition, version, stored, reads)).collect()
}

/// Something that changes whenever the rows of a definition do.
pub fn fingerprint(definition: &Value) -> String {
    let ending = meta::deletion_timestamp(definition).is_some();
    let names = definition.pointer("/status/acceptedNames").unwrap_or(&Value::Null);
    let stored = definition.pointer("/status/storedVersions").unwrap_or(&Value::Null);
    format!("{} {} {ending} {names} {stored}", meta::uid(definition), meta::generation(definition))
}

fn row(definition: &Value, version: &Value, stored: &str, reads: bool) -> Row {
    let spec = &definition["spec"];
    let names = definition.pointer("/status/acceptedNames").unwrap_or(&Value::Null);
    let symbols = |name: &str| items(names, name).iter().filter_map(Value::as_str).map(Symbol::from).collect();
    let (group, kind, plural) = (text(spec, "group"), text(names, "kind"), text(names, "plural"));
    let gvk = Gvk { group: group.into(), version: text(version, "name").into(), kind: kind.into() };
    let empty = json!({});
    let openapi = version.pointer("/schema/openAPIV3Schema").unwrap_or(&empty).clone();
    let mut nodes = Vec::with_capacity(1);
    cel::roomy(&mut nodes, |nodes| nodes.push(Node::parse(&openapi)));
    let node = nodes.pop().unwrap_or_default();
    let openapi = with_selectable(openapi, version);
    let subresource = |name: &str| version.pointer(&format!("/subresources/{name}"));
    let mut subresources = Vec::new();
    if subresource("scale").is_some() {
        subresources.push(Subresource::Scale);
    }
    if subresource("status").is_some() {
        subresources.push(Subresource::Status);
    }
    Row {
        served: vec![(gvk.group.clone(), gvk.version.clone())],
        kind: gvk.kind.clone(),
        plural: plural.into(),
        singular: text(names, "singular").into(),
        storage: format!("{group}/{plural}").into(),
        namespaced: text(spec, "scope") == "Namespaced",
        short_names: symbols("shortNames"),
        categories: symbols("categories"),
        subresources,
        verbs: if meta::deletion_timestamp(definition).is_some() { &VERBS_WHILE_ENDING } else { &VERBS_OF_CUSTOM },
        schema: Some(types::schema(&gvk, &node)),
        warning: deprecation(spec, version, &gvk),
        shows_deleted: false,
        strategy: Box::new(Version {
            reads: reads || node.has_defaults(),
            node,
            api_version: gvk.api_version(),
            stored: format!("{group}/{stored}"),
            fields: selectable(definition, version),
            printer: CustomPrinter::of(items(version, "additionalPrinterColumns")),
            scale: subresource("scale").map(scale),
            openapi,
        }),
    }
}

/// What users of a deprecated version are told (apiextensions `customresource_handler.go`, defaultDeprecationWarning).
fn deprecation(spec: &Value, version: &Value, gvk: &Gvk) -> Option<String> {
    let is = |version: &Value, name: &str| version.get(name).and_then(Value::as_bool) == Some(true);
    if !is(version, "deprecated") {
        return None;
    }
    if let Some(own) = version.get("deprecationWarning").and_then(Value::as_str) {
        return Some(own.to_owned());
    }
    let Gvk { group, version, kind } = gvk;
    let others = items(spec, "versions").iter().filter(|other| is(other, "served") && !is(other, "deprecated"));
    let newest = others.map(|other| text(other, "name")).min_by(|a, b| compare_versions(a, b));
    let instead = newest.filter(|newest| compare_versions(newest, version).is_lt());
    let instead = instead.map(|newest| format!("; use {group}/{newest} {kind}")).unwrap_or_default();
    Some(format!("{group}/{version} {kind} is deprecated{instead}"))
}

/// A schema as it is published, with the fields that objects can be selected by.
fn with_selectable(mut openapi: Value, version: &Value) -> Value {
    let fields = items(version, "selectableFields").iter();
    let fields: Vec<Value> =
        fields.map(|field| json!({"fieldPath": text(field, "jsonPath").trim_start_matches('.')})).collect();
    if !fields.is_empty() {
        set(&mut openapi, "x-kubernetes-selectable-fields", fields);
    }
    openapi
}

/// Selectable fields of all versions, in one order; those that this version does not have lose their names.
fn selectable(definition: &Value, version: &Value) -> Vec<Field> {
    let of = |version: &Value| -> Vec<String> {
        let paths = items(version, "selectableFields")
            .iter()
            .map(|field| text(field, "jsonPath").trim_start_matches('.').to_owned());
        paths.collect()
    };
    let own = of(version);
    let mut all: Vec<String> = items(&definition["spec"], "versions").iter().flat_map(of).collect();
    all.sort();
    all.dedup();
    let field = |path: &String| {
        let mut field = Field::custom(path);
        if !own.contains(path) {
            field.name = Symbol::EMPTY;
        }
        field
    };
    all.iter().map(field).collect()
}

fn scale(scale: &Value) -> Scale {
    // The path is cut at its points, whatever else is in it.
    let pointer = |name: &str| {
        let path = text(scale, name).strip_prefix('.')?;
        Some(path.split('.').map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect::<String>())
    };
    Scale {
        wanted: pointer("specReplicasPath").unwrap_or_default(),
        there: pointer("statusReplicasPath").unwrap_or_default(),
        selector: pointer("labelSelectorPath"),
    }
}
