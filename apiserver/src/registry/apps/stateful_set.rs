//! StatefulSets.

use super::workload;
use crate::registry::core::{amounts, claim, pod_spec, pod_warnings, volume};
use crate::registry::fields::{
    alike, copy, invalid_all, items, items_mut, non_negative, object_mut, one_of, remove, set, set_default, text,
};
use crate::registry::strategy::{NameRule, ScalePaths, Strategy, Traits};
use crate::registry::warnings::Warnings;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::BTreeSet;

/// apps/v1 StatefulSet
#[derive(Debug)]
pub struct StatefulSetStrategy;

/// What an update may change (apps `ValidateStatefulSetUpdate`).
const FREE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "ordinals",
];

const COUNTS: [&str; 7] = [
    "replicas",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
    "observedGeneration",
    "collisionCount",
];

impl Strategy for StatefulSetStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, ..Traits::DEFAULT }
    }

    fn name_rule(&self) -> NameRule {
        // It becomes part of the names of pods, which are host names.
        validation::dns1123_label
    }

    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        workload::default_template(spec);
        set_default(spec, "podManagementPolicy", "OrderedReady");
        let strategy = object_mut(spec, "updateStrategy");
        if text(strategy, "type").is_empty() {
            set(strategy, "type", "RollingUpdate");
            object_mut(strategy, "rollingUpdate");
        }
        let is_rolling = text(strategy, "type") == "RollingUpdate";
        if let Some(update) = strategy.get_mut("rollingUpdate").filter(|update| update.is_object()) {
            // Off in v1.35.4 and v1.36 (kubernetes/kubernetes#137904): dropped, as upstream's strategy drops it.
            remove(update, "maxUnavailable");
            if is_rolling {
                set_default(update, "partition", 0);
            }
        }
        let retention = object_mut(spec, "persistentVolumeClaimRetentionPolicy");
        set_default(retention, "whenDeleted", "Retain");
        set_default(retention, "whenScaled", "Retain");
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        for claim in items_mut(spec, "volumeClaimTemplates") {
            settle_claim(claim);
            set_default(object_mut(claim, "spec"), "volumeMode", "Filesystem");
            set_default(object_mut(claim, "status"), "phase", "Pending");
        }
    }

    fn blank_status(&self) -> Value {
        json!({"replicas": 0, "availableReplicas": 0})
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        self.validate_create(object, causes);
    }

    fn validate_create(&self, object: &Value, causes: &mut Vec<Cause>) {
        check(&object["spec"], true, true, causes);
    }

    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        // Templates were not looked at before 1.34: one that was wrong already does not stand in the way of an update.
        let mut known = Vec::new();
        pods(&old["spec"], &FieldPath::default(), &mut known);
        check(&object["spec"], false, known.is_empty(), causes);
        self.validate_update(object, old, causes);
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let mut expected = object["spec"].clone();
        for field in FREE {
            copy(&mut expected, &old["spec"], field);
        }
        if !alike(&expected, &old["spec"]) && !alike(&expected, &settled(&old["spec"])) {
            let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                       'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            causes.push(Cause::forbidden(&FieldPath::new("spec"), why));
        }
    }

    fn validate_status(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let status = &object["status"];
        let within = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        workload::counts(status, &COUNTS, &within, causes);
        workload::available(status, "cannot be greater than status.readyReplicas", causes);
        workload::collisions(status, &old["status"], causes);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut told = Warnings::default();
        pod_warnings::of_template(object, old, "/spec/template").into_iter().for_each(|why| told.add(why));
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let claims = items(spec, "volumeClaimTemplates").iter().filter(|_| old.is_none());
        for (nth, claim) in claims.enumerate() {
            // Their own spec is not in the path upstream.
            claim::sizes(&claim["spec"], &path.child("volumeClaimTemplates").index(nth), &mut told);
        }
        if spec.get("revisionHistoryLimit").and_then(Value::as_i64).is_some_and(|limit| limit < 0) {
            let why = "a negative value retains all historical revisions; a value >= 0 is recommended";
            told.at(&path.child("revisionHistoryLimit"), why);
        }
        told.into()
    }

    fn scale(&self) -> Option<ScalePaths<'_>> {
        Some(ScalePaths { structured_selector: true, custom: None })
    }
}

/// A template of claims is one whatever it says (apps/v1 `Convert_apps_StatefulSetSpec_To_v1_StatefulSetSpec`).
fn settle_claim(claim: &mut Value) {
    set(claim, "apiVersion", "v1");
    set(claim, "kind", "PersistentVolumeClaim");
    amounts::round(claim, amounts::CLAIM);
}

/// A spec that an older server kept, as it would be kept now.
fn settled(spec: &Value) -> Value {
    let mut spec = spec.clone();
    items_mut(&mut spec, "volumeClaimTemplates").for_each(settle_claim);
    spec
}

/// Everything that is wrong with a spec (apps `ValidateStatefulSetSpec`). What no update can change is looked at in new
/// objects alone.
fn check(spec: &Value, new: bool, template: bool, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("spec");
    let management = text(spec, "podManagementPolicy");
    if !matches!(management, "OrderedReady" | "Parallel") {
        let why = "must be 'OrderedReady' or 'Parallel'";
        causes.push(Cause::invalid(&path.child("podManagementPolicy"), management, why));
    }
    strategy(&spec["updateStrategy"], &path.child("updateStrategy"), causes);
    let retention = path.child("persistentVolumeClaimRetentionPolicy");
    for when in ["whenDeleted", "whenScaled"] {
        one_of(&spec["persistentVolumeClaimRetentionPolicy"], when, &["Retain", "Delete"], &retention, causes);
    }
    if new {
        for (nth, claim) in items(spec, "volumeClaimTemplates").iter().enumerate() {
            let path = path.child("volumeClaimTemplates").index(nth).child("spec");
            volume::claim_spec(&claim["spec"], &path, causes);
        }
    }
    non_negative(spec, "replicas", &path, causes);
    non_negative(spec, "minReadySeconds", &path, causes);
    non_negative(&spec["ordinals"], "start", &path.child("ordinals"), causes);
    let service = text(spec, "serviceName");
    if new && !service.is_empty() {
        invalid_all(&path.child("serviceName"), service, validation::dns1123_label(service), causes);
    }
    workload::selector(spec, "statefulset", &path, causes);
    workload::selected(spec, "", &path, causes, |causes| {
        if template {
            pods(spec, &path, causes);
        }
    });
    workload::lasting(spec, "StatefulSet", &path, causes);
}

/// The pods of a template: each has its claims as its first volumes, instead of any of the same name, and a name and domain that
/// are not the template's.
fn pods(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut template = spec.get("template").cloned().unwrap_or(Value::Null);
    let pod = object_mut(&mut template, "spec");
    let claims = items(spec, "volumeClaimTemplates");
    // As many claims as have different names.
    let names: BTreeSet<&str> =
        claims.iter().filter_map(|claim| claim.pointer("/metadata/name").and_then(Value::as_str)).collect();
    let of_claim = |name: &&str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
    let mut volumes: Vec<Value> = names.iter().map(of_claim).collect();
    volumes.extend(items(pod, "volumes").iter().filter(|volume| !names.contains(text(volume, "name"))).cloned());
    set(pod, "volumes", volumes);
    for field in ["hostname", "subdomain"] {
        remove(pod, field);
    }
    pod_spec::template(&template, &path.child("template"), causes);
}

fn strategy(strategy: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let fields = [("partition", "Partition", 0.into()), ("maxUnavailable", "MaxUnavailable", Value::Null)];
    let value = || workload::strategy_value(strategy, &fields);
    let update = strategy.get("rollingUpdate").filter(|update| !update.is_null());
    match (text(strategy, "type"), update) {
        ("OnDelete" | "RollingUpdate", None) => {}
        ("OnDelete", Some(_)) => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            causes.push(Cause::invalid(&path.child("rollingUpdate"), value()["RollingUpdate"].clone(), why));
        }
        ("RollingUpdate", Some(update)) => {
            non_negative(update, "partition", &path.child("rollingUpdate"), causes);
        }
        _ => causes.push(Cause::invalid(path, value(), "must be 'RollingUpdate' or 'OnDelete'")),
    }
}
