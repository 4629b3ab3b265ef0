//! Defaults and checks of kinds, in upstream's words: what is sent, and every cause that comes back.

use crate::harness::{Client, Harness};
use http::StatusCode;
use serde_json::{Value, json};

pub fn causes(status: &Value) -> Vec<String> {
    let causes = status.pointer("/details/causes").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |cause: &Value, name: &str| cause[name].as_str().unwrap_or_default().to_owned();
    causes.iter().map(|cause| format!("{}: {}", text(cause, "field"), text(cause, "message"))).collect()
}

/// Makes the object without and with each of the changes: first all is well, then exactly these causes come back.
pub async fn creates(client: &Client, path: &str, good: &Value, rows: &[(Value, &[&str])]) {
    let (code, status) = client.post(&format!("{path}?dryRun=All"), good).await;
    assert_eq!(code, StatusCode::CREATED, "{status}");
    for (change, wanted) in rows {
        let mut object = good.clone();
        json_patch::merge(&mut object, change);
        let (code, status) = client.post(path, &object).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{change}: {status}");
        assert_eq!(causes(&status), *wanted, "{change}");
    }
}

/// Makes the object, and then changes it.
pub async fn updates(client: &Client, path: &str, object: &Value, fine: &[Value], rows: &[(Value, &[&str])]) {
    let (code, status) = client.post(path, object).await;
    assert_eq!(code, StatusCode::CREATED, "{status}");
    let one = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
    for change in fine {
        let (code, status) = client.merge(&one, change).await;
        assert_eq!(code, StatusCode::OK, "{change}: {status}");
    }
    for (change, wanted) in rows {
        let (code, status) = client.merge(&one, change).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{change}: {status}");
        assert_eq!(causes(&status), *wanted, "{change}");
    }
}

#[tokio::test]
async fn autoscalers() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let metric = |kind: &str, field: &str, source: Value| json!({"spec": {"metrics": [{"type": kind, field: source}]}});
    let good = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let rows: [(Value, &[&str]); 17] = [
        (
            json!({"spec": {"maxReplicas": 0, "minReplicas": 2}}),
            &[
                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            ],
        ),
        (
            json!({"spec": {"scaleTargetRef": {"kind": null, "name": "a/b"}}}),
            &[
                "spec.scaleTargetRef.kind: Required value",
                "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
            ],
        ),
        (
            json!({"spec": {"scaleTargetRef": {"apiVersion": "v1"}}}),
            &["spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group"],
        ),
        (
            json!({"spec": {"scaleTargetRef": {"apiVersion": "a/b/c"}}}),
            &["spec.scaleTargetRef.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"],
        ),
        (
            metric(
                "ContainerResource",
                "containerResource",
                json!({"name": "storage", "container": "C", "target": {"type": "Utilization", "averageUtilization": 1}}),
            ),
            &[
                "spec.metrics[0].containerResource.name: Invalid value: \"storage\": must be a standard resource for containers",
                "spec.metrics[0].containerResource.container: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
        (
            metric("Resource", "resource", json!({"name": "cpu", "target": {"type": "Utilization"}})),
            &[
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
            ],
        ),
        (
            metric(
                "Resource",
                "resource",
                json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 0, "averageValue": "1"}}),
            ),
            &[
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
                "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
            ],
        ),
        (
            metric("ContainerResource", "containerResource", json!({"target": {"type": "x", "averageUtilization": 1}})),
            &[
                "spec.metrics[0].containerResource.name: Required value: must specify a resource name",
                "spec.metrics[0].containerResource.container: Required value: must specify a container",
                "spec.metrics[0].containerResource.target.type: Invalid value: \"x\": must be either Utilization, Value, or AverageValue",
            ],
        ),
        (
            metric(
                "Pods",
                "pods",
                json!({"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "0"}}),
            ),
            &["spec.metrics[0].pods.target.averageValue: Invalid value: \"0\": must be positive"],
        ),
        (
            metric(
                "Object",
                "object",
                json!({"metric": {"name": ""}, "describedObject": {"kind": "Service", "name": "s"}, "target": {"type": "Value"}}),
            ),
            &[
                "spec.metrics[0].object.metric.name: Required value: must specify a metric name",
                "spec.metrics[0].object.target.averageValue: Required value: must set either a target value or averageValue",
            ],
        ),
        (
            metric(
                "External",
                "external",
                json!({"metric": {"name": "q"}, "target": {"type": "Value", "value": "1", "averageValue": "1"}}),
            ),
            &[
                "spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target",
            ],
        ),
        (
            metric(
                "Pods",
                "resource",
                json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 1}}),
            ),
            &[
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
                "spec.metrics[0].resource: Forbidden: must populate the given metric source only",
            ],
        ),
        (
            json!({"spec": {"metrics": [{"type": "Nonsense"}]}}),
            &[
                "spec.metrics[0].type: Unsupported value: \"Nonsense\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
            ],
        ),
        (
            json!({"spec": {"behavior": {"scaleUp": {"stabilizationWindowSeconds": 4000, "selectPolicy": "Most"}}}}),
            &[
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600",
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Most\": supported values: \"Disabled\", \"Max\", \"Min\"",
            ],
        ),
        (
            json!({"spec": {"behavior": {"scaleDown": {"policies": []}}}}),
            &["spec.behavior.scaleDown.policies: Required value: must specify at least one Policy"],
        ),
        (
            json!({"spec": {"behavior": {"scaleDown": {"policies": [{"type": "Half", "value": 0, "periodSeconds": 1801}]}}}}),
            &[
                "spec.behavior.scaleDown.policies[0].type: Unsupported value: \"Half\": supported values: \"Percent\", \"Pods\"",
                "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ],
        ),
        (
            json!({"spec": {"minReplicas": 0}}),
            &[
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
            ],
        ),
    ];
    creates(&client, path, &good, &rows).await;
    let mut full = good.clone();
    full["spec"]["behavior"] = json!({"scaleDown": {"stabilizationWindowSeconds": 5}});
    let (_, made) = client.post(path, &full).await;
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    assert_eq!(
        made["spec"]["behavior"]["scaleUp"],
        json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, percent]})
    );
    assert_eq!(
        made["spec"]["behavior"]["scaleDown"],
        json!({"stabilizationWindowSeconds": 5, "selectPolicy": "Max", "policies": [percent]})
    );
}

#[tokio::test]
async fn services() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/api/v1/namespaces/default/services";
    let good = json!({"metadata": {"name": "a"}, "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}});
    const NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let rows: [(Value, &[&str]); 22] = [
        (
            json!({"spec": {"type": "ExternalName", "ipFamilies": ["IPv4"]}}),
            &[
                "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
                "spec.externalName: Required value",
            ],
        ),
        (
            json!({"spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.8"]}}),
            &["spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: first value must match `clusterIP`"],
        ),
        (
            json!({"spec": {"clusterIPs": ["10.96.0.8"]}}),
            &["spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: must be empty when `clusterIP` is not specified"],
        ),
        (
            json!({"spec": {"clusterIP": "None", "clusterIPs": ["None", "10.96.0.8"]}}),
            &["spec.clusterIPs: Invalid value: [\"None\",\"10.96.0.8\"]: 'None' must be the first and only value"],
        ),
        (
            json!({"metadata": {"labels": {"a": "b c"}}, "spec": {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8", "10.96.0.9", "10.96.0.10"], "ports": null}}),
            &[
                "spec.clusterIPs: Invalid value: [\"10.96.0.8\",\"10.96.0.9\",\"10.96.0.10\"]: may only hold up to 2 values",
                "spec.clusterIPs: Invalid value: [\"10.96.0.8\",\"10.96.0.9\",\"10.96.0.10\"]: may specify no more than one IP for each IP family",
            ],
        ),
        (
            json!({"spec": {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8", "fd00::8"]}}),
            &[
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified",
                "spec.clusterIPs[1]: Invalid value: [\"10.96.0.8\",\"fd00::8\"]: IPv6 is not configured on this cluster",
            ],
        ),
        (
            json!({"spec": {"clusterIP": "fd00::8"}}),
            &["spec.clusterIPs[0]: Invalid value: [\"fd00::8\"]: IPv6 is not configured on this cluster"],
        ),
        (
            json!({"spec": {"clusterIP": "fd00::8", "ipFamilies": ["IPv4", "IPv4"]}}),
            &[
                "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
                "spec.clusterIPs[0]: Invalid value: \"fd00::8\": expected an IPv4 value as indicated by `ipFamilies[0]`",
            ],
        ),
        (
            json!({"spec": {"clusterIP": "::ffff:10.96.0.8", "ipFamilies": ["IPv6"]}}),
            &["spec.clusterIPs[0]: Invalid value: \"::ffff:10.96.0.8\": must not be an IPv4-mapped IPv6 address"],
        ),
        (
            json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}}),
            &[
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ],
        ),
        (
            json!({"spec": {"ipFamilies": ["IPv6"]}}),
            &["spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"],
        ),
        (
            json!({"spec": {"ipFamilies": ["IPv4", "IPv6"]}}),
            &[
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
            ],
        ),
        (
            json!({"spec": {"ipFamilies": ["IPv5"], "ipFamilyPolicy": "Some"}}),
            &[
                "spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"",
                "spec.ipFamilyPolicy: Unsupported value: \"Some\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"",
            ],
        ),
        (
            json!({"spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}}),
            &[
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400",
            ],
        ),
        (
            json!({"spec": {"externalTrafficPolicy": "Local"}}),
            &[
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ],
        ),
        (
            json!({"spec": {"healthCheckNodePort": 30000}}),
            &[
                "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            ],
        ),
        (
            json!({"spec": {"loadBalancerClass": "", "loadBalancerSourceRanges": ["10.0.0.0/8"]}}),
            &[
                "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ],
        ),
        (
            json!({"spec": {"type": "LoadBalancer", "loadBalancerSourceRanges": [" 10.0.0.0 "], "ports": [{"port": 10250}]}}),
            &[
                "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        ),
        (
            json!({"spec": {"trafficDistribution": "Near"}}),
            &[
                "spec.trafficDistribution: Unsupported value: \"Near\": supported values: \"PreferClose\", \"PreferSameZone\", \"PreferSameNode\"",
            ],
        ),
        (
            json!({"spec": {"externalIPs": ["127.0.0.1", "x"]}}),
            &[
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "spec.externalIPs[1]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        ),
        (
            json!({"spec": {"type": "NodePort", "clusterIP": "None"}}),
            &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        ),
        (
            json!({"spec": {"type": "Other", "clusterIP": "None", "sessionAffinity": "Some", "ports": [{"port": 80, "name": "a", "nodePort": 30080}, {"port": 80, "name": "b", "nodePort": 30080, "targetPort": 70000, "appProtocol": "a b"}]}}),
            &[
                "spec.ports[1].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                &format!("spec.ports[1].appProtocol: Invalid value: \"a b\": {NAME}"),
                "spec.sessionAffinity: Unsupported value: \"Some\": supported values: \"ClientIP\", \"None\"",
                "spec.type: Unsupported value: \"Other\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                "spec.ports[1].nodePort: Duplicate value: 30080",
                "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
            ],
        ),
    ];
    creates(&client, path, &good, &rows).await;
    let headless = json!({"metadata": {"name": "free"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    let (code, made) = client.post(path, &headless).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(
        (&made["spec"]["ipFamilies"], &made["spec"]["ipFamilyPolicy"]),
        (&json!(["IPv4", "IPv6"]), &json!("RequireDualStack"))
    );
    let mut prefer = good.clone();
    prefer["metadata"]["name"] = "prefer".into();
    prefer["spec"]["ipFamilyPolicy"] = "PreferDualStack".into();
    let (_, made) = client.post(path, &prefer).await;
    assert_eq!(
        (&made["spec"]["ipFamilies"], made["spec"]["clusterIPs"].as_array().map(Vec::len)),
        (&json!(["IPv4"]), Some(1))
    );
    let balanced = json!({"metadata": {"name": "b"}, "spec": {"type": "LoadBalancer", "loadBalancerClass": "x/y", "ports": [{"port": 80}]}});
    updates(
        &client,
        path,
        &balanced,
        &[json!({"spec": {"externalTrafficPolicy": "Local"}})],
        &[
            (
                json!({"spec": {"loadBalancerClass": "x/z"}}),
                &["spec.loadBalancerClass: Invalid value: \"x/z\": may not change once set"],
            ),
            (
                json!({"spec": {"clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"]}}),
                &["spec.clusterIPs[0]: Invalid value: [\"10.96.7.7\"]: may not change once set"],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn volumes_and_claims() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/api/v1/persistentvolumes";
    let good = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data"}}});
    let rows: [(Value, &[&str]); 10] = [
        (
            json!({"spec": {"accessModes": null, "hostPath": null}}),
            &["spec.accessModes: Required value", "spec: Required value: must specify a volume type"],
        ),
        (
            json!({"spec": {"accessModes": ["ReadWriteOncePod", "ReadOnlyMany"]}}),
            &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        ),
        (
            json!({"spec": {"capacity": {"storage": "0"}}}),
            &["spec.capacity[storage]: Invalid value: \"0\": must be greater than zero"],
        ),
        (
            json!({"spec": {"capacity": {"cpu": "1"}}}),
            &["spec.capacity: Unsupported value: {\"cpu\":\"1\",\"storage\":\"1Gi\"}: supported values: \"storage\""],
        ),
        (
            json!({"spec": {"nfs": {"server": "", "path": "x"}}}),
            &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            json!({"spec": {"hostPath": null, "nfs": {"server": "", "path": "x"}}}),
            &["spec.nfs.server: Required value", "spec.nfs.path: Invalid value: \"x\": must be an absolute path"],
        ),
        (
            json!({"spec": {"hostPath": {"path": "/a/../b"}}}),
            &["spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
        ),
        (
            json!({"spec": {"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"}}),
            &["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"],
        ),
        (
            json!({"spec": {"hostPath": null, "local": {"path": "/x"}}}),
            &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        ),
        (
            json!({"spec": {"hostPath": null, "csi": {"driver": "Bad_Name", "volumeHandle": ""}, "volumeAttributesClassName": ""}}),
            &[
                "spec.csi.driver: Invalid value: \"bad_name\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "spec.csi.volumeHandle: Required value",
                "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
            ],
        ),
    ];
    creates(&client, path, &good, &rows).await;
    updates(
        &client,
        path,
        &good,
        &[
            json!({"spec": {"capacity": {"storage": "2Gi"}}}),
            json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
        ],
        &[
            (
                json!({"spec": {"hostPath": {"path": "/other"}}}),
                &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
            ),
            (json!({"spec": {"volumeMode": "Block"}}), &["volumeMode: Invalid value: \"Block\": field is immutable"]),
        ],
    )
    .await;

    let path = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}});
    let rows: [(Value, &[&str]); 5] = [
        (
            json!({"spec": {"accessModes": [], "resources": null}}),
            &[
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ],
        ),
        (
            json!({"spec": {"selector": {"matchLabels": {"-": "x"}}}}),
            &[
                "spec.selector.matchLabels: Invalid value: \"-\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ],
        ),
        (
            json!({"spec": {"dataSourceRef": {"kind": "Pod", "name": "p"}}}),
            &[
                "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                "spec.dataSourceRef: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            ],
        ),
        (
            json!({"spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "p"}, "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "q"}}}),
            &["spec: Invalid value: {}: must match dataSourceRef"],
        ),
        (
            json!({"spec": {"volumeMode": "Tape"}}),
            &["spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\""],
        ),
    ];
    creates(&client, path, &claim, &rows).await;
    const FIXED: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    updates(
        &client,
        path,
        &claim,
        &[json!({"spec": {"storageClassName": "fast"}}), json!({"spec": {"volumeName": "v"}})],
        &[
            (json!({"spec": {"volumeName": "w"}}), &[FIXED]),
            (json!({"spec": {"storageClassName": "slow"}}), &[FIXED]),
            (json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}}), &[FIXED]),
        ],
    )
    .await;
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "2Gi"}}});
    assert_eq!(client.merge(&format!("{path}/c/status"), &bound).await.0, StatusCode::OK);
    let (code, status) =
        client.merge(&format!("{path}/c"), &json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}})).await;
    assert_eq!(code, StatusCode::OK, "{status}");
    let negative = json!({"status": {"capacity": {"storage": "-1"}}});
    let (_, status) = client.merge(&format!("{path}/c/status"), &negative).await;
    assert_eq!(causes(&status), ["status.capacity[storage]: Invalid value: -1: must be a valid resource quantity"]);
    let annotated = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "x"}}});
    let (_, status) = client.merge(&format!("{path}/c"), &annotated).await;
    assert_eq!(
        causes(&status),
        ["metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: \"x\": field is immutable"]
    );
    let (_, status) =
        client.merge(&format!("{path}/c"), &json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}})).await;
    assert_eq!(
        causes(&status),
        ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
    );
}

#[tokio::test]
async fn storage_and_runtime_classes() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let base = "/apis/storage.k8s.io/v1";
    let class = json!({"metadata": {"name": "s"}, "provisioner": "example.com/p", "parameters": {"a": "b"}});
    creates(&client, &format!("{base}/storageclasses"), &class, &[
        (json!({"provisioner": "a/b/c", "reclaimPolicy": "Recycle"}),
            &["provisioner: Invalid value: \"a/b/c\": a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
              "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\""]),
        (json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": []}, {"key": "zone", "values": ["a", "a"]}]}]}),
            &["allowedTopologies[0].matchLabelExpressions[0].values: Required value",
              "allowedTopologies[0].matchLabelExpressions[1].values[1]: Duplicate value: \"a\"",
              "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"zone\""]),
        (json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "a b", "values": ["x", "x"]}]}]}),
            &["allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"x\"",
              "allowedTopologies[0].matchLabelExpressions[0].key: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"]),
        (json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "a", "values": ["b", "c"]}]}, {"matchLabelExpressions": [{"key": "a", "values": ["c", "b"]}]}, {}]}),
            &["allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
              "allowedTopologies[2].matchLabelExpressions: Duplicate value: \"\"",
              "allowedTopologies[2].matchLabelExpressions: Duplicate value: \"\"",
              "allowedTopologies[2].matchLabelExpressions: Duplicate value: \"\""]),
    ]).await;
    updates(
        &client,
        &format!("{base}/storageclasses"),
        &class,
        &[json!({"allowVolumeExpansion": true})],
        &[
            (
                json!({"parameters": {"a": "c"}, "provisioner": "x"}),
                &[
                    "parameters: Forbidden: updates to parameters are forbidden.",
                    "provisioner: Forbidden: updates to provisioner are forbidden.",
                ],
            ),
            (
                json!({"volumeBindingMode": "WaitForFirstConsumer"}),
                &["volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable"],
            ),
        ],
    )
    .await;
    let driver = json!({"metadata": {"name": "d.example.com"}, "spec": {}});
    creates(&client, &format!("{base}/csidrivers"), &driver, &[
        (json!({"spec": {"fsGroupPolicy": "x", "volumeLifecycleModes": ["y"], "tokenRequests": [{"audience": "a"}, {"audience": "a", "expirationSeconds": 5}]}}),
            &["spec.fsGroupPolicy: Unsupported value: \"x\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
              "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
              "spec.volumeLifecycleModes: Unsupported value: \"y\": supported values: \"Persistent\", \"Ephemeral\""]),
    ]).await;
    updates(
        &client,
        &format!("{base}/csidrivers"),
        &driver,
        &[json!({"spec": {"podInfoOnMount": true}})],
        &[(
            json!({"spec": {"attachRequired": false}}),
            &["spec.attachedRequired: Invalid value: false: field is immutable"],
        )],
    )
    .await;
    let node =
        json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "d", "nodeID": "1", "topologyKeys": ["a"]}]}});
    creates(&client, &format!("{base}/csinodes"), &node, &[
        (json!({"spec": {"drivers": [{"name": "d", "nodeID": "", "topologyKeys": null}, {"name": "d", "nodeID": "2", "topologyKeys": ["a", "a"]}]}}),
            &["spec.drivers[0].nodeID: Required value", "spec.drivers[1].name: Duplicate value: \"d\"", "spec.drivers[1]: Duplicate value: \"a\""]),
    ]).await;
    updates(&client, &format!("{base}/csinodes"), &node, &[], &[
        (json!({"spec": {"drivers": [{"name": "d", "nodeID": "2", "topologyKeys": ["a"]}]}}),
            &["spec.drivers: Invalid value: {\"Name\":\"d\",\"NodeID\":\"2\",\"TopologyKeys\":[\"a\"],\"Allocatable\":null}: field is immutable"]),
    ]).await;
    let attachment = json!({"metadata": {"name": "a"}, "spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
    creates(
        &client,
        &format!("{base}/volumeattachments"),
        &attachment,
        &[(
            json!({"spec": {"attacher": "", "source": {"persistentVolumeName": null}}}),
            &[
                "spec.attacher: Required value",
                "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                "spec.attacher: Required value",
                "spec.attacher: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ],
        )],
    )
    .await;
    updates(
        &client,
        &format!("{base}/volumeattachments"),
        &attachment,
        &[],
        &[(json!({"spec": {"nodeName": "other"}}), &["spec: Invalid value: {\"attacher\":\"d\",\"nodeName\":\"other\",\"source\":{\"persistentVolumeName\":\"v\"}}: field is immutable"])],
    )
    .await;
    let failed = json!({"status": {"attachError": {"message": "x".repeat(1025), "errorCode": -1}}});
    let (code, status) = client.merge(&format!("{base}/volumeattachments/a/status"), &failed).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
    assert_eq!(
        causes(&status),
        [
            "status.attachError.message: Too long: may not be more than 262144 bytes",
            "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive"
        ]
    );
    let attributes = json!({"metadata": {"name": "a"}, "driverName": "d", "parameters": {"a": "b"}});
    creates(
        &client,
        &format!("{base}/volumeattributesclasses"),
        &attributes,
        &[(json!({"parameters": null}), &["parameters: Required value: must contain at least one key/value pair"])],
    )
    .await;
    updates(
        &client,
        &format!("{base}/volumeattributesclasses"),
        &attributes,
        &[],
        &[(json!({"driverName": "e"}), &["driverName: Forbidden: updates to driverName are forbidden."])],
    )
    .await;
    let capacity = json!({"metadata": {"name": "c"}, "storageClassName": "s", "capacity": "1Gi"});
    creates(&client, &format!("{base}/namespaces/default/csistoragecapacities"), &capacity, &[
        (json!({"capacity": "-1", "storageClassName": "S"}), &["storageClassName: Invalid value: \"S\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "capacity: Invalid value: \"-1\": must be greater than or equal to 0"]),
    ]).await;
    let runtime = json!({"metadata": {"name": "r"}, "handler": "runc"});
    creates(
        &client,
        "/apis/node.k8s.io/v1/runtimeclasses",
        &runtime,
        &[(
            json!({"handler": "a.b", "overhead": {"podFixed": {"cpu": "-1"}}}),
            &[
                "handler: Invalid value: \"a.b\": must not contain dots",
                "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            ],
        )],
    )
    .await;
    updates(
        &client,
        "/apis/node.k8s.io/v1/runtimeclasses",
        &runtime,
        &[],
        &[(json!({"handler": "other"}), &["handler: Invalid value: \"other\": field is immutable"])],
    )
    .await;
}

#[tokio::test]
async fn endpoints_lead_nowhere_special() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let slice = json!({"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.1.1"]}], "ports": [{"port": 80}]});
    creates(&client, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice, &[
        (json!({"endpoints": [{"addresses": ["127.0.0.1", "fd00::1", "169.254.1.1"], "hostname": "A"}]}),
            &["endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
              "endpoints[0].addresses[1]: Invalid value: \"fd00::1\": must be an IPv4 address",
              "endpoints[0].addresses[2]: Invalid value: \"169.254.1.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
              "endpoints[0].hostname: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"]),
        (json!({"addressType": "FQDN", "endpoints": [{"addresses": ["single"]}]}),
            &["endpoints[0].addresses[0]: Invalid value: \"single\": should be a domain with at least two segments separated by dots"]),
        (json!({"ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]}), &["ports[1].name: Duplicate value: \"a\""]),
    ]).await;
    let endpoints =
        json!({"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": "10.1.1.1"}], "ports": [{"port": 80}]}]});
    creates(&client, "/api/v1/namespaces/default/endpoints", &endpoints, &[
        (json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}]}]}),
            &["subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"]),
    ]).await;
}

#[tokio::test]
async fn what_is_immutable_stays() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "1"}, "immutable": true});
    const WHY: &str = "Forbidden: field is immutable when `immutable` is set";
    let (data, flag, binary) = (format!("data: {WHY}"), format!("immutable: {WHY}"), format!("binaryData: {WHY}"));
    updates(
        &client,
        "/api/v1/namespaces/default/configmaps",
        &map,
        &[json!({"metadata": {"labels": {"a": "b"}}})],
        &[
            (json!({"data": {"a": "2"}, "immutable": false}), &[&flag, &data]),
            (json!({"binaryData": {"b": "MQ=="}}), &[&binary]),
        ],
    )
    .await;
    let secret = json!({"metadata": {"name": "s"}, "data": {"a": "MQ=="}, "immutable": true, "type": "x/y"});
    updates(
        &client,
        "/api/v1/namespaces/default/secrets",
        &secret,
        &[],
        &[
            (json!({"type": "x/z"}), &["type: Invalid value: \"x/z\": field is immutable"]),
            (json!({"data": {"a": "Mg=="}}), &[&data]),
        ],
    )
    .await;
}

#[tokio::test]
async fn pods() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/api/v1/namespaces/default/pods";
    let good = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let volumes = |volume: Value| json!({"spec": {"volumes": [volume]}});
    let container = |more: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        json_patch::merge(&mut container, &more);
        json!({"spec": {"containers": [container]}})
    };
    let rows: [(Value, &[&str]); 13] = [
        (
            json!({"spec": {"os": {"name": "plan9"}}}),
            &["spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""],
        ),
        (
            json!({"spec": {"dnsPolicy": "None"}}),
            &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
        ),
        (
            json!({"spec": {"dnsConfig": {"nameservers": ["1.1.1.1", "x", "1.1.1.2", "1.1.1.3"], "options": [{"value": "1"}]}}}),
            &[
                "spec.dnsConfig.nameservers: Invalid value: [\"1.1.1.1\",\"x\",\"1.1.1.2\",\"1.1.1.3\"]: must not have more than 3 nameservers",
                "spec.dnsConfig.nameservers[1]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "spec.dnsConfig.options[0]: Required value: must not be empty",
            ],
        ),
        (
            json!({"spec": {"readinessGates": [{"conditionType": ""}]}}),
            &[
                "spec.readinessGates[0].conditionType: Invalid value: \"\": name part must be non-empty",
                "spec.readinessGates[0].conditionType: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ],
        ),
        (
            json!({"spec": {"securityContext": {"runAsUser": -1, "seccompProfile": {"type": "Localhost"}, "fsGroupChangePolicy": "Never"}}}),
            &[
                "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"Never\": supported values: \"Always\", \"OnRootMismatch\"",
                "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            ],
        ),
        (
            json!({"spec": {"securityContext": {"sysctls": [{"name": "a/b", "value": "1"}, {"name": "a/b", "value": "2"}, {"name": "A", "value": "3"}]}}}),
            &[
                "spec.securityContext.sysctls[1].name: Duplicate value: \"a/b\"",
                "spec.securityContext.sysctls[2].name: Invalid value: \"A\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            ],
        ),
        (
            container(
                json!({"securityContext": {"procMount": "Half", "appArmorProfile": {"type": "Unconfined", "localhostProfile": "x"}}}),
            ),
            &[
                "spec.containers[0].securityContext.procMount: Unsupported value: \"Half\": supported values: \"Default\", \"Unmasked\"",
                "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Invalid value: \"x\": can only be set when AppArmor type is Localhost",
            ],
        ),
        (
            container(json!({"volumeDevices": [{"name": "", "devicePath": ""}]})),
            &[
                "spec.containers[0].volumeDevices[0].name: Required value",
                "spec.containers[0].volumeDevices[0].name: Not found: \"\"",
                "spec.containers[0].volumeDevices[0].devicePath: Required value",
            ],
        ),
        (
            volumes(json!({"name": "e", "ephemeral": {}})),
            &["spec.volumes[0].ephemeral.volumeClaimTemplate: Required value"],
        ),
        (
            volumes(json!({"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["Some"]}}}})),
            &[
                "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Unsupported value: \"Some\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
            ],
        ),
        (
            volumes(
                json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "", "expirationSeconds": 5}}]}}),
            ),
            &[
                "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                "spec.volumes[0].projected.path: Required value",
            ],
        ),
        (
            volumes(json!({"name": "c", "csi": {"driver": ""}})),
            &[
                "spec.volumes[0].csi.driver: Required value",
                "spec.volumes[0].csi.driver: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ],
        ),
        (
            container(json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}})),
            &[
                "spec.containers[0].securityContext: Invalid value: {\"Capabilities\":null,\"Privileged\":true,\"SELinuxOptions\":null,\"WindowsOptions\":null,\"RunAsUser\":null,\"RunAsGroup\":null,\"RunAsNonRoot\":null,\"ReadOnlyRootFilesystem\":null,\"AllowPrivilegeEscalation\":false,\"ProcMount\":null,\"SeccompProfile\":null,\"AppArmorProfile\":null}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ],
        ),
    ];
    creates(&client, path, &good, &rows).await;
}
