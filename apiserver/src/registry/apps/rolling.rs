//! Numbers of a rolling update: whole or in percent.

use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

/// What a number of pods can be: not negative, or a percentage (`ValidatePositiveIntOrPercent`).
pub fn number(value: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    match value {
        Some(Value::String(text)) if percent(text).is_none() => {
            let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            causes.push(Cause::invalid(path, text.as_str(), why));
        }
        Some(Value::Number(number)) if number.as_i64().unwrap_or(0) < 0 => {
            causes.push(Cause::invalid(path, number.clone(), "must be greater than or equal to 0"));
        }
        _ => {}
    }
}

/// A percentage of pods that cannot be more than all (`IsNotMoreThan100Percent`).
pub fn at_most_all(value: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(Value::String(text)) = value
        && percent(text).is_some_and(|number| number > 100)
    {
        causes.push(Cause::invalid(path, text.as_str(), "must not be greater than 100%"));
    }
}

fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) { None } else { digits.parse().ok() }
}

/// Whether a number is nothing at all: 0 or 0%, absent, or text that is no number (`getIntOrPercentValue`).
pub fn is_zero(value: Option<&Value>) -> bool {
    match value {
        Some(Value::String(text)) => percent(text).or_else(|| text.parse().ok()).unwrap_or(0) == 0,
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        _ => true,
    }
}
