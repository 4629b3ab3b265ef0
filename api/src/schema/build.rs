//! Schemas made at run time, for custom resources.

use super::places::Places;
use super::table::intern;
use super::{
    Base, Extras, FieldRow, Level, ListType, Nothing, Scalar, Schema, Shape, Strategy, TypeRef, TypeRow, WRAP_LIST,
    WRAP_MAP, prefix,
};
use crate::gvk::{Gvk, Symbol};

/// A type of a schema that is being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeId(Base);

/// A field to be added.
#[derive(Debug, Clone)]
pub struct FieldSpec {
    name: Symbol,
    shape: Shape,
    required: bool,
    atomic: bool,
    extras: Extras,
}

impl FieldSpec {
    /// A field that holds a scalar.
    pub fn scalar(name: &str, scalar: Scalar) -> Self {
        Self::new(name, Base::Scalar(scalar))
    }
    /// A field that holds a structure.
    pub fn object(name: &str, ty: TypeId) -> Self {
        Self::new(name, ty.0)
    }
    fn new(name: &str, base: Base) -> Self {
        Self {
            name: name.into(),
            shape: Shape { base, wraps: 0 },
            required: false,
            atomic: false,
            extras: Extras::default(),
        }
    }
    fn wrap(mut self, wrap: u8) -> Self {
        let level = Level {
            atomic: std::mem::take(&mut self.atomic),
            list_type: self.extras.list_type.take().unwrap_or(ListType::Atomic),
            list_keys: std::mem::take(&mut self.extras.list_keys),
        };
        if level != Level::PLAIN || !self.extras.inner.is_empty() {
            self.extras.inner.insert(0, level);
        }
        // Four levels fit; what is deeper is not described, and so is taken as it comes.
        if self.shape.wraps >> 6 == 0 {
            self.shape.wraps = self.shape.wraps << 2 | wrap;
        } else {
            self.shape = Shape { base: Base::Scalar(Scalar::Any), wraps: 0 };
            self.extras.inner.clear();
        }
        self
    }
    /// Its name in JSON.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// A list of what it was.
    pub fn list(self) -> Self {
        self.wrap(WRAP_LIST)
    }
    /// A map of what it was.
    pub fn map(self) -> Self {
        self.wrap(WRAP_MAP)
    }
    /// It must be given.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }
    /// The map or structure is applied as one value.
    pub fn atomic(mut self) -> Self {
        self.atomic = true;
        self
    }
    /// How the list is applied, and its keys.
    pub fn list_type(mut self, list_type: ListType, keys: &[&str]) -> Self {
        self.extras.list_type = Some(list_type);
        self.extras.list_keys = keys.iter().map(|key| Symbol::from(*key)).collect();
        self
    }
    /// What stands there where nothing is given.
    pub fn default(mut self, default: Option<crate::json::Value>) -> Self {
        self.extras.default = default;
        self
    }
    /// How a strategic merge patch treats it.
    pub fn strategy(mut self, strategy: Strategy, merge_key: Option<&str>) -> Self {
        self.extras.strategy = strategy;
        self.extras.merge_key = merge_key.map(Symbol::from);
        self
    }
}

/// Collects types into a [`Schema`].
#[derive(Debug)]
pub struct Builder {
    schema: Schema,
}

impl Default for Builder {
    fn default() -> Self {
        Self { schema: Schema { extras: vec![Extras::default()], ..Schema::default() } }
    }
}

impl Builder {
    /// A built-in type to refer to.
    pub fn builtin(ty: TypeRef<'static>) -> TypeId {
        TypeId(Base::Builtin(ty.index))
    }

    /// Adds a structure. `keeps_unknown`: fields not named here are kept as they are.
    pub fn add(&mut self, name: &str, mut fields: Vec<FieldSpec>, keeps_unknown: bool) -> TypeId {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        fields.dedup_by(|a, b| a.name == b.name);
        let index = self.schema.types.len() as u32;
        self.schema.types.push(TypeRow {
            name: name.into(),
            first_field: self.schema.fields.len() as u32,
            field_count: fields.len() as u32,
            atomic: false,
            keeps_unknown,
            shown: 0,
        });
        for FieldSpec { name, shape, required, atomic, extras } in fields {
            let extras = intern(&mut self.schema, extras);
            self.schema.fields.push(FieldRow {
                prefix: prefix(&name),
                name,
                shape,
                required,
                atomic,
                gated: false,
                nothing: Nothing::Kept,
                extras,
            });
        }
        TypeId(Base::Own(index))
    }

    /// Says which kind a structure of this schema is.
    pub fn kind(&mut self, gvk: Gvk, ty: TypeId) {
        if let TypeId(Base::Own(index)) = ty {
            self.schema.kinds.push((gvk, index));
        }
    }

    /// The finished schema.
    pub fn finish(mut self) -> Schema {
        self.schema.kinds.sort();
        self.schema.places = Places::of(&self.schema.types, &self.schema.fields);
        self.schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Kind, named};

    #[test]
    fn a_custom_resource_refers_to_builtin_types() {
        let mut builder = Builder::default();
        let meta = named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap();
        let spec = builder.add(
            "io.example.v1.WidgetSpec",
            vec![FieldSpec::scalar("sizes", Scalar::Int64).list().map()],
            false,
        );
        let fields = vec![FieldSpec::object("spec", spec), FieldSpec::object("metadata", Builder::builtin(meta))];
        let widget = builder.add("io.example.v1.Widget", fields, true);
        let gvk = Gvk::of("example.io", "v1", "Widget");
        builder.kind(gvk.clone(), widget);
        let schema = builder.finish();
        let widget = schema.of(&gvk).unwrap();
        let metadata = widget.field("metadata").unwrap().value().object().unwrap();
        assert!(metadata.field("finalizers").unwrap().strategy().merge && widget.keeps_unknown());
        let sizes = widget.field("spec").unwrap().value().object().unwrap().field("sizes").unwrap();
        let Kind::Map(inner) = sizes.value().kind() else { panic!("{sizes:?}") };
        assert!(matches!(inner.kind(), Kind::List(_)));
    }
}
