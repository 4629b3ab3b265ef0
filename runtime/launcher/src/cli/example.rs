//! `spec`: a configuration to begin with. Its values are runc's (`libcontainer/specconv/example.go`), so that what is written
//! for one runs with the other.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::arguments::{Arguments, unknown};
use crate::{
    error::{Context, Error, Result},
    json::{Json, object},
    sys,
};

/// `coracle oci spec [--bundle DIR] [--rootless]`.
pub fn spec_command(arguments: &mut Arguments) -> Result<u8> {
    let (mut bundle, mut rootless) = (PathBuf::new(), false);
    while let Some(flag) = arguments.flag() {
        match flag.name.as_str() {
            "b" | "bundle" => bundle = arguments.value(flag)?.into(),
            "rootless" => rootless = Arguments::boolean(&flag)?,
            _ => return Err(unknown("spec", &flag)),
        }
    }
    arguments.end()?;
    let text = configuration(rootless).pretty();
    let path = bundle.join("config.json");
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path);
    match file.and_then(|mut file| file.write_all(text.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Error::new("File config.json exists. Remove it first"))
        }
        result => result.context(|| format!("write {}", path.display())).map(|()| 0),
    }
}

fn list(words: &[&str]) -> Json {
    Json::Arr(words.iter().map(|word| Json::from(*word)).collect())
}

fn configuration(rootless: bool) -> Json {
    object([
        // The oldest that has all of it.
        ("ociVersion", "1.0.2-dev".into()),
        ("process", process()),
        ("root", object([("path", "rootfs".into()), ("readonly", true.into())])),
        ("hostname", "runc".into()),
        ("mounts", mounts(rootless)),
        ("linux", linux(rootless)),
    ])
}

fn process() -> Json {
    let held = || list(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let sets = ["bounding", "effective", "permitted", "ambient"].map(|set| (set, held()));
    let files = [("type", "RLIMIT_NOFILE".into()), ("hard", 1024.into()), ("soft", 1024.into())];
    let env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"];
    object([
        ("terminal", true.into()),
        ("user", object([("uid", 0.into()), ("gid", 0.into())])),
        ("args", list(&["sh"])),
        ("env", list(&env)),
        ("cwd", "/".into()),
        ("capabilities", object(sets)),
        ("rlimits", Json::Arr(vec![object(files)])),
        ("noNewPrivileges", true.into()),
    ])
}

/// Without rights on the host, its `/sys` is shown as it is, and terminals are of no group, which the user cannot map.
fn mounts(rootless: bool) -> Json {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        let head = [("destination", destination.into()), ("type", kind.into()), ("source", source.into())];
        let options = Some(("options", list(options))).filter(|_| !options.is_empty());
        object(head.into_iter().chain(options))
    };
    let shared = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
    let terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let terminals = if rootless { &terminals[..5] } else { &terminals };
    let system = match rootless {
        true => mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]),
        false => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    };
    Json::Arr(vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", terminals),
        mount("/dev/shm", "tmpfs", "shm", &shared),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        system,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ])
}

fn linux(rootless: bool) -> Json {
    const MASKED: [&str; 10] = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/sys/firmware",
        "/proc/scsi",
    ];
    const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    let kinds: &[&str] =
        if rootless { &["pid", "ipc", "uts", "mount"] } else { &["pid", "network", "ipc", "uts", "mount"] };
    let mut kinds = kinds.to_vec();
    if is_unified() {
        kinds.push("cgroup");
    }
    if rootless {
        kinds.push("user");
    }
    let namespaces = kinds.into_iter().map(|kind| object([("type", kind.into())])).collect();
    let own = |id: u32| Json::Arr(vec![object([("containerID", 0.into()), ("hostID", id.into()), ("size", 1.into())])]);
    let refused = object([("allow", false.into()), ("access", "rwm".into())]);
    let mut members = match rootless {
        true => vec![("uidMappings", own(sys::effective_user())), ("gidMappings", own(sys::effective_group()))],
        false => vec![("resources", object([("devices", Json::Arr(vec![refused]))]))],
    };
    members.extend([
        ("namespaces", Json::Arr(namespaces)),
        ("maskedPaths", list(&MASKED)),
        ("readonlyPaths", list(&READ_ONLY)),
    ]);
    object(members)
}

/// Whether the system has v2 alone, as runc looks for it.
fn is_unified() -> bool {
    sys::statfs(Path::new("/sys/fs/cgroup")).is_ok_and(|(kind, _)| kind == libc::CGROUP2_SUPER_MAGIC)
}
