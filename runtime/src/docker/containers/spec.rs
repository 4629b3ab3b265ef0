//! The OCI configuration of a container as Docker defines it (moby `daemon/oci_linux.go`).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    super::{Docker, http::Problem, types::HostConfig},
    Container, Record,
    mounts::MountPlan,
    options::device_rule,
};
use crate::{
    engine::{
        apparmor,
        model::{Resources, Seccomp, Security, User},
        namespaces::open_to_everybody,
        selinux::{self, Labels},
        spec::{self, LauncherAge},
    },
    snapshots::Root,
};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Devices every container may use, beside those that are made for it (`oci/devices_linux.go`).
const ALLOWED_DEVICES: [(&str, Option<u32>, Option<u32>, &str); 10] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(5), "rwm"),
    ("c", Some(1), Some(3), "rwm"),
    ("c", Some(1), Some(9), "rwm"),
    ("c", Some(1), Some(8), "rwm"),
    ("c", Some(5), Some(0), "rwm"),
    ("c", Some(5), Some(1), "rwm"),
    ("c", Some(136), None, "rwm"),
    ("c", Some(5), Some(2), "rwm"),
];
/// Names of limits in the order of their numbers (setrlimit(2)).
const RLIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

pub fn rlimit_number(name: &str) -> Option<usize> {
    RLIMITS.iter().position(|known| *known == name)
}

/// What `--security-opt` says.
#[derive(Debug, Default, PartialEq)]
pub struct SecurityOptions {
    pub no_new_privileges: bool,
    pub unconfined_seccomp: bool,
    /// A profile's text.
    pub seccomp: Option<String>,
    pub writable_cgroups: bool,
    /// A profile of the kernel's, or `unconfined`; empty for the default one.
    pub apparmor: String,
    /// Options of SELinux's labels, which do nothing where the kernel has none.
    pub labels: Vec<String>,
}

impl SecurityOptions {
    /// The profile as inspect shows it: nothing where there is no AppArmor (moby `daemon/container_linux.go`).
    pub fn shown_apparmor(&self, privileged: bool) -> &str {
        match self.apparmor.as_str() {
            _ if !apparmor::enabled() => "",
            _ if privileged => apparmor::UNCONFINED,
            "" => apparmor::DEFAULT,
            named => named,
        }
    }
}

/// Reads the options; what the kernel has no module for is refused unless it asks for nothing.
pub fn security_options(host: &HostConfig) -> Result<SecurityOptions, Problem> {
    let mut out = SecurityOptions::default();
    for option in host.security_opt.iter().flatten() {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        let bad = || Problem::bad(format!("invalid --security-opt 2: {option:?}"));
        match (key, value) {
            ("no-new-privileges", "" | "true") => out.no_new_privileges = true,
            ("no-new-privileges", "false") => out.no_new_privileges = false,
            ("seccomp", "unconfined") => out.unconfined_seccomp = true,
            ("seccomp", "builtin") => {}
            ("seccomp", profile) if profile.trim_start().starts_with('{') => out.seccomp = Some(profile.to_owned()),
            ("label", option) => out.labels.push(option.to_owned()),
            ("disable", "") => out.labels.push(selinux::DISABLE.to_owned()),
            // Docker's name for what is the default.
            ("apparmor", "docker-default" | apparmor::DEFAULT) => out.apparmor.clear(),
            ("apparmor", apparmor::UNCONFINED) => out.apparmor = apparmor::UNCONFINED.to_owned(),
            ("apparmor", name) if apparmor::enabled() => {
                apparmor::check_name(name)?;
                out.apparmor = name.to_owned();
            }
            ("apparmor", name) => {
                return Err(Problem::bad(format!(
                    "AppArmor profile {name:?} cannot be used: the kernel has no AppArmor"
                )));
            }
            ("writable-cgroups", "" | "true") => out.writable_cgroups = true,
            ("writable-cgroups", "false") => {}
            ("seccomp", _) => return Err(Problem::bad(format!("Decoding seccomp profile failed: {option:?}"))),
            _ => return Err(bad()),
        }
    }
    Ok(out)
}

/// The limits of a container, as the engine keeps them.
pub fn resources(host: &HostConfig) -> Resources {
    let (mut period, mut quota) = (host.cpu_period, host.cpu_quota);
    if host.nano_cpus > 0 {
        period = 100_000;
        quota = host.nano_cpus / 10_000;
    }
    Resources {
        cpu_period: period,
        cpu_quota: quota,
        cpu_shares: host.cpu_shares,
        memory_limit: host.memory,
        memory_swap_limit: host.memory_swap,
        oom_score_adj: host.oom_score_adj,
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        pids_limit: host.pids_limit.unwrap_or(0),
        ..Resources::default()
    }
}

fn engine_security(host: &HostConfig, files: &Path) -> Result<Security, Problem> {
    let options = security_options(host)?;
    let seccomp = match options.seccomp {
        _ if host.privileged || options.unconfined_seccomp => Seccomp::Unconfined,
        Some(profile) => {
            let path = files.join("seccomp.json");
            std::fs::write(&path, profile)
                .map_err(|error| Problem::internal(format!("write {}: {error}", path.display())))?;
            Seccomp::Localhost(path.to_string_lossy().into_owned())
        }
        None => Seccomp::RuntimeDefault,
    };
    Ok(Security {
        add_capabilities: host.cap_add.clone().unwrap_or_default(),
        drop_capabilities: host.cap_drop.clone().unwrap_or_default(),
        privileged: host.privileged,
        no_new_privileges: options.no_new_privileges,
        seccomp,
        apparmor: options.apparmor,
        selinux: options.labels,
        ..Security::default()
    })
}

/// The environment of a container's processes: defaults, then what is configured.
pub fn environment(record: &Record, tty: bool) -> Vec<String> {
    let mut out: Vec<String> = vec![DEFAULT_PATH.into(), format!("HOSTNAME={}", record.config.hostname)];
    if tty {
        out.push(spec::DEFAULT_TERM.into());
    }
    for entry in record.config.env.iter().flatten() {
        set_variable(&mut out, entry);
    }
    out
}

/// Replaces or adds `NAME=VALUE`; `NAME` alone removes it.
pub fn set_variable(environment: &mut Vec<String>, entry: &str) {
    let name = entry.split('=').next().unwrap_or_default();
    environment.retain(|other| other.split('=').next() != Some(name));
    if entry.contains('=') {
        environment.push(entry.to_owned());
    }
}

/// Entry point and arguments together.
pub fn arguments(record: &Record) -> Vec<String> {
    let config = &record.config;
    config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned().collect()
}

/// The namespaces that other containers lend.
#[derive(Debug, Default)]
pub struct Borrowed {
    pub pid: Option<u32>,
    pub ipc: Option<u32>,
    /// What `/dev/shm` is, where several containers have the same.
    pub shm: Option<PathBuf>,
}

/// Everything a configuration is made of.
pub struct Inputs<'a> {
    pub record: &'a Record,
    pub user: &'a User,
    pub root: &'a Root,
    pub labels: &'a Labels,
    pub cgroups_path: &'a str,
    /// The path of the network namespace; none for the daemon's own.
    pub netns: Option<&'a str>,
    pub borrowed: &'a Borrowed,
    pub mounts: &'a [MountPlan],
    pub files: &'a Path,
    pub cgroup_v2: bool,
    pub launcher: LauncherAge,
}

/// The options of the `/dev/shm` that a container shares.
pub fn shm_options(host: &HostConfig, labels: &Labels) -> String {
    let label = labels.root_option().map(|option| format!(",{option}")).unwrap_or_default();
    format!("mode=1777,size={}{label}", host.shm_size)
}

/// Makes `config.json`.
pub fn build(inputs: &Inputs<'_>) -> Result<Value, Problem> {
    let (record, host) = (inputs.record, &inputs.record.host);
    let security = engine_security(host, inputs.files)?;
    let read_only = host.readonly_rootfs;
    let root = match inputs.root {
        Root::Directory(path) => json!({ "path": path, "readonly": read_only }),
        Root::Mount { .. } => json!({ "path": "rootfs", "readonly": read_only }),
    };
    let propagations: Vec<&str> = inputs.mounts.iter().map(|mount| mount.propagation.as_str()).collect();
    let propagation = if propagations.iter().any(|name| name.ends_with("shared")) {
        "rshared"
    } else if propagations.iter().any(|name| name.ends_with("slave")) {
        "rslave"
    } else {
        "rprivate"
    };
    let (devices, rules) = devices(host)?;
    let mut limits = linux_resources(host)?;
    limits["devices"] = rules;
    let mut linux = json!({
        "cgroupsPath": inputs.cgroups_path,
        "namespaces": namespaces(inputs),
        "resources": limits,
        "devices": devices,
        "maskedPaths": host.masked_paths.clone().unwrap_or_default(),
        "readonlyPaths": host.readonly_paths.clone().unwrap_or_default(),
        "rootfsPropagation": propagation,
        "sysctl": sysctls(inputs),
    });
    if !inputs.labels.mount.is_empty() {
        linux["mountLabel"] = json!(inputs.labels.mount);
    }
    let filter = spec::seccomp(&security, inputs.launcher)?;
    if !filter.is_null() {
        linux["seccomp"] = filter;
    }
    let mut out = json!({
        "ociVersion": "1.2.0",
        "process": process(inputs, &security)?,
        "root": root,
        "mounts": mounts(inputs, &security)?,
        "linux": linux,
    });
    if host.uts_mode != "host" && (host.network_mode != "host" || !record.config.hostname.is_empty()) {
        out["hostname"] = json!(record.config.hostname);
        if !record.config.domainname.is_empty() {
            out["domainname"] = json!(record.config.domainname);
        }
    }
    if !host.annotations.is_empty() {
        out["annotations"] = json!(host.annotations);
    }
    Ok(out)
}

fn process(inputs: &Inputs<'_>, security: &Security) -> Result<Value, Problem> {
    let (record, host) = (inputs.record, &inputs.record.host);
    let mut environment = environment(record, record.config.tty);
    spec::add_home(&mut environment, inputs.user);
    let mut args = arguments(record);
    if host.init == Some(true) {
        args.splice(0..0, [super::files::INIT_PATH.to_owned(), "--".to_owned()]);
    }
    let capabilities = spec::capabilities(security)?;
    // A process of another user has none but in the bounding set, as Docker's profiles leave it (CVE-2022-24769).
    let own: &[String] = if inputs.user.uid == 0 { &capabilities } else { &[] };
    let cwd = if record.config.working_dir.is_empty() { "/" } else { &record.config.working_dir };
    let rlimits: Vec<Value> = host
        .ulimits
        .iter()
        .flatten()
        .map(|limit| {
            let value = |number: i64| if number < 0 { u64::MAX } else { number as u64 };
            json!({
                "type": format!("RLIMIT_{}", limit.name.to_uppercase()),
                "soft": value(limit.soft), "hard": value(limit.hard),
            })
        })
        .collect();
    let mut out = json!({
        "terminal": record.config.tty,
        "user": { "uid": inputs.user.uid, "gid": inputs.user.gid, "additionalGids": inputs.user.groups },
        "args": args,
        "env": environment,
        "cwd": cwd,
        "capabilities": {
            "bounding": capabilities, "effective": own, "permitted": own, "inheritable": [], "ambient": [],
        },
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
        "rlimits": rlimits,
    });
    if record.config.tty && host.console_size != [0, 0] {
        out["consoleSize"] = json!({ "height": host.console_size[0], "width": host.console_size[1] });
    }
    if let Some(profile) = apparmor::profile(security)? {
        out["apparmorProfile"] = json!(profile);
    }
    if !inputs.labels.process.is_empty() {
        out["selinuxLabel"] = json!(inputs.labels.process);
    }
    Ok(out)
}

fn namespaces(inputs: &Inputs<'_>) -> Value {
    let host = &inputs.record.host;
    let of_process = |pid: u32, kind: &str| json!(format!("/proc/{pid}/ns/{kind}"));
    let mut out = vec![json!({ "type": "mount" })];
    if let Some(path) = inputs.netns {
        out.push(json!({ "type": "network", "path": path }));
    }
    match inputs.borrowed.ipc {
        Some(pid) => out.push(json!({ "type": "ipc", "path": of_process(pid, "ipc") })),
        None if host.ipc_mode == "host" => {}
        None => out.push(json!({ "type": "ipc" })),
    }
    if host.uts_mode != "host" {
        out.push(json!({ "type": "uts" }));
    }
    match inputs.borrowed.pid {
        Some(pid) => out.push(json!({ "type": "pid", "path": of_process(pid, "pid") })),
        None if host.pid_mode == "host" => {}
        None => out.push(json!({ "type": "pid" })),
    }
    if host.cgroupns_mode == "private" {
        out.push(json!({ "type": "cgroup" }));
    }
    json!(out)
}

/// What was asked for, and ports below 1024 and ping for everybody in a namespace of its own, as Docker has them.
fn sysctls(inputs: &Inputs<'_>) -> Value {
    let host = &inputs.record.host;
    let mut out = host.sysctls.clone();
    let own_network = inputs.netns.is_some() && !host.network_mode.starts_with("container:");
    if own_network && !host.privileged {
        open_to_everybody(&mut out, true);
    }
    json!(out)
}

/// `linux.resources` without devices.
pub fn linux_resources(host: &HostConfig) -> Result<Value, Problem> {
    let mut out = spec::resources(&resources(host), true);
    if host.memory_reservation > 0 {
        out["memory"]["reservation"] = json!(host.memory_reservation);
    }
    if let Some(swappiness) = host.memory_swappiness {
        out["memory"]["swappiness"] = json!(swappiness);
    }
    if host.oom_kill_disable == Some(true) {
        out["memory"]["disableOOMKiller"] = json!(true);
    }
    if host.blkio_weight > 0 {
        out["blockIO"]["weight"] = json!(host.blkio_weight);
    }
    let number = |path: &str| -> Result<(u32, u32), Problem> {
        let node =
            spec::device_node(Path::new(path), path).map_err(|_| Problem::bad(format!("no such device: {path}")))?;
        let part = |key: &str| node[key].as_u64().unwrap_or(0) as u32;
        Ok((part("major"), part("minor")))
    };
    for (key, devices) in [
        ("throttleReadBpsDevice", &host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", &host.blkio_device_write_iops),
    ] {
        let mut list = Vec::new();
        for device in devices.iter().flatten() {
            let (major, minor) = number(&device.path)?;
            list.push(json!({ "major": major, "minor": minor, "rate": device.rate }));
        }
        if !list.is_empty() {
            out["blockIO"][key] = json!(list);
        }
    }
    let mut weights = Vec::new();
    for device in host.blkio_weight_device.iter().flatten() {
        let (major, minor) = number(&device.path)?;
        weights.push(json!({ "major": major, "minor": minor, "weight": device.weight }));
    }
    if !weights.is_empty() {
        out["blockIO"]["weightDevice"] = json!(weights);
    }
    Ok(out)
}

fn devices(host: &HostConfig) -> Result<(Value, Value), Problem> {
    if host.privileged {
        return Ok((json!(spec::host_devices()), json!([{ "allow": true, "access": "rwm" }])));
    }
    let mut nodes = Vec::new();
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    for (kind, major, minor, access) in ALLOWED_DEVICES {
        let mut rule = json!({ "allow": true, "type": kind, "access": access });
        for (key, number) in [("major", major), ("minor", minor)] {
            if let Some(number) = number {
                rule[key] = json!(number);
            }
        }
        rules.push(rule);
    }
    for device in host.devices.iter().flatten() {
        let inside = if device.path_in_container.is_empty() { &device.path_on_host } else { &device.path_in_container };
        let gather = |error| {
            Problem::internal(format!(
                "error gathering device information while adding custom device \"{}\": {error}",
                device.path_on_host
            ))
        };
        let path = Path::new(&device.path_on_host);
        if !path.exists() {
            return Err(gather("no such file or directory".into()));
        }
        let found = spec::device_nodes(path, inside).map_err(|error| gather(error.to_string()))?;
        let access = if device.cgroup_permissions.is_empty() { "rwm" } else { &device.cgroup_permissions };
        for node in found {
            rules.push(json!({
                "allow": true, "type": node["type"], "major": node["major"], "minor": node["minor"], "access": access,
            }));
            nodes.push(node);
        }
    }
    for rule in host.device_cgroup_rules.iter().flatten() {
        rules.push(device_rule(rule)?);
    }
    Ok((json!(nodes), json!(rules)))
}

fn mounts(inputs: &Inputs<'_>, security: &Security) -> Result<Value, Problem> {
    let host = &inputs.record.host;
    let writable_cgroups = host.privileged || security_options(host)?.writable_cgroups;
    let given = |path: &str| inputs.mounts.iter().any(|mount| Path::new(&mount.destination) == Path::new(path));
    let mut out = Vec::new();
    if let Root::Mount { kind, options } = inputs.root {
        let options: Vec<String> = options.iter().cloned().chain(inputs.labels.root_option()).collect();
        out.push(json!({ "destination": "/", "type": kind, "source": kind, "options": options }));
    }
    let mut add = |destination: &str, kind: &str, options: &[&str]| {
        if !given(destination) {
            out.push(json!({ "destination": destination, "type": kind, "source": kind, "options": options }));
        }
    };
    add("/proc", "proc", &["nosuid", "noexec", "nodev"]);
    add("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]);
    add("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]);
    add("/sys", "sysfs", &["nosuid", "noexec", "nodev", if security.privileged { "rw" } else { "ro" }]);
    add("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", if writable_cgroups { "rw" } else { "ro" }]);
    add("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]);
    let size = format!("size={}", host.shm_size);
    match (&inputs.borrowed.shm, host.ipc_mode.as_str()) {
        _ if given("/dev/shm") => {}
        (Some(source), _) => {
            out.push(json!({ "destination": "/dev/shm", "type": "bind", "source": source, "options": ["rbind", "rprivate", "rw"] }));
        }
        (None, "host") => {
            out.push(json!({ "destination": "/dev/shm", "type": "bind", "source": "/dev/shm", "options": ["rbind", "rprivate", "rw"] }));
        }
        (None, "none") => {}
        _ => out.push(json!({
            "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", size],
        })),
    }
    for plan in inputs.mounts {
        out.push(plan.oci());
    }
    Ok(json!(out))
}

impl Docker {
    /// Who the container's first process is.
    pub fn resolve_user(&self, container: &Container, user: &str, groups: &[String]) -> Result<User, Problem> {
        let top = container.engine.image.chains.last().cloned();
        let open = |path: &str| self.engine.snapshots().open_file(&container.id, top.as_ref(), Path::new(path));
        resolve_user(user, groups, open)
    }
}

/// Finds a user in a file system whose files `open` opens.
pub fn resolve_user(
    user: &str,
    groups: &[String],
    open: impl Fn(&str) -> Option<std::fs::File> + Copy,
) -> Result<User, Problem> {
    use std::io::Read;
    let mut found = crate::engine::user::resolve(&Security::default(), user, open)?;
    if !groups.is_empty() {
        let mut names = String::new();
        if let Some(file) = open("/etc/group") {
            // A file that cannot be read names nobody.
            let _ = file.take(1 << 20).read_to_string(&mut names);
        }
        for group in groups {
            let named = names.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(group)).then(|| fields.nth(1).and_then(|id| id.parse().ok())).flatten()
            });
            let number = group.parse::<u32>().ok().or(named).ok_or_else(|| {
                Problem::bad(format!("Unable to find group {group}: no matching entries in group file"))
            })?;
            if !found.groups.contains(&number) {
                found.groups.push(number);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_are_read_and_unknown_ones_refused() {
        let with = |options: &[&str]| {
            let security_opt = Some(options.iter().map(|option| (*option).to_owned()).collect());
            security_options(&HostConfig { security_opt, ..HostConfig::default() })
        };
        assert!(with(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(with(&["seccomp=unconfined", "label=disable"]).unwrap().unconfined_seccomp);
        let labels = with(&["label=type:spc_t", "label:level:s0:c1", "disable"]).unwrap().labels;
        assert_eq!(labels, ["type:spc_t", "level:s0:c1", "disable"]);
        assert_eq!(with(&["seccomp={}"]).unwrap().seccomp.as_deref(), Some("{}"));
        assert_eq!(
            with(&["apparmor=mine"]).ok().map(|options| options.apparmor == "mine"),
            apparmor::enabled().then_some(true)
        );
        assert_eq!(with(&["apparmor=unconfined"]).unwrap().apparmor, "unconfined");
        assert_eq!(with(&["apparmor=unconfined", "apparmor=docker-default"]).unwrap().apparmor, "");
        assert!(with(&["apparmor="]).is_err());
        assert!(with(&["nonsense=1"]).is_err());
    }

    #[test]
    fn cpus_become_a_quota() {
        let limits = resources(&HostConfig { nano_cpus: 500_000_000, ..HostConfig::default() });
        assert_eq!((limits.cpu_period, limits.cpu_quota), (100_000, 50_000));
    }

    #[test]
    fn variables_are_replaced_and_removed() {
        let mut environment = vec!["A=1".to_owned(), "B=2".to_owned()];
        set_variable(&mut environment, "A=3");
        set_variable(&mut environment, "B");
        assert_eq!(environment, ["A=3"]);
    }
}
