//! The kernel parameters that pods of this node may set (kubernetes `pkg/kubelet/sysctl`, v1.36).

use k8s_openapi::api::core::v1::Pod;

use super::host_network;

/// Namespaced, and without effect on other pods of the node (`safe_sysctls.go`; every kernel that runs containers here has
/// them, the youngest came with Linux 4.15). Beside them only an administrator can allow some, and those may be the node's.
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

/// Why the pod may not set what it wants to, in upstream's words (`allowlist.go`, `validateSysctl`).
pub fn forbidden(pod: &Pod) -> Option<String> {
    let host_ipc = pod.spec.as_ref().and_then(|spec| spec.host_ipc) == Some(true);
    let why = |name: String| {
        let host = match name.starts_with("net.") {
            true => host_network(pod).then_some("net"),
            false => host_ipc.then_some("ipc"),
        };
        match (SAFE.contains(&name.as_str()), host) {
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
            assert_eq!(forbidden(&serde_json::from_value(pod).unwrap()).as_deref(), why, "{name}");
        }
    }
}
