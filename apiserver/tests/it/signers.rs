//! Who may ask for, approve and sign certificates.

use crate::harness::Harness;
use crate::harness::{LIMIT, Served, identity};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_apiserver::UserInfo;
use coracle_pki::{Subject, Usage};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn asks(name: &str, signer: &str, subject: &Subject) -> Value {
    let (pem, _) = coracle_pki::request(subject, &[]).unwrap();
    json!({"metadata": {"name": name}, "spec": {"request": STANDARD.encode(pem), "signerName": signer, "usages": ["client auth"]}})
}

#[tokio::test]
async fn nobody_asks_to_be_a_master() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let users = "kubernetes.io/kube-apiserver-client";
    let master = Subject::member("jane", "system:masters");
    let groups = |groups: &[&str]| Subject {
        common_name: "jane".to_owned(),
        organizations: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    let (code, answer) = client.post(REQUESTS, &asks("a", users, &master)).await;
    let among_others = groups(&["developers", "system:masters"]);
    assert_eq!(client.post(REQUESTS, &asks("a", users, &among_others)).await.0, StatusCode::FORBIDDEN);
    let why = "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert_eq!((code, &answer["message"]), (StatusCode::FORBIDDEN, &json!(why)));
    for (name, signer, subject) in [
        ("b", users, Subject::member("jane", "developers")),
        ("d", users, groups(&["developers", "operators"])),
        ("c", "example.com/own", Subject::member("jane", "system:masters")),
    ] {
        let (code, answer) = client.post(REQUESTS, &asks(name, signer, &subject)).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
    }
}

#[tokio::test]
async fn the_controller_manager_and_masters_approve_and_sign() {
    let harness = Harness::start().await;
    let made = asks("a", "kubernetes.io/kube-apiserver-client", &Subject::user("jane"));
    assert_eq!(harness.admin().post(REQUESTS, &made).await.0, StatusCode::CREATED);
    let approved = json!([{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]);
    let manager = harness.user(UserInfo::new("system:kube-controller-manager", &[]));
    let (code, answer) =
        manager.merge(&format!("{REQUESTS}/a/approval"), &json!({"status": {"conditions": approved}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let failed = json!([answer["status"]["conditions"][0], {"type": "Failed", "status": "True", "reason": "r"}]);
    let (code, answer) =
        harness.admin().merge(&format!("{REQUESTS}/a/status"), &json!({"status": {"conditions": failed}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_several_groups_speaks_for_all() {
    let mut served = Served::start().await;
    let organizations = ["operators", "developers"].map(str::to_owned).to_vec();
    let jane = Subject { common_name: "jane".to_owned(), organizations };
    served.admin = identity(&served.harness.authority, &jane, Usage::Client);
    let mut stream = served.dial(b"http/1.1", true).await;
    let body = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}"#;
    let head = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json";
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut said)).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&said);
    // In the order of a set in DER, which is that of the shortest first.
    let groups = r#""groups":["operators","developers","system:authenticated"]"#;
    assert!(said.contains(groups) && said.contains(r#""username":"jane""#), "{said}");
}
