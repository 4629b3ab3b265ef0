//! Statuses, deletes and accounts of managers in corners: what kube-apiserver 1.20.2 answered to the same requests, and
//! upstream's sources of v1.36 where they differ.

use crate::harness::{Client, Harness, pod};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const NAMESPACED: &str = "/api/v1/namespaces/default";

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

async fn request(client: &Client, name: &str) {
    let (pem, _) = coracle_pki::request(&coracle_pki::Subject::member("a", "b"), &[]).unwrap();
    let spec = json!({"request": STANDARD.encode(pem), "signerName": "a.b/c", "usages": ["any"]});
    let (code, answer) = client.post(REQUESTS, &json!({"metadata": {"name": name}, "spec": spec})).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
}

#[tokio::test]
async fn what_is_no_certificate_is_not_issued() {
    let harness = Harness::start().await;
    let client = harness.admin();
    request(&client, "a").await;
    let pem = harness.authority.cert_pem();
    let (begin, end) = ("-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n");
    let two = format!("hello\n{begin}!!\n{end}{pem}between\n{pem}behind");
    let invalid = |why: &str| format!("status.certificate: Invalid value: \"<certificate data>\": {why}");
    let fixed = "status.certificate: Forbidden: updates may not modify existing certificate content".to_owned();
    for (certificate, why) in [
        ("a".to_owned(), invalid("must contain at least one CERTIFICATE PEM block")),
        (pem.replace("CERTIFICATE", "FOO"), invalid("only CERTIFICATE PEM blocks are allowed, found \"FOO\"")),
        (pem.replacen(begin, &format!("{begin}A: b\n\n"), 1), invalid("no PEM block headers are permitted")),
        (format!("{begin}{end}"), invalid("found CERTIFICATE PEM block containing 0 certificates")),
        (format!("{begin}AAAA\n{end}"), invalid("x509: malformed certificate")),
        (two, String::new()),
        (pem.to_owned(), fixed.clone()),
        (String::new(), fixed),
    ] {
        let status = json!({"status": {"certificate": STANDARD.encode(&certificate)}});
        let (code, answer) = client.merge(&format!("{REQUESTS}/a/status"), &status).await;
        let told = message(&answer).split_once("is invalid: ").map_or("", |(_, why)| why);
        assert_eq!((told, code == StatusCode::OK), (why.as_str(), why.is_empty()), "{certificate}");
    }
}

#[tokio::test]
async fn who_approves_may_write_metadata_and_own_it() {
    let harness = Harness::start().await;
    let client = harness.admin();
    request(&client, "a").await;
    client.merge(&format!("{REQUESTS}/a?fieldManager=maker"), &json!({"metadata": {"labels": {"made": ""}}})).await;
    let (_, none) = client.get(&format!("{REQUESTS}/a")).await;
    assert_eq!(none["metadata"].get("managedFields"), None, "what is asked for belongs to nobody");
    let own = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "a", "labels": {"x": "y"}}});
    let applied = format!("{REQUESTS}/a?fieldManager=first");
    client.send(Method::PATCH, &applied, "application/apply-patch+yaml", own.to_string()).await;
    let approved = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"username": "x"},
        "status": {"certificate": "AAAA", "conditions": [{"type": "Approved", "status": "True"}]}});
    let (code, answer) = client.merge(&format!("{REQUESTS}/a/approval?fieldManager=m"), &approved).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(
        (&answer["metadata"]["labels"]["a"], &answer["metadata"]["annotations"]["c"]),
        (&json!("b"), &json!("d"))
    );
    assert_ne!(answer["spec"]["username"], "x");
    assert_eq!(
        (answer["status"].get("certificate"), &answer["status"]["conditions"][0]["type"]),
        (None, &json!("Approved"))
    );
    let owned = |manager: &str| {
        let entries = answer["metadata"]["managedFields"].as_array().unwrap();
        entries.iter().find(|entry| entry["manager"] == manager).map(|entry| entry["fieldsV1"].clone())
    };
    let fields = owned("m").unwrap();
    assert_eq!(fields["f:metadata"]["f:labels"]["f:a"], json!({}));
    assert!(fields["f:status"]["f:conditions"].is_object() && fields.get("f:spec").is_none(), "{fields}");
}

#[tokio::test]
async fn an_approval_is_not_changed_by_who_issues() {
    let harness = Harness::start().await;
    let client = harness.admin();
    request(&client, "a").await;
    let one = |kind: &str, status: &str, message: &str| json!({"type": kind, "status": status, "message": message});
    let cannot = |what: &str, kind: &str| {
        format!("status.conditions: Forbidden: updates may not {what} a condition of type \"{kind}\"")
    };
    let excluded =
        "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive";
    let (approved, other) = (one("Approved", "True", "m"), one("X", "True", ""));
    for (part, conditions, told) in [
        ("status", json!([approved]), Err(cannot("add", "Approved"))),
        ("approval", json!([approved]), Ok("m")),
        ("status", json!([one("Approved", "True", "changed")]), Ok("m")),
        ("status", json!([one("Approved", "False", "changed")]), Ok("m")),
        ("status", json!([]), Err(cannot("remove", "Approved"))),
        ("status", json!([one("Approved", "True", "changed"), other]), Ok("m")),
        (
            "status",
            json!([other, approved, one("Denied", "True", "")]),
            Err(format!("[{excluded}, {}]", cannot("add", "Denied"))),
        ),
        ("approval", json!([one("Approved", "True", "changed"), other]), Ok("changed")),
        ("status", json!([approved, one("Failed", "True", "")]), Ok("changed")),
        ("status", json!([approved]), Err(cannot("remove", "Failed"))),
    ] {
        let body = json!({"status": {"conditions": conditions}});
        let (_, answer) = client.merge(&format!("{REQUESTS}/a/{part}"), &body).await;
        let found = match message(&answer).split_once("is invalid: ") {
            Some((_, why)) => Err(why.to_owned()),
            None => Ok(answer.pointer("/status/conditions/0/message").and_then(Value::as_str).unwrap_or_default()),
        };
        assert_eq!(found, told, "{part} {body}");
    }
}

#[tokio::test]
async fn a_namespace_goes_with_its_second_delete() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/api/v1/namespaces/n";
    client.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    let (_, answer) = client.put(&format!("{path}/finalize"), &json!({"metadata": {"name": "n"}, "spec": {}})).await;
    assert_eq!(answer["spec"], json!({}));
    for wanted in [StatusCode::OK, StatusCode::NOT_FOUND] {
        let (code, answer) = client.delete(path).await;
        assert_eq!(
            (code, &answer["kind"], &answer["status"]["phase"]),
            (StatusCode::OK, &json!("Namespace"), &json!("Terminating"))
        );
        assert_eq!(client.get(path).await.0, wanted);
    }
}

#[tokio::test]
async fn managers_own_what_they_asked_for() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let fields = |answer: &Value| -> Vec<Value> {
        answer["metadata"]["managedFields"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|entry| entry["fieldsV1"].clone())
            .collect()
    };
    let (_, made) = client.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    assert!(!fields(&made).iter().any(|of| of.get("f:spec").is_some()), "the server's finalizer is nobody's: {made}");
    let whole = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["example.com/f"]}});
    let (_, put) = client.put("/api/v1/namespaces/n", &whole).await;
    assert_eq!(put["spec"]["finalizers"], json!(["kubernetes"]));
    assert!(fields(&put).iter().any(|of| of["f:spec"] == json!({"f:finalizers": {}})), "{put}");
    client.post(&format!("{NAMESPACED}/serviceaccounts"), &json!({"metadata": {"name": "a"}})).await;
    for (spec, owned) in [
        (json!({"audiences": ["x"]}), json!({"f:spec": {"f:audiences": {}, "f:expirationSeconds": {}}})),
        (json!({}), json!({"f:spec": {"f:expirationSeconds": {}}})),
    ] {
        let (_, token) = client.post(&format!("{NAMESPACED}/serviceaccounts/a/token"), &json!({"spec": spec})).await;
        assert_eq!(fields(&token), [owned]);
        let entry = &token["metadata"]["managedFields"][0];
        assert_eq!(
            (&entry["apiVersion"], &entry["subresource"]),
            (&json!("authentication.k8s.io/v1"), &json!("token"))
        );
    }
}

#[tokio::test]
async fn statuses_that_say_what_cannot_be() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (quotas, services) = (format!("{NAMESPACED}/resourcequotas"), "/apis/apiregistration.k8s.io/v1/apiservices");
    client.post(&quotas, &json!({"metadata": {"name": "a"}})).await;
    client.post(&format!("{NAMESPACED}/pods"), &pod("a")).await;
    let spec = json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1});
    client.post(services, &json!({"metadata": {"name": "v1.a.b"}, "spec": spec})).await;
    let known = "supported values: \"True\", \"False\", \"Unknown\"";
    for (path, status, wanted) in [
        (
            format!("{quotas}/a"),
            json!({"hard": {"pods": "1.5", "foo": "1"}, "used": {"pods": "-1"}}),
            vec![
                "status.hard[pods]: Invalid value: \"1500m\": must be an integer".to_owned(),
                "status.hard[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified"
                    .to_owned(),
                "status.hard[foo]: Invalid value: \"foo\": must be a standard resource for quota".to_owned(),
                "status.used[pods]: Invalid value: \"-1\": must be greater than or equal to 0".to_owned(),
            ],
        ),
        (
            format!("{services}/v1.a.b"),
            json!({"conditions": [{"type": "Available", "status": "Perhaps"}]}),
            vec![format!("status.conditions[0].status: Unsupported value: \"Perhaps\": {known}")],
        ),
        (
            format!("{NAMESPACED}/pods/a"),
            json!({"conditions": [{"type": "a b", "status": "True"}], "qosClass": "Guaranteed", "nominatedNodeName": "A_"}),
            vec![
                "status.conditions[0].Type".to_owned(),
                "status.nominatedNodeName".to_owned(),
                "status.qosClass: Invalid value: \"Guaranteed\": field is immutable".to_owned(),
            ],
        ),
    ] {
        let (code, answer) = client.merge(&format!("{path}/status"), &json!({"status": status})).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        let causes = answer["details"]["causes"].as_array().unwrap();
        assert_eq!(causes.len(), wanted.len(), "{answer}");
        for one in wanted {
            assert!(message(&answer).contains(&one), "{one}: {answer}");
        }
    }
}

#[tokio::test]
async fn what_a_pod_observed_is_not_forgotten() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = format!("{NAMESPACED}/pods/a");
    client.post(&format!("{NAMESPACED}/pods"), &pod("a")).await;
    let condition =
        |kind: &str, generation: Option<i64>| json!({"type": kind, "status": "True", "observedGeneration": generation});
    let told = json!({"status": {"observedGeneration": 3, "conditions": [condition("Ready", Some(2)), condition("x", Some(4))]}});
    client.merge(&format!("{path}/status"), &told).await;
    let older = json!({"status": {"observedGeneration": null, "conditions": [condition("x", None), condition("Ready", Some(5)), condition("y", None)]}});
    let (_, answer) = client.merge(&format!("{path}/status"), &older).await;
    let generations: Vec<_> =
        (0..3).map(|nth| answer["status"]["conditions"][nth]["observedGeneration"].as_i64()).collect();
    assert_eq!((answer["status"]["observedGeneration"].as_i64(), generations), (Some(3), vec![Some(4), Some(5), None]));
}

#[tokio::test]
async fn a_delete_shows_what_went() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(&format!("{NAMESPACED}/pods"), &pod("a")).await;
    client.post(&format!("{NAMESPACED}/configmaps"), &json!({"metadata": {"name": "a"}})).await;
    client
        .post(&format!("{NAMESPACED}/services"), &json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}))
        .await;
    let (_, gone) = client.delete(&format!("{NAMESPACED}/pods/a")).await;
    assert_eq!((&gone["kind"], &gone["metadata"]["deletionGracePeriodSeconds"]), (&json!("Pod"), &json!(0)), "{gone}");
    assert!(gone["metadata"]["deletionTimestamp"].is_string(), "{gone}");
    let (_, before) = client.get(&format!("{NAMESPACED}/services/a")).await;
    let (_, gone) = client.delete(&format!("{NAMESPACED}/services/a")).await;
    assert_eq!((&gone["kind"], &gone["spec"]), (&json!("Service"), &before["spec"]));
    let revision = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(revision(&gone) > revision(&before), "{gone}");
    let (_, gone) = client.delete(&format!("{NAMESPACED}/configmaps/a")).await;
    assert_eq!((&gone["kind"], &gone["status"]), (&json!("Status"), &json!("Success")));
}

/// The hashes that upstream's own test expects (`pkg/controlplane/storageversionhashdata`).
#[tokio::test]
async fn storage_versions_have_upstreams_hashes() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for (path, hashes) in [
        (
            "/api/v1",
            &[
                ("configmaps", "qFsyl6wFWjQ="),
                ("events", "r2yiGXH7wu8="),
                ("pods", "xPOwRZ+Yhw8="),
                ("services", "0/CO1lhkEBI="),
                ("nodes", "XwShjMxG9Fs="),
                ("componentstatuses", ""),
            ][..],
        ),
        ("/apis/events.k8s.io/v1", &[("events", "r2yiGXH7wu8=")]),
        ("/apis/autoscaling/v1", &[("horizontalpodautoscalers", "qwQve8ut294=")]),
        ("/apis/autoscaling/v2", &[("horizontalpodautoscalers", "qwQve8ut294=")]),
        ("/apis/batch/v1", &[("jobs", "mudhfqk/qZY="), ("cronjobs", "sd5LIXh4Fjs=")]),
        ("/apis/apps/v1", &[("deployments", "8aSe+NMegvE="), ("statefulsets", "H+vl74LkKdo=")]),
        ("/apis/networking.k8s.io/v1", &[("ingresses", "39NQlfNR+bo="), ("networkpolicies", "YpfwF18m1G8=")]),
        ("/apis/certificates.k8s.io/v1", &[("certificatesigningrequests", "95fRKMXA+00=")]),
        ("/apis/flowcontrol.apiserver.k8s.io/v1", &[("flowschemas", "GJVAJZSZBIw=")]),
        ("/apis/storage.k8s.io/v1", &[("csistoragecapacities", "xeVl+2Ly1kE="), ("storageclasses", "K+m6uJwbjGY=")]),
        ("/apis/authorization.k8s.io/v1", &[("subjectaccessreviews", "")]),
    ] {
        let (_, answer) = client.send(Method::GET, path, "application/json", String::new()).await;
        for (plural, hash) in hashes {
            let found = answer["resources"].as_array().unwrap().iter().find(|one| one["name"] == *plural).unwrap();
            assert_eq!(found["storageVersionHash"].as_str().unwrap_or_default(), *hash, "{path} {plural}");
        }
    }
}
