//! What the server answers when it gives a request up: in text, as upstream's filters before all handlers do.

use crate::harness::{Client, Harness, LIMIT};
use axum::body::Body;
use coracle_api::clock::SystemClock;
use coracle_api::names::{Names, RandomNames};
use coracle_apiserver::UserInfo;
use coracle_apiserver::store::embedded::Embedded;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FLOWS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const PLAIN: &str = "text/plain; charset=utf-8";

async fn ask(client: &Client, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let (head, body) = client.0.clone().oneshot(request).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    (head.status, head.headers, text)
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).header("accept", "application/vnd.kubernetes.protobuf").body(Body::empty()).unwrap()
}

/// Has requests of a controller manager for lists of config maps go to a level without seats, which answers as `response` says.
/// Gives the client whose requests these are.
async fn without_seats(harness: &Harness, response: Value) -> Client {
    let admin = harness.admin();
    let level = json!({"metadata": {"name": "closed"}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 0, "limitResponse": response}}});
    assert_eq!(admin.post(&format!("{FLOWS}/prioritylevelconfigurations"), &level).await.0, StatusCode::CREATED);
    let schema = json!({"metadata": {"name": "maps"}, "spec": {"priorityLevelConfiguration": {"name": "closed"},
        "matchingPrecedence": 50, "rules": [{"subjects": [{"kind": "User", "user": {"name": "system:kube-controller-manager"}}],
            "resourceRules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["default"]}]}]}});
    assert_eq!(admin.post(&format!("{FLOWS}/flowschemas"), &schema).await.0, StatusCode::CREATED);
    let manager = harness.user(UserInfo::new("system:kube-controller-manager", &[]));
    let takes_effect = async {
        while manager.get(&format!("{MAPS}?timeout=100ms")).await.0 == StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, takes_effect).await.expect("the schema has an effect");
    manager
}

/// apiserver `server/filters/maxinflight.go`, tooManyRequests.
#[tokio::test]
async fn who_gets_no_seat_is_told_so_in_text() {
    let harness = Harness::start().await;
    let manager = without_seats(&harness, json!({"type": "Reject"})).await;
    let (code, headers, text) = ask(&manager, get(MAPS)).await;
    assert_eq!(code, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(text, "Too many requests, please try again later.\n");
    assert_eq!(
        (&headers["content-type"], &headers["x-content-type-options"]),
        (&PLAIN.parse().unwrap(), &"nosniff".parse().unwrap())
    );
    assert!(
        headers.contains_key("retry-after") && headers.contains_key("x-kubernetes-pf-flowschema-uid"),
        "{headers:?}"
    );
}

/// apiserver `server/filters/timeout.go`: whoever notices that the time is over has no codec.
#[tokio::test]
async fn who_waits_too_long_is_told_a_status_without_a_kind() {
    let harness = Harness::start().await;
    let queue = json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 9}});
    let manager = without_seats(&harness, queue).await;
    let (code, headers, text) = ask(&manager, get(&format!("{MAPS}?timeout=50ms"))).await;
    assert_eq!(code, StatusCode::GATEWAY_TIMEOUT);
    let expected = "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"Timeout: request did not complete within the allotted timeout\",\
        \"reason\":\"Timeout\",\"details\":{},\"code\":504}\n";
    assert_eq!(text, expected);
    assert_eq!(headers["content-type"], PLAIN);
    let figure = "apiserver_request_terminations_total{verb=\"LIST\",group=\"\",version=\"v1\",resource=\"configmaps\",\
        subresource=\"\",scope=\"namespace\",component=\"apiserver\",code=\"504\"} ";
    let (_, figures) = harness.admin().get("/metrics").await;
    assert!(figures.as_str().unwrap().contains(figure), "{figures}");
    assert!(!headers.contains_key("x-kubernetes-pf-flowschema-uid"), "{headers:?}");
}

/// Names that cannot be generated.
struct NoNames;

impl Names for NoNames {
    fn suffix(&self) -> String {
        panic!("there are no names")
    }

    fn uid(&self) -> String {
        RandomNames.uid()
    }
}

/// apiserver `server/filters/wrap.go`.
#[tokio::test]
async fn a_panic_is_told_in_text_and_is_one_requests_alone() {
    let store = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let harness = Harness::with(store, |config, _| config.names = Arc::new(NoNames)).await;
    let client = harness.admin();
    let body = json!({"metadata": {"generateName": "m-"}}).to_string();
    let request = Request::post(MAPS).header("content-type", "application/json").body(Body::from(body)).unwrap();
    let (code, headers, text) = ask(&client, request).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text, "This request caused apiserver to panic. Look in the logs for details.\n");
    assert_eq!(
        (&headers["content-type"], &headers["x-content-type-options"]),
        (&PLAIN.parse().unwrap(), &"nosniff".parse().unwrap())
    );
    assert_eq!(client.post(MAPS, &json!({"metadata": {"name": "m"}})).await.0, StatusCode::CREATED);
}

/// apiserver `util/flowcontrol`, `apf_controller_debug.go`.
#[tokio::test]
async fn who_waits_for_what_can_be_seen() {
    let harness = Harness::start().await;
    let (admin, admin_name) = (harness.admin(), UserInfo::admin().name);
    let queue = json!({"type": "Queue", "queuing": {"queues": 2, "handSize": 1, "queueLengthLimit": 9}});
    let manager = without_seats(&harness, queue).await;
    let page = async |name: &str| {
        let (code, headers, text) = ask(&admin, get(&format!("/debug/api_priority_and_fairness/{name}"))).await;
        assert_eq!((code, headers["content-type"].to_str().unwrap()), (StatusCode::OK, PLAIN), "{text}");
        text
    };
    let waits = tokio::spawn(async move { manager.get(&format!("{MAPS}?timeout=20s")).await });
    let requests = async {
        loop {
            let text = page("dump_requests?includeRequestDetails=1").await;
            if text.lines().any(|line| line.starts_with("closed,")) {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    let requests = tokio::time::timeout(LIMIT, requests).await.unwrap();
    let cells = |line: &str| -> Vec<String> { line.split(',').map(|cell| cell.trim().to_owned()).collect() };
    let lines: Vec<_> = requests.lines().map(cells).collect();
    assert_eq!(lines.len(), 3, "{requests}");
    assert!(requests.starts_with(
        "PriorityLevelName, FlowSchemaName, QueueIndex, RequestIndexInQueue, FlowDistingsher, ArriveTime, "
    ));
    assert_eq!((lines[0].len(), &lines[0][10]), (18, &"UserName".to_owned()));
    let arrived: jiff::Timestamp = lines[1][5].parse().unwrap();
    assert!(arrived <= jiff::Timestamp::now());
    let queue = lines[1][2].clone();
    let told: Vec<&str> = lines[1].iter().map(String::as_str).collect();
    assert_eq!((&told[..2], &told[3..5]), (&["closed", "maps"][..], &["0", ""][..]));
    let waiting = [
        "1",
        "0",
        "0s",
        "0001-01-01T00:00:00Z",
        "system:kube-controller-manager",
        "list",
        MAPS,
        "default",
        "",
        "v1",
        "configmaps",
        "",
    ];
    assert_eq!(told[6..], waiting);
    // Who asks runs, in a level without queues.
    let told: Vec<&str> = lines[2].iter().map(String::as_str).collect();
    let begun: jiff::Timestamp = told[9].parse().unwrap();
    assert!(begun >= told[5].parse().unwrap() && begun <= jiff::Timestamp::now(), "{told:?}");
    assert_eq!(told[..5], ["exempt", "exempt", "-1", "-1", ""]);
    let path = "/debug/api_priority_and_fairness/dump_requests";
    assert_eq!(told[6..9], ["1", "0", "0s"]);
    assert_eq!(told[10..], [&admin_name, "get", path, "", "", "", "", ""]);
    let levels = page("dump_priority_levels").await;
    assert!(
        levels
            .starts_with("PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, "),
        "{levels}"
    );
    let of = |text: &str, level: &str| -> Vec<Vec<String>> {
        text.lines().map(cells).filter(|line| line[0] == level).collect()
    };
    let closed = of(&levels, "closed");
    assert_eq!(closed[0][1..7], ["1", "false", "false", "1", "0", "0"]);
    assert!(
        closed[0][8].parse::<u64>().unwrap() + closed[0][9].parse::<u64>().unwrap() > 0,
        "who waited in vain: {levels}"
    );
    // Whoever looks is of this one.
    assert_eq!(of(&levels, "exempt")[0][1..6], ["0", "false", "false", "0", "1"]);
    let queues = of(&page("dump_queues").await, "closed");
    let pending: Vec<_> = queues.iter().map(|line| (line[1].as_str(), line[2].as_str(), line[6].as_str())).collect();
    let expected = |index: &'static str| if queue == index { (index, "1", "1") } else { (index, "0", "0") };
    assert_eq!(pending, [expected("0"), expected("1")]);
    waits.abort();
    // What has its seats, in a level with queues: its body does not come.
    let (body, receiver) = futures::channel::mpsc::unbounded::<Result<bytes::Bytes, std::io::Error>>();
    let request = Request::post(MAPS).header("content-type", "application/json").body(Body::from_stream(receiver));
    let manager = harness.user(UserInfo::new("system:kube-controller-manager", &[]));
    let runs = tokio::spawn(manager.0.clone().oneshot(request.unwrap()));
    let running = async {
        loop {
            let text = page("dump_requests?includeRequestDetails=1").await;
            match text.lines().map(cells).find(|line| line[0] == "workload-high") {
                Some(line) => return line,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let running = tokio::time::timeout(LIMIT, running).await.unwrap();
    assert_eq!((&*running[1], &*running[3], &*running[11]), ("kube-controller-manager", "-1", "create"), "{running:?}");
    let of_queue = |text: &str| of(text, "workload-high").into_iter().find(|line| line[1] == running[2]);
    let seen = of_queue(&page("dump_queues").await).expect("it is of a queue");
    assert_eq!(seen[2..5], ["0", "1", "1"], "{seen:?}");
    drop(body);
    assert_eq!(runs.await.unwrap().unwrap().status(), StatusCode::BAD_REQUEST);
    assert!(of(&page("dump_requests").await, "workload-high").is_empty());
    // Not for everybody, and not at other paths.
    let jane = harness.user(UserInfo::new("jane", &[]));
    let (code, _) = jane.get("/debug/api_priority_and_fairness/dump_queues").await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(ask(&admin, get("/debug/pprof")).await.0, StatusCode::NOT_FOUND);
}
