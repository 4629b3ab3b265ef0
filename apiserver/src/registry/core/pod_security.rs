//! Checks of security contexts, of a pod's and of its containers' (core `validatePodSpecSecurityContext`,
//! `ValidateSecurityContext`).

use super::volume_kinds::descending;
use crate::registry::fields::{items, one_of, text};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use std::collections::HashSet;

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
/// A path without its ending zero.
const PATH_MAX: usize = 4095;
const SYSCTL_MAX: usize = 253;
const SYSCTL: &str = "([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?";

/// What pods and containers have in common.
pub fn context(context: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(id) = context.get(field).and_then(Value::as_i64) {
            self::id(id, &path.child(field), causes);
        }
    }
    profile(&context["seccompProfile"], "seccomp", &path.child("seccompProfile"), causes);
    profile(&context["appArmorProfile"], "AppArmor", &path.child("appArmorProfile"), causes);
}

/// Of a pod alone.
pub fn of_pod(context: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    self::context(context, path, causes);
    for (nth, group) in items(context, "supplementalGroups").iter().enumerate() {
        self::id(group.as_i64().unwrap_or(-1), &path.child("supplementalGroups").index(nth), causes);
    }
    one_of(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], path, causes);
    one_of(context, "supplementalGroupsPolicy", &["Merge", "Strict"], path, causes);
    let mut names = HashSet::new();
    for (nth, sysctl) in items(context, "sysctls").iter().enumerate() {
        let (name, path) = (text(sysctl, "name"), path.child("sysctls").index(nth).child("name"));
        if name.is_empty() {
            causes.push(Cause::required(&path, ""));
        } else if !is_sysctl(name) {
            let why = format!("must have at most {SYSCTL_MAX} characters and match regex ^{SYSCTL}$");
            causes.push(Cause::invalid(&path, name, why));
        } else if !names.insert(name) {
            causes.push(Cause::duplicate(&path, name));
        }
    }
}

/// Of a container alone.
pub fn of_container(context: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    self::context(context, path, causes);
    one_of(context, "procMount", &["Default", "Unmasked"], path, causes);
    let flag = |name: &str| context.get(name).and_then(Value::as_bool);
    if flag("allowPrivilegeEscalation") == Some(false) {
        let why = "cannot set `allowPrivilegeEscalation` to false and";
        if flag("privileged") == Some(true) {
            causes.push(Cause::invalid(path, context.clone(), format!("{why} `privileged` to true")));
        }
        if context.pointer("/capabilities/add").and_then(Value::as_array).is_some_and(|add| add.iter().any(is_admin)) {
            causes.push(Cause::invalid(path, context.clone(), format!("{why} `capabilities.Add` CAP_SYS_ADMIN")));
        }
    }
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

fn profile(profile: &Value, what: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if !profile.is_object() {
        return;
    }
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
            let found = if seccomp { profile.clone() } else { name.into() };
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
