//! Definitions of types, from the schema table and the descriptions.

use super::descriptions::Descriptions;
use super::enums;
use coracle_api::json::{Map, Value, json};
use coracle_api::schema::{Field, Kind, ListType, Scalar, TypeRef, ValueRef};

/// How a document refers to its definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    V2,
    V3,
}

impl Style {
    pub fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }
}

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";

const CORE: &str = "io.k8s.api.core.v1.";

/// Fields of core/v1 whose default stands beside them (`+default` in `types.go`).
const DEFAULTS: [(&str, &str, &str); 16] = [
    ("AzureDiskVolumeSource", "cachingMode", "ReadWrite"),
    ("AzureDiskVolumeSource", "fsType", "ext4"),
    ("AzureDiskVolumeSource", "kind", "Shared"),
    ("ConfigMapEnvSource", "name", ""),
    ("ConfigMapKeySelector", "name", ""),
    ("ContainerPort", "protocol", "TCP"),
    ("GRPCAction", "service", ""),
    ("ISCSIVolumeSource", "iscsiInterface", "default"),
    ("LocalObjectReference", "name", ""),
    ("RBDVolumeSource", "keyring", "/etc/ceph/keyring"),
    ("RBDVolumeSource", "pool", "rbd"),
    ("RBDVolumeSource", "user", "admin"),
    ("ScaleIOVolumeSource", "fsType", "xfs"),
    ("ScaleIOVolumeSource", "storageMode", "ThinProvisioned"),
    ("SecretKeySelector", "name", ""),
    ("ServicePort", "protocol", "TCP"),
];

/// What Go has where nothing was set.
fn zero(scalar: Scalar) -> Option<Value> {
    match scalar {
        Scalar::String => Some("".into()),
        Scalar::Int32 | Scalar::Int64 => Some(0.into()),
        Scalar::Bool => Some(false.into()),
        _ => None,
    }
}

/// Definitions while they are collected.
pub(super) struct Definitions<'d> {
    style: Style,
    descriptions: &'d Descriptions,
    found: Map,
}

impl<'d> Definitions<'d> {
    pub fn new(style: Style, descriptions: &'d Descriptions) -> Self {
        Self { style, descriptions, found: Map::new() }
    }

    /// With other descriptions from here on.
    pub fn describe(self, descriptions: &'d Descriptions) -> Self {
        Self { descriptions, ..self }
    }

    /// The definitions, in order of their names.
    pub fn finish(self) -> Map {
        let mut found = self.found;
        found.sort_keys();
        found
    }

    /// What a field of a type is, in upstream's words.
    pub fn described(&self, name: &str, field: &str) -> Option<&'d str> {
        self.descriptions.of_field(name, field)
    }

    /// A definition that stands for itself: a custom resource's.
    pub fn insert(&mut self, name: &str, definition: Value) {
        self.found.insert(name.to_owned(), definition);
    }

    /// Says that a type is these kinds.
    pub fn kinds(&mut self, name: &str, kinds: &[Value]) {
        let Some(definition) = self.found.get_mut(name).and_then(Value::as_object_mut) else { return };
        let known = definition.entry("x-kubernetes-group-version-kind").or_insert_with(|| json!([]));
        let Value::Array(known) = known else { return };
        for kind in kinds {
            if !known.contains(kind) {
                known.push(kind.clone());
            }
        }
    }

    /// Adds a type and all that it holds.
    pub fn add(&mut self, ty: TypeRef<'_>) {
        let name = ty.full_name();
        if self.found.contains_key(name) {
            return;
        }
        // Types refer to themselves: the name is taken before the fields are looked at.
        self.found.insert(name.to_owned(), Value::Null);
        let mut definition = Map::new();
        let list = name
            .ends_with("List")
            .then(|| format!("{} is a list of {}.", ty.name(), ty.name().trim_end_matches("List")));
        if let Some(description) = self.descriptions.of_type(name).map(str::to_owned).or(list) {
            definition.insert("description", description.into());
        }
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in ty.fields() {
            properties.insert(field.name().to_owned(), self.property(name, field));
            if field.required() {
                required.push(field.name());
            }
        }
        if !required.is_empty() {
            definition.insert("required", json!(required));
        }
        definition.insert("type", "object".into());
        if !properties.is_empty() {
            definition.insert("properties", Value::Object(properties));
        }
        if ty.atomic() {
            definition.insert("x-kubernetes-map-type", "atomic".into());
        }
        self.found.insert(name.to_owned(), Value::Object(definition));
    }

    fn property(&mut self, owner: &str, field: Field<'_>) -> Value {
        let described = self.descriptions.of_field(owner, field.name());
        let described = described.or_else(|| of_every_kind(field.name())).map(str::to_owned);
        let mut property = self.value(field.value());
        // What stands beside a $ref does not count in OpenAPI 3.0.
        if self.style == Style::V3 && property.get("$ref").is_some() {
            property = json!({"allOf": [property]});
            if field.value().object().is_some() {
                property["default"] = json!({});
            }
        }
        let Value::Object(map) = &mut property else { return property };
        if let Some(default) = self.default(owner, field) {
            map.insert("default", default);
        }
        if let Some(described) = described {
            map.insert("description", described.into());
        }
        enums::add(owner, field.name(), map);
        if field.atomic() {
            map.insert("x-kubernetes-map-type", "atomic".into());
        }
        if let Some(list_type) = field.list_type() {
            let text = match list_type {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            };
            map.insert("x-kubernetes-list-type", text.into());
        }
        if !field.list_keys().is_empty() {
            let keys: Vec<&str> = field.list_keys().iter().map(|key| &**key).collect();
            map.insert("x-kubernetes-list-map-keys", json!(keys));
        }
        if let Some(key) = field.merge_key() {
            map.insert("x-kubernetes-patch-merge-key", key.into());
        }
        let strategy = field.strategy();
        let strategies =
            [(strategy.merge, "merge"), (strategy.retain_keys, "retainKeys"), (strategy.replace, "replace")];
        let strategies: Vec<&str> = strategies.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect();
        if !strategies.is_empty() {
            map.insert("x-kubernetes-patch-strategy", strategies.join(",").into());
        }
        property
    }

    /// What a field holds that is left out, as the schema itself says; what the server fills in besides depends on more.
    /// OpenAPI v2 says nothing of it, which kubectl once took for something else.
    fn default(&self, owner: &str, field: Field<'_>) -> Option<Value> {
        if self.style == Style::V2 {
            return None;
        }
        let marked =
            DEFAULTS.iter().find(|(ty, name, _)| *name == field.name() && owner.strip_prefix(CORE) == Some(*ty));
        match (marked, field.value().kind()) {
            (Some((.., default)), _) => Some((*default).into()),
            (None, Kind::Scalar(scalar)) if field.required() => zero(scalar),
            _ => None,
        }
    }

    fn value(&mut self, value: ValueRef<'_>) -> Value {
        match value.kind() {
            Kind::Scalar(scalar) => self.scalar(scalar),
            Kind::Object(ty) => {
                self.add(ty);
                self.style.reference(ty.full_name())
            }
            Kind::List(item) => json!({"type": "array", "items": self.inner(item)}),
            Kind::Map(item) => json!({"type": "object", "additionalProperties": self.inner(item)}),
        }
    }

    fn inner(&mut self, value: ValueRef<'_>) -> Value {
        let mut inner = self.value(value);
        if self.style == Style::V2 {
            return inner;
        }
        if inner.get("$ref").is_some() {
            return json!({"allOf": [inner], "default": {}});
        }
        if let (Kind::Scalar(scalar), Some(map)) = (value.kind(), inner.as_object_mut())
            && let Some(zero) = zero(scalar)
        {
            map.insert("default", zero);
        }
        inner
    }

    fn scalar(&mut self, scalar: Scalar) -> Value {
        let named = |name: &str| Some(name.to_owned());
        let name = match scalar {
            Scalar::String => return json!({"type": "string"}),
            Scalar::Int32 => return json!({"type": "integer", "format": "int32"}),
            Scalar::Int64 => return json!({"type": "integer", "format": "int64"}),
            Scalar::Bool => return json!({"type": "boolean"}),
            Scalar::Number => return json!({"type": "number", "format": "double"}),
            Scalar::Bytes => return json!({"type": "string", "format": "byte"}),
            Scalar::Any => return json!({}),
            Scalar::RawObject => return json!({"type": "object"}),
            Scalar::Quantity => named(QUANTITY),
            Scalar::IntOrString => named(INT_OR_STRING),
            Scalar::Time => named(TIME),
            Scalar::MicroTime => named(MICRO_TIME),
        }
        .unwrap_or_default();
        if !self.found.contains_key(&name) {
            let mut definition = match (scalar, self.style) {
                (Scalar::Quantity, Style::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
                (Scalar::Quantity, Style::V2) => json!({"type": "string"}),
                (Scalar::IntOrString, Style::V3) => {
                    json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
                }
                (Scalar::IntOrString, Style::V2) => json!({"type": "string", "format": "int-or-string"}),
                _ => json!({"type": "string", "format": "date-time"}),
            };
            if let Some(description) = self.descriptions.of_type(&name) {
                definition["description"] = description.into();
            }
            self.found.insert(name.clone(), definition);
        }
        self.style.reference(&name)
    }
}

/// What the fields of every kind and list mean, for types that have no description of their own.
fn of_every_kind(field: &str) -> Option<&'static str> {
    Some(match field {
        "apiVersion" => "The version of the schema that the object is in.",
        "kind" => "The kind of the object.",
        "metadata" => "Standard metadata.",
        "items" => "The objects in the list.",
        _ => return None,
    })
}
