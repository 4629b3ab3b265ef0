//! Whether an applied configuration fits the schema, in the words of structured-merge-diff.

use std::collections::HashSet;

use crate::json::Value;

use super::place::{Form, Place, is_number};
use crate::go;
use crate::schema::{Kind, Scalar, TypeRef, ValueRef};

/// Most errors that are told at once.
const MOST: usize = 32;

/// Everything in the configuration that the schema does not have, or has otherwise.
///
/// # Errors
/// The message, of one line for one error and of several for more.
pub fn check(object: &Value, ty: TypeRef<'_>) -> Result<(), String> {
    let mut errors = Vec::new();
    walk(object, Place::root(ty), "", &mut errors);
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn walk(value: &Value, place: Place<'_>, path: &str, errors: &mut Vec<String>) {
    if errors.len() >= MOST || value.is_null() {
        return;
    }
    let at = if path.is_empty() { String::new() } else { format!("{path}: ") };
    match place.value.map(ValueRef::kind) {
        Some(Kind::Scalar(scalar)) => {
            if let Some(why) = misfit(value, scalar) {
                errors.push(format!("{at}{why}"));
            }
            return;
        }
        Some(Kind::Object(_) | Kind::Map(_)) if !value.is_object() => {
            errors.push(format!("{at}expected map, got &{{{}}}", plain(value)));
            return;
        }
        Some(Kind::List(_)) if !value.is_array() => {
            errors.push(format!("{at}expected list, got &{{{}}}", plain(value)));
            return;
        }
        _ => {}
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match place.field(name) {
                    Some(inner) => walk(value, inner, &format!("{path}.{name}"), errors),
                    None => errors.push(format!("{path}.{name}: field not declared in schema")),
                }
            }
        }
        Value::Array(items) => {
            let told_apart = matches!(place.form(value), Form::Items(_));
            let mut seen = HashSet::new();
            for (nth, item) in items.iter().enumerate() {
                let element =
                    if told_apart { place.element(item).map(|element| element.path()) } else { Ok(format!("[{nth}]")) };
                match element {
                    Err(why) => errors.push(format!("{at}element {nth}: {why}")),
                    Ok(element) => {
                        if told_apart && !seen.insert(element.clone()) {
                            errors.push(format!("{at}duplicate entries for key {element}"));
                        }
                        walk(item, place.item(), &format!("{path}{element}"), errors);
                    }
                }
            }
        }
        _ => {}
    }
}

fn misfit(value: &Value, scalar: Scalar) -> Option<String> {
    match scalar {
        _ if is_number(scalar) && !value.is_number() => {
            Some(format!("expected numeric (int or float), got {}", go::type_name(value)))
        }
        Scalar::Bool if !value.is_boolean() => Some(format!("expected boolean, got &{{{}}}", plain(value))),
        Scalar::String | Scalar::Time | Scalar::MicroTime | Scalar::Bytes if !value.is_string() => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{value}}}"))
        }
        Scalar::Quantity | Scalar::IntOrString if !value.is_string() && !value.is_number() => {
            Some(format!("expected scalar, got {}", go::type_name(value)))
        }
        _ => None,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::Gvk;
    use crate::json::json;
    use crate::schema;

    #[test]
    fn upstreams_words() {
        let ty = schema::of(&Gvk::of("apps", "v1", "Deployment")).unwrap();
        for (object, message) in [
            (json!({"spec": {"foo": 1}}), ".spec.foo: field not declared in schema"),
            (json!({"spec": {"replicas": "3"}}), ".spec.replicas: expected numeric (int or float), got string"),
            (
                json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}}),
                ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": [{"image": "a"}]}}}}),
                ".spec.template.spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
            ),
            (json!({"spec": []}), ".spec: expected map, got &{[]}"),
            (
                json!({"a": 1, "b": 2}),
                "errors:\n  .a: field not declared in schema\n  .b: field not declared in schema",
            ),
        ] {
            assert_eq!(check(&object, ty).unwrap_err(), message);
        }
        assert!(
            check(&json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1, "paused": null}}), ty).is_ok()
        );
    }
}
