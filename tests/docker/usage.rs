//! `system df` and `stats`.

use std::io::{BufRead, BufReader};

use serde_json::{Value, json};

use crate::engine::{Engine, IMAGE, ours_alone};

fn get(engine: &Engine, path: &str) -> Value {
    let (status, value) = engine.request("GET", path, &Value::Null);
    assert_eq!(status, 200, "{path}: {value}");
    value
}

#[test]
fn disk_use_is_exact() {
    let engine = Engine::start();
    engine.ok(&["tag", IMAGE, "second:name"]);
    engine.ok(&[
        "run",
        "--name",
        "writer",
        "-v",
        "mine:/kept",
        IMAGE,
        "sh",
        "-c",
        "busybox dd if=/dev/zero of=/big bs=1000 count=100; busybox dd if=/dev/zero of=/kept/big bs=1000 count=50",
    ]);
    engine.ok(&["commit", "writer", "grown"]);
    engine.ok(&["create", "--name", "idle", IMAGE]);
    engine.ok(&["volume", "create", "unused"]);
    let use_ = get(&engine, "/system/df");
    let images = use_["Images"].as_array().unwrap();
    assert_eq!(images.len(), 2, "an image with two names counts once");
    let of =
        |name: &str| images.iter().find(|image| image["RepoTags"].as_array().unwrap().contains(&json!(name))).unwrap();
    let (base, grown) = (of(IMAGE), of("grown:latest"));
    let (base_size, grown_size) = (base["Size"].as_u64().unwrap(), grown["Size"].as_u64().unwrap());
    assert_eq!(grown_size - base_size, 100_000);
    assert_eq!((&base["Containers"], &grown["Containers"]), (&json!(2), &json!(0)));
    // The layer below both is there once.
    assert_eq!(use_["LayersSize"].as_u64(), Some(grown_size));
    assert_eq!(base["SharedSize"].as_u64(), Some(base_size));
    let containers = use_["Containers"].as_array().unwrap();
    let size = |name: &str| {
        let container = containers.iter().find(|container| container["Names"][0] == name).unwrap();
        container["SizeRw"].as_u64().unwrap_or(0)
    };
    assert_eq!((size("/writer"), size("/idle")), (100_000, 0));
    let volumes = use_["Volumes"].as_array().unwrap();
    let volume = |name: &str| &volumes.iter().find(|volume| volume["Name"] == name).unwrap()["UsageData"];
    assert_eq!(volume("mine"), &json!({ "Size": 50_000, "RefCount": 1 }));
    assert_eq!(volume("unused")["RefCount"], 0);
    if !engine.is_older(42, "one kind of disk use alone") {
        let one = get(&engine, "/system/df?type=volume");
        assert!(one["Volumes"].is_array() && one.get("Images").is_none_or(Value::is_null), "{one}");
    }
    let table = engine.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"]);
    assert!(table.contains("Images 2 1\nContainers 2 0\nLocal Volumes 2 1"), "{table}");
}

#[test]
fn the_daemon_counts_what_it_does() {
    if ours_alone("dockerd 20.10 counts commits and failed builds otherwise") {
        return;
    }
    let engine = Engine::start_with(&["--metrics-addr", "127.0.0.1:9323"]);
    engine.ok(&["run", "-d", "--name", "one", IMAGE, "sleep", "1000"]);
    engine.ok(&["run", "--rm", IMAGE, "true"]);
    engine.ok(&["commit", "one", "made"]);
    for (wrong, options) in [
        ("RUN false", &["build", "-"][..]),
        ("SHOUT x", &["build", "-"]),
        ("ONBUILD", &["build", "-"]),
        ("RUN --nothing x", &["build", "-"]),
        ("RUN true", &["build", "--target", "none", "-"]),
    ] {
        assert!(!engine.docker_with(options, &format!("FROM {IMAGE}\n{wrong}\n")).status.success());
    }
    assert!(!engine.docker_with(&["build", "-"], "# nothing\n").status.success());
    engine.ok(&["info"]);
    engine.ok(&["version"]);
    let text = engine.on_host(&["curl", "-sS", "http://127.0.0.1:9323/metrics"]).ok();
    for line in [
        "engine_daemon_container_states_containers{state=\"running\"} 1",
        "engine_daemon_container_actions_seconds_count{action=\"commit\"} 1",
        "engine_daemon_container_actions_seconds_count{action=\"delete\"} 1",
        "engine_daemon_events_subscribers_total 0",
        "builder_builds_triggered_total 6",
        "builder_builds_failed_total{reason=\"build_canceled\"} 0",
        "builder_builds_failed_total{reason=\"build_target_not_reachable_error\"} 1",
        "builder_builds_failed_total{reason=\"dockerfile_empty_error\"} 1",
        "builder_builds_failed_total{reason=\"dockerfile_syntax_error\"} 1",
        "builder_builds_failed_total{reason=\"error_processing_commands_error\"} 1",
        "builder_builds_failed_total{reason=\"missing_onbuild_arguments_error\"} 1",
        "builder_builds_failed_total{reason=\"unknown_instruction_error\"} 1",
        // One runs still.
        "engine_daemon_network_actions_seconds_count{action=\"allocate\"} 3",
        "engine_daemon_network_actions_seconds_count{action=\"connect\"} 3",
        "engine_daemon_network_actions_seconds_count{action=\"release\"} 2",
        "engine_daemon_host_info_functions_seconds_count{function=\"system_info\"} 1",
        "promhttp_metric_handler_requests_in_flight 1",
        "promhttp_metric_handler_requests_total{code=\"200\"} 0",
        "# TYPE engine_daemon_container_actions_seconds histogram",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    // Also asked before a first talk, to find the version that both speak.
    let versions = value("engine_daemon_host_info_functions_seconds_count{function=\"system_version\"} ");
    assert!(versions.is_some_and(|count| count >= 1.0), "{text}");
    let resident = value("process_resident_memory_bytes ").unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.daemon())).unwrap();
    let told =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    assert!(resident > 1e6 && resident <= told.unwrap() * 1024.0, "{resident} of {told:?}");
    let started = text.lines().find_map(|line| {
        line.strip_prefix("engine_daemon_container_actions_seconds_count{action=\"start\"} ")?.parse::<u32>().ok()
    });
    assert_eq!(started, Some(3), "two runs and a step of a build");
    let other = engine.on_host(&["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:9323/"]).ok();
    assert_eq!(other, "404");
}

#[test]
fn stats_are_told_once_and_again() {
    let engine = Engine::start();
    let busy = "while :; do :; done";
    engine.ok(&["run", "-d", "--name", "busy", "--memory", "64m", "--cpus", "0.2", IMAGE, "sh", "-c", busy]);
    let once = get(&engine, "/containers/busy/stats?stream=0&one-shot=1");
    assert_eq!(once["memory_stats"]["limit"], 64 << 20);
    assert_eq!(once["preread"], "0001-01-01T00:00:00Z", "nothing came before");
    assert!(once["networks"]["eth0"]["rx_bytes"].is_u64(), "{once}");
    assert_eq!(once["pids_stats"]["current"], 1);
    let rated = get(&engine, "/containers/busy/stats?stream=0");
    let used = |stats: &Value, part: &str| stats[part]["cpu_usage"]["total_usage"].as_u64().unwrap();
    assert!(used(&rated, "cpu_stats") > used(&rated, "precpu_stats"), "{rated}");
    assert_ne!(rated["preread"], "0001-01-01T00:00:00Z");
    let mut stream = BufReader::new(engine.send("GET", "/containers/busy/stats", ""));
    let mut told: Vec<Value> = Vec::new();
    while told.len() < 3 {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "the stream ended");
        if line.starts_with('{') {
            told.push(serde_json::from_str(&line).unwrap());
        }
    }
    assert_eq!(told[2]["preread"], told[1]["read"], "each follows the one before");
    assert!(used(&told[2], "cpu_stats") > used(&told[0], "cpu_stats"));
    drop(stream);
    let shown = engine.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "busy"]);
    assert!(shown.starts_with("busy 1 ") && shown.ends_with("/ 64MiB"), "{shown}");
    engine.ok(&["kill", "busy"]);
    let ended = get(&engine, "/containers/busy/stats?stream=0&one-shot=1");
    assert_eq!(ended["pids_stats"], json!({}), "{ended}");
    let (status, _) = engine.request("GET", "/containers/nobody/stats?stream=0", &Value::Null);
    assert_eq!(status, 404);
}
