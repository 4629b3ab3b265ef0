//! Tables of custom resources, from the columns that their definition names (apiextensions `tableconvertor`).

use crate::json::{Value, json};
use jiff::Timestamp;

use super::{Cell, Printer, duration, metadata};
use crate::json_path::{self, JsonPath};
use crate::{clock, meta};

/// How objects of any kind are shown.
#[derive(Debug, Clone, Copy)]
pub enum Printing<'a> {
    /// Of a built-in kind.
    Builtin(&'static Printer),
    /// Of a custom resource.
    Custom(&'a CustomPrinter),
}

impl Printing<'_> {
    /// The columns, as metav1.TableColumnDefinition.
    pub fn columns(&self) -> Value {
        match self {
            Printing::Builtin(printer) => printer
                .columns
                .iter()
                .map(|column| {
                    json!({"name": column.name, "type": column.kind, "format": column.format,
                        "description": column.description(), "priority": column.priority})
                })
                .collect(),
            Printing::Custom(printer) => printer.definitions(),
        }
    }

    /// The cells of one object, one for each column.
    pub fn row(&self, object: &Value, now: Timestamp) -> Vec<Cell> {
        match self {
            Printing::Builtin(printer) => printer.row(object, now),
            Printing::Custom(printer) => printer.row(object, now),
        }
    }
}

/// The columns of a custom resource behind its name.
#[derive(Debug, Default)]
pub struct CustomPrinter {
    columns: Vec<CustomColumn>,
}

#[derive(Debug)]
struct CustomColumn {
    /// As the definition gives it.
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    path: JsonPath,
}

impl CustomPrinter {
    /// From `additionalPrinterColumns`; name and age when there are none. The first column whose path cannot be read ends them
    /// (apiextensions `tableconvertor.New`).
    pub fn of(columns: &[Value]) -> Self {
        let age = [json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": metadata::created()})];
        let columns = if columns.is_empty() { &age } else { columns };
        Self { columns: columns.iter().map_while(CustomColumn::of).collect() }
    }

    fn definitions(&self) -> Value {
        let name = json!({"name": "Name", "type": "string", "format": "name",
            "description": metadata::name(), "priority": 0});
        let own = self.columns.iter().map(|column| {
            let described = format!("Custom resource definition column (in JSONPath format): {}", column.path);
            let description = if column.description.is_empty() { &described } else { &column.description };
            json!({"name": column.name, "type": column.kind, "format": column.format, "description": description, "priority": column.priority})
        });
        std::iter::once(name).chain(own).collect()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Cell> {
        let own = self.columns.iter().map(|column| column.cell(object, now));
        std::iter::once(meta::name(object).into()).chain(own).collect()
    }
}

impl CustomColumn {
    fn of(column: &Value) -> Option<Self> {
        let text = |name: &str| column.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description: text("description"),
            priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
            path: JsonPath::of_column(&text("jsonPath")).ok()?,
        })
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Cell {
        let Some(first) = self.path.first(object) else { return Value::Null };
        match (self.kind.as_str(), &*first) {
            // Go's reflection has no value for null.
            ("string", Value::Null) => "<no value>".into(),
            ("string", value) => json_path::text(value).into(),
            ("integer", value) => match (value.as_i64(), value.as_f64()) {
                (Some(number), _) => number.into(),
                (None, Some(number)) => (number as i64).into(),
                _ => Value::Null,
            },
            ("number", Value::Number(number)) => Value::Number(number.clone()),
            ("boolean", Value::Bool(flag)) => Value::Bool(*flag),
            // No text is no time.
            ("date", Value::String(time)) if time.is_empty() => "<unknown>".into(),
            ("date", Value::String(time)) => {
                clock::parse_rfc3339(time).map_or_else(|| "<invalid>".into(), |_| duration::since(time, now).into())
            }
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_show_what_their_paths_find() {
        let printer = CustomPrinter::of(&[
            json!({"name": "Size", "type": "integer", "jsonPath": ".spec.size"}),
            json!({"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}),
            json!({"name": "Made", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
            json!({"name": "Tags", "type": "string", "jsonPath": ".spec.tags", "priority": 1}),
            json!({"name": "None", "type": "boolean", "jsonPath": ".spec.none"}),
        ]);
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"size": 3, "tags": ["x"]},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        assert_eq!(
            printer.row(&object, now),
            [json!("a"), json!(3), json!("True"), json!("60s"), json!("[\"x\"]"), Value::Null]
        );
        assert_eq!(printer.definitions().as_array().unwrap().len(), 6);
        assert_eq!(CustomPrinter::of(&[]).definitions()[1]["name"], "Age");
    }
}
