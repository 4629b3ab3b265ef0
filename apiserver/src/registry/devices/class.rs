//! DeviceClasses.

use super::{config, selectors};
use crate::custom::cel;
use crate::registry::core::resources::is_extended;
use crate::registry::fields::{alike, items};
use crate::registry::strategy::{Strategy, Traits};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

#[derive(Debug)]
pub struct ClassStrategy;

impl Strategy for ClassStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, ..Traits::DEFAULT }
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        spec(&object["spec"], &Value::Null, causes);
    }

    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        spec(&object["spec"], &old["spec"], causes);
    }
}

/// `validateDeviceClassSpec`; null stands for no spec before.
fn spec(spec: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("spec");
    let (list, at) = (items(spec, "selectors"), path.child("selectors"));
    cel::roomy(causes, |causes| selectors::check(list, items(old, "selectors"), &at, causes));
    let known = !old.is_null() && alike(&spec["config"], &old["config"]) && config::tell_the_same(spec, old);
    config::of_class(items(spec, "config"), known, &path.child("config"), causes);
    if let Some(name) = spec.get("extendedResourceName").and_then(Value::as_str)
        && !is_extended(name)
    {
        let why = "must be a valid extended resource name";
        causes.push(Cause::invalid(&path.child("extendedResourceName"), name, why));
    }
}

#[cfg(test)]
mod tests {
    use super::super::told;
    use super::*;
    use coracle_api::json::json;

    fn check(spec: Value) -> Vec<String> {
        told(|causes| ClassStrategy.validate(&json!({"spec": spec}), causes))
    }

    #[test]
    fn a_class_selects_and_configures() {
        assert!(check(json!(null)).is_empty());
        let config = json!({"opaque": {"driver": "a.b", "parameters": {"c": 1}}});
        let selector = json!({"cel": {"expression": "device.driver == 'a.b'"}});
        assert!(
            check(json!({"selectors": [selector], "config": [config], "extendedResourceName": "a.b/c"})).is_empty()
        );
        assert_eq!(
            check(json!({"selectors": [{}], "config": [{}], "extendedResourceName": "cpu"})),
            [
                "spec.selectors[0].cel: Required value",
                "spec.config[0].opaque: Required value",
                "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
            ]
        );
        assert_eq!(
            check(json!({"config": vec![config; 33]})),
            ["spec.config: Too many: 33: must have at most 32 items"]
        );
        assert_eq!(check(json!({"extendedResourceName": ""})).len(), 1);
    }

    #[test]
    fn a_configuration_that_stays_may_be_as_long_as_it_was() {
        let of = |length: usize, selectors: Value| {
            let config = json!({"opaque": {"driver": "a.b", "parameters": {"c": "d".repeat(length)}}});
            json!({"spec": {"config": [config], "selectors": selectors}})
        };
        let update = |new: &Value, old: &Value| told(|causes| ClassStrategy.validate_changed(new, old, causes));
        let selector = json!([{"cel": {"expression": "1"}}]);
        assert!(update(&of(1, selector.clone()), &of(1, selector.clone())).is_empty());
        assert_eq!(update(&of(1, selector), &of(1, json!(null))).len(), 1);
        let selector = json!([{"cel": {"expression": "true"}}]);
        assert!(update(&of(20_000, selector), &of(20_000, json!(null))).is_empty());
        assert_eq!(
            update(&of(20_001, json!(null)), &of(20_000, json!(null))),
            ["spec.config[0].opaque.parameters: Too long: may not be more than 10240 bytes"]
        );
    }
}
