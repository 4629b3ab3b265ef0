//! `wait`.

use std::time::Duration;

use clap::Args;
use coracle_api::json::Value;
use coracle_api::{go, meta};
use futures::StreamExt;
use http_body_util::BodyExt;

use super::get::{encode, select};
use crate::{
    discovery::Resource,
    error::{Error, Result},
    jsonpath::{self, JsonPath},
    session::{JSON, Session},
    targets,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl-lite wait --for=condition=Ready pod/web\n  kubectl-lite wait --for=delete pod/web --timeout=60s\n  kubectl-lite wait --for=jsonpath='{.status.phase}'=Running pod/web"
)]
pub struct Options {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(required = true)]
    resources: Vec<String>,
    /// delete, create, condition=NAME[=VALUE] or jsonpath='{PATH}'[=VALUE]
    #[arg(long = "for", value_name = "WHAT")]
    what: String,
    /// How long, as 30s or 5m
    #[arg(long, default_value = "30s")]
    timeout: String,
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[arg(long)]
    all: bool,
}

#[derive(Debug)]
enum Condition {
    Deleted,
    Created,
    Status(String, String),
    Path(JsonPath, Option<String>),
}

impl Condition {
    fn parse(text: &str) -> Result<Self> {
        match text.split_once('=') {
            None if text == "delete" => Ok(Self::Deleted),
            None if text == "create" => Ok(Self::Created),
            Some(("condition", condition)) => {
                let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
                Ok(Self::Status(name.to_lowercase(), value.to_lowercase()))
            }
            Some(("jsonpath", rest)) => {
                let end = rest.rfind('}').map_or_else(|| rest.find('=').unwrap_or(rest.len()), |at| at + 1);
                let value = rest[end..].strip_prefix('=').map(|value| value.trim_matches(['\'', '"']).to_owned());
                if value.as_deref() == Some("") {
                    return Err(Error::usage(
                        "jsonpath wait has to have a value after equal sign, like --for=jsonpath='{.status.readyReplicas}'=3",
                    ));
                }
                Ok(Self::Path(jsonpath::parse_relaxed(&rest[..end])?, value))
            }
            _ => Err(Error::usage(format!("unrecognized condition: \"{text}\""))),
        }
    }

    fn holds(&self, object: Option<&Value>) -> Result<bool> {
        Ok(match (self, object) {
            (Self::Deleted, object) => object.is_none(),
            (_, None) => false,
            (Self::Created, Some(_)) => true,
            (Self::Status(name, value), Some(object)) => {
                let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
                conditions.any(|condition| {
                    let is = |field: &str, text: &str| {
                        condition[field].as_str().is_some_and(|it| it.eq_ignore_ascii_case(text))
                    };
                    is("type", name) && is("status", value)
                })
            }
            (Self::Path(path, value), Some(object)) => return reaches(path, value.as_deref(), object),
        })
    }
}

/// Whether a path leads to this value, or to any (kubectl `wait/json.go`).
fn reaches(path: &JsonPath, wanted: Option<&str>, object: &Value) -> Result<bool> {
    let found = path.find(object).map_err(|why| Error::usage(why.to_string()))?;
    let one = match found.as_slice() {
        [] => return Ok(false),
        [first, ..] if first.is_empty() => return Ok(false),
        [first] => match first.as_slice() {
            [one] => one,
            _ => return Err(Error::usage("given jsonpath expression matches more than one value")),
        },
        _ => return Err(Error::usage("given jsonpath expression matches more than one list")),
    };
    match wanted {
        None => Ok(true),
        Some(_) if one.is_object() || one.is_array() => {
            Err(Error::usage("jsonpath leads to a nested object or list which is not supported"))
        }
        Some(wanted) => Ok(go::print(one).trim() == wanted.trim()),
    }
}

pub async fn run(session: &Session, options: &Options) -> Result<()> {
    let condition = Condition::parse(&options.what)?;
    let limit = duration(&options.timeout)?;
    let targets = targets::parse(session, &options.resources).await?;
    let mut wanted: Vec<(Resource, String)> = Vec::new();
    if targets.iter().all(|target| target.name.is_some()) {
        for target in targets {
            let name = target.require_name()?.to_owned();
            wanted.push((target.resource, name));
        }
    } else {
        let found = select(session, &targets, options.selector.as_deref(), options.all).await?;
        wanted.extend(found.into_iter().map(|(resource, object)| (resource, meta::name(&object).to_owned())));
    }
    if wanted.is_empty() && !matches!(condition, Condition::Deleted) {
        return Err(Error::usage("no matching resources found"));
    }
    let deadline = tokio::time::Instant::now() + limit;
    for (resource, name) in wanted {
        let waiting = until(session, &resource, &name, &condition);
        let display = format!("{}/{name}", resource.qualified_singular());
        match tokio::time::timeout_at(deadline, waiting).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                return Err(Error::usage(format!("timed out waiting for the condition on {}/{name}", resource.plural)));
            }
        }
        println!("{display} condition met");
    }
    Ok(())
}

async fn until(session: &Session, resource: &Resource, name: &str, condition: &Condition) -> Result<()> {
    let path = resource.path(Some(session.namespace()));
    let selector = encode(&format!("metadata.name={name}"));
    loop {
        let list = session.get(&format!("{path}?fieldSelector={selector}")).await?;
        let object = list["items"].as_array().and_then(|items| items.first());
        if condition.holds(object)? {
            return Ok(());
        }
        if object.is_none() && !matches!(condition, Condition::Created) {
            // The server's own words for what is missing.
            session.get(&resource.object_path(session.namespace(), name)).await?;
        }
        let version = encode(meta::resource_version(&list));
        let body = session
            .stream(&format!("{path}?watch=true&fieldSelector={selector}&resourceVersion={version}"), JSON)
            .await?;
        let mut stream = body.into_data_stream();
        let mut buffer: Vec<u8> = Vec::new();
        while let Some(Ok(piece)) = stream.next().await {
            buffer.extend_from_slice(&piece);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let event: Value = serde_json::from_slice(&buffer.drain(..=end).collect::<Vec<u8>>())?;
                let object = match event["type"].as_str() {
                    Some("ADDED" | "MODIFIED") => Some(&event["object"]),
                    Some("DELETED") => None,
                    _ => continue,
                };
                if condition.holds(object)? {
                    return Ok(());
                }
            }
        }
    }
}

/// A duration as Go writes them (`1h2m3s`, `500ms`), or plain seconds. A negative one is a week, as upstream has it.
pub fn duration(text: &str) -> Result<Duration> {
    let invalid = || Error::usage(format!("invalid duration \"{text}\": use for instance 30s, 5m or 1h"));
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    if text.starts_with('-') {
        return Ok(Duration::from_secs(7 * 24 * 3600));
    }
    let (mut total, mut rest) = (Duration::ZERO, text);
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        let unit_length = rest[digits..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - digits);
        let seconds = match &rest[digits..digits + unit_length] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(invalid()),
        };
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| invalid())?;
        rest = &rest[digits + unit_length..];
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use coracle_api::json::json;

    use super::*;

    #[test]
    fn paths_lead_to_one_value() {
        let object = json!({"status": {"phase": "Running", "n": 3, "list": [1, 2], "none": null}});
        let holds = |text: &str| Condition::parse(text)?.holds(Some(&object));
        for text in
            ["{.status.phase}=Running", "{.status.phase}", "status.phase=Running", ".status.n='3'", "{.status.none}"]
        {
            assert!(holds(&format!("jsonpath={text}")).unwrap(), "{text}");
        }
        for text in ["{.status.phase}=Pending", "{.status.gone}", "{.status.gone[3]}=1"] {
            assert!(!holds(&format!("jsonpath={text}")).unwrap(), "{text}");
        }
        for (text, why) in [
            ("{.status.list}=1", "jsonpath leads to a nested object or list which is not supported"),
            ("{.status.list[*]}=1", "given jsonpath expression matches more than one value"),
            ("{.status.list[2]}=1", "array index out of bounds: index 2, length 2"),
            ("{.status.phase}=", "has to have a value after equal sign"),
            ("{.status.phase", "unexpected path string"),
        ] {
            let error = holds(&format!("jsonpath={text}")).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in [("30s", 30.0), ("1h2m3s", 3723.0), ("500ms", 0.5), ("1.5m", 90.0), ("7", 7.0)] {
            assert_eq!(duration(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        for text in ["", "s", "5x", "1h2", "five"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
