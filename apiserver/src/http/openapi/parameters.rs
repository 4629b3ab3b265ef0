//! What requests take besides a body, and what it means.

use super::definitions::Style;
use crate::registry::fields::items;
use coracle_api::json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// Whether what is asked for is to be laid out for people: every request that is answered with a document takes it.
pub(super) const PRETTY: [&str; 1] = ["pretty"];
pub(super) const WRITE: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "pretty"];
pub(super) const PATCH: [&str; 5] = ["dryRun", "fieldManager", "fieldValidation", "force", "pretty"];
pub(super) const DELETE: [&str; 6] = [
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
];
pub(super) const DELETE_COLLECTION: [&str; 14] = [
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "labelSelector",
    "limit",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
];
pub(super) const LIST: [&str; 11] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "pretty",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
pub(super) const LOG: [&str; 10] = [
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "pretty",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
];
pub(super) const ATTACH: [&str; 5] = ["container", "stderr", "stdin", "stdout", "tty"];
pub(super) const EXEC: [&str; 6] = ["command", "container", "stderr", "stdin", "stdout", "tty"];
pub(super) const PORTS: [&str; 1] = ["ports"];
pub(super) const PROXY: [&str; 1] = ["path"];

/// Name, type and meaning of each, in order of the names.
const TABLE: [(&str, &str, &str); 36] = [
    (
        "allowWatchBookmarks",
        "boolean",
        "Lets the server send BOOKMARK events into a watch: how far it has come, when nothing that is watched changes.",
    ),
    ("command", "string", "The command and its arguments, one parameter each. No shell is put around it."),
    (
        "container",
        "string",
        "The container of the pod that is meant; the only one, or the default one, when nothing is said.",
    ),
    (
        "continue",
        "string",
        "Where a list goes on: what the answer with the part before gave as `metadata.continue`. The other parameters must be those of before. After some time the server answers 410, and gives a value with which the list can be read on as things are now.",
    ),
    ("dryRun", "string", "`All`: everything is checked and answered as usual, and nothing is kept."),
    (
        "fieldManager",
        "string",
        "Who makes the change: under this name the fields that it sets are kept account of. At most 128 printable characters.",
    ),
    ("fieldSelector", "string", "Only objects whose fields are so."),
    (
        "fieldValidation",
        "string",
        "What becomes of fields that are unknown or given twice: `Strict` refuses them, `Warn` leaves them out and says so in a warning, `Ignore` leaves them out.",
    ),
    ("follow", "boolean", "Goes on with what is logged from now on."),
    ("force", "boolean", "For patches of type apply alone: takes over fields that others manage."),
    (
        "gracePeriodSeconds",
        "integer",
        "How many seconds the object has to end. 0 deletes it at once; when nothing is said, the object or its kind says how long.",
    ),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Deletes an object, too, that cannot be read from the store. Nothing that would follow from the deletion happens then.",
    ),
    ("insecureSkipTLSVerifyBackend", "boolean", "Does not check the certificate of the node that the log comes from."),
    ("labelSelector", "string", "Only objects whose labels are so."),
    (
        "limit",
        "integer",
        "At most so many objects in an answer. When there are more, `metadata.continue` of the answer says how to get them; all parts of a list are as of the same moment.",
    ),
    ("limitBytes", "integer", "At most so many bytes of the log."),
    ("orphanDependents", "boolean", "Deprecated: say it with propagationPolicy. Whether dependents stay."),
    ("path", "string", "The path below the other side's root that the request is passed on to."),
    ("ports", "integer", "The ports of the pod that are forwarded; needed over WebSocket."),
    ("pretty", "string", "`true` lays the answer out for people. Browsers, curl and wget are answered so anyway."),
    ("previous", "boolean", "The log of the container that ran before this one."),
    (
        "propagationPolicy",
        "string",
        "What becomes of dependents: `Orphan` leaves them, `Background` has them deleted afterwards, `Foreground` deletes them first. Not together with orphanDependents.",
    ),
    (
        "resourceVersion",
        "string",
        "As of when, at least or exactly, the answer has to be; or after what a watch begins.",
    ),
    ("resourceVersionMatch", "string", "How resourceVersion is meant in a list: `Exact` or `NotOlderThan`."),
    (
        "sendInitialEvents",
        "boolean",
        "A watch begins with what there is, as ADDED events, and tells by a BOOKMARK with the annotation `k8s.io/initial-events-end` that this is all. Goes with resourceVersionMatch `NotOlderThan`.",
    ),
    ("sinceSeconds", "integer", "Only what was logged in the last so many seconds."),
    ("stderr", "boolean", "Joins the command's standard error."),
    ("stdin", "boolean", "Joins the command's standard input."),
    ("stdout", "boolean", "Joins the command's standard output."),
    ("stream", "string", "Which stream of the log: `All`, `Stdout` or `Stderr`."),
    ("tailLines", "integer", "Only the last so many lines of the log."),
    ("timeoutSeconds", "integer", "After so many seconds the request ends, whatever happens in it."),
    ("timestamps", "boolean", "Puts before each line when it was logged."),
    ("tty", "boolean", "The command has a terminal."),
    (
        "watch",
        "boolean",
        "Instead of a list, what changes from now on, or after resourceVersion, one event after the other.",
    ),
    // In the path.
    ("namespace", "string", "The namespace of the object."),
];

/// Of the table, from which documents follow, too.
pub(super) static DIGEST: LazyLock<[u8; 32]> = LazyLock::new(|| Sha256::digest(format!("{TABLE:?}")).into());

/// A parameter of the address. In OpenAPI v2 the document says each once, as upstream's does (kube-openapi `builder`).
pub(super) fn in_query(style: Style, name: &str) -> Value {
    match style {
        Style::V2 => json!({"$ref": format!("#/parameters/{name}-query")}),
        Style::V3 => full(style, "query", name),
    }
}

/// A part of the path.
pub(super) fn in_path(style: Style, name: &str, kind: &str) -> Value {
    match (style, name) {
        (_, "name") => {
            let mut parameter = typed(style, "path", name, "string");
            parameter["description"] = format!("The name of the {kind}.").into();
            parameter
        }
        (Style::V2, _) => json!({"$ref": format!("#/parameters/{name}-path")}),
        (Style::V3, _) => full(style, "path", name),
    }
}

/// What documents of OpenAPI v2 say once.
pub(super) fn shared() -> Map {
    let query = TABLE.iter().filter(|(name, ..)| *name != "namespace").map(|(name, ..)| (*name, "query"));
    let all = query.chain([("namespace", "path"), ("path", "path")]);
    all.map(|(name, place)| (format!("{name}-{place}"), full(Style::V2, place, name))).collect()
}

fn full(style: Style, place: &str, name: &str) -> Value {
    let (_, kind, meaning) = TABLE.iter().find(|(known, ..)| *known == name).copied().unwrap_or((name, "string", ""));
    let mut parameter = typed(style, place, name, kind);
    parameter["description"] = meaning.into();
    parameter
}

fn typed(style: Style, place: &str, name: &str, kind: &str) -> Value {
    let mut parameter = match style {
        Style::V3 => json!({"name": name, "in": place, "schema": {"type": kind, "uniqueItems": true}}),
        Style::V2 => json!({"name": name, "in": place, "type": kind, "uniqueItems": true}),
    };
    if place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}

/// What every operation of a path takes is said at the path (kube-openapi `builder`).
pub(super) fn gather(item: &mut Map, of_path: Vec<Value>) {
    let first = item.values().next().map_or(&[][..], |operation| items(operation, "parameters"));
    let is_shared =
        |parameter: &&Value| item.values().all(|operation| items(operation, "parameters").contains(parameter));
    let shared = first.iter().filter(is_shared);
    let common: Vec<Value> = of_path.into_iter().chain(shared.cloned()).collect();
    for operation in item.values_mut().filter_map(Value::as_object_mut) {
        let Some(Value::Array(own)) = operation.get_mut("parameters") else { continue };
        own.retain(|parameter| !common.contains(parameter));
        if own.is_empty() {
            operation.remove("parameters");
        }
    }
    if !common.is_empty() {
        item.insert("parameters", Value::Array(common));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_is_described() {
        let sets: [&[&str]; 10] =
            [&PRETTY, &WRITE, &PATCH, &DELETE, &DELETE_COLLECTION, &LIST, &LOG, &EXEC, &PORTS, &PROXY];
        for name in sets.concat().iter().chain(&ATTACH) {
            assert!(TABLE.iter().any(|(known, ..)| known == name), "{name}");
        }
    }
}
