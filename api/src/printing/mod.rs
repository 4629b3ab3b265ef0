//! The columns and rows people see, per kind (kubernetes `pkg/printers/internalversion`).

mod access;
mod batch;
mod core;
mod custom;
mod duration;
mod metadata;
mod network;
mod node;
mod pod;
mod policy;
mod storage;
mod workloads;

use crate::json::Value;
use jiff::Timestamp;

pub use custom::{CustomPrinter, Printing};
pub use duration::{age, human_duration};

use crate::gvk::Gvk;
use crate::meta;

/// One cell: text or a whole number.
pub type Cell = Value;

/// A column of a table (metav1.TableColumnDefinition).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its heading.
    pub name: &'static str,
    /// `string`, `integer`, `date`: OpenAPI's types.
    pub kind: &'static str,
    /// `name` for the column that names the object.
    pub format: &'static str,
    /// 0 is always shown, others on request.
    pub priority: u8,
}

impl Column {
    /// What the column shows.
    pub fn description(&self) -> String {
        match self.name {
            "Name" => metadata::name().into(),
            "Age" | "Created At" => metadata::created().into(),
            other => format!("{other} of the object."),
        }
    }
}

/// How objects of a kind are shown.
#[derive(Debug)]
pub struct Printer {
    /// The columns, all priorities.
    pub columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Cell>,
}

impl Printer {
    /// The cells of one object, one for each column.
    pub fn row(&self, object: &Value, now: Timestamp) -> Vec<Cell> {
        (self.cells)(object, now)
    }
}

/// How objects of `gvk` are shown; kinds of which nothing is known show their name and when they were created.
pub fn of(gvk: &Gvk) -> &'static Printer {
    let kind = gvk.kind.strip_suffix("List").unwrap_or(&gvk.kind);
    let groups: [fn(&str, &str) -> Option<&'static Printer>; 7] =
        [core::find, workloads::find, batch::find, network::find, node::find, policy::find, storage::find];
    if (&*gvk.group, kind) == ("", "Pod") {
        return &pod::POD;
    }
    groups.iter().find_map(|find| find(&gvk.group, kind)).unwrap_or(&DEFAULT)
}

/// The column by whose numbers the rows of a list of `gvk` are in order, where that is not the order of the list
/// (`printFlowSchemaList`); those with the same number are in the order of their names.
pub fn sorted_by(gvk: &Gvk) -> Option<usize> {
    let kind = gvk.kind.strip_suffix("List").unwrap_or(&gvk.kind);
    (&*gvk.group == "flowcontrol.apiserver.k8s.io" && kind == "FlowSchema").then_some(policy::PRECEDENCE)
}

/// Name and age.
fn aged() -> &'static Printer {
    static AGED: Printer = Printer {
        columns: &[NAME, AGE],
        cells: |object, now| vec![meta::name(object).into(), age(object, now).into()],
    };
    &AGED
}

static DEFAULT: Printer = Printer {
    columns: &[NAME, date("Created At")],
    cells: |object, _| vec![meta::name(object).into(), meta::creation_timestamp(object).into()],
};

const NAME: Column = Column { name: "Name", kind: "string", format: "name", priority: 0 };
const AGE: Column = text("Age");

const fn text(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 0 }
}
const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 1 }
}
const fn number(name: &'static str) -> Column {
    Column { name, kind: "integer", format: "", priority: 0 }
}
const fn boolean(name: &'static str) -> Column {
    Column { name, kind: "boolean", format: "", priority: 0 }
}
const fn date(name: &'static str) -> Column {
    Column { name, kind: "date", format: "", priority: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;
    use crate::schema;

    /// Every kind there is, with objects that are as empty and as odd as they can be: a row always has a cell a column.
    #[test]
    fn rows_fit_columns() {
        let now = Timestamp::UNIX_EPOCH;
        for (gvk, _) in schema::builtin().kinds() {
            let printer = of(gvk);
            for object in [
                json!({}),
                json!(null),
                json!({"metadata": {"name": "x"}, "spec": {}, "status": {}}),
                json!({"spec": 3, "status": [], "metadata": ""}),
            ] {
                assert_eq!(printer.row(&object, now).len(), printer.columns.len(), "{gvk} {object}");
            }
        }
    }

    #[test]
    fn kinds_without_columns_show_when_they_were_made() {
        let role = json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        let printer = of(&Gvk::of("rbac.authorization.k8s.io", "v1", "Role"));
        assert_eq!(printer.columns[1].name, "Created At");
        assert_eq!(printer.row(&role, Timestamp::UNIX_EPOCH), ["r", "2026-01-01T00:00:00Z"]);
    }
}
