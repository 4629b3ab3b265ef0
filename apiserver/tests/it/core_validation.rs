//! Checks of core kinds as kube-apiserver makes them: the causes here came back from a real one, but where a later version words or
//! places them otherwise.

use crate::harness::Harness;
use crate::validation::{creates, updates};
use http::StatusCode;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const NAME_EMPTY: &str = "Invalid value: \"\": name part must be non-empty";
const NAME_SHAPE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

fn pod(spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    json_patch::merge(&mut pod["spec"], &spec);
    pod
}

#[tokio::test]
async fn volumes_of_every_kind() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let with = |source: Value| json!({"spec": {"volumes": [source]}});
    let name = format!("spec.volumes[0].csi.name: Invalid value: \"B_\": {SUBDOMAIN}");
    let driver = format!("spec.volumes[0].csi.driver: Invalid value: \"\": {SUBDOMAIN}");
    let storageos = format!("spec.volumes[0].storageos.volumeName: Invalid value: \"B_\": {LABEL}");
    let rows: [(Value, &[&str]); 25] = [
        (
            with(json!({"name": "v", "gcePersistentDisk": {"partition": 256}})),
            &[
                "spec.volumes[0].persistentDisk.pdName: Required value",
                "spec.volumes[0].persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive",
            ],
        ),
        (
            with(json!({"name": "v", "awsElasticBlockStore": {}})),
            &["spec.volumes[0].awsElasticBlockStore.volumeID: Required value"],
        ),
        (
            with(json!({"name": "v", "gitRepo": {"directory": "/../a"}})),
            &[
                "spec.volumes[0].gitRepo.repository: Required value",
                "spec.volumes[0].gitRepo.directory: Invalid value: \"/../a\": must be a relative path",
                "spec.volumes[0].gitRepo.directory: Invalid value: \"/../a\": must not contain '..'",
            ],
        ),
        (
            with(json!({"name": "v", "nfs": {"server": "s"}})),
            &[
                "spec.volumes[0].nfs.path: Required value",
                "spec.volumes[0].nfs.path: Invalid value: \"\": must be an absolute path",
            ],
        ),
        (
            with(
                json!({"name": "v", "iscsi": {"targetPortal": "p", "iqn": "iqn.x", "lun": 256, "chapAuthSession": true, "initiatorName": "x"}}),
            ),
            &[
                "spec.volumes[0].iscsi.iqn: Invalid value: \"iqn.x\": must be valid format",
                "spec.volumes[0].iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
                "spec.volumes[0].iscsi.secretRef: Required value",
                "spec.volumes[0].iscsi.initiatorname: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa",
            ],
        ),
        (
            with(json!({"name": "v", "glusterfs": {}})),
            &["spec.volumes[0].glusterfs.endpoints: Required value", "spec.volumes[0].glusterfs.path: Required value"],
        ),
        (
            with(json!({"name": "v", "rbd": {}})),
            &["spec.volumes[0].rbd.monitors: Required value", "spec.volumes[0].rbd.image: Required value"],
        ),
        (
            with(json!({"name": "v", "flexVolume": {"options": {"a.k8s.io/b": "c"}}})),
            &[
                "spec.volumes[0].flexVolume.driver: Required value",
                "spec.volumes[0].flexVolume.options[a.k8s.io/b]: Invalid value: \"a.k8s.io/b\": kubernetes.io and k8s.io namespaces are reserved",
            ],
        ),
        (
            with(json!({"name": "v", "cinder": {"secretRef": {}}})),
            &[
                "spec.volumes[0].cinder.volumeID: Required value",
                "spec.volumes[0].cinder.secretRef.name: Required value",
            ],
        ),
        (with(json!({"name": "v", "cephfs": {}})), &["spec.volumes[0].cephfs.monitors: Required value"]),
        (
            with(json!({"name": "v", "flocker": {}})),
            &["spec.volumes[0].flocker: Required value: one of datasetName and datasetUUID is required"],
        ),
        (
            with(json!({"name": "v", "fc": {"targetWWNs": ["a"]}})),
            &["spec.volumes[0].fc.lun: Required value: lun is required if targetWWNs is specified"],
        ),
        (
            with(json!({"name": "v", "fc": {}})),
            &["spec.volumes[0].fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"],
        ),
        (
            with(json!({"name": "v", "azureFile": {}})),
            &[
                "spec.volumes[0].azureFile.secretName: Required value",
                "spec.volumes[0].azureFile.shareName: Required value",
            ],
        ),
        (
            with(
                json!({"name": "v", "azureDisk": {"diskName": "d", "diskURI": "/subscriptions/x", "cachingMode": "x"}}),
            ),
            &[
                "spec.volumes[0].azureDisk.cachingMode: Unsupported value: \"x\": supported values: \"None\", \"ReadOnly\", \"ReadWrite\"",
                "spec.volumes[0].azureDisk.diskURI: Unsupported value: \"/subscriptions/x\": supported values: \"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd\"",
            ],
        ),
        (
            with(json!({"name": "v", "quobyte": {"registry": "a,b:1", "volume": "v"}})),
            &[
                "spec.volumes[0].quobyte.registry: Invalid value: \"a,b:1\": must be a host:port pair or multiple pairs separated by commas",
            ],
        ),
        (
            with(json!({"name": "v", "vsphereVolume": {}})),
            &["spec.volumes[0].vsphereVolume.volumePath: Required value"],
        ),
        (
            with(json!({"name": "v", "photonPersistentDisk": {}})),
            &["spec.volumes[0].photonPersistentDisk.pdID: Required value"],
        ),
        (
            with(json!({"name": "v", "portworxVolume": {}})),
            &["spec.volumes[0].portworxVolume.volumeID: Required value"],
        ),
        (with(json!({"name": "v", "storageos": {"volumeName": "B_"}})), &[&storageos]),
        (with(json!({"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "B_"}}})), &[&name]),
        (with(json!({"name": "v", "csi": {}})), &["spec.volumes[0].csi.driver: Required value", &driver]),
        (
            with(
                json!({"name": "v", "downwardAPI": {"items": [{"path": "/a", "fieldRef": {"fieldPath": "spec.nodeName"}}, {"path": "b"}]}}),
            ),
            &[
                "spec.volumes[0].downwardAPI.path: Invalid value: \"/a\": must be a relative path",
                "spec.volumes[0].downwardAPI.fieldRef.fieldPath: Unsupported value: \"spec.nodeName\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
                "spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
            ],
        ),
        (
            with(
                json!({"name": "v", "downwardAPI": {"items": [{"path": "a", "resourceFieldRef": {"resource": "limits.cpu"}}]}}),
            ),
            &["spec.volumes[0].downwardAPI.resourceFieldRef.containerName: Required value"],
        ),
        (
            with(
                json!({"name": "v", "projected": {"sources": [{"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}, "configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}}, {"serviceAccountToken": {}}]}}),
            ),
            &[
                "spec.volumes[0].projected: Invalid value: \"c\": conflicting duplicate paths",
                "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source",
                "spec.volumes[0].projected.path: Required value",
            ],
        ),
    ];
    creates(&client, PODS, &pod(json!({})), &rows).await;
}

#[tokio::test]
async fn what_pods_take_from_each_other() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let file = |volume: &str| json!({"name": "A", "valueFrom": {"fileKeyRef": {"key": "K", "volumeName": volume, "path": "f"}}});
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "volumeAttributesClassName": "", "resources": {"requests": {"storage": "1"}}}});
    let good = pod(json!({
        "volumes": [{"name": "e", "emptyDir": {}}, {"name": "m", "ephemeral": {"volumeClaimTemplate": claim}}, {"name": "i", "image": {"reference": "a:1"}}],
        "containers": [{"name": "c", "image": "i", "env": [file("e")], "envFrom": [{"configMapRef": {"name": "begins-"}}],
            "volumeMounts": [{"name": "i", "mountPath": "/i", "subPath": "part"}]}],
    }));
    let rows: [(Value, &[&str]); 2] = [
        (
            json!({"spec": {"containers": [{"name": "c", "image": "i", "env": [file("x"), {"name": "B", "valueFrom": {"fileKeyRef": {}}}]}]}}),
            &[
                "spec.containers[0].env[1].valueFrom.fileKeyRef.key: Required value",
                "spec.containers[0].env[1].valueFrom.fileKeyRef.volumeName: Required value",
                "spec.containers[0].env[1].valueFrom.fileKeyRef.path: Required value",
                "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: \"x\"",
                "spec.containers[0].env[1].valueFrom.fileKeyRef.volumeName: Not found: \"\"",
            ],
        ),
        (
            json!({"spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [
                {"name": "m", "ephemeral": {"volumeClaimTemplate": claim}},
                {"name": "i", "image": {}},
                {"name": "n", "persistentVolumeClaim": {"claimName": "a-m"}}]}}),
            &[
                "spec.volumes[2].persistentVolumeClaim.claimName: Invalid value: \"a-m\": must not reference a PVC that gets created for an ephemeral volume",
                "spec.volumes[1].image.reference: Required value",
            ],
        ),
    ];
    creates(&client, PODS, &good, &rows).await;
    let (_, made) = client.post(PODS, &good).await;
    assert_eq!(made["spec"]["volumes"][2]["image"], json!({"reference": "a:1", "pullPolicy": "IfNotPresent"}));
}

#[tokio::test]
async fn what_containers_take_from_outside() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let container = |fields: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        json_patch::merge(&mut container, &fields);
        json!({"spec": {"containers": [container]}})
    };
    let env = |from: Value| container(json!({"env": [{"name": "A", "valueFrom": from}]}));
    let map = format!("spec.containers[0].env[0].valueFrom.configMapKeyRef.name: Invalid value: \"\": {SUBDOMAIN}");
    let secret = format!("spec.containers[0].envFrom[0].secretRef.name: Invalid value: \"B_\": {SUBDOMAIN}");
    let key = format!("spec.containers[0].env[0].valueFrom.fieldRef: Invalid value: \"-\": {NAME_SHAPE}");
    let rows: [(Value, &[&str]); 15] = [
        (
            env(json!({"fieldRef": {"fieldPath": "status.phase"}})),
            &[
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
            ],
        ),
        (
            env(json!({"fieldRef": {"fieldPath": "spec.nonsense"}})),
            &[
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nonsense\": error converting fieldPath: field label not supported: spec.nonsense",
            ],
        ),
        (
            env(json!({"fieldRef": {"apiVersion": "v2", "fieldPath": "metadata.name"}})),
            &[
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.name\": error converting fieldPath: unsupported pod version: v2",
            ],
        ),
        (env(json!({"fieldRef": {"fieldPath": "metadata.labels['-']"}})), &[&key]),
        (
            env(json!({"resourceFieldRef": {"resource": "limits.x"}})),
            &[
                "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.x\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\"",
            ],
        ),
        (
            env(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}})),
            &[
                "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
            ],
        ),
        (env(json!({"configMapKeyRef": {"key": "k"}})), &[&map]),
        (container(json!({"envFrom": [{"secretRef": {"name": "B_"}}]})), &[&secret]),
        (
            container(json!({"envFrom": [{"prefix": "="}]})),
            &[
                "spec.containers[0].envFrom[0].prefix: Invalid value: \"=\": a valid environment variable name must consist only of printable ASCII characters other than '='",
                "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
            ],
        ),
        (
            container(json!({"volumeMounts": [{"mountPath": "/a", "subPath": "/b"}]})),
            &[
                "spec.containers[0].volumeMounts[0].name: Required value",
                "spec.containers[0].volumeMounts[0].name: Not found: \"\"",
                "spec.containers[0].volumeMounts.subPath: Invalid value: \"/b\": must be a relative path",
            ],
        ),
        (
            container(
                json!({"volumeMounts": [{"name": "e", "mountPath": "/a", "mountPropagation": "Bidirectional"}, {"name": "e", "mountPath": "/b", "mountPropagation": "x", "recursiveReadOnly": "Enabled"}]}),
            ),
            &[
                "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
                "spec.containers[0].volumeMounts.mountPropagation: Unsupported value: \"x\": supported values: \"Bidirectional\", \"HostToContainer\", \"None\"",
                "spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
                "spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified",
            ],
        ),
        (
            container(
                json!({"volumeDevices": [{"name": "e", "devicePath": "/a/.."}, {"name": "x", "devicePath": "/b"}]}),
            ),
            &[
                "spec.containers[0].volumeDevices[0].name: Invalid value: \"e\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                "spec.containers[0].volumeDevices[0].devicePath: Invalid value: \"/a/..\": can not contain backsteps ('..')",
                "spec.containers[0].volumeDevices[1].name: Not found: \"x\"",
            ],
        ),
        (
            container(json!({"livenessProbe": {"tcpSocket": {"port": ""}}})),
            &[
                "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: \"\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: \"\": must contain at least one letter (a-z)",
            ],
        ),
        (
            container(json!({"resources": {"requests": {"a.b/c": "1"}}})),
            &[
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
            ],
        ),
        (
            container(
                json!({"securityContext": {"seccompProfile": {"localhostProfile": "a"}, "appArmorProfile": {"type": "Localhost", "localhostProfile": " a"}}}),
            ),
            &[
                "spec.containers[0].securityContext.seccompProfile.type: Required value: type is required when seccompProfile is set",
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: {\"Type\":\"\",\"LocalhostProfile\":\"a\"}: can only be set when seccomp type is Localhost",
                "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Invalid value: \" a\": must not be padded with whitespace",
            ],
        ),
    ];
    let good = pod(
        json!({"volumes": [{"name": "e", "emptyDir": {}}], "imagePullSecrets": [{}], "terminationGracePeriodSeconds": -1}),
    );
    creates(&client, PODS, &good, &rows).await;
}

#[tokio::test]
async fn where_pods_run() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let empty = format!(
        "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: {NAME_EMPTY}"
    );
    let shape = format!(
        "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": {NAME_SHAPE}"
    );
    let namespace = format!(
        "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespace: Invalid value: \"B_\": {LABEL}"
    );
    let node = format!(
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].values[0]: Invalid value: \"B_\": {SUBDOMAIN}"
    );
    let fields = |field: Value| json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [field]}]}}}}});
    let spread = |more: Value| {
        let mut constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"});
        let first = constraint.clone();
        json_patch::merge(&mut constraint, &more);
        json!({"spec": {"topologySpreadConstraints": [constraint, first]}})
    };
    let rows: [(Value, &[&str]); 7] = [
        (
            json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["B_"]}]}}}}),
            &[
                &namespace,
                "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
                &empty,
                &shape,
            ],
        ),
        (fields(json!({"key": "metadata.name", "operator": "In", "values": ["B_"]})), &[&node]),
        (
            fields(json!({"key": "x", "operator": "Exists", "values": ["n"]})),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].operator: Invalid value: \"Exists\": not a valid selector operator",
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: Invalid value: \"x\": not a valid field selector key",
            ],
        ),
        (
            fields(json!({"key": "metadata.name", "operator": "NotIn", "values": ["a", "b"]})),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ],
        ),
        (
            spread(json!({"minDomains": 0})),
            &[
                "spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{zone, ScheduleAnyway}\"",
                "spec.topologySpreadConstraints[0].minDomains: Invalid value: 0: must be greater than zero",
                "spec.topologySpreadConstraints[0].minDomains: Invalid value: 0: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
            ],
        ),
        (
            spread(json!({"topologyKey": "host", "nodeTaintsPolicy": "x", "matchLabelKeys": ["a"]})),
            &[
                "spec.topologySpreadConstraints[0].nodeTaintsPolicy: Unsupported value: \"x\": supported values: \"Honor\", \"Ignore\"",
                "spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
            ],
        ),
        (
            json!({"spec": {"dnsPolicy": "None", "securityContext": {"sysctls": [{"name": "kernel.a-", "value": "1"}]}}}),
            &[
                "spec.securityContext.sysctls[0].name: Invalid value: \"kernel.a-\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
                "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            ],
        ),
    ];
    let good = pod(json!({"tolerations": [{"operator": "Exists", "effect": ""}]}));
    creates(&client, PODS, &good, &rows).await;
}

#[tokio::test]
async fn names_of_finalizers_and_owners() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let good = json!({"metadata": {"name": "a", "finalizers": ["x.io/y", "orphan"]}});
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true});
    let rows: [(Value, &[&str]); 4] = [
        (
            json!({"metadata": {"finalizers": ["x"]}}),
            &[
                "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified",
            ],
        ),
        (
            json!({"metadata": {"finalizers": ["orphan", "foregroundDeletion"]}}),
            &[
                "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set",
            ],
        ),
        (
            json!({"metadata": {"ownerReferences": [{"kind": "Event", "apiVersion": "v1", "uid": "u"}]}}),
            &[
                "metadata.ownerReferences.name: Invalid value: \"\": must not be empty",
                "metadata.ownerReferences: Invalid value: {\"apiVersion\":\"v1\",\"kind\":\"Event\",\"name\":\"\",\"uid\":\"u\"}: /v1, Kind=Event is disallowed from being an owner",
            ],
        ),
        (
            json!({"metadata": {"ownerReferences": [owner, {"apiVersion": "a/b/c", "kind": "Node", "name": "n", "uid": "v"}]}}),
            &["metadata.ownerReferences.apiVersion: Invalid value: \"a/b/c\": version must not be empty"],
        ),
    ];
    creates(&client, "/api/v1/namespaces/default/configmaps", &good, &rows).await;
    let namespace = json!({"metadata": {"name": "n"}});
    let finalizer =
        "spec.finalizers: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified";
    creates(&client, "/api/v1/namespaces", &namespace, &[(json!({"spec": {"finalizers": ["x"]}}), &[finalizer])]).await;
}

#[tokio::test]
async fn quotas_and_limits() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let scopes = "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource";
    let rows: [(Value, &[&str]); 4] = [
        (
            json!({"spec": {"hard": {"nonsense": "1", "pods": "1500m", "a.b/c": "-1"}}}),
            &[
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
                "spec.hard[nonsense]: Invalid value: \"nonsense\": must be a standard resource type or fully qualified",
                "spec.hard[nonsense]: Invalid value: \"nonsense\": must be a standard resource for quota",
                "spec.hard[a.b/c]: Invalid value: \"-1\": must be greater than or equal to 0",
            ],
        ),
        (json!({"spec": {"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}}), &[scopes]),
        (
            json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "BestEffort", "operator": "In"}]}}}),
            &[
                "spec.scopeSelector.matchExpressions.operator: Invalid value: \"In\": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ],
        ),
        (
            json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "x", "operator": "x"}]}}}),
            &[
                "spec.scopeSelector.matchExpressions.scopeName: Invalid value: \"x\": unsupported scope",
                "spec.scopeSelector.matchExpressions.operator: Invalid value: \"x\": not a valid selector operator",
            ],
        ),
    ];
    let good = json!({"metadata": {"name": "a"}, "spec": {"hard": {"pods": "1"}}});
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    creates(&client, quotas, &good, &rows).await;
    let change = json!({"spec": {"scopes": ["Terminating"]}});
    updates(
        &client,
        quotas,
        &good,
        &[],
        &[(change, &["spec.scopes: Invalid value: [\"Terminating\"]: field is immutable"])],
    )
    .await;
    let limit = |fields: Value| json!({"spec": {"limits": [fields]}});
    let rows: [(Value, &[&str]); 3] = [
        (
            limit(json!({"type": "Nonsense"})),
            &["spec.limits[0].type: Invalid value: \"Nonsense\": must be a standard limit type or fully qualified"],
        ),
        (
            limit(
                json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "600m"}, "maxLimitRequestRatio": {"cpu": "3"}}),
            ),
            &[
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"600m\": min value 1 is greater than default request value 600m",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"600m\": default request value 600m is greater than default limit value 500m",
                "spec.limits[0].default[cpu]: Invalid value: \"1\": min value 1 is greater than default value 500m",
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
            ],
        ),
        (
            limit(json!({"type": "Pod", "max": {"storage": "1"}})),
            &["spec.limits[0].max[storage]: Invalid value: \"storage\": must be a standard resource for containers"],
        ),
    ];
    let good = json!({"metadata": {"name": "a"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}});
    creates(&client, "/api/v1/namespaces/default/limitranges", &good, &rows).await;
}

#[tokio::test]
async fn small_kinds() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let host = format!("subsets[0].addresses[0].hostname: Invalid value: \"B_\": {LABEL}");
    let node = format!("subsets[0].addresses[0].nodeName: Invalid value: \"B_\": {SUBDOMAIN}");
    let port = format!("subsets[0].ports[0].name: Invalid value: \"B_\": {LABEL}");
    let good =
        json!({"metadata": {"name": "a"}, "subsets": [{"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 1}]}]});
    let wrong = json!({"subsets": [{"addresses": [{"ip": "x", "hostname": "B_", "nodeName": "B_"}], "ports": [{"name": "B_", "port": 1}]}]});
    let causes = [
        "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        &host,
        &node,
        "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address",
        &port,
    ];
    creates(&client, "/api/v1/namespaces/default/endpoints", &good, &[(wrong, &causes)]).await;
    let good = json!({"metadata": {"name": "a"}, "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{}"}});
    let rows: [(Value, &[&str]); 2] = [
        (
            json!({"stringData": {".dockerconfigjson": "x"}}),
            &[
                "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid character 'x' looking for beginning of value",
            ],
        ),
        (
            json!({"type": "kubernetes.io/ssh-auth", "stringData": {"ssh-privatekey": ""}}),
            &["data[ssh-privatekey]: Required value"],
        ),
    ];
    creates(&client, "/api/v1/namespaces/default/secrets", &good, &rows).await;
    let good = json!({"metadata": {"name": "a"}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let wrong = json!({"spec": {"taints": [{"key": "k"}]}, "status": {"capacity": {"pods": "1500m"}}});
    let causes = [
        "metadata.taints[0].effect: Required value",
        "status.capacity.pods: Invalid value: \"1500m\": must be an integer",
        "status.allocatable.pods: Invalid value: \"1500m\": must be an integer",
    ];
    creates(&client, "/api/v1/nodes", &good, &[(wrong, &causes)]).await;
    // An event's name is whatever can stand in a path.
    let event = json!({"metadata": {"name": "A_b"}, "involvedObject": {"namespace": "default"}});
    let (code, answer) = client.post("/api/v1/namespaces/default/events", &event).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
}

#[tokio::test]
async fn defaults_of_volumes_and_probes() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let volumes = json!([
        {"name": "a", "azureDisk": {"diskName": "d", "diskURI": "https://x"}},
        {"name": "i", "iscsi": {"targetPortal": "p", "iqn": "iqn.2015-02.example.com:a", "lun": 0}},
        {"name": "r", "rbd": {"monitors": ["m"], "image": "i"}},
        {"name": "s", "scaleIO": {"gateway": "g", "system": "s", "volumeName": "v", "secretRef": {"name": "s"}}},
    ]);
    let object = pod(json!({"volumes": volumes, "containers": [{"name": "c", "image": "i",
        "livenessProbe": {"exec": {"command": ["a"]}, "periodSeconds": 0, "successThreshold": 0},
        "env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}]}));
    let (code, made) = client.post(PODS, &object).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let volumes = &made["spec"]["volumes"];
    let azure = json!({"diskName": "d", "diskURI": "https://x", "cachingMode": "ReadWrite", "fsType": "ext4", "kind": "Shared", "readOnly": false});
    assert_eq!(volumes[0]["azureDisk"], azure);
    assert_eq!(volumes[1]["iscsi"]["iscsiInterface"], "default");
    assert_eq!(
        volumes[2]["rbd"],
        json!({"monitors": ["m"], "image": "i", "pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"})
    );
    assert_eq!(
        (&volumes[3]["scaleIO"]["storageMode"], &volumes[3]["scaleIO"]["fsType"]),
        (&"ThinProvisioned".into(), &"xfs".into())
    );
    let container = &made["spec"]["containers"][0];
    let probe = &container["livenessProbe"];
    assert_eq!((&probe["periodSeconds"], &probe["successThreshold"]), (&10.into(), &1.into()));
    assert_eq!(container["env"][0]["valueFrom"]["resourceFieldRef"]["divisor"], "0");
}

#[tokio::test]
async fn what_nodes_are() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.1.0.0/24", "fd00::/64"]}});
    let range = "may specify no more than one CIDR for each IP family";
    let rows: [(Value, &[&str]); 5] = [
        (
            json!({"spec": {"podCIDRs": ["10.1.0.0/24", "10.2.0.0/24"]}}),
            &[&format!("spec.podCIDRs: Invalid value: [\"10.1.0.0/24\",\"10.2.0.0/24\"]: {range}")],
        ),
        (
            json!({"spec": {"podCIDRs": ["10.1.0.9/24"]}}),
            &["spec.podCIDRs[0]: Invalid value: \"10.1.0.9/24\": must not have bits set beyond the prefix length"],
        ),
        (
            json!({"spec": {"taints": [{"key": "a", "value": "-", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]}}),
            &[
                "metadata.taints[0].value: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                "metadata.taints[1]: Duplicate value: {\"Key\":\"a\",\"Value\":\"\",\"Effect\":\"NoSchedule\",\"TimeAdded\":null}: taints must be unique by key and effect pair",
            ],
        ),
        (
            json!({"status": {"nodeInfo": {"swap": {"capacity": 0}}}}),
            &["metadata.nodeSwapStatus.capacity: Invalid value: 0: must be greater than zero"],
        ),
        (
            json!({"status": {"declaredFeatures": ["B", "A"]}}),
            &["status.declaredFeatures[1]: Invalid value: \"A\": list must be sorted alphabetically"],
        ),
    ];
    creates(&client, "/api/v1/nodes", &node, &rows).await;
    let fixed = "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid";
    updates(
        &client,
        "/api/v1/nodes",
        &node,
        &[json!({"spec": {"unschedulable": true}})],
        &[
            (json!({"spec": {"podCIDR": "10.9.0.0/24", "podCIDRs": ["10.9.0.0/24", "fd00::/64"]}}), &[fixed]),
            (json!({"spec": {"podCIDRs": ["10.1.0.0/24"]}}), &[fixed]),
            (json!({"spec": {"externalID": "x"}}), &["spec.externalID: Forbidden: may not be updated"]),
        ],
    )
    .await;
    let source =
        json!({"spec": {"configSource": {"configMap": {"name": "a", "namespace": "b", "kubeletConfigKey": "k"}}}});
    let (_, changed) = client.merge("/api/v1/nodes/n", &source).await;
    assert_eq!(changed["spec"].get("configSource"), None, "{changed}");
}

#[tokio::test]
async fn sizes_are_those_of_what_is_stored() {
    const MOST: usize = 1 << 20;
    let harness = Harness::start().await;
    let client = harness.admin();
    let base64 = |size: usize| format!("{}{}", "AAAA".repeat(size / 3), ["", "AA==", "AAA="][size % 3]);
    let (maps, secrets) = ("/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/secrets");
    for (path, field, at) in [(maps, "binaryData", "[]"), (secrets, "data", "data")] {
        for (size, code) in [(MOST, StatusCode::CREATED), (MOST + 1, StatusCode::UNPROCESSABLE_ENTITY)] {
            let object = json!({"metadata": {"name": format!("a{size}")}, field: {"a": base64(size)}});
            let (found, answer) = client.post(path, &object).await;
            assert_eq!(found, code, "{size}: {}", answer["message"]);
            if code != StatusCode::CREATED {
                let wanted = format!("{at}: Too long: may not be more than 1048576 bytes");
                assert_eq!(crate::validation::causes(&answer), [wanted]);
            }
        }
    }
}

#[tokio::test]
async fn what_replication_controllers_say() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let good = json!({"metadata": {"name": "r"}, "spec": {"selector": {"a": "b"}, "template": template}});
    creates(
        &client,
        path,
        &good,
        &[(
            json!({"spec": {"template": {"spec": {"activeDeadlineSeconds": 5}}}}),
            &["spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported"],
        )],
    )
    .await;
    assert_eq!(client.post(path, &good).await.0, StatusCode::CREATED);
    let (code, answer) = client.merge(&format!("{path}/r/status"), &json!({"status": {"readyReplicas": 1}})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let why = "status.readyReplicas: Invalid value: 1: cannot be greater than status.replicas";
    assert_eq!(crate::validation::causes(&answer), [why]);
}

#[tokio::test]
async fn what_budgets_say() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    // Upstream leaves the name to what every object's must be.
    let budget = json!({"metadata": {"name": "A_b"}, "spec": {"minAvailable": 1}});
    assert_eq!(client.post(path, &budget).await.0, StatusCode::CREATED);
    let bad = json!({"status": {"disruptionsAllowed": -1, "conditions": [{"type": "Ready", "status": "Yes", "reason": "A", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let (code, status) = client.merge(&format!("{path}/A_b/status"), &bad).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
    assert_eq!(
        crate::validation::causes(&status),
        [
            "status.conditions[0].status: Unsupported value: \"Yes\": supported values: \"False\", \"True\", \"Unknown\"",
            "status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0",
        ]
    );
}
