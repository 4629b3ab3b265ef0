//! The client against a real API server over TLS: connections, watches that outlive the server, and leadership.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use coracle_api::clock::{Clock, SystemClock};
use coracle_apiserver::{ApiServer, Config, UserInfo, store::embedded::Embedded};
use coracle_client::{
    Client, Event, EventType, Informers, LeaderLease, Recorder, Scope, connect_kubeconfig, connect_with, in_process,
    lease::Timing,
};
use coracle_pki::{Authority, Subject, Usage};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Event as CoreEvent};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
    config::Kubeconfig,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(30);

/// A server that can be stopped and started again over the same store, at the same address.
struct World {
    authority: Authority,
    store: Arc<Embedded>,
    address: SocketAddr,
    running: Option<(Arc<ApiServer>, CancellationToken, tokio::task::JoinHandle<()>)>,
}

impl World {
    async fn start() -> Self {
        coracle_client::install_crypto();
        let authority = Authority::create("test", Timestamp::now()).unwrap();
        let store = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
        let mut world = Self { authority, store, address: "127.0.0.1:0".parse().unwrap(), running: None };
        world.start_server().await;
        world
    }

    async fn start_server(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let server =
            ApiServer::start(Config::new(self.store.clone(), self.authority.cert_pem(), self.address)).await.unwrap();
        let identity = self.issue(&Subject::user("kube-apiserver"), Usage::Server);
        let tls = server.tls(&identity.cert_pem, &identity.key_pem).unwrap();
        let stop = CancellationToken::new();
        let (serving, token) = (server.clone(), stop.clone());
        let task = tokio::spawn(async move { serving.serve(listener, tls, token).await });
        self.running = Some((server, stop, task));
    }

    async fn stop_server(&mut self) {
        let (server, stop, task) = self.running.take().unwrap();
        stop.cancel();
        server.stop().await;
        task.await.unwrap();
    }

    fn issue(&self, subject: &Subject, usage: Usage) -> coracle_pki::Identity {
        let names = ["127.0.0.1".to_owned()];
        self.authority.issue(subject, &names, usage, Timestamp::now(), Duration::from_secs(3600)).unwrap()
    }

    fn kubeconfig(&self) -> Kubeconfig {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let identity = self.issue(&Subject::member("admin", "system:masters"), Usage::Client);
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("https://{}", self.address),
                "certificate-authority-data": STANDARD.encode(self.authority.cert_pem())}}],
            "users": [{"name": "u", "user": {"client-certificate-data": STANDARD.encode(identity.cert_pem),
                "client-key-data": STANDARD.encode(identity.key_pem)}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }))
        .unwrap()
    }

    async fn client(&self) -> Client {
        connect_kubeconfig(self.kubeconfig()).await.unwrap()
    }
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default", "labels": {"test": "client"}}}))
        .unwrap()
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_informer_outlives_the_server_and_misses_nothing() {
    let mut world = World::start().await;
    let client = world.client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    maps.create(&PostParams::default(), &map("before")).await.unwrap();
    maps.create(&PostParams::default(), &map("deleted")).await.unwrap();

    let informers = Informers::new(client.clone(), Scope::all());
    let informer = informers.scoped::<ConfigMap>(Scope::labelled("test=client"));
    let log = Arc::new(Mutex::new(Vec::new()));
    let sink = log.clone();
    let subscription = informer.subscribe(move |event: &Event<ConfigMap>| {
        let sign = if event.is_deleted() { "-" } else { "+" };
        sink.lock().push(format!("{sign}{}", event.object().metadata.name.as_deref().unwrap()));
    });
    in_time("the first list", informers.synced()).await;
    assert_eq!(*log.lock(), ["+before", "+deleted"]);

    world.stop_server().await;
    world.start_server().await;
    // Changed while the informer may not be connected yet.
    let server = world.running.as_ref().unwrap().0.clone();
    let direct: Api<ConfigMap> = Api::namespaced(in_process(server.service(UserInfo::admin())), "default");
    direct.delete("deleted", &DeleteParams::default()).await.unwrap();
    direct.create(&PostParams::default(), &map("after")).await.unwrap();
    let mut changes = informer.changes();
    in_time("the events after the restart", async {
        while informer.find("default", "after").is_none() {
            changes.changed().await.unwrap();
        }
    })
    .await;
    assert_eq!(*log.lock(), ["+before", "+deleted", "-deleted", "+after"], "each once, in order");
    drop(subscription);
    world.stop_server().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_opened_by_the_given_connector() {
    let mut world = World::start().await;
    let config = coracle_client::connection::config(world.kubeconfig(), None).await.unwrap();
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let connector = tower::service_fn(move |uri: http::Uri| {
        count.fetch_add(1, Ordering::Relaxed);
        let address = format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
        async move { tokio::net::TcpStream::connect(address).await.map(hyper_util::rt::TokioIo::new) }
    });
    let client = connect_with(config, connector).unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "kube-system");
    in_time("a list", maps.list(&Default::default())).await.unwrap();
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    world.stop_server().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_and_hands_over() {
    let mut world = World::start().await;
    let client = world.client().await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let timing = Timing {
        lease: Duration::from_secs(3),
        renew_deadline: Duration::from_secs(2),
        retry: Duration::from_millis(50),
    };
    let (sender, mut terms) = tokio::sync::mpsc::unbounded_channel();
    let mut stops = Vec::new();
    for name in ["a", "b"] {
        let stop = CancellationToken::new();
        let lease = LeaderLease::new(client.clone(), "kube-system", "test", name, clock.clone()).with_timing(timing);
        let sender = sender.clone();
        tokio::spawn(lease.run(stop.clone(), move |term| {
            let _ = sender.send(name);
            async move { term.cancelled().await }
        }));
        stops.push((name, stop));
    }
    let first = in_time("the first leader", terms.recv()).await.unwrap();
    let stop = stops.iter().find(|(name, _)| *name == first).map(|(_, stop)| stop.clone()).unwrap();
    assert!(terms.try_recv().is_err(), "there is one leader only");
    stop.cancel();
    let second = in_time("the next leader", terms.recv()).await.unwrap();
    assert_ne!(first, second);
    stops.iter().for_each(|(_, stop)| stop.cancel());
    world.stop_server().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_events_are_counted() {
    let mut world = World::start().await;
    let client = world.client().await;
    let recorder = Recorder::new(client.clone(), Arc::new(SystemClock::new()), "test", None);
    let object = Api::<ConfigMap>::namespaced(client.clone(), "default")
        .create(&PostParams::default(), &map("m"))
        .await
        .unwrap();
    for _ in 0..3 {
        recorder.event(&object, EventType::Warning, "Failed", "no");
    }
    recorder.event(&object, EventType::Normal, "Done", "yes");
    let informers = Informers::new(client, Scope::all());
    let events = informers.get::<CoreEvent>();
    let mut changes = events.changes();
    in_time("the last event", async {
        while !events.snapshot().iter().any(|event| event.reason.as_deref() == Some("Done")) {
            changes.changed().await.unwrap();
        }
    })
    .await;
    let snapshot = events.snapshot();
    let failed: Vec<_> = snapshot.iter().filter(|event| event.reason.as_deref() == Some("Failed")).collect();
    assert_eq!((failed.len(), failed[0].count), (1, Some(3)));
    assert_eq!(failed[0].involved_object.name.as_deref(), Some("m"));
    world.stop_server().await;
}
