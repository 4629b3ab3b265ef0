//! Disruption budgets (policy/v1 `validation.go`).

use super::apps::rolling;
use super::conditions::conditions;
use super::fields::{alike, items, label_selector, non_negative, one_of, remove, text};
use super::strategy::{NameRule, Strategy, Traits};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

/// policy/v1 PodDisruptionBudget
#[derive(Debug)]
pub struct BudgetStrategy;

impl Strategy for BudgetStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, unconditional_update: false, ..Traits::DEFAULT }
    }

    fn name_rule(&self) -> NameRule {
        // Upstream leaves the name to what every object's must be.
        validation::path_segment
    }

    fn blank_status(&self) -> Value {
        json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
    }

    fn default(&self, object: &mut Value) {
        if let Some(selector) = object.pointer_mut("/spec/selector") {
            strip_marks(selector);
        }
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let given = |name: &str| spec.get(name).filter(|value| !value.is_null());
        let (least, most) = (given("minAvailable"), given("maxUnavailable"));
        if least.is_some() && most.is_some() {
            // In the field names of upstream's internal type.
            let shown = json!({
                "MinAvailable": least, "Selector": given("selector"), "MaxUnavailable": most,
                "UnhealthyPodEvictionPolicy": given("unhealthyPodEvictionPolicy"),
            });
            causes.push(Cause::invalid(&path, shown, "minAvailable and maxUnavailable cannot be both set"));
        }
        for (value, name) in [(least, "minAvailable"), (most, "maxUnavailable")] {
            rolling::number(value, &path.child(name), causes);
            rolling::at_most_all(value, &path.child(name), causes);
        }
        label_selector(&spec["selector"], &path.child("selector"), causes);
        one_of(spec, "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"], &path, causes);
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        let (status, path) = (&object["status"], FieldPath::new("status"));
        conditions(items(status, "conditions"), &path.child("conditions"), causes);
        for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            non_negative(status, field, &path, causes);
        }
    }
}

/// What v1beta1 told selectors of nothing from those of everything by.
const MARK: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";

/// Takes the mark from requirements, but where it is all there is (policy/v1 `conversion.go`).
fn strip_marks(selector: &mut Value) {
    if alike(selector, &json!({"matchExpressions": [{"key": MARK, "operator": "Exists"}]})) {
        return;
    }
    let Some(requirements) = selector.get_mut("matchExpressions").and_then(Value::as_array_mut) else { return };
    requirements.retain(|requirement| text(requirement, "key") != MARK);
    if requirements.is_empty() {
        remove(selector, "matchExpressions");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_v1beta1_stands_alone_or_not_at_all() {
        let mark = |operator: &str| json!({"key": MARK, "operator": operator});
        let other = json!({"key": "a", "operator": "Exists"});
        for (given, kept) in [
            (json!({"matchExpressions": [mark("Exists")]}), json!({"matchExpressions": [mark("Exists")]})),
            (json!({"matchExpressions": [mark("DoesNotExist")]}), json!({})),
            (json!({"matchExpressions": [mark("Exists"), mark("Exists")]}), json!({})),
            (json!({"matchExpressions": [other, mark("Exists")]}), json!({"matchExpressions": [other]})),
            (
                json!({"matchLabels": {"a": "b"}, "matchExpressions": [mark("Exists")]}),
                json!({"matchLabels": {"a": "b"}}),
            ),
            (json!({}), json!({})),
        ] {
            let mut budget = json!({"spec": {"selector": given}});
            BudgetStrategy.default(&mut budget);
            assert_eq!(budget["spec"]["selector"], kept, "{given}");
        }
    }
}
