//! How much of a device there is, and how it is shared.

use super::lists;
use crate::registry::fields::{is_set, items, quantity};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::quantity::Quantity;
use coracle_api::status::FieldPath;

const VALUES_MAX: usize = 10;

/// A capacity; only of devices that are `shared` it says how (`validateMultiAllocatableDeviceCapacity`,
/// `validateSingleAllocatableDeviceCapacity`).
pub fn validate(capacity: &Value, shared: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    if !is_set(capacity, "requestPolicy") {
        return;
    }
    let path = path.child("requestPolicy");
    if shared {
        policy(&capacity["requestPolicy"], amount(capacity, "value").unwrap_or(Quantity::ZERO), &path, causes);
    } else {
        causes.push(Cause::forbidden(&path, "allowMultipleAllocations must be true"));
    }
}

/// A quantity, when there is one. Any text that is none was refused as it was read.
fn amount(of: &Value, name: &str) -> Option<Quantity> {
    of.get(name).and_then(quantity)
}

/// `validateRequestPolicy`
fn policy(policy: &Value, most: Quantity, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (values, range) = (is_set(policy, "validValues"), is_set(policy, "validRange"));
    let field = match (values, range) {
        (true, true) => {
            let why = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            return causes.push(Cause::forbidden(path, why));
        }
        (true, false) => "validValues",
        (false, true) => "validRange",
        (false, false) => return,
    };
    let Some(default) = amount(policy, "default") else {
        return causes.push(Cause::required(&path.child("default"), &format!("required when {field} is defined")));
    };
    let path = path.child(field);
    if values {
        valid_values(items(policy, field), default, most, &path, causes);
    } else {
        valid_range(&policy[field], default, most, &path, causes);
    }
}

/// Amounts of which one is had (`validateRequestPolicyValidValues`).
fn valid_values(list: &[Value], default: Quantity, most: Quantity, path: &FieldPath, causes: &mut Vec<Cause>) {
    let read = |value: &Value| quantity(value).unwrap_or(Quantity::ZERO);
    for (nth, pair) in list.windows(2).enumerate() {
        if read(&pair[0]) > read(&pair[1]) {
            let why = "values must be sorted in ascending order";
            causes.push(Cause::invalid(&path.index(nth + 1), read(&pair[1]).to_string(), why));
        }
    }
    let mut found = false;
    let check = |value: &Value, path: &FieldPath, causes: &mut Vec<Cause>| {
        let value = read(value);
        if value > most {
            let why = format!("option is larger than capacity value: {most}");
            causes.push(Cause::invalid(path, value.to_string(), why));
        }
        found |= value == default;
    };
    // Of amounts with the same whole part upstream takes one for the other.
    lists::set(list, VALUES_MAX, path, causes, check, |value| read(value).units().to_string().into());
    if !found {
        let why = "default value is not valid according to the requestPolicy";
        causes.push(Cause::invalid(path, default.to_string(), why));
    }
}

/// Amounts from one to another, in steps (`validateRequestPolicyRange`).
fn valid_range(range: &Value, default: Quantity, most: Quantity, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(min) = amount(range, "min") else {
        return causes.push(Cause::required(&path.child("min"), "required when validRange is defined"));
    };
    let max = amount(range, "max");
    let mut told = |wrong: bool, field: &str, value: Quantity, why: String| {
        if wrong {
            causes.push(Cause::invalid(&path.child(field), value.to_string(), why));
        }
    };
    told(min > most, "min", min, format!("min is larger than capacity value: {most}"));
    told(default < min, "min", default, format!("default is less than min: {min}"));
    if let Some(max) = max {
        told(min > max, "max", min, format!("min is larger than max: {max}"));
        told(max > most, "max", max, format!("max is larger than capacity value: {most}"));
        told(default > max, "max", default, format!("default is more than max: {max}"));
    }
    let Some(step) = amount(range, "step") else { return };
    let first = min + step;
    told(first > most, "step", step, format!("one step {first} is larger than capacity value: {most}"));
    for value in [Some(default), max].into_iter().flatten() {
        let why = format!("value is not a multiple of a given step ({step}) from ({min})");
        told(!is_step(value, min, step), "step", value, why);
    }
}

/// Whether a value is some steps away from the first. Nothing but that itself is when the steps lead nowhere, which upstream
/// cannot judge.
fn is_step(value: Quantity, min: Quantity, step: Quantity) -> bool {
    let away = i128::from(value.units()) - i128::from(min.units());
    away.checked_rem(i128::from(step.units())).unwrap_or(away) == 0
}

#[cfg(test)]
mod tests {
    use super::super::told;
    use super::*;
    use coracle_api::json::json;

    fn check(policy: Value) -> Vec<String> {
        let capacity = json!({"value": "10Gi", "requestPolicy": policy});
        told(|causes| validate(&capacity, true, &FieldPath::new("c"), causes))
    }

    #[test]
    fn only_what_is_shared_says_how() {
        let capacity = json!({"value": "1", "requestPolicy": {}});
        assert_eq!(
            told(|causes| validate(&capacity, false, &FieldPath::new("c"), causes)),
            ["c.requestPolicy: Forbidden: allowMultipleAllocations must be true"]
        );
        assert!(check(json!({})).is_empty());
        assert_eq!(
            check(json!({"validValues": ["1"], "validRange": {}})),
            [
                "c.requestPolicy: Forbidden: exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time"
            ]
        );
    }

    #[test]
    fn valid_values_are_sorted_and_the_default_is_one() {
        assert!(check(json!({"default": "2Gi", "validValues": ["1Gi", "2Gi", "10Gi"]})).is_empty());
        assert_eq!(
            check(json!({"validValues": ["1"]})),
            ["c.requestPolicy.default: Required value: required when validValues is defined"]
        );
        assert_eq!(
            check(json!({"default": "3", "validValues": ["2", "1", "1", "11Gi"]})),
            [
                "c.requestPolicy.validValues[1]: Invalid value: \"1\": values must be sorted in ascending order",
                "c.requestPolicy.validValues[3]: Invalid value: \"11Gi\": option is larger than capacity value: 10Gi",
                "c.requestPolicy.validValues[2]: Duplicate value: \"1\"",
                "c.requestPolicy.validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy",
            ]
        );
        let many = check(json!({"default": "1", "validValues": vec!["1"; 11]}));
        assert_eq!(many[0], "c.requestPolicy.validValues: Too many: 11: must have at most 10 items");
    }

    #[test]
    fn a_range_lies_within_the_capacity() {
        assert!(check(json!({"default": "2", "validRange": {"min": "1", "max": "3", "step": "1"}})).is_empty());
        let at = "c.requestPolicy";
        assert_eq!(
            check(json!({"validRange": {}})),
            [format!("{at}.default: Required value: required when validRange is defined")]
        );
        assert_eq!(
            check(json!({"default": "1", "validRange": {}})),
            [format!("{at}.validRange.min: Required value: required when validRange is defined")]
        );
        assert_eq!(
            check(json!({"default": "20Gi", "validRange": {"min": "30Gi", "max": "15Gi"}})),
            [
                format!("{at}.validRange.min: Invalid value: \"30Gi\": min is larger than capacity value: 10Gi"),
                format!("{at}.validRange.min: Invalid value: \"20Gi\": default is less than min: 30Gi"),
                format!("{at}.validRange.max: Invalid value: \"30Gi\": min is larger than max: 15Gi"),
                format!("{at}.validRange.max: Invalid value: \"15Gi\": max is larger than capacity value: 10Gi"),
                format!("{at}.validRange.max: Invalid value: \"20Gi\": default is more than max: 15Gi"),
            ]
        );
    }

    #[test]
    fn steps_lead_to_the_default_and_to_the_end() {
        let at = "c.requestPolicy.validRange.step";
        assert_eq!(
            check(json!({"default": "2", "validRange": {"min": "1", "max": "5", "step": "3"}})),
            [
                format!("{at}: Invalid value: \"2\": value is not a multiple of a given step (3) from (1)"),
                format!("{at}: Invalid value: \"5\": value is not a multiple of a given step (3) from (1)"),
            ]
        );
        assert_eq!(
            check(json!({"default": "1", "validRange": {"min": "1", "step": "10Gi"}})),
            [format!("{at}: Invalid value: \"10Gi\": one step 10737418241 is larger than capacity value: 10Gi")]
        );
        assert_eq!(check(json!({"default": "2", "validRange": {"min": "1", "step": "0"}})).len(), 1, "and no panic");
    }
}
