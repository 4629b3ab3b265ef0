//! Defaults of pods and of templates of pods (core/v1 `defaults.go`).

use super::{amounts, image_name, pod_resources};
use crate::registry::fields::{below_mut, field, field_mut, items_mut, object_mut, remove, set, set_default, text};
use coracle_api::json::{Map, Value, json};
use coracle_api::meta;

/// Mode of the files that volumes make: 0644.
const FILE_MODE: i64 = 0o644;

/// What init containers were before they were fields; upstream's conversions drop it.
const INIT_CONTAINERS: [&str; 4] = [
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
];

/// A whole pod: its spec, and what only a pod itself gets.
pub fn pod(pod: &mut Value) {
    meta::drop_annotations(pod, &INIT_CONTAINERS);
    let spec = object_mut(pod, "spec");
    pod_spec(spec);
    set_default(spec, "enableServiceLinks", true);
    let host_network = field(spec, "hostNetwork").and_then(Value::as_bool) == Some(true);
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, list) {
            if host_network {
                host_ports(container);
            }
            requests_from_limits(container);
        }
    }
    pod_resources::default(spec);
    amounts::round(spec, amounts::POD_SPEC);
    if let Some(status) = field_mut(pod, "status") {
        amounts::round(status, amounts::POD_STATUS);
    }
}

/// A template's metadata and spec.
pub fn template(owner_spec: &mut Value) {
    if let Some(template) = field_mut(owner_spec, "template").filter(|template| template.is_object()) {
        object_mut(template, "metadata");
        meta::drop_annotations(template, &INIT_CONTAINERS);
        let spec = object_mut(template, "spec");
        pod_spec(spec);
        amounts::round(spec, amounts::POD_SPEC);
    }
}

/// On the host's network a port is the host's. Templates do not say so: the pods that are made from them do.
fn host_ports(container: &mut Value) {
    for port in items_mut(container, "ports") {
        if let Some(number) = field(port, "containerPort").cloned() {
            set_default(port, "hostPort", number);
        }
    }
}

/// A template as it would be kept now, whatever an older server filled in or let pass: for those that cannot change.
pub fn settled(template: &Value) -> Value {
    let mut template = template.clone();
    meta::drop_annotations(&mut template, &INIT_CONTAINERS);
    if let Some(spec) = field_mut(&mut template, "spec") {
        settle_spec(spec);
    }
    template
}

/// The same of its pods.
pub fn settle_spec(spec: &mut Value) {
    drop_host_ports(spec);
    amounts::round(spec, amounts::POD_SPEC);
}

/// Takes away the ports of hosts that templates were filled in with.
fn drop_host_ports(spec: &mut Value) {
    if field(spec, "hostNetwork").and_then(Value::as_bool) != Some(true) {
        return;
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for port in items_mut(spec, list).flat_map(|container| items_mut(container, "ports")) {
            if same_port(port) {
                remove(port, "hostPort");
            }
        }
    }
}

fn same_port(port: &Value) -> bool {
    let number = |name| field(port, name).and_then(Value::as_i64);
    number("hostPort").is_some_and(|host| Some(host) == number("containerPort"))
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = field(container, "resources")
        .and_then(|resources| field(resources, "limits"))
        .and_then(Value::as_object)
        .cloned()
    else {
        return;
    };
    let requests = object_mut(object_mut(container, "resources"), "requests");
    for (name, limit) in limits {
        if field(requests, &name).is_none() {
            set(requests, &name, limit);
        }
    }
}

/// The spec of a pod.
pub fn pod_spec(spec: &mut Value) {
    service_account(spec);
    set_default(spec, "restartPolicy", "Always");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "securityContext", Map::new());
    set_default(spec, "schedulerName", "default-scheduler");
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        items_mut(spec, list).for_each(container);
    }
    for volume in items_mut(spec, "volumes") {
        self::volume(volume);
    }
}

/// The service account's older name says the same (core/v1 `conversion.go`, PodSpec).
fn service_account(spec: &mut Value) {
    let name = ["serviceAccountName", "serviceAccount"]
        .map(|field| text(spec, field))
        .into_iter()
        .find(|name| !name.is_empty());
    if let Some(name) = name.map(str::to_owned) {
        set(spec, "serviceAccountName", name.as_str());
        set(spec, "serviceAccount", name);
    }
}

/// Leaves out the signal that stops a container, and a lifecycle that says nothing else: the gate ContainerStopSignals is alpha from
/// 1.33 to 1.37, and off (KEP-4960; `dropContainerStopSignals`).
fn stop_signal(container: &mut Value) {
    let Some(lifecycle) = field_mut(container, "lifecycle") else { return };
    if remove(lifecycle, "stopSignal").is_some() && lifecycle.as_object().is_some_and(Map::is_empty) {
        remove(container, "lifecycle");
    }
}

/// A container.
fn container(container: &mut Value) {
    stop_signal(container);
    if text(container, "imagePullPolicy").is_empty() {
        let policy = pull_policy(text(container, "image"));
        set(container, "imagePullPolicy", policy);
    }
    set_default(container, "terminationMessagePath", "/dev/termination-log");
    set_default(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", Map::new());
    for port in items_mut(container, "ports") {
        set_default(port, "protocol", "TCP");
    }
    for env in items_mut(container, "env") {
        if let Some(field) = below_mut(env, &["valueFrom", "fieldRef"]).filter(|field| field.is_object()) {
            set_default(field, "apiVersion", "v1");
        }
        if let Some(resource) = below_mut(env, &["valueFrom", "resourceFieldRef"]).filter(|field| field.is_object()) {
            set_default(resource, "divisor", "0");
        }
        if let Some(key) = below_mut(env, &["valueFrom", "fileKeyRef"]).filter(|key| key.is_object()) {
            set_default(key, "optional", false);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = field_mut(container, probe).filter(|probe| probe.is_object()) {
            self::probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) = below_mut(container, &["lifecycle", hook, "httpGet"]) {
            http_get(get);
        }
    }
}

fn probe(probe: &mut Value) {
    for (name, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        // Zero is what was not said.
        if field(probe, name).and_then(Value::as_i64) == Some(0) {
            set(probe, name, value);
        }
        set_default(probe, name, value);
    }
    if let Some(get) = field_mut(probe, "httpGet") {
        http_get(get);
    }
    if let Some(grpc) = field_mut(probe, "grpc").filter(|grpc| grpc.is_object()) {
        set_default(grpc, "service", "");
    }
}

fn http_get(get: &mut Value) {
    if get.is_object() {
        set_default(get, "path", "/");
        set_default(get, "scheme", "HTTP");
    }
}

/// When an image is pulled unless somebody says.
fn pull_policy(image: &str) -> &'static str {
    if image_name::tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// A volume: an empty directory unless it says otherwise.
fn volume(volume: &mut Value) {
    let has_source =
        volume.as_object().is_some_and(|fields| fields.iter().any(|(name, value)| name != "name" && !value.is_null()));
    if !has_source {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        let Some(source_value) = field_mut(volume, source).filter(|value| value.is_object()) else { continue };
        set_default(source_value, "defaultMode", FILE_MODE);
        match source {
            "downwardAPI" => downward_items(source_value),
            "projected" => {
                for part in items_mut(source_value, "sources") {
                    if let Some(api) = field_mut(part, "downwardAPI") {
                        downward_items(api);
                    }
                    if let Some(token) = field_mut(part, "serviceAccountToken").filter(|token| token.is_object()) {
                        set_default(token, "expirationSeconds", 3600);
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(path) = field_mut(volume, "hostPath").filter(|path| path.is_object())
        && field(path, "type").is_none_or(Value::is_null)
    {
        set(path, "type", "");
    }
    if let Some(image) = field_mut(volume, "image").filter(|image| image.is_object())
        && text(image, "pullPolicy").is_empty()
    {
        let policy = pull_policy(text(image, "reference"));
        set(image, "pullPolicy", policy);
    }
    volume_systems(volume);
    if let Some(spec) = below_mut(volume, &["ephemeral", "volumeClaimTemplate", "spec"]).filter(|spec| spec.is_object())
    {
        set_default(spec, "volumeMode", "Filesystem");
    }
}

fn downward_items(source: &mut Value) {
    for item in items_mut(source, "items") {
        if let Some(field) = field_mut(item, "fieldRef").filter(|field| field.is_object()) {
            set_default(field, "apiVersion", "v1");
        }
        if let Some(resource) = field_mut(item, "resourceFieldRef").filter(|field| field.is_object()) {
            set_default(resource, "divisor", "0");
        }
    }
}

/// What the storage systems of a volume are asked by default, in a pod or in a PersistentVolume.
pub fn volume_systems(holder: &mut Value) {
    const DEFAULTS: [(&str, &str, &str); 9] = [
        ("iscsi", "iscsiInterface", "default"),
        ("rbd", "pool", "rbd"),
        ("rbd", "user", "admin"),
        ("rbd", "keyring", "/etc/ceph/keyring"),
        ("azureDisk", "cachingMode", "ReadWrite"),
        ("azureDisk", "kind", "Shared"),
        ("azureDisk", "fsType", "ext4"),
        ("scaleIO", "storageMode", "ThinProvisioned"),
        ("scaleIO", "fsType", "xfs"),
    ];
    for (system, name, value) in DEFAULTS {
        let Some(source) = field_mut(holder, system).filter(|source| source.is_object()) else { continue };
        set_default(source, name, value);
        if system == "azureDisk" {
            set_default(source, "readOnly", false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_the_hosts_in_pods_alone() {
        let spec = || json!({"hostNetwork": true, "containers": [{"name": "a", "image": "a:1", "ports": [{"containerPort": 80}]}]});
        let port = |spec: &Value| spec["containers"][0]["ports"][0].get("hostPort").cloned();
        let (mut own, mut owner) = (json!({"spec": spec()}), json!({"template": {"spec": spec()}}));
        pod(&mut own);
        template(&mut owner);
        assert_eq!((port(&own["spec"]), port(&owner["template"]["spec"])), (Some(json!(80)), None));
        let mut kept = own["spec"].clone();
        drop_host_ports(&mut kept);
        assert_eq!(port(&kept), None);
        let ports = &mut kept["containers"][0]["ports"][0];
        ports["hostPort"] = 81.into();
        drop_host_ports(&mut kept);
        assert_eq!(port(&kept), Some(json!(81)));
    }

    #[test]
    fn older_forms_of_init_containers_go() {
        for name in INIT_CONTAINERS {
            let metadata = json!({"annotations": {name: "[]", "a": "b"}});
            let (mut own, mut owner) = (json!({"metadata": metadata}), json!({"template": {"metadata": metadata}}));
            pod(&mut own);
            template(&mut owner);
            let left = json!({"annotations": {"a": "b"}});
            assert_eq!((&own["metadata"], &owner["template"]["metadata"]), (&left, &left));
            let mut alone = json!({"metadata": {"annotations": {name: "[]"}}});
            pod(&mut alone);
            assert_eq!(alone["metadata"], json!({}));
        }
    }

    #[test]
    fn a_whole_pods_requests_are_those_of_its_containers_before_they_are_rounded() {
        let container = |name: &str| json!({"name": name, "image": "a:1", "resources": {"requests": {"cpu": "100u"}}});
        let mut object = json!({"spec": {"containers": [container("a"), container("b")], "resources": {"limits": {"cpu": "1"}}},
            "status": {"containerStatuses": [{"allocatedResources": {"cpu": "100u"}}]}});
        pod(&mut object);
        assert_eq!(object["spec"]["resources"]["requests"]["cpu"], "1m");
        assert_eq!(object["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1m");
        assert_eq!(object["status"]["containerStatuses"][0]["allocatedResources"]["cpu"], "1m");
    }

    #[test]
    fn a_small_pod_is_filled_in() {
        let mut object = json!({"spec": {
            "containers": [{"name": "a", "image": "a:1", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}},
                "livenessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "x"}}, {"name": "i", "image": {"reference": "a:1"}}]}});
        pod(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(spec["containers"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(spec["containers"][0]["resources"]["requests"]["cpu"], "1");
        assert_eq!(spec["containers"][0]["livenessProbe"]["httpGet"]["path"], "/");
        assert_eq!(
            spec["volumes"],
            json!([{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "defaultMode": 420}},
                {"name": "i", "image": {"reference": "a:1", "pullPolicy": "IfNotPresent"}}])
        );
        let again = object.clone();
        pod(&mut object);
        assert_eq!(object, again);
    }
}
