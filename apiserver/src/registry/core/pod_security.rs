//! Checks of security contexts, of a pod's and of its containers' (core `validatePodSpecSecurityContext`,
//! `ValidateSecurityContext`).

use super::volume_kinds::descending;
use super::windows;
use crate::registry::fields::{field, items, one_of, text};
use coracle_api::Cause;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use std::collections::HashSet;

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
/// A path without its ending zero.
const PATH_MAX: usize = 4095;
const CHANGE_POLICY: &str = "seLinuxChangePolicy";
const SYSCTL_MAX: usize = 253;
const SYSCTL: &str = "([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?";

/// Of the pod with this spec; `old` is the spec that it replaces.
pub fn of_pod(spec: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let path = &path.child("securityContext");
    let context = field(spec, "securityContext").unwrap_or(&Value::Null);
    ids(context, &["fsGroup", "runAsUser", "runAsGroup"], path, causes);
    for (nth, group) in items(context, "supplementalGroups").iter().enumerate() {
        self::id(group.as_i64().unwrap_or(-1), &path.child("supplementalGroups").index(nth), causes);
    }
    if is_on(spec, "shareProcessNamespace") && is_on(spec, "hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        causes.push(Cause::invalid(&path.child("shareProcessNamespace"), true, why));
    }
    sysctls(context, spec, old, &path.child("sysctls"), causes);
    one_of(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], path, causes);
    profile(field(context, "seccompProfile"), "seccomp", &path.child("seccompProfile"), causes);
    windows::options(context, path, causes);
    profile(field(context, "appArmorProfile"), "AppArmor", &path.child("appArmorProfile"), causes);
    one_of(context, "supplementalGroupsPolicy", &["Merge", "Strict"], path, causes);
    // SELinuxMount is off by default up to v1.36: what others let in stays.
    let known = old.and_then(|old| field(old, "securityContext")).map_or("", |old| text(old, CHANGE_POLICY));
    let policies: &[&str] = if known == "MountOption" { &["MountOption", "Recursive"] } else { &["Recursive"] };
    one_of(context, CHANGE_POLICY, policies, path, causes);
}

fn is_on(spec: &Value, name: &str) -> bool {
    field(spec, name).and_then(Value::as_bool) == Some(true)
}

fn sysctls(context: &Value, spec: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let sysctls = items(context, "sysctls");
    if sysctls.is_empty() {
        return;
    }
    let of_host = |spec: &Value, sysctl: &Value| shared(text(sysctl, "name"), spec).is_some();
    let known = old.is_some_and(|old| items(&old["securityContext"], "sysctls").iter().any(|one| of_host(old, one)));
    let mut names = HashSet::new();
    for (nth, sysctl) in sysctls.iter().enumerate() {
        let (name, path) = (text(sysctl, "name"), path.index(nth).child("name"));
        let new = names.insert(name);
        if name.is_empty() {
            causes.push(Cause::required(&path, ""));
        } else if !is_sysctl(name) {
            let why = format!("must have at most {SYSCTL_MAX} characters and match regex ^{SYSCTL}$");
            causes.push(Cause::invalid(&path, name, why));
        } else if !new {
            causes.push(Cause::duplicate(&path, name));
        }
        if let Some(namespace) = shared(name, spec).filter(|_| !known) {
            causes.push(Cause::invalid(&path, name, format!("may not be specified when '{namespace}' is true")));
        }
    }
}

/// The field by which a pod has its host's namespace, in which the setting is the host's (core `ValidateHostSysctl`).
fn shared(name: &str, spec: &Value) -> Option<&'static str> {
    // Slashes and dots stand for each other where a slash comes first.
    let swapped = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
    let swap = |byte: u8| match byte {
        b'/' if swapped => b'.',
        b'.' if swapped => b'/',
        byte => byte,
    };
    let begins = |prefix: &str| {
        name.len() >= prefix.len() && name.bytes().map(swap).zip(prefix.bytes()).all(|(ours, known)| ours == known)
    };
    let sem = "kernel.sem";
    let of_ipc =
        ["kernel.shm", "kernel.msg", "fs.mqueue."].into_iter().any(begins) || name.len() == sem.len() && begins(sem);
    let field = if begins("net.") { "hostNetwork" } else { of_ipc.then_some("hostIPC")? };
    is_on(spec, field).then_some(field)
}

/// Of a container alone. `own_users` says that its pod's users are not the host's.
pub fn of_container(context: &Value, own_users: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    ids(context, &["runAsUser", "runAsGroup"], path, causes);
    one_of(context, "procMount", &["Default", "Unmasked"], path, causes);
    if text(context, "procMount") == "Unmasked" && !own_users {
        let why = "`hostUsers` must be false to use `Unmasked`";
        causes.push(Cause::invalid(&path.child("procMount"), "Unmasked", why));
    }
    profile(field(context, "seccompProfile"), "seccomp", &path.child("seccompProfile"), causes);
    let flag = |name: &str| field(context, name).and_then(Value::as_bool);
    if flag("allowPrivilegeEscalation") == Some(false) {
        let why = "cannot set `allowPrivilegeEscalation` to false and";
        if flag("privileged") == Some(true) {
            causes.push(Cause::invalid(path, internal(context), format!("{why} `privileged` to true")));
        }
        let added = field(context, "capabilities").map_or(&[][..], |capabilities| items(capabilities, "add"));
        if added.iter().any(is_admin) {
            let why = format!("{why} `capabilities.Add` CAP_SYS_ADMIN");
            causes.push(Cause::invalid(path, internal(context), why));
        }
    }
    windows::options(context, path, causes);
    profile(field(context, "appArmorProfile"), "AppArmor", &path.child("appArmorProfile"), causes);
}

fn ids(context: &Value, names: &[&str], path: &FieldPath, causes: &mut Vec<Cause>) {
    for name in names {
        if let Some(id) = field(context, name).and_then(Value::as_i64) {
            self::id(id, &path.child(name), causes);
        }
    }
}

/// A container's context as upstream shows it: all fields, in their order and by their names in Go.
fn internal(context: &Value) -> Value {
    let parts = |name: &str, fields: &[(&str, &str)], texts: bool| {
        let part = field(context, name).filter(|part| part.is_object())?;
        let absent = || if texts { "".into() } else { Value::Null };
        let of = |(go, name): &(&str, &str)| {
            ((*go).to_owned(), field(part, name).filter(|value| !value.is_null()).cloned().unwrap_or_else(absent))
        };
        Some(fields.iter().map(of).collect::<Value>())
    };
    let own = |name: &str| field(context, name);
    let profile = |name: &str| {
        let of = |profile: &Value| json!({"Type": text(profile, "type"), "LocalhostProfile": field(profile, "localhostProfile")});
        field(context, name).filter(|profile| profile.is_object()).map(of)
    };
    let se_linux = [("User", "user"), ("Role", "role"), ("Type", "type"), ("Level", "level")];
    let of_windows = [
        ("GMSACredentialSpecName", "gmsaCredentialSpecName"),
        ("GMSACredentialSpec", "gmsaCredentialSpec"),
        ("RunAsUserName", "runAsUserName"),
        ("HostProcess", "hostProcess"),
    ];
    json!({
        "Capabilities": parts("capabilities", &[("Add", "add"), ("Drop", "drop")], false),
        "Privileged": own("privileged"),
        "SELinuxOptions": parts("seLinuxOptions", &se_linux, true),
        "WindowsOptions": parts("windowsOptions", &of_windows, false),
        "RunAsUser": own("runAsUser"),
        "RunAsGroup": own("runAsGroup"),
        "RunAsNonRoot": own("runAsNonRoot"),
        "ReadOnlyRootFilesystem": own("readOnlyRootFilesystem"),
        "AllowPrivilegeEscalation": own("allowPrivilegeEscalation"),
        "ProcMount": own("procMount"),
        "SeccompProfile": profile("seccompProfile"),
        "AppArmorProfile": profile("appArmorProfile"),
    })
}

fn is_admin(capability: &Value) -> bool {
    capability == "CAP_SYS_ADMIN"
}

/// A user's or a group's number.
pub(super) fn id(id: i64, path: &FieldPath, causes: &mut Vec<Cause>) {
    if !(0..=i64::from(i32::MAX)).contains(&id) {
        causes.push(Cause::invalid(path, id, "must be between 0 and 2147483647, inclusive"));
    }
}

fn profile(profile: Option<&Value>, what: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(profile) = profile.filter(|profile| profile.is_object()) else { return };
    let (kind, seccomp) = (text(profile, "type"), what == "seccomp");
    match kind {
        "" => {
            let field = if seccomp { "seccompProfile" } else { "appArmorProfile" };
            causes.push(Cause::required(&path.child("type"), &format!("type is required when {field} is set")));
        }
        kind if !PROFILES.contains(&kind) => {
            causes.push(Cause::not_supported(&path.child("type"), kind, &PROFILES));
        }
        _ => {}
    }
    let named = profile.get("localhostProfile").and_then(Value::as_str);
    let path = path.child("localhostProfile");
    let needed = format!("must be set when {what} type is Localhost");
    match (kind, named) {
        ("Localhost", None) => causes.push(Cause::required(&path, &needed)),
        ("Localhost", Some(name)) if seccomp => descending(name, &path, causes),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                causes.push(Cause::invalid(&path, name, "must not be padded with whitespace"));
            } else if name.is_empty() {
                causes.push(Cause::required(&path, &needed));
            }
            if name.len() > PATH_MAX {
                causes.push(Cause::too_long(&path, PATH_MAX));
            }
        }
        (kind, Some(name)) if seccomp || matches!(kind, "RuntimeDefault" | "Unconfined") => {
            let found = if seccomp { json!({"Type": kind, "LocalhostProfile": name}) } else { name.into() };
            causes.push(Cause::invalid(&path, found, format!("can only be set when {what} type is Localhost")));
        }
        _ => {}
    }
}

/// Parts of lower-case letters, digits, dashes and underscores between dots or slashes; none begins or ends with a dash or
/// underscore.
fn is_sysctl(name: &str) -> bool {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let edges = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
        edges && bytes.iter().all(|byte| plain(byte) || matches!(byte, b'-' | b'_'))
    };
    name.len() <= SYSCTL_MAX && name.split(['.', '/']).all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(ToString::to_string).collect()
    }

    fn check(spec: Value, old: Option<Value>) -> Vec<String> {
        let mut causes = Vec::new();
        of_pod(&spec, old.as_ref(), &FieldPath::new("spec"), &mut causes);
        told(&causes)
    }

    #[test]
    fn the_hosts_settings_are_not_the_pods_to_make() {
        let spec = |name: &str, network: bool, ipc: bool| json!({"hostNetwork": network, "hostIPC": ipc, "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        for (name, network, ipc, field) in [
            ("net.ipv4.tcp_syncookies", true, false, "hostNetwork"),
            ("net/ipv4/conf/eno2.100/rp_filter", true, false, "hostNetwork"),
            ("kernel.sem", false, true, "hostIPC"),
            ("kernel.shm_rmid_forced", true, true, "hostIPC"),
            ("fs/mqueue/msg_max", false, true, "hostIPC"),
            ("net.ipv4.tcp_syncookies", false, true, ""),
            ("kernel.semaphore", true, true, ""),
            ("kernel.msgmax", true, false, ""),
        ] {
            let wanted = match field {
                "" => Vec::new(),
                field => vec![format!(
                    "spec.securityContext.sysctls[0].name: Invalid value: \"{name}\": may not be specified when '{field}' is true"
                )],
            };
            let found = check(spec(name, network, ipc), None);
            assert_eq!(found, wanted, "{name}");
            assert!(check(spec(name, network, ipc), Some(spec("net.x", true, ipc))).is_empty(), "it was so before");
        }
    }

    #[test]
    fn labels_of_volumes_are_changed_file_by_file() {
        let spec = |policy: &str| json!({"securityContext": {"seLinuxChangePolicy": policy}});
        assert!(check(spec("Recursive"), None).is_empty());
        let why = |policy: &str| {
            [format!(
                "spec.securityContext.seLinuxChangePolicy: Unsupported value: \"{policy}\": supported values: \"Recursive\""
            )]
        };
        for policy in ["MountOption", "", "x"] {
            assert_eq!(check(spec(policy), None), why(policy));
            assert_eq!(check(spec(policy), Some(spec("Recursive"))), why(policy));
        }
        assert!(check(spec("MountOption"), Some(spec("MountOption"))).is_empty());
    }

    #[test]
    fn what_is_unmasked_is_the_pods_own() {
        let check = |context: Value, own_users: bool| {
            let mut causes = Vec::new();
            of_container(&context, own_users, &FieldPath::new("c"), &mut causes);
            told(&causes)
        };
        assert!(check(json!({"procMount": "Unmasked"}), true).is_empty());
        let why = "c.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`";
        assert_eq!(check(json!({"procMount": "Unmasked"}), false), [why]);
        assert!(check(json!({"procMount": "Default"}), false).is_empty());
        let escalates = check(
            json!({"allowPrivilegeEscalation": false, "privileged": true, "capabilities": {"add": ["CAP_SYS_ADMIN"]},
                "seLinuxOptions": {"level": "s0"}, "seccompProfile": {"type": "Unconfined", "localhostProfile": "a"}}),
            false,
        );
        let shown = "{\"Capabilities\":{\"Add\":[\"CAP_SYS_ADMIN\"],\"Drop\":null},\"Privileged\":true,\
            \"SELinuxOptions\":{\"User\":\"\",\"Role\":\"\",\"Type\":\"\",\"Level\":\"s0\"},\"WindowsOptions\":null,\
            \"RunAsUser\":null,\"RunAsGroup\":null,\"RunAsNonRoot\":null,\"ReadOnlyRootFilesystem\":null,\
            \"AllowPrivilegeEscalation\":false,\"ProcMount\":null,\
            \"SeccompProfile\":{\"Type\":\"Unconfined\",\"LocalhostProfile\":\"a\"},\"AppArmorProfile\":null}";
        let why = "cannot set `allowPrivilegeEscalation` to false and";
        assert_eq!(
            escalates,
            [
                "c.seccompProfile.localhostProfile: Invalid value: {\"Type\":\"Unconfined\",\"LocalhostProfile\":\"a\"}: can only be set when seccomp type is Localhost".to_owned(),
                format!("c: Invalid value: {shown}: {why} `privileged` to true"),
                format!("c: Invalid value: {shown}: {why} `capabilities.Add` CAP_SYS_ADMIN"),
            ]
        );
    }
}
