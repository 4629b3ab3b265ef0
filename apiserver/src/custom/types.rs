//! The types of a custom resource in the common schema, for merging and applying.

use super::structural::{Additional, Items, Node, Type};
use crate::registry::reading_name;
use coracle_api::Gvk;
use coracle_api::schema::{self, Builder, FieldSpec, ListType, Scalar, Schema, TypeId, TypeRef};

/// The schema of one version: the kind's own type, and the one that documents are read by.
pub fn schema(gvk: &Gvk, node: &Node) -> Schema {
    let mut builder = Builder::default();
    let keeps = node.preserves;
    let mut fields: Vec<_> =
        node.properties.iter().map(|(name, node)| field(&mut builder, name, node, keeps)).collect();
    fields.retain(|field| !matches!(field.name(), "apiVersion" | "kind" | "metadata"));
    fields.extend(type_meta());
    let own = builder.add(&format!("{}.{}.{}", gvk.group, gvk.version, gvk.kind), fields, keeps);
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

/// The field that a node is. `preserved`: a node around it keeps unknown fields, and so do all below one that does
/// (kube-openapi `schemaconv/openapi.go`).
fn field(builder: &mut Builder, name: &str, node: &Node, preserved: bool) -> FieldSpec {
    let keeps = preserved || node.preserves;
    let field = match (node.ty, &node.items, &node.additional) {
        _ if node.int_or_string => FieldSpec::scalar(name, Scalar::IntOrString),
        (Type::Array, Some(items), _) => {
            let field = field(builder, name, items, keeps).list();
            match &node.list {
                Items::Atomic => field.list_type(ListType::Atomic, &[]),
                Items::Set => field.list_type(ListType::Set, &[]),
                Items::Map(keys) => {
                    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                    field.list_type(ListType::Map, &keys)
                }
            }
        }
        (Type::Object, _, Additional::Schema(values)) => field(builder, name, values, keeps).map(),
        (Type::Object, ..) => FieldSpec::object(name, object(builder, name, node, keeps)),
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

/// What an object's node does not name is told apart field by field where it is kept; where nothing is named, anything may
/// be there.
fn object(builder: &mut Builder, name: &str, node: &Node, keeps: bool) -> TypeId {
    let mut fields: Vec<_> = node.properties.iter().map(|(name, node)| field(builder, name, node, keeps)).collect();
    let free = fields.is_empty() && !node.embedded || matches!(node.additional, Additional::Any);
    if node.embedded {
        fields.retain(|field| !matches!(field.name(), "apiVersion" | "kind" | "metadata"));
        fields.extend(type_meta());
    }
    builder.add(name, fields, keeps || free)
}
