//! Values in the field names and the order of upstream's internal types (`pkg/apis/resource/types.go`), which have no names
//! of their own for JSON: so its messages show them.

use crate::registry::fields::items;
use coracle_api::json::{Map, Value, json};

/// How a field is shown that is not there, or what is in it.
enum Form {
    /// A pointer, a list of plain values or a map: null.
    Any,
    Text,
    Number,
    /// A structure that is always there.
    Inside(Fields),
    /// A pointer to one.
    Pointer(Fields),
    List(Fields),
}

/// The field's name in v1, in Go, and its form.
type Fields = &'static [(&'static str, &'static str, Form)];

const SELECTOR: Fields = &[("cel", "CEL", Form::Pointer(&[("expression", "Expression", Form::Text)]))];

const TOLERATION: Fields = &[
    ("key", "Key", Form::Text),
    ("operator", "Operator", Form::Text),
    ("value", "Value", Form::Text),
    ("effect", "Effect", Form::Text),
    ("tolerationSeconds", "TolerationSeconds", Form::Any),
];

const CAPACITY: Fields = &[("requests", "Requests", Form::Any)];

const EXACTLY: Fields = &[
    ("deviceClassName", "DeviceClassName", Form::Text),
    ("selectors", "Selectors", Form::List(SELECTOR)),
    ("allocationMode", "AllocationMode", Form::Text),
    ("count", "Count", Form::Number),
    ("adminAccess", "AdminAccess", Form::Any),
    ("tolerations", "Tolerations", Form::List(TOLERATION)),
    ("capacity", "Capacity", Form::Pointer(CAPACITY)),
];

const FIRST_AVAILABLE: Fields = &[
    ("name", "Name", Form::Text),
    ("deviceClassName", "DeviceClassName", Form::Text),
    ("selectors", "Selectors", Form::List(SELECTOR)),
    ("allocationMode", "AllocationMode", Form::Text),
    ("count", "Count", Form::Number),
    ("tolerations", "Tolerations", Form::List(TOLERATION)),
    ("capacity", "Capacity", Form::Pointer(CAPACITY)),
];

const OPAQUE: Form = Form::Pointer(&[("driver", "Driver", Form::Text), ("parameters", "Parameters", Form::Any)]);

const CLAIM: Fields = &[(
    "devices",
    "Devices",
    Form::Inside(&[
        (
            "requests",
            "Requests",
            Form::List(&[
                ("name", "Name", Form::Text),
                ("exactly", "Exactly", Form::Pointer(EXACTLY)),
                ("firstAvailable", "FirstAvailable", Form::List(FIRST_AVAILABLE)),
            ]),
        ),
        (
            "constraints",
            "Constraints",
            Form::List(&[
                ("requests", "Requests", Form::Any),
                ("matchAttribute", "MatchAttribute", Form::Any),
                ("distinctAttribute", "DistinctAttribute", Form::Any),
            ]),
        ),
        ("config", "Config", Form::List(&[("requests", "Requests", Form::Any), ("opaque", "Opaque", OPAQUE)])),
    ]),
)];

const NODE_REQUIREMENT: Fields =
    &[("key", "Key", Form::Text), ("operator", "Operator", Form::Text), ("values", "Values", Form::Any)];

const NODE_SELECTOR: Fields = &[(
    "nodeSelectorTerms",
    "NodeSelectorTerms",
    Form::List(&[
        ("matchExpressions", "MatchExpressions", Form::List(NODE_REQUIREMENT)),
        ("matchFields", "MatchFields", Form::List(NODE_REQUIREMENT)),
    ]),
)];

const RESULT: Fields = &[
    ("request", "Request", Form::Text),
    ("driver", "Driver", Form::Text),
    ("pool", "Pool", Form::Text),
    ("device", "Device", Form::Text),
    ("adminAccess", "AdminAccess", Form::Any),
    ("tolerations", "Tolerations", Form::List(TOLERATION)),
    ("bindingConditions", "BindingConditions", Form::Any),
    ("bindingFailureConditions", "BindingFailureConditions", Form::Any),
    ("shareID", "ShareID", Form::Any),
    ("consumedCapacity", "ConsumedCapacity", Form::Any),
];

const ALLOCATION: Fields = &[
    (
        "devices",
        "Devices",
        Form::Inside(&[
            ("results", "Results", Form::List(RESULT)),
            (
                "config",
                "Config",
                Form::List(&[
                    ("source", "Source", Form::Text),
                    ("requests", "Requests", Form::Any),
                    ("opaque", "Opaque", OPAQUE),
                ]),
            ),
        ]),
    ),
    ("nodeSelector", "NodeSelector", Form::Pointer(NODE_SELECTOR)),
    ("allocationTimestamp", "AllocationTimestamp", Form::Any),
];

const ATTRIBUTE: Fields = &[
    ("int", "IntValue", Form::Any),
    ("bool", "BoolValue", Form::Any),
    ("string", "StringValue", Form::Any),
    ("version", "VersionValue", Form::Any),
    ("ints", "IntValues", Form::Any),
    ("bools", "BoolValues", Form::Any),
    ("strings", "StringValues", Form::Any),
    ("versions", "VersionValues", Form::Any),
];

/// The fields of metadata, which have names of their own for JSON, in their order.
const METADATA: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// The spec of a claim.
pub fn claim_spec(spec: &Value) -> Value {
    structure(spec, CLAIM)
}

/// The spec of a template, whose metadata is part of it.
pub fn template_spec(spec: &Value) -> Value {
    let mut shown = Map::new();
    for field in METADATA {
        if let Some(value) = spec["metadata"].get(field).filter(|value| !value.is_null()) {
            shown.insert(field, value.clone());
        }
    }
    shown.insert("Spec", claim_spec(&spec["spec"]));
    shown.into()
}

/// What a claim got.
pub fn allocation(allocation: &Value) -> Value {
    structure(allocation, ALLOCATION)
}

/// A value of an attribute.
pub fn attribute(attribute: &Value) -> Value {
    structure(attribute, ATTRIBUTE)
}

/// The terms of a selector of nodes.
pub fn node_terms(selector: &Value) -> Value {
    let mut shown = structure(selector, NODE_SELECTOR);
    shown["NodeSelectorTerms"].take()
}

fn structure(value: &Value, fields: Fields) -> Value {
    Value::Object(fields.iter().map(|(name, go, form)| ((*go).to_owned(), shown(value, name, form))).collect())
}

fn shown(value: &Value, name: &str, form: &Form) -> Value {
    let given = value.get(name).filter(|value| !value.is_null());
    match (form, given) {
        (Form::Inside(fields), given) => structure(given.unwrap_or(&Value::Null), fields),
        (Form::Text, None) => json!(""),
        (Form::Number, None) => json!(0),
        (Form::Any | Form::Pointer(_) | Form::List(_), None) => Value::Null,
        (Form::Pointer(fields), Some(given)) => structure(given, fields),
        (Form::List(fields), Some(_)) => items(value, name).iter().map(|item| structure(item, fields)).collect(),
        (Form::Any | Form::Text | Form::Number, Some(given)) => given.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_shown_in_the_names_and_the_order_of_go() {
        let spec = json!({"devices": {
            "requests": [{"exactly": {"count": 1, "deviceClassName": "c", "selectors": [{"cel": {"expression": "true"}}]}, "name": "a"}],
            "config": [{"opaque": {"driver": "d", "parameters": {"b": 1, "a": 2}}}],
        }});
        assert_eq!(
            claim_spec(&spec).to_string(),
            r#"{"Devices":{"Requests":[{"Name":"a","Exactly":{"DeviceClassName":"c","Selectors":[{"CEL":{"Expression":"true"}}],"AllocationMode":"","Count":1,"AdminAccess":null,"Tolerations":null,"Capacity":null},"FirstAvailable":null}],"Constraints":null,"Config":[{"Requests":null,"Opaque":{"Driver":"d","Parameters":{"b":1,"a":2}}}]}}"#
        );
        assert_eq!(
            template_spec(&json!({"spec": {}, "metadata": {"labels": {"a": "b"}, "name": "n"}})).to_string(),
            r#"{"name":"n","labels":{"a":"b"},"Spec":{"Devices":{"Requests":null,"Constraints":null,"Config":null}}}"#
        );
    }

    #[test]
    fn so_is_what_a_claim_got() {
        let got = json!({"nodeSelector": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}});
        assert_eq!(
            allocation(&got).to_string(),
            r#"{"Devices":{"Results":null,"Config":null},"NodeSelector":{"NodeSelectorTerms":[{"MatchExpressions":null,"MatchFields":[{"Key":"metadata.name","Operator":"In","Values":["n"]}]}]},"AllocationTimestamp":null}"#
        );
        assert_eq!(node_terms(&json!({})), Value::Null);
    }
}
