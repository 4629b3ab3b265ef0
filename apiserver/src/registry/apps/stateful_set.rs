//! StatefulSets.

use crate::registry::core::{pod_defaults, pod_spec};
use crate::registry::fields::{copy, items_mut, non_negative, object_mut, one_of, set_default, text};
use crate::registry::strategy::{ScalePaths, Strategy, Traits, WriteContext};
use coracle_api::Cause;
use coracle_api::status::FieldPath;
use serde_json::{Value, json};

/// apps/v1 StatefulSet
#[derive(Debug)]
pub struct StatefulSetStrategy;

/// What an update may change (apps `ValidateStatefulSetUpdate`).
const FREE: [&str; 8] = [
    "replicas",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "ordinals",
    "serviceName",
];

impl Strategy for StatefulSetStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, ..Traits::DEFAULT }
    }

    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        pod_defaults::template(spec);
        set_default(spec, "podManagementPolicy", "OrderedReady");
        let strategy = object_mut(spec, "updateStrategy");
        set_default(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            set_default(object_mut(strategy, "rollingUpdate"), "partition", 0);
        }
        let retention = object_mut(spec, "persistentVolumeClaimRetentionPolicy");
        set_default(retention, "whenDeleted", "Retain");
        set_default(retention, "whenScaled", "Retain");
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        for claim in items_mut(spec, "volumeClaimTemplates") {
            set_default(claim, "apiVersion", "v1");
            set_default(claim, "kind", "PersistentVolumeClaim");
            set_default(object_mut(claim, "spec"), "volumeMode", "Filesystem");
            set_default(object_mut(claim, "status"), "phase", "Pending");
        }
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext) {
        object["status"] = json!({"replicas": 0, "availableReplicas": 0});
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        pod_spec::workload(spec, "statefulset", &path, causes);
        non_negative(spec, "revisionHistoryLimit", &path, causes);
        one_of(spec, "podManagementPolicy", &["OrderedReady", "Parallel"], &path, causes);
        let (strategy, path) = (&spec["updateStrategy"], path.child("updateStrategy"));
        one_of(strategy, "type", &["OnDelete", "RollingUpdate"], &path, causes);
        if let Some(update) = strategy.get("rollingUpdate") {
            non_negative(update, "partition", &path.child("rollingUpdate"), causes);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let mut expected = object["spec"].clone();
        for field in FREE {
            copy(&mut expected, &old["spec"], field);
        }
        if expected != old["spec"] {
            let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                       'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            causes.push(Cause::forbidden(&FieldPath::new("spec"), why));
        }
    }

    fn scale(&self) -> Option<ScalePaths<'_>> {
        Some(ScalePaths { structured_selector: true, custom: None })
    }
}
