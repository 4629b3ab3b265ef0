//! The arithmetic of surge and unavailability (upstream's pkg/controller/deployment/util).

use k8s_openapi::{api::apps::v1::DeploymentSpec, apimachinery::pkg::util::intstr::IntOrString};

/// Whether pods are replaced a few at a time; the other strategy is Recreate.
pub fn is_rolling(spec: &DeploymentSpec) -> bool {
    let kind = spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    kind.is_none_or(|kind| kind == "RollingUpdate")
}

/// The number of pods asked for.
pub fn wanted(spec: &DeploymentSpec) -> i32 {
    spec.replicas.unwrap_or(1)
}

/// How many pods there may be beyond the wanted number.
pub fn max_surge(spec: &DeploymentSpec) -> i32 {
    if is_rolling(spec) { fence_posts(spec).0 } else { 0 }
}

/// How many of the wanted pods may be unavailable.
pub fn max_unavailable(spec: &DeploymentSpec) -> i32 {
    if !is_rolling(spec) || wanted(spec) == 0 {
        return 0;
    }
    fence_posts(spec).1.min(wanted(spec))
}

/// Surge rounded up and unavailability rounded down; never both zero, or nothing could move.
fn fence_posts(spec: &DeploymentSpec) -> (i32, i32) {
    let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter);
    let (surge, unavailable) = (scaled(surge, wanted(spec), true), scaled(unavailable, wanted(spec), false));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// An absolute number as it is, or a percentage of `total`. What is neither is 0 (the server refuses it).
fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()).unwrap_or(0);
            let product = percent.saturating_mul(i64::from(total));
            let rounded = if round_up { product.saturating_add(99) / 100 } else { product / 100 };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn percentages_round_away_from_standstill() {
        let cases = [
            // replicas, surge, unavailable → surge, unavailable
            (4, json!("25%"), json!("25%"), (1, 1)),
            (3, json!("25%"), json!("25%"), (1, 0)),
            (1, json!("25%"), json!("25%"), (1, 0)),
            (10, json!("30%"), json!("39%"), (3, 3)),
            (10, json!(0), json!("1%"), (0, 1)),
            (10, json!(0), json!(0), (0, 1)),
            (2, json!(5), json!(7), (5, 2)),
            (0, json!(1), json!(1), (1, 0)),
            (3, json!(null), json!(null), (1, 0)),
        ];
        for (replicas, surge, unavailable, expected) in cases {
            let spec: DeploymentSpec = coracle_api::json::from_value(json!({
                "replicas": replicas, "selector": {}, "template": {},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            }))
            .unwrap();
            assert_eq!((max_surge(&spec), max_unavailable(&spec)), expected, "{replicas} {surge} {unavailable}");
        }
    }
}
