//! How Go names and prints the values of JSON, which upstream's messages show.

use crate::json::{Number, Value};

/// What a value is, in the words of the JSON decoder.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// JSON as Go writes it from maps: fields sorted, and nothing in it that HTML would read.
pub fn sorted_json(value: &Value) -> String {
    let mut out = String::new();
    put_sorted(value, &mut out);
    let mut safe = String::with_capacity(out.len());
    for c in out.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => safe += &format!("\\u{:04x}", u32::from(c)),
            c => safe.push(c),
        }
    }
    safe
}

fn put_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            for (nth, (name, value)) in fields.into_iter().enumerate() {
                out.push(if nth == 0 { '{' } else { ',' });
                *out += &Value::from(name.as_str()).to_string();
                out.push(':');
                put_sorted(value, out);
            }
            *out += if map.is_empty() { "{}" } else { "}" };
        }
        Value::Array(items) => {
            out.push('[');
            for (nth, item) in items.iter().enumerate() {
                if nth > 0 {
                    out.push(',');
                }
                put_sorted(item, out);
            }
            out.push(']');
        }
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            // A large one without a fraction is one without an exponent (`encoding/json`).
            (None, None, Some(number)) => {
                let sized = number.abs();
                *out += &float(number, sized == 0.0 || (1e-6..1e21).contains(&sized)).replace("e-0", "e-");
            }
            _ => *out += &number.to_string(),
        },
        scalar => *out += &scalar.to_string(),
    }
}

/// The fewest digits that read back as this number, with an exponent or without one.
fn float(number: f64, plain: bool) -> String {
    let with_exponent = format!("{number:e}");
    match with_exponent.split_once('e') {
        Some((digits, exponent)) if !plain => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        _ => number.to_string(),
    }
}

/// A whole number in decimal.
///
/// # Errors
/// What Go says of one that is none (`strconv.ParseInt`).
pub fn parse_int(text: &str) -> Result<i64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse::<i64>().map_err(|error| {
        let why = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {text:?}: {why}")
    })
}

/// The type of a value that was read without a structure (`%T`).
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.as_i64().is_none() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as `%v` prints it: members by name, nothing quoted.
pub fn print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut parts: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", print(value))).collect();
            parts.sort();
            format!("map[{}]", parts.join(" "))
        }
        Value::Number(number) => print_number(number),
        Value::Bool(truth) => truth.to_string(),
    }
}

/// Whole numbers that are too large for 64 bits and a sign are read as others are.
fn print_number(number: &Number) -> String {
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => whole.to_string(),
        (None, Some(number)) => float(number, number == 0.0 || (1e-4..1e6).contains(&number.abs())),
        (None, None) => number.to_string(),
    }
}

/// A value as `%#v` prints it: as it would stand in a program.
pub fn print_source(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => quote(text),
        Value::Array(items) => format!("[]interface {{}}{{{}}}", joined(items.iter().map(print_source).collect())),
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let shown = fields.into_iter().map(|(name, value)| format!("{}:{}", quote(name), print_source(value)));
            format!("map[string]interface {{}}{{{}}}", joined(shown.collect()))
        }
        scalar => print(scalar),
    }
}

/// A text as `%q` prints it.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out += "\\a",
            '\u{8}' => out += "\\b",
            '\u{c}' => out += "\\f",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            '\u{b}' => out += "\\v",
            ' ' => out.push(c),
            c if !c.is_control() && !c.is_whitespace() => out.push(c),
            c if c.is_ascii() => out += &format!("\\x{:02x}", u32::from(c)),
            c => out += &format!("\\u{:04x}", u32::from(c)),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;

    #[test]
    fn values_print_as_in_go() {
        let value =
            json!({"b": [1, 2.0, null, true], "a": {"<": 1e21, "n": 1_234_567.5, "s": 1e-7}, "q": "a\"\n\u{1}\u{a0}é"});
        assert_eq!(print(&value), "map[a:map[<:1e+21 n:1.2345675e+06 s:1e-07] b:[1 2 <nil> true] q:a\"\n\u{1}\u{a0}é]");
        assert_eq!(
            sorted_json(&value),
            r#"{"a":{"\u003c":1e+21,"n":1234567.5,"s":1e-7},"b":[1,2,null,true],"q":"a\"\n\u0001 é"}"#
                .replace("1 é", "1\u{a0}é")
        );
        assert_eq!(
            print_source(&value),
            r#"map[string]interface {}{"a":map[string]interface {}{"<":1e+21, "n":1.2345675e+06, "s":1e-07}, "b":[]interface {}{1, 2, interface {}(nil), true}, "q":"a\"\n\x01\u00a0é"}"#
        );
    }
}
