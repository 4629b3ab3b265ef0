//! `'%s is %d'.format([…])` (cel-go `ext/formatting.go`): what can be told of it before it runs, and what it gives.

use super::types::Type;
use super::values;
use kube_cel::cel::Value;
use std::fmt::Write;

/// The most digits behind a point.
const MAX_PRECISION: usize = 1000;
const PRECISION: usize = 6;

/// One piece of a text with places in it.
enum Piece {
    Text(String),
    Clause { kind: char, precision: usize },
}

/// Reads a text with places in it; `count`: the values that there are for them.
fn pieces(text: &str, count: usize) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut plain, mut used) = (Vec::new(), String::new(), 0);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            plain.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            plain.push('%');
            continue;
        }
        if used >= count {
            return Err(format!("index {used} out of range"));
        }
        used += 1;
        pieces.push(Piece::Text(std::mem::take(&mut plain)));
        let precision = precision(&mut chars)?;
        let kind = chars.next().ok_or("unexpected end of string")?;
        if !matches!(kind, 's' | 'd' | 'f' | 'e' | 'b' | 'x' | 'X' | 'o') {
            return Err(format!("could not parse formatting clause: unrecognized formatting clause \"{kind}\""));
        }
        pieces.push(Piece::Clause { kind, precision });
    }
    pieces.push(Piece::Text(plain));
    Ok(pieces)
}

fn precision(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<usize, String> {
    if chars.next_if_eq(&'.').is_none() {
        return Ok(PRECISION);
    }
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    let told = |why: String| format!("could not parse formatting clause: error while parsing precision: {why}");
    if chars.peek().is_none() {
        return Err(told("could not find end of precision specifier".to_owned()));
    }
    let precision = digits.parse().map_err(|_| {
        let why = if digits.is_empty() { "invalid syntax" } else { "value out of range" };
        told(format!("error while converting precision to integer: strconv.Atoi: parsing {digits:?}: {why}"))
    })?;
    if precision > MAX_PRECISION {
        return Err(told(format!("precision {precision} exceeds maximum allowed precision {MAX_PRECISION}")));
    }
    Ok(precision)
}

fn refused(kind: char, ty: &str) -> String {
    let what = match kind {
        's' => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
        }
        'd' => "decimal clause can only be used on integers",
        'f' => "fixed-point clause can only be used on doubles",
        'e' => "scientific clause can only be used on doubles",
        'b' => "only integers and bools can be formatted as binary",
        'o' => "octal clause can only be used on integers",
        _ => "only integers, byte buffers, and strings can be formatted as hex",
    };
    format!("error during formatting: {what}, was given {ty}")
}

/// The name of a type without its parameters.
fn bare(ty: &Type) -> String {
    match ty {
        Type::Timestamp => "google.protobuf.Timestamp".to_owned(),
        Type::Duration => "google.protobuf.Duration".to_owned(),
        Type::Null => "null_type".to_owned(),
        other => other.to_string().split('(').next().unwrap_or_default().to_owned(),
    }
}

/// Whether values of some types can stand in a text's places; otherwise why not, and which of them is the cause.
pub fn check(text: &str, types: &[Type]) -> Result<(), (String, Option<usize>)> {
    let pieces = pieces(text, types.len()).map_err(|why| (why, None))?;
    let kinds = pieces.iter().filter_map(|piece| match piece {
        Piece::Clause { kind, .. } => Some(*kind),
        Piece::Text(_) => None,
    });
    let mut used = 0;
    for (kind, ty) in kinds.zip(types) {
        let fits = match kind {
            _ if *ty == Type::Dyn => true,
            's' => !matches!(ty, Type::Object(_) | Type::Opaque(..)),
            'd' | 'o' => matches!(ty, Type::Int | Type::Uint),
            'f' | 'e' => matches!(ty, Type::Double | Type::String),
            'b' => matches!(ty, Type::Int | Type::Uint | Type::Bool),
            _ => matches!(ty, Type::Int | Type::Uint | Type::String | Type::Bytes),
        };
        if !fits {
            return Err((refused(kind, &bare(ty)), Some(used)));
        }
        used += 1;
    }
    if types.len() > used {
        let what = "too many arguments supplied to string.format";
        return Err((format!("{what} (expected {used}, got {})", types.len()), None));
    }
    Ok(())
}

/// A text with values in its places.
///
/// # Errors
/// A value cannot stand where it should.
pub fn format(text: &str, args: &[Value]) -> Result<String, String> {
    let mut args = args.iter();
    let mut out = String::new();
    for piece in pieces(text, args.len())? {
        match piece {
            Piece::Text(text) => out.push_str(&text),
            Piece::Clause { kind, precision } => {
                let value = args.next().unwrap_or(&Value::Null);
                let shown = clause(kind, precision, value);
                out.push_str(&shown.ok_or_else(|| refused(kind, values::type_of(value)))?);
            }
        }
    }
    Ok(out)
}

fn clause(kind: char, precision: usize, value: &Value) -> Option<String> {
    match (kind, value) {
        ('s', value) => shown(value),
        ('d', Value::Int(value)) => Some(value.to_string()),
        ('d', Value::UInt(value)) => Some(value.to_string()),
        ('f', value) => float(value).map(|value| fixed(value, precision)),
        ('e', value) => float(value).map(|value| scientific(value, precision)),
        ('b', Value::Bool(value)) => Some(u8::from(*value).to_string()),
        ('x', Value::String(text)) => Some(hex::encode(text.as_bytes())),
        ('X', Value::String(text)) => Some(hex::encode_upper(text.as_bytes())),
        ('x', Value::Bytes(bytes)) => Some(hex::encode(bytes.as_slice())),
        ('X', Value::Bytes(bytes)) => Some(hex::encode_upper(bytes.as_slice())),
        (_, Value::Int(value)) => {
            let sign = if *value < 0 { "-" } else { "" };
            Some(format!("{sign}{}", digits(kind, value.unsigned_abs())))
        }
        (_, Value::UInt(value)) => Some(digits(kind, *value)),
        _ => None,
    }
}

fn digits(kind: char, value: u64) -> String {
    match kind {
        'b' => format!("{value:b}"),
        'o' => format!("{value:o}"),
        'x' => format!("{value:x}"),
        _ => format!("{value:X}"),
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// What has no digits, as it is written in English.
fn without_digits(value: f64) -> Option<String> {
    match value {
        value if value.is_nan() => Some("NaN".to_owned()),
        f64::INFINITY => Some("∞".to_owned()),
        f64::NEG_INFINITY => Some("-∞".to_owned()),
        _ => None,
    }
}

/// Thousands are set apart by commas, as English has it.
fn fixed(value: f64, precision: usize) -> String {
    if let Some(shown) = without_digits(value) {
        return shown;
    }
    let plain = format!("{:.precision$}", value.abs());
    let (whole, part) = plain.split_once('.').unwrap_or((&plain, ""));
    let mut out = String::new();
    if value.is_sign_negative() {
        out.push('-');
    }
    for (nth, digit) in whole.chars().enumerate() {
        if nth > 0 && (whole.len() - nth).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !part.is_empty() {
        let _ = write!(out, ".{part}");
    }
    out
}

fn scientific(value: f64, precision: usize) -> String {
    if let Some(shown) = without_digits(value) {
        return shown;
    }
    let plain = format!("{value:.precision$e}");
    let (mantissa, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ("⁻", exponent),
        None => ("", exponent),
    };
    let raised = |digit: char| {
        let nth = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok()).unwrap_or_default();
        ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][nth]
    };
    let exponent: String = format!("{exponent:0>2}").chars().map(raised).collect();
    format!("{mantissa}×10{sign}{exponent}")
}

fn shown(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.to_string(),
        Value::Null => "null".to_owned(),
        Value::List(items) => {
            let items: Option<Vec<String>> = items.iter().map(inside).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Map(_) => {
            let mut entries = Vec::new();
            for (key, value) in values::entries(value)? {
                entries.push(format!("{}:{}", inside(&key)?, inside(&value)?));
            }
            entries.sort();
            format!("{{{}}}", entries.join(", "))
        }
        other => values::text_of(other)?,
    })
}

/// A value inside of a list or map, as it would be written in an expression.
fn inside(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(format!("{text:?}")),
        Value::Bytes(_) => shown(value).map(|text| format!("b{text:?}")),
        Value::Float(value) => Some(without_digits(*value).map_or_else(
            || format!("{value:.PRECISION$}"),
            |_| format!("{:?}", values::text_of(&Value::Float(*value)).unwrap_or_default()),
        )),
        Value::Duration(_) => shown(value).map(|text| format!("duration({text:?})")),
        Value::Timestamp(_) => shown(value).map(|text| format!("timestamp({text:?})")),
        other => shown(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled() {
        for (text, value, expected) in [
            ("%f", Value::Float(-1_234_567.5), "-1,234,567.500000"),
            ("%.0f%%", Value::Float(999.5), "1,000%"),
            ("%.2e", Value::Float(0.00123), "1.23×10⁻⁰³"),
            ("%X", Value::Int(-255), "-FF"),
            ("%x", Value::String(std::sync::Arc::new("az".into())), "617a"),
            ("%b", Value::Bool(true), "1"),
        ] {
            assert_eq!(format(text, &[value]).unwrap(), expected, "{text}");
        }
        assert_eq!(format("%s", &[]), Err("index 0 out of range".into()));
        assert!(format("%.s", &[Value::Null]).is_err() && format("%.9999f", &[Value::Float(1.0)]).is_err());
        assert!(format("%q", &[Value::Null]).is_err() && format("%", &[Value::Null]).is_err());
    }
}
