//! Field selectors of kinds that have words of their own for them.

use crate::harness::{Client, Harness, pod};
use http::StatusCode;
use serde_json::json;

const PODS: &str = "/api/v1/namespaces/default/pods";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const NEW_EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

/// How many objects a selector finds, or why it is refused.
async fn found(client: &Client, path: &str, selector: &str) -> Result<usize, String> {
    let (code, list) = client.get(&format!("{path}?fieldSelector={}", selector.replace('=', "%3D"))).await;
    match code {
        StatusCode::OK => Ok(list["items"].as_array().map_or(0, Vec::len)),
        _ => Err(list["message"].as_str().unwrap_or_default().to_owned()),
    }
}

fn unknown(field: &str) -> Result<usize, String> {
    Err(format!("field label not supported: {field}"))
}

#[tokio::test]
async fn pods_are_selected_by_the_older_name_of_their_node_too() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut placed = pod("a");
    placed["spec"]["nodeName"] = "n1".into();
    assert_eq!(client.post(PODS, &placed).await.0, StatusCode::CREATED);
    client.merge(&format!("{PODS}/a/status"), &json!({"status": {"podIPs": [{"ip": "10.1.1.9"}]}})).await;
    for (selector, count) in [
        ("spec.host=n1", 1),
        ("spec.host=n2", 0),
        ("spec.host!=n2", 1),
        ("status.podIPs=10.1.1.9", 0),
        ("status.podIPs!=10.1.1.9", 1),
    ] {
        assert_eq!(found(&client, PODS, selector).await, Ok(count), "{selector}");
    }
}

#[tokio::test]
async fn events_are_selected_in_the_words_of_the_version() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let about = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    for (name, source, reporter) in [("a", "kubelet", "other"), ("b", "", "kubelet"), ("c", "", "")] {
        let event = json!({"metadata": {"name": name}, "involvedObject": about, "source": {"component": source},
            "reportingComponent": reporter, "reason": "R", "type": "Normal"});
        assert_eq!(client.post(EVENTS, &event).await.0, StatusCode::CREATED);
    }
    for (path, selector, wanted) in [
        (EVENTS, "source=kubelet", Ok(2)),
        (EVENTS, "source=other", Ok(0)),
        (EVENTS, "source=", Ok(1)),
        (EVENTS, "reportingComponent=kubelet", Ok(1)),
        (EVENTS, "involvedObject.name=p", Ok(3)),
        (EVENTS, "regarding.name=p", unknown("regarding.name")),
        (NEW_EVENTS, "regarding.name=p", Ok(3)),
        (NEW_EVENTS, "regarding.kind!=Pod", Ok(0)),
        (NEW_EVENTS, "reportingController=kubelet,reason=R,type=Normal", Ok(1)),
        (NEW_EVENTS, "metadata.name=a,metadata.namespace=default", Ok(1)),
        (NEW_EVENTS, "involvedObject.name=p", unknown("involvedObject.name")),
        (NEW_EVENTS, "reportingComponent=kubelet", unknown("reportingComponent")),
        (NEW_EVENTS, "source=kubelet", unknown("source")),
    ] {
        assert_eq!(found(&client, path, selector).await, wanted, "{path} {selector}");
    }
    let (code, _) = client.delete(&format!("{NEW_EVENTS}?fieldSelector=regarding.name%3Dp")).await;
    assert_eq!((code, found(&client, EVENTS, "").await), (StatusCode::OK, Ok(0)));
}

#[tokio::test]
async fn what_is_in_no_namespace_has_an_empty_one() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let all = found(&client, classes, "").await.unwrap();
    assert!(all > 0);
    for (selector, count) in [("metadata.namespace=x", 0), ("metadata.namespace=", all), ("metadata.namespace!=x", all)]
    {
        assert_eq!(found(&client, classes, selector).await, Ok(count), "{selector}");
    }
    for own in ["/api/v1/nodes", "/api/v1/namespaces", "/apis/certificates.k8s.io/v1/certificatesigningrequests"] {
        assert_eq!(found(&client, own, "metadata.namespace=x").await, unknown("metadata.namespace"), "{own}");
    }
}
