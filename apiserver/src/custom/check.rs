//! What is wrong with a definition (apiextensions `apis/apiextensions/validation`).

use super::check_relaxed::Broken;
use super::definition::{has_condition, storage_version};
use super::{cel, check_schema, field_path};
use crate::registry::fields::{items, text};
use coracle_api::json::{Value, json, same};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use std::collections::HashSet;

/// Says that a group that belongs to the project may be used (KEP-1111).
pub const APPROVAL: &str = "api-approved.kubernetes.io";

/// Most selectable fields of a version.
const SELECTABLE_MAX: usize = 8;

/// Whether a group belongs to the Kubernetes project.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|suffix| group.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// Where the fields of a version stand: those that all versions have alike belong to the definition as a whole, which is how
/// upstream holds and names them (apiextensions `v1/conversion.go`).
struct Places {
    versions: FieldPath,
    shared: FieldPath,
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl Places {
    fn of(spec: &Value, path: &FieldPath) -> Self {
        let versions = items(spec, "versions");
        let same = |name: &str| {
            let value = |version: &Value| version.get(name).filter(|value| !value.is_null()).cloned();
            versions.iter().all(|version| value(version) == value(&versions[0]))
        };
        Self {
            versions: path.child("versions"),
            shared: path.clone(),
            schema: same("schema"),
            subresources: same("subresources"),
            columns: same("additionalPrinterColumns"),
            selectable: same("selectableFields"),
        }
    }
}

/// What a definition had before a change.
#[derive(Clone, Copy)]
struct Before<'b> {
    spec: Option<&'b Value>,
    broken: Broken,
}

/// Checks a definition as it is.
pub fn definition(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("spec");
    let spec = &object["spec"];
    let (group, plural) = (text(spec, "group"), text(&spec["names"], "plural"));
    let wanted = format!("{plural}.{group}");
    for name in ["generateName", "name"].into_iter().filter(|_| old.is_none()) {
        let given = text(&object["metadata"], name);
        if !given.is_empty() && given != wanted {
            let why = "must be spec.names.plural+\".\"+spec.group";
            causes.push(Cause::invalid(&FieldPath::new("metadata").child(name), given, why));
        }
    }
    check_group(group, &path.child("group"), causes);
    match text(spec, "scope") {
        "" => causes.push(Cause::required(&path.child("scope"), "")),
        "Cluster" | "Namespaced" => {}
        other => causes.push(Cause::not_supported(&path.child("scope"), other, &["Cluster", "Namespaced"])),
    }
    let places = Places::of(spec, &path);
    let before = old.map(|old| &old["spec"]);
    // Most changes are of no schema: then nothing is asked that could be let off.
    let is_changed = before.is_some_and(|before| !same(&before["versions"], &spec["versions"]));
    let before = Before { spec: before, broken: Broken::of(before, is_changed) };
    cel::roomy(causes, |causes| versions(spec, before, &places, causes));
    required_names(&spec["names"], &path.child("names"), causes);
    names(&spec["names"], &path.child("names"), causes);
    cel::roomy(causes, |causes| shared(spec, before, &places, causes));
    conversion(spec, &path.child("conversion"), causes);
    accepted_names(object, causes);
    approval(object, old, group, causes);
    let keeps_unknown = |spec: &Value| spec.get("preserveUnknownFields").and_then(Value::as_bool) == Some(true);
    if keeps_unknown(spec) && !old.is_some_and(|old| keeps_unknown(&old["spec"])) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        causes.push(Cause::invalid(&path.child("preserveUnknownFields"), true, why));
    }
}

/// A group of the project needs its approval, or a word that there is none (apiextensions `helpers.go`).
fn approval(object: &Value, old: Option<&Value>, group: &str, causes: &mut Vec<Cause>) {
    let given = |object| meta::annotation(object, APPROVAL).unwrap_or_default();
    if !is_protected(group) || old.is_some_and(|old| Approval::of(given(old)) == Approval::of(given(object))) {
        return;
    }
    let path = FieldPath::new("metadata").child("annotations").key(APPROVAL);
    let approval = Approval::of(given(object));
    match approval {
        Approval::Missing => causes.push(Cause::required(&path, &approval.describe(""))),
        Approval::Bypassed | Approval::Given => {}
        Approval::Invalid => causes.push(Cause::invalid(&path, given(object), approval.describe(given(object)))),
    }
}

/// What the annotation says; while it says the same, nothing is asked (apiextensions `GetAPIApprovalState`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    Missing,
    Bypassed,
    Given,
    Invalid,
}

impl Approval {
    /// From the annotation; empty when there is none.
    pub fn of(given: &str) -> Self {
        let is_url = || given.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
        match given {
            "" => Self::Missing,
            _ if given.starts_with("unapproved") => Self::Bypassed,
            _ if is_url() => Self::Given,
            _ => Self::Invalid,
        }
    }

    /// In upstream's words.
    pub fn describe(self, given: &str) -> String {
        let see = "see https://github.com/kubernetes/enhancements/pull/1111";
        let must = format!("protected groups must have approval annotation {APPROVAL:?}");
        match self {
            Self::Missing => format!("{must}, {see}"),
            Self::Bypassed => format!("not approved: {given:?}"),
            Self::Given => format!("approved in {given}"),
            Self::Invalid => format!("{must} with either a URL or a reason starting with \"unapproved\", {see}"),
        }
    }

    /// Of the condition that tells it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "MissingAnnotation",
            Self::Bypassed => "UnapprovedAnnotation",
            Self::Given => "ApprovedAnnotation",
            Self::Invalid => "InvalidAnnotation",
        }
    }
}

fn check_group(group: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if group.is_empty() {
        causes.push(Cause::required(path, ""));
        return;
    }
    let messages = validation::dns1123_subdomain(group);
    if !messages.is_empty() {
        causes.push(Cause::invalid(path, group, messages.join(",")));
    } else if !group.contains('.') {
        causes.push(Cause::invalid(path, group, "should be a domain with at least one dot"));
    }
}

const NAMES: [&str; 4] = ["plural", "singular", "kind", "listKind"];

fn required_names(names: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let missing = NAMES.iter().filter(|name| text(names, name).is_empty());
    causes.extend(missing.map(|name| Cause::required(&path.child(name), "")));
}

/// The names that its status says it has (apiextensions `ValidateCustomResourceDefinitionStatus`).
pub fn accepted_names(object: &Value, causes: &mut Vec<Cause>) {
    names(&object["status"]["acceptedNames"], &FieldPath::new("status.acceptedNames"), causes);
}

fn names(names: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for name in NAMES {
        let value = text(names, name);
        let mixed = matches!(name, "kind" | "listKind");
        let messages = validation::dns1035_label(&if mixed { value.to_ascii_lowercase() } else { value.to_owned() });
        if !value.is_empty() && !messages.is_empty() {
            let why = messages.join(",");
            let why = if mixed { format!("may have mixed case, but should otherwise match: {why}") } else { why };
            causes.push(Cause::invalid(&path.child(name), value, why));
        }
    }
    let labels = |list: &str, causes: &mut Vec<Cause>| {
        for (nth, name) in items(names, list).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let messages = validation::dns1035_label(name);
            if !messages.is_empty() {
                causes.push(Cause::invalid(&path.child(list).index(nth), name, messages.join(",")));
            }
        }
    };
    labels("shortNames", causes);
    let (kind, list_kind) = (text(names, "kind"), text(names, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        causes.push(Cause::invalid(&path.child("listKind"), list_kind, "kind and listKind may not be the same"));
    }
    labels("categories", causes);
}

fn versions(spec: &Value, before: Before<'_>, places: &Places, causes: &mut Vec<Cause>) {
    let (versions, path) = (items(spec, "versions"), &places.versions);
    let named: HashSet<&str> = versions.iter().map(|version| text(version, "name")).collect();
    let has_schema = |version: &Value| version.pointer("/schema/openAPIV3Schema").is_some_and(Value::is_object);
    let is_served = |version: &Value| version.get("served").and_then(Value::as_bool) == Some(true);
    for (nth, version) in versions.iter().enumerate().filter(|(_, version)| !has_schema(version)) {
        let path = path.index(nth).child("schema").child("openAPIV3Schema");
        if !before.broken.schemas {
            causes.push(Cause::required(&path, "schemas are required"));
        } else if is_served(version) {
            causes.push(Cause::required(&path, "because otherwise all fields are pruned"));
        }
    }
    for (nth, version) in versions.iter().enumerate() {
        check_version(version, before, &path.index(nth), places, causes);
    }
    // Upstream shows the versions as it holds them, which is nothing that a client sent.
    let shown = || match spec.get("versions") {
        Some(Value::Array(versions)) => {
            Value::from(versions.iter().map(|version| text(version, "name")).collect::<Vec<_>>())
        }
        _ => Value::Null,
    };
    if named.len() != versions.len() {
        causes.push(Cause::invalid(path, shown(), "must contain unique version names"));
    }
    let stored = versions.iter().filter(|version| version.get("storage").and_then(Value::as_bool) == Some(true));
    if stored.count() != 1 {
        causes.push(Cause::invalid(path, shown(), "must have exactly one version marked as storage version"));
    }
    if let Some(first) = versions.first() {
        version_name(text(first, "name"), &places.shared.child("version"), causes);
    }
}

fn version_name(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let messages = validation::dns1035_label(name);
    if !messages.is_empty() && (!name.is_empty() || path.as_str().ends_with("].name")) {
        causes.push(Cause::invalid(path, name, messages.join(",")));
    }
}

/// What one version has of its own.
fn check_version(version: &Value, before: Before<'_>, path: &FieldPath, places: &Places, causes: &mut Vec<Cause>) {
    version_name(text(version, "name"), &path.child("name"), causes);
    deprecation(version, &path.child("deprecationWarning"), causes);
    if let (false, Some(schema)) = (places.schema, version.pointer("/schema/openAPIV3Schema"))
        && !was_so(version, before.spec)
    {
        let path = path.child("schema").child("openAPIV3Schema");
        check_schema::check(schema, &path, has_status(version), before.broken, causes);
    }
    if let (false, Some(scale)) = (places.subresources, version.pointer("/subresources/scale")) {
        check_scale(scale, &path.child("subresources").child("scale"), causes);
    }
    if !places.columns {
        columns(version, &path.child("additionalPrinterColumns"), causes);
    }
    if !places.selectable {
        selectable(version, &path.child("selectableFields"), causes);
    }
}

/// Whether a version had this schema already. What let it in once is not undone by a server that knows more: a definition
/// stays one that can be changed elsewhere. Upstream does so with what rules cost, and with what [`Broken`] names; that is not
/// asked for in schemas that change, either.
fn was_so(version: &Value, old: Option<&Value>) -> bool {
    let name = text(version, "name");
    let old = old.and_then(|old| items(old, "versions").iter().find(|known| text(known, "name") == name));
    old.is_some_and(|old| old.get("schema") == version.get("schema") && has_status(old) == has_status(version))
}

/// What all versions have alike.
fn shared(spec: &Value, before: Before<'_>, places: &Places, causes: &mut Vec<Cause>) {
    let versions = items(spec, "versions");
    let (Some(version), path) = (versions.first(), &places.shared) else { return };
    if let (true, Some(schema)) =
        (places.schema, version.pointer("/schema/openAPIV3Schema").filter(|schema| schema.is_object()))
        && !versions.iter().all(|version| was_so(version, before.spec))
    {
        let path = path.child("validation").child("openAPIV3Schema");
        check_schema::check(schema, &path, versions.iter().any(has_status), before.broken, causes);
    }
    if let (true, Some(scale)) = (places.subresources, version.pointer("/subresources/scale")) {
        check_scale(scale, &path.child("subresources").child("scale"), causes);
    }
    if places.columns {
        columns(version, &path.child("additionalPrinterColumns"), causes);
    }
    if places.selectable {
        selectable(version, &path.child("selectableFields"), causes);
    }
}

fn has_status(version: &Value) -> bool {
    version.pointer("/subresources/status").is_some_and(|status| !status.is_null())
}

/// Longest warning, in bytes.
const WARNING_MAX: usize = 256;

fn deprecation(version: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else { return };
    if version.get("deprecated").and_then(Value::as_bool) != Some(true) {
        causes.push(Cause::invalid(path, warning, "can only be set for deprecated versions"));
        return;
    }
    if warning.len() > WARNING_MAX {
        causes.push(Cause::invalid(path, warning, format!("must be <= {WARNING_MAX} characters long")));
    }
    if warning.is_empty() {
        causes.push(Cause::invalid(path, warning, "must not be an empty string"));
    }
    // Of white space only the blank can be printed.
    let hidden = |(_, c): &(usize, char)| c.is_control() || *c != ' ' && c.is_whitespace();
    if let Some((at, _)) = warning.char_indices().find(hidden) {
        let why = format!("must only contain printable UTF-8 characters; non-printable character found at index {at}");
        causes.push(Cause::invalid(path, warning, why));
    }
}

fn columns(version: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, column) in items(version, "additionalPrinterColumns").iter().enumerate() {
        check_column(column, &path.index(nth), causes);
    }
}

fn check_scale(scale: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (name, roots, needed) in [
        ("specReplicasPath", &["spec"][..], true),
        ("statusReplicasPath", &["status"][..], true),
        ("labelSelectorPath", &["spec", "status"][..], false),
    ] {
        let value = text(scale, name);
        let path = path.child(name);
        if value.is_empty() {
            if needed {
                causes.push(Cause::required(&path, ""));
            }
        } else if !value.starts_with('.') {
            causes.push(Cause::invalid(&path, value, "must be a simple json path starting with ."));
        } else if !roots.iter().any(|root| value[1..].strip_prefix(root).is_some_and(|rest| rest.starts_with('.'))) {
            let either = if roots.len() > 1 { "either " } else { "" };
            let roots: Vec<String> = roots.iter().map(|root| format!(".{root}")).collect();
            let why = format!("should be a json path under {either}{}", roots.join(" or "));
            causes.push(Cause::invalid(&path, value, why));
        }
    }
}

fn check_column(column: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if text(column, "name").is_empty() {
        causes.push(Cause::required(&path.child("name"), ""));
    }
    let kinds = ["boolean", "date", "integer", "number", "string"];
    match text(column, "type") {
        "" => causes.push(Cause::required(&path.child("type"), &format!("must be one of {}", kinds.join(",")))),
        kind if !kinds.contains(&kind) => {
            causes.push(Cause::invalid(&path.child("type"), kind, format!("must be one of {}", kinds.join(","))));
        }
        _ => {}
    }
    let formats = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    let format = text(column, "format");
    if !format.is_empty() && !formats.contains(&format) {
        causes.push(Cause::invalid(&path.child("format"), format, format!("must be one of {}", formats.join(","))));
    }
    // Upstream writes the field's name so. A path that cannot be read ends the columns.
    let (json_path, path) = (text(column, "jsonPath"), path.child("JSONPath"));
    if json_path.is_empty() {
        causes.push(Cause::required(&path, ""));
    } else if !json_path.starts_with('.') {
        causes.push(Cause::invalid(&path, json_path, "must be a simple json path starting with ."));
    }
}

fn selectable(version: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let fields = items(version, "selectableFields");
    if fields.is_empty() {
        return;
    }
    let Some(schema) = version.pointer("/schema/openAPIV3Schema").filter(|schema| schema.is_object()) else {
        causes.push(Cause::invalid(path, "", "may only be set when validations.schema is included"));
        return;
    };
    let mut seen = HashSet::new();
    for (nth, field) in fields.iter().enumerate() {
        let json_path = text(field, "jsonPath");
        let path = path.index(nth).child("jsonPath");
        let mut invalid = |why: &str| causes.push(Cause::invalid(&path, json_path, why));
        if json_path.is_empty() {
            causes.push(Cause::required(&path, ""));
            continue;
        }
        let found = match field_path::follow(json_path, schema, false) {
            Ok(found) => found,
            Err(why) => {
                invalid(&format!("is an invalid path: {why}"));
                continue;
            }
        };
        if json_path.starts_with(".metadata") && !json_path[9..].starts_with(|c| c != '.') {
            invalid("must not point to fields in metadata");
        }
        if !matches!(text(found, "type"), "string" | "integer" | "boolean") {
            invalid(
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            );
        }
        if !seen.insert(json_path) {
            causes.push(Cause::duplicate(&path, json_path));
        }
    }
    if seen.len() > SELECTABLE_MAX {
        causes.push(Cause::too_many(path, seen.len(), SELECTABLE_MAX));
    }
}

fn conversion(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let conversion = &spec["conversion"];
    match text(conversion, "strategy") {
        "" => causes.push(Cause::required(&path.child("strategy"), "")),
        "None" => {
            let why = "should not be set when strategy is not set to Webhook";
            let webhook = &conversion["webhook"];
            // The names are those that upstream holds the parts of `webhook` by.
            if webhook.get("clientConfig").is_some_and(|config| !config.is_null()) {
                causes.push(Cause::forbidden(&path.child("webhookClientConfig"), why));
            }
            if !items(webhook, "conversionReviewVersions").is_empty() {
                causes.push(Cause::forbidden(&path.child("conversionReviewVersions"), why));
            }
        }
        "Webhook" => {
            let why = "this server does not call conversion webhooks; only the strategy None is supported";
            causes.push(Cause::forbidden(&path.child("strategy"), why));
        }
        other => causes.push(Cause::not_supported(&path.child("strategy"), other, &["None", "Webhook"])),
    }
}

/// Checks what may not change.
pub fn change(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("spec");
    let mut fixed = |pointer: &str, path: FieldPath| {
        let (new, known) = (object.pointer(pointer), old.pointer(pointer));
        if new != known {
            causes.push(Cause::immutable(&path, new.cloned().unwrap_or(Value::Null)));
        }
    };
    if has_condition(old, "Established") {
        fixed("/spec/scope", path.child("scope"));
        fixed("/spec/names/kind", path.child("names").child("kind"));
    }
    fixed("/spec/group", path.child("group"));
    fixed("/spec/names/plural", path.child("names").child("plural"));
    stored_versions(object, causes);
}

/// Versions that objects may still be stored in cannot go.
fn stored_versions(object: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("status.storedVersions");
    let stored = items(&object["status"], "storedVersions");
    let versions = items(&object["spec"], "versions");
    if stored.is_empty() {
        causes.push(Cause::invalid(&path, json!([]), "must have at least one stored version"));
        return;
    }
    if let Some(version) = storage_version(object)
        && !stored.iter().any(|known| known.as_str() == Some(version))
    {
        causes.push(Cause::invalid(&path, stored.to_vec(), format!("must have the storage version {version}")));
    }
    for (nth, version) in stored.iter().filter_map(Value::as_str).enumerate() {
        if !versions.iter().any(|known| text(known, "name") == version) {
            let why = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions"
            );
            causes.push(Cause::invalid(&path.index(nth), version, why));
        }
    }
}
