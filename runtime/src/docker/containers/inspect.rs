//! `GET /containers/{id}/json`

use serde_json::{Value, json};

use super::{
    super::{
        Docker,
        http::{Answer, Call, ok},
        types::{Endpoint, HostConfig, Recursion},
    },
    Container, Record,
    network::split_link,
    spec::{arguments, security_options},
};
use crate::engine::model::{ContainerState, Status};

/// What Go shows for a time that never was.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with nanoseconds, without zeros at the end.
pub fn time(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return NEVER.into();
    }
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default().to_string()
}

pub async fn inspect(call: Call) -> Answer {
    let container = call.docker.container(call.name())?;
    let size = call.query.flag("size");
    let (docker, shown) = (call.docker.clone(), container.clone());
    let value = tokio::task::spawn_blocking(move || docker.inspect(&shown, size)).await.map_err(crate::Error::from)?;
    ok(&value)
}

impl Docker {
    pub fn inspect(&self, container: &Container, size: bool) -> Value {
        let record = container.record();
        let state = container.engine.state();
        let arguments = arguments(&record);
        let dir = self.engine.files_of(&container.id);
        let file = |name: &str| {
            let path = dir.join(name);
            if path.exists() { path.to_string_lossy().into_owned() } else { String::new() }
        };
        let log = if record.host.log_config.kind != "json-file" && !container.pod {
            String::new()
        } else {
            self.log_path(container).to_string_lossy().into_owned()
        };
        let execs = self.execs_of(&container.id);
        // Checked when the container was made.
        let options = security_options(&record.host).unwrap_or_default();
        let apparmor = options.shown_apparmor(record.host.privileged);
        let mut out = json!({
            "Id": container.id,
            "Created": time(record.created),
            "Path": arguments.first().cloned().unwrap_or_default(),
            "Args": arguments.get(1..).unwrap_or_default(),
            "State": self.state_json(container, &state, &record),
            "Image": record.image_id,
            "ResolvConfPath": file("resolv.conf"),
            "HostnamePath": file("hostname"),
            "HostsPath": file("hosts"),
            "LogPath": log,
            "Name": format!("/{}", record.name),
            "RestartCount": record.restart_count,
            "Driver": "overlay2",
            "Platform": "linux",
            "MountLabel": container.engine.labels.mount,
            "ProcessLabel": container.engine.labels.process,
            "AppArmorProfile": apparmor,
            "ExecIDs": if execs.is_empty() { Value::Null } else { json!(execs) },
            "HostConfig": HostConfig { links: self.shown_links(&record), ..record.host.clone() },
            "GraphDriver": self.graph_driver(container),
            "Mounts": self.mounts_json(&record),
            "Config": record.config,
            "NetworkSettings": self.network_settings(container, &record),
        });
        if size {
            let own = self.engine.writable_usage(&container.engine).content;
            out["SizeRw"] = json!(own);
            out["SizeRootFs"] = json!(own + self.layers_size(&container.engine.image.chains));
        }
        out
    }

    /// Links by the paths of both ends (moby `daemon/inspect.go`, `getInspectData`).
    fn shown_links(&self, record: &Record) -> Option<Vec<String>> {
        let show = |link: &String| {
            let (name, alias) = split_link(link);
            let other = self.container(name).ok()?;
            Some(format!("/{}:/{}/{alias}", other.name(), record.name))
        };
        record.host.links.as_ref().map(|links| links.iter().filter_map(show).collect())
    }

    fn state_json(&self, container: &Container, state: &ContainerState, record: &Record) -> Value {
        let status = container.status();
        let runs = state.status == Status::Running || status == "restarting";
        let mut out = json!({
            "Status": status,
            "Running": runs,
            "Paused": status == "paused",
            "Restarting": status == "restarting",
            "OOMKilled": state.reason == "OOMKilled",
            "Dead": false,
            "Pid": state.pid,
            "ExitCode": if status == "created" && !record.error.is_empty() { 128 } else { state.exit_code },
            "Error": record.error,
            "StartedAt": time(state.started_at),
            "FinishedAt": time(state.finished_at),
        });
        if let Some(health) = &container.live.lock().health {
            out["Health"] = health.json();
        }
        out
    }

    fn graph_driver(&self, container: &Container) -> Value {
        match self.engine.root_of(&container.engine) {
            Ok(crate::snapshots::Root::Mount { options, .. }) => {
                let option = |key: &str| {
                    let found = options.iter().find_map(|option| option.strip_prefix(key));
                    found.unwrap_or_default().to_owned()
                };
                let merged = self.engine.bundle_of(&container.id).join("rootfs");
                json!({ "Name": "overlay2", "Data": {
                    "ID": container.id,
                    "LowerDir": option("lowerdir="), "UpperDir": option("upperdir="),
                    "WorkDir": option("workdir="), "MergedDir": merged,
                }})
            }
            _ => json!({ "Name": "overlay2", "Data": null }),
        }
    }

    pub fn mounts_json(&self, record: &Record) -> Value {
        let mut points = record.mounts.clone();
        points.sort_by(|a, b| a.destination.cmp(&b.destination));
        points.iter_mut().for_each(|point| point.recursion = Recursion::default());
        json!(points)
    }

    fn network_settings(&self, container: &Container, record: &Record) -> Value {
        let default = record.networks.get("bridge").cloned().unwrap_or_default();
        let netns = self.engine.netns_of(&container.id);
        let runs = container.runs() && !container.pod;
        json!({
            "Bridge": "",
            "SandboxID": if runs { container.id.as_str() } else { "" },
            "SandboxKey": if runs && netns.exists() { netns.to_string_lossy().into_owned() } else { String::new() },
            "Ports": ports_json(record, runs),
            "HairpinMode": false,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": null,
            "SecondaryIPv6Addresses": null,
            "EndpointID": default.endpoint_id,
            "Gateway": default.gateway,
            "GlobalIPv6Address": default.global_ipv6_address,
            "GlobalIPv6PrefixLen": default.global_ipv6_prefix_len,
            "IPAddress": default.ip_address,
            "IPPrefixLen": default.ip_prefix_len,
            "IPv6Gateway": default.ipv6_gateway,
            "MacAddress": default.mac_address,
            "Networks": networks_json(record),
        })
    }
}

/// Endpoints by the name of their network.
pub fn networks_json(record: &Record) -> Value {
    let shown = record.networks.iter().map(|(name, endpoint)| (name.clone(), endpoint_json(endpoint)));
    Value::Object(shown.collect())
}

pub fn endpoint_json(endpoint: &Endpoint) -> Value {
    let mut out = serde_json::to_value(endpoint).unwrap_or_default();
    if let Some(fields) = out.as_object_mut() {
        fields.remove("WantedMacAddress");
    }
    out
}

/// Ports by `80/tcp`, null where nothing is published.
pub fn ports_json(record: &Record, runs: bool) -> Value {
    let mut out = serde_json::Map::new();
    if runs {
        for port in record.config.exposed_ports.keys() {
            let port = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
            out.insert(port, Value::Null);
        }
        for (port, bindings) in &record.ports {
            out.insert(port.clone(), json!(bindings));
        }
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_go_shows_them() {
        assert_eq!(time(0), NEVER);
        assert_eq!(time(1_500_000_000), "1970-01-01T00:00:01.5Z");
    }
}
