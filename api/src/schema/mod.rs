//! What fields a kind has, and how each is checked, merged and applied.
//!
//! ```text
//!   Schema (an arena) ── of(gvk) ──► TypeRef ── field(name) ──► Field ── value() ──► ValueRef ── kind() ──► Kind
//!                                       ▲                                                                   │
//!                                       └──────────────────────── Kind::Object ◄────────────────────────────┘
//! ```
//!
//! The built-in kinds of v1.36 are one table ([`builtin`]) read on first use. Custom resources bring a [`Schema`] of their
//! own, built at run time with [`Builder`]; its types may refer to built-in ones, such as ObjectMeta. All handles are
//! borrowed and `Copy`: nothing is allocated to walk a schema.

mod build;
mod names;
mod places;
mod table;

use std::sync::LazyLock;

pub use build::{Builder, FieldSpec, TypeId};
pub use names::symbol;

use crate::gvk::{Gvk, Symbol};
use places::Places;

static BUILTIN: LazyLock<Schema> = LazyLock::new(|| table::read(include_str!("../../schema/v1.36.txt")));

/// The built-in kinds.
pub fn builtin() -> &'static Schema {
    &BUILTIN
}

/// The type of a built-in kind.
pub fn of(gvk: &Gvk) -> Option<TypeRef<'static>> {
    BUILTIN.of(gvk)
}

/// A structure of the built-in schema by its published name, `io.k8s.api.core.v1.PodSpec`.
pub fn named(name: &str) -> Option<TypeRef<'static>> {
    BUILTIN.named(name)
}

/// Many types in one arena.
#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<TypeRow>,
    fields: Vec<FieldRow>,
    /// What few fields have: list types, keys, strategies. Index 0 means none of it.
    extras: Vec<Extras>,
    /// Sorted by (group, version, kind).
    kinds: Vec<(Gvk, u32)>,
    /// Where fields stand; made when all are there.
    places: Places,
}

#[derive(Debug)]
struct TypeRow {
    /// The published name, `io.k8s.api.core.v1.PodSpec`.
    name: Symbol,
    first_field: u32,
    field_count: u32,
    atomic: bool,
    keeps_unknown: bool,
    /// Bits of the fields that are always shown.
    shown: u128,
}

#[derive(Debug)]
struct FieldRow {
    name: Symbol,
    /// The name's first bytes as a number, which compares as they do.
    prefix: u64,
    shape: Shape,
    required: bool,
    atomic: bool,
    gated: bool,
    nothing: Nothing,
    extras: u16,
}

#[derive(Debug, Default, Clone, PartialEq)]
struct Extras {
    list_type: Option<ListType>,
    list_keys: Vec<Symbol>,
    strategy: Strategy,
    merge_key: Option<Symbol>,
    default: Option<crate::json::Value>,
    /// How the values inside are applied, the outermost first; nothing is said of those that are missing.
    inner: Vec<Level>,
}

/// How server-side apply takes a value that is inside a list or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// The map or structure is applied as one value.
    pub atomic: bool,
    /// How the list is merged.
    pub list_type: ListType,
    /// What tells the items of a [`ListType::Map`] apart.
    pub list_keys: Vec<Symbol>,
}

impl Level {
    const PLAIN: Level = Level { atomic: false, list_type: ListType::Atomic, list_keys: Vec::new() };
}

/// A value's form: a scalar or a structure, inside up to four lists and maps (two bits each, the outermost lowest).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    base: Base,
    wraps: u8,
}

const WRAP_LIST: u8 = 1;
const WRAP_MAP: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Scalar(Scalar),
    /// A type of the same arena.
    Own(u32),
    /// A type of the built-in arena, from another one.
    Builtin(u32),
}

/// What becomes of a field that holds nothing: no text, 0, false, an empty list or map. Upstream reads objects into Go's
/// structures and writes them from there, so that it follows from how the field is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nothing {
    /// It stays as it was given (a pointer with `omitempty`).
    #[default]
    Kept,
    /// It is left out (`omitempty`, `omitzero`).
    Dropped,
    /// It is there, even when it was not given: an empty text, 0, false, a structure with what such structures always show.
    Zero,
    /// It is there as null, even when it was not given; so is an empty list or map.
    Null,
}

/// Values without fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// Text.
    String,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// true or false.
    Bool,
    /// Any number.
    Number,
    /// `100m`, `1Gi`, also written as a number.
    Quantity,
    /// A number of 32 bits, or text.
    IntOrString,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Base64.
    Bytes,
    /// Any JSON value.
    Any,
    /// Any JSON object (RawExtension, FieldsV1).
    RawObject,
}

/// What a value is.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'s> {
    /// A value without fields.
    Scalar(Scalar),
    /// A structure.
    Object(TypeRef<'s>),
    /// A list of values.
    List(ValueRef<'s>),
    /// A map from text to values.
    Map(ValueRef<'s>),
}

/// How a list is merged by server-side apply (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    Atomic,
    /// Unique scalars.
    Set,
    /// Objects told apart by their keys.
    Map,
}

/// How a field takes part in a strategic merge patch (`x-kubernetes-patch-strategy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strategy {
    /// Lists are merged, not replaced.
    pub merge: bool,
    /// Fields that `$retainKeys` does not name are removed.
    pub retain_keys: bool,
    /// The patch's value stands as it is, even for a map.
    pub replace: bool,
}

impl Scalar {
    /// The zero value of Go's type.
    pub fn zero(self) -> crate::json::Value {
        match self {
            Scalar::String => "".into(),
            Scalar::Int32 | Scalar::Int64 | Scalar::Number | Scalar::IntOrString => 0.into(),
            Scalar::Bool => false.into(),
            Scalar::Quantity => "0".into(),
            Scalar::Time | Scalar::MicroTime | Scalar::Bytes | Scalar::Any | Scalar::RawObject => {
                crate::json::Value::Null
            }
        }
    }
}

impl Schema {
    /// The type of a kind.
    pub fn of(&self, gvk: &Gvk) -> Option<TypeRef<'_>> {
        let find = |group: &str, version: &str| {
            let key = (group, version, &*gvk.kind);
            self.kinds.binary_search_by(|(k, _)| (&*k.group, &*k.version, &*k.kind).cmp(&key)).ok()
        };
        let at = find(&gvk.group, &gvk.version).or_else(|| find("*", "*"))?;
        Some(TypeRef { schema: self, index: self.kinds[at].1 })
    }

    /// A type by its published name.
    pub fn named(&self, name: &str) -> Option<TypeRef<'_>> {
        // Types stand sorted in the built-in table; a custom resource has few.
        let index = self.types.binary_search_by(|row| (*row.name).cmp(name)).ok();
        let index = index.or_else(|| self.types.iter().position(|row| row.name == name))?;
        Some(TypeRef { schema: self, index: index as u32 })
    }

    /// Every kind and its type.
    pub fn kinds(&self) -> impl Iterator<Item = (&Gvk, TypeRef<'_>)> {
        self.kinds.iter().map(|(gvk, index)| (gvk, TypeRef { schema: self, index: *index }))
    }
}

/// A structure.
#[derive(Clone, Copy)]
pub struct TypeRef<'s> {
    schema: &'s Schema,
    index: u32,
}

impl<'s> TypeRef<'s> {
    fn row(self) -> &'s TypeRow {
        &self.schema.types[self.index as usize]
    }

    fn rows(self) -> (usize, &'s [FieldRow]) {
        let row = self.row();
        let first = row.first_field as usize;
        (first, &self.schema.fields[first..first + row.field_count as usize])
    }

    /// The published name, `io.k8s.api.core.v1.PodSpec`.
    pub fn full_name(self) -> &'s str {
        &self.row().name
    }

    /// The name alone, `PodSpec`.
    pub fn name(self) -> &'s str {
        let name = self.full_name();
        name.rsplit('.').next().unwrap_or(name)
    }

    /// The package the type is in, which is its API version: `v1`.
    pub fn package(self) -> &'s str {
        self.full_name().rsplit('.').nth(1).unwrap_or_default()
    }

    /// A field by its name, letter for letter.
    pub fn field(self, name: &str) -> Option<Field<'s>> {
        let prefix = prefix(name);
        let Schema { fields, places, .. } = self.schema;
        if !places.is_empty() {
            let index = places.find(self.row(), fields, prefix, name)?;
            return Some(Field { schema: self.schema, index });
        }
        let (first, rows) = self.rows();
        let start = rows.partition_point(|row| row.prefix < prefix);
        let same = rows[start..].iter().take_while(|row| row.prefix == prefix);
        let at = start + same.take_while(|row| row.name.len() != name.len() || *row.name != *name).count();
        let found = rows.get(at).is_some_and(|row| row.prefix == prefix);
        found.then_some(Field { schema: self.schema, index: (first + at) as u32 })
    }

    /// All fields, sorted by name.
    pub fn fields(self) -> impl Iterator<Item = Field<'s>> {
        let (first, rows) = self.rows();
        (0..rows.len()).map(move |i| Field { schema: self.schema, index: (first + i) as u32 })
    }

    /// Whether server-side apply takes the structure as one value (`x-kubernetes-map-type: atomic`).
    pub fn atomic(self) -> bool {
        self.row().atomic
    }

    /// Bits of the fields, by [`Field::nth`], that are there whether they were given or not.
    pub fn shown(self) -> u128 {
        self.row().shown
    }

    /// The field that stands at a place among the structure's.
    pub fn nth(self, nth: u32) -> Option<Field<'s>> {
        let row = self.row();
        (nth < row.field_count).then_some(Field { schema: self.schema, index: row.first_field + nth })
    }

    /// The structure of which nothing was given.
    pub fn zero(self) -> crate::json::Value {
        let mut zero = crate::json::Map::new();
        let mut shown = self.shown();
        while shown != 0 {
            zero.extend(self.nth(shown.trailing_zeros()).map(|field| (field.symbol(), field.zero())));
            shown &= shown - 1;
        }
        zero.into()
    }

    /// Whether fields that the schema does not name are kept (`x-kubernetes-preserve-unknown-fields`).
    pub fn keeps_unknown(self) -> bool {
        self.row().keeps_unknown
    }

    /// The structure as a value.
    pub fn value(self) -> ValueRef<'s> {
        ValueRef { schema: self.schema, shape: Shape { base: Base::Own(self.index), wraps: 0 } }
    }
}

/// The first eight bytes of a name, filled up with zeros.
pub(crate) fn prefix(name: &str) -> u64 {
    let bytes = name.as_bytes();
    if let Some(eight) = bytes.first_chunk() {
        return u64::from_be_bytes(*eight);
    }
    let unused = 64 - 8 * bytes.len() as u32;
    match (bytes.first_chunk(), bytes.last_chunk()) {
        // What both have is the same.
        (Some(first), Some(last)) => {
            u64::from(u32::from_be_bytes(*first)) << 32 | u64::from(u32::from_be_bytes(*last)) << unused
        }
        _ => bytes.iter().rev().fold(0, |number, byte| (number >> 8) | u64::from(*byte) << 56),
    }
}

impl std::fmt::Debug for TypeRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.full_name())
    }
}

/// A field of a structure.
#[derive(Clone, Copy)]
pub struct Field<'s> {
    schema: &'s Schema,
    index: u32,
}

impl<'s> Field<'s> {
    fn row(self) -> &'s FieldRow {
        &self.schema.fields[self.index as usize]
    }

    fn extras(self) -> &'s Extras {
        &self.schema.extras[usize::from(self.row().extras)]
    }

    /// Where it stands among the fields of the structure that it was found in.
    pub fn nth(self, of: TypeRef<'_>) -> u32 {
        self.index - of.row().first_field
    }

    /// Its bit among those of the structure that it was found in; none behind the 128th field.
    pub fn bit(self, of: TypeRef<'_>) -> u128 {
        1_u128.checked_shl(self.nth(of)).unwrap_or(0)
    }

    /// Its name in JSON.
    pub fn name(self) -> &'s str {
        &self.row().name
    }
    /// Its name, to be kept.
    pub fn symbol(self) -> Symbol {
        self.row().name.clone()
    }
    /// What it holds.
    pub fn value(self) -> ValueRef<'s> {
        ValueRef { schema: self.schema, shape: self.row().shape }
    }
    /// Whether it must be given.
    pub fn required(self) -> bool {
        self.row().required
    }
    /// Whether server-side apply takes the map or structure here as one value.
    pub fn atomic(self) -> bool {
        self.row().atomic
    }
    /// Whether upstream leaves the field out of what is written, for its feature gate is off by default: clients may give it
    /// without being told that it is unknown, and it is described as any other.
    pub fn gated_off(self) -> bool {
        self.row().gated
    }
    /// What becomes of it when it holds nothing; custom resources are kept as they are.
    pub fn nothing(self) -> Nothing {
        self.row().nothing
    }
    /// What stands here when nothing was given, where that is something.
    pub fn zero(self) -> crate::json::Value {
        match (self.nothing(), self.value().kind()) {
            (Nothing::Zero, Kind::Object(ty)) => ty.zero(),
            (Nothing::Zero, Kind::Scalar(scalar)) => scalar.zero(),
            _ => crate::json::Value::Null,
        }
    }
    /// How server-side apply merges the list here. Atomic when nothing is said.
    pub fn list_type(self) -> Option<ListType> {
        self.extras().list_type
    }
    /// What tells the items of a [`ListType::Map`] apart.
    pub fn list_keys(self) -> &'s [Symbol] {
        &self.extras().list_keys
    }
    /// How the values inside the list or map here are applied, the outermost first; plainly where nothing is said.
    pub fn inner_levels(self) -> &'s [Level] {
        &self.extras().inner
    }
    /// How a strategic merge patch treats the value here.
    pub fn strategy(self) -> Strategy {
        self.extras().strategy
    }
    /// What stands here where nothing is given; only custom resources tell.
    pub fn default(self) -> Option<&'s crate::json::Value> {
        self.extras().default.as_ref()
    }
    /// What tells the items of a merged list of objects apart in a strategic merge patch.
    pub fn merge_key(self) -> Option<&'s str> {
        self.extras().merge_key.as_deref()
    }
}

impl std::fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.name(), self.value())
    }
}

/// A value's form.
#[derive(Clone, Copy)]
pub struct ValueRef<'s> {
    schema: &'s Schema,
    shape: Shape,
}

impl<'s> ValueRef<'s> {
    /// What the value is.
    pub fn kind(self) -> Kind<'s> {
        let Shape { base, wraps } = self.shape;
        let inner = ValueRef { shape: Shape { base, wraps: wraps >> 2 }, ..self };
        match (wraps & 3, base) {
            (WRAP_LIST, _) => Kind::List(inner),
            (WRAP_MAP, _) => Kind::Map(inner),
            (_, Base::Scalar(scalar)) => Kind::Scalar(scalar),
            (_, Base::Own(index)) => Kind::Object(TypeRef { schema: self.schema, index }),
            (_, Base::Builtin(index)) => Kind::Object(TypeRef { schema: builtin(), index }),
        }
    }

    /// The structure, if the value is one.
    pub fn object(self) -> Option<TypeRef<'s>> {
        match self.kind() {
            Kind::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Whether the value is a map or a structure.
    pub fn is_mapping(self) -> bool {
        matches!(self.kind(), Kind::Object(_) | Kind::Map(_))
    }
}

impl std::fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind() {
            Kind::Scalar(scalar) => write!(f, "{scalar:?}"),
            Kind::Object(object) => write!(f, "{object:?}"),
            Kind::List(item) => write!(f, "[{item:?}]"),
            Kind::Map(value) => write!(f, "{{{value:?}}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_the_first_eight_bytes() {
        for name in ["", "a", "ab", "abc", "spec", "names", "status", "volumes", "metadata", "containers", "ü", "aüö"]
        {
            let mut bytes = [0; 8];
            name.bytes().zip(&mut bytes).for_each(|(byte, place)| *place = byte);
            assert_eq!(prefix(name), u64::from_be_bytes(bytes), "{name}");
        }
    }

    #[test]
    fn the_builtin_table_reads() {
        let deployment = of(&Gvk::of("apps", "v1", "Deployment")).unwrap();
        assert_eq!((deployment.name(), deployment.package()), ("Deployment", "v1"));
        let spec = deployment.field("spec").unwrap().value().object().unwrap();
        assert!(matches!(spec.field("replicas").unwrap().value().kind(), Kind::Scalar(Scalar::Int32)));
        assert!(spec.field("Replicas").is_none());
        assert!(spec.field("strategy").unwrap().strategy().retain_keys);
        let pod =
            spec.field("template").unwrap().value().object().unwrap().field("spec").unwrap().value().object().unwrap();
        let containers = pod.field("containers").unwrap();
        assert_eq!(
            (containers.merge_key(), containers.list_type(), containers.required()),
            (Some("name"), Some(ListType::Map), true)
        );
        assert!(containers.strategy().merge);
        assert!(pod.field("nodeSelector").unwrap().atomic());
        assert_eq!(named("io.k8s.api.core.v1.PodSpec").unwrap().full_name(), pod.full_name());
        assert!(of(&Gvk::of("apps", "v1", "DeleteOptions")).is_some() && of(&Gvk::of("apps", "v1", "Pod")).is_none());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let mut fields = 0;
        for (_, ty) in builtin().kinds() {
            for field in ty.fields() {
                assert!(!format!("{field:?}").is_empty());
                fields += 1;
            }
        }
        assert!(fields > 500);
    }
}
