//! Namespaces.

use crate::admission;
use crate::cache::{Cacher, Field};
use crate::registry::Subresource;
use crate::registry::fields::{invalid_all, items, object_mut, set, text};
use crate::registry::meta::standard_finalizer;
use crate::registry::strategy::{NameRule, Strategy, WriteContext};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Status, meta, validation};

/// core/v1 Namespace
#[derive(Debug)]
pub struct NamespaceStrategy;

/// Which of the selectable fields is the phase.
pub const PHASE: usize = 0;

static FIELDS: [Field; 1] = [Field::of("status.phase", &["status", "phase"], "")];

/// The finalizer that keeps a namespace until its content is gone.
const FINALIZER: &str = "kubernetes";
/// Every namespace can be selected by its name (KEP-2161).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Strategy for NamespaceStrategy {
    fn blank_status(&self) -> Value {
        json!({"phase": "Active"})
    }

    fn fields(&self) -> &[Field] {
        &FIELDS
    }

    fn name_rule(&self) -> NameRule {
        validation::dns1123_label
    }

    fn default(&self, namespace: &mut Value) {
        let name = meta::name(namespace).to_owned();
        if !name.is_empty()
            && let Some(metadata) = meta::metadata_mut(namespace)
        {
            let labels = metadata.entry("labels").or_insert_with(|| json!({}));
            set(labels, NAME_LABEL, name);
        }
    }

    fn prepare_create(&self, namespace: &mut Value, _context: &WriteContext) {
        // The name may have been generated after the defaults were set.
        self.default(namespace);
        namespace["status"] = json!({"phase": "Active"});
        let finalizers = items(object_mut(namespace, "spec"), "finalizers").to_vec();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            let mut finalizers = finalizers;
            finalizers.push(FINALIZER.into());
            set(object_mut(namespace, "spec"), "finalizers", finalizers);
        }
    }

    fn prepare_update(&self, namespace: &mut Value, old: &Value, _context: &WriteContext) {
        // Only the finalize subresource changes them.
        crate::registry::fields::copy(namespace, old, "spec");
    }

    fn validate(&self, namespace: &Value, causes: &mut Vec<Cause>) {
        // Upstream reports them without their place in the list.
        let path = FieldPath::new("spec").child("finalizers");
        for finalizer in items(&namespace["spec"], "finalizers").iter().filter_map(Value::as_str) {
            invalid_all(&path, finalizer, validation::qualified_name(finalizer), causes);
            standard_finalizer(finalizer, &path, causes);
        }
    }

    fn validate_status(&self, namespace: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        let phase = text(&namespace["status"], "phase");
        let terminating = meta::deletion_timestamp(namespace).is_some();
        let path = FieldPath::new("status.Phase");
        if terminating && phase != "Terminating" {
            causes.push(Cause::invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"));
        }
        if !terminating && phase != "Active" {
            causes.push(Cause::invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty"));
        }
    }

    fn validate_subresource(&self, which: Subresource, namespace: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if which != Subresource::Finalize {
            return self.validate_status(namespace, old, causes);
        }
        let path = FieldPath::new("spec").child("finalizers");
        for (nth, finalizer) in items(&namespace["spec"], "finalizers").iter().filter_map(Value::as_str).enumerate() {
            let path = path.index(nth);
            invalid_all(&path, finalizer, validation::qualified_name(finalizer), causes);
            standard_finalizer(finalizer, &path, causes);
        }
    }

    fn check_delete(&self, namespace: &Value, _cacher: &Cacher) -> Result<(), Status> {
        admission::check_namespace_delete(meta::name(namespace))
    }
}
