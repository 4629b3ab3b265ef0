//! `describe`: what there is to know about an object, for a person (k8s.io/kubectl/pkg/describe).

mod core;
mod pod;
mod workloads;

use std::io::Write;

use clap::Args;
use coracle_api::json::Value;
use coracle_api::{meta, printing};
use jiff::Timestamp;
use tabwriter::TabWriter;

use super::get::{encode, select};
use crate::{
    discovery::Resource,
    error::{Error, Result},
    session::Session,
    targets,
};

pub use pod::pod_template;

#[derive(Debug, Args)]
pub struct Options {
    /// TYPE [NAME…] or TYPE/NAME…
    #[arg(required = true)]
    resources: Vec<String>,
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Leave the events out
    #[arg(long, default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = ["true", "false"])]
    show_events: String,
}

pub async fn run(session: &Session, options: &Options) -> Result<()> {
    let targets = targets::parse(session, &options.resources).await?;
    let found = select(session, &targets, options.selector.as_deref(), options.selector.is_none()).await?;
    if found.is_empty() {
        eprintln!("No resources found in {} namespace.", session.namespace());
    }
    for (number, (resource, object)) in found.iter().enumerate() {
        if number > 0 {
            print!("\n\n");
        }
        let mut text = body(session, resource, object).await?;
        if options.show_events == "true" {
            text.push_str(&events(session, object).await?);
        }
        let mut out = TabWriter::new(std::io::stdout().lock()).minwidth(0).padding(2);
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

async fn body(session: &Session, resource: &Resource, object: &Value) -> Result<String> {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => Ok(pod::pod(object)),
        ("", "Node") => core::node(session, object).await,
        ("", "Service") => core::service(session, object).await,
        ("", "ConfigMap") => Ok(core::config_map(object)),
        ("", "Secret") => Ok(core::secret(object)),
        ("", "Namespace") => Ok(core::namespace(object)),
        ("apps", "Deployment") => workloads::deployment(session, object).await,
        ("apps", "ReplicaSet") => Ok(workloads::replica_set(object)),
        _ => Ok(core::anything(object)),
    }
}

/// A text of lines `Name:<tab>value`, nested by two spaces; the tabs are aligned where it is printed.
pub(super) struct Text(String);

impl Text {
    pub fn new() -> Self {
        Self(String::new())
    }

    pub fn line(&mut self, level: usize, name: &str, value: impl std::fmt::Display) -> &mut Self {
        self.0.push_str(&format!("{}{name}:\t{value}\n", "  ".repeat(level)));
        self
    }

    pub fn raw(&mut self, level: usize, text: impl std::fmt::Display) -> &mut Self {
        self.0.push_str(&format!("{}{text}\n", "  ".repeat(level)));
        self
    }

    /// A map over several lines, sorted, `<none>` when empty.
    pub fn map(
        &mut self,
        level: usize,
        name: &str,
        map: Option<&coracle_api::json::Map>,
        separator: &str,
    ) -> &mut Self {
        let mut pairs: Vec<String> = map
            .into_iter()
            .flatten()
            .filter(|(key, _)| *key != "kubectl.kubernetes.io/last-applied-configuration")
            .map(|(key, value)| format!("{key}{separator}{}", text(value)))
            .collect();
        pairs.sort();
        if pairs.is_empty() {
            return self.line(level, name, "<none>");
        }
        for (number, pair) in pairs.iter().enumerate() {
            if number == 0 {
                self.line(level, name, pair);
            } else {
                self.0.push_str(&format!("{}\t{pair}\n", "  ".repeat(level)));
            }
        }
        self
    }

    /// What every description begins with.
    pub fn head(&mut self, object: &Value) -> &mut Self {
        self.line(0, "Name", meta::name(object));
        if !meta::namespace(object).is_empty() {
            self.line(0, "Namespace", meta::namespace(object));
        }
        self
    }

    pub fn labels(&mut self, object: &Value) -> &mut Self {
        self.map(0, "Labels", meta::labels(object), "=").map(0, "Annotations", meta::annotations(object), ": ")
    }

    pub fn conditions(&mut self, object: &Value, with_reason: bool) -> &mut Self {
        let Some(conditions) = object["status"]["conditions"].as_array().filter(|it| !it.is_empty()) else {
            return self;
        };
        self.raw(0, "Conditions:");
        self.raw(1, if with_reason { "Type\tStatus\tReason" } else { "Type\tStatus" });
        self.raw(1, if with_reason { "----\t------\t------" } else { "----\t------" });
        for condition in conditions {
            let mut line = format!("{}\t{}", text(&condition["type"]), text(&condition["status"]));
            if with_reason {
                line.push_str(&format!("\t{}", text(&condition["reason"])));
            }
            self.raw(1, line);
        }
        self
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// A value as a person reads it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A moment, the way Go prints it in descriptions (RFC 1123 with a numeric zone).
pub(super) fn moment(value: &Value) -> String {
    let parsed = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    parsed.map(|time| time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()).unwrap_or_else(|| "<unset>".into())
}

fn age(moment: &Value, now: Timestamp) -> String {
    let parsed = moment.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    parsed.map_or_else(|| "<unknown>".into(), |time| printing::human_duration(now.as_second() - time.as_second()))
}

/// The events about an object, oldest first.
async fn events(session: &Session, object: &Value) -> Result<String> {
    let selector = format!(
        "involvedObject.name={},involvedObject.namespace={},involvedObject.kind={},involvedObject.uid={}",
        meta::name(object),
        meta::namespace(object),
        meta::kind(object),
        meta::uid(object)
    );
    // The events about what is in no namespace are kept in `default`.
    let namespace = match meta::namespace(object) {
        "" => "default",
        namespace => namespace,
    };
    let selector = if meta::namespace(object).is_empty() {
        format!("involvedObject.name={},involvedObject.kind={}", meta::name(object), meta::kind(object))
    } else {
        selector
    };
    let found =
        session.get(&format!("/api/v1/namespaces/{namespace}/events?fieldSelector={}", encode(&selector))).await;
    let list = match found {
        // Who may not see the events still gets the rest.
        Err(Error::Server(_)) => return Ok("Events:\t<none>\n".into()),
        list => list?,
    };
    let mut events: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
    if events.is_empty() {
        return Ok("Events:\t<none>\n".into());
    }
    let last = |event: &Value| first_of(event, &["lastTimestamp", "eventTime", "firstTimestamp"]);
    events.sort_by_key(|event| last(event).to_string());
    let now = Timestamp::now();
    let mut lines = Text::new();
    lines.raw(0, "Events:");
    lines.raw(1, "Type\tReason\tAge\tFrom\tMessage");
    lines.raw(1, "----\t------\t----\t----\t-------");
    for event in events {
        let mut when = age(&last(event), now);
        let count = event["count"].as_i64().unwrap_or(1);
        if count > 1 {
            when = format!("{when} (x{count} over {})", age(&first_of(event, &["firstTimestamp", "eventTime"]), now));
        }
        let from = match event["source"]["component"].as_str().filter(|component| !component.is_empty()) {
            Some(component) => component.to_owned(),
            None => text(&event["reportingComponent"]),
        };
        let message = text(&event["message"]);
        lines.raw(
            1,
            format!(
                "{}\t{}\t{when}\t{from}\t{}",
                text(&event["type"]),
                text(&event["reason"]),
                message.trim().replace('\n', " ")
            ),
        );
    }
    Ok(lines.into_string())
}

fn first_of(event: &Value, fields: &[&str]) -> Value {
    fields.iter().map(|field| &event[*field]).find(|value| !value.is_null()).cloned().unwrap_or(Value::Null)
}
