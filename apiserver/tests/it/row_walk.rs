//! Every row of the registry, the same way: discovery, create, get, list, table, watch, update, denial, dry run, delete.

use crate::harness::{Client, Harness};
use coracle_apiserver::UserInfo;
use coracle_apiserver::registry::{Registry, Row};
use http::StatusCode;
use serde_json::{Value, json};

/// The least object of a kind that is valid.
pub fn least(kind: &str) -> Value {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let workload = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template, "serviceName": "s"}});
    let mut object = match kind {
        "DaemonSet" | "Deployment" | "ReplicaSet" => {
            let mut object = workload;
            object["spec"].as_object_mut().unwrap().remove("serviceName");
            object
        }
        "StatefulSet" => workload,
        "ReplicationController" => json!({"spec": {"template": template}}),
        "PodTemplate" => json!({"template": template}),
        "Pod" => json!({"spec": template["spec"]}),
        "Job" => {
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}}})
        }
        "CronJob" => {
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}}}}})
        }
        "ControllerRevision" => json!({"data": {}, "revision": 1}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "Event" => json!({"involvedObject": {"namespace": "default"}}),
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": []}),
        "PersistentVolume" => {
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}})
        }
        "PersistentVolumeClaim" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        }
        "LimitRange" => json!({"spec": {"limits": []}}),
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}})
        }
        "CertificateSigningRequest" => {
            let (pem, _) = coracle_pki::request(&coracle_pki::Subject::user("x"), &[]).unwrap();
            use base64::Engine;
            json!({"spec": {"request": base64::engine::general_purpose::STANDARD.encode(pem), "signerName": "example.com/x", "usages": ["client auth"]}})
        }
        "Ingress" => json!({"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}}),
        "IngressClass" => json!({"spec": {"controller": "example.com/x"}}),
        "NetworkPolicy" => json!({"spec": {"podSelector": {}}}),
        "RuntimeClass" => json!({"handler": "x"}),
        "RoleBinding" | "ClusterRoleBinding" => {
            json!({"roleRef": {"kind": "ClusterRole", "name": "x", "apiGroup": "rbac.authorization.k8s.io"}})
        }
        "PriorityClass" => json!({"value": 5}),
        "StorageClass" => json!({"provisioner": "example.com/x"}),
        "VolumeAttributesClass" => json!({"driverName": "example.com", "parameters": {"a": "b"}}),
        "VolumeAttachment" => {
            json!({"spec": {"attacher": "x", "nodeName": "n", "source": {"persistentVolumeName": "v"}}})
        }
        "CSINode" => json!({"spec": {"drivers": []}}),
        "CSIStorageCapacity" => json!({"storageClassName": "x"}),
        "IPAddress" => json!({"spec": {"parentRef": {"resource": "services", "name": "x"}}}),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            json!({"webhooks": [{"name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"url": "https://127.0.0.1/x"}}]})
        }
        "ValidatingAdmissionPolicy" => {
            json!({"spec": {"matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]},
                "validations": [{"expression": "true"}]}})
        }
        "MutatingAdmissionPolicy" => {
            json!({"spec": {"reinvocationPolicy": "Never", "matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]},
                "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}]}})
        }
        "ValidatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "x", "validationActions": ["Deny"]}}),
        "MutatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "x"}}),
        "APIService" => {
            json!({"spec": {"group": "walked", "version": "v9", "groupPriorityMinimum": 1, "versionPriority": 1}})
        }
        "FlowSchema" => json!({"spec": {"priorityLevelConfiguration": {"name": "exempt"}}}),
        "PriorityLevelConfiguration" => {
            json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}})
        }
        "ResourceClaim" => {
            json!({"spec": {"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "c"}}]}}})
        }
        "ResourceClaimTemplate" => {
            json!({"spec": {"spec": {"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "c"}}]}}}})
        }
        "ResourceSlice" => {
            json!({"spec": {"driver": "d", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})
        }
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.200.0.0/24"]}}),
        _ => json!({}),
    };
    let name = match kind {
        "IPAddress" => "10.200.0.9",
        "APIService" => "v9.walked",
        _ => "walked",
    };
    object["metadata"] = json!({"name": name, "labels": {"walk": "yes"}});
    object
}

/// What hangs below an object: known to discovery, closed to who may not, and where it can be read it can be written back.
async fn subresources(row: &Row, served: usize, resources: &Value, path: &str, client: &Client, nobody: &Client) {
    let gvk = row.gvk(served);
    for subresource in &row.subresources {
        let name = format!("{}/{}", row.plural, subresource.path());
        let known = resources["resources"].as_array().unwrap().iter().find(|entry| entry["name"] == *name);
        let known = known.unwrap_or_else(|| panic!("{gvk}: {name} in discovery"));
        assert_eq!(known["verbs"], json!(subresource.verbs()), "{gvk}: {name}");
        assert_eq!(known["namespaced"], row.namespaced, "{gvk}: {name}");
        let below = format!("{path}/{}", subresource.path());
        let (code, answer) = nobody.get(&below).await;
        assert_eq!(code, StatusCode::FORBIDDEN, "{below}: {answer}");
        if subresource.verbs() != ["get", "patch", "update"] {
            continue;
        }
        let (code, got) = client.get(&below).await;
        assert_eq!(code, StatusCode::OK, "{below}: {got}");
        let kind = subresource.kind(&gvk.kind).unwrap_or(gvk.clone());
        assert_eq!((&got["kind"], &got["apiVersion"]), (&json!(*kind.kind), &json!(kind.api_version())), "{below}");
        let (code, same) = client.put(&below, &got).await;
        assert_eq!((code, &same), (StatusCode::OK, &got), "{below}: what was read can be written back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let nobody = harness.user(UserInfo::new("jane", &[]));
    for row in Registry::builtin().current().rows() {
        for served in 0..row.served.len() {
            let gvk = row.gvk(served);
            let base = if gvk.group.is_empty() {
                format!("/api/{}", gvk.version)
            } else {
                format!("/apis/{}/{}", gvk.group, gvk.version)
            };
            let (_, resources) = client.get(&base).await;
            let known = resources["resources"]
                .as_array()
                .unwrap()
                .iter()
                .find(|entry| entry["name"] == *row.plural)
                .unwrap_or_else(|| panic!("{gvk} in discovery"));
            assert_eq!(known["kind"], *gvk.kind);
            if !row.is_stored() {
                assert_eq!(known["verbs"], json!(row.verbs));
                continue;
            }
            if &*gvk.kind == "CustomResourceDefinition" {
                // The server itself writes these while they are walked: they have tests of their own.
                continue;
            }
            let collection = if row.namespaced {
                format!("{base}/namespaces/default/{}", row.plural)
            } else {
                format!("{base}/{}", row.plural)
            };
            let mut object = least(&gvk.kind);
            if &*gvk.group == "events.k8s.io" {
                object["regarding"] = object["involvedObject"].take();
                object.as_object_mut().unwrap().remove("involvedObject");
                let new = json!({"eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "r", "action": "a",
                    "reportingController": "c", "reportingInstance": "i"});
                object.as_object_mut().unwrap().extend(new.as_object().unwrap().clone());
            }
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let path = format!("{collection}/{name}");

            let (code, answer) = nobody.post(&collection, &object).await;
            assert_eq!(code, StatusCode::FORBIDDEN, "{gvk}: {answer}");
            let (code, answer) = client.post(&format!("{collection}?dryRun=All&fieldValidation=Strict"), &object).await;
            assert_eq!(code, StatusCode::CREATED, "{gvk}: {answer}");
            assert_eq!(client.get(&path).await.0, StatusCode::NOT_FOUND, "{gvk}");

            let (_, list) = client.get(&collection).await;
            assert_eq!(list["kind"], format!("{}List", gvk.kind));
            let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
            let mut watch = client.watch(&format!("{collection}?watch=1&resourceVersion={revision}")).await;

            let (code, made) = client.post(&collection, &object).await;
            assert_eq!(code, StatusCode::CREATED, "{gvk}: {made}");
            assert_eq!(
                (&made["kind"], made["apiVersion"].as_str().unwrap()),
                (&json!(*gvk.kind), gvk.api_version().as_str())
            );
            let (_, mut got) = client.get(&path).await;
            let is_told = &*gvk.kind == "FlowSchema";
            if is_told {
                // The server says of each whether its level is there.
                while got["status"]["conditions"].is_null() {
                    tokio::task::yield_now().await;
                    got = client.get(&path).await.1;
                }
            } else {
                assert_eq!(got, made, "{gvk}");
            }
            let (code, same) = client.put(&path, &got).await;
            assert_eq!((code, &same), (StatusCode::OK, &got), "{gvk}: what was read can be written back");
            subresources(row, served, &resources, &path, &client, &nobody).await;
            let (code, patched) = client.merge(&path, &json!({"metadata": {"annotations": {"a": "b"}}})).await;
            assert_eq!(code, StatusCode::OK, "{gvk}: {patched}");
            let (_, selected) = client
                .get(&format!("{collection}?labelSelector=walk%3Dyes&fieldSelector=metadata.name%3D{name}"))
                .await;
            assert_eq!(selected["items"].as_array().unwrap().len(), 1, "{gvk}");
            let (code, _) = client.delete(&format!("{path}?propagationPolicy=Background")).await;
            assert_eq!(code, StatusCode::OK, "{gvk}");
            let mut expected = vec!["ADDED", "MODIFIED", "DELETED"];
            if is_told {
                expected.insert(1, "MODIFIED");
            }
            if &*gvk.kind == "Pod" {
                // What can be given time is shown to go before it is gone.
                expected.insert(1, "MODIFIED");
            }
            if &*gvk.kind == "Namespace" {
                // It ends when the controller says that nothing is left in it.
                expected.insert(1, "MODIFIED");
                let (_, mut ending) = client.get(&path).await;
                ending["spec"] = json!({});
                assert_eq!(client.put(&format!("{path}/finalize"), &ending).await.0, StatusCode::OK);
            }
            if matches!(&*gvk.kind, "PersistentVolumeClaim" | "PersistentVolume") {
                // It goes when its controller says that nobody uses it.
                expected.insert(1, "MODIFIED");
                client.merge(&path, &json!({"metadata": {"finalizers": null}})).await;
            }
            assert_eq!(client.get(&path).await.0, StatusCode::NOT_FOUND, "{gvk}");
            for kind in expected {
                let frame = watch.next().await.unwrap();
                assert_eq!(
                    (frame["type"].as_str(), frame["object"]["apiVersion"].as_str()),
                    (Some(kind), Some(gvk.api_version().as_str())),
                    "{gvk}"
                );
            }
        }
    }
}
