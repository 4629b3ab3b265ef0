//! What a schema's values are to rules (apiserver `cel/common` `SchemaDeclType`): types, and how much of each there can be.

use super::types::Type;
use crate::custom::structural::{Additional, Node, Type as Kind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The largest object that there can be.
const REQUEST_MAX: u64 = 3 << 20;

/// A value as rules see it.
#[derive(Debug, Clone)]
pub struct Declared {
    pub ty: Type,
    /// The most items, entries or bytes.
    pub most: u64,
    /// The fewest bytes in JSON.
    pub least_bytes: u64,
    pub fields: BTreeMap<String, Arc<Declared>>,
    pub key: Option<Arc<Declared>>,
    pub item: Option<Arc<Declared>>,
    /// As an item of a map it is as large where it is selected by its name.
    pub by_name: bool,
}

impl Declared {
    pub fn simple(ty: Type, most: u64, least_bytes: u64) -> Self {
        Self { ty, most, least_bytes, fields: BTreeMap::new(), key: None, item: None, by_name: false }
    }

    pub fn map_of(key: Self, item: Self, most: u64) -> Self {
        let ty = Type::map(key.ty.clone(), item.ty.clone());
        Self { key: Some(Arc::new(key)), item: Some(Arc::new(item)), ..Self::simple(ty, most, 2) }
    }

    /// The value that a node is of, and the name that its type gets; None where rules do not see it. `resource`: it is
    /// one, whatever the node says.
    pub fn of(node: &Node, resource: bool, name: &str) -> Option<Self> {
        if node.int_or_string {
            let most = node.checks.max_length.map_or(REQUEST_MAX - 2, |length| length.saturating_mul(4));
            return Some(Self::simple(Type::Dyn, most, 1));
        }
        Some(match node.ty {
            Kind::Any => return None,
            Kind::Boolean => Self::simple(Type::Bool, 0, 4),
            Kind::Number => Self::simple(Type::Double, 0, 1),
            Kind::Integer => Self::simple(Type::Int, 0, 1),
            Kind::String => Self::text(node),
            Kind::Array => {
                let item = node.items.as_deref()?;
                let item = Self::of(item, item.embedded, &format!("{name}.@idx"))?;
                let most = node.checks.max_items.unwrap_or((REQUEST_MAX - 2) / (item.least_bytes + 1));
                let ty = Type::list(item.ty.clone());
                Self { item: Some(Arc::new(item)), ..Self::simple(ty, most, 2) }
            }
            Kind::Object => match &node.additional {
                Additional::Schema(values) => Self::map(node, values, name)?,
                _ => Self::object(node, resource, name),
            },
        })
    }

    fn map(node: &Node, values: &Node, name: &str) -> Option<Self> {
        let item = Self::of(values, values.embedded, &format!("{name}.@elem"))?;
        let most = node.checks.max_properties.unwrap_or((REQUEST_MAX - 2) / (item.least_bytes + 6));
        Some(Self::map_of(Self::simple(Type::String, 0, 2), item, most))
    }

    fn text(node: &Node) -> Self {
        let checks = &node.checks;
        let longest = checks.max_length;
        match checks.format.as_str() {
            "byte" => Self::simple(Type::Bytes, longest.unwrap_or(REQUEST_MAX - 2), 2),
            "duration" => Self::simple(Type::Duration, 32, 3),
            "date" => Self::simple(Type::Timestamp, 12, 12),
            "date-time" => Self::simple(Type::Timestamp, 32, 21),
            _ => {
                let listed = checks.allowed.iter().filter_map(|value| Some(value.as_str()?.len() as u64)).max();
                let listed = if checks.allowed.is_empty() { REQUEST_MAX - 2 } else { listed.unwrap_or(0) };
                // The length counts characters, of four bytes at most.
                Self::simple(Type::String, longest.map_or(listed, |length| length.saturating_mul(4)), 2)
            }
        }
    }

    fn object(node: &Node, resource: bool, name: &str) -> Self {
        let mut object = Self::simple(Type::Object(name.into()), 0, 2);
        let told = resource && !has_type_and_name(node);
        for (field, child) in &node.properties {
            if told && matches!(field.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            object.field(node, field, Self::of(child, child.embedded, &field_name(name, field)));
        }
        if told {
            let text = || Some(Self::simple(Type::String, REQUEST_MAX - 2, 2));
            let mut metadata = Self::simple(Type::Object(format!("{name}.metadata").into()), 0, 2);
            for field in ["name", "generateName"] {
                metadata.field(&Node::default(), field, text());
            }
            for field in ["apiVersion", "kind"] {
                object.field(node, field, text());
            }
            object.field(node, "metadata", Some(metadata));
        }
        object
    }

    fn field(&mut self, node: &Node, name: &str, value: Option<Self>) {
        let Some(value) = value else { return };
        let without_default = || node.properties.get(name).is_none_or(|child| child.default.is_none());
        if node.checks.required.iter().any(|required| required == name) && without_default() {
            self.least_bytes += name.len() as u64 + value.least_bytes + 4;
        }
        if let Some(name) = escape(name) {
            self.fields.insert(name, Arc::new(value));
        }
    }

    /// How often values of this kind can stand in one object.
    pub fn most_in_a_request(&self) -> u64 {
        REQUEST_MAX / (self.least_bytes + 1)
    }

    /// Every object type in here, by its name.
    pub fn objects(&self) -> std::collections::HashMap<std::sync::Arc<str>, &Declared> {
        let mut found = std::collections::HashMap::new();
        let mut next = vec![self];
        while let Some(declared) = next.pop() {
            if let Type::Object(name) = &declared.ty {
                found.insert(name.clone(), declared);
            }
            next.extend(declared.fields.values().map(|field| &**field));
            next.extend(declared.item.as_deref());
        }
        found
    }
}

fn field_name(of: &str, field: &str) -> String {
    format!("{of}.{}", escape(field).as_deref().unwrap_or(field))
}

/// Whether a resource's schema says itself what all have.
fn has_type_and_name(node: &Node) -> bool {
    let is = |name: &str, of: &Node, ty: Kind| of.properties.get(name).is_some_and(|child| child.ty == ty);
    is("kind", node, Kind::String)
        && is("apiVersion", node, Kind::String)
        && node.properties.get("metadata").is_some_and(|metadata| {
            metadata.ty == Kind::Object
                && is("name", metadata, Kind::String)
                && is("generateName", metadata, Kind::String)
        })
}

/// A field's name as rules write it, if they can (apiserver `cel/escaping.go`).
pub fn escape(name: &str) -> Option<String> {
    let starts = !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
    let goes_on = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'));
    (starts && goes_on).then(|| crate::custom::rules::escaped(name))
}
