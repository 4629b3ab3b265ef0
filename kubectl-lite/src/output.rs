//! Printing objects: the server's columns, JSON, YAML, names, JSONPath, columns of the user's.

use std::{fs, io::Write};

use coracle_api::json::Value;
use coracle_api::{go, meta, yaml};
use tabwriter::{Alignment, TabWriter};

use crate::{
    cli::Output,
    discovery::Resource,
    error::{Error, Result},
    jsonpath::{self, JsonPath},
};

/// A parsed `-o`.
#[derive(Debug)]
pub enum Format {
    Table { wide: bool },
    Json,
    Yaml,
    Name,
    JsonPath(JsonPath),
    Columns(Vec<(String, JsonPath)>, bool),
}

impl Format {
    /// Reads `-o`.
    pub fn parse(output: &Output) -> Result<Self> {
        let Some(text) = output.output.as_deref() else { return Ok(Self::Table { wide: false }) };
        let (kind, template) = text.split_once('=').map_or((text, None), |(kind, template)| (kind, Some(template)));
        match (kind, template) {
            ("wide", None) => Ok(Self::Table { wide: true }),
            ("json", None) => Ok(Self::Json),
            ("yaml", None) => Ok(Self::Yaml),
            ("name", None) => Ok(Self::Name),
            ("jsonpath", Some(template)) => Ok(Self::JsonPath(jsonpath::parse(template)?)),
            ("jsonpath-file", Some(path)) => Ok(Self::JsonPath(jsonpath::parse(&read(path)?)?)),
            ("custom-columns", Some(spec)) => columns(spec, true),
            ("jsonpath" | "jsonpath-file" | "custom-columns", _) => {
                Err(Error::usage(format!("template format specified but no template given: use {kind}=…")))
            }
            _ => Err(Error::usage(format!(
                "unable to match a printer suitable for the output format \"{text}\", allowed formats are: custom-columns,json,jsonpath,jsonpath-file,name,wide,yaml"
            ))),
        }
    }

    /// Whether the server should answer with its own columns.
    pub fn is_table(&self) -> bool {
        matches!(self, Self::Table { .. })
    }

    /// Prints one object, or a list as one.
    pub fn print(&self, object: &Value, resource: &Resource, out: &mut impl Write) -> Result<()> {
        match self {
            Self::Json => writeln!(out, "{}", pretty(object)?)?,
            Self::Yaml => write!(out, "{}", yaml::to_string(object))?,
            Self::Name => {
                for item in items(object) {
                    writeln!(out, "{}/{}", resource.qualified_singular(), meta::name(item))?;
                }
            }
            Self::JsonPath(path) => write!(out, "{}", jsonpath::render(path, object)?)?,
            Self::Columns(columns, heads) => print_columns(columns, *heads, items(object), out)?,
            Self::Table { .. } => return Err(Error::usage("a table is printed from the server's columns")),
        }
        Ok(())
    }
}

/// The items of a list, or the object itself.
pub fn items(object: &Value) -> Vec<&Value> {
    match object["items"].as_array() {
        Some(items) if meta::kind(object).ends_with("List") => items.iter().collect(),
        _ => vec![object],
    }
}

/// JSON as kubectl prints it: four spaces.
pub fn pretty(value: &Value) -> Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    String::from_utf8(bytes).map_err(|error| Error::usage(error.to_string()))
}

/// Removes what nobody wants to read.
pub fn hide_managed_fields(value: &mut Value) {
    if let Some(items) = value.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(hide_managed_fields);
    }
    if let Some(metadata) = meta::metadata_mut(value) {
        metadata.remove("managedFields");
    }
}

/// Columns as kubectl lays them out: at least six wide, three apart (Go counts the gap in the width).
pub fn aligned<W: Write>(out: W) -> TabWriter<W> {
    TabWriter::new(out).minwidth(3).padding(3).alignment(Alignment::Left).ansi(true)
}

/// How a table of the server's is printed.
#[derive(Debug, Clone, Copy, Default)]
pub struct TableStyle {
    pub wide: bool,
    pub namespaces: bool,
    pub heads: bool,
    pub labels: bool,
    /// Put the kind before the name, as kubectl does where several kinds are shown.
    pub kinds: bool,
}

/// Prints the server's Table (meta.k8s.io/v1).
pub fn print_table(table: &Value, resource: &Resource, style: TableStyle, out: &mut impl Write) -> Result<()> {
    let empty = Vec::new();
    let columns = table["columnDefinitions"].as_array().unwrap_or(&empty);
    let shown: Vec<usize> =
        (0..columns.len()).filter(|at| style.wide || columns[*at]["priority"].as_i64().unwrap_or(0) == 0).collect();
    if style.heads {
        let mut heads: Vec<String> =
            shown.iter().map(|at| columns[*at]["name"].as_str().unwrap_or_default().to_uppercase()).collect();
        if style.namespaces {
            heads.insert(0, "NAMESPACE".into());
        }
        if style.labels {
            heads.push("LABELS".into());
        }
        writeln!(out, "{}", heads.join("\t"))?;
    }
    for row in table["rows"].as_array().into_iter().flatten() {
        let mut cells: Vec<String> = shown.iter().map(|at| cell(&row["cells"][*at])).collect();
        let object = &row["object"];
        if style.kinds
            && let Some(first) = cells.first_mut()
        {
            *first = format!("{}/{first}", resource.qualified_singular());
        }
        if style.namespaces {
            cells.insert(0, meta::namespace(object).to_owned());
        }
        if style.labels {
            cells.push(labels(object));
        }
        writeln!(out, "{}", cells.join("\t"))?;
    }
    Ok(())
}

fn cell(value: &Value) -> String {
    match value {
        // Long texts are cut at their first line, as kubectl cuts them.
        Value::String(text) => match text.split_once(['\n', '\r', '\x0c']) {
            Some((first, _)) => format!("{first}..."),
            None => text.replace('\t', "    "),
        },
        Value::Null => "<none>".into(),
        other => other.to_string(),
    }
}

/// `a=1,b=2`, or `<none>`.
pub fn labels(object: &Value) -> String {
    let Some(labels) = meta::labels(object).filter(|labels| !labels.is_empty()) else { return "<none>".into() };
    let mut pairs: Vec<_> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.sort();
    pairs.join(",")
}

fn columns(spec: &str, heads: bool) -> Result<Format> {
    let mut columns = Vec::new();
    for column in spec.split(',') {
        let Some((head, path)) = column.split_once(':') else {
            return Err(Error::usage(format!(
                "unexpected custom-columns spec: {column}, expected <header>:<json-path-expr>"
            )));
        };
        columns.push((head.to_owned(), jsonpath::parse_relaxed(path)?));
    }
    Ok(Format::Columns(columns, heads))
}

fn print_columns(columns: &[(String, JsonPath)], heads: bool, items: Vec<&Value>, out: &mut impl Write) -> Result<()> {
    let mut table = aligned(out);
    if heads {
        writeln!(table, "{}", columns.iter().map(|(head, _)| head.as_str()).collect::<Vec<_>>().join("\t"))?;
    }
    for item in items {
        let mut cells = Vec::new();
        for (_, path) in columns {
            let found = path.find(item).map_err(|why| Error::usage(why.to_string()))?;
            let texts: Vec<String> = found.iter().flatten().map(|value| go::print(value)).collect();
            // What the first part finds decides (kubectl `get/customcolumn.go`).
            let is_there = found.first().is_some_and(|found| !found.is_empty());
            cells.push(if is_there { texts.join(",") } else { "<none>".to_owned() });
        }
        writeln!(table, "{}", cells.join("\t"))?;
    }
    table.flush()?;
    Ok(())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Error::usage(format!("{path}: {error}")))
}

#[cfg(test)]
mod tests {
    use coracle_api::json::json;

    use super::*;

    #[test]
    fn columns_show_values_as_go_prints_them() {
        let object =
            json!({"kind": "W", "spec": {"map": {"b": 1, "a": "x"}, "list": [{"n": 1}, {"n": 2}], "none": null}});
        let Format::Columns(columns, heads) =
            columns("A:.spec.map,B:{spec.list[*].n},C:spec.none,D:.spec.gone", true).unwrap()
        else {
            panic!("columns")
        };
        let mut out = Vec::new();
        print_columns(&columns, heads, vec![&object], &mut out).unwrap();
        let shown = String::from_utf8(out).unwrap();
        let cells: Vec<_> = shown.lines().nth(1).unwrap().split("  ").filter(|cell| !cell.is_empty()).collect();
        assert_eq!(
            cells.iter().map(|cell| cell.trim()).collect::<Vec<_>>(),
            ["map[a:x b:1]", "1,2", "<nil>", "<none>"]
        );
    }
}
