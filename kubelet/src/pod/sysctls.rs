//! The kernel parameters that pods of this node may set (kubernetes `pkg/kubelet/sysctl`, v1.36).

use std::str::FromStr;

use k8s_openapi::api::core::v1::Pod;

use super::host_network;

/// Namespaced, and without effect on other pods of the node (`safe_sysctls.go`; every kernel that runs containers here has
/// them, the youngest came with Linux 4.15). Beside them there are those that the administrator allows.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The pod's kernel parameters, with dots between the parts of their names.
pub fn of(pod: &Pod) -> impl Iterator<Item = (String, String)> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let sysctls = context.into_iter().flat_map(|context| context.sysctls.iter().flatten());
    sysctls.map(|sysctl| (with_dots(&sysctl.name), sysctl.value.clone()))
}

/// Parameters beside the safe ones that an administrator allows pods to set: one, or with `*` at its end all whose names
/// begin so. Those that pods would share with the node cannot be allowed (`allowlist.go`, `NewAllowlist`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysctlPattern {
    name: String,
    prefix: bool,
}

impl FromStr for SysctlPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !is_pattern(text) {
            return Err(format!(
                "sysctl {text:?} must have at most {MAX_NAME} characters and match regex {PATTERN_FORMAT}"
            ));
        }
        let name = with_dots(text);
        let prefix = name.strip_suffix('*').map(str::to_owned);
        let pattern = Self { prefix: prefix.is_some(), name: prefix.unwrap_or(name) };
        match (namespace(&pattern.name), pattern.prefix) {
            (Some(_), _) => Ok(pattern),
            (None, true) => Err(format!("the sysctls \"{}*\" are not known to be namespaced", pattern.name)),
            (None, false) => Err(format!("the sysctl {:?} are not known to be namespaced", pattern.name)),
        }
    }
}

impl SysctlPattern {
    fn holds(&self, name: &str) -> bool {
        if self.prefix { name.starts_with(&self.name) } else { name == self.name }
    }
}

/// The longest name, and the form of a pattern (`pkg/apis/core/validation`, `pkg/apis/policy/validation`).
const MAX_NAME: usize = 253;
const PATTERN_FORMAT: &str = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*([a-z0-9][-_a-z0-9]*)?[a-z0-9*]";

/// Whether a text is of [`PATTERN_FORMAT`].
fn is_pattern(text: &str) -> bool {
    let good = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let begins =
        |part: &[u8]| part.first().is_some_and(good) && part.iter().all(|byte| good(byte) || b"-_".contains(byte));
    let whole = |part: &[u8]| begins(part) && part.last().is_some_and(good);
    let mut parts: Vec<&[u8]> = text.as_bytes().split(|byte| b"./".contains(byte)).collect();
    // Splitting gives one part at least.
    let last = parts.pop().unwrap_or_default();
    let last_is_good = match last.strip_suffix(b"*") {
        Some(prefix) => prefix.is_empty() || begins(prefix),
        None => whole(last),
    };
    text.len() <= MAX_NAME && last_is_good && parts.into_iter().all(whole)
}

/// The kind of namespaces that each have their own of a parameter (`component-helpers/node/util/sysctl`, `NamespacedBy`).
fn namespace(name: &str) -> Option<&'static str> {
    const IPC: [&str; 3] = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    if name == "kernel.sem" || IPC.iter().any(|prefix| name.starts_with(prefix)) {
        return Some("ipc");
    }
    name.starts_with("net.").then_some("net")
}

/// Why the pod may not set what it wants to, in upstream's words (`allowlist.go`, `validateSysctl`).
pub fn forbidden(pod: &Pod, allowed: &[SysctlPattern]) -> Option<String> {
    let host_ipc = pod.spec.as_ref().and_then(|spec| spec.host_ipc) == Some(true);
    let why = |name: String| {
        let shared = match namespace(&name) {
            Some("net") => host_network(pod).then_some("net"),
            _ => host_ipc.then_some("ipc"),
        };
        let listed = SAFE.contains(&name.as_str()) || allowed.iter().any(|pattern| pattern.holds(&name));
        match (listed, shared) {
            (false, _) => Some(format!("{name:?} not allowlisted")),
            (true, Some(namespace)) => Some(format!("{name:?} not allowed with host {namespace} enabled")),
            (true, None) => None,
        }
    };
    of(pod).find_map(|(name, _)| why(name))
}

/// Slashes may be between the parts of a name, and dots in them (`ConvertSysctlVariableToDotsSeparator`).
fn with_dots(name: &str) -> String {
    let swap = |character| match character {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    match name.find(['.', '/']) {
        Some(first) if name[first..].starts_with('/') => name.chars().map(swap).collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn safe_parameters_of_own_namespaces_are_allowed() {
        for (network, ipc, name, why) in [
            (false, false, "kernel.shm_rmid_forced", None),
            (true, false, "kernel/shm_rmid_forced", None),
            (false, true, "net.ipv4.tcp_rmem", None),
            (false, false, "kernel.core_pattern", Some("\"kernel.core_pattern\" not allowlisted")),
            (true, true, "kernel/core_pattern", Some("\"kernel.core_pattern\" not allowlisted")),
            (false, false, "net.core.somaxconn", Some("\"net.core.somaxconn\" not allowlisted")),
            (
                false,
                true,
                "kernel/shm_rmid_forced",
                Some("\"kernel.shm_rmid_forced\" not allowed with host ipc enabled"),
            ),
            (true, false, "net.ipv4.tcp_wmem", Some("\"net.ipv4.tcp_wmem\" not allowed with host net enabled")),
        ] {
            let sysctls = json!([{"name": "net.ipv4.tcp_syncookies", "value": "1"}, {"name": name, "value": "1"}]);
            let sysctls = if network { json!([sysctls[1]]) } else { sysctls };
            let pod = json!({"spec": {"containers": [], "hostNetwork": network, "hostIPC": ipc,
                "securityContext": {"sysctls": sysctls}}});
            assert_eq!(forbidden(&serde_json::from_value(pod).unwrap(), &[]).as_deref(), why, "{name}");
        }
    }
    #[test]
    fn an_administrator_allows_namespaced_ones() {
        let allowed: Vec<SysctlPattern> = ["net.core.somaxconn", "kernel/msg*", "net/ipv4/conf/*", "kernel.sem"]
            .map(|text| text.parse().unwrap())
            .into();
        for (network, ipc, name, why) in [
            (false, false, "net.core.somaxconn", None),
            (false, false, "net/core/somaxconn", None),
            (false, false, "net.core.somaxconn2", Some("\"net.core.somaxconn2\" not allowlisted")),
            (true, false, "net.core.somaxconn", Some("\"net.core.somaxconn\" not allowed with host net enabled")),
            (true, false, "kernel.msgmax", None),
            (false, true, "kernel.msgmax", Some("\"kernel.msgmax\" not allowed with host ipc enabled")),
            (false, true, "kernel.sem", Some("\"kernel.sem\" not allowed with host ipc enabled")),
            (false, false, "kernel.shmmax", Some("\"kernel.shmmax\" not allowlisted")),
            (false, false, "net.ipv4.conf.eth0/1.mtu", None),
            (false, false, "net/ipv4/conf/eth0.1/mtu", None),
        ] {
            let pod = json!({"spec": {"containers": [], "hostNetwork": network, "hostIPC": ipc,
                "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}});
            assert_eq!(forbidden(&serde_json::from_value(pod).unwrap(), &allowed).as_deref(), why, "{name}");
        }
    }

    #[test]
    fn what_is_the_nodes_cannot_be_allowed() {
        let long = format!("net.{}", "a".repeat(MAX_NAME));
        for (text, words) in [
            ("kernel.panic", "the sysctl \"kernel.panic\" are not known to be namespaced"),
            ("vm.*", "the sysctls \"vm.*\" are not known to be namespaced"),
            ("*", "the sysctls \"*\" are not known to be namespaced"),
            ("kernel.s*", "the sysctls \"kernel.s*\" are not known to be namespaced"),
            ("net*", "the sysctls \"net*\" are not known to be namespaced"),
            ("", "must have at most 253 characters"),
            ("net.*.x", "must have at most 253 characters"),
            ("net..x", "must have at most 253 characters"),
            ("net.ipv4-", "must have at most 253 characters"),
            ("net.IPv4", "must have at most 253 characters"),
            (&long, "must have at most 253 characters"),
        ] {
            let error = text.parse::<SysctlPattern>().expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
        for good in
            ["net.*", "net.ipv4.tcp_*", "net.ipv4.tcp-*", "fs.mqueue.*", "kernel.shm*", "kernel.sem", "net/core/x"]
        {
            assert!(good.parse::<SysctlPattern>().is_ok(), "{good}");
        }
    }
}
