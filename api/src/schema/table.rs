//! Reads the generated table.
//!
//! A type is a line `NAME KIND [A]` (KIND is `group/version/Kind`, `*/*/Kind` for every group, or `-`), followed by a line
//! ` field shape flags…` for each of its fields. Types and fields stand sorted by name. A shape is any number of `[` (list of)
//! and `{` (map of), then the number of a type or the letter of a scalar. Flags: `R` required, `A` atomic map,
//! `L=set`, `L=atomic`, `L=map:key,…`, `P=strategy,…:mergeKey`, `G` gated off; `E` left out when empty, `Z` always there, as its
//! zero when not given, `N` always there, as null.

use super::places::Places;
use super::{
    Base, Extras, FieldRow, ListType, Nothing, Scalar, Schema, Shape, Strategy, TypeRow, WRAP_LIST, WRAP_MAP, prefix,
};
use crate::gvk::{Gvk, Symbol};

pub(super) fn read(text: &'static str) -> Schema {
    let mut schema = Schema { extras: vec![Extras::default()], ..Schema::default() };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix(' ') {
            Some(field) => read_field(&mut schema, field),
            None => read_type(&mut schema, line),
        }
    }
    schema.kinds.sort();
    schema.types.shrink_to_fit();
    schema.fields.shrink_to_fit();
    schema.kinds.shrink_to_fit();
    schema.places = Places::of(&schema.types, &schema.fields);
    schema
}

fn read_type(schema: &mut Schema, line: &'static str) {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let mut parts = words.next().unwrap_or_default().split('/');
    if let (Some(group), Some(version), Some(kind)) = (parts.next(), parts.next(), parts.next()) {
        schema.kinds.push((Gvk::of(group, version, kind), schema.types.len() as u32));
    }
    schema.types.push(TypeRow {
        name: Symbol::new(name),
        first_field: schema.fields.len() as u32,
        field_count: 0,
        atomic: words.next() == Some("A"),
        keeps_unknown: false,
        shown: 0,
    });
}

fn read_field(schema: &mut Schema, line: &'static str) {
    let mut words = line.split(' ');
    let name = Symbol::new(words.next().unwrap_or_default());
    let shape = read_shape(words.next().unwrap_or_default());
    let (mut required, mut atomic, mut gated, mut nothing) = (false, false, false, Nothing::Kept);
    let mut extras = Extras::default();
    for flag in words {
        match flag.split_once('=') {
            None if flag == "R" => required = true,
            None if flag == "G" => gated = true,
            None if flag == "E" => nothing = Nothing::Dropped,
            None if flag == "Z" => nothing = Nothing::Zero,
            None if flag == "N" => nothing = Nothing::Null,
            None => atomic = true,
            Some(("L", list)) => read_list(&mut extras, list),
            Some((_, patch)) => read_patch(&mut extras, patch),
        }
    }
    let extras = intern(schema, extras);
    schema.fields.push(FieldRow { prefix: prefix(&name), name, shape, required, atomic, gated, nothing, extras });
    if let Some(owner) = schema.types.last_mut() {
        if matches!(nothing, Nothing::Zero | Nothing::Null) {
            owner.shown |= 1_u128.checked_shl(owner.field_count).unwrap_or(0);
        }
        owner.field_count += 1;
    }
}

/// The index of equal extras: a few dozen differ among thousands of fields.
pub(super) fn intern(schema: &mut Schema, extras: Extras) -> u16 {
    let found = schema.extras.iter().position(|known| *known == extras);
    let index = found.unwrap_or_else(|| {
        schema.extras.push(extras);
        schema.extras.len() - 1
    });
    // A schema has far fewer than 65,536 different sets; should one have more, the rest count as plain fields.
    u16::try_from(index).unwrap_or(0)
}

fn read_list(extras: &mut Extras, list: &'static str) {
    let (kind, keys) = list.split_once(':').unwrap_or((list, ""));
    extras.list_type = match kind {
        "set" => Some(ListType::Set),
        "map" => Some(ListType::Map),
        _ => Some(ListType::Atomic),
    };
    extras.list_keys = keys.split(',').filter(|key| !key.is_empty()).map(Symbol::new).collect();
}

fn read_patch(extras: &mut Extras, patch: &'static str) {
    let (strategies, key) = patch.split_once(':').unwrap_or((patch, ""));
    let has = |name: &str| strategies.split(',').any(|strategy| strategy == name);
    extras.strategy = Strategy { merge: has("merge"), retain_keys: has("retainKeys"), replace: has("replace") };
    extras.merge_key = (!key.is_empty()).then(|| Symbol::new(key));
}

fn read_shape(text: &str) -> Shape {
    let base = text.trim_start_matches(['[', '{']);
    let mut wraps = 0;
    for (depth, wrap) in text[..text.len() - base.len()].bytes().enumerate() {
        wraps |= (if wrap == b'[' { WRAP_LIST } else { WRAP_MAP }) << (2 * depth);
    }
    let base = match base {
        "s" => Base::Scalar(Scalar::String),
        "i" => Base::Scalar(Scalar::Int32),
        "l" => Base::Scalar(Scalar::Int64),
        "b" => Base::Scalar(Scalar::Bool),
        "d" => Base::Scalar(Scalar::Number),
        "q" => Base::Scalar(Scalar::Quantity),
        "x" => Base::Scalar(Scalar::IntOrString),
        "t" => Base::Scalar(Scalar::Time),
        "u" => Base::Scalar(Scalar::MicroTime),
        "B" => Base::Scalar(Scalar::Bytes),
        "o" => Base::Scalar(Scalar::RawObject),
        index => index.parse().map_or(Base::Scalar(Scalar::Any), Base::Own),
    };
    Shape { base, wraps }
}
