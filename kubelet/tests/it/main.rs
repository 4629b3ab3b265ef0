//! The kubelet against a real API server in this process and a runtime that runs nothing.

mod runtime;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::clock::SystemClock;
use coracle_apiserver::store::embedded::Embedded;
use coracle_apiserver::{ApiServer, Config as ServerConfig, UserInfo};
use coracle_client::in_process;
use coracle_kubelet::{Config, Progress};
use coracle_link::Place;
use coracle_pki::{Authority, Subject, Usage};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster of one node.
struct Cluster {
    client: Client,
    runtime: Runtime,
    progress: watch::Receiver<Progress>,
    _server: Arc<ApiServer>,
    _end: tokio_util::sync::DropGuard,
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = jiff::Timestamp::now();
        let authority = Authority::create("test", now).unwrap();
        let store = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
        let address = "127.0.0.1:1".parse().unwrap();
        let server = ApiServer::start(ServerConfig::new(store, authority.cert_pem(), address)).await.unwrap();
        let client = in_process(server.service(UserInfo::admin()));
        let runtime = Runtime::serve(&dir.path().join("cri.sock"));
        let (told, progress) = watch::channel(Progress::default());
        let shutdown = CancellationToken::new();
        let cluster =
            Self { client, runtime, progress, _server: server, _end: shutdown.clone().drop_guard(), dir, authority };
        cluster.kubelet(told, shutdown);
        cluster
    }

    fn kubelet(&self, progress: watch::Sender<Progress>, shutdown: CancellationToken) {
        let now = jiff::Timestamp::now();
        let subject = Subject::member("system:node:n1", "system:nodes");
        let serving = self.authority.issue(&subject, &["n1".into()], Usage::Server, now, PATIENCE * 100).unwrap();
        let config = Config {
            node_name: "n1".into(),
            node_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            place: Place::Current,
            port: 0,
            root_dir: self.dir.path().join("kubelet"),
            cri_socket: self.dir.path().join("cri.sock"),
            client: self.client.clone(),
            serving: watch::channel(serving).1,
            client_ca: self.authority.cert_pem().into(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            taints: Vec::new(),
            max_pods: 110,
            clock: Arc::new(SystemClock::new()),
            // The runtime makes no groups, and nothing is to be left of any.
            cgroup_parent: String::new(),
            reserved: "cpu=250m,memory=64Mi".parse().unwrap(),
            allowed_unsafe_sysctls: vec!["net.core.*".parse().unwrap()],
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            progress,
        };
        tokio::spawn(async move { coracle_kubelet::run(config, shutdown).await.unwrap() });
    }

    async fn ready(&mut self) {
        let ready = self.progress.wait_for(|progress| *progress == Progress::Ready);
        tokio::time::timeout(PATIENCE, ready).await.unwrap().unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!("n1");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    /// Waits until the pod's object is as wanted; says what it was like when it never is.
    async fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool + Send + Sync) -> Value {
        let holds = |pod: Option<&Pod>| pod.is_some_and(|pod| wanted(&serde_json::to_value(pod).unwrap()));
        match tokio::time::timeout(PATIENCE, await_condition(self.pods(), name, holds)).await {
            Ok(found) => serde_json::to_value(found.unwrap()).unwrap(),
            Err(_) => panic!("{name} stays {:#?}", self.pods().get_opt(name).await.unwrap().and_then(|pod| pod.status)),
        }
    }

    async fn until_gone(&self, name: &str) {
        let gone = |pod: Option<&Pod>| pod.is_none();
        tokio::time::timeout(PATIENCE, await_condition(self.pods(), name, gone)).await.unwrap().unwrap();
    }
}

fn phase(pod: &Value) -> &str {
    pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default()
}

fn waiting(pod: &Value) -> &str {
    pod.pointer("/status/containerStatuses/0/state/waiting/reason").and_then(Value::as_str).unwrap_or_default()
}

#[tokio::test]
async fn a_node_registers_and_beats() {
    let mut cluster = Cluster::start().await;
    cluster.ready().await;
    let node = Api::<Node>::all(cluster.client.clone()).get("n1").await.unwrap();
    assert_eq!(node.metadata.labels.unwrap().get("zone").map(String::as_str), Some("a"));
    let status = node.status.unwrap();
    assert_eq!(status.node_info.unwrap().container_runtime_version, "fake://1");
    // What is reserved, and what the node wants to keep free, is not for pods.
    let amount =
        |list: &BTreeMap<String, Quantity>, name: &str| coracle_api::quantity::Quantity::parse(&list[name].0).unwrap();
    let (capacity, allocatable) = (status.capacity.unwrap(), status.allocatable.unwrap());
    assert_eq!(amount(&capacity, "cpu").millis() - amount(&allocatable, "cpu").millis(), 250);
    assert!(amount(&capacity, "memory").units() - amount(&allocatable, "memory").units() >= 164 << 20);
    let leases = Api::<Lease>::namespaced(cluster.client.clone(), "kube-node-lease");
    let held = |lease: Option<&Lease>| {
        lease.and_then(|lease| lease.spec.as_ref()).is_some_and(|spec| spec.holder_identity.as_deref() == Some("n1"))
    };
    tokio::time::timeout(PATIENCE, await_condition(leases, "n1", held)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_pod_lives_and_dies() {
    let cluster = Cluster::start().await;
    let map = json!({"metadata": {"name": "settings"}, "data": {"mode": "fast"}});
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), "default");
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let container = json!({"name": "web", "image": "hello:v1", "args": ["--mode=$(MODE)", "$(IP)"],
        "env": [{"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "volumeMounts": [{"name": "settings", "mountPath": "/etc/settings"}]});
    let volumes = json!([{"name": "settings", "configMap": {"name": "settings"}}]);
    cluster
        .create("web", json!({"containers": [container], "volumes": volumes, "automountServiceAccountToken": false}))
        .await;
    let pod = cluster.until("web", |pod| phase(pod) == "Running").await;
    assert_eq!(pod["status"]["podIP"], "10.0.0.7");
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!((status["ready"].as_bool(), status["restartCount"].as_i64()), (Some(true), Some(0)));
    assert!(status["containerID"].as_str().unwrap().starts_with("fake://container-"));

    let config = cluster.runtime.config("web");
    assert_eq!(config.args, ["--mode=fast", "10.0.0.7"]);
    let mounted = config.mounts.iter().find(|mount| mount.container_path == "/etc/settings").unwrap();
    assert_eq!(std::fs::read_to_string(std::path::Path::new(&mounted.host_path).join("mode")).unwrap(), "fast");
    let hosts = config.mounts.iter().find(|mount| mount.container_path == "/etc/hosts").unwrap();
    assert!(std::fs::read_to_string(&hosts.host_path).unwrap().contains("10.0.0.7\tweb"));

    // It fails, and says why: it runs again at once.
    let message = config.mounts.iter().find(|mount| mount.container_path == "/dev/termination-log").unwrap();
    std::fs::write(&message.host_path, "no coffee").unwrap();
    cluster.runtime.end("web", 3);
    let restarted = |pod: &Value| {
        pod.pointer("/status/containerStatuses/0/restartCount") == Some(&json!(1)) && phase(pod) == "Running"
    };
    let pod = cluster
        .until("web", |pod| restarted(pod) && pod.pointer("/status/containerStatuses/0/state/running").is_some())
        .await;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((last["exitCode"].as_i64(), last["message"].as_str()), (Some(3), Some("no coffee")));
    // The second time it has to wait.
    cluster.runtime.end("web", 3);
    cluster.until("web", |pod| waiting(pod) == "CrashLoopBackOff").await;

    cluster.pods().delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until_gone("web").await;
    let left = || {
        !cluster.runtime.all().is_empty()
            || std::fs::read_dir(cluster.dir.path().join("kubelet/pods")).unwrap().next().is_some()
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while left() {
        assert!(tokio::time::Instant::now() < deadline, "left: {:?}", cluster.runtime.all());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_job_ends() {
    let cluster = Cluster::start().await;
    cluster
        .create("job", json!({"restartPolicy": "Never", "containers": [{"name": "job", "image": "hello:v1"}]}))
        .await;
    cluster.until("job", |pod| phase(pod) == "Running").await;
    cluster.runtime.end("job", 0);
    let pod = cluster.until("job", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let cluster = Cluster::start().await;
    cluster.create("image", json!({"containers": [{"name": "c", "image": "gone/x:v1"}]})).await;
    let gone = json!([{"configMapRef": {"name": "gone"}}]);
    cluster.create("config", json!({"containers": [{"name": "c", "image": "x:v1", "envFrom": gone}]})).await;
    let pod = cluster.until("image", |pod| waiting(pod) == "ErrImagePull").await;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert_eq!(message, "rpc error: code = NotFound desc = no such image");
    let pod = cluster.until("config", |pod| waiting(pod) == "CreateContainerConfigError").await;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert_eq!((message, phase(&pod)), ("configmap \"gone\" not found", "Pending"));
}

#[tokio::test]
async fn another_kubelet_takes_over() {
    let cluster = Cluster::start().await;
    cluster.create("web", json!({"containers": [{"name": "web", "image": "hello:v1"}]})).await;
    cluster.until("web", |pod| phase(pod) == "Running").await;
    let before = cluster.runtime.all();
    // A second kubelet of the same node finds everything as it is, and takes part: it changes nothing.
    let (told, mut progress) = watch::channel(Progress::default());
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    cluster.kubelet(told, shutdown);
    let ready = progress.wait_for(|progress| *progress == Progress::Ready);
    tokio::time::timeout(PATIENCE, ready).await.unwrap().unwrap();
    assert_eq!(cluster.runtime.all(), before);
    cluster.pods().delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until_gone("web").await;
}

#[tokio::test]
async fn a_pod_sets_what_the_administrator_allows() {
    let cluster = Cluster::start().await;
    for (name, parameter) in [("allowed", "net.core.somaxconn"), ("other", "kernel.msgmax")] {
        let sysctls = json!([{"name": parameter, "value": "1000"}]);
        let container = json!({"name": name, "image": "hello:v1"});
        cluster.create(name, json!({"securityContext": {"sysctls": sysctls}, "containers": [container]})).await;
    }
    let pod = cluster.until("other", |pod| phase(pod) == "Failed").await;
    let (reason, message) = (pod["status"]["reason"].as_str(), pod["status"]["message"].as_str());
    let why = "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted";
    assert_eq!((reason, message), (Some("SysctlForbidden"), Some(why)));
    cluster.until("allowed", |pod| phase(pod) == "Running").await;
}

#[tokio::test]
async fn containers_have_their_pods_users() {
    let cluster = Cluster::start().await;
    for (name, host_users) in [("own", false), ("nodes", true)] {
        let container = json!({"name": name, "image": "hello:v1"});
        cluster.create(name, json!({"hostUsers": host_users, "containers": [container]})).await;
    }
    for name in ["own", "nodes"] {
        cluster.until(name, |pod| phase(pod) == "Running").await;
    }
    let users = |name: &str| {
        let security = cluster.runtime.config(name).linux.unwrap().security_context.unwrap();
        security.namespace_options.unwrap().userns_options
    };
    let own = users("own").unwrap();
    assert!(own.uids == own.gids && own.uids[0].host_id >= 65_536 && own.uids[0].length == 65_536, "{own:?}");
    assert_eq!(users("nodes"), None);
}

/// The type, reason and message of each condition about resizes.
fn resize_conditions(pod: &Value) -> Vec<String> {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let text = |condition: &Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    let resize = conditions.iter().filter(|condition| text(condition, "type").starts_with("PodResize"));
    resize
        .map(|c| format!("{} {} {}", text(c, "type"), text(c, "reason"), text(c, "message")).trim().to_owned())
        .collect()
}

impl Cluster {
    async fn resize(&self, name: &str, resources: Value) {
        let patch = json!({"spec": {"containers": [{"name": name, "resources": resources}]}});
        let patch = kube::api::Patch::Strategic(patch);
        self.pods().patch_subresource("resize", name, &Default::default(), &patch).await.unwrap();
    }

    async fn until_resized(&self, name: &str, wanted: Value) -> Value {
        self.until(name, |pod| {
            pod.pointer("/status/containerStatuses/0/resources") == Some(&wanted) && resize_conditions(pod).is_empty()
        })
        .await
    }
}

#[tokio::test]
async fn a_pod_is_resized_where_it_runs() {
    let cluster = Cluster::start().await;
    let amounts = |cpu: &str, memory: &str| json!({"limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": "10m", "memory": "8Mi"}});
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    for (name, policy) in [("web", json!([])), ("slow", policy)] {
        let container =
            json!({"name": name, "image": "hello:v1", "resources": amounts("100m", "128Mi"), "resizePolicy": policy});
        cluster.create(name, json!({"containers": [container]})).await;
        let pod = cluster.until(name, |pod| phase(pod) == "Running").await;
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!(status["resources"], amounts("100m", "128Mi"));
        assert_eq!(status["allocatedResources"], json!({"cpu": "10m", "memory": "8Mi"}));
    }
    let before = cluster.runtime.all();
    cluster.resize("web", amounts("200m", "256Mi")).await;
    let pod = cluster.until_resized("web", amounts("200m", "256Mi")).await;
    assert_eq!(pod["status"]["observedGeneration"], pod["metadata"]["generation"]);
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    let given = cluster.runtime.resources("web").unwrap();
    assert_eq!((given.cpu_quota, given.memory_limit_in_bytes), (20_000, 256 << 20));
    assert_eq!(cluster.runtime.all(), before);

    // Less than it uses would have it killed.
    cluster.resize("web", amounts("200m", "40Mi")).await;
    let pod = cluster.until("web", |pod| resize_conditions(pod).iter().any(|text| text.contains("Error"))).await;
    let why = "PodResizeInProgress Error cannot decrease memory limits: attempting to set container \"web\" memory limit (41943040) below current usage (52428800)";
    assert_eq!(resize_conditions(&pod), [why]);
    assert_eq!(pod["status"]["containerStatuses"][0]["resources"], amounts("200m", "256Mi"));
    cluster.resize("web", amounts("200m", "64Mi")).await;
    cluster.until_resized("web", amounts("200m", "64Mi")).await;

    // More than the node has, ever.
    let huge = json!({"requests": {"cpu": "100000"}, "limits": {"cpu": "100000"}});
    cluster.resize("web", huge).await;
    let pod = cluster.until("web", |pod| !resize_conditions(pod).is_empty()).await;
    let text = &resize_conditions(&pod)[0];
    assert!(
        text.starts_with("PodResizePending Infeasible Node didn't have enough capacity: cpu, requested: 100000000"),
        "{text}"
    );
    cluster.resize("web", amounts("200m", "64Mi")).await;
    cluster.until_resized("web", amounts("200m", "64Mi")).await;

    // CPU goes without a restart, memory with one.
    cluster.resize("slow", amounts("300m", "128Mi")).await;
    let pod = cluster.until_resized("slow", amounts("300m", "128Mi")).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    cluster.resize("slow", amounts("300m", "256Mi")).await;
    let pod = cluster.until_resized("slow", amounts("300m", "256Mi")).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 1);
    let resources = cluster.runtime.config("slow").linux.unwrap().resources.unwrap();
    assert_eq!((resources.memory_limit_in_bytes, resources.cpu_quota), (256 << 20, 30_000));
}
