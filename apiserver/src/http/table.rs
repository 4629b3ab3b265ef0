//! Tables: what `kubectl get` prints (meta.k8s.io Table).

use super::negotiate::Meta;
use super::render::partial;
use coracle_api::Status;
use coracle_api::json::{Value, json};
use coracle_api::printing::Printing;
use jiff::Timestamp;

/// What a row carries of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// From the query's `includeObject`.
    pub fn parse(text: Option<&str>) -> Result<Self, Status> {
        match text {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// The row of an object.
pub fn row(printing: Printing<'_>, object: &Value, include: Include, meta: Meta, now: Timestamp) -> Value {
    let cells = printing.row(object, now);
    let mut row = json!({"cells": cells});
    match include {
        Include::None => row["object"] = Value::Null,
        Include::Metadata => row["object"] = partial(object, meta),
        Include::Object => row["object"] = object.clone(),
    }
    row
}

/// A table of rows.
pub fn document(printing: Printing<'_>, revision: &str, rows: Vec<Value>, with_columns: bool, meta: Meta) -> Value {
    let columns = if with_columns { printing.columns() } else { json!([]) };
    let mut metadata = json!({});
    if !revision.is_empty() {
        metadata["resourceVersion"] = revision.into();
    }
    json!({"kind": "Table", "apiVersion": meta.api_version(), "metadata": metadata, "columnDefinitions": columns, "rows": rows})
}
