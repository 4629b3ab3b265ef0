//! What pods get from the cluster, and smaller rules of core kinds, in the words of a kube-apiserver.

use crate::harness::{Client, Harness, pod};
use crate::validation::{causes, creates};
use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// The warnings of an answer.
async fn warnings(client: &Client, method: Method, path: &str, kind: &str, body: &Value) -> (StatusCode, Vec<String>) {
    let request =
        Request::builder().method(method).uri(path).header("content-type", kind).body(Body::from(body.to_string()));
    let response = client.0.clone().oneshot(request.unwrap()).await.unwrap();
    let told = response.headers().get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
    (response.status(), told)
}

#[tokio::test]
async fn owners_given_twice_are_merged() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    let owner = json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u"});
    let other = json!({"apiVersion": "v1", "kind": "X", "name": "y", "uid": "u"});
    let map = json!({"metadata": {"name": "a", "ownerReferences": [owner, other, owner, owner]}});
    let told = |when: &str, uids: &str| {
        let why = format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}"
        );
        vec![format!("299 - \"{why}\"")]
    };
    let json = "application/json";
    assert_eq!(warnings(&client, Method::POST, maps, json, &map).await, (StatusCode::CREATED, told("", "u, u")));
    let path = format!("{maps}/a");
    let (_, mut found) = client.get(&path).await;
    assert_eq!(found["metadata"]["ownerReferences"], json!([owner, other]));
    found["metadata"]["ownerReferences"] = json!([owner, owner]);
    assert_eq!(warnings(&client, Method::PUT, &path, json, &found).await, (StatusCode::OK, told("", "u")));
    let patch = json!({"metadata": {"ownerReferences": [owner, other, other]}});
    let expected = (StatusCode::OK, told(" after mutating admission happens", "u"));
    assert_eq!(warnings(&client, Method::PATCH, &path, "application/merge-patch+json", &patch).await, expected);
    assert_eq!(client.get(&path).await.1["metadata"]["ownerReferences"], json!([owner, other]));
}

#[tokio::test]
async fn an_update_of_a_pod_gets_what_a_new_one_does() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (_, created) = client.post(PODS, &pod("a")).await;
    let tolerations = created["spec"]["tolerations"].clone();
    assert_eq!(tolerations.as_array().map(Vec::len), Some(2));
    let mut wanted = created.clone();
    wanted["spec"]["tolerations"] = json!([{"key": "k", "operator": "Exists"}, tolerations[0], tolerations[1]]);
    for field in ["priority", "preemptionPolicy"] {
        wanted["spec"].as_object_mut().unwrap().remove(field);
    }
    let (code, updated) = client.put(&format!("{PODS}/a"), &wanted).await;
    assert_eq!(code, StatusCode::OK, "{updated}");
    assert_eq!(
        (&updated["spec"]["priority"], &updated["spec"]["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    // Those that went are there again, so that none was removed.
    let fewer = json!({"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}});
    let (code, updated) = client.merge(&format!("{PODS}/a"), &fewer).await;
    assert_eq!(code, StatusCode::OK, "{updated}");
    assert_eq!(
        updated["spec"]["tolerations"],
        json!([{"key": "k", "operator": "Exists"}, tolerations[0], tolerations[1]])
    );
}

#[tokio::test]
async fn the_older_name_of_the_service_account() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let rows = [
        (json!({"serviceAccount": "x"}), "x"),
        (json!({"serviceAccount": "x", "serviceAccountName": "y"}), "y"),
        (json!({"serviceAccountName": "z"}), "z"),
    ];
    let path = "/api/v1/namespaces/default/podtemplates";
    for (nth, (names, expected)) in rows.into_iter().enumerate() {
        let mut spec = pod("a")["spec"].clone();
        spec.as_object_mut().unwrap().extend(names.as_object().unwrap().clone());
        let template = json!({"metadata": {"name": format!("t{nth}")}, "template": {"spec": spec}});
        let (code, made) = client.post(path, &template).await;
        let spec = &made["template"]["spec"];
        assert_eq!(
            (code, &spec["serviceAccount"], &spec["serviceAccountName"]),
            (StatusCode::CREATED, &json!(expected), &json!(expected))
        );
    }
    let nothing = client.post(path, &json!({"metadata": {"name": "n"}})).await;
    assert_eq!(
        (nothing.0, causes(&nothing.1)),
        (StatusCode::UNPROCESSABLE_ENTITY, vec!["template.spec.containers: Required value".to_owned()])
    );
}

#[tokio::test]
async fn a_policy_that_its_class_does_not_have() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    client.post(classes, &json!({"metadata": {"name": "never"}, "value": 5, "preemptionPolicy": "Never"})).await;
    // Admission looks at what the server knows by then.
    assert_eq!(client.get(&format!("{classes}/never")).await.0, StatusCode::OK);
    let mut wrong = pod("a");
    wrong["spec"]["priorityClassName"] = "never".into();
    wrong["spec"]["preemptionPolicy"] = "PreemptLowerPriority".into();
    let (code, answer) = client.post(PODS, &wrong).await;
    let why = "pods \"a\" is forbidden: the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name";
    assert_eq!((code, &answer["message"]), (StatusCode::FORBIDDEN, &json!(why)));
    wrong["spec"]["preemptionPolicy"] = "Never".into();
    assert_eq!(client.post(PODS, &wrong).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_limit_range_need_not_be_named() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (code, made) = client.post("/api/v1/namespaces/default/limitranges", &json!({"spec": {"limits": []}})).await;
    assert_eq!((code, made["metadata"]["name"].as_str().map(str::len)), (StatusCode::CREATED, Some(36)), "{made}");
}

#[tokio::test]
async fn empty_texts_that_are_given() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let class = json!({"metadata": {"name": "a"}, "provisioner": "p"});
    let rows: [(Value, &[&str]); 2] = [
        (json!({"allowedTopologies": [{}]}), &["allowedTopologies[0].matchLabelExpressions: Duplicate value: \"\""]),
        (
            json!({"reclaimPolicy": "", "volumeBindingMode": ""}),
            &[
                "reclaimPolicy: Unsupported value: \"\": supported values: \"Delete\", \"Retain\"",
                "volumeBindingMode: Unsupported value: \"\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
            ],
        ),
    ];
    creates(&client, "/apis/storage.k8s.io/v1/storageclasses", &class, &rows).await;
    let slice = json!({"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]});
    const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let (host, node) = (
        format!("endpoints[0].hostname: Invalid value: \"\": {LABEL}"),
        format!("endpoints[0].nodeName: Invalid value: \"A_\": {SUBDOMAIN}"),
    );
    let wrong = json!({"endpoints": [{"addresses": ["10.0.0.1"], "hostname": "", "nodeName": "A_"}], "ports": [{"name": "", "appProtocol": "A_/b"}]});
    let protocol = format!("ports[0].appProtocol: Invalid value: \"A_/b\": prefix part {SUBDOMAIN}");
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    creates(&client, path, &slice, &[(wrong, &[&node, &host, &protocol])]).await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let wrong = json!({"metadata": {"name": "a"}, "value": 1, "preemptionPolicy": ""});
    assert_eq!(causes(&client.post(classes, &wrong).await.1), ["preemptionPolicy: Required value"]);
}

#[tokio::test]
async fn new_events() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let event = json!({"metadata": {"name": "a"}, "regarding": {"namespace": "default"}, "type": "Normal", "reason": "r", "action": "a",
        "reportingController": "c", "reportingInstance": "i", "eventTime": "2026-01-01T00:00:00.000000Z"});
    let rows: [(Value, &[&str]); 2] = [
        (
            json!({"eventTime": null, "type": "Some", "deprecatedCount": 1, "deprecatedSource": {"host": "h"}, "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z",
                "deprecatedLastTimestamp": "2026-01-01T00:00:00Z"}),
            &[
                "eventTime: Required value",
                "type: Invalid value: \"\": has invalid value: Some",
                "firstTimestamp: Invalid value: \"\": needs to be unset",
                "lastTimestamp: Invalid value: \"\": needs to be unset",
                "count: Invalid value: \"\": needs to be unset",
                "source: Invalid value: \"\": needs to be unset",
            ],
        ),
        (
            json!({"series": {"count": 1}, "reportingController": null, "action": null, "note": "x".repeat(1025)}),
            &[
                "reportingController: Required value",
                "reportingController: Invalid value: \"\": name part must be non-empty",
                "reportingController: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                "action: Required value",
                "message: Invalid value: \"\": can have at most 1024 characters",
                "series.count: Invalid value: \"\": should be at least 2",
                "series.lastObservedTime: Required value",
            ],
        ),
    ];
    creates(&client, "/apis/events.k8s.io/v1/namespaces/default/events", &event, &rows).await;
    let mut later = event.clone();
    later["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
    later["regarding"] = Value::Null;
    later["metadata"]["name"] = "later".into();
    let (code, made) = client.post("/apis/events.k8s.io/v1/namespaces/default/events", &later).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    // Older clients of core need none of it, and are told the name that they know.
    let old = json!({"metadata": {"name": "b"}, "involvedObject": {"namespace": "default"}});
    assert_eq!(client.post("/api/v1/namespaces/default/events", &old).await.0, StatusCode::CREATED);
    let rows: [(Value, &[&str]); 1] = [(
        json!({"metadata": {"name": "c"}, "reportingComponent": "a b"}),
        &[
            "reportingComponent: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    )];
    let mut event = event;
    event["reportingComponent"] = event["reportingController"].take();
    event.as_object_mut().unwrap().retain(|field, _| !matches!(field.as_str(), "regarding" | "reportingController"));
    creates(&client, "/api/v1/namespaces/default/events", &event, &rows).await;
}

#[tokio::test]
async fn conditions_of_signing_requests() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (request, _) = coracle_pki::request(&coracle_pki::Subject::user("u"), &[]).unwrap();
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    use base64::Engine;
    let request = base64::engine::general_purpose::STANDARD.encode(request);
    let spec = json!({"request": request, "signerName": "example.com/a", "usages": ["client auth"]});
    let (code, made) = client.post(path, &json!({"metadata": {"name": "a"}, "spec": spec})).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let conditions = json!([{"type": "Approved", "status": "False"}, {"type": "Denied", "status": "True"}, {"type": "", "status": "Maybe"},
        {"type": "X", "status": ""}, {"type": "X", "status": "Unknown"}]);
    let (code, answer) =
        client.merge(&format!("{path}/a/approval"), &json!({"status": {"conditions": conditions}})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let expected = [
        "status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\"",
        "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
        "status.conditions[2].type: Required value",
        "status.conditions[2].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
        "status.conditions[3].status: Required value",
        "status.conditions[4].type: Duplicate value: \"X\"",
    ];
    assert_eq!(causes(&answer), expected);
    // What was decided is said elsewhere than what became of it.
    let approved =
        json!({"metadata": {"labels": {"a": "b"}}, "status": {"conditions": [{"type": "Approved", "status": "True"}]}});
    let (code, answer) = client.merge(&format!("{path}/a/status"), &approved).await;
    let why = "status.conditions: Forbidden: updates may not add a condition of type \"Approved\"";
    assert_eq!((code, causes(&answer)), (StatusCode::UNPROCESSABLE_ENTITY, vec![why.to_owned()]));
    let (code, answer) = client.merge(&format!("{path}/a/approval"), &approved).await;
    let condition = &answer["status"]["conditions"][0];
    assert_eq!((code, condition["lastUpdateTime"].is_string()), (StatusCode::OK, true), "{answer}");
    let encode = |pem: String| base64::engine::general_purpose::STANDARD.encode(pem);
    let [certificate, other] =
        [encode(harness.authority.cert_pem().to_owned()), encode(format!("{}\n", harness.authority.cert_pem()))];
    let issued = json!({"metadata": {"labels": {"a": "b"}}, "status": {"certificate": certificate}});
    let (code, answer) = client.merge(&format!("{path}/a/status"), &issued).await;
    assert_eq!((code, &answer["metadata"]["labels"]), (StatusCode::OK, &json!({"a": "b"})), "{answer}");
    let (_, answer) = client.merge(&format!("{path}/a/status"), &json!({"status": {"certificate": other}})).await;
    assert_eq!(causes(&answer), ["status.certificate: Forbidden: updates may not modify existing certificate content"]);
}

#[tokio::test]
async fn attachments_of_volumes_without_a_name() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let attachment = json!({"metadata": {"name": "a"}, "spec": {"attacher": "a.b", "nodeName": "n", "source": {"inlineVolumeSpec":
        {"accessModes": ["ReadWriteOnce"], "csi": {"driver": "a.b", "volumeHandle": "h"}}}}});
    let rows: [(Value, &[&str]); 1] = [(
        json!({"spec": {"source": {"inlineVolumeSpec": {"capacity": {"storage": "1Gi"}, "storageClassName": "c", "volumeMode": "Block",
                "claimRef": {"name": "a"}, "accessModes": null, "persistentVolumeReclaimPolicy": "Delete", "csi": null,
                "hostPath": {"path": "/a"}, "nodeAffinity": {}}}}}),
        &[
            "spec.source.inlineVolumeSpec.claimRef: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.accessModes: Required value",
            "spec.source.inlineVolumeSpec.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the context of inline volumes",
            "spec.source.inlineVolumeSpec.nodeAffinity: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes",
        ],
    )];
    creates(&client, "/apis/storage.k8s.io/v1/volumeattachments", &attachment, &rows).await;
}
