//! What a kind does differently. One generic implementation of each verb calls these in order:
//!
//! create: default → prepare_create → validate · update: default → prepare_update → validate + validate_update ·
//! status: prepare_status → validate_status

use super::row::Subresource;
use crate::auth::UserInfo;
use crate::cache::{Cacher, Field};
use coracle_api::fields::Set;
use coracle_api::json::Value;
use coracle_api::names::Names;
use coracle_api::printing::CustomPrinter;
use coracle_api::{Cause, Status, validation};
use jiff::Timestamp;

/// The number of the defaults that kinds [fill in](Strategy::default): raised whenever any of them changes, so that records of
/// before are filled in (`cache/defaults.rs`). No feature gate has a say in them.
pub const DEFAULTS: u32 = 1;

/// Who writes, and when.
pub struct WriteContext<'a> {
    pub user: &'a UserInfo,
    pub now: Timestamp,
    pub names: &'a dyn Names,
}

/// What is allocated in the transaction of the object that gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    None,
    /// Cluster IPs and node ports.
    Service,
}

/// What becomes of an object's dependents when a delete does not say (apiserver `rest.GarbageCollectionPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    Deleted,
    Orphaned,
    /// There are none, and what a delete says of them does not count.
    None,
}

/// What of the metadata an update of the status changes, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThroughStatus {
    /// All that an update changes.
    All,
    /// All but the owners: older kubelets broke them.
    NotOwners,
    /// All but the labels.
    NotLabels,
    /// Neither labels and annotations, nor finalizers and owners (apimachinery `ResetObjectMetaForStatus`).
    Nothing,
}

impl ThroughStatus {
    /// The fields of the metadata that stay as they are.
    pub fn kept(self) -> &'static [&'static str] {
        match self {
            ThroughStatus::All => &[],
            ThroughStatus::NotOwners => &["ownerReferences"],
            ThroughStatus::NotLabels => &["labels"],
            ThroughStatus::Nothing => &["labels", "annotations", "finalizers", "ownerReferences"],
        }
    }
}

/// The generic behaviour of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// `metadata.generation` counts changes of the spec.
    pub generation: bool,
    /// New objects begin with the first; otherwise their first change does.
    pub generation_of_new: bool,
    /// A change of the annotations counts as well.
    pub annotations_count: bool,
    /// A change of the labels counts as well.
    pub labels_count: bool,
    /// PUT to a name that does not exist creates it.
    pub create_on_update: bool,
    /// An update without resourceVersion overwrites whatever is there.
    pub unconditional_update: bool,
    pub dependents: Dependents,
    /// A new object may bring its status along.
    pub status_on_create: bool,
    /// An update of the whole object changes the status, too.
    pub status_on_update: bool,
    pub through_status: ThroughStatus,
    pub allocation: Allocation,
    /// How long objects live, in seconds.
    pub ttl: Option<u64>,
}

impl Traits {
    pub const DEFAULT: Traits = Traits {
        generation: false,
        generation_of_new: true,
        annotations_count: false,
        labels_count: false,
        create_on_update: false,
        unconditional_update: true,
        dependents: Dependents::Deleted,
        status_on_create: false,
        status_on_update: false,
        through_status: ThroughStatus::All,
        allocation: Allocation::None,
        ttl: None,
    };
}

/// A check of a name: the messages of what is wrong with it.
pub type NameRule = fn(&str) -> Vec<String>;

/// A kind's own rules. Everything has a default, so a kind without rules of its own is [`Plain`].
pub trait Strategy: Send + Sync + std::fmt::Debug + 'static {
    fn traits(&self) -> Traits {
        Traits::DEFAULT
    }

    /// What the status says when nothing is known yet: numbers and texts that Go's types write also when they are zero.
    fn blank_status(&self) -> Value {
        Value::Null
    }

    /// Fields that can be selected by, beside name and namespace.
    fn fields(&self) -> &[Field] {
        &[]
    }

    /// The field that a selector of the nth served version names; None when that version has none of this name.
    fn selected<'f>(&self, name: &'f str, _served: usize) -> Option<&'f str> {
        Some(name)
    }

    /// What a write through a path cannot set; None when it is what the path tells of any kind.
    fn reset_fields(&self, _through: Option<Subresource>) -> Option<&'static Set<'static>> {
        None
    }

    /// What names must look like.
    fn name_rule(&self) -> NameRule {
        validation::dns1123_subdomain
    }

    /// What is wrong with the beginning of a name, the rest of which the server makes.
    fn wrong_prefix(&self, prefix: &str) -> Vec<String> {
        self.name_rule()(&validation::masked(prefix))
    }

    /// A name that begins with what the client gave.
    fn generate_name(&self, prefix: &str, names: &dyn Names) -> String {
        names.generate(prefix)
    }

    /// Fills in what a client may leave out. Also called on updates, and on what older servers wrote: see [`DEFAULTS`].
    fn default(&self, _object: &mut Value) {}

    /// Sets what the server decides when an object is made.
    fn prepare_create(&self, _object: &mut Value, _context: &WriteContext) {}

    /// Carries over what an update may not touch.
    fn prepare_update(&self, _object: &mut Value, _old: &Value, _context: &WriteContext) {}

    /// The same for an update of the status.
    fn prepare_status(&self, _object: &mut Value, _old: &Value, _context: &WriteContext) {}

    /// The same for an update of any part that is written apart.
    fn prepare_subresource(&self, _which: Subresource, object: &mut Value, old: &Value, context: &WriteContext) {
        self.prepare_status(object, old, context);
    }

    /// Whether what becomes of a new object, and what is told of it, follows from what was asked, but for its name, its uid and
    /// the time. Objects that come by the dozen and differ in nothing else are made from one another; names that are no DNS
    /// labels are not.
    fn repeats(&self, _object: &Value) -> bool {
        false
    }

    /// Why upstream could not read an object as one of its own kind, in Go's words.
    fn misfit(&self, _object: &Value) -> Option<String> {
        None
    }

    /// Everything that is wrong with an object.
    fn validate(&self, _object: &Value, _causes: &mut Vec<Cause>) {}

    /// Everything that is wrong with a new object.
    fn validate_create(&self, object: &Value, causes: &mut Vec<Cause>) {
        self.validate(object, causes);
    }

    /// Everything that is wrong with a change.
    fn validate_update(&self, _object: &Value, _old: &Value, _causes: &mut Vec<Cause>) {}

    /// Everything that is wrong with a changed object.
    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        self.validate(object, causes);
        self.validate_update(object, old, causes);
    }

    /// Everything else that is wrong with an object that came in the nth served version; `old` is what it replaces.
    fn validate_served(&self, _object: &Value, _old: Option<&Value>, _served: usize, _causes: &mut Vec<Cause>) {}

    /// What is allowed, but most likely not what was meant; `old` is what it replaces.
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// The same of a new object before the server has filled it in: what comes of it cannot be told from what was given.
    fn early_warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// The same of a changed status.
    fn status_warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// What the server writes into an object when its delete is asked for, before it is known whether it waits. True when
    /// that is more than metadata.
    fn prepare_delete(&self, _object: &mut Value, _context: &WriteContext) -> bool {
        false
    }

    /// Everything that is wrong with a change of the status.
    fn validate_status(&self, _object: &Value, _old: &Value, _causes: &mut Vec<Cause>) {}

    /// Everything that is wrong with a change of another part of its own.
    fn validate_subresource(&self, _which: Subresource, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        self.validate_status(object, old, causes);
        self.validate(object, causes);
    }

    /// Seconds between the request to delete an object and its removal; None when it is removed at once.
    fn grace_period(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// What stands in the way of a delete.
    fn check_delete(&self, _object: &Value, _cacher: &Cacher) -> Result<(), Status> {
        Ok(())
    }

    /// From the stored version to the nth served one.
    fn to_served(&self, _object: &mut Value, _served: usize) {}

    /// From the nth served version to the stored one.
    fn to_stored(&self, _object: &mut Value, _served: usize) {}

    /// Where the scale subresource finds its numbers: only for kinds that have one.
    fn scale(&self) -> Option<ScalePaths<'_>> {
        None
    }

    /// What a custom resource does that no built-in one does.
    fn custom(&self) -> Option<&dyn Custom> {
        None
    }
}

/// The ways in which custom resources differ from built-in ones.
pub trait Custom: Send + Sync {
    /// Drops what the schema does not name from an object that was just read, and gives the paths of what was dropped.
    fn prune(&self, object: &mut Value) -> Vec<String>;

    /// An object of the store as it is kept in memory: in the storage version, pruned and defaulted as the schema is now
    /// (apiextensions `crdConversionRESTOptionsGetter`). None when it is so already.
    fn normalized(&self, stored: &[u8]) -> Option<Vec<u8>>;

    /// The version served is not the one kept in memory.
    fn converts(&self) -> bool;

    /// The version that is kept.
    fn stored_version(&self) -> &str;

    /// The columns of its tables.
    fn printer(&self) -> &CustomPrinter;

    /// Its schema in OpenAPI v3, as its definition gives it.
    fn openapi(&self) -> &Value;
}

/// How a kind's `scale` maps to its fields.
#[derive(Clone, Copy, Debug)]
pub struct ScalePaths<'a> {
    /// The selector is metav1.LabelSelector; otherwise a plain map.
    pub structured_selector: bool,
    /// JSON pointers to the replicas wanted and there, and to the selector in text.
    pub custom: Option<(&'a str, &'a str, Option<&'a str>)>,
}

/// A kind with no rules of its own.
#[derive(Clone, Copy, Debug)]
pub struct Plain(pub Traits);

impl Strategy for Plain {
    fn traits(&self) -> Traits {
        self.0
    }
}

/// A kind with no rules of its own at all.
pub const PLAIN: Plain = Plain(Traits::DEFAULT);
