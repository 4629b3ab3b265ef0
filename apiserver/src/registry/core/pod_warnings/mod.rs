//! What is allowed in a pod, and is most likely not what was meant (kubernetes `pkg/api/pod/warnings.go`), in upstream's order.

mod containers;
mod overlaps;
mod placement;
mod ports;

use super::{claim, profiles};
use crate::registry::fields::{field, items, text};
use crate::registry::warnings::Warnings;
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;
use coracle_api::{meta, validation};
use std::collections::HashSet;

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";

/// Where claims are made for the pod; what is told of them has its place among the sources.
const EPHEMERAL: &str = "ephemeral";
/// Sources of volumes that are on their way out, or gone: the field, its name upstream, and what is told.
const VOLUMES: [(&str, &str, &str); 10] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    (EPHEMERAL, EPHEMERAL, ""),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// What to tell whoever makes a pod. Pods are rarely changed by people.
pub fn of_pod(pod: &Value) -> Vec<String> {
    let mut told = Warnings::default();
    let wrong = validation::dns1123_label(meta::name(pod));
    if !wrong.is_empty() {
        let why =
            "this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended";
        told.add(format!("metadata.name: {why}: [{}]", wrong.join(" ")));
    }
    Pod::new(pod, &FieldPath::default()).tell(&mut told);
    told.into()
}

/// What to tell whoever gives a pod's status.
pub fn of_status(pod: &Value) -> Vec<String> {
    let (mut told, path) = (Warnings::default(), FieldPath::new("status"));
    for list in ["podIPs", "hostIPs"] {
        for (nth, ip) in items(&pod["status"], list).iter().enumerate() {
            told.ip(|| path.child(list).index(nth).child("ip"), text(ip, "ip"));
        }
    }
    told.into()
}

/// What to tell whoever makes or changes an object with a template of pods, which a JSON pointer leads to.
pub fn of_template(object: &Value, old: Option<&Value>, pointer: &str) -> Vec<String> {
    let mut told = Warnings::default();
    let is_new = old.is_none_or(|old| meta::generation(object) != meta::generation(old));
    if let Some(template) = object.pointer(pointer).filter(|_| is_new) {
        let path = FieldPath::new(&pointer.trim_start_matches('/').replace('/', "."));
        Pod::new(template, &path).tell(&mut told);
    }
    told.into()
}

/// A pod, or the template of one.
struct Pod<'p> {
    annotations: Option<&'p Map>,
    spec: &'p Value,
    /// Where its annotations are.
    of_annotations: FieldPath,
    /// Where its spec is.
    path: FieldPath,
    is_template: bool,
}

impl<'p> Pod<'p> {
    fn new(pod: &'p Value, path: &FieldPath) -> Self {
        Self {
            annotations: meta::annotations(pod),
            spec: &pod["spec"],
            of_annotations: path.child("metadata").child("annotations"),
            path: path.child("spec"),
            is_template: !path.as_str().is_empty(),
        }
    }

    fn tell(&self, told: &mut Warnings) {
        let (spec, path) = (self.spec, &self.path);
        placement::nodes(spec, path, told);
        for (name, why) in ANNOTATIONS {
            self.annotation(name, why, told);
        }
        self.volumes(told);
        overlaps::tell(spec, told);
        self.named_twice(told);
        let overhead = field(spec, "overhead");
        for name in ["memory", "ephemeral-storage"] {
            told.fraction(overhead, name, || path.child("overhead"));
        }
        if !has_profile(spec, "seccompProfile") {
            self.annotation(profiles::SECCOMP_OF_POD, SECCOMP, told);
        }
        containers::tell(self, told);
        ports::tell(spec, path, told);
        if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
            let why = "must be >= 0; negative values are invalid and will be treated as 1";
            told.at(&path.child("terminationGracePeriodSeconds"), why);
        }
        placement::pods(spec, path, told);
        let servers = field(spec, "dnsConfig").map_or(&[][..], |config| items(config, "nameservers"));
        for (nth, server) in servers.iter().filter_map(Value::as_str).enumerate() {
            told.ip(|| path.child("dnsConfig").child("nameservers").index(nth), server);
        }
        for (nth, alias) in items(spec, "hostAliases").iter().enumerate() {
            told.ip(|| path.child("hostAliases").index(nth).child("ip"), text(alias, "ip"));
        }
    }

    /// Tells of an annotation that is there.
    fn annotation(&self, name: &str, why: &str, told: &mut Warnings) {
        if self.annotations.is_some_and(|annotations| annotations.contains_key(name)) {
            told.at(&self.of_annotations.key(name), why);
        }
    }

    fn volumes(&self, told: &mut Warnings) {
        for (nth, volume) in items(self.spec, "volumes").iter().enumerate() {
            let there = |name: &str| field(volume, name).filter(|source| !source.is_null());
            for (name, shown, why) in VOLUMES {
                let Some(source) = there(name) else { continue };
                let path = self.path.child("volumes").index(nth).child(shown);
                if name != EPHEMERAL {
                    told.at(&path, why);
                } else if let Some(template) = field(source, "volumeClaimTemplate") {
                    claim::sizes(&template["spec"], &path.child("volumeClaimTemplate").child("spec"), told);
                }
            }
        }
    }

    /// Aliases for one address, and secrets, that stand there more than once; secrets without a name.
    fn named_twice(&self, told: &mut Warnings) {
        for (list, name, what) in [("hostAliases", "ip", "ip"), ("imagePullSecrets", "name", "name")] {
            let mut known = HashSet::new();
            for (nth, item) in items(self.spec, list).iter().enumerate() {
                let value = text(item, name);
                if !known.insert(value) {
                    told.at(&self.path.child(list).index(nth).child(name), format_args!("duplicate {what} {value:?}"));
                }
            }
        }
        for (nth, secret) in items(self.spec, "imagePullSecrets").iter().enumerate() {
            if text(secret, "name").is_empty() {
                told.at(&self.path.child("imagePullSecrets").index(nth).child("name"), "invalid empty name \"\"");
            }
        }
    }
}

/// Whether a pod's or a container's security context has a profile.
fn has_profile(of: &Value, name: &str) -> bool {
    field(of, "securityContext").and_then(|context| field(context, name)).is_some_and(|profile| !profile.is_null())
}

#[cfg(test)]
mod tests;
