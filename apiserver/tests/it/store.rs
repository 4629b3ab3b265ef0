//! The store's contract, over every implementation.

use crate::harness::{LIMIT, authority, identity};
use crate::model::ModelStore;
use coracle_api::clock::{ManualClock, SystemClock};
use coracle_apiserver::store::embedded::Embedded;
use coracle_apiserver::store::etcd::{Etcd, EtcdConfig};
use coracle_apiserver::store::{Batch, Batches, Compare, Op, Outcome, Range, Revision, Store, StoreError, Txn, Watch};
use coracle_pki::{Authority, Subject, Usage};
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    commit(store, Txn { compare: vec![], ops: vec![Op::put(key, value.to_owned())] }).await
}

async fn commit(store: &dyn Store, txn: Txn) -> Revision {
    match store.txn(txn).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict(current) => panic!("conflict with {current:?}"),
    }
}

async fn keys(store: &dyn Store, range: Range) -> Vec<String> {
    store
        .range(range)
        .await
        .unwrap()
        .records
        .iter()
        .map(|record| format!("{}={}", record.key, String::from_utf8_lossy(&record.value)))
        .collect()
}

fn under(prefix: &str) -> Range {
    Range { prefix: prefix.to_owned(), ..Range::default() }
}

/// Events until `revision` is reached, as text.
async fn events_until(batches: &mut Batches, revision: Revision) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let Batch { revision: reached, events } =
            tokio::time::timeout(LIMIT, batches.next()).await.unwrap().unwrap().unwrap();
        for event in events {
            assert!(event.modified <= reached);
            let text = |value: &Option<bytes::Bytes>| {
                value.as_ref().map_or("-".to_owned(), |value| String::from_utf8_lossy(value).into_owned())
            };
            seen.push(format!("{} {} <- {}", event.key, text(&event.value), text(&event.previous)));
        }
        if reached >= revision {
            return seen;
        }
    }
}

async fn contract(store: Arc<dyn Store>) {
    transactions(&*store).await;
    ranges(&*store).await;
    watches(&*store).await;
    many_writers(store.clone()).await;
    compaction(&*store).await;
}

async fn transactions(store: &dyn Store) {
    let before = store.revision().await.unwrap();
    let first = commit(
        store,
        Txn { compare: vec![Compare::absent("/t/a")], ops: vec![Op::put("/t/a", "1"), Op::put("/t/b", "1")] },
    )
    .await;
    assert_eq!(first, before + 1, "one transaction, one revision");
    assert_eq!(store.revision().await.unwrap(), first);
    let a = store.get("/t/a").await.unwrap().unwrap();
    assert_eq!((a.created, a.modified, &a.value[..]), (first, first, &b"1"[..]));

    let outcome = store
        .txn(Txn {
            compare: vec![Compare::absent("/t/none"), Compare::absent("/t/a")],
            ops: vec![Op::put("/t/none", "x")],
        })
        .await
        .unwrap();
    assert_eq!(outcome, Outcome::Conflict(vec![None, Some(a.clone())]));
    assert_eq!(store.revision().await.unwrap(), first, "a conflict writes nothing");
    assert_eq!(store.get("/t/none").await.unwrap(), None);

    let second = commit(
        store,
        Txn { compare: vec![Compare::modified("/t/a", first)], ops: vec![Op::put("/t/a", "2"), Op::delete("/t/b")] },
    )
    .await;
    let a = store.get("/t/a").await.unwrap().unwrap();
    assert_eq!((a.created, a.modified), (first, second));
    assert_eq!(store.get("/t/b").await.unwrap(), None);
    let outcome = store
        .txn(Txn { compare: vec![Compare::modified("/t/a", first)], ops: vec![Op::delete("/t/a")] })
        .await
        .unwrap();
    assert_eq!(outcome, Outcome::Conflict(vec![Some(a)]));

    assert_eq!(
        commit(store, Txn { compare: vec![], ops: vec![Op::delete("/t/b")] }).await,
        second,
        "nothing to delete, nothing written"
    );
    let third = put(store, "/t/b", "again").await;
    assert_eq!(store.get("/t/b").await.unwrap().unwrap().created, third, "a new life");

    // Two revisions, one after the other.
    let mut batches = store.watch(Watch { prefix: "/t/".into(), from: third + 1, previous: false }).await.unwrap();
    let both = Txn { compare: vec![Compare::modified("/t/b", third)], ops: vec![Op::put("/t/b", "last")] };
    let gone = store.txn_then(both.clone(), vec![Op::delete("/t/b")]).await.unwrap();
    assert_eq!(gone, Outcome::Committed(third + 2));
    assert_eq!(events_until(&mut batches, third + 2).await, ["/t/b last <- -", "/t/b - <- -"]);
    let at = |at| Range { at: Some(at), ..under("/t/b") };
    assert_eq!(keys(store, at(third + 1)).await, ["/t/b=last"]);
    assert!(keys(store, at(third + 2)).await.is_empty());
    let lost = store.txn_then(both, vec![Op::delete("/t/b")]).await.unwrap();
    assert_eq!(lost, Outcome::Conflict(vec![None]));
    assert_eq!(store.revision().await.unwrap(), third + 2);

    let twice = Txn { compare: vec![], ops: vec![Op::put("/t/c", "1"), Op::delete("/t/c")] };
    assert!(matches!(store.txn(twice).await, Err(StoreError::Invalid(_))));
}

async fn ranges(store: &dyn Store) {
    for (key, value) in [("/r/a", "1"), ("/r/b/x", "1"), ("/r/b/y", "1"), ("/r/c", "1"), ("/rr", "1")] {
        put(store, key, value).await;
    }
    let then = store.revision().await.unwrap();
    put(store, "/r/a", "2").await;
    commit(store, Txn { compare: vec![], ops: vec![Op::delete("/r/c")] }).await;
    put(store, "/r/d", "2").await;
    assert_eq!(keys(store, under("/r/")).await, ["/r/a=2", "/r/b/x=1", "/r/b/y=1", "/r/d=2"]);
    assert_eq!(
        keys(store, Range { at: Some(then), ..under("/r/") }).await,
        ["/r/a=1", "/r/b/x=1", "/r/b/y=1", "/r/c=1"]
    );
    assert_eq!(keys(store, Range { from: Some("/r/b/y".into()), ..under("/r/") }).await, ["/r/b/y=1", "/r/d=2"]);
    assert_eq!(keys(store, Range { from: Some("/r/b/".into()), ..under("/r/b/y") }).await, ["/r/b/y=1"]);
    let page = store.range(Range { limit: 2, at: Some(then), ..under("/r/") }).await.unwrap();
    assert_eq!((page.records.len(), page.more, page.revision), (2, true, then));
    let page = store.range(Range { limit: 4, ..under("/r/") }).await.unwrap();
    assert!(!page.more);
    let future = Range { at: Some(store.revision().await.unwrap() + 100), ..under("/r/") };
    assert!(matches!(store.range(future).await, Err(StoreError::Future { .. })));
}

async fn watches(store: &dyn Store) {
    let first = put(store, "/w/a", "1").await;
    put(store, "/other", "1").await;
    put(store, "/w/a", "2").await;
    let mut batches = store.watch(Watch { prefix: "/w/".into(), from: first, previous: true }).await.unwrap();
    let last = commit(store, Txn { compare: vec![], ops: vec![Op::delete("/w/a"), Op::put("/w/b", "3")] }).await;
    assert_eq!(events_until(&mut batches, last).await, ["/w/a 1 <- -", "/w/a 2 <- 1", "/w/a - <- 2", "/w/b 3 <- -"]);
    // From the future: nothing until then.
    let mut batches = store.watch(Watch { prefix: "/w/".into(), from: last + 2, previous: false }).await.unwrap();
    put(store, "/w/c", "early").await;
    let late = put(store, "/w/c", "late").await;
    assert_eq!(events_until(&mut batches, late).await, ["/w/c late <- -"]);
}

/// Writers that race for one counter and for their own keys: nothing is lost, nothing is seen twice, in order.
async fn many_writers(store: Arc<dyn Store>) {
    const WRITERS: usize = 16;
    const WRITES: usize = 25;
    put(&*store, "/m/counter", "0").await;
    let from = store.revision().await.unwrap() + 1;
    let mut batches = store.watch(Watch { prefix: "/m/".into(), from, previous: false }).await.unwrap();
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for write in 0..WRITES {
                    loop {
                        let counter = store.get("/m/counter").await.unwrap().unwrap();
                        let next: usize = String::from_utf8_lossy(&counter.value).parse::<usize>().unwrap() + 1;
                        let ops = vec![
                            Op::put("/m/counter", next.to_string()),
                            Op::put(format!("/m/{writer}"), write.to_string()),
                        ];
                        let txn = Txn { compare: vec![Compare::modified("/m/counter", counter.modified)], ops };
                        if let Outcome::Committed(_) = store.txn(txn).await.unwrap() {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let counter = store.get("/m/counter").await.unwrap().unwrap();
    assert_eq!(counter.value, (WRITERS * WRITES).to_string());
    let mut seen = 0;
    let mut previous = from - 1;
    while seen < WRITERS * WRITES {
        let batch = tokio::time::timeout(LIMIT, batches.next()).await.unwrap().unwrap().unwrap();
        for pair in batch.events.chunks(2) {
            let [counter, own] = pair else { panic!("half a revision: {batch:?}") };
            seen += 1;
            assert_eq!((&*counter.key, counter.value.as_deref()), ("/m/counter", Some(seen.to_string().as_bytes())));
            assert!(own.modified == counter.modified && counter.modified > previous);
            previous = counter.modified;
        }
    }
}

async fn compaction(store: &dyn Store) {
    let first = put(store, "/c/a", "1").await;
    put(store, "/c/b", "1").await;
    put(store, "/c/a", "2").await;
    let at = commit(store, Txn { compare: vec![], ops: vec![Op::delete("/c/b")] }).await;
    let later = put(store, "/c/a", "3").await;
    store.compact(at).await.unwrap();
    assert!(matches!(store.compact(at).await, Err(StoreError::Compacted { .. })));
    assert!(matches!(store.range(Range { at: Some(first), ..under("/c/") }).await, Err(StoreError::Compacted { .. })));
    assert_eq!(keys(store, Range { at: Some(at), ..under("/c/") }).await, ["/c/a=2"]);
    assert_eq!(keys(store, under("/c/")).await, ["/c/a=3"]);
    assert_eq!(keys(store, under("/r/")).await, ["/r/a=2", "/r/b/x=1", "/r/b/y=1", "/r/d=2"], "what is current stays");
    let old = match store.watch(Watch { prefix: "/c/".into(), from: first, previous: false }).await {
        Ok(mut batches) => tokio::time::timeout(LIMIT, batches.next()).await.unwrap().unwrap().unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(old, StoreError::Compacted { oldest, .. } if oldest == at), "{old:?}");
    let mut batches = store.watch(Watch { prefix: "/c/".into(), from: at + 1, previous: false }).await.unwrap();
    assert_eq!(events_until(&mut batches, later).await, ["/c/a 3 <- -"]);
    assert!(matches!(store.compact(later + 1000).await, Err(StoreError::Future { .. })));
}

#[tokio::test]
async fn model() {
    contract(ModelStore::new(Arc::new(SystemClock::new()), 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    contract(Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap())).await;
}

/// A key, or what it holds: few, so that they meet.
fn pick(random: &mut fastrand::Rng, prefix: &str, of: u8) -> String {
    format!("{prefix}{}", random.u8(0..of))
}

fn chance_txn(random: &mut fastrand::Rng, last: Revision) -> Txn {
    let mut txn = Txn::default();
    for nth in 0..random.u8(1..4) {
        // No key twice.
        let key = format!("{}/{nth}", pick(random, "/k/", 12));
        if random.u8(0..4) == 0 {
            let modified = if random.bool() { 0 } else { last.saturating_sub(random.u64(0..12)) };
            txn.compare.push(Compare::modified(key.as_str(), modified));
        }
        txn.ops.push(if random.u8(0..4) == 0 { Op::delete(key) } else { Op::put(key, pick(random, "v", 250)) });
    }
    txn
}

/// What redb has not been given is told as if it had: outcomes, records, lists and watches are those of the model, whenever one
/// asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_and_model_tell_the_same() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        // Some ask all the time, some hardly ever.
        let every = [3, 30, 300][seed as usize % 3];
        let embedded = Embedded::in_memory(Arc::new(SystemClock::new())).unwrap();
        let model = ModelStore::new(Arc::new(SystemClock::new()), 1);
        let mut conflicts = 0;
        for step in 0..900 {
            let place = format!("seed {seed} step {step}");
            let last = embedded.revision().await.unwrap();
            let txn = chance_txn(&mut random, last);
            // The model's `txn_then` is the trait's own, in which a key that is not there after the first step has changed.
            let puts = txn.ops.iter().all(|op| matches!(op, Op::Put { .. }));
            let (one, other) = if puts && random.bool() {
                let then = vec![Op::put(txn.ops[0].key().clone(), "then")];
                (embedded.txn_then(txn.clone(), then.clone()).await, model.txn_then(txn, then).await)
            } else {
                (embedded.txn(txn.clone()).await, model.txn(txn).await)
            };
            let (one, other) = (one.unwrap(), other.unwrap());
            assert_eq!(one, other, "{place}");
            conflicts += usize::from(matches!(one, Outcome::Conflict(_)));
            let now = embedded.revision().await.unwrap();
            assert_eq!(now, model.revision().await.unwrap(), "{place}");
            if random.u32(0..every) > 0 {
                continue;
            }
            let key = format!("{}/0", pick(&mut random, "/k/", 12));
            assert_eq!(embedded.get(&key).await.unwrap(), model.get(&key).await.unwrap(), "{place}");
            let range =
                Range { at: Some(now - random.u64(0..now.min(300))), limit: random.usize(0..9), ..under("/k/") };
            assert_eq!(embedded.range(range.clone()).await.unwrap(), model.range(range).await.unwrap(), "{place}");
            let watch = Watch {
                prefix: "/k/".into(),
                from: now.saturating_sub(random.u64(0..60)).max(2),
                previous: random.bool(),
            };
            if watch.from <= now {
                let mut batches = embedded.watch(watch.clone()).await.unwrap();
                let told = events_until(&mut batches, now).await;
                let mut batches = model.watch(watch).await.unwrap();
                assert_eq!(told, events_until(&mut batches, now).await, "{place}");
            }
        }
        assert!(conflicts > 100, "{conflicts} conflicts");
    }
}

/// A watcher asks the writer for what redb has not, but keeps nobody from closing the store.
#[tokio::test]
async fn embedded_is_closed_while_somebody_watches() {
    let store = Embedded::in_memory(Arc::new(SystemClock::new())).unwrap();
    let first = put(&store, "/a", "1").await;
    let mut batches = store.watch(Watch { prefix: "/".into(), from: first, previous: true }).await.unwrap();
    // Asked, and not waited for.
    assert!(batches.next().now_or_never().is_none());
    let (closed, is_closed) = std::sync::mpsc::channel();
    let closing = std::thread::spawn(move || {
        drop(store);
        closed.send(()).unwrap();
    });
    is_closed.recv_timeout(LIMIT).expect("the store is closed");
    closing.join().unwrap();
}

#[tokio::test]
async fn embedded_expires_by_its_clock() {
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let store = Embedded::in_memory(clock.clone()).unwrap();
    let short = |key: &str| Op::Put { key: key.into(), value: "x".into(), ttl: Some(Duration::from_secs(60)) };
    commit(&store, Txn { compare: vec![], ops: vec![short("/a"), short("/b"), Op::put("/c", "x")] }).await;
    assert_eq!(store.expire().await.unwrap(), 0);
    clock.advance(Duration::from_secs(30));
    commit(&store, Txn { compare: vec![], ops: vec![short("/b")] }).await;
    clock.advance(Duration::from_secs(31));
    let from = store.revision().await.unwrap() + 1;
    assert_eq!(store.expire().await.unwrap(), 1);
    assert_eq!(keys(&store, under("/")).await, ["/b=x", "/c=x"]);
    let mut batches = store.watch(Watch { prefix: "/".into(), from, previous: false }).await.unwrap();
    assert_eq!(events_until(&mut batches, from).await, ["/a - <- -"]);
    clock.advance(Duration::from_secs(31));
    assert_eq!(store.expire().await.unwrap(), 1);
}

#[tokio::test]
async fn embedded_comes_back_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let clock = Arc::new(SystemClock::new());
    let store = Embedded::open(&path, clock.clone()).unwrap();
    put(&store, "/a", "1").await;
    let last = put(&store, "/a", "2").await;
    let refused = Embedded::open(&path, clock.clone()).err().expect("one process at a time").to_string();
    assert_eq!(refused, "the store is unavailable: another server has it open: stop that one first");
    drop(store);
    let store = Embedded::open(&path, clock).unwrap();
    assert_eq!(store.revision().await.unwrap(), last);
    let mut batches = store.watch(Watch { prefix: "/".into(), from: last, previous: true }).await.unwrap();
    assert_eq!(events_until(&mut batches, last).await, ["/a 2 <- 1"]);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Debian's etcd on 127.0.0.1, ended when dropped.
pub struct EtcdServer {
    process: tokio::process::Child,
    _directory: tempfile::TempDir,
    config: EtcdConfig,
}

impl EtcdServer {
    /// None where etcd is not installed.
    pub async fn start() -> Option<Self> {
        Self::with(None).await
    }

    /// With TLS, and certificates asked of clients, when there is an authority.
    async fn with(authority: Option<&Authority>) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let scheme = if authority.is_some() { "https" } else { "http" };
        let (url, peer) = (format!("{scheme}://127.0.0.1:{}", free()), format!("http://127.0.0.1:{}", free()));
        let mut command = tokio::process::Command::new("etcd");
        command
            .args(["--name", "t", "--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("t={peer}"), "--log-level", "error", "--data-dir"])
            .arg(directory.path().join("data"));
        let mut config = EtcdConfig { endpoints: vec![url], ..EtcdConfig::default() };
        if let Some(authority) = authority {
            let serving = identity(authority, &Subject::user("etcd"), Usage::Server);
            let client = identity(authority, &Subject::user("apiserver"), Usage::Client);
            for (option, name, pem) in [
                ("--trusted-ca-file", "ca", authority.cert_pem()),
                ("--cert-file", "cert", &serving.cert_pem),
                ("--key-file", "key", &serving.key_pem),
            ] {
                std::fs::write(directory.path().join(name), pem).unwrap();
                command.arg(option).arg(directory.path().join(name));
            }
            command.arg("--client-cert-auth");
            config.ca_pem = Some(authority.cert_pem().to_owned());
            config.identity = Some((client.cert_pem, client.key_pem));
        }
        let process = command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        Some(Self { process, _directory: directory, config })
    }

    /// Connects as soon as etcd answers.
    pub async fn connect(&mut self) -> Etcd {
        let config = self.config.clone();
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            match Etcd::connect(config.clone()).await {
                Ok(etcd) => return etcd,
                Err(error) => {
                    assert!(tokio::time::Instant::now() < deadline, "etcd does not come up: {error}");
                    assert!(self.process.try_wait().unwrap().is_none(), "etcd ended");
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd() {
    let mut server = EtcdServer::start().await.expect("Debian's etcd-server is installed");
    contract(Arc::new(server.connect().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_behind_the_api() {
    let mut server = EtcdServer::start().await.expect("Debian's etcd-server is installed");
    let harness = crate::harness::Harness::on(Arc::new(server.connect().await)).await;
    let client = harness.admin();
    let pods = "/api/v1/namespaces/default/pods";
    let mut watch = client.watch(&format!("{pods}?watch=1")).await;
    assert_eq!(client.post(pods, &crate::harness::pod("a")).await.0, 201);
    assert_eq!(watch.seen().await, ("ADDED".into(), "a".into()));
    // Somebody else writes to the same etcd, outside of what this server watches.
    let other = server.connect().await;
    put(&other, "/elsewhere", "x").await;
    assert_eq!(client.get(&format!("{pods}/a")).await.0, 200);
    // A second server on the same etcd serves the same.
    let second = crate::harness::Harness::on(Arc::new(server.connect().await)).await;
    assert_eq!(second.admin().get(&format!("{pods}/a")).await.1, client.get(&format!("{pods}/a")).await.1);
    second.admin().delete(&format!("{pods}/a")).await;
    assert_eq!(watch.seen().await, ("MODIFIED".into(), "a".into()));
    assert_eq!(watch.seen().await, ("DELETED".into(), "a".into()));
    // A server that starts when the past is gone.
    other.compact(other.revision().await.unwrap()).await.unwrap();
    let third = crate::harness::Harness::on(Arc::new(server.connect().await)).await;
    assert_eq!(third.admin().post(pods, &crate::harness::pod("b")).await.0, 201);
    assert_eq!(watch.seen().await, ("ADDED".into(), "b".into()));
}

/// Upstream tells what etcd says, without a reason: a client that tries again would be told the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_does_not_take_is_told_in_its_words() {
    let mut server = EtcdServer::start().await.expect("Debian's etcd-server is installed");
    let harness = crate::harness::Harness::on(Arc::new(server.connect().await)).await;
    let client = harness.admin();
    let pods = "/api/v1/namespaces/default/pods";
    for (size, message) in [
        (1_800_000, "etcdserver: request is too large"),
        (2_500_000, "rpc error: code = ResourceExhausted desc = trying to send message larger than max (250"),
    ] {
        let mut pod = crate::harness::pod("large");
        pod["spec"]["containers"][0]["args"] = serde_json::json!(["x".repeat(size)]);
        let (code, status) = client.post(pods, &pod).await;
        assert_eq!((code.as_u16(), &status["code"], &status["reason"]), (500, &500.into(), &serde_json::Value::Null));
        assert!(status["message"].as_str().unwrap().starts_with(message), "{status}");
    }
    assert_eq!(client.post(pods, &crate::harness::pod("small")).await.0, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_over_tls_with_several_endpoints() {
    let authority = authority();
    let mut server = EtcdServer::with(Some(&authority)).await.expect("Debian's etcd-server is installed");
    server.connect().await;
    // One that is not there does not stand in the way.
    server.config.endpoints.insert(0, "https://127.0.0.1:1".to_owned());
    let store = server.connect().await;
    for value in ["1", "2", "3", "4"] {
        put(&store, "/a", value).await;
    }
    assert_eq!(keys(&store, under("/")).await, ["/a=4"]);
    server.config.identity = None;
    assert!(Etcd::connect(server.config.clone()).await.is_err(), "a client without a certificate");
}
