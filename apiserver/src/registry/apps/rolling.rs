//! Numbers of a rolling update: whole or in percent.

use coracle_api::Cause;
use coracle_api::status::FieldPath;
use serde_json::Value;

/// What a number of pods can be: not negative, or a percentage.
pub fn validate(value: Option<&Value>, at_most_all: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    match value {
        Some(Value::String(text)) => match percent(text) {
            None => {
                let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                causes.push(Cause::invalid(path, text.as_str(), why));
            }
            Some(number) if at_most_all && number > 100 => {
                causes.push(Cause::invalid(path, text.as_str(), "must not be greater than 100%"))
            }
            Some(_) => {}
        },
        Some(Value::Number(number)) if number.as_i64().unwrap_or(0) < 0 => {
            causes.push(Cause::invalid(path, number.clone(), "must be greater than or equal to 0"));
        }
        _ => {}
    }
}

fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) { None } else { digits.parse().ok() }
}

/// Whether a number is nothing at all: 0 or 0%.
pub fn is_zero(value: Option<&Value>) -> bool {
    match value {
        Some(Value::String(text)) => percent(text) == Some(0),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        _ => false,
    }
}
