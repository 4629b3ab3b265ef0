//! Checks of a container (core `validateContainers`).

use super::{pod_security, probe, resources};
use crate::registry::fields::{field, invalid_all, is_set, items, one_of, text};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::Value;
use std::collections::HashSet;

const PULL: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const MESSAGE: [&str; 2] = ["File", "FallbackToLogsOnError"];

/// A container that may mount these volumes.
pub fn validate(container: &Value, volumes: &HashSet<&str>, init: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    match text(container, "name") {
        "" => causes.push(Cause::required(&path.child("name"), "")),
        name => invalid_all(&path.child("name"), name, validation::dns1123_label(name), causes),
    }
    let image = text(container, "image");
    if image.is_empty() {
        causes.push(Cause::required(&path.child("image"), ""));
    } else if image != image.trim() {
        causes.push(Cause::invalid(&path.child("image"), image, "must not have leading or trailing whitespace"));
    }
    one_of(container, "imagePullPolicy", &PULL, path, causes);
    one_of(container, "terminationMessagePolicy", &MESSAGE, path, causes);
    env(container, path, causes);
    mounts(container, volumes, path, causes);
    let own = field(container, "resources").unwrap_or(&Value::Null);
    resources::validate(own, resources::Level::Container, &path.child("resources"), causes);
    probes(container, init, path, causes);
    let context = field(container, "securityContext").unwrap_or(&Value::Null);
    pod_security::of_container(context, &path.child("securityContext"), causes);
    devices(container, path, causes);
}

/// A sidecar: an init container that keeps running.
fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

fn probes(container: &Value, init: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let allowed = !init || is_sidecar(container);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(value) = field(container, name).filter(|value| !value.is_null()) else { continue };
        if allowed {
            probe::validate(value, name != "readinessProbe", &path.child(name), causes);
        } else {
            causes.push(Cause::forbidden(
                &path.child(name),
                "may not be set for init containers without restartPolicy=Always",
            ));
        }
    }
    let Some(lifecycle) = field(container, "lifecycle").filter(|value| !value.is_null()) else { return };
    if !allowed {
        causes.push(Cause::forbidden(
            &path.child("lifecycle"),
            "may not be set for init containers without restartPolicy=Always",
        ));
        return;
    }
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = field(lifecycle, hook).filter(|value| !value.is_null()) {
            probe::handler(handler, &path.child("lifecycle").child(hook), causes);
        }
    }
}

fn env(container: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, env) in items(container, "env").iter().enumerate() {
        let path = path.child("env").index(nth);
        match text(env, "name") {
            "" => causes.push(Cause::required(&path.child("name"), "")),
            name => invalid_all(&path.child("name"), name, validation::env_var_name(name), causes),
        }
        let Some(from) = field(env, "valueFrom").filter(|from| !from.is_null()) else { continue };
        let path = path.child("valueFrom");
        let sources = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
        let given: Vec<&str> =
            sources.into_iter().filter(|source| field(from, source).is_some_and(|value| !value.is_null())).collect();
        if !text(env, "value").is_empty() && !given.is_empty() {
            causes.push(Cause::invalid(&path, "", "may not be specified when `value` is not empty"));
        }
        match given.as_slice() {
            [] => causes.push(Cause::invalid(
                &path,
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            )),
            [one] => env_source(one, &from[*one], &path.child(one), causes),
            _ => causes.push(Cause::invalid(&path, "", "may not have more than one field specified at a time")),
        }
    }
    for (nth, from) in items(container, "envFrom").iter().enumerate() {
        let path = path.child("envFrom").index(nth);
        let given: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|source| field(from, source).is_some_and(|value| !value.is_null()))
            .collect();
        match given.as_slice() {
            [] => causes.push(Cause::invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`")),
            [one] if text(&from[*one], "name").is_empty() => {
                causes.push(Cause::required(&path.child(one).child("name"), ""))
            }
            [_] => {}
            _ => causes.push(Cause::invalid(&path, "", "may not have more than one field specified at a time")),
        }
    }
}

/// Fields of a pod that its environment may name (core `validEnvDownwardAPIFieldPathExpressions`).
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn env_source(kind: &str, source: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    match kind {
        "fieldRef" => {
            let field = text(source, "fieldPath");
            let subscripted = ["metadata.labels['", "metadata.annotations['"]
                .iter()
                .any(|prefix| field.starts_with(prefix) && field.ends_with("']"));
            if field.is_empty() {
                causes.push(Cause::required(&path.child("fieldPath"), ""));
            } else if !subscripted && !ENV_FIELDS.contains(&field) {
                causes.push(Cause::not_supported(&path.child("fieldPath"), field, &ENV_FIELDS));
            }
        }
        "resourceFieldRef" if text(source, "resource").is_empty() => {
            causes.push(Cause::required(&path.child("resource"), ""))
        }
        "configMapKeyRef" | "secretKeyRef" => match text(source, "key") {
            "" => causes.push(Cause::required(&path.child("key"), "")),
            key => invalid_all(&path.child("key"), key, validation::config_map_key(key), causes),
        },
        _ => {}
    }
}

/// Raw volumes (core `ValidateVolumeDevices`).
fn devices(container: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for (nth, device) in items(container, "volumeDevices").iter().enumerate() {
        let path = path.child("volumeDevices").index(nth);
        let (name, target) = (text(device, "name"), text(device, "devicePath"));
        if name.is_empty() {
            causes.push(Cause::required(&path.child("name"), ""));
        } else if !names.insert(name) {
            causes.push(Cause::invalid(&path.child("name"), name, "must be unique"));
        }
        if target.is_empty() {
            causes.push(Cause::required(&path.child("devicePath"), ""));
        } else if !paths.insert(target) {
            causes.push(Cause::invalid(&path.child("devicePath"), target, "must be unique"));
        }
        let mounts = items(container, "volumeMounts");
        if !target.is_empty() && mounts.iter().any(|mount| text(mount, "mountPath") == target) {
            let why = "must not already exist as a path in volumeMounts";
            causes.push(Cause::invalid(&path.child("devicePath"), target, why));
        }
        if !name.is_empty() && mounts.iter().any(|mount| text(mount, "name") == name) {
            causes.push(Cause::invalid(&path.child("name"), name, "must not already exist in volumeMounts"));
        }
    }
}

fn mounts(container: &Value, volumes: &HashSet<&str>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut paths = HashSet::new();
    for (nth, mount) in items(container, "volumeMounts").iter().enumerate() {
        let path = path.child("volumeMounts").index(nth);
        match text(mount, "name") {
            "" => causes.push(Cause::required(&path.child("name"), "")),
            name if !volumes.contains(name) => causes.push(Cause::not_found(&path.child("name"), name)),
            _ => {}
        }
        let target = text(mount, "mountPath");
        if target.is_empty() {
            causes.push(Cause::required(&path.child("mountPath"), ""));
        } else if !paths.insert(target) {
            causes.push(Cause::invalid(&path.child("mountPath"), target, "must be unique"));
        }
        for field in ["subPath", "subPathExpr"] {
            let sub = text(mount, field);
            if sub.starts_with('/') {
                causes.push(Cause::invalid(&path.child(field), sub, "must be a relative path"));
            } else if sub.split('/').any(|part| part == "..") {
                causes.push(Cause::invalid(&path.child(field), sub, "must not contain '..'"));
            }
        }
        if is_set(mount, "subPath") && is_set(mount, "subPathExpr") {
            causes.push(Cause::invalid(
                &path.child("subPathExpr"),
                text(mount, "subPathExpr"),
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
    }
}

/// A container's ports; host ports are taken once in a pod.
pub fn ports(
    container: &Value,
    host_network: bool,
    host_ports: &mut HashSet<(i64, String, String)>,
    path: &FieldPath,
    causes: &mut Vec<Cause>,
) {
    let mut names = HashSet::new();
    for (nth, port) in items(container, "ports").iter().enumerate() {
        let path = path.child("ports").index(nth);
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = validation::port_name(name);
            if wrong.is_empty() && !names.insert(name) {
                causes.push(Cause::duplicate(&path.child("name"), name));
            }
            invalid_all(&path.child("name"), name, wrong, causes);
        }
        let number = field(port, "containerPort").and_then(Value::as_i64).unwrap_or(0);
        if number == 0 {
            causes.push(Cause::required(&path.child("containerPort"), ""));
        } else {
            causes.extend(
                validation::port_number(number)
                    .into_iter()
                    .map(|why| Cause::invalid(&path.child("containerPort"), number, why)),
            );
        }
        if text(port, "protocol").is_empty() {
            causes.push(Cause::required(&path.child("protocol"), ""));
        }
        one_of(port, "protocol", &PROTOCOLS, &path, causes);
        let host = field(port, "hostPort").and_then(Value::as_i64).unwrap_or(0);
        if host == 0 {
            continue;
        }
        causes.extend(
            validation::port_number(host).into_iter().map(|why| Cause::invalid(&path.child("hostPort"), host, why)),
        );
        if host_network && host != number {
            causes.push(Cause::invalid(
                &path.child("hostPort"),
                host,
                "must match `containerPort` when `hostNetwork` is true",
            ));
        }
        if !host_ports.insert((host, text(port, "protocol").to_owned(), text(port, "hostIP").to_owned())) {
            causes.push(Cause::duplicate(
                &path.child("hostPort"),
                format!("{}/{}/{host}", text(port, "protocol"), text(port, "hostIP")),
            ));
        }
    }
}
