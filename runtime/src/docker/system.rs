//! The daemon about itself: `_ping`, `version`, `info`, `events`, `system/df`, `auth`.

use std::{collections::BTreeMap, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};
use tokio::sync::{broadcast::error::RecvError, mpsc};

use super::{
    Docker,
    http::{Answer, Call, Filters, Problem, ok, stream},
    metrics::Action,
    routes::{MAX_VERSION, MIN_VERSION},
};
use crate::engine::model::now;

/// The version of Docker whose behaviour this is.
pub const DOCKER_VERSION: &str = "28.2.2";

pub async fn ping(call: Call) -> Answer {
    let body = if call.request.method() == http::Method::HEAD { "" } else { "OK" };
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    // The classic builder; clients that find 2 speak BuildKit's own protocol.
    headers.insert("Builder-Version", HeaderValue::from_static("1"));
    headers.insert("Swarm", HeaderValue::from_static("inactive"));
    Ok(response)
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub async fn version(call: Call) -> Answer {
    ok(&call.docker.metrics.timed(Action::Version, version_json))
}

fn version_json() -> Value {
    let own = env!("CARGO_PKG_VERSION");
    let api = format!("1.{MAX_VERSION}");
    let oldest = format!("1.{MIN_VERSION}");
    json!({
        "Platform": { "Name": format!("Coracle {own}") },
        "Components": [
            {
                "Name": "Engine", "Version": DOCKER_VERSION,
                "Details": {
                    "ApiVersion": api, "Arch": architecture(), "BuildTime": "", "Experimental": "false",
                    "GitCommit": "coracle", "GoVersion": "none", "KernelVersion": kernel(),
                    "MinAPIVersion": oldest, "Os": "linux",
                },
            },
            { "Name": "coracle", "Version": own, "Details": { "GitCommit": "" } },
        ],
        "Version": DOCKER_VERSION,
        "ApiVersion": api,
        "MinAPIVersion": oldest,
        "GitCommit": "coracle",
        "GoVersion": "none",
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": kernel(),
        "BuildTime": "",
    })
}

pub async fn info(call: Call) -> Answer {
    let docker = call.docker.clone();
    let value = tokio::task::spawn_blocking(move || docker.metrics.timed(Action::Info, || docker.info()))
        .await
        .map_err(crate::Error::from)?;
    ok(&value)
}

pub fn operating_system() -> String {
    of_release("PRETTY_NAME").unwrap_or_else(|| "Linux".into())
}

pub fn operating_system_version() -> String {
    of_release("VERSION_ID").unwrap_or_default()
}

/// A line of os-release(5).
fn of_release(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.map(|value| value.trim_matches('"').to_owned())
}

pub fn memory_total() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

impl Docker {
    fn info(&self) -> Value {
        let containers = self.containers();
        let count =
            |wanted: &[&str]| containers.iter().filter(|container| wanted.contains(&container.status())).count();
        let v2 = self.engine.cgroup_is_v2();
        let mut security = Vec::new();
        if crate::engine::apparmor::enabled() {
            security.push("name=apparmor".to_owned());
        }
        security.push("name=seccomp,profile=builtin".to_owned());
        if self.engine.selinux().enabled() {
            security.push("name=selinux".to_owned());
        }
        if v2 {
            security.push("name=cgroupns".into());
        }
        let hostname = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        json!({
            "ID": self.id,
            "Containers": containers.len(),
            "ContainersRunning": count(&["running", "restarting"]),
            "ContainersPaused": count(&["paused"]),
            "ContainersStopped": count(&["created", "exited", "dead", "removing"]),
            "Images": self.engine.images().list().len(),
            "Driver": "overlay2",
            "DriverStatus": [["Backing Filesystem", "extfs"], ["Supports d_type", "true"], ["Native Overlay Diff", "true"]],
            "Plugins": {
                "Volume": ["local"], "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
                "Authorization": null, "Log": ["json-file", "local", "none"],
            },
            "MemoryLimit": true, "SwapLimit": true, "CpuCfsPeriod": true, "CpuCfsQuota": true,
            "CPUShares": true, "CPUSet": true, "PidsLimit": true, "IPv4Forwarding": true,
            "Debug": false,
            "NFd": std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            "OomKillDisable": false,
            "NGoroutines": 0,
            "SystemTime": jiff::Timestamp::now().to_string(),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": if v2 { "2" } else { "1" },
            "NEventsListener": self.events.listeners(),
            "KernelVersion": kernel(),
            "OperatingSystem": operating_system(),
            "OSVersion": "",
            "OSType": "linux",
            "Architecture": std::env::consts::ARCH,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {
                "AllowNondistributableArtifactsCIDRs": null, "AllowNondistributableArtifactsHostnames": null,
                "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"], "IndexConfigs": {
                    "docker.io": { "Name": "docker.io", "Mirrors": [], "Secure": true, "Official": true },
                }, "Mirrors": [],
            },
            "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
            "MemTotal": memory_total(),
            "GenericResources": null,
            "DockerRootDir": self.engine.data_dir(),
            "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
            "Name": hostname,
            "Labels": [],
            "ExperimentalBuild": false,
            "ServerVersion": DOCKER_VERSION,
            "Runtimes": { "runc": { "path": "coracle" } },
            "DefaultRuntime": "runc",
            "Swarm": {
                "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
                "RemoteManagers": null,
            },
            "LiveRestoreEnabled": true,
            "Isolation": "",
            "InitBinary": "coracle-init",
            "ContainerdCommit": { "ID": "" },
            "RuncCommit": { "ID": env!("CARGO_PKG_VERSION") },
            "InitCommit": { "ID": env!("CARGO_PKG_VERSION") },
            "SecurityOptions": security,
            "CDISpecDirs": [],
            "Warnings": null,
        })
    }
}

/// The `until` filter of prunes: a time, or how long ago; nanoseconds since 1970.
pub fn until(filters: &Filters) -> Result<Option<i64>, Problem> {
    let Some(text) = filters.get("until").first() else { return Ok(None) };
    if filters.get("until").len() > 1 {
        return Err(Problem::bad("more than one until filter specified"));
    }
    if let Some(ago) = go_duration(text) {
        return Ok(Some(now() - ago));
    }
    super::containers::logs::moment(text)
        .map_err(|_| Problem::bad(format!("failed to parse value as time or duration: \"{text}\"")))
}

/// `1h30m`, `10s`, `500ms` in nanoseconds (Go's `time.ParseDuration`).
pub fn go_duration(text: &str) -> Option<i64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').filter(|&at| at > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
        let (unit, factor) = units.iter().find(|(unit, _)| {
            rest.strip_prefix(unit).is_some_and(|after| !after.starts_with(|letter: char| letter.is_alphabetic()))
        })?;
        total += number * factor;
        rest = &rest[unit.len()..];
    }
    Some(total as i64)
}

const EVENT_FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "label!",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
];

pub async fn events(call: Call) -> Answer {
    let known: Vec<&str> = EVENT_FILTERS.into_iter().chain(["volume", "builder"]).collect();
    let filters = call.query.filters(&known)?;
    let bound = |key: &str| super::containers::logs::moment(call.query.text(key));
    let (since, until) = (bound("since")?, bound("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(Problem::bad(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            call.query.text("since"),
            call.query.text("until")
        )));
    }
    let (past, mut coming) = call.docker.events.listen();
    let stopping = call.docker.stopping.clone();
    let (sender, receiver) = mpsc::channel::<Bytes>(64);
    tokio::spawn(async move {
        let show = |event: &super::events::Event| {
            let mut bytes = serde_json::to_vec(&event.json()).unwrap_or_default();
            bytes.push(b'\n');
            Bytes::from(bytes)
        };
        // Without a beginning only what comes is shown, as dockerd does.
        let shown = past.iter().filter(|_| since.is_some() || until.is_some());
        for event in shown {
            let inside = since.is_none_or(|since| event.at >= since) && until.is_none_or(|until| event.at <= until);
            if inside && event.fits(&filters) && sender.send(show(event)).await.is_err() {
                return;
            }
        }
        let left = until.map(|until| std::time::Duration::from_nanos((until - now()).max(0) as u64));
        let end = tokio::time::sleep(left.unwrap_or(std::time::Duration::MAX / 4));
        tokio::pin!(end);
        loop {
            tokio::select! {
                event = coming.recv() => match event {
                    Ok(event) if event.fits(&filters) => if sender.send(show(&event)).await.is_err() { return },
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                () = &mut end, if left.is_some() => return,
                () = sender.closed() => return,
                () = stopping.cancelled() => return,
            }
        }
    });
    Ok(stream("application/json", receiver))
}

/// Plugins cannot be installed here, so there is none.
pub async fn plugins(_: Call) -> Answer {
    ok(&json!([]))
}

pub async fn plugin(call: Call) -> Answer {
    Err(Problem::not_found(format!("plugin \"{}\" not found", call.name())))
}

pub async fn df(call: Call) -> Answer {
    let kinds: Vec<String> = call.query.all("type").map(str::to_owned).collect();
    for kind in &kinds {
        if !["container", "image", "volume", "build-cache"].contains(&kind.as_str()) {
            return Err(Problem::bad(format!("unknown object type: {kind}")));
        }
    }
    let docker = call.docker.clone();
    let value = tokio::task::spawn_blocking(move || docker.disk_use(&kinds)).await.map_err(crate::Error::from)?;
    ok(&value)
}

impl Docker {
    fn disk_use(self: &Arc<Docker>, kinds: &[String]) -> Value {
        let wants = |kind: &str| kinds.is_empty() || kinds.iter().any(|wanted| wanted == kind);
        let mut out = json!({ "BuilderSize": 0 });
        if wants("image") {
            let all: Vec<_> = self.engine.images().list();
            let mut chains = BTreeMap::new();
            for chain in all.iter().flat_map(|image| image.chains.iter()) {
                chains.insert(chain.clone(), self.engine.snapshots().layer_usage(chain).content);
            }
            out["LayersSize"] = json!(chains.values().sum::<u64>());
            out["Images"] = json!(all.iter().map(|image| self.image_summary(image, true)).collect::<Vec<_>>());
        }
        if wants("container") {
            let all = self.containers();
            out["Containers"] = json!(all.iter().map(|container| self.summary(container, true)).collect::<Vec<_>>());
        }
        if wants("volume") {
            let all = self.volumes.list();
            out["Volumes"] = json!(all.iter().map(|volume| self.volume_json(volume, true)).collect::<Vec<_>>());
        }
        if wants("build-cache") {
            let (rows, size) = self.build_cache_use();
            out["BuildCache"] = json!(rows);
            out["BuilderSize"] = json!(size);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(go_duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(go_duration("500ms"), Some(500_000_000));
        assert_eq!(go_duration("1.5s"), Some(1_500_000_000));
        assert_eq!(go_duration("10"), None);
        assert_eq!(go_duration("x"), None);
    }
}
