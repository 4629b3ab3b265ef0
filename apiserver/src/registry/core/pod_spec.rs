//! Checks of a pod's spec, alone or in a template (core/validation).

use super::mounts::Volumes;
use super::{container, downward, pod_resources, pod_security, restarts, scheduling, volume_source, windows};
use crate::registry::fields::{self, invalid_all, is_set, items, one_of, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

/// What a pod's policy of restarts can be.
const RESTART: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

/// A pod's spec.
pub fn validate(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let volumes = volume_source::validate_all(items(spec, "volumes"), &path.child("volumes"), causes);
    containers(spec, &volumes, path, causes);
    pod_resources::validate(spec, path, causes);
    one_of(spec, "restartPolicy", &RESTART, path, causes);
    one_of(spec, "dnsPolicy", &DNS, path, causes);
    fields::labels(spec.get("nodeSelector"), &path.child("nodeSelector"), causes);
    for (name, rule) in [
        ("serviceAccountName", validation::dns1123_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", validation::dns1123_subdomain),
        ("hostname", validation::dns1123_label),
        ("subdomain", validation::dns1123_label),
        ("priorityClassName", validation::dns1123_subdomain),
        ("runtimeClassName", validation::dns1123_subdomain),
    ] {
        let value = text(spec, name);
        if !value.is_empty() {
            invalid_all(&path.child(name), value, rule(value), causes);
        }
    }
    if let Some(seconds) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64)
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        causes.push(Cause::invalid(
            &path.child("activeDeadlineSeconds"),
            seconds,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    super::priority::preemption(spec, path, causes);
    if let Some(os) = spec.get("os").filter(|os| !os.is_null()) {
        let path = path.child("os");
        match text(os, "name") {
            "" => causes.push(Cause::required(&path.child("name"), "cannot be empty")),
            _ => one_of(os, "name", &["linux", "windows"], &path, causes),
        }
    }
    dns(spec, path, causes);
    for (nth, gate) in items(spec, "readinessGates").iter().enumerate() {
        let kind = text(gate, "conditionType");
        let path = path.child("readinessGates").index(nth).child("conditionType");
        invalid_all(&path, kind, validation::qualified_name(kind), causes);
    }
    security_context(spec, path, causes);
    windows::validate(spec, path, causes);
    scheduling::validate(spec, path, causes);
    for (nth, alias) in items(spec, "hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(nth);
        invalid_all(&path.child("ip"), text(alias, "ip"), validation::ip(text(alias, "ip")), causes);
        for (at, name) in items(alias, "hostnames").iter().filter_map(Value::as_str).enumerate() {
            invalid_all(&path.child("hostnames").index(at), name, validation::dns1123_subdomain(name), causes);
        }
    }
    downward::files_in_volumes(spec, path, causes);
}

/// Where names are looked up (core `validatePodDNSConfig`).
fn dns(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const SERVERS: usize = 3;
    const SEARCHES: usize = 32;
    const SEARCH_CHARACTERS: usize = 2048;
    let (config, path) = (&spec["dnsConfig"], path.child("dnsConfig"));
    if text(spec, "dnsPolicy") == "None" && config.is_null() {
        causes.push(Cause::required(&path, "must provide `dnsConfig` when `dnsPolicy` is None"));
        return;
    }
    let (servers, searches) = (items(config, "nameservers"), items(config, "searches"));
    let at = path.child("nameservers");
    if text(spec, "dnsPolicy") == "None" && servers.is_empty() {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        causes.push(Cause::required(&at, why));
        return;
    }
    if servers.len() > SERVERS {
        let why = format!("must not have more than {SERVERS} nameservers");
        causes.push(Cause::invalid(&at, servers.to_vec(), why));
    }
    for (nth, ip) in servers.iter().filter_map(Value::as_str).enumerate() {
        invalid_all(&at.index(nth), ip, validation::ip(ip), causes);
    }
    let at = path.child("searches");
    if searches.len() > SEARCHES {
        let why = format!("must not have more than {SEARCHES} search paths");
        causes.push(Cause::invalid(&at, searches.to_vec(), why));
    }
    let names: Vec<&str> = searches.iter().filter_map(Value::as_str).collect();
    if names.join(" ").len() > SEARCH_CHARACTERS {
        let why =
            format!("must not have more than {SEARCH_CHARACTERS} characters (including spaces) in the search list");
        causes.push(Cause::invalid(&at, searches.to_vec(), why));
    }
    for (nth, name) in names.iter().enumerate().filter(|(_, name)| **name != ".") {
        let plain = name.strip_suffix('.').unwrap_or(name).replace('_', "a");
        invalid_all(&at.index(nth), name, validation::dns1123_subdomain(&plain), causes);
    }
    for (nth, option) in items(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            causes.push(Cause::required(&path.child("options").index(nth), "must not be empty"));
        }
    }
}

fn containers(spec: &Value, volumes: &Volumes<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    let mut names = HashSet::new();
    let main = items(spec, "containers");
    if main.is_empty() {
        causes.push(Cause::required(&path.child("containers"), ""));
    }
    let mut host_ports = HashSet::new();
    for (list, init) in [("initContainers", true), ("containers", false)] {
        for (nth, one) in items(spec, list).iter().enumerate() {
            let path = path.child(list).index(nth);
            container::validate(one, volumes, init, &path, causes);
            restarts::rules(one, &path, causes);
            restarts::resize(one, init, text(spec, "restartPolicy"), &path, causes);
            container::ports(one, host_network, &mut host_ports, &path, causes);
            let name = text(one, "name");
            if !name.is_empty() && !names.insert(name) {
                causes.push(Cause::duplicate(&path.child("name"), name));
            }
        }
    }
    let others: HashSet<&str> = names.clone();
    for (nth, one) in items(spec, "ephemeralContainers").iter().enumerate() {
        let path = path.child("ephemeralContainers").index(nth);
        container::validate(one, volumes, false, &path, causes);
        let name = text(one, "name");
        if !name.is_empty() && !names.insert(name) {
            causes.push(Cause::duplicate(&path.child("name"), name));
        }
        let target = text(one, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            causes.push(Cause::not_found(&path.child("targetContainerName"), target));
        }
        ephemeral(one, &path, causes);
    }
}

/// What an ephemeral container can have (core `allowedEphemeralContainerFields`).
const EPHEMERAL: [&str; 17] = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

/// An ephemeral container is there to look, not to serve.
fn ephemeral(one: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let empty = |value: &Value| value.as_object().is_some_and(coracle_api::json::Map::is_empty);
    for field in one.as_object().into_iter().flat_map(|map| map.keys()) {
        if !EPHEMERAL.contains(&field.as_str()) && is_set(one, field) && !empty(&one[field.as_str()]) {
            causes.push(Cause::forbidden(&path.child(field), WHY));
        }
    }
    for (nth, mount) in items(one, "volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"].into_iter().filter(|field| is_set(mount, field)) {
            causes.push(Cause::forbidden(&path.child("volumeMounts").index(nth).child(field), WHY));
        }
    }
}

fn security_context(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let context = spec.get("securityContext").unwrap_or(&Value::Null);
    let path = path.child("securityContext");
    pod_security::of_pod(context, &path, causes);
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        causes.push(Cause::invalid(&path.child("shareProcessNamespace"), true, why));
    }
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true)
        && spec.get("hostUsers").and_then(Value::as_bool) == Some(false)
    {
        causes.push(Cause::forbidden(&path.child("hostNetwork"), "when `pod.Spec.HostUsers` is false"));
    }
}

/// A template of pods.
pub fn template(template: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let metadata = template.get("metadata").unwrap_or(&Value::Null);
    fields::labels(metadata.get("labels"), &path.child("labels"), causes);
    for key in metadata.get("annotations").and_then(Value::as_object).into_iter().flat_map(|map| map.keys()) {
        invalid_all(&path.child("annotations"), key, validation::qualified_name(&key.to_ascii_lowercase()), causes);
    }
    validate(template.get("spec").unwrap_or(&Value::Null), &path.child("spec"), causes);
    if !items(&template["spec"], "ephemeralContainers").is_empty() {
        causes.push(Cause::forbidden(
            &path.child("spec").child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
}
