//! Checks of a container (core `validateContainers`).

use super::mounts::Volumes;
use super::{downward, mounts, pod_security, probe, resources};
use crate::registry::fields::{field, invalid_all, items, one_of, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

pub const PULL: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const MESSAGE: [&str; 2] = ["File", "FallbackToLogsOnError"];

/// A container that may mount these volumes.
pub fn validate(container: &Value, volumes: &Volumes<'_>, init: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
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
    mounts::mounts(container, volumes, &path.child("volumeMounts"), causes);
    let own = field(container, "resources").unwrap_or(&Value::Null);
    resources::validate(own, resources::Level::Container, &path.child("resources"), causes);
    probes(container, init, path, causes);
    let context = field(container, "securityContext").unwrap_or(&Value::Null);
    pod_security::of_container(context, &path.child("securityContext"), causes);
    mounts::devices(container, volumes, &path.child("volumeDevices"), causes);
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
    const ONE: &str = "may not have more than one field specified at a time";
    for (nth, env) in items(container, "env").iter().enumerate() {
        let path = path.child("env").index(nth);
        match text(env, "name") {
            "" => causes.push(Cause::required(&path.child("name"), "")),
            name => invalid_all(&path.child("name"), name, validation::env_var_name(name), causes),
        }
        let Some(from) = field(env, "valueFrom").filter(|from| !from.is_null()) else { continue };
        let path = path.child("valueFrom");
        let given = given(from, &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"]);
        for one in &given {
            env_source(one, &from[*one], &path.child(one), causes);
        }
        if given.is_empty() {
            let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            causes.push(Cause::invalid(&path, "", why));
        } else if !text(env, "value").is_empty() {
            causes.push(Cause::invalid(&path, "", "may not be specified when `value` is not empty"));
        } else if given.len() > 1 {
            causes.push(Cause::invalid(&path, "", ONE));
        }
    }
    // Upstream reports a source without its place in the list.
    let path = path.child("envFrom");
    for (nth, from) in items(container, "envFrom").iter().enumerate() {
        let at = path.index(nth);
        let prefix = text(from, "prefix");
        if !prefix.is_empty() {
            invalid_all(&at.child("prefix"), prefix, validation::env_var_name(prefix), causes);
        }
        let given = given(from, &["configMapRef", "secretRef"]);
        for one in &given {
            let at = at.child(one).child("name");
            match text(&from[*one], "name") {
                "" => causes.push(Cause::required(&at, "")),
                // Upstream takes it for the beginning of a name.
                name => invalid_all(&at, name, validation::dns1123_subdomain(&validation::masked(name)), causes),
            }
        }
        match given.len() {
            0 => causes.push(Cause::invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => causes.push(Cause::invalid(&path, "", ONE)),
        }
    }
}

/// Those of the fields that are there.
fn given<'n>(value: &Value, names: &[&'n str]) -> Vec<&'n str> {
    names.iter().copied().filter(|name| field(value, name).is_some_and(|value| !value.is_null())).collect()
}

fn env_source(kind: &str, source: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    match kind {
        "fieldRef" => downward::field_ref(source, &downward::ENV_FIELDS, path, causes),
        "resourceFieldRef" => downward::resource_ref(source, false, path, causes),
        "configMapKeyRef" | "secretKeyRef" => {
            let name = text(source, "name");
            invalid_all(&path.child("name"), name, validation::dns1123_subdomain(name), causes);
            match text(source, "key") {
                "" => causes.push(Cause::required(&path.child("key"), "")),
                key => invalid_all(&path.child("key"), key, validation::config_map_key(key), causes),
            }
        }
        "fileKeyRef" => downward::file_key_ref(source, path, causes),
        _ => {}
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
