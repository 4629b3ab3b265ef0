//! `get`: what there is, once or as it changes.

use std::{collections::HashMap, io::Write};

use clap::Args;
use coracle_api::json::{Value, json};
use coracle_api::{meta, yaml};
use futures::StreamExt;
use http_body_util::BodyExt;

use crate::{
    cli::{Files, Output},
    discovery::Resource,
    error::{Error, Result},
    manifests,
    output::{self, Format, TableStyle},
    session::{JSON, Session, TABLE},
    targets::{self, Target},
};

/// A list is asked for in pieces of this many objects, as kubectl does.
const CHUNK: u32 = 500;
/// The longest line of a watch that is read, in bytes.
const MAX_EVENT: usize = 64 << 20;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl-lite get pods -o wide -w\n  kubectl-lite get deployment/web -o yaml\n  kubectl-lite get pods -l app=web -o jsonpath='{.items[*].metadata.name}'"
)]
pub struct Options {
    /// TYPE[,TYPE…] [NAME…] or TYPE/NAME…
    resources: Vec<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    files: Files,
    /// Only objects with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Only objects with these fields
    #[arg(long)]
    field_selector: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Go on with every change
    #[arg(short, long)]
    watch: bool,
    /// Only the changes
    #[arg(long)]
    watch_only: bool,
    /// Print no heads
    #[arg(long)]
    no_headers: bool,
    /// Print the labels in a last column
    #[arg(long)]
    show_labels: bool,
    /// Say nothing when there is nothing
    #[arg(long)]
    ignore_not_found: bool,
}

pub async fn run(session: &Session, options: &Options) -> Result<()> {
    let format = Format::parse(&options.output)?;
    let format = match format {
        Format::Columns(columns, _) => Format::Columns(columns, !options.no_headers),
        format => format,
    };
    let targets = targets(session, options).await?;
    if options.watch || options.watch_only {
        let [target] = &targets[..] else {
            return Err(Error::usage("you may only specify a single resource type when watching"));
        };
        return watch(session, target, options, &format).await;
    }
    if format.is_table() {
        tables(session, &targets, options, &format).await
    } else {
        objects(session, &targets, options, &format).await
    }
}

async fn targets(session: &Session, options: &Options) -> Result<Vec<Target>> {
    if options.files.filename.is_empty() {
        return targets::parse(session, &options.resources).await;
    }
    let mut targets = Vec::new();
    for manifest in manifests::read(&options.files.filename, options.files.recursive)? {
        let resource = manifest.resource(session).await?.clone();
        targets.push(Target { resource, name: Some(meta::name(&manifest.object).to_owned()) });
    }
    Ok(targets)
}

/// Where a target is, with its selectors.
fn path(session: &Session, target: &Target, options: &Options) -> Result<String> {
    let namespace = (!options.all_namespaces).then(|| session.namespace());
    match &target.name {
        Some(_) if options.all_namespaces && target.resource.namespaced => {
            Err(Error::usage("a resource cannot be retrieved by name across all namespaces"))
        }
        Some(name) => Ok(target.resource.object_path(session.namespace(), name)),
        None => Ok(target.resource.path(namespace)),
    }
}

/// Percent-encodes what stands in a query.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn selectors(options: &Options) -> String {
    let mut query = String::new();
    if let Some(selector) = &options.selector {
        query.push_str(&format!("&labelSelector={}", encode(selector)));
    }
    if let Some(selector) = &options.field_selector {
        query.push_str(&format!("&fieldSelector={}", encode(selector)));
    }
    query
}

/// Reads a whole list, piece by piece; `rows` names what grows ("items", or a table's "rows").
async fn list(session: &Session, target: &Target, options: &Options, accept: &str) -> Result<Value> {
    let path = path(session, target, options)?;
    if target.name.is_some() {
        return session.get_as(&path, accept).await;
    }
    let query = format!("{path}?limit={CHUNK}{}", selectors(options));
    let mut whole = session.get_as(&query, accept).await?;
    loop {
        let next = match whole["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => format!("{query}&continue={}", encode(next)),
            _ => return Ok(whole),
        };
        let mut piece = session.get_as(&next, accept).await?;
        let key = if piece["kind"] == "Table" { "rows" } else { "items" };
        if let (Some(all), Some(more)) = (whole[key].as_array_mut(), piece[key].as_array_mut()) {
            all.append(more);
        }
        whole["metadata"]["continue"] = piece["metadata"]["continue"].take();
    }
}

async fn tables(session: &Session, targets: &[Target], options: &Options, format: &Format) -> Result<()> {
    let kinds = targets.iter().any(|target| target.resource != targets[0].resource);
    let mut style = style(options, format, kinds);
    let (mut errors, mut shown) = (Vec::new(), 0);
    let mut out = output::aligned(std::io::stdout().lock());
    let mut last: Option<&Resource> = None;
    for target in targets {
        let table = match list(session, target, options, TABLE).await {
            Err(error) if options.ignore_not_found && error.is_not_found() => continue,
            Err(error) => {
                errors.push(error);
                continue;
            }
            Ok(table) => table,
        };
        if table["rows"].as_array().is_none_or(Vec::is_empty) {
            continue;
        }
        let new = last.is_none_or(|last| *last != target.resource);
        if new && last.is_some() {
            // Each kind has columns of its own width.
            out.flush()?;
            if style.heads {
                println_flush(&mut out)?;
            }
        }
        let heads = style.heads;
        style.heads &= new;
        style.namespaces = options.all_namespaces && target.resource.namespaced;
        output::print_table(&table, &target.resource, style, &mut out)?;
        style.heads = heads;
        last = Some(&target.resource);
        shown += 1;
    }
    out.flush()?;
    if shown == 0 && errors.is_empty() && !options.ignore_not_found {
        if options.all_namespaces || targets.iter().all(|target| !target.resource.namespaced) {
            eprintln!("No resources found");
        } else {
            eprintln!("No resources found in {} namespace.", session.namespace());
        }
    }
    Error::all(errors)
}

fn println_flush(out: &mut impl Write) -> Result<()> {
    writeln!(out)?;
    Ok(out.flush()?)
}

fn style(options: &Options, format: &Format, kinds: bool) -> TableStyle {
    TableStyle {
        wide: matches!(format, Format::Table { wide: true }),
        namespaces: options.all_namespaces,
        heads: !options.no_headers,
        labels: options.show_labels,
        kinds,
    }
}

async fn objects(session: &Session, targets: &[Target], options: &Options, format: &Format) -> Result<()> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for target in targets {
        match list(session, target, options, JSON).await {
            Err(error) if options.ignore_not_found && error.is_not_found() => {}
            Err(error) => errors.push(error),
            Ok(mut object) => {
                if !options.output.show_managed_fields {
                    output::hide_managed_fields(&mut object);
                }
                found.push((target, object));
            }
        }
    }
    let mut out = std::io::stdout().lock();
    if let Format::Name = format {
        for (target, object) in &found {
            format.print(object, &target.resource, &mut out)?;
        }
    } else if let [(target, object)] = &found[..] {
        let object = if target.name.is_none() { as_list(items_of(object, &target.resource)) } else { object.clone() };
        format.print(&object, &target.resource, &mut out)?;
    } else if let Some((target, _)) = found.first() {
        let items = found.iter().flat_map(|(target, object)| items_of(object, &target.resource)).collect();
        format.print(&as_list(items), &target.resource, &mut out)?;
    }
    Error::all(errors)
}

/// The items of a list with the kind that a list leaves out.
fn items_of(object: &Value, resource: &Resource) -> Vec<Value> {
    let complete = |item: &Value| {
        let mut whole = json!({"apiVersion": resource.api_version(), "kind": resource.kind});
        if let (Some(whole), Some(fields)) = (whole.as_object_mut(), item.as_object()) {
            whole.extend(fields.clone());
        }
        whole
    };
    output::items(object).into_iter().map(complete).collect()
}

/// What kubectl prints for several objects.
fn as_list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
}

async fn watch(session: &Session, target: &Target, options: &Options, format: &Format) -> Result<()> {
    let accept = if format.is_table() { TABLE } else { JSON };
    let first = list(session, target, options, accept).await?;
    let version = first["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let mut printer = Printer { target, options, format, columns: first.clone(), heads: !options.no_headers };
    if !options.watch_only {
        printer.print(&first)?;
    }
    let mut query = format!("?watch=true&resourceVersion={}", encode(&version));
    let mut collection = Target { resource: target.resource.clone(), name: None };
    match &target.name {
        Some(name) => query.push_str(&format!("&fieldSelector={}", encode(&format!("metadata.name={name}")))),
        None => query.push_str(&selectors(options)),
    }
    collection.name = None;
    let path = path(session, &collection, options)?;
    let body = session.stream(&format!("{path}{query}"), accept).await?;
    let mut stream = body.into_data_stream();
    let mut buffer = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| Error::Unreachable(format!("the watch ended: {error}")))?;
        buffer.extend_from_slice(&piece);
        if buffer.len() > MAX_EVENT {
            return Err(Error::usage("an event of the watch is too large"));
        }
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line)?;
            let kind = event["type"].as_str().unwrap_or_default();
            match kind {
                "BOOKMARK" => {}
                "ERROR" => {
                    let status = coracle_api::json::from_value::<coracle_api::Status>(event["object"].clone())?;
                    return Err(status.into());
                }
                _ => printer.print(&event["object"])?,
            }
        }
    }
    Ok(())
}

struct Printer<'a> {
    target: &'a Target,
    options: &'a Options,
    format: &'a Format,
    /// Later tables of a watch leave the columns out.
    columns: Value,
    heads: bool,
}

impl Printer<'_> {
    fn print(&mut self, object: &Value) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if !self.format.is_table() {
            let mut object = object.clone();
            if !self.options.output.show_managed_fields {
                output::hide_managed_fields(&mut object);
            }
            if let Format::Yaml = self.format {
                writeln!(out, "---\n{}", yaml::to_string(&object).trim_end())?;
            } else {
                self.format.print(&object, &self.target.resource, &mut out)?;
            }
            return Ok(out.flush()?);
        }
        let mut table = object.clone();
        if table["columnDefinitions"].as_array().is_none_or(Vec::is_empty) {
            table["columnDefinitions"] = self.columns["columnDefinitions"].clone();
        }
        let mut style = style(self.options, self.format, false);
        style.heads = self.heads;
        style.namespaces &= self.target.resource.namespaced;
        let mut aligned = output::aligned(out);
        output::print_table(&table, &self.target.resource, style, &mut aligned)?;
        aligned.flush()?;
        self.heads = false;
        Ok(())
    }
}

/// The objects of a target, by name or by labels; used by verbs that act on each.
pub async fn select(
    session: &Session,
    targets: &[Target],
    selector: Option<&str>,
    all: bool,
) -> Result<Vec<(Resource, Value)>> {
    let mut found = Vec::new();
    let mut listed: HashMap<String, ()> = HashMap::new();
    for target in targets {
        if let Some(name) = &target.name {
            let object = session.get(&target.resource.object_path(session.namespace(), name)).await?;
            found.push((target.resource.clone(), object));
            continue;
        }
        if selector.is_none() && !all {
            return Err(Error::usage("resource(s) were provided, but no name was specified"));
        }
        let path = target.resource.path(Some(session.namespace()));
        if listed.insert(path.clone(), ()).is_some() {
            continue;
        }
        let query = selector.map(|selector| format!("?labelSelector={}", encode(selector))).unwrap_or_default();
        let list = session.get(&format!("{path}{query}")).await?;
        found.extend(items_of(&list, &target.resource).into_iter().map(|item| (target.resource.clone(), item)));
    }
    Ok(found)
}
