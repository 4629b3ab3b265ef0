//! Writes YAML as sigs.k8s.io/yaml does: keys sorted, two spaces, lists not indented below their key.

use std::cmp::Ordering;
use std::fmt::Write;

use crate::json::{Map, Value};

/// The value as a YAML document, ending in a line break.
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(&mut out, map, 0),
        Value::Array(items) if !items.is_empty() => write_list(&mut out, items, 0),
        scalar => {
            write_scalar(&mut out, scalar, 0);
            out.push('\n');
        }
    }
    out
}

fn indent(out: &mut String, columns: usize) {
    out.extend(std::iter::repeat_n(' ', columns));
}

fn write_map(out: &mut String, map: &Map, columns: usize) {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by(|(a, _), (b, _)| natural_order(a, b));
    for (i, (key, value)) in entries.into_iter().enumerate() {
        if i > 0 {
            indent(out, columns);
        }
        write_text(out, key, columns, true);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                indent(out, columns + 2);
                write_map(out, inner, columns + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                indent(out, columns);
                write_list(out, items, columns);
            }
            scalar => {
                out.push(' ');
                write_scalar(out, scalar, columns + 2);
                out.push('\n');
            }
        }
    }
}

fn write_list(out: &mut String, items: &[Value], columns: usize) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            indent(out, columns);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => write_map(out, map, columns + 2),
            Value::Array(inner) if !inner.is_empty() => write_list(out, inner, columns + 2),
            scalar => {
                write_scalar(out, scalar, columns + 2);
                out.push('\n');
            }
        }
    }
}

fn write_scalar(out: &mut String, value: &Value, columns: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => write_text(out, text, columns, false),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

fn write_text(out: &mut String, text: &str, columns: usize, key: bool) {
    let special = text.chars().any(|c| c != '\n' && !printable(c));
    let space_before_break = text.contains(" \n");
    if special || space_before_break || resolves(text) {
        write_double_quoted(out, text);
    } else if text.contains('\n') {
        if key || text.ends_with(' ') || text.trim_start_matches('\n').is_empty() {
            write_double_quoted(out, text)
        } else {
            write_literal(out, text, columns)
        }
    } else if plain(text) {
        out.push_str(text);
    } else {
        let _ = write!(out, "'{}'", text.replace('\'', "''"));
    }
}

/// What libyaml's emitter takes for printable; a tab is not.
fn printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..)
}

fn write_double_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ = match c {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\0' => out.write_str("\\0"),
            '\u{7}' => out.write_str("\\a"),
            '\u{8}' => out.write_str("\\b"),
            '\u{1b}' => out.write_str("\\e"),
            '\u{85}' => out.write_str("\\N"),
            '\u{feff}' => out.write_str("\\uFEFF"),
            c if printable(c) => out.write_char(c),
            c if u32::from(c) <= 0xff => write!(out, "\\x{:02X}", u32::from(c)),
            c if u32::from(c) <= 0xffff => write!(out, "\\u{:04X}", u32::from(c)),
            c => write!(out, "\\U{:08X}", u32::from(c)),
        };
    }
    out.push('"');
}

fn write_literal(out: &mut String, text: &str, columns: usize) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    let trailing = text.len() - text.trim_end_matches('\n').len();
    match trailing {
        0 => out.push('-'),
        1 => {}
        _ => out.push('+'),
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, columns.max(2));
            out.push_str(line);
        }
    }
}

/// Whether the text can stand as it is, in a block context.
fn plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if first == b' ' || last == b' ' || text.starts_with("---") || text.starts_with("...") {
        return false;
    }
    if b"#,[]{}&*!|>'\"%@`".contains(&first) {
        return false;
    }
    let blank_after = |i: usize| bytes.get(i + 1).is_none_or(|b| *b == b' ');
    if b"-?:".contains(&first) && blank_after(0) {
        return false;
    }
    bytes.iter().enumerate().all(|(i, b)| match b {
        b':' => !blank_after(i),
        b'#' => i > 0 && bytes[i - 1] != b' ',
        _ => true,
    })
}

/// Whether a reader of YAML 1.1 would take the bare text for something else than text.
fn resolves(text: &str) -> bool {
    if matches!(text, "" | "~" | "null" | "Null" | "NULL" | "<<" | "=") {
        return true;
    }
    // Go's YAML knows three spellings of each; other readers take any, so any is quoted.
    if ["y", "n", "yes", "no", "on", "off", "true", "false"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return true;
    }
    number(text) || timestamp(text)
}

fn number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    let digits = unsigned.replace('_', "");
    let radix = |prefix: &str, radix: u32| {
        digits.strip_prefix(prefix).is_some_and(|d| !d.is_empty() && d.chars().all(|c| c.is_digit(radix)))
    };
    if radix("0x", 16) || radix("0X", 16) || radix("0b", 2) || radix("0o", 8) {
        return true;
    }
    // Base 60, as in 12:30:45.
    if digits.contains(':')
        && digits
            .split([':', '.'])
            .all(|part| !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit()))
    {
        return true;
    }
    digits.bytes().all(|b| b.is_ascii_digit() || b"eE.+-".contains(&b)) && digits.parse::<f64>().is_ok()
}

/// `2026-01-31`, with or without a time.
fn timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let year = bytes.len() >= 8 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-';
    year && (text.parse::<jiff::civil::Date>().is_ok()
        || text.parse::<jiff::Timestamp>().is_ok()
        || text.parse::<jiff::civil::DateTime>().is_ok())
}

/// The order of keys in Go's YAML: text with numbers by their value, letters after everything else.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(x, y)| x != y) else { return a.len().cmp(&b.len()) };
    match (a[at].is_alphabetic(), b[at].is_alphabetic()) {
        (true, true) => return a[at].cmp(&b[at]),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    // Behind a digit that is not zero, a zero counts: 10 comes after 2.
    let zero = a[at] == '0' || b[at] == '0';
    let lead = zero && a[..at].iter().rev().take_while(|c| c.is_ascii_digit()).any(|c| *c != '0');
    let number = |text: &[char]| {
        let digits = text[at..].iter().take_while(|c| c.is_ascii_digit());
        digits.fold((u128::from(lead), 0), |(n, count), c| {
            (n.saturating_mul(10).saturating_add(u128::from(*c) - u128::from('0')), count + 1)
        })
    };
    number(&a).cmp(&number(&b)).then(a[at].cmp(&b[at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;

    #[test]
    fn documents_look_like_kubectls() {
        let value = json!({
            "metadata": {"name": "web", "labels": {}, "annotations": {"b": "true", "a": "1", "c": "x: y"}},
            "apiVersion": "v1", "items": [{"b": 1, "a": [1, [2, 3]]}, {}, []], "empty": null,
            "script": "a\n b\n", "open": "a\nb", "tab": "a\tb", "quote": "'x'", "time": "2026-01-01T00:00:00Z", "n": "no", "v10": 1, "v2": 2});
        let expected = "apiVersion: v1\nempty: null\nitems:\n- a:\n  - 1\n  - - 2\n    - 3\n  b: 1\n- {}\n- []\nmetadata:\n  annotations:\n    a: \"1\"\n    b: \"true\"\n    c: 'x: y'\n  labels: {}\n  name: web\n\"n\": \"no\"\nopen: |-\n  a\n  b\nquote: '''x'''\nscript: |\n  a\n   b\ntab: \"a\\tb\"\ntime: \"2026-01-01T00:00:00Z\"\nv2: 2\nv10: 1\n";
        assert_eq!(to_string(&value), expected);
    }

    #[test]
    fn every_text_reads_back() {
        let texts = [
            "",
            " ",
            "a ",
            " a",
            "-",
            "- a",
            "a: b",
            "a #b",
            "a#b",
            "#",
            "0x1F",
            "1_000",
            "1e3",
            "12:30",
            "null",
            "~",
            "Yes",
            "yEs",
            "\u{1}",
            "é",
            "😀",
            "a\nb\n\n",
            "\n",
            "\na",
            "  a\nb",
            "a \nb",
            "---",
            "...",
            "%",
            "@",
            "`",
            "'",
            "\"",
            "\\",
            "{a}",
            "[a]",
            "a,b",
            "<<",
            "=",
            "!x",
            "&x",
            "*x",
            "|",
            ">",
            "?",
            "? a",
            ":",
            ":a",
            "1.2.3",
            "2026-13-01",
            "0644",
            "+1",
            ".5",
            ".inf",
            "\u{85}",
            "\u{feff}",
            "a\r\nb",
            "trailing\n ",
            "key: |\n  x",
        ];
        for text in texts {
            for value in [json!(text), json!({"k": text}), json!([text, {"x": {"y": text}}]), json!({text: 1})] {
                let written = to_string(&value);
                let read = crate::yaml::parse(&written).unwrap_or_else(|e| panic!("{value}\n{written}\n{e}"));
                assert_eq!(read, value, "{written}");
            }
        }
    }
}
