//! `explain`: what the fields of a resource are, from the server's OpenAPI v3 document.

use clap::Args;
use coracle_api::json::Value;

use crate::{
    discovery::Resource,
    error::{Error, Result},
    session::Session,
};

/// Text is wrapped at this column, as kubectl does.
const WIDTH: usize = 80;
/// How deep `--recursive` goes; types may hold themselves.
const MAX_DEPTH: usize = 32;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl-lite explain pods\n  kubectl-lite explain deployment.spec.strategy --recursive"
)]
pub struct Options {
    /// RESOURCE[.FIELD…]
    resource: String,
    /// All fields below, without what they mean
    #[arg(long)]
    recursive: bool,
    /// Another version than the preferred one, GROUP/VERSION
    #[arg(long, value_name = "GROUP/VERSION")]
    api_version: Option<String>,
}

pub async fn run(session: &Session, options: &Options) -> Result<()> {
    let discovery = session.discovery().await?;
    let (resource, path) = options.resource.split_once('.').unwrap_or((&options.resource, ""));
    let mut resource = discovery.find(resource)?.clone();
    if let Some(api_version) = &options.api_version {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        (resource.group, resource.version) = (group.to_owned(), version.to_owned());
    }
    let root = if resource.group.is_empty() { "api" } else { "apis" };
    let document = session.get(&format!("/openapi/v3/{root}/{}", resource.api_version())).await?;
    let text = explain(&document, &resource, path, options.recursive)?;
    print!("{text}");
    Ok(())
}

fn explain(document: &Value, resource: &Resource, path: &str, recursive: bool) -> Result<String> {
    let schemas = document.pointer("/components/schemas").unwrap_or(&Value::Null);
    let found = schemas.as_object().into_iter().flatten().find(|(_, schema)| {
        let kinds = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
        kinds.into_iter().flatten().any(|kind| {
            kind["kind"] == resource.kind.as_str()
                && kind["group"] == resource.group.as_str()
                && kind["version"] == resource.version.as_str()
        })
    });
    let Some((name, _)) = found else {
        return Err(Error::usage(format!("couldn't find resource for \"{}\"", resource.api_version())));
    };
    let document = Document { schemas };
    let mut out = String::new();
    if !resource.group.is_empty() {
        out += &format!("GROUP:      {}\n", resource.group);
    }
    out += &format!("KIND:       {}\nVERSION:    {}\n\n", resource.kind, resource.version);
    let mut schema = &schemas[name];
    let mut described = text(schema);
    for field in path.split('.').filter(|field| !field.is_empty()) {
        let properties = document.fields(schema);
        let Some(next) = properties.and_then(|properties| properties.get(field)) else {
            return Err(Error::usage(format!("field \"{field}\" does not exist")));
        };
        if path.rsplit('.').next() == Some(field) {
            out += &format!("FIELD: {field} <{}>\n\n", document.type_of(next));
        }
        described = text(next);
        schema = next;
    }
    out += "DESCRIPTION:\n";
    let own = if path.is_empty() { String::new() } else { document.target(schema).map(text).unwrap_or_default() };
    for text in [described, own].iter().filter(|text| !text.is_empty()) {
        out += &wrapped(text, 4);
    }
    out += "    \n";
    if document.fields(schema).is_some() {
        out += "FIELDS:\n";
        document.print(schema, recursive, 1, &mut out);
    }
    Ok(out)
}

fn text(schema: &Value) -> String {
    schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Lines of a text, indented.
fn wrapped(text: &str, indent: usize) -> String {
    let mut out = String::new();
    for paragraph in text.lines() {
        let mut line = " ".repeat(indent);
        for word in paragraph.split(' ') {
            if line.len() > indent && line.len() + 1 + word.len() > WIDTH {
                out += &line;
                out.push('\n');
                line = " ".repeat(indent);
            }
            if line.len() > indent {
                line.push(' ');
            }
            line += word;
        }
        out += &line;
        out.push('\n');
    }
    out
}

struct Document<'d> {
    schemas: &'d Value,
}

impl<'d> Document<'d> {
    /// The definition that a schema refers to.
    fn target(&self, schema: &'d Value) -> Option<&'d Value> {
        self.reference(schema).and_then(|name| self.schemas.get(name))
    }

    fn reference(&self, schema: &'d Value) -> Option<&'d str> {
        let reference = schema.get("$ref").or_else(|| schema.get("allOf")?.get(0)?.get("$ref"))?;
        reference.as_str()?.rsplit('/').next()
    }

    /// The fields of a schema, of what it refers to, or of its items.
    fn fields(&self, schema: &'d Value) -> Option<&'d coracle_api::json::Map> {
        let mut schema = schema;
        for _ in 0..MAX_DEPTH {
            if let Some(Value::Object(fields)) = schema.get("properties") {
                return Some(fields);
            }
            schema =
                self.target(schema).or_else(|| schema.get("items")).or_else(|| schema.get("additionalProperties"))?;
        }
        None
    }

    fn type_of(&self, schema: &Value) -> String {
        let name = self.reference_owned(schema);
        if let Some(name) = name {
            let target = self.schemas.get(&name);
            let plain = target.and_then(|target| target.get("type")).and_then(Value::as_str);
            return match plain {
                Some(kind) if kind != "object" => kind.to_owned(),
                _ => name.rsplit('.').next().unwrap_or(&name).to_owned(),
            };
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("array") => format!("[]{}", self.type_of(&schema["items"])),
            Some("object") => match schema.get("additionalProperties") {
                Some(inner) => format!("map[string]{}", self.type_of(inner)),
                None => "Object".to_owned(),
            },
            Some(kind) => kind.to_owned(),
            None => "Object".to_owned(),
        }
    }

    fn reference_owned(&self, schema: &Value) -> Option<String> {
        let reference = schema.get("$ref").or_else(|| schema.get("allOf")?.get(0)?.get("$ref"))?;
        Some(reference.as_str()?.rsplit('/').next()?.to_owned())
    }

    fn print(&self, schema: &'d Value, recursive: bool, level: usize, out: &mut String) {
        let Some(fields) = self.fields(schema) else { return };
        let required = self.required(schema);
        let mut names: Vec<_> = fields.keys().collect();
        names.sort();
        for name in names {
            let field = &fields[name.as_str()];
            let needed = if required.contains(&name.as_str()) { " -required-" } else { "" };
            *out += &format!("{}{name}\t<{}>{needed}\n", "  ".repeat(level), self.type_of(field));
            if recursive {
                if level < MAX_DEPTH && !self.repeats(schema, field) {
                    self.print(field, true, level + 1, out);
                }
            } else {
                let described = text(field);
                *out += &wrapped(if described.is_empty() { "<no description>" } else { &described }, 2 * level + 2);
                out.push('\n');
            }
        }
    }

    /// A type that holds itself is shown once.
    fn repeats(&self, schema: &Value, field: &Value) -> bool {
        let name = |schema: &Value| {
            let inner = schema.get("items").or_else(|| schema.get("additionalProperties")).unwrap_or(schema);
            self.reference_owned(inner)
        };
        name(field).is_some() && name(field) == name(schema)
    }

    fn required(&self, schema: &'d Value) -> Vec<&'d str> {
        let mut schema = schema;
        for _ in 0..MAX_DEPTH {
            if schema.get("properties").is_some() {
                break;
            }
            let next =
                self.target(schema).or_else(|| schema.get("items")).or_else(|| schema.get("additionalProperties"));
            let Some(next) = next else { break };
            schema = next;
        }
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn resource() -> Resource {
        Resource {
            group: "g.io".into(),
            version: "v1".into(),
            kind: "Widget".into(),
            plural: "widgets".into(),
            singular: "widget".into(),
            short: vec![],
            categories: vec![],
            verbs: vec![],
            namespaced: true,
        }
    }

    #[test]
    fn fields_and_their_types() {
        let document = json!({"components": {"schemas": {
            "io.g.Widget": {"description": "A widget.", "type": "object", "required": ["spec"],
                "x-kubernetes-group-version-kind": [{"group": "g.io", "version": "v1", "kind": "Widget"}],
                "properties": {"spec": {"allOf": [{"$ref": "#/components/schemas/io.g.Spec"}], "description": "What it is to be."}}},
            "io.g.Spec": {"type": "object", "properties": {"names": {"type": "array", "items": {"type": "string"}, "description": "Its names."},
                "inner": {"type": "object", "additionalProperties": {"allOf": [{"$ref": "#/components/schemas/io.g.Spec"}]}}}}}}});
        let text = explain(&document, &resource(), "", false).unwrap();
        assert_eq!(
            text,
            "GROUP:      g.io\nKIND:       Widget\nVERSION:    v1\n\nDESCRIPTION:\n    A widget.\n    \nFIELDS:\n  spec\t<Spec> -required-\n    What it is to be.\n\n"
        );
        let text = explain(&document, &resource(), "spec", true).unwrap();
        assert!(text.contains("FIELD: spec <Spec>\n\n"), "{text}");
        assert!(text.contains("  inner\t<map[string]Spec>\n  names\t<[]string>\n"), "{text}");
        assert!(explain(&document, &resource(), "spec.other", false).is_err());
    }
}
