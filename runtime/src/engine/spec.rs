//! The OCI configuration of a container (OCI runtime specification 1.2; the defaults are containerd's `oci` package's).

use std::{
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use coracle_launcher::{mount_options::SUBPATH, sys};
use serde_json::{Value, json};

use super::{
    model::{
        ContainerConfig, Device, IdMappings, IdRange, Mount, MountedImage, Propagation, Resources, SandboxConfig,
        Seccomp, Security, User,
    },
    propagation,
    selinux::Labels,
};
use crate::{
    error::{Context, Error, Result},
    images::manifest::RunConfig,
    snapshots::{Root, Snapshotter, open_detached, overlay},
};

/// What containers may do unless told otherwise.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The terminal that every client's can act as.
pub const DEFAULT_TERM: &str = "TERM=xterm";

/// Which launcher will read a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LauncherAge {
    /// This program's.
    Ours,
    /// That of a shim which an earlier daemon started: it may be older, and knows what the OCI specification says.
    Unknown,
}

/// Everything a configuration is made of.
pub struct Inputs<'a> {
    pub sandbox: &'a SandboxConfig,
    pub config: &'a ContainerConfig,
    /// Directories of its own that its image asks for.
    pub volumes: &'a [Mount],
    pub image: &'a RunConfig,
    pub user: &'a User,
    pub root: &'a Root,
    pub labels: &'a Labels,
    pub cgroups_path: &'a str,
    /// Paths of the sandbox's pinned namespaces; none for the host's.
    pub net: Option<&'a Path>,
    pub ipc: Option<&'a Path>,
    pub uts: Option<&'a Path>,
    /// The sandbox's own users.
    pub users: Option<&'a Path>,
    /// A process whose pid namespace is shared.
    pub pid: Option<&'a Path>,
    /// Where the layers of images are that are mounted.
    pub snapshots: &'a dyn Snapshotter,
    /// Files of the sandbox: hosts, hostname, resolv.conf.
    pub files: &'a Path,
    /// The sandbox's `/dev/shm`, where it has one.
    pub shm: &'a Path,
    pub cgroup_v2: bool,
    /// Whether the kernel counts the huge pages of groups.
    pub huge_pages: bool,
    pub seccomp: Value,
}

impl Inputs<'_> {
    /// Whether `/sys` is the node's: it has users of its own, in the node's network.
    fn has_nodes_sysfs(&self) -> bool {
        self.users.is_some() && self.net.is_none()
    }
}

/// Makes `config.json`.
pub fn build(inputs: &Inputs<'_>) -> Result<Value> {
    let config = inputs.config;
    let security = &config.security;
    let root = match inputs.root {
        Root::Directory(path) => json!({ "path": path, "readonly": security.readonly_rootfs }),
        Root::Mount { .. } => json!({ "path": "rootfs", "readonly": security.readonly_rootfs }),
    };
    let propagation = if config.mounts.iter().any(|mount| mount.propagation == Propagation::Bidirectional) {
        "rshared"
    } else if config.mounts.iter().any(|mount| mount.propagation == Propagation::HostToContainer) {
        "rslave"
    } else {
        "rprivate"
    };
    let mut resources = resources(&config.resources, inputs.huge_pages);
    let (devices, rules) = devices(&config.devices, security.privileged)?;
    resources["devices"] = rules;
    let masks = |paths: &[String]| if security.privileged { json!([]) } else { json!(paths) };
    let mut linux = json!({
        "cgroupsPath": inputs.cgroups_path,
        "namespaces": namespaces(inputs),
        "resources": resources,
        "devices": devices,
        "maskedPaths": masks(&security.masked_paths),
        "readonlyPaths": masks(&security.readonly_paths),
        "rootfsPropagation": propagation,
    });
    if inputs.users.is_some() {
        let (users, groups) = id_mappings(&inputs.sandbox.users);
        linux["uidMappings"] = users;
        linux["gidMappings"] = groups;
    }
    if !inputs.labels.mount.is_empty() {
        linux["mountLabel"] = json!(inputs.labels.mount);
    }
    if !inputs.seccomp.is_null() {
        linux["seccomp"] = inputs.seccomp.clone();
    }
    Ok(json!({
        "ociVersion": "1.2.0",
        "process": process(inputs)?,
        "root": root,
        "mounts": mounts(inputs)?,
        "linux": linux,
    }))
}

fn process(inputs: &Inputs<'_>) -> Result<Value> {
    let (config, image) = (inputs.config, inputs.image);
    let args = command(config, image)?;
    let env = environment(inputs);
    let cwd = [config.working_dir.as_str(), image.working_dir.as_str(), "/"]
        .into_iter()
        .find(|dir| !dir.is_empty())
        .unwrap_or("/");
    let security = &config.security;
    let capabilities = capabilities(security)?;
    let ambient = normal_capabilities(&security.add_ambient_capabilities)?;
    let user = inputs.user;
    let mut process = json!({
        "terminal": config.tty,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": args,
        "env": env,
        "cwd": if cwd.starts_with('/') { cwd.to_owned() } else { format!("/{cwd}") },
        "capabilities": {
            "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            "inheritable": ambient, "ambient": ambient,
        },
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": config.resources.oom_score_adj,
    });
    if let Some(profile) = super::apparmor::profile(security)? {
        process["apparmorProfile"] = json!(profile);
    }
    // A privileged one is as the policy has the runtime's children (containerd `internal/cri/server`, `createContainer`).
    if !security.privileged && !inputs.labels.process.is_empty() {
        process["selinuxLabel"] = json!(inputs.labels.process);
    }
    Ok(process)
}

/// Kubernetes' rule: a command replaces the entry point and drops the image's arguments.
pub fn command(config: &ContainerConfig, image: &RunConfig) -> Result<Vec<String>> {
    // One empty word is how an image says that it has no entry point (moby `daemon/commit.go`).
    let entrypoint: &[String] = if image.entrypoint == [""] { &[] } else { &image.entrypoint };
    let mut out = if config.command.is_empty() { entrypoint.to_vec() } else { config.command.clone() };
    if !config.args.is_empty() {
        out.extend(config.args.iter().cloned());
    } else if config.command.is_empty() {
        out.extend(image.cmd.iter().cloned());
    }
    if out.is_empty() { Err(Error::invalid("no command specified")) } else { Ok(out) }
}

fn environment(inputs: &Inputs<'_>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut set = |entry: String| {
        let name = format!("{}=", entry.split('=').next().unwrap_or_default());
        out.retain(|other| !other.starts_with(&name));
        out.push(entry);
    };
    set(DEFAULT_PATH.into());
    set(format!("HOSTNAME={}", inputs.sandbox.hostname()));
    if inputs.config.tty {
        set(DEFAULT_TERM.into());
    }
    inputs.image.env.iter().for_each(|entry| set(entry.clone()));
    inputs.config.env.iter().for_each(|(name, value)| set(format!("{name}={value}")));
    add_home(&mut out, inputs.user);
    out
}

/// Says where a user is at home, unless the environment does (runc `libcontainer/env.go`).
pub fn add_home(environment: &mut Vec<String>, user: &User) {
    if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
        environment.push(format!("HOME={}", user.home));
    }
}

/// The configuration of a further process in a running container: the first one's with another command. With a terminal
/// it has a `TERM`, which clients do not send (containerd `internal/cri/server`, `execInternal`).
pub fn exec_process(config: &Value, command: &[String], tty: bool) -> Value {
    let mut process = config["process"].clone();
    process["args"] = json!(command);
    process["terminal"] = json!(tty);
    if tty && let Some(environment) = process["env"].as_array_mut() {
        let is_term = |entry: &Value| entry.as_str().is_some_and(|entry| entry.starts_with("TERM="));
        if !environment.iter().any(is_term) {
            environment.push(json!(DEFAULT_TERM));
        }
    }
    process
}

fn normal_capabilities(names: &[String]) -> Result<Vec<String>> {
    let normal = |name: &String| {
        let upper = name.to_uppercase();
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if coracle_launcher::capabilities::bit(&full).is_none() {
            Err(Error::invalid(format!("unknown capability {name:?}")))
        } else {
            Ok(full)
        }
    };
    names.iter().filter(|name| !name.eq_ignore_ascii_case("all")).map(normal).collect()
}

/// The capabilities of a container's bounding set.
pub fn capabilities(security: &Security) -> Result<Vec<String>> {
    let all = || coracle_launcher::capabilities::names().collect::<Vec<_>>();
    if security.privileged {
        return Ok(all());
    }
    let is_all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("all"));
    let mut out: Vec<String> = DEFAULT_CAPABILITIES.map(str::to_owned).into();
    if is_all(&security.add_capabilities) {
        out = all();
    }
    if is_all(&security.drop_capabilities) {
        out.clear();
    }
    for name in normal_capabilities(&security.add_capabilities)?
        .into_iter()
        .chain(normal_capabilities(&security.add_ambient_capabilities)?)
    {
        if !out.contains(&name) {
            out.push(name);
        }
    }
    let dropped = normal_capabilities(&security.drop_capabilities)?;
    out.retain(|name| !dropped.contains(name));
    Ok(out)
}

fn namespaces(inputs: &Inputs<'_>) -> Value {
    let mut out = vec![json!({ "type": "mount" })];
    for (kind, path) in [("user", inputs.users), ("network", inputs.net), ("ipc", inputs.ipc), ("uts", inputs.uts)] {
        if let Some(path) = path {
            out.push(json!({ "type": kind, "path": path }));
        }
    }
    if let Some(path) = inputs.pid {
        out.push(json!({ "type": "pid", "path": path }));
    } else if !inputs.config.security.host_pid {
        out.push(json!({ "type": "pid" }));
    }
    if inputs.cgroup_v2 && !inputs.config.security.privileged && !inputs.has_nodes_sysfs() {
        out.push(json!({ "type": "cgroup" }));
    }
    Value::Array(out)
}

fn id_mappings(mappings: &IdMappings) -> (Value, Value) {
    let of = |ranges: &[IdRange]| {
        let of = |range: &IdRange| json!({ "containerID": range.inside, "hostID": range.outside, "size": range.size });
        ranges.iter().map(of).collect()
    };
    (of(&mappings.users), of(&mappings.groups))
}

/// `linux.resources` without devices. `huge_pages`: whether the kernel counts those of groups.
pub fn resources(resources: &Resources, huge_pages: bool) -> Value {
    let mut cpu = json!({});
    let mut memory = json!({});
    let set = |object: &mut Value, key: &str, value: i64| {
        if value != 0 {
            object[key] = json!(value);
        }
    };
    set(&mut cpu, "shares", resources.cpu_shares);
    set(&mut cpu, "quota", resources.cpu_quota);
    set(&mut cpu, "period", resources.cpu_period);
    for (key, value) in [("cpus", &resources.cpuset_cpus), ("mems", &resources.cpuset_mems)] {
        if !value.is_empty() {
            cpu[key] = json!(value);
        }
    }
    set(&mut memory, "limit", resources.memory_limit);
    // Memory and swap together: who has a limit does not swap unless it is said (containerd `WithResources`).
    let swap = if resources.memory_swap_limit == 0 { resources.memory_limit } else { resources.memory_swap_limit };
    set(&mut memory, "swap", swap);
    let mut out = json!({ "cpu": cpu, "memory": memory });
    if resources.pids_limit != 0 {
        out["pids"] = json!({ "limit": resources.pids_limit });
    }
    // The kubelet names every page size of the machine, with 0 where the container has not asked for it. Where nothing
    // counts them that cannot be kept, as elsewhere (containerd, `tolerate_missing_hugetlb_controller`); what was asked for
    // is refused there.
    let pages: Vec<Value> = resources
        .hugepages
        .iter()
        .filter(|(_, limit)| *limit != 0 || huge_pages)
        .map(|(size, limit)| json!({ "pageSize": size, "limit": limit }))
        .collect();
    if !pages.is_empty() {
        out["hugepageLimits"] = json!(pages);
    }
    if !resources.unified.is_empty() {
        out["unified"] = json!(resources.unified);
    }
    out
}

fn devices(devices: &[Device], privileged: bool) -> Result<(Value, Value)> {
    let mut nodes = if privileged { host_devices() } else { Vec::new() };
    let mut rules = vec![json!({ "allow": privileged, "access": "rwm" })];
    for device in devices {
        let (host, inside) = (Path::new(&device.host_path), &device.container_path);
        let given = device_nodes(host, inside).context(format!("device {}", device.host_path))?;
        let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        for node in given {
            if !privileged {
                rules.push(json!({ "allow": true, "type": node["type"], "major": node["major"], "minor": node["minor"], "access": access }));
            }
            nodes.retain(|other| other["path"] != node["path"]);
            nodes.push(node);
        }
    }
    Ok((json!(nodes), json!(rules)))
}

/// A device of the host, or all that are in a directory (moby `oci/devices_linux.go`, containerd `pkg/oci`, `getDevices`).
pub fn device_nodes(host: &Path, inside: &str) -> Result<Vec<Value>> {
    if host.is_dir() {
        return Ok(devices_below(host, Path::new(inside), 0));
    }
    Ok(vec![device_node(host, inside)?])
}

/// A device of the host as `linux.devices` names it.
pub fn device_node(host: &Path, inside: &str) -> Result<Value> {
    let metadata = std::fs::metadata(host).context("stat")?;
    let kind = match metadata.mode() & libc::S_IFMT {
        libc::S_IFCHR => "c",
        libc::S_IFBLK => "b",
        _ => return Err(Error::invalid("not a device node")),
    };
    let number = metadata.rdev();
    Ok(json!({
        "path": inside, "type": kind, "major": libc::major(number), "minor": libc::minor(number),
        "fileMode": metadata.mode() & 0o7777, "uid": metadata.uid(), "gid": metadata.gid(),
    }))
}

/// A privileged container sees the host's devices, except terminals and what is mounted over `/dev` anyway.
pub fn host_devices() -> Vec<Value> {
    devices_below(Path::new("/dev"), Path::new("/dev"), 0)
}

/// The devices of a directory of the host as they are called inside.
fn devices_below(dir: &Path, inside: &Path, depth: usize) -> Vec<Value> {
    const LEFT_OUT: [&str; 7] = ["pts", "shm", "mqueue", "fd", "console", ".lxc", "ptmx"];
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let inside = inside.join(&name);
        if LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < 4 => out.extend(devices_below(&path, &inside, depth + 1)),
            Ok(kind) if kind.is_symlink() => {}
            _ => out.extend(device_node(&path, &inside.to_string_lossy())),
        }
    }
    out
}

fn mounts(inputs: &Inputs<'_>) -> Result<Value> {
    let config = inputs.config;
    let privileged = config.security.privileged;
    let mut out = Vec::new();
    let mapped = inputs.users.is_some();
    match inputs.root {
        Root::Mount { kind, options } => {
            let context = inputs.labels.root_option();
            let options = options.iter().map(String::as_str).chain(mapped.then_some("idmap")).chain(context.as_deref());
            let options: Vec<&str> = options.collect();
            out.push(json!({ "destination": "/", "type": kind, "source": kind, "options": options }));
        }
        Root::Directory(path) if mapped => {
            out.push(json!({ "destination": "/", "type": "bind", "source": path, "options": ["bind", "idmap"] }));
        }
        Root::Directory(_) => {}
    }
    let sys: &[&str] =
        if privileged { &["nosuid", "noexec", "nodev", "rw"] } else { &["nosuid", "noexec", "nodev", "ro"] };
    out.push(
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] }),
    );
    out.push(json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }));
    out.push(json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }));
    out.push(json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] }));
    if inputs.has_nodes_sysfs() {
        // Only who owns the network may mount a sysfs of it (containerd `internal/cri/server`, `buildLinuxSpec`).
        let options = ["rbind", "rprivate", "rro", "nosuid", "noexec", "nodev"];
        out.push(json!({ "destination": "/sys", "type": "bind", "source": "/sys", "options": options }));
    } else {
        out.push(json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": sys }));
    }
    // The kernel does not put the one file system of groups on itself: the node's is there, to be read.
    if !(inputs.cgroup_v2 && inputs.has_nodes_sysfs()) {
        out.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", if privileged { "rw" } else { "ro" }] }));
    }
    let mut further = Vec::new();
    for mount in &config.mounts {
        further.push(match &mount.image {
            Some(image) => {
                // Read-only, and no programs (KEP-4639).
                let options = ["ro", "noexec", "nosuid", "nodev"];
                let (kind, source, mut options) = image_mount(image, inputs.snapshots, &options)?;
                if mapped && kind != "tmpfs" {
                    options.push("idmap".into());
                }
                json!({ "destination": mount.container_path, "type": kind, "source": source, "options": options })
            }
            None => user_mount(mount)?,
        });
    }
    let own = own_files(inputs);
    further.extend(own.into_iter().filter(|(path, _)| !given(config, path)).map(|(_, mount)| mount));
    for volume in inputs.volumes {
        further.push(user_mount(volume)?);
    }
    // Outer directories first, or an outer mount would hide an inner one: also one of the sandbox's files.
    further.sort_by_key(|mount| mount["destination"].as_str().map_or(0, |path| Path::new(path).components().count()));
    out.append(&mut further);
    Ok(json!(out))
}

fn given(config: &ContainerConfig, path: &str) -> bool {
    config.mounts.iter().any(|mount| Path::new(&mount.container_path) == Path::new(path))
}

/// What a sandbox's containers share, unless something else is to be there.
fn own_files(inputs: &Inputs<'_>) -> Vec<(String, Value)> {
    let bind = |path: String, source: PathBuf, access: &str| {
        let options = ["rbind", "rprivate", access];
        (path.clone(), json!({ "destination": path, "type": "bind", "source": source, "options": options }))
    };
    let shm = if inputs.ipc.is_some() { inputs.shm.to_owned() } else { "/dev/shm".into() };
    let access = if inputs.config.security.readonly_rootfs { "ro" } else { "rw" };
    let files = ["hosts", "hostname", "resolv.conf"];
    let files = files.map(|name| bind(format!("/etc/{name}"), inputs.files.join(name), access));
    files.into_iter().chain([bind("/dev/shm".into(), shm, "rw")]).collect()
}

fn no_part(part: &str, why: &str) -> Error {
    Error::precondition(format!("failed to mount image volume: subpath {part:?}: {why}"))
}

/// A part of an image has to be there, and a directory (KEP-4639, "Non-Goals").
fn check_part(root: impl AsFd, part: &str) -> Result<()> {
    let resolve = sys::RESOLVE_BENEATH | sys::RESOLVE_NO_MAGICLINKS;
    let found = sys::openat2(root.as_fd(), Path::new(part), libc::O_PATH | libc::O_DIRECTORY, 0, resolve);
    found.map(drop).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOTDIR) => no_part(part, "only directory subpath is supported"),
        Some(errno) => no_part(part, &sys::strerror(errno)),
        None => no_part(part, &error.to_string()),
    })
}

/// The mount of an image, or of a directory in it: kind, source and options.
pub fn image_mount(
    image: &MountedImage,
    snapshots: &dyn Snapshotter,
    options: &[&str],
) -> Result<(&'static str, String, Vec<String>)> {
    let dirs = snapshots.lowers(image.chains.last())?;
    let mut options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let part = Some(image.sub_path.as_str()).filter(|part| !part.is_empty());
    options.extend(part.map(|part| format!("{SUBPATH}{part}")));
    Ok(match (&dirs[..], part) {
        ([], Some(part)) => return Err(no_part(part, "no such file or directory")),
        ([], None) => {
            options.push("size=0".into());
            ("tmpfs", "tmpfs".into(), options)
        }
        ([only], _) => {
            if let Some(part) = part {
                check_part(std::fs::File::open(only).context("open an image's layer")?, part)?;
            }
            options.extend(["bind".into(), "rprivate".into()]);
            ("bind", only.to_string_lossy().into_owned(), options)
        }
        ([nearest, ..], _) => {
            let lowers: Vec<String> = dirs.iter().map(|dir| overlay::escape(dir)).collect();
            let layers = format!("lowerdir={}", lowers.join(":"));
            if let Some(part) = part {
                // Where a path leads through several layers, only the kernel tells; any directory does for the mount.
                let root = Root::Mount { kind: "overlay".into(), options: vec![layers.clone()] };
                check_part(open_detached(&root, nearest)?, part)?;
            }
            options.push(layers);
            ("overlay", "overlay".into(), options)
        }
    })
}

fn user_mount(mount: &Mount) -> Result<Value> {
    let path = Path::new(&mount.host_path);
    if mount.host_path.is_empty() {
        return Err(Error::invalid(format!("mount at {:?} has no host path", mount.container_path)));
    }
    // A directory that is not there is made, as containerd does: hostPath volumes rely on it.
    if !path.exists() {
        std::fs::create_dir_all(path).context(format!("failed to mkdir {:?}", mount.host_path))?;
    }
    let source = std::fs::canonicalize(path).context(format!("failed to resolve symlink {:?}", mount.host_path))?;
    propagation::check(&source, mount.propagation)?;
    let propagation = match mount.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let mut options = vec!["rbind", propagation, if mount.readonly { "ro" } else { "rw" }];
    if mount.recursive_read_only {
        if !mount.readonly || mount.propagation != Propagation::Private {
            return Err(Error::invalid(format!(
                "mount at {:?}: recursive read-only needs a read-only mount without propagation",
                mount.container_path
            )));
        }
        options.push("rro");
    }
    let mut out = json!({ "destination": mount.container_path, "type": "bind", "source": source, "options": options });
    if !mount.owners.is_empty() {
        let (users, groups) = id_mappings(&mount.owners);
        out["uidMappings"] = users;
        out["gidMappings"] = groups;
    }
    Ok(out)
}

/// The filter of a container, as `linux.seccomp`; null for none. An older launcher knows `rules` only.
pub fn seccomp(security: &Security, launcher: LauncherAge) -> Result<Value> {
    let file = match &security.seccomp {
        _ if security.privileged => return Ok(Value::Null),
        Seccomp::Unconfined => return Ok(Value::Null),
        Seccomp::RuntimeDefault => None,
        Seccomp::Localhost(path) => Some(Path::new(path)),
    };
    let capabilities = capabilities(security)?;
    match (launcher, file) {
        (LauncherAge::Ours, file) => super::seccomp::compiled(file, &capabilities),
        (LauncherAge::Unknown, None) => super::seccomp::default_profile(&capabilities),
        (LauncherAge::Unknown, Some(path)) => super::seccomp::load_profile(path, &capabilities),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_combine_as_kubernetes_says() {
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let image = RunConfig { entrypoint: strings(&["/e"]), cmd: strings(&["c"]), ..RunConfig::default() };
        for (command_given, args, expected) in [
            (&[][..], &[][..], &["/e", "c"][..]),
            (&["x"], &[], &["x"]),
            (&[], &["a"], &["/e", "a"]),
            (&["x"], &["a"], &["x", "a"]),
        ] {
            let config =
                ContainerConfig { command: strings(command_given), args: strings(args), ..ContainerConfig::default() };
            assert_eq!(command(&config, &image).unwrap(), expected);
        }
        assert!(command(&ContainerConfig::default(), &RunConfig::default()).is_err());
        let image = RunConfig { entrypoint: strings(&[""]), cmd: strings(&["c"]), ..RunConfig::default() };
        assert_eq!(command(&ContainerConfig::default(), &image).unwrap(), ["c"]);
    }

    #[test]
    fn a_limit_is_one_of_memory_and_swap_together() {
        let of = |memory_limit, memory_swap_limit| {
            let wanted = Resources { memory_limit, memory_swap_limit, ..Resources::default() };
            resources(&wanted, false)["memory"].clone()
        };
        assert_eq!(of(4096, 0), json!({ "limit": 4096, "swap": 4096 }));
        assert_eq!(of(4096, 8192), json!({ "limit": 4096, "swap": 8192 }));
        assert_eq!((of(-1, 0), of(0, 0)), (json!({ "limit": -1, "swap": -1 }), json!({})));
    }

    #[test]
    fn devices_of_a_directory_are_devices_of_the_container() {
        let device = |host: &str, inside: &str| Device {
            host_path: host.into(),
            container_path: inside.into(),
            permissions: "r".into(),
        };
        let paths = |privileged, given: &[Device]| {
            let (nodes, rules) = devices(given, privileged).unwrap();
            let paths = nodes.as_array().unwrap().iter().map(|node| node["path"].as_str().unwrap().to_owned());
            (paths.collect::<Vec<_>>(), rules.as_array().unwrap().len())
        };
        let (all, rules) = paths(false, &[device("/dev", "/d")]);
        assert!(all.contains(&"/d/null".to_owned()) && all.iter().all(|path| path.starts_with("/d/")), "{all:?}");
        assert_eq!(rules, all.len() + 1);
        // What is there under its name is there under another, too.
        let (all, rules) = paths(true, &[device("/dev/null", "/dev/other"), device("/dev/zero", "/dev/null")]);
        let count = |wanted: &str| all.iter().filter(|path| *path == wanted).count();
        assert_eq!((count("/dev/null"), count("/dev/zero"), count("/dev/other"), rules), (1, 1, 1, 1));
        assert!(devices(&[device("/etc/passwd", "/a")], false).is_err());
    }

    #[test]
    fn a_terminal_has_a_name() {
        let with = |env: &[&str], tty| {
            let config = json!({ "process": { "env": env, "args": ["a"] } });
            exec_process(&config, &["b".into()], tty)["env"].clone()
        };
        assert_eq!(with(&["A=TERM=b"], true), json!(["A=TERM=b", "TERM=xterm"]));
        assert_eq!(with(&["TERM=vt100"], true), json!(["TERM=vt100"]));
        assert_eq!(with(&[], false), json!([]));
        assert_eq!(exec_process(&json!({}), &[], true)["terminal"], json!(true));
    }

    #[test]
    fn no_huge_pages_are_a_limit_where_they_are_counted() {
        let of = |hugepages: &[(&str, u64)], counted| {
            let hugepages = hugepages.iter().map(|(size, limit)| ((*size).to_owned(), *limit)).collect();
            let wanted = Resources { hugepages, ..Resources::default() };
            resources(&wanted, counted)["hugepageLimits"].clone()
        };
        let (none, some) = (json!({ "pageSize": "1GB", "limit": 0 }), json!({ "pageSize": "2MB", "limit": 4_194_304 }));
        let asked = [("1GB", 0), ("2MB", 4 << 20)];
        assert_eq!(of(&asked, true), json!([none, some]));
        assert_eq!(of(&asked, false), json!([some]));
        assert_eq!((of(&asked[..1], false), of(&[], true)), (Value::Null, Value::Null));
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let with = |add: &[&str], drop: &[&str]| {
            let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            capabilities(&Security {
                add_capabilities: strings(add),
                drop_capabilities: strings(drop),
                ..Security::default()
            })
        };
        assert_eq!(with(&[], &[]).unwrap().len(), 14);
        assert_eq!(with(&["NET_ADMIN"], &["ALL"]).unwrap(), ["CAP_NET_ADMIN"]);
        assert_eq!(with(&["ALL"], &["CAP_SYS_ADMIN"]).unwrap().len(), 40);
        assert!(with(&["NOT_ONE"], &[]).is_err());
    }
}
