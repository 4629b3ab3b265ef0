//! What one served version of a custom resource does (apiextensions `registry/customresource`).

use super::structural::Node;
use super::{defaults, prune, rules, validate};
use crate::cache::Field;
use crate::registry::fields;
use crate::registry::strategy::{Custom, ScalePaths, Strategy, ThroughStatus, Traits, WriteContext};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::printing::CustomPrinter;
use coracle_api::status::{CauseReason, FieldPath};

/// Pointers to the numbers of `scale`.
#[derive(Debug)]
pub struct Scale {
    pub wanted: String,
    pub there: String,
    pub selector: Option<String>,
}

/// One version, as its definition gives it.
#[derive(Debug)]
pub struct Version {
    pub node: Node,
    /// `group/version`, as served and as stored.
    pub api_version: String,
    pub stored: String,
    /// The selectable fields of all versions: the index is one. Those of other versions alone have no name.
    pub fields: Vec<Field>,
    pub printer: CustomPrinter,
    pub scale: Option<Scale>,
    pub openapi: Value,
    /// Objects may stand in the store in another form than the one that is kept.
    pub reads: bool,
}

impl Version {
    fn set_version(object: &mut Value, version: &str) {
        fields::set(object, "apiVersion", version);
    }

    /// Numbers of `scale` must be such (apiextensions `registry/customresource/validator.go`).
    fn check_scale(&self, object: &Value, causes: &mut Vec<Cause>) {
        let Some(scale) = &self.scale else { return };
        for pointer in [&scale.wanted, &scale.there] {
            let Some(number) = object.pointer(pointer).and_then(Value::as_i64) else { continue };
            let path = FieldPath::new(&pointer.replace('/', "."));
            if number < 0 {
                causes.push(Cause::invalid(&path, number, "should be a non-negative integer"));
            } else if number > i64::from(i32::MAX) {
                causes.push(Cause::invalid(&path, number, format!("should be less than or equal to {}", i32::MAX)));
            }
        }
    }

    fn check(&self, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
        self.check_values(object, old, causes);
        self.check_scale(object, causes);
    }

    fn check_values(&self, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
        let before = causes.len();
        validate::validate(&self.node, object, old, causes);
        validate::validate_embedded(&self.node, object, &FieldPath::default(), causes);
        validate::validate_lists(&self.node, object, old, &FieldPath::default(), causes);
        let blocks = |cause: &Cause| {
            let blocking =
                [CauseReason::Required, CauseReason::TooLong, CauseReason::TooMany, CauseReason::TypeInvalid];
            blocking.contains(&cause.reason)
        };
        if causes[before..].iter().any(blocks) {
            if self.node.ruled {
                let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
                causes.push(Cause::new(CauseReason::Invalid, "<nil>", format!("Invalid value: null: {why}")));
            }
        } else {
            rules::validate(&self.node, object, old, &FieldPath::default(), causes);
        }
    }
}

impl Strategy for Version {
    fn traits(&self) -> Traits {
        // Updates of custom resources must say which version they change.
        Traits {
            generation: true,
            unconditional_update: false,
            through_status: ThroughStatus::Nothing,
            ..Traits::DEFAULT
        }
    }

    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn default(&self, object: &mut Value) {
        defaults::apply(&self.node, object);
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _context: &WriteContext) {
        // The metadata is not written with the status.
        fields::copy(object, old, "metadata");
    }

    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        self.check(object, Some(old), causes);
    }

    fn validate_status(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        self.check(object, Some(old), causes);
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        self.check(object, None, causes);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        old.map(|old| rules::warnings(&self.node, object, old)).unwrap_or_default()
    }

    fn to_served(&self, object: &mut Value, _served: usize) {
        Self::set_version(object, &self.api_version);
        if self.converts() {
            prune::prune(&self.node, object);
            defaults::apply(&self.node, object);
        }
    }

    fn to_stored(&self, object: &mut Value, _served: usize) {
        Self::set_version(object, &self.stored);
    }

    fn scale(&self) -> Option<ScalePaths<'_>> {
        let scale = self.scale.as_ref()?;
        let custom = Some((scale.wanted.as_str(), scale.there.as_str(), scale.selector.as_deref()));
        Some(ScalePaths { structured_selector: false, custom })
    }

    fn custom(&self) -> Option<&dyn Custom> {
        Some(self)
    }
}

impl Custom for Version {
    fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(&self.node, object)
    }

    fn normalized(&self, stored: &[u8]) -> Option<Vec<u8>> {
        if !self.reads {
            return None;
        }
        let before: Value = serde_json::from_slice(stored).ok()?;
        let mut object = before.clone();
        Self::set_version(&mut object, &self.stored);
        prune::prune(&self.node, &mut object);
        defaults::apply(&self.node, &mut object);
        (object != before).then(|| crate::cache::encode(&object).to_vec())
    }

    fn converts(&self) -> bool {
        self.api_version != self.stored
    }

    fn stored_version(&self) -> &str {
        self.stored.rsplit('/').next().unwrap_or_default()
    }

    fn printer(&self) -> &CustomPrinter {
        &self.printer
    }

    fn openapi(&self) -> &Value {
        &self.openapi
    }
}
