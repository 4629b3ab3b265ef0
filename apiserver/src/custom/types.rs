//! The types of a custom resource in the common schema, for merging and applying.

use super::structural::{Additional, Items, Node, Type};
use crate::registry::reading_name;
use coracle_api::Gvk;
use coracle_api::schema::{self, Builder, FieldSpec, ListType, Scalar, Schema, TypeId, TypeRef};

/// The schema of one version: the kind's own type, and the one that documents are read by.
pub fn schema(gvk: &Gvk, node: &Node) -> Schema {
    let mut builder = Builder::default();
    let mut fields: Vec<_> = node.properties.iter().map(|(name, node)| field(&mut builder, name, node)).collect();
    fields.retain(|field| !matches!(field.name(), "apiVersion" | "kind" | "metadata"));
    fields.extend(type_meta());
    let own = builder.add(&format!("{}.{}.{}", gvk.group, gvk.version, gvk.kind), fields, node.preserves);
    builder.kind(gvk.clone(), own);
    builder.add(&reading_name(gvk), type_meta(), true);
    builder.finish()
}

/// What every object has.
fn type_meta() -> Vec<FieldSpec> {
    let mut fields = vec![FieldSpec::scalar("apiVersion", Scalar::String), FieldSpec::scalar("kind", Scalar::String)];
    fields.extend(object_meta().map(|ty| FieldSpec::object("metadata", Builder::builtin(ty))));
    fields
}

fn object_meta() -> Option<TypeRef<'static>> {
    schema::named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
}

fn field(builder: &mut Builder, name: &str, node: &Node) -> FieldSpec {
    let field = match (node.ty, &node.items, &node.additional) {
        _ if node.int_or_string => FieldSpec::scalar(name, Scalar::IntOrString),
        (Type::Array, Some(items), _) => {
            let field = field(builder, name, items).list();
            match &node.list {
                Items::Atomic => field.list_type(ListType::Atomic, &[]),
                Items::Set => field.list_type(ListType::Set, &[]),
                Items::Map(keys) => {
                    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                    field.list_type(ListType::Map, &keys)
                }
            }
        }
        (Type::Object, _, Additional::Schema(values)) => field(builder, name, values).map(),
        // What is kept without being known is told apart field by field all the same.
        (Type::Object, ..) if !node.properties.is_empty() || node.embedded || node.preserves => {
            FieldSpec::object(name, object(builder, name, node))
        }
        (Type::Object, ..) => FieldSpec::scalar(name, Scalar::RawObject),
        (Type::String, ..) => FieldSpec::scalar(name, Scalar::String),
        (Type::Integer, ..) => FieldSpec::scalar(name, Scalar::Int64),
        (Type::Number, ..) => FieldSpec::scalar(name, Scalar::Number),
        (Type::Boolean, ..) => FieldSpec::scalar(name, Scalar::Bool),
        (Type::Any | Type::Array, ..) => FieldSpec::scalar(name, Scalar::Any),
    };
    let field = if node.atomic_map { field.atomic() } else { field };
    // Only scalars can be keys, and what else is a default may be large.
    let scalar = |value: &&coracle_api::json::Value| !value.is_object() && !value.is_array();
    field.default(node.default.as_ref().filter(scalar).cloned())
}

fn object(builder: &mut Builder, name: &str, node: &Node) -> TypeId {
    let mut fields: Vec<_> = node.properties.iter().map(|(name, node)| field(builder, name, node)).collect();
    if node.embedded {
        fields.retain(|field| !matches!(field.name(), "apiVersion" | "kind" | "metadata"));
        fields.extend(type_meta());
    }
    builder.add(name, fields, node.preserves)
}
