//! Values as templates show them (client-go `jsonpath.PrintResults`).

use crate::go;
use crate::json::Value;

/// Text as it is, maps and lists as JSON, the rest as Go prints it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(_) | Value::Object(_) => go::sorted_json(value),
        scalar => go::print(scalar),
    }
}
