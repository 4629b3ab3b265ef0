//! More than the server can do at once: what waits is bounded, and nobody waits for who does not read.

use crate::harness::{Harness, LIMIT, pod};
use axum::body::Body;
use coracle_apiserver::UserInfo;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use std::sync::Arc;
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// This process's memory, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_that_do_not_read_cost_little_and_slow_nobody() {
    const WATCHERS: usize = 1000;
    const WRITES: usize = 400;
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(MAPS, &json!({"metadata": {"name": "a"}, "data": {"n": "0"}})).await;
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        watchers.push(client.watch(&format!("{MAPS}?watch=1")).await);
    }
    let before = resident();
    let big = "x".repeat(64 << 10);
    for number in 1..=WRITES {
        let patch = json!({"data": {"n": number.to_string(), "big": big}});
        let (code, status) = client.merge(&format!("{MAPS}/a"), &patch).await;
        assert_eq!(code, StatusCode::OK, "{status}");
    }
    // Every watcher was owed 25 MiB, all of them 25 GiB.
    let grown = resident().saturating_sub(before);
    assert!(grown < 400, "{grown} MiB more");
    let mut cut_off = 0;
    for mut watcher in watchers {
        let mut last = None;
        while let Some(frame) = watcher.next().await {
            last = Some(frame);
            if last.as_ref().is_some_and(|frame| frame["object"]["data"]["n"].as_str() == Some(&WRITES.to_string())) {
                break;
            }
        }
        cut_off += usize::from(last.is_some_and(|frame| frame["object"]["code"] == 410));
    }
    assert_eq!(cut_off, WATCHERS, "who is far behind is told so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_full_lists_share_what_they_send() {
    const LISTS: usize = 200;
    const OBJECTS: usize = 600;
    let harness = Harness::start().await;
    let client = harness.admin();
    let big = "x".repeat(32 << 10);
    for nth in 0..OBJECTS {
        let map = json!({"metadata": {"name": format!("m{nth}")}, "data": {"big": big}});
        assert_eq!(client.post(MAPS, &map).await.0, StatusCode::CREATED);
    }
    let before = resident();
    // None of these is read until all are there: 3.7 GiB, if each had its own.
    let lists = (0..LISTS).map(|_| client.0.clone().oneshot(Request::get(MAPS).body(Body::empty()).unwrap()));
    let answers = futures::future::join_all(lists).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 400, "{grown} MiB more");
    for answer in answers {
        let mut body = answer.unwrap().into_body();
        let mut length = 0;
        while let Some(frame) = tokio::time::timeout(LIMIT, body.frame()).await.unwrap() {
            length += frame.unwrap().data_ref().map_or(0, |data| data.len());
        }
        assert!(length > OBJECTS * big.len(), "{length}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_cannot_take_every_turn() {
    let harness = Arc::new(Harness::start().await);
    let greedy = harness.user(UserInfo::new("system:kube-controller-manager", &[]));
    // Bodies that do not come hold every seat that one flow may have, and fill the queues of its hand.
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..1200 {
        let (sender, receiver) = futures::channel::mpsc::unbounded::<Result<bytes::Bytes, std::io::Error>>();
        let body = Body::from_stream(receiver);
        let request =
            Request::post("/api/v1/namespaces/default/pods").header("content-type", "application/json").body(body);
        let answer = tokio::spawn(greedy.0.clone().oneshot(request.unwrap()));
        held.push((sender, answer));
    }
    let metrics = |name: &str| {
        let (client, name) = (harness.admin(), name.to_owned());
        async move {
            let (_, text) = client.get("/metrics").await;
            let line = text.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned));
            line.and_then(|value| value.trim().parse::<f64>().ok())
                .map(|value| value as usize)
                .unwrap_or_else(|| panic!("{name} in {text}"))
        }
    };
    while metrics("apiserver_current_inqueue_requests{request_kind=\"mutating\"}").await < 300 {
        tokio::task::yield_now().await;
    }
    while held.iter().filter(|(_, answer)| answer.is_finished()).count() < 800 {
        tokio::task::yield_now().await;
    }
    // 98 seats are workload-high's, and more when it borrows; a quarter of them is for other flows.
    let seats = metrics("apiserver_flowcontrol_current_limit_seats{priority_level=\"workload-high\"}").await;
    // The figures are of the last second that is over.
    let running = loop {
        match metrics("apiserver_current_inflight_requests{request_kind=\"mutating\"}").await {
            ..74 => tokio::task::yield_now().await,
            running => break running,
        }
    };
    assert!(seats >= 98 && running <= seats - seats / 4, "{running} of {seats}");
    // Other flows of the level are let in at once all the same, other levels anyway, and so are streams.
    let other = harness.user(UserInfo::new("system:kube-controller-manager", &[]));
    assert_eq!(other.get("/api/v1/namespaces/kube-system/pods").await.0, StatusCode::OK);
    let admin = harness.admin();
    let modest = tokio::spawn(async move { admin.post("/api/v1/namespaces/default/pods", &pod("modest")).await });
    let admin = harness.admin();
    assert_eq!(admin.get("/api/v1/namespaces/default/pods").await.0, StatusCode::OK);
    let mut watch = admin.watch("/api/v1/namespaces/default/pods?watch=1").await;
    let (code, answer) = tokio::time::timeout(LIMIT, modest).await.unwrap().unwrap();
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    assert_eq!(watch.seen().await, ("ADDED".into(), "modest".into()));
    let (senders, answers): (Vec<_>, Vec<_>) = held.into_iter().unzip();
    drop(senders);
    for answer in answers {
        let answer = answer.await.unwrap().unwrap();
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            // The more are refused, the later they may come again.
            let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=32).contains(&seconds), "{seconds}");
            refused += 1;
        }
    }
    assert!(refused >= 800, "{refused} were turned away");
}

#[tokio::test]
async fn metrics_are_upstreams_and_have_no_labels_of_clients_making() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(MAPS, &json!({"metadata": {"name": "a"}})).await;
    client.post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "b"}})).await;
    assert_eq!(client.get("/apis/made.up/v7/inventions").await.0, StatusCode::NOT_FOUND);
    assert_eq!(client.get(&format!("{MAPS}/a/inventions")).await.0, StatusCode::NOT_FOUND);
    let jane = harness.user(UserInfo::new("jane", &[]));
    assert_eq!(jane.get("/apis/made.up/v7/inventions").await.0, StatusCode::FORBIDDEN);
    assert_eq!(client.get("/readyz").await.0, StatusCode::OK);
    assert_eq!(client.get("/readyz/ping").await.0, StatusCode::OK);
    let _watch = client.watch(&format!("{MAPS}?watch=true")).await;
    let (_, text) = client.get("/metrics").await;
    let text = text.as_str().unwrap();
    for line in [
        "apiserver_request_total{verb=\"GET\",group=\"\",version=\"\",resource=\"\",subresource=\"/readyz\",scope=\"\",component=\"\",dry_run=\"\",code=\"200\"} 1",
        "apiserver_longrunning_requests{verb=\"WATCH\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",scope=\"namespace\",component=\"apiserver\"} 1",
        "apiserver_request_total{verb=\"POST\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",scope=\"namespace\",component=\"apiserver\",dry_run=\"\",code=\"201\"} 1",
        "apiserver_request_total{verb=\"POST\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",scope=\"namespace\",component=\"apiserver\",dry_run=\"All\",code=\"201\"} 1",
        "apiserver_request_total{verb=\"LIST\",group=\"\",version=\"\",resource=\"\",subresource=\"\",scope=\"\",component=\"apiserver\",dry_run=\"\",code=\"404\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    for name in [
        "apiserver_current_inflight_requests{request_kind=\"mutating\"} ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_cpu_seconds_total ",
        "kubernetes_build_info{",
        "apiserver_storage_objects{resource=\"configmaps\"} ",
        "apiserver_resource_objects{group=\"\",resource=\"configmaps\"} ",
        "apiserver_resource_objects{group=\"apps\",resource=\"deployments\"} 0",
        "process_virtual_memory_bytes ",
        "process_max_fds ",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} in {text}");
    }
    assert!(!text.contains("inventions") && !text.contains("made.up"), "{text}");
}

#[tokio::test]
async fn schemas_and_levels_decide_who_waits_for_whom() {
    const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let harness = Harness::start().await;
    let admin = harness.admin();
    let uid = |path: String| {
        let admin = harness.admin();
        async move { admin.get(&format!("{GROUP}/{path}")).await.1["metadata"]["uid"].as_str().unwrap().to_owned() }
    };
    let manager = harness.user(UserInfo::new("system:kube-controller-manager", &[]));
    let marks = |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = manager.0.clone().oneshot(request);
        async move {
            let answer = answer.await.unwrap();
            let mark = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            (answer.status(), mark("x-kubernetes-pf-flowschema-uid"), mark("x-kubernetes-pf-prioritylevel-uid"))
        }
    };
    let level = uid("prioritylevelconfigurations/workload-high".into()).await;
    let schema = uid("flowschemas/kube-controller-manager".into()).await;
    assert_eq!(marks(MAPS).await, (StatusCode::OK, schema, level));

    // A level that has no seats, and a schema that sends config maps there.
    let level = json!({"metadata": {"name": "closed"}, "spec": {"type": "Limited", "limited":
        {"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}}}});
    assert_eq!(admin.post(&format!("{GROUP}/prioritylevelconfigurations"), &level).await.0, StatusCode::CREATED);
    let schema = json!({"metadata": {"name": "maps"}, "spec": {"priorityLevelConfiguration": {"name": "closed"},
        "matchingPrecedence": 50, "rules": [{"subjects": [{"kind": "User", "user": {"name": "system:kube-controller-manager"}}],
            "resourceRules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["default"]}]}]}});
    assert_eq!(admin.post(&format!("{GROUP}/flowschemas"), &schema).await.0, StatusCode::CREATED);
    let wanted = uid("flowschemas/maps".into()).await;
    let deadline = tokio::time::Instant::now() + LIMIT;
    let closed = loop {
        let (code, schema, level) = marks(MAPS).await;
        if schema == wanted {
            break (code, level);
        }
        assert!(tokio::time::Instant::now() < deadline, "the schema has no effect");
        // The server has this thread alone, too: a request that waits for nothing lets it do nothing else.
        tokio::task::yield_now().await;
    };
    assert_eq!(closed, (StatusCode::TOO_MANY_REQUESTS, uid("prioritylevelconfigurations/closed".into()).await));
    // The administrator's requests wait for nobody's.
    assert_eq!(admin.get(MAPS).await.0, StatusCode::OK);
    assert_eq!(marks("/api/v1/namespaces/kube-system/configmaps").await.0, StatusCode::OK);
}

#[tokio::test]
async fn schemas_say_whether_their_level_is_there_and_figures_what_becomes_of_requests() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let rule = json!({"subjects": [{"kind": "User", "user": {"name": "nobody"}}], "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"],
        "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}]});
    let schema = json!({"metadata": {"name": "tides"}, "spec": {"priorityLevelConfiguration": {"name": "sea"}, "rules": [rule]}});
    assert_eq!(client.post(&format!("{group}/flowschemas"), &schema).await.0, StatusCode::CREATED);
    let dangling = async |status: &str| loop {
        let (_, schema) = client.get(&format!("{group}/flowschemas/tides")).await;
        let condition = &schema["status"]["conditions"][0];
        if condition["status"] == status {
            return (condition["type"].clone(), condition["reason"].clone(), condition["message"].clone());
        }
        tokio::task::yield_now().await;
    };
    let about = "This FlowSchema references the PriorityLevelConfiguration object named \"sea\"";
    let expected = (json!("Dangling"), json!("NotFound"), json!(format!("{about} but there is no such object")));
    assert_eq!(tokio::time::timeout(LIMIT, dangling("True")).await.unwrap(), expected);
    let level = json!({"metadata": {"name": "sea"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 5,
        "lendablePercent": 50, "borrowingLimitPercent": 100, "limitResponse": {"type": "Reject"}}}});
    assert_eq!(client.post(&format!("{group}/prioritylevelconfigurations"), &level).await.0, StatusCode::CREATED);
    let expected = (json!("Dangling"), json!("Found"), json!(format!("{about} and it exists")));
    assert_eq!(tokio::time::timeout(LIMIT, dangling("False")).await.unwrap(), expected);

    for nth in 0..20 {
        let text = "x".repeat(17_000);
        let map = json!({"metadata": {"name": format!("m{nth}")}, "data": {"text": text}});
        assert_eq!(client.post(MAPS, &map).await.0, StatusCode::CREATED);
    }
    // What a list takes is estimated by what the cache holds, which may be a moment behind the writes; a list waits for it.
    client.get(MAPS).await;
    let figure = async |name: &str| {
        let (_, text) = client.get("/metrics").await;
        let line = text.as_str().unwrap().lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    };
    let exempt = "{priority_level=\"exempt\",flow_schema=\"exempt\"}";
    let seats = format!("apiserver_flowcontrol_work_estimated_seats_sum{exempt}");
    let (before, dispatched) =
        (figure(&seats).await, format!("apiserver_flowcontrol_dispatched_requests_total{exempt}"));
    assert!(figure(&dispatched).await >= 20.0);
    // A seat for each 100 KB; asking for the figures takes one each time.
    client.get(&format!("{MAPS}?limit=10")).await;
    client.get(MAPS).await;
    client.get(&format!("{MAPS}?limit=10&labelSelector=a")).await;
    assert_eq!(figure(&seats).await - before, 2.0 + 4.0 + 2.0 + 2.0);
    // A write takes one for each ten who are told of it.
    let mut watches = Vec::new();
    for _ in 0..25 {
        watches.push(client.watch(&format!("{MAPS}?watch=1")).await);
    }
    let before = figure(&seats).await;
    client.merge(&format!("{MAPS}/m1"), &json!({"data": {"text": "y"}})).await;
    assert_eq!(figure(&seats).await - before, 3.0 + 1.0);
    drop(watches);
    // 600 seats, of 250 shares with the new ones.
    let of = "{priority_level=\"sea\"}";
    let limits = ["nominal_limit_seats", "lower_limit_seats", "upper_limit_seats", "current_limit_seats"];
    for (name, seats) in limits.into_iter().zip([12.0, 6.0, 24.0, 12.0]) {
        assert_eq!(figure(&format!("apiserver_flowcontrol_{name}{of}")).await, seats, "{name}");
    }
    for name in [
        "rejected_requests_total{priority_level=\"exempt\",flow_schema=\"exempt\",reason=\"queue-full\"}",
        "current_inqueue_requests{priority_level=\"exempt\",flow_schema=\"exempt\"}",
        "current_executing_requests{priority_level=\"exempt\",flow_schema=\"exempt\"}",
        "current_executing_seats{priority_level=\"exempt\",flow_schema=\"exempt\"}",
        "request_wait_duration_seconds_count{priority_level=\"exempt\",flow_schema=\"exempt\",execute=\"true\"}",
        "request_execution_seconds_count{priority_level=\"exempt\",flow_schema=\"exempt\"}",
        "demand_seats_smoothed{priority_level=\"workload-low\"}",
    ] {
        figure(&format!("apiserver_flowcontrol_{name}")).await;
    }
}

#[tokio::test]
async fn a_request_that_waits_for_its_turn_is_given_up_when_its_client_would() {
    const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let harness = Harness::start().await;
    let admin = harness.admin();
    let level = json!({"metadata": {"name": "stuck"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 0,
        "limitResponse": {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 9}}}}});
    assert_eq!(admin.post(&format!("{GROUP}/prioritylevelconfigurations"), &level).await.0, StatusCode::CREATED);
    let schema = json!({"metadata": {"name": "maps"}, "spec": {"priorityLevelConfiguration": {"name": "stuck"},
        "matchingPrecedence": 50, "rules": [{"subjects": [{"kind": "User", "user": {"name": "system:kube-controller-manager"}}],
            "resourceRules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["default"]}]}]}});
    assert_eq!(admin.post(&format!("{GROUP}/flowschemas"), &schema).await.0, StatusCode::CREATED);
    let manager = harness.user(UserInfo::new("system:kube-controller-manager", &[]));
    let deadline = tokio::time::Instant::now() + LIMIT;
    let (code, status) = loop {
        let answer = manager.get(&format!("{MAPS}?timeout=200ms")).await;
        if answer.0 != StatusCode::OK {
            break answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "the schema has no effect");
        tokio::task::yield_now().await;
    };
    assert_eq!(code, StatusCode::GATEWAY_TIMEOUT, "{status}");
    assert_eq!(status["message"], "Timeout: request did not complete within the allotted timeout");
    // It was told late, and served in no time.
    let (_, text) = admin.get("/metrics").await;
    let sum = |name: &str, dry_run: &str| {
        let of = format!(
            "{{verb=\"LIST\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",scope=\"namespace\",component=\"apiserver\"{dry_run}}}"
        );
        let line = text.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&format!("{name}_sum{of} ")));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    };
    let (all, served) =
        (sum("apiserver_request_duration_seconds", ",dry_run=\"\""), sum("apiserver_request_sli_duration_seconds", ""));
    assert!(all >= 0.2 && all - served >= 0.19, "{all} {served}");
}

/// A watch that begins with what there is holds seats as a list of it would, until that is sent (apiserver
/// `util/flowcontrol/request`, `list_work_estimator.go`, and `endpoints/handlers`, where a watch is initialized).
#[tokio::test]
async fn a_watch_holds_the_seats_of_its_first_list_until_it_is_sent() {
    const OBJECTS: usize = 20;
    let harness = Harness::start().await;
    let client = harness.admin();
    for nth in 0..OBJECTS {
        let map = json!({"metadata": {"name": format!("m{nth}")}, "data": {"text": "x".repeat(17_000)}});
        assert_eq!(client.post(MAPS, &map).await.0, StatusCode::CREATED);
    }
    // The estimate is of what the cache holds; a list waits until that is all.
    client.get(MAPS).await;
    let figure = async |name: &str| {
        let name = format!("apiserver_flowcontrol_{name}{{priority_level=\"exempt\",flow_schema=\"exempt\"}}");
        let (_, text) = client.get("/metrics").await;
        let line = text.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned));
        line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    };
    // Whoever asks for figures has a seat meanwhile.
    let executing = async |wanted: f64| {
        while figure("current_executing_seats").await != wanted + 1.0 {
            tokio::task::yield_now().await;
        }
    };
    let executing = async |wanted: f64| tokio::time::timeout(LIMIT, executing(wanted)).await.expect("as many seats");
    let stream = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    executing(0.0).await;
    let before = figure("work_estimated_seats_sum").await;
    // 340 KB, and what asked for the figures.
    let mut watch = client.watch(&format!("{MAPS}?{stream}")).await;
    assert_eq!(figure("work_estimated_seats_sum").await - before, 4.0 + 1.0);
    executing(4.0).await;
    // One that is for a single name, and one that begins with nothing: it has begun when it answers.
    let one = client.watch(&format!("{MAPS}?{stream}&fieldSelector=metadata.name=m3")).await;
    let (_, list) = client.get(MAPS).await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let plain = client.watch(&format!("{MAPS}?watch=1&resourceVersion={revision}")).await;
    executing(5.0).await;
    for _ in 0..OBJECTS {
        assert_eq!(watch.seen().await.0, "ADDED");
    }
    assert_eq!(watch.seen().await.0, "BOOKMARK");
    executing(1.0).await;
    // It goes on without them, and who leaves before the list is sent gives them back.
    client.merge(&format!("{MAPS}/m1"), &json!({"data": {"text": "y"}})).await;
    assert_eq!(watch.seen().await, ("MODIFIED".into(), "m1".into()));
    drop(one);
    executing(0.0).await;
    drop((watch, plain));
}
