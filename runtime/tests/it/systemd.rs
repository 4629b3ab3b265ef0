//! Groups that systemd makes for the launcher. They run as a service of a systemd that the machine has for them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::launcher::Bundle;

const GROUPS: &str = "/sys/fs/cgroup";

/// Properties of a unit, one `NAME=VALUE` a line.
fn show(unit: &str, properties: &str) -> String {
    let output = Command::new("systemctl").args(["show", unit, "--property", properties]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines.join(" ")
}

fn bundle(path: &str, script: &str) -> Bundle {
    let mut bundle = Bundle::new("systemd", script);
    bundle.config["linux"]["cgroupsPath"] = json!(path);
    bundle
}

fn refused(bundle: &Bundle, id: &str, words: &str) {
    let output = bundle.oci(&["--systemd-cgroup", "run", id]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && error.contains(words), "{error}");
    assert!(!bundle.dir.path().join("state").join(id).exists());
}

/// Starts a container that goes on; the first process's number.
fn start(bundle: &Bundle, id: &str) -> i32 {
    let program = coracle_programs::LAUNCHER.memfd().unwrap();
    let mut run = Command::new(coracle_programs::exec_path(&program));
    run.arg("--root").arg(bundle.dir.path().join("state")).current_dir(bundle.write());
    run.args(["--systemd-cgroup", "run", "--detach", "--pid-file", "pid", id]).stdout(std::process::Stdio::null());
    assert!(run.status().unwrap().success());
    fs::read_to_string(bundle.dir.path().join("pid")).unwrap().parse().unwrap()
}

fn ok(bundle: &Bundle, arguments: &[&str]) -> String {
    let output = bundle.oci(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn read(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default().trim().to_owned()
}

#[test]
#[ignore = "needs systemd: cargo xtask test vm"]
fn a_container_is_a_scope() {
    let mut bundle = bundle("machine.slice:libpod:c", "sleep 1000");
    bundle.config["linux"]["resources"] = json!({
        "pids": { "limit": 16 }, "memory": { "limit": 64 << 20, "swap": 64 << 20 },
        "cpu": { "shares": 2048, "quota": 33_333, "period": 100_000, "cpus": "0" },
    });
    bundle.config["annotations"] = json!({ "org.systemd.property.TimeoutStopSec": "uint64 7" });
    let pid = start(&bundle, "c");
    let group = PathBuf::from(GROUPS).join("machine.slice/libpod-c.scope");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap(), "0::/machine.slice/libpod-c.scope\n");
    let shown = |properties: &str| show("libpod-c.scope", properties);
    assert_eq!(
        shown("ActiveState,Slice,Delegate,Description,TimeoutStopUSec"),
        "ActiveState=active Delegate=yes Description=libcontainer container c Slice=machine.slice TimeoutStopUSec=7s"
    );
    assert_eq!(
        shown("MemoryMax,MemorySwapMax,TasksMax,CPUWeight,CPUQuotaPerSecUSec,AllowedCPUs"),
        "AllowedCPUs=0 CPUQuotaPerSecUSec=340ms CPUWeight=174 MemoryMax=67108864 MemorySwapMax=0 TasksMax=16"
    );
    let limits = || ["pids.max", "memory.max", "cpu.weight", "cpuset.cpus"].map(|file| read(&group, file));
    assert_eq!(limits(), ["16", "67108864", "174", "0"]);
    // Nobody else is in it: whoever held the place is gone.
    let processes = read(&group, "cgroup.procs");
    assert!(processes.lines().any(|line| line == pid.to_string()), "{processes}");
    let commands = processes.lines().map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default());
    assert!(commands.into_iter().all(|name| matches!(name.trim(), "sh" | "sleep" | "busybox")));
    // What has changed is what systemd writes when it begins anew.
    ok(&bundle, &["update", "--memory", "32M", "--memory-swap", "32M", "--pids-limit", "20", "c"]);
    assert_eq!(shown("MemoryMax,TasksMax"), "MemoryMax=33554432 TasksMax=20");
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    assert_eq!(limits(), ["20", "33554432", "174", "0"]);
    assert_eq!(
        ok(&bundle, &["exec", "c", "/bin/busybox", "cat", "/proc/self/cgroup"]),
        "0::/machine.slice/libpod-c.scope\n"
    );
    // A second one does not get in with it, and takes nothing away.
    refused(&bundle, "d", "container's cgroup is not empty");
    assert_eq!(shown("ActiveState"), "ActiveState=active");
    let process = coracle_launcher::process_fd::ProcessFd::open(pid).unwrap();
    ok(&bundle, &["kill", "c", "KILL"]);
    assert!(process.ends_within(60_000));
    ok(&bundle, &["delete", "c"]);
    assert_eq!(shown("LoadState,ActiveState"), "ActiveState=inactive LoadState=not-found");
    assert!(!group.exists());
}

#[test]
#[ignore = "needs systemd: cargo xtask test vm"]
fn what_fails_leaves_no_unit() {
    let mut failing = bundle(":run:fails", "exit 0");
    failing.config["process"]["args"] = json!(["nothing"]);
    refused(&failing, "fails", "executable file not found in $PATH");
    assert_eq!(show("run-fails.scope", "LoadState"), "LoadState=not-found");
    assert!(!Path::new(GROUPS).join("system.slice/run-fails.scope").exists());
    refused(&bundle("/a/b", "exit 0"), "path", r#"to be of format \"slice:prefix:name\" for systemd cgroups"#);
    refused(&bundle("a--b.slice:x:y", "exit 0"), "slice", "invalid slice name: a--b.slice");
    let mut annotated = bundle(":run:annotated", "exit 0");
    annotated.config["annotations"] = json!({ "org.systemd.property.NoSuchThing": "true" });
    // systemd's own words.
    refused(&annotated, "annotated", "NoSuchThing");
    assert_eq!(show("run-annotated.scope", "LoadState"), "LoadState=not-found");
}

#[test]
#[ignore = "needs systemd: cargo xtask test vm"]
fn a_scope_ends_with_its_container() {
    // In the foreground: the scope is there meanwhile, and the exit code is the container's.
    let short = bundle(":run:short", "cat /proc/self/cgroup; exit 3");
    let output = short.oci(&["--systemd-cgroup", "run", "short"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0::/system.slice/run-short.scope\n");
    assert_eq!(show("run-short.scope", "LoadState"), "LoadState=not-found");
    // Without a pid namespace a process outlives the first one, and the unit ends with it.
    let mut shared = bundle("-.slice::shared", "sleep 1000 & exec sleep 1001");
    let namespaces = shared.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    let pid = start(&shared, "shared");
    let group = Path::new(GROUPS).join("shared.scope");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap(), "0::/shared.scope\n");
    ok(&shared, &["delete", "--force", "shared"]);
    assert!(!group.exists());
    assert_eq!(show("shared.scope", "LoadState"), "LoadState=not-found");
    // Two slices deep.
    let deep = bundle("coracle-test.slice:x:deep", "exit 0");
    let (code, _, error) = {
        let output = deep.oci(&["--systemd-cgroup", "run", "deep"]);
        (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(code, Some(0), "{error}");
}
