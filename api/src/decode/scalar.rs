//! Single values: each is checked, and comes out as Go's encoder would write it.

use std::borrow::Cow;

use crate::json::{Number, Value};
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use crate::clock;
use crate::quantity::{self, Quantity};
use crate::schema::Scalar;

/// A scalar of the document.
#[derive(Debug, Clone)]
pub(super) enum Raw<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(Cow<'a, str>),
}

/// Why a scalar does not fit.
pub(super) enum Misfit {
    /// It has another type: said with the field and the type it should have.
    Type(String),
    /// The value's own reader refuses it, and knows nothing of the field.
    Own(String),
}

impl Raw<'_> {
    /// What it is, in Go's words.
    pub fn described(&self) -> String {
        match self {
            Raw::Bool(_) => "bool".into(),
            Raw::Text(_) => "string".into(),
            _ => "number".into(),
        }
    }

    fn number_text(&self) -> String {
        match self {
            Raw::Int(n) => n.to_string(),
            Raw::Uint(n) => n.to_string(),
            Raw::Float(n) => format!("{n:?}"),
            Raw::Bool(b) => b.to_string(),
            Raw::Text(text) => text.to_string(),
        }
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Raw::Int(n) => Some(*n),
            Raw::Uint(n) => i64::try_from(*n).ok(),
            _ => None,
        }
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Raw::Int(_) | Raw::Uint(_) | Raw::Float(_))
    }

    pub fn into_value(self) -> Value {
        match self {
            Raw::Bool(b) => Value::Bool(b),
            Raw::Int(n) => n.into(),
            Raw::Uint(n) => n.into(),
            Raw::Float(n) => Number::from_f64(n).map_or(Value::Null, Value::Number),
            Raw::Text(text) => Value::String(text.into_owned()),
        }
    }
}

/// The Go type of a scalar, for messages.
pub(super) fn go_type(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::String => "string",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Bool => "bool",
        Scalar::Number => "float64",
        Scalar::Quantity => "resource.Quantity",
        Scalar::IntOrString => "intstr.IntOrString",
        Scalar::Time => "v1.Time",
        Scalar::MicroTime => "v1.MicroTime",
        Scalar::Bytes => "[]uint8",
        Scalar::Any => "interface {}",
        Scalar::RawObject => "runtime.RawExtension",
    }
}

pub(super) fn accept(raw: Raw<'_>, scalar: Scalar) -> Result<Value, Misfit> {
    match (scalar, raw) {
        (Scalar::Any, raw) => Ok(raw.into_value()),
        (Scalar::String, Raw::Text(text)) => Ok(Value::String(text.into_owned())),
        (Scalar::Bool, Raw::Bool(b)) => Ok(Value::Bool(b)),
        (Scalar::Number, raw) if raw.is_number() => Ok(raw.into_value()),
        (Scalar::Int32, raw) if raw.is_number() => integer(&raw, i64::from(i32::MIN)..=i64::from(i32::MAX)),
        (Scalar::Int64, raw) if raw.is_number() => integer(&raw, i64::MIN..=i64::MAX),
        (Scalar::Bytes, Raw::Text(text)) => bytes(text),
        (Scalar::Time, Raw::Text(text)) => time(text, clock::rfc3339, "2006-01-02T15:04:05Z07:00"),
        (Scalar::MicroTime, Raw::Text(text)) => time(text, clock::rfc3339_micro, "2006-01-02T15:04:05.000000Z07:00"),
        (Scalar::Time | Scalar::MicroTime, raw) => {
            own(format!("json: cannot unmarshal {} into Go value of type string", raw.described()))
        }
        (Scalar::Quantity, Raw::Bool(_)) => own(quantity::FORMAT_WRONG.into()),
        (Scalar::Quantity, raw) => quantity(raw),
        (Scalar::IntOrString, Raw::Text(text)) => Ok(Value::String(text.into_owned())),
        (Scalar::IntOrString, raw) => match raw.integer().filter(|n| i32::try_from(*n).is_ok()) {
            Some(n) => Ok(n.into()),
            None if raw.is_number() => {
                own(format!("json: cannot unmarshal number {} into Go value of type int32", raw.number_text()))
            }
            None => own(format!("json: cannot unmarshal {} into Go value of type int32", raw.described())),
        },
        (_, raw) => Err(Misfit::Type(raw.described())),
    }
}

fn own<T>(message: String) -> Result<T, Misfit> {
    Err(Misfit::Own(message))
}

fn integer(raw: &Raw<'_>, range: std::ops::RangeInclusive<i64>) -> Result<Value, Misfit> {
    match raw.integer().filter(|n| range.contains(n)) {
        Some(n) => Ok(n.into()),
        None => Err(Misfit::Type(format!("number {}", raw.number_text()))),
    }
}

/// Base64 stays as it was written, without the line breaks that Go's decoder skips.
fn bytes(text: Cow<'_, str>) -> Result<Value, Misfit> {
    if let Some(at) = illegal(text.as_bytes()) {
        return own(format!("illegal base64 data at input byte {at}"));
    }
    let text = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], "") } else { text.into_owned() };
    // Bits that are left over count for nothing; written again, they are zero.
    const LOOSE: GeneralPurpose =
        GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    let text = match STANDARD.decode(&text) {
        Ok(_) => text,
        Err(_) => LOOSE.decode(&text).map(|bytes| STANDARD.encode(bytes)).unwrap_or(text),
    };
    Ok(Value::String(text))
}

/// Where Go's decoder says that base64 is none (`encoding/base64`, `decodeQuantum`): line breaks count, and what ends too early
/// does so where its last four letters begin.
fn illegal(text: &[u8]) -> Option<usize> {
    let is_break = |at: usize| matches!(text.get(at), Some(b'\n' | b'\r'));
    let mut quantum = 0;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => quantum = (quantum + 1) % 4,
            b'\n' | b'\r' => {}
            b'=' if quantum >= 2 => {
                at += 1;
                if quantum == 2 {
                    while is_break(at) {
                        at += 1;
                    }
                    match text.get(at) {
                        None => return Some(text.len()),
                        Some(b'=') => at += 1,
                        Some(_) => return Some(at - 1),
                    }
                }
                while is_break(at) {
                    at += 1;
                }
                return (at < text.len()).then_some(at);
            }
            _ => return Some(at),
        }
        at += 1;
    }
    (quantum != 0).then(|| at - quantum)
}

fn time(text: Cow<'_, str>, write: fn(jiff::Timestamp) -> String, layout: &str) -> Result<Value, Misfit> {
    let Some(time) = clock::parse_rfc3339(&text) else {
        return own(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""));
    };
    let canonical = write(time);
    Ok(Value::String(if canonical == *text { text.into_owned() } else { canonical }))
}

fn quantity(raw: Raw<'_>) -> Result<Value, Misfit> {
    let text = match raw {
        Raw::Text(text) => text,
        number => Cow::Owned(number.number_text()),
    };
    if quantity::is_plain(&text) {
        return Ok(Value::String(text.into_owned()));
    }
    match Quantity::parse(&text) {
        Ok(parsed) => {
            let canonical = parsed.to_string();
            Ok(Value::String(if canonical == *text { text.into_owned() } else { canonical }))
        }
        Err(error) => own(error.to_string()),
    }
}
