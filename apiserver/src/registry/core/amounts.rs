//! Lists of resources: no amount is finer than a thousandth, it is rounded up (core/v1 `SetDefaults_ResourceList`).

use crate::registry::fields::{self, field_mut};
use coracle_api::json::Value;
use coracle_api::quantity::Quantity;

/// The way from an object to one of its lists; `*` is each item of a list.
type Way = &'static [&'static str];

/// The lists of a pod's spec.
pub const POD_SPEC: &[Way] = &[
    &["containers", "*", "resources", "limits"],
    &["containers", "*", "resources", "requests"],
    &["initContainers", "*", "resources", "limits"],
    &["initContainers", "*", "resources", "requests"],
    &["ephemeralContainers", "*", "resources", "limits"],
    &["ephemeralContainers", "*", "resources", "requests"],
    &["volumes", "*", "ephemeral", "volumeClaimTemplate", "spec", "resources", "limits"],
    &["volumes", "*", "ephemeral", "volumeClaimTemplate", "spec", "resources", "requests"],
    &["resources", "limits"],
    &["resources", "requests"],
    &["overhead"],
];

/// The lists of a pod's status.
pub const POD_STATUS: &[Way] = &[
    &["containerStatuses", "*", "allocatedResources"],
    &["containerStatuses", "*", "resources", "limits"],
    &["containerStatuses", "*", "resources", "requests"],
    &["initContainerStatuses", "*", "allocatedResources"],
    &["initContainerStatuses", "*", "resources", "limits"],
    &["initContainerStatuses", "*", "resources", "requests"],
    &["ephemeralContainerStatuses", "*", "allocatedResources"],
    &["ephemeralContainerStatuses", "*", "resources", "limits"],
    &["ephemeralContainerStatuses", "*", "resources", "requests"],
    &["allocatedResources"],
    &["resources", "limits"],
    &["resources", "requests"],
];

/// The lists of a claim.
pub const CLAIM: &[Way] = &[
    &["spec", "resources", "limits"],
    &["spec", "resources", "requests"],
    &["status", "capacity"],
    &["status", "allocatedResources"],
];

/// The lists of a LimitRange.
pub const LIMIT_RANGE: &[Way] = &[
    &["spec", "limits", "*", "max"],
    &["spec", "limits", "*", "min"],
    &["spec", "limits", "*", "default"],
    &["spec", "limits", "*", "defaultRequest"],
    &["spec", "limits", "*", "maxLimitRequestRatio"],
];

/// The lists of a ResourceQuota.
pub const QUOTA: &[Way] = &[&["spec", "hard"], &["status", "hard"], &["status", "used"]];

/// The lists of a node.
pub const NODE: &[Way] = &[&["status", "capacity"], &["status", "allocatable"]];

/// The list of a volume's spec.
pub const VOLUME_SPEC: &[Way] = &[&["capacity"]];

/// The list of a VolumeAttachment's spec.
pub const ATTACHMENT_SPEC: &[Way] = &[&["source", "inlineVolumeSpec", "capacity"]];

/// The list of a RuntimeClass.
pub const RUNTIME_CLASS: &[Way] = &[&["overhead", "podFixed"]];

/// Rounds the amounts of all lists that there are.
pub fn round(holder: &mut Value, ways: &[Way]) {
    ways.iter().for_each(|way| along(holder, way));
}

/// Whether both say the same, whether or not the one that is kept was rounded.
pub fn alike(new: &Value, kept: &Value, ways: &[Way]) -> bool {
    fields::alike(new, kept) || {
        let mut kept = kept.clone();
        round(&mut kept, ways);
        fields::alike(new, &kept)
    }
}

fn along(value: &mut Value, way: &[&str]) {
    match way.split_first() {
        None => value.as_object_mut().into_iter().flat_map(|list| list.values_mut()).for_each(amount),
        Some((&"*", rest)) => value.as_array_mut().into_iter().flatten().for_each(|item| along(item, rest)),
        Some((name, rest)) => {
            if let Some(value) = field_mut(value, name) {
                along(value, rest);
            }
        }
    }
}

fn amount(value: &mut Value) {
    // Hardly any is as fine as that, and is not read for it.
    let finer = value.as_str().filter(|text| text.bytes().any(|byte| matches!(byte, b'n' | b'u' | b'.' | b'e' | b'E')));
    let Some(amount) = finer.and_then(|text| Quantity::parse(text).ok()) else { return };
    let rounded = amount.round_up_to_millis();
    if rounded != amount {
        *value = rounded.to_string().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn amounts_are_no_finer_than_a_thousandth() {
        for (given, kept) in [
            ("100u", "1m"),
            ("1n", "1m"),
            ("1000500u", "1001m"),
            ("-1500u", "-2m"),
            ("1.0005", "1001m"),
            ("100e-6", "1e-3"),
            ("102400u", "103m"),
            ("1500m", "1500m"),
            ("0.5", "0.5"),
            ("1e3", "1e3"),
            ("1Ei", "1Ei"),
            ("1E", "1E"),
            ("nun", "nun"),
        ] {
            let mut spec = json!({"containers": [{}, {"resources": {"limits": {"cpu": given}, "claims": [{"name": "100u"}]}}],
                "overhead": {"cpu": given}, "nodeName": "100u"});
            round(&mut spec, POD_SPEC);
            let wanted = json!({"containers": [{}, {"resources": {"limits": {"cpu": kept}, "claims": [{"name": "100u"}]}}],
                "overhead": {"cpu": kept}, "nodeName": "100u"});
            assert_eq!(spec, wanted, "{given}");
        }
    }

    #[test]
    fn what_is_no_list_stays() {
        for odd in [
            json!(null),
            json!([{"limits": "1u"}]),
            json!({"containers": {"*": 1}, "overhead": ["1u"], "resources": 3}),
        ] {
            let mut spec = odd.clone();
            round(&mut spec, POD_SPEC);
            assert_eq!(spec, odd);
        }
    }

    #[test]
    fn what_was_kept_before_amounts_were_rounded_is_the_same() {
        let spec = |amount: &str| json!({"overhead": {"cpu": amount}});
        assert!(alike(&spec("1m"), &spec("100u"), POD_SPEC));
        assert!(!alike(&spec("2m"), &spec("100u"), POD_SPEC));
    }
}
