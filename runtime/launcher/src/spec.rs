//! `config.json` as the launcher needs it (OCI runtime specification 1.2, config.md and config-linux.md).
//!
//! Everything that can be judged without doing it is judged here, before a process exists. What the specification
//! has and this launcher has not is refused by its name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    capabilities::{self, Capabilities},
    defaults::Defaults,
    error::{Context, Error, Result},
    hooks::Hooks,
    identity::Mappings,
    json::Json,
    labels::Labels,
    mount_options::MountOptions,
    proc_mounts,
    rdt::IntelRdt,
    scheduling::{self, Scheduling},
    sysctl::Sysctl,
};

/// Largest file accepted as configuration; real ones have a few ten thousand bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// Reads and parses a JSON file.
pub fn read_json(path: &Path) -> Result<Json> {
    let size = fs::metadata(path).context(|| format!("open {}", path.display()))?.len();
    if size > MAX_CONFIG {
        return Err(Error::new(format!("{} is larger than {MAX_CONFIG} bytes", path.display())));
    }
    let text = fs::read(path).context(|| format!("read {}", path.display()))?;
    Json::parse(&text).map_err(|error| Error::new(format!("parse {}: {error}", path.display())))
}

/// A container's configuration.
#[derive(Clone, Debug)]
pub struct Spec {
    pub version: String,
    pub bundle: PathBuf,
    pub root: PathBuf,
    pub root_readonly: bool,
    /// Mount flags of `rootfsPropagation`, if given.
    pub propagation: Option<u64>,
    pub mounts: Vec<MountSpec>,
    pub process: Option<Process>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub namespaces: Vec<Namespace>,
    pub devices: Vec<DeviceNode>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub sysctls: Vec<Sysctl>,
    pub cgroups_path: Option<String>,
    pub resources: Json,
    pub intel_rdt: Option<IntelRdt>,
    /// What is for later processes too, the filter's rules among it.
    pub defaults: Defaults,
    pub annotations: Json,
    /// `linux.uidMappings` and `linux.gidMappings`.
    pub mappings: Mappings,
    /// `linux.timeOffsets`, as `timens_offsets` takes them.
    pub time_offsets: String,
    /// For personality(2).
    pub personality: Option<u64>,
    /// What is asked of it besides.
    pub personality_flags: Vec<String>,
    /// The SELinux context of the container's own file systems.
    pub mount_label: Option<String>,
    /// The whole `hooks`, for those that come later.
    pub hooks: Json,
    pub prestart: Hooks,
    pub create_runtime: Hooks,
    pub create_container: Hooks,
    pub start_container: Hooks,
}

/// One entry of `mounts`.
#[derive(Clone, Debug)]
pub struct MountSpec {
    pub destination: PathBuf,
    pub kind: String,
    pub source: String,
    pub options: MountOptions,
    /// Through which the owners of its files go; with `idmap` and none, those of the user namespace that is joined.
    pub mappings: Mappings,
}

/// One entry of `linux.namespaces`.
#[derive(Clone, Debug)]
pub struct Namespace {
    pub kind: NamespaceKind,
    /// Joined instead of made.
    pub path: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceKind {
    Mount,
    Network,
    Ipc,
    Uts,
    Pid,
    Cgroup,
    User,
    Time,
}

/// linux/sched.h; libc has it for some targets only.
const CLONE_NEWTIME: i32 = 0x80;

impl NamespaceKind {
    fn parse(name: &str) -> Result<NamespaceKind> {
        Ok(match name {
            "mount" => NamespaceKind::Mount,
            "network" => NamespaceKind::Network,
            "ipc" => NamespaceKind::Ipc,
            "uts" => NamespaceKind::Uts,
            "pid" => NamespaceKind::Pid,
            "cgroup" => NamespaceKind::Cgroup,
            "user" => NamespaceKind::User,
            "time" => NamespaceKind::Time,
            name => return Err(Error::new(format!("linux.namespaces: unknown type {name:?}"))),
        })
    }

    /// The flag for clone, unshare and setns.
    pub fn flag(self) -> i32 {
        match self {
            NamespaceKind::Mount => libc::CLONE_NEWNS,
            NamespaceKind::Network => libc::CLONE_NEWNET,
            NamespaceKind::Ipc => libc::CLONE_NEWIPC,
            NamespaceKind::Uts => libc::CLONE_NEWUTS,
            NamespaceKind::Pid => libc::CLONE_NEWPID,
            NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
            NamespaceKind::User => libc::CLONE_NEWUSER,
            NamespaceKind::Time => CLONE_NEWTIME,
        }
    }
}

/// A device to make, from `linux.devices`.
#[derive(Clone, Debug)]
pub struct DeviceNode {
    pub path: String,
    /// File type bits and permissions.
    pub mode: u32,
    pub number: u64,
    pub uid: u32,
    pub gid: u32,
}

/// A process: the container's own, or one that is executed in it.
#[derive(Clone, Debug)]
pub struct Process {
    pub terminal: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    pub groups: Vec<u32>,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub capabilities: Capabilities,
    /// Of them, those that nobody here knows (config.md "Linux Process": a warning).
    pub unknown_capabilities: Vec<String>,
    /// Resource, soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i64>,
    pub labels: Labels,
    pub scheduling: Scheduling,
}

impl Spec {
    /// Reads `config.json` of a bundle.
    pub fn load(bundle: &Path) -> Result<Spec> {
        Spec::parse(&read_json(&bundle.join("config.json"))?, bundle)
    }

    /// Judges a configuration; relative paths are the bundle's.
    pub fn parse(config: &Json, bundle: &Path) -> Result<Spec> {
        let version = config.get("ociVersion").str().ok_or_else(|| Error::new("config.json: ociVersion is missing"))?;
        if !version.starts_with("1.") {
            return Err(Error::new(format!("config.json: ociVersion {version:?} is not supported")));
        }
        refuse(config, &["vm", "windows", "solaris", "zos"], "")?;
        let linux = config.get("linux");
        refuse(linux, &["netDevices", "memoryPolicy"], "linux.")?;
        let mount_label = linux.get("mountLabel").str().filter(|label| !label.is_empty()).map(str::to_owned);
        if mount_label.is_some() && !crate::labels::has_selinux() {
            return Err(Error::new("linux.mountLabel: a label is specified but SELinux is not enabled on the host"));
        }
        let hooks = config.get("hooks");
        let mappings = Mappings::parse(linux).context(|| "linux".into())?;
        let root = config.at("root.path").str().ok_or_else(|| Error::new("config.json: root.path is missing"))?;
        let process = config.get("process");
        let spec = Spec {
            version: version.to_owned(),
            bundle: bundle.to_owned(),
            root: bundle.join(root),
            root_readonly: config.at("root.readonly").bool().unwrap_or(false),
            propagation: linux
                .get("rootfsPropagation")
                .str()
                .filter(|name| !name.is_empty())
                .map(propagation)
                .transpose()?,
            mounts: config
                .get("mounts")
                .items()
                .iter()
                .map(|mount| MountSpec::parse(mount, bundle, &mappings))
                .collect::<Result<_>>()?,
            process: if process.is_null() { None } else { Some(Process::parse(process)?) },
            hostname: config.get("hostname").str().filter(|name| !name.is_empty()).map(str::to_owned),
            domainname: config.get("domainname").str().filter(|name| !name.is_empty()).map(str::to_owned),
            namespaces: linux.get("namespaces").items().iter().map(Namespace::parse).collect::<Result<_>>()?,
            devices: linux.get("devices").items().iter().map(DeviceNode::parse).collect::<Result<_>>()?,
            masked_paths: linux.get("maskedPaths").strings(),
            readonly_paths: linux.get("readonlyPaths").strings(),
            sysctls: linux
                .get("sysctl")
                .members()
                .iter()
                .filter_map(|(key, value)| Some(Sysctl::parse(key, value.str()?)))
                .collect::<Result<_>>()?,
            cgroups_path: linux.get("cgroupsPath").str().filter(|path| !path.is_empty()).map(str::to_owned),
            resources: linux.get("resources").clone(),
            intel_rdt: IntelRdt::parse(linux.get("intelRdt"))?,
            defaults: Defaults::of(config),
            annotations: config.get("annotations").clone(),
            mappings,
            time_offsets: time_offsets(linux.get("timeOffsets"))?,
            personality: scheduling::personality(linux.get("personality"))?,
            personality_flags: linux.at("personality.flags").strings(),
            mount_label,
            hooks: hooks.clone(),
            prestart: Hooks::parse(hooks, "prestart")?.in_dir(bundle),
            create_runtime: Hooks::parse(hooks, "createRuntime")?.in_dir(bundle),
            create_container: Hooks::parse(hooks, "createContainer")?.in_dir(bundle),
            start_container: Hooks::parse(hooks, "startContainer")?,
        };
        spec.validate()?;
        Ok(spec)
    }

    fn validate(&self) -> Result<()> {
        let no_mounts = self.namespace(NamespaceKind::Mount).is_none();
        if no_mounts && !(self.masked_paths.is_empty() && self.readonly_paths.is_empty()) {
            return Err(Error::new("unable to restrict sys entries without a private MNT namespace"));
        }
        // Only with rights in the user namespace that made a mount namespace can anything be mounted there
        // (mount_namespaces(7)); runc finds out by trying.
        if no_mounts && self.namespace(NamespaceKind::User).is_some()
            || self.joins(NamespaceKind::Mount) && self.is_new(NamespaceKind::User)
        {
            return Err(Error::new(
                "linux.namespaces: users of a user namespace may not mount in a mount namespace that is not theirs: operation not permitted",
            ));
        }
        if self.hostname.is_some() && self.namespace(NamespaceKind::Uts).is_none() {
            return Err(Error::new("unable to set hostname without a private UTS namespace"));
        }
        if self.domainname.is_some() && self.namespace(NamespaceKind::Uts).is_none() {
            return Err(Error::new("unable to set domainname without a private UTS namespace"));
        }
        if let Some(sysctl) = self.sysctls.iter().find(|sysctl| self.namespace(sysctl.namespace).is_none()) {
            return Err(sysctl.refused());
        }
        self.mounts.iter().try_for_each(proc_mounts::check)?;
        // Only the launcher may map them (mount_setattr(2)), and it sees the host's files.
        let mapped = |mount: &&MountSpec| mount.options.idmap || !mount.mappings.is_empty();
        if let Some(mount) = self.mounts.iter().find(mapped).filter(|_| self.joins(NamespaceKind::Mount)) {
            return Err(Error::new(format!(
                "mount {:?}: owners cannot be mapped in a mount namespace that is joined",
                mount.destination
            )));
        }
        // Those of a namespace that is joined are asked of it.
        let unmapped = |mount: &&MountSpec| mount.options.idmap && mount.mappings.is_empty();
        if let Some(mount) = self.mounts.iter().find(unmapped).filter(|_| !self.joins(NamespaceKind::User)) {
            return Err(Error::new(format!("mount {:?}: idmap without mappings", mount.destination)));
        }
        for (index, namespace) in self.namespaces.iter().enumerate() {
            if self.namespaces[..index].iter().any(|other| other.kind == namespace.kind) {
                return Err(Error::new(format!("linux.namespaces: {:?} is there twice", namespace.kind)));
            }
        }
        if self.is_new(NamespaceKind::User) && self.mappings.is_empty() {
            return Err(Error::new("linux: a new user namespace needs uidMappings and gidMappings"));
        }
        if !self.mappings.is_empty() && self.namespace(NamespaceKind::User).is_none() {
            return Err(Error::new(
                "linux.uidMappings: user namespace mappings specified, but user namespace isn't enabled in the config",
            ));
        }
        if !self.time_offsets.is_empty() && !self.is_new(NamespaceKind::Time) {
            return Err(Error::new(
                "linux.timeOffsets: time namespace offsets specified, but time namespace isn't enabled in the config",
            ));
        }
        Ok(())
    }

    pub fn namespace(&self, kind: NamespaceKind) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.kind == kind)
    }

    /// Whether the container enters a namespace of others.
    pub fn joins(&self, kind: NamespaceKind) -> bool {
        self.namespace(kind).is_some_and(|namespace| namespace.path.is_some())
    }

    /// The user of the host who may make groups below the container's: its own, where it has users of its own and can write
    /// to what it sees of groups (runc, `specconv/spec_linux.go` OwnerUID).
    pub fn group_owner(&self, uid: u32) -> Option<u32> {
        let writable = |mount: &MountSpec| {
            mount.destination == Path::new("/sys/fs/cgroup") && mount.options.flags & libc::MS_RDONLY == 0
        };
        let own = self.is_new(NamespaceKind::Cgroup) && self.mounts.iter().any(writable);
        own.then(|| self.mappings.outside(uid, 0).map(|(user, _)| user)).flatten()
    }

    /// Whether the container gets a namespace of its own, made for it.
    pub fn is_new(&self, kind: NamespaceKind) -> bool {
        self.namespace(kind).is_some_and(|namespace| namespace.path.is_none())
    }
}

/// `timeOffsets`: seconds and nanoseconds of the clocks that have an offset (time_namespaces(7)).
fn time_offsets(offsets: &Json) -> Result<String> {
    let mut out = String::new();
    for (clock, offset) in offsets.members() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::new(format!("linux.timeOffsets: unknown clock {clock:?}")));
        }
        let number = |key: &str| offset.get(key).i64().unwrap_or(0);
        out.push_str(&format!("{clock} {} {}\n", number("secs"), number("nanosecs")));
    }
    Ok(out)
}

fn refuse(object: &Json, keys: &[&str], prefix: &str) -> Result<()> {
    for key in keys {
        let value = object.get(key);
        if !value.items().is_empty() || !value.members().is_empty() {
            return Err(Error::new(format!("{prefix}{key} is not supported")));
        }
    }
    Ok(())
}

/// Flags of a propagation's name (mount_namespaces(7)).
pub fn propagation(name: &str) -> Result<u64> {
    let (recursive, name) = match name.strip_prefix('r') {
        Some(rest) => (libc::MS_REC, rest),
        None => (0, name),
    };
    let kind = match name {
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "private" => libc::MS_PRIVATE,
        "unbindable" => libc::MS_UNBINDABLE,
        name => return Err(Error::new(format!("unknown propagation {name:?}"))),
    };
    Ok(kind | recursive)
}

impl Namespace {
    fn parse(entry: &Json) -> Result<Namespace> {
        let kind = NamespaceKind::parse(entry.get("type").str().unwrap_or_default())?;
        let path = entry.get("path").str().filter(|path| !path.is_empty()).map(PathBuf::from);
        match &path {
            // config-linux "Namespaces": it MUST be absolute.
            Some(path) if !path.is_absolute() => {
                Err(Error::new(format!("linux.namespaces: {kind:?}: path {path:?} is not absolute")))
            }
            _ => Ok(Namespace { kind, path }),
        }
    }
}

impl MountSpec {
    fn parse(entry: &Json, bundle: &Path, container: &Mappings) -> Result<MountSpec> {
        let destination = entry.get("destination").str().filter(|path| !path.is_empty());
        let destination = destination.ok_or_else(|| Error::new("mounts: destination is missing"))?;
        let mut mappings = Mappings::parse(entry).context(|| format!("mount {destination:?}"))?;
        let options =
            MountOptions::parse(&entry.get("options").strings()).context(|| format!("mount {destination:?}"))?;
        let mut source = entry.get("source").str().unwrap_or_default().to_owned();
        let mut kind = entry.get("type").str().unwrap_or_default().to_owned();
        if options.flags & libc::MS_BIND != 0 || kind == "bind" {
            kind = "bind".to_owned();
            // runc since 1.2. What begins with x- is for programs (mount(8)).
            let own = options.data.split(',').find(|word| !word.is_empty() && !word.starts_with("x-"));
            if let Some(word) = own {
                return Err(Error::new(format!(
                    "mount {destination:?}: bind mounts cannot have any filesystem-specific options applied: {word:?}"
                )));
            }
            source = bundle.join(source).to_string_lossy().into_owned();
        }
        if kind.is_empty() {
            return Err(Error::new(format!("mount {destination:?}: type is missing")));
        }
        if options.subpath.is_some() && !matches!(kind.as_str(), "bind" | "overlay") {
            return Err(Error::new(format!(
                "mount {destination:?}: a part can be mounted of a bind or an overlay only"
            )));
        }
        if options.idmap && mappings.is_empty() {
            mappings = container.clone();
        }
        if (options.idmap || !mappings.is_empty()) && !matches!(kind.as_str(), "bind" | "overlay") {
            return Err(Error::new(format!("mount {destination:?}: only bind mounts and overlays can have mappings")));
        }
        Ok(MountSpec { destination: Path::new("/").join(destination), kind, source, options, mappings })
    }
}

impl DeviceNode {
    fn parse(entry: &Json) -> Result<DeviceNode> {
        let path = entry.get("path").str().ok_or_else(|| Error::new("linux.devices: path is missing"))?;
        let kind = match entry.get("type").str().unwrap_or_default() {
            "b" => libc::S_IFBLK,
            "c" | "u" => libc::S_IFCHR,
            "p" => libc::S_IFIFO,
            kind => return Err(Error::new(format!("linux.devices: {path}: unknown type {kind:?}"))),
        };
        let number = |key: &str| entry.get(key).u32().unwrap_or(0);
        // Required of all but pipes (config-linux "Devices").
        let of_device = |key: &str| match entry.get(key).u32() {
            None if kind != libc::S_IFIFO => {
                Err(Error::new(format!("linux.devices: {path}: {key} is missing or no number of a device")))
            }
            number => Ok(number.unwrap_or(0)),
        };
        Ok(DeviceNode {
            path: path.to_owned(),
            mode: kind | entry.get("fileMode").u32().unwrap_or(0o666) & 0o7777,
            number: libc::makedev(of_device("major")?, of_device("minor")?),
            uid: number("uid"),
            gid: number("gid"),
        })
    }
}

impl Process {
    /// Judges a process specification; capabilities are cut to what this process has, limits to what it may set.
    pub fn parse(process: &Json) -> Result<Process> {
        let args = process.get("args").strings();
        if args.is_empty() {
            return Err(Error::new("process.args must not be empty"));
        }
        let cwd = process.get("cwd").str().unwrap_or_default();
        if !cwd.starts_with('/') {
            return Err(Error::new(format!("process.cwd {cwd:?} must be an absolute path")));
        }
        let size = process.get("consoleSize");
        let dimension = |key: &str| size.get(key).u32().and_then(|value| u16::try_from(value).ok());
        Ok(Process {
            terminal: process.get("terminal").bool().unwrap_or(false),
            console_size: dimension("height").zip(dimension("width")),
            uid: process.at("user.uid").u32().unwrap_or(0),
            gid: process.at("user.gid").u32().unwrap_or(0),
            umask: process.at("user.umask").u32(),
            groups: process.at("user.additionalGids").items().iter().filter_map(Json::u32).collect(),
            args,
            env: process.get("env").strings(),
            cwd: cwd.to_owned(),
            capabilities: capabilities::parse(process.get("capabilities"))?,
            unknown_capabilities: capabilities::unknown(process.get("capabilities")),
            rlimits: rlimits(process.get("rlimits").items())?,
            no_new_privileges: process.get("noNewPrivileges").bool().unwrap_or(false),
            oom_score_adj: process.get("oomScoreAdj").i64(),
            labels: Labels::parse(process)?,
            scheduling: Scheduling::parse(process)?,
        })
    }
}

/// One for each type (config.md "POSIX process": more MUST be an error).
fn rlimits(entries: &[Json]) -> Result<Vec<(u32, u64, u64)>> {
    let limits = entries.iter().map(rlimit).collect::<Result<Vec<_>>>()?;
    let twice = |&index: &usize| limits[..index].iter().any(|limit| limit.0 == limits[index].0);
    match (0..limits.len()).find(twice) {
        Some(index) => Err(Error::new(format!(
            "process.rlimits: {} is there twice",
            entries[index].get("type").str().unwrap_or_default()
        ))),
        None => Ok(limits),
    }
}

fn rlimit(entry: &Json) -> Result<(u32, u64, u64)> {
    let name = entry.get("type").str().unwrap_or_default();
    let resource = match name {
        "RLIMIT_AS" => libc::RLIMIT_AS,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        name => return Err(Error::new(format!("process.rlimits: unknown type {name:?}"))),
    };
    let value = |key: &str| {
        entry.get(key).u64().ok_or_else(|| Error::new(format!("process.rlimits: {name}: {key} is missing")))
    };
    let (soft, hard) = (value("soft")?, value("hard")?);
    if soft > hard {
        // As setrlimit(2) says of it.
        return Err(Error::new(format!("process.rlimits: {name}: soft limit {soft} is above hard limit {hard}")));
    }
    Ok((resource as u32, soft, hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(extra: &str) -> Result<Spec> {
        let text = format!(
            r#"{{"ociVersion":"1.2.0","root":{{"path":"rootfs"}},"linux":{{"namespaces":[{{"type":"mount"}},{{"type":"uts"}}]{extra}}}}}"#
        );
        Spec::parse(&Json::parse(text.as_bytes()).unwrap(), Path::new("/b"))
    }

    #[test]
    fn unsupported_and_dangerous_configuration_is_refused_by_name() {
        assert_eq!(spec("").unwrap().root, Path::new("/b/rootfs"));
        for (extra, word) in [
            (r#","sysctl":{"kernel.panic":"1"}"#, "kernel.panic"),
            (r#","sysctl":{"net.ipv4.ip_forward":"1"}"#, "host network namespace"),
            (r#","sysctl":{"kernel.hostname":"x"}"#, "\"hostname\" field"),
            (r#","devices":[{"path":"/dev/x","type":"c","major":1}]"#, "/dev/x: minor is missing"),
            (r#","devices":[{"path":"/dev/x","type":"b","major":-1,"minor":0}]"#, "/dev/x: major is missing"),
            (r#","uidMappings":[{"containerID":0}]"#, "uidMappings"),
            (r#","intelRdt":{"closID":".."}"#, "intelRdt.ClosID"),
            (r#","netDevices":{"eth0":{}}"#, "linux.netDevices is not supported"),
            (r#","timeOffsets":{"monotonic":{"secs":1}}"#, "time namespace"),
            (r#","personality":{"domain":"SVR4"}"#, "SVR4"),
            (r#","mountLabel":"a:b:c""#, "SELinux"),
            (r#","rootfsPropagation":"odd""#, "odd"),
        ] {
            let error = spec(extra).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(spec(r#","netDevices":{}"#).is_ok());
        let joined =
            r#"{"ociVersion":"1.2.0","root":{"path":"r"},"linux":{"namespaces":[{"type":"ipc","path":"ns/ipc"}]}}"#;
        let error = Spec::parse(&Json::parse(joined.as_bytes()).unwrap(), Path::new("/b")).unwrap_err().to_string();
        assert!(error.contains("not absolute"), "{error}");
    }

    #[test]
    fn what_needs_a_mount_namespace_is_refused_without() {
        const RESTRICT: &str = "unable to restrict sys entries without a private MNT namespace";
        const RIGHTS: &str = "may not mount in a mount namespace that is not theirs";
        let error = |namespaces: &str, extra: &str| {
            let text = format!(
                r#"{{"ociVersion":"1.2.0","root":{{"path":"r"}},"linux":{{"namespaces":[{namespaces}]{extra}}}}}"#
            );
            let parsed = Spec::parse(&Json::parse(text.as_bytes()).unwrap(), Path::new("/b"));
            parsed.map_or_else(|error| error.to_string(), |_| String::new())
        };
        let range = r#"[{"containerID":0,"hostID":1000,"size":9}]"#;
        let mapped = format!(r#","uidMappings":{range},"gidMappings":{range}"#);
        let (user, of_others) = (r#"{"type":"user"}"#, r#"{"type":"user","path":"/ns/user"}"#);
        let mounts = r#"{"type":"mount","path":"/ns/mnt"}"#;
        for (namespaces, extra, word) in [
            ("", "", ""),
            ("", r#","maskedPaths":[],"readonlyPaths":[],"rootfsPropagation":"shared""#, ""),
            ("", r#","maskedPaths":["/proc/kcore"]"#, RESTRICT),
            ("", r#","readonlyPaths":["/proc/sys"]"#, RESTRICT),
            (user, &mapped, RIGHTS),
            (of_others, "", RIGHTS),
            (mounts, r#","maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"]"#, ""),
            (&format!("{user},{mounts}"), &mapped, RIGHTS),
            (&format!("{mounts},{of_others}"), "", ""),
            (
                mounts,
                r#"},"mounts":[{"destination":"/a","source":"/b","options":["bind","idmap"]}],"x":{"#,
                "owners cannot be mapped",
            ),
        ] {
            let error = error(namespaces, extra);
            assert!(error.contains(word) && error.is_empty() == word.is_empty(), "{namespaces}{extra}: {error}");
        }
    }

    #[test]
    fn binds_have_no_options_of_file_systems() {
        let mount = |options: &str| {
            let text = format!(r#"{{"destination":"/a","type":"none","source":"s","options":["rbind",{options}]}}"#);
            MountSpec::parse(&Json::parse(text.as_bytes()).unwrap(), Path::new("/b"), &Mappings::default())
        };
        for word in ["noexce", "size=1k", "z"] {
            let error = mount(&format!("\"{word}\"")).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(mount(r#""ro","rslave","lazytime","x-mount.mkdir","x-coracle.subpath=c""#).is_ok());
    }

    #[test]
    fn limits_are_given_once_and_in_order() {
        let process = |limits: &str| {
            let text = format!(r#"{{"args":["a"],"cwd":"/","rlimits":[{limits}]}}"#);
            Process::parse(&Json::parse(text.as_bytes()).unwrap())
        };
        let limit = |name: &str, soft: u32| format!(r#"{{"type":"RLIMIT_{name}","soft":{soft},"hard":5}}"#);
        assert_eq!(process(&[limit("CORE", 5), limit("NOFILE", 1)].join(",")).unwrap().rlimits.len(), 2);
        let twice = process(&[limit("CORE", 5), limit("NOFILE", 1), limit("CORE", 1)].join(","));
        assert!(twice.unwrap_err().to_string().contains("RLIMIT_CORE is there twice"));
        assert!(process(&limit("CORE", 6)).unwrap_err().to_string().contains("above hard limit 5"));
    }

    #[test]
    fn unknown_capabilities_are_told_of_and_left_out() {
        let text = r#"{"args":["a"],"cwd":"/","capabilities":{"bounding":["CAP_NEWEST","CAP_KILL"],"effective":["CAP_NEWEST"]}}"#;
        let process = Process::parse(&Json::parse(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(process.unknown_capabilities, ["CAP_NEWEST"]);
    }
    #[test]
    fn groups_are_given_to_users_of_the_containers_own() {
        let owner = |options: &str, namespaces: &str| {
            let text = format!(
                r#"{{"ociVersion":"1.2.0","root":{{"path":"r"}},
                    "mounts":[{{"destination":"/sys/fs/cgroup","type":"cgroup","options":[{options}]}}],
                    "linux":{{"namespaces":[{{"type":"mount"}},{{"type":"user"}}{namespaces}],
                    "uidMappings":[{{"containerID":0,"hostID":1000,"size":9}}],
                    "gidMappings":[{{"containerID":0,"hostID":1000,"size":9}}]}}}}"#
            );
            Spec::parse(&Json::parse(text.as_bytes()).unwrap(), Path::new("/b")).unwrap().group_owner(2)
        };
        assert_eq!(owner(r#""rw""#, r#",{"type":"cgroup"}"#), Some(1002));
        assert_eq!(owner(r#""ro""#, r#",{"type":"cgroup"}"#), None);
        assert_eq!(owner(r#""rw""#, ""), None);
    }

    #[test]
    fn names_of_the_host_are_not_the_containers() {
        let text =
            r#"{"ociVersion":"1.2.0","root":{"path":"r"},"domainname":"d","linux":{"namespaces":[{"type":"mount"}]}}"#;
        let error = Spec::parse(&Json::parse(text.as_bytes()).unwrap(), Path::new("/b")).unwrap_err().to_string();
        assert_eq!(error, "unable to set domainname without a private UTS namespace");
    }
}
