//! What scalars mean: YAML 1.1 as go-yaml v2 has it (`resolve.go`).

use std::cmp::Ordering;

use crate::json::{Number, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const STR: &str = "!!str";
const PREFIX: &str = "tag:yaml.org,2002:";

/// A scalar's value, which is also what keys are.
#[derive(Debug, Clone)]
pub(super) enum Key {
    Null,
    Int(i64),
    Uint(u64),
    Text(String),
    Float(f64),
    Bool(bool),
}

impl Key {
    /// The order in which Go prints the keys of a map: by kind first.
    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Int(_) => 1,
            Self::Uint(_) => 2,
            Self::Text(_) => 3,
            Self::Float(_) => 4,
            Self::Bool(_) => 5,
        }
    }

    /// As `%#v` prints it.
    pub fn go(&self) -> String {
        match self {
            Self::Null => "<nil>".to_owned(),
            Self::Int(n) => n.to_string(),
            Self::Uint(n) => format!("{n:#x}"),
            Self::Text(text) => format!("{text:?}"),
            Self::Float(n) => n.to_string(),
            Self::Bool(b) => b.to_string(),
        }
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "%!s(<nil>)",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint64",
            Self::Text(_) => "string",
            Self::Float(_) => "float64",
            Self::Bool(_) => "bool",
        }
    }

    /// The name of a member with this key; None when JSON has none.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Null | Self::Uint(_) => None,
            Self::Int(n) => Some(n.to_string()),
            Self::Text(text) => Some(text.clone()),
            Self::Float(n) if n.is_nan() => Some(".nan".to_owned()),
            Self::Float(n) if n.is_infinite() => Some(if *n > 0.0 { ".inf" } else { "-.inf" }.to_owned()),
            Self::Float(n) => Some(short(*n)),
            Self::Bool(b) => Some(b.to_string()),
        }
    }

    pub fn json(self) -> Result<Value, String> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Int(n) => n.into(),
            Self::Uint(n) => n.into(),
            Self::Text(text) => text.into(),
            Self::Bool(b) => b.into(),
            Self::Float(n) if n.is_nan() => return Err("json: unsupported value: NaN".to_owned()),
            Self::Float(n) if n.is_infinite() => {
                return Err(format!("json: unsupported value: {}Inf", if n > 0.0 { '+' } else { '-' }));
            }
            // Written without a fraction, and read again as a whole number.
            Self::Float(n) if n.fract() == 0.0 && n.abs() < 9e18 => Value::from(n as i64),
            Self::Float(n) => Number::from_f64(n).map_or(Value::Null, Value::Number),
        })
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Uint(a), Self::Uint(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

/// The value of a scalar; `implicit` says that it is plain, or that it was not to be told what it is.
pub(super) fn resolve(tag: Option<&str>, text: &str, implicit: bool) -> Result<Key, String> {
    let short = match tag {
        None if !implicit => return Ok(Key::Text(text.to_owned())),
        None => "",
        Some(tag) => match tag.strip_prefix(PREFIX) {
            Some("binary") => return binary(text),
            Some(rest @ ("str" | "bool" | "int" | "float" | "null" | "timestamp")) => rest,
            _ => return Ok(Key::Text(text.to_owned())),
        },
    };
    if short == "str" {
        return Ok(Key::Text(text.to_owned()));
    }
    let value = plain(text);
    let is_date =
        || matches!(text.as_bytes(), [a, b, c, d, b'-', ..] if [a, b, c, d].iter().all(|b| b.is_ascii_digit()));
    let found = match &value {
        Key::Null => "!!null",
        Key::Int(_) | Key::Uint(_) => "!!int",
        Key::Text(_) if short == "timestamp" && is_date() => "!!timestamp",
        Key::Text(_) => STR,
        Key::Float(_) => "!!float",
        Key::Bool(_) => "!!bool",
    };
    match (short, value) {
        ("", value) => Ok(value),
        ("float", Key::Int(n)) => Ok(Key::Float(n as f64)),
        (short, value) if found.strip_prefix("!!") == Some(short) => Ok(value),
        (short, _) => Err(format!("yaml: cannot decode {found} `{text}` as a !!{short}")),
    }
}

/// In the precision of the smaller type, with an exponent where Go has one.
fn short(n: f64) -> String {
    let n = n as f32;
    let told = format!("{n:e}");
    match told.split_once('e').and_then(|(mantissa, exponent)| Some((mantissa, exponent.parse::<i32>().ok()?))) {
        Some((mantissa, exponent @ (..-4 | 21..))) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => n.to_string(),
    }
}

fn binary(text: &str) -> Result<Key, String> {
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let bytes = STANDARD.decode(text).map_err(|_| "yaml: !!binary value contains invalid base64 data".to_owned())?;
    Ok(Key::Text(String::from_utf8_lossy(&bytes).into_owned()))
}

fn plain(text: &str) -> Key {
    let fixed = match text {
        "" | "~" | "null" | "Null" | "NULL" => Some(Key::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(Key::Bool(true)),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(Key::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => Some(Key::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Some(Key::Float(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => Some(Key::Float(f64::NEG_INFINITY)),
        _ => None,
    };
    let number = || match text.as_bytes().first()? {
        b'.' => float(text),
        b'0'..=b'9' | b'+' | b'-' => {
            let text = text.replace('_', "");
            integer(&text).or_else(|| float(&text))
        }
        _ => None,
    };
    fixed.or_else(number).unwrap_or_else(|| Key::Text(text.to_owned()))
}

/// With a prefix that tells the base, as Go's `ParseInt` and `ParseUint` have it at base 0.
fn integer(text: &str) -> Option<Key> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => ("", &text[1..]),
        b'-' => ("-", &text[1..]),
        _ => ("", text),
    };
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let (base, digits) = match lower.as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some(_) if digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let signed = i64::from_str_radix(&format!("{sign}{digits}"), base).ok().map(Key::Int);
    let is_unsigned = !text.starts_with(['+', '-']);
    signed.or_else(|| is_unsigned.then(|| u64::from_str_radix(digits, base).ok().map(Key::Uint)).flatten())
}

/// Decimal digits, a point and an exponent: nothing else that Rust would read.
fn float(text: &str) -> Option<Key> {
    let mantissa = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match mantissa.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_mantissa = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    let is_float = is_mantissa && exponent.is_none_or(digits);
    is_float.then(|| text.parse().ok()).flatten().filter(|n: &f64| n.is_finite()).map(Key::Float)
}
