//! Questions about who somebody is and what they may do, and the tokens of service accounts.

use crate::harness::{Client, Harness, identity, pod};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_api::clock::SystemClock;
use coracle_apiserver::UserInfo;
use coracle_apiserver::store::embedded::Embedded;
use coracle_pki::{Subject, Usage};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const AUTHENTICATION: &str = "/apis/authentication.k8s.io/v1";
const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

async fn ask(client: &Client, path: &str, spec: Value) -> Value {
    let (code, answer) = client.post(path, &json!({"spec": spec})).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    answer["status"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_do_what() {
    let harness = Harness::start().await;
    let (admin, jane) = (harness.admin(), harness.user(UserInfo::new("jane", &["devs"])));
    let (code, own) = jane.post(&format!("{AUTHENTICATION}/selfsubjectreviews"), &json!({})).await;
    assert_eq!(code, StatusCode::CREATED, "{own}");
    assert_eq!(own["status"]["userInfo"], json!({"username": "jane", "groups": ["devs", "system:authenticated"]}));
    assert_eq!(own["kind"], "SelfSubjectReview");

    let pods = json!({"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}});
    let own = format!("{AUTHORIZATION}/selfsubjectaccessreviews");
    assert_eq!(ask(&admin, &own, pods.clone()).await, json!({"allowed": true}));
    assert_eq!(ask(&jane, &own, pods.clone()).await, json!({"allowed": false}));
    let path = json!({"nonResourceAttributes": {"verb": "get", "path": "/version"}});
    assert_eq!(ask(&jane, &own, path).await, json!({"allowed": true}));

    let others = format!("{AUTHORIZATION}/subjectaccessreviews");
    let mut of_node = pods.clone();
    of_node["user"] = "system:node:n1".into();
    of_node["groups"] = json!(["system:nodes"]);
    assert_eq!(ask(&admin, &others, of_node.clone()).await, json!({"allowed": true}));
    let (code, _) = jane.post(&others, &json!({"spec": of_node})).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let (code, answer) = admin.post(&others, &json!({"spec": pods})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        answer["message"].as_str().unwrap().contains("at least one of user or group must be specified"),
        "{answer}"
    );
    let local = format!("{AUTHORIZATION}/namespaces/default/localsubjectaccessreviews");
    assert_eq!(ask(&admin, &local, of_node).await, json!({"allowed": true}));

    let rules = ask(&admin, &format!("{AUTHORIZATION}/selfsubjectrulesreviews"), json!({"namespace": "default"})).await;
    assert_eq!(rules["resourceRules"][0]["verbs"], json!(["*"]));
    assert_eq!(admin.get(&own).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let (_, components) = admin.get("/api/v1/componentstatuses").await;
    assert_eq!(components["items"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_last_as_long_as_what_they_are_bound_to() {
    let harness = Harness::start().await;
    let admin = harness.admin();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let (_, account) = admin.post(accounts, &json!({"metadata": {"name": "robot"}})).await;
    let mut robots = pod("robot");
    robots["spec"]["serviceAccountName"] = "robot".into();
    let (_, robots) = admin.post("/api/v1/namespaces/default/pods", &robots).await;
    let token_path = format!("{accounts}/robot/token");
    let request = |spec: Value| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let (code, made) = admin
        .post(&token_path, &request(json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "robot"}})))
        .await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!((&made["spec"]["expirationSeconds"], &made["kind"]), (&json!(3600), &json!("TokenRequest")));
    let token = made["status"]["token"].as_str().unwrap().to_owned();
    let (code, _) = admin.post(&token_path, &request(json!({"expirationSeconds": 5}))).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let (code, _) = admin
        .post(&token_path, &request(json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "none"}})))
        .await;
    assert_eq!(code, StatusCode::NOT_FOUND);

    let reviews = format!("{AUTHENTICATION}/tokenreviews");
    let reviewed = ask(&admin, &reviews, json!({"token": token})).await;
    assert_eq!(reviewed["authenticated"], true, "{reviewed}");
    assert_eq!(reviewed["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(reviewed["user"]["uid"], account["metadata"]["uid"]);
    assert_eq!(reviewed["user"]["extra"]["authentication.kubernetes.io/pod-uid"][0], robots["metadata"]["uid"]);
    let elsewhere = ask(&admin, &reviews, json!({"token": token, "audiences": ["vault"]})).await;
    assert_eq!(elsewhere.get("authenticated"), None);
    let (_, vault) = admin.post(&token_path, &request(json!({"audiences": ["vault"]}))).await;
    let for_vault = json!({"token": vault["status"]["token"], "audiences": ["vault", "x"]});
    assert_eq!(ask(&admin, &reviews, for_vault).await["audiences"], json!(["vault"]));

    // What a pod's volume asks for lasts a year for programs that read it once, and says when it should have been read again.
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "robot"});
    for (spec, lasts, warns) in [
        (json!({"expirationSeconds": 3607, "boundObjectRef": bound}), 365 * 24 * 3600, Some(3607)),
        (json!({"expirationSeconds": 3608, "boundObjectRef": bound}), 3608, None),
        (json!({"expirationSeconds": 3607}), 3607, None),
        (json!({"expirationSeconds": 3607, "boundObjectRef": bound, "audiences": ["vault"]}), 3607, None),
    ] {
        let (_, made) = admin.post(&token_path, &request(spec.clone())).await;
        let claims = made["status"]["token"].as_str().unwrap().split('.').nth(1).unwrap();
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        let issued = claims["iat"].as_i64().unwrap();
        assert_eq!(claims["exp"].as_i64().unwrap() - issued, lasts, "{spec}");
        let warned = claims["kubernetes.io"].get("warnafter").map(|after| after.as_i64().unwrap() - issued);
        assert_eq!(warned, warns, "{spec}");
        let told: jiff::Timestamp = made["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
        assert_eq!(told.as_second() - issued, spec["expirationSeconds"].as_i64().unwrap(), "{spec}");
    }

    // Over TLS the token alone says who it is.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = identity(&harness.authority, &Subject::user("apiserver"), Usage::Server);
    let tls = harness.server.tls(&serving.cert_pem, &serving.key_pem).unwrap();
    let stop = CancellationToken::new();
    let (server, ending) = (harness.server.clone(), stop.clone());
    tokio::spawn(async move { server.serve(listener, tls, ending).await });
    let whoami = async |token: &str| {
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca");
        std::fs::write(&ca, harness.authority.cert_pem()).unwrap();
        let command = tokio::process::Command::new("kubectl")
            .args(["--server", &format!("https://{address}"), "--token", token, "--certificate-authority"])
            .arg(&ca)
            .args(["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"])
            .env("HOME", directory.path())
            .env_remove("KUBECONFIG")
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(crate::harness::LIMIT, command).await.unwrap().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // Where there is no kubectl, the rest still counts.
    if let Some(name) = whoami(&token).await {
        assert_eq!(name, "system:serviceaccount:default:robot");
        assert_eq!(whoami("a.b.c").await.unwrap(), "");
    }
    stop.cancel();

    let (code, _) = admin.delete("/api/v1/namespaces/default/pods/robot?gracePeriodSeconds=0").await;
    assert_eq!(code, StatusCode::OK);
    let after = ask(&admin, &reviews, json!({"token": token})).await;
    assert_eq!(after.get("authenticated"), None, "{after}");
    let (_, keys) = admin.get("/openid/v1/jwks").await;
    assert_eq!(keys["keys"][0]["crv"], "P-256");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_have_api_services() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let services = "/apis/apiregistration.k8s.io/v1/apiservices";
    let (_, core) = client.get(&format!("{services}/v1.")).await;
    assert_eq!(core["status"]["conditions"][0]["status"], "True", "{core}");
    crate::custom::define(&client, &crate::custom::widgets()).await;
    let deadline = std::time::Instant::now() + crate::harness::LIMIT;
    while client.get(&format!("{services}/v1.example.com")).await.0 != StatusCode::OK {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let remote = json!({"metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": {"group": "metrics.k8s.io", "version": "v1beta1",
        "groupPriorityMinimum": 100, "versionPriority": 100, "service": {"name": "metrics-server", "namespace": "kube-system"}}});
    let (code, answer) = client.post(services, &remote).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        answer["message"].as_str().unwrap().contains("spec.service: Forbidden: this server does not pass requests on"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_learn_which_authorities_to_trust() {
    const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let store = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let first = Harness::on(store.clone()).await;
    let admin = first.admin();
    let own = first.authority.cert_pem().to_owned();
    let (code, map) = admin.get(PATH).await;
    assert_eq!(code, StatusCode::OK, "{map}");
    assert_eq!(map["data"], json!({"client-ca-file": own}));
    assert_eq!(admin.merge(PATH, &json!({"data": {"requestheader-username-headers": "[]"}})).await.0, StatusCode::OK);

    // A server with another authority adds its own; one with the same writes nothing.
    let second = Harness::on(store.clone()).await;
    let (_, map) = second.admin().get(PATH).await;
    let both = format!("{own}{}", second.authority.cert_pem());
    assert_eq!(map["data"], json!({"client-ca-file": both, "requestheader-username-headers": "[]"}));
    let third = Harness::with(store, |config, _| config.ca_pem = own).await;
    assert_eq!(third.admin().get(PATH).await.1, map);
}
