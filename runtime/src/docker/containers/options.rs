//! What a host's part of a configuration must be like: defaults, and refusals in dockerd's words (`daemon_unix.go`,
//! `runconfig/hostconfig_unix.go`). What is not supported is refused by its name.

use super::{
    super::{
        http::Problem,
        types::{Config, HostConfig},
    },
    log_options,
};

const MIN_MEMORY: i64 = 6 << 20;
const DEFAULT_SHM: i64 = 64 << 20;
pub const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

type Checked = Result<(), Problem>;

fn refuse(message: impl Into<String>) -> Checked {
    Err(Problem::bad(message))
}

/// Fills in what was left open.
pub fn fill(host: &mut HostConfig, cgroup_v2: bool) {
    let default = |text: &mut String, value: &str| {
        if text.is_empty() {
            *text = value.into();
        }
    };
    if host.network_mode == "default" {
        host.network_mode.clear();
    }
    default(&mut host.network_mode, "bridge");
    default(&mut host.log_config.kind, "json-file");
    default(&mut host.ipc_mode, "private");
    default(&mut host.cgroupns_mode, if cgroup_v2 && !host.privileged { "private" } else { "host" });
    default(&mut host.restart_policy.name, "no");
    default(&mut host.runtime, "runc");
    if host.shm_size == 0 {
        host.shm_size = DEFAULT_SHM;
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    if host.pids_limit.is_some_and(|limit| limit <= 0) {
        host.pids_limit = None;
    }
    if host.memory_swappiness == Some(-1) {
        host.memory_swappiness = None;
    }
    let paths = |paths: &mut Option<Vec<String>>, defaults: &[&str]| {
        if paths.is_none() {
            *paths = Some(defaults.iter().map(|path| (*path).to_owned()).collect());
        }
    };
    if host.privileged {
        (host.masked_paths, host.readonly_paths) = (None, None);
    } else {
        paths(&mut host.masked_paths, &MASKED_PATHS);
        paths(&mut host.readonly_paths, &READONLY_PATHS);
    }
    if host.privileged && host.security_opt.is_none() {
        host.security_opt = Some(vec!["label=disable".into()]);
    }
}

/// Judges everything that can be judged without the world.
pub fn check(host: &HostConfig, config: &Config) -> Checked {
    check_supported(host)?;
    check_network(host, config)?;
    check_modes(host, config)?;
    check_resources(host)?;
    check_policy(host)?;
    if host.shm_size < 0 {
        return refuse("SHM size can not be less than 0");
    }
    log_options::read(&host.log_config)?;
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return refuse(format!("Invalid value {}, range for oom score adj is [-1000, 1000]", host.oom_score_adj));
    }
    for extra in host.extra_hosts.iter().flatten() {
        let (name, address) = extra.split_once([':', '=']).unwrap_or((extra, ""));
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() || address.is_empty() {
            return refuse(format!("bad format for add-host: \"{extra}\""));
        }
        if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
            return refuse(format!("invalid IP address in add-host: \"{address}\""));
        }
    }
    for server in &host.dns {
        if server.parse::<std::net::IpAddr>().is_err() {
            return refuse(format!("bad nameserver address: {server}"));
        }
    }
    for rule in host.device_cgroup_rules.iter().flatten() {
        device_rule(rule)?;
    }
    for (field, names) in [("CapAdd", &host.cap_add), ("CapDrop", &host.cap_drop)] {
        let known = |name: &str| {
            let upper = name.to_uppercase();
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            if full == "CAP_ALL" || coracle_launcher::capabilities::bit(&full).is_some() { Ok(()) } else { Err(full) }
        };
        if let Some(name) = names.iter().flatten().find_map(|name| known(name).err()) {
            return refuse(format!("invalid {field}: unknown capability: {name:?}"));
        }
    }
    super::spec::security_options(host).map(drop)
}

/// What Docker has and this engine has not.
fn check_supported(host: &HostConfig) -> Checked {
    if let Some(request) = host.device_requests.iter().flatten().next() {
        let driver = request["Driver"].as_str().filter(|driver| !driver.is_empty()).unwrap_or("");
        return Err(Problem::internal(format!(
            "could not select device driver \"{driver}\" with capabilities: {}",
            // As Go prints a list of lists.
            request["Capabilities"].to_string().replace('"', "").replace(',', " ")
        )));
    }
    if !host.storage_opt.is_empty() {
        return refuse("--storage-opt is supported only for overlay over xfs with 'pquota' mount option");
    }
    let unsupported: [(&str, bool); 9] = [
        ("CpuRealtimePeriod", host.cpu_realtime_period != 0),
        ("CpuRealtimeRuntime", host.cpu_realtime_runtime != 0),
        ("KernelMemory", host.kernel_memory != 0),
        ("KernelMemoryTCP", host.kernel_memory_tcp != 0),
        ("Cgroup", !host.cgroup.is_empty()),
        ("CpuCount", host.cpu_count != 0),
        ("CpuPercent", host.cpu_percent != 0),
        ("IOMaximumBandwidth", host.io_maximum_bandwidth != 0),
        ("IOMaximumIOps", host.io_maximum_iops != 0),
    ];
    if let Some((name, _)) = unsupported.iter().find(|(_, given)| *given) {
        return refuse(format!("HostConfig.{name} is not supported by this engine"));
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return refuse("invalid UsernsMode: only \"host\" is supported by this engine");
    }
    if !matches!(host.runtime.as_str(), "" | "runc" | "coracle" | "io.containerd.runc.v2") {
        return refuse(format!("unknown or invalid runtime name: {}", host.runtime));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return refuse(format!("invalid isolation ({}): must be \"default\" on linux", host.isolation));
    }
    if !matches!(host.volume_driver.as_str(), "" | "local") {
        return refuse(format!("error looking up volume plugin {0}: plugin \"{0}\" not found", host.volume_driver));
    }
    Ok(())
}

fn check_network(host: &HostConfig, config: &Config) -> Checked {
    let mode = host.network_mode.as_str();
    let linked = host.links.iter().flatten().next().is_some();
    if let Some(target) = mode.strip_prefix("container:") {
        if target.is_empty() {
            return refuse("Invalid network mode: invalid container format container:<name|id>");
        }
        let published = host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty()) || host.publish_all_ports;
        let conflicts = [
            (!config.hostname.is_empty(), "conflicting options: hostname and the network mode"),
            (
                linked,
                "conflicting options: container type network can't be used with links. This would result in undefined behavior",
            ),
            (!host.dns.is_empty(), "conflicting options: dns and the network mode"),
            (
                host.extra_hosts.iter().flatten().next().is_some(),
                "conflicting options: custom host-to-IP mapping and the network mode",
            ),
            (published, "conflicting options: port publishing and the container type network mode"),
            (
                !config.exposed_ports.is_empty(),
                "conflicting options: port exposing and the container type network mode",
            ),
        ];
        if let Some((_, message)) = conflicts.iter().find(|(given, _)| *given) {
            return refuse(*message);
        }
    }
    if mode == "host" && linked {
        return refuse(
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        );
    }
    Ok(())
}

fn check_modes(host: &HostConfig, config: &Config) -> Checked {
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return refuse("invalid UTS mode");
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return refuse("conflicting options: hostname and the UTS mode");
    }
    let of_container = |mode: &str| mode.strip_prefix("container:").is_some_and(|target| !target.is_empty());
    if !matches!(host.pid_mode.as_str(), "" | "host" | "private") && !of_container(&host.pid_mode) {
        return refuse("invalid PID mode");
    }
    if !matches!(host.ipc_mode.as_str(), "none" | "private" | "shareable" | "host") && !of_container(&host.ipc_mode) {
        return refuse(format!("invalid IPC mode: {}", host.ipc_mode));
    }
    if !matches!(host.cgroupns_mode.as_str(), "private" | "host") {
        return refuse("invalid cgroup namespace mode");
    }
    Ok(())
}

fn check_policy(host: &HostConfig) -> Checked {
    let policy = &host.restart_policy;
    match policy.name.as_str() {
        "always" | "unless-stopped" | "no" if policy.maximum_retry_count != 0 => {
            let extra = if policy.maximum_retry_count < 0 { " and cannot be negative" } else { "" };
            return refuse(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'{extra}"
            ));
        }
        "on-failure" if policy.maximum_retry_count < 0 => {
            return refuse("invalid restart policy: maximum retry count cannot be negative");
        }
        "always" | "unless-stopped" | "no" | "on-failure" => {}
        other => {
            return refuse(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ));
        }
    }
    if host.auto_remove && policy.name != "no" {
        return refuse("can't create 'AutoRemove' container with restart policy");
    }
    Ok(())
}

pub fn check_resources(host: &HostConfig) -> Checked {
    if host.memory != 0 && host.memory < MIN_MEMORY {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let Some(swappiness) = host.memory_swappiness.filter(|value| !(0..=100).contains(value)) {
        return refuse(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100"));
    }
    if host.memory_reservation > 0 && host.memory_reservation < MIN_MEMORY {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory_reservation > 0 && host.memory < host.memory_reservation {
        return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as i64);
    if host.nano_cpus < 0 || host.nano_cpus > cpus * 1_000_000_000 {
        return refuse(format!("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return refuse("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return refuse("Range of blkio weight is from 10 to 1000");
    }
    for (what, list) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        let good =
            |part: &str| part.split('-').count() <= 2 && part.split('-').all(|number| number.parse::<u32>().is_ok());
        if !list.is_empty() && !list.split(',').all(|part| good(part.trim())) {
            return refuse(format!("Invalid value {list} for cpuset {what}: invalid format: {list}"));
        }
    }
    let highest = |list: &str| list.split([',', '-']).filter_map(|number| number.trim().parse::<i64>().ok()).max();
    if highest(&host.cpuset_cpus).is_some_and(|cpu| cpu >= cpus) {
        return refuse(format!(
            "Requested CPUs are not available - requested {}, available: 0-{}",
            host.cpuset_cpus,
            cpus - 1
        ));
    }
    for limit in host.ulimits.iter().flatten() {
        if super::spec::rlimit_number(&limit.name).is_none() {
            return refuse(format!("invalid ulimit type: {}", limit.name));
        }
        if limit.hard != -1 && limit.soft > limit.hard {
            return refuse(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                limit.soft, limit.hard
            ));
        }
    }
    Ok(())
}

/// `c 1:3 rwm`: type, major, minor, access.
pub fn device_rule(rule: &str) -> Result<serde_json::Value, Problem> {
    let bad = || Problem::bad(format!("invalid device cgroup rule format: '{rule}'"));
    let mut words = rule.split_whitespace();
    let (Some(kind @ ("a" | "b" | "c")), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    if access.is_empty() || !access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(bad());
    }
    let mut out = serde_json::json!({ "allow": true, "type": kind, "access": access });
    for (key, text) in [("major", major), ("minor", minor)] {
        if text != "*" {
            out[key] = serde_json::json!(text.parse::<u32>().map_err(|_| bad())?);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{super::super::types::RestartPolicy, *};

    fn message(change: impl FnOnce(&mut HostConfig)) -> String {
        let mut host = HostConfig::default();
        change(&mut host);
        fill(&mut host, false);
        check(&host, &Config::default()).err().map(|problem| problem.message).unwrap_or_default()
    }

    #[test]
    fn bad_options_are_refused_in_dockers_words() {
        assert_eq!(message(|_| {}), "");
        assert_eq!(message(|host| host.memory = 1), "Minimum memory limit allowed is 6MB");
        assert!(message(|host| host.nano_cpus = 1 << 50).starts_with("range of CPUs is from 0.01"));
        assert!(message(|host| host.uts_mode = "x".into()).contains("invalid UTS mode"));
        assert!(
            message(|host| host.storage_opt = [("size".into(), "1".into())].into())
                .contains("--storage-opt is supported only")
        );
        let policy = |name: &str, count| RestartPolicy { name: name.into(), maximum_retry_count: count };
        assert!(message(|host| host.restart_policy = policy("sometimes", 0)).contains("unknown policy 'sometimes'"));
        assert!(message(|host| host.restart_policy = policy("always", 3)).contains("only be used with 'on-failure'"));
        assert!(message(|host| host.log_config.kind = "syslog".into()).contains("no log driver named 'syslog'"));
        assert!(
            message(|host| host.device_cgroup_rules = Some(vec!["c 1:3".into()])).contains("invalid device cgroup")
        );
    }
}
