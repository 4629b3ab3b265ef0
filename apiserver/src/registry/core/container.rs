//! Checks of a container.

use super::mounts::Volumes;
use super::{downward, mounts, pod_claims, pod_security, resources, restarts};
use crate::registry::fields::{field, invalid_all, items, one_of, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::{BTreeSet, HashSet};

pub const PULL: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const MESSAGE: [&str; 2] = ["File", "FallbackToLogsOnError"];

/// What a container is in.
pub struct Around<'a> {
    /// The volumes that it may mount.
    volumes: &'a Volumes<'a>,
    /// The names of the pod's claims.
    claims: BTreeSet<&'a str>,
    /// When the pod's containers are run again.
    restarts: &'a str,
    /// How long the pod may take to end.
    pub grace: Option<i64>,
    /// Whether the pod's users are not the host's.
    own_users: bool,
}

impl<'a> Around<'a> {
    /// A pod of this spec with these volumes.
    pub fn of(spec: &'a Value, volumes: &'a Volumes<'a>) -> Self {
        Self {
            volumes,
            claims: pod_claims::names(spec),
            restarts: text(spec, "restartPolicy"),
            grace: field(spec, "terminationGracePeriodSeconds").and_then(Value::as_i64),
            own_users: field(spec, "hostUsers").and_then(Value::as_bool) == Some(false),
        }
    }
}

/// What holds for containers of all lists (core `validateContainerCommon`).
pub fn validate(container: &Value, around: &Around<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    match text(container, "name") {
        "" => causes.push(Cause::required(&path.child("name"), "")),
        name => invalid_all(&path.child("name"), name, validation::dns1123_label(name), causes),
    }
    if text(container, "image").is_empty() {
        causes.push(Cause::required(&path.child("image"), ""));
    }
    one_of(container, "terminationMessagePolicy", &MESSAGE, path, causes);
    ports(container, path, causes);
    env(container, path, causes);
    mounts::mounts(container, around.volumes, &path.child("volumeMounts"), causes);
    mounts::devices(container, around.volumes, &path.child("volumeDevices"), causes);
    one_of(container, "imagePullPolicy", &PULL, path, causes);
    if let Some(own) = field(container, "resources") {
        let path = path.child("resources");
        resources::validate(own, resources::Level::Container, &path, causes);
        pod_claims::used(own, &around.claims, &path, causes);
    }
    restarts::resize(container, around.restarts, path, causes);
    if let Some(context) = field(container, "securityContext") {
        pod_security::of_container(context, around.own_users, &path.child("securityContext"), causes);
    }
}

/// An image of a container that is run as it is: templates may hold tokens in its place (core `validateContainerOnlyForPod`).
pub fn trimmed_image(container: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let image = text(container, "image");
    if image.len() != image.trim().len() {
        causes.push(Cause::invalid(&path.child("image"), image, "must not have leading or trailing whitespace"));
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

/// A container's ports (core `validateContainerPorts`).
fn ports(container: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
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
        let number = |name: &str| field(port, name).and_then(Value::as_i64).unwrap_or(0);
        if number("containerPort") == 0 {
            causes.push(Cause::required(&path.child("containerPort"), ""));
        }
        for name in ["containerPort", "hostPort"] {
            if number(name) != 0 {
                let wrong = validation::port_number(number(name)).into_iter();
                causes.extend(wrong.map(|why| Cause::invalid(&path.child(name), number(name), why)));
            }
        }
        if text(port, "protocol").is_empty() {
            causes.push(Cause::required(&path.child("protocol"), ""));
        }
        one_of(port, "protocol", &PROTOCOLS, &path, causes);
    }
}
