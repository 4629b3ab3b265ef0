//! A row: all that is particular about one stored resource. Routes, discovery, storage keys, tables and OpenAPI derive
//! from it.

use super::strategy::Strategy;
use coracle_api::gvk::Symbol;
use coracle_api::json::Value;
use coracle_api::printing::{self, Printing};
use coracle_api::schema::{self, Schema, TypeRef};
use coracle_api::{Gvk, Gvr, Status, decode};

/// A part of an object, or an action on it, with a path of its own below the object's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    Status,
    Scale,
    Finalize,
    Approval,
    Binding,
    Eviction,
    EphemeralContainers,
    Resize,
    Token,
    Log,
    Exec,
    Attach,
    PortForward,
    Proxy,
}

impl Subresource {
    /// Every subresource there is.
    pub const ALL: [Subresource; 14] = [
        Subresource::Approval,
        Subresource::Attach,
        Subresource::Binding,
        Subresource::EphemeralContainers,
        Subresource::Eviction,
        Subresource::Exec,
        Subresource::Finalize,
        Subresource::Log,
        Subresource::PortForward,
        Subresource::Proxy,
        Subresource::Resize,
        Subresource::Scale,
        Subresource::Status,
        Subresource::Token,
    ];

    /// The last part of the path.
    pub fn path(self) -> &'static str {
        match self {
            Subresource::Status => "status",
            Subresource::Scale => "scale",
            Subresource::Finalize => "finalize",
            Subresource::Approval => "approval",
            Subresource::Binding => "binding",
            Subresource::Eviction => "eviction",
            Subresource::EphemeralContainers => "ephemeralcontainers",
            Subresource::Resize => "resize",
            Subresource::Token => "token",
            Subresource::Log => "log",
            Subresource::Exec => "exec",
            Subresource::Attach => "attach",
            Subresource::PortForward => "portforward",
            Subresource::Proxy => "proxy",
        }
    }

    /// What can be done with it.
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Subresource::Binding | Subresource::Eviction | Subresource::Token => &["create"],
            Subresource::Log => &["get"],
            Subresource::Exec | Subresource::Attach | Subresource::PortForward => &["create", "get"],
            Subresource::Proxy => &["create", "delete", "get", "patch", "update"],
            Subresource::Finalize => &["update"],
            _ => &["get", "patch", "update"],
        }
    }

    /// Whether it is a connection that lasts, rather than a request with a body and an answer.
    pub fn connects(self) -> bool {
        matches!(self, Subresource::Exec | Subresource::Attach | Subresource::PortForward | Subresource::Proxy)
    }

    /// The kind of its body, where that is not the kind of the `owner`.
    pub fn kind(self, owner: &str) -> Option<Gvk> {
        match self {
            Subresource::Scale => Some(Gvk::of("autoscaling", "v1", "Scale")),
            Subresource::Binding => Some(Gvk::of("", "v1", "Binding")),
            Subresource::Eviction => Some(Gvk::of("policy", "v1", "Eviction")),
            Subresource::Exec => Some(Gvk::of("", "v1", "PodExecOptions")),
            Subresource::Attach => Some(Gvk::of("", "v1", "PodAttachOptions")),
            Subresource::PortForward => Some(Gvk::of("", "v1", "PodPortForwardOptions")),
            Subresource::Proxy => {
                Some(Gvk { group: Symbol::EMPTY, version: "v1".into(), kind: format!("{owner}ProxyOptions").into() })
            }
            Subresource::Token => Some(Gvk::of("authentication.k8s.io", "v1", "TokenRequest")),
            _ => None,
        }
    }
}

/// The name of the type that a custom resource is read by, in its own schema.
pub fn reading_name(gvk: &Gvk) -> String {
    format!("document.{}.{}", gvk.version, gvk.kind)
}

/// One stored resource.
#[derive(Debug)]
pub struct Row {
    /// The groups and versions it is served in; it is stored in the first.
    pub served: Vec<(Symbol, Symbol)>,
    pub kind: Symbol,
    pub plural: Symbol,
    pub singular: Symbol,
    /// The part of the store's keys that names the resource.
    pub storage: Symbol,
    pub namespaced: bool,
    pub short_names: Vec<Symbol>,
    pub categories: Vec<Symbol>,
    pub subresources: Vec<Subresource>,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
    /// The schema of a custom resource; built-in ones share one.
    pub schema: Option<Schema>,
    /// Whoever asks for it is told this: that it is deprecated.
    pub warning: Option<String>,
    /// A delete answers with what went (registry/generic `ReturnDeletedObject`).
    pub shows_deleted: bool,
    pub strategy: Box<dyn Strategy>,
}

/// What can be done with every stored resource.
pub static VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The same of custom resources, in the order that discovery tells them in (apiextensions
/// `customresource_discovery_controller.go`).
pub static VERBS_OF_CUSTOM: [&str; 8] =
    ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// The same while its definition is being deleted. What is there can be changed all the same, so that it goes.
pub static VERBS_WHILE_ENDING: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];

/// The same of what goes one at a time.
pub static VERBS_ONE_BY_ONE: [&str; 7] = ["create", "delete", "get", "list", "patch", "update", "watch"];

impl Row {
    /// A row with nothing but a name and a strategy; stored under its plural.
    pub fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        strategy: impl Strategy,
    ) -> Self {
        Self {
            served: vec![(Symbol::new(group), Symbol::new(version))],
            kind: Symbol::new(kind),
            plural: Symbol::new(plural),
            singular: kind.to_ascii_lowercase().into(),
            storage: Symbol::new(plural),
            namespaced: true,
            short_names: Vec::new(),
            categories: Vec::new(),
            subresources: Vec::new(),
            verbs: &VERBS,
            schema: None,
            warning: None,
            shows_deleted: false,
            strategy: Box::new(strategy),
        }
    }

    /// Also served in another group or version.
    #[must_use]
    pub fn also(mut self, group: &'static str, version: &'static str) -> Self {
        self.served.push((Symbol::new(group), Symbol::new(version)));
        self
    }

    /// Not to be used any longer: `how` says since when, and perhaps what instead.
    #[must_use]
    pub fn deprecated(mut self, how: &str) -> Self {
        self.warning = Some(format!("{} {} is deprecated in {how}", self.served[0].1, self.kind));
        self
    }

    /// A delete answers with what went.
    #[must_use]
    pub fn shown_when_deleted(mut self) -> Self {
        self.shows_deleted = true;
        self
    }

    /// No delete takes them all.
    #[must_use]
    pub fn deleted_one_by_one(mut self) -> Self {
        self.verbs = &VERBS_ONE_BY_ONE;
        self
    }

    /// Not in a namespace.
    #[must_use]
    pub fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    #[must_use]
    pub fn short(mut self, names: &[&'static str]) -> Self {
        self.short_names = names.iter().map(|name| Symbol::new(name)).collect();
        self
    }

    /// Not stored: these verbs are answered.
    #[must_use]
    pub fn answered(mut self, verbs: &'static [&'static str]) -> Self {
        self.storage = Symbol::EMPTY;
        self.verbs = verbs;
        self
    }

    /// Stored under another name than its plural.
    #[must_use]
    pub fn stored_as(mut self, storage: &'static str) -> Self {
        self.storage = Symbol::new(storage);
        self
    }

    #[must_use]
    pub fn category(mut self, name: &'static str) -> Self {
        self.categories.push(Symbol::new(name));
        self
    }

    /// In `kubectl get all`.
    #[must_use]
    pub fn in_all(self) -> Self {
        self.category("all")
    }

    #[must_use]
    pub fn with(mut self, subresources: &[Subresource]) -> Self {
        self.subresources.extend_from_slice(subresources);
        self
    }

    /// With a status that is written apart from the rest.
    #[must_use]
    pub fn status(self) -> Self {
        self.with(&[Subresource::Status])
    }

    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// The resource as served in its nth group and version.
    pub fn gvr(&self, served: usize) -> Gvr {
        let (group, version) = &self.served[served.min(self.served.len() - 1)];
        Gvr { group: group.clone(), version: version.clone(), resource: self.plural.clone() }
    }

    /// The kind as served in its nth group and version.
    pub fn gvk(&self, served: usize) -> Gvk {
        let (group, version) = &self.served[served.min(self.served.len() - 1)];
        Gvk { group: group.clone(), version: version.clone(), kind: self.kind.clone() }
    }

    /// The type of its objects, as served in its nth group and version: for decoding built-in kinds, for merging and
    /// applying all of them.
    ///
    /// # Errors
    /// 500 when there is none, which is a mistake of the table.
    pub fn type_ref(&self, served: usize) -> Result<TypeRef<'_>, Status> {
        let gvk = self.gvk(served);
        let found = match &self.schema {
            Some(own) => own.of(&gvk),
            None => schema::of(&gvk),
        };
        found.ok_or_else(|| Status::internal(format!("no schema for {gvk}")))
    }

    /// The type by which its objects are read: of custom resources only the metadata is fixed.
    ///
    /// # Errors
    /// As [`type_ref`](Row::type_ref).
    pub fn reading_type(&self, served: usize) -> Result<TypeRef<'_>, Status> {
        match &self.schema {
            None => self.type_ref(served),
            Some(own) => {
                own.named(&reading_name(&self.gvk(served))).ok_or_else(|| Status::internal("no schema to read with"))
            }
        }
    }

    /// From the stored version to the nth served one.
    pub fn to_served(&self, object: &mut Value, served: usize) {
        self.strategy.to_served(object, served);
        self.complete(object, served, served);
    }

    /// From the nth served version to the stored one.
    pub fn to_stored(&self, object: &mut Value, served: usize) {
        self.strategy.to_stored(object, served);
        self.complete(object, served, 0);
    }

    /// Versions differ in what they show of fields that hold nothing.
    fn complete(&self, object: &mut Value, served: usize, to: usize) {
        if served == 0 || self.schema.is_some() {
            return;
        }
        if let Ok(ty) = self.type_ref(to) {
            *object = decode::completed(std::mem::take(object), ty);
        }
    }

    /// Whether its definition is being deleted: there are no new objects then.
    pub fn is_ending(&self) -> bool {
        std::ptr::eq(self.verbs, &VERBS_WHILE_ENDING[..])
    }

    /// Whether there are objects of it; otherwise it is a question that is answered.
    pub fn is_stored(&self) -> bool {
        !self.storage.is_empty()
    }

    /// How its objects are shown in tables.
    pub fn printing(&self, served: usize) -> Printing<'_> {
        match self.strategy.custom() {
            Some(custom) => Printing::Custom(custom.printer()),
            None => Printing::Builtin(printing::of(&self.gvk(served))),
        }
    }

    /// `apiVersion` of stored objects.
    pub fn stored_api_version(&self) -> String {
        self.gvk(0).api_version()
    }
}
