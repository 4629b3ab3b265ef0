//! From bytes to an object checked against its schema, in one pass.
//!
//! What the schema does not name is left out and, as the client wishes, refused or warned about; what has the wrong type is
//! refused. Times, quantities and numbers come out in canonical form, fields that are null or hold nothing are left out, and
//! others are there without being given, as Go's decoder and encoder leave them after a round trip ([`schema::Nothing`]).
//!
//! [`schema::Nothing`]: crate::schema::Nothing

mod conforming;
mod named;
mod problem;
mod refusal;
mod scalar;
#[cfg(test)]
mod tests;
mod text;
mod walk;
mod words;

use crate::json::{Map, Value};
use serde::de::DeserializeSeed;
use serde::{Deserializer, Serialize};

use crate::go;
use crate::json;
use crate::schema::{self, TypeRef};
use crate::status::Status;
use crate::yaml;
pub use refusal::unrecognized;
use refusal::{META, Refusal};
use walk::{AnyValue, Context, Walk};

/// Largest body that is read (apiserver `MaxRequestBodyBytes`).
pub const MAX_BYTES: usize = 3 * 1024 * 1024;

/// The encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// application/json
    Json,
    /// application/yaml
    Yaml,
}

/// What to do about unknown and duplicate fields (the query parameter `fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Refuse.
    Strict,
    /// Leave out and warn: the server's default.
    #[default]
    Warn,
    /// Leave out silently.
    Ignore,
}

impl FieldValidation {
    /// The value of the query parameter; empty is the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Strict" => Some(Self::Strict),
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            _ => None,
        }
    }
}

/// An object as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object, holding only what the schema names.
    pub object: Value,
    /// One line for each `Warning` header.
    pub warnings: Vec<String>,
    /// Fields that are null in the object, but were given as an empty list or map: whoever gives them owns them. By the names
    /// that lead to them; those in lists and maps are not told.
    pub empty: Vec<Vec<String>>,
}

/// Reads an object.
///
/// # Errors
/// 400 in upstream's words for what cannot be read, has the wrong type or, in strict mode, is unknown or given twice; 413
/// for more than [`MAX_BYTES`].
pub fn decode(bytes: &[u8], format: Format, ty: TypeRef<'_>, validation: FieldValidation) -> Result<Decoded, Status> {
    read(bytes, format, ty, How { validation, complete: true })
}

/// Reads a part of an object, to be merged into one: fields are there as they are given.
///
/// # Errors
/// As [`decode`].
pub fn partial(object: Value, ty: TypeRef<'_>, validation: FieldValidation) -> Result<Decoded, Status> {
    let how = How { validation, complete: false };
    run(ty, how, |context| Walk::new(ty, context).deserialize(object)).map_err(|refusal| refusal.into_status_of(ty))
}

#[derive(Clone, Copy)]
struct How {
    validation: FieldValidation,
    /// Fields that hold nothing are left out or there as Go's structures have them.
    complete: bool,
}

fn read(bytes: &[u8], format: Format, ty: TypeRef<'_>, how: How) -> Result<Decoded, Status> {
    if bytes.len() > MAX_BYTES {
        return Err(Status::too_large(&format!("limit is {MAX_BYTES}")));
    }
    let read = match format {
        Format::Json => read_json(bytes, ty, how),
        Format::Yaml => read_yaml(bytes, ty, how),
    };
    read.map_err(|refusal| refusal.into_status(ty, bytes))
}

fn read_json(bytes: &[u8], ty: TypeRef<'_>, how: How) -> Result<Decoded, Refusal> {
    // Looked at whole, text is checked faster than string by string; what is no text fails where it stops being so.
    let read = match std::str::from_utf8(bytes) {
        Ok(text) => from_json(&mut serde_json::Deserializer::from_str(text), ty, how),
        Err(_) => from_json(&mut serde_json::Deserializer::from_slice(bytes), ty, how),
    };
    match read {
        Err(Refusal::Unreadable(why)) => match words::why_no_json(bytes) {
            Some(words) => Err(Refusal::NoKind(words)),
            None => match text::repaired(bytes) {
                Some(text) => from_json(&mut serde_json::Deserializer::from_str(&text), ty, how),
                None => Err(Refusal::NoKind(why)),
            },
        },
        read => read,
    }
}

/// By way of JSON, in which no key stands twice: those of the document are told by another reader, before all else that is told
/// (apimachinery `runtime/serializer/json`).
fn read_yaml(bytes: &[u8], ty: TypeRef<'_>, how: How) -> Result<Decoded, Refusal> {
    let read = yaml::read(bytes).map_err(|error| Refusal::Unreadable(error.to_string()))?;
    let lines = if how.validation == FieldValidation::Ignore { Vec::new() } else { read.lines() };
    let is_strict = how.validation == FieldValidation::Strict;
    let twice = is_strict && !lines.is_empty();
    let validation = if twice { FieldValidation::Warn } else { how.validation };
    let how = How { validation, ..how };
    let mut decoded = run(ty, how, |context| Walk::new(ty, context).deserialize(read.value))?;
    if twice {
        decoded.warnings.insert(0, yaml::unmarshal_errors(&lines));
        return Err(Refusal::Strict(decoded.warnings));
    }
    decoded.warnings.splice(0..0, lines);
    Ok(decoded)
}

fn from_json<'de, R: serde_json::de::Read<'de>>(
    reader: &mut serde_json::Deserializer<R>,
    ty: TypeRef<'_>,
    how: How,
) -> Result<Decoded, Refusal> {
    run(ty, how, |context| {
        let object = Walk::new(ty, context).deserialize(&mut *reader)?;
        reader.end().map(|()| object)
    })
}

/// Any JSON, and what stands in it twice if that is asked for.
///
/// # Errors
/// Why it is none, in the words of Go's decoder.
pub fn any(bytes: &[u8], collect: bool) -> Result<(Value, Vec<String>), String> {
    let read = |text: &mut serde_json::Deserializer<serde_json::de::StrRead<'_>>| {
        let mut context = Context::new(collect, false);
        let read = AnyValue::new(&mut context).deserialize(&mut *text).and_then(|value| text.end().map(|()| value));
        match (read, context.wrong.take()) {
            (Ok(value), None) => Ok((value, context.problems.into_messages())),
            (_, Some(why)) => Err(why),
            (Err(error), None) => Err(error.to_string()),
        }
    };
    let first = match std::str::from_utf8(bytes) {
        Ok(text) => read(&mut serde_json::Deserializer::from_str(text)),
        Err(error) => Err(error.to_string()),
    };
    first.or_else(|why| match (words::why_no_json(bytes), text::repaired(bytes)) {
        (Some(words), _) => Err(words),
        (None, Some(text)) => read(&mut serde_json::Deserializer::from_str(&text)),
        (None, None) => Err(why),
    })
}

/// Checks an object that was made otherwise: by a patch, by a conversion.
///
/// # Errors
/// As [`decode`].
pub fn check(object: Value, ty: TypeRef<'_>, validation: FieldValidation) -> Result<Decoded, Status> {
    checked(object, ty, validation).map_err(|refusal| refusal.into_status_of(ty))
}

/// As [`check`].
///
/// # Errors
/// The reason alone, for those who say otherwise what it is the reason of.
pub(crate) fn examine(object: Value, ty: TypeRef<'_>, validation: FieldValidation) -> Result<Decoded, String> {
    checked(object, ty, validation).map_err(Refusal::why)
}

/// As [`examine`], in the words of the reader that goes from Go's maps to structures (apimachinery
/// `runtime.FromUnstructured`), where it has words of its own.
pub(crate) fn restore(object: Value, ty: TypeRef<'_>, validation: FieldValidation) -> Result<Decoded, String> {
    if conforms(&object, ty) {
        return Ok(Decoded { object, warnings: Vec::new(), empty: Vec::new() });
    }
    let mut context = Context::new(validation != FieldValidation::Ignore, true);
    let read: Result<Value, serde_json::Error> = Walk::new(ty, &mut context).deserialize(object);
    match (context.restoring.take(), context.wrong.take(), read) {
        (Some(why), ..) | (None, Some(why), _) => Err(why),
        (None, None, Ok(object)) => {
            let mut warnings = context.problems.into_messages();
            // Go's maps have no order.
            warnings.sort();
            Ok(Decoded { object, warnings, empty: context.empty })
        }
        (None, None, Err(error)) => Err(error.to_string()),
    }
}

fn checked(object: Value, ty: TypeRef<'_>, validation: FieldValidation) -> Result<Decoded, Refusal> {
    if conforms(&object, ty) {
        return Ok(Decoded { object, warnings: Vec::new(), empty: Vec::new() });
    }
    run(ty, How { validation, complete: true }, |context| Walk::new(ty, context).deserialize(object))
}

/// Whether reading an object against its schema would change nothing.
pub(crate) fn conforms(object: &Value, ty: TypeRef<'_>) -> bool {
    object.is_object() && conforming::conforms(object, ty.value(), 0)
}

/// The same of an object that was `old`, which conformed, before what is `named` was changed in it.
pub(crate) fn conforms_still(object: &Value, old: &Value, named: &Value, ty: TypeRef<'_>) -> bool {
    object.is_object() && conforming::conforms_still(object, old, named, ty.value(), 0)
}

/// Whether a value below `depth` others nests no deeper than documents may.
pub(crate) fn is_shallow(value: &Value, depth: usize) -> bool {
    conforming::is_shallow(value, depth)
}

/// An object as reading it would make it; as it is when it cannot be read.
pub fn completed(object: Value, ty: TypeRef<'_>) -> Value {
    if conforms(&object, ty) {
        return object;
    }
    let how = How { validation: FieldValidation::Ignore, complete: true };
    run(ty, how, |context| Walk::new(ty, context).deserialize(&object)).map_or(object, |decoded| decoded.object)
}

/// Whether two objects of a type, by its published name, are the same to the API: what holds nothing may be told or not, as the
/// type has it.
pub fn same<T: Serialize + PartialEq>(a: &T, b: &T, name: &str) -> bool {
    let read = |object: &T| {
        let object = crate::json::to_value(object).ok()?;
        Some(completed(object, schema::named(name)?))
    };
    a == b || read(a).zip(read(b)).is_some_and(|(a, b)| json::same(&a, &b))
}

/// Reads from any deserializer: a part of a larger document.
///
/// # Errors
/// As [`decode`].
pub fn from_deserializer<'de, D: Deserializer<'de>>(
    reader: D,
    ty: TypeRef<'_>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    run(ty, How { validation, complete: true }, |context| Walk::new(ty, context).deserialize(reader))
        .map_err(|refusal| refusal.into_status_of(ty))
}

fn run<'s, E: std::fmt::Display>(
    ty: TypeRef<'s>,
    how: How,
    read: impl FnOnce(&mut Context<'s>) -> Result<Value, E>,
) -> Result<Decoded, Refusal> {
    let How { validation, complete } = how;
    let mut context = Context::new(validation != FieldValidation::Ignore, complete);
    let result = read(&mut context);
    let object = match (result, context.wrong.take()) {
        (_, Some(wrong)) if context.of_no_kind => return Err(Refusal::NoKind(wrong)),
        (_, Some(wrong)) => return Err(Refusal::Wrong(wrong)),
        (Err(error), None) => return Err(Refusal::Unreadable(error.to_string())),
        (Ok(object), None) if object.is_object() => object,
        // As Go reads it into a structure: nothing is there.
        (Ok(Value::Null), None) if complete => ty.zero(),
        (Ok(Value::Null), None) => Value::Object(Map::new()),
        (Ok(other), None) => {
            let found = go::kind(&other);
            return Err(Refusal::NoKind(format!("json: cannot unmarshal {found} into Go value of type {META}")));
        }
    };
    let warnings = context.problems.into_messages();
    if validation == FieldValidation::Strict && !warnings.is_empty() {
        return Err(Refusal::Strict(warnings));
    }
    Ok(Decoded { object, warnings, empty: context.empty })
}
