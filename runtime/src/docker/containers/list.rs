//! `GET /containers/json`

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::{
        Docker,
        http::{Answer, Call, Filters, Problem, ok},
    },
    Container, Record,
    inspect::networks_json,
    spec::arguments,
};
use crate::engine::model::now;

const FILTERS: [&str; 17] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "until",
];
const STATUSES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

pub async fn list(call: Call) -> Answer {
    let filters = call.query.filters(&FILTERS)?;
    for status in filters.get("status") {
        if !STATUSES.contains(&status.as_str()) {
            return Err(Problem::bad(format!("invalid filter 'status={status}'")));
        }
    }
    let limit = call.query.number("limit")?.filter(|&limit| limit > 0);
    let (all, size) = (call.query.flag("all"), call.query.flag("size"));
    let everything = all || limit.is_some() || filters.has("status") || filters.has("exited");
    let created = |key: &str| -> Result<Option<i64>, Problem> {
        let Some(name) = filters.get(key).first() else { return Ok(None) };
        Ok(Some(call.docker.container(name)?.with(|record| record.created)))
    };
    let (before, since) = (created("before")?, created("since")?);
    let docker = call.docker.clone();
    let work = tokio::task::spawn_blocking(move || {
        let mut out = Vec::new();
        for container in docker.containers() {
            let at = container.with(|record| record.created);
            let active = matches!(container.status(), "running" | "paused" | "restarting");
            if (active || everything)
                && before.is_none_or(|before| at < before)
                && since.is_none_or(|since| at > since)
                && docker.fits(&container, &filters)
            {
                out.push(docker.summary(&container, size));
            }
            if limit.is_some_and(|limit| out.len() as i64 >= limit) {
                break;
            }
        }
        out
    });
    ok(&work.await.map_err(crate::Error::from)?)
}

impl Docker {
    fn fits(&self, container: &Arc<Container>, filters: &Filters) -> bool {
        let record = container.record();
        let name = format!("/{}", record.name);
        let matches = |pattern: &str, text: &str| {
            let text =
                if pattern.starts_with('/') || pattern.starts_with("^/") { text } else { text.trim_start_matches('/') };
            regex::Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
        };
        let health = container.live.lock().health.as_ref().map_or("none", |health| health.status());
        filters.any("id", |id| container.id.starts_with(id))
            && filters.any("name", |pattern| matches(pattern, &name))
            && filters.labels(&record.config.labels)
            && filters.any("status", |status| container.status() == status)
            && filters.any("health", |wanted| health == wanted)
            && filters.any("exited", |code| {
                container.status() == "exited" && code.parse() == Ok(container.engine.state().exit_code)
            })
            && filters.any("ancestor", |image| self.descends(&record, image))
            && filters.any("volume", |wanted| {
                record
                    .mounts
                    .iter()
                    .any(|point| point.name == wanted || point.source == wanted || point.destination == wanted)
            })
            && filters.any("network", |wanted| {
                record.networks.iter().any(|(name, endpoint)| {
                    name == wanted || endpoint.network_id.starts_with(wanted) && wanted.len() > 3
                })
            })
            && filters.any("expose", |port| {
                let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
                record.config.exposed_ports.contains_key(&port)
            })
            && filters.any("publish", |port| {
                let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
                record.ports.contains_key(&port)
            })
            && filters.any("is-task", |wanted| !matches!(wanted, "true" | "1"))
    }

    /// Whether a container's image is this one or was built on it.
    fn descends(&self, record: &Record, name: &str) -> bool {
        if record.config.image == name {
            return true;
        }
        let images = self.engine.images();
        let (Some(image), Some(own)) = (images.find(name), images.find(&record.image_id)) else { return false };
        own.chains.starts_with(&image.chains)
    }

    pub fn summary(&self, container: &Container, size: bool) -> Value {
        let record = container.record();
        let status = container.status();
        let image = match self.engine.images().find(&record.image_id) {
            // The name may stand for another image by now.
            Some(_)
                if self
                    .engine
                    .images()
                    .find(&record.config.image)
                    .is_none_or(|named| named.id.to_string() != record.image_id) =>
            {
                record.image_id.clone()
            }
            _ => record.config.image.clone(),
        };
        let mut network_settings = json!({ "Networks": networks_json(&record) });
        if container.pod {
            network_settings = json!({ "Networks": {} });
        }
        let mut host_config = json!({ "NetworkMode": record.host.network_mode });
        if !record.host.annotations.is_empty() {
            host_config["Annotations"] = json!(record.host.annotations);
        }
        let mut out = json!({
            "Id": container.id,
            "Names": names(&record),
            "Image": image,
            "ImageID": record.image_id,
            "Command": command(&record),
            "Created": record.created / 1_000_000_000,
            "Ports": ports(&record, container.runs()),
            "Labels": record.config.labels,
            "State": status,
            "Status": human_status(container, status),
            "HostConfig": host_config,
            "NetworkSettings": network_settings,
            "Mounts": self.mounts_json(&record),
        });
        if size {
            let own = self.engine.writable_usage(&container.engine).content;
            out["SizeRw"] = json!(own);
            out["SizeRootFs"] = json!(own + self.layers_size(&container.engine.image.chains));
        }
        out
    }
}

/// The command as a shell would be told it, nearly: words with spaces are quoted, the first never (moby
/// `daemon/list.go`, `refreshImage` and `container/view.go`).
fn command(record: &Record) -> String {
    let quoted = |(index, word): (usize, String)| {
        if index > 0 && word.contains(' ') { format!("'{word}'") } else { word }
    };
    arguments(record).into_iter().enumerate().map(quoted).collect::<Vec<_>>().join(" ")
}

fn names(record: &Record) -> Vec<String> {
    vec![format!("/{}", record.name)]
}

fn ports(record: &Record, runs: bool) -> Value {
    let mut out = Vec::new();
    if runs {
        for (port, bindings) in &record.ports {
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            for binding in bindings {
                out.push(json!({
                    "IP": binding.host_ip, "PrivatePort": number.parse::<u16>().unwrap_or(0),
                    "PublicPort": binding.host_port.parse::<u16>().unwrap_or(0), "Type": protocol,
                }));
            }
        }
        for port in record.config.exposed_ports.keys() {
            let whole = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
            if !record.ports.contains_key(&whole) {
                let (number, protocol) = whole.split_once('/').unwrap_or((&whole, "tcp"));
                out.push(json!({ "PrivatePort": number.parse::<u16>().unwrap_or(0), "Type": protocol }));
            }
        }
    }
    json!(out)
}

/// `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago` (moby `container/state.go`).
fn human_status(container: &Container, status: &str) -> String {
    let state = container.engine.state();
    let since = |at: i64| duration((now() - at).max(0) / 1_000_000_000);
    match status {
        "running" => {
            let health = container.live.lock().health.as_ref().map(|health| match health.status() {
                "starting" => " (health: starting)".to_owned(),
                word => format!(" ({word})"),
            });
            format!("Up {}{}", since(state.started_at), health.unwrap_or_default())
        }
        "paused" => format!("Up {} (Paused)", since(state.started_at)),
        "restarting" => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
        "exited" => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
        "removing" => "Removal In Progress".into(),
        _ => "Created".into(),
    }
}

/// go-units `HumanDuration`.
pub fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds as f64 / 3600.0).round() as i64);
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_for_humans() {
        for (seconds, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3600, "About an hour"),
            (3 * 86400, "3 days"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
