//! Checks of a pod's spec, alone or in a template (core `ValidatePodSpec`), in upstream's order.

use super::{
    downward, pod_annotations, pod_claims, pod_containers, pod_dns, pod_resources, pod_security, priority, profiles,
    resources, scheduling, volume_source, windows,
};
use crate::registry::fields::{self, field, invalid_all, items, one_of, text};
use crate::registry::strategy::NameRule;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

/// What a pod's policy of restarts can be.
const RESTART: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

/// Whose spec it is.
#[derive(Clone, Copy, Default)]
pub struct Holder<'a> {
    /// The pod itself; none of a template.
    pub pod: Option<&'a Value>,
    /// The spec that is replaced: some of what others let in stays.
    pub old: Option<&'a Value>,
}

/// A pod's spec.
pub fn validate(spec: &Value, holder: Holder<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let volumes = volume_source::validate_all(items(spec, "volumes"), &path.child("volumes"), causes);
    pod_claims::validate(spec, holder.pod, path, causes);
    pod_containers::validate(spec, &volumes, path, causes);
    pod_resources::validate(spec, path, causes);
    pod_containers::host_network(spec, holder.pod.is_some(), path, causes);
    one_of(spec, "restartPolicy", &RESTART, path, causes);
    one_of(spec, "dnsPolicy", &DNS, path, causes);
    fields::labels(spec.get("nodeSelector"), &path.child("nodeSelector"), causes);
    pod_security::of_pod(spec, holder.old, path, causes);
    scheduling::affinity(spec, path, causes);
    pod_dns::validate(spec, path, causes);
    readiness_gates(spec, path, causes);
    pod_containers::gates(spec, path, causes);
    scheduling::spread(spec, holder.old, path, causes);
    windows::host_process(spec, path, causes);
    own_users(spec, holder.old, path, causes);
    pod_dns::hostname_override(spec, path, causes);
    name(spec, "serviceAccountName", validation::dns1123_subdomain, path, causes);
    name(spec, "nodeName", validation::dns1123_subdomain, path, causes);
    if let Some(seconds) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64)
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let why = "must be between 1 and 2147483647, inclusive";
        causes.push(Cause::invalid(&path.child("activeDeadlineSeconds"), seconds, why));
    }
    name(spec, "hostname", validation::dns1123_label, path, causes);
    name(spec, "subdomain", validation::dns1123_label, path, causes);
    scheduling::tolerations(items(spec, "tolerations"), &path.child("tolerations"), causes);
    host_aliases(spec, path, causes);
    name(spec, "priorityClassName", validation::dns1123_subdomain, path, causes);
    if let Some(class) = spec.get("runtimeClassName").and_then(Value::as_str) {
        // A pointer upstream: an empty one is given, and wrong.
        invalid_all(&path.child("runtimeClassName"), class, validation::dns1123_subdomain(class), causes);
    }
    priority::preemption(spec, path, causes);
    if let Some(overhead) = field(spec, "overhead").filter(|overhead| overhead.is_object()) {
        // It is told as if it were a limit.
        let limits = json!({"limits": overhead.clone()});
        resources::validate(&limits, resources::Level::Container, &path.child("overhead"), causes);
    }
    system(spec, path, causes);
    downward::files_in_volumes(spec, path, causes);
}

fn name(spec: &Value, field: &str, rule: NameRule, path: &FieldPath, causes: &mut Vec<Cause>) {
    let value = text(spec, field);
    if !value.is_empty() {
        invalid_all(&path.child(field), value, rule(value), causes);
    }
}

/// The system that the pod is made for, and what it does not have (core `validateOS`).
fn system(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(os) = field(spec, "os").filter(|os| !os.is_null()) else { return };
    match text(os, "name") {
        "" => causes.push(Cause::required(&path.child("os").child("name"), "")),
        "linux" | "windows" => windows::validate(spec, path, causes),
        other => causes.push(Cause::not_supported(&path.child("os"), other, &["linux", "windows"])),
    }
}

fn readiness_gates(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, gate) in items(spec, "readinessGates").iter().enumerate() {
        let kind = text(gate, "conditionType");
        let path = path.child("readinessGates").index(nth).child("conditionType");
        invalid_all(&path, kind, validation::qualified_name(kind), causes);
    }
}

fn host_aliases(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, alias) in items(spec, "hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(nth);
        invalid_all(&path.child("ip"), text(alias, "ip"), validation::ip(text(alias, "ip")), causes);
        for (at, name) in items(alias, "hostnames").iter().filter_map(Value::as_str).enumerate() {
            invalid_all(&path.child("hostnames").index(at), name, validation::dns1123_subdomain(name), causes);
        }
    }
}

/// Users that are not the host's go with no other namespace of the host's, and with no raw devices (core `validateHostUsers`).
fn own_users(spec: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    const WHY: &str = "when `hostUsers` is false";
    let own = |spec: &Value| field(spec, "hostUsers").and_then(Value::as_bool) == Some(false);
    if !own(spec) {
        return;
    }
    // Two of the names are upstream's, with its capitals.
    for (name, told) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if field(spec, name).and_then(Value::as_bool) == Some(true) {
            causes.push(Cause::forbidden(&path.child(told), WHY));
        }
    }
    let has_devices = |container: &Value| !items(container, "volumeDevices").is_empty();
    let nowhere = FieldPath::default();
    if old.is_some_and(|old| own(old) && windows::containers(old, &nowhere).any(|(one, _)| has_devices(one))) {
        return;
    }
    for (_, path) in windows::containers(spec, path).filter(|(container, _)| has_devices(container)) {
        causes.push(Cause::forbidden(&path.child("volumeDevices"), WHY));
    }
}

/// A template of pods (core `ValidatePodTemplateSpec`).
pub fn template(template: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let metadata = field(template, "metadata").unwrap_or(&Value::Null);
    let spec = field(template, "spec").unwrap_or(&Value::Null);
    fields::labels(metadata.get("labels"), &path.child("labels"), causes);
    let annotations = field(metadata, "annotations").and_then(Value::as_object).filter(|map| !map.is_empty());
    if let Some(annotations) = annotations {
        let path = path.child("annotations");
        pod_annotations::of_template(annotations, &path, causes);
        pod_annotations::validate(annotations, None, spec, &path, causes);
    }
    let path = path.child("spec");
    validate(spec, Holder::default(), &path, causes);
    if let Some(annotations) = annotations {
        profiles::agree(annotations, spec, &path, causes);
    }
    if !items(spec, "ephemeralContainers").is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        causes.push(Cause::forbidden(&path.child("ephemeralContainers"), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(spec: Value, check: impl Fn(&Value, &FieldPath, &mut Vec<Cause>)) -> Vec<String> {
        let mut causes = Vec::new();
        check(&spec, &FieldPath::new("spec"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    fn whole(more: Value) -> Vec<String> {
        let mut spec = json!({"containers": [{"name": "a", "image": "i"}]});
        for (name, value) in more.as_object().unwrap() {
            spec[name.as_str()] = value.clone();
        }
        told(spec, |spec, path, causes| validate(spec, Holder::default(), path, causes))
    }

    #[test]
    fn own_users_go_with_nothing_of_the_hosts() {
        let why = "Forbidden: when `hostUsers` is false";
        let spec = json!({"hostUsers": false, "hostNetwork": true, "hostPID": true, "hostIPC": true,
            "containers": [{"volumeDevices": [{}]}], "initContainers": [{"volumeDevices": [{}]}]});
        let check = |old: Option<&Value>| told(spec.clone(), |spec, path, causes| own_users(spec, old, path, causes));
        let fields = ["hostNetwork", "HostPID", "HostIPC"].map(|field| format!("spec.{field}: {why}"));
        let devices = ["initContainers", "containers"].map(|list| format!("spec.{list}[0].volumeDevices: {why}"));
        assert_eq!(check(None), [&fields[..], &devices].concat());
        assert_eq!(check(Some(&spec)), fields, "raw devices that were there may stay");
        assert!(whole(json!({"hostUsers": true, "hostPID": true, "hostIPC": true})).is_empty());
    }

    #[test]
    fn systems_are_known() {
        let known = "supported values: \"linux\", \"windows\"";
        assert_eq!(whole(json!({"os": {"name": "x"}})), [format!("spec.os: Unsupported value: \"x\": {known}")]);
        assert_eq!(whole(json!({"os": {}})), ["spec.os.name: Required value"]);
        assert!(whole(json!({"os": {"name": "linux"}})).is_empty());
    }

    #[test]
    fn overhead_is_told_as_a_limit() {
        assert!(whole(json!({"overhead": {"cpu": "1", "memory": "1Mi"}})).is_empty());
        assert_eq!(
            whole(json!({"overhead": {"cpu": "-1"}})),
            ["spec.overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"]
        );
    }

    #[test]
    fn a_class_that_is_given_has_a_name() {
        let found = whole(json!({"runtimeClassName": ""}));
        assert!(found[0].starts_with("spec.runtimeClassName: Invalid value: \"\": a lowercase RFC 1123"), "{found:?}");
    }

    #[test]
    fn causes_are_told_in_upstreams_order() {
        let found = whole(
            json!({"preemptionPolicy": "x", "serviceAccountName": "A", "tolerations": [{}], "hostname": "A",
            "securityContext": {"runAsUser": -1, "fsGroup": -1}, "activeDeadlineSeconds": 0, "restartPolicy": "x",
            "schedulingGates": [{"name": "-"}], "dnsConfig": {"nameservers": ["01.2.3.4"]}, "hostUsers": false, "hostPID": true,
            "topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]}),
        );
        let fields: Vec<&str> = found.iter().filter_map(|cause| cause.split(": ").next()).collect();
        assert_eq!(
            fields,
            [
                "spec.restartPolicy",
                "spec.securityContext.fsGroup",
                "spec.securityContext.runAsUser",
                "spec.dnsConfig.nameservers[0]",
                "spec.schedulingGates[0]",
                "spec.topologySpreadConstraints[0].maxSkew",
                "spec.HostPID",
                "spec.serviceAccountName",
                "spec.activeDeadlineSeconds",
                "spec.hostname",
                "spec.tolerations[0].operator",
                "spec.preemptionPolicy",
            ]
        );
        assert_eq!(found[3], "spec.dnsConfig.nameservers[0]: Invalid value: \"01.2.3.4\": must not have leading 0s");
    }

    #[test]
    fn templates_are_asked_for_their_annotations() {
        let check = |template: Value| {
            let mut causes = Vec::new();
            super::template(&template, &FieldPath::new("template"), &mut causes);
            causes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let spec = json!({"containers": [{"name": "a", "image": " "}], "securityContext": {"seccompProfile": {"type": "Unconfined"}}});
        assert!(check(json!({"spec": spec})).is_empty(), "a blank stands for an image that is put in later");
        assert_eq!(
            check(json!({"spec": spec, "metadata": {"annotations":
                {"controller.kubernetes.io/pod-deletion-cost": "x", profiles::SECCOMP_OF_POD: "runtime/default"}}})),
            [
                "template.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"x\": must be a 32bit integer",
                "template.spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match",
            ]
        );
    }
}
