//! What the language itself does with values: comparing, reckoning, indexing, and turning one kind into another.

use super::eval::{NO_OVERLOAD, Outcome};
use super::{literals, optionals};
use coracle_api::clock;
use kube_cel::cel::Value;
use kube_cel::cel::common::ast::operators;
use kube_cel::cel::objects::{Key, Map};
use std::cmp::Ordering;
use std::sync::Arc;

/// Types by their names; a type is its name here.
const TYPES: [&str; 13] = [
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "optional_type",
];

/// The type that a name stands for.
pub fn type_named(name: &str) -> Option<Value> {
    let known = TYPES.contains(&name) || matches!(name, "net.IP" | "net.CIDR");
    known.then(|| Value::String(Arc::new(name.to_owned())))
}

pub fn type_of(value: &Value) -> &str {
    match value {
        Value::Int(_) => "int",
        Value::UInt(_) => "uint",
        Value::Float(_) => "double",
        Value::Bool(_) => "bool",
        Value::String(_) => "string",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::Null => "null_type",
        Value::Timestamp(_) => "google.protobuf.Timestamp",
        Value::Duration(_) => "google.protobuf.Duration",
        Value::Opaque(opaque) => opaque.runtime_type_name(),
        Value::Function(..) => "type",
    }
}

fn text(text: impl Into<String>) -> Value {
    Value::String(Arc::new(text.into()))
}

/// An operator or a conversion, if this is one.
pub fn operator(name: &str, args: &[Value]) -> Option<Outcome> {
    match (name, args) {
        (operators::EQUALS, [one, other]) => Some(Ok(Value::Bool(equal(one, other)))),
        (operators::NOT_EQUALS, [one, other]) => Some(Ok(Value::Bool(!equal(one, other)))),
        (operators::LESS, [one, other]) => Some(ordered(one, other, |order| order == Ordering::Less)),
        (operators::LESS_EQUALS, [one, other]) => Some(ordered(one, other, |order| order != Ordering::Greater)),
        (operators::GREATER, [one, other]) => Some(ordered(one, other, |order| order == Ordering::Greater)),
        (operators::GREATER_EQUALS, [one, other]) => Some(ordered(one, other, |order| order != Ordering::Less)),
        (operators::LOGICAL_NOT, [Value::Bool(value)]) => Some(Ok(Value::Bool(!value))),
        (operators::LOGICAL_NOT, [Value::Function(why, None)]) => Some(Err(why.to_string())),
        (operators::NEGATE, [value]) => Some(negated(value)),
        (operators::IN | "_in_" | "in", [item, of]) => Some(within(item, of)),
        (operators::INDEX, [of, key]) if optionals::inner(of).is_none() => Some(index(of, key)),
        (
            operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO,
            [one, other],
        ) => Some(reckoned(name, one, other)),
        ("size", [value]) => Some(size(value)),
        ("dyn", [value]) => Some(Ok(value.clone())),
        ("type", [value]) => Some(Ok(text(type_of(value)))),
        (_, [value]) => conversion(name, value),
        _ => None,
    }
}

/// Whether values are the same; numbers of different kinds can be.
pub fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other.iter()).all(|(one, other)| equal(one, other))
        }
        (Value::Map(one), Value::Map(other)) => {
            let same = |(key, value): (&Key, &Value)| at_key(other, key).is_some_and(|other| equal(value, other));
            one.map.len() == other.map.len() && one.map.iter().all(same)
        }
        (one, other) => match (optionals::inner(one), optionals::inner(other)) {
            (Some(Some(one)), Some(Some(other))) => equal(one, other),
            (Some(one), Some(other)) => one.is_none() && other.is_none(),
            _ if is_number(one) && is_number(other) => compare(one, other) == Some(Ordering::Equal),
            _ => one == other,
        },
    }
}

fn is_number(value: &Value) -> bool {
    matches!(value, Value::Int(_) | Value::UInt(_) | Value::Float(_))
}

/// The order of two values, where they have one.
pub fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => Some(one.cmp(other)),
        (Value::UInt(one), Value::UInt(other)) => Some(one.cmp(other)),
        (Value::Int(one), Value::UInt(other)) => Some(i128::from(*one).cmp(&i128::from(*other))),
        (Value::UInt(one), Value::Int(other)) => Some(i128::from(*one).cmp(&i128::from(*other))),
        (Value::Float(one), Value::Float(other)) => one.partial_cmp(other),
        (Value::Float(one), Value::Int(other)) => one.partial_cmp(&(*other as f64)),
        (Value::Float(one), Value::UInt(other)) => one.partial_cmp(&(*other as f64)),
        (Value::Int(one), Value::Float(other)) => (*one as f64).partial_cmp(other),
        (Value::UInt(one), Value::Float(other)) => (*one as f64).partial_cmp(other),
        (Value::Bool(one), Value::Bool(other)) => Some(one.cmp(other)),
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        (Value::Bytes(one), Value::Bytes(other)) => Some(one.cmp(other)),
        (Value::Timestamp(one), Value::Timestamp(other)) => Some(one.cmp(other)),
        (Value::Duration(one), Value::Duration(other)) => Some(one.cmp(other)),
        _ => None,
    }
}

fn ordered(one: &Value, other: &Value, wanted: impl Fn(Ordering) -> bool) -> Outcome {
    match compare(one, other) {
        Some(order) => Ok(Value::Bool(wanted(order))),
        // What is no number has no order, but can be asked for it.
        None if is_number(one) && is_number(other) => Err("NaN values cannot be ordered".to_owned()),
        None => Err(NO_OVERLOAD.to_owned()),
    }
}

fn at_key<'m>(map: &'m Map, key: &Key) -> Option<&'m Value> {
    map.map.get(key).or_else(|| match key {
        Key::Int(key) => map.map.get(&Key::Uint(u64::try_from(*key).ok()?)),
        Key::Uint(key) => map.map.get(&Key::Int(i64::try_from(*key).ok()?)),
        _ => None,
    })
}

/// A value as a key of a map.
///
/// # Errors
/// It cannot be one.
pub fn key(value: &Value) -> Result<Key, String> {
    Ok(match value {
        Value::Int(value) => Key::Int(*value),
        Value::UInt(value) => Key::Uint(*value),
        Value::Bool(value) => Key::Bool(*value),
        Value::String(value) => Key::String(value.clone()),
        // A whole number is the same key, whatever it is written as.
        Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Key::Int(*value as i64),
        _ => return Err(format!("unsupported key type: {}", type_of(value))),
    })
}

pub fn shown_key(key: &Key) -> String {
    match key {
        Key::Int(key) => key.to_string(),
        Key::Uint(key) => key.to_string(),
        Key::Bool(key) => key.to_string(),
        Key::String(key) => key.to_string(),
    }
}

fn key_value(key: &Key) -> Value {
    match key {
        Key::Int(key) => Value::Int(*key),
        Key::Uint(key) => Value::UInt(*key),
        Key::Bool(key) => Value::Bool(*key),
        Key::String(key) => Value::String(key.clone()),
    }
}

/// Indices or keys with what is there; those of maps in their order, so that rules give the same each time.
pub fn entries(value: &Value) -> Option<Vec<(Value, Value)>> {
    match value {
        Value::List(items) => {
            let indices = (0_i64..).map(Value::Int);
            Some(indices.zip(items.iter().cloned()).collect())
        }
        Value::Map(map) => {
            let mut entries: Vec<_> = map.map.iter().map(|(key, value)| (key_value(key), value.clone())).collect();
            entries.sort_by(|one, other| compare(&one.0, &other.0).unwrap_or(Ordering::Equal));
            Some(entries)
        }
        _ => None,
    }
}

pub fn index(of: &Value, at: &Value) -> Outcome {
    match of {
        Value::List(items) => {
            let at = match at {
                Value::Int(at) => *at,
                Value::UInt(at) => i64::try_from(*at).map_err(|_| format!("index out of bounds: {at}"))?,
                Value::Float(at) if at.fract() == 0.0 => *at as i64,
                _ => return Err(NO_OVERLOAD.to_owned()),
            };
            let item = usize::try_from(at).ok().and_then(|at| items.get(at));
            item.cloned().ok_or_else(|| format!("index out of bounds: {at}"))
        }
        Value::Map(map) => {
            let key = key(at)?;
            at_key(map, &key).cloned().ok_or_else(|| format!("no such key: {}", shown_key(&key)))
        }
        _ => Err(NO_OVERLOAD.to_owned()),
    }
}

fn within(item: &Value, of: &Value) -> Outcome {
    match of {
        Value::List(items) => Ok(Value::Bool(items.iter().any(|other| equal(other, item)))),
        Value::Map(map) => Ok(Value::Bool(key(item).is_ok_and(|key| at_key(map, &key).is_some()))),
        _ => Err(NO_OVERLOAD.to_owned()),
    }
}

fn size(value: &Value) -> Outcome {
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.map.len(),
        _ => return Err(NO_OVERLOAD.to_owned()),
    };
    i64::try_from(size).map(Value::Int).map_err(|_| "integer overflow".to_owned())
}

pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::UInt(0) => true,
        Value::Float(value) => *value == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(map) => map.map.is_empty(),
        Value::Duration(duration) => duration.is_zero(),
        _ => false,
    }
}

fn negated(value: &Value) -> Outcome {
    match value {
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or_else(|| "integer overflow".to_owned()),
        Value::Float(value) => Ok(Value::Float(-value)),
        Value::Duration(value) => Ok(Value::Duration(-*value)),
        _ => Err(NO_OVERLOAD.to_owned()),
    }
}

fn reckoned(name: &str, one: &Value, other: &Value) -> Outcome {
    let by_zero = matches!(other, Value::Int(0) | Value::UInt(0));
    match (one, other) {
        (Value::Int(_), Value::Int(_)) | (Value::UInt(_), Value::UInt(_)) if by_zero && name == operators::DIVIDE => {
            Err("division by zero".to_owned())
        }
        (Value::Int(_), Value::Int(_)) | (Value::UInt(_), Value::UInt(_)) if by_zero && name == operators::MODULO => {
            Err("modulus by zero".to_owned())
        }
        (Value::Int(one), Value::Int(other)) => {
            let result = match name {
                operators::ADD => one.checked_add(*other),
                operators::SUBSTRACT => one.checked_sub(*other),
                operators::MULTIPLY => one.checked_mul(*other),
                operators::DIVIDE => one.checked_div(*other),
                _ => one.checked_rem(*other),
            };
            result.map(Value::Int).ok_or_else(|| "integer overflow".to_owned())
        }
        (Value::UInt(one), Value::UInt(other)) => {
            let result = match name {
                operators::ADD => one.checked_add(*other),
                operators::SUBSTRACT => one.checked_sub(*other),
                operators::MULTIPLY => one.checked_mul(*other),
                operators::DIVIDE => one.checked_div(*other),
                _ => one.checked_rem(*other),
            };
            result.map(Value::UInt).ok_or_else(|| "unsigned integer overflow".to_owned())
        }
        (Value::Float(one), Value::Float(other)) => match name {
            operators::ADD => Ok(Value::Float(one + other)),
            operators::SUBSTRACT => Ok(Value::Float(one - other)),
            operators::MULTIPLY => Ok(Value::Float(one * other)),
            operators::DIVIDE => Ok(Value::Float(one / other)),
            _ => Err(NO_OVERLOAD.to_owned()),
        },
        _ if name == operators::ADD => joined(one, other),
        _ => of_times(name, one, other),
    }
}

fn joined(one: &Value, other: &Value) -> Outcome {
    match (one, other) {
        (Value::String(one), Value::String(other)) => Ok(text(format!("{one}{other}"))),
        (Value::Bytes(one), Value::Bytes(other)) => {
            Ok(Value::Bytes(Arc::new([one.as_slice(), other.as_slice()].concat())))
        }
        (Value::List(one), Value::List(other)) => {
            Ok(Value::List(Arc::new([one.as_slice(), other.as_slice()].concat())))
        }
        _ => of_times(operators::ADD, one, other),
    }
}

fn of_times(name: &str, one: &Value, other: &Value) -> Outcome {
    let duration = |result: Option<chrono::Duration>| {
        let result = result.filter(|result| result.num_nanoseconds().is_some());
        result.map(Value::Duration).ok_or_else(|| "duration overflow".to_owned())
    };
    let time = |result: Option<chrono::DateTime<chrono::FixedOffset>>| {
        let result = result.filter(|time| (1..=9999).contains(&chrono::Datelike::year(time)));
        result.map(Value::Timestamp).ok_or_else(|| "timestamp overflow".to_owned())
    };
    match (name, one, other) {
        (operators::ADD, Value::Duration(one), Value::Duration(other)) => duration(one.checked_add(other)),
        (operators::SUBSTRACT, Value::Duration(one), Value::Duration(other)) => duration(one.checked_sub(other)),
        (operators::ADD, Value::Timestamp(at), Value::Duration(by))
        | (operators::ADD, Value::Duration(by), Value::Timestamp(at)) => time(at.checked_add_signed(*by)),
        (operators::SUBSTRACT, Value::Timestamp(at), Value::Duration(by)) => time(at.checked_sub_signed(*by)),
        (operators::SUBSTRACT, Value::Timestamp(one), Value::Timestamp(other)) => {
            duration(Some(one.signed_duration_since(*other)))
        }
        _ => Err(NO_OVERLOAD.to_owned()),
    }
}

/// Conversions that the library of functions does not have, or has otherwise.
fn conversion(name: &str, value: &Value) -> Option<Outcome> {
    Some(match (name, value) {
        ("bool", Value::Bool(_))
        | ("int", Value::Int(_))
        | ("uint", Value::UInt(_))
        | ("double", Value::Float(_))
        | ("bytes", Value::Bytes(_))
        | ("string", Value::String(_))
        | ("duration", Value::Duration(_))
        | ("timestamp", Value::Timestamp(_)) => Ok(value.clone()),
        ("bool", Value::String(word)) => match word.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err("type conversion error from 'string' to 'bool'".to_owned()),
        },
        ("string", value) => return text_of(value).map(|shown| Ok(text(shown))),
        ("int", Value::Duration(value)) => {
            value.num_nanoseconds().map(Value::Int).ok_or_else(|| "integer overflow".to_owned())
        }
        ("int", Value::Timestamp(at)) => Ok(Value::Int(at.timestamp())),
        ("duration", Value::String(text)) => literals::duration(text)
            .map(|nanos| Value::Duration(chrono::Duration::nanoseconds(nanos)))
            .ok_or_else(|| "type conversion error from 'string' to 'google.protobuf.Duration'".to_owned()),
        ("timestamp", Value::String(text)) => clock::parse_rfc3339(text)
            .and_then(|at| from_seconds(at.as_second(), at.subsec_nanosecond()))
            .ok_or_else(|| format!("invalid RFC 3339 timestamp {text:?}")),
        ("timestamp", Value::Int(seconds)) => {
            let at = Some(*seconds).filter(|seconds| (-62_135_596_800..=253_402_300_799).contains(seconds));
            at.and_then(|at| from_seconds(at, 0)).ok_or_else(|| "timestamp overflow".to_owned())
        }
        _ => return None,
    })
}

fn from_seconds(seconds: i64, nanos: i32) -> Option<Value> {
    let at = chrono::DateTime::from_timestamp(seconds, u32::try_from(nanos).ok()?)?;
    Some(Value::Timestamp(at.fixed_offset()))
}

/// A value as text, where it has one.
pub fn text_of(value: &Value) -> Option<String> {
    Some(match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        Value::Float(value) => shortest(*value),
        Value::String(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        Value::Duration(duration) => format!("{}s", duration.num_nanoseconds()? as f64 / 1e9),
        Value::Timestamp(at) => {
            let shown = at.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
            let (seconds, rest) = shown.split_once('.')?;
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (part, zone) = rest.split_at(end);
            match part.trim_end_matches('0') {
                "" => format!("{seconds}{zone}"),
                part => format!("{seconds}.{part}{zone}"),
            }
        }
        _ => return None,
    })
}

/// A number as Go's `%g` writes it: with an exponent where it would have many digits.
fn shortest(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        }
        .to_owned();
    }
    let plain = format!("{value:e}");
    let (mantissa, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let most = i32::try_from(digits).unwrap_or(i32::MAX).max(21);
    if value == 0.0 || (-4..most).contains(&exponent) {
        return value.to_string();
    }
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}
