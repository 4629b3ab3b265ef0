//! Seccomp profiles: the default one, made for a container's capabilities, and profiles from files; compiled once for all
//! containers that have the same.

use std::{collections::BTreeSet, fs, path::Path, sync::LazyLock};

use coracle_launcher::{
    json::Json,
    seccomp::{native_architectures, numbers, store},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    digest::Digest,
    error::{Context, Error, Result},
};

/// Larger than any profile.
const MAX_PROFILE: u64 = 4 << 20;

/// Calls that come with a capability, as in Docker's default profile: whoever has the right may use the call.
const WITH_CAPABILITY: [(&str, &[&str]); 14] = [
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "listmount",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "statmount",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_BPF", &["bpf"]),
    ("CAP_PERFMON", &["perf_event_open"]),
];

/// Calls that no container needs: they concern the whole machine, are relics, or were ways out (io_uring).
const NEVER: [&str; 54] = [
    "_sysctl",
    "add_key",
    "afs_syscall",
    "bdflush",
    "break",
    "create_module",
    "ftime",
    "get_kernel_syms",
    "getpmsg",
    "gtty",
    "idle",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lock",
    "migrate_pages",
    "move_pages",
    "mpx",
    "nfsservctl",
    "nice",
    "oldfstat",
    "oldlstat",
    "oldolduname",
    "oldstat",
    "olduname",
    "pciconfig_iobase",
    "pciconfig_read",
    "pciconfig_write",
    "pivot_root",
    "prof",
    "profil",
    "putpmsg",
    "query_module",
    "readdir",
    "request_key",
    "security",
    "sgetmask",
    "sigaction",
    "signal",
    "sigpending",
    "sigsuspend",
    "ssetmask",
    "stty",
    "swapoff",
    "swapon",
    "sysfs",
    "ulimit",
    "uselib",
    "userfaultfd",
    "ustat",
    "vserver",
];
const NEVER_ON_32_BITS: [&str; 3] = ["tuxcall", "vm86", "vm86old"];
/// Calls whose arguments decide.
const TESTED: [&str; 2] = ["personality", "socket"];

/// Namespaces that `clone` may not make without CAP_SYS_ADMIN: the sum of the CLONE_NEW* flags.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Execution domains (personality(2)): Linux, UNAME26, 32 bits, both, and asking for the present one.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const AF_VSOCK: u64 = 40;

/// The calls that every container may use, whatever their arguments, in order. Of two thousand names, for each start, they
/// would be found again.
static ALWAYS: LazyLock<BTreeSet<&'static str>> = LazyLock::new(|| {
    let refused: BTreeSet<&str> = WITH_CAPABILITY
        .iter()
        .flat_map(|(_, calls)| calls.iter().copied())
        .chain(NEVER)
        .chain(NEVER_ON_32_BITS)
        .chain(TESTED)
        .collect();
    let known = numbers::X86_64
        .iter()
        .chain(&numbers::X32)
        .chain(&numbers::X86)
        .chain(&numbers::AARCH64)
        .chain(&numbers::ARM)
        .map(|(name, _)| *name);
    known.filter(|name| !refused.contains(name)).collect()
});

/// The runtime's own profile for a container with these capabilities.
pub fn default_profile(capabilities: &[String]) -> Result<Value> {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let mut allowed = ALWAYS.clone();
    allowed.extend(
        WITH_CAPABILITY.iter().filter(|(capability, _)| has(capability)).flat_map(|(_, calls)| calls.iter().copied()),
    );
    let one = |name: &str, index: u32, value: u64, op: &str| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [{ "index": index, "value": value, "op": op }] });
    let mut calls =
        vec![json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" }), one("socket", 0, AF_VSOCK, "SCMP_CMP_NE")];
    calls.extend(PERSONALITIES.map(|value| one("personality", 0, value, "SCMP_CMP_EQ")));
    if !has("CAP_SYS_ADMIN") {
        calls.push(one("clone", 0, NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ"));
        // Its flags lie in memory, where a filter cannot look; programs fall back to clone.
        calls.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }));
    }
    Ok(
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM, "architectures": native_architectures(), "syscalls": calls }),
    )
}

/// A profile file of the node, in Docker's form: rules may depend on capabilities and architectures.
pub fn load_profile(path: &Path, capabilities: &[String]) -> Result<Value> {
    of_file(path, &read_profile(path)?, capabilities)
}

fn local(path: &Path) -> String {
    format!("failed to load local profile {}", path.display())
}

fn read_profile(path: &Path) -> Result<Vec<u8>> {
    if fs::metadata(path).context(local(path))?.len() > MAX_PROFILE {
        return Err(Error::invalid("larger than 4 MiB").context(local(path)));
    }
    fs::read(path).context(local(path))
}

fn of_file(path: &Path, bytes: &[u8], capabilities: &[String]) -> Result<Value> {
    let mut profile: Value =
        serde_json::from_slice(bytes).map_err(|error| Error::invalid(format!("{}: {error}", local(path))))?;
    if let Some(calls) = profile["syscalls"].as_array_mut() {
        calls.retain(|call| applies(call, capabilities));
    }
    if profile["architectures"].as_array().is_none_or(Vec::is_empty) {
        profile["architectures"] = json!(native_architectures());
    }
    Ok(profile)
}

/// Filters that are kept compiled. Most nodes have one profile and a few sets of capabilities.
const MAX_COMPILED: usize = 32;
static FILTERS: Filters = Filters(Mutex::new(Vec::new()));

/// Compiled filters and what they were made from: the one that was used last comes first.
struct Filters(Mutex<Vec<(Source, Value)>>);

/// What a filter is made from.
#[derive(Clone, PartialEq)]
struct Source {
    /// The content of a profile file; none for the default profile.
    file: Option<Digest>,
    capabilities: Vec<String>,
}

/// The default profile or that of a file, compiled, for a launcher that knows [`store`]; as rules where it cannot be.
pub fn compiled(file: Option<&Path>, capabilities: &[String]) -> Result<Value> {
    FILTERS.get(file, capabilities)
}

impl Filters {
    fn get(&self, file: Option<&Path>, capabilities: &[String]) -> Result<Value> {
        let content = file.map(read_profile).transpose()?;
        let mut source = Source { file: content.as_deref().map(Digest::of), capabilities: capabilities.to_vec() };
        source.capabilities.sort_unstable();
        source.capabilities.dedup();
        {
            let mut kept = self.0.lock();
            if let Some(at) = kept.iter().position(|(of, _)| *of == source) {
                kept[..=at].rotate_right(1);
                return Ok(kept[0].1.clone());
            }
        }
        let rules = match (file, &content) {
            (Some(path), Some(bytes)) => of_file(path, bytes, capabilities)?,
            _ => default_profile(capabilities)?,
        };
        let json = Json::parse(rules.to_string().as_bytes()).map_err(|error| Error::internal(error.to_string()))?;
        let Some(stored) = store(&json).context("compile the seccomp profile")? else { return Ok(rules) };
        let stored: Value =
            serde_json::from_str(&stored.to_string()).map_err(|error| Error::internal(error.to_string()))?;
        let mut kept = self.0.lock();
        kept.insert(0, (source, stored.clone()));
        kept.truncate(MAX_COMPILED);
        Ok(stored)
    }
}

/// `includes` and `excludes` of a rule.
fn applies(call: &Value, capabilities: &[String]) -> bool {
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let (included, excluded) = (strings(&call["includes"]["caps"]), strings(&call["excludes"]["caps"]));
    let (on, not_on) = (strings(&call["includes"]["arches"]), strings(&call["excludes"]["arches"]));
    let here = |list: &[String]| list.iter().any(|name| name == architecture);
    included.iter().all(|capability| capabilities.contains(capability))
        && !excluded.iter().any(|capability| capabilities.contains(capability))
        && (on.is_empty() || here(&on))
        && !here(&not_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_grows_with_capabilities() {
        let names = |capabilities: &[&str]| {
            let capabilities: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
            let profile = default_profile(&capabilities).unwrap();
            let text = profile.to_string();
            let json = coracle_launcher::json::Json::parse(text.as_bytes()).unwrap();
            assert!(coracle_launcher::seccomp::Filter::of(&json).unwrap().is_some());
            profile["syscalls"][0]["names"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let plain = names(&[]);
        for call in ["read", "openat", "futex", "epoll_pwait2", "mseal", "ptrace"] {
            assert!(plain.contains(&call.to_owned()), "{call}");
        }
        for call in ["mount", "unshare", "clone", "bpf", "reboot", "keyctl", "io_uring_setup", "kexec_load", "socket"] {
            assert!(!plain.contains(&call.to_owned()), "{call}");
        }
        let admin = names(&["CAP_SYS_ADMIN"]);
        assert!(admin.contains(&"mount".to_owned()) && admin.contains(&"clone3".to_owned()));
    }

    #[test]
    fn a_profile_is_compiled_once_for_the_same_content_and_capabilities() {
        let filters = Filters(Mutex::default());
        let get = |file: Option<&Path>, names: &[&str]| {
            filters.get(file, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        let write = |call: &str| {
            let text = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                { "names": [call], "action": "SCMP_ACT_ALLOW" },
                { "names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
            ] });
            fs::write(&path, text.to_string()).unwrap();
        };
        write("read");
        let first = get(Some(&path), &["CAP_CHOWN", "CAP_KILL"]).unwrap();
        assert!(first["syscalls"].is_null(), "{first}");
        assert_eq!(get(Some(&path), &["CAP_KILL", "CAP_CHOWN", "CAP_KILL"]).unwrap(), first);
        assert_eq!(filters.0.lock().len(), 1);
        // What it depends on makes it another one: the content under the same name, and the capabilities.
        let admin = get(Some(&path), &["CAP_SYS_ADMIN"]).unwrap();
        write("write");
        let second = get(Some(&path), &["CAP_CHOWN", "CAP_KILL"]).unwrap();
        assert!(first != admin && first != second && admin != second);
        assert_ne!(get(None, &["CAP_SYS_ADMIN"]).unwrap(), get(None, &[]).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(get(Some(&path), &[]).unwrap_err().to_string().contains("failed to load local profile"));
    }

    #[test]
    fn filters_that_are_not_used_are_forgotten() {
        let filters = Filters(Mutex::default());
        for number in 0..2 * MAX_COMPILED {
            filters.get(None, &[format!("CAP_{number}")]).unwrap();
            filters.get(None, &["CAP_0".to_owned()]).unwrap();
        }
        let kept = filters.0.lock();
        assert_eq!((kept.len(), kept[0].0.capabilities[0].as_str()), (MAX_COMPILED, "CAP_0"));
    }

    /// A launcher that knows the specification alone gets rules; ours gets the same filter, compiled.
    #[test]
    fn both_forms_are_one_filter() {
        let rules = default_profile(&[]).unwrap().to_string();
        let stored = compiled(None, &[]).unwrap().to_string();
        let of = |text: &str| store(&Json::parse(text.as_bytes()).unwrap()).unwrap().unwrap().to_string();
        let words = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(words(&of(&rules)), words(&stored));
    }
}
