//! Checks and defaults of what runs pods, and of roles. The words and their order are those that kube-apiserver
//! answered the same requests with (1.20), but where its source has changed since (1.34: templates of StatefulSets).

use crate::harness::Harness;
use crate::validation::{causes, creates, updates};
use http::StatusCode;
use serde_json::{Value, json};

fn pod() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn workload(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": pod()}})
}

const NO_MATCH: &str =
    "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`";
const BAD_KEY: &str = "spec.selector.matchExpressions[0].operator: Invalid value: \"X\": not a valid selector operator";

#[tokio::test]
async fn stateful_sets() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/apps/v1/namespaces/default/statefulsets";
    let mut good = workload("a");
    good["spec"]["serviceName"] = "s".into();
    // What is mounted can be a claim of the set's own, and a name and domain of the template count for nothing.
    good["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "d", "mountPath": "/d"}]);
    good["spec"]["template"]["spec"]["hostname"] = "Not_A_Label".into();
    good["spec"]["template"]["spec"]["volumes"] = json!([{"name": "d"}]);
    good["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "d"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    let rows: [(Value, &[&str]); 9] = [
        (
            json!({"spec": {"volumeClaimTemplates": null, "template": {"spec": {"volumes": null, "hostname": null}}}}),
            &["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"d\""],
        ),
        (json!({"metadata": {"name": "a.b"}}), &["metadata.name: Invalid value: \"a.b\": must not contain dots"]),
        (
            json!({"spec": {"podManagementPolicy": "Some", "updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}}),
            &[
                "spec.podManagementPolicy: Invalid value: \"Some\": must be 'OrderedReady' or 'Parallel'",
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":1,\"MaxUnavailable\":null}: only allowed for updateStrategy 'RollingUpdate'",
            ],
        ),
        (
            json!({"spec": {"updateStrategy": {"type": "Late"}}}),
            &[
                "spec.updateStrategy: Invalid value: {\"Type\":\"Late\",\"RollingUpdate\":null}: must be 'RollingUpdate' or 'OnDelete'",
            ],
        ),
        (
            json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": -1, "maxUnavailable": 0}}, "replicas": -1, "minReadySeconds": -1, "ordinals": {"start": -1}}}),
            &[
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Keep"}, "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}]}}),
            &[
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\": supported values: \"Retain\", \"Delete\"",
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
            ],
        ),
        (
            json!({"spec": {"serviceName": "S_", "selector": {"matchLabels": null}}}),
            &[
                "spec.serviceName: Invalid value: \"S_\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                "spec.selector: Invalid value: {}: empty selector is invalid for statefulset",
            ],
        ),
        (
            json!({"spec": {"selector": null, "template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 5}}}}),
            &[
                "spec.selector: Required value",
                NO_MATCH,
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
            ],
        ),
        (
            json!({"spec": {"selector": {"matchExpressions": [{"key": "app", "operator": "X"}]}}}),
            &[
                BAD_KEY,
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\"},\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"X\"}]}",
            ],
        ),
    ];
    creates(&client, path, &good, &rows).await;
    const FORBIDDEN: &str = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    let fine = [json!({"spec": {"replicas": 3, "revisionHistoryLimit": 2}})];
    let rows: [(Value, &[&str]); 2] = [
        (json!({"spec": {"serviceName": "t"}}), &[FORBIDDEN]),
        (json!({"spec": {"podManagementPolicy": "Parallel"}}), &[FORBIDDEN]),
    ];
    updates(&client, path, &good, &fine, &rows).await;
    let status = json!({"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": -1, "collisionCount": 2}});
    let (code, answer) = client.merge(&format!("{path}/a/status"), &status).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        causes(&answer),
        [
            "status.availableReplicas: Invalid value: -1: must be greater than or equal to 0",
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
        ]
    );
    let (code, _) = client.merge(&format!("{path}/a/status"), &json!({"status": {"collisionCount": 2}})).await;
    assert_eq!(code, StatusCode::OK);
    let (_, answer) = client.merge(&format!("{path}/a/status"), &json!({"status": {"collisionCount": null}})).await;
    assert_eq!(causes(&answer), ["status.collisionCount: Invalid value: 0: cannot be decremented"]);
}

#[tokio::test]
async fn deployments_and_replica_sets() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let good = workload("a");
    let rows: [(Value, &[&str]); 7] = [
        (
            json!({"spec": null}),
            &[
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
                "spec.template.spec.containers: Required value",
            ],
        ),
        (
            json!({"spec": {"template": {"metadata": {"labels": {"app": "b"}}, "spec": {"containers": [], "activeDeadlineSeconds": 1}}}}),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`",
                "spec.template.spec.containers: Required value",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
            ],
        ),
        (
            json!({"spec": {"selector": {"matchLabels": null, "matchExpressions": [{"key": "app", "operator": "X"}]}}}),
            &[
                BAD_KEY,
                "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"X\"}]}: invalid label selector",
            ],
        ),
        (
            json!({"spec": {"strategy": {"type": "Soon", "rollingUpdate": {"maxSurge": "10%"}}}}),
            &[
                "spec.strategy: Unsupported value: {\"Type\":\"Soon\",\"RollingUpdate\":{\"MaxUnavailable\":0,\"MaxSurge\":\"10%\"}}: supported values: \"Recreate\", \"RollingUpdate\"",
            ],
        ),
        (
            json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": "x", "maxSurge": 0}}}}),
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"x\": may not be 0 when `maxSurge` is 0",
            ],
        ),
        (
            json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}, "minReadySeconds": -1, "progressDeadlineSeconds": -1}}),
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.progressDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.progressDeadlineSeconds: Invalid value: -1: must be greater than minReadySeconds",
            ],
        ),
        (
            json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {}}}}),
            &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
        ),
    ];
    creates(&client, deployments, &good, &rows).await;
    let (_, made) = client.post(deployments, &good).await;
    assert_eq!(made["status"], json!({}), "a status is there even when it says nothing");
    for (status, wanted) in [
        (
            json!({"updatedReplicas": 1}),
            "status.updatedReplicas: Invalid value: 1: cannot be greater than status.replicas",
        ),
        (
            json!({"unavailableReplicas": -1}),
            "status.unavailableReplicas: Invalid value: -1: must be greater than or equal to 0",
        ),
    ] {
        let (_, answer) = client.merge(&format!("{deployments}/a/status"), &json!({"status": status})).await;
        assert_eq!(causes(&answer), [wanted]);
    }
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let rows: [(Value, &[&str]); 1] = [(
        json!({"spec": {"selector": {"matchLabels": null}}}),
        // Upstream says so of both kinds.
        &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
    )];
    creates(&client, sets, &good, &rows).await;
    let rows: [(Value, &[&str]); 1] = [(
        json!({"spec": {"selector": null}}),
        &["spec.selector: Required value", NO_MATCH, "spec.selector: Invalid value: \"null\": field is immutable"],
    )];
    updates(&client, sets, &good, &[], &rows).await;
    // Labels can be changed through the status of a ReplicaSet, though not of a Deployment.
    let labelled = json!({"metadata": {"labels": {"l": "v"}}});
    let (_, set) = client.merge(&format!("{sets}/a/status"), &labelled).await;
    let (_, deployment) = client.merge(&format!("{deployments}/a/status"), &labelled).await;
    assert_eq!(
        (set.pointer("/metadata/labels/l"), deployment.pointer("/metadata/labels/l")),
        (Some(&json!("v")), None)
    );
}

#[tokio::test]
async fn daemon_sets() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/apps/v1/namespaces/default/daemonsets";
    let good = workload("a");
    let rows: [(Value, &[&str]); 4] = [
        (json!({"spec": {"selector": null}}), &[NO_MATCH]),
        (
            json!({"spec": {"selector": {"matchLabels": null}, "template": {"spec": {"activeDeadlineSeconds": 1}}}}),
            &[
                "spec.selector: Invalid value: {}: empty selector is invalid for daemonset",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported",
            ],
        ),
        (
            json!({"spec": {"updateStrategy": {"type": "Late", "rollingUpdate": {"maxUnavailable": 2}}}}),
            &[
                "spec.updateStrategy: Unsupported value: {\"Type\":\"Late\",\"RollingUpdate\":{\"MaxUnavailable\":2,\"MaxSurge\":0}}: supported values: \"RollingUpdate\", \"OnDelete\"",
            ],
        ),
        (
            json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "0%"}}, "minReadySeconds": -1}}),
            &[
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ],
        ),
    ];
    creates(&client, path, &good, &rows).await;
    let counted = |set: &Value| set["metadata"]["annotations"]["deprecated.daemonset.template.generation"].clone();
    let (_, made) = client.post(path, &good).await;
    assert_eq!(counted(&made), "1");
    let one = format!("{path}/a");
    let (_, changed) = client.merge(&one, &json!({"spec": {"minReadySeconds": 5}})).await;
    assert_eq!(counted(&changed), "1", "the template is the same");
    let template = json!({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}});
    let (_, changed) = client.merge(&one, &template).await;
    assert_eq!(counted(&changed), "2");
    let (_, changed) = client.merge(&one, &json!({"metadata": {"annotations": null}})).await;
    assert_eq!(counted(&changed), "2", "it is no client's to remove");
    let (_, changed) = client.put(&format!("{one}/status"), &good).await;
    assert_eq!(counted(&changed), "2", "nor through the status");
    let (_, answer) = client.merge(&format!("{one}/status"), &json!({"status": {"numberReady": -1}})).await;
    assert_eq!(causes(&answer), ["status.numberReady: Invalid value: -1: must be greater than or equal to 0"]);
}

#[tokio::test]
async fn jobs() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/batch/v1/namespaces/default/jobs";
    let mut good = json!({"metadata": {"name": "a"}, "spec": {"template": pod()}});
    good["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    let (_, made) = client.post(path, &good).await;
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let labels = json!({"app": "a", "batch.kubernetes.io/controller-uid": uid, "controller-uid": uid,
        "batch.kubernetes.io/job-name": "a", "job-name": "a"});
    assert_eq!((&made["metadata"]["labels"], &made["spec"]["template"]["metadata"]["labels"]), (&labels, &labels));
    for (change, wanted) in [
        (
            json!({"template": {"spec": {"restartPolicy": "Sometimes"}}}),
            "spec.template.spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"OnFailure\", \"Never\"",
        ),
        (
            json!({"template": {"spec": {"restartPolicy": "Always"}}}),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            json!({"template": {"metadata": {"labels": {"app": "!"}}}}),
            "spec.template.labels: Invalid value: \"!\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        (
            json!({"template": {"metadata": {"labels": {"job-name": "b"}}}}),
            "spec.template.metadata.labels[job-name]: Invalid value: ",
        ),
        (json!({"selector": {"matchLabels": {"app": "a"}}}), "spec.selector: Invalid value: "),
        (
            json!({"manualSelector": true, "selector": {"matchLabels": {"app": "b"}}}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
        ),
    ] {
        let mut object = good.clone();
        json_patch::merge(&mut object["spec"], &change);
        let (code, answer) = client.post(&format!("{path}?dryRun=All"), &object).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{change}: {answer}");
        let found = causes(&answer);
        assert!(found.iter().any(|cause| cause.replace("labels[app]", "labels").starts_with(wanted)), "{found:?}");
    }
    let (_, answer) = client.merge(&format!("{path}/a/status"), &json!({"status": {"active": -1}})).await;
    assert_eq!(causes(&answer), ["status.active: Invalid value: -1: must be greater than or equal to 0"]);
    let cron =
        json!({"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": good["spec"]}}});
    let job = |spec: Value| json!({"spec": {"jobTemplate": {"spec": spec}}});
    let schedule = |text: &str| json!({"spec": {"schedule": text}});
    let rows: [(Value, &[&str]); 4] = [
        (
            job(json!({"manualSelector": true, "selector": {"matchLabels": {"app": "a"}}})),
            &[
                "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\"}}: `selector` will be auto-generated",
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
            ],
        ),
        (
            schedule("@every x"),
            &[
                "spec.schedule: Invalid value: \"@every x\": failed to parse duration @every x: time: invalid duration \"x\"",
            ],
        ),
        (schedule("1/2/3 * * * *"), &["spec.schedule: Invalid value: \"1/2/3 * * * *\": too many slashes: 1/2/3"]),
        (schedule("1-2-3 * * * *"), &["spec.schedule: Invalid value: \"1-2-3 * * * *\": too many hyphens: 1-2-3"]),
    ];
    creates(&client, "/apis/batch/v1/namespaces/default/cronjobs", &cron, &rows).await;
}

#[tokio::test]
async fn jobs_wait_and_end() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/batch/v1/namespaces/default/jobs";
    let policy = json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]});
    let mut job =
        json!({"metadata": {"name": "a"}, "spec": {"suspend": true, "template": pod(), "podFailurePolicy": policy}});
    job["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    let (_, made) = client.post(path, &job).await;
    let pattern = &made["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0];
    assert_eq!(pattern, &json!({"type": "DisruptionTarget", "status": "True"}));
    let one = format!("{path}/a");
    let template = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    let placed = template(json!({"nodeSelector": {"disk": "ssd"}, "schedulingGates": [{"name": "a.io/b"}]}));
    assert_eq!(client.merge(&one, &placed).await.0, StatusCode::OK);
    let (_, answer) = client.merge(&one, &template(json!({"hostNetwork": true}))).await;
    let found = causes(&answer);
    assert!(found[0].starts_with("spec.template.spec: Invalid value: {"), "{found:?}");
    assert!(found[0].ends_with(": field is immutable"), "{found:?}");
    let (_, answer) =
        client.merge(&one, &json!({"spec": {"suspend": false, "template": {"spec": {"nodeSelector": null}}}})).await;
    assert_eq!(answer["spec"]["suspend"], false, "it goes on elsewhere at once: {answer}");
    let (_, answer) = client.merge(&one, &placed).await;
    assert!(causes(&answer)[0].starts_with("spec.template: Invalid value: {"), "{answer}");

    let done = |kind: &str| json!({"type": kind, "status": "True"});
    let status = json!({"status": {"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:00Z", "succeeded": 1,
        "conditions": [done("SuccessCriteriaMet"), done("Complete")]}});
    assert_eq!(client.merge(&format!("{one}/status"), &status).await.0, StatusCode::OK);
    let again = json!({"status": {"succeeded": 0, "conditions": [done("SuccessCriteriaMet")]}});
    let (_, answer) = client.merge(&format!("{one}/status"), &again).await;
    assert_eq!(
        causes(&answer),
        [
            "status.completionTime: Invalid value: \"2026-01-01T00:01:00Z\": cannot set completionTime when there is no Complete=True condition",
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.succeeded: Invalid value: 0: cannot decrease the succeeded counter",
        ]
    );
    for (successful, count) in [(1, 1), (0, 0)] {
        let (_, list) = client.get(&format!("{path}?fieldSelector=status.successful%3D{successful}")).await;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(count), "{list}");
    }
}

#[tokio::test]
async fn roles() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let group = "/apis/rbac.authorization.k8s.io/v1";
    let rows: [(Value, &[&str]); 2] = [
        (
            json!({"aggregationRule": {}}),
            &[
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil",
            ],
        ),
        (
            json!({"aggregationRule": {"clusterRoleSelectors": [{"matchExpressions": [{"key": "a", "operator": "X"}]}]}}),
            &[
                "aggregationRule.clusterRoleSelectors[0].matchExpressions[0].operator: Invalid value: \"X\": not a valid selector operator",
                "aggregationRule.clusterRoleSelectors[0]: Invalid value: \"null\": invalid label selector.",
            ],
        ),
    ];
    creates(&client, &format!("{group}/clusterroles"), &json!({"metadata": {"name": "a"}}), &rows).await;
    let binding = json!({"metadata": {"name": "a"}, "roleRef": {"kind": "ClusterRole", "name": "view"}});
    let subject = |subject: Value| json!({"subjects": [subject]});
    let rows: [(Value, &[&str]); 5] = [
        (
            json!({"roleRef": null}),
            &[
                "roleRef.kind: Unsupported value: \"\": supported values: \"ClusterRole\"",
                "roleRef.name: Required value",
            ],
        ),
        (json!({"roleRef": {"name": "a/b"}}), &["roleRef.name: Invalid value: \"a/b\": may not contain '/'"]),
        (
            subject(json!({"kind": "User", "name": "u", "apiGroup": "x"})),
            &["subjects[0].apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\""],
        ),
        (
            subject(json!({"kind": "ServiceAccount", "name": "a", "apiGroup": "x"})),
            &[
                "subjects[0].apiGroup: Unsupported value: \"x\": supported values: \"\"",
                "subjects[0].namespace: Required value",
            ],
        ),
        (
            subject(json!({"kind": "X"})),
            &[
                "subjects[0].name: Required value",
                "subjects[0].kind: Unsupported value: \"X\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ],
        ),
    ];
    let bindings = format!("{group}/clusterrolebindings");
    creates(&client, &bindings, &binding, &rows).await;
    let rows: [(Value, &[&str]); 1] = [(
        json!({"roleRef": {"name": "edit"}}),
        &[
            "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"ClusterRole\",\"Name\":\"edit\"}: cannot change roleRef",
        ],
    )];
    updates(&client, &bindings, &binding, &[], &rows).await;
    let budget = json!({"metadata": {"name": "a"}, "spec": {"minAvailable": 1, "maxUnavailable": "5%"}});
    let (_, answer) = client.post("/apis/policy/v1/namespaces/default/poddisruptionbudgets", &budget).await;
    assert_eq!(
        causes(&answer),
        [
            "spec: Invalid value: {\"MinAvailable\":1,\"Selector\":null,\"MaxUnavailable\":\"5%\",\"UnhealthyPodEvictionPolicy\":null}: minAvailable and maxUnavailable cannot be both set",
        ]
    );
}

/// Kinds whose objects are only overwritten by who has seen them (`AllowUnconditionalUpdate`).
#[tokio::test]
async fn updates_of_some_kinds_name_a_revision() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for (path, object) in [
        ("/apis/policy/v1/namespaces/default/poddisruptionbudgets", json!({"spec": {"minAvailable": 1}})),
        ("/apis/storage.k8s.io/v1/csidrivers", json!({"spec": {}})),
        ("/apis/storage.k8s.io/v1/csinodes", json!({"spec": {"drivers": []}})),
        (
            "/apis/storage.k8s.io/v1/volumeattachments",
            json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
        ),
        ("/apis/node.k8s.io/v1/runtimeclasses", json!({"handler": "h"})),
        ("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", json!({})),
    ] {
        let mut object = object;
        object["metadata"] = json!({"name": "a"});
        let (code, answer) = client.post(path, &object).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
        let (_, answer) = client.put(&format!("{path}/a"), &object).await;
        assert_eq!(
            causes(&answer),
            ["metadata.resourceVersion: Invalid value: 0: must be specified for an update"],
            "{path}"
        );
    }
}

/// What is put must be what the path says.
#[tokio::test]
async fn names_and_namespaces_are_those_of_the_path() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let (_, made) = client.post(path, &workload("a")).await;
    let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {}, "spec": {"replicas": 2}});
    let mut elsewhere = made.clone();
    elsewhere["metadata"]["namespace"] = "other".into();
    let mut nameless = made.clone();
    nameless["metadata"]["name"] = Value::Null;
    let mut other = made.clone();
    other["metadata"]["name"] = "b".into();
    const NAMELESS: &str = "the name of the object (a based on URL) was undeterminable: name must be provided";
    const ELSEWHERE: &str = "the namespace of the object (other) does not match the namespace on the request (default)";
    for (below, object, wanted) in [
        ("", &nameless, NAMELESS),
        ("/scale", &scale, NAMELESS),
        ("/status", &elsewhere, ELSEWHERE),
        ("", &other, "the name of the object (b) does not match the name on the URL (a)"),
    ] {
        let (code, answer) = client.put(&format!("{path}/a{below}"), object).await;
        assert_eq!((code, answer["message"].as_str()), (StatusCode::BAD_REQUEST, Some(wanted)), "{below}");
    }
}
