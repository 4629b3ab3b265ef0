//! A pod's CPU and memory changed while it runs: the kernel's limits, not only the words of the API.

use std::{fs, path::PathBuf};

use coracle_tests::Lab;
use serde_json::Value;

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "grow"}, "spec": {"containers": [
    {"name": "free", "image": "coracle/hello:v1", "args": ["serve", "8080"],
     "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}},
    {"name": "again", "image": "coracle/hello:v1", "args": ["serve", "8081"],
     "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}},
     "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]}]}}"#;

/// The directory of a container's cgroup for `controller` (v1), found by the container's id.
fn cgroup(controller: &str, id: &str) -> PathBuf {
    let mut open = vec![PathBuf::from("/sys/fs/cgroup").join(controller)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().contains(id) {
                return entry.path();
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
    panic!("no cgroup of {id} below {controller}");
}

fn number(controller: &str, id: &str, file: &str) -> u64 {
    fs::read_to_string(cgroup(controller, id).join(file)).unwrap().trim().parse().unwrap()
}

fn container(lab: &Lab, name: &str) -> (String, u64) {
    let pod: Value = serde_json::from_str(&lab.lite("get pod grow -o json").ok()).unwrap();
    let statuses = pod["status"]["containerStatuses"].as_array().unwrap();
    let status = statuses.iter().find(|status| status["name"] == name).unwrap();
    let id = status["containerID"].as_str().unwrap();
    (id.rsplit('/').next().unwrap().to_owned(), status["restartCount"].as_u64().unwrap())
}

fn resize(lab: &Lab, name: &str, cpu: &str, memory: &str) {
    let limits = format!(r#"{{"limits":{{"cpu":"{cpu}","memory":"{memory}"}}}}"#);
    let patch = format!(r#"{{"spec":{{"containers":[{{"name":"{name}","resources":{limits}}}]}}}}"#);
    let patched = lab.kubectl(&format!("patch pod grow --subresource resize -p {patch}")).ok();
    assert_eq!(patched, "pod/grow patched\n");
    let at = if name == "free" { 0 } else { 1 };
    let path = format!("{{.status.containerStatuses[{at}].resources.limits.memory}}={memory}");
    lab.lite(&format!("wait --for=jsonpath={path} pod/grow --timeout=60s")).ok();
    lab.lite("wait --for=condition=Ready pod/grow --timeout=60s").ok();
}

#[test]
fn a_pod_is_resized_where_it_runs() {
    let lab = Lab::up("resize", 1);
    lab.lite_with("apply -f -", POD).ok();
    lab.lite("wait --for=condition=Ready pod/grow --timeout=60s").ok();
    let (free, _) = container(&lab, "free");
    assert_eq!(number("memory", &free, "memory.limit_in_bytes"), 64 << 20);

    resize(&lab, "free", "300m", "96Mi");
    assert_eq!(container(&lab, "free"), (free.clone(), 0), "it goes on");
    assert_eq!(number("memory", &free, "memory.limit_in_bytes"), 96 << 20);
    assert_eq!(number("cpu", &free, "cpu.cfs_quota_us"), 30_000);

    let (before, _) = container(&lab, "again");
    resize(&lab, "again", "200m", "128Mi");
    let (after, restarts) = container(&lab, "again");
    assert!(after != before && restarts == 1, "{after} after {restarts} restarts");
    assert_eq!(number("memory", &after, "memory.limit_in_bytes"), 128 << 20);
    assert_eq!(container(&lab, "free"), (free, 0), "its neighbour goes on");
    let events = lab.lite("get events").ok();
    assert!(events.contains("ResizeStarted") && events.contains("ResizeCompleted"), "{events}");
}

const POOL: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pool"}, "spec": {
    "resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "300m", "memory": "96Mi"}}, "containers": [
    {"name": "a", "image": "coracle/hello:v1", "args": ["serve", "8080"]},
    {"name": "b", "image": "coracle/hello:v1", "args": ["serve", "8081"], "resources": {"limits": {"memory": "32Mi"}}}]}}"#;

const HUNGRY: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hungry"}, "spec": {
    "resources": {"requests": {"memory": "16Mi"}, "limits": {"memory": "64Mi"}}, "containers": [
    {"name": "a", "image": "coracle/hello:v1", "args": ["eat", "40"]}]}}"#;

/// KEP-2837: the pod's group has what the pod asks for as a whole, and its containers may share it.
#[test]
fn a_pod_shares_what_it_has_as_a_whole() {
    let lab = Lab::up("pool", 1);
    lab.lite_with("apply -f -", POOL).ok();
    lab.lite("wait --for=condition=Ready pod/pool --timeout=60s").ok();
    let pod: Value = serde_json::from_str(&lab.kubectl("get pod pool -o json").ok()).unwrap();
    assert_eq!(pod["spec"]["resources"]["requests"], serde_json::json!({"cpu": "200m", "memory": "32Mi"}));
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    let id = |at: usize| {
        let id = pod["status"]["containerStatuses"][at]["containerID"].as_str().unwrap();
        id.rsplit('/').next().unwrap().to_owned()
    };
    let of_pod = |controller: &str, file: &str| -> u64 {
        let group = cgroup(controller, &id(0));
        fs::read_to_string(group.parent().unwrap().join(file)).unwrap().trim().parse().unwrap()
    };
    assert_eq!(of_pod("memory", "memory.limit_in_bytes"), 96 << 20);
    assert_eq!((of_pod("cpu", "cpu.cfs_quota_us"), of_pod("cpu", "cpu.shares")), (30_000, 204));
    assert_eq!(number("memory", &id(0), "memory.limit_in_bytes"), 96 << 20, "the pod's, where it has none of its own");
    assert_eq!(number("memory", &id(1), "memory.limit_in_bytes"), 32 << 20);

    // KEP-5419: it grows where it runs. One container has the pod's limit, the other one of its own.
    let resize = |amounts: &str| {
        let patch = format!(r#"{{"spec":{{"resources":{amounts}}}}}"#);
        lab.kubectl(&format!("patch pod pool --subresource resize -p {patch}")).ok();
    };
    let until = |limit: &str| {
        lab.lite(&format!("wait --for=jsonpath={{.status.resources.limits.memory}}={limit} pod/pool --timeout=60s"))
            .ok();
    };
    resize(r#"{"requests":{"cpu":"250m"},"limits":{"cpu":"400m","memory":"128Mi"}}"#);
    until("128Mi");
    assert_eq!(of_pod("memory", "memory.limit_in_bytes"), 128 << 20);
    assert_eq!((of_pod("cpu", "cpu.cfs_quota_us"), of_pod("cpu", "cpu.shares")), (40_000, 256));
    assert_eq!(
        (number("memory", &id(0), "memory.limit_in_bytes"), number("cpu", &id(0), "cpu.cfs_quota_us")),
        (128 << 20, 40_000)
    );
    assert_eq!(number("memory", &id(1), "memory.limit_in_bytes"), 32 << 20, "it has a limit of its own");
    let pod: Value = serde_json::from_str(&lab.kubectl("get pod pool -o json").ok()).unwrap();
    assert_eq!(pod["status"]["allocatedResources"], serde_json::json!({"cpu": "250m", "memory": "32Mi"}));
    assert_eq!(pod["status"]["resources"]["limits"], serde_json::json!({"cpu": "400m", "memory": "128Mi"}));

    // And shrinks, but not below what is in use.
    resize(r#"{"limits":{"cpu":"300m","memory":"64Mi"}}"#);
    until("64Mi");
    assert_eq!((of_pod("memory", "memory.limit_in_bytes"), of_pod("cpu", "cpu.cfs_quota_us")), (64 << 20, 30_000));
    assert_eq!(number("memory", &id(0), "memory.limit_in_bytes"), 64 << 20);
    let node = lab.lite("get nodes -o jsonpath={.items[0].status.allocatable.cpu}").ok();
    resize(r#"{"requests":{"cpu":"900"},"limits":{"cpu":"900"}}"#);
    lab.lite("wait --for=jsonpath={.status.conditions[?(@.type==\"PodResizePending\")].reason}=Infeasible pod/pool --timeout=60s").ok();
    assert_eq!(of_pod("cpu", "cpu.cfs_quota_us"), 30_000, "a node of {node} cannot give that");
    lab.lite_with("apply -f -", HUNGRY).ok();
    lab.lite("wait --for=condition=Ready pod/hungry --timeout=60s").ok();
    assert!((0..1000).any(|_| lab.lite("logs hungry").ok().contains("ate")), "it has not eaten");
    let patch = r#"{"spec":{"resources":{"limits":{"memory":"32Mi"}}}}"#;
    lab.kubectl(&format!("patch pod hungry --subresource resize -p {patch}")).ok();
    let reason = r#"jsonpath={.status.conditions[?(@.type=="PodResizeInProgress")].reason}"#;
    lab.lite(&format!("wait --for={reason}=Error pod/hungry --timeout=60s")).ok();
    let told = lab.lite("get pod hungry -o json").ok();
    assert!(told.contains("attempting to set pod memory limit (33554432) below current usage"), "{told}");
    let greedy = POOL.replace("\"pool\"", "\"greedy\"").replace("\"200m\"", "\"900\"").replace("\"300m\"", "\"900\"");
    lab.lite_with("apply -f -", &greedy).ok();
    lab.lite("wait --for=condition=PodScheduled=false pod/greedy --timeout=60s").ok();
}

const FIRST: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "first"}, "spec": {
    "initContainers": [{"name": "wait", "image": "coracle/hello:v1", "args": ["serve", "8080"],
        "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}}],
    "containers": [{"name": "main", "image": "coracle/hello:v1", "args": ["serve", "8081"]}]}}"#;

/// An init container that runs before all others for as long as it likes.
#[test]
fn an_init_container_is_resized_while_it_runs() {
    let lab = Lab::up("resize-init", 1);
    lab.lite_with("apply -f -", FIRST).ok();
    lab.lite("wait --for=jsonpath={.status.initContainerStatuses[0].started}=true pod/first --timeout=60s").ok();
    let id = || {
        let pod: Value = serde_json::from_str(&lab.lite("get pod first -o json").ok()).unwrap();
        let id = pod["status"]["initContainerStatuses"][0]["containerID"].as_str().unwrap().to_owned();
        id.rsplit('/').next().unwrap().to_owned()
    };
    let before = id();
    assert_eq!(number("memory", &before, "memory.limit_in_bytes"), 64 << 20);
    let patch =
        r#"{"spec":{"initContainers":[{"name":"wait","resources":{"limits":{"cpu":"300m","memory":"96Mi"}}}]}}"#;
    lab.kubectl(&format!("patch pod first --subresource resize -p {patch}")).ok();
    let path = "{.status.initContainerStatuses[0].resources.limits.memory}=96Mi";
    lab.lite(&format!("wait --for=jsonpath={path} pod/first --timeout=60s")).ok();
    assert_eq!(id(), before, "it goes on");
    assert_eq!(number("memory", &before, "memory.limit_in_bytes"), 96 << 20);
    assert_eq!(number("cpu", &before, "cpu.cfs_quota_us"), 30_000);
}
