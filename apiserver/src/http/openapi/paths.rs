//! Paths and their operations, from the rows (apiserver `endpoints/installer.go`, apiextensions
//! `controller/openapi/builder`).

use super::definitions::Style;
use super::names::Names;
use super::parameters::{self, gather, in_path, in_query};
use crate::registry::{Row, Subresource};
use coracle_api::json::{Map, Value, json};
use coracle_api::{Gvk, schema};

const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
/// Custom resources have no lists that a strategic merge could know.
const PATCHES_OF_CUSTOM: [&str; 3] =
    ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
const DOCUMENTS: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const DOCUMENTS_OF_CUSTOM: [&str; 2] = ["application/json", "application/yaml"];
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
/// How connections are asked for, and what goes through a proxy.
const CONNECT: [&str; 2] = ["get", "post"];
const CONNECT_ANY: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    List,
    Post,
    Put,
    Patch,
    Delete,
    DeleteCollection,
    Watch,
    WatchList,
    /// By a method.
    Connect(&'static str),
}

impl Verb {
    /// How its id begins, and what stands in the id after the version.
    fn id(self) -> (&'static str, String) {
        let verb = match self {
            Verb::Get => "read",
            Verb::List => "list",
            Verb::Post => "create",
            Verb::Put => "replace",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => return ("delete", "Collection".to_owned()),
            Verb::Watch | Verb::WatchList => "watch",
            Verb::Connect(method) => return ("connect", capitalized(method)),
        };
        (verb, String::new())
    }

    /// `x-kubernetes-action`.
    fn action(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Post => "post",
            Verb::Put => "put",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Watch => "watch",
            Verb::WatchList => "watchlist",
            Verb::Connect(_) => "connect",
        }
    }

    fn query(self) -> &'static [&'static str] {
        match self {
            Verb::Get => &parameters::PRETTY,
            Verb::List | Verb::Watch | Verb::WatchList => &parameters::LIST,
            Verb::Post | Verb::Put => &parameters::WRITE,
            Verb::Patch => &parameters::PATCH,
            Verb::Delete => &parameters::DELETE,
            Verb::DeleteCollection => &parameters::DELETE_COLLECTION,
            Verb::Connect(_) => &[],
        }
    }

    /// The codes of answers that hold what was asked for.
    fn codes(self, custom: bool) -> &'static [(&'static str, &'static str)] {
        const ALL: [(&str, &str); 3] = [("200", "OK"), ("201", "Created"), ("202", "Accepted")];
        const DELETED: [(&str, &str); 2] = [("200", "OK"), ("202", "Accepted")];
        match self {
            Verb::Post => &ALL,
            Verb::Put => &ALL[..2],
            Verb::Patch if !custom => &ALL[..2],
            Verb::Delete => &DELETED,
            _ => &ALL[..1],
        }
    }

    /// What it does to `what`, an object or a part of it, of a kind.
    fn describe(self, what: &str, kind: &str) -> String {
        match self {
            Verb::Get => format!("Reads {what}."),
            Verb::List => format!("Lists or watches objects of kind {kind}."),
            Verb::Post => format!("Creates {what}."),
            Verb::Put => format!("Replaces {what}."),
            Verb::Patch => format!("Changes a part of {what}."),
            Verb::Delete => format!("Deletes {what}."),
            Verb::DeleteCollection => format!("Deletes objects of kind {kind}."),
            Verb::Watch => {
                format!("Watches {what}. Deprecated: list with `watch` and a field selector for the name instead.")
            }
            Verb::WatchList => format!("Watches objects of kind {kind}. Deprecated: list with `watch` instead."),
            Verb::Connect(method) => format!("Connects {} requests to {what}.", method.to_ascii_uppercase()),
        }
    }
}

/// Makes operations for one row, or for a part of its objects.
struct Operations<'o> {
    style: Style,
    names: &'o Names,
    row: &'o Row,
    /// Whose objects they are.
    kind: &'o str,
    /// Whose body is sent.
    gvk: &'o Gvk,
    /// The definition of that kind; none where the answer is a text.
    definition: Option<&'o str>,
    subresource: &'static str,
    /// What it takes, where that does not follow from the verb.
    query: Option<&'static [&'static str]>,
}

/// Which paths an operation stands at, as its id says it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Place,
    AllNamespaces,
    /// Below a proxy.
    Path,
}

impl Operations<'_> {
    fn of(&self, verb: Verb, at: At) -> Value {
        let custom = self.row.strategy.custom().is_some();
        let kind = self.kind;
        let what = match self.subresource {
            "" if verb == Verb::Post => format!("an object of kind {kind}"),
            "" => format!("the {kind}"),
            part => format!("the {part} of the {kind}"),
        };
        let mut operation = json!({
            "description": verb.describe(&what, kind),
            "operationId": self.id(verb, at),
            "tags": [self.names.tag()],
            "x-kubernetes-action": verb.action(),
            "x-kubernetes-group-version-kind":
                {"group": &*self.gvk.group, "version": &*self.gvk.version, "kind": &*self.gvk.kind},
        });
        let query = self.query.unwrap_or(verb.query());
        let mut parameters: Vec<Value> = query.iter().map(|name| in_query(self.style, name)).collect();
        if let Some((body, required)) = self.body(verb) {
            let takes: &[&str] = match (verb, custom) {
                (Verb::Patch, false) => &PATCHES,
                (Verb::Patch, true) => &PATCHES_OF_CUSTOM,
                (_, false) => &["*/*"],
                (_, true) => &DOCUMENTS_OF_CUSTOM,
            };
            match self.style {
                Style::V3 => {
                    let mut body = json!({"content": by_type(takes, &body)});
                    if required {
                        body["required"] = true.into();
                    }
                    operation["requestBody"] = body;
                }
                Style::V2 => {
                    operation["consumes"] = json!(takes);
                    let mut parameter = json!({"name": "body", "in": "body", "schema": body});
                    if required {
                        parameter["required"] = true.into();
                    }
                    parameters.insert(0, parameter);
                }
            }
        } else if self.style == Style::V2 {
            operation["consumes"] = json!(["*/*"]);
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        self.answers(verb, custom, &mut operation);
        operation
    }

    /// The id: unique in all documents.
    fn id(&self, verb: Verb, at: At) -> String {
        let (begins, mut rest) = verb.id();
        if self.row.namespaced && at != At::AllNamespaces {
            rest.push_str("Namespaced");
        }
        rest.push_str(self.kind);
        rest.push_str(&capitalized(self.subresource));
        if verb == Verb::WatchList {
            rest.push_str("List");
        }
        match at {
            At::Place => {}
            At::AllNamespaces => rest.push_str("ForAllNamespaces"),
            At::Path => rest.push_str("WithPath"),
        }
        self.names.id(begins, &rest)
    }

    /// The schema of what is sent, and whether it must be.
    fn body(&self, verb: Verb) -> Option<(Value, bool)> {
        match verb {
            Verb::Post | Verb::Put => Some((self.style.reference(self.definition?), true)),
            Verb::Patch => Some((json!({"type": "object"}), true)),
            Verb::Delete | Verb::DeleteCollection => Some((self.style.reference(DELETE_OPTIONS), false)),
            _ => None,
        }
    }

    fn answers(&self, verb: Verb, custom: bool, operation: &mut Value) {
        let text = json!({"type": "string"});
        let gives = match (verb, self.definition) {
            (Verb::List, Some(definition)) => self.style.reference(&format!("{definition}List")),
            (Verb::Delete, Some(definition)) if self.row.shows_deleted => self.style.reference(definition),
            (Verb::Delete | Verb::DeleteCollection, _) => self.style.reference(STATUS),
            (Verb::Watch | Verb::WatchList, _) => self.style.reference(WATCH_EVENT),
            (_, Some(definition)) => self.style.reference(definition),
            (_, None) => text,
        };
        let mut types: Vec<&str> = if custom { DOCUMENTS_OF_CUSTOM.to_vec() } else { DOCUMENTS.to_vec() };
        match verb {
            Verb::Connect(_) => types = vec!["*/*"],
            Verb::List | Verb::Watch | Verb::WatchList if !custom => types.extend(STREAMS),
            Verb::Get if self.definition.is_none() => types.insert(0, "text/plain"),
            _ => {}
        }
        let answer = |meaning: &str| match self.style {
            Style::V3 => json!({"description": meaning, "content": by_type(&types, &gives)}),
            Style::V2 => json!({"description": meaning, "schema": gives}),
        };
        let codes = verb.codes(custom).iter();
        let mut responses: Map = codes.map(|(code, meaning)| ((*code).to_owned(), answer(meaning))).collect();
        responses.insert("401", json!({"description": "Unauthorized"}));
        operation["responses"] = Value::Object(responses);
        if self.style == Style::V2 {
            operation["produces"] = json!(types);
        }
    }
}

/// The same schema for each media type.
fn by_type(types: &[&str], schema: &Value) -> Map {
    types.iter().map(|kind| ((*kind).to_owned(), json!({"schema": schema}))).collect()
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// The paths of a document while they are collected.
pub(super) struct Paths<'p> {
    pub style: Style,
    /// Below which they stand.
    pub base: &'p str,
    pub names: Names,
    pub found: &'p mut Map,
}

impl Paths<'_> {
    fn put(&mut self, path: String, parts: &[&str], kind: &str, operations: Vec<(&str, Value)>) {
        if operations.is_empty() {
            return;
        }
        let mut item: Map = operations.into_iter().map(|(method, value)| (method.to_owned(), value)).collect();
        gather(&mut item, parts.iter().map(|name| in_path(self.style, name, kind)).collect());
        self.found.insert(path, Value::Object(item));
    }

    /// Adds the paths of a row.
    pub fn add(&mut self, row: &Row, gvk: &Gvk, definition: &str) {
        let names = self.names.clone();
        let can = |verb: &str| row.verbs.contains(&verb);
        let operations = Operations {
            style: self.style,
            names: &names,
            row,
            kind: &row.kind,
            gvk,
            definition: Some(definition),
            subresource: "",
            query: None,
        };
        let pick = |each: &[(&str, &'static str, Verb)], at: At| -> Vec<(&'static str, Value)> {
            let able = each.iter().filter(|(verb, ..)| can(verb));
            able.map(|(_, method, verb)| (*method, operations.of(*verb, at))).collect()
        };
        let everywhere = format!("{}", row.plural);
        let place: &[&str] = if row.namespaced { &["namespace"] } else { &[] };
        let named: Vec<&str> = place.iter().copied().chain(["name"]).collect();
        let collection =
            if row.namespaced { format!("namespaces/{{namespace}}/{everywhere}") } else { everywhere.clone() };
        let item = format!("{collection}/{{name}}");
        let base = format!("/{}", self.base);
        let kind = &*row.kind;
        const COLLECTION: [(&str, &str, Verb); 3] = [
            ("list", "get", Verb::List),
            ("create", "post", Verb::Post),
            ("deletecollection", "delete", Verb::DeleteCollection),
        ];
        const ITEM: [(&str, &str, Verb); 4] = [
            ("get", "get", Verb::Get),
            ("update", "put", Verb::Put),
            ("patch", "patch", Verb::Patch),
            ("delete", "delete", Verb::Delete),
        ];
        const WATCH_LIST: [(&str, &str, Verb); 1] = [("watch", "get", Verb::WatchList)];
        self.put(format!("{base}/{collection}"), place, kind, pick(&COLLECTION, At::Place));
        self.put(format!("{base}/{item}"), &named, kind, pick(&ITEM, At::Place));
        if row.namespaced {
            self.put(format!("{base}/{everywhere}"), &[], kind, pick(&COLLECTION[..1], At::AllNamespaces));
        }
        // The old way to watch; custom resources have it, too, and upstream does not tell of it.
        if row.strategy.custom().is_none() {
            self.put(format!("{base}/watch/{collection}"), place, kind, pick(&WATCH_LIST, At::Place));
            let watch = [("watch", "get", Verb::Watch)];
            self.put(format!("{base}/watch/{item}"), &named, kind, pick(&watch, At::Place));
            if row.namespaced {
                self.put(format!("{base}/watch/{everywhere}"), &[], kind, pick(&WATCH_LIST, At::AllNamespaces));
            }
        }
        for subresource in &row.subresources {
            self.add_subresource(*subresource, &format!("{base}/{item}"), &named, &operations);
        }
    }

    fn add_subresource(&mut self, subresource: Subresource, item: &str, named: &[&str], of_row: &Operations<'_>) {
        let row = of_row.row;
        let own = subresource.kind(&row.kind);
        let ty = own.as_ref().and_then(schema::of);
        let is_text = subresource.connects() || subresource == Subresource::Log;
        let definition = ty.map(|ty| ty.full_name()).or(of_row.definition).filter(|_| !is_text);
        // Upstream tells of every part of a custom resource by the resource's kind.
        let gvk = own.as_ref().filter(|_| row.strategy.custom().is_none()).unwrap_or(of_row.gvk);
        let query: Option<&[&str]> = match subresource {
            Subresource::Log => Some(&parameters::LOG),
            Subresource::Exec => Some(&parameters::EXEC),
            Subresource::Attach => Some(&parameters::ATTACH),
            Subresource::PortForward => Some(&parameters::PORTS),
            Subresource::Proxy => Some(&parameters::PROXY),
            _ => None,
        };
        let operations = Operations { gvk, definition, subresource: subresource.path(), query, ..*of_row };
        let of = |at: At| -> Vec<(&'static str, Value)> {
            if subresource.connects() {
                let methods = if subresource == Subresource::Proxy { &CONNECT_ANY[..] } else { &CONNECT };
                return methods.iter().map(|method| (*method, operations.of(Verb::Connect(method), at))).collect();
            }
            let each = subresource.verbs().iter().map(|verb| match *verb {
                "create" => ("post", Verb::Post),
                "update" => ("put", Verb::Put),
                "patch" => ("patch", Verb::Patch),
                _ => ("get", Verb::Get),
            });
            each.map(|(method, verb)| (method, operations.of(verb, at))).collect()
        };
        if let (Subresource::Binding, Some(binding)) = (subresource, &own) {
            // By its older path, too (core `rest/storage_core.go`).
            let older = Operations { kind: &binding.kind, subresource: "", ..operations };
            let path = format!("/{}/namespaces/{{namespace}}/bindings", self.base);
            self.put(path, &named[..1], &binding.kind, vec![("post", older.of(Verb::Post, At::Place))]);
        }
        let path = format!("{item}/{}", subresource.path());
        self.put(path.clone(), named, &row.kind, of(At::Place));
        if subresource == Subresource::Proxy {
            let below: Vec<&str> = named.iter().copied().chain(["path"]).collect();
            self.put(format!("{path}/{{path}}"), &below, &row.kind, of(At::Path));
        }
    }
}
