//! Where a pod may run: by labels that nodes had once, and beside pods that there cannot be.

use crate::registry::core::node_labels;
use crate::registry::fields::{field, items, text};
use crate::registry::warnings::Warnings;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const SELECTS_NONE: &str = "a null labelSelector results in matching no pod";

/// Nodes that are selected, and how pods are spread over them.
pub fn nodes(spec: &Value, path: &FieldPath, told: &mut Warnings) {
    for (label, _) in field(spec, "nodeSelector").and_then(Value::as_object).into_iter().flatten() {
        if let Some(why) = node_labels::deprecated(label) {
            told.at(&path.child("nodeSelector").key(label), why);
        }
    }
    if let Some(affinity) = spec.pointer("/affinity/nodeAffinity") {
        let path = path.child("affinity").child("nodeAffinity");
        let at = path.child(REQUIRED).child("nodeSelectorTerms");
        let required = field(affinity, REQUIRED).map_or(&[][..], |required| items(required, "nodeSelectorTerms"));
        for (nth, term) in required.iter().enumerate() {
            node_labels::term(term, false, &at.index(nth), told);
        }
        let at = path.child(PREFERRED);
        for (nth, term) in items(affinity, PREFERRED).iter().enumerate() {
            node_labels::term(&term["preference"], true, &at.index(nth).child("preference"), told);
        }
    }
    for (nth, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        let label = text(constraint, "topologyKey");
        let path = || path.child("topologySpreadConstraints").index(nth);
        if let Some(why) = node_labels::deprecated(label) {
            told.at(&path().child("topologyKey"), format_args!("{label} is {why}"));
        }
        if selects_none(constraint) {
            told.at(&path().child("labelSelector"), SELECTS_NONE);
        }
    }
}

/// Pods that it is to be beside, or apart from.
pub fn pods(spec: &Value, path: &FieldPath, told: &mut Warnings) {
    let Some(affinity) = field(spec, "affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(of_kind) = field(affinity, kind) else { continue };
        let path = path.child("affinity").child(kind);
        for (nth, term) in items(of_kind, REQUIRED).iter().enumerate() {
            if selects_none(term) {
                told.at(&path.child(REQUIRED).index(nth).child("labelSelector"), SELECTS_NONE);
            }
        }
        for (nth, weighted) in items(of_kind, PREFERRED).iter().enumerate() {
            if selects_none(&weighted["podAffinityTerm"]) {
                let path = path.child(PREFERRED).index(nth).child("podAffinityTerm");
                told.at(&path.child("labelSelector"), SELECTS_NONE);
            }
        }
    }
}

fn selects_none(term: &Value) -> bool {
    field(term, "labelSelector").is_none_or(Value::is_null)
}
