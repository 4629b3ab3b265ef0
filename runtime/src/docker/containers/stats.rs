//! `GET /containers/{id}/stats`

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use coracle_launcher::cgroup::{Cgroup, read_key, read_number};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    super::{
        Docker,
        http::{Answer, Call, ok, stream},
    },
    Container,
    inspect::{NEVER, time},
};
use crate::engine::{
    model::now,
    stats::{Interface, interfaces},
};

const INTERVAL: Duration = Duration::from_secs(1);

pub async fn stats(call: Call) -> Answer {
    let container = call.docker.container(call.name())?;
    let streaming = call.query.flag_or("stream", true);
    let one_shot = call.query.flag("one-shot");
    let docker = call.docker.clone();
    if !streaming && (one_shot || !container.runs()) {
        let value = read(&docker, &container).await?;
        return ok(&whole(&container, value, None));
    }
    let (sender, receiver) = mpsc::channel::<Bytes>(2);
    tokio::spawn(async move {
        let mut before: Option<Value> = None;
        let mut tick = tokio::time::interval(INTERVAL);
        let mut removed = container.moments.subscribe();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = sender.closed() => return,
                _ = removed.wait_for(|moments| moments.removed) => return,
            }
            let Ok(value) = read(&docker, &container).await else { return };
            // A single answer is the second: it has a rate.
            if streaming || before.is_some() {
                let shown = whole(&container, value.clone(), before.as_ref());
                let mut bytes = serde_json::to_vec(&shown).unwrap_or_default();
                bytes.push(b'\n');
                if sender.send(bytes.into()).await.is_err() || !streaming {
                    return;
                }
            }
            before = Some(value);
        }
    });
    Ok(stream("application/json", receiver))
}

fn whole(container: &Container, now: Value, before: Option<&Value>) -> Value {
    let mut out = now;
    out["name"] = json!(format!("/{}", container.name()));
    out["id"] = json!(container.id);
    let empty = json!({ "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 }, "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 } });
    out["precpu_stats"] = before.map_or(empty, |before| before["cpu_stats"].clone());
    out["preread"] = before.map_or(json!(NEVER), |before| before["read"].clone());
    out
}

async fn read(docker: &Arc<Docker>, container: &Arc<Container>) -> Result<Value, crate::Error> {
    let (docker, container) = (docker.clone(), container.clone());
    tokio::task::spawn_blocking(move || sample(&docker, &container)).await?
}

fn sample(docker: &Docker, container: &Container) -> Result<Value, crate::Error> {
    let mut out = json!({
        "read": time(now()), "num_procs": 0, "storage_stats": {},
        "pids_stats": {}, "blkio_stats": { "io_service_bytes_recursive": null, "io_serviced_recursive": null, "io_queue_recursive": null, "io_service_time_recursive": null, "io_wait_time_recursive": null, "io_merged_recursive": null, "io_time_recursive": null, "sectors_recursive": null },
        "cpu_stats": { "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 }, "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 } },
        "memory_stats": {},
    });
    if !container.runs() {
        return Ok(out);
    }
    let group = docker.engine.group_of(&container.engine)?;
    let stats = docker.engine.container_stats(&container.engine)?.unwrap_or_default();
    let cpu = dir(&group, if group.is_v2() { "cpu" } else { "cpuacct" });
    let (user, system) = if group.is_v2() {
        let micro = |key: &str| read_key(cpu, "cpu.stat", key).unwrap_or(0) * 1000;
        (micro("user_usec"), micro("system_usec"))
    } else {
        // In ticks of a hundredth of a second.
        let ticks = |key: &str| read_key(cpu, "cpuacct.stat", key).unwrap_or(0) * 10_000_000;
        (ticks("user"), ticks("system"))
    };
    let throttle = dir(&group, "cpu");
    let throttled = |key: &str| read_key(throttle, "cpu.stat", key).unwrap_or(0);
    out["cpu_stats"] = json!({
        "cpu_usage": {
            "total_usage": stats.cpu_total, "usage_in_kernelmode": system, "usage_in_usermode": user,
        },
        "system_cpu_usage": system_cpu(),
        "online_cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "throttling_data": {
            "periods": throttled("nr_periods"), "throttled_periods": throttled("nr_throttled"),
            "throttled_time": if group.is_v2() { throttled("throttled_usec") * 1000 } else { throttled("throttled_time") },
        },
    });
    out["memory_stats"] = memory(&group, stats.memory_usage);
    out["pids_stats"] =
        json!({ "current": stats.pids, "limit": read_number(dir(&group, "pids"), "pids.max").unwrap_or(u64::MAX) });
    out["blkio_stats"]["io_service_bytes_recursive"] = block_io(&group);
    if let Some(networks) = networks(container) {
        out["networks"] = networks;
    }
    Ok(out)
}

fn dir<'a>(group: &'a Cgroup, controller: &str) -> &'a Path {
    group.dir(controller).unwrap_or(Path::new("/nonexistent"))
}

fn memory(group: &Cgroup, usage: u64) -> Value {
    let memory = dir(group, "memory");
    let v2 = group.is_v2();
    let total = super::super::system::memory_total();
    let limit = read_number(memory, if v2 { "memory.max" } else { "memory.limit_in_bytes" });
    let text = std::fs::read_to_string(memory.join("memory.stat")).unwrap_or_default();
    let stats: serde_json::Map<String, Value> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), json!(value.parse::<u64>().ok()?))))
        .collect();
    let mut out =
        json!({ "usage": usage, "stats": stats, "limit": limit.filter(|&limit| limit < total).unwrap_or(total) });
    if !v2 {
        out["max_usage"] = json!(read_number(memory, "memory.max_usage_in_bytes").unwrap_or(0));
        out["failcnt"] = json!(read_number(memory, "memory.failcnt").unwrap_or(0));
    }
    out
}

/// All the time that all processors had, in nanoseconds.
fn system_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    line.split_whitespace().skip(1).take(7).filter_map(|word| word.parse::<u64>().ok()).sum::<u64>() * 10_000_000
}

fn block_io(group: &Cgroup) -> Value {
    let (controller, file) =
        if group.is_v2() { ("io", "io.stat") } else { ("blkio", "blkio.throttle.io_service_bytes") };
    let text = std::fs::read_to_string(dir(group, controller).join(file)).unwrap_or_default();
    let mut out = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse::<u64>(), minor.parse::<u64>()) else { continue };
        let mut add = |operation: &str, value: u64| {
            out.push(json!({ "major": major, "minor": minor, "op": operation.to_lowercase(), "value": value }));
        };
        let rest: Vec<&str> = words.collect();
        if group.is_v2() {
            for (key, value) in rest.iter().filter_map(|word| word.split_once('=')) {
                match (key, value.parse()) {
                    ("rbytes", Ok(value)) => add("read", value),
                    ("wbytes", Ok(value)) => add("write", value),
                    _ => {}
                }
            }
        } else if let [operation, value] = rest[..]
            && let Ok(value) = value.parse()
            && matches!(operation, "Read" | "Write")
        {
            add(operation, value);
        }
    }
    if out.is_empty() { Value::Null } else { json!(out) }
}

/// Counters of the container's interfaces, from its own /proc.
fn networks(container: &Container) -> Option<Value> {
    if container.with(|record| record.host.network_mode == "host") {
        return None;
    }
    let text = std::fs::read_to_string(format!("/proc/{}/net/dev", container.engine.state().pid)).ok()?;
    let mut out = serde_json::Map::new();
    for Interface { name, received, sent } in interfaces(&text) {
        let counters = json!({
            "rx_bytes": received.bytes, "rx_packets": received.packets, "rx_errors": received.errors, "rx_dropped": received.dropped,
            "tx_bytes": sent.bytes, "tx_packets": sent.packets, "tx_errors": sent.errors, "tx_dropped": sent.dropped,
        });
        out.insert(name, counters);
    }
    Some(Value::Object(out))
}
