//! Why a function has no value, in the words of apiserver's `cel/library` and of the Go packages behind it.

use kube_cel::cel::{ExecutionError, Value};
use std::net::IpAddr;

/// Why a call failed.
pub fn of(name: &str, args: &[Value], error: &ExecutionError) -> String {
    let text = match args.first() {
        Some(Value::String(text)) => text.as_str(),
        _ => "",
    };
    match (name, error) {
        (_, ExecutionError::NoSuchKey(key)) => format!("no such key: {key}"),
        ("ip", ExecutionError::FunctionError { .. }) => {
            format!("IP Address {text:?} parse error during conversion from string: {}", address(text))
        }
        ("cidr" | "containsCIDR", ExecutionError::FunctionError { .. }) => network(name, args),
        // As upstream has it, what is no address is of no type that is known.
        ("containsIP", ExecutionError::FunctionError { .. }) => super::eval::NO_OVERLOAD.to_owned(),
        ("url", ExecutionError::FunctionError { .. }) => {
            // What neither is absolute nor begins with a slash is none.
            format!("URL parse error during conversion from string: parse {text:?}: invalid URI for request")
        }
        ("asInteger", ExecutionError::FunctionError { .. }) => "cannot convert value to integer".to_owned(),
        ("quantity", ExecutionError::FunctionError { .. }) => {
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".to_owned()
        }
        ("semver", ExecutionError::FunctionError { .. }) if text.split('.').count() < 3 => {
            "No Major.Minor.Patch elements found".to_owned()
        }
        ("int" | "uint" | "double", _) if matches!(args, [Value::String(_)]) => {
            format!("type conversion error from 'string' to '{name}'")
        }
        (_, ExecutionError::FunctionError { message, .. }) => message.clone(),
        (
            _,
            ExecutionError::NoSuchOverload
            | ExecutionError::UnexpectedType { .. }
            | ExecutionError::UnsupportedTargetType { .. }
            | ExecutionError::NotSupportedAsMethod { .. }
            | ExecutionError::MissingArgumentOrTarget,
        ) => super::eval::NO_OVERLOAD.to_owned(),
        (_, error) => error.to_string(),
    }
}

fn argument(args: &[Value], nth: usize) -> &str {
    match args.get(nth) {
        Some(Value::String(text)) => text,
        _ => "",
    }
}

/// Go's `netip.ParseAddr`.
fn address(text: &str) -> String {
    let why = match text.find(['.', ':', '%']).and_then(|at| text[at..].chars().next()) {
        Some('.') => octets(text),
        Some('%') => "missing IPv6 address".to_owned(),
        Some(_) => "unable to parse IP".to_owned(),
        None => "unable to parse IP".to_owned(),
    };
    format!("ParseAddr({text:?}): {why}")
}

fn octets(text: &str) -> String {
    let parts: Vec<&str> = text.split('.').collect();
    let told = |why: &str| why.to_owned();
    for (nth, part) in parts.iter().enumerate() {
        if let Some(at) = part.find(|c: char| !c.is_ascii_digit()) {
            let from: usize = parts.iter().take(nth).map(|part| part.len() + 1).sum::<usize>() + at;
            return format!("unexpected character (at {:?})", &text[from..]);
        }
        if part.is_empty() {
            let from: usize = parts.iter().take(nth).map(|part| part.len() + 1).sum();
            return match text.get(from..).filter(|rest| !rest.is_empty()) {
                Some(rest) => format!("IPv4 field must have at least one digit (at {rest:?})"),
                None => told("IPv4 field must have at least one digit"),
            };
        }
        if part.len() > 1 && part.starts_with('0') {
            return told("IPv4 field has octet with leading zero");
        }
        if part.parse::<u64>().map_or(true, |value| value > 255) {
            return told("IPv4 field has value >255");
        }
        if nth == 4 {
            return told("IPv4 address too long");
        }
    }
    told("IPv4 address too short")
}

/// Go's `netip.ParsePrefix`.
fn network(name: &str, args: &[Value]) -> String {
    let text = argument(args, usize::from(name == "containsCIDR"));
    let why = match text.rsplit_once('/') {
        None => "no '/'".to_owned(),
        Some((start, _)) if start.parse::<IpAddr>().is_err() => address(start),
        Some((_, length)) if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) => {
            format!("bad bits after slash: {length:?}")
        }
        Some(_) => "prefix length out of range".to_owned(),
    };
    let what = "network address parse error during conversion from string";
    format!("{what}: {what}: netip.ParsePrefix({text:?}): {why}")
}
