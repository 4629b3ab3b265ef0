//! kill -9 of a server under write load, again and again: what it acknowledged is there, what it did not is there whole or
//! not at all, and a watch goes on over it.

use crate::harness::{LIMIT, identity};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::embedded::Embedded;
use coracle_apiserver::{ApiServer, Config};
use coracle_pki::{Authority, Subject, Usage};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 100;
const WRITERS: usize = 6;
const KEYS: usize = 5;
const DIRECTORY: &str = "CORACLE_TEST_KILLS";
const MARK: &str = "listens at ";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// The server that is killed: this program again, started by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of the test below"]
async fn the_server() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    // Nobody holds the other end of the input any more: the test is gone, and so is this.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let authority = Authority::load_or_create(directory, "test", jiff::Timestamp::now()).unwrap();
    let store = Embedded::open(directory.join("store"), Arc::new(SystemClock::new())).unwrap();
    let config = Config::new(Arc::new(store), authority.cert_pem(), "127.0.0.1:6443".parse().unwrap());
    let server = ApiServer::start(config).await.unwrap();
    let own = identity(&authority, &Subject::user("apiserver"), Usage::Server);
    let tls = server.tls(&own.cert_pem, &own.key_pem).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\n{MARK}{}", listener.local_addr().unwrap()).unwrap();
    out.flush().unwrap();
    server.serve(listener, tls, CancellationToken::new()).await;
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn start(directory: &Path) -> (Self, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["kills::the_server", "--exact", "--ignored", "--nocapture"]).env(DIRECTORY, directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let server = Self(child);
        let address = out.lines().map_while(Result::ok).find_map(|line| line.strip_prefix(MARK).map(str::to_owned));
        (server, address.expect("the server starts"))
    }
}

async fn client(authority: &Authority, address: &str) -> Client {
    let admin = identity(authority, &Subject::member("kubernetes-admin", "system:masters"), Usage::Client);
    let config: Kubeconfig = serde_json::from_value(json!({
        "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": format!("https://{address}"), "certificate-authority-data": STANDARD.encode(authority.cert_pem())}}],
        "users": [{"name": "a", "user": {"client-certificate-data": STANDARD.encode(&admin.cert_pem), "client-key-data": STANDARD.encode(&admin.key_pem)}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    }))
    .unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// What came of a request: answered, or nobody knows.
enum Answer {
    Done,
    Refused(u16),
    Unknown,
}

async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Answer {
    let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(body.to_string().into_bytes()).unwrap();
    match tokio::time::timeout(LIMIT, client.request::<Value>(request)).await.expect("an answer, or none, in time") {
        Ok(_) => Answer::Done,
        Err(kube::Error::Api(status)) => Answer::Refused(status.code),
        Err(_) => Answer::Unknown,
    }
}

/// What a writer knows of its keys: the number there, if there is one, and what else may be there instead.
#[derive(Default)]
struct Known {
    sure: BTreeMap<String, Option<u64>>,
    maybe: Option<(String, Option<u64>)>,
}

/// Counts up in its keys, deletes them, and makes them again, until the server is gone. One writer does so with services,
/// which take more than one key of the store each.
async fn write(
    client: Client,
    writer: usize,
    round: u64,
    acknowledged: mpsc::UnboundedSender<()>,
    mut known: Known,
) -> Known {
    for step in 0..u64::MAX {
        let name = format!("w{writer}-{}", fastrand::usize(..KEYS));
        let there = known.sure.get(&name).copied().flatten();
        let number = round * 1_000_000 + step;
        let (path, body) = if writer == 0 {
            (
                SERVICES,
                json!({"metadata": {"name": name, "annotations": {"n": number.to_string()}}, "spec": {"ports": [{"port": 80}]}}),
            )
        } else {
            (MAPS, json!({"metadata": {"name": name}, "data": {"n": number.to_string()}}))
        };
        let one = format!("{path}/{name}");
        let (answer, then) = match there {
            None => (send(&client, "POST", path, &body).await, Some(number)),
            Some(_) if writer == 0 || fastrand::u8(..4) == 0 => (send(&client, "DELETE", &one, &json!({})).await, None),
            Some(_) => (send(&client, "PUT", &one, &body).await, Some(number)),
        };
        match answer {
            Answer::Done => {
                known.sure.insert(name, then);
                let _ = acknowledged.send(());
            }
            Answer::Refused(code) => panic!("{name}: {code}, though {there:?} is there"),
            Answer::Unknown => {
                known.maybe = Some((name, then));
                return known;
            }
        }
    }
    known
}

fn number(object: &Value) -> u64 {
    let text = object.pointer("/data/n").or_else(|| object.pointer("/metadata/annotations/n"));
    text.and_then(Value::as_str).unwrap_or_default().parse().unwrap()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

async fn list(client: &Client, path: &str) -> Value {
    client.request(http::Request::get(path).body(Vec::new()).unwrap()).await.unwrap()
}

/// What is there is what was acknowledged, or what was being written.
async fn check(client: &Client, round: usize, known: &mut [Known]) {
    let (maps, services) = (list(client, MAPS).await, list(client, SERVICES).await);
    let found: HashMap<String, u64> = maps["items"]
        .as_array()
        .unwrap()
        .iter()
        .chain(services["items"].as_array().unwrap())
        .filter(|object| name(object).starts_with('w'))
        .map(|object| (name(object), number(object)))
        .collect();
    for known in known {
        let maybe = known.maybe.take();
        for (name, sure) in &mut known.sure {
            let there = found.get(name).copied();
            let other = maybe.as_ref().filter(|(other, _)| other == name).map(|(_, then)| *then);
            assert!(
                there == *sure || Some(there) == other,
                "round {round}: {name} was {sure:?}, maybe {other:?}, and is {there:?}"
            );
            *sure = there;
        }
        if let Some((name, then)) = maybe
            && !known.sure.contains_key(&name)
        {
            let there = found.get(&name).copied();
            assert!(there.is_none() || there == then, "round {round}: {name} is {there:?}");
            known.sure.insert(name, there);
        }
    }
    // A service has its address exactly when it is there.
    let addresses = list(client, "/apis/networking.k8s.io/v1/ipaddresses").await;
    let mut taken: Vec<&str> =
        addresses["items"].as_array().unwrap().iter().filter_map(|ip| ip["metadata"]["name"].as_str()).collect();
    let mut given: Vec<&str> = services["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|service| service["spec"]["clusterIP"].as_str())
        .collect();
    taken.sort_unstable();
    given.sort_unstable();
    assert_eq!(taken, given, "round {round}: half a service");
}

/// A watcher that goes on where it was; by its events alone it must come to what a list says.
async fn follow(client: &Client, round: usize, seen: &mut u64, state: &mut BTreeMap<String, u64>) {
    let maps = list(client, MAPS).await;
    let revision: u64 = maps["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let listed: BTreeMap<String, u64> = maps["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|map| name(map).starts_with('w'))
        .map(|map| (name(map), number(map)))
        .collect();
    if *seen > 0 {
        let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={seen}");
        let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = http_body_util::BodyExt::into_data_stream(response.into_body());
        let mut buffer = Vec::new();
        while *state != listed {
            let piece = tokio::time::timeout(LIMIT, futures::StreamExt::next(&mut body)).await;
            let piece = piece
                .unwrap_or_else(|_| panic!("round {round}: the watch stays at {state:?}, the list says {listed:?}"));
            buffer.extend_from_slice(&piece.expect("the watch goes on").unwrap());
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                let object = &event["object"];
                let at: u64 = object["metadata"]["resourceVersion"]
                    .as_str()
                    .unwrap_or_else(|| panic!("{event}"))
                    .parse()
                    .unwrap();
                assert!(
                    at > *seen && at <= revision,
                    "round {round}: an event of {at} after {seen}, before {revision}"
                );
                *seen = at;
                match event["type"].as_str().unwrap() {
                    "ADDED" => assert_eq!(state.insert(name(object), number(object)), None, "round {round}: {event}"),
                    "MODIFIED" => {
                        assert!(state.insert(name(object), number(object)).is_some(), "round {round}: {event}")
                    }
                    "DELETED" => assert!(state.remove(&name(object)).is_some(), "round {round}: {event}"),
                    "BOOKMARK" => {}
                    other => panic!("{other}"),
                }
            }
        }
    }
    *state = listed;
    *seen = revision;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_keeps_its_word() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(directory.path(), "test", jiff::Timestamp::now()).unwrap();
    let mut known: Vec<Known> = (0..WRITERS).map(|_| Known::default()).collect();
    let (mut seen, mut state) = (0, BTreeMap::new());
    for round in 0..ROUNDS {
        let (server, address) = Server::start(directory.path());
        let client = client(&authority, &address).await;
        check(&client, round, &mut known).await;
        follow(&client, round, &mut seen, &mut state).await;
        let (acknowledged, mut acknowledgements) = mpsc::unbounded_channel();
        let writers: Vec<_> = std::mem::take(&mut known)
            .into_iter()
            .enumerate()
            .map(|(writer, known)| {
                tokio::spawn(write(client.clone(), writer, round as u64, acknowledged.clone(), known))
            })
            .collect();
        drop(acknowledged);
        for _ in 0..fastrand::usize(1..60) {
            let next = tokio::time::timeout(Duration::from_secs(30), acknowledgements.recv()).await;
            next.expect("the server acknowledges").expect("no writer has failed");
        }
        drop(server);
        for writer in writers {
            known.push(writer.await.unwrap());
        }
    }
}
